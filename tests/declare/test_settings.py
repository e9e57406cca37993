"""SET: the pipeline's settings, and Flink's that have no effect here."""

from datetime import timedelta

import pytest

from tests.declare.scripts import INSERT, SINK, SOURCE, WORKING, compiled, one


def test_settings_reach_the_pipeline() -> None:
    pipeline = one(
        "SET 'pipeline.name' = 'vans';\nset 'vector-assets.memory' = '64 MB';\n"
        f"SET 'vector-assets.batch.target' = '5 s';\n{WORKING}"
    )
    assert pipeline.name == "vans"
    assert pipeline.settings.memory == 64 * 1024**2
    assert pipeline.settings.target == timedelta(seconds=5)
    assert pipeline.reports == ()


def test_later_setting_of_a_name_wins_and_holds_from_there_on() -> None:
    other = SINK.replace("dst", "vans").replace("'cars'", "'vans'")
    first, second = compiled(
        f"{SOURCE}{SINK}{other}"
        f"SET 'vector-assets.linger' = '1s';\nSET 'vector-assets.linger' = '2s';\n{INSERT}"
        "SET 'vector-assets.linger' = '3s';\nSET 'pipeline.name' = 'vans';\n"
        "INSERT INTO vans SELECT id, name, price FROM src;"
    )
    assert first.settings.linger == timedelta(seconds=2)
    assert second.settings.linger == timedelta(seconds=3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("execution.runtime-mode", "streaming"),
        ("execution.checkpointing.interval", "10s"),
        ("execution.checkpointing.mode", "EXACTLY_ONCE"),
        ("parallelism.default", "4"),
        ("table.exec.state.ttl", "1 h"),
        ("table.local-time-zone", "UTC"),
        ("table.exec.sink.not-null-enforcer", "error"),
    ],
)
def test_flink_s_setting_is_checked_and_reported_once(name: str, value: str) -> None:
    pipeline = one(f"SET '{name}' = '{value}';\nSET '{name}' = '{value}';\n{WORKING}")
    (report,) = pipeline.reports
    assert report.startswith(f"cars.sql:2:5: SET '{name}' has no effect: ")
