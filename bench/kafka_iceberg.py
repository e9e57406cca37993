"""`vector-assets bench kafka-iceberg`: Kafka JSON records of about 226 bytes into an Iceberg table, everything on.

The limits are measured in the same run: a bare confluent-kafka consume of the topic (the best of three), and a bare
Parquet write of the same rows. `--beside flink` runs the same job by Flink SQL too, into a table of its own.
"""

import argparse
import json
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import confluent_kafka
import confluent_kafka.admin
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from bench import flink_cluster
from bench.kafka_adbpg import PeakMemory, _consume_only, drain
from vector_assets.declare import flink_sql
from vector_assets.engine import env
from vector_assets.engine.archive import Archive
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.session import Books, Session
from vector_assets.local import services

COLUMNS = (
    "order_id BIGINT, user_id BIGINT, status STRING, amount DOUBLE, quantity INT, ts TIMESTAMP(3), item STRING,"
    " note STRING"
)
SCRIPT = """
SET 'pipeline.name' = 'bench_orders';
SET 'vector-assets.memory' = '{memory}';
SET 'vector-assets.batch.max-rows' = '{batch}';
SET 'vector-assets.batch.target' = '60 s';
CREATE TABLE orders ({columns}) WITH (
  'connector' = 'iceberg', 'uri' = 'sqlite:///{folder}/catalog.db', 'warehouse' = 'file://{folder}/warehouse',
  'catalog-database' = 'bench', 'catalog-table' = 'orders'{options});
CREATE TABLE records ({columns}) WITH (
  'connector' = 'kafka', 'properties.bootstrap.servers' = '{brokers}', 'topic' = '{topic}', 'format' = 'json',
  'scan.startup.mode' = 'earliest-offset');
INSERT INTO orders SELECT * FROM records;
"""
FLINK = """
SET 'pipeline.name' = 'bench_orders';
CREATE CATALOG lake WITH ('type' = 'iceberg', 'catalog-type' = 'hadoop', 'warehouse' = 'file://{folder}');
CREATE DATABASE IF NOT EXISTS lake.bench;
CREATE TABLE lake.bench.orders ({columns}) WITH (
  'format-version' = '2', 'write.parquet.compression-codec' = 'zstd', 'write.parquet.compression-level' = '1');
CREATE TABLE records ({columns}) WITH (
  'connector' = 'kafka', 'properties.bootstrap.servers' = '{brokers}', 'topic' = '{topic}', 'format' = 'json',
  'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset');
INSERT INTO lake.bench.orders SELECT * FROM records;
"""
"""The same job for Flink, until the end of the topic."""
CONSUMED = 3
"""How often the topic is consumed barely, before all else: by the third time a broker's rate is steady."""
_FINGERPRINT = """
SELECT count(*), sum(hash(order_id, user_id, status, amount, quantity, ts::TIMESTAMP, item, note)::HUGEINT) FROM rows
"""


@dataclass(frozen=True, slots=True)
class Beside:
    """What Flink runs, and how the rows are read that it wrote in a folder."""

    script: str
    rows: Callable[[Path], pa.RecordBatchReader]


def main(argv: list[str]) -> int:
    """Run the benchmark; its figures go to standard output."""
    arguments = _arguments(argv)
    services.up(["kafka"])
    brokers = env.secret("kafka_bootstrap_servers")
    topic = _topic(brokers, arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        script = SCRIPT.format(
            columns=COLUMNS, folder=folder, brokers=brokers, topic=topic, memory=arguments.memory,
            batch=arguments.batch, options=f", 'partition' = '{arguments.partition}'" if arguments.partition else "",
        )  # fmt: skip
        figures = _measure(script, Beside(FLINK, _flinks_rows), arguments, brokers, topic, folder)
    sys.stdout.write(json.dumps(figures, indent=None if arguments.json else 2) + "\n")
    return 0


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="vector-assets bench kafka-iceberg", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--batch", type=int, default=150_000, help="most records of a batch")
    parser.add_argument("--memory", default="512 MB", help="vector-assets.memory")
    parser.add_argument("--partition", default="", help="the table's partitions, such as 'day(ts)'")
    parser.add_argument("--native", choices=("auto", "on", "off"), default="auto", help="VECTOR_ASSETS_NATIVE")
    flink_cluster.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args(argv)
    if arguments.beside and arguments.partition:
        parser.error("--beside flink: Flink SQL makes no tables with partition transforms; leave --partition out")
    return arguments


def _topic(brokers: str, arguments: argparse.Namespace) -> str:
    """A topic with the records, made once per size and kept; lz4."""
    name = f"bench_w226_{arguments.rows}_{arguments.partitions}"
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": brokers})
    if name in admin.list_topics(timeout=10).topics:
        return name
    new = confluent_kafka.admin.NewTopic(
        name, num_partitions=arguments.partitions, replication_factor=1, config={"retention.ms": "-1"}
    )
    for future in admin.create_topics([new]).values():
        future.result()
    settings = {"compression.type": "lz4", "linger.ms": 50, "queue.buffering.max.messages": 10**6}
    producer = confluent_kafka.Producer({"bootstrap.servers": brokers, **settings})
    chance = random.Random(7)
    for number in range(arguments.rows):
        while True:
            try:
                producer.produce(name, _record(number, chance), partition=number % arguments.partitions)
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush()
    return name


def _record(number: int, chance: random.Random) -> str:
    note = f"{chance.getrandbits(256):064x}"
    return (
        f'{{"order_id":{number},"user_id":{chance.randrange(10**6)},"status":"{("paid", "sent", "back")[number % 3]}",'
        f'"amount":{chance.random() * 1000:.2f},"quantity":{number % 9 + 1},'
        f'"ts":"2026-03-{number % 28 + 1:02d} 12:{number % 60:02d}:00.{number % 1000:03d}",'
        f'"item":"item number {number % 5000:05d} of the shop","note":"{note}"}}'
    )


def _measure(
    script: str, beside: Beside, arguments: argparse.Namespace, brokers: str, topic: str, folder: Path
) -> dict[str, Any]:
    # before ours, as Flink's first turn is before its fastest: a broker whose code is not compiled yet and a topic that
    # has just been written are slower for the first readers; in a process of its own, whose memory is not ours
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        consumed = max(pool.submit(_consume_only, brokers, topic, arguments).result() for _ in range(CONSUMED))
    (pipeline,) = flink_sql.compile_script(script, "bench.sql")
    books = Books(Ledger(folder / "ledger.db"), Archive(folder / "archive"))
    with (
        env.overridden(VECTOR_ASSETS_NATIVE=arguments.native),
        PeakMemory() as peak,
        Session(pipeline, books) as session,
    ):
        # the import of pyiceberg or pypaimon and the table are not what is measured
        session.target()
        figures = drain(session, arguments.rows)
        figures["peak_rss_mb"] = peak.mb
        figures["limit_parquet_rows_per_s"] = _write_only(session, folder)
        expected = _fingerprint(session.sink.relation()) if arguments.beside else (0, 0)
    books.close()
    figures["limit_consume_rows_per_s"] = consumed
    smaller = min(figures["limit_consume_rows_per_s"], figures["limit_parquet_rows_per_s"])
    figures["cpu_s_per_million"] = round(figures["cpu_s"] / arguments.rows * 1_000_000, 2)
    figures["ratio_to_limit"] = round(figures["rows_per_s"] / smaller, 3)
    if arguments.beside:
        figures |= _flink(beside, arguments, brokers, topic, expected, figures["rows_per_s"])
    return {"rows": arguments.rows, "partitions": arguments.partitions, "native": arguments.native, **figures}


def _write_only(session: Session, folder: Path) -> int:
    """Rows/s of a bare Parquet write of the rows that landed (a million of them at most), with the same compression."""
    parts, rows = [], 0
    for batch in session.sink.scan():
        parts.append(batch)
        rows += batch.num_rows
        if rows >= 1_000_000:
            break
    table = pa.Table.from_batches(parts)
    began = time.monotonic()
    pq.write_table(table, folder / "limit.parquet", compression="zstd", compression_level=1)
    return round(rows / (time.monotonic() - began))


def _flink(
    beside: Beside, arguments: argparse.Namespace, brokers: str, topic: str, expected: tuple[int, int], ours: float
) -> dict[str, object]:
    """Flink's figures; each turn fills a table of its own, and one that ends without all rows does not count."""
    jobs: list[flink_cluster.Job] = []
    short = 0
    with flink_cluster.FlinkCluster(flink_cluster.say) as cluster:
        while len(jobs) < arguments.turns:
            folder = cluster.folder / f"warehouse_{len(jobs) + short}"
            job = cluster.run(beside.script.format(folder=folder, columns=COLUMNS, brokers=brokers, topic=topic))
            found = _fingerprint(beside.rows(folder))
            shutil.rmtree(folder)
            if found[0] < expected[0] and short < arguments.turns:
                short += 1
                flink_cluster.say(f"flink ended with {found[0]:,} of {expected[0]:,} rows; this turn does not count")
                continue
            flink_cluster.must_agree(expected, found)
            jobs.append(job)
    return flink_cluster.figures(jobs, arguments.rows, ours) | {"flink_short_turns": short}


def _flinks_rows(folder: Path) -> pa.RecordBatchReader:
    # not at the top: the Paimon benchmark, which shares this module, would carry it in its memory
    from pyiceberg.table import StaticTable

    return StaticTable.from_metadata(f"file://{folder}/bench/orders").scan().to_arrow_batch_reader()


def _fingerprint(rows: pa.RecordBatchReader) -> tuple[int, int]:
    """The number of rows and the sum of their hashes, whatever their order."""
    with duckdb.connect() as connection:
        # it would stand in the JSON on standard output
        connection.execute("SET enable_progress_bar = false")
        connection.register("rows", rows)
        ((count, hashes),) = connection.execute(_FINGERPRINT).fetchall()
        return count, hashes
