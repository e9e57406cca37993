"""The tunnel's record stream to Arrow rows: every checksum, the count and the types are checked."""

import struct
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa
from crc32c import crc32c

from vector_assets.clients.maxcompute_records import (
    CHECKSUM,
    COUNT,
    END_METRICS,
    END_RECORD,
    INTEGERS,
    LENGTH,
    STAMPS,
    TEXTS,
    VARINT,
    wire_of,
)
from vector_assets.local.maxcompute.refusal import Refusal
from vector_assets.local.maxcompute.types import Type

_NANOS = 1_000_000_000
_Q = struct.Struct("<q").pack
_QI = struct.Struct("<qi").pack
_I = struct.Struct("<i").pack
_WORD = 0xFFFFFFFF

Read = Callable[[bytes, int, bytearray], tuple[Any, int]]
"""Takes the stream, a place in it and what the checksum covers so far; gives the value and the next place."""


def decode(stream: bytes, names: Sequence[str], kinds: Sequence[Type]) -> pa.Table:
    """The rows of a record stream.

    Raises:
        Refusal: it is cut short, a checksum is wrong, or a value is none of its column's type.
    """
    try:
        columns, count = _read(stream, kinds)
    except (IndexError, struct.error) as error:
        raise _bad("the record stream ends too early") from error
    except UnicodeDecodeError as error:
        raise _bad(f"a text is no UTF-8: {error.reason}") from error
    arrays = []
    for name, kind, column in zip(names, kinds, columns, strict=True):
        column += [None] * (count - len(column))
        try:
            arrays.append(pa.array(column, _raw(kind.arrow)).cast(kind.arrow))
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, ValueError) as error:
            raise _bad(f"column {name}, {kind}: {error}") from error
    return pa.table(arrays, pa.schema([(name, kind.arrow) for name, kind in zip(names, kinds, strict=True)]))


def _read(stream: bytes, kinds: Sequence[Type]) -> tuple[list[list[Any]], int]:
    fields = {(number << 3 | wire_of(kind)): (number, reader_of(kind)) for number, kind in enumerate(kinds, start=1)}
    columns: list[list[Any]] = [[] for _ in kinds]
    summed = bytearray()
    at, count, overall = 0, 0, 0
    end_record, end_count = END_RECORD << 3 | VARINT, COUNT << 3 | VARINT
    while True:
        tag, at = read_varint(stream, at)
        found = fields.get(tag)
        if found:
            number, read = found
            summed += _I(number)
            value, at = read(stream, at, summed)
            column = columns[number - 1]
            if len(column) < count:
                column.extend([None] * (count - len(column)))
            column.append(value)
        elif tag == end_record:
            given, at = read_varint(stream, at)
            checksum = crc32c(summed)
            if checksum != given & _WORD:
                raise _bad(f"record {count}: the checksum is {given & _WORD:#x}, the values have {checksum:#x}")
            overall = crc32c(checksum.to_bytes(4, "little"), overall)
            summed.clear()
            count += 1
        elif tag == end_count:
            _check_end(stream, at, count, overall)
            return columns, count
        else:
            raise _bad(f"record {count} has field {tag >> 3} of wire type {tag & 7}, which no column is")


def _check_end(stream: bytes, at: int, count: int, overall: int) -> None:
    given, at = read_varint(stream, at)
    if _unzigzag(given) != count:
        raise _bad(f"the stream says {_unzigzag(given)} records, it has {count}")
    tag, at = read_varint(stream, at)
    if tag == END_METRICS << 3 | LENGTH:
        length, at = read_varint(stream, at)
        tag, at = read_varint(stream, at + length)
    if tag != CHECKSUM << 3 | VARINT:
        raise _bad("the stream has no checksum at its end")
    given, at = read_varint(stream, at)
    if given & _WORD != overall:
        raise _bad("the checksum of the stream is wrong")


def read_varint(stream: bytes, at: int) -> tuple[int, int]:
    """An unsigned varint and the place after it."""
    byte = stream[at]
    if byte < 0x80:
        return byte, at + 1
    value, shift = byte & 0x7F, 7
    while True:
        at += 1
        byte = stream[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + 1
        shift += 7


def reader_of(kind: Type) -> Read:
    """Reads one value."""
    name = kind.name
    if name in INTEGERS or name in {"date", "datetime"}:
        return _read_number
    if name == "boolean":
        return _read_flag
    if name in {"float", "double"}:
        return _float_reader("<f" if name == "float" else "<d")
    if name in STAMPS:
        return _read_stamp
    if name == "decimal":
        return _read_decimal
    if name in TEXTS:
        return _read_bytes if name == "binary" else _read_text
    if name == "struct":
        return _struct_reader(kind)
    if name == "map":
        return _map_reader(kind)
    return _list_reader(kind.fields[0][1])


def _unzigzag(value: int) -> int:
    return value >> 1 if not value & 1 else -(value + 1 >> 1)


def _read_number(stream: bytes, at: int, summed: bytearray) -> tuple[int, int]:
    raw, at = read_varint(stream, at)
    value = _unzigzag(raw)
    summed += _Q(value)
    return value, at


def _read_flag(stream: bytes, at: int, summed: bytearray) -> tuple[bool, int]:
    summed.append(stream[at])
    return bool(stream[at]), at + 1


def _float_reader(form: str) -> Read:
    packed = struct.Struct(form)

    def read(stream: bytes, at: int, summed: bytearray) -> tuple[float, int]:
        end = at + packed.size
        summed += stream[at:end]
        return packed.unpack_from(stream, at)[0], end

    return read


def _read_stamp(stream: bytes, at: int, summed: bytearray) -> tuple[int, int]:
    seconds, at = read_varint(stream, at)
    nanos, at = read_varint(stream, at)
    seconds, nanos = _unzigzag(seconds), _unzigzag(nanos)
    summed += _QI(seconds, nanos)
    return seconds * _NANOS + nanos, at


def _read_bytes(stream: bytes, at: int, summed: bytearray) -> tuple[bytes, int]:
    length, at = read_varint(stream, at)
    end = at + length
    if end > len(stream):
        raise IndexError(end)
    text = stream[at:end]
    summed += text
    return text, end


def _read_text(stream: bytes, at: int, summed: bytearray) -> tuple[str, int]:
    text, at = _read_bytes(stream, at, summed)
    return text.decode(), at


def _read_decimal(stream: bytes, at: int, summed: bytearray) -> tuple[Decimal, int]:
    text, at = _read_bytes(stream, at, summed)
    try:
        return Decimal(text.decode()), at
    except ArithmeticError as error:
        raise _bad(f"{text[:40]!r} is no decimal") from error


def _list_reader(inner: Type) -> Read:
    read = reader_of(inner)

    def read_list(stream: bytes, at: int, summed: bytearray) -> tuple[list[Any], int]:
        count, at = read_varint(stream, at)
        values: list[Any] = []
        for _ in range(count):
            if stream[at]:
                values.append(None)
                at += 1
            else:
                value, at = read(stream, at + 1, summed)
                values.append(value)
        return values, at

    return read_list


def _map_reader(kind: Type) -> Read:
    keys, values = (_list_reader(inner) for _, inner in kind.fields)

    def read_map(stream: bytes, at: int, summed: bytearray) -> tuple[list[tuple[Any, Any]], int]:
        found, at = keys(stream, at, summed)
        with_them, at = values(stream, at, summed)
        if len(found) != len(with_them):
            raise _bad(f"a map has {len(found)} keys and {len(with_them)} values")
        return list(zip(found, with_them, strict=True)), at

    return read_map


def _struct_reader(kind: Type) -> Read:
    readers = [(name, reader_of(inner)) for name, inner in kind.fields]

    def read_struct(stream: bytes, at: int, summed: bytearray) -> tuple[dict[str, Any], int]:
        fields: dict[str, Any] = {}
        for name, read in readers:
            is_null = stream[at]
            at += 1
            fields[name] = None
            if not is_null:
                fields[name], at = read(stream, at, summed)
        return fields, at

    return read_struct


def _raw(kind: pa.DataType) -> pa.DataType:
    """The Arrow type of values as they were read: dates and times are numbers."""
    if pa.types.is_timestamp(kind):
        return pa.int64()
    if pa.types.is_date(kind):
        return pa.int32()
    if pa.types.is_map(kind):
        return pa.map_(_raw(kind.key_type), _raw(kind.item_type))
    if pa.types.is_list(kind):
        return pa.list_(_raw(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _raw(field.type)) for field in kind])
    return kind


def _bad(message: str) -> Refusal:
    return Refusal(400, "DataFormatError", message)
