"""`vector-assets capture`: which tables a Flink CDC pipeline has, and a look at the server for new ones."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vector_assets.cli.output import JsonOption, command, emit, say, show_table, usage, working
from vector_assets.engine.errors import ConfigError

if TYPE_CHECKING:
    from vector_assets.declare import Capture
    from vector_assets.engine.captures import CapturedTable
    from vector_assets.engine.ledger import Ledger


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(
        app,
        "vector-assets capture pipelines/shop.yaml               look for tables, and list them",
        "vector-assets capture pipelines/shop.yaml --join shop.orders_3    a table that waits is read, too",
    )(capture)


def capture(
    file: Annotated[Path, typer.Argument(metavar="FILE.yaml", help="A Flink CDC pipeline (source:, sink:).")],
    *,
    known: Annotated[bool, typer.Option("--known", help="Ask no server: list what the ledger knows.")] = False,
    join: Annotated[
        str | None, typer.Option("--join", metavar="DB.TABLE", help="Read a table that waits for its target.")
    ] = None,
    forget: Annotated[
        str | None, typer.Option("--forget", metavar="DB.TABLE", help="Take a table anew, with its columns of now.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Look for the tables of a Flink CDC pipeline; each target's table is a pipeline and an asset of its own.

    New tables are kept in the ledger with the columns that they have now. Dagster's sensor `<name>_tables` looks as
    well; a new table is an asset after the code location was reloaded. A table for a target that is being filled
    already waits, because its rows so far would be missing: --join takes it in, and lets its pipeline read all rows
    anew.
    """
    from vector_assets.cli.declared import books
    from vector_assets.declare import load_captures

    found = load_captures(file)
    if not found:
        raise ConfigError(f"{file}: holds no Flink CDC pipeline (source:, sink:)")
    if sum(option is not None for option in (join, forget)) > 1:
        usage("--join and --forget are two things: do one after the other")
    with books() as open_books:
        results = [_looked(each, open_books.ledger, join, forget, asks=not known) for each in found]
        if join is not None or forget is not None:
            _check_done(results, join or str(forget))
    if as_json:
        emit({"captures": results})
    else:
        for each in results:
            _show(each)
    for asked, result in zip(found, results, strict=True):
        if not known and not result["tables"] and not result["refused"]:
            from vector_assets.declare.cdc_look import nothing_found

            raise nothing_found(asked)


def _looked(
    capture: "Capture", ledger: "Ledger", join: str | None, forget: str | None, *, asks: bool
) -> dict[str, Any]:
    from vector_assets.declare.cdc_look import Look, look
    from vector_assets.engine import captures

    is_done = forget is not None and captures.forget(ledger, capture.name, forget)
    with working(f"asking {capture.reading.where}"):
        found = look(capture, ledger) if asks else Look()
    tables = captures.captured(ledger, capture.name)
    restarted: list[str] = []
    if join is not None and any(table.name == join and table.waits for table in tables):
        # if this ends in between, the table still waits and all rows of the others are read once more
        restarted = _read_anew(capture, tables, join)
        is_done = captures.let_read(ledger, capture.name, join)
        tables = captures.captured(ledger, capture.name)
    return {
        "name": capture.name,
        "place": str(capture.place),
        "tables": [_row(capture, table) for table in tables],
        "new": [table.name for table in found.new],
        "refused": dict(found.refused),
        "gone": list(found.gone),
        "read_anew": restarted,
        "changed": is_done,
    }


def _read_anew(capture: "Capture", tables: "list[CapturedTable]", joined: str) -> list[str]:
    """Move the pipelines of a table back to all rows, as if it was read already; their names."""
    from dataclasses import replace

    from vector_assets.cli.declared import books
    from vector_assets.engine.operate import reset
    from vector_assets.engine.session import Session

    together = [replace(table, waits=None) if table.name == joined else table for table in tables]
    (table,) = (each for each in together if each.name == joined)
    targets = {capture.pipeline_name(target) for target in capture.targets_of(table)}
    moved = []
    for pipeline in capture.pipelines(together):
        if pipeline.name in targets:
            with books() as open_books, Session(pipeline, open_books) as session:
                if session.ledger.is_activated(pipeline.name, pipeline.target):
                    reset(session, capture.reading.restart, reason=f"table {joined} joined")
                    moved.append(pipeline.name)
    return moved


def _check_done(results: list[dict[str, Any]], table: str) -> None:
    if any(each["changed"] for each in results):
        return
    known = sorted(row["table"] for each in results for row in each["tables"])
    raise ConfigError(f"table {table!r} is not there, or does not wait; known: {', '.join(known) or 'none'}")


def _row(capture: "Capture", table: "CapturedTable") -> dict[str, Any]:
    is_wanted = capture.source.wants(table.database, table.table)
    targets = capture.targets_of(table) if is_wanted else []
    state = "left out by the file" if not is_wanted else "waits" if table.waits else "read"
    return {
        "table": table.name,
        "state": state,
        "why": table.waits,
        "columns": len(table.columns),
        "left_out": list(table.left_out),
        "untold": list(table.untold),
        "key": list(table.key),
        "pipelines": [capture.pipeline_name(target) for target in targets],
    }


def _show(of: dict[str, Any]) -> None:
    say(f"{of['name']} ({of['place']})", "bold")
    if not of["tables"]:
        say("no table is known")
    columns = ("table", "state", "columns", "key", "pipeline")
    rows = [
        (
            row["table"],
            f"new, {row['state']}" if row["table"] in of["new"] else row["state"],
            row["columns"],
            ", ".join(row["key"]) or "none",
            ", ".join(row["pipelines"]),
        )
        for row in of["tables"]
    ]
    if rows:
        show_table(columns, rows, right=("columns",))
    for row in of["tables"]:
        if row["why"]:
            say(f"{row['table']} waits: {row['why']}; --join {row['table']} lets it read all rows anew")
        for column in row["left_out"]:
            say(f"{row['table']}: column {column} cannot be read and is left out")
        for what in row["untold"]:
            say(what)
    for name, why in of["refused"].items():
        say(f"{name} is not taken: {why}")
    for name in of["gone"]:
        say(f"{name} is not on the server any more")
    for name in of["read_anew"]:
        say(f"{name} reads all rows anew with its next run")
