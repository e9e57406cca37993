"""Sequence numbers of keyed tables: the newest row of a key wins, whoever wrote the snapshots before it."""

from datetime import timedelta

import pytest
from pypaimon.write.file_store_write import FileStoreWrite

from tests.sinks.contract import Feed, car
from tests.sinks.paimon_target import lake, make_lake  # noqa: F401  (fixtures)
from vector_assets.engine.abilities import Upkeep


@pytest.fixture
def looks(monkeypatch) -> list[object]:
    """The partitions whose files were looked through for the highest sequence number."""
    found, look = [], FileStoreWrite._load_seq_number_stats

    def noted(self, partition):
        found.append(partition)
        return look(self, partition)

    monkeypatch.setattr(FileStoreWrite, "_load_seq_number_stats", noted)
    return found


def colors(lake) -> dict[int, str]:  # noqa: F811
    return {row[0]: row[1] for row in lake.rows()}


@pytest.mark.parametrize("bucket", [1, 2, -1])
def test_a_run_of_batches_looks_through_the_files_once(lake, looks, bucket):  # noqa: F811
    feed = Feed(lake.sink(bucket=bucket))
    for number in range(8):
        feed.apply(car(1, f"color {number}"), car(number + 2), deletes=(number + 1,) if number > 1 else ())
    assert len(looks) == 1
    assert colors(lake) == {1: "color 7", 2: "red", 9: "red"}
    feed.apply(deletes=(1,))
    feed.apply(car(1, "again"))
    assert colors(lake)[1] == "again"
    assert len(looks) == 1


@pytest.mark.parametrize("other", ["another pipeline", "another worker", "maintenance", "a batch without rows"])
def test_after_a_snapshot_of_others_the_newest_row_still_wins(lake, looks, other):  # noqa: F811
    sink = lake.sink(bucket=1)
    feed = Feed(sink)
    feed.apply(car(1, "first"))
    feed.apply(car(1, "second"))
    if other == "another pipeline":
        rival = Feed(lake.sink(bucket=1), pipeline="others")
        for number in range(5):
            rival.apply(car(1, f"of others {number}"))
    elif other == "another worker":
        rival = Feed(lake.sink(bucket=1), fence=2)
        rival.seq, rival.offset = feed.seq, feed.offset
        for number in range(5):
            rival.apply(car(1, f"of the next worker {number}"))
        feed.seq, feed.offset, feed.fence = rival.seq, rival.offset, 3
    elif other == "maintenance":
        sink.maintain("compact", Upkeep(grace=timedelta(0), keep_snapshots=1, keep_for=timedelta(0)))
    else:
        Feed(lake.sink(bucket=1), pipeline="others").apply(car(1, "of others"))
        feed.apply()
    feed.apply(car(1, "third"))
    assert colors(lake) == {1: "third"}
    feed.apply(car(1, "fourth"))
    assert colors(lake) == {1: "fourth"}
    assert len(looks) >= 2


def test_a_commit_that_lost_the_race_is_made_again_above_the_winner(lake, monkeypatch):  # noqa: F811
    sink = lake.sink(bucket=1)
    feed, rival = Feed(sink), Feed(lake.sink(bucket=1), pipeline="others")
    feed.apply(car(1, "first"))
    check = sink._check_incarnation

    def overtaken(expected: str) -> None:
        monkeypatch.setattr(sink, "_check_incarnation", check)
        marks = sink._tokens.marks

        def late(table):
            found = marks(table)
            monkeypatch.setattr(sink._tokens, "marks", marks)
            for number in range(3):
                rival.apply(car(1, f"of others {number}"))
            return found

        monkeypatch.setattr(sink._tokens, "marks", late)
        check(expected)

    monkeypatch.setattr(sink, "_check_incarnation", overtaken)
    feed.apply(car(1, "second"))
    assert colors(lake) == {1: "second"}
    feed.apply(car(1, "third"))
    assert colors(lake) == {1: "third"}
