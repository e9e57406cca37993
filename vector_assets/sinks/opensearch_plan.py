"""How the pipeline's columns meet an index: everything that can be known before the first row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from vector_assets.engine.errors import PlanError
from vector_assets.engine.registry import nearest
from vector_assets.sinks.kinds import is_list, kind_of
from vector_assets.sinks.opensearch_index import Index

_WHOLE = frozenset({"byte", "short", "integer", "long", "unsigned_long"})
_NUMBER = frozenset({"half_float", "float", "double", "scaled_float"})
_TEXT = frozenset(
    {"text", "keyword", "match_only_text", "wildcard", "ip", "version", "search_as_you_type", "completion"}
)
_OBJECT = frozenset({"object", "nested", "flat_object"})
_WHOLE_KINDS = frozenset({"INT"})
_NUMBER_KINDS = frozenset({"INT", "DOUBLE", "DECIMAL"})

_PASSES = "documents pass the ingest pipeline {}"


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
class Plan:
    """An index that the pipeline's rows fit into; without a `key` every row is a document of its own.

    With `is_direct` documents leave out the index's own ingest pipeline: they bring all that it makes. `texts` are the
    columns that it embeds, where it does nothing else.
    """

    index: Index
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    notes: tuple[str, ...] = ()
    delimiter: str = "_"
    is_direct: bool = False
    texts: tuple[str, ...] = ()

    @property
    def has_pipeline(self) -> bool:
        """True where documents pass an ingest pipeline."""
        return self.index.passes("final") or (self.index.passes("default") and not self.is_direct)

    def direct(self) -> "Plan":
        """The plan with documents that leave out the index's own ingest pipeline."""
        name = self.index.settings["index.default_pipeline"]
        notes = [note for note in self.notes if note != _PASSES.format(name)]
        made = ", ".join(column.name for column in self.columns if column.is_vector)
        notes.append(f"documents bring {made} along, and do not pass the ingest pipeline {name}, which makes it")
        return replace(self, notes=tuple(notes), is_direct=True)

    @property
    def is_searched_first(self) -> bool:
        """True where only a search tells which of several indices holds a document that was written before."""
        return self.index.is_several and self.index.pattern is None


def make_plan(index: Index, schema: pa.Schema, declared_key: Sequence[str]) -> Plan:
    """The plan for rows of `schema`.

    Raises:
        PlanError: key, fields, types or dimensions do not fit; the message names both sides.
    """
    key = _key(index, schema, declared_key)
    if index.pattern is not None:
        _check_pattern(index, key, schema)
    if index.time_field is not None:
        _check_stream(index, key, schema)
    columns = tuple(column_of(index, field) for field in schema)
    notes = []
    if pipeline := index.settings.get("index.default_pipeline"):
        notes.append(_PASSES.format(pipeline))
    return Plan(index, key, columns, tuple(notes))


def _check_pattern(index: Index, key: tuple[str, ...], schema: pa.Schema) -> None:
    assert index.pattern is not None
    index.pattern.check(schema)
    outside = [column for column in index.pattern.columns if column not in key]
    if key and outside:
        raise PlanError(
            f"{index.name}: the index is made from {', '.join(outside)}, which PRIMARY KEY ({', '.join(key)}) leaves"
            " out: a row whose value changes would stay in its old index as well; take the column into the key, or"
            " declare no key"
        )


def _check_stream(index: Index, key: tuple[str, ...], schema: pa.Schema) -> None:
    if key:
        raise PlanError(
            f"{index.name} is a data stream, which takes new documents only, no updates and no deletes: leave out"
            f" PRIMARY KEY ({', '.join(key)}), or name an index"
        )
    if index.time_field not in schema.names:
        raise PlanError(
            f"{index.name} is a data stream, whose documents need {index.time_field}: it is not among the columns sent:"
            f" {', '.join(schema.names)}"
        )


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
