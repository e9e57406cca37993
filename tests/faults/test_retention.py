"""Retention over a real target: its tokens are pruned with the ledger, and nothing is lost, doubled or forgotten."""

import pytest

from tests.faults.car import CarJob
from tests.faults.test_ledger_lost import assert_refused, lose, rebuilt
from vector_assets.engine.books_check import check_books
from vector_assets.engine.errors import ExpiredError
from vector_assets.engine.retention import apply_retention
from vector_assets.engine.run import Runner

pytestmark = pytest.mark.service
SETTINGS = """
SET 'vector-assets.retention.archive' = '7 d';
SET 'vector-assets.retention.ledger' = '30 d';
"""


def test_a_pruned_target_takes_the_next_batch_and_survives_a_lost_ledger(tmp_path, kafka, postgres):
    job = CarJob(tmp_path, kafka, postgres, settings=SETTINGS)
    job.produce(range(400))
    job.run()
    with job.open() as session:
        ledger, where = session.ledger, ("cars", session.pipeline.target)
        newest = ledger.newest_seq(*where)
        ledger.store.change("UPDATE batches SET done_ms = done_ms - ? WHERE seq <= 3", (31 * 86_400_000,))
        totals = ledger.totals(*where)
        apply_retention(session)
        assert ledger.totals(*where) == totals
        assert check_books(session.books, deep=True).findings == ()
        assert {o.how for o in Runner(session).replay()} == {"found"}
        with pytest.raises(ExpiredError):
            list(Runner(session).replay(first=2))
    with job.postgres.connect(job.database) as connection:
        assert connection.execute("SELECT min(seq), max(seq) FROM vector_assets.batches").fetchone() == (4, newest)
    job.produce(range(400, 420))
    job.run()
    job.assert_settled(range(420))
    lose(job)
    assert_refused(job)
    done = rebuilt(job)
    assert done.plan.folded == 3
    with job.open() as session:
        assert session.ledger.fold(*where).seq == 3
        assert check_books(session.books, deep=True).findings == ()
    job.produce(range(420, 440))
    job.run()
    job.assert_settled(range(440))
