"""Indices of cars in a real OpenSearch, and sinks that write them."""

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest

from tests.fix_opensearch import OpenSearch
from tests.sinks.contract import SCHEMA
from vector_assets.sinks.opensearch import OpenSearchSink
from vector_assets.sinks.opensearch_options import OpenSearchOptions

CARS = {
    "id": {"type": "integer"},
    "color": {"type": "keyword"},
    "feature": {"type": "knn_vector", "dimension": 3, "method": {"engine": "faiss", "name": "hnsw"}},
}


class Target:
    """An index, and sinks that write it; `url` may be a proxy's."""

    def __init__(self, server: OpenSearch, properties: dict[str, Any], **settings: Any) -> None:
        self.server = server
        self.url = server.url
        self.index = server.name()
        if properties:
            index = {"number_of_shards": 1, "number_of_replicas": 0, "knn": True, **settings}
            mappings = {"_meta": {"vector_assets": {"key": ["id"]}}, "properties": properties}
            server.ask("PUT", self.index, {"settings": {"index": index}, "mappings": mappings}, status=200)
        self.sinks: list[OpenSearchSink] = []

    def options(self, **options: object) -> OpenSearchOptions:
        """Options for the index; dots and dashes in names are written as two and three underscores."""
        changes = {name.replace("___", "-").replace("__", "."): str(value) for name, value in options.items()}
        given = {"connector": "opensearch-2", "hosts": self.url, "index": self.index, **changes}
        return OpenSearchOptions.parse(given, "connector opensearch-2")

    def sink(
        self, schema: pa.Schema | None = SCHEMA, key: tuple[str, ...] = ("id",), **options: object
    ) -> OpenSearchSink:
        """A prepared sink (not prepared without a schema), closed after the test."""
        sink = OpenSearchSink(self.options(**options), None, "cars")
        self.sinks.append(sink)
        if schema is not None:
            sink.prepare(schema, key)
        return sink

    def documents(self) -> dict[str, Any]:
        """Sources by `_id`."""
        return self.server.documents(self.index)

    def close(self) -> None:
        for sink in self.sinks:
            sink.close()


@pytest.fixture
def make_index(opensearch: OpenSearch) -> Iterator[Callable[..., Target]]:
    """Makes indices on the shared node."""
    made: list[Target] = []

    def make(properties: dict[str, Any] | None = None, server: OpenSearch | None = None, **settings: Any) -> Target:
        made.append(Target(server or opensearch, CARS if properties is None else properties, **settings))
        return made[-1]

    yield make
    for target in made:
        target.close()


@pytest.fixture
def cars_index(make_index: Callable[..., Target]) -> Target:
    return make_index()
