"""Formats without an encoder of their own kind elsewhere: what the standard library writes, our decoders read back."""

import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.contract import raw_table
from vector_assets.declare import compile_script
from vector_assets.engine.core import KIND

NUMBERS = {
    "TINYINT": ("b", st.integers(-(2**7), 2**7 - 1)),
    "SMALLINT": ("h", st.integers(-(2**15), 2**15 - 1)),
    "INT": ("i", st.integers(-(2**31), 2**31 - 1)),
    "BIGINT": ("q", st.integers(-(2**63), 2**63 - 1)),
    "FLOAT": ("f", st.floats(width=32, allow_nan=False)),
    "DOUBLE": ("d", st.floats(allow_nan=False)),
}
KAFKA = "'properties.bootstrap.servers' = 'x:9092', 'topic' = 't'"
SCRIPT = (
    "CREATE TABLE s ({columns}) WITH ({options}); CREATE TABLE n ({columns}) WITH ('connector' = 'blackhole');"
    " INSERT INTO n SELECT * FROM s;"
)


def decoder_of(columns: str, options: str):
    (pipeline,) = compile_script(SCRIPT.format(columns=columns, options=options), "s.sql")
    return pipeline.decoder


@pytest.mark.parametrize("order", ["big", "little"])
@pytest.mark.parametrize("kind", NUMBERS)
def test_raw_numbers_are_what_struct_packs(kind: str, order: str) -> None:
    code, values = NUMBERS[kind]
    options = f"'connector' = 'kafka', {KAFKA}, 'scan.startup.mode' = 'earliest-offset', 'format' = 'raw'"
    decoder = decoder_of(f"v {kind}", f"{options}, 'raw.endianness' = '{order}-endian'")

    @settings(max_examples=30)
    @given(st.lists(st.none() | values, max_size=20))
    def check(wanted) -> None:
        packed = [None if each is None else struct.pack(f"{'><'[order == 'little']}{code}", each) for each in wanted]
        decoded = decoder.decode(raw_table(packed))
        assert decoded.rows["v"].to_pylist() == wanted
        assert decoded.rejected.num_rows == 0

    check()


@pytest.mark.parametrize(
    ("charset", "codec"), [("UTF-8", "utf-8"), ("UTF-16LE", "utf-16-le"), ("ISO-8859-1", "latin-1")]
)
def test_raw_texts_are_what_python_encodes(charset: str, codec: str) -> None:
    options = f"'connector' = 'kafka', {KAFKA}, 'scan.startup.mode' = 'earliest-offset', 'format' = 'raw'"
    decoder = decoder_of("v STRING", f"{options}, 'raw.charset' = '{charset}'")
    letters = st.characters(max_codepoint=255) if codec == "latin-1" else st.characters(exclude_categories=["Cs"])

    @settings(max_examples=30)
    @given(st.lists(st.none() | st.text(letters), max_size=20))
    def check(wanted) -> None:
        decoded = decoder.decode(raw_table([None if each is None else each.encode(codec) for each in wanted]))
        assert decoded.rows["v"].to_pylist() == wanted

    check()


def test_keys_and_values_of_upserts_are_what_json_dumps() -> None:
    options = f"'connector' = 'upsert-kafka', {KAFKA}, 'key.format' = 'json', 'value.format' = 'json'"
    decoder = decoder_of(
        "id BIGINT, part STRING, name STRING, PRIMARY KEY (id, part) NOT ENFORCED",
        f"{options}, 'value.fields-include' = 'EXCEPT_KEY'",
    )
    row = st.tuples(st.integers(-(2**63), 2**63 - 1), st.text(), st.none() | st.text(), st.booleans())

    @settings(max_examples=60)
    @given(st.lists(row, max_size=20))
    def check(wanted) -> None:
        keys = [json.dumps({"part": part, "id": number}).encode() for number, part, _, _ in wanted]
        values = [None if gone else json.dumps({"name": name}).encode() for *_, name, gone in wanted]
        raw = raw_table(values)
        raw = raw.set_column(raw.column_names.index("key"), "key", [keys] if keys else raw.column("key"))
        rows = decoder.decode(raw).rows
        found = list(zip(*(rows[name].to_pylist() for name in ("id", "part", "name", KIND)), strict=True))
        assert found == [
            (number, part, None if gone else name, 3 if gone else 2) for number, part, name, gone in wanted
        ]

    check()
