"""Columns of the pipeline as documents: JSON made whole columns at a time, bad rows refused with a reason.

A reason never repeats the value.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache, reduce

import duckdb
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine.core import POSITION, BatchToken
from vector_assets.sinks.kinds import kind_of
from vector_assets.sinks.opensearch_plan import Column, Plan
from vector_assets.sinks.refusals import Mask, Refusals
from vector_assets.sinks.vectors import check, json_texts, limit_of, parse

MOST_ID_BYTES = 512
"""The server's limit of an `_id`."""
VERSION_SHIFT = 24
"""An external version is the batch's number, shifted, and the row's ordinal in the batch."""

_MOST_ORDINAL = (1 << VERSION_SHIFT) - 1
_TEXT_KINDS = frozenset({"DATE", "TIME", "TIMESTAMP"})


@dataclass(frozen=True, slots=True)
class Documents:
    """Good rows in order: `lines` are what a bulk request says of each, newlines included.

    `names` are the indices that the lines name, None where all go to the target's own name.
    """

    ids: pa.Array
    positions: pa.Array
    lines: pa.Array
    names: pa.Array | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def without(self, ids: Collection[str]) -> "Documents":
        """The documents that have none of these ids."""
        kept = pc.invert(pc.is_in(self.ids, value_set=pa.array(sorted(ids), pa.string())))
        names = None if self.names is None else self.names.filter(kept)
        return Documents(self.ids.filter(kept), self.positions.filter(kept), self.lines.filter(kept), names)

    def at_home(self, homes: Mapping[str, str], otherwise: str) -> "Documents":
        """The same where each document names the index that holds it, `otherwise` where none does."""
        if not homes or not len(self):
            return self
        known = pa.array(list(homes), pa.string())
        found = pa.array(list(homes.values()), pa.string()).take(pc.index_in(self.ids, value_set=known))
        names = _whole(pc.fill_null(found, otherwise).cast(pa.large_string()))
        # all lines begin alike: {"index":{"_id": or {"delete":{"_id":
        start = self.lines[0].as_py().index('"_id"')
        head, rests = self.lines[0].as_py()[:start], pc.binary_replace_slice(self.lines, 0, start, "")
        lines = pc.binary_join_element_wise(_large(f'{head}"_index":"'), names, _large('",'), rests, _large(""))
        return Documents(self.ids, self.positions, _whole(lines), names)


def stored(plan: Plan, rows: pa.Table, token: str = "") -> tuple[pa.Table, dict[int, str]]:
    """The rows that can be sent, in the types that documents are read back in, and why the others cannot (by
    position); hidden columns are kept. `token` names the batch in the ids of documents that have no key."""
    refusals = Refusals()
    arrays = {column.name: _checked(column, rows.column(column.name), refusals) for column in _sent(plan, rows)}
    ids = _ids(plan, rows) if plan.key else _made_ids(rows, token)
    for name in plan.key:
        refusals.of(name)(_mask(pc.is_null(rows.column(name))), "is null, and part of the key")
    refusals.of("_id")(_mask(pc.greater(pc.fill_null(pc.binary_length(ids), 0), MOST_ID_BYTES)), "the key is too long")
    table = _shaped(plan, pa.table({**arrays, POSITION: rows.column(POSITION), _ID: ids}))
    if (pattern := plan.index.pattern) is not None:
        names = pattern.names(rows)
        refusals.of(", ".join(pattern.columns))(
            _mask(pc.is_null(names)), f"makes no name of an index by {pattern.text}"
        )
        table = table.append_column(_INDEX, names)
    if not refusals.reasons:
        return table, {}
    positions = rows.column(POSITION).to_numpy()
    reasons = {int(positions[row]): reason for row, reason in refusals.reasons.items()}
    kept = np.ones(rows.num_rows, np.bool_)
    kept[list(refusals.reasons)] = False
    return table.filter(pa.array(kept)), reasons


def _shaped(plan: Plan, table: pa.Table) -> pa.Table:
    """Rows with a blank text, which a pipeline that embeds refuses: those with no other text are `_PLAIN`, to be sent
    past it, and have no vectors; of others, whose vectors it makes, a blank text becomes NULL."""
    columns = [name for name in plan.texts if name in table.column_names and pa.types.is_string(table[name].type)]
    if not columns:
        return table
    blank = {
        name: pc.fill_null(pc.equal(pc.utf8_trim_whitespace(table[name]), ""), fill_value=False) for name in columns
    }
    is_any = reduce(pc.or_, blank.values())
    if not pc.any(is_any).as_py():
        return table
    has_text = reduce(pc.or_, [pc.and_not(pc.is_valid(table[name]), blank[name]) for name in columns])
    for name in columns:
        values = pc.if_else(pc.and_(blank[name], has_text), None, table[name])
        table = table.set_column(table.schema.get_field_index(name), name, values)
    return table.append_column(_PLAIN, pc.and_not(is_any, has_text))


_ID, _INDEX, _PLAIN = "_id", "_index", "_plain"
HIDDEN = frozenset({_ID, _INDEX, _PLAIN})
"""Columns of `stored` that are no fields."""


def upserts(plan: Plan, rows: pa.Table, token: BatchToken, base: int) -> tuple[Documents, dict[int, str]]:
    """Rows as actions of a bulk request: of a key as they are to be, of no key as new documents."""
    table, reasons = stored(plan, rows, token.id)
    sent = _sent(plan, rows)
    plain = [f"{_quoted(column.name)}: {_selected(column)}" for column in sent if not column.is_vector]
    fields = ", ".join(plain)
    begun = f"left(to_json({{{fields}}})::VARCHAR, -1)" if fields else "'{'"
    made = _documents(table, "index" if plan.key else "create", begun, token.seq, base)
    parts = [made.lines]
    # DuckDB would write a vector's floats as the doubles that they are: half as long again
    for name in (column.name for column in sent if column.is_vector):
        comma = "," if plain or len(parts) > 1 else ""
        parts += [_large(f"{comma}{orjson.dumps(name).decode()}:"), json_texts(_whole(table.column(name)))]
    lines = _whole(pc.binary_join_element_wise(*parts, _large("}\n"), _large("")))
    return replace(made, lines=lines), reasons


def _large(text: str) -> pa.Scalar:
    return pa.scalar(text, pa.large_string())


def deletes(plan: Plan, keys: pa.Table, seq: int, base: int) -> Documents:
    """Keys as delete actions of a bulk request."""
    table = pa.table({POSITION: keys.column(POSITION), _ID: _ids(plan, keys)})
    if plan.index.pattern is not None:
        table = table.append_column(_INDEX, plan.index.pattern.names(keys))
        table = table.filter(pc.is_valid(table.column(_INDEX)))
    return _documents(table.filter(pc.is_valid(table.column(_ID))), "delete", "''", seq, base)


def _documents(table: pa.Table, action: str, source: str, seq: int, base: int) -> Documents:
    """An action for each row; its line goes on with `source`, an expression of columns that are no vectors."""
    ordinals = pc.min_element_wise(table.column(POSITION), pa.scalar(_MOST_ORDINAL, pa.int64()))
    versions = pc.add(ordinals, pa.scalar((base + seq) << VERSION_SHIFT, pa.int64()))
    rows = table.append_column("_version", versions)
    is_named = _INDEX in table.column_names
    named = f'"_index":\' || to_json("{_INDEX}")::VARCHAR || \',' if is_named else ""
    # a new document has no version to be given: that it is there already says as much
    version = "" if action == "create" else ',"version":\' || "_version" || \',"version_type":"external"'
    if _PLAIN in table.column_names:
        version += f"' || if({_PLAIN}, ',\"pipeline\":\"_none\"', '') || '"
    head = f'\'{{"{action}":{{{named}"_id":\' || to_json("{_ID}")::VARCHAR || \'{version}}}}}\' || chr(10)'
    with _database().cursor() as connection:
        connection.register("rows", rows)
        lines = connection.sql(f"SELECT {head} || {source} AS line FROM rows").to_arrow_table().column("line")
    names = _whole(table.column(_INDEX)) if is_named else None
    # the lines of a batch may be more than 2 GB
    whole = _whole(lines.cast(pa.large_string()))
    return Documents(_whole(table.column(_ID)), _whole(table.column(POSITION)), whole, names)


@cache
def _database() -> duckdb.DuckDBPyConnection:
    """Kept, because to open one takes longer than a small batch; every batch has a cursor and a view of its own."""
    return duckdb.connect()


def _made_ids(rows: pa.Table, token: str) -> pa.Array:
    """Ids of documents without a key: batch, place in the batch, and number among the rows of one record.

    They are equal whenever the batch is made again, whatever rows beside them are refused by then.
    """
    positions = rows.column(POSITION).to_numpy()
    starts = np.flatnonzero(np.concatenate([[True], positions[1:] != positions[:-1]])) if len(positions) else positions
    number = np.arange(len(positions)) - np.repeat(starts, np.diff(np.append(starts, len(positions))))
    texts = pc.binary_join_element_wise(token[:_TOKEN], pa.array(positions).cast(pa.string()), "-")
    more = pc.binary_join_element_wise(texts, pa.array(number).cast(pa.string()), "-")
    return pc.if_else(pa.array(number > 0), more, texts)


_TOKEN = 24
"""Characters of a batch's name in an id: 96 bits."""


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
