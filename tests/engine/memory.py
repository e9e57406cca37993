"""A source and a sink in memory that keep the contracts, for tests of the loop itself."""

import threading
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pyarrow as pa

from vector_assets.engine.archive import Archive
from vector_assets.engine.core import (
    POSITION,
    RAW_SCHEMA,
    Batch,
    BatchLimit,
    BatchToken,
    Counts,
    Decoded,
    Found,
    Json,
    Merge,
    Position,
    Range,
    Receipt,
    Span,
    Staged,
    Target,
    WireLimits,
    canonical,
    rejects,
)
from vector_assets.engine.errors import ConfigError, FencedError, Place, PositionLostError
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.options import SinkOptions, SourceOptions
from vector_assets.engine.pipeline import Pipeline, PipelineSettings
from vector_assets.engine.retry import RetryPolicy
from vector_assets.engine.schema import Column, LogicalType, Table
from vector_assets.engine.session import Books, Session

TABLE = Table("numbers", (Column("id", LogicalType("BIGINT")), Column("name", LogicalType("VARCHAR"))))


class MemoryOptions(SourceOptions):
    """Nothing to set."""

    def origin(self) -> tuple[str, ...]:
        return ("memory", "records")

    def start_option(self) -> str:
        return "earliest"


class MemorySinkOptions(SinkOptions):
    """Nothing to set."""

    def target(self) -> str:
        return "memory://rows"


@dataclass
class MemorySource:
    """Splits of text records `id,name`; `broken` makes the next reads fail."""

    splits: dict[str, list[bytes | None]] = field(default_factory=dict)
    broken: list[Exception] = field(default_factory=list)
    reads: int = 0

    def start(self) -> Position:
        return dict.fromkeys(self.splits, 0)

    def frontier(self) -> Position:
        return {split: len(records) for split, records in self.splits.items()}

    def locate(self, where: str) -> Position:
        if where not in {"earliest", "latest"}:
            raise ConfigError(f"want earliest or latest, found {where!r}")
        return self.start() if where == "earliest" else self.frontier()

    def plan(self, start: Position, limit: BatchLimit) -> Span | None:
        for split in self.splits:
            if start.get(split, 0) > len(self.splits[split]):
                raise PositionLostError(f"{split} is shorter", "BEYOND_END", {split: (len(self.splits[split]), None)})
        until, left, ranges = limit.until or self.frontier(), limit.rows, []
        for split in self.splits:
            begin = start.get(split, 0)
            take = min(left, until[split] - begin)
            if take > 0:
                ranges.append(Range(split, begin, begin + take))
                left -= take
        return Span(tuple(ranges)) if ranges else None

    def read(self, span: Span, limit: BatchLimit) -> Generator[pa.RecordBatch, None, Span]:
        self.reads += 1
        if self.broken:
            raise self.broken.pop(0)
        now = datetime.now(UTC)
        for index, part in enumerate(span.ranges):
            values = self.splits[part.split][part.start : part.end]
            count = len(values)
            yield pa.record_batch(
                [
                    pa.nulls(count, pa.binary()),
                    pa.array(values, pa.binary()),
                    pa.nulls(count, RAW_SCHEMA.field("headers").type),
                    pa.array([now] * count, RAW_SCHEMA.field("timestamp").type),
                    pa.array([index] * count, pa.int16()),
                    pa.array(range(part.start, part.end), pa.int64()),
                    pa.nulls(count, pa.int32()),
                    pa.nulls(count, pa.int8()),
                ],
                schema=RAW_SCHEMA,
            )
        return span

    def lag(self, position: Position, frontier: Position) -> int:
        return sum(end - position.get(split, 0) for split, end in frontier.items())

    def close(self) -> None:
        pass


class TextDecoder:
    """`id,name`; anything else is rejected."""

    def decode(self, raw: pa.Table) -> Decoded:
        good, bad = [], []
        for row in raw.select(["value", POSITION]).to_pylist():
            head, comma, name = (row["value"] or b"").decode(errors="replace").partition(",")
            if comma and head.isdigit():
                good.append((int(head), name, row[POSITION]))
            else:
                bad.append(row[POSITION])
        rows = pa.table(
            [pa.array([r[i] for r in good], t) for i, t in enumerate((pa.int64(), pa.string(), pa.int64()))],
            names=["id", "name", POSITION],
        )
        return Decoded(rows, rejects(bad, "decode", "not id,name"))


@dataclass
class Cell:
    """What a MemorySink keeps, shared by every sink opened on it."""

    rows: list[tuple[int, str]] = field(default_factory=list)
    next: dict[str, Json] = field(default_factory=dict)
    batches: dict[int, tuple[str, Counts, list[int]]] = field(default_factory=dict)
    incarnation: str = "1"
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass
class MemorySink:
    """Appends rows; `before` and `after` hold errors to raise before or after a commit is applied."""

    cell: Cell
    merge: Merge = Merge.APPEND
    wire: WireLimits = field(default_factory=lambda: WireLimits(10, 0.05))
    retry: RetryPolicy = field(default_factory=lambda: RetryPolicy(2, 0.0, 1.0))
    before: list[Exception] = field(default_factory=list)
    after: list[Exception] = field(default_factory=list)
    refuse: frozenset[int] = frozenset()

    def prepare(self, schema: pa.Schema, declared_key: tuple[str, ...]) -> Target:
        return Target("memory://rows", declared_key, {"id": "int8"}, self.cell.incarnation, "exactly-once")

    def inspect(self, schema: pa.Schema, declared_key: tuple[str, ...]) -> Target:
        return self.prepare(schema, declared_key)

    def stage(self, batch: Batch, token: BatchToken) -> Staged:
        return Staged(token, {"rows": batch.upserts.num_rows}, payload=batch)

    def commit(self, staged: Staged) -> Receipt:
        if self.before:
            raise self.before.pop(0)
        token, rows = staged.token, staged.payload.upserts
        with self.cell.lock:
            self._advance(token)
            listed = list(zip(*(rows.column(c).to_pylist() for c in ("id", "name", POSITION)), strict=True))
            kept = [(i, n) for i, n, _ in listed if i not in self.refuse]
            refused = [p for i, _, p in listed if i in self.refuse]
            self.cell.rows += kept
            counts = Counts(written=len(kept))
            self.cell.batches[token.seq] = (token.id, counts, refused)
        if self.after:
            raise self.after.pop(0)
        return self.receipt(token)

    def _advance(self, token: BatchToken) -> None:
        if token.seq in self.cell.batches:
            raise FencedError(f"batch {token.seq} is there")
        for part in token.span.ranges:
            if not self._is_next(token, part):
                raise FencedError(f"{part.split} stands at {self.cell.next.get(part.split)}, wanted {part.start}")
        self.cell.next |= token.span.end

    def find(self, token: BatchToken, committable: Json) -> Found:
        if token.seq in self.cell.batches:
            return "APPLIED" if self.cell.batches[token.seq][0] == token.id else "UNKNOWN"
        return "ABSENT" if all(self._is_next(token, part) for part in token.span.ranges) else "UNKNOWN"

    def _is_next(self, token: BatchToken, part: Range) -> bool:
        is_first = part.split in token.first_splits and part.split not in self.cell.next
        return is_first or canonical(self.cell.next.get(part.split)) == canonical(part.start)

    def receipt(self, token: BatchToken) -> Receipt:
        if token.seq not in self.cell.batches:
            raise FencedError(f"batch {token.seq} is not there")
        name, counts, refused = self.cell.batches[token.seq]
        return Receipt(name, f"commit-{token.seq}", counts, rejects(refused, "write", "refused by order"))

    def forget(self, pipeline: str) -> None:
        self.cell.next.clear()
        self.cell.batches.clear()

    def close(self) -> None:
        pass


@dataclass
class World:
    """Everything a test of the loop needs."""

    folder: object
    source: MemorySource
    cell: Cell = field(default_factory=Cell)
    settings: dict[str, str] = field(default_factory=dict)
    sink: MemorySink = field(init=False)

    def __post_init__(self) -> None:
        self.sink = MemorySink(self.cell)
        self.books = Books(Ledger(self.folder / "ledger.db"), Archive(self.folder / "archive"))

    def pipeline(self) -> Pipeline:
        return Pipeline(
            name="numbers",
            place=Place("numbers.sql"),
            description="",
            source_table=TABLE,
            sink_table=TABLE,
            source_connector="memory",
            sink_connector="memory",
            format="text",
            source_options=MemoryOptions(),
            format_options=None,
            sink_options=MemorySinkOptions(),
            settings=PipelineSettings.parse(self.settings, "settings"),
            schema=TABLE.schema,
            transform_text="",
            decoder=TextDecoder(),
            transforms=(),
            open_source=lambda: self.source,
            open_sink=lambda: self.sink,
        )

    def session(self, clock=None) -> Session:
        extra = {"clock": clock} if clock else {}
        return Session(self.pipeline(), self.books, **extra)


def numbers(ids: Iterable[int]) -> list[bytes]:
    """Records of these ids."""
    return [f"{i},n{i}".encode() for i in ids]


@dataclass
class Keyed:
    """A table with the key `id`: what a KeyedSink keeps. `history` has every row that was ever written, by key."""

    rows: dict[int, str] = field(default_factory=dict)
    history: dict[int, list[str]] = field(default_factory=dict)


@dataclass
class KeyedSink(MemorySink):
    """Merges by key; can be read back and overwritten."""

    table: Keyed = field(default_factory=Keyed)
    overwrites: bool = True

    def prepare(self, schema: pa.Schema, declared_key: tuple[str, ...]) -> Target:
        return Target("memory://rows", ("id",), {"id": "int8"}, self.cell.incarnation, "exactly-once")

    def commit(self, staged: Staged) -> Receipt:
        token, batch = staged.token, staged.payload
        with self.cell.lock:
            self._advance(token)
            written, conflicts, refused = 0, 0, []
            deletes = batch.deletes.column("id").to_pylist() if batch.deletes is not None else []
            for key in deletes:
                self.table.rows.pop(key, None)
            columns = (batch.upserts.column(c).to_pylist() for c in ("id", "name", POSITION))
            for key, name, position in zip(*columns, strict=True):
                if key in self.refuse:
                    refused.append(position)
                elif key in self.table.rows and self.merge is Merge.FIRST and not batch.rewrites:
                    conflicts += 1
                else:
                    written += 1
                    self.table.rows[key] = name
                    self.table.history.setdefault(key, []).append(name)
            counts = Counts(written=written, conflicts=conflicts, deleted=len(deletes))
            self.cell.batches[token.seq] = (token.id, counts, refused)
        return self.receipt(token)

    def as_stored(self, rows: pa.Table) -> pa.Table:
        return rows.select(["id", "name", POSITION])

    def as_stored_keys(self, keys: pa.Table) -> pa.Table:
        return keys.select(["id", POSITION])

    def scan(self) -> Iterable[pa.RecordBatch]:
        with self.cell.lock:
            rows = sorted(self.table.rows.items())
        for start in range(0, len(rows), 3):
            yield self._batch(rows[start : start + 3])

    def rows_of(self, keys: pa.Table) -> pa.Table:
        wanted = set(keys.column("id").to_pylist())
        return pa.Table.from_batches([self._batch([pair for pair in self.table.rows.items() if pair[0] in wanted])])

    def _batch(self, rows: list[tuple[int, str]]) -> pa.RecordBatch:
        ids, names = [i for i, _ in rows], [n for _, n in rows]
        return pa.record_batch([pa.array(ids, pa.int64()), pa.array(names, pa.string())], names=["id", "name"])


@dataclass
class NotingSink(MemorySink):
    """Appends rows and notes beside each which batch's records it was made of, so that they can be replaced."""

    merge: Merge = Merge.APPEND
    rows: list[tuple[int, str, int | None]] = field(default_factory=list)
    batch_column: str | None = "_batch"

    def prepare(self, schema: pa.Schema, declared_key: tuple[str, ...]) -> Target:
        return Target("memory://rows", (), {"id": "int8"}, self.cell.incarnation, "exactly-once")

    def commit(self, staged: Staged) -> Receipt:
        token, batch = staged.token, staged.payload
        with self.cell.lock:
            self._advance(token)
            if batch.rewrites:
                self.rows[:] = [row for row in self.rows if row[2] != batch.root]
            root = batch.root if self.batch_column else None
            pairs = zip(*(batch.upserts.column(c).to_pylist() for c in ("id", "name")), strict=True)
            new = [(key, name, root) for key, name in pairs]
            self.rows += new
            self.cell.batches[token.seq] = (token.id, Counts(written=len(new)), [])
        return self.receipt(token)

    def rows_of_batch(self, root: int) -> int:
        return sum(1 for row in self.rows if row[2] == root)

    def as_stored(self, rows: pa.Table) -> pa.Table:
        return rows.select(["id", "name", POSITION])

    def scan(self) -> Iterable[pa.RecordBatch]:
        with self.cell.lock:
            ids, names = [row[0] for row in self.rows], [row[1] for row in self.rows]
        yield pa.record_batch([pa.array(ids, pa.int64()), pa.array(names, pa.string())], names=["id", "name"])
