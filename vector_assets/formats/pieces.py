"""Records in pieces, so that a decoder's memory beside its result stays small."""

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
