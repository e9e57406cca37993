"""One pipeline opened for work: its source, its sink, what the target said, and its place in the ledger."""

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace

from vector_assets.engine.abilities import (
    Describing,
    Evolvable,
    Evolving,
    Forgetful,
    Recallable,
    Remembering,
    partitioned,
)
from vector_assets.engine.archive import Archive
from vector_assets.engine.core import Json, Sink, Source, Span, Target, canonical
from vector_assets.engine.creation import ensure_created
from vector_assets.engine.decoding import decode
from vector_assets.engine.env import archive_dir, ledger_location
from vector_assets.engine.errors import ConfigError, LedgerLostError, PlanError, TargetReplacedError
from vector_assets.engine.evidence import ends, unheard_of
from vector_assets.engine.evolution import PipelineVersion, Schemas, check_evolvable, evolved, todays_new, without
from vector_assets.engine.hours import Calendar
from vector_assets.engine.keyed_state import KeyedState, check_groups
from vector_assets.engine.lease import Lease
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.partitioning import Partitioning
from vector_assets.engine.pipeline import Pipeline
from vector_assets.engine.retry import RetryPolicy, call
from vector_assets.engine.schema_history import latest_state
from vector_assets.engine.stages import Stages
from vector_assets.engine.touches import Touches

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Books:
    """Where the engine keeps what it knows: ledger and archive."""

    ledger: Ledger
    archive: Archive

    @classmethod
    def open(cls) -> "Books":
        """The books that the environment names."""
        return cls(Ledger(ledger_location()), Archive(archive_dir()))

    def close(self) -> None:
        """Close the ledger."""
        self.ledger.close()


@dataclass
class Session:
    """A pipeline with its connections, opened at first use; close it when done.

    `run_id` is written into every batch planned by this session; once `stop` is set nothing is tried again.
    """

    pipeline: Pipeline
    books: Books
    run_id: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}")
    clock: Callable[[], float] = time.time
    stop: threading.Event = field(default_factory=threading.Event)
    _declared: Pipeline = field(init=False)
    _state: tuple[Json, ...] = field(default=(), init=False)
    _source: Source | None = field(default=None, init=False)
    _sink: Sink | None = field(default=None, init=False)
    _target: Target | None = field(default=None, init=False)
    _is_ledger_checked: bool = field(default=False, init=False)
    _touches: Touches = field(default_factory=Touches, init=False)
    _keyed: KeyedState | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._declared = self.pipeline

    @property
    def calendar(self) -> Calendar:
        """Partitions of this pipeline."""
        return Calendar(self.pipeline.settings.partitions, self.clock)

    @property
    def partitioning(self) -> Partitioning:
        """Which partitions its batches belong to."""
        return Partitioning(self.calendar, partitioned(self.pipeline.source_options))

    @property
    def ledger(self) -> Ledger:
        """The ledger."""
        return self.books.ledger

    @property
    def source(self) -> Source:
        """The source; one thread at a time."""
        if self._source is None:
            self._source = self.pipeline.open_source()
        return self._source

    @property
    def sink(self) -> Sink:
        """The sink."""
        if self._sink is None:
            self._sink = self.pipeline.open_sink()
        return self._sink

    @property
    def source_policy(self) -> RetryPolicy:
        """How a failed read is tried again."""
        return RetryPolicy(outage_seconds=self.pipeline.settings.outage.total_seconds(), stop=self.stop)

    @property
    def sink_policy(self) -> RetryPolicy:
        """How a failed write is tried again: by the vendor's options, and our patience with an outage."""
        return replace(self.sink.retry, outage_seconds=self.pipeline.settings.outage.total_seconds(), stop=self.stop)

    def is_finished(self) -> bool:
        """True when the pipeline is bounded and stands at its bound with nothing unfinished; asks the ledger alone."""
        where = (self.pipeline.name, self.pipeline.target)
        if not self.ledger.is_activated(*where) or self.ledger.unfinished(*where):
            return False
        return self.pipeline.source_options.is_finished(self.ledger.position(*where))

    def target(self) -> Target:
        """What the target said when it was checked, once per session.

        Raises:
            PlanError: rows and target do not fit.
        """
        if self._target is None:
            if isinstance(self._declared.decoder, Describing):
                # the target may have lost columns that are declared
                self._take_todays_columns()
            self._target = call(
                self.sink_policy,
                lambda: self.sink.prepare(self.pipeline.schema, self.pipeline.sink_table.primary_key),
                place=f"{self.pipeline.name}: preparing {self.pipeline.target}",
            )
            check_groups(self.pipeline, self.sink, self._target)
        return self._target

    @property
    def keyed(self) -> KeyedState | None:
        """The groups of a pipeline that has some, in memory from their first use on."""
        if self._keyed is None and self.pipeline.aggregation is not None:
            self._keyed = KeyedState(self.pipeline.aggregation, self.pipeline.settings.state_memory)
        return self._keyed

    def lease(self) -> AbstractContextManager[Lease]:
        """Hold the pipeline's lease for this session's run, by the pipeline's settings; nothing is checked."""
        settings = self.pipeline.settings
        return self.ledger.leases.held(
            self.pipeline.name, self.pipeline.target, ttl=settings.lease_ttl.total_seconds(),
            wait=settings.lease_wait.total_seconds(), run_id=self.run_id,
        )  # fmt: skip

    @contextmanager
    def leased(self) -> Iterator[Stages]:
        """Hold the pipeline's lease; the target is checked and is the one the last batches went to.

        Raises:
            ConfigError: what is fixed at creation was changed, or the place of a new pipeline is not free.
            LeaseHeldError: another worker kept the lease.
            TargetReplacedError: the target was dropped and made anew.
            LedgerLostError: the target holds batches that the ledger never heard of.
        """
        name, where = self.pipeline.name, self.pipeline.target
        changed = self.ledger.register(name, where, self.pipeline.source_options.start_option())
        if changed:
            log.warning(
                "%s: the start option is now %s but the pipeline started with %s and goes on from its position;"
                " `vector-assets reset %s --to ...` moves it",
                name, self.pipeline.source_options.start_option(), changed, name,
            )  # fmt: skip
        self.ensure_created()
        self._take_todays_columns()
        self._give_the_form_s_columns()
        target = self._target_after_a_crash()
        with self.lease() as lease:
            if self._take_todays_columns():
                target = self.target()
            self._check_ledger()
            self._check_incarnation(lease, target)
            yield Stages(
                self.pipeline, self.ledger, self.books.archive, self.sink, target, lease, self.sink_policy,
                schema_version=self.ledger.schema_version(lease, self.pipeline.columns, self._state),
                touches=self._touches, keyed=self.keyed, declared=self._declared, state=self._state,
            )  # fmt: skip

    def _target_after_a_crash(self) -> Target:
        """The target; a change of its columns that the ledger did not hear of is made to the end first."""
        try:
            return self.target()
        except PlanError:
            if not isinstance(self._declared.decoder, Describing):
                raise
            with self.lease() as lease:
                self._take_todays_columns()
                if not self._finish_change(lease):
                    raise
            self._take_todays_columns()
            return self.target()

    def _finish_change(self, lease: Lease) -> bool:
        """Change the columns as the oldest unfinished batch wants it; False when it wants nothing.

        A crash after the target lost a column and before the ledger knew: the batch is in the archive, it wants the
        change again, and the target has it already.
        """
        batch = next(iter(self.ledger.unfinished(lease.pipeline, lease.target)), None)
        if batch is None or batch.archive is None:
            return False
        raw, splits = self.books.archive.read(batch.archive), [part.split for part in batch.span.ranges]
        wants = decode(self.pipeline, raw, splits).wants
        if not wants:
            return False
        version = self.ledger.schema_version(lease, self.pipeline.columns, self._state)
        schemas = Schemas(self.ledger, self._declared, PipelineVersion(version, self.pipeline, self._state))
        place = f"{lease.pipeline}: changing the columns of {lease.target}"
        schemas.evolve(
            lease, self.sink, batch.seq, raw, splits, wants, lambda ask: call(self.sink_policy, ask, place=place)
        )
        return True

    def ensure_created(self) -> None:
        """Note that the pipeline exists, once, after the checks of its creation.

        Raises:
            ConfigError: what is fixed at creation was changed, or the place of a new pipeline is not free.
            LedgerLostError: its place is not free because it wrote there, and the ledger never heard of it.
        """
        try:
            ensure_created(self.ledger, self.pipeline)
        except ConfigError:
            self._refuse_lost_ledger()
            raise

    def adopt(self, versioned: PipelineVersion) -> None:
        """The columns have changed; the sink knows."""
        self.pipeline, self._state, self._target = versioned.pipeline, versioned.state, None

    def _take_todays_columns(self) -> bool:
        """Have the columns that the ledger knows; true when they are others than the target was checked for."""
        if not isinstance(self._declared.decoder, Evolving):
            return False
        check_evolvable(self._declared.decoder, self.sink, self._declared.transforms, self._declared.place)
        state = latest_state(self.ledger, self._declared.name, self._declared.target)
        if state == self._state:
            return False
        self.pipeline, self._state, self._target = evolved(self._declared, state), state, None
        return True

    def _give_the_form_s_columns(self) -> None:
        """Let the table of a job have the columns that its form got since the last batch.

        Raises:
            PlanError: a column's type got narrower or another.
        """
        pipeline, sink = self.pipeline, self.sink
        fresh = todays_new(self.ledger, pipeline)
        if not fresh or not isinstance(sink, Evolvable):
            return
        with self.lease():
            known = self.ledger.incarnation(pipeline.name, pipeline.target)
            place = f"{pipeline.name}: changing the columns of {pipeline.target}"
            settled = without(pipeline.schema, fresh)
            found = call(self.sink_policy, lambda: sink.inspect(settled, pipeline.sink_table.primary_key), place=place)
            if found.incarnation != known:
                return
            for change in call(self.sink_policy, lambda: sink.evolve(pipeline.schema), place=place):
                log.info("%s: the form has other columns: %s", pipeline.name, change)

    def _check_ledger(self) -> None:
        """Once a session: the target holds no batch that the ledger never heard of."""
        if self._is_ledger_checked:
            return
        self._refuse_lost_ledger()
        self._is_ledger_checked = True

    def _refuse_lost_ledger(self) -> None:
        name, target = self.pipeline.name, self.pipeline.target
        known = self.ledger.newest_seq(name, target)
        found = call(self.sink_policy, lambda: newest_batch(self.sink, name, known), place=f"{name}: looking")
        if found > known:
            heard = f"of batches up to {known}" if known else "of none"
            raise LedgerLostError(
                f"{name}: {target} holds batches up to {found} of this pipeline, the ledger knows {heard}: it was lost,"
                f" or restored from an older copy. Nothing was read or written; `vector-assets ledger rebuild {name}`"
                " shows what target and archive know, and brings the ledger forward"
            )
        if found == 0 and (lost := unheard(self)):
            raise LedgerLostError(_forgotten(self, known, lost[-1]))

    def _check_incarnation(self, lease: Lease, target: Target) -> None:
        known = self.ledger.incarnation(lease.pipeline, lease.target)
        if known is None:
            self.ledger.set_incarnation(lease, target.incarnation)
        elif known != target.incarnation:
            raise TargetReplacedError(
                f"{lease.pipeline}: {target.name} is a new object ({target.incarnation}) under the old name, the last"
                f" batches went to {known}; to fill it again from the archive run `vector-assets reset {lease.pipeline}"
                f" --adopt-target` and then `vector-assets replay {lease.pipeline}`"
            )

    def close(self) -> None:
        """Give back connections; the books stay open."""
        for part in (self._source, self._sink):
            if part is not None:
                part.close()
        self._source = self._sink = self._target = None
        if self._keyed is not None:
            self._keyed.close()

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def newest_batch(sink: Sink, pipeline: str, known: int) -> int:
    """The newest batch that the target holds, as far as it can tell; `known` is the newest of the ledger.

    A target that must look through all its tokens to tell is asked only for a ledger that knows none.
    """
    if isinstance(sink, Remembering):
        return sink.newest_seq(pipeline)
    if known == 0 and isinstance(sink, Recallable):
        return max((batch.seq for batch in sink.recall(pipeline).batches), default=0)
    return 0


def unheard(session: Session) -> list[tuple[int, Span]]:
    """Batches in the archive that the ledger never heard of, of a target that keeps nothing of batches."""
    if not isinstance(session.sink, Forgetful):
        return []
    known = session.ledger.newest_seq(session.pipeline.name, session.pipeline.target)
    return unheard_of(session.books.archive, session.pipeline, known)


def _forgotten(session: Session, known: int, newest: tuple[int, Span]) -> str:
    """That the ledger was lost, and the commands that go on before or after the newest batch of the archive."""
    name, (seq, span) = session.pipeline.name, newest
    before, after = (canonical(place) for place in ends(session.books.archive, session.pipeline, span))
    heard = f"of batches up to {known}" if known else "of none"
    return (
        f"{name}: the archive holds batches up to {seq} of this pipeline, the ledger knows {heard}: it was lost, or"
        f" restored from an older copy, and {session.pipeline.target} keeps nothing of batches. Nothing was read or"
        f" written. If the rows of batch {seq} are in the target: `vector-assets run {name} --start-at '{after}'`;"
        f" if not: `vector-assets run {name} --start-at '{before}'`"
    )
