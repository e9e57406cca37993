"""Conditions that a client sends along with a read session of the storage API."""

import duckdb
import pyarrow as pa
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from vector_assets.local.maxcompute.catalog import Table
from vector_assets.local.maxcompute.refusal import invalid
from vector_assets.local.maxcompute.rows import arrow_schema
from vector_assets.local.maxcompute.store import Store

_ROWS = "filtered_rows"


def checked(store: Store, table: Table, text: str) -> str:
    """The condition over a table's columns as DuckDB's text.

    Raises:
        Refusal: it is none, names a column that there is not, or asks for more than a row.
    """
    try:
        tree = sqlglot.parse_one(text, read="maxcompute", into=exp.Condition)
    except SqlglotError as error:
        raise invalid(f"FilterPredicate {text!r} is no condition: {error}") from error
    if any(tree.find_all(exp.Query, exp.AggFunc, exp.Window)):
        raise invalid(f"FilterPredicate {text!r}: want a condition over one row")
    for column in tree.find_all(exp.Column):
        table.column(column.name)
    condition = tree.sql(dialect="duckdb")
    filtered(store, arrow_schema(table.all_columns).empty_table(), condition)
    return condition


def filtered(store: Store, rows: pa.Table, condition: str) -> pa.Table:
    """The rows for which a checked condition is true, in their order.

    Raises:
        Refusal: it fails for a row.
    """
    with store.reading() as connection:
        connection.register(_ROWS, rows)
        try:
            found = connection.sql(f"SELECT coalesce(CAST(({condition}) AS BOOLEAN), false) AS kept FROM {_ROWS}")
            kept = found.to_arrow_table().column("kept")
        except duckdb.Error as error:
            raise invalid(f"FilterPredicate: {error}") from error
        finally:
            connection.unregister(_ROWS)
    return rows.filter(kept)
