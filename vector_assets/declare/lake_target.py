"""The destination of a lake job as options of the connector that writes it, and what is fixed once the job exists."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.declare.flink_options import Secrets, fill_texts, parse
from vector_assets.declare.lake_form import LakeJob, start_ms
from vector_assets.declare.lake_places import check_database, refuse_full_folder, why_no_place
from vector_assets.declare.yaml_text import Document, Path
from vector_assets.engine import env, registry
from vector_assets.engine.creation import Creation
from vector_assets.engine.errors import ConfigError, Place
from vector_assets.engine.metadata import Metadata
from vector_assets.engine.options import SinkOptions
from vector_assets.engine.registry import nearest
from vector_assets.engine.schema import Column, LogicalType
from vector_assets.sinks import SINKS
from vector_assets.sources.kafka_metadata import METADATA

DEFAULT_STORAGE = "lake"
"""The managed lake storage that tables of Flink SQL scripts lie in, too."""

_PARTS = {"year": "%Y", "month": "%Y-%m", "day": "%Y-%m-%d", "hour": "%Y-%m-%d-%H"}
_WHERE: Path = ("job", "destination")


@dataclass(frozen=True, slots=True)
class LakeEnd:
    """The sink of a lake job; `extra` are columns that Kafka fills, for partitions by log time."""

    connector: str
    make: Any = field(repr=False)
    options: SinkOptions
    creation: Creation
    extra: tuple[tuple[Column, Metadata], ...]


def lake_end(
    job: LakeJob, document: Document, columns: tuple[Column, ...], secrets: Secrets, *, offline: bool
) -> LakeEnd:
    """The sink of a job whose messages make `columns`; nothing is contacted.

    Raises:
        ConfigError: at the key that is wrong.
    """
    connector = job.destination.format
    try:
        make = registry.load(SINKS, "storage format", connector)
    except ConfigError as error:
        raise document.error(error.message, (*_WHERE, "format")) from error
    extra = _log_time(job, document, columns)
    known = [column.name for column in (*columns, *(column for column, _ in extra))]
    written = _location(job, document) | _partitions(job, document, known) | _batch_column(job, document, known)
    texts = {name: text for name, (text, _) in written.items()}
    places = {name: document.place_of(path) for name, (_, path) in written.items()}
    for name, text in job.destination.options.items():
        where = (*_WHERE, "options", name)
        if name in texts or name in _OWN:
            raise ConfigError(
                f"job {job.name}: option {name!r} is said by the form's own keys", document.place_of_key(where)
            )
        texts[name], places[name] = text, document.place_of(where)
    filled = fill_texts(texts, places, secrets, offline=offline)
    where_to = "warehouse" if connector == "paimon" else "location"
    if job.destination.type == "path" and where_to not in filled.unknown:
        wrong = why_no_place(filled.values[where_to])
        if wrong is not None:
            found = f"job {job.name}: destination.path: found {job.destination.path!r}; {wrong}"
            raise document.error(found, (*_WHERE, "path"))
    options = parse(make, filled, f"job {job.name}: connector {connector}")
    place = filled.values.get("location") or filled.values.get("warehouse")
    creation = _creation(job, options, place, places, secrets, partial(refuse_future_start, job, document))
    return LakeEnd(connector, make, options, creation, extra)


_OWN = frozenset(
    {"location", "path", "partition", "bucket", "bucket-key", "on_existing", "catalog-name", "batch_column"}
)


def _location(job: LakeJob, document: Document) -> dict[str, tuple[str, Path]]:
    """Options that say where the table lies, each with the path to the value that it comes from."""
    to = job.destination
    found: dict[str, tuple[str, Path]] = {
        "connector": (to.format, (*_WHERE, "format")),
        "catalog-database": (to.database, (*_WHERE, "database")),
        "catalog-table": (to.table, (*_WHERE, "table")),
        "on_existing": (to.on_existing, (*_WHERE, "on_existing")),
    }
    if to.format == "paimon":
        return found | {"warehouse": (str(to.path), (*_WHERE, "path"))}
    if to.type == "path":
        return found | {"location": (str(to.path).rstrip("/"), (*_WHERE, "path"))}
    found["catalog-name"] = (to.storage, (*_WHERE, "storage"))
    if to.storage != DEFAULT_STORAGE and not {"warehouse", "uri"} & to.options.keys():
        found["warehouse"] = (f"file://{env.home() / 'lake' / 'storages' / to.storage}", (*_WHERE, "storage"))
    return found


def _partitions(job: LakeJob, document: Document, known: list[str]) -> dict[str, tuple[str, Path]]:
    texts: list[str] = []
    found: dict[str, tuple[str, Path]] = {}
    for number, key in enumerate(job.partition_by):
        where: Path = ("job", "partition_by", number)
        if key.column is not None and key.column not in known:
            listed = ", ".join(known)
            what = (
                f"job {job.name}: partition_by: no column {key.column!r}{nearest(key.column, known)}; known: {listed}"
            )
            raise document.error(what, (*where, "column"))
        if job.destination.format == "iceberg":
            texts.append(_transform(job, key.log_time, key.column, key.bucket))
        elif key.bucket is not None and "bucket" in found:
            raise document.error(f"job {job.name}: partition_by: a Paimon table has one bucket key", where)
        elif key.bucket is not None:
            found["bucket"] = (str(key.bucket), (*where, "bucket"))
            found["bucket-key"] = (str(key.column), (*where, "column"))
        else:
            texts.append(key.column or _part_column(job))
    return found | ({"partition": (", ".join(texts), ("job", "partition_by"))} if texts else {})


def _batch_column(job: LakeJob, document: Document, known: list[str]) -> dict[str, tuple[str, Path]]:
    if job.batch_column is None:
        return {}
    where: Path = ("job", "batch_column")
    if job.batch_column.lower() in {name.lower() for name in known}:
        what = f"job {job.name}: batch_column: {job.batch_column} is a column of the messages: choose another name"
        raise document.error(what, where)
    return {"batch_column": (job.batch_column, where)}


def _transform(job: LakeJob, log_time: str | None, column: str | None, bucket: int | None) -> str:
    if log_time is not None:
        return f"{log_time}({job.log_time_column})"
    return f"bucket({bucket}, {column})" if bucket is not None else str(column)


def log_time_names(job: LakeJob) -> tuple[str, ...]:
    """Names of the columns that partitions by log time need."""
    if job.log_time is None:
        return ()
    return (job.log_time_column, *([_part_column(job)] if job.destination.format == "paimon" else ()))


def _part_column(job: LakeJob) -> str:
    return f"{job.log_time_column}_{job.log_time}"


def _log_time(job: LakeJob, document: Document, columns: tuple[Column, ...]) -> tuple[tuple[Column, Metadata], ...]:
    """Columns that partitions by log time need: the record's time; for Paimon, which partitions by values, its part."""
    if job.log_time is None:
        return ()
    stamp = METADATA["timestamp"]
    place = document.place_of(("job", "partition_by"))
    made = [(Column(job.log_time_column, stamp.type, "metadata", metadata_key="timestamp", place=place), stamp)]
    if job.destination.format == "paimon":
        part = Metadata(LogicalType("VARCHAR"), partial(_part, _PARTS[job.log_time]))
        made.append((Column(_part_column(job), part.type, "metadata", metadata_key="timestamp", place=place), part))
    for column, _ in made:
        if column.name.lower() in {other.name.lower() for other in columns}:
            what = f"column {column.name} is that of the record's time: name the field's otherwise, or log_time_column"
            raise document.error(f"job {job.name}: {what}", ("job", "log_time_column"))
    return tuple(made)


def _part(form: str, raw: pa.Table, _splits: object) -> pa.ChunkedArray:
    """The year, month, day or hour of each record's time in UTC, as a text that sorts by time."""
    return pc.strftime(raw.column("timestamp").cast(pa.timestamp("s", "UTC"), safe=False), form)


def refuse_future_start(job: LakeJob, document: Document) -> None:
    """Make sure that the time to start at has come: of a later one Kafka gives the end of the topic, so that messages
    from before it would be read.

    Raises:
        ConfigError: at the time.
    """
    if job.start not in LakeJob.TIMES and start_ms(job.start) > time.time() * 1000:
        what = f"{job.start} has not come yet: want a time that is past, or end_cursor (what comes from now on)"
        raise document.error(f"job {job.name}: start: {what}", ("job", "start"))


def _creation(
    job: LakeJob, options: Any, place: str | None, places: Mapping[str, Place], secrets: Secrets,
    on_time: Callable[[], None],
) -> Creation:  # fmt: skip
    to = job.destination
    fixed = {"type": to.type, "format": to.format, "database": to.database, "table": to.table}
    fixed |= {"path": str(place)} if to.type == "path" else {"storage": to.storage}
    named = {f"destination.{name}": value for name, value in fixed.items()}
    if to.type == "managed":
        root = options.warehouse or (f"file://{env.home() / 'lake' / 'warehouse'}" if options.kind == "sql" else None)
        return Creation(named, root, f"{root.rstrip('/')}/{to.database}/{to.table}" if root else None, on_time)
    owner, is_paimon = f"job {job.name}", to.format == "paimon"
    folder = f"{str(place).rstrip('/')}/{to.database}.db/{to.table}" if is_paimon else str(place)
    where = places["warehouse" if is_paimon else "location"]
    checks = [on_time]
    if is_paimon:
        checks.append(partial(check_database, to.database, str(place), owner, where, secrets))
    if to.on_existing == "fail":
        checks.append(partial(refuse_full_folder, options, folder, owner, where))
    return Creation(named, str(place), folder, partial(_all, tuple(checks)))


def _all(checks: tuple[Callable[[], None], ...]) -> None:
    for check in checks:
        check()
