"""Flink's built-in functions, each spelled for DuckDB with Flink's result type and Flink's answer to odd arguments.

Where Java answers NaN or an infinity and DuckDB an error (the logarithm of 0), the record becomes a dead letter.
"""

import re
from collections.abc import Callable

from sqlglot import exp

from vector_assets.declare import flink_types as types
from vector_assets.declare.flink_casts import convert, text
from vector_assets.declare.flink_operators import comparable, compute
from vector_assets.declare.flink_times import TIME_FUNCTIONS, TIME_RULES
from vector_assets.declare.flink_translator import Function, Rule, Translator, Typed, nondeterministic
from vector_assets.declare.flink_types import BOOLEAN, DOUBLE, INT, STRING, Pseudo, duckdb_type, shown
from vector_assets.engine.registry import nearest
from vector_assets.engine.schema import LogicalType

_VOLATILE = {"NOW", "RAND", "RAND_INTEGER", "UUID", "PROCTIME", "CURRENT_ROW_TIMESTAMP", "CURRENT_WATERMARK"}
AGGREGATES = {
    *(
        "COUNT",
        "SUM",
        "AVG",
        "MIN",
        "MAX",
        "COLLECT",
        "LISTAGG",
        "FIRST_VALUE",
        "LAST_VALUE",
        "STDDEV_POP",
        "STDDEV_SAMP",
    ),
    *("VAR_POP", "VAR_SAMP", "STDDEV", "VARIANCE", "ARRAY_AGG", "JSON_ARRAYAGG", "JSON_OBJECTAGG", "GROUPING"),
    *("RANK", "DENSE_RANK", "ROW_NUMBER", "NTILE", "LAG", "LEAD", "CUME_DIST", "PERCENT_RANK"),
}
NO_AGGREGATE = "an aggregate may stand in the SELECT list and in HAVING, not inside another one, in WHERE or GROUP BY"
_PATH = re.compile(r"(?:(?:lax|strict)\s+)?(\$(?:\.\w+|\[\d+\]|\['[^'\"]+'\])*)")
_POSITION = "CAST(instr({0}, {1}) AS INTEGER)"
_TEMPLATES: dict[str, tuple[str, str, LogicalType]] = {
    "UPPER": ("s", "upper({0})", STRING),
    "LOWER": ("s", "lower({0})", STRING),
    "REVERSE": ("s", "reverse({0})", STRING),
    "LTRIM": ("s", "ltrim({0}, ' ')", STRING),
    "RTRIM": ("s", "rtrim({0}, ' ')", STRING),
    "REPLACE": ("sss", "replace({0}, {1}, {2})", STRING),
    "REPEAT": ("si", "repeat({0}, {1})", STRING),
    "LEFT": ("si", "CASE WHEN {1} <= 0 THEN '' ELSE left({0}, {1}) END", STRING),
    "RIGHT": ("si", "CASE WHEN {1} <= 0 THEN '' ELSE right({0}, {1}) END", STRING),
    "LPAD": ("sis", "CASE WHEN {1} < 0 OR {2} = '' THEN NULL ELSE lpad({0}, CAST({1} AS INTEGER), {2}) END", STRING),
    "RPAD": ("sis", "CASE WHEN {1} < 0 OR {2} = '' THEN NULL ELSE rpad({0}, CAST({1} AS INTEGER), {2}) END", STRING),
    "MD5": ("s", "md5({0})", STRING),
    "SHA1": ("s", "sha1({0})", STRING),
    "SHA256": ("s", "sha256({0})", STRING),
    "TO_BASE64": ("s", "to_base64(encode({0}))", STRING),
    "FROM_BASE64": ("s", "decode(from_base64({0}))", STRING),
    "REGEXP_REPLACE": ("sss", "regexp_replace({0}, {1}, replace({2}, '\\', '\\\\'), 'g')", STRING),
    "REGEXP": ("ss", "CASE WHEN {1} = '' THEN FALSE ELSE regexp_matches({0}, {1}) END", BOOLEAN),
    "STARTSWITH": ("ss", "starts_with({0}, {1})", BOOLEAN),
    "ENDSWITH": ("ss", "ends_with({0}, {1})", BOOLEAN),
    "INSTR": ("ss", _POSITION, INT),
    "LOCATE": ("ss", "CAST(instr({1}, {0}) AS INTEGER)", INT),
    **dict.fromkeys(("CHAR_LENGTH", "CHARACTER_LENGTH", "LENGTH"), ("s", "CAST(length({0}) AS INTEGER)", INT)),
    **{name: ("d", f"{name.lower()}({{0}})", DOUBLE) for name in ("SQRT", "EXP", "LN", "LOG10", "LOG2", "DEGREES")},
    **{
        name: ("d", f"{name.lower()}({{0}})", DOUBLE)
        for name in ("RADIANS", "SIN", "COS", "TAN", "ASIN", "ACOS", "ATAN")
    },
    "ATAN2": ("dd", "atan2({0}, {1})", DOUBLE),
    "POWER": ("dd", "power({0}, {1})", DOUBLE),
    "PI": ("", "pi()", DOUBLE),
    "E": ("", "exp(1.0)", DOUBLE),
}


def _argument(t: Translator, node: exp.Expr, letter: str, name: str) -> Typed:
    if letter == "s":
        return t.string(node, name)
    if letter == "i":
        return t.integer(node, name)
    typed = t.translate(node)
    if not typed.has(*types.NUMERIC):
        raise t.error(f"{name} wants a number, found {shown(typed.type)}; use CAST", node)
    return Typed(convert(typed.sql, typed.type, DOUBLE), DOUBLE) if letter == "d" else typed


def _template(signature: str, pattern: str, kind: LogicalType) -> Function:
    def build(t: Translator, name: str, nodes: list[exp.Expr]) -> Typed:
        arguments = [_argument(t, node, letter, name) for node, letter in zip(nodes, signature, strict=True)]
        return Typed(_fill(pattern, arguments), kind)

    return Function(len(signature), len(signature), build)


def _fill(pattern: str, arguments: list[Typed]) -> str:
    return re.sub(r"\{(\d)\}", lambda match: arguments[int(match[1])].sql, pattern)


def _call(t: Translator, node: exp.Anonymous) -> Typed:
    name = node.name.upper()
    if name in _VOLATILE or (name == "UNIX_TIMESTAMP" and not node.expressions):
        raise t.error(nondeterministic(f"{name}()"), node)
    if name in AGGREGATES:
        raise t.error(f"aggregate function {name} is not supported here: {NO_AGGREGATE}", node)
    if name == "EMBED":
        raise t.error("EMBED is only possible as a whole column of the SELECT: EMBED(text) [AS name]", node)
    function = FUNCTIONS.get(name)
    if function is None:
        raise t.error(f"function {name} is not supported{nearest(name, FUNCTIONS)}", node)
    return function.call(t, name, node.expressions, node)


def _common(pattern: str) -> Callable[[Translator, str, list[exp.Expr]], Typed]:
    def build(t: Translator, name: str, nodes: list[exp.Expr]) -> Typed:
        values, kind = t.common(nodes, name)
        nulls = " OR ".join(f"{value} IS NULL" for value in values)
        return Typed(pattern.replace("{all}", ", ".join(values)).replace("{nulls}", nulls), kind)

    return build


def _if(t: Translator, name: str, nodes: list[exp.Expr]) -> Typed:
    condition = t.predicate(nodes[0])
    (yes, no), kind = t.common(nodes[1:], name)
    return Typed(f"CASE WHEN {condition.sql} THEN {yes} ELSE {no} END", kind)


def _nullif(t: Translator, _: str, nodes: list[exp.Expr]) -> Typed:
    first = t.translate(nodes[0])
    left, right = comparable(t, nodes, nodes[1])
    return Typed(f"CASE WHEN ({left} = {right}) THEN NULL ELSE {first.sql} END", first.type)


def _concat(t: Translator, name: str, nodes: list[exp.Expr]) -> Typed:
    return Typed(f"({' || '.join(t.string(node, name).sql for node in nodes)})", STRING)


def _concat_ws(t: Translator, name: str, nodes: list[exp.Expr]) -> Typed:
    return Typed(f"concat_ws({', '.join(t.string(node, name).sql for node in nodes)})", STRING)


def _regexp_extract(t: Translator, name: str, nodes: list[exp.Expr]) -> Typed:
    this, pattern = t.string(nodes[0], name).sql, t.string(nodes[1], name).sql
    group = t.integer(nodes[2], name) if len(nodes) > 2 else Typed("0", INT, "0")
    if group.literal is None:
        raise t.error(f"{name} wants the number of the group as a number", nodes[2])
    extracted = f"regexp_extract({this}, {pattern}, {group.sql})"
    return Typed(f"CASE WHEN regexp_matches({this}, {pattern}) THEN {extracted} END", STRING)


def _substring(t: Translator, name: str, nodes: list[exp.Expr]) -> Typed:
    this, start = t.string(nodes[0], name).sql, t.integer(nodes[1], name)
    length = t.integer(nodes[2], name) if len(nodes) > 2 else None
    rest = f", {length.sql}" if length else ""
    if start.literal is not None and int(start.literal) >= 0:
        cut = f"substring({this}, {max(int(start.literal), 1)}{rest})"
    else:
        cut = (
            f"CASE WHEN {start.sql} = 0 THEN substring({this}, 1{rest})"
            f" WHEN length({this}) + {start.sql} < 0 THEN '' ELSE substring({this}, {start.sql}{rest}) END"
        )
    if length is None or (length.literal is not None and int(length.literal) >= 0):
        return Typed(cut, STRING)
    return Typed(f"CASE WHEN {length.sql} >= 0 THEN {cut} END", STRING)


def _split_index(t: Translator, name: str, nodes: list[exp.Expr]) -> Typed:
    this, separator, index = t.string(nodes[0], name).sql, t.string(nodes[1], name), t.integer(nodes[2], name).sql
    if not separator.literal:
        raise t.error(f"{name} wants its separator in single quotes, with one character at least", nodes[1])
    part = f"string_split({this}, {separator.sql})[{index} + 1]"
    return Typed(f"CASE WHEN {index} >= 0 AND {this} <> '' THEN {part} END", STRING)


def _trim(t: Translator, node: exp.Trim) -> Typed:
    what = node.args.get("expression")
    chars = t.string(what, "TRIM").sql if what else "' '"
    function = {"LEADING": "ltrim", "TRAILING": "rtrim"}.get((node.args.get("position") or "").upper(), "trim")
    return Typed(f"{function}({t.string(node.this, 'TRIM').sql}, {chars})", STRING)


def _position(t: Translator, node: exp.StrPosition) -> Typed:
    if node.args.get("position"):
        raise t.error("POSITION takes two arguments: POSITION(a IN b)", node)
    sides = [t.string(side, "POSITION") for side in (node.this, node.args["substr"])]
    return Typed(_fill(_POSITION, sides), INT)


def _number(t: Translator, name: str, node: exp.Expr) -> tuple[str, LogicalType]:
    typed = _argument(t, node, "n", name)
    kind = typed.type if isinstance(typed.type, LogicalType) else INT
    return convert(typed.sql, typed.type, kind), kind


def _same(t: Translator, name: str, nodes: list[exp.Expr]) -> Typed:
    sql, kind = _number(t, name, nodes[0])
    return Typed(f"CAST({name.lower()}({sql}) AS {duckdb_type(kind)})", kind)


def whole(t: Translator, name: str, nodes: list[exp.Expr]) -> Typed:
    """CEIL and FLOOR of a number: integers stay, DECIMAL loses its decimal places."""
    sql, kind = _number(t, name, nodes[0])
    if kind.name in types.INTEGERS:
        return Typed(sql, kind)
    if kind.name == "DECIMAL":
        kind = LogicalType("DECIMAL", kind.precision, 0)
    return Typed(f"CAST({'floor' if name == 'FLOOR' else 'ceil'}({sql}) AS {duckdb_type(kind)})", kind)


def _round(t: Translator, name: str, nodes: list[exp.Expr]) -> Typed:
    sql, kind = _number(t, name, nodes[0])
    places = t.integer(nodes[1], name) if len(nodes) > 1 else Typed("0", INT, "0")
    if places.literal is None or not 0 <= int(places.literal) <= 15:
        raise t.error(f"{name} wants its decimal places as a number of 0 to 15", nodes[-1])
    digits = int(places.literal)
    function = "round" if name == "ROUND" else "trunc"
    if kind.name in types.INTEGERS:
        return Typed(sql, kind)
    if kind.name == "DECIMAL":
        precision, scale = types.digits(kind)
        if digits >= scale:
            return Typed(sql, kind)
        kind = LogicalType("DECIMAL", min(38, 1 + precision - scale + digits), digits)
        return Typed(f"CAST({function}({sql}, {digits}) AS {duckdb_type(kind)})", kind)
    # Java rounds the shortest decimal that reads back as the same double
    exact = f"CAST(CAST({sql} AS VARCHAR) AS DECIMAL(38, 18))"
    rounded = f"CASE WHEN abs({sql}) < 1e15 THEN {function}({exact}, {digits}) ELSE {function}({sql}, {digits}) END"
    return Typed(f"CAST({rounded} AS {duckdb_type(kind)})", kind)


def _log(t: Translator, name: str, nodes: list[exp.Expr]) -> Typed:
    base, value = ([None, *nodes] if len(nodes) == 1 else nodes)[:2]
    logarithm = f"ln({_argument(t, value or nodes[0], 'd', name).sql})"
    return Typed(f"({logarithm} / ln({_argument(t, base, 'd', name).sql}))" if base else logarithm, DOUBLE)


def _mod(t: Translator, _: str, nodes: list[exp.Expr]) -> Typed:
    return compute(t, "%", t.translate(nodes[0]), t.translate(nodes[1]), nodes[0])


def _collection(t: Translator, name: str, node: exp.Expr, *wanted: str) -> tuple[str, LogicalType]:
    typed = t.translate(node)
    if not isinstance(typed.type, LogicalType) or typed.type.name not in wanted:
        raise t.error(f"{name} wants {' or '.join(wanted)}, found {shown(typed.type)}", node)
    return typed.sql, typed.type


def _row(t: Translator, name: str, nodes: list[exp.Expr]) -> Typed:
    """A ROW whose fields have Flink's own names; it is stored by position, whatever the target's are called."""
    names, values, kinds = [f"EXPR${place}" for place in range(len(nodes))], [], []
    for node in nodes:
        typed = t.translate(node)
        if typed.type is Pseudo.INTERVAL:
            raise t.error("an INTERVAL cannot be in a ROW", node)
        kinds.append(typed.type if isinstance(typed.type, LogicalType) else STRING)
        values.append(convert(typed.sql, typed.type, kinds[-1]))
    pairs = ", ".join(f"'{field}': {value}" for field, value in zip(names, values, strict=True))
    return Typed(f"{{{pairs}}}", LogicalType("ROW", children=tuple(kinds), child_names=tuple(names)))


def _cardinality(t: Translator, name: str, nodes: list[exp.Expr]) -> Typed:
    sql, kind = _collection(t, name, nodes[0], "ARRAY", "MAP")
    return Typed(f"CAST({'len' if kind.name == 'ARRAY' else 'cardinality'}({sql}) AS INTEGER)", INT)


def _array_contains(t: Translator, name: str, nodes: list[exp.Expr]) -> Typed:
    sql, kind = _collection(t, name, nodes[0], "ARRAY")
    needle = t.translate(nodes[1])
    if not types.casts_implicitly(needle.type, kind.children[0]):
        raise t.error(f"the array's elements are {shown(kind.children[0])}, found {shown(needle.type)}", nodes[1])
    if needle.type is Pseudo.NULL:
        raise t.error("ARRAY_CONTAINS of NULL is not supported", nodes[1])
    return Typed(f"list_contains({sql}, {convert(needle.sql, needle.type, kind.children[0])})", BOOLEAN)


def _map_part(t: Translator, name: str, nodes: list[exp.Expr]) -> Typed:
    sql, kind = _collection(t, name, nodes[0], "MAP")
    return Typed(f"{name.lower()}({sql})", LogicalType("ARRAY", children=(kind.children[name == "MAP_VALUES"],)))


def _json(t: Translator, name: str, this: exp.Expr, path: exp.Expr) -> tuple[str, str]:
    found = _PATH.fullmatch(path.name) if isinstance(path, exp.Literal) else None
    if found is None:
        raise t.error(f"{name} wants a path such as '$.name[0].other' in single quotes", path)
    return t.string(this, name).sql, text(re.sub(r"\['([^']+)'\]", r'."\1"', found[1]))


def _json_exists(t: Translator, name: str, nodes: list[exp.Expr]) -> Typed:
    this, path = _json(t, name, *nodes)
    exists = f"WHEN json_valid({this}) THEN json_type({this}, {path}) IS NOT NULL"
    return Typed(f"CASE WHEN {this} IS NULL THEN NULL {exists} ELSE FALSE END", BOOLEAN)


def _json_query(t: Translator, name: str, nodes: list[exp.Expr]) -> Typed:
    this, path = _json(t, name, *nodes)
    nested = f"json_type({this}, {path}) IN ('OBJECT', 'ARRAY')"
    value = f"CASE WHEN {nested} THEN CAST(json_extract({this}, {path}) AS VARCHAR) END"
    return Typed(f"CASE WHEN json_valid({this}) THEN {value} END", STRING)


def _json_value(t: Translator, node: exp.JSONValue) -> Typed:
    this, path = _json(t, "JSON_VALUE", node.this, node.args["path"])
    plain = f"json_type({this}, {path}) NOT IN ('OBJECT', 'ARRAY')"
    value = f"CASE WHEN {plain} THEN json_extract_string({this}, {path}) END"
    sql = f"CASE WHEN json_valid({this}) THEN {value} END"
    returning = node.args.get("returning")
    if returning is None:
        return Typed(sql, STRING)
    kind = t.logical_type(returning)
    if kind.name not in {"VARCHAR", "BOOLEAN", "INT", "DOUBLE"}:
        raise t.error("JSON_VALUE returns STRING, BOOLEAN, INTEGER or DOUBLE", returning)
    return Typed(convert(sql, STRING, kind, safe=True), types.nullable(kind))


FUNCTIONS: dict[str, Function] = {
    **{name: _template(*parts) for name, parts in _TEMPLATES.items()},
    **TIME_FUNCTIONS,
    "IF": Function(3, 3, _if),
    "IFNULL": Function(2, 2, _common("coalesce({all})")),
    "COALESCE": Function(1, None, _common("coalesce({all})")),
    "NULLIF": Function(2, 2, _nullif),
    "GREATEST": Function(1, None, _common("CASE WHEN {nulls} THEN NULL ELSE greatest({all}) END")),
    "LEAST": Function(1, None, _common("CASE WHEN {nulls} THEN NULL ELSE least({all}) END")),
    "CONCAT": Function(1, None, _concat),
    "CONCAT_WS": Function(2, None, _concat_ws),
    "REGEXP_EXTRACT": Function(2, 3, _regexp_extract),
    "SPLIT_INDEX": Function(3, 3, _split_index),
    "SUBSTR": Function(2, 3, _substring),
    "SUBSTRING": Function(2, 3, _substring),
    "ABS": Function(1, 1, _same),
    "SIGN": Function(1, 1, _same),
    "CEIL": Function(1, 1, whole),
    "CEILING": Function(1, 1, whole),
    "FLOOR": Function(1, 1, whole),
    "ROUND": Function(1, 2, _round),
    "TRUNCATE": Function(1, 2, _round),
    "LOG": Function(1, 2, _log),
    "MOD": Function(2, 2, _mod),
    "ROW": Function(1, None, _row),
    "CARDINALITY": Function(1, 1, _cardinality),
    "ARRAY_CONTAINS": Function(2, 2, _array_contains),
    "MAP_KEYS": Function(1, 1, _map_part),
    "MAP_VALUES": Function(1, 1, _map_part),
    "JSON_EXISTS": Function(2, 2, _json_exists),
    "JSON_QUERY": Function(2, 2, _json_query),
}
"""Functions by name; TRIM, POSITION, EXTRACT and JSON_VALUE have a syntax of their own (`RULES`)."""


def _substring_node(t: Translator, node: exp.Substring) -> Typed:
    parts = [node.this, node.args.get("start"), node.args.get("length")]
    return t.call("SUBSTRING", [part for part in parts if part is not None], node)


RULES: dict[type[exp.Expr], Rule] = {
    exp.Anonymous: _call,
    exp.Substring: _substring_node,
    exp.Trim: _trim,
    exp.StrPosition: _position,
    exp.JSONValue: _json_value,
    **TIME_RULES,
}
"""Rules for calls, and for functions with a syntax of their own."""
