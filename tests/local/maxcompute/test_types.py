"""All types of the seed: to the server and back, by records and by Arrow; and the text of types."""

import datetime as dt
from decimal import Decimal

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odps import options
from odps.apis.storage_api import StorageApiArrowClient, TableBatchScanRequest
from odps.tunnel.io.types import odps_schema_to_arrow_schema

from vector_assets.local.maxcompute.refusal import Refusal
from vector_assets.local.maxcompute.types import Type, of_arrow, parse


def moment(text):
    return dt.datetime.fromisoformat(text)


STAMP = pd.Timestamp("2018-09-05 12:34:56.123456789")
VALUES = {
    "BOOLEAN": [True, False],
    "TINYINT": [-128, 127],
    "SMALLINT": [-32768, 32767],
    "INT": [-(2**31), 2**31 - 1],
    "BIGINT": [-(2**63) + 1, 2**63 - 1],
    "FLOAT": [-1.5, 2.0**100],
    "DOUBLE": [-1.25e-300, 1e308],
    "DECIMAL(10,2)": [Decimal("-12345678.90"), Decimal("0.01")],
    "CHAR(3)": ["abc", "中  "],
    "VARCHAR(5)": ["", "中文abc"],
    "STRING": ["", "a\u0001中" * 1000],
    "BINARY": [b"", b"\x00\xff" * 50],
    "DATE": [dt.date(1, 1, 1), dt.date(9999, 12, 31)],
    "DATETIME": [moment("1969-12-31T23:59:59.999"), moment("2018-09-05T12:00:00.001")],
    "TIMESTAMP": [STAMP, pd.Timestamp("1969-12-31 23:59:59.999999999")],
    "TIMESTAMP_NTZ": [STAMP, pd.Timestamp("1700-01-01 00:00:00.000000001")],
    "ARRAY<STRING>": [["a", None, ""], []],
    "MAP<STRING,BIGINT>": [{"a": 1, "b": None}, {}],
    "STRUCT<a:BIGINT,b:ARRAY<DECIMAL(5,1)>>": [{"a": 1, "b": [Decimal("1.5")]}, {"a": None, "b": None}],
    "JSON": [{"a": [1, None, "x"]}, [1]],
}
WITHOUT_ARROW = "JSON"
COLUMNAR = "TBLPROPERTIES ('columnar.nested.type'='true')"


@pytest.fixture
def _utc():
    before = options.local_timezone, options.allow_antique_date
    options.local_timezone, options.allow_antique_date = False, True
    yield
    options.local_timezone, options.allow_antique_date = before


def ready(kind, value):
    return value.replace(tzinfo=dt.UTC) if kind == "DATETIME" and isinstance(value, dt.datetime) else value


def plain(value):
    if hasattr(value, "_asdict"):
        return value._asdict()
    return value.replace(tzinfo=None) if isinstance(value, dt.datetime) else value


@pytest.mark.usefixtures("_utc")
def test_all_types_round_trip_by_records(maxcompute):
    names = [f"c{number}" for number in range(len(VALUES))]
    columns = ", ".join(f"{name} {kind}" for name, kind in zip(names, VALUES, strict=True))
    table = maxcompute.table(columns, COLUMNAR)
    assert len(VALUES) == 20
    rows = [[ready(kind, found[place]) for kind, found in VALUES.items()] for place in (0, 1)]
    rows.append([None] * len(VALUES))
    session = maxcompute.tunnel().create_upload_session(table)
    with session.open_record_writer(0) as writer:
        for row in rows:
            writer.write(session.new_record(row))
    session.commit([0])
    down = maxcompute.tunnel().create_download_session(table)
    with down.open_record_reader(0, 3) as reader:
        found = [list(record.values) for record in reader]
    for kind, *got in zip(VALUES, *found, strict=True):
        # what is shorter than a CHAR is padded, as "中" would be
        expected = [*(plain(value) for value in VALUES[kind]), None]
        assert [plain(value) for value in got] == expected, kind


@pytest.mark.usefixtures("_utc")
def test_all_types_but_json_round_trip_by_arrow(maxcompute):
    kinds = [kind for kind in VALUES if kind != WITHOUT_ARROW]
    columns = ", ".join(f"c{number} {kind}" for number, kind in enumerate(kinds))
    table = maxcompute.table(columns, COLUMNAR)
    schema = odps_schema_to_arrow_schema(table.table_schema)
    arrays = []
    for kind, part in zip(kinds, schema, strict=True):
        values = [list(v.items()) if isinstance(v, dict) and kind.startswith("MAP") else v for v in VALUES[kind]]
        arrays.append(pa.array([*values, None], part.type))
    rows = pa.table(arrays, schema)
    session = maxcompute.tunnel().create_upload_session(table)
    with session.open_arrow_writer(0) as writer:
        writer.write(rows)
    session.commit([0])
    down = maxcompute.tunnel().create_download_session(table)
    with down.open_arrow_reader(0, 3) as reader:
        found = pa.table(reader.read())
    for name in schema.names:
        assert found.column(name).to_pylist() == rows.column(name).to_pylist(), name


def test_nested_columns_have_an_arrow_form_only_in_tables_that_store_them_in_columns(maxcompute):
    told = r"tags array<string>.*tblproperties\('columnar.nested.type'='true'\)"
    table = maxcompute.table("id bigint, tags array<string>")
    tunnel = maxcompute.tunnel()
    upload = tunnel.create_upload_session(table)
    with upload.open_record_writer(0) as writer:
        writer.write(upload.new_record([1, ["a"]]))
    upload.commit([0])
    down = tunnel.create_download_session(table)
    with down.open_record_reader(0, 1) as reader:
        assert [list(record.values) for record in reader] == [[1, ["a"]]]
    with pytest.raises(Exception, match=told), down.open_arrow_reader(0, 1) as reader:
        reader.read()
    with down.open_arrow_reader(0, 1, columns=["id"]) as reader:
        assert pa.table(reader.read()).to_pydict() == {"id": [1]}
    storage = StorageApiArrowClient(maxcompute.odps, table)
    with pytest.raises(Exception, match=told):
        storage.create_read_session(TableBatchScanRequest())
    again = tunnel.create_upload_session(table)
    rows = pa.table({"id": [2], "tags": [["b"]]}, odps_schema_to_arrow_schema(table.table_schema))
    with pytest.raises(Exception, match=told), again.open_arrow_writer(0) as writer:
        writer.write(rows)


def test_lengths_and_nulls_are_checked(maxcompute):
    table = maxcompute.table("v VARCHAR(2), n BIGINT NOT NULL")
    for value, text in (
        ({"v": ["abc"], "n": [1]}, "VARCHAR|varchar"),
        ({"v": ["a"], "n": [None]}, "NOT NULL"),
    ):
        session = maxcompute.tunnel().create_upload_session(table)
        with session.open_arrow_writer(0) as writer:
            writer.write(pa.table(value, pa.schema([("v", pa.string()), ("n", pa.int64())])))
        with pytest.raises(Exception, match=text):
            session.commit([0])


SIMPLE = st.sampled_from(["bigint", "string", "decimal(10,2)", "timestamp_ntz", "varchar(3)", "boolean", "json"])
NESTED = st.recursive(
    SIMPLE,
    lambda inner: st.one_of(
        inner.map("array<{}>".format),
        inner.map("map<string,{}>".format),
        st.tuples(inner, inner).map(lambda pair: f"struct<a:{pair[0]},`b c`:{pair[1]}>"),
    ),
    max_leaves=5,
)


@settings(max_examples=50, deadline=None)
@given(NESTED)
def test_the_text_of_a_type_is_read_back(text):
    kind = parse(text)
    assert str(kind) == text
    assert parse(text.upper().replace("B C", "b c").replace("A:", "a:")) == kind
    if not kind.has_json:
        assert of_arrow(kind.arrow).arrow == kind.arrow


@pytest.mark.parametrize(
    "text", ["", "what", "decimal(39,2)", "decimal(5,6)", "varchar", "bigint(3)", "array<bigint", "array<>", "a b"]
)
def test_texts_that_are_no_types_are_refused(text):
    with pytest.raises(Refusal):
        parse(text)


def test_decimals_have_the_service_s_defaults():
    assert parse("decimal").arrow == pa.decimal128(38, 18)
    assert parse("DECIMAL(7)") == Type("decimal", (7, 0))
