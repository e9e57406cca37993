"""Families of Arrow types, by the names that Flink SQL gives their members."""

from collections.abc import Callable, Mapping

import pyarrow as pa


def kind_of(source: pa.DataType) -> str:
    """The family of an Arrow type, by the name Flink SQL gives its members."""
    return next((kind for kind, is_of in _KINDS.items() if is_of(source)), str(source))


def is_list(source: pa.DataType) -> bool:
    """True for lists of any width."""
    return bool(pa.types.is_list(source) or pa.types.is_large_list(source) or pa.types.is_fixed_size_list(source))


_KINDS: Mapping[str, Callable[[pa.DataType], bool]] = {
    "BOOLEAN": pa.types.is_boolean,
    "INT": pa.types.is_integer,
    "DOUBLE": pa.types.is_floating,
    "DECIMAL": pa.types.is_decimal128,
    "STRING": lambda t: pa.types.is_string(t) or pa.types.is_large_string(t),
    "BYTES": lambda t: pa.types.is_binary(t) or pa.types.is_large_binary(t) or pa.types.is_fixed_size_binary(t),
    "DATE": pa.types.is_date,
    "TIME": pa.types.is_time,
    "TIMESTAMP": pa.types.is_timestamp,
    "ARRAY": is_list,
    "MAP": pa.types.is_map,
    "ROW": pa.types.is_struct,
}
