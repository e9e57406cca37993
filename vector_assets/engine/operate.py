"""What operators do to a pipeline: move its position, adopt a new target, replay dead letters.

A moved position and a replay of dead letters are batches like any other: named, sealed, committed once in the target by
the same compare-and-set, and visible in the books.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vector_assets.engine.core import BatchKind, Position, Range, Span, State, Token, canonical
from vector_assets.engine.dead_letters import DeadLetter
from vector_assets.engine.errors import ConfigError, TargetReplacedError
from vector_assets.engine.ledger_records import BatchRecord
from vector_assets.engine.pipeline import Pipeline
from vector_assets.engine.retention import check_letters
from vector_assets.engine.run import Outcome, Runner
from vector_assets.engine.session import Session
from vector_assets.engine.stages import Stages

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ResetPlan:
    """What a reset would do: the span from where the pipeline stands to where it is told to stand."""

    pipeline: str
    span: Span
    discarded: tuple[int, ...]

    @property
    def is_empty(self) -> bool:
        """True when there is nothing to change."""
        return not self.span.ranges and not self.discarded


GroupsAfter = Literal["keep", "drop"]
"""What a reset does to the groups of a GROUP BY: they go on, or begin anew."""


def plan_reset(session: Session, where: str) -> ResetPlan:
    """What moving the pipeline to `where` would change; nothing is written."""
    name, target = session.pipeline.name, session.pipeline.target
    wanted = session.source.locate(where)
    return _plan_reset(session, name, target, wanted)


def _plan_reset(session: Session, name: str, target: str, wanted: Position) -> ResetPlan:
    now = session.ledger.position(name, target)
    ranges = tuple(
        Range(split, now.get(split, wanted[split]), wanted[split])
        for split in sorted(wanted)
        if split not in now or not _is_same(session, split, now[split], wanted[split])
    )
    unfinished = tuple(batch.seq for batch in session.ledger.unfinished(name, target))
    return ResetPlan(name, Span(ranges), unfinished)


def _is_same(session: Session, split: str, one: Token, other: Token) -> bool:
    """The tokens name the same place, whatever else is in them (such as a leader epoch)."""
    lag = session.source.lag
    return lag({split: one}, {split: other}) == 0 == lag({split: other}, {split: one})


def check_reset(pipeline: Pipeline, groups: GroupsAfter | None) -> None:
    """Refuse a reset that does not say what becomes of the groups, or of a pipeline that has none.

    Raises:
        ConfigError: as said.
    """
    if pipeline.aggregation is not None and groups is None:
        raise ConfigError(
            f"{pipeline.name} adds records up by GROUP BY: say what a reset does to its groups: --drop-state begins"
            " them anew (with --to earliest everything is counted once), --keep-state goes on with them (records that"
            " are read again are counted again)"
        )
    if pipeline.aggregation is None and groups is not None:
        raise ConfigError(f"{pipeline.name} keeps no state: it has no GROUP BY; leave --{groups}-state out")


def reset(session: Session, where: str, *, reason: str, groups: GroupsAfter | None = None) -> ResetPlan:
    """Move the pipeline to `where`: unfinished batches the target lacks are discarded, then a reset batch is committed.

    Rows already in the target stay. Reading again what was read lands again what the target's merge lets through.
    """
    check_reset(session.pipeline, groups)
    pipeline, ledger = session.pipeline, session.ledger
    wanted = session.source.locate(where)
    runner = Runner(session)
    with session.leased() as stages:
        for batch in ledger.unfinished(pipeline.name, pipeline.target):
            _discard_or_finish(runner, stages, batch)
        plan = _plan_reset(session, pipeline.name, pipeline.target, wanted)
        if not ledger.is_activated(pipeline.name, pipeline.target):
            ledger.freeze_start(stages.lease, wanted)
        if plan.span.ranges or groups == "drop":
            with ledger.store.transaction():
                moved = runner.plan(stages, BatchKind.RESET, plan.span, session.partitioning.now())
                if groups == "drop":
                    _drop_groups(stages, moved)
            runner.finish(stages, moved)
            ledger.close_gaps(pipeline.name, moved.seq)
        told = {"to": where, "span": plan.span.short(), "why": reason} | ({"groups": groups} if groups else {})
        ledger.record_event(pipeline.name, "reset", canonical(told))
    return plan


def _drop_groups(stages: Stages, batch: BatchRecord) -> None:
    """From this batch on there are no groups, whatever the script's GROUP BY says."""
    aggregation, files = stages.pipeline.aggregation, stages.group_files
    assert aggregation is not None, "checked before"
    none = aggregation.columns.empty_table()
    files.note(files.write(batch.seq, batch.hour, stages.lease.fence, "empty", aggregation.signature, none, 0))


def _discard_or_finish(runner: Runner, stages: Stages, batch: BatchRecord) -> None:
    token = batch.token(stages.lease.fence)
    if batch.state is State.STAGED and runner.session.sink.find(token, batch.committable) == "APPLIED":
        runner.finish(stages, batch)
    else:
        runner.ledger.discard(stages.lease, batch.seq, "reset")


def adopt_target(session: Session, *, reason: str) -> str:
    """After TARGET_REPLACED: write to the object that now bears the name; its new incarnation.

    The target forgets this pipeline's batches, so that `replay` fills it again from the archive, in order.
    """
    pipeline, ledger = session.pipeline, session.ledger
    try:
        with session.leased():
            raise ConfigError(f"{pipeline.name}: {pipeline.target} is the object the last batches went to")
    except TargetReplacedError:
        log.info("%s: adopting %s", pipeline.name, pipeline.target)
    target = session.target()
    with session.lease() as lease:
        session.sink.forget(pipeline.name)
        ledger.set_incarnation(lease, target.incarnation)
        ledger.record_event(
            pipeline.name, "adopt-target", canonical({"incarnation": target.incarnation, "why": reason})
        )
    return target.incarnation


def replay_dead_letters(session: Session, letters: Sequence[DeadLetter]) -> Outcome | None:
    """Decode open dead letters with today's declaration and land what is good now, once; None when none is open.

    What is rejected again becomes a new dead letter with the next attempt number.
    """
    pipeline, ledger = session.pipeline, session.ledger
    runner = Runner(session)
    with session.leased() as stages:
        for outcome in runner.resume(stages):
            log.info("%s: batch %d is finished first", pipeline.name, outcome.batch.seq)
        ids = [letter.id for letter in letters if letter.state == "open"]
        if not ids:
            return None
        if pipeline.aggregation is None:
            # a group takes records in any order
            check_letters(ledger, [letter for letter in letters if letter.id in set(ids)], session.sink.merge)
        with ledger.store.transaction():
            batch = runner.plan(stages, BatchKind.DEAD_LETTERS, Span(), session.partitioning.now())
            ledger.dead_letters.claim(pipeline.name, pipeline.target, batch.seq, ids)
        return runner.finish(stages, batch)
