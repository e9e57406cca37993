import sys
import traceback
from pathlib import Path

import dagster as dg
import pytest

from tests.defs.project import SCRIPT, placeholder_secrets

# dagster 1.13 calls its own beta parameters while it loads a folder
pytestmark = pytest.mark.filterwarnings("ignore:Parameter `execution_type`:dagster.BetaWarning")

YAML = """
type: vector_assets.defs.component.PipelinesComponent
attributes:
"""


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    """Loads a project whose only component has these attributes."""
    placeholder_secrets(monkeypatch)
    package = f"project_{abs(hash(tmp_path))}"
    folder = tmp_path / package / "defs" / "cars"
    (folder / "scripts").mkdir(parents=True)
    (tmp_path / package / "__init__.py").touch()
    (tmp_path / package / "defs" / "__init__.py").touch()
    (tmp_path / "pyproject.toml").write_text(
        f'[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "{package}"\n'
    )
    (folder / "scripts" / "car_info.sql").write_text(SCRIPT)
    other = SCRIPT.replace("'car_info'", "'bike_info'")
    (folder / "scripts" / "bike_info.sql").write_text(other)
    monkeypatch.syspath_prepend(str(tmp_path))

    def load(attributes: str, yaml: str = YAML) -> dg.Definitions:
        (folder / "defs.yaml").write_text(yaml + attributes)
        return dg.load_from_defs_folder(path_within_project=Path(folder.parent))

    yield load
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        del sys.modules[name]


def keys(definitions):
    return sorted(key.to_user_string() for key in definitions.resolve_asset_graph().get_all_asset_keys())


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ("  path: scripts\n", ["bike_info", "car_info", "kafka/cars"]),
        ("  path: scripts\n  names: [car_info]\n", ["car_info", "kafka/cars"]),
    ],
    ids=["all", "by name"],
)
def test_a_component_holds_the_pipelines_of_its_folder(loaded, attributes, expected):
    assert keys(loaded(attributes)) == expected


def test_a_name_that_is_not_declared_is_refused(loaded):
    with pytest.raises(Exception, match="PipelinesComponent") as raised:
        loaded("  path: scripts\n  names: [cat_info]\n").resolve_asset_graph()
    text = "".join(traceback.format_exception(raised.value))
    assert "unknown pipeline 'cat_info' (did you mean 'car_info'?); declared: bike_info, car_info" in text


JOB = """
type: vector_assets.defs.component.LakeJobComponent
attributes:
  datasource:
    name: shop
    brokers: ${secret_values.test_kafka}
    topic: orders
  job:
    name: orders
    source: shop
    destination: {database: shop, table: orders}
    columns:
      - {field: id, type: BIGINT}
"""


def test_a_lake_job_may_be_a_component(loaded):
    definitions = loaded("", JOB)
    assert {"kafka/orders", "orders"} <= set(keys(definitions))
    (sensor,) = [each for each in definitions.sensors if each.name == "orders_sensor"]
    assert sensor.default_status is dg.DefaultSensorStatus.STOPPED


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (JOB.replace("BIGINT", "BIGINTT"), "defs.yaml:13:27: job orders: columns[1].type: found 'BIGINTT'"),
        (JOB.replace("topic: orders", "topic: '{{ env.TOPIC }}'"), "defs.yaml:7:12: templates are not filled in here"),
        (JOB.replace("source: shop", "source: shp"), "unknown datasource 'shp' (did you mean 'shop'?)"),
    ],
    ids=["type", "template", "source"],
)
def test_what_is_wrong_in_a_component_is_named_by_its_line(loaded, text, said):
    with pytest.raises(Exception, match="LakeJobComponent") as raised:
        loaded("", text).resolve_asset_graph()
    assert said in "".join(traceback.format_exception(raised.value))
