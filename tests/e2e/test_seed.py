"""The seed's own step 3 over real services, only its placeholders replaced."""

import socket

import pytest

from tests.declare.seeds import flink_step, seed, with_values
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
