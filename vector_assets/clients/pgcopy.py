"""Arrow columns to PostgreSQL's binary forms: COPY rows, arrays of records, arrays of keys. Vectorised.

A column becomes a `Field`: the size of every value (-1 is null) and its bytes, cut into pieces that are either of one
width (a matrix) or of many (Arrow binary). Rows are the fields' pieces joined by Arrow, so no row is touched by Python.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[Any]
Piece: TypeAlias = Bytes | pa.LargeBinaryArray

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"

_EPOCH_US = 946_684_800_000_000
_EPOCH_DAYS = 10_957
"""PostgreSQL counts from 2000-01-01, Arrow from 1970-01-01."""


@dataclass(frozen=True, slots=True)
class Wire:
    """A type as it travels: a base type's name, or for arrays the type and oid of the elements."""

    name: str
    element: "Wire | None" = None
    element_oid: int = 0

    @property
    def arrow(self) -> pa.DataType:
        """The Arrow type that `encode` takes; decimals may have any precision and scale."""
        return pa.list_(self.element.arrow) if self.element else _ARROW[self.name]


_ARROW: dict[str, pa.DataType] = {
    "bool": pa.bool_(),
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "float4": pa.float32(),
    "float8": pa.float64(),
    "numeric": pa.decimal128(38, 0),
    "text": pa.large_binary(),
    "bytea": pa.large_binary(),
    "json": pa.large_binary(),
    "jsonb": pa.large_binary(),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
    "uuid": pa.binary(16),
    "vector": pa.list_(pa.float32()),
    "halfvec": pa.list_(pa.float32()),
}
WIRES = frozenset(_ARROW)
"""Names of the base types that can be encoded."""


@dataclass(frozen=True, slots=True)
class Field:
    """One column in binary form: `sizes` in bytes, -1 for null, and the pieces of the values in order."""

    sizes: npt.NDArray[np.int32]
    pieces: tuple[Piece, ...]


def encode(column: pa.Array | pa.ChunkedArray, wire: Wire) -> Field:
    """A column of the Arrow type `wire.arrow` in binary form."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if wire.element:
        return _array(array, wire.element, wire.element_oid)
    if wire.name in {"vector", "halfvec"}:
        return _vector(array, ">f4" if wire.name == "vector" else ">f2")
    if wire.name in {"text", "bytea", "json"}:
        return _text(array)
    if wire.name == "jsonb":
        return _jsonb(array)
    if wire.name == "numeric":
        return _fixed(_decimal_digits(array), _valid(array))
    return _fixed(_FIXED[wire.name](array), _valid(array))


def _valid(array: pa.Array) -> Mask | None:
    """Which values are not null; None when all are."""
    if array.null_count == 0:
        return None
    return np.asarray(array.is_valid().to_numpy(zero_copy_only=False))


def _integers(array: pa.Array, storage: pa.DataType, dtype: str, shift: int = 0) -> Bytes:
    numbers = pc.fill_null(array.view(storage), 0).to_numpy(zero_copy_only=False)
    return _bytes((numbers - shift) if shift else numbers, dtype)


def _floats(array: pa.Array, dtype: str) -> Bytes:
    return _bytes(pc.fill_null(array, 0.0).to_numpy(zero_copy_only=False), dtype)


def _bytes(numbers: Numbers, dtype: str) -> Bytes:
    """Numbers in the server's byte order, one row of bytes each."""
    ordered = np.ascontiguousarray(numbers.astype(dtype, copy=False))
    return ordered.view(np.uint8).reshape(len(ordered), ordered.dtype.itemsize)


def _uuids(array: pa.Array) -> Bytes:
    filled = pc.fill_null(array, pa.scalar(bytes(16), array.type))
    data = np.frombuffer(filled.buffers()[1], np.uint8)
    return data[filled.offset * 16 : (filled.offset + len(filled)) * 16].reshape(len(filled), 16)


_FIXED: dict[str, Callable[[pa.Array], Bytes]] = {
    "bool": lambda array: _integers(pc.cast(array, pa.uint8()), pa.uint8(), "u1"),
    "int2": lambda array: _integers(array, pa.int16(), ">i2"),
    "int4": lambda array: _integers(array, pa.int32(), ">i4"),
    "int8": lambda array: _integers(array, pa.int64(), ">i8"),
    "float4": lambda array: _floats(array, ">f4"),
    "float8": lambda array: _floats(array, ">f8"),
    "date": lambda array: _integers(array, pa.int32(), ">i4", _EPOCH_DAYS),
    "time": lambda array: _integers(array, pa.int64(), ">i8"),
    "timestamp": lambda array: _integers(array, pa.int64(), ">i8", _EPOCH_US),
    "timestamptz": lambda array: _integers(array, pa.int64(), ">i8", _EPOCH_US),
    "uuid": _uuids,
}


def _decimal_digits(array: pa.Array) -> Bytes:
    """Decimals as PostgreSQL's numeric: a header and digits of base 10,000; the server strips leading zeros."""
    scale, precision = array.type.scale, array.type.precision
    pad = -scale % 4
    after = (scale + pad) // 4
    before = max(-(-(precision - scale) // 4), 0)
    groups = max(before + after, 1)
    limbs, is_negative = _magnitude(array)
    limbs = _times(limbs, 10**pad)
    out = np.zeros((len(array), 4 + groups), ">i2")
    out[:, 0] = groups
    out[:, 1] = before - 1
    out[:, 2] = np.where(is_negative, 0x4000, 0)
    out[:, 3] = scale
    for place in range(groups - 1, -1, -1):
        limbs, out[:, 4 + place] = _divided_by_10000(limbs)
    return out.view(np.uint8)


def _magnitude(array: pa.Array) -> tuple[npt.NDArray[np.uint64], Mask]:
    """128-bit numbers as five 32-bit limbs, least first, without their sign."""
    filled = pc.fill_null(array, pa.scalar(0, array.type))
    words = np.frombuffer(filled.buffers()[1], np.uint32).reshape(-1, 4)[filled.offset : filled.offset + len(filled)]
    is_negative = words[:, 3] >> 31 == 1
    limbs = np.zeros((len(filled), 5), np.uint64)
    limbs[:, :4] = np.where(is_negative[:, None], ~words, words)
    carry = is_negative.astype(np.uint64)
    for index in range(4):
        limbs[:, index] += carry
        carry = limbs[:, index] >> np.uint64(32)
        limbs[:, index] &= np.uint64(0xFFFFFFFF)
    return limbs, is_negative


def _times(limbs: npt.NDArray[np.uint64], factor: int) -> npt.NDArray[np.uint64]:
    carry = np.zeros(len(limbs), np.uint64)
    for index in range(5):
        product = limbs[:, index] * np.uint64(factor) + carry
        limbs[:, index] = product & np.uint64(0xFFFFFFFF)
        carry = product >> np.uint64(32)
    return limbs


def _divided_by_10000(limbs: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    rest = np.zeros(len(limbs), np.uint64)
    for index in range(4, -1, -1):
        part = (rest << np.uint64(32)) | limbs[:, index]
        limbs[:, index], rest = np.divmod(part, np.uint64(10_000))
    return limbs, rest


def _fixed(values: Bytes, valid: Mask | None) -> Field:
    count, width = values.shape
    if valid is None:
        return Field(np.full(count, width, np.int32), (values,))
    return Field(np.where(valid, width, -1).astype(np.int32), (_present(values, valid),))


def _present(values: Bytes, valid: Mask) -> pa.LargeBinaryArray:
    """The rows of a matrix that `valid` names, and nothing for the others."""
    return _binary(_starts(valid * values.shape[1]), np.ascontiguousarray(values[valid]))


def _starts(lengths: Numbers) -> npt.NDArray[np.int64]:
    """Offsets of values of these lengths, one after the other."""
    starts = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts


def _binary(starts: npt.NDArray[np.int64], data: Numbers | pa.Buffer) -> pa.LargeBinaryArray:
    buffer = data if isinstance(data, pa.Buffer) else pa.py_buffer(data)
    return pa.Array.from_buffers(pa.large_binary(), len(starts) - 1, [None, pa.py_buffer(starts), buffer])


def _text(array: pa.Array) -> Field:
    """Strings and bytes travel as they are."""
    lengths = pc.binary_length(array)
    sizes = pc.fill_null(lengths, -1).to_numpy(zero_copy_only=False).astype(np.int32)
    return Field(sizes, (pc.fill_null(array, b"") if array.null_count else array,))


def _jsonb(array: pa.Array) -> Field:
    """The text after a version byte."""
    field = _text(array)
    version = np.ones((len(array), 1), np.uint8)
    valid = _valid(array)
    head: Piece = version if valid is None else _present(version, valid)
    return Field(np.where(field.sizes < 0, -1, field.sizes + 1).astype(np.int32), (head, *field.pieces))


def _list_lengths(array: pa.Array) -> npt.NDArray[np.int64]:
    lengths = pc.fill_null(pc.list_value_length(array), 0)
    return np.asarray(lengths.to_numpy(zero_copy_only=False).astype(np.int64))


def _vector(array: pa.Array, dtype: str) -> Field:
    """pgvector: number of dimensions, two unused bytes, the numbers."""
    lengths = _list_lengths(array)
    numbers = _bytes(array.flatten().to_numpy(zero_copy_only=False), dtype)
    width = numbers.shape[1]
    head = np.zeros((len(array), 2), ">i2")
    head[:, 0] = lengths
    return _with_head(head.view(np.uint8), 4, _binary(_starts(lengths * width), numbers), array)


def _array(array: pa.Array, element: Wire, element_oid: int) -> Field:
    """A one-dimensional array: header, then size and bytes of each element."""
    lengths = _list_lengths(array)
    children = array.flatten()
    elements = _elements(encode(children, element))
    ends = _offsets(elements)
    head = np.zeros((len(array), 5), ">i4")
    head[:, 0] = lengths > 0
    head[:, 1] = int(children.null_count > 0)
    head[:, 2] = element_oid
    head[:, 3] = lengths
    head[:, 4] = 1
    # an empty array has no dimensions, so neither a length nor a lower bound
    widths = np.where(lengths > 0, 20, 12)
    return _with_head(head.view(np.uint8), widths, _binary(ends[_starts(lengths)], elements.buffers()[2]), array)


def _with_head(head: Bytes, widths: Numbers | int, values: pa.LargeBinaryArray, array: pa.Array) -> Field:
    """A header, cut to `widths` and absent for nulls, before values of many lengths."""
    valid = _valid(array)
    wanted = np.broadcast_to(np.asarray(widths), (len(array),))
    if valid is not None:
        wanted = wanted * valid
    sizes = wanted + np.diff(_offsets(values))
    if valid is not None:
        sizes = np.where(valid, sizes, -1)
    if len(array) and (wanted == head.shape[1]).all():
        return Field(sizes.astype(np.int32), (head, values))
    data = head[np.arange(head.shape[1]) < wanted[:, None]]
    return Field(sizes.astype(np.int32), (_binary(_starts(wanted), data), values))


def _elements(field: Field) -> pa.LargeBinaryArray:
    """Each value after its size."""
    return _joined([_bytes(field.sizes, ">i4"), *field.pieces])


def _offsets(rows: pa.LargeBinaryArray) -> npt.NDArray[np.int64]:
    return np.frombuffer(rows.buffers()[1], np.int64)[rows.offset : rows.offset + len(rows) + 1]


def _joined(pieces: Sequence[Piece]) -> pa.LargeBinaryArray:
    """Row-wise concatenation."""
    columns: list[pa.LargeBinaryArray] = []
    for is_matrix, run in groupby(pieces, lambda piece: isinstance(piece, np.ndarray)):
        if not is_matrix:
            columns.extend(run)
            continue
        # constants alone would be laid out column by column
        matrix = np.ascontiguousarray(np.concatenate(list(run), axis=1))
        columns.append(_binary(np.arange(len(matrix) + 1, dtype=np.int64) * matrix.shape[1], matrix))
    if len(columns) == 1:
        return columns[0]
    return pc.binary_join_element_wise(*columns, pa.scalar(b"", pa.large_binary()))


def _constant(count: int, number: int, dtype: str) -> Bytes:
    return np.broadcast_to(np.array([number], dtype).view(np.uint8), (count, np.dtype(dtype).itemsize))


def copy_rows(fields: Sequence[Field]) -> pa.LargeBinaryArray:
    """Rows of a binary COPY; HEADER goes before them, TRAILER after."""
    count = len(fields[0].sizes)
    pieces: list[Piece] = [_constant(count, len(fields), ">i2")]
    for field in fields:
        pieces += [_bytes(field.sizes, ">i4"), *field.pieces]
    return _joined(pieces)


def record_rows(fields: Sequence[tuple[int, Field | None]]) -> pa.LargeBinaryArray:
    """Elements of an array of records: one (type oid, field) per column of the record; no field is all nulls."""
    count = next(len(field.sizes) for _, field in fields if field)
    sizes = np.full(count, 4 + 8 * len(fields), np.int64)
    pieces: list[Piece] = [_constant(count, len(fields), ">i4")]
    for oid, field in fields:
        pieces.append(_constant(count, oid, ">u4"))
        if field is None:
            pieces.append(_constant(count, -1, ">i4"))
            continue
        sizes += np.maximum(field.sizes, 0)
        pieces += [_bytes(field.sizes, ">i4"), *field.pieces]
    return _joined([_bytes(sizes, ">i4"), *pieces])


def value_rows(field: Field) -> pa.LargeBinaryArray:
    """Elements of an array of plain values."""
    return _elements(field)


def array_parameter(elements: pa.LargeBinaryArray, element_oid: int) -> bytes:
    """A one-dimensional array as a query parameter, made of what `record_rows` or `value_rows` gave."""
    head = np.array([int(len(elements) > 0), 1, element_oid, len(elements), 1], ">u4")
    return head[: 5 if len(elements) else 3].tobytes() + bytes(_data(elements))


def _data(rows: pa.LargeBinaryArray) -> memoryview:
    ends = _offsets(rows)
    return memoryview(rows.buffers()[2])[ends[0] : ends[-1]] if len(rows) else memoryview(b"")


def chunks(rows: pa.LargeBinaryArray, size: int) -> Iterator[memoryview]:
    """The bytes of `size` rows at a time, in order."""
    for start in range(0, len(rows), size):
        yield _data(rows.slice(start, size))


def size(rows: pa.LargeBinaryArray) -> int:
    """Bytes of the rows."""
    return len(_data(rows))
