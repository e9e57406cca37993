"""Milvus for tests: `milvus` (milvus-lite, shared), `own_milvus` to stop and kill, `milvus_235` (a real server)."""

import itertools
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.fix_services import start, unavailable
from vector_assets.engine.errors import TransientError
from vector_assets.local.milvus import MilvusService, coordinates

_numbers = itertools.count()


class MilvusServer:
    """One server and what tests do with it, through pymilvus' own client."""

    is_lite = False
    pid = 0

    def __init__(self, host: str, port: int, **login: str) -> None:
        self.host = host
        self.port = port
        self.login = login
        self._client: Any = None
        self._names: set[str] = set()

    @property
    def client(self) -> Any:
        """A pymilvus client, opened when first asked for."""
        if self._client is None:
            from pymilvus import MilvusClient

            self._client = MilvusClient(uri=f"http://{self.host}:{self.port}", **self.login)
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
        self.client.create_index(name, indexes, sync=not self.is_lite)
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

    is_lite = True

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


@pytest.fixture(scope="session")
def _server_235(services_home: Path) -> Iterator[MilvusServer]:
    if find_spec("milvus") is None:
        unavailable("milvus 2.3.5: pip install 'vector-assets[dev]'")
    # a plain user needs a user namespace to have a network namespace
    isolated = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-rn"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*isolated, "true"], check=False, capture_output=True).returncode
    ):
        unavailable("milvus 2.3.5 listens on every address: it needs a network namespace (unshare -n)")
    folder = services_home / "milvus_235"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        script = str(Path(__file__).with_name("milvus_235.py"))
        process = subprocess.Popen(
            [*isolated, sys.executable, script, str(folder), str(listener.fileno())],
            stdin=subprocess.PIPE,
            pass_fds=[listener.fileno()],
        )
        port = listener.getsockname()[1]
    server = MilvusServer("127.0.0.1", port, user="root", password="Milvus")
    server.pid = process.pid
    try:
        _await(server, process, folder / "milvus.log")
        yield server
    finally:
        server.close()
        assert process.stdin is not None
        process.stdin.close()
        process.wait(20)


def _await(server: MilvusServer, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until the server takes requests."""
    from vector_assets.clients.milvus import Login, connect

    login = Login(server.host, server.port, user="root", password=SecretStr("Milvus"))
    deadline = time.monotonic() + 90
    while True:
        try:
            connect(login, "milvus 2.3.5").close()
        except TransientError as error:
            ended = process.poll() is not None
            if ended or time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-2000:] if log.exists() else "(no log)"
                raise AssertionError(f"milvus 2.3.5 does not start: {error}; end of its log:\n{tail}") from error
            time.sleep(0.2)
        else:
            return


@pytest.fixture
def milvus_235(_server_235: MilvusServer) -> Iterator[MilvusServer]:
    """A real server of release 2.3.5 with users (root, Milvus); its collections are dropped after the test."""
    yield _server_235
    _server_235.forget_collections()
