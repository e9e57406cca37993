"""Milvus for tests: `milvus` (milvus-lite, shared), `own_milvus` to stop and kill, `milvus_235` (a real server)."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fix_services import start
from vector_assets.local.milvus import MilvusService, coordinates

_numbers = itertools.count()


class MilvusServer:
    """One server and what tests do with it, through pymilvus' own client."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self._client: Any = None
        self._names: set[str] = set()

    @property
    def client(self) -> Any:
        """A pymilvus client, opened when first asked for."""
        if self._client is None:
            from pymilvus import MilvusClient

            self._client = MilvusClient(uri=f"http://{self.host}:{self.port}")
        return self._client

    def name(self) -> str:
        """A fresh collection name; the collection, if one is made, is dropped after the test."""
        name = f"collection_{next(_numbers)}"
        self._names.add(name)
        return name

    def create(
        self, fields: dict[str, tuple[Any, ...]], *, key: str = "id", partitions: tuple[str, ...] = (), **settings: Any
    ) -> str:
        """A collection of `fields` (name -> type name and parameters), indexed by L2 and loaded."""
        from pymilvus import DataType, MilvusClient

        schema = MilvusClient.create_schema(auto_id=settings.pop("auto_id", False), enable_dynamic_field=False)
        indexes = self.client.prepare_index_params()
        for field, (kind, params) in fields.items():
            schema.add_field(field, DataType[kind], is_primary=field == key, **params)
            if kind.endswith("VECTOR"):
                metric = {"SPARSE_FLOAT_VECTOR": "IP", "BINARY_VECTOR": "HAMMING"}.get(kind, "L2")
                index = {"SPARSE_FLOAT_VECTOR": "SPARSE_INVERTED_INDEX", "BINARY_VECTOR": "BIN_FLAT"}.get(kind, "FLAT")
                indexes.add_index(field, index_type=index, metric_type=metric)
        name = self.name()
        self.client.create_collection(name, schema=schema, num_shards=1, **settings)
        for partition in partitions:
            self.client.create_partition(name, partition)
        self.client.create_index(name, indexes)
        self.client.load_collection(name)
        return name

    def rows(self, name: str, where: str = "", **settings: Any) -> list[dict[str, Any]]:
        """Rows of a collection as pymilvus reads them, by key."""
        limit = {} if where else {"limit": 10_000}
        found = self.client.query(name, where, output_fields=["*"], consistency_level="Strong", **limit, **settings)
        return sorted((dict(row) for row in found), key=lambda row: row[min(row, key=lambda k: k != "id")])

    def count(self, name: str) -> int:
        """`count(*)`, read strongly."""
        found = self.client.query(name, "", output_fields=["count(*)"], consistency_level="Strong")
        return found[0]["count(*)"]

    def forget_collections(self) -> None:
        """Drop every collection that was named here."""
        for name in self._names & set(self.client.list_collections()) if self._names else ():
            self.client.drop_collection(name)
        self._names.clear()

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


class LocalMilvus(MilvusServer):
    """milvus-lite as our local service runs it."""

    def __init__(self, service: MilvusService) -> None:
        super().__init__("127.0.0.1", service.port)
        self.service = service

    def stop(self) -> None:
        """Stop the server; its data and port stay."""
        self.service.stop()

    def kill(self) -> None:
        """End the server as a crash would."""
        self.service.kill()

    def start(self) -> None:
        """Start the server again."""
        self.service.start()


def pytest_report_header() -> str:
    return f"service milvus: {MilvusService.missing() or coordinates()}"


@pytest.fixture(scope="session")
def milvus_service(services_home: Path) -> Iterator[MilvusService]:
    service = MilvusService(services_home / "milvus")
    start(service)
    yield service
    service.erase()


@pytest.fixture(scope="session")
def _shared_milvus(milvus_service: MilvusService) -> Iterator[LocalMilvus]:
    server = LocalMilvus(milvus_service)
    yield server
    server.close()


@pytest.fixture
def milvus(_shared_milvus: LocalMilvus) -> Iterator[LocalMilvus]:
    """The session's server; collections named through it are dropped after the test. Do not stop it."""
    yield _shared_milvus
    _shared_milvus.forget_collections()


@pytest.fixture
def own_milvus(services_home: Path) -> Iterator[Callable[[], LocalMilvus]]:
    """Makes throwaway servers."""
    made: list[LocalMilvus] = []

    def make() -> LocalMilvus:
        service = MilvusService(services_home / f"own_milvus_{next(_numbers)}")
        start(service)
        made.append(LocalMilvus(service))
        return made[-1]

    yield make
    for server in made:
        server.close()
        server.service.erase()
