"""`vector-assets query`: SQL over the lake tables of the declared pipelines, by DuckDB or by Spark."""

import csv
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vector_assets.cli.output import JsonOption, command, emit, say, show_table, usage, warn
from vector_assets.engine.errors import ConfigError, VectorAssetsError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from vector_assets.cli.lake_scan import LakeScan
    from vector_assets.cli.lake_tables import LakeTable

Form = Literal["table", "csv", "json"]
_SHOWN = 100
_LONGEST = 80
_PIECE_ROWS = 10_000
_LISTS = {
    "SHOW ALL TABLES": "SELECT * FROM (SHOW ALL TABLES) WHERE database <> 'temp'",
    "SHOW TABLES": "SELECT schema || '.' || name AS name FROM (SHOW ALL TABLES) WHERE database <> 'temp' ORDER BY name",
}
"""Statements that list tables, without the scans that the views are made of; SHOW TABLES knows all databases."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(
        app,
        "vector-assets query 'SELECT os, count(*) FROM shop.orders GROUP BY os'",
        "vector-assets query 'SELECT * FROM shop.orders' --format csv > orders.csv",
        "vector-assets query 'SHOW ALL TABLES'",
        "vector-assets query --engine spark analysis.sql     conf k=v; lines, then SQL",
    )(query)


def query(
    sql: Annotated[
        str, typer.Argument(metavar="SQL|FILE", help="A query, or a file that ends with .sql.", show_default=False)
    ],
    *,
    engine: Annotated[Literal["duckdb", "spark"], typer.Option(help="Who answers.")] = "duckdb",
    form: Annotated[Form, typer.Option("--format", help="How rows are printed.")] = "table",
    as_json: JsonOption = False,
) -> None:
    """Ask the lake tables of all declared pipelines, as they are now, by the names database.table.

    DuckDB reads Iceberg and Paimon tables alike; nothing is changed. A table on the screen ends after 100 rows; csv and
    json print all.

    --engine spark runs a script on a Spark of this machine: `conf k=v;` lines, then statements such as `show tables
    from shop`. Its default catalog is the managed lake storage; what it does not know of conf is reported.
    """
    text = _text(sql)
    shown: Form = "json" if as_json else form
    if engine == "spark":
        from vector_assets.cli.query_spark import run

        for number, answer in enumerate(run(text)):
            if number and shown == "table":
                say("")
            _print([answer.rows.schema, *answer.rows.to_batches(_PIECE_ROWS)], shown, answer.rows.num_rows)
        return
    with _connected(text) as connection:
        reader = _asked(connection, text)
        _print([reader.schema, *reader] if shown == "json" else _pieces(reader), shown, None)


def answer(sql: str) -> "pa.Table":
    """What DuckDB answers to a query over the lake tables of the declared pipelines.

    Raises:
        ConfigError: DuckDB refuses the query.
    """
    with _connected(sql) as connection:
        return _asked(connection, sql).read_all()


def show(rows: "pa.Table") -> None:
    """Print the answer to a query as the command does."""
    _print([rows.schema, *rows.to_batches(_PIECE_ROWS)], "table", rows.num_rows)


def _text(given: str) -> str:
    if not given.endswith(".sql") or any(character.isspace() for character in given):
        return given
    try:
        return Path(given).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{given}: cannot be read: {error}") from error


@contextmanager
def _connected(sql: str) -> "Iterator[duckdb.DuckDBPyConnection]":
    """DuckDB with a view for each table that the query names, or for all where that cannot be told."""
    import duckdb

    from vector_assets.cli.declared import sound
    from vector_assets.cli.lake_tables import lake_tables, names_in

    found, errors = sound()
    for error in errors:
        warn(f"left out: {error}")
    tables = lake_tables(found)
    wanted = names_in(sql)
    scans: list[LakeScan] = []
    with closing(duckdb.connect(config={"python_enable_replacements": "false"})) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        try:
            for number, table in enumerate(tables):
                if wanted is None or not wanted.isdisjoint({table.full_name.lower(), table.name.lower()}):
                    scans += _view(connection, table, f"_scan_{number}", is_needed=wanted is not None)
            yield connection
        finally:
            connection.close()
            for scan in scans:
                scan.close()


def _view(
    connection: "duckdb.DuckDBPyConnection", table: "LakeTable", name: str, *, is_needed: bool
) -> "list[LakeScan]":
    """The view `database.table`; a table that cannot be read is an error if the query names it."""
    from vector_assets.cli.lake_scan import LakeScan

    try:
        scan = LakeScan(table)
    except VectorAssetsError as error:
        if is_needed:
            raise
        warn(f"left out: {table.full_name}: {error}")
        return []
    quoted = [part.replace('"', '""') for part in (table.database, table.name)]
    connection.register(name, scan)
    connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{quoted[0]}"')
    connection.execute(f'CREATE VIEW "{quoted[0]}"."{quoted[1]}" AS SELECT * FROM {name}')
    return [scan]


def _asked(connection: "duckdb.DuckDBPyConnection", sql: str) -> "pa.RecordBatchReader":
    """The rows of the query, read as they are asked for.

    Raises:
        ConfigError: DuckDB refuses the query; its own words are in the message.
    """
    import duckdb

    from vector_assets.cli.declared import sound
    from vector_assets.cli.lake_tables import lake_tables

    try:
        relation = connection.sql(_LISTS.get(" ".join(sql.strip().rstrip(";").split()).upper(), sql))
        if relation is None:
            usage("this statement has no rows to show: want a query")
        return relation.to_arrow_reader(_PIECE_ROWS)
    except duckdb.CatalogException as error:
        known = ", ".join(table.full_name for table in lake_tables(sound()[0])) or "none"
        raise ConfigError(f"query: {_said(error)}; lake tables declared: {known}") from error
    except duckdb.Error as error:
        raise ConfigError(f"query: {_said(error)}") from error


def _said(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _pieces(reader: "pa.RecordBatchReader") -> "Iterator[Any]":
    yield reader.schema
    yield from reader


def _print(parts: Any, form: Form, total: int | None) -> None:
    """Print rows: the schema comes first, then batches."""
    found = iter(parts)
    schema = next(found)
    if form == "csv":
        _print_csv(schema, found)
    elif form == "json":
        columns = [{"name": field.name, "type": str(field.type)} for field in schema]
        emit({"columns": columns, "rows": [row for batch in found for row in _rows(batch)]})
    else:
        _print_table(schema.names, found, total)


def _rows(batch: "pa.RecordBatch") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = batch.to_pylist()
    return rows


def _print_csv(schema: "pa.Schema", batches: "Iterator[pa.RecordBatch]") -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(schema.names)
    for batch in batches:
        writer.writerows(row.values() for row in _rows(batch))


def _print_table(names: Sequence[str], batches: "Iterator[pa.RecordBatch]", total: int | None) -> None:
    rows: list[list[str]] = []
    count = 0
    for batch in batches:
        left = _SHOWN - len(rows)
        rows += [[_cell(value) for value in row.values()] for row in _rows(batch.slice(0, left))]
        count += batch.num_rows
    if names:
        show_table(names, rows)
    count = count if total is None else total
    more = f", the first {_SHOWN} shown" if count > _SHOWN else ""
    say(f"{count:,} rows{more}", "dim")


def _cell(value: object) -> str:
    text = "NULL" if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]} ..."
