"""Whether data of one Avro schema can be read with another, by the specification's rules of schema resolution."""

from collections.abc import Iterator, Sequence
from typing import Any

import fastavro

LEVELS = ("NONE", *(f"{way}{far}" for way in ("BACKWARD", "FORWARD", "FULL") for far in ("", "_TRANSITIVE")))
"""The registry's compatibility levels."""

_PROMOTED = {
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
    "string": {"bytes"},
    "bytes": {"string"},
}


def problems(level: str, new: Any, older: Sequence[Any]) -> list[str]:
    """Why schema `new` may not follow `older` ones (oldest first) under a level; each is definitions, its own last."""
    if level == "NONE" or not older:
        return []
    found: list[str] = []
    for old in older if level.endswith("_TRANSITIVE") else older[-1:]:
        if level.startswith(("BACKWARD", "FULL")):
            found += _Reading(old, new).problems()
        if level.startswith(("FORWARD", "FULL")):
            found += _Reading(new, old).problems()
    return found


class _Reading:
    """One schema's data read with another; both are lists of definitions, the last of which is meant."""

    def __init__(self, writer: Sequence[Any], reader: Sequence[Any]) -> None:
        self._names: dict[str, dict[str, Any]] = {"writer": {}, "reader": {}}
        self._writer = [fastavro.parse_schema(each, self._names["writer"], _write_hint=False) for each in writer][-1]
        self._reader = [fastavro.parse_schema(each, self._names["reader"], _write_hint=False) for each in reader][-1]
        self._seen: set[tuple[int, int]] = set()

    def problems(self) -> list[str]:
        return list(self._between(self._writer, self._reader, "/"))

    def _between(self, writer: Any, reader: Any, place: str) -> Iterator[str]:
        writer, reader = self._named("writer", writer), self._named("reader", reader)
        if isinstance(writer, list):
            for branch in writer:
                yield from self._between(branch, reader, place)
            return
        if isinstance(reader, list):
            if all(any(True for _ in self._between(writer, branch, place)) for branch in reader):
                yield f"{place}: no branch of the reader's union reads the writer's {_kind(writer)}"
            return
        kinds = _kind(writer), _kind(reader)
        if kinds[0] != kinds[1] and kinds[1] not in _PROMOTED.get(kinds[0], ()):
            yield f"{place}: the writer's {kinds[0]} cannot be read as {kinds[1]}"
        elif kinds == ("array", "array"):
            yield from self._between(writer["items"], reader["items"], f"{place}/items")
        elif kinds == ("map", "map"):
            yield from self._between(writer["values"], reader["values"], f"{place}/values")
        elif kinds[0] == kinds[1] and kinds[0] in {"record", "enum", "fixed"}:
            yield from self._named_types(writer, reader, place)

    def _named_types(self, writer: Any, reader: Any, place: str) -> Iterator[str]:
        if (id(writer), id(reader)) in self._seen:
            return
        aliases = [name.rpartition(".")[2] for name in (reader["name"], *reader.get("aliases", ()))]
        if writer["name"].rpartition(".")[2] not in aliases:
            yield f"{place}: the writer's {writer['name']} is not the reader's {reader['name']}"
        elif writer["type"] == "enum":
            lost = [symbol for symbol in writer["symbols"] if symbol not in reader["symbols"]]
            if lost and "default" not in reader:
                yield f"{place}: the reader's enum lacks {', '.join(lost)}"
        elif writer["type"] == "fixed":
            if writer["size"] != reader["size"]:
                yield f"{place}: {writer['size']} bytes cannot be read as {reader['size']}"
        else:
            self._seen.add((id(writer), id(reader)))
            yield from self._fields(writer, reader, place)

    def _fields(self, writer: Any, reader: Any, place: str) -> Iterator[str]:
        written = {each["name"]: each for each in writer["fields"]}
        for each in reader["fields"]:
            name = next((name for name in (each["name"], *each.get("aliases", ())) if name in written), None)
            if name is not None:
                yield from self._between(written[name]["type"], each["type"], f"{place}{each['name']}")
            elif "default" not in each:
                yield f"{place}: the reader's field {each['name']} has no default and is not in the writer's schema"

    def _named(self, side: str, schema: Any) -> Any:
        return self._names[side].get(schema, schema) if isinstance(schema, str) else schema


def _kind(schema: Any) -> str:
    kind = schema["type"] if isinstance(schema, dict) else schema
    return "record" if kind == "error" else str(kind)
