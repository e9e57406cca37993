"""Records of several tables in one topic: which are read, into which columns, and what becomes of new ones."""

import json
from typing import Any

import pyarrow as pa
import pytest

from vector_assets.engine.core import KIND, POSITION, RAW_SCHEMA, Decoded
from vector_assets.engine.errors import DriftError
from vector_assets.engine.schema import Column, LogicalType
from vector_assets.formats.canal_json import CanalJsonOptions
from vector_assets.formats.debezium_json import DebeziumJsonOptions
from vector_assets.formats.enveloped import EnvelopedDecoder
from vector_assets.formats.enveloped_look import tables_in
from vector_assets.formats.enveloped_types import connect_columns, mysql_type

ID = Column("id", LogicalType("BIGINT", nullable=False))
NAME = Column("name", LogicalType("VARCHAR"))
TEXT = LogicalType("VARCHAR", nullable=False)
SPOKEN = (
    Column("__schema_name__", TEXT, "metadata", metadata_key="database_name"),
    Column("__table_name__", TEXT, "metadata", metadata_key="table_name"),
    Column("__data_event_type__", TEXT, "metadata", metadata_key="row_kind"),
    Column("op_ts", LogicalType("BIGINT", nullable=False), "metadata", metadata_key="op_ts"),
)


def raw(*values: Any) -> pa.Table:
    """Records with these values; what is no bytes is written as JSON."""
    texts = [value if isinstance(value, bytes | None) else json.dumps(value).encode() for value in values]
    rows = [{"value": text, "split": 0, "offset": 100 + number} for number, text in enumerate(texts)]
    table = pa.Table.from_pylist(rows, schema=RAW_SCHEMA)
    return table.append_column(POSITION, pa.array(range(len(texts)), pa.int64()))


def change(after: dict[str, Any] | None, table: str = "t", op: str = "c", **source: Any) -> dict[str, Any]:
    """A record of Debezium."""
    before = after if op == "d" else None
    where = {"db": "s", "table": table, "ts_ms": 7, **source}
    return {"before": before, "after": None if op == "d" else after, "source": where, "op": op}


def canal(*rows: dict[str, Any], table: str = "t", **more: Any) -> dict[str, Any]:
    """A record of canal."""
    return {"data": rows, "type": "INSERT", "database": "s", "table": table, "es": 7, **more}


def debezium(*tables: str, behavior: Any = "lenient", **more: Any) -> EnvelopedDecoder:
    """A decoder of debezium-json."""
    return EnvelopedDecoder(DebeziumJsonOptions(), (ID, NAME), tables or ("s.t",), behavior, **more)


def wants(found: Decoded) -> list[tuple[int, str]]:
    """Where changes are asked for, and which."""
    return [(each.position, each.what) for each in found.wants]


def test_records_of_other_tables_are_passed_over_and_nameless_ones_are_rejected():
    found = debezium().decode(
        raw(change({"id": 1}), change({"id": 2}, "u"), {"op": "c"}, None, b"{", b"\xff", change({"id": 3}, op="d"))
    )
    assert found.rows.select(["id", KIND, POSITION]).to_pylist() == [
        {"id": 1, KIND: 0, POSITION: 0}, {"id": 3, KIND: 3, POSITION: 6},
    ]  # fmt: skip
    assert found.filtered == 2
    assert found.rejected.column(POSITION).to_pylist() == [2, 4, 5]
    assert found.rejected.column("error")[0].as_py() == (
        "debezium-json: column source: found no db and table; 'debezium-json.schema-include' is false"
    )


def test_names_of_database_and_table_kind_and_time_are_columns():
    found = debezium("s.t", "public.u", metadata=SPOKEN).decode(
        raw(change({"id": 1}), change({"id": 2}, "u", schema="public"), change({"id": 3}, op="d"))
    )
    names = [column.name for column in SPOKEN]
    assert [tuple(row.values()) for row in found.rows.select(names).to_pylist()] == [
        ("s", "t", "+I", 7), ("public", "u", "+I", 7), ("s", "t", "-D", 7),
    ]  # fmt: skip
    decoder = EnvelopedDecoder(CanalJsonOptions(), (ID,), ["s.t"], metadata=SPOKEN)
    found = decoder.decode(raw(canal({"id": "5"}, {"id": "6"})))
    assert [tuple(row.values()) for row in found.rows.select(names).to_pylist()] == [("s", "t", "+I", 7)] * 2
    assert decoder.decode(raw()).rows.schema == found.rows.schema


def test_members_that_are_new_want_columns_of_their_values():
    decoder = debezium()
    records = raw(
        change({"id": 1, "a": None, "b": [1]}),
        change({"id": 2, "other": 1}, "u"),
        change({"id": 3, "a": 1.5, "nested": {"x": 1}}),
        change({"id": 4, "a": 2}),
    )
    found = decoder.decode(records)
    assert wants(found) == [
        (0, "s.t: column b STRING is new"), (2, "s.t: column a DOUBLE is new"),
        (2, "s.t: column nested STRING is new"),
    ]  # fmt: skip
    grown = decoder.evolved([each.entry for each in found.wants])
    assert wants(grown.decode(records)) == []
    rows = grown.decode(records).rows.select(["id", "a", "b", "nested"]).to_pylist()
    assert rows == [
        {"id": 1, "a": None, "b": "[1]", "nested": None}, {"id": 3, "a": 1.5, "b": None, "nested": '{"x":1}'},
        {"id": 4, "a": 2.0, "b": None, "nested": None},
    ]  # fmt: skip
    refused = decoder.evolved([each.refusal for each in found.wants])
    assert refused.columns == (ID, NAME)
    assert wants(refused.decode(records)) == []


def test_canal_s_types_add_and_widen():
    decoder = EnvelopedDecoder(CanalJsonOptions(), (ID, Column("n", LogicalType("INT"))), ["s.t"])
    types = {"id": "int(11) unsigned", "n": "bigint(20)", "p": "blob", "d": "decimal(12,2)"}
    found = decoder.decode(raw(canal({"id": "1", "n": "5000000000", "d": "1.5"}, mysqlType=types)))
    assert wants(found) == [
        (0, "s.t: column n is BIGINT: it becomes BIGINT"),
        (0, "s.t: column d DECIMAL(12, 2) is new"),
    ]
    rows = decoder.evolved([each.entry for each in found.wants]).decode(
        raw(canal({"id": "1", "n": "5000000000", "d": "1.5"}, mysqlType=types))
    ).rows  # fmt: skip
    assert rows.column("n").to_pylist() == [5000000000]
    plain = decoder.decode(raw(canal({"id": "1", "new": None}), canal({"id": "1", "new": "x"})))
    assert wants(plain) == [(1, "s.t: column new STRING is new")]


@pytest.mark.parametrize(
    ("behavior", "record", "match"),
    [
        ("exception", {"id": 1, "x": 1}, "s.t: column x BIGINT is new, and schema.change.behavior is exception"),
        ("lenient", {"id": 1, "Name": "x"}, "column Name and column name of the target differ in their case only"),
    ],
    ids=["exception", "case"],
)
def test_what_cannot_be_followed_stops_at_its_record(behavior, record, match):
    with pytest.raises(DriftError, match=match) as caught:
        debezium(behavior=behavior).decode(raw(change({"id": 0}), change(record)))
    assert (caught.value.split, caught.value.offset) == (0, 101)


def test_ignore_follows_nothing():
    decoder = debezium(behavior="ignore")
    found = decoder.decode(raw(change({"id": 1, "x": 1, "Name": "y"})))
    assert (decoder.evolves, wants(found), found.rows.num_rows) == (False, [], 1)


def test_bytes_that_are_no_text_are_dead_letters_wherever_they_stand():
    good = json.dumps(change({"id": 1, "KEY": 5})).encode()
    for broken in (good.replace(b"KEY", b"\xff\xfe"), good.replace(b"5", b'"\xff"')):
        found = debezium().decode(raw(broken, change({"id": 2})))
        assert found.rejected.column(POSITION).to_pylist() == [0]
        assert (found.rows.column("id").to_pylist(), wants(found)) == ([2], [])


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("INT(11)", "INT"), ("int(10) unsigned", "BIGINT"), ("bigint(20) unsigned", "DECIMAL(20, 0)"),
        ("tinyint(1)", "TINYINT"), ("tinyint(3) unsigned", "SMALLINT"), ("bit(1)", "BIGINT"),
        ("decimal(10,2)", "DECIMAL(10, 2)"), ("decimal(65,30)", "STRING"), ("decimal", "DECIMAL(10, 0)"),
        ("varchar(255)", "VARCHAR(255)"), ("char(3)", "CHAR(3)"), ("longtext", "STRING"), ("enum('a','b')", "STRING"),
        ("json", "STRING"), ("datetime", "TIMESTAMP(0)"), ("timestamp(6)", "TIMESTAMP(6)"), ("date", "DATE"),
        ("time(3)", "TIME(3)"), ("year(4)", "INT"), ("double", "DOUBLE"), ("float", "FLOAT"), ("blob", None),
        ("varbinary(9)", None), ("point", None), ("whatever", "STRING"), ("", "STRING"),
    ],
)  # fmt: skip
def test_types_of_canal(text, kind):
    found = mysql_type(text)
    assert (None if found is None else str(found)) == kind


def test_a_look_takes_types_and_keys_out_of_samples():
    records = [
        (b'{"id": 1}', json.dumps(change({"id": 1, "v": 1, "when": None})).encode()),
        (b'{"id": 2}', json.dumps(change({"id": 2, "v": 1.5, "more": True})).encode()),
        (b"plain", json.dumps(change({"x": "y"}, "u")).encode()),
        (None, None), (None, b"no JSON"), (None, b"[]"), (None, b'{"source": {}}'),
    ]  # fmt: skip
    found = tables_in("debezium-json", records, has_schema=False)
    assert [(each.name, each.key, [f"{c.name} {c.type}" for c in each.columns]) for each in found] == [
        ("s.t", ("id",), ["id BIGINT NOT NULL", "v DOUBLE", "when STRING", "more BOOLEAN"]),
        ("s.u", (), ["x STRING"]),
    ]
    assert connect_columns("{}") == {}
    texts = tables_in("canal-json", [(None, json.dumps(canal({"id": "1"})).encode())], has_schema=False)
    assert [(each.name, each.key, list(each.kinds)) for each in texts] == [("s.t", (), ["id"])]
