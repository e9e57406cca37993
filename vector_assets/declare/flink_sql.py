"""Flink SQL scripts to pipelines: one pipeline per INSERT INTO ... SELECT, inside of a STATEMENT SET and outside."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from difflib import SequenceMatcher
from functools import partial
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
from sqlglot import exp

from vector_assets.clients.embeddings_options import EmbeddingOptions
from vector_assets.declare.flink_aggregates import Grouped, grouped, is_grouped
from vector_assets.declare.flink_connectors import (
    SinkEnd,
    SourceEnd,
    check_connector,
    connector_of,
    pruned,
    sink_end,
    source_end,
)
from vector_assets.declare.flink_joins import LookupJoin, check_times, clauses_of, hint_reports
from vector_assets.declare.flink_lookups import check_deletes, lookup_stages
from vector_assets.declare.flink_options import Secrets, check_placeholders, registry_name
from vector_assets.declare.flink_script import Script, Statement, hint
from vector_assets.declare.flink_select import Selection, query_of, select, source_of
from vector_assets.declare.flink_settings import Settings
from vector_assets.declare.flink_tables import Declared, declare
from vector_assets.engine import env
from vector_assets.engine.core import Source
from vector_assets.engine.errors import ConfigError, Place
from vector_assets.engine.options import Options
from vector_assets.engine.pipeline import Pipeline
from vector_assets.engine.schema import Table
from vector_assets.lookups import LOOKUPS
from vector_assets.sinks import SINKS
from vector_assets.sources import SOURCES
from vector_assets.transforms.embedding import EmbeddingTransform, input_schema
from vector_assets.transforms.sql import SqlTransform

T = TypeVar("T")

MOST_EMBEDDED_ROWS = 10_000
"""Rows of a batch with EMBED unless `vector-assets.batch.max-rows` is set: 10,000 vectors of 1,024 are 40 MB."""


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
        self.settings = Settings(script, secrets, offline=offline)
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
        self.settings.check_embedding_used()
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
                _check_unique(pipeline, seen, in_set=statement.in_set)
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
            raise self._undeclared(node, registry)
        connector = table.options["connector"].args["value"].name
        if registry_name(connector) not in registry:
            listed = ", ".join(sorted(registry))
            what = f"table {table.name} has connector {connector!r}, which cannot be a {role}"
            raise self.script.error(f"{what}; connectors that can: {listed}", node)
        self.used.add(table.name)
        return table

    def _undeclared(self, node: exp.Expr, registry: Mapping[str, str]) -> ConfigError:
        """The error for a name that no table has; it names the table that is nearest to it."""
        fitting = [name for name, table in self.tables.items() if connector_of(table) in registry]
        similar = hint(node.name, fitting) or hint(node.name, self.tables)
        if self.tables and not similar:
            similar = f"; the nearest declared table is {_closest(node.name, fitting or self.tables)}"
        known = ", ".join(self.tables) or "none"
        return self.script.error(f"table {node.name} is not declared{similar}; declared: {known}", node)

    def _name(self, statement: Statement, wanted: str | None, sink: str) -> str:
        """The pipeline's name; in a STATEMENT SET, where no SET may stand, followed by the sink table's."""
        name = wanted or Path(self.script.file).name.partition(".")[0]
        name = f"{name}_{sink}" if statement.in_set else name
        if not (name.isascii() and name.isidentifier()):
            what = f"the file's name makes no name for a pipeline ({name!r})"
            raise self.script.error(f"{what}: SET 'pipeline.name' = '...' before this", statement.start)
        return name

    def _joins(self, query: exp.Select, source: Declared, alias: str) -> list[LookupJoin]:
        """The lookup joins of a query, with their tables."""
        clauses = clauses_of(self.script, query)
        check_times(self.script, clauses, source, alias)
        return [
            LookupJoin(each, self._table(each.table, "dimension table of a lookup join", LOOKUPS)) for each in clauses
        ]

    def _grouped(
        self, insert: exp.Expr, query: exp.Select, alias: str, source: Declared, sink: Declared
    ) -> Grouped | None:
        """The groups of a SELECT that has some."""
        if not is_grouped(query):
            return None
        if query.args.get("joins"):
            where = query.args.get("group") or query.args.get("having") or query.expressions[0]
            raise self.script.error("GROUP BY over a lookup join is not supported: write the joined rows first", where)
        return grouped(self.script, insert, query, alias, source, sink)

    def _pipeline(self, statement: Statement) -> Pipeline:
        insert = statement.node
        target = insert.this.this if isinstance(insert.this, exp.Schema) else insert.this
        sink = self._table(target.this, "sink", SINKS)
        query = query_of(self.script, insert)
        source_node, alias = source_of(self.script, query)
        source = self._table(source_node, "source", SOURCES)
        settings, reports = self.settings.take()
        name = self._name(statement, settings.name, sink.name)
        joins = self._joins(query, source, alias)
        hints = hint_reports(self.script, query, [alias, *(each.clause.alias for each in joins)])
        made = self._grouped(insert, query, alias, source, sink)
        selection = made.selection if made else select(self.script, insert, query, alias, source, sink, joins)
        reader = source_end(self.script, source, self.secrets, offline=self.offline)
        reader, read_table = pruned(reader, source.table, selection.named)
        writer = sink_end(self.script, sink, self.secrets, offline=self.offline)
        if made:
            _check_groups(self.script, query, reader, writer, source, sink)
        else:
            _check_changes(self.script, reader, writer, source, sink, selection)
        lookups, joining = lookup_stages(self.script, selection, self.secrets, reader, offline=self.offline)
        schema = sink.table.schema
        where, deletes_unless = _conditions(reader, source, selection)
        embedding, embedding_stages = self._embedding(selection, schema, name)
        if embedding is not None and "max_rows" not in settings.model_fields_set:
            settings = settings.model_copy(update={"max_rows": MOST_EMBEDDED_ROWS})
        if made:
            transform = SqlTransform(selection.projections, "source", where, made.inputs.schema)
        else:
            transform = SqlTransform(
                selection.projections, "source", where, input_schema(schema, selection.embedded),
                key=sink.table.primary_key, deletes_unless=deletes_unless,
            )  # fmt: skip
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
            transform_text=made.text if made else selection.text,
            decoder=reader.decoder,
            raw_schema=reader.raw_schema,
            metadata=reader.metadata,
            transforms=(*joining, transform, *embedding_stages),
            embedding=embedding,
            aggregation=made.groups if made else None,
            reads=selection.reads,
            lookups=lookups,
            notes=selection.notes,
            open_source=_opening(reader, read_table, selection, name),
            open_sink=partial(writer.make, writer.options, sink.table, pipeline=name),
            reports=(
                *reports,
                *source.reports,
                *sink.reports,
                *_without_effect(source, reader.options),
                *_without_effect(source, reader.format_options),
                *_without_effect(sink, writer.options),
                *hints,
                *dict.fromkeys(
                    report
                    for each, join in zip(lookups, joins, strict=True)
                    for report in (*join.table.reports, *_without_effect(join.table, each.options))
                ),
            ),
        )

    def _embedding(
        self, selection: Selection, schema: pa.Schema, name: str
    ) -> tuple[EmbeddingOptions | None, tuple[EmbeddingTransform, ...]]:
        """The model that EMBED asks, and the transform that does; none where the SELECT has no EMBED."""
        if not selection.embeddings:
            return None, ()
        options = self.settings.embedding(selection.embeddings[0][1])
        return options, (EmbeddingTransform(selection.embedded, options, schema, pipeline=name),)


def _opening(reader: SourceEnd, table: Table, selection: Selection, name: str) -> Callable[[], Source]:
    """How the source of a pipeline is opened; one that prunes is told the conditions that rows meet."""
    more = {"conditions": selection.plain} if getattr(reader.make, "PRUNES", False) else {}
    return partial(reader.make, reader.options, table, pipeline=name, **more)


def _without_effect(table: Declared, options: Options | None) -> tuple[str, ...]:
    """What options of a table report, with the place of the table."""
    reports = options.reports() if options else ()
    return tuple(f"{table.place}: table {table.name}: {report}" for report in reports)


def _closest(name: str, known: Iterable[str]) -> str:
    """The name that has most in common with `name`, upper and lower case the same."""
    return max(known, key=lambda other: SequenceMatcher(None, name.lower(), other.lower()).ratio())


def _check_changes(
    script: Script, reader: SourceEnd, writer: SinkEnd, source: Declared, sink: Declared, selection: Selection
) -> None:
    """Refuse a sink that cannot take what the source gives beside inserts, before a record shows it.

    Raises:
        ConfigError: at the sink's option to set, or at the sink's key that a delete could not fill.
    """
    refusal = writer.options.refusal_of_changes() if reader.is_changelog else None
    if refusal is not None:
        option, remedy = refusal
        blamed = sink.options.get(option) or sink.options["connector"]
        what = f"connector {reader.connector}" if reader.is_upsert else f"format {reader.format}"
        gives = f"table {source.name} ({what}) gives updates and deletes"
        raise script.error(f"table {sink.name}: {gives}, {remedy}", blamed)
    if reader.is_changelog and selection.lookups:
        check_deletes(source, sink, selection)
    for column in sink.table.primary_key if reader.is_upsert else ():
        other = sorted(selection.reads.get(column, frozenset()) - set(source.table.primary_key))
        if other:
            key = ", ".join(source.table.primary_key)
            what = f"key column {column} is made of {', '.join(other)}, a delete of table {source.name} holds only its"
            raise ConfigError(f"table {sink.name}: {what} key ({key})", sink.place)


def _check_groups(
    script: Script, query: exp.Select, reader: SourceEnd, writer: SinkEnd, source: Declared, sink: Declared
) -> None:
    """Refuse a sink that cannot take the updates of a GROUP BY, and a source that takes records back.

    Raises:
        ConfigError: at the sink's option to set, or at the GROUP BY.
    """
    where = query.args.get("group") or query.args.get("having") or query.expressions[0]
    if reader.is_changelog:
        what = f"connector {reader.connector}" if reader.is_upsert else f"format {reader.format}"
        raise script.error(
            f"GROUP BY over table {source.name} ({what}) is not supported: it gives updates and deletes, and a group"
            " only adds records up; group a source of inserts, such as format json or csv",
            where,
        )
    refusal = writer.options.refusal_of_changes()
    if refusal is not None:
        option, remedy = refusal
        blamed = sink.options.get(option) or sink.options["connector"]
        raise script.error(f"table {sink.name}: a GROUP BY gives updates of its groups' rows, {remedy}", blamed)


def _conditions(reader: SourceEnd, source: Declared, selection: Selection) -> tuple[str | None, str | None]:
    """The condition for rows to be there at all, and that for rows that replace others to stay.

    What only reads the key holds for all rows of a key alike; the rest may have been met by the row that is replaced.
    """
    if not reader.is_upsert:
        return selection.where, None
    key = frozenset(source.table.primary_key)
    parts: tuple[list[str], list[str]] = ([], [])
    for sql, reads in selection.conjuncts:
        parts[not reads <= key].append(sql)
    plain, rest = (" AND ".join(part) or None for part in parts)
    return plain, rest


def _check_unique(pipeline: Pipeline, seen: dict[tuple[str, str], Pipeline], *, in_set: bool) -> None:
    for what, key in pipeline.claims.items():
        other = seen.setdefault((what, key), pipeline)
        if other is not pipeline:
            remedy = "; SET 'pipeline.name' before each INSERT INTO" if what == "name" and not in_set else ""
            raise ConfigError(f"{what} {key} is taken by the INSERT INTO at {other.place}{remedy}", pipeline.place)
