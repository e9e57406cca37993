"""A quick reconcile: keys of some batches that no other record owns, each looked up in the target."""

import random
import time
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine import compact, sidecar
from vector_assets.engine.abilities import Auditable, KeyReadable
from vector_assets.engine.core import KIND, POSITION, BatchKind, Merge, RowKind, State
from vector_assets.engine.difference import Finding
from vector_assets.engine.errors import PlanError
from vector_assets.engine.expected import hashes_of, values_of
from vector_assets.engine.ledger_records import BatchRecord
from vector_assets.engine.origin import listed, origins
from vector_assets.engine.reconcile import SHOWN, Reconciliation, reconcile
from vector_assets.engine.retention import expired_up_to
from vector_assets.engine.session import Session
from vector_assets.engine.stages import Stages
from vector_assets.engine.touches import superseded

_BATCHES = 20
"""Batches that a sample is drawn from."""


@dataclass
class _Sample:
    """What was looked at, and what was found."""

    keys: int = 0
    in_target: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def reconcile_sample(session: Session, keys: int, shown: int = SHOWN, *, seed: int | None = None) -> Reconciliation:
    """Look up about `keys` upserted keys, spread over batches drawn at random, under the pipeline's lease.

    Raises:
        PlanError: the target cannot be asked for the rows of a key.
        FatalError: an archive file or a sidecar is missing or damaged.
    """
    if session.pipeline.aggregation is not None:
        # no batch says what a group's row is: all of them are compared, or none
        return reconcile(session, shown=shown)
    began, chance, sample = time.monotonic(), random.Random(seed), _Sample()
    with session.leased() as stages:
        if not stages.target.key or session.sink.merge is Merge.APPEND or not isinstance(session.sink, KeyReadable):
            raise PlanError(
                f"{session.pipeline.name}: {session.pipeline.target} cannot be asked for the rows of a key: a sample is"
                " not possible, reconcile without --sample"
            )
        done = [
            batch
            for batch in session.ledger.batches(session.pipeline.name, session.pipeline.target)
            if batch.state is State.DONE and batch.kind is BatchKind.RECORDS and batch.archive is not None
        ]
        drawn = chance.sample(done, min(_BATCHES, len(done)))
        drawn.sort(key=lambda batch: batch.counts.records)
        for number, batch in enumerate(drawn):
            share = -(-(keys - sample.keys) // (len(drawn) - number))
            _look(session, stages, batch, share, sample, shown, chance)
    if not sample.keys and any(batch.counts.written for batch in done):
        raise PlanError(
            f"{session.pipeline.name}: no key was found that one record alone owns, so nothing could be looked at:"
            " reconcile without --sample"
        )
    last = max((batch.seq for batch in done), default=0)
    return Reconciliation(
        session.pipeline.name, session.pipeline.target, last, (), sample.keys, sample.in_target, sample.counts,
        tuple(sample.findings), sampled=sample.keys, seconds=round(time.monotonic() - began, 3),
    )  # fmt: skip


def _look(
    session: Session, stages: Stages, batch: BatchRecord, keys: int, sample: _Sample, shown: int, chance: random.Random
) -> None:
    made = _owned(session, stages, batch, keys, chance)
    sink = session.sink
    if made.num_rows == 0 or not isinstance(sink, KeyReadable) or not isinstance(sink, Auditable):
        return
    stored = sink.as_stored(made)
    found = sink.rows_of(made.select([*stages.target.key, POSITION]))
    sample.keys += stored.num_rows
    sample.in_target += found.num_rows
    key, columns = list(stages.target.key), values_of(stored)
    there = np.isin(hashes_of(stored, key), hashes_of(found, key))
    equal = np.isin(hashes_of(stored, columns), hashes_of(found, columns))
    may_give_way = bool(
        sink.merge is not Merge.LAST
        and batch.counts.conflicts
        and expired_up_to(stages.ledger, batch.pipeline, batch.target)
    )
    is_old = _newest(stages, batch).code_version != stages.code_version
    for kind, chosen in (("missing", ~there), ("altered", there & ~equal)):
        name = "other_code" if is_old else kind
        if kind == "altered" and may_give_way:
            name = "expired"
        rows = stored.filter(pa.array(chosen))
        before = sample.counts.get(name, 0)
        if rows.num_rows:
            sample.counts[name] = before + rows.num_rows
        few = rows.slice(0, max(shown - before, 0))
        where = origins(stages, batch, few.column(POSITION).to_numpy().tolist())
        for values, origin in zip(listed(few.select(key)), where, strict=True):
            sample.findings.append(Finding(name, values, (), origin))  # type: ignore[arg-type]


def _newest(stages: Stages, batch: BatchRecord) -> BatchRecord:
    """The batch, or the newest one that rewrote it."""
    versions = stages.ledger.rewrites_of(batch)
    return stages.ledger.batch(batch.pipeline, batch.target, versions[-1]) if versions else batch


def _owned(session: Session, stages: Stages, batch: BatchRecord, keys: int, chance: random.Random) -> pa.Table:
    """Upserts of the batch that no other record's row and no refusal stands against; at most `keys`."""
    newest = _newest(stages, batch)
    if newest.sidecar is None or batch.archive is None:
        return session.pipeline.schema.empty_table()
    entries = sidecar.read(stages.archive, newest.sidecar).filter(pc.field("kind") == int(RowKind.INSERT))
    # a key may stand there twice under `first`, where the first one is the row
    _, first = np.unique(entries.column("key_hash").to_numpy(), return_index=True)
    rejected = stages.ledger.dead_letters.ordinals(batch.pipeline, batch.target, [batch.seq, newest.seq])
    ordinals = np.setdiff1d(entries.column("row").to_numpy()[first], np.array(rejected, np.int64))
    if len(ordinals) > keys:
        ordinals = np.sort(chance.sample(ordinals.tolist(), keys))
    rows = stages.decode(
        stages.archive.read(batch.archive), stages.splits(batch), pa.array(ordinals), newest.lookups
    ).rows
    rows = _handed(rows, entries, stages.target.key, session.sink.merge)
    gone = superseded(stages, stages.touches, batch, rows, session.sink.merge, np.zeros(0, np.int64))
    return rows.filter(pa.array(~gone))


def _handed(rows: pa.Table, entries: pa.Table, key: tuple[str, ...], merge: Merge) -> pa.Table:
    """Of the rows that records make the upserts that the target got: those of a key and a record in the sidecar."""
    if KIND in rows.column_names:
        upserts = pa.array([int(RowKind.INSERT), int(RowKind.UPDATE_AFTER)], pa.int8())
        rows = rows.filter(pc.is_in(rows.column(KIND), value_set=upserts)).drop_columns(KIND)
    if rows.num_rows == 0:
        return rows
    made = np.rec.fromarrays([rows.column(POSITION).to_numpy(), sidecar.key_hashes(rows, key).to_numpy()])
    got = np.rec.fromarrays([entries.column("row").to_numpy(), entries.column("key_hash").to_numpy()])
    rows = rows.filter(pa.array(np.isin(made, got.astype(made.dtype))))
    return compact.compact(rows, key).upserts if merge is Merge.LAST else compact.first_of_keys(rows, key)
