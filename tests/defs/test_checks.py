import dagster as dg
import pytest

from tests.engine.memory import numbers
from vector_assets.defs import assets, checks
from vector_assets.engine.errors import UnavailableError
from vector_assets.engine.hours import Calendar
from vector_assets.engine.run import Runner


def looked_at(world, instance, name=None):
    """What the checks say, by name."""
    found = checks.of(world.pipeline())
    one = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("numbers"), name or ""))
    selection = one if name else dg.AssetSelection.all_asset_checks()
    result = dg.materialize([found], selection=selection, instance=instance)
    assert result.success
    return {each.check_name: each for each in result.get_asset_check_evaluations()}


def values(found):
    return {name: value.value for name, value in found.metadata.items()}


def drain(world):
    with world.session() as session:
        list(Runner(session).drain("2999-01-01-00:00"))


def test_a_pipeline_that_is_up_to_date_passes(world, instance):
    drain(world)
    found = looked_at(world, instance)
    assert {name: each.passed for name, each in found.items()} == {"lag": True, "dead_letters": True, "gaps": True}
    assert values(found["lag"]) == {"lag_records": 0, "lag_seconds": 0.0, "threshold_records": 100_000}


def test_lag_over_the_threshold_is_a_warning(world, instance):
    world.settings["vector-assets.check.max-lag"] = "2"
    drain(world)
    world.source.splits["t@a/0"] += numbers([900, 901, 902])
    lag = looked_at(world, instance, "lag")["lag"]
    assert not lag.passed
    assert lag.severity is dg.AssetCheckSeverity.WARN
    assert values(lag)["lag_records"] == 3
    assert values(lag)["lag_seconds"] >= 0


def test_a_pipeline_that_never_ran_is_behind_by_all_its_records(world, instance):
    lag = looked_at(world, instance, "lag")["lag"]
    assert values(lag)["lag_records"] == 70
    assert "not started yet" in lag.description


@pytest.mark.parametrize(
    ("most", "severity"), [("1000", dg.AssetCheckSeverity.WARN), ("1", dg.AssetCheckSeverity.ERROR)]
)
def test_open_dead_letters_fail_the_check_with_their_newest_reasons(world, instance, most, severity):
    world.settings["vector-assets.check.max-dead-letters"] = most
    world.source.splits["t@a/0"][3:5] = [b"poison", b"venom"]
    drain(world)
    letters = looked_at(world, instance, "dead_letters")["dead_letters"]
    assert not letters.passed
    assert letters.severity is severity
    assert values(letters)["dead_letters_open"] == 2
    (row,) = letters.metadata["newest reasons"].records
    assert row.data == {"reason": "decode: not id,name", "dead letters": 2}


def test_what_cannot_be_verified_is_an_error(world, instance, monkeypatch):
    def down():
        raise UnavailableError("kafka: no bootstrap server can be reached")

    monkeypatch.setattr(world.source, "frontier", down, raising=False)
    found = looked_at(world, instance)
    assert not found["lag"].passed
    assert found["lag"].severity is dg.AssetCheckSeverity.ERROR
    assert found["lag"].description == "Could not verify: kafka: no bootstrap server can be reached"
    assert found["dead_letters"].passed


def test_checks_run_after_new_data_and_hold_nothing_up(world, instance):
    world.source.splits["t@a/0"][3] = b"poison"
    asset, check = assets.of(world.pipeline()), checks.of(world.pipeline())
    seen = []

    @dg.asset(deps=[asset], partitions_def=asset.partitions_def)
    def downstream() -> None:
        seen.append(1)

    for expected in (3, 0):
        result = dg.materialize([asset, check, downstream], partition_key=Calendar().now(), instance=instance)
        assert result.success
        assert len(result.get_asset_check_evaluations()) == expected
    assert seen == [1]


def test_an_open_gap_is_an_error_and_a_skipped_one_a_warning_for_a_week(world, instance, monkeypatch):
    ledger = world.books.ledger
    ledger.record_gap("numbers", "TRUNCATED", {"t@a/0": (3, 9), "t@a/1": (0, None)}, policy="skip", state="skipped")
    gaps = looked_at(world, instance, "gaps")["gaps"]
    assert (gaps.passed, gaps.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert values(gaps)["gaps_skipped"] == 2
    ledger.record_gap("numbers", "TRUNCATED", {"t@a/1": (0, None)})
    gaps = looked_at(world, instance, "gaps")["gaps"]
    assert (gaps.passed, gaps.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert gaps.description == "1 open, 1 skipped; `vector-assets status numbers --gaps`"
    ledger.close_gaps("numbers", 5)
    monkeypatch.setattr("vector_assets.defs.checks._LOSS_DAYS", 0)
    assert looked_at(world, instance, "gaps")["gaps"].passed
