"""Changes of the binlog as columns: images of rows of one table and one layout are decoded together."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vector_assets.clients.mysql_binlog import Rows
from vector_assets.clients.mysql_image import Layout, decode, walk
from vector_assets.engine.core import RowKind
from vector_assets.engine.errors import PlanError
from vector_assets.engine.schema import Column
from vector_assets.sources.mysql_fit import fit

_KINDS = {
    "insert": (RowKind.INSERT,),
    "update": (RowKind.UPDATE_BEFORE, RowKind.UPDATE_AFTER),
    "delete": (RowKind.DELETE,),
}


@dataclass(frozen=True, slots=True)
class Piece:
    """Row images of one event; `cells` has a row for each image. `late`: beyond the place that is read up to."""

    rows: Rows
    cells: npt.NDArray[np.int64] = field(repr=False)
    late: bool = False
    epoch: int = 0

    @classmethod
    def of(cls, rows: Rows, *, late: bool = False, epoch: int = 0) -> "Piece":
        """The event's images, found."""
        cells = np.array(walk(rows.data, [each.size for each in rows.layout]), np.int64)
        return cls(rows, cells.reshape(-1, len(rows.layout)), late, epoch)

    @property
    def images(self) -> int:
        """Images of a row: two of an update."""
        return len(_KINDS[self.rows.kind])

    @property
    def count(self) -> int:
        """Rows of the event."""
        return len(self.cells) // self.images

    def cut(self, first: int, last: int) -> "Piece":
        """Rows `first` up to `last` of it."""
        return replace(self, cells=self.cells[first * self.images : last * self.images])


@dataclass(frozen=True, slots=True)
class Images:
    """Images of one table and layout, in order; `kinds` are row kinds, `at_ms` the times of their events."""

    table: str
    layout: Layout
    data: Any = field(repr=False)
    cells: npt.NDArray[np.int64] = field(repr=False)
    kinds: npt.NDArray[np.int8]
    at_ms: npt.NDArray[np.int64]
    late: npt.NDArray[np.bool_]
    epoch: int = 0

    def natural(self, name: str) -> tuple[Any, int] | None:
        """The values of a column in its natural type, and how many dates were nulled; None when it has none."""
        for number, each in enumerate(self.layout):
            if each.name.lower() == name.lower():
                return decode(each, self.data, self.cells[:, number])
        return None

    def columns(
        self, declared: Sequence[Column], zone: str, *, is_known: Callable[[str, str], bool], fails_on_zero: bool
    ) -> list[Any]:
        """The declared columns in their types.

        A column that the table got later (`is_known`) is null.

        Raises:
            PlanError: a column is neither in these images nor in the table, or a value does not fit.
        """
        found = []
        for column in declared:
            values = self.natural(column.name)
            if values is None and is_known(self.table, column.name):
                values = pa.nulls(len(self.cells), column.type.arrow), 0
            if values is None:
                names = ", ".join(each.name for each in self.layout)
                raise PlanError(f"{self.table}: column {column.name} is not in the table (any more); it has {names}")
            check_zeros(values[1], self.table, column.name, is_refused=fails_on_zero)
            found.append(fit(values[0], column, zone, self.table))
        return found


def check_zeros(count: int, table: str, column: str, *, is_refused: bool) -> None:
    """Dates with zeros were nulled, unless that is refused."""
    if count and is_refused:
        raise PlanError(
            f"{table}: column {column} has {count} dates with zeros, and 'vector-assets.zero-dates' is 'fail'"
        )


def together(pieces: Sequence[Piece]) -> Iterator[Images]:
    """The pieces in order, those of one table and layout that follow each other as one."""
    for (table, layout, epoch), group in groupby(pieces, lambda each: (each.rows.table, each.rows.layout, each.epoch)):
        members = [piece for piece in group if len(piece.cells)]
        if not members:
            continue
        shifts = np.cumsum([0, *(len(piece.rows.data) for piece in members)])
        cells = [np.where(p.cells >= 0, p.cells + shift, -1) for p, shift in zip(members, shifts, strict=False)]
        yield Images(
            table, layout,
            # readers of whole words may look a few bytes beyond
            np.frombuffer(b"".join([*(piece.rows.data for piece in members), bytes(16)]), np.uint8),
            np.concatenate(cells),
            np.concatenate([np.tile(np.array(_KINDS[p.rows.kind], np.int8), p.count) for p in members]),
            np.concatenate([np.full(len(p.cells), p.rows.at_ms, np.int64) for p in members]),
            np.concatenate([np.full(len(p.cells), p.late) for p in members]),
            epoch,
        )  # fmt: skip
