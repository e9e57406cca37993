"""Avro's raw values as a table's types: whole columns, with the values that do not fit marked."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine.schema import LogicalType
from vector_assets.formats.avro_cursor import Flags
from vector_assets.formats.avro_schema import Avro
from vector_assets.formats.grammar import as_mask, byte_view

Raw = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Column:
    """Values of the wanted type; `bad` marks those that are not, with what was `wanted` of them."""

    values: pa.Array
    bad: Flags | None = None
    wanted: str = ""


Convert = Callable[[Raw], Column]
ConvertBytes = Callable[[pa.Array], Column]

_UNITS = {"millis": 1_000_000, "micros": 1_000, "nanos": 1}
_UNIT_OF = {"ms": "millis", "us": "micros", "ns": "nanos"}
_DAY_US = 86_400_000_000
_BITS = {"TINYINT": 8, "SMALLINT": 16, "INT": 32}
_ROOMIEST = 32
"""Bytes of a DECIMAL that we look at; 16 hold 38 digits, longer ones may only repeat the sign."""


def numbers(writer: Avro, wanted: LogicalType) -> Convert:
    """How numbers of the writer become the wanted type."""
    name = wanted.name
    if name in _BITS:
        return _integers(wanted)
    if name == "DATE":
        return lambda raw: Column(pa.array(raw.astype(np.int32)).view(pa.date32()))
    if name == "TIME":
        return _times(1 if writer.logical == "time-micros" else 1000)
    if name in {"TIMESTAMP", "TIMESTAMP_LTZ"}:
        return _timestamps(writer, wanted)
    kind = wanted.arrow.to_pandas_dtype()

    def convert(raw: "np.ndarray[tuple[int], np.dtype[np.generic]]") -> Column:
        # a signalling NaN is a number like any other
        with np.errstate(invalid="ignore"):
            return Column(pa.array(raw.astype(kind), wanted.arrow))

    return convert


def _integers(wanted: LogicalType) -> Convert:
    top = 2 ** (_BITS[wanted.name] - 1)
    kind = wanted.arrow.to_pandas_dtype()

    def convert(raw: Raw) -> Column:
        values = raw.astype(np.int64)
        bad = (values < -top) | (values >= top)
        return Column(pa.array(values.astype(kind)), bad, f"{wanted}, which goes from {-top} to {top - 1}")

    return convert


def _times(factor: int) -> Convert:
    def convert(raw: Raw) -> Column:
        values = raw.astype(np.int64)
        bad = (values < 0) | (values >= _DAY_US // factor)
        return Column(pa.array(np.where(bad, 0, values) * factor).view(pa.time64("us")), bad, "a time of day")

    return convert


def _timestamps(writer: Avro, wanted: LogicalType) -> Convert:
    kind = wanted.arrow
    given = (writer.logical or "").rpartition("-")[2]
    given_ns, wanted_ns = _UNITS.get(given, _UNITS[_UNIT_OF[kind.unit]]), _UNITS[_UNIT_OF[kind.unit]]

    def convert(raw: Raw) -> Column:
        values = raw.astype(np.int64)
        if given_ns <= wanted_ns:
            return Column(pa.array(values // (wanted_ns // given_ns)).view(kind))
        factor = given_ns // wanted_ns
        most = (2**63 - 1) // factor
        bad = (values > most) | (values < -most)
        return Column(pa.array(np.where(bad, 0, values) * factor).view(kind), bad, f"{wanted} within 64 bits")

    return convert


def booleans(raw: Raw) -> Column:
    """One byte each, 0 or 1."""
    return Column(pa.array(raw.astype(bool)), raw.astype(np.int64) > 1, "a boolean, a byte 0 or 1")


def bytes_of(wanted: LogicalType, scale: int) -> ConvertBytes:
    """How bytes of the writer become the wanted type; `scale` is that of a DECIMAL as written."""
    if wanted.name == "DECIMAL":
        return lambda values: _decimals(values, wanted, scale)
    if wanted.name in {"CHAR", "VARCHAR"}:
        return texts
    return Column


def texts(values: pa.Array) -> Column:
    """UTF-8 bytes as text."""
    try:
        return Column(values.cast(pa.string()))
    except pa.ArrowInvalid:
        bad = np.zeros(len(values), bool)
        bad[_not_utf8(values, 0)] = True
        return Column(pc.if_else(pa.array(bad), b"", values).cast(pa.string()), bad, "text in UTF-8")


def _not_utf8(values: pa.Array, first: int) -> list[int]:
    """Places of values that are no UTF-8, found by halving."""
    try:
        values.cast(pa.string())
    except pa.ArrowInvalid:
        half = len(values) // 2
        if not half:
            return [first]
        return _not_utf8(values.slice(0, half), first) + _not_utf8(values.slice(half), first + half)
    return []


def _decimals(values: pa.Array, wanted: LogicalType, scale: int) -> Column:
    """Two's complement, most significant byte first, of `scale` fraction digits."""
    data, bounds = byte_view(values)
    ends, sizes = bounds[1:].astype(np.int64), np.diff(bounds)
    bad = (sizes == 0) | (sizes > _ROOMIEST)
    if not len(data) or not len(sizes):
        return Column(pa.nulls(len(values), wanted.arrow), bad, f"{wanted}, found no byte")
    sign = np.where(data[np.minimum(bounds[:-1], len(data) - 1)] >= 128, 255, 0).astype(np.uint8)
    little = np.empty((len(sizes), _ROOMIEST), np.uint8)
    for step in range(_ROOMIEST):
        little[:, step] = np.where(step < sizes, data[np.maximum(ends - 1 - step, 0)], sign)
    # what lies over 127 bits must repeat the sign
    bad |= (little[:, 16:] != sign[:, None]).any(axis=1) | ((little[:, 15] >= 128) != (sign >= 128))
    raw = np.ascontiguousarray(little[:, :16])
    raw[bad] = 0
    whole = pa.Array.from_buffers(pa.decimal128(38, scale), len(sizes), [None, pa.py_buffer(raw)])
    fits, made = _rescaled(whole, wanted, scale)
    return Column(made, bad | ~fits, f"{wanted} without a digit lost")


def _rescaled(whole: pa.Array, wanted: LogicalType, scale: int) -> tuple[Flags, pa.Array]:
    """Which values the wanted type holds, and those values (others 0)."""
    target = wanted.scale or 0
    sane = _between(whole, _nines(38, scale))
    wide = pc.if_else(pa.array(sane), whole, pa.scalar(Decimal(0), whole.type))
    if scale != target:
        wide = wide.cast(pa.decimal256(76, 38))
    fits = sane & _between(wide, _nines(wanted.precision or 0, target))
    if scale > target:
        fits &= as_mask(pc.equal(pc.round(wide, target), wide))
    kept = pc.if_else(pa.array(fits), wide, pa.scalar(Decimal(0), wide.type))
    return fits, kept.cast(wanted.arrow)


def _nines(digits: int, scale: int) -> Decimal:
    """The largest number of so many digits, made without arithmetic: Python's rounds to 28 digits."""
    return Decimal((0, (9,) * digits, -scale))


def _between(values: pa.Array, most: Decimal) -> Flags:
    scalar = pa.scalar(most, values.type)
    low = pa.scalar(most.copy_negate(), values.type)
    return as_mask(pc.and_(pc.less_equal(values, scalar), pc.greater_equal(values, low)))
