"""Records of tables whose columns are followed: every row with all columns its table had there, and what was changed.

Types are those of Flink CDC. The binlog says less of a column than the server does (BOOLEAN is a TINYINT there): while
the table still has the column as the binlog has it, it is of the type that the server gives it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from pymysqlreplication.constants import FIELD_TYPE as T

from vector_assets.clients.mysql_image import Field
from vector_assets.clients.mysql_image import Layout as Fields
from vector_assets.clients.mysql_schema import MySqlColumn, MySqlTable
from vector_assets.engine.captured import CAPTURED_SCHEMA, Layout, Renames, SourceColumn, captured
from vector_assets.engine.core import RAW_SCHEMA
from vector_assets.engine.schema import Column, LogicalType
from vector_assets.sources.mysql_changes import Images, check_zeros
from vector_assets.sources.mysql_fit import fit
from vector_assets.sources.mysql_snapshot import Chunk
from vector_assets.sources.mysql_stream import Altered

Find = Callable[[str], MySqlTable | None]
"""A table as the server has it now."""
_CODES: dict[str, tuple[int, ...]] = {
    "tinyint": (T.TINY,), "smallint": (T.SHORT,), "mediumint": (T.INT24,), "int": (T.LONG,), "bigint": (T.LONGLONG,),
    "decimal": (T.NEWDECIMAL,), "numeric": (T.NEWDECIMAL,), "float": (T.FLOAT,), "double": (T.DOUBLE,),
    "bit": (T.BIT,), "char": (T.STRING,), "binary": (T.STRING,), "varchar": (T.VARCHAR,), "varbinary": (T.VARCHAR,),
    "enum": (T.ENUM,), "set": (T.SET,), "json": (T.JSON, T.BLOB), "year": (T.YEAR,), "date": (T.DATE, T.NEWDATE),
    "time": (T.TIME2, T.TIME), "datetime": (T.DATETIME2, T.DATETIME), "timestamp": (T.TIMESTAMP2, T.TIMESTAMP),
}  # fmt: skip
_WHOLE = {T.TINY: ("TINYINT", "SMALLINT"), T.SHORT: ("SMALLINT", "INT"), T.INT24: ("INT", "INT"),
          T.LONG: ("INT", "BIGINT")}  # fmt: skip
_PLAIN = {T.FLOAT: "FLOAT", T.DOUBLE: "DOUBLE", T.YEAR: "INT", T.DATE: "DATE", T.NEWDATE: "DATE",
          T.GEOMETRY: "VARBINARY", T.JSON: "VARCHAR", T.ENUM: "VARCHAR", T.SET: "VARCHAR"}  # fmt: skip
_TIMES = {T.TIME2: "TIME", T.DATETIME2: "TIMESTAMP", T.TIMESTAMP2: "TIMESTAMP_LTZ"}
_MOST_DIGITS = 38
_TEXT = LogicalType("VARCHAR")
_VALUE = RAW_SCHEMA.get_field_index("value")


def type_of(field: Field) -> LogicalType:
    """The type of a column as far as the binlog tells."""
    kind = field.type
    if kind in _WHOLE:
        return LogicalType(_WHOLE[kind][field.is_unsigned])
    if kind == T.LONGLONG:
        return LogicalType("DECIMAL", 20, 0) if field.is_unsigned else LogicalType("BIGINT")
    if kind in _PLAIN:
        return LogicalType(_PLAIN[kind])
    if kind in _TIMES:
        return LogicalType(_TIMES[kind], field.precision)
    if kind == T.NEWDECIMAL:
        is_wide = field.precision > _MOST_DIGITS
        return LogicalType("VARCHAR") if is_wide else LogicalType("DECIMAL", field.precision, field.scale)
    if kind == T.BIT:
        return LogicalType("BOOLEAN") if field.size == 1 and field.precision <= 1 else LogicalType("BINARY", field.size)
    if kind in {T.VARCHAR, T.STRING}:
        name = ("BINARY" if field.is_binary else "CHAR") if kind == T.STRING else ""
        return LogicalType(name or ("VARBINARY" if field.is_binary else "VARCHAR"), _length(field) or None)
    return LogicalType("VARBINARY" if field.is_binary else "VARCHAR")


def _length(field: Field) -> int:
    return field.length if field.is_binary else field.length // field.width


def is_like(column: MySqlColumn, field: Field) -> bool:
    """True when a column of the server may be the one that the binlog speaks of."""
    codes = _CODES.get(column.type)
    if codes is None:
        return field.type in {T.BLOB, T.GEOMETRY}
    if field.type not in codes or field.is_unsigned != column.is_unsigned:
        return False
    if field.type == T.NEWDECIMAL:
        return (field.precision, field.scale) == (column.precision, column.scale)
    if field.type in {T.VARCHAR, T.STRING}:
        return _length(field) == column.length
    return field.type not in _TIMES or field.precision == (column.fraction or 0)


class Follower:
    """Makes the records of one read, which knows the renames that it has come across."""

    def __init__(
        self,
        find: Find,
        zone: str,
        *,
        fails_on_zero: bool,
        altered: Iterable[Altered] = (),
        times_as_text: bool = False,
    ) -> None:
        """Keep what it needs; TIME may be given as text, because MySQL's may be negative or longer than a day."""
        self._find, self._zone, self._fails_on_zero = find, zone, fails_on_zero
        self._times_as_text = times_as_text
        self._layouts: dict[tuple[str, Fields, int], Layout] = {}
        self._renames: dict[str, Renames] = {}
        for each in altered:
            for table in each.ddl.tables if each.ddl.renamed else ():
                self._renames[table] = (*self._renames.get(table, ()), (each.epoch, each.ddl.renamed))

    def _layout(self, table: str, columns: tuple[SourceColumn, ...] | None, epoch: int) -> Layout:
        renames = tuple(each for each in self._renames.get(table, ()) if each[0] <= epoch)
        return Layout(table, epoch, columns, renames)

    def _layout_of(self, images: Images) -> Layout:
        name = (images.table, images.layout, images.epoch)
        if name not in self._layouts:
            table = self._find(images.table)
            columns = []
            for field in images.layout:
                found = None if table is None else table.column(field.name)
                logical = found.logical if found is not None and is_like(found, field) else None
                nullable = found.nullable if found is not None and logical is not None else None
                columns.append(SourceColumn(field.name, replace(logical or type_of(field), nullable=True), nullable))
            self._layouts[name] = self._layout(images.table, self._told(columns), images.epoch)
        return self._layouts[name]

    def records(self, images: Images, kept: Any, kinds: Any, offset: int) -> pa.RecordBatch:
        """Images as records; `kept` are the numbers of those that go along (None: all)."""
        layout = self._layout_of(images)
        found = []
        for field, column in zip(images.layout, layout.columns or (), strict=True):
            values = images.natural(field.name)
            assert values is not None, "it is one of the layout's"
            found.append(self._fitted(column, *values, images.table))
        at_ms = images.at_ms
        if kept is not None:
            found, at_ms = [each.take(pa.array(kept)) for each in found], at_ms[kept]
        return _records(captured(layout.columns or (), found, kinds, layout), layout.table, offset, at_ms)

    def rows(self, chunk: Chunk, kept: Any, offset: int, epoch: int) -> pa.RecordBatch:
        """Rows of a chunk (those with the numbers `kept`) as records."""
        columns = self._told(source_columns(chunk.table))
        layout = self._layout(chunk.table.full_name, columns, epoch)
        found = []
        for column, values, nulled in zip(columns, chunk.columns, chunk.nulled, strict=False):
            whole = values if len(kept) == chunk.rows else values.take(pa.array(kept))
            found.append(self._fitted(column, whole, nulled, layout.table))
        value = captured(columns, found, np.zeros(len(kept), np.int8), layout)
        return _records(value, layout.table, offset, 0)

    def _told(self, columns: Sequence[SourceColumn]) -> tuple[SourceColumn, ...]:
        """The columns in the types that their values are given in."""
        is_text = self._times_as_text
        return tuple(replace(each, type=_TEXT) if is_text and each.type.name == "TIME" else each for each in columns)

    def _fitted(self, column: SourceColumn, values: Any, nulled: int, table: str) -> Any:
        check_zeros(nulled, table, column.name, is_refused=self._fails_on_zero)
        return fit(values, Column(column.name, column.type), self._zone, table)

    def markers(self, altered: Altered, offset: int, *, is_newest: bool) -> pa.RecordBatch:
        """A record for each table that a statement changed; with its columns if they are those of now."""
        parts = list[pa.RecordBatch]()
        for name in altered.ddl.tables:
            table = self._find(name) if is_newest else None
            layout = self._layout(name, None if table is None else self._told(source_columns(table)), altered.epoch)
            value = captured((), (), pa.nulls(1, pa.int8()), layout)
            parts.append(_records(value, name, offset + len(parts), altered.ddl.at_ms))
        return pa.Table.from_batches(parts).combine_chunks().to_batches()[0]


def source_columns(table: MySqlTable) -> tuple[SourceColumn, ...]:
    """A table's columns whose types are known."""
    pairs = ((each, each.logical) for each in table.columns)
    return tuple(
        SourceColumn(each.name, replace(kind, nullable=True), each.nullable) for each, kind in pairs if kind is not None
    )


def _records(value: pa.StructArray, table: str, offset: int, at_ms: Any) -> pa.RecordBatch:
    """Records of one table; `at_ms` (0: unknown) may be one or many."""
    count = len(value)
    times = np.broadcast_to(np.asarray(at_ms, np.int64), count)
    found: dict[str, Any] = {
        "key": pa.repeat(pa.scalar(table.encode()), count),
        "value": value,
        "timestamp": pa.array(times, mask=times == 0).cast(RAW_SCHEMA.field("timestamp").type),
        "split": pa.repeat(pa.scalar(0, pa.int16()), count),
        "offset": pa.array(np.arange(offset, offset + count, dtype=np.int64)),
    }
    filled = [found[each.name] if each.name in found else pa.nulls(count, each.type) for each in CAPTURED_SCHEMA]
    schema = CAPTURED_SCHEMA.set(_VALUE, pa.field("value", value.type))
    return pa.RecordBatch.from_arrays(filled, schema=schema)


def known_names(table: MySqlTable) -> Sequence[str]:
    """Names of the columns whose types are known."""
    return [each.name for each in source_columns(table)]
