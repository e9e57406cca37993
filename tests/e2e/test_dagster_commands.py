"""Runs as CI starts them: `dagster asset materialize` in a process of its own, over real services."""

import dagster as dg
import pytest

from tests.defs.project import KEY, Project
from vector_assets.defs.folder import load
from vector_assets.engine.hours import Calendar


@pytest.fixture
def project(tmp_path, kafka, postgres):
    return Project(tmp_path, kafka, postgres)


@pytest.fixture
def definitions(project, monkeypatch):
    for name, value in project.variables.items():
        monkeypatch.setenv(name, value)
    return load(project.folder / "pipelines")


def materialize(project, definitions, partition, config=None):
    """A run in this process."""
    with project.instance() as instance:
        return definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            asset_selection=[KEY],
            partition_key=partition,
            run_config={"ops": {"car_info": {"config": config}}} if config else {},
            instance=instance,
            raise_on_error=False,
        )


def test_records_land_by_one_command_and_its_repetition_changes_nothing(project):
    project.produce(range(250))
    project.produce_text("poison")
    done = project.materialize()
    assert done.returncode == 0, done.stderr
    assert project.ids() == list(range(250))
    with project.instance() as instance:
        first = project.materializations(instance)
        assert sum(event.metadata["written"].value for event in first) == 250
        assert sum(event.metadata["rejected"].value for event in first) == 1
        assert first[-1].metadata["lag_records"].value == 0
        assert first[-1].metadata["guarantee"].value == "exactly-once"
        before = project.rows()
        again = project.materialize()
        assert again.returncode == 0, again.stderr
        assert project.rows() == before
        assert len(project.materializations(instance)) == len(first)


def test_a_run_that_fails_exits_with_an_error_that_shows_no_secret(project):
    project.produce(range(3))
    done = project.materialize(VECTOR_ASSETS_SECRET_TEST_PASSWORD="sesame")
    assert done.returncode != 0
    assert "password authentication failed" in done.stderr
    assert "sesame" not in done.stdout + done.stderr
    assert project.ids() == []
    assert project.books().ledger.batches("car_info") == []


def test_a_past_hour_replays_from_the_archive_and_leaves_the_table_unchanged(project, definitions):
    project.produce(range(250))
    hour = "2026-01-02-03:00"
    assert materialize(project, definitions, Calendar().now(), config={"mode": "drain"}).success
    project.move_batches(hour)
    project.produce(range(250, 260))
    before = project.rows()
    result = materialize(project, definitions, hour)
    assert result.success
    events = result.asset_materializations_for_node("car_info")
    assert {(event.partition, event.metadata["how"].value) for event in events} == {(hour, "found")}
    assert project.rows() == before
    found = {each.check_name: each for each in result.get_asset_check_evaluations()}
    assert found["lag"].metadata["lag_records"].value == 10


def test_a_past_hour_puts_back_what_a_restored_table_lost(project, definitions):
    hour = "2026-01-02-03:00"
    project.produce(range(250))
    assert materialize(project, definitions, Calendar().now(), config={"mode": "drain"}).success
    project.move_batches(hour)
    with project.postgres.connect(project.database, autocommit=True) as connection:
        connection.execute("DELETE FROM vector_test.car_info")
        connection.execute("DELETE FROM vector_assets.positions")
        connection.execute("DELETE FROM vector_assets.batches")
    result = materialize(project, definitions, hour)
    assert result.success, result.all_events[-1]
    assert project.ids() == list(range(250))


def test_the_definitions_of_a_script(project, definitions):
    dg.Definitions.validate_loadable(definitions)
    graph = definitions.resolve_asset_graph()
    assert sorted(key.to_user_string() for key in graph.get_all_asset_keys()) == ["car_info", f"kafka/{project.topic}"]
    node = graph.get(KEY)
    assert node.kinds == {"kafka", "adbpg", "postgres"}
    assert node.owners == ["team:search"]
    assert node.description.startswith("Cars with the vectors of their pictures.")
    assert node.metadata["dagster/table_name"] == "vector_test.car_info"
    shown = str(node.metadata) + str(graph.get(dg.AssetKey(["kafka", project.topic])).metadata)
    assert project.postgres.password not in shown
    assert project.kafka.bootstrap_servers in shown
