import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.declare.seeds import ddl_step, flink_step, seed
from tests.docs_tables import MARKER, pages, rendered
from vector_assets.declare import flink_sql
from vector_assets.formats import FORMATS
from vector_assets.lookups import LOOKUPS
from vector_assets.sinks import SINKS
from vector_assets.sinks.adbpg_options import AdbPgOptions
from vector_assets.sources import SOURCES

ROOT = Path(__file__).parent.parent
TEXTS = [*pages(), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_options_tables_are_those_of_the_code(page):
    assert page.read_text() == rendered(page.read_text()), "run: python -m tests.docs_tables"


def test_every_connector_and_format_has_its_options_table():
    documented = {match[2] for page in pages() for match in MARKER.finditer(page.read_text())}
    for registry in (SOURCES, FORMATS, SINKS, LOOKUPS):
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


def test_every_ability_of_the_engine_is_listed_for_contributors():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    tree = ast.parse((ROOT / "vector_assets" / "engine" / "abilities.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and any(getattr(base, "id", "") == "Protocol" for base in node.bases):
            methods = [inner.name for inner in node.body if isinstance(inner, ast.FunctionDef)]
            assert f"`{node.name}`" in text
            assert [name for name in methods if f"`{name}`" not in text] == []


def test_pictures_are_small():
    pictures = sorted((ROOT / "docs" / "images").iterdir())
    assert [picture.name for picture in pictures if picture.stat().st_size > 150_000] == []
    shown = "".join(page.read_text() for page in TEXTS)
    assert [picture.name for picture in pictures if picture.name not in shown] == []


def test_make_bench_runs_every_benchmark():
    (listed,) = re.findall(r"^BENCHES \?= (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    known = [file.stem for file in (ROOT / "bench").glob("*.py") if "\ndef main(" in file.read_text()]
    assert sorted(listed.split()) == sorted(name.replace("_", "-") for name in known)


def test_commands_in_the_docs_exist():
    known = subprocess.run(
        [Path(sys.executable).with_name("vector-assets"), "--help"], capture_output=True, text=True, check=True
    ).stdout
    for page in TEXTS:
        for verb in re.findall(r"^(?:`|\| `|)vector-assets ([a-z][a-z-]+)", page.read_text(), re.MULTILINE):
            assert verb in known, f"{page.name}: vector-assets {verb}"


def shown(page: str) -> set[str]:
    """What stands in a row of the page beside a test's name: words between backquotes."""
    rows = re.findall(r"^\|([^|]*)\|.*`tests/[\w/.]+::\w+`", (ROOT / "docs" / page).read_text(), re.MULTILINE)
    return {word for row in rows for word in re.findall(r"`([^`]+)`", row)}


def seed_options(header: str) -> list[str]:
    """The rows of the seed's table of options with this header, as they stand there."""
    table = seed(0).split(header)[1]
    return re.findall(r"^[a-z][\w.-]* (?:String|Integer) .*$", table.split("\n\n")[0], re.MULTILINE)


def test_every_option_of_the_seed_s_sink_has_its_test_and_its_default():
    needed = {"url": "jdbc:postgresql://h/d", "tablename": "t", "username": "u", "password": "p", "connector": "adbpg"}
    known = AdbPgOptions.parse(needed, "connector adbpg").shown()
    rows = seed_options("Parameter Type Default Description")
    assert len(rows) == 15
    for row in rows:
        name, _, default = row.split(" ", 3)[:3]
        assert name in shown("adbpg.md"), name
        if default != "(none)":
            assert known[name] == default, name


def test_every_option_and_format_of_the_seed_s_source_has_its_test():
    rows = seed_options("Parameter Type Required Default Description")
    assert len(rows) == 6
    assert {row.split()[0] for row in rows} <= shown("kafka.md")
    (listed,) = re.findall(r"Valid values: ([\w, -]+)\.", "\n".join(rows))
    assert set(listed.split(", ")) <= shown("kafka.md")


def test_every_statement_and_command_of_the_seed_has_its_test():
    ddl = ddl_step(seed(0))
    statements = re.findall(r"^ *((?:CREATE|ALTER) \w+|\\c)", ddl, re.MULTILINE)
    statements += re.findall(r"DISTRIBUTED BY|USING ann", ddl)
    statements += [" ".join(text.split()[:2]) for text in flink_step(seed(0))]
    statements += re.findall(r"\\dx \w+", seed(0))
    assert len(set(statements)) == 10
    missing = [name for name in statements if not any(word.startswith(name) for word in shown("adbpg.md"))]
    assert missing == []
    commands = re.findall(r"bin/([\w-]+\.sh)", seed(0))
    assert commands
    assert [name for name in commands if not any(word.startswith(name) for word in shown("kafka.md"))] == []
