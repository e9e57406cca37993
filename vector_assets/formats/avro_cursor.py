"""Many Avro records side by side: a place in each, moved by all of them at once.

The first value of every record is read in one step, then the second of every record, and so on, so the work is done by
numpy over columns. A record that turns out to be bad is moved to a run of zeros behind the data, where every read finds
something harmless (0, no item, an empty text), and is left out of the result at the end.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]

_ZEROS = 16
MOST_DEPTH = 64
"""Levels of records within records; also what protects us from a record that nests for ever."""

_STOPS = np.uint64(0x8080808080808080)
_LOW7 = np.uint64(0x7F7F7F7F7F7F7F7F)
_ONE = np.uint64(1)
_SQUEEZE = tuple(
    (np.uint64(low), np.uint64(high), np.uint64(shift))
    for low, high, shift in (
        (0x007F007F007F007F, 0x7F007F007F007F00, 1),
        (0x00003FFF00003FFF, 0x3FFF00003FFF0000, 2),
        (0x000000000FFFFFFF, 0x0FFFFFFF00000000, 4),
    )
)


def padded(data: Bytes) -> Bytes:
    """A copy of the data with zeros behind it, as a `Cursor` needs it."""
    return np.concatenate([data, np.zeros(2 * _ZEROS, np.uint8)])


class Cursor:
    """Records of one piece of data; `rows` everywhere are ascending numbers of records."""

    def __init__(self, data: Bytes, starts: Ints, ends: Ints) -> None:
        """`data` as `padded` gives it; each record is data[start:end], in ascending order."""
        self.data = data
        self.at = starts.copy()
        self.end = ends.copy()
        self.begin = starts
        self.depth = 0
        self.reasons: dict[int, str] = {}
        self._zeros = len(data) - 2 * _ZEROS
        self._bad = np.empty(0, np.int64)
        self._is_bad = np.zeros(len(starts), bool)
        self._words = np.ndarray((len(data) - 7,), "<u8", buffer=data, strides=(1,))
        self._stops: Ints | None = None

    def fail(self, rows: Ints, reason: str) -> None:
        """These records are bad; the first reason of each counts."""
        fresh = np.unique(rows[~self._is_bad[rows]])
        self.reasons.update(dict.fromkeys(fresh.tolist(), reason))
        self._bad = np.concatenate([self._bad, fresh])
        self._is_bad[rows] = True
        self._rest()

    def _rest(self) -> None:
        self.at[self._bad] = self._zeros
        self.end[self._bad] = self._zeros + _ZEROS

    def places(self, rows: Ints) -> Ints:
        """Where each of the records is."""
        if len(self._bad):
            self._rest()
        return self.at[rows]

    def left(self, rows: Ints) -> Ints:
        """Bytes left in each of the records."""
        return self.end[rows] - self.places(rows)

    def advance(self, rows: Ints, sizes: "Ints | int", where: str) -> None:
        """Move on by so many bytes; records that end before are bad."""
        there = self.at[rows] + sizes
        self.at[rows] = there
        short = there > self.end[rows]
        if short.any():
            self.fail(rows[short], f"{where}: the record ends within the value (cut short, or of another schema)")

    def bad_among(self, rows: Ints) -> Flags | None:
        """Which of the records are bad; None when none ever was."""
        return self._is_bad[rows] if len(self._bad) else None

    def words(self, kind: str, places: Ints) -> npt.NDArray[np.generic]:
        """Little-endian values of a numpy type at places that need not be aligned."""
        width = np.dtype(kind).itemsize
        found: npt.NDArray[np.generic] = np.ndarray(
            (len(self.data) - width + 1,), kind, buffer=self.data, strides=(1,)
        )[places]
        return found

    def longs(self, rows: Ints, where: str) -> Ints:
        """The next number (int, long, length, branch) of each record; 0 where the record is bad."""
        places = self.places(rows)
        values, sizes = self.longs_at(places, rows, where)
        self.advance(rows, sizes, where)
        bad = self.bad_among(rows)
        if bad is not None:
            values[bad] = 0
        return values

    def longs_at(self, places: Ints, rows: Ints, where: str) -> tuple[Ints, Ints]:
        """Zigzag numbers of variable length at these places, and their sizes in bytes."""
        first = self.data[places]
        if not (first >= 128).any():
            short = first.astype(np.int64)
            return (short >> 1) ^ -(short & 1), np.ones(len(places), np.int64)
        words = self._words[places]
        stops = ~words & _STOPS
        below = (stops & (~stops + _ONE)) - _ONE
        sizes = (np.bitwise_count(below).astype(np.int64) + 1) >> 3
        raw = words & below & _LOW7
        for low, high, shift in _SQUEEZE:
            raw = (raw & low) | ((raw & high) >> shift)
        long = np.flatnonzero(stops == 0)
        if len(long):
            self._ninth_byte(long, places, rows, where, raw, sizes)
        return (raw >> _ONE).astype(np.int64) ^ -(raw & _ONE).astype(np.int64), sizes

    def _ninth_byte(
        self, long: Ints, places: Ints, rows: Ints, where: str, raw: npt.NDArray[np.uint64], sizes: Ints
    ) -> None:
        """Complete numbers of nine and ten bytes in place."""
        ninth, tenth = (self.data[places[long] + step].astype(np.uint64) for step in (8, 9))
        goes_on = ninth >= 128
        raw[long] |= (ninth & np.uint64(127)) << np.uint64(56)
        raw[long] |= np.where(goes_on, tenth << np.uint64(63), np.uint64(0))
        sizes[long] = 9 + goes_on
        wrong = goes_on & (tenth > 1)
        if wrong.any():
            self.fail(rows[long[wrong]], f"{where}: a number of more than 64 bits")

    def runs(self, rows: Ints, counts: Ints, where: str) -> Ints:
        """Where each of the next `counts` numbers of each record starts; the records are moved behind them."""
        found = self.peek_runs(rows, counts)
        if found is None:
            short = self._short_of(rows, counts)
            self.fail(rows[short], f"{where}: the record ends within its items")
            starts = np.repeat(self.begin[rows], counts)
            good = ~short
            inner = self.peek_runs(rows[good], counts[good])
            if inner is not None:
                starts[np.repeat(good, counts)], self.at[rows[good]] = inner
            return starts
        starts, self.at[rows] = found
        return starts

    def peek_runs(self, rows: Ints, counts: Ints) -> tuple[Ints, Ints] | None:
        """As `runs`: the starts, and where the records go on; None, nothing moved, when a record is too short."""
        if self._short_of(rows, counts).any():
            return None
        places = self.places(rows)
        stops = self._number_ends()
        first = np.searchsorted(stops, places)
        starts = stops[np.repeat(first, counts) + steps(counts) - 1] + 1
        starts[np.cumsum(counts) - counts] = places
        return starts, stops[first + counts - 1] + 1

    def _short_of(self, rows: Ints, counts: Ints) -> Flags:
        stops = self._number_ends()
        held = np.searchsorted(stops, self.end[rows]) - np.searchsorted(stops, self.places(rows))
        short: Flags = held < counts
        return short

    def _number_ends(self) -> Ints:
        """Every place where a number of variable length could end."""
        if self._stops is None:
            self._stops = np.flatnonzero(self.data < 128)
        return self._stops

    def slices(self, starts: Ints, sizes: Ints, rows: Ints) -> pa.Array:
        """The bytes at these places, which ascend, as a binary array; those of bad records are empty."""
        if not len(starts):
            return pa.array([], pa.binary())
        bad = self.bad_among(rows)
        if bad is not None:
            starts, sizes = np.where(bad, self.begin[rows], starts), np.where(bad, 0, sizes)
        bounds = np.empty(2 * len(starts), np.int32)
        bounds[::2], bounds[1::2] = starts, starts + sizes
        buffers = [None, pa.py_buffer(bounds), pa.py_buffer(self.data)]
        every = pa.Array.from_buffers(pa.binary(), len(bounds) - 1, buffers)
        return every.take(pa.array(np.arange(0, len(bounds), 2)))


def steps(counts: Ints) -> Ints:
    """0, 1, ... up to each count, one after the other."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total, dtype=np.int64) - np.repeat(ends - counts, counts)
