"""The ledger's database: what the ledger asks of it, and SQLite, its default.

Statements are written once, in the SQL that SQLite and PostgreSQL share, with `?` for parameters; rows come back as
dicts. What two writers must not do at once is decided by statements that change a row only from the state it was seen
in (compare-and-set), so that they mean the same on both.
"""

import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import tenacity

from vector_assets.engine.env import never_stop_inside
from vector_assets.engine.errors import ConfigError, FatalError
from vector_assets.engine.store_schema import SCHEMA_VERSION, statements_after

Row = dict[str, Any]
_URL_SCHEMES = ("postgresql://", "postgres://")
_LOCK_S = 30.0
"""How long one writer waits for another."""


class Store(ABC):
    """A database that threads of this process share and other processes open beside it.

    `place` names it in messages, without credentials.
    """

    place: str

    @abstractmethod
    def transaction(self) -> AbstractContextManager[None]:
        """All or nothing; an inner transaction joins the outer one. Other threads of this process wait.

        Raises:
            FatalError: the database cannot be written; nothing has changed.
            UnavailableError: it cannot be reached; nothing has changed, unless the answer to the commit itself was
                lost: then what was to change has changed wholly or not at all.
        """

    @abstractmethod
    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """All rows of a query."""

    def row(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        """The first row of a query."""
        found = self.rows(sql, parameters)
        return found[0] if found else None

    @abstractmethod
    def change(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run one statement; how many rows it changed."""

    @abstractmethod
    def change_many(self, sql: str, parameters: Sequence[Sequence[Any]]) -> None:
        """Run one statement for every set of parameters."""

    @abstractmethod
    def damages(self) -> list[str]:
        """What the database itself finds wrong with its files; empty for a sound one, and for a server's."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""


def is_url(location: str | Path) -> bool:
    """True when the location is a PostgreSQL server's and not a file's."""
    return str(location).startswith(_URL_SCHEMES)


def open_store(location: str | Path) -> Store:
    """The database at a file's path or a PostgreSQL URL; made, or brought to today's schema, when it is not there yet.

    Raises:
        ConfigError: it cannot be opened, or was made by newer code.
        UnavailableError: the server cannot be reached.
    """
    if not is_url(location):
        return SqliteStore(Path(location))
    from vector_assets.engine.store_postgres import PostgresStore

    return PostgresStore(str(location))


def is_there(location: str | Path) -> bool:
    """True when there is a ledger to open; nothing is made.

    Raises:
        ConfigError: the URL is wrong, or the server refuses the login.
        UnavailableError: the server cannot be reached.
    """
    if not is_url(location):
        return Path(location).exists()
    from vector_assets.engine.store_postgres import is_there_at

    return is_there_at(str(location))


def pending(place: str, version: int) -> list[str]:
    """The statements that a ledger of `version` still needs.

    Raises:
        ConfigError: newer code made it.
    """
    if version > SCHEMA_VERSION:
        raise ConfigError(f"{place}: has schema version {version}, this code knows {SCHEMA_VERSION}: use newer code")
    return list(statements_after(version))


def _named(cursor: sqlite3.Cursor, values: tuple[Any, ...]) -> Row:
    return {column[0]: value for column, value in zip(cursor.description, values, strict=True)}


def _is_busy(error: BaseException) -> bool:
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY


class SqliteStore(Store):
    """One SQLite file.

    WAL with `synchronous=FULL`: a transaction that returned survives a power cut. Every writer takes the write lock at
    its start, so a transaction never has to be tried again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.place = f"ledger {path}"
        self._lock = threading.RLock()
        never_stop_inside(self._lock)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=_LOCK_S, isolation_level=None, check_same_thread=False)
            self._connection.row_factory = _named
            self._enter_wal()
            self._connection.execute("PRAGMA synchronous=FULL")
            self._migrate()
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(f"{self.place}: cannot be opened: {error}") from error

    @tenacity.retry(
        retry=tenacity.retry_if_exception(_is_busy),
        wait=tenacity.wait_random(0.01, 0.1),
        stop=tenacity.stop_after_delay(_LOCK_S),
        reraise=True,
    )
    def _enter_wal(self) -> None:
        """Two processes that open a new ledger at once: SQLite answers the second without waiting for its lock."""
        self._connection.execute("PRAGMA journal_mode=WAL")

    def _migrate(self) -> None:
        if not pending(self.place, self._version()):
            return
        with self.transaction():
            for statement in pending(self.place, self._version()):
                self._connection.execute(statement)
            self._connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def _version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()["user_version"])

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """As Store says, with the write lock held from the start.

        Raises:
            FatalError: the database cannot be written (disk full, lock held for 30 s); nothing has changed.
        """
        with self._translated():
            if self._connection.in_transaction:
                yield
                return
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """All rows of a query."""
        with self._translated():
            return self._connection.execute(sql, parameters).fetchall()

    def change(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run one statement; how many rows it changed."""
        with self._translated():
            return self._connection.execute(sql, parameters).rowcount

    def change_many(self, sql: str, parameters: Sequence[Sequence[Any]]) -> None:
        """Run one statement for every set of parameters."""
        with self._translated():
            self._connection.executemany(sql, parameters)

    def damages(self) -> list[str]:
        """What SQLite's integrity check says, ten lines at most."""
        found = [str(row["integrity_check"]) for row in self.rows("PRAGMA integrity_check(10)")]
        return [] if found == ["ok"] else found

    @contextmanager
    def _translated(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise FatalError(f"{self.place}: {error}") from error

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()
