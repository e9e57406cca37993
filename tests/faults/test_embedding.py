"""EMBED from a script to real targets: rows and vectors, crashes, the estimate, and what unchanged text costs."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.faults.apart import Apart
from vector_assets.declare import flink_sql
from vector_assets.engine import env
from vector_assets.engine.errors import FatalError, TransientError
from vector_assets.engine.run import Outcome, Runner
from vector_assets.engine.session import Books, Session

pytestmark = pytest.mark.service
ROWS = 60
IN_FLIGHT = 2 * 8
SCRIPT = """
SET 'pipeline.name' = '{name}';
SET 'vector-assets.batch.max-rows' = '20';
SET 'vector-assets.lease.ttl' = '2 s';
SET 'vector-assets.embedding.url' = '{url}';
SET 'vector-assets.embedding.api-key' = '${{secret_values.embeddings_api_key}}';
SET 'vector-assets.embedding.model' = 'universal-sentence-encoder';
SET 'vector-assets.embedding.dimensions' = '16';
SET 'vector-assets.embedding.batch-size' = '8';
SET 'vector-assets.embedding.concurrency' = '2';
SET 'vector-assets.embedding.retry-wait' = '10 ms';
SET 'vector-assets.embedding.price' = '2';
{settings}
CREATE TABLE numbers (n BIGINT) WITH ('connector' = 'datagen', 'fields.n.kind' = 'sequence', 'fields.n.start' = '0',
  'fields.n.end' = '{last}', 'rows-per-second' = '100000');
CREATE TABLE articles (id BIGINT, body VARCHAR(60), my_vector ARRAY<FLOAT>, PRIMARY KEY (id) NOT ENFORCED)
  WITH ({sink});
INSERT INTO articles SELECT n, CONCAT('text number ', CAST(n AS STRING)),
  EMBED(CONCAT('text number ', CAST(n AS STRING))) AS my_vector FROM numbers WHERE MOD(n, 10) <> 9;
"""


def ids() -> list[int]:
    return [number for number in range(ROWS) if number % 10 != 9]


class Job:
    """The script above in a folder of its own."""

    def __init__(self, folder: Path, embeddings: Any, postgres: Any) -> None:
        self.folder, self.embeddings, self.postgres = folder, embeddings, postgres
        self.database = postgres.create_database()
        with postgres.connect(self.database, autocommit=True) as connection:
            connection.execute("CREATE TABLE articles (id bigint PRIMARY KEY, body varchar(60), my_vector vector(16))")
        (folder / "pipelines").mkdir()
        self.environment = {
            "VECTOR_ASSETS_HOME": str(folder / "home"),
            "VECTOR_ASSETS_PIPELINES": str(folder / "pipelines"),
            env.secret_variable("test_password"): postgres.password,
            env.secret_variable("embeddings_api_key"): embeddings.api_key,
        }
        self.write()

    def write(self, name: str = "articles", sink: str | None = None, settings: str = "") -> None:
        sink = sink or (
            f"'connector' = 'adbpg', 'url' = '{self.postgres.jdbc_url(self.database)}', 'tablename' = 'articles',"
            f" 'username' = '{self.postgres.user}', 'password' = '${{secret_values.test_password}}',"
            " 'conflictmode' = 'upsert'"
        )
        text = SCRIPT.format(name=name, url=self.embeddings.url, settings=settings, sink=sink, last=ROWS - 1)
        (self.folder / "pipelines" / f"{name}.sql").write_text(text)

    @contextmanager
    def open(self, name: str = "articles") -> Iterator[Session]:
        with env.overridden(**self.environment):
            (pipeline,) = flink_sql.load_file(self.folder / "pipelines" / f"{name}.sql")
            books = Books.open()
        with closing(books), Session(pipeline, books) as session:
            yield session

    def run(self, name: str = "articles") -> list[Outcome]:
        with self.open(name) as session:
            return list(Runner(session).catch_up())

    def start(self, command: str, fail_at: str = "") -> Apart:
        environment = {**os.environ, **self.environment, "VECTOR_ASSETS_FAIL_AT": fail_at}
        return Apart([*command.split(), "articles"], environment, self.folder)

    def json(self, command: str) -> Any:
        output, _ = self.start(f"{command} --json").communicate(timeout=90)
        return json.loads(output[output.index("{") :])

    def rows(self) -> dict[int, tuple[str, list[float]]]:
        with self.postgres.connect(self.database) as connection:
            found = connection.execute("SELECT id, body, my_vector::real[] FROM articles").fetchall()
        return {number: (body, vector) for number, body, vector in found}

    def assert_right(self, *, without: tuple[int, ...] = ()) -> None:
        """The rows of the source, each with the vector of its own text; another run asks and writes nothing."""
        rows = self.rows()
        assert sorted(rows) == [number for number in ids() if number not in without]
        requests = self.embeddings.counters()["requests"]
        assert self.run() == []
        assert self.embeddings.counters()["requests"] == requests
        wanted = self.embeddings.vectors(
            [rows[n][0] for n in sorted(rows)], "universal-sentence-encoder", dimensions=16
        )
        found = np.array([rows[number][1] for number in sorted(rows)], np.float32)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


@pytest.fixture
def job(tmp_path, embeddings, postgres) -> Job:
    return Job(tmp_path, embeddings, postgres)


def test_a_script_with_embed_fills_a_vector_column_and_counts_what_it_pays(job) -> None:
    outcomes = job.run()
    counts = [outcome.batch.counts for outcome in outcomes]
    counters = job.embeddings.counters()
    assert sum(each.embedded for each in counts) == counters["texts"] == len(ids())
    assert sum(each.tokens for each in counts) == counters["tokens"]
    assert sum(each.cost_micros for each in counts) == 2 * counters["tokens"]
    job.assert_right()
    (paid,) = job.json("embed paid")["paid"]
    assert (paid["texts"], paid["tokens"], paid["model"]) == (54, counters["tokens"], "universal-sentence-encoder")


def test_the_estimate_asks_nobody_and_is_near(job) -> None:
    before = job.json("embed estimate")
    assert (before["records"], before["texts"], before["to_send"], before["known"]) == (ROWS, 54, 54, 0)
    assert job.json("embed estimate --records 20")["whole_cost"] == pytest.approx(before["cost"], rel=0.1)
    assert job.embeddings.counters()["requests"] == 0
    tokens = sum(outcome.batch.counts.tokens for outcome in job.run())
    assert before["tokens"] == pytest.approx(tokens, rel=0.5)
    assert job.json("embed estimate")["records"] == 0


@pytest.mark.parametrize("step", ["sealed", "staged", "committed"])
def test_kill_9_between_two_states_pays_nothing_twice_but_what_was_in_flight(job, step) -> None:
    process = job.start("run", f"{step}:2")
    output, _ = process.communicate(timeout=90)
    assert process.returncode == -signal.SIGKILL, output
    job.run()
    assert job.embeddings.counters()["repeated"] <= IN_FLIGHT
    job.assert_right()


def test_kill_9_amid_requests_pays_nothing_twice_but_what_was_in_flight(job) -> None:
    job.embeddings.limit(latency_s=0.15)
    process = job.start("run")
    deadline = time.monotonic() + 60
    while job.embeddings.counters()["answered"] < 3:
        assert time.monotonic() < deadline
        assert process.poll() is None
    process.kill()
    process.communicate(timeout=30)
    job.embeddings.limit(latency_s=0)
    job.run()
    counters = job.embeddings.counters()
    assert counters["repeated"] <= IN_FLIGHT
    assert counters["texts"] <= len(ids()) + IN_FLIGHT
    job.assert_right()


def test_a_poison_text_is_one_dead_letter_with_the_provider_s_reason(job) -> None:
    job.embeddings.fault(text="number 33$", status=400, message="content is not allowed", times=None)
    job.run()
    job.assert_right(without=(33,))
    with job.open() as session:
        (letter,) = session.ledger.dead_letters.listed()
    assert (letter.stage, letter.offset) == ("transform", 33)
    assert letter.error.endswith("HTTP 400: content is not allowed")
    assert job.embeddings.counters()["repeated"] <= len(ids())  # those that assert_right asked for itself


def test_max_cost_stops_the_run_before_anything_is_sent_and_the_next_goes_on(job) -> None:
    job.write(settings="SET 'vector-assets.embedding.max-cost' = '0.0000001';")
    with pytest.raises(FatalError, match="'max-cost' is 1e-07: nothing of this batch was sent"):
        job.run()
    assert (job.rows(), job.embeddings.counters()["requests"]) == ({}, 0)
    job.write()
    job.run()
    job.assert_right()


def test_a_stop_ends_a_run_that_waits_for_its_service(job) -> None:
    job.embeddings.fault(status=429, retry_after_s=8, times=None)
    with job.open() as session:
        runner = Runner(session)
        outcomes = runner.catch_up()
        from threading import Timer

        timer = Timer(0.5, runner.stop.set)
        timer.start()
        began = time.monotonic()
        with pytest.raises(TransientError):
            next(outcomes)
        assert time.monotonic() - began < 6
    job.embeddings.reset()
    job.run()
    job.assert_right()


def test_the_same_texts_in_another_system_cost_nothing(job, milvus) -> None:
    job.run()
    collection = milvus.create(
        {"id": ("INT64", {}), "body": ("VARCHAR", {"max_length": 60}), "my_vector": ("FLOAT_VECTOR", {"dim": 16})}
    )
    sink = f"'connector' = 'milvus', 'endpoint' = '{milvus.host}', 'port' = '{milvus.port}',"
    job.write("vectors", f"{sink} 'collectionName' = '{collection}'")
    requests = job.embeddings.counters()["requests"]
    counts = [outcome.batch.counts for outcome in job.run("vectors")]
    assert job.embeddings.counters()["requests"] == requests
    assert (sum(each.reused for each in counts), sum(each.embedded for each in counts)) == (54, 0)
    wanted = job.rows()
    found = milvus.rows(collection)
    assert {row["id"]: row["body"] for row in found} == {number: body for number, (body, _) in wanted.items()}
    for row in found:
        np.testing.assert_allclose(row["my_vector"], wanted[row["id"]][1], atol=1e-6)
