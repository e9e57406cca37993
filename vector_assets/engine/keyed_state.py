"""The groups of a pipeline, moved from batch to batch in order, and what of them is kept.

Workers prepare batches side by side; each waits with its part for the groups as the batch before left them (`turn`).
What the batch did to them is written into the archive and counts from the moment that the ledger says STAGED, in the
same transaction. So a batch that is made again starts from the groups of the batch before, whoever makes it, and gives
the same changes; a batch that was discarded did nothing to them.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pyarrow as pa

from vector_assets.engine.aggregation import Aggregation, Groups
from vector_assets.engine.core import Merge, Sink, State, Target
from vector_assets.engine.errors import FatalError, PlanError, StateLostError
from vector_assets.engine.group_files import COUNTED, FileKind, GroupFile, GroupFiles
from vector_assets.engine.ledger_records import BatchRecord
from vector_assets.engine.pipeline import Pipeline

log = logging.getLogger(__name__)
_LEAST_BASE_ROWS = 10_000
_MOST_DELTAS = 1000
"""Files of touched groups before all groups are written again: what a new process reads at its start."""
_WAIT_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Merged:
    """What a batch did: the sink's changes, and what is to be kept of the groups."""

    rows: pa.Table
    kept: pa.Table
    kind: FileKind
    groups: int


@dataclass
class KeyedState:
    """The groups of one session's pipeline, in memory as some batch left them. Threads may share it."""

    aggregation: Aggregation
    memory_bytes: int
    _groups: Groups | None = field(default=None, init=False)
    _head: "tuple[int, int] | None" = field(default=None, init=False)
    _hashes: dict[int, str] = field(default_factory=dict, init=False)
    _failed: int = field(default=0, init=False)
    _since_base: int = field(default=0, init=False)
    _deltas: int = field(default=0, init=False)
    _base_rows: int | None = field(default=None, init=False)
    _changed: threading.Condition = field(default_factory=threading.Condition, init=False)

    def merge(self, files: GroupFiles, batch: BatchRecord, fence: int, partial: pa.Table, *, before: bool) -> Merged:
        """Add a batch's part to the groups of the batch before it, waiting for that one if it is under way.

        Raises:
            StateLostError: the groups of the batch before are missing, damaged or mean something else.
            FatalError: a group has no row, or the batch before failed.
        """
        with self._turn(files, batch, fence) as groups:
            changes = groups.merge(partial, before=before)
            count = groups.count()
            self._since_base += changes.touched.num_rows
            self._deltas += 1
            base = self._base_rows
            is_due = base is None or self._since_base >= max(base, _LEAST_BASE_ROWS) or self._deltas >= _MOST_DELTAS
            if not is_due:
                return Merged(changes.rows, changes.touched, "delta", count)
            whole = groups.whole()
            self._begin(whole.num_rows)
            return Merged(changes.rows, whole, "base", count)

    def _begin(self, base_rows: int | None, deltas: int = 0, rows: int = 0) -> None:
        self._base_rows, self._deltas, self._since_base = base_rows, deltas, rows

    @contextmanager
    def _turn(self, files: GroupFiles, batch: BatchRecord, fence: int) -> Iterator[Groups]:
        with self._changed:
            groups = self._at_batch_before(files, batch, fence)
            self._head = None
            try:
                yield groups
            except BaseException:
                self._fail(fence)
                raise
            self._head = (batch.seq, fence)
            self._hashes.pop(batch.seq, None)
            self._changed.notify_all()

    def wrote(self, found: GroupFile) -> None:
        """Note the file that the merge of its batch was written to, before the ledger knows of it."""
        with self._changed:
            self._hashes[found.seq] = found.file.sha256
            for seq in [seq for seq in self._hashes if seq < found.seq - 10]:
                del self._hashes[seq]

    def fail(self, fence: int) -> None:
        """A batch of this lease will not be merged: those that wait for it shall not."""
        with self._changed:
            self._fail(fence)

    def _fail(self, fence: int) -> None:
        self._failed = max(self._failed, fence)
        self._changed.notify_all()

    def _at_batch_before(self, files: GroupFiles, batch: BatchRecord, fence: int) -> Groups:
        """The groups as the batch before this one left them."""
        while True:
            previous = files.before(batch.seq)
            if previous is None:
                return self._loaded(files, None)
            if previous.state in {State.STAGED, State.DONE}:
                found = files.of(previous.seq)
                is_here = self._head is not None and self._head[0] == previous.seq and self._groups is not None
                if is_here and found is not None and self._hashes.get(previous.seq) == found.file.sha256:
                    assert self._groups is not None
                    return self._groups
                return self._loaded(files, previous)
            if self._head == (previous.seq, fence) and self._groups is not None:
                return self._groups
            if self._failed >= fence:
                raise FatalError(f"{batch.pipeline}: batch {previous.seq} failed before batch {batch.seq} could follow")
            self._changed.wait(_WAIT_SECONDS)

    def _loaded(self, files: GroupFiles, last: BatchRecord | None) -> Groups:
        if self._groups is None:
            self._groups = self.aggregation.open(self.memory_bytes)
        chain = chain_to(files, last, self.aggregation.signature) if last else []
        self._groups.load(tables_of(files, chain))
        if chain:
            self._begin(chain[0].file.rows, len(chain) - 1, sum(each.file.rows for each in chain[1:]))
            log.info("%s: %d groups read from %d files", files.place[0], chain[-1].groups, len(chain))
        else:
            self._begin(None)
        return self._groups

    def close(self) -> None:
        """Give the memory back; what is kept stays."""
        with self._changed:
            if self._groups is not None:
                self._groups.close()
            self._groups = self._head = None


def tables_of(files: GroupFiles, chain: list[GroupFile]) -> Iterator[pa.Table]:
    """The groups in the files of a chain.

    Raises:
        StateLostError: a file is missing or damaged.
    """
    for each in chain:
        try:
            yield files.archive.read(each.file)
        except FatalError as error:
            raise StateLostError(files.place[0], f"the file of batch {each.seq} cannot be used: {error}") from error


def chain_to(files: GroupFiles, last: BatchRecord, signature: str) -> list[GroupFile]:
    """The files that hold the groups after batch `last`: a base, and every delta after it.

    Raises:
        StateLostError: a batch left none, or they are of groups that mean something else.
    """
    pipeline = files.place[0]
    known = {each.seq: each for each in files.all() if each.seq <= last.seq}
    start = max((seq for seq, each in known.items() if each.is_start), default=None)
    if start is None:
        raise StateLostError(pipeline, f"no batch up to {last.seq} left a file of all groups")
    batches = files.ledger.batches(*files.place, after=start)
    seqs = [b.seq for b in batches if b.seq <= last.seq and b.state is not State.DISCARDED and b.kind in COUNTED]
    if missing := [seq for seq in seqs if seq not in known]:
        raise StateLostError(pipeline, f"batch {missing[0]} left no file of its groups")
    chain = [known[start], *(known[seq] for seq in seqs)]
    if any(each.signature != signature for each in chain if each.kind != "empty"):
        raise StateLostError(
            pipeline,
            "the script's GROUP BY, WHERE or aggregates are not those that the groups were made with",
        )
    return chain


def check_groups(pipeline: Pipeline, sink: Sink, target: Target) -> None:
    """Refuse a target in which the rows of groups cannot be kept apart or updated.

    Raises:
        PlanError: the sink takes inserts only, or a group key is no part of the target's key.
    """
    if pipeline.aggregation is None or sink.merge is Merge.CHANGELOG:
        return
    if sink.merge is not Merge.LAST:
        raise PlanError(
            f"{pipeline.name}: a GROUP BY gives updates of its groups' rows, {target.name} is written with merge"
            f" {sink.merge}, which takes inserts only; choose an upsert mode of the sink"
        )
    for text, columns in pipeline.aggregation.keys.items():
        if not columns & set(target.key):
            raise PlanError(
                f"{pipeline.name}: group key {text} is in no column of the key ({', '.join(target.key)}) of"
                f" {target.name}: several groups would have one row"
            )


def says_before(pipeline: Pipeline, sink: Sink, target: Target) -> bool:
    """Whether the sink needs to be told what a row was: not when a group's key never changes its row's."""
    if pipeline.aggregation is None or sink.merge is Merge.CHANGELOG:
        return True
    held = frozenset().union(*pipeline.aggregation.keys.values())
    return not set(target.key) <= held
