"""Exactly once: the position and the rows move together, whoever else commits."""

import threading

import pyarrow as pa
import pytest

from tests.sinks.contract import SCHEMA, Feed, car, rows_of
from tests.sinks.iceberg_target import lake  # noqa: F401  (fixture)
from vector_assets.clients.iceberg import ConflictError
from vector_assets.engine.errors import FatalError, FencedError, TargetReplacedError, TransientError


def test_two_writers_at_once_land_every_batch_of_both(lake):  # noqa: F811
    lake.sink(key=())
    failures = []

    def write(name: str) -> None:
        sink = lake.sink(key=(), pipeline=name)
        feed = Feed(sink, pipeline=name)
        for number in range(12):
            staged = feed.stage(rows_of(car(number, name)))
            for _ in range(60):
                try:
                    sink.commit(staged)
                    break
                except TransientError:
                    if sink.find(staged.token, None) == "APPLIED":
                        break
            else:
                failures.append((name, number))

    threads = [threading.Thread(target=write, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    found = sorted((row["color"], row["id"]) for row in lake.rows())
    assert found == [(name, number) for name in ("one", "two") for number in range(12)]


def test_a_zombie_with_an_old_view_of_the_table_is_refused(lake):  # noqa: F811
    zombie = Feed(lake.sink(key=()))
    zombie.apply(car(1))
    staged = zombie.stage(rows_of(car(2, "zombie")))
    owner = Feed(lake.sink(key=()), fence=2)
    owner.seq, owner.offset = 1, 1
    owner.apply(car(2, "owner"))
    # what the zombie has in memory says that its batch is next
    with pytest.raises(ConflictError):
        zombie.sink.commit(staged)
    with pytest.raises(FencedError):
        zombie.sink.commit(staged)
    assert [row["color"] for row in lake.rows()] == ["red", "owner"]


def test_a_foreign_append_between_two_batches_is_kept_and_the_batch_lands_at_the_second_try(lake):  # noqa: F811
    feed = Feed(lake.sink(key=()))
    feed.apply(car(1))
    staged = feed.stage(rows_of(car(3)))
    lake.table().append(pa.table({"id": pa.array([2], pa.int32()), "color": ["foreign"]}))
    with pytest.raises(ConflictError):
        feed.sink.commit(staged)
    assert feed.sink.find(staged.token, staged.committable) == "ABSENT"
    feed.sink.commit(staged)
    assert [row["id"] for row in lake.rows()] == [1, 2, 3]


def test_a_lost_answer_is_resolved_by_the_token(lake, monkeypatch):  # noqa: F811
    from pyiceberg.catalog.sql import SqlCatalog
    from pyiceberg.exceptions import CommitStateUnknownException

    feed = Feed(lake.sink(key=()))
    staged = feed.stage(rows_of(car(1)))
    commit_table = SqlCatalog.commit_table

    def losing(self, *arguments):
        commit_table(self, *arguments)
        raise CommitStateUnknownException("the answer was lost")

    with monkeypatch.context() as patch:
        patch.setattr(SqlCatalog, "commit_table", losing)
        with pytest.raises(TransientError, match="the answer was lost"):
            feed.sink.commit(staged)
    assert feed.sink.find(staged.token, staged.committable) == "APPLIED"
    assert feed.sink.receipt(staged.token).counts.written == 1
    feed.apply(car(2))
    assert [row["id"] for row in lake.rows()] == [1, 2]


def test_the_library_retries_nothing_and_other_writers_settings_stay(lake):  # noqa: F811
    feed = Feed(lake.sink(key=()))
    feed.apply(car(1))
    assert "commit.retry.num-retries" not in lake.table().properties


def test_a_table_made_anew_is_target_replaced(lake):  # noqa: F811
    feed = Feed(lake.sink(key=()))
    feed.apply(car(1))
    staged = feed.stage(rows_of(car(2)))
    lake.catalog.drop_table("shop.cars")
    with pytest.raises(TransientError):
        feed.sink.commit(staged)
    with pytest.raises(TargetReplacedError, match="was dropped"):
        feed.sink.find(staged.token, None)
    lake.sink(key=())
    with pytest.raises(TargetReplacedError, match="is a new table"):
        feed.sink.commit(staged)
    assert lake.rows() == []


def test_a_table_set_back_behind_its_position_is_named(lake):  # noqa: F811
    feed = Feed(lake.sink(key=()))
    feed.apply(car(1))
    first = lake.table().current_snapshot().snapshot_id
    feed.apply(car(2))
    lake.table().manage_snapshots().rollback_to_snapshot(first).commit()
    with pytest.raises(FatalError, match="set back to snapshot"):
        lake.sink(key=()).find(feed.token(1), None)


def test_what_the_table_remembers_is_enough_for_a_ledger(lake):  # noqa: F811
    sink = lake.sink(key=(), snapshots__keep=5)
    feed = Feed(sink)
    for number in range(9):
        feed.apply(car(number))
    recalled = lake.sink(key=()).recall("cars")
    assert [batch.seq for batch in recalled.batches] == [5, 6, 7, 8, 9]
    assert all(batch.span is not None and batch.committed_ms for batch in recalled.batches)
    assert recalled.position == {"vector_ingest@topic/0": {"offset": 9}}
    assert recalled.incarnation == str(lake.table().metadata.table_uuid)
    assert sink.recall("others").batches == ()


def test_every_snapshot_says_which_batch_it_is(lake):  # noqa: F811
    feed = Feed(lake.sink(key=()))
    feed.apply(car(1))
    feed.apply()
    summaries = [snapshot.summary.additional_properties for snapshot in lake.table().snapshots()]
    assert all('"pipeline":"cars"' in summary["vector-assets.batch"] for summary in summaries)
    assert len(summaries) == 2
    assert SCHEMA.names == ["id", "color", "feature"]
