"""Random changes of a MySQL table, and what a changelog makes of a table."""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from tests.fix_mysql import MySql
from vector_assets.engine.core import BatchLimit, Position
from vector_assets.engine.schema import Column, LogicalType, Table
from vector_assets.sources.mysql import MySqlCdcOptions, MySqlCdcSource

_TYPES = {"int": LogicalType("INT"), "bigint": LogicalType("BIGINT"), "string": LogicalType("VARCHAR")}


def source_of(
    mysql: MySql, table: str, columns: Sequence[tuple[str, str | LogicalType]], **options: str
) -> MySqlCdcSource:
    """A source of a table with such columns."""
    declared = tuple(Column(name, _TYPES[kind] if isinstance(kind, str) else kind) for name, kind in columns)
    parsed = MySqlCdcOptions.parse(mysql.options(table, **options), "connector mysql-cdc")
    return MySqlCdcSource(parsed, Table("t", declared), pipeline="p")


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """The records' rows, kinds among them."""
    return table.column("value").to_pylist()


def apply(state: dict[Any, Any], rows: Sequence[dict[str, Any]], key: Sequence[str]) -> None:
    """Make of the state what a changelog says, and insist that it says nothing twice.

    Every insert is of a key that is not there; every before-image and every delete is of the row that is.
    """
    for row in rows:
        values = {name: value for name, value in row.items() if name != "_kind"}
        name = tuple(values[part] for part in key)
        if row["_kind"] in (1, 3):
            assert state.pop(name) == values
        else:
            assert name not in state, f"{name} came twice"
            state[name] = values


def change(rng: random.Random, run: Callable[[str], Any], table: str, ids: Callable[[int], str], most: int) -> None:
    """One random transaction on rows `id`, `n`, `s`."""
    run("BEGIN")
    for _ in range(rng.randint(1, 4)):
        here, there = ids(rng.randrange(most)), ids(rng.randrange(most))
        what = rng.random()
        if what < 0.4:
            run(f"INSERT IGNORE INTO {table} VALUES ({here}, {rng.randrange(1000)}, 'ä{rng.randrange(1000)}')")
        elif what < 0.65:
            run(f"UPDATE {table} SET n = n + 1 WHERE id = {here}")
        elif what < 0.8:
            run(f"UPDATE IGNORE {table} SET id = {there} WHERE id = {here}")
        else:
            run(f"DELETE FROM {table} WHERE id = {here}")
    run("ROLLBACK" if rng.random() < 0.1 else "COMMIT")


def batches(source: MySqlCdcSource, position: Position, limit: BatchLimit) -> Iterator[tuple[pa.Table, Any]]:
    """Batch after batch to the end, with their spans."""
    from tests.sources.reading import read

    here = dict(position)
    while (span := source.plan(here, limit)) is not None:
        table, span = read(source, span, limit)
        here |= span.end
        yield table, span


def xa(server, name, text, *ends):
    """A distributed transaction, up to one of its ends."""
    for part in (f"XA START '{name}'", text, f"XA END '{name}'", *(f"XA {end}" for end in ends)):
        server.sql(part)
