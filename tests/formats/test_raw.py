"""Format raw: values as bytes of one column."""

import struct

import pytest

from tests.formats.contract import DecoderContract, check_counts, raw_table
from tests.formats.fix_csv import csv_table, outcome
from vector_assets.engine.errors import ConfigError
from vector_assets.formats.raw import RawDecoder, RawOptions


def raw_decoder(kind: str, **options: str) -> RawDecoder:
    spelled = {f"raw.{name}": value for name, value in options.items()}
    return RawDecoder(RawOptions.parse(spelled, "format raw"), csv_table(("v", kind)))


class TestNumbers(DecoderContract):
    @pytest.fixture
    def decoder(self) -> RawDecoder:
        return raw_decoder("BIGINT")

    @pytest.fixture
    def good(self) -> bytes:
        return struct.pack(">q", -(2**63))

    @pytest.fixture
    def bad(self) -> bytes:
        return b"1234567"


class TestTexts(DecoderContract):
    @pytest.fixture
    def decoder(self) -> RawDecoder:
        return raw_decoder("STRING NOT NULL")

    @pytest.fixture
    def good(self) -> bytes:
        return "grün".encode()

    @pytest.fixture
    def bad(self) -> bytes:
        return "grün".encode("latin-1")


class TestCharset(DecoderContract):
    @pytest.fixture
    def decoder(self) -> RawDecoder:
        return raw_decoder("STRING", charset="GBK")

    @pytest.fixture
    def good(self) -> bytes:
        return "向量".encode("gbk")

    @pytest.fixture
    def bad(self) -> bytes:
        return b"\xff\xff"


@pytest.mark.parametrize(
    ("kind", "code", "value"),
    [
        ("BOOLEAN", "?", True),
        ("BOOLEAN", "?", False),
        ("TINYINT", "b", -128),
        ("SMALLINT", "h", -2),
        ("INT", "i", 2**31 - 1),
        ("BIGINT", "q", -3),
        ("FLOAT", "f", 0.5),
        ("DOUBLE", "d", 0.1),
    ],
)
@pytest.mark.parametrize("order", ["big-endian", "little-endian"])
def test_numbers_are_read_in_the_declared_order_of_bytes(kind: str, code: str, value: object, order: str) -> None:
    data = struct.pack((">" if order == "big-endian" else "<") + code, value)
    raw = raw_table([data, None, data + b"\0", data[:-1], data])
    decoded = raw_decoder(kind, endianness=order).decode(raw)
    check_counts(decoded, raw)
    assert outcome(decoded) == {
        0: (value,),
        1: (None,),
        2: f"raw: column v: found {len(data) + 1} bytes, wanted {len(data)} for {kind}",
        3: f"raw: column v: found {len(data) - 1} bytes, wanted {len(data)} for {kind}",
        4: (value,),
    }


def test_any_byte_but_zero_is_true_as_in_flink() -> None:
    assert outcome(raw_decoder("BOOLEAN").decode(raw_table([b"\x02", b"\xff"]))) == {0: (True,), 1: (True,)}


@pytest.mark.parametrize("kind", ["BYTES", "BINARY(3)", "VARBINARY(2)"])
def test_bytes_are_what_the_record_holds(kind: str) -> None:
    values = [b"\0\xff", b"", None]
    found = outcome(raw_decoder(kind).decode(raw_table(values)))
    assert found == {place: (value,) for place, value in enumerate(values)}


@pytest.mark.parametrize("charset", ["UTF-8", "utf8", "UTF-16", "ISO-8859-1", "windows-1252", "US-ASCII", "Shift_JIS"])
def test_texts_are_read_in_their_character_set(charset: str) -> None:
    text = "\u3042" if charset == "Shift_JIS" else "ab" if charset == "US-ASCII" else "\u00e9\u00fc"
    found = outcome(raw_decoder("STRING", charset=charset).decode(raw_table([text.encode(charset), b"", None])))
    assert found == {0: (text,), 1: ("",), 2: (None,)}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ([("a", "INT"), ("b", "INT")], r"has 2 physical columns \(a, b\), wanted exactly one"),
        ([], "has no physical column"),
        ([("a", "TIMESTAMP(3)")], r"column a is TIMESTAMP\(3\); known types: STRING, BYTES"),
        ([("a", "ARRAY<INT>")], "column a is ARRAY<INT>"),
    ],
)
def test_tables_that_no_value_fills_are_refused(columns: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RawDecoder(RawOptions.parse({}, "format raw"), csv_table(*columns))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("raw.charset", "UTF-9", "want a character set that is known here.*found 'UTF-9'"),
        ("raw.charset", "hex", "want a character set"),
        ("raw.endianness", "big", "'big-endian' or 'little-endian'"),
        ("raw.endian", "big", "did you mean 'raw.endianness'"),
    ],
)
def test_a_wrong_option_is_refused(name: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RawOptions.parse({name: value}, "format raw")
