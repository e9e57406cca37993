"""A rewrite racing a live run over real Kafka and PostgreSQL: no row moves backwards, in whatever order they commit."""

import random
import threading

import pytest

from tests.faults.car import TABLE, CarJob, record
from vector_assets.engine import operate
from vector_assets.engine.errors import PlanError, VectorAssetsError
from vector_assets.engine.reconcile import reconcile
from vector_assets.engine.rewrite import Selection, rewrite
from vector_assets.engine.run import Runner

pytestmark = pytest.mark.service

# the price is the record's number: it may only grow; every row ever visible is kept
WATCH = """
CREATE TABLE vector_test.seen (id bigint, price int, at bigserial);
CREATE FUNCTION vector_test.watch() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN INSERT INTO vector_test.seen (id, price) VALUES (NEW.id, NEW.price); RETURN NULL; END $$;
CREATE TRIGGER watch AFTER INSERT OR UPDATE ON vector_test.car_info FOR EACH ROW EXECUTE FUNCTION vector_test.watch();
"""
MOVED = """
SELECT id, price, before FROM (SELECT id, price, lag(price) OVER (PARTITION BY id ORDER BY at) AS before
  FROM vector_test.seen) s WHERE {}
"""


@pytest.mark.parametrize(
    ("conflictmode", "wrong"), [("update", "price < before"), ("ignore", "price <> before")], ids=["update", "ignore"]
)
def test_a_rewrite_racing_a_live_run_moves_no_row_backwards(tmp_path, kafka, postgres, conflictmode, wrong):
    job = CarJob(tmp_path, kafka, postgres, partitions=1, conflictmode=conflictmode)
    job.execute(WATCH)
    chance, made = random.Random(11), 0

    def produce(count: int) -> None:
        nonlocal made
        job.produce_raw([record(chance.randint(0, 60), price=made + n) for n in range(count)])
        made += count

    produce(200)
    job.run()
    # other code, other colour; the same prices
    script = tmp_path / "pipelines" / "cars.sql"
    script.write_text(
        script.read_text().replace(
            "SELECT * FROM car_records", "SELECT id, market_time, 'blue', price, feature FROM car_records"
        )
    )
    stop, failed = threading.Event(), []

    with job.open() as followed, job.open() as session:

        def live() -> None:
            try:
                list(Runner(followed, stop).follow())
            except VectorAssetsError as error:
                failed.append(error)

        follower = threading.Thread(target=live)
        follower.start()
        try:
            for _ in range(4):
                produce(30)
                list(rewrite(Runner(session), Selection(again=True)))
        finally:
            stop.set()
            follower.join()
    assert failed == []
    job.run()
    with job.open() as session:
        list(rewrite(Runner(session), Selection()))
        kinds = {batch.kind for batch in session.ledger.batches("cars")}
        found = reconcile(session)
    assert {"records", "rewrite"} == {str(kind) for kind in kinds}
    with postgres.connect(job.database) as connection:
        assert connection.execute(MOVED.format(wrong)).fetchall() == []
    assert found.is_right(), (found.counts, found.findings, found.equations)
    assert set(job.rows("color")) == {"blue"}


@pytest.mark.parametrize("is_overtaken", [True, False], ids=["the same key", "other keys"])
def test_a_replay_puts_no_row_over_that_of_a_later_batch(tmp_path, kafka, postgres, is_overtaken):
    """A table made anew got a later batch first, of another split: its own position does not stand in the way."""
    job = CarJob(tmp_path, kafka, postgres, conflictmode="update")
    job.produce_raw([record(1, 1), record(2, 1)], partition=0)
    job.run()
    job.produce_raw([record(1 if is_overtaken else 4, 3)], partition=1)
    job.run()
    job.execute("DROP TABLE vector_test.car_info")
    job.execute(TABLE.partition(";")[2])
    with job.open() as session:
        operate.adopt_target(session, reason="made anew")
        assert [outcome.how for outcome in Runner(session).replay(first=2)] == ["applied"]
    with job.open() as session:
        replay = Runner(session).replay()
        if is_overtaken:
            with pytest.raises(PlanError, match=r"batch 1 is missing .* of 1 of its keys .* --rewrite --seq 1"):
                list(replay)
            assert job.rows("id, price") == [(1, 3)]
            assert list(rewrite(Runner(session), Selection(first=1, last=1, again=True)))
            assert job.rows("id, price") == [(1, 3), (2, 1)]
        else:
            assert [outcome.how for outcome in replay] == ["applied", "found"]
            assert job.rows("id, price") == [(1, 1), (2, 1), (4, 3)]
