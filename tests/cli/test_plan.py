"""`plan` shows what would be and changes nothing."""

import json
import socket
from pathlib import Path

import pytest

from vector_assets.engine import env

CAR_INFO = Path(__file__).parents[2] / "pipelines" / "car_info.sql"
REPORTED = """\
SET 'parallelism.default' = '4';
CREATE TABLE a (id INT, name STRING) WITH (
  'connector' = 'kafka', 'properties.bootstrap.servers' = '127.0.0.1:9', 'topic' = 'a', 'format' = 'csv',
  'scan.startup.mode' = 'earliest-offset');
CREATE TABLE b (id INT, name STRING) WITH (
  'connector' = 'adbpg', 'url' = 'jdbc:postgresql://127.0.0.1:9/db', 'tablename' = 'b', 'username' = 'u',
  'password' = 'sesame');
CREATE TABLE c (number BIGINT, label STRING) WITH (
  'connector' = 'adbpg', 'url' = 'jdbc:postgresql://127.0.0.1:9/db', 'tablename' = 'c', 'username' = 'u',
  'password' = 'sesame');
SET 'pipeline.name' = 'to_b';
INSERT INTO b SELECT * FROM a;
SET 'pipeline.name' = 'to_c';
INSERT INTO c SELECT id + 1, UPPER(name) FROM a WHERE id > 0;
"""


@pytest.fixture
def no_network(monkeypatch):
    """Any connection fails the test."""

    def refuse(self, address):
        pytest.fail(f"connects to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)


def test_offline_the_demo_s_script_is_planned_without_secrets_and_without_a_connection(cli, home, no_network):
    (plan,) = cli("plan", str(CAR_INFO), "--offline", "--json").json["pipelines"]
    assert plan["name"] == "car_info"
    assert plan["assets"] == {"key": ["car_info"], "reads": ["kafka", "vector_ingest"]}
    assert [(c["name"], c["from"], c["source_type"], c["type"]) for c in plan["columns"]] == [
        ("id", "id", "INT", "INT"),
        ("market_time", "market_time", "TIMESTAMP(6)", "TIMESTAMP(6)"),
        ("color", "color", "VARCHAR(10)", "VARCHAR(10)"),
        ("price", "price", "INT", "INT"),
        ("feature", "feature", "STRING", "STRING"),
    ]
    assert plan["sink"]["options"]["password"].strip("*") == ""
    assert plan["sink"]["options"]["conflictmode"] == "ignore"
    assert plan["sink"]["options"]["maxretrytimes"] == "2"  # a default
    assert plan["online"] is None
    assert not (home / "home").exists()


PLAN_KEYS = {
    "name", "file", "line", "description", "assets", "partitions", "source", "transform", "columns", "sink", "settings",
    "embedding", "reports", "notes", "lookups", "fingerprint", "online",
}  # fmt: skip


def test_the_json_of_a_plan_has_the_promised_shape(cli, home, no_network):
    (home / "pipelines" / "two.sql").write_text(REPORTED)
    plans = cli("plan", "--offline", "--json").json["pipelines"]
    assert [plan["name"] for plan in plans] == ["to_b", "to_c"]
    for plan in plans:
        assert set(plan) == PLAN_KEYS
        assert set(plan["source"]) == {"connector", "table", "columns", "options", "format", "format_options"}
        assert set(plan["sink"]) == {"connector", "table", "target", "key", "columns", "options"}
        assert set(plan["partitions"]) == {"length", "start", "open"}
    computed = plans[1]["columns"]
    assert [column["from"] for column in computed] == [None, None]
    assert "1" in computed[0]["expression"]
    assert "WHERE" in plans[1]["transform"]


def test_what_has_no_effect_is_reported_once(cli, home, no_network):
    (home / "pipelines" / "two.sql").write_text(REPORTED)
    done = cli("plan", "--offline")
    assert done.code == 0
    assert done.out.count("parallelism.default") == 1
    assert "sesame" not in done.out


def test_a_plan_of_nothing_is_empty(cli):
    assert cli("plan", "--json").json == {"pipelines": [], "errors": []}


def test_a_file_that_is_wrong_hides_no_other(cli, home, no_network):
    (home / "pipelines" / "two.sql").write_text(REPORTED)
    (home / "pipelines" / "broken.sql").write_text("SELECT 1")
    (home / "pipelines" / "worse.sql").write_text("SELECT 2")
    done = cli("plan", "--offline", "--json")
    assert done.code == 1
    found = json.loads(done.out)
    assert [plan["name"] for plan in found["pipelines"]] == ["to_b", "to_c"]
    for name, said in zip(("broken.sql:1:1", "worse.sql:1:1"), found["errors"], strict=True):
        assert name in said
        assert f"error: {said}" in done.err
    assert cli("plan", "to_b", "--offline").code == 1


def test_every_pipeline_that_cannot_be_planned_is_named(cli, home):
    (home / "pipelines" / "two.sql").write_text(REPORTED)
    done = cli("plan", "--json")
    assert done.code == 1
    found = json.loads(done.out)
    assert found["pipelines"] == []
    for place, said in zip(("two.sql:12:1: to_b: ", "two.sql:14:1: to_c: "), found["errors"], strict=True):
        assert place in said
        assert "Connection refused" in said
        assert f"error: {said}" in done.err
    assert "sesame" not in done.err


def test_one_that_fits_is_planned_beside_one_that_does_not(job, cli, home):
    text = next((home / "pipelines").glob("*.sql")).read_text()
    wrong = text.replace("'tablename' = 'car_info'", "'tablename' = 'no_such_table'").replace("cars", "lorries")
    assert wrong.count("lorries") >= 1
    assert "no_such_table" in wrong
    (home / "pipelines" / "lorries.sql").write_text(wrong)
    job.produce(range(3))
    done = cli("plan", "--json")
    assert done.code == 1
    found = json.loads(done.out)
    assert [plan["name"] for plan in found["pipelines"]] == ["cars"]
    (said,) = found["errors"]
    assert "lorries" in said
    assert "no_such_table" in said


def test_online_the_plan_asks_both_ends_and_changes_neither(job, cli):
    job.produce(range(30))
    (plan,) = cli("plan", "cars", "--json").json["pipelines"]
    target, source = plan["online"]["target"], plan["online"]["source"]
    assert target["key"] == ["id"]
    assert target["guarantee"] == "exactly-once"
    assert {column["name"]: column["target_type"] for column in plan["columns"]}["id"] == "bigint"
    assert any("will be created" in note for note in target["notes"])
    assert source["lag"] == 30
    assert source["position"] is None
    assert len(source["start"]) == 2
    with job.postgres.connect(job.database) as connection:
        schemas = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname = 'vector_assets'").fetchall()
    assert schemas == []
    assert not Path(env.ledger_location()).exists()
    shown = cli("plan", "cars").out
    for text in ("would start at", "30", "bigint", "exactly-once", "password"):
        assert text in shown
    assert job.postgres.password not in shown


def test_a_target_that_does_not_fit_is_refused(job, cli):
    job.execute("ALTER TABLE vector_test.car_info DROP COLUMN feature")
    done = cli("plan", "cars")
    assert done.code == 1
    assert "feature" in done.err


def test_a_topic_that_is_not_there_is_refused(job, cli):
    job.write(topic="no_such_topic")
    done = cli("plan", "cars")
    assert done.code == 1
    assert "no_such_topic" in done.err
