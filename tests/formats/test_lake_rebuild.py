"""Row and `_rescued` together are the source document, whatever the document and whatever the fields."""

import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.formats.contract import check_counts, raw_table, same
from vector_assets.engine import env
from vector_assets.engine.core import POSITION
from vector_assets.engine.schema import LogicalType
from vector_assets.formats.json_native import JsonText, NativeReader
from vector_assets.formats.lake_fields import RESCUED, LakeField, rebuild
from vector_assets.formats.lake_infer import infer
from vector_assets.formats.lake_json import LakeJsonDecoder, LakeJsonOptions

KEYS = st.sampled_from(["a", "b", "a.b", "a_b", "A", "", 'q"\\', "é", "\t", "_rescued", "__value__", "\ud800"])
NUMBERS = st.sampled_from(
    [
        "0",
        "-0",
        "1",
        "-7",
        "1.0",
        "1.50",
        "1e3",
        "1E-2",
        "9007199254740993",
        "9223372036854775808",
        "0.1",
        "1e400",
        "0.1000000000000000055",
        "123456789012345678901234567890123456789012345",
        "12345678.123456789",
        "-0.0",
    ]
)
TEXTS = st.one_of(
    st.sampled_from(["", "x", "12", "null", "true", "{}", '{"a":1}', "2026-03-01", "a\\b", 'a"b', "}{][,:", "\ud800"]),
    st.text(max_size=5),
)


class Number(str):
    """A number by its spelling."""


LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS.map(Number), TEXTS)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=5)
SPACES = st.sampled_from(["", " ", "\n\t "])


@st.composite
def written(draw: st.DrawFn, documents: st.SearchStrategy[Any] = DOCUMENTS) -> bytes:
    """A document as JSON, with white space, escapes and names that are there twice."""
    space, is_ascii, twice = draw(SPACES), draw(st.booleans()), draw(st.integers(0, 5)) == 0

    def text(value: str) -> str:
        is_whole = value.encode(errors="replace").decode() == value
        return json.dumps(value, ensure_ascii=is_ascii or not is_whole)

    def spell(value: Any) -> str:
        if isinstance(value, Number):
            return str(value)
        if isinstance(value, str):
            return text(value)
        if isinstance(value, list):
            return f"[{space}" + f"{space},".join(map(spell, value)) + f"{space}]"
        if isinstance(value, dict):
            members = [f"{space}{text(key)}{space}:{space}{spell(inner)}" for key, inner in value.items()]
            return "{" + ",".join(members + members[:1] * twice) + f"{space}}}"
        return json.dumps(value)

    return (space + spell(draw(documents)) + space).encode()


def parsed(document: bytes) -> Any:
    return json.loads(document, parse_float=Decimal)


def check(documents: list[bytes], fields: tuple[LakeField, ...], drift: str = "rescue") -> None:
    decoder = LakeJsonDecoder(fields, LakeJsonOptions(layers=2, drift=drift))
    raw = raw_table(documents)
    decoded = decoder.decode(raw)
    if decoded.wants:
        decoder = decoder.evolved([change.entry for change in decoded.wants])
        decoded = decoder.decode(raw)
        assert not decoded.wants
    check_counts(decoded, raw)
    assert decoded.rejected.num_rows == 0
    for row in decoded.rows.to_pylist():
        source = parsed(documents[row[POSITION]])
        assert rebuild(row, row[RESCUED], decoder.fields) == source, (row, documents[row[POSITION]])


@given(st.lists(written(), min_size=1, max_size=6), st.integers(0, 4), st.integers(1, 6))
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_row_and_rescued_rebuild_the_document(documents: list[bytes], layers: int, sampled: int) -> None:
    check(documents, infer(documents[:sampled], layers, times=True).fields)


@given(st.lists(written(), min_size=1, max_size=6), st.integers(1, 4))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_so_they_do_when_columns_evolve(documents: list[bytes], sampled: int) -> None:
    check(documents, infer(documents[:sampled], 2).fields, "evolve")


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A document, most of the time; else a byte or two of it are others."""
    data = draw(written())
    if draw(st.integers(0, 3)):
        return data
    at = draw(st.integers(0, len(data) - 1))
    other = draw(st.one_of(st.binary(max_size=2), st.sampled_from([b"{", b"]", b",", b"[", b"}", b":", b'"', b" "])))
    return data[:at] + other + data[at + draw(st.integers(0, 2)) :]


@given(st.lists(damaged(), min_size=1, max_size=8), st.integers(1, 4))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_compiled_loops_change_nothing(documents: list[bytes], sampled: int) -> None:
    decoder = LakeJsonDecoder(infer(documents[:sampled], 1, times=True).fields, LakeJsonOptions())
    raw = raw_table(documents)
    with env.overridden(VECTOR_ASSETS_NATIVE="on"):
        natively = decoder.decode(raw)
    with env.overridden(VECTOR_ASSETS_NATIVE="off"):
        same(natively, decoder.decode(raw))


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ('{"x":1,"y":[1,2.50,{"z":null}]}', None),
        ('{ "x" : 1E5 ,\t"y":\n[ 1 , 2 ],"z" : " a  b " }', '{"x":1E5,"y":[1,2],"z":" a  b "}'),
        ("[ ]", "[]"),
        ("{}", None),
        ('"text"', None),
        ("-0", None),
        ("[" * 32 + "]" * 32, None),
    ],
    ids=lambda text: None if text is None else text[:20],
)
def test_compiled_loops_take_values_as_they_are_written(value: str, kept: str | None) -> None:
    reader = NativeReader([("i", pa.int64()), ("j", JsonText())], strict=True)
    documents = [b'{"i":1}', f'{{"i":2, "j":{value}}}'.encode(), b'{"i":3,"j":[0]}']
    table, _, left = reader.read(pa.array(documents, pa.binary()))
    table.validate(full=True)
    assert table.column("j").to_pylist() == [None, kept or value, "[0]"]
    assert not len(left)


@pytest.mark.parametrize(
    "value",
    [
        "[1,]",
        "[1 2]",
        "[01]",
        "[1}",
        "{1}",
        '{"a"}',
        '{"a":1,}',
        '{"a":1]',
        '{"a" 1}',
        '["\\n"]',
        "[",
        "{",
        "[tru]",
        "null",
        "[" * 33 + "]" * 33,
    ],
    ids=lambda text: text[:20],
)
def test_compiled_loops_leave_what_is_no_json_deep_or_escaped(value: str) -> None:
    reader = NativeReader([("j", JsonText())], strict=True)
    _, taken, left = reader.read(pa.array([f'{{"j":{value}}}'.encode(), b'{"j":1}'], pa.binary()))
    assert (taken.tolist(), left.tolist()) == ([1], [0])


TYPES = [LogicalType("BOOLEAN"), LogicalType("TINYINT"), LogicalType("INT"), LogicalType("BIGINT")]
TYPES += [LogicalType("FLOAT"), LogicalType("DOUBLE"), LogicalType("DECIMAL", 10, 2), LogicalType("DECIMAL", 38, 0)]
TYPES += [LogicalType("VARCHAR"), LogicalType("DATE"), LogicalType("TIME")]
TYPES += [LogicalType("TIMESTAMP", 0), LogicalType("TIMESTAMP", 3), LogicalType("TIMESTAMP_LTZ", 6)]
MOMENTS = st.sampled_from(
    [
        "2026-03-01",
        "0001-01-01",
        "2026-02-30",
        "12:00:00",
        "12:00:00.5",
        "2026-03-01 12:00:00",
        "2026-03-01T12:00Z",
        "2026-03-01T12:00:00.120",
        "2026-03-01 12:00:00.123456Z",
        "2026-03-01 12:00:00.120",
    ]
)


@given(
    st.lists(written(st.fixed_dictionaries({"x": LEAVES | MOMENTS}, optional={"y": LEAVES})), min_size=1, max_size=6),
    st.sampled_from(TYPES),
    st.booleans(),
    st.sampled_from(["absent", "null"]),
)
@settings(max_examples=120, deadline=None)
def test_so_they_do_with_any_type_of_the_users(documents: list[bytes], kind: LogicalType, iso: Any, nulls: Any) -> None:
    check(documents, (LakeField(("x",), "x", kind, nulls=nulls, iso=iso), LakeField(("z",), "z", kind, nulls=nulls)))
