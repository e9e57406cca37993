"""Columns become fields exactly, bad values refuse their rows only, and the wire gives back what it was given."""

import struct

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vector_assets.clients.milvus import Field
from vector_assets.engine.core import POSITION
from vector_assets.sinks.milvus_values import convert

FIELDS = {
    "Bool": (Field("x", "Bool", nullable=True), st.booleans()),
    "Int8": (Field("x", "Int8", nullable=True), st.integers(-128, 127)),
    "Int16": (Field("x", "Int16", nullable=True), st.integers(-(2**15), 2**15 - 1)),
    "Int32": (Field("x", "Int32", nullable=True), st.integers(-(2**31), 2**31 - 1)),
    "Int64": (Field("x", "Int64", nullable=True), st.integers(-(2**63), 2**63 - 1)),
    "Float": (Field("x", "Float", nullable=True), st.floats(width=32, allow_nan=False)),
    "Double": (Field("x", "Double", nullable=True), st.floats(allow_nan=False)),
    "VarChar": (Field("x", "VarChar", nullable=True, max_length=1000), st.text(max_size=200)),
    "JSON": (Field("x", "JSON", nullable=True), st.sampled_from(['{"a":1}', "[1,2]", "null", '"ü"'])),
    "FloatVector": (
        Field("x", "FloatVector", nullable=True, dimension=3),
        st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3),
    ),
    "Float16Vector": (
        Field("x", "Float16Vector", nullable=True, dimension=2),
        st.lists(st.floats(width=16, allow_nan=False, allow_infinity=False), min_size=2, max_size=2),
    ),
    "BFloat16Vector": (
        Field("x", "BFloat16Vector", nullable=True, dimension=2),
        st.lists(st.integers(-256, 256).map(float), min_size=2, max_size=2),
    ),
    "BinaryVector": (Field("x", "BinaryVector", nullable=True, dimension=16), st.binary(min_size=2, max_size=2)),
    "SparseFloatVector": (
        Field("x", "SparseFloatVector", nullable=True),
        st.dictionaries(st.integers(0, 99), st.floats(0, 1, width=32), min_size=1, max_size=4).map(
            lambda pairs: b"".join(struct.pack("<If", *pair) for pair in sorted(pairs.items()))
        ),
    ),
    "Array of Int64": (
        Field("x", "Array", nullable=True, element="Int64", max_capacity=9),
        st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
    ),
    "Array of VarChar": (
        Field("x", "Array", nullable=True, element="VarChar", max_capacity=9, max_length=99),
        st.lists(st.text(max_size=9), max_size=4),
    ),
}


@pytest.mark.parametrize("name", FIELDS)
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_the_wire_gives_back_what_it_was_given(name, data):
    from vector_assets.clients.milvus_wire import arrow_type, decode, encode

    field, values = FIELDS[name]
    column = pa.array(data.draw(st.lists(values | st.none(), min_size=1, max_size=20)), arrow_type(field))
    message = encode(field, column)
    assert decode(field, type(message).FromString(message.SerializeToString()), len(column)).equals(column)


def test_columns_are_the_messages_that_pymilvus_makes():
    """The bytes are built without protobuf's setters; an independent client must agree on them."""
    from pymilvus import DataType
    from pymilvus.client import entity_helper

    from vector_assets.clients.milvus_wire import encode

    pairs = [
        (Field("x", "Int64"), DataType.INT64, {}, [1, -5, 2**62]),
        (Field("x", "Int8"), DataType.INT8, {}, [1, -5, 127]),
        (Field("x", "Bool"), DataType.BOOL, {}, [True, False]),
        (Field("x", "Float"), DataType.FLOAT, {}, [1.5, -2.0]),
        (Field("x", "Double"), DataType.DOUBLE, {}, [1.5, -2.0]),
        (Field("x", "VarChar", max_length=999), DataType.VARCHAR, {"max_length": 999}, ["", "ü" * 200, "b"]),
        (Field("x", "FloatVector", dimension=2), DataType.FLOAT_VECTOR, {"dim": 2}, [[1.0, 2.0], [3.0, 4.5]]),
    ]
    from vector_assets.clients.milvus_wire import arrow_type

    for field, kind, params, values in pairs:
        theirs = entity_helper.entity_to_field_data(
            {"name": "x", "type": kind, "values": values}, {"name": "x", "type": kind, "params": params}, len(values)
        )
        assert encode(field, pa.array(values, arrow_type(field))) == theirs, field.spelled


def refused(field: Field, values, kind=None) -> dict[int, str]:
    column = values if isinstance(values, pa.Array) else pa.array(values, kind)
    table = pa.table({field.name: column, POSITION: pa.array(range(10, 10 + len(column)), pa.int64())})
    columns, reasons = convert(table, (field,))
    assert len(columns) + len(reasons) == len(column)
    return reasons


VEC = Field("v", "FloatVector", dimension=3)


@pytest.mark.parametrize(
    "text", ["[0.1,0.2,0.3]", "{0.1,0.2,0.3}", "0.1,0.2,0.3", " [ 0.1 , 2e-1, .3 ] ", "0.1, 0.2, 0.3"], ids=str
)
def test_vectors_may_be_written_in_these_ways(text):
    table = pa.table({"v": [text], POSITION: [0]})
    columns, reasons = convert(table, (VEC,))
    assert not reasons
    assert columns.array(VEC).to_pylist() == [pytest.approx([0.1, 0.2, 0.3])]


F32, F64 = pa.list_(pa.float32()), pa.list_(pa.float64())
MAP = pa.map_(pa.int32(), pa.float32())


@pytest.mark.parametrize(
    ("field", "kind", "good", "bad", "said"),
    [
        (VEC, F32, [1, 2, 3], [1, 2], "2 dimensions, wanted 3"),
        (VEC, F32, [1, 2, 3], [1, 2, float("nan")], "NaN"),
        (VEC, F64, [1, 2, 3], [1, 2, 1e39], "infinite or out of range"),
        (VEC, F32, [1, 2, 3], [1, None, 3], "missing"),
        (VEC, F32, [1, 2, 3], None, "is null"),
        (VEC, pa.string(), "[1,2,3]", "[1,2,x]", "not a number"),
        (VEC, pa.string(), "[1,2,3]", "hello", "no such brackets"),
        (Field("v", "Float16Vector", dimension=1), F32, [65_504], [65_520], "out of range"),
        (Field("v", "BFloat16Vector", dimension=1), F32, [3.38e38], [3.4e38], "out of range"),
        (Field("v", "BinaryVector", dimension=16), pa.binary(), b"ab", b"abc", "3 bytes, BinaryVector.16. takes 2"),
        (Field("v", "SparseFloatVector"), MAP, [(1, 0.5)], [(-1, 0.5)], "an index of the vector is not from 0"),
        (Field("v", "SparseFloatVector"), MAP, [(1, 0.5)], [(1, float("inf"))], "infinite"),
        (Field("v", "SparseFloatVector"), MAP, [(1, 0.5)], [(1, 0.5), (1, 0.6)], "comes twice"),
        (Field("v", "SparseFloatVector"), pa.string(), '{"1": 0.5}', "[1]", "a sparse vector is written"),
        (Field("v", "SparseFloatVector"), pa.string(), '{"1": 0.5}', '{"a": 0.5}', "a sparse vector is written"),
        (Field("v", "VarChar", max_length=4), pa.string(), "abcd", "üüü", "6 bytes, the field takes 4"),
        (Field("v", "VarChar", max_length=4), pa.string(), "abcd", None, "is null"),
        (Field("v", "Int8"), pa.int32(), 127, 128, "out of range of Int8"),
        (Field("v", "Float"), pa.float64(), 1.5, 1e39, "out of range of Float"),
        (Field("v", "Double"), pa.float64(), 1.5, float("nan"), "is NaN"),
        (Field("v", "JSON"), pa.string(), '{"a": 1}', "{a: 1}", "is not JSON"),
        (Field("v", "JSON"), pa.string(), "1", '"' + "x" * 70_000 + '"', "70002 bytes of JSON"),
        (Field("v", "Array", element="Int8", max_capacity=2), pa.list_(pa.int32()), [1, 2], [1, 2, 3], "3 elements"),
        (Field("v", "Array", element="Int8", max_capacity=9), pa.list_(pa.int32()), [1], [1, 300], "out of range"),
        (Field("v", "Array", element="Int8", max_capacity=9), pa.list_(pa.int32()), [1], [None], "an element is null"),
        (
            Field("v", "Array", element="VarChar", max_capacity=9, max_length=2),
            pa.list_(pa.string()), ["ab"], ["abc"], "an element has 3 bytes",
        ),
    ],
    ids=str,
)  # fmt: skip
def test_a_bad_value_refuses_its_row_and_no_other(field, kind, good, bad, said):
    reasons = refused(field, pa.array([good, bad, good], kind))
    assert list(reasons) == [11]
    assert said.replace(".16.", "(16)") in reasons[11]
    assert reasons[11].startswith("column v: ")


def test_halves_are_stored_rounded():
    table = pa.table({"v": pa.array([[0.1, 1 + 2**-9]], F32), POSITION: [0]})
    for kind, wanted in (("Float16Vector", np.float16([0.1, 1 + 2**-9])), ("BFloat16Vector", [0.10009765625, 1.0])):
        field = Field("v", kind, dimension=2)
        columns, _ = convert(table, (field,))
        assert columns.array(field).to_pylist() == [[float(number) for number in wanted]]
