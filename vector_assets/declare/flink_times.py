"""Functions of dates and times, and Java's date patterns as DuckDB's. The session's time zone is UTC."""

import re

from sqlglot import exp

from vector_assets.declare import flink_types as types
from vector_assets.declare.flink_casts import convert, text
from vector_assets.declare.flink_translator import Function, Rule, Translator, Typed
from vector_assets.declare.flink_types import BIGINT, DATE, INT, STRING, duckdb_type, shown
from vector_assets.engine.schema import LogicalType

_PATTERNS = {
    "yyyy": "%Y", "uuuu": "%Y", "yy": "%y", "MMMM": "%B", "MMM": "%b", "MM": "%m", "M": "%-m", "dd": "%d", "d": "%-d",
    "DDD": "%j", "EEEE": "%A", "EEE": "%a", "EE": "%a", "E": "%a", "a": "%p", "HH": "%H", "H": "%-H", "hh": "%I",
    "h": "%-I", "mm": "%M", "m": "%-M", "ss": "%S", "s": "%-S", "SSS": "%g", "SSSSSS": "%f", "SSSSSSSSS": "%n",
}  # fmt: skip
_PIECE = re.compile(r"'((?:[^']|'')*)'|([A-Za-z])\2*|[^A-Za-z']+|'", re.DOTALL)
_SECONDS = "yyyy-MM-dd HH:mm:ss"
_UNITS = ("SECOND", "MINUTE", "HOUR", "DAY", "WEEK", "MONTH", "QUARTER", "YEAR")
_TRUNCATED = tuple(unit for unit in _UNITS if unit != "WEEK")
_PARTS = {
    "YEAR": "year", "QUARTER": "quarter", "MONTH": "month", "WEEK": "week", "DAY": "day", "DAYOFMONTH": "day",
    "DOY": "doy", "DAYOFYEAR": "doy", "DOW": "dow", "DAYOFWEEK": "dow", "HOUR": "hour", "MINUTE": "minute",
    "SECOND": "second",
}  # fmt: skip
_STAMP = LogicalType("TIMESTAMP", 6)
_MILLIS = LogicalType("TIMESTAMP", 3)
_FULL = r"\s*\d{4}-\d{1,2}-\d{1,2}( \d{1,2}:\d{1,2}:\d{1,2}(\.\d{1,9})?)?\s*"


def java_pattern(pattern: str) -> str:
    """A Java date pattern as strftime's.

    Raises:
        ValueError: it has letters that have no counterpart.
    """
    out = []
    for piece in _PIECE.finditer(pattern):
        whole, quote, letter = piece[0], piece[1], piece[2]
        if letter:
            if whole not in _PATTERNS:
                known = ", ".join(_PATTERNS)
                raise ValueError(f"date pattern {pattern!r}: {whole!r} is not supported; known: {known}")
            out.append(_PATTERNS[whole])
        elif whole == "'":
            raise ValueError(f"date pattern {pattern!r}: a quote is never closed")
        else:
            literal = whole if quote is None else quote.replace("''", "'") or "'"
            out.append(literal.replace("%", "%%"))
    return "".join(out)


def _pattern(t: Translator, name: str, nodes: list[exp.Expr], index: int, default: str | None = None) -> str:
    """The pattern among the arguments, as a DuckDB literal."""
    if len(nodes) <= index and default is not None:
        return text(java_pattern(default))
    node = nodes[index]
    if not isinstance(node, exp.Literal) or not node.is_string:
        raise t.error(f"{name} wants its date pattern in single quotes, so that it can be checked here", node)
    try:
        return text(java_pattern(node.name))
    except ValueError as error:
        raise t.error(f"{name}: {error}", node) from None


def _time(t: Translator, name: str, node: exp.Expr, *wanted: str) -> Typed:
    typed = t.translate(node)
    if not typed.has(*wanted):
        raise t.error(f"{name} wants {' or '.join(wanted)}, found {shown(typed.type)}; use CAST", node)
    return typed


def _stamp(t: Translator, name: str, node: exp.Expr, kind: LogicalType = _STAMP) -> str:
    typed = _time(t, name, node, *types.TIMESTAMPS, "DATE")
    return convert(typed.sql, typed.type, kind)


def _date_format(t: Translator, name: str, nodes: list[exp.Expr]) -> Typed:
    typed = _time(t, name, nodes[0], *types.TIMESTAMPS, "DATE", *types.STRINGS)
    if typed.name == "TIMESTAMP" and isinstance(typed.type, LogicalType) and (typed.type.precision or 0) > 6:
        stamp = typed.sql
    else:
        stamp = convert(typed.sql, typed.type, _STAMP)
    return Typed(f"strftime({stamp}, {_pattern(t, name, nodes, 1)})", STRING)


def _read(t: Translator, name: str, nodes: list[exp.Expr], default: str) -> str:
    """A string read by a pattern; NULL when it does not fit, after Flink's second try with its standard form."""
    this = t.string(nodes[0], name).sql
    by_pattern = f"try_strptime({this}, {_pattern(t, name, nodes, 1, default)})"
    second = f"CASE WHEN regexp_full_match({this}, {text(_FULL)}) THEN TRY_CAST({this} AS TIMESTAMP) END"
    return f"coalesce(CAST({by_pattern} AS TIMESTAMP), {second})"


def _to_timestamp(t: Translator, name: str, nodes: list[exp.Expr]) -> Typed:
    return Typed(convert(_read(t, name, nodes, _SECONDS), _STAMP, _MILLIS), _MILLIS)


def _to_date(t: Translator, name: str, nodes: list[exp.Expr]) -> Typed:
    return Typed(f"CAST({_read(t, name, nodes, 'yyyy-MM-dd')} AS DATE)", DATE)


def _to_timestamp_ltz(t: Translator, name: str, nodes: list[exp.Expr]) -> Typed:
    number = t.integer(nodes[0], name)
    if not isinstance(nodes[1], exp.Literal) or nodes[1].name not in {"0", "3"}:
        raise t.error(f"{name} wants 0 (seconds) or 3 (milliseconds) as its precision", nodes[1])
    factor = {"0": 1_000_000, "3": 1000}[nodes[1].name]
    micros = f"CAST({number.sql} AS BIGINT) * {factor}"
    return Typed(f"make_timestamptz({micros})", LogicalType("TIMESTAMP_LTZ", 3))


def _unix_timestamp(t: Translator, name: str, nodes: list[exp.Expr]) -> Typed:
    read = f"strptime({t.string(nodes[0], name).sql}, {_pattern(t, name, nodes, 1, _SECONDS)})"
    return Typed(f"date_diff('second', TIMESTAMP '1970-01-01 00:00:00', CAST({read} AS TIMESTAMP))", BIGINT)


def _from_unixtime(t: Translator, name: str, nodes: list[exp.Expr]) -> Typed:
    stamp = f"make_timestamp(CAST({t.integer(nodes[0], name).sql} AS BIGINT) * 1000000)"
    return Typed(f"strftime({stamp}, {_pattern(t, name, nodes, 1, _SECONDS)})", STRING)


def _unit(t: Translator, name: str, node: exp.Expr, known: tuple[str, ...]) -> str:
    unit = node.name.upper()
    if unit not in known:
        raise t.error(f"{name} wants one of the units {', '.join(known)}", node)
    return unit


def _timestampadd(t: Translator, name: str, nodes: list[exp.Expr]) -> Typed:
    unit = _unit(t, name, nodes[0], _UNITS)
    number, time = t.integer(nodes[1], name), _time(t, name, nodes[2], *types.TIMESTAMPS, "DATE")
    kind = time.type if isinstance(time.type, LogicalType) else _STAMP
    if kind.name == "DATE" and unit in {"SECOND", "MINUTE", "HOUR"}:
        raise t.error(f"{name} adds {unit} to TIMESTAMP, found DATE; use CAST", nodes[2])
    added = f"{convert(time.sql, time.type, kind)} + {number.sql} * INTERVAL '1 {unit.lower()}'"
    return Typed(f"CAST(({added}) AS {duckdb_type(kind)})", kind)


def _timestampdiff(t: Translator, name: str, nodes: list[exp.Expr]) -> Typed:
    unit = _unit(t, name, nodes[0], _UNITS)
    start, end = (_stamp(t, name, node) for node in nodes[1:])
    return Typed(f"CAST(date_sub('{unit.lower()}', {start}, {end}) AS INTEGER)", INT)


def _part(t: Translator, name: str, unit: str, node: exp.Expr) -> Typed:
    part = _PARTS[unit]
    time = _time(t, name, node, *types.TIMESTAMPS, "DATE", *(("TIME",) if part in {"hour", "minute", "second"} else ()))
    value = time.sql if time.name == "TIME" else convert(time.sql, time.type, _STAMP)
    # Flink counts the days of the week from 1 (Sunday), DuckDB from 0
    return Typed(f"(extract({part} FROM {value}){' + 1' if part == 'dow' else ''})", BIGINT)


def _extract(t: Translator, node: exp.Extract) -> Typed:
    return _part(t, "EXTRACT", _unit(t, "EXTRACT", node.this, tuple(_PARTS)), node.expression)


def _edge(t: Translator, node: exp.Floor | exp.Ceil) -> Typed:
    """FLOOR(x TO unit) and CEIL(x TO unit); without a unit they are functions of numbers."""
    name = "FLOOR" if isinstance(node, exp.Floor) else "CEIL"
    unit_node = node.args.get("to")
    if unit_node is None:
        return t.call(name, [node.this, *(part for part in (node.args.get("decimals"),) if part)], node)
    unit = _unit(t, name, unit_node, _TRUNCATED).lower()
    time = _time(t, name, node.this, *types.TIMESTAMPS, "DATE")
    kind = time.type if isinstance(time.type, LogicalType) else _STAMP
    value = convert(time.sql, time.type, _STAMP)
    floor = f"date_trunc('{unit}', {value})"
    if name == "CEIL":
        floor = f"CASE WHEN {floor} = {value} THEN {floor} ELSE {floor} + INTERVAL '1 {unit}' END"
    return Typed(f"CAST({floor} AS {duckdb_type(kind)})", kind)


def _field(unit: str) -> Function:
    return Function(1, 1, lambda t, name, nodes: _part(t, name, unit, nodes[0]))


TIME_FUNCTIONS: dict[str, Function] = {
    "DATE_FORMAT": Function(2, 2, _date_format),
    "TO_TIMESTAMP": Function(1, 2, _to_timestamp),
    "TO_TIMESTAMP_LTZ": Function(2, 2, _to_timestamp_ltz),
    "TO_DATE": Function(1, 2, _to_date),
    "UNIX_TIMESTAMP": Function(1, 2, _unix_timestamp),
    "FROM_UNIXTIME": Function(1, 2, _from_unixtime),
    "TIMESTAMPADD": Function(3, 3, _timestampadd),
    "TIMESTAMPDIFF": Function(3, 3, _timestampdiff),
    **{unit: _field(unit) for unit in _PARTS if unit not in {"DAY", "DOY", "DOW"}},
}
"""Functions of dates and times by name."""

TIME_RULES: dict[type[exp.Expr], Rule] = {exp.Extract: _extract, exp.Floor: _edge, exp.Ceil: _edge}
"""Rules for those with a syntax of their own."""
