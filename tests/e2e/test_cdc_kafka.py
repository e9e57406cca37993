"""Flink CDC YAML over a topic with the changes of several tables: into MaxCompute Delta tables and PostgreSQL."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.e2e.cdc_world import block, maxcompute_sink
from tests.fix_kafka import KafkaBroker
from tests.fix_postgres import PostgresServer
from vector_assets.cli import app
from vector_assets.declare import Capture, load_captures, load_file
from vector_assets.declare.cdc_look import Look, look
from vector_assets.engine.core import Counts
from vector_assets.engine.errors import FatalError
from vector_assets.engine.pipeline import Pipeline
from vector_assets.engine.run import Runner
from vector_assets.engine.session import Books, Session

pytestmark = pytest.mark.service


class World:
    """One file over a topic of its own."""

    def __init__(self, folder: Path, kafka: KafkaBroker) -> None:
        self.kafka, self.topic = kafka, kafka.create_topic(2)
        self.file = folder / "shop.yaml"

    def write(self, *blocks: str, **source: str) -> None:
        """The file: a source of the topic, and the other blocks."""
        options = {
            "type": "kafka",
            "properties.bootstrap.servers": self.kafka.bootstrap_servers,
            "topic": self.topic,
            "scan.startup.mode": "earliest-offset",
            **source,
        }
        self.file.write_text("\n".join((block("source", options), *blocks)))

    def send(self, *records: dict[str, Any], keys: list[str] | None = None, partition: int = 0) -> None:
        """Records into one partition."""
        self.kafka.produce(self.topic, [json.dumps(each) for each in records], keys, partition)

    def capture(self) -> Capture:
        """The file as it is now."""
        (found,) = load_captures(self.file)
        return found

    def look(self) -> Look:
        """Look for tables."""
        books = Books.open()
        try:
            return look(self.capture(), books.ledger)
        finally:
            books.close()

    def pipelines(self) -> dict[str, Pipeline]:
        """The pipelines of the known tables by the names of their targets' tables."""
        return {each.sink_table.name: each for each in load_file(self.file)}

    def run(self, *names: str) -> dict[str, Counts]:
        """Land what is new; the counts by table."""
        books, found = Books.open(), dict[str, Counts]()
        try:
            for name, pipeline in self.pipelines().items():
                if not names or name in names:
                    with Session(pipeline, books) as session:
                        counts = [outcome.batch.counts for outcome in Runner(session).catch_up()]
                        found[name] = sum(counts, Counts())
        finally:
            books.close()
        return found


@pytest.fixture
def world(tmp_path: Path, kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch) -> World:
    """A file to be written, and books of the test's own."""
    monkeypatch.setenv("VECTOR_ASSETS_HOME", str(tmp_path / "home"))
    return World(tmp_path, kafka)


class Tables:
    """A database of PostgreSQL of its own."""

    def __init__(self, server: PostgresServer) -> None:
        self._server, self._database = server, server.create_database(vector=False)

    @property
    def sink(self) -> str:
        """The `sink:`."""
        login = {"username": self._server.user, "password": self._server.password}
        return block("sink", {"type": "postgres", "url": self._server.jdbc_url(self._database), **login})

    def sql(self, text: str) -> None:
        """Do something."""
        with self._server.connect(self._database) as connection:
            connection.execute(text)

    def rows(self, text: str) -> list[tuple[object, ...]]:
        """What a query gives."""
        with self._server.connect(self._database) as connection:
            return connection.execute(text).fetchall()


@pytest.fixture
def tables(postgres: PostgresServer) -> Tables:
    """A database to write into."""
    return Tables(postgres)


ORDERS = {"id": "bigint(20)", "who": "varchar(20)", "amount": "decimal(10,2)", "at": "datetime(3)"}


def canal(
    table: str, kind: str, *rows: dict[str, Any], old: list[dict[str, Any]] | None = None,
    types: dict[str, str] | None = None, keys: list[str] | None = None, database: str = "shop",
) -> dict[str, Any]:  # fmt: skip
    """A record of canal, as its documents show one: every value is a text."""
    return {
        "data": list(rows), "database": database, "es": 1589373560000, "id": 9, "isDdl": False,
        "mysqlType": types or ORDERS, "old": old, "pkNames": ["id"] if keys is None else keys, "sql": "",
        "sqlType": dict.fromkeys(types or ORDERS, 12), "table": table, "ts": 1589373560798, "type": kind,
    }  # fmt: skip


def order(number: int, who: str = "ann", amount: str = "1.50", **more: str | None) -> dict[str, str | None]:
    """A row of orders."""
    return {"id": str(number), "who": who, "amount": amount, "at": "2026-02-03 04:05:06.789", **more}


def debezium(
    table: str, op: str, before: dict[str, Any] | None, after: dict[str, Any] | None, **source: str
) -> dict[str, Any]:
    """A record of Debezium without its schema."""
    where = {"db": "shop", "table": table, "ts_ms": 1589373560000, **source}
    return {"before": before, "after": after, "source": where, "op": op, "ts_ms": 1589373560798, "transaction": None}


def test_canal_changes_of_several_tables_become_delta_tables_that_follow(world, maxcompute):
    orders, people = maxcompute.fresh_name("orders"), maxcompute.fresh_name("people")
    types = {"name": "char(10)", "born": "date", "photo": "blob"}
    world.send(
        canal(orders, "INSERT", *(order(n) for n in range(5))),
        canal(people, "INSERT", {"name": "ann", "born": "2000-01-01", "photo": "x"}, types=types, keys=["name"]),
        {**canal(orders, "ALTER"), "data": None, "sql": "ALTER TABLE x", "isDdl": True},
        canal(orders, "UPDATE", order(1, amount="9.25"), old=[{"amount": "1.50"}]),
        canal(orders, "DELETE", order(4)),
    )
    world.write(maxcompute_sink(maxcompute), **{"value.format": "canal-json"})
    found = world.pipelines()
    assert set(found) == {orders, people}
    assert [str(column.type) for column in found[orders].sink_table.columns] == [
        "BIGINT NOT NULL", "STRING", "DECIMAL(10, 2)", "TIMESTAMP(6)",
    ]  # fmt: skip
    assert "column photo (bytes) of table" in " ".join(found[people].reports)
    counts = world.run()
    # of another table, and of DDL: passed over, and no dead letters
    assert (counts[orders].rejected, counts[people].rejected) == (0, 0)
    assert (counts[orders].records, counts[people].records) == (5, 5)
    rows = {(int(row[0]), row[1], float(row[2])) for row in maxcompute.rows(f"SELECT id, who, amount FROM {orders}")}
    assert rows == {(0, "ann", 1.5), (1, "ann", 9.25), (2, "ann", 1.5), (3, "ann", 1.5)}
    assert [str(row[1]) for row in maxcompute.rows(f"SELECT name, born FROM {people}")] == ["2000-01-01"]
    world.send(
        canal(orders, "INSERT", order(7, note="new"), types={**ORDERS, "note": "text"}),
        canal(orders, "INSERT", order(8, amount="123456789.123"), types={**ORDERS, "amount": "decimal(12,3)"}),
    )
    world.run()
    rows = {(int(row[0]), row[1], str(row[2])) for row in maxcompute.rows(f"SELECT id, note, amount FROM {orders}")}
    assert {row for row in rows if row[0] > 3} == {(7, "new", "1.500"), (8, None, "123456789.123")}
    assert world.run()[orders].written == 0


def test_debezium_changes_go_by_a_route_into_postgres_and_new_members_become_columns(world, tables):
    name = "orders"
    tables.sql(f"CREATE TABLE {name} (id bigint PRIMARY KEY, who text, price bigint, shard text)")
    world.send(
        debezium("orders_1", "c", None, {"id": 1, "who": "ann", "price": 5}),
        debezium("orders_2", "r", None, {"id": 2, "who": "bob", "price": 7}),
        debezium("people", "c", None, {"name": "ann"}),
        keys=['{"id": 1}', '{"schema": {}, "payload": {"id": 2}}', '{"name": "ann"}'],
    )
    world.write(
        tables.sink,
        "route:", r"  - source-table: shop.orders_\.*", f"    sink-table: {name}",
        "transform:", r"  - source-table: shop.orders_\.*",
        r"    projection: \*, __table_name__ AS shard",
        tables=r"shop.orders_\.*",
    )  # fmt: skip
    (pipeline,) = world.pipelines().values()
    assert pipeline.sink_table.primary_key == ("id",)
    assert world.run()[name].filtered == 1
    world.send(
        debezium(
            "orders_1", "u", {"id": 1, "who": "ann", "price": 5}, {"id": 1, "who": "ann", "price": 6, "vip": True}
        ),
        debezium("orders_2", "d", {"id": 2, "who": "bob", "price": 7}, None),
        debezium("orders_2", "c", None, {"id": 3, "who": None, "price": 8, "vip": None}),
        debezium("orders_2", "c", None, {"id": 4, "who": "eve", "price": 1.5}),
        {"hello": "world"},
        partition=1,
    )
    counts = world.run()[name]
    assert counts.rejected == 2
    assert tables.rows(f"SELECT id, who, price, shard, vip FROM {name} ORDER BY 1") == [
        (1, "ann", 6, "orders_1", True), (3, None, 8, "orders_2", None),
    ]  # fmt: skip


def test_types_of_debezium_are_those_of_its_schema(world, tables):
    name = "typed"
    tables.sql(f"CREATE TABLE {name} (id int PRIMARY KEY, f real, ok boolean, at bigint)")
    fields = [
        {"type": "int32", "field": "id"}, {"type": "float", "field": "f"}, {"type": "boolean", "field": "ok"},
        {"type": "int64", "name": "io.debezium.time.Timestamp", "field": "at"},
        {"type": "bytes", "name": "org.apache.kafka.connect.data.Decimal", "field": "lost"},
    ]  # fmt: skip
    row = {"id": 1, "f": 0.5, "ok": True, "at": 1589373560000, "lost": "AQ=="}

    def wrapped(row: dict[str, Any], *more: dict[str, str]) -> dict[str, Any]:
        struct = [{"type": "struct", "fields": [*fields, *more], "field": name} for name in ("before", "after")]
        return {"schema": {"type": "struct", "fields": struct}, "payload": debezium(name, "c", None, row)}

    world.send(wrapped(row), keys=['{"id": 1}'])
    world.write(tables.sink, **{"debezium-json.schema-include": "true"})
    (pipeline,) = world.pipelines().values()
    assert [str(column.type) for column in pipeline.sink_table.columns] == [
        "INT NOT NULL",
        "FLOAT",
        "BOOLEAN",
        "BIGINT",
    ]
    assert "column lost (bytes)" in " ".join(pipeline.reports)
    world.send(wrapped({**row, "id": 2, "more": 3}, {"type": "int16", "field": "more"}))
    assert world.run()[name].written == 2
    assert tables.rows(f"SELECT id, at, more FROM {name} ORDER BY 1") == [
        (1, 1589373560000, None), (2, 1589373560000, 3),
    ]  # fmt: skip


def test_new_columns_stop_or_are_left_out_where_the_file_says_so(world, tables):
    name = "fixed"
    tables.sql(f"CREATE TABLE {name} (id bigint PRIMARY KEY, v bigint)")
    world.send(debezium(name, "c", None, {"id": 1, "v": 1}), keys=['{"id": 1}'])
    sink = tables.sink
    world.write(sink, "pipeline:", "  schema.change.behavior: exception")
    world.run()
    world.send(debezium(name, "c", None, {"id": 2, "v": 2, "w": 3}))
    with pytest.raises(FatalError, match=rf"offset 1: shop.{name}: column w BIGINT is new.*exception"):
        world.run()
    world.write(sink, **{"schema.inference.strategy": "static"})
    assert world.run()[name].written == 1
    assert tables.rows(f"SELECT * FROM {name} ORDER BY 1") == [(1, 1), (2, 2)]


def test_a_table_that_comes_later_is_found_and_read_from_its_first_record(world, tables):
    first, second = "first", "second"
    for name in (first, second):
        tables.sql(f"CREATE TABLE {name} (id bigint PRIMARY KEY)")
    world.send(debezium(first, "c", None, {"id": 1}), keys=['{"id": 1}'])
    world.write(tables.sink)
    assert world.run().keys() == {first}
    world.send(debezium(second, "c", None, {"id": 5}), keys=['{"id": 5}'], partition=1)
    found = world.look()
    assert ([table.name for table in found.new], found.gone) == ([f"shop.{second}"], ())
    assert world.run()[second].written == 1
    assert tables.rows(f"SELECT id FROM {second}") == [(5,)]


def test_a_table_for_a_target_that_is_filled_waits_until_it_is_joined(world, tables, monkeypatch):
    monkeypatch.setenv("VECTOR_ASSETS_PIPELINES", str(world.file.parent))
    tables.sql("CREATE TABLE merged (id bigint PRIMARY KEY, v bigint)")
    world.send(debezium("m_1", "c", None, {"id": 1, "v": 1}), keys=['{"id": 1}'])
    world.write(tables.sink, "route:", r"  - source-table: shop.m_\.*", "    sink-table: merged")
    assert world.run()["merged"].written == 1
    world.send(debezium("m_2", "c", None, {"id": 2, "v": 2}), keys=['{"id": 2}'], partition=1)
    assert world.run()["merged"].filtered == 1
    found = command("capture", str(world.file), "--json")
    assert {row["table"]: row["state"] for row in found["captures"][0]["tables"]} == {
        "shop.m_1": "read", "shop.m_2": "waits",
    }  # fmt: skip
    assert command("capture", str(world.file), "--join", "shop.m_2", "--json")["captures"][0]["read_anew"]
    assert command("preview", "shop_merged", "--from", "earliest", "--json")["counts"]["rejected"] == 0
    assert world.run()["merged"].written == 2
    assert tables.rows("SELECT * FROM merged ORDER BY 1") == [(1, 1), (2, 2)]


def command(*words: str) -> Any:
    """What a command says in JSON."""
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)
