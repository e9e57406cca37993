"""The bucket of a row of a Delta table, a column at a time: the hash of odps/tunnel/hasher.py.

The hashes (int32) of the key columns are added up, a null counts as 0; the sum is mixed once and taken modulo the
number of buckets, never below 0.

DECIMAL is hashed as the SDK for Java does it (its tests give the numbers that the tests here repeat), because pyodps
0.13.2 takes a scale of 0 for none, and hashes a DECIMAL(p, 0) as one of 18 digits after the point.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vector_assets.clients.maxcompute import MaxColumn
from vector_assets.engine.errors import PlanError

Words = NDArray[np.int32]
_NANOS = 1_000_000_000
_TRUE, _FALSE = 0x172BA9C7, -0x3A59CB12
_WHOLE = frozenset({"TINYINT", "SMALLINT", "INT", "BIGINT"})
_STAMPS = frozenset({"TIMESTAMP", "TIMESTAMP_LTZ"})
HASHABLE = _WHOLE | _STAMPS | {
    "BOOLEAN", "FLOAT", "DOUBLE", "DECIMAL", "CHAR", "VARCHAR", "BINARY", "VARBINARY", "DATE"
}  # fmt: skip
"""Types of key columns whose bucket we know."""
_MOST_DIGITS = 18
"""A DECIMAL of more digits is hashed as two words."""


def buckets_of(rows: pa.Table, key: Sequence[MaxColumn], count: int, hasher: str = "default") -> NDArray[np.int64]:
    """The bucket of every row.

    Raises:
        PlanError: a key column of a type that has no hash here, or a hasher that is not known.
    """
    if hasher not in {"default", "legacy"}:
        raise PlanError(f"maxcompute: the service hashes keys by {hasher!r}; known: default, legacy")
    total = np.zeros(rows.num_rows, np.int32)
    for column in key:
        values = rows.column(column.name).combine_chunks()
        hashes = _hashes(values, column, is_legacy=hasher == "legacy")
        if values.null_count:
            hashes = np.where(np.asarray(values.is_valid()), hashes, np.int32(0))
        total += hashes
    total ^= total >> np.int32(8)
    return np.mod(total.astype(np.int64), count)


def _hashes(values: pa.Array, column: MaxColumn, *, is_legacy: bool) -> Words:
    name = column.type.name
    whole = _legacy_whole if is_legacy else _whole
    if name in _WHOLE:
        return whole(_numbers(values))
    if name == "BOOLEAN":
        flags = np.asarray(values.fill_null(False))  # noqa: FBT003 (pyarrow's)
        return np.where(flags, np.int32(_TRUE), np.int32(_FALSE))
    if name in {"FLOAT", "DOUBLE"}:
        floats = np.asarray(values.fill_null(0.0))
        return whole(floats.view(np.int32 if name == "FLOAT" else np.int64).astype(np.int64))
    if name == "DATE":
        return whole(_numbers(values.cast(pa.int32())) * 86_400)
    if name in _STAMPS:
        moments = _numbers(values)
        if column.type.precision == 3:
            return whole(moments)
        seconds, nanos = np.divmod(moments, _NANOS)
        return whole((seconds << 30) | nanos)
    if name == "DECIMAL" and not is_legacy:
        return _decimals(values, column.type.precision or 38)
    if name in HASHABLE and name != "DECIMAL":
        return _texts(values, is_legacy=is_legacy)
    known = HASHABLE - {"DECIMAL"} if is_legacy else HASHABLE
    hasher = " by the service's legacy hasher" if is_legacy else ""
    raise PlanError(
        f"maxcompute: key column {column.name} is {column.text}; keys may be{hasher}: {', '.join(sorted(known))}"
    )


def _decimals(values: pa.Array, precision: int) -> Words:
    """The digits without a point as a whole number: of 64 bits, or of 128 as two of 64."""
    words = np.frombuffer(values.buffers()[1] or b"", np.int64).reshape(-1, 2)
    words = words[values.offset : values.offset + len(values)]
    low = _whole(words[:, 0])
    return low if precision <= _MOST_DIGITS else low + _whole(words[:, 1])


def _numbers(values: pa.Array) -> NDArray[np.int64]:
    return np.asarray(values.cast(pa.int64()).fill_null(0))


def _whole(values: NDArray[np.int64]) -> Words:
    with np.errstate(over="ignore"):
        x = ~values + (values << 18)
        x ^= x >> 31
        x = x * 21
        x ^= x >> 11
        x = x + (x << 6)
        x ^= x >> 22
    found: Words = x.astype(np.int32)
    return found


def _legacy_whole(values: NDArray[np.int64]) -> Words:
    return ((values >> 32) ^ values).astype(np.int32)


def _texts(values: pa.Array, *, is_legacy: bool) -> Words:
    """Byte by byte over all texts at once: as many steps as the longest text has bytes."""
    data: Any = values.cast(pa.binary()).fill_null(b"")
    offsets = np.frombuffer(data.buffers()[1], np.int32)[data.offset : data.offset + len(data) + 1].astype(np.int64)
    body = np.frombuffer(data.buffers()[2] or b"", np.int8)
    lengths = np.diff(offsets)
    order = np.argsort(-lengths, kind="stable")
    ends = np.searchsorted(-lengths[order], -np.arange(int(lengths.max(initial=0))), side="left")
    starts = offsets[:-1][order]
    hashes = np.zeros(len(data), np.int32)
    with np.errstate(over="ignore"):
        for place, end in enumerate(ends.tolist()):
            part = hashes[:end]
            byte = body[starts[:end] + place].astype(np.int32)
            part[:] = part * np.int32(31) + byte if is_legacy else _mixed(part + byte)
        if not is_legacy:
            hashes += hashes << np.int32(3)
            hashes ^= hashes >> np.int32(11)
            hashes += hashes << np.int32(15)
    found = np.empty_like(hashes)
    found[order] = hashes
    return found


def _mixed(part: Words) -> Words:
    part = part + (part << np.int32(10))
    return part ^ (part >> np.int32(6))


def split_by(numbers: NDArray[np.int64], rows: pa.Table) -> dict[int, pa.Table]:
    """Rows by their number, in their order; numbers without rows are left out."""
    if not len(numbers):
        return {}
    order = np.argsort(numbers, kind="stable")
    sorted_rows = rows.take(pa.array(order))
    found, starts = np.unique(numbers[order], return_index=True)
    ends = [*starts[1:].tolist(), len(numbers)]
    return {
        int(number): sorted_rows.slice(start, end - start)
        for number, start, end in zip(found.tolist(), starts.tolist(), ends, strict=True)
    }


def digest(rows: pa.Table) -> int:
    """A checksum of the values that are neither ARRAY, MAP nor STRUCT: equal rows in equal order have equal ones."""
    from crc32c import crc32c

    found = crc32c(str(rows.num_rows).encode())
    for column in rows.columns:
        if pa.types.is_nested(column.type):
            continue
        values = column.combine_chunks()
        values = values.chunk(0) if isinstance(values, pa.ChunkedArray) else values
        if pa.types.is_decimal(values.type):
            values = values.cast(pa.string())
        found = crc32c(np.packbits(np.asarray(values.is_null())).tobytes(), found)
        if pa.types.is_string(values.type) or pa.types.is_binary(values.type):
            lengths = np.asarray(pc.binary_length(values.fill_null(b"" if pa.types.is_binary(values.type) else "")))
            found = crc32c(lengths.tobytes(), found)
            texts: Any = values.fill_null(b"" if pa.types.is_binary(values.type) else "")
            offsets = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]
            found = crc32c(memoryview(texts.buffers()[2] or b"")[offsets[0] : offsets[-1]], found)
        else:
            kind = values.type
            if pa.types.is_date32(kind):
                values = values.cast(pa.int32())
            elif pa.types.is_timestamp(kind):
                values = values.cast(pa.int64())
            elif pa.types.is_boolean(kind):
                values = values.cast(pa.int8())
            found = crc32c(np.ascontiguousarray(np.asarray(values.fill_null(0))).tobytes(), found)
    return int(found)
