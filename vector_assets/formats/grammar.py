"""Whole columns of text against a grammar: what fits is converted at once, what does not becomes null."""

from collections.abc import Callable
from decimal import Decimal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

JAVA_SPACE = "".join(map(chr, range(33)))
"""What Java's String.trim removes: every character up to U+0020."""

_FEW_CUTS = 16

Convert = Callable[[pa.Array], pa.Array]
Mask = npt.NDArray[np.bool_]


def rune(char: str) -> str:
    """The character as a literal of a regular expression (RE2), inside or outside brackets."""
    return f"\\x{{{ord(char):x}}}"


def trim(texts: pa.Array) -> pa.Array:
    """The texts without Java's white space around them."""
    return pc.ascii_trim(texts, characters=JAVA_SPACE)


def only(good: pa.Array, values: pa.Array) -> pa.Array:
    """The values where `good` is true, null elsewhere."""
    # pyarrow 19: if_else of a sliced array of texts and a null scalar gives offsets out of bounds
    none = pa.nulls(len(values), values.type) if values.offset else pa.scalar(None, values.type)
    return pc.if_else(good, values, none)


def by_grammar(texts: pa.Array, pattern: str, convert: Convert, rest: Convert) -> pa.Array:
    """Texts that `pattern` matches go through `convert`, all others through `rest`; nulls stay null.

    `convert` may rely on the pattern; `rest` gives null for what it cannot read.
    """
    fits = pc.match_substring_regex(texts, pattern)
    if pc.all(fits).as_py() is not False:
        return convert(texts)
    values = convert(only(fits, texts))
    odd = pc.fill_null(pc.invert(fits), fill_value=False)
    return pc.replace_with_mask(values, odd, rest(texts.filter(odd)))


def as_mask(booleans: pa.Array) -> Mask:
    """A Boolean array as numpy, null being false."""
    return np.asarray(pc.fill_null(booleans, fill_value=False).to_numpy(zero_copy_only=False), bool)


def byte_view(values: pa.Array) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """The bytes behind a (sliced) binary or string array, and where each value starts and ends in them."""
    _, offsets, data = values.buffers()
    bounds = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1]
    if data is None:
        return np.empty(0, np.uint8), bounds
    return np.frombuffer(data, np.uint8), bounds


def spelled(data: npt.NDArray[np.uint8], start: npt.NDArray[np.int64], end: npt.NDArray[np.int64]) -> pa.Array:
    """The texts between these places, which do not overlap and are in order."""
    if not len(start):
        return pa.array([], pa.string())
    bounds = np.empty(2 * len(start), np.int32)
    bounds[0::2], bounds[1::2] = start, end
    apart = pa.StringArray.from_buffers(len(bounds) - 1, pa.py_buffer(bounds), pa.py_buffer(data))
    return apart.take(pa.array(np.arange(0, len(bounds) - 1, 2)))


def differ(values: pa.Array, texts: pa.Array) -> Mask:
    """Floating point numbers whose shortest spelling is another number than the text."""
    shortest = values.cast(pa.string())
    different = as_mask(pc.not_equal(shortest, texts))
    # slow path: what is spelled otherwise than Arrow would
    for place in np.flatnonzero(different):
        different[place] = Decimal(shortest[int(place)].as_py()) != Decimal(texts[int(place)].as_py())
    return different


def without(values: pa.Array, left_out: Mask) -> pa.Array:
    """The values that are not left out; cheap when few are, because runs are copied whole."""
    cuts = np.flatnonzero(left_out)
    if not len(cuts):
        return values
    if len(cuts) > _FEW_CUTS:
        return values.filter(pa.array(~left_out))
    starts, ends = np.concatenate([[0], cuts + 1]), np.concatenate([cuts, [len(values)]])
    return pa.concat_arrays([values.slice(start, end - start) for start, end in zip(starts, ends, strict=True)])


def not_utf8(texts: pa.Array, start: int) -> list[int]:
    """Places of the texts that are not UTF-8, by bisection."""
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        if len(texts) == 1:
            return [start]
        half = len(texts) // 2
        return not_utf8(texts.slice(0, half), start) + not_utf8(texts.slice(half), start + half)
    return []
