"""SELECT ... GROUP BY: which values a record adds to its group, and what the sink gets of a group.

Result types are Flink's: COUNT is BIGINT, SUM and AVG of a number are of its type (SUM of DECIMAL(p, s) is
DECIMAL(38, s), AVG of it DECIMAL(38, max(6, s))), MIN and MAX of their argument's. Integers are summed exactly, and a
sum that does not fit its type is an error where Flink wraps it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from sqlglot import exp

from vector_assets.declare import flink_types as types
from vector_assets.declare.flink_expressions import check, translator
from vector_assets.declare.flink_functions import AGGREGATES
from vector_assets.declare.flink_script import Script
from vector_assets.declare.flink_select import (
    Item,
    Selection,
    check_count,
    fitted,
    selection_of,
    targets_of,
)
from vector_assets.declare.flink_tables import Declared
from vector_assets.declare.flink_translator import Translator, Typed
from vector_assets.declare.flink_types import BIGINT, NESTED, Pseudo, duckdb_type, nullable, quoted, shown
from vector_assets.engine.schema import Column, LogicalType, Table
from vector_assets.transforms.groups import GroupBy, Kept, Key, Result

SUPPORTED = ("AVG", "COUNT", "MAX", "MIN", "SUM")
_KNOWN = "known: COUNT, SUM, MIN, MAX, AVG and COUNT(DISTINCT ...)"
_WINDOWS = {"TUMBLE", "HOP", "CUMULATE", "SESSION"}
_SETS: dict[type[exp.Expr], str] = {exp.GroupingSets: "GROUPING SETS", exp.Rollup: "ROLLUP", exp.Cube: "CUBE"}
_COMPARABLE = (*types.NUMERIC, *types.STRINGS, "BOOLEAN", "DATE", "TIME", *types.TIMESTAMPS)


@dataclass(frozen=True, slots=True)
class Grouped:
    """A SELECT with aggregates: the rows that go into the groups (`selection`, of `inputs`), and the groups."""

    selection: Selection
    inputs: Table
    groups: GroupBy
    text: str


def is_grouped(query: exp.Select) -> bool:
    """Whether the SELECT makes a row of several: by GROUP BY, HAVING or an aggregate in its list."""
    if query.args.get("group") or query.args.get("having"):
        return True
    calls = (call for node in query.expressions for call in node.find_all(exp.Anonymous))
    return any(call.name.upper() in AGGREGATES and not isinstance(call.parent, exp.Window) for call in calls)


def grouped(
    script: Script, insert: exp.Expr, query: exp.Select, alias: str, source: Declared, sink: Declared
) -> Grouped:
    """Compile a SELECT for which `is_grouped` holds.

    Raises:
        ConfigError: at what is not supported, is neither a group key nor an aggregate, or does not fit its column.
    """
    columns = {column.name: column for column in source.table.columns}
    t = translator(script, source.name, columns, source.computed, alias)
    parts = _Parts(t)
    for node in _key_nodes(script, query):
        parts.add_key(node)
    rewritten = [(node, parts.over_groups(_inner(node))) for node in query.expressions]
    having_node = query.args.get("having")
    having = parts.over_groups(having_node.this) if having_node else None
    after = translator(script, source.name, parts.columns(), {}, alias)
    items = [_item(after, node, over) for node, over in rewritten]
    targets = targets_of(script, insert, sink.table)
    check_count(script, query, items, targets, sink.name)
    chosen = {target.name: fitted(after, item, target, sink.name) for item, target in zip(items, targets, strict=True)}
    condition = after.predicate(having).sql if having is not None else None
    where = t.predicate(query.args["where"].this).sql if query.args.get("where") else None
    _check(
        script, query, source, parts, where, list(zip(chosen.values(), (i.node for i in items), strict=True)), condition
    )
    projections = tuple(
        (chosen.get(c.name) or f"CAST(NULL AS {duckdb_type(c.type)})", c.name) for c in sink.table.columns
    )
    reads = {target.name: t.reads(node) for (node, _), target in zip(rewritten, targets, strict=True)}
    selection = selection_of(t, query, source, parts.projections(), where, reads)
    holders = {target.name: over.name for (_, over), target in zip(rewritten, targets, strict=True)}
    _check_key(script, query, parts, holders, sink)
    groups = parts.group_by(holders, projections, condition, sink, f"{selection.text}")
    return Grouped(selection, parts.inputs(source.name), groups, _text(groups, where))


@dataclass
class _Parts:
    """What the groups are made of, gathered while the script's expressions are read."""

    t: Translator
    keys: list[tuple[str, exp.Expr, Typed]] = field(default_factory=list)
    arguments: dict[str, tuple[str, LogicalType]] = field(default_factory=dict)
    kept: dict[str, Kept] = field(default_factory=dict)
    results: dict[str, tuple[Result, LogicalType]] = field(default_factory=dict)

    def add_key(self, node: exp.Expr) -> None:
        """A GROUP BY expression; one that is there already changes nothing."""
        typed = self.t.translate(node)
        if typed.type is Pseudo.NULL or typed.name in NESTED or typed.type is Pseudo.INTERVAL:
            raise self.t.error(f"GROUP BY wants a value that can be compared, found {shown(typed.type)}", node)
        identity = self._identity(node)
        if all(identity != known for known, _, _ in self.keys):
            self.keys.append((identity, node, typed))

    def over_groups(self, node: exp.Expr) -> exp.Expr:
        """The expression over the columns of a group, instead of those of the source.

        Raises:
            ConfigError: at a column that is neither a group key nor inside an aggregate.
        """
        name = self._column_of(node)
        if name is not None:
            return exp.column(exp.to_identifier(name, quoted=True)).update_positions(_place(node))
        if isinstance(node, exp.Column | exp.Star):
            known = ", ".join(key.sql() for _, key, _ in self.keys) or "none"
            what = "*" if isinstance(node, exp.Star) or isinstance(node.this, exp.Star) else node.sql()
            if not isinstance(node, exp.Star) and not isinstance(node.this, exp.Star):
                self.t.translate(node)
            raise self.t.error(
                f"{what} is neither in GROUP BY nor inside an aggregate; group keys: {known}; {_KNOWN}",
                node,
            )
        over = node.copy()
        for key, value in node.args.items():
            if isinstance(value, exp.Expr):
                over.set(key, self.over_groups(value))
            elif isinstance(value, list):
                over.set(key, [self.over_groups(v) if isinstance(v, exp.Expr) else v for v in value])
        return over

    def _column_of(self, node: exp.Expr) -> str | None:
        """The column of a group that an expression is, None when it is made of several or of none."""
        if not isinstance(node, exp.Literal | exp.Identifier):
            identity = self._identity(node)
            for number, (known, _, _) in enumerate(self.keys):
                if identity == known:
                    return _key_name(number)
        call, condition = (node.this, node.expression.this) if isinstance(node, exp.Filter) else (node, None)
        if isinstance(call, exp.Anonymous) and call.name.upper() in AGGREGATES:
            return self._aggregate(call, condition, node)
        if isinstance(node, exp.Window):
            raise self.t.error(f"OVER is not supported: windows are not; {_KNOWN}", node)
        return None

    def _identity(self, node: exp.Expr) -> str:
        """Text that is equal for expressions that mean the same: of columns without the table's name."""
        node = node.copy()
        while isinstance(node, exp.Paren):
            node = node.this
        for column in [node, *node.find_all(exp.Column)]:
            if isinstance(column, exp.Column) and column.table in {"", self.t.alias}:
                column.set("table", None)
                column.this.set("quoted", True)  # noqa: FBT003
        return node.sql()

    def _aggregate(self, call: exp.Anonymous, condition: exp.Expr | None, node: exp.Expr) -> str:
        name = call.name.upper()
        if name not in SUPPORTED:
            raise self.t.error(f"aggregate function {name} is not supported; {_KNOWN}", call)
        if len(call.expressions) != 1:
            raise self.t.error(f"{name} takes 1 argument, found {len(call.expressions)}; {_KNOWN}", call)
        (argument,) = call.expressions
        is_distinct = isinstance(argument, exp.Distinct)
        if is_distinct:
            if len(argument.expressions) != 1 or argument.args.get("on"):
                raise self.t.error(f"{name}(DISTINCT ...) of several values is not supported; {_KNOWN}", call)
            (argument,) = argument.expressions
            if name in {"SUM", "AVG"}:
                raise self.t.error(f"{name}(DISTINCT ...) is not supported; {_KNOWN}", call)
        text = node.sql()
        result, kind = self._made(name, argument, condition, call, is_distinct=is_distinct and name == "COUNT")
        known = self.results.setdefault(result, (Result(f"_agg{len(self.results) + 1}", result, text), kind))
        return known[0].name

    def _made(
        self, name: str, argument: exp.Expr, condition: exp.Expr | None, call: exp.Expr, *, is_distinct: bool
    ) -> tuple[str, LogicalType]:
        """DuckDB's text of the aggregate over what is kept of a group, and its type."""
        chosen = self.t.predicate(condition).sql if condition is not None else None
        if isinstance(argument, exp.Star):
            if name != "COUNT":
                raise self.t.error(f"{name} takes a value, found *; {_KNOWN}", call)
            if chosen is None:
                return self._kept("count(*)", "BIGINT", BIGINT, _ADDED), BIGINT
            one = self._argument(f"CASE WHEN {chosen} THEN 1 END", types.INT)
            return self._kept(f"count({one})", "BIGINT", BIGINT, _ADDED), BIGINT
        typed = self.t.translate(argument)
        if not isinstance(typed.type, LogicalType):
            raise self.t.error(f"{name} wants a value of a known type, found {shown(typed.type)}; use CAST", argument)
        kind = nullable(typed.type)
        self._check_argument(name, kind, argument, is_distinct=is_distinct)
        value = typed.sql if chosen is None else f"CASE WHEN {chosen} THEN {typed.sql} END"
        column = self._argument(value, kind)
        if is_distinct:
            listed = f"list_sort(list_distinct(list({column})))"
            union = "list_sort(list_distinct(list_concat({old}, {new})))"
            values = self._kept(listed, f"{duckdb_type(kind)}[]", LogicalType("ARRAY", children=(kind,)), union)
            return f"CAST(coalesce(len({values}), 0) AS BIGINT)", BIGINT
        if name == "COUNT":
            return self._kept(f"count({column})", "BIGINT", BIGINT, _ADDED), BIGINT
        if name in {"MIN", "MAX"}:
            sign = "<" if name == "MIN" else ">"
            best = f"CASE WHEN {{old}} IS NULL OR {{new}} {sign} {{old}} THEN {{new}} ELSE {{old}} END"
            return self._kept(f"{name.lower()}({column})", duckdb_type(kind), kind, best), kind
        return self._summed(name, column, kind)

    def _check_argument(self, name: str, kind: LogicalType, node: exp.Expr, *, is_distinct: bool) -> None:
        wanted = (
            types.NUMERIC if name in {"SUM", "AVG"} else _COMPARABLE if name in {"MIN", "MAX"} or is_distinct else ()
        )
        if wanted and kind.name not in wanted:
            what = "a number" if wanted is types.NUMERIC else "a number, a text, a BOOLEAN or a time"
            raise self.t.error(f"{name} wants {what}, found {shown(kind)}; use CAST", node)

    def _summed(self, name: str, column: str, kind: LogicalType) -> tuple[str, LogicalType]:
        if kind.name in {"FLOAT", "DOUBLE"}:
            total = self._kept(f"sum(CAST({column} AS DOUBLE))", "DOUBLE", types.DOUBLE, _SUMMED)
            value = total if name == "SUM" else f"{total} / {self._kept(f'count({column})', 'BIGINT', BIGINT, _ADDED)}"
            return f"CAST({value} AS {duckdb_type(kind)})", kind
        scale = kind.scale or 0 if kind.name == "DECIMAL" else 0
        exact = LogicalType("DECIMAL", 38, scale)
        total = self._kept(f"CAST(sum({column}) AS {duckdb_type(exact)})", duckdb_type(exact), exact, _SUMMED)
        if name == "SUM":
            result = exact if kind.name == "DECIMAL" else kind
            return f"CAST({total} AS {duckdb_type(result)})", result
        count = self._kept(f"count({column})", "BIGINT", BIGINT, _ADDED)
        if kind.name != "DECIMAL":
            # whole numbers, cut towards zero as Java's division does
            return f"CAST(CAST({total} AS HUGEINT) // nullif({count}, 0) AS {duckdb_type(kind)})", kind
        return _exact_mean(total, count, scale)

    def _argument(self, sql: str, kind: LogicalType) -> str:
        """The column that holds an aggregate's argument before the groups are made."""
        return quoted(self.arguments.setdefault(sql, (f"_arg{len(self.arguments) + 1}", kind))[0])

    def _kept(self, partial: str, type_: str, kind: LogicalType, merge: str) -> str:
        name = f"_kept{len(self.kept) + 1}"
        return quoted(self.kept.setdefault(partial, Kept(name, type_, kind.arrow, partial, merge)).name)

    def columns(self) -> dict[str, Column]:
        """The columns of a group as expressions of the SELECT see them."""
        keys = {_key_name(n): Column(_key_name(n), _kind(typed)) for n, (_, _, typed) in enumerate(self.keys)}
        return keys | {result.name: Column(result.name, kind) for result, kind in self.results.values()}

    def projections(self) -> tuple[tuple[str, str], ...]:
        """What is taken of a record: its keys and the aggregates' arguments; something at least."""
        keys = [(typed.sql, _key_name(number)) for number, (_, _, typed) in enumerate(self.keys)]
        arguments = [(sql, name) for sql, (name, _) in self.arguments.items()]
        return (*keys, *arguments) or (("true", "_any"),)

    def inputs(self, name: str) -> Table:
        """The table of `projections`."""
        keys = [Column(_key_name(number), _kind(typed)) for number, (_, _, typed) in enumerate(self.keys)]
        arguments = [Column(column, kind) for column, kind in self.arguments.values()]
        return Table(name, tuple([*keys, *arguments] or [Column("_any", types.BOOLEAN)]))

    def group_by(
        self, holders: Mapping[str, str], projections: tuple[tuple[str, str], ...], having: str | None, sink: Declared,
        rows: str,
    ) -> GroupBy:  # fmt: skip
        """All of it."""
        keys = tuple(
            Key(_key_name(n), duckdb_type(_kind(typed)), _kind(typed).arrow, node.sql(),
                frozenset(name for name, column in holders.items() if column == _key_name(n)))
            for n, (_, node, typed) in enumerate(self.keys)
        )  # fmt: skip
        kept = tuple(self.kept.values())
        sums = ", ".join(f"{part.partial} AS {part.name} {part.type}" for part in kept)
        results = tuple(result for result, _ in self.results.values())
        meaning = f"{rows} -> {', '.join(f'{key.name} {key.type}' for key in keys)}: {sums}"
        return GroupBy(keys, kept, results, projections, having, sink.table.schema, sink.table.primary_key, meaning)


_ADDED = "coalesce({old}, 0) + coalesce({new}, 0)"
_SUMMED = "coalesce({old} + {new}, {old}, {new})"


def _exact_mean(total: str, count: str, scale: int) -> tuple[str, LogicalType]:
    """The mean of a DECIMAL: in integers, for DuckDB divides in floating point; rounded half up."""
    wanted = max(6, scale)
    digits = f"CAST(replace(CAST({total} AS VARCHAR), '.', '') AS HUGEINT)"
    rounded = f"(abs({digits}) * {10 ** (wanted - scale)} * 2 + {count}) // nullif(2 * {count}, 0)"
    unit = f"CAST('0.{'0' * (wanted - 1)}1' AS DECIMAL({wanted}, {wanted}))"
    sign = f"CASE WHEN {total} < 0 THEN -1 ELSE 1 END"
    return f"CAST({sign} * ({rounded}) AS DECIMAL(38, 0)) * {unit}", LogicalType("DECIMAL", 38, wanted)


def _key_nodes(script: Script, query: exp.Select) -> Iterator[exp.Expr]:
    """The expressions of GROUP BY.

    Raises:
        ConfigError: at a grouping that is not supported.
    """
    group = query.args.get("group")
    if group is None:
        return
    for key, value in group.args.items():
        if value and key != "expressions":
            raise script.error(f"GROUP BY {key.strip('_').upper()} is not supported; group by expressions", group)
    for node in group.expressions:
        parts = node.expressions if isinstance(node, exp.Tuple) else [node]
        for part in parts:
            yield _key_node(script, part)


def _key_node(script: Script, node: exp.Expr) -> exp.Expr:
    if type(node) in _SETS:
        raise script.error(
            f"{_SETS[type(node)]} is not supported in GROUP BY: write an INSERT INTO for each grouping", node
        )
    if isinstance(node, exp.Anonymous) and node.name.upper() in _WINDOWS:
        raise script.error(
            f"{node.name.upper()} is not supported: windows are not; group by a part of the time instead, such as"
            " DATE_FORMAT(ts, 'yyyy-MM-dd HH:mm')",
            node,
        )
    if isinstance(node, exp.Literal):
        raise script.error("GROUP BY wants an expression; columns of the SELECT are not known by their number", node)
    return node


def _inner(node: exp.Expr) -> exp.Expr:
    return node.this if isinstance(node, exp.Alias) else node


def _item(t: Translator, node: exp.Expr, over: exp.Expr) -> Item:
    return Item(node, t.translate(over), None)


def _kind(typed: Typed) -> LogicalType:
    assert isinstance(typed.type, LogicalType), "keys have types of columns"
    return nullable(typed.type)


def _key_name(number: int) -> str:
    return f"_key{number + 1}"


def _place(node: exp.Expr) -> exp.Expr:
    """The first part of an expression that knows where it stands."""
    return next((part for part in node.walk() if "start" in part.meta), node)


def _check(
    script: Script, query: exp.Select, source: Declared, parts: _Parts, where: str | None,
    items: list[tuple[str, exp.Expr]], having: str | None,
) -> None:  # fmt: skip
    """Bind everything in DuckDB: over a record, and over a group."""
    stored = tuple(column for column in source.table.columns if column.kind != "computed")
    checks = [(f"SELECT {sql} FROM source", query) for sql, _ in parts.projections()]
    if where is not None:
        checks.append((f"SELECT 1 FROM source WHERE {where}", query.args["where"].this))
    check(script, Table(source.name, stored).schema, checks)
    over = [(f"SELECT {sql} FROM source", node) for sql, node in items]
    if having is not None:
        over.append((f"SELECT 1 FROM source WHERE {having}", query.args["having"].this))
    check(script, Table(source.name, tuple(parts.columns().values())).schema, over)


def _check_key(
    script: Script, query: exp.Select, parts: _Parts, holders: Mapping[str, str], sink: Declared
) -> None:  # fmt: skip
    """Two groups must not have one row: each group key stands as it is in a column of the sink's PRIMARY KEY."""
    held = {holders.get(column) for column in sink.table.primary_key}
    for number, (_, node, _) in enumerate(parts.keys if sink.table.primary_key else ()):
        if _key_name(number) not in held:
            key = ", ".join(sink.table.primary_key)
            raise script.error(
                f"group key {node.sql()} is in no column of the PRIMARY KEY ({key}) of table {sink.name}:"
                " several groups would have one row; select it into a key column, or leave it out of GROUP BY",
                node,
            )


def _text(groups: GroupBy, where: str | None) -> str:
    """The query for people: expressions over groups with the script's own words for keys and aggregates."""
    parts: tuple[Key | Result, ...] = (*groups.group_keys, *groups.results)
    words = {quoted(part.name): part.text for part in parts}
    told = re.compile("|".join(map(re.escape, words)) or "(?!)")

    def plain(sql: str) -> str:
        return told.sub(lambda found: words[found[0]], sql)

    columns = ", ".join(f"{plain(sql)} AS {quoted(name)}" for sql, name in groups.projections)
    keys = ", ".join(key.text for key in groups.group_keys)
    return (
        f"SELECT {columns} FROM source"
        + (f" WHERE {where}" if where else "")
        + (f" GROUP BY {keys}" if keys else "")
        + (f" HAVING {plain(groups.having)}" if groups.having else "")
    )
