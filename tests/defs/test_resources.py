import datetime as dt
import os
from decimal import Decimal

import dagster as dg
import psycopg
import pyarrow as pa
import pytest

from vector_assets.defs.resources import KafkaResource, PostgresResource
from vector_assets.engine.errors import ConfigError, PlanError, RecordError, UnavailableError


@pytest.fixture
def database(postgres):
    name = postgres.create_database()
    with postgres.connect(name, autocommit=True) as connection:
        connection.execute(
            "CREATE SCHEMA mine; CREATE TABLE mine.cars (id bigint PRIMARY KEY, color varchar(5), price numeric(10, 2),"
            " feature float4[], embedding vector(2), seen timestamp, doc jsonb)"
        )
    return name


@pytest.fixture
def resource(postgres, database):
    return PostgresResource(
        host=postgres.host, port=postgres.port, database=database, user=postgres.user, password=postgres.password
    )


def cars(ids, **columns):
    return pa.table({"id": pa.array(ids, pa.int64()), **columns})


def test_rows_copied_into_a_table_are_read_back_by_a_query(resource):
    rows = cars(
        [1, 2],
        color=["red", None],
        price=pa.array([Decimal("1.50"), Decimal("20.00")], pa.decimal128(10, 2)),
        feature=pa.array([[1.0, 2.0], None], pa.list_(pa.float32())),
        embedding=["[1, 2]", "{3,4}"],
        seen=pa.array([dt.datetime(2026, 1, 1, 12), None], pa.timestamp("us")),  # noqa: DTZ001
        doc=['{"a": [1]}', None],
    )
    assert resource.copy_arrow(rows, "mine.cars") == 2
    found = resource.query("SELECT * FROM mine.cars WHERE id >= %s ORDER BY id", [1])
    assert found.schema.types == [
        pa.int64(), pa.string(), pa.decimal128(4, 2), pa.list_(pa.float32()), pa.string(), pa.timestamp("us"),
        pa.string(),
    ]  # fmt: skip
    assert found.column("embedding").to_pylist() == ["[1,2]", "[3,4]"]
    assert found.column("doc").to_pylist() == ['{"a":[1]}', None]
    assert found.drop_columns(["embedding", "doc"]).to_pylist() == (rows.drop_columns(["embedding", "doc"]).to_pylist())


def test_a_query_without_rows_keeps_its_columns(resource):
    found = resource.query("SELECT id, color FROM mine.cars")
    assert found.schema == pa.schema({"id": pa.int64(), "color": pa.string()})
    assert found.num_rows == 0


def test_a_statement_without_a_result_is_an_empty_table(resource):
    assert resource.query("DELETE FROM mine.cars").num_columns == 0


@pytest.mark.parametrize(
    ("ids", "color", "reason"),
    [
        ([1, 2], ["red", "orange"], r"1 of 2 rows do not fit: row 1: column color: 6 characters"),
        ([1, 1], ["red", "blue"], "23505"),
    ],
    ids=["too long", "key twice"],
)
def test_a_row_that_does_not_fit_is_named_and_nothing_is_written(resource, ids, color, reason):
    with pytest.raises(RecordError, match=reason):
        resource.copy_arrow(cars(ids, color=color), "mine.cars")
    assert resource.query("SELECT * FROM mine.cars").num_rows == 0


@pytest.mark.parametrize(
    ("table", "columns", "reason"),
    [
        ("mine.cats", {}, r"table 'cats' does not exist in schema mine"),
        ("mine.cars", {"colour": ["red"]}, "column colour does not exist.*color"),
        ("mine.cars", {"seen": ["yesterday"]}, "takes TIMESTAMP, DATE"),
    ],
    ids=["table", "column", "type"],
)
def test_what_does_not_match_the_target_is_named(resource, table, columns, reason):
    with pytest.raises(PlanError, match=reason):
        resource.copy_arrow(cars([1], **columns), table)


def test_a_wrong_statement_and_a_wrong_password_are_errors_of_the_engine(postgres, database, resource):
    with pytest.raises(PlanError, match="42P01"):
        resource.query("SELECT * FROM mine.cats")
    wrong = resource.model_copy(update={"password": "sesame"})
    with pytest.raises(ConfigError, match="authentication") as raised:
        wrong.query("SELECT 1")
    assert "sesame" not in str(raised.value)


def test_a_connection_is_closed_by_its_block(resource):
    with resource.connect() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")


def test_a_users_asset_reads_its_secret_from_the_environment(postgres, database, instance, monkeypatch):
    monkeypatch.setenv("MINE_PASSWORD", postgres.password)

    @dg.asset
    def mine(postgres: PostgresResource) -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata={"rows": postgres.copy_arrow(cars([7]), "mine.cars")})

    resource = PostgresResource(
        host=postgres.host, port=postgres.port, database=database, user=postgres.user,
        password=dg.EnvVar("MINE_PASSWORD"),
    )  # fmt: skip
    assert postgres.password not in repr(resource)
    result = dg.materialize([mine], resources={"postgres": resource}, instance=instance)
    (event,) = result.asset_materializations_for_node("mine")
    assert event.metadata["rows"].value == 1


def test_records_produced_are_consumed_and_the_frontier_is_past_them(kafka):
    topic = kafka.create_topic(2)
    resource = KafkaResource(bootstrap_servers=kafka.bootstrap_servers)
    producer = resource.producer(linger_ms=0)
    for number in range(3):
        producer.produce(topic, f"{number}", partition=1)
    assert producer.flush(30) == 0
    assert resource.frontier(topic) == {0: 0, 1: 3}
    consumer = resource.consumer(group_id="mine", auto_offset_reset="earliest", enable_auto_commit=False)
    consumer.subscribe([topic])
    try:
        found = []
        while len(found) < 3:
            found += consumer.consume(3 - len(found), timeout=30)
        assert [message.value() for message in found] == [b"0", b"1", b"2"]
    finally:
        consumer.close()
    assert topic in resource.admin().list_topics(timeout=30).topics


def test_a_topic_that_does_not_exist_is_named(kafka):
    with pytest.raises(PlanError, match="'no_such_topic' does not exist"):
        KafkaResource(bootstrap_servers=kafka.bootstrap_servers).frontier("no_such_topic")


def test_a_cluster_that_does_not_answer_is_unavailable():
    with pytest.raises(UnavailableError, match="no bootstrap server can be reached"):
        KafkaResource(bootstrap_servers="127.0.0.1:1").frontier("any")


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"security_protocol": "SASL_SSL"}, r"needs 'properties\.sasl\.mechanism'"),
        ({"properties": {"fetch.min.byte": "1"}}, r"did you mean 'fetch\.min\.bytes'"),
        ({"sasl_password": "sesame"}, "has no effect"),
    ],
    ids=["half a login", "unknown property", "without a protocol"],
)
def test_wrong_properties_are_refused_without_showing_secrets(wrong, reason):
    resource = KafkaResource(bootstrap_servers="127.0.0.1:1", **wrong)
    with pytest.raises(ConfigError, match=reason) as raised:
        resource.consumer()
    assert "sesame" not in str(raised.value) + repr(resource)


def test_a_login_reaches_the_client(monkeypatch):
    monkeypatch.setitem(os.environ, "MINE_SASL", "sesame")
    resource = KafkaResource(
        bootstrap_servers="127.0.0.1:1", security_protocol="SASL_PLAINTEXT", sasl_mechanism="PLAIN",
        sasl_username="me", sasl_password=dg.EnvVar("MINE_SASL"),
    )  # fmt: skip

    @dg.op
    def settings(kafka: KafkaResource) -> str:
        found = kafka._properties().rdkafka()
        return f"{found['sasl.username']} {found['sasl.password']}"

    @dg.job(resource_defs={"kafka": resource})
    def job():
        settings()

    assert job.execute_in_process().output_for_node("settings") == "me sesame"
