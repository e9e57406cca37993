"""SELECT over the tables: MaxCompute's SQL becomes DuckDB's, names become rows, `max_pt` becomes its value."""

import duckdb
import pyarrow as pa
from sqlglot import exp

from vector_assets.local.maxcompute.catalog import VIEW, Table
from vector_assets.local.maxcompute.names import Scope, parts_of, parts_of_node
from vector_assets.local.maxcompute.refusal import Refusal, invalid
from vector_assets.local.maxcompute.rows import names
from vector_assets.local.maxcompute.store import Store
from vector_assets.local.maxcompute.types import quoted

_CASTS = {
    "HUGEINT": "CAST(#{} AS BIGINT)",
    "TIMESTAMP": "CAST(#{} AS TIMESTAMP_MS)",
    "TIMESTAMP WITH TIME ZONE": "CAST(CAST(#{} AS TIMESTAMP) AS TIMESTAMP_MS)",
}
"""DuckDB types that a result must not have: sums of BIGINT are BIGINT, points in time without a column are DATETIME."""

_TIMES = {"DATETIME": "TIMESTAMP_MS", "TIMESTAMP": "TIMESTAMP_NS", "TIMESTAMPNTZ": "TIMESTAMP_NS"}


def max_pt(table: Table) -> str:
    """The greatest first-level value, as text, of the partitions that hold rows.

    Raises:
        Refusal: there is none.
    """
    found = [values[0] for values, extent in table.extents.items() if values and extent.rows]
    if not found:
        raise invalid(
            f"ODPS-0130071:Semantic analysis exception - max_pt: {table.full_name} has no partition with data"
        )
    return max(found)


def localized(tree: exp.Expr, scope: Scope) -> str:
    """The query as DuckDB's text.

    Raises:
        Refusal: a table does not exist.
    """
    tree = tree.copy()
    if isinstance(tree, exp.Select):
        _name_columns(tree)
    for call in list(tree.find_all(exp.Anonymous)):
        if call.name.lower() == "max_pt":
            (argument,) = call.expressions
            call.replace(exp.Literal.string(max_pt(scope.table(parts_of(argument.name)))))
    for literal in list(tree.find_all(exp.Literal)):
        # 1.5 is a DOUBLE; a decimal is written 1.5BD
        if not literal.is_string and not literal.is_int:
            literal.replace(exp.cast(literal.copy(), "double"))
    for kind in list(tree.find_all(exp.DataType)):
        if getattr(kind.this, "name", "") in _TIMES:
            kind.replace(exp.DataType.build(_TIMES[kind.this.name], dialect="duckdb"))
    ours = {cte.alias_or_name.lower() for cte in tree.find_all(exp.CTE)}
    for node in list(tree.find_all(exp.Table)):
        if not node.name or (not node.db and node.name.lower() in ours):
            continue
        table = scope.table(parts_of_node(node))
        alias = node.alias or table.name
        selected = f"(SELECT {names(table.all_columns)} FROM {table.rows_name}) AS {quoted(alias)}"
        node.replace(exp.maybe_parse(selected, into=exp.From, dialect="duckdb", prefix="FROM").this)
    return tree.sql(dialect="duckdb")


def _name_columns(tree: exp.Select) -> None:
    """Columns without a name are `_c0`, `_c1`, .. by place."""
    for place, column in enumerate(tree.expressions):
        if not column.output_name and not column.is_star:
            column.replace(exp.alias_(column.copy(), f"_c{place}"))


def run(store: Store, query: str) -> pa.Table:
    """The rows of a localized query.

    Raises:
        Refusal: DuckDB refuses the query or a value in it.
    """
    with store.reading() as connection:
        return fetch(connection, query)


def fetch(connection: duckdb.DuckDBPyConnection, query: str) -> pa.Table:
    """The same on a given connection."""
    try:
        described = connection.execute(f"DESCRIBE {query}").fetchall()
        columns = [
            f"{_CASTS.get(row[1], '#{}').format(number)} AS {quoted(row[0])}"
            for number, row in enumerate(described, start=1)
        ]
        return connection.sql(f"SELECT {', '.join(columns)} FROM ({query})").to_arrow_table()
    except duckdb.Error as error:
        raise semantic(error) from error


def semantic(error: duckdb.Error) -> Refusal:
    """What DuckDB did not like, in the service's words."""
    return Refusal(400, "ODPS-0130071", f"ODPS-0130071:[1,1] Semantic analysis exception - {error}")


def create_view(store: Store, table: Table, tree: exp.Expr, scope: Scope) -> pa.Schema:
    """Make the rows of a view; returns the schema of its query."""
    query = localized(tree, scope)
    table.kind = VIEW
    with store.writing() as connection:
        found = fetch(connection, f"SELECT * FROM ({query}) LIMIT 0")
        connection.execute(f"CREATE VIEW {table.rows_name} AS {query}")
    return found.schema
