"""Texts to values against Python's own readers; the spellings themselves are checked against Flink elsewhere."""

import base64
from datetime import UTC, date, datetime, time
from decimal import ROUND_HALF_UP, Context, Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.fix_csv import logical
from vector_assets.formats.text_values import TextRules, parse

WIDE = Context(prec=200)
BITS = {"TINYINT": 8, "SMALLINT": 16, "INT": 32, "BIGINT": 64}
quick = settings(max_examples=80, deadline=None)


def read(kind: str, texts: list[str | None], **rules: object) -> list[object]:
    """The values, `...` where the text is bad."""
    parsed = parse(pa.array(texts, pa.string()), logical(kind), TextRules(**rules))  # type: ignore[arg-type]
    parsed.values.validate(full=True)
    values = parsed.values.to_pylist()
    bad = np.zeros(len(texts), bool) if parsed.bad is None else parsed.bad
    return [... if wrong else value for value, wrong in zip(values, bad, strict=True)]


@pytest.mark.parametrize("kind", BITS)
@quick
@given(data=st.data())
def test_integers_are_exact_to_the_last_value_and_never_wrap(kind: str, data: st.DataObject) -> None:
    top = 2 ** (BITS[kind] - 1)
    near = st.sampled_from([top, -top, 0]).flatmap(lambda middle: st.integers(middle - 3, middle + 3))
    numbers = data.draw(st.lists(near | st.integers(-(2**70), 2**70), max_size=8))
    spelled = [data.draw(st.sampled_from(["{}", " {} ", "{:+}", "{:025}", "{}\t"])).format(n) for n in numbers]
    assert read(kind, [*spelled, None]) == [*(n if -top <= n < top else ... for n in numbers), None]


@quick
@given(numbers=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=8))
def test_doubles_are_read_to_the_last_bit(numbers: list[float]) -> None:
    assert read("DOUBLE", [repr(number) for number in numbers]) == numbers


@quick
@given(numbers=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=8))
def test_floats_are_read_to_the_last_bit(numbers: list[float]) -> None:
    assert read("FLOAT", [str(np.float32(number)) for number in numbers]) == numbers


def test_a_number_too_large_for_a_float_is_bad_but_infinity_by_name_is_not() -> None:
    assert read("FLOAT", ["3.5e38", "-1e39", "3.4e38", "Infinity", "-Infinity"]) == [
        ...,
        ...,
        pytest.approx(3.4e38),
        float("inf"),
        -float("inf"),
    ]
    assert np.isnan(read("DOUBLE", ["NaN"])[0])  # type: ignore[call-overload]


@pytest.mark.parametrize(("precision", "scale"), [(10, 2), (38, 0), (38, 38), (3, 3), (38, 10), (1, 0)])
@quick
@given(data=st.data())
def test_decimals_round_half_up_and_are_bad_out_of_range(precision: int, scale: int, data: st.DataObject) -> None:
    number = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**40), max_value=10**40)
    digits = st.integers(-(10 ** (precision + 2)), 10 ** (precision + 2))
    scaled = st.tuples(digits, st.integers(0, 39)).map(lambda pair: Decimal(pair[0]).scaleb(-pair[1]))
    numbers = data.draw(st.lists(number | scaled, max_size=6))
    wanted: list[object] = []
    for one in numbers:
        with_scale = one.quantize(Decimal(1).scaleb(-scale), ROUND_HALF_UP, context=WIDE)
        wanted.append(with_scale if abs(with_scale) < Decimal(10) ** (precision - scale) else ...)
    assert read(f"DECIMAL({precision}, {scale})", [str(one) for one in numbers]) == wanted
    plain = [format(one, "f") for one in numbers]
    assert read(f"DECIMAL({precision}, {scale})", plain) == wanted


@pytest.mark.parametrize(("kind", "digits"), [("TIMESTAMP(3)", 3), ("TIMESTAMP(6)", 6)])
@quick
@given(moments=st.lists(st.datetimes(), max_size=8))
def test_timestamps_are_cut_to_what_the_column_holds(kind: str, digits: int, moments: list[datetime]) -> None:
    spelled = [f"{moment:%H:%M:%S}.{moment.microsecond:06d}999" for moment in moments]
    texts = [f"{moment.date().isoformat()} {clock}" for moment, clock in zip(moments, spelled, strict=True)]
    unit = 10 ** (6 - digits)
    wanted = [moment.replace(microsecond=moment.microsecond // unit * unit) for moment in moments]
    assert read(kind, texts) == wanted
    zoned = [text + "Z" for text in texts]
    assert read(kind.replace("TIMESTAMP", "TIMESTAMP_LTZ"), zoned) == [one.replace(tzinfo=UTC) for one in wanted]


@quick
@given(days=st.lists(st.dates(), max_size=8), short=st.booleans())
def test_every_day_of_the_calendar_is_read(days: list[date], *, short: bool) -> None:
    texts = [f"{day.year:04d}-{day.month}-{day.day}" if short else day.isoformat() for day in days]
    assert read("DATE", texts) == days


def test_days_and_times_that_do_not_exist_are_bad() -> None:
    wrong = ["2023-02-29", "1900-02-29", "2024-02-30", "2024-04-31", "2024-00-01", "2024-13-01", "2024-01-00"]
    assert read("DATE", wrong) == [...] * len(wrong)
    assert read("TIMESTAMP(3)", [f"{day} 00:00:00" for day in wrong]) == [...] * len(wrong)
    assert read("TIME", ["24:00:00", "10:60:00", "10:00:60", "1:00:00"]) == [...] * 4
    assert read("DATE", ["2000-02-29", "2024-02-29"]) == [date(2000, 2, 29), date(2024, 2, 29)]


def test_midnight_may_be_spelled_24() -> None:
    assert read("TIMESTAMP(6)", ["2023-12-31 24:00:00", "2023-12-31 24:00:01"]) == [datetime(2024, 1, 1), ...]  # noqa: DTZ001


def test_nanoseconds_out_of_reach_are_bad_instead_of_another_century() -> None:
    texts = ["2262-04-11 23:47:15", "2262-04-11 23:47:16", "1677-09-21 00:12:43", "3000-01-01 00:00:00"]
    parsed = parse(pa.array(texts), logical("TIMESTAMP(9)"), TextRules())
    assert parsed.bad is not None
    assert parsed.bad.tolist() == [False, True, True, True]


@quick
@given(moments=st.lists(st.times(), max_size=8))
def test_times_are_cut_to_their_precision(moments: list[time]) -> None:
    texts = [moment.isoformat("microseconds") for moment in moments]
    for precision, unit in ((0, 10**6), (1, 10**5), (2, 10**4), (3, 10**3)):
        wanted = [moment.replace(microsecond=moment.microsecond // unit * unit) for moment in moments]
        assert read(f"TIME({precision})", texts) == wanted


@quick
@given(values=st.lists(st.none() | st.binary(max_size=9), max_size=8))
def test_base64_gives_the_bytes_back(values: list[bytes | None]) -> None:
    texts = [None if value is None else base64.b64encode(value).decode() for value in values]
    assert read("BYTES", texts) == values
    spaced = [None if text is None else f" {text[:4]} {text[4:]}\n" for text in texts]
    assert read("BYTES", spaced) == values


@pytest.mark.parametrize("text", ["a", "ab", "abc", "ab=", "====", "ab==cd==", "a b=", "ab-_", "\u00e4bcd"])
def test_broken_base64_is_bad(text: str) -> None:
    assert read("BYTES", [text, "YWI="]) == [..., b"ab"]


elements = st.none() | st.integers(-(2**31), 2**31 - 1)


@quick
@given(lists=st.lists(st.none() | st.lists(elements, max_size=4), max_size=6))
def test_arrays_keep_their_elements_in_place(lists: list[list[int | None] | None]) -> None:
    texts = [
        None if one is None else ";".join("NULL" if element is None else str(element) for element in one)
        for one in lists
    ]
    assert read("ARRAY<INT>", texts, null_literal="NULL") == lists


def test_one_bad_element_spoils_its_own_array_only() -> None:
    assert read("ARRAY<INT>", ["1;2", "3;x;4", "", "5"]) == [[1, 2], ..., [], [5]]
    assert read("ARRAY<INT>", ["1;2", "3;x;4", "", "5"], lenient=True) == [[1, 2], [3, None, 4], [], [5]]


def test_a_row_has_as_many_elements_as_fields_or_none() -> None:
    kind = "ROW<a INT, b STRING>"
    assert read(kind, ["1;x", "", " ", "1", "1;x;y", "z;x"]) == [{"a": 1, "b": "x"}, None, None, ..., ..., ...]
    lenient = parse(pa.array(["1;x", "1", "1;x;y", "z;x"]), logical(kind), TextRules(lenient=True))
    assert lenient.values.to_pylist() == [{"a": 1, "b": "x"}, {"a": 1, "b": None}, None, {"a": None, "b": "x"}]
    assert lenient.bad is None
    assert lenient.nulled == 3


def test_another_element_delimiter_splits_arrays() -> None:
    assert read("ARRAY<STRING>", ["a|b;c"], element_delimiter="|") == [["a", "b;c"]]


def test_booleans_are_true_or_false_and_nothing_else() -> None:
    assert read("BOOLEAN", ["true", "FALSE", " True ", "1", "0", "yes", "", "t"]) == [True, False, True, *[...] * 5]


def test_nulls_stay_null_in_every_type() -> None:
    for kind in ("INT", "DOUBLE", "DECIMAL(5, 2)", "DATE", "TIME", "TIMESTAMP(9)", "BYTES", "BOOLEAN", "STRING"):
        assert read(kind, [None, None]) == [None, None]
        assert read(f"ARRAY<{kind}>", [None]) == [None]
        assert read(f"{kind} NOT NULL", [None]) == [...]


def test_a_slice_of_a_column_reads_like_a_column_of_its_own() -> None:
    texts = pa.array(["12345678", "x", None, " 9 ", "8"])
    for start in range(5):
        parsed = parse(texts.slice(start), logical("INT"), TextRules(lenient=True))
        parsed.values.validate(full=True)
        assert parsed.values.to_pylist() == [12345678, None, None, 9, 8][start:]
