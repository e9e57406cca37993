"""`vector-assets sources`: data sources of lake jobs, kept as YAML in the folder of pipelines."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vector_assets.cli import yaml_files
from vector_assets.cli.output import (
    JsonOption,
    YesOption,
    command,
    confirm,
    emit,
    heading,
    say,
    show_pairs,
    show_table,
    usage,
)
from vector_assets.engine.errors import ConfigError

if TYPE_CHECKING:
    from vector_assets.declare.lake_form import DataSource
    from vector_assets.declare.lake_shelf import Item, Shelf

SourceArgument = Annotated[str, typer.Argument(metavar="SOURCE", help="Name of a data source.", show_default=False)]

app = typer.Typer(
    no_args_is_help=True,
    help="Data sources of lake jobs: a Kafka cluster and a topic under a name, kept as YAML in pipelines/.",
)


@command(
    app,
    "vector-assets sources create shop --brokers kafka:9092 --topic orders --description 'Orders of the shop'",
    "vector-assets sources create --brokers kafka:9093 --topic orders --property security.protocol=SASL_SSL \\",
    "    --property 'sasl.jaas.config=${secret_values.shop_jaas}'        named after its type and the time",
)
def create(
    name: Annotated[
        str | None, typer.Argument(metavar="[SOURCE]", help="Its name; of the type and the time when left out.")
    ] = None,
    *,
    brokers: Annotated[str, typer.Option(metavar="HOST:PORT,...", help="The cluster.", show_default=False)],
    topic: Annotated[str, typer.Option(metavar="TOPIC", help="The topic.", show_default=False)],
    description: Annotated[str, typer.Option(metavar="TEXT", help="What it is for.")] = "",
    message_format: Annotated[str, typer.Option(metavar="FORMAT", help="json; no other can be synchronized.")] = "json",
    properties: Annotated[
        list[str] | None,
        typer.Option("--property", metavar="NAME=VALUE", help="A property of the Kafka client; may be repeated."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Add it to this file.", show_default="a new one")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Declare a data source; nothing is contacted."""
    from vector_assets.declare.lake_form import DataSource, read
    from vector_assets.declare.lake_shelf import items_of
    from vector_assets.declare.yaml_edit import flow, scalar

    shelf = yaml_files.shelf()
    name = name or yaml_files.new_name("kafka", {item.name for item in shelf.of("datasource")})
    _refuse_taken(shelf, name)
    given = yaml_files.pairs(properties, "--property")
    _refuse_plain_secrets(given)
    values: dict[str, Any] = {"name": name, "type": "kafka", "description": description or None, "brokers": brokers}
    values |= {"topic": topic, "message_format": message_format, "properties": given or None}
    body = [f"  {key}: {flow(value)}" for key, value in values.items() if value is not None and key != "properties"]
    if given:
        body += ["  properties:", *(f"    {scalar(key)}: {scalar(value)}" for key, value in given.items())]
    text = "\n".join(["datasource:", *body, ""])
    (item,) = items_of(text, "sources create")
    _compile(item, read(DataSource, item.document, ("datasource",), f"datasource {name}"))
    change = yaml_files.added(text, file, name)
    change.apply()
    if as_json:
        emit({"name": name, "file": str(change.path)})
        return
    say(f"data source {name}: written to {change.path}")
    say(f"next: vector-assets jobs create --source {name} --database DB --table TABLE", "dim")


def _compile(item: "Item", source: "DataSource") -> None:
    """Refuse a topic or a property that the client does not take; secrets need not be set."""
    from vector_assets.declare.lake_job import kafka_options
    from vector_assets.engine import env

    start = {"scan.startup.mode": "earliest-offset"}
    kafka_options(source, item.document, ("datasource",), start, env.secret, offline=True)


def _refuse_taken(shelf: "Shelf", name: str) -> None:
    for item in shelf.of("datasource"):
        if item.name == name:
            raise ConfigError(f"data source {name} is there already: {item.place}")


def _refuse_plain_secrets(given: dict[str, str]) -> None:
    from vector_assets.clients.kafka_properties import is_secret

    for name, value in given.items():
        if is_secret(name) and "${secret_values." not in value:
            raise ConfigError(
                f"--property {name}: a secret does not belong into a file: write '{name}=${{secret_values.<name>}}'"
                " and set that secret"
            )


@command(app, "vector-assets sources list", "vector-assets sources list --json | jq -r '.sources[].name'", name="list")
def list_(*, as_json: JsonOption = False) -> None:
    """Show all data sources and the jobs that read them."""
    shelf = yaml_files.shelf()
    found = [_shown(shelf, item) for item in shelf.of("datasource")]
    if as_json:
        emit({"sources": found})
        return
    columns = ("name", "topic", "brokers", "jobs", "description", "declared in")
    rows = [
        (each["name"], each["topic"], each["brokers"], ", ".join(each["jobs"]), each["description"], each["place"])
        for each in found
    ]
    show_table(columns, rows)


def _shown(shelf: "Shelf", item: "Item") -> dict[str, Any]:
    from vector_assets.declare.lake_form import DataSource, read

    form = read(DataSource, item.document, ("datasource",), item.owner)
    users = [job.name for job in shelf.users_of(item.name)]
    return {**form.model_dump(), "jobs": users, "place": str(item.place)}


@command(app, "vector-assets sources show shop")
def show(source: SourceArgument, *, as_json: JsonOption = False) -> None:
    """Show a data source as it is declared; secrets are shown as they are written, by their names."""
    shelf = yaml_files.shelf()
    found = _shown(shelf, shelf.find("datasource", source))
    if as_json:
        emit(found)
        return
    show_pairs((name.replace("_", " "), value) for name, value in found.items() if name != "properties")
    if found["properties"]:
        heading("properties")
        show_pairs(found["properties"].items())


@command(
    app,
    "vector-assets sources edit shop --description 'Orders since 2024'",
    "vector-assets sources edit shop --name orders_source    jobs that read it are changed, too",
)
def edit(
    source: SourceArgument,
    *,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Another name.")] = None,
    description: Annotated[str | None, typer.Option(metavar="TEXT", help="Another description.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Change the name or the description; nothing else of a data source can be changed."""
    from vector_assets.declare.lake_form import name_of

    if name is None and description is None:
        usage("give --name or --description")
    shelf = yaml_files.shelf()
    shelf.find("datasource", source)
    if name is not None and name != source:
        _refuse_taken(shelf, name)
        try:
            name_of(name)
        except ValueError as error:
            raise ConfigError(f"--name {name!r}: {error}") from None
    if description is not None:
        yaml_files.with_value(shelf.find("datasource", source), ("datasource", "description"), description).apply()
    if name is not None:
        # jobs first: a name that is not there yet is an error that says so, one that two have would not be
        for job in shelf.users_of(source):
            fresh = yaml_files.shelf().find("job", job.name)
            yaml_files.with_value(fresh, ("job", "source"), name).apply()
        yaml_files.with_value(yaml_files.shelf().find("datasource", source), ("datasource", "name"), name).apply()
    shelf = yaml_files.shelf()
    found = _shown(shelf, shelf.find("datasource", name or source))
    if as_json:
        emit(found)
    else:
        say(f"data source {found['name']}: {found['description']} ({found['place']})")


@command(app, "vector-assets sources delete shop --yes")
def delete(source: SourceArgument, *, yes: YesOption = False, as_json: JsonOption = False) -> None:
    """Take a data source away; one that a job reads stays until the job is deleted."""
    shelf = yaml_files.shelf()
    item = shelf.find("datasource", source)
    users = shelf.users_of(source)
    if users:
        named = ", ".join(f"{job.name} ({job.place})" for job in users)
        raise ConfigError(f"data source {source} is read by {named}: delete that job first")
    confirm(f"Delete data source {source} from {item.file}?", is_confirmed=yes)
    yaml_files.without(item).apply()
    if as_json:
        emit({"deleted": source})
    else:
        say(f"data source {source}: deleted")
