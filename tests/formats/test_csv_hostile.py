"""Any bytes at all: a batch is decoded exactly as each record alone, and as a slow reader of one record says."""

import csv
import io
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.formats.contract import check_counts, raw_table
from tests.formats.fix_csv import csv_decoder, outcome
from vector_assets.engine.errors import RecordError
from vector_assets.formats.csv import CsvDecoder
from vector_assets.formats.csv_record import CommentError, Dialect, split_record

_PIECES = [b",", b",", b'"', b'"', b"\n", b"\r", b" ", b"\t", b"\\", b"#", b"a", b"1", b"n", b";", b"\x00", b"\x1f"]
_HARD = [b"\xff", b"\xc3", "é".encode(), "日".encode(), b"\xef\xbb\xbf", b"null", b"0x1", b"3000000000", b"true"]
_FIELDS = [b"1", b"-5", b"x", b"", b'"q"', b'"a,b"', b'"a\nb"', b" 7 ", b"null"]
hostile = st.lists(st.sampled_from(_PIECES + _HARD), max_size=9).map(b"".join)
usual = st.lists(st.sampled_from(_FIELDS), min_size=1, max_size=4).map(b",".join)
ended = st.tuples(usual, st.sampled_from([b"", b"", b"\n", b"\r\n", b","])).map(b"".join)
records = st.one_of(st.none(), st.binary(max_size=6), hostile, usual, ended)
DIALECTS = {
    "defaults": {},
    "escapes": {"escape_character": "\\"},
    "lenient": {"ignore_parse_errors": "true", "allow_comments": "true"},
    "no quotes": {"disable_quote_character": "true"},
    "odd delimiter": {"field_delimiter": "é", "escape_character": "\\"},
    "escape is the quote": {"escape_character": '"', "null_literal": "null"},
}


def decoder_of(options: dict[str, str]) -> CsvDecoder:
    return csv_decoder(("a", "STRING"), ("b", "INT"), **options)


@pytest.mark.parametrize("options", DIALECTS.values(), ids=DIALECTS.keys())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(values=st.lists(records, max_size=12))
def test_a_batch_gives_what_each_record_gives_alone(options: dict[str, str], values: list[bytes | None]) -> None:
    decoder = decoder_of(options)
    raw = raw_table(values, first=1000, step=2)
    together = decoder.decode(raw)
    check_counts(together, raw)
    alone = [decoder.decode(raw.slice(place, 1)) for place in range(len(values))]
    expected: dict[int, object] = {}
    for one in alone:
        expected |= outcome(one)
    assert outcome(together) == expected
    assert together.nulled == sum(one.nulled for one in alone)


@pytest.mark.parametrize("options", DIALECTS.values(), ids=DIALECTS.keys())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(values=st.lists(hostile | usual | ended, min_size=1, max_size=12))
def test_a_batch_gives_what_the_reader_of_one_record_says(options: dict[str, str], values: list[bytes]) -> None:
    decoder = csv_decoder(("a", "STRING"), ("b", "STRING"), **{k: v for k, v in options.items() if k != "null_literal"})
    dialect = Dialect(
        options.get("field_delimiter", ","),
        None if "disable_quote_character" in options else '"',
        options.get("escape_character"),
        "allow_comments" in options,
    )
    found = outcome(decoder.decode(raw_table(values)))
    for place, value in enumerate(values):
        wanted = _alone(value, dialect, lenient="ignore_parse_errors" in options)
        assert (found[place] if isinstance(found.get(place), tuple) else None) == wanted, value


def _alone(value: bytes, dialect: Dialect, *, lenient: bool) -> tuple[str | None, ...] | None:
    try:
        fields: list[str | None] = [*split_record(value.decode(), dialect)]
    except (UnicodeDecodeError, RecordError, CommentError):
        return None
    if len(fields) == 3 and not (fields[2] or "").strip("".join(map(chr, range(33)))):
        fields.pop()
    if len(fields) == 1 and lenient:
        fields.append(None)
    return tuple(fields) if len(fields) == 2 else None


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0\ufeff"), max_size=8)
rows = st.tuples(
    texts,
    st.integers(-(2**31), 2**31 - 1),
    st.decimals(-(10**9), 10**9, places=3, allow_nan=False, allow_infinity=False),
    st.datetimes().filter(lambda moment: moment.year >= 1),
    st.booleans(),
)


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL], ids=["quoted where needed", "all quoted"])
@settings(max_examples=60, deadline=None)
@given(values=st.lists(rows, max_size=12))
def test_what_pythons_csv_module_writes_is_read_back(quoting: int, values: list[tuple[object, ...]]) -> None:
    encoded = []
    for text, *rest in values:
        line = io.StringIO()
        cells = [text, *(str(cell).lower() if isinstance(cell, bool) else cell for cell in rest)]
        csv.writer(line, quoting=quoting).writerow(cells)
        encoded.append(line.getvalue().encode())
    decoder = csv_decoder(
        ("a", "STRING"), ("b", "INT"), ("c", "DECIMAL(20, 3)"), ("d", "TIMESTAMP(6)"), ("e", "BOOLEAN")
    )
    assert outcome(decoder.decode(raw_table(encoded))) == dict(enumerate(values))
    read = [next(csv.reader(io.StringIO(line.decode(), newline=""))) for line in encoded]
    assert [(row[0], int(row[1]), Decimal(row[2])) for row in read] == [row[:3] for row in values]
