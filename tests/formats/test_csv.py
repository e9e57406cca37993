"""The csv decoder as a pipeline sees it: rows, rejects with reasons, counts."""

import resource

import pyarrow as pa
import pytest

from tests.formats.contract import DecoderContract, check_counts, raw_table
from tests.formats.fix_csv import csv_decoder, outcome, seed_columns, seed_line, value_of
from vector_assets.engine.core import POSITION
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.schema import Column, LogicalType, Table
from vector_assets.formats.csv import CsvDecoder, CsvOptions

MIB = 1024**2


class TestSeedSchema(DecoderContract):
    @pytest.fixture
    def decoder(self) -> CsvDecoder:
        return csv_decoder(*seed_columns(), field_delimiter=r"\t")

    @pytest.fixture
    def good(self) -> bytes:
        return seed_line(5)

    @pytest.fixture
    def bad(self) -> bytes:
        return seed_line(5).replace(b"5\t", b"3000000000\t", 1)


class TestQuotedRecords(DecoderContract):
    @pytest.fixture
    def decoder(self) -> CsvDecoder:
        return csv_decoder(("a", "STRING"), ("b", "ARRAY<INT>"), null_literal="-")

    @pytest.fixture
    def good(self) -> bytes:
        return b'"two\nlines, ""quoted""",1;2;-\r\n'

    @pytest.fixture
    def bad(self) -> bytes:
        return b'"not closed,1'


def test_rows_have_the_declared_types_and_nullability() -> None:
    rows = csv_decoder(("id", "BIGINT NOT NULL"), ("at", "TIMESTAMP(3)"), ("name", "STRING")).decode(raw_table([])).rows
    assert rows.schema == pa.schema(
        [
            pa.field("id", pa.int64(), nullable=False),
            pa.field("at", pa.timestamp("ms")),
            pa.field("name", pa.string()),
            pa.field(POSITION, pa.int64(), nullable=False),
        ]
    )


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        pytest.param(None, "csv: null value (a tombstone); csv has no deletes", id="null"),
        pytest.param(b"", "csv: empty value", id="empty"),
        pytest.param(b"1\t2024-05-01 10:00:00\tred", "csv: found 3 columns, wanted 5", id="cut line"),
        pytest.param(b"1\t2\t3\t4\t5\t6", "csv: found 6 columns, wanted 5", id="too many columns"),
        pytest.param(b"\xff" + seed_line(1), "csv: bad UTF-8", id="bad utf-8"),
        pytest.param(seed_line(1) + b"\xc3", "csv: bad UTF-8", id="character cut in two"),
        pytest.param(
            seed_line(1).replace(b"1\t", b"3000000000\t", 1),
            "csv: column id: found '3000000000', wanted INT",
            id="number out of range",
        ),
        pytest.param(
            seed_line(1).replace(b"05-02", b"02-30"),
            "csv: column market_time: found '2024-02-30 10:01:30', wanted TIMESTAMP(6)",
            id="no such day",
        ),
        pytest.param(
            seed_line(1).replace(b"red\t7", b"red\t7.5"),
            "csv: column price: found '7.5', wanted INT",
            id="fraction in an INT",
        ),
        pytest.param(
            seed_line(1) + b"\n" + seed_line(2),
            "csv: a second line in the record (Flink would drop it); wanted one row",
            id="two lines",
        ),
        pytest.param(
            seed_line(1).replace(b"red", b'"red'), "csv: a quoted value is not closed (a cut line?)", id="lone quote"
        ),
        pytest.param(
            seed_line(1).replace(b"red", b'"red"x'),
            "csv: found 'x' after a closing quote, wanted the delimiter '\\t'",
            id="text after a quote",
        ),
        pytest.param(
            "1\t2\t".encode("utf-16-le"),
            "csv: a NUL byte in front: looks like UTF-16 or UTF-32, wanted UTF-8",
            id="utf-16",
        ),
    ],
)
def test_a_bad_record_is_rejected_with_its_reason_and_its_neighbours_land(record: bytes | None, reason: str) -> None:
    raw = raw_table([seed_line(10), record, seed_line(11)], first=100, step=10)
    decoded = csv_decoder(*seed_columns(), field_delimiter="\t").decode(raw)
    check_counts(decoded, raw)
    assert outcome(decoded)[110] == reason
    assert decoded.rows["id"].to_pylist() == [10, 11]
    assert decoded.rows[POSITION].to_pylist() == [100, 120]


def test_the_first_bad_column_is_named_and_a_long_value_is_cut() -> None:
    found = outcome(csv_decoder(("a", "INT"), ("b", "INT")).decode(raw_table([b"x" * 500 + b",y"])))
    assert found == {0: f"csv: column a: found '{'x' * 60}', wanted INT"}


@pytest.mark.parametrize("record", [b"1,\n", b"1,\r\n", b"1,\n\n", b"1,,", b"1,, \t", b"\xef\xbb\xbf1,", b"1,\r"])
def test_line_ends_a_last_delimiter_and_a_byte_order_mark_are_not_data(record: bytes) -> None:
    assert outcome(csv_decoder(("a", "INT"), ("b", "STRING")).decode(raw_table([record] * 3))) == dict.fromkeys(
        range(3), (1, "")
    )


def test_a_quoted_value_may_hold_line_ends_delimiters_and_quotes() -> None:
    record = b'"a\r\nb","c,d","e""f"'
    decoder = csv_decoder(("x", "STRING"), ("y", "STRING"), ("z", "STRING"))
    assert outcome(decoder.decode(raw_table([b"1,2,3", record, b"4,5,6"])))[1] == ("a\r\nb", "c,d", 'e"f')


def test_a_quote_inside_a_plain_value_is_an_ordinary_character() -> None:
    assert outcome(csv_decoder(("a", "STRING"), ("b", "STRING")).decode(raw_table([b'a"b",c'])))[0] == ('a"b"', "c")


def test_escapes_take_away_special_meaning() -> None:
    decoder = csv_decoder(("a", "STRING"), ("b", "STRING"), escape_character="\\")
    records = [rb"a\,b,c", rb'"a\"b",c', rb"a\nb,\t\0", b"a,b\\", rb"\\a,b"]
    assert list(outcome(decoder.decode(raw_table(records))).values()) == [
        ("a,b", "c"),
        ('a"b', "c"),
        ("a\nb", "\t\0"),
        ("\\a", "b"),
        "csv: the record ends in an escape character (a cut line?)",
    ]


def test_a_delimiter_need_not_be_ascii() -> None:
    decoder = csv_decoder(("a", "STRING"), ("b", "STRING"), field_delimiter="\u00a6")
    records = ["1\u00a62", '"x\u00a6y"\u00a6z', "a\x1fb\u00a6c"]
    found = outcome(decoder.decode(raw_table([record.encode() for record in records])))
    assert list(found.values()) == [("1", "2"), ("x\u00a6y", "z"), ("a\x1fb", "c")]


def test_the_null_literal_is_null_quoted_or_not_and_inside_arrays() -> None:
    decoder = csv_decoder(("a", "INT"), ("b", "STRING"), ("c", "ARRAY<INT>"), null_literal="NA")
    found = outcome(decoder.decode(raw_table([b'NA,"NA",1;NA', b"1,NAN,NA"])))
    assert found == {0: (None, None, [1, None]), 1: (1, "NAN", [None])}


def test_an_empty_field_is_an_empty_string_and_no_number() -> None:
    assert value_of("STRING", "") == ""
    assert value_of("INT", "") == "csv: column c: found '', wanted INT"
    assert value_of("INT", "", null_literal="") is None
    assert value_of("STRING", "", null_literal="") is None


def test_a_null_in_a_not_null_column_is_rejected() -> None:
    options = {"null_literal": "null"}
    assert value_of("INT NOT NULL", "null", **options) == "csv: column c: found 'null', wanted INT NOT NULL"
    assert value_of("ARRAY<INT NOT NULL>", "1;null", **options) == (
        "csv: column c: found '1;null', wanted ARRAY<INT NOT NULL>"
    )
    assert value_of("ROW<a INT NOT NULL, b INT>", "1;null", **options) == {"a": 1, "b": None}


class TestIgnoreParseErrors:
    @pytest.fixture
    def decoder(self) -> CsvDecoder:
        return csv_decoder(
            ("a", "INT"), ("b", "ARRAY<INT>"), ("c", "INT"), ignore_parse_errors="true", allow_comments="TRUE"
        )

    def test_fields_that_do_not_parse_are_null_and_counted(self, decoder: CsvDecoder) -> None:
        raw = raw_table([b"x,1;y;3,4", b"1,2,3", b"2,,zzz"])
        decoded = decoder.decode(raw)
        check_counts(decoded, raw)
        assert outcome(decoded) == {0: (None, [1, None, 3], 4), 1: (1, [2], 3), 2: (2, [], None)}
        assert decoded.nulled == 3

    def test_missing_fields_are_null_and_counted(self, decoder: CsvDecoder) -> None:
        decoded = decoder.decode(raw_table([b"1", b"2,3", b"4,5,6"]))
        assert outcome(decoded) == {0: (1, None, None), 1: (2, [3], None), 2: (4, [5], 6)}
        assert decoded.nulled == 3

    def test_records_that_cannot_be_split_are_rejected_not_dropped(self, decoder: CsvDecoder) -> None:
        raw = raw_table([b"1,2,3,4", b'"1,2,3', b"", None, b"\xff", b"1,2,3\n4,5,6"])
        decoded = decoder.decode(raw)
        check_counts(decoded, raw)
        assert decoded.rejected.num_rows == 6
        assert decoded.nulled == 0

    def test_comments_are_left_out_and_counted(self, decoder: CsvDecoder) -> None:
        raw = raw_table([b"# a comment", b"1,2,3", b" # another\n", b"# first\n4,5,6\n# last"])
        decoded = decoder.decode(raw)
        check_counts(decoded, raw)
        assert outcome(decoded) == {1: (1, [2], 3), 3: (4, [5], 6)}
        assert decoded.filtered == 2

    def test_a_not_null_column_still_rejects(self) -> None:
        assert value_of("INT NOT NULL", "x", ignore_parse_errors="true") == (
            "csv: column c: found 'x', wanted INT NOT NULL"
        )


def test_a_comment_without_a_row_is_rejected_unless_errors_are_ignored() -> None:
    decoder = csv_decoder(("a", "STRING"), allow_comments="true")
    assert outcome(decoder.decode(raw_table([b"#x"]))) == {
        0: "csv: a comment without a row; csv.ignore-parse-errors=true passes over comments"
    }
    assert outcome(csv_decoder(("a", "STRING")).decode(raw_table([b"#x"]))) == {0: ("#x",)}


def test_a_record_of_10_mb_lands() -> None:
    big = b"{" + b"0.125," * (10 * MIB // 6) + b"1}"
    raw = raw_table([seed_line(1), seed_line(2).rpartition(b"\t")[0] + b"\t" + big, seed_line(3)])
    decoded = csv_decoder(*seed_columns(), field_delimiter="\t").decode(raw)
    assert decoded.rows["id"].to_pylist() == [1, 2, 3]
    assert decoded.rows["feature"][1].as_py().encode() == big


def test_a_quoted_record_of_10_mb_with_a_fault_is_rejected_and_its_neighbours_land() -> None:
    records = [b'"a",1', b'"' + b'x""' * (10 * MIB // 3) + b",2", b'"b",3']
    found = outcome(csv_decoder(("a", "STRING"), ("b", "INT")).decode(raw_table(records)))
    assert found == {0: ("a", 1), 2: ("b", 3), 1: "csv: a quoted value is not closed (a cut line?)"}


def test_memory_beside_the_result_is_bounded_by_the_piece_not_the_batch() -> None:
    decoder = csv_decoder(*seed_columns(), field_delimiter="\t")
    raw = raw_table([seed_line(number) for number in range(60_000)])
    decoder.decode(raw)
    before = pa.total_allocated_bytes()
    peak_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    decoded = decoder.decode(raw)
    assert pa.total_allocated_bytes() - before < 1.5 * decoded.rows.nbytes
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_before) * 1024 < decoded.rows.nbytes + 64 * MIB


def test_more_records_than_one_piece_keep_their_order_around_poison() -> None:
    count = 90_000
    values: list[bytes | None] = [seed_line(number) for number in range(count)]
    poison = {0: None, 17: b"", 30_000: b"\xff", 45_678: b"1\t2", 77_777: b'"x', 89_999: b"a\nb"}
    for place, value in poison.items():
        values[place] = value
    raw = raw_table(values)
    decoded = csv_decoder(*seed_columns(), field_delimiter="\t").decode(raw)
    check_counts(decoded, raw)
    assert decoded.rejected[POSITION].to_pylist() == sorted(poison)
    assert decoded.rows["id"].to_pylist() == decoded.rows[POSITION].to_pylist()


def test_very_many_tiny_records_in_one_piece_keep_their_places() -> None:
    count = 250_000
    decoded = csv_decoder(("a", "INT")).decode(raw_table([b"%d" % (number % 10) for number in range(count)]))
    assert decoded.rows.num_rows == count
    assert decoded.rows["a"].to_pylist() == [number % 10 for number in range(count)]


class TestConstruction:
    @pytest.mark.parametrize(
        ("kind", "message"),
        [
            ("MAP<STRING, INT>", r"column m is MAP<STRING, INT>; csv has no MAP"),
            ("ARRAY<ARRAY<INT>>", r"column m is ARRAY<ARRAY<INT>>; ARRAY and ROW hold simple types only"),
            ("ROW<a ARRAY<INT>>", r"hold simple types only, found ARRAY<INT>"),
            ("TIME(6)", r"column m is TIME\(6\); csv reads TIME\(0\) to TIME\(3\)"),
        ],
    )
    def test_types_without_a_csv_text_are_refused(self, kind: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            csv_decoder(("id", "INT"), ("m", kind))

    def test_a_computed_column_is_not_in_the_records(self) -> None:
        table = Table(
            "t", (Column("id", LogicalType("INT")), Column("twice", LogicalType("INT"), "computed", "id * 2"))
        )
        decoded = CsvDecoder(CsvOptions.parse({}, "format csv"), table).decode(raw_table([b"4"]))
        assert decoded.rows.column_names == ["id", POSITION]

    def test_a_table_without_physical_columns_is_refused(self) -> None:
        table = Table("t", (Column("x", LogicalType("INT"), "computed", "1"),))
        with pytest.raises(ConfigError, match="no physical column"):
            CsvDecoder(CsvOptions.parse({}, "format csv"), table)
