import pytest

from tests.faults.car import CarJob, record
from vector_assets.engine import operate
from vector_assets.engine.reconcile import reconcile

pytestmark = pytest.mark.service

POISON = {
    "cut": b"7\t2026-03-01 12:00:00\tred",
    "too many columns": b"7\t2026-03-01 12:00:00\tred\t1\t{1,2,3}\tx",
    "letters in a number": b"seven\t2026-03-01 12:00:00\tred\t1\t{1,2,3}",
    "id over INT": b"3000000000\t2026-03-01 12:00:00\tred\t1\t{1,2,3}",
    "bad UTF-8": b"7\t2026-03-01 12:00:00\t\xff\xfe\t1\t{1,2,3}",
    "empty": b"",
    "null": None,
    "two dimensions": b"7\t2026-03-01 12:00:00\tred\t1\t{1,2}",
    "NaN": b"7\t2026-03-01 12:00:00\tred\t1\t{1,2,NaN}",
    "infinity": b"7\t2026-03-01 12:00:00\tred\t1\t{1,2,1e60}",
    "colour over varchar(10)": b"7\t2026-03-01 12:00:00\tultramarine blue\t1\t{1,2,3}",
    "bad time": b"7\tyesterday\tred\t1\t{1,2,3}",
    "10 MB": b"7\t2026-03-01 12:00:00\tred\t1\t{" + b"1," * 5_000_000 + b"1}",
}


def test_every_kind_of_poison_is_a_dead_letter_with_its_bytes_and_the_rest_lands(tmp_path, kafka, postgres):
    job = CarJob(tmp_path, kafka, postgres, partitions=1)
    values = [record(100)]
    for number, bad in enumerate(POISON.values()):
        values += [bad, record(101 + number)]
    job.produce_raw(values)
    job.run()
    job.assert_settled(range(100, 101 + len(POISON)))
    with job.open() as session:
        letters = session.ledger.dead_letters
        found = {letter.offset: letters.get(letter.id).value for letter in letters.listed()}
    assert found == {1 + 2 * number: bad for number, bad in enumerate(POISON.values())}


@pytest.mark.parametrize(
    ("conflictmode", "kept"), [("ignore", "first"), ("update", "last"), ("upsert", "last")], ids=str
)
def test_duplicate_keys_within_and_across_batches(tmp_path, kafka, postgres, conflictmode, kept):
    job = CarJob(tmp_path, kafka, postgres, partitions=1, conflictmode=conflictmode)
    prices = [1, 2, 3]
    job.produce_raw([record(i, p) for p in prices[:2] for i in range(60)])
    job.run()
    job.produce_raw([record(i, prices[2]) for i in range(60)])
    job.run()
    assert job.rows("id, price") == [(i, 1 if kept == "first" else 3) for i in range(60)]
    with job.open() as session:
        _, counts = session.ledger.totals(session.pipeline.name, session.pipeline.target)
    assert counts.records == 180
    if kept == "first":
        assert (counts.written, counts.conflicts) == (60, 120)
    else:
        assert counts.conflicts == 0
    assert counts.written + counts.conflicts + counts.compacted == 180


def test_a_dead_letter_replayed_after_a_fix_lands_once(tmp_path, kafka, postgres):
    job = CarJob(tmp_path, kafka, postgres, partitions=1)
    job.produce_raw([record(1), POISON["colour over varchar(10)"], record(2)])
    job.run()
    job.execute("ALTER TABLE vector_test.car_info ALTER color TYPE varchar(40)")
    for expected in (1, 0):
        with job.open() as session:
            letters = session.ledger.dead_letters.listed("cars")
            outcome = operate.replay_dead_letters(session, letters)
            assert (outcome.batch.counts.written if outcome else 0) == expected
    job.assert_settled([1, 2, 7])


def test_a_replayed_dead_letter_does_not_overwrite_what_came_later(tmp_path, kafka, postgres):
    job = CarJob(tmp_path, kafka, postgres, partitions=1, conflictmode="update")
    job.produce_raw([POISON["colour over varchar(10)"]])
    job.run()
    job.produce_raw([record(7, 999)])
    job.run()
    job.execute("ALTER TABLE vector_test.car_info ALTER color TYPE varchar(40)")
    with job.open() as session:
        outcome = operate.replay_dead_letters(session, session.ledger.dead_letters.listed("cars"))
        assert (outcome.batch.counts.written, outcome.batch.counts.superseded) == (0, 1)
    assert job.rows("id, price") == [(7, 999)]


def test_a_change_that_the_target_refuses_hides_none_before_it(tmp_path, kafka, postgres):
    """Both in one batch: the last good change of a key stands, the refused one is a dead letter."""
    job = CarJob(tmp_path, kafka, postgres, partitions=1, conflictmode="update")
    refused = b"1\t2026-03-01 12:00:00\tred\t9\t{1,2}"
    job.produce_raw([record(1, 5), record(2), record(1, 7), refused, record(3)])
    (outcome,) = job.run()
    assert job.rows("id, price") == [(1, 7), (2, 2), (3, 3)]
    counts = outcome.batch.counts
    assert (counts.written, counts.compacted, counts.refused) == (3, 1, 1)
    with job.open() as session:
        (letter,) = session.ledger.dead_letters.listed("cars")
        assert (letter.offset, letter.stage) == (3, "write")
        assert reconcile(session).is_right()


@pytest.mark.parametrize("crash", [None, "committing:1", "staged:2", "committed:1"])
def test_a_change_that_the_database_refuses_hides_none_before_it(tmp_path, kafka, postgres, crash):
    """Only the server can tell: the good change before it in the batch stands, and a delete before it deletes."""
    job = CarJob(tmp_path, kafka, postgres, partitions=1, conflictmode="update")
    job.execute("ALTER TABLE vector_test.car_info ADD CHECK (price < 100)")
    job.produce_raw([record(1, 5), record(2), record(1, 7), record(1, 500), record(1, 600), record(3), record(4, 700)])
    if crash:
        code, output = job.run_apart(crash)
        assert code != 0, output
    job.run()
    assert job.rows("id, price") == [(1, 7), (2, 2), (3, 3)]
    with job.open() as session:
        (batch,) = session.ledger.batches("cars")
        counts = batch.counts
        assert (counts.written, counts.compacted, counts.refused) == (3, 1, 3)
        letters = session.ledger.dead_letters.listed("cars")
        assert [(letter.offset, letter.stage) for letter in letters] == [(3, "write"), (4, "write"), (6, "write")]
        assert reconcile(session).is_right()
