from dataclasses import replace

import dagster as dg
import pytest

from tests.declare.scripts import INSERT, SINK, SOURCE
from tests.engine.memory import MemorySinkOptions
from vector_assets.declare import flink_sql
from vector_assets.defs import factory
from vector_assets.engine.errors import ConfigError, Place


class Elsewhere(MemorySinkOptions):
    """Another target."""

    def target(self) -> str:
        return "memory://elsewhere"


@pytest.fixture
def two(world):
    """Two pipelines that read one origin."""
    first = world.pipeline()
    return [first, replace(first, name="more", place=Place("more.sql", 4, 2), sink_options=Elsewhere())]


def test_every_pipeline_has_an_asset_a_sensor_checks_and_jobs(two):
    found = factory.definitions(two)
    dg.Definitions.validate_loadable(found)
    keys = [key.to_user_string() for key in found.resolve_asset_graph().get_all_asset_keys()]
    assert sorted(keys) == ["memory/records", "more", "numbers"]
    assert {sensor.name for sensor in found.sensors} == {"more_sensor", "numbers_sensor"}
    assert {job.name for job in found.jobs} == {
        "more_continuous",
        "more_dead_letters",
        "numbers_continuous",
        "numbers_dead_letters",
    }
    graph = found.resolve_asset_graph()
    assert {key.to_user_string() for key in graph.asset_check_keys} == {
        "more:dead_letters",
        "more:gaps",
        "more:lag",
        "more:reconcile",
        "numbers:dead_letters",
        "numbers:gaps",
        "numbers:lag",
        "numbers:reconcile",
    }
    assert graph.get(dg.AssetKey(["memory", "records"])).metadata["read by"].value == ["more", "numbers"]


def test_retention_has_a_daily_job_where_a_setting_limits_what_is_kept(world):
    assert not factory.definitions([world.pipeline()]).schedules
    world.settings["vector-assets.retention.archive"] = "7 d"
    (schedule,) = factory.definitions([world.pipeline()]).schedules
    assert (schedule.name, schedule.job_name) == ("numbers_retention_schedule", "numbers_retention")
    dg.Definitions.validate_loadable(factory.definitions([world.pipeline()]))


def test_loading_contacts_nothing(two, world, tmp_path):
    def contacted():
        raise AssertionError("a service was contacted")

    silent = [replace(pipeline, open_source=contacted, open_sink=contacted) for pipeline in two]
    before = sorted(tmp_path.iterdir())
    dg.Definitions.validate_loadable(factory.definitions(silent))
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("what", ["name", "target"])
def test_two_pipelines_of_one_name_or_target_are_refused_naming_both_places(two, what):
    first, second = two
    twin = replace(second, name="numbers") if what == "name" else replace(second, sink_options=first.sink_options)
    value = "'numbers'" if what == "name" else "'memory://rows'"
    with pytest.raises(ConfigError, match=rf"more\.sql:4:2: the {what} {value} is already that of numbers\.sql:1:1"):
        factory.definitions([first, twin])


def test_no_pipelines_are_no_definitions():
    dg.Definitions.validate_loadable(factory.definitions([]))


def test_definitions_merge_with_a_users_own(two):
    @dg.asset(deps=["numbers"])
    def mine() -> None:
        return

    merged = dg.Definitions.merge(factory.definitions(two), dg.Definitions(assets=[mine]))
    dg.Definitions.validate_loadable(merged)
    assert dg.AssetKey("mine") in merged.resolve_asset_graph().get_all_asset_keys()


@pytest.mark.parametrize(
    ("topics", "expected"),
    [
        ("'topic' = 'cars.eu-1;buses'", ["kafka/buses", "kafka/cars_eu-1"]),
        (r"'topic-pattern' = 'cars-\d+|x(y)?'", ["kafka/cars-_d__x_y__"]),
    ],
    ids=["several", "pattern"],
)
def test_each_topic_is_an_external_asset_under_a_name_that_dagster_takes(topics, expected):
    script = f"SET 'pipeline.name' = 'p'; {SOURCE}{SINK}{INSERT}".replace("'topic' = 'cars'", topics)
    (pipeline,) = flink_sql.compile_script(script, "p.sql", offline=True)
    keys = factory.definitions([pipeline]).resolve_asset_graph().get_all_asset_keys()
    assert sorted(key.to_user_string() for key in keys) == [*expected, "p"]
