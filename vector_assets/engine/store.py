"""The ledger's database: one SQLite file, its schema, and transactions.

WAL with `synchronous=FULL`: a transaction that returned survives a power cut. Every writer takes the write lock at its
start, so a compare-and-set never has to be tried again.
"""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vector_assets.engine.errors import ConfigError, FatalError

SCHEMA_VERSION = 2
_MIGRATIONS = {
    1: """
ALTER TABLE gaps ADD COLUMN policy TEXT NOT NULL DEFAULT 'fail';
ALTER TABLE gaps ADD COLUMN state TEXT NOT NULL DEFAULT 'open';
ALTER TABLE gaps ADD COLUMN seq INTEGER;
"""
}
"""Statements that lead from each version to the next. 2: what was done about a gap, by which batch."""
_SCHEMA = """
CREATE TABLE pipelines (
    pipeline TEXT NOT NULL, target TEXT NOT NULL, start_option TEXT NOT NULL, start TEXT, incarnation TEXT,
    created_ms INTEGER NOT NULL, PRIMARY KEY (pipeline, target)) STRICT;
CREATE TABLE batches (
    pipeline TEXT NOT NULL, target TEXT NOT NULL, seq INTEGER NOT NULL, kind TEXT NOT NULL, state TEXT NOT NULL,
    span TEXT NOT NULL, first_splits TEXT NOT NULL, hour TEXT NOT NULL, run_id TEXT NOT NULL, fence INTEGER NOT NULL,
    code_version TEXT NOT NULL, schema_version INTEGER NOT NULL, archive TEXT, sidecar TEXT, committable TEXT,
    counts TEXT NOT NULL DEFAULT '{}', commit_id TEXT, newest_ms INTEGER, planned_ms INTEGER NOT NULL, done_ms INTEGER,
    commit_seconds REAL, note TEXT, PRIMARY KEY (pipeline, target, seq)) STRICT;
CREATE INDEX batches_by_hour ON batches (pipeline, hour);
CREATE INDEX batches_unfinished ON batches (pipeline, target) WHERE state IN ('PLANNED', 'SEALED', 'STAGED');
CREATE TABLE positions (
    pipeline TEXT NOT NULL, target TEXT NOT NULL, split TEXT NOT NULL, next TEXT NOT NULL,
    PRIMARY KEY (pipeline, target, split)) STRICT;
CREATE TABLE leases (
    pipeline TEXT NOT NULL, target TEXT NOT NULL, owner TEXT, host TEXT, pid INTEGER, pid_born TEXT,
    fence INTEGER NOT NULL, beat INTEGER NOT NULL, PRIMARY KEY (pipeline, target)) STRICT;
CREATE TABLE dead_letters (
    id INTEGER PRIMARY KEY AUTOINCREMENT, pipeline TEXT NOT NULL, target TEXT NOT NULL, seq INTEGER NOT NULL,
    ordinal INTEGER NOT NULL, split TEXT NOT NULL, "offset" INTEGER NOT NULL, origin_seq INTEGER NOT NULL,
    attempt INTEGER NOT NULL, key BLOB, value BLOB, headers TEXT, timestamp_ms INTEGER, stage TEXT NOT NULL,
    error TEXT NOT NULL, code_version TEXT NOT NULL, state TEXT NOT NULL, replayed_by INTEGER,
    created_ms INTEGER NOT NULL) STRICT;
CREATE INDEX dead_letters_by_state ON dead_letters (pipeline, target, state, id);
CREATE INDEX dead_letters_by_batch ON dead_letters (pipeline, target, seq);
CREATE TABLE gaps (
    pipeline TEXT NOT NULL, split TEXT NOT NULL, kind TEXT NOT NULL, "from" INTEGER NOT NULL, "to" INTEGER,
    found_ms INTEGER NOT NULL, PRIMARY KEY (pipeline, split, kind, "from")) STRICT;
CREATE TABLE schema_versions (
    pipeline TEXT NOT NULL, target TEXT NOT NULL, version INTEGER NOT NULL, columns TEXT NOT NULL, seq INTEGER NOT NULL,
    created_ms INTEGER NOT NULL, PRIMARY KEY (pipeline, target, version)) STRICT;
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT, pipeline TEXT NOT NULL, at_ms INTEGER NOT NULL, what TEXT NOT NULL,
    detail TEXT NOT NULL) STRICT;
"""


class Store:
    """A SQLite database that threads of this process share and other processes open beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._create()
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(f"ledger {path}: cannot be opened: {error}") from error

    def _create(self) -> None:
        with self.transaction():
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA_VERSION:
                raise ConfigError(f"ledger {self.path}: has schema version {version}, this code knows {SCHEMA_VERSION}")
            steps = (
                [_SCHEMA, *_MIGRATIONS.values()]
                if version == 0
                else [_MIGRATIONS[n] for n in _MIGRATIONS if n >= version]
            )
            for statement in ";\n".join(steps).split(";\n"):
                if statement.strip():
                    self._connection.execute(statement)
            self._connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, with the write lock held from the start; an inner transaction joins the outer one.

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

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """All rows of a query."""
        with self._translated():
            return self._connection.execute(sql, parameters).fetchall()

    def row(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Row | None:
        """The first row of a query."""
        found = self.rows(sql, parameters)
        return found[0] if found else None

    def change(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run one statement; how many rows it changed."""
        with self._translated():
            return self._connection.execute(sql, parameters).rowcount

    def change_many(self, sql: str, parameters: Sequence[Sequence[Any]]) -> None:
        """Run one statement for every set of parameters."""
        with self._translated():
            self._connection.executemany(sql, parameters)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise FatalError(f"ledger {self.path}: {error}") from error

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()
