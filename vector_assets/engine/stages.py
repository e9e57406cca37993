"""What happens to the records of one batch between the archive and the commit. Runs in worker threads.

archive -> SEALED -> decode -> transform -> compact -> stage in the sink -> key sidecar -> STAGED
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets import __version__
from vector_assets.engine import compact, sidecar
from vector_assets.engine.archive import Archive
from vector_assets.engine.core import (
    KIND,
    POSITION,
    Batch,
    BatchKind,
    Counts,
    Decoded,
    Merge,
    RowKind,
    Sink,
    Span,
    Split,
    Staged,
    Target,
    canonical,
    kinds_of,
)
from vector_assets.engine.dead_letters import splits_of
from vector_assets.engine.env import failpoint
from vector_assets.engine.errors import BudgetError, PlanError
from vector_assets.engine.lease import Lease
from vector_assets.engine.ledger import BatchRecord, Ledger
from vector_assets.engine.metadata import attach
from vector_assets.engine.pipeline import Pipeline
from vector_assets.engine.retry import RetryPolicy, call


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch that only has to be committed."""

    batch: BatchRecord
    raw: pa.Table
    staged: Staged
    counts: Counts
    rejected: pa.Table


@dataclass(frozen=True, slots=True)
class Stages:
    """The stages of one pipeline under one lease. Thread-safe."""

    pipeline: Pipeline
    ledger: Ledger
    archive: Archive
    sink: Sink
    target: Target
    lease: Lease
    policy: RetryPolicy
    schema_version: int = 1

    @property
    def code_version(self) -> str:
        """Which code makes batches: the package's version and the declaration's fingerprint."""
        return f"{__version__}+{self.pipeline.fingerprint}"

    def seal(self, batch: BatchRecord, raw: pa.Table, span: Span) -> BatchRecord:
        """Archive the records and fix the ends: from here on the source is not read again for this batch."""
        file = None
        if batch.kind is not BatchKind.RESET:
            file = self.archive.write(batch.pipeline, batch.hour, batch.seq, raw, self._manifest(batch, span))
        failpoint("archived")
        records = Counts(records=raw.num_rows, bytes=raw.nbytes)
        newest = pc.max(raw.column("timestamp")).cast(pa.int64()).as_py() if raw.num_rows else None
        self.ledger.seal(self.lease, batch.seq, span, file, records=records, newest_ms=newest)
        failpoint("sealed")
        return self.ledger.batch(batch.pipeline, batch.target, batch.seq)

    def _manifest(self, batch: BatchRecord, span: Span) -> dict[str, str]:
        """What the file says about its batch: enough to rebuild the batch's row of a lost ledger."""
        return {
            "span": span.to_json(),
            "kind": batch.kind,
            "reading": self.pipeline.source_options.reading(),
            "target": batch.target,
            "code_version": batch.code_version,
            "schema_version": str(batch.schema_version),
            "columns": self.pipeline.columns,
            "run_id": batch.run_id,
            "planned_ms": str(batch.planned_ms),
            "start": canonical(self.ledger.frozen_start(batch.pipeline, batch.target) or {}),
        }

    def stage(self, batch: BatchRecord, raw: pa.Table) -> Prepared:
        """SEALED (or STAGED before a crash) -> STAGED."""
        prepared, upserts, deletes = self.prepare(batch, raw)
        self._keep_rejects(batch, prepared)
        keys = sidecar.write(self.archive, batch.pipeline, batch.hour, batch.seq, upserts, deletes, self.target.key)
        self.ledger.stage(
            self.lease, batch, prepared.staged, raw, sidecar=keys, rejected=prepared.rejected, counts=prepared.counts,
            code_version=self.code_version,
        )  # fmt: skip
        failpoint("staged")
        return prepared

    def _keep_rejects(self, batch: BatchRecord, prepared: Prepared) -> None:
        """Beside the records, so that a lost ledger's dead letters are found again as they were."""
        if batch.archive:
            notes = {"counts": canonical(prepared.counts.to_dict()), "code_version": self.code_version}
            self.archive.write_rejects(batch.archive, prepared.rejected, notes)

    def prepare(self, batch: BatchRecord, raw: pa.Table) -> tuple[Prepared, pa.Table, pa.Table | None]:
        """Decode, transform, compact and stage in the sink; the ledger is not touched.

        Raises:
            BudgetError: more rejects than the error budget allows.
        """
        splits = self.splits(batch)
        # a decoder may ask a service, such as a schema registry
        decoded = call(self.policy, lambda: self.decode(raw, splits), place=f"{batch.pipeline}: decoding")
        rows, superseded = self._without_superseded(batch, decoded.rows)
        folded = self._compact(rows)
        allowed = self.pipeline.budget.limit(raw.num_rows) - decoded.rejected.num_rows
        self._check_budget(allowed, decoded.rejected, raw.num_rows)
        token = batch.token(self.lease.fence)
        handed = Batch(folded.upserts, folded.deletes, batch.schema_version, reject_limit=allowed)
        staged = call(self.policy, lambda: self.sink.stage(handed, token), place=f"{batch.pipeline}: staging")
        rejected = pa.concat_tables([decoded.rejected, staged.rejected])
        self._check_budget(allowed - staged.rejected.num_rows, rejected, raw.num_rows)
        counts = Counts(
            records=raw.num_rows,
            bytes=batch.counts.bytes,
            decoded=raw.num_rows - decoded.rejected.num_rows,
            rejected=decoded.rejected.num_rows,
            rows=decoded.rows.num_rows + decoded.filtered,
            filtered=decoded.filtered,
            compacted=folded.dropped,
            superseded=superseded,
            refused=staged.rejected.num_rows,
            nulled=decoded.nulled,
        )
        return Prepared(batch, raw, staged, counts, rejected), folded.upserts, folded.deletes

    def splits(self, batch: BatchRecord) -> list[Split]:
        """The splits that the numbers in the raw records' column `split` mean."""
        if batch.kind is BatchKind.DEAD_LETTERS:
            return splits_of(self.ledger.dead_letters.claimed(batch.pipeline, batch.target, batch.seq))
        return [part.split for part in batch.span.ranges]

    def decode(self, raw: pa.Table, splits: Sequence[Split]) -> Decoded:
        """Raw records to the sink's rows, and everything rejected on the way."""
        numbered = raw.append_column(POSITION, pa.array(np.arange(raw.num_rows, dtype=np.int64)))
        result = self.pipeline.decoder.decode(numbered)
        if self.pipeline.metadata:
            result = replace(result, rows=attach(result.rows, raw, splits, self.pipeline.metadata))
        for transform in self.pipeline.transforms:
            after = transform.apply(result.rows)
            result = Decoded(
                after.rows,
                pa.concat_tables([result.rejected, after.rejected]),
                result.nulled + after.nulled,
                result.filtered + after.filtered,
            )
        return result

    def _compact(self, rows: pa.Table) -> compact.Compacted:
        if self.sink.merge is Merge.LAST:
            return compact.compact(rows, self.target.key)
        kinds = kinds_of(rows)
        if kinds is None or self.sink.merge is Merge.CHANGELOG:
            return compact.Compacted(rows, None, 0)
        if pc.any(pc.not_equal(kinds, int(RowKind.INSERT))).as_py():
            raise PlanError(
                f"{self.pipeline.name}: the records hold updates or deletes, {self.target.name} is written with merge"
                f" {self.sink.merge}, which takes inserts only; choose an upsert mode of the sink"
            )
        return compact.Compacted(rows.drop_columns(KIND), None, 0)

    def _without_superseded(self, batch: BatchRecord, rows: pa.Table) -> tuple[pa.Table, int]:
        """Of a dead-letter batch: rows whose key no batch after the record's own has touched, and how many had one."""
        if batch.kind is not BatchKind.DEAD_LETTERS or self.sink.merge is not Merge.LAST or rows.num_rows == 0:
            return rows, 0
        letters = self.ledger.dead_letters.claimed(batch.pipeline, batch.target, batch.seq)
        origins = pa.array([letter.origin_seq for letter in letters], pa.int64()).take(rows.column(POSITION))
        hashes, shape = sidecar.key_hashes(rows, self.target.key), sidecar.shape(rows, self.target.key)
        later = [b for b in self.ledger.batches(batch.pipeline, batch.target) if b.seq != batch.seq and b.sidecar]
        keep = pa.repeat(pa.scalar(value=True), rows.num_rows)
        for origin in pc.unique(origins).to_pylist():
            touched = sidecar.touched_after(
                self.archive, [b.sidecar for b in later if b.seq > origin and b.sidecar], hashes, shape
            )
            keep = pc.and_(keep, pc.invert(pc.and_(touched, pc.equal(origins, origin))))
        kept = rows.filter(keep)
        return kept, rows.num_rows - kept.num_rows

    def _check_budget(self, left: int, rejected: pa.Table, records: int) -> None:
        if left < 0:
            first = rejected.slice(0, 1).to_pylist()[0]
            raise BudgetError(
                f"{self.pipeline.name}: {rejected.num_rows} of {records} records are rejected, the error budget is"
                f" {self.pipeline.settings.error_budget}; the first: {first['stage']}: {first['error']}. Nothing of"
                " this batch was written; mend the declaration or raise vector-assets.error-budget, then run again"
            )


def settled(counts: Counts, prepared: Counts, refused: int) -> Counts:
    """The counts of a committed batch: what was prepared, what the target says, what it refused."""
    return replace(
        prepared,
        conflicts=counts.conflicts,
        written=counts.written,
        deleted=counts.deleted,
        superseded=prepared.superseded + counts.superseded,
        refused=prepared.refused + refused,
    )


def is_balanced(counts: Counts) -> bool:
    """The equations of `Counts` hold."""
    c = counts
    gone = c.filtered + c.compacted + c.conflicts + c.superseded + c.refused + c.written + c.deleted
    return c.records == c.decoded + c.rejected and c.rows == gone
