"""Byte strings of different lengths in one buffer, put together without a Python object per string."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.int64]

_VARINT_MOST = 10
_SHIFTS = np.arange(_VARINT_MOST, dtype=np.uint64) * np.uint64(7)


@dataclass(frozen=True)
class Ragged:
    """`data` holds one string after the other, `lengths` says how long each is."""

    data: Bytes
    lengths: Numbers

    @property
    def starts(self) -> Numbers:
        """Where each string begins."""
        return np.cumsum(self.lengths) - self.lengths

    def only_where(self, mask: NDArray[np.bool_]) -> "Ragged":
        """Strings where the mask is false become empty."""
        return Ragged(self.data[np.repeat(mask, self.lengths)], np.where(mask, self.lengths, 0))


def fixed(values: NDArray[np.generic]) -> Ragged:
    """The little-endian bytes of numbers."""
    width = values.dtype.itemsize
    return Ragged(np.ascontiguousarray(values).view(np.uint8), np.full(len(values), width, np.int64))


def constant(text: bytes, count: int) -> Ragged:
    """The same string `count` times."""
    return Ragged(np.tile(np.frombuffer(text, np.uint8), count), np.full(count, len(text), np.int64))


def of_list(texts: Sequence[bytes]) -> Ragged:
    """Strings that are Python objects already."""
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    return Ragged(np.frombuffer(b"".join(texts), np.uint8), lengths)


def varints(values: NDArray[np.uint64]) -> Ragged:
    """Base-128 varints, the low seven bits first."""
    lengths = np.ones(len(values), np.int64)
    for bits in range(7, 64, 7):
        lengths += values >= np.uint64(1 << bits)
    digits = ((values[:, None] >> _SHIFTS) & np.uint64(0x7F)).astype(np.uint8)
    places = np.arange(_VARINT_MOST)
    digits[places < lengths[:, None] - 1] |= 0x80
    return Ragged(digits[places < lengths[:, None]], lengths)


def zigzag(values: Numbers) -> NDArray[np.uint64]:
    """Signed numbers as unsigned ones, small for small magnitudes."""
    return ((values << 1) ^ (values >> 63)).view(np.uint64)


def interleave(parts: Sequence[Ragged]) -> Ragged:
    """The strings of equal place joined: part 0's, part 1's, .. for each place."""
    lengths = np.stack([part.lengths for part in parts])
    joined = lengths.sum(axis=0)
    total = int(joined.sum())
    data = np.empty(total, np.uint8)
    at = np.cumsum(joined) - joined
    for part, sizes in zip(parts, lengths, strict=True):
        moves = np.repeat(at - part.starts, sizes)
        data[moves + np.arange(len(part.data))] = part.data
        at = at + sizes
    return Ragged(data, joined)
