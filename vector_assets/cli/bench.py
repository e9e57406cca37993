"""`vector-assets bench`: the benchmarks of the checkout, each a script `bench/<name>.py` with `main(argv) -> int`."""

import ast
import importlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from vector_assets.cli.output import command, show_table
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.registry import nearest

FOLDER = Path(__file__).resolve().parents[2] / "bench"


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(
        app,
        "vector-assets bench",
        "vector-assets bench kafka-adbpg --rows 500000 --partitions 4 --json",
        "vector-assets bench kafka-milvus --rows 200000 --dim 128 --json",
        "vector-assets bench adbpg-latency --help",
        # what follows the name belongs to the benchmark, its --help too
        context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True},
    )(bench)


def bench(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Which one; without a name: list them.")] = None,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="ARGUMENTS", help="Its own options; try NAME --help.")
    ] = None,
) -> None:
    """Run a benchmark on embedded services of its own, or list the benchmarks."""
    scripts = _scripts()
    if name is None:
        show_table(("benchmark", "measures"), [(known, _summary(file)) for known, file in scripts.items()])
        return
    if name not in scripts:
        raise ConfigError(f"unknown benchmark {name!r}{nearest(name, scripts)}; known: {', '.join(scripts)}")
    sys.path.insert(0, str(FOLDER.parent))
    module = importlib.import_module(f"{FOLDER.name}.{scripts[name].stem}")
    raise typer.Exit(module.main(arguments or []))


def _scripts() -> dict[str, Path]:
    """The benchmarks by name.

    Raises:
        ConfigError: the package does not run from a checkout.
    """
    found = {file.stem.replace("_", "-"): file for file in sorted(FOLDER.glob("*.py")) if _has_main(file)}
    if not found:
        raise ConfigError(
            f"no benchmarks in {FOLDER}: they come with the repository, not with the package; clone it and run there"
        )
    return found


def _has_main(file: Path) -> bool:
    tree = ast.parse(file.read_text())
    return any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body)


def _summary(file: Path) -> str:
    line = (ast.get_docstring(ast.parse(file.read_text())) or "").partition("\n")[0]
    return line.partition("`: ")[2] or line
