"""`vector-assets services`: the embedded services."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vector_assets.cli.output import JsonOption, command, emit, say, show_table, working
from vector_assets.engine import env

if TYPE_CHECKING:
    from vector_assets.local.service import ServiceStatus

app = typer.Typer(
    no_args_is_help=True,
    help="Start, stop and list the embedded services: Kafka, PostgreSQL and others.",
)

NamesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="NAME", help="Which services; all when none is named.")
]
StartedArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME",
        help="Which of kafka, postgres, schema-registry, milvus, maxcompute, mysql, s3, embeddings, and by their names"
        " only, as they are large or seldom needed, opensearch and mysql8; all of the others when none is named.",
    ),
]


@command(
    app, "vector-assets services up", "vector-assets services up mysql opensearch embeddings",
    "vector-assets services up kafka postgres --json",
)  # fmt: skip
def up(names: StartedArgument = None, *, as_json: JsonOption = False) -> None:
    """Start services that do not run yet, and publish their addresses as secrets for scripts.

    Scripts name them as ${secret_values.kafka_bootstrap_servers}, ${secret_values.postgres_address},
    ${secret_values.mysql_host}, ${secret_values.opensearch_url} and so on; the file that is named at the end has all.
    Data of an earlier start is kept.
    """
    from vector_assets.local import services

    with working("services") as progress:
        rows = services.up(names or None, progress)
    _show(rows, as_json=as_json)
    if not as_json:
        say(f"addresses and credentials: {env.services_file()}", "dim")


@command(app, "vector-assets services down")
def down(names: NamesArgument = None, *, as_json: JsonOption = False) -> None:
    """Stop services; their data stays."""
    from vector_assets.local import services

    with working("services") as progress:
        rows = services.down(names or None, progress)
    _show(rows, as_json=as_json)


@command(app, "vector-assets services status --json")
def status(names: NamesArgument = None, *, as_json: JsonOption = False) -> None:
    """Show which services run, where, and where they keep data and logs."""
    from vector_assets.local import services

    _show(services.status(names or None), as_json=as_json)


def _show(rows: "Sequence[ServiceStatus]", *, as_json: bool) -> None:
    if as_json:
        emit({"services": [service_json(row) for row in rows]})
        return
    show_table(
        ("service", "state", "version", "address", "pid", "log"),
        [(row.name, row.state, row.version, row.address, str(row.pid or ""), row.log) for row in rows],
    )


def service_json(row: "ServiceStatus") -> dict[str, Any]:
    """A service's state for programs."""
    return {
        "name": row.name,
        "state": row.state,
        "version": row.version or None,
        "address": row.address or None,
        "pid": row.pid,
        "data_dir": str(row.data_dir),
        "log": str(row.log),
    }
