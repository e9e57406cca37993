"""What is kept no longer: records in the archive, batches as rows of the ledger, bytes of dead letters.

Only what a pipeline's settings limit goes, and only from the old end: batches up to one sequence number, none of them
unfinished, never the newest. The ledger says that a batch is expired before its file is deleted, and a batch is folded
only after: killed at any point, the next retention goes on.
"""

from dataclasses import dataclass
from datetime import timedelta

from vector_assets.engine.abilities import Prunable
from vector_assets.engine.core import BatchKind, Counts, Json, Merge, Split, State, canonical
from vector_assets.engine.dead_letters import DeadLetter
from vector_assets.engine.errors import ExpiredError
from vector_assets.engine.lease import Lease
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.ledger_records import BatchRecord, Fold
from vector_assets.engine.pipeline import Pipeline
from vector_assets.engine.retry import call
from vector_assets.engine.session import Session

_SETTLED = {State.DONE, State.DISCARDED}


@dataclass(frozen=True, slots=True)
class RetentionPlan:
    """What is too old: batches whose records leave the archive, batches to be folded, dead letters to be purged.

    `waits_for` is the unfinished batch that keeps everything as it is, None for none.
    """

    pipeline: str
    expiring: tuple[BatchRecord, ...] = ()
    folding: tuple[BatchRecord, ...] = ()
    letters: tuple[int, ...] = ()
    open_letters: int = 0
    waits_for: int | None = None

    @property
    def is_empty(self) -> bool:
        """True when nothing is too old."""
        return not (self.expiring or self.folding or self.letters)

    @property
    def bytes(self) -> int:
        """Bytes of the archive files that go."""
        files = [file for row in self.expiring for file in (row.archive, row.sidecar) if file]
        return sum(file.bytes for file in files)


def plan_retention(ledger: Ledger, pipeline: Pipeline) -> RetentionPlan:
    """What is older than the pipeline's settings keep; nothing is changed."""
    settings, where = pipeline.settings, (pipeline.name, pipeline.target)
    unfinished = ledger.unfinished(*where)
    if any(batch.kind in {BatchKind.DEAD_LETTERS, BatchKind.REWRITE} for batch in unfinished):
        # it may need the key sidecars of any batch, and a rewrite needs the records of its root
        return RetentionPlan(pipeline.name, waits_for=unfinished[0].seq)
    rows = ledger.batches(*where)
    if pipeline.aggregation is not None:
        # what comes after an older file of all groups can make them again, should the newer one be damaged
        needed = ledger.oldest_groups(*where)
        rows = [row for row in rows if needed is not None and row.seq <= needed]
    folding = _older(rows, settings.retention_ledger, ledger)
    archive_limits = [age for age in (settings.retention_archive, settings.retention_ledger) if age is not None]
    old = _older(rows, min(archive_limits, default=None), ledger)
    last = old[-1].seq if old else 0
    # a rewrite has no records but its root's
    old = old + [row for row in rows[len(old) :] if row.kind is BatchKind.REWRITE and row.root <= last]
    # a row that is expired and still names its file was left so by a retention that was killed
    expiring = tuple(
        row for row in old if row.kind is not BatchKind.RESET and (row.expired_ms is None or row.archive is not None)
    )
    letters = _old_letters(ledger, where, settings.retention_dead_letters)
    return RetentionPlan(
        pipeline.name,
        expiring,
        tuple(folding),
        tuple(letter.id for letter in letters),
        sum(letter.state == "open" for letter in letters),
    )


def _older(rows: list[BatchRecord], age: timedelta | None, ledger: Ledger) -> list[BatchRecord]:
    """The batches from the oldest on that were settled longer than `age` ago, but the newest of all."""
    if age is None:
        return []
    limit = ledger.now_ms() - int(age.total_seconds() * 1000)
    for number, row in enumerate(rows):
        if row.state not in _SETTLED or (row.done_ms or row.planned_ms) >= limit or number == len(rows) - 1:
            return rows[:number]
    return []


def _old_letters(ledger: Ledger, where: tuple[str, str], age: timedelta | None) -> list[DeadLetter]:
    if age is None:
        return []
    limit = ledger.now_ms() - int(age.total_seconds() * 1000)
    states = ("open", "replayed")
    found = [x for state in states for x in ledger.dead_letters.listed(where[0], state=state)]
    return [letter for letter in found if letter.target == where[1] and letter.created_ms < limit]


def apply_retention(session: Session) -> RetentionPlan:
    """Let go of what is too old, under the pipeline's lease; what went.

    Raises:
        LeaseHeldError: a worker kept the pipeline.
        FatalError: a file cannot be deleted.
        UnavailableError: the target cannot be reached; ledger and archive are done by then.
    """
    pipeline, ledger = session.pipeline, session.ledger
    where = (pipeline.name, pipeline.target)
    with session.lease() as lease:
        plan = plan_retention(ledger, pipeline)
        _expire(session, lease, plan)
        if plan.folding:
            _fold(ledger, lease, plan.folding)
        purged = ledger.dead_letters.purge(plan.letters)
        if not plan.is_empty:
            detail = {"expired": len(plan.expiring), "folded": len(plan.folding), "dead_letters_purged": purged}
            ledger.record_event(pipeline.name, "retention", canonical(detail))
        fold, sink = ledger.fold(*where), session.sink
        if fold and isinstance(sink, Prunable):
            call(session.sink_policy, lambda: sink.prune(pipeline.name, fold.seq), place=f"{pipeline.name}: pruning")
    return plan


def _expire(session: Session, lease: Lease, plan: RetentionPlan) -> None:
    """First the ledger says so, then the files go, then the rows forget them."""
    ledger, archive = session.ledger, session.books.archive
    if not plan.expiring:
        return
    rows = [(lease.pipeline, lease.target, row.seq) for row in plan.expiring]
    condition = "pipeline = ? AND target = ? AND seq = ?"
    now = ledger.now_ms()
    with ledger.fenced(lease):
        ledger.store.change_many(
            f"UPDATE batches SET expired_ms = ? WHERE {condition} AND expired_ms IS NULL", [(now, *row) for row in rows]
        )
    for row in plan.expiring:
        if row.archive:
            archive.remove_batch(row.archive)
        if row.sidecar:
            # that of a rewrite does not stand beside the records
            archive.remove_batch(row.sidecar)
    with ledger.fenced(lease):
        ledger.store.change_many(f"UPDATE batches SET archive = NULL, sidecar = NULL WHERE {condition}", rows)


def _fold(ledger: Ledger, lease: Lease, rows: tuple[BatchRecord, ...]) -> None:
    """The rows become one: their sums, and where each split stood then. Their settled dead letters go with them."""
    where = (lease.pipeline, lease.target)
    before = ledger.fold(*where) or Fold(0, "", 0, 0, Counts(), {})
    done = [row for row in rows if row.state is State.DONE]
    ends: dict[Split, Json] = dict(before.ends)
    for row in done:
        ends |= row.span.end
    last = rows[-1]
    _, counts = ledger.sums(*where, up_to=last.seq)
    values = (
        *where, last.seq, max(before.hour, *(row.hour for row in rows)), before.batches + len(done),
        before.discarded + len(rows) - len(done), canonical((before.counts + counts).to_dict()), canonical(ends),
        ledger.now_ms(),
    )  # fmt: skip
    with ledger.fenced(lease):
        ledger.store.change("DELETE FROM folds WHERE pipeline = ? AND target = ?", where)
        ledger.store.change(f"INSERT INTO folds VALUES ({', '.join('?' * len(values))})", values)
        ledger.store.change("DELETE FROM batches WHERE pipeline = ? AND target = ? AND seq <= ?", (*where, last.seq))
        ledger.store.change(
            # the batch that replayed a letter tells by it where its records came from
            "DELETE FROM dead_letters WHERE pipeline = ? AND target = ? AND seq <= ?"
            " AND state IN ('replayed', 'purged') AND (replayed_by IS NULL OR replayed_by <= ?)",
            (*where, last.seq, last.seq),
        )


def expired_up_to(ledger: Ledger, pipeline: str, target: str) -> int:
    """The newest batch of which neither records nor keys are kept any more, 0 for none."""
    where = (pipeline, target)
    fold = ledger.fold(*where)
    row = ledger.store.row(
        "SELECT max(seq) AS newest FROM batches WHERE pipeline = ? AND target = ? AND expired_ms IS NOT NULL"
        " AND kind <> 'rewrite'",
        where,
    )
    return max(int(row["newest"] or 0) if row else 0, fold.seq if fold else 0)


def check_letters(ledger: Ledger, letters: list[DeadLetter], merge: Merge) -> None:
    """Make sure that it can be told which keys later batches wrote, before these letters are written again.

    Raises:
        ExpiredError: the keys of a letter's own batch or a later one are gone, and the sink keeps a key's last row.
    """
    if merge is not Merge.LAST or not letters:
        return
    newest = expired_up_to(ledger, letters[0].pipeline, letters[0].target)
    for letter in letters:
        if newest >= letter.origin_seq:
            raise ExpiredError(
                f"{letter.pipeline}: dead letter {letter.id} was read by batch {letter.origin_seq}; retention removed"
                f" what batches up to {newest} tell of their keys, so it cannot be known whether a later record wrote"
                " its key: mend the row by hand, and purge the letter"
            )
