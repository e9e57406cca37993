"""Flink CDC pipelines in Dagster: an asset per table, found by a sensor, there after a reload."""

import shutil
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from tests.declare.cdc import SOURCE
from tests.defs.project import REPOSITORY, TIMEOUT_S
from tests.e2e.cdc_world import World, cdc_world, maxcompute_sink
from vector_assets.defs.folder import load
from vector_assets.engine.env import child_environment
from vector_assets.engine.hours import Calendar

__all__ = ["cdc_world"]


def assets(found: dg.Definitions) -> set[str]:
    """The assets that a definition's own code makes."""
    return {key.to_user_string() for key in found.resolve_asset_graph().materializable_asset_keys}


def said(found: dg.Definitions, sensor: str) -> str:
    """What one tick of a sensor gives as its reason."""
    (definition,) = (each for each in found.sensors if each.name == sensor)
    with dg.DagsterInstance.ephemeral() as instance, dg.build_sensor_context(instance) as context:
        return str(definition.evaluate_tick(context).skip_message)


def test_definitions_load_while_the_server_is_away(tmp_path, monkeypatch):
    monkeypatch.setenv("VECTOR_ASSETS_HOME", str(tmp_path / "home"))
    (tmp_path / "shop.yaml").write_text(SOURCE.replace("3306", "1") + "sink:\n  type: blackhole\n")
    found = load(tmp_path)
    dg.Definitions.validate_loadable(found)
    assert assets(found) == set()
    assert [each.name for each in found.sensors] == ["shop_tables", "new_lake_jobs_sensor"]
    assert "tables not looked for" in said(found, "shop_tables")


@pytest.mark.service
def test_a_new_table_is_an_asset_after_a_reload(cdc_world: World, maxcompute):
    world, folder, database = cdc_world, cdc_world.file.parent, cdc_world.mysql.database
    world.mysql.sql("CREATE TABLE first (id INT PRIMARY KEY)")
    world.write(world.source(), maxcompute_sink(maxcompute))
    found = load(folder)
    assert assets(found) == {f"shop_{database}_first"}
    assert {each.name for each in found.sensors} == {
        "shop_tables",
        "new_lake_jobs_sensor",
        f"shop_{database}_first_sensor",
    }
    assert said(found, "shop_tables") == "no new tables"
    world.mysql.sql("CREATE TABLE second (id INT PRIMARY KEY)")
    assert said(found, "shop_tables") == f"new tables: {database}.second; reload the code location"
    found = load(folder)
    dg.Definitions.validate_loadable(found)
    assert assets(found) == {f"shop_{database}_first", f"shop_{database}_second"}
    world.mysql.sql("DROP TABLE second")
    assert said(found, "shop_tables") == f"{database}.second is not on the server any more"


@pytest.mark.service
def test_dagster_asset_materialize_works_on_a_fresh_machine(cdc_world: World, maxcompute, tmp_path: Path):
    world, name = cdc_world, maxcompute.fresh_name("fresh")
    world.mysql.sql(f"CREATE TABLE {name} (id INT PRIMARY KEY)")
    world.mysql.sql(f"INSERT INTO {name} VALUES (1), (2)")
    world.write(world.source(), maxcompute_sink(maxcompute))
    home = tmp_path / "dagster_home"
    home.mkdir()
    shutil.copy(REPOSITORY / "dagster_home" / "dagster.yaml", home)
    asset = f"shop_{world.mysql.database}_{name}"
    partition = Calendar().now()
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("dagster")), "asset", "materialize", "-m", "vector_assets.definitions",
            "--select", asset, "--partition", partition,
        ],
        cwd=REPOSITORY, env=child_environment(DAGSTER_HOME=str(home)), capture_output=True, text=True,
        timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0 or Calendar().now() != partition, done.stderr[-3000:]
    if Calendar().now() == partition:
        assert maxcompute.rows(f"SELECT id FROM {name} ORDER BY id") == [[1], [2]]
