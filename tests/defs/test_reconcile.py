"""The check `reconcile`, and a past hour made again from the UI, over a target in memory."""

import dagster as dg
import pytest

from tests.engine.memory import Keyed, KeyedSink, numbers
from vector_assets.defs import assets, factory, reconcile
from vector_assets.engine.core import Merge
from vector_assets.engine.hours import Calendar
from vector_assets.engine.run import Runner

CHECK = dg.AssetCheckKey(dg.AssetKey("numbers"), "reconcile")


@pytest.fixture
def keyed(world):
    """A world with a keyed target, its records landed."""
    world.table = Keyed()
    world.sink = KeyedSink(world.cell, Merge.LAST, table=world.table)
    with world.session() as session:
        list(Runner(session).drain("2999-01-01-00:00"))
    return world


def looked_at(world, instance, **config):
    result = dg.materialize(
        [reconcile.of(world.pipeline())],
        selection=dg.AssetSelection.checks(CHECK),
        instance=instance,
        run_config={"ops": {"numbers_reconcile": {"config": config}}},
    )
    assert result.success
    (found,) = result.get_asset_check_evaluations()
    return found


def test_a_right_target_passes_with_its_figures(keyed, instance):
    found = looked_at(keyed, instance)
    assert found.passed, found.description
    assert found.metadata["target_rows"].value == len(keyed.table.rows)


def test_differences_fail_with_their_keys_and_foreign_rows_may_be_allowed(keyed, instance):
    keyed.table.rows[10**6] = "x"
    found = looked_at(keyed, instance)
    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.ERROR
    assert found.description == "1 foreign"
    assert found.metadata["findings"].records[0].data["key"] == f"id={10**6}"
    assert looked_at(keyed, instance, foreign_ok=True).passed


def test_what_cannot_be_read_back_is_not_verified(world, instance):
    found = looked_at(world, instance)
    assert not found.passed
    assert found.description.startswith("Could not verify: numbers: the sink of memory://rows cannot read")


def test_a_run_of_the_asset_passes_over_it(keyed, instance):
    keyed.source.splits["t@a/0"] += numbers([901])
    result = dg.materialize(
        [assets.of(keyed.pipeline()), reconcile.of(keyed.pipeline())],
        partition_key=Calendar("hourly").now(),
        instance=instance,
    )
    assert result.success
    assert result.get_asset_check_evaluations() == []
    assert 901 in keyed.table.rows


def test_the_definitions_of_a_pipeline_hold_the_check(world):
    definitions = factory.definitions([world.pipeline()])
    assert CHECK in {key for check in definitions.asset_checks for key in check.check_keys}


def test_a_past_hour_is_made_again_under_its_own_partition(keyed, instance):
    past = "2026-03-01-14:00"
    with keyed.books.ledger.store.transaction():
        keyed.books.ledger.store.change("UPDATE batches SET hour = ? WHERE seq = 1", (past,))
    first = set(keyed.table.history)
    result = dg.materialize(
        [assets.of(keyed.pipeline())],
        partition_key=past,
        instance=instance,
        run_config={"ops": {"numbers": {"config": {"mode": "rewrite"}}}},
    )
    assert result.success
    (event,) = result.get_asset_materialization_events()
    assert (event.partition, event.materialization.metadata["kind"].value) == (past, "rewrite")
    assert first == set(keyed.table.history)
    assert sum(len(names) > 1 for names in keyed.table.history.values()) > 0
