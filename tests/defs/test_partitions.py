import dagster as dg
import pytest

from tests.engine.memory import numbers
from tests.engine.partitioned import PartitionedSource, PartitionedWorld
from vector_assets.defs import assets, factory, partitions, probe, sensors
from vector_assets.engine.errors import ConfigError, UnavailableError
from vector_assets.engine.run import Runner

SET = "numbers_partitions"


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setenv("VECTOR_ASSETS_HOME", str(tmp_path))
    monkeypatch.setattr("vector_assets.engine.env._passes", {})
    yield PartitionedWorld(tmp_path, PartitionedSource({f"t/ds={n}": numbers([n, n + 10]) for n in (1, 2)}))
    probe.forget()


@pytest.fixture
def tick(world, instance):
    """Evaluates the sensor once, and adds the partitions it asks for, as the daemon does."""
    cursor = None

    def once():
        nonlocal cursor
        with dg.build_sensor_context(instance=instance, cursor=cursor) as context:
            found = sensors.of(world.pipeline())(context)
        if isinstance(found, dg.SensorResult):
            cursor = found.cursor
            for added in found.dynamic_partitions_requests or []:
                instance.add_dynamic_partitions(added.partitions_def_name, added.partition_keys)
        return found

    return once


def materialize(world, instance, key, mode=None, **more):
    config = {"ops": {"numbers": {"config": {"mode": mode}}}} if mode else {}
    made = assets.of(world.pipeline())
    return dg.materialize([made], partition_key=key, run_config=config, instance=instance, **more)


def asked_for(found):
    return [request.partition_key for request in found.run_requests]


def test_the_definitions_load_with_partitions_that_a_sensor_adds(world):
    found = factory.definitions([world.pipeline()])
    dg.Definitions.validate_loadable(found)
    (made,) = found.resolve_asset_graph().get_all_asset_keys() - {dg.AssetKey(["memory", "records"])}
    definition = found.resolve_asset_graph().get(made).partitions_def
    assert isinstance(definition, dg.DynamicPartitionsDefinition)
    assert definition.name == SET


def test_a_tick_adds_the_partitions_and_asks_for_them_in_order(world, tick, instance):
    found = tick()
    assert instance.get_dynamic_partitions(SET) == ["ds=1", "ds=2"]
    assert asked_for(found) == ["ds=1", "ds=2"]
    assert found.run_requests[0].run_config == {"ops": {"numbers": {"config": {"mode": "drain"}}}}
    assert {request.run_key for request in found.run_requests} == {None}


def test_the_runs_it_asks_for_land_each_partition_alone_and_a_new_one_is_picked_up_after_that(world, tick, instance):
    for request in tick().run_requests:
        assert materialize(world, instance, request.partition_key, "drain", tags=request.tags).success
    assert [row[0] for row in world.cell.rows] == [1, 11, 2, 12]
    assert tick().skip_reason.skip_message == "nothing new"
    world.source.splits["t/ds=3"] = numbers([3, 13])
    assert asked_for(tick()) == ["ds=3"]
    assert instance.get_dynamic_partitions(SET) == ["ds=1", "ds=2", "ds=3"]


def test_each_batch_is_a_materialization_of_its_own_partition(world, tick, instance):
    tick()
    materialize(world, instance, "ds=2", "drain")
    key = dg.AssetKey("numbers")
    (only,) = instance.fetch_materializations(key, limit=10).records
    assert only.partition_key == "ds=2"
    assert instance.get_materialized_partitions(key) == {"ds=2"}


def test_a_partition_that_is_still_written_is_not_added_and_the_reason_is_told(world, tick, instance):
    world.source.writing = {"t/ds=2"}
    assert asked_for(tick()) == ["ds=1"]
    assert instance.get_dynamic_partitions(SET) == ["ds=1"]
    materialize(world, instance, "ds=1", "drain")
    assert tick().skip_reason.skip_message == "ds=2 is still being written"


def test_an_unfinished_batch_is_asked_for_first(world, tick, instance, monkeypatch):
    tick()
    monkeypatch.setenv("VECTOR_ASSETS_FAIL_AT", "committing:1:raise")
    materialize(world, instance, "ds=2", "drain", raise_on_error=False)
    monkeypatch.delenv("VECTOR_ASSETS_FAIL_AT")
    assert asked_for(tick()) == ["ds=2", "ds=1"]


def test_the_source_asset_is_observed_with_its_newest_partition_once(world, tick):
    (observation,) = tick().asset_events
    assert observation.asset_key == dg.AssetKey(["memory", "records"])
    shown = {name: value.value for name, value in observation.metadata.items()}
    assert (shown["max_pt"], shown["rows"], shown["partitions"]) == ("ds=2", 2, 2)
    assert tick().asset_events == []
    world.source.splits["t/ds=3"] = numbers([3, 13])
    assert tick().asset_events[0].metadata["max_pt"].value == "ds=3"


def test_partitions_are_added_while_somebody_is_at_work_but_no_run_is_asked_for(world, tick, instance):
    with world.session() as session, session.leased():
        found = tick()
    assert "is at work, outside of Dagster's runs" in found.skip_reason.skip_message
    assert instance.get_dynamic_partitions(SET) == ["ds=1", "ds=2"]


def test_a_dead_service_is_a_reason_and_not_an_error(world, tick, monkeypatch):
    def fail():
        raise UnavailableError("nobody answers")

    monkeypatch.setattr(world.source, "partitions", fail)
    assert tick().skip_message == "partitions unknown: nobody answers"


def test_a_tick_asks_for_no_more_runs_than_a_handful(world, tick):
    world.source.splits = {f"t/ds={n:03}": numbers([n, n + 1]) for n in range(50)}
    found = tick()
    assert asked_for(found) == [f"ds={n:03}" for n in range(partitions.REQUESTS)]


def test_a_backfill_replays_what_was_read_and_reads_what_was_not(world, tick, instance):
    tick()
    materialize(world, instance, "ds=1")
    assert [row[0] for row in world.cell.rows] == [1, 11]
    result = materialize(world, instance, "ds=1")
    (event,) = [e for e in result.all_events if e.is_step_materialization]
    assert event.event_specific_data.materialization.metadata["how"].value == "found"
    assert [row[0] for row in world.cell.rows] == [1, 11]


def test_a_backfill_of_a_partition_that_may_not_be_read_fails_with_the_reason(world, tick, instance):
    tick()
    world.source.writing = {"t/ds=2"}
    result = materialize(world, instance, "ds=2", raise_on_error=False)
    assert not result.success
    assert "ds=2 is not read: is still being written" in str(result.all_events)


def test_a_drain_of_a_partition_that_changed_its_mind_lands_nothing_and_does_not_fail(world, tick, instance):
    tick()
    world.source.writing = {"t/ds=2"}
    assert materialize(world, instance, "ds=2", "drain").success
    assert world.cell.rows == []


def test_partitions_are_added_without_a_daemon_and_only_where_there_are_any(world, instance, tmp_path):
    assert partitions.add(instance, world.pipeline()) == ["ds=1", "ds=2"]
    assert partitions.add(instance, world.pipeline()) == []


def test_a_pipeline_of_hours_has_no_partitions_to_add(world, instance):
    from tests.engine.memory import World

    with pytest.raises(ConfigError, match="belong to hours"):
        partitions.add(instance, World.pipeline(world))


def test_the_sensor_looks_as_often_as_the_source_says_unless_it_is_set(world, monkeypatch):
    monkeypatch.setattr("tests.engine.partitioned.PartitionedOptions.poll_seconds", lambda _: 30.0, raising=False)
    assert sensors.of(world.pipeline()).minimum_interval_seconds == 30
    world.settings["vector-assets.sensor.interval"] = "2 s"
    assert sensors.of(world.pipeline()).minimum_interval_seconds == 2


def test_the_continuous_mode_lands_every_partition_in_its_own(world):
    with world.session() as session:
        runner = Runner(session)
        for outcome in runner.follow():
            if outcome.batch.hour == "ds=2":
                runner.stop.set()
    assert [batch.hour for batch in world.books.ledger.batches("numbers")] == ["ds=1", "ds=2"]
