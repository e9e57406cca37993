"""The demo's visits: partitions of a MaxCompute table written by plain pyodps, and what should become of them."""

import random
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import Any

from vector_assets.engine import env
from vector_assets.local.demo_postgres import connected, ensure_database
from vector_assets.local.maxcompute.service import MaxComputeService
from vector_assets.local.postgres import PostgresService
from vector_assets.local.service import Progress

SERVICES = (PostgresService.name, MaxComputeService.name)
PIPELINES = ("visits", "visit_counts")
DATABASE = "visits"
SOURCE = "demo_visits"
CUSTOMERS = "demo_customers"
DAYS = ("20260301", "20260302", "20260303")
"""Partitions; the last one comes when the others have been read."""
ROWS = 1_500
"""Visits of a day."""

_SEED = 20260304
_PAGES = ("/", "/cars", "/cart", "/search", "/help")
_CITIES = ("Berlin", "Hangzhou", "Lagos", "Lima", "Oslo", "Porto")
_KNOWN = 90
_NEW = 10
"""Customers who are in the table from the last day on, and visit on that day only."""
_STRANGERS = 5
"""Visitors who are never in it."""

_TARGET = (
    "CREATE TABLE IF NOT EXISTS visits"
    " (id bigint PRIMARY KEY, cid text NOT NULL, name text, city text, page text, rt float8, ds text)",
    "CREATE TABLE IF NOT EXISTS visit_counts (cid text PRIMARY KEY, invoke_count bigint NOT NULL)",
)

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Visits:
    """Rows of both tables by day: `id, cid, page, rt` and `cid, name, city`."""

    visits: dict[str, list[Row]]
    customers: dict[str, list[Row]]

    def joined(self) -> list[Row]:
        """What the table `visits` should hold, by id."""
        known = {row[0]: row[1:] for row in self.customers[DAYS[-1]]}
        return [
            (number, cid, *known.get(cid, (None, None)), page, rt, day)
            for day, rows in self.visits.items()
            for number, cid, page, rt in rows
        ]

    def counted(self) -> list[Row]:
        """What the table `visit_counts` should hold, by cid."""
        return sorted(Counter(row[1] for rows in self.visits.values() for row in rows).items())


@cache
def world() -> Visits:
    """The same at every call."""
    # a fixed seed: nothing here is secret
    source = random.Random(_SEED)
    people = [(f"c{number:03}", f"Customer {number}", source.choice(_CITIES)) for number in range(_KNOWN + _NEW)]
    strangers = [f"x{number}" for number in range(_STRANGERS)]
    visits: dict[str, list[Row]] = {}
    for at, day in enumerate(DAYS):
        who = [row[0] for row in (people if day == DAYS[-1] else people[:_KNOWN])] + strangers
        visits[day] = [
            (1 + at * ROWS + number, source.choice(who), source.choice(_PAGES), round(source.expovariate(5), 4))
            for number in range(ROWS)
        ]
    return Visits(visits, {day: people if day == DAYS[-1] else people[:_KNOWN] for day in (DAYS[0], DAYS[-1])})


def create_target() -> bool:
    """Create the database and the tables where they lack; False when they were there.

    Raises:
        TransientError: the server does not answer.
    """
    ensure_database(DATABASE)
    with connected(DATABASE) as connection:
        known = connection.execute("SELECT to_regclass('visit_counts')").fetchone()
        for statement in _TARGET:
            connection.execute(statement)
    return known is None or known[0] is None


def fill(day: str, progress: Progress) -> int:
    """Write the day's partitions of both tables where they lack, by plain pyodps; how many rows were written."""
    from odps import ODPS

    odps = ODPS(
        env.secret("maxcompute_access_id"), env.secret("maxcompute_access_key"), env.secret("maxcompute_project"),
        endpoint=env.secret("maxcompute_endpoint"),
    )  # fmt: skip
    written = 0
    columns = {
        SOURCE: "id bigint, cid string, page string, rt double",
        CUSTOMERS: "cid string, name string, city string",
    }
    for name, rows in ((CUSTOMERS, world().customers.get(day, [])), (SOURCE, world().visits[day])):
        progress(f"writing ds={day} of {name}")
        table = odps.create_table(name, (columns[name], "ds string"), if_not_exists=True)
        spec = f"ds={day}"
        # rows become visible with the writer's end, all or none
        if not rows or (table.exist_partition(spec) and _count(table, spec)):
            continue
        with table.open_writer(partition=spec, create_partition=True) as writer:
            writer.write([list(row) for row in rows])
        written += len(rows)
    return written


def _count(table: Any, spec: str) -> int:
    with table.open_reader(partition=spec) as reader:
        return int(reader.count)


def landed() -> tuple[list[Row], list[Row]]:
    """Rows of the tables `visits` and `visit_counts`, each by its key.

    Raises:
        TransientError: the server does not answer.
    """
    with connected(DATABASE) as connection:
        visits = connection.execute("SELECT id, cid, name, city, page, rt, ds FROM visits ORDER BY id").fetchall()
        counts = connection.execute('SELECT cid, invoke_count FROM visit_counts ORDER BY cid COLLATE "C"').fetchall()
    return visits, counts


def busiest(count: int) -> list[Row]:
    """The customers who came most often, with what both tables say of them."""
    with connected(DATABASE) as connection:
        return connection.execute(
            "SELECT c.cid, v.name, v.city, c.invoke_count FROM visit_counts c"
            " JOIN (SELECT DISTINCT cid, name, city FROM visits) v USING (cid)"
            " ORDER BY c.invoke_count DESC, c.cid LIMIT %s",
            [count],
        ).fetchall()
