"""Single tables of a Flink SQL script: each as a source or as a sink by itself, whatever the script INSERTs.

What a table reads is compiled as `INSERT INTO <a table of the same columns> SELECT * FROM <it>`, so that a row is the
one that a pipeline over the same table would get.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pyarrow as pa
from sqlglot import exp

from vector_assets.declare.flink_connectors import SourceEnd, check_connector, connector_of, sink_end, source_end
from vector_assets.declare.flink_options import Secrets, check_placeholders
from vector_assets.declare.flink_script import Script, hint
from vector_assets.declare.flink_select import query_of, select, source_of
from vector_assets.declare.flink_sql import shown_path
from vector_assets.declare.flink_tables import Declared, declare
from vector_assets.declare.flink_translator import PROCTIME
from vector_assets.engine.core import Decoder, Sink, Source, Transform
from vector_assets.engine.errors import ConfigError, Place
from vector_assets.engine.metadata import Metadata
from vector_assets.engine.options import Options, SinkOptions, SourceOptions
from vector_assets.engine.schema import Column, Table
from vector_assets.sinks import SINKS
from vector_assets.sources import SOURCES
from vector_assets.transforms.sql import SqlTransform

_NAME = "api"
"""What connectors are told that the pipeline is called."""


@dataclass(frozen=True, slots=True)
class TableReader:
    """A source table by itself. `schema` holds all its columns; nothing is contacted until `open` is called."""

    table: Table
    options: SourceOptions
    schema: pa.Schema
    raw_schema: pa.Schema
    decoder: Decoder
    metadata: tuple[tuple[Column, Metadata], ...]
    transforms: tuple[Transform, ...]
    open: Callable[[], Source] = field(compare=False)
    reports: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TableWriter:
    """A sink table by itself; nothing is contacted until `open` is called."""

    table: Table
    options: SinkOptions
    open: Callable[[], Sink] = field(compare=False)
    reports: tuple[str, ...] = ()


class TableScript:
    """The tables of a script, each compiled when it is asked for: the others' options and secrets are not looked at."""

    def __init__(self, text: str, file: str, secrets: Secrets) -> None:
        """Read the script; nothing is contacted.

        Raises:
            ConfigError: at the first statement that is no Flink SQL, or a column, key or watermark that is wrong.
        """
        self._script = Script(text, file)
        self._secrets = secrets
        self.tables: dict[str, Declared] = {}
        for statement in self._script.statements():
            if not isinstance(statement.node, exp.Create):
                continue
            try:
                table = declare(self._script, statement)
            except RecursionError:
                raise self._script.error("this statement is nested too deeply", statement.start) from None
            other = self.tables.setdefault(table.name, table)
            if other is not table:
                raise ConfigError(f"table {table.name} is declared twice, first at {other.place}", table.place)
        if not self.tables:
            raise ConfigError("no CREATE TABLE: the script declares no table", Place(file))

    def reader(self, name: str) -> TableReader:
        """A table as a source.

        Raises:
            ConfigError: there is no such table, its connector is no source, or an option is wrong.
        """
        table = self._table(name, "source", SOURCES)
        end = source_end(self._script, table, self._secrets, offline=False)
        transform, schema = _every_column(table, self._script.file)
        return TableReader(
            table=table.table, options=end.options, schema=schema, raw_schema=end.raw_schema, decoder=end.decoder,
            metadata=end.metadata, transforms=(transform,),
            open=partial(end.make, end.options, table.table, pipeline=_NAME), reports=_reports(table, end),
        )  # fmt: skip

    def writer(self, name: str) -> TableWriter:
        """A table as a sink.

        Raises:
            ConfigError: there is no such table, its connector is no sink, or an option is wrong.
        """
        table = self._table(name, "sink", SINKS)
        end = sink_end(self._script, table, self._secrets, offline=False)
        make = partial(end.make, end.options, table.table, pipeline=_NAME)
        return TableWriter(table.table, end.options, make, (*table.reports, *_without_effect(table, end.options)))

    def _table(self, name: str, role: str, registry: dict[str, str]) -> Declared:
        table = self.tables.get(name)
        if table is None:
            known = ", ".join(self.tables)
            raise ConfigError(
                f"table {name} is not declared{hint(name, self.tables)}; declared: {known}", Place(self._script.file)
            )
        check_connector(self._script, table)
        if connector_of(table) not in registry:
            listed = ", ".join(sorted(registry))
            what = f"table {name} has connector {connector_of(table)!r}, which cannot be a {role}"
            raise ConfigError(f"{what}; connectors that can: {listed}", table.place)
        check_placeholders(self._script, [table])
        return table


def load_tables(path: Path, secrets: Secrets) -> TableScript:
    """The tables of a `*.sql` file.

    Raises:
        ConfigError: as `TableScript`, or the file cannot be read.
    """
    file = shown_path(path)
    if path.suffix != ".sql":
        raise ConfigError("not a Flink SQL script; known endings: .sql", Place(file))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", Place(file)) from error
    return TableScript(text, file, secrets)


def _every_column(table: Declared, file: str) -> tuple[SqlTransform, pa.Schema]:
    """The transform of a SELECT of every column into a table of the same columns, and that table's schema.

    A column computed AS PROCTIME() is the time of a lookup join, and no value.
    """
    columns = tuple(
        replace(column, kind="physical", expression=None, metadata_key=None)
        for column in table.table.columns
        if table.computed.get(column.name) is not PROCTIME
    )
    twin = replace(table, table=replace(table.table, columns=columns), computed={})
    name, *listed = ("`" + each.replace("`", "``") + "`" for each in (table.name, *(c.name for c in columns)))
    script = Script(f"INSERT INTO {name} SELECT {', '.join(listed)} FROM {name}", file)
    (statement,) = script.statements()
    query = query_of(script, statement.node)
    _, alias = source_of(script, query)
    selection = select(script, statement.node, query, alias, table, twin)
    schema = twin.table.schema
    return SqlTransform(selection.projections, "source", None, schema, key=table.table.primary_key), schema


def _reports(table: Declared, end: SourceEnd) -> tuple[str, ...]:
    return (*table.reports, *_without_effect(table, end.options), *_without_effect(table, end.format_options))


def _without_effect(table: Declared, options: Options | None) -> tuple[str, ...]:
    reports = options.reports() if options else ()
    return tuple(f"{table.place}: table {table.name}: {report}" for report in reports)
