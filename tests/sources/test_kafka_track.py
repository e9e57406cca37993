import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vector_assets.engine.core import HEADERS_TYPE
from vector_assets.sources.kafka_records import COLUMNS
from vector_assets.sources.kafka_tokens import Home
from vector_assets.sources.kafka_track import Piece, Track, fair

HOME = Home("cars", 0)


def piece(offsets, epoch=0, size=10):
    count = len(offsets)
    columns = [
        pa.nulls(count, pa.binary()),
        pa.array([b"x" * size] * count, pa.binary()),
        pa.nulls(count, HEADERS_TYPE),
        pa.nulls(count, COLUMNS.field("timestamp").type),
        pa.array(np.array(offsets, np.int64)),
        pa.nulls(count, pa.int8()),
    ]
    return Piece.of(pa.RecordBatch.from_arrays(columns, schema=COLUMNS), epoch)


def taken(part):
    return [offset for each in part.pieces for offset in each.rows.column("offset").to_pylist()]


@pytest.mark.parametrize(
    ("wanted", "total", "expected"),
    [
        ({"a": 100, "b": 100}, 50, {"a": 25, "b": 25}),
        ({"a": 100, "b": 3, "c": 100}, 41, {"a": 19, "b": 3, "c": 19}),
        ({"a": 1, "b": 2}, 50, {"a": 1, "b": 2}),
        ({"a": 10, "b": 20, "c": 30}, 1, {"a": 0, "b": 0, "c": 1}),
        ({}, 5, {}),
    ],
    ids=["equal", "one-wants-less", "enough-for-all", "less-than-one-each", "nobody"],
)
def test_shares_are_fair(wanted, total, expected):
    assert fair(wanted, total) == expected


@given(st.dictionaries(st.integers(), st.integers(0, 1000), max_size=8), st.integers(0, 5000))
def test_shares_use_up_what_there_is_and_nobody_gets_more_than_wanted(wanted, total):
    shares = fair(wanted, total)
    assert sum(shares.values()) == min(total, sum(wanted.values()))
    assert all(0 <= shares[key] <= wanted[key] for key in wanted)
    satisfied = [shares[key] for key in wanted if shares[key] < wanted[key]]
    assert not satisfied or max(satisfied) - min(satisfied) <= 1


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=40),
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 400)), min_size=1, max_size=30),
    st.integers(1, 7),
)
def test_every_record_is_handed_out_once_and_in_order(gaps, reads, chunk):
    """Whatever the holes, the size of what arrives, and the limits of the reads."""
    offsets = list(np.cumsum(gaps) - 1)
    track = Track(HOME, 0, None)
    arriving = [offsets[at : at + chunk] for at in range(0, len(offsets), chunk)]
    found = []
    for rows, most_bytes in [*reads, (10_000, 1 << 30)]:
        start = track.next
        track.aim(start + rows)
        while not track.is_complete and arriving:
            track.add(piece(arriving.pop(0)))
        if not arriving:
            track.reach(offsets[-1] + 1)
        part = track.take(most_bytes, least_records=1)
        new = taken(part)
        assert part.end == track.next
        assert all(start <= offset < min(part.end, start + rows) for offset in new)
        found += new
    assert found == offsets


def test_records_that_arrive_twice_are_taken_once():
    track = Track(HOME, 5, None)
    track.aim(20)
    track.add(piece([5, 6, 7]))
    track.add(piece([6, 7, 8]))
    track.add(piece([8]))
    assert taken(track.take(1 << 30)) == [5, 6, 7, 8]


def test_the_epoch_is_that_of_the_last_record_handed_out():
    track = Track(HOME, 0, 3)
    track.aim(4)
    track.add(piece([0, 1], epoch=4))
    track.add(piece([2, 3, 4, 5], epoch=6))
    first = track.take(2 * piece([0]).nbytes)
    assert (first.end, first.epoch) == (2, 4)
    track.aim(4)
    assert track.take(1 << 30).epoch == 6
    track.aim(10)
    track.reach(10)
    assert taken(track.take(1 << 30)) == [4, 5]


def test_a_range_of_holes_ends_where_it_was_to_end():
    track = Track(HOME, 10, 2)
    track.aim(20)
    track.reach(25)
    part = track.take(1 << 30)
    assert (part.pieces, part.end, part.epoch) == ([], 20, 2)


def test_a_record_larger_than_the_limit_passes_only_when_asked_to():
    track = Track(HOME, 0, None)
    track.aim(2)
    track.add(piece([0, 1], size=1000))
    assert taken(track.take(10)) == []
    track.aim(2)
    assert taken(track.take(10, least_records=1)) == [0]
    track.aim(2)
    assert taken(track.take(1 << 30)) == [1]
