"""Dagster asked and told from the command line, in processes of its own: importing it takes seconds."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import vector_assets
from vector_assets.engine import env
from vector_assets.engine.errors import ConfigError, FatalError

# run as processes, not imported: a command line never waits for Dagster's import
_DEFINITIONS = f"{vector_assets.__name__}.definitions"
_INSTANCE = f"{vector_assets.__name__}.defs.instance"


def instance_states() -> dict[str, Any] | None:
    """Sensors, newest runs and daemon of the instance; None where DAGSTER_HOME names none.

    Raises:
        FatalError: the instance cannot be opened.
    """
    return None if env.dagster_home() is None else _asked("states")


def run_log(pipeline: str, run: str | None) -> dict[str, Any]:
    """The log of a pipeline's run, by the beginning of its id, or of its newest one.

    Raises:
        ConfigError: there is no instance.
        FatalError: it cannot be opened.
    """
    _need_instance()
    return _asked("logs", pipeline, *([run] if run else []))


def switch_sensor(name: str, verb: str) -> None:
    """Turn a sensor on (`start`) or off (`stop`) in the instance; no daemon need be running.

    Raises:
        ConfigError: there is no instance.
        FatalError: Dagster failed; the end of what it said is in the message.
    """
    _need_instance()
    arguments = ["-m", "dagster", "sensor", verb, name, *_location()]
    done = subprocess.run(
        [sys.executable, *arguments],
        env=env.child_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise FatalError(f"`dagster sensor {verb} {name}` ended with exit code {done.returncode}:\n{tail}")


def _location() -> list[str]:
    """How the code location is named, so that it is the one that `dagster dev` loads in this folder."""
    project = Path("pyproject.toml")
    is_declared = project.is_file() and "dagster" in tomllib.loads(project.read_text()).get("tool", {})
    return [] if is_declared or Path("workspace.yaml").is_file() else ["-m", _DEFINITIONS]


def _need_instance() -> None:
    if env.dagster_home() is None:
        raise ConfigError(
            "DAGSTER_HOME is not set: sensors and runs are kept in Dagster's instance; export DAGSTER_HOME=<the folder"
            " with dagster.yaml>"
        )


def _asked(*question: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", _INSTANCE, *question],
        env=env.child_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        tail = "\n".join(done.stderr.splitlines()[-10:])
        raise FatalError(f"Dagster's instance in {env.dagster_home()} cannot be asked:\n{tail}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found
