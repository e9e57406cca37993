"""Columns of text to typed columns, by the rules of Flink's csv format; bad values are a mask, never an exception.

Where Flink would land another value than the text says, the value is bad here: a BOOLEAN other than true and false, a
DECIMAL, FLOAT or DOUBLE out of range, a ROW with surplus elements, base64 that goes on after its padding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation, localcontext

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine.errors import ConfigError
from vector_assets.engine.schema import LogicalType
from vector_assets.formats.grammar import Mask, as_mask, by_grammar, byte_view, only, trim
from vector_assets.formats.text_times import dates, times, timestamps

_SURE_INTEGERS = {
    "TINYINT": r"\A-?\d{1,2}\z",
    "SMALLINT": r"\A-?[12]?\d{1,4}\z",
    "INT": r"\A-?1?\d{1,9}\z",
    "BIGINT": r"\A-?[1-8]?\d{1,18}\z",
}
"""Spellings that are in range without a look at the value."""
_INTEGER_BITS = {"TINYINT": 8, "SMALLINT": 16, "INT": 32, "BIGINT": 64}
_FINITE = r"\A[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\z"
_NAMED = r"\A[+-]?(?:NaN|Infinity)\z"
_MAX_TIME_PRECISION = 3

_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_BASE64_END = r"(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
_SIX_BITS = np.zeros(256, np.uint32)
_SIX_BITS[np.frombuffer(_BASE64, np.uint8)] = np.arange(64)


@dataclass(frozen=True, slots=True)
class TextRules:
    """How texts are read: the text that means null, what parts array elements, and whether bad values become null."""

    null_literal: str | None = None
    element_delimiter: str = ";"
    lenient: bool = False


@dataclass(frozen=True, slots=True)
class Parsed:
    """A typed column; `bad` marks rows to reject (None: no row), `nulled` counts values set to null instead."""

    values: pa.Array
    bad: Mask | None = None
    nulled: int = 0


def check_type(column: str, wanted: LogicalType) -> None:
    """Refuse what Flink's csv format refuses.

    Raises:
        ConfigError: a MAP, an ARRAY or ROW inside another, a TIME of more than 3 digits; names the column.
    """
    for inner in wanted.children:
        if wanted.name != "MAP" and inner.name in {"ARRAY", "ROW", "MAP"}:
            raise ConfigError(
                f"format csv: column {column} is {wanted}; ARRAY and ROW hold simple types only, found {inner}"
            )
        check_type(column, inner)
    if wanted.name == "MAP":
        raise ConfigError(f"format csv: column {column} is {wanted}; csv has no MAP (known: ARRAY, ROW, simple types)")
    if wanted.name == "TIME" and (wanted.precision or 0) > _MAX_TIME_PRECISION:
        raise ConfigError(f"format csv: column {column} is {wanted}; csv reads TIME(0) to TIME({_MAX_TIME_PRECISION})")


def parse(texts: pa.Array, wanted: LogicalType, rules: TextRules) -> Parsed:
    """The typed column that a column of texts spells; nulls stay null, and are bad where the type is NOT NULL."""
    if wanted.name == "ARRAY":
        parsed = _array(texts, wanted, rules)
    elif wanted.name == "ROW":
        parsed = _row(texts, wanted, rules)
    else:
        parsed = _simple(texts, wanted, rules)
    if wanted.nullable or not parsed.values.null_count:
        return parsed
    return Parsed(parsed.values, either(parsed.bad, as_mask(parsed.values.is_null())), parsed.nulled)


def either(one: Mask | None, other: Mask | None) -> Mask | None:
    """Where one of two masks is true; None is all false."""
    if one is None or other is None:
        return other if one is None else one
    return np.logical_or(one, other)


def _simple(texts: pa.Array, wanted: LogicalType, rules: TextRules) -> Parsed:
    if rules.null_literal is not None:
        texts = only(pc.not_equal(texts, rules.null_literal), texts)
    values = _READERS[wanted.name](texts, wanted)
    lost = values.null_count - texts.null_count
    if not lost:
        return Parsed(values)
    if rules.lenient:
        return Parsed(values, nulled=lost)
    return Parsed(values, as_mask(pc.and_(texts.is_valid(), values.is_null())))


def _strings(texts: pa.Array, _: LogicalType) -> pa.Array:
    return texts


def _booleans(texts: pa.Array, _: LogicalType) -> pa.Array:
    lowered = pc.ascii_lower(texts)
    if pc.all(pc.is_in(lowered, pa.array(["true", "false", None]))).as_py() is False:
        lowered = trim(lowered)
    true, false = pc.equal(lowered, "true"), pc.equal(lowered, "false")
    return only(pc.or_(true, false), true)


def _integers(texts: pa.Array, wanted: LogicalType) -> pa.Array:
    top = 2 ** (_INTEGER_BITS[wanted.name] - 1)

    def rest(odd: pa.Array) -> pa.Array:
        digits = pc.replace_substring_regex(trim(odd), r"\A([+-]?)0+(\d)", r"\1\2")
        wide = only(pc.match_substring_regex(digits, r"\A[+-]?\d{1,19}\z"), digits).cast(pa.decimal128(38))
        low, high = pa.scalar(Decimal(-top), pa.decimal128(38)), pa.scalar(Decimal(top - 1), pa.decimal128(38))
        return only(pc.and_(pc.greater_equal(wide, low), pc.less_equal(wide, high)), wide).cast(wanted.arrow)

    return by_grammar(texts, _SURE_INTEGERS[wanted.name], lambda fit: fit.cast(wanted.arrow), rest)


def _floats(texts: pa.Array, wanted: LogicalType) -> pa.Array:
    def finite(fit: pa.Array) -> pa.Array:
        values = fit.cast(wanted.arrow)
        endless = pc.is_inf(values)
        return only(pc.invert(endless), values) if pc.any(endless).as_py() else values

    def rest(odd: pa.Array) -> pa.Array:
        digits = pc.replace_substring_regex(trim(odd), r"([0-9.])[fFdD]\z", r"\1")
        numbers = finite(only(pc.match_substring_regex(digits, _FINITE), digits))
        return pc.coalesce(numbers, only(pc.match_substring_regex(digits, _NAMED), digits).cast(wanted.arrow))

    return by_grammar(texts, _FINITE, finite, rest)


def _decimals(texts: pa.Array, wanted: LogicalType) -> pa.Array:
    scale = wanted.scale or 0
    whole = (wanted.precision or 0) - scale
    digits = rf"\d{{1,{whole}}}" if whole else "0"

    def rest(odd: pa.Array) -> pa.Array:
        plain = pc.match_substring_regex(odd, r"\A[+-]?(?:\d{1,37}(?:\.\d{0,37})?|\.\d{1,37})\z")
        wide = pc.round(only(plain, odd).cast(pa.decimal256(76, 38)), scale, round_mode="half_towards_infinity")
        largest = pa.scalar(Decimal(f"{'9' * whole}.{'9' * scale}"), pa.decimal256(76, 38))
        values = only(pc.less_equal(pc.abs(wide), largest), wide).cast(wanted.arrow)
        others = pc.fill_null(pc.invert(plain), fill_value=False)
        return pc.replace_with_mask(values, others, _decimals_one_by_one(odd.filter(others), wanted))

    pattern = rf"\A[+-]?{digits}(?:\.\d{{0,{scale}}})?\z"
    return by_grammar(texts, pattern, lambda fit: fit.cast(wanted.arrow), rest)


def _decimals_one_by_one(texts: pa.Array, wanted: LogicalType) -> pa.Array:
    """Slow path: exponents and very long numbers, rounded half up as Flink does; null when out of range."""
    odd = only(pc.match_substring_regex(texts, _FINITE), texts)
    with localcontext(prec=wanted.precision or 1, rounding=ROUND_HALF_UP):
        values = [_decimal(text, wanted.scale or 0) for text in odd.to_pylist()]
    return pa.array(values, wanted.arrow)


def _decimal(text: str | None, scale: int) -> Decimal | None:
    if text is None:
        return None
    try:
        return Decimal(text).quantize(Decimal(1).scaleb(-scale))
    except InvalidOperation:
        return None


def _base64(texts: pa.Array, _: LogicalType) -> pa.Array:
    def rest(odd: pa.Array) -> pa.Array:
        trimmed = trim(odd)
        good = pc.match_substring_regex(trimmed, rf"\A(?:[A-Za-z0-9+/]{{4}}[\x00-\x20]*)*{_BASE64_END}\z")
        return _base64_bytes(pc.replace_substring_regex(only(good, trimmed), r"[\x00-\x20]+", ""))

    return by_grammar(texts, rf"\A(?:[A-Za-z0-9+/]{{4}})*{_BASE64_END}\z", _base64_bytes, rest)


def _base64_bytes(texts: pa.Array) -> pa.Array:
    """The bytes that well-formed base64 without white space spells, all values at once."""
    data, bounds = byte_view(pc.fill_null(texts, ""))
    quads = data[bounds[0] : bounds[-1]].reshape(-1, 4)
    bits = _SIX_BITS[quads] << np.array([18, 12, 6, 0], np.uint32)
    joined = bits.sum(axis=1, dtype=np.uint32)
    triples = (joined[:, None] >> np.array([16, 8, 0], np.uint32)).astype(np.uint8)
    keep = np.ones(triples.shape, bool)
    keep[:, 1:] = quads[:, 2:] != ord("=")
    ends = np.concatenate([[0], np.cumsum(keep.sum(axis=1))]).astype(np.int32)
    offsets = ends[(bounds - bounds[0]) // 4]
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(triples[keep])]
    return only(texts.is_valid(), pa.Array.from_buffers(pa.binary(), len(texts), buffers))


def _elements(texts: pa.Array, rules: TextRules) -> tuple[pa.Array, Mask, "np.ndarray[tuple[int], np.dtype[np.int64]]"]:
    """Elements of all texts in a row, which texts are null, and where each text's elements start and end.

    A blank text has no element; every other one has one more than it has delimiters.
    """
    blank = as_mask(pc.equal(trim(texts), ""))
    lists = pc.split_pattern(texts, pattern=rules.element_delimiter)
    counts = np.asarray(pc.fill_null(pc.list_value_length(lists), 0), np.int64)
    owners = np.repeat(np.arange(len(texts)), counts)
    kept = pc.list_flatten(lists).filter(pa.array(~blank[owners]))
    counts[blank] = 0
    return kept, as_mask(texts.is_null()), np.concatenate([[0], np.cumsum(counts)])


def owners_of(bad: Mask | None, bounds: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> Mask | None:
    """The rows that own a bad element."""
    if bad is None:
        return None
    found = np.zeros(len(bounds) - 1, bool)
    found[np.searchsorted(bounds, np.flatnonzero(bad), side="right") - 1] = True
    return found


def _array(texts: pa.Array, wanted: LogicalType, rules: TextRules) -> Parsed:
    elements, null, bounds = _elements(texts, rules)
    inner = parse(elements, wanted.children[0], rules)
    values = pa.ListArray.from_arrays(pa.array(bounds, pa.int32()), inner.values, wanted.arrow, mask=pa.array(null))
    return Parsed(values, owners_of(inner.bad, bounds), inner.nulled)


def _row(texts: pa.Array, wanted: LogicalType, rules: TextRules) -> Parsed:
    """A blank text is a null row; missing elements are null where bad values may be, surplus ones are always bad."""
    elements, null, bounds = _elements(texts, rules)
    width = len(wanted.children)
    counts = np.diff(bounds)
    bad = counts > width if rules.lenient else (counts > 0) & (counts != width)
    null = null | (counts == 0) | bad
    nulled = int(bad.sum()) if rules.lenient else 0
    fields = []
    wrong: Mask | None = None if rules.lenient or not bad.any() else bad
    for place, child in enumerate(wanted.children):
        missing = null | (counts <= place)
        nulled += int((missing & ~null).sum())
        picked = elements.take(pa.array(bounds[:-1] + place, mask=missing))
        field = parse(picked, child, rules)
        fields.append(field.values)
        nulled += field.nulled
        wrong = either(wrong, None if field.bad is None else field.bad & ~null)
    values = pa.StructArray.from_arrays(fields, fields=list(wanted.arrow), mask=pa.array(null))
    return Parsed(values, wrong, nulled)


_READERS: dict[str, Callable[[pa.Array, LogicalType], pa.Array]] = {
    "BOOLEAN": _booleans,
    "TINYINT": _integers,
    "SMALLINT": _integers,
    "INT": _integers,
    "BIGINT": _integers,
    "FLOAT": _floats,
    "DOUBLE": _floats,
    "DECIMAL": _decimals,
    "DATE": lambda texts, _: dates(texts),
    "TIME": times,
    "TIMESTAMP": timestamps,
    "TIMESTAMP_LTZ": timestamps,
    "CHAR": _strings,
    "VARCHAR": _strings,
    "BINARY": _base64,
    "VARBINARY": _base64,
}
