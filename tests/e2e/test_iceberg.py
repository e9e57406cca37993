"""Kafka JSON into an Iceberg table by a Flink SQL script: by command, and by Dagster."""

import json

import dagster as dg
import duckdb
import pytest
from pyiceberg.catalog.sql import SqlCatalog

from vector_assets.declare import flink_sql
from vector_assets.defs.factory import definitions
from vector_assets.engine.hours import Calendar
from vector_assets.engine.session import Books, Session

pytestmark = pytest.mark.service

SCRIPT = """
CREATE TABLE records (order_id BIGINT, price DECIMAL(10, 2), ts TIMESTAMP(3),
  buyer ROW<name STRING, tags ARRAY<STRING>>) WITH ('connector' = 'kafka', 'topic' = '{topic}',
  'properties.bootstrap.servers' = '{brokers}', 'format' = 'json',
  'scan.startup.mode' = 'earliest-offset');
CREATE TABLE orders (order_id BIGINT, price DECIMAL(10, 2), ts TIMESTAMP(6),
  buyer ROW<name STRING, tags ARRAY<STRING>>) WITH (
  'connector' = 'iceberg',
  'catalog-name' = 'hive_prod',
  'catalog-impl' = 'org.apache.iceberg.jdbc.JdbcCatalog',
  'uri' = 'jdbc:sqlite:{folder}/catalog.db',
  'warehouse' = 'file://{folder}/warehouse',
  'catalog-database' = 'shop',
  'catalog-table' = 'orders',
  'partition' = 'day(ts)',
  'format-version' = '2'
);
INSERT INTO orders SELECT * FROM records;
"""


def record(number: int) -> bytes:
    buyer = {"name": f"n{number}", "tags": ["a", "b"]}
    return json.dumps(
        {"order_id": number, "price": f"{number}.25", "ts": f"2026-03-0{number % 3 + 1} 12:00:00.5", "buyer": buyer}
    ).encode()


def test_records_land_by_command_and_by_dagster_and_are_queried(tmp_path, kafka, monkeypatch):
    from typer.testing import CliRunner

    from vector_assets.cli import app

    topic = kafka.create_topic(2)
    kafka.produce(topic, [*map(record, range(30)), b"{cut"])
    (tmp_path / "pipelines").mkdir()
    file = tmp_path / "pipelines" / "orders.sql"
    file.write_text(SCRIPT.format(topic=topic, brokers=kafka.bootstrap_servers, folder=tmp_path))
    monkeypatch.setenv("VECTOR_ASSETS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("VECTOR_ASSETS_PIPELINES", str(tmp_path / "pipelines"))
    done = CliRunner().invoke(app, ["run", "orders", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["counts"]["written"] == 30
    assert json.loads(done.stdout)["counts"]["rejected"] == 1

    kafka.produce(topic, [record(n) for n in range(30, 40)], partition=1)
    (pipeline,) = flink_sql.load_file(file)
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        repository = definitions([pipeline]).get_repository_def()
        job = repository.get_implicit_job_def_for_assets([dg.AssetKey("orders")])
        result = job.execute_in_process(
            instance=instance, partition_key=Calendar("hourly").now(), asset_selection=[dg.AssetKey("orders")]
        )
        assert result.success
    books = Books.open()
    with Session(pipeline, books) as session:
        orders = session.sink.relation()
        assert duckdb.sql("SELECT count(*), sum(price) FROM orders WHERE buyer.name <> 'n0'").fetchall() == [
            (39, 789.75)
        ]
        del orders
    books.close()
    table = SqlCatalog("hive_prod", uri=f"sqlite:///{tmp_path}/catalog.db").load_table("shop.orders")
    assert table.scan(row_filter="ts >= '2026-03-03T00:00:00'").to_arrow().num_rows == 13
    assert {task.file.partition[0] for task in table.scan().plan_files()} == {20513, 20514, 20515}
