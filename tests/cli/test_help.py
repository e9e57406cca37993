"""What the command line says of itself, and how little it needs to say it."""

import subprocess
import sys

import pytest
import typer.main

from vector_assets import __version__
from vector_assets.cli import app

HEAVY = ("pyarrow", "duckdb", "numpy", "dagster", "confluent_kafka", "kafka", "psycopg", "sqlglot", "pydantic")


def commands():
    """Every command by the words that call it."""
    root = typer.main.get_command(app)
    for name, command in root.commands.items():
        if hasattr(command, "commands"):
            yield from ((name, inner) for inner in command.commands)
        else:
            yield (name,)


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_the_help_of_a_command_shows_an_example_of_it(cli, words):
    done = cli(*words, "--help")
    assert done.code == 0
    _, _, shown = done.out.partition("Examples")
    assert f"vector-assets {' '.join(words)}" in shown


def test_without_a_command_the_help_is_shown(cli):
    done = cli()
    assert "Usage" in done.out
    for name in ("plan", "run", "replay", "status", "reset", "dead-letters", "services", "bench", "demo"):
        assert name in done.out


def test_the_version_is_the_package_s(cli):
    assert cli("--version").out == f"vector-assets {__version__}\n"


def test_start_up_imports_nothing_heavy():
    code = f"import sys, vector_assets.cli; print(*sorted(set(sys.modules) & set({HEAVY})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


HELP = """
import io, sys, time, typer.rich_utils
from rich import console, table, text
before = time.process_time()
from vector_assets.cli import main
sys.argv[1:] = ["--help"]
out, sys.stdout = sys.stdout, io.StringIO()
try:
    main()
except SystemExit:
    print(time.process_time() - before, file=out)
"""


def test_help_takes_a_fifth_of_a_second_beside_typer_and_rich():
    """In all it is 0.3 to 0.5 s of processor time, by how busy the machine is; the rest is their import."""
    seconds = [float(subprocess.check_output([sys.executable, "-c", HELP])) for _ in range(3)]
    assert min(seconds) < 0.2, seconds


def test_work_does_not_import_dagster(home):
    code = (
        "import sys; sys.modules['dagster'] = None\n"
        "import vector_assets.cli.declared, vector_assets.cli.survey, vector_assets.cli.description\n"
        "import vector_assets.engine.operate, vector_assets.local.demo_cars, vector_assets.local.demo_people"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
