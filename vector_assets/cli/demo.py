"""`vector-assets demo`: whole jobs from nothing, on services of their own, shown step by step."""

import logging
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vector_assets.cli import demo_dagster, demo_fetch
from vector_assets.cli.output import Spinner, command, heading, say, show_pairs, warn, working
from vector_assets.engine import env
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.registry import nearest

if TYPE_CHECKING:
    from vector_assets.cli.demo_part import Part, Step

PARTS = ("adbpg", "milvus", "lake", "maxcompute", "mysql", "search")
_STAND_INS = {
    "port": "1",
    "bootstrap_servers": "127.0.0.1:1",
    "maxcompute_endpoint": "http://127.0.0.1:1",
    "url": "http://127.0.0.1:1",
}
_STAND_IN = "127.0.0.1"
"""A secret that compiles as a host, a name or a password; those that end as above want something else."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(
        app,
        "vector-assets demo",
        "vector-assets demo milvus lake    only these parts, and the services that they need",
        "make dev                          to look at it in Dagster's UI afterwards",
    )(demo)


def demo(
    parts: Annotated[
        list[str] | None, typer.Argument(metavar="PART", help=f"{', '.join(PARTS)}; all when none is named.")
    ] = None,
) -> None:
    """Show whole jobs on embedded services, each through its Dagster asset.

    adbpg: 10,000 CSV records of cars in Kafka (ten of them bad, five of a key that was there before) become rows of a
    PostgreSQL table with a vector index (pipelines/car_info.sql).

    milvus: 5,000 changes of people in Kafka (updates, deletes, tombstones, ten bad ones) become a collection of Milvus
    that holds who is left (pipelines/people.sql).

    lake: 4,000 orders in Kafka, nested JSON that changes half-way (five are no JSON objects), become an Iceberg table
    whose columns follow and a Paimon table that puts aside what it has no column for (pipelines/orders.yaml).

    maxcompute: partitions of a table on a local MaxCompute, joined with a table of customers, become rows of PostgreSQL
    and a count per customer; then one more partition comes (pipelines/visits.sql, pipelines/visit_counts.sql).

    mysql: three tables of a MySQL become Delta tables of MaxCompute (pipelines/bookshop.yaml); then rows are inserted,
    updated and deleted, a column is added, and the Delta tables follow.

    search: a table of MySQL becomes an index of OpenSearch, each document with the vector of its text, from one CALL
    (pipelines/_search/articles.sql), follows, and is searched by text. OpenSearch is fetched once: 440 MB. Where it
    cannot be had, a demo of all parts goes on without this one.

    It is checked that every record is accounted for, and what landed is compared with what was sent, value by value. A
    second call changes nothing.
    """
    if not (demo_dagster.PIPELINES / "car_info.sql").is_file():
        raise ConfigError(
            f"the demo needs the repository, and {demo_dagster.CHECKOUT} is none: clone it, run `make demo` in it"
        )
    known = _known_parts()
    unknown = [name for name in parts or () if name not in known]
    if unknown:
        raise ConfigError(f"unknown part {unknown[0]!r}{nearest(unknown[0], PARTS)}; known: {', '.join(PARTS)}")
    chosen = {name: part for name, part in known.items() if not parts or name in parts}
    left_out = demo_fetch.left_out(chosen, is_needed=bool(parts))
    chosen = {name: part for name, part in chosen.items() if name not in left_out}

    _step("services", lambda progress: _start_services(progress, chosen))
    with env.overridden(**_secrets(known, chosen)), _quiet_about(chosen):
        for part in chosen.values():
            _steps(part, part.before)
        _materialize([part for part in chosen.values() if part.pipelines])
        # in turns: what changes one part's databases is done before another part lands what is there
        for turn in zip_longest(*(part.after for part in chosen.values())):
            for part, step in zip(chosen.values(), turn, strict=True):
                _steps(part, [step] if step else [])
        steps = [step for part in chosen.values() for step in _shown(part)]
    _show_next_steps(steps, is_whole=len(chosen) == len(known))
    for name, why in left_out.items():
        warn(f"part {name} was left out: {why}; `make demo DEMO={name}` tries again")


def _known_parts() -> "Mapping[str, Part]":
    from vector_assets.cli import demo_articles, demo_books, demo_cars, demo_orders, demo_people, demo_visits

    modules = (demo_cars, demo_people, demo_orders, demo_visits, demo_books, demo_articles)
    return dict(zip(PARTS, (module.PART for module in modules), strict=True))


def _secrets(known: "Mapping[str, Part]", chosen: "Mapping[str, Part]") -> dict[str, str]:
    """Environment variables that point every `${secret_values.x}` of the demo at its own services.

    Every script of the folder is compiled, so those of parts that were not chosen get a stand-in where a service never
    ran; nothing uses it.
    """
    from vector_assets.local.services import SERVICES

    names = {name for part in known.values() for each in part.services for name in SERVICES[each].secret_names}
    found = {
        name: next((text for end, text in _STAND_INS.items() if name.lower().endswith(end)), _STAND_IN)
        for name in names
    }
    for each in dict.fromkeys(each for part in chosen.values() for each in part.services):
        found |= SERVICES[each]().secrets()
    return {env.secret_variable(name): value for name, value in found.items()}


def _steps(part: "Part", steps: "Sequence[Step]") -> None:
    with _seeing(part):
        for name, work in steps:
            _step(name, work)


def _shown(part: "Part") -> list[tuple[str, str]]:
    """Let the part show its results; what to type next, whole, and what it is for."""
    before = f"env VECTOR_ASSETS_PIPELINES=pipelines/{part.folder} " if part.folder else ""
    with _seeing(part):
        return [(f"{before}{_own_name()} {words}", why) for words, why in part.show()]


def _seeing(part: "Part") -> AbstractContextManager[None]:
    """For the length of the block, the declarations are those of the part's folder."""
    return env.overridden(VECTOR_ASSETS_PIPELINES=str(demo_dagster.PIPELINES / part.folder))


def _materialize(parts: "Sequence[Part]") -> None:
    """Materialize the assets of parts for the open hour, by one start of Dagster whatever their folders."""
    if not parts:
        return
    folders = [*dict.fromkeys(demo_dagster.PIPELINES / part.folder for part in parts)]
    folder = folders[0] if len(folders) == 1 else demo_dagster.together(folders)
    with env.overridden(VECTOR_ASSETS_PIPELINES=str(folder)):
        names = [name for part in parts for name in part.pipelines]
        _step("asset", lambda progress: demo_dagster.materialize(progress, names))


@contextmanager
def _quiet_about(chosen: "Mapping[str, Part]") -> Iterator[None]:
    """Without part mysql its tables may not be known yet, and each look into the folder would warn of it."""
    logger = logging.getLogger("vector_assets.declare.cdc_look")
    level = logger.level
    logger.setLevel(level if "mysql" in chosen else logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _step(name: str, work: Callable[[Spinner], str]) -> None:
    began = time.monotonic()
    with working(name) as progress:
        outcome = work(progress)
    say(f"{name:<9} {outcome} ({time.monotonic() - began:.1f} s)")


def _start_services(progress: Spinner, parts: "Mapping[str, Part]") -> str:
    from vector_assets.local import services

    rows = services.up([name for part in parts.values() for name in part.services], progress)
    return ", ".join(f"{row.name} {row.version} on {row.address}" for row in rows)


def _show_next_steps(steps: "list[tuple[str, str]]", *, is_whole: bool) -> None:
    heading("Next")
    me = _own_name()
    others = [("make services-up", "start the other services, too: all scripts of pipelines/ are read together")]
    show_pairs(
        [
            *([] if is_whole else others),
            ("make dev", "Dagster's UI over these pipelines: http://127.0.0.1:3000"),
            (f"{me} status", "where each pipeline stands"),
            *steps,
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
