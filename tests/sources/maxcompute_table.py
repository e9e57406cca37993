"""How tests of the MaxCompute source declare tables, fill partitions and read rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from tests.fix_maxcompute import MaxCompute as Server
from tests.sources.reading import NO_LIMIT, drain
from vector_assets.declare import compile_script
from vector_assets.engine.core import BatchLimit
from vector_assets.engine.pipeline import Pipeline

COLUMNS = "id BIGINT, name STRING"


def options_of(server: Server, table: str, **more: object) -> dict[str, str]:
    """The options of a table, quick at giving up."""
    given: dict[str, object] = {
        "connector": "odps",
        "endpoint": server.service.endpoint,
        "project": "local",
        "tableName": table,
        "accessId": server.service.access_id,
        "accessKey": server.service.access_key,
        "retryTimes": 2,
        "sleepMillis": 10,
    }
    return {name: str(value) for name, value in {**given, **more}.items()}


def script(options: Mapping[str, str], columns: str = COLUMNS, select: str = "*", where: str = "", to: str = "") -> str:
    """A table into a blackhole (of columns `to`, by default the same)."""
    listed = ", ".join(f"'{name}' = '{value}'" for name, value in options.items())
    return (
        f"CREATE TEMPORARY TABLE src ({columns}) WITH ({listed});\n"
        f"CREATE TEMPORARY TABLE dst ({to or columns}) WITH ('connector' = 'blackhole');\n"
        f"INSERT INTO dst SELECT {select} FROM src {where};"
    )


def pipeline_of(server: Server, table: str, columns: str = COLUMNS, *, select: str = "*", where: str = "",
                to: str = "", settings: Mapping[str, str] | None = None, **more: object) -> Pipeline:  # fmt: skip
    """The pipeline of such a script."""
    sets = "".join(f"SET '{name}' = '{value}';\n" for name, value in (settings or {}).items())
    text = script(options_of(server, table, **more), columns, select, where, to)
    (found,) = compile_script(sets + text, "mc.sql")
    return found


def source_of(server: Server, table: str, columns: str = COLUMNS, **more: Any) -> Any:
    """Its source."""
    return pipeline_of(server, table, columns, **more).open_source()


def fill(server: Server, table: str, spec: str, rows: Sequence[Sequence[Any]]) -> None:
    """Add rows to a partition (`ds=a,hh=01`), which is made first, or to a table without any."""
    if not rows:
        server.odps.get_table(table).create_partition(spec)
        return
    handle = server.odps.get_table(table)
    with handle.open_writer(partition=spec or None, create_partition=bool(spec), arrow=False) as writer:
        writer.write([list(row) for row in rows])


def named(count: int, first: int = 0) -> list[list[Any]]:
    return [[at, f"n{at}"] for at in range(first, first + count)]


def partitioned(server: Server, specs: Mapping[str, int], columns: str = COLUMNS, levels: str = "ds string") -> str:
    """A table with so many rows in each partition; its name."""
    name = str(server.table(columns, f"PARTITIONED BY ({levels})").name)
    for spec, count in specs.items():
        fill(server, name, spec, named(count))
    return name


def rows_of(source: Any, limit: BatchLimit = NO_LIMIT) -> pa.Table:
    """All rows, in order, without what is around them."""
    tables, _ = drain(source, source.start(), limit)
    return values_of(tables)


def values_of(tables: Sequence[pa.Table]) -> pa.Table:
    flat = []
    for table in tables:
        kind = table.schema.field("value").type
        names = [kind.field(at).name for at in range(kind.num_fields)]
        flat.append(pa.Table.from_arrays(table.column("value").flatten(), names=names))
    return pa.concat_tables(flat) if flat else pa.table({})
