"""How the pipeline's columns meet a collection: everything that can be known before the first row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from vector_assets.clients.milvus import Collection, Field, Server
from vector_assets.engine.errors import PlanError
from vector_assets.engine.registry import nearest
from vector_assets.engine.schema import Table
from vector_assets.sinks.kinds import is_list, kind_of
from vector_assets.sinks.milvus_options import MilvusOptions
from vector_assets.sinks.milvus_values import accepted, conversion

OLDEST = (2, 4, 0)
"""The first release that the connector's documentation asks for."""
_KEY_TYPES = ("Int64", "VarChar")


@dataclass(frozen=True, slots=True)
class Plan:
    """A collection that the pipeline's rows fit into; `fields` are those of its columns, in their order.

    `replaces` says that rows are written by a delete and an insert: servers before 2.4 put an upserted row into the
    partition of another field's value (milvus-io/milvus pull request 30772).
    """

    collection: Collection
    fields: tuple[Field, ...]
    partition: str | None
    replaces: bool
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The collection's name."""
        return self.collection.name

    @property
    def key(self) -> Field:
        """The primary key."""
        return self.collection.key


def make_plan(
    collection: Collection,
    partitions: Sequence[str],
    server: Server,
    schema: pa.Schema,
    declared_key: Sequence[str],
    options: MilvusOptions,
    table: Table | None = None,
) -> Plan:
    """The plan for rows of `schema`; `table` knows the lengths of texts.

    Raises:
        PlanError: key, fields, dimensions, lengths or partitions do not fit; the message names both sides.
    """
    _check_key(collection, schema.names, declared_key)
    fields = tuple(_field(collection, column) for column in schema)
    _check_left_out(collection, schema.names)
    _check_dimensions(collection, fields, schema, options.declared_dimensions)
    notes = [*_check_lengths(collection, fields, table), *_check_partitions(collection, partitions, options)]
    if server.is_older(*OLDEST):
        notes.insert(
            0,
            f"MILVUS_BELOW_2_4: the server is {server.version}, the connector is made for 2.4 and later: what is known"
            " to differ is in docs/milvus.md",
        )
    replaces = server.is_older(*OLDEST) and collection.partition_key is not None
    return Plan(collection, fields, options.partition, replaces, tuple(notes))


def _check_key(collection: Collection, sent: Sequence[str], declared: Sequence[str]) -> None:
    key = collection.key
    if key.type not in _KEY_TYPES:
        raise PlanError(f"{collection.name}: primary key {key.name} is {key.spelled}, wanted {' or '.join(_KEY_TYPES)}")
    if key.is_auto:
        raise PlanError(
            f"{collection.name}: primary key {key.name} has AUTO_ID on, so the server numbers rows and none could be"
            " updated or deleted: make the collection with AUTO_ID off"
        )
    if declared and tuple(declared) != (key.name,):
        raise PlanError(
            f"{collection.name}: PRIMARY KEY ({', '.join(declared)}) is declared, the collection's key is {key.name}"
        )
    if key.name not in sent:
        raise PlanError(f"{collection.name}: the key {key.name} is not among the columns sent: {', '.join(sent)}")


def _field(collection: Collection, column: pa.Field) -> Field:
    field = collection.field(column.name)
    if field is None:
        known = [found.name for found in collection.fields]
        is_vector = is_list(column.type) and kind_of(column.type.value_type) == "DOUBLE"
        what = f"vector field {column.name}" if is_vector else f"field {column.name}"
        raise PlanError(
            f"{collection.name}: {what} does not exist{nearest(column.name, known)}; fields there: {', '.join(known)}"
        )
    if field.is_output:
        raise PlanError(f"{collection.name}: field {field.name} is filled by a function of the server: leave it out")
    if not accepted(field):
        raise PlanError(f"{collection.name}: field {field.name} has the type {field.spelled}, which cannot be written")
    if conversion(column.type, field) is None:
        raise PlanError(
            f"{collection.name}: field {field.name} is {field.spelled}, which takes {accepted(field)}; the pipeline"
            f" sends {kind_of(column.type)} ({column.type}): use a CAST in the SELECT"
        )
    return field


def _check_left_out(collection: Collection, sent: Sequence[str]) -> None:
    for field in collection.fields:
        if field.name in sent or field.is_output or field.nullable or field.has_default:
            continue
        what = "vector field" if field.is_vector else "field"
        raise PlanError(
            f"{collection.name}: {what} {field.name} ({field.spelled}) takes no nulls and has no default, and the"
            f" pipeline does not send it; columns sent: {', '.join(sent)}"
        )
    if not any(field.is_vector for field in collection.fields):
        raise PlanError(f"{collection.name}: the collection has no vector field")


def _check_dimensions(
    collection: Collection, fields: Sequence[Field], schema: pa.Schema, declared: Mapping[str, int]
) -> None:
    vectors = {field.name: field for field in fields if field.is_vector and field.type != "SparseFloatVector"}
    for name in declared:
        if name not in vectors:
            listed = ", ".join(vectors) or "none"
            raise PlanError(
                f"{collection.name}: option 'vector.dimensions' names {name}, which is no vector with a dimension"
                f"{nearest(name, vectors)}; such fields: {listed}"
            )
    for name, field in vectors.items():
        if not field.dimension:
            raise PlanError(f"{collection.name}: the dimension of vector field {name} ({field.type}) is unknown")
        if declared.get(name, field.dimension) != field.dimension:
            raise PlanError(
                f"{collection.name}: field {name} is {field.spelled}, option 'vector.dimensions' says {declared[name]}"
            )
        sent = schema.field(name).type
        if pa.types.is_fixed_size_list(sent) and sent.list_size != field.dimension:
            raise PlanError(f"{collection.name}: field {name} is {field.spelled}, the pipeline sends {sent.list_size}")


def _check_lengths(collection: Collection, fields: Sequence[Field], table: Table | None) -> list[str]:
    """Texts that are declared longer than their field; one without a length is noted."""
    types = {column.name: column.type for column in table.columns} if table else {}
    notes = []
    for field in fields:
        if field.type != "VarChar" or field.name not in types:
            continue
        declared = types[field.name].precision
        if declared is None:
            notes.append(f"{field.name}: a text over {field.max_length} bytes becomes a dead letter")
        elif field.max_length is not None and declared > field.max_length:
            raise PlanError(
                f"{collection.name}: field {field.name} is {field.spelled}, too short for {types[field.name]}"
            )
    return notes


def _check_partitions(collection: Collection, partitions: Sequence[str], options: MilvusOptions) -> list[str]:
    by_key = collection.partition_key
    if options.routes_by_key and by_key is None:
        raise PlanError(
            f"{collection.name}: 'partitionKey.enabled' = 'true', the collection has no partition key configured"
        )
    if options.partition_key_field is not None and by_key is not None and by_key.name != options.partition_key_field:
        raise PlanError(
            f"{collection.name}: 'partitionKey.field' = '{options.partition_key_field}', the collection's partition key"
            f" is {by_key.name}"
        )
    if options.partition is None:
        if by_key is not None and not options.routes_by_key:
            return [f"the server routes rows by the partition key {by_key.name}, whatever 'partitionKey.enabled' says"]
        return []
    if by_key is not None:
        raise PlanError(
            f"{collection.name}: the collection routes rows by the partition key {by_key.name}, so 'partitionName'"
            " cannot choose a partition: leave it out"
        )
    if options.partition not in partitions:
        raise PlanError(
            f"{collection.name}: partition {options.partition} does not exist{nearest(options.partition, partitions)};"
            f" partitions there: {', '.join(partitions)}"
        )
    return []
