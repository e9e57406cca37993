"""What the pipeline's columns become in the table, and rows made so: checked and cast, column by column."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine.core import HIDDEN, POSITION
from vector_assets.engine.errors import PlanError
from vector_assets.engine.registry import nearest
from vector_assets.sinks import vectors
from vector_assets.sinks.iceberg_options import IcebergOptions
from vector_assets.sinks.iceberg_types import arrow_schema, is_vector, is_vector_text, misfit
from vector_assets.sinks.refusals import Refusals, Refuse

if TYPE_CHECKING:
    from pyiceberg.io import FileIO
    from pyiceberg.table import Table
    from pyiceberg.table.metadata import TableMetadata

_US_PER = {"s": 1_000_000, "ms": 1_000}
_MOST = (1 << 63) - 1
_HIVE = "a Hive catalog guards commits by a lock that may expire: exactly once with one writer, not surely with several"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the pipeline and of the table: `source` is the rows' type, `target` the table's."""

    name: str
    source: pa.DataType
    target: pa.DataType
    is_required: bool
    dimension: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A table as it was when the plan was made: rows staged under it are written in its schema and partitions."""

    metadata: "TableMetadata" = field(repr=False)
    io: "FileIO" = field(repr=False)
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def incarnation(self) -> str:
        """The table's uuid."""
        return str(self.metadata.table_uuid)

    @property
    def keys(self) -> tuple[Column, ...]:
        """The key's columns."""
        return tuple(column for column in self.columns if column.name in self.key)

    def names(self) -> list[str]:
        """Names of the columns."""
        return [column.name for column in self.columns]


def table_rows(schema: pa.Schema, options: IcebergOptions) -> pa.Schema:
    """The columns that the table needs: the pipeline's, and the one for the batch's number.

    Raises:
        PlanError: the pipeline has a column of that name itself.
    """
    rows = [part for part in schema if part.name not in HIDDEN]
    if options.batch_column is None:
        return pa.schema(rows)
    if options.batch_column.lower() in {part.name.lower() for part in rows}:
        raise PlanError(
            f"iceberg: {options.full_name}: option 'batch_column' names {options.batch_column}, which is a column of"
            " the pipeline: name another one, which is written here only"
        )
    return pa.schema([*rows, pa.field(options.batch_column, pa.int64())])


def make_plan(loaded: "Table", schema: pa.Schema, key: tuple[str, ...], options: IcebergOptions) -> Plan:
    """Compare rows and table.

    Raises:
        PlanError: a column is missing or does not fit, or the key is not the table's.
    """
    metadata = loaded.metadata
    table = arrow_schema(metadata.schema())
    known = {part.name: part for part in table}
    own = tuple(sorted(metadata.schema().identifier_field_names()))
    dimensions = options.declared_dimensions
    columns = tuple(_column(part, known, own or key, dimensions) for part in schema if part.name not in HIDDEN)
    for name in dimensions:
        if name not in schema.names:
            raise PlanError(
                f"option 'vector.dimensions' names {name}: no such column; known: {', '.join(schema.names)}"
            )
    missing = [part.name for part in table if not part.nullable and part.name not in schema.names]
    if missing:
        raise PlanError(f"column {missing[0]} of the table is required, the pipeline does not give it")
    chosen = _key(key, own, schema, options)
    given = {*schema.names, options.batch_column}
    unused = [part.name for part in table if part.name not in given]
    notes = [f"columns that stay null: {', '.join(unused)}"] if unused else []
    notes += [_HIVE] if options.guarantee == "at-least-once" else []
    return Plan(metadata, loaded.io, columns, chosen, tuple(notes))


def _column(part: pa.Field, known: dict[str, pa.Field], key: tuple[str, ...], dimensions: dict[str, int]) -> Column:
    if part.name not in known:
        listed = ", ".join(known)
        raise PlanError(f"the table has no column {part.name}{nearest(part.name, known)}; known: {listed}")
    target = known[part.name]
    dimension = dimensions.get(part.name)
    is_numbers = is_vector_text(part.type, target.type) or is_vector(part.type, target.type)
    if dimension is not None and not is_numbers:
        raise PlanError(f"option 'vector.dimensions' names {part.name}, which is {target.type}: no vector")
    reason = None if is_numbers else misfit(part.type, target.type)
    if reason:
        raise PlanError(f"column {part.name} {reason}" if reason.startswith("is ") else f"column {part.name}: {reason}")
    return Column(part.name, part.type, target.type, not target.nullable or part.name in key, dimension)


def _key(
    declared: tuple[str, ...], own: tuple[str, ...], schema: pa.Schema, options: IcebergOptions
) -> tuple[str, ...]:
    if not options.upserts:
        if declared and own and set(declared) != set(own):
            raise PlanError(f"the declared key is ({', '.join(declared)}), that of the table ({', '.join(own)})")
        # appended rows have no key: two may be alike in it
        return ()
    if declared and own and set(declared) != set(own):
        raise PlanError(f"the declared key is ({', '.join(declared)}), that of the table ({', '.join(own)})")
    key = declared or own
    if not key:
        raise PlanError("'write.upsert.enabled' = 'true' needs a PRIMARY KEY, or a table with identifier fields")
    if absent := [name for name in key if name not in schema.names]:
        raise PlanError(f"key column {absent[0]} of the table is not among the pipeline's columns")
    return key


def convert(columns: tuple[Column, ...], rows: pa.Table) -> tuple[pa.Table, pa.Array, dict[int, str]]:
    """Rows in the table's types, their positions, and the refused ones: position -> reason."""
    found = Refusals()
    cast = [_cast(column, _whole(rows.column(column.name)), found) for column in columns]
    table = pa.table(cast, names=[column.name for column in columns])
    positions = _whole(rows.column(POSITION))
    if not found.reasons:
        return table, positions, {}
    kept = np.ones(rows.num_rows, np.bool_)
    numbers = np.fromiter(found.reasons, np.int64, len(found.reasons))
    kept[numbers] = False
    refused = positions.take(pa.array(numbers)).to_numpy()
    reasons = dict(sorted(zip(refused.tolist(), found.reasons.values(), strict=True)))
    return table.filter(pa.array(kept)), positions.filter(pa.array(kept)), reasons


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _cast(column: Column, values: pa.Array, found: Refusals) -> pa.Array:
    refuse = found.of(column.name)
    if column.is_required and values.null_count:
        refuse(np.asarray(values.is_null().to_numpy(zero_copy_only=False)), "null, which the table does not take here")
    if is_vector_text(column.source, column.target):
        values = vectors.parse(values.cast(pa.string()), column.target.value_type, refuse)
        vectors.check(values, column.dimension, np.inf, refuse, is_strict=True)
    elif column.dimension is not None:
        values = values.cast(column.target, safe=False)
        vectors.check(values, column.dimension, np.inf, refuse, is_strict=True)
    elif is_vector(column.source, column.target) and values.type.value_type != column.target.value_type:
        values = values.cast(column.target, safe=False)
    elif pa.types.is_timestamp(values.type) and values.type.unit in _US_PER:
        values = _within(values, refuse)
    return values if values.type == column.target else values.cast(column.target)


def _within(values: pa.Array, refuse: Refuse) -> pa.Array:
    """Timestamps that microseconds can tell; others become null and are refused."""
    most = _MOST // _US_PER[values.type.unit]
    numbers = values.cast(pa.int64())
    far = pc.fill_null(pc.greater(pc.abs(numbers), most), fill_value=False)
    is_far = np.asarray(far.to_numpy(zero_copy_only=False))
    if not is_far.any():
        return values
    refuse(is_far, "out of the range of microseconds")
    return pc.if_else(far, None, values)
