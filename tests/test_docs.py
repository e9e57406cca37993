import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs_tables import MARKER, pages, rendered
from vector_assets.declare import flink_sql
from vector_assets.formats import FORMATS
from vector_assets.sinks import SINKS
from vector_assets.sources import SOURCES

ROOT = Path(__file__).parent.parent
TEXTS = [*pages(), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_options_tables_are_those_of_the_code(page):
    assert page.read_text() == rendered(page.read_text()), "run: python -m tests.docs_tables"


def test_every_connector_and_format_has_its_options_table():
    documented = {match[2] for page in pages() for match in MARKER.finditer(page.read_text())}
    for registry in (SOURCES, FORMATS, SINKS):
        for entry in registry.values():
            module = entry.partition(":")[0]
            assert any(name.startswith(module) for name in documented), module


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.name)
def test_links_and_named_files_exist(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
    for name in re.findall(r"`(tests/[\w/.]+)`", page.read_text()):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.name)
def test_tests_that_are_named_as_evidence_exist(page):
    for file, name in re.findall(r"`(tests/[\w/.]+)::(\w+)`", page.read_text()):
        assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE), f"{file}::{name}"


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.name)
def test_whole_scripts_in_the_docs_compile(page):
    for number, script in enumerate(re.findall(r"```sql\n(.*?)```", page.read_text(), re.DOTALL)):
        if "INSERT INTO" in script and "CREATE TABLE" in script:
            assert flink_sql.compile_script(f"SET 'pipeline.name' = 'p{number}';{script}", page.name, offline=True)


def test_commands_in_the_docs_exist():
    known = subprocess.run(
        [Path(sys.executable).with_name("vector-assets"), "--help"], capture_output=True, text=True, check=True
    ).stdout
    for page in TEXTS:
        for verb in re.findall(r"^(?:`|\| `|)vector-assets ([a-z][a-z-]+)", page.read_text(), re.MULTILINE):
            assert verb in known, f"{page.name}: vector-assets {verb}"
