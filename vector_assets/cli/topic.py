"""`vector-assets topic`: topics made, filled and listed on any broker a pipeline could read."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from vector_assets.cli.output import JsonOption, command, emit, say, show_table, stderr, usage
from vector_assets.engine.errors import ConfigError

if TYPE_CHECKING:
    from rich.progress import Progress

    from vector_assets.clients.kafka_properties import Properties

app = typer.Typer(no_args_is_help=True, help="Make, fill and list Kafka topics.")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the topic.", show_default=False)]
BootstrapOption = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT", help="The broker; the local one (`services up`) when neither this nor --pipeline is given."
    ),
]
PipelineOption = Annotated[
    str | None, typer.Option(metavar="PIPELINE", help="The broker of this pipeline's source, with its login.")
]
PropertyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--property",
        metavar="NAME=VALUE",
        help="A client property beside --bootstrap, in the Java client's spelling; ${secret_values.x} in it is"
        " replaced. May be repeated.",
    ),
]


@command(
    app,
    "vector-assets topic create vector_ingest --partitions 1",
    "vector-assets topic create vector_ingest --if-not-exists --config retention.ms=-1",
    "vector-assets topic create vector_ingest --pipeline car_info",
    "vector-assets topic create cars --bootstrap 10.0.0.1:9093 --property security.protocol=SASL_SSL ...",
)
def create(
    name: NameArgument,
    *,
    partitions: Annotated[int, typer.Option(metavar="N", min=1, help="Number of partitions.")] = 1,
    replication: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Copies of each partition.", show_default="the broker's default"),
    ] = None,
    config: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A setting of the topic, such as retention.ms=-1. May be repeated."),
    ] = None,
    if_not_exists: Annotated[bool, typer.Option("--if-not-exists", help="A topic that is there is no error.")] = False,
    bootstrap: BootstrapOption = None,
    pipeline: PipelineOption = None,
    properties: PropertyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a topic; returns when it can be written and read.

    A topic that is there is left as it is, whatever its partitions and settings: that is an error unless
    --if-not-exists is given.
    """
    from vector_assets.clients.kafka_topics import create_topic

    client = _client(bootstrap, pipeline, properties)
    settings = _pairs("--config", config)
    is_new = create_topic(client, name, partitions=partitions, replication=replication, config=settings)
    if not is_new and not if_not_exists:
        raise ConfigError(
            f"kafka {client.servers}: topic {name!r} is there already and was left as it is; --if-not-exists accepts it"
        )
    if as_json:
        emit({"topic": name, "created": is_new, "bootstrap_servers": client.servers})
        return
    made = f"made with {partitions} partition{'s'[: partitions != 1]}" if is_new else "is there already, left as it is"
    say(f"topic {name} on {client.servers}: {made}")


@command(
    app,
    "vector-assets topic produce vector_ingest vector_sample_data.csv",
    "vector-assets topic produce cars cars.txt --key-separator : --pipeline car_info",
    "head -100 cars.csv | vector-assets topic produce vector_ingest - --partition 0",
)
def produce(
    name: NameArgument,
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="A file of one record per line; - is standard input.", show_default=False),
    ],
    *,
    key_separator: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What stands before it in a line is the record's key.")
    ] = None,
    partition: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Write to this partition; else the broker's clients choose.")
    ] = None,
    bootstrap: BootstrapOption = None,
    pipeline: PipelineOption = None,
    properties: PropertyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Append the lines of a file to a topic, one record a line, as Kafka's console producer does.

    The bytes of a line are sent as they are; an empty line is a record without content. Every record is confirmed by
    the broker before the command ends. The topic must be there.
    """
    from vector_assets.clients.kafka_topics import LineProducer, lines

    if key_separator == "":
        usage("--key-separator is empty")
    separator = key_separator.encode() if key_separator else None
    client = _client(bootstrap, pipeline, properties)
    place = "standard input" if file == "-" else file
    with _opened(file) as stream, closing(lines(stream, separator, place)) as records:
        producer = LineProducer(client, name, place)
        with _progress(name) as show:
            done = producer.send(records, partition, show)
    if as_json:
        offsets = {str(part): {"first": first, "last": last} for part, (first, last) in sorted(done.offsets.items())}
        emit({"topic": name, "records": done.records, "partitions": offsets})
        return
    where = ", ".join(f"partition {part}: offsets {a}-{b}" for part, (a, b) in sorted(done.offsets.items()))
    say(f"{done.records:,} records in {name}" + (f" ({where})" if where else ""))


@command(app, "vector-assets topic list", "vector-assets topic list --pipeline car_info --json", name="list")
def listed(
    *,
    bootstrap: BootstrapOption = None,
    pipeline: PipelineOption = None,
    properties: PropertyOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the topics that the login may see, with their partitions."""
    from vector_assets.clients.kafka_topics import list_topics

    client = _client(bootstrap, pipeline, properties)
    found = list_topics(client)
    if as_json:
        emit({"bootstrap_servers": client.servers, "topics": [{"name": n, "partitions": p} for n, p in found.items()]})
        return
    show_table(("topic", "partitions"), list(found.items()), right=("partitions",))


def _client(bootstrap: str | None, pipeline: str | None, extra: list[str] | None) -> "Properties":
    """The properties of the broker that the options mean.

    Raises:
        ConfigError: they are wrong, or the pipeline's source is no Kafka topic.
    """
    from vector_assets.clients.kafka_properties import Properties, PropertyError
    from vector_assets.engine import env

    if bootstrap is not None and pipeline is not None:
        usage("--bootstrap and --pipeline both name a broker: give one of them")
    given = _pairs("--property", extra)
    if pipeline is not None:
        if given:
            usage("--property goes with --bootstrap; --pipeline brings its own")
        return _of_pipeline(pipeline)
    servers = bootstrap if bootstrap is not None else env.secret("kafka_bootstrap_servers")
    try:
        return Properties({**{k: _filled(v) for k, v in given.items()}, "bootstrap.servers": servers})
    except PropertyError as error:
        raise ConfigError(f"kafka: {error}") from None


def _of_pipeline(name: str) -> "Properties":
    from vector_assets.cli.declared import pipelines
    from vector_assets.clients.kafka_properties import Properties

    (found,) = pipelines(name)
    make = getattr(found.source_options, "client", None)
    client = make() if make is not None else None
    if not isinstance(client, Properties):
        raise ConfigError(f"{name}: its source is {found.source_connector}, which is no Kafka topic")
    return client


def _filled(value: str) -> str:
    """The value with its secrets."""
    from vector_assets.cli.declared import with_secrets

    return with_secrets(value)


def _pairs(option: str, given: list[str] | None) -> Mapping[str, str]:
    pairs: dict[str, str] = {}
    for each in given or ():
        name, found, value = each.partition("=")
        if not name or not found:
            usage(f"{option} {name or '...'}: want NAME=VALUE")
        if name in pairs:
            usage(f"{option} {name} is given twice")
        pairs[name] = value
    return pairs


@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    """The file's bytes.

    Raises:
        ConfigError: it cannot be read.
    """
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        with Path(file).open("rb") as stream:
            yield stream
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error


class _Show:
    """Shows how many records are confirmed."""

    def __init__(self, progress: "Progress", topic: str) -> None:
        self._progress = progress
        self._task = progress.add_task(topic, total=None)

    def __call__(self, records: int) -> None:
        self._progress.update(self._task, completed=records)


@contextmanager
def _progress(topic: str) -> Iterator[_Show]:
    # not for every command's --help
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("records"),
        TimeElapsedColumn(), console=stderr, transient=True, disable=not stderr.is_terminal,
    ) as progress:  # fmt: skip
        yield _Show(progress, topic)
