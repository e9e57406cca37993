"""INSERT INTO ... SELECT: what of the SELECT is supported, and which column of the sink gets which expression."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlglot import exp

from vector_assets.declare import flink_types as types
from vector_assets.declare.flink_casts import convert
from vector_assets.declare.flink_expressions import check, translator
from vector_assets.declare.flink_joins import (
    JoinedTranslator,
    LookupJoin,
    TranslatedJoin,
    check_lookups,
    join_checks,
    joined,
)
from vector_assets.declare.flink_script import Script, hint
from vector_assets.declare.flink_tables import Declared
from vector_assets.declare.flink_translator import Translator, Typed
from vector_assets.declare.flink_types import Pseudo, duckdb_type, quoted, shown
from vector_assets.engine.schema import Column, LogicalType, Table

EMBED = "EMBED"
"""The function that is a model's vector of a text; a whole column of the SELECT, because it is made behind it."""
_VECTOR = LogicalType("ARRAY", children=(LogicalType("FLOAT"),))
_ENDLESS = "a stream has no end, so it cannot be {}"
_REFUSED = {
    "with_": "WITH (common table expressions) is not supported",
    "distinct": f"SELECT DISTINCT is not supported: {_ENDLESS.format('compared as a whole')}; "
    "the sink can keep one row per key",
    "laterals": "LATERAL is not supported",
    "windows": "WINDOW is not supported: a pipeline transforms records one by one",
    "order": f"ORDER BY is not supported: {_ENDLESS.format('sorted')}",
    "limit": f"LIMIT is not supported: {_ENDLESS.format('cut off')}",
    "offset": f"OFFSET is not supported: {_ENDLESS.format('cut off')}",
}
_PLAIN = (
    exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.In, exp.Between, exp.Like, exp.Is, exp.And, exp.Or, exp.Not,
    exp.Paren, exp.Column, exp.Identifier, exp.Literal, exp.Null, exp.Boolean,
)  # fmt: skip
_KEPT = {"expressions", "from_", "where", "joins", "group", "having"}
_CAST_BY_ARROW = (types.NUMERIC, types.STRINGS, types.BYTES, ("TIMESTAMP",))


@dataclass(frozen=True, slots=True)
class Selection:
    """The SELECT over `source` in DuckDB's words: (expression, column of the sink) pairs, and the condition.

    `reads` says which columns of the source a column of the sink is made of; `conjuncts` are the parts of the condition
    that all have to hold, each with the columns it reads; `plain` are those that compare columns of the source with
    constants. `named` are the source's stored columns that the query names anywhere. With `lookups`, source means the
    joined rows; `used` are the columns of these that anything reads. `notes` say what was understood that the script
    does not spell out. `embeddings` are the columns that are EMBED of what is projected, each with its syntax node.
    """

    projections: tuple[tuple[str, str], ...]
    where: str | None
    reads: Mapping[str, frozenset[str]] = field(default_factory=dict)
    conjuncts: tuple[tuple[str, frozenset[str]], ...] = ()
    plain: tuple[tuple[str, frozenset[str]], ...] = ()
    named: frozenset[str] = frozenset()
    lookups: tuple[TranslatedJoin, ...] = ()
    used: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    embeddings: tuple[tuple[str, exp.Expr], ...] = ()

    @property
    def embedded(self) -> tuple[str, ...]:
        """The columns of the sink that are vectors of texts."""
        return tuple(name for name, _ in self.embeddings)

    @property
    def text(self) -> str:
        """The whole query."""
        columns = ", ".join(
            f"{f'EMBED({sql})' if name in self.embedded else sql} AS {quoted(name)}" for sql, name in self.projections
        )
        joins = "".join(f" {each.text}" for each in self.lookups)
        return f"SELECT {columns} FROM source{joins}" + (f" WHERE {self.where}" if self.where else "")


@dataclass(frozen=True, slots=True)
class Item:
    """One expression of the SELECT after `*` is written out."""

    node: exp.Expr
    typed: Typed
    column: Column | None
    is_embedded: bool = False


def query_of(script: Script, insert: exp.Expr) -> exp.Select:
    """The plain SELECT of an INSERT.

    Raises:
        ConfigError: at the clause that is not supported.
    """
    query = insert.expression
    while isinstance(query, exp.Subquery) and query.is_wrapper:
        query = query.this
    if isinstance(query, exp.SetOperation):
        raise script.error(f"{query.key.upper()} is not supported: write an INSERT INTO for each SELECT", query)
    if not isinstance(query, exp.Select):
        raise script.error("want a plain SELECT", query)
    for key, reason in _REFUSED.items():
        clause = query.args.get(key)
        if clause:
            node = clause[0] if isinstance(clause, list) else clause
            raise script.error(reason, node)
    for key, clause in query.args.items():
        if clause and key not in _KEPT:
            raise script.error(f"{key.strip('_').upper()} is not supported in SELECT", query)
    return query


def source_of(script: Script, query: exp.Select) -> tuple[exp.Identifier, str]:
    """The table a SELECT reads, and what the query calls it.

    Raises:
        ConfigError: no FROM, or something else than one table.
    """
    from_ = query.args.get("from_")
    if from_ is None:
        raise script.error("SELECT without FROM is not supported: a pipeline reads from a source table", query)
    table = from_.this
    if isinstance(table, exp.Subquery | exp.Select):
        raise script.error("subqueries are not supported: select from the source table itself", table)
    if not isinstance(table, exp.Table) or not isinstance(table.this, exp.Identifier):
        raise script.error("want the name of a source table after FROM", table)
    if table.args.get("version"):
        what = "FOR SYSTEM_TIME AS OF is not supported behind FROM"
        raise script.error(f"{what}: it is for the dimension table of a JOIN", table)
    if table.args.get("db"):
        raise script.error("catalogs and databases are not supported: name the table with one word", table)
    alias = table.args.get("alias")
    extra = next((key for key, value in table.args.items() if value and key not in {"this", "alias"}), None)
    if extra or (alias is not None and alias.args.get("columns")):
        raise script.error(f"{(extra or 'column names').upper()} after the table's name: not supported", table)
    return table.this, alias.name if alias is not None else table.name


def select(
    script: Script, insert: exp.Expr, query: exp.Select, alias: str, source: Declared, sink: Declared,
    joins: Sequence[LookupJoin] = (),
) -> Selection:  # fmt: skip
    """Which column of the sink gets which expression, in the order of the sink's columns.

    Raises:
        ConfigError: at the expression that is not supported, or does not fit its column.
    """
    columns = {column.name: column for column in source.table.columns}
    t = joined(script, source, alias) if joins else translator(script, source.name, columns, source.computed, alias)
    lookups = tuple(t.join(each) for each in joins) if isinstance(t, JoinedTranslator) else ()
    items = list(_items(t, query))
    targets = targets_of(script, insert, sink.table)
    check_count(script, query, items, targets, sink.name)
    chosen = {target.name: fitted(t, item, target, sink.name) for item, target in zip(items, targets, strict=True)}
    where = t.predicate(query.args["where"].this) if query.args.get("where") else None
    checks = [(f"SELECT {sql} FROM source", item.node) for sql, item in zip(chosen.values(), items, strict=True)]
    if where is not None:
        checks.append((f"SELECT 1 FROM source WHERE {where.sql}", query.args["where"].this))
    stored = tuple(column for column in t.columns.values() if column.name not in source.computed)
    check_lookups(script, lookups)
    check(script, Table(source.name, stored).schema, [*join_checks(lookups), *checks])
    projections = tuple(
        (chosen.get(c.name) or f"CAST(NULL AS {duckdb_type(c.type)})", c.name) for c in sink.table.columns
    )
    reads = {target.name: _reads(t, item) for item, target in zip(items, targets, strict=True)}
    notes = [note for pair in zip(items, targets, strict=True) if (note := _cast_note(script, sink.name, *pair))]
    plain = ((t.predicate(node).sql, t.reads(node)) for node in _parts(query) if _is_plain(node))
    conjuncts = tuple(_conjuncts(t, query))
    named = _stored(query, source)
    used = frozenset[str]()
    if isinstance(t, JoinedTranslator):
        every = t.used | (set(columns) if t.used & set(source.computed) else set())
        used = frozenset(every & {column.name for column in stored})
        named = used & set(columns)
    return Selection(
        projections, where.sql if where else None, reads, conjuncts,
        tuple((sql, names) for sql, names in plain if names <= set(columns)), named, lookups, used,
        (*(t.notes if isinstance(t, JoinedTranslator) else ()), *notes),
        tuple((target.name, item.node) for item, target in zip(items, targets, strict=True) if item.is_embedded),
    )  # fmt: skip


def _cast_note(script: Script, sink: str, item: Item, target: Column) -> str | None:
    """That an integer becomes a text without CAST in the script."""
    if not _is_integer_to_text(item.typed.type, target.type):
        return None
    what = f"column {target.name} of table {sink} is {shown(target.type)}, the SELECT gives {shown(item.typed.type)}"
    return f"{script.place(item.node)}: {what}: it is cast implicitly"


def _is_integer_to_text(source: types.Type, target: LogicalType) -> bool:
    """The one implicit cast that Alibaba's Flink makes and open source Flink does not."""
    return isinstance(source, LogicalType) and source.name in types.INTEGERS and target.name in types.STRINGS


def selection_of(
    t: Translator, query: exp.Select, source: Declared, projections: tuple[tuple[str, str], ...], where: str | None,
    reads: Mapping[str, frozenset[str]],
) -> Selection:  # fmt: skip
    """The selection of these projections over one table, with all that its WHERE says of the columns."""
    plain = tuple((t.predicate(node).sql, t.reads(node)) for node in _parts(query) if _is_plain(node))
    return Selection(projections, where, reads, tuple(_conjuncts(t, query)), plain, _stored(query, source))


def _conjuncts(t: Translator, query: exp.Select) -> Iterable[tuple[str, frozenset[str]]]:
    """The parts of the WHERE between its outer ANDs, and the columns that each reads."""
    for node in _parts(query):
        yield t.predicate(node).sql, t.reads(node)


def _parts(query: exp.Select) -> list[exp.Expr]:
    """The parts of the WHERE between its outer ANDs."""
    clause = query.args.get("where")
    if clause is None:
        return []
    return list(clause.this.flatten()) if isinstance(clause.this, exp.And) else [clause.this]


def _is_plain(node: exp.Expr) -> bool:
    """True for comparisons of columns with constants: always the same result for the same values."""
    return all(isinstance(part, _PLAIN) for part in node.walk())


def _stored(query: exp.Select, source: Declared) -> frozenset[str]:
    """The stored columns that a query names, by itself, by `*`, or by a computed column or watermark."""
    stored = frozenset(column.name for column in source.table.columns if column.kind != "computed")
    if source.computed or any(isinstance(part, exp.Star) for part in _outside_calls(query)):
        return stored
    return frozenset(part.name for part in query.find_all(exp.Identifier)) & stored


def _outside_calls(query: exp.Select) -> Iterable[exp.Expr]:
    """Every node of a query but the arguments of its functions: the star of COUNT(*) is no column."""
    return (part for part in query.walk() if not isinstance(part.parent, exp.Anonymous))


def _reads(t: Translator, item: Item) -> frozenset[str]:
    """Columns of the source that an expression names; a computed column counts as itself."""
    if item.column is not None:
        return frozenset({item.column.name})
    return t.reads(item.node)


def _items(t: Translator, query: exp.Select) -> Iterable[Item]:
    for node in query.expressions:
        inner = node.this if isinstance(node, exp.Alias) else node
        star = inner.this if isinstance(inner, exp.Column) and isinstance(inner.this, exp.Star) else inner
        if isinstance(inner, exp.Anonymous) and inner.name.upper() == EMBED:
            yield _embedded(t, node, inner)
            continue
        if not isinstance(star, exp.Star):
            typed = t.translate(inner)
            column = t.plain(inner) if isinstance(inner, exp.Column) else None
            yield Item(node, typed, column if column and typed == t.named(column) else None)
            continue
        if any(star.args.values()):
            raise t.error("* takes no EXCEPT, REPLACE or RENAME in Flink SQL", node)
        for column in t.starred(inner.table if isinstance(inner, exp.Column) else "", node):
            yield Item(node, t.named(column), column)


def _embedded(t: Translator, node: exp.Expr, call: exp.Anonymous) -> Item:
    """EMBED(text): the text stays one until the vectors are made, behind the SELECT."""
    if len(call.expressions) != 1:
        raise t.error(f"{EMBED} takes 1 argument(s), found {len(call.expressions)}", call)
    text = t.string(call.expressions[0], EMBED)
    return Item(node, Typed(text.sql, _VECTOR), None, is_embedded=True)


def targets_of(script: Script, insert: exp.Expr, sink: Table) -> list[Column]:
    """The sink's columns that the SELECT fills, in its order."""
    columns = {column.name: column for column in sink.columns}
    if not isinstance(insert.this, exp.Schema):
        return list(sink.columns)
    targets: dict[str, Column] = {}
    for node in insert.this.expressions:
        name = node.name
        if name not in columns:
            known = ", ".join(columns)
            raise script.error(f"table {sink.name} has no column {name}{hint(name, columns)}; known: {known}", node)
        if name in targets:
            raise script.error(f"column {name} is named twice", node)
        targets[name] = columns[name]
    for column in sink.columns:
        if column.name not in targets and not column.type.nullable:
            what = f"column {column.name} of table {sink.name} is NOT NULL"
            raise script.error(f"{what}: it must be among the columns of the INSERT", insert.this.expressions[0])
    return list(targets.values())


def check_count(script: Script, query: exp.Select, items: list[Item], targets: list[Column], sink: str) -> None:
    """Refuse a SELECT of more or fewer columns than the INSERT fills.

    Raises:
        ConfigError: at the first column too many, or at the SELECT.
    """
    if len(items) == len(targets):
        return
    names = ", ".join(target.name for target in targets)
    node = items[len(targets)].node if len(items) > len(targets) else query
    gives = f"the SELECT gives {len(items)}"
    raise script.error(f"INSERT INTO {sink} fills {len(targets)} columns ({names}), {gives}", node)


def fitted(t: Translator, item: Item, target: Column, sink: str) -> str:
    """The expression as the target's type, where Flink converts it without CAST."""
    kind = item.typed.type
    if kind is Pseudo.NULL and not target.type.nullable:
        raise t.error(f"column {target.name} of table {sink} is NOT NULL, the SELECT gives NULL", item.node)
    if not types.casts_implicitly(kind, target.type) and not _is_integer_to_text(kind, target.type):
        name = f"column {item.column.name}, " if item.column else ""
        found = f"{name}{shown(kind)}"
        wanted = shown(target.type)
        remedy = f"; write CAST(... AS {wanted})" if types.casts_explicitly(kind, target.type) else ""
        raise t.error(f"column {target.name} of table {sink} is {wanted}, the SELECT gives {found}{remedy}", item.node)
    if item.is_embedded:
        return item.typed.sql
    if item.column is not None and item.column.kind != "computed" and _is_cast_by_arrow(kind, target.type):
        return item.typed.sql
    return convert(item.typed.sql, kind, target.type)


def _is_cast_by_arrow(source: types.Type, target: LogicalType) -> bool:
    """Whether the transform itself may convert a plain column: it does so without DuckDB, and with the same result."""
    if not isinstance(source, LogicalType) or (target.name == "DECIMAL" and source.name in {"FLOAT", "DOUBLE"}):
        return False
    if (
        target.name == "TIMESTAMP"
        and (target.precision or 0) < (source.precision or 0)
        and target.precision not in {3, 6}
    ):
        # Arrow's units are thousands apart: it cannot cut to any other number of digits
        return False
    return any(source.name in family and target.name in family for family in _CAST_BY_ARROW)
