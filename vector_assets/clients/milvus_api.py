"""Milvus' protocol by its generated stub: every call once, with a deadline, Arrow in and Arrow out.

The stub and messages are those of pymilvus; its client object is not used, for it retries up to 75 times on its own and
takes rows as Python objects (docs/decisions/0015). Thread-safe.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
from pymilvus.grpc_gen import common_pb2, milvus_pb2, milvus_pb2_grpc, schema_pb2

from vector_assets.clients.milvus import (
    Collection,
    Field,
    Index,
    LimitedError,
    Login,
    NoCollectionError,
    RefusedError,
    Server,
    refused,
    unanswered,
)
from vector_assets.clients.milvus_requests import Write
from vector_assets.clients.milvus_wire import arrow_type, decode
from vector_assets.engine.errors import PlanError, UnavailableError, VectorAssetsError

_CONNECT_S = 10.0
_CALL_S = 30.0
_WRITE_S = 60.0
_READ_S = 120.0
_LOAD_S = 120.0
_LOAD_POLL_S = 0.05

_CHANNEL = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # what to try again is the engine's to say
    ("grpc.enable_retries", 0),
    # a server that is back is noticed within a second; gRPC would wait up to two minutes
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # a server that vanished without a word is noticed within half a minute
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)

Message = Any
Request = Any


class Api:
    """One server's protocol under one login. Opened by `connect`."""

    def __init__(self, login: Login, place: str) -> None:
        self.login = login
        self.place = place
        self._channel = _channel(login)
        self._stub = milvus_pb2_grpc.MilvusServiceStub(self._channel)
        self.server = Server("")
        try:
            self.server = Server(self._call("GetVersion", milvus_pb2.GetVersionRequest(), _CONNECT_S).version)
            # the version is told to anybody
            self.collections()
        except VectorAssetsError:
            self.close()
            raise

    def close(self) -> None:
        """Give back the connection; idempotent."""
        self._channel.close()

    def _call(self, method: str, request: Request, timeout: float = _CALL_S) -> Message:
        try:
            answer = getattr(self._stub, method)(request, timeout=timeout, metadata=self.login.metadata)
        except grpc.RpcError as error:
            raise unanswered(error, self._at, timeout) from error
        except ValueError as error:
            # a closed channel says so in this way
            raise UnavailableError(f"{self._at}: {error}") from error
        self._check(answer)
        return answer

    def _check(self, answer: Message) -> None:
        status: Message = getattr(answer, "status", answer)
        if status.code or status.error_code:
            raise refused(
                status.code or status.error_code,
                status.reason,
                self._at,
                is_lite=self.server.is_lite,
                is_retriable=status.retriable,
            )

    @property
    def _at(self) -> str:
        return f"{self.place}: {self.login.address}"

    def collections(self) -> list[str]:
        """Names of the database's collections."""
        return list(self._call("ShowCollections", milvus_pb2.ShowCollectionsRequest()).collection_names)

    def describe(self, name: str) -> Collection:
        """What the server says of a collection.

        Raises:
            NoCollectionError: there is none of this name.
        """
        answer = self._call("DescribeCollection", milvus_pb2.DescribeCollectionRequest(collection_name=name))
        return Collection(
            name=name,
            id=answer.collectionID,
            fields=tuple(_field(found, auto=answer.schema.autoID) for found in answer.schema.fields),
            properties={pair.key: pair.value for pair in answer.properties},
        )

    def partitions(self, name: str) -> list[str]:
        """Names of a collection's partitions."""
        return list(
            self._call("ShowPartitions", milvus_pb2.ShowPartitionsRequest(collection_name=name)).partition_names
        )

    def indexes(self, name: str) -> tuple[Index, ...]:
        """Indexes of a collection's vector fields."""
        try:
            answer = self._call("DescribeIndex", milvus_pb2.DescribeIndexRequest(collection_name=name))
        except NoCollectionError:
            raise
        except (PlanError, RefusedError):
            # a collection without any index is an error to the server
            return ()
        found = []
        for each in answer.index_descriptions:
            params = {pair.key: pair.value for pair in each.params}
            if "metric_type" in params:
                found.append(Index(each.field_name, params.get("index_type", ""), params["metric_type"]))
        return tuple(found)

    def is_loaded(self, name: str) -> bool:
        """True when the collection can be read."""
        answer = self._call("GetLoadState", milvus_pb2.GetLoadStateRequest(collection_name=name))
        return bool(answer.state == common_pb2.LoadStateLoaded)

    def create_collection(
        self, name: str, fields: Sequence[Field], *, partitions: int | None = None, description: str = ""
    ) -> None:
        """Make a collection of one shard, so that one request is one message; no dynamic field."""
        schema = schema_pb2.CollectionSchema(name=name, description=description, fields=map(_message, fields))
        request = milvus_pb2.CreateCollectionRequest(
            collection_name=name, schema=schema.SerializeToString(), shards_num=1, num_partitions=partitions or 0
        )
        self._call("CreateCollection", request)

    def create_partition(self, name: str, partition: str) -> None:
        """Make a partition."""
        self._call("CreatePartition", milvus_pb2.CreatePartitionRequest(collection_name=name, partition_name=partition))

    def create_index(self, name: str, index: Index) -> None:
        """Make an index under the name of its field."""
        settings = {"index_type": index.type, "metric_type": index.metric, "params": "{}"}
        request = milvus_pb2.CreateIndexRequest(
            collection_name=name, field_name=index.field, index_name=index.field, extra_params=_pairs(settings)
        )
        self._call("CreateIndex", request)

    def load(self, name: str) -> None:
        """Make a collection readable, and wait until it is.

        Raises:
            UnavailableError: it takes too long.
        """
        self._call("LoadCollection", milvus_pb2.LoadCollectionRequest(collection_name=name, replica_number=1))
        deadline = time.monotonic() + _LOAD_S
        while not self.is_loaded(name):
            if time.monotonic() > deadline:
                raise UnavailableError(f"{self._at}: collection {name} is not loaded after {_LOAD_S:g} s")
            time.sleep(_LOAD_POLL_S)

    def load_if_lite(self, name: str) -> None:
        """Make a collection readable that milvus-lite released when it was started again; servers remember."""
        if self.server.is_lite and not self.is_loaded(name):
            self.load(name)

    def set_properties(self, name: str, properties: Mapping[str, str]) -> None:
        """Add to a collection's properties."""
        request = milvus_pb2.AlterCollectionRequest(collection_name=name, properties=_pairs(properties))
        self._call("AlterCollection", request)

    def write(self, writes: Iterable[Write], in_flight: int) -> Iterator[tuple[Write, RefusedError | LimitedError]]:
        """Send requests, `in_flight` at a time and in no order; those not taken come back with the reason.

        When it raises or ends, no request is under way any more.

        Raises:
            TransientError: a request may or may not have been applied.
            NoCollectionError: the collection is gone.
        """
        waiting: deque[tuple[Write, Any]] = deque()
        try:
            for write in writes:
                if len(waiting) >= in_flight:
                    yield from self._settle(*waiting.popleft())
                waiting.append((write, self._start(write)))
            while waiting:
                yield from self._settle(*waiting.popleft())
        finally:
            for _, future in waiting:
                with suppress(grpc.FutureCancelledError):
                    future.exception()

    def _start(self, write: Write) -> Any:
        try:
            return getattr(self._stub, write.method).future(
                write.request, timeout=_WRITE_S, metadata=self.login.metadata
            )
        except ValueError as error:
            raise UnavailableError(f"{self._at}: {error}") from error

    def _settle(self, write: Write, future: Any) -> Iterator[tuple[Write, RefusedError | LimitedError]]:
        try:
            try:
                answer = future.result()
            except grpc.FutureCancelledError as error:
                raise UnavailableError(f"{self._at}: the connection was closed") from error
            except grpc.RpcError as error:
                raise unanswered(error, self._at, _WRITE_S) from error
            self._check(answer)
        except (RefusedError, LimitedError) as error:
            yield write, error

    def query(
        self,
        name: str,
        where: str,
        fields: Sequence[Field],
        *,
        partition: str | None = None,
        limit: int | None = None,
        in_order: bool = False,
    ) -> pa.Table:
        """Rows that meet an expression, as of now; `in_order` of the key, as far as `limit` goes.

        Raises:
            RefusedError: the expression is wrong.
        """
        settings: dict[str, str] = {} if limit is None else {"limit": str(limit)}
        if in_order:
            settings["iterator"] = "True"
        request = milvus_pb2.QueryRequest(
            collection_name=name,
            expr=where,
            output_fields=[field.name for field in fields],
            partition_names=[partition] if partition else [],
            consistency_level=common_pb2.Strong,
            query_params=_pairs(settings),
        )
        answer = self._call("Query", request, _READ_S)
        return _table(fields, answer.fields_data)

    def count(self, name: str, key: Field, *, partition: str | None = None) -> int:
        """How many rows there are now: `count(*)`, for the server's statistics count updated rows twice."""
        # with an expression, since milvus-lite counts every partition without one
        where = f'{key.name} >= ""' if key.type == "VarChar" else f"{key.name} > 0 or {key.name} <= 0"
        request = milvus_pb2.QueryRequest(
            collection_name=name,
            expr=where,
            output_fields=["count(*)"],
            partition_names=[partition] if partition else [],
            consistency_level=common_pb2.Strong,
        )
        return int(self._call("Query", request, _READ_S).fields_data[0].scalars.long_data.data[0])

    def search(
        self,
        name: str,
        index: Index,
        vector: bytes,
        kind: str,
        k: int,
        where: str,
        fields: Sequence[Field],
        *,
        partition: str | None = None,
    ) -> tuple[pa.Table, pa.Array]:
        """The `k` nearest rows by an index, and their scores in the index's metric.

        Raises:
            RefusedError: the expression or the vector is wrong.
        """
        value = common_pb2.PlaceholderValue(tag="$0", type=common_pb2.PlaceholderType.Value(kind), values=[vector])
        settings = {"anns_field": index.field, "topk": k, "metric_type": index.metric, "params": "{}"}
        request = milvus_pb2.SearchRequest(
            collection_name=name,
            dsl=where,
            dsl_type=common_pb2.BoolExprV1,
            nq=1,
            placeholder_group=common_pb2.PlaceholderGroup(placeholders=[value]).SerializeToString(),
            output_fields=[field.name for field in fields],
            partition_names=[partition] if partition else [],
            consistency_level=common_pb2.Strong,
            search_params=_pairs({**settings, "round_decimal": -1}),
        )
        results = self._call("Search", request, _READ_S).results
        scores = np.fromiter(results.scores, np.float32, count=len(results.scores))
        return _table(fields, results.fields_data, len(scores)), pa.array(scores)


def _channel(login: Login) -> grpc.Channel:
    if not login.secure:
        return grpc.insecure_channel(login.address, options=_CHANNEL)
    return grpc.secure_channel(login.address, grpc.ssl_channel_credentials(), options=_CHANNEL)


def _field(found: Message, *, auto: bool) -> Field:
    params = {pair.key: pair.value for pair in found.type_params}

    def number(name: str) -> int | None:
        return int(params[name]) if params.get(name, "").isdigit() else None

    return Field(
        name=found.name,
        type=schema_pb2.DataType.Name(found.data_type),
        is_key=found.is_primary_key,
        is_auto=found.autoID or (auto and found.is_primary_key),
        is_partition_key=found.is_partition_key,
        nullable=found.nullable,
        has_default=found.HasField("default_value") and found.default_value.WhichOneof("data") is not None,
        is_output=found.is_function_output,
        dimension=number("dim"),
        max_length=number("max_length"),
        max_capacity=number("max_capacity"),
        element="" if found.data_type != schema_pb2.Array else schema_pb2.DataType.Name(found.element_type),
    )


def _message(field: Field) -> Message:
    params = {"dim": field.dimension, "max_length": field.max_length, "max_capacity": field.max_capacity}
    return schema_pb2.FieldSchema(
        name=field.name,
        data_type=schema_pb2.DataType.Value(field.type),
        is_primary_key=field.is_key,
        is_partition_key=field.is_partition_key,
        nullable=field.nullable,
        element_type=schema_pb2.DataType.Value(field.element) if field.element else 0,
        type_params=_pairs({name: value for name, value in params.items() if value is not None}),
    )


def _pairs(values: Mapping[str, object]) -> list[Message]:
    return [common_pb2.KeyValuePair(key=key, value=str(value)) for key, value in values.items()]


def _table(fields: Sequence[Field], columns: Sequence[Message], rows: int | None = None) -> pa.Table:
    """The columns in the order of `fields`; a server may send them in any, and none at all for no rows."""
    by_name = {column.field_name: column for column in columns}
    count = _length(columns) if rows is None else rows
    arrays = [
        decode(field, by_name[field.name], count)
        if field.name in by_name and count
        else pa.array([], arrow_type(field))
        for field in fields
    ]
    return pa.table(arrays, names=[field.name for field in fields])


def _length(columns: Sequence[Message]) -> int:
    """How many rows came, told by the columns whose data has one element a row."""
    for column in columns:
        if column.valid_data:
            return len(column.valid_data)
        slot = column.scalars.WhichOneof("data")
        if slot:
            return len(getattr(column.scalars, slot).data)
    return 0
