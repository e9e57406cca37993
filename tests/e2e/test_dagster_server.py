"""`dagster dev` as `make dev` starts it: the sensor, a backfill, the continuous mode, terminated runs, a lake job."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import dagster as dg
import pytest
from typer.testing import CliRunner

from tests.defs.project import REPOSITORY, Project, until
from vector_assets.cli import app
from vector_assets.defs import names
from vector_assets.engine.env import child_environment, overridden
from vector_assets.local import ports

PAST, QUIET = "2026-01-02-03:00", "2026-01-02-04:00"
LOCATION = {"repositoryLocationName": "vector_assets", "repositoryName": "__repository__"}

BACKFILL = """mutation ($keys: [String!]!) { launchPartitionBackfill(backfillParams: {
  assetSelection: [{path: ["car_info"]}], partitionNames: $keys}) { __typename
  ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
BACKFILL_STATUS = """query ($id: String!) { partitionBackfillOrError(backfillId: $id) {
  ... on PartitionBackfill { status } } }"""
LAUNCH = """mutation ($selector: JobOrPipelineSelector!) { launchRun(executionParams: {selector: $selector}) {
  __typename
  ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
TERMINATE = """mutation ($id: String!) { terminateRun(runId: $id) { __typename } }"""
TICKS = """query ($selector: SensorSelector!) { sensorOrError(sensorSelector: $selector) {
  ... on Sensor { sensorState { status ticks(limit: 20) { id status skipReason runIds error { message } } } } } }"""

TAGGED = {names.PIPELINE_TAG: "orders"}
ONGOING = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]


class Server:
    """A running `dagster dev` and its GraphQL."""

    def __init__(self, project: Project) -> None:
        self.port = ports.choose()
        self.log = project.folder / "dev.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    str(Path(sys.executable).with_name("dagster")), "dev", "--host", "127.0.0.1",
                    "--port", str(self.port), "--workspace", "workspace.yaml",
                ],
                cwd=REPOSITORY, env=child_environment(**project.variables), stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

    def ask(self, query: str, **variables: object) -> dict[str, object]:
        """The data that GraphQL answers."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)
        assert not found.get("errors"), found
        return found["data"]

    def is_up(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return bool(self.ask("{ version }"))
        except (urllib.error.URLError, ConnectionError):
            return False

    def ticks(self, sensor: str = "car_info_sensor") -> list[dict[str, object]]:
        """The sensor's last ticks, newest first."""
        found = self.ask(TICKS, selector={**LOCATION, "sensorName": sensor})
        return found["sensorOrError"]["sensorState"]["ticks"]

    def backfill(self, hour: str) -> str:
        """Ask for an hour again, as the UI does; the backfill's id."""
        launched = self.ask(BACKFILL, keys=[hour])["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        return launched["backfillId"]

    def outcome(self, backfill: str) -> str:
        return self.ask(BACKFILL_STATUS, id=backfill)["partitionBackfillOrError"]["status"]

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)


@pytest.fixture
def project(tmp_path, kafka, postgres):
    return Project(tmp_path, kafka, postgres)


@pytest.fixture
def server(project):
    running = Server(project)
    try:
        until("the web server", running.is_up)
        yield running
    finally:
        running.stop()


def statuses(instance, **filters):
    return [record.dagster_run.status for record in instance.get_run_records(dg.RunsFilter(**filters))]


def of_backfill(instance, backfill):
    return statuses(instance, tags={"dagster/backfill": backfill})


def is_quiet(instance):
    return all(status in {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.CANCELED} for status in statuses(instance))


def test_a_server_lands_new_records_replays_a_past_hour_and_follows_the_topic(project, server):
    with project.instance() as instance:
        # the sensor is on without anybody having turned it on
        project.produce(range(250))
        until("the records", lambda: len(project.rows()) == 250)
        until("a tick without anything new", lambda: server.ticks()[0]["skipReason"] == "nothing new")
        assert [tick["error"] for tick in server.ticks()] == [None] * len(server.ticks())
        until("the end of the run", lambda: is_quiet(instance))

        # an hour of the past, filled from the UI, leaves the table unchanged; one without batches is no success
        project.move_batches(PAST)
        before, told = project.rows(), len(project.materializations(instance))
        backfills = [server.backfill(hour) for hour in (PAST, QUIET)]
        done = [[dg.DagsterRunStatus.SUCCESS]] * 2
        until("the ends of their runs", lambda: [of_backfill(instance, each) for each in backfills] == done)
        replayed = project.materializations(instance)[told:]
        assert {(event.partition, event.metadata["how"].value) for event in replayed} == {(PAST, "found")}
        assert project.rows() == before

        # the continuous mode lands records without a run for each, until it is terminated
        runs = len(statuses(instance))
        selector = {**LOCATION, "pipelineName": "car_info_continuous"}
        launched = server.ask(LAUNCH, selector=selector)["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        run = launched["run"]["runId"]
        until("its start", lambda: instance.get_run_by_id(run).status is dg.DagsterRunStatus.STARTED)
        for first in (250, 270):
            told = len(project.materializations(instance))
            project.produce(range(first, first + 20))
            until("followed records", lambda first=first: len(project.rows()) == first + 20)
            until("their event", lambda told=told: len(project.materializations(instance)) > told)
        until(
            "a tick that leaves it alone", lambda: "of car_info_continuous" in (server.ticks()[0]["skipReason"] or "")
        )
        assert server.ask(TERMINATE, id=run)["terminateRun"]["__typename"] == "TerminateRunSuccess"
        until("its end", lambda: instance.get_run_by_id(run).status is dg.DagsterRunStatus.CANCELED)
        assert len(statuses(instance)) == runs + 1

        # Dagster looks twice a minute whether a backfill has ended
        ends = ["COMPLETED_SUCCESS", "COMPLETED_FAILED"]
        until("the backfills' ends", lambda: [server.outcome(backfill) for backfill in backfills] == ends)
        books = project.books()
        assert not books.ledger.unfinished("car_info", books.ledger.batches("car_info")[0].target)
        assert not books.ledger.leases.is_held("car_info", books.ledger.batches("car_info")[0].target)
        books.close()
        assert project.ids() == list(range(290))


class LakeJob:
    """A lake job that is made by command, over a topic of its own."""

    def __init__(self, project: Project) -> None:
        self.project, self.topic = project, project.kafka.create_topic()
        self("sources", "create", "shop", "--brokers", project.kafka.bootstrap_servers, "--topic", self.topic)

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """What a command says; it ends with `code`."""
        with overridden(**self.project.variables):
            done = CliRunner().invoke(app, arguments)
        assert done.exit_code == code, done.output
        return done.stdout if code == 0 else done.stderr

    def produce(self, *documents: dict[str, object]) -> None:
        self.project.kafka.produce(self.topic, [json.dumps(each) for each in documents])

    def state(self) -> dict[str, object]:
        """What `jobs status` tells."""
        (found,) = json.loads(self("jobs", "status", "orders", "--json"))["jobs"]
        return found

    def written(self) -> int:
        """Rows that the ledger knows of."""
        books = self.project.books()
        try:
            return books.ledger.totals("orders", "iceberg://lake/shop.orders")[1].written
        finally:
            books.close()


def test_a_lake_job_made_beside_a_server_starts_fails_at_drift_goes_on_and_stops(project, server):
    job = LakeJob(project)
    job.produce(*({"id": number} for number in range(30)))
    form = ("--source", "shop", "--database", "shop", "--table", "orders", "--on-drift", "fail")
    job("jobs", "create", "orders", *form, "--commit-interval", "1 s")
    job("jobs", "start", "orders")
    with project.instance() as instance:
        until("the first records", lambda: job.written() == 30)
        until("the end of the run", lambda: is_quiet(instance))
        assert job.state()["status"] == "Running"

        # drift stops the job by name, place and reason, and moves nothing
        job.produce({"id": 30}, {"id": 31, "colour": "red"})
        failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])
        until("the failure", lambda: instance.get_run_records(failed))
        state = job.state()
        assert (state["status"], state["written"], state["lag"]) == ("Failed", 30, 2)
        log = job("jobs", "logs", "orders", "--run", instance.get_run_records(failed)[0].dagster_run.run_id)
        assert re.search(rf"orders: batch 2, {job.topic}@\S+, offset 31: lake-json: drift: found member colour", log), (
            log
        )

        # another mode goes on without a reload
        job("jobs", "edit", "orders", "--set", "on_drift=rescue")
        until("the rest", lambda: job.written() == 32)
    assert "is running: `vector-assets jobs stop orders` first" in job("jobs", "delete", "orders", "--yes", code=1)
    assert "is read by orders" in job("sources", "delete", "shop", "--yes", code=1)
    job("jobs", "stop", "orders")
    with project.instance() as instance:
        until("the end of its runs", lambda: not instance.get_run_records(dg.RunsFilter(statuses=ONGOING)))
        runs = len(statuses(instance, tags=TAGGED))
        job.produce({"id": 32})
        told = server.ticks("new_lake_jobs_sensor")[0]
        until("another tick", lambda: server.ticks("new_lake_jobs_sensor")[0] != told)
        assert len(statuses(instance, tags=TAGGED)) == runs
    state = job.state()
    assert (state["status"], state["written"], state["lag"]) == ("Stopped", 32, 1)
    job("jobs", "delete", "orders", "--yes")
    job("sources", "delete", "shop", "--yes")
