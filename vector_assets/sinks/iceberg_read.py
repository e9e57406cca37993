"""Rows of an Iceberg table read back, one data file in memory."""

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.clients.iceberg import told
from vector_assets.sinks import pruning
from vector_assets.sinks.iceberg_types import arrow_schema

if TYPE_CHECKING:
    from pyiceberg.expressions import BooleanExpression
    from pyiceberg.manifest import DataFile
    from pyiceberg.schema import Schema
    from pyiceberg.table import FileScanTask, Table

_BOUNDED = frozenset({"int", "long", "date", "timestamp", "timestamptz", "string"})
"""Types whose bounds mean what Arrow's comparisons do; NaN is between no two numbers."""

_MOST_LITERALS = 200
"""pyiceberg looks at an `In` of at most this many values when it prunes files."""


def scan(
    table: "Table", columns: tuple[str, ...] | None, place: str, where: pc.Expression | None = None
) -> Iterator[pa.RecordBatch]:  # fmt: skip
    """Every row of the table as it was loaded, whole or some columns; without files that hold no row for `where`."""
    with told(place):
        tasks = list(table.scan().plan_files())
    schema = table.schema() if columns is None else table.schema().select(*columns)
    known = [_known(schema, task.file) for task in tasks] if where is not None else [None] * len(tasks)
    for task in (tasks[number] for number in pruning.possible(known, arrow_schema(schema), where)):
        with told(place):
            rows = read_file(table, task, columns)
        yield from rows.to_batches()


def _known(schema: "Schema", file: "DataFile") -> pc.Expression | None:
    """What a file's bounds say of its rows."""
    from pyiceberg.conversions import from_bytes
    from pyiceberg.types import PrimitiveType

    nulls, found = file.null_value_counts or {}, []
    for part, kind in zip(schema.fields, arrow_schema(schema).types, strict=True):
        ends = [(bounds or {}).get(part.field_id) for bounds in (file.lower_bounds, file.upper_bounds)]
        of = part.field_type
        if not isinstance(of, PrimitiveType) or str(of) not in _BOUNDED or None in ends:
            continue
        try:
            least, most = (_scalar(from_bytes(of, end), kind) for end in ends if end is not None)
        except (struct.error, ValueError, pa.ArrowInvalid):
            # bounds that were written before the column was widened
            continue
        found.append(pruning.between(part.name, least, most, has_nulls=nulls.get(part.field_id) != 0))
    return pruning.every(found)


def _scalar(value: object, kind: pa.DataType) -> pa.Scalar:
    """A bound in its column's Arrow type; dates and times are numbers."""
    if pa.types.is_date32(kind):
        return pa.scalar(value, pa.int32()).cast(kind)
    return pa.scalar(value, pa.int64()).cast(kind) if pa.types.is_timestamp(kind) else pa.scalar(value, kind)


def rows_of(table: "Table", columns: pa.Schema, keys: pa.Table) -> pa.Table:
    """The rows that have one of the keys, in the given columns and types."""
    found = [columns.empty_table()]
    for task in table.scan(row_filter=key_range(keys)).plan_files() if keys.num_rows else ():
        rows = read_file(table, task, tuple(columns.names))
        found.append(rows.filter(has_key(rows, keys)).cast(columns))
    return pa.concat_tables(found).combine_chunks()


def count_of(table: "Table", column: str, value: int) -> int:
    """How many rows have this value in a column; files whose rows all have it are not read."""
    from pyiceberg import expressions

    of: Any = expressions
    return int(table.scan(row_filter=of.EqualTo(column, value)).count())


def count(flags: pa.ChunkedArray) -> int:
    """How many are true."""
    return int(np.count_nonzero(flags.to_numpy()))


def key_range(keys: pa.Table) -> "BooleanExpression":
    """A filter that every row with one of the keys meets, and as few files as can be told without reading them."""
    from pyiceberg import expressions

    # pydantic models whose own constructors mypy does not see
    of: Any = expressions
    whole: BooleanExpression = of.AlwaysTrue()
    for name in keys.column_names:
        values = pc.unique(keys.column(name))
        if len(values) <= _MOST_LITERALS:
            whole = of.And(whole, of.In(name, _literals(values)))
            continue
        if pa.types.is_binary(values.type) or pa.types.is_boolean(values.type):
            continue
        least, most = _literals(values.take(pc.sort_indices(values)).take(pa.array([0, len(values) - 1])))
        whole = of.And(whole, of.GreaterThanOrEqual(name, least), of.LessThanOrEqual(name, most))
    return whole


def _literals(values: pa.Array) -> list[Any]:
    return list(values.to_pylist())


def has_key(rows: pa.Table, keys: pa.Table) -> pa.ChunkedArray:
    """Which rows have one of the keys."""
    if keys.num_columns == 1:
        name = keys.column_names[0]
        return pc.is_in(rows.column(name), value_set=keys.column(name).combine_chunks())
    number = "_row"
    numbered = rows.select(keys.column_names).append_column(number, pa.array(np.arange(rows.num_rows)))
    hits = numbered.join(keys, keys.column_names, join_type="left semi").column(number)
    return pa.chunked_array([pc.is_in(numbered.column(number).combine_chunks(), value_set=hits.combine_chunks())])


def read_file(table: "Table", task: "FileScanTask", columns: tuple[str, ...] | None = None) -> pa.Table:
    """The live rows of one data file in the table's schema, whole or some columns, in the file's order."""
    from pyiceberg.expressions import AlwaysTrue
    from pyiceberg.io.pyarrow import ArrowScan

    schema = table.schema() if columns is None else table.schema().select(*columns)
    wanted = pa.schema([(part.name, part.type) for part in arrow_schema(schema)])
    rows = ArrowScan(table.metadata, table.io, schema, AlwaysTrue()).to_table([task])
    return rows.select(wanted.names).cast(wanted)
