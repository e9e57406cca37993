"""Operators, literals, casts and constructors: the rules of `Translator` that are not functions."""

from collections.abc import Callable

from sqlglot import exp

from vector_assets.declare import flink_types as types
from vector_assets.declare.flink_casts import cast, convert, failing, text
from vector_assets.declare.flink_translator import Rule, Translator, Typed, nondeterministic
from vector_assets.declare.flink_types import BOOLEAN, STRING, Pseudo, duckdb_type, shown
from vector_assets.engine.schema import LogicalType

_COMPARISONS: dict[type[exp.Expr], str] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
    exp.NullSafeEQ: "IS NOT DISTINCT FROM",
    exp.NullSafeNEQ: "IS DISTINCT FROM",
}
_ARITHMETIC: dict[type[exp.Expr], str] = {exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.Div: "/", exp.Mod: "%"}
_INTERVALS = ("SECOND", "MINUTE", "HOUR", "DAY", "MONTH", "YEAR")


def _literal(t: Translator, node: exp.Expr) -> Typed:
    value = node.name
    if node.args.get("is_string"):
        return Typed(text(value), LogicalType("CHAR", len(value)) if value else STRING, value)
    if "e" in value.lower():
        return Typed(f"CAST({value} AS DOUBLE)", types.DOUBLE, value)
    whole, point, fraction = value.partition(".")
    if len(whole.lstrip("0")) + len(fraction) > 38:
        raise t.error("a number may have 38 digits", node)
    if not point:
        number = int(whole)
        if number < 2**63:
            return Typed(value, types.INT if number < 2**31 else types.BIGINT, value)
        kind = LogicalType("DECIMAL", len(whole.lstrip("0")), 0)
        return Typed(f"CAST({value} AS {duckdb_type(kind)})", kind, value)
    scale = len(fraction)
    kind = LogicalType("DECIMAL", max(len(whole.lstrip("0")) + scale, 1), scale)
    return Typed(f"CAST({whole or '0'}.{fraction or '0'} AS {duckdb_type(kind)})", kind)


def _negative(t: Translator, node: exp.Expr) -> Typed:
    inner = t.translate(node.this)
    if inner.type is Pseudo.INTERVAL or inner.has(*types.NUMERIC):
        is_number = inner.literal is not None and inner.type is not Pseudo.INTERVAL
        return Typed(f"(-{inner.sql})", inner.type, f"-{inner.literal}" if is_number else inner.literal)
    raise t.error(f"- wants a number, found {shown(inner.type)}", node)


def _paren(t: Translator, node: exp.Expr) -> Typed:
    inner = t.translate(node.this)
    return Typed(f"({inner.sql})", inner.type, inner.literal)


def _logic(word: str) -> Callable[[Translator, exp.Expr], Typed]:
    def rule(t: Translator, node: exp.Expr) -> Typed:
        return Typed(f"({t.predicate(node.this).sql} {word} {t.predicate(node.expression).sql})", BOOLEAN)

    return rule


def _not(t: Translator, node: exp.Expr) -> Typed:
    return Typed(f"(NOT {t.predicate(node.this).sql})", BOOLEAN)


def comparable(t: Translator, nodes: list[exp.Expr], where: exp.Expr) -> list[str]:
    """The nodes' texts in types that can be compared; a string beside a time is read as that time, as in Flink."""
    typed = [t.translate(node) for node in nodes]
    times = [part.type for part in typed if part.name in {*types.TIMESTAMPS, "DATE", "TIME"}]
    if times and any(part.name in types.STRINGS for part in typed):
        time = types.common_type(times)
        if time is not None:
            typed = [
                Typed(convert(part.sql, part.type, time), time) if part.name in types.STRINGS else part
                for part in typed
            ]
    kind = types.common_type([part.type for part in typed])
    if kind is None:
        found = " and ".join(dict.fromkeys(shown(part.type) for part in typed))
        raise t.error(f"{found} cannot be compared; use CAST", where)
    return [convert(part.sql, part.type, kind) if kind.name in types.TIMESTAMPS else part.sql for part in typed]


def _compare(t: Translator, node: exp.Expr) -> Typed:
    left, right = comparable(t, [node.this, node.expression], node)
    return Typed(f"({left} {_COMPARISONS[type(node)]} {right})", BOOLEAN)


def _between(t: Translator, node: exp.Expr) -> Typed:
    if node.args.get("symmetric"):
        raise t.error("BETWEEN SYMMETRIC is not supported", node)
    this, low, high = comparable(t, [node.this, node.args["low"], node.args["high"]], node)
    return Typed(f"({this} BETWEEN {low} AND {high})", BOOLEAN)


def _in(t: Translator, node: exp.Expr) -> Typed:
    if not node.expressions or any(node.args.get(key) for key in ("query", "unnest", "field")):
        raise t.error("IN wants a list of values; subqueries are not supported", node)
    this, *values = comparable(t, [node.this, *node.expressions], node)
    return Typed(f"({this} IN ({', '.join(values)}))", BOOLEAN)


def _is(t: Translator, node: exp.Expr) -> Typed:
    what = node.expression
    if isinstance(what, exp.Null):
        return Typed(f"({t.translate(node.this).sql} IS NULL)", BOOLEAN)
    if isinstance(what, exp.Boolean):
        word = "TRUE" if what.this else "FALSE"
        return Typed(f"({t.predicate(node.this).sql} IS NOT DISTINCT FROM {word})", BOOLEAN)
    if what.name.upper() == "UNKNOWN":
        return Typed(f"({t.predicate(node.this).sql} IS NULL)", BOOLEAN)
    raise t.error("only IS [NOT] NULL, TRUE, FALSE, UNKNOWN and DISTINCT FROM are supported", node)


def _like(t: Translator, node: exp.Expr) -> Typed:
    escape = ""
    if isinstance(node, exp.Escape):
        escape = f" ESCAPE {t.string(node.expression, 'ESCAPE').sql}"
        node = node.this
    this, pattern = t.string(node.this, "LIKE"), t.string(node.expression, "LIKE")
    return Typed(f"({this.sql} LIKE {pattern.sql}{escape})", BOOLEAN)


def _concat(t: Translator, node: exp.Expr) -> Typed:
    sides = [t.translate(node.this), t.translate(node.expression)]
    for family, kind in ((types.STRINGS, STRING), (types.BYTES, types.BINARY)):
        if all(side.has(*family) for side in sides):
            left, right = (convert(side.sql, side.type, kind) for side in sides)
            return Typed(f"({left} || {right})", kind)
    wrong = next(index for index in (0, 1) if not sides[index].has(*types.STRINGS))
    raise t.error(f"|| wants strings, found {shown(sides[wrong].type)}; use CAST", (node.this, node.expression)[wrong])


def _case(t: Translator, node: exp.Expr) -> Typed:
    branches = node.args["ifs"]
    results = [branch.args["true"] for branch in branches]
    default = node.args.get("default")
    values, kind = t.common([*results, *([default] if default is not None else [])], "CASE")
    whens = [
        " = ".join(comparable(t, [node.this, branch.this], branch.this)) if node.this else t.predicate(branch.this).sql
        for branch in branches
    ]
    arms = " ".join(f"WHEN {when} THEN {value}" for when, value in zip(whens, values, strict=False))
    last = f" ELSE {values[-1]}" if default is not None else ""
    return Typed(f"CASE {arms}{last} END", kind)


def _cast(t: Translator, node: exp.Expr) -> Typed:
    typed, kind = t.translate(node.this), t.logical_type(node.args["to"])
    if not types.casts_explicitly(typed.type, kind):
        raise t.error(f"CAST from {shown(typed.type)} to {shown(kind)} is not supported", node)
    if kind.name in types.BYTES and kind.precision is not None:
        raise t.error(f"CAST to {shown(kind)} is not supported; use BYTES", node)
    if isinstance(node.this, exp.Literal) and kind.name == "TIMESTAMP" and not node.args["to"].expressions:
        kind = LogicalType("TIMESTAMP", min(len(node.this.name.partition(".")[2]) or 6, 9))
    return Typed(cast(typed.sql, typed.type, kind, safe=isinstance(node, exp.TryCast)), types.nullable(kind))


def _interval(t: Translator, node: exp.Expr) -> Typed:
    unit = node.args.get("unit")
    word = unit.name.upper() if isinstance(unit, exp.Var) else ""
    value = node.this.name if isinstance(node.this, exp.Literal) else ""
    number = value.removeprefix("-").removeprefix("+")
    fits = number.isdigit() or (word == "SECOND" and number.replace(".", "", 1).isdigit())
    if word not in _INTERVALS or not fits:
        raise t.error(f"want INTERVAL '<number>' with one unit of {', '.join(_INTERVALS)}", node)
    return Typed(f"INTERVAL '{value} {word.lower()}s'", Pseudo.INTERVAL, word)


def _arithmetic(t: Translator, node: exp.Expr) -> Typed:
    return compute(t, _ARITHMETIC[type(node)], t.translate(node.this), t.translate(node.expression), node)


def compute(t: Translator, sign: str, left: Typed, right: Typed, node: exp.Expr) -> Typed:
    """An arithmetic operation by Flink's rules: integers stay integers, DECIMAL keeps its digits."""
    if Pseudo.INTERVAL in (left.type, right.type) and sign in "+-":
        return _shift(t, sign, left, right, node)
    for side in (left, right):
        if not side.has(*types.NUMERIC):
            hint = "; for the time between two points use TIMESTAMPDIFF" if side.name in types.TIMESTAMPS else ""
            raise t.error(f"{sign} wants numbers, found {shown(side.type)}{hint}", node)
    known = [side.type for side in (left, right) if isinstance(side.type, LogicalType)] or [types.INT]
    a, b = known[0], known[-1]
    kind = types.common_number(a, b)
    if kind.name in types.INTEGERS:
        sign = "//" if sign == "/" else sign
    elif kind.name == "DECIMAL":
        return _decimal(t, sign, (left, a), (right, b), node)
    return Typed(f"({convert(left.sql, left.type, kind)} {sign} {convert(right.sql, right.type, kind)})", kind)


def _decimal(
    t: Translator, sign: str, left: tuple[Typed, LogicalType], right: tuple[Typed, LogicalType], node: exp.Expr
) -> Typed:
    (p1, s1), (p2, s2) = types.digits(left[1]), types.digits(right[1])
    scale = max(s1, s2)
    if sign == "/":
        raise t.error("DECIMAL division is not supported; CAST one side to DOUBLE", node)
    if sign == "*":
        precision, scale = p1 + p2, s1 + s2
    elif sign == "%":
        precision = min(p1 - s1, p2 - s2) + scale
    else:
        precision = max(p1 - s1, p2 - s2) + scale + 1
    if scale > 38:
        raise t.error("the result would have more than 38 decimal places; CAST one side to DOUBLE", node)
    kind = types.decimal(precision, scale)
    # DuckDB computes in 18 digits where both sides fit them, and overflows where the result does not
    width = 38 if precision > 18 else p1
    a = convert(left[0].sql, left[0].type, LogicalType("DECIMAL", width, s1))
    b = convert(right[0].sql, right[0].type, LogicalType("DECIMAL", p2, s2))
    return Typed(f"CAST(({a} {sign} {b}) AS {duckdb_type(kind)})", kind)


def _shift(t: Translator, sign: str, left: Typed, right: Typed, node: exp.Expr) -> Typed:
    time, interval = (right, left) if left.type is Pseudo.INTERVAL else (left, right)
    if time is right and sign == "-":
        raise t.error("an INTERVAL can be taken from a time, not the other way round", node)
    kind = time.type
    if not isinstance(kind, LogicalType) or kind.name not in {*types.TIMESTAMPS, "DATE"}:
        raise t.error(f"an INTERVAL is added to DATE or TIMESTAMP, found {shown(kind)}", node)
    if kind.name == "DATE" and interval.literal not in {"DAY", "MONTH", "YEAR"}:
        raise t.error(f"INTERVAL ... {interval.literal} is added to TIMESTAMP, found DATE; use CAST", node)
    if kind.name == "TIMESTAMP" and (kind.precision or 0) > 6:
        raise t.error("INTERVAL arithmetic keeps 6 digits of a second; CAST to TIMESTAMP(6) first", node)
    return Typed(f"CAST(({time.sql} {sign} {interval.sql}) AS {duckdb_type(kind)})", kind)


def _array(t: Translator, node: exp.Expr) -> Typed:
    if not node.expressions:
        raise t.error("ARRAY[] has no type; write at least one element", node)
    values, kind = t.common(node.expressions, "ARRAY")
    return Typed(f"[{', '.join(values)}]", LogicalType("ARRAY", children=(kind,)))


def _bracket(t: Translator, node: exp.Expr) -> Typed:
    base = node.this
    if isinstance(base, exp.Column) and base.name.upper() == "MAP" and not base.this.args.get("quoted"):
        return _map(t, node)
    if len(node.expressions) != 1:
        raise t.error("want one index in [ ]", node)
    this, index = t.translate(base), node.expressions[0]
    kind = this.type
    if isinstance(kind, LogicalType) and kind.name == "MAP":
        key = t.translate(index)
        if not types.casts_implicitly(key.type, kind.children[0]):
            raise t.error(f"the map's keys are {shown(kind.children[0])}, found {shown(key.type)}", index)
        return Typed(f"{this.sql}[{convert(key.sql, key.type, kind.children[0])}]", types.nullable(kind.children[1]))
    if not isinstance(kind, LogicalType) or kind.name != "ARRAY":
        raise t.error(f"[ ] wants an ARRAY or a MAP, found {shown(kind)}", node)
    return Typed(_element(t, this.sql, index), types.nullable(kind.children[0]))


def _element(t: Translator, array: str, node: exp.Expr) -> str:
    index = t.integer(node, "an index")
    if index.literal is not None:
        if int(index.literal) < 1:
            raise t.error("the elements of an ARRAY are counted from 1", node)
        return f"{array}[{index.sql}]"
    wrong = failing("the elements of an ARRAY are counted from 1, found ", index.sql, "INTEGER")
    return f"{array}[CASE WHEN {index.sql} < 1 THEN {wrong} ELSE {index.sql} END]"


def _map(t: Translator, node: exp.Expr) -> Typed:
    if not node.expressions or len(node.expressions) % 2:
        raise t.error("MAP[...] wants pairs of key and value", node)
    keys, key = t.common(node.expressions[::2], "MAP keys")
    values, value = t.common(node.expressions[1::2], "MAP values")
    return Typed(f"MAP([{', '.join(keys)}], [{', '.join(values)}])", LogicalType("MAP", children=(key, value)))


def _dot(t: Translator, node: exp.Expr) -> Typed:
    return t.field(t.translate(node.this), node.expression)


_UNSUPPORTED: dict[type[exp.Expr], str] = {
    exp.Window: "window functions (OVER) are not supported: a pipeline transforms records one by one",
    exp.Subquery: "subqueries are not supported",
    exp.Exists: "subqueries are not supported",
    exp.Select: "subqueries are not supported",
    exp.Star: "* is only possible as a column of SELECT",
    exp.SimilarTo: "SIMILAR TO is not supported; use REGEXP(string, pattern)",
    exp.AtTimeZone: "AT TIME ZONE is not supported",
    exp.CurrentTimestamp: nondeterministic("CURRENT_TIMESTAMP"),
    exp.CurrentDate: nondeterministic("CURRENT_DATE"),
    exp.CurrentTime: nondeterministic("CURRENT_TIME"),
    exp.Localtime: nondeterministic("LOCALTIME"),
    exp.Localtimestamp: nondeterministic("LOCALTIMESTAMP"),
}


def _refused(reason: str) -> Rule:
    def rule(t: Translator, node: exp.Expr) -> Typed:
        raise t.error(reason, node)

    return rule


RULES: dict[type[exp.Expr], Rule] = {
    exp.Column: lambda t, node: t.column(node),
    exp.Literal: _literal,
    exp.HexString: lambda _, node: Typed(f"from_hex({text(node.name)})", types.BINARY),
    exp.Boolean: lambda _, node: Typed("TRUE" if node.this else "FALSE", BOOLEAN),
    exp.Null: lambda *_: Typed("NULL", Pseudo.NULL),
    exp.Paren: _paren,
    exp.Neg: _negative,
    exp.And: _logic("AND"),
    exp.Or: _logic("OR"),
    exp.Not: _not,
    **dict.fromkeys(_COMPARISONS, _compare),
    **dict.fromkeys(_ARITHMETIC, _arithmetic),
    exp.Between: _between,
    exp.In: _in,
    exp.Is: _is,
    exp.Like: _like,
    exp.Escape: _like,
    exp.DPipe: _concat,
    exp.Case: _case,
    exp.Cast: _cast,
    exp.TryCast: _cast,
    exp.Interval: _interval,
    exp.Array: _array,
    exp.Bracket: _bracket,
    exp.Dot: _dot,
    **{node: _refused(reason) for node, reason in _UNSUPPORTED.items()},
}
"""Rule by kind of node."""
