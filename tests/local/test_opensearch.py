"""The local OpenSearch node: real, with the plugins that PolarSearch has, and only on the loopback address."""

import pytest

from tests.local.sockets import listening

pytestmark = pytest.mark.service

VECTOR = {"type": "knn_vector", "dimension": 4, "method": {"engine": "faiss", "name": "hnsw"}}


def test_it_is_release_2_19_1_with_machine_learning_and_vector_search(opensearch):
    found = opensearch.ask("GET", "", status=200)
    assert found["version"]["number"] == "2.19.1"
    plugins = opensearch.ask("GET", "_cat/plugins?format=json", status=200)
    assert {plugin["component"] for plugin in plugins} == {
        "opensearch-job-scheduler", "opensearch-knn", "opensearch-ml", "opensearch-neural-search",
    }  # fmt: skip


def test_it_listens_on_the_loopback_address_only(opensearch):
    pid = opensearch.service.status().pid
    assert {address for address, _ in listening(pid)} == {"127.0.0.1"}


def test_a_faiss_index_takes_documents_and_finds_the_nearest(opensearch):
    name = opensearch.create({"v": VECTOR}, knn=True)
    for number in range(3):
        opensearch.ask("PUT", f"{name}/_doc/{number}?refresh=true", {"v": [number, 1, 2, 3]}, status=201)
    found = opensearch.ask("POST", f"{name}/_search", {"query": {"knn": {"v": {"vector": [2, 1, 2, 3], "k": 1}}}})
    assert found["hits"]["hits"][0]["_id"] == "2"


def test_documents_outlive_a_stop_and_a_kill(own_opensearch):
    node = own_opensearch()
    node.ask("PUT", "kept/_doc/1", {"a": 1}, status=201)
    node.service.stop()
    node.service.start()
    assert node.ask("GET", "kept/_doc/1", status=200)["_source"] == {"a": 1}
    node.ask("PUT", "kept/_doc/2", {"a": 2}, status=201)
    node.service.kill()
    node.service.start()
    assert node.ask("GET", "_cluster/health")["status"] in {"yellow", "green"}
    assert node.documents("kept") == {"1": {"a": 1}, "2": {"a": 2}}
