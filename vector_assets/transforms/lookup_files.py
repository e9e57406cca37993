"""The files of one dimension table's cache: versions that appear whole or not at all, and which of them is in use.

`<folder>/<id>.arrow` (memory-mapped) or `<id>.duckdb` holds a version's rows, `<id>.json` says what they are, and
`state.json` which version is in use and when it was last found right. Whoever writes holds `lock`.
"""

import fcntl
import hashlib
import logging
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import orjson
import pyarrow as pa

from vector_assets.engine.errors import FatalError

log = logging.getLogger(__name__)
KEPT = 3
"""Versions that stay on disk: the one in use, and those that a batch in flight may have been joined with."""
_TREES = 20
_STALE_SECONDS = 3600.0
Form = Literal["arrow", "duckdb"]


@dataclass(frozen=True, slots=True)
class Stored:
    """One version on disk: `version` names it everywhere, `snapshot` is what the service said of it.

    `duplicates` rows were left out because another row has their key; `settled` is False when the rows may have changed
    once more within the clock's resolution.
    """

    version: str
    snapshot: list[Any]
    form: Form
    rows: int
    duplicates: int
    bytes: int
    sha256: str
    loaded_ms: int
    settled: bool = True

    @property
    def partitions(self) -> str:
        """The partitions' names, as `Snapshot.partitions` has them."""
        return " and ".join(str(part[0]) for part in self.snapshot if part[0]) or "-"

    @property
    def id(self) -> str:
        """Name of its files."""
        return hashlib.sha256(self.version.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class State:
    """Which version is in use, when it was last found right, and by which process trees it was looked at."""

    current: str
    confirmed_ms: int
    trees: dict[str, int] = field(default_factory=dict)
    failed_ms: int | None = None

    def confirmed(self, tree: str, now_ms: int) -> "State":
        """Found right just now."""
        trees = dict(sorted({**self.trees, tree: now_ms}.items(), key=lambda item: item[1])[-_TREES:])
        return replace(self, confirmed_ms=now_ms, trees=trees, failed_ms=None)


class LookupFiles:
    """The folder of one table's cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def locked(self, *, wait: bool = True) -> Iterator[bool]:
        """Hold the folder for writing; False when somebody else does and there is no wait."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.folder / "lock").open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True

    def stamp(self) -> int:
        """Changes whenever the state was written anew; 0 before it ever was."""
        try:
            return (self.folder / "state.json").stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def state(self) -> State | None:
        """What is in use, None before the first load or when the file is unreadable."""
        found = self._json("state.json")
        return State(**found) if found else None

    def write_state(self, state: State) -> None:
        """Put another state in its place."""
        self._write("state.json", orjson.dumps(asdict(state)))

    def stored(self, version: str) -> Stored | None:
        """The version's description, None when it is not here."""
        found = self._json(f"{Stored(version, [], 'arrow', 0, 0, 0, '', 0).id}.json")
        return Stored(**found) if found else None

    def path(self, stored: Stored) -> Path:
        """Where its rows are."""
        return self.folder / f"{stored.id}.{stored.form}"

    def temporary(self) -> Path:
        """A name for a file that is still written."""
        return self.folder / f"tmp-{secrets.token_hex(8)}"

    def add(self, stored: Stored, written: Path) -> None:
        """A finished file becomes a version; the oldest ones leave."""
        with written.open("rb") as file:
            os.fsync(file.fileno())
        written.replace(self.path(stored))
        self._write(f"{stored.id}.json", orjson.dumps(asdict(stored)))
        self._remove_old(keep=stored.id)

    def open_table(self, stored: Stored) -> pa.Table | None:
        """The rows of an Arrow version, mapped into memory; None when the file is not what was written."""
        path = self.path(stored)
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest == stored.sha256:
                with pa.memory_map(str(path)) as source:
                    return pa.ipc.open_file(source).read_all()
        except OSError as error:
            log.warning("cache file %s cannot be read: %s", path, error)
            return None
        log.warning("cache file %s is damaged: its hash is not that it was written with; loading again", path)
        return None

    def is_whole(self, stored: Stored) -> bool:
        """The file of a DuckDB version has the size it was written with; its blocks carry sums of their own."""
        path = self.path(stored)
        is_whole = path.is_file() and path.stat().st_size == stored.bytes
        if not is_whole:
            log.warning("cache file %s is missing or cut; loading again", path)
        return is_whole

    def _json(self, name: str) -> dict[str, Any] | None:
        try:
            found = orjson.loads((self.folder / name).read_bytes())
        except (FileNotFoundError, orjson.JSONDecodeError):
            return None
        return found if isinstance(found, dict) else None

    def _write(self, name: str, content: bytes) -> None:
        written = self.temporary()
        try:
            with written.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            written.replace(self.folder / name)
        except OSError as error:
            raise FatalError(f"the cache of a dimension table cannot be written: {error}") from error

    def _remove_old(self, keep: str) -> None:
        """All but the newest versions, and what a killed process left half written."""
        found = [Stored(**entry) for path in self.folder.glob("*.json") if (entry := self._entry(path))]
        newest = sorted(found, key=lambda stored: stored.loaded_ms, reverse=True)
        kept = {keep, *(stored.id for stored in newest[:KEPT])}
        for path in self.folder.iterdir():
            is_version = path.suffix in {".arrow", ".duckdb", ".json"} and path.stem != "state"
            is_stale = path.name.startswith("tmp-") and time.time() - path.stat().st_mtime > _STALE_SECONDS
            if is_stale or (is_version and path.stem not in kept):
                path.unlink(missing_ok=True)

    def _entry(self, path: Path) -> dict[str, Any] | None:
        return None if path.stem == "state" else self._json(path.name)
