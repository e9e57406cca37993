"""Lookup joins of a SELECT: `JOIN dim FOR SYSTEM_TIME AS OF PROCTIME() AS d ON s.k = d.k`, and the names in it."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from sqlglot import exp

from vector_assets.declare import flink_types as types
from vector_assets.declare.flink_casts import convert
from vector_assets.declare.flink_expressions import check, translator
from vector_assets.declare.flink_operators import comparable
from vector_assets.declare.flink_script import Script, hint
from vector_assets.declare.flink_tables import Declared
from vector_assets.declare.flink_translator import PROCTIME, Rule, Translator, Typed
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.schema import Column, LogicalType
from vector_assets.transforms.lookup import LookupKey

_REMEDY = "write JOIN dim FOR SYSTEM_TIME AS OF PROCTIME() AS d ON s.k = d.k to look rows up in a dimension table"
_PLAIN = f"joins are not supported: a pipeline has one source; {_REMEDY}"
_KINDS = {("", ""): False, ("", "INNER"): False, ("LEFT", ""): True, ("LEFT", "OUTER"): True}
_HINT = re.compile(r"\s*([A-Za-z_]\w*)\s*\(([^()]*)\)\s*,?")
_HINTS = {
    "SHUFFLE_HASH": "all rows of a batch are joined in one process",
    "REPLICATED_SHUFFLE_HASH": "all rows of a batch are joined in one process",
    "SKEW": "all rows of a batch are joined in one process",
    "BROADCAST": "all rows of a batch are joined in one process",
    "SHUFFLE_MERGE": "all rows of a batch are joined in one process",
    "NEST_LOOP": "all rows of a batch are joined in one process",
    "LOOKUP": "a dimension table is loaded whole, a lookup asks nobody and cannot fail or wait",
    "STATE_TTL": "a lookup join keeps no state",
}


@dataclass(frozen=True, slots=True)
class JoinClause:
    """One JOIN as it is written: the dimension table's name, and what the query calls it."""

    node: exp.Join
    table: exp.Identifier
    alias: str
    is_left: bool


@dataclass(frozen=True, slots=True)
class LookupJoin:
    """A JOIN whose table is known."""

    clause: JoinClause
    table: Declared


@dataclass(frozen=True, slots=True)
class Scope:
    """One table of the query: `names` maps its columns to their names in the joined rows."""

    table: Declared
    alias: str
    names: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TranslatedJoin:
    """A JOIN in DuckDB's words; names are those of the joined rows, in `keys` of the dimension table itself."""

    join: LookupJoin
    keys: tuple[LookupKey, ...]
    residual: str | None
    scope: Scope

    @property
    def text(self) -> str:
        """The JOIN for people."""
        on = self.join.clause.node.args["on"].sql(dialect="duckdb")
        kind = "LEFT" if self.join.clause.is_left else "INNER"
        return f"{kind} JOIN {types.quoted(self.join.table.name)} AS {types.quoted(self.scope.alias)} ON {on}"


def clauses_of(script: Script, query: exp.Select) -> tuple[JoinClause, ...]:
    """The lookup joins of a SELECT, in order.

    Raises:
        ConfigError: at a join of another kind.
    """
    return tuple(_clause(script, node) for node in query.args.get("joins") or [])


def _clause(script: Script, node: exp.Join) -> JoinClause:
    table = node.this
    if not isinstance(table, exp.Table) or not isinstance(table.this, exp.Identifier):
        raise script.error(_PLAIN, node)
    if not table.args.get("version"):
        raise script.error(_PLAIN, node)
    version = table.args["version"]
    if version.args.get("kind") != "AS OF" or version.args.get("this") != "TIMESTAMP":
        raise script.error(f"want FOR SYSTEM_TIME AS OF a time; {_REMEDY}", node)
    kind = (str(node.args.get("side") or "").upper(), str(node.args.get("kind") or "").upper())
    if kind not in _KINDS or node.args.get("method"):
        found = " ".join(filter(None, [node.args.get("method"), *kind]))
        raise script.error(f"{found} JOIN cannot look rows up; a lookup join is INNER or LEFT", node)
    if node.args.get("using"):
        raise script.error("USING is not supported in a lookup join; write ON s.k = d.k", node.args["using"][0])
    if node.args.get("on") is None:
        raise script.error("a lookup join wants ON with an equality, such as ON s.k = d.k", node)
    if table.args.get("db"):
        raise script.error("catalogs and databases are not supported: name the table with one word", table)
    alias = table.args.get("alias")
    if alias is not None and alias.args.get("columns"):
        raise script.error("COLUMN NAMES after the table's name: not supported", table)
    return JoinClause(node, table.this, alias.name if alias is not None else table.name, _KINDS[kind])


def check_times(script: Script, clauses: Iterable[JoinClause], source: Declared, alias: str) -> None:
    """Every join is of the processing time: PROCTIME(), or a column that the source computes as that.

    Raises:
        ConfigError: at a join of another time.
    """
    for clause in clauses:
        time = clause.node.this.args["version"].expression
        if isinstance(time, exp.Anonymous) and time.name.upper() == "PROCTIME" and not time.expressions:
            continue
        is_clock = isinstance(time, exp.Column) and source.computed.get(time.name) is PROCTIME
        if not (is_clock and isinstance(time, exp.Column) and time.table in {"", alias}):
            reason = "a dimension table is looked up as it is now; want FOR SYSTEM_TIME AS OF PROCTIME(), or a column"
            raise script.error(f"{reason} of {source.name} that is computed AS PROCTIME()", time)


def hint_reports(script: Script, query: exp.Select, names: Iterable[str]) -> tuple[str, ...]:
    """That the hints behind SELECT have no effect; `names` are what the query calls its tables.

    Raises:
        ConfigError: at a hint that is unknown, or that names no table of the query.
    """
    known = list(names)
    found = script.hint_of(query)
    if found is None:
        return ()
    text, place = found
    reports, at = [], 0
    while text[at:].strip():
        match = _HINT.match(text, at)
        if match is None:
            raise ConfigError(f"hint {text.strip()!r} cannot be read; want NAME(table, ...)", place)
        name, arguments = match[1].upper(), [part.strip().strip("`") for part in match[2].split(",")]
        if name not in _HINTS:
            what = f"hint {match[1]} is not known{hint(name, _HINTS)}; known: {', '.join(_HINTS)}"
            more = "; put options into WITH (...)" if name == "OPTIONS" else ""
            raise ConfigError(what + more, place)
        tables = [re.split(r"=", part)[1].strip(" '`") for part in arguments if part.startswith("'table'")]
        plain = [part for part in arguments if "=" not in part]
        for table in (tables or plain) if name in {"LOOKUP", "SKEW"} else plain:
            if table not in known:
                what = f"hint {match[1]}: {table or 'nothing'} is no table of this query{hint(table, known)}"
                raise ConfigError(f"{what}; known: {', '.join(known)}", place)
        reports.append(f"{place}: hint {match[0].strip().rstrip(',')} has no effect: {_HINTS[name]}")
        at = match.end()
    return tuple(reports)


class JoinedTranslator(Translator):
    """Translates expressions over a source and the tables that it is joined with so far."""

    def __init__(self, rules: Mapping[type[exp.Expr], Rule], script: Script, source: Declared, alias: str) -> None:
        names = {column.name: column.name for column in source.table.columns}
        self.scopes = [Scope(source, alias, names)]
        self.shared: set[str] = set()
        self.used: set[str] = set()
        self.notes: dict[str, None] = {}
        columns = {column.name: column for column in source.table.columns}
        super().__init__(rules, script, source.name, columns, dict(source.computed), alias)
        self.columns: dict[str, Column] = columns

    def add(self, join: LookupJoin) -> Scope:
        """One table more.

        Raises:
            ConfigError: the query calls two tables the same.
        """
        alias = join.clause.alias
        if any(scope.alias == alias for scope in self.scopes):
            raise self.error(
                f"two tables of this query are called {alias}; write AS with another name", join.clause.node.this
            )
        taken = {name.lower() for name in self.columns}
        names = {}
        for column in join.table.table.columns:
            shown = f"{alias}.{column.name}"
            while shown.lower() in taken:
                shown += "_"
            taken.add(shown.lower())
            names[column.name] = shown
            # a row of a LEFT JOIN may have found nothing
            self.columns[shown] = replace(column, name=shown, type=types.nullable(column.type))
        self.scopes.append(Scope(join.table, alias, names))
        return self.scopes[-1]

    def column(self, node: exp.Column) -> Typed:
        """A column, by its name alone where only one table has it, else behind the table's."""
        if any(isinstance(part, exp.Star) for part in node.parts):
            raise self.error("* is only possible as a column of SELECT", node)
        found, fields = self._resolved(node)
        typed = self.named(self.columns[found])
        self._refuse_clock(found, node)
        for field in fields:
            typed = self.field(typed, field)
        return typed

    def named(self, column: Column) -> Typed:
        """The value of a column, by its name in the joined rows."""
        self.used.add(column.name)
        return super().named(column)

    def _resolved(self, node: exp.Column) -> tuple[str, list[exp.Identifier]]:
        """The column's name in the joined rows, and the fields behind it."""
        parts = [part for part in node.parts if isinstance(part, exp.Identifier)]
        scope = next((scope for scope in self.scopes if len(parts) > 1 and scope.alias == parts[0].name), None)
        if scope is not None:
            found = scope.names.get(parts[1].name)
            if found is None:
                name, known = parts[1].name, scope.names
                what = f"table {scope.table.name} has no column {name}{hint(name, known)}; known: {', '.join(known)}"
                raise self.error(what, parts[1])
            return found, parts[2:]
        name = parts[0].name
        having = [scope for scope in self.scopes if name in scope.names]
        if not having:
            self._refuse(parts)
        if len(having) > 1 and name not in self.shared:
            ways = " or ".join(f"{scope.alias}.{name}" for scope in having)
            raise self.error(f"column {name} is in several tables of this query; write {ways}", node)
        if len(having) > 1:
            what = f"column {name} without a table is taken from {having[0].alias}: it is a key of the lookup join"
            self.notes[f"{self.script.place(node)}: {what}"] = None
        return having[0].names[name], parts[1:]

    def _refuse(self, parts: list[exp.Identifier]) -> None:
        if len(parts) > 1:
            known = ", ".join(scope.alias for scope in self.scopes)
            raise self.error(
                f"{parts[0].name} is neither a table of this query ({known}) nor one of its columns", parts[0]
            )
        self._refuse_column(parts[0], is_path=False)

    def starred(self, table: str, node: exp.Expr) -> Iterator[Column]:
        """The columns that `*` or `table.*` stands for."""
        scopes = [scope for scope in self.scopes if table in {"", scope.alias}]
        if not scopes:
            known = ", ".join(scope.alias for scope in self.scopes)
            raise self.error(f"{table} is no table of this query; known: {known}", node)
        for scope in scopes:
            for found in scope.names.values():
                self._refuse_clock(found, node)
                yield self.columns[found]

    def plain(self, node: exp.Column) -> Column | None:
        """The column that is named, None when it is a field of one."""
        found, fields = self._resolved(node)
        return None if fields else self.columns[found]

    def reads(self, node: exp.Expr) -> frozenset[str]:
        """The columns of the joined rows that an expression names."""
        notes = dict(self.notes)
        found = frozenset(self._resolved(part)[0] for part in node.find_all(exp.Column))
        self.notes = notes
        return found

    def join(self, join: LookupJoin) -> TranslatedJoin:
        """Take the table into the query, and its ON apart.

        Raises:
            ConfigError: no equality between a column of the table and what comes before, or types that do not fit.
        """
        scope = self.add(join)
        on = join.clause.node.args["on"]
        parts = list(on.flatten()) if isinstance(on, exp.And) else [on]
        keys: list[LookupKey] = []
        rest: list[str] = []
        for part in parts:
            inner = part.unnest()
            key = self._key(scope, inner) if isinstance(inner, exp.EQ) else None
            if key is not None:
                keys.append(key)
            else:
                rest.append(self.predicate(part).sql)
        if not keys:
            what = f"ON wants an equality between a column of {scope.alias} and a value of the rows before it"
            raise self.error(f"{what}, such as {self.alias}.k = {scope.alias}.k", on)
        return TranslatedJoin(join, tuple(keys), " AND ".join(rest) or None, scope)

    def _key(self, scope: Scope, node: exp.EQ) -> LookupKey | None:
        """The equality as a key; None when its sides are not of the table and of what comes before it."""
        mine = set(scope.names.values())
        sides = [node.this, node.expression]
        reads = [self.reads(side) for side in sides]
        own = next((at for at in (0, 1) if reads[at] and reads[at] <= mine and not reads[1 - at] & mine), None)
        if own is None:
            return None
        before = set(self.used)
        typed = [self.translate(side) for side in sides]
        # the table's side is read while it is indexed, not of the joined rows
        self.used -= reads[own] - before
        kind = _key_type(typed)
        if kind is None:
            # says which types cannot be compared
            comparable(self, sides, node)
            return None
        if kind.name in types.NESTED:
            raise self.error(f"{types.shown(kind)} cannot be a key of a lookup join", node)
        self._share(sides)
        columns = {column.name: column for column in scope.table.table.columns}
        table = Translator(self.rules, self.script, scope.table.name, columns, {}, scope.alias).translate(sides[own])
        probe = typed[1 - own]
        return LookupKey(convert(probe.sql, probe.type, kind), convert(table.sql, table.type, kind), kind.arrow)

    def _share(self, sides: list[exp.Expr]) -> None:
        """Remember a name that both sides of an equality have: bare, it is that of the probe."""
        if all(isinstance(side, exp.Column) for side in sides) and sides[0].name == sides[1].name:
            self.shared.add(sides[0].name)


def joined(script: Script, source: Declared, alias: str) -> JoinedTranslator:
    """A translator over a source table and the dimension tables that are joined to it."""
    return JoinedTranslator(translator(script, source.name, {}).rules, script, source, alias)


def join_checks(lookups: Iterable[TranslatedJoin]) -> Iterator[tuple[str, exp.Expr]]:
    """What DuckDB has to take of the joins' conditions, over the joined rows."""
    for each in lookups:
        node = each.join.clause.node.args["on"]
        yield from ((f"SELECT {key.probe} FROM source", node) for key in each.keys)
        if each.residual is not None:
            yield f"SELECT 1 FROM source WHERE {each.residual}", node


def check_lookups(script: Script, lookups: Iterable[TranslatedJoin]) -> None:
    """Bind the dimension tables' side of the equalities.

    Raises:
        ConfigError: at the ON with an expression that DuckDB refuses.
    """
    for each in lookups:
        node = each.join.clause.node.args["on"]
        check(script, each.join.table.table.schema, [(f"SELECT {key.table} FROM source", node) for key in each.keys])


def _key_type(sides: list[Typed]) -> LogicalType | None:
    """The type in which the two are compared: as in any comparison, a string beside a time is read as that time."""
    kinds = [side.type for side in sides]
    clocks = {*types.TIMESTAMPS, "DATE", "TIME"}
    times = [kind for side, kind in zip(sides, kinds, strict=True) if side.name in clocks]
    if times and any(side.name in types.STRINGS for side in sides):
        kinds = times
    return types.common_type(kinds)
