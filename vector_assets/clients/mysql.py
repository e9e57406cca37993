"""MySQL and MariaDB: connections, their errors, and what a server says of its binlog."""

import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pymysql
import pymysql.connections
from pymysql.constants import CR

from vector_assets.clients.mysql_gtid import Gtids
from vector_assets.engine.errors import ConfigError, PlanError, TransientError, UnavailableError

_READ_SECONDS = 60
_OWNED_SECONDS = 30
_LOST = frozenset({CR.CR_CONNECTION_ERROR, CR.CR_CONN_HOST_ERROR, CR.CR_SERVER_GONE_ERROR, CR.CR_SERVER_LOST, 1053, 0})
_AGAIN = frozenset({1040, 1203, 1205, 1213, 1226, 1317, 1927})
_REFUSED = frozenset({1044, 1045, 1049, 1130, 1142, 1143, 1227, 1698, 2059, 2061})


@dataclass(frozen=True, slots=True)
class Login:
    """Where the server is and who asks."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    connect_seconds: int = 5

    @property
    def where(self) -> str:
        """`mysql host:port`, for messages."""
        return f"mysql {self.host}:{self.port}"

    def settings(self, **more: Any) -> dict[str, Any]:
        """Arguments of `pymysql.connect`."""
        return {
            "host": self.host, "port": self.port, "user": self.user, "password": self.password, "charset": "utf8mb4",
            "autocommit": True, "connect_timeout": self.connect_seconds, "read_timeout": _READ_SECONDS,
            "init_command": "SET time_zone = '+00:00', sql_mode = ''", **more,
        }  # fmt: skip


class Connection(pymysql.connections.Connection):  # type: ignore[misc]  # the library has no types
    """A connection that takes TLS where the server has it and, as the library does, any certificate.

    The library reads all certificates of the system first, for each connection (1.1): tens of milliseconds of CPU,
    more than everything else about a connection.
    """

    def _create_ssl_ctx(self, sslp: dict[str, Any]) -> ssl.SSLContext:
        return super()._create_ssl_ctx(sslp) if sslp else _any_certificate()


@cache
def _any_certificate() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Errors of the client as ours.

    Raises:
        UnavailableError: the server cannot be reached, or went away.
        ConfigError: it refuses us.
        TransientError: a lock or a limit; worth another try.
        PlanError: it does not understand, or does not have, what is asked for.
    """
    try:
        yield
    except pymysql.MySQLError as error:
        code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        text = f"{where}: {error.args[1] if len(error.args) > 1 else error}"
        if code in _REFUSED:
            raise ConfigError(text) from error
        if code in _LOST:
            raise UnavailableError(text) from error
        if code in _AGAIN:
            raise TransientError(text) from error
        raise PlanError(f"{text} ({code})") from error
    except OSError as error:
        raise UnavailableError(f"{where}: {error}") from error


@dataclass(frozen=True, slots=True)
class Binlog:
    """What a server says of its binlog: the flavour, who it is, and the range that can be read.

    `first` and `last` are GTIDs before the first and after the last transaction; empty sets where GTIDs are off.
    """

    first: Gtids
    last: Gtids
    is_mariadb: bool
    server: str
    first_file: str
    file: str
    pos: int
    has_gtids: bool = True


class MySql:
    """One connection for questions, opened when first asked and again after an outage. Not thread-safe."""

    def __init__(self, login: Login) -> None:
        self.login = login
        self._connection: Any = None
        self._is_mariadb: bool | None = None

    def rows(self, text: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of one statement.

        Raises:
            VectorAssetsError: as `translated`.
        """
        try:
            with translated(self.login.where):
                if self._connection is None:
                    self._connection = Connection(**self.login.settings())
                with self._connection.cursor() as cursor:
                    cursor.execute(text, tuple(values) or None)
                    return list(cursor.fetchall())
        except (TransientError, ConfigError):
            self.close()
            raise

    def value(self, text: str, values: Sequence[Any] = ()) -> Any:
        """The first value of the first row; None when there is none."""
        rows = self.rows(text, values)
        return rows[0][0] if rows else None

    def variables(self, *names: str) -> dict[str, str]:
        """Global variables that exist, by name."""
        listed = ", ".join(["%s"] * len(names))
        found = self.rows(f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({listed})", names)
        return {str(name).lower(): str(value) for name, value in found}

    @property
    def is_mariadb(self) -> bool:
        """True of MariaDB, false of MySQL."""
        if self._is_mariadb is None:
            self._is_mariadb = "mariadb" in str(self.value("SELECT @@version")).lower()
        return self._is_mariadb

    def binlog(self) -> Binlog:
        """Its binlog now.

        Raises:
            ConfigError: there is none.
        """
        status = self._status()
        files = [str(row[0]) for row in self.rows("SHOW BINARY LOGS")]
        file, pos = str(status[0]), int(status[1])
        if self.is_mariadb:
            first = self.value("SELECT BINLOG_GTID_POS(%s, 4)", (files[0],)) or ""
            last = self.value("SELECT @@GLOBAL.gtid_binlog_pos") or ""
            server = f"{self.value('SELECT @@server_id')}"
            known = Gtids.of(first, is_mariadb=True), Gtids.of(last, is_mariadb=True)
            return Binlog(*known, is_mariadb=True, server=server, first_file=files[0], file=file, pos=pos)
        has_gtids = self.variables("gtid_mode").get("gtid_mode", "OFF") == "ON"
        known = (self._gtids("gtid_purged"), self._gtids("gtid_executed")) if has_gtids else (Gtids(), Gtids())
        server = str(self.value("SELECT @@server_uuid"))
        return Binlog(
            *known, is_mariadb=False, server=server, first_file=files[0], file=file, pos=pos, has_gtids=has_gtids
        )

    def _gtids(self, variable: str) -> Gtids:
        text = self.value(f"SELECT @@GLOBAL.{variable}")
        try:
            return Gtids.of(text)
        except ValueError as error:
            # tags of MySQL 8.3
            raise PlanError(f"{self.login.where}: {variable} is {str(text)[:200]!r}, which cannot be read") from error

    def settle(self) -> None:
        """Wait until every transaction that a SELECT or a replica can have seen before this call is in `binlog().last`.

        MySQL shows and sends the rows of a transaction before it counts it as executed: meanwhile its GTID is owned by
        a session. MariaDB counts it first.

        Raises:
            TransientError: a session has owned its GTIDs for too long.
        """
        if self.is_mariadb:
            return
        owned = ",".join(part.partition("#")[0] for part in str(self.value("SELECT @@GLOBAL.gtid_owned")).split(","))
        if owned and self.value("SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, %s)", (owned, _OWNED_SECONDS)):
            raise TransientError(
                f"{self.login.where}: the transactions {owned[:200]} have been on their way for {_OWNED_SECONDS} s:"
                f" reading waits for them"
            )

    def _status(self) -> tuple[Any, ...]:
        try:
            rows = self.rows("SHOW MASTER STATUS")
        except PlanError:
            # gone in MySQL 8.4
            rows = self.rows("SHOW BINARY LOG STATUS")
        if not rows:
            raise ConfigError(f"{self.login.where}: the server writes no binlog; start it with log_bin")
        return rows[0]

    def close(self) -> None:
        """Give back the connection; idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except (pymysql.MySQLError, OSError):
                return


def check_binlog(server: MySql) -> None:
    """Make sure that the binlog holds whole rows with names.

    Raises:
        ConfigError: a setting is not what change capture needs; every such setting is named.
    """
    wanted = {
        "log_bin": "ON", "binlog_format": "ROW", "binlog_row_image": "FULL", "binlog_row_metadata": "FULL",
        "log_bin_compress": "OFF",
    }  # fmt: skip
    found = server.variables(*wanted)
    wrong = [
        f"{name} = {found[name]} (want {value})"
        for name, value in wanted.items()
        if found.get(name, value).upper() != value
    ]
    if "binlog_row_metadata" not in found:
        wrong.append("no binlog_row_metadata (want MariaDB 10.5 or MySQL 8.0.14, or newer)")
    if wrong:
        raise ConfigError(
            f"{server.login.where}: change capture needs other settings of the server: {', '.join(wrong)}"
        )
