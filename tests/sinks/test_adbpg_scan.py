"""The target read back: what was written is found equal, whatever the type, and what differs is found different."""

import datetime as dt
import math
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.sinks.contract import Feed
from vector_assets.engine.abilities import Auditable, KeyReadable, Overwriting
from vector_assets.engine.core import POSITION, Batch
from vector_assets.engine.errors import FatalError

pytestmark = pytest.mark.service

DDL = """CREATE TABLE car_info (id bigint PRIMARY KEY, b boolean, i2 smallint, i4 int, f4 real, f8 double precision,
 n numeric, n2 numeric(12,2), t text, v varchar(5), c char(6), y bytea, d date, ti time(3), ts timestamp,
 ts0 timestamp(0), tz timestamptz, u uuid, a real[], at text[], an numeric[], j json, jb jsonb)"""
NAIVE, AWARE = pa.timestamp("us"), pa.timestamp("us", "UTC")
SCHEMA = pa.schema(
    [
        ("id", pa.int32()), ("b", pa.bool_()), ("i2", pa.int16()), ("i4", pa.int32()), ("f4", pa.float64()),
        ("f8", pa.float64()), ("n", pa.decimal128(20, 5)), ("n2", pa.decimal128(20, 5)), ("t", pa.string()),
        ("v", pa.string()), ("c", pa.string()), ("y", pa.binary()), ("d", pa.date32()), ("ti", pa.time64("us")),
        ("ts", pa.timestamp("ns")), ("ts0", NAIVE), ("tz", AWARE), ("u", pa.string()), ("a", pa.list_(pa.float64())),
        ("at", pa.list_(pa.string())), ("an", pa.list_(pa.decimal128(6, 2))), ("j", pa.string()), ("jb", pa.string()),
    ]
)  # fmt: skip
DAY = dt.datetime(2026, 3, 1, 12, 30, 15, 500_000)  # noqa: DTZ001  -- what TIMESTAMP holds
EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001
FULL = (
    1, True, -7, 9, 0.1, -0.0, Decimal("1.50000"), Decimal("2.00500"), "äöü", "ab   ", "x", b"\0\1", dt.date(1, 1, 1),
    dt.time(1, 2, 3, 1500), DAY, DAY, DAY.replace(tzinfo=dt.UTC), "00112233-4455-6677-8899-AABBCCDDEEFF", [1.5, 0.1],
    ["a", None, ""], [Decimal("1.50"), None], '{"b": 1,  "a": 2}', '{"b": 1,  "a": 2}',
)  # fmt: skip
OTHER = (
    2, False, 7, -9, math.nan, math.inf, Decimal("-100.00000"), Decimal("-2.00500"), "", "", "", b"",
    dt.date(2999, 1, 1), dt.time(0), EPOCH, DAY - dt.timedelta(seconds=1), DAY.replace(tzinfo=dt.UTC),
    "00112233445566778899aabbccddeeff", [], [], [], "1", "2",
)  # fmt: skip
NULLS = (3, *[None] * (len(SCHEMA) - 1))


def table(*rows: tuple[object, ...]) -> pa.Table:
    made = pa.table([pa.array([row[i] for row in rows], f.type) for i, f in enumerate(SCHEMA)], schema=SCHEMA)
    return made.append_column(POSITION, pa.array(np.arange(len(rows)), pa.int64()))


def as_rows(found: pa.Table) -> list[dict[str, object]]:
    return [{k: str(v) for k, v in row.items() if k != POSITION} for row in found.sort_by("id").to_pylist()]


@pytest.fixture
def full(make_cars):
    return make_cars(DDL)


def test_what_is_read_back_equals_what_was_to_be_stored(full):
    sink = full.sink(SCHEMA)
    assert isinstance(sink, Auditable)
    assert isinstance(sink, KeyReadable)
    assert isinstance(sink, Overwriting)
    rows = table(FULL, OTHER, NULLS)
    receipt = sink.commit(Feed(sink).stage(rows))
    kept = [row for row in (0, 1, 2) if row not in receipt.rejected.column(POSITION).to_pylist()]
    expected = sink.as_stored(rows.take(kept))
    found = pa.Table.from_batches(list(sink.scan()))
    assert "jb" not in found.column_names
    assert found.schema.equals(expected.drop_columns(POSITION).schema)
    assert as_rows(found) == as_rows(expected)
    by_key = sink.rows_of(rows.select(["id", POSITION]).slice(0, 1))
    assert as_rows(by_key) == as_rows(expected.slice(0, 1))
    assert sink.rows_of(rows.select(["id", POSITION]).slice(0, 0)).num_rows == 0


def test_an_empty_table_scans_as_nothing_and_a_large_one_in_chunks(cars):
    sink = cars.sink()
    assert list(sink.scan()) == []
    cars.execute("INSERT INTO car_info SELECT i, 'c' || i, ARRAY[i, i + 0.5] FROM generate_series(1, 100000) i")
    chunks = list(sink.scan())
    found = pa.Table.from_batches(chunks)
    assert found.num_rows == 100_000
    assert pc.sum(found.column("id")).as_py() == 100_000 * 100_001 // 2
    assert found.slice(99_998, 1).to_pylist() == [{"id": 99_999, "color": b"c99999", "feature": [99_999.0, 99_999.5]}]


def test_arrays_of_several_lengths_and_with_nulls_are_read(cars):
    sink = cars.sink()
    cars.execute("INSERT INTO car_info VALUES (1, NULL, '{}'), (2, 'a', '{1,NULL,3}'), (3, 'b', NULL), (4, 'c', '{4}')")
    assert [row["feature"] for row in pa.Table.from_batches(list(sink.scan())).sort_by("id").to_pylist()] == [
        [], [1.0, None, 3.0], None, [4.0],
    ]  # fmt: skip


def test_an_array_of_several_dimensions_is_refused_by_name(cars):
    sink = cars.sink()
    cars.execute("INSERT INTO car_info VALUES (1, 'a', '{{1,2},{3,4}}')")
    with pytest.raises(FatalError, match="several dimensions"):
        list(sink.scan())


def test_vectors_are_read_in_the_precision_of_their_type(make_cars):
    cars = make_cars("CREATE TABLE car_info (id int PRIMARY KEY, color text, feature halfvec(2))", vector=True)
    cars.execute("ALTER TABLE car_info ADD COLUMN v vector")
    schema = pa.schema([("id", pa.int32()), ("feature", pa.list_(pa.float32())), ("v", pa.list_(pa.float32()))])
    sink = cars.sink(schema)
    rows = pa.table([[1, 2], [[0.1, 2.0], [3.0, 4.0]], [[0.1], None]], schema=schema)
    rows = rows.append_column(POSITION, pa.array([0, 1], pa.int64()))
    sink.commit(Feed(sink).stage(rows))
    assert as_rows(pa.Table.from_batches(list(sink.scan()))) == as_rows(sink.as_stored(rows))


@pytest.mark.parametrize("mode", ["ignore", "strict", "update", "upsert"])
def test_a_rewriting_batch_replaces_rows_whatever_the_conflict_mode_is(cars, mode):
    sink = cars.sink(conflictmode=mode)
    feed = Feed(sink)
    first = pa.table({"id": [1, 2], "color": ["old", "old"], "feature": ["{1}", "{2}"], POSITION: [0, 1]})
    sink.commit(feed.stage(first))
    second = pa.table({"id": [2, 3], "color": ["new", "new"], "feature": ["{2}", "{3}"], POSITION: [0, 1]})
    receipt = sink.commit(sink.stage(Batch(second, rewrites=True), feed.token(2)))
    assert (receipt.counts.written, receipt.counts.conflicts) == (2, 0)
    assert cars.rows("SELECT id, color FROM car_info ORDER BY id") == [(1, "old"), (2, "new"), (3, "new")]
