"""`CALL dbms_etl.sync_by_map(...)` to pipelines: tables of MySQL to an index, each row a document.

A script holds SET statements, which say where MySQL and the search cluster are and how texts are embedded, and a CALL
for each link. With `SET 'autoetl.requests' = 'true'` it also has the links that MySQL clients asked for.
"""

import logging
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from vector_assets.clients.embeddings_options import EmbeddingOptions
from vector_assets.clients.mysql import Login
from vector_assets.declare.autoetl_map import MapError, SyncMap
from vector_assets.declare.autoetl_map import parse as parse_map
from vector_assets.declare.autoetl_requests import Request, kept_requests, link_name
from vector_assets.declare.autoetl_script import AutoEtlScript, Call, Setting
from vector_assets.declare.autoetl_settings import EMBEDDING, MYSQL, PREFIXES, SEARCH, AutoEtlSettings, field_map
from vector_assets.declare.autoetl_source import At, SourceEnd, source_end, types_of
from vector_assets.declare.autoetl_tables import known_tables
from vector_assets.declare.flink_options import Secrets, Written, fill_texts, parse
from vector_assets.declare.flink_types import quoted
from vector_assets.engine import env
from vector_assets.engine.errors import ConfigError, Place
from vector_assets.engine.pipeline import Pipeline, PipelineSettings
from vector_assets.engine.registry import nearest
from vector_assets.engine.schema import Column, LogicalType, Table
from vector_assets.engine.typed import TypedDecoder, typed_schema
from vector_assets.sinks.opensearch import OpenSearchSink
from vector_assets.sinks.opensearch_options import OpenSearchOptions
from vector_assets.sources.mysql import MySqlCdcSource
from vector_assets.sources.mysql_options import MySqlCdcOptions
from vector_assets.transforms.embedding import EmbeddingTransform, input_schema
from vector_assets.transforms.sql import SqlTransform

log = logging.getLogger(__name__)

MOST_EMBEDDED_ROWS = 10_000
"""As in a script with EMBED."""
MYSQL_OWNER = "SET 'mysql.<option>'"
"""How errors begin that are about options of MySQL."""
_VECTOR = LogicalType("ARRAY", children=(LogicalType("FLOAT"),))
_FIRST_SERVER_ID, _SERVER_IDS = 100_000, 4_000_000_000


def compile_autoetl(
    text: str, file: str, *, secrets: Secrets = env.secret, offline: bool = False, requests: bool = True
) -> list[Pipeline]:
    """The pipelines of a script's CALLs, then (with `requests`) of what MySQL clients asked for, as it was last seen.

    The tables' columns are asked of MySQL when a link is first used, and kept. With `offline` nobody is asked: types
    that are not known are STRING.

    Raises:
        ConfigError: at the line and column of the first thing that is wrong.
    """
    return list(Compiler(AutoEtlScript(text, file), secrets, offline=offline).pipelines(requests=requests))


class Compiler:
    """Compiles one script from top to bottom."""

    def __init__(self, script: AutoEtlScript, secrets: Secrets, *, offline: bool) -> None:
        self.script = script
        self.offline = offline
        self._secrets = secrets
        self._values: dict[str, str] = {}
        self._places: dict[str, Place] = {}
        self._pending: dict[str, Place] = {}

    def pipelines(self, *, requests: bool) -> Iterator[Pipeline]:
        """One for each CALL, and one for each request."""
        seen: dict[str, Place] = {}
        for statement in self.script.statements():
            if isinstance(statement, Setting):
                self._set(statement)
                continue
            pipeline = self._called(statement)
            if pipeline.name in seen:
                what = f"pipeline name {pipeline.name} is taken by {seen[pipeline.name]}"
                raise ConfigError(f"{what}: SET 'pipeline.name' = '...' before this CALL", pipeline.place)
            seen[pipeline.name] = pipeline.place
            yield pipeline
        settings = self._own()
        if not seen and not settings.requests:
            raise ConfigError(
                "no CALL dbms_etl.sync_by_map: the script declares no link; SET 'autoetl.requests' = 'true' takes"
                " those that MySQL clients ask for", Place(self.script.file),
            )  # fmt: skip
        if settings.requests and requests:
            yield from self._requested(seen)
        elif not settings.requests:
            for name, place in self._pending.items():
                raise ConfigError(f"SET {name!r} has no effect: no CALL follows it", place)

    def settle(self) -> AutoEtlSettings:
        """Take every SET of the script, make no pipeline; what they come to."""
        for statement in self.script.statements():
            if isinstance(statement, Setting):
                self._set(statement)
        return self._own()

    def server(self) -> Login:
        """Where MySQL is, and as whom it is asked.

        Raises:
            ConfigError: the settings do not say, or name a secret that is not set.
        """
        place = self._places.get("autoetl.requests") or Place(self.script.file)
        written = fill_texts(self._values, {**self._places, "connector": place}, self._secrets, offline=self.offline)
        fixed = {"connector": "mysql-cdc", "database-name": ".*", "table-name": ".*"}
        options: MySqlCdcOptions = parse(MySqlCdcSource, _prefixed(written, MYSQL, fixed, place), MYSQL_OWNER)
        return options.login

    def _set(self, statement: Setting) -> None:
        name, place = statement.name.value, self.script.place(statement.name.start)
        known = [*PipelineSettings.known(), *AutoEtlSettings.known()]
        if name not in known and not name.startswith(PREFIXES):
            listed = ", ".join([*(f"{prefix}<option>" for prefix in PREFIXES), *sorted(known)])
            raise ConfigError(f"SET: unknown setting {name!r}{nearest(name, known)}; known: {listed}", place)
        self._values[name] = statement.value.value
        self._places[name] = self.script.place(statement.value.start)
        self._pending[name] = place
        if name in PipelineSettings.known():
            PipelineSettings.parse({name: statement.value.value}, "SET", self._places)

    def _own(self) -> AutoEtlSettings:
        own = {name: value for name, value in self._values.items() if name in AutoEtlSettings.known()}
        return AutoEtlSettings.parse(own, "SET", self._places)

    def _called(self, call: Call) -> Pipeline:
        """The pipeline of a CALL; errors stand at the part of it that is wrong."""
        try:
            mapping = parse_map([argument.value for argument in call.arguments])
        except MapError as error:
            number = min(error.argument, len(call.arguments)) - 1
            start = call.arguments[number].start + 1 + error.at if call.arguments else call.start
            raise self.script.error(error.message, start) from None
        starts = [argument.start + 1 for argument in call.arguments]

        def at(argument: int, offset: int = 0) -> Place:
            return self.script.place(starts[argument - 1] + offset)

        pipeline = self.link(mapping, self.script.place(call.start), at, self._values.get("pipeline.name"))
        self._pending.clear()
        self._values.pop("pipeline.name", None)
        return pipeline

    def _requested(self, seen: Mapping[str, Place]) -> Iterator[Pipeline]:
        """The pipelines of requests; one that is wrong is left out, with a warning: it is no mistake of the script."""
        for request in kept_requests(self.script.file):
            if request.is_dropped:
                continue
            try:
                pipeline = self.requested(request)
                if pipeline.name in seen:
                    raise ConfigError(f"the name {pipeline.name} is that of {seen[pipeline.name]}")
            except ConfigError as error:
                log.warning("%s: request %d for %s is left out: %s", self.script.file, request.id, request.name, error)
            else:
                yield pipeline

    def requested(self, request: Request) -> Pipeline:
        """The pipeline that a MySQL client asked for; it is driven by what reads the requests.

        Raises:
            ConfigError: it cannot be made.
        """
        place = self._places["autoetl.requests"]
        try:
            mapping = parse_map(request.arguments)
        except MapError as error:
            raise ConfigError(error.message, place) from None
        return replace(self.link(mapping, place, lambda *_: place, None, is_request=True), is_idle=True)

    def link(self, mapping: SyncMap, place: Place, at: At, name: str | None, *, is_request: bool = False) -> Pipeline:
        """One link as a pipeline; `at` gives the places of arguments (from 1) and of what stands in them.

        Raises:
            ConfigError: a setting, a table or a column is wrong.
        """
        name = name or link_name(mapping.index)
        written = fill_texts(self._values, {**self._places, "connector": place}, self._secrets, offline=self.offline)
        reader = self._reader(written, mapping, name, place)
        vectors = self._vectors(mapping, place, is_lenient=is_request)
        writer = self._writer(written, mapping, place, vectors)
        wanted = {
            table: [each.column for each in (*mapping.columns, *mapping.keys) if each.table == table]
            for table in mapping.tables
        }
        try:
            tables = known_tables(name, reader.login, mapping.database, wanted, offline=self.offline)
        except ConfigError as error:
            raise ConfigError(error.message, place) from error
        types = types_of(mapping, tables, at)
        end = source_end(mapping, reader, types, self._places.get(f"{MYSQL}server-id") or place)
        return self._pipeline(mapping, name, place, end, writer, types, vectors, written)

    def _reader(self, written: Written, mapping: SyncMap, name: str, place: Place) -> MySqlCdcOptions:
        fixed = {
            "connector": "mysql-cdc",
            "database-name": re.escape(mapping.database),
            "table-name": "|".join(re.escape(table) for table in mapping.tables),
        }
        given = _prefixed(written, MYSQL, fixed, place)
        if "server-id" not in given.values:
            # by the link's name: another pipeline over the same tables would throw this one out
            number = _FIRST_SERVER_ID + zlib.crc32(f"autoetl {name}".encode()) % _SERVER_IDS
            given = replace(given, values={**given.values, "server-id": f"{number}-{number + len(mapping.tables)}"})
        options: MySqlCdcOptions = parse(MySqlCdcSource, given, MYSQL_OWNER)
        return options

    def _writer(
        self, written: Written, mapping: SyncMap, place: Place, vectors: Mapping[str, str]
    ) -> OpenSearchOptions:
        """The sink; vectors have the dimension of the model, unless it is said of the index."""
        given = _prefixed(written, SEARCH, {"connector": "opensearch-2", "index": mapping.index}, place)
        size = written.values.get(f"{EMBEDDING}dimensions")
        if vectors and size and "vector.dimensions" not in given.values:
            dimensions = ",".join(f"{vector}:{size}" for vector in vectors)
            given = replace(given, values={**given.values, "vector.dimensions": dimensions})
        options: OpenSearchOptions = parse(OpenSearchSink, given, "SET 'search.<option>'")
        return options

    def _vectors(self, mapping: SyncMap, place: Place, *, is_lenient: bool) -> dict[str, str]:
        """The vector fields that the client side fills, by the text field of each."""
        settings = self._own()
        given = [name for name in self._values if name.startswith(EMBEDDING) and name != "embedding.mode"]
        if settings.mode == "server":
            if given:
                what = f"SET {given[0]!r} has no effect: with 'embedding.mode' = 'server' the index's pipeline embeds"
                raise ConfigError(what, self._pending.get(given[0]) or self._places[given[0]])
            return {}
        pairs, fields = field_map(settings, self._places, place), [each.field for each in mapping.columns]
        for text, vector in pairs.items():
            where = self._places["embedding.field-map"]
            if text not in fields and not is_lenient:
                what = f"embedding.field-map: field {text} is not among those of the CALL: {', '.join(fields)}"
                raise ConfigError(what, where)
            if vector in fields:
                raise ConfigError(f"embedding.field-map: field {vector} is filled by the CALL already", where)
        return {vector: text for text, vector in pairs.items() if text in fields}

    def _embedding(self, written: Written, place: Place) -> EmbeddingOptions:
        given = _prefixed(written, EMBEDDING, {}, place).only(lambda name: name not in {"mode", "field-map"})
        options: EmbeddingOptions = parse(EmbeddingTransform, given, "SET 'embedding.<option>'")
        return options

    def _pipeline(
        self, mapping: SyncMap, name: str, place: Place, end: "SourceEnd", writer: OpenSearchOptions,
        types: Mapping[tuple[str, str], Column], vectors: Mapping[str, str], written: Written,
    ) -> Pipeline:  # fmt: skip
        keys = [each.field for each in mapping.keys_of(mapping.driving)]
        columns = tuple(
            Column(each.field, _sent(types[each.table, each.column].type, each.field in keys, mapping, each.table))
            for each in mapping.columns
        ) + tuple(Column(vector, _VECTOR) for vector in vectors)
        sink_table = Table(mapping.index, columns, tuple(keys), place=place)
        output, embedding = sink_table.schema, None
        stages: tuple[Any, ...] = ()
        settings = self._settings(name)
        if vectors:
            embedding = self._embedding(written, place)
            stages = (EmbeddingTransform(tuple(vectors), embedding, output, pipeline=name, takes_blank=True),)
            if "max_rows" not in settings.model_fields_set:
                settings = settings.model_copy(update={"max_rows": MOST_EMBEDDED_ROWS})
        origin = {each.field: end.names[each.table, each.column, each.field] for each in mapping.columns}
        taken = {column.name: origin[vectors.get(column.name, column.name)] for column in columns}
        projections = tuple((f'"{source}"', field) for field, source in taken.items())
        transform = SqlTransform(projections, "source", None, input_schema(output, tuple(vectors)), key=tuple(keys))
        return Pipeline(
            name=name, place=place, description=_description(mapping),
            source_table=end.table, sink_table=sink_table, source_connector="mysql-cdc", sink_connector="opensearch-2",
            format=None, source_options=end.options, format_options=None, sink_options=writer, settings=settings,
            schema=output, transform_text=_shown(mapping, vectors), decoder=TypedDecoder(end.table),
            raw_schema=typed_schema(end.table, has_kinds=True), transforms=(transform, *stages), embedding=embedding,
            reads={field: frozenset({source}) for field, source in taken.items()},
            open_source=partial(end.make, end.options, end.table, pipeline=name),
            open_sink=partial(OpenSearchSink, writer, sink_table, pipeline=name),
            link=", ".join(f"{mapping.database}.{table}" for table in mapping.tables),
            reports=tuple(f"{place}: {each}" for each in (*end.options.reports(), *writer.reports())),
        )  # fmt: skip

    def _settings(self, name: str) -> PipelineSettings:
        known = PipelineSettings.known()
        values = {key: value for key, value in self._values.items() if key in known}
        return PipelineSettings.parse({**values, "pipeline.name": name}, "SET", self._places)


def _prefixed(written: Written, prefix: str, fixed: Mapping[str, str], place: Place) -> Written:
    """The options under a prefix, and what the CALL says in place of others."""
    given = written.only(lambda name: name.startswith(prefix)).renamed(prefix)
    for name in fixed:
        if name in given.values:
            raise ConfigError(f"SET '{prefix}{name}': the CALL says it", given.places[name])
    places = {**given.places, "connector": place}
    return replace(given, values={**given.values, **fixed}, places=places)


def _sent(kind: LogicalType, is_key: bool, mapping: SyncMap, table: str) -> LogicalType:  # noqa: FBT001
    """The type of a field: of a table that does not drive it may be NULL."""
    is_nullable = not is_key and (kind.nullable or len(mapping.tables) > 1 or table != mapping.driving)
    return replace(kind, nullable=is_nullable)


def _description(mapping: SyncMap) -> str:
    listed = ", ".join(f"{mapping.database}.{table}" for table in mapping.tables)
    return f"Keeps the index {mapping.index} as {listed}."


def _shown(mapping: SyncMap, vectors: Mapping[str, str]) -> str:
    """The mapping as a SELECT, for people and for the fingerprint."""
    items = [f"{quoted(each.table)}.{quoted(each.column)} AS {quoted(each.field)}" for each in mapping.columns]
    items += [f"EMBED({quoted(text)}) AS {quoted(vector)}" for vector, text in vectors.items()]
    text = f"SELECT {', '.join(items)} FROM {quoted(mapping.driving)}"
    first = mapping.keys_of(mapping.driving)
    for table in mapping.tables[1:]:
        pairs = zip(mapping.keys_of(table), first, strict=True)
        on = " AND ".join(
            f"{quoted(a.table)}.{quoted(a.column)} = {quoted(b.table)}.{quoted(b.column)}" for a, b in pairs
        )
        text += f" LEFT JOIN {quoted(table)} ON {on}"
    return text
