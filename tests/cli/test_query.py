"""`query`: DuckDB and Spark over the tables of both formats."""

import csv
import io
import json

import pytest

from tests.cli import lake_world
from tests.declare.seeds import seed
from tests.fix_services import unavailable
from vector_assets.cli.query_spark import IDLE, catalogs, parse
from vector_assets.engine.env import secret_variable
from vector_assets.engine.errors import ConfigError
from vector_assets.local.spark import missing
from vector_assets.sinks.iceberg import IcebergSink
from vector_assets.sinks.paimon import PaimonSink


@pytest.fixture
def lake(kafka, cli, home, monkeypatch):
    """Both jobs have run."""
    topic = kafka.create_topic(partitions=3)
    lake_world.produce(kafka, topic)
    monkeypatch.setenv(secret_variable("shop_kafka"), kafka.bootstrap_servers)
    lake_world.write(cli, home, topic, jobs=True)
    return home


@pytest.fixture
def topic(lake):
    """The topic that both jobs read."""
    return (lake / "pipelines" / "shop.yaml").read_text().rpartition("topic: ")[2].strip()


def test_duckdb_reads_the_tables_of_both_formats(cli, lake):
    for job in ("orders", "archived"):
        assert cli("run", job).code == 0
    sums = "SELECT os, count(*) AS n, sum(total) AS total, max(id) AS last FROM shop.orders GROUP BY os"
    assert cli("query", sums, "--json").json["rows"] == [{"os": "linux", "n": 30, "total": 652.5, "last": 29}]
    joined = "SELECT o.id, a.device FROM shop.orders o JOIN shop.archived a USING (id) WHERE id IN (3, 4) ORDER BY id"
    rows = list(csv.reader(io.StringIO(cli("query", joined, "--format", "csv").out)))
    assert rows == [["id", "device"], ["3", '{"os":"linux","brand":"b3"}'], ["4", '{"os":"linux","brand":"b4"}']]
    twice = "SELECT count(*) AS n FROM shop.orders a JOIN shop.orders b USING (id)"
    assert cli("query", twice, "--format", "json").json["rows"] == [{"n": 30}]
    shown = cli("query", "FROM shop.orders").out
    assert "linux" in shown
    assert "30 rows" in shown
    tables = cli("query", "SHOW ALL TABLES", "--json").json["rows"]
    assert {(row["schema"], row["name"]) for row in tables} >= {("shop", "orders"), ("shop", "archived")}
    assert {row["schema"] for row in tables} == {"shop"}
    listed = cli("query", "show tables;", "--json").json["rows"]
    assert listed == [{"name": "shop.archived"}, {"name": "shop.orders"}]
    (lake / "q.sql").write_text("SELECT min(log_time_day) = max(log_time_day) AS one FROM shop.archived")
    assert cli("query", "q.sql", "--json").json["rows"] == [{"one": True}]


@pytest.mark.parametrize("job", ["orders", "archived"], ids=["iceberg", "paimon"])
def test_only_columns_and_files_that_a_query_needs_are_read(cli, lake, kafka, topic, monkeypatch, job):
    assert cli("run", job).code == 0
    kafka.produce(topic, [json.dumps({"id": 1000, "total": 2.5, "device": {"os": "bsd"}})], partition=1)
    assert cli("run", job).code == 0
    asked: list[tuple[list[str] | None, int]] = []
    sink = IcebergSink if job == "orders" else PaimonSink
    whole = sink.relation

    def relation(self, columns=None, where=None):
        found = whole(self, columns, where)
        if columns is not None:
            rows = found.read_all()
            asked.append((rows.column_names, rows.num_rows))
            found = rows.to_reader()
        return found

    monkeypatch.setattr(sink, "relation", relation)
    # a column whose name is part of that of another one is read besides
    names = ["id"] if job == "orders" else ["id", "log_time", "log_time_day"]
    condition = "id > 500" if job == "orders" else "log_time_day < '2000'"
    wanted = 1 if job == "orders" else 0
    found = cli("query", f"SELECT count(*) AS n FROM shop.{job} WHERE {condition}", "--json").json["rows"]
    assert found == [{"n": wanted}]
    assert asked == [(names, wanted)]
    asked.clear()
    cli("query", f"SELECT max(id) AS n FROM shop.{job}")
    assert asked == [(["id"], 31)]


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT * FROM shop.ordres", "lake tables declared: shop.archived, shop.orders"),
        ("SELECT nothing FROM range(3)", "query: Binder Error"),
        ("SELEC 1", "query: Parser Error"),
        ("SELECT * FROM shop.orders", "table shop.orders is not there: the first run of orders makes it"),
        ("nothing.sql", "nothing.sql: cannot be read"),
    ],
    ids=["unknown table", "unknown column", "no SQL", "a table that is not there yet", "no file"],
)
def test_a_query_that_cannot_be_answered_says_why(cli, lake, sql, said):
    done = cli("query", sql)
    assert done.code == 1
    assert said in done.err


def script_of_the_seed() -> str:
    text = seed(4).split("The following is an example:")[1].split("(Optional) On the Applications tab")[0]
    return text.rpartition("\n")[0]


def test_the_seed_s_script_is_understood_and_its_cluster_settings_are_reported():
    script = parse(script_of_the_seed())
    assert script.settings == {"spark.app.name": "Spark SQL Test"}
    assert script.statements == ["show tables from lakehouse20220413156_adbTest"]
    assert len(script.reports) == 4
    assert all(report.split()[1] in IDLE for report in script.reports)


def test_conf_keys_that_nobody_knows_are_reported():
    script = parse("conf spark.sql.shuffle.partitions=4;\nconf spark.app.nam=x; -- c;\n/* ; */ SELECT ';', \"-- no\";")
    assert script.settings == {"spark.sql.shuffle.partitions": "4"}
    assert script.statements == ["SELECT ';', \"-- no\""]
    (report,) = script.reports
    assert "conf spark.app.nam is unknown and was not set (did you mean 'spark.app.name'?)" in report


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("conf a;\nSELECT 1;", "want conf key=value; found 'conf a'"),
        ("SELECT 1;\nconf spark.sql.x=1;", "stands below a statement"),
        ("-- nothing\n", "holds no statement"),
    ],
)
def test_a_wrong_script_is_refused(text, said):
    with pytest.raises(ConfigError, match=said):
        parse(text)


def test_a_catalog_that_no_run_has_made_yet_is_left_out_and_named(cli, lake):
    from vector_assets.cli.declared import sound

    _, names, problems = catalogs(sound()[0])
    assert names == ["paimon"]
    assert problems == ["catalog lake: is not there: the first run of orders makes it"]
    assert cli("run", "orders").code == 0
    _, names, problems = catalogs(sound()[0])
    assert (sorted(names), problems) == (["lake", "paimon"], [])


def test_spark_answers_a_script_over_both_formats(cli, lake):
    if (reason := missing()) is not None:
        unavailable(f"spark: {reason}")
    for job in ("orders", "archived"):
        assert cli("run", job).code == 0
    (lake / "script.sql").write_text(
        "conf spark.driver.resourceSpec=medium;\nconf spark.nothing=1;\nshow tables from shop;\n"
        "select id, os from shop.orders where id > 27 order by id;\n"
        "select count(*) as n from paimon.shop.archived where id >= 10;\n"
    )
    done = cli("query", "--engine", "spark", "script.sql", "--format", "csv")
    assert done.code == 0, done.err
    assert "conf spark.driver.resourceSpec has no effect" in done.err
    assert "conf spark.nothing is unknown" in done.err
    assert done.out.splitlines()[3:5] == ["28,linux", "29,linux"]
    assert done.out.splitlines()[-2:] == ["n", "20"]
    assert "orders" in done.out.splitlines()[1]
    (lake / "script.sql").write_text("select count(*) as n from shop.orders;\nselect * from nothing;\nselect 1;\n")
    done = cli("query", "--engine", "spark", "script.sql", "--format", "csv")
    assert done.code == 1
    assert done.out.split() == ["n", "30"]
    assert "statement 2 (select * from nothing): " in done.err
