"""A declared table as a sink: named writes, each applied once as far as the target can tell.

In the target's tokens a write is a pipeline `api/<name>`; its batches are the parts of the input, and its only split
`rows` counts the input's rows.
"""

import logging
import uuid
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.api.rows import as_plain, kinds_from, parts_of, plain, reader_of
from vector_assets.declare.flink_single import TableWriter
from vector_assets.declare.flink_types import quoted
from vector_assets.engine.core import (
    KIND,
    POSITION,
    Batch,
    BatchToken,
    Counts,
    Range,
    Receipt,
    Sink,
    Span,
    Staged,
    Target,
)
from vector_assets.engine.counting import settled
from vector_assets.engine.decoding import folded
from vector_assets.engine.errors import BudgetError, ConfigError, FatalError, PlanError
from vector_assets.engine.pipeline import ErrorBudget, PipelineSettings
from vector_assets.engine.registry import nearest
from vector_assets.engine.retry import attempts, call
from vector_assets.transforms.checked_cast import castable
from vector_assets.transforms.sql import SqlTransform

log = logging.getLogger(__name__)

PREFIX = "api/"
"""Before the name of a write in the target's tokens; no pipeline's name can begin so."""
_SPLIT = "rows"
_MOST_NAME = 200


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a write: its name, in how many parts it went, and the counts over all parts.

    `rejected` holds the rows that are not in the target, with the input's columns, their number `_row` (from 0), the
    `_stage` (`transform` or `write`) and the `_error`. `was_there`: the target had every part already.
    """

    batch: str
    parts: int
    counts: Counts
    rejected: pa.Table
    was_there: bool


@dataclass
class TableSink:
    """A declared table as a sink, for one thread at a time; close it, or use it as a context manager."""

    table: TableWriter
    _sink: Sink | None = field(default=None, init=False)
    _target: Target | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        for report in self.table.reports:
            log.info("%s", report)

    @property
    def schema(self) -> pa.Schema:
        """The columns that a write has to have, in any order."""
        return self.table.table.schema

    @property
    def target(self) -> Target:
        """What the target says of itself: its name, key, columns and guarantee; it is checked when first asked.

        Raises:
            PlanError: the target does not fit the table.
            TransientError: it does not answer.
        """
        if self._target is None:
            sink, key = self._opened(), self.table.table.primary_key
            self._target = call(sink.retry, lambda: sink.prepare(self.schema, key), place=f"{self._place}: preparing")
        return self._target

    def write(
        self, rows: Any, batch: str | None = None, *, error_budget: str = "10%", rows_per_part: int = 50_000
    ) -> Written:
        """Write a pa.Table, RecordBatchReader, pandas DataFrame or anything else that gives an Arrow stream.

        Columns meet by name; an optional `_kind` (0 to 3, or `+I`, `-U`, `+U`, `-D`) makes the rows changes. The target
        remembers the name `batch`: the same rows under the same name are applied once. Without a name they get a new
        one. Input over `rows_per_part` rows goes in parts, each applied once; the same name goes on after a failure.

        Raises:
            PlanError: a column is missing, unknown or of a type that has no conversion, or the target does not fit.
            BudgetError: more rows of a part are rejected than `error_budget` allows (a count, or a share: `10%`).
            FatalError: the target holds other rows under this name.
            TransientError: the target does not answer; whether the part was applied tells the next attempt.
        """
        name = _checked_name(uuid.uuid4().hex if batch is None else batch, self._place)
        settings = PipelineSettings.parse({"vector-assets.error-budget": error_budget}, f"{self._place}: write")
        if rows_per_part < 1:
            raise ConfigError(f"{self._place}: rows_per_part is {rows_per_part}, want 1 or more")
        reader = reader_of(rows, self._place)
        self._check_columns(reader.schema)
        writes = _Write(self, name, ErrorBudget(settings.error_budget), reader.schema)
        for part in parts_of(reader, rows_per_part):
            writes.apply(part)
        return writes.written()

    def forget(self, batch: str) -> None:
        """Let the target forget a name, so that it may be written again; its rows stay."""
        self._opened().forget(PREFIX + _checked_name(batch, self._place))

    def close(self) -> None:
        """Give back connections; idempotent."""
        sink, self._sink, self._target = self._sink, None, None
        if sink is not None:
            sink.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def _place(self) -> str:
        return f"table {self.table.table.name}"

    def _opened(self) -> Sink:
        if self._sink is None:
            self._sink = self.table.open()
        return self._sink

    def _check_columns(self, found: pa.Schema) -> None:
        wanted = self.schema
        for name in found.names:
            if name != KIND and name not in wanted.names:
                known = ", ".join(wanted.names)
                raise PlanError(f"{self._place}: no column {name}{nearest(name, wanted.names)}; its columns: {known}")
            if found.names.count(name) > 1:
                raise PlanError(f"{self._place}: column {name} is given {found.names.count(name)} times")
        for column in wanted:
            if column.name not in found.names:
                given = ", ".join(found.names) or "none"
                raise PlanError(f"{self._place}: column {column.name} ({column.type}) is missing; given: {given}")
            kind = plain(found.field(column.name).type)
            if not castable(kind, column.type):
                what = f"{self._place}: column {column.name} is given as {kind}, which is not converted to"
                raise PlanError(f"{what} {column.type}; cast it before")


class _Write:
    """One named write on its way, part by part."""

    def __init__(self, to: TableSink, name: str, budget: ErrorBudget, given: pa.Schema) -> None:
        self.name, self.budget, self.given = name, budget, given
        self.sink, self.target, self.place = to._opened(), to.target, to._place
        columns = tuple((quoted(column), column) for column in to.schema.names)
        self.cast = SqlTransform(columns, "source", None, to.schema, key=self.target.key)
        self.to = to
        self.counts = Counts()
        self.rejected: list[pa.Table] = []
        self.parts = 0
        self.rows = 0
        self.was_there = True

    def apply(self, part: pa.Table) -> None:
        """Write the next rows, unless the target has them."""
        self.parts += 1
        # a range of rows and not an empty one: a retry in parts of another size would find the wrong ones
        rows = Range(_SPLIT, self.rows, self.rows + part.num_rows)
        first = frozenset([_SPLIT]) if self.parts == 1 else frozenset[str]()
        token = BatchToken(PREFIX + self.name, self.to.table.options.target(), self.parts, Span((rows,)), 1, first)
        cast = self.cast.apply(self._numbered(part))
        result = folded(cast.rows, self.sink.merge, self.target, place=self.place)
        allowed = self.budget.limit(part.num_rows) - cast.rejected.num_rows
        self._check_budget(allowed, cast.rejected, part.num_rows)
        handed = Batch(result.upserts, result.deletes, reject_limit=allowed)
        staged = call(self.sink.retry, lambda: self.sink.stage(handed, token), place=f"{self.place}: staging")
        rejected = pa.concat_tables([cast.rejected, staged.rejected])
        self._check_budget(allowed - staged.rejected.num_rows, rejected, part.num_rows)
        receipt = self._commit(staged)
        prepared = Counts(
            records=part.num_rows, bytes=part.nbytes, decoded=part.num_rows - cast.rejected.num_rows,
            rejected=cast.rejected.num_rows, rows=cast.rows.num_rows, compacted=result.dropped,
            refused=staged.rejected.num_rows,
        )  # fmt: skip
        self.counts += settled(receipt.counts, prepared, receipt.rejected.num_rows)
        self._keep(part, pa.concat_tables([rejected, receipt.rejected]))
        self.rows += part.num_rows

    def written(self) -> Written:
        """What became of all parts."""
        rejected = pa.concat_tables(self.rejected).sort_by("_row")
        return Written(self.name, self.parts, self.counts, rejected, self.was_there)

    def _numbered(self, part: pa.Table) -> pa.Table:
        columns = {name: as_plain(part.column(name)) for name in self.to.schema.names}
        if KIND in part.column_names:
            columns[KIND] = kinds_from(part.column(KIND), self.place)
        return pa.table({**columns, POSITION: pa.array(np.arange(part.num_rows))})

    def _commit(self, staged: Staged) -> Receipt:
        """Apply a part that the target does not have; asked before every attempt."""
        token, place = staged.token, f"{self.place}: writing {self.name} part {staged.token.seq}"
        for attempt in attempts(self.sink.retry, place=place):
            with attempt:
                found = self.sink.find(token, staged.committable)
                if found == "APPLIED":
                    return self.sink.receipt(token)
                if found == "UNKNOWN":
                    raise FatalError(
                        f"{self.place}: {self.target.name} was written to under the name {self.name!r} before, but not"
                        f" with rows {token.span.short().partition(':')[2]} as part {token.seq}: the input or"
                        " rows_per_part is another. Nothing of this part was written; give another name"
                    )
                self.was_there = False
                return self.sink.commit(staged)
        raise AssertionError("unreachable: tenacity re-raises")

    def _keep(self, part: pa.Table, rejected: pa.Table) -> None:
        places = rejected.column(POSITION)
        rows = part.take(places)
        for name, values in (
            ("_row", pc.add(places, self.rows)),
            ("_stage", rejected.column("stage")),
            ("_error", rejected.column("error")),
        ):
            rows = rows.append_column(name, values)
        self.rejected.append(rows)

    def _check_budget(self, left: int, rejected: pa.Table, rows: int) -> None:
        if left < 0:
            done = f"; parts up to {self.parts - 1} are in the target" if self.parts > 1 else ""
            raise BudgetError(
                f"{self.place}: {rejected.num_rows} of {rows} rows are rejected, the error budget is {self.budget}; the"
                f" first: {rejected.column('error')[0]}. Nothing of part {self.parts} of {self.name} was written{done}"
            )


def _checked_name(name: str, place: str) -> str:
    if not isinstance(name, str) or not 1 <= len(name) <= _MOST_NAME or not name.isprintable():
        raise ConfigError(f"{place}: batch is {name!r}, want a name of 1 to {_MOST_NAME} printable characters")
    return name
