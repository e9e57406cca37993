"""Paimon: rows and position become visible by one snapshot file, so exactly once where a store makes files exclusively.

An append table's data files are written by `stage`, ahead in worker threads; those of a table with a primary key by
`commit`, because a row's sequence number must follow those of every earlier batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.clients.paimon import LostRaceError, translated
from vector_assets.engine.abilities import Maintained, MaintenanceTask, Recalled, Upkeep
from vector_assets.engine.core import (
    POSITION,
    Batch,
    BatchToken,
    Counts,
    Found,
    Guarantee,
    Json,
    Merge,
    Receipt,
    Staged,
    Target,
)
from vector_assets.engine.errors import (
    FatalError,
    PlanError,
    TargetReplacedError,
    TransientError,
    UnavailableError,
)
from vector_assets.engine.schema import ColumnChange, Table
from vector_assets.sinks.paimon_create import check_database, check_existing
from vector_assets.sinks.paimon_evolve import alter, evolve, wanted
from vector_assets.sinks.paimon_options import PaimonOptions
from vector_assets.sinks.paimon_plan import Plan, make_plan, table_for, table_rows
from vector_assets.sinks.paimon_read import batches_of, keys_filter
from vector_assets.sinks.paimon_sequences import Sequences
from vector_assets.sinks.paimon_tokens import Marks, Tokens
from vector_assets.sinks.staging import budget_left, has_changes, payload_of, prepared, rejects_of

if TYPE_CHECKING:
    from pypaimon.table.file_store_table import FileStoreTable
    from pypaimon.write.commit_message import CommitMessage

_ATTEMPTS = 20
"""Snapshots of others that a commit gives way to before it leaves the batch to the engine's retry."""


@dataclass(slots=True)
class _Payload:
    """A staged batch: rows and deletes in the table's types, or the data files they were written to.

    `replaces` is the number of the batch whose rows have to go first."""

    rows: pa.Table
    deletes: pa.Table | None
    files: "list[CommitMessage] | None"
    replaces: int | None = None


@dataclass(frozen=True, slots=True)
class _Opened:
    table: "FileStoreTable"
    plan: Plan
    incarnation: str


class PaimonSink:
    """Writes an append table or a table with a primary key."""

    Options = PaimonOptions
    PARTITIONED = True
    overwrites = True

    def __init__(self, options: PaimonOptions, table: Table | None = None, pipeline: str = "") -> None:
        self.options = options
        self.table = table
        self.pipeline = pipeline
        has_key = table is not None and bool(table.primary_key)
        self.merge: Merge = Merge.LAST if has_key else Merge.APPEND
        self.wire = options.wire
        self.retry = options.retry
        self.storage = options.storage
        self._tokens = Tokens(self.storage)
        self._opened: _Opened | None = None
        self._sequences = Sequences()

    def prepare(self, schema: pa.Schema, declared_key: tuple[str, ...]) -> Target:
        """Check the table against `schema`; make it when it is missing and `auto-create` allows.

        Raises:
            PlanError: a column, a type, the key or a setting does not fit, or the database's folder does not exist.
            ConfigError: the store refuses the credentials.
            UnavailableError: the store does not answer.
        """
        if self.storage.load() is None:
            if not self.options.auto_create:
                raise PlanError(f"{self.options.target()} does not exist, and 'auto-create' is false")
            self.create_target(schema, declared_key)
        elif self.batch_column is not None:
            evolve(self.storage, pa.schema([pa.field(self.batch_column, pa.int64())]), (), ())
        opened = self._open(schema, declared_key)
        self._begin(opened)
        guarantee: Guarantee = "exactly-once" if self.storage.creates_exclusively() else "at-least-once"
        return self._target(opened, guarantee)

    def inspect(self, schema: pa.Schema, declared_key: tuple[str, ...]) -> Target:
        """The checks of `prepare` without changing anything; what `prepare` would create is in the notes."""
        guarantee: Guarantee = "exactly-once" if self.storage.is_local else "at-least-once"
        if self.storage.load() is not None:
            return self._target(self._open(schema, declared_key), guarantee)
        if not self.options.auto_create:
            raise PlanError(f"{self.options.target()} does not exist, and 'auto-create' is false")
        check_database(self.storage)
        key = self._declared(declared_key)
        rows = table_rows(schema, self.options, key)
        wanted = table_for(rows, self.table, key, self.options, self.pipeline)
        columns = {field.name: str(field.type) for field in wanted.fields}
        return Target(self.options.target(), key, columns, "none", guarantee, ("the table will be created",))

    def _target(self, opened: _Opened, guarantee: Guarantee) -> Target:
        plan = opened.plan
        notes = plan.notes
        if guarantee == "at-least-once":
            notes = (
                *notes,
                "the store was not seen to refuse a file that exists: exactly once with one writer, at least once with"
                " several",
            )
        return Target(self.options.target(), plan.key, plan.columns, opened.incarnation, guarantee, notes)

    def _declared(self, declared_key: tuple[str, ...]) -> tuple[str, ...]:
        return declared_key or (self.table.primary_key if self.table is not None else ())

    def create_target(self, schema: pa.Schema, declared_key: tuple[str, ...]) -> tuple[str, ...]:
        """Make the table; a second call makes nothing.

        Raises:
            PlanError: the options do not fit the columns, what is there does not fit, or there is no database folder.
        """
        from pypaimon.schema.schema_manager import SchemaManager

        if self.storage.load() is not None:
            self._open(schema, declared_key)
            return (f"{self.options.target()} is there already",)
        check_database(self.storage)
        key = self._declared(declared_key)
        rows = table_rows(schema, self.options, key)
        wanted = table_for(rows, self.table, key, self.options, self.pipeline)
        with translated(self.storage.place):
            SchemaManager(self.storage.file_io, self.storage.path).create_table(wanted)
        kind = f"PRIMARY KEY ({', '.join(wanted.primary_keys)})" if wanted.primary_keys else "append table"
        return (f"{self.options.target()} was made: {len(wanted.fields)} columns, {kind}",)

    def _open(self, schema: pa.Schema, declared_key: tuple[str, ...]) -> _Opened:
        table, incarnation = self.storage.load(), self.storage.incarnation()
        if table is None or incarnation is None:
            raise PlanError(f"{self.options.target()} does not exist")
        has_batches = self._tokens.marks(table).head(self.pipeline) is not None
        check_existing(table, self.options, self.table, self.pipeline, has_batches=has_batches)
        plan = make_plan(table, schema, declared_key, self.options)
        self._opened = _Opened(table, plan, incarnation)
        self.merge = Merge.LAST if plan.key else Merge.APPEND
        return self._opened

    def _begin(self, opened: _Opened) -> None:
        """Leave a mark before the first batch, from which on it can be told whether snapshots were lost."""
        from vector_assets.sinks.paimon_write import commit_files

        for _ in range(_ATTEMPTS):
            marks = self._tokens.marks(opened.table)
            if marks.properties:
                return
            with translated(self._place):
                try:
                    number = commit_files(
                        self.storage, opened.table, marks.latest, "vector_assets", 0, [], marks.kept()
                    )
                except LostRaceError:
                    continue
            self._tokens.remember(opened.table, number)
            return

    def stage(self, batch: Batch, token: BatchToken) -> Staged:
        """Convert and check the rows; write the data files of an append table.

        Raises:
            PlanError: updates or deletes came for an append table.
            BudgetError: more rows are refused than the batch may lose.
            TransientError: the store failed.
        """
        from vector_assets.sinks.paimon_write import delete_rows, sync_files, write_files

        opened = self._prepared()
        self._check_kinds(batch)
        rows, reasons = opened.plan.rows(batch.upserts)
        deletes = None
        if batch.deletes is not None and batch.deletes.num_rows:
            keys, more = opened.plan.keys(batch.deletes)
            reasons |= more
            deletes = delete_rows(keys, opened.plan.schema)
        budget_left(reasons, batch.reject_limit, self._place)
        files, root = None, token.seq if batch.root is None else batch.root
        rows = opened.plan.of_batch(rows, root)
        if not opened.plan.key:
            with translated(self._place):
                files = write_files(opened.table, self._user(token), token.seq, rows) if rows.num_rows else []
                if self.storage.is_local:
                    # the commit does it too, one batch after the other: here it is done beside others
                    sync_files(files)
        return Staged(
            token=token,
            committable={"incarnation": opened.incarnation},
            rejected=rejects_of(reasons),
            counts=Counts(refused=len(reasons)),
            payload=_Payload(rows, deletes, files, root if batch.rewrites and self.batch_column else None),
        )

    def _check_kinds(self, batch: Batch) -> None:
        if self.merge is Merge.LAST:
            return
        if has_changes(batch):
            raise PlanError(
                f"{self._place}: the rows hold updates or deletes; the table has no primary key and takes inserts only"
            )

    def commit(self, staged: Staged) -> Receipt:
        """Make the snapshot of the batch; the receipt of an earlier attempt when that one landed after all.

        Raises:
            FencedError: the batch is not the next one, or the pipeline has a later owner.
            TargetReplacedError: the table was dropped or made anew.
            TransientError: it may or may not have been applied.
        """
        opened = self._prepared()
        token, payload = staged.token, payload_of(staged, _Payload, self._place)
        for _ in range(_ATTEMPTS):
            self._check_incarnation(opened.incarnation)
            marks = self._tokens.marks(opened.table)
            if (receipt := self._earlier(opened, marks, token)) is not None:
                return receipt
            self._tokens.check(marks, token)
            try:
                return self._apply(opened, marks, token, payload)
            except LostRaceError:
                continue
        raise TransientError(f"{self._place}: {_ATTEMPTS} snapshots of others came before batch {token.seq}")

    def _earlier(self, opened: _Opened, marks: Marks, token: BatchToken) -> Receipt | None:
        head = marks.head(token.pipeline)
        if head is None or head.seq < token.seq:
            return None
        return self._tokens.receipt(opened.table, token)

    def _apply(self, opened: _Opened, marks: Marks, token: BatchToken, payload: _Payload) -> Receipt:
        from vector_assets.sinks.paimon_write import commit_files, drop_files, write_files

        user = self._user(token)
        deleted = payload.deletes.num_rows if payload.deletes is not None else 0
        counts = Counts(written=payload.rows.num_rows, deleted=deleted)
        with translated(self._place):
            files = payload.files
            if files is None:
                files, known = [], self._sequences.of(marks.latest)
                if payload.rows.num_rows or deleted:
                    files = write_files(opened.table, user, token.seq, payload.rows, payload.deletes, known)
            removed = self._removed(opened, marks, user, payload.replaces)
            try:
                number = commit_files(
                    self.storage, opened.table, marks.latest, user, token.seq, [*files, *removed],
                    marks.after(token, counts),
                )  # fmt: skip
            except LostRaceError:
                drop_files(opened.table, [*removed, *(files if payload.files is None else ())])
                raise
        if payload.files is None:
            self._sequences.note(number, user, token.seq, files)
        # the snapshot is the commit; what the tag lacks is found in the snapshots that follow it
        self._tokens.remember(opened.table, number)
        return Receipt(token.id, str(number), counts)

    def _removed(self, opened: _Opened, marks: Marks, user: str, root: int | None) -> "list[CommitMessage]":
        """What takes the rows of a batch that is rewritten out of the newest snapshot."""
        from vector_assets.sinks.paimon_replace import without_batch

        if root is None or marks.latest is None or self.batch_column is None:
            return []
        return without_batch(opened.table, marks.latest, user, self.batch_column, root)

    @property
    def batch_column(self) -> str | None:
        """The column that holds the number of the batch whose records a row was made of."""
        return self.options.batch_column

    def rows_of_batch(self, root: int) -> int:
        """How many rows the table has now that were made of this batch's records."""
        from vector_assets.sinks.paimon_replace import count_of

        if self.batch_column is None:
            return 0
        with translated(self._place):
            return count_of(self._existing(), self.batch_column, root)

    def _check_incarnation(self, expected: str) -> None:
        found = self.storage.incarnation()
        if found == expected:
            return
        if found is None and not self.storage.parent().exists():
            raise UnavailableError(f"{self._place}: the directory {self.storage.parent().path} is not there")
        if found is None:
            raise TargetReplacedError(f"{self.options.target()} was dropped")
        raise TargetReplacedError(
            f"{self.options.target()} is a new table ({found}) under the name of the one that was prepared ({expected})"
        )

    def find(self, token: BatchToken, committable: Json) -> Found:
        """Whether the table holds the batch; a table made anew holds none.

        Raises:
            TargetReplacedError: there is no table.
        """
        return self._tokens.find(self._existing(), token)

    def receipt(self, token: BatchToken) -> Receipt:
        """What the table noted when the batch was committed.

        Raises:
            FencedError: it does not hold this batch, or a later owner applied it.
        """
        table = self._existing()
        found = self._tokens.receipt(table, token)
        if found is None:
            self._tokens.check(self._tokens.marks(table), token)
            raise FatalError(f"{self._place}: the table does not hold batch {token.seq}")
        return found

    def forget(self, pipeline: str) -> None:
        """Drop the pipeline's place and batches: a snapshot without rows that no longer carries them."""
        from vector_assets.sinks.paimon_write import commit_files

        table = self.storage.load()
        for _ in range(_ATTEMPTS):
            marks = self._tokens.marks(table) if table is not None else Marks(None)
            if table is None or marks.head(pipeline) is None:
                return
            with translated(self._place):
                try:
                    number = commit_files(
                        self.storage, table, marks.latest, "vector_assets", 0, [], marks.without(pipeline)
                    )
                except LostRaceError:
                    continue
            self._tokens.remember(table, number)
            return
        raise TransientError(f"{self._place}: {_ATTEMPTS} snapshots of others came first")

    def newest_seq(self, pipeline: str) -> int:
        """Highest sequence number of the pipeline's batches in this table, 0 for none."""
        table = self.storage.load()
        head = self._tokens.marks(table).head(pipeline) if table is not None else None
        return head.seq if head else 0

    def recall(self, pipeline: str) -> Recalled:
        """What the table's snapshots and its tag say of the pipeline."""
        table = self.storage.load()
        if table is None:
            return Recalled({}, ())
        return self._tokens.recall(table, pipeline, self.storage.incarnation())

    def evolve(self, schema: pa.Schema) -> tuple[str, ...]:
        """Add the columns that the table lacks and widen those that got wider.

        Raises:
            PlanError: a change the table cannot make; nothing was changed.
        """
        opened = self._prepared()
        rows = table_rows(schema, self.options, opened.plan.key)
        made = evolve(self.storage, rows, opened.plan.key, opened.plan.partition)
        self._open(schema, ())
        return made

    def alter(self, changes: Sequence[ColumnChange]) -> tuple[str, ...]:
        """Add, drop, rename and widen columns; see `paimon_evolve`."""
        table = self.storage.load()
        key, partition = (table.primary_keys, table.partition_keys) if table is not None else ((), ())
        return alter(self.storage, changes, tuple(key), tuple(partition))

    def would_evolve(self, schema: pa.Schema) -> tuple[str, ...]:
        """What `evolve` would change, and its errors; nothing is changed."""
        table = self.storage.load()
        if table is None:
            return ()
        return wanted(self.storage, schema, tuple(table.primary_keys), tuple(table.partition_keys))[1]

    def as_stored(self, rows: pa.Table) -> pa.Table:
        """Rows of the pipeline as the table would hold them, hidden columns kept, without those it would refuse."""
        return self._stored(rows, self._prepared().plan.stored.names)

    def as_stored_keys(self, keys: pa.Table) -> pa.Table:
        """Key columns of the pipeline in the table's types, with `_position`."""
        return self._stored(keys, self._prepared().plan.key)

    def _stored(self, rows: pa.Table, names: Sequence[str]) -> pa.Table:
        plan = self._prepared().plan
        table, reasons = (plan.rows if len(names) == len(plan.stored) else plan.keys)(rows)
        kept = rows
        if reasons:
            bad = pa.array(list(reasons), pa.int64())
            kept = rows.filter(pa.compute.invert(pa.compute.is_in(rows.column(POSITION), value_set=bad)))
        for name in (name for name in rows.column_names if name.startswith("_") and name not in table.column_names):
            table = table.append_column(rows.schema.field(name), kept.column(name))
        return table

    def scan(self) -> Iterator[pa.RecordBatch]:
        """Every row of the table as it was when the first batch was asked for."""
        opened = self._prepared()
        return batches_of(self.storage, self._existing(), opened.plan.stored)

    def rows_of(self, keys: pa.Table) -> pa.Table:
        """The rows that have one of these keys now."""
        plan = self._prepared().plan
        wanted, _ = plan.keys(keys)
        return keys_filter(self.storage, self._existing(), plan.schema, wanted)

    def relation(
        self, columns: Sequence[str] | None = None, where: pc.Expression | None = None
    ) -> pa.RecordBatchReader:  # fmt: skip
        """The table as it is now, in bounded memory; files that speak against `where` are not read."""
        from pypaimon.schema.data_types import PyarrowFieldParser

        table = self._existing()
        schema = PyarrowFieldParser.from_paimon_schema(table.table_schema.fields)
        kept = [field.remove_metadata() for field in schema if columns is None or field.name in columns]
        schema = pa.schema(kept)
        return pa.RecordBatchReader.from_batches(schema, batches_of(self.storage, table, schema, where))

    def maintain(self, task: MaintenanceTask, upkeep: Upkeep) -> Maintained:
        """Compact small files, expire snapshots, or remove orphans.

        Raises:
            TransientError: another writer won, or the store does not answer.
            PlanError: the table is of a kind that cannot be compacted without Java.
        """
        from vector_assets.sinks.paimon_maintain import maintain

        return maintain(self.storage, self._existing(), self._tokens, task, upkeep)

    def close(self) -> None:
        """Nothing is held open."""

    @property
    def _place(self) -> str:
        return self.storage.place

    def _user(self, token: BatchToken) -> str:
        return f"vector_assets-{token.pipeline}"

    def _prepared(self) -> _Opened:
        return prepared(self._opened, self._place)

    def _existing(self) -> Any:
        """The table as it is now, also for an operator's command that prepared nothing."""
        table = self.storage.load()
        if table is None:
            if not self.storage.parent().exists():
                raise UnavailableError(f"{self._place}: the directory {self.storage.parent().path} is not there")
            raise TargetReplacedError(f"{self.options.target()} was dropped")
        return table
