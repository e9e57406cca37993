"""Disks that fill up: a tmpfs of its own, or a limit on the size of files where mounting is not permitted."""

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MiB = 1024 * 1024


class SmallDisk:
    """A folder that takes a megabyte; `grow` ends that."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()


class Tmpfs(SmallDisk):
    """A file system of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        if os.geteuid() != 0:
            pytest.skip("mounting a tmpfs needs root; the limit on file sizes stands in for it")
        self._mount("-t", "tmpfs", "-o", f"size={MiB}", "tmpfs")

    def _mount(self, *arguments: str) -> None:
        done = subprocess.run(["mount", *arguments, self.folder], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")

    def grow(self) -> None:
        self._mount("-o", f"remount,size={64 * MiB}")

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", self.folder], check=True)


class SmallFiles(SmallDisk):
    """A limit of this process on the size of any file it writes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (MiB, self.before[1]))

    def grow(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)

    def close(self) -> None:
        self.grow()


@contextmanager
def small(kind: type, folder: Path) -> Iterator[Tmpfs | SmallFiles]:
    """A small disk for the length of the block."""
    disk = kind(folder)
    try:
        yield disk
    finally:
        disk.close()
