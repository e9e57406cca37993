"""How much the next batch may take, learned from the commits so far."""

import threading
from collections import deque
from dataclasses import dataclass
from statistics import median

from vector_assets.engine.core import BatchLimit, Position

EXPANSION = 4
"""Memory that a byte of records needs on its way: as read, decoded, compacted and encoded for the target."""

GROWTH = 4.0
"""A batch is at most this many times the last one observed, if that one met the target time."""

_LATE_GROWTH = 1.5
_REMEMBERED = 8
_FORGETTING = 0.5
_LARGE_SHARE = 1 / 4
_SLOW_SHARE = 1 / 8
_CONTRAST = 4


@dataclass(frozen=True, slots=True)
class _Commit:
    size: int
    seconds: float


class AdaptiveLimit:
    """Batches that grow and shrink towards a commit time. Thread-safe: one thread reads, another commits.

    A commit is taken to cost `overhead + size / rate`, by rows and by bytes apart, and the next batch is what fits
    `target_seconds`. The first has `first_rows`; then a batch grows at most fourfold on the one observed (so a target
    that slows down faster than its batches grow is met in small steps) and shrinks at once. Rows never exceed
    `max_rows`, bytes never what the memory holds with `in_flight` batches under way.

    A batch whose texts a model was asked for should be made in that time, too, so that it is committed while the next
    ones are with the model; on that account no batch gets smaller than the first.
    """

    def __init__(
        self, max_rows: int, memory_bytes: int, target_seconds: float, first_rows: int, in_flight: int = 4
    ) -> None:
        most_bytes = max(memory_bytes // (in_flight * EXPANSION), 1)
        self._lock = threading.Lock()
        self._rows = _Ceiling(first=min(max(first_rows, 1), max_rows), most=max_rows, target=target_seconds)
        self._bytes = _Ceiling(first=most_bytes, most=most_bytes, target=target_seconds)
        self._least = self._rows.value
        self._asking = _Ceiling(first=self._least, most=max_rows, target=target_seconds)
        self._is_asking = False

    def next(self, until: Position | None = None) -> BatchLimit:
        """The limit of the next batch, which ends at `until` at the latest."""
        with self._lock:
            rows = self._rows.value
            if self._is_asking:
                rows = min(rows, max(self._asking.value, self._least))
            return BatchLimit(rows, self._bytes.value, until)

    def observe(self, rows: int, size_bytes: int, seconds: float, asking_seconds: float = 0.0) -> None:
        """A batch took so long to commit; its bytes are those the source counts against a limit, before compression.

        `asking_seconds` is how long it took to make while a model was asked for its texts, 0 where none was.
        """
        with self._lock:
            self._rows.observe(rows, seconds)
            self._bytes.observe(size_bytes, seconds)
            self._asking.observe(rows, asking_seconds)
            self._is_asking = asking_seconds > 0


class _Ceiling:
    """The limit of one measure of a batch's size, now `value`."""

    def __init__(self, first: int, most: int, target: float) -> None:
        self.value = first
        self._first, self._most, self._target = first, most, target
        self._commits: deque[_Commit] = deque(maxlen=_REMEMBERED)
        self._by_magnitude: dict[int, _Commit] = {}
        self._overhead = 0.0

    def observe(self, size: int, seconds: float) -> None:
        """Move the limit by a commit; an empty one says nothing."""
        if size <= 0 or seconds <= 0:
            return
        newest = _Commit(size, seconds)
        self._learn_overhead(newest)
        self._commits.append(newest)
        self._by_magnitude[size.bit_length()] = newest
        # after small batches nobody knows what a large one costs by now: the limit sinks until one is tried again
        growth = GROWTH if seconds <= self._target else _LATE_GROWTH
        tried = max(self._first, int(growth * size), self.value // 2)
        self.value = max(1, min(tried, self._fitting(newest), self._most))

    def _learn_overhead(self, newest: _Commit) -> None:
        """Half way to where the lines through this commit and those of clearly other sizes meet size 0."""
        found = [
            _intercept(newest, other)
            for other in self._by_magnitude.values()
            if max(newest.size, other.size) >= _CONTRAST * min(newest.size, other.size)
        ]
        if found:
            self._overhead = (self._overhead + median(found)) / 2
        self._overhead = min(self._overhead, newest.seconds)

    def _fitting(self, newest: _Commit) -> int:
        """The size that fits the target; an overhead near or over the target leaves half of it for the size."""
        cost = self._cost(newest)
        left = max(self._target - self._overhead, self._target / 2)
        return int(left / cost) if cost > 0 else self._most

    def _cost(self, newest: _Commit) -> float:
        """Seconds per unit of size: the mean of late, but no less than the newest large commit's."""
        seconds = size = 0.0
        weight = 1.0
        for commit in reversed(self._commits):
            if self._is_telling(commit):
                seconds += weight * max(commit.seconds - self._overhead, 0.0)
                size += weight * commit.size
            weight *= _FORGETTING
        mean = seconds / size if size else 0.0
        alone = max(newest.seconds - self._overhead, 0.0) / newest.size
        return max(mean, alone) if self._is_large(newest) else mean

    def _is_telling(self, commit: _Commit) -> bool:
        """Large or slow: what is neither is all overhead, and its rate means nothing."""
        return self._is_large(commit) or commit.seconds >= self._target * _SLOW_SHARE

    def _is_large(self, commit: _Commit) -> bool:
        return commit.size >= self.value * _LARGE_SHARE


def _intercept(one: _Commit, other: _Commit) -> float:
    slope = (one.seconds - other.seconds) / (one.size - other.size)
    return min(max(one.seconds - slope * one.size, 0.0), one.seconds, other.seconds)
