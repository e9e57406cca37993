"""A table that plain pyodps fills: `dagster dev` picks its partitions up as they appear; CI asks for one by name."""

import shutil
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from tests.defs.project import REPOSITORY, until
from tests.e2e.test_dagster_server import BACKFILL_STATUS, LOCATION, TICKS, Server
from tests.faults.visits import VisitJob
from vector_assets.engine.env import child_environment, overridden

pytestmark = pytest.mark.service

KEY = dg.AssetKey("visits")
BACKFILL = """mutation ($keys: [String!]!) { launchPartitionBackfill(backfillParams: {
  assetSelection: [{path: ["visits"]}], partitionNames: $keys}) { __typename
  ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""


class Project:
    """The job with a DAGSTER_HOME."""

    def __init__(self, folder: Path, maxcompute, postgres) -> None:
        self.folder = folder
        self.job = VisitJob(folder, maxcompute, postgres, quiet="2 s")
        (folder / "dagster_home").mkdir()
        shutil.copy(REPOSITORY / "dagster_home" / "dagster.yaml", folder / "dagster_home")
        self.variables = {**self.job.environment, "DAGSTER_HOME": str(folder / "dagster_home")}

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            arguments, cwd=REPOSITORY, env=child_environment(**self.variables), capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip

    def materialize(self, partition: str) -> subprocess.CompletedProcess[str]:
        """As CI does it."""
        return self.command(
            str(Path(sys.executable).with_name("dagster")), "asset", "materialize", "-m", "vector_assets.definitions",
            "--select", "visits", "--partition", partition,
        )  # fmt: skip

    def instance(self) -> dg.DagsterInstance:
        home = self.variables["DAGSTER_HOME"]
        with overridden(DAGSTER_HOME=home):
            return dg.DagsterInstance.from_config(home)


@pytest.fixture
def project(tmp_path, maxcompute, postgres, monkeypatch):
    # dagster.yaml names it
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster_home"))
    return Project(tmp_path, maxcompute, postgres)


def landed(instance, run=None):
    """Partition of every materialization, oldest first; of those of one run, if it is named."""
    records = instance.fetch_materializations(KEY, limit=1000, ascending=True).records
    return [record.partition_key for record in records if run in (None, record.run_id)]


def test_partitions_are_picked_up_as_they_appear_and_a_new_one_after_that(project):
    job = project.job
    job.table.add("20180905", ids=range(50, 80))
    job.table.add("20180904", ids=range(50))
    server = Server(project)
    try:
        until("the web server", server.is_up)
        with project.instance() as instance:
            until("both partitions", lambda: job.ids() == list(range(80)))
            until("their events", lambda: len(set(landed(instance))) == 2)
            assert landed(instance) == sorted(landed(instance))

            # from the UI, any partition again; Dagster looks twice a minute whether a backfill has ended
            before = job.rows()
            found = server.ask(BACKFILL, keys=["ds=20180904"])["launchPartitionBackfill"]
            assert found["__typename"] == "LaunchBackfillSuccess", found
            identity = found["backfillId"]

            job.table.add("20180906", ids=range(80, 90))
            until("the new partition", lambda: job.ids() == list(range(90)))
            until("its event", lambda: "ds=20180906" in landed(instance))
            origin = dg.AssetKey(["maxcompute", "local", job.table.name])
            observed = instance.fetch_observations(origin, limit=10).records
            assert observed[0].asset_observation.metadata["max_pt"].value == "ds=20180906"

            # its own batches, and no row is touched
            until(
                "the backfill's end",
                lambda: (
                    server.ask(BACKFILL_STATUS, id=identity)["partitionBackfillOrError"]["status"]
                    == "COMPLETED_SUCCESS"
                ),
            )
            (record,) = instance.get_run_records(dg.RunsFilter(tags={"dagster/backfill": identity}))
            assert set(landed(instance, record.dagster_run.run_id)) == {"ds=20180904"}
            assert job.rows()[: len(before)] == before
            ticks = server.ask(TICKS, selector={**LOCATION, "sensorName": "visits_sensor"})
            found = ticks["sensorOrError"]["sensorState"]["ticks"]
            assert [tick["error"] for tick in found] == [None] * len(found)
    finally:
        server.stop()


def test_ci_adds_the_partitions_and_asks_for_one_by_its_spec(project):
    job = project.job
    job.write(quiet="0 s")
    job.table.add("20180904", ids=range(50))
    job.table.add("20180905", ids=range(50, 80))
    added = project.command(sys.executable, "-m", "vector_assets.defs.partitions", "visits")
    assert added.stdout.split() == ["visits", "ds=20180904", "visits", "ds=20180905"], added.stderr
    done = project.materialize("ds=20180905")
    assert done.returncode == 0, done.stderr
    assert job.ids() == list(range(50, 80))
    assert project.materialize("ds=20180907").returncode != 0


def test_one_command_materializes_what_is_not_read_in_order(project):
    job = project.job
    job.write(quiet="0 s")
    for day, ids in (("20180904", range(50)), ("20180905", range(50, 80))):
        job.table.add(day, ids=ids)
    command = [sys.executable, "-m", "vector_assets.defs.partitions", "--materialize", "visits"]
    done = project.command(*command)
    assert done.stdout.split() == ["visits", "ds=20180904", "visits", "ds=20180905"], done.stderr
    assert job.ids() == list(range(80))
    with project.instance() as instance:
        assert list(dict.fromkeys(landed(instance))) == ["ds=20180904", "ds=20180905"]
    before = job.rows()
    again = project.command(*command)
    assert (again.returncode, again.stdout, job.rows()) == (0, "", before)
    job.write(quiet="1 h")
    job.table.add("20180906", ids=range(80, 90))
    assert project.command(*command).stdout == ""
