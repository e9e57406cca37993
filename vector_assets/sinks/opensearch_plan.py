"""How the pipeline's columns meet an index: everything that can be known before the first row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from vector_assets.clients.opensearch import Client, MissingError
from vector_assets.engine.errors import PlanError
from vector_assets.engine.registry import nearest
from vector_assets.sinks.kinds import is_list, kind_of

META = "vector_assets"
"""Key of the mapping's `_meta` under which an index says by which columns its documents are identified."""

_WHOLE = frozenset({"byte", "short", "integer", "long", "unsigned_long"})
_NUMBER = frozenset({"half_float", "float", "double", "scaled_float"})
_TEXT = frozenset(
    {"text", "keyword", "match_only_text", "wildcard", "ip", "version", "search_as_you_type", "completion"}
)
_OBJECT = frozenset({"object", "nested", "flat_object"})
_WHOLE_KINDS = frozenset({"INT"})
_NUMBER_KINDS = frozenset({"INT", "DOUBLE", "DECIMAL"})


@dataclass(frozen=True, slots=True)
class Column:
    """A column and the field it goes to; `dimension` of a vector, `kind` is the mapping's type."""

    name: str
    type: pa.DataType
    kind: str
    dimension: int | None = None

    @property
    def is_vector(self) -> bool:
        """True of a vector."""
        return self.kind == "knn_vector"


@dataclass(frozen=True, slots=True)
class Index:
    """A concrete index; `name` is what it was asked by (an alias, perhaps)."""

    name: str
    concrete: str
    uuid: str
    properties: dict[str, Any]
    settings: dict[str, Any]
    meta: dict[str, Any]
    dynamic: str


@dataclass(frozen=True, slots=True)
class Plan:
    """An index that the pipeline's rows fit into."""

    index: Index
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    notes: tuple[str, ...] = ()
    delimiter: str = "_"


def describe(client: Client, name: str) -> Index | None:
    """The index behind a name, None where there is none.

    Raises:
        PlanError: the name is a data stream, or an alias of several indices.
    """
    try:
        found = client.ask("GET", f"/{name}", params={"flat_settings": "true"})
    except MissingError:
        return None
    if len(found) != 1:
        raise PlanError(
            f"{client.place}: {name} is an alias of {len(found)} indices ({', '.join(sorted(found)[:5])}): a document"
            " that changes would stay in another of them; name one index"
        )
    ((concrete, body),) = found.items()
    if body.get("data_stream"):
        raise PlanError(
            f"{client.place}: {name} is a data stream, which takes neither updates nor deletes nor versions: name an"
            " index"
        )
    mapping, settings = body.get("mappings", {}), body["settings"]
    meta = mapping.get("_meta", {}).get(META, {})
    dynamic = str(mapping.get("dynamic", ""))
    return Index(name, concrete, settings["index.uuid"], mapping.get("properties", {}), settings, meta, dynamic)


def make_plan(index: Index, schema: pa.Schema, declared_key: Sequence[str]) -> Plan:
    """The plan for rows of `schema`.

    Raises:
        PlanError: key, fields, types or dimensions do not fit; the message names both sides.
    """
    key = _key(index, schema, declared_key)
    columns = tuple(column_of(index, field) for field in schema)
    notes = []
    if pipeline := index.settings.get("index.default_pipeline"):
        notes.append(f"documents pass the ingest pipeline {pipeline}")
    return Plan(index, key, columns, tuple(notes))


def _key(index: Index, schema: pa.Schema, declared: Sequence[str]) -> tuple[str, ...]:
    known = tuple(index.meta.get("key", ()))
    if known and declared and tuple(declared) != known:
        raise PlanError(
            f"{index.name}: PRIMARY KEY ({', '.join(declared)}) is declared, the index's documents are identified by"
            f" ({', '.join(known)})"
        )
    key = tuple(declared) or known
    for column in key:
        if column not in schema.names:
            raise PlanError(f"{index.name}: the key {column} is not among the columns sent: {', '.join(schema.names)}")
        if kind_of(schema.field(column).type) not in {"INT", "STRING", "BOOLEAN", "DATE", "TIMESTAMP", "DECIMAL"}:
            raise PlanError(f"{index.name}: key column {column} is {schema.field(column).type}: no _id is made of that")
    return key


def column_of(index: Index, field: pa.Field) -> Column:
    """The field that takes a column.

    Raises:
        PlanError: there is none, or it takes no such values.
    """
    found = index.properties.get(field.name)
    if found is None:
        known = list(index.properties)
        # unless it says so itself, an index would make a field of a misspelt name
        if index.dynamic in {"true", "runtime"}:
            return Column(field.name, field.type, "dynamic")
        raise PlanError(
            f"{index.name}: field {field.name} does not exist{nearest(field.name, known)}; fields there:"
            f" {', '.join(known)}"
        )
    kind = found.get("type", "object")
    check = _CHECKS.get(kind)
    if check is not None and not check(field.type):
        raise PlanError(
            f"{index.name}: field {field.name} is {kind}, the pipeline sends {kind_of(field.type)} ({field.type}):"
            " use a CAST in the SELECT"
        )
    return Column(field.name, field.type, kind, found.get("dimension") if kind == "knn_vector" else None)


def _one_of(kinds: frozenset[str]) -> Callable[[pa.DataType], bool]:
    """True of a type of these kinds, and of an array of them: every field may have several values."""

    def fits(found: pa.DataType) -> bool:
        return kind_of(found.value_type if is_list(found) else found) in kinds

    return fits


def _is_vector(found: pa.DataType) -> bool:
    return kind_of(found) == "STRING" or (is_list(found) and kind_of(found.value_type) == "DOUBLE")


_CHECKS: dict[str, Callable[[pa.DataType], bool]] = {
    **dict.fromkeys(_WHOLE, _one_of(_WHOLE_KINDS)),
    **dict.fromkeys(_NUMBER, _one_of(_NUMBER_KINDS)),
    **dict.fromkeys(_TEXT, _one_of(frozenset({"STRING"}))),
    **dict.fromkeys(_OBJECT, _one_of(frozenset({"ROW", "MAP"}))),
    "boolean": _one_of(frozenset({"BOOLEAN"})),
    "date": _one_of(frozenset({"DATE", "TIMESTAMP", "STRING", "INT"})),
    "binary": _one_of(frozenset({"BYTES"})),
    "knn_vector": _is_vector,
}
