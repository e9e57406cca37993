"""What a target should hold: every archived batch made again in order and merged as the sink merges, as hashes.

A row takes 41 bytes, however wide it is: a hash of its key, one of all its values as the target stores them, its place
in the archive, and the batch that wrote it last.
"""

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine import sidecar
from vector_assets.engine.abilities import Auditable, KeyReadable
from vector_assets.engine.core import HIDDEN, POSITION, BatchKind, Merge
from vector_assets.engine.errors import PlanError
from vector_assets.engine.ledger_records import BatchRecord
from vector_assets.engine.stages import Stages
from vector_assets.engine.touches import ROW_BITS, made_again, place

Hashes = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_FOLD_ROWS = 4_000_000
"""Changes gathered before those that are overtaken are dropped."""


@cache
def _duckdb() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(":memory:", config={"threads": 2})


def hashes_of(rows: pa.Table, columns: list[str]) -> Hashes:
    """A 64-bit hash of every row's values in these columns; equal within this process only."""
    if not columns:
        return np.zeros(rows.num_rows, np.uint64)
    quoted = ", ".join('"' + name.replace('"', '""') + '"' for name in columns)
    found = _duckdb().cursor().from_arrow(rows.select(columns)).project(f"hash({quoted}) AS h").to_arrow_table()
    values: Hashes = found.column("h").to_numpy()
    return values


def values_of(stored: pa.Table) -> list[str]:
    """The columns of stored rows that hold values."""
    return [name for name in stored.column_names if name not in HIDDEN]


def has_null(rows: pa.Table, key: tuple[str, ...]) -> Mask:
    """Rows with a null in their key: a unique index takes each of them for a key of its own."""
    found = np.zeros(rows.num_rows, np.bool_)
    for name in key:
        if rows.column(name).null_count:
            found |= pc.is_null(rows.column(name)).to_numpy()
    return found


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows by hashes; `places` are (archive's batch, ordinal), `writers` the batches that wrote them."""

    keys: Hashes
    values: Hashes
    places: Numbers
    writers: Numbers
    ranks: Numbers
    deleted: Mask

    def __len__(self) -> int:
        return len(self.keys)

    def at(self, chosen: Numbers | Mask) -> "Rows":
        """Some of the rows."""
        names = ("keys", "values", "places", "writers", "ranks", "deleted")
        return Rows(*(getattr(self, name)[chosen] for name in names))

    @classmethod
    def joined(cls, parts: "list[Rows]") -> "Rows":
        """All of them, one after the other."""
        dtypes = {"keys": np.uint64, "values": np.uint64, "deleted": np.bool_}
        names = ("keys", "values", "places", "writers", "ranks", "deleted")
        empty: list[npt.NDArray[Any]] = [np.zeros(0, dtypes.get(name, np.int64)) for name in names]
        return cls(*(np.concatenate([e, *(getattr(p, n) for p in parts)]) for e, n in zip(empty, names, strict=True)))


@dataclass
class Expected:
    """The target's content as far as batches were added; add them in order."""

    stages: Stages
    sink: Auditable
    merge: Merge
    _parts: list[Rows] = field(default_factory=list)
    _loose: list[Rows] = field(default_factory=list)
    _gathered: int = 0
    _added: int = 0

    @property
    def key(self) -> tuple[str, ...]:
        """The target's key; empty when every row is inserted."""
        return () if self.merge is Merge.APPEND else self.stages.target.key

    def add(self, batch: BatchRecord) -> None:
        """What a batch did to the target.

        Raises:
            FatalError: its archive file or its sidecar is missing or damaged.
            PlanError: it deletes rows, and the sink cannot tell their keys as the target holds them.
        """
        if batch.archive is None:
            return
        self._added += 1
        folded = self.stages.fold(self._handed(batch), is_rewrite=batch.kind is BatchKind.REWRITE)
        rows = self._hashed(batch, self.sink.as_stored(folded.upserts))
        if self.key and len(rows):
            _, first = np.unique(rows.keys, return_index=True)
            if self.merge is not Merge.LAST:
                rows = rows.at(np.sort(first))
            self._parts.append(rows)
        else:
            self._append(batch, rows)
        if folded.deletes is not None and folded.deletes.num_rows:
            if not isinstance(self.sink, KeyReadable):
                raise PlanError(
                    f"{batch.pipeline}: batch {batch.seq} deletes rows, and the sink of {batch.target} cannot tell how"
                    " the target holds their keys: what it should hold is not known"
                )
            self._parts.append(self._hashed(batch, self.sink.as_stored_keys(folded.deletes), is_deleting=True))
        self._gathered += len(rows)
        if self._gathered >= _FOLD_ROWS:
            self._parts, self._gathered = [self._folded()], 0

    def _append(self, batch: BatchRecord, rows: Rows) -> None:
        """Rows without a key; those of a rewrite take the place of all that were made of the same records."""
        if batch.kind is BatchKind.REWRITE:
            others = (part.at(part.places >> ROW_BITS != batch.root) for part in self._loose)
            self._loose = [part for part in others if len(part)]
        if len(rows):
            self._loose.append(rows)

    def _handed(self, batch: BatchRecord) -> pa.Table:
        """The batch's rows without those that somebody refused or that were left alone for a newer one."""
        root = self.stages.root(batch)
        rows = made_again(self.stages, root, self._answered(batch, root), by=batch).rows
        if batch.kind in {BatchKind.DEAD_LETTERS, BatchKind.REWRITE} and batch.sidecar is not None:
            handed = sidecar.read(self.stages.archive, batch.sidecar).column("row")
            rows = rows.filter(pc.is_in(rows.column(POSITION), value_set=handed))
        refused = self.stages.ledger.dead_letters.ordinals(batch.pipeline, batch.target, [batch.seq], stage="write")
        if refused:
            rows = rows.filter(pc.invert(pc.is_in(rows.column(POSITION), value_set=pa.array(refused, pa.int64()))))
        return rows

    def _answered(self, batch: BatchRecord, root: BatchRecord) -> Numbers | None:
        """The records that are made again; None for all: but where a model is asked, which may take today what it
        refused then, what today's declaration rejected is left as the dead letter that it is."""
        if self.stages.pipeline.embedding is None or batch.code_version != self.stages.code_version:
            return None
        refused = self.stages.ledger.dead_letters.ordinals(batch.pipeline, batch.target, [batch.seq], stage="transform")
        if not refused or root.archive is None:
            return None
        return np.setdiff1d(np.arange(root.archive.rows), np.array(refused, np.int64))

    def _hashed(self, batch: BatchRecord, stored: pa.Table, *, is_deleting: bool = False) -> Rows:
        count = stored.num_rows
        values = np.zeros(count, np.uint64) if is_deleting else hashes_of(stored, values_of(stored))
        loose = has_null(stored, self.key)
        # under `first` the earlier batch wins; a rewrite wins over everything before it
        rank = self._added if self.merge is Merge.LAST or batch.kind is BatchKind.REWRITE else -self._added
        rows = Rows(
            hashes_of(stored, list(self.key)) if self.key else values,
            values,
            place(batch.root, stored.column(POSITION).to_numpy()),
            np.full(count, batch.seq, np.int64),
            np.full(count, rank, np.int64),
            np.full(count, is_deleting, np.bool_),
        )
        if self.key and loose.any():
            self._loose.append(rows.at(loose))
            return rows.at(~loose)
        return rows

    def _folded(self) -> Rows:
        """The change that won, of every key."""
        whole = Rows.joined(self._parts)
        order = np.lexsort((whole.ranks, whole.keys))
        keys = whole.keys[order]
        is_last = np.ones(len(order), np.bool_)
        is_last[:-1] = keys[1:] != keys[:-1]
        return whole.at(order[is_last])

    def rows(self) -> Rows:
        """What the target should hold."""
        folded = self._folded()
        return Rows.joined([folded.at(~folded.deleted), *self._loose])
