"""What is fixed at creation: kept by the ledger, compared at every start, free again after deletion."""

from dataclasses import replace

import pytest

from tests.engine.memory import MemorySource, World, numbers
from vector_assets.engine.creation import Creation, delete, ensure_created, overlap, share_a_prefix
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.ledger import Ledger


@pytest.fixture
def made(tmp_path):
    """A function that gives a pipeline with a creation."""
    pipeline = World(tmp_path, MemorySource({"t@a/0": numbers(range(3))})).pipeline()

    def make(name, path, **more):
        return replace(pipeline, name=name, creation=Creation({"destination.path": path}, path, path, **more))

    return make


@pytest.fixture
def ledger(tmp_path):
    opened = Ledger(tmp_path / "ledger.db")
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("one", "other", "is_shared"),
    [
        ("/test", "/test2", False), ("/test/", "/test/sls1", True), ("s3://b/x", "s3a://b/x/y", True),
        ("oss://b/x", "s3://b/x", False), ("/a/./b", "file:///a/b", True), ("s3://b", "s3://b2", False),
        ("/a/c/../b", "/a/b/x", True), ("file://localhost/a", "/a/x", True), ("s3://b/a/../c", "s3://b/c", False),
    ],
)  # fmt: skip
def test_paths_overlap_by_segment(one, other, is_shared):
    assert overlap(one, other) is overlap(other, one) is is_shared


def test_a_folder_is_the_same_by_a_link_to_it(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    assert overlap(f"{tmp_path}/data/orders", f"{tmp_path}/disk/orders/x")
    assert not overlap(f"{tmp_path}/data/orders", f"{tmp_path}/disk/orders2")


def test_tables_of_one_warehouse_are_apart():
    one, other = (Creation({}, "/w", f"/w/d.db/{name}") for name in ("a", "b"))
    assert not share_a_prefix(one, other)
    assert share_a_prefix(one, one)


def test_a_creation_is_noted_once_and_its_check_is_asked_once(ledger, made):
    asked = []
    pipeline = made("a", "/p", check=lambda: asked.append(1))
    assert ensure_created(ledger, pipeline)
    assert not ensure_created(ledger, pipeline)
    assert asked == [1]
    assert [what for _, what, _ in ledger.events("a")] == ["created"]


def test_a_check_that_fails_leaves_nothing(ledger, made):
    def full() -> None:
        raise ConfigError("not empty")

    with pytest.raises(ConfigError, match="not empty"):
        ensure_created(ledger, made("a", "/p", check=full))
    assert ledger.events("a") == []


def test_a_change_is_refused_naming_both_until_the_pipeline_is_deleted(ledger, made):
    ensure_created(ledger, made("a", "/p"))
    with pytest.raises(ConfigError, match="it was created with /p, found /q"):
        ensure_created(ledger, made("a", "/q"))
    delete(ledger, "a")
    assert ensure_created(ledger, made("a", "/q"))


def test_a_path_of_another_pipeline_that_the_ledger_knows_is_refused(ledger, made):
    ensure_created(ledger, made("a", "/p"))
    with pytest.raises(ConfigError, match="path /p/q shares a prefix with /p of a, which the ledger knows"):
        ensure_created(ledger, made("b", "/p/q"))
    delete(ledger, "a")
    assert ensure_created(ledger, made("b", "/p/q"))


def test_a_link_leads_to_the_same_place(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert overlap(f"{tmp_path}/real", f"file://{tmp_path}/link/x")
    assert not overlap(f"{tmp_path}/real", f"{tmp_path}/link2")
