"""`replay --rewrite`: archived batches made again by today's code, row by row, none moved backwards.

A rewrite is a batch of its own (`BatchKind.REWRITE`): its own number and sidecar, an empty span, and the archive file
of the batch it rewrites. It takes the pipeline's lease for a batch or a second's worth, so a live run gets in between.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow.compute as pc

from vector_assets.engine import sidecar
from vector_assets.engine.abilities import Overwriting, Replacing
from vector_assets.engine.core import BatchKind, Counts, Merge, Span, State, Target
from vector_assets.engine.env import failpoint
from vector_assets.engine.errors import ExpiredError, PlanError
from vector_assets.engine.ledger_records import BatchRecord
from vector_assets.engine.retention import check_letters, expired_up_to
from vector_assets.engine.run import HANDOVER_SECONDS, Outcome, Runner
from vector_assets.engine.session import Session
from vector_assets.engine.stages import Stages, code_version_of
from vector_assets.engine.touches import remade

log = logging.getLogger(__name__)
_HOLD_SECONDS = 1.0
"""How long the lease is kept before others get their turn."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which batches: of these partitions (keys sort as their times do), with these numbers; ends are included.

    Batches that today's code has rewritten already are passed over, so that a rewrite that was stopped goes on where it
    stood; with `again` they are not.
    """

    from_hour: str | None = None
    to_hour: str | None = None
    first: int = 1
    last: int | None = None
    again: bool = False

    def has(self, batch: BatchRecord) -> bool:
        """The batch is one of them, as far as its number and partition say."""
        return self.first <= batch.seq <= (batch.seq if self.last is None else self.last) and (
            self.from_hour or batch.hour
        ) <= batch.hour <= (self.to_hour or batch.hour)


def check(session: Session) -> Target:
    """The target, if its rows can be replaced: by their key, or by the batch that is noted beside them.

    Raises:
        PlanError: it has no key and no column for the batch, or its sink cannot replace rows.
    """
    target, sink = session.target(), session.sink
    name = session.pipeline.name
    if session.pipeline.aggregation is not None:
        raise PlanError(
            f"{name}: a batch of a GROUP BY cannot be rewritten by itself: the rows that it gave hold the records of"
            " every batch before it, and those of later batches stand on them. To count everything again by today's"
            f" script: `vector-assets reset {name} --to earliest --drop-state` (reads the source again), or"
            f" `vector-assets state rebuild {name}` (from the archive; rows change with their group's next record)"
        )
    if sink.merge is Merge.APPEND and isinstance(sink, Replacing) and sink.batch_column is not None:
        return target
    if not target.key or sink.merge is Merge.APPEND:
        column = "set 'batch_column', " if isinstance(sink, Replacing) else ""
        raise PlanError(
            f"{name}: {target.name} takes rows by append and has no key that tells which rows a batch wrote: a rewrite"
            f" would double them; {column}give the target a key, or make it anew and read again with"
            " `vector-assets reset`"
        )
    if sink.merge is not Merge.LAST and not isinstance(sink, Overwriting):
        raise PlanError(f"{name}: the sink of {target.name} keeps the first row of a key and cannot replace it")
    return target


def selected(session: Session, selection: Selection) -> list[BatchRecord]:
    """The done batches to rewrite, in order."""
    name, target = session.pipeline.name, session.pipeline.target
    batches = session.ledger.batches(name, target)
    version = code_version_of(session.pipeline)
    current = {
        b.root for b in batches
        if b.kind is BatchKind.REWRITE and b.state is State.DONE and b.code_version == version and not selection.again
    }  # fmt: skip
    return [
        batch
        for batch in batches
        if batch.kind in {BatchKind.RECORDS, BatchKind.DEAD_LETTERS}
        and batch.state is State.DONE
        and batch.archive is not None
        and batch.seq not in current
        and selection.has(batch)
    ]


def check_kept(session: Session, selection: Selection, batches: list[BatchRecord]) -> None:
    """Make sure that it can be told which rows the batches own, before any of them is written again.

    Raises:
        ExpiredError: retention removed what tells: the records of a batch that was asked for, or what older batches
            wrote first, or which batches wrote a dead letter's key after it.
    """
    ledger, where = session.ledger, (session.pipeline.name, session.pipeline.target)
    newest = expired_up_to(ledger, *where)
    if not newest:
        return
    if selection == Selection(again=selection.again):
        log.warning("%s: batches up to %d are expired and stay as they are", where[0], newest)
    else:
        first = selection.first if selection.from_hour is None and selection.to_hour is None else 1
        hours, is_folded = (selection.from_hour, selection.to_hour), session.partitioning.is_folded
        ledger.check_kept(*where, hours=hours, first=first, last=selection.last, is_folded=is_folded)
        for row in ledger.batches(*where):
            if row.kind in {BatchKind.RECORDS, BatchKind.DEAD_LETTERS} and selection.has(row):
                row.check_kept()
    lost = [batch.seq for batch in batches if batch.counts.conflicts] if session.sink.merge is not Merge.LAST else []
    if lost:
        listed = ", ".join(map(str, lost[:10])) + (", .." if len(lost) > 10 else "")
        raise ExpiredError(
            f"{where[0]}: batches {listed} hold rows that gave"
            f" way to earlier ones; retention removed what batches up to {newest} wrote, so it cannot be known which:"
            " a rewrite would put them in the others' place. Choose other batches with --seq or --from-batch"
        )
    for batch in batches:
        if batch.kind is BatchKind.DEAD_LETTERS:
            check_letters(ledger, ledger.dead_letters.claimed(*where, batch.seq), session.sink.merge)


def _check_keys(stages: Stages, root: BatchRecord) -> None:
    """A key that the batch did not write before may be that of a row whose batch is expired, which came first."""
    newest = expired_up_to(stages.ledger, root.pipeline, root.target)
    if not newest or stages.sink.merge is Merge.LAST or root.sidecar is None:
        return
    before = sidecar.read(stages.archive, root.sidecar).column("key_hash")
    rows = remade(stages, root)
    is_new = pc.invert(pc.is_in(sidecar.key_hashes(rows, stages.target.key), value_set=before))
    if new := pc.sum(is_new).as_py():
        raise ExpiredError(
            f"{root.pipeline}: batch {root.seq}: today's script makes {new} keys that it did not make before; retention"
            f" removed what batches up to {newest} wrote, so it cannot be known whether one of them wrote such a key"
            " first. Batches before this one are rewritten"
        )


def _check_noted(stages: Stages, root: BatchRecord) -> None:
    """Rows that were appended before the target noted their batch cannot be told from others."""
    sink = stages.sink
    if sink.merge is not Merge.APPEND or not isinstance(sink, Replacing):
        return
    versions = stages.ledger.rewrites_of(root)
    newest = stages.ledger.batch(root.pipeline, root.target, versions[-1]) if versions else root
    if newest.counts.written and not sink.rows_of_batch(root.seq):
        raise PlanError(
            f"{root.pipeline}: batch {newest.seq} wrote {newest.counts.written} rows, and {stages.target.name} has none"
            f" with {root.seq} in column {sink.batch_column}: they were written before 'batch_column' was set, or"
            " somebody removed them. Nothing of it was written; choose other batches with --seq or --from-batch"
        )


def rewrite(runner: Runner, selection: Selection) -> Iterator[Outcome]:
    """Make the selected batches again, oldest first; one outcome for each rewriting batch.

    Raises:
        PlanError: the target's rows cannot be replaced (`check`).
        ExpiredError: retention removed what tells whose the rows are (`check_kept`).
        LeaseHeldError: another worker kept the lease.
    """
    session = runner.session
    check(session)
    waiting = selected(session, selection)
    check_kept(session, selection, waiting)
    waiting.reverse()
    while waiting and not runner.stop.is_set():
        with session.leased() as stages:
            yield from runner.resume(stages)
            until = time.monotonic() + _HOLD_SECONDS
            while waiting and not runner.stop.is_set():
                yield _rewritten(runner, stages, waiting.pop())
                runner.has_batch_in_hand = False
                if time.monotonic() >= until:
                    break
        if waiting:
            runner.stop.wait(HANDOVER_SECONDS)


def _rewritten(runner: Runner, stages: Stages, root: BatchRecord) -> Outcome:
    ledger = runner.ledger
    _check_keys(stages, root)
    _check_noted(stages, root)
    records = Counts(records=root.counts.records, bytes=root.counts.bytes)
    # in one transaction: a rewriting batch is known by the archive file that sealing gives it
    with ledger.store.transaction():
        batch = runner.plan(stages, BatchKind.REWRITE, Span(), root.hour)
        ledger.seal(stages.lease, batch.seq, Span(), root.archive, records=records, newest_ms=root.newest_ms)
    failpoint("sealed")
    return runner.finish(stages, ledger.batch(root.pipeline, root.target, batch.seq))
