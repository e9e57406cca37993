"""The compiled loops: what they take is what the other readers take, and what they do not take is left to those."""

import ctypes
import json
import math
import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.fix_csv import logical
from tests.formats.fix_json import ORDER_COLUMNS, order_record
from vector_assets.clients import native
from vector_assets.engine import env
from vector_assets.engine.errors import ConfigError
from vector_assets.formats import json_native
from vector_assets.formats.json_native import MANY, Moments, NativeReader
from vector_assets.formats.json_rows import JsonRows, JsonRules, ParsedRows

COLUMNS = {
    "i": "INT",
    "n": "BIGINT NOT NULL",
    "f": "DOUBLE",
    "b": "BOOLEAN",
    "s": "STRING",
    "ümlaut": "STRING",
    "t": "TIMESTAMP(3)",
    "z": "TIMESTAMP_LTZ(6)",
    "d": "DATE",
}
READINGS = {
    "i": pa.int64(),
    "f": pa.float64(),
    "b": pa.bool_(),
    "s": pa.string(),
    "t": Moments(pa.timestamp("ms"), " "),
    "z": Moments(pa.timestamp("us", "UTC"), "T"),
}
NUMBERS = st.sampled_from(
    [
        "0",
        "-0",
        "-0.0",
        "7",
        "-12",
        "01",
        "1.",
        ".5",
        "+1",
        "1e3",
        "1E-7",
        "1e",
        "1e999",
        "0.1",
        "123456789.12345678",
        "999999999999999999",
        "1000000000000000000",
        "9223372036854775807",
        "9223372036854775808",
        "4294967296",
        "NaN",
        "2147483648",
        "0.30000000000000004",
        "5e-324",
        "1.7976931348623157e308",
        "123456789012345",
        "0.000000000000001",
    ]
)
CLOCKS = st.sampled_from(
    [
        "2026-03-01 12:00:00",
        "2026-03-01 12:00:00.1",
        "2024-02-29 00:00:00.123",
        "2023-02-29 00:00:00",
        "0000-01-01 00:00:00",
        "0001-01-01 00:00:00",
        "9999-12-31 23:59:59.999",
        "1900-02-29 01:01:01",
        "2000-02-29 01:01:01",
        "2026-03-01 24:00:00",
        "2026-03-01T12:00:00",
        "2026-03-01 12:00:00.1234567",
        "2026-03-01 12:00:00Z",
        "2026-03-01 12:00:00.123456Z",
        "1969-12-31 23:59:59.999",
        "2026-13-01 00:00:00",
        "2026-04-31 00:00:00",
        "2026-03-01 12:00",
        "2026-03-01",
    ]
)
TEXTS = st.one_of(CLOCKS, st.text(max_size=40), st.sampled_from(["", "x" * 100, "tab\there", 'quo"te', "\\", "ü" * 20]))
VALUES = st.one_of(
    NUMBERS,
    st.sampled_from(["true", "false", "null", "nul", "{}", "[]", "[1]", '{"a":1}', "", "tru"]),
    TEXTS.map(json.dumps),
    TEXTS.map(lambda text: json.dumps(text, ensure_ascii=False)),
    TEXTS.map(lambda text: f'"{text}"'),
)
KEYS = st.sampled_from([*COLUMNS, "other", "\\u0069", "I", "i ", ""])
GAPS = st.sampled_from(["", " ", "\n", "\t ", ""])


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """A document, mostly a good one."""
    good = {
        "i": str(draw(st.integers(-(2**33), 2**33))),
        "n": str(draw(st.integers(-(2**63), 2**63))),
        "f": repr(draw(st.floats(allow_nan=False, allow_infinity=False))),
        "b": draw(st.sampled_from(["true", "false"])),
        "s": json.dumps(draw(st.text(max_size=30)), ensure_ascii=False),
        "ümlaut": '"ä"',
        "t": f'"{draw(CLOCKS)}"',
        "z": f'"{draw(CLOCKS)}Z"',
        "d": '"2026-03-01"',
    }
    members = [[key, good[key]] for key in draw(st.permutations(list(good)))]
    members = members[: draw(st.integers(0, len(members)))] if draw(st.booleans()) else members
    for _ in range(draw(st.integers(0, 2))):
        members.insert(draw(st.integers(0, len(members))), [draw(KEYS), draw(VALUES)])
    gap = draw(GAPS)
    text = "{" + ",".join(f'{gap}"{key}"{gap}:{gap}{value}{gap}' for key, value in members) + "}" + draw(GAPS)
    data = text.encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(data) - 1))
        data = data[:at] + draw(st.binary(max_size=2)) + data[at + draw(st.integers(0, 2)) :]
    return data


@pytest.fixture(scope="module", autouse=True)
def _on() -> Iterator[None]:
    with env.overridden(VECTOR_ASSETS_NATIVE="on"):
        yield


def told(rows: ParsedRows) -> Any:
    """Everything that was made of documents, as plain values; a NaN does not come."""
    return [column.to_pylist() for column in rows.columns], rows.places.tolist(), rows.errors, rows.nulled


def parsed(records: list[bytes | None], native: str, **rules: Any) -> Any:
    """What documents become, one way or the other; a new reader each time."""
    reader = JsonRows([(name, logical(kind)) for name, kind in COLUMNS.items()], JsonRules(**rules))
    with env.overridden(VECTOR_ASSETS_NATIVE=native):
        return told(reader.parse(pa.array(records, pa.binary())))


@settings(max_examples=150, deadline=None)
@given(
    records=st.lists(documents(), min_size=1, max_size=6),
    rules=st.fixed_dictionaries(
        {"ignore_parse_errors": st.booleans(), "timestamp_format": st.sampled_from(["SQL", "ISO-8601"])}
    ),
)
def test_both_ways_make_the_same_of_any_documents(records: list[bytes], rules: dict[str, Any]) -> None:
    assert parsed(records, "on", **rules) == parsed(records, "off", **rules)


@pytest.mark.parametrize("value", ["null", "nothing"])
def test_a_missing_member_is_bad_where_it_must_be_there(value: str) -> None:
    records = [b'{"n":1}', b'{"n":1,"i":null}', b'{"n":%s}' % value.encode()]
    assert parsed(records, "on", fail_on_missing_field=True) == parsed(records, "off", fail_on_missing_field=True)


def taken(*records: bytes, strict: bool = False) -> tuple[list[dict[str, Any]], list[int], list[int]]:
    """Rows, and the places of what was taken and what was left."""
    reader = NativeReader(list(READINGS.items()), strict=strict)
    table, places, left = reader.read(pa.array(records, pa.binary()))
    table.validate(full=True)
    return table.to_pylist(), places.tolist(), left.tolist()


@pytest.mark.parametrize(
    "text",
    [
        "0.1",
        "-0.0",
        "123456.789012345",
        "0.30000000000000004",
        "1e22",
        "1.7976931348623157e308",
        "5e-324",
        "-1E+2",
        "7",
        "999999999999999",
        "0.000000000000001",
        "9007199254740993",
        f"0.1{'0' * 60}1",
    ],
)
def test_doubles_are_the_nearest_ones(text: str) -> None:
    ((row,), _, _) = taken(b'{"f":%s}' % text.encode())
    assert row["f"] == float(text)
    assert math.copysign(1, row["f"]) == math.copysign(1, float(text))


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"{}",
        b"{",
        b'{"i":1',
        b'{"i":1}}',
        b'{"i":1,}',
        b'{"i":1 "s":"a"}',
        b'[{"i":1}]',
        b' {"i":1}',
        b'{"i":1} ',
        b'{"i":1,"i":2}',
        b'{"i":1000000000000000000}',
        b'{"i":-0}',
        b'{"i":1.0}',
        b'{"i":"1"}',
        b'{"s":1}',
        b'{"s":"a\\n"}',
        b'{"s":"a\nb"}',
        b'{"s":"a',
        b'{"s":"\xff"}',
        b'{"s":"a\0"}',
        b'{"b":1}',
        b'{"b":truE}',
        b'{"f":NaN}',
        b'{"f":1.}',
        b'{"t":"2026-02-29 00:00:00"}',
        b'{"z":"2026-02-28 00:00:00"}',
        b'{"other":{}}',
        b'{"other":[1]}',
        b'{"other":01}',
        b'{"other":"\xff"}',
        b'{"\\u0069":1}',
        b'{"i":nul}',
    ],
)
def test_anything_else_is_left(record: bytes) -> None:
    assert taken(record) == ([], [], [0])


def test_members_may_come_in_any_order_be_absent_be_null_and_be_others() -> None:
    rows, _, left = taken(
        b'{"s":"b","i":1,"b":false}',
        b'{"f":null,"other":1.5e3,"b":true,"more":"x","less":null,"yes":true}',
        b'{ "t" : "1969-12-31 23:59:59.5" ,\t"z":"2000-02-29T00:00:00.000001Z"}',
        '{"s":"größer"}'.encode(),
    )
    assert left == []
    assert [{name: str(value) for name, value in row.items() if value is not None} for row in rows] == [
        {"s": "b", "i": "1", "b": "False"},
        {"b": "True"},
        {"t": "1969-12-31 23:59:59.500000", "z": "2000-02-29 00:00:00.000001+00:00"},
        {"s": "größer"},
    ]


@pytest.mark.parametrize(
    "record",
    [
        b'{"i":null}',
        b'{"i":1,"other":2}',
        b'{"f":0.3000000000000000401}',
        b'{"f":9007199254740993}',
        b'{"f":1e400}',
        b'{"f":1e-400}',
    ],
)
def test_a_strict_reader_leaves_what_columns_do_not_hold_exactly(record: bytes) -> None:
    assert taken(record, b'{"i":5}', strict=True)[1:] == ([1], [0])
    assert taken(record)[1:] == ([0], [])


@pytest.mark.parametrize(
    "text", ["0.30000000000000004", "1e5", "-1.7976931348623157e308", "5E-324", "0.1000000000000000"]
)
def test_a_strict_reader_takes_numbers_that_their_doubles_give_back(text: str) -> None:
    rows, places, left = taken(b'{"f":0.3000000000000000401}', b'{"f":%s}' % text.encode(), strict=True)
    assert ([row["f"] for row in rows], places, left) == ([float(text)], [1], [0])


@pytest.mark.parametrize("tail", ["", "}", '"}'], ids=["in a text", "behind a text", "whole"])
def test_nothing_is_read_behind_the_data(tail: str) -> None:
    pages = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    libc = ctypes.CDLL(None)
    assert libc.mprotect(ctypes.c_void_p(address + mmap.PAGESIZE), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    for size in range(60):
        record = b'{"f":1.5,"t":"2026-03-01 12:00:00","s":"' + b"a" * size + tail.encode()
        start = mmap.PAGESIZE - len(record)
        pages[start : mmap.PAGESIZE] = record
        data = pa.foreign_buffer(address + start, len(record), pages)
        bounds = pa.py_buffer(np.array([0, len(record)], np.int32))
        table, _, left = NativeReader(list(READINGS.items()), strict=False).read(
            pa.Array.from_buffers(pa.binary(), 1, [None, bounds, data])
        )
        assert len(left) == (tail != '"}')
        assert table.column("s").to_pylist() == (["a" * size] if tail == '"}' else [])


def test_slices_are_read_from_where_they_begin() -> None:
    records = pa.array([order_record(number) for number in range(40)], pa.binary())
    reader = NativeReader([("order_id", pa.int64()), ("note", pa.string()), ("score", pa.float64())], strict=False)
    whole, cut = reader.read(records)[0], reader.read(records.slice(7, 9))[0]
    assert cut.equals(whole.slice(7, 9))
    assert cut.column("score").to_pylist() == [json.loads(record.as_py())["score"] for record in records[7:16]]


def test_compiling_waits_for_many_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(json_native.sys.modules, "llvmlite.binding", raising=False)
    reader = NativeReader([("i", pa.int64())], strict=False)
    with env.overridden(VECTOR_ASSETS_NATIVE="auto"):
        assert not reader.is_due(MANY - 1)
        assert reader.is_due(1)
    with env.overridden(VECTOR_ASSETS_NATIVE="off"):
        assert not reader.is_due(MANY)


@pytest.mark.parametrize(
    "columns",
    [
        [],
        [("a", pa.list_(pa.int64()))],
        [('q"', pa.int64())],
        [("b\\", pa.int64())],
        [(f"c{n}", pa.int64()) for n in range(63)],
    ],
    ids=["none", "nested", "quote", "backslash", "many"],
)
def test_columns_that_the_loops_cannot_read_are_left_to_the_others(columns: list[tuple[str, pa.DataType]]) -> None:
    assert not NativeReader(columns, strict=False).is_due(MANY)


def test_what_is_missing_is_an_error_for_who_insists_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    json_native._works.cache_clear()
    monkeypatch.setattr(native, "missing", lambda: "llvmlite is not installed")
    try:
        reader = NativeReader([("i", pa.int64())], strict=False)
        with pytest.raises(ConfigError, match="json: documents cannot be read natively: llvmlite is not installed"):
            reader.is_due(1)
        with env.overridden(VECTOR_ASSETS_NATIVE="auto"):
            assert not reader.is_due(MANY)
    finally:
        json_native._works.cache_clear()


def test_orders_are_all_taken() -> None:
    rows = JsonRows([(name, logical(kind)) for name, kind in ORDER_COLUMNS], JsonRules())
    assert rows._blocks is not None
    _, _, left = rows._blocks._native.read(pa.array([order_record(number) for number in range(500)], pa.binary()))
    assert not len(left)
