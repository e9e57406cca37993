"""Columns of the pipeline as documents: JSON made whole columns at a time, bad rows refused with a reason.

A reason never repeats the value.
"""

from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine.core import POSITION
from vector_assets.sinks.kinds import kind_of
from vector_assets.sinks.opensearch_plan import Column, Plan
from vector_assets.sinks.refusals import Mask, Refusals
from vector_assets.sinks.vectors import check, limit_of, parse

MOST_ID_BYTES = 512
"""The server's limit of an `_id`."""
VERSION_SHIFT = 24
"""An external version is the batch's number, shifted, and the row's ordinal in the batch."""

_MOST_ORDINAL = (1 << VERSION_SHIFT) - 1
_TEXT_KINDS = frozenset({"DATE", "TIME", "TIMESTAMP"})


@dataclass(frozen=True, slots=True)
class Documents:
    """Good rows in order: `lines` are what a bulk request says of each, newlines included."""

    ids: pa.Array
    positions: pa.Array
    lines: pa.Array

    def __len__(self) -> int:
        return len(self.ids)


def stored(plan: Plan, rows: pa.Table) -> tuple[pa.Table, dict[int, str]]:
    """The rows that can be sent, in the types that documents are read back in, and why the others cannot (by
    position); hidden columns are kept."""
    refusals = Refusals()
    arrays = {column.name: _checked(column, rows.column(column.name), refusals) for column in _sent(plan, rows)}
    ids = _ids(plan, rows)
    for name in plan.key:
        refusals.of(name)(_mask(pc.is_null(rows.column(name))), "is null, and part of the key")
    refusals.of("_id")(_mask(pc.greater(pc.fill_null(pc.binary_length(ids), 0), MOST_ID_BYTES)), "the key is too long")
    table = pa.table({**arrays, POSITION: rows.column(POSITION), _ID: ids})
    if not refusals.reasons:
        return table, {}
    positions = rows.column(POSITION).to_numpy()
    reasons = {int(positions[row]): reason for row, reason in refusals.reasons.items()}
    kept = np.ones(rows.num_rows, np.bool_)
    kept[list(refusals.reasons)] = False
    return table.filter(pa.array(kept)), reasons


_ID = "_id"


def upserts(plan: Plan, rows: pa.Table, seq: int, base: int) -> tuple[Documents, dict[int, str]]:
    """Rows as index actions of a bulk request."""
    table, reasons = stored(plan, rows)
    fields = ", ".join(f"{_quoted(column.name)}: {_selected(column)}" for column in _sent(plan, rows))
    return _documents(table, "index", f"to_json({{{fields}}})::VARCHAR || chr(10)", seq, base), reasons


def deletes(plan: Plan, keys: pa.Table, seq: int, base: int) -> Documents:
    """Keys as delete actions of a bulk request."""
    table = pa.table({POSITION: keys.column(POSITION), _ID: _ids(plan, keys)})
    return _documents(table.filter(pc.is_valid(table.column(_ID))), "delete", "''", seq, base)


def _documents(table: pa.Table, action: str, source: str, seq: int, base: int) -> Documents:
    ordinals = pc.min_element_wise(table.column(POSITION), pa.scalar(_MOST_ORDINAL, pa.int64()))
    versions = pc.add(ordinals, pa.scalar((base + seq) << VERSION_SHIFT, pa.int64()))
    rows = table.append_column("_version", versions)
    head = (
        f'\'{{"{action}":{{"_id":\' || to_json("{_ID}")::VARCHAR || \',"version":\' || "_version" ||'
        ' \',"version_type":"external"}}\' || chr(10)'
    )
    with duckdb.connect() as connection:
        connection.register("rows", rows)
        lines = connection.sql(f"SELECT {head} || {source} AS line FROM rows").to_arrow_table()
    return Documents(_whole(table.column(_ID)), _whole(table.column(POSITION)), _whole(lines.column("line")))


def ids_of(plan: Plan, keys: pa.Table) -> pa.Array:
    """The `_id` of each row."""
    return _whole(_ids(plan, keys))


def _sent(plan: Plan, rows: pa.Table) -> list[Column]:
    return [column for column in plan.columns if column.name in rows.column_names]


def _ids(plan: Plan, rows: pa.Table) -> pa.Array | pa.ChunkedArray:
    """Values of the key's columns as text, joined; null where one of them is."""
    parts = [_text(rows.column(name)) for name in plan.key]
    return parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, plan.delimiter)


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Values as documents and ids spell them: times as in ISO 8601, moments in UTC."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        texts = pc.replace_substring(column.cast(pa.timestamp(kind.unit)).cast(pa.string()), " ", "T")
        return pc.binary_join_element_wise(texts, "Z", "") if kind.tz else texts
    return column.cast(pa.string())


def _checked(column: Column, values: pa.ChunkedArray, refusals: Refusals) -> pa.Array:
    """A column in the type that it is read back in; vectors and numbers looked at."""
    refuse = refusals.of(column.name)
    whole = _whole(values)
    if pa.types.is_dictionary(whole.type):
        whole = whole.dictionary_decode()
    if column.is_vector:
        if kind_of(whole.type) == "STRING":
            whole = parse(whole, pa.float32(), refuse)
        whole = whole.cast(pa.list_(pa.float32()))
        check(whole, column.dimension, limit_of("float4"), refuse, is_strict=True)
        return whole
    if kind_of(whole.type) == "DOUBLE":
        refuse(_mask(pc.invert(pc.is_finite(whole))), "is NaN or infinite, which JSON has no number for")
    return whole


def stored_type(column: Column) -> pa.DataType:
    """The type that a column is read back in."""
    return pa.list_(pa.float32()) if column.is_vector else column.type


def _selected(column: Column) -> str:
    name = '"' + column.name.replace('"', '""') + '"'
    kind = column.type
    if pa.types.is_timestamp(kind):
        # spelled by _text's rules: DuckDB's own needs the time zone's name
        pattern, zone = ("%Y-%m-%dT%H:%M:%S.%g", "Z") if kind.unit == "ms" else ("%Y-%m-%dT%H:%M:%S.%f", "Z")
        plain = f"({name} AT TIME ZONE 'UTC')" if kind.tz else name
        return f"strftime({plain}::TIMESTAMP, '{pattern}')" + (f" || '{zone}'" if kind.tz else "")
    if kind_of(kind) == "BYTES":
        return f"base64({name})"
    if kind_of(kind) in _TEXT_KINDS:
        return f"{name}::VARCHAR"
    return name


def _quoted(name: str) -> str:
    return "'" + name.replace("'", "''") + "'"


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return pa.concat_arrays([whole]) if whole.offset else whole


def _mask(flags: pa.Array | pa.ChunkedArray) -> Mask:
    return np.asarray(_whole(pc.fill_null(flags, fill_value=False)).to_numpy(zero_copy_only=False))
