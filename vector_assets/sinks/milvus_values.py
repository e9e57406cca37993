"""Columns of the pipeline as a collection's fields take them: converted and checked, whole columns at a time.

A value that the server would refuse, or that milvus-lite would take though a server would not, refuses its row; the
reason never repeats the value.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.clients.milvus import Field
from vector_assets.engine.core import POSITION
from vector_assets.engine.errors import PlanError
from vector_assets.sinks.kinds import kind_of
from vector_assets.sinks.refusals import Mask, Refusals, Refuse
from vector_assets.sinks.vectors import check, limit_of, parse

MOST_JSON_BYTES = 65_536
"""The server's limit of a JSON value."""
_SPARSE_END = 2**32 - 1
_BFLOAT16_OVERFLOW = 3.3961775e38
"""The smallest number that does not round to a finite bfloat16."""

_ARROW: Mapping[str, pa.DataType] = {
    "Bool": pa.bool_(),
    "Int8": pa.int8(),
    "Int16": pa.int16(),
    "Int32": pa.int32(),
    "Int64": pa.int64(),
    "Float": pa.float32(),
    "Double": pa.float64(),
    "VarChar": pa.string(),
}

Conversion = Callable[[pa.Array, Field, Refuse], pa.Array]
Numbers = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Columns:
    """Good rows as fields of the collection, in order; `positions` are their ordinals in the batch."""

    fields: tuple[tuple[Field, pa.Array], ...]
    positions: pa.Array

    def __len__(self) -> int:
        return len(self.positions)

    def array(self, field: Field) -> pa.Array:
        """The column of a field."""
        return next(array for found, array in self.fields if found.name == field.name)


def convert(table: pa.Table, fields: Sequence[Field]) -> tuple[Columns, dict[int, str]]:
    """The table's good rows, and the reason for each other row by its ordinal in the batch."""
    refusals = Refusals()
    positions = table.column(POSITION).combine_chunks()
    arrays = [_column(table.column(field.name), field, refusals.of(field.name)) for field in fields]
    if refusals.reasons:
        kept = np.ones(len(positions), np.bool_)
        kept[list(refusals.reasons)] = False
        numbers = positions.to_numpy(zero_copy_only=False)
        reasons = {int(numbers[row]): reason for row, reason in sorted(refusals.reasons.items())}
        arrays = [array.filter(pa.array(kept)) for array in arrays]
        return Columns(tuple(zip(fields, arrays, strict=True)), positions.filter(pa.array(kept))), reasons
    return Columns(tuple(zip(fields, arrays, strict=True)), positions), {}


def _column(column: pa.ChunkedArray, field: Field, refuse: Refuse) -> pa.Array:
    whole = column.combine_chunks()
    if pa.types.is_dictionary(whole.type):
        whole = whole.dictionary_decode()
    array = pa.concat_arrays([whole]) if whole.offset else whole
    convert_values = conversion(array.type, field)
    if convert_values is None:
        raise PlanError(f"milvus: column {field.name} came as {array.type}, which {field.spelled} does not take")
    if array.null_count and not field.nullable:
        refuse(_mask(pc.is_null(array)), "is null, the field takes none")
    return convert_values(array, field, refuse)


def conversion(source: pa.DataType, field: Field) -> Conversion | None:
    """How to make a field's values of a column of type `source`; None when that is not allowed."""
    if pa.types.is_null(source):
        return _nulls
    kind = kind_of(source)
    if field.type == "Array":
        is_fitting = kind == "ARRAY" and conversion(source.value_type, element_of(field)) is not None
        return _list_to_array if is_fitting else None
    if kind == "ARRAY" and field.type in _DENSE:
        return _list_to_vector if kind_of(source.value_type) in {"INT", "DOUBLE", "DECIMAL"} else None
    if kind == "MAP" and field.type == "SparseFloatVector":
        has_numbers = kind_of(source.key_type) == "INT" and kind_of(source.item_type) in {"DOUBLE", "INT"}
        return _map_to_sparse if has_numbers else None
    return _CONVERSIONS.get(field.type, {}).get(kind)


def accepted(field: Field) -> str:
    """The kinds of columns that a field takes, for people; empty when it can take none."""
    if field.type in _DENSE:
        return "ARRAY of numbers, STRING"
    if field.type == "SparseFloatVector":
        return "MAP<INT, FLOAT>, STRING (JSON)"
    if field.type == "Array":
        return f"ARRAY of {accepted(element_of(field))}" if field.element in _ARROW else ""
    return ", ".join(_CONVERSIONS.get(field.type, {}))


def element_of(field: Field) -> Field:
    """What an Array field holds, as a field of its own."""
    return Field(field.name, field.element, max_length=field.max_length)


def _mask(values: pa.Array) -> Mask:
    return np.asarray(pc.fill_null(values, fill_value=False).to_numpy(zero_copy_only=False))


def _nulls(array: pa.Array, field: Field, _: Refuse) -> pa.Array:
    from vector_assets.clients.milvus_wire import arrow_type

    return pa.nulls(len(array), arrow_type(field))


def _as_is(array: pa.Array, field: Field, _: Refuse) -> pa.Array:
    return array.cast(_ARROW[field.type])


def _integer(array: pa.Array, field: Field, refuse: Refuse) -> pa.Array:
    wanted = _ARROW[field.type]
    try:
        return array.cast(wanted)
    except pa.ArrowInvalid:
        limits = np.iinfo(f"int{wanted.bit_width}")
        numbers = pc.fill_null(array, 0).to_numpy(zero_copy_only=False)
        refuse((numbers < limits.min) | (numbers > limits.max), f"out of range of {field.type}")
        return array.cast(wanted, safe=False)


def _float(array: pa.Array, field: Field, refuse: Refuse) -> pa.Array:
    values = array.cast(_ARROW[field.type], safe=False)
    refuse(_mask(pc.invert(pc.is_finite(values))), f"is NaN, infinite or out of range of {field.type}")
    return values


def _text(array: pa.Array, field: Field, refuse: Refuse) -> pa.Array:
    values = array.cast(pa.string())
    if field.max_length is not None:
        lengths = pc.fill_null(pc.binary_length(values), 0).to_numpy(zero_copy_only=False)
        refuse(lengths > field.max_length, lambda row: f"{lengths[row]} bytes, the field takes {field.max_length}")
    return values


def _json(array: pa.Array, field: Field, refuse: Refuse) -> pa.Array:
    values = array.cast(pa.string())
    lengths = pc.fill_null(pc.binary_length(values), 0).to_numpy(zero_copy_only=False)
    refuse(lengths > MOST_JSON_BYTES, lambda row: f"{lengths[row]} bytes of JSON, the server takes {MOST_JSON_BYTES}")
    refuse(_not_json(values), "is not JSON")
    return values


def _not_json(values: pa.Array) -> Mask:
    """Which texts are no JSON values."""
    is_bad = np.zeros(len(values), np.bool_)
    for row, text in enumerate(values.to_pylist()):
        try:
            if text is not None:
                orjson.loads(text)
        except orjson.JSONDecodeError:
            is_bad[row] = True
    return is_bad


def _bits(array: pa.Array, field: Field, refuse: Refuse) -> pa.Array:
    values = array.cast(pa.binary())
    wanted = (field.dimension or 0) // 8
    lengths = pc.fill_null(pc.binary_length(values), wanted).to_numpy(zero_copy_only=False)
    refuse(lengths != wanted, lambda row: f"{lengths[row]} bytes, {field.spelled} takes {wanted}")
    return values


def _text_to_vector(array: pa.Array, field: Field, refuse: Refuse) -> pa.Array:
    texts = array.cast(pa.string())
    # numbers without brackets are a vector too
    is_bare = pc.match_substring_regex(texts, r"^\s*[-+.0-9][^\[\]{}]*$")
    if pc.any(is_bare).as_py():
        texts = pc.if_else(is_bare, pc.binary_join_element_wise("[", texts, "]", ""), texts)
    return _checked(parse(texts, pa.float32(), refuse), field, refuse)


def _list_to_vector(array: pa.Array, field: Field, refuse: Refuse) -> pa.Array:
    if pa.types.is_fixed_size_list(array.type) or pa.types.is_large_list(array.type):
        array = array.cast(pa.list_(array.type.value_type))
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    offsets = np.zeros(len(array) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    mask = pc.is_null(array) if array.null_count else None
    numbers = array.flatten().cast(pa.float32(), safe=False)
    return _checked(pa.ListArray.from_arrays(pa.array(offsets), numbers, mask=mask), field, refuse)


def _checked(vectors: pa.Array, field: Field, refuse: Refuse) -> pa.Array:
    from vector_assets.clients.milvus_wire import rounded

    limit = {"Float16Vector": limit_of("halfvec"), "BFloat16Vector": _BFLOAT16_OVERFLOW}.get(field.type, np.inf)
    check(vectors, field.dimension, limit, refuse, is_strict=True)
    if field.type == "FloatVector":
        return vectors
    flat = pc.fill_null(vectors.flatten(), 0.0).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        kept = pa.array(rounded(field, flat))
    mask = pc.is_null(vectors) if vectors.null_count else None
    return pa.ListArray.from_arrays(vectors.offsets, kept, mask=mask)


def _map_to_sparse(array: pa.Array, field: Field, refuse: Refuse) -> pa.Array:
    lengths = np.diff(array.offsets.to_numpy())
    start, end = array.offsets[0].as_py(), array.offsets[-1].as_py()
    indices = array.keys.slice(start, end - start).cast(pa.int64())
    values = array.items.slice(start, end - start).cast(pa.float32(), safe=False)
    return _sparse(array, lengths, indices, values, refuse)


def _text_to_sparse(array: pa.Array, field: Field, refuse: Refuse) -> pa.Array:
    """Sparse vectors written as JSON objects of index and value."""
    is_bad = np.zeros(len(array), np.bool_)
    rows: list[dict[int, float] | None] = []
    for row, text in enumerate(array.to_pylist()):
        found = _sparse_object(text) if text is not None else None
        is_bad[row] = text is not None and found is None
        rows.append(found)
    refuse(is_bad, 'a sparse vector is written {"index": value, ..}')
    pairs = pa.array(
        [list(row.items()) if row is not None else None for row in rows], pa.map_(pa.int64(), pa.float64())
    )
    return _map_to_sparse(pairs, field, refuse)


def _sparse_object(text: str) -> dict[int, float] | None:
    try:
        found = orjson.loads(text)
        numbers = {int(index): float(value) for index, value in found.items()}
    except (orjson.JSONDecodeError, AttributeError, TypeError, ValueError):
        return None
    return numbers if max(map(abs, numbers), default=0) < 2**63 and len(numbers) == len(found) else None


def _sparse(array: pa.Array, lengths: Numbers, indices: pa.Array, values: pa.Array, refuse: Refuse) -> pa.Array:
    row_of = np.repeat(np.arange(len(array)), lengths)
    numbers = pc.fill_null(values, np.nan).to_numpy(zero_copy_only=False)
    keys = indices.to_numpy(zero_copy_only=False)

    def rows_with(flags: Mask) -> Mask:
        marked = np.zeros(len(array), np.bool_)
        marked[row_of[flags]] = True
        return marked

    refuse(rows_with(~np.isfinite(numbers)), "a value of the vector is missing, NaN, infinite or out of range")
    refuse(rows_with((keys < 0) | (keys >= _SPARSE_END)), f"an index of the vector is not from 0 to {_SPARSE_END - 1}")
    order = np.lexsort((keys, row_of))
    pairs = np.empty(len(order), [("index", "<u4"), ("value", "<f4")])
    pairs["index"], pairs["value"] = keys[order].astype(np.uint32), numbers[order]
    is_repeated = np.zeros(len(order), np.bool_)
    is_repeated[1:] = (keys[order][1:] == keys[order][:-1]) & (row_of[order][1:] == row_of[order][:-1])
    refuse(rows_with(is_repeated[np.argsort(order)]), "an index of the vector comes twice")
    ends = np.zeros(len(array) + 1, np.int32)
    np.cumsum(lengths * pairs.itemsize, out=ends[1:])
    contents = pa.BinaryArray.from_buffers(
        pa.binary(), len(array), [None, pa.py_buffer(ends.tobytes()), pa.py_buffer(pairs.tobytes())]
    )
    return pc.if_else(pc.is_null(array), None, contents) if array.null_count else contents


def _list_to_array(array: pa.Array, field: Field, refuse: Refuse) -> pa.Array:
    element = element_of(field)
    convert_values = conversion(array.type.value_type, element)
    if convert_values is None:
        raise AssertionError("unreachable: the plan allows only what can be converted")
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    if field.max_capacity is not None:
        refuse(
            lengths > field.max_capacity, lambda row: f"{lengths[row]} elements, the field takes {field.max_capacity}"
        )
    row_of = np.repeat(np.arange(len(array)), lengths)

    def refuse_lists(children: Mask, reason: str | Callable[[int], str]) -> None:
        rows = np.zeros(len(array), np.bool_)
        rows[row_of[children]] = True
        refuse(rows, reason if isinstance(reason, str) else f"an element has {reason(int(np.argmax(children)))}")

    children = array.flatten()
    if children.null_count:
        refuse_lists(_mask(pc.is_null(children)), "an element is null")
    offsets = np.zeros(len(array) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    mask = pc.is_null(array) if array.null_count else None
    return pa.ListArray.from_arrays(pa.array(offsets), convert_values(children, element, refuse_lists), mask=mask)


_DENSE = {"FloatVector", "Float16Vector", "BFloat16Vector"}
_INTEGERS: Mapping[str, Conversion] = {"INT": _integer}
_FLOATS: Mapping[str, Conversion] = {"DOUBLE": _float, "INT": _float, "DECIMAL": _float}
_VECTORS: Mapping[str, Conversion] = {"STRING": _text_to_vector}

_CONVERSIONS: Mapping[str, Mapping[str, Conversion]] = {
    "Bool": {"BOOLEAN": _as_is},
    "Int8": _INTEGERS,
    "Int16": _INTEGERS,
    "Int32": _INTEGERS,
    "Int64": _INTEGERS,
    "Float": _FLOATS,
    "Double": _FLOATS,
    "VarChar": {"STRING": _text},
    "JSON": {"STRING": _json},
    "FloatVector": _VECTORS,
    "Float16Vector": _VECTORS,
    "BFloat16Vector": _VECTORS,
    "BinaryVector": {"BYTES": _bits},
    "SparseFloatVector": {"STRING": _text_to_sparse},
}
"""Field type -> kind of column it takes -> how. Integers are checked against the field's range."""
