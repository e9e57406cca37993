"""The ledger: what was planned, sealed, staged and done, and where each pipeline stands.

Every step of a batch is a compare-and-set on its state and on the lease's fence, in one transaction with what goes with
it (dead letters, positions). The position of a (pipeline, target) moves only with DONE.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from vector_assets.engine.archive import ArchiveFile
from vector_assets.engine.core import (
    BatchKind,
    Counts,
    Json,
    Position,
    Receipt,
    Span,
    Split,
    Staged,
    State,
    canonical,
)
from vector_assets.engine.dead_letters import BatchPlace, DeadLetters
from vector_assets.engine.errors import ExpiredError, FatalError, FencedError, GapKind
from vector_assets.engine.lease import Lease, Leases
from vector_assets.engine.ledger_records import (
    BatchRecord,
    Fold,
    Gap,
    GapState,
    Hours,
    batch_record,
    file_text,
    hours_are_folded,
)
from vector_assets.engine.store import open_store

UNFINISHED = (State.PLANNED, State.SEALED, State.STAGED)
_NEVER = (1 << 63) - 1


class Ledger:
    """A ledger in a SQLite file or, by its URL, on a PostgreSQL server; several processes may open it at once."""

    def __init__(self, location: str | Path, *, clock: Callable[[], float] = time.time) -> None:
        self.store = open_store(location)
        self.leases = Leases(self.store)
        self.dead_letters = DeadLetters(self.store)
        self._clock = clock

    def now_ms(self) -> int:
        """Milliseconds since the epoch, by the ledger's clock."""
        return int(self._clock() * 1000)

    def register(self, pipeline: str, target: str, start_option: str) -> str | None:
        """Note a pipeline; the start option it was first activated with, when that is another one, else None."""
        with self.store.transaction():
            self.store.change(
                "INSERT INTO pipelines (pipeline, target, start_option, created_ms) VALUES (?, ?, ?, ?)"
                " ON CONFLICT DO NOTHING",
                (pipeline, target, start_option, self.now_ms()),
            )
        row = self.store.row("SELECT start_option FROM pipelines WHERE pipeline = ? AND target = ?", (pipeline, target))
        return row["start_option"] if row and row["start_option"] != start_option else None

    def is_activated(self, pipeline: str, target: str) -> bool:
        """True once the pipeline's start is frozen."""
        return self.frozen_start(pipeline, target) is not None

    def frozen_start(self, pipeline: str, target: str) -> dict[Split, Json] | None:
        """Where the pipeline started, None before its first activation."""
        row = self.store.row("SELECT start FROM pipelines WHERE pipeline = ? AND target = ?", (pipeline, target))
        return orjson.loads(row["start"]) if row and row["start"] else None

    def freeze_start(self, lease: Lease, start: Position) -> dict[Split, Json]:
        """Fix where the pipeline starts, once; the frozen start, whoever froze it."""
        with self.fenced(lease):
            self.store.change(
                "UPDATE pipelines SET start = ? WHERE pipeline = ? AND target = ? AND start IS NULL",
                (canonical(dict(start)), lease.pipeline, lease.target),
            )
        return self.frozen_start(lease.pipeline, lease.target) or {}

    def position(self, pipeline: str, target: str) -> dict[Split, Json]:
        """Next token per split after the last DONE batch; splits never read stand at the frozen start."""
        rows = self.store.rows(
            "SELECT split, next FROM positions WHERE pipeline = ? AND target = ?", (pipeline, target)
        )
        start = self.frozen_start(pipeline, target) or {}
        return start | {row["split"]: orjson.loads(row["next"]) for row in rows}

    def planned_position(self, pipeline: str, target: str) -> dict[Split, Json]:
        """Next token per split after the last batch of any state."""
        position = self.position(pipeline, target)
        for batch in self.unfinished(pipeline, target):
            position |= batch.span.end
        return position

    def plan(
        self,
        lease: Lease,
        kind: BatchKind,
        span: Span,
        *,
        hour: str,
        run_id: str,
        code_version: str,
        schema_version: int = 1,
        previous: tuple[int, Span] | None = None,
    ) -> BatchRecord:
        """A new batch with the next sequence number: PLANNED, its start frozen.

        `previous` is the batch read just before, with its ends as read: they are fixed in the same transaction, so that
        the two never overlap however a crash leaves them.
        """
        where = (lease.pipeline, lease.target)
        with self.store.transaction():
            self._check(lease)
            if previous:
                self.store.change(
                    "UPDATE batches SET span = ? WHERE pipeline = ? AND target = ? AND seq = ? AND state = 'PLANNED'",
                    (previous[1].to_json(), *where, previous[0]),
                )
            seq = self.newest_seq(*where) + 1
            self.store.change(
                "INSERT INTO batches (pipeline, target, seq, kind, state, span, first_splits, hour, run_id, fence,"
                " code_version, schema_version, planned_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*where, seq, kind, State.PLANNED, span.to_json(), canonical(sorted(self._first_splits(lease, span))),
                 hour, run_id, lease.fence, code_version, schema_version, self.now_ms()),
            )  # fmt: skip
        return self.batch(*where, seq)

    def _first_splits(self, lease: Lease, span: Span) -> set[Split]:
        where = (lease.pipeline, lease.target)
        rows = self.store.rows("SELECT split FROM positions WHERE pipeline = ? AND target = ?", where)
        known = {row["split"] for row in rows}
        for batch in self.unfinished(*where):
            known |= batch.span.end.keys()
        return set(span.end) - known

    def seal(
        self, lease: Lease, seq: int, span: Span, archive: ArchiveFile | None, *, records: Counts, newest_ms: int | None
    ) -> None:
        """PLANNED -> SEALED: the ends are fixed, the archive holds the records."""
        self._move(
            lease, seq, (State.PLANNED,), State.SEALED,
            {"span": span.to_json(), "archive": file_text(archive), "counts": canonical(records.to_dict()),
             "newest_ms": newest_ms},
        )  # fmt: skip

    def stage(
        self, lease: Lease, batch: BatchRecord, staged: Staged, raw: pa.Table, *, sidecar: ArchiveFile | None,
        rejected: pa.Table, counts: Counts, code_version: str, lookups: Mapping[str, str] | None = None,
        schema_version: int | None = None,
    ) -> None:  # fmt: skip
        """SEALED -> STAGED (or staged again): committable, sidecar and hidden dead letters are kept.

        `schema_version` is that of the rows, where the columns have changed since the batch was planned.
        """
        place = replace(batch.place, code_version=code_version)
        with self.store.transaction():
            self._move(
                lease, batch.seq, (State.SEALED, State.STAGED), State.STAGED,
                {"committable": canonical(staged.committable), "sidecar": file_text(sidecar),
                 "counts": canonical(counts.to_dict()), "code_version": code_version,
                 "lookups": canonical(dict(lookups)) if lookups else None,
                 "schema_version": schema_version or batch.schema_version},
            )  # fmt: skip
            self.dead_letters.drop_hidden(place)
            self.dead_letters.add(place, raw, self.read_span(batch), rejected, state="hidden", now_ms=self.now_ms())

    def finish(
        self, lease: Lease, batch: BatchRecord, receipt: Receipt, raw: pa.Table | None, *, counts: Counts,
        seconds: float | None, note: str | None = None,
    ) -> None:  # fmt: skip
        """STAGED -> DONE: dead letters become visible, the position moves."""
        with self.store.transaction():
            self._move(
                lease, batch.seq, (State.STAGED,), State.DONE,
                {"counts": canonical(counts.to_dict()), "commit_id": receipt.commit_id, "done_ms": self.now_ms(),
                 "commit_seconds": seconds, "note": note},
            )  # fmt: skip
            if raw is not None:
                self.dead_letters.add(
                    batch.place, raw, self.read_span(batch), receipt.rejected, state="hidden", now_ms=self.now_ms()
                )
            self.dead_letters.reveal(batch.place)
            self.store.change_many(
                "INSERT INTO positions (pipeline, target, split, next) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (pipeline, target, split) DO UPDATE SET next = excluded.next",
                [(batch.pipeline, batch.target, split, canonical(end)) for split, end in batch.span.end.items()],
            )

    def discard(self, lease: Lease, seq: int, note: str) -> None:
        """An unfinished batch will never be applied; its records are read again."""
        with self.store.transaction():
            self._move(lease, seq, UNFINISHED, State.DISCARDED, {"note": note})
            self.dead_letters.drop_hidden(BatchPlace(lease.pipeline, lease.target, seq, ""))
            self.dead_letters.unclaim(lease.pipeline, lease.target, seq)
            self.store.change(
                "DELETE FROM group_files WHERE pipeline = ? AND target = ? AND seq = ?",
                (lease.pipeline, lease.target, seq),
            )

    def restore(self, record: BatchRecord) -> None:
        """Write a batch's row as it is, over what is there; inside a transaction of the lease's holder."""
        values = {
            name: getattr(record, name)
            for name in (
                "pipeline", "target", "seq", "kind", "state", "hour", "run_id", "fence", "code_version",
                "schema_version", "commit_id", "newest_ms", "planned_ms", "done_ms", "commit_seconds", "note",
                "expired_ms",
            )
        }  # fmt: skip
        values |= {
            "span": record.span.to_json(),
            "first_splits": canonical(sorted(record.first_splits)),
            "archive": file_text(record.archive),
            "sidecar": file_text(record.sidecar),
            "committable": canonical(record.committable) if record.committable is not None else None,
            "lookups": canonical(record.lookups) if record.lookups else None,
            "counts": canonical(record.counts.to_dict()),
        }
        self.store.change(
            "DELETE FROM batches WHERE pipeline = ? AND target = ? AND seq = ?",
            (record.pipeline, record.target, record.seq),
        )
        self.store.change(
            f"INSERT INTO batches ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})", tuple(values.values())
        )

    def _move(self, lease: Lease, seq: int, sources: tuple[State, ...], to: State, values: Mapping[str, Any]) -> None:
        columns = {"state": to, "fence": lease.fence, **values}
        with self.store.transaction():
            self._check(lease)
            changed = self.store.change(
                f"UPDATE batches SET {', '.join(f'{name} = ?' for name in columns)}"
                f" WHERE pipeline = ? AND target = ? AND seq = ? AND state IN ({', '.join('?' * len(sources))})",
                (*columns.values(), lease.pipeline, lease.target, seq, *sources),
            )
            if not changed:
                found = self.batch(lease.pipeline, lease.target, seq).state
                wanted = " or ".join(sources)
                raise FencedError(f"{lease.pipeline}: batch {seq} is {found}, wanted {wanted}, on its way to {to}")

    @contextmanager
    def fenced(self, lease: Lease) -> Iterator[None]:
        """A transaction of the lease's holder.

        Raises:
            FencedError: the lease is gone.
        """
        with self.store.transaction():
            self._check(lease)
            yield

    def _check(self, lease: Lease) -> None:
        """First of every transaction of a worker: its lease holds, and nobody takes it before the transaction ends."""
        if not self.leases.is_kept(lease):
            holder = self.leases.holder(lease.pipeline, lease.target)
            raise FencedError(
                f"{lease.pipeline}: this worker's lease (fence {lease.fence}) is gone; now held by {holder or 'nobody'}"
            )

    def rewrites_of(self, batch: BatchRecord, *, before: int | None = None) -> list[int]:
        """Numbers of the done batches that rewrote this batch (or the one that it rewrites itself), in order."""
        rows = self.store.rows(
            "SELECT seq FROM batches WHERE pipeline = ? AND hour = ? AND target = ? AND kind = 'rewrite'"
            " AND state = 'DONE' AND archive = ? ORDER BY seq",
            (batch.pipeline, batch.hour, batch.target, file_text(batch.archive)),
        )
        return [int(row["seq"]) for row in rows if before is None or row["seq"] < before]

    def read_span(self, batch: BatchRecord) -> Span:
        """The span in which the batch's records were read: of a rewriting batch that of its root."""
        return batch.span if batch.root == batch.seq else self.batch(batch.pipeline, batch.target, batch.root).span

    def batch(self, pipeline: str, target: str, seq: int) -> BatchRecord:
        """One batch.

        Raises:
            FatalError: there is none of that number.
        """
        row = self.store.row(
            "SELECT * FROM batches WHERE pipeline = ? AND target = ? AND seq = ?", (pipeline, target, seq)
        )
        if row is None:
            if seq > 0:
                self.check_kept(pipeline, target, first=max(seq, 2))
            raise FatalError(f"{pipeline}: the ledger has no batch {seq}")
        return batch_record(row)

    def unfinished(self, pipeline: str, target: str) -> list[BatchRecord]:
        """Batches that are planned but neither done nor discarded, in order."""
        rows = self.store.rows(
            "SELECT * FROM batches WHERE pipeline = ? AND target = ? AND state IN ('PLANNED', 'SEALED', 'STAGED')"
            " ORDER BY seq",
            (pipeline, target),
        )
        return [batch_record(row) for row in rows]

    def batches(
        self, pipeline: str, target: str | None = None, *, hour: str | None = None, after: int = 0,
        limit: int | None = None, newest_first: bool = False,
    ) -> list[BatchRecord]:  # fmt: skip
        """Batches of a pipeline by sequence number."""
        where, values = ["pipeline = ?", "seq > ?"], [pipeline, after]  # type: list[str], list[Any]
        for column, value in (("target", target), ("hour", hour)):
            if value is not None:
                where.append(f"{column} = ?")
                values.append(value)
        order = "DESC" if newest_first else "ASC"
        tail = f" LIMIT {int(limit)}" if limit else ""
        rows = self.store.rows(f"SELECT * FROM batches WHERE {' AND '.join(where)} ORDER BY seq {order}{tail}", values)
        return [batch_record(row) for row in rows]

    def states(self, pipeline: str, target: str) -> dict[str, int]:
        """How many batches are in each state, those that retention folded included."""
        rows = self.store.rows(
            "SELECT state, count(*) AS batches FROM batches WHERE pipeline = ? AND target = ? GROUP BY state",
            (pipeline, target),
        )
        found = {row["state"]: int(row["batches"]) for row in rows}
        fold = self.fold(pipeline, target)
        for state, count in ((State.DONE, fold.batches), (State.DISCARDED, fold.discarded)) if fold else ():
            if count:
                found[str(state)] = found.get(state, 0) + count
        return found

    def check_kept(
        self, pipeline: str, target: str, *, hours: Hours = (None, None), first: int = 1, last: int | None = None,
        is_folded: Callable[[Fold, Hours], bool] = hours_are_folded,
    ) -> None:  # fmt: skip
        """Make sure that the batches of partitions (from, to), or those from `first` to `last`, are rows still.

        Raises:
            ExpiredError: retention has folded some of them.
        """
        fold = self.fold(pipeline, target)
        if fold and (is_folded(fold, hours) or ((first, last) != (1, None) and first <= fold.seq)):
            raise ExpiredError(
                f"{pipeline}: batches up to {fold.seq} (partitions up to {fold.hour}) are expired: retention folded"
                " them into one position, and their records are not in the archive any more"
            )

    def oldest_groups(self, pipeline: str, target: str) -> int | None:
        """The batch that left the oldest file of all groups that is kept; None without one."""
        row = self.store.row(
            "SELECT min(seq) AS seq FROM group_files WHERE pipeline = ? AND target = ? AND kind = 'base'",
            (pipeline, target),
        )
        return int(row["seq"]) if row and row["seq"] is not None else None

    def known(self) -> list[str]:
        """Names of the pipelines that ever ran."""
        rows = self.store.rows("SELECT DISTINCT pipeline FROM pipelines ORDER BY pipeline")
        return [row["pipeline"] for row in rows]

    def totals(self, pipeline: str, target: str) -> tuple[int, Counts]:
        """How many batches are done, and the sum of their counts, those that retention folded included."""
        fold = self.fold(pipeline, target)
        done, counts = self.sums(pipeline, target)
        return (done + fold.batches, counts + fold.counts) if fold else (done, counts)

    def sums(self, pipeline: str, target: str, *, up_to: int = _NEVER) -> tuple[int, Counts]:
        """How many batches up to a sequence number are rows and done, and the sum of their counts."""
        where = "pipeline = ? AND target = ? AND state = 'DONE' AND seq <= ?"
        rows = self.store.rows(
            "SELECT key, sum(CAST(value AS BIGINT)) AS total FROM batches, json_each(counts)"
            f" WHERE {where} GROUP BY key",
            (pipeline, target, up_to),
        )
        done = self.store.row(f"SELECT count(*) AS batches FROM batches WHERE {where}", (pipeline, target, up_to))
        counts = Counts.from_dict({row["key"]: int(row["total"]) for row in rows})
        return (int(done["batches"]) if done else 0), counts

    def newest_seq(self, pipeline: str, target: str) -> int:
        """The highest sequence number that was given away, 0 for none."""
        row = self.store.row(
            "SELECT max(seq) AS newest FROM batches WHERE pipeline = ? AND target = ?", (pipeline, target)
        )
        fold = self.fold(pipeline, target)
        return max(int(row["newest"] or 0) if row else 0, fold.seq if fold else 0)

    def places(self) -> list[tuple[str, str]]:
        """Pipeline and target of everything that ever ran."""
        rows = self.store.rows("SELECT pipeline, target FROM pipelines ORDER BY pipeline, target")
        return [(row["pipeline"], row["target"]) for row in rows]

    def fold(self, pipeline: str, target: str) -> Fold | None:
        """What retention made of the oldest batches; None while every batch is a row of its own."""
        row = self.store.row("SELECT * FROM folds WHERE pipeline = ? AND target = ?", (pipeline, target))
        if row is None:
            return None
        counts = Counts.from_dict(orjson.loads(row["counts"]))
        return Fold(row["seq"], row["hour"], row["batches"], row["discarded"], counts, orjson.loads(row["ends"]))

    def schema_version(self, lease: Lease, columns: str, state: Sequence[Json] = ()) -> int:
        """The version number of the rows' schema; a schema not seen before gets the next one, with this state."""
        where = (lease.pipeline, lease.target)
        with self.store.transaction():
            self._check(lease)
            row = self.store.row(
                "SELECT version, columns FROM schema_versions WHERE pipeline = ? AND target = ?"
                " ORDER BY version DESC LIMIT 1",
                where,
            )
            if row and row["columns"] == columns:
                return int(row["version"])
            version = (row["version"] if row else 0) + 1
            self.store.change(
                "INSERT INTO schema_versions (pipeline, target, version, columns, seq, created_ms, state)"
                " SELECT ?, ?, ?, ?, coalesce(max(seq), 0) + 1, ?, ? FROM batches WHERE pipeline = ? AND target = ?",
                (*where, version, columns, self.now_ms(), canonical(list(state)) if state else None, *where),
            )
        return version

    def incarnation(self, pipeline: str, target: str) -> str | None:
        """The target's incarnation that the last batches were written to."""
        row = self.store.row("SELECT incarnation FROM pipelines WHERE pipeline = ? AND target = ?", (pipeline, target))
        return row["incarnation"] if row else None

    def set_incarnation(self, lease: Lease, incarnation: str) -> None:
        """Note which object the pipeline writes to."""
        with self.store.transaction():
            self._check(lease)
            self.store.change(
                "UPDATE pipelines SET incarnation = ? WHERE pipeline = ? AND target = ?",
                (incarnation, lease.pipeline, lease.target),
            )

    def record_gap(
        self, pipeline: str, kind: GapKind, ranges: Mapping[Split, tuple[int, int | None]], *, policy: str = "fail",
        state: GapState = "open", seq: int | None = None,
    ) -> None:  # fmt: skip
        """Keep ranges that the source lost, and what is done about them; a gap is kept once, as it stands now."""
        with self.store.transaction():
            self.store.change_many(
                'INSERT INTO gaps (pipeline, split, kind, "from", "to", found_ms, policy, state, seq)'
                ' VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (pipeline, split, kind, "from") DO UPDATE SET'
                ' "to" = excluded."to", policy = excluded.policy, state = excluded.state, seq = excluded.seq',
                [(pipeline, s, kind, a, b, self.now_ms(), policy, state, seq) for s, (a, b) in ranges.items()],
            )

    def close_gaps(self, pipeline: str, seq: int) -> None:
        """An operator moved the position by batch `seq`: what was open is settled, or will be found again."""
        self.store.change(
            "UPDATE gaps SET state = 'reset', seq = ? WHERE pipeline = ? AND state = 'open'", (seq, pipeline)
        )

    def gaps(self, pipeline: str) -> list[Gap]:
        """Ranges the source lost, oldest first."""
        rows = self.store.rows('SELECT * FROM gaps WHERE pipeline = ? ORDER BY found_ms, split, "from"', (pipeline,))
        names = ("pipeline", "split", "kind", "from", "to", "found_ms", "policy", "state", "seq")
        return [Gap(*(row[name] for name in names)) for row in rows]

    def record_event(self, pipeline: str, what: str, detail: str) -> None:
        """Keep what an operator did."""
        self.store.change(
            "INSERT INTO events (pipeline, at_ms, what, detail) VALUES (?, ?, ?, ?)",
            (pipeline, self.now_ms(), what, detail),
        )

    def events(self, pipeline: str) -> list[tuple[int, str, str]]:
        """What operators did: time in ms, what, detail; oldest first."""
        rows = self.store.rows("SELECT at_ms, what, detail FROM events WHERE pipeline = ? ORDER BY id", (pipeline,))
        return [(row["at_ms"], row["what"], row["detail"]) for row in rows]

    def close(self) -> None:
        """Close the database."""
        self.store.close()
