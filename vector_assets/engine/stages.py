"""What happens to the records of one batch between the archive and the commit. Runs in worker threads.

archive -> SEALED -> decode -> transform -> compact -> stage in the sink -> key sidecar -> STAGED
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets import __version__
from vector_assets.engine import compact, sidecar
from vector_assets.engine.archive import Archive
from vector_assets.engine.core import (
    POSITION,
    Batch,
    BatchKind,
    Counts,
    Decoded,
    Json,
    Merge,
    RowKind,
    SchemaChange,
    Sink,
    Span,
    Split,
    Staged,
    Target,
    canonical,
    no_rejects,
)
from vector_assets.engine.dead_letters import splits_of
from vector_assets.engine.decoding import decode, folded, joined_anew, without
from vector_assets.engine.env import failpoint
from vector_assets.engine.errors import BudgetError, DriftError, FatalError
from vector_assets.engine.evolution import PipelineVersion, Schemas, conformed
from vector_assets.engine.group_files import COUNTED, GroupFile, GroupFiles
from vector_assets.engine.keyed_state import KeyedState, Merged, says_before
from vector_assets.engine.lease import Lease
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.ledger_records import BatchRecord
from vector_assets.engine.pipeline import Pipeline
from vector_assets.engine.retry import RetryPolicy, call
from vector_assets.engine.touches import Numbers, Touches, kept_rows, place, superseded

Merging = Callable[[pa.Table], Merged]
"""Takes a batch's part of the groups; gives what it did to them."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch that only has to be committed."""

    batch: BatchRecord
    raw: pa.Table
    staged: Staged
    counts: Counts
    rejected: pa.Table
    note: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    merged: Merged | None = None
    schema_version: int = 1
    wants: tuple[SchemaChange, ...] = ()
    """With wishes, nothing is staged yet: the columns are changed first."""
    seconds: float = 0.0
    """How long it took."""

    @property
    def asking_seconds(self) -> float:
        """How long it took, of a batch whose texts a model was asked for; else 0."""
        return self.seconds if self.counts.embedded else 0.0


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
    touches: Touches = field(default_factory=Touches)
    keyed: KeyedState | None = None
    declared: Pipeline | None = None
    state: tuple[Json, ...] = ()
    schemas: Schemas = field(init=False)

    def __post_init__(self) -> None:
        guarded = self.archive.guarded(partial(self.ledger.fenced, self.lease))
        object.__setattr__(self, "archive", guarded)
        versions = Schemas(
            self.ledger, self.declared or self.pipeline, PipelineVersion(self.schema_version, self.pipeline, self.state)
        )
        object.__setattr__(self, "schemas", versions)

    @property
    def group_files(self) -> GroupFiles:
        """The files of the pipeline's groups."""
        return GroupFiles(self.ledger, self.archive, self.pipeline.name, self.pipeline.target)

    @property
    def code_version(self) -> str:
        """Which code makes batches."""
        return code_version_of(self.schemas.current.pipeline)

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
        versioned = self.schemas.at(batch.schema_version)
        state = {"schema_state": canonical(list(versioned.state))} if versioned.state else {}
        return state | {
            "span": span.to_json(),
            "kind": batch.kind,
            "reading": self.pipeline.source_options.reading(),
            "target": batch.target,
            "code_version": batch.code_version,
            "schema_version": str(batch.schema_version),
            "columns": versioned.pipeline.columns,
            "run_id": batch.run_id,
            "planned_ms": str(batch.planned_ms),
            "start": canonical(self.ledger.frozen_start(batch.pipeline, batch.target) or {}),
        }

    def stage(self, batch: BatchRecord, raw: pa.Table, refused: pa.Table | None = None) -> Prepared:
        """SEALED (or STAGED before a crash) -> STAGED, under today's columns; not yet when other columns are wanted.

        `refused` are rejects of rows the target is known to refuse.
        """
        began = time.monotonic()
        with self.schemas.staging() as versioned:
            prepared, upserts, deletes = self.prepare(batch, raw, refused, versioned=versioned)
        if prepared.wants:
            return prepared
        self._keep_rejects(batch, prepared)
        groups = self._write_groups(batch, prepared.merged) if prepared.merged else None
        place = (batch.pipeline, batch.hour, batch.seq)
        keys = sidecar.write(self.archive, *place, upserts, deletes, self.target.key, self._of_rewrite(batch, prepared))
        with self.ledger.store.transaction():
            self.ledger.stage(
                self.lease, batch, prepared.staged, raw, sidecar=keys, rejected=prepared.rejected,
                counts=prepared.counts, code_version=code_version_of(versioned.pipeline), lookups=prepared.versions,
                schema_version=versioned.version,
            )  # fmt: skip
            if groups is not None:
                self.group_files.note(groups)
        failpoint("staged")
        return replace(prepared, seconds=time.monotonic() - began)

    def _write_groups(self, batch: BatchRecord, merged: Merged) -> GroupFile:
        """Keep what the batch did to its groups; it counts once the ledger says so."""
        assert self.keyed is not None, "who merged keeps"
        signature = self.keyed.aggregation.signature
        where = (batch.seq, batch.hour, self.lease.fence)
        found = self.group_files.write(*where, merged.kind, signature, merged.kept, merged.groups)
        self.keyed.wrote(found)
        return found

    def _of_rewrite(self, batch: BatchRecord, prepared: Prepared) -> dict[str, str]:
        """What the sidecar of a rewrite says, for it has no file of records: enough to rebuild a lost ledger's row."""
        if batch.kind is not BatchKind.REWRITE:
            return {}
        counts = canonical(prepared.counts.to_dict())
        return {
            "target": batch.target,
            "rewrites": str(batch.root),
            "counts": counts,
            "code_version": self.code_version,
        }

    def _keep_rejects(self, batch: BatchRecord, prepared: Prepared) -> None:
        """Beside the records, so that a lost ledger's dead letters are found again as they were.

        A rewrite leaves what stands beside its root's records: it was made without the records rejected there.
        """
        if batch.archive and batch.kind is not BatchKind.REWRITE:
            notes = {"counts": canonical(prepared.counts.to_dict()), "code_version": self.code_version}
            self.archive.write_rejects(batch.archive, prepared.rejected, notes)

    def prepare(
        self,
        batch: BatchRecord,
        raw: pa.Table,
        refused: pa.Table | None = None,
        *,
        versioned: PipelineVersion | None = None,
        merge: Merging | None = None,
    ) -> tuple[Prepared, pa.Table, pa.Table | None]:
        """Decode, transform, compact and stage in the sink; the ledger is not touched.

        The columns are the batch's own (a replay), or those of `versioned`, which may be found wanting. `merge` takes
        the batch's part of the groups where they are not those that the batch before left.

        Raises:
            BudgetError: more rejects than the error budget allows.
            DriftError: a record does not fit the columns, and its format is told to stop then.
            StateLostError: the groups of the batch before cannot be read.
        """
        version = batch.schema_version if versioned is None else versioned.version
        batch = replace(batch, schema_version=version)
        chosen = self._unrejected(batch, raw.num_rows)
        records = raw.num_rows if chosen is None else len(chosen)
        splits = self.splits(batch)
        # a decoder may ask a service, such as a schema registry
        decoded = call(
            self.policy, lambda: self._decoded(batch, raw, splits, chosen, version), place=f"{batch.pipeline}: decoding"
        )
        if decoded.wants and versioned is not None:
            nothing = Staged(batch.token(self.lease.fence))
            empty = Prepared(batch, raw, nothing, Counts(), no_rejects(), schema_version=version, wants=decoded.wants)
            return empty, decoded.rows, None
        rows, left_alone = self._without_superseded(batch, decoded, chosen, raw.num_rows)
        allowed = self.pipeline.budget.limit(raw.num_rows) - decoded.rejected.num_rows
        self._check_budget(allowed, decoded.rejected, raw.num_rows)
        refused, merged = no_rejects() if refused is None else refused, None
        if self.pipeline.aggregation is not None:
            self._check_refused(batch, refused)
            merged = self._merged(batch, rows, merge)
            rows = merged.rows if merged else self._no_changes()
            # a group's row has no record that could be set aside
            allowed = 0
        folded, staged, left_out = self._staged(batch, rows, allowed, refused)
        if merged:
            self._check_refused(batch, staged.rejected)
        rejected = pa.concat_tables([decoded.rejected, staged.rejected])
        self._check_budget(allowed - staged.rejected.num_rows, rejected, raw.num_rows)
        counts = Counts(
            records=records,
            bytes=batch.counts.bytes,
            decoded=records - decoded.rejected.num_rows,
            rejected=decoded.rejected.num_rows,
            rows=(merged.rows if merged else decoded.rows).num_rows + decoded.filtered,
            filtered=decoded.filtered,
            compacted=folded.dropped,
            superseded=left_alone,
            refused=left_out,
            nulled=decoded.nulled,
            **decoded.usage,
        )
        note = self._no_longer_made(batch, decoded.rows) if batch.kind is BatchKind.REWRITE else None
        note = "; ".join(filter(None, [note, joined_anew(batch.lookups, decoded.versions)])) or None
        prepared = Prepared(batch, raw, staged, counts, rejected, note, decoded.versions, merged, version)
        return prepared, folded.upserts, folded.deletes

    def _merged(self, batch: BatchRecord, rows: pa.Table, merge: Merging | None) -> Merged | None:
        """What the batch does to the groups; None of a batch that holds no records."""
        aggregation = self.pipeline.aggregation
        if batch.kind not in COUNTED or aggregation is None:
            return None
        partial = aggregation.partial(rows)
        if merge is not None:
            return merge(partial)
        assert self.keyed is not None, "a session that prepares batches keeps their groups"
        before = says_before(self.pipeline, self.sink, self.target)
        return self.keyed.merge(self.group_files, batch, self.lease.fence, partial, before=before)

    def _no_changes(self) -> pa.Table:
        return pa.schema([*self.pipeline.schema, pa.field(POSITION, pa.int64(), nullable=False)]).empty_table()

    def _check_refused(self, batch: BatchRecord, refused: pa.Table) -> None:
        """A group's row that the target refuses stops the pipeline."""
        if refused.num_rows:
            first = refused.slice(0, 1).to_pylist()[0]
            raise FatalError(
                f"{batch.pipeline}: {self.target.name} refuses {refused.num_rows} rows of groups; the first:"
                f" {first['error']}. A group has no record of its own to be set aside, so nothing of batch {batch.seq}"
                " was written; leave such groups out with WHERE or HAVING, or mend the target, then run again"
            )

    def _staged(
        self, batch: BatchRecord, rows: pa.Table, allowed: int, refused: pa.Table
    ) -> tuple[compact.Compacted, Staged, int]:
        """The rows but those that are `refused` folded and staged, and how many are refused in the end.

        A record that is refused hides no change before it: without it, the rows are folded and staged once more.
        """
        is_rewrite, token, came = batch.kind is BatchKind.REWRITE, batch.token(self.lease.fence), rows.num_rows
        rows = without(rows, refused)
        while True:
            folded = self.fold(rows, is_rewrite=is_rewrite)
            handed = Batch(
                folded.upserts, folded.deletes, batch.schema_version, reject_limit=allowed - refused.num_rows,
                rewrites=is_rewrite, root=batch.root,
            )  # fmt: skip
            staged = call(self.policy, lambda: self.sink.stage(handed, token), place=f"{batch.pipeline}: staging")  # noqa: B023
            hides = self.sink.merge is Merge.LAST and (folded.dropped > 0 or folded.deletes is not None)
            refused = pa.concat_tables([refused, staged.rejected])
            if not (staged.rejected.num_rows and hides):
                count = came - rows.num_rows + staged.rejected.num_rows
                return folded, replace(staged, rejected=refused.sort_by(POSITION), hides=hides), count
            rows = without(rows, staged.rejected)

    def splits(self, batch: BatchRecord) -> list[Split]:
        """The splits that the numbers in the raw records' column `split` mean."""
        root = self.root(batch)
        if root.kind is BatchKind.DEAD_LETTERS:
            return splits_of(self.ledger.dead_letters.claimed(root.pipeline, root.target, root.seq))
        return [part.split for part in root.span.ranges]

    def root(self, batch: BatchRecord) -> BatchRecord:
        """The batch whose records these are: itself, or the one it rewrites."""
        return batch if batch.root == batch.seq else self.ledger.batch(batch.pipeline, batch.target, batch.root)

    def decode(
        self, raw: pa.Table, splits: Sequence[Split], chosen: pa.Array | None = None,
        versions: Mapping[str, str] | None = None, schema_version: int | None = None,
    ) -> Decoded:  # fmt: skip
        """Raw records (or those with the `chosen` ordinals) to the sink's rows, and everything rejected on the way.

        `versions` are those of the dimension tables that the batch was joined with before. Rows made under the columns
        of an older `schema_version` have today's columns, as the target has them by now.
        """
        today = self.schemas.current
        then = today if schema_version is None else self.schemas.at(schema_version)
        made = decode(then.pipeline, raw, splits, chosen, versions, self.policy.stop)
        if then is today and not today.state:
            return made
        return replace(made, rows=conformed(made.rows, today.pipeline.schema))

    def _decoded(
        self, batch: BatchRecord, raw: pa.Table, splits: Sequence[Split], chosen: pa.Array | None, version: int
    ) -> Decoded:
        try:
            return self.decode(raw, splits, chosen, batch.lookups, version)
        except DriftError as error:
            named = splits[error.split] if error.split < len(splits) else str(error.split)
            raise FatalError(
                f"{batch.pipeline}: batch {batch.seq}, {named}, offset {error.offset}: {error.what}. Nothing of this"
                f" batch was written; {error.remedy}, then run again"
            ) from error

    def evolve(self, prepared: Prepared) -> None:
        """Change the columns as a prepared batch wants it; the committer's thread only.

        Raises:
            ConfigError: the sink cannot change its target.
        """
        batch = prepared.batch
        target = self.schemas.evolve(
            self.lease, self.sink, batch.seq, prepared.raw, self.splits(batch), prepared.wants,
            lambda ask: call(self.policy, ask, place=f"{batch.pipeline}: changing the columns of {self.target.name}"),
        )  # fmt: skip
        # the key may have another name
        object.__setattr__(self, "target", target)

    def fold(self, rows: pa.Table, *, is_rewrite: bool = False) -> compact.Compacted:
        """What of the rows is handed to the sink.

        Raises:
            PlanError: the sink's merge does not take the rows' kinds, or they have no key.
        """
        result = folded(rows, self.sink.merge, self.target, place=self.pipeline.name)
        if not is_rewrite or self.sink.merge in {Merge.LAST, Merge.APPEND}:
            return result
        first = compact.first_of_keys(result.upserts, self.target.key)
        return compact.Compacted(first, None, rows.num_rows - first.num_rows)

    def _unrejected(self, batch: BatchRecord, records: int) -> pa.Array | None:
        """Of a rewriting batch: the ordinals of the records that nobody rejected; None means all.

        What was rejected belongs to `dead-letters replay`, which knows its edits and its place.
        """
        if batch.kind is not BatchKind.REWRITE:
            return None
        twins = self.ledger.rewrites_of(batch)
        rejected = self.ledger.dead_letters.ordinals(batch.pipeline, batch.target, [batch.root, *twins])
        if not rejected:
            return None
        kept = np.ones(records, np.bool_)
        kept[rejected] = False
        return pa.array(np.flatnonzero(kept))

    def _without_superseded(
        self, batch: BatchRecord, decoded: Decoded, chosen: pa.Array | None, records: int
    ) -> tuple[pa.Table, int]:
        """Of dead letters and rewrites: rows whose key no other record's row owns, and how many were left out."""
        rows = decoded.rows
        if self.pipeline.aggregation is not None or self.sink.merge is Merge.APPEND:
            # records add to their groups in any order; rows without a key stand in nobody's way
            return rows, 0
        is_letters = batch.kind is BatchKind.DEAD_LETTERS and self.sink.merge is Merge.LAST
        if not (is_letters or batch.kind is BatchKind.REWRITE) or rows.num_rows == 0:
            return rows, 0
        places = self.letter_places(batch) if self.sink.merge is Merge.LAST else None
        if places is not None:
            # in the source's order, not in that of their numbers: a letter of the second try may be the older record
            order = np.argsort(places[rows.column(POSITION).to_numpy()], kind="stable")
            rows = rows.take(pa.array(order))
        before = np.zeros(0, np.int64) if chosen is None else np.setdiff1d(np.arange(records), chosen.to_numpy())
        rejected = np.union1d(before, decoded.rejected.column(POSITION).to_numpy())
        kept = kept_rows(rows, superseded(self, self.touches, batch, rows, self.sink.merge, rejected))
        return kept, rows.num_rows - kept.num_rows

    def letter_places(self, batch: BatchRecord) -> Numbers | None:
        """The places of the records of a batch of dead letters (or of one that rewrites it); None for others."""
        root = self.root(batch)
        if root.kind is not BatchKind.DEAD_LETTERS:
            return None
        letters = self.ledger.dead_letters.claimed(root.pipeline, root.target, root.seq)
        if len(letters) != root.counts.records:
            # a rebuild could not tie them: they stand where they were written, and nothing older overwrites them
            return None
        origins = sorted({letter.origin_seq for letter in letters})
        first = self.ledger.dead_letters.first_ordinals(root.pipeline, root.target, origins)
        ordinals = [first.get((x.origin_seq, x.split, x.offset), x.ordinal) for x in letters]
        return place(np.array([x.origin_seq for x in letters], np.int64), np.array(ordinals, np.int64))

    def _no_longer_made(self, batch: BatchRecord, rows: pa.Table) -> str | None:
        """How many keys the batch once wrote that today's code does not make of its records; None for none.

        Their rows stay in the target: who else may own them by now, only a reconcile can tell.
        """
        before = self.ledger.rewrites_of(batch, before=batch.seq)
        newest = self.ledger.batch(batch.pipeline, batch.target, before[-1] if before else batch.root)
        if newest.sidecar is None or self.sink.merge is Merge.APPEND:
            return None
        old = sidecar.read(self.archive, newest.sidecar).filter(pc.field("kind") == int(RowKind.INSERT))
        now = sidecar.key_hashes(rows, self.target.key)
        gone = pc.sum(pc.invert(pc.is_in(old.column("key_hash"), value_set=now))).as_py() or 0
        return (
            f"{gone} keys of batch {newest.seq} are no longer made; their rows were left in the target"
            if gone
            else None
        )

    def _check_budget(self, left: int, rejected: pa.Table, records: int) -> None:
        if left < 0:
            first = rejected.slice(0, 1).to_pylist()[0]
            raise BudgetError(
                f"{self.pipeline.name}: {rejected.num_rows} of {records} records are rejected, the error budget is"
                f" {self.pipeline.settings.error_budget}; the first: {first['stage']}: {first['error']}. Nothing of"
                " this batch was written; mend the declaration or raise vector-assets.error-budget, then run again"
            )


def code_version_of(pipeline: Pipeline) -> str:
    """Which code makes batches: the package's version and the declaration's fingerprint."""
    return f"{__version__}+{pipeline.fingerprint}"
