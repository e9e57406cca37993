"""Vectors that were paid for, kept on disk by the hash of their text, and what was paid on which day.

One SQLite file for all pipelines of a home, in WAL mode: several processes may use it. A vector is in it before the
request that paid for it counts as done, so a process that is killed loses only what was in flight.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vector_assets.engine import env
from vector_assets.engine.core import Json, canonical
from vector_assets.engine.errors import FatalError

KEY_BYTES = 32
"""Length of a key: the SHA-256 of the text as it is sent."""

Numbers = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

_BUSY_SECONDS = 30.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS spaces (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, dimensions INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS vectors (
    space INTEGER NOT NULL, key BLOB NOT NULL, vector BLOB NOT NULL, UNIQUE (space, key)
);
CREATE TABLE IF NOT EXISTS paid (
    day TEXT NOT NULL, pipeline TEXT NOT NULL, model TEXT NOT NULL, requests INTEGER NOT NULL, texts INTEGER NOT NULL,
    bytes INTEGER NOT NULL, tokens INTEGER NOT NULL, cost REAL NOT NULL, PRIMARY KEY (day, pipeline, model)
);
"""
_PIECES = "WITH RECURSIVE piece(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM piece WHERE i + 1 < :count)"
_FIND = f"""{_PIECES} SELECT piece.i, vectors.vector FROM piece
CROSS JOIN vectors WHERE space = :space AND key = substr(:keys, piece.i * {KEY_BYTES} + 1, {KEY_BYTES})"""
_ADD = f"""{_PIECES} INSERT OR IGNORE INTO vectors (space, key, vector)
SELECT :space, substr(:keys, piece.i * {KEY_BYTES} + 1, {KEY_BYTES}), substr(:vectors, piece.i * :width + 1, :width)
FROM piece"""
_PAY = """INSERT INTO paid VALUES (:day, :pipeline, :model, :requests, :texts, :bytes, :tokens, :cost)
ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, texts = texts + excluded.texts,
bytes = bytes + excluded.bytes, tokens = tokens + excluded.tokens, cost = cost + excluded.cost"""


@dataclass(frozen=True, slots=True)
class Paid:
    """What was paid to a model by a pipeline on a day (`YYYY-MM-DD`, UTC)."""

    day: str
    pipeline: str
    model: str
    requests: int = 0
    texts: int = 0
    bytes: int = 0
    tokens: int = 0
    cost: float = 0.0


class EmbeddingCache:
    """The vectors of one space (model, revision or address, dimensions). Thread-safe; opened at first use.

    The file is that of the home when this is made, unless `path` is another.
    """

    def __init__(self, space: list[Json], path: Path | None = None) -> None:
        self._name = canonical(space)
        self._path = path or env.home() / "cache" / "embeddings.db"

    @property
    def name(self) -> str:
        """The space, as the file knows it."""
        return self._name

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    def is_there(self) -> bool:
        """False before the first vector; looking makes no file."""
        return self.path.exists()

    def find(self, keys: bytes) -> tuple[Numbers, Vectors]:
        """Which of the keys (one after the other) are known, by number, and their vectors."""
        with self._opened() as connection:
            space = _space(connection, self._name)
            if space is None or not keys:
                return np.zeros(0, np.int64), np.zeros((0, 0), np.float32)
            number, dimensions = space
            values = {"count": len(keys) // KEY_BYTES, "space": number, "keys": keys}
            found = connection.execute(_FIND, values).fetchall()
        numbers = np.fromiter((row[0] for row in found), np.int64, len(found))
        vectors = np.frombuffer(b"".join(row[1] for row in found), "<f4").reshape(len(found), dimensions)
        return numbers, vectors

    def dimensions(self) -> int | None:
        """How many numbers the vectors have; None before the first."""
        with self._opened() as connection:
            space = _space(connection, self._name)
        return space[1] if space else None

    def add(self, keys: bytes, vectors: Vectors, paid: Paid) -> None:
        """Keep vectors and what they cost, in one transaction.

        Raises:
            FatalError: the space has vectors of another dimension, or the file cannot be written.
        """
        count, dimensions = vectors.shape if vectors.size else (0, 0)
        with self._opened() as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_PAY, {name: getattr(paid, name) for name in Paid.__slots__})
            if not count:
                return
            connection.execute(
                "INSERT OR IGNORE INTO spaces (name, dimensions) VALUES (?, ?)", (self._name, dimensions)
            )
            number, wanted = _space(connection, self._name) or (0, dimensions)
            if wanted == dimensions:
                data = vectors.astype("<f4").tobytes()
                values = {"count": count, "space": number, "keys": keys, "vectors": data, "width": 4 * dimensions}
                connection.execute(_ADD, values)
        if wanted != dimensions:
            raise FatalError(
                f"embedding model {paid.model} answers vectors of {dimensions} numbers, those before had {wanted}:"
                " set option 'dimensions', or another 'revision' if the model is a new one"
            )

    def paid(self, *, pipeline: str | None = None, day: str | None = None, model: str | None = None) -> list[Paid]:
        """What was paid, the newest day first."""
        if not self.is_there():
            return []
        with self._opened() as connection:
            rows = connection.execute(
                "SELECT * FROM paid WHERE (?1 IS NULL OR pipeline = ?1) AND (?2 IS NULL OR day = ?2)"
                " AND (?3 IS NULL OR model = ?3) ORDER BY day DESC, pipeline, model",
                (pipeline, day, model),
            ).fetchall()
        return [Paid(*row) for row in rows]

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """The connection of this process, one thread at a time."""
        path = self.path
        try:
            with _file(path) as connection:
                yield connection
        except sqlite3.Error as error:
            raise FatalError(f"embedding cache {path}: {error}") from error


def _space(connection: sqlite3.Connection, name: str) -> tuple[int, int] | None:
    found: tuple[int, int] | None = connection.execute(
        "SELECT id, dimensions FROM spaces WHERE name = ?", (name,)
    ).fetchone()
    return found


class _File:
    """A database file, open in this process."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.lock = threading.Lock()
        self.connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        self.identity = _identity(path)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = NORMAL")
        # 16 MB, four times SQLite's own: vectors are large, and at each of these points the disk is waited for
        self.connection.execute("PRAGMA wal_autocheckpoint = 4000")
        self.connection.executescript(_SCHEMA)


_files: dict[tuple[int, Path], _File] = {}
_files_lock = threading.Lock()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


@contextmanager
def _file(path: Path) -> Iterator[sqlite3.Connection]:
    """The open file of a path; opened anew after a fork, and when somebody removed it."""
    place = (os.getpid(), path)
    with _files_lock:
        file = _files.get(place)
        if file is None or file.identity != _identity(path):
            if file is not None:
                with file.lock:
                    file.connection.close()
            file = _files[place] = _File(path)
    with file.lock:
        yield file.connection


class Claims:
    """Keys that a thread of this process is paying for, so that no other one does. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: set[bytes] = set()

    def take(self, keys: list[bytes]) -> list[bool]:
        """Which of the keys are the caller's now; all at once, so that nobody who holds some waits for others."""
        with self._changed:
            mine = [key not in self._held for key in keys]
            self._held.update(key for key, is_mine in zip(keys, mine, strict=True) if is_mine)
        return mine

    def release(self, keys: list[bytes]) -> None:
        """The vectors of these keys are kept, or could not be had."""
        with self._changed:
            self._held.difference_update(keys)
            self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Until somebody has released keys, or the time is up."""
        with self._changed:
            self._changed.wait(seconds)


_claims: dict[tuple[Path, str], Claims] = {}


def claims_of(cache: EmbeddingCache) -> Claims:
    """The claims of a space, shared by all that use it in this process."""
    with _files_lock:
        return _claims.setdefault((cache.path, cache.name), Claims())
