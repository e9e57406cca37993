"""Row images of the binlog to Arrow: a walk that finds the cells of every row, then one decoding per column.

Formats: MySQL's `Field::pack` and `my_time_*_to_binary`. Natural types: whole numbers int64 or uint64, text string,
DATE date32, TIME duration, DATETIME timestamp, TIMESTAMP timestamp of UTC, DECIMAL decimal128 (text beyond 38 digits),
BIT and geometry binary, ENUM, SET and JSON string. A date with zeros in it (or one that does not exist) is null and
counted.
"""

import decimal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pymysqlreplication.constants import FIELD_TYPE as T

from vector_assets.clients.mysql_cells import Bytes, Ints, array, big, gather, little
from vector_assets.clients.mysql_json import text_of
from vector_assets.engine.errors import PlanError

_INTS = {T.TINY: 1, T.SHORT: 2, T.INT24: 3, T.LONG: 4, T.LONGLONG: 8}
_DIGIT_BYTES = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)
_OLD_TIMES = {T.DATETIME: 8, T.TIME: 3, T.TIMESTAMP: 4}
_WKB_AT = 4
"""Geometry is the number of its reference system (4 bytes), then WKB."""
_WIDTHS = {"utf8mb4": 4, "utf8mb3": 3, "utf8": 3, "ucs2": 2, "utf16": 4, "utf16le": 4, "utf32": 4, "gbk": 2,
           "gb2312": 2, "gb18030": 4, "big5": 2, "sjis": 2, "cp932": 2, "ujis": 3, "eucjpms": 3,
           "euckr": 2}  # fmt: skip
_UTF8 = frozenset({"utf8", "utf8mb3", "utf8mb4", "ascii"})


@dataclass(frozen=True, slots=True)
class Field:
    """A column of a binlog's table map: `size` is the bytes of a fixed value, minus the bytes of a length otherwise.

    `length` are the most bytes of a text, `width` those of a character.
    """

    name: str
    type: int
    size: int
    is_unsigned: bool = False
    charset: str | None = None
    precision: int = 0
    scale: int = 0
    members: tuple[str, ...] = ()
    length: int = 0
    width: int = 1

    @classmethod
    def of(cls, column: Any) -> "Field":
        """The field of the library's column.

        Raises:
            PlanError: its type cannot be read.
        """
        kind, known = column.type, vars(column)
        members = known.get("enum_values") or known.get("set_values") or ()
        return cls(
            name=column.name, type=kind, size=_size(column), is_unsigned=bool(column.unsigned),
            charset=known.get("character_set_name"),
            precision=known.get("precision", known.get("bits", known.get("fsp", 0))), scale=known.get("decimals", 0),
            members=tuple(members), length=known.get("max_length", 0), width=_width(column.collation_name or ""),
        )  # fmt: skip

    @property
    def is_binary(self) -> bool:
        """True of text without a character set."""
        return self.charset == "binary"


def _width(collation: str) -> int:
    """Most bytes of a character; collations that the library does not know (uca1400) are of utf8mb4."""
    charset = collation.partition("_")[0]
    return _WIDTHS.get(charset, 1) if charset else 4


def _size(column: Any) -> int:
    kind = column.type
    if kind in _INTS:
        return int(_INTS[kind])
    if kind in {T.VARCHAR, T.STRING}:
        return -2 if column.max_length > 255 else -1
    if kind in {T.BLOB, T.GEOMETRY, T.JSON}:
        return -int(column.length_size)
    if kind in {T.ENUM, T.SET}:
        return int(column.size)
    if kind == T.NEWDECIMAL:
        whole, part = column.precision - column.decimals, column.decimals
        return int(4 * (whole // 9 + part // 9) + _DIGIT_BYTES[whole % 9] + _DIGIT_BYTES[part % 9])
    fixed = {
        T.FLOAT: 4, T.DOUBLE: 8, T.YEAR: 1, T.DATE: 3, T.NEWDATE: 3, **_OLD_TIMES,
        T.BIT: getattr(column, "bytes", 0),
        T.TIME2: 3 + (getattr(column, "fsp", 0) + 1) // 2,
        T.DATETIME2: 5 + (getattr(column, "fsp", 0) + 1) // 2,
        T.TIMESTAMP2: 4 + (getattr(column, "fsp", 0) + 1) // 2,
    }  # fmt: skip
    if kind not in fixed:
        raise PlanError(
            f"column {column.name}: the binlog has it as type {kind}, which cannot be read (a compressed column?)"
        )
    return int(fixed[kind])


Layout = tuple[Field, ...]


def walk(data: bytes, sizes: Sequence[int]) -> list[int]:
    """Positions of all cells of all row images in `data`, row by row; -1 is NULL.

    The position of a value with a length is that of the length.
    """
    found: list[int] = []
    add, number = found.append, int.from_bytes
    at, end, width, mask = 0, len(data), (len(sizes) + 7) // 8, (1 << len(sizes)) - 1
    while at < end:
        nulls = number(data[at : at + width], "little") & mask
        at += width
        for size in sizes:
            if nulls & 1:
                add(-1)
            else:
                add(at)
                if size > 0:
                    at += size
                elif size == -1:
                    at += data[at] + 1
                else:
                    at += number(data[at : at - size], "little") - size
            nulls >>= 1
    return found


def decode(field: Field, data: Bytes, at: Ints) -> tuple[Any, int]:
    """The column's values in its natural type, and how many dates of it were nulled."""
    if field.type in _INTS:
        return _whole(field, data, at), 0
    if field.type in {T.DATE, T.NEWDATE, T.DATETIME2, T.TIMESTAMP2}:
        return _dates(field, data, at)
    return _DECODERS[field.type](field, data, at), 0


def _whole(field: Field, data: Bytes, at: Ints) -> Any:
    bits = 8 * field.size
    values = little(data, at, field.size)
    if field.is_unsigned:
        return array(values, at, pa.uint64())
    shift = np.int64(64 - bits)
    return array((values.astype(np.int64) << shift) >> shift, at, pa.int64())


def _float(field: Field, data: Bytes, at: Ints) -> Any:
    values = little(data, at, field.size)
    if field.size == 4:
        return array(values.astype(np.uint32), at, pa.float32())
    return array(values, at, pa.float64())


def _year(field: Field, data: Bytes, at: Ints) -> Any:
    values = little(data, at, 1).astype(np.int64)
    return array(np.where(values == 0, 0, values + 1900), at, pa.int64())


def _bytes(field: Field, data: Bytes, at: Ints) -> Any:
    size = -field.size
    return gather(data, np.where(at >= 0, at + size, -1), little(data, at, size).astype(np.int64))


def _text(field: Field, data: Bytes, at: Ints) -> Any:
    found = _bytes(field, data, at)
    if field.is_binary:
        # the binlog leaves out the zeros at the end of BINARY(n)
        is_padded = field.type == T.STRING and field.length
        return pc.binary_join_element_wise(found, _zeros(found, field.length), b"") if is_padded else found
    if field.charset in _UTF8:
        return _as_text(field, found)
    try:
        return pa.array([None if v is None else v.decode(field.charset) for v in found.to_pylist()], pa.string())
    except (UnicodeDecodeError, LookupError) as error:
        raise PlanError(f"column {field.name}: cannot be read as {field.charset}: {error}") from error


def _as_text(field: Field, found: Any) -> Any:
    try:
        return found.cast(pa.string())
    except pa.ArrowInvalid as error:
        raise PlanError(f"column {field.name}: a value is not valid {field.charset}") from error


def _zeros(found: Any, length: int) -> Any:
    missing = np.maximum(length - np.asarray(pc.binary_length(found).fill_null(length)), 0).astype(np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(missing)]).astype(np.int32)
    return pa.Array.from_buffers(
        pa.binary(), len(found), [None, pa.py_buffer(offsets), pa.py_buffer(bytes(int(offsets[-1])))]
    )


def _blob(field: Field, data: Bytes, at: Ints) -> Any:
    return _text(field, data, at)


def _geometry(field: Field, data: Bytes, at: Ints) -> Any:
    size = -field.size
    return gather(data, np.where(at >= 0, at + size + _WKB_AT, -1), little(data, at, size).astype(np.int64) - _WKB_AT)


def _json(field: Field, data: Bytes, at: Ints) -> Any:
    texts = [None if value is None else text_of(value) for value in _bytes(field, data, at).to_pylist()]
    return pa.array(texts, pa.string())


def _bit(field: Field, data: Bytes, at: Ints) -> Any:
    return gather(data, at, np.full(len(at), field.size))


def _enum(field: Field, data: Bytes, at: Ints) -> Any:
    numbers = array(little(data, at, field.size), at, pa.uint64())
    return pa.array(field.members, pa.string()).take(numbers)


def _set(field: Field, data: Bytes, at: Ints) -> Any:
    numbers = array(little(data, at, field.size), at, pa.uint64()).dictionary_encode()
    texts = [
        ",".join(name for bit, name in enumerate(field.members) if value >> bit & 1)
        for value in numbers.dictionary.to_pylist()
    ]
    return pa.array(texts, pa.string()).take(numbers.indices)


def _decimal(field: Field, data: Bytes, at: Ints) -> Any:
    """Groups of up to 9 digits, big-endian; the first bit is the sign, all bits of a negative number are flipped."""
    whole, part = field.precision - field.scale, field.scale
    groups = [whole % 9, *[9] * (whole // 9), *[9] * (part // 9), part % 9]
    is_negative = (data[np.maximum(at, 0)] & 0x80) == 0
    is_wide = field.precision > 18
    total: Any = np.zeros(len(at), object if is_wide else np.int64)
    here = at
    for number, digits in enumerate(digits for digits in groups if digits):
        size = _DIGIT_BYTES[digits]
        value = big(data, here, size)
        if number == 0:
            value ^= 1 << (8 * size - 1)
        value = np.where(is_negative, value ^ ((1 << 8 * size) - 1), value)
        total = total * 10**digits + (value.astype(object) if is_wide else value)
        here = np.where(here >= 0, here + size, -1)
    total = np.where(is_negative & (at >= 0), -total, total)
    if not is_wide:
        pairs = np.stack([total, total >> 63], axis=1)
        return array(pairs, at, pa.decimal128(field.precision, field.scale))
    with decimal.localcontext(prec=70):
        exact = [
            None if p < 0 else decimal.Decimal(int(v)).scaleb(-field.scale) for v, p in zip(total, at, strict=True)
        ]
    if field.precision > 38:
        return pa.array([None if each is None else format(each, "f") for each in exact], pa.string())
    return pa.array(exact, pa.decimal128(field.precision, field.scale))


def _fraction(field: Field, data: Bytes, at: Ints, offset: int) -> Ints:
    """Microseconds that stand behind `offset` bytes."""
    size = (field.precision + 1) // 2
    raw = big(data, np.where(at >= 0, at + offset, -1), size)
    return raw * 100 ** (3 - size) if size else raw


def _time(field: Field, data: Bytes, at: Ints) -> Any:
    size = (field.precision + 1) // 2
    packed = big(data, at, 3 + size) - (1 << (8 * (3 + size) - 1))
    is_negative = packed < 0
    packed = np.abs(packed)
    seconds, micros = packed >> 8 * size, packed & ((1 << 8 * size) - 1)
    total = (seconds >> 12 & 0x3FF) * 3600 + (seconds >> 6 & 63) * 60 + (seconds & 63)
    value = total * 1_000_000 + micros * 100 ** (3 - size)
    return array(np.where(is_negative, -value, value), at, pa.duration("us"))


def _dates(field: Field, data: Bytes, at: Ints) -> tuple[Any, int]:
    if field.type == T.TIMESTAMP2:
        seconds = big(data, at, 4)
        is_zero = (seconds == 0) & (at >= 0)
        kept = np.where(is_zero, -1, at)
        micros = seconds * 1_000_000 + _fraction(field, data, at, 4)
        return array(micros, kept, pa.timestamp("us", "UTC")), int(is_zero.sum())
    if field.type in {T.DATE, T.NEWDATE}:
        value = little(data, at, 3).astype(np.int64)
        days, is_zero = _days(value >> 9, value >> 5 & 15, value & 31, at)
        return array(days.astype(np.int32), np.where(is_zero, -1, at), pa.date32()), int(is_zero.sum())
    value = big(data, at, 5) - (1 << 39)
    month = value >> 22
    days, is_zero = _days(month // 13, month % 13, value >> 17 & 31, at)
    seconds = days * 86400 + (value >> 12 & 31) * 3600 + (value >> 6 & 63) * 60 + (value & 63)
    micros = seconds * 1_000_000 + _fraction(field, data, at, 5)
    return array(micros, np.where(is_zero, -1, at), pa.timestamp("us")), int(is_zero.sum())


def _days(year: Ints, month: Ints, day: Ints, at: Ints) -> tuple[Ints, Any]:
    """Days since 1970, and where there is no such day (NULL is not among them)."""
    months = (year - 1970) * 12 + month - 1
    first = months.astype("M8[M]").astype("M8[D]")
    days = first + (day - 1)
    is_wrong = (year == 0) | (month == 0) | (day == 0) | (days.astype("M8[M]").astype(np.int64) != months)
    return days.astype(np.int64), is_wrong & (at >= 0)


def _old(field: Field, data: Bytes, at: Ints) -> Any:
    raise PlanError(
        f"column {field.name}: it is kept in the format of times before MySQL 5.6; rebuild the"
        f" table (ALTER TABLE ... FORCE)"
    )


_DECODERS: dict[int, Callable[[Field, Bytes, Ints], Any]] = {
    T.FLOAT: _float, T.DOUBLE: _float, T.YEAR: _year, T.VARCHAR: _text, T.STRING: _text, T.BLOB: _blob,
    T.GEOMETRY: _geometry, T.JSON: _json, T.BIT: _bit, T.ENUM: _enum, T.SET: _set, T.NEWDECIMAL: _decimal,
    T.TIME2: _time, **dict.fromkeys(_OLD_TIMES, _old),
}  # fmt: skip
