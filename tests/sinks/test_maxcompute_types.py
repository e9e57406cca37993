"""Types of the connector's mapping, written as Arrow and as records, and what is refused."""

import datetime as dt
from decimal import Decimal

import pyarrow as pa
import pytest

from tests.sinks.contract import rows_of
from tests.sinks.maxcompute_target import UPSERT, token
from vector_assets.engine.core import Batch
from vector_assets.engine.errors import PlanError
from vector_assets.engine.schema import Column, LogicalType, Table

pytestmark = pytest.mark.service
moment = dt.datetime.fromisoformat
SIMPLE = {
    "id bigint NOT NULL": (LogicalType("BIGINT"), 1),
    "a boolean": (LogicalType("BOOLEAN"), True),
    "b tinyint": (LogicalType("TINYINT"), -8),
    "c smallint": (LogicalType("SMALLINT"), 300),
    "d int": (LogicalType("INT"), -70000),
    "e float": (LogicalType("FLOAT"), 1.5),
    "f double": (LogicalType("DOUBLE"), -2.25),
    "g decimal(12,3)": (LogicalType("DECIMAL", 12, 3), Decimal("-123.450")),
    "whole decimal(20,0)": (LogicalType("DECIMAL", 20, 0), Decimal(18446744073709551615)),
    "h char(3)": (LogicalType("CHAR", 3), "abc"),
    "i varchar(5)": (LogicalType("VARCHAR", 5), "äöü"),
    "j string": (LogicalType("VARCHAR"), "中文"),
    "k binary": (LogicalType("VARBINARY"), b"\x00\xff"),
    "l date": (LogicalType("DATE"), dt.date(1969, 12, 31)),
    "m datetime": (LogicalType("TIMESTAMP", 3), moment("2024-02-29T01:02:03.004")),
    "n timestamp": (LogicalType("TIMESTAMP", 9), moment("1969-01-01T00:00:00.000001")),
    "o timestamp_ntz": (LogicalType("TIMESTAMP", 9), moment("2200-01-01")),
}
NESTED = {
    "p array<int>": (LogicalType("ARRAY", children=(LogicalType("INT"),)), [1, None]),
    "q map<string,bigint>": (LogicalType("MAP", children=(LogicalType("VARCHAR"), LogicalType("BIGINT"))), [("x", 1)]),
    "r struct<u:string,v:double>": (
        LogicalType("ROW", children=(LogicalType("VARCHAR"), LogicalType("DOUBLE")), child_names=("u", "v")),
        {"u": "y", "v": 0.5},
    ),
}
JSON = {"s json": (LogicalType("VARCHAR"), '{"a": [1]}')}


def schema_of(columns):
    return pa.schema([(name.split()[0], kind.arrow) for name, (kind, _) in columns.items()])


WAYS = {
    "arrow": ({"insert.arrow-writer.enable": "true"}, SIMPLE | NESTED),
    "records": ({"insert.arrow-writer.enable": "false"}, SIMPLE | NESTED | JSON),
    "chosen_for_json": ({}, SIMPLE | JSON),
    "zlib": ({"compressAlgorithm": "ZLIB", "insert.arrow-writer.batch-size": 2}, SIMPLE),
    "raw": ({"compressAlgorithm": "RAW", "insert.writer.buffer-size": "1 kb"}, SIMPLE),
    "stream": ({"useStreamTunnel": "true", "slotNum": 2}, SIMPLE | NESTED | JSON),
    "upsert": (UPSERT, SIMPLE | NESTED | JSON),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_type_arrives_as_it_was_sent(make_lot, way):
    options, columns = WAYS[way]
    is_nested = bool(columns.keys() & (NESTED.keys() | JSON.keys()))
    lot = make_lot(
        ", ".join(columns) + (", PRIMARY KEY (id)" if way == "upsert" else ""),
        "TBLPROPERTIES ('columnar.nested.type'='{}'{})".format(
            str(is_nested).lower(), ", 'transactional'='true', 'write.bucket.num'='4'" if way == "upsert" else ""
        ),
    )
    sink = lot.sink(schema_of(columns), **options)
    values = tuple(value for _, value in columns.values())
    empty = (2, *[None] * (len(values) - 1))
    rows = rows_of(values, empty, *[(3 + at, *values[1:]) for at in range(20)], schema=schema_of(columns))
    assert sink.commit(sink.stage(Batch(rows), token())).counts.written == 22
    found = pa.Table.from_batches(list(sink.scan())).sort_by("id")
    assert found.equals(sink.as_stored(rows).drop_columns("_position"))
    shown = lot.rows("*")
    assert shown[1] == empty
    assert [shown[0][at] for at in (0, 1, 4, 6, 7, 10)] == [values[at] for at in (0, 1, 4, 6, 7, 10)]
    assert shown[0][1:] == shown[21][1:]


def test_a_table_whose_nested_columns_are_not_stored_in_columns_is_refused(make_lot):
    for name, (kind, _) in {**NESTED, **JSON}.items():
        lot = make_lot(f"id bigint, {name}")
        schema = pa.schema([("id", pa.int64()), (name.split()[0], kind.arrow)])
        with pytest.raises(PlanError, match=r"tblproperties\('columnar.nested.type'='true'\)"):
            lot.sink(schema)


@pytest.mark.parametrize(
    ("type_", "sent", "value", "reason"),
    [
        ("varchar(3)", pa.string(), "abcd", "longer than 3 characters"),
        ("char(2)", pa.string(), "äöü", "longer than 2 characters"),
        ("string", pa.string(), "x" * (8 << 20) + "y", "longer than 8388608 bytes"),
        ("timestamp", pa.timestamp("us"), moment("2500-01-01"), "outside of 1677 to 2262"),
        ("int NOT NULL", pa.int32(), None, "takes no null"),
    ],
    ids=["varchar", "char", "longest", "timestamp", "null"],
)
def test_a_row_that_the_table_does_not_take_is_refused_and_the_rest_lands(make_lot, type_, sent, value, reason):
    lot = make_lot(f"id bigint, v {type_}")
    schema = pa.schema([("id", pa.int64()), ("v", sent)])
    sink = lot.sink(schema)
    good = {pa.string(): "a", pa.int32(): 1}.get(sent, moment("2000-01-01"))
    staged = sink.stage(Batch(rows_of((1, good), (2, value), schema=schema)), token())
    assert [(row["_position"], reason in row["error"]) for row in staged.rejected.to_pylist()] == [(1, True)]
    sink.commit(staged)
    assert lot.rows("id") == [(1,)]


def test_a_type_that_would_lose_something_is_refused_by_name(make_lot):
    lot = make_lot("id int, v datetime, w decimal(5,2)")
    for name, sent in (("id", pa.int64()), ("v", pa.timestamp("us")), ("w", pa.decimal128(6, 2)), ("v", pa.string())):
        with pytest.raises(PlanError, match=f"column {name} is .*use a CAST"):
            lot.sink(pa.schema([(name, sent)]))


def declared(kind, *columns, key=()):
    return Table("t", tuple(Column(name, type_) for name, type_ in columns), key)


@pytest.mark.parametrize("is_delta", [False, True], ids=["table", "delta"])
def test_a_missing_table_is_made_from_the_declared_one(make_lot, is_delta):
    lot = make_lot()
    lot.name = lot.server.fresh_name()
    types = {**SIMPLE, **NESTED}
    columns = [(name.split()[0], kind) for name, (kind, _) in types.items()]
    table = declared("t", *columns, ("ds", LogicalType("VARCHAR")), key=("id",) if is_delta else ())
    schema = pa.schema([*schema_of(types), ("ds", pa.string())])
    sink = lot.sink(None, table=table, partition="ds", **(UPSERT if is_delta else {}))
    key = ("id",) if is_delta else ()
    with pytest.raises(PlanError, match="target create"):
        sink.prepare(schema, key)
    assert "was made" in sink.create_target(schema, key)[0]
    assert "is there already" in sink.create_target(schema, key)[0]
    made = lot.server.odps.get_table(lot.name)
    assert [column.name for column in made.table_schema.partitions] == ["ds"]
    assert sink.prepare(schema, key).key == (("id", "ds") if is_delta else ())
    values = (*(value for _, value in types.values()), "x")
    assert sink.commit(sink.stage(Batch(rows_of(values, schema=schema)), token())).counts.written == 1
    assert lot.rows("id, ds") == [(1, "x")]


@pytest.mark.parametrize(
    ("text", "taken"),
    [("a", 1), ("it's", 1), ("back\\slash", 1), ("no such", 0)],
    ids=["plain", "quote", "slash", "none"],
)
def test_rows_of_a_delta_table_are_found_by_their_keys(make_lot, text, taken):
    lot = make_lot(
        "name string NOT NULL, id int NOT NULL, v decimal(20,0), PRIMARY KEY (name, id)",
        "TBLPROPERTIES ('transactional'='true', 'write.bucket.num'='4')",
    )
    schema = pa.schema([("name", pa.string()), ("id", pa.int32()), ("v", pa.decimal128(20, 0))])
    sink = lot.sink(schema, ("name", "id"), **UPSERT)
    names = ["a", "it's", "back\\slash"]
    rows = rows_of(*[(name, at, Decimal(at)) for name in names for at in (1, 2)], schema=schema)
    sink.commit(sink.stage(Batch(rows), token()))
    keys = pa.table({"name": [text], "id": pa.array([2], pa.int32()), "_position": pa.array([0], pa.int64())})
    assert sink.as_stored_keys(keys).equals(keys)
    found = sink.rows_of(keys)
    assert found.to_pylist() == [{"name": text, "id": 2, "v": Decimal(2)}][:taken]
