"""A rebuild carried out: rows of the ledger for what target and archive know.

First where the pipeline stands, then batches by ascending number, each with its dead letters in one transaction. A
rebuild that was killed leaves a ledger that runs still refuse, because the target knows more; the next one goes on.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine import sidecar
from vector_assets.engine.archive import ArchiveFile
from vector_assets.engine.core import (
    POSITION,
    BatchKind,
    BatchToken,
    Counts,
    Receipt,
    Span,
    State,
    canonical,
    no_rejects,
)
from vector_assets.engine.counting import gone, is_balanced, settled
from vector_assets.engine.creation import note_created
from vector_assets.engine.dead_letters import BatchPlace, DeadLetter
from vector_assets.engine.errors import FatalError
from vector_assets.engine.evidence import ArchivedBatch
from vector_assets.engine.hours import Calendar
from vector_assets.engine.lease import Lease
from vector_assets.engine.ledger_records import BatchRecord
from vector_assets.engine.past_groups import PastGroups, rebuild_state
from vector_assets.engine.rebuild import DoneBatch, RebuildPlan, plan_rebuild
from vector_assets.engine.retry import call
from vector_assets.engine.session import Session
from vector_assets.engine.stages import Stages

NOTE = "rebuilt from target and archive"
_NO_SPAN = f"{NOTE}, by its number only"
_UNTIED = f"{NOTE}; its records could not be tied to dead letters"
_UNBALANCED = f"{NOTE}; today's code counts its records otherwise than the target did"


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild wrote: batches that are done, batches to be finished, dead letters, and notes for people."""

    plan: RebuildPlan
    letters: int
    notes: tuple[str, ...]


def rebuild(session: Session) -> Rebuilt:
    """Bring the ledger to what target and archive know, under the pipeline's lease.

    Raises:
        LeaseHeldError: a worker holds the pipeline.
        FatalError: as `plan_rebuild`; or an archive file cannot be read.
        PlanError: the target does not fit the declaration.
    """
    pipeline, ledger = session.pipeline, session.ledger
    ledger.register(pipeline.name, pipeline.target, pipeline.source_options.start_option())
    with session.lease() as lease:
        plan = plan_rebuild(session)
        before = ledger.dead_letters.count(pipeline.name)
        writer = _Writer(session, lease, plan)
        if not plan.is_empty:
            writer.write()
            writer.rebuild_groups()
            letters = ledger.dead_letters.count(pipeline.name) - before
            detail = {"done": len(plan.done), "sealed": len(plan.sealed), "dead_letters": letters}
            ledger.record_event(pipeline.name, "ledger-rebuild", canonical(detail))
            note_created(ledger, pipeline)
        return Rebuilt(plan, ledger.dead_letters.count(pipeline.name) - before, tuple(writer.notes))


def put(session: Session, lease: Lease, plan: RebuildPlan) -> None:
    """Write what a plan says, whoever made it."""
    _Writer(session, lease, plan).write()


@dataclass(frozen=True, slots=True)
class _Work:
    """A batch's records, what was rejected of them before the commit, the counts before it, and by which code."""

    raw: pa.Table
    rejected: pa.Table
    counts: Counts
    code_version: str
    sidecar: ArchiveFile | None


def _as_kept(notes: Mapping[str, str]) -> tuple[Counts, str]:
    return Counts.from_dict(orjson.loads(notes["counts"])), notes["code_version"]


class _Writer:
    """Writes a plan's rows."""

    def __init__(self, session: Session, lease: Lease, plan: RebuildPlan) -> None:
        self.session, self.lease, self.plan = session, lease, plan
        self.ledger, self.store = session.ledger, session.ledger.store
        self.where = (lease.pipeline, lease.target)
        self.notes: list[str] = []
        self.first_splits: dict[int, frozenset[str]] = {}
        # rejects that were within the budget once are not weighed again
        lenient = replace(
            session.pipeline, settings=session.pipeline.settings.model_copy(update={"error_budget": "100%"})
        )
        self.stages = Stages(
            lenient, self.ledger, session.books.archive, session.sink, session.target(), lease, session.sink_policy
        )
        self.past = PastGroups(self.stages)

    def write(self) -> None:
        """Everything, in an order that may be interrupted."""
        self._write_position()
        self.first_splits = self._first_splits()
        for abandoned in self.plan.abandoned:
            self._write_row(self._record(abandoned, State.DISCARDED, note=NOTE))
        hour = ""
        for done in self.plan.done:
            hour = self._write_done(done, hour)
        for archived in self.plan.sealed:
            self._write_row(self._sealed(archived))

    def rebuild_groups(self) -> None:
        """The groups of a GROUP BY, as the batches that are done now left them."""
        self.past.close()
        if self.session.pipeline.aggregation is None:
            return
        try:
            rebuild_state(self.stages)
        except FatalError as error:
            self.notes.append(str(error))

    def _write_position(self) -> None:
        """Where the pipeline started and stands, what it writes to, and a fence above the target's."""
        plan, now_ms = self.plan, self.ledger.now_ms()
        with self.ledger.fenced(self.lease):
            self.store.change(
                "UPDATE pipelines SET start = coalesce(start, ?), incarnation = coalesce(incarnation, ?)"
                " WHERE pipeline = ? AND target = ?",
                (canonical(dict(plan.start)), plan.recalled.incarnation, *self.where),
            )
            self.store.change("DELETE FROM positions WHERE pipeline = ? AND target = ?", self.where)
            self.store.change_many(
                "INSERT INTO positions (pipeline, target, split, next) VALUES (?, ?, ?, ?)",
                [(*self.where, split, canonical(end)) for split, end in plan.position.items()],
            )
            self.ledger.leases.raise_fence(*self.where, plan.recalled.fence)
            for seq in plan.given_up:
                self.ledger.discard(self.lease, seq, "the target went on without it")
            for seq in plan.expired:
                self._expire(seq, now_ms)
            if plan.folded:
                self._write_fold(now_ms)
            self._write_schema_versions(now_ms)

    def _expire(self, seq: int, now_ms: int) -> None:
        self.store.change(
            "UPDATE batches SET expired_ms = ?, archive = NULL, sidecar = NULL, note = 'its archive file was missing'"
            " WHERE pipeline = ? AND target = ? AND seq = ?",
            (now_ms, *self.where, seq),
        )

    def _write_fold(self, now_ms: int) -> None:
        first = next((d.span for d in self.plan.done if d.span is not None), Span())
        values = (
            *self.where,
            self.plan.folded,
            "",
            0,
            0,
            canonical(Counts().to_dict()),
            canonical(first.start),
            now_ms,
        )
        self.store.change(f"INSERT INTO folds VALUES ({', '.join('?' * len(values))}) ON CONFLICT DO NOTHING", values)

    def _write_schema_versions(self, now_ms: int) -> None:
        found = [d.archived for d in self.plan.done if d.archived] + list(self.plan.sealed)
        for archived in found:
            if "columns" in archived.notes:
                self.store.change(
                    "INSERT INTO schema_versions (pipeline, target, version, columns, seq, created_ms, state)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    (
                        *self.where,
                        int(archived.notes["schema_version"]),
                        archived.notes["columns"],
                        archived.seq,
                        now_ms,
                        archived.notes.get("schema_state"),
                    ),
                )

    def _write_done(self, done: DoneBatch, hour_before: str) -> str:
        """The row of a batch that the target holds, and its dead letters; its partition."""
        known, archived = done.known, done.archived
        record = self._record(archived, State.DONE, note=NOTE) if archived else self._bare(done, hour_before)
        receipt = (
            self._receipt(record) if done.span is not None else Receipt(known.token_id, known.commit_id, known.counts)
        )
        record = replace(record, commit_id=known.commit_id, done_ms=known.committed_ms or self.ledger.now_ms())
        rewritten = archived if archived is not None and archived.kind is BatchKind.REWRITE else None
        work = None if archived is None or rewritten else self._work(record, archived)
        with self.ledger.fenced(self.lease):
            self.ledger.dead_letters.drop_hidden(record.place)
            if rewritten is not None:
                counts, code_version = _as_kept(rewritten.notes)
                counts = settled(receipt.counts, counts, receipt.rejected.num_rows)
                record = replace(record, counts=counts, code_version=code_version)
            elif work is None:
                # what its records were is not known; what became of its rows is
                record = replace(record, counts=replace(known.counts, rows=gone(known.counts)))
            elif record.kind is BatchKind.DEAD_LETTERS and not self._tie(record, work):
                self.notes.append(f"batch {record.seq}: {_UNTIED}")
                record = replace(record, counts=settled(receipt.counts, work.counts, 0), note=_UNTIED)
            else:
                record = self._explained(record, receipt, work)
            self._write_row(record)
        return record.hour

    def _work(self, record: BatchRecord, archived: ArchivedBatch) -> "_Work":
        """What was made of the batch's records: as the archive says, else by decoding them again."""
        archive = self.stages.archive
        raw = archive.read(archived.file)
        kept = archive.rejects_of(archived.file)
        if kept and record.sidecar:
            return _Work(raw, kept[0], *_as_kept(kept[1]), record.sidecar)
        if record.kind is BatchKind.DEAD_LETTERS:
            counts = Counts(records=raw.num_rows, bytes=raw.nbytes, decoded=raw.num_rows, rows=raw.num_rows)
            return _Work(raw, no_rejects(), counts, self.stages.code_version, record.sidecar)
        prepared, upserts, deletes = self.stages.prepare(
            replace(record, counts=Counts(bytes=raw.nbytes)), raw, merge=lambda part: self.past.merge(record, part)
        )
        keys = record.sidecar or sidecar.write(
            archive, record.pipeline, record.hour, record.seq, upserts, deletes, self.stages.target.key
        )
        if kept:
            return _Work(raw, kept[0], *_as_kept(kept[1]), keys)
        if "columns" in archived.notes:
            # written by code that keeps rejects: there were none then, whatever today's code would say
            counts = replace(prepared.counts, decoded=raw.num_rows, rejected=0, refused=0)
            return _Work(raw, no_rejects(), counts, record.code_version, keys)
        return _Work(raw, prepared.rejected, prepared.counts, self.stages.code_version, keys)

    def _explained(self, record: BatchRecord, receipt: Receipt, work: "_Work") -> BatchRecord:
        """The row with what the archive's and the target's counts give; its rejects are dead letters again."""
        letters = self.ledger.dead_letters
        place = BatchPlace(*self.where, record.seq, f"{work.code_version} rebuilt")
        for rejected in (work.rejected, receipt.rejected):
            letters.add(place, work.raw, record.span, rejected, state="hidden", now_ms=self.ledger.now_ms())
        letters.reveal(place)
        counts = settled(receipt.counts, work.counts, receipt.rejected.num_rows)
        note = NOTE if is_balanced(counts) else _UNBALANCED
        if note != NOTE:
            self.notes.append(f"batch {record.seq}: {note}")
        return replace(record, counts=counts, sidecar=work.sidecar, code_version=work.code_version, note=note)

    def _receipt(self, record: BatchRecord) -> Receipt:
        token = BatchToken(*self.where, record.seq, record.span, max(self.lease.fence, self.plan.recalled.fence))
        sink = self.session.sink
        return call(self.stages.policy, lambda: sink.receipt(token), place=f"{record.pipeline}: batch {record.seq}")

    def _tie(self, record: BatchRecord, work: _Work) -> bool:
        """Find the open dead letters that a replay wrote again, by their bytes; True when all were found, in order.

        Else those that were found count as replayed, for the target has them, but for what was rejected again: that
        stays open. One of another value was edited.
        """
        raw = work.raw
        if len(self.ledger.dead_letters.claimed(*self.where, record.seq)) == raw.num_rows:
            return True
        letters: dict[tuple[object, ...], list[int]] = defaultdict(list)
        known = self.ledger.dead_letters.open_with_bytes(*self.where)
        places = {letter.id: (letter.seq, letter.ordinal) for letter in known}
        for letter in sorted(known, key=lambda letter: places[letter.id]):
            letters[_identity(letter)].append(letter.id)
        columns = [
            raw.column("offset"),
            raw.column("timestamp").cast(pa.int64()),
            raw.column("key"),
            raw.column("value"),
        ]
        wanted = list(zip(*(column.to_pylist() for column in columns), strict=True))
        exact = [letters[each].pop(0) if letters[each] else None for each in wanted]
        edited: dict[tuple[object, ...], list[int]] = defaultdict(list)
        for identity, ids in letters.items():
            edited[identity[:3]] += ids
        found, again = [], set(work.rejected.column(POSITION).to_pylist())
        accepted = []
        for place, (each, letter_id) in enumerate(zip(wanted, exact, strict=True)):
            if letter_id is None and len(edited[each[:3]]) == 1 and isinstance(each[3], bytes):
                letter_id = edited[each[:3]].pop()
                self.ledger.dead_letters.edit(letter_id, each[3], now_ms=self.ledger.now_ms())
            if letter_id is not None:
                found.append(letter_id)
                accepted += [] if place in again else [letter_id]
        is_whole = len(found) == len(wanted) and found == sorted(found, key=places.__getitem__)
        self.ledger.dead_letters.claim(*self.where, record.seq, found if is_whole else accepted)
        if not is_whole:
            self.ledger.dead_letters.reveal(record.place)
        return is_whole

    def _sealed(self, archived: ArchivedBatch) -> BatchRecord:
        record = self._record(archived, State.SEALED, note=NOTE)
        raw = self.stages.archive.read(archived.file)
        return replace(record, counts=Counts(records=raw.num_rows, bytes=raw.nbytes), sidecar=None)

    def _first_splits(self) -> dict[int, frozenset[str]]:
        """Per batch the splits that no batch before it had."""
        fold = self.ledger.fold(*self.where)
        seen = set(fold.ends if fold else ())
        spans = {row.seq: row.span for row in self.ledger.batches(*self.where) if row.state is not State.DISCARDED}
        spans |= {done.known.seq: done.span for done in self.plan.done if done.span is not None}
        spans |= {archived.seq: archived.span for archived in self.plan.sealed}
        first: dict[int, frozenset[str]] = {}
        for seq, span in sorted(spans.items()):
            first[seq] = frozenset(span.end.keys() - seen)
            seen |= span.end.keys()
        return first

    def _record(self, archived: ArchivedBatch, state: State, *, note: str) -> BatchRecord:
        """A batch's row as its file tells it."""
        notes = archived.notes
        return self._row(
            archived.seq,
            archived.kind,
            archived.span,
            state=state,
            hour=archived.hour,
            run_id=notes.get("run_id", ""),
            code_version=notes.get("code_version", "unknown"),
            schema_version=int(notes.get("schema_version", "1")),
            archive=archived.file,
            sidecar=archived.sidecar,
            newest_ms=self._newest_ms(archived.file),
            planned_ms=int(notes.get("planned_ms", self.ledger.now_ms())),
            note=note,
        )

    def _bare(self, done: DoneBatch, hour_before: str) -> BatchRecord:
        """A batch's row without its file: a moved position, or records that are gone."""
        known, now_ms = done.known, self.ledger.now_ms()
        at_ms = known.committed_ms or now_ms
        at = replace(self.session.partitioning, calendar=Calendar(self.session.calendar.length, lambda: at_ms / 1000))
        hour = at.of(done.kind, done.span or Span(), None, hour_before or None)
        expired_ms = now_ms if done.is_unreadable or done.span is None else None
        note = NOTE if done.span is not None else _NO_SPAN
        if expired_ms is not None:
            self.notes.append(
                f"batch {known.seq}: its archive file is missing: it can be neither replayed nor explained"
            )
        return self._row(
            known.seq,
            done.kind,
            done.span or Span(),
            state=State.DONE,
            hour=hour if known.committed_ms or at.own else hour_before or hour,
            counts=known.counts,
            planned_ms=at_ms,
            note=note,
            expired_ms=expired_ms,
        )

    def _row(self, seq: int, kind: BatchKind, span: Span, **known: Any) -> BatchRecord:
        """A row of this ledger; what is not known is left empty."""
        unknown: dict[str, Any] = {
            "run_id": "", "code_version": "unknown", "schema_version": 1, "archive": None, "sidecar": None,
            "committable": None, "counts": Counts(), "commit_id": None, "newest_ms": None, "done_ms": None,
            "commit_seconds": None,
        }  # fmt: skip
        pipeline, target = self.where
        return BatchRecord(
            pipeline=pipeline, target=target, seq=seq, kind=kind, span=span, fence=self.lease.fence,
            first_splits=self.first_splits.get(seq, frozenset()), **(unknown | known),
        )  # fmt: skip

    def _newest_ms(self, file: ArchiveFile) -> int | None:
        times = self.stages.archive.open(file).read(columns=["timestamp"], use_threads=False).column("timestamp")
        newest: int | None = pc.max(times).cast(pa.int64()).as_py()
        return newest

    def _write_row(self, record: BatchRecord) -> None:
        """Insert the row, or overwrite what an old copy of the ledger says of the batch."""
        with self.ledger.fenced(self.lease):
            self.ledger.restore(record)


def _identity(letter: DeadLetter) -> tuple[object, ...]:
    return letter.offset, letter.timestamp_ms, letter.key, letter.value
