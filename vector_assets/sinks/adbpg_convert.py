"""Arrow types to the target's types: which conversions are allowed, and how a column is converted and checked.

A value the target cannot take refuses its row; the reason names what is wanted and never repeats the value.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.clients.pgcopy import Mask, Wire
from vector_assets.sinks.adbpg_catalog import TargetColumn
from vector_assets.sinks.kinds import is_list, kind_of
from vector_assets.sinks.refusals import Refuse
from vector_assets.sinks.vectors import check, limit_of, parse


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a converted column must be: the target's column and, for vectors, the dimension if known."""

    column: TargetColumn
    wire: Wire
    dimension: int | None = None


_LAST = np.iinfo(np.int64).max
_FIRST_DAY = -2_440_588
_FIRST_MOMENT = _FIRST_DAY * 86_400_000_000
"""Where PostgreSQL's calendar begins, counted from 1970."""

Conversion = Callable[[pa.Array, Wanted, Refuse], pa.Array]


def conversion(source: pa.DataType, wire: Wire) -> Conversion | None:
    """How to make `wire.arrow` of a column of type `source`; None when that is not allowed."""
    if pa.types.is_null(source):
        return lambda array, wanted, _: pa.nulls(len(array), wanted.wire.arrow)
    kind = kind_of(source)
    if is_vector(wire):
        return _VECTORS.get(kind) if _has_numbers(source) else None
    if wire.element is None:
        return _CONVERSIONS[wire.name].get(kind)
    if kind == "ARRAY" and conversion(source.value_type, wire.element):
        return _list_to_array
    return None


def accepted(wire: Wire) -> str:
    """The kinds of columns that a target of this type takes, for people."""
    if is_vector(wire):
        return "STRING, ARRAY of numbers"
    return f"ARRAY of {accepted(wire.element)}" if wire.element else ", ".join(_CONVERSIONS[wire.name])


def is_vector(wire: Wire) -> bool:
    """True for the types that vectors are stored in."""
    return wire.name in {"vector", "halfvec"} or (
        wire.element is not None and wire.element.name in {"float4", "float8"}
    )


def _has_numbers(source: pa.DataType) -> bool:
    """True for text (its numbers are read later) and for lists of numbers."""
    return not is_list(source) or kind_of(source.value_type) in {"INT", "DOUBLE", "DECIMAL"}


def _as_is(array: pa.Array, wanted: Wanted, _: Refuse) -> pa.Array:
    return array.cast(wanted.wire.arrow)


def _integer(array: pa.Array, wanted: Wanted, refuse: Refuse) -> pa.Array:
    try:
        return array.cast(wanted.wire.arrow)
    except pa.ArrowInvalid:
        limits = np.iinfo(f"int{wanted.wire.arrow.bit_width}")
        numbers = pc.fill_null(array, 0).to_numpy(zero_copy_only=False)
        is_outside = (numbers < limits.min) | (numbers > limits.max)
        refuse(is_outside, f"out of range for {wanted.column.spelled}")
        return pc.if_else(pa.array(is_outside), pa.scalar(0, array.type), array).cast(wanted.wire.arrow)


def _float(array: pa.Array, wanted: Wanted, refuse: Refuse) -> pa.Array:
    numbers = array.cast(wanted.wire.arrow, safe=False)
    if wanted.wire.name == "float4" and pa.types.is_float64(array.type):
        is_overflow = pc.and_(pc.is_inf(numbers), pc.invert(pc.is_inf(array)))
        refuse(_flags(is_overflow), f"out of range for {wanted.column.spelled}")
    return numbers


def _flags(condition: pa.Array) -> Mask:
    return np.asarray(pc.fill_null(condition, fill_value=False).to_numpy(zero_copy_only=False))


def _whole_decimal(array: pa.Array, _wanted: Wanted, _refuse: Refuse) -> pa.Array:
    wide = array.cast(pa.uint64() if pa.types.is_unsigned_integer(array.type) else pa.int64())
    return wide.cast(pa.decimal128(20, 0))


def _decimal(array: pa.Array, _wanted: Wanted, _refuse: Refuse) -> pa.Array:
    return array if array.type.scale >= 0 else array.cast(pa.decimal128(38, 0))


def _text(array: pa.Array, wanted: Wanted, refuse: Refuse) -> pa.Array:
    values = array.cast(pa.large_string())
    if _holds_zero_byte(values):
        refuse(_flags(pc.match_substring(values, "\0")), "holds a zero byte, which the target cannot store")
    limit = wanted.column.length
    if limit is not None and (pc.max(pc.binary_length(values)).as_py() or 0) > limit:
        # the server cuts blanks at the end and refuses the rest
        lengths = pc.fill_null(pc.utf8_length(pc.utf8_rtrim(values, " ")), 0).to_numpy(zero_copy_only=False)
        spelled = wanted.column.spelled
        refuse(lengths > limit, lambda row: f"{lengths[row]} characters, {spelled} takes {limit}")
    return values.cast(pa.large_binary())


def _holds_zero_byte(values: pa.Array) -> bool:
    if len(values) == 0 or values.buffers()[2] is None:
        return False
    ends = np.frombuffer(values.buffers()[1], np.int64)[values.offset : values.offset + len(values) + 1]
    return bool((np.frombuffer(values.buffers()[2], np.uint8)[ends[0] : ends[-1]] == 0).any())


def _bytes(array: pa.Array, _wanted: Wanted, _refuse: Refuse) -> pa.Array:
    if pa.types.is_fixed_size_binary(array.type):
        array = array.cast(pa.binary())
    return array.cast(pa.large_binary())


def _uuid(array: pa.Array, _wanted: Wanted, refuse: Refuse) -> pa.Array:
    digits = pc.replace_substring(pc.utf8_trim(array, "{}"), "-", "")
    is_right = pc.match_substring_regex(digits, "^[0-9a-fA-F]{32}$")
    refuse(_flags(pc.invert(is_right)), "is not a UUID")
    usable = pc.if_else(pc.fill_null(is_right, fill_value=False), digits, "0" * 32).cast(pa.string())
    joined = pc.binary_join(pa.ListArray.from_arrays(pa.array([0, len(usable)], pa.int32()), usable), "")
    data = pa.py_buffer(bytes.fromhex(joined[0].as_py()))
    values = pa.Array.from_buffers(pa.binary(16), len(array), [None, data])
    return pc.if_else(array.is_valid(), values, None)


def _date(array: pa.Array, wanted: Wanted, refuse: Refuse) -> pa.Array:
    days = array.cast(pa.date32())
    _refuse_before(_FIRST_DAY, days.view(pa.int32()), wanted, refuse)
    return days


def _refuse_before(first: int, counts: pa.Array, wanted: Wanted, refuse: Refuse) -> None:
    """The target's calendar begins in 4713 BC; what is far before would come out as far in the future."""
    least = pc.min(counts).as_py()
    if least is not None and least < first:
        refuse(_flags(pc.less(counts, first)), f"out of range for {wanted.column.spelled}")


def _timestamp(array: pa.Array, wanted: Wanted, refuse: Refuse) -> pa.Array:
    if array.type.unit == "ns":
        nanos = pc.fill_null(array.view(pa.int64()), 0).to_numpy(zero_copy_only=False)
        array = pc.if_else(array.is_valid(), pa.array(nanos // 1000).view(pa.timestamp("us")), None)
    micros = pa.timestamp("us", array.type.tz)
    try:
        moments = array.cast(micros)
    except pa.ArrowInvalid:
        factor = {"s": 1_000_000, "ms": 1000}[array.type.unit]
        counts = pc.fill_null(array.view(pa.int64()), 0).to_numpy(zero_copy_only=False)
        is_outside = (counts > _LAST // factor) | (counts < -_LAST // factor)
        refuse(is_outside, f"out of range for {wanted.column.spelled}")
        moments = pc.if_else(pa.array(is_outside), None, array).cast(micros)
    _refuse_before(_FIRST_MOMENT, moments.view(pa.int64()), wanted, refuse)
    return moments.view(wanted.wire.arrow)


def _date_to_timestamp(array: pa.Array, wanted: Wanted, refuse: Refuse) -> pa.Array:
    return _timestamp(array.cast(pa.date32()).cast(pa.timestamp("s")), wanted, refuse)


def _time(array: pa.Array, _wanted: Wanted, _refuse: Refuse) -> pa.Array:
    return array.cast(pa.time64("us"), safe=False)


def _text_to_vector(array: pa.Array, wanted: Wanted, refuse: Refuse) -> pa.Array:
    numbers = pa.float64() if wanted.wire.element and wanted.wire.element.name == "float8" else pa.float32()
    return _checked(parse(array.cast(pa.string()), numbers, refuse), wanted, refuse)


def _list_to_vector(array: pa.Array, wanted: Wanted, refuse: Refuse) -> pa.Array:
    numbers = pa.float64() if wanted.wire.element and wanted.wire.element.name == "float8" else pa.float32()
    return _checked(_children(array, lambda children: children.cast(numbers, safe=False)), wanted, refuse)


def _checked(vectors: pa.Array, wanted: Wanted, refuse: Refuse) -> pa.Array:
    is_strict = wanted.wire.element is None or wanted.dimension is not None
    check(vectors, wanted.dimension, limit_of(wanted.wire.name), refuse, is_strict=is_strict)
    return vectors


def _list_to_array(array: pa.Array, wanted: Wanted, refuse: Refuse) -> pa.Array:
    element = wanted.wire.element
    convert = conversion(array.type.value_type, element) if element else None
    if element is None or convert is None:
        raise AssertionError("unreachable: the plan allows only what can be converted")
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    row_of = np.repeat(np.arange(len(array)), lengths)

    def refuse_lists(children: Mask, reason: str | Callable[[int], str]) -> None:
        rows = np.zeros(len(array), np.bool_)
        rows[row_of[children]] = True
        refuse(rows, reason if isinstance(reason, str) else f"an element has {reason(int(np.argmax(children)))}")

    return _children(array, lambda children: convert(children, Wanted(wanted.column, element), refuse_lists))


def _children(array: pa.Array, convert: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """The same lists with converted elements."""
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    offsets = np.zeros(len(array) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    mask = pc.is_null(array) if array.null_count else None
    return pa.ListArray.from_arrays(pa.array(offsets), convert(array.flatten()), mask=mask)


_INTEGERS: Mapping[str, Conversion] = {"INT": _integer}
_FLOATS: Mapping[str, Conversion] = {"DOUBLE": _float, "INT": _float, "DECIMAL": _float}
_TEXTS: Mapping[str, Conversion] = {"STRING": _text}
_TIMESTAMPS: Mapping[str, Conversion] = {"TIMESTAMP": _timestamp, "DATE": _date_to_timestamp}
_VECTORS: Mapping[str, Conversion] = {"STRING": _text_to_vector, "ARRAY": _list_to_vector}

_CONVERSIONS: Mapping[str, Mapping[str, Conversion]] = {
    "bool": {"BOOLEAN": _as_is},
    "int2": _INTEGERS,
    "int4": _INTEGERS,
    "int8": _INTEGERS,
    "float4": _FLOATS,
    "float8": _FLOATS,
    "numeric": {"DECIMAL": _decimal, "INT": _whole_decimal},
    "text": _TEXTS,
    "json": _TEXTS,
    "jsonb": _TEXTS,
    "uuid": {"STRING": _uuid},
    "bytea": {"BYTES": _bytes},
    "date": {"DATE": _date},
    "time": {"TIME": _time},
    "timestamp": _TIMESTAMPS,
    "timestamptz": _TIMESTAMPS,
}
"""Target type -> kind of column it takes -> how. Integers are checked against the target's range."""
