"""Arrow types and Iceberg types: what a column becomes in a table that is made, and which rows fit one that is there.

| Arrow (Flink SQL) | Iceberg |
|---|---|
| int8, int16, int32 (TINYINT, SMALLINT, INT) / int64 | int / long |
| float32, float64, decimal128, bool, date32, time64[us] | float, double, decimal, boolean, date, time |
| timestamp s, ms, us without or with zone | timestamp, timestamptz; ns is refused: it would be cut off |
| string, binary, fixed_size_binary(n) | string, binary, fixed(n) |
| list, map, struct (ARRAY, MAP, ROW) | list, map, struct; a vector is a list of float |
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from vector_assets.sinks.kinds import is_list, kind_of

if TYPE_CHECKING:
    from pyiceberg.schema import Schema
    from pyiceberg.types import IcebergType

NANOSECONDS = "nanoseconds are no part of Iceberg's timestamps: declare TIMESTAMP(6), or cast to it in the SELECT"


def schema_of(rows: pa.Schema, key: tuple[str, ...]) -> "Schema":
    """The schema of a new table; key columns are required, others as the rows say.

    Raises:
        ValueError: a column has a type that Iceberg lacks, or a key column one that no key may have.
    """
    from pyiceberg.schema import Schema
    from pyiceberg.types import NestedField

    ids = iter(range(1, 1 << 30))
    numbers = {field.name: next(ids) for field in rows}
    fields = [
        NestedField(
            field_id=numbers[field.name],
            name=field.name,
            field_type=_named(field.name, field.type, ids),
            required=not field.nullable or field.name in key,
        )
        for field in rows
    ]
    for field in rows:
        if field.name in key and (pa.types.is_nested(field.type) or pa.types.is_floating(field.type)):
            raise ValueError(f"column {field.name} is {kind_of(field.type)}, which Iceberg takes for no key")
    return Schema(*fields, identifier_field_ids=[numbers[name] for name in key])


def _named(name: str, source: pa.DataType, ids: Iterator[int]) -> "IcebergType":
    try:
        return iceberg_type(source, ids)
    except ValueError as error:
        raise ValueError(f"column {name}: {error}") from None


def iceberg_type(source: pa.DataType, ids: Iterator[int]) -> "IcebergType":
    """The Iceberg type of an Arrow type.

    Raises:
        ValueError: there is none.
    """
    from pyiceberg import types

    if is_list(source):
        return types.ListType(next(ids), iceberg_type(source.value_type, ids), element_required=False)
    if pa.types.is_map(source):
        key, value = next(ids), next(ids)
        return types.MapType(
            key, iceberg_type(source.key_type, ids), value, iceberg_type(source.item_type, ids), value_required=False
        )
    if pa.types.is_struct(source):
        fields = [
            types.NestedField(next(ids), field.name, iceberg_type(field.type, ids), required=not field.nullable)
            for field in source
        ]
        return types.StructType(*fields)
    return _primitive(source)


def _primitive(source: pa.DataType) -> "IcebergType":
    from pyiceberg import types

    if pa.types.is_signed_integer(source):
        return types.LongType() if source.bit_width == 64 else types.IntegerType()
    if pa.types.is_decimal128(source):
        return types.DecimalType(source.precision, source.scale)
    if pa.types.is_timestamp(source):
        if source.unit == "ns":
            raise ValueError(NANOSECONDS)
        return types.TimestampType() if source.tz is None else types.TimestamptzType()
    if pa.types.is_fixed_size_binary(source):
        return types.FixedType(source.byte_width)
    if pa.types.is_time(source) and source.unit == "ns":
        raise ValueError(NANOSECONDS)
    simple = {
        "BOOLEAN": types.BooleanType, "STRING": types.StringType, "BYTES": types.BinaryType, "DATE": types.DateType,
        "TIME": types.TimeType,
    }  # fmt: skip
    if pa.types.is_float32(source) or pa.types.is_float64(source):
        return types.FloatType() if pa.types.is_float32(source) else types.DoubleType()
    if kind_of(source) in simple:
        made: IcebergType = simple[kind_of(source)]()
        return made
    raise ValueError(f"Iceberg has no type for {source}")


def arrow_schema(schema: "Schema") -> pa.Schema:
    """How a table's rows look in Arrow, with 32-bit offsets and without field ids."""
    from pyiceberg.io.pyarrow import schema_to_pyarrow

    return pa.schema([_small_field(field) for field in schema_to_pyarrow(schema, include_field_ids=False)])


def _small_field(field: pa.Field) -> pa.Field:
    return pa.field(field.name, _small(field.type), field.nullable)


def _small(kind: pa.DataType) -> pa.DataType:
    if is_list(kind):
        return pa.list_(_small_field(kind.value_field))
    if pa.types.is_map(kind):
        return pa.map_(_small(kind.key_type), _small_field(kind.item_field))
    if pa.types.is_struct(kind):
        return pa.struct([_small_field(field) for field in kind])
    if pa.types.is_large_string(kind):
        return pa.string()
    return pa.binary() if pa.types.is_large_binary(kind) else kind


def misfit(source: pa.DataType, target: pa.DataType) -> str | None:
    """Why rows of type `source` cannot be kept as `target` without loss; None when they can."""
    if pa.types.is_timestamp(source) and source.unit == "ns":
        return NANOSECONDS
    return None if _fits(source, target) else f"is {source}, the table's column is {target}"


def _fits(source: pa.DataType, target: pa.DataType) -> bool:
    if source == target:
        return True
    if is_list(source) and is_list(target):
        return _fits(source.value_type, target.value_type)
    if pa.types.is_map(source) and pa.types.is_map(target):
        return _fits(source.key_type, target.key_type) and _fits(source.item_type, target.item_type)
    if pa.types.is_struct(source) and pa.types.is_struct(target):
        return _struct_fits(source, target)
    return _primitive_fits(source, target)


def _struct_fits(source: pa.DataType, target: pa.DataType) -> bool:
    names = {field.name for field in source}
    known = {field.name: field for field in target}
    return all(field.name in known and _fits(field.type, known[field.name].type) for field in source) and all(
        field.nullable for name, field in known.items() if name not in names
    )


def _primitive_fits(source: pa.DataType, target: pa.DataType) -> bool:
    if pa.types.is_signed_integer(source) and pa.types.is_signed_integer(target):
        return bool(source.bit_width <= target.bit_width)
    if pa.types.is_floating(source) and pa.types.is_floating(target):
        return bool(source.bit_width <= target.bit_width)
    if pa.types.is_decimal128(source) and pa.types.is_decimal128(target):
        return bool(source.scale <= target.scale and source.precision - source.scale <= target.precision - target.scale)
    if pa.types.is_timestamp(source) and pa.types.is_timestamp(target):
        return (source.tz is None) == (target.tz is None)
    if pa.types.is_time(source) and pa.types.is_time(target):
        return str(source.unit) != "ns"
    return kind_of(source) == kind_of(target) and kind_of(source) in {"STRING", "BYTES"}


def is_vector_text(source: pa.DataType, target: pa.DataType) -> bool:
    """True for texts that are read as vectors, `{1,2}` or `[1,2]`."""
    return kind_of(source) == "STRING" and is_list(target) and pa.types.is_floating(target.value_type)


def is_vector(source: pa.DataType, target: pa.DataType) -> bool:
    """True for lists of numbers that become lists of floats."""
    return (
        is_list(source)
        and is_list(target)
        and pa.types.is_floating(target.value_type)
        and (pa.types.is_floating(source.value_type) or pa.types.is_integer(source.value_type))
    )
