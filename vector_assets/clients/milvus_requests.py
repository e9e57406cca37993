"""Requests that change rows, encoded ahead of being sent."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pymilvus.grpc_gen import milvus_pb2

from vector_assets.clients.milvus import ESCAPES, Field
from vector_assets.clients.milvus_wire import encode


@dataclass(frozen=True, slots=True)
class Write:
    """A request that changes rows: `method` of the stub; `rows` are the ordinals it takes of what it was made from."""

    method: str
    request: Any
    rows: range


def upserts(name: str, columns: Sequence[tuple[Field, pa.Array]], chunk: range, partition: str | None) -> Write:
    """Rows to be written in place of those with their keys."""
    return _rows("Upsert", milvus_pb2.UpsertRequest, name, columns, chunk, partition)


def inserts(name: str, columns: Sequence[tuple[Field, pa.Array]], chunk: range, partition: str | None) -> Write:
    """Rows to be added, whatever is there."""
    return _rows("Insert", milvus_pb2.InsertRequest, name, columns, chunk, partition)


def _rows(
    method: str, make: Any, name: str, columns: Sequence[tuple[Field, pa.Array]], chunk: range, partition: str | None
) -> Write:
    data = [encode(field, array.slice(chunk.start, len(chunk))) for field, array in columns]
    request = make(collection_name=name, partition_name=partition or "", fields_data=data, num_rows=len(chunk))
    return Write(method, request, chunk)


def deletes(name: str, key: Field, keys: pa.Array, chunk: range, partition: str | None) -> Write:
    """Rows to be removed by key."""
    where = one_of(key, keys.slice(chunk.start, len(chunk)))
    request = milvus_pb2.DeleteRequest(collection_name=name, partition_name=partition or "", expr=where)
    return Write("Delete", request, chunk)


def one_of(key: Field, keys: pa.Array) -> str:
    """The expression that is true for rows with these keys."""
    values = keys.cast(pa.string())
    if key.type == "VarChar":
        for plain, escaped in ESCAPES:
            values = pc.replace_substring(values, plain, escaped)
        values = pc.binary_join_element_wise('"', values, '"', "")
    listed = pc.binary_join(pa.ListArray.from_arrays([0, len(values)], values), ", ")[0].as_py()
    return f"{key.name} in [{listed}]"
