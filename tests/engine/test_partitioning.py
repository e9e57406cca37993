import pytest

from tests.engine.memory import World, numbers
from tests.engine.partitioned import PartitionedOptions, PartitionedSource, PartitionedWorld
from vector_assets.engine import operate
from vector_assets.engine.core import BatchKind, Counts, Range, Span
from vector_assets.engine.errors import ConfigError, ExpiredError, FatalError, PlanError
from vector_assets.engine.hours import Calendar
from vector_assets.engine.ledger_records import Fold
from vector_assets.engine.partitioning import Partitioning
from vector_assets.engine.rewrite import Selection
from vector_assets.engine.run import Runner

OWN = Partitioning(Calendar(), PartitionedOptions())


@pytest.fixture
def world(tmp_path) -> World:
    parts = {f"t/ds={n}": numbers([n, n + 10]) for n in (1, 2, 3)}
    return PartitionedWorld(tmp_path, PartitionedSource(parts))


def work(world, method, *arguments):
    with world.session() as session:
        return list(getattr(Runner(session), method)(*arguments))


def places(world):
    return [(batch.hour, batch.span.short()) for batch in world.books.ledger.batches("numbers")]


def ids(world):
    return [row[0] for row in world.cell.rows]


def test_every_batch_belongs_to_the_partition_it_is_read_from_and_spans_no_two(world):
    assert len(work(world, "catch_up")) == 3
    assert places(world) == [("ds=1", "ds=1:0-2"), ("ds=2", "ds=2:0-2"), ("ds=3", "ds=3:0-2")]
    assert sorted(path.name for path in (world.folder / "archive" / "numbers").iterdir()) == [
        "ds%3D1",
        "ds%3D2",
        "ds%3D3",
    ]


def test_a_drain_of_one_partition_leaves_the_others_alone(world):
    work(world, "drain", "ds=2")
    assert ids(world) == [2, 12]
    work(world, "catch_up")
    assert ids(world) == [2, 12, 1, 11, 3, 13]


def test_a_partition_is_replayed_alone_and_read_only_if_something_is_left_of_it(world):
    work(world, "drain", "ds=1")
    work(world, "drain", "ds=2")
    world.cell.rows.clear()
    world.cell.next.clear()
    world.cell.batches.clear()
    (outcome,) = work(world, "replay", "ds=1")
    assert (outcome.how, ids(world)) == ("applied", [1, 11])
    assert [each.how for each in work(world, "settle", "ds=1")] == ["found"]
    assert [each.batch.hour for each in work(world, "settle", "ds=3")] == ["ds=3"]


def test_a_settled_partition_needs_no_source(world):
    work(world, "catch_up")
    world.source.splits = {}
    assert [each.how for each in work(world, "settle", "ds=2")] == ["found"]


@pytest.mark.parametrize(
    ("key", "reason"),
    [("ds=3", "numbers: ds=3 is not read: is still"), ("ds=9", "no partition 'ds=9'; the last of 3: ds=1, ds=2, ds=3")],
    ids=["incomplete", "unknown"],
)  # fmt: skip
def test_a_partition_that_is_not_to_be_read_says_why(world, key, reason):
    world.source.writing = {"ds=3", "t/ds=3"}
    with pytest.raises(PlanError, match=reason):
        work(world, "settle", key)
    assert ids(world) == []


def test_what_has_no_partition_of_its_own_goes_with_the_last_batch(world):
    world.source.splits["t/ds=2"].append(b"bad")
    world.settings["vector-assets.error-budget"] = "1"
    work(world, "drain", "ds=2")
    work(world, "drain", "ds=1")
    with world.session() as session:
        letters = session.ledger.dead_letters.listed("numbers")
        operate.replay_dead_letters(session, letters)
    newest = world.books.ledger.batches("numbers")[-1]
    assert (newest.kind, newest.hour) == (BatchKind.DEAD_LETTERS, "ds=1")


def test_records_of_two_partitions_are_no_batch():
    span = Span((Range("t/ds=1", 0, 1), Range("t/ds=2", 0, 1)))
    with pytest.raises(FatalError, match="spans the partitions ds=1, ds=2"):
        OWN.of(BatchKind.RECORDS, span, None, None)
    assert OWN.of(BatchKind.RESET, span, None, None) == "ds=2"


def test_a_span_over_several_partitions_is_cut_to_the_first_and_one_of_hours_is_not():
    span = Span((Range("t/ds=1", 0, 1), Range("t/ds=2", 0, 1)))
    assert OWN.first_of(span) == Span(span.ranges[:1])
    assert Partitioning(Calendar()).first_of(span) == span


def test_keys_are_checked_by_whoever_has_the_partitions():
    assert OWN.key("ds=1") == "ds=1"
    with pytest.raises(ConfigError, match="want ds="):
        OWN.key("2026-01-01-00:00")
    with pytest.raises(ConfigError, match="want the form"):
        Partitioning(Calendar()).key("ds=1")


def test_a_partition_is_folded_when_a_batch_of_it_is_whatever_sorts_after_it():
    fold = Fold(2, "ds=5", 2, 0, Counts(), {"t/ds=1": 2, "t/ds=5": 2})
    folded = [key for key in ("ds=1", "ds=3", "ds=5", "ds=6") if OWN.is_folded(fold, (key, key))]
    assert folded == ["ds=1", "ds=5"]
    assert OWN.is_folded(fold, ("ds=2", "ds=9"))
    assert not OWN.is_folded(fold, (None, None))


def test_the_ledger_refuses_a_folded_partition(world, monkeypatch):
    work(world, "catch_up")
    fold = Fold(1, "ds=2", 1, 0, Counts(), {"t/ds=2": 2})
    monkeypatch.setattr(world.books.ledger, "fold", lambda *_: fold)
    with pytest.raises(ExpiredError):
        work(world, "replay", "ds=2")
    assert [each.how for each in work(world, "replay", "ds=1")] == ["found"]


def test_a_selection_of_partitions_takes_those_that_sort_between(world):
    work(world, "catch_up")
    chosen = [batch.hour for batch in world.books.ledger.batches("numbers") if Selection("ds=2", "ds=3").has(batch)]
    assert chosen == ["ds=2", "ds=3"]
