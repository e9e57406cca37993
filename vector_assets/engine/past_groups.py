"""Groups as they once were, made again from the archive: for replays, for lost state, and to check what is kept.

What was counted is counted again: the records of every batch that is done, without those that were rejected then (they
were not counted, or by the batch that replayed them).
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from vector_assets.engine.aggregation import Groups
from vector_assets.engine.core import State
from vector_assets.engine.errors import ExpiredError, FatalError, StateLostError
from vector_assets.engine.group_files import COUNTED, GroupFile
from vector_assets.engine.keyed_state import Merged, chain_to, says_before, tables_of
from vector_assets.engine.ledger_records import BatchRecord
from vector_assets.engine.stages import Stages

log = logging.getLogger(__name__)


@dataclass
class PastGroups:
    """Groups that walk from batch to batch through the archive. Close them when done.

    With `is_anew` they start from nothing (or from where an operator dropped them), whatever files of groups there are.
    """

    stages: Stages
    is_anew: bool = False
    at: int = field(default=0, init=False)
    """The batch that they stand after; 0 before the first."""
    replayed: int = field(default=0, init=False)
    """How many batches were added from the archive."""
    rejected: int = field(default=0, init=False)
    """Records that were counted once and that today's code rejects."""
    _groups: Groups | None = field(default=None, init=False)

    @property
    def groups(self) -> Groups:
        """The groups; none before the first batch."""
        if self._groups is None:
            aggregation = self.stages.pipeline.aggregation
            assert aggregation is not None, "only a GROUP BY has groups"
            self._groups = aggregation.open(self.stages.pipeline.settings.state_memory)
        return self._groups

    def merge(self, batch: BatchRecord, partial: pa.Table) -> Merged:
        """What the batch did to the groups, or would do to them now.

        Raises:
            ExpiredError: retention removed the records of a batch before it.
            FatalError: an archive file is missing or damaged.
        """
        previous = self.stages.group_files.before(batch.seq)
        self.go_to(previous.seq if previous else 0)
        before = says_before(self.stages.pipeline, self.stages.sink, self.stages.target)
        changes = self.groups.merge(partial, before=before)
        self.at = batch.seq
        return Merged(changes.rows, changes.touched, "delta", self.groups.count())

    def go_to(self, seq: int) -> None:
        """Stand after batch `seq`.

        Raises:
            ExpiredError: retention removed the records of a batch that is needed.
            FatalError: an archive file is missing or damaged.
        """
        if self.at == seq and self._groups is not None:
            return
        if self._groups is None or self.at > seq:
            self._start(seq)
        for batch in self._batches(self.at, seq):
            self._add(batch)
        self.at = seq

    def _batches(self, after: int, last: int) -> Iterator[BatchRecord]:
        where = self.stages.group_files.place
        for batch in self.stages.ledger.batches(*where, after=after):
            if batch.seq <= last and batch.kind in COUNTED and batch.state is not State.DISCARDED:
                yield batch

    def _add(self, batch: BatchRecord) -> None:
        stages, aggregation = self.stages, self.stages.pipeline.aggregation
        batch.check_kept()
        if batch.archive is None or aggregation is None:
            raise FatalError(f"{batch.pipeline}: batch {batch.seq} has no archive file: its groups cannot be made")
        raw = stages.archive.read(batch.archive)
        rejected = stages.ledger.dead_letters.ordinals(batch.pipeline, batch.target, [batch.seq])
        chosen = pa.array(np.setdiff1d(np.arange(raw.num_rows), rejected), pa.int64()) if rejected else None
        decoded = stages.decode(raw, stages.splits(batch), chosen)
        if decoded.rejected.num_rows:
            log.warning("%s: batch %d: %d records that were counted are rejected by today's code",
                        batch.pipeline, batch.seq, decoded.rejected.num_rows)  # fmt: skip
            self.rejected += decoded.rejected.num_rows
        self.groups.add(aggregation.partial(decoded.rows))
        self.replayed += 1

    def _start(self, seq: int) -> None:
        """Load the newest groups that are kept of a batch up to `seq`, if the records after it are kept too."""
        for found in self._starts(seq):
            lost = [batch.seq for batch in self._batches(found.seq, seq) if batch.archive is None]
            if lost:
                break
            try:
                self.groups.load(tables_of(self.stages.group_files, [found]))
            except StateLostError as error:
                log.warning("%s", error)
                continue
            self.at = found.seq
            return
        fold = self.stages.ledger.fold(*self.stages.group_files.place)
        lost = [batch.seq for batch in self._batches(0, seq) if batch.archive is None]
        if fold or lost:
            name, last = self.stages.pipeline.name, max(lost, default=fold.seq if fold else 0)
            raise ExpiredError(
                f"{name}: the groups cannot be made again: retention removed the records of batches up to {last}, and"
                f" no file of groups after them can be used; `vector-assets reset {name} --to ... --drop-state` begins"
                " anew"
            )
        self.groups.load([])
        self.at = 0

    def _starts(self, seq: int) -> Iterator[GroupFile]:
        """Files of all groups, the newest first, that mean what today's script says."""
        files, signature = self.stages.group_files, self.stages.pipeline.aggregation
        assert signature is not None, "only a GROUP BY has groups"
        found = [each for each in (files.all() or files.on_disk()) if each.is_start and each.seq <= seq]
        for each in sorted(found, key=lambda each: -each.seq):
            if each.kind == "empty" or (each.signature == signature.signature and not self.is_anew):
                yield each

    def close(self) -> None:
        """Give the memory back; idempotent."""
        if self._groups is not None:
            self._groups.close()


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What `rebuild_state` did: the batch that the groups stand after, how many there are, and of how many batches."""

    seq: int
    groups: int
    replayed: int
    rejected: int


def rebuild_state(stages: Stages, *, is_anew: bool = False) -> Rebuilt | None:
    """Make the groups again from the archive and let nothing else count; None before the first batch.

    Unfinished batches start from them when they are finished.

    Raises:
        ExpiredError: retention removed the records of a batch that is needed.
        FatalError: an archive file is missing or damaged.
    """
    files, ledger = stages.group_files, stages.ledger
    last = last_done(stages)
    if last is None:
        return None
    past = PastGroups(stages, is_anew=is_anew)
    try:
        past.go_to(last.seq)
        table, count = past.groups.whole(), past.groups.count()
        aggregation = stages.pipeline.aggregation
        assert aggregation is not None, "only a GROUP BY has groups"
        found = files.write(last.seq, last.hour, stages.lease.fence, "base", aggregation.signature, table, count)
    finally:
        past.close()
    with ledger.fenced(stages.lease):
        files.forget([each for each in files.all() if each.kind != "empty" or each.seq == last.seq])
        files.note(found)
        ledger.record_event(stages.pipeline.name, "state-rebuild", f"{count} groups after batch {last.seq}")
    files.sweep()
    return Rebuilt(last.seq, count, past.replayed, past.rejected)


def last_done(stages: Stages) -> BatchRecord | None:
    """The newest batch whose records are in groups and in the target."""
    where = stages.group_files.place
    done = (b for b in stages.ledger.batches(*where, newest_first=True) if b.state is State.DONE)
    return next((b for b in done if b.kind in COUNTED or _drops(stages, b.seq)), None)


def _drops(stages: Stages, seq: int) -> bool:
    found = stages.group_files.of(seq)
    return found is not None and found.kind == "empty"


def kept_groups(stages: Stages, last: BatchRecord | None) -> Groups:
    """The groups after batch `last` as they are kept; close them when done.

    Raises:
        StateLostError: they are missing, damaged or mean something else.
    """
    aggregation = stages.pipeline.aggregation
    assert aggregation is not None, "only a GROUP BY has groups"
    chain = chain_to(stages.group_files, last, aggregation.signature) if last else []
    groups = aggregation.open(stages.pipeline.settings.state_memory)
    groups.load(tables_of(stages.group_files, chain))
    return groups
