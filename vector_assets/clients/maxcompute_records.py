"""Arrow rows to the tunnel's record stream (protobuf fields with running checksums), a column at a time.

The form, as pyodps reads it (odps/tunnel/io/reader.py): per record the non-null fields, numbered from 1, then field
33553408 with the CRC32C of the record's values; at the end the count and the CRC32C over the records' checksums.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from crc32c import crc32c

from vector_assets.clients.maxcompute_ragged import Ragged, constant, fixed, interleave, of_list, varints, zigzag
from vector_assets.engine.schema import LogicalType

END_RECORD = 33553408
END_METRICS = 33554176
COUNT = 33554430
CHECKSUM = 33554431
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
INTEGERS = frozenset({"tinyint", "smallint", "int", "bigint"})
STAMPS = frozenset({"timestamp", "timestamp_ntz"})
TEXTS = frozenset({"string", "binary", "char", "varchar", "json"})

_PIECE = 16_384
_NANOS = 1_000_000_000


class Type(Protocol):
    """A column's type on the wire: its name in small letters, and the types inside it with their names."""

    @property
    def name(self) -> str:
        """`bigint`, `string`, `array`, ..."""
        ...

    @property
    def fields(self) -> "Sequence[tuple[str, Any]]":
        """The types inside."""
        ...


@dataclass(frozen=True, slots=True)
class Form:
    """Such a type by itself."""

    name: str
    fields: tuple[tuple[str, "Form"], ...] = ()


_FORMS = {
    "CHAR": "string", "VARCHAR": "string", "BINARY": "binary", "VARBINARY": "binary", "BOOLEAN": "boolean",
    "TINYINT": "bigint", "SMALLINT": "bigint", "INT": "bigint", "BIGINT": "bigint", "FLOAT": "float",
    "DOUBLE": "double", "DECIMAL": "decimal", "DATE": "date",
}  # fmt: skip


def form_of(kind: LogicalType) -> Form:
    """How values of a column of this type are written; types that are written alike have one name."""
    if kind.name in _FORMS:
        return Form(_FORMS[kind.name])
    if kind.name.startswith("TIMESTAMP"):
        return Form("datetime" if (kind.precision or 0) <= 3 else "timestamp")
    inner = [form_of(child) for child in kind.children]
    if kind.name == "ROW":
        return Form("struct", tuple(zip(kind.child_names, inner, strict=True)))
    return Form(kind.name.lower(), tuple((str(at), each) for at, each in enumerate(inner)))


def varint(value: int) -> bytes:
    """One base-128 varint of an unsigned number."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def tag(field: int, wire: int) -> bytes:
    """What stands before a value."""
    return varint(field << 3 | wire)


def wire_of(kind: Type) -> int:
    """The wire type of a column's values."""
    if kind.name in INTEGERS or kind.name in {"boolean", "date", "datetime"}:
        return VARINT
    return {"float": FIXED32, "double": FIXED64}.get(kind.name, LENGTH)


Same = Sequence[tuple[int, bytes, bytes]]
"""Fields that are the same in every record: number (after the columns'), tag and value, what the checksum covers."""


def changes(rows: pa.Table, kinds: Sequence[Type], operation: str, places: Sequence[int] = ()) -> bytes:
    """The record stream of changes of one `operation` (`U` or `D`): rows with the five fields that an upsert session
    wants after the columns (odps/tunnel/tabletunnel.py). `places` are the columns that are set, none for all."""
    first = len(kinds) + 1
    set_, summed = bytearray(varint(len(places))), bytearray()
    for place in places:
        set_.append(0)
        _write_number(place, set_, summed)
    code = ord(operation)
    same = (
        (first + 2, tag(first + 2, VARINT) + varint(_zigzag(code)), struct.pack("<q", code)),
        (first + 4, tag(first + 4, LENGTH) + bytes(set_), bytes(summed)),
    )
    return b"".join(encode(rows, kinds, same))


def encode(rows: pa.Table, kinds: Sequence[Type], same: Same = ()) -> Iterator[bytes]:
    """The record stream of a table whose columns have these types."""
    total, overall = 0, 0
    for batch in rows.combine_chunks().to_batches(max_chunksize=_PIECE):
        if batch.num_rows:
            body, checksums = _records(batch, kinds, same)
            overall = crc32c(checksums.tobytes(), overall)
            total += batch.num_rows
            yield body
    yield tag(COUNT, VARINT) + varint(total << 1) + tag(CHECKSUM, VARINT) + varint(overall)


def _records(
    batch: pa.RecordBatch, kinds: Sequence[Type], same: Same
) -> tuple[bytes, np.ndarray[Any, np.dtype[np.uint32]]]:
    wires, sums = [], []
    for number, kind in enumerate(kinds, start=1):
        column = batch.column(number - 1)
        present = np.asarray(column.is_valid())
        wire, summed = _values(column, kind)
        head = constant(tag(number, wire_of(kind)), batch.num_rows)
        field = constant(struct.pack("<i", number), batch.num_rows)
        wires.append(interleave([head, wire]).only_where(present))
        sums.append(interleave([field, summed]).only_where(present))
    for number, wired, covered in same:
        wires.append(constant(wired, batch.num_rows))
        sums.append(constant(struct.pack("<i", number) + covered, batch.num_rows))
    checked = interleave(sums) if sums else constant(b"", batch.num_rows)
    ends = np.cumsum(checked.lengths)
    starts = ends - checked.lengths
    buffer = checked.data.data
    checksums = np.fromiter(
        (crc32c(buffer[start:end]) for start, end in zip(starts.tolist(), ends.tolist(), strict=True)),
        np.uint32,
        batch.num_rows,
    )
    wires += [constant(tag(END_RECORD, VARINT), batch.num_rows), varints(checksums.astype(np.uint64))]
    return interleave(wires).data.tobytes(), checksums


def _values(column: pa.Array, kind: Type) -> tuple[Ragged, Ragged]:
    """What goes on the wire, and into the checksum, for every value; null places hold anything."""
    name = kind.name
    if name in INTEGERS or name in {"date", "datetime"}:
        whole = column.cast(pa.int32()) if name == "date" else column
        numbers = np.asarray(whole.cast(pa.int64()).fill_null(0))
        return varints(zigzag(numbers)), fixed(numbers)
    if name == "boolean":
        flags = fixed(np.asarray(column.cast(pa.uint8()).fill_null(0)))
        return flags, flags
    if name in {"float", "double"}:
        floats = fixed(np.asarray(column.fill_null(0.0)))
        return floats, floats
    if name in STAMPS:
        stamps = np.asarray(column.cast(pa.int64()).fill_null(0))
        seconds = stamps // _NANOS
        nanos = stamps - seconds * _NANOS
        wire = interleave([varints(zigzag(seconds)), varints(zigzag(nanos))])
        return wire, interleave([fixed(seconds), fixed(nanos.astype(np.int32))])
    if name in TEXTS or name == "decimal":
        texts = _texts(column)
        return interleave([varints(texts.lengths.astype(np.uint64)), texts]), texts
    return _nested(column, kind)


def _texts(column: pa.Array) -> Ragged:
    """The bytes of texts."""
    kind = column.type
    if not (pa.types.is_string(kind) or pa.types.is_binary(kind)):
        column = column.cast(pa.string())
    column = pc.fill_null(column, b"" if pa.types.is_binary(kind) else "").cast(pa.binary())
    offsets = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + len(column) + 1]
    data = np.frombuffer(column.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    return Ragged(data, np.diff(offsets).astype(np.int64))


def _nested(column: pa.Array, kind: Type) -> tuple[Ragged, Ragged]:
    """ARRAY, MAP and STRUCT: one value at a time."""
    write = writer_of(kind)
    wires, sums = [], []
    for value in _ready(column).to_pylist():
        wire, summed = bytearray(), bytearray()
        if value is not None:
            write(value, wire, summed)
        wires.append(bytes(wire))
        sums.append(bytes(summed))
    return of_list(wires), of_list(sums)


Write = Callable[[Any, bytearray, bytearray], None]


def writer_of(kind: Type) -> Write:
    """Appends a value's wire form and what its checksum covers to two buffers."""
    name = kind.name
    if name in INTEGERS or name in {"date", "datetime"}:
        return _write_number
    if name == "boolean":
        return _write_flag
    if name in {"float", "double"}:
        return _float_writer("<f" if name == "float" else "<d")
    if name in STAMPS:
        return _write_stamp
    if name in TEXTS or name == "decimal":
        return _write_text
    if name == "struct":
        return _struct_writer(kind)
    if name == "map":
        return _map_writer(kind)
    return _list_writer(kind.fields[0][1])


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


def _write_number(value: int, wire: bytearray, summed: bytearray) -> None:
    wire += varint(_zigzag(value))
    summed += struct.pack("<q", value)


def _write_flag(value: bool, wire: bytearray, summed: bytearray) -> None:  # noqa: FBT001 (one of the value writers)
    wire.append(value)
    summed.append(value)


def _float_writer(form: str) -> Write:
    pack = struct.Struct(form).pack

    def write_float(value: float, wire: bytearray, summed: bytearray) -> None:
        wire += pack(value)
        summed += pack(value)

    return write_float


def _write_stamp(value: int, wire: bytearray, summed: bytearray) -> None:
    seconds, nanos = divmod(value, _NANOS)
    wire += varint(_zigzag(seconds)) + varint(_zigzag(nanos))
    summed += struct.pack("<qi", seconds, nanos)


def _write_text(value: str | bytes | Decimal, wire: bytearray, summed: bytearray) -> None:
    text = value if isinstance(value, bytes) else (f"{value:f}" if isinstance(value, Decimal) else value).encode()
    wire += varint(len(text)) + text
    summed += text


def _list_writer(inner: Type) -> Write:
    write = writer_of(inner)

    def write_list(values: Sequence[Any], wire: bytearray, summed: bytearray) -> None:
        wire += varint(len(values))
        for value in values:
            wire.append(value is None)
            if value is not None:
                write(value, wire, summed)

    return write_list


def _map_writer(kind: Type) -> Write:
    keys, values = (_list_writer(inner) for _, inner in kind.fields)

    def write_map(pairs: Sequence[tuple[Any, Any]], wire: bytearray, summed: bytearray) -> None:
        keys([key for key, _ in pairs], wire, summed)
        values([value for _, value in pairs], wire, summed)

    return write_map


def _struct_writer(kind: Type) -> Write:
    writers = [(name, writer_of(inner)) for name, inner in kind.fields]

    def write_struct(fields: dict[str, Any], wire: bytearray, summed: bytearray) -> None:
        for name, write in writers:
            value = fields[name]
            wire.append(value is None)
            if value is not None:
                write(value, wire, summed)

    return write_struct


def _ready(column: pa.Array) -> pa.Array:
    """Dates and times inside become numbers: Python's own have no nanoseconds."""
    return column.cast(_numeric(column.type))


def _numeric(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind):
        return pa.int64()
    if pa.types.is_date(kind):
        return pa.int32()
    if pa.types.is_map(kind):
        return pa.map_(_numeric(kind.key_type), _numeric(kind.item_type))
    if pa.types.is_list(kind):
        return pa.list_(_numeric(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _numeric(field.type)) for field in kind])
    return kind
