"""AnalyticDB for PostgreSQL, and PostgreSQL: rows, rejects and positions in one transaction, so exactly once."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa
from psycopg import Rollback
from psycopg import errors as pg

from vector_assets.clients.postgres import Connection, Database, said
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
from vector_assets.engine.errors import (
    FatalError,
    PlanError,
    RowsRefusedError,
    TargetReplacedError,
    UnavailableError,
)
from vector_assets.engine.schema import ColumnChange, Table
from vector_assets.sinks import adbpg_scan
from vector_assets.sinks.adbpg_alter import alter
from vector_assets.sinks.adbpg_catalog import Relation, find_relation, full_name
from vector_assets.sinks.adbpg_convert import is_vector
from vector_assets.sinks.adbpg_diagnose import findings
from vector_assets.sinks.adbpg_options import AdbPgOptions, WriteMode
from vector_assets.sinks.adbpg_plan import Plan, make_plan
from vector_assets.sinks.adbpg_rows import Rows, convert
from vector_assets.sinks.adbpg_search import Searcher
from vector_assets.sinks.adbpg_tokens import Tokens, create_tables, missing_columns, missing_tables
from vector_assets.sinks.adbpg_write import KeyConflicts, Landing, Path, Rules
from vector_assets.sinks.staging import budget_left, has_changes, payload_of, prepared, rejects_of

_BATCHES_AFTER_CONFLICT = 32
"""Batches that expect conflicts after one met a conflict."""
_ATTEMPTS_AFTER_LOCK = 3


class _Payload:
    """A staged batch: its rows, the keys to delete, and how many rows may still be refused."""

    def __init__(self, rows: Rows, deletes: Rows | None, limit: int | None, *, rewrites: bool) -> None:
        self.rewrites = rewrites
        self.rows = rows
        self.deletes = deletes
        self.limit = limit


class AdbPgSink:
    """Writes a table of AnalyticDB for PostgreSQL or PostgreSQL."""

    Options = AdbPgOptions
    overwrites = True

    def __init__(self, options: AdbPgOptions, table: Table | None = None, pipeline: str = "") -> None:
        self.options = options
        self.table = table
        self.pipeline = pipeline
        self.merge: Merge = options.merge
        self.wire = options.wire
        self.retry = options.retry
        self._database = Database(
            options.login,
            place=f"adbpg: {full_name(options.schema_name, options.table)}",
            name=f"vector_assets {pipeline}".strip()[:63],
            max_connections=options.max_connections,
        )
        self._plan: Plan | None = None
        self._conflicts: KeyConflicts | None = None
        self._expecting_conflicts = 0

    def prepare(self, schema: pa.Schema, declared_key: tuple[str, ...]) -> Target:
        """Check the target against `schema`, and create the token tables where they are missing.

        Raises:
            PlanError: the table, a column, the key, a dimension or a grant does not fit.
            ConfigError: the server refuses the credentials.
            UnavailableError: the server cannot be reached.
        """
        with self._database.connection() as connection:
            target = self._inspect(connection, schema, declared_key)
            create_tables(connection, self.options.username)
        return target

    def inspect(self, schema: pa.Schema, declared_key: tuple[str, ...]) -> Target:
        """The same checks, but nothing is created: what would be is in the target's notes."""
        with self._database.connection() as connection:
            target = self._inspect(connection, schema, declared_key)
            missing = missing_tables(connection)
            added = [f"{table}.{column}" for table, column in missing_columns(connection)]
        notes = (
            *target.notes,
            *(f"{name}: will be created" for name in missing),
            *(f"vector_assets.{name}: will be added" for name in added),
        )
        return Target(target.name, target.key, target.columns, target.incarnation, target.guarantee, notes)

    def _inspect(self, connection: Connection, schema: pa.Schema, declared_key: tuple[str, ...]) -> Target:
        relation = self._relation(connection)
        try:
            plan = make_plan(relation, schema, declared_key, self.options)
        except PlanError as error:
            raise PlanError(f"adbpg: {error}") from error
        self._plan = plan
        self._conflicts = KeyConflicts(plan)
        self.merge = plan.merge
        notes = list(plan.notes)
        if relation.vector_extension is None and any(is_vector(column.wire) for column in plan.columns):
            notes.append("neither fastann nor pgvector is installed in the database: no vector index is possible")
        return Target(
            name=self.options.target(),
            key=tuple(column.source for column in plan.key),
            columns={column.source: column.target.spelled for column in plan.columns},
            incarnation=str(relation.oid),
            guarantee="exactly-once",
            notes=tuple(notes),
        )

    def _relation(self, connection: Connection) -> Relation:
        try:
            return find_relation(
                connection,
                self.options.schema_name,
                self.options.table,
                is_case_sensitive=self.options.is_case_sensitive,
            )
        except PlanError as error:
            raise PlanError(f"adbpg: {error}") from error

    def stage(self, batch: Batch, token: BatchToken) -> Staged:
        """Convert, check and encode the rows; those the target would refuse are rejects.

        Raises:
            FatalError: a row is refused under exceptionmode=strict.
            BudgetError: more rows are refused than the batch may lose.
            PlanError: updates or deletes came for a target that takes inserts only.
        """
        plan = self._prepared()
        self._check_kinds(batch)
        if batch.rewrites:
            # every row replaces the one that has its key, whatever the conflict mode says of new rows
            plan = replace(plan, merge=Merge.LAST)
        rows, reasons = convert(plan, plan.columns, batch.upserts)
        deletes = None
        if batch.deletes is not None and batch.deletes.num_rows:
            deletes, more = convert(plan, plan.key, batch.deletes)
            reasons |= more
        limit = self._limit_after(reasons, batch.reject_limit)
        if len(rows):
            # encoded here, in a worker thread, for the statement that comes first
            path = Path.INSERT if batch.rewrites else self._path(has_deletes=deletes is not None)
            _ = rows.copied if path is not Path.INSERT else rows.records
        return Staged(
            token=token,
            committable={"incarnation": str(plan.relation.oid)},
            rejected=rejects_of(reasons),
            counts=Counts(refused=len(reasons)),
            payload=_Payload(rows, deletes, limit, rewrites=batch.rewrites),
        )

    def _check_kinds(self, batch: Batch) -> None:
        """Only a merge of the last change per key can take anything but inserts."""
        if self.merge is Merge.LAST:
            return
        if has_changes(batch):
            raise PlanError(
                f"{self._place}: the rows hold updates or deletes, conflictmode={self.options.conflict_mode} takes"
                " inserts only: use 'conflictmode' = 'update' or 'upsert' and a target with a key"
            )

    def _limit_after(self, reasons: dict[int, str], limit: int | None) -> int | None:
        """How many rows the target itself may still refuse."""
        if reasons and self.options.exception_mode == "strict":
            position, reason = next(iter(reasons.items()))
            raise FatalError(
                f"{self._place}: exceptionmode=strict: the row at position {position} of the batch is refused: {reason}"
            )
        return budget_left(reasons, limit, self._place)

    def _path(self, *, has_deletes: bool) -> Path:
        """How the next batch is tried first."""
        is_expecting = self._expecting_conflicts > 0
        if self.options.write_mode is not WriteMode.COPY or self.options.conflict_mode == "upsert":
            return Path.INSERT
        if self.merge is Merge.LAST and (is_expecting or has_deletes):
            return Path.INSERT
        return Path.FILTER if self.merge is Merge.FIRST and is_expecting else Path.COPY

    def commit(self, staged: Staged) -> Receipt:
        """Apply the batch in one transaction; the receipt of an earlier attempt when that one landed after all.

        Raises:
            FencedError: the batch is not the next one, or the pipeline has a later owner.
            TargetReplacedError: the table was dropped or made anew.
            FatalError: a row is refused under a strict mode.
            BudgetError: more rows are refused than the batch may lose.
            RowsRefusedError: rows are refused that may hide earlier changes.
            TransientError: it may or may not have been applied.
        """
        tokens = self._tokens()
        for _ in range(_ATTEMPTS_AFTER_LOCK):
            with self._database.connection() as connection:
                try:
                    receipt = self._apply(connection, staged, tokens)
                    return receipt or tokens.receipt(connection, staged.token)
                except pg.LockNotAvailable as error:
                    if not tokens.displace(connection, staged.token):
                        raise UnavailableError(f"{self._place}: another session holds a lock: {said(error)}") from error
        raise UnavailableError(f"{self._place}: sessions of the pipeline's earlier owners do not end")

    def _apply(self, connection: Connection, staged: Staged, tokens: Tokens) -> Receipt | None:
        """One attempt; None when the target holds a batch of this number already."""
        token, incarnation = staged.token, str(self._prepared().relation.oid)
        payload = payload_of(staged, _Payload, self._place)
        receipt = None
        with connection.transaction() as transaction:
            if not tokens.guard(connection, token, incarnation):
                raise Rollback(transaction)
            landing = self._land(connection, payload)
            # the table may have been replaced between the guard and the first row
            tokens.check_incarnation(connection, token, incarnation)
            refused = dict(sorted(landing.refused.items()))
            rejected = rejects_of(refused)
            if refused and staged.hides:
                raise RowsRefusedError(rejected)
            counts = Counts(
                written=landing.written, conflicts=landing.dropped, refused=len(refused), deleted=landing.deleted
            )
            commit_id = tokens.finish(connection, token, counts, refused)
            receipt = Receipt(token.id, commit_id, counts, rejected)
            # learned from what was seen, whatever becomes of the transaction
            self._expecting_conflicts = (
                _BATCHES_AFTER_CONFLICT if landing.met_conflict else max(self._expecting_conflicts - 1, 0)
            )
        return receipt

    def _land(self, connection: Connection, payload: _Payload) -> Landing:
        rules = Rules(
            flush_rows=self.options.batch_size,
            copies=(
                self.options.write_mode is WriteMode.COPY
                and self.options.conflict_mode != "upsert"
                and not payload.rewrites
            ),
            is_strict=self.options.exception_mode == "strict",
            limit=payload.limit,
        )
        landing = Landing(connection, payload.rows, rules, self._conflicts or KeyConflicts(self._prepared()))
        # what is deferred to the commit would refuse the batch as a whole
        connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        try:
            if payload.deletes is not None:
                landing.delete(payload.deletes)
            landing.write(Path.INSERT if payload.rewrites else self._path(has_deletes=payload.deletes is not None))
        except (pg.UndefinedTable, pg.InvalidSchemaName) as error:
            raise TargetReplacedError(f"{self._prepared().relation} was dropped: {said(error)}") from error
        return landing

    def alter(self, changes: Sequence[ColumnChange]) -> tuple[str, ...]:
        """Add, drop, rename and widen columns; see `adbpg_alter`."""
        with self._database.connection() as connection:
            made = alter(connection, self._relation(connection), changes, self.options.is_case_sensitive)
        # a connection keeps statements that it has prepared for columns of other types
        self._database.close()
        return made

    def find(self, token: BatchToken, committable: Json) -> Found:
        """Whether the target holds the batch.

        Raises:
            TargetReplacedError: the batch was applied to a table that is gone.
        """
        with self._database.connection() as connection:
            return self._tokens(connection).find(connection, token)

    def receipt(self, token: BatchToken) -> Receipt:
        """What the target noted when the batch was committed.

        Raises:
            FencedError: it does not hold this batch, or a later owner applied it.
        """
        with self._database.connection() as connection:
            return self._tokens(connection).receipt(connection, token)

    def as_stored(self, rows: pa.Table) -> pa.Table:
        """Rows of the pipeline as the table would hold them, without those it would refuse."""
        return adbpg_scan.stored(self._prepared(), rows)

    def as_stored_keys(self, keys: pa.Table) -> pa.Table:
        """Key columns of the pipeline as the table would hold them."""
        return adbpg_scan.stored_keys(self._prepared(), keys)

    def scan(self) -> Iterator[pa.RecordBatch]:
        """Every row of the table as it was when the first batch was asked for."""
        plan = self._prepared()
        with self._database.connection() as connection:
            yield from adbpg_scan.scan(plan, connection)

    def rows_of(self, keys: pa.Table) -> pa.Table:
        """The rows that have one of these keys now."""
        plan = self._prepared()
        with self._database.connection() as connection:
            return adbpg_scan.rows_of(plan, connection, keys)

    def forget(self, pipeline: str) -> None:
        """Drop the pipeline's positions and batches in this target."""
        with self._database.connection() as connection:
            if not missing_tables(connection):
                self._tokens(connection).forget(connection, pipeline)

    def newest_seq(self, pipeline: str) -> int:
        """Highest sequence number of the pipeline's batches in this target, 0 for none."""
        with self._database.connection() as connection:
            return 0 if missing_tables(connection) else self._tokens(connection).newest_seq(connection, pipeline)

    def recall(self, pipeline: str) -> Recalled:
        """What positions and batches of this target say of the pipeline."""
        with self._database.connection() as connection:
            if missing_tables(connection):
                return Recalled({}, ())
            return self._tokens(connection).recall(connection, pipeline)

    def prune(self, pipeline: str, up_to: int) -> int:
        """Delete the rows of the pipeline's batches up to this number, but the newest."""
        with self._database.connection() as connection:
            return 0 if missing_tables(connection) else self._tokens(connection).prune(connection, pipeline, up_to)

    def search(self, query: SearchQuery, *, explain: bool = False) -> SearchResult:
        """The nearest rows, by the operator and the index of what is installed."""
        with self._database.connection() as connection:
            return self._searcher(connection).search(query, explain=explain)

    def sample(self, count: int, *, column: str | None = None) -> tuple[tuple[float, ...], ...]:
        """Vectors of some rows, to measure a search with."""
        with self._database.connection() as connection:
            return self._searcher(connection).sample(count, column)

    def _searcher(self, connection: Connection) -> Searcher:
        return Searcher(connection, self._relation(connection), self.options.declared_dimensions)

    def vet(self, batch: Batch) -> pa.Table:
        """The rows that `stage` would refuse, with the reasons; nothing is kept."""
        plan = self._prepared()
        self._check_kinds(batch)
        reasons = convert(plan, plan.columns, batch.upserts)[1]
        return rejects_of(reasons)

    def diagnose(self) -> Iterator[Finding]:
        """The server, its clock, its extensions, the table, its indexes and our rights."""
        with self._database.connection() as connection:
            yield from findings(connection, lambda: self._relation(connection), self.options)

    def close(self) -> None:
        """Give back connections."""
        self._database.close()

    @property
    def _place(self) -> str:
        return self._database.place

    def _prepared(self) -> Plan:
        return prepared(self._plan, self._place)

    def _tokens(self, connection: Connection | None = None) -> Tokens:
        """The token rows of the target, also for an operator's command that prepared nothing."""
        if self._plan is None and connection is not None:
            try:
                relation = self._relation(connection)
            except PlanError:
                names = (self.options.schema_name, self.options.table)
                schema, table = names if self.options.is_case_sensitive else (name.lower() for name in names)
                return Tokens(full_name(schema, table), schema, table)
        else:
            relation = self._prepared().relation
        return Tokens(str(relation), relation.schema, relation.name)
