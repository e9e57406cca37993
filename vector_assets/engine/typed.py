"""Typed sources: records whose value is a row already (MaxCompute, datagen), kept in the raw schema as a struct.

Everything between source and decoder (archive, counts, dead letters) treats them as any record: `value` is a struct of
the table's physical columns, with Flink's row kind under `_kind` where not all are inserts.
"""

from collections.abc import Sequence

import pyarrow as pa

from vector_assets.engine.captured import is_captured, united
from vector_assets.engine.core import KIND, POSITION, RAW_SCHEMA, Decoded
from vector_assets.engine.errors import FatalError
from vector_assets.engine.schema import Table

_VALUE = RAW_SCHEMA.get_field_index("value")


def typed_schema(table: Table, *, has_kinds: bool = False) -> pa.Schema:
    """RAW_SCHEMA with the table's physical columns as `value`."""
    children = [pa.field(column.name, column.type.arrow, column.type.nullable) for column in table.physical]
    kind = [pa.field(KIND, pa.int8(), nullable=False)] if has_kinds else []
    return RAW_SCHEMA.set(_VALUE, pa.field("value", pa.struct([*children, *kind])))


class TypedDecoder:
    """Takes the rows out of typed records; nothing can be rejected."""

    def __init__(self, table: Table) -> None:
        self._names = [column.name for column in table.physical]

    def decode(self, raw: pa.RecordBatch | pa.Table) -> Decoded:
        """The values' columns, `_kind` if there is one, and `_position`; no copy of the data.

        Raises:
            FatalError: the records are older than the declaration, and lack a column that it reads.
        """
        values = raw.column("value")
        whole = pa.chunked_array([values]) if isinstance(values, pa.Array) else values
        fields = [whole.type.field(index) for index in range(whole.type.num_fields)]
        rows = pa.Table.from_arrays(whole.flatten(), schema=pa.schema(fields))
        kind = [KIND] if KIND in rows.column_names else []
        missing = [name for name in self._names if name not in rows.column_names]
        if missing:
            raise FatalError(
                f"records of a typed source hold the columns {', '.join(rows.column_names)}: they were read before the"
                f" declaration asked for {', '.join(missing)} as well; read them anew (`vector-assets reset`)"
            )
        rows = rows.select([*self._names, *kind])
        return Decoded(rows.append_column(pa.field(POSITION, pa.int64(), nullable=False), raw.column(POSITION)))


def to_bytes(values: pa.Array | pa.ChunkedArray) -> list[bytes]:
    """Each value as an Arrow IPC stream of one row: how a dead letter keeps a typed record."""
    table = pa.table({"value": values})
    found = []
    for at in range(table.num_rows):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table.slice(at, 1))
        found.append(sink.getvalue().to_pybytes())
    return found


def from_bytes(values: Sequence[bytes | None], kind: pa.DataType) -> pa.Array:
    """What `to_bytes` wrote, as the source's value type today.

    Raises:
        FatalError: the table has changed so that a value no longer fits.
    """
    if is_captured(pa.schema([pa.field("value", kind)])):
        return united([_stored(value) for value in values if value is not None])
    parts = [pa.nulls(1, kind) if value is None else _one(value, kind) for value in values]
    return pa.concat_arrays(parts) if parts else pa.nulls(0, kind)


def _stored(value: bytes) -> pa.Array:
    return pa.ipc.open_stream(value).read_all().column("value").combine_chunks()


def _one(value: bytes, kind: pa.DataType) -> pa.Array:
    array = _stored(value)
    try:
        return array.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise FatalError(f"a dead letter's row no longer fits the source table: {error}") from error
