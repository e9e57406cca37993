"""How a table of the target is read: what kinds of `source:` give a CDC pipeline, and that of a MySQL."""

import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa

from vector_assets.clients.mysql import Login, MySql
from vector_assets.clients.mysql_schema import MySqlTable, discover, table_names, untold
from vector_assets.declare.cdc_form import CaptureForm, MySqlCaptureOptions
from vector_assets.declare.flink_options import Secrets, fill_texts, parse
from vector_assets.declare.yaml_text import Document
from vector_assets.engine.captured import CAPTURED_SCHEMA
from vector_assets.engine.captures import CapturedTable
from vector_assets.engine.core import Decoder, Source
from vector_assets.engine.errors import ConfigError, Place
from vector_assets.engine.metadata import Metadata
from vector_assets.engine.options import Options, SourceOptions
from vector_assets.engine.registry import nearest
from vector_assets.engine.schema import Column, LogicalType, Table
from vector_assets.formats.captured import CapturedDecoder
from vector_assets.formats.captured_plan import Behavior
from vector_assets.sources.mysql import MySqlCdcSource
from vector_assets.sources.mysql_metadata import METADATA
from vector_assets.sources.mysql_options import MySqlCdcOptions

TIME = LogicalType("TIME", 0)
_SERVER_IDS = re.compile(r"(\d{1,10})(?:-(\d{1,10}))?")
_LEAST_SERVER_ID = 6400
"""Flink CDC and `mysql-cdc` take numbers below by themselves."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is read into a table of the target: source tables, their columns together, and the metadata that is used.

    `number` is that of the pipeline in its file, `name` its name; `stored` maps a type to that of the target's column.
    """

    name: str
    number: int
    tables: tuple[CapturedTable, ...]
    columns: tuple[Column, ...]
    used: tuple[Column, ...]
    behavior: Behavior
    stored: Callable[[LogicalType], LogicalType]


@dataclass(frozen=True, slots=True)
class TableReading:
    """The source's half of a pipeline; `open_source` takes the source table."""

    connector: str
    options: SourceOptions
    decoder: Decoder
    raw_schema: pa.Schema
    open_source: Callable[[Table], Source]
    metadata: tuple[tuple[Column, Metadata], ...] = ()
    format: str | None = None
    format_options: Options | None = None
    reports: tuple[str, ...] = ()


class Reading(ABC):
    """The `source:` of a file, before it is known which tables there are."""

    form: CaptureForm
    restart: str = "initial"
    """Where a pipeline is moved that is to read all rows anew."""

    @property
    @abstractmethod
    def where(self) -> str:
        """What is asked for tables, for people."""

    @abstractmethod
    def discover(self, connect_seconds: int | None = None) -> list[CapturedTable]:
        """The wanted tables that are there now, each with its columns and its key.

        Raises:
            VectorAssetsError: the server does not answer, or refuses us.
        """

    @abstractmethod
    def names(self) -> list[str]:
        """Full names of all tables that there are, wanted or not: what is shown where none is wanted.

        Raises:
            VectorAssetsError: see `discover`.
        """

    @property
    def tells_all(self) -> bool:
        """A table that a look does not find is gone."""
        return True

    @abstractmethod
    def of(self, wanted: Wanted) -> TableReading:
        """The reading of exactly these tables.

        Raises:
            ConfigError: at the option that is wrong.
        """


def check_options(
    document: Document, kind: str, texts: Mapping[str, str], known: Sequence[str], prefixes: tuple[str, ...] = ()
) -> None:
    """Make sure that every option of `source:` is known, or begins with one of the prefixes.

    Raises:
        ConfigError: at the first one that is not.
    """
    for name in texts:
        if name not in known and not name.startswith(prefixes):
            listed = sorted({*known, *(f"{prefix}*" for prefix in prefixes)})
            what = f"source {kind}: unknown option {name!r}{nearest(name, listed)}; known options: {', '.join(listed)}"
            path = (name,) if document.value(("source", name)) is not None else tuple(name.split("."))
            raise ConfigError(what, document.place_of_key(("source", *path)))


class MySqlReading(Reading):
    """Tables of a MySQL; `texts` are options of `mysql-cdc` as they are written."""

    def __init__(
        self, document: Document, form: MySqlCaptureOptions, texts: Mapping[str, str], places: dict[str, Place],
        secrets: Secrets, *, offline: bool,
    ) -> None:  # fmt: skip
        """Keep what is written.

        Raises:
            ConfigError: at the option that is wrong.
        """
        self._document, self.form, self._texts, self._places = document, form, texts, places
        self._secrets, self._offline = secrets, offline
        self._options(".*", ".*", None, None)

    @property
    def options(self) -> MySqlCdcOptions:
        """The options of a source of every table there is."""
        return self._options(".*", ".*", None, None)

    @property
    def where(self) -> str:
        """The server."""
        return self.options.login.where

    def of(self, wanted: Wanted) -> TableReading:
        """The source of exactly these tables, under a number of its own among the server's replicas."""
        databases = "|".join(sorted({re.escape(table.database) for table in wanted.tables}))
        tables = "|".join(sorted({re.escape(table.table) for table in wanted.tables}))
        only = ",".join(table.name for table in wanted.tables)
        options = self._options(databases, tables, only, self._server_id(wanted))
        return TableReading(
            "mysql-cdc", options,
            CapturedDecoder(wanted.columns, wanted.behavior, is_merged=len(wanted.tables) > 1), CAPTURED_SCHEMA,
            partial(_mysql, options, wanted.name, times_as_text=wanted.stored(TIME) != TIME),
            tuple((column, METADATA[str(column.metadata_key)]) for column in wanted.used),
            reports=tuple(options.reports()),
        )  # fmt: skip

    def discover(self, connect_seconds: int | None = None) -> list[CapturedTable]:
        """The tables of the server."""
        login = self.options.login
        if connect_seconds is not None:
            seconds = min(connect_seconds, login.connect_seconds)
            login = Login(login.host, login.port, login.user, login.password, seconds)
        with closing(MySql(login)) as server:
            return [_captured(table) for table in discover(server, ".*", ".*", self.form.wants)]

    def names(self) -> list[str]:
        """Every table of the server that is no system's."""
        with closing(MySql(self.options.login)) as server:
            return table_names(server)

    def _server_id(self, wanted: Wanted) -> str:
        """Two readers of one number throw each other out, so each pipeline has its own."""
        number, written = wanted.number, self._texts.get("server-id")
        if written is None:
            spread = (1 << 32) - 1 - _LEAST_SERVER_ID
            return str(_LEAST_SERVER_ID + zlib.crc32(wanted.name.encode()) % spread)
        match = _SERVER_IDS.fullmatch(written)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if match is not None and first + number > last:
            raise self._document.error(
                f"source: server-id {written} has {last - first + 1} numbers; every table of the target reads the"
                f" binlog by itself, so at least {number + 1} are wanted: give a longer range, or leave it out",
                ("source", "server-id"),
            )
        return str(first + number)

    def _options(self, database: str, table: str, only: str | None, server_id: str | None) -> MySqlCdcOptions:
        given = {"connector": "mysql-cdc", "database-name": database, "table-name": table}
        if only is not None:
            given["vector-assets.only-tables"] = only
        if server_id is not None:
            given["server-id"] = server_id
        written = fill_texts(dict(self._texts) | given, self._places, self._secrets, offline=self._offline)
        options: MySqlCdcOptions = parse(MySqlCdcSource, written, "source mysql")
        return options


def _mysql(options: MySqlCdcOptions, pipeline: str, table: Table, *, times_as_text: bool) -> Source:
    return MySqlCdcSource(options, table, pipeline=pipeline, follows=True, times_as_text=times_as_text)


def _captured(table: MySqlTable) -> CapturedTable:
    columns, left_out = [], []
    for each in table.columns:
        kind = each.logical
        if kind is None:
            left_out.append(f"{each.name} ({each.full_type})")
            continue
        # what is not of the key may be null: dates with zeros in them are, and columns that are dropped later
        columns.append(
            Column(each.name, replace(kind, nullable=each.name not in table.key), comment=each.comment or None)
        )
    return CapturedTable(
        table.full_name, tuple(columns), table.key, table.comment or None, tuple(left_out),
        untold=tuple(untold(key, table.full_name) for key in table.cascades),
    )  # fmt: skip
