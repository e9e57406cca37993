"""Avro records of two schemas in a real Kafka and registry, through a SQL script into a real PostgreSQL."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.fix_registry import framed
from tests.formats.fix_avro import encode, record
from vector_assets.declare import flink_sql
from vector_assets.engine import env
from vector_assets.engine.run import Runner
from vector_assets.engine.session import Books, Session

pytestmark = pytest.mark.service

SCRIPT = """
CREATE TABLE cars (id BIGINT, color STRING, feature ARRAY<FLOAT>) WITH (
  'connector' = 'kafka', 'topic' = '{topic}', 'properties.bootstrap.servers' = '{brokers}',
  'scan.startup.mode' = 'earliest-offset', 'format' = 'avro-confluent', 'avro-confluent.url' = '{registry}',
  'avro-confluent.basic-auth.credentials-source' = 'USER_INFO', 'avro-confluent.subject' = 'cars-value',
  'avro-confluent.basic-auth.user-info' = '${{secret_values.registry_user}}'
);
CREATE TABLE target (id BIGINT, color STRING, feature ARRAY<FLOAT>, PRIMARY KEY (id) NOT ENFORCED) WITH (
  'connector' = 'adbpg', 'url' = '{database}', 'tablename' = 'cars', 'username' = '{user}', 'password' = '{password}'
);
INSERT INTO target SELECT id, UPPER(color), feature FROM cars WHERE id <> 3;
"""
OLD = record(("id", "int"), ("color", "string"), ("feature", {"type": "array", "items": "double"}))
NEW = record(
    ("id", "long"), ("feature", {"type": "array", "items": "float"}), ("doors", "int"), ("color", ["null", "string"])
)


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_records_land_and_their_poison_stays_behind_over_an_outage_of_the_registry(
    tmp_path, kafka, postgres, own_registry, caplog
):
    registry = own_registry({"ann": "secret-word"})
    old = registry.register(
        record(("id", "int"), ("color", "string"), ("feature", {"type": "array", "items": "float"})),
        user="ann:secret-word",
    )
    new = registry.register(NEW, user="ann:secret-word")
    wrong = registry.register(OLD, user="ann:secret-word")
    first = {"type": "array", "items": "float"}
    rows = encode(
        record(("id", "int"), ("color", "string"), ("feature", first)),
        *({"id": n, "color": "red", "feature": [n, 0.5]} for n in range(10)),
    )
    later = encode(NEW, *({"id": n, "feature": [n], "doors": 4, "color": None} for n in range(10, 20)))
    unreadable = encode(OLD, {"id": 99, "color": "x", "feature": [1.0]})
    topic, database = kafka.create_topic(), postgres.create_database()
    with postgres.connect(database) as connection:
        connection.execute("CREATE TABLE cars (id bigint PRIMARY KEY, color text, feature float4[])")
    kafka.produce(topic, [*(framed(old, each) for each in rows), b"x", framed(wrong, unreadable[0])])
    kafka.produce(topic, [framed(new, each) for each in later])
    script = SCRIPT.format(
        topic=topic,
        brokers=kafka.bootstrap_servers,
        registry=registry.url,
        database=postgres.jdbc_url(database),
        user=postgres.user,
        password=postgres.password,
    )
    with env.overridden(VECTOR_ASSETS_HOME=str(tmp_path), VECTOR_ASSETS_SECRET_REGISTRY_USER="ann:secret-word"):
        (pipeline,) = flink_sql.compile_script(script, "cars.sql")
        assert any("'avro-confluent.subject' has no effect" in report for report in pipeline.reports)
        with Session(pipeline, Books.open()) as session:
            registry.service.stop()
            with ThreadPoolExecutor(1) as thread:
                running = thread.submit(lambda: list(Runner(session).catch_up()))
                until(lambda: "schema registry http" in caplog.text or running.done())
                registry.service.start()
                (outcome,) = running.result(60)
            counts = outcome.batch.counts
            assert (counts.records, counts.written, counts.filtered, counts.rejected) == (22, 19, 1, 2)
            reasons = [letter.error for letter in session.ledger.dead_letters.listed()]
    assert ["first byte" in reasons[0] or "fewer than 5" in reasons[0], "cannot be read as float" in reasons[1]] == [
        True
    ] * 2
    with postgres.connect(database) as connection:
        found = connection.execute("SELECT id, color, feature FROM cars ORDER BY id").fetchall()
    assert found[0] == (0, "RED", [0.0, 0.5])
    assert found[-1] == (19, None, [19.0])


def test_a_script_is_checked_without_the_secret_or_the_registry():
    values = {
        "topic": "t",
        "brokers": "h:1",
        "registry": "${{secret_values.registry_url}}",
        "database": "jdbc:postgresql://h:1/d",
    }
    script = SCRIPT.format(**values, user="u", password="p").replace("{{", "{").replace("}}", "}")
    (pipeline,) = flink_sql.compile_script(script, "cars.sql", offline=True)
    assert pipeline.format == "avro-confluent"
