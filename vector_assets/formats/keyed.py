"""Records whose key and value are decoded by formats of their own, put together by position."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine.core import KIND, POSITION, Decoded, Decoder, RowKind, rejects
from vector_assets.engine.options import Options
from vector_assets.engine.schema import Column

Positions = npt.NDArray[np.int64]
_POSITION = pa.field(POSITION, pa.int64(), nullable=False)
_KIND = pa.field(KIND, pa.int8(), nullable=False)


class KeyValueOptions(Options):
    """The options of both formats, shown under the names that tell them apart."""

    value: Options
    """Options of the value's format."""
    key: Options | None = None
    """Options of the key's format; None when keys are not decoded."""

    def shown(self) -> dict[str, str]:
        """Every option as users spell it, defaults included."""
        key = self.key.shown() if self.key is not None else {}
        return {f"key.{name}": value for name, value in key.items()} | {
            f"value.{name}": value for name, value in self.value.shown().items()
        }

    def reports(self) -> tuple[str, ...]:
        """What both report, under the names that users spelled."""
        key = self.key.reports() if self.key is not None else ()
        named = [("key", report) for report in key] + [("value", report) for report in self.value.reports()]
        return tuple(report.replace("option '", f"option '{which}.", 1) for which, report in named)


@dataclass(frozen=True, slots=True)
class KeyPart:
    """The key's decoder, and what its columns are called in the table."""

    decoder: Decoder
    columns: Mapping[str, str]


class KeyValueDecoder:
    """Takes the key's columns from the key and all others from the value; Flink's rules where both hold a column.

    A column that the value holds is the value's. With `is_upsert` a null value is a DELETE of the key (its other
    columns are null), rows of a format of inserts are UPDATE_AFTER, and a key column that the value leaves null is the
    key's. A record without a key, or with one that cannot be decoded, is rejected.
    """

    def __init__(
        self, key: KeyPart, value: Decoder, columns: Sequence[Column], value_names: Sequence[str], *, is_upsert: bool
    ) -> None:
        """`columns` are those of the rows, in order; the value gives `value_names`, the key gives the others."""
        self._key = key
        self._value = value
        self._names = [column.name for column in columns]
        self._value_names = frozenset(value_names)
        self._key_names = frozenset(key.columns.values())
        self._is_upsert = is_upsert
        self._fields = [
            pa.field(column.name, column.type.arrow, is_upsert or column.type.nullable) for column in columns
        ]

    def decode(self, raw: pa.RecordBatch | pa.Table) -> Decoded:
        """Rows in the order of the records; `filtered` counts records that gave neither a row nor a reject."""
        table = pa.Table.from_batches([raw]) if isinstance(raw, pa.RecordBatch) else raw
        keys = self._keys(table)
        is_deleted = pc.is_null(table["value"]) if self._is_upsert else pa.repeat(pa.scalar(value=False), len(table))
        values = self._value.decode(table.filter(pc.invert(is_deleted)))
        rows = self._joined(keys.rows, values.rows)
        if self._is_upsert:
            rows = self._with_deletes(rows, keys.rows, table[POSITION].filter(is_deleted))
        more = values.rejected.filter(pc.invert(pc.is_in(values.rejected[POSITION], keys.rejected[POSITION])))
        rejected = _in_order(pa.concat_tables([keys.rejected, more]))
        kept = len(np.unique(rows[POSITION].to_numpy()))
        filtered = len(table) - kept - len(rejected)
        return Decoded(rows, rejected, keys.nulled + values.nulled, filtered)

    def _keys(self, table: pa.Table) -> Decoded:
        """The keys under the table's names; what is wrong with one says that it is the key."""
        place = table.schema.get_field_index("value")
        has_none = pc.is_null(table["key"])
        raw = table.set_column(place, table.schema.field(place), table["key"]).filter(pc.invert(has_none))
        decoded = self._key.decoder.decode(raw)
        rows = decoded.rows.select([*self._key.columns, POSITION]).rename_columns(
            [*self._key.columns.values(), POSITION]
        )
        without = rejects(
            table[POSITION].filter(has_none), "decode", "key: null (the record has no key), wanted the key's columns"
        )
        wrong = decoded.rejected
        texts = pc.binary_join_element_wise(pa.scalar("key: "), wrong["error"], "")
        wrong = wrong.set_column(wrong.schema.get_field_index("error"), wrong.schema.field("error"), texts)
        return Decoded(rows, _in_order(pa.concat_tables([wrong, without])), decoded.nulled)

    def _joined(self, keys: pa.Table, values: pa.Table) -> pa.Table:
        """The value's rows whose record has a key, with the key's columns beside them."""
        places, has_key = _places(keys[POSITION].to_numpy(), values[POSITION].to_numpy())
        if not has_key.all():
            values, places = values.filter(pa.array(has_key)), places[has_key]
        keys = keys.take(pa.array(places))
        arrays = [self._column(name, keys, values) for name in self._names]
        arrays.append(values[POSITION])
        fields = [*self._fields, _POSITION]
        if KIND in values.column_names:
            arrays.append(values[KIND])
            fields.append(_KIND)
        elif self._is_upsert:
            arrays.append(pa.chunked_array([_kinds(RowKind.UPDATE_AFTER, len(values))]))
            fields.append(_KIND)
        return pa.Table.from_arrays(arrays, schema=pa.schema(fields))

    def _column(self, name: str, keys: pa.Table, values: pa.Table) -> pa.ChunkedArray:
        if name not in self._value_names:
            return keys[name]
        if self._is_upsert and name in self._key_names and values[name].null_count:
            return pc.coalesce(values[name], keys[name])
        return values[name]

    def _with_deletes(self, rows: pa.Table, keys: pa.Table, positions: pa.ChunkedArray) -> pa.Table:
        """The rows, and a DELETE for every record of `positions` that has a key."""
        gone = keys.filter(pc.is_in(keys[POSITION], positions))
        if not len(gone):
            return rows
        arrays = [
            gone[field.name] if field.name in self._key_names else pa.chunked_array([pa.nulls(len(gone), field.type)])
            for field in self._fields
        ]
        deletes = pa.Table.from_arrays(
            [*arrays, gone[POSITION], pa.chunked_array([_kinds(RowKind.DELETE, len(gone))])], schema=rows.schema
        )
        return _in_order(pa.concat_tables([rows, deletes]))


def _places(known: Positions, wanted: Positions) -> tuple[Positions, npt.NDArray[np.bool_]]:
    """Where each wanted position stands among the known ones (ascending), and whether it does."""
    places = np.searchsorted(known, wanted)
    is_known = places < len(known)
    is_known[is_known] = known[places[is_known]] == wanted[is_known]
    return places, is_known


def _kinds(kind: RowKind, count: int) -> pa.Array:
    return pa.array(np.full(count, kind, np.int8))


def _in_order(rows: pa.Table) -> pa.Table:
    positions = rows[POSITION].to_numpy()
    if len(positions) < 2 or (np.diff(positions) >= 0).all():
        return rows
    return rows.take(pa.array(np.argsort(positions, kind="stable")))
