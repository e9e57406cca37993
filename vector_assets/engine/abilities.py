"""What a sink may be able to do beyond writing; the engine and the commands ask with `isinstance`.

A sink class that has a protocol's methods has the ability. Each is read-only for the target's rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import pyarrow as pa

from vector_assets.engine.core import Counts, Position, Span

DISTANCE = "_distance"
"""Column of a search's result: how far the row is from the vector, by the metric that was used."""


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """The `k` rows nearest to `vector` among those that meet `where` (the target's own filter language).

    `column` names the vector column where the target has several; `metric` is the target's name of a distance, default
    that of the index. `exact` compares with every row instead of asking an index.
    """

    vector: tuple[float, ...]
    k: int = 10
    where: str | None = None
    column: str | None = None
    metric: str | None = None
    exact: bool = False


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


@dataclass(frozen=True, slots=True)
class RecalledBatch:
    """A batch that the target holds. `span` is None where the target keeps no spans."""

    seq: int
    token_id: str
    span: Span | None
    counts: Counts
    commit_id: str


@dataclass(frozen=True, slots=True)
class Recalled:
    """What a target knows of a pipeline: where it stands and which batches were applied, by sequence number."""

    position: Position
    batches: tuple[RecalledBatch, ...]


@runtime_checkable
class Recallable(Protocol):
    """Knows from its own tokens where a pipeline stands: enough to rebuild a lost ledger."""

    def recall(self, pipeline: str) -> Recalled:
        """Everything the target's tokens say; empty when it never saw the pipeline."""
        ...
