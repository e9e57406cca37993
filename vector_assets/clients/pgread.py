"""PostgreSQL's binary COPY to Arrow columns: the way back of `pgcopy`. Vectorised, a chunk of rows at a time.

The server sends every row of a COPY as one message, so the rows' starts are known; fields are then walked column by
column for all rows at once, and a row whose fields do not end where its message ends is an error.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vector_assets.clients.pgcopy import HEADER, TRAILER, Bytes, Mask, Wire
from vector_assets.engine.errors import FatalError

Places = npt.NDArray[np.int64]

CHUNK_BYTES = 8 * 1024**2
"""Bytes of rows that are decoded at a time."""

_EPOCH_US = 946_684_800_000_000
_EPOCH_DAYS = 10_957
_NUMBERS: dict[str, tuple[str, int]] = {
    "int2": (">i2", 0),
    "int4": (">i4", 0),
    "int8": (">i8", 0),
    "float4": (">f4", 0),
    "float8": (">f8", 0),
    "date": (">i4", _EPOCH_DAYS),
    "time": (">i8", 0),
    "timestamp": (">i8", _EPOCH_US),
    "timestamptz": (">i8", _EPOCH_US),
}
"""Byte order, width and the server's epoch of types of one width."""


def chunks(messages: Iterable[bytes | bytearray | memoryview], size: int = CHUNK_BYTES) -> Iterator[list[bytes]]:
    """The rows of a binary COPY without its header and trailer, some `size` bytes at a time.

    Raises:
        FatalError: the stream does not begin as a binary COPY.
    """
    rows: list[bytes] = []
    gathered, is_first = 0, True
    for message in messages:
        row = bytes(message)
        if is_first:
            if row[: len(HEADER)] != HEADER:
                raise FatalError("COPY: the stream does not begin with the header of the binary format")
            row, is_first = row[len(HEADER) :], False
        if not row or row == TRAILER:
            continue
        rows.append(row)
        gathered += len(row)
        if gathered >= size:
            yield rows
            rows, gathered = [], 0
    if rows:
        yield rows


def decode(rows: Sequence[bytes], wires: Sequence[Wire]) -> list[pa.Array]:
    """A column of `wire.arrow` for each wire; `numeric` cannot be read (ask the server for its text).

    Raises:
        FatalError: the rows have other fields, or an array has several dimensions.
    """
    data = b"".join(rows)
    # gathers below read whole numbers: the last field may be a null at the very end
    buffer = np.frombuffer(data + bytes(8), np.uint8)
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    ends = np.cumsum(lengths)
    at = ends - lengths
    if len(rows) and (_numbers(buffer, at, ">i2") != len(wires)).any():
        raise FatalError(f"COPY: rows with another number of fields than the {len(wires)} that were asked for")
    at = at + 2
    columns = []
    for wire in wires:
        values, at = _field(buffer, at)
        columns.append(_column(values, wire))
    if (at != ends).any():
        raise FatalError("COPY: a row does not end where its message ends")
    return columns


@dataclass(frozen=True, slots=True)
class _Values:
    """One field of every row: where its bytes begin and how many they are; `valid` is None when no value is null."""

    buffer: Bytes
    starts: Places
    lengths: Places
    valid: Mask | None

    def __len__(self) -> int:
        return len(self.starts)


def _field(buffer: Bytes, at: Places) -> tuple[_Values, Places]:
    """The field that begins with its size at `at`, and where the next one begins."""
    sizes = _numbers(buffer, at, ">i4").astype(np.int64)
    lengths = np.maximum(sizes, 0)
    valid = sizes >= 0
    return _Values(buffer, at + 4, lengths, None if valid.all() else valid), at + 4 + lengths


def _numbers(buffer: Bytes, at: Places, dtype: str) -> npt.NDArray[np.int64]:
    width = np.dtype(dtype).itemsize
    return np.ascontiguousarray(buffer[at[:, None] + np.arange(width)]).view(dtype).reshape(len(at))


def _column(values: _Values, wire: Wire) -> pa.Array:
    if wire.element is not None:
        return _array(values, wire.element)
    if wire.name in {"vector", "halfvec"}:
        return _vector(values, ">f4" if wire.name == "vector" else ">f2")
    if wire.name in {"text", "bytea", "json", "jsonb"}:
        skipped = 1 if wire.name == "jsonb" else 0
        return _texts(_Values(values.buffer, values.starts + skipped, values.lengths - skipped, values.valid))
    if wire.name == "uuid":
        return _from_matrix(_matrix(values, 16), pa.binary(16), values.valid)
    if wire.name == "bool":
        flags = _matrix(values, 1).reshape(len(values)) != 0
        return pa.array(flags, mask=None if values.valid is None else ~values.valid)
    return _from_numbers(values, wire)


def _matrix(values: _Values, width: int) -> Bytes:
    """The bytes of values of one width; those of a null mean nothing."""
    wrong = values.lengths != width
    if values.valid is not None:
        wrong &= values.valid
    if wrong.any():
        raise FatalError(f"COPY: a value of {values.lengths[wrong][0]} bytes where {width} are wanted")
    starts = values.starts if values.valid is None else np.where(values.valid, values.starts, 0)
    if len(values) and width > len(values.buffer):
        return np.zeros((len(values), width), np.uint8)
    return np.ascontiguousarray(values.buffer[starts[:, None] + np.arange(width)])


def _from_numbers(values: _Values, wire: Wire) -> pa.Array:
    if wire.name not in _NUMBERS:
        raise FatalError(f"COPY: the type {wire.name} cannot be read in binary form")
    dtype, shift = _NUMBERS[wire.name]
    numbers = _matrix(values, np.dtype(dtype).itemsize).view(dtype).reshape(len(values))
    native = numbers.astype(numbers.dtype.newbyteorder("="))
    if shift:
        native = native + native.dtype.type(shift)
    array = pa.array(native, mask=None if values.valid is None else ~values.valid, from_pandas=False)
    return array if array.type == wire.arrow else array.view(wire.arrow)


def _from_matrix(matrix: Bytes, kind: pa.DataType, valid: Mask | None) -> pa.Array:
    bits = None if valid is None else pa.array(valid).buffers()[1]
    return pa.Array.from_buffers(kind, len(matrix), [bits, pa.py_buffer(matrix)])


def _texts(values: _Values) -> pa.LargeBinaryArray:
    """Bytes of many lengths: the buffer read as values and what lies between them, of which the values are taken."""
    lengths = values.lengths if values.valid is None else np.where(values.valid, values.lengths, 0)
    bounds = np.empty(2 * len(values) + 1, np.int64)
    bounds[0:-1:2] = values.starts
    bounds[1::2] = values.starts + lengths
    bounds[-1] = bounds[-2] if len(values) else 0
    whole = pa.Array.from_buffers(
        pa.large_binary(), 2 * len(values), [None, pa.py_buffer(bounds), pa.py_buffer(values.buffer)]
    )
    chosen = np.arange(0, 2 * len(values), 2)
    mask = None if values.valid is None else ~values.valid
    return whole.take(pa.array(chosen, mask=mask))


def _vector(values: _Values, dtype: str) -> pa.ListArray:
    """pgvector: number of dimensions, two unused bytes, the numbers."""
    width = np.dtype(dtype).itemsize
    counts = np.where(values.lengths > 0, (values.lengths - 4) // width, 0)
    numbers = _spread(values, values.starts + 4, counts, width, dtype)
    return _lists(counts, pa.array(numbers.astype(np.float32)), values.valid)


def _array(values: _Values, element: Wire) -> pa.ListArray:
    """A one-dimensional array: dimensions, has nulls, type, length, lower bound; then size and bytes of each."""
    heads = np.where(values.lengths > 0, values.starts, 0)
    dimensions = np.where(values.lengths > 0, _numbers(values.buffer, heads, ">i4"), 0)
    if (dimensions > 1).any():
        raise FatalError("the target holds an array of several dimensions, which no pipeline wrote: cannot compare it")
    has_values = dimensions == 1
    counts = np.where(has_values, _numbers(values.buffer, np.where(has_values, heads + 12, 0), ">i4"), 0)
    counts = counts.astype(np.int64)
    starts = values.starts + 20
    width = np.dtype(_NUMBERS[element.name][0]).itemsize if element.name in _NUMBERS else 0
    if width and ((values.lengths - 20) == counts * (4 + width))[has_values].all():
        if element.name in {"float4", "float8"}:
            numbers = _spread(values, starts + 4, counts, width, _NUMBERS[element.name][0], stride=4 + width)
            return _lists(counts, pa.array(numbers.astype(numbers.dtype.newbyteorder("="))), values.valid)
        flat = np.repeat(starts, counts) + _within(counts) * (4 + width) + 4
        fields = _Values(values.buffer, flat, np.full(len(flat), width, np.int64), None)
        return _lists(counts, _column(fields, element), values.valid)
    return _lists(counts, _column(_walked(values.buffer, starts, counts), element), values.valid)


def _walked(buffer: Bytes, at: Places, counts: Places) -> _Values:
    """Elements of many sizes, or with nulls: the n-th of every array at a time."""
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    starts, sizes = np.zeros(offsets[-1], np.int64), np.zeros(offsets[-1], np.int64)
    at = at.copy()
    for number in range(int(counts.max(initial=0))):
        rows = np.flatnonzero(counts > number)
        found = _numbers(buffer, at[rows], ">i4").astype(np.int64)
        starts[offsets[rows] + number] = at[rows] + 4
        sizes[offsets[rows] + number] = found
        at[rows] += 4 + np.maximum(found, 0)
    valid = sizes >= 0
    return _Values(buffer, starts, np.maximum(sizes, 0), None if valid.all() else valid)


def _within(counts: Places) -> Places:
    """0, 1, 2 .. for every list."""
    offsets = np.cumsum(counts) - counts
    return np.arange(int(counts.sum()), dtype=np.int64) - np.repeat(offsets, counts)


def _spread(
    values: _Values, starts: Places, counts: Places, width: int, dtype: str, stride: int | None = None
) -> npt.NDArray[np.float64]:
    """The numbers of all lists one after the other."""
    stride = stride or width
    if len(counts) and counts[0] and (counts == counts[0]).all():
        # lists of one length: a matrix, without a place for every number
        count = int(counts[0])
        inside = (np.arange(count)[:, None] * stride + np.arange(width)).ravel()
        block = np.ascontiguousarray(values.buffer[starts[:, None] + inside])
        return block.view(dtype).ravel()
    at = np.repeat(starts, counts) + _within(counts) * stride
    return np.ascontiguousarray(values.buffer[at[:, None] + np.arange(width)]).view(dtype).ravel()


def _lists(counts: Places, children: pa.Array, valid: Mask | None) -> pa.ListArray:
    offsets = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), children, mask=None if valid is None else pa.array(~valid))
