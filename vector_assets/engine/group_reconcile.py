"""Reconcile of a GROUP BY: the target's rows against those of the groups that are kept.

A group's row is made of the records of every batch, so no single batch says what the target should hold: the groups do.
That they in turn are what the archive comes to, `state check` says.
"""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine.abilities import Auditable
from vector_assets.engine.core import POSITION, Position
from vector_assets.engine.difference import Finding, Kind, differing
from vector_assets.engine.expected import hashes_of, values_of
from vector_assets.engine.group_files import COUNTED
from vector_assets.engine.ledger_records import BatchRecord
from vector_assets.engine.origin import listed
from vector_assets.engine.past_groups import kept_groups
from vector_assets.engine.session import Session
from vector_assets.engine.stages import Stages

IsApplied = Callable[[Session, Stages, BatchRecord], bool]


@dataclass
class GroupDifference:
    """The rows of the groups as the target should hold them, and what of the target's was seen of them."""

    stored: pa.Table
    key: tuple[str, ...]
    shown: int
    findings: list[Finding] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    target_rows: int = 0
    _order: npt.NDArray[np.int64] = field(init=False)
    _keys: npt.NDArray[np.uint64] = field(init=False)
    _values: npt.NDArray[np.uint64] = field(init=False)
    _seen: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        keys = hashes_of(self.stored, list(self.key))
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]
        self._values = hashes_of(self.stored, values_of(self.stored))[self._order]
        self._seen = np.zeros(len(keys), np.int64)

    def add(self, rows: pa.Table) -> None:
        """Some rows of the target."""
        self.target_rows += rows.num_rows
        keys, values = hashes_of(rows, list(self.key)), hashes_of(rows, values_of(rows))
        at = np.minimum(np.searchsorted(self._keys, keys), max(len(self._keys) - 1, 0))
        is_known = self._keys[at] == keys if len(self._keys) else np.zeros(len(keys), np.bool_)
        is_again = np.zeros(len(keys), np.bool_)
        is_again[is_known] = self._seen[at[is_known]] > 0
        np.add.at(self._seen, at[is_known], 1)
        is_other = np.zeros(len(keys), np.bool_)
        is_other[is_known] = self._values[at[is_known]] != values[is_known]
        self._report("foreign", rows.filter(pa.array(~is_known)))
        self._report("doubled", rows.filter(pa.array(is_again)))
        wrong = np.flatnonzero(is_other & ~is_again)
        self._report("altered", rows.take(pa.array(wrong)), self.stored.take(pa.array(self._order[at[wrong]])))

    def finish(self) -> None:
        """Every row of the target was added: what was not seen is missing."""
        self._report("missing", self.stored.take(pa.array(self._order[self._seen == 0])))

    def _report(self, kind: Kind, rows: pa.Table, wanted: pa.Table | None = None) -> None:
        if not rows.num_rows:
            return
        room = max(self.shown - self.counts.get(kind, 0), 0)
        self.counts[kind] = self.counts.get(kind, 0) + rows.num_rows
        for number, key in enumerate(listed(rows.slice(0, room).select(list(self.key)))):
            columns = differing(wanted.slice(number, 1), rows.slice(number, 1)) if wanted is not None else ()
            self.findings.append(Finding(kind, key, columns))


@dataclass(frozen=True, slots=True)
class GroupComparison:
    """What was compared: batches in the target, where the pipeline stood, and the difference."""

    batches: list[BatchRecord]
    position: Position
    difference: GroupDifference
    not_compared: tuple[str, ...]
    seconds: float


def compare_groups(session: Session, sink: Auditable, is_applied: IsApplied, shown: int) -> GroupComparison:
    """Hold every row of the target against the groups as of one moment; the lease is held while the scan begins.

    Raises:
        StateLostError: the groups are missing, damaged or mean something else.
        LeaseHeldError: a run kept the lease.
    """
    began = time.monotonic()
    where = (session.pipeline.name, session.pipeline.target)
    with session.leased() as stages:
        batches = [b for b in session.ledger.batches(*where) if is_applied(session, stages, b)]
        last = next((b for b in reversed(batches) if b.kind in COUNTED or stages.group_files.is_start(b.seq)), None)
        groups = kept_groups(stages, last)
        # its rows are of the moment of the first batch
        scan = sink.scan()
        first = next(scan, None)
        position = session.ledger.position(*where)
    try:
        pieces = [sink.as_stored(rows) for rows in groups.rows()]
    finally:
        groups.close()
    stored = pa.concat_tables(pieces) if pieces else sink.as_stored(_nothing(session))
    difference = GroupDifference(stored, stages.target.key, shown)
    try:
        for rows in chain([first] if first is not None else [], scan):
            difference.add(pa.Table.from_batches([rows]))
    finally:
        if isinstance(scan, Generator):
            scan.close()
    difference.finish()
    absent = tuple(name for name in session.pipeline.schema.names if name not in stored.column_names)
    return GroupComparison(batches, position, difference, absent, round(time.monotonic() - began, 3))


def _nothing(session: Session) -> pa.Table:
    positions = pa.field(POSITION, pa.int64(), nullable=False)
    return pa.schema([*session.pipeline.schema, positions]).empty_table()


def same_groups(kept: pa.Table, made: pa.Table) -> tuple[int, int, int]:
    """How many groups are only kept, only made, and in both with other values."""
    names = kept.column_names
    keys = [name for name in names if name.startswith("_key")]
    one, other = (hashes_of(table, keys) if keys else np.zeros(table.num_rows, np.uint64) for table in (kept, made))
    whole = set(hashes_of(kept, names).tolist())
    is_same = pc.is_in(pa.array(hashes_of(made, names)), value_set=pa.array(sorted(whole), pa.uint64()))
    is_there = np.isin(other, one)
    differing_groups = int((is_there & ~is_same.to_numpy(zero_copy_only=False)).sum())
    return int((~np.isin(one, other)).sum()), int((~is_there).sum()), differing_groups
