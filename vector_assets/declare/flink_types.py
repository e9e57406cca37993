"""Flink's type rules: syntax to logical type, implicit and explicit casts, common types, DuckDB's names.

The rules are those of Flink's LogicalTypeCasts and LogicalTypeMerging; a cast that would lose a value without a word in
Flink (an overflow that wraps) fails here, so that the record becomes a dead letter.
"""

from enum import Enum

from sqlglot import exp

from vector_assets.engine.errors import ConfigError
from vector_assets.engine.schema import LogicalType

INTEGERS = ("TINYINT", "SMALLINT", "INT", "BIGINT")
EXACT = (*INTEGERS, "DECIMAL")
NUMERIC = (*EXACT, "FLOAT", "DOUBLE")
STRINGS = ("CHAR", "VARCHAR")
BYTES = ("BINARY", "VARBINARY")
TIMESTAMPS = ("TIMESTAMP", "TIMESTAMP_LTZ")
NESTED = ("ARRAY", "MAP", "ROW")

_DIGITS = {"TINYINT": 3, "SMALLINT": 5, "INT": 10, "BIGINT": 19}
_NAMES = {
    exp.DType.TEXT: "VARCHAR",
    exp.DType.TIMESTAMPLTZ: "TIMESTAMP_LTZ",
    exp.DType.STRUCT: "ROW",
}


class Pseudo(Enum):
    """Types of expressions that no column can have."""

    NULL = "NULL"
    INTERVAL = "INTERVAL"


Type = LogicalType | Pseudo

BOOLEAN = LogicalType("BOOLEAN")
INT = LogicalType("INT")
BIGINT = LogicalType("BIGINT")
DOUBLE = LogicalType("DOUBLE")
STRING = LogicalType("VARCHAR")
BINARY = LogicalType("VARBINARY")
DATE = LogicalType("DATE")


def shown(kind: Type) -> str:
    """The type as Flink spells it, without NOT NULL."""
    return kind.value if isinstance(kind, Pseudo) else str(nullable(kind))


def nullable(kind: LogicalType) -> LogicalType:
    """The same type that allows NULL."""
    if kind.nullable:
        return kind
    return LogicalType(kind.name, kind.precision, kind.scale, kind.children, kind.child_names)


def not_null(kind: LogicalType) -> LogicalType:
    """The same type that allows no NULL."""
    return LogicalType(kind.name, kind.precision, kind.scale, kind.children, kind.child_names, nullable=False)


def logical_type(node: exp.DataType) -> LogicalType:
    """The type that a syntax node names.

    Raises:
        ConfigError: a length or precision is out of range (without a place).
    """
    allows_null = node.args.get("nullable") is not False
    name = _NAMES.get(node.this, node.this.name)
    if name in NESTED:
        fields = [part for part in node.expressions if isinstance(part, exp.ColumnDef)]
        children = [part.args["kind"] if isinstance(part, exp.ColumnDef) else part for part in node.expressions]
        names = tuple(part.name for part in fields)
        if len({name.lower() for name in names}) < len(names):
            raise ConfigError("two fields of the ROW have one name (upper and lower case count as the same)")
        return LogicalType(name, children=tuple(map(logical_type, children)), child_names=names, nullable=allows_null)
    sizes = [int(part.this.name) for part in node.expressions]
    precision = sizes[0] if sizes else None
    scale = (sizes[1] if len(sizes) > 1 else 0) if name == "DECIMAL" else None
    if name == "TIME" and precision is not None and precision > 6:
        raise ConfigError(f"type TIME({precision}) is not supported; want 6 digits of a second at most")
    return LogicalType(name, precision, scale, nullable=allows_null)


def duckdb_type(kind: LogicalType) -> str:
    """DuckDB's name of the type a column of this type has in a query."""
    if kind.name == "DECIMAL":
        return f"DECIMAL({kind.precision}, {kind.scale or 0})"
    if kind.name == "ARRAY":
        return f"{duckdb_type(kind.children[0])}[]"
    if kind.name == "MAP":
        return f"MAP({duckdb_type(kind.children[0])}, {duckdb_type(kind.children[1])})"
    if kind.name == "ROW":
        pairs = zip(kind.child_names, kind.children, strict=True)
        return f"STRUCT({', '.join(f'{quoted(name)} {duckdb_type(child)}' for name, child in pairs)})"
    precision = kind.precision or 0
    if kind.name == "TIMESTAMP":
        return "TIMESTAMP_MS" if precision <= 3 else "TIMESTAMP" if precision <= 6 else "TIMESTAMP_NS"
    if kind.name == "TIMESTAMP_LTZ":
        return "TIMESTAMPTZ" if precision <= 6 else "TIMESTAMPTZ_NS"
    return {"CHAR": "VARCHAR", "BINARY": "BLOB", "VARBINARY": "BLOB", "INT": "INTEGER"}.get(kind.name, kind.name)


def quoted(name: str) -> str:
    """A name as DuckDB reads it whatever its characters."""
    return '"' + name.replace('"', '""') + '"'


def casts_implicitly(source: Type, target: LogicalType) -> bool:
    """Whether Flink stores a value of `source` in a column of `target` without CAST."""
    return _casts(source, target, _IMPLICIT)


def casts_explicitly(source: Type, target: LogicalType) -> bool:
    """Whether CAST from `source` to `target` is supported."""
    return _casts(source, target, _EXPLICIT)


def _casts(source: Type, target: LogicalType, rules: dict[str, tuple[str, ...]]) -> bool:
    if isinstance(source, Pseudo):
        return source is Pseudo.NULL
    if target.name in NESTED or source.name in NESTED:
        return (
            source.name == target.name
            and len(source.children) == len(target.children)
            and all(_casts(a, b, rules) for a, b in zip(source.children, target.children, strict=True))
        )
    return source.name in rules.get(target.name, (target.name,))


_IMPLICIT: dict[str, tuple[str, ...]] = {
    "VARCHAR": STRINGS,
    "VARBINARY": BYTES,
    "SMALLINT": INTEGERS[:2],
    "INT": INTEGERS[:3],
    "BIGINT": INTEGERS,
    "DECIMAL": NUMERIC,
    "FLOAT": (*EXACT, "FLOAT"),
    "DOUBLE": NUMERIC,
    "DATE": ("DATE", "TIMESTAMP"),
    "TIME": ("TIME", "TIMESTAMP"),
    "TIMESTAMP": TIMESTAMPS,
    "TIMESTAMP_LTZ": TIMESTAMPS,
}
_EXPLICIT: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(STRINGS, (*STRINGS, *BYTES, *NUMERIC, *TIMESTAMPS, "BOOLEAN", "DATE", "TIME")),
    **dict.fromkeys(BYTES, (*BYTES, *STRINGS)),
    **dict.fromkeys(NUMERIC, (*NUMERIC, *STRINGS, "BOOLEAN")),
    **dict.fromkeys(TIMESTAMPS, (*TIMESTAMPS, *STRINGS, "DATE")),
    "BOOLEAN": ("BOOLEAN", *STRINGS, *INTEGERS),
    "DATE": ("DATE", *TIMESTAMPS, *STRINGS),
    "TIME": ("TIME", *TIMESTAMPS, *STRINGS),
}


def common_type(kinds: list[Type]) -> LogicalType | None:
    """The type that values of all these types share (CASE, COALESCE, ARRAY, comparisons); None when there is none."""
    found: LogicalType | None = None
    for kind in kinds:
        if kind is Pseudo.INTERVAL:
            return None
        if isinstance(kind, LogicalType):
            found = nullable(kind) if found is None else _common(found, nullable(kind))
            if found is None:
                return None
    return found if found is not None else STRING


def _common(left: LogicalType, right: LogicalType) -> LogicalType | None:
    if left == right:
        return left
    names = {left.name, right.name}
    if names <= set(NUMERIC):
        return common_number(left, right)
    for family, name in ((STRINGS, "VARCHAR"), (BYTES, "VARBINARY")):
        if names <= set(family):
            sizes = (left.precision, right.precision)
            return LogicalType(name, None if None in sizes else max(size for size in sizes if size))
    if names <= {"DATE", *TIMESTAMPS}:
        precision = max(kind.precision or 0 for kind in (left, right))
        return LogicalType("TIMESTAMP_LTZ" if "TIMESTAMP_LTZ" in names else "TIMESTAMP", precision)
    if left.name == right.name and left.name in NESTED and len(left.children) == len(right.children):
        children = [_common(nullable(a), nullable(b)) for a, b in zip(left.children, right.children, strict=True)]
        if None not in children:
            return LogicalType(left.name, children=tuple(c for c in children if c), child_names=left.child_names)
    return None


def common_number(left: LogicalType, right: LogicalType) -> LogicalType:
    """The number type that holds both: the wider integer, a wide enough DECIMAL, FLOAT with integers, else DOUBLE."""
    names = {left.name, right.name}
    if names <= set(INTEGERS):
        return LogicalType(max(names, key=INTEGERS.index))
    if names <= set(EXACT):
        (p1, s1), (p2, s2) = digits(left), digits(right)
        scale = max(s1, s2)
        return LogicalType("DECIMAL", min(38, max(p1 - s1, p2 - s2) + scale), scale)
    if "DOUBLE" in names or "DECIMAL" in names:
        return DOUBLE
    return LogicalType("FLOAT")


def digits(kind: LogicalType) -> tuple[int, int]:
    """Precision and scale of an exact number."""
    if kind.name == "DECIMAL":
        return kind.precision or 10, kind.scale or 0
    return _DIGITS[kind.name], 0


def decimal(precision: int, scale: int) -> LogicalType:
    """DECIMAL of that many digits, cut to 38 as Flink cuts it: at least 6 decimal places are kept."""
    if precision > 38:
        whole = precision - scale
        scale = max(38 - whole, min(scale, 6))
        precision = 38
    return LogicalType("DECIMAL", precision, scale)
