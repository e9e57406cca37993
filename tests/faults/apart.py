"""The command line in processes of their own that start in a moment and that tests kill.

They are forked from a process that has imported everything: a new interpreter would take 2 s of a processor each time.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "vector_assets.cli.run",
        "vector_assets.cli.ledger",
        "vector_assets.declare",
        "vector_assets.engine.rewrite",
        "vector_assets.formats.changelog_json",
        "vector_assets.formats.csv",
        "vector_assets.clients.maxcompute_rest",
        "vector_assets.sinks.adbpg",
        "vector_assets.sinks.maxcompute",
        "vector_assets.sources.datagen",
        "vector_assets.sinks.milvus",
        "vector_assets.sinks.paimon",
        "vector_assets.sinks.paimon_maintain",
        "vector_assets.sources.kafka",
        "vector_assets.declare.autoetl",
        "vector_assets.transforms.sql",
    ]
)


class Apart:
    """`vector-assets <arguments>` under its own environment; used as a Popen is."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        handle, name = tempfile.mkstemp(prefix="output-", dir=folder)
        os.close(handle)
        self._output = Path(name)
        self._process = _CONTEXT.Process(target=_main, args=(list(arguments), dict(environment), folder, name))
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; minus the number of the signal that ended it."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """Wait for its end; what it wrote."""
        self._process.join(timeout)
        if self.returncode is None:
            self.kill()
            self._process.join()
            raise subprocess.TimeoutExpired("vector-assets", timeout or 0.0, self._output.read_bytes())
        return self._output.read_text(), None

    def wait(self, timeout: float | None = None) -> int | None:
        self.communicate(timeout)
        return self.returncode


def _main(arguments: list[str], environment: dict[str, str], folder: Path, output: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    descriptor = os.open(output, os.O_WRONLY | os.O_APPEND)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    sys.argv = ["vector-assets", *arguments]
    from vector_assets.cli import main

    main()
