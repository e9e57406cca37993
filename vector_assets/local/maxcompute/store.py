"""The DuckDB file: rows, and one JSON document for everything else that must survive a restart."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb
import orjson

ROWS = "rows"
"""DuckDB schema of the tables' rows; documents are in `meta`."""


class Store:
    """One connection, one writer at a time; `reading` gives others a snapshot of their own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.lock = threading.RLock()
        self._depth = 0
        self._connection = duckdb.connect(str(folder / "maxcompute.duckdb"))
        self._connection.execute(f"CREATE SCHEMA IF NOT EXISTS {ROWS}; CREATE SCHEMA IF NOT EXISTS meta")
        # no key: DuckDB refuses to delete and insert one key in one transaction
        self._connection.execute("CREATE TABLE IF NOT EXISTS meta.documents (kind VARCHAR, key VARCHAR, body BLOB)")
        self.on_rollback: Callable[[], None] = lambda: None

    def close(self) -> None:
        """Write everything to the file and let go of it."""
        with self.lock:
            self._connection.close()

    @contextmanager
    def writing(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """One transaction; nested ones are part of the outer. When it fails, `on_rollback` re-reads the documents."""
        with self.lock:
            if self._depth:
                yield self._connection
                return
            self._connection.execute("BEGIN")
            self._depth = 1
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
            finally:
                self._depth = 0

    def _roll_back(self) -> None:
        # a failed COMMIT has rolled back already
        with suppress(duckdb.TransactionException):
            self._connection.execute("ROLLBACK")
        self.on_rollback()

    @contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection of the caller's own, for queries."""
        cursor = self._connection.cursor()
        try:
            yield cursor
        finally:
            cursor.close()

    def put(self, kind: str, key: str, body: dict[str, Any]) -> None:
        """Write a document over the one there may be."""
        with self.writing() as connection:
            connection.execute("DELETE FROM meta.documents WHERE kind = ? AND key = ?", [kind, key])
            connection.execute("INSERT INTO meta.documents VALUES (?, ?, ?)", [kind, key, orjson.dumps(body)])

    def delete(self, kind: str, key: str) -> None:
        """Delete a document, if there."""
        with self.writing() as connection:
            connection.execute("DELETE FROM meta.documents WHERE kind = ? AND key = ?", [kind, key])

    def documents(self, kind: str) -> dict[str, dict[str, Any]]:
        """All documents of a kind by key, oldest first."""
        with self.lock:
            found = self._connection.execute("SELECT key, body FROM meta.documents WHERE kind = ?", [kind]).fetchall()
        return {key: orjson.loads(body) for key, body in found}
