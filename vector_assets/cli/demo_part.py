"""What the parts of the demo have in common."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vector_assets.cli.output import heading, say, show_table

if TYPE_CHECKING:
    from vector_assets.engine.dead_letters import DeadLetter
    from vector_assets.engine.session import Session

_BATCHES = 8
_LETTERS = 20

Progress = Callable[[str], None]


Step = tuple[str, Callable[[Progress], str]]
"""A word for what a step makes, and the step, which says in a line what it did."""


@dataclass(frozen=True, slots=True)
class Part:
    """Jobs of the demo: what they need, how their world is made, and what is shown once their assets are materialized.

    `pipelines` are those whose assets are materialized for the open hour, all parts together, after every `before` and
    before any `after`; of these the first of each part comes first, then the second. `show` raises FatalError when the
    numbers do not add up; it gives commands worth trying next and what they are for. `folder`, below that of the
    pipelines, holds the part's declarations, which alone its steps see.
    """

    pipelines: tuple[str, ...]
    services: tuple[str, ...]
    before: tuple[Step, ...]
    show: Callable[[], list[tuple[str, str]]]
    after: tuple[Step, ...] = ()
    folder: str = ""


def letters_of(session: "Session") -> "list[DeadLetter]":
    """The pipeline's dead letters; one that was replayed is a row or a conflict now, or a dead letter anew."""
    found = session.ledger.dead_letters.listed(session.pipeline.name, state=None)
    return [letter for letter in found if letter.replayed_by is None]


def read_and_unread(session: "Session") -> tuple[int, int]:
    """Records that batches of the source brought (each time one did), and those still in the topic."""
    from vector_assets.engine.core import BatchKind, State

    name, target = session.pipeline.name, session.pipeline.target
    done = [batch for batch in session.ledger.batches(name, target) if batch.state is State.DONE]
    read = sum(batch.counts.records for batch in done if batch.kind is BatchKind.RECORDS)
    return read, session.source.lag(session.ledger.position(name, target), session.source.frontier())


def run_now(names: Sequence[str], progress: Progress) -> str:
    """Do what `vector-assets run` does, for each pipeline; it in one line."""
    from vector_assets.cli.declared import opened
    from vector_assets.engine.run import Runner

    told = []
    for name in names:
        progress(f"vector-assets run {name}")
        with opened(name) as session:
            told.append(f"vector-assets run {name}: {len(list(Runner(session).catch_up())) or 'no'} new batches")
    return "; ".join(told)


def show_letters(left: "Sequence[DeadLetter]") -> None:
    """Print dead letters, the first of them if they are many."""
    from vector_assets.cli.dead_letters import place

    heading("Dead letters")
    rows = [(str(letter.id), place(letter), letter.stage, letter.error) for letter in left[:_LETTERS]]
    show_table(("id", "place", "stage", "reason"), rows, right=("id",))
    if len(left) > _LETTERS:
        say(f"and {len(left) - _LETTERS} more", "dim")


def show_newest_batches(session: "Session") -> None:
    """Print the pipeline's newest batches, oldest first."""
    from vector_assets.cli.status import show_batches

    name, target = session.pipeline.name, session.pipeline.target
    heading("Batches")
    show_batches(session.ledger.batches(name, target, limit=_BATCHES, newest_first=True)[::-1])


def cell(value: object) -> str:
    """A value in a table of neighbours."""
    return f"{value:.4f}" if isinstance(value, float) else str(value)
