"""`jobs start|stop|status|logs`: the sensor's state in a real Dagster instance, no daemon at work."""

import shutil
from pathlib import Path

import dagster as dg
import pytest

from tests.declare.lake import JOB, SOURCE
from vector_assets.cli.job_state import state_of
from vector_assets.defs import names
from vector_assets.engine.env import secret_variable

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def instance(home, monkeypatch):
    """An instance of the test's own, and a job that is declared."""
    folder = home / "dagster_home"
    folder.mkdir()
    shutil.copy(REPOSITORY / "dagster_home" / "dagster.yaml", folder)
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    jaas = 'org.apache.kafka.common.security.plain.PlainLoginModule required username="me" password="p";'
    monkeypatch.setenv(secret_variable("shop_jaas"), jaas)
    (home / "pipelines" / "orders.yaml").write_text(f"{SOURCE}---\n{JOB}")
    return folder


def test_a_job_is_started_and_stopped_without_a_daemon(cli, instance):
    started = cli("jobs", "start", "orders", "--json").json
    assert started == {
        "name": "orders",
        "status": "Starting",
        "why": "no Dagster daemon is running: it works when `dagster dev` does",
    }
    refused = cli("jobs", "delete", "orders", "--yes")
    assert "job orders is running: `vector-assets jobs stop orders` first" in refused.err
    assert cli("jobs", "stop", "orders", "--json").json["status"] == "Stopped"


def test_the_log_of_a_run_is_shown(cli, instance):
    @dg.op
    def work(context: dg.OpExecutionContext) -> None:
        context.log.info("30 records landed")

    @dg.job(name="orders_by_hand")
    def job() -> None:
        work()

    with dg.DagsterInstance.from_config(str(instance)) as opened:
        done = job.execute_in_process(instance=opened, tags={names.PIPELINE_TAG: "orders"})
    found = cli("jobs", "logs", "orders", "--run", done.run_id[:8])
    assert f"run {done.run_id} of orders_by_hand: SUCCESS" in found.out
    assert "30 records landed" in found.out
    assert "known: debug, info" in cli("jobs", "logs", "orders", "--level", "loud").err
    listed = cli("jobs", "status", "--json").json["jobs"][0]
    assert (listed["run"]["id"], listed["status"]) == (done.run_id, "Stopped")


def states(sensor: str | None, run: str | None = None, *, ended: str | None = None, daemon: bool = True):
    """`run` is the newest run's state, `ended` that of the newest one that is over, if it is another."""
    runs = {"orders": {"id": "12345678-9", "status": run}} if run else {}
    over = {"orders": {"id": "98765432-1", "status": ended}} if ended else {}
    if run in {"SUCCESS", "FAILURE", "CANCELED"}:
        over = runs
    sensors = {"orders_sensor": sensor} if sensor else {}
    return {"sensors": sensors, "runs": runs, "ended": over, "daemon": daemon}


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (None, "Unknown"),
        (states(None), "Not started"),
        (states("STOPPED"), "Stopped"),
        (states(None, "SUCCESS"), "Stopped"),
        (states("STOPPED", "STARTED"), "Stopping"),
        (states("RUNNING"), "Starting"),
        (states("RUNNING", "QUEUED"), "Running"),
        (states("RUNNING", "SUCCESS"), "Running"),
        (states("RUNNING", "FAILURE"), "Failed"),
        (states("RUNNING", "STARTED", ended="FAILURE"), "Failed"),
        (states("RUNNING", "STARTED", ended="SUCCESS"), "Running"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_status_follows_from_sensor_and_run(found, status):
    assert state_of("orders", None, found).status == status


@pytest.mark.parametrize(
    ("sensors", "status", "why"),
    [
        ({"orders_sensor": "RUNNING"}, "Failed", "its next run would stop: it is wrong"),
        ({"orders_sensor": "STOPPED"}, "Stopped", "its sensor is off; a run would stop: it is wrong"),
        ({}, "Not started", "a run would stop: it is wrong"),
    ],
    ids=["on", "off", "never on"],
)
def test_a_job_whose_next_run_would_stop_says_so(sensors, status, why):
    found = state_of("orders", None, {"sensors": sensors, "runs": {}, "ended": {}, "daemon": True}, "it is wrong")
    assert (found.status, found.why) == (status, why)


def test_a_job_that_tries_again_still_names_the_run_that_failed():
    found = state_of("orders", None, states("RUNNING", "STARTED", ended="FAILURE"))
    how = "`vector-assets jobs logs orders --run 98765432` says why"
    assert found.why == f"run 98765432 failed, run 12345678 tries again; {how}"


def test_a_job_that_is_on_says_when_no_daemon_works():
    assert "no Dagster daemon" in state_of("orders", None, states("RUNNING", "SUCCESS", daemon=False)).why
    assert "jobs logs orders" in state_of("orders", None, states("RUNNING", "FAILURE")).why
