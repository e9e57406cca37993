"""Options of connector `mysql-cdc`, as Flink CDC's MySQL connector spells them."""

import re
import zlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, ClassVar, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator

from vector_assets.clients.mysql import Login
from vector_assets.engine.core import Position
from vector_assets.engine.options import Duration, Flag, SourceOptions
from vector_assets.sources.mysql_tokens import SPLIT, Place

STARTUP_MODES = ("initial", "earliest-offset", "latest-offset", "specific-offset", "timestamp", "snapshot")
_SERVER_IDS = re.compile(r"(\d{1,10})(?:-(\d{1,10}))?")


def _known_mode(value: object) -> object:
    if value not in STARTUP_MODES:
        raise ValueError(f"known: {', '.join(STARTUP_MODES)}")
    return value


class MySqlCdcOptions(SourceOptions):
    """What a source table of connector `mysql-cdc` may say."""

    idle: ClassVar[Mapping[str, str]] = {
        "scan.incremental.snapshot.enabled": "snapshots are always in chunks without locks",
        "scan.snapshot.fetch.size": "a chunk is read as it comes, in blocks of 1 MB",
        "scan.incremental.close-idle-reader.enabled": "there is one reader",
        "scan.incremental.snapshot.unbounded-chunk-first.enabled": "chunks are read in the order of the key",
        "connection.pool.size": "there is one connection for questions and one that reads",
        "connect.max-retries": "SET 'vector-assets.outage.timeout' says how long a server is waited for",
    }

    connector: Literal["mysql-cdc"]
    """`mysql-cdc`."""
    hostname: str = Field(min_length=1)
    """Name or address of the server."""
    port: int = Field(3306, ge=1, le=65535)
    """Its port."""
    username: str = Field(min_length=1)
    """Who reads; needs SELECT on the tables, REPLICATION SLAVE and REPLICATION CLIENT (MariaDB: BINLOG MONITOR)."""
    password: SecretStr
    """The user's password."""
    database_name: str = Field(alias="database-name", min_length=1)
    """Regular expression of whole names of databases."""
    table_name: str = Field(alias="table-name", min_length=1)
    """Regular expression of whole names of tables; several tables that match are read as one."""
    only_tables: str | None = Field(None, alias="vector-assets.only-tables", min_length=1)
    """Full names (`database.table`) separated by commas: of the tables that match only these are read."""
    server_id: str | None = Field(None, alias="server-id")
    """Number of this reader among the server's replicas, or a range of which the first is taken; default: one between
    5400 and 6399 made from the tables' names. Two readers with one number throw each other out."""
    server_time_zone: str = Field("UTC", alias="server-time-zone")
    """Time zone in which DATETIME is declared as TIMESTAMP_LTZ, or TIMESTAMP as TIMESTAMP without time zone."""
    startup_mode: Annotated[
        Literal["initial", "earliest-offset", "latest-offset", "specific-offset", "timestamp", "snapshot"],
        BeforeValidator(_known_mode),
    ] = Field("initial", alias="scan.startup.mode")
    """Where a pipeline without a position starts: `initial` (all rows, then the binlog), `earliest-offset`,
    `latest-offset`, `specific-offset`, `timestamp`, or `snapshot` (all rows, then it is finished)."""
    specific_file: str | None = Field(None, alias="scan.startup.specific-offset.file")
    """Mode `specific-offset`: the binlog's file."""
    specific_pos: int | None = Field(None, alias="scan.startup.specific-offset.pos", ge=4)
    """Mode `specific-offset`: the position in the file, at the beginning of a transaction."""
    specific_gtids: str | None = Field(None, alias="scan.startup.specific-offset.gtid-set")
    """Mode `specific-offset`: the transactions that are not read, instead of file and position."""
    skip_events: int = Field(0, alias="scan.startup.specific-offset.skip-events", ge=0)
    """Mode `specific-offset`: events with rows of these tables to leave out of the next transaction."""
    skip_rows: int = Field(0, alias="scan.startup.specific-offset.skip-rows", ge=0)
    """Mode `specific-offset`: rows to leave out of the event after those."""
    timestamp_ms: int | None = Field(None, alias="scan.startup.timestamp-millis", ge=0)
    """Mode `timestamp`: the first transaction of this time (ms since 1970; the binlog has seconds) or a later one."""
    chunk_size: int = Field(50_000, alias="scan.incremental.snapshot.chunk.size", ge=2)
    """Most rows of a chunk of the snapshot, which is one batch (Flink CDC's default is 8096)."""
    heartbeat: Duration = Field(timedelta(seconds=30), alias="heartbeat.interval")
    """While only other tables change: how often a batch without records moves the position on."""
    connect_timeout: Duration = Field(timedelta(seconds=30), alias="connect.timeout", ge=timedelta(milliseconds=250))
    """How long a connection may take."""
    zero_dates: Literal["null", "fail"] = Field("null", alias="vector-assets.zero-dates")
    """Dates with zeros in them, which no other system has: `null`, or `fail`, which stops at the first one."""
    snapshot_enabled: Flag = Field(default=True, alias="scan.incremental.snapshot.enabled")
    """Has no effect, which is reported: snapshots are always in chunks without locks. `false` is refused."""
    fetch_size: int = Field(1024, alias="scan.snapshot.fetch.size", ge=1)
    """Has no effect, which is reported."""
    close_idle: Flag = Field(default=False, alias="scan.incremental.close-idle-reader.enabled")
    """Has no effect, which is reported."""
    unbounded_first: Flag = Field(default=False, alias="scan.incremental.snapshot.unbounded-chunk-first.enabled")
    """Has no effect, which is reported."""
    pool_size: int = Field(20, alias="connection.pool.size", ge=1)
    """Has no effect, which is reported."""
    max_retries: int = Field(3, alias="connect.max-retries", ge=0)
    """Has no effect, which is reported."""

    @field_validator("database_name", "table_name")
    @classmethod
    def _is_pattern(cls, text: str) -> str:
        try:
            re.compile(text)
        except re.error as error:
            raise ValueError(f"want a regular expression: {error}") from None
        return text

    @field_validator("server_id")
    @classmethod
    def _is_server_id(cls, text: str | None) -> str | None:
        match = _SERVER_IDS.fullmatch(text.replace(" ", "")) if text is not None else None
        if text is not None and (match is None or not 0 < int(match[1]) <= int(match[2] or match[1]) < 1 << 32):
            raise ValueError("want a number from 1 to 4294967295, such as 5400, or a range, such as 5400-5404")
        return text

    @field_validator("server_time_zone")
    @classmethod
    def _is_zone(cls, text: str) -> str:
        try:
            ZoneInfo(text)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError("want a time zone such as UTC or Asia/Shanghai") from None
        return text

    @field_validator("snapshot_enabled")
    @classmethod
    def _is_incremental(cls, flag: bool) -> bool:  # noqa: FBT001
        if not flag:
            raise ValueError("a snapshot under a lock is not built; leave it out")
        return flag

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        names = {name: field.alias or name for name, field in type(self).model_fields.items()}
        is_specific, is_timestamp = self.startup_mode == "specific-offset", self.startup_mode == "timestamp"
        specific = ("specific_file", "specific_pos", "specific_gtids", "skip_events", "skip_rows")
        for name, owner, is_owned in (
            *((name, "specific-offset", is_specific) for name in specific),
            ("timestamp_ms", "timestamp", is_timestamp),
        ):
            if not is_owned and name in self.model_fields_set:
                raise ValueError(f"option {names[name]!r} has an effect only with 'scan.startup.mode' = {owner!r}")
        if is_timestamp and self.timestamp_ms is None:
            raise ValueError("'scan.startup.mode' = 'timestamp' needs the option 'scan.startup.timestamp-millis'")
        has_file = self.specific_file is not None and self.specific_pos is not None
        if is_specific and has_file == (self.specific_gtids is not None):
            raise ValueError(
                "'scan.startup.mode' = 'specific-offset' needs either 'scan.startup.specific-offset.file' and '.pos',"
                " or 'scan.startup.specific-offset.gtid-set'"
            )
        return self

    @property
    def login(self) -> Login:
        """Where the server is and who asks."""
        seconds = self.connect_timeout.total_seconds()
        return Login(self.hostname, self.port, self.username, self.password.get_secret_value(), max(round(seconds), 1))

    @property
    def replica_id(self) -> int:
        """The number of this reader among the server's replicas."""
        if self.server_id is not None:
            return int(self.server_id.partition("-")[0])
        return 5400 + zlib.crc32(f"{self.database_name}.{self.table_name}".encode()) % 1000

    @property
    def has_snapshot(self) -> bool:
        """True when all rows are read first."""
        return self.startup_mode in {"initial", "snapshot"}

    @property
    def only(self) -> frozenset[str]:
        """Full names of the only tables that are read; empty where all that match are."""
        return frozenset(name.strip() for name in (self.only_tables or "").split(",") if name.strip())

    def origin(self) -> tuple[str, ...]:
        """`("mysql", database, table)`, as the options spell them; of tables by name that of the first."""
        return self.origins()[0]

    def origins(self) -> tuple[tuple[str, ...], ...]:
        """One for each table that is given by name, or one as the expressions are spelled."""
        named = [("mysql", *name.split(".", 1)) for name in sorted(self.only)]
        return tuple(named) or (("mysql", self.database_name, self.table_name),)

    def start_option(self) -> str:
        """The startup mode with what decides it."""
        if self.startup_mode == "timestamp":
            return f"timestamp {self.timestamp_ms}"
        if self.startup_mode == "specific-offset":
            return f"specific-offset {self.specific_gtids or f'{self.specific_file}:{self.specific_pos}'}"
        return self.startup_mode

    def is_finished(self, position: Position) -> bool:
        """True when a snapshot was all that was asked for, and it is done."""
        return Place.of(position.get(SPLIT)).done

    def reading(self) -> str:
        """The tables: records are numbered from the pipeline's own start, so other pipelines' archives are no use."""
        names = ",".join(sorted(self.only)) or f"{self.database_name}.{self.table_name}"
        return f"{self.hostname}:{self.port}/{names}"
