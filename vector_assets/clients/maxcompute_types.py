"""MaxCompute's types and the engine's, both ways, by the connector's type mapping."""

from typing import Any

from vector_assets.engine.errors import PlanError
from vector_assets.engine.schema import LogicalType

_TO_FLINK = {
    "boolean": LogicalType("BOOLEAN"),
    "tinyint": LogicalType("TINYINT"),
    "smallint": LogicalType("SMALLINT"),
    "int": LogicalType("INT"),
    "bigint": LogicalType("BIGINT"),
    "float": LogicalType("FLOAT"),
    "double": LogicalType("DOUBLE"),
    "string": LogicalType("VARCHAR"),
    "binary": LogicalType("VARBINARY"),
    "date": LogicalType("DATE"),
    "datetime": LogicalType("TIMESTAMP", 3),
    "timestamp": LogicalType("TIMESTAMP", 9),
    "timestamp_ntz": LogicalType("TIMESTAMP", 9),
    "json": LogicalType("VARCHAR"),
}
_FROM_FLINK = {
    "BOOLEAN": "BOOLEAN",
    "TINYINT": "TINYINT",
    "SMALLINT": "SMALLINT",
    "INT": "INT",
    "BIGINT": "BIGINT",
    "FLOAT": "FLOAT",
    "DOUBLE": "DOUBLE",
    "BINARY": "BINARY",
    "VARBINARY": "BINARY",
    "DATE": "DATE",
    "TIME": "STRING",
}
_LONGEST = {"CHAR": 255, "VARCHAR": 65535}
"""Lengths that CHAR(n) and VARCHAR(n) of MaxCompute may have; longer ones are STRING."""


def logical_type(kind: Any) -> LogicalType:
    """The engine's type of a pyodps type.

    Raises:
        PlanError: the type mapping has none (INTERVAL, VECTOR).
    """
    # the name of a nested pyodps type is all of its text
    name = str(kind.name).lower().partition("<")[0].partition("(")[0]
    if name in _TO_FLINK:
        return _TO_FLINK[name]
    if name == "decimal":
        # a DECIMAL without digits is DECIMAL(38,18) in the type system of version 2
        return LogicalType("DECIMAL", kind.precision or 38, 18 if kind.scale is None else kind.scale)
    if name in {"char", "varchar"}:
        return LogicalType(name.upper(), kind.size_limit)
    if name == "array":
        return LogicalType("ARRAY", children=(logical_type(kind.value_type),))
    if name == "map":
        return LogicalType("MAP", children=(logical_type(kind.key_type), logical_type(kind.value_type)))
    if name == "struct":
        fields = dict(kind.field_types)
        return LogicalType("ROW", children=tuple(map(logical_type, fields.values())), child_names=tuple(fields))
    raise PlanError(f"MaxCompute type {kind} has no counterpart; known: {', '.join(_TO_FLINK)}, decimal, char, ...")


def type_text(kind: LogicalType) -> str:
    """MaxCompute's spelling of a type, for DDL and for comparison."""
    if kind.name in _FROM_FLINK:
        return _FROM_FLINK[kind.name]
    if kind.name in _LONGEST:
        fits = kind.precision is not None and kind.precision <= _LONGEST[kind.name]
        return f"{kind.name}({kind.precision})" if fits else "STRING"
    if kind.name == "DECIMAL":
        return f"DECIMAL({kind.precision},{kind.scale or 0})"
    if kind.name == "TIMESTAMP":
        return "DATETIME" if (kind.precision or 0) <= 3 else "TIMESTAMP_NTZ"
    if kind.name == "TIMESTAMP_LTZ":
        return "DATETIME" if (kind.precision or 0) <= 3 else "TIMESTAMP"
    inner = [type_text(child) for child in kind.children]
    if kind.name == "ROW":
        fields = zip(kind.child_names, inner, strict=True)
        return f"STRUCT<{','.join(f'{name}:{text}' for name, text in fields)}>"
    return f"{kind.name}<{','.join(inner)}>"


def is_widening(found: LogicalType, wanted: LogicalType) -> bool:
    """True when every value of `found` is a value of `wanted`: what a table may declare for a column it reads."""
    if {found.name, wanted.name} <= {"CHAR", "VARCHAR"}:
        return wanted.precision is None or (found.precision is not None and found.precision <= wanted.precision)
    if {found.name, wanted.name} <= {"BINARY", "VARBINARY"}:
        return wanted.precision is None
    if {found.name, wanted.name} <= {"TIMESTAMP", "TIMESTAMP_LTZ"}:
        return (found.precision or 0) <= (wanted.precision or 0)
    if found.name == wanted.name == "DECIMAL":
        whole, scale = (found.precision or 0) - (found.scale or 0), found.scale or 0
        return scale <= (wanted.scale or 0) and whole <= (wanted.precision or 0) - (wanted.scale or 0)
    if found.name != wanted.name:
        return wanted.name in _WIDER.get(found.name, ())
    is_same = len(found.children) == len(wanted.children) and _names(found) == _names(wanted)
    return is_same and all(map(is_widening, found.children, wanted.children))


_WIDER = {
    "TINYINT": ("SMALLINT", "INT", "BIGINT"),
    "SMALLINT": ("INT", "BIGINT"),
    "INT": ("BIGINT", "DOUBLE"),
    "FLOAT": ("DOUBLE",),
}


def _names(kind: LogicalType) -> tuple[str, ...]:
    return tuple(name.lower() for name in kind.child_names)
