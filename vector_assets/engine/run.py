"""The only loop: plans, reads, prepares and commits batches; the only place where order and retries are decided.

One reader thread plans and reads, two workers archive, decode and stage, and the thread that iterates commits, strictly
in sequence. At most `IN_FLIGHT` batches exist at once, which is what bounds memory.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine import links
from vector_assets.engine.abilities import Doubting
from vector_assets.engine.captured import gathered
from vector_assets.engine.core import BatchKind, BatchLimit, Counts, Json, Position, Receipt, Span, Split, State
from vector_assets.engine.counting import is_balanced, settled
from vector_assets.engine.dead_letters import raw_records
from vector_assets.engine.env import failpoint
from vector_assets.engine.errors import (
    BudgetError,
    DamagedError,
    FatalError,
    PlanError,
    PositionLostError,
    RowsRefusedError,
)
from vector_assets.engine.gaps import Gaps
from vector_assets.engine.lease import LeaseHeldError
from vector_assets.engine.ledger_records import BatchRecord
from vector_assets.engine.limits import AdaptiveLimit
from vector_assets.engine.overtaking import Overtaking
from vector_assets.engine.partitioning import check_readable
from vector_assets.engine.past_groups import PastGroups
from vector_assets.engine.retry import attempts, call
from vector_assets.engine.session import Session
from vector_assets.engine.stages import Prepared, Stages

log = logging.getLogger(__name__)
IN_FLIGHT = 3
WORKERS = 2
_UNLIMITED = 1 << 62
_IDLE_SECONDS = 0.05
_PAUSED_SECONDS = 0.5
HANDOVER_SECONDS = 0.15  # longer than a waiting worker's look at the lease, so that a backfill gets in between
_ORPHAN_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """A batch that is in the target.

    `how`: `applied` now, or `found` there (a crash had hidden it, or a replay had nothing to do). `lag` is in records
    behind the frontier the run saw; `age_seconds` is how long ago the batch's newest record was written to the source.
    """

    batch: BatchRecord
    how: Literal["applied", "found"]
    lag: int | None = None
    age_seconds: float | None = None


class Runner:
    """Runs one pipeline by its session. Every method takes the lease itself.

    `has_batch_in_hand` is true from the start of a batch's commit until its outcome has been taken.
    """

    def __init__(self, session: Session, stop: threading.Event | None = None) -> None:
        self.session = session
        self.pipeline = session.pipeline
        self.ledger = session.ledger
        self.stop = session.stop = stop or session.stop
        self.has_batch_in_hand = False
        self._limits: AdaptiveLimit | None = None
        self._gaps = Gaps(session)

    def drain(self, hour: str | None) -> Generator[Outcome, None, None]:
        """Finish what is unfinished, then read up to the frontier seen now; ends when the partition `hour` ends.

        Of a source with partitions of its own, the partition `hour` alone is read, or all of them for None.
        """
        with self.session.leased() as stages:
            yield from self.resume(stages)
            yield from self._advance(stages, hour)

    def catch_up(self) -> Iterator[Outcome]:
        """Drain, and go on into the next partition when one ends before the frontier is reached."""
        partitioning = self.session.partitioning
        while True:
            hour = partitioning.now()
            yield from self.drain(hour)
            if partitioning.is_open(hour) or self.stop.is_set():
                return

    def follow(self, look: Callable[[], None] = lambda: None) -> Iterator[Outcome]:
        """Drain again and again until `stop` is set or a bound is reached, with the lease taken anew for each round.

        While the pipeline is paused it rests; `look` is called before every batch and rest, to see whether it is.
        """
        while not self.stop.is_set():
            look()
            if links.is_paused(self.ledger, self.pipeline.name):
                self.stop.wait(_PAUSED_SECONDS)
                continue
            try:
                with closing(self.drain(self.session.partitioning.now())) as draining:
                    for outcome in draining:
                        yield outcome
                        self.has_batch_in_hand = False
                        look()
                        if links.is_paused(self.ledger, self.pipeline.name):
                            break
            except LeaseHeldError as error:
                log.info("%s; waiting on", error)
                continue
            if self.session.is_finished():
                log.info("%s: finished: its bound is reached", self.pipeline.name)
                return
            look()
            self._await_records()

    def replay(self, hour: str | None = None, *, first: int = 1, last: int | None = None) -> Iterator[Outcome]:
        """Apply again, from the archive, what the target does not have of an hour's (or all) batches.

        What is unfinished comes last, as everywhere: a target made anew takes it only after all that was done before.
        """
        where = (self.pipeline.name, self.pipeline.target)
        with self.session.leased() as stages, closing(PastGroups(stages)) as past:
            overtaking = Overtaking(stages)
            is_folded = self.session.partitioning.is_folded
            self.ledger.check_kept(*where, hours=(hour, hour), first=first, last=last, is_folded=is_folded)
            for batch in self.ledger.batches(*where, hour=hour, after=first - 1):
                is_asked_for = last is None or batch.seq <= last
                if batch.state is State.DONE and is_asked_for:
                    yield self._apply_again(stages, batch, past, overtaking)
                    self.has_batch_in_hand = False
            for outcome in self.resume(stages):
                if hour in (None, outcome.batch.hour):
                    yield outcome
                self.has_batch_in_hand = False

    def settle(self, partition: str) -> Iterator[Outcome]:
        """Replay a partition of the source's own; then read what is left of it.

        Raises:
            PlanError: something is left, but the source does not let it be read; nothing was read.
        """
        own = self.session.partitioning.own
        yield from self.replay(partition)
        if own is None or not own.is_read(partition, self.ledger.position(self.pipeline.name, self.pipeline.target)):
            yield from self.read_partition(partition)

    def read_partition(self, partition: str) -> Iterator[Outcome]:
        """Drain one partition of the source's own.

        Raises:
            PlanError: there is no such partition, or it is not to be read (yet); the message says why.
        """
        call(
            self.session.source_policy,
            lambda: check_readable(self.session.source, partition, place=self.pipeline.name),
            place=f"{self.pipeline.name}: asking the source",
        )
        yield from self.drain(partition)

    def _apply_again(self, stages: Stages, batch: BatchRecord, past: PastGroups, overtaking: Overtaking) -> Outcome:
        if self._find(stages, batch) == "APPLIED":
            return Outcome(batch, "found")
        batch.check_kept()
        raw = stages.archive.read(batch.archive) if batch.archive else self._no_records()

        def prepare(refused: pa.Table | None) -> Prepared:
            prepared, *rows = stages.prepare(batch, raw, refused, merge=lambda part: past.merge(batch, part))
            overtaking.check(batch, *rows)
            return prepared

        _, receipt, _ = self._commit(stages, prepare(None), prepare)
        self.ledger.record_event(batch.pipeline, "replay", f"batch {batch.seq} applied again: {receipt.commit_id}")
        return Outcome(batch, "applied")

    def resume(self, stages: Stages) -> Iterator[Outcome]:
        """Finish unfinished batches in order: read again what is only planned, else from the archive."""
        unfinished = self.ledger.unfinished(stages.lease.pipeline, stages.lease.target)
        if unfinished:
            stages.archive.sweep(_ORPHAN_SECONDS)
        for number, batch in enumerate(unfinished):
            log.info("%s: resuming batch %d from %s", batch.pipeline, batch.seq, batch.state)
            try:
                outcome = self.finish(stages, batch, is_last=number + 1 == len(unfinished))
            except PositionLostError as error:
                yield self._bridge_instead(stages, error, unfinished[number:])
                self.has_batch_in_hand = False
                return
            yield outcome
            self.has_batch_in_hand = False

    def _bridge_instead(self, stages: Stages, error: PositionLostError, unfinished: list[BatchRecord]) -> Outcome:
        """The batch that closes the gap, in place of those that cannot be read any more."""
        self._gaps.give_up(stages, error, unfinished)
        position = self.ledger.planned_position(stages.lease.pipeline, stages.lease.target)
        hour = self.session.partitioning.now()
        batch, raw, span = self._gaps.bridge(
            error, position, self._limit(None).rows, lambda kind, span: self.plan(stages, kind, span, hour)
        )
        return self._settle(stages, stages.stage(stages.seal(batch, raw, span), raw), frontier=None)

    def close_found(self, stages: Stages) -> None:
        """Close the books on batches that the target has although the ledger did not hear of it; nothing is written."""
        for batch in self.ledger.unfinished(stages.lease.pipeline, stages.lease.target):
            if batch.state is not State.STAGED or self._find(stages, batch) != "APPLIED":
                return
            self._found(stages, batch)

    def finish(self, stages: Stages, batch: BatchRecord, *, is_last: bool = True) -> Outcome:
        """Take one unfinished batch, whatever its state, to DONE; one that reads nothing may be given up."""
        try:
            return self._finish(stages, batch, is_last=is_last)
        except (BudgetError, DamagedError) as error:
            if batch.kind in {BatchKind.DEAD_LETTERS, BatchKind.REWRITE}:
                # what it holds is kept elsewhere: it shall not stand in the way of new records
                self.ledger.discard(stages.lease, batch.seq, f"given up: {error}")
            raise

    def _finish(self, stages: Stages, batch: BatchRecord, *, is_last: bool) -> Outcome:
        if batch.state is State.STAGED and self._find(stages, batch) == "APPLIED":
            return self._found(stages, batch)
        if batch.state is State.PLANNED:
            raw, span = self._records_of(batch, is_last=is_last)
            failpoint("read")
            batch = stages.seal(batch, raw, span)
        else:
            raw = stages.archive.read(batch.archive) if batch.archive else self._no_records()
        return self._settle(stages, stages.stage(batch, raw), frontier=None)

    def _records_of(self, batch: BatchRecord, *, is_last: bool) -> tuple[pa.Table, Span]:
        if batch.kind is BatchKind.DEAD_LETTERS:
            letters = self.ledger.dead_letters.claimed(batch.pipeline, batch.target, batch.seq)
            return raw_records(letters, self.pipeline.raw_schema), batch.span
        if batch.kind is BatchKind.RESET:
            return self._no_records(), batch.span
        if batch.kind is BatchKind.REWRITE:
            raise FatalError(f"{batch.pipeline}: batch {batch.seq} rewrites another one but does not say which")
        limit = self._limit(None) if is_last else BatchLimit(_UNLIMITED, _UNLIMITED)
        raw, span = self._read(batch, limit)
        if not is_last and span.to_json() != batch.span.to_json():
            raise FatalError(
                f"{batch.pipeline}: batch {batch.seq} was read as {batch.span.short()}, the source now gives"
                f" {span.short()}"
            )
        return raw, span

    def _found(self, stages: Stages, batch: BatchRecord) -> Outcome:
        """The target has the batch, the ledger did not hear of it: close the books by the target's receipt."""
        receipt = self.session.sink.receipt(batch.token(stages.lease.fence))
        raw = stages.archive.read(batch.archive) if batch.archive else None
        return self._close(stages, batch, receipt, raw, batch.counts, None, "found", None)

    def _find(self, stages: Stages, batch: BatchRecord) -> Literal["APPLIED", "ABSENT"]:
        sink, token = self.session.sink, batch.token(stages.lease.fence)
        found = call(
            stages.policy, lambda: sink.find(token, batch.committable), place=f"{batch.pipeline}: looking for a batch"
        )
        if found == "UNKNOWN" and isinstance(sink, Doubting):
            raise FatalError(f"{batch.pipeline}: {sink.doubt(token)}")
        if found == "UNKNOWN":
            raise FatalError(
                f"{batch.pipeline}: {stages.target.name} holds neither batch {batch.seq} ({batch.span.short()}) nor its"
                " place in the sequence: its tokens are not those of this ledger. Nothing was written;"
                f" `vector-assets ledger rebuild {batch.pipeline}` shows what the target knows"
            )
        return found

    def _settle(self, stages: Stages, prepared: Prepared, frontier: Position | None) -> Outcome:
        """Commit a prepared batch, under the columns that the batches before it left, and close the books on it."""
        prepared = self._under_todays_columns(stages, prepared)
        batch, raw = prepared.batch, prepared.raw
        prepared, receipt, seconds = self._commit(stages, prepared, lambda refused: stages.stage(batch, raw, refused))
        failpoint("committed")
        outcome = self._close(stages, batch, receipt, raw, prepared.counts, seconds, "applied", frontier, prepared.note)
        if seconds is not None:
            size = (prepared.counts.records, prepared.counts.bytes)
            self._adaptive().observe(*size, seconds, prepared.asking_seconds)
        return outcome

    def _under_todays_columns(self, stages: Stages, prepared: Prepared) -> Prepared:
        """The batch itself, or made again: with other columns where it wants them, or where they changed meanwhile."""
        while prepared.wants or prepared.schema_version != stages.schemas.current.version:
            if prepared.wants and prepared.schema_version == stages.schemas.current.version:
                stages.evolve(prepared)
                self.session.adopt(stages.schemas.current)
            prepared = stages.stage(prepared.batch, prepared.raw)
        return prepared

    def _commit(
        self, stages: Stages, prepared: Prepared, again: Callable[[pa.Table], Prepared]
    ) -> tuple[Prepared, Receipt, float | None]:
        """Commit; what the target refuses hides no change before it: the batch is prepared `again` without it."""
        while True:
            try:
                return prepared, *self._commit_as_it_is(stages, prepared)
            except RowsRefusedError as error:
                log.info("%s: batch %d: %s", prepared.batch.pipeline, prepared.batch.seq, error)
                of_sink = pc.equal(prepared.rejected.column("stage"), "write")
                prepared = again(pa.concat_tables([prepared.rejected.filter(of_sink), error.rejected]))

    def _commit_as_it_is(self, stages: Stages, prepared: Prepared) -> tuple[Receipt, float | None]:
        batch, sink = prepared.batch, self.session.sink
        self.has_batch_in_hand = True
        failpoint("committing")
        is_uncertain = False
        for attempt in attempts(stages.policy, place=f"{batch.pipeline}: committing batch {batch.seq}"):
            with attempt:
                if is_uncertain and self._find(stages, batch) == "APPLIED":
                    return sink.receipt(prepared.staged.token), None
                is_uncertain = True
                began = time.monotonic()
                return sink.commit(prepared.staged), time.monotonic() - began
        raise AssertionError("unreachable: tenacity re-raises")

    def _close(
        self, stages: Stages, batch: BatchRecord, receipt: Receipt, raw: pa.Table | None, prepared: Counts,
        seconds: float | None, how: Literal["applied", "found"], frontier: Position | None, note: str | None = None,
    ) -> Outcome:  # fmt: skip
        self.has_batch_in_hand = True
        counts = settled(receipt.counts, prepared, receipt.rejected.num_rows)
        if not is_balanced(counts):
            note = "counts do not balance"
            log.error("%s: batch %d: %s: %s", batch.pipeline, batch.seq, note, counts)
        self.ledger.finish(stages.lease, batch, receipt, raw, counts=counts, seconds=seconds, note=note)
        failpoint("done")
        if stages.keyed is not None and stages.group_files.is_start(batch.seq):
            stages.group_files.prune(stages.lease)
        done = self.ledger.batch(batch.pipeline, batch.target, batch.seq)
        position = self.ledger.position(batch.pipeline, batch.target)
        lag = self.session.source.lag(position, frontier) if frontier is not None else None
        age = self.session.clock() - done.newest_ms / 1000 if done.newest_ms is not None else None
        return Outcome(done, how, lag, age)

    def _advance(self, stages: Stages, hour: str | None) -> Iterator[Outcome]:
        everything = call(
            self.session.source_policy, self.session.source.frontier, place=f"{self.pipeline.name}: asking the source"
        )
        frontier = self.session.partitioning.within(everything, hour)
        ahead = _ReadAhead(self, stages, hour, frontier)
        try:
            for prepared in ahead.start():
                outcome = self._settle(stages, prepared, frontier)
                ahead.release()
                yield outcome
                self.has_batch_in_hand = False
        finally:
            ahead.close()

    def position(self, stages: Stages) -> dict[Split, Json]:
        """Where the next batch starts; a new pipeline's start is frozen first."""
        lease = stages.lease
        if not self.ledger.is_activated(lease.pipeline, lease.target):
            start = call(
                self.session.source_policy, self.session.source.start, place=f"{self.pipeline.name}: finding the start"
            )
            self.ledger.freeze_start(lease, start)
        return dict(self.ledger.planned_position(lease.pipeline, lease.target))

    def read_next(
        self, stages: Stages, position: Position, hour: str | None, until: Position, previous: tuple[int, Span] | None
    ) -> tuple[BatchRecord, pa.Table, Span] | None:
        """Plan and read the next batch; None when nothing is left before `until`."""
        limit = self._limit(until)
        source = self.session.source
        batch: BatchRecord | None = None
        try:
            span = call(
                self.session.source_policy,
                lambda: source.plan(position, limit),
                place=f"{self.pipeline.name}: planning",
            )
            if span is None:
                return None
            span = self.session.partitioning.first_of(span)
            batch = self.plan(stages, BatchKind.RECORDS, span, hour, previous)
            failpoint("planned")
            raw, read = self._read(batch, limit)
        except PositionLostError as error:
            if batch is not None:
                self._gaps.give_up(stages, error, [batch])
            batch, raw, read = self._gaps.bridge(
                error, position, limit.rows, lambda kind, span: self.plan(stages, kind, span, hour, previous)
            )
            failpoint("planned")
        failpoint("read")
        return batch, raw, read

    def plan(
        self, stages: Stages, kind: BatchKind, span: Span, hour: str | None, previous: tuple[int, Span] | None = None
    ) -> BatchRecord:
        """A new batch of this session's run in the ledger; `previous` is the one read before it, with its ends.

        `hour` is the partition that is worked on; a source's own partition goes before it.
        """
        lease, partitioning = stages.lease, self.session.partitioning
        is_placeless = partitioning.own is not None and not span.ranges
        newest = self.ledger.batches(lease.pipeline, lease.target, limit=1, newest_first=True) if is_placeless else []
        partition = partitioning.of(kind, span, hour, newest[0].hour if newest else None)
        return self.ledger.plan(
            lease, kind, span, hour=partition, run_id=self.session.run_id, code_version=stages.code_version,
            schema_version=stages.schemas.current.version, previous=previous,
        )  # fmt: skip

    def _read(self, batch: BatchRecord, limit: BatchLimit) -> tuple[pa.Table, Span]:
        return call(
            self.session.source_policy,
            lambda: collect(self.session.source.read(batch.span, limit), self.pipeline.raw_schema),
            place=f"{batch.pipeline}: reading batch {batch.seq}",
        )

    def _no_records(self) -> pa.Table:
        return self.pipeline.raw_schema.empty_table()

    def _limit(self, until: Position | None) -> BatchLimit:
        return self._adaptive().next(until)

    def _adaptive(self) -> AdaptiveLimit:
        if self._limits is None:
            settings = self.pipeline.settings
            self._limits = AdaptiveLimit(
                max_rows=settings.max_rows,
                memory_bytes=settings.memory,
                target_seconds=settings.target.total_seconds(),
                first_rows=self.session.sink.wire.flush_rows,
                in_flight=IN_FLIGHT,
            )
        return self._limits

    def _await_records(self) -> None:
        """Sleep until there are records to read; then a little longer, unless they fill a batch."""
        name, where = self.pipeline.name, self.pipeline.target
        settings = self.pipeline.settings
        linger = min(settings.linger.total_seconds(), self.session.sink.wire.linger_seconds)
        # what the first look sees came while the last batches were written, or since
        seen_at: float | None = time.monotonic()
        pause = HANDOVER_SECONDS
        poll = self.pipeline.source_options.poll_seconds()
        while not self.stop.wait(pause):
            pause = _IDLE_SECONDS if poll is None else poll
            position = self.ledger.planned_position(name, where)
            frontier = call(
                self.session.source_policy, self.session.source.frontier, place=f"{name}: asking the source"
            )
            lag = self.session.source.lag(position, frontier)
            if lag == 0 and not self.ledger.unfinished(name, where):
                seen_at = None
                continue
            now = time.monotonic()
            seen_at = now if seen_at is None else seen_at
            # who looks seldom does not wait for one more look
            if poll is not None or lag >= self._limit(None).rows or now - seen_at >= linger:
                return


@dataclass(frozen=True, slots=True)
class _Ahead:
    """A batch that workers prepare, and the schema version when they were told to."""

    future: Future[Prepared]
    version: int
    batch: BatchRecord
    raw: pa.Table
    span: Span


class _ReadAhead:
    """The reader thread and the workers of one drain; batches come out prepared and in order."""

    def __init__(self, runner: Runner, stages: Stages, hour: str | None, frontier: Position) -> None:
        self._runner, self._stages, self._hour, self._frontier = runner, stages, hour, frontier
        self._closing = threading.Event()
        self._slots = threading.Semaphore(IN_FLIGHT)
        self._ready: queue.Queue[_Ahead | None] = queue.Queue()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="reader")
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="worker")

    def start(self) -> Iterator[Prepared]:
        """Prepared batches, in order; a failed read or preparation is raised in its batch's place."""
        reading = self._reader.submit(self._read_all)
        while True:
            ahead = self._ready.get()
            if ahead is None:
                reading.result()
                return
            yield self._prepared(ahead)

    def _prepared(self, ahead: "_Ahead") -> Prepared:
        try:
            return ahead.future.result()
        except (BudgetError, PlanError):
            if ahead.version == self._stages.schemas.current.version:
                raise
        # it was made ahead under columns that are not those of now: what fails under them says nothing
        batch = self._runner.ledger.batch(ahead.batch.pipeline, ahead.batch.target, ahead.batch.seq)
        if batch.state is State.PLANNED:
            batch = self._stages.seal(batch, ahead.raw, ahead.span)
        return self._stages.stage(batch, ahead.raw)

    def release(self) -> None:
        """One batch less in flight."""
        self._slots.release()

    def close(self) -> None:
        """Stop reading, wait for the threads; batches read ahead stay in the ledger for the next run."""
        self._closing.set()
        self._slots.release(IN_FLIGHT)
        self._reader.shutdown(wait=True)
        self._workers.shutdown(wait=True, cancel_futures=True)

    def _read_all(self) -> None:
        try:
            whole = self._runner.position(self._stages)
            position = dict(self._runner.session.partitioning.within(whole, self._hour))
            previous: tuple[int, Span] | None = None
            while self._may_read():
                found = self._runner.read_next(self._stages, position, self._hour, self._frontier, previous)
                if found is None:
                    return
                batch, raw, span = found
                position |= span.end
                previous = (batch.seq, span)
                version = self._stages.schemas.current.version
                self._ready.put(
                    _Ahead(self._workers.submit(self._prepare, batch, raw, span), version, batch, raw, span)
                )
        finally:
            self._ready.put(None)

    def _may_read(self) -> bool:
        self._slots.acquire()
        runner = self._runner
        is_open = runner.session.partitioning.is_open(self._hour)
        return is_open and not self._closing.is_set() and not runner.stop.is_set()

    def _prepare(self, batch: BatchRecord, raw: pa.Table, span: Span) -> Prepared:
        try:
            return self._stages.stage(self._stages.seal(batch, raw, span), raw)
        except BaseException:
            if self._stages.keyed is not None:
                # the batch after this one waits for its groups
                self._stages.keyed.fail(self._stages.lease.fence)
            raise


def collect(reading: "Iterator[pa.RecordBatch]", schema: pa.Schema) -> tuple[pa.Table, Span]:
    """Everything a read yields as one table, and the span it returns."""
    batches = []
    while True:
        try:
            batches.append(next(reading))
        except StopIteration as end:
            return gathered(batches, schema), end.value
