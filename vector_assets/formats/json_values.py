"""Texts of JSON values to typed columns, by the rules of Flink's json format.

The same kernels as for csv, with the spellings of times narrowed to json's. A whole number may be written with a
fraction of zeros or an exponent (`7.0`, `1e3`); any other fraction in an integer column is bad, where Flink
cuts it off.
"""

from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine.schema import LogicalType
from vector_assets.formats.grammar import as_mask, trim
from vector_assets.formats.text_values import Parsed, TextRules, parse

INTEGERS = {"TINYINT": 8, "SMALLINT": 16, "INT": 32, "BIGINT": 64}
"""Integer types and their bits."""
TEXTS = frozenset({"CHAR", "VARCHAR"})
BYTES = frozenset({"BINARY", "VARBINARY"})

_UNREADABLE = "?"
"""A text that no reader but that of texts takes."""
_DAY = r"\d{4}-\d\d-\d\d"
_CLOCK = r"\d\d:\d\d:\d\d(?:\.\d{0,9})?"
_ISO_CLOCK = r"(?:[01]\d|2[0-3]):\d\d(?::\d\d(?:\.\d{0,9})?)?"
_SHAPES = {
    ("DATE", False): rf"\A{_DAY}\z",
    ("TIME", False): rf"\A{_CLOCK}\z",
    ("TIMESTAMP", False): rf"\A{_DAY} {_CLOCK}\z",
    ("TIMESTAMP_LTZ", False): rf"\A{_DAY} {_CLOCK}Z\z",
    ("DATE", True): rf"\A{_DAY}\z",
    ("TIME", True): rf"\A{_CLOCK}\z",
    ("TIMESTAMP", True): rf"\A{_DAY}[Tt]{_ISO_CLOCK}\z",
    ("TIMESTAMP_LTZ", True): rf"\A{_DAY}[Tt]{_ISO_CLOCK}Z\z",
}
"""Type and whether times are ISO-8601's, to the shape of its texts."""
_LONG_EXPONENT = 40


def read_texts(texts: pa.Array, wanted: LogicalType, *, iso: bool, lenient: bool) -> Parsed:
    """The column of a simple type that texts (a string's content, a number's spelling) spell; nulls stay null.

    `iso`: timestamps are ISO-8601's, not SQL's. `lenient`: what cannot be read is null and counted, not bad.
    """
    if wanted.name in INTEGERS:
        texts = _whole(texts)
    elif wanted.name == "DECIMAL":
        texts = trim(texts)
    elif (wanted.name, iso) in _SHAPES:
        texts = _moments(texts, _SHAPES[wanted.name, iso], iso=iso and wanted.name.startswith("TIMESTAMP"))
    return parse(texts, wanted, TextRules(lenient=lenient))


def _moments(texts: pa.Array, shape: str, *, iso: bool) -> pa.Array:
    """Times of the right shape in SQL's spelling, a text that is no time for the others."""
    fits = pc.match_substring_regex(texts, shape)
    if pc.all(fits).as_py() is False:
        texts = pc.if_else(fits, texts, _UNREADABLE)
    if not iso:
        return texts
    texts = pc.replace_substring_regex(texts, "[Tt]", " ")
    short = pc.match_substring_regex(texts, r"\A.{10} \d\d:\d\dZ?\z")
    if pc.any(short).as_py():
        texts = pc.if_else(short, pc.replace_substring_regex(texts, r"\A(.{16})", r"\1:00"), texts)
    return texts


def _whole(texts: pa.Array) -> pa.Array:
    """Whole numbers with a fraction of zeros or an exponent as their digits; other texts as they are."""
    odd = pc.match_substring_regex(texts, r"[.eE]")
    if not pc.any(odd).as_py():
        return texts
    texts = pc.if_else(odd, pc.replace_substring_regex(texts, r"\A([+-]?\d+)\.0+\z", r"\1"), texts)
    rest = pc.match_substring_regex(texts, r"\A[+-]?\d+(?:\.\d+)?[eE][+-]?\d+\z")
    if not pc.any(rest).as_py():
        return texts
    return pc.replace_with_mask(texts, pa.array(as_mask(rest)), _whole_one_by_one(texts.filter(rest)))


def _whole_one_by_one(texts: pa.Array) -> pa.Array:
    """Slow path: numbers with an exponent."""
    return pa.array([_digits(text) for text in texts.to_pylist()], pa.string())


def _digits(text: str) -> str:
    number = Decimal(text)
    if not number:
        return "0"
    if number.adjusted() > _LONG_EXPONENT or number != number.to_integral_value():
        return _UNREADABLE
    return str(int(number))
