"""What a declaration compiles to: one source, decoder, transforms and sink under one name."""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Literal

import pyarrow as pa
from pydantic import Field, field_validator

from vector_assets.engine.aggregation import Aggregation
from vector_assets.engine.core import RAW_SCHEMA, Decoder, Sink, Source, Transform, canonical
from vector_assets.engine.creation import Creation
from vector_assets.engine.errors import Place
from vector_assets.engine.lookup import LookupOptions
from vector_assets.engine.metadata import Metadata
from vector_assets.engine.options import Duration, MemorySize, Options, SinkOptions, SourceOptions
from vector_assets.engine.schema import Column, Table

# what Dagster takes for an owner
_OWNER = re.compile(r"[A-Za-z0-9_.+%-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}|team:\S+")


class ErrorBudget(str):
    """How many rejects a batch may have: a count (`100`), or a share (`5%`) of its records, counted from 1,000 up."""

    def limit(self, records: int) -> int:
        """Rejects allowed in a batch of `records` records."""
        if self.endswith("%"):
            return int(Fraction(self[:-1]) * max(records, 1000) / 100)
        return int(self)


class PipelineSettings(Options):
    """Settings of a pipeline, by `SET 'name' = 'value';` in a script."""

    name: str | None = Field(None, alias="pipeline.name", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Name of the pipeline and of its Dagster asset; default: the file's name without its ending."""
    owners: str | None = Field(None, alias="vector-assets.owners")
    """Owners shown in the UI, separated by commas: e-mail addresses or `team:<name>`."""
    memory: MemorySize = Field(256 * 1024**2, alias="vector-assets.memory", ge=16 * 1024**2)
    """Memory for records in flight, all stages together."""
    max_rows: int = Field(50_000, alias="vector-assets.batch.max-rows", ge=1, le=(1 << 24) - 1)
    """Most records of a batch (a row's number in its batch fits 24 bits)."""
    target: Duration = Field(timedelta(seconds=2), alias="vector-assets.batch.target")
    """How long a commit should take, and the making of a batch whose texts EMBED asks a model for: batches grow and
    shrink towards it."""
    linger: Duration = Field(timedelta(milliseconds=200), alias="vector-assets.linger")
    """Continuous mode: longest wait for more records before a batch that is not full is closed (the sink's own
    time-out, where it has one, is an upper bound)."""
    error_budget: str = Field("10%", alias="vector-assets.error-budget", pattern=r"^\d+(\.\d+)?%$|^\d+$")
    """Rejects a batch may have before the pipeline stops: a count, or a share of its records (of 1,000 at least)."""
    partitions: Literal["hourly", "daily"] = Field("hourly", alias="vector-assets.partitions")
    """Length of a Dagster partition."""
    partitions_start: str = Field("2026-01-01-00:00", alias="vector-assets.partitions.start")
    """First partition, UTC, as `YYYY-MM-DD-HH:MM`; never change it under existing batches."""
    sensor_interval: Duration = Field(timedelta(seconds=5), alias="vector-assets.sensor.interval")
    """How often the sensor looks for new records."""
    lease_ttl: Duration = Field(timedelta(seconds=30), alias="vector-assets.lease.ttl")
    """A lease whose heartbeat stands still this long may be taken over."""
    lease_wait: Duration = Field(timedelta(seconds=60), alias="vector-assets.lease.wait")
    """How long a run waits for the pipeline's lease before it fails, naming the holder."""
    outage: Duration = Field(timedelta(seconds=60), alias="vector-assets.outage.timeout")
    """How long a service that cannot be reached is waited for."""
    on_position_lost: Literal["fail", "skip", "from_archive"] = Field("fail", alias="vector-assets.on-position-lost")
    """When the source no longer holds the next record (expired, deleted, made anew, cut back): `fail`; `skip`, which
    goes on after the gap; or `from_archive`, which reads what archives still hold of it and fails at the rest."""
    on_new_split: Literal["fail", "earliest"] = Field("fail", alias="vector-assets.on-new-split")
    """When the source has grown (a partition was added, another topic matches): `fail`, or `earliest`, which reads it
    from its beginning."""
    check_max_lag: int = Field(100_000, alias="vector-assets.check.max-lag", ge=0)
    """The check `lag` warns when the pipeline is more records than this behind."""
    check_max_dead_letters: int = Field(1000, alias="vector-assets.check.max-dead-letters", ge=0)
    """The check `dead_letters` warns when a dead letter is open, and is an error when more than this are."""

    state_memory: MemorySize = Field(1024**3, alias="vector-assets.state.memory", ge=64 * 1024**2)
    """Memory for the groups of a GROUP BY; what does not fit goes to temporary files."""
    retention_archive: Duration | None = Field(None, alias="vector-assets.retention.archive", gt=timedelta(0))
    """How long the archive keeps a batch's records after it is done; for ever unless set."""
    retention_ledger: Duration | None = Field(None, alias="vector-assets.retention.ledger", gt=timedelta(0))
    """How long a batch stays a row of the ledger; older ones are folded into one sum and one position, and their
    records leave the archive with them. For ever unless set."""
    retention_dead_letters: Duration | None = Field(None, alias="vector-assets.retention.dead-letters", gt=timedelta(0))
    """How long the bytes of a dead letter are kept, replayed or not; for ever unless set."""
    maintenance_schedule: str = Field(
        "43 2 * * *", alias="vector-assets.maintenance.schedule", pattern=r"^off$|^\S+( \S+){4}$"
    )
    """When Dagster keeps a lake table in order, as a cron expression in UTC; `off`: by command only."""
    maintenance_grace: Duration = Field(timedelta(hours=24), alias="vector-assets.maintenance.grace")
    """Files that no snapshot knows are removed when they are older than this; keep it longer than any batch takes."""
    maintenance_keep_snapshots: int = Field(100, alias="vector-assets.maintenance.keep-snapshots", ge=1)
    """The newest snapshots of a lake table, which never expire."""
    maintenance_keep_for: Duration = Field(timedelta(days=5), alias="vector-assets.maintenance.keep-for")
    """Snapshots younger than this never expire by maintenance."""
    maintenance_target: MemorySize = Field(
        128 * 1024**2, alias="vector-assets.maintenance.target-file-size", ge=1024**2
    )
    """Files of a lake table that are much smaller than this are compacted, to about this size."""

    @field_validator("owners")
    @classmethod
    def _are_owners(cls, text: str | None) -> str | None:
        for owner in (part.strip() for part in (text or "").split(",") if part.strip()):
            if not _OWNER.fullmatch(owner):
                raise ValueError(f"want e-mail addresses or team:<name>, separated by commas; found {owner!r}")
        return text

    @field_validator("partitions_start")
    @classmethod
    def _is_hour(cls, text: str) -> str:
        try:
            datetime.strptime(text, "%Y-%m-%d-%H:%M").replace(tzinfo=UTC)
        except ValueError:
            raise ValueError("want YYYY-MM-DD-HH:MM, for example 2026-01-01-00:00") from None
        return text


@dataclass(frozen=True, slots=True)
class Lookup:
    """A dimension table that the rows are joined with, under the name `alias`.

    `names` maps its columns to their names in the joined rows, which expressions use.
    """

    table: Table
    alias: str
    connector: str
    options: LookupOptions
    is_left: bool
    names: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Allotment:
    """What a pipeline has of a resource group: units, and the memory of a run's process that they are."""

    group: str
    units: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One source, decoder, transforms and sink under one name. Opens no connection until asked to.

    `raw_schema` is what the source reads: RAW_SCHEMA, or its typed form; `metadata` are the source table's columns that
    the source fills itself; `schema` is what the sink receives (without hidden columns); `reports` are options without
    effect outside their own runtime, one sentence each; `notes` say how the script was understood where it
    leaves that open. With an `aggregation` the last transform's rows go into groups, and what the sink receives are
    changes of the groups' rows. `creation` says what is fixed once it was created, and where its data lies; a pipeline
    that `is_idle` reads nothing by itself until somebody starts it. `embedding` are the options of the model
    that EMBED asks; `link` names the tables of a pipeline that a CALL of AutoETL declares. `allotment` is what it has
    of a resource group.
    """

    name: str
    place: Place
    description: str
    source_table: Table
    sink_table: Table
    source_connector: str
    sink_connector: str
    format: str | None
    source_options: SourceOptions
    format_options: Options | None
    sink_options: SinkOptions
    settings: PipelineSettings
    schema: pa.Schema
    transform_text: str
    decoder: Decoder
    transforms: tuple[Transform, ...]
    open_source: Callable[[], Source] = field(compare=False)
    open_sink: Callable[[], Sink] = field(compare=False)
    raw_schema: pa.Schema = RAW_SCHEMA
    metadata: tuple[tuple[Column, Metadata], ...] = ()
    reports: tuple[str, ...] = ()
    reads: Mapping[str, frozenset[str]] = field(default_factory=dict, compare=False)
    aggregation: Aggregation | None = None
    lookups: tuple[Lookup, ...] = ()
    notes: tuple[str, ...] = ()
    embedding: Options | None = None
    creation: Creation | None = None
    is_idle: bool = False
    link: str | None = None
    allotment: Allotment | None = None

    @property
    def target(self) -> str:
        """Full name of the object it writes."""
        return self.sink_options.target()

    @property
    def claims(self) -> dict[str, str]:
        """What no other pipeline may have: the name, and the target unless it keeps nothing."""
        return {"name": self.name} | ({} if self.sink_options.is_shared else {"target": self.target})

    @property
    def columns(self) -> str:
        """Names and types of the sink table's columns; another text is another schema version."""
        return canonical([[column.name, str(column.type)] for column in self.sink_table.columns])

    @property
    def budget(self) -> ErrorBudget:
        """Rejects a batch may have."""
        return ErrorBudget(self.settings.error_budget)

    @property
    def fingerprint(self) -> str:
        """Changes when the declaration's meaning does; part of the code version of every batch."""
        parts = [
            self.transform_text,
            str(self.schema),
            [str(column) for column in self.source_table.columns],
            self.source_options.shown(),
            self.format_options.shown() if self.format_options else None,
            self.sink_options.shown(),
            *([each.alias, str(each.table.columns), each.options.shown()] for each in self.lookups),
            *([self.embedding.shown()] if self.embedding is not None else ()),
        ]
        return hashlib.sha256(canonical(parts).encode()).hexdigest()[:12]
