"""CAST and implicit conversion as Flink does them, spelled for DuckDB.

DuckDB rounds where Java cuts (fractions to integers, microseconds to milliseconds), reads `1e3` and `0x1F` as integers
and passes over the offset of a time: the spellings here do as Flink does. What cannot be converted is an error at run
time (NULL under TRY_CAST), so the record becomes a dead letter; an integer that does not fit never wraps.
"""

from vector_assets.declare.flink_types import (
    BYTES,
    INTEGERS,
    NUMERIC,
    STRINGS,
    TIMESTAMPS,
    Pseudo,
    Type,
    duckdb_type,
    nullable,
    quoted,
    shown,
)
from vector_assets.engine.schema import LogicalType

_INTEGER = r"\s*[+-]?\d+(\.\d*)?\s*"
_TIMESTAMP = r"\s*\d{1,5}-\d{1,2}-\d{1,2}([ T]\d{1,2}:\d{1,2}(:\d{1,2}(\.\d+)?)?)?\s*"
_DATE = r"\s*\d{1,5}-\d{1,2}-\d{1,2}([ T].*)?\s*"
_SECONDS = "%Y-%m-%d %H:%M:%S"


def text(value: str) -> str:
    """A string literal."""
    return "'" + value.replace("'", "''") + "'"


def convert(sql: str, source: Type, target: LogicalType, *, safe: bool = False, depth: int = 0) -> str:
    """`sql` of type `source` as a value of type `target`; with `safe`, NULL where it cannot be converted."""
    if source is Pseudo.NULL:
        return f"CAST(NULL AS {duckdb_type(target)})"
    assert isinstance(source, LogicalType), "an interval is not converted"
    if nullable(source) == nullable(target) or (
        source.name == target.name and duckdb_type(source) == duckdb_type(target)
    ):
        return _cut(sql, source, target) if target.name in TIMESTAMPS else sql
    verb = "TRY_CAST" if safe else "CAST"
    if target.name in STRINGS:
        return _to_string(sql, source)
    if target.name in INTEGERS:
        return _to_integer(sql, source, target, safe=safe)
    if target.name == "DECIMAL" and source.name in {"FLOAT", "DOUBLE"}:
        return f"{verb}(CAST({sql} AS VARCHAR) AS {duckdb_type(target)})"
    if target.name in BYTES:
        return f"encode({sql})" if source.name in STRINGS else sql
    if target.name in {*TIMESTAMPS, "DATE", "TIME"}:
        return _to_time(sql, source, target, safe=safe)
    if target.name in {"ARRAY", "MAP", "ROW"}:
        return _to_nested(sql, source, target, safe=safe, depth=depth)
    return f"{verb}({sql} AS {duckdb_type(target)})"


def cast(sql: str, source: Type, target: LogicalType, *, safe: bool = False) -> str:
    """What CAST(... AS target) does: a conversion that also keeps to the target's length."""
    converted = convert(sql, source, target, safe=safe)
    if target.name not in STRINGS or target.precision is None:
        return converted
    cut = f"left({converted}, {target.precision})"
    return f"rpad({cut}, {target.precision}, ' ')" if target.name == "CHAR" else cut


def failing(message: str, value: str, kind: str) -> str:
    """An expression of DuckDB type `kind` that cannot be converted, with the message and the value in its reason.

    Not `error()`: DuckDB counts that as volatile, and then takes no TRY around it.
    """
    return f"CAST(concat({text(message)}, left(CAST({value} AS VARCHAR), 80)) AS {kind})"


def _checked(sql: str, pattern: str, converted: str, target: LogicalType, *, safe: bool) -> str:
    reason = "NULL" if safe else failing(f"cannot be read as {shown(target)}: ", sql, duckdb_type(target))
    matches = f"regexp_full_match({sql}, {text(pattern)})"
    return f"CASE WHEN {sql} IS NULL OR {matches} THEN {converted} ELSE {reason} END"


def _to_string(sql: str, source: LogicalType) -> str:
    if source.name in STRINGS:
        return sql
    if source.name == "BOOLEAN":
        return f"upper(CAST({sql} AS VARCHAR))"
    if source.name in BYTES:
        return f"decode({sql})"
    if source.name in TIMESTAMPS:
        precision = source.precision or 0
        fraction = "" if precision == 0 else ".%f" if precision <= 6 else ".%n"
        stamp = _plain(sql, source)
        written = f"strftime({stamp}, '{_SECONDS}{fraction}')"
        return written if precision in {0, 6, 9} else f"left({written}, {20 + precision})"
    return f"CAST({sql} AS VARCHAR)"


def _to_integer(sql: str, source: LogicalType, target: LogicalType, *, safe: bool) -> str:
    verb = "TRY_CAST" if safe else "CAST"
    if source.name in STRINGS:
        whole = f"{verb}(regexp_replace({sql}, '\\.\\d*\\s*$', '') AS {duckdb_type(target)})"
        return _checked(sql, _INTEGER, whole, target, safe=safe)
    if source.name in NUMERIC and source.name not in INTEGERS:
        return f"{verb}(trunc({sql}) AS {duckdb_type(target)})"
    return f"{verb}({sql} AS {duckdb_type(target)})"


def _plain(sql: str, source: LogicalType) -> str:
    """A time stamp as DuckDB's TIMESTAMP (or TIMESTAMP_NS) in UTC."""
    return f"CAST({sql} AS {'TIMESTAMP_NS' if (source.precision or 0) > 6 else 'TIMESTAMP'})"


def _to_time(sql: str, source: LogicalType, target: LogicalType, *, safe: bool) -> str:
    verb = "TRY_CAST" if safe else "CAST"
    if target.name in {"DATE", "TIME"}:
        inner = _plain(sql, source) if source.name in TIMESTAMPS else sql
        read = f"{verb}({inner} AS {target.name})"
        is_text = source.name in STRINGS and target.name == "DATE"
        return _checked(sql, _DATE, read, target, safe=safe) if is_text else read
    if source.name in STRINGS:
        fine = "TIMESTAMP_NS" if (target.precision or 0) > 6 else "TIMESTAMP"
        if target.name == "TIMESTAMP_LTZ":
            fine = "TIMESTAMPTZ"
        read = f"{verb}({sql} AS {fine})"
        if target.name == "TIMESTAMP":
            read = _checked(sql, _TIMESTAMP, read, target, safe=safe)
        return _cut(read, LogicalType(target.name, 9 if fine == "TIMESTAMP_NS" else 6), target)
    return _cut(sql, LogicalType(source.name, source.precision), target)


def _cut(sql: str, source: LogicalType, target: LogicalType) -> str:
    """A time stamp with no more digits of a second than the target has: cut off, as Java does, not rounded."""
    precision = target.precision or 0
    wanted = duckdb_type(target)
    if source.name == "DATE" or (source.precision or 0) <= precision:
        return f"CAST({sql} AS {wanted})" if duckdb_type(source) != wanted else sql
    plain = _plain(sql, source) if source.name == "TIMESTAMP" else f"CAST({sql} AS TIMESTAMP)"
    if precision in {0, 3}:
        cut = f"date_trunc('{'second' if precision == 0 else 'millisecond'}', {plain})"
    else:
        step = 10 ** (9 - precision)
        ns = f"epoch_ns({plain})"
        cut = f"make_timestamp_ns({ns} - (({ns} % {step}) + {step}) % {step})"
    return f"CAST({cut} AS {wanted})"


def _to_nested(sql: str, source: LogicalType, target: LogicalType, *, safe: bool, depth: int) -> str:
    item = f"item{depth}"

    def inner(value: str, index: int) -> str:
        return convert(value, source.children[index], target.children[index], safe=safe, depth=depth + 1)

    if target.name == "ARRAY":
        return f"list_transform({sql}, lambda {item}: {inner(item, 0)})"
    if target.name == "MAP":
        pair = f"struct_pack(k := {inner(f'{item}.key', 0)}, v := {inner(f'{item}.value', 1)})"
        return f"map_from_entries(list_transform(map_entries({sql}), lambda {item}: {pair}))"
    fields = (
        f"{quoted(new)} := {inner(f'struct_extract({sql}, {text(old)})', index)}"
        for index, (old, new) in enumerate(zip(source.child_names, target.child_names, strict=True))
    )
    return f"CASE WHEN {sql} IS NOT NULL THEN struct_pack({', '.join(fields)}) END"
