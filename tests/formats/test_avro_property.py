"""Whatever schema a writer has: what fastavro writes and reads is what we read, and what it refuses we refuse."""

import datetime as dt
import io
import json
import math
from dataclasses import dataclass
from decimal import Decimal

import fastavro
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.contract import check_counts, raw_table
from tests.formats.fix_avro import csv_table, encode, outcome
from tests.formats.fix_csv import logical
from vector_assets.engine.schema import Column, LogicalType, Table
from vector_assets.formats.avro import AvroRows, pieces
from vector_assets.formats.avro_schema import of_table, parse


@dataclass(frozen=True)
class Shape:
    """A writer's type without its name, the column it is read as, and its values."""

    schema: object
    kind: LogicalType
    values: st.SearchStrategy


def leaf(schema, kind, values):
    return Shape(schema, logical(kind), values)


LONGS = st.integers(-(2**63), 2**63 - 1) | st.integers(-300, 300)
INTS = st.integers(-(2**31), 2**31 - 1) | st.integers(-70, 70)
FLOATS = st.floats(width=32, allow_nan=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
FIRST, LAST = dt.datetime.fromisoformat("1900-01-01"), dt.datetime.fromisoformat("2200-01-01")
MOMENTS = st.datetimes(FIRST, LAST, timezones=st.just(dt.UTC))
LOCAL = st.datetimes(FIRST, LAST)


def whole_ms(moments):
    return moments.map(lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000))


def decimals(digits, scale):
    return st.integers(-(10**digits) + 1, 10**digits - 1).map(
        lambda n: Decimal((int(n < 0), tuple(map(int, str(abs(n)))), -scale))
    )


LEAVES = [
    leaf("boolean", "BOOLEAN", st.booleans()),
    leaf("int", "INT", INTS),
    leaf("int", "BIGINT", INTS),
    leaf("int", "DOUBLE", INTS),
    leaf("long", "BIGINT", LONGS),
    leaf("float", "FLOAT", FLOATS),
    leaf("float", "DOUBLE", FLOATS),
    leaf("double", "DOUBLE", st.floats(allow_nan=False)),
    leaf("string", "STRING", TEXTS),
    leaf("bytes", "BYTES", st.binary(max_size=6)),
    leaf({"type": "fixed", "size": 3}, "BYTES", st.binary(min_size=3, max_size=3)),
    leaf({"type": "enum", "symbols": ["A", "B", "C"]}, "STRING", st.sampled_from("ABC")),
    leaf({"type": "int", "logicalType": "date"}, "DATE", st.dates()),
    leaf({"type": "long", "logicalType": "time-micros"}, "TIME", st.times()),
    leaf({"type": "long", "logicalType": "timestamp-millis"}, "TIMESTAMP_LTZ(3)", whole_ms(MOMENTS)),
    leaf({"type": "long", "logicalType": "timestamp-micros"}, "TIMESTAMP_LTZ(6)", MOMENTS),
    leaf({"type": "long", "logicalType": "local-timestamp-millis"}, "TIMESTAMP(6)", whole_ms(LOCAL)),
    leaf({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, "DECIMAL(9, 2)", decimals(9, 2)),
    leaf({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, "DECIMAL(38, 4)", decimals(9, 2)),
    leaf(
        {"type": "fixed", "size": 16, "logicalType": "decimal", "precision": 38, "scale": 5},
        "DECIMAL(38, 5)",
        decimals(38, 5),
    ),
]


def larger(inner):
    def array(shape):
        kind = LogicalType("ARRAY", children=(shape.kind,))
        return Shape({"type": "array", "items": shape.schema}, kind, st.lists(shape.values, max_size=4))

    def mapped(shape):
        kind = LogicalType("MAP", children=(logical("STRING NOT NULL"), shape.kind))
        return Shape({"type": "map", "values": shape.schema}, kind, st.dictionaries(TEXTS, shape.values, max_size=3))

    def nullable(shape, null_first):
        if isinstance(shape.schema, list):
            return shape
        union = ["null", shape.schema] if null_first else [shape.schema, "null"]
        return Shape(union, shape.kind, st.none() | shape.values)

    def structure(shapes):
        names = [f"f{number}" for number in range(len(shapes))]
        fields = [{"name": name, "type": shape.schema} for name, shape in zip(names, shapes, strict=True)]
        kind = LogicalType("ROW", children=tuple(shape.kind for shape in shapes), child_names=tuple(names))
        values = st.fixed_dictionaries({name: shape.values for name, shape in zip(names, shapes, strict=True)})
        return Shape({"type": "record", "fields": fields}, kind, values)

    return st.one_of(
        inner.map(array),
        inner.map(mapped),
        st.builds(nullable, inner, st.booleans()),
        st.lists(inner, min_size=1, max_size=3).map(structure),
    )


SHAPES = st.recursive(st.sampled_from(LEAVES), larger, max_leaves=5)


def named(schema, path):
    """The schema with a name of its own for every type that has one."""
    if isinstance(schema, list):
        return [named(each, path) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = dict(schema)
    for inner in ("items", "values"):
        if inner in made:
            made[inner] = named(made[inner], f"{path}_{inner}")
    if "fields" in made:
        made["fields"] = [each | {"type": named(each["type"], f"{path}_{each['name']}")} for each in made["fields"]]
    return made | {"name": path} if made["type"] in {"fixed", "enum", "record"} else made


@st.composite
def documents(draw):
    """A writer's schema, a table with some of its fields and one it does not have, and values."""
    shapes = draw(st.lists(SHAPES, min_size=1, max_size=4))
    wanted = draw(st.lists(st.booleans(), min_size=len(shapes), max_size=len(shapes)))
    fields = [{"name": f"c{n}", "type": named(shape.schema, f"t_c{n}")} for n, shape in enumerate(shapes)]
    columns = [Column(f"c{n}", shape.kind) for n, shape in enumerate(shapes) if wanted[n]]
    table = Table("t", (*draw(st.permutations(columns)), Column("missing", logical("INT"))))
    each = st.fixed_dictionaries({f"c{n}": shape.values for n, shape in enumerate(shapes)})
    values = draw(st.lists(each, min_size=1, max_size=6))
    return {"type": "record", "name": "t", "fields": fields}, table, values


def decoded(writer, table, data):
    rows = AvroRows(table, "avro")
    plan = rows.plan(parse(json.dumps(writer), "writer"), of_table(table, "t", legacy=False))
    raw = raw_table(data)
    found = rows.joined(rows.read(piece, plan, np.arange(len(piece.starts))) for piece in pieces(raw))
    check_counts(found, raw)
    return outcome(found)


def plain(value, kind):
    """What the independent reader gives, as Arrow's Python values."""
    if value is None:
        return None
    if kind.name == "ARRAY":
        return [plain(each, kind.children[0]) for each in value]
    if kind.name == "MAP":
        return [(key, plain(each, kind.children[1])) for key, each in value.items()]
    if kind.name == "ROW":
        return {name: plain(value[name], each) for name, each in zip(kind.child_names, kind.children, strict=True)}
    return value


def same(one, other):
    if isinstance(one, float) and isinstance(other, float | int):
        return one == other or (math.isnan(one) and math.isnan(other))
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one == other


def read_alone(writer, data):
    """What fastavro reads, and whether it came to the end."""
    stream = io.BytesIO(data)
    value = fastavro.schemaless_reader(stream, fastavro.parse_schema(writer), None)
    return value, stream.tell() == len(data)


@given(documents())
@settings(max_examples=150, deadline=None)
def test_we_read_what_an_independent_library_writes_and_reads(document):
    writer, table, values = document
    data = encode(writer, *values)
    found = decoded(writer, table, data)
    for place, each in enumerate(data):
        value, _ = read_alone(writer, each)
        wanted = tuple(plain(value.get(column.name), column.type) for column in table.columns)
        assert same(found[place], wanted), (found[place], wanted)


@given(documents(), st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_records_are_rejected_or_are_what_an_independent_library_reads(document, data):
    writer, table, values = document
    records = encode(writer, *values)
    place = data.draw(st.integers(0, len(records) - 1))
    broken = bytearray(records[place])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(broken)))
        broken[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    try:
        found = decoded(writer, table, [*records[:place], bytes(broken), *records[place + 1 :]])
    except (OverflowError, ValueError):
        # a date or timestamp that Arrow holds and Python has no value for
        return
    assert all(isinstance(found[other], tuple) for other in range(len(records)) if other != place)
    if isinstance(found[place], tuple):
        try:
            value, is_whole = read_alone(writer, bytes(broken))
        except (OverflowError, ValueError):
            # of a field that we pass over: a date, time or timestamp that Python has no value for
            return
        assert is_whole
        wanted = tuple(plain(value.get(column.name), column.type) for column in table.columns)
        assert same(found[place], wanted), (found[place], wanted)


def test_the_helpers_see_a_difference():
    assert not same([1.0], [1.5])
    assert decoded(
        {"type": "record", "name": "t", "fields": [{"name": "c", "type": "int"}]}, csv_table(("c", "INT")), [b"\2"]
    ) == {0: (1,)}
