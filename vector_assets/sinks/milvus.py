"""Milvus: upserts and deletes by key, then the batch's token, so effectively once."""

import uuid
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from vector_assets.clients.milvus import Collection, NoCollectionError, connect
from vector_assets.engine.abilities import Finding, Recalled, SearchQuery, SearchResult
from vector_assets.engine.core import (
    Batch,
    BatchToken,
    Counts,
    Found,
    Json,
    Merge,
    Receipt,
    Staged,
    Target,
)
from vector_assets.engine.errors import PlanError, RowsRefusedError, TargetReplacedError
from vector_assets.engine.schema import ColumnChange, Table
from vector_assets.sinks import milvus_tokens
from vector_assets.sinks.milvus_options import MilvusOptions
from vector_assets.sinks.milvus_plan import Plan, make_plan
from vector_assets.sinks.milvus_tokens import Tokens
from vector_assets.sinks.milvus_values import Columns, convert
from vector_assets.sinks.milvus_write import Landing, Requests, requests_of
from vector_assets.sinks.staging import budget_left, payload_of, prepared, rejects_of

if TYPE_CHECKING:
    from vector_assets.clients.milvus_api import Api

_UNMARKED = "unmarked"
"""Incarnation of a collection of milvus-lite that nobody prepared yet."""


class MilvusSink:
    """Writes a collection of Milvus."""

    Options = MilvusOptions
    merge: Merge = Merge.LAST

    def __init__(self, options: MilvusOptions, table: Table | None = None, pipeline: str = "") -> None:
        self.options = options
        self.table = table
        self.pipeline = pipeline
        self.wire = options.wire
        self.retry = options.retry
        self._connection: Api | None = None
        self._plan: Plan | None = None
        self._incarnation = ""

    def prepare(self, schema: pa.Schema, declared_key: tuple[str, ...]) -> Target:
        """Check the collection against `schema`, and create the collection for batches where it is missing.

        Raises:
            PlanError: the collection, its key, a field, a dimension, a length or a partition does not fit.
            ConfigError: the server refuses the credentials or the database.
            UnavailableError: the server cannot be reached.
        """
        collection, plan = self._inspected(schema, declared_key)
        milvus_tokens.create(self._api())
        self._api().load_if_lite(collection.name)
        if milvus_tokens.incarnation(self._api(), collection) is None:
            collection = milvus_tokens.mark(self._api(), collection, uuid.uuid4().hex)
        return self._target(collection, plan, plan.notes)

    def inspect(self, schema: pa.Schema, declared_key: tuple[str, ...]) -> Target:
        """The same checks, but nothing is created: what would be is in the target's notes."""
        collection, plan = self._inspected(schema, declared_key)
        missing = milvus_tokens.is_missing(self._api())
        notes = (*plan.notes, f"{milvus_tokens.COLLECTION}: will be created") if missing else plan.notes
        return self._target(collection, plan, notes)

    def _inspected(self, schema: pa.Schema, declared_key: tuple[str, ...]) -> tuple[Collection, Plan]:
        api, name = self._api(), self.options.collection
        try:
            collection = api.describe(name)
        except NoCollectionError as error:
            raise PlanError(
                f"milvus: collection {name} does not exist in database {self.options.database}: make it, or run"
                " `vector-assets target create`"
            ) from error
        try:
            plan = make_plan(
                collection, api.partitions(name), api.server, schema, declared_key, self.options, self.table
            )
        except PlanError as error:
            raise PlanError(f"milvus: {error}") from error
        self._plan = plan
        return collection, plan

    def _target(self, collection: Collection, plan: Plan, notes: tuple[str, ...]) -> Target:
        self._incarnation = milvus_tokens.incarnation(self._api(), collection) or _UNMARKED
        if not self._api().is_loaded(collection.name):
            notes = (*notes, "the collection is not loaded: rows can be written, but not searched or read")
        return Target(
            name=self.options.target(),
            key=(plan.key.name,),
            columns={field.name: field.spelled for field in plan.fields},
            incarnation=self._incarnation,
            guarantee="effectively-once",
            notes=notes,
        )

    def stage(self, batch: Batch, token: BatchToken) -> Staged:
        """Convert, check and encode the rows; those the server would refuse are rejects.

        Raises:
            BudgetError: more rows are refused than the batch may lose.
        """
        plan = self._prepared()
        upserts, reasons = convert(batch.upserts, plan.fields)
        deletes: Columns | None = None
        if batch.deletes is not None and batch.deletes.num_rows:
            deletes, more = convert(batch.deletes, (plan.key,))
            reasons |= more
        limit = budget_left(reasons, batch.reject_limit, self._place)
        return Staged(
            token=token,
            committable={"incarnation": self._incarnation},
            rejected=rejects_of(reasons),
            counts=Counts(refused=len(reasons)),
            payload=requests_of(plan, upserts, deletes, self.options.flush_rows, limit),
        )

    def commit(self, staged: Staged) -> Receipt:
        """Write the rows, then the token; the receipt of an earlier attempt when that one landed after all.

        Raises:
            FencedError: the batch is not the next one, or the pipeline has a later owner.
            TargetReplacedError: the collection was dropped or made anew.
            BudgetError: more rows are refused than the batch may lose.
            RowsRefusedError: rows are refused that may hide earlier changes; the others are written.
            TransientError: it may or may not have been applied, in part or as a whole.
        """
        token, tokens = staged.token, self._tokens(staged.token.pipeline)
        requests = payload_of(staged, Requests, self._place)
        tokens.check_same(self._current(), self._incarnation)
        state = tokens.state(token.seq)
        if state.batch is not None:
            return tokens.receipt_of(state.batch, token)
        tokens.check(state, token, self._incarnation)
        landing = Landing(self._api(), self._place, requests.limit, self.retry)
        try:
            landing.send(requests)
        except NoCollectionError as error:
            raise TargetReplacedError(f"{self._place} was dropped: {error}") from error
        if landing.refused and staged.hides:
            raise RowsRefusedError(rejects_of(landing.refused))
        # somebody may have taken over while the rows were on their way
        tokens.check_same(self._current(), self._incarnation)
        state = tokens.state(token.seq)
        if state.batch is not None:
            return tokens.receipt_of(state.batch, token)
        tokens.check(state, token, self._incarnation)
        counts = Counts(written=landing.written, deleted=landing.deleted, refused=len(landing.refused))
        return tokens.settle(state, token, self._incarnation, counts, landing.refused)

    def _current(self) -> str | None:
        """What tells the collection that has the name now; None when there is none."""
        try:
            collection = self._api().describe(self.options.collection)
        except NoCollectionError:
            return None
        return milvus_tokens.incarnation(self._api(), collection) or _UNMARKED

    def find(self, token: BatchToken, committable: Json) -> Found:
        """Whether the target holds the batch.

        Raises:
            TargetReplacedError: the batch was applied to a collection that is gone.
        """
        return self._tokens(token.pipeline).find(token, self._current())

    def receipt(self, token: BatchToken) -> Receipt:
        """What was noted when the batch was committed.

        Raises:
            FencedError: the target does not hold this batch, or a later owner applied it.
        """
        return self._tokens(token.pipeline).receipt(token)

    def forget(self, pipeline: str) -> None:
        """Drop the pipeline's positions and batches in this target."""
        if not milvus_tokens.is_missing(self._api()):
            self._tokens(pipeline).forget()

    def recall(self, pipeline: str) -> Recalled:
        """Everything the target's tokens say; empty when it never saw the pipeline."""
        if milvus_tokens.is_missing(self._api()):
            return Recalled({}, ())
        return self._tokens(pipeline).recall()

    def newest_seq(self, pipeline: str) -> int:
        """Highest sequence number of the pipeline's batches in this target, 0 for none."""
        return 0 if milvus_tokens.is_missing(self._api()) else self._tokens(pipeline).newest_seq()

    def prune(self, pipeline: str, up_to: int) -> int:
        """Delete the rows of the pipeline's batches up to this number, but the newest."""
        return 0 if milvus_tokens.is_missing(self._api()) else self._tokens(pipeline).prune(up_to)

    def search(self, query: SearchQuery, *, explain: bool = False) -> SearchResult:
        """The nearest rows.

        Raises:
            ConfigError: no such vector field, a vector of another dimension, or a filter the server refuses.
            PlanError: the collection has no dense vector field, or is not loaded.
        """
        from vector_assets.sinks.milvus_search import search

        return search(self._api(), self.options, query)

    def sample(self, count: int, *, column: str | None = None) -> tuple[tuple[float, ...], ...]:
        """Vectors of some rows, to measure a search with; the keys of all rows are read."""
        from vector_assets.sinks.milvus_search import sample

        return sample(self._api(), self.options, count, column)

    def vet(self, batch: Batch) -> pa.Table:
        """The rows that `stage` would refuse, with the reasons; nothing is kept."""
        plan = self._prepared()
        reasons = convert(batch.upserts, plan.fields)[1]
        if batch.deletes is not None and batch.deletes.num_rows:
            reasons |= convert(batch.deletes, (plan.key,))[1]
        return rejects_of(reasons)

    def diagnose(self) -> Iterator[Finding]:
        """The server, the collection, its indexes, and the collection for batches."""
        from vector_assets.sinks.milvus_diagnose import findings

        yield from findings(self._api(), self.options)

    def as_stored(self, rows: pa.Table) -> pa.Table:
        """Rows of the sink's schema (hidden columns kept) as the collection would hold them."""
        from vector_assets.sinks.milvus_audit import as_stored

        return as_stored(self._prepared(), rows)

    def as_stored_keys(self, keys: pa.Table) -> pa.Table:
        """The key's column of the pipeline as the collection would hold it."""
        from vector_assets.sinks.milvus_audit import as_stored_keys

        return as_stored_keys(self._prepared(), keys)

    def rows_of(self, keys: pa.Table) -> pa.Table:
        """The rows that have one of these keys now (in the partition, if it is a fixed one)."""
        from vector_assets.sinks.milvus_audit import rows_of

        return rows_of(self._api(), self._prepared(), keys)

    def scan(self) -> Iterator[pa.RecordBatch]:
        """Every row of the target (of its partition, if it is a fixed one) by key, in bounded memory."""
        from vector_assets.sinks.milvus_audit import scan

        return scan(self._api(), self._prepared())

    def create_target(self, schema: pa.Schema, declared_key: tuple[str, ...]) -> tuple[str, ...]:
        """Make the collection, its partition and its indexes where they are missing; what was made or was there.

        Raises:
            PlanError: the schema and the options do not say enough, or what is there does not fit.
        """
        from vector_assets.sinks.milvus_create import create

        made = create(self._api(), self.options, schema, declared_key, self.table)
        self._inspected(schema, declared_key)
        return made

    def alter(self, changes: Sequence[ColumnChange]) -> tuple[str, ...]:
        """Nothing: a collection's fields are what they were when it was made.

        Raises:
            PlanError: always.
        """
        raise PlanError(
            f"{self._place}: {'; '.join(map(str, changes))}: fields of a Milvus 2.3 collection are neither added nor"
            " dropped, renamed or changed; make another collection, or set schema.change.behavior to ignore"
        )

    def close(self) -> None:
        """Give back the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    @property
    def _place(self) -> str:
        return f"milvus: {self.options.place}"

    def _api(self) -> "Api":
        if self._connection is None:
            self._connection = connect(self.options.login, self._place)
        return self._connection

    def _prepared(self) -> Plan:
        return prepared(self._plan, self._place)

    def _tokens(self, pipeline: str) -> Tokens:
        return Tokens(self._api(), self.options.place, pipeline)
