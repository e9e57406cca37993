"""What a write is given, as tables of a known size and plain types."""

import sys
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine.core import KIND, RowKind
from vector_assets.engine.errors import ConfigError, PlanError

_KINDS = ("+I", "-U", "+U", "-D")
"""Flink's short names of row kinds, by their numbers."""


def reader_of(rows: Any, place: str) -> pa.RecordBatchReader:
    """The input as a stream of record batches."""
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(rows, pandas.DataFrame):
        rows = pa.Table.from_pandas(rows, preserve_index=False)
    if isinstance(rows, pa.RecordBatch):
        rows = pa.Table.from_batches([rows])
    if not hasattr(rows, "__arrow_c_stream__"):
        wanted = "a pyarrow Table, RecordBatch or RecordBatchReader, a pandas DataFrame, or an Arrow stream"
        raise ConfigError(f"{place}: rows are given as {type(rows).__name__}, want {wanted}")
    return pa.RecordBatchReader.from_stream(rows)


def parts_of(reader: pa.RecordBatchReader, rows: int) -> Iterator[pa.Table]:
    """Tables of exactly `rows` rows and a last one with the rest; one without rows for an input without any."""
    held: list[pa.RecordBatch] = []
    count = parts = 0
    for batch in reader:
        rest = batch
        while rest.num_rows:
            piece = rest.slice(0, rows - count)
            rest = rest.slice(piece.num_rows)
            held.append(piece)
            count += piece.num_rows
            if count == rows:
                yield pa.Table.from_batches(held, reader.schema)
                held, count, parts = [], 0, parts + 1
    if held or not parts:
        yield pa.Table.from_batches(held, reader.schema)


def plain(kind: pa.DataType) -> pa.DataType:
    """The type of the values: pandas' categories come as dictionaries."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def as_plain(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """The values in their plain type."""
    return values.cast(plain(values.type))


def kinds_from(values: pa.ChunkedArray, place: str) -> pa.ChunkedArray:
    """Flink's row kinds by their numbers.

    Raises:
        PlanError: a kind is none of them.
    """
    values = as_plain(values)
    is_text = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
    known: list[str] | list[int] = list(_KINDS) if is_text else [int(kind) for kind in RowKind]
    is_kind = is_text or pa.types.is_integer(values.type)
    numbers = pc.index_in(values, pa.array(known, values.type)) if is_kind else pa.nulls(1)
    if numbers.null_count:
        raise PlanError(f"{place}: column {KIND} holds a value that is no row kind; known: 0 to 3, {', '.join(_KINDS)}")
    return numbers.cast(pa.int8())
