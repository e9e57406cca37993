"""Collections of people in a real Milvus, and sinks that write them."""

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest

from tests.fix_milvus import MilvusServer
from tests.sinks.contract import SCHEMA
from vector_assets.sinks.milvus import MilvusSink
from vector_assets.sinks.milvus_options import MilvusOptions

CARS = {
    "id": ("INT64", {}),
    "color": ("VARCHAR", {"max_length": 10, "nullable": True}),
    "feature": ("FLOAT_VECTOR", {"dim": 3}),
}


class Target:
    """A collection, and sinks that write it; `host` and `port` may be a proxy's."""

    def __init__(self, server: MilvusServer, fields: dict[str, Any], **settings: Any) -> None:
        self.server = server
        self.collection = server.create(fields, **settings) if fields else server.name()
        self.host, self.port = server.host, server.port
        self.sinks: list[MilvusSink] = []

    def options(self, **options: object) -> MilvusOptions:
        """Options for the collection; dots and dashes in names are written as two and three underscores."""
        server = self.server
        given = {
            "connector": "milvus",
            "endpoint": self.host,
            "port": str(self.port),
            "collectionName": self.collection,
            **({"userName": server.login["user"], "password": server.login["password"]} if server.login else {}),
            **{name.replace("___", "-").replace("__", "."): str(value) for name, value in options.items()},
        }
        return MilvusOptions.parse({k: v for k, v in given.items() if v != "None"}, "connector milvus")

    def sink(
        self, schema: pa.Schema | None = SCHEMA, key: tuple[str, ...] = (), table: Any = None, **options: object
    ) -> MilvusSink:
        """A prepared sink (not prepared without a schema), closed after the test."""
        sink = MilvusSink(self.options(**options), table, "cars")
        self.sinks.append(sink)
        if schema is not None:
            sink.prepare(schema, key)
        return sink

    def rows(self, where: str = "", **settings: Any) -> list[dict[str, Any]]:
        return self.server.rows(self.collection, where, **settings)

    def close(self) -> None:
        for sink in self.sinks:
            sink.close()


@pytest.fixture
def make_target(milvus: MilvusServer) -> Iterator[Callable[..., Target]]:
    """Makes collections on the shared milvus-lite."""
    made: list[Target] = []

    def make(fields: dict[str, Any] | None = None, server: MilvusServer | None = None, **settings: Any) -> Target:
        made.append(Target(server or milvus, CARS if fields is None else fields, **settings))
        return made[-1]

    yield make
    for target in made:
        target.close()


@pytest.fixture
def cars_collection(make_target: Callable[..., Target]) -> Target:
    return make_target()
