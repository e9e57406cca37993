"""Key sidecars: which keys a batch touched, beside its archive file, so that a replay moves no row backwards.

`<seq>.keys.parquet` has one row per upserted or deleted row: `key_hash` (uint64), `kind` (int8, RowKind) and `row`
(int64, the row's `_position`). Its metadata name the key columns and their classes.

Key hash, version 1 (a file format: equal on every platform, for ever). All arithmetic is modulo 2**64; `mix(x)` is
splitmix64: `x += 9E3779B97F4A7C15; x = (x ^ x>>30) * BF58476D1CE4E5B9; x = (x ^ x>>27) * 94D049BB133111EB; x ^ x>>31`.

1. Each value becomes a 64-bit word by the class of its column, whatever the column's width:

   | class | word |
   |---|---|
   | `integer` | the value, two's complement |
   | `boolean` | 0 or 1 |
   | `date` | days since 1970-01-01 |
   | `time` | nanoseconds since midnight |
   | `timestamp` (with or without zone) | whole microseconds since 1970, XOR the nanoseconds left over << 54 |
   | `float` | bits of the value as binary64; -0.0 as 0.0, every NaN as 7FF8000000000000 |
   | `bytes` (text is its UTF-8) | first 8 bytes of the MD5 of the bytes, big-endian |
   | `decimal` | as `bytes`, of the plain decimal text without zeros at the end of its fraction (`1.5`, `-3`, `100`) |

2. A value hashes to `mix(word)`, a null to D6E8FEB86659FD93.
3. A key of columns 1..n hashes to h(n), where h(0) = 0 and h(i) = mix(h(i-1) + hash of column i's value).

So int32 1 equals int64 1 and differs from '1', and ('a', 'bc') differs from ('ab', 'c'). Two keys may share a hash: who
acts on one confirms it on the real key.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine import archive as archives
from vector_assets.engine.archive import Archive, ArchiveFile, Layout, identity
from vector_assets.engine.core import POSITION, RowKind, canonical, kinds_of
from vector_assets.engine.errors import FatalError, PlanError

Words = npt.NDArray[np.uint64]

SCHEMA = pa.schema(
    [
        pa.field("key_hash", pa.uint64(), nullable=False),
        pa.field("kind", pa.int8(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
    ]
)
LAYOUT = Layout(dictionary=("kind",), delta=("row",))
_NULL = np.uint64(0xD6E8FEB86659FD93)


def key_hashes(rows: pa.Table, key: tuple[str, ...]) -> pa.Array:
    """The hash of every row's key, as the module's docstring defines it.

    Raises:
        PlanError: a key column's type cannot identify a row.
    """
    hashes: Words = np.zeros(rows.num_rows, np.uint64)
    for name in key:
        hashes = _mix(hashes + _value_hashes(rows.column(name), name))
    return pa.array(hashes)


def shape(rows: pa.Table, key: tuple[str, ...]) -> str:
    """Names and classes of the key columns as canonical JSON: hashes of different shapes cannot be compared.

    Raises:
        PlanError: as `key_hashes`.
    """
    return canonical([[name, _class_of(name, rows.schema.field(name).type)] for name in key])


def write(
    archive: Archive,
    pipeline: str,
    hour: str,
    seq: int,
    upserts: pa.Table,
    deletes: pa.Table | None,
    key: tuple[str, ...],
    notes: Mapping[str, str] | None = None,
) -> ArchiveFile | None:
    """The batch's sidecar, durable and with the caller's notes; None for a target without a key.

    With notes there is one all the same, whose rows have the hash of no columns, 0.

    Raises:
        FatalError: the disk refused it.
        PlanError: as `key_hashes`.
    """
    if not key and not notes:
        return None
    parts = [_entries(upserts, key, RowKind.INSERT)]
    if deletes is not None:
        parts.append(_entries(deletes, key, RowKind.DELETE))
    metadata = identity(pipeline, hour, seq, {**(notes or {}), "hash": "1", "key": shape(upserts, key)})
    return archive.put((pipeline, hour, f"{seq:010d}.keys.parquet"), pa.concat_tables(parts), metadata, LAYOUT)


def read(archive: Archive, file: ArchiveFile, key_shape: str | None = None) -> pa.Table:
    """The sidecar's rows (SCHEMA).

    Raises:
        FatalError: as `Archive.read`, or it was written for a key of another `shape` than `key_shape`.
    """
    parquet = archive.open(file)
    found = archives.notes(parquet).get("key")
    if key_shape not in (None, found):
        raise FatalError(
            f"sidecar {file.path}: found hashes of the key {found}, wanted {key_shape}: they cannot be compared"
        )
    return parquet.read(use_threads=False).replace_schema_metadata(None).cast(SCHEMA)


def _entries(rows: pa.Table, key: tuple[str, ...], kind: RowKind) -> pa.Table:
    kinds = kinds_of(rows)
    if kinds is None:
        kinds = pa.repeat(pa.scalar(int(kind), pa.int8()), rows.num_rows)
    return pa.table([key_hashes(rows, key), kinds, rows.column(POSITION)], schema=SCHEMA)


def _mix(words: Words) -> Words:
    x = words + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _value_hashes(column: pa.ChunkedArray, name: str) -> Words:
    words = _CLASSES[_class_of(name, column.type)][1]
    plain = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    hashes = _mix(words(plain))
    if plain.null_count:
        hashes[pc.is_null(plain).to_numpy()] = _NULL
    return hashes


def _class_of(name: str, kind: pa.DataType) -> str:
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    for title, (is_member, _) in _CLASSES.items():
        if is_member(plain):
            return title
    raise PlanError(
        f"key column {name}: found type {kind}, which cannot identify a row; wanted one of {', '.join(_CLASSES)}"
    )


def _as_words(column: pa.ChunkedArray) -> Words:
    """A column of 64-bit integers, nulls as 0."""
    words: Words = pc.fill_null(column, 0).to_numpy().view(np.uint64)
    return words


def _integer_words(column: pa.ChunkedArray) -> Words:
    return _as_words(column if pa.types.is_uint64(column.type) else column.cast(pa.int64()))


def _boolean_words(column: pa.ChunkedArray) -> Words:
    return _as_words(column.cast(pa.int64()))


def _date_words(column: pa.ChunkedArray) -> Words:
    return _as_words(column.cast(pa.date32()).cast(pa.int32()).cast(pa.int64()))


def _time_words(column: pa.ChunkedArray) -> Words:
    return _as_words(column.cast(pa.time64("ns")).cast(pa.int64()))


def _timestamp_words(column: pa.ChunkedArray) -> Words:
    if column.type.unit != "ns":
        return _as_words(column.cast(pa.timestamp("us", column.type.tz)).cast(pa.int64()))
    whole, rest = np.divmod(_as_words(column.cast(pa.int64())).view(np.int64), 1000)
    return whole.view(np.uint64) ^ (rest.view(np.uint64) << np.uint64(54))


def _float_words(column: pa.ChunkedArray) -> Words:
    values = pc.fill_null(column.cast(pa.float64()), 0.0).to_numpy() + 0.0
    values[np.isnan(values)] = np.nan
    words: Words = values.view(np.uint64)
    return words


def _bytes_words(column: pa.ChunkedArray) -> Words:
    return _md5_words(column.cast(pa.large_binary()), "value")


def _decimal_words(column: pa.ChunkedArray) -> Words:
    text = "value::VARCHAR"
    if column.type.scale > 0:
        # duckdb 2.0 writes decimal(3, 3) as .125 and decimal(4, 3) as 0.125
        text = f"rtrim(rtrim(regexp_replace({text}, '^(-?)[.]', '\\10.'), '0'), '.')"
    return _md5_words(column, text)


def _md5_words(column: pa.ChunkedArray, expression: str) -> Words:
    """First 8 bytes of the MD5 of an SQL expression over `value`; any word for a null."""
    values = _duckdb().cursor().from_arrow(pa.table({"value": column}))
    digests = values.project(f"coalesce(md5({expression}), repeat('0', 32)) AS digest").to_arrow_table()
    parts = [_leading_words(chunk) for chunk in digests.column("digest").chunks]
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)


def _leading_words(digests: pa.StringArray) -> Words:
    """The first 16 of 32 hexadecimal digits of each digest, as a number."""
    count, start = len(digests), digests.offset * 32
    text = np.frombuffer(digests.buffers()[2], np.uint8, count * 32, start).reshape(count, 32)[:, :16]
    digits = (text & 15) + 9 * (text >> 6)
    packed = np.ascontiguousarray((digits[:, 0::2] << 4) | digits[:, 1::2])
    return packed.view(">u8").ravel().astype(np.uint64)


@functools.cache
def _duckdb() -> duckdb.DuckDBPyConnection:
    # one thread: it runs inside the engine's own workers; md5 of 64 bits' worth by `md5_number_lower` takes 4 x as long
    return duckdb.connect(":memory:", config={"threads": 1})


def _is_bytes(kind: pa.DataType) -> bool:
    types = pa.types
    tests = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary, types.is_fixed_size_binary)
    return any(is_member(kind) for is_member in tests)


def _is_float(kind: pa.DataType) -> bool:
    return bool(pa.types.is_float32(kind) or pa.types.is_float64(kind))


_CLASSES: dict[str, tuple[Callable[[pa.DataType], Any], Callable[[pa.ChunkedArray], Words]]] = {
    "integer": (pa.types.is_integer, _integer_words),
    "boolean": (pa.types.is_boolean, _boolean_words),
    "date": (pa.types.is_date, _date_words),
    "time": (pa.types.is_time, _time_words),
    "timestamp": (pa.types.is_timestamp, _timestamp_words),
    "float": (_is_float, _float_words),
    "bytes": (_is_bytes, _bytes_words),
    "decimal": (pa.types.is_decimal128, _decimal_words),
}
"""Class name to its test and its words."""
