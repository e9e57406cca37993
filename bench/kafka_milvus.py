"""`vector-assets bench kafka-milvus`: Kafka CSV records into a Milvus collection by upsert, everything on.

The limit is measured in the same run, after it: pymilvus' own client upserting the same rows in the same batches into
an empty collection of the same shape; it is handed rows that were made before the clock starts.
"""

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

import confluent_kafka
import confluent_kafka.admin
import numpy as np

from bench.kafka_adbpg import PeakMemory, drain
from vector_assets.declare import flink_sql
from vector_assets.engine import env
from vector_assets.engine.archive import Archive
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.session import Books, Session
from vector_assets.local import services

SCRIPT = """
SET 'pipeline.name' = 'bench_people';
{settings}
CREATE TABLE people (id BIGINT NOT NULL, name STRING, age INT, vec STRING, PRIMARY KEY (id) NOT ENFORCED) WITH (
  'connector' = 'milvus', 'endpoint' = '{endpoint}', 'port' = '{port}', 'collectionName' = '{collection}',
  'sink.buffer-flush.max-rows' = '{flush}');
CREATE TABLE records (id BIGINT, name STRING, age INT, vec STRING) WITH (
  'connector' = 'kafka', 'properties.bootstrap.servers' = '{brokers}', 'topic' = '{topic}', 'format' = 'csv',
  'csv.field-delimiter' = '\\t', 'scan.startup.mode' = 'earliest-offset');
INSERT INTO people SELECT * FROM records;
"""


def main(argv: list[str]) -> int:
    """Run the benchmark; its figures go to standard output."""
    arguments = _arguments(argv)
    services.up(["kafka", "milvus"])
    brokers, topic = env.secret("kafka_bootstrap_servers"), _topic(env.secret("kafka_bootstrap_servers"), arguments)
    endpoint, port = env.secret("milvus_endpoint"), env.secret("milvus_port")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pymilvus import MilvusClient
    client = MilvusClient(uri=f"http://{endpoint}:{port}")
    collection = f"bench_{os.getpid()}"
    script = SCRIPT.format(
        endpoint=endpoint, port=port, collection=collection, flush=arguments.max_rows, brokers=brokers, topic=topic,
        settings=arguments.settings,
    )  # fmt: skip
    try:
        _create(client, collection, arguments.dim)
        figures = _measure(script, arguments.rows)
        figures["rows_in_target"] = _count(client, collection)
        client.drop_collection(collection)
        _create(client, collection, arguments.dim)
        figures |= _pymilvus_only(client, collection, arguments)
    finally:
        client.drop_collection(collection)
    figures["ratio_to_limit"] = round(figures["rows_per_s"] / figures["limit_pymilvus_rows_per_s"], 3)
    figures = {"rows": arguments.rows, "dim": arguments.dim, "max_rows": arguments.max_rows, **figures}
    sys.stdout.write(json.dumps(figures, indent=None if arguments.json else 2) + "\n")
    return 0


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="vector-assets bench kafka-milvus", description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--max-rows", type=int, default=200, help="sink.buffer-flush.max-rows, and pymilvus' batches")
    parser.add_argument("--settings", default="", help="SET statements for the script")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    return parser.parse_args(argv)


def _rows(arguments: argparse.Namespace) -> np.ndarray:
    return np.random.default_rng(7).random((arguments.rows, arguments.dim), np.float32).round(4)


def _topic(brokers: str, arguments: argparse.Namespace) -> str:
    """A topic with the records, made once per size and kept; lz4."""
    name = f"bench_people_{arguments.rows}_{arguments.dim}_{arguments.partitions}"
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": brokers})
    if name in admin.list_topics(timeout=10).topics:
        return name
    new = confluent_kafka.admin.NewTopic(name, num_partitions=arguments.partitions, replication_factor=1)
    for future in admin.create_topics([new]).values():
        future.result()
    settings = {"bootstrap.servers": brokers, "compression.type": "lz4", "linger.ms": 50}
    producer = confluent_kafka.Producer({**settings, "queue.buffering.max.messages": 10**5})
    for number, vector in enumerate(_rows(arguments)):
        text = ",".join(f"{value:.4f}" for value in vector)
        record = f"{number}\tname {number}\t{number % 90}\t[{text}]"
        while True:
            try:
                producer.produce(name, record, partition=number % arguments.partitions)
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush()
    return name


def _create(client, name: str, dimension: int) -> None:
    from pymilvus import DataType, MilvusClient

    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("name", DataType.VARCHAR, max_length=100)
    schema.add_field("age", DataType.INT32)
    schema.add_field("vec", DataType.FLOAT_VECTOR, dim=dimension)
    index = client.prepare_index_params()
    index.add_index("vec", index_type="FLAT", metric_type="L2")
    client.create_collection(name, schema=schema, index_params=index, num_shards=1)


def _count(client, name: str) -> int:
    return client.query(name, "", output_fields=["count(*)"], consistency_level="Strong")[0]["count(*)"]


def _measure(script: str, rows: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        (pipeline,) = flink_sql.compile_script(script, "bench.sql")
        books = Books(Ledger(Path(folder) / "ledger.db"), Archive(Path(folder) / "archive"))
        with PeakMemory() as peak, Session(pipeline, books) as session:
            figures = drain(session, rows)
        books.close()
    return {**figures, "peak_rss_mb": peak.mb}


def _pymilvus_only(client, name: str, arguments: argparse.Namespace) -> dict[str, object]:
    """Rows/s of pymilvus' upsert with the same rows in the same batches; rows are made outside of the clock."""
    vectors = _rows(arguments).tolist()
    rows = [
        {"id": number, "name": f"name {number}", "age": number % 90, "vec": vectors[number]}
        for number in range(arguments.rows)
    ]
    began, cpu = time.monotonic(), time.process_time()
    for start in range(0, len(rows), arguments.max_rows):
        client.upsert(name, rows[start : start + arguments.max_rows])
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    found = _count(client, name)
    if found != arguments.rows:
        raise SystemExit(f"bench: {found} of {arguments.rows} rows are in the collection")
    return {"limit_pymilvus_rows_per_s": round(len(rows) / seconds), "limit_pymilvus_cpu_s": round(cpu, 2)}
