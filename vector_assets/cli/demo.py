"""`vector-assets demo`: the main job from nothing, on services of its own, shown step by step."""

import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from vector_assets.cli.output import Spinner, command, heading, say, show_pairs, show_table, working
from vector_assets.engine import env
from vector_assets.engine.errors import ConfigError, FatalError

if TYPE_CHECKING:
    from vector_assets.engine.dead_letters import DeadLetter
    from vector_assets.engine.pipeline import Pipeline
    from vector_assets.engine.session import Session

CHECKOUT = Path(__file__).resolve().parents[2]
_RUNS = 3
"""Runs of the asset at most: a drain ends with its hour, and an hour may turn in the middle of one, not of two."""
_BATCHES = 8
_LETTERS = 20


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "vector-assets demo", "make dev    to look at it in Dagster's UI afterwards")(demo)


def demo() -> None:
    """Show the main job on embedded services: Kafka records become searchable vectors through a Dagster asset.

    Starts Kafka and PostgreSQL, makes a table with a vector index and a topic with 10,000 records (ten of them bad),
    materializes the asset of pipelines/car_info.sql, and checks that every record is accounted for. A second call
    changes nothing.
    """
    if not (CHECKOUT / "pipelines" / "car_info.sql").is_file():
        raise ConfigError(f"the demo needs the repository, and {CHECKOUT} is none: clone it, run `make demo` in it")
    from vector_assets.local import demo as world

    _step("services", _start_services)
    with env.overridden(**world.secrets(), VECTOR_ASSETS_PIPELINES=str(CHECKOUT / "pipelines")):
        _step("target", _create_target)
        _step("topic", _fill_topic)
        _step("asset", _materialize)
        _show_result()


def _step(name: str, work: Callable[[Spinner], str]) -> None:
    began = time.monotonic()
    with working(name) as progress:
        outcome = work(progress)
    say(f"{name:<9} {outcome} ({time.monotonic() - began:.1f} s)")


def _start_services(progress: Spinner) -> str:
    from vector_assets.local import demo as world

    rows = world.start_services(progress)
    return ", ".join(f"{row.name} {row.version} on {row.address}" for row in rows)


def _create_target(progress: Spinner) -> str:
    from vector_assets.local import demo as world

    progress(f"creating {world.TABLE}")
    is_new = world.create_target()
    return f"table {world.TABLE} with its vector index: {'made' if is_new else 'already there'}"


def _fill_topic(progress: Spinner) -> str:
    from vector_assets.local import demo as world

    filled = world.fill_topic(progress)
    made = f"{filled.total - filled.before:,} produced" if filled.before < filled.total else "already there"
    return f"{filled.total:,} records in {world.TOPIC}: {made}"


def _materialize(progress: Spinner) -> str:
    """Run `dagster asset materialize` for the open partition until one run both began and ended in it.

    Raises:
        FatalError: Dagster failed; the message shows the end of its output.
    """
    from vector_assets.cli.declared import pipelines
    from vector_assets.engine.hours import Calendar
    from vector_assets.local import demo as world

    # this one command of Dagster does not look into pyproject.toml by itself
    module = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["dagster"]["module_name"]
    (pipeline,) = pipelines(world.PIPELINE)
    calendar = Calendar(pipeline.settings.partitions)
    before = _batches_done(pipeline)
    for _ in range(_RUNS):
        hour = calendar.now()
        arguments = ["asset", "materialize", "-m", module, "--select", world.PIPELINE, "--partition", hour]
        shown = f"dagster {' '.join(arguments)}"
        progress(shown)
        done = _dagster(arguments)
        if not calendar.is_open(hour):
            continue
        if done.returncode != 0:
            tail = "\n".join((done.stdout + done.stderr).splitlines()[-40:])
            raise FatalError(f"demo: `{shown}` ended with exit code {done.returncode}:\n{tail}")
        return f"{shown}: {_batches_done(pipeline) - before or 'no'} new batches"
    raise FatalError(f"demo: the partition ended during each of {_RUNS} runs")


def _batches_done(pipeline: "Pipeline") -> int:
    from vector_assets.cli.declared import books

    with books() as open_books:
        return open_books.ledger.totals(pipeline.name, pipeline.target)[0]


def _dagster(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run Dagster as one would by hand in the checkout."""
    environment = env.child_environment()
    environment.setdefault("DAGSTER_HOME", str(CHECKOUT / "dagster_home"))
    return subprocess.run(
        [sys.executable, "-m", "dagster", *arguments],
        cwd=CHECKOUT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Account:
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


def _show_result() -> None:
    from vector_assets.cli.declared import opened
    from vector_assets.cli.status import show_batches
    from vector_assets.local import demo as world

    with opened(world.PIPELINE) as session:
        name, target = session.pipeline.name, session.pipeline.target
        letters = session.ledger.dead_letters.listed(name, state=None)
        account = _account(session, letters)
        batches = session.ledger.batches(name, target, limit=_BATCHES, newest_first=True)
    heading("What became of the records")
    show_pairs(
        [
            ("read from the topic", account.read),
            ("rows landed", account.rows),
            ("conflicts", f"{account.conflicts:,} (a key that was there before; conflictmode=ignore keeps the first)"),
            ("dead letters", account.letters),
        ]
    )
    left = [letter for letter in letters if letter.replayed_by is None]
    _show_letters(left)
    heading("Batches")
    show_batches(batches[::-1])
    _show_nearest()
    _show_next_steps(left)
    if not account.adds_up:
        raise FatalError(f"demo: the numbers do not add up: {account}")


def _account(session: "Session", letters: "list[DeadLetter]") -> _Account:
    from vector_assets.engine.core import BatchKind, State
    from vector_assets.local import demo as world

    name, target = session.pipeline.name, session.pipeline.target
    done = [batch for batch in session.ledger.batches(name, target) if batch.state is State.DONE]
    position = session.ledger.position(name, target)
    return _Account(
        read=sum(batch.counts.records for batch in done if batch.kind is BatchKind.RECORDS),
        unread=session.source.lag(position, session.source.frontier()),
        rows=world.count_rows(),
        conflicts=sum(batch.counts.conflicts for batch in done),
        # one that was replayed is a row or a conflict now, or a dead letter anew
        letters=sum(letter.replayed_by is None for letter in letters),
    )


def _show_letters(left: "list[DeadLetter]") -> None:
    from vector_assets.cli.dead_letters import place

    heading("Dead letters")
    rows = [(str(letter.id), place(letter), letter.stage, letter.error) for letter in left[:_LETTERS]]
    show_table(("id", "place", "stage", "reason"), rows, right=("id",))
    if len(left) > _LETTERS:
        say(f"and {len(left) - _LETTERS} more", "dim")


def _show_nearest() -> None:
    from vector_assets.local import demo as world

    found = world.nearest()
    heading(f"Cars most like car {found.like}" + (f", by the index {found.index}" if found.index else ""))
    say(found.query, "dim")
    show_table(found.columns, [[_cell(value) for value in row] for row in found.rows], right=found.columns)


def _cell(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _show_next_steps(left: "list[DeadLetter]") -> None:
    heading("Next")
    me = _own_name()
    show_pairs(
        [
            ("make dev", "Dagster's UI over this pipeline: http://127.0.0.1:3000"),
            (f"{me} status car_info", "where the pipeline stands"),
            *((f"{me} dead-letters show {letter.id}", "one rejected record with its bytes") for letter in left[:1]),
            ("make services-down", "stop Kafka and PostgreSQL; their data stays"),
        ]
    )


def _own_name() -> str:
    """What to type to run this program again from here."""
    name, mine = "vector-assets", Path(sys.argv[0]).absolute()
    found = shutil.which(name)
    if found and Path(found) == mine:
        return name
    return str(mine.relative_to(Path.cwd())) if mine.is_relative_to(Path.cwd()) else str(mine)
