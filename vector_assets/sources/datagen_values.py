"""Random and counted values as Arrow arrays: each a pure function of its field and its row's number.

A row is the same whenever it is generated, so a span that is read again gives the same records. Random bits are
splitmix64 of (field, row, element), vectorised over the rows.
"""

import hashlib
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.sources.datagen_options import INTEGERS, Spec

Words = npt.NDArray[np.uint64]
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_NULLS = 1
_LENGTHS = 2


def values(spec: Spec, rows: Words, at_ms: int) -> pa.Array:
    """One value per row number; `at_ms` is the time (ms since the epoch) that DATE, TIME and TIMESTAMP go by."""
    array = _sequence(spec, rows) if spec.is_sequence else _random(spec, rows, at_ms)
    if not spec.null_rate:
        return array
    is_null = _unit(_bits(spec, rows, _NULLS)) < spec.null_rate
    return pc.if_else(pa.array(is_null), pa.nulls(len(rows), array.type), array)


def _random(spec: Spec, rows: Words, at_ms: int) -> pa.Array:
    name, arrow = spec.type.name, spec.type.arrow
    if name in {"ARRAY", "MAP"}:
        return _collection(spec, rows, at_ms)
    if name == "ROW":
        children = [values(child, rows, at_ms) for child in spec.children]
        return pa.StructArray.from_arrays(children, fields=list(arrow))
    if name in {"CHAR", "VARCHAR", "BINARY", "VARBINARY"}:
        return _texts(spec, rows)
    if name in {"DATE", "TIME", "TIMESTAMP", "TIMESTAMP_LTZ"}:
        return _times(spec, rows, at_ms)
    bits = _bits(spec, rows, 0)
    if name == "BOOLEAN":
        return pa.array((bits & np.uint64(1)).astype(np.bool_))
    if name in INTEGERS:
        return _integers(bits, int(-(-spec.low // 1)), int(spec.high // 1)).cast(arrow)
    if name == "DECIMAL":
        scale = spec.type.scale or 0
        least, most = (int(limit.scaleb(scale).to_integral_value()) for limit in (spec.low, spec.high))
        # Arrow cannot compute with 38 digits
        unscaled = [least + int(each) * (most - least) // (2**64 - 1) for each in bits]
        return pa.array([Decimal(each).scaleb(-scale) for each in unscaled], arrow)
    low, high = float(spec.low), float(spec.high)
    unit = _unit(bits)
    return pa.array(low * (1 - unit) + high * unit).cast(arrow)


def _sequence(spec: Spec, rows: Words) -> pa.Array:
    numbers = pa.array(rows.astype(np.int64) + int(spec.low))
    return (
        numbers.cast(pa.decimal128(38, 0)).cast(spec.type.arrow)
        if spec.type.name == "DECIMAL"
        else numbers.cast(spec.type.arrow)
    )


def _integers(bits: Words, low: int, high: int) -> pa.Array:
    width = high - low + 1
    offset = bits if width > np.iinfo(np.uint64).max else bits % np.uint64(width)
    # two's complement: the sum wraps to the right number
    return pa.array((offset + np.uint64(low % 2**64)).view(np.int64))


def _texts(spec: Spec, rows: Words) -> pa.Array:
    """Hexadecimal digits, as Flink's; a BINARY has any bytes."""
    length = spec.length
    words = -(-length // 8)
    elements = np.arange(words, dtype=np.uint64)
    raw = _bits(spec, (rows[:, None] * np.uint64(words) + elements[None, :]).ravel(), 0).view(np.uint8)
    body = raw.reshape(len(rows), words * 8)[:, :length]
    if pa.types.is_string(spec.type.arrow):
        body = _HEX[body & 0x0F]
    lengths = np.full(len(rows), length, np.int32)
    if spec.is_var_len:
        lengths = (1 + _bits(spec, rows, _LENGTHS) % np.uint64(length)).astype(np.int32)
        body = body[np.arange(length)[None, :] < lengths[:, None]]
    offsets = np.concatenate([np.zeros(1, np.int32), np.cumsum(lengths, dtype=np.int32)])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(body))]
    return pa.Array.from_buffers(spec.type.arrow, len(rows), buffers)


def _times(spec: Spec, rows: Words, at_ms: int) -> pa.Array:
    now = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)
    if spec.type.name == "DATE":
        return pa.repeat(pa.scalar(now.date(), pa.date32()), len(rows))
    if spec.type.name == "TIME":
        return pa.repeat(pa.scalar(now.time(), spec.type.arrow), len(rows))
    past = int(spec.max_past / timedelta(milliseconds=1))
    times = np.full(len(rows), at_ms, np.int64)
    if past:
        times -= (_bits(spec, rows, 0) % np.uint64(past)).astype(np.int64)
    return pa.array(times).cast(pa.timestamp("ms", tz=spec.type.arrow.tz)).cast(spec.type.arrow)


def _collection(spec: Spec, rows: Words, at_ms: int) -> pa.Array:
    elements = np.arange(spec.length, dtype=np.uint64)
    inner = (rows[:, None] * np.uint64(spec.length) + elements[None, :]).ravel()
    offsets = pa.array(np.arange(len(rows) + 1, dtype=np.int32) * spec.length)
    children = [values(child, inner, at_ms) for child in spec.children]
    if spec.type.name == "ARRAY":
        return pa.ListArray.from_arrays(offsets, children[0], type=spec.type.arrow)
    return pa.MapArray.from_arrays(offsets, *children, type=spec.type.arrow)


def _bits(spec: Spec, numbers: Words, salt: int) -> Words:
    seed = np.uint64(int.from_bytes(hashlib.sha256(f"{spec.name}/{salt}".encode()).digest()[:8]))
    with np.errstate(over="ignore"):
        return _mix(_mix(numbers + seed) ^ seed)


def _mix(words: Words) -> Words:
    words = words + _GOLDEN
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _unit(bits: Words) -> npt.NDArray[np.float64]:
    """Numbers from 0 (inclusive) to 1 (exclusive)."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
