"""The demo's calls of Dagster, as one would make them by hand in the checkout."""

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import vector_assets
from vector_assets.cli.demo_part import Progress
from vector_assets.engine import env
from vector_assets.engine.errors import FatalError

_PARTITIONS = f"{vector_assets.__name__}.defs.partitions"
"""Asked in a process of its own: the command line does without Dagster."""

CHECKOUT = Path(__file__).resolve().parents[2]
PIPELINES = CHECKOUT / "pipelines"
_RUNS = 3
"""Runs of the assets at most: a drain ends with its hour, and an hour may turn in the middle of one, not of two."""


def materialize(progress: Progress, names: Sequence[str]) -> str:
    """Run `dagster asset materialize` for the open partition until one run both began and ended in it.

    Raises:
        FatalError: Dagster failed; the message shows the end of its output.
    """
    from vector_assets.cli.declared import pipelines
    from vector_assets.engine.hours import Calendar

    chosen = [pipeline for pipeline in pipelines() if pipeline.name in names]
    calendar = Calendar(chosen[0].settings.partitions)
    before = _batches_done(names)
    for _ in range(_RUNS):
        hour = calendar.now()
        arguments = _materializing(names, hour)
        progress(_shown(arguments))
        done = _run(arguments)
        if not calendar.is_open(hour):
            continue
        _refuse_failed(arguments, done)
        return f"{_shown(arguments)}: {_batches_done(names) - before or 'no'} new batches"
    raise FatalError(f"demo: the partition ended during each of {_RUNS} runs")


def materialize_partitions(progress: Progress, names: Sequence[str]) -> str:
    """Materialize what is not read of sources that have partitions of their own.

    Raises:
        FatalError: Dagster failed; the message shows the end of its output.
    """
    before = _batches_done(names)
    arguments = ["-m", _PARTITIONS, "--materialize", *names]
    progress(_shown(arguments))
    _refuse_failed(arguments, _run(arguments))
    return f"{_shown(arguments)}: {_batches_done(names) - before or 'no'} new batches"


def together(folders: Sequence[Path]) -> Path:
    """A folder with copies of several folders' declarations: Dagster, whose start takes its time, loads one folder."""
    made = env.home() / "demo" / "pipelines"
    shutil.rmtree(made, ignore_errors=True)
    for folder in folders:
        shutil.copytree(folder, made, ignore=shutil.ignore_patterns("_*", ".*"), dirs_exist_ok=True)
    return made


def _materializing(names: Sequence[str], partition: str) -> list[str]:
    # this one command of Dagster does not look into pyproject.toml by itself
    module = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["dagster"]["module_name"]
    selected = ["--select", ",".join(names), "--partition", partition]
    return ["-m", "dagster", "asset", "materialize", "-m", module, *selected]


def _shown(arguments: Sequence[str]) -> str:
    """As it can be typed."""
    folder = env.pipelines_dir()
    before = [] if folder == PIPELINES else [f"VECTOR_ASSETS_PIPELINES={folder}"]
    return " ".join([*before, *(arguments[1:] if arguments[1] == "dagster" else ["python", *arguments])])


def _refuse_failed(arguments: Sequence[str], done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-40:])
        raise FatalError(f"demo: `{_shown(arguments)}` ended with exit code {done.returncode}:\n{tail}")


def _batches_done(names: Sequence[str]) -> int:
    from vector_assets.cli.declared import books, pipelines

    chosen = [pipeline for pipeline in pipelines() if pipeline.name in names]
    with books() as open_books:
        return sum(open_books.ledger.totals(pipeline.name, pipeline.target)[0] for pipeline in chosen)


def _run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run Python as one would by hand in the checkout."""
    environment = env.child_environment()
    environment.setdefault("DAGSTER_HOME", str(CHECKOUT / "dagster_home"))
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=CHECKOUT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
