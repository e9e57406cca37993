"""Cells: places of values in a buffer, taken out a column at a time. Pure numpy and Arrow.

A cell is a position in the buffer and a length; position -1 is NULL.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


def validity(at: Ints) -> Any:
    """Arrow's null bitmap of cells; None where there is no NULL."""
    valid = at >= 0
    return None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little").tobytes())


def gather(data: Bytes, at: Ints, lengths: Ints, kind: pa.DataType | None = None) -> Any:
    """The bytes of the cells as binary (or string, which is not checked)."""
    sizes = np.where(at >= 0, lengths, 0)
    offsets = np.zeros(len(at) + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    if offsets[-1] >= 1 << 31:
        raise ValueError("more than 2 GB in one column of a batch")
    where = np.repeat(at - offsets[:-1], sizes) + np.arange(offsets[-1])
    buffers = [validity(at), pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(data[where])]
    return pa.Array.from_buffers(kind or pa.binary(), len(at), buffers)


def little(data: Bytes, at: Ints, size: int) -> npt.NDArray[np.uint64]:
    """Unsigned little-endian numbers of `size` bytes; 0 for NULL."""
    found = np.zeros(len(at), np.uint64)
    for number in range(size):
        found |= data[np.maximum(at, 0) + number].astype(np.uint64) << np.uint64(8 * number)
    found[at < 0] = 0
    return found


def big(data: Bytes, at: Ints, size: int) -> Ints:
    """Unsigned big-endian numbers of `size` bytes (7 at most); 0 for NULL."""
    found = np.zeros(len(at), np.int64)
    for number in range(size):
        found = (found << 8) | data[np.maximum(at, 0) + number]
    found[at < 0] = 0
    return found


def array(values: npt.NDArray[Any], at: Ints, kind: pa.DataType) -> Any:
    """Numbers of the type's own width, with the cells' NULLs."""
    return pa.Array.from_buffers(kind, len(at), [validity(at), pa.py_buffer(np.ascontiguousarray(values))])
