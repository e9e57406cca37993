"""The command line in this process: `cli(...)` runs a command in a home of its own, `job` gives it real work."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.faults.car import CarJob
from vector_assets.cli import app


@dataclass(frozen=True)
class Done:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


Cli = Callable[..., Done]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with nothing in it but an empty `pipelines`; commands run in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pipelines").mkdir(exist_ok=True)
    monkeypatch.setenv("VECTOR_ASSETS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("VECTOR_ASSETS_PIPELINES", str(tmp_path / "pipelines"))
    return tmp_path


@pytest.fixture
def cli(home: Path) -> Cli:
    """`cli("status", "--json")`; `answer` is typed when the command asks."""

    def run(*arguments: str, answer: str | None = None) -> Done:
        result = CliRunner().invoke(app, arguments, input=answer)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Done(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def job(tmp_path, kafka, postgres, monkeypatch: pytest.MonkeyPatch) -> CarJob:
    """The pipeline `cars` over a topic and a table of its own; use it before `cli`, whose folder it shares."""
    made = CarJob(tmp_path, kafka, postgres)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made
