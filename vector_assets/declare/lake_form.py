"""The fields of lake ingestion jobs, their data sources and resource groups: the managed service's form as YAML.

Values are as they are written: a `${secret_values.x}` is filled in when the job is compiled, so that no message here
can show a secret.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from vector_assets.declare.flink_type_text import type_of
from vector_assets.declare.yaml_text import Document, Path, unknown_key
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.options import Duration, MemorySize, Options
from vector_assets.engine.schema import LogicalType
from vector_assets.formats.lake_fields import JSON, STRING, WHOLE, LakeField, parse_path, path_text, plain_name

LEAST_UNITS = 2
"""Units that a job has at least, which is the service's own least."""

UNIT_BYTES = 256 * 1024**2
"""Memory of a unit: a job has two at least, and no process of a run does with less."""

PROCESS_BYTES = 480 * 1024**2
"""What a run's process takes besides records in flight: libraries, readers, the files it writes. Measured with 4
partitions and a million records: 358 MB with 16 MB in flight, 412 to 480 MB with 64 or 128 MB."""

LEAST_INTERVAL = timedelta(seconds=1)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CURSORS = {"begin_cursor": "earliest-offset", "end_cursor": "latest-offset"}

Form = TypeVar("Form", bound=Options)


def name_of(text: object) -> str:
    """A name that is one everywhere: in Dagster, in a ledger, in a catalog."""
    if not isinstance(text, str) or not _NAME.fullmatch(text):
        raise ValueError("want letters, digits and '_', with no digit in front")
    return text


def _brokers(value: object) -> object:
    return ",".join(map(str, value)) if isinstance(value, list) else value


def _json_only(value: object) -> object:
    if str(value).lower() != "json":
        raise ValueError(
            "only JSON-formatted messages can be synchronized by a lake job; a *.sql script reads other formats"
        )
    return "json"


def _parsed_type(value: object) -> object:
    if isinstance(value, LogicalType) or value == JSON:
        return value
    try:
        return type_of(str(value))
    except ConfigError as error:
        raise ValueError(error.message) from None


Name = Annotated[str, BeforeValidator(name_of)]
TypeText = Annotated[LogicalType | Literal["JSON"], BeforeValidator(_parsed_type)]


class DataSource(Options):
    """`datasource:`: a Kafka cluster and a topic, under a name."""

    name: Name
    """How jobs name it. `sources create` makes one of the type and the time where none is given."""
    type: Literal["kafka"] = "kafka"
    """`kafka`."""
    description: str = ""
    """What it is for."""
    brokers: Annotated[str, BeforeValidator(_brokers)]
    """`host:port`, several as a list or separated by commas."""
    topic: str
    """The topic."""
    message_format: Annotated[Literal["json"], BeforeValidator(_json_only)] = "json"
    """`json`; nothing else can be synchronized by a lake job."""
    properties: dict[str, str] = Field(default_factory=dict)
    """Properties of the Kafka client in Java's spelling, such as `security.protocol` and `sasl.jaas.config`."""

    @field_validator("topic")
    @classmethod
    def _is_one_topic(cls, text: str) -> str:
        if ";" in text:
            raise ValueError("want one topic")
        return text

    @field_validator("properties")
    @classmethod
    def _names_no_servers(cls, values: dict[str, str]) -> dict[str, str]:
        if "bootstrap.servers" in values:
            raise ValueError("'bootstrap.servers' is the key brokers")
        return values


class Destination(Options):
    """`destination:`: where the table lies and in which format."""

    type: Literal["managed", "path"] = "managed"
    """`managed`: lake storage that is made and looked after here (Iceberg only); `path`: a place of your own."""
    storage: Name = "lake"
    """Managed: the name of the lake storage; it is made when it is missing."""
    path: str | None = None
    """Own path: a folder or `s3://bucket/folder`, empty when the job is created. It can never be changed, and shares no
    prefix with that of another job."""
    format: Literal["iceberg", "paimon"] = "iceberg"
    """`iceberg` or `paimon` (only in a path of your own)."""
    database: Name
    """Made when it is missing; one that is there is used as it is. A Paimon database is never made: see
    `vector-assets target create`."""
    table: Name
    """Made when it is missing."""
    on_existing: Literal["fail", "adopt"] = "fail"
    """What a table means that is there before the job: `fail`, or `adopt`, which checks that it fits."""
    options: dict[str, str] = Field(default_factory=dict)
    """Options of the connector of that format as Flink SQL spells them: catalogs, endpoints and keys of a store."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.type == "managed" and self.format == "paimon":
            raise ValueError("managed lake storage takes iceberg only: format paimon wants type: path")
        if self.type == "managed" and self.path is not None:
            raise ValueError("path has a meaning only with type: path")
        if self.type == "path" and not self.path:
            raise ValueError("type: path wants the key path")
        if self.type == "path" and "storage" in self.model_fields_set:
            raise ValueError("storage has a meaning only with type: managed")
        return self


class FieldMapping(Options):
    """One item of `columns:`: a field of the messages and the column that it becomes."""

    field: str
    """The field by its path in the message: names separated by dots, a name that holds a dot in double quotes;
    `__value__` is the whole message, where no layer is parsed."""
    name: str | None = Field(None, min_length=1)
    """The column; default: the path with underscores for dots."""
    type: TypeText
    """The column's type: a simple one as Flink SQL spells it, or `JSON`, which keeps any value as JSON text."""
    description: str = ""
    """The column's comment."""
    nulls: Literal["absent", "present"] = "absent"
    """What a null of the column usually means: the field is `absent`, or it is `present` and null. The other kind is
    noted in `_rescued`."""
    time_format: Literal["SQL", "ISO-8601"] = "SQL"
    """How times are spelled: `2026-03-01 12:00:00`, or with a `T`."""

    @field_validator("field")
    @classmethod
    def _is_path(cls, text: str) -> str:
        try:
            parse_path(text)
        except ConfigError as error:
            raise ValueError(error.message) from None
        return text

    @property
    def path(self) -> tuple[str, ...]:
        """The names on the way to the field; none for the whole message."""
        return () if self.field == WHOLE else parse_path(self.field)

    @property
    def column(self) -> str:
        """The column's name."""
        return self.name or plain_name(self.path)

    def lake_field(self) -> LakeField:
        """The field as the decoder knows it."""
        is_json = self.type == JSON
        kind = STRING if isinstance(self.type, str) else self.type
        nulls: Literal["absent", "null"] = "null" if self.nulls == "present" else "absent"
        return LakeField(self.path, self.column, kind, is_json, nulls, self.time_format == "ISO-8601")

    @classmethod
    def of(cls, field: LakeField) -> dict[str, str]:
        """The item for a field, with what differs from the defaults."""
        item = {"field": path_text(field.path) if field.path else WHOLE}
        if field.name != plain_name(field.path):
            item["name"] = field.name
        item["type"] = field.spelled
        if field.nulls == "null":
            item["nulls"] = "present"
        if field.iso:
            item["time_format"] = "ISO-8601"
        return item


LogTimeUnit = Literal["year", "month", "day", "hour"]


class PartitionKey(Options):
    """One item of `partition_by:`."""

    log_time: LogTimeUnit | None = None
    """By the time of the record in Kafka: `year`, `month`, `day` or `hour`."""
    column: str | None = None
    """By a column of the table."""
    bucket: int | None = Field(None, ge=1)
    """With `column`: by the hash of its value, into so many buckets."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.log_time is None) == (self.column is None):
            raise ValueError("want log_time or column, and only one of them")
        if self.bucket is not None and self.column is None:
            raise ValueError("bucket wants a column")
        return self


class Resources(Options):
    """`resources:`: how much of the machine a job may use."""

    group: Name | None = None
    """The resource group that the units are taken from."""
    units: int | None = Field(None, ge=LEAST_UNITS)
    """Units of the group, 2 or more; each is 256 MB of memory of a run's process."""
    memory: MemorySize | None = Field(None, ge=LEAST_UNITS * UNIT_BYTES)
    """Memory of a run's process, without a group: 512 MB or more. Less is slower."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.group is None) != (self.units is None):
            raise ValueError("group and units go together")
        if self.group is not None and self.memory is not None:
            raise ValueError("units say how much memory there is: leave out memory")
        return self

    @property
    def memory_bytes(self) -> int | None:
        """Memory of a run's process; None where nothing is said."""
        return self.units * UNIT_BYTES if self.units is not None else self.memory

    @property
    def in_flight_bytes(self) -> int | None:
        """What of it is left for records in flight; None where nothing is said."""
        return None if self.memory_bytes is None else self.memory_bytes - PROCESS_BYTES


class ResourceGroup(Options):
    """`resource_group:`: units that the jobs of a group share."""

    name: Name
    """How jobs name it."""
    max_units: int = Field(ge=LEAST_UNITS)
    """What all its jobs have together."""


class LakeJob(Options):
    """`job:`: one topic into one table."""

    TIMES: ClassVar[Mapping[str, str]] = _CURSORS

    name: Name
    """The pipeline's name. `jobs create` makes one of the type and the time where none is given."""
    description: str = ""
    """What it is for."""
    source: str
    """The name of a data source, or the keys of one, which is then this job's own."""
    destination: Destination
    """Where to, see below."""
    json_layers: int = Field(1, ge=0, le=4)
    """How many layers of nested objects become columns of their own; 0 keeps the whole message in `__value__`."""
    columns: tuple[FieldMapping, ...] | None = Field(None, min_length=1)
    """The columns, see below; `jobs create` infers them from the newest messages."""
    ignore: tuple[str, ...] = ()
    """Fields that are left out on purpose, by their paths: not in a column, not in `_rescued`, and no drift."""
    partition_by: tuple[PartitionKey, ...] = ()
    """Partition keys, see below; none: the table has no partitions."""
    log_time_column: str = "log_time"
    """The column that holds the record's time where `partition_by` asks for it."""
    batch_column: Name | None = None
    """A column for the number of the batch whose records a row was made of: `replay --rewrite` can then replace it."""
    start: str = "begin_cursor"
    """`begin_cursor` (the oldest message), `end_cursor` (what comes from now on), or a time that is past (the first
    message of that time or later): `2026-03-01T08:00:00Z` or milliseconds since 1970."""
    commit_interval: Duration = Field(timedelta(minutes=5), ge=LEAST_INTERVAL)
    """How often what has arrived is committed."""
    on_drift: Literal["evolve", "rescue", "freeze", "fail"] = "rescue"
    """What a field means that no column has, or a value that does not fit: `evolve` (the table gets the column, or a
    wider one), `rescue` (kept as JSON in `_rescued`), `freeze` (a dead letter) or `fail` (the job stops)."""
    resources: Resources | None = None
    """How much memory, see below."""
    settings: dict[str, str] = Field(default_factory=dict)
    """Advanced: settings of pipelines as scripts SET them (`vector-assets.*`)."""

    @field_validator("ignore")
    @classmethod
    def _are_paths(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        try:
            for path in paths:
                parse_path(path)
        except ConfigError as error:
            raise ValueError(error.message) from None
        return paths

    @field_validator("start")
    @classmethod
    def _is_start(cls, text: str) -> str:
        if text not in _CURSORS:
            start_ms(text)
        return text

    @field_validator("partition_by")
    @classmethod
    def _have_one_time(cls, keys: tuple[PartitionKey, ...]) -> tuple[PartitionKey, ...]:
        times = [key.log_time for key in keys if key.log_time]
        if len(times) > 1:
            raise ValueError(f"log_time is given twice ({', '.join(times)}); an hour is in its day")
        return keys

    @property
    def limits(self) -> Resources:
        """How much of the machine the job may use, where something is said of it."""
        return self.resources or Resources.model_validate({})

    @property
    def log_time(self) -> LogTimeUnit | None:
        """By which unit of the record's time the table is partitioned."""
        return next((key.log_time for key in self.partition_by if key.log_time), None)


def start_ms(text: str) -> int:
    """A time to start at, in ms since 1970; without a zone it is UTC.

    Raises:
        ValueError: it is spelled otherwise.
    """
    if text.isdigit():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            "want begin_cursor, end_cursor, or a time such as 2026-03-01T08:00:00Z or milliseconds since 1970"
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)


def read(
    form: type[Form], document: Document, path: Path, owner: str, *, implied: Mapping[str, Any] | None = None,
    passed_over: Sequence[str] = (),
) -> Form:  # fmt: skip
    """A form filled in from a part of a document; `owner` (such as `job orders`) starts every message.

    `implied` are values of keys that need not be written, or, where they are `passed_over`, stand for what is written.

    Raises:
        ConfigError: at the key that is unknown or the value that is wrong, or where one is missing.
    """
    raw = document.value(path)
    if not isinstance(raw, dict):
        raise document.error(f"{owner}: want keys and values (key: value)", path)
    written = {key: value for key, value in raw.items() if value is not None and key not in passed_over}
    given = {**(implied or {}), **written}
    try:
        return form.model_validate(given)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False)
        first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
        raise _explained(form, document, path, first, owner) from None


def _explained(form: type[Options], document: Document, path: Path, error: Any, owner: str) -> ConfigError:
    inner: Path = tuple(error["loc"])
    where = (*path, *inner)
    if error["type"] == "extra_forbidden":
        return unknown_key(document, where, _keys_at(form, inner[:-1]), owner)
    shown = _shown(inner)
    if error["type"] == "missing":
        return ConfigError(f"{owner}: key {shown!r} is required", document.place_of_key(where))
    reason = str(error["msg"]).removeprefix("Value error, ")
    found = document.value(where)
    if not shown:
        return document.error(f"{owner}: {reason}", where)
    if isinstance(found, str):
        reason = f"found {found!r}; {reason}"
    return document.error(f"{owner}: {shown}: {reason}", where)


def _shown(path: Path) -> str:
    text = ""
    for part in path:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def _keys_at(form: type[Options], path: Path) -> list[str]:
    """The keys of the form that lies at a path inside of another one."""
    here: Any = form
    for part in path:
        if isinstance(part, str):
            here = _form_in(here.model_fields[part].annotation)
    known: list[str] = here.known()
    return known


def _form_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, Options):
        return annotation
    return next((found for part in get_args(annotation) if (found := _form_in(part)) is not None), None)
