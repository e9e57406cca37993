"""Format avro: bytes by the specification's examples, every type, every way in which a record can be bad."""

import datetime as dt
import json
import time
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from tests.formats.contract import DecoderContract, raw_table
from tests.formats.fix_avro import avro_decoder, csv_table, encode, outcome, record, sample, sample_columns
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.schema import LogicalType
from vector_assets.formats.avro import AvroDecoder, AvroOptions
from vector_assets.formats.avro_resolve import Resolver, row_of
from vector_assets.formats.avro_schema import of_table, parse
from vector_assets.formats.avro_values import numbers

moment = dt.datetime.fromisoformat


class TestAvroDecoder(DecoderContract):
    @pytest.fixture
    def decoder(self):
        return avro_decoder(*sample_columns())

    @pytest.fixture
    def good(self):
        return sample(3)[1]

    @pytest.fixture
    def bad(self):
        return sample(3)[1][:-2]


class TestAvroDecoderOfJson(DecoderContract):
    @pytest.fixture
    def decoder(self):
        return avro_decoder(("id", "BIGINT"), ("name", "STRING"), encoding="json")

    @pytest.fixture
    def good(self):
        return b'{"id": {"long": 7}, "name": null}'

    @pytest.fixture
    def bad(self):
        return b'{"id": 7, "name": null}'


def one(kind, data, **options):
    """What a record of one column gives: its value, or why there is none."""
    found = outcome(avro_decoder(("c", kind), **options).decode(raw_table([data])))[0]
    return found[0] if isinstance(found, tuple) else found


def test_a_signalling_nan_is_a_number_like_any_other():
    words = np.frombuffer(bytes.fromhex("0100807f"), np.float32)
    assert np.isnan(numbers(parse('"float"', "schema"), LogicalType("DOUBLE"))(words).values.to_numpy()).all()


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ("00", 0),
        ("01", -1),
        ("02", 1),
        ("03", -2),
        ("04", 2),
        ("7f", -64),
        ("8001", 64),
        ("fe ff ff ff 0f", 2**31 - 1),
        ("fe" + "ff" * 8 + "01", 2**63 - 1),
        ("ff" * 9 + "01", -(2**63)),
        ("80 80 80 80 80 80 80 80 01", 2**55),
    ],
)
def test_numbers_are_those_of_the_specification(data, value):
    assert one("BIGINT NOT NULL", bytes.fromhex(data)) == value


@pytest.mark.parametrize(
    ("kind", "data", "value"),
    [
        ("STRING NOT NULL", "06 66 6f 6f", "foo"),
        ("STRING", "02 02 61", "a"),
        ("STRING", "00", None),
        ("STRING NOT NULL", "00", ""),
        ("ARRAY<BIGINT NOT NULL> NOT NULL", "04 06 36 00", [3, 27]),
        ("ARRAY<BIGINT NOT NULL> NOT NULL", "03 04 06 36 00", [3, 27]),
        ("ARRAY<BIGINT NOT NULL> NOT NULL", "02 06 02 36 00", [3, 27]),
        ("ARRAY<BIGINT> NOT NULL", "06 02 06 00 02 36 00", [3, None, 27]),
        ("ARRAY<BIGINT> NOT NULL", "04 02 06 02 36 00", [3, 27]),
        ("ARRAY<STRING NOT NULL> NOT NULL", "04 02 61 04 62 63 00", ["a", "bc"]),
        ("ARRAY<FLOAT NOT NULL> NOT NULL", "04 00 00 80 3f 00 00 00 c0 00", [1.0, -2.0]),
        ("ARRAY<FLOAT> NOT NULL", "04 02 00 00 80 3f 00 00", [1.0, None]),
        ("MAP<STRING, INT NOT NULL> NOT NULL", "02 02 6b 02 00", [("k", 1)]),
        ("BOOLEAN NOT NULL", "01", True),
        ("DOUBLE NOT NULL", "00 00 00 00 00 00 f0 3f", 1.0),
        ("BYTES NOT NULL", "04 00 ff", b"\0\xff"),
        ("DATE NOT NULL", "02", dt.date(1970, 1, 2)),
        ("TIME(3) NOT NULL", "02", dt.time(0, 0, 0, 1000)),
        ("TIMESTAMP(3) NOT NULL", "02", moment("1970-01-01 00:00:00.001")),
        ("TIMESTAMP(3) NOT NULL", "01", moment("1969-12-31 23:59:59.999")),
        ("DECIMAL(5, 2) NOT NULL", "04 04 d2", Decimal("12.34")),
        ("DECIMAL(5, 2) NOT NULL", "02 ff", Decimal("-0.01")),
        ("ROW<a BIGINT NOT NULL, b STRING NOT NULL> NOT NULL", "36 06 66 6f 6f", {"a": 27, "b": "foo"}),
        ("TINYINT NOT NULL", "ff 01", -128),
    ],
)
def test_bytes_of_the_specification_are_their_values(kind, data, value):
    assert one(kind, bytes.fromhex(data)) == value


@pytest.mark.parametrize(
    ("kind", "data", "reason"),
    [
        ("BIGINT NOT NULL", "", "ends within the value"),
        ("BIGINT NOT NULL", "80", "ends within the value"),
        ("BIGINT NOT NULL", "ff" * 9 + "02", "more than 64 bits"),
        ("BIGINT NOT NULL", "ff" * 12, "more than 64 bits"),
        ("INT NOT NULL", "80 80 80 80 10", "more than 32 bits"),
        ("TINYINT NOT NULL", "80 02", "wanted TINYINT"),
        ("BIGINT NOT NULL", "02 02", "1 bytes follow the value"),
        ("BIGINT", "04 02", "the union has 2 branches"),
        ("BIGINT", "01 02", "the union has 2 branches"),
        ("STRING NOT NULL", "08 61", "ends within the value"),
        ("STRING NOT NULL", "01", "ends within the value"),
        ("STRING NOT NULL", "fe" + "ff" * 8 + "01", "ends within the value"),
        ("STRING NOT NULL", "02 ff", "wanted text in UTF-8"),
        ("BOOLEAN NOT NULL", "02", "wanted a boolean"),
        ("FLOAT NOT NULL", "00 00", "ends within the value"),
        ("ARRAY<FLOAT> NOT NULL", "fe ff ff ff 0f", "more items are announced"),
        ("ARRAY<BIGINT NOT NULL> NOT NULL", "04 06 80", "ends within"),
        ("ARRAY<BIGINT NOT NULL> NOT NULL", "04 06 06", "ends within"),
        ("ARRAY<STRING> NOT NULL", "ff" * 9 + "01", "ends within the value"),
        ("TIME(3) NOT NULL", "01", "a time of day"),
        ("DECIMAL(3, 2) NOT NULL", "04 04 d2", "wanted DECIMAL(3, 2)"),
        ("DECIMAL(3, 2) NOT NULL", "00", "wanted DECIMAL(3, 2)"),
        ("DECIMAL(38, 0) NOT NULL", "22 01" + "00" * 16, "wanted DECIMAL(38, 0)"),
        ("DECIMAL(38, 0) NOT NULL", "20 80" + "00" * 15, "wanted DECIMAL(38, 0)"),
    ],
)
def test_a_bad_record_is_rejected_with_the_column_and_its_neighbours_land(kind, data, reason):
    decoder = avro_decoder(("c", kind))
    (good,) = [one_of(kind)]
    found = outcome(decoder.decode(raw_table([good, bytes.fromhex(data), good])))
    assert isinstance(found[0], tuple)
    assert found[2] == found[0]
    assert reason in found[1]
    assert found[1].startswith("avro: column c") or "follow the value" in found[1]


def one_of(kind):
    """Some good record of one column."""
    goods = {"STRING": "02 61", "BOOLEAN": "01", "FLOAT": "00 00 00 00", "DECIMAL": "02 01", "ARRAY": "00"}
    bare = kind.partition("<")[0].partition("(")[0].partition(" ")[0]
    return bytes.fromhex(goods.get(bare, "00"))


def test_a_vector_with_and_without_nulls_and_of_several_lengths_is_whole():
    vectors = [[1.0] * 128, [0.5, None, 2.0], [], None, [float(n) for n in range(300)]]
    kind = ["null", {"type": "array", "items": ["null", "float"]}]
    data = encode(record(("c", kind)), *({"c": vector} for vector in vectors))
    rows = avro_decoder(("c", "ARRAY<FLOAT>")).decode(raw_table(data)).rows
    assert rows["c"].to_pylist() == vectors


def test_timestamps_of_the_new_mapping_are_micros_and_instants():
    moments = {"a": 1_700_000_000_123_456, "b": 1_700_000_000_123_456}
    kinds = [("a", {"type": "long"}), ("b", {"type": "long"})]
    data = encode(record(*kinds), moments)
    columns = [("a", "TIMESTAMP(6) NOT NULL"), ("b", "TIMESTAMP_LTZ(6) NOT NULL")]
    found = outcome(avro_decoder(*columns, **{"timestamp_mapping.legacy": "false"}).decode(raw_table(data)))
    wanted = moment("2023-11-14 22:13:20.123456")
    assert found[0] == (wanted, wanted.replace(tzinfo=dt.UTC))


@pytest.mark.parametrize("kind", ["TIMESTAMP(6)", "TIMESTAMP_LTZ(3)"])
def test_what_flink_s_legacy_mapping_refuses_is_refused_with_the_way_out(kind):
    with pytest.raises(ConfigError, match=r"column c of table t is .*'avro.timestamp_mapping.legacy'"):
        avro_decoder(("c", kind))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("TIME(6)", "TIME"), ("MAP<INT, INT>", "text as keys"), ("TIMESTAMP(9)", "up to six digits")],
)
def test_types_without_a_schema_are_refused_with_the_column(kind, reason):
    with pytest.raises(ConfigError, match=reason):
        avro_decoder(("c", kind), **{"timestamp_mapping.legacy": "false"})


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ({"avro.encoding": "xml"}, "avro.encoding"),
        ({"avro.codec": "lzo"}, "avro.codec"),
        ({"avro.timestamp_mapping.legacy": "yes"}, "want true or false"),
        ({"avro.encodng": "json"}, "did you mean 'avro.encoding'"),
    ],
)
def test_options_are_checked(raw, reason):
    with pytest.raises(ConfigError, match=reason):
        AvroOptions.parse(raw, "format avro")


def test_a_codec_is_reported_as_without_effect():
    assert "no effect" in AvroOptions.parse({"avro.codec": "snappy"}, "format avro").reports()[0]
    assert AvroOptions.parse({}, "format avro").reports() == ()


def test_the_json_encoding_is_read_with_its_tagged_unions():
    columns = [("a", "BIGINT"), ("b", "ARRAY<DOUBLE>"), ("c", "BYTES"), ("d", "MAP<STRING, INT>")]
    columns += [("e", "ROW<x STRING>"), ("f", "TIMESTAMP(3)"), ("g", "DECIMAL(4, 1)"), ("h", "BOOLEAN")]
    text = {
        "a": {"long": 2**62},
        "b": {"array": [{"double": 1}, None, {"double": 2.5}]},
        "c": {"bytes": "\u00ff\u0000"},
        "d": {"map": {"k": {"int": 3}}},
        "e": {"org.apache.flink.avro.generated.record_e": {"x": {"string": "ü"}}},
        "f": {"long": 1},
        "g": {"bytes": "\u007b"},
        "h": {"boolean": True},
    }
    row = (
        2**62,
        [1.0, None, 2.5],
        b"\xff\0",
        [("k", 3)],
        {"x": "ü"},
        moment("1970-01-01 00:00:00.001"),
        Decimal("12.3"),
        True,
    )
    bad = [b"{", b"[]", b'{"a": {"int": 1}}', b'{"a": {"long": 1.5}}', b'{"a": {"long": 99999999999999999999}}']
    found = outcome(avro_decoder(*columns, encoding="json").decode(raw_table([json.dumps(text).encode(), *bad])))
    assert found[0] == row
    assert all(found[place].startswith("avro: JSON: ") for place in range(1, 6)), found


def resolved(writer, reader, kind, values):
    """Values written with one schema of column c, read with another."""
    table = csv_table(("c", kind))
    decoder = AvroDecoder(AvroOptions.parse({}, "format avro"), csv_table(("c", "INT")))
    rows = decoder._rows
    rows.wanted = row_of(table)
    rows.schema = avro_schema(table)
    writer = record(*writer) if isinstance(writer, list) else writer
    given = parse(json.dumps(record(*reader)), "reader") if reader else of_table(table, "t", legacy=False)
    decoder._plan = Resolver().node(parse(json.dumps(writer), "writer"), given, rows.wanted, "the record")
    found = outcome(decoder.decode(raw_table(encode(writer, *values))))
    return [each[0] if isinstance(each, tuple) else each for _, each in sorted(found.items())]


def avro_schema(table):
    return table.schema.append(pa.field("_position", pa.int64(), nullable=False))


ENUM = {"type": "enum", "name": "e", "symbols": ["A", "B", "C"]}


@pytest.mark.parametrize(
    ("writer", "kind", "written", "read"),
    [
        ("int", "BIGINT", 5, 5),
        ("int", "DOUBLE", 5, 5.0),
        ("long", "FLOAT", 2**24, float(2**24)),
        ("float", "DOUBLE", 1.5, 1.5),
        ("string", "BYTES", "ü", "ü".encode()),
        ("bytes", "STRING", "ü".encode(), "ü"),
        (ENUM, "STRING", "B", "B"),
        ({"type": "fixed", "name": "f", "size": 3}, "BYTES", b"abc", b"abc"),
        (["string", "null"], "STRING", None, None),
        (["null", "int", "long"], "BIGINT", 2**40, 2**40),
        ("null", "STRING", None, None),
        ({"type": "long", "logicalType": "timestamp-micros"}, "TIMESTAMP(3)", 1_001_500, "1970-01-01 00:00:01.001000"),
        ({"type": "long", "logicalType": "timestamp-millis"}, "TIMESTAMP(6)", 1001, "1970-01-01 00:00:01.001000"),
        ({"type": "long", "logicalType": "local-timestamp-micros"}, "TIMESTAMP(6)", 1, "1970-01-01 00:00:00.000001"),
        ({"type": "long", "logicalType": "time-micros"}, "TIME(3)", 1500, dt.time(0, 0, 0, 1500)),
        (
            {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 1},
            "DECIMAL(9, 3)",
            Decimal("12.5"),
            Decimal("12.500"),
        ),
        (
            {"type": "fixed", "size": 20, "name": "d", "logicalType": "decimal", "precision": 9, "scale": 2},
            "DECIMAL(9, 1)",
            Decimal("-12.50"),
            Decimal("-12.5"),
        ),
    ],
    ids=str,
)
def test_a_writer_s_type_is_read_as_the_column_s(writer, kind, written, read):
    (found,) = resolved([("c", writer)], None, kind, [{"c": written}])
    assert (str(found) if isinstance(found, dt.datetime) else found) == read


@pytest.mark.parametrize(
    ("writer", "kind", "written", "reason"),
    [
        ("string", "INT", "5", "the writer's string cannot be read as int, wanted INT"),
        ("long", "INT", 5, "cannot be read"),
        ("double", "FLOAT", 5.0, "cannot be read"),
        (["int", "string"], "INT", "x", "the writer's string cannot be read"),
        (["null", "int"], "INT NOT NULL", None, "the record holds null, wanted INT NOT NULL"),
        ({"type": "long", "logicalType": "timestamp-millis"}, "TIMESTAMP(9)", 2**62, "64 bits"),
        (
            {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
            "DECIMAL(9, 1)",
            Decimal("1.25"),
            "without a digit lost",
        ),
    ],
    ids=str,
)
def test_a_value_that_the_column_cannot_take_is_rejected(writer, kind, written, reason):
    (found,) = resolved([("c", writer)], None, kind, [{"c": written}])
    assert reason in found
    assert "column c" in found


def test_fields_that_are_not_there_have_the_reader_s_default_and_others_are_passed_over():
    nested = record(("x", "string"), ("y", ["null", ENUM]), name="n")
    writer = [("a", {"type": "map", "values": nested}), ("b", {"type": "array", "items": "n"})]
    values = [{"a": {"k": {"x": "u", "y": "A"}}, "b": [{"x": "v", "y": None}] * 3}] * 2
    assert resolved(writer, None, "STRING", values) == [None, None]
    assert resolved(writer, [("c", "string", "none")], "STRING NOT NULL", values) == ["none", "none"]
    assert resolved(writer, [("c", {"type": "array", "items": "int"}, [1, 2])], "ARRAY<INT>", values) == [[1, 2]] * 2
    assert "no default" in resolved(writer, None, "STRING NOT NULL", values)[0]


def test_a_reader_s_alias_names_a_writer_s_field():
    reader = {"name": "c", "type": "string", "aliases": ["old"]}
    given = {"type": "record", "name": "t", "fields": [reader]}
    table = csv_table(("c", "STRING"))
    node = Resolver().node(
        parse(json.dumps(record(("old", "string"))), "w"), parse(json.dumps(given), "r"), row_of(table), "x"
    )
    assert node.outputs == [0]


def test_a_reader_s_enum_decides_over_symbols():
    reader = [("c", {"type": "enum", "name": "e", "symbols": ["A", "X"], "default": "X"})]
    assert resolved([("c", ENUM)], reader, "STRING", [{"c": "A"}, {"c": "B"}]) == ["A", "X"]
    reader = [("c", {"type": "enum", "name": "e", "symbols": ["A"]})]
    assert "no default" in resolved([("c", ENUM)], reader, "STRING", [{"c": "B"}])[0]


def test_a_schema_that_refers_to_itself_is_passed_over_and_its_depth_bounded():
    chain = {"type": "record", "name": "chain", "fields": [{"name": "next", "type": ["null", "chain"]}]}

    def deep(levels):
        return None if levels == 0 else {"next": deep(levels - 1)}

    values = [{"chain": deep(1), "c": 1}, {"chain": deep(40), "c": 2}, {"chain": deep(90), "c": 3}]
    found = resolved([("chain", chain), ("c", "int")], None, "INT", values)
    assert found[:2] == [1, 2]
    assert "deep" in found[2]


def test_a_hostile_record_costs_little():
    """Counts, lengths and depths that a record only announces reserve nothing."""
    decoder = avro_decoder(("c", "ARRAY<STRING>"), ("d", "MAP<STRING, ARRAY<INT>>"))
    bad = [
        b"\x02" + b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01" * 20,
        b"\x02" * 5000,
        bytes([2, 1, 0]) * 4000,
        b"\xff" * 999,
    ]
    started = time.perf_counter()
    decoded = decoder.decode(raw_table(bad * 50))
    assert decoded.rejected.num_rows == 200
    assert time.perf_counter() - started < 20


def test_seed_columns_are_inserts_of_the_declared_types():
    rows = avro_decoder(*sample_columns()).decode(raw_table(sample(10))).rows
    assert rows.column_names == ["id", "market_time", "color", "price", "feature", "_position"]
    assert rows["price"].to_pylist()[:2] == [None, 3]
