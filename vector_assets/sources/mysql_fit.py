"""Values of MySQL in the types that a table declares, and records made of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine.core import KIND, RAW_SCHEMA
from vector_assets.engine.errors import PlanError
from vector_assets.engine.schema import Column, LogicalType

_DAY_US = 86_400_000_000


def fit(values: Any, column: Column, zone: str, where: str) -> Any:
    """The values (of a natural type, see `mysql_image`) in the column's declared type.

    Raises:
        PlanError: a value, or all of them, cannot be had in that type.
    """
    try:
        found = _fit(values, column.type, zone)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise PlanError(
            f"{where}: column {column.name} is {column.type}; the values are {values.type}: {reason}"
        ) from error
    if not column.type.nullable and found.null_count:
        raise PlanError(
            f"{where}: column {column.name} is NOT NULL, but {found.null_count} values are null (a date with zeros?)"
        )
    return found


def _fit(values: Any, wanted: LogicalType, zone: str) -> Any:
    kind, target = values.type, wanted.arrow
    if kind == target:
        return values
    if wanted.name == "BOOLEAN":
        return pc.not_equal(values, pa.scalar(b"\0", kind)) if pa.types.is_binary(kind) else pc.not_equal(values, 0)
    if pa.types.is_binary(kind) and pa.types.is_integer(target):
        numbers = [None if each is None else int.from_bytes(each, "big") for each in values.to_pylist()]
        return pa.array(numbers, target)
    if pa.types.is_duration(kind):
        return _times(values, target)
    if pa.types.is_timestamp(kind) and pa.types.is_timestamp(target):
        if kind.tz is not None and target.tz is None:
            return pc.local_timestamp(values.cast(pa.timestamp("us", zone))).cast(target)
        if kind.tz is None and target.tz is not None:
            return pc.assume_timezone(values, zone).cast(target)
    if pa.types.is_timestamp(kind) and pa.types.is_string(target) and kind.tz is not None:
        return pc.local_timestamp(values.cast(pa.timestamp("us", zone))).cast(target)
    return values.cast(target)


def _times(values: Any, target: pa.DataType) -> Any:
    micros = values.cast(pa.int64())
    if pa.types.is_time(target):
        if pc.any(pc.or_(pc.less(micros, 0), pc.greater_equal(micros, _DAY_US))).as_py():
            raise ValueError("a TIME before 00:00 or of 24 hours or more: declare the column as STRING")
        return micros.cast(target)
    if pa.types.is_string(target):
        return pa.array([None if each is None else _clock(each) for each in micros.to_pylist()], pa.string())
    return micros.cast(target)


def _clock(micros: int) -> str:
    """As MySQL shows a TIME: `-838:59:59.000001`; the fraction only where there is one."""
    seconds, rest = divmod(abs(micros), 1_000_000)
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return ("-" if micros < 0 else "") + text + (f".{rest:06}" if rest else "")


def records(
    schema: pa.Schema, columns: Sequence[Any], kinds: Any, table: str, offset: int, at_ms: Any
) -> pa.RecordBatch:
    """Records of the raw schema: rows of one table with their kinds; `at_ms` (0: unknown) may be one or many."""
    count = len(kinds)
    kind = schema.field("value").type
    arrays = [*columns, pa.array(np.asarray(kinds, np.int8))]
    assert kind.field(kind.num_fields - 1).name == KIND
    times = np.broadcast_to(np.asarray(at_ms, np.int64), count)
    found = {
        "key": pa.repeat(pa.scalar(table.encode()), count),
        "value": pa.StructArray.from_arrays(arrays, fields=list(kind)),
        "timestamp": pa.array(times, mask=times == 0).cast(RAW_SCHEMA.field("timestamp").type),
        "split": pa.repeat(pa.scalar(0, pa.int16()), count),
        "offset": pa.array(np.arange(offset, offset + count, dtype=np.int64)),
    }
    filled = [found[each.name] if each.name in found else pa.nulls(count, each.type) for each in schema]
    return pa.RecordBatch.from_arrays(filled, schema=schema)
