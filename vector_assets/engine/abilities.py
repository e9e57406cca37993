"""What a sink (or a source) may be able to do beyond its contract; the engine and the commands ask with `isinstance`.

A sink class that has a protocol's methods has the ability. Each is read-only for the target's rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import ClassVar, Literal, Protocol, runtime_checkable

import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine.core import (
    Batch,
    BatchToken,
    Counts,
    Decoder,
    Json,
    Position,
    Span,
    Split,
    Token,
    Transform,
)
from vector_assets.engine.schema import Column, ColumnChange

DISTANCE = "_distance"
"""Column of a search's result: how far the row is from the vector, by the metric that was used."""


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """The `k` rows nearest to `vector` among those that meet `where` (the target's own filter language).

    `column` names the vector column where the target has several; `metric` is the target's name of a distance, default
    that of the index. `exact` compares with every row instead of asking an index. Instead of a vector, `text` may be
    given to a target that has a model for it (`TextSearchable`); `is_hybrid` then looks for its words, too.
    """

    vector: tuple[float, ...]
    k: int = 10
    where: str | None = None
    column: str | None = None
    metric: str | None = None
    exact: bool = False
    text: str | None = None
    is_hybrid: bool = False


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Rows nearest first with `_distance`; `how` says in one line which operator and index answered.

    `plan` is the target's own explanation, when it was asked for and the target has one.
    """

    rows: pa.Table
    how: str
    plan: str | None = None


@runtime_checkable
class Searchable(Protocol):
    """Finds rows by vector."""

    def search(self, query: SearchQuery, *, explain: bool = False) -> SearchResult:
        """The nearest rows.

        Raises:
            ConfigError: no such vector column, a vector of another dimension, or a filter the target refuses.
            PlanError: the target has no vector column, or lacks what a vector search needs.
        """
        ...


@runtime_checkable
class TextSearchable(Searchable, Protocol):
    """Finds rows by text as well: `search` honours `SearchQuery.text`."""

    searches_text: bool


@runtime_checkable
class Auditable(Protocol):
    """Reads back what it holds, so that it can be compared with what should be there."""

    def as_stored(self, rows: pa.Table) -> pa.Table:
        """Rows of the sink's schema (hidden columns kept) as the target would hold them, in the target's types.

        Rows that the target would refuse are left out.
        """
        ...

    def scan(self) -> Iterator[pa.RecordBatch]:
        """Every row of the target in the columns and types that `as_stored` gives, in any order, in bounded memory.

        All rows are of one moment, that at which the first batch was asked for.
        """
        ...


@dataclass(frozen=True, slots=True)
class Tally:
    """Two numbers that must be equal; `note` says what they are."""

    name: str
    left: int
    right: int
    note: str


@runtime_checkable
class VectorAuditable(Protocol):
    """Looks after vectors that it makes itself, of which a pipeline knows nothing."""

    def audit_vectors(self, sample: int) -> Iterator[Tally]:
        """Whether every text has a vector, and whether those of `sample` rows are what the model makes of their texts
        today; so many texts are sent to the model at most.

        Raises:
            TransientError: the model does not answer.
        """
        ...


@runtime_checkable
class Countable(Protocol):
    """A source or a sink that can say how many rows it has now."""

    def count(self) -> int | None:
        """Rows; None where its options leave out some, so that the number would say nothing."""
        ...


@runtime_checkable
class KeyReadable(Protocol):
    """Reads back the rows of a few keys; only of a target that has a key."""

    def as_stored_keys(self, keys: pa.Table) -> pa.Table:
        """Key columns of the sink's schema with `_position`, in the target's types."""
        ...

    def rows_of(self, keys: pa.Table) -> pa.Table:
        """The rows that have one of these keys now, in the columns and types that `Auditable.as_stored` gives.

        `keys` has the key columns in the sink's schema's types and `_position`.
        """
        ...


@runtime_checkable
class Overwriting(Protocol):
    """Honours `Batch.rewrites`. Needed of a sink whose merge keeps the first row of a key; one that keeps the last
    replaces rows anyway."""

    overwrites: bool


@runtime_checkable
class Replacing(Protocol):
    """Notes beside every appended row which batch's records it was made of (`Batch.root`), so that a rewrite of that
    batch can replace its rows in one commit though they have no key."""

    @property
    def batch_column(self) -> str | None:
        """The column that holds the number; None: it is not noted, and no row can be replaced."""
        ...

    def rows_of_batch(self, root: int) -> int:
        """How many rows the target has now that were made of this batch's records."""
        ...


@dataclass(frozen=True, slots=True)
class RecalledBatch:
    """A batch that the target holds. `span` is None where the target keeps no spans, `committed_ms` where no times."""

    seq: int
    token_id: str
    span: Span | None
    counts: Counts
    commit_id: str
    committed_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Recalled:
    """What a target knows of a pipeline: where it stands and which batches were applied, by sequence number.

    `fence` is the highest that a batch was committed under (0 where the target keeps none), `incarnation` that of the
    object the newest batch was written to (None where it keeps none).
    """

    position: Position
    batches: tuple[RecalledBatch, ...]
    fence: int = 0
    incarnation: str | None = None


@runtime_checkable
class Recallable(Protocol):
    """Knows from its own tokens where a pipeline stands: enough to rebuild a lost ledger."""

    def recall(self, pipeline: str) -> Recalled:
        """Everything the target's tokens say; empty when it never saw the pipeline."""
        ...


@runtime_checkable
class Remembering(Protocol):
    """Knows without much ado how far a pipeline came: enough to see that a ledger was lost."""

    def newest_seq(self, pipeline: str) -> int:
        """Highest sequence number of a batch that the target holds; 0 when it never saw the pipeline."""
        ...


@runtime_checkable
class Prunable(Protocol):
    """Drops what it keeps of single batches; where the pipeline stands is kept."""

    def prune(self, pipeline: str, up_to: int) -> int:
        """Forget batches up to this sequence number, but never the newest; how many were forgotten.

        Whoever asks must never look for one of them again.
        """
        ...


@runtime_checkable
class Numbered(Protocol):
    """A source whose tokens say the number that the next record has in the raw column `offset`."""

    def number(self, token: Token) -> int:
        """The number of the first record that the token leaves to be read."""
        ...

    def token(self, number: int, before: Token) -> Token:
        """The token that leaves record `number` to be read; `before` is another one of the same split."""
        ...


@runtime_checkable
class Creatable(Protocol):
    """Can make its target from what the pipeline sends."""

    def create_target(self, schema: pa.Schema, declared_key: tuple[str, ...]) -> tuple[str, ...]:
        """Make the target for rows of `schema`; what was made, or was there already, one sentence each.

        A second call makes nothing.

        Raises:
            PlanError: the schema and the options do not say enough, or what is there does not fit.
        """
        ...


@runtime_checkable
class Sampling(Searchable, Protocol):
    """Gives vectors that it holds, to measure a search with."""

    def sample(self, count: int, *, column: str | None = None) -> tuple[tuple[float, ...], ...]:
        """Vectors of up to `count` rows chosen at random.

        Raises:
            ConfigError: no such vector column.
            PlanError: the target has no vector column.
        """
        ...


@runtime_checkable
class Vetting(Protocol):
    """Tells without writing which rows it would refuse, as far as it can know without asking the target."""

    def vet(self, batch: Batch) -> pa.Table:
        """Rejects (REJECT_SCHEMA) of a batch; `inspect` or `prepare` was called before.

        Raises:
            PlanError: the target takes no such rows at all.
        """
        ...


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: how it is, in one line, and what to do where it is not well."""

    level: Literal["ok", "warning", "problem"]
    what: str
    remedy: str | None = None


@runtime_checkable
class Checkable(Protocol):
    """A source or a sink that knows more about its own health than whether it answers."""

    def diagnose(self) -> Iterator[Finding]:
        """Everything worth a line; an outage is raised, not found.

        Raises:
            VectorAssetsError: what is looked at cannot be reached, or refuses us.
        """
        ...


@runtime_checkable
class Evolvable(Protocol):
    """Can change its target while the pipeline runs; only the committer asks, between two batches."""

    def evolve(self, schema: pa.Schema) -> tuple[str, ...]:
        """Make the target take rows of `schema`: columns it lacks are added (nullable, at the end), types that got
        wider are widened, columns that `schema` lacks are kept. What was changed, one sentence each; a second call
        changes nothing, so it may be repeated after a crash.

        Raises:
            PlanError: a change the target cannot make (a narrower or an unrelated type); nothing was changed.
        """
        ...

    def would_evolve(self, schema: pa.Schema) -> tuple[str, ...]:
        """What `evolve` would change, and its errors; nothing is changed, and nothing need be prepared. A target that
        is not there would not be changed."""
        ...


@runtime_checkable
class Alterable(Protocol):
    """Can also drop and rename columns; only the committer asks, between two batches."""

    def alter(self, changes: Sequence[ColumnChange]) -> tuple[str, ...]:
        """Make the changes, in order; what was changed, one sentence each. One that is made already changes nothing,
        so the last call may be repeated after a crash.

        Raises:
            PlanError: a change the target cannot make; those before it may be made.
        """
        ...


@runtime_checkable
class Following(Protocol):
    """A transform whose columns follow those of the rows it is given."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns that it gives out."""
        ...

    def following(self, columns: Sequence[Column]) -> Transform:
        """The same transform over rows of these columns (those of the decoder, then the metadata columns).

        Raises:
            PlanError: it cannot do without a column that is gone.
        """
        ...


@runtime_checkable
class Describing(Protocol):
    """An evolving decoder whose records say by themselves what their columns were: today's decodes all of them."""

    @property
    def renamed(self) -> dict[str, str]:
        """Declared names of columns that are called otherwise by now, and what they are called."""
        ...


@runtime_checkable
class Evolving(Protocol):
    """A decoder whose columns can change while the pipeline runs: `Decoded.wants` says how, `evolved` does it.

    The state is a list that only grows; the columns are what the declaration says with the state's entries applied.
    """

    @property
    def evolves(self) -> bool:
        """False where its options fix the columns."""
        ...

    @property
    def columns(self) -> tuple[Column, ...]:
        """Its columns as they are now."""
        ...

    def evolved(self, state: Sequence[Json]) -> Decoder:
        """The decoder as declared, with these entries of `SchemaChange` applied in order."""
        ...


MaintenanceTask = Literal["compact", "expire", "orphans"]


@dataclass(frozen=True, slots=True)
class Upkeep:
    """Limits of a maintenance task: files younger than `grace` and the newest `keep_snapshots` snapshots are left
    alone, files of at least `target_bytes` are not compacted."""

    grace: timedelta = timedelta(hours=24)
    keep_snapshots: int = 100
    keep_for: timedelta = timedelta(days=5)
    target_bytes: int = 128 * 1024**2


@dataclass(frozen=True, slots=True)
class Maintained:
    """What a maintenance task found and left: data files and bytes, and anything else worth a number or a line."""

    task: MaintenanceTask
    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int
    removed: int = 0
    notes: tuple[str, ...] = ()
    numbers: dict[str, int] = field(default_factory=dict)


@runtime_checkable
class Maintainable(Protocol):
    """A lake table that has to be kept in order. Rows never change, tokens are kept, and whatever a batch in flight
    may have written is left alone; it may run beside a committer of the same table."""

    def maintain(self, task: MaintenanceTask, upkeep: Upkeep) -> Maintained:
        """Do one task.

        Raises:
            TransientError: another writer won, or the store does not answer; nothing was lost, ask again.
        """
        ...


@runtime_checkable
class Queryable(Protocol):
    """Rows that DuckDB can read where they lie."""

    def relation(
        self, columns: Sequence[str] | None = None, where: pc.Expression | None = None
    ) -> pa.RecordBatchReader:  # fmt: skip
        """The table as it is now, in bounded memory, column names and types as Arrow sees them.

        With `columns` only these, in the table's order. Parts that cannot hold a row that meets `where`, an Arrow
        expression over `columns`, may be left out; of the other parts all rows come.
        """
        ...


@runtime_checkable
class Doubting(Protocol):
    """Knows what an operator can do where `find` says UNKNOWN."""

    def doubt(self, token: BatchToken) -> str:
        """What is not known of the batch, and the commands that settle it; asked right after `find`."""
        ...


@runtime_checkable
class Forgetful(Protocol):
    """Keeps nothing of batches once they are done: that a ledger was lost shows in the archive alone."""

    FORGETFUL: ClassVar[bool]


@runtime_checkable
class Partitioned(Protocol):
    """Options of a source whose batches may belong to partitions of its own instead of hours. Asks nobody.

    Every split is of one partition; a batch of records never spans two (the engine cuts what a source plans). Keys are
    spelled as Dagster keeps them: no comma, no `...` and no control character is in one.
    """

    @property
    def has_partitions(self) -> bool:
        """False where these options make it read something without partitions: its batches belong to hours."""
        ...

    def partition_of(self, split: Split) -> str:
        """The key of the partition that a split is of."""
        ...

    def partition_key(self, text: str) -> str:
        """The key that somebody means who spells a partition in the source's own way.

        Raises:
            ConfigError: nothing could be called that; the message shows how a key is spelled.
        """
        ...

    def is_read(self, key: str, position: Position) -> bool:
        """True when nothing is left to be read of the partition for a pipeline that stands there."""
        ...


@dataclass(frozen=True, slots=True)
class SourcePartition:
    """A partition of a source as it is now.

    `frontier` is just past its last record, by split; empty while `waits` says why it is not read (yet). One that the
    options leave out, whatever becomes of it, is not `is_wanted`.
    """

    key: str
    frontier: Position
    waits: str | None = None
    is_wanted: bool = True
    rows: int = 0
    modified_ms: int | None = None


@runtime_checkable
class Listing(Protocol):
    """A source that can say which partitions of its own there are."""

    def partitions(self) -> tuple[SourcePartition, ...]:
        """Every partition there is, in the order in which they are read; together their frontiers are the source's.

        Raises:
            TransientError: the source does not answer.
        """
        ...

    def newest(self, partitions: Sequence[SourcePartition]) -> SourcePartition | None:
        """The one that the source itself calls its newest, None when there is none."""
        ...


def partitioned(options: object) -> Partitioned | None:
    """The options, if batches of their source belong to partitions of its own."""
    return options if isinstance(options, Partitioned) and options.has_partitions else None
