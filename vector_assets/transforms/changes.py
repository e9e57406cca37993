"""Rows of a changelog for targets that cannot hold changes, or should not lose what was deleted."""

from collections.abc import Sequence
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine.core import KIND, POSITION, Decoded, RowKind, rejects
from vector_assets.engine.schema import Column

_REASON = "a table without a primary key takes inserts only, this is one of its {}"
_NAMES = {RowKind.UPDATE_BEFORE: "updates (the row before)", RowKind.UPDATE_AFTER: "updates", RowKind.DELETE: "deletes"}


class _Same:
    """A transform that leaves columns alone, so it follows whatever they become."""

    def __init__(self, columns: Sequence[Column] = ()) -> None:
        self._columns = tuple(columns)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns that it is given and gives out."""
        return self._columns

    def following(self, columns: Sequence[Column]) -> Self:
        """The same over other columns."""
        return type(self)(columns)


class InsertsOnly(_Same):
    """Inserts pass; updates and deletes are rejects, each with its row, so that none is lost. Threads may share it."""

    def apply(self, rows: pa.Table) -> Decoded:
        """Rows without their kinds."""
        if KIND not in rows.column_names:
            return Decoded(rows)
        kinds = rows.column(KIND)
        rest = rows.filter(pc.not_equal(kinds, int(RowKind.INSERT)))
        reasons = pa.array([_REASON.format(_NAMES.get(RowKind(number), "changes")) for number in range(4)])
        return Decoded(
            rows.filter(pc.equal(kinds, int(RowKind.INSERT))).drop_columns([KIND]),
            rejects(rest.column(POSITION), "transform", reasons.take(rest.column(KIND)).combine_chunks()),
        )


class SoftDelete(_Same):
    """Deletes become inserts: what is deleted stays in the target. Threads may share it."""

    def apply(self, rows: pa.Table) -> Decoded:
        """The same rows, none of which deletes its key; the image before an update still gives up its own."""
        if KIND not in rows.column_names:
            return Decoded(rows)
        kinds = rows.column(KIND)
        written = pc.if_else(pc.equal(kinds, int(RowKind.DELETE)), pa.scalar(int(RowKind.INSERT), pa.int8()), kinds)
        return Decoded(rows.set_column(rows.column_names.index(KIND), rows.schema.field(KIND), written))
