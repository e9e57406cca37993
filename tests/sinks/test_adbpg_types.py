"""Values arrive as they were sent, whatever the types and the way of writing."""

import datetime as dt
import math
import uuid
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sinks.contract import Feed
from vector_assets.engine.core import POSITION

pytestmark = pytest.mark.service

_TEXT = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=20)
_FLOAT4 = st.floats(width=32, allow_nan=False, allow_infinity=False)
_FLOAT8 = st.floats(allow_nan=False, allow_infinity=False)
_DATES = st.dates(dt.date(1, 1, 1), dt.date(9999, 12, 31))
_TIMES = st.datetimes(dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31))  # noqa: DTZ001  -- what TIMESTAMP holds


@dataclass(frozen=True)
class Case:
    """A column: its type in the target, the Arrow type it is sent as, and the values to send."""

    target: str
    arrow: pa.DataType
    values: st.SearchStrategy


def decimals(precision: int, scale: int) -> st.SearchStrategy:
    limit = 10**precision - 1
    return st.integers(-limit, limit).map(lambda number: Decimal(f"{number}E-{scale}"))


def ints(bits: int) -> st.SearchStrategy:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def in_milliseconds(time: dt.datetime) -> dt.datetime:
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


CASES = {
    "bool": Case("boolean", pa.bool_(), st.booleans()),
    "tiny": Case("smallint", pa.int8(), ints(8)),
    "small": Case("smallint", pa.int16(), ints(16)),
    "widened": Case("bigint", pa.int32(), ints(32)),
    "int": Case("int", pa.int32(), ints(32)),
    "big": Case("bigint", pa.int64(), ints(64)),
    "float": Case("real", pa.float32(), _FLOAT4),
    "double": Case("double precision", pa.float64(), _FLOAT8),
    "exact": Case("numeric(12, 4)", pa.decimal128(12, 4), decimals(12, 4)),
    "huge": Case("numeric", pa.decimal128(38, 10), decimals(38, 10)),
    "whole": Case("numeric", pa.decimal128(38, 0), decimals(38, 0)),
    "fraction": Case("numeric", pa.decimal128(7, 7), decimals(7, 7)),
    "counted": Case("numeric", pa.int64(), ints(64)),
    "text": Case("text", pa.string(), _TEXT),
    "short": Case("varchar(20)", pa.large_string(), _TEXT),
    "bytes": Case("bytea", pa.binary(), st.binary(max_size=20)),
    "four": Case("bytea", pa.binary(4), st.binary(min_size=4, max_size=4)),
    "date": Case("date", pa.date32(), _DATES),
    "time": Case("time", pa.time64("us"), st.times()),
    "seconds": Case("time", pa.time32("s"), st.times().map(lambda time: time.replace(microsecond=0))),
    "stamp": Case("timestamp", pa.timestamp("us"), _TIMES),
    "stamp ms": Case("timestamp", pa.timestamp("ms"), _TIMES.map(in_milliseconds)),
    "stamp tz": Case("timestamptz", pa.timestamp("us", "UTC"), _TIMES.map(lambda t: t.replace(tzinfo=dt.UTC))),
    "uuid": Case("uuid", pa.string(), st.uuids().map(str)),
    "json": Case("jsonb", pa.string(), st.sampled_from(['{"a": [1, null]}', "[]", '"ä"', "1.5"])),
    "floats": Case("float4[]", pa.list_(pa.float32()), st.lists(_FLOAT4, max_size=5)),
    "doubles": Case("float8[]", pa.large_list(pa.float64()), st.lists(_FLOAT8, max_size=5)),
    "fixed": Case("float4[]", pa.list_(pa.float32(), 3), st.lists(_FLOAT4, min_size=3, max_size=3)),
    "ints": Case("int[]", pa.list_(pa.int32()), st.lists(st.none() | ints(32), max_size=5)),
    "longs": Case("bigint[]", pa.list_(pa.int16()), st.lists(ints(16), max_size=5)),
    "texts": Case("text[]", pa.list_(pa.string()), st.lists(st.none() | _TEXT, max_size=5)),
    "moments": Case("timestamp[]", pa.list_(pa.timestamp("us")), st.lists(_TIMES, max_size=3)),
}  # fmt: skip


def expected(case: Case, value: object) -> object:
    if value is None:
        return None
    if case.target == "uuid":
        return uuid.UUID(str(value))
    if case.target == "jsonb":
        return {'{"a": [1, null]}': {"a": [1, None]}, "[]": [], '"ä"': "ä", "1.5": 1.5}[str(value)]
    if case.target == "numeric" and isinstance(value, int):
        return Decimal(value)
    return value


def singles(name: str, value: object) -> object:
    """The number that the shortest text of a 4-byte float stands for."""
    if CASES[name].target == "real" and value is not None:
        return float(np.float32(value))
    return [float(np.float32(each)) for each in value] if CASES[name].target == "float4[]" and value else value


@pytest.mark.parametrize("writemode", [0, 1], ids=["insert", "copy"])
def test_every_type_makes_the_round_trip(make_cars, writemode):
    cars = make_cars("")
    columns = ", ".join(f'"{name}" {case.target}' for name, case in CASES.items())
    cars.execute(f"CREATE TABLE every (n int, {columns})")
    schema = pa.schema([("n", pa.int32()), *((name, case.arrow) for name, case in CASES.items())])
    feed = Feed(cars.sink(schema, tablename="every", writemode=writemode, batchsize=3))
    row = st.fixed_dictionaries({name: st.none() | case.values for name, case in CASES.items()})

    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(row, max_size=8))
    def holds(rows):
        cars.execute("TRUNCATE every")
        arrays = [pa.array([sent[name] for sent in rows], case.arrow) for name, case in CASES.items()]
        table = pa.table([pa.array(range(len(rows)), pa.int32()), *arrays], schema=schema)
        table = table.append_column(POSITION, pa.array(range(len(rows)), pa.int64()))
        staged = feed.stage(table)
        assert staged.rejected.to_pylist() == []
        assert feed.sink.commit(staged).rejected.to_pylist() == []
        found = cars.rows("SELECT * FROM every ORDER BY n")
        assert [{name: singles(name, value) for name, value in zip(CASES, row, strict=True)} for _, *row in found] == [
            {name: expected(case, sent[name]) for name, case in CASES.items()} for sent in rows
        ]

    holds()


VECTORS = [
    ("{1,2.5,-3e2}", [1, 2.5, -300]),
    ("[1, 2.5, -3e2]", [1, 2.5, -300]),
    (" [ +1 ,2.5,\t-300.0 ]\n", [1, 2.5, -300]),
]


@pytest.mark.parametrize("writemode", [0, 1], ids=["insert", "copy"])
@pytest.mark.parametrize("target", ["float4[]", "float8[]", "vector", "vector(3)", "halfvec(3)"])
def test_vectors_arrive_from_every_spelling(make_cars, target, writemode):
    cars = make_cars(f"CREATE TABLE car_info (id int PRIMARY KEY, feature {target})", vector=True)
    schema = pa.schema([("id", pa.int32()), ("feature", pa.string())])
    texts = [text for text, _ in VECTORS]
    rows = pa.table([[1, 2, 3, 4], [*texts, None]], schema=schema).append_column(POSITION, pa.array(range(4)))
    sink = cars.sink(schema, writemode=writemode)
    assert sink.commit(Feed(sink).stage(rows)).counts.written == 4
    found = [row[0] for row in cars.rows("SELECT feature::float4[] FROM car_info ORDER BY id")]
    assert found == [*(numbers for _, numbers in VECTORS), None]
    lists = pa.schema([("id", pa.int32()), ("feature", pa.list_(pa.float64()))])
    sink = cars.sink(lists, writemode=writemode)
    rows = pa.table([[5], [[0.5, 0, 1]]], schema=lists).append_column(POSITION, pa.array([0]))
    sink.commit(Feed(sink, pipeline="lists").stage(rows))
    assert cars.rows("SELECT feature::float4[] FROM car_info WHERE id = 5") == [([0.5, 0, 1],)]


@pytest.mark.parametrize(
    ("target", "bad", "words"),
    [
        ("vector(2)", "{1,2,3}", "3 dimensions, wanted 2"),
        ("vector(2)", "{1,NaN}", "is NaN"),
        ("vector(2)", "{1,1e39}", "infinite or out of range"),
        ("vector", "{}", "without dimensions"),
        ("halfvec(2)", "{1,65520}", "infinite or out of range"),
        ("float4[]", "{1,-inf}", "infinite or out of range"),
        ("float4[]", "{1,3.5e38}", "infinite or out of range"),
        ("float8[]", "{1,1e309}", "infinite or out of range"),
        ("float4[]", "{1,,2}", "not a number"),
        ("float4[]", "{1,NULL}", "not a number"),
        ("float4[]", "[[1],[2]]", "not a number"),
        ("float4[]", "{1]", "no such brackets"),
        ("float4[]", "1,2", "no such brackets"),
        ("float4[]", "{", "no such brackets"),
    ],
)
def test_a_vector_the_target_cannot_take_is_refused_and_the_next_one_lands(make_cars, target, bad, words):
    cars = make_cars(f"CREATE TABLE car_info (id int PRIMARY KEY, feature {target})", vector=True)
    schema = pa.schema([("id", pa.int32()), ("feature", pa.string())])
    sink = cars.sink(schema)
    rows = pa.table([[1, 2], [bad, "{1,2}"]], schema=schema).append_column(POSITION, pa.array([10, 11]))
    staged = Feed(sink).stage(rows)
    (rejected,) = staged.rejected.to_pylist()
    assert rejected[POSITION] == 10
    assert rejected["error"].startswith("column feature: ")
    assert words in rejected["error"]
    sink.commit(staged)
    assert cars.rows("SELECT id FROM car_info") == [(2,)]


def test_the_largest_numbers_of_a_vector_still_fit(make_cars):
    cars = make_cars("CREATE TABLE car_info (id int PRIMARY KEY, h halfvec(2), f float4[])", vector=True)
    schema = pa.schema([("id", pa.int32()), ("h", pa.string()), ("f", pa.string())])
    sink = cars.sink(schema)
    rows = pa.table([[1], ["{65519.9,-65504}"], ["{3.4028234e38,1e-60}"]], schema=schema)
    sink.commit(Feed(sink).stage(rows.append_column(POSITION, pa.array([0]))))
    half, full = cars.rows("SELECT h::vector::float4[], f FROM car_info")[0]
    assert half == [65504, -65504]
    assert full == [pytest.approx(3.4028234e38), 0]


@pytest.mark.parametrize(
    ("target", "arrow", "good", "bad", "words"),
    [
        ("smallint", pa.int32(), 32767, 32768, "out of range for smallint"),
        ("int", pa.int64(), -(2**31), 2**31, "out of range for integer"),
        ("bigint", pa.uint64(), 2**63 - 1, 2**63, "out of range for bigint"),
        ("real", pa.float64(), 3e38, 1e39, "out of range for real"),
        ("timestamp", pa.timestamp("ms"), 0, 2**60, "out of range for timestamp"),
        ("timestamp", pa.timestamp("us"), -(2**57), -(2**63), "out of range for timestamp"),
        ("timestamp", pa.timestamp("s"), 0, -(2**62), "out of range for timestamp"),
        ("timestamp", pa.date32(), 0, -(2**31), "out of range for timestamp"),
        ("date", pa.date32(), -(2**21), -(2**31), "out of range for date"),
        ("date", pa.date32(), 0, 2**31 - 1, "22008 "),
        ("numeric(4,2)", pa.decimal128(10, 2), Decimal("99.99"), Decimal("100.00"), "22003 "),
        ("varchar(3)", pa.string(), "abc  ", "abcd", "4 characters, character varying(3) takes 3"),
        ("char(3)", pa.string(), "äöü", "äöüß", "4 characters, character(3) takes 3"),
        ("smallint[]", pa.list_(pa.int32()), [1], [1, 2**20], "out of range for smallint"),
        ("text[]", pa.list_(pa.string()), ["a"], ["a", "\0"], "zero byte"),
    ],
)
def test_a_value_out_of_range_is_refused_and_the_next_one_lands(make_cars, target, arrow, good, bad, words):
    cars = make_cars(f"CREATE TABLE car_info (id int PRIMARY KEY, value {target})")
    schema = pa.schema([("id", pa.int32()), ("value", arrow)])
    sink = cars.sink(schema)
    rows = pa.table([pa.array([1, 2], pa.int32()), pa.array([bad, good], arrow)], schema=schema)
    staged = Feed(sink).stage(rows.append_column(POSITION, pa.array([0, 1])))
    receipt = sink.commit(staged)
    (rejected,) = staged.rejected.to_pylist() + receipt.rejected.to_pylist()
    assert rejected[POSITION] == 0
    assert "column value: " in rejected["error"]
    assert words in rejected["error"]
    assert cars.rows("SELECT id FROM car_info") == [(2,)]


def test_plain_numbers_may_be_nan_and_infinite(make_cars):
    cars = make_cars("CREATE TABLE car_info (id int PRIMARY KEY, value real)")
    schema = pa.schema([("id", pa.int32()), ("value", pa.float64())])
    sink = cars.sink(schema)
    rows = pa.table([[1, 2], [math.nan, math.inf]], schema=schema).append_column(POSITION, pa.array([0, 1]))
    sink.commit(Feed(sink).stage(rows))
    (_, nan), (_, infinity) = cars.rows("SELECT * FROM car_info ORDER BY id")
    assert math.isnan(nan)
    assert infinity == math.inf


def test_slices_dictionaries_and_nulls_of_no_type_are_columns_like_others(make_cars):
    cars = make_cars("CREATE TABLE car_info (id int PRIMARY KEY, color text, feature float4[], note text)")
    schema = pa.schema(
        [
            ("id", pa.int32()),
            ("color", pa.dictionary(pa.int32(), pa.string())),
            ("feature", pa.string()),
            ("note", pa.null()),
        ]
    )
    plain = pa.schema([(f.name, pa.string() if f.name == "color" else f.type) for f in schema])
    sink = cars.sink(plain)
    colors = pa.array(["red", "blue", None, "red"]).dictionary_encode()
    features = pa.array(["{1}", "{2,3}", None, "{4}"])
    rows = pa.table([pa.array([0, 1, 2, 3], pa.int32()), colors, features, pa.nulls(4)], schema=schema)
    rows = rows.append_column(POSITION, pa.array(range(4))).slice(1)
    sink.commit(Feed(sink).stage(pa.concat_tables([rows.slice(0, 1), rows.slice(1)])))
    assert cars.rows("SELECT * FROM car_info ORDER BY id") == [
        (1, "blue", [2, 3], None),
        (2, None, None, None),
        (3, "red", [4], None),
    ]
