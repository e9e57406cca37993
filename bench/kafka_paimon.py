"""`vector-assets bench kafka-paimon`: Kafka JSON records of about 226 bytes into a Paimon table, archive and tokens on.

The limits are measured in the same run: a bare confluent-kafka consume of the topic (the best of three), and a bare
Parquet write of the same rows. `--beside flink` runs the same job by Flink SQL too, into a table of its own.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import pyarrow as pa

from bench import flink_cluster
from bench.kafka_iceberg import COLUMNS, Beside, _measure, _topic
from vector_assets.engine import env
from vector_assets.local import services

SCRIPT = """
SET 'pipeline.name' = 'bench_orders';
SET 'vector-assets.memory' = '{memory}';
SET 'vector-assets.batch.max-rows' = '{batch}';
SET 'vector-assets.batch.target' = '60 s';
CREATE TABLE orders ({columns}{key}) WITH (
  'connector' = 'paimon', 'warehouse' = '{folder}/warehouse', 'catalog-database' = 'bench',
  'catalog-table' = 'orders'{options});
CREATE TABLE records ({columns}) WITH (
  'connector' = 'kafka', 'properties.bootstrap.servers' = '{brokers}', 'topic' = '{topic}', 'format' = 'json',
  'scan.startup.mode' = 'earliest-offset');
INSERT INTO orders SELECT * FROM records;
"""
FLINK = """
SET 'pipeline.name' = 'bench_orders';
CREATE CATALOG lake WITH ('type' = 'paimon', 'warehouse' = 'file://{folder}');
CREATE DATABASE IF NOT EXISTS lake.bench;
CREATE TABLE lake.bench.orders ({columns}%(key)s) WITH ('bucket' = '%(bucket)s');
CREATE TABLE records ({columns}) WITH (
  'connector' = 'kafka', 'properties.bootstrap.servers' = '{brokers}', 'topic' = '{topic}', 'format' = 'json',
  'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset');
INSERT INTO lake.bench.orders SELECT * FROM records;
"""
"""The same job for Flink, until the end of the topic."""
KEY = ", PRIMARY KEY (order_id) NOT ENFORCED"


def main(argv: list[str]) -> int:
    """Run the benchmark; its figures go to standard output."""
    arguments = _arguments(argv)
    services.up(["kafka"])
    brokers = env.secret("kafka_bootstrap_servers")
    topic = _topic(brokers, arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "warehouse" / "bench.db").mkdir(parents=True)
        script = SCRIPT.format(
            columns=COLUMNS, folder=folder, brokers=brokers, topic=topic, memory=arguments.memory,
            batch=arguments.batch, key=KEY if arguments.keyed else "",
            options=", 'bucket' = '2'" if arguments.keyed else "",
        )  # fmt: skip
        flink = FLINK % {"key": KEY if arguments.keyed else "", "bucket": 2 if arguments.keyed else -1}
        figures = _measure(script, Beside(flink, _flinks_rows), arguments, brokers, topic, folder)
    sys.stdout.write(json.dumps(figures, indent=None if arguments.json else 2) + "\n")
    return 0


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="vector-assets bench kafka-paimon", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--batch", type=int, default=150_000, help="most records of a batch")
    parser.add_argument("--memory", default="512 MB", help="vector-assets.memory")
    parser.add_argument("--keyed", action="store_true", help="a table with a primary key and two buckets")
    parser.add_argument("--native", choices=("auto", "on", "off"), default="auto", help="VECTOR_ASSETS_NATIVE")
    flink_cluster.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    return parser.parse_args(argv)


def _flinks_rows(folder: Path) -> pa.RecordBatchReader:
    from pypaimon import CatalogFactory

    builder = CatalogFactory.create({"warehouse": str(folder)}).get_table("bench.orders").new_read_builder()
    return builder.new_read().to_arrow_batch_reader(builder.new_scan().plan().splits())
