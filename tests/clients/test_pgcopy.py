"""The binary forms, against the bytes the protocol's documentation gives; the server's word is in the sink's tests."""

from decimal import Decimal

import pyarrow as pa
import pytest

from vector_assets.clients import pgcopy
from vector_assets.clients.pgcopy import Wire


def row(values, wire):
    return pgcopy.copy_rows([pgcopy.encode(pa.array(values, wire.arrow), wire)]).to_pylist()


def test_rows_hold_the_number_of_fields_then_size_and_bytes_of_each():
    fields = [
        pgcopy.encode(pa.array([1, None], pa.int32()), Wire("int4")),
        pgcopy.encode(pa.array([b"a", b"bc"], pa.large_binary()), Wire("text")),
    ]
    assert pgcopy.copy_rows(fields).to_pylist() == [
        bytes.fromhex("0002 00000004 00000001 00000001 61"),
        bytes.fromhex("0002 ffffffff 00000002 6263"),
    ]


@pytest.mark.parametrize(
    ("wire", "value", "expected"),
    [
        (Wire("bool"), True, "01"),
        (Wire("int2"), -2, "fffe"),
        (Wire("int8"), 1, "0000000000000001"),
        (Wire("float4"), 1.0, "3f800000"),
        (Wire("float8"), -1.0, "bff0000000000000"),
        (Wire("vector"), [1.0], "0001 0000 3f800000"),
        (Wire("halfvec"), [1.0], "0001 0000 3c00"),
        (Wire("jsonb"), b"{}", "01 7b7d"),
        (Wire("_int4", Wire("int4"), 23), [7], "00000001 00000000 00000017 00000001 00000001 00000004 00000007"),
        (Wire("_int4", Wire("int4"), 23), [], "00000000 00000000 00000017"),
    ],
    ids=lambda value: value.name if isinstance(value, Wire) else "",
)
def test_values_travel_as_the_protocol_says(wire, value, expected):
    data = bytes.fromhex(expected)
    assert row([value, None, value], wire) == [
        b"\0\1" + len(data).to_bytes(4) + data,
        b"\0\1\xff\xff\xff\xff",
        b"\0\1" + len(data).to_bytes(4) + data,
    ]


def test_decimals_travel_in_digits_of_ten_thousand():
    values = pa.array([Decimal("12345.678"), Decimal("-0.001"), None], pa.decimal128(8, 3))
    sizes, pieces = (field := pgcopy.encode(values, Wire("numeric"))).sizes, field.pieces
    assert sizes.tolist() == [14, 14, -1]
    assert pgcopy.value_rows(field).to_pylist()[:2] == [
        bytes.fromhex("0000000e 0003 0001 0000 0003 0001 0929 1a7c"),
        bytes.fromhex("0000000e 0003 0001 4000 0003 0000 0000 000a"),
    ]
    assert len(pieces) == 1


def test_no_rows_are_no_bytes():
    fields = [pgcopy.encode(pa.array([], wire.arrow), wire) for wire in map(Wire, sorted(pgcopy.WIRES - {"numeric"}))]
    rows = pgcopy.copy_rows(fields)
    assert len(rows) == 0
    assert list(pgcopy.chunks(rows, 10)) == []
    assert pgcopy.array_parameter(rows, 23) == bytes.fromhex("00000000 00000001 00000017")


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_chunks_are_the_rows_in_order(size):
    rows = pgcopy.copy_rows([pgcopy.encode(pa.array([b"x" * n for n in range(7)], pa.large_binary()), Wire("text"))])
    chunks = [bytes(chunk) for chunk in pgcopy.chunks(rows, size)]
    assert len(chunks) == -(-7 // size)
    assert b"".join(chunks) == b"".join(rows.to_pylist())
    part = rows.slice(2, 3)
    assert b"".join(pgcopy.chunks(part, size)) == b"".join(part.to_pylist())
    assert pgcopy.size(part) == sum(map(len, part.to_pylist()))


def test_records_name_the_type_of_every_field_and_fill_what_is_not_sent():
    field = pgcopy.encode(pa.array([5, None], pa.int16()), Wire("int2"))
    rows = pgcopy.record_rows([(21, field), (25, None)])
    assert rows.to_pylist() == [
        bytes.fromhex("00000016 00000002 00000015 00000002 0005 00000019 ffffffff"),
        bytes.fromhex("00000014 00000002 00000015 ffffffff 00000019 ffffffff"),
    ]
