"""What every local service shares: started once, found again by anybody, stopped without a trace."""

import fcntl
import json
import shutil
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

from vector_assets.engine import env
from vector_assets.engine.errors import ConfigError, FatalError, TransientError
from vector_assets.local import ports, process
from vector_assets.local.process import Command, Process

Progress = Callable[[str], None]
"""Told what a slow step is doing, in a few words."""

State = Literal["up", "starting", "down"]

_LOCK_TIMEOUT_S = 300.0
_PORT_ATTEMPTS = 3
_TAIL_LINES = 20


def silent(_message: str) -> None:
    """A progress callback that says nothing."""


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """How one service is doing: `up` answers, `starting` runs without answering, `down` does not run."""

    name: str
    state: State
    version: str
    address: str
    pid: int | None
    data_dir: Path
    log: Path


@dataclass(frozen=True, slots=True)
class _Record:
    pid: int
    identity: str
    version: str

    @property
    def process(self) -> Process:
        return Process(self.pid, self.identity)


class LocalService(ABC):
    """One server process with its state folder; every instance over the same folder is the same service."""

    name: ClassVar[str]
    secret_names: ClassVar[tuple[str, ...]]
    port_names: ClassVar[tuple[str, ...]] = ("client",)
    is_large: ClassVar[bool] = False
    """True of one that is started only when it is named, because it downloads hundreds of megabytes at first."""
    start_timeout_s: ClassVar[float] = 60.0
    stop_timeout_s: ClassVar[float] = 20.0
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, state_dir: Path | None = None) -> None:
        self.state_dir = (state_dir or env.home() / self.name).absolute()

    @classmethod
    @abstractmethod
    def missing(cls) -> str | None:
        """Why the service cannot run on this machine (a package to install), or None."""

    @abstractmethod
    def secrets(self) -> Mapping[str, str]:
        """What a pipeline must know to reach the service, by secret name; defined once it has started."""

    @property
    @abstractmethod
    def data_dir(self) -> Path:
        """Where the service keeps its data."""

    @abstractmethod
    def _prepare(self, progress: Progress) -> None:
        """Make everything but the process: downloads, first-time set-up."""

    @abstractmethod
    def _command(self) -> Command:
        """How to start the server on the assigned ports."""

    @abstractmethod
    def _answers(self) -> bool:
        """True when the server serves; a port held by somebody else is not an answer."""

    @abstractmethod
    def _version(self) -> str:
        """The version of the server that answers now."""

    @property
    def log(self) -> Path:
        """Output of the process that was started last; the one before it ends in `.1`."""
        return self.state_dir / f"{self.name}.log"

    @property
    def port(self) -> int:
        """The port for clients; chosen now if it never was."""
        return self.ports()["client"]

    @property
    def address(self) -> str:
        """`127.0.0.1:<port>`."""
        return f"{ports.HOST}:{self.port}"

    def ports(self) -> dict[str, int]:
        """All ports of the service by name; chosen now if they never were."""
        saved = ports.load(self._ports_file)
        if set(saved) == set(self.port_names):
            return saved
        self._make_state_dir()
        return ports.assign(self._ports_file, self.port_names)

    def start(self, progress: Progress = silent) -> ServiceStatus:
        """Start the service unless it runs, and return when it serves.

        Raises:
            ConfigError: something the service needs is missing on this machine, or its folder is another user's.
            FatalError: the server ended or did not answer in time; the message shows the end of its log.
            TransientError: another process has been starting or stopping it for too long, or a download failed.
        """
        with self._own_files():
            self._make_state_dir()
            with self._exclusive(progress):
                record = self._record()
                if record is None:
                    self._prepare(progress)
                    self._launch_on_free_ports(progress)
                elif not self._serves(record.process):
                    raise self._failure(record.process)
                return self._status(self._identified(), "up")

    def stop(self, progress: Progress = silent) -> bool:
        """Stop the service gracefully; False when it did not run. Its data stays.

        Raises:
            ConfigError: its folder is another user's.
            TransientError: another process has been starting or stopping it for too long.
        """
        if not self.state_dir.exists():
            return False
        with self._own_files(), self._exclusive(progress):
            record = self._record()
            if record is not None:
                progress(f"stopping {self.name}")
                process.end(record.process, self.stop_signal, self.stop_timeout_s)
            self._record_file.unlink(missing_ok=True)
            return record is not None

    def erase(self) -> None:
        """End the server at once, for nothing is kept, and delete everything it keeps."""
        self.kill()
        self.stop()
        shutil.rmtree(self.state_dir, ignore_errors=True)

    def kill(self) -> None:
        """End the server the hard way (SIGKILL), as a crash would."""
        record = self._record()
        if record is not None:
            process.end(record.process, signal.SIGKILL, self.stop_timeout_s)

    def status(self) -> ServiceStatus:
        """How the service is doing now.

        Raises:
            ConfigError: its folder is another user's.
        """
        with self._own_files():
            record = self._record()
            if record is None:
                return self._status(None, "down")
            return self._status(record, "up" if self._answers() else "starting")

    def _status(self, record: _Record | None, state: State) -> ServiceStatus:
        has_ports = bool(ports.load(self._ports_file))
        return ServiceStatus(
            name=self.name,
            state=state,
            version=record.version if record else "",
            address=self.address if has_ports else "",
            pid=record.pid if record else None,
            data_dir=self.data_dir,
            log=self.log,
        )

    def _launch_on_free_ports(self, progress: Progress) -> None:
        for attempt in range(_PORT_ATTEMPTS):
            assigned = ports.assign(self._ports_file, self.port_names)
            progress(f"starting {self.name} on {self.address}")
            started = self._launch()
            if started is not None and self._serves(started):
                return
            # somebody may have taken a port between the choice and the bind
            has_lost_port = not all(map(ports.is_free, assigned.values()))
            is_running = started is not None and started.is_alive()
            if is_running or not has_lost_port or attempt + 1 == _PORT_ATTEMPTS:
                raise self._failure(started)

    def _launch(self) -> Process | None:
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".log.1"))
        started = process.launch(self._command(), self.log, self.state_dir)
        if started is not None:
            self._save(_Record(started.pid, started.identity, ""))
        return started

    def _serves(self, started: Process) -> bool:
        """True once the process answers, False when it ends or the time is up."""
        answered = False

        def settled() -> bool:
            nonlocal answered
            answered = self._answers()
            return answered or not started.is_alive()

        process.until(settled, self.start_timeout_s)
        return answered and started.is_alive()

    def _failure(self, started: Process | None) -> FatalError:
        """The error for a server that does not serve; one that still runs (a long recovery) is left to go on."""
        if started is not None and started.is_alive():
            outcome = f"runs (pid {started.pid}) but has not answered on {self.address} for {self.start_timeout_s:g} s"
        else:
            outcome = "ended while starting"
            self._record_file.unlink(missing_ok=True)
        return FatalError(f"{self.name}: the server {outcome}; end of {self.log}:\n{self._log_tail()}")

    def _log_tail(self) -> str:
        if not self.log.exists():
            return "(no log)"
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - 20_000))
            lines = file.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-_TAIL_LINES:]) or "(empty)"

    @property
    def _ports_file(self) -> Path:
        return self.state_dir / "ports.json"

    @property
    def _record_file(self) -> Path:
        return self.state_dir / "process.json"

    def _record(self) -> _Record | None:
        """What is known of the running process; None when it does not run."""
        try:
            record = _Record(**json.loads(self._record_file.read_text()))
        except FileNotFoundError:
            return None
        return record if record.process.is_alive() else None

    def _identified(self) -> _Record | None:
        """The running process with the version it answered, asked once per process."""
        record = self._record()
        if record is not None and not record.version:
            record = replace(record, version=self._version())
            self._save(record)
        return record

    def _save(self, record: _Record) -> None:
        draft = self._record_file.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(record)))
        draft.replace(self._record_file)

    def _make_state_dir(self) -> None:
        if not self.state_dir.exists():
            self.state_dir.mkdir(parents=True, exist_ok=True)
            # a server that runs as another user must get through, whatever the umask
            self.state_dir.chmod(0o711)

    @contextmanager
    def _own_files(self) -> Iterator[None]:
        try:
            yield
        except PermissionError as error:
            raise ConfigError(
                f"{self.name}: no permission for {error.filename}: was the service started by another user?"
            ) from error

    def _exclusive(self, progress: Progress) -> AbstractContextManager[None]:
        """One process starts or stops the service at a time."""
        return exclusive(self.state_dir / "lock", self.name, progress)


@contextmanager
def exclusive(file: Path, what: str, progress: Progress) -> Iterator[None]:
    """Hold the lock on `file`, which protects `what`; it ends with this process at the latest.

    Raises:
        TransientError: somebody else holds it for too long.
    """
    with file.open("a") as opened:
        if not _try_lock(opened.fileno()):
            progress(f"waiting for another process that changes {what}")
            if not process.until(lambda: _try_lock(opened.fileno()), _LOCK_TIMEOUT_S):
                raise TransientError(f"{what}: {file} has been locked by another process for {_LOCK_TIMEOUT_S:g} s")
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
