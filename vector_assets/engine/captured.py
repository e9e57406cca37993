"""Captured records: rows of tables whose columns change, each with the layout that its table had there.

`value` is a struct with a child for every column and type that a batch holds (named `amount DECIMAL(10, 2)`), the row
kind, and the row's layout, which says which children are the row's own. A record without a kind is a change of a table
(DDL) and holds no row. So a batch says by itself what its columns were, whoever reads it and whenever.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from vector_assets.engine.core import KIND, RAW_SCHEMA, canonical
from vector_assets.engine.schema import LogicalType

LAYOUT = "_layout"
_VALUE = RAW_SCHEMA.get_field_index("value")
_OWN = (pa.field(KIND, pa.int8()), pa.field(LAYOUT, pa.dictionary(pa.int32(), pa.string())))
CAPTURED_SCHEMA = RAW_SCHEMA.set(_VALUE, pa.field("value", pa.struct(_OWN)))
"""What a pipeline of captured tables declares as its raw schema: real batches have more children."""

Renames = tuple[tuple[int, tuple[tuple[str, str], ...]], ...]
"""By epoch, in order: the names that a statement took away and those it gave (none: dropped), all at once."""


@dataclass(frozen=True, slots=True)
class SourceColumn:
    """A column of a table at the source; `type` is nullable, `nullable` says whether the column is (None: unknown)."""

    name: str
    type: LogicalType
    nullable: bool | None = None

    @property
    def child(self) -> str:
        """The name of its child in `value`."""
        return f"{self.name} {self.type}"


@dataclass(frozen=True, slots=True)
class Layout:
    """What a table was like: `epoch` counts the changes of the pipeline's tables before it.

    `renames` are those that the records at hand tell of; `columns` is None where a change is all that is known.
    """

    table: str
    epoch: int
    columns: tuple[SourceColumn, ...] | None
    renames: Renames = ()

    def to_json(self) -> str:
        """Canonical text, read back by `from_json`."""
        columns = None
        if self.columns is not None:
            columns = [[each.name, *type_json(each.type), each.nullable] for each in self.columns]
        return canonical([self.table, self.epoch, columns, self.renames])

    @classmethod
    def from_json(cls, text: str) -> "Layout":
        """The layout that `to_json` wrote."""
        return _parsed(text)


@lru_cache(maxsize=1024)
def _parsed(text: str) -> Layout:
    table, epoch, listed, renames = orjson.loads(text)
    columns = None
    if listed is not None:
        columns = tuple(SourceColumn(name, type_of([kind, p, s]), nullable) for name, kind, p, s, nullable in listed)
    pairs = tuple((number, tuple((old, new) for old, new in names)) for number, names in renames)
    return Layout(table, epoch, columns, pairs)


def type_json(kind: LogicalType) -> list[Any]:
    """A type of MySQL's kind (without children) as JSON: name, precision, scale."""
    return [kind.name, kind.precision, kind.scale]


def type_of(listed: Sequence[Any]) -> LogicalType:
    """The type that `type_json` wrote, nullable."""
    name, precision, scale = listed
    return LogicalType(name, precision, scale)


def captured(columns: Sequence[SourceColumn], arrays: Sequence[Any], kinds: Any, layout: Layout) -> pa.StructArray:
    """Values of rows of one layout; `kinds` are row kinds."""
    count = len(kinds)
    fields = [pa.field(column.child, column.type.arrow) for column in columns]
    names = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([layout.to_json()]))
    return pa.StructArray.from_arrays([*arrays, pa.array(kinds, pa.int8()), names], fields=[*fields, *_OWN])


def is_captured(schema: pa.Schema) -> bool:
    """True of raw schemas whose value varies."""
    kind = schema.field("value").type
    return bool(pa.types.is_struct(kind) and kind.get_field_index(LAYOUT) >= 0)


def united(values: Iterable[pa.StructArray]) -> pa.Array:
    """Values of several batches under all their children; what a value has not is null."""
    parts = list(values)
    fields: dict[str, pa.Field] = {each.name: each for part in parts for each in part.type if each not in _OWN}
    fields |= {each.name: each for each in _OWN}
    kind = pa.struct(list(fields.values()))
    found = []
    for part in parts:
        arrays = [
            part.field(name) if part.type.get_field_index(name) >= 0 else pa.nulls(len(part), each.type)
            for name, each in fields.items()
        ]
        found.append(pa.StructArray.from_arrays(arrays, fields=list(fields.values())))
    return pa.concat_arrays(found) if found else pa.nulls(0, kind)


def gathered(batches: Sequence[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    """The batches of one read as one table: as they are, or of captured tables with all their columns."""
    if not is_captured(schema) or not batches:
        return pa.Table.from_batches(batches, schema)
    value = united([batch.column(_VALUE) for batch in batches])
    own = [each.name for each in schema if each.name != "value"]
    rest = pa.Table.from_batches([batch.select(own) for batch in batches])
    fields = [pa.field("value", value.type) if each.name == "value" else each for each in schema]
    arrays = [value if each.name == "value" else rest.column(each.name) for each in schema]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))
