"""What has arrived of one partition: sorted into this read and later ones, handed out by bytes. Pure."""

from collections import deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Self, TypeVar

import numpy as np
import pyarrow as pa

from vector_assets.sources.kafka_records import record_bytes
from vector_assets.sources.kafka_tokens import Home

K = TypeVar("K", bound=Hashable)


def fair(wanted: Mapping[K, int], total: int) -> dict[K, int]:
    """`total` divided so that nobody gets more than is wanted and nobody gets less than the others but by wanting less.

    What cannot be divided goes to those who want most.
    """
    given: dict[K, int] = {}
    for number, (key, amount) in enumerate(sorted(wanted.items(), key=lambda item: item[1])):
        given[key] = min(amount, total // (len(wanted) - number))
        total -= given[key]
    return given


@dataclass(frozen=True, slots=True)
class Piece:
    """Records of one partition that follow each other, all of one leader epoch; `last` is inclusive."""

    rows: pa.RecordBatch
    first: int
    last: int
    epoch: int | None
    nbytes: int

    @classmethod
    def of(cls, rows: pa.RecordBatch, epoch: int | None) -> Self | None:
        """The piece that these rows make; None when there are none."""
        if not rows.num_rows:
            return None
        offsets = rows.column("offset").to_numpy()
        return cls(rows, int(offsets[0]), int(offsets[-1]), epoch, rows.nbytes)

    def cut(self, count: int) -> "tuple[Piece | None, Piece | None]":
        """The first `count` records, and the others."""
        return Piece.of(self.rows.slice(0, count), self.epoch), Piece.of(self.rows.slice(count), self.epoch)

    def cut_at(self, offset: int) -> "tuple[Piece | None, Piece | None]":
        """The records before `offset`, and the others."""
        if self.last < offset:
            return self, None
        return self.cut(int(np.searchsorted(self.rows.column("offset").to_numpy(), offset)))


@dataclass(frozen=True, slots=True)
class Part:
    """What was read of a range: its pieces, the offset to go on from, and the leader epoch of the record before it."""

    pieces: list[Piece]
    end: int
    epoch: int | None


@dataclass(slots=True)
class Track:
    """One assigned partition: every record from `next` (the first not handed out) to `arrived` is in here.

    `inside` lies before `end` and belongs to the read under way, `outside` waits for a later one.
    """

    home: Home
    next: int
    epoch: int | None
    arrived: int = field(init=False)
    end: int = field(init=False)
    inside: list[Piece] = field(default_factory=list, init=False)
    outside: deque[Piece] = field(default_factory=deque, init=False)
    inside_bytes: int = field(default=0, init=False)
    outside_bytes: int = field(default=0, init=False)
    is_paused: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.arrived = self.end = self.next

    @property
    def is_complete(self) -> bool:
        """True when everything before `end` is here."""
        return self.arrived >= self.end

    def aim(self, end: int) -> None:
        """Begin a read up to `end`: what waited is sorted anew."""
        waiting, self.outside = self.outside, deque()
        self.end, self.outside_bytes = end, 0
        for piece in waiting:
            self._sort(piece)

    def add(self, piece: Piece) -> None:
        """Take records in; those that had arrived before are left out."""
        fresh: Piece | None = piece
        if piece.first < self.arrived:
            fresh = piece.cut_at(self.arrived)[1]
        if fresh is not None:
            self.arrived = fresh.last + 1
            self._sort(fresh)

    def reach(self, offset: int) -> None:
        """Nothing more will come before `offset`."""
        self.arrived = max(self.arrived, offset)

    def take(self, most_bytes: int, least_records: int = 0) -> Part:
        """Hand out what lies inside, up to so many bytes; the rest waits for the next read."""
        taken: list[Piece] = []
        rest: list[Piece] = []
        for piece in self.inside:
            if rest:
                rest.append(piece)
                continue
            fits: Piece | None = piece
            left: Piece | None = None
            if piece.nbytes > most_bytes:
                count = int(np.searchsorted(np.cumsum(record_bytes(piece.rows)), most_bytes, side="right"))
                fits, left = piece.cut(max(count, 0 if taken else least_records))
            if fits is not None:
                taken.append(fits)
                most_bytes -= fits.nbytes
            if left is not None:
                rest.append(left)
        self._wait(rest)
        self.next = rest[0].first if rest else min(self.arrived, self.end)
        self.epoch = taken[-1].epoch if taken else self.epoch
        return Part(taken, self.next, self.epoch)

    def _wait(self, rest: list[Piece]) -> None:
        self.outside.extendleft(reversed(rest))
        self.outside_bytes += sum(piece.nbytes for piece in rest)
        self.inside, self.inside_bytes = [], 0

    def _sort(self, piece: Piece) -> None:
        inside, outside = piece.cut_at(self.end)
        if inside is not None:
            self.inside.append(inside)
            self.inside_bytes += inside.nbytes
        if outside is not None:
            self.outside.append(outside)
            self.outside_bytes += outside.nbytes
