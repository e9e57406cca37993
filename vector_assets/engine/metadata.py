"""METADATA columns: what a source knows of a record beside its bytes, attached to the decoded rows by position."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from vector_assets.engine.core import POSITION, Split
from vector_assets.engine.schema import Column, LogicalType


@dataclass(frozen=True, slots=True)
class Metadata:
    """One metadata key of a source: its type, and how it is read from raw records.

    `read(raw, splits)` gives one value per record; `splits[i]` is the split that number i in the column `split` means.
    It needs no connection, so that replays from the archive give the same values.
    """

    type: LogicalType
    read: Callable[[pa.Table, Sequence[Split]], "pa.Array | pa.ChunkedArray"]


Keys = Mapping[str, Metadata]
"""A source class says what it knows in its attribute `METADATA: ClassVar[Keys]`."""


def is_castable(found: LogicalType, wanted: LogicalType) -> bool:
    """A column declared as `wanted` can be filled from a key of type `found`."""
    try:
        pa.nulls(0, found.arrow).cast(wanted.arrow)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid, pa.ArrowTypeError):
        return False
    return True


def attach(
    rows: pa.Table, raw: pa.Table, splits: Sequence[Split], columns: Sequence[tuple[Column, Metadata]]
) -> pa.Table:
    """The rows with these columns filled from the raw records they were decoded from."""
    for column, key in columns:
        values = key.read(raw, splits)
        whole = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
        field = pa.field(column.name, column.type.arrow, column.type.nullable)
        rows = rows.append_column(field, whole.cast(column.type.arrow, safe=False).take(rows.column(POSITION)))
    return rows
