"""Lake jobs to pipelines: one Kafka topic of JSON into one Iceberg or Paimon table."""

from functools import partial
from typing import Any

import pyarrow as pa

from vector_assets.declare.flink_options import Secrets, Written, fill_texts, parse
from vector_assets.declare.flink_types import quoted
from vector_assets.declare.lake_form import DataSource, FieldMapping, LakeJob, read, start_ms
from vector_assets.declare.lake_shelf import Item, Shelf
from vector_assets.declare.lake_target import LakeEnd, lake_end, log_time_names
from vector_assets.declare.yaml_text import Document, Path
from vector_assets.engine import env, registry
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.evolution import check_evolvable
from vector_assets.engine.options import SourceOptions
from vector_assets.engine.pipeline import Allotment, Pipeline, PipelineSettings
from vector_assets.engine.schema import Column, Table
from vector_assets.formats.lake_fields import WHOLE, LakeField, check_fields, path_text
from vector_assets.formats.lake_json import LakeJsonDecoder, LakeJsonOptions
from vector_assets.sources import SOURCES

FORMAT = "lake-json"
MOST_ROWS = 1_000_000
"""Records of a batch at most: a lake wants few, large files."""

_FORM_S = {
    "pipeline.name": "name",
    "vector-assets.memory": "resources",
    "vector-assets.sensor.interval": "commit_interval",
    "vector-assets.linger": "commit_interval",
    "vector-assets.batch.target": "commit_interval",
}
"""Settings that a key of the form stands for."""


def compile_job(item: Item, shelf: Shelf, *, secrets: Secrets = env.secret, offline: bool = False) -> Pipeline:
    """The pipeline of a job; nothing is contacted. With `offline`, a secret that is not set is replaced by a stand-in.

    Raises:
        ConfigError: at the key or the value that is wrong.
    """
    document = item.document
    if not item.name:
        what = "a job needs a name: write name:, or let `vector-assets jobs create --from <file>` give it one"
        raise ConfigError(what, document.place_of_key(("job",)))
    source, source_document, source_path = shelf.source_of(item)
    job = read_job(item)
    shelf.check_units(item, job)
    decoder = _decoder(job, document)
    end = lake_end(job, document, decoder.columns, secrets, offline=offline)
    make, options = _kafka(source, job, source_document, source_path, document, secrets, offline=offline)
    if job.on_drift == "evolve":
        check_evolvable(decoder, end.make, (), document.place_of(("job", "on_drift")))
    return _pipeline(item, job, source, decoder, end, make, options)


def read_job(item: Item) -> LakeJob:
    """The form of a job; the data source is looked up elsewhere.

    Raises:
        ConfigError: at the key or the value that is wrong.
    """
    written = item.document.value(("job", "source"))
    implied: dict[str, Any] = {} if not isinstance(written, dict) else {"source": item.name}
    return read(LakeJob, item.document, ("job",), item.owner, implied=implied, passed_over=tuple(implied))


def kafka_options(
    source: DataSource, document: Document, path: Path, start: dict[str, str], secrets: Secrets, *, offline: bool
) -> tuple[Any, SourceOptions]:
    """The class of the source and its options, from where `start` says.

    Raises:
        ConfigError: at the key of the data source that is wrong.
    """
    make = registry.load(SOURCES, "source connector", source.type)
    written = {"topic": (source.topic, "topic"), "properties.bootstrap.servers": (source.brokers, "brokers")}
    texts = {"connector": source.type, "format": "json", **start, **{key: text for key, (text, _) in written.items()}}
    places = dict.fromkeys(texts, document.place_of(path))
    places |= {key: document.place_of((*path, own)) for key, (_, own) in written.items()}
    for name, text in source.properties.items():
        texts[f"properties.{name}"] = text
        places[f"properties.{name}"] = document.place_of((*path, "properties", name))
    filled: Written = fill_texts(texts, places, secrets, offline=offline)
    options: SourceOptions = parse(make, filled, f"datasource {source.name}")
    return make, options


def _kafka(
    source: DataSource, job: LakeJob, source_document: Document, source_path: Path, document: Document,
    secrets: Secrets, *, offline: bool,
) -> tuple[Any, SourceOptions]:  # fmt: skip
    mode = LakeJob.TIMES.get(job.start)
    start = {"scan.startup.mode": mode or "timestamp"}
    if mode is None:
        start["scan.startup.timestamp-millis"] = str(start_ms(job.start))
    return kafka_options(source, source_document, source_path, start, secrets, offline=offline)


def format_options(job: LakeJob) -> LakeJsonOptions:
    """How the job's messages are read, beside its fields."""
    given = {"layers": job.json_layers, "drift": job.on_drift, "ignored": job.ignore, "taken": log_time_names(job)}
    return LakeJsonOptions.model_validate(given)


def _decoder(job: LakeJob, document: Document) -> LakeJsonDecoder:
    fields = fields_of(job, document)
    try:
        return LakeJsonDecoder(fields, format_options(job))
    except ConfigError as error:
        raise document.error(f"job {job.name}: ignore: {error.message}", ("job", "ignore")) from None


def fields_of(job: LakeJob, document: Document) -> tuple[LakeField, ...]:
    """The fields of a job's columns; of a job that parses no layer the whole message, written or not.

    Raises:
        ConfigError: there are none, or they cannot stand beside each other.
    """
    if job.columns is None and job.json_layers == 0:
        return (LakeField((), WHOLE, json=True),)
    if job.columns is None:
        what = "key 'columns' is required: `vector-assets jobs create --from <file>` infers them from live messages"
        raise ConfigError(f"job {job.name}: {what}", document.place_of_key(("job",)))
    fields = tuple(column.lake_field() for column in job.columns)
    for number, each in enumerate(fields):
        where = ("job", "columns", number)
        if bool(each.path) == (job.json_layers == 0):
            what = f"the only field is {WHOLE}" if each.path else f"{WHOLE} is there only"
            raise document.error(f"job {job.name}: columns: {what} with json_layers: 0", where)
        if len(each.path) > max(job.json_layers, 1):
            what = f"field {path_text(each.path)} is {len(each.path)} layers deep; json_layers is {job.json_layers}"
            raise document.error(f"job {job.name}: columns: {what}", where)
        try:
            check_fields(fields[: number + 1])
        except ConfigError as error:
            raise document.error(f"job {job.name}: columns: {error.message}", where) from None
    return fields


def _settings(job: LakeJob, document: Document) -> PipelineSettings:
    interval = f"{job.commit_interval.total_seconds():g} s"
    values = {
        "pipeline.name": job.name,
        "vector-assets.sensor.interval": interval,
        "vector-assets.linger": interval,
        "vector-assets.batch.target": interval,
        "vector-assets.batch.max-rows": str(MOST_ROWS),
    }
    if job.limits.in_flight_bytes is not None:
        values["vector-assets.memory"] = str(job.limits.in_flight_bytes)
    places = dict.fromkeys(values, document.place_of(("job",)))
    for name, text in job.settings.items():
        where = ("job", "settings", name)
        if name in _FORM_S:
            what = f"job {job.name}: setting {name!r} is the key {_FORM_S[name]} of the job"
            raise ConfigError(what, document.place_of_key(where))
        values[name], places[name] = text, document.place_of(where)
    return PipelineSettings.parse(values, f"job {job.name}: settings", places)


def _pipeline(
    item: Item, job: LakeJob, source: DataSource, decoder: LakeJsonDecoder, end: LakeEnd, make: Any,
    options: SourceOptions,
) -> Pipeline:  # fmt: skip
    comments = {column.column: column.description or None for column in job.columns or ()}
    columns = tuple(
        Column(column.name, column.type, comment=column.comment or comments.get(column.name))
        for column in (*decoder.columns, *(column for column, _ in end.extra))
    )
    sink_table = Table(job.destination.table, columns, comment=job.description or None, place=item.place)
    source_table = Table(source.name, _source_columns(job, end, item), place=item.place)
    return Pipeline(
        name=job.name,
        place=item.document.place_of_key(("job", "name")),
        description=job.description,
        source_table=source_table,
        sink_table=sink_table,
        source_connector=source.type,
        sink_connector=end.connector,
        format=FORMAT,
        source_options=options,
        format_options=format_options(job),
        sink_options=end.options,
        settings=_settings(job, item.document),
        schema=pa.schema([pa.field(column.name, column.type.arrow, column.type.nullable) for column in columns]),
        transform_text=_shown(job, source, decoder, end, item),
        decoder=decoder,
        transforms=(),
        metadata=end.extra,
        reads={name: frozenset({path}) for name, path in _paths(job, end, item).items()},
        open_source=partial(make, options, source_table, pipeline=job.name),
        open_sink=partial(end.make, end.options, sink_table, pipeline=job.name),
        reports=tuple(f"{item.place}: job {job.name}: {each}" for each in (*options.reports(), *end.options.reports())),
        creation=end.creation,
        is_idle=True,
        allotment=_allotment(job),
    )


def _allotment(job: LakeJob) -> Allotment | None:
    limits = job.limits
    if limits.group is None or limits.units is None or limits.memory_bytes is None:
        return None
    return Allotment(limits.group, limits.units, limits.memory_bytes)


def _paths(job: LakeJob, end: LakeEnd, item: Item) -> dict[str, str]:
    """What of a message or of its record each column is made of."""
    found = {each.name: path_text(each.path) or WHOLE for each in fields_of(job, item.document)}
    return found | {column.name: str(column.metadata_key) for column, _ in end.extra}


def _source_columns(job: LakeJob, end: LakeEnd, item: Item) -> tuple[Column, ...]:
    """The fields under their own names, with how they are read, and what Kafka knows of a record."""
    fields = [
        Column(path_text(each.path) or WHOLE, each.type, comment=_how(each)) for each in fields_of(job, item.document)
    ]
    known = {
        column.metadata_key: Column(str(column.metadata_key), kind.type, "metadata") for column, kind in end.extra[:1]
    }
    return (*fields, *known.values())


def _how(field: LakeField) -> str | None:
    """What the type does not say, for people and for the fingerprint."""
    parts = (
        "any value, as JSON" if field.json else "",
        "times with a T" if field.iso else "",
        "null when it is there and null" if field.nulls == "null" else "",
    )
    return "; ".join(part for part in parts if part) or None


def _shown(job: LakeJob, source: DataSource, decoder: LakeJsonDecoder, end: LakeEnd, item: Item) -> str:
    """The mapping as a SELECT, for people and for the fingerprint."""
    paths = _paths(job, end, item)
    names = [column.name for column in (*decoder.columns, *(column for column, _ in end.extra))]
    items = [f"{quoted(paths[name])} AS {quoted(name)}" if name in paths else quoted(name) for name in names]
    return f"SELECT {', '.join(items)} FROM {quoted(source.name)}"


def item_of(field: LakeField) -> dict[str, str]:
    """A field as an item of `columns:`."""
    return FieldMapping.of(field)
