"""MaxCompute's types: their text, their Arrow type and the DuckDB type that holds them.

Names and Arrow types are those of pyodps (odps/types.py, odps/tunnel/io/types.py): DATETIME is milliseconds, TIMESTAMP
and TIMESTAMP_NTZ are nanoseconds, both UTC. DuckDB's TIMESTAMP_NS holds 1677-09-21 to 2262-04-11 only.
"""

import re
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from vector_assets.local.maxcompute.refusal import invalid

_SIMPLE: dict[str, tuple[pa.DataType, str]] = {
    "boolean": (pa.bool_(), "BOOLEAN"),
    "tinyint": (pa.int8(), "TINYINT"),
    "smallint": (pa.int16(), "SMALLINT"),
    "int": (pa.int32(), "INTEGER"),
    "bigint": (pa.int64(), "BIGINT"),
    "float": (pa.float32(), "FLOAT"),
    "double": (pa.float64(), "DOUBLE"),
    "char": (pa.string(), "VARCHAR"),
    "varchar": (pa.string(), "VARCHAR"),
    "string": (pa.string(), "VARCHAR"),
    "binary": (pa.binary(), "BLOB"),
    "date": (pa.date32(), "DATE"),
    "datetime": (pa.timestamp("ms"), "TIMESTAMP_MS"),
    "timestamp": (pa.timestamp("ns"), "TIMESTAMP_NS"),
    "timestamp_ntz": (pa.timestamp("ns"), "TIMESTAMP_NS"),
    "json": (pa.string(), "VARCHAR"),
}
_ALIASES = {"integer": "int", "numeric": "decimal", "bool": "boolean"}
_TOKEN = re.compile(r"\s*(?:`([^`]+)`|(\w+)|([<>(),:]))")
_DECIMAL_DEFAULT = (38, 18)
_MOST_DIGITS = 38
_LONGEST = {"char": 255, "varchar": 65535}


@dataclass(frozen=True)
class Type:
    """One type: its name in small letters, its numbers (length, or precision and scale), the types inside it."""

    name: str
    numbers: tuple[int, ...] = ()
    fields: tuple[tuple[str, "Type"], ...] = ()

    def __str__(self) -> str:
        inner = [kind for _, kind in self.fields]
        match self.name:
            case "array":
                return f"array<{inner[0]}>"
            case "map":
                return f"map<{inner[0]},{inner[1]}>"
            case "struct":
                return f"struct<{','.join(f'{_field_name(name)}:{kind}' for name, kind in self.fields)}>"
        return self.name + (f"({','.join(map(str, self.numbers))})" if self.numbers else "")

    @cached_property
    def arrow(self) -> pa.DataType:
        """The Arrow type of its values."""
        match self.name:
            case "decimal":
                return pa.decimal128(*(self.numbers or _DECIMAL_DEFAULT))
            case "array":
                return pa.list_(self.fields[0][1].arrow)
            case "map":
                return pa.map_(self.fields[0][1].arrow, self.fields[1][1].arrow)
            case "struct":
                return pa.struct([(name, kind.arrow) for name, kind in self.fields])
        return _SIMPLE[self.name][0]

    @cached_property
    def duck(self) -> str:
        """The DuckDB type of a column of it."""
        match self.name:
            case "decimal":
                precision, scale = self.numbers or _DECIMAL_DEFAULT
                return f"DECIMAL({precision},{scale})"
            case "array":
                return f"{self.fields[0][1].duck}[]"
            case "map":
                return f"MAP({self.fields[0][1].duck}, {self.fields[1][1].duck})"
            case "struct":
                return f"STRUCT({', '.join(f'{quoted(name)} {kind.duck}' for name, kind in self.fields)})"
        return _SIMPLE[self.name][1]

    @property
    def is_nested(self) -> bool:
        """True for ARRAY, MAP and STRUCT."""
        return bool(self.fields)

    @property
    def has_json(self) -> bool:
        """True when a JSON value is in it: it has no Arrow type for the client."""
        return self.name == "json" or any(kind.has_json for _, kind in self.fields)


def quoted(name: str) -> str:
    """A DuckDB identifier."""
    return '"' + name.replace('"', '""') + '"'


def parse(text: str) -> Type:
    """The type of its text.

    Raises:
        Refusal: it is none.
    """
    tokens: list[tuple[str, bool]] = []
    at = 0
    while at < len(text.rstrip()):
        found = _TOKEN.match(text, at)
        if not found:
            raise invalid(f"type {text!r}: cannot read {text[at:]!r}")
        tokens.append((found[1] or found[2] or found[3], bool(found[1])))
        at = found.end()
    parser = _Parser(text, tokens)
    kind = parser.kind()
    parser.end()
    return kind


def of_arrow(kind: pa.DataType) -> Type:
    """The type of a query's Arrow column.

    Raises:
        Refusal: MaxCompute has no such type.
    """
    if pa.types.is_decimal(kind):
        return Type("decimal", (kind.precision, kind.scale))
    if pa.types.is_timestamp(kind):
        return Type("datetime" if kind.unit == "ms" else "timestamp")
    if pa.types.is_map(kind):
        return Type("map", fields=(("key", of_arrow(kind.key_type)), ("value", of_arrow(kind.item_type))))
    if pa.types.is_list(kind):
        return Type("array", fields=(("element", of_arrow(kind.value_type)),))
    if pa.types.is_struct(kind):
        return Type("struct", fields=tuple((field.name, of_arrow(field.type)) for field in kind))
    if pa.types.is_unsigned_integer(kind):
        return Type("bigint")
    if pa.types.is_null(kind) or pa.types.is_large_string(kind):
        return Type("string")
    for name, (arrow, _) in _SIMPLE.items():
        if arrow == kind and name not in {"char", "varchar"}:
            return Type(name)
    raise invalid(f"a column of type {kind} has no MaxCompute type")


class _Parser:
    def __init__(self, text: str, tokens: list[tuple[str, bool]]) -> None:
        self._text = text
        self._tokens = tokens
        self._at = 0

    def kind(self) -> Type:
        name = self._take().lower()
        name = _ALIASES.get(name, name)
        if name == "array":
            return Type(name, fields=(("element", self._within(1)[0]),))
        if name == "map":
            key, value = self._within(2)
            return Type(name, fields=(("key", key), ("value", value)))
        if name == "struct":
            return self._struct()
        numbers = self._numbers()
        if name != "decimal" and name not in _SIMPLE:
            raise invalid(f"unknown type {name!r}; known: decimal, array, map, struct, {', '.join(_SIMPLE)}")
        self._check_numbers(name, numbers)
        return Type(name, numbers)

    def end(self) -> None:
        if self._at != len(self._tokens):
            raise invalid(f"type {self._text!r}: {self._tokens[self._at][0]!r} is too much")

    def _check_numbers(self, name: str, numbers: tuple[int, ...]) -> None:
        if name == "decimal":
            is_right = not numbers or (
                len(numbers) == 2 and 1 <= numbers[0] <= _MOST_DIGITS and numbers[1] <= numbers[0]
            )
        elif name in _LONGEST:
            is_right = len(numbers) == 1 and 1 <= numbers[0] <= _LONGEST[name]
        else:
            is_right = not numbers
        if not is_right:
            raise invalid(f"type {self._text!r}: {name} does not take ({', '.join(map(str, numbers))})")

    def _take(self, wanted: str = "") -> str:
        if self._at == len(self._tokens):
            raise invalid(f"type {self._text!r} ends too early")
        token, _ = self._tokens[self._at]
        if wanted and token != wanted:
            raise invalid(f"type {self._text!r}: {wanted!r} expected instead of {token!r}")
        self._at += 1
        return token

    def _is_next(self, token: str) -> bool:
        return self._at < len(self._tokens) and self._tokens[self._at] == (token, False)

    def _within(self, count: int) -> list[Type]:
        self._take("<")
        kinds = [self.kind()]
        for _ in range(count - 1):
            self._take(",")
            kinds.append(self.kind())
        self._take(">")
        return kinds

    def _struct(self) -> Type:
        self._take("<")
        fields = []
        while True:
            name = self._take()
            self._take(":")
            fields.append((name, self.kind()))
            if not self._is_next(","):
                break
            self._take(",")
        self._take(">")
        return Type("struct", fields=tuple(fields))

    def _numbers(self) -> tuple[int, ...]:
        if not self._is_next("("):
            return ()
        self._take("(")
        numbers = []
        while True:
            token = self._take()
            if not token.isdigit():
                raise invalid(f"type {self._text!r}: {token!r} is no number")
            numbers.append(int(token))
            if not self._is_next(","):
                break
            self._take(",")
        self._take(")")
        if self._text.lower().startswith("decimal") and len(numbers) == 1:
            numbers.append(0)
        return tuple(numbers)


def _field_name(name: str) -> str:
    return name if re.fullmatch(r"\w+", name) else f"`{name}`"
