"""`vector-assets demo`: whole jobs from nothing, on services of their own, shown step by step."""

import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vector_assets.cli.output import Spinner, command, heading, say, show_pairs, working
from vector_assets.engine import env
from vector_assets.engine.errors import ConfigError, FatalError
from vector_assets.engine.registry import nearest

if TYPE_CHECKING:
    from vector_assets.cli.demo_part import Part
    from vector_assets.engine.pipeline import Pipeline

CHECKOUT = Path(__file__).resolve().parents[2]
PARTS = ("adbpg", "milvus")
_STAND_IN = "1"
"""A secret that compiles as a host, a port, a name or a password."""
_RUNS = 3
"""Runs of the assets at most: a drain ends with its hour, and an hour may turn in the middle of one, not of two."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(
        app,
        "vector-assets demo",
        "vector-assets demo milvus    only that part, without PostgreSQL",
        "make dev                     to look at it in Dagster's UI afterwards",
    )(demo)


def demo(
    parts: Annotated[
        list[str] | None, typer.Argument(metavar="PART", help=f"{' or '.join(PARTS)}; both when none is named.")
    ] = None,
) -> None:
    """Show whole jobs on embedded services, each through its Dagster asset.

    adbpg: 10,000 CSV records of cars in Kafka (ten of them bad, five of a key that was there before) become rows of a
    PostgreSQL table with a vector index (pipelines/car_info.sql).

    milvus: 5,000 changes of people in Kafka (updates, deletes, tombstones, ten bad ones) become a collection of Milvus
    that holds who is left (pipelines/people.sql).

    It is checked that every record is accounted for, and the collection is compared with what the changes say, value by
    value. A second call changes nothing.
    """
    if not (CHECKOUT / "pipelines" / "car_info.sql").is_file():
        raise ConfigError(f"the demo needs the repository, and {CHECKOUT} is none: clone it, run `make demo` in it")
    known = _known_parts()
    unknown = [name for name in parts or () if name not in known]
    if unknown:
        raise ConfigError(f"unknown part {unknown[0]!r}{nearest(unknown[0], PARTS)}; known: {', '.join(PARTS)}")
    chosen = {name: part for name, part in known.items() if not parts or name in parts}

    _step("services", lambda progress: _start_services(progress, chosen))
    with env.overridden(**_secrets(known, chosen), VECTOR_ASSETS_PIPELINES=str(CHECKOUT / "pipelines")):
        for part in chosen.values():
            _step("target", part.create_target)
            _step("topic", part.fill_topic)
        _step("asset", lambda progress: _materialize(progress, [part.pipeline for part in chosen.values()]))
        steps = [step for part in chosen.values() for step in part.show()]
    _show_next_steps(steps, is_whole=len(chosen) == len(known))


def _known_parts() -> "Mapping[str, Part]":
    from vector_assets.cli import demo_cars, demo_people

    return dict(zip(PARTS, (demo_cars.PART, demo_people.PART), strict=True))


def _secrets(known: "Mapping[str, Part]", chosen: "Mapping[str, Part]") -> dict[str, str]:
    """Environment variables that point every `${secret_values.x}` of the demo at its own services.

    Every script of the folder is compiled, so those of parts that were not chosen get a stand-in where a service never
    ran; nothing uses it.
    """
    from vector_assets.local.services import SERVICES

    found = {
        name: _STAND_IN for part in known.values() for each in part.services for name in SERVICES[each].secret_names
    }
    for each in dict.fromkeys(each for part in chosen.values() for each in part.services):
        found |= SERVICES[each]().secrets()
    return {env.secret_variable(name): value for name, value in found.items()}


def _step(name: str, work: Callable[[Spinner], str]) -> None:
    began = time.monotonic()
    with working(name) as progress:
        outcome = work(progress)
    say(f"{name:<9} {outcome} ({time.monotonic() - began:.1f} s)")


def _start_services(progress: Spinner, parts: "Mapping[str, Part]") -> str:
    from vector_assets.local import services

    rows = services.up([name for part in parts.values() for name in part.services], progress)
    return ", ".join(f"{row.name} {row.version} on {row.address}" for row in rows)


def _materialize(progress: Spinner, names: Sequence[str]) -> str:
    """Run `dagster asset materialize` for the open partition until one run both began and ended in it.

    Raises:
        FatalError: Dagster failed; the message shows the end of its output.
    """
    from vector_assets.cli.declared import pipelines
    from vector_assets.engine.hours import Calendar

    # this one command of Dagster does not look into pyproject.toml by itself
    module = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["dagster"]["module_name"]
    chosen = [pipeline for pipeline in pipelines() if pipeline.name in names]
    calendar = Calendar(chosen[0].settings.partitions)
    before = _batches_done(chosen)
    for _ in range(_RUNS):
        hour = calendar.now()
        arguments = ["asset", "materialize", "-m", module, "--select", ",".join(names), "--partition", hour]
        shown = f"dagster {' '.join(arguments)}"
        progress(shown)
        done = _dagster(arguments)
        if not calendar.is_open(hour):
            continue
        if done.returncode != 0:
            tail = "\n".join((done.stdout + done.stderr).splitlines()[-40:])
            raise FatalError(f"demo: `{shown}` ended with exit code {done.returncode}:\n{tail}")
        return f"{shown}: {_batches_done(chosen) - before or 'no'} new batches"
    raise FatalError(f"demo: the partition ended during each of {_RUNS} runs")


def _batches_done(pipelines: "Sequence[Pipeline]") -> int:
    from vector_assets.cli.declared import books

    with books() as open_books:
        return sum(open_books.ledger.totals(pipeline.name, pipeline.target)[0] for pipeline in pipelines)


def _dagster(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run Dagster as one would by hand in the checkout."""
    environment = env.child_environment()
    environment.setdefault("DAGSTER_HOME", str(CHECKOUT / "dagster_home"))
    return subprocess.run(
        [sys.executable, "-m", "dagster", *arguments],
        cwd=CHECKOUT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip


def _show_next_steps(steps: "list[tuple[str, str]]", *, is_whole: bool) -> None:
    heading("Next")
    me = _own_name()
    others = [("make services-up", "start the other services, too: all scripts of pipelines/ are read together")]
    show_pairs(
        [
            *([] if is_whole else others),
            ("make dev", "Dagster's UI over these pipelines: http://127.0.0.1:3000"),
            (f"{me} status", "where each pipeline stands"),
            *((f"{me} {words}", why) for words, why in steps),
            ("make services-down", "stop the services; their data stays"),
        ]
    )


def _own_name() -> str:
    """What to type to run this program again from here."""
    name, mine = "vector-assets", Path(sys.argv[0]).absolute()
    found = shutil.which(name)
    if found and Path(found) == mine:
        return name
    return str(mine.relative_to(Path.cwd())) if mine.is_relative_to(Path.cwd()) else str(mine)
