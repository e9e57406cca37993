"""Avro's schema resolution, done once for each writer's schema: a tree of nodes that reads it as the table's columns.

Beside what the specification resolves, a writer's enum is read as text, its fixed as bytes and its time-micros as TIME:
what they hold is beyond doubt, and schemas made by Kafka Connect and Debezium use them.
"""

import numpy as np
import pyarrow as pa

from vector_assets.engine.errors import ConfigError
from vector_assets.engine.schema import LogicalType, Table
from vector_assets.formats import avro_values as values
from vector_assets.formats.avro_cursor import Cursor, padded
from vector_assets.formats.avro_nodes import Fixed, Items, Node, Nothing, Number, Record, Refused, Symbol, Text, Union
from vector_assets.formats.avro_schema import Avro, AvroField, encoded, unwrapped

_READ_AS: dict[str, frozenset[str]] = {
    "boolean": frozenset({"boolean"}),
    "int": frozenset({"int", "long", "float", "double"}),
    "long": frozenset({"long", "float", "double"}),
    "float": frozenset({"float", "double"}),
    "double": frozenset({"double"}),
    "string": frozenset({"string", "bytes"}),
    "bytes": frozenset({"bytes", "string"}),
    "enum": frozenset({"enum", "string"}),
    "fixed": frozenset({"fixed", "bytes"}),
    "array": frozenset({"array"}),
    "map": frozenset({"map"}),
    "record": frozenset({"record"}),
}
"""What each type of the writer can be read as."""

_FITS: dict[str, frozenset[str]] = {
    "boolean": frozenset({"BOOLEAN"}),
    "int": frozenset({"TINYINT", "SMALLINT", "INT", "DATE", "TIME"}),
    "long": frozenset({"BIGINT", "TIMESTAMP", "TIMESTAMP_LTZ", "TIME"}),
    "float": frozenset({"FLOAT"}),
    "double": frozenset({"DOUBLE"}),
    "bytes": frozenset({"BINARY", "VARBINARY", "DECIMAL"}),
    "fixed": frozenset({"BINARY", "VARBINARY", "DECIMAL"}),
    "string": frozenset({"CHAR", "VARCHAR"}),
    "enum": frozenset({"CHAR", "VARCHAR"}),
    "array": frozenset({"ARRAY"}),
    "map": frozenset({"MAP"}),
    "record": frozenset({"ROW"}),
}
"""What each type of a reader's schema can be declared as."""

_RAW = {"boolean": "u1", "float": "<f4", "double": "<f8"}


def row_of(table: Table) -> LogicalType:
    """The physical columns as one ROW."""
    columns = table.physical
    kinds, names = tuple(c.type for c in columns), tuple(c.name for c in columns)
    return LogicalType("ROW", children=kinds, child_names=names, nullable=False)


def check(reader: Avro, wanted: LogicalType, where: str) -> None:
    """Refuse a given reader's schema that does not go with the declared type.

    Raises:
        ConfigError: names the place.
    """
    inner, _ = unwrapped(reader)
    if inner is None:
        raise ConfigError(f"{where} is the union {reader}; a union may hold null and one other type")
    if wanted.name not in _FITS.get(inner.kind, ()):
        known = ", ".join(sorted(_FITS.get(inner.kind, ()))) or "none"
        raise ConfigError(f"{where} is {inner}, declared as {wanted}; types it goes with: {known}")
    if inner.kind == "record":
        by_name = {each.name: each for each in inner.fields}
        for name, child in zip(wanted.child_names, wanted.children, strict=True):
            if name not in by_name:
                raise ConfigError(f"{where} has no field {name}; it has: {', '.join(by_name)}")
            check(by_name[name].type, child, f"{where}.{name}")
    elif inner.items is not None:
        check(inner.items, wanted.children[-1], f"{where}[]")


class Resolver:
    """Makes the nodes of one writer's schema."""

    def __init__(self) -> None:
        self._passed_over: dict[int, Record] = {}

    def node(self, writer: Avro, reader: Avro, wanted: LogicalType, where: str) -> Node:
        """What reads the writer's values as the wanted type; what cannot be is refused when a record holds it."""
        if writer.kind == "union":
            branches = tuple(self.node(branch, reader, wanted, where) for branch in writer.branches)
            return Union(where, branches, wanted.arrow)
        if writer.kind == "null":
            if wanted.nullable:
                return Nothing(wanted.arrow)
            return Refused(f"{where}: the record holds null, wanted {wanted}", wanted.arrow)
        inner, _ = unwrapped(reader)
        is_time = wanted.name == "TIME" and writer.logical == "time-micros"
        if inner is None or not (inner.kind in _READ_AS[writer.kind] or is_time) or not _same_size(writer, inner):
            return Refused(f"{where}: the writer's {writer} cannot be read as {inner}, wanted {wanted}", wanted.arrow)
        if inner.kind == "record":
            return self._record(writer, inner, wanted, where)
        if writer.items is not None and inner.items is not None:
            return self._items(writer.kind, writer.items, inner.items, wanted, where)
        return _leaf(writer, inner, wanted, where)

    def _record(self, writer: Avro, reader: Avro, wanted: LogicalType, where: str) -> Node:
        made = Record(where, type=wanted.arrow)
        inner_where = "column " if where == "the record" else f"{where}."
        by_name = {each.name: each for each in reader.fields}
        chosen: dict[int, int] = {}
        for place, name in enumerate(wanted.child_names):
            number = _written(writer, by_name[name], chosen)
            if number is not None:
                chosen[number] = place
        made.outputs = [0] * len(wanted.children)
        for number, each in enumerate(writer.fields):
            if number in chosen:
                place = chosen[number]
                name = wanted.child_names[place]
                made.outputs[place] = number
                made.fields.append(self.node(each.type, by_name[name].type, wanted.children[place], inner_where + name))
            else:
                made.fields.append(self.passing_over(each.type, inner_where + each.name))
        for place in set(range(len(wanted.children))) - set(chosen.values()):
            name = wanted.child_names[place]
            self._default(made, place, by_name[name], wanted.children[place], inner_where + name)
        made.least = sum(node.least for node in made.fields)
        return made

    def _default(self, made: Record, place: int, reader: AvroField, wanted: LogicalType, where: str) -> None:
        """An output that the writer's schema does not have."""
        if not reader.has_default:
            reason = f"{where}: the writer's schema has no such field, and the reader's no default for it"
            made.outputs[place] = len(made.fields)
            made.fields.append(Refused(reason, wanted.arrow))
            return
        made.outputs[place] = default(reader, wanted, where)

    def _items(self, kind: str, writer: Avro, reader: Avro, wanted: LogicalType, where: str) -> Node:
        child = wanted.children[-1]
        inner = self.node(writer, reader, child, f"{where}[]")
        arrow = wanted.arrow
        if kind == "array":
            return Items(where, inner, lambda ends, items: pa.ListArray.from_arrays(ends, items, arrow), child.arrow)

        def mapped(ends: pa.Array, entries: pa.Array) -> pa.Array:
            return pa.MapArray.from_arrays(ends, entries.field(0), entries.field(1), arrow)

        entry = Record(where, [Text(f"a key of {where}", values.texts), inner], [0, 1], _entry_type(child), 1)
        return Items(where, entry, mapped, entry.type)

    def passing_over(self, writer: Avro, where: str) -> Node:
        """What moves behind the writer's values without keeping them."""
        if writer.kind == "union":
            branches = tuple(self.passing_over(branch, where) for branch in writer.branches)
            return Union(where, branches, pa.null())
        if writer.kind == "record":
            made = self._passed_over.get(id(writer))
            if made is None:
                made = self._passed_over[id(writer)] = Record(where)
                made.fields = [self.passing_over(each.type, f"{where}.{each.name}") for each in writer.fields]
                made.least = sum(node.least for node in made.fields)
            return made
        if writer.items is not None:
            inner = self.passing_over(writer.items, f"{where}[]")
            if writer.kind == "map":
                inner = Record(where, [Text(where, None), inner], least=1)
            return Items(where, inner, None, pa.null())
        if writer.kind == "null":
            return Nothing()
        return _leaf(writer, None, None, where)


def _entry_type(child: LogicalType) -> pa.DataType:
    return pa.struct([pa.field("key", pa.string(), nullable=False), pa.field("value", child.arrow)])


def _same_size(writer: Avro, reader: Avro) -> bool:
    return not writer.kind == reader.kind == "fixed" or writer.size == reader.size


def _written(writer: Avro, reader: AvroField, taken: dict[int, int]) -> int | None:
    """The number of the writer's field that the reader's one means: of its name, else of one of its aliases."""
    names = [each.name for each in writer.fields]
    for name in (reader.name, *reader.aliases):
        if name in names and names.index(name) not in taken:
            return names.index(name)
    return None


def _leaf(writer: Avro, reader: Avro | None, wanted: LogicalType | None, where: str) -> Node:
    """What reads a type that holds no others; nothing wanted: passed over."""
    kind = writer.kind
    if kind == "enum":
        return Symbol(where, _symbols(writer, reader), is_kept=wanted is not None)
    if kind in {"bytes", "string", "fixed"}:
        scale = writer.scale if writer.logical == "decimal" else (wanted.scale or 0) if wanted else 0
        convert = values.bytes_of(wanted, scale) if wanted else None
        return Fixed(where, writer.size, convert) if kind == "fixed" else Text(where, convert)
    number = None
    if wanted:
        number = values.booleans if kind == "boolean" else values.numbers(writer, wanted)
    return Number(where, _RAW.get(kind), number, is_int=kind == "int")


def _symbols(writer: Avro, reader: Avro | None) -> tuple[str | None, ...]:
    if reader is None or reader.kind != "enum":
        return writer.symbols
    return tuple(name if name in reader.symbols else reader.default_symbol for name in writer.symbols)


def default(reader: AvroField, wanted: LogicalType, where: str) -> pa.Array:
    """A field's default as an array of one.

    Raises:
        ConfigError: it is no value of the field's type, or not of the declared one.
    """
    if reader.default is None and wanted.nullable:
        return pa.nulls(1, wanted.arrow)
    try:
        data = np.frombuffer(encoded(reader.type, reader.default, tagged=False), np.uint8)
    except ValueError as error:
        raise ConfigError(f"{where}: the default in the schema: {error}") from None
    cursor = Cursor(padded(data), np.zeros(1, np.int64), np.full(1, len(data), np.int64))
    made = Resolver().node(reader.type, reader.type, wanted, where).read(cursor, np.zeros(1, np.int64))
    if cursor.reasons:
        raise ConfigError(f"{where}: the default in the schema: {cursor.reasons[0]}")
    return made
