"""A table that is followed while processes are killed, partitions change and sessions end."""

import signal

import pytest

from tests.faults.visits import VisitJob
from vector_assets.engine import env
from vector_assets.engine.errors import PositionLostError, UnavailableError

pytestmark = pytest.mark.service


@pytest.fixture
def job(tmp_path, maxcompute, postgres):
    job = VisitJob(tmp_path, maxcompute, postgres)
    job.table.add("20180904", ids=range(50))
    job.table.add("20180905", ids=range(50, 80))
    return job


@pytest.mark.parametrize("step", env.STEPS)
def test_kill_9_between_two_states_loses_and_doubles_nothing(job, step):
    code, output = job.run_apart(f"{step}:2")
    assert code == -signal.SIGKILL, output
    job.run()
    job.assert_settled(range(80))
    assert set(job.batches()) == {("records", "ds=20180904"), ("records", "ds=20180905")}


@pytest.mark.parametrize("step", ["planned", "committed"])
def test_kill_9_and_an_expired_session_lose_and_double_nothing(job, maxcompute, step):
    code, output = job.run_apart(f"{step}:2")
    assert code == -signal.SIGKILL, output
    maxcompute.service.ask("POST", "sessions", {"expire": "all"})
    job.run()
    job.assert_settled(range(80))


def half_read(job, step="done:1"):
    """Killed with at most three batches of the first partition's five read."""
    code, output = job.run_apart(step)
    assert code == -signal.SIGKILL, output


CHANGES = {
    "modified": ("MODIFIED", lambda table: table.add("20180904", ids=[999])),
    "dropped": ("DELETED", lambda table: table.drop("20180904")),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("step", ["planned:2", "done:1"])
def test_skip_keeps_what_was_read_passes_over_the_rest_and_goes_on(job, change, step):
    job.write(operation="SKIP", max_rows=10)
    half_read(job, step)
    kind, apply = CHANGES[change]
    apply(job.table)
    job.run()
    kept = job.ids()
    rest = [number for number in kept if number < 50]
    # whole batches of 10: what was sealed before the kill, of three in flight
    assert rest == list(range(len(rest)))
    assert len(rest) in {0, 10, 20, 30}
    assert kept[len(rest) :] == list(range(50, 80))
    assert job.gaps() == [(kind, len(rest), 50, "skipped")]
    assert ("reset", "ds=20180904") in job.batches()
    job.assert_settled(kept)


@pytest.mark.parametrize("change", CHANGES)
def test_none_stops_and_the_start_that_it_names_goes_on_after_the_partition(job, change):
    job.write(max_rows=10)
    half_read(job, "committed:1")
    kind, apply = CHANGES[change]
    apply(job.table)
    for _ in range(2):
        with pytest.raises(PositionLostError, match="set 'startPartition' = 'ds=20180905'") as lost:
            job.run()
    assert lost.value.kind == kind
    kept = job.ids()
    assert kept == list(range(len(kept)))
    assert [gap[0::3] for gap in job.gaps()] == [(kind, "open")]
    job.write(start="ds=20180905")
    job.run()
    job.assert_settled([*kept, *range(50, 80)])
    assert [gap[0::3] for gap in job.gaps()] == [(kind, "skipped")]


def test_a_dead_service_fails_the_run_after_its_outage_and_shows_no_key(job, maxcompute):
    job.write(endpoint="http://127.0.0.1:9")
    with pytest.raises(UnavailableError) as error:
        job.run()
    assert maxcompute.service.access_key not in str(error.value)
    job.write(endpoint=maxcompute.service.endpoint)
    job.run()
    job.assert_settled(range(80))


def test_the_command_line_speaks_the_spec(job):
    code, output = job.run_apart(command="run --partition ds=20180905")
    assert code == 0, output
    assert job.ids() == list(range(50, 80))
    code, output = job.run_apart(command="run --partition ds=20180906")
    assert code != 0
    assert "the source has no partition 'ds=20180906'" in output
    job.run()
    code, output = job.run_apart(command="replay --partition ds=20180904")
    assert code == 0, output
    code, output = job.run_apart(command="status --batches 9 --json")
    assert '"partition": "ds=20180904"' in output, output
    code, output = job.run_apart(command="replay --partition 2026-01-01-00:00")
    assert code != 0
    assert "want levels and values" in output
    code, output = job.run_apart(command="plan")
    assert "those of the source, startPartition" in output, output
