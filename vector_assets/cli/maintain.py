"""`vector-assets maintain`: small files compacted, old snapshots expired, orphan files removed, of a lake table."""

from typing import Annotated, Any, Literal

import typer

from vector_assets.cli.output import JsonOption, command, emit, say, show_table

Task = Literal["compact", "expire", "orphans"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(
        app,
        "vector-assets maintain orders                 all three tasks, by the pipeline's settings",
        "vector-assets maintain orders --task compact",
    )(maintain)


def maintain(
    pipeline: Annotated[str, typer.Argument(metavar="PIPELINE", help="A pipeline that writes a lake table.")],
    *,
    task: Annotated[Task | None, typer.Option("--task", help="Only this task.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Keep a lake table in order: compact small files, expire old snapshots, remove orphan files.

    Rows never change, positions are kept, and what a running batch may have written is left alone. How much is kept is
    said by the settings vector-assets.maintenance.*; Dagster does the same once a day.
    """
    from dataclasses import asdict

    from vector_assets.cli.declared import books, pipelines
    from vector_assets.engine.session import Session
    from vector_assets.engine.upkeep import TASKS
    from vector_assets.engine.upkeep import maintain as keep

    (chosen,) = pipelines(pipeline)
    with books() as open_books, Session(chosen, open_books) as session:
        done = [keep(session, each) for each in TASKS if task is None or each == task]
    if as_json:
        emit({"pipeline": chosen.name, "target": chosen.target, "tasks": [asdict(each) for each in done]})
        return
    columns = ("task", "files before", "after", "bytes before", "after", "removed")
    rows: list[tuple[Any, ...]] = [
        (d.task, d.files_before, d.files_after, d.bytes_before, d.bytes_after, d.removed) for d in done
    ]
    show_table(columns, rows, right=columns[1:])
    for each in done:
        numbers = ", ".join(f"{name.replace('_', ' ')} {number}" for name, number in each.numbers.items())
        for note in (*((numbers,) if numbers else ()), *each.notes):
            say(f"{each.task}: {note}")
