"""A real OpenSearch for tests: `opensearch` shared by the session, `own_opensearch` to be stopped and killed."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from tests.fix_services import start
from vector_assets.local.opensearch import OpenSearchService

_numbers = itertools.count()


class OpenSearch:
    """One node and what tests do with it, by plain requests."""

    def __init__(self, service: OpenSearchService) -> None:
        self.service = service
        self.url = service.url
        self._names: list[str] = []

    def ask(self, method: str, path: str, body: Any = None, *, status: int | None = None) -> Any:
        """The answer of a request; with `status` any other one fails the test."""
        sent: dict[str, Any] = {"json": body}
        if isinstance(body, bytes | str):
            sent = {"body": body, "headers": {"Content-Type": "application/json"}}
        answer = urllib3.request(method, f"{self.url}/{path.lstrip('/')}", **sent, retries=False, timeout=60)
        assert status is None or answer.status == status, (answer.status, answer.data[:2000])
        return answer.json() if answer.data else {}

    def name(self) -> str:
        """A fresh index name; what has it, or begins with it, is deleted after the test."""
        self._names.append(f"index_{next(_numbers)}")
        return self._names[-1]

    def adopt(self, name: str) -> None:
        """Delete an index of this name now and after the test: one whose name a document gives."""
        self._names.append(name)
        self.ask("DELETE", f"{name}?ignore_unavailable=true")

    def create(self, properties: dict[str, Any], **settings: Any) -> str:
        """A fresh index with one shard and no replica."""
        name = self.name()
        given = {"number_of_shards": 1, "number_of_replicas": 0, **settings}
        body = {"settings": {"index": given}, "mappings": {"properties": properties}}
        self.ask("PUT", name, body, status=200)
        return name

    def documents(self, name: str) -> dict[str, Any]:
        """Sources by `_id`, after a refresh."""
        self.ask("POST", f"{name}/_refresh", status=200)
        found = self.ask("POST", f"{name}/_search", {"size": 10_000, "version": True}, status=200)
        return {hit["_id"]: hit["_source"] for hit in found["hits"]["hits"]}

    def forget(self) -> None:
        """Delete every index and data stream that was named here."""
        for name in self._names:
            self.ask("DELETE", f"_data_stream/{name}*")
            self.ask("DELETE", f"{name}*?expand_wildcards=all&ignore_unavailable=true")
            self.ask("DELETE", f"_index_template/{name}*")
        self._names.clear()


@pytest.fixture(scope="session")
def opensearch_server(services_home: Path) -> Iterator[OpenSearch]:
    """The session's node. Do not stop it."""
    service = OpenSearchService(services_home / "opensearch")
    start(service)
    yield OpenSearch(service)
    service.erase()


@pytest.fixture
def opensearch(opensearch_server: OpenSearch) -> Iterator[OpenSearch]:
    """The session's node; indices named through it are deleted after the test."""
    yield opensearch_server
    opensearch_server.forget()


@pytest.fixture
def own_opensearch(services_home: Path) -> Iterator[Callable[..., OpenSearch]]:
    """Makes throwaway nodes: `own_opensearch(**properties)` with dots as `__` in names."""
    services: list[OpenSearchService] = []

    def make(**properties: object) -> OpenSearch:
        settings = {key.replace("__", "."): value for key, value in properties.items()}
        service = OpenSearchService(services_home / f"own_opensearch_{next(_numbers)}", settings)
        services.append(service)
        start(service)
        return OpenSearch(service)

    yield make
    for service in services:
        service.erase()
