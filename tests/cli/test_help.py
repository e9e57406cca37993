"""What the command line says of itself, and how little it needs to say it."""

import resource
import subprocess
import sys
from pathlib import Path

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


def test_help_takes_less_than_half_a_second_of_processor_time():
    command = [Path(sys.executable).with_name("vector-assets"), "--help"]
    seconds = []
    # other work on the machine makes it slower, nothing makes it faster
    while len(seconds) < 10 and min(seconds, default=1.0) >= 0.5:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.5, seconds


def test_work_does_not_import_dagster(home):
    code = (
        "import sys; sys.modules['dagster'] = None\n"
        "import vector_assets.cli.declared, vector_assets.cli.survey, vector_assets.cli.description\n"
        "import vector_assets.engine.operate, vector_assets.local.demo_cars, vector_assets.local.demo_people"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
