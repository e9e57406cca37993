"""JSON values as they are written to a typed column, and which of them the column cannot give back."""

import json
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.formats.grammar import Mask, as_mask, differ, only
from vector_assets.formats.json_values import INTEGERS, TEXTS, read_texts
from vector_assets.formats.lake_fields import LakeField

NUMERIC = frozenset({*INTEGERS, "DECIMAL", "FLOAT", "DOUBLE"})
_TEXT, _NULL = ord('"'), ord("n")
_LETTERS = np.frombuffer(b"tf", np.uint8)
_OPENING = np.frombuffer(b"{[", np.uint8)
_FEW_DIGITS = {"DOUBLE": r"\A-?\d{1,15}\z|\A-?\d{1,7}\.\d{1,8}\z", "FLOAT": r"\A-?\d{1,6}\z|\A-?\d{1,3}\.\d{1,3}\z"}
"""Numbers that a binary fraction of that type gives back as they were."""


@dataclass(frozen=True, slots=True)
class Column:
    """Values of a field; `misfit` are not null in the document and null here; `inexact` are here, but not as written.

    `null` are null in the document.
    """

    values: pa.Array
    misfit: Mask
    inexact: Mask
    null: Mask


def kinds_of(heads: np.ndarray) -> dict[str, Mask]:
    """Masks by the first bytes of values: `string`, `null`, `boolean`, `part` (object or array), `number`."""
    kinds = {
        "string": heads == _TEXT,
        "null": heads == _NULL,
        "boolean": np.isin(heads, _LETTERS),
        "part": np.isin(heads, _OPENING),
    }
    kinds["number"] = ~(kinds["string"] | kinds["null"] | kinds["boolean"] | kinds["part"])
    return kinds


def kind_wanted(field: LakeField) -> str:
    """The kind of values that a column takes."""
    if field.type.name == "BOOLEAN":
        return "boolean"
    return "number" if field.type.name in NUMERIC else "string"


def read(field: LakeField, written: pa.Array, heads: np.ndarray, *, escaped: bool) -> Column:
    """The column of values as JSON writes them; `escaped`: a backslash may be among them."""
    kinds = kinds_of(heads)
    none = np.zeros(len(heads), bool)
    if field.json:
        null = kinds["null"]
        return Column(only(pa.array(~null), written) if null.any() else written, none, none, null)
    wanted = kind_wanted(field)
    fits = kinds[wanted]
    texts = written if fits.all() else only(pa.array(fits), written)
    if wanted == "string":
        texts = unquoted(texts, escaped=escaped)
    if field.type.name == "VARCHAR":
        return Column(
            texts, as_mask(texts.is_null()) & ~kinds["null"] if texts.null_count else none, none, kinds["null"]
        )
    values = read_texts(texts, field.type, iso=field.iso, lenient=True).values
    if field.type.name == "DECIMAL":
        values = _without_rounded(values, texts, field)
    misfit = as_mask(values.is_null()) & ~kinds["null"] if values.null_count else none
    return Column(values, misfit, _inexact(field, values, texts), kinds["null"])


def read_moments(field: LakeField, texts: pa.Array) -> Column:
    """The column of a date, a time or a timestamp that texts spell; a text that is none is a misfit."""
    values = read_texts(texts, field.type, iso=field.iso, lenient=True).values
    misfit = as_mask(values.is_null()) & as_mask(texts.is_valid())
    return Column(values, misfit, _inexact(field, values, texts), np.zeros(len(texts), bool))


def unquoted(written: pa.Array, *, escaped: bool) -> pa.Array:
    """The content of JSON texts; null for half a surrogate pair, which is no character."""
    content = pc.binary_slice(written.cast(pa.binary()), 1, -1).cast(pa.string())
    if not escaped:
        return content
    is_escaped = pc.fill_null(pc.match_substring(content, "\\"), fill_value=False)
    if not pc.any(is_escaped).as_py():
        return content
    return pc.replace_with_mask(content, is_escaped, _read_escapes(written.filter(is_escaped)))


def _read_escapes(written: pa.Array) -> pa.Array:
    """JSON texts with escapes, all in one document."""
    joined = pc.binary_join(pa.ListArray.from_arrays([0, len(written)], written), ",")[0].as_py()
    texts = json.loads(f"[{joined}]", strict=False)
    try:
        return pa.array(texts, pa.string())
    except UnicodeEncodeError:
        whole = [text if text.encode(errors="replace").decode() == text else None for text in texts]
        return pa.array(whole, pa.string())


def _without_rounded(values: pa.Array, texts: pa.Array, field: LakeField) -> pa.Array:
    """Null for numbers with more digits behind the point than the type has: Flink rounds them."""
    digits = field.type.scale or 0
    odd = as_mask(pc.match_substring_regex(texts, rf"\.\d{{{digits}}}\d*[1-9]|[eE]")) & as_mask(values.is_valid())
    if not odd.any():
        return values
    # slow path: numbers with an exponent, or with too many digits
    places = np.flatnonzero(odd)
    kept = np.ones(len(odd), bool)
    for place in places:
        kept[place] = Decimal(texts[int(place)].as_py()) == values[int(place)].as_py()
    return only(pa.array(kept), values)


def _inexact(field: LakeField, values: pa.Array, texts: pa.Array) -> Mask:
    """Values of which the column does not tell what the document said."""
    name = field.type.name
    if name in {"FLOAT", "DOUBLE"}:
        odd = as_mask(pc.and_(values.is_valid(), pc.invert(pc.match_substring_regex(texts, _FEW_DIGITS[name]))))
        if odd.any():
            odd[odd] = differ(values.filter(pa.array(odd)), texts.filter(pa.array(odd)))
        return odd
    if name in TEXTS or name in INTEGERS or name in {"BOOLEAN", "DECIMAL"}:
        return np.zeros(len(values), bool)
    if name == "DATE":
        return np.zeros(len(values), bool)
    # a time that was read has one of a few shapes: its length tells whether it is the one that `rebuild` gives
    digits = field.type.precision or 0
    length = (8 if name == "TIME" else 19) + (digits + 1 if digits else 0) + (name == "TIMESTAMP_LTZ")
    other = pc.not_equal(pc.binary_length(texts), length)
    if field.iso:
        other = pc.or_(other, pc.match_substring(texts, "t"))
    return as_mask(pc.and_(values.is_valid(), other))
