"""The seed's own steps over real services, only its placeholders replaced."""

import json
import re
import socket

import pytest
from typer.testing import CliRunner

from tests.declare.seeds import ddl_step, flink_step, seed, with_values
from vector_assets.cli import app
from vector_assets.declare import flink_sql
from vector_assets.engine import env
from vector_assets.engine.run import Runner
from vector_assets.engine.session import Books, Session

pytestmark = pytest.mark.service
PORT = 5432
"""The seed's url names it."""


def free_loopback() -> str:
    """A loopback address whose port 5432 nobody has."""
    for number in range(1, 10):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((f"127.0.0.{number}", PORT))
            except OSError:
                continue
            return f"127.0.0.{number}"
    raise AssertionError("port 5432 is taken on nine loopback addresses")


@pytest.fixture
def address(postgres, proxy) -> str:
    """The test database at the port that the seed's url names."""
    gate = proxy(postgres.host, postgres.port)
    gate.stop()
    gate.host, gate.port = free_loopback(), PORT
    gate.start()
    return gate.host


@pytest.fixture
def database(postgres):
    """The seed's database, schema and table, in our own words."""
    with postgres.connect("postgres", autocommit=True) as connection:
        connection.execute("CREATE DATABASE adbpg_test")
    with postgres.connect("adbpg_test", autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector")
        connection.execute("CREATE SCHEMA vector_test")
        connection.execute(
            "CREATE TABLE vector_test.car_info (id bigint NOT NULL PRIMARY KEY, market_time timestamp, "
            "color varchar(10), price int, feature float4[])"
        )
        connection.execute("CREATE INDEX ON vector_test.car_info USING hnsw ((feature::vector(10)) vector_l2_ops)")
    yield "adbpg_test"
    with postgres.connect("postgres", autocommit=True) as connection:
        connection.execute("DROP DATABASE adbpg_test WITH (FORCE)")


def test_the_seed_s_statements_land_its_records_and_a_second_run_nothing(tmp_path, kafka, postgres, database, address):
    topic = kafka.create_topic(name="vector_ingest")
    feature = "{" + ",".join(f"0.{n}" for n in range(1, 11)) + "}"
    good = [f"{n}\t2026-03-01 12:00:00\tred\t{n}\t{feature}".encode() for n in range(50)]
    kafka.produce(topic, [*good, good[0], b"3000000000" + good[0][1:], b"7\t2026-03-01 12:00:00\tred\t7\t{1,2}"])
    values = {
        "your_instance_url": address,
        "your_username": postgres.user,
        "your_password": postgres.password,
        "your_broker_list": kafka.bootstrap_servers,
    }
    script = with_values("\n".join(flink_step(seed(0))), values)
    (pipeline,) = flink_sql.compile_script(script, "car_info.sql")
    with env.overridden(VECTOR_ASSETS_HOME=str(tmp_path)), Session(pipeline, Books.open()) as session:
        (outcome,) = Runner(session).catch_up()
        assert list(Runner(session).catch_up()) == []
        counts = outcome.batch.counts
        assert (counts.records, counts.written, counts.conflicts, counts.rejected, counts.refused) == (53, 50, 1, 1, 1)
        assert [letter.offset for letter in session.ledger.dead_letters.listed()] == [51, 52]
    with postgres.connect(database) as connection:
        rows = connection.execute("SELECT id, price, feature[10] FROM vector_test.car_info ORDER BY id").fetchall()
    assert [(i, price) for i, price, _ in rows] == [(n, n) for n in range(50)]
    assert rows[0][2] == pytest.approx(0.10)


@pytest.fixture
def no_database(postgres):
    """The seed's database is dropped after the test, whoever made it."""
    yield
    with postgres.connect("postgres", autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS adbpg_test WITH (FORCE)")


def vector_assets(*arguments):
    """Run a command as an operator would; its JSON."""
    result = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_all_three_steps_by_command_from_an_empty_server_to_a_search(
    tmp_path, kafka, postgres, no_database, address, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VECTOR_ASSETS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("VECTOR_ASSETS_SECRET_TARGET_PASSWORD", postgres.password)
    (tmp_path / "ddl.sql").write_text(ddl_step(seed(0)))
    server = ("--url", f"jdbc:postgresql://{address}:{PORT}/adbpg_test", "--user", postgres.user)
    steps = vector_assets("target", "create", "ddl.sql", *server)["steps"]
    assert {step["action"] for step in steps} == {"run"}

    # the words of the seed's own kafka-topics.sh and kafka-console-producer.sh
    made = re.search(r"kafka-topics\.sh --create --topic (\S+) --partitions (\d+)", seed(0))
    filled = re.search(r"kafka-console-producer\.sh.*?--topic (\S+) < \S*?([\w.]+)$", seed(0), re.DOTALL | re.MULTILINE)
    assert made
    assert filled
    broker = ("--bootstrap", kafka.bootstrap_servers)
    try:
        vector_assets("topic", "create", made[1], "--partitions", made[2], *broker)
        cars = [
            f"{n}\t2026-03-01 12:00:00\tred\t{n}\t{{{','.join(str(n + axis) for axis in range(10))}}}"
            for n in range(40)
        ]
        (tmp_path / filled[2]).write_text("\n".join(cars) + "\n")
        assert vector_assets("topic", "produce", filled[1], filled[2], *broker)["records"] == 40
        (tmp_path / "pipelines").mkdir()
        values = {
            "your_instance_url": address, "your_username": postgres.user, "your_password": postgres.password,
            "your_broker_list": kafka.bootstrap_servers,
        }  # fmt: skip
        (tmp_path / "pipelines" / "cars.sql").write_text(with_values("\n".join(flink_step(seed(0))), values))
        assert vector_assets("doctor", "cars")["problems"] == 0
        assert vector_assets("preview", "cars")["counts"]["handed_over"] == 10
        assert vector_assets("run", "cars")["counts"]["written"] == 40
        found = vector_assets("search", "cars", "--vector", str(list(range(7, 17))), "--k", "3", "--where", "id <> 8")
    finally:
        kafka.delete_topic(made[1])
    assert [row["id"] for row in found["rows"]] in ([7, 6, 9], [7, 6, 5])
    assert found["rows"][0]["_distance"] == 0
    again = vector_assets("target", "create", "ddl.sql", *server)["steps"]
    assert sum(step["action"] == "skip" for step in again) == 5
