"""Nouns and protocols that every part speaks: the columnar contracts of ARCHITECTURE section 2.

Rows between stages are Arrow tables with two hidden columns:

- `_kind` (int8): Flink's RowKind; absent means every row is an insert;
- `_position` (int64): the record's ordinal in its batch, 0-based. A batch is ordered by (split in plan order, place in
  the split), so the ordinal is that order; the archive maps it back to split, offset and raw bytes.
"""

import hashlib
import threading
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum, StrEnum
from typing import Any, Literal, Protocol, Self, runtime_checkable

import orjson
import pyarrow as pa

from vector_assets.engine.retry import RetryPolicy

Json = str | int | float | bool | None | list[Any] | dict[str, Any]
Split = str
Token = Json
Position = Mapping[Split, Token]

KIND = "_kind"
POSITION = "_position"
HIDDEN = frozenset({KIND, POSITION})

HEADERS_TYPE = pa.list_(pa.struct([pa.field("key", pa.string()), pa.field("value", pa.binary())]))
RAW_SCHEMA = pa.schema(
    [
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
        pa.field("headers", HEADERS_TYPE),
        pa.field("timestamp", pa.timestamp("ms", tz="UTC")),
        pa.field("split", pa.int16(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("leader_epoch", pa.int32()),
        pa.field("timestamp_type", pa.int8()),
    ]
)
"""What a source reads: undecoded records. `split` is the index of the split in the span; `offset` its place there.

A null `value` is a tombstone; null `headers` means none. `leader_epoch` and `timestamp_type` (Java's numbers: 0 is set
by the producer, 1 by the broker) are Kafka's; null elsewhere, and where older code wrote the archive. Of a typed source
(`engine/typed.py`) `value` is a struct.
"""

REJECT_SCHEMA = pa.schema(
    [
        pa.field(POSITION, pa.int64(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("error", pa.string(), nullable=False),
    ]
)
"""One row per rejected record: its ordinal, the stage (`decode`, `transform`, `write`) and the reason for people."""


class RowKind(IntEnum):
    """Flink's row kinds, by the numbers Flink gives them."""

    INSERT = 0
    UPDATE_BEFORE = 1
    UPDATE_AFTER = 2
    DELETE = 3


class Merge(StrEnum):
    """What a sink does with several rows of one key; CHANGELOG takes every change as it comes, with its `_kind`."""

    LAST = "last"
    FIRST = "first"
    ERROR = "error"
    APPEND = "append"
    CHANGELOG = "changelog"


class State(StrEnum):
    """Where a batch is on its way; each step is a compare-and-set in the ledger."""

    PLANNED = "PLANNED"
    SEALED = "SEALED"
    STAGED = "STAGED"
    DONE = "DONE"
    DISCARDED = "DISCARDED"


class BatchKind(StrEnum):
    """Why a batch exists: records of the source, dead letters written again, a position moved by hand, or an archived
    batch made again by today's code."""

    RECORDS = "records"
    DEAD_LETTERS = "dead_letters"
    RESET = "reset"
    REWRITE = "rewrite"


Guarantee = Literal["exactly-once", "effectively-once", "at-least-once"]
Found = Literal["APPLIED", "ABSENT", "UNKNOWN"]


def canonical(value: object) -> str:
    """JSON with sorted keys and no spaces: equal values have equal text."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


@dataclass(frozen=True, slots=True)
class Range:
    """What a span takes of one split: tokens `start` (first to read) and `end` (first not to read)."""

    split: Split
    start: Token
    end: Token


@dataclass(frozen=True, slots=True)
class Span:
    """Ranges of splits in plan order; its canonical JSON is its identity."""

    ranges: tuple[Range, ...] = ()

    @property
    def start(self) -> dict[Split, Token]:
        """First token of every split."""
        return {part.split: part.start for part in self.ranges}

    @property
    def end(self) -> dict[Split, Token]:
        """Next token after the span, of every split."""
        return {part.split: part.end for part in self.ranges}

    def to_json(self) -> str:
        """Canonical JSON, read back by `from_json`."""
        return canonical([[part.split, part.start, part.end] for part in self.ranges])

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The span that `to_json` wrote."""
        return cls(tuple(Range(*part) for part in orjson.loads(text)))

    def short(self) -> str:
        """For people only: `0:1200-2400,1:1180-2390`."""
        return ",".join(f"{p.split.rpartition('/')[2]}:{brief(p.start)}-{brief(p.end)}" for p in self.ranges)


def brief(token: Token) -> str:
    """A token in as few characters as people need: its offset if it has one, else its transactions."""
    if isinstance(token, dict):
        return str(token.get("offset", token.get("gtid", canonical(token))))
    return str(token)


@dataclass(frozen=True, slots=True)
class BatchLimit:
    """How much a batch may take: rows and bytes, and no further than `until` (a frontier seen before)."""

    rows: int
    bytes: int
    until: Position | None = None


@dataclass(frozen=True, slots=True)
class BatchToken:
    """The name of a batch in its target; `id` is equal for every attempt to apply the same batch.

    `first_splits` are those the ledger never saw before this batch: only they may be absent in the target.
    """

    pipeline: str
    target: str
    seq: int
    span: Span
    fence: int
    first_splits: frozenset[Split] = frozenset()

    @property
    def id(self) -> str:
        """Hash of pipeline, target, sequence number and span; not of the fence."""
        text = canonical([self.pipeline, self.target, self.seq, self.span.to_json()])
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of a batch's records.

    `records = decoded + rejected`; `rows = filtered + compacted + conflicts + superseded + refused + written + deleted`
    (one record may decode to several rows, or to none). `refused` rows were rejected by the target; `superseded` ones
    were left alone because a later batch had touched their key; `nulled` fields were unreadable and set to null because
    the format's options ask for it. `embedded` texts were sent to a model for `tokens` and `cost_micros` millionths of
    the price's currency, `reused` ones were paid for before; all four are of the batch's last preparation.
    """

    records: int = 0
    bytes: int = 0
    decoded: int = 0
    rejected: int = 0
    rows: int = 0
    filtered: int = 0
    compacted: int = 0
    conflicts: int = 0
    superseded: int = 0
    refused: int = 0
    written: int = 0
    deleted: int = 0
    nulled: int = 0
    embedded: int = 0
    reused: int = 0
    tokens: int = 0
    cost_micros: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    def to_dict(self) -> dict[str, int]:
        """Every count by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, int]) -> Self:
        """The counts that `to_dict` gave; unknown names are ignored so that old ledgers stay readable."""
        return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})


def no_rejects() -> pa.Table:
    """An empty table of rejects."""
    return REJECT_SCHEMA.empty_table()


def rejects(positions: "pa.Array | Sequence[int]", stage: str, errors: "pa.Array | Sequence[str] | str") -> pa.Table:
    """A table of rejects of one stage; `errors` may be one text for all."""
    where = positions if isinstance(positions, pa.Array | pa.ChunkedArray) else pa.array(positions, pa.int64())
    count = len(where)
    why = pa.repeat(errors, count) if isinstance(errors, str) else errors
    return pa.table([where, pa.repeat(stage, count), why], schema=REJECT_SCHEMA)


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """A change of its columns that an evolving decoder wants (`abilities.Evolving`), for people in `what`.

    `position` is the ordinal of the first record that needs it; `entry` and `refusal` are what the decoder's state
    grows by when the target makes the change, or refuses it. `renamed` are the names, old and new, of a column that
    stays the same under another name; a refusal of what `is_required` stops the pipeline.
    """

    position: int
    what: str
    entry: Json
    refusal: Json
    renamed: tuple[str, str] | None = None
    is_required: bool = False


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a decoder or a transform made of its input: good rows, and the records it rejects.

    `nulled` counts fields set to null on the format's orders; `filtered` counts rows a WHERE (or an inner lookup join)
    left out; `versions` says which version of each dimension table the rows were joined with. With `wants` the rows are
    not to be used: the columns are changed first, and the records decoded again. `usage` are what it has of `Counts`
    beside these, by name.
    """

    rows: pa.Table
    rejected: pa.Table = field(default_factory=no_rejects)
    nulled: int = 0
    filtered: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    usage: Mapping[str, int] = field(default_factory=dict)
    wants: tuple[SchemaChange, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """What `Sink.prepare` learned about the target.

    `key` holds the columns that identify a row (the declared key, else the target's own); `columns` maps target column
    to its type as the target spells it; `incarnation` changes when the target is dropped and made anew; `notes` are
    for people (for example "dimension of feature: not checked").
    """

    name: str
    key: tuple[str, ...]
    columns: Mapping[str, str]
    incarnation: str
    guarantee: Guarantee
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows for exactly one target under one schema version, in order; `upserts` and `deletes` share no key.

    `upserts` has the target's columns (the names of the declared sink table) plus `_position` (and `_kind` where the
    merge is `changelog`); `deletes` holds key columns and `_position` only, and is None unless the merge is `last`. The
    target may reject at most `reject_limit` rows; more is a BudgetError before anything is committed. With `rewrites`,
    every upsert replaces the row of its key whatever the merge says of rows that exist, and no two upserts share a key
    (`abilities.Overwriting`); without a key, the rows replace those of batch `root` (`abilities.Replacing`).

    `root` is the number of the batch whose records the rows were made of: a rewrite's is that of the batch it rewrites,
    any other's is its own, which None says too.
    """

    upserts: pa.Table
    deletes: pa.Table | None = None
    schema_version: int = 1
    reject_limit: int | None = None
    rewrites: bool = False
    root: int | None = None


@dataclass(frozen=True, slots=True)
class Staged:
    """A batch ready to be committed.

    `committable` goes to the ledger before the commit (small JSON); `payload` stays in this process and is made again
    by `stage` after a crash; `rejected` are rows the sink refuses without asking the target. The engine sets `hides`
    where a row may stand for earlier changes of its key: if the target refuses one, `commit` raises RowsRefusedError.
    """

    token: BatchToken
    committable: Json = None
    rejected: pa.Table = field(default_factory=no_rejects)
    counts: Counts = field(default_factory=Counts)
    payload: Any = None
    hides: bool = False


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the target confirmed: durable and visible. `rejected` are rows the target itself refused."""

    token_id: str
    commit_id: str
    counts: Counts = field(default_factory=Counts)
    rejected: pa.Table = field(default_factory=no_rejects)


@dataclass(frozen=True, slots=True)
class WireLimits:
    """From the vendor's options: rows per request inside a batch, longest wait of a batch that is not full."""

    flush_rows: int
    linger_seconds: float


class Source(Protocol):
    """Where records come from. Not thread-safe: one reader thread uses it (sensors open their own)."""

    def start(self) -> Position:
        """Position of a pipeline that has none yet, by the start option; the ledger freezes it."""
        ...

    def frontier(self) -> Position:
        """Just past the last readable record of every split."""
        ...

    def plan(self, start: Position, limit: BatchLimit) -> Span | None:
        """The next span: starts frozen, ends are a ceiling; None when nothing is new.

        Raises:
            PositionLostError: the source is not what `start` was taken from, or no longer holds it.
        """
        ...

    def read(self, span: Span, limit: BatchLimit) -> Generator[pa.RecordBatch, None, Span]:
        """Records (RAW_SCHEMA) split by split in plan order; returns the span with its ends as read.

        It may end before the ceiling when `limit.bytes` is reached. The source's identity is checked again before it
        returns, so what was yielded may be sealed.

        Raises:
            PositionLostError: the range is gone.
            TransientError: the source does not answer.
        """
        ...

    def lag(self, position: Position, frontier: Position) -> int:
        """Records between the two (holes included). Pure: any thread may ask."""
        ...

    def locate(self, where: str) -> Position:
        """A position by an operator's words: `earliest`, `latest`, or the source's own spelling of places.

        Raises:
            ConfigError: the words are not understood; the message lists what is.
        """
        ...

    def close(self) -> None:
        """Give back connections; idempotent."""
        ...


class Decoder(Protocol):
    """Raw records to typed rows. Thread-safe."""

    def decode(self, raw: pa.RecordBatch | pa.Table) -> Decoded:
        """Rows (with `_position`, and `_kind` unless all are inserts) and rejects of RAW_SCHEMA + `_position`."""
        ...


class Transform(Protocol):
    """Typed rows to typed rows. Thread-safe."""

    def apply(self, rows: pa.Table) -> Decoded:
        """Rows with their hidden columns kept; records whose conversion fails are rejects, never an exception."""
        ...


@runtime_checkable
class Versioned(Protocol):
    """A transform that reads more than its rows, such as a dimension table."""

    def at(self, versions: Mapping[str, str]) -> Transform:
        """The same over the versions that `Decoded.versions` named; those that it does not name are today's."""
        ...


@runtime_checkable
class Heeding(Protocol):
    """A transform that may take long, such as one that asks a model."""

    def heeding(self, stop: threading.Event) -> Transform:
        """The same; once `stop` is set it begins nothing more and raises TransientError."""
        ...


class Sink(Protocol):
    """Where rows go. `stage` runs in worker threads, everything else in the committer's thread."""

    merge: Merge
    wire: WireLimits
    retry: RetryPolicy

    def prepare(self, schema: pa.Schema, declared_key: tuple[str, ...]) -> Target:
        """Check the target against the rows' schema before the first row.

        Raises:
            PlanError: a column is missing or of another type, or the declared key is not the target's.
            ConfigError: credentials or options are wrong.
        """
        ...

    def inspect(self, schema: pa.Schema, declared_key: tuple[str, ...]) -> Target:
        """The checks of `prepare` without changing anything; what `prepare` would create is in the notes."""
        ...

    def stage(self, batch: Batch, token: BatchToken) -> Staged:
        """Everything that can be done without being visible."""
        ...

    def commit(self, staged: Staged) -> Receipt:
        """Apply the batch: durable and visible when it returns.

        Raises:
            TransientError: it may or may not have been applied; ask `find`.
            RowsRefusedError: rows are refused and `staged.hides`; the target does not hold the token.
            FencedError: the batch is not the next one in the target.
            TargetReplacedError: the target is a new object under the old name.
        """
        ...

    def find(self, token: BatchToken, committable: Json) -> Found:
        """Whether the target holds the batch. UNKNOWN stops the pipeline."""
        ...

    def receipt(self, token: BatchToken) -> Receipt:
        """The receipt of an APPLIED batch, read back from the target."""
        ...

    def forget(self, pipeline: str) -> None:
        """Drop this pipeline's tokens and positions in the target (operator's `reset --adopt-target`)."""
        ...

    def close(self) -> None:
        """Give back connections; idempotent."""
        ...


def kinds_of(rows: pa.Table) -> pa.ChunkedArray | None:
    """The `_kind` column, None when every row is an insert."""
    return rows.column(KIND) if KIND in rows.column_names else None


def moved(span: Span, end: Position) -> Span:
    """The span with other ends."""
    return Span(tuple(replace(part, end=end[part.split]) for part in span.ranges))
