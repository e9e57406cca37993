"""Avro schemas as trees: read from JSON, or derived from a table's columns as Flink's AvroSchemaConverter does."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import fastavro
import orjson
from fastavro.schema import SchemaParseException, UnknownType

from vector_assets.engine.errors import ConfigError
from vector_assets.engine.schema import LogicalType, Table

NAME = "org.apache.flink.avro.generated.record"
"""What Flink calls the record of a table."""

PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")

_KINDS = {
    "BOOLEAN": "boolean",
    "TINYINT": "int",
    "SMALLINT": "int",
    "INT": "int",
    "BIGINT": "long",
    "FLOAT": "float",
    "DOUBLE": "double",
    "CHAR": "string",
    "VARCHAR": "string",
    "BINARY": "bytes",
    "VARBINARY": "bytes",
    "DATE": "int",
    "TIME": "int",
    "TIMESTAMP": "long",
    "TIMESTAMP_LTZ": "long",
    "DECIMAL": "bytes",
    "ARRAY": "array",
    "MAP": "map",
    "ROW": "record",
}


@dataclass(slots=True, eq=False)
class AvroField:
    """A field of a record; `default` is JSON and counts only where `has_default`."""

    name: str
    type: "Avro"
    aliases: tuple[str, ...] = ()
    has_default: bool = False
    default: Any = None


@dataclass(slots=True, eq=False)
class Avro:
    """One node of a schema; named types that refer to themselves are cycles of these objects."""

    kind: str
    name: str = ""
    aliases: tuple[str, ...] = ()
    logical: str | None = None
    precision: int = 0
    scale: int = 0
    size: int = 0
    symbols: tuple[str, ...] = ()
    default_symbol: str | None = None
    items: "Avro | None" = None
    branches: tuple["Avro", ...] = ()
    fields: list[AvroField] = field(default_factory=list)

    def __str__(self) -> str:
        if self.kind == "union":
            return f"[{', '.join(map(str, self.branches))}]"
        text = f"{self.kind} {self.name}" if self.name else self.kind
        return f"{text} ({self.logical})" if self.logical else text


def parse(text: str, what: str, references: Sequence[str] = ()) -> Avro:
    """The schema that JSON text spells; `what` starts the message of an error.

    `references` are schemas whose names the text uses, each before those that use it.

    Raises:
        ConfigError: it is no JSON, or no Avro schema; says why.
    """
    reading, known = _Reading(), {}  # type: ignore[var-annotated]
    try:
        for part in (*references, text):
            definition = orjson.loads(part)
            # our reading below relies on what this checks: names, references, sizes, defaults, symbols
            fastavro.parse_schema(definition, named_schemas=known, _write_hint=False)
            made = reading.node(definition, "")
    except (
        SchemaParseException,
        UnknownType,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        RecursionError,
    ) as error:
        raise ConfigError(f"{what} is no Avro schema: {type(error).__name__}: {str(error)[:200]}") from None
    return made


class _Reading:
    """The names seen while schemas are read."""

    def __init__(self) -> None:
        self._named: dict[str, Avro] = {}

    def node(self, part: Any, space: str) -> Avro:
        if isinstance(part, list):
            return Avro("union", branches=tuple(self.node(each, space) for each in part))
        if isinstance(part, str):
            return Avro(part) if part in PRIMITIVES else self._named[_full(part, space, self._named)]
        kind = part["type"]
        if not isinstance(kind, str):
            return self.node(kind, space)
        if kind in {"record", "error", "enum", "fixed"}:
            return self._name(part, kind, space)
        if kind in {"array", "map"}:
            return Avro(kind, items=self.node(part["items" if kind == "array" else "values"], space))
        if kind not in PRIMITIVES:
            return self.node(kind, space)
        return _logical(Avro(kind), part)

    def _name(self, part: Mapping[str, Any], kind: str, space: str) -> Avro:
        name = str(part["name"])
        space = part.get("namespace", space) if "." not in name else name.rpartition(".")[0]
        full = name if "." in name or not space else f"{space}.{name}"
        made = Avro("record" if kind == "error" else kind, full, tuple(part.get("aliases", ())))
        self._named[full] = made
        made.size = int(part.get("size", 0))
        made.symbols = tuple(part.get("symbols", ()))
        made.default_symbol = part.get("default")
        for each in part.get("fields", ()):
            inner = self.node(each["type"], space)
            if isinstance(each["type"], str) and each["type"] in PRIMITIVES:
                # some writers put the logical type beside the type
                inner = _logical(inner, each)
            aliases = tuple(each.get("aliases", ()))
            made.fields.append(AvroField(each["name"], inner, aliases, "default" in each, each.get("default")))
        return _logical(made, part) if kind == "fixed" else made


def _full(name: str, space: str, known: Mapping[str, Avro]) -> str:
    return f"{space}.{name}" if space and f"{space}.{name}" in known and "." not in name else name


def _logical(made: Avro, part: Mapping[str, Any]) -> Avro:
    """The node with its logical type, if that is one that changes how values are read."""
    name = part.get("logicalType")
    if name == "decimal" and made.kind in {"bytes", "fixed"}:
        made.logical, made.precision, made.scale = name, int(part["precision"]), int(part.get("scale", 0))
    elif isinstance(name, str) and name != "decimal":
        made.logical = name
    return made


def of_table(table: Table, owner: str, *, legacy: bool) -> Avro:
    """The schema that Flink derives from the physical columns.

    Raises:
        ConfigError: a column has a type that the format has no schema for; names it.
    """
    made = Avro("record", NAME)
    for column in table.physical:
        try:
            inner = _of(column.type, f"{NAME}_{column.name}", legacy=legacy)
        except ValueError as error:
            message = f"{owner}: column {column.name} of table {table.name} is {column.type}: {error}"
            raise ConfigError(message, column.place) from None
        made.fields.append(AvroField(column.name, inner, (), column.type.nullable, None))
    return made


def _of(wanted: LogicalType, name: str, *, legacy: bool) -> Avro:
    made = Avro(_KINDS[wanted.name])
    if wanted.name == "ARRAY":
        made.items = _of(wanted.children[0], name, legacy=legacy)
    elif wanted.name == "MAP":
        key, value = wanted.children
        if key.name not in {"CHAR", "VARCHAR"}:
            raise ValueError(f"Avro maps have text as keys, found {key}")
        made.items = _of(value, name, legacy=legacy)
    elif wanted.name == "ROW":
        made.name = name
        for child_name, child in zip(wanted.child_names, wanted.children, strict=True):
            inner = _of(child, f"{name}_{child_name}", legacy=legacy)
            made.fields.append(AvroField(child_name, inner, (), child.nullable, None))
    else:
        made.logical = _logical_of(wanted, legacy=legacy)
        if wanted.name == "DECIMAL":
            made.precision, made.scale = wanted.precision or 0, wanted.scale or 0
    return Avro("union", branches=(Avro("null"), made)) if wanted.nullable else made


def _logical_of(wanted: LogicalType, *, legacy: bool) -> str | None:
    digits = wanted.precision or 0
    if wanted.name == "TIME" and digits > 3:
        raise ValueError("Avro as Flink uses it reads TIME(0) to TIME(3)")
    if wanted.name in {"TIMESTAMP", "TIMESTAMP_LTZ"}:
        if legacy and (wanted.name == "TIMESTAMP_LTZ" or digits > 3):
            raise ValueError(
                "'avro.timestamp_mapping.legacy' = 'true' (the default, as in Flink) reads only TIMESTAMP(0) to "
                "TIMESTAMP(3); declare TIMESTAMP(3), or set it to 'false' for up to six digits and TIMESTAMP_LTZ"
            )
        unit = "millis" if digits <= 3 else "micros" if digits <= 6 else "nanos"
        is_local = wanted.name == "TIMESTAMP" and not legacy
        return f"local-timestamp-{unit}" if is_local else f"timestamp-{unit}"
    return {"DATE": "date", "TIME": "time-millis", "DECIMAL": "decimal"}.get(wanted.name)


def unwrapped(schema: Avro) -> tuple[Avro | None, bool]:
    """What a reader's union of one type and null holds, and whether null is in it; None for any other union."""
    if schema.kind != "union":
        return schema, schema.kind == "null"
    others = [branch for branch in schema.branches if branch.kind != "null"]
    return (others[0] if len(others) == 1 else None), len(others) < len(schema.branches)


def encoded(schema: Avro, value: Any, *, tagged: bool) -> bytes:
    """JSON in Avro's binary encoding.

    Union values are those of Avro's JSON encoding (`{"string": "a"}`) if `tagged`, else a default: of the first branch.

    Raises:
        ValueError: the value is none of this schema; says what was wanted.
    """
    if schema.kind == "union":
        number, inner = _branch(schema, value, tagged=tagged)
        return _long(number) + encoded(schema.branches[number], inner, tagged=tagged)
    if schema.kind == "record" and isinstance(value, dict):
        return b"".join(_field(each, value, tagged=tagged) for each in schema.fields)
    if schema.kind == "map" and schema.items is not None and isinstance(value, dict):
        entries = [_bytes(key.encode()) + encoded(schema.items, each, tagged=tagged) for key, each in value.items()]
        return _block(entries)
    if schema.items is not None and isinstance(value, list):
        return _block([encoded(schema.items, each, tagged=tagged) for each in value])
    return _simple(schema, value)


def _block(parts: list[bytes]) -> bytes:
    return (_long(len(parts)) + b"".join(parts) if parts else b"") + b"\0"


def _field(each: AvroField, value: Mapping[str, Any], *, tagged: bool) -> bytes:
    if each.name in value:
        return encoded(each.type, value[each.name], tagged=tagged)
    if not each.has_default:
        raise ValueError(f"field {each.name} is missing")
    return encoded(each.type, each.default, tagged=False)


def _branch(schema: Avro, value: Any, *, tagged: bool) -> tuple[int, Any]:
    if not tagged:
        return 0, value
    names = ["null" if b.kind == "null" else b.name or b.kind for b in schema.branches]
    if value is None and "null" in names:
        return names.index("null"), None
    if isinstance(value, dict) and len(value) == 1:
        ((name, inner),) = value.items()
        if name in names:
            return names.index(name), inner
    wanted = " or ".join("null" if name == "null" else f'{{"{name}": ...}}' for name in names)
    raise ValueError(f"found {type(value).__name__}, wanted {wanted}")


def _simple(schema: Avro, value: Any) -> bytes:
    match schema.kind, value:
        case "null", None:
            return b""
        case "boolean", bool():
            return b"\1" if value else b"\0"
        case (("int" | "long"), int()) if not isinstance(value, bool):
            if not -(2**63) <= value < 2**63 or (schema.kind == "int" and not -(2**31) <= value < 2**31):
                raise ValueError(f"the number is out of the range of {schema.kind}")
            return _long(value)
        case (("float" | "double"), int() | float()) if not isinstance(value, bool):
            return _real(schema.kind, float(value))
        case "string", str():
            return _bytes(value.encode())
        case "bytes", str():
            return _bytes(value.encode("latin-1"))
        case "fixed", str() if len(value) == schema.size:
            return value.encode("latin-1")
        case "enum", str() if value in schema.symbols:
            return _long(schema.symbols.index(value))
    raise ValueError(f"found {type(value).__name__}, wanted {schema}")


def _real(kind: str, value: float) -> bytes:
    try:
        return struct.pack("<f" if kind == "float" else "<d", value)
    except OverflowError:
        raise ValueError(f"the number is out of the range of {kind}") from None


def _bytes(value: bytes) -> bytes:
    return _long(len(value)) + value


def _long(value: int) -> bytes:
    rest = (value << 1) ^ (value >> 63)
    out = bytearray()
    while rest > 127:
        out.append(rest & 127 | 128)
        rest >>= 7
    out.append(rest)
    return bytes(out)
