"""A Flink CDC YAML file: one pipeline for every table of the target, over exactly the tables that are routed to it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from vector_assets.declare.cdc_file import check_keys, items, pipeline_form, reading_of
from vector_assets.declare.cdc_form import METADATA_NAMES, CaptureForm, Route, TransformRule, names_of
from vector_assets.declare.cdc_names import Place as Target
from vector_assets.declare.cdc_names import TablePatterns, routed
from vector_assets.declare.cdc_reading import Reading, TableReading, Wanted
from vector_assets.declare.cdc_select import Projected, ProjectionTransform, Written, project
from vector_assets.declare.cdc_sinks import CdcSink, TableEnd, sink_of
from vector_assets.declare.flink_options import Secrets
from vector_assets.declare.lake_form import read
from vector_assets.declare.yaml_text import Document
from vector_assets.engine import env
from vector_assets.engine.captures import CapturedTable
from vector_assets.engine.core import Transform
from vector_assets.engine.errors import ConfigError, Place
from vector_assets.engine.pipeline import Pipeline, PipelineSettings
from vector_assets.engine.schema import Column, LogicalType, Table
from vector_assets.engine.widening import common
from vector_assets.formats.captured_plan import Behavior
from vector_assets.transforms.changes import InsertsOnly, SoftDelete

_TEXT = LogicalType("VARCHAR", nullable=False)
_SPOKEN: Mapping[str, tuple[str, LogicalType]] = {
    "__namespace_name__": ("database_name", _TEXT),
    "__schema_name__": ("database_name", _TEXT),
    "__table_name__": ("table_name", _TEXT),
    "__data_event_type__": ("row_kind", _TEXT),
    "op_ts": ("op_ts", LogicalType("BIGINT", nullable=False)),
}
"""Metadata in expressions: the key of the source, and the type. A MySQL database is namespace and schema at once: Flink
CDC's documents say the one, its code the other."""


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
        check_keys(document)
        self.form, self._settings, self._setting_places = pipeline_form(document)
        self.routes = [read(Route, document, ("route", number), "route") for number in items(document, "route")]
        self.rules = [
            read(TransformRule, document, ("transform", number), "transform") for number in items(document, "transform")
        ]
        self.reading: Reading = reading_of(document, secrets, offline=offline)
        self.sink: CdcSink = sink_of(document, secrets, offline=offline)
        PipelineSettings.parse(self._settings, "pipeline", self._setting_places)
        of_tables = {name: text for rule in self.rules for name, text in rule.options.items() if name != "comment"}
        self.sink.check(of_tables)

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
    def source(self) -> CaptureForm:
        """What `source:` says of its tables."""
        return self.reading.form

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
        used = tuple(written.metadata[each] for each in found.used)
        name = self.pipeline_name(group.target)
        reading = self.reading.of(Wanted(name, number, group.tables, columns, used, self.behavior, self.sink.stored))
        made = _Made(
            name, form.description or comment or "",
            Table(first.table, (*columns, *used), first.key, comment=first.comment, place=self.place),
            Table(group.target.table, found.columns, found.key, comment=comment, place=self.place),
            reading, end,
            (projection, *self._of_changes(form, found.columns, is_keyed=bool(found.key))),
        )  # fmt: skip
        return self._assembled(made, found, self._reports(group, (*reading.reports, *end.reports)))

    def _assembled(self, made: "_Made", found: Projected, reports: tuple[str, ...]) -> Pipeline:
        settings = {**self._settings, "pipeline.name": made.name}
        return Pipeline(
            name=made.name,
            place=self.place,
            description=made.description,
            source_table=made.source_table,
            sink_table=made.sink_table,
            source_connector=made.reading.connector,
            sink_connector=made.end.connector,
            format=made.reading.format,
            source_options=made.reading.options,
            format_options=made.reading.format_options,
            sink_options=made.end.options,
            settings=PipelineSettings.parse(settings, "pipeline", self._setting_places),
            schema=found.schema,
            transform_text=found.selection.text,
            decoder=made.reading.decoder,
            transforms=made.transforms,
            raw_schema=made.reading.raw_schema,
            metadata=made.reading.metadata,
            reads=found.selection.reads,
            notes=found.selection.notes,
            open_source=partial(made.reading.open_source, made.source_table),
            open_sink=partial(made.end.make, made.end.options, made.sink_table, pipeline=made.name),
            reports=reports,
        )

    @property
    def behavior(self) -> Behavior:
        """What becomes of columns that change."""
        return self.form.behavior if self.source.follows else "ignore"

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

    def _reports(self, group: Group, of_ends: Sequence[str]) -> tuple[str, ...]:
        """What has no effect; the columns that cannot be read are said as well."""
        left_out = (
            f"column {column} of table {table.name} cannot be read and is left out"
            for table in group.tables
            for column in table.left_out
        )
        untold = (what for table in group.tables for what in table.untold)
        found = (*self.form.reports(), *self.source.reports(), *of_ends, *left_out, *untold)
        return tuple(f"{self.place}: CDC pipeline {self.name}: {report}" for report in found)


@dataclass(frozen=True, slots=True)
class _Made:
    """The parts of a pipeline before they are put together."""

    name: str
    description: str
    source_table: Table
    sink_table: Table
    reading: TableReading
    end: TableEnd
    transforms: tuple[Transform, ...]


_EVERYTHING = TransformRule.model_validate({"source-table": "none.none"})
"""The transform of tables that none is for."""


def _difference(one: CapturedTable, other: CapturedTable) -> str | None:
    """Why two tables cannot go into one target, None where they can: of columns the target has all."""
    if one.key != other.key:
        return f"and have the keys ({', '.join(one.key)}) and ({', '.join(other.key)})"
    return None
