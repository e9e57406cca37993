"""A pipeline in memory, its books where the environment says, and a Dagster instance of the test's own."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from tests.engine.memory import MemorySource, World, numbers
from vector_assets.defs import probe


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A source with 70 records, a sink that appends; the books are those a run opens by the environment."""
    monkeypatch.setenv("VECTOR_ASSETS_HOME", str(tmp_path))
    monkeypatch.setattr("vector_assets.engine.env._passes", {})
    monkeypatch.setattr("vector_assets.defs.history._beats", {})
    yield World(tmp_path, MemorySource({"t@a/0": numbers(range(40)), "t@a/1": numbers(range(100, 130))}))
    probe.forget()


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as found:
        yield found
