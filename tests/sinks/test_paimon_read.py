"""Queries of Paimon tables read the files that may hold what they ask for, and find the same rows as without that."""

import datetime as dt

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from tests.sinks.contract import Feed
from tests.sinks.paimon_target import lake, make_lake  # noqa: F401  (fixtures)
from vector_assets.engine.abilities import Upkeep
from vector_assets.engine.core import POSITION

NOON = dt.datetime(2026, 1, 2, 12)  # noqa: DTZ001
BEFORE = pa.schema([("id", pa.int64()), ("n", pa.int32()), ("s", pa.string()), ("us", pa.timestamp("us"))])
AFTER = pa.schema([*BEFORE.set(1, pa.field("n", pa.int64())), pa.field("day", pa.date32())])
ID, N, S, US, DAY = (ds.field(name) for name in ("id", "n", "s", "us", "day"))


def rows(schema: pa.Schema, first: int, *, shift: int = 0) -> pa.Table:
    """Ten rows; the last is null everywhere but in its id."""
    made = [
        {
            "id": n, "n": n + shift, "s": f"s{n + shift:03}", "us": NOON + dt.timedelta(hours=n),
            "day": NOON.date() + dt.timedelta(days=n),
        } for n in range(first, first + 10)
    ]  # fmt: skip
    made[-1] = {"id": made[-1]["id"]}
    return pa.Table.from_pylist(made, schema).append_column(POSITION, pa.array(range(10), pa.int64()))


@pytest.fixture
def read(monkeypatch):
    """What a query finds, and how many files it opens."""
    from pypaimon.read.table_read import TableRead

    opened, whole = [], TableRead.to_arrow_batch_reader

    def reading(self, splits, **named):
        opened.append(sum(len(split.files) for split in splits))
        return whole(self, splits, **named)

    monkeypatch.setattr(TableRead, "to_arrow_batch_reader", reading)

    def ask(sink, where) -> tuple[set[int], int]:
        every = sink.relation().read_all()
        found = sink.relation(["id", "n", "s", "us", *(["day"] if "day" in every.schema.names else [])], where)
        ids = found.read_all().filter(where).column("id").to_pylist()
        assert sorted(ids) == sorted(every.filter(where).column("id").to_pylist())
        return set(ids), opened[-1]

    return ask


@pytest.mark.parametrize("options", [{}, {"bucket": 1, "bucket___key": "id"}], ids=["append", "bucket"])
def test_files_of_an_append_table_are_left_out_by_their_statistics_also_after_its_columns_changed(
    lake, read, options  # noqa: F811
):  # fmt: skip
    sink = lake.sink(BEFORE, (), **options)
    feed = Feed(sink)
    for first in (0, 10):
        sink.commit(feed.stage(rows(BEFORE, first)))
    assert sink.evolve(AFTER)
    for first in (20, 30):
        sink.commit(feed.stage(rows(AFTER, first, shift=2**40)))
    assert read(sink, ID == 14) == ({14}, 1)
    assert read(sink, (ID < 3) | (ID == 25)) == ({0, 1, 2, 25}, 2)
    assert read(sink, N > 2**33) == ({*range(20, 29), *range(30, 39)}, 2)
    assert read(sink, (S > "s002") & (S < "s005")) == ({3, 4}, 1)
    assert read(sink, pa.scalar(NOON + dt.timedelta(hours=8)) >= US)[1] == 1
    assert read(sink, ID > 100) == (set(), 0)
    # the files of before say nothing of a column that came later: they stay
    assert read(sink, dt.date(2026, 1, 24) == DAY) == ({22}, 3)
    assert read(sink, DAY.is_null())[1] == 4
    assert read(sink, N.is_null() & (ID < 10)) == ({9}, 1)


def test_files_of_a_keyed_table_are_left_out_by_their_keys_and_by_values_once_nothing_is_to_be_merged(
    lake, read  # noqa: F811
):  # fmt: skip
    sink = lake.sink(BEFORE, ("id",), bucket=1)
    feed = Feed(sink)
    for first in (0, 10):
        sink.commit(feed.stage(rows(BEFORE, first)))
    sink.commit(feed.stage(rows(BEFORE, 10, shift=500)))
    # without the newer file the older rows would come back
    assert read(sink, N == 14) == (set(), 3)
    assert read(sink, N > 600) == (set(), 3)
    assert read(sink, ID == 14) == ({14}, 2)
    assert read(sink, (ID == 3) & (N < 400)) == ({3}, 1)
    sink.maintain("compact", Upkeep(grace=dt.timedelta(0), keep_snapshots=1, keep_for=dt.timedelta(0)))
    assert read(sink, N == 14) == (set(), 1)
    assert read(sink, N > 600) == (set(), 0)
