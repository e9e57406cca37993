"""Tables of the local MaxCompute server in Dagster: partitions added, asked for in order, observed, and finished."""

import dagster as dg
import pytest

from tests.sources.following import Followed
from vector_assets.declare import flink_sql
from vector_assets.defs import assets, factory, probe, sensors
from vector_assets.engine.errors import ConfigError

pytestmark = pytest.mark.service
SCRIPT = """
SET 'pipeline.name' = 'visits';
CREATE TEMPORARY TABLE odps_source (id BIGINT, name VARCHAR) WITH ('connector' = 'odps', {options});
CREATE TEMPORARY TABLE away (id BIGINT, name VARCHAR) WITH ('connector' = 'blackhole');
INSERT INTO away SELECT id, name FROM odps_source;
"""


class Job:
    """A pipeline over a table, its sensor, and a Dagster instance."""

    def __init__(self, maxcompute, instance, levels="ds string") -> None:
        self.maxcompute, self.instance = maxcompute, instance
        self.table = Followed(maxcompute, levels)
        self.cursor = None

    def pipeline(self, **options):
        service = self.maxcompute.service
        given = {
            "endpoint": service.endpoint, "project": "local", "tableName": self.table.name, "sleepMillis": "10",
            "accessId": service.access_id, "accessKey": service.access_key,
        } | options  # fmt: skip
        written = ", ".join(f"'{name}' = '{value}'" for name, value in given.items())
        (self.made,) = flink_sql.compile_script(SCRIPT.format(options=written), "visits.sql")
        return self.made

    def tick(self):
        """Evaluate the sensor, and add the partitions it asks for."""
        with dg.build_sensor_context(instance=self.instance, cursor=self.cursor) as context:
            found = sensors.of(self.made)(context)
        if isinstance(found, dg.SensorResult):
            self.cursor = found.cursor
            for added in found.dynamic_partitions_requests or []:
                self.instance.add_dynamic_partitions(added.partitions_def_name, added.partition_keys)
        return found

    def run(self, request):
        made = [assets.of(self.made)]
        return dg.materialize(
            made, partition_key=request.partition_key, run_config=request.run_config, tags=request.tags,
            instance=self.instance,
        )  # fmt: skip

    def landed(self):
        records = self.instance.fetch_materializations(dg.AssetKey("visits"), limit=100, ascending=True).records
        return [record.partition_key for record in records]


@pytest.fixture
def job(maxcompute, instance, tmp_path, monkeypatch):
    monkeypatch.setenv("VECTOR_ASSETS_HOME", str(tmp_path))
    yield Job(maxcompute, instance)
    probe.forget()


FOLLOW = {"startPartition": "ds=20180901", "vector-assets.partition.quiet": "0 s"}


def test_a_followed_table_is_asked_for_in_order_and_goes_on(job):
    pipeline = job.pipeline(**FOLLOW)
    dg.Definitions.validate_loadable(factory.definitions([pipeline]))
    assert sensors.of(pipeline).minimum_interval_seconds == 30
    for day in ("20180905", "20180904", "20180831"):
        job.table.add(day)
    for request in job.tick().run_requests:
        assert job.run(request).success
    assert job.landed() == ["ds=20180904", "ds=20180905"]
    assert job.tick().skip_reason.skip_message == "nothing new"
    job.table.add("20180906")
    assert [request.partition_key for request in job.tick().run_requests] == ["ds=20180906"]


def test_a_partition_that_is_being_written_is_told_and_observed(job):
    job.pipeline(**{**FOLLOW, "vector-assets.partition.quiet": "1 h"})
    job.table.add("20180905", ids=range(3))
    found = job.tick()
    assert found.skip_reason.skip_message.startswith("ds=20180905 still being written: it changed ")
    assert found.dynamic_partitions_requests == []
    (observation,) = found.asset_events
    assert observation.asset_key == dg.AssetKey(["maxcompute", "local", job.table.name])
    assert observation.metadata["max_pt"].value == "ds=20180905"
    assert observation.metadata["state"].value.startswith("still being written")
    job.table.add("20180905", ids=range(3))
    assert "rows grew" in job.tick().skip_reason.skip_message


def test_full_mode_has_the_partitions_that_it_means_and_ends(job):
    for day in ("20180905", "20180904", "20190101"):
        job.table.add(day)
    job.pipeline(partition="ds=2018*")
    found = job.tick()
    assert [request.partition_key for request in found.run_requests] == ["ds=20180904", "ds=20180905"]
    assert job.run(found.run_requests[1]).success
    assert job.run(found.run_requests[0]).success
    assert job.landed() == ["ds=20180905", "ds=20180904"]
    job.table.add("20180906")
    assert job.tick().skip_message == "finished: its bound is reached"


def test_a_partition_of_full_mode_that_is_gone_before_it_was_read_is_an_error(job):
    for day in ("20180904", "20180905"):
        job.table.add(day)
    job.pipeline(partition="ds=2018*")
    assert job.run(job.tick().run_requests[0]).success
    job.table.drop("20180905")
    (request,) = job.tick().run_requests
    with pytest.raises(dg.Failure, match="DELETED"):
        job.run(request)


def test_a_table_without_partitions_belongs_to_hours(job):
    job.table.name = job.maxcompute.table("id bigint, name string").name
    assert isinstance(assets.partitions(job.pipeline()), dg.HourlyPartitionsDefinition)
    assert isinstance(job.tick(), dg.RunRequest)
    job.pipeline(partition="ds=1")
    with pytest.raises((ConfigError, dg.DagsterError), match="the table has no partitions"):
        job.tick()


def test_a_dead_service_holds_up_no_tick_and_no_key_is_shown(job, maxcompute):
    pipeline = job.pipeline(**FOLLOW, endpoint="http://127.0.0.1:9")
    reason = job.tick().skip_message
    assert reason.startswith("partitions unknown: ")
    assert maxcompute.service.access_key not in reason + str(assets.metadata(pipeline))
