"""OpenSearch: documents by key with versions of their own, or new ones with ids of the batch, then the batch's token.

So a batch may be sent again: effectively once.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pyarrow as pa

from vector_assets.clients.opensearch import Client, RefusedError, connect
from vector_assets.engine.abilities import Finding, Recalled, SearchQuery, SearchResult, Tally
from vector_assets.engine.core import Batch, BatchToken, Counts, Found, Json, Merge, Receipt, Staged, Target
from vector_assets.engine.errors import PlanError, RowsRefusedError
from vector_assets.engine.options import parse_duration
from vector_assets.engine.schema import ColumnChange, Table
from vector_assets.sinks import opensearch_tokens, opensearch_values
from vector_assets.sinks.opensearch_index import Index, describe, family
from vector_assets.sinks.opensearch_options import OpenSearchOptions
from vector_assets.sinks.opensearch_place import place
from vector_assets.sinks.opensearch_plan import Plan, make_plan
from vector_assets.sinks.opensearch_tokens import Tokens
from vector_assets.sinks.opensearch_write import Landing, Work
from vector_assets.sinks.staging import budget_left, payload_of, prepared, rejects_of

_CHECK_AFTER_S = 60.0
"""A batch that takes longer looks again whether it is still its turn before the next request."""
_DEFAULT_GC = timedelta(seconds=60)


class OpenSearchSink:
    """Writes an index of OpenSearch."""

    Options = OpenSearchOptions
    merge: Merge = Merge.LAST
    searches_text = True

    def __init__(self, options: OpenSearchOptions, table: Table | None = None, pipeline: str = "") -> None:
        self.options = options
        self.table = table
        self.pipeline = pipeline
        self.wire = options.wire
        self.retry = options.retry
        self._connection: Client | None = None
        self._plan: Plan | None = None
        self._bases: dict[str, int] = {}
        self._known: set[str] = set()
        if table is not None and not table.primary_key:
            self.merge = Merge.APPEND

    def prepare(self, schema: pa.Schema, declared_key: tuple[str, ...]) -> Target:
        """Check the index against `schema`, make the index for batches, and let the index remember deletes for long.

        Raises:
            PlanError: the index, its key, a field or a dimension does not fit.
            ConfigError: the server refuses the credentials.
            UnavailableError: the server cannot be reached.
        """
        plan = self._inspected(schema, declared_key)
        opensearch_tokens.create(self._client())
        self._incarnation_of(plan.index, notes=True)
        if self._forgets_soon(plan):
            self._remember_deletes(plan.index)
        return self._target(plan, plan.notes)

    def inspect(self, schema: pa.Schema, declared_key: tuple[str, ...]) -> Target:
        """The same checks, but nothing is changed: what would be is in the target's notes."""
        plan = self._inspected(schema, declared_key)
        notes = plan.notes
        if opensearch_tokens.is_missing(self._client()):
            notes = (*notes, f"{opensearch_tokens.INDEX}: will be created")
        if self._forgets_soon(plan):
            notes = (*notes, f"index.gc_deletes: will be raised to {self.options.gc_deletes.total_seconds():g} s")
        return self._target(plan, notes)

    def _forgets_soon(self, plan: Plan) -> bool:
        text = plan.index.settings.get("index.gc_deletes")
        return bool(plan.key) and (parse_duration(text) if text else _DEFAULT_GC) < self.options.gc_deletes

    def _remember_deletes(self, index: Index) -> None:
        where = index.name if index.is_several else index.concrete
        params = {"allow_no_indices": "true"}
        self._client().ask("PUT", f"/{where}/_settings", {"index": self._gc_deletes}, params=params)

    @property
    def _gc_deletes(self) -> dict[str, str]:
        return {"gc_deletes": f"{int(self.options.gc_deletes.total_seconds())}s"}

    def _inspected(self, schema: pa.Schema, declared_key: tuple[str, ...]) -> Plan:
        from vector_assets.sinks.opensearch_search import brings_all, embedded

        index = describe(self._client(), self.options.index)
        if index is None:
            raise PlanError(
                f"{self._place} does not exist: make it (`vector-assets search-setup`), or run `vector-assets target"
                " create`"
            )
        try:
            plan = make_plan(index, schema, declared_key)
        except PlanError as error:
            raise PlanError(f"opensearch: {error}") from error
        self.merge = Merge.LAST if plan.key else Merge.APPEND
        index = replace(index, uuid=self._incarnation_of(index, notes=False))
        vectors = {column.name for column in plan.columns if column.is_vector}
        if brings_all(self._client(), index, vectors):
            plan = plan.direct()
        elif plan.index.passes("default"):
            texts = embedded(self._client(), index)
            plan = replace(plan, texts=tuple(each.name for each in plan.columns if each.name in texts))
        self._plan = replace(plan, index=index, delimiter=self.options.delimiter)
        return self._plan

    def _target(self, plan: Plan, notes: tuple[str, ...]) -> Target:
        return Target(
            name=self.options.target(),
            key=plan.key,
            columns={column.name: column.kind for column in plan.columns},
            incarnation=plan.index.uuid,
            guarantee="effectively-once",
            notes=notes,
        )

    def stage(self, batch: Batch, token: BatchToken) -> Staged:
        """Make and check the documents; rows that cannot be sent are rejects.

        Raises:
            BudgetError: more rows are refused than the batch may lose.
        """
        plan, base = self._prepared(), self._base(token.pipeline)
        upserts, reasons = opensearch_values.upserts(plan, batch.upserts, token, base)
        deletes = None
        if batch.deletes is not None and batch.deletes.num_rows:
            deletes = opensearch_values.deletes(plan, batch.deletes, token.seq, base)
        limit = budget_left(reasons, batch.reject_limit, self._place)
        return Staged(
            token=token,
            committable={"incarnation": plan.index.uuid},
            rejected=rejects_of(reasons),
            counts=Counts(refused=len(reasons)),
            payload=Work(deletes, upserts, limit, batch.rewrites, is_append=not plan.key),
        )

    def commit(self, staged: Staged) -> Receipt:
        """Write the documents, then the token; the receipt of an earlier attempt when that one landed after all.

        Raises:
            FencedError: the batch is not the next one, or the pipeline has a later owner.
            TargetReplacedError: the index was dropped or made anew.
            BudgetError: more rows are refused than the batch may lose.
            RowsRefusedError: rows are refused that may hide earlier changes; the others are written.
            TransientError: it may or may not have been applied, in part or as a whole.
        """
        token, tokens = staged.token, self._tokens(staged.token.pipeline)
        work = payload_of(staged, Work, self._place)
        tokens.check_same(self._current(), self._incarnation)
        state = tokens.state(token.seq)
        if state.batch is not None:
            return tokens.receipt_of(state.batch, token)
        tokens.check(state, token, self._incarnation)
        guard = self._guard(tokens, token)
        plan = self._prepared()
        work, there = place(self._client(), plan, work, lambda: tokens.begin(token), self._make)
        landing = Landing(
            self._client(), self.options, guard, work, written=there, has_pipeline=plan.has_pipeline,
            is_direct=plan.is_direct,
        )  # fmt: skip
        landing.send()
        if landing.refused and staged.hides:
            raise RowsRefusedError(rejects_of(landing.refused))
        if self.options.refresh == "true" and (landing.written or landing.deleted):
            self._client().ask("POST", f"/{self.options.address}/_refresh")
        # what was written after the index had gone made a new one
        tokens.check_same(self._current(), self._incarnation)
        counts = Counts(
            written=landing.written, deleted=landing.deleted, superseded=landing.superseded,
            refused=len(landing.refused),
        )  # fmt: skip
        return tokens.settle(state, token, self._incarnation, counts, landing.refused)

    def _guard(self, tokens: Tokens, token: BatchToken) -> Any:
        """Raises when the batch is not the next one any more; asks the target only now and then."""
        asked = time.monotonic()

        def guard() -> None:
            nonlocal asked
            if time.monotonic() - asked > _CHECK_AFTER_S:
                tokens.check(tokens.state(), token, self._incarnation)
                asked = time.monotonic()

        return guard

    def _current(self) -> str | None:
        """What tells the index that has the name now; None when there is none."""
        if self._plan is not None and self._plan.index.pattern is not None:
            return self._plan.index.uuid
        index = describe(self._client(), self.options.index)
        return self._incarnation_of(index, notes=True) if index else None

    def _incarnation_of(self, index: Index, *, notes: bool) -> str:
        """What tells the target from another one of its name; with `notes`, what several indices are is kept."""
        if not index.uuids:
            return index.uuid
        incarnation, noted = family(index.uuids, opensearch_tokens.family_of(self._client(), self.options.index))
        if noted is not None and notes:
            if self.merge is Merge.LAST:
                # a roll-over's new index
                self._remember_deletes(index)
            opensearch_tokens.note_family(self._client(), self.options.index, noted)
        return incarnation

    def _make(self, names: set[str]) -> None:
        """Make indices of a pattern that are not there; one of the cluster's templates says what is in them."""
        for name in sorted(names - self._known):
            try:
                self._client().ask("PUT", f"/{name}", {"settings": {"index": self._gc_deletes}})
            except RefusedError as error:
                if error.kind != "resource_already_exists_exception":
                    raise
            self._known.add(name)

    def find(self, token: BatchToken, committable: Json) -> Found:
        """Whether the target holds the batch.

        Raises:
            TargetReplacedError: the batch was applied to an index that is gone.
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
        self._bases.clear()
        self._tokens(pipeline).forget()

    def recall(self, pipeline: str) -> Recalled:
        """Everything the target's tokens say; empty when it never saw the pipeline."""
        if opensearch_tokens.is_missing(self._client()):
            return Recalled({}, ())
        return self._tokens(pipeline).recall()

    def newest_seq(self, pipeline: str) -> int:
        """Highest sequence number of the pipeline's batches in this target, 0 for none."""
        return self._tokens(pipeline).newest_seq()

    def prune(self, pipeline: str, up_to: int) -> int:
        """Delete the documents of the pipeline's batches up to this number, but the newest."""
        return self._tokens(pipeline).prune(up_to)

    def search(self, query: SearchQuery, *, explain: bool = False) -> SearchResult:
        """The nearest documents by vector or by text.

        Raises:
            ConfigError: no such vector field, a vector of another dimension, or a filter the server refuses.
            PlanError: the index has no vector field.
        """
        from vector_assets.sinks.opensearch_search import search

        return search(self._client(), self.options, query)

    def diagnose(self) -> Iterator[Finding]:
        """The cluster, the index and its pipeline."""
        from vector_assets.sinks.opensearch_search import findings

        yield from findings(self._client(), self.options)

    def as_stored(self, rows: pa.Table) -> pa.Table:
        """Rows of the sink's schema (hidden columns kept) as they are read back."""
        from vector_assets.sinks.opensearch_audit import as_stored

        return as_stored(self._prepared(), rows)

    def as_stored_keys(self, keys: pa.Table) -> pa.Table:
        """The key's columns as they are read back."""
        return keys

    def rows_of(self, keys: pa.Table) -> pa.Table:
        """The documents that have one of these keys now."""
        from vector_assets.sinks.opensearch_audit import rows_of

        return rows_of(self._client(), self._prepared(), keys)

    def scan(self) -> Iterator[pa.RecordBatch]:
        """Every document of the index, all of one moment, in bounded memory."""
        from vector_assets.sinks.opensearch_audit import scan

        return scan(self._client(), self._prepared())

    def count(self) -> int:
        """Documents of the index."""
        from vector_assets.sinks.opensearch_vectors import count

        return count(self._client(), self.options)

    def audit_vectors(self, sample: int) -> Iterator[Tally]:
        """Whether the index's ingest pipeline made every vector, and whether `sample` of them are right.

        Nothing where the documents bring their vectors along.

        Raises:
            TransientError: the model does not answer.
        """
        from vector_assets.sinks.opensearch_vectors import audit

        if self._plan is None or not self._plan.is_direct:
            yield from audit(self._client(), self.options, sample)

    def create_target(self, schema: pa.Schema, declared_key: tuple[str, ...]) -> tuple[str, ...]:
        """Make the index where it is missing.

        Raises:
            PlanError: the schema and the options do not say enough, or what is there does not fit.
        """
        from vector_assets.sinks.opensearch_create import create

        made = create(self._client(), self.options, schema, declared_key)
        self._inspected(schema, declared_key)
        return made

    def alter(self, changes: Sequence[ColumnChange]) -> tuple[str, ...]:
        """Add fields to the mapping; nothing else of one can change.

        Raises:
            PlanError: any other change; those before it are made.
        """
        from vector_assets.sinks.opensearch_create import alter

        return alter(self._client(), self.options, changes)

    def close(self) -> None:
        """Give back the connections."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    @property
    def _place(self) -> str:
        return f"opensearch: {self.options.index}"

    @property
    def _incarnation(self) -> str:
        return self._prepared().index.uuid

    def _client(self) -> Client:
        if self._connection is None:
            self._connection = connect(self.options.login, self._place)
        return self._connection

    def _prepared(self) -> Plan:
        return prepared(self._plan, self._place)

    def _base(self, pipeline: str) -> int:
        """What is added to the numbers of the pipeline's batches; asked for once."""
        if pipeline not in self._bases:
            self._bases[pipeline] = self._tokens(pipeline).state().base
        return self._bases[pipeline]

    def _tokens(self, pipeline: str) -> Tokens:
        return Tokens(self._client(), self.options.index, pipeline)
