"""One dimension table's rows: loaded once, kept on disk for every process, looked at again when the options say so.

The first use in a process tree (a POSIX session: a Dagster instance and its runs, a shell and its commands) asks the
service for names and times; rows are loaded only when these have changed. After that the cache is looked at again when
`ttl_ms` have passed since anybody found it right, never in a blackout. A first load that fails stops the run after its
retries; a reload that fails leaves the rows as they are, is logged, and is tried again after a pause.
"""

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from vector_assets.engine import env
from vector_assets.engine.core import canonical
from vector_assets.engine.errors import FatalError, PlanError, TransientError
from vector_assets.engine.lease import process_born
from vector_assets.engine.lookup import LONGEST_PAUSE, PAUSE, CachePolicy, LookupTable, Snapshot
from vector_assets.transforms.lookup_files import LookupFiles, State, Stored
from vector_assets.transforms.lookup_index import LookupIndex
from vector_assets.transforms.lookup_spill import SpillWriter

log = logging.getLogger(__name__)
_UNSETTLED_MS = 2000
"""MaxCompute's times have whole seconds: rows may change again within the second of the change that is known."""
_AGAIN_MS = 60_000
"""Pause after a reload that failed."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The rows of one version: `rows` in memory (mapped from the file), or None where they are joined from `path`."""

    stored: Stored
    path: Path
    rows: pa.Table | None = field(repr=False)

    @property
    def version(self) -> str:
        """Its name in the ledger."""
        return self.stored.version


class LookupCache:
    """Threads may share it. `name` is the table as messages show it, `key` the declared PRIMARY KEY."""

    def __init__(
        self, name: str, open_table: Callable[[], LookupTable], schema: pa.Schema, key: tuple[str, ...],
        policy: CachePolicy, *, clock: Callable[[], float] = time.time, sleep: Callable[[float], None] = time.sleep,
        tree: str | None = None,
    ) -> None:  # fmt: skip
        self.name = name
        self.schema = schema
        self.policy = policy
        self._open_table = open_table
        self._key = key
        self._clock = clock
        self._sleep = sleep
        self._tree = tree or process_tree()
        self._lock = threading.Lock()
        self._stamp = 0
        self._state: State | None = None
        self._open: dict[str, Loaded] = {}

    @property
    def files(self) -> LookupFiles:
        """Its folder, named by what is loaded and how; options that only say when or who are not part of it."""
        most = self.policy.max_rows if self.policy.spill else None
        what = [*self.policy.identity, str(self.schema), list(self._key), most]
        digest = hashlib.sha256(canonical(what).encode()).hexdigest()[:16]
        return LookupFiles(env.home() / "cache" / "lookup" / f"{_slug(self.name)}-{digest}")

    def current(self) -> Loaded:
        """The rows to join with now.

        Raises:
            PlanError: the table is not there, does not fit, or has more rows than `cacheSize`.
            FatalError: it could not be loaded in as many attempts as the options allow.
        """
        loaded = self._current()
        # another pipeline with a larger cacheSize may have loaded it
        self._check_count(loaded.stored.partitions, loaded.stored.rows + loaded.stored.duplicates)
        return loaded

    def _current(self) -> Loaded:
        with self._lock:
            state, files = self._seen(), self.files
            if state is not None and not self._is_due(state):
                found = self._opened(state.current)
                if found is not None:
                    return found
            # with rows at hand, a reload that another process is busy with is not waited for
            with files.locked(wait=state is None or self._opened(state.current) is None) as is_ours:
                if not is_ours and state is not None and (old := self._opened(state.current)) is not None:
                    return old
                return self._refreshed(files)

    def at(self, version: str) -> Loaded:
        """The rows of a version that a batch was joined with before; those of now where it is gone for good."""
        with self._lock:
            found = self._opened(version)
        if found is not None:
            return found
        now = self.current()
        if now.version != version:
            log.warning("%s: version %s is not kept any more; joining with %s", self.name, version, now.version)
        return now

    def _seen(self) -> State | None:
        """The state as any process wrote it last."""
        stamp = self.files.stamp()
        if stamp != self._stamp or stamp == 0:
            self._stamp, self._state = stamp, self.files.state()
        return self._state

    def _is_due(self, state: State) -> bool:
        now = self._clock()
        if self.policy.is_dark(now):
            return False
        if state.failed_ms is not None and 0 <= now * 1000 - state.failed_ms < _AGAIN_MS:
            return False
        return self._tree not in state.trees or self.policy.is_due(state.confirmed_ms, now)

    def _opened(self, version: str) -> Loaded | None:
        found = self._open.get(version)
        if found is not None:
            return found
        stored = self.files.stored(version)
        if stored is None:
            return None
        rows = self.files.open_table(stored) if stored.form == "arrow" else None
        if rows is None and (stored.form == "arrow" or not self.files.is_whole(stored)):
            return None
        if len(self._open) > 1:
            self._open.clear()
        self._open[version] = Loaded(stored, self.files.path(stored), rows)
        return self._open[version]

    def _refreshed(self, files: LookupFiles) -> Loaded:
        """Look at the service and load what is new; holds the folder's lock."""
        self._stamp = 0
        state = self._seen()
        old = self._opened(state.current) if state is not None else None
        if state is not None and old is not None and not self._is_due(state):
            return old
        # Flink loads once more for a start, and only that is bounded by maxLoadRetries: then rows of before are no rows
        is_start = state is None or old is None or self._tree not in state.trees
        try:
            loaded = self._attempted(files, old, self.policy.retries if is_start else 0)
        except FatalError as error:
            if is_start or state is None or old is None:
                raise
            log.warning("%s; going on with version %s", error, old.version)
            files.write_state(State(state.current, state.confirmed_ms, state.trees, int(self._clock() * 1000)))
            return old
        before = state or State(loaded.version, 0)
        kept = State(loaded.version, before.confirmed_ms, before.trees)
        files.write_state(kept.confirmed(self._tree, int(self._clock() * 1000)))
        return loaded

    def _attempted(self, files: LookupFiles, old: Loaded | None, retries: int) -> Loaded:
        pause = PAUSE
        for attempt in range(retries + 1):
            try:
                return self._look(files, old)
            except TransientError as error:
                if attempt == retries:
                    times = f"{attempt + 1} attempt{'s' if attempt else ''}"
                    raise FatalError(
                        f"dimension table {self.name} could not be loaded in {times}"
                        f" (maxLoadRetries = {self.policy.retries}): {error}"
                    ) from error
                log.warning("%s: %s; loading again", self.name, error)
                self._sleep(error.retry_after if error.retry_after is not None else pause.total_seconds())
                pause = min(pause * 2, LONGEST_PAUSE)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _look(self, files: LookupFiles, old: Loaded | None) -> Loaded:
        """The rows of now: those at hand where the service says that nothing has changed."""
        with closing(self._open_table()) as table:
            snapshot = table.snapshot()
            if (
                old is not None
                and old.stored.settled
                and canonical(old.stored.snapshot) == canonical(snapshot.to_json())
            ):
                return old
            began = int(self._clock() * 1000)
            if (rows := table.count(snapshot)) is not None:
                self._check_count(snapshot.partitions, rows)
            stored, written = self._load(files, table, snapshot, began)
            try:
                after = table.snapshot()
                if after != snapshot:
                    raise TransientError(f"dimension table {self.name} changed while it was loaded")
                files.add(stored, written)
                self._open.pop(stored.version, None)
            finally:
                written.unlink(missing_ok=True)
        loaded = self._opened(stored.version)
        if loaded is None:
            raise FatalError(f"dimension table {self.name}: the cache file that was just written cannot be read")
        log.info("%s: loaded %d rows, version %s", self.name, stored.rows, stored.version)
        return loaded

    def _check_count(self, partitions: str, rows: int) -> None:
        """The service's own error for a table that is too large."""
        if rows > self.policy.max_rows and not self.policy.spill:
            raise PlanError(
                f"Row count of table {self.name} partition {partitions} exceeds maxRowCount limit:"
                f" {rows} rows, cacheSize is {self.policy.max_rows};"
                " raise cacheSize, or set 'cache.spill' = 'true' to join it from disk"
            )

    def _load(self, files: LookupFiles, table: LookupTable, snapshot: Snapshot, began: int) -> tuple[Stored, Path]:
        """Every row into a new file; what it is, and where."""
        pieces: list[pa.Table] = []
        writer: SpillWriter | None = None
        count = 0
        path = files.temporary()
        try:
            for batch in table.load(snapshot):
                piece = pa.Table.from_batches([batch]).cast(self.schema)
                count += piece.num_rows
                self._check_count(snapshot.partitions, count)
                if writer is None and count > self.policy.max_rows:
                    writer = SpillWriter(path, self.schema)
                    for earlier in pieces:
                        writer.add(earlier)
                    pieces.clear()
                if writer is None:
                    pieces.append(piece)
                else:
                    writer.add(piece)
            if writer is not None:
                rows, duplicates, digest = writer.finish(self._key)
            else:
                rows, duplicates, digest = self._write(path, pieces)
        except BaseException:
            if writer is not None:
                writer.close()
            path.unlink(missing_ok=True)
            raise
        newest = max((part.modified_ms or 0 for part in snapshot.parts), default=0)
        stored = Stored(
            version=f"{snapshot.short()}+{digest[:8]}", snapshot=snapshot.to_json(),
            form="duckdb" if writer is not None else "arrow", rows=rows, duplicates=duplicates,
            bytes=path.stat().st_size, sha256=digest, loaded_ms=began, settled=began - newest > _UNSETTLED_MS,
        )  # fmt: skip
        if duplicates:
            key = ", ".join(self._key)
            log.warning(
                "%s: %d rows share their PRIMARY KEY (%s) with a later row, which is the one that counts",
                self.name, duplicates, key,
            )  # fmt: skip
        return stored, path

    def _write(self, path: Path, pieces: list[pa.Table]) -> tuple[int, int, str]:
        rows = pa.concat_tables([self.schema.empty_table(), *pieces]).combine_chunks()
        came = rows.num_rows
        if self._key and came:
            index = LookupIndex([rows.column(name) for name in self._key])
            if not index.is_unique:
                rows = rows.take(pa.array(index.last_rows())).combine_chunks()
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, self.schema) as writer:
            writer.write_table(rows)
        with path.open("rb") as written:
            digest = hashlib.file_digest(written, "sha256").hexdigest()
        return rows.num_rows, came - rows.num_rows, digest


def process_tree() -> str:
    """The POSIX session this process runs in: the same for a shell's commands, and for a Dagster instance's runs."""
    leader = os.getsid(0)
    return f"{leader}:{process_born(leader)}"


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)[:60]
