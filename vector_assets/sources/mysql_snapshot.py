"""One chunk of the initial snapshot, without locks: rows of a range of the key, and what changed before it.

Every batch of the snapshot ends at one moment H of the binlog, at which everything up to the chunk's last key is in the
target. The chunk is read by a plain SELECT at some moment near H, and made what it was at H by the binlog: a key that
changed before H has its newest image up to there, one that changed only later its first image after. What the binlog
has up to H for keys of earlier chunks (and tables) goes along as changes; for keys that come later it is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from vector_assets.clients.mysql import Login, MySql
from vector_assets.clients.mysql_keys import Key, KeyOrder, as_json, beyond, key_columns
from vector_assets.clients.mysql_rows import Select, expression
from vector_assets.clients.mysql_schema import MySqlTable, quote
from vector_assets.engine.core import RowKind
from vector_assets.engine.errors import PlanError
from vector_assets.sources.mysql_changes import Images

_DONE, _HERE, _LATER = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows of a table as columns of their natural types, with their keys' last; `last` is None at the table's end."""

    table: MySqlTable
    columns: tuple[Any, ...]
    nulled: tuple[int, ...]
    rows: int
    last: Key | None


def read_chunk(
    login: Login, table: MySqlTable, names: Sequence[str], after: Key | None, upto: Key | None, *,
    most_rows: int | None, most_bytes: int,
) -> Chunk:  # fmt: skip
    """Rows after a key: at most so many (None: all up to `upto`, or to the end), at least one, in the key's order."""
    keys = key_columns(table)
    wanted = [column for name in names if (column := table.column(name)) is not None]
    columns = [*wanted, *keys]
    conditions = [beyond(keys, after)] if after is not None else []
    conditions += [beyond(keys, upto, is_upper=True)] if upto is not None else []
    where = " WHERE " + " AND ".join(text for text, _ in conditions) if conditions else ""
    order = ", ".join(quote(key.name) for key in keys)
    # a chunk is as large as it has to be: the server shall not sort what the index has in order
    limit = f" LIMIT {most_rows}" if most_rows is not None else ""
    listed = ", ".join(expression(column).replace("%", "%%") for column in columns)
    hint = " FORCE INDEX (PRIMARY)" if limit and table.has_primary_key else ""
    text = f"SELECT {listed} FROM {table.quoted.replace('%', '%%')}{hint}{where} ORDER BY {order}{limit}"
    select = Select(
        login, text if conditions else text.replace("%%", "%"), [each for _, values in conditions for each in values]
    )
    blocks, nulled, size, is_cut = [], np.zeros(len(columns), np.int64), 0, False
    try:
        for block, wrong in select.blocks(columns):
            blocks.append(block)
            nulled += wrong
            size += sum(each.nbytes for each in block)
            if most_rows is not None and size >= most_bytes:
                is_cut = True
                break
    finally:
        select.close()
    if not blocks:
        return Chunk(table, (), (), 0, upto)
    rows = sum(len(block[0]) for block in blocks)
    found = tuple(pa.concat_arrays(parts) for parts in zip(*blocks, strict=True))
    is_end = (most_rows is None and upto is None) or (most_rows is not None and rows < most_rows and not is_cut)
    last = None if is_end or not rows else as_json([each[-1].as_py() for each in found[len(wanted) :]])
    if most_rows is None:
        last = upto
    return Chunk(table, found, tuple(int(each) for each in nulled), rows, last)


@dataclass(frozen=True, slots=True)
class Change:
    """What the binlog made of rows of one table: which images go along, as which kinds."""

    images: Images
    kept: Any
    kinds: Any


class Merger:
    """Sorts images of the binlog by where the snapshot is, and makes a chunk what it was at H."""

    def __init__(self, server: MySql, table: MySqlTable, after: Key | None, last: Key | None) -> None:
        self._table = table
        self._keys = key_columns(table)
        self._order = KeyOrder(server, self._keys)
        self._after, self._last = after, last
        self._states: dict[Key, tuple[Images, int] | None] = {}
        self._settled: set[Key] = set()

    def add(self, images: Images) -> Change | None:
        """Images in the binlog's order; what of them goes along."""
        where = self._regions(images)
        if images.table == self._table.full_name:
            self._note(images, where)
        kinds = images.kinds.copy()
        befores = np.flatnonzero(kinds == RowKind.UPDATE_BEFORE)
        for before in befores[where[befores] != where[befores + 1]]:
            # an update that moves a row over the edge of what is done: half of it is seen
            kinds[before], kinds[before + 1] = RowKind.DELETE, RowKind.INSERT
        kept = np.flatnonzero((where == _DONE) & ~images.late)
        return Change(images, kept, kinds[kept]) if len(kept) else None

    def _regions(self, images: Images) -> Any:
        if images.table != self._table.full_name:
            return np.full(len(images.kinds), _DONE if images.table < self._table.full_name else _LATER)
        keys = self._keys_of(images)
        is_here = np.array(self._order.up_to(keys, self._last))
        is_done = (
            np.array(self._order.up_to(keys, self._after)) if self._after is not None else np.zeros(len(keys), bool)
        )
        return np.where(is_done, _DONE, np.where(is_here, _HERE, _LATER))

    def _keys_of(self, images: Images) -> list[Key]:
        found = [images.natural(key.name) for key in self._keys]
        columns = [each[0].to_pylist() for each in found if each is not None]
        if len(columns) < len(found):
            raise PlanError(
                f"{images.table}: its key was changed while its rows were being read; start anew (`vector-assets reset"
                " ... --to initial`)"
            )
        return [as_json(key) for key in zip(*columns, strict=True)]

    def _note(self, images: Images, where: Any) -> None:
        keys = self._keys_of(images)
        for number in np.flatnonzero(where == _HERE):
            key = _hashable(keys[number])
            is_new = images.kinds[number] in (RowKind.INSERT, RowKind.UPDATE_AFTER)
            if not images.late[number]:
                self._states[key] = (images, int(number)) if is_new else None
                self._settled.add(key)
            elif key not in self._settled:
                self._settled.add(key)
                self._states[key] = None if is_new else (images, int(number))

    def corrected(self, chunk: Chunk) -> tuple[Any, list[tuple[Images, list[int]]]]:
        """Numbers of the chunk's rows that stand, and the images that come in place of the others."""
        columns = (
            [each.to_pylist() for each in chunk.columns[len(chunk.columns) - len(self._keys) :]] if self._states else []
        )
        rows = [_hashable(as_json(key)) for key in zip(*columns, strict=True)]
        kept = (
            np.array([n for n, key in enumerate(rows) if key not in self._states], np.int64)
            if rows
            else np.arange(chunk.rows)
        )
        placed: dict[int, tuple[Images, list[int]]] = {}
        for state in self._states.values():
            if state is not None:
                placed.setdefault(id(state[0]), (state[0], []))[1].append(state[1])
        return kept, list(placed.values())


def _hashable(key: Key) -> Key:
    return tuple(each["b"] if isinstance(each, dict) else each for each in key)
