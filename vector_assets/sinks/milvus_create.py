"""A collection made from what the pipeline sends: fields, partition, indexes; then loaded."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pyarrow as pa

from vector_assets.clients.milvus import Field, Index, Server
from vector_assets.engine.errors import PlanError
from vector_assets.engine.schema import Table
from vector_assets.sinks.kinds import kind_of
from vector_assets.sinks.milvus_options import METRICS, MilvusOptions

if TYPE_CHECKING:
    from vector_assets.clients.milvus_api import Api

_LONGEST_TEXT = 65_535
_MOST_ELEMENTS = 4_096
_INDEX = "AUTOINDEX"
_NULLS_SINCE = (2, 5, 0)
"""The first release whose fields may take nulls."""

_SCALARS = {
    pa.bool_(): "Bool",
    pa.int8(): "Int8",
    pa.int16(): "Int16",
    pa.int32(): "Int32",
    pa.int64(): "Int64",
    pa.float32(): "Float",
    pa.float64(): "Double",
}


def create(
    api: "Api", options: MilvusOptions, schema: pa.Schema, declared_key: tuple[str, ...], table: Table | None
) -> tuple[str, ...]:
    """Make what is missing of collection, partition and indexes, and load the collection; one sentence each.

    Raises:
        PlanError: the schema and the options do not say enough.
    """
    name = options.collection
    fields = fields_of(api.server, options, schema, declared_key, table)
    said = []
    if name in api.collections():
        said.append(f"collection {name} is there")
    else:
        api.create_collection(name, fields)
        said.append(f"collection {name} was made: {', '.join(f'{field.name} {field.spelled}' for field in fields)}")
    if options.partition is not None:
        if options.partition in api.partitions(name):
            said.append(f"partition {options.partition} is there")
        else:
            api.create_partition(name, options.partition)
            said.append(f"partition {options.partition} was made")
    indexed = {index.field: index for index in api.indexes(name)}
    for field in api.describe(name).fields:
        if field.is_vector and field.name in indexed:
            found = indexed[field.name]
            said.append(f"field {field.name} has an index: {found.type} by {found.metric}")
        elif field.is_vector:
            index = Index(
                field.name,
                "SPARSE_INVERTED_INDEX" if field.type == "SparseFloatVector" else _INDEX,
                _metric(options, field),
            )
            api.create_index(name, index)
            said.append(f"field {field.name} was given an index: {index.type} by {index.metric}")
    if not api.is_loaded(name):
        api.load(name)
        said.append(f"collection {name} was loaded")
    return tuple(said)


def fields_of(
    server: Server, options: MilvusOptions, schema: pa.Schema, declared_key: tuple[str, ...], table: Table | None
) -> tuple[Field, ...]:
    """The fields that a collection for rows of `schema` has.

    Raises:
        PlanError: no key of one column, no vector, an unknown dimension, or a type that no field holds.
    """
    if len(declared_key) != 1:
        raise PlanError(
            f"milvus: a collection has a key of one field, declared is PRIMARY KEY ({', '.join(declared_key)})"
        )
    _check_named(options, schema)
    lengths = {column.name: column.type.precision for column in table.columns} if table else {}
    nullable = {column.name: column.type.nullable for column in table.columns} if table else {}
    takes_nulls = not server.is_older(*_NULLS_SINCE)
    fields = []
    for column in schema:
        is_key, is_router = column.name in declared_key, column.name == options.partition_key_field
        made = _field(column, options.declared_dimensions.get(column.name), lengths.get(column.name))
        if is_key and made.type not in {"Int64", "VarChar"}:
            # the server's keys are 64 bits wide
            made = Field(column.name, "Int64") if made.type.startswith("Int") else made
            if made.type != "Int64":
                raise PlanError(
                    f"milvus: the key {column.name} is {column.type}, a collection's is a BIGINT or a STRING"
                )
        may_be_null = takes_nulls and nullable.get(column.name, column.nullable)
        fields.append(
            Field(
                made.name,
                made.type,
                is_key=is_key,
                is_partition_key=is_router,
                nullable=may_be_null and not (is_key or is_router or made.is_vector),
                dimension=made.dimension,
                max_length=made.max_length,
                max_capacity=made.max_capacity,
                element=made.element,
            )
        )
    if not any(field.is_vector for field in fields):
        raise PlanError("milvus: no column is a vector: a collection has one at least")
    if options.routes_by_key and options.partition_key_field is None:
        raise PlanError("milvus: 'partitionKey.enabled' = 'true' needs 'partitionKey.field' to make the collection")
    return tuple(fields)


def _check_named(options: MilvusOptions, schema: pa.Schema) -> None:
    named: dict[str, Iterable[str]] = {
        "vector.dimensions": options.declared_dimensions,
        "vector.metrics": options.declared_metrics,
        "partitionKey.field": [options.partition_key_field] if options.partition_key_field else [],
    }
    for option, columns in named.items():
        for column in columns:
            if column not in schema.names:
                raise PlanError(f"milvus: option '{option}' names {column}; columns: {', '.join(schema.names)}")


def _field(column: pa.Field, dimension: int | None, length: int | None) -> Field:
    kind, name = kind_of(column.type), column.name
    if kind == "ARRAY":
        element = kind_of(column.type.value_type)
        if dimension is not None or element == "DOUBLE":
            return Field(name, "FloatVector", dimension=_known(name, dimension, column.type))
        return _array(column)
    if dimension is not None:
        if kind == "BYTES":
            return Field(name, "BinaryVector", dimension=dimension)
        if kind == "STRING":
            return Field(name, "FloatVector", dimension=dimension)
        raise PlanError(f"milvus: option 'vector.dimensions' names {name}, which is {column.type}: no vector")
    if kind == "STRING":
        return Field(name, "VarChar", max_length=min(length or _LONGEST_TEXT, _LONGEST_TEXT))
    if kind == "MAP":
        return Field(name, "SparseFloatVector")
    if column.type in _SCALARS:
        return Field(name, _SCALARS[column.type])
    raise PlanError(f"milvus: column {name} is {column.type}, which no field holds: use a CAST in the SELECT")


def _known(name: str, dimension: int | None, sent: pa.DataType) -> int:
    if pa.types.is_fixed_size_list(sent):
        return int(sent.list_size)
    if dimension is None:
        raise PlanError(
            f"milvus: the dimension of vector column {name} is not known: say 'vector.dimensions' = '{name}:<number>'"
        )
    return dimension


def _array(column: pa.Field) -> Field:
    element = column.type.value_type
    spelled = "VarChar" if kind_of(element) == "STRING" else _SCALARS.get(element)
    if spelled is None:
        raise PlanError(
            f"milvus: column {column.name} is {column.type}, which no field holds: use a CAST in the SELECT"
        )
    length = _LONGEST_TEXT if spelled == "VarChar" else None
    return Field(column.name, "Array", element=spelled, max_capacity=_MOST_ELEMENTS, max_length=length)


def _metric(options: MilvusOptions, field: Field) -> str:
    known = METRICS.get(field.type, METRICS["FloatVector"])
    wanted = options.declared_metrics.get(field.name, known[0])
    if wanted not in known:
        raise PlanError(
            f"milvus: {field.name} is {field.spelled}, whose metrics are {', '.join(known)}; found {wanted}"
        )
    return wanted
