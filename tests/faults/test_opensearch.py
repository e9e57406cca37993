"""Vectors into OpenSearch, made by the cluster's pipeline or by EMBED, while the model or the node fails."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.clients.test_opensearch_setup import YAML
from tests.faults.place import placed
from tests.fix_opensearch import OpenSearch
from tests.fix_services import start
from vector_assets.clients.opensearch import connect
from vector_assets.clients.opensearch_setup import Builder
from vector_assets.declare import flink_sql
from vector_assets.declare.search_setup import read_setup
from vector_assets.engine import env
from vector_assets.engine.errors import TransientError, VectorAssetsError
from vector_assets.engine.reconcile import reconcile
from vector_assets.engine.run import Outcome, Runner
from vector_assets.engine.session import Books, Session
from vector_assets.local.opensearch import OpenSearchService

pytestmark = pytest.mark.service
ROWS = 60
DIMENSIONS = {"server": 1024, "client": 16}
SCRIPT = """
SET 'pipeline.name' = 'docs';
SET 'vector-assets.batch.max-rows' = '20';
SET 'vector-assets.lease.ttl' = '2 s';
SET 'vector-assets.outage.timeout' = '{outage}';
{embedding}
CREATE TABLE numbers (n BIGINT) WITH ('connector' = 'datagen', 'fields.n.kind' = 'sequence', 'fields.n.start' = '0',
  'fields.n.end' = '{last}', 'rows-per-second' = '100000');
CREATE TABLE docs (id BIGINT, my_text STRING{column}, PRIMARY KEY (id) NOT ENFORCED) WITH (
  'connector' = 'opensearch-2', 'hosts' = '{url}', 'index' = '{index}',
  'sink.bulk-flush.backoff.delay' = '10 ms'{options});
INSERT INTO docs SELECT n, CONCAT('text number ', CAST(n AS STRING)){embed} FROM numbers;
"""
EMBEDDING = """
SET 'vector-assets.embedding.url' = '{url}';
SET 'vector-assets.embedding.api-key' = '${{secret_values.embeddings_api_key}}';
SET 'vector-assets.embedding.model' = 'text-embedding-v4';
SET 'vector-assets.embedding.dimensions' = '16';
SET 'vector-assets.embedding.batch-size' = '8';
SET 'vector-assets.embedding.retry-wait' = '10 ms';
SET 'vector-assets.embedding.timeout' = '5 s';
"""


class Job:
    """60 texts, an index with their vectors, and a script between them; `mode` says who asks the model."""

    def __init__(self, folder: Path, server: Any, embeddings: Any, mode: str) -> None:
        self.folder, self.server, self.embeddings, self.mode = folder, server, embeddings, mode
        self.index = server.name()
        self.environment = {
            "VECTOR_ASSETS_HOME": str(folder / "home"),
            env.secret_variable("embeddings_api_key"): embeddings.api_key,
        }
        if mode == "server":
            self._set_up()
        else:
            vector = {"type": "knn_vector", "dimension": 16, "method": {"engine": "faiss", "name": "hnsw"}}
            fields = {"id": {"type": "long"}, "my_text": {"type": "text"}, "my_vector": vector}
            body = {"settings": {"index": {"knn": True}}, "mappings": {"properties": fields}}
            server.ask("PUT", self.index, body, status=200)
        self.write()

    def _set_up(self) -> None:
        text = YAML.format(
            hosts=self.server.url, trusted="^http://127.0.0.1:[0-9]+/.*$", group="", scheme="http",
            endpoint=self.embeddings.url.removeprefix("http://").removesuffix("/v1"), key=self.embeddings.api_key,
            index=self.index, dimension=1024,
        )  # fmt: skip
        text = text.replace("text_to_vec_pipeline", f"pipeline_{self.index}").replace("type: integer", "type: long")
        text = text.replace("  field_map:", "  batch_size: 8\n  field_map:")
        (self.folder / "search.yaml").write_text(text)
        wanted = read_setup(self.folder / "search.yaml")
        with closing(connect(wanted.connection.login, "opensearch")) as client:
            self.ready = Builder(client, wanted).run()

    def write(self, outage: str = "60 s", **options: str) -> None:
        is_client = self.mode == "client"
        text = SCRIPT.format(
            embedding=EMBEDDING.format(url=self.embeddings.url) if is_client else "", last=ROWS - 1, outage=outage,
            column=", my_vector ARRAY<FLOAT>" if is_client else "", url=self.server.url, index=self.index,
            embed=", EMBED(CONCAT('text number ', CAST(n AS STRING))) AS my_vector" if is_client else "",
            options="".join(f", '{name}' = '{value}'" for name, value in options.items()),
        )  # fmt: skip
        (self.folder / "docs.sql").write_text(text)

    @contextmanager
    def open(self) -> Iterator[Session]:
        with placed(self.environment):
            (pipeline,) = flink_sql.load_file(self.folder / "docs.sql")
            books = Books.open()
        with closing(books), Session(pipeline, books) as session:
            yield session

    def run(self) -> list[Outcome]:
        with self.open() as session:
            return list(Runner(session).catch_up())

    def hits(self) -> list[dict[str, Any]]:
        self.server.ask("POST", f"{self.index}/_refresh", status=200)
        body = {"size": 1000, "version": True, "seq_no_primary_term": True, "sort": ["id"]}
        return self.server.ask("POST", f"{self.index}/_search", body, status=200)["hits"]["hits"]

    def assert_right(self, *, without: tuple[int, ...] = ()) -> None:
        """Every text with its own vector; one more run asks the model nothing and writes nothing."""
        self.embeddings.reset()
        # a text that was refused would be taken now, but is a dead letter until somebody has it replayed
        with self.open() as session:
            found = reconcile(session)
        assert found.is_right(), (found.counts, found.equations)
        before = self.hits()
        assert [hit["_source"]["id"] for hit in before] == [n for n in range(ROWS) if n not in without]
        texts = [hit["_source"]["my_text"] for hit in before]
        more = {"dimensions": 16} if self.mode == "client" else {}
        wanted = self.embeddings.vectors(texts, "text-embedding-v4", **more)
        vectors = np.array([hit["_source"]["my_vector"] for hit in before], np.float32)
        np.testing.assert_allclose(vectors, wanted, rtol=0, atol=1e-5)
        requests = self.embeddings.counters()["requests"]
        assert self.run() == []
        assert self.embeddings.counters()["requests"] == requests
        assert [(h["_version"], h["_seq_no"]) for h in self.hits()] == [(h["_version"], h["_seq_no"]) for h in before]
        with self.open() as session:
            assert session.ledger.dead_letters.count("docs") == len(without)


@pytest.fixture(params=["server", "client"])
def job(request, tmp_path, opensearch, embeddings):
    return Job(tmp_path, opensearch, embeddings, request.param)


FAULTS = {
    "429": {"status": 429, "times": 2},
    "500": {"status": 500, "times": 2},
    "503": {"status": 503, "times": 2},
    "cut": {"cut": True},
    "count": {"wrong": "count"},
    "index": {"wrong": "index"},
    "dimension": {"wrong": "dimension"},
    "body": {"wrong": "body"},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_model_that_fails_for_a_moment_costs_no_document_and_no_vector(job, fault):
    job.embeddings.fault(text="number", **FAULTS[fault], skip=1)
    job.run()
    job.assert_right()


def test_answers_in_another_order_are_put_in_order_by_the_client(tmp_path, opensearch, embeddings):
    job = Job(tmp_path, opensearch, embeddings, "client")
    embeddings.fault(text="number", wrong="order", times=None)
    job.run()
    job.assert_right()


def test_a_poison_text_costs_itself_only(job):
    job.embeddings.fault(text="number 33$", status=400, message="content policy", times=None)
    job.run()
    with job.open() as session:
        (letter,) = session.ledger.dead_letters.listed()
    assert letter.offset == 33
    assert "content policy" in letter.error
    job.assert_right(without=(33,))


@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 429, "retry_after_s": 0.01}], ids=["500", "429"])
def test_a_model_that_goes_on_failing_stops_the_run_and_the_next_one_goes_on(job, fault):
    job.write(outage="1 s")
    job.embeddings.fault(text="number 4", times=None, **fault)
    with pytest.raises(VectorAssetsError):
        job.run()
    job.embeddings.reset()
    job.run()
    job.assert_right()


def test_a_model_slower_than_the_request_may_take_is_waited_for(tmp_path, opensearch, embeddings):
    job = Job(tmp_path, opensearch, embeddings, "server")
    job.write(**{"connection.request-timeout": "2 s"})
    embeddings.fault(text="number 2", delay_s=4)
    job.run()
    job.assert_right()


@pytest.fixture(scope="module")
def own_node(services_home: Path) -> Iterator[OpenSearch]:
    """A node that minds its disk and may be killed."""
    disk = {"cluster.routing.allocation.disk.threshold_enabled": "true", "cluster.info.update.interval": "10s"}
    # a node is forgotten to have been full, and indices may be made again, so long after the last reroute: 60 s else
    disk["cluster.routing.allocation.disk.reroute_interval"] = "1s"
    small = {"cluster.routing.allocation.disk.watermark." + level: "1mb" for level in ("low", "high", "flood_stage")}
    service = OpenSearchService(services_home / "own_opensearch_faults", {**disk, **small})
    start(service)
    yield OpenSearch(service)
    service.erase()


def test_a_node_killed_in_mid_run_is_waited_for_also_while_its_shards_are_red(
    tmp_path, own_node, embeddings, monkeypatch
):
    from vector_assets.sinks.opensearch_write import Landing

    server = own_node
    job = Job(tmp_path, server, embeddings, "server")
    bulk, seen = Landing._bulk, []
    starting = threading.Thread(target=server.service.start)

    def killing(self, documents, rows):
        seen.append(len(rows))
        if len(seen) == 2:
            server.service.kill()
            starting.start()
        return bulk(self, documents, rows)

    monkeypatch.setattr(Landing, "_bulk", killing)
    job.run()
    starting.join()
    job.assert_right()


def test_the_flood_stage_of_a_full_disk_stops_the_run_and_the_next_one_goes_on(tmp_path, own_node, embeddings):
    server = own_node
    job = Job(tmp_path, server, embeddings, "client")
    job.write(outage="1 s", **{"sink.bulk-flush.backoff.max-retries": "1"})

    def watermarks(value):
        prefix = "cluster.routing.allocation.disk.watermark."
        levels = {prefix + level: value for level in ("low", "high", "flood_stage")}
        server.ask("PUT", "_cluster/settings", {"transient": levels}, status=200)

    def await_block(*, is_there):
        deadline = time.monotonic() + 60
        block = "index.blocks.read_only_allow_delete"
        while (block in str(server.ask("GET", f"{job.index}/_settings?flat_settings=true"))) != is_there:
            assert time.monotonic() < deadline
            time.sleep(0.2)

    watermarks("9999tb")
    await_block(is_there=True)
    with pytest.raises(TransientError):
        job.run()
    # what cannot be written is not paid for
    assert job.embeddings.counters()["texts"] == 0
    watermarks(None)
    await_block(is_there=False)
    deadline = time.monotonic() + 60
    while "'cluster.blocks.create_index': 'true'" in str(server.ask("GET", "_cluster/settings?flat_settings=true")):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    job.run()
    assert job.embeddings.counters()["texts"] == ROWS
    job.assert_right()
