import re

import dagster as dg

from tests.defs.project import REPOSITORY, SCRIPT, placeholder_secrets


def test_the_example_of_a_users_own_definitions_loads(tmp_path, monkeypatch):
    placeholder_secrets(monkeypatch)
    monkeypatch.setenv("VECTOR_ASSETS_PIPELINES", str(tmp_path))
    (tmp_path / "car_info.sql").write_text(SCRIPT)
    (example,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "dagster.md").read_text(), re.DOTALL)
    found = {}
    exec(example, found)
    dg.Definitions.validate_loadable(found["defs"])
    keys = {key.to_user_string() for key in found["defs"].resolve_asset_graph().get_all_asset_keys()}
    assert keys == {"car_info", "kafka/cars", "red_cars", "topic_end"}


def test_the_instance_keeps_everything_in_its_folder_and_sends_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "dagster.yaml").write_text((REPOSITORY / "dagster_home" / "dagster.yaml").read_text())
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.root_directory == str(tmp_path)
        assert not instance.telemetry_enabled
        assert instance.run_retries_enabled
        assert instance.run_monitoring_enabled
        pools = instance.get_concurrency_config().pool_config
        assert (pools.default_pool_limit, pools.pool_granularity.value) == (1, "run")
