"""The rules of the package's inside, read from its syntax trees: who imports whom, who reads what, what is not done."""

import ast
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from vector_assets.engine.env import RARE_STEPS, STEPS

ROOT = Path(__file__).parents[2]
PACKAGE = "vector_assets"
MODULES = sorted((ROOT / PACKAGE).rglob("*.py"))
IDS = [path.relative_to(ROOT).as_posix() for path in MODULES]

ROLES = {"sources", "formats", "transforms", "sinks", "lookups"}
BELOW_DECLARE = ROLES | {"clients", "engine"}
MAY_IMPORT: dict[str, set[str]] = {
    "": set(),
    "engine": set(),
    "clients": {"engine"},
    **{role: {"clients", "engine"} for role in ROLES},
    "declare": BELOW_DECLARE,
    "local": {"clients", "engine"},
    "api": {"declare"} | BELOW_DECLARE,
    "cli": {"declare", "local"} | BELOW_DECLARE,
    "defs": {"declare", "local"} | BELOW_DECLARE,
    "definitions": {"defs", "declare", "local"} | BELOW_DECLARE,
}
"""Layer to the layers it may import besides itself; everybody may import the package's own names (its version)."""

ROW_BY_ROW = {"to_pylist", "to_pydict", "iterrows", "itertuples", "iter_rows"}
"""Methods that make a Python object of every row."""

SLOW_PATHS = {
    "cli/demo_orders.py:_rebuilt": "the demo's 4,000 rows, compared with its messages one by one",
    "cli/demo_orders.py:_show_query": "the six rows of the demo's query",
    "sinks/opensearch_write.py:Landing._judge": "items of a bulk answer that holds refusals",
    "cli/demo_people.py:_show_nearest": "the five rows of the demo's search on a screen",
    "cli/demo_articles.py:_show_nearest": "the few documents of the demo's search on a screen",
    "cli/dead_letters.py:_show_trial": "dead letters on a screen",
    "cli/job_preview.py:_rows": "the few rows of a preview on a screen",
    "cli/job_preview.py:_show": "the few dead letters of a preview on a screen",
    "cli/job_preview.py:_texts": "the few messages of a preview on a screen",
    "cli/job_preview.py:_json": "the dead letters of a preview",
    "cli/preview.py:_rows": "the k records of a preview on a screen",
    "cli/query.py:_rows": "rows on a screen are text",
    "cli/search.py:_json": "the k rows of a search on a screen",
    "cli/search.py:_show": "the k rows of a search on a screen",
    "engine/dead_letters.py:DeadLetters.add": "one row of the ledger per reject, within the error budget",
    "engine/explain.py:_changes": "the hash of the one key that is asked for",
    "engine/origin.py:listed": "the few rows that a report shows",
    "engine/origin.py:origins": "the few records that a report names",
    "engine/rebuild_write.py:_Writer._tie": "dead letters that a replay wrote again, when a lost ledger is rebuilt",
    "engine/stages.py:Stages._check_budget": "the first reject, for the error that ends the run",
    "clients/mysql_image.py:_json": "JSON documents of MySQL 8, whose binary form no vectorised parser reads",
    "clients/mysql_image.py:_set": "the distinct combinations of a SET",
    "clients/mysql_image.py:_text": "texts in another character set than UTF-8",
    "engine/stages.py:Stages._check_refused": "the first refused row of a group, for the error that ends the run",
    "declare/cdc_kafka.py:_newest": "the few records that a look for tables reads",
    "formats/enveloped.py:EnvelopedDecoder._wants": "the first record that names columns as no other does",
    "formats/enveloped.py:EnvelopedDecoder._drift": "the one record that stops the pipeline",
    "formats/enveloped_scan.py:_distinct": "the distinct names of members",
    "formats/enveloped_scan.py:_texts_seen": "the few texts of types that the tables of a batch had",
    "formats/enveloped_scan.py:debezium_seen": "values of a member that is new, at most 1,000",
    "formats/captured.py:CapturedDecoder.decode": "the few layouts that the tables of a batch had",
    "formats/captured.py:CapturedDecoder._refuse": "the one record that stops the pipeline",
    "formats/canal_json.py:CanalJsonDecoder._typed": "what a reject held, for its error",
    "formats/changelog.py:unknown_operations": "what a reject held, for its error",
    "formats/csv.py:CsvDecoder._first_bad": "what a reject held, for its error",
    "formats/csv_split.py:RecordSplitter._one_by_one": "records that no vectorised parser takes as they are",
    "formats/json_rows.py:JsonRows._few": "documents that pyarrow.json does not take as they are, and MAP columns",
    "formats/json_values.py:_whole_one_by_one": "integers with an exponent",
    "formats/lake_drift.py:changes_for": "numbers that do not fit, when a change of the columns may be due",
    "formats/lake_drift.py:reasons": "one text for each document that is a reject, or stops the pipeline",
    "formats/lake_infer.py:infer": "samples, and documents with members that no column is for",
    "formats/lake_json.py:LakeJsonDecoder._invalid": "documents that pyarrow.json does not take as they are",
    "formats/lake_json.py:LakeJsonDecoder._fail": "the one record that stops the pipeline",
    "formats/lake_json.py:LakeJsonDecoder._wants": "the documents that need other columns, when a change is due",
    "formats/grammar.py:differ": "fractions that Arrow spells otherwise than the document",
    "formats/lake_values.py:_without_rounded": "decimals with an exponent or too many digits",
    "formats/old_values.py:nulls_in_old": "updates that may hold a null in what they were before",
    "formats/raw.py:RawDecoder._transcoded": "texts in another character set than UTF-8",
    "formats/text_values.py:_decimals_one_by_one": "decimals with an exponent or over 38 digits",
    "local/maxcompute/console.py:_cells": "the 50 rows of a page for people",
    "local/maxcompute/results.py:csv_text": "the 10,000 rows of a result without the tunnel",
    "local/maxcompute/rows.py:Rows.scatter": "the partitions that rows name",
    "clients/maxcompute_records.py:_nested": "ARRAY, MAP and STRUCT in record streams, which have no columns",
    "sinks/paimon_read.py:keys_filter": "two ends of a range per key column",
    "sinks/console.py:PrintSink._write": "rows on a screen are text",
    "sinks/iceberg_read.py:_literals": "200 keys, or the least and the greatest, for the filter that prunes files",
    "sinks/milvus_audit.py:_json": "JSON fields read back for an audit: equal values must have equal texts",
    "sinks/milvus_tokens.py:Tokens._read": "rows of the collection for batches, two of them per batch",
    "sources/mysql_fit.py:_fit": "BIT columns declared as numbers",
    "sources/mysql_fit.py:_times": "TIME columns declared as STRING",
    "sources/mysql_join.py:Join.rows": "keys that changed, which are parameters of the SELECT that reads their rows",
    "sources/mysql_snapshot.py:Merger._keys_of": "keys that changed while the initial snapshot is read",
    "sources/mysql_snapshot.py:Merger.corrected": "a chunk of the initial snapshot that changed while it was read",
    "sources/mysql_snapshot.py:read_chunk": "the last key of a chunk",
    "sinks/milvus_values.py:_not_json": "columns for JSON fields: no vectorised parser takes any JSON value",
    "sinks/milvus_values.py:_text_to_sparse": "sparse vectors written as JSON objects; MAP columns are vectorised",
    "transforms/checked_cast.py:_out_of_range": "what a reject held, for its error",
    "transforms/embedding_asking.py:_Asking.send": "the texts of one request, which are JSON",
    "transforms/duck.py:BatchQuery._bisected": "one reject's number per query that found it",
}
"""Functions that may, with the reason; an entry that is not needed is an error too."""


def is_package_name(name: str) -> bool:
    return name == PACKAGE or name.startswith(PACKAGE + ".")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def layer_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Line and name of every module imported, wherever it stands, lazy "module:Class" names of registries included."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module
            if node.module == PACKAGE:
                yield from ((node.lineno, f"{PACKAGE}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            lazy = re.fullmatch(rf"({PACKAGE}(?:\.\w+)+)(?::\w+)?", node.value)
            if lazy:
                yield node.lineno, lazy[1]


def functions_of(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Every node with the qualified name of the function or class it stands in."""
    for child in ast.iter_child_nodes(node):
        is_named = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        name = f"{prefix}.{child.name}".lstrip(".") if is_named else prefix  # type: ignore[attr-defined]
        yield name, child
        yield from functions_of(child, name)


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_a_module_imports_only_the_layers_below_it(path: Path) -> None:
    layer = layer_of(module_of(path))
    assert layer in MAY_IMPORT, f"{path}: no such layer in STYLE section 2"
    for line, name in imports_of(path):
        if not is_package_name(name):
            continue
        imported = layer_of(name)
        is_own_name = imported not in MAY_IMPORT  # `from vector_assets import __version__`
        allowed = is_own_name or imported in {"", layer} | MAY_IMPORT[layer]
        assert allowed, f"{path}:{line}: {layer or PACKAGE} must not import {name}"


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_imports_are_absolute_and_annotations_are_real(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            assert node.module != "__future__", f"{path}:{node.lineno}: dagster reads annotations as objects"


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_only_the_dagster_face_imports_dagster_and_only_its_public_names(path: Path) -> None:
    is_face = layer_of(module_of(path)) in {"defs", "definitions"}
    for line, name in imports_of(path):
        first, _, rest = name.partition(".")
        if first == "dagster" or first.startswith("dagster_"):
            assert is_face, f"{path}:{line}: only definitions.py and defs/ import {name}"
            is_known = path == ROOT / PACKAGE / "defs" / "storage.py"
            assert is_known or not rest.startswith("_"), f"{path}:{line}: {name} is private"


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_lazy_names_lead_to_something(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            lazy = re.fullmatch(rf"({PACKAGE}(?:\.\w+)+):(\w+)", node.value)
            if lazy:
                spec = importlib.util.find_spec(lazy[1])
                assert spec is not None, f"{path}:{node.lineno}: no module {lazy[1]}"
                assert spec.origin is not None
                defined = {getattr(statement, "name", None) for statement in tree_of(Path(spec.origin)).body}
                assert lazy[2] in defined, f"{path}:{node.lineno}: {lazy[1]} has no {lazy[2]}"


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_only_env_reads_the_environment(path: Path) -> None:
    if path == ROOT / PACKAGE / "engine" / "env.py":
        return
    names = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
    for node in ast.walk(tree_of(path)):
        found: set[str] = set()
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            found = {node.attr} & names
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            found = {alias.name for alias in node.names} & names
        assert not found, f"{path}:{node.lineno}: only engine/env.py uses os.{found.pop()}"  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_nothing_is_left_to_be_implemented(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        is_stub = isinstance(node, ast.Name) and node.id in {"NotImplementedError", "NotImplemented"}
        assert not is_stub, f"{path}:{node.lineno}: {node.id}"  # type: ignore[attr-defined]


LOOPS = (ast.For, ast.While, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Lambda)


def row_by_row(path: Path) -> Iterator[tuple[str, int, str]]:
    """Function, line and method of every place that may touch each row in Python.

    `as_py()` of one value (a maximum, an `any`) is none; inside a loop or a lambda it is.
    """
    loops = [node for node in ast.walk(tree_of(path)) if isinstance(node, LOOPS)]
    in_loops = {id(inner) for loop in loops for inner in ast.walk(loop) if inner is not loop}
    for function, node in functions_of(tree_of(path)):
        if isinstance(node, ast.Attribute) and (
            node.attr in ROW_BY_ROW or (node.attr == "as_py" and id(node) in in_loops)
        ):
            yield function, node.lineno, node.attr


def place_of(path: Path, function: str) -> str:
    return f"{path.relative_to(ROOT / PACKAGE).as_posix()}:{function}"


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_rows_meet_python_only_on_named_slow_paths(path: Path) -> None:
    for function, line, method in row_by_row(path):
        assert place_of(path, function) in SLOW_PATHS, f"{path}:{line}: {method} in {function} is not a named slow path"


def test_every_named_slow_path_is_one() -> None:
    used = {place_of(path, function) for path in MODULES for function, _, _ in row_by_row(path)}
    assert set(SLOW_PATHS) <= used


def test_every_step_has_a_failpoint_and_every_failpoint_names_a_step() -> None:
    used = set()
    for path in MODULES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "failpoint":
                (step,) = node.args
                assert isinstance(step, ast.Constant), f"{path}:{node.lineno}: a failpoint's step is a literal"
                used.add(step.value)
    assert used == {*STEPS, *RARE_STEPS}


WITHOUT_DAGSTER = """
import importlib, sys
sys.modules["dagster"] = None
for name in sys.argv[1:]:
    importlib.import_module(name)
foreign = ("confluent_kafka", "kafka", "psycopg", "vector_assets.")
print(*sorted(n for n in sys.modules if n.startswith(foreign) and not n.startswith("vector_assets.engine")))
"""


def test_the_engine_needs_neither_dagster_nor_a_connector() -> None:
    engine = [module_of(path) for path in MODULES if layer_of(module_of(path)) == "engine"]
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_DAGSTER, *engine], check=False, cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []


def test_the_rules_see_what_they_forbid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that finds nothing would be green for ever."""
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    bad = tmp_path / PACKAGE / "engine" / "bad.py"
    bad.parent.mkdir(parents=True)
    rules = {
        "import vector_assets.sinks.adbpg": test_a_module_imports_only_the_layers_below_it,
        "from vector_assets import sinks": test_a_module_imports_only_the_layers_below_it,
        "def f():\n    from vector_assets.local.kafka import K": test_a_module_imports_only_the_layers_below_it,
        "X = {'a': 'vector_assets.sinks.adbpg:AdbPgSink'}": test_a_module_imports_only_the_layers_below_it,
        "from . import core": test_imports_are_absolute_and_annotations_are_real,
        "from __future__ import annotations": test_imports_are_absolute_and_annotations_are_real,
        "import dagster as dg": test_only_the_dagster_face_imports_dagster_and_only_its_public_names,
        "from dagster_postgres import x": test_only_the_dagster_face_imports_dagster_and_only_its_public_names,
        "X = {'a': 'vector_assets.sinks.none:Nothing'}": test_lazy_names_lead_to_something,
        "X = {'a': 'vector_assets.engine.core:Nothing'}": test_lazy_names_lead_to_something,
        "import os\nos.environ['A']": test_only_env_reads_the_environment,
        "from os import getenv": test_only_env_reads_the_environment,
        "def f():\n    raise NotImplementedError": test_nothing_is_left_to_be_implemented,
        "class A:\n    def f(self, t):\n        return t.to_pylist()": test_rows_meet_python_only_on_named_slow_paths,
        "def f(t):\n    return [x.as_py() for x in t]": test_rows_meet_python_only_on_named_slow_paths,
    }
    for source, rule in rules.items():
        tree_of.cache_clear()
        bad.write_text(source)
        with pytest.raises(AssertionError):
            rule(bad)
    tree_of.cache_clear()
    bad.write_text("import os, pyarrow\nfrom vector_assets.engine import core\nX = pyarrow.scalar(1).as_py()")
    for rule in set(rules.values()):
        rule(bad)
    tree_of.cache_clear()
