"""Flink SQL scripts to pipelines: one pipeline per INSERT INTO ... SELECT."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from sqlglot import exp

from vector_assets.declare.flink_connectors import check_connector, sink_end, source_end
from vector_assets.declare.flink_options import Secrets, check_placeholders, registry_name
from vector_assets.declare.flink_script import Script, Statement, hint
from vector_assets.declare.flink_select import query_of, select, source_of
from vector_assets.declare.flink_settings import Settings
from vector_assets.declare.flink_tables import Declared, declare
from vector_assets.engine import env
from vector_assets.engine.errors import ConfigError, Place
from vector_assets.engine.options import Options
from vector_assets.engine.pipeline import Pipeline
from vector_assets.sinks import SINKS
from vector_assets.sources import SOURCES
from vector_assets.transforms.sql import SqlTransform

T = TypeVar("T")


def compile_script(text: str, file: str, *, secrets: Secrets = env.secret, offline: bool = False) -> list[Pipeline]:
    """The pipelines of a script, in order; nothing is contacted.

    With `offline`, a secret that is not set is replaced by a stand-in.

    Raises:
        ConfigError: at the line and column of the first thing that is wrong.
    """
    return _Compiler(Script(text, file), secrets, offline=offline).pipelines()


def load_file(path: Path, *, secrets: Secrets = env.secret, offline: bool = False) -> list[Pipeline]:
    """The pipelines of a `*.sql` file; places name it relative to the working directory where it lies below that.

    Raises:
        ConfigError: as `compile_script`, or the file cannot be read.
    """
    file = shown_path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", Place(file)) from error
    return compile_script(text, file, secrets=secrets, offline=offline)


def shown_path(path: Path) -> str:
    """The path as messages name it."""
    absolute, here = path.absolute(), Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(absolute)


class _Compiler:
    """Compiles one script from top to bottom, as Flink runs it."""

    def __init__(self, script: Script, secrets: Secrets, *, offline: bool) -> None:
        self.script = script
        self.secrets = secrets
        self.offline = offline
        self.settings = Settings(script)
        self.statements = script.statements()
        creates = [statement for statement in self.statements if isinstance(statement.node, exp.Create)]
        self.declared = {statement.start: self._shallow(statement, self._declare) for statement in creates}
        self.tables: dict[str, Declared] = {}
        self.used: set[str] = set()

    def pipelines(self) -> list[Pipeline]:
        """All pipelines; each reports the tables that none of them uses."""
        check_placeholders(self.script, self.declared.values())
        for table in self.declared.values():
            check_connector(self.script, table)
        pipelines = list(self._run())
        if not pipelines:
            raise ConfigError("no INSERT INTO: the script declares no pipeline", Place(self.script.file))
        for name, place in self.settings.pending.items():
            raise ConfigError(f"SET {name!r} has no effect: no INSERT INTO follows it", place)
        unused = tuple(
            f"{table.place}: table {table.name} is declared but not used; its options are not checked"
            for table in self.declared.values()
            if table.name not in self.used
        )
        return [replace(pipeline, reports=(*pipeline.reports, *unused)) for pipeline in pipelines]

    def _run(self) -> Iterator[Pipeline]:
        seen: dict[tuple[str, str], Pipeline] = {}
        for statement in self.statements:
            if isinstance(statement.node, exp.Set):
                self.settings.set(statement)
            elif isinstance(statement.node, exp.Create):
                self._add_table(self.declared[statement.start])
            else:
                pipeline = self._shallow(statement, self._pipeline)
                _check_unique(pipeline, seen)
                yield pipeline

    def _shallow(self, statement: Statement, compiled: Callable[[Statement], T]) -> T:
        """`compiled(statement)`, with an error for expressions that are nested too deeply to be walked through."""
        try:
            return compiled(statement)
        except RecursionError:
            raise self.script.error("this statement is nested too deeply", statement.start) from None

    def _declare(self, statement: Statement) -> Declared:
        return declare(self.script, statement)

    def _add_table(self, table: Declared) -> None:
        other = self.tables.setdefault(table.name, table)
        if other is not table:
            raise ConfigError(f"table {table.name} is declared twice, first at {other.place}", table.place)

    def _table(self, node: exp.Expr, role: str, registry: Mapping[str, str]) -> Declared:
        """The declared table that a statement names, if its connector can play that role."""
        table = self.tables.get(node.name)
        if table is None:
            later = [other.place for other in self.declared.values() if other.name == node.name]
            if later:
                raise self.script.error(f"table {node.name} is declared only at {later[0]}; move it above this", node)
            known = ", ".join(self.tables) or "none"
            similar = hint(node.name, self.tables)
            raise self.script.error(f"table {node.name} is not declared{similar}; declared: {known}", node)
        connector = table.options["connector"].args["value"].name
        if registry_name(connector) not in registry:
            listed = ", ".join(sorted(registry))
            what = f"table {table.name} has connector {connector!r}, which cannot be a {role}"
            raise self.script.error(f"{what}; connectors that can: {listed}", node)
        self.used.add(table.name)
        return table

    def _name(self, statement: Statement, wanted: str | None) -> str:
        name = wanted or Path(self.script.file).name.partition(".")[0]
        if not (name.isascii() and name.isidentifier()):
            what = f"the file's name makes no name for a pipeline ({name!r})"
            raise self.script.error(f"{what}: SET 'pipeline.name' = '...' before this", statement.start)
        return name

    def _pipeline(self, statement: Statement) -> Pipeline:
        insert = statement.node
        target = insert.this.this if isinstance(insert.this, exp.Schema) else insert.this
        sink = self._table(target.this, "sink", SINKS)
        query = query_of(self.script, insert)
        source_node, alias = source_of(self.script, query)
        source = self._table(source_node, "source", SOURCES)
        settings, reports = self.settings.take()
        name = self._name(statement, settings.name)
        selection = select(self.script, insert, query, alias, source, sink)
        reader = source_end(self.script, source, self.secrets, offline=self.offline)
        writer = sink_end(self.script, sink, self.secrets, offline=self.offline)
        schema = sink.table.schema
        return Pipeline(
            name=name,
            place=self.script.place(statement.start),
            description=statement.description or sink.table.comment or "",
            source_table=source.table,
            sink_table=sink.table,
            source_connector=reader.connector,
            sink_connector=writer.connector,
            format=reader.format,
            source_options=reader.options,
            format_options=reader.format_options,
            sink_options=writer.options,
            settings=settings,
            schema=schema,
            transform_text=selection.text,
            decoder=reader.decoder,
            raw_schema=reader.raw_schema,
            metadata=reader.metadata,
            transforms=(SqlTransform(selection.projections, "source", selection.where, schema),),
            open_source=partial(reader.make, reader.options, source.table, pipeline=name),
            open_sink=partial(writer.make, writer.options, sink.table, pipeline=name),
            reports=(
                *reports,
                *source.reports,
                *sink.reports,
                *_without_effect(source, reader.options),
                *_without_effect(source, reader.format_options),
                *_without_effect(sink, writer.options),
            ),
        )


def _without_effect(table: Declared, options: Options | None) -> tuple[str, ...]:
    """What options of a table report, with the place of the table."""
    reports = options.reports() if options else ()
    return tuple(f"{table.place}: table {table.name}: {report}" for report in reports)


def _check_unique(pipeline: Pipeline, seen: dict[tuple[str, str], Pipeline]) -> None:
    for what, key in pipeline.claims.items():
        other = seen.setdefault((what, key), pipeline)
        if other is not pipeline:
            remedy = "; SET 'pipeline.name' before each INSERT INTO" if what == "name" else ""
            raise ConfigError(f"{what} {key} is taken by the INSERT INTO at {other.place}{remedy}", pipeline.place)
