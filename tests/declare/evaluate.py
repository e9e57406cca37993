"""Flink expressions over one row, through the translator and DuckDB as a pipeline runs them."""

from functools import cache
from typing import Any

import duckdb
import pyarrow as pa

from vector_assets.declare.flink_expressions import translator
from vector_assets.declare.flink_script import Script
from vector_assets.declare.flink_select import query_of
from vector_assets.declare.flink_tables import declare
from vector_assets.declare.flink_translator import Typed
from vector_assets.declare.flink_types import duckdb_type, shown
from vector_assets.engine.schema import LogicalType, Table

Columns = dict[str, tuple[str, Any]]
"""Flink type and value of every column of the one row."""


def run(expression: str, columns: Columns) -> tuple[Any, str]:
    """Value and Flink type; the type DuckDB gives must be the one the translator promised."""
    table, typed = translate(expression, columns)
    assert isinstance(typed.type, LogicalType), f"{typed.type} is no type of a column"
    row = {column.name: [columns[column.name][1] if columns else 0] for column in table.columns}
    connection = _connection()
    connection.register("source", pa.table(row, schema=table.schema))
    promise = f"CAST(NULL AS {duckdb_type(typed.type)})"
    query = f"SELECT {typed.sql} AS value, typeof({typed.sql}) AS found, typeof({promise}) AS promised FROM source"
    found = connection.sql(query).to_arrow_table()
    (result,) = found.select(["found", "promised"]).to_pylist()
    assert result["found"] == result["promised"], f"{typed.sql} is not {shown(typed.type)}"
    values = found["value"]
    # without pandas pyarrow gives no value that holds nanoseconds
    is_fine = pa.types.is_timestamp(values.type) and values.type.unit == "ns"
    return values.cast(pa.string() if is_fine else values.type)[0].as_py(), shown(typed.type)


def translate(expression: str, columns: Columns) -> tuple[Table, Typed]:
    """The expression over a table `src` of these columns."""
    table = _table(", ".join(f"`{name}` {kind}" for name, (kind, _) in columns.items()) or "nothing INT")
    script = Script(f"INSERT INTO dst SELECT {expression} FROM src", "test.sql")
    (insert,) = script.statements()
    node = query_of(script, insert.node).expressions[0]
    return table, translator(script, "src", {column.name: column for column in table.columns}).translate(node)


def value(expression: str, **columns: tuple[str, Any]) -> Any:
    """The value of the expression."""
    return run(expression, columns)[0]


def kind(expression: str, **columns: tuple[str, Any]) -> str:
    """The Flink type of the expression."""
    return run(expression, columns)[1]


@cache
def _table(columns: str) -> Table:
    script = Script(f"CREATE TABLE src ({columns}) WITH ('connector' = 'x')", "test.sql")
    (create,) = script.statements()
    return declare(script, create).table


@cache
def _connection() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    return connection
