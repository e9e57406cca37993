"""Who touched a key, and where in the source's order: no dead letter and no rewrite moves a row backwards.

The place of a record is (number of the batch that read it, its ordinal there), whenever and by which batch its rows
were written. Under merge `last` a row is superseded when a row of its key comes from a later place. Under `first` and
`error` the record whose row of the key was written first owns it, and supersedes the others. Sidecars give the keys'
hashes; a hit is confirmed on the real key, made again from the archive.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine import sidecar
from vector_assets.engine.archive import Archive
from vector_assets.engine.core import POSITION, Decoded, Merge, RowKind, Split, State, Target
from vector_assets.engine.errors import FatalError
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.ledger_records import BatchRecord

Numbers = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

ROW_BITS = 24
"""A row's ordinal in its batch fits (`PipelineSettings.max_rows`)."""
_ROW = (1 << ROW_BITS) - 1
_SEGMENTS = 8
_FIELDS = ("hashes", "places", "files", "deleting")


def place(seq: int | Numbers, row: int | Numbers) -> Numbers:
    """A batch's number and an ordinal in one number that sorts as the pair does."""
    return (np.asarray(seq, np.int64) << ROW_BITS) + row


class Making(Protocol):
    """What makes rows of archived records again; `engine.stages.Stages` does."""

    @property
    def ledger(self) -> Ledger:
        """What batches there are."""
        ...

    @property
    def archive(self) -> Archive:
        """Their records and sidecars."""
        ...

    @property
    def target(self) -> Target:
        """What the rows' key is."""
        ...

    def decode(
        self, raw: pa.Table, splits: Sequence[Split], chosen: pa.Array | None = None,
        versions: Mapping[str, str] | None = None, schema_version: int | None = None,
    ) -> Decoded:  # fmt: skip
        """The sink's rows of these records (of those with the `chosen` ordinals), joined with these versions, decoded
        with the columns of this schema version."""
        ...

    def splits(self, batch: BatchRecord) -> Sequence[Split]:
        """The splits of the batch's records."""
        ...

    def letter_places(self, batch: BatchRecord) -> Numbers | None:
        """The places of the records of a batch of dead letters (or of one that rewrites it); None for others."""
        ...


@dataclass(frozen=True, slots=True)
class Touched:
    """Rows handed to the target, sorted by key hash: their place in the source's order and in the archive."""

    hashes: Hashes
    places: Numbers
    files: Numbers
    deleting: Mask

    @classmethod
    def joined(cls, parts: "list[Touched]") -> "Touched":
        """All of them, sorted by hash."""
        columns = [np.concatenate([getattr(part, name) for part in parts]) for name in _FIELDS]
        order = np.argsort(columns[0], kind="stable")
        return cls(*(column[order] for column in columns))

    def owners(self, *, last: bool) -> "Touched":
        """Of each hash the last place, or the one written first."""
        if not len(self.hashes):
            return self
        order = np.lexsort((self.places if last else -self.files, self.hashes))
        is_edge = np.ones(len(order), np.bool_)
        is_edge[:-1] = self.hashes[order][1:] != self.hashes[order][:-1]
        return Touched(*(getattr(self, name)[order[is_edge]] for name in _FIELDS))


@dataclass
class Touches:
    """The owners of all keys of a pipeline, read from the sidecars once and kept up to date: 25 bytes a key.

    Not thread-safe. Dead-letter batches are few and kept whole, for their rows stand anywhere in the order.
    """

    segments: list[Touched] = field(default_factory=list)
    letters: list[Touched] = field(default_factory=list)
    seen: int = 0

    def update(self, making: Making, pipeline: str, target: str, key_shape: str, *, last: bool) -> None:
        """Take in the batches that were done since.

        Raises:
            FatalError: a sidecar is missing or damaged, or of a key of another shape.
        """
        for batch in making.ledger.batches(pipeline, target, after=self.seen):
            if batch.state not in {State.DONE, State.DISCARDED}:
                # an unfinished batch is not in the target; it will be seen when it is done
                return
            self.seen = batch.seq
            if batch.state is not State.DONE or batch.sidecar is None:
                continue
            touched = read(making, batch, key_shape)
            if last and making.letter_places(batch) is not None:
                self.letters.append(touched)
            else:
                self.segments.append(touched.owners(last=last))
            if len(self.segments) > _SEGMENTS:
                self.segments = [Touched.joined(self.segments).owners(last=last)]

    def parts(self) -> Iterator[Touched]:
        """Everything that is known, in pieces that may repeat hashes."""
        yield from self.segments
        yield from self.letters


def places_of(making: Making, batch: BatchRecord, positions: Numbers) -> Numbers:
    """The places of a batch's rows, by their ordinals in its archive file."""
    letters = making.letter_places(batch)
    return place(batch.root, positions) if letters is None else letters[positions]


def read(making: Making, batch: BatchRecord, key_shape: str | None) -> Touched:
    """What a batch handed to the target, without what the target refused.

    Raises:
        FatalError: as `Touches.update`.
    """
    if batch.sidecar is None:
        raise FatalError(f"{batch.pipeline}: batch {batch.seq} has no sidecar")
    entries = sidecar.read(making.archive, batch.sidecar, key_shape)
    rows = entries.column("row").to_numpy()
    kinds = entries.column("kind").to_numpy()
    touched = Touched(
        entries.column("key_hash").to_numpy(),
        places_of(making, batch, rows),
        place(batch.root, rows),
        kinds != RowKind.INSERT,
    )
    refused = making.ledger.dead_letters.ordinals(batch.pipeline, batch.target, [batch.seq], stage="write")
    if refused:
        kept = ~np.isin(rows, np.array(refused, np.int64))
        touched = Touched(*(getattr(touched, name)[kept] for name in _FIELDS))
    return Touched.joined([touched])


def superseded(
    making: Making, touches: Touches, batch: BatchRecord, rows: pa.Table, merge: Merge, rejected: Numbers
) -> Mask:
    """Which of the batch's rows must leave the target's row alone, because the row of another record owns it.

    A batch that is rewritten does not stand in its own way, but for the records `rejected` now or before: what they
    once wrote stays until their dead letter is settled.

    Raises:
        FatalError: a sidecar or an archive file is missing or damaged.
    """
    if rows.num_rows == 0:
        return np.zeros(0, np.bool_)
    is_last = merge is Merge.LAST
    key_shape = sidecar.shape(rows, making.target.key)
    touches.update(making, batch.pipeline, batch.target, key_shape, last=is_last)
    asked = _Asked(batch, rows, sidecar.key_hashes(rows, making.target.key).to_numpy(), making, is_last=is_last)
    suspects = asked.among(touches.parts())
    for earlier in _versions(making, batch) if len(rejected) else ():
        part = read(making, earlier, key_shape)
        chosen = np.isin(part.files & _ROW, rejected)
        suspects += asked.among([Touched(*(getattr(part, name)[chosen] for name in _FIELDS))], with_own=True)
    return _confirmed(making, asked, suspects)


def _versions(making: Making, batch: BatchRecord) -> list[BatchRecord]:
    """The batch that `batch` rewrites, and those that rewrote it before."""
    where = (batch.pipeline, batch.target)
    earlier = making.ledger.rewrites_of(batch, before=batch.seq)
    found = [making.ledger.batch(*where, seq) for seq in (batch.root, *earlier)]
    return [version for version in found if version.sidecar is not None and version.seq != batch.seq]


Suspects = list[tuple[Numbers, Numbers]]
"""Pairs of a row and the place in the archive of another record, whose row of a key with the same hash would own it."""


class _Asked:
    """The rows of one batch whose owners are looked for."""

    def __init__(self, batch: BatchRecord, rows: pa.Table, hashes: Hashes, making: Making, *, is_last: bool) -> None:
        self.batch, self.rows, self.hashes, self.is_last = batch, rows, hashes, is_last
        positions = rows.column(POSITION).to_numpy()
        self.places = places_of(making, batch, positions)
        self.written = place(batch.root, positions)
        """Where each row's record was first written, as far as looked for."""

    def among(self, parts: Iterable[Touched], *, with_own: bool = False, chosen: Numbers | None = None) -> Suspects:
        """Suspects in these parts; the batch's own rows are none, unless asked for."""
        rows = np.arange(len(self.hashes)) if chosen is None else chosen
        pairs = [(part, *_pairs(part, self.hashes[rows], rows)) for part in parts]
        if not self.is_last:
            for part, row, entry in pairs:
                is_same = part.places[entry] == self.places[row]
                np.minimum.at(self.written, row[is_same], part.files[entry[is_same]])
        found = []
        for part, row, entry in pairs:
            theirs = part.places[entry]
            owns = theirs > self.places[row] if self.is_last else part.files[entry] < self.written[row]
            is_own = (part.files[entry] >> ROW_BITS == self.batch.root) & (not with_own)
            kept = owns & ~is_own & (theirs != self.places[row])
            found.append((row[kept], part.files[entry[kept]]))
        return found


def _pairs(part: Touched, hashes: Hashes, rows: Numbers) -> tuple[Numbers, Numbers]:
    """Each row with each entry of its hash."""
    order = np.argsort(hashes)  # neighbours are found near each other: several times as fast over a large part
    starts = np.searchsorted(part.hashes, hashes[order], "left")
    counts = np.searchsorted(part.hashes, hashes[order], "right") - starts
    return np.repeat(rows[order], counts), np.repeat(starts, counts) + _within(counts)


def _within(counts: Numbers) -> Numbers:
    return np.arange(int(counts.sum()), dtype=np.int64) - np.repeat(np.cumsum(counts) - counts, counts)


def _confirmed(making: Making, asked: _Asked, suspects: Suspects) -> Mask:
    """The rows of which a suspect has the real key; one hash of two keys is seen through."""
    count = asked.rows.num_rows
    found, colliding = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
    row = np.concatenate([np.zeros(0, np.int64), *(rows for rows, _ in suspects)])
    file = np.concatenate([np.zeros(0, np.int64), *(files for _, files in suspects)])
    for seq in np.unique(file >> ROW_BITS).tolist():
        chosen = (file >> ROW_BITS == seq) & ~found[row]
        collides = _other_keys(making, asked, row[chosen], file[chosen] & _ROW, seq)
        found[row[chosen][~collides]] = True
        colliding[row[chosen][collides]] = True
    hidden = np.flatnonzero(colliding & ~found)
    if len(hidden):
        # the index keeps one owner of each hash: who else has it is asked of every sidecar
        for other in making.ledger.batches(asked.batch.pipeline, asked.batch.target):
            if other.state is State.DONE and other.sidecar is not None:
                for rows, files in asked.among([read(making, other, None)], chosen=hidden):
                    collides = _other_keys(making, asked, rows, files & _ROW, other.root)
                    found[rows[~collides]] = True
    return found


def _other_keys(making: Making, asked: _Asked, row: Numbers, positions: Numbers, seq: int) -> Mask:
    """For each pair, whether the record at `positions` of batch `seq` makes another key of the same hash.

    A record of which today's code makes no row of that hash counts as having had the key.
    """
    if not len(row):
        return np.zeros(0, np.bool_)
    rows, hashes, batch = asked.rows, asked.hashes, asked.batch
    key = making.target.key
    theirs = remade(making, making.ledger.batch(batch.pipeline, batch.target, seq), np.unique(positions)).select(
        [*key, POSITION]
    )
    at = theirs.column(POSITION).to_numpy()
    their_hashes = sidecar.key_hashes(theirs, key).to_numpy()
    codes = _codes(pa.concat_tables([rows.select(key), theirs.select(key).cast(rows.select(key).schema)]), key)
    mine, others = codes[: rows.num_rows], codes[rows.num_rows :]
    # by (position, hash): the codes that today's code makes there
    order = np.lexsort((their_hashes, at))
    collides = np.zeros(len(row), np.bool_)
    starts = np.searchsorted(at[order], positions, "left")
    ends = np.searchsorted(at[order], positions, "right")
    counts = ends - starts
    pair = np.repeat(np.arange(len(row)), counts)
    entry = order[np.repeat(starts, counts) + _within(counts)]
    same_hash = their_hashes[entry] == hashes[row[pair]]
    same_key = others[entry] == mine[row[pair]]
    collides[pair[same_hash & ~same_key]] = True
    collides[pair[same_hash & same_key]] = False
    return collides


def _codes(keys: pa.Table, key: tuple[str, ...]) -> Numbers:
    """One number per distinct key; nulls are equal to each other."""
    codes = np.zeros(keys.num_rows, np.int64)
    for name in key:
        encoded = keys.column(name).combine_chunks().dictionary_encode(null_encoding="encode")
        whole = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
        _, codes = np.unique(codes * (len(whole.dictionary) + 1) + whole.indices.to_numpy(), return_inverse=True)
    return codes.astype(np.int64)


def remade(making: Making, batch: BatchRecord, positions: Numbers | None = None) -> pa.Table:
    """The rows that today's code makes of a batch's archived records, or of those with these ordinals.

    Raises:
        FatalError: the archive file is missing or damaged.
    """
    return made_again(making, batch, positions).rows


def made_again(
    making: Making, batch: BatchRecord, positions: Numbers | None = None, by: BatchRecord | None = None
) -> Decoded:
    """As `remade`, with what today's code rejects; joined as `by`, which may be a rewrite of the batch, was.

    Raises:
        FatalError: as `remade`.
    """
    if batch.archive is None:
        raise FatalError(f"{batch.pipeline}: batch {batch.seq} has no archive file")
    raw = making.archive.read(batch.archive)
    chosen = None if positions is None else pa.array(positions, pa.int64())
    made_by = by or batch
    return making.decode(raw, making.splits(batch), chosen, made_by.lookups, made_by.schema_version)


def kept_rows(rows: pa.Table, mask: Mask) -> pa.Table:
    """The rows of which the mask says nothing."""
    return rows.filter(pc.invert(pa.array(mask)))
