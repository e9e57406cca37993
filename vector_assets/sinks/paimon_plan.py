"""How a pipeline's rows fit a Paimon table, and the table that would fit them. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine.core import POSITION
from vector_assets.engine.errors import PlanError
from vector_assets.engine.registry import nearest
from vector_assets.engine.schema import Table
from vector_assets.sinks.kinds import kind_of
from vector_assets.sinks.paimon_options import PaimonOptions
from vector_assets.sinks.refusals import Refusals

if TYPE_CHECKING:
    from pypaimon.schema.data_types import DataType
    from pypaimon.schema.schema import Schema
    from pypaimon.table.file_store_table import FileStoreTable

MADE_BY = "vector_assets.pipeline"
"""Option of a table that names the pipeline which made it."""
_LENGTHS = ("CHAR", "VARCHAR", "BINARY", "VARBINARY")


@dataclass(frozen=True, slots=True)
class Plan:
    """Rows of `source` become rows of `schema`, the table's own; `key` is empty for an append table.

    `lengths` are the most characters (bytes, of BINARY and VARBINARY) that a column takes.
    """

    place: str
    source: pa.Schema
    schema: pa.Schema
    key: tuple[str, ...]
    partition: tuple[str, ...]
    columns: dict[str, str]
    lengths: dict[str, int]
    notes: tuple[str, ...] = ()
    batch_column: str | None = None

    @property
    def stored(self) -> pa.Schema:
        """The table's columns but the one for the batch's number."""
        return pa.schema([field for field in self.schema if field.name != self.batch_column])

    def rows(self, rows: pa.Table) -> tuple[pa.Table, dict[int, str]]:
        """Rows in the `stored` columns and types, and what the table refuses: position to reason."""
        return _converted(rows, self.schema, self.stored.names, self.lengths)

    def of_batch(self, rows: pa.Table, root: int) -> pa.Table:
        """`stored` rows with the number of the batch whose records they were made of, where the table takes it."""
        if self.batch_column is None:
            return rows
        numbers = pa.repeat(pa.scalar(root, pa.int64()), rows.num_rows)
        return rows.append_column(self.batch_column, numbers).select(self.schema.names).cast(self.schema)

    def keys(self, rows: pa.Table) -> tuple[pa.Table, dict[int, str]]:
        """Key columns in the table's types, and the keys it refuses."""
        return _converted(rows, self.schema, list(self.key), self.lengths)


def _converted(
    rows: pa.Table, schema: pa.Schema, names: Sequence[str], lengths: dict[str, int]
) -> tuple[pa.Table, dict[int, str]]:
    columns = []
    refusals = Refusals()
    for name in names:
        field = schema.field(name)
        if name not in rows.column_names:
            column = pa.chunked_array([pa.nulls(rows.num_rows, field.type)])
        else:
            column = rows.column(name).cast(field.type)
        refuse = refusals.of(name)
        if not field.nullable and column.null_count:
            refuse(np.asarray(column.is_null()), "is null, the table takes no null there")
        if name in lengths and rows.num_rows:
            measure = pc.binary_length if pa.types.is_binary(field.type) else pc.utf8_length
            too_long = pc.fill_null(pc.greater(measure(column), lengths[name]), pa.scalar(value=False))
            refuse(np.asarray(too_long), f"is longer than {lengths[name]}")
        columns.append(column)
    table = pa.table(columns, schema=pa.schema([pa.field(name, schema.field(name).type) for name in names]))
    if not refusals.reasons:
        return table.cast(pa.schema([schema.field(name) for name in names])), {}
    keep = np.ones(rows.num_rows, dtype=bool)
    keep[list(refusals.reasons)] = False
    positions = rows.column(POSITION).to_numpy() if POSITION in rows.column_names else np.arange(rows.num_rows)
    kept = table.filter(pa.array(keep)).cast(pa.schema([schema.field(name) for name in names]))
    return kept, {int(positions[row]): reason for row, reason in sorted(refusals.reasons.items())}


def table_rows(schema: pa.Schema, options: PaimonOptions, key: Sequence[str]) -> pa.Schema:
    """The columns that the table needs: the pipeline's, and the one for the batch's number.

    Raises:
        PlanError: the pipeline has a column of that name itself, or the table has a primary key.
    """
    column = options.batch_column
    if column is None:
        return schema
    place = options.target()
    if key:
        raise PlanError(
            f"{place}: 'batch_column' is for tables without a primary key: rows with one are replaced by it"
        )  # fmt: skip
    if column.lower() in {name.lower() for name in schema.names}:
        raise PlanError(
            f"{place}: option 'batch_column' names {column}, which is a column of the pipeline: name another one, which"
            " is written here only"
        )
    return schema.append(pa.field(column, pa.int64()))


def make_plan(
    table: "FileStoreTable", source: pa.Schema, declared_key: tuple[str, ...], options: PaimonOptions
) -> Plan:
    """Check a table that is there.

    Raises:
        PlanError: a column, a type, the key, or a setting of the table does not fit.
    """
    from pypaimon.schema.data_types import PyarrowFieldParser

    place = options.target()
    _check_settings(place, table, options)
    schema = PyarrowFieldParser.from_paimon_schema(table.table_schema.fields).remove_metadata()
    schema = pa.schema([field.remove_metadata() for field in schema])
    key = tuple(table.primary_keys)
    if declared_key and set(declared_key) != set(key):
        found = f"PRIMARY KEY ({', '.join(key)})" if key else "no primary key"
        raise PlanError(f"{place}: PRIMARY KEY ({', '.join(declared_key)}) is declared, the table has {found}")
    source = table_rows(source, options, key)
    known = schema.names
    for field in source:
        if field.name not in known:
            raise PlanError(
                f"{place}: column {field.name} does not exist{nearest(field.name, known)}; columns there:"
                f" {', '.join(known)}"
            )
        check_type(place, field, schema.field(field.name).type)
    sent = set(source.names)
    for field in schema:
        if field.name not in sent and not field.nullable:
            raise PlanError(f"{place}: column {field.name} is NOT NULL, and the pipeline does not send it")
    left_out = [name for name in known if name not in sent]
    notes = (f"columns the pipeline does not send stay null: {', '.join(left_out)}",) if left_out else ()
    spelled = {field.name: str(field.type) for field in table.table_schema.fields}
    partition, lengths = tuple(table.partition_keys), _lengths(spelled)
    return Plan(place, source, schema, key, partition, spelled, lengths, notes, options.batch_column)


def _lengths(spelled: dict[str, str]) -> dict[str, int]:
    found = {}
    for name, text in spelled.items():
        root, _, rest = text.partition("(")
        if root in _LENGTHS and (number := rest.partition(")")[0]).isdigit():
            found[name] = int(number)
    return found


def _check_settings(place: str, table: "FileStoreTable", options: PaimonOptions) -> None:
    settings = table.table_schema.options
    engine = settings.get("merge-engine", "deduplicate")
    if table.primary_keys and engine != "deduplicate":
        raise PlanError(f"{place}: 'merge-engine' = '{engine}' of the table is not supported, only deduplicate")
    for name in ("sequence.field", "rowkind.field", "row-tracking.enabled", "data-evolution.enabled"):
        if settings.get(name, "false") != "false":
            raise PlanError(f"{place}: the table has {name!r} = {settings[name]!r}, which is not supported")
    if str(settings.get("deletion-vectors.enabled", "false")).lower() == "true" and table.primary_keys:
        raise PlanError(
            f"{place}: 'deletion-vectors.enabled' of the table is not supported: Java must compact each write"
        )
    if table.options.bucket() == -2:
        raise PlanError(f"{place}: postponed buckets ('bucket' = '-2') read as empty until a Java engine compacts them")
    if table.primary_keys and not set(table.partition_keys) <= set(table.primary_keys):
        raise PlanError(
            f"{place}: partition columns {table.partition_keys} do not belong to the key {table.primary_keys}"
        )
    if settings.get("metadata.stats-mode", "none") == "none" and options.stats_mode == "full":
        raise PlanError(
            f"{place}: the table has no 'metadata.stats-mode' = 'full', without which Spark's filtered queries fail;"
            " set it on the table, or say 'metadata.stats-mode' = 'none'"
        )
    if "bucket" in options.model_fields_set and options.bucket != table.options.bucket():
        raise PlanError(f"{place}: option 'bucket' says {options.bucket}, the table has {table.options.bucket()}")


def check_type(place: str, field: pa.Field, target: pa.DataType) -> None:
    """Refuse a type whose values the target's type does not hold.

    Raises:
        PlanError: it does not.
    """
    if not fits(field.type, target):
        raise PlanError(
            f"{place}: column {field.name} is {target} there; the pipeline sends {kind_of(field.type)}"
            f" ({field.type}): use a CAST in the SELECT"
        )


_WIDTHS = {
    pa.int8(): 8, pa.int16(): 16, pa.int32(): 32, pa.int64(): 64,
}  # fmt: skip
_UNITS = ("s", "ms", "us", "ns")


def fits(source: pa.DataType, target: pa.DataType) -> bool:
    """True when every value of `source` is a value of `target`."""
    if source == target:
        return True
    if source in _WIDTHS and target in _WIDTHS:
        return _WIDTHS[source] <= _WIDTHS[target]
    if pa.types.is_floating(source) and pa.types.is_floating(target):
        return bool(source.bit_width <= target.bit_width)
    if pa.types.is_decimal(source) and pa.types.is_decimal(target):
        whole = source.precision - source.scale <= target.precision - target.scale
        return bool(whole and source.scale <= target.scale)
    if pa.types.is_timestamp(source) and pa.types.is_timestamp(target):
        is_finer = _UNITS.index(source.unit) <= _UNITS.index(target.unit)
        return is_finer and (source.tz is None) == (target.tz is None) and target.unit != "ns"
    text, data = {pa.string(), pa.large_string()}, {pa.binary(), pa.large_binary()}
    if (source in text and target in text) or (source in data and target in data):
        return True
    if pa.types.is_list(source) and pa.types.is_list(target):
        return fits(source.value_type, target.value_type)
    if pa.types.is_map(source) and pa.types.is_map(target):
        return fits(source.key_type, target.key_type) and fits(source.item_type, target.item_type)
    if pa.types.is_struct(source) and pa.types.is_struct(target):
        names = [each.name for each in source] == [each.name for each in target]
        return bool(names) and all(fits(a.type, b.type) for a, b in zip(source, target, strict=True))
    return False


def paimon_type(place: str, name: str, kind: pa.DataType, *, nullable: bool) -> "DataType":
    """The type of a new column.

    Raises:
        PlanError: Paimon has none that Spark reads back right.
    """
    from pypaimon.schema.data_types import PyarrowFieldParser

    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        raise PlanError(
            f"{place}: column {name} is {kind}: Spark reads nanoseconds back wrong; use TIMESTAMP(6) in the SELECT"
        )
    if pa.types.is_time(kind):
        raise PlanError(
            f"{place}: column {name} is TIME: Spark has no such type; CAST it to STRING or INT in the SELECT"
        )
    for child in range(kind.num_fields):
        paimon_type(place, f"{name}.{kind.field(child).name}", kind.field(child).type, nullable=True)
    try:
        return PyarrowFieldParser.to_paimon_type(kind, nullable)
    except ValueError as error:
        raise PlanError(f"{place}: column {name} has the type {kind}, for which Paimon has none") from error


def partition_of(options: PaimonOptions, declared: Table | None) -> tuple[str, ...]:
    """Partition columns of a new table: the option's, else those of PARTITIONED BY."""
    return options.partition_columns or (declared.partitioned_by if declared is not None else ())


def table_for(
    schema: pa.Schema, declared: Table | None, key: tuple[str, ...], options: PaimonOptions, pipeline: str
) -> "Schema":
    """The table that would take rows of `schema`.

    Raises:
        PlanError: the options do not fit the columns.
    """
    from pypaimon.schema.data_types import AtomicInteger, AtomicType, DataField, reassign_field_id
    from pypaimon.schema.schema import Schema

    place = options.target()
    lengths = {c.name: c.type for c in declared.columns} if declared is not None else {}
    fields = []
    ids = AtomicInteger(-1)
    for field in schema:
        number = ids.increment_and_get()
        kind = paimon_type(place, field.name, field.type, nullable=field.nullable and field.name not in key)
        logical = lengths.get(field.name)
        if logical is not None and logical.name in _LENGTHS and logical.precision is not None:
            kind = AtomicType(f"{logical.name}({logical.precision})", nullable=kind.nullable)
        fields.append(DataField(number, field.name, reassign_field_id(kind, ids)))
    partition = partition_of(options, declared)
    _check_columns(place, schema, key, partition, options)
    settings = {
        "bucket": str(options.bucket), "file.format": options.file_format, "file.compression": options.compression,
        "metadata.stats-mode": options.stats_mode, MADE_BY: pipeline,
    }  # fmt: skip
    if options.bucket_columns:
        settings["bucket-key"] = ",".join(options.bucket_columns)
    if options.target_file_size:
        settings["target-file-size"] = f"{options.target_file_size} b"
    return Schema(fields, list(partition), list(key), settings, declared.comment if declared else None)


def _check_columns(
    place: str, schema: pa.Schema, key: tuple[str, ...], partition: tuple[str, ...], options: PaimonOptions
) -> None:
    for option, names in (("partition", partition), ("bucket-key", options.bucket_columns)):
        for name in names:
            if name not in schema.names:
                raise PlanError(
                    f"{place}: option {option!r} names column {name}, which does not exist"
                    f"{nearest(name, schema.names)}; columns: {', '.join(schema.names)}"
                )
    if key and not set(partition) <= set(key):
        raise PlanError(
            f"{place}: partition columns {', '.join(partition)} must belong to PRIMARY KEY ({', '.join(key)}): a key in"
            " two partitions would be two rows"
        )
    if key and set(partition) == set(key):
        raise PlanError(f"{place}: PRIMARY KEY ({', '.join(key)}) must hold a column that is no partition column")
    if not key and options.bucket > 0 and not options.bucket_columns:
        raise PlanError(f"{place}: 'bucket' = '{options.bucket}' of a table without a key needs 'bucket-key'")
    if not key and options.bucket <= 0 and options.bucket_columns:
        raise PlanError(f"{place}: 'bucket-key' needs 'bucket' to be at least 1")
    if key and not set(options.bucket_columns) <= set(key):
        raise PlanError(f"{place}: 'bucket-key' must name columns of PRIMARY KEY ({', '.join(key)})")
