"""A lost ledger brought back, or an old copy brought forward: what the target's tokens and the archive's files know.

The target says which batches it holds and where the pipeline stands; the archive says what their records were, and
which batches were sealed but never reached the target, and what was rejected (files of older code do not: they are
decoded again with today's).
Nobody knows operators' events, ranges that the source lost, or which dead letters were purged.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from vector_assets.engine.abilities import Recallable, Recalled, RecalledBatch
from vector_assets.engine.archive import Archive
from vector_assets.engine.core import BatchKind, Json, Position, Span, Split, State
from vector_assets.engine.errors import ConfigError, FatalError
from vector_assets.engine.evidence import ArchivedBatch, Place, archived_batches, follows, token_id
from vector_assets.engine.ledger_records import BatchRecord
from vector_assets.engine.retry import call
from vector_assets.engine.session import Session

log = logging.getLogger(__name__)

UNKNOWN = (
    "operators' events before now",
    "ranges that the source lost before now",
    "which dead letters were purged or edited: those found again are open, unless a replay landed them",
    "what rewrites rejected: `replay --rewrite` finds it again",
)
"""What neither target nor archive can tell, for people."""


@dataclass(frozen=True, slots=True)
class DoneBatch:
    """A batch that the target holds and the ledger does not; without `span` it is known by its number only."""

    known: RecalledBatch
    span: Span | None
    archived: ArchivedBatch | None

    @property
    def kind(self) -> BatchKind:
        """What it was: as its file says; without one, whatever fits its span and counts."""
        if self.archived:
            return self.archived.kind
        if self.span is not None and not self.span.ranges:
            return BatchKind.DEAD_LETTERS
        counts = self.known.counts
        landed = counts.written + counts.conflicts + counts.deleted + counts.refused + counts.superseded
        return BatchKind.RECORDS if landed else BatchKind.RESET

    @property
    def is_unreadable(self) -> bool:
        """True when its records are gone for good."""
        return self.kind is not BatchKind.RESET and self.archived is None


@dataclass(frozen=True, slots=True)
class RebuildPlan:
    """What a rebuild would write.

    `done` become DONE, `sealed` become SEALED and are finished by the next run; `given_up` are unfinished batches of
    the ledger that the target went past; `abandoned` are batches whose number the target skipped; `expired` are batches
    of the ledger whose archive file is gone; `unused` are archive files of records that are read again from the source.
    Batches up to `folded` left no trace but the position. `start` and `position` are what the ledger will say.
    """

    pipeline: str
    target: str
    recalled: Recalled
    done: tuple[DoneBatch, ...] = ()
    sealed: tuple[ArchivedBatch, ...] = ()
    abandoned: tuple[ArchivedBatch, ...] = ()
    given_up: tuple[int, ...] = ()
    expired: tuple[int, ...] = ()
    unused: tuple[str, ...] = ()
    folded: int = 0
    kept: int = 0
    start: Mapping[Split, Json] = field(default_factory=dict)
    position: Position = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """True when the ledger knows all that target and archive know."""
        return not (self.done or self.sealed or self.abandoned or self.given_up or self.expired or self.folded)


def plan_rebuild(session: Session) -> RebuildPlan:
    """Compare ledger, target and archive; nothing is written.

    Raises:
        ConfigError: the target cannot tell what it holds.
        FatalError: ledger and target tell different stories of a batch that is done, or an archive file is damaged.
    """
    pipeline, sink = session.pipeline, session.sink
    if not isinstance(sink, Recallable):
        raise ConfigError(
            f"{pipeline.name}: the connector {pipeline.sink_connector} keeps no tokens that can be read back: its"
            " ledger cannot be rebuilt"
        )
    recalled = call(session.sink_policy, lambda: sink.recall(pipeline.name), place=f"{pipeline.name}: recalling")
    return _Comparison(session, recalled, archived_batches(session.books.archive, pipeline)).plan()


class _Comparison:
    """Ledger, target and archive side by side."""

    def __init__(self, session: Session, recalled: Recalled, archived: dict[int, list[ArchivedBatch]]) -> None:
        self.place: Place = (session.pipeline.name, session.pipeline.target)
        self.recalled, self.archived = recalled, archived
        self.archive: Archive = session.books.archive
        ledger = session.ledger
        self.rows = {batch.seq: batch for batch in ledger.batches(*self.place)}
        fold = ledger.fold(*self.place)
        self.folded = fold.seq if fold else 0
        self.frozen = ledger.frozen_start(*self.place)
        self.ledger_position = ledger.position(*self.place)
        self.newest = max((batch.seq for batch in recalled.batches), default=0)
        self.newest_done = max((seq for seq, row in self.rows.items() if row.state is State.DONE), default=self.folded)

    def plan(self) -> RebuildPlan:
        done = tuple(each for each in map(self._done, self.recalled.batches) if each)
        position = dict(self.recalled.position if self.newest >= self.newest_done else self.ledger_position)
        sealed, left_over, unused = self._tail(dict(position))
        taken = {each.known.seq for each in done} | set(self.rows)
        lowest = min((batch.seq for batch in self.recalled.batches), default=1)
        is_first_known = min(self.rows, default=lowest) >= lowest
        middle = [a[0] for seq, a in sorted(self.archived.items()) if self.folded < seq < self.newest]
        return RebuildPlan(
            *self.place,
            self.recalled,
            done,
            sealed,
            abandoned=tuple(a for a in middle if a.seq not in taken and a.seq > lowest),
            given_up=tuple(seq for seq, row in self.rows.items() if self._is_passed(row)) + left_over,
            expired=tuple(seq for seq, row in self.rows.items() if self._has_lost_its_file(row)),
            unused=unused,
            folded=lowest - 1 if is_first_known and self.folded < lowest - 1 else 0,
            kept=sum(row.state is State.DONE for row in self.rows.values()),
            start=self._start(done, position),
            position=position,
        )

    def _done(self, known: RecalledBatch) -> DoneBatch | None:
        """What to write for a batch of the target; None when the ledger has it."""
        row = self.rows.get(known.seq)
        if known.seq <= self.folded:
            return None
        if row and row.state is State.DONE:
            if token_id(self.place, row.seq, row.span) != known.token_id:
                raise FatalError(
                    f"{self.place[0]}: batch {row.seq} is done in the ledger ({row.span.short()}) and in the target,"
                    " but under another token: they are not books of the same pipeline; nothing was changed"
                )
            return None
        archived = next((a for a in self.archived.get(known.seq, ()) if self._is_same(known, a.span)), None)
        spans = (known.span, archived.span if archived else None, row.span if row else None)
        return DoneBatch(known, next((s for s in spans if s is not None and self._is_same(known, s)), None), archived)

    def _is_same(self, known: RecalledBatch, span: Span) -> bool:
        return token_id(self.place, known.seq, span) == known.token_id

    def _is_passed(self, row: BatchRecord) -> bool:
        """An unfinished batch of the ledger whose number the target is past."""
        is_open = row.state not in {State.DONE, State.DISCARDED}
        return is_open and row.seq <= self.newest and row.seq not in {b.seq for b in self.recalled.batches}

    def _has_lost_its_file(self, row: BatchRecord) -> bool:
        is_settled = row.state in {State.DONE, State.DISCARDED} and row.expired_ms is None
        return is_settled and row.archive is not None and not self.archive.holds(row.archive)

    def _tail(self, position: dict[Split, Json]) -> tuple[tuple[ArchivedBatch, ...], tuple[int, ...], tuple[str, ...]]:
        """Of what comes after the target's newest batch: files that go on where it stands, rows and files that do not.

        A row of the ledger that goes on from there stays as it is.
        """
        sealed: list[ArchivedBatch] = []
        given_up: list[int] = []
        unused: list[str] = []
        last = max(self.newest, self.newest_done)
        for seq in sorted({seq for seq in (*self.rows, *self.archived) if seq > last}):
            row, files = self.rows.get(seq), self.archived.get(seq, [])
            if row and row.state is State.DISCARDED:
                continue
            if row and follows(row.span, position) and (row.archive is None or self.archive.holds(row.archive)):
                position |= row.span.end
                continue
            if row:
                given_up.append(seq)
            chosen = next((a for a in files if a.kind is BatchKind.RECORDS and follows(a.span, position)), None)
            if chosen and not row:
                sealed.append(chosen)
                position |= chosen.span.end
            unused += [a.file.path for a in files if a not in sealed]
        return tuple(sealed), tuple(given_up), tuple(unused)

    def _start(self, done: tuple[DoneBatch, ...], position: Position) -> dict[Split, Json]:
        """Where the pipeline started: as the ledger or a file knows, else the first known place of each split."""
        if self.frozen is not None:
            return self.frozen
        files = [a for _, group in sorted(self.archived.items()) for a in group]
        start: dict[Split, Json] = dict(position)
        for span in reversed([d.span for d in done if d.span is not None and d.kind is BatchKind.RECORDS]):
            start |= span.start
        return start | next((a.start for a in files if a.start), {})
