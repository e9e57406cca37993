"""Maintenance of Iceberg tables: rows stay, tokens stay, files go."""

import os
import time
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from tests.sinks.contract import Feed, car, rows_of
from tests.sinks.iceberg_target import lake  # noqa: F401  (fixture)
from vector_assets.clients.iceberg import ConflictError
from vector_assets.engine.abilities import Maintainable, Upkeep
from vector_assets.engine.core import Batch

SMALL = Upkeep(grace=timedelta(0), keep_snapshots=1, keep_for=timedelta(0))


def feed_of(sink, count: int) -> Feed:
    feed = Feed(sink)
    for number in range(count):
        feed.apply(car(number))
    return feed


def data_files(lake) -> list[str]:  # noqa: F811
    return sorted(task.file.file_path for task in lake.table().scan().plan_files())


def test_small_files_become_one_and_no_row_changes(lake):  # noqa: F811
    sink = lake.sink()
    assert isinstance(sink, Maintainable)
    feed = feed_of(sink, 8)
    before = lake.rows()
    done = sink.maintain("compact", Upkeep())
    assert (done.files_before, done.files_after) == (8, 1)
    assert done.bytes_after < done.bytes_before
    assert lake.rows() == before
    assert len(data_files(lake)) == 1
    # the next batch comes after the compaction
    feed.apply(car(9))
    assert len(lake.rows()) == 9
    assert sink.maintain("compact", Upkeep(target_bytes=1)).numbers["files_rewritten"] == 0


def test_files_of_different_partitions_are_not_mixed(lake):  # noqa: F811
    sink = lake.sink(partition="color")
    feed = Feed(sink)
    for number in range(6):
        feed.apply(car(number, "red" if number % 2 else "blue"))
    assert sink.maintain("compact", Upkeep()).files_after == 2
    parts = {task.file.partition[0] for task in lake.table().scan().plan_files()}
    assert parts == {"red", "blue"}
    assert len(lake.rows()) == 6


def test_an_append_during_a_compaction_is_kept(lake, monkeypatch):  # noqa: F811
    from vector_assets.sinks import iceberg_upkeep

    sink = lake.sink()
    feed = feed_of(sink, 4)
    rewrite = iceberg_upkeep._rewrite

    def rewriting(table, group):
        feed.apply(car(99))
        return rewrite(table, group)

    monkeypatch.setattr(iceberg_upkeep, "_rewrite", rewriting)
    lake.sink().maintain("compact", Upkeep())
    assert [row["id"] for row in lake.rows()] == [0, 1, 2, 3, 99]
    assert len(data_files(lake)) == 2


def test_an_update_during_a_compaction_wins_and_the_new_files_are_removed(lake, monkeypatch):  # noqa: F811
    from vector_assets.sinks import iceberg_upkeep

    sink = lake.sink()
    feed = feed_of(sink, 4)
    replace = iceberg_upkeep._replace

    def replacing(*arguments):
        feed.apply(car(0, "blue"))
        replace(*arguments)

    monkeypatch.setattr(iceberg_upkeep, "_replace", replacing)
    with pytest.raises(ConflictError, match="replaced while it was compacted"):
        lake.sink().maintain("compact", Upkeep())
    assert [row["color"] for row in lake.rows()] == ["blue", "red", "red", "red"]
    on_disk = lake.files("*.parquet")
    known = {file["file_path"].removeprefix("file://") for file in lake.table().inspect.all_files().to_pylist()}
    assert on_disk == known


def test_expired_snapshots_lose_their_files_and_tokens_stay(lake):  # noqa: F811
    sink = lake.sink(snapshots__keep=0)
    feed = Feed(sink)
    tokens = []
    for number in range(12):
        tokens.append(feed.token(1))
        feed.apply(car(1, f"c{number}"))
    files = len(lake.files("*.parquet"))
    done = sink.maintain("expire", SMALL)
    assert done.numbers == {"snapshots_before": 12, "snapshots_after": 1}
    assert (files, len(lake.files("*.parquet"))) == (12, 1)
    assert done.removed >= 11 * 2
    assert [row["color"] for row in lake.rows()] == ["c11"]
    other = lake.sink()
    assert [other.find(token, None) for token in tokens] == ["APPLIED"] * 12
    assert other.receipt(tokens[-1]).counts.written == 1
    assert other.newest_seq("cars") == 12
    feed.apply(car(2))
    assert len(lake.rows()) == 2


def test_snapshots_that_are_young_or_among_the_newest_or_tagged_stay(lake):  # noqa: F811
    sink = lake.sink(snapshots__keep=0)
    feed_of(sink, 6)
    table = lake.table()
    oldest = table.snapshots()[0].snapshot_id
    table.manage_snapshots().create_tag(oldest, "audit").commit()
    assert sink.maintain("expire", Upkeep()).numbers["snapshots_after"] == 6
    assert sink.maintain("expire", Upkeep(keep_snapshots=3, keep_for=timedelta(0))).numbers["snapshots_after"] == 4
    assert lake.table().scan(snapshot_id=oldest).to_arrow().num_rows == 1


def test_orphans_are_removed_after_the_grace_time_only(lake):  # noqa: F811
    sink = lake.sink()
    feed = feed_of(sink, 3)
    staged = sink.stage(Batch(rows_of(car(50))), feed.token(1))
    name = staged.committable["files"]
    assert sink.maintain("orphans", Upkeep()).numbers["too_young"] == 1
    (orphan,) = [path for path in lake.files() if name in path]
    old = time.time() - 25 * 3600
    for path in lake.files():
        os.utime(path, (old, old))
    done = sink.maintain("orphans", Upkeep())
    assert done.removed == 1
    assert not Path(orphan).exists()
    assert len(lake.rows()) == 3
    feed.apply(car(4))
    assert len(lake.rows()) == 4


def test_the_committer_keeps_the_number_of_snapshots_and_their_metadata_small(lake):  # noqa: F811
    sink = lake.sink(snapshots__keep=10)
    feed = feed_of(sink, 40)
    table = lake.table()
    assert len(table.snapshots()) == 10
    assert len(lake.files("snap-*.avro")) == 10
    assert len(table.current_snapshot().manifests(table.io)) <= 20
    assert len(lake.files("*.metadata.json")) <= 22
    assert sink.find(feed.token(1), None) == "ABSENT"
    assert pa.Table.from_batches(sink.scan()).num_rows == 40
