"""Columns to the types a target wants: never a wrap, never a silent infinity; rows that do not fit are named."""

from collections.abc import Callable, Collection, Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine.errors import PlanError

_FOUND_CHARS = 60
_UNITS = {"s": "second", "ms": "millisecond", "us": "microsecond", "ns": "nanosecond"}


def misfits(
    rows: pa.Table, wanted: pa.Schema, *, deletes: npt.NDArray[np.bool_] | None = None, key: Collection[str] = ()
) -> Mapping[int, str]:
    """Rows (by number) that do not fit `wanted`, columns matched by place, and why.

    A row of `deletes` may be null where it is not of the `key`: nothing else of it will be used.

    Raises:
        PlanError: a column's type has no implicit conversion to the wanted one.
    """
    errors: dict[int, str] = {}
    for values, field in zip(rows.columns, wanted, strict=True):
        check_castable(field.name, values.type, field.type)
        found = {} if values.type == field.type else _out_of_range(values, field.type)
        if values.null_count and not field.nullable:
            nulls = values.is_null().to_numpy()
            nulls = nulls if deletes is None or field.name in key else nulls & ~deletes
            found |= dict.fromkeys(np.flatnonzero(nulls).tolist(), "null")
        kind = f"{field.type}" if field.nullable else f"{field.type} NOT NULL"
        for row, value in found.items():
            errors.setdefault(row, f"transform: column {field.name}: found {value}, wanted {kind}")
    return errors


def cast_columns(rows: pa.Table, wanted: pa.Schema) -> list[pa.ChunkedArray]:
    """The columns of rows without misfits, in the wanted types."""
    return [_cast(values, field.type) for values, field in zip(rows.columns, wanted, strict=True)]


def check_castable(column: str, found: pa.DataType, wanted: pa.DataType) -> None:
    """Refuse what SQL does not convert by itself.

    Raises:
        PlanError: names the column, both types and the remedy.
    """
    if not castable(found, wanted):
        raise PlanError(f"transform: column {column} is {found}, the target wants {wanted}; add a CAST to the SELECT")


def castable(found: pa.DataType, wanted: pa.DataType) -> bool:
    """SQL converts one to the other by itself; single values may still be out of range."""
    if found == wanted or pa.types.is_null(found):
        return True
    if pa.types.is_nested(wanted):
        return _same_shape(found, wanted)
    family = _family(found)
    return family == _family(wanted) != "" or (family == "date" and pa.types.is_timestamp(wanted))


def _same_shape(found: pa.DataType, wanted: pa.DataType) -> bool:
    if pa.types.is_list(wanted):
        is_list = pa.types.is_list(found) or pa.types.is_large_list(found) or pa.types.is_fixed_size_list(found)
        return is_list and castable(found.value_type, wanted.value_type)
    if pa.types.is_struct(wanted):
        return (
            pa.types.is_struct(found)
            and [field.name for field in found] == [field.name for field in wanted]
            and all(castable(one.type, other.type) for one, other in zip(found, wanted, strict=True))
        )
    return bool(
        pa.types.is_map(found)
        and castable(found.key_type, wanted.key_type)
        and castable(found.item_type, wanted.item_type)
    )


def _family(kind: pa.DataType) -> str:
    families: dict[str, Callable[[pa.DataType], bool]] = {
        "boolean": pa.types.is_boolean,
        "number": lambda t: pa.types.is_integer(t) or pa.types.is_floating(t) or pa.types.is_decimal(t),
        "text": lambda t: pa.types.is_string(t) or pa.types.is_large_string(t),
        "bytes": lambda t: pa.types.is_binary(t) or pa.types.is_large_binary(t),
        "date": pa.types.is_date,
        "time": pa.types.is_time,
        "timestamp": pa.types.is_timestamp,
    }
    return next((name for name, holds in families.items() if holds(kind)), "")


def _cast(values: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    """Arrow's checked cast, with SQL's reading where Arrow's is stricter: numbers round, timestamps are cut.

    Raises:
        pyarrow.ArrowInvalid: a value is out of range.
    """
    found = values.type
    if found == wanted:
        return values
    if pa.types.is_nested(found):
        # Arrow casts all elements of the underlying array, those outside a slice too, and refuses for their sake
        values = values.take(pa.array(np.arange(len(values))))
    elif pa.types.is_decimal(wanted) and pa.types.is_integer(found):
        values = values.cast(pa.decimal128(20))
    elif pa.types.is_decimal(wanted) and pa.types.is_decimal(found) and wanted.scale < found.scale:
        values = pc.round(values, wanted.scale, round_mode="half_towards_infinity")
    elif pa.types.is_timestamp(wanted) and pa.types.is_timestamp(found):
        # without its zone, because with one Arrow asks for the operating system's zone files
        values = pc.floor_temporal(
            values.cast(pa.timestamp(found.unit)), unit=_UNITS[_coarser(found.unit, wanted.unit)]
        )
    elif pa.types.is_floating(wanted) and pa.types.is_integer(found):
        return values.cast(wanted, safe=False)
    result = values.cast(wanted)
    if pa.types.is_floating(wanted) and pc.any(_overflown(values, result)).as_py():
        raise pa.ArrowInvalid(f"a number is out of range for {wanted}")
    return result


def _coarser(one: str, other: str) -> str:
    return min(one, other, key=list(_UNITS).index)


def _overflown(values: pa.ChunkedArray, result: pa.ChunkedArray) -> pa.ChunkedArray:
    """True where a finite number became infinite."""
    infinite = pc.is_inf(result)
    return pc.and_not(infinite, pc.is_inf(values)) if pa.types.is_floating(values.type) else infinite


def _out_of_range(values: pa.ChunkedArray, wanted: pa.DataType) -> dict[int, str]:
    """Rows whose value cannot be cast, and the value for people."""
    if pa.types.is_signed_integer(values.type) and pa.types.is_signed_integer(wanted):
        top = 2 ** (wanted.bit_width - 1)
        low, high = (pa.scalar(limit) for limit in (-top, top - 1))
        fits = pc.and_(pc.less_equal(low, values), pc.less_equal(values, high))
        bad = np.flatnonzero(pc.fill_null(fits, fill_value=True).to_numpy() == 0)
    else:
        bad = np.array(_by_bisection(values, wanted), np.int64)
    found = values.take(pa.array(bad)).to_pylist()
    return {row: str(value)[:_FOUND_CHARS] for row, value in zip(bad.tolist(), found, strict=True)}


def _by_bisection(values: pa.ChunkedArray, wanted: pa.DataType) -> list[int]:
    bad: list[int] = []
    spans = [(0, len(values))]
    while spans:
        start, end = spans.pop()
        try:
            _cast(values.slice(start, end - start), wanted)
        except pa.ArrowInvalid:
            if end - start == 1:
                bad.append(start)
            else:
                middle = (start + end) // 2
                spans += [(middle, end), (start, middle)]
    return bad
