"""The target read back: every row by binary COPY, rows of given keys, and rows as the target would store them.

Both sides are made comparable: text as bytes, numeric as plain decimal text without zeros at the end, `char(n)` without
its padding, times rounded as the column's precision says. A jsonb is the server's own spelling of what was sent, so
columns of that type are left out on both sides.
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import RawCursor, sql

from vector_assets.clients import pgread
from vector_assets.clients.pgcopy import Wire
from vector_assets.clients.postgres import Binary, Connection
from vector_assets.engine.core import POSITION
from vector_assets.sinks.adbpg_plan import Plan, PlannedColumn
from vector_assets.sinks.adbpg_rows import convert
from vector_assets.sinks.adbpg_write import listed, same_key

_DECIMAL_TEXT = Wire("text")


def compared(plan: Plan) -> list[PlannedColumn]:
    """The columns whose content can be compared."""
    return [column for column in plan.columns if not _holds(column.wire, "jsonb")]


def stored(plan: Plan, rows: pa.Table) -> pa.Table:
    """Rows of the pipeline as the target would hold them; rows it would refuse are left out."""
    columns = compared(plan)
    converted, _ = convert(plan, plan.columns, rows)
    by_source = dict(zip((column.source for column in converted.columns), converted.values, strict=True))
    values = [_as_kept(by_source[column.source], column) for column in columns]
    arrays = [*values, pa.array(converted.positions, pa.int64())]
    return pa.table(arrays, names=[*(column.source for column in columns), POSITION])


def stored_keys(plan: Plan, keys: pa.Table) -> pa.Table:
    """As `stored`, for key columns alone."""
    converted, _ = convert(plan, plan.key, keys)
    values = [_as_kept(array, column) for array, column in zip(converted.values, plan.key, strict=True)]
    arrays = [*values, pa.array(converted.positions, pa.int64())]
    return pa.table(arrays, names=[*(column.source for column in plan.key), POSITION])


def scan(plan: Plan, connection: Connection) -> Iterator[pa.RecordBatch]:
    """Every row of the table in one snapshot, that of the COPY: no later commit is in it."""
    statement = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT (FORMAT BINARY)").format(_selected(plan), plan.table)
    yield from _copied(plan, connection, statement)


def rows_of(plan: Plan, connection: Connection, keys: pa.Table) -> pa.Table:
    """Rows that have one of these keys (`stored` or raw key columns with `_position`)."""
    sent, _ = convert(plan, plan.key, keys)
    parameters = [Binary(oid, data) for oid, data in sent.key_parameters(np.arange(len(sent)))]
    # COPY takes no parameters; what a few keys find comes by SELECT, as the same bytes
    statement = sql.SQL("SELECT {} FROM unnest({}) AS k({}) JOIN {} AS t ON {}").format(
        _selected(plan, "t"),
        listed(sql.SQL(f"${place + 1}") for place, _ in enumerate(plan.key)),
        listed(sql.Identifier(f"k{place}") for place, _ in enumerate(plan.key)),
        plan.table,
        same_key(plan),
    )
    cursor = RawCursor(connection).execute(statement, parameters, binary=True)
    result = cursor.pgresult
    rows = [_message([result.get_value(row, field) for field in range(result.nfields)]) for row in range(result.ntuples)
            ] if result else []  # fmt: skip
    return pa.Table.from_batches([_batch(plan, rows)])


def _message(fields: Sequence[bytes | None]) -> bytes:
    """A row as COPY would send it."""
    parts = [len(fields).to_bytes(2, "big")]
    for field in fields:
        parts.append((-1 if field is None else len(field)).to_bytes(4, "big", signed=True))
        parts.append(field or b"")
    return b"".join(parts)


def _copied(plan: Plan, connection: Connection, statement: sql.Composed) -> Iterator[pa.RecordBatch]:
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for rows in pgread.chunks(copy):
            yield _batch(plan, rows)


def _batch(plan: Plan, rows: Sequence[bytes]) -> pa.RecordBatch:
    columns = compared(plan)
    arrays = pgread.decode(rows, [_read_as(column.wire) for column in columns])
    values = [_as_read(array, column) for array, column in zip(arrays, columns, strict=True)]
    return pa.record_batch(values, names=[column.source for column in columns])


def _selected(plan: Plan, table: str | None = None) -> sql.Composed:
    def item(column: PlannedColumn) -> sql.Composable:
        name = sql.Identifier(table, column.target.name) if table else column.identifier
        if not _holds(column.wire, "numeric"):
            return name
        return sql.SQL("{}::text[]" if column.wire.element else "{}::text").format(name)

    return listed(item(column) for column in compared(plan))


def _holds(wire: Wire, name: str) -> bool:
    return wire.name == name or (wire.element is not None and wire.element.name == name)


def _read_as(wire: Wire) -> Wire:
    """The wire of what `_selected` asks for."""
    if not _holds(wire, "numeric"):
        return wire
    return Wire("_text", _DECIMAL_TEXT) if wire.element else _DECIMAL_TEXT


def _as_read(array: pa.Array, column: PlannedColumn) -> pa.Array:
    """What the server sent in the form that `_as_kept` gives."""
    wire = column.wire
    if wire.element is not None:
        return _lists_of(array, _scalar_read(array.flatten(), wire.element, column))
    return _scalar_read(array, wire, column)


def _scalar_read(array: pa.Array, wire: Wire, column: PlannedColumn) -> pa.Array:
    if wire.name == "numeric":
        return _plain(array.cast(pa.large_string()))
    return _unpadded(array) if _is_padded(column) else array


def _as_kept(array: pa.Array, column: PlannedColumn) -> pa.Array:
    """Converted values as the server keeps them."""
    wire = column.wire
    if wire.element is not None:
        return _lists_of(array, _scalar_kept(array.flatten(), wire.element, column))
    return _scalar_kept(array, wire, column)


def _scalar_kept(array: pa.Array, wire: Wire, column: PlannedColumn) -> pa.Array:
    if wire.name == "numeric":
        scale = re.search(r"numeric\(\d+,\s*(-?\d+)\)", column.target.spelled)
        if scale and int(scale[1]) < array.type.scale:
            # the server rounds halves away from zero
            array = pc.round(array, int(scale[1]), "half_towards_infinity")
        return _plain(array.cast(pa.string()).cast(pa.large_string()))
    if wire.name in {"time", "timestamp", "timestamptz"}:
        return _rounded(array, wire, column.target.spelled)
    if wire.name == "halfvec":
        return _halved(array)
    if wire.name == "text" and column.target.length is not None:
        cut = pc.utf8_slice_codeunits(array.cast(pa.large_string()), 0, column.target.length).cast(pa.large_binary())
        return _unpadded(cut) if _is_padded(column) else cut
    return array


def _lists_of(lists: pa.Array, children: pa.Array) -> pa.Array:
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    offsets = np.zeros(len(lists) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    mask = pc.is_null(lists) if lists.null_count else None
    return pa.ListArray.from_arrays(pa.array(offsets), children, mask=mask)


def _plain(texts: pa.Array) -> pa.Array:
    """Decimal numbers as plain text without zeros at the end of the fraction."""
    has_fraction = pc.match_substring(texts, ".")
    short = pc.utf8_rtrim(pc.utf8_rtrim(texts, "0"), ".")
    chosen = pc.if_else(has_fraction, short, texts)
    return pc.replace_substring_regex(chosen, r"^-0$", "0")


def _is_padded(column: PlannedColumn) -> bool:
    return column.target.spelled.startswith(("character(", "char(", "bpchar"))


def _unpadded(array: pa.Array) -> pa.Array:
    return pc.utf8_rtrim(array.cast(pa.large_string()), " ").cast(pa.large_binary())


def _rounded(array: pa.Array, wire: Wire, spelled: str) -> pa.Array:
    """Moments rounded to the column's precision, halves away from the server's epoch, as the server does it."""
    found = re.search(r"time(?:stamp)?\((\d)\)", spelled)
    if found is None or int(found[1]) >= 6:
        return array
    unit = 10 ** (6 - int(found[1]))
    epoch = 0 if wire.name == "time" else 946_684_800_000_000
    counts = pc.fill_null(array.view(pa.int64()), 0).to_numpy(zero_copy_only=False) - epoch
    rounded = np.sign(counts) * ((np.abs(counts) + unit // 2) // unit * unit) + epoch
    return pc.if_else(array.is_valid(), pa.array(rounded).view(array.type), None)


def _halved(array: pa.Array) -> pa.Array:
    numbers = array.flatten().to_numpy(zero_copy_only=False).astype(np.float16).astype(np.float32)
    return _lists_of(array, pa.array(numbers))
