"""Maintenance of Paimon tables: rows and tokens stay, files get fewer, nothing that is needed is removed."""

import os
import threading
import time
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from tests.sinks.contract import SCHEMA, Feed, car, rows_of
from tests.sinks.paimon_target import lake, make_lake  # noqa: F401  (fixtures)
from vector_assets.engine.abilities import Upkeep
from vector_assets.engine.errors import FencedError, PlanError, TransientError

NOW = Upkeep(grace=timedelta(0), keep_snapshots=1, keep_for=timedelta(0))


def data_files(lake) -> set[str]:  # noqa: F811
    return {path.name for path in Path(lake.path).rglob("data-*")}


KINDS = {
    "append": ((), {}),
    "append, partitions": ((), {"partition": "color"}),
    "append, buckets": ((), {"bucket": 2, "bucket___key": "id"}),
    "key": (("id",), {"bucket": 1}),
    "key, two buckets": (("id",), {"bucket": 2}),
    "key, dynamic buckets": (("id",), {"bucket": -1}),
}


@pytest.fixture(params=KINDS.values(), ids=list(KINDS))
def fed(request, lake):  # noqa: F811
    """A table of twenty batches."""
    key, options = request.param
    sink = lake.sink(key=key, **options)
    feed = Feed(sink)
    for number in range(10):
        feed.apply(car(number), car(number + 1, "blue"))
    if key:
        feed.apply(deletes=(3, 4))
        feed.apply(car(4, "green"))
    return feed


def test_compaction_leaves_the_rows_and_fewer_files(lake, fed):  # noqa: F811
    rows, newest = lake.rows(), fed.sink.newest_seq("cars")
    done = fed.sink.maintain("compact", NOW)
    assert lake.rows() == rows
    assert done.files_after < done.files_before
    assert done.files_after <= 2
    assert fed.sink.newest_seq("cars") == newest
    again = fed.sink.maintain("compact", NOW)
    assert again.files_after == again.files_before == done.files_after


def test_writing_goes_on_after_compaction(lake, fed):  # noqa: F811
    fed.sink.maintain("compact", NOW)
    fed.apply(car(5, "black"), car(77))
    rows = lake.rows()
    assert (77, "red", "{1,2,3}") in rows
    assert (5, "black", "{1,2,3}") in rows
    fed.sink.maintain("compact", NOW)
    assert lake.rows() == rows
    if fed.sink.prepare(SCHEMA, ()).key:
        assert [row[1] for row in rows if row[0] == 5] == ["black"]


def test_expiry_removes_snapshots_and_files_nobody_needs_and_keeps_the_tokens(lake, fed):  # noqa: F811
    rows, recalled = lake.rows(), fed.sink.recall("cars")
    fed.sink.maintain("compact", NOW)
    before = data_files(lake)
    done = fed.sink.maintain("expire", NOW)
    assert done.numbers["snapshots"] == 1
    assert len(lake.numbers()) == 1
    assert len(data_files(lake)) < len(before)
    assert lake.rows() == rows
    again = lake.sink(None).recall("cars")
    assert (again.position, again.fence, again.batches[-1].seq) == (
        recalled.position, recalled.fence, recalled.batches[-1].seq,
    )  # fmt: skip
    fed.apply(car(99))
    assert 99 in [row[0] for row in lake.rows()]
    # what the tag of our last batch needed goes with the tag
    fed.sink.maintain("compact", NOW)
    fed.sink.maintain("expire", NOW)
    assert fed.sink.maintain("orphans", NOW).removed == 0


def test_orphans_older_than_the_grace_are_removed_and_nothing_else(lake, fed):  # noqa: F811
    rows = lake.rows()
    fed.sink.stage(pa_batch(car(500)), fed.token(1))
    bucket = next(Path(lake.path).rglob("data-*")).parent
    orphan, strange = bucket / "data-orphan-0.parquet", bucket / "notes.txt"
    orphan.write_bytes(b"1")
    strange.write_bytes(b"1")
    kept = fed.sink.maintain("orphans", Upkeep(grace=timedelta(hours=1)))
    assert kept.removed == 0
    assert orphan.exists()
    old = time.time() - 7200
    os.utime(orphan, (old, old))
    os.utime(strange, (old, old))
    assert fed.sink.maintain("orphans", Upkeep(grace=timedelta(hours=1))).removed == 1
    assert strange.exists()
    assert lake.rows() == rows


def pa_batch(*rows):
    from vector_assets.engine.core import Batch

    return Batch(rows_of(*rows))


def test_a_staged_batch_survives_orphan_removal_and_expiry(lake):  # noqa: F811
    feed = Feed(lake.sink(key=()))
    for number in range(3):
        feed.apply(car(number))
    staged = feed.stage(rows_of(car(3)))
    for task in ("compact", "expire", "orphans"):
        feed.sink.maintain(task, Upkeep(keep_snapshots=1, keep_for=timedelta(0)))
    feed.sink.commit(staged)
    assert [row[0] for row in lake.rows()] == [0, 1, 2, 3]


def test_maintenance_beside_a_committer_loses_and_doubles_nothing(lake):  # noqa: F811
    feed, keeper = Feed(lake.sink(key=())), lake.sink(key=())
    feed.apply(car(0))
    stop, errors, done = threading.Event(), [], []

    def keep():
        while not stop.is_set():
            for task in ("compact", "expire"):
                try:
                    done.append(keeper.maintain(task, Upkeep(keep_snapshots=3, keep_for=timedelta(0))))
                except TransientError:
                    pass
                except Exception as error:  # noqa: BLE001
                    errors.append(error)

    thread = threading.Thread(target=keep)
    thread.start()
    for number in range(1, 40):
        feed.apply(car(number))
    stop.set()
    thread.join()
    assert errors == []
    assert any(each.task == "compact" and each.removed for each in done)
    assert [row[0] for row in lake.rows()] == list(range(40))


def test_snapshots_removed_from_outside_stop_the_pipeline_instead_of_doubling(lake):  # noqa: F811
    feed = Feed(lake.sink(key=()))
    feed.apply(car(1))
    tag = Path(lake.path, "tag", "tag-vector_assets").read_text()
    staged = feed.stage(rows_of(car(2)))
    feed.sink.commit(staged)
    # as if the process had died before it moved the tag, and Java had then written, and expired our snapshots
    Path(lake.path, "tag", "tag-vector_assets").write_text(tag)
    foreign_commits(lake, 2)
    for number in (1, 2, 3):
        Path(lake.path, "snapshot", f"snapshot-{number}").unlink()
    other = lake.sink(key=())
    assert other.find(staged.token, staged.committable) == "UNKNOWN"
    with pytest.raises(FencedError, match="removed by another program"):
        other.commit(other.stage(pa_batch(car(2)), staged.token))


def test_the_tag_keeps_the_token_when_our_snapshots_are_expired_from_outside(lake):  # noqa: F811
    feed = Feed(lake.sink(key=()))
    feed.apply(car(1))
    token = feed.token(1)
    feed.apply(car(2))
    foreign_commits(lake, 2)
    for number in (1, 2, 3):
        Path(lake.path, "snapshot", f"snapshot-{number}").unlink()
    other = lake.sink(key=())
    assert other.find(token, None) == "APPLIED"
    assert other.receipt(token).counts.written == 1
    feed.apply(car(3))
    assert [row[0] for row in lake.rows()] == [1, 2, 3, 100, 100]


def foreign_commits(lake, count):  # noqa: F811
    """Rows that pypaimon itself appends, as any other engine would."""
    table = lake.sink(None).storage.load()
    for _ in range(count):
        builder = table.new_batch_write_builder()
        write, commit = builder.new_write(), builder.new_commit()
        write.write_arrow(pa.table([[100], ["red"], ["{}"]], schema=pa.schema(SCHEMA)))
        commit.commit(write.prepare_commit())
        write.close()
        commit.close()


def test_a_keyed_table_with_other_levels_is_left_to_java(lake):  # noqa: F811
    feed = Feed(lake.sink(bucket=1))
    feed.apply(car(1))
    table = lake.sink(None).storage.load()
    from pypaimon.schema.schema_change import SchemaChange

    table.schema_manager.commit_changes([SchemaChange.set_option("num-levels", "3")])
    with pytest.raises(PlanError, match="num-levels"):
        feed.sink.maintain("compact", NOW)
