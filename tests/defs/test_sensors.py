import threading
import time
from dataclasses import replace

import dagster as dg
import pytest

from tests.engine.memory import MemoryOptions, World, numbers
from vector_assets.defs import assets, factory, history, names, probe, sensors
from vector_assets.engine.errors import PlanError, UnavailableError
from vector_assets.engine.hours import Calendar
from vector_assets.engine.run import Runner

WHERE = ("numbers", "memory://rows")


@pytest.fixture
def tick(world, instance):
    """Evaluates the sensor once: a RunRequest, or why there is none."""

    def once():
        with dg.build_sensor_context(instance=instance) as context:
            found = sensors.of(world.pipeline())(context)
        return found.skip_message if isinstance(found, dg.SkipReason) else found

    return once


def drain(world):
    with world.session() as session:
        return list(Runner(session).drain("2999-01-01-00:00"))


def raiser(error):
    def fail():
        raise error

    return fail


def run_of(world, instance, **kwargs):
    """A run as the sensor starts it."""
    request = sensors.request(world.pipeline())
    return dg.materialize(
        [assets.of(world.pipeline())],
        partition_key=request.partition_key,
        run_config=request.run_config,
        tags=request.tags,
        instance=instance,
        **kwargs,
    )


def booked(world, instance, status, job="numbers_continuous", tags=None):
    """A run that Dagster's books know, without a process."""
    found = factory.definitions([world.pipeline()]).resolve_job_def(job)
    return instance.create_run_for_job(found, status=status, tags=tags or names.tags(world.pipeline()))


def test_new_records_ask_for_a_drain_of_the_open_partition(world, tick):
    drain(world)
    world.source.splits["t@a/0"] += numbers([900])
    request = tick()
    assert request.partition_key == Calendar().now()
    assert request.run_config == {"ops": {"numbers": {"config": {"mode": "drain"}}}}
    assert request.run_key is None
    assert request.tags[names.PIPELINE_TAG] == "numbers"
    assert request.tags["dagster/priority"] == "1"
    assert 600 < int(request.tags["dagster/max_runtime"]) <= 3600 + 600


def test_the_run_it_asks_for_lands_the_records(world, tick, instance):
    assert isinstance(tick(), dg.RunRequest)
    assert run_of(world, instance).success
    assert len(world.cell.rows) == 70
    assert tick() == "nothing new"


def test_a_pipeline_at_its_bound_is_finished_and_its_source_is_not_asked(world, tick, monkeypatch):
    drain(world)
    world.source.splits["t@a/0"] += numbers([900])
    monkeypatch.setattr(MemoryOptions, "is_finished", lambda _, position: position["t@a/0"] == 40)
    monkeypatch.setattr(world.source, "frontier", raiser(AssertionError("asked")))
    assert tick() == "finished: its bound is reached"


def test_a_new_pipeline_is_started_over_an_empty_source_so_that_its_start_is_frozen(world, tick):
    world.source.splits = {"t@a/0": []}
    assert isinstance(tick(), dg.RunRequest)
    drain(world)
    assert tick() == "nothing new"


def test_an_unfinished_batch_is_reason_enough(world, tick, monkeypatch):
    monkeypatch.setenv("VECTOR_ASSETS_FAIL_AT", "committing:2:raise")
    with pytest.raises(Exception, match="failpoint"):
        drain(world)
    monkeypatch.delenv("VECTOR_ASSETS_FAIL_AT")
    position = world.books.ledger.planned_position(*WHERE)
    world.source.splits = {split: world.source.splits[split][:end] for split, end in position.items()}
    assert isinstance(tick(), dg.RunRequest)


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED])
def test_nothing_is_asked_for_while_a_run_waits_or_is_at_work(world, tick, instance, status):
    run = booked(world, instance, status, job="numbers_dead_letters")
    assert tick() == f"run {run.run_id[:8]} of numbers_dead_letters is {status.value.lower()}"


def test_runs_of_other_pipelines_do_not_count(world, tick, instance):
    booked(world, instance, dg.DagsterRunStatus.STARTED, tags={names.PIPELINE_TAG: "another"})
    assert isinstance(tick(), dg.RunRequest)


def test_failed_runs_in_a_row_are_followed_by_longer_and_longer_pauses(world, tick, instance, monkeypatch):
    world.source.broken = [PlanError("mend me")] * 99
    assert not run_of(world, instance, raise_on_error=False).success
    assert tick().startswith("backing off after a failed run, until ")
    ended = instance.get_run_records()[0].end_time
    for count, pause in enumerate([10, 20, 40, 80, 160, 320, 640, 900, 900], start=1):
        found = history.History(instance, world.pipeline())
        monkeypatch.setattr(found, "_failures", lambda count=count: (count, ended))
        assert found.pause(ended + pause - 0.5) is not None
        assert found.pause(ended + pause) is None


def test_a_mended_declaration_is_not_held_back_by_the_failures_of_the_old_one(world, tick, instance, monkeypatch):
    world.source.broken = [PlanError("mend me")]
    run_of(world, instance, raise_on_error=False)
    assert tick().startswith("backing off")
    mended = replace(world.pipeline(), transform_text="SELECT id, upper(name) FROM numbers")
    monkeypatch.setattr(World, "pipeline", lambda self: mended)
    assert isinstance(tick(), dg.RunRequest)


def test_a_batch_landed_by_hand_ends_the_pause(world, tick, instance):
    world.source.broken = [PlanError("mend me")]
    run_of(world, instance, raise_on_error=False)
    asset = assets.of(world.pipeline())
    dg.materialize([asset], partition_key=Calendar().now(), instance=instance)
    world.source.splits["t@a/0"] += numbers([900])
    assert isinstance(tick(), dg.RunRequest)


def test_a_source_that_is_not_reachable_is_said_and_asked_again(world, tick, monkeypatch):
    drain(world)
    with monkeypatch.context() as down:
        down.setattr(world.source, "frontier", raiser(UnavailableError("kafka: no bootstrap server")), raising=False)
        assert tick() == "lag unknown: kafka: no bootstrap server"
    assert tick() == "nothing new"


def test_a_source_that_does_not_answer_holds_no_tick_up(world, tick, monkeypatch):
    drain(world)
    answer = threading.Event()
    frontier = type(world.source).frontier
    monkeypatch.setattr(world.source, "frontier", lambda: answer.wait(30) and frontier(world.source), raising=False)
    monkeypatch.setattr(probe.Probe.lag, "__defaults__", (0.2,))
    for _ in range(3):
        began = time.monotonic()
        assert tick().startswith("lag unknown: numbers: the source has not answered for ")
        assert time.monotonic() - began < 1.5
    answer.set()
    deadline = time.monotonic() + 10
    while tick() != "nothing new":
        assert time.monotonic() < deadline


def test_what_a_person_must_mend_makes_the_tick_fail(world, tick, monkeypatch):
    monkeypatch.setattr(world.source, "frontier", raiser(PlanError("topic 'x' does not exist")), raising=False)
    with pytest.raises(PlanError, match="does not exist"):
        tick()


def test_work_outside_of_dagster_is_left_alone(world, tick):
    world.source.splits["t@a/0"] += numbers([900])
    with world.books.ledger.leases.held(*WHERE, ttl=30, wait=0, run_id="a shell"):
        assert tick().endswith("is at work, outside of Dagster's runs")
    assert isinstance(tick(), dg.RunRequest)


def test_a_run_behind_a_backfill_is_asked_for_and_queued(world, tick, instance):
    drain(world)
    world.source.splits["t@a/0"] += numbers([900])
    backfill = booked(world, instance, dg.DagsterRunStatus.STARTED, tags={"dagster/backfill": "abc"})
    with world.books.ledger.leases.held(*WHERE, ttl=30, wait=0, run_id=f"dagster:{backfill.run_id}"):
        assert isinstance(tick(), dg.RunRequest)


def test_a_run_whose_process_died_with_the_lease_is_booked_as_failed(world, tick, instance):
    run = booked(world, instance, dg.DagsterRunStatus.STARTED, job="numbers_dead_letters")
    leases = world.books.ledger.leases
    leases.acquire(*WHERE, ttl=30, wait=0, run_id=f"dagster:{run.run_id}")
    assert tick().endswith("is started")
    world.books.ledger.store.change("UPDATE leases SET pid_born = '1'")
    assert tick().startswith("backing off after a failed run")
    assert instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.FAILURE


@pytest.mark.parametrize("is_ours", [True, False], ids=["a run of ours", "a shell"])
def test_a_holder_on_another_machine_whose_heart_stands_still_is_taken_for_dead(
    world, tick, instance, monkeypatch, is_ours
):
    now = [0.0]
    monkeypatch.setattr(history, "_clock", lambda: now[0])
    run_id = "a shell"
    if is_ours:
        run = booked(world, instance, dg.DagsterRunStatus.STARTED, job="numbers_dead_letters")
        run_id = f"dagster:{run.run_id}"
    leases = world.books.ledger.leases
    lease = leases.acquire(*WHERE, ttl=30, wait=0, run_id=run_id)
    world.books.ledger.store.change("UPDATE leases SET host = 'another'")
    for moment, is_beating in ((0.0, False), (29.0, True), (58.0, False)):
        now[0] = moment
        if is_beating:
            leases.beat(lease)
        assert tick().endswith("is started" if is_ours else "outside of Dagster's runs")
    now[0] = 59.5
    found = tick()
    if is_ours:
        assert found.startswith("backing off after a failed run")
        assert instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.FAILURE
    else:
        assert isinstance(found, dg.RunRequest)


def test_a_continuous_job_that_died_with_its_machine_does_not_stop_the_pipeline(world, tick, instance):
    drain(world)
    world.source.splits["t@a/0"] += numbers([900])
    booked(world, instance, dg.DagsterRunStatus.STARTED)
    assert tick().endswith("of numbers_continuous is started")
    world.books.ledger.store.change("UPDATE batches SET planned_ms = planned_ms - 61000")
    assert isinstance(tick(), dg.RunRequest)


def test_the_connection_is_kept_between_ticks_and_made_anew_after_an_error(world, tick, monkeypatch):
    drain(world)
    calls = []
    opened = replace(world.pipeline(), open_source=lambda: calls.append("open") or world.source)
    monkeypatch.setattr(World, "pipeline", lambda self: opened)
    monkeypatch.setattr(world.source, "close", lambda: calls.append("close"), raising=False)
    assert [tick(), tick()] == ["nothing new"] * 2
    assert calls == ["open"]
    with monkeypatch.context() as broken:
        broken.setattr(world.source, "frontier", raiser(UnavailableError("gone")), raising=False)
        tick()
    assert calls == ["open", "close"]
    assert tick() == "nothing new"
    assert calls == ["open", "close", "open"]


def test_connections_kept_are_bounded(world, monkeypatch):
    monkeypatch.setattr(probe, "KEPT", 2)
    first, *others = [replace(world.pipeline(), name=f"numbers_{number}") for number in range(3)]
    kept = probe.of(first)
    for other in others:
        probe.of(other)
    assert probe.of(others[0]) is probe.of(others[0])
    assert probe.of(first) is not kept


def test_a_sensor_is_on_by_default_and_looks_as_often_as_its_pipeline_says(world):
    world.settings["vector-assets.sensor.interval"] = "7 s"
    found = sensors.of(world.pipeline())
    assert found.name == "numbers_sensor"
    assert found.default_status is dg.DefaultSensorStatus.RUNNING
    assert found.minimum_interval_seconds == 7
