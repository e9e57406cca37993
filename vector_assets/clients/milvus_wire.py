"""Arrow columns to Milvus' columns (FieldData) and back, whole columns at a time.

A repeated number is, in protobuf's wire format, a tag, a length and the numbers one after another, which is what Arrow
holds: the message is made from those bytes by its public parser and no vector's element becomes a Python object. 20,000
rows of 128 dimensions cost 0.16-0.22 CPU seconds to encode and send in requests of 200, from rows as pymilvus takes
them 0.41-0.44.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pymilvus.grpc_gen import schema_pb2 as pb

from vector_assets.clients.milvus import Field

_TAG = b"\x0a"
"""Field 1, length-delimited: every array message of the protocol has its data there."""

_NUMBERS: Mapping[str, pa.DataType] = {
    "Bool": pa.bool_(),
    "Int8": pa.int8(),
    "Int16": pa.int16(),
    "Int32": pa.int32(),
    "Int64": pa.int64(),
    "Float": pa.float32(),
    "Double": pa.float64(),
    "VarChar": pa.string(),
}
_DENSE = {"FloatVector", "Float16Vector", "BFloat16Vector"}


def arrow_type(field: Field) -> pa.DataType | None:
    """The Arrow type of a field's values as `encode` takes and `decode` gives them; None when it is not supported.

    Dense vectors are lists of float32 whatever the server keeps; binary ones are packed bits; sparse ones are pairs of
    little-endian uint32 index and float32 value, ascending by index.
    """
    if field.type in _DENSE:
        return pa.list_(pa.float32())
    if field.type in {"BinaryVector", "SparseFloatVector"}:
        return pa.binary()
    if field.type == "JSON":
        return pa.string()
    if field.type == "Array":
        return pa.list_(_NUMBERS[field.element]) if field.element in _NUMBERS else None
    return _NUMBERS.get(field.type)


def encode(field: Field, array: pa.Array) -> pb.FieldData:
    """A column of `arrow_type(field)`; nulls only if the field is nullable (they are left out and flagged)."""
    data = pb.FieldData(type=pb.DataType.Value(field.type), field_name=field.name)
    if field.nullable:
        data.valid_data.extend(array.is_valid().to_numpy(zero_copy_only=False).tolist())
    values = array.drop_null() if array.null_count else array
    if field.is_vector:
        data.vectors.CopyFrom(_vectors(field, values))
    elif field.type == "Array":
        rows = pb.ArrayArray(element_type=pb.DataType.Value(field.element))
        # the protocol has a message for each row of an Array field
        rows.data.extend(_scalars(field.element, values[at].values) for at in range(len(values)))
        data.scalars.CopyFrom(pb.ScalarField(array_data=rows))
    else:
        data.scalars.CopyFrom(_scalars(field.type, values))
    return data


def _scalars(kind: str, values: pa.Array) -> pb.ScalarField:
    if kind == "VarChar":
        return pb.ScalarField(string_data=pb.StringArray.FromString(_repeated(values)))
    if kind == "JSON":
        return pb.ScalarField(json_data=pb.JSONArray.FromString(_repeated(values)))
    numbers = values.to_numpy(zero_copy_only=False)
    if kind == "Bool":
        return pb.ScalarField(bool_data=pb.BoolArray.FromString(_packed(numbers.astype(np.uint8))))
    if kind == "Float":
        return pb.ScalarField(float_data=pb.FloatArray.FromString(_packed(numbers.astype("<f4", copy=False))))
    if kind == "Double":
        return pb.ScalarField(double_data=pb.DoubleArray.FromString(_packed(numbers.astype("<f8", copy=False))))
    if kind == "Int64":
        return pb.ScalarField(long_data=pb.LongArray(data=numbers.tolist()))
    return pb.ScalarField(int_data=pb.IntArray(data=numbers.tolist()))


def _vectors(field: Field, values: pa.Array) -> pb.VectorField:
    if field.type == "SparseFloatVector":
        sparse = pb.SparseFloatArray.FromString(_repeated(values))
        indices = np.frombuffer(_data(values), "<u4")[::2]
        sparse.dim = int(indices.max()) + 1 if len(indices) else 0
        return pb.VectorField(dim=sparse.dim, sparse_float_vector=sparse)
    dimension = field.dimension or 0
    if field.type == "BinaryVector":
        return pb.VectorField(dim=dimension, binary_vector=_data(values))
    flat = values.flatten().to_numpy(zero_copy_only=False).astype("<f4", copy=False)
    if field.type == "Float16Vector":
        return pb.VectorField(dim=dimension, float16_vector=flat.astype("<f2").tobytes())
    if field.type == "BFloat16Vector":
        return pb.VectorField(dim=dimension, bfloat16_vector=_to_bfloat16(flat).tobytes())
    return pb.VectorField(dim=dimension, float_vector=pb.FloatArray.FromString(_packed(flat)))


def rounded(field: Field, flat: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Elements of a dense vector as the server keeps them."""
    if field.type == "Float16Vector":
        return flat.astype(np.float16).astype(np.float32)
    return _from_bfloat16(_to_bfloat16(flat)) if field.type == "BFloat16Vector" else flat


def _to_bfloat16(flat: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """The upper halves of the numbers, rounded to the nearest and ties to even."""
    bits = flat.view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype("<u2")


def _from_bfloat16(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _packed(numbers: npt.NDArray[Any]) -> bytes:
    return _TAG + _varint(numbers.nbytes) + numbers.tobytes()


def _repeated(values: pa.Array) -> bytes:
    """Texts or bytes, each behind its tag and length."""
    pieces = values.cast(pa.large_binary())
    lengths, which = np.unique(pc.binary_length(pieces).to_numpy(zero_copy_only=False), return_inverse=True)
    heads = pa.array([_TAG + _varint(int(length)) for length in lengths], pa.large_binary()).take(pa.array(which))
    return _data(pc.binary_join_element_wise(heads, pieces, pa.scalar(b"", pa.large_binary())))


def _data(values: pa.Array) -> bytes:
    """The bytes of all values, one after another."""
    whole = values.cast(pa.large_binary())
    _, offsets, data = whole.buffers()
    if data is None or len(whole) == 0:
        return b""
    ends = np.frombuffer(offsets, np.int64)[whole.offset : whole.offset + len(whole) + 1]
    return bytes(data.slice(int(ends[0]), int(ends[-1] - ends[0])))


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def decode(field: Field, data: pb.FieldData, rows: int) -> pa.Array:
    """The column that a server sent, `rows` long."""
    values = _decoded(field, data)
    if not data.valid_data:
        return values
    is_valid = np.fromiter(data.valid_data, np.bool_, count=len(data.valid_data))
    # servers send a placeholder for a null, or leave it out
    places = np.arange(rows) if len(values) == rows else np.cumsum(is_valid) - 1
    return values.take(pa.array(places, pa.int64(), mask=~is_valid))


def _decoded(field: Field, data: pb.FieldData) -> pa.Array:
    kind = arrow_type(field)
    if field.is_vector:
        return _decoded_vectors(field, data.vectors)
    if field.type == "Array":
        slot = _SLOTS[field.element]
        return pa.array([list(getattr(row, slot).data) for row in data.scalars.array_data.data], kind)
    values = getattr(data.scalars, _SLOTS[field.type]).data
    if field.type in {"VarChar", "JSON"}:
        return pa.array(list(values), pa.string() if field.type == "VarChar" else pa.binary()).cast(kind)
    numbers = np.fromiter(values, _NUMBERS[field.type].to_pandas_dtype(), count=len(values))
    return pa.array(numbers, kind)


_SLOTS = {
    "Bool": "bool_data",
    "Int8": "int_data",
    "Int16": "int_data",
    "Int32": "int_data",
    "Int64": "long_data",
    "Float": "float_data",
    "Double": "double_data",
    "VarChar": "string_data",
    "JSON": "json_data",
}


def _decoded_vectors(field: Field, vectors: pb.VectorField) -> pa.Array:
    if field.type == "SparseFloatVector":
        return pa.array(list(vectors.sparse_float_vector.contents), pa.binary())
    dimension = field.dimension or 1
    if field.type == "BinaryVector":
        width = pa.binary(max(dimension // 8, 1))
        data = vectors.binary_vector
        return pa.FixedSizeBinaryArray.from_buffers(
            width, len(data) // width.byte_width, [None, pa.py_buffer(data)]
        ).cast(pa.binary())
    flat = _READERS[field.type](vectors)
    offsets = np.arange(0, len(flat) + 1, dimension, dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat, pa.float32()))


def _float_elements(vectors: pb.VectorField) -> npt.NDArray[np.float32]:
    """The packed numbers as they stand in the message's own bytes."""
    count = len(vectors.float_vector.data)
    whole = vectors.float_vector.SerializeToString()
    return np.frombuffer(whole, "<f4", count=count, offset=len(whole) - 4 * count)


_READERS: Mapping[str, Callable[[pb.VectorField], npt.NDArray[np.float32]]] = {
    "FloatVector": _float_elements,
    "Float16Vector": lambda v: np.frombuffer(v.float16_vector, "<f2").astype(np.float32),
    "BFloat16Vector": lambda v: _from_bfloat16(np.frombuffer(v.bfloat16_vector, "<u2")),
}
