"""An index made from what the pipeline sends: a field per column, vectors with an index of their own."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from vector_assets.clients.opensearch import Client
from vector_assets.engine.errors import PlanError
from vector_assets.engine.schema import ColumnChange
from vector_assets.sinks.kinds import is_list, kind_of
from vector_assets.sinks.opensearch_options import OpenSearchOptions
from vector_assets.sinks.opensearch_plan import META, column_of, describe

_FIELDS = {
    pa.int8(): "byte",
    pa.int16(): "short",
    pa.int32(): "integer",
    pa.int64(): "long",
    pa.float32(): "float",
    pa.float64(): "double",
}
_KINDS = {
    "BOOLEAN": "boolean",
    "DECIMAL": "double",
    "STRING": "keyword",
    "BYTES": "binary",
    "DATE": "date",
    "TIME": "keyword",
    "TIMESTAMP": "date",
    "MAP": "object",
    "ROW": "object",
}


def create(
    client: Client, options: OpenSearchOptions, schema: pa.Schema, declared_key: tuple[str, ...]
) -> tuple[str, ...]:
    """Make the index unless it is there; one sentence.

    Raises:
        PlanError: there is no key, or `vector.dimensions` names a column that is not sent or cannot be a vector.
    """
    if describe(client, options.index) is not None:
        return (f"index {options.index} is there",)
    if not declared_key:
        raise PlanError(
            f"opensearch: {options.index}: a PRIMARY KEY (..) NOT ENFORCED is needed: documents get their _id by it"
        )
    dimensions = options.declared_dimensions
    if unknown := set(dimensions) - set(schema.names):
        raise PlanError(f"opensearch: 'vector.dimensions' names {', '.join(sorted(unknown))}, which is not sent")
    properties = {field.name: _field(field, dimensions.get(field.name)) for field in schema}
    for name in declared_key:
        if properties[name]["type"] == "text":
            properties[name] = {"type": "keyword"}
    settings: dict[str, Any] = {"gc_deletes": f"{int(options.gc_deletes.total_seconds())}s"}
    if dimensions:
        settings["knn"] = True
    mappings = {"_meta": {META: {"key": list(declared_key)}}, "properties": properties}
    client.ask("PUT", f"/{options.index}", {"settings": {"index": settings}, "mappings": mappings})
    spelled = ", ".join(f"{name} {field['type']}" for name, field in properties.items())
    return (f"index {options.index} was made: {spelled}",)


def alter(client: Client, options: OpenSearchOptions, changes: Sequence[ColumnChange]) -> tuple[str, ...]:
    """Add fields to the mapping of an index; one sentence each. A field that is there is left alone.

    Raises:
        PlanError: a mapping cannot do that to a field, or there is no index.
    """
    made = []
    for change in changes:
        index = describe(client, options.index)
        if index is None:
            raise PlanError(f"{client.place}: there is no index {options.index}")
        field = pa.field(change.column.name, change.column.type.arrow)
        if change.kind == "type":
            # says what does not fit
            column_of(index, field)
        elif change.kind != "add":
            raise PlanError(
                f"{client.place}: {options.index}: {change}: fields of a mapping are neither dropped nor renamed:"
                " reindex into a new index, or keep the field (schema.change.behavior lenient)"
            )
        elif field.name not in index.properties:
            body = {"properties": {field.name: _field(field, None)}}
            client.ask("PUT", f"/{index.concrete}/_mapping", body)
            made.append(str(change))
    return tuple(made)


def _field(field: pa.Field, dimension: int | None) -> dict[str, Any]:
    if dimension is not None:
        is_vector = is_list(field.type) and kind_of(field.type.value_type) == "DOUBLE"
        if not is_vector and kind_of(field.type) != "STRING":
            raise PlanError(f"opensearch: column {field.name} is {field.type}: no vector is made of that")
        return {"type": "knn_vector", "dimension": dimension, "method": {"engine": "faiss", "name": "hnsw"}}
    inner = field.type.value_type if is_list(field.type) else field.type
    if kind_of(inner) == "STRING":
        # to be found by its words, and as a whole
        return {"type": "text", "fields": {"keyword": {"type": "keyword", "ignore_above": 256}}}
    kind = _FIELDS.get(inner) or _KINDS.get(kind_of(inner))
    if kind is None:
        raise PlanError(f"opensearch: column {field.name} is {field.type}, which no field takes")
    return {"type": kind}
