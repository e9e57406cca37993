"""Flink SQL into a real OpenSearch: server-side vectors by the document's ingest pipeline, searched by text."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.clients.test_opensearch_setup import YAML
from tests.e2e.cdc_world import block, cdc_world
from vector_assets.cli import app

__all__ = ["cdc_world"]
pytestmark = pytest.mark.service

SCRIPT = """
SET 'pipeline.name' = 'docs';
CREATE TABLE lines (id INT, my_text STRING) WITH (
  'connector' = 'kafka', 'topic' = '{topic}', 'properties.bootstrap.servers' = '{kafka}', 'format' = 'json',
  'scan.startup.mode' = 'earliest-offset');
CREATE TABLE docs (id INT, my_text STRING, PRIMARY KEY (id) NOT ENFORCED) WITH (
  'connector' = 'opensearch-2', 'hosts' = '{url}', 'index' = '{index}');
INSERT INTO docs SELECT id, my_text FROM lines;
"""


def test_rows_of_kafka_get_vectors_on_the_way_into_the_index(
    opensearch, embeddings, kafka, tmp_path: Path, monkeypatch
):
    monkeypatch.setenv("VECTOR_ASSETS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("VECTOR_ASSETS_PIPELINES", str(tmp_path / "pipelines"))
    index = opensearch.name()
    address = embeddings.url.removeprefix("http://").removesuffix("/v1")
    text = YAML.format(
        hosts=opensearch.url, trusted="^http://127.0.0.1:[0-9]+/.*$", group="", endpoint=address, scheme="http",
        key=embeddings.api_key, index=index, dimension=1024,
    ).replace("text_to_vec_pipeline", f"pipeline_{index}")  # fmt: skip
    (tmp_path / "search.yaml").write_text(text)
    topic = kafka.create_topic()
    texts = ["a cat sleeps on the sofa", "interest rates rose again", "poison", "the dog barks at night"]
    kafka.produce(topic, [json.dumps({"id": n, "my_text": t}) for n, t in enumerate(texts, 1)])
    (tmp_path / "pipelines").mkdir()
    script = SCRIPT.format(topic=topic, kafka=kafka.bootstrap_servers, url=opensearch.url, index=index)
    (tmp_path / "pipelines" / "docs.sql").write_text(script)

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        return done.stdout

    run("search-setup", str(tmp_path / "search.yaml"))
    embeddings.fault(text="poison", status=400, message="content policy", times=None)
    run("run", "docs")
    documents = opensearch.documents(index)
    assert set(documents) == {"1", "2", "4"}
    assert all(len(document["my_vector"]) == 1024 for document in documents.values())
    found = json.loads(run("search", "docs", "--text", "a kitten is resting", "--k", "2", "--json"))
    assert found["rows"][0]["id"] == 1
    both = json.loads(run("search", "docs", "--text", "rates", "--hybrid", "--k", "2", "--json"))
    assert both["rows"][0]["id"] == 2
    embeddings.reset()
    run("run", "docs")
    assert embeddings.counters()["texts"] == 0


def test_a_flink_cdc_pipeline_writes_an_index_that_a_command_makes(cdc_world, opensearch):
    table = f"{cdc_world.mysql.database}_t"
    cdc_world.fill(table)
    cdc_world.write(cdc_world.source(), block("sink", {"type": "opensearch", "hosts": opensearch.url}))
    made = CliRunner().invoke(app, ["target", "create", str(cdc_world.file)])
    assert made.exit_code == 0, made.output
    cdc_world.check_that_it_lands_and_follows(table)
