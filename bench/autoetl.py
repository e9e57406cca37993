"""`vector-assets bench autoetl`: a MySQL table to vectors that OpenSearch finds, made by EMBED or by its own model.

Beside it, in the same run, the two things it is made of: bulk requests of documents whose vectors are ready, and the
same texts sent to the embedding service alone, each before and after the run, and the faster counts. So the run itself
is not the one that warms the cluster's JVM up. Then changes at a steady rate: how long until each can be found, and
what rows cost whose text stays as it is.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pymysql
import urllib3

from bench.embed import _texts
from vector_assets.clients.opensearch import connect
from vector_assets.clients.opensearch_setup import Builder
from vector_assets.clients.opensearch_wanted import SetUp
from vector_assets.declare import flink_sql
from vector_assets.engine import env
from vector_assets.engine.run import Runner
from vector_assets.engine.session import Books, Session
from vector_assets.local.embeddings import EmbeddingsService
from vector_assets.local.mysql import MySqlService
from vector_assets.local.opensearch import OpenSearchService

MODEL = "text-embedding-v4"
SCRIPT = """
SET 'pipeline.name' = '{name}';
SET 'vector-assets.partitions' = 'daily';
{settings}
{embedding}
CREATE TABLE lines (id INT NOT NULL, t1 INT, t2 STRING, PRIMARY KEY (id) NOT ENFORCED) WITH (
  'connector' = 'mysql-cdc', 'hostname' = '127.0.0.1', 'port' = '{port}', 'username' = '{user}',
  'password' = '{password}', 'database-name' = 'db', 'table-name' = 'test_table');
CREATE TABLE {name} (id INT NOT NULL, n INT, my_text STRING{column}, PRIMARY KEY (id) NOT ENFORCED) WITH (
  'connector' = 'opensearch-2', 'hosts' = '{url}', 'index' = '{name}');
INSERT INTO {name} SELECT id, t1, t2{embed} FROM lines;
"""
EMBEDDING = """
SET 'vector-assets.embedding.url' = '{url}';
SET 'vector-assets.embedding.api-key' = '{key}';
SET 'vector-assets.embedding.model' = 'text-embedding-v4';
SET 'vector-assets.embedding.dimensions' = '1024';
SET 'vector-assets.embedding.batch-size' = '{batch}';
SET 'vector-assets.embedding.concurrency' = '4';
"""
VECTOR = {"type": "knn_vector", "dimension": 1024, "method": {"engine": "faiss", "name": "hnsw"}}
FIELDS = {"id": {"type": "integer"}, "n": {"type": "integer"}, "my_text": {"type": "text"}, "my_vector": VECTOR}


@dataclass
class _World:
    """Services of this run's own."""

    mysql: MySqlService
    embeddings: EmbeddingsService
    opensearch: OpenSearchService
    arguments: argparse.Namespace

    @cached_property
    def connection(self) -> Any:
        """One, kept: to connect for each change would take more of the machine than the change itself."""
        return pymysql.connect(
            host="127.0.0.1", port=self.mysql.port, user=self.mysql.user, password=self.mysql.password, autocommit=True,
            ssl_disabled=True,
        )  # fmt: skip

    @cached_property
    def pool(self) -> urllib3.PoolManager:
        """Connections to OpenSearch, kept."""
        return urllib3.PoolManager(timeout=60, retries=False)

    def cpu(self) -> dict[str, float]:
        """Seconds of CPU that each process has used so far."""
        found = {"own": time.process_time()}
        for service in (self.embeddings, self.opensearch, self.mysql):
            fields = Path(f"/proc/{service.status().pid}/stat").read_text().rpartition(")")[2].split()
            found[service.name] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return found

    def sql(self, text: str, rows: list[Any] | None = None) -> None:
        """A statement, once or for many rows."""
        with self.connection.cursor() as cursor:
            if rows is None:
                cursor.execute(text)
            else:
                cursor.executemany(text, rows)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """A request to OpenSearch."""
        answer = self.pool.request(method, f"{self.opensearch.url}/{path}", json=body)
        if answer.status >= 400:
            raise SystemExit(f"bench: {method} {path}: {answer.status} {answer.data[:500]!r}")
        return answer.json()

    def requests(self) -> int:
        """How often the model was asked."""
        return int(self.embeddings.ask("GET", "counters")["requests"])

    def create(self, name: str) -> None:
        """An empty index."""
        body = {"settings": {"index": {"knn": True, "number_of_replicas": 0}}, "mappings": {"properties": FIELDS}}
        self.ask("PUT", name, body)

    def script(self, name: str, *, is_client: bool) -> str:
        """The pipeline into an index."""
        embedding = EMBEDDING.format(url=self.embeddings.url, key=self.embeddings.api_key, batch=self.arguments.batch)
        return SCRIPT.format(
            name=name, settings=self.arguments.settings, port=self.mysql.port, user=self.mysql.user,
            password=self.mysql.password,
            url=self.opensearch.url, embedding=embedding if is_client else "",
            column=", my_vector ARRAY<FLOAT>" if is_client else "",
            embed=", EMBED(t2) AS my_vector" if is_client else "",
        )  # fmt: skip

    @contextmanager
    def open(self, name: str, *, is_client: bool) -> Iterator[Session]:
        (pipeline,) = flink_sql.compile_script(self.script(name, is_client=is_client), "bench.sql")
        with closing(Books.open()) as books, Session(pipeline, books) as session:
            yield session


def main(argv: list[str]) -> int:
    """Run the benchmark; its figures go to standard output."""
    parser = argparse.ArgumentParser(prog="vector-assets bench autoetl", description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=64, help="texts of a request to the model")
    parser.add_argument("--settings", default="", help="SET statements for the scripts")
    parser.add_argument("--rate", type=float, default=10, help="changes a second")
    parser.add_argument("--seconds", type=float, default=30, help="how long they go on")
    parser.add_argument("--without-server-side", action="store_true", help="leave out the cluster's own model")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args(argv)
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(env.overridden(VECTOR_ASSETS_HOME=str(home)))
        services = (MySqlService(home / "mysql"), EmbeddingsService(home / "emb"), OpenSearchService(home / "search"))
        for service in services:
            service.start()
            stack.callback(service.erase)
        world = _World(*services, arguments)
        try:
            figures = _figures(world)
        finally:
            world.connection.close()
    sys.stdout.write(json.dumps(figures, indent=None if arguments.json else 2) + "\n")
    return 0


def _figures(world: _World) -> dict[str, object]:
    rows = world.arguments.rows
    texts = _texts(rows, 1)
    world.sql("CREATE DATABASE IF NOT EXISTS db")
    world.sql("CREATE TABLE db.test_table (id INT PRIMARY KEY, t1 INT, t2 TEXT)")
    data = [(number, -1, text) for number, text in enumerate(texts)]
    for at in range(0, rows, 5000):
        world.sql("INSERT INTO db.test_table VALUES (%s, %s, %s)", data[at : at + 5000])
    bulks, alones = [_bulk_of_ready_vectors(world)], [_timed(lambda: _service_alone(world, texts))]
    world.create("client")
    cpu = world.cpu()
    client = _timed(lambda: _run(world, "client", is_client=True))
    cpu = {name: after - cpu[name] for name, after in world.cpu().items()}
    alones.append(_timed(lambda: _service_alone(world, texts)))
    bulks.append(_bulk_of_ready_vectors(world))
    bulk, alone = min(bulks), min(alones)
    calls = world.requests()
    world.sql(f"UPDATE db.test_table SET t1 = -2 WHERE id < {min(rows, 1000)}")
    _run(world, "client", is_client=True)
    unchanged = world.requests() - calls
    latency = _latencies(world)
    figures: dict[str, object] = {
        "rows": rows,
        "client_side_rows_per_s": round(rows / client),
        "client_side_cpu_ms_per_row": {name: round(1000 * seconds / rows, 2) for name, seconds in cpu.items()},
        "limit_bulk_of_ready_vectors_rows_per_s": round(rows / bulk),
        "limit_embedding_service_rows_per_s": round(rows / alone),
        "client_side_to_smaller_limit": round(max(bulk, alone) / client, 3),
        "limits_before_and_after_s": {"bulk": _rounded(bulks), "embedding_service": _rounded(alones)},
        "model_calls_for_unchanged_texts": unchanged,
        **latency,
    }
    if not world.arguments.without_server_side:
        _set_up(world)
        server = _timed(lambda: _run(world, "server", is_client=False))
        figures["server_side_rows_per_s"] = round(rows / server)
    return figures


def _rounded(seconds: list[float]) -> list[float]:
    return [round(each, 2) for each in seconds]


def _timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def _run(world: _World, name: str, *, is_client: bool) -> None:
    """Everything that waits, until it can be found."""
    with world.open(name, is_client=is_client) as session:
        for _ in Runner(session).catch_up():
            pass
    query = {"query": {"exists": {"field": "my_vector"}}}
    found = world.ask("POST", f"{name}/_count", query)["count"]
    if found != world.arguments.rows:
        raise SystemExit(f"bench: {found} of {world.arguments.rows} rows are in {name} with a vector")


def _service_alone(world: _World, texts: list[str]) -> None:
    """The same requests, as many at a time, answers thrown away."""
    size, key = world.arguments.batch, world.embeddings.api_key
    asked = {"model": MODEL, "dimensions": 1024, "encoding_format": "float"}
    bodies = [orjson.dumps({**asked, "input": texts[at : at + size]}) for at in range(0, len(texts), size)]
    headers = {"Authorization": f"Bearer {key}"}
    _post(f"{world.embeddings.url}/embeddings", bodies, headers)


def _bulk_of_ready_vectors(world: _World) -> float:
    """Seconds for documents like the client-side index's in requests of the sink's size, several at a time."""
    world.create("ready")
    vectors = np.random.default_rng(1).normal(size=(world.arguments.rows, 1024)).astype(np.float32)
    vectors[:, 512:] = 0
    lines = []
    for number, text in enumerate(_texts(world.arguments.rows, 1)):
        row = {"id": number, "n": -1, "my_text": text, "my_vector": vectors[number]}
        action = orjson.dumps({"index": {"_id": str(number), "version": number + 1, "version_type": "external"}})
        lines.append(action + b"\n" + orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")
    bodies, part, size = [], [], 0
    for line in lines:
        part.append(line)
        size += len(line)
        if size >= 2 << 20 or len(part) == 1000:
            bodies.append(b"".join(part))
            part, size = [], 0
    bodies += [b"".join(part)] if part else []
    headers = {"Content-Type": "application/x-ndjson"}
    began = time.monotonic()
    _post(f"{world.opensearch.url}/ready/_bulk?filter_path=errors", bodies, headers)
    world.ask("POST", "ready/_refresh")
    seconds = time.monotonic() - began
    world.ask("DELETE", "ready")
    return seconds


def _post(url: str, bodies: list[bytes], headers: dict[str, str]) -> None:
    pool = urllib3.PoolManager(maxsize=4, timeout=120.0)

    def post(body: bytes) -> int:
        return pool.request("POST", url, body=body, headers=headers, retries=False).status

    with ThreadPoolExecutor(4) as threads:
        statuses = set(threads.map(post, bodies))
    if statuses != {200}:
        raise SystemExit(f"bench: {url} answers {statuses}")


def _set_up(world: _World) -> None:
    """The document's set-up, its pipeline with a batch size."""
    address = world.embeddings.url.removeprefix("http://").removesuffix("/v1")
    wanted = SetUp.model_validate(
        {
            "connection": {"hosts": world.opensearch.url},
            "trusted_endpoints": ["^http://127.0.0.1:[0-9]+/.*$"],
            "connector": {
                "name": "bench", "model": MODEL, "endpoint": address, "scheme": "http",
                "api_key": world.embeddings.api_key,
            },
            "model": {"name": "bench"},
            "pipeline": {"name": "bench", "field_map": {"my_text": "my_vector"}, "batch_size": world.arguments.batch},
            "index": {"name": "server", "properties": FIELDS},
        }
    )  # fmt: skip
    with closing(connect(wanted.connection.login, "opensearch")) as client:
        Builder(client, wanted).run()


def _latencies(world: _World) -> dict[str, object]:
    """Milliseconds from an UPDATE to its document being found, texts changing at a steady rate."""
    stop, sent, seen = threading.Event(), {}, {}
    cpu, began_ms = world.cpu(), int(time.time() * 1000)
    count = int(world.arguments.rate * world.arguments.seconds)

    def follow() -> None:
        with world.open("client", is_client=True) as session:
            for _ in Runner(session, stop).follow():
                pass

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        # the first change finds everything open
        for number in range(count + 1):
            sent[number] = time.monotonic()
            text = f"change {number} of a text"
            world.sql("UPDATE db.test_table SET t1 = %s, t2 = %s WHERE id = %s", [(number, text, number % 1000)])
            until = sent[number] + (120 if number == 0 else 1 / world.arguments.rate)
            while time.monotonic() < until and not (number == 0 and 0 in seen):
                _look(world, seen)
        deadline = time.monotonic() + 60
        while len(seen) <= count and time.monotonic() < deadline:
            _look(world, seen)
    finally:
        stop.set()
        thread.join()
    times = sorted((seen[number] - sent[number]) * 1000 for number in range(1, count + 1))
    cpu = {name: after - cpu[name] for name, after in world.cpu().items()}
    return {
        "changes": len(times),
        "change_p50_ms": round(times[len(times) // 2]),
        "change_p95_ms": round(times[int(len(times) * 0.95) - 1]),
        "change_max_ms": round(times[-1]),
        "changes_cpu_s": {name: round(seconds, 2) for name, seconds in cpu.items()},
        "changes_batches": _batches(began_ms),
    }


def _batches(since_ms: int) -> dict[str, float]:
    """How many batches the changes came in, and the middle of their times."""
    with closing(Books.open()) as books:
        found = [each for each in books.ledger.batches("client") if each.planned_ms >= since_ms and each.done_ms]
    whole = sorted(each.done_ms - each.planned_ms for each in found)
    commit = sorted(1000 * (each.commit_seconds or 0) for each in found)
    middle = len(found) // 2
    return {"count": len(found), "planned_to_done_p50_ms": whole[middle], "commit_p50_ms": round(commit[middle])}


def _look(world: _World, seen: dict[int, float]) -> None:
    query = {"bool": {"filter": [{"range": {"n": {"gte": len(seen)}}}, {"exists": {"field": "my_vector"}}]}}
    hits = world.ask("POST", "client/_search", {"query": query, "_source": ["n"], "size": 1000})["hits"]["hits"]
    now = time.monotonic()
    for hit in hits:
        seen.setdefault(hit["_source"]["n"], now)
    # seldom enough to leave the machine to the pipeline
    time.sleep(0.03)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
