"""Bytes on the wire, against pyodps's own encoder, hasher and framing."""

import datetime as dt
import decimal
import io

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vector_assets.clients.maxcompute import MaxColumn
from vector_assets.clients.maxcompute_hash import buckets_of, digest, split_by
from vector_assets.clients.maxcompute_records import changes, form_of
from vector_assets.clients.maxcompute_write import _packed, arrow_body
from vector_assets.engine.errors import PlanError
from vector_assets.engine.schema import LogicalType

KEYS = {
    "BIGINT": st.integers(-(2**63), 2**63 - 1),
    "INT": st.integers(-(2**31), 2**31 - 1),
    "VARCHAR": st.text(max_size=12),
    "DOUBLE": st.floats(allow_nan=False),
    "FLOAT": st.floats(width=32, allow_nan=False),
    "BOOLEAN": st.booleans(),
    "DATE": st.dates(dt.date(1900, 1, 1), dt.date(2200, 1, 1)),
}


def column(name: str, kind: str) -> MaxColumn:
    return MaxColumn(name, LogicalType(kind), kind.lower())


def pyodps_bucket(values, kinds, count, hasher):
    from odps import types
    from odps.tunnel.hasher import RecordHasher

    names = {"VARCHAR": "string"}
    columns = [types.Column(f"c{at}", names.get(kind, kind.lower())) for at, kind in enumerate(kinds)]
    schema = types.OdpsSchema(columns)
    found = RecordHasher(schema, hasher, [each.name for each in columns]).hash_list(list(values))
    return found % count


@pytest.mark.parametrize("hasher", ["default", "legacy"])
@pytest.mark.parametrize("kinds", [(kind,) for kind in KEYS] + [("BIGINT", "VARCHAR")], ids=str)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_buckets_are_those_of_pyodps(hasher, kinds, data):
    rows = data.draw(st.lists(st.tuples(*(st.none() | KEYS[kind] for kind in kinds)), min_size=1, max_size=8))
    columns = [column(f"c{at}", kind) for at, kind in enumerate(kinds)]
    table = pa.table(
        {each.name: pa.array([row[at] for row in rows], each.type.arrow) for at, each in enumerate(columns)}
    )
    found = buckets_of(table, columns, 7, hasher).tolist()
    assert found == [pyodps_bucket(row, kinds, 7, hasher) for row in rows]


# hash, then mixed, of the SDK for Java (odps-sdk-core, TypeHasherTest), which says that the service's are the same
JAVA = [
    ("0", 18, 2, 0), ("1", 18, 2, 1402234471), ("-1", 18, 2, 1402248358), ("3.22", 9, 2, 730530999),
    ("-12.34", 18, 2, 903683925), ("4.9", 18, 2, 705872983), ("-6.4", 9, 2, 1260954707),
    ("0", 38, 18, 0), ("1", 38, 18, 417516194), ("-1", 38, 18, 844823011), ("3.22", 38, 18, 770627554),
    ("-3.22", 38, 18, 1351109479), ("-2.5", 38, 18, 1713794995), ("4.9", 38, 18, 1257197420),
    ("6.4", 38, 18, 1853741007), ("-6.4", 38, 18, 694953719),
]  # fmt: skip


def decimals(precision: int, scale: int, *texts: str | None) -> tuple[pa.Table, list[MaxColumn]]:
    kind = LogicalType("DECIMAL", precision, scale)
    values = [None if text is None else decimal.Decimal(text) for text in texts]
    return pa.table({"a": pa.array(values, kind.arrow)}), [MaxColumn("a", kind, f"decimal({precision},{scale})")]


@pytest.mark.parametrize(("text", "precision", "scale", "mixed"), JAVA)
def test_buckets_of_decimals_are_those_of_the_sdk_for_java(text, precision, scale, mixed):
    rows, columns = decimals(precision, scale, "7", text, None)
    found = buckets_of(rows.slice(1), columns, 2**31).tolist()
    assert found == [mixed, 0]


@settings(max_examples=40, deadline=None)
@given(value=st.integers(0, 2**64 - 1), scale=st.integers(1, 12))
def test_buckets_of_decimals_with_digits_after_the_point_are_those_of_pyodps(value, scale):
    rows, columns = decimals(38, scale, str(decimal.Decimal(value).scaleb(-scale)))
    assert buckets_of(rows, columns, 7).tolist() == [
        pyodps_bucket([rows["a"][0].as_py()], [f"decimal(38,{scale})"], 7, "default")
    ]


def test_a_key_or_a_hasher_that_is_not_known_is_refused():
    rows = pa.table({"a": pa.array([1], pa.int64())})
    with pytest.raises(PlanError, match="murmur"):
        buckets_of(rows, [column("a", "BIGINT")], 4, "murmur")
    with pytest.raises(PlanError, match="a is map"):
        buckets_of(rows, [MaxColumn("a", LogicalType("MAP"), "map<int,int>")], 4)
    rows, columns = decimals(20, 0, "1")
    with pytest.raises(PlanError, match=r"a is decimal\(20,0\); keys may be by the service's legacy hasher: BIGINT"):
        buckets_of(rows, columns, 4, "legacy")


def test_an_arrow_body_under_zlib_is_whole():
    """pyodps's BufferedArrowWriter sends what its compressor had given so far: a body cut short."""
    import zlib

    import snappy

    from vector_assets.local.maxcompute.frames import unframe

    rows = pa.table({"a": np.arange(50_000), "b": [f"text {at % 97}" for at in range(50_000)]})
    body = arrow_body(rows.to_batches(max_chunksize=512))
    assert unframe(zlib.decompress(_packed(body, "ZLIB")), rows.schema).equals(rows)
    assert snappy.StreamDecompressor().decompress(_packed(body, "SNAPPY")) == body
    assert _packed(body, "RAW") == body
    assert unframe(arrow_body([]), rows.schema).num_rows == 0


@pytest.mark.parametrize(("operation", "places"), [("U", ()), ("D", ()), ("U", (0, 2))], ids=str)
def test_changes_are_read_back_by_pyodps(operation, places):
    from odps import types
    from odps.tunnel.io.reader import TunnelRecordReader

    rows = pa.table({"a": pa.array([1, None, -3]), "b": ["x", "", None], "c": pa.array([1.5, None, 2.0])})
    forms = [form_of(LogicalType(name)) for name in ("BIGINT", "VARCHAR", "DOUBLE")]
    body = changes(rows, forms, operation, places)
    own = [("a", "bigint"), ("b", "string"), ("c", "double")]
    extra = [
        ("__version", "bigint"), ("__app_version", "bigint"), ("__operation", "tinyint"),
        ("__key_cols", "array<bigint>"), ("__value_cols", "array<bigint>"),
    ]  # fmt: skip
    schema = types.OdpsSchema([types.Column(name, kind) for name, kind in own + extra])
    with TunnelRecordReader(schema, lambda *_, **__: io.BytesIO(body)) as reader:
        found = [list(record.values) for record in reader]
    plain = [list(row) for row in zip(*(rows.column(at).to_pylist() for at in range(3)), strict=True)]
    assert found == [[*row, None, None, ord(operation), None, list(places)] for row in plain]


def test_rows_are_split_by_number_in_their_order():
    rows = pa.table({"a": [0, 1, 2, 3]})
    found = split_by(np.array([1, 0, 1, 5]), rows)
    assert {number: part.column("a").to_pylist() for number, part in found.items()} == {0: [1], 1: [0, 2], 5: [3]}


def test_equal_rows_have_equal_digests_however_they_lie_in_memory():
    rows = pa.table({"a": [1, None, 3], "b": ["x", None, "zz"], "c": [None, dt.date(2020, 1, 1), None]})
    longer = pa.concat_tables([rows.slice(2), rows])
    assert digest(longer.slice(1)) == digest(rows)
    assert digest(rows.slice(1)) != digest(rows)
    assert digest(rows.set_column(1, "b", pa.array(["x", "", "zz"]))) != digest(rows)
