"""What the ledger and the source know of pipelines, read side by side."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from vector_assets.engine.core import Counts, Position, brief
from vector_assets.engine.errors import TransientError, VectorAssetsError
from vector_assets.engine.lease import Holder
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.ledger_records import BatchRecord, Gap
from vector_assets.engine.pipeline import Pipeline

ANSWER_SECONDS = 2.0
"""How long sources have for an answer, all together."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a source said about its newest record; `cause` is why it said nothing.

    `start` is where a pipeline that has no position would start.
    """

    frontier: Position | None = None
    lag: int | None = None
    start: Position | None = None
    cause: VectorAssetsError | None = None

    @property
    def error(self) -> str | None:
        """The cause in words."""
        return None if self.cause is None else str(self.cause)


@dataclass(frozen=True, slots=True)
class Survey:
    """Everything about one pipeline."""

    name: str
    target: str
    is_activated: bool
    is_finished: bool
    position: Position
    answer: Answer
    states: dict[str, int]
    last: BatchRecord | None
    recent: list[BatchRecord]
    totals: Counts
    open_letters: int
    holder: Holder | None
    is_held: bool
    gaps: list[Gap]
    events: list[tuple[int, str, str]]

    @property
    def unfinished(self) -> int:
        """Batches that are neither done nor discarded."""
        return sum(count for state, count in self.states.items() if state not in {"DONE", "DISCARDED"})


def survey(pipelines: Sequence[Pipeline], ledger: Ledger, batches: int) -> list[Survey]:
    """Look at every pipeline, with its last `batches` batches; the sources are asked at the same time."""
    positions = [
        ledger.position(p.name, p.target) if ledger.is_activated(p.name, p.target) else None for p in pipelines
    ]
    answers = ask(pipelines, positions)
    return [
        _look(each, ledger, batches, position, answer)
        for each, position, answer in zip(pipelines, positions, answers, strict=True)
    ]


def _look(pipeline: Pipeline, ledger: Ledger, batches: int, position: Position | None, answer: Answer) -> Survey:
    name, target = pipeline.name, pipeline.target
    recent = ledger.batches(name, target, limit=max(batches, 1), newest_first=True)
    return Survey(
        name=name,
        target=target,
        is_activated=position is not None,
        is_finished=position is not None and pipeline.source_options.is_finished(position),
        position=position or {},
        answer=answer,
        states=ledger.states(name, target),
        last=recent[0] if recent else None,
        recent=recent[:batches],
        totals=ledger.totals(name, target)[1],
        open_letters=ledger.dead_letters.count(name),
        holder=ledger.leases.holder(name, target),
        is_held=ledger.leases.is_held(name, target),
        gaps=ledger.gaps(name),
        events=ledger.events(name),
    )


def ask(pipelines: Sequence[Pipeline], positions: Sequence[Position | None]) -> list[Answer]:
    """What each source says within `ANSWER_SECONDS`; a source that hangs is left behind, not waited for."""
    answers: dict[str, Answer] = {}

    def ask_one(pipeline: Pipeline, position: Position | None) -> None:
        answers[pipeline.name] = _ask(pipeline, position)

    # not a pool: its threads would be waited for when the process ends
    threads = [
        threading.Thread(target=ask_one, args=both, daemon=True) for both in zip(pipelines, positions, strict=True)
    ]
    deadline = time.monotonic() + ANSWER_SECONDS
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0.0))
    silence = TransientError(f"the source did not answer within {ANSWER_SECONDS:g} s")
    return [answers.get(pipeline.name) or Answer(cause=silence) for pipeline in pipelines]


def _ask(pipeline: Pipeline, position: Position | None) -> Answer:
    try:
        source = pipeline.open_source()
        try:
            start = source.start() if position is None else None
            frontier = source.frontier()
            return Answer(frontier, source.lag(position or start or {}, frontier), start)
        finally:
            source.close()
    except VectorAssetsError as error:
        return Answer(cause=error)


def places(position: Position) -> str:
    """A position for people: each split in its own short form, with the offset."""
    return ", ".join(f"{short(split)}: {brief(token)}" for split, token in sorted(position.items())) or "nowhere"


def short(split: str) -> str:
    """A split without the id of its topic."""
    topic, at, rest = split.partition("@")
    return f"{topic}/{rest.rpartition('/')[2]}" if at else split
