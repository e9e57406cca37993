"""Nearest rows by vector: the operator and the index of what is installed, pgvector or FastANN.

With pgvector the query orders by the very expression that the index is over (an array column is cast as the index casts
it), or the index would not be used. Which index answered is read from the plan, not assumed.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
import pyarrow as pa

from vector_assets.clients.postgres import Connection, said
from vector_assets.engine.abilities import DISTANCE, SearchQuery, SearchResult
from vector_assets.engine.errors import ConfigError, PlanError
from vector_assets.engine.registry import nearest
from vector_assets.sinks.adbpg_catalog import Relation, TargetColumn, quoted
from vector_assets.sinks.adbpg_condition import check_condition
from vector_assets.sinks.adbpg_convert import is_vector
from vector_assets.sinks.adbpg_server import INSTALL, Server, look

OPERATORS = {"l2": "<->", "ip": "<#>", "cosine": "<=>", "l1": "<+>"}
"""The operator of each distance; FastANN has all but l1."""

TIMEOUT_SECONDS = 30
_MOST_ROWS = 10_000
_EF_SEARCH = (40, 1000)
"""pgvector's own default of hnsw.ef_search, and the most it takes."""
_METHODS = ("hnsw", "ivfflat", "ann")
_CAST = re.compile(r'\(*(?:\w+|"(?:[^"]|"")+")\)*::(?:\w+\.|"(?:[^"]|"")+"\.)?(vector|halfvec)\((\d+)\)\)*')
"""An index over nothing but a column, cast; one over a function of it measures other distances."""
_USED = re.compile(r'Index (?:Only )?Scan[^\n]*? (?:using|on) ("(?:[^"]|"")+"|\S+)')


@dataclass(frozen=True, slots=True)
class SearchIndex:
    """A vector index: `expression` is what it is over, in the server's words; None for FastANN's."""

    name: str
    method: str
    metric: str
    expression: str
    kind: str
    dimension: int | None


@dataclass(frozen=True, slots=True)
class VectorColumn:
    """A column that can be searched; `kind` is `vector`, `halfvec` or `array`."""

    name: str
    kind: str
    dimension: int | None
    indexes: tuple[SearchIndex, ...]


@dataclass(frozen=True, slots=True)
class _Ask:
    """What is asked: distance, order and parameter in SQL, and the index that may answer."""

    distance: str
    order: str
    metric: str
    index: SearchIndex | None


class Searcher:
    """Searches one table over one connection; only reads."""

    def __init__(
        self, connection: Connection, relation: Relation, declared: Mapping[str, int], place: str = "adbpg"
    ) -> None:
        """`declared` holds dimensions that neither type nor index tell.

        Raises:
            PlanError: the table has no vector column, or the database neither FastANN nor pgvector.
        """
        self._connection = connection
        self._relation = relation
        self._place = f"{place}: {relation}"
        self._from = relation.quoted
        self.server: Server = look(connection)
        self.columns = self._vector_columns(declared)
        if not self.columns:
            listed = ", ".join(f"{column.name} {column.spelled}" for column in relation.columns)
            raise PlanError(f"{self._place} has no vector column (vector, halfvec, float4[]); columns there: {listed}")
        if not self.server.has_vectors:
            what = f"the database has neither FastANN nor pgvector: {INSTALL}"
            if self.server.extension.is_available:
                what = f"run CREATE EXTENSION {self.server.extension.name} in this database"
            raise PlanError(f"{self._place} cannot be searched: {what}")

    def search(self, query: SearchQuery, *, explain: bool) -> SearchResult:
        """The nearest rows.

        Raises:
            ConfigError: no such column or metric, another dimension, or a condition that is refused.
            psycopg.Error: anything else the server says.
        """
        if not 1 <= query.k <= _MOST_ROWS:
            raise ConfigError(f"{self._place}: k is {query.k}, want 1 to {_MOST_ROWS}")
        column = self._column(query.column)
        self._check_dimension(column, len(query.vector))
        if query.where is not None:
            check_condition(query.where, self._place)
        ask = self._ask(column, query)
        statement, values = self._statement(ask, query)
        with self._connection.transaction():
            self._settle(query)
            try:
                used = self._used(statement, values)
                plan = self._lines(f"EXPLAIN (ANALYZE) {statement}", values) if explain else None
                cursor = self._connection.execute(statement.encode(), values)
                rows = self._table([c.name for c in cursor.description or ()], cursor.fetchall())
            except (psycopg.ProgrammingError, psycopg.DataError, psycopg.errors.ReadOnlySqlTransaction) as error:
                if query.where is None:
                    raise
                raise ConfigError(f"{self._place}: the condition {query.where!r} is refused: {said(error)}") from error
        return SearchResult(rows, self._how(ask, column, query, used), plan)

    def sample(self, count: int, column: str | None) -> tuple[tuple[float, ...], ...]:
        """Vectors of up to `count` rows chosen at random."""
        found = self._column(column)
        name = quoted(found.name)
        value = name if found.kind == "array" else f"{name}::real[]"
        # about 20 times as many as wanted are sorted, not the whole table
        rows_of = f"SELECT {value} AS v FROM {self._from} WHERE {name} IS NOT NULL".replace("%", "%%")
        statement = (
            f"SELECT v FROM ({rows_of} AND random() <"
            " (SELECT 20.0 * %(count)s / greatest(reltuples, 1) FROM pg_catalog.pg_class WHERE oid = %(oid)s)) s"
            " ORDER BY random() LIMIT %(count)s"
        )
        values = {"count": count, "oid": self._relation.oid}
        with self._connection.transaction():
            self._connection.execute("SET TRANSACTION READ ONLY")
            self._connection.execute(f"SET LOCAL statement_timeout = '{TIMEOUT_SECONDS}s'".encode())
            rows = self._connection.execute(statement.encode(), values).fetchall()
        return tuple(tuple(row[0]) for row in rows if row[0] and None not in row[0])

    def _vector_columns(self, declared: Mapping[str, int]) -> tuple[VectorColumn, ...]:
        indexes = self._indexes()
        found = []
        for column in self._relation.columns:
            if column.wire is None or not is_vector(column.wire) or "SELECT" not in column.grants:
                continue
            own = tuple(index for name, index in indexes if name == column.name)
            known = [column.dimension, *(index.dimension for index in own), declared.get(column.name)]
            kind = column.wire.name if column.wire.name in {"vector", "halfvec"} else "array"
            found.append(VectorColumn(column.name, kind, next((n for n in known if n), None), own))
        return tuple(found)

    def _indexes(self) -> list[tuple[str, SearchIndex]]:
        """Vector indexes of the table that are valid and cover every row, with the column each is over."""
        rows = self._connection.execute(
            "SELECT x.relname, m.amname, pg_catalog.pg_get_indexdef(i.indexrelid, 1, true), o.opcname, x.reloptions,"
            " a.attname FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid"
            " JOIN pg_catalog.pg_am m ON m.oid = x.relam JOIN pg_catalog.pg_opclass o ON o.oid = i.indclass[0]"
            " LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum > 0"
            " AND a.attnum = i.indkey[0]"
            " WHERE i.indrelid = %s AND i.indisvalid AND i.indpred IS NULL AND m.amname = ANY(%s) ORDER BY x.relname",
            [self._relation.oid, list(_METHODS)],
        ).fetchall()
        by_name = {index.name: index.column for index in self._relation.vector_indexes}
        found = []
        for name, method, expression, operators, options, attribute in rows:
            is_cast = _CAST.fullmatch(expression) is not None
            column = attribute or (by_name.get(name) if is_cast else None)
            index = _index(name, method, expression, operators, options or [])
            if column is not None and index is not None:
                found.append((column, index))
        return found

    def _column(self, wanted: str | None) -> VectorColumn:
        names = [column.name for column in self.columns]
        if wanted is not None:
            for column in self.columns:
                if column.name in {wanted, wanted.lower()}:
                    return column
            raise ConfigError(
                f"{self._place}: no vector column {wanted!r}{nearest(wanted, names)}; known: {', '.join(names)}"
            )
        indexed = [column for column in self.columns if column.indexes]
        if len(self.columns) > 1 and len(indexed) != 1:
            raise ConfigError(f"{self._place}: which vector column? there are {', '.join(names)}")
        return (indexed or self.columns)[0]

    def _check_dimension(self, column: VectorColumn, given: int) -> None:
        if column.dimension is not None and column.dimension != given:
            raise ConfigError(
                f"{self._place}: column {column.name} has {column.dimension} dimensions, the vector has {given}"
            )

    def _ask(self, column: VectorColumn, query: SearchQuery) -> _Ask:
        known = [name for name in OPERATORS if not (self.server.is_analyticdb and name == "l1")]
        metric = query.metric or (column.indexes[0].metric if column.indexes else "l2")
        if metric not in known:
            raise ConfigError(
                f"{self._place}: unknown metric {metric!r}{nearest(metric, known)}; known: {', '.join(known)}"
            )
        index = next((index for index in column.indexes if index.metric == metric), None)
        ask = self._by_fastann if self.server.is_analyticdb else self._by_pgvector
        distance, order = ask(column, index, metric, len(query.vector))
        # no index is over a sum, so every row is compared
        return _Ask(distance, f"({order}) + 0" if query.exact else order, metric, index)

    def _by_pgvector(
        self, column: VectorColumn, index: SearchIndex | None, metric: str, dimension: int
    ) -> tuple[str, str]:
        extension = self.server.pgvector
        kind = index.kind if index else "halfvec" if column.kind == "halfvec" else "vector"
        cast = f"{extension.qualifier}{kind}({dimension})"
        name = quoted(column.name)
        if index is not None:
            expression = index.expression
        elif column.kind == "array":
            # no index has made sure of them: an array of another length, or with a null in it, has no distance
            fits = f"array_length({name}, 1) = {dimension} AND array_position({name}, NULL) IS NULL"
            expression = f"(CASE WHEN {fits} THEN {name}::{cast} END)"
        else:
            expression = name
        operator = f"OPERATOR({extension.qualifier}{OPERATORS[metric]})" if extension.schema else OPERATORS[metric]
        order = f"{expression} {operator} %(vector)s::{cast}"
        return order, order

    def _by_fastann(
        self, column: VectorColumn, index: SearchIndex | None, metric: str, dimension: int
    ) -> tuple[str, str]:
        """By AnalyticDB's documentation: the operator <-> gives the square of the distance, l2_distance() itself."""
        del index
        name = quoted(column.name)
        cast = "float4[]" if column.kind == "array" else f"{column.kind}({dimension})"
        order = f"{name} {OPERATORS[metric]} %(vector)s::{cast}"
        return (f"l2_distance({name}, %(vector)s::{cast})" if metric == "l2" else order), order

    def _statement(self, ask: _Ask, query: SearchQuery) -> tuple[str, dict[str, Any]]:
        shown = ", ".join(map(_selected, (c for c in self._relation.columns if "SELECT" in c.grants)))
        where = f" WHERE ({query.where})" if query.where is not None else ""
        statement = (
            f"SELECT {shown}, {ask.distance} AS {quoted(DISTANCE)} FROM {self._from}{where}"
            f" ORDER BY {ask.order} LIMIT {query.k}"
        )
        # names and conditions may hold a %, which is psycopg's own sign
        statement = statement.replace("%", "%%").replace("%%(vector)s", "%(vector)s")
        numbers = ",".join(map(repr, query.vector))
        is_array = "::float4[]" in ask.order
        return statement, {"vector": f"{{{numbers}}}" if is_array else f"[{numbers}]"}

    def _settle(self, query: SearchQuery) -> None:
        """Settings of this transaction: it only reads, ends in time, and the index looks far enough for k rows."""
        settings = {"statement_timeout": f"{TIMEOUT_SECONDS}s"}
        if not self.server.is_analyticdb:
            least, most = _EF_SEARCH
            settings["hnsw.ef_search"] = str(min(max(query.k, least), most))
            if self.server.pgvector.numbers >= (0, 8):
                # without it a condition that few rows meet leaves fewer than k
                settings |= {"hnsw.iterative_scan": "strict_order", "ivfflat.iterative_scan": "relaxed_order"}
        self._connection.execute("SET TRANSACTION READ ONLY")
        for name, value in settings.items():
            self._connection.execute("SELECT set_config(%s, %s, true)", [name, value])

    def _used(self, statement: str, values: Mapping[str, Any]) -> set[str]:
        """Names of the indexes in the server's plan."""
        names = _USED.findall(self._lines(f"EXPLAIN {statement}", values))
        return {name[1:-1].replace('""', '"') if name.startswith('"') else name for name in names}

    def _lines(self, statement: str, values: Mapping[str, Any]) -> str:
        return "\n".join(str(row[0]) for row in self._connection.execute(statement.encode(), values))

    def _how(self, ask: _Ask, column: VectorColumn, query: SearchQuery, used: set[str]) -> str:
        what = f"{ask.metric} distance ({OPERATORS[ask.metric]}) of {column.name} by {self.server.extension.name}"
        if query.exact:
            return f"{what}: exact, every row was compared"
        if ask.index is None:
            return f"{what}: there is no index for it, every row was compared"
        index = f"{ask.index.method} index {ask.index.name}"
        if ask.index.name in used:
            return f"{what}: {index}"
        return (
            f"{what}: the server did not use {index} (a small table, or a condition few rows meet), rows were compared"
        )

    def _table(self, names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> pa.Table:
        found = [row for row in rows if row[-1] is not None]
        columns = [_array([row[number] for row in found]) for number in range(len(names))]
        table = pa.table(columns, names=list(names))
        # an index that scans on and on hands rows over almost in order
        return table.sort_by(DISTANCE) if found else table


def _index(name: str, method: str, expression: str, operators: str, options: Sequence[str]) -> SearchIndex | None:
    """What a row of the catalog says; None for an index of a kind that is not searched."""
    if method == "ann":
        given = dict(option.lower().split("=", 1) for option in options)
        dimension = int(given["dim"]) if given.get("dim", "").isdecimal() else None
        return SearchIndex(name, method, given.get("distancemeasure", "l2"), "", "array", dimension)
    kind, _, metric = operators.removesuffix("_ops").rpartition("_")
    if kind not in {"vector", "halfvec"} or metric not in OPERATORS:
        return None
    cast = _CAST.fullmatch(expression)
    return SearchIndex(name, method, metric, expression, kind, int(cast[2]) if cast else None)


def _selected(column: TargetColumn) -> str:
    name = quoted(column.name)
    is_own_type = column.wire is not None and column.wire.name in {"vector", "halfvec"}
    return f"{name}::real[] AS {name}" if is_own_type else name


def _array(values: list[Any]) -> pa.Array:
    """A column of a result; values that Arrow has no type for become their text."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        return pa.array([None if value is None else str(value) for value in values], pa.string())
