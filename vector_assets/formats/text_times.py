"""Texts to DATE, TIME, TIMESTAMP and TIMESTAMP_LTZ columns, in SQL's spelling as Flink's csv format reads it.

Stricter than Flink in one point: a day that the calendar does not have (2021-02-30) is refused, where Flink lands
another day without a word (28 February or 2 March, depending on the type).
"""

import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine.schema import LogicalType
from vector_assets.formats.grammar import by_grammar, byte_view, only, trim

_YEAR = r"(?:[1-9]\d{3}|0[1-9]\d\d|00[1-9]\d|000[1-9])"
_LEAP_YEAR = r"(?:\d\d(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_MONTH_DAY = (
    r"(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|02-(?:0[1-9]|1\d|2[0-8]))"
)
_DATE = rf"(?:{_YEAR}-{_MONTH_DAY}|{_LEAP_YEAR}-02-29)"
_CLOCK = r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d"
_FRACTION_DIGITS = {"ms": 3, "us": 6, "ns": 9}
_SECONDS_END = 19
_FIRST_YEAR = "0001-01-01 00:00:00"
_FIRST_NS, _LAST_NS = "1677-09-21 00:12:44", "2262-04-11 23:47:16"


def dates(texts: pa.Array) -> pa.Array:
    """DATE: `yyyy-[m]m-[d]d`, not trimmed."""

    def rest(odd: pa.Array) -> pa.Array:
        padded = pc.replace_substring_regex(odd, r"\A(\d{4})-(\d)-", r"\1-0\2-")
        padded = pc.replace_substring_regex(padded, r"\A(\d{4}-\d\d)-(\d)\z", r"\1-0\2")
        return only(pc.match_substring_regex(padded, rf"\A{_DATE}\z"), padded).cast(pa.date32())

    return by_grammar(texts, rf"\A{_DATE}\z", lambda fit: fit.cast(pa.date32()), rest)


def times(texts: pa.Array, wanted: LogicalType) -> pa.Array:
    """TIME(p): `HH:mm[:ss[.fraction]]`, not trimmed, cut to p digits."""
    digits = wanted.precision or 0

    def convert(fit: pa.Array) -> pa.Array:
        moments = pc.binary_join_element_wise("1970-01-01 ", fit, "")
        return moments.cast(pa.timestamp("us")).cast(wanted.arrow)

    def rest(odd: pa.Array) -> pa.Array:
        seconds = pc.replace_substring_regex(odd, r"\A(\d\d:\d\d)\z", r"\1:00")
        good = only(pc.match_substring_regex(seconds, rf"\A{_CLOCK}(?:\.\d{{0,9}})?\z"), seconds)
        cut = pc.utf8_slice_codeunits(good, 0, 9 + digits if digits else 8)
        return convert(pc.utf8_rtrim(cut, characters="."))

    fraction = rf"(?:\.\d{{1,{digits}}})?" if digits else ""
    return by_grammar(texts, rf"\A{_CLOCK}{fraction}\z", convert, rest)


def timestamps(texts: pa.Array, wanted: LogicalType) -> pa.Array:
    """TIMESTAMP(p) `yyyy-MM-dd HH:mm:ss[.fraction]`, TIMESTAMP_LTZ(p) the same with a final `Z`; trimmed.

    More digits than the Arrow type of p holds are cut; 24:00:00 is the next day's midnight.
    """
    kind = wanted.arrow
    digits = _FRACTION_DIGITS[kind.unit]
    zone = "Z" if kind.tz else ""

    def convert(fit: pa.Array) -> pa.Array:
        return _within_ns(fit, kind).cast(kind) if kind.unit == "ns" else fit.cast(kind)

    def rest(odd: pa.Array) -> pa.Array:
        trimmed = trim(odd)
        late = pc.match_substring_regex(trimmed, rf"\A{_DATE} 24:00:00(?:\.0{{0,9}})?{zone}\z")
        clock = pc.if_else(late, pc.replace_substring(trimmed, " 24:", " 00:"), trimmed)
        good = only(pc.match_substring_regex(clock, rf"\A{_DATE} {_CLOCK}(?:\.\d{{0,9}})?{zone}\z"), clock)
        cut = pc.utf8_slice_codeunits(pc.utf8_rtrim(good, characters="Z"), 0, _SECONDS_END + 1 + digits)
        values = convert(pc.binary_join_element_wise(pc.utf8_rtrim(cut, characters="."), zone, ""))
        next_day = pc.add_checked(only(late, values), pa.scalar(86_400, pa.duration("s")).cast(pa.duration(kind.unit)))
        return pc.coalesce(next_day, values)

    if (values := _of_one_length(texts, kind, digits)) is not None:
        return values
    return by_grammar(texts, rf"\A{_DATE} {_CLOCK}(?:\.\d{{1,{digits}}})?{zone}\z", convert, rest)


def _of_one_length(texts: pa.Array, kind: pa.TimestampType, digits: int) -> pa.Array | None:
    """Texts that all have one length and all are timestamps without a zone, by Arrow's cast alone; None for any others.

    At 19 characters, or 21 to 20 + `digits`, with a blank at the eleventh, the cast takes what the grammar takes, and
    the year 0.
    """
    if kind.tz or kind.unit == "ns" or texts.null_count or not len(texts):
        return None
    data, bounds = byte_view(texts)
    length = int(bounds[1] - bounds[0])
    is_long = _SECONDS_END + 2 <= length <= _SECONDS_END + 1 + digits
    if not (length == _SECONDS_END or is_long) or (bounds[1:] - bounds[:-1] != length).any():
        return None
    if (data[int(bounds[0]) + 10 : int(bounds[-1]) : length] != ord(" ")).any():
        return None
    try:
        values = texts.cast(kind)
    except pa.ArrowInvalid:
        return None
    return None if pc.less(pc.min(values), pa.scalar(_FIRST_YEAR).cast(kind)).as_py() else values


def _within_ns(texts: pa.Array, kind: pa.TimestampType) -> pa.Array:
    """Null where 64 bits of nanoseconds do not reach: Arrow's cast would wrap round."""
    return only(pc.and_(pc.greater_equal(texts, _FIRST_NS), pc.less(texts, _LAST_NS)), texts)
