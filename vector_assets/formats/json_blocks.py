"""Many plain JSON documents at once by pyarrow.json: what it takes is exact, what it does not is left to others.

Documents that begin with `{` and end with `}` are joined by line ends. A line end inside a string is refused, and `}`
before `{` can only stand between two values, so every document holds whole values; as many rows as documents then
mean one object each. Numbers are read strictly into the column's type, so a value of another kind is an error of its
block: it names the row, or the block is halved until the row is alone. A column that holds another kind of scalar in
many documents (`"12"` for 12) is read as that kind, in a group of those documents.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pa_json

from vector_assets.engine.schema import LogicalType
from vector_assets.formats.grammar import Mask, as_mask, byte_view, not_utf8, only, rune, without
from vector_assets.formats.json_exact import MOST_NESTED
from vector_assets.formats.json_native import Moments, NativeReader, Reading
from vector_assets.formats.json_values import INTEGERS, TEXTS, read_texts
from vector_assets.formats.text_values import Parsed, either, owners_of

_KIND_CHANGE = re.compile(r"Column\(/([^/]*)\) changed from \w+ to (\w+) in row ")
_ROW = re.compile(r" in row (\d+)\Z")
_NUMBER = re.compile(r"(?:couldn't parse:|decimal128\(\d+, \d+\): )(-?[0-9][0-9.eE+-]*)")
_LEAST_BLOCK = 512
_MOST_BLOCK = 8192
"""Documents parsed at once: a block that fails costs no more than this. Clean records take 5 % less than in half of it,
and 1 in 10,000 bad ones no more; in twice of it they take a tenth more."""
_FEW = 4
_OFTEN = 50
"""A kind of scalar in one of this many documents gets a group of its own."""
_MOST_WASTED = 2
"""When blocks that failed held this many times a group's documents, the rest is left to the exact reader."""
_FAILURE_COST = 200
"""What a failed block costs beside its documents, in documents."""
_PLAIN_INTEGER = r"(?:0|-?[1-9]\d{0,17})\s*[,}]"
_FIRST_CHARS = {"string": '"', "number": "[-0-9]", "boolean": "[tf]", "object": r"\{", "array": r"\[", "null": "n"}
_NO_NUMBER = r"[:,\[]\s*-?(?:NaN|Inf)"

Places = npt.NDArray[np.int64]
Readings = Mapping[str, pa.DataType]


@dataclass(frozen=True, slots=True)
class Part:
    """Typed columns of the documents at these places, in order."""

    columns: list[pa.Array]
    places: Places


@dataclass(slots=True)
class _Group:
    """Documents read with the same types; `rare`: columns and kinds not worth a group."""

    documents: pa.Array
    places: Places
    readings: Readings
    rare: set[tuple[str | Any, ...]] = field(default_factory=set)


@dataclass(slots=True)
class _Work:
    parts: list[Part] = field(default_factory=list)
    odd: list[Places] = field(default_factory=list)
    groups: list[_Group] = field(default_factory=list)


class BlockReader:
    """Reads plain documents into columns without a MAP."""

    def __init__(self, columns: tuple[tuple[str, LogicalType], ...], *, iso: bool, nulls_are_odd: bool) -> None:
        self._columns = columns
        self._kinds = dict(columns)
        self._iso = iso
        self._nulls_are_odd = nulls_are_odd
        self._usual = {name: _reading(kind) for name, kind in columns}
        self._native = NativeReader([(name, _native_reading(kind, iso=iso)) for name, kind in columns], strict=False)

    def read(self, documents: pa.Array) -> tuple[list[Part], Places]:
        """The parts that could be read, and the places of the documents for the exact reader, all in order."""
        work, left = _Work(), np.arange(len(documents))
        if self._native.is_due(len(documents)):
            table, taken, left = self._native.read(documents)
            self._finish(table, taken, work)
            documents = documents.take(pa.array(left))
        if len(left):
            self._read_plain(documents, left, work)
        return work.parts, np.sort(np.concatenate([np.zeros(0, np.int64), *work.odd]))

    def _read_plain(self, documents: pa.Array, places: Places, work: _Work) -> None:
        plain = plain_documents(documents)
        kept = documents if plain.all() else without(documents, ~plain)
        work.odd.append(places[~plain])
        work.groups.append(_Group(kept, places[plain], self._usual))
        while work.groups:
            self._read_group(work.groups.pop(), work)

    def _read_group(self, group: _Group, work: _Work) -> None:
        start, wasted, refused = 0, 0, -1
        size, count = _MOST_BLOCK, len(group.documents)
        while start < count:
            if wasted > _MOST_WASTED * count:
                work.odd.append(group.places[start:])
                return
            if start == refused:
                work.odd.append(group.places[start : start + 1])
                start += 1
                continue
            block = group.documents.slice(start, min(size, refused - start) if refused > start else size)
            try:
                table = parse_block(block, pa.schema(list(group.readings.items())), "ignore")
            except pa.ArrowInvalid as error:
                if self._split(group, start, str(error), work):
                    return
                row = refused_row(str(error), block)
                wasted += _FAILURE_COST + (len(block) if row is None else row)
                if row is not None or len(block) == 1:
                    refused = start + (row or 0)
                    size = min(max(2 * (row or 0), _LEAST_BLOCK), _MOST_BLOCK)
                else:
                    size = len(block) // 2
                continue
            self._finish(table, group.places[start : start + len(block)], work)
            start, size = start + len(block), min(max(2 * size, _LEAST_BLOCK), _MOST_BLOCK)

    def _split(self, group: _Group, start: int, message: str, work: _Work) -> bool:
        """Part the rest of the group by the kind of one column, where that kind is frequent; true if it was done."""
        change = _KIND_CHANGE.search(message)
        if change is None or change.groups() in group.rare or change[1] not in self._kinds:
            return False
        name, found = change.groups()
        rest, places = group.documents.slice(start), group.places[start:]
        for value, reading in _other_kinds(self._kinds[name], found):
            pattern = f'"{"".join(map(rune, name))}"\\s*:\\s*{value}'
            is_other = as_mask(pc.match_substring_regex(rest, pattern))
            if is_other.sum() * _OFTEN < len(rest) or group.readings[name] == reading:
                continue
            if reading is None:
                work.odd.append(places[is_other])
            else:
                readings = {**group.readings, name: reading}
                work.groups.append(_Group(rest.filter(pa.array(is_other)), places[is_other], readings))
            usual = rest.filter(pa.array(~is_other))
            work.groups.append(_Group(usual, places[~is_other], group.readings, group.rare))
            return True
        group.rare.add((name, found))
        return False

    def _finish(self, table: pa.Table, places: Places, work: _Work) -> None:
        """Keep the rows whose values all fit."""
        parsed = [self._typed(_one_array(table.column(name)), kind) for name, kind in self._columns]
        bad: Mask | None = None
        for column in parsed:
            bad = either(bad, column.bad)
        arrays = [column.values for column in parsed]
        if bad is None or not bad.any():
            work.parts.append(Part(arrays, places))
            return
        work.odd.append(places[bad])
        work.parts.append(Part([without(array, bad) for array in arrays], places[~bad]))

    def _typed(self, array: pa.Array, kind: LogicalType) -> Parsed:
        reader = {"ROW": self._row, "ARRAY": self._list}.get(kind.name, self._simple)
        parsed = reader(array, kind)
        if (kind.nullable and not self._nulls_are_odd) or not parsed.values.null_count:
            return parsed
        return Parsed(parsed.values, either(parsed.bad, as_mask(parsed.values.is_null())))

    def _simple(self, array: pa.Array, kind: LogicalType) -> Parsed:
        if kind.name in TEXTS:
            return Parsed(array if array.type == pa.string() else array.cast(pa.string()))
        if array.type == pa.string():
            return read_texts(array, kind, iso=self._iso, lenient=False)
        fits = _in_range(array, kind)
        if fits is None or pc.all(fits).as_py() is not False:
            return Parsed(array.cast(kind.arrow))
        return Parsed(only(fits, array).cast(kind.arrow), as_mask(pc.invert(fits)))

    def _row(self, array: pa.Array, kind: LogicalType) -> Parsed:
        null = as_mask(array.is_null())
        inner = [self._typed(values, child) for values, child in zip(array.flatten(), kind.children, strict=True)]
        bad: Mask | None = None
        for child in inner:
            bad = either(bad, None if child.bad is None else child.bad & ~null)
        values = [child.values for child in inner]
        return Parsed(pa.StructArray.from_arrays(values, fields=list(kind.arrow), mask=pa.array(null)), bad)

    def _list(self, array: pa.Array, kind: LogicalType) -> Parsed:
        inner = self._typed(array.flatten(), kind.children[0])
        lengths = np.asarray(pc.fill_null(pc.list_value_length(array), 0), np.int64)
        bounds = np.concatenate([[0], np.cumsum(lengths)])
        null = pa.array(as_mask(array.is_null()))
        values = pa.ListArray.from_arrays(pa.array(bounds, pa.int32()), inner.values, kind.arrow, mask=null)
        return Parsed(values, owners_of(inner.bad, bounds))


def plain_documents(documents: pa.Array) -> Mask:
    """Documents that may be joined: `{`...`}`, UTF-8, no NUL, no NaN, not nested deeply."""
    texts = documents.view(pa.string())
    data, bounds = byte_view(documents)
    plain = _braced(data, bounds)
    if not plain.all():
        spaced = pc.and_(
            pc.match_substring_regex(texts, r"\A[ \t\r\n]*\{"), pc.match_substring_regex(texts, r"\}[ \t\r\n]*\z")
        )
        plain = as_mask(spaced)
    plain[not_utf8(texts, 0)] = False
    blob = data[bounds[0] : bounds[-1]].tobytes()
    if b"\0" in blob:
        plain &= ~as_mask(pc.match_substring(texts, "\0"))
    # one byte is looked for at the speed of memory, three are not
    if (b"N" in blob and b"NaN" in blob) or (b"I" in blob and b"Inf" in blob):
        plain &= ~as_mask(pc.match_substring_regex(texts, _NO_NUMBER))
    if len(bounds) > 1 and int(np.diff(bounds).max()) > 2 * MOST_NESTED:
        # `[` and `{` differ in one bit; counting substrings of every text took a third of a format of envelopes
        opened = np.flatnonzero((data[bounds[0] : bounds[-1]] | 0x20) == ord("{")) + bounds[0]
        plain &= np.diff(np.searchsorted(opened, bounds)) <= MOST_NESTED
    return plain


def _braced(data: npt.NDArray[np.uint8], bounds: npt.NDArray[np.int32]) -> Mask:
    """Values whose first byte is `{` and whose last byte is `}`."""
    filled = np.diff(bounds) > 0
    if not filled.all():
        return np.zeros(len(filled), bool)
    braced: Mask = (data[bounds[:-1]] == ord("{")) & (data[bounds[1:] - 1] == ord("}"))
    return braced


def parse_block(block: pa.Array, wanted: pa.Schema, others: Literal["ignore", "infer"]) -> pa.Table:
    """The rows of plain documents; members that are not wanted are ignored, or make columns of their own.

    Raises:
        pa.ArrowInvalid: a document is no JSON, a value is of another kind or does not fit, or the rows do not add up.
    """
    lines = pc.binary_join_element_wise(block, b"", b"\n")
    data, bounds = byte_view(lines)
    end = int(bounds[-1])
    table = pa_json.read_json(
        pa.BufferReader(pa.py_buffer(data[:end])),
        read_options=pa_json.ReadOptions(use_threads=False, block_size=end + 1),
        parse_options=pa_json.ParseOptions(explicit_schema=wanted, unexpected_field_behavior=others),
    )
    if table.num_rows != len(block):
        raise pa.ArrowInvalid(f"found {table.num_rows} objects, wanted {len(block)}")
    return table


def refused_row(message: str, block: pa.Array) -> int | None:
    """The row that the error names, or the first of the few that hold the number which it names."""
    named = _ROW.search(message)
    if named:
        return int(named[1]) if int(named[1]) < len(block) else None
    number = _NUMBER.search(message)
    if number is None:
        return None
    holding = np.flatnonzero(as_mask(pc.match_substring(block, number[1])))
    return int(holding[0]) if 0 < len(holding) <= _FEW else None


def _reading(kind: LogicalType) -> pa.DataType:
    """The type that pyarrow.json reads a column into: texts for what it spells differently from Flink."""
    if kind.name == "ROW":
        return pa.struct([(n, _reading(child)) for n, child in zip(kind.child_names, kind.children, strict=True)])
    if kind.name == "ARRAY":
        return pa.list_(_reading(kind.children[0]))
    if kind.name in INTEGERS:
        return pa.int64()
    return kind.arrow if kind.name in {"BOOLEAN", "FLOAT", "DOUBLE", "DECIMAL"} else pa.string()


def _native_reading(kind: LogicalType, *, iso: bool) -> Reading:
    """The same for the compiled loops, which read some timestamps themselves."""
    if kind.name in {"TIMESTAMP", "TIMESTAMP_LTZ"} and kind.arrow.unit != "ns":
        return Moments(kind.arrow, "T" if iso else " ")
    return _reading(kind)


def _other_kinds(kind: LogicalType, found: str) -> list[tuple[str, pa.DataType | None]]:
    """How values of another kind than a column's begin, and the type to read them into; None: the exact reader's.

    The patterns may be wrong about a document: pyarrow finds out, and the exact reader has the last word.
    """
    if kind.name in TEXTS:
        exact: list[tuple[str, pa.DataType | None]] = [(_FIRST_CHARS[found], None)]
        if found == "number":
            return [(_PLAIN_INTEGER, pa.int64()), *exact]
        return [(_FIRST_CHARS[found], pa.bool_())] if found == "boolean" else exact
    is_text_for_typed = found == "string" and pa.types.is_primitive(_reading(kind))
    return [(_FIRST_CHARS[found], pa.string())] if is_text_for_typed else []


def _in_range(array: pa.Array, kind: LogicalType) -> pa.Array | None:
    """Which values the type holds; None: all. A JSON number cannot be infinite, so infinity is out of range."""
    if kind.name in INTEGERS and kind.name != "BIGINT":
        top = 2 ** (INTEGERS[kind.name] - 1)
        return pc.and_(pc.greater_equal(array, -top), pc.less(array, top))
    if kind.name in {"FLOAT", "DOUBLE"}:
        return pc.invert(pc.is_inf(array))
    if kind.name == "DECIMAL":
        scale = kind.scale or 0
        largest = pa.scalar(Decimal(f"{'9' * ((kind.precision or 0) - scale)}.{'9' * scale}"), kind.arrow)
        return pc.less_equal(pc.abs(array), largest)
    return None


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def in_order(parts: list[Part], empty: list[pa.Array]) -> Part:
    """One part, by place; `empty` are the columns of no document."""
    filled = [part for part in parts if len(part.places)]
    if len(filled) <= 1:
        return filled[0] if filled else Part(empty, np.empty(0, np.int64))
    places = np.concatenate([part.places for part in filled])
    columns = [pa.concat_arrays([part.columns[i] for part in filled]) for i in range(len(empty))]
    if bool((np.diff(places) > 0).all()):
        return Part(columns, places)
    order = np.argsort(places, kind="stable")
    taken = pa.array(order)
    return Part([column.take(taken) for column in columns], places[order])
