"""A Flink CDC YAML file: one pipeline for every table of the target, over exactly the tables that are routed to it."""

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from vector_assets.declare.cdc_file import check_keys, items, pipeline_form, source_form
from vector_assets.declare.cdc_form import (
    METADATA_NAMES,
    Route,
    TransformRule,
    names_of,
)
from vector_assets.declare.cdc_names import Place as Target
from vector_assets.declare.cdc_names import TablePatterns, routed
from vector_assets.declare.cdc_select import Projected, ProjectionTransform, Written, project
from vector_assets.declare.cdc_sinks import CdcSink, TableEnd, sink_of
from vector_assets.declare.flink_options import Secrets, fill_texts, parse
from vector_assets.declare.lake_form import read
from vector_assets.declare.yaml_text import Document
from vector_assets.engine import env
from vector_assets.engine.captured import CAPTURED_SCHEMA
from vector_assets.engine.captures import CapturedTable
from vector_assets.engine.core import Decoder, Transform
from vector_assets.engine.errors import ConfigError, Place
from vector_assets.engine.metadata import Metadata
from vector_assets.engine.pipeline import Pipeline, PipelineSettings
from vector_assets.engine.schema import Column, LogicalType, Table
from vector_assets.engine.widening import common
from vector_assets.formats.captured import CapturedDecoder
from vector_assets.formats.captured_plan import Behavior
from vector_assets.sources.mysql import MySqlCdcSource
from vector_assets.sources.mysql_metadata import METADATA
from vector_assets.sources.mysql_options import MySqlCdcOptions
from vector_assets.transforms.changes import InsertsOnly, SoftDelete

_TEXT = LogicalType("VARCHAR", nullable=False)
_TIME = LogicalType("TIME", 0)
_SPOKEN: Mapping[str, tuple[str, LogicalType]] = {
    "__namespace_name__": ("database_name", _TEXT),
    "__schema_name__": ("database_name", _TEXT),
    "__table_name__": ("table_name", _TEXT),
    "__data_event_type__": ("row_kind", _TEXT),
    "op_ts": ("op_ts", LogicalType("BIGINT", nullable=False)),
}
"""Metadata in expressions: the key of the source, and the type. A MySQL database is namespace and schema at once: Flink
CDC's documents say the one, its code the other."""
_SERVER_IDS = re.compile(r"(\d{1,10})(?:-(\d{1,10}))?")
_LEAST_SERVER_ID = 6400
"""Flink CDC and `mysql-cdc` take numbers below by themselves."""


@dataclass(frozen=True, slots=True)
class Group:
    """The tables that are read into one target, by the order in which they were found."""

    target: Target
    tables: tuple[CapturedTable, ...]

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the sink said when the first of them was found."""
        return self.tables[0].facts


class Capture:
    """A CDC pipeline as its file says, before it is known which tables there are. Nothing is contacted."""

    def __init__(self, document: Document, *, secrets: Secrets = env.secret, offline: bool = False) -> None:
        """Read everything but expressions, whose columns are those of tables.

        Raises:
            ConfigError: at the key or the value that is wrong.
        """
        self.document = document
        self._secrets, self._offline = secrets, offline
        check_keys(document)
        self.form, self._settings, self._setting_places = pipeline_form(document)
        self.routes = [read(Route, document, ("route", number), "route") for number in items(document, "route")]
        self.rules = [
            read(TransformRule, document, ("transform", number), "transform") for number in items(document, "transform")
        ]
        self.source, self._mysql, self._source_places = source_form(document, secrets, offline=offline)
        self.sink: CdcSink = sink_of(document, secrets, offline=offline)
        PipelineSettings.parse(self._settings, "pipeline", self._setting_places)

    @cached_property
    def name(self) -> str:
        """The name that those of its pipelines begin with."""
        written = self.form.name or Path(self.document.file).name.partition(".")[0]
        name = re.sub(r"[^A-Za-z0-9_]", "_", written).strip("_") or "cdc"
        return name if not name[0].isdigit() else f"cdc_{name}"

    @property
    def place(self) -> Place:
        """Where it begins."""
        return self.document.place

    @property
    def mysql(self) -> MySqlCdcOptions:
        """The options of a source of every table there is."""
        return self._mysql_options(".*", ".*", None, None)

    def targets_of(self, table: CapturedTable) -> list[Target]:
        """Where a table's rows go.

        Raises:
            ConfigError: a route makes no name of it.
        """
        try:
            return routed([route.rule for route in self.routes], table.database, table.table)
        except ValueError as error:
            raise self.document.error(f"route: table {table.name}: {error}", ("route",)) from None

    def groups(self, tables: Sequence[CapturedTable]) -> list[Group]:
        """The tables that are wanted and read, by their targets, in the order in which they were found."""
        found: dict[Target, list[CapturedTable]] = {}
        for table in tables:
            if table.waits is None and self.source.wants(table.database, table.table):
                for target in self.targets_of(table):
                    found.setdefault(target, []).append(table)
        return [Group(target, tuple(members)) for target, members in found.items()]

    def pipeline_name(self, target: Target) -> str:
        """The name of the pipeline of a target."""
        return f"{self.name}_{target.identifier}"

    def refusal(self, groups: Sequence[Group]) -> str | None:
        """Why these cannot stand beside each other, None where they can."""
        names: dict[str, Target] = {}
        for group in groups:
            name = self.pipeline_name(group.target)
            other = names.setdefault(name.lower(), group.target)
            if other != group.target:
                return (
                    f"tables {other} and {group.target} of the target would both be pipeline {name}: route one of them"
                )
        if groups and not self.sink.has_databases(groups[0].facts):
            databases = sorted({group.target.database for group in groups if group.target.database})
            if len(databases) > 1:
                return (
                    f"sink {self.sink.type} keeps the tables of one database (here without schemas, or one is named),"
                    f" found {', '.join(databases)}: give each a file of its own, or route their tables to one database"
                )
        for group in groups:
            first, *rest = group.tables
            for other_table in rest:
                if (different := _difference(first, other_table)) is not None:
                    return f"tables {first.name} and {other_table.name} go to {group.target}, {different}"
        return None

    def pipelines(self, tables: Sequence[CapturedTable], only: CapturedTable | None = None) -> list[Pipeline]:
        """One for each target of the known tables, or of one of them.

        Raises:
            ConfigError: at the expression, the option or the route that is wrong.
        """
        groups = self.groups(tables)
        why = self.refusal(groups)
        if why is not None:
            raise self.document.error(f"CDC pipeline {self.name}: {why}", ("route",))
        chosen = [(number, group) for number, group in enumerate(groups) if only is None or only in group.tables]
        return [self._pipeline(group, number) for number, group in chosen]

    def rule_of(self, group: Group) -> tuple[int, TransformRule] | None:
        """The transform that is for the tables of a target, with its place in the list.

        Raises:
            ConfigError: several match a table, or not all tables have the same.
        """
        found: dict[int, str] = {}
        for table in group.tables:
            mine = [
                number
                for number, rule in enumerate(self.rules)
                if TablePatterns(rule.source_table).matches(table.database, table.table)
            ]
            if len(mine) > 1:
                what = f"table {table.name} has several transforms: tell rows apart by CASE in one projection instead"
                raise self.document.error(f"transform: {what}", ("transform", mine[1]))
            found.setdefault(mine[0] if mine else -1, table.name)
        if len(found) > 1:
            what = f"tables {' and '.join(found.values())} go to {group.target} by different transforms"
            raise self.document.error(f"transform: {what}: write one for both", ("transform", max(found)))
        number = next(iter(found))
        return None if number < 0 else (number, self.rules[number])

    def _written(self, group: Group, rule: tuple[int, TransformRule] | None) -> Written:
        path, form = (("source",), _EVERYTHING) if rule is None else (("transform", rule[0]), rule[1])
        wanted = {*names_of(self.source.metadata), *(name for name in _SPOKEN if name not in METADATA_NAMES)}
        metadata = {
            name: Column(name, kind, "metadata", metadata_key=key)
            for name, (key, kind) in _SPOKEN.items()
            if name in wanted
        }
        return Written(
            self.document, path, form.projection or r"\*", form.filter, group.tables[0].key,
            names_of(form.primary_keys) or None, metadata, self.sink.stored,
            names_of(form.partition_keys) if self.sink.texts_partition else (),
        )  # fmt: skip

    def _pipeline(self, group: Group, number: int) -> Pipeline:
        rule = self.rule_of(group)
        form = _EVERYTHING if rule is None else rule[1]
        first = group.tables[0]
        columns = self._columns(group)
        written = self._written(group, rule)
        projection = ProjectionTransform(written, first.table, project(written, first.table, columns))
        found = projection.projected
        self._check_partition(form, [column.name for column in found.columns], rule)
        more = dict(form.options)
        comment = more.pop("comment", None) or first.comment
        end = self.sink.end(
            group.target, group.facts, is_keyed=bool(found.key), partition=names_of(form.partition_keys), more=more
        )
        self._check_changes(end.options.refusal_of_changes() if found.key else None, group)
        source_columns = (*columns, *(written.metadata[each] for each in found.used))
        made = _Made(
            self.pipeline_name(group.target), form.description or comment or "",
            Table(first.table, source_columns, first.key, comment=first.comment, place=self.place),
            Table(group.target.table, found.columns, found.key, comment=comment, place=self.place),
            self._reading(group, number), end,
            (projection, *self._of_changes(form, found.columns, is_keyed=bool(found.key))),
            CapturedDecoder(columns, self.behavior, is_merged=len(group.tables) > 1),
            tuple((written.metadata[each], METADATA[_SPOKEN[each][0]]) for each in found.used),
        )  # fmt: skip
        return self._assembled(made, found, self._reports(group, end.reports))

    def _assembled(self, made: "_Made", found: Projected, reports: tuple[str, ...]) -> Pipeline:
        settings = {**self._settings, "pipeline.name": made.name}
        return Pipeline(
            name=made.name,
            place=self.place,
            description=made.description,
            source_table=made.source_table,
            sink_table=made.sink_table,
            source_connector="mysql-cdc",
            sink_connector=made.end.connector,
            format=None,
            source_options=made.mysql,
            format_options=None,
            sink_options=made.end.options,
            settings=PipelineSettings.parse(settings, "pipeline", self._setting_places),
            schema=found.schema,
            transform_text=found.selection.text,
            decoder=made.decoder,
            transforms=made.transforms,
            raw_schema=CAPTURED_SCHEMA,
            metadata=made.metadata,
            reads=found.selection.reads,
            notes=found.selection.notes,
            open_source=partial(
                MySqlCdcSource,
                made.mysql,
                made.source_table,
                pipeline=made.name,
                follows=True,
                times_as_text=self.sink.stored(_TIME) != _TIME,
            ),
            open_sink=partial(made.end.make, made.end.options, made.sink_table, pipeline=made.name),
            reports=reports,
        )

    @property
    def behavior(self) -> Behavior:
        """What becomes of columns that change."""
        return self.form.behavior if self.source.follows_ddl else "ignore"

    def _columns(self, group: Group) -> tuple[Column, ...]:
        """The columns of the tables together, each of the type that holds those of all.

        A TIME that becomes a text is one from the beginning, because MySQL's may be negative.
        """
        found: dict[str, Column] = {}
        for table in group.tables:
            for column in table.columns:
                kind = self.sink.stored(column.type) if column.type.name == "TIME" else column.type
                known = found.setdefault(column.name.lower(), replace(column, type=kind))
                found[column.name.lower()] = replace(known, type=common(known.type, kind))
        return tuple(found.values())

    def _of_changes(self, form: TransformRule, columns: Sequence[Column], *, is_keyed: bool) -> tuple[Transform, ...]:
        soft = (SoftDelete(columns),) if form.converter is not None else ()
        keeps_changes = self.sink.type in {"print", "blackhole"} or self.form.keyless == "fail"
        return soft if is_keyed or keeps_changes else (*soft, InsertsOnly(columns))

    def _check_partition(
        self, form: TransformRule, columns: Sequence[str], rule: tuple[int, TransformRule] | None
    ) -> None:
        for name in names_of(form.partition_keys):
            if name not in columns and rule is not None:
                known = ", ".join(columns)
                raise self.document.error(
                    f"transform: partition-keys: no column {name}; known: {known}",
                    ("transform", rule[0], "partition-keys"),
                )

    def _check_changes(self, refusal: tuple[str, str] | None, group: Group) -> None:
        if refusal is not None:
            option, remedy = refusal
            what = f"sink: table {group.target} gets updates and deletes, {remedy}"
            raise ConfigError(what, self.document.place_of(("sink", option)))

    def _reading(self, group: Group, number: int) -> MySqlCdcOptions:
        """The source of exactly these tables, under a number of its own among the server's replicas."""
        databases = "|".join(sorted({re.escape(table.database) for table in group.tables}))
        tables = "|".join(sorted({re.escape(table.table) for table in group.tables}))
        only = ",".join(table.name for table in group.tables)
        return self._mysql_options(databases, tables, only, self._server_id(group, number))

    def _server_id(self, group: Group, number: int) -> str:
        """Two readers of one number throw each other out, so each pipeline has its own."""
        written = self._mysql.get("server-id")
        if written is None:
            spread = (1 << 32) - 1 - _LEAST_SERVER_ID
            return str(_LEAST_SERVER_ID + zlib.crc32(self.pipeline_name(group.target).encode()) % spread)
        match = _SERVER_IDS.fullmatch(written)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if match is not None and first + number > last:
            raise self.document.error(
                f"source: server-id {written} has {last - first + 1} numbers; every table of the target reads the"
                f" binlog by itself, so at least {number + 1} are wanted: give a longer range, or leave it out",
                ("source", "server-id"),
            )
        return str(first + number)

    def _mysql_options(self, database: str, table: str, only: str | None, server_id: str | None) -> MySqlCdcOptions:
        given = {"connector": "mysql-cdc", "database-name": database, "table-name": table}
        if only is not None:
            given["vector-assets.only-tables"] = only
        if server_id is not None:
            given["server-id"] = server_id
        written = fill_texts(self._mysql | given, self._source_places, self._secrets, offline=self._offline)
        options: MySqlCdcOptions = parse(MySqlCdcSource, written, "source mysql")
        return options

    def _reports(self, group: Group, of_sink: Sequence[str]) -> tuple[str, ...]:
        """What has no effect; the columns that cannot be read are said as well."""
        left_out = (
            f"column {column} of table {table.name} cannot be read and is left out"
            for table in group.tables
            for column in table.left_out
        )
        found = (*self.form.reports(), *self.source.reports(), *self._reading(group, 0).reports(), *of_sink, *left_out)
        return tuple(f"{self.place}: CDC pipeline {self.name}: {report}" for report in found)


@dataclass(frozen=True, slots=True)
class _Made:
    """The parts of a pipeline before they are put together."""

    name: str
    description: str
    source_table: Table
    sink_table: Table
    mysql: MySqlCdcOptions
    end: TableEnd
    transforms: tuple[Transform, ...]
    decoder: Decoder
    metadata: tuple[tuple[Column, Metadata], ...]


_EVERYTHING = TransformRule.model_validate({"source-table": "none.none"})
"""The transform of tables that none is for."""


def _difference(one: CapturedTable, other: CapturedTable) -> str | None:
    """Why two tables cannot go into one target, None where they can: of columns the target has all."""
    if one.key != other.key:
        return f"and have the keys ({', '.join(one.key)}) and ({', '.join(other.key)})"
    return None
