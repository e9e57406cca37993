"""The document's steps in their order: from its exports to its last query, on a real MariaDB, OpenSearch and model."""

import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.clients.test_opensearch_setup import curls, filled
from tests.declare.seeds import seed
from vector_assets.cli import app

pytestmark = pytest.mark.service

SETTINGS = """
SET 'mysql.hostname' = '${secret_values.mysql_host}';
SET 'mysql.port' = '${secret_values.mysql_port}';
SET 'mysql.username' = '${secret_values.mysql_user}';
SET 'mysql.password' = '${secret_values.mysql_password}';
SET 'search.hosts' = 'http://${secret_values.polarsearch_host_port}';
SET 'search.username' = '${secret_values.polarsearch_user}';
SET 'search.password' = '${secret_values.polarsearch_password}';
"""


def exports() -> dict[str, str]:
    """Step 1: what the document exports."""
    return dict(re.findall(r'^export (\w+)="(.*)"$', seed(2), re.MULTILINE))


def statements(opening: str) -> list[str]:
    """Statements of the document that begin so, up to the semicolon."""
    return re.findall(rf"^{opening}\b.*?;$", seed(2), re.MULTILINE | re.DOTALL)


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mysql, opensearch) -> Path:
    """Home, pipelines and the secrets of the settings above; the folder of pipelines."""
    monkeypatch.setenv("VECTOR_ASSETS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("VECTOR_ASSETS_PIPELINES", str(tmp_path / "pipelines"))
    user, password = exports()["USER_PASSWORD"].split(":")
    secrets = {
        "mysql_host": "127.0.0.1", "mysql_port": mysql.service.port, "mysql_user": mysql.service.user,
        "mysql_password": mysql.service.password, "polarsearch_user": user, "polarsearch_password": password,
        "polarsearch_host_port": opensearch.url.removeprefix("http://"),
    }  # fmt: skip
    for name, value in secrets.items():
        monkeypatch.setenv(f"VECTOR_ASSETS_SECRET_{name.upper()}", str(value))
    (tmp_path / "pipelines").mkdir()
    return tmp_path / "pipelines"


def test_the_document_s_steps_keep_an_index_with_vectors_as_a_table(place, mysql, opensearch, embeddings):
    assert set(exports()) == {"POLARSEARCH_HOST_PORT", "USER_PASSWORD", "YOUR_API_KEY"}
    wanted = curls()
    address = embeddings.url.removeprefix("http://").removesuffix("/v1")
    opensearch.adopt("test_index")

    def ask(request: str, body: Any = None, status: int = 200) -> Any:
        method, path = request.split(" /")
        return opensearch.ask(method, path, body, status=status)

    settings = wanted["PUT /_cluster/settings"]
    ask("PUT /_cluster/settings", filled(settings, **{"https://dashscope.aliyuncs.com/compatible-mode": "http://"}))
    connector = filled(
        wanted["POST /_plugins/_ml/connectors/_create"],
        **{"${YOUR_API_KEY}": embeddings.api_key, "dashscope.aliyuncs.com/compatible-mode": address, "https:": "http:"},
    )
    made = connected(opensearch, connector)
    register = wanted["POST /_plugins/_ml/models/_register"] | {"connector_id": made}
    model = ask("POST /_plugins/_ml/models/_register", register)["model_id"]
    assert ask(f"POST /_plugins/_ml/models/{model}/_deploy")["status"] == "COMPLETED"
    predict = wanted["POST /_plugins/_ml/models/<model_id>/_predict"]
    answer = ask(f"POST /_plugins/_ml/models/{model}/_predict", predict)
    assert answer["inference_results"][0]["output"][0]["shape"] == [1024]
    pipeline = filled(wanted["PUT /_ingest/pipeline/text_to_vec_pipeline"], **{"<deployed embedding model ID>": model})
    ask("PUT /_ingest/pipeline/text_to_vec_pipeline", pipeline)
    data = [*statements("CREATE DATABASE"), *statements("CREATE TABLE"), *statements("INSERT INTO")]
    assert len(data) == 3
    mysql.sql("DROP DATABASE IF EXISTS db")
    try:
        for statement in data:
            mysql.sql(statement)
        ask("PUT /test_index", wanted["PUT /test_index"])
        (call,) = statements("call dbms_etl")
        (place / "search.sql").write_text(SETTINGS + call)
        run("run", "test_index")
        check_query(ask, wanted, embeddings)

        def texts() -> dict[str, str]:
            return {key: source["my_text"] for key, source in opensearch.documents("test_index").items()}

        assert texts() == {"1": "aaa", "2": "bbb", "3": "ccc"}
        mysql.sql("INSERT INTO db.test_table VALUES (4, 44, 'ddd')")
        mysql.sql("UPDATE db.test_table SET t2 = 'changed' WHERE id = 2")
        mysql.sql("DELETE FROM db.test_table WHERE id = 3")
        mysql.sql("UPDATE db.test_table SET id = 5 WHERE id = 4")
        run("run", "test_index")
        assert texts() == {"1": "aaa", "2": "changed", "5": "ddd"}
        found = opensearch.documents("test_index")
        vectors = embeddings.vectors(["aaa", "changed", "ddd"])
        assert [found[key]["my_vector"] for key in "125"] == [
            pytest.approx(vector.tolist(), abs=1e-5) for vector in vectors
        ]
        embeddings.reset()
        run("run", "test_index")
        assert embeddings.counters()["texts"] == 0
    finally:
        mysql.sql("DROP DATABASE db")


def connected(opensearch: Any, connector: Any) -> str:
    """The connector's id; a node that has much to do fails its first one ("Fetching master key timed out")."""
    for _ in range(5):
        answer = opensearch.ask("POST", "_plugins/_ml/connectors/_create", connector)
        if "connector_id" in answer:
            return str(answer["connector_id"])
        assert "master key" in str(answer), answer
    raise AssertionError(answer)


def check_query(ask: Any, wanted: dict[str, Any], embeddings: Any) -> None:
    """The document's last query; its score is that of another release."""
    (hit,) = ask("POST /test_index/_search", wanted["POST /test_index/_search"])["hits"]["hits"]
    assert (hit["_id"], hit["_source"]["id"], hit["_source"]["my_text"]) == ("1", 1, "aaa")
    assert hit["_source"]["my_vector"] == pytest.approx(embeddings.vectors(["aaa"])[0].tolist(), abs=1e-5)
    assert hit["_score"] == pytest.approx(0.9808, abs=1e-4)
