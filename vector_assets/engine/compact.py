"""Last change per key, for sinks whose merge is `last`: upserts and deletes apart, vectorised and pure."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine.core import KIND, POSITION, RowKind, kinds_of
from vector_assets.engine.errors import PlanError
from vector_assets.engine.sidecar import key_hashes

Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Compacted:
    """What is left of a batch: `upserts` without `_kind`, `deletes` (None when there are none) as key and `_position`.

    Every row that came in is exactly one of: an upsert, a delete, or `dropped`; so a `-U` whose key a later change took
    back counts as dropped, and one that ends as a delete (a move of the key) counts as that delete.
    """

    upserts: pa.Table
    deletes: pa.Table | None
    dropped: int


def compact(rows: pa.Table, key: tuple[str, ...]) -> Compacted:
    """For every key its last change, in the order of the surviving rows; no key is both upserted and deleted.

    A `-U` deletes its own key unless a later change takes it back, so the changes must be in an order in which no key
    is held by two rows at a time. Nulls in a key are equal to each other, as are NaNs, and 0.0 to -0.0.

    Raises:
        PlanError: there is no key, its type cannot identify a row, or a `_kind` is none of Flink's.
    """
    if not key:
        raise PlanError("merge 'last' needs a key: declare a primary key, or give the target one")
    plain = rows.drop_columns(KIND) if KIND in rows.column_names else rows
    deleting = _deleting(rows)
    last = _last_of_keys(rows, key)
    if last is None and deleting is None:
        return Compacted(plain, None, 0)
    survivors = np.ones(rows.num_rows, np.bool_) if last is None else last
    if deleting is None:
        upserts, deletes = plain.filter(pa.array(survivors)), None
    else:
        upserts = plain.filter(pa.array(survivors & ~deleting))
        deletes = plain.select([*key, POSITION]).filter(pa.array(survivors & deleting))
    deletes = deletes if deletes is not None and deletes.num_rows else None
    left = upserts.num_rows + (deletes.num_rows if deletes is not None else 0)
    return Compacted(upserts, deletes, rows.num_rows - left)


def first_of_keys(rows: pa.Table, key: tuple[str, ...]) -> pa.Table:
    """The first row of every key, in order.

    Raises:
        PlanError: a key column's type cannot identify a row.
    """
    backwards = rows.take(pa.array(np.arange(rows.num_rows)[::-1]))
    kept = _last_of_keys(backwards, key)
    return rows if kept is None else rows.filter(pa.array(kept[::-1]))


def _deleting(rows: pa.Table) -> Mask | None:
    """Which rows take their key away; None when none does."""
    kinds = kinds_of(rows)
    if kinds is None or len(kinds) == 0:
        return None
    values = kinds.to_numpy()
    if kinds.null_count or values.min() < RowKind.INSERT or values.max() > RowKind.DELETE:
        found = np.unique(pc.fill_null(kinds.cast(pa.string()), "null").to_numpy()).tolist()
        raise PlanError(f"column {KIND}: found {found}, wanted {RowKind.INSERT:d} to {RowKind.DELETE:d}")
    deleting = (values == RowKind.UPDATE_BEFORE) | (values == RowKind.DELETE)
    return deleting if deleting.any() else None


def _last_of_keys(rows: pa.Table, key: tuple[str, ...]) -> Mask | None:
    """Which rows are the last of their key; None when all keys differ.

    Rows that share their key's hash with no other are alone with their key; only the others are compared by value.
    """
    shared = _shared(key_hashes(rows, key).to_numpy())
    if shared is None:
        return None
    candidates = np.flatnonzero(shared)
    groups = _groups(rows.select(key).take(pa.array(candidates)))
    last_of_group = np.empty(int(groups.max()) + 1, np.int64)
    last_of_group[groups] = candidates  # an index given twice keeps the later value
    is_last = ~shared
    is_last[last_of_group] = True
    return is_last


def _shared(hashes: npt.NDArray[np.uint64]) -> Mask | None:
    """Which hashes occur more than once; None when none does."""
    ordered = np.sort(hashes)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(repeated):
        return None
    shared: Mask = pc.is_in(pa.array(hashes), value_set=pa.array(repeated)).to_numpy(zero_copy_only=False)
    return shared


def _groups(keys: pa.Table) -> Indices:
    """A number for each row, equal for equal keys and dense from 0."""
    groups = np.zeros(keys.num_rows, np.int64)
    for column in keys.columns:
        codes = _codes(_comparable(column))
        groups = _codes(pa.chunked_array([groups * (int(codes.max()) + 1) + codes]))
    return groups


def _comparable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    # arrow's dictionaries tell -0.0 from 0.0
    return pc.add(column, 0.0) if pa.types.is_floating(column.type) else column


def _codes(column: pa.ChunkedArray) -> Indices:
    encoded = column.dictionary_encode(null_encoding="encode")
    return np.concatenate([chunk.indices.to_numpy() for chunk in encoded.chunks]).astype(np.int64)
