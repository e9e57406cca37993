import os
import signal
import time

import pytest

from tests.faults.car import CarJob
from vector_assets.engine import env

pytestmark = pytest.mark.service
IDS = range(200)


@pytest.fixture
def job(tmp_path, kafka, postgres):
    job = CarJob(tmp_path, kafka, postgres)
    job.produce(IDS)
    job.produce_raw([b"cut"], 0)
    return job


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("step", env.STEPS)
def test_kill_9_between_two_states_loses_and_doubles_nothing(job, step, number):
    code, output = job.run_apart(f"{step}:{number}")
    assert code == -signal.SIGKILL, output
    job.run()
    job.assert_settled(IDS)
    with job.open() as session:
        assert [letter.offset for letter in session.ledger.dead_letters.listed()] == [100]


@pytest.mark.parametrize("step", ["planned", "sealed", "staged", "committed", "done"])
def test_kill_9_over_a_postgres_ledger_loses_and_doubles_nothing(tmp_path, kafka, postgres, postgres_ledger, step):
    job = CarJob(tmp_path, kafka, postgres, ledger=postgres_ledger)
    job.produce(IDS)
    code, output = job.run_apart(f"{step}:2")
    assert code == -signal.SIGKILL, output
    job.run()
    job.assert_settled(IDS)
    assert not (tmp_path / "home" / "ledger.db").exists()


def test_a_second_crash_while_resuming_changes_nothing(job):
    for step in ("staged:2", "committed:1", "committing:1", "sealed:1"):
        code, output = job.run_apart(step)
        assert code == -signal.SIGKILL, output
    job.run()
    job.assert_settled(IDS)


def test_a_commit_the_ledger_never_heard_of_is_found_in_the_target(job):
    code, _ = job.run_apart("committed:2")
    assert code == -signal.SIGKILL
    outcomes = job.run()
    assert outcomes[0].how == "found"
    assert outcomes[0].batch.counts.written > 0
    job.assert_settled(IDS)


@pytest.mark.parametrize("step", ["staged", "committing"])
def test_a_zombie_that_wakes_up_is_refused_by_the_target(job, step):
    zombie = job.start(f"{step}:2:stop")
    wait_for_stop(zombie)
    job.run()
    assert job.rows() == list(IDS)
    os.kill(zombie.pid, signal.SIGCONT)
    output, _ = zombie.communicate(timeout=60)
    assert zombie.returncode == 1, output
    assert "fence" in output or "stands at" in output, output
    job.assert_settled(IDS)


def wait_for_stop(process):
    deadline = time.monotonic() + 60
    while True:
        with open(f"/proc/{process.pid}/stat") as stat:
            if stat.read().rpartition(")")[2].split()[0] == "T":
                return
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the failpoint was not reached"
        time.sleep(0.02)


def test_two_runs_at_once_land_everything_once(job):
    first, second = job.start(), job.start()
    for process in (first, second):
        output, _ = process.communicate(timeout=90)
        assert process.returncode == 0, output
    job.assert_settled(IDS)
