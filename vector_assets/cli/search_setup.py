"""`vector-assets search-setup`: a search cluster made ready to embed what is written to it."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vector_assets.cli.output import JsonOption, command, emit, heading, say, show_table, working

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vector_assets.clients.opensearch_setup import Step


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(
        app,
        "vector-assets search-setup search.yaml --dry-run    what would be made",
        "vector-assets search-setup search.yaml",
        name="search-setup",
    )(search_setup)


def search_setup(
    file: Annotated[Path, typer.Argument(metavar="FILE.yaml", help="What the cluster is to have.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, do nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a PolarSearch or OpenSearch cluster embed what is written to an index.

    Steps: trusted endpoints, model group, connector, model, its deployment, a test of its dimension, the ingest
    pipeline, the index. What is there is left alone, so a second run does only what is missing.
    docs/polarsearch.md has the file's fields.
    """
    from vector_assets.clients.opensearch import connect
    from vector_assets.clients.opensearch_setup import Builder
    from vector_assets.declare.search_setup import read_setup

    wanted = read_setup(file)
    with closing(connect(wanted.connection.login, str(file))) as client:
        builder = Builder(client, wanted)
        with working("looking at the cluster"):
            steps = builder.plan()
        if not as_json:
            _show(steps)
        if dry_run:
            if as_json:
                emit({"dry_run": True, "steps": _json(steps)})
            else:
                say("\nnothing was done (--dry-run)")
            return
        with working("setting up the cluster") as progress:
            ready = builder.run(progress)
    found = {"model_id": ready.model_id, "connector_id": ready.connector_id, "index": ready.index}
    if as_json:
        emit({"dry_run": False, **found, "dimension": ready.dimension, "steps": _json(ready.steps)})
        return
    heading("done")
    say(f"{ready.made} steps changed the cluster; model {ready.model_id}, {ready.dimension} dimensions")


def _show(steps: "Sequence[Step]") -> None:
    heading("plan")
    rows = [(number, each.name, each.action, each.note) for number, each in enumerate(steps, 1)]
    show_table(("step", "what", "", "note"), rows, right=("step",))


def _json(steps: "Sequence[Step]") -> list[dict[str, Any]]:
    """Steps without the bodies: one has the API key."""
    return [
        {"name": s.name, "action": s.action, "note": s.note, "request": f"{s.method} {s.path}".strip()} for s in steps
    ]
