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

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pa_json

from vector_assets.engine.schema import LogicalType
from vector_assets.formats.grammar import Mask, as_mask, byte_view, not_utf8, only, rune, without
from vector_assets.formats.json_exact import MOST_NESTED
from vector_assets.formats.json_values import INTEGERS, TEXTS, read_texts
from vector_assets.formats.text_values import Parsed, either, owners_of

_KIND_CHANGE = re.compile(r"Column\(/([^/]*)\) changed from \w+ to (\w+) in row ")
_ROW = re.compile(r" in row (\d+)\Z")
_LEAST_BLOCK = 512
_FEW_ODD = 64
_MOST_SPLITS = 6
_OFTEN = 50
"""A kind of scalar in one of this many documents gets a group of its own."""
_MANY_ODD = 8
"""More odd documents than one in this many: the rest is left to the exact reader without a trial."""
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
    """Documents read with the same types; `splits` is how often they were parted from others."""

    documents: pa.Array
    places: Places
    readings: Readings
    splits: int = 0


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

    def read(self, documents: pa.Array) -> tuple[list[Part], Places]:
        """The parts that could be read, and the places of the documents for the exact reader, all in order."""
        plain = _plain(documents)
        places = np.flatnonzero(plain)
        kept = documents if len(places) == len(documents) else without(documents, ~plain)
        work = _Work(odd=[np.flatnonzero(~plain)], groups=[_Group(kept, places, self._usual)])
        while work.groups:
            self._read_group(work.groups.pop(), work)
        return work.parts, np.sort(np.concatenate(work.odd))

    def _read_group(self, group: _Group, work: _Work) -> None:
        start, odd = 0, 0
        size = count = len(group.documents)
        while start < count:
            if odd > _FEW_ODD and odd * _MANY_ODD > start:
                work.odd.append(group.places[start:])
                return
            block = group.documents.slice(start, size)
            try:
                table = _parse(block, group.readings)
            except pa.ArrowInvalid as error:
                if self._split(group, start, str(error), work):
                    return
                size = _rows_before(str(error), len(block))
                if not size:
                    work.odd.append(group.places[start : start + 1])
                    start, odd, size = start + 1, odd + 1, _LEAST_BLOCK
                continue
            odd += self._finish(table, group.places[start : start + len(block)], work)
            start, size = start + len(block), max(2 * size, _LEAST_BLOCK)

    def _split(self, group: _Group, start: int, message: str, work: _Work) -> bool:
        """Part the rest of the group by the kind of one column, where that kind is frequent; true if it was done."""
        change = _KIND_CHANGE.search(message)
        if change is None or group.splits >= _MOST_SPLITS or change[1] not in self._kinds:
            return False
        name, found = change[1], change[2]
        reading = _other_reading(self._kinds[name], found)
        if reading is None or group.readings[name] != self._usual[name]:
            return False
        rest, places = group.documents.slice(start), group.places[start:]
        is_other = as_mask(pc.match_substring_regex(rest, _member(name, found)))
        if is_other.sum() * _OFTEN < len(rest):
            return False
        others = _Group(rest.filter(pa.array(is_other)), places[is_other], {**group.readings, name: reading})
        usual = _Group(rest.filter(pa.array(~is_other)), places[~is_other], group.readings)
        others.splits = usual.splits = group.splits + 1
        work.groups += [part for part in (others, usual) if len(part.places)]
        return True

    def _finish(self, table: pa.Table, places: Places, work: _Work) -> int:
        """Keep the rows whose values all fit; the number of the others."""
        parsed = [self._typed(_one_array(table.column(name)), kind) for name, kind in self._columns]
        bad: Mask | None = None
        for column in parsed:
            bad = either(bad, column.bad)
        arrays = [column.values for column in parsed]
        if bad is None or not bad.any():
            work.parts.append(Part(arrays, places))
            return 0
        work.odd.append(places[bad])
        work.parts.append(Part([without(array, bad) for array in arrays], places[~bad]))
        return int(bad.sum())

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


def _plain(documents: pa.Array) -> Mask:
    """Documents that may be joined: `{`...`}`, UTF-8, no NUL, no NaN, not nested deeply."""
    texts = documents.view(pa.string())
    plain = as_mask(pc.match_substring_regex(texts, r"\A[ \t\r\n]*\{")) & as_mask(
        pc.match_substring_regex(texts, r"\}[ \t\r\n]*\z")
    )
    plain[not_utf8(texts, 0)] = False
    data, bounds = byte_view(documents)
    blob = data[bounds[0] : bounds[-1]].tobytes()
    if b"\0" in blob:
        plain &= ~as_mask(pc.match_substring(texts, "\0"))
    if b"NaN" in blob or b"Inf" in blob:
        plain &= ~as_mask(pc.match_substring_regex(texts, _NO_NUMBER))
    if len(bounds) > 1 and int(np.diff(bounds).max()) > 2 * MOST_NESTED:
        opened = pc.add(pc.count_substring(texts, "["), pc.count_substring(texts, "{"))
        plain &= ~as_mask(pc.greater(opened, MOST_NESTED))
    return plain


def _parse(block: pa.Array, readings: Readings) -> pa.Table:
    """The block's rows.

    Raises:
        pa.ArrowInvalid: a document is no JSON, a value is of another kind or does not fit, or the rows do not add up.
    """
    lines = pc.binary_join_element_wise(block, b"", b"\n")
    data, bounds = byte_view(lines)
    end = int(bounds[-1])
    table = pa_json.read_json(
        pa.BufferReader(pa.py_buffer(data[:end])),
        read_options=pa_json.ReadOptions(use_threads=False, block_size=end + 1),
        parse_options=pa_json.ParseOptions(
            explicit_schema=pa.schema(list(readings.items())), unexpected_field_behavior="ignore"
        ),
    )
    if table.num_rows != len(block):
        raise pa.ArrowInvalid(f"found {table.num_rows} objects, wanted {len(block)}")
    return table


def _rows_before(message: str, rows: int) -> int:
    """How many of the block's rows to try next: those before the row that the error names, else half of them."""
    named = _ROW.search(message)
    return int(named[1]) if named and int(named[1]) < rows else rows // 2


def _reading(kind: LogicalType) -> pa.DataType:
    """The type that pyarrow.json reads a column into: texts for what it spells differently from Flink."""
    if kind.name == "ROW":
        return pa.struct([(n, _reading(child)) for n, child in zip(kind.child_names, kind.children, strict=True)])
    if kind.name == "ARRAY":
        return pa.list_(_reading(kind.children[0]))
    if kind.name in INTEGERS:
        return pa.int64()
    return kind.arrow if kind.name in {"BOOLEAN", "FLOAT", "DOUBLE", "DECIMAL"} else pa.string()


def _other_reading(kind: LogicalType, found: str) -> pa.DataType | None:
    """The type for values of a column that are of another kind of scalar; None: the exact reader's."""
    if kind.name in TEXTS:
        return {"number": pa.int64(), "boolean": pa.bool_()}.get(found)
    is_typed = kind.name in INTEGERS or kind.name in {"BOOLEAN", "FLOAT", "DOUBLE", "DECIMAL"}
    return pa.string() if is_typed and found == "string" else None


def _member(name: str, found: str) -> str:
    """Pattern of documents that seem to hold such a member; pyarrow finds out when they do not."""
    value = {"string": '"', "number": r"(?:0|-?[1-9]\d*)\s*[,}]", "boolean": "[tf]"}[found]
    return f'"{"".join(map(rune, name))}"\\s*:\\s*{value}'


def _in_range(array: pa.Array, kind: LogicalType) -> pa.Array | None:
    """Which values the type holds; None: all. A JSON number cannot be infinite, so infinity is out of range."""
    if kind.name in INTEGERS and kind.name != "BIGINT":
        top = 2 ** (INTEGERS[kind.name] - 1)
        return pc.and_(pc.greater_equal(array, -top), pc.less(array, top))
    if kind.name in {"FLOAT", "DOUBLE"}:
        return pc.invert(pc.is_inf(array))
    if kind.name == "DECIMAL":
        precision, scale = kind.precision or 0, kind.scale or 0
        largest = pa.scalar(Decimal(10**precision - 1).scaleb(-scale), kind.arrow)
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
