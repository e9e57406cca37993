"""`vector-assets bench kafka-adbpg`: Kafka CSV records into a PostgreSQL table with a primary key, everything on.

The limits are measured in the same run: a bare confluent-kafka consume of the same topic, and a bare binary COPY of the
same rows into the same keyed table. `--beside flink` runs the same job by Flink SQL too, into a table of its own.
"""

import argparse
import json
import os
import random
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import confluent_kafka
import confluent_kafka.admin
import psycopg

from bench import flink_cluster
from vector_assets.declare import flink_sql
from vector_assets.engine import env
from vector_assets.engine.archive import Archive
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.run import Runner
from vector_assets.engine.session import Books, Session
from vector_assets.local import services

SCRIPT = """
SET 'pipeline.name' = 'bench_cars';
{settings}
CREATE TABLE cars (id INT, market_time TIMESTAMP, color VARCHAR(10), price INT, feature VARCHAR) WITH (
  'connector' = 'adbpg', 'url' = 'jdbc:postgresql://{address}/{database}', 'tablename' = 'car_info',
  'username' = '{user}', 'password' = '{password}', 'targetschema' = 'vector_test', 'maxretrytimes' = '2',
  'batchsize' = '3000', 'batchwritetimeoutms' = '10000', 'connectionmaxactive' = '20', 'conflictmode' = '{conflict}',
  'exceptionmode' = 'ignore', 'casesensitive' = '0', 'writemode' = '1', 'retrywaittime' = '200');
CREATE TABLE records (id INT, market_time TIMESTAMP, color VARCHAR(10), price INT, feature STRING) WITH (
  'connector' = 'kafka', 'properties.bootstrap.servers' = '{brokers}', 'topic' = '{topic}', 'format' = 'csv',
  'csv.field-delimiter' = '\\t', 'scan.startup.mode' = 'earliest-offset');
INSERT INTO cars SELECT * FROM records;
"""
FLINK = """
SET 'pipeline.name' = 'bench_cars';
CREATE TABLE cars (id INT, market_time TIMESTAMP, color VARCHAR(10), price INT, feature VARCHAR{key}) WITH (
  'connector' = 'jdbc', 'table-name' = 'vector_test.{table}', 'username' = '{user}', 'password' = '{password}',
  'url' = 'jdbc:postgresql://{address}/{database}?reWriteBatchedInserts=true&stringtype=unspecified',
  'sink.buffer-flush.max-rows' = '5000');
CREATE TABLE records (id INT, market_time TIMESTAMP, color VARCHAR(10), price INT, feature STRING) WITH (
  'connector' = 'kafka', 'properties.bootstrap.servers' = '{brokers}', 'topic' = '{topic}', 'format' = 'csv',
  'csv.field-delimiter' = '\\t', 'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset');
INSERT INTO cars SELECT * FROM records;
"""
"""The same job for Flink, until the end of the topic. Its writer has no arrays: the server parses the text instead."""
FLINK_KEY = ", PRIMARY KEY (id) NOT ENFORCED"
"""Makes Flink write ON CONFLICT DO UPDATE; without it plain INSERTs, which are faster and fail where a key is there."""
TABLE = """
CREATE SCHEMA IF NOT EXISTS vector_test;
CREATE TABLE IF NOT EXISTS vector_test.car_info (id bigint PRIMARY KEY, market_time timestamp, color varchar(10),
  price int, feature float4[]);
"""


def main(argv: list[str]) -> int:
    """Run the benchmark; its figures go to standard output."""
    arguments = _arguments(argv)
    services.up(["kafka", "postgres"])
    brokers, address = env.secret("kafka_bootstrap_servers"), env.secret("postgres_address")
    user, password = env.secret("postgres_user"), env.secret("postgres_password")
    topic = make_topic(brokers, arguments)
    database = f"bench_{os.getpid()}"
    server = f"postgresql://{user}:{password}@{address}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {database}")
        try:
            with psycopg.connect(f"{server}/{database}", autocommit=True) as target:
                target.execute("CREATE EXTENSION IF NOT EXISTS vector")
                target.execute(TABLE)
                if arguments.hnsw:
                    target.execute(
                        "CREATE INDEX ON vector_test.car_info USING hnsw ((feature::vector(10)) vector_l2_ops)"
                    )
            places = {
                "address": address, "user": user, "password": password, "database": database, "brokers": brokers,
                "topic": topic,
            }  # fmt: skip
            script = SCRIPT.format(conflict=arguments.conflictmode, settings=arguments.settings, **places)
            figures = _measure(script, arguments, brokers, topic, f"{server}/{database}")
            if arguments.beside:
                figures |= _flink(places, arguments, f"{server}/{database}", figures["rows_per_s"])
        finally:
            admin.execute(f"DROP DATABASE {database} WITH (FORCE)")
    sys.stdout.write(json.dumps(figures, indent=None if arguments.json else 2) + "\n")
    return 0


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="vector-assets bench kafka-adbpg", description=__doc__)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--conflictmode", default="ignore", help="ignore, update, upsert")
    parser.add_argument("--all-conflict", action="store_true", help="land the same keys a second time and time that")
    parser.add_argument("--hnsw", action="store_true", help="with a vector index on the table before the load")
    parser.add_argument("--settings", default="", help="SET statements for the script")
    flink_cluster.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    return parser.parse_args(argv)


def make_topic(brokers: str, arguments: argparse.Namespace) -> str:
    """A topic with the records, made once per size and kept; 129 bytes a record on average, lz4."""
    name = f"bench_w1_{arguments.rows}_{arguments.partitions}"
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": brokers})
    if name in admin.list_topics(timeout=10).topics:
        return name
    new = confluent_kafka.admin.NewTopic(name, num_partitions=arguments.partitions, replication_factor=1)
    for future in admin.create_topics([new]).values():
        future.result()
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": brokers,
            "compression.type": "lz4",
            "linger.ms": 50,
            "queue.buffering.max.messages": 10**6,
        }
    )
    chance = random.Random(7)
    for number in range(arguments.rows):
        feature = ",".join(f"{chance.random():.6f}" for _ in range(10))
        value = f"{number}\t2026-03-{number % 28 + 1:02d} 12:00:00\tcolor{number % 7}\t{number % 90000}\t{{{feature}}}"
        while True:
            try:
                producer.produce(name, value, partition=number % arguments.partitions)
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush()
    return name


def _measure(script: str, arguments: argparse.Namespace, brokers: str, topic: str, dsn: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        runs = 2 if arguments.all_conflict else 1
        for number in range(runs):
            if number:
                script = script.replace("bench_cars", "bench_cars_again")
            (pipeline,) = flink_sql.compile_script(script, "bench.sql")
            books = Books(Ledger(Path(folder) / "ledger.db"), Archive(Path(folder) / "archive"))
            with PeakMemory() as peak, Session(pipeline, books) as session:
                figures = drain(session, arguments.rows)
            books.close()
        figures["peak_rss_mb"] = peak.mb
        figures["limit_consume_rows_per_s"] = _consume_only(brokers, topic, arguments)
        figures["limit_copy_rows_per_s"] = _copy_only(dsn)
    smaller = min(figures["limit_consume_rows_per_s"], figures["limit_copy_rows_per_s"])
    figures["ratio_to_limit"] = round(figures["rows_per_s"] / smaller, 3)
    return {"rows": arguments.rows, "partitions": arguments.partitions, **figures}


def drain(session: Session, expected: int) -> dict[str, float]:
    """Wall time of the whole call; rows_per_s from the plan of the first batch to the last one done."""
    began, cpu = time.monotonic(), time.process_time()
    slowest, committing, records, batches = 0.0, 0.0, 0, 0
    for outcome in Runner(session).catch_up():
        records += outcome.batch.counts.records
        batches += 1
        slowest = max(slowest, outcome.batch.commit_seconds or 0.0)
        committing += outcome.batch.commit_seconds or 0.0
    wall, cpu = time.monotonic() - began, time.process_time() - cpu
    done = session.ledger.batches(session.pipeline.name)
    span_ms = max(b.done_ms or 0 for b in done) - min(b.planned_ms for b in done)
    _, counts = session.ledger.totals(session.pipeline.name, session.pipeline.target)
    if records != expected or counts.rejected or counts.refused:
        raise SystemExit(f"bench: {records} of {expected} records came, {counts}")
    return {
        "rows_per_s": round(records / span_ms * 1000),
        "wall_s": round(wall, 2),
        "cpu_s": round(cpu, 2),
        "batches": batches,
        "slowest_commit_s": round(slowest, 2),
        "commit_share": round(committing / wall, 2),
        "written": counts.written,
        "conflicts": counts.conflicts,
    }


def _consume_only(brokers: str, topic: str, arguments: argparse.Namespace) -> int:
    """Rows/s of a bare consume loop over the same records."""
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": brokers, "group.id": "bench", "enable.auto.commit": False, "fetch.queue.backoff.ms": 10}
    )
    consumer.assign([confluent_kafka.TopicPartition(topic, p, 0) for p in range(arguments.partitions)])
    seen, began = 0, 0.0
    while seen < arguments.rows:
        messages = consumer.consume(10_000, timeout=1)
        began = began or time.monotonic()
        seen += len([message.value() for message in messages])
    seconds = time.monotonic() - began
    consumer.close()
    return round(seen / seconds)


def _copy_only(dsn: str) -> int:
    """Rows/s of a bare binary COPY of the rows that landed into an empty table of the same shape and key."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE vector_test.copied (LIKE vector_test.car_info INCLUDING ALL)")
        with connection.cursor().copy("COPY vector_test.car_info TO STDOUT (FORMAT binary)") as copy:
            data = b"".join(copy)
        began = time.monotonic()
        cursor = connection.cursor()
        with cursor.copy("COPY vector_test.copied FROM STDIN (FORMAT binary)") as copy:
            for start in range(0, len(data), 1 << 20):
                copy.write(data[start : start + (1 << 20)])
        return round(cursor.rowcount / (time.monotonic() - began))


def _flink(
    places: Mapping[str, str], arguments: argparse.Namespace, dsn: str, ours: float
) -> dict[str, object]:  # fmt: skip
    """Flink's figures; each turn fills a table like ours, one that has all the rows already with --all-conflict."""
    jobs = []
    with psycopg.connect(dsn, autocommit=True) as connection, flink_cluster.FlinkCluster(flink_cluster.say) as cluster:
        expected = _fingerprint(connection, "car_info")
        for turn in range(1, arguments.turns + 1):
            table = f"car_flink_{turn}"
            connection.execute(f"CREATE TABLE vector_test.{table} (LIKE vector_test.car_info INCLUDING ALL)")
            if arguments.all_conflict:
                connection.execute(f"INSERT INTO vector_test.{table} SELECT * FROM vector_test.car_info")
            # what was written before is not Flink's to flush
            connection.execute("CHECKPOINT")
            key = FLINK_KEY if arguments.all_conflict else ""
            jobs.append(cluster.run(FLINK.format(table=table, key=key, **places)))
            flink_cluster.must_agree(expected, _fingerprint(connection, table))
            connection.execute(f"DROP TABLE vector_test.{table}")
    return flink_cluster.figures(jobs, arguments.rows, ours)


def _fingerprint(connection: psycopg.Connection, table: str) -> object:
    """The number of rows and the sum of their hashes, whatever their order."""
    query = f"SELECT count(*), sum(hashtextextended(t::text, 0)::numeric) FROM vector_test.{table} t"
    return connection.execute(query).fetchone()


class PeakMemory:
    """Highest resident memory of this process while it is entered, in MB."""

    def __enter__(self) -> "PeakMemory":
        self._stop = threading.Event()
        self.mb = 0
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        page = resource.getpagesize()
        while not self._stop.wait(0.02):
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * page
            self.mb = max(self.mb, round(resident / 1024**2))

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
