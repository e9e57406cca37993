"""`vector-assets bench milvus-latency`: how long a record takes from produce to searchable, at a steady low rate.

Measured for the run loop (as `vector-assets run --follow`, here in this process) as it is by default, and once for each
`sink.buffer-flush.interval` given with batches that wait as long as it allows (`vector-assets.linger` set to the same).
The goal is the interval and a second more. Searchable means that a vector search finds the row.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import confluent_kafka
import confluent_kafka.admin

from bench.kafka_milvus import SCRIPT, _create
from vector_assets.declare import flink_sql
from vector_assets.engine import env
from vector_assets.engine.archive import Archive
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.run import Runner
from vector_assets.engine.session import Books, Session
from vector_assets.local import services

DIMENSION = 8
FLUSH_ROWS = 200


def main(argv: list[str]) -> int:
    """Run the benchmark; its figures go to standard output."""
    parser = argparse.ArgumentParser(prog="vector-assets bench milvus-latency", description=__doc__)
    parser.add_argument("--rate", type=float, default=10, help="records a second")
    parser.add_argument("--seconds", type=float, default=30, help="how long each is measured")
    parser.add_argument("--intervals", default="3 s,1 s", help="values of sink.buffer-flush.interval")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args(argv)
    services.up(["kafka", "milvus"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pymilvus import MilvusClient
    client = MilvusClient(uri=f"http://{env.secret('milvus_endpoint')}:{env.secret('milvus_port')}")
    figures: dict[str, object] = {"rate": arguments.rate}
    waits: list[str | None] = [None, *(interval.strip() for interval in arguments.intervals.split(","))]
    for number, wait in enumerate(waits):
        name = f"bench_latency_{os.getpid()}_{number}"
        with tempfile.TemporaryDirectory() as folder, _following(client, name, wait, Path(folder)):
            figures[wait or "default"] = _latencies(client, name, arguments)
    client.close()
    sys.stdout.write(json.dumps(figures, indent=None if arguments.json else 2) + "\n")
    return 0


@contextmanager
def _following(client: Any, name: str, wait: str | None, folder: Path) -> Iterator[None]:
    """A topic and a collection of this name, and a pipeline that follows the one into the other."""
    brokers = env.secret("kafka_bootstrap_servers")
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": brokers})
    for future in admin.create_topics([confluent_kafka.admin.NewTopic(name, 1, 1)]).values():
        future.result()
    _create(client, name, DIMENSION)
    script = SCRIPT.format(
        endpoint=env.secret("milvus_endpoint"), port=env.secret("milvus_port"), collection=name, brokers=brokers,
        topic=name, settings=f"SET 'vector-assets.linger' = '{wait}';" if wait else "",
        flush=f"{FLUSH_ROWS}', 'sink.buffer-flush.interval' = '{wait}" if wait else FLUSH_ROWS,
    )  # fmt: skip
    (pipeline,) = flink_sql.compile_script(script, "bench.sql")
    books = Books(Ledger(folder / "ledger.db"), Archive(folder / "archive"))
    stop = threading.Event()

    def work() -> None:
        with Session(pipeline, books) as session:
            for _ in Runner(session, stop).follow():
                pass

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        books.close()
        client.drop_collection(name)
        for future in admin.delete_topics([name]).values():
            future.result()


def _latencies(client: Any, name: str, arguments: argparse.Namespace) -> dict[str, object]:
    """Percentiles in ms, of records produced after the first one was seen."""
    producer = confluent_kafka.Producer({"bootstrap.servers": env.secret("kafka_bootstrap_servers"), "linger.ms": 0})
    sent: dict[int, float] = {}
    seen: dict[int, float] = {}
    _send(producer, name, 0, sent)
    _await(client, name, seen, 1, 120)
    began = time.monotonic()
    while time.monotonic() - began < arguments.seconds:
        _send(producer, name, len(sent), sent)
        until = began + (len(sent) - 1) / arguments.rate
        while time.monotonic() < until:
            _look(client, name, seen)
    _await(client, name, seen, len(sent), 60)
    times = sorted((seen[n] - sent[n]) * 1000 for n in sent if n)
    return {
        "records": len(times),
        "p50_ms": round(statistics.median(times)),
        "p95_ms": round(times[int(len(times) * 0.95) - 1]),
        "max_ms": round(times[-1]),
    }


def _vector(number: int) -> list[float]:
    return [float(number)] + [0.0] * (DIMENSION - 1)


def _send(producer: confluent_kafka.Producer, topic: str, number: int, sent: dict[int, float]) -> None:
    sent[number] = time.monotonic()
    producer.produce(topic, f"{number}\tname {number}\t{number % 90}\t{json.dumps(_vector(number))}")
    producer.flush()


def _look(client: Any, name: str, seen: dict[int, float]) -> None:
    """Search where the records that are still missing will be."""
    found = client.search(
        name, [_vector(len(seen) + FLUSH_ROWS // 4)], limit=FLUSH_ROWS, filter=f"id >= {len(seen)}",
        output_fields=["id"], consistency_level="Strong",
    )  # fmt: skip
    now = time.monotonic()
    for hit in found[0]:
        seen.setdefault(hit["id"], now)
    time.sleep(0.01)


def _await(client: Any, name: str, seen: dict[int, float], count: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while len(seen) < count:
        if time.monotonic() > deadline:
            raise SystemExit(f"bench: {len(seen)} of {count} records are searchable after {seconds} s")
        _look(client, name, seen)
