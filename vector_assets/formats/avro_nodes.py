"""What reads one part of a schema from all records at once; a tree of these is made for each writer's schema."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa

from vector_assets.formats.avro_cursor import MOST_DEPTH, Cursor, Ints, steps
from vector_assets.formats.avro_values import Column, Convert, ConvertBytes

_MOST_BLOCKS = 10_000
"""Blocks of one array or map; writers make one, or one per 64 KB."""
_MOST_EMPTY_ITEMS = 100_000
"""Items of an array whose items take no byte, where the record's own length sets no bound."""


class Node(Protocol):
    """Reads one value of each record; what is only passed over reads as nulls."""

    @property
    def least(self) -> int:
        """Bytes that a value takes at least."""
        ...

    def read(self, cursor: Cursor, rows: Ints) -> pa.Array:
        """One value per row, and the rows moved behind it; rows that fail are marked, their values are any."""
        ...


def _kept(cursor: Cursor, rows: Ints, column: Column, where: str) -> pa.Array:
    """The column's values, its bad ones reported."""
    if column.bad is not None and column.bad.any():
        cursor.fail(rows[column.bad], f"{where}: wanted {column.wanted}")
    return column.values


@dataclass(slots=True)
class Number:
    """A boolean, int, long, float or double: `raw` is its numpy type of fixed width, None for the variable ones."""

    where: str
    raw: str | None
    convert: Convert | None
    is_int: bool = False

    @property
    def least(self) -> int:
        """One byte, or the width."""
        return self.width or 1

    @property
    def width(self) -> int | None:
        """Bytes of every value; None when they differ."""
        return np.dtype(self.raw).itemsize if self.raw else None

    def read(self, cursor: Cursor, rows: Ints) -> pa.Array:
        """One number per row."""
        places = cursor.places(rows)
        if self.width:
            cursor.advance(rows, self.width, self.where)
            return self.at(cursor, places, rows)
        values, sizes = cursor.longs_at(places, rows, self.where)
        cursor.advance(rows, sizes, self.where)
        return self._finished(cursor, values, rows)

    def at(self, cursor: Cursor, places: Ints, rows: Ints) -> pa.Array:
        """The numbers at these places, which the rows own."""
        if self.raw and self.convert is None:
            return pa.nulls(len(places))
        if self.raw:
            return self._finished(cursor, cursor.words(self.raw, places), rows)
        return self._finished(cursor, cursor.longs_at(places, rows, self.where)[0], rows)

    def _finished(self, cursor: Cursor, values: "np.ndarray[tuple[int], np.dtype[np.generic]]", rows: Ints) -> pa.Array:
        if self.is_int:
            wide = values.astype(np.int64)
            bad = (wide < -(2**31)) | (wide >= 2**31)
            if bad.any():
                cursor.fail(rows[bad], f"{self.where}: an Avro int of more than 32 bits")
                values = np.where(bad, 0, wide)
        if self.convert is None:
            return pa.nulls(len(values))
        return _kept(cursor, rows, self.convert(values), self.where)


@dataclass(slots=True)
class Fixed:
    """A fixed number of bytes."""

    where: str
    width: int
    convert: ConvertBytes | None

    @property
    def least(self) -> int:
        """The width."""
        return self.width

    def read(self, cursor: Cursor, rows: Ints) -> pa.Array:
        """One value per row."""
        places = cursor.places(rows)
        cursor.advance(rows, self.width, self.where)
        return self.at(cursor, places, rows)

    def at(self, cursor: Cursor, places: Ints, rows: Ints) -> pa.Array:
        """The values at these places, which the rows own."""
        if self.convert is None:
            return pa.nulls(len(places))
        sizes = np.full(len(places), self.width, np.int64)
        return _kept(cursor, rows, self.convert(cursor.slices(places, sizes, rows)), self.where)


@dataclass(slots=True)
class Text:
    """Bytes or text: a length, and so many bytes."""

    where: str
    convert: ConvertBytes | None
    least: int = 1

    def read(self, cursor: Cursor, rows: Ints) -> pa.Array:
        """One value per row."""
        sizes = cursor.longs(rows, self.where)
        wrong = (sizes < 0) | (sizes > cursor.left(rows))
        if wrong.any():
            cursor.fail(
                rows[wrong], f"{self.where}: the record ends within the value (cut short, or of another schema)"
            )
            sizes = np.where(wrong, 0, sizes)
        places = cursor.places(rows)
        cursor.advance(rows, sizes, self.where)
        if self.convert is None:
            return pa.nulls(len(rows))
        return _kept(cursor, rows, self.convert(cursor.slices(places, sizes, rows)), self.where)


@dataclass(slots=True)
class Symbol:
    """An enum as its symbol's name; `symbols` are the writer's as the reader knows them, None where it does not."""

    where: str
    symbols: tuple[str | None, ...]
    is_kept: bool
    least: int = 1

    def read(self, cursor: Cursor, rows: Ints) -> pa.Array:
        """One symbol per row."""
        numbers = cursor.longs(rows, self.where)
        wrong = (numbers < 0) | (numbers >= len(self.symbols))
        if wrong.any():
            cursor.fail(rows[wrong], f"{self.where}: the enum has {len(self.symbols)} symbols, found another number")
            numbers = np.where(wrong, 0, numbers)
        if not self.is_kept:
            return pa.nulls(len(rows))
        names = pa.array(self.symbols, pa.string())
        lost = np.array([name is None for name in self.symbols])[numbers]
        if lost.any():
            cursor.fail(
                rows[lost], f"{self.where}: a symbol that the reader's enum does not have, and it has no default"
            )
        return names.take(pa.array(numbers))


@dataclass(slots=True)
class Nothing:
    """Avro's null."""

    type: pa.DataType = field(default_factory=pa.null)
    least: int = 0

    def read(self, cursor: Cursor, rows: Ints) -> pa.Array:
        """A null per row."""
        return pa.nulls(len(rows), self.type)


@dataclass(slots=True)
class Refused:
    """A value that the column cannot take: every record that holds one is bad."""

    reason: str
    type: pa.DataType
    least: int = 0

    def read(self, cursor: Cursor, rows: Ints) -> pa.Array:
        """Nothing, and every row marked."""
        cursor.fail(rows, self.reason)
        return pa.nulls(len(rows), self.type)


@dataclass(slots=True)
class Union:
    """One of several, the number of which is written first."""

    where: str
    branches: tuple[Node, ...]
    type: pa.DataType
    least: int = 1

    @property
    def only(self) -> int | None:
        """The branch beside null, if there is just one."""
        others = [number for number, branch in enumerate(self.branches) if not isinstance(branch, Nothing)]
        return others[0] if len(others) == 1 and len(self.branches) == 2 else None

    def read(self, cursor: Cursor, rows: Ints) -> pa.Array:
        """One value per row."""
        chosen = cursor.longs(rows, self.where)
        wrong = (chosen < 0) | (chosen >= len(self.branches))
        if wrong.any():
            cursor.fail(rows[wrong], f"{self.where}: the union has {len(self.branches)} branches, found another number")
            chosen = np.where(wrong, 0, chosen)
        if len(rows) and (chosen == chosen[0]).all():
            return self.branches[chosen[0]].read(cursor, rows)
        found: list[pa.Array] = []
        places = np.zeros(len(rows), np.int64)
        null = np.zeros(len(rows), bool)
        first = 0
        for number, branch in enumerate(self.branches):
            mine = np.flatnonzero(chosen == number)
            values = branch.read(cursor, rows[mine])
            if isinstance(branch, Nothing):
                null[mine] = True
                continue
            found.append(values)
            places[mine] = first + np.arange(len(mine))
            first += len(mine)
        if not found or pa.types.is_null(self.type):
            return pa.nulls(len(rows), self.type)
        return pa.concat_arrays(found).take(pa.array(places, mask=null))


@dataclass(slots=True)
class Record:
    """Fields in the writer's order; `outputs` name what is made of them, in the reader's order.

    An output is the number of a field, or one value for all rows (a default). No output: passed over.
    """

    where: str
    fields: list[Node] = field(default_factory=list)
    outputs: list["int | pa.Array"] = field(default_factory=list)
    type: pa.DataType = field(default_factory=pa.null)
    least: int = 0

    def read(self, cursor: Cursor, rows: Ints) -> pa.Array:
        """One struct per row."""
        count = len(rows)
        if cursor.depth == MOST_DEPTH and count:
            cursor.fail(rows, f"{self.where}: records within records, more than {MOST_DEPTH} deep")
        is_passed_over = pa.types.is_null(self.type)
        if cursor.depth == MOST_DEPTH or (is_passed_over and not count):
            return pa.nulls(count, self.type)
        cursor.depth += 1
        found = [node.read(cursor, rows) for node in self.fields]
        cursor.depth -= 1
        if is_passed_over:
            return pa.nulls(count)
        same = pa.array(np.zeros(count, np.int64))
        columns = [found[output] if isinstance(output, int) else output.take(same) for output in self.outputs]
        return pa.StructArray.from_arrays(columns, fields=list(self.type))


@dataclass(slots=True)
class Items:
    """An array, or a map as an array of entries: blocks of a count and so many items, ended by a count of 0."""

    where: str
    item: Node
    finish: Callable[[pa.Array, pa.Array], pa.Array] | None
    item_type: pa.DataType
    least: int = 1

    def read(self, cursor: Cursor, rows: Ints) -> pa.Array:
        """One list per row."""
        totals = np.zeros(len(rows), np.int64)
        active = np.arange(len(rows))
        blocks: list[pa.Array] = []
        owners: list[Ints] = []
        while len(active):
            counts = self._counts(cursor, rows[active])
            active, counts = active[counts > 0], counts[counts > 0]
            if not len(active):
                break
            if len(blocks) == _MOST_BLOCKS:
                cursor.fail(rows[active], f"{self.where}: more than {_MOST_BLOCKS} blocks of items")
                break
            blocks.append(self._block(cursor, rows[active], counts))
            owners.append(np.repeat(active, counts))
            totals[active] += counts
        if self.finish is None:
            return pa.nulls(len(rows))
        items = _in_order(blocks, owners, self.item_type)
        return self.finish(pa.array(np.concatenate([[0], np.cumsum(totals)]), pa.int32()), items)

    def _counts(self, cursor: Cursor, rows: Ints) -> Ints:
        """Items in each row's next block; 0 at the end, and where the row is bad."""
        counts = cursor.longs(rows, self.where)
        sized = counts < 0
        if sized.any():
            # a negative count comes with the block's size in bytes, for those who jump over it
            cursor.longs(rows[sized], self.where)
            counts = np.where(sized, -counts, counts)
        most = cursor.left(rows) // self.item.least if self.item.least else np.int64(_MOST_EMPTY_ITEMS)
        wrong = (counts > most) | (counts < 0)
        if wrong.any():
            cursor.fail(rows[wrong], f"{self.where}: more items are announced than the record can hold")
        bad = cursor.bad_among(rows)
        return counts if bad is None else np.where(bad, 0, counts)

    def _block(self, cursor: Cursor, rows: Ints, counts: Ints) -> pa.Array:
        """The items of one block of each row, one row after the other."""
        owners = np.repeat(rows, counts)
        item = self.item
        if isinstance(item, Number | Fixed) and item.width:
            places = np.repeat(cursor.places(rows), counts) + steps(counts) * item.width
            cursor.advance(rows, counts * item.width, self.where)
            return item.at(cursor, places, owners)
        if isinstance(item, Number):
            return item.at(cursor, cursor.runs(rows, counts, self.where), owners)
        if isinstance(item, Union):
            found = self._without_null(cursor, item, rows, counts, owners)
            if found is not None:
                return found
        parts: list[pa.Array] = []
        holders: list[Ints] = []
        for step in range(int(counts.max())):
            mine = np.flatnonzero(counts > step)
            parts.append(item.read(cursor, rows[mine]))
            holders.append(mine)
        return _in_order(parts, holders, self.item_type)

    def _without_null(self, cursor: Cursor, item: Union, rows: Ints, counts: Ints, owners: Ints) -> pa.Array | None:
        """Items of a number-or-null that are all numbers (such as vectors); None, nothing moved, when they are not."""
        branch = None if item.only is None else item.branches[item.only]
        if not isinstance(branch, Number) or item.only is None or cursor.bad_among(rows) is not None:
            return None
        mark = np.uint8(2 * item.only)
        before = cursor.places(rows)
        if branch.width:
            stride = 1 + branch.width
            if (counts * stride > cursor.left(rows)).any():
                return None
            places = np.repeat(before, counts) + steps(counts) * stride
            if (cursor.data[places] != mark).any():
                return None
            cursor.at[rows] = before + counts * stride
            return branch.at(cursor, places + 1, owners)
        pairs = cursor.peek_runs(rows, 2 * counts)
        if pairs is None or (cursor.data[pairs[0][::2]] != mark).any():
            return None
        cursor.at[rows] = pairs[1]
        return branch.at(cursor, pairs[0][1::2], owners)


def _in_order(parts: list[pa.Array], owners: list[Ints], kind: pa.DataType) -> pa.Array:
    """Parts put together, ordered by owner, and as they came within an owner."""
    if not parts:
        return pa.array([], kind)
    if len(parts) == 1:
        return parts[0]
    return pa.concat_arrays(parts).take(pa.array(np.argsort(np.concatenate(owners), kind="stable")))
