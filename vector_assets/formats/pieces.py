"""Records in pieces, so that a decoder's memory beside its result stays small, and rows of the pieces as one table."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from vector_assets.engine.core import POSITION
from vector_assets.formats.grammar import byte_view

_PIECE_BYTES = 4 * 1024**2
"""Records decoded at once; measured fastest between 1 and 16 MB, and memory beside the result stays this small."""
_MOST_JOINED_BYTES = 1024**3


def pieces(raw: pa.RecordBatch | pa.Table) -> Iterator[tuple[pa.Array, pa.Array]]:
    """Values and positions of the records, at most `_PIECE_BYTES` (but at least one record) at a time."""
    table = pa.Table.from_batches([raw]) if isinstance(raw, pa.RecordBatch) else raw
    table = table.select(["value", POSITION])
    chunks = table.column(0).num_chunks
    if chunks > 1 and table.nbytes < min(chunks * _PIECE_BYTES // 4, _MOST_JOINED_BYTES):
        table = table.combine_chunks()
    for batch in table.to_batches():
        values, positions = batch.columns
        _, bounds = byte_view(values)
        start = 0
        while start < len(values):
            end = int(np.searchsorted(bounds, int(bounds[start]) + _PIECE_BYTES, side="right")) - 1
            end = min(max(end, start + 1), len(values))
            yield values.slice(start, end - start), positions.slice(start, end - start)
            start = end


def in_one(rows: list[pa.Table], schema: pa.Schema) -> pa.Table:
    """The rows one behind the other, and the list empty; each column in one array, as long as it has less than 1 GiB.

    One column after the other is copied and given back, where a sink that copied the columns would hold both.
    """
    parts = [table.columns for table in rows]
    rows.clear()
    columns = []
    for number, field in enumerate(schema):
        chunks = [chunk for part in parts for chunk in part[number].chunks]
        column = pa.chunked_array(chunks, field.type)
        if len(chunks) > 1 and column.nbytes < _MOST_JOINED_BYTES:
            column = column.combine_chunks()
        columns.append(column)
        for part in parts:
            part[number] = None
        del chunks
    return pa.Table.from_arrays(columns, schema=schema)
