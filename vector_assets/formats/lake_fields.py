"""Which member of a JSON document goes into which column of a lake table, and the way back.

A field's path says where its value stands; objects on the way to a field are expanded, everything else is one value.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Literal, Self

import numpy as np
import orjson

from vector_assets.engine.core import HIDDEN, Json
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.schema import LogicalType
from vector_assets.formats.json_exact import loads_exact

Path = tuple[str, ...]
RESCUED = "_rescued"
"""Column of what the other columns do not hold: a JSON object that mirrors the document, null when they hold all."""
WHOLE = "__value__"
"""Column of a document of which no layer is parsed."""
STRING = LogicalType("VARCHAR")
JSON = "JSON"
"""How the type of a column of JSON texts is spelled."""

_PLAIN_KEY = re.compile(r'[^."\\]+')
_PATH_KEY = re.compile(r'("(?:[^"\\]|\\.)*"|[^."\\]+)(\.|\Z)')


@dataclass(frozen=True, slots=True)
class LakeField:
    """One column: the member at `path` as `type`, under `name`.

    With `json` the column (STRING) holds JSON text: any value at all, without white space around its parts, otherwise
    as written. `nulls` says what the column's null usually means: the member is absent, or it is there and null;
    records of the other kind have a null at the field's path in `_rescued`. `iso`: timestamps are spelled with a `T`.
    """

    path: Path
    name: str
    type: LogicalType = STRING
    json: bool = False
    nulls: Literal["absent", "null"] = "absent"
    iso: bool = False

    @property
    def spelled(self) -> str:
        """The type for people: `JSON`, or as Flink spells it."""
        return JSON if self.json else str(self.type)

    def to_json(self) -> Json:
        """What `from_json` reads."""
        kind = [self.type.name, self.type.precision, self.type.scale]
        return {
            "path": list(self.path), "name": self.name, "type": kind, "json": self.json, "nulls": self.nulls,
            "iso": self.iso,
        }  # fmt: skip

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The field that `to_json` wrote."""
        kind = LogicalType(*values["type"])
        return cls(tuple(values["path"]), values["name"], kind, values["json"], values["nulls"], values["iso"])


def path_text(path: Path) -> str:
    """A path for people and files: `device.os`; a key that is empty or has a dot, quote or backslash is quoted, and so
    is a member called as the whole message is."""
    if path == (WHOLE,):
        return f'"{WHOLE}"'
    return ".".join(key if _PLAIN_KEY.fullmatch(key) else orjson.dumps(key).decode() for key in path)


def parse_path(text: str) -> Path:
    """The path that `path_text` wrote; an empty text is the whole document.

    Raises:
        ConfigError: a key is empty without quotes, or a quote is not closed.
    """
    keys: list[str] = []
    place, follows = 0, bool(text)
    while follows:
        found = _PATH_KEY.match(text, place)
        if found is None:
            raise ConfigError(f'path {text!r}: found no key at character {place}, wanted keys such as device."a.b".os')
        keys.append(orjson.loads(found[1]) if found[1].startswith('"') else found[1])
        place, follows = found.end(), found[2] == "."
    return tuple(keys)


def plain_name(path: Path) -> str:
    """The destination's name of a path, before collisions: keys joined by `_`, dots in them replaced by `_`."""
    return "_".join(path).replace(".", "_") or "_" if path else WHOLE


@dataclass(slots=True)
class Names:
    """Gives each path a column of its own; names that differ in case only are one to most lakes."""

    taken: set[str] = field(default_factory=lambda: {name.casefold() for name in (RESCUED, *HIDDEN)})
    notes: list[str] = field(default_factory=list)

    def keep(self, names: Iterable[str]) -> Self:
        """Names that are given away already."""
        self.taken |= {name.casefold() for name in names}
        return self

    def give(self, path: Path) -> str:
        """A free name for a path; one that is not the plain one is noted."""
        wanted = name = plain_name(path)
        number = 2
        while name.casefold() in self.taken:
            name, number = f"{wanted}_{number}", number + 1
        if name != wanted:
            self.notes.append(f"{path_text(path)} is column {name}: the name {wanted} is taken")
        self.taken.add(name.casefold())
        return name


def inner_paths(fields: Sequence[LakeField]) -> list[Path]:
    """The objects that are expanded, parents before children; the document itself, (), is the first."""
    found: dict[Path, None] = {(): None}
    for each in fields:
        found |= dict.fromkeys(each.path[:depth] for depth in range(1, len(each.path)))
    return sorted(found, key=len)


def check_fields(fields: Sequence[LakeField]) -> None:
    """Refuse fields that cannot stand beside each other.

    Raises:
        ConfigError: two of one name or path, a path that leads through another field, or a type JSON has no value for.
    """
    names: dict[str, LakeField] = {}
    paths = {each.path: each for each in fields}
    if len(paths) < len(fields):
        twice = next(each for number, each in enumerate(fields) if paths[each.path] is not fields[number])
        raise ConfigError(f"field {path_text(twice.path)!r} is there twice, as {twice.name}")
    for each in fields:
        shown = f"field {path_text(each.path)!r} (column {each.name})"
        other = names.setdefault(each.name.casefold(), each)
        if other is not each:
            raise ConfigError(f"{shown}: {path_text(other.path)!r} is column {other.name} already")
        if each.name in HIDDEN or each.name == RESCUED:
            raise ConfigError(f"{shown}: the name is taken; reserved names: {', '.join(sorted(HIDDEN))}, {RESCUED}")
        through = next((paths[each.path[:n]] for n in range(len(each.path)) if each.path[:n] in paths), None)
        if through:
            raise ConfigError(f"{shown} is part of field {path_text(through.path)!r}: keep one of them")
        if each.type.name in {"ARRAY", "MAP", "ROW", "BINARY", "VARBINARY"} or (each.json and each.type != STRING):
            raise ConfigError(
                f"{shown}: found type {each.type}, wanted a simple type, STRING, or {JSON} for whole parts"
            )


def rebuild(row: Mapping[str, Any], rescued: str | None, fields: Sequence[LakeField]) -> dict[str, Any]:
    """The document that a row of the lake was: columns by name as Python values, and its `_rescued` text.

    Equal to the source as JSON: the same members (of equal names the last, as in Python's json) with the same values.
    Numbers are int or Decimal; their value is exact, their spelling only where it was kept as text.
    """
    if len(fields) == 1 and not fields[0].path:
        whole: dict[str, Any] = loads_exact(row[fields[0].name])
        return whole
    document: dict[str, Any] = {}
    for each in fields:
        if row.get(each.name) is not None:
            *parents, key = each.path
            _parent(document, parents)[key] = _source_value(each, row[each.name])
    mentioned: set[Path] = set()
    usual_nulls = {each.path for each in fields if each.nulls == "null"}
    if rescued is not None:
        _merge(document, loads_exact(rescued), (), set(inner_paths(fields)), usual_nulls, mentioned)
    for each in fields:
        if each.nulls == "null" and row.get(each.name) is None and each.path not in mentioned:
            holder = _there(document, each.path[:-1])
            if holder is not None:
                holder[each.path[-1]] = None
    return document


def _parent(document: dict[str, Any], path: Sequence[str]) -> dict[str, Any]:
    for key in path:
        document = document.setdefault(key, {})
    return document


def _there(document: Any, path: Path) -> dict[str, Any] | None:
    for key in path:
        document = document.get(key) if isinstance(document, dict) else None
    return document if isinstance(document, dict) else None


def _merge(
    document: dict[str, Any], rescued: dict[str, Any], path: Path, inner: set[Path], usual_nulls: set[Path],
    mentioned: set[Path],
) -> None:  # fmt: skip
    for key, value in rescued.items():
        here = (*path, key)
        mentioned.add(here)
        if here in inner and isinstance(value, dict):
            _merge(document.setdefault(key, {}), value, here, inner, usual_nulls, mentioned)
        elif not (value is None and here in usual_nulls):
            document[key] = value


def _source_value(each: LakeField, value: Any) -> Any:
    """What the document said, of what the column holds."""
    if each.json:
        return loads_exact(value)
    if isinstance(value, float):
        return Decimal(str(np.float32(value)) if each.type.name == "FLOAT" else repr(value))
    if isinstance(value, datetime | time):
        return _moment(value, each)
    return value.isoformat() if isinstance(value, date) else value


def _moment(value: datetime | time, each: LakeField) -> str:
    """A time in the one spelling that needs no rescue: as many digits as the type has."""
    digits = each.type.precision or 0
    nanos = getattr(value, "nanosecond", 0) + value.microsecond * 1000
    if isinstance(value, datetime):
        text = value.replace(tzinfo=None).isoformat(sep="T" if each.iso else " ", timespec="seconds")
    else:
        text = value.isoformat(timespec="seconds")
    fraction = f".{nanos:09d}"[: digits + 1] if digits else ""
    return f"{text}{fraction}{'Z' if each.type.name == 'TIMESTAMP_LTZ' else ''}"
