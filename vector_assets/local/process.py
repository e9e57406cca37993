"""Detached processes: a pid is only ever signalled while it is still the process that was started."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_POLL_S = 0.02
_CHILDREN_TIMEOUT_S = 5.0

_LAUNCHER = '"$@" </dev/null 2>&1 & echo $! >&2'
"""The shell leaves the process to init, so that a caller who lives on keeps no zombie and no pipe."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process, told apart by its start time from a later one with the same pid."""

    pid: int
    identity: str

    def is_alive(self) -> bool:
        """True while this very process runs; a zombie does not."""
        return identity(self.pid) == self.identity

    def signal(self, number: int) -> None:
        """Send a signal unless the process is gone."""
        if self.is_alive():
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return

    def descendants(self) -> list["Process"]:
        """Children, and theirs, that run now."""
        parents = dict(_parents())
        found = [self.pid]
        for pid in found:
            found.extend(child for child, parent in parents.items() if parent == pid)
        return [process for process in map(find, found[1:]) if process is not None]


@dataclass(frozen=True, slots=True)
class Command:
    """What to launch: arguments, whole environment and, for a root caller, the user to become."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    user: int | None = None
    group: int | None = None

    def run(self, folder: Path) -> subprocess.CompletedProcess[bytes]:
        """Run to the end in `folder`; standard output and error come back together."""
        return subprocess.run(
            list(self.arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=dict(self.environment),
            check=False,
            user=self.user,
            group=self.group,
            extra_groups=self.other_groups,
        )

    @property
    def other_groups(self) -> list[int] | None:
        """No supplementary groups for a user switched to; the caller's own otherwise."""
        return None if self.user is None else []


def find(pid: int) -> Process | None:
    """The process that has this pid now, or None."""
    start = identity(pid)
    return Process(pid, start) if start else None


def identity(pid: int) -> str:
    """Boot and start time of a running process; empty when there is none or only a zombie."""
    if not _PROC.joinpath("self/stat").exists():
        return _identity_by_ps(pid)
    fields = _stat(pid)
    if not fields or (fields[0] in {"Z", "X"} and not _has_threads(pid)):
        return ""
    boot = _PROC.joinpath("sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}:{fields[19]}"


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name: state, parent, ..., start time at 19."""
    try:
        return _PROC.joinpath(str(pid), "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _has_threads(pid: int) -> bool:
    """True while threads outlive a killed process's first one, and with them its sockets and locks."""
    try:
        return len(list(_PROC.joinpath(str(pid), "task").iterdir())) > 1
    except (FileNotFoundError, ProcessLookupError):
        return False


def _identity_by_ps(pid: int) -> str:
    line = _ps("-o", "state=,lstart=", "-p", str(pid)).strip()
    state, _, started = line.partition(" ")
    return "" if state.startswith("Z") else started.strip()


def _ps(*arguments: str) -> str:
    return subprocess.run(["ps", *arguments], capture_output=True, text=True, check=False).stdout


def _parents() -> Iterator[tuple[int, int]]:
    if not _PROC.joinpath("self/stat").exists():
        for line in _ps("-A", "-o", "pid=,ppid=").splitlines():
            pid, parent = line.split()
            yield int(pid), int(parent)
        return
    for folder in _PROC.iterdir():
        fields = _stat(int(folder.name)) if folder.name.isdigit() else []
        if fields:
            yield int(folder.name), int(fields[1])


def working_in(folder: Path) -> list[Process] | None:
    """Processes whose working directory is `folder`; None where the system cannot tell."""
    if not _PROC.joinpath("self/cwd").exists():
        return None
    found = []
    for link in _PROC.glob("[0-9]*/cwd"):
        try:
            inside = link.readlink() == folder
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        process = find(int(link.parent.name)) if inside else None
        if process is not None:
            found.append(process)
    return found


def launch(command: Command, log: Path, folder: Path) -> Process | None:
    """Start a process of its own session, output to `log`; None when it ended before it could be looked at."""
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
        shell = subprocess.run(
            ["/bin/sh", "-c", _LAUNCHER, "sh", *command.arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE,
            cwd=folder,
            env=dict(command.environment),
            start_new_session=True,
            check=True,
            user=command.user,
            group=command.group,
            extra_groups=command.other_groups,
        )
    # gRPC logs there too when a process that uses it forks
    return find(int(shell.stderr.split()[-1]))


def until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Poll until the condition holds; False when the time is up first."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def end(process: Process, number: signal.Signals, timeout_s: float) -> None:
    """Ask a process to end, kill what is left of it after the timeout, and wait until its children are gone too."""
    family = [process, *process.descendants()]
    process.signal(number)
    until(lambda: not process.is_alive(), timeout_s)
    if process.is_alive():
        family.extend(process.descendants())
        process.signal(signal.SIGKILL)
    # children of a killed parent notice it by themselves and may hold its files for a moment
    if not until(lambda: not any(member.is_alive() for member in family), _CHILDREN_TIMEOUT_S):
        for member in family:
            member.signal(signal.SIGKILL)
        until(lambda: not any(member.is_alive() for member in family), _CHILDREN_TIMEOUT_S)
