"""The Milvus resource reads what pipelines write, and says clearly what is wrong."""

import pytest
from pymilvus.client.connection_manager import ConnectionManager

from vector_assets.defs.resources import MilvusResource
from vector_assets.engine.errors import ConfigError, PlanError, UnavailableError

pytestmark = pytest.mark.service


def test_rows_written_by_its_client_are_counted_and_queried(milvus):
    name = milvus.create(
        {"id": ("INT64", {}), "name": ("VARCHAR", {"max_length": 9}), "v": ("FLOAT_VECTOR", {"dim": 2})}
    )
    resource = MilvusResource(uri=f"http://{milvus.host}:{milvus.port}")
    others = ConnectionManager.get_instance().get_stats()["total_connections"]
    client = resource.client()
    client.upsert(name, [{"id": number, "name": f"n{number}", "v": [1.0, float(number)]} for number in range(3)])
    client.upsert(name, [{"id": 1, "name": "again", "v": [1.0, 9.0]}])
    client.close()
    assert ConnectionManager.get_instance().get_stats()["total_connections"] == others
    assert resource.count(name) == 3
    assert resource.query(name, "id in [1]").to_pylist() == [{"id": 1, "name": "again", "v": [1.0, 9.0]}]
    with pytest.raises(PlanError, match="nowhere"):
        resource.count("nowhere")


def test_a_wrong_address_and_a_server_that_does_not_answer_are_errors_of_the_engine():
    with pytest.raises(ConfigError, match="uri: want http"):
        MilvusResource(uri="milvus:19530").count("people")
    with pytest.raises(UnavailableError):
        MilvusResource(uri="http://127.0.0.1:1").client()


def test_its_secrets_are_not_shown():
    assert "hidden" not in repr(MilvusResource(uri="http://h:1", user="root", password="hidden", token="hidden"))
