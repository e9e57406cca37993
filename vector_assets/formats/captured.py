"""Captured records (`engine/captured.py`) to rows of a target whose columns follow those of the tables."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine.captured import LAYOUT, Layout
from vector_assets.engine.core import KIND, POSITION, REJECT_SCHEMA, Decoded, Json, SchemaChange, rejects
from vector_assets.engine.errors import ConfigError, DriftError
from vector_assets.engine.schema import Column
from vector_assets.formats.captured_book import Book
from vector_assets.formats.captured_plan import BEHAVIORS, Behavior, Planner, Wish

_REMEDY = "change the target by hand, or set schema.change.behavior to lenient or evolve"


class CapturedDecoder:
    """Rows of the target's columns as they are now, whatever the tables' were. Immutable, so threads may share it.

    `columns` are those of the first discovery, for ever; `is_merged` says that several tables go into the target.
    """

    def __init__(
        self, columns: Sequence[Column], behavior: Behavior = "lenient", *, is_merged: bool = False,
        state: Sequence[Json] = (),
    ) -> None:  # fmt: skip
        """A decoder with the changes of `state`.

        Raises:
            ConfigError: there is no such behaviour.
        """
        if behavior not in BEHAVIORS:
            raise ConfigError(f"schema.change.behavior: found {behavior!r}; known: {', '.join(BEHAVIORS)}")
        self._declared, self._behavior, self._is_merged = tuple(columns), behavior, is_merged
        self._state = tuple(state)
        self._book = Book.of(columns, self._state)
        fields = [pa.field(column.name, column.type.arrow) for column in self._book.columns]
        own = [pa.field(KIND, pa.int8(), nullable=False), pa.field(POSITION, pa.int64(), nullable=False)]
        self._schema = pa.schema([*fields, *own])

    @property
    def evolves(self) -> bool:
        """The target's columns may change."""
        return self._behavior not in {"exception", "ignore"}

    @property
    def columns(self) -> tuple[Column, ...]:
        """The target's columns as they are now."""
        return self._book.columns

    @property
    def renamed(self) -> dict[str, str]:
        """Declared names of columns that are called otherwise by now, and what they are called."""
        return self._book.renamed

    def evolved(self, state: Sequence[Json]) -> Self:
        """The decoder as declared, with the changes of `state`."""
        return type(self)(self._declared, self._behavior, is_merged=self._is_merged, state=state)

    def decode(self, raw: pa.RecordBatch | pa.Table) -> Decoded:
        """Rows and rejects, both in the order of the records; changes of tables are records without rows.

        Raises:
            DriftError: a table has changed and the behaviour is `exception`.
        """
        column = raw.column("value")
        values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        positions = np.asarray(raw.column(POSITION), np.int64)
        names = values.field(LAYOUT)
        numbers = np.asarray(names.indices, np.int64)
        layouts = [Layout.from_json(text) for text in names.dictionary.to_pylist()]
        wants = self._wants(raw, layouts, numbers, positions)
        is_row = np.asarray(values.field(KIND).is_valid())
        parts, rejected = [self._schema.empty_table()], [REJECT_SCHEMA.empty_table()]
        for number in np.unique(numbers).tolist():
            chosen = np.flatnonzero((numbers == number) & is_row)
            if not len(chosen):
                # a change of a table: it may name columns that no row here has
                continue
            rows, refused = self._rows(layouts[number], values, chosen, positions)
            parts.append(rows)
            rejected.append(refused)
        rows, refused = pa.concat_tables(parts), pa.concat_tables(rejected)
        if len(parts) > 2:
            rows, refused = rows.sort_by(POSITION), refused.sort_by(POSITION)
        return Decoded(rows, refused, wants=wants)

    def _wants(
        self, raw: pa.RecordBatch | pa.Table, layouts: Sequence[Layout], numbers: Any, positions: Any
    ) -> tuple[SchemaChange, ...]:
        """What the layouts want, from the oldest to the newest, each as if those before it were there."""
        book, wants = self._book, list[SchemaChange]()
        first = {number: int(np.argmax(numbers == number)) for number in np.unique(numbers).tolist()}
        for number in sorted(first, key=lambda each: (layouts[each].epoch, first[each])):
            planner = Planner(book, layouts[number], self._behavior, is_merged=self._is_merged)
            wishes = list(planner.wishes())
            book = planner.book
            at = first[number]
            changes = [wish for wish in wishes if wish.entry["op"] != "layout"]
            if changes and self._behavior == "exception":
                self._refuse(raw, at, changes[0])
            wants += [
                SchemaChange(
                    int(positions[at]), wish.what, wish.entry, wish.refusal, wish.renamed,
                    is_required=self._behavior in {"evolve", "lenient"},
                ) for wish in wishes
            ]  # fmt: skip
        return tuple(wants)

    def _refuse(self, raw: pa.RecordBatch | pa.Table, at: int, wish: Wish) -> None:
        split, offset = (int(raw.column(name)[at].as_py()) for name in ("split", "offset"))
        raise DriftError(split, offset, f"{wish.what}, and schema.change.behavior is exception", _REMEDY)

    def _rows(self, layout: Layout, values: Any, chosen: Any, positions: Any) -> tuple[pa.Table, pa.Table]:
        """Rows of one layout, and those whose values the target's columns cannot have."""
        places = self._book.places(layout)
        taken = pa.array(chosen)
        is_all = len(chosen) == len(values)
        arrays, errors = [], dict[int, str]()
        for number, column in enumerate(self._book.targets):
            if column is None:
                continue
            if number not in places:
                arrays.append(pa.nulls(len(chosen), column.type.arrow))
                continue
            child = values.field(places[number])
            found = child if is_all else child.take(taken)
            arrays.append(self._cast(found, column, errors))
        kinds = values.field(KIND)
        arrays += [kinds if is_all else kinds.take(taken), pa.array(positions[chosen])]
        rows = pa.Table.from_arrays(arrays, schema=self._schema)
        if not errors:
            return rows, REJECT_SCHEMA.empty_table()
        kept = np.ones(rows.num_rows, np.bool_)
        kept[list(errors)] = False
        order = sorted(errors)
        refused = rejects(pa.array(positions[chosen][order]), "decode", pa.array([errors[row] for row in order]))
        return rows.filter(pa.array(kept)), refused

    def _cast(self, values: Any, column: Column, errors: dict[int, str]) -> Any:
        """The values in the column's type; what cannot be had in it is null, and an error of its row."""
        target = column.type.arrow
        if values.type == target:
            return values
        try:
            return fitted(values, target)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            if len(values) > 1:
                half = len(values) // 2
                low, high = dict[int, str](), dict[int, str]()
                parts = [self._cast(values[:half], column, low), self._cast(values[half:], column, high)]
                errors |= {**low, **{half + row: text for row, text in high.items()}, **errors}
                return pa.concat_arrays(parts)
            if len(values):
                errors.setdefault(0, f"captured: column {column.name} is {column.type}: {error}".partition("\n")[0])
            return pa.nulls(len(values), target)


def fitted(values: Any, target: pa.DataType) -> Any:
    """Values of a type of MySQL's in that of a column that holds them."""
    kind = values.type
    if pa.types.is_boolean(kind) and not pa.types.is_boolean(target):
        values = values.cast(pa.int8())
    elif pa.types.is_boolean(target) and not pa.types.is_boolean(kind):
        return pc.not_equal(values.cast(pa.int64()), 0)
    elif pa.types.is_string(target) and pa.types.is_timestamp(kind) and kind.tz is not None:
        values = values.cast(pa.timestamp(kind.unit))
    elif pa.types.is_string(target) and pa.types.is_binary(kind):
        raise pa.ArrowNotImplementedError("bytes are no text")
    elif pa.types.is_decimal(target) and pa.types.is_integer(kind):
        # arrow wants room for all the digits that the type may have
        values = values.cast(pa.decimal128(38, 0) if kind != pa.uint64() else pa.decimal128(20, 0))
        return values.cast(pa.decimal128(38, target.scale)).cast(target)
    return values.cast(target)
