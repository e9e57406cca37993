"""The demo's first part: CSV records of cars become rows of a table with a vector index."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vector_assets.cli.declared import opened
from vector_assets.cli.demo_part import (
    Part,
    Progress,
    cell,
    letters_of,
    read_and_unread,
    show_letters,
    show_newest_batches,
)
from vector_assets.cli.output import heading, say, show_pairs, show_table
from vector_assets.engine.errors import FatalError
from vector_assets.local import demo_cars as world

if TYPE_CHECKING:
    from vector_assets.engine.session import Session


def _create_target(progress: Progress) -> str:
    progress(f"creating {world.TABLE}")
    is_new = world.create_target()
    return f"table {world.TABLE} with its vector index: {'made' if is_new else 'already there'}"


def _fill_topic(progress: Progress) -> str:
    return world.fill_topic(progress).told(world.TOPIC)


@dataclass(frozen=True, slots=True)
class Account:
    """Where every record of the topic is now; `read` counts a record each time a batch of the source brought it."""

    read: int
    unread: int
    rows: int
    conflicts: int
    letters: int

    @property
    def adds_up(self) -> bool:
        """True when nothing is unread and every record read is a row, a conflict or a dead letter."""
        return self.unread == 0 and self.read == self.rows + self.conflicts + self.letters


def _show() -> list[tuple[str, str]]:
    with opened(world.PIPELINE) as session:
        left = letters_of(session)
        account = _account(session, len(left))
        heading("Cars: what became of the records")
        first_stays = "a key that was there before; conflictmode=ignore keeps the first"
        show_pairs(
            [
                ("read from the topic", account.read),
                ("rows landed", account.rows),
                ("conflicts", f"{account.conflicts:,} ({first_stays})"),
                ("dead letters", account.letters),
            ]
        )
        show_letters(left)
        show_newest_batches(session)
    _show_nearest()
    if not account.adds_up:
        raise FatalError(f"demo: the numbers do not add up: {account}")
    return [(f"dead-letters show {letter.id}", "one rejected record with its bytes") for letter in left[:1]]


def _account(session: "Session", letters: int) -> Account:
    from vector_assets.engine.core import State

    batches = session.ledger.batches(session.pipeline.name, session.pipeline.target)
    read, unread = read_and_unread(session)
    conflicts = sum(batch.counts.conflicts for batch in batches if batch.state is State.DONE)
    return Account(read, unread, world.count_rows(), conflicts, letters)


def _show_nearest() -> None:
    found = world.nearest()
    heading(f"Cars most like car {found.like}" + (f", by the index {found.index}" if found.index else ""))
    say(found.query, "dim")
    show_table(found.columns, [[cell(value) for value in row] for row in found.rows], right=found.columns)


PART = Part((world.PIPELINE,), world.SERVICES, (("target", _create_target), ("topic", _fill_topic)), _show)
