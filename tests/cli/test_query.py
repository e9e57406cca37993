"""`query`: DuckDB and Spark over the tables of both formats."""

import csv
import io

import pytest

from tests.cli import lake_world
from tests.declare.seeds import seed
from tests.fix_services import unavailable
from vector_assets.cli.query_spark import IDLE, parse
from vector_assets.engine.env import secret_variable
from vector_assets.engine.errors import ConfigError
from vector_assets.local.spark import missing


@pytest.fixture
def lake(kafka, cli, home, monkeypatch):
    """Both jobs have run."""
    topic = kafka.create_topic(partitions=3)
    lake_world.produce(kafka, topic)
    monkeypatch.setenv(secret_variable("shop_kafka"), kafka.bootstrap_servers)
    lake_world.write(cli, home, topic, jobs=True)
    return home


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
    (lake / "q.sql").write_text("SELECT min(log_time_day) = max(log_time_day) AS one FROM shop.archived")
    assert cli("query", "q.sql", "--json").json["rows"] == [{"one": True}]


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT * FROM shop.ordres", "lake tables declared: shop.archived, shop.orders"),
        ("SELECT nothing FROM range(3)", "query: Binder Error"),
        ("SELEC 1", "query: Parser Error"),
        ("SELECT * FROM shop.orders", "shop.orders"),
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
