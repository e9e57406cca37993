"""The demo's cars: a topic of CSV records, some of them bad, and a table with a vector index to land them in."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg import sql

from vector_assets.engine.errors import FatalError
from vector_assets.local.demo_postgres import connected, ensure_database
from vector_assets.local.demo_topic import Filled, fill
from vector_assets.local.kafka import KafkaService
from vector_assets.local.postgres import PostgresService
from vector_assets.local.service import Progress

SERVICES = (KafkaService.name, PostgresService.name)
PIPELINE = "car_info"
TOPIC = "vector_ingest"
DATABASE = "adbpg_test"
TABLE = "vector_test.car_info"
RECORDS = 10_000
DIMENSION = 10

_SEED = 20260301
_COLORS = ("red", "white", "blue", "black", "silver", "green", "yellow", "brown")
_FIRST_SALE = datetime(2015, 1, 1)  # noqa: DTZ001 -- the column has no time zone

_TARGET = (
    "CREATE EXTENSION IF NOT EXISTS vector",
    "CREATE SCHEMA IF NOT EXISTS vector_test",
    f"CREATE TABLE IF NOT EXISTS {TABLE} ("
    " id bigint PRIMARY KEY, market_time timestamp, color varchar(10), price int, feature float4[])",
    f"CREATE INDEX IF NOT EXISTS car_info_by_time ON {TABLE} (market_time)",
    f"CREATE INDEX IF NOT EXISTS car_info_by_color ON {TABLE} (color)",
    f"CREATE INDEX IF NOT EXISTS car_info_by_price ON {TABLE} (price)",
    # FastANN's index exists on AnalyticDB only; on PostgreSQL the index sees the array as a vector
    f"CREATE INDEX IF NOT EXISTS car_info_by_feature ON {TABLE}"
    f" USING hnsw ((feature::vector({DIMENSION})) vector_l2_ops)",
)
_NEAREST = f"""SELECT id, color, price, feature::vector({DIMENSION}) <-> %(like)s AS distance
FROM {TABLE}
ORDER BY feature::vector({DIMENSION}) <-> %(like)s
LIMIT 5"""

Spoil = Callable[[list[str]], bytes]


def records() -> list[bytes]:
    """The demo's records, the same at every call: `id, market_time, color, price, {feature}` with tabs between.

    Ten are poison, one of a kind; five bring a key that an earlier one brought.
    """
    # a fixed seed: nothing here is secret
    source = random.Random(_SEED)
    rows = [_car(source, number) for number in range(1, RECORDS + 1)]
    for place, original in _DUPLICATES.items():
        rows[place][0] = rows[original][0]
    lines = ["\t".join(row).encode() for row in rows]
    step = RECORDS // len(_POISON)
    for place, spoil in zip(range(step // 2, RECORDS, step), _POISON.values(), strict=True):
        lines[place] = spoil(rows[place])
    return lines


def _car(source: random.Random, number: int) -> list[str]:
    model = source.randrange(40)
    sold = _FIRST_SALE + timedelta(minutes=source.randrange(10 * 365 * 24 * 60))
    # cars of one model look alike
    feature = [((model * 37 + axis * 101) % 97) / 97 + source.gauss(0, 0.03) for axis in range(DIMENSION)]
    return [
        str(number),
        sold.strftime("%Y-%m-%d %H:%M:%S"),
        source.choice(_COLORS),
        str(8_000 + 900 * model + source.randrange(2_000)),
        _vector([f"{value:.4f}" for value in feature]),
    ]


def _vector(values: list[str]) -> str:
    return "{" + ",".join(values) + "}"


def _set(place: int, value: str) -> Spoil:
    return lambda row: "\t".join([*row[:place], value, *row[place + 1 :]]).encode()


def _change_vector(change: Callable[[list[str]], list[str]]) -> Spoil:
    return lambda row: "\t".join([*row[:4], _vector(change(row[4][1:-1].split(",")))]).encode()


_DUPLICATES: Mapping[int, int] = {1200: 1100, 3300: 17, 5800: 5799, 7700: 42, 9600: 1201}
"""Places of records that bring the key of the record at another place."""

_POISON: Mapping[str, Spoil] = {
    "cut line": lambda row: "\t".join(row)[:20].encode(),
    "letters in the id": _set(0, "12x4"),
    "letters in the price": _set(3, "expensive"),
    "no such date": _set(1, "2024-13-45 00:00:00"),
    "id beyond INT": _set(0, "3000000000"),
    "color too long": _set(2, "ultramarine blue"),
    "one number too few": _change_vector(lambda values: values[:-1]),
    "two numbers too many": _change_vector(lambda values: [*values, "0.5", "0.5"]),
    "not a number": _change_vector(lambda values: ["NaN", *values[1:]]),
    "not UTF-8": lambda row: "\t".join(row).encode().replace(row[2].encode(), b"gr\xfcn"),
}
POISON = len(_POISON)
DUPLICATES = len(_DUPLICATES)


def fill_topic(progress: Progress) -> Filled:
    """Create the topic and produce the records it lacks.

    Raises:
        TransientError: the broker does not answer.
    """
    return fill(TOPIC, [(None, record) for record in records()], progress)


def create_target() -> bool:
    """Create the database, the table and its indexes where they lack; False when the table was there.

    Raises:
        TransientError: the server does not answer.
    """
    ensure_database(DATABASE)
    with connected(DATABASE) as connection:
        known = connection.execute("SELECT to_regclass(%s)", [TABLE]).fetchone()
        for statement in _TARGET:
            connection.execute(statement)
    return known is None or known[0] is None


def count_rows() -> int:
    """Rows of the target table."""
    with connected(DATABASE) as connection:
        row = connection.execute(f"SELECT count(*) FROM {TABLE}").fetchone()
    return int(str(row[0])) if row else 0


@dataclass(frozen=True, slots=True)
class Nearest:
    """The nearest neighbours of one car: the query as it can be typed, its rows, the index that answered."""

    like: int
    query: str
    columns: tuple[str, ...]
    rows: list[tuple[object, ...]]
    index: str | None


def nearest() -> Nearest:
    """Ask the vector index for the cars most like the first one.

    Raises:
        FatalError: the table is empty.
    """
    with connected(DATABASE) as connection:
        # statistics of a table just filled decide whether the index is used
        connection.execute(f"ANALYZE {TABLE}")
        first = connection.execute(f"SELECT id, feature FROM {TABLE} ORDER BY id LIMIT 1").fetchone()
        if first is None:
            raise FatalError(f"demo: {TABLE} is empty")
        vector = sql.Literal(str(list(first[1])))  # type: ignore[call-overload]
        query = sql.SQL(_NEAREST.replace("%(like)s", "{like}")).format(like=vector + sql.SQL(f"::vector({DIMENSION})"))
        cursor = connection.execute(query)
        columns = tuple(column.name for column in cursor.description or ())
        rows = cursor.fetchall()
        plan = "\n".join(str(line[0]) for line in connection.execute(sql.SQL("EXPLAIN ") + query))
        index = plan.partition("Index Scan using ")[2].partition(" ")[0] or None
        return Nearest(int(str(first[0])), query.as_string(connection), columns, rows, index)
