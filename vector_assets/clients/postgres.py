"""Connections to PostgreSQL and its relatives, and what their errors mean to the engine."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

import psycopg
from psycopg import errors as pg
from psycopg.adapt import Buffer, Dumper, PyFormat
from psycopg.pq import Format
from psycopg_pool import ConnectionPool, PoolTimeout
from pydantic import SecretStr

from vector_assets.engine.errors import (
    ConfigError,
    FatalError,
    PlanError,
    TransientError,
    UnavailableError,
    VectorAssetsError,
)

Connection = psycopg.Connection[tuple[Any, ...]]

TLS_PARAMETERS = ("sslmode", "sslrootcert", "sslcert", "sslkey")
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_URL_FORM = "jdbc:postgresql://host[:port]/database[?sslmode=..&sslrootcert=..&sslcert=..&sslkey=..]"

_CONNECT_TIMEOUT_S = 10
_POOL_TIMEOUT_S = 5.0
_IDLE_IN_TRANSACTION_S = 120
"""A session whose process was stopped inside a transaction gives its locks back after this long."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a database is, without credentials."""

    host: str
    port: int
    database: str
    parameters: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, url: str) -> Self:
        """The address in a JDBC or libpq URL.

        Raises:
            ValueError: another form, unknown parameters, or credentials in the URL; what was found is not repeated.
        """
        parts = urlsplit(url.strip().removeprefix("jdbc:"))
        if parts.scheme not in {"postgresql", "postgres"}:
            raise ValueError(f"want {_URL_FORM}")
        if "@" in parts.netloc:
            raise ValueError("it holds credentials: leave them out, the options username and password take them")
        if "," in parts.netloc:
            raise ValueError("it names several hosts: give the one endpoint of the instance")
        try:
            port = parts.port or 5432
        except ValueError:
            raise ValueError(f"the port is not a number from 1 to 65535; want {_URL_FORM}") from None
        database = unquote(parts.path.removeprefix("/"))
        if not parts.hostname or not database or parts.fragment:
            raise ValueError(f"want {_URL_FORM}")
        return cls(parts.hostname, port, database, _parameters(parts.query))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}/{self.database}"


def _parameters(query: str) -> tuple[tuple[str, str], ...]:
    given = parse_qsl(query, keep_blank_values=True)
    for name, value in given:
        if name in {"user", "password"}:
            raise ValueError("it holds credentials: leave them out, the options username and password take them")
        if name not in TLS_PARAMETERS:
            raise ValueError(f"parameter {name!r} is not supported; known parameters: {', '.join(TLS_PARAMETERS)}")
        if name == "sslmode" and value not in _SSL_MODES:
            raise ValueError(f"sslmode is {value!r}; known values: {', '.join(_SSL_MODES)}")
    return tuple(given)


@dataclass(frozen=True, slots=True)
class Login:
    """An address with the credentials to use there."""

    address: Address
    user: str
    password: SecretStr

    def arguments(self, name: str) -> dict[str, Any]:
        """Keyword arguments of `psycopg.connect`; `name` is what the server calls the session."""
        return {
            "host": self.address.host,
            "port": self.address.port,
            "dbname": self.address.database,
            "user": self.user,
            "password": self.password.get_secret_value(),
            "application_name": name,
            "client_encoding": "UTF8",
            "connect_timeout": _CONNECT_TIMEOUT_S,
            # a server that vanished without a word is noticed within a minute
            "keepalives_idle": 20,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "tcp_user_timeout": 60_000,
            "autocommit": True,
            # statements carry whole arrays: a plan made without looking at them is a bad one
            "prepare_threshold": None,
            **dict(self.address.parameters),
        }


def connect(login: Login, *, name: str = "vector_assets", place: str | None = None) -> Connection:
    """A connection of its own, in autocommit mode; `place` starts the messages of its errors.

    Raises:
        ConfigError: the server refuses the credentials, the database or the TLS settings.
        UnavailableError: nobody answers, or the server takes no connections now.
    """
    with translated(f"{place}: {login.address}" if place else str(login.address)):
        connection = psycopg.connect(**login.arguments(name))
        _configure(connection)
        return connection


def _configure(connection: Connection) -> None:
    """Settings of every session; AnalyticDB 6 (PostgreSQL 9.4) has no time-out for idle transactions."""
    if connection.info.server_version >= 90600:
        connection.execute(f"SET idle_in_transaction_session_timeout = '{_IDLE_IN_TRANSACTION_S}s'")


class Database:
    """A pool of connections to one database, opened when first used. Thread-safe."""

    def __init__(
        self, login: Login, *, max_connections: int = 4, name: str = "vector_assets", place: str | None = None
    ) -> None:
        self.login = login
        self.name = name
        self.place = place or str(login.address)
        self.max_connections = max_connections
        self._pool: ConnectionPool[Connection] | None = None
        self._lock = threading.Lock()

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection for the block; errors of psycopg leave it translated, and a dead pool is not used again."""
        with translated(self.place):
            pool, connection = self._borrowed()
            try:
                yield connection
            finally:
                is_dead = connection.broken
                pool.putconn(connection)
                if is_dead:
                    self._discard(pool)

    def _borrowed(self) -> tuple[ConnectionPool[Connection], Connection]:
        """A connection that answers, from a new pool when the old one lost its server."""
        pool = self._opened()
        connection = pool.getconn()
        try:
            ConnectionPool.check_connection(connection)
        except psycopg.Error:
            pool.putconn(connection)
            self._discard(pool)
            pool = self._opened()
            return pool, pool.getconn()
        return pool, connection

    def _opened(self) -> ConnectionPool[Connection]:
        with self._lock:
            if self._pool is None:
                # the pool itself would only report a time-out, whatever the server said
                with connect(self.login, name=self.name, place=self.place):
                    pass
                self._pool = ConnectionPool(
                    kwargs=self.login.arguments(self.name),
                    min_size=1,
                    max_size=self.max_connections,
                    open=True,
                    configure=_configure,
                    timeout=_POOL_TIMEOUT_S,
                    name=self.name,
                )
            return self._pool

    def _discard(self, pool: ConnectionPool[Connection]) -> None:
        """Use the pool no more: it would wait ever longer before it looks for its server again, and never say why."""
        with self._lock:
            if self._pool is pool:
                self._pool = None
        pool.close()

    def close(self) -> None:
        """Give back every connection; the next use opens anew."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()


@dataclass(frozen=True, slots=True)
class Binary:
    """A query parameter that is in the server's binary form already."""

    type_oid: int
    data: bytes


class _BinaryDumper(Dumper):
    """Passes `Binary` parameters through under their own type."""

    format = Format.BINARY

    def dump(self, obj: Binary) -> Buffer:
        return obj.data

    def get_key(self, obj: Binary, format: PyFormat) -> Any:
        return (self.cls, obj.type_oid)

    def upgrade(self, obj: Binary, format: PyFormat) -> Dumper:
        dumper = type(self)(self.cls)
        dumper.oid = obj.type_oid
        return dumper


psycopg.adapters.register_dumper(Binary, _BinaryDumper)


@contextmanager
def translated(place: str) -> Iterator[None]:
    """Errors of psycopg in the block are raised as the engine's; `place` starts their messages."""
    try:
        yield
    except psycopg.Error as error:
        raise translation(error, place) from error


_CONFIG_SIGNS = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|(role|database) .* does not exist"
    r"|permission denied for database|SSL|certificate|private key file",
    re.IGNORECASE,
)
_TRY_LATER_SIGNS = re.compile(r"SSL connection has been closed|SSL SYSCALL|SSL error: unexpected eof", re.IGNORECASE)
_CONFIG_STATES = ("28", "3D")
_OUTAGE_STATES = ("08", "57P", "53300", "55P03", "25006", "25P03")
_TRANSIENT_STATES = ("40", "53", "55", "57", "58", "XX")
_PLAN_STATES = ("42501", "42703", "42804", "42P01", "42P10", "3F", "0A")


def translation(error: psycopg.Error, place: str) -> VectorAssetsError:
    """The engine's error for one of psycopg's."""
    state = error.sqlstate
    message = f"{place}: {said(error)}"
    if state is None:
        text = str(error)
        is_refused = isinstance(error, psycopg.OperationalError) and not isinstance(error, PoolTimeout)
        if is_refused and _CONFIG_SIGNS.search(text) and not _TRY_LATER_SIGNS.search(text):
            return ConfigError(message)
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            return UnavailableError(message)
        return FatalError(message)
    kinds: tuple[tuple[tuple[str, ...], type[VectorAssetsError]], ...] = (
        (_CONFIG_STATES, ConfigError),
        (_OUTAGE_STATES, UnavailableError),
        (_TRANSIENT_STATES, TransientError),
        (_PLAN_STATES, PlanError),
    )
    return next((kind(message) for states, kind in kinds if state.startswith(states)), FatalError(message))


def said(error: psycopg.Error) -> str:
    """The server's message with its SQLSTATE and without values of the row."""
    if error.sqlstate is None:
        return " ".join(str(error).split()) or type(error).__name__
    message = error.diag.message_primary or ""
    if error.sqlstate.startswith("22"):
        # value "99999" is out of range for type integer
        message = re.sub(r'".*"', '"..."', message, flags=re.DOTALL)
    if isinstance(error, pg.RaiseException):
        message = f"refused by {_function(error)}"
    return f"{error.sqlstate} {message}"


def _function(error: psycopg.Error) -> str:
    found = re.search(r"PL/pgSQL function ([^\s(]+)", error.diag.context or "")
    return f"function {found[1]}" if found else "a trigger"


def refuses_row(error: psycopg.Error) -> bool:
    """True when the server refuses the values of a row: the same statement without that row may pass.

    Data exceptions and integrity violations, an exception raised by a trigger, an index entry that is too long. Not a
    malformed binary stream: that is our own mistake and not the row's.
    """
    state = error.sqlstate or ""
    return (state.startswith(("22", "23")) and state not in {"22P03", "22P04"}) or state in {"P0001", "54000"}


def refusal(error: psycopg.Error) -> str:
    """Why the server refuses a row: SQLSTATE, column if known, message; no values."""
    column = error.diag.column_name or _copy_column(error)
    state, _, message = said(error).partition(" ")
    return f"{state} column {column}: {message}" if column else f"{state} {message}"


_COPY_PLACE = re.compile(r"^COPY .+?, \S+ (\d+)(?:, \S+ (.+))?$", re.MULTILINE)


def copy_line(error: psycopg.Error) -> int | None:
    """The row of a COPY the server was at, counted from 1; a hint, for it reads words."""
    found = _COPY_PLACE.search(error.diag.context or "")
    return int(found[1]) if found else None


def _copy_column(error: psycopg.Error) -> str | None:
    found = _COPY_PLACE.search(error.diag.context or "")
    return found[2] if found else None
