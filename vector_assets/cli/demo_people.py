"""The demo's second part: changes of people become a collection of Milvus that holds who is left."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

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
from vector_assets.engine.abilities import DISTANCE, Auditable, Creatable, Searchable, SearchQuery
from vector_assets.engine.errors import FatalError
from vector_assets.local import demo_people as world

if TYPE_CHECKING:
    from vector_assets.engine.session import Session

_NEAREST = 5
_YOUNG = 30


def _create_target(progress: Progress) -> str:
    with opened(world.PIPELINE) as session:
        pipeline = session.pipeline
        progress(f"creating {pipeline.target}")
        made = cast(Creatable, session.sink).create_target(pipeline.schema, pipeline.sink_table.primary_key)
        return "; ".join(made)


def _fill_topic(progress: Progress) -> str:
    return world.fill_topic(progress).told(world.TOPIC)


@dataclass(frozen=True, slots=True)
class Account:
    """What the topic said and what the collection holds; `is_equal` compares every value of every row."""

    read: int
    unread: int
    letters: int
    rows: int
    is_equal: bool

    @property
    def adds_up(self) -> bool:
        """True when everything was read, the bad records alone are dead letters, and the collection is as it should.

        A topic that was read again after a reset counts each time.
        """
        times, rest = divmod(self.read, world.RECORDS)
        return self.unread == 0 and rest == 0 and self.letters == times * world.POISON and self.is_equal


def _show() -> list[tuple[str, str]]:
    with opened(world.PIPELINE) as session:
        left = letters_of(session)
        account = _account(session, len(left))
        heading("People: what became of the changes")
        happened = ", ".join(f"{count:,} {what}s" for what, count in world.changes().happened.items())
        show_pairs(
            [
                ("read from the topic", f"{account.read:,} records: {happened}, and what is no change"),
                ("dead letters", account.letters),
                ("rows left", account.rows),
                ("each as its last change says", account.is_equal),
            ]
        )
        show_letters(left)
        show_newest_batches(session)
        _show_nearest(session)
    if not account.adds_up:
        what_differs = f"`vector-assets reconcile {world.PIPELINE}`"
        raise FatalError(f"demo: the collection is not what the changes say: {account}; see {what_differs}")
    return [(f"explain {world.PIPELINE} --key '{{\"id\": 7}}'", "which record made a row of the collection")]


def _account(session: "Session", letters: int) -> Account:
    """Compare the collection with what the changes leave.

    Raises:
        PlanError: the collection does not fit.
    """
    import pyarrow as pa

    session.target()
    sink = cast(Auditable, session.sink)
    batches = list(sink.scan())
    found = pa.Table.from_batches(batches).sort_by("id") if batches else pa.table({})
    read, unread = read_and_unread(session)
    return Account(read, unread, letters, found.num_rows, found.equals(world.expected(found.schema)))


def _show_nearest(session: "Session") -> None:
    """Search the collection as `vector-assets search` does."""
    like = next(iter(world.changes().left.values()))
    vector = f"[{','.join(map(str, like.vec))}]"
    where = f"age < {_YOUNG}"
    heading(f"People under {_YOUNG} most like {like.name} ({like.id})")
    say(f"vector-assets search {world.PIPELINE} --vector '{vector}' --where '{where}' --k {_NEAREST}", "dim")
    result = cast(Searchable, session.sink).search(SearchQuery(like.vec, _NEAREST, where))
    columns = [DISTANCE, *(name for name in result.rows.column_names if name != DISTANCE)]
    rows = [[cell(row[name]) for name in columns] for row in result.rows.to_pylist()]
    show_table(["distance", *columns[1:]], rows, right=("distance", "id", "age"))
    say(result.how, "dim")


PART = Part((world.PIPELINE,), world.SERVICES, (("target", _create_target), ("topic", _fill_topic)), _show)
