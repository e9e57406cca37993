"""The target's rows, as they are read, held against what is expected; every difference is named with its origin."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine import sidecar
from vector_assets.engine.core import Json, Merge
from vector_assets.engine.errors import PlanError
from vector_assets.engine.expected import Expected, Hashes, Numbers, Rows, has_null, hashes_of, values_of
from vector_assets.engine.ledger_records import BatchRecord
from vector_assets.engine.origin import Origin, listed, origins
from vector_assets.engine.stages import Stages
from vector_assets.engine.touches import ROW_BITS, remade

Kind = Literal["missing", "altered", "doubled", "foreign", "unexpected", "other_code", "expired"]
_KEPT = 1000
"""Rows of the target that nobody expects whose values are kept; the others are counted."""
_ROW = (1 << ROW_BITS) - 1


@dataclass(frozen=True, slots=True)
class Finding:
    """One row that is not as it should be.

    `missing`: not in the target. `altered`: other values, in `columns`. `doubled`: there more often than it should be.
    `foreign`: nobody of this pipeline wrote its key. `unexpected`: the pipeline wrote its key and took it away again.
    `other_code`: today's code makes other rows than the code that wrote the batch; `replay --rewrite` mends it where
    rows have a key. Without one, as many unknown rows of the target are taken for what that code made.
    `expired`: not compared, for it may be a row of a batch of which retention keeps nothing; no difference.
    """

    kind: Kind
    key: dict[str, Json]
    columns: tuple[str, ...] = ()
    origin: Origin | None = None


class Difference:
    """Takes the target's rows chunk by chunk; memory is that of what is expected, and of what differs."""

    def __init__(self, stages: Stages, expected: Expected) -> None:
        self._stages, self._expected = stages, expected
        self._rows = expected.rows()
        order = np.argsort(self._rows.values, kind="stable")
        self._rows = self._rows.at(order)
        self._values, self._first, self._counts = np.unique(self._rows.values, return_index=True, return_counts=True)
        self._seen = np.zeros(len(self._values), np.int64)
        self._extra_keys: list[Hashes] = []
        self._extra_hashes: list[Hashes] = []
        self._kept: list[pa.Table] = []
        self._kept_rows = 0
        self.target_rows = 0
        self.not_compared: list[str] = []

    @property
    def expected_rows(self) -> int:
        """How many rows the target should hold."""
        return len(self._rows)

    def add(self, rows: pa.Table) -> None:
        """Some rows of the target."""
        if not self.target_rows:
            names = self._stages.pipeline.schema.names
            self.not_compared = [name for name in names if name not in rows.column_names]
        self.target_rows += rows.num_rows
        values = hashes_of(rows, values_of(rows))
        at = np.minimum(np.searchsorted(self._values, values), max(len(self._values) - 1, 0))
        hit = self._values[at] == values if len(self._values) else np.zeros(len(values), np.bool_)
        np.add.at(self._seen, at[hit], 1)
        if not hit.all():
            self._keep(rows.filter(pa.array(~hit)), values[~hit])

    def _keep(self, rows: pa.Table, values: Hashes) -> None:
        key = self._expected.key
        self._extra_keys.append(np.where(has_null(rows, key), values, hashes_of(rows, list(key))) if key else values)
        try:
            self._extra_hashes.append(sidecar.key_hashes(rows, self._stages.target.key).to_numpy())
        except PlanError:
            self._extra_hashes.append(np.zeros(rows.num_rows, np.uint64))
        room = _KEPT - self._kept_rows
        if room > 0:
            self._kept.append(rows.slice(0, room))
            self._kept_rows += min(room, rows.num_rows)

    def findings(
        self, batches: Sequence[BatchRecord], shown: int, expired_rows: int = 0
    ) -> tuple[list[Finding], dict[str, int]]:
        """What differs: the first `shown` of every kind, and how many there are.

        Batches of which nothing is kept wrote `expired_rows` rows: at most so many are theirs.
        """
        named = _Named(self._stages, self._expected, batches, shown, expired_rows)
        extra_keys = np.concatenate([np.zeros(0, np.uint64), *self._extra_keys])
        extra_hashes = np.concatenate([np.zeros(0, np.uint64), *self._extra_hashes])
        absent = np.repeat(self._first, np.maximum(self._counts - self._seen, 0))
        missing = self._rows.at(absent)
        kept = pa.concat_tables(self._kept) if self._kept else None
        _, in_missing, in_extra = np.intersect1d(missing.keys, extra_keys, return_indices=True)
        named.altered(missing.at(in_missing), in_extra, kept)
        alone = np.ones(len(missing), np.bool_)
        alone[in_missing] = False
        named.missing(missing.at(alone))
        named.doubled(self._rows.at(np.repeat(self._first, np.maximum(self._seen - self._counts, 0))))
        rest = np.flatnonzero(~np.isin(np.arange(len(extra_keys)), in_extra))
        again = np.isin(extra_keys[rest], self._rows.keys) & bool(self._expected.key)
        named.extra("doubled", rest[again], kept)
        named.unclaimed(rest[~again], extra_hashes, kept)
        return named.findings, named.counts


class _Named:
    """Findings on their way to a report: counted all, described the first of each kind."""

    def __init__(
        self, stages: Stages, expected: Expected, batches: Sequence[BatchRecord], shown: int, expired_rows: int
    ) -> None:
        self._stages, self._expected, self._shown, self._expired_rows = stages, expected, shown, expired_rows
        self._batches = {batch.seq: batch for batch in batches}
        self._key = stages.target.key or tuple(stages.pipeline.schema.names)
        self.findings: list[Finding] = []
        self.counts: dict[str, int] = {}
        # without a key nothing ties a row that older code made to the one that today's makes
        self._otherwise = 0

    def _count(self, kind: Kind, count: int) -> int:
        """Count findings; how many of them may still be described."""
        before = self.counts.get(kind, 0)
        if count:
            self.counts[kind] = before + count
        return max(min(self._shown - before, count), 0)

    def _is_old(self, writers: Numbers) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
        """Which of these batches were made by other code than today's."""
        today = self._stages.code_version
        old = [seq for seq, batch in self._batches.items() if batch.code_version != today]
        return np.isin(writers, np.array(old, np.int64))

    def missing(self, rows: Rows) -> None:
        """Rows of which the target holds nothing."""
        old = self._is_old(rows.writers)
        self._from_archive("missing", rows.at(~old))
        self._from_archive("other_code", rows.at(old))
        if not self._expected.key:
            self._otherwise = int(np.count_nonzero(old))

    def doubled(self, rows: Rows) -> None:
        """Rows that the target holds once more."""
        self._from_archive("doubled", rows)

    def altered(self, rows: Rows, at: Numbers, kept: pa.Table | None) -> None:
        """Rows that the target holds with other values, and where those are among the extra ones."""
        gave_way = self._may_have_given_way(rows.writers)
        old = self._is_old(rows.writers) & ~gave_way
        for kind, chosen in (("altered", ~old & ~gave_way), ("other_code", old), ("expired", gave_way)):
            self._from_archive(kind, rows.at(chosen), at[chosen], kept)  # type: ignore[arg-type]

    def _may_have_given_way(self, writers: Numbers) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
        """Rows of batches with at least so many conflicts, where an expired batch may have written the key first."""
        if not self._expired_rows or self._expected.merge is Merge.LAST:
            return np.zeros(len(writers), np.bool_)
        found, counts = np.unique(writers, return_counts=True)
        pairs = zip(found.tolist(), counts.tolist(), strict=True)
        return np.isin(writers, [seq for seq, count in pairs if count <= self._batches[seq].counts.conflicts])

    def _from_archive(self, kind: Kind, rows: Rows, at: Numbers | None = None, kept: pa.Table | None = None) -> None:
        order = np.argsort(rows.places, kind="stable")
        for index in order[: self._count(kind, len(rows))].tolist():
            seq, ordinal = int(rows.places[index]) >> ROW_BITS, int(rows.places[index]) & _ROW
            batch = self._batches[seq]
            made = self._stored(batch, ordinal, int(rows.keys[index]))
            found = kept.slice(int(at[index]), 1) if kept is not None and at is not None else None
            columns = differing(made, found) if found is not None and found.num_rows else ()
            (origin,) = origins(self._stages, batch, [ordinal])
            (key,) = listed(made.select(self._names(made)))
            self.findings.append(Finding(kind, key, columns, origin))

    def _stored(self, batch: BatchRecord, ordinal: int, key_hash: int) -> pa.Table:
        """The row of one record as the target should hold it; of several the one of that key."""
        made = remade(self._stages, batch, np.array([ordinal], np.int64))
        stored = self._expected.sink.as_stored(made)
        hashes = hashes_of(stored, list(self._expected.key) or values_of(stored))
        at = np.flatnonzero(hashes == np.uint64(key_hash))
        return stored.slice(int(at[0]) if len(at) else 0, 1)

    def _names(self, rows: pa.Table) -> list[str]:
        return [name for name in self._key if name in rows.column_names]

    def extra(
        self, kind: Kind, at: Numbers, kept: pa.Table | None, origins_of: dict[int, Origin] | None = None
    ) -> None:
        """Rows of the target that are not expected, by their number among the extra ones."""
        shown = self._count(kind, len(at))
        for index in [number for number in at.tolist() if kept is not None and number < kept.num_rows][:shown]:
            row = kept.slice(index, 1) if kept is not None else pa.table({})
            (key,) = listed(row.select(self._names(row)))
            self.findings.append(Finding(kind, key, (), (origins_of or {}).get(index)))

    def unclaimed(self, at: Numbers, hashes: Hashes, kept: pa.Table | None) -> None:
        """Rows whose key nobody should have written: who did, as far as sidecars know."""
        writer = np.zeros(len(at), np.int64)
        ordinal = np.zeros(len(at), np.int64)
        for batch in self._batches.values() if len(at) and self._stages.target.key else ():
            if batch.sidecar is None:
                continue
            entries = sidecar.read(self._stages.archive, batch.sidecar)
            where = pc.index_in(pa.array(hashes[at]), value_set=entries.column("key_hash"))
            found = pc.is_valid(where).to_numpy(zero_copy_only=False)
            rows = entries.column("row").to_numpy()
            writer[found] = batch.seq
            ordinal[found] = rows[pc.fill_null(where, 0).to_numpy()[found]] if len(rows) else 0
        old = self._is_old(writer) & (writer > 0)
        known = self._origins(at, writer, ordinal, kept)
        unknown = at[writer == 0]
        if len(unknown) <= self._expired_rows:
            self.extra("expired", unknown, kept)
        elif len(unknown) > self._expired_rows + self._otherwise:
            self.extra("foreign", unknown, kept)
        self.extra("other_code", at[old], kept, known)
        self.extra("unexpected", at[(writer > 0) & ~old], kept, known)

    def _origins(self, at: Numbers, writer: Numbers, ordinal: Numbers, kept: pa.Table | None) -> dict[int, Origin]:
        """The origin of the first extra rows that a batch wrote."""
        found: dict[int, Origin] = {}
        limit = kept.num_rows if kept is not None else 0
        chosen = np.flatnonzero((writer > 0) & (at < limit))[: 2 * self._shown]
        for index in chosen.tolist():
            root = self._stages.root(self._batches[int(writer[index])])
            found[int(at[index])] = origins(self._stages, root, [int(ordinal[index])])[0]
        return found


def differing(made: pa.Table, found: pa.Table) -> tuple[str, ...]:
    """Columns in which two single rows differ."""
    names = values_of(made)
    both = pa.concat_tables([made.select(names), found.select(names)], promote_options="default")
    return tuple(name for name in names if len(set(hashes_of(both, [name]).tolist())) > 1)
