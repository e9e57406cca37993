"""The SELECT of a script over one batch: plain column lists in Arrow, everything else in DuckDB."""

import re

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine.core import HIDDEN, KIND, POSITION, Decoded, RowKind, rejects
from vector_assets.engine.errors import PlanError
from vector_assets.transforms.checked_cast import cast_columns, misfits
from vector_assets.transforms.duck import BatchQuery
from vector_assets.transforms.select import Select

_REFERENCE = re.compile(r'\s*(?:(?i:"source"|source)\s*\.\s*)?(?:"((?:[^"]|"")+)"|([A-Za-z_][A-Za-z0-9_]*))\s*')
_CONSTANTS = frozenset({"null", "true", "false", "default"})
"""Bare words that are values in DuckDB, whatever the columns are called."""
_ADDING = pa.array([RowKind.INSERT, RowKind.UPDATE_AFTER], pa.int8())
_HIDDEN_FIELDS = {KIND: pa.field(KIND, pa.int8()), POSITION: pa.field(POSITION, pa.int64(), nullable=False)}


class SqlTransform:
    """`SELECT projections FROM relation WHERE where` over the batch, cast to `output`. Threads may share it.

    Expressions, `relation` and `where` are DuckDB's SQL; `relation` is `source` or a subquery over it that keeps
    `_position` and `_kind`. Of a row that deletes only the columns of `key` (the sink's) have to be there.

    `deletes_unless` is a condition for rows that replace others of their key: one that does not meet it deletes its
    key, because the row that it replaces may have met it. Deletes, which may hold nothing but the key, pass unasked.
    """

    def __init__(
        self, projections: tuple[tuple[str, str], ...], relation: str, where: str | None, output: pa.Schema, *,
        key: tuple[str, ...] = (), deletes_unless: str | None = None,
    ) -> None:  # fmt: skip
        """Keep the parts; nothing runs yet.

        Raises:
            PlanError: the projections are not the output's columns, or take a hidden column's name.
        """
        names = [name for _, name in projections]
        if names != output.names:
            raise PlanError(f"transform: the SELECT gives {', '.join(names)}; wanted {', '.join(output.names)}")
        if taken := sorted(HIDDEN & set(names)):
            raise PlanError(f"transform: column {taken[0]} is reserved; name it otherwise")
        self._output = output
        self._key = frozenset(key)
        self._has_mark = deletes_unless is not None
        if deletes_unless is not None:
            projections = (*projections, (_mark(deletes_unless), "WHERE"))
        select = Select(projections, relation, where)
        self._is_row_wise = select.inlined().is_row_wise
        self._references = _references(projections) if select.is_row_wise and where is None else None
        self._query = BatchQuery(select)

    def apply(self, rows: pa.Table) -> Decoded:
        """Rows of `output` with their hidden columns, in the order of `_position`; `filtered` counts rows left out.

        Raises:
            PlanError: the SELECT does not fit the rows or the output, or fails for a reason that lies in no record.
            FatalError: DuckDB itself fails, for want of memory for example.
        """
        rows = _in_order(rows)
        hidden = [name for name in (KIND, POSITION) if name in rows.column_names]
        columns = _resolved(self._references, rows.column_names) if self._references else None
        errors: dict[int, str] = {}
        if columns is None:
            _refuse_twins(rows.column_names)
            result, errors = self._query.run(rows, hidden)
            result = _in_order(self._with_deletes(result) if self._has_mark else result)
        else:
            result = pa.Table.from_arrays(
                [rows[name] for name in (*columns, *hidden)], names=[*self._output.names, *hidden]
            )
        return self._cast(rows, result, hidden, errors)

    def _cast(self, rows: pa.Table, result: pa.Table, hidden: list[str], errors: dict[int, str]) -> Decoded:
        body = result.select(range(len(self._output)))
        wrong = misfits(body, self._output, deletes=_deleting(result), key=self._key)
        positions = result[POSITION].to_numpy()
        for row in sorted(wrong):
            errors.setdefault(int(positions[row]), wrong[row])
        rejected = pa.array(sorted(errors), pa.int64())
        if wrong:
            keep = pc.invert(pc.is_in(result[POSITION], rejected))
            result, body = result.filter(keep), body.filter(keep)
        fields = [*self._output, *(_HIDDEN_FIELDS[name] for name in hidden)]
        arrays = [*cast_columns(body, self._output), *(result[name] for name in hidden)]
        return Decoded(
            rows=pa.Table.from_arrays(arrays, schema=pa.schema(fields)),
            rejected=rejects(rejected, "transform", pa.array([errors[p] for p in sorted(errors)], pa.string())),
            filtered=self._left_out(rows, result, rejected),
        )

    def _with_deletes(self, result: pa.Table) -> pa.Table:
        """The rows without the mark behind their columns; those that it is false for delete their key."""
        place = len(self._output)
        kinds = pc.if_else(result.column(place), result[KIND], pa.scalar(int(RowKind.DELETE), pa.int8()))
        result = result.remove_column(place)
        return result.set_column(result.schema.get_field_index(KIND), KIND, kinds)

    def _left_out(self, rows: pa.Table, result: pa.Table, rejected: pa.Array) -> int:
        """Rows that the WHERE left out: of a subquery, which may multiply rows, records without any row."""
        came = rows[POSITION].filter(pc.invert(pc.is_in(rows[POSITION], rejected))) if len(rejected) else rows[POSITION]
        if self._is_row_wise:
            return len(came) - int(result.num_rows)
        return len(pc.unique(came)) - len(pc.unique(result[POSITION]))


def _mark(condition: str) -> str:
    """True for rows that stay what they are; CASE, so that the condition is not even tried on deletes."""
    taking = f"{RowKind.UPDATE_BEFORE:d}, {RowKind.DELETE:d}"
    return f"CASE WHEN {KIND} IN ({taking}) THEN true ELSE coalesce(({condition}), false) END"


def _deleting(rows: pa.Table) -> npt.NDArray[np.bool_] | None:
    """Which rows take their key away; None when rows are inserts only."""
    if KIND not in rows.column_names:
        return None
    deleting: npt.NDArray[np.bool_] = pc.invert(pc.is_in(rows[KIND], _ADDING)).to_numpy()
    return deleting


def _in_order(rows: pa.Table) -> pa.Table:
    positions = rows[POSITION].to_numpy()
    if len(positions) < 2 or (np.diff(positions) >= 0).all():
        return rows
    return rows.take(pa.array(np.argsort(positions, kind="stable")))


def _references(projections: tuple[tuple[str, str], ...]) -> list[str] | None:
    """The columns that the projections name, None if one is more than a column."""
    names = []
    for text, _ in projections:
        match = _REFERENCE.fullmatch(text)
        if not match or (match[2] or "").lower() in _CONSTANTS:
            return None
        names.append(match[2] or match[1].replace('""', '"'))
    return names


def _resolved(names: list[str], columns: list[str]) -> list[str] | None:
    """The columns meant, by exact name, else by the only one that differs in case; None if one is not there."""
    found = []
    for name in names:
        close = [name] if name in columns else [column for column in columns if column.lower() == name.lower()]
        if len(close) != 1:
            return None
        found.append(close[0])
    return found


def _refuse_twins(columns: list[str]) -> None:
    """DuckDB's names have no case: columns that differ in nothing else cannot be told apart."""
    seen: dict[str, str] = {}
    for column in columns:
        if (twin := seen.setdefault(column.lower(), column)) != column:
            raise PlanError(f"transform: columns {twin} and {column} differ only in case; rename one")
