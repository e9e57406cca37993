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

    def load(attributes: str) -> dg.Definitions:
        (folder / "defs.yaml").write_text(YAML + attributes)
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
