import importlib
import logging

import dagster as dg
import pytest

from tests.defs.project import REPOSITORY, SCRIPT, placeholder_secrets
from vector_assets.defs.folder import load
from vector_assets.engine.env import secret_variable
from vector_assets.engine.errors import ConfigError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    placeholder_secrets(monkeypatch)
    return tmp_path


def test_all_that_is_wrong_in_a_folder_is_named_at_once(folder):
    (folder / "car_info.sql").write_text(SCRIPT)
    (folder / "bad.sql").write_text("SELECT 1;")
    (folder / "twin.sql").write_text(SCRIPT)
    with pytest.raises(ConfigError) as raised:
        load(folder)
    lines = str(raised.value).splitlines()
    assert lines[0] == "2 declarations are wrong:"
    assert "bad.sql:1" in lines[1]
    assert "twin.sql:" in lines[2]
    assert "car_info.sql:" in lines[2]


def test_a_folder_without_pipelines_only_waits_for_lake_jobs_and_says_so(folder, caplog):
    with caplog.at_level(logging.WARNING):
        found = load(folder)
    dg.Definitions.validate_loadable(found)
    assert [sensor.name for sensor in found.sensors] == ["new_lake_jobs_sensor"]
    assert f"no pipelines in {folder}" in caplog.text


def test_every_definition_of_the_repository_loads_with_a_placeholder_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("VECTOR_ASSETS_HOME", str(tmp_path))
    monkeypatch.setenv("VECTOR_ASSETS_PIPELINES", str(REPOSITORY / "pipelines"))
    for name, value in {
        "kafka_bootstrap_servers": "kafka.invalid:9092",
        "postgres_address": "postgres.invalid:5432",
        "postgres_user": "somebody",
        "postgres_password": "something",
        "milvus_endpoint": "milvus.invalid",
        "milvus_port": "19530",
        "s3_endpoint": "http://s3.invalid:8333",
        "s3_access_key": "somebody",
        "s3_secret_key": "something",
        "maxcompute_endpoint": "http://maxcompute.invalid",
        "maxcompute_project": "local",
        "maxcompute_access_id": "somebody",
        "maxcompute_access_key": "something",
        # tables that nobody looked for yet are looked for: nobody answers there
        "mysql_host": "127.0.0.1",
        "mysql_port": "1",
        "mysql_user": "somebody",
        "mysql_password": "something",
    }.items():
        monkeypatch.setenv(secret_variable(name), value)
    import vector_assets.definitions

    found = importlib.reload(vector_assets.definitions).defs
    dg.Definitions.validate_loadable(found)
    graph = found.resolve_asset_graph()
    assert sorted(key.to_user_string() for key in graph.get_all_asset_keys()) == [
        "car_info", "kafka/people_changes", "kafka/shop_orders", "kafka/vector_ingest",
        "maxcompute/local/demo_customers", "maxcompute/local/demo_visits", "orders", *upkeep("orders"),
        "orders_archive", *upkeep("orders_archive"), "people", "visit_counts", "visits",
    ]  # fmt: skip
    assert {file.name.partition("-")[0] for file in tmp_path.iterdir()} <= {"ledger.db"}


def upkeep(table: str) -> list[str]:
    return [f"{table}/maintenance/{task}" for task in ("compact", "expire", "orphans")]
