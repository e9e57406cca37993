"""The demo's fifth part: three tables of MySQL become Delta tables of MaxCompute that follow, a new column included."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vector_assets.cli import schema_versions
from vector_assets.cli.declared import books, opened
from vector_assets.cli.demo_part import Part, Progress, cell, letters_of, run_now, show_newest_batches
from vector_assets.cli.output import heading, show_table
from vector_assets.engine import env
from vector_assets.engine.errors import FatalError
from vector_assets.local import demo_books as world

if TYPE_CHECKING:
    from vector_assets.local.demo_mysql import Row


def _fill(progress: Progress) -> str:
    written = world.fill(progress)
    told = f"{written:,} rows written" if written else "already there"
    return f"{', '.join(world.TABLES)} of MySQL database {world.DATABASE}: {told}"


def _capture(progress: Progress) -> str:
    """Do what `vector-assets capture` does."""
    from vector_assets.declare import load_captures
    from vector_assets.declare.cdc_look import look

    (capture,) = load_captures(env.pipelines_dir() / world.FILE)
    progress(f"vector-assets capture pipelines/{world.FILE}")
    with books() as open_books:
        found = look(capture, open_books.ledger)
    return f"vector-assets capture pipelines/{world.FILE}: {len(found.new) or 'no'} new tables"


def _change(progress: Progress) -> str:
    changed = world.change(progress)
    told = f"{changed:,} rows changed, and column {world.NEW_COLUMN} added" if changed else "already there"
    return f"inserts, updates, deletes and a new column in {world.DATABASE}: {told}"


def _run(progress: Progress) -> str:
    return run_now(world.PIPELINES, progress)


@dataclass(frozen=True, slots=True)
class Account:
    """One table in MySQL and in MaxCompute; `differing` are rows of one that the other does not have."""

    table: str
    source_rows: int
    target_rows: int
    differing: int
    letters: int

    @property
    def adds_up(self) -> bool:
        """True when both tables have the same rows, and there are some."""
        is_same = self.source_rows == self.target_rows and self.differing == 0
        return is_same and self.source_rows > 0 and self.letters == 0


def differing(source: "list[Row]", target: "list[Row]") -> int:
    """How many places of two sorted lists of rows are not equal, value by value."""
    unequal = sum(mine != other for mine, other in zip(source, target, strict=False))
    return unequal + abs(len(source) - len(target))


def _show() -> list[tuple[str, str]]:
    accounts = [_account(table, names) for table, names in world.columns().items()]
    heading("Bookshop: the tables of MySQL and what MaxCompute has of them")
    columns = ("table", "rows in MySQL", "rows in MaxCompute", "rows that differ", "dead letters")
    rows = [(a.table, a.source_rows, a.target_rows, a.differing, a.letters) for a in accounts]
    show_table(columns, rows, right=columns[1:])
    pipeline = world.PIPELINES[world.TABLES.index("books")]
    with opened(pipeline) as session:
        heading("Columns of the Delta table books, which followed ALTER TABLE .. ADD COLUMN")
        schema_versions.show(session.ledger, session.pipeline.name, session.pipeline.target)
        show_newest_batches(session)
    heading("Books by their new column, in MaxCompute")
    found = [[cell(value) for value in row] for row in world.languages()]
    show_table((world.NEW_COLUMN, "books", "dearest"), found, right=("books", "dearest"))
    if not all(account.adds_up for account in accounts):
        raise FatalError(f"demo: MaxCompute does not have the rows of MySQL: {accounts}; see `reconcile {pipeline}`")
    return [
        (f"capture pipelines/{world.FILE}", "which tables are followed; look for new ones"),
        (f"reconcile {pipeline}", "every row of the Delta table against the archive"),
    ]


def _account(table: str, names: list[str]) -> Account:
    with opened(world.PIPELINES[world.TABLES.index(table)]) as session:
        letters = len(letters_of(session))
    source, target = world.source_rows(table, names), world.landed_rows(table, names)
    return Account(table, len(source), len(target), differing(source, target), letters)


PART = Part(
    pipelines=world.PIPELINES,
    services=world.SERVICES,
    before=(("database", _fill), ("capture", _capture)),
    show=_show,
    after=(("changes", _change), ("run", _run)),
)
