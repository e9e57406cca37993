"""`search-setup` sends the document's requests, does nothing twice, and goes on where it broke off."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.declare.seeds import seed
from tests.fix_opensearch import OpenSearch
from tests.fix_services import start
from vector_assets.cli import app
from vector_assets.clients.opensearch import connect
from vector_assets.clients.opensearch_setup import Builder
from vector_assets.declare.search_setup import read_setup
from vector_assets.engine.errors import ConfigError, PlanError, TransientError
from vector_assets.local.opensearch import OpenSearchService

pytestmark = pytest.mark.service

YAML = """
connection: {{hosts: "{hosts}", username: polarsearch_user, password: your_password}}
trusted_endpoints: ["{trusted}"]
{group}
connector:
  name: qwen embedding connector
  description: The connector to qwen embedding model
  model: text-embedding-v4
  endpoint: {endpoint}
  scheme: {scheme}
  api_key: {key}
model: {{name: qwen embedding model, description: Embedding model}}
pipeline:
  name: text_to_vec_pipeline
  description: A text embedding pipeline
  field_map: {{my_text: my_vector}}
index:
  name: {index}
  properties:
    id: {{type: integer}}
    my_text: {{type: text}}
    my_vector: {{type: knn_vector, dimension: {dimension}, method: {{engine: faiss, name: hnsw}}}}
"""
GROUP = "model_group: {name: test_model_group, description: Model group for text embedding}"


@pytest.fixture(scope="module")
def node(services_home: Path) -> Iterator[OpenSearch]:
    """A cluster that nobody set up before."""
    service = OpenSearchService(services_home / "own_opensearch_setup")
    start(service)
    yield OpenSearch(service)
    service.erase()


@pytest.fixture
def write(node, embeddings, tmp_path):
    """Writes a set-up of the local services, as the document has it but for the endpoint."""

    def write(**changes: object) -> Path:
        address = embeddings.url.removeprefix("http://").removesuffix("/v1")
        values = {
            "hosts": node.url,
            "trusted": f"^http://{re.escape(address)}/.*$".replace("\\", "\\\\"),
            "group": GROUP,
            "endpoint": address,
            "scheme": "http",
            "key": embeddings.api_key,
            "index": "test_index",
            "dimension": 1024,
            **changes,
        }
        file = tmp_path / "search.yaml"
        file.write_text(YAML.format(**values))
        return file

    return write


def builder(file: Path) -> Builder:
    wanted = read_setup(file)
    return Builder(connect(wanted.connection.login, "search"), wanted)


def curls() -> dict[str, object]:
    """Method and path of each of the document's curl commands, and its body."""
    found = re.findall(
        r'curl -X(\w+) "http://\$\{POLARSEARCH_HOST_PORT\}/(\S*)" \\\n--user "\$\{USER_PASSWORD\}"'
        r"(?: \\\n-H 'Content-Type: application/json' \\\n-d '(.*?)')?\n",
        seed(2),
        re.DOTALL,
    )
    return {f"{method} /{path}": json.loads(body) if body else None for method, path, body in found}


def filled(value: object, **names: str) -> object:
    text = json.dumps(value)
    for name, new in names.items():
        text = text.replace(name, new)
    return json.loads(text)


def test_each_request_is_the_document_s(write):
    wanted = curls()
    file = write(
        trusted="^https://dashscope.aliyuncs.com/compatible-mode.*$",
        endpoint="dashscope.aliyuncs.com/compatible-mode",
        scheme="https",
        key="sk-document",
    )
    steps = {step.name: step for step in builder(file).plan()}
    new = "<made by the step before>"
    sent = {f"{step.method} {step.path.replace(new, '<model_id>')}": step.body for step in steps.values()}
    searched = wanted.pop("POST /test_index/_search")
    assert searched == {"query": {"match": {"my_text": "aaa"}}}
    assert set(sent) == set(wanted)
    connector = wanted["POST /_plugins/_ml/connectors/_create"]
    wanted["POST /_plugins/_ml/connectors/_create"] = connector | {"credential": {"api_key": "sk-document"}}
    assert connector["credential"] == {"api_key": "${YOUR_API_KEY}"}
    register = wanted["POST /_plugins/_ml/models/_register"]
    # the group is the only thing the document's request leaves out though it says to use it
    wanted["POST /_plugins/_ml/models/_register"] = register | {"connector_id": new, "model_group_id": new}
    pipeline = wanted["PUT /_ingest/pipeline/text_to_vec_pipeline"]
    wanted["PUT /_ingest/pipeline/text_to_vec_pipeline"] = filled(pipeline, **{"<deployed embedding model ID>": new})
    assert sent == wanted
    assert [step.action for step in steps.values()] == [*["make"] * 5, "check", "make", "make"]
    without = {step.name: step for step in builder(write(group="")).plan()}
    assert "model group" not in without
    assert "model_group_id" not in without["model"].body


def test_a_cluster_is_set_up_once_and_the_document_s_query_finds_a_vector(node, write, embeddings):
    said: list[str] = []
    ready = builder(write()).run(said.append)
    assert ready.dimension == 1024
    assert ready.made == 7
    assert said[-1] == "index: make test_index"
    node.ask("PUT", "test_index/_doc/1?refresh=true", {"id": 1, "my_text": "aaa"}, status=201)
    node.ask("PUT", "test_index/_doc/2?refresh=true", {"id": 2, "my_text": "bbb"}, status=201)
    node.ask("PUT", "test_index/_doc/3?refresh=true", {"id": 3, "my_text": "ccc"}, status=201)
    found = node.ask("POST", "test_index/_search", curls()["POST /test_index/_search"], status=200)["hits"]["hits"]
    assert [(hit["_id"], hit["_source"]["my_text"]) for hit in found] == [("1", "aaa")]
    assert found[0]["_source"]["my_vector"] == pytest.approx(embeddings.vectors(["aaa"])[0].tolist(), abs=1e-5)
    # the document's 0.4458 is the score without the factor k1 + 1 = 2.2
    assert found[0]["_score"] == pytest.approx(0.9808, abs=1e-4)
    assert found[0]["_score"] / 2.2 == pytest.approx(0.44583148, abs=1e-5)

    embeddings.reset()
    again = builder(write()).run()
    assert (again.made, again.model_id, again.connector_id) == (0, ready.model_id, ready.connector_id)
    assert [step.action for step in again.steps] == [*["there"] * 5, "check", "there", "there"]
    # only the test of the model
    assert embeddings.counters()["texts"] == 1


@pytest.mark.parametrize("last", ["settings", "model group", "connector", "model", "deploy", "test", "pipeline"])
def test_a_set_up_that_broke_off_goes_on_behind_its_last_step(write, last):
    names = {"index": f"broken_{last.replace(' ', '_')}"}
    file = write(**names)
    text = (
        file.read_text().replace("qwen", f"qwen {last}").replace("text_to_vec_pipeline", f"pipeline_{names['index']}")
    )
    file.write_text(text.replace("test_model_group", f"group_{names['index']}"))

    class BrokenOffError(Exception):
        """A process that ends."""

    def stop(text: str) -> None:
        if text.startswith(f"{last}:"):
            raise BrokenOffError

    with pytest.raises(BrokenOffError):
        builder(file).run(stop)
    before = {step.name: step.id for step in builder(file).plan() if step.action == "there"}
    ready = builder(file).run()
    after = {step.name: step.id for step in ready.steps}
    assert {name: after[name] for name in before} == before
    order = ["settings", "model group", "connector", "model", "deploy", "test", "pipeline", "index"]
    assert [step.name for step in ready.steps if step.action == "make"] == [
        name for name in order[order.index(last) + 1 :] if name != "test"
    ]


def test_the_document_s_steps_by_hand_lead_to_the_same(node, write, embeddings):
    wanted = curls()
    address = embeddings.url.removeprefix("http://").removesuffix("/v1")
    builder(write()).run()
    by_command = node.ask("GET", "test_index")["test_index"]
    node.ask("DELETE", "test_index", status=200)
    connector = filled(
        wanted["POST /_plugins/_ml/connectors/_create"],
        **{
            "${YOUR_API_KEY}": embeddings.api_key,
            "dashscope.aliyuncs.com/compatible-mode": address,
            "https://": "http://",
        },
    )
    made = node.ask("POST", "_plugins/_ml/connectors/_create", connector, status=200)
    register = wanted["POST /_plugins/_ml/models/_register"] | {"connector_id": made["connector_id"]}
    model = node.ask("POST", "_plugins/_ml/models/_register", register, status=200)["model_id"]
    deployed = node.ask("POST", f"_plugins/_ml/models/{model}/_deploy", status=200)
    assert (deployed["task_type"], deployed["status"]) == ("DEPLOY_MODEL", "COMPLETED")
    predict = wanted["POST /_plugins/_ml/models/<model_id>/_predict"]
    answer = node.ask("POST", f"_plugins/_ml/models/{model}/_predict", predict, status=200)
    assert answer["inference_results"][0]["output"][0]["shape"] == [1024]
    pipeline = filled(wanted["PUT /_ingest/pipeline/text_to_vec_pipeline"], **{"<deployed embedding model ID>": model})
    node.ask("PUT", "_ingest/pipeline/text_to_vec_pipeline", pipeline, status=200)
    node.ask("PUT", "test_index", wanted["PUT /test_index"], status=200)
    by_hand = node.ask("GET", "test_index")["test_index"]
    assert by_hand["mappings"] == by_command["mappings"]
    for found in (by_hand, by_command):
        for name in ("uuid", "creation_date"):
            del found["settings"]["index"][name]
    assert by_hand["settings"] == by_command["settings"]
    node.ask("PUT", "test_index/_doc/1?refresh=true", {"id": 1, "my_text": "aaa"}, status=201)
    source = node.ask("GET", "test_index/_doc/1")["_source"]
    assert source["my_vector"] == pytest.approx(embeddings.vectors(["aaa"])[0].tolist(), abs=1e-5)
    # the command finds the oldest connector of these settings, and what is made by hand stays as it is
    assert builder(write()).run().made == 1


def test_an_endpoint_that_is_not_trusted_and_a_dimension_that_differs_are_refused(write):
    with pytest.raises(PlanError, match="trusted connector endpoint"):
        builder(write(trusted="^https://elsewhere.*$", key="sk-other", endpoint="127.0.0.1:9")).run()
    file = write(index="narrow", dimension=512)
    with pytest.raises(PlanError, match=r"answers 1024 dimensions, field my_vector of index narrow has 512"):
        builder(file).run()
    builder(write(index="wide")).run()
    text = write(index="wide", dimension=512)
    with pytest.raises(PlanError, match=r"dimension 1024, wanted 512|answers 1024"):
        builder(text).run()


def test_regexes_on_the_cluster_are_kept(node, write):
    there = {"plugins.ml_commons.trusted_connector_endpoints_regex": ["^https://kept.example/.*$"]}
    node.ask("PUT", "_cluster/settings", {"persistent": there}, status=200)
    builder(write()).run()
    settings = node.ask("GET", "_cluster/settings?flat_settings=true")["persistent"]
    trusted = settings["plugins.ml_commons.trusted_connector_endpoints_regex"]
    assert trusted[0] == "^https://kept.example/.*$"
    assert len(trusted) == 2


def test_a_cluster_that_is_away_is_a_passing_error(write):
    file = write(hosts="http://127.0.0.1:9")
    with pytest.raises(TransientError, match="cannot connect"):
        builder(file).plan()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("model: text-embedding-v4", "modell: x", "connector.modell"),
        ("field_map: {my_text: my_vector}", "field_map: {my_text: id}", "no knn_vector"),
        ("field_map: {my_text: my_vector}", "field_map: {other: my_vector}", "reads other"),
        ("username: polarsearch_user, ", "", "go together"),
        ('hosts: "http:', 'hosts: "ftp:', "want http://"),
        ("scheme: http", "scheme: ftp", "connector.scheme"),
        ("model: {name", "model: {name: [", "no YAML"),
        ("api_key: sk", "api_key: ${secret_values.nowhere}", "nowhere"),
    ],
    ids=["misspelt", "no-vector", "no-text", "password", "host", "scheme", "yaml", "secret"],
)
def test_a_file_that_is_wrong_is_refused_by_field(write, old, new, words):
    file = write()
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=re.escape(words)):
        read_setup(file)


def test_the_command_shows_its_plan_and_never_the_key(write, embeddings):
    file = write(index="by_command")
    shown = CliRunner().invoke(app, ["search-setup", str(file), "--dry-run"])
    assert "make by_command" in shown.stdout
    assert "nothing was done" in shown.stdout
    done = json.loads(CliRunner().invoke(app, ["search-setup", str(file), "--json"]).stdout)
    assert done["dimension"] == 1024
    assert done["steps"][-1] == {
        "name": "index", "action": "make", "note": "make by_command", "request": "PUT /by_command",
    }  # fmt: skip
    assert embeddings.api_key not in shown.stdout + json.dumps(done)


def test_the_set_up_is_an_asset(node, write):
    import dagster as dg

    from vector_assets.defs.resources import OpenSearchResource
    from vector_assets.defs.search_setup import search_setup_asset

    result = dg.materialize([search_setup_asset(write(index="by_asset"))])
    (event,) = result.asset_materializations_for_node("search_setup")
    assert event.metadata["dimension"].value == 1024
    assert OpenSearchResource(hosts=node.url).count("by_asset") == 0
