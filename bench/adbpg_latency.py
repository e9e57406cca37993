"""`vector-assets bench adbpg-latency`: how long a record takes from produce to visible, at a steady low rate.

Measured for the run loop alone (as `vector-assets run --follow`, here in this process) and for the Dagster sensor (a
daemon of its own that starts a run whenever records came).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import confluent_kafka
import confluent_kafka.admin
import psycopg

from bench.kafka_adbpg import SCRIPT, TABLE
from vector_assets.declare import flink_sql
from vector_assets.engine import env
from vector_assets.engine.run import Runner
from vector_assets.engine.session import Books, Session
from vector_assets.local import services

REPOSITORY = Path(__file__).parent.parent


def main(argv: list[str]) -> int:
    """Run the benchmark; its figures go to standard output."""
    parser = argparse.ArgumentParser(prog="vector-assets bench adbpg-latency", description=__doc__)
    parser.add_argument("--rate", type=float, default=10, help="records a second")
    parser.add_argument("--seconds", type=float, default=30, help="how long each is measured")
    parser.add_argument("--only", choices=["loop", "sensor"], help="measure one of the two")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args(argv)
    services.up(["kafka", "postgres"])
    figures: dict[str, object] = {"rate": arguments.rate}
    for name, background in (("loop", _loop), ("sensor", _sensor)):
        if arguments.only in (None, name):
            with tempfile.TemporaryDirectory() as folder, _world(name, Path(folder)) as world, background(world):
                figures[name] = _latencies(world, arguments)
    sys.stdout.write(json.dumps(figures, indent=None if arguments.json else 2) + "\n")
    return 0


class _World:
    """A topic, a database and a script between them."""

    def __init__(self, name: str, folder: Path) -> None:
        self.folder, self.topic = folder, f"bench_latency_{name}_{os.getpid()}"
        self.database = f"bench_latency_{name}_{os.getpid()}"
        self.brokers, self.address = env.secret("kafka_bootstrap_servers"), env.secret("postgres_address")
        self.user, self.password = env.secret("postgres_user"), env.secret("postgres_password")
        self.dsn = f"postgresql://{self.user}:{self.password}@{self.address}"
        (folder / "pipelines").mkdir()
        self.script = folder / "pipelines" / "bench_cars.sql"
        self.script.write_text(
            SCRIPT.format(
                address=self.address, user=self.user, password=self.password, database=self.database,
                brokers=self.brokers, topic=self.topic, conflict="ignore",
                settings="SET 'vector-assets.sensor.interval' = '1 s';",
            )
        )  # fmt: skip


@contextmanager
def _world(name: str, folder: Path) -> Iterator[_World]:
    world = _World(name, folder)
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": world.brokers})
    for future in admin.create_topics([confluent_kafka.admin.NewTopic(world.topic, 1, 1)]).values():
        future.result()
    with psycopg.connect(f"{world.dsn}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {world.database}")
    with psycopg.connect(f"{world.dsn}/{world.database}", autocommit=True) as connection:
        connection.execute(TABLE)
    try:
        yield world
    finally:
        with psycopg.connect(f"{world.dsn}/postgres", autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {world.database} WITH (FORCE)")
        for future in admin.delete_topics([world.topic]).values():
            future.result()


@contextmanager
def _loop(world: _World) -> Iterator[None]:
    stop = threading.Event()
    (pipeline,) = flink_sql.load_file(world.script)
    with env.overridden(VECTOR_ASSETS_HOME=str(world.folder / "home")):
        books = Books.open()

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


@contextmanager
def _sensor(world: _World) -> Iterator[None]:
    home = world.folder / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text((REPOSITORY / "dagster_home" / "dagster.yaml").read_text())
    environment = env.child_environment(
        DAGSTER_HOME=str(home),
        VECTOR_ASSETS_HOME=str(world.folder / "home"),
        VECTOR_ASSETS_PIPELINES=str(world.folder / "pipelines"),
    )
    log = (world.folder / "daemon.log").open("w")
    daemon = subprocess.Popen(
        [sys.executable, "-m", "dagster._daemon", "run", "-m", "vector_assets.definitions"],
        env=environment, cwd=world.folder, stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield
    finally:
        daemon.terminate()
        daemon.wait(60)
        log.close()


def _latencies(world: _World, arguments: argparse.Namespace) -> dict[str, float]:
    """Percentiles in ms, of records produced after the first one was seen."""
    producer = confluent_kafka.Producer({"bootstrap.servers": world.brokers, "linger.ms": 0})
    sent: dict[int, float] = {}
    seen: dict[int, float] = {}
    with psycopg.connect(f"{world.dsn}/{world.database}", autocommit=True) as connection:
        _send(producer, world.topic, 0, sent)
        _await(connection, seen, 1, 120)
        warm = len(sent)
        began = time.monotonic()
        while time.monotonic() - began < arguments.seconds:
            _send(producer, world.topic, len(sent), sent)
            until = began + (len(sent) - warm) / arguments.rate
            while time.monotonic() < until:
                _look(connection, seen)
        _await(connection, seen, len(sent), 60)
    times = sorted((seen[n] - sent[n]) * 1000 for n in sent if n >= warm)
    return {
        "records": len(times),
        "p50_ms": round(statistics.median(times)),
        "p95_ms": round(times[int(len(times) * 0.95) - 1]),
        "max_ms": round(times[-1]),
    }


def _send(producer: confluent_kafka.Producer, topic: str, number: int, sent: dict[int, float]) -> None:
    sent[number] = time.monotonic()
    producer.produce(topic, f"{number}\t2026-03-01 12:00:00\tred\t{number}\t{{1,2,3,4,5,6,7,8,9,10}}")
    producer.flush()


def _look(connection: psycopg.Connection, seen: dict[int, float]) -> None:
    rows = connection.execute("SELECT id FROM vector_test.car_info WHERE id >= %s", (len(seen),)).fetchall()
    now = time.monotonic()
    for (number,) in rows:
        seen.setdefault(number, now)
    time.sleep(0.005)


def _await(connection: psycopg.Connection, seen: dict[int, float], count: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while len(seen) < count:
        if time.monotonic() > deadline:
            raise SystemExit(f"bench: {len(seen)} of {count} records are visible after {seconds} s")
        _look(connection, seen)
