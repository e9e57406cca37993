"""Paimon under kill -9, zombies, two writers, lost ledgers, full disks, dropped tables: nothing lost, nothing twice."""

import os
import shutil
import signal
from contextlib import suppress
from datetime import timedelta

import pytest

from tests.faults.disks import Tmpfs, small
from tests.faults.paimon_job import APPEND, KEYED, PaimonJob
from tests.faults.test_crash import wait_for_stop
from vector_assets.engine import env, operate
from vector_assets.engine.abilities import Upkeep
from vector_assets.engine.errors import LedgerLostError, TargetReplacedError, TransientError
from vector_assets.engine.rebuild_write import rebuild
from vector_assets.engine.reconcile import reconcile
from vector_assets.engine.run import Runner
from vector_assets.engine.upkeep import TASKS, maintain

pytestmark = pytest.mark.service
IDS = range(200)


@pytest.fixture
def job(tmp_path, kafka):
    job = PaimonJob(tmp_path, kafka)
    job.produce(IDS)
    return job


@pytest.mark.parametrize("kind", [APPEND, KEYED], ids=["append", "key"])
@pytest.mark.parametrize("step", env.STEPS)
def test_kill_9_between_two_states_loses_and_doubles_nothing(tmp_path, kafka, kind, step):
    job = PaimonJob(tmp_path, kafka, kind=kind)
    job.produce(IDS)
    code, output = job.run_apart(f"{step}:2")
    assert code == -signal.SIGKILL, output
    job.run()
    job.assert_settled(IDS)


@pytest.mark.parametrize("step", ["staged", "committing"])
def test_a_zombie_that_wakes_up_is_refused_by_the_table(job, step):
    zombie = job.start(f"{step}:2:stop")
    wait_for_stop(zombie)
    job.run()
    os.kill(zombie.pid, signal.SIGCONT)
    output, _ = zombie.communicate(timeout=60)
    assert zombie.returncode == 1, output
    assert "fence" in output or "not the next one" in output, output
    job.assert_settled(IDS)


@pytest.mark.parametrize("step", ["committed", "staged"])
def test_a_snapshot_that_expires_between_crash_and_retry_takes_no_token_with_it(job, step):
    code, output = job.run_apart(f"{step}:2")
    assert code == -signal.SIGKILL, output
    with job.open() as session:
        # every snapshot but the newest, and every file that nobody knows
        for task in TASKS:
            maintain(session, task, Upkeep(grace=timedelta(0), keep_snapshots=1, keep_for=timedelta(0)))
    assert len(job.snapshots()) == 1
    job.run()
    job.assert_settled(IDS)


def test_batches_whose_snapshots_are_expired_are_found_by_a_replay_and_not_held_against_the_table(job):
    job.run()
    with job.open() as session:
        maintain(session, "expire", Upkeep(grace=timedelta(0), keep_snapshots=1, keep_for=timedelta(0)))
        assert {outcome.how for outcome in Runner(session).replay()} == {"found"}
        report = reconcile(session)
    assert report.is_right(), report
    job.assert_settled(IDS)


def test_two_runs_at_once_land_everything_once(job):
    runs = [job.start(), job.start()]
    for process in runs:
        output, _ = process.communicate(timeout=90)
        assert process.returncode == 0, output
    job.assert_settled(IDS)


def test_a_lost_ledger_is_noticed_and_rebuilt_from_the_snapshots(job):
    job.run()
    (job.folder / "home" / "ledger.db").unlink()
    job.produce(range(200, 210))
    with pytest.raises(LedgerLostError):
        job.run()
    with job.open() as session:
        rebuild(session)
    job.run()
    job.assert_settled(range(210))


@pytest.mark.parametrize("kind", [APPEND, KEYED], ids=["append", "key"])
def test_a_dropped_table_is_named_and_restored_from_the_archive_with_equal_rows_after_the_topic_is_gone(
    tmp_path, kafka, kind
):
    job = PaimonJob(tmp_path, kafka, kind=kind)
    job.produce(IDS)
    job.run()
    with job.open() as session:
        checksum = sorted(map(str, session.sink.relation().read_all().to_pylist()))
    shutil.rmtree(job.path)
    kafka.admin.delete_topics([job.topic])
    with pytest.raises(TargetReplacedError), job.open() as session:
        list(Runner(session).catch_up())
    with job.open() as session:
        operate.adopt_target(session, reason="dropped by a test")
        outcomes = list(Runner(session).replay())
        assert {outcome.how for outcome in outcomes} == {"applied"}
        assert sorted(map(str, session.sink.relation().read_all().to_pylist())) == checksum
        assert {outcome.how for outcome in Runner(session).replay()} == {"found"}
        assert reconcile(session).is_right()
    assert job.rows() == [(i, i * 10, "red") for i in IDS]


def test_reconcile_is_green(tmp_path, kafka):
    job = PaimonJob(tmp_path, kafka, kind=KEYED)
    job.produce(IDS)
    job.run()
    with job.open() as session:
        report = reconcile(session)
    assert report.is_right(), report


def fill(path):
    """Take all that is left of a disk."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 12))


def test_a_full_warehouse_is_named_shows_nothing_partial_and_the_next_run_completes(tmp_path, kafka):
    with small(Tmpfs, tmp_path / "disk") as disk:
        job = PaimonJob(tmp_path, kafka, disk.folder / "warehouse")
        job.produce(range(20))
        job.run()
        filler = disk.folder / "filler"
        fill(filler)
        job.produce(range(20, 40))
        before = job.snapshots()
        with pytest.raises(TransientError, match=r"paimon: .*warehouse.*No space"), job.open() as session:
            list(Runner(session).catch_up())
        assert job.snapshots() == before
        disk.grow()
        filler.unlink()
        job.run()
        job.assert_settled(range(40))
