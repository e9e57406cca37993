"""Which types hold the values of which others. Pure."""

from dataclasses import replace

from vector_assets.engine.schema import LogicalType

_WHOLE = ("TINYINT", "SMALLINT", "INT", "BIGINT")
_DIGITS = {"BOOLEAN": 1, "TINYINT": 3, "SMALLINT": 5, "INT": 10, "BIGINT": 19}
_TEXTS = ("CHAR", "VARCHAR")
_BYTES = ("BINARY", "VARBINARY")
_TIMES = ("TIME", "TIMESTAMP", "TIMESTAMP_LTZ")
_MOST_DIGITS = 38
TEXT = LogicalType("VARCHAR")


def holds(wide: LogicalType, narrow: LogicalType) -> bool:
    """True when every value of one type is a value of the other; NULL is not asked about."""
    return replace(common(wide, narrow), nullable=True) == replace(wide, nullable=True)


def common(one: LogicalType, other: LogicalType) -> LogicalType:
    """The narrowest type that holds the values of both, as nullable as the first; text where nothing else does."""
    nullable = one.nullable
    first, second = replace(one, nullable=True), replace(other, nullable=True)
    if first == second:
        return one
    names = {first.name, second.name}
    if names <= {*_WHOLE, "BOOLEAN"}:
        # a BOOLEAN is a TINYINT(1): 0 or 1
        return LogicalType(_WHOLE[max(_WHOLE.index(name) for name in names - {"BOOLEAN"})], nullable=nullable)
    if names <= {*_DIGITS, "DECIMAL"}:
        return _decimal(first, second, nullable=nullable)
    if names <= {"FLOAT", "DOUBLE"} or _is_to_float(first, second):
        return LogicalType("DOUBLE", nullable=nullable)
    if names <= set(_TEXTS):
        kind = "CHAR" if names == {"CHAR"} else "VARCHAR"
        return LogicalType(kind, _longer(first, second), nullable=nullable)
    if names <= set(_BYTES):
        kind = "BINARY" if names == {"BINARY"} else "VARBINARY"
        return LogicalType(kind, _longer(first, second), nullable=nullable)
    if len(names) == 1 and first.name in _TIMES:
        return LogicalType(first.name, max(first.precision or 0, second.precision or 0), nullable=nullable)
    if names == {"DATE", "TIMESTAMP"}:
        return LogicalType("TIMESTAMP", max(first.precision or 0, second.precision or 0), nullable=nullable)
    return replace(TEXT, nullable=nullable)


def _is_to_float(old: LogicalType, new: LogicalType) -> bool:
    """True of a number that becomes a float, as the source's own values did."""
    if new.name in {"FLOAT", "DOUBLE"}:
        return old.name in {*_DIGITS, "DECIMAL"}
    return old.name == "DOUBLE" and new.name in {"TINYINT", "SMALLINT", "INT"}


def _longer(one: LogicalType, other: LogicalType) -> int | None:
    return None if one.precision is None or other.precision is None else max(one.precision, other.precision)


def _decimal(one: LogicalType, other: LogicalType, *, nullable: bool) -> LogicalType:
    parts = [(each.precision or 10, each.scale or 0) if each.name == "DECIMAL" else (_DIGITS[each.name], 0)
             for each in (one, other)]  # fmt: skip
    scale = max(part[1] for part in parts)
    digits = max(part[0] - part[1] for part in parts) + scale
    return (
        LogicalType("DECIMAL", digits, scale, nullable=nullable)
        if digits <= _MOST_DIGITS
        else replace(TEXT, nullable=nullable)
    )
