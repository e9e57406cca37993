"""Conditions on partition columns, met by listing instead of reading."""

from collections.abc import Sequence

import pyarrow as pa

from vector_assets.clients.maxcompute import MaxPartition, MaxTable
from vector_assets.engine.schema import Table

Condition = tuple[str, frozenset[str]]
"""DuckDB's SQL of a condition, and the columns that it reads."""


def pruned(
    table: MaxTable, declared: Table, conditions: Sequence[Condition], partitions: Sequence[MaxPartition]
) -> list[MaxPartition]:
    """The partitions that may hold rows which meet every condition; order kept."""
    levels = {level.name.lower(): number for number, level in enumerate(table.levels)}
    known = {column.name: column for column in declared.physical if column.name.lower() in levels}
    usable = [sql for sql, reads in conditions if reads and reads <= set(known)]
    if not usable or not partitions:
        return list(partitions)
    import duckdb

    columns = {
        name: pa.array([part.values[levels[name.lower()]] for part in partitions], pa.string()).cast(column.type.arrow)
        for name, column in known.items()
    }
    numbers = pa.array(range(len(partitions)), pa.int32())
    where = " AND ".join(f"({sql})" for sql in usable)
    with duckdb.connect(":memory:", config={"threads": 1}) as connection:
        connection.register("source", pa.table({**columns, "_number": numbers}))
        found = connection.execute(f"SELECT _number FROM source WHERE {where} ORDER BY _number").fetchall()
    return [partitions[number] for (number,) in found]
