"""The embedded Milvus keeps what it acknowledged, on the loopback address only."""

from collections.abc import Callable

import pytest

from tests.fix_milvus import LocalMilvus, MilvusServer
from tests.local.sockets import listening
from vector_assets.local import milvus as module
from vector_assets.local import process

pytestmark = pytest.mark.service

FIELDS = {"id": ("INT64", {}), "v": ("FLOAT_VECTOR", {"dim": 2})}


def test_it_listens_on_the_loopback_address_only_and_tells_its_version(milvus: LocalMilvus) -> None:
    row = milvus.service.status()
    assert row.pid is not None
    # gRPC's socket is of IPv6, bound to the IPv4 loopback address
    assert listening(row.pid) == {("::ffff:7f00:1", milvus.port)}
    assert module.coordinates() == f"milvus-lite {row.version}"
    assert milvus.service.secrets() == {"MILVUS_ENDPOINT": "127.0.0.1", "MILVUS_PORT": str(milvus.port)}


def test_several_processes_may_use_it(milvus: LocalMilvus) -> None:
    name = milvus.create(FIELDS)
    other = MilvusServer(milvus.host, milvus.port)
    other.client.upsert(name, [{"id": 1, "v": [1.0, 2.0]}])
    other.close()
    assert milvus.count(name) == 1


def test_a_stop_keeps_every_row_and_the_port(own_milvus: Callable[[], LocalMilvus]) -> None:
    """What a kill keeps is in tests/sinks/test_milvus_tokens.py."""
    server = own_milvus()
    name = server.create(FIELDS)
    before = server.service.status()
    server.client.upsert(name, [{"id": row, "v": [1.0, 2.0]} for row in range(100)])
    server.close()
    server.stop()
    assert server.service.status().state == "down"
    assert process.find(before.pid or 0) is None
    server.start()
    assert server.service.status().address == before.address
    server.client.load_collection(name)
    assert server.count(name) == 100
