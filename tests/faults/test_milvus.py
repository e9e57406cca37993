"""Outages and losses of a Milvus under a running pipeline, over real Kafka."""

import random
import shutil
import signal
import threading

import pytest

from tests.faults.changes import ChangeJob, Changes, MilvusPeople
from vector_assets.engine import operate
from vector_assets.engine.books_check import check_books
from vector_assets.engine.errors import ConfigError, LedgerLostError, PlanError, TargetReplacedError, TransientError
from vector_assets.engine.rebuild import plan_rebuild
from vector_assets.engine.rebuild_write import rebuild
from vector_assets.engine.retention import apply_retention
from vector_assets.engine.run import Runner

pytestmark = pytest.mark.service


@pytest.fixture
def make_job(tmp_path, kafka, milvus):
    """A job with changes in its topic, and their model."""

    def make(server=None, name="changelog-json", operations=600, **settings):
        job = ChangeJob(tmp_path, kafka, MilvusPeople(server or milvus), name, **settings)
        changes = Changes(random.Random(3), name)
        job.produce(changes.records(operations))
        return job, changes

    return make


def at_request(monkeypatch, number: int, act) -> None:
    """Do something before the n-th request with rows goes out, in the middle of a batch."""
    from vector_assets.clients.milvus_api import Api

    start, seen = Api._start, 0

    def acting(self, write):
        nonlocal seen
        seen += 1
        if seen == number:
            act()
        return start(self, write)

    monkeypatch.setattr(Api, "_start", acting)


def test_a_server_killed_in_mid_batch_is_waited_for_and_nothing_is_lost(make_job, own_milvus, monkeypatch):
    server = own_milvus()
    job, changes = make_job(server, max_rows=400)
    starting = threading.Thread(target=server.start)

    def crash():
        server.kill()
        starting.start()

    at_request(monkeypatch, 6, crash)
    job.run()
    starting.join()
    # milvus-lite forgets what was loaded, the next run sees to it
    assert job.run() == []
    job.assert_settled(changes.wanted())


def test_a_server_that_stays_away_is_reported_and_the_next_run_goes_on(make_job, milvus, proxy):
    gate = proxy(milvus.host, milvus.port)
    job, changes = make_job(settings="SET 'vector-assets.outage.timeout' = '1 s';")
    job.people.port = gate.port
    job.write()
    gate.stop()
    with pytest.raises(TransientError, match="UNAVAILABLE"):
        job.run()
    with job.open() as session:
        assert session.ledger.batches("people") == []
    gate.start()
    job.run()
    job.assert_settled(changes.wanted())


def test_answers_that_are_lost_make_no_row_wrong(make_job, milvus, proxy):
    gate = proxy(milvus.host, milvus.port)
    job, changes = make_job(max_rows=100)
    job.people.port = gate.port
    job.write()
    thread = threading.Thread(target=job.run)
    thread.start()
    for _ in range(5):
        gate.drop_connections()
        thread.join(0.1)
    thread.join(90)
    assert not thread.is_alive()
    job.assert_settled(changes.wanted())


def test_a_collection_dropped_in_mid_run_is_named_and_restored_from_the_archive(make_job, monkeypatch):
    job, changes = make_job(max_rows=100)
    with monkeypatch.context() as patch:
        at_request(patch, 12, job.people.drop)
        with pytest.raises(TargetReplacedError, match="was dropped"):
            job.run()
    with pytest.raises(PlanError, match="does not exist"):
        job.run()
    job.people.make_again()
    with pytest.raises(TargetReplacedError, match=r"reset people --adopt-target.*replay people"):
        job.run()
    with job.open() as session:
        operate.adopt_target(session, reason="made again by hand")
        done = session.ledger.batches("people")
    assert len(done) > 2
    assert job.run_apart("committed:2", what="replay") == -signal.SIGKILL
    assert job.run_apart(what="replay") == 0
    job.run()
    job.assert_settled(changes.wanted())


def test_wrong_credentials_are_one_clear_error_and_no_batch_is_begun(make_job, milvus_235, caplog):
    job, changes = make_job(milvus_235, operations=60)
    right = dict(milvus_235.login)
    milvus_235.login["password"] = "not-this-one"
    try:
        job.write()
    finally:
        milvus_235.login.update(right)
    with pytest.raises(ConfigError, match="UNAUTHENTICATED") as caught:
        job.run()
    assert "not-this-one" not in str(caught.value) + caplog.text
    with job.open() as session:
        assert session.ledger.batches("people") == []
    job.write()
    assert sum(outcome.batch.counts.records for outcome in job.run()) > 60
    # a null is a dead letter on 2.3.5, so not every row is there
    assert set(job.people.rows()) <= set(changes.wanted())
    assert job.run() == []


def test_a_rate_limit_that_is_lifted_in_time_loses_nothing(make_job, monkeypatch):
    """Stands in for a server's quota, which milvus-lite has not; that of 2.3.5 is in tests/sinks/test_milvus_235.py."""
    from vector_assets.clients.milvus import LimitedError
    from vector_assets.clients.milvus_api import Api

    settle, seen = Api._settle, 0

    def limited(self, write, future):
        nonlocal seen
        seen += 1
        if seen % 7 == 3:
            future.cancel()
            yield write, LimitedError("rate limit exceeded", retry_after=0.01)
        else:
            yield from settle(self, write, future)

    job, changes = make_job()
    with monkeypatch.context() as patch:
        patch.setattr(Api, "_settle", limited)
        job.run()
    assert seen > 20
    job.assert_settled(changes.wanted())


def lose(job) -> None:
    for file in (job.folder / "home").glob("ledger.db*"):
        file.unlink()


def books(job):
    """What the ledger knows that a rebuild must bring back."""
    with job.open() as session:
        ledger, where = session.ledger, ("people", session.pipeline.target)
        batches = [
            (b.seq, b.kind, b.state, b.span, b.first_splits, b.hour, b.archive, b.sidecar, b.commit_id, b.newest_ms,
             b.counts.written, b.counts.deleted)
            for b in ledger.batches(*where)
        ]  # fmt: skip
        return batches, ledger.position(*where), ledger.frozen_start(*where), ledger.incarnation(*where)


@pytest.mark.parametrize("step", ["", "sealed:2", "committed:2"], ids=["quiet", "sealed", "committed"])
def test_a_lost_ledger_is_refused_and_rebuilt_from_milvus_and_archive(make_job, step):
    job, changes = make_job()
    assert job.run_apart() == 0
    job.produce(changes.records(300))
    job.run_apart(step)
    before = books(job)
    lose(job)
    job.produce(changes.records(100))
    with pytest.raises(LedgerLostError, match=r"holds batches up to \d+ .* `vector-assets ledger rebuild"):
        job.run()
    with job.open() as session:
        assert not plan_rebuild(session).is_empty
        rebuild(session)
        assert plan_rebuild(session).is_empty
        assert check_books(session.books, deep=True).findings == ()
    if not step:
        assert books(job) == before
    job.run()
    job.assert_settled(changes.wanted())


def test_a_ledger_restored_from_an_older_copy_is_brought_forward(make_job, tmp_path):
    job, changes = make_job()
    job.run_apart()
    shutil.copytree(tmp_path / "home", tmp_path / "yesterday")
    job.produce(changes.records(300))
    job.run_apart()
    before = books(job)
    lose(job)
    for file in (tmp_path / "yesterday").glob("ledger.db*"):
        shutil.copy(file, tmp_path / "home")
    with pytest.raises(LedgerLostError):
        job.run()
    with job.open() as session:
        rebuild(session)
    assert books(job) == before
    job.run()
    job.assert_settled(changes.wanted())


def test_retention_prunes_the_collection_of_batches_and_the_next_batch_lands(make_job):
    settings = "SET 'vector-assets.retention.archive' = '7 d'; SET 'vector-assets.retention.ledger' = '30 d';"
    job, changes = make_job(settings=settings)
    job.run()
    with job.open() as session:
        ledger, where = session.ledger, ("people", session.pipeline.target)
        newest = ledger.newest_seq(*where)
        ledger.store.change("UPDATE batches SET done_ms = done_ms - ? WHERE seq <= 3", (31 * 86_400_000,))
        apply_retention(session)
        assert [b.seq for b in session.sink.recall("people").batches] == list(range(4, newest + 1))
        assert check_books(session.books, deep=True).findings == ()
        assert {outcome.how for outcome in Runner(session).replay(first=4)} == {"found"}
    job.produce(changes.records(100))
    job.run()
    assert job.people.rows() == changes.wanted()
    lose(job)
    with job.open() as session:
        assert rebuild(session).plan.folded == 3
    job.produce(changes.records(100))
    job.run()
    assert job.people.rows() == changes.wanted()
    assert job.run() == []


def test_explain_and_a_sample_read_rows_by_key(make_job):
    from vector_assets.engine.explain import explain_key
    from vector_assets.engine.sample import reconcile_sample

    job, changes = make_job()
    job.run()
    wanted = changes.wanted()
    with job.open() as session:
        gone = next(number for number in range(360) if number not in wanted)
        there = next(iter(wanted))
        assert explain_key(session, {"id": gone}).row is None
        assert explain_key(session, {"id": there}).row["age"] == wanted[there][1]
        found = reconcile_sample(session, 50, seed=1)
        assert found.is_right(), found.findings
        assert found.sampled > 20
