import os
import signal
import threading
import time

import dagster as dg
import pytest

from tests.engine.memory import numbers
from vector_assets.defs import assets, jobs, names
from vector_assets.engine.run import Runner


def job(world, name):
    return next(each for each in jobs.of(world.pipeline()) if each.name == f"numbers_{name}")


def batches(instance):
    found = instance.fetch_materializations(dg.AssetKey("numbers"), limit=100).records
    return sorted(record.asset_materialization.metadata["batch"].value for record in found)


def test_the_continuous_mode_lands_records_as_they_come_and_books_each_batch_at_once(world, instance):
    seen = []

    def watch():
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and len(seen) < 2:
            if len(batches(instance)) == len(world.books.ledger.batches("numbers")) and not seen:
                if len(world.cell.rows) == 70:
                    seen.append(len(batches(instance)))
                    world.source.splits["t@a/0"] += numbers([900])
            elif len(world.cell.rows) == 71 and len(batches(instance)) > seen[0]:
                seen.append(len(batches(instance)))
            time.sleep(0.02)
        instance.report_run_canceling(instance.get_run_records()[0].dagster_run)
        os.kill(os.getpid(), signal.SIGTERM)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with pytest.raises(dg.DagsterExecutionInterruptedError):
        job(world, "continuous").execute_in_process(instance=instance)
    watcher.join()
    assert len(world.cell.rows) == 71
    assert batches(instance) == [batch.seq for batch in world.books.ledger.batches("numbers")]
    assert instance.get_run_records()[0].dagster_run.status is dg.DagsterRunStatus.CANCELED
    assert not world.books.ledger.leases.is_held("numbers", "memory://rows")


def test_the_continuous_job_is_found_by_the_sensor(world):
    assert job(world, "continuous").tags.items() >= names.tags(world.pipeline()).items()


def test_a_replay_gets_in_between_the_rounds_of_a_follower(world, instance):
    stop = threading.Event()

    def follow():
        with world.session() as session:
            for _ in Runner(session, stop).follow():
                pass

    follower = threading.Thread(target=follow)
    follower.start()
    try:
        deadline = time.monotonic() + 30
        while world.books.ledger.position("numbers", "memory://rows") != {"t@a/0": 40, "t@a/1": 30}:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        world.books.ledger.store.change("UPDATE batches SET hour = '2026-01-01-05:00' WHERE state = 'DONE'")
        past = dg.materialize([assets.of(world.pipeline())], partition_key="2026-01-01-05:00", instance=instance)
        assert past.success
        assert len(past.asset_materializations_for_node("numbers")) == len(world.books.ledger.batches("numbers"))
        assert follower.is_alive()
    finally:
        stop.set()
        follower.join()
    assert len(world.cell.rows) == 70


def poisoned(world):
    world.source.splits["t@a/0"][3] = b"3;n3"
    world.source.splits["t@a/0"][5] = b"5;n5"
    with world.session() as session:
        list(Runner(session).drain("2999-01-01-00:00"))
    return world.books.ledger.dead_letters.listed()


@pytest.mark.parametrize("which", ["all", "one"])
def test_open_dead_letters_are_written_again_by_a_job(world, instance, monkeypatch, which):
    letters = poisoned(world)
    decode = type(world.pipeline().decoder).decode

    def mended(self, raw):
        values = [value.replace(b";", b",") for value in raw.column("value").to_pylist()]
        return decode(self, raw.set_column(raw.schema.get_field_index("value"), "value", [values]))

    monkeypatch.setattr("tests.engine.memory.TextDecoder.decode", mended)
    ids = [letters[0].id] if which == "one" else []
    config = {"ops": {"replay_dead_letters_of_numbers": {"config": {"ids": ids}}}}
    assert job(world, "dead_letters").execute_in_process(instance=instance, run_config=config).success
    left = world.books.ledger.dead_letters.listed()
    assert [letter.id for letter in left] == ([letters[1].id] if which == "one" else [])
    (event,) = instance.fetch_materializations(dg.AssetKey("numbers"), limit=10).records
    assert event.asset_materialization.metadata["kind"].value == "dead_letters"


def test_a_dead_letter_that_is_not_there_is_named(world, instance):
    poisoned(world)
    config = {"ops": {"replay_dead_letters_of_numbers": {"config": {"ids": [4711]}}}}
    with pytest.raises(dg.Failure, match="no open dead letters with the ids 4711"):
        job(world, "dead_letters").execute_in_process(instance=instance, run_config=config)


def test_without_open_dead_letters_the_job_does_nothing(world, instance):
    assert job(world, "dead_letters").execute_in_process(instance=instance).success
    assert batches(instance) == []


def test_the_retention_job_lets_go_of_what_is_too_old(world, instance):
    world.settings["vector-assets.retention.archive"] = "7 d"
    with world.session() as session:
        count = len(list(Runner(session).catch_up()))
    world.books.ledger.store.change("UPDATE batches SET done_ms = done_ms - ?", (8 * 86_400_000,))
    (schedule,) = jobs.schedules(world.pipeline())
    assert schedule.job.execute_in_process(instance=instance).success
    expired = [batch.expired_ms is not None for batch in world.books.ledger.batches("numbers")]
    assert expired == [True] * (count - 1) + [False]
