"""Iceberg: data files written ahead, one commit for rows and position, so exactly once."""

import logging
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.clients.iceberg import open_catalog, told
from vector_assets.engine.abilities import Maintained, MaintenanceTask, Recalled, Upkeep
from vector_assets.engine.core import (
    HIDDEN,
    POSITION,
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
    PlanError,
    TargetReplacedError,
    VectorAssetsError,
)
from vector_assets.engine.schema import ColumnChange, Table
from vector_assets.sinks import iceberg_read
from vector_assets.sinks.iceberg_create import add_batch_column, check_existing, create_table, find_table, partition_of
from vector_assets.sinks.iceberg_options import IcebergOptions
from vector_assets.sinks.iceberg_plan import Plan, convert, make_plan, table_rows
from vector_assets.sinks.iceberg_tokens import Tokens
from vector_assets.sinks.iceberg_types import arrow_schema
from vector_assets.sinks.iceberg_write import Change, commit, forget_manifests, write_files
from vector_assets.sinks.staging import budget_left, has_changes, payload_of, prepared, rejects_of

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table as IcebergTable

log = logging.getLogger(__name__)
_UNMADE = "not made yet"


class IcebergSink:
    """Writes a table of an Iceberg catalog."""

    Options = IcebergOptions
    PARTITIONED = True

    def __init__(self, options: IcebergOptions, table: Table | None = None, pipeline: str = "") -> None:
        self.options = options
        self.table = table
        self.pipeline = pipeline
        self.merge: Merge = options.merge
        self.wire = options.wire
        self.retry = options.retry
        self._partition = partition_of(options, table.partitioned_by if table is not None else ())
        self._catalog: Catalog | None = None
        self._loaded: IcebergTable | None = None
        self._plan: Plan | None = None
        self._declared: tuple[pa.Schema, tuple[str, ...]] = (pa.schema([]), ())

    def prepare(self, schema: pa.Schema, declared_key: tuple[str, ...]) -> Target:
        """Check the table against `schema`; database and table are made where they are missing.

        Raises:
            PlanError: a column, the key or the partitions do not fit, or the table may not be adopted.
            ConfigError: the catalog refuses the credentials.
            UnavailableError: it cannot be reached.
        """
        with told(self._place):
            table = find_table(self._connected(), self.options)
            if table is None:
                table = self._create(schema, declared_key)
                log.info("%s: made", self._place)
            if self.batch_column is not None:
                add_batch_column(table, self.batch_column, self._place)
        return self._target(table, schema, declared_key)

    def inspect(self, schema: pa.Schema, declared_key: tuple[str, ...]) -> Target:
        """The same checks, but nothing is made: what would be is in the target's notes."""
        with told(self._place):
            table = find_table(self._connected(), self.options)
        if table is not None:
            return self._target(table, schema, declared_key)
        columns = {field.name: str(field.type) for field in table_rows(schema, self.options)}
        notes = (f"table {self.options.full_name}: will be made",)
        key = declared_key if self.options.upserts else ()
        return Target(self.options.target(), key, columns, _UNMADE, self.options.guarantee, notes)

    def create_target(self, schema: pa.Schema, declared_key: tuple[str, ...]) -> tuple[str, ...]:
        """Make database and table where they are missing; what was made or was there.

        Raises:
            PlanError: a column or partition is not possible in Iceberg, or what is there does not fit.
        """
        with told(self._place):
            found = find_table(self._connected(), self.options)
        target = self.prepare(schema, declared_key)
        how = "was there and fits" if found is not None else f"made at {self._table().location()}"
        return (f"table {self.options.full_name}: {how} (uuid {target.incarnation})",)

    def _create(self, schema: pa.Schema, key: tuple[str, ...]) -> "IcebergTable":
        rows = table_rows(schema, self.options)
        return create_table(self._connected(), self.options, rows, key, self._partition, self.pipeline)

    def _target(self, table: "IcebergTable", schema: pa.Schema, key: tuple[str, ...]) -> Target:
        table_rows(schema, self.options)
        check_existing(table, self.options, self._partition, self.pipeline)
        plan = self._adopt(table, schema, key)
        return Target(
            name=self.options.target(),
            key=plan.key,
            columns={field.name: str(field.field_type) for field in table.schema().fields},
            incarnation=plan.incarnation,
            guarantee=self.options.guarantee,
            notes=plan.notes,
        )

    def _adopt(self, table: "IcebergTable", schema: pa.Schema, key: tuple[str, ...]) -> Plan:
        try:
            plan = make_plan(table, schema, key, self.options)
        except PlanError as error:
            raise PlanError(f"{self._place}: {error}") from error
        self._loaded, self._plan, self._declared = table, plan, (schema, key)
        return plan

    def evolve(self, schema: pa.Schema) -> tuple[str, ...]:
        """Add the columns that the table lacks and widen those that got wider; what was changed.

        Raises:
            PlanError: a type got narrower or another; nothing was changed.
            TransientError: another writer was first; ask again.
        """
        from vector_assets.sinks.iceberg_evolve import evolve

        with told(self._place):
            table = self._fresh()
            changes = evolve(table, table_rows(schema, self.options), self._place)
        self._adopt(table, schema, self._declared[1])
        return changes

    def alter(self, changes: Sequence[ColumnChange]) -> tuple[str, ...]:
        """Add, drop, rename and widen columns; see `iceberg_evolve`."""
        from vector_assets.sinks.iceberg_evolve import alter

        with told(self._place):
            return alter(self._fresh(), changes, self._place)

    def would_evolve(self, schema: pa.Schema) -> tuple[str, ...]:
        """What `evolve` would change, and its errors; nothing is changed."""
        from vector_assets.sinks.iceberg_evolve import would_evolve

        with told(self._place):
            table = find_table(self._connected(), self.options)
            wanted = pa.schema([field for field in schema if field.name not in HIDDEN])
            return () if table is None else would_evolve(table, wanted, self._place)

    def stage(self, batch: Batch, token: BatchToken) -> Staged:
        """Check and cast the rows and write them to data files, which nobody sees yet.

        Raises:
            BudgetError: more rows are refused than the batch may lose.
            PlanError: updates or deletes came for a table that rows are appended to.
            FatalError: the store is full.
        """
        plan = self._prepared()
        self._check_kinds(batch)
        rows, _, reasons = convert(plan.columns, batch.upserts)
        deletes = None
        if batch.deletes is not None and batch.deletes.num_rows:
            deletes, _, more = convert(plan.keys, batch.deletes)
            reasons |= more
        budget_left(reasons, batch.reject_limit, self._place)
        name, root = uuid.uuid4(), token.seq if batch.root is None else batch.root
        if self.batch_column is not None:
            rows = rows.append_column(self.batch_column, pa.repeat(pa.scalar(root, pa.int64()), rows.num_rows))
        with told(self._place):
            files = write_files(plan.metadata, plan.io, rows, name)
        counts = Counts(written=rows.num_rows, deleted=0 if deletes is None else deletes.num_rows)
        keys = None
        if plan.key:
            parts = [rows.select(list(plan.key)), *([] if deletes is None else [deletes.select(list(plan.key))])]
            keys = pa.concat_tables(parts)
        elif batch.rewrites and self.batch_column is not None:
            keys = pa.table({self.batch_column: pa.array([root], pa.int64())})
        return Staged(
            token=token,
            # what the files are called, should nobody commit them
            committable={"incarnation": plan.incarnation, "files": str(name) if files else None},
            rejected=rejects_of(reasons),
            counts=Counts(refused=len(reasons)),
            payload=Change(files, counts, keys),
        )

    def _check_kinds(self, batch: Batch) -> None:
        if self.merge is Merge.LAST:
            return
        if has_changes(batch):
            raise PlanError(
                f"{self._place}: the rows hold updates or deletes and the table is appended to: set"
                " 'write.upsert.enabled' = 'true' and a PRIMARY KEY"
            )

    def commit(self, staged: Staged) -> Receipt:
        """Make the rows visible and move the position in one commit, tried once; the receipt of an earlier attempt when
        that one landed after all.

        Raises:
            FencedError: the batch is not the next one, or the pipeline has a later owner.
            TargetReplacedError: the table was dropped or made anew.
            TransientError: another writer was first, or it is not known whether it was applied.
        """
        token, change = staged.token, payload_of(staged, Change, self._place)
        with told(self._place):
            table = self._next(token)
            tokens = self._tokens(table, token.pipeline)
            if tokens.find(token) == "APPLIED":
                return tokens.receipt(token)
            tokens.check(token)
            # what is in memory is of no use when the commit fails
            self._loaded = None
            batch, expired = commit(table, tokens, token, change, self.options.snapshots_kept)
        self._loaded = table
        try:
            with told(self._place):
                forget_manifests(table, expired)
        except VectorAssetsError as error:
            log.warning("%s: metadata of expired snapshots stays until orphans are removed: %s", self._place, error)
        return Receipt(token.id, str(batch.snapshot), batch.counts)

    def _next(self, token: BatchToken) -> "IcebergTable":
        """The table as the last commit left it if the batch comes next there, else as it is now.

        Somebody else's commit since then is noticed by ours, which asserts the snapshot it follows.
        """
        table = self._loaded
        if table is None or self._tokens(table, token.pipeline).find(token) != "ABSENT":
            table = self._fresh()
        self._check_same(table, token)
        return table

    def _check_same(self, table: "IcebergTable", token: BatchToken) -> None:
        found, wanted = str(table.metadata.table_uuid), self._prepared().incarnation
        if found != wanted:
            raise TargetReplacedError(
                f"{self._place} is a new table ({found}); pipeline {token.pipeline} was prepared for {wanted}"
            )

    def find(self, token: BatchToken, committable: Json) -> Found:
        """Whether the table holds the batch, as the catalog says now.

        Raises:
            TargetReplacedError: the table was dropped, or made anew since this sink was prepared.
        """
        with told(self._place):
            table = self._fresh()
            if self._plan is not None:
                self._check_same(table, token)
            return self._tokens(table, token.pipeline).find(token)

    def receipt(self, token: BatchToken) -> Receipt:
        """What was noted when the batch was committed.

        Raises:
            FencedError: the table does not hold this batch, or a later owner applied it.
            ExpiredError: it is applied, but its snapshot is expired and its counts with it.
        """
        with told(self._place):
            return self._tokens(self._fresh(), token.pipeline).receipt(token)

    def forget(self, pipeline: str) -> None:
        """Drop the pipeline's position in this table; its snapshots' summaries stay and count no longer."""
        with told(self._place):
            table = find_table(self._connected(), self.options)
            tokens = self._tokens(table, pipeline) if table is not None else None
            if table is not None and tokens is not None and tokens.name in table.properties:
                with table.transaction() as transaction:
                    transaction.remove_properties(tokens.name)
            self._loaded = None

    def recall(self, pipeline: str) -> Recalled:
        """Everything the table's property and snapshots say; empty when it never saw the pipeline."""
        with told(self._place):
            table = find_table(self._connected(), self.options)
            return Recalled({}, ()) if table is None else self._tokens(table, pipeline).recall()

    def newest_seq(self, pipeline: str) -> int:
        """Highest sequence number of the pipeline's batches in this table, 0 for none."""
        with told(self._place):
            table = find_table(self._connected(), self.options)
            head = self._tokens(table, pipeline).head() if table is not None else None
        return 0 if head is None else head.newest.seq

    def vet(self, batch: Batch) -> pa.Table:
        """The rows that `stage` would refuse, with the reasons; nothing is kept."""
        plan = self._prepared()
        self._check_kinds(batch)
        _, _, reasons = convert(plan.columns, batch.upserts)
        if batch.deletes is not None and batch.deletes.num_rows:
            reasons |= convert(plan.keys, batch.deletes)[2]
        return rejects_of(reasons)

    def as_stored(self, rows: pa.Table) -> pa.Table:
        """Rows of the sink's schema (hidden columns kept) as the table would hold them, without those it refuses."""
        stored, positions, reasons = convert(self._prepared().columns, rows)
        for name in rows.column_names:
            if name in HIDDEN:
                kept = rows if not reasons else rows.filter(pc.is_in(rows.column(POSITION), value_set=positions))
                stored = stored.append_column(name, kept.column(name))
        return stored

    def as_stored_keys(self, keys: pa.Table) -> pa.Table:
        """Key columns of the sink's schema as the table would hold them, with `_position`."""
        stored, positions, _ = convert(self._prepared().keys, keys)
        return stored.append_column(POSITION, positions)

    def scan(self) -> Iterator[pa.RecordBatch]:
        """Every row of the table as it was when the first batch was asked for, one data file in memory."""
        with told(self._place):
            table = self._fresh()
        yield from iceberg_read.scan(table, tuple(self._prepared().names()), self._place)

    def rows_of(self, keys: pa.Table) -> pa.Table:
        """The rows that have one of these keys now."""
        plan = self._prepared()
        columns = pa.schema([(column.name, column.target) for column in plan.columns])
        with told(self._place):
            return iceberg_read.rows_of(self._fresh(), columns, self.as_stored_keys(keys).select(list(plan.key)))

    @property
    def batch_column(self) -> str | None:
        """The column that holds the number of the batch whose records a row was made of."""
        return self.options.batch_column

    def rows_of_batch(self, root: int) -> int:
        """How many rows the table has now that were made of this batch's records."""
        if self.batch_column is None:
            return 0
        with told(self._place):
            return iceberg_read.count_of(self._fresh(), self.batch_column, root)

    def relation(
        self, columns: Sequence[str] | None = None, where: pc.Expression | None = None
    ) -> pa.RecordBatchReader:  # fmt: skip
        """The table as it is now, one data file in memory; files whose bounds speak against `where` are not read."""
        with told(self._place):
            table = self._fresh()
        schema = arrow_schema(table.schema())
        names = tuple(name for name in schema.names if columns is None or name in columns)
        schema = pa.schema([(name, schema.field(name).type) for name in names])
        rows = iceberg_read.scan(table, names, self._place, where)
        return pa.RecordBatchReader.from_batches(schema, rows)

    def maintain(self, task: MaintenanceTask, upkeep: Upkeep) -> Maintained:
        """Compact small files, expire old snapshots with their files, or remove files that no snapshot knows.

        Raises:
            TransientError: another writer won; nothing was lost, ask again.
        """
        from vector_assets.sinks.iceberg_upkeep import maintain

        with told(self._place):
            done = maintain(self._fresh(), task, upkeep)
        self._loaded = None
        return done

    def close(self) -> None:
        """Give back the connection."""
        catalog, self._catalog, self._loaded = self._catalog, None, None
        if catalog is not None:
            engine = getattr(catalog, "engine", None)
            if engine is not None:
                engine.dispose()
            catalog.close()

    @property
    def _place(self) -> str:
        return f"iceberg: {self.options.full_name}"

    def _connected(self) -> "Catalog":
        if self._catalog is None:
            self._catalog = open_catalog(replace(self.options.login, place=self._place))
        return self._catalog

    def _fresh(self) -> "IcebergTable":
        table = find_table(self._connected(), self.options)
        if table is None:
            raise TargetReplacedError(f"{self._place} was dropped")
        self._loaded = table
        return table

    def _table(self) -> "IcebergTable":
        return self._loaded or self._fresh()

    def _prepared(self) -> Plan:
        return prepared(self._plan, self._place)

    def _tokens(self, table: "IcebergTable", pipeline: str) -> Tokens:
        return Tokens(table, pipeline, self._place)
