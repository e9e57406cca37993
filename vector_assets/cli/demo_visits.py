"""The demo's fourth part: partitions of a MaxCompute table, followed into rows with names and a count per customer."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from vector_assets.cli import demo_dagster
from vector_assets.cli.declared import opened
from vector_assets.cli.demo_part import Part, Progress, letters_of, read_and_unread, show_newest_batches
from vector_assets.cli.output import heading, say, show_pairs, show_table
from vector_assets.engine.abilities import Listing, partitioned
from vector_assets.engine.errors import FatalError
from vector_assets.local import demo_visits as world

if TYPE_CHECKING:
    from vector_assets.engine.session import Session

_BUSIEST = 5
_READY_S = 60.0
"""How long a partition that was just written may take to be complete."""


def _create_target(progress: Progress) -> str:
    progress(f"creating the tables of {world.DATABASE}")
    made = world.create_target()
    return f"tables {', '.join(world.PIPELINES)} in {world.DATABASE}: {'made' if made else 'already there'}"


def _fill_first_days(progress: Progress) -> str:
    *first, _ = world.DAYS
    written = sum(world.fill(day, progress) for day in first)
    told = f"{written:,} rows written by pyodps" if written else "already there"
    return f"{', '.join(f'ds={day}' for day in first)} of {world.SOURCE} and {world.CUSTOMERS}: {told}"


def _run(progress: Progress) -> str:
    """Do what `vector-assets run` does, for both pipelines."""
    from vector_assets.engine.run import Runner

    told = []
    for name in world.PIPELINES:
        with opened(name) as session:
            _wait_until_ready(session, progress, world.DAYS[:-1])
            progress(f"vector-assets run {name}")
            told.append(f"vector-assets run {name}: {len(list(Runner(session).catch_up())) or 'no'} new batches")
    return "; ".join(told)


def _add_last_day(progress: Progress) -> str:
    """Write one more partition, and read it through the assets unless it is read."""
    day = world.DAYS[-1]
    key = f"ds={day}"
    written = world.fill(day, progress)
    waiting = []
    for name in world.PIPELINES:
        with opened(name) as session:
            _wait_until_ready(session, progress, [day])
            if not _is_read(session, key):
                waiting.append(name)
    told = f"{key} comes with {written:,} rows" if written else f"{key}: already there"
    return f"{told}; {demo_dagster.materialize_partitions(progress, waiting) if waiting else 'no new batches'}"


def _wait_until_ready(session: "Session", progress: Progress, days: "tuple[str, ...] | list[str]") -> None:
    """Wait until the partitions are complete.

    Raises:
        FatalError: they are not in time.
    """
    from vector_assets.local import process

    wanted = {f"ds={day}" for day in days}
    source = cast(Listing, session.source)
    progress(f"waiting until nothing changes in {', '.join(sorted(wanted))}")
    if not process.until(lambda: wanted <= {each.key for each in source.partitions() if each.waits is None}, _READY_S):
        waits = {each.key: each.waits for each in source.partitions()}
        raise FatalError(f"demo: {world.SOURCE}: want {sorted(wanted)} to be complete within {_READY_S:g} s: {waits}")


def _is_read(session: "Session", key: str) -> bool:
    own = partitioned(session.pipeline.source_options)
    position = session.ledger.position(session.pipeline.name, session.pipeline.target)
    return own is not None and own.is_read(key, position)


@dataclass(frozen=True, slots=True)
class Account:
    """What the two pipelines read and what landed; both tables are compared with the visits, value by value."""

    read: tuple[int, ...]
    unread: int
    letters: int
    rows: int
    are_rows_equal: bool
    are_counts_equal: bool

    @property
    def adds_up(self) -> bool:
        """True when everything was read, nothing is a dead letter and both tables are as they should be.

        Partitions that were read again after a reset count each time.
        """
        is_whole = all(read and read % (len(world.DAYS) * world.ROWS) == 0 for read in self.read)
        return is_whole and not self.unread and not self.letters and self.are_rows_equal and self.are_counts_equal


def _show() -> list[tuple[str, str]]:
    visits, counts = world.landed()
    read, unread, letters = [], 0, 0
    for name in world.PIPELINES:
        with opened(name) as session:
            done, left = read_and_unread(session)
            read.append(done)
            unread += left
            letters += len(letters_of(session))
    expected = world.world()
    account = Account(
        tuple(read), unread, letters, len(visits), visits == expected.joined(), counts == expected.counted()
    )
    _show_account(account, sum(row[2] is not None for row in visits), len(counts))
    if not account.adds_up:
        raise FatalError(f"demo: the tables are not what the visits say: {account}")
    return [
        (f"status {world.PIPELINES[0]}", "partitions read, and the customers they were joined with"),
        ("services status maxcompute", "its address; open it in a browser to see tables, partitions and rows"),
    ]


def _show_account(account: Account, known: int, customers: int) -> None:
    heading("Visits: what became of the partitions")
    show_pairs(
        [
            ("read from MaxCompute", f"{account.read[0]:,} visits in {len(world.DAYS)} partitions"),
            ("rows landed", account.rows),
            ("of a known customer", known),
            ("each as the tables say", account.are_rows_equal),
            ("customers counted", customers),
            ("each as often as it came", account.are_counts_equal),
        ]
    )
    with opened(world.PIPELINES[0]) as session:
        name, target = session.pipeline.name, session.pipeline.target
        heading("Batches, and the version of the customers that each was joined with")
        for batch in session.ledger.batches(name, target):
            versions = ", ".join(f"{table} {version}" for table, version in (batch.lookups or {}).items())
            say(f"{batch.seq} {batch.hour}: {versions}")
    with opened(world.PIPELINES[1]) as session:
        show_newest_batches(session)
    heading("Who came most often: SELECT cid, COUNT(*) .. GROUP BY cid, kept up to date")
    show_table(("cid", "name", "city", "visits"), world.busiest(_BUSIEST), right=("visits",))


PART = Part(
    pipelines=(),
    services=world.SERVICES,
    before=(("target", _create_target), ("table", _fill_first_days), ("run", _run)),
    show=_show,
    after=(("partition", _add_last_day),),
)
