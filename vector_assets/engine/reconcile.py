"""Reconcile: the books against themselves, and the target's content against what the archive makes of it today.

The cut: batches that were done before are added without the lease; then, under the lease, what was done since, and the
scan is begun, whose snapshot holds exactly the batches added; the lease is given back before the rows are read.
"""

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain

import pyarrow as pa

from vector_assets.engine.abilities import Auditable, VectorAuditable
from vector_assets.engine.core import BatchKind, Counts, Merge, Position, State, canonical
from vector_assets.engine.counting import is_balanced, is_weighable
from vector_assets.engine.difference import Difference, Finding
from vector_assets.engine.errors import ExpiredError, FencedError, PlanError
from vector_assets.engine.expected import Expected
from vector_assets.engine.group_reconcile import compare_groups
from vector_assets.engine.ledger_records import BatchRecord
from vector_assets.engine.retry import call
from vector_assets.engine.session import Session
from vector_assets.engine.stages import Stages

SHOWN = 20
"""Findings of each kind that are shown with their key."""
VECTORS = 20
"""Vectors made by the target itself that are made again and compared."""


@dataclass(frozen=True, slots=True)
class Equation:
    """Two numbers that must be equal; `note` says what they are."""

    name: str
    left: int
    right: int
    note: str

    @property
    def holds(self) -> bool:
        """They are."""
        return self.left == self.right


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What was found. `last` is the newest batch that was looked at; `counts` has every kind of finding that occurs.

    `sampled` is None after a full comparison, else how many keys were looked at; `is_appended` says that rows are
    appended, so that no rewrite can replace them.
    """

    pipeline: str
    target: str
    last: int
    equations: tuple[Equation, ...]
    expected_rows: int
    target_rows: int
    counts: dict[str, int]
    findings: tuple[Finding, ...]
    not_compared: tuple[str, ...] = ()
    sampled: int | None = None
    seconds: float = 0.0
    is_appended: bool = False

    def is_right(self, *, foreign_ok: bool = False) -> bool:
        """All equations hold and the content is as it should be; rows of others count unless they are allowed.

        Rows of batches that are expired were not compared, and do not count.
        """
        passed = {"expired", "foreign"} if foreign_ok else {"expired"}
        wrong = sum(count for kind, count in self.counts.items() if kind not in passed)
        return wrong == 0 and all(equation.holds for equation in self.equations)


@dataclass
class Cut:
    """The batches that are in the target at one moment, and the scan of that moment."""

    batches: list[BatchRecord] = field(default_factory=list)
    position: Position = field(default_factory=dict)
    first: list[pa.RecordBatch] = field(default_factory=list)
    last: int = 0


def auditable(session: Session) -> Auditable:
    """The sink, if it can read its target back.

    Raises:
        PlanError: it cannot.
    """
    if not isinstance(session.sink, Auditable):
        raise PlanError(
            f"{session.pipeline.name}: the sink of {session.pipeline.target} cannot read its target back: what it holds"
            " could not be verified"
        )
    return session.sink


def reconcile(session: Session, *, shown: int = SHOWN) -> Reconciliation:
    """Compare the ledger's counts, the target's tokens and every row of the target.

    Raises:
        PlanError: the target cannot be read back.
        LeaseHeldError: a run kept the lease, so that no consistent cut was possible.
        FatalError: an archive file, a sidecar or a token is missing or damaged.
    """
    began = time.monotonic()
    sink = auditable(session)
    if session.pipeline.aggregation is not None:
        return _reconcile_groups(session, sink, shown)
    with session.leased() as stages:
        pass  # its target and its decoder serve without the lease
    expected = Expected(stages, sink, session.sink.merge)
    done = [batch for batch in _batches(session) if batch.state is State.DONE]
    for batch in done:
        expected.add(batch)
    with _begun(sink) as scan:
        cut = _cut(session, expected, done, scan)
        difference = Difference(stages, expected)
        for rows in chain(cut.first, scan):
            difference.add(pa.Table.from_batches([rows]))
    findings, counts = difference.findings(cut.batches, shown, _expired_rows(session, cut))
    return Reconciliation(
        session.pipeline.name,
        session.pipeline.target,
        cut.last,
        (*_equations(session, stages, cut), *vector_equations(session)),
        difference.expected_rows,
        difference.target_rows,
        counts,
        tuple(findings),
        tuple(difference.not_compared),
        seconds=round(time.monotonic() - began, 3),
        is_appended=session.sink.merge is Merge.APPEND,
    )


def _reconcile_groups(session: Session, sink: Auditable, shown: int) -> Reconciliation:
    """As `reconcile`, of a GROUP BY."""
    found = compare_groups(session, sink, _is_applied, shown)
    with session.leased() as stages:
        pass
    cut = Cut(found.batches, found.position, last=max((batch.seq for batch in found.batches), default=0))
    difference = found.difference
    return Reconciliation(
        session.pipeline.name,
        session.pipeline.target,
        cut.last,
        (*_equations(session, stages, cut), *vector_equations(session)),
        difference.stored.num_rows,
        difference.target_rows,
        difference.counts,
        tuple(difference.findings),
        found.not_compared,
        seconds=found.seconds,
    )


def vector_equations(session: Session, sample: int = VECTORS) -> tuple[Equation, ...]:
    """What the target says of vectors that it makes itself; nothing where it makes none."""
    sink = session.sink
    if not isinstance(sink, VectorAuditable):
        return ()
    found = call(
        session.sink_policy, lambda: tuple(sink.audit_vectors(sample)), place=f"{session.pipeline.name}: vectors"
    )
    return tuple(Equation(each.name, each.left, each.right, each.note) for each in found)


@contextmanager
def _begun(sink: Auditable) -> Iterator[Iterator[pa.RecordBatch]]:
    """A scan that gives its connection back, however far it was read."""
    scan = sink.scan()
    try:
        yield scan
    finally:
        if isinstance(scan, Generator):
            scan.close()


def _batches(session: Session, after: int = 0) -> list[BatchRecord]:
    return session.ledger.batches(session.pipeline.name, session.pipeline.target, after=after)


def _cut(session: Session, expected: Expected, done: list[BatchRecord], scan: Iterator[pa.RecordBatch]) -> Cut:
    """Add what was done since, begin the scan, all under the lease."""
    known = {batch.seq for batch in done}
    with session.leased() as stages:
        batches = list(done)
        for batch in _batches(session):
            if batch.seq in known or not _is_applied(session, stages, batch):
                continue
            expected.add(batch)
            batches.append(batch)
        first = next(scan, None)
        position = session.ledger.position(session.pipeline.name, session.pipeline.target)
    last = max((batch.seq for batch in batches), default=0)
    return Cut(batches, position, [first] if first is not None else [], last)


def _is_applied(session: Session, stages: Stages, batch: BatchRecord) -> bool:
    """Done, or in the target although a crash kept the ledger from hearing of it."""
    if batch.state is State.STAGED:
        token = batch.token(stages.lease.fence)
        found = call(
            stages.policy, lambda: session.sink.find(token, batch.committable), place=f"{batch.pipeline}: looking"
        )
        return found == "APPLIED"
    return batch.state is State.DONE


def _expired_rows(session: Session, cut: Cut) -> int:
    """How many rows the batches wrote of which retention keeps nothing."""
    fold = session.ledger.fold(session.pipeline.name, session.pipeline.target)
    expired = [batch for batch in cut.batches if batch.expired_ms is not None and batch.kind is not BatchKind.REWRITE]
    return sum(batch.counts.written for batch in expired) + (fold.counts.written if fold else 0)


def _equations(session: Session, stages: Stages, cut: Cut) -> Iterator[Equation]:
    done = [batch for batch in cut.batches if batch.state is State.DONE]
    weighed = [batch for batch in done if is_weighable(batch)]
    unknown = [batch.seq for batch in done if not is_weighable(batch)]
    of = f"without {_few(unknown)}, which a rebuild knows by number only" if unknown else "of all batches"
    total = sum((batch.counts for batch in weighed), Counts())
    gone = (
        total.filtered + total.compacted + total.conflicts + total.superseded + total.refused + total.written
        + total.deleted
    )  # fmt: skip
    read = [batch for batch in weighed if batch.kind is BatchKind.RECORDS]
    offsets, records = sum(_offsets(session, batch) for batch in read), sum(batch.counts.records for batch in read)
    holes = max(offsets - records, 0)
    yield Equation("offsets = records + holes", offsets, records + holes, f"{records} records, {holes} holes")
    yield Equation("records = decoded + rejected", total.records, total.decoded + total.rejected, of)
    yield Equation(
        "rows = filtered + compacted + conflicts + superseded + refused + written + deleted", total.rows, gone, of,
    )  # fmt: skip
    unbalanced = [batch.seq for batch in weighed if not is_balanced(batch.counts)]
    yield Equation("batches out of balance = 0", len(unbalanced), 0, _few(unbalanced))
    short = [batch.seq for batch in done if batch.archive and _is_short(batch)]
    yield Equation("batches whose archive has other records = 0", len(short), 0, _few(short))
    where = (session.pipeline.name, session.pipeline.target)
    fold = session.ledger.fold(*where)
    broken = _breaks(done, (session.ledger.frozen_start(*where) or {}) | (fold.ends if fold else {}))
    ends = sum(1 for split, token in _ends(done).items() if canonical(token) != canonical(cut.position.get(split)))
    yield Equation("spans that do not meet = 0", len(broken) + ends, 0, _few(broken))
    confirmed = {batch.seq: _is_confirmed(session, stages, batch) for batch in done}
    wrong = [seq for seq, is_right in confirmed.items() if is_right is False]
    older = sum(1 for is_right in confirmed.values() if is_right is None)
    note = f"{_few(wrong)}; of {older} older ones the target knows only that they are applied" if older else _few(wrong)
    yield Equation("batches the target counts otherwise = 0", len(wrong), 0, note)


def _offsets(session: Session, batch: BatchRecord) -> int:
    return session.source.lag(batch.span.start, batch.span.end)


def _is_short(batch: BatchRecord) -> bool:
    return (
        batch.kind is not BatchKind.REWRITE and batch.archive is not None and batch.archive.rows != batch.counts.records
    )


def _breaks(done: Sequence[BatchRecord], start: Position) -> list[int]:
    """Batches that do not begin where the batch before them ended."""
    position, broken = dict(start), []
    for batch in done:
        for part in batch.span.ranges:
            if part.split in position and canonical(position[part.split]) != canonical(part.start):
                broken.append(batch.seq)
            position[part.split] = part.end
    return broken


def _ends(done: Sequence[BatchRecord]) -> dict[str, object]:
    return {part.split: part.end for batch in done for part in batch.span.ranges}


def _is_confirmed(session: Session, stages: Stages, batch: BatchRecord) -> bool | None:
    """The target's token row says what the ledger says; None when it is too old for the target to have counts of it."""
    token = batch.token(stages.lease.fence)
    try:
        counts = session.sink.receipt(token).counts
    except FencedError:
        return False
    except ExpiredError:
        return None
    names = ("written", "conflicts", "deleted")
    return all(getattr(counts, name) == getattr(batch.counts, name) for name in names)


def _few(numbers: Sequence[int]) -> str:
    listed = ", ".join(map(str, numbers[:10])) + (", .." if len(numbers) > 10 else "")
    return f"batches {listed}" if numbers else "none"
