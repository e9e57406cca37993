"""The `vector-assets` command: thin verbs over the engine. Heavy imports happen inside the commands."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from vector_assets import __version__
from vector_assets.cli import (
    autoetl,
    bench,
    capture,
    dead_letters,
    demo,
    doctor,
    embed,
    explain,
    jobs,
    ledger,
    letter_edit,
    maintain,
    plan,
    preview,
    query,
    reconcile,
    reset,
    retention,
    run,
    search,
    search_setup,
    services,
    sources,
    state,
    status,
    target,
    topic,
)
from vector_assets.cli.output import Group, LogLevel, configure_logging, examples, unwrapped
from vector_assets.engine import env

app = typer.Typer(
    cls=Group,
    name="vector-assets",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "vector-assets demo                        see it work from nothing",
        "vector-assets plan pipelines/car_info.sql check a script, change nothing",
        "vector-assets run car_info                land what the topic has now",
        "vector-assets status                      where every pipeline stands",
    ),
)


def _show_version(*, wanted: bool) -> None:
    if wanted:
        typer.echo(f"vector-assets {__version__}")
        raise typer.Exit


def root(
    ctx: typer.Context,
    *,
    home: Annotated[
        Path | None,
        typer.Option(help="Folder of ledger, archive and local services.", show_default=".local", file_okay=False),
    ] = None,
    log_level: Annotated[LogLevel, typer.Option(help="What of the log is shown.")] = "warning",
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Run Flink SQL scripts as exactly-once micro-batches: from Kafka into vector stores and lakes.

    Pipelines are the scripts in pipelines/. Results go to stdout, progress and the log to stderr. Exit codes: 0 done,
    1 refused or failed (one line says why), 2 wrongly called.
    """
    del debug, version  # read by the group and by the callback
    configure_logging(log_level)
    if home is not None:
        ctx.with_resource(env.overridden(VECTOR_ASSETS_HOME=str(home.absolute())))


app.callback(help=unwrapped(root.__doc__))(root)
for module in (
    plan,
    preview,
    run,
    status,
    reset,
    retention,
    maintain,
    reconcile,
    explain,
    search,
    query,
    capture,
    doctor,
):
    module.register(app)
letter_edit.register(dead_letters.app)
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(ledger.app, name="ledger")
app.add_typer(state.app, name="state")
app.add_typer(services.app, name="services")
app.add_typer(topic.app, name="topic")
app.add_typer(embed.app, name="embed")
app.add_typer(target.app, name="target")
app.add_typer(sources.app, name="sources")
app.add_typer(jobs.app, name="jobs")
app.add_typer(autoetl.app, name="autoetl")
for last in (search_setup, bench, demo):
    last.register(app)


def main() -> None:
    """Run the command line of this process."""
    sys.exit(app())
