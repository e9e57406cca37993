"""The translator of Flink's expressions with all its rules, and the proof that DuckDB takes what it wrote."""

from collections.abc import Mapping, Sequence

import duckdb
import pyarrow as pa
from sqlglot import exp

from vector_assets.declare import flink_functions, flink_operators
from vector_assets.declare.flink_script import Script
from vector_assets.declare.flink_translator import Translator, Typed
from vector_assets.engine.schema import Column

_RULES = {**flink_operators.RULES, **flink_functions.RULES}
_OFFLINE: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "threads": "1",
}
_NOTHING: Mapping[str, Typed] = {}


def translator(
    script: Script,
    table: str,
    columns: Mapping[str, Column],
    computed: Mapping[str, Typed] = _NOTHING,
    alias: str | None = None,
) -> Translator:
    """A translator of expressions over the columns of a table, which the query may call by another name."""
    return Translator(_RULES, script, table, columns, computed, alias or table)


def check(script: Script, schema: pa.Schema, queries: Sequence[tuple[str, exp.Expr]]) -> None:
    """Bind every query in DuckDB over an empty table `source`.

    Raises:
        ConfigError: at the expression that DuckDB refuses, with its reason.
    """
    with duckdb.connect(config=_OFFLINE) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("source", schema.empty_table())
        for query, node in queries:
            try:
                connection.execute(query)
            except duckdb.Error as error:
                reason = str(error).splitlines()[0].partition("Error: ")[2] or str(error).splitlines()[0]
                raise script.error(f"this expression cannot be run: {reason}", node) from None
