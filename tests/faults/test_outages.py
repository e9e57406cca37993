import signal
import threading

import pytest

from tests.faults.car import TABLE, CarJob
from vector_assets.engine import operate
from vector_assets.engine.errors import ConfigError, PlanError, PositionLostError, TargetReplacedError, UnavailableError

pytestmark = pytest.mark.service


def in_background(job):
    """A drain in a thread; what it raised is in the list it returns with."""
    failures: list[BaseException] = []

    def work():
        try:
            job.run()
        except BaseException as error:  # noqa: BLE001 -- handed to the test
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, failures


def finished(thread, failures):
    thread.join(90)
    assert not thread.is_alive()
    assert failures == []


def test_a_broker_restarted_in_mid_run_is_waited_for(tmp_path, own_kafka, postgres):
    broker = own_kafka()
    job = CarJob(tmp_path, broker, postgres)
    job.produce(range(300))
    with job.open() as session:
        session.source.frontier()
    broker.kill()
    thread, failures = in_background(job)
    broker.start()
    finished(thread, failures)
    job.assert_settled(range(300))


def test_a_database_restarted_in_mid_run_is_waited_for(tmp_path, kafka, own_postgres):
    server = own_postgres()
    job = CarJob(tmp_path, kafka, server, settings="SET 'vector-assets.batch.max-rows' = '20';")
    job.produce(range(2000))
    thread, failures = in_background(job)
    server.kill()
    server.start()
    finished(thread, failures)
    job.assert_settled(range(2000))


def test_a_lost_answer_to_a_commit_is_looked_up(tmp_path, kafka, postgres, proxy):
    gate = proxy(postgres.host, postgres.port)
    job = CarJob(tmp_path, kafka, postgres, url="")
    job.write(url=postgres.jdbc_url(job.database, gate.host, gate.port))
    job.produce(range(2000))
    thread, failures = in_background(job)
    for _ in range(5):
        gate.drop_connections()
        thread.join(0.1)
    finished(thread, failures)
    job.assert_settled(range(2000))


def test_a_database_that_stays_away_is_reported_and_no_position_moves(tmp_path, kafka, postgres, proxy):
    gate = proxy(postgres.host, postgres.port)
    job = CarJob(tmp_path, kafka, postgres)
    job.write(
        url=postgres.jdbc_url(job.database, gate.host, gate.port),
        settings="SET 'vector-assets.outage.timeout' = '1 s';",
    )
    job.produce(range(10))
    gate.stop()
    with pytest.raises(UnavailableError, match="connection failed"):
        job.run()
    gate.start()
    job.run()
    job.assert_settled(range(10))


def test_a_wrong_password_is_one_clear_error_without_the_password(tmp_path, kafka, postgres, caplog):
    job = CarJob(tmp_path, kafka, postgres)
    job.produce(range(10))
    right = dict(job.environment)
    job.environment |= dict.fromkeys([k for k in right if k.endswith("TEST_PASSWORD")], "not-this-one")
    with pytest.raises(ConfigError, match="password") as caught:
        job.run()
    assert "not-this-one" not in str(caught.value) + caplog.text
    code, output = job.run_apart()
    assert code == 1
    assert "not-this-one" not in output
    assert "Traceback" not in output
    job.environment = right
    job.run()
    job.assert_settled(range(10))


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("ALTER TABLE vector_test.car_info RENAME TO car_infos", "car_infos"),
        ("ALTER TABLE vector_test.car_info RENAME price TO prize", "price"),
        ("ALTER TABLE vector_test.car_info ALTER price TYPE bytea USING NULL", "bytea"),
        ("ALTER TABLE vector_test.car_info ADD wheels int NOT NULL", "wheels"),
    ],
    ids=["missing-table", "missing-column", "other-type", "unsent-not-null"],
)
def test_a_target_that_does_not_fit_is_refused_before_the_first_row(tmp_path, kafka, postgres, statement, words):
    job = CarJob(tmp_path, kafka, postgres)
    job.produce(range(10))
    job.execute(statement)
    with pytest.raises(PlanError, match=words):
        job.run()
    with job.open() as session:
        assert session.ledger.batches("cars") == []


def test_a_truncated_topic_is_named_with_the_missing_range(tmp_path, kafka, postgres):
    job = CarJob(tmp_path, kafka, postgres, partitions=1)
    job.produce(range(10))
    job.run()
    job.produce(range(10, 30))
    kafka.delete_records(job.topic, {0: 15})
    with pytest.raises(PositionLostError, match="TRUNCATED"):
        job.run()
    with job.open() as session:
        (gap,) = session.ledger.gaps("cars")
        assert (gap.kind, gap.start, gap.end) == ("TRUNCATED", 10, 15)
        operate.reset(session, "earliest", reason="the lost range is accepted")
    job.run()
    job.assert_settled([*range(10), *range(15, 30)])


@pytest.mark.parametrize("count", [5, 40], ids=["fewer", "more"])
def test_a_recreated_topic_is_named_and_nothing_is_read_at_the_stale_offset(tmp_path, kafka, postgres, count):
    job = CarJob(tmp_path, kafka, postgres, partitions=1)
    job.produce(range(10))
    job.run()
    kafka.delete_topic(job.topic)
    kafka.create_topic(partitions=1, name=job.topic)
    job.produce(range(100, 100 + count))
    with pytest.raises(PositionLostError, match="RECREATED"):
        job.run()
    assert job.rows() == list(range(10))
    with job.open() as session:
        operate.reset(session, "earliest", reason="the topic was made anew")
    job.run()
    job.assert_settled([*range(10), *range(100, 100 + count)])


def test_a_grown_topic_is_named_and_read_after_a_reset(tmp_path, kafka, postgres):
    job = CarJob(tmp_path, kafka, postgres, partitions=1)
    job.produce(range(10))
    job.run()
    kafka.add_partitions(job.topic, 2)
    job.partitions = 2
    job.produce(range(10, 20))
    with pytest.raises(PositionLostError, match="NEW_SPLIT"):
        job.run()
    with job.open() as session:
        operate.reset(session, "1:0", reason="read the new partition")
    job.run()
    job.assert_settled(range(20))


def test_a_target_dropped_and_made_anew_is_named_adopted_and_filled_from_the_archive(tmp_path, kafka, postgres):
    job = CarJob(tmp_path, kafka, postgres)
    job.produce(range(200))
    job.run()
    kafka.delete_topic(job.topic)
    kafka.create_topic(partitions=2, name=job.topic)
    job.execute("DROP TABLE vector_test.car_info")
    job.execute("CREATE TABLE vector_test.car_info (id bigint PRIMARY KEY, market_time timestamp, color varchar(10),"
                " price int, feature float4[], landed_by xid8 DEFAULT pg_current_xact_id())")  # fmt: skip
    with pytest.raises(TargetReplacedError, match="TARGET_REPLACED"):
        job.run()
    with job.open() as session:
        operate.adopt_target(session, reason="restored by hand")
    code, output = job.run_apart(command="replay")
    assert code == 0, output
    assert job.rows() == list(range(200))


def test_a_target_dropped_in_mid_run_is_filled_again_with_what_was_done_and_what_was_not(tmp_path, kafka, postgres):
    job = CarJob(tmp_path, kafka, postgres)
    job.produce(range(200))
    code, output = job.run_apart("committing:3")
    assert code == -signal.SIGKILL, output
    job.execute("DROP TABLE vector_test.car_info")
    job.execute(TABLE.partition(";")[2])
    with pytest.raises(TargetReplacedError, match="TARGET_REPLACED"):
        job.run()
    with job.open() as session:
        operate.adopt_target(session, reason="restored by hand")
        assert session.ledger.unfinished("cars", session.pipeline.target) != []
    code, output = job.run_apart(command="replay")
    assert code == 0, output
    job.run()
    job.assert_settled(range(200))
