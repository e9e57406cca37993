"""What the ledger and the source know of pipelines, read side by side."""

import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from vector_assets.engine.abilities import Listing, partitioned
from vector_assets.engine.core import Counts, Position, Source, brief
from vector_assets.engine.errors import TransientError, VectorAssetsError
from vector_assets.engine.lease import Holder
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.ledger_records import BatchRecord, Gap
from vector_assets.engine.partitioning import waiting
from vector_assets.engine.pipeline import Pipeline

ANSWER_SECONDS = 2.0
"""How long sources have for an answer, all together."""
_OPEN_SECONDS = 10.0
"""How long they have to import what they need."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a source said about its newest record; `cause` is why it said nothing.

    `start` is where a pipeline that has no position would start; `waiting` is why partitions of its own are not read.
    """

    frontier: Position | None = None
    lag: int | None = None
    start: Position | None = None
    waiting: str | None = None
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
    opened = {pipeline.name: threading.Event() for pipeline in pipelines}

    def ask_one(pipeline: Pipeline, position: Position | None) -> None:
        try:
            with closing(pipeline.open_source()) as source:
                opened[pipeline.name].set()
                answers[pipeline.name] = _ask(pipeline, source, position)
        except VectorAssetsError as error:
            answers[pipeline.name] = Answer(cause=error)
        finally:
            opened[pipeline.name].set()

    # not a pool: its threads would be waited for when the process ends
    threads = [
        threading.Thread(target=ask_one, args=both, daemon=True) for both in zip(pipelines, positions, strict=True)
    ]
    for thread in threads:
        thread.start()
    # a client library may take seconds to import, which is not the source's silence
    begun = time.monotonic()
    for event in opened.values():
        event.wait(max(begun + _OPEN_SECONDS - time.monotonic(), 0.0))
    deadline = time.monotonic() + ANSWER_SECONDS
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0.0))
    silence = TransientError(f"the source did not answer within {ANSWER_SECONDS:g} s")
    return [answers.get(pipeline.name) or Answer(cause=silence) for pipeline in pipelines]


def _ask(pipeline: Pipeline, source: Source, position: Position | None) -> Answer:
    start = source.start() if position is None else None
    frontier = source.frontier()
    at = position or start or {}
    return Answer(frontier, source.lag(at, frontier), start, waiting_of(pipeline, source, at))


def waiting_of(pipeline: Pipeline, source: Source, position: Position) -> str | None:
    """Why partitions of the source's own are not read yet; None when none waits, and where a source has none.

    Raises:
        TransientError: the source does not answer.
    """
    own = partitioned(pipeline.source_options)
    if own is None or not isinstance(source, Listing) or pipeline.source_options.is_finished(position):
        return None
    return waiting(source.partitions(), own, position)


def places(position: Position) -> str:
    """A position for people: each split in its own short form, with the offset."""
    return ", ".join(f"{short(split)}: {brief(token)}" for split, token in sorted(position.items())) or "nowhere"


def short(split: str) -> str:
    """A split without the id of its topic."""
    topic, at, rest = split.partition("@")
    return f"{topic}/{rest.rpartition('/')[2]}" if at else split
