"""Vectors on their way into the target: feature texts parsed and numbers checked, column by column.

A vector is refused when its text is no list of numbers, it has the wrong number of dimensions, or a value is NaN,
infinite or too large for the target's element type.
"""

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.sinks.refusals import Mask, Refuse

_HALF_OVERFLOW = 65_520.0
"""The smallest number that does not round to a finite halfvec element."""

_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^[+-]?(?i:nan|inf|infinity)$"


def parse(texts: pa.Array, numbers: pa.DataType, refuse: Refuse) -> pa.Array:
    """Lists of `numbers` from `{1,2}`, `[1, 2]` or JSON; a refused text becomes null."""
    shaped = _in_brackets(texts, refuse)
    inner = pc.utf8_slice_codeunits(shaped, 1, -1)
    try:
        return _split(inner, numbers)
    except pa.ArrowInvalid:
        # blanks, an empty list, or a text that is no number somewhere in the batch
        return _split_with_care(shaped, pc.utf8_trim_whitespace(inner), numbers, refuse)


def _in_brackets(texts: pa.Array, refuse: Refuse) -> pa.Array:
    """The texts that stand in matching brackets, blanks around them cut off; null for the others."""
    is_right = _has_brackets(texts)
    if is_right.all():
        return texts
    texts = pc.utf8_trim_whitespace(texts)
    is_wrong = ~_has_brackets(texts)
    refuse(is_wrong, "a vector is written {1,2,3} or [1,2,3]: found no such brackets")
    return pc.if_else(pa.array(is_wrong), None, texts)


def _has_brackets(texts: pa.Array) -> Mask:
    """True for nulls and for texts that begin and end with a pair of brackets."""
    braces = pc.and_(pc.starts_with(texts, "{"), pc.ends_with(texts, "}"))
    brackets = pc.and_(pc.starts_with(texts, "["), pc.ends_with(texts, "]"))
    return np.asarray(pc.fill_null(pc.or_(braces, brackets), fill_value=True).to_numpy(zero_copy_only=False))


def _split(inner: pa.Array, numbers: pa.DataType) -> pa.Array:
    parts = pc.split_pattern(inner, ",")
    return _lists(_lengths(parts), parts.flatten().cast(numbers), inner)


def _split_with_care(shaped: pa.Array, inner: pa.Array, numbers: pa.DataType, refuse: Refuse) -> pa.Array:
    parts = pc.split_pattern(inner, ",")
    tokens = pc.utf8_trim_whitespace(parts.flatten())
    lengths = _lengths(parts)
    is_empty = np.asarray(pc.fill_null(pc.equal(inner, ""), fill_value=False).to_numpy(zero_copy_only=False))
    is_number = pc.match_substring_regex(tokens, _NUMBER)
    row_of = np.repeat(np.arange(len(inner)), lengths)
    is_bad = np.zeros(len(inner), np.bool_)
    is_bad[row_of[~is_number.to_numpy(zero_copy_only=False)]] = True
    is_bad &= ~is_empty
    refuse(is_bad, "a value of the vector is not a number")
    values = pc.if_else(is_number, tokens, "0").cast(numbers).to_numpy(zero_copy_only=False)
    is_kept = ~(is_bad | is_empty)
    lengths = np.where(is_kept, lengths, 0)
    return _lists(lengths, pa.array(values[is_kept[row_of]]), pc.if_else(pa.array(is_bad), None, shaped))


def _lengths(lists: pa.Array) -> npt.NDArray[np.int64]:
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return np.asarray(lengths.astype(np.int64))


def _lists(lengths: npt.NDArray[np.int64], values: pa.Array, like: pa.Array) -> pa.Array:
    """Lists of these lengths, null where `like` is."""
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    mask = pc.is_null(like) if like.null_count else None
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=mask)


def check(vectors: pa.Array, dimension: int | None, limit: float, refuse: Refuse, *, is_strict: bool) -> None:
    """Refuse vectors with another number of dimensions or with values that are not numbers below `limit`.

    `is_strict` refuses missing values too, which plain arrays may have.
    """
    lengths = _lengths(vectors)
    valid = np.asarray(vectors.is_valid().to_numpy(zero_copy_only=False))
    if dimension is not None:
        refuse(valid & (lengths != dimension), lambda row: f"{lengths[row]} dimensions, wanted {dimension}")
    elif is_strict:
        refuse(valid & (lengths == 0), "a vector without dimensions")
    children = vectors.flatten()
    if children.null_count and is_strict:
        refuse(_any_per_list(children.is_null(), lengths), "a value of the vector is missing")
    magnitudes = np.abs(pc.fill_null(children, 0.0).to_numpy(zero_copy_only=False))
    # false for NaN too
    is_right = magnitudes < limit
    if not is_right.all():
        is_nan = np.isnan(magnitudes)
        refuse(_any_per_list(is_nan, lengths), "a value of the vector is NaN")
        refuse(_any_per_list(~is_right & ~is_nan, lengths), "a value of the vector is infinite or out of range")


def json_texts(vectors: pa.Array) -> pa.Array:
    """Vectors of floats, all finite, as JSON in the fewest digits that mean the same float; `null` for null."""
    lengths, valid = _lengths(vectors), np.asarray(vectors.is_valid().to_numpy(zero_copy_only=False))
    texts = [pa.array(["null"], pa.large_string())]
    places, count = np.zeros(len(vectors), np.int64), 1
    for length in np.unique(lengths[valid]).tolist():
        is_such = valid & (lengths == length)
        such = vectors if is_such.all() else vectors.filter(pa.array(is_such))
        numbers = such.flatten().to_numpy().reshape(len(such), length)
        step = max(_AT_ONCE // max(length, 1), 1)
        texts += [_json_lists(numbers[at : at + step]) for at in range(0, len(such), step)]
        if len(such) == len(vectors):
            return pa.concat_arrays(texts[1:])
        places[is_such] = np.arange(count, count + len(such))
        count += len(such)
    return pa.concat_arrays(texts).take(pa.array(places))


def _json_lists(numbers: npt.NDArray[np.float32]) -> pa.Array:
    text = orjson.dumps(np.ascontiguousarray(numbers), option=orjson.OPT_SERIALIZE_NUMPY)
    inner = pc.split_pattern(pa.array([memoryview(text)[2:-2]], pa.large_binary()), "],[").flatten()
    opening, closing, nothing = (pa.scalar(each, pa.large_binary()) for each in (b"[", b"]", b""))
    return pc.binary_join_element_wise(opening, inner, closing, nothing).view(pa.large_string())


_AT_ONCE = 1 << 19
"""Numbers that are written in one go: 4 MB of text, about."""


def _any_per_list(flags: Mask | pa.Array, lengths: npt.NDArray[np.int64]) -> Mask:
    marked = np.zeros(len(lengths), np.bool_)
    marked[np.repeat(np.arange(len(lengths)), lengths)[np.asarray(flags)]] = True
    return marked


def limit_of(wire: str) -> float:
    """The first magnitude that a target's element type does not take; infinite when its Arrow type ends there too."""
    return _HALF_OVERFLOW if wire == "halfvec" else np.inf
