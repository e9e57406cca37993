"""MaxCompute: rows of a batch wait in sessions, one per partition, until the commit closes them.

Batch and upsert tunnel are effectively once: the ledger keeps the sessions before the commit, and what is closed is
never committed again. The streaming tunnel is at least once: rows are visible when they are sent.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, ClassVar

import pyarrow as pa

from vector_assets.clients.maxcompute import MaxCompute, MaxTable
from vector_assets.clients.maxcompute_errors import NoPartitionError, NoTableError, SessionEndedError
from vector_assets.clients.maxcompute_records import encode
from vector_assets.clients.maxcompute_write import (
    Status,
    WriteSession,
    abort,
    add_partition,
    open_session,
    place_of,
    post_commit,
    put_stream,
    status_of,
    waited,
)
from vector_assets.engine.core import (
    Batch,
    BatchToken,
    Counts,
    Found,
    Json,
    Merge,
    Receipt,
    Staged,
    Target,
)
from vector_assets.engine.errors import (
    ExpiredError,
    FatalError,
    PlanError,
    TargetReplacedError,
    TransientError,
)
from vector_assets.engine.retry import call
from vector_assets.engine.schema import ColumnChange, Table
from vector_assets.sinks.maxcompute_files import FileCache
from vector_assets.sinks.maxcompute_options import MaxComputeSinkOptions
from vector_assets.sinks.maxcompute_parts import (
    Load,
    Part,
    Payload,
    doubt_of,
    incarnation_of,
    loads_of,
    parts_of,
    slices,
    state_now,
    state_of,
    upload,
    upsert,
)
from vector_assets.sinks.maxcompute_plan import Plan, make_plan
from vector_assets.sinks.staging import budget_left, has_changes, payload_of, prepared, rejects_of

log = logging.getLogger(__name__)

_REMEMBERED = 64
STREAM_NOTE = "streaming tunnel: at least once, a request whose answer is lost is sent again and its rows are doubled"


class MaxComputeSink:
    """Writes a table, or partitions of it, by one of the tunnel's three kinds of sessions."""

    Options = MaxComputeSinkOptions

    FORGETFUL: ClassVar[bool] = True

    def __init__(self, options: MaxComputeSinkOptions, table: Table | None = None, pipeline: str = "") -> None:
        self.options = options
        self.table = table
        self.pipeline = pipeline
        self.merge: Merge = Merge.LAST if options.is_upsert else Merge.APPEND
        self.wire = options.wire
        self.retry = options.retry
        self.service = MaxCompute.of(options)
        self._plan: Plan | None = None
        self._incarnation = ""
        self._lock = threading.Lock()
        self._there: set[str] = set()
        self._receipts: dict[str, Receipt] = {}
        self._known: dict[str, list[tuple[Part, Status]]] = {}
        self._doubts: dict[str, str] = {}

    def prepare(self, schema: pa.Schema, declared_key: tuple[str, ...]) -> Target:
        """Check the table against `schema`; make it when it is missing and the options say so.

        Raises:
            PlanError: there is no table, or a column, a type, the key, a level or the number of buckets does not fit.
            ConfigError: the service refuses the login.
            TransientError: it does not answer.
        """
        try:
            found = self.service.table(self.options.table_name)
        except NoTableError as error:
            if not self.options.makes_table:
                raise PlanError(f"{error}: make it, or run `vector-assets target create`") from error
            from vector_assets.sinks.maxcompute_create import create

            for made in create(self.service, self.options, schema, declared_key, self.table):
                log.info("%s", made)
            found = self.service.table(self.options.table_name)
        self._plan = make_plan(found, schema, declared_key, self.options)
        self._incarnation = incarnation_of(found)
        is_stream = self.options.tunnel == "stream"
        return Target(
            name=self.options.target(),
            key=self._plan.identity if self.options.is_upsert else (),
            columns={column.name: column.text for column in (*found.columns, *found.levels)},
            incarnation=self._incarnation,
            guarantee="at-least-once" if is_stream else "effectively-once",
            notes=(*self._plan.notes, STREAM_NOTE) if is_stream else self._plan.notes,
        )

    def inspect(self, schema: pa.Schema, declared_key: tuple[str, ...]) -> Target:
        """As `prepare`, which changes nothing; a table that is missing and would be made is said to be."""
        if self.options.makes_table:
            from vector_assets.sinks.maxcompute_create import unmade

            try:
                self.service.table(self.options.table_name)
            except NoTableError:
                return unmade(self.options, schema, declared_key, self.table)
        return self.prepare(schema, declared_key)

    def stage(self, batch: Batch, token: BatchToken) -> Staged:
        """Send the rows into sessions, one per partition; missing partitions are made. Nothing is visible.

        Raises:
            PlanError: updates or deletes came without the upsert tunnel.
            BudgetError: more rows are refused than the batch may lose.
            FatalError: the rows name too many partitions, or an attempt before has closed sessions of other rows.
            TransientError: the service does not answer.
        """
        plan = self._prepared()
        self._check_kinds(batch)
        upserts, reasons = plan.rows(batch.upserts)
        deletes = None
        if batch.deletes is not None and batch.deletes.num_rows:
            deletes, more = plan.keys(batch.deletes)
            reasons |= more
        budget_left(reasons, batch.reject_limit, plan.place)
        loads = loads_of(plan, upserts, deletes, self.options.dynamic_partition_limit)
        if self.options.tunnel == "stream":
            payload = Payload([load.part for load in loads], loads)
        else:
            payload = Payload(self._sent(plan, loads, self._known.get(token.id, [])))
        return Staged(
            token=token,
            committable={
                "incarnation": self._incarnation,
                "tunnel": self.options.tunnel,
                "parts": [part.to_json() for part in payload.parts],
            },
            rejected=rejects_of(reasons),
            counts=Counts(refused=len(reasons)),
            payload=payload,
        )

    def _check_kinds(self, batch: Batch) -> None:
        if self.merge is Merge.LAST:
            return
        if has_changes(batch):
            raise PlanError(
                f"{self._prepared().place}: the rows hold updates or deletes, which the {self.options.tunnel} tunnel"
                " does not take: set 'enableUpsert' = 'true', for a Delta table"
            )

    def _sent(self, plan: Plan, loads: Sequence[Load], known: Sequence[tuple[Part, Status]]) -> list[Part]:
        """Every part in a session; what an attempt before has sent is not sent again."""
        before = {part.spec: (part, status) for part, status in known}
        cache = (
            FileCache(self.service, plan, self.options) if self.options.is_upsert and self.options.file_cached else None
        )

        def send(load: Load) -> Part:
            part, status = before.get(load.part.spec, (load.part, "ended"))
            if status == "closed" and (part.rows, part.deleted) != (load.part.rows, load.part.deleted):
                raise FatalError(
                    f"{place_of(plan.table, part.spec)}: an earlier attempt has committed {part.rows} rows and"
                    f" {part.deleted} deletes of this batch, today's code makes {load.part.rows} and"
                    f" {load.part.deleted} of it: bring back the code of that time, and run again"
                )
            if status in {"closed", "committing"} or (status == "open" and part.is_like(load.part)):
                return part
            if status == "open" and self.options.is_upsert:
                abort(self.service, WriteSession("upsert", plan.table, part.spec, part.session))
            return self._send(plan, load, cache)

        try:
            with ThreadPoolExecutor(self.options.num_flush_threads, thread_name_prefix="partition") as pool:
                parts = list(pool.map(send, loads))
            if cache is not None:
                cache.finish()
            return parts
        finally:
            if cache is not None:
                cache.close()

    def _send(self, plan: Plan, load: Load, cache: FileCache | None) -> Part:
        """One part into a new session."""
        options = self.options
        self._make_partition(plan, load.part.spec)
        fresh = replace(load, part=replace(load.part, before=state_of(self.service, plan.table, load.part.spec)))
        slots = options.slots if options.is_upsert else 0
        session = open_session(self.service, options.tunnel, plan.table, fresh.part.spec, slots)
        if not options.is_upsert:
            return upload(self.service, plan, options, fresh, session)
        if cache is None:
            return upsert(self.service, plan, options, fresh, session)
        with self._lock:
            cache.add(fresh, session)
        return replace(fresh.part, session=session.id)

    def _make_partition(self, plan: Plan, spec: str | None) -> None:
        if spec is None or spec in self._there:
            return
        try:
            self.service.partition(plan.table, spec)
        except NoPartitionError:
            add_partition(self.service, plan.table, spec)
        with self._lock:
            self._there.add(spec)

    def commit(self, staged: Staged) -> Receipt:
        """Close the sessions that are not closed yet; by the streaming tunnel, send the rows that are not sent yet.

        Raises:
            TargetReplacedError: the table was dropped or made anew.
            TransientError: some sessions may be closed, others not; `find` tells.
        """
        plan = self._prepared()
        payload = payload_of(staged, Payload, plan.place)
        if payload.parts:
            self._check_same(staged.token)
        if self.options.tunnel == "stream":
            self._stream(plan, payload)
        else:
            threads = self.options.commit_threads if self.options.is_upsert else self.options.insert_commit_threads
            with ThreadPoolExecutor(threads, thread_name_prefix="commit") as pool:
                # all are tried, also after one has failed: what is closed stays closed
                for done in [pool.submit(self._close, plan, part) for part in payload.parts]:
                    done.result()
        return self._remember(staged.token, payload.parts)

    def _close(self, plan: Plan, part: Part) -> None:
        """Commit one session and wait until it is closed."""
        tunnel = self.options.tunnel
        session = WriteSession(tunnel, plan.table, part.spec, part.session)
        retries = self.options.commit_retries if self.options.is_upsert else self.options.retry_times

        def asked() -> Status:
            try:
                return post_commit(self.service, session)
            except SessionEndedError:
                # a commit that was repeated may be refused: the session itself says whether it is closed
                return status_of(self.service, tunnel, plan.table, part.spec, part.session)[0]

        status: Status = call(self.options.policy(retries), asked, place=f"{plan.place}: committing")
        if status == "committing" and self.options.is_upsert and self.options.upsert_async_commit:
            return
        if status in {"committing", "open"}:
            seconds = self.options.commit_wait.total_seconds()
            found = waited(asked, lambda now: now not in {"committing", "open"}, seconds)
            if found is None:
                raise TransientError(f"{session.place}: session {part.session} is not committed after {seconds:g} s")
            status = found
        if status != "closed":
            raise TransientError(f"{session.place}: session {part.session} has ended and was not committed")

    def _stream(self, plan: Plan, payload: Payload) -> None:
        turn = 0
        for load in payload.loads:
            session: WriteSession | None = None
            for piece in slices(load.upserts, self.options.block_bytes):
                turn += 1
                if turn <= payload.sent:
                    continue
                if session is None:
                    self._make_partition(plan, load.part.spec)
                    session = open_session(self.service, "stream", plan.table, load.part.spec, self.options.slot_num)
                body = b"".join(encode(piece, plan.forms))
                send: Callable[[], None] = lambda s=session, b=body, p=piece, t=turn: put_stream(  # type: ignore[misc]  # noqa: E731
                    self.service, s, t, p.num_rows, b
                )
                call(self.retry, send, place=plan.place)
                payload.sent = turn

    def find(self, token: BatchToken, committable: Json) -> Found:
        """Whether the sessions of a batch are closed. UNKNOWN where one is gone and its partition has changed since."""
        if not isinstance(committable, dict):
            return "ABSENT"
        parts = parts_of(committable["parts"])
        if committable["tunnel"] == "stream":
            return "APPLIED" if token.id in self._receipts or not parts else "ABSENT"
        plan = self._prepared()
        if committable["incarnation"] != self._incarnation:
            return "ABSENT"
        tunnel = "upsert" if committable["tunnel"] == "upsert" else "batch"
        states = [(part, self._status(plan.table, tunnel, part)) for part in parts]
        if all(status == "closed" or self._is_taken(status) for _, status in states):
            self._remember(token, parts)
            return "APPLIED"
        for part, status in states:
            if status == "ended" and (now := state_now(self.service, plan.table, part.spec)) != part.before:
                self._doubts[token.id] = doubt_of(plan, token, part, now)
                return "UNKNOWN"
        self._known = {token.id: states}
        return "ABSENT"

    def _status(self, table: MaxTable, tunnel: Any, part: Part) -> Status:
        status, blocks = status_of(self.service, tunnel, table, part.spec, part.session)
        # a session that lost blocks must not be committed as it is
        return "ended" if status == "open" and tunnel == "batch" and blocks < part.blocks else status

    def _is_taken(self, status: Status) -> bool:
        return status == "committing" and self.options.is_upsert and self.options.upsert_async_commit

    def doubt(self, token: BatchToken) -> str:
        """What is not known of the batch, and the commands that settle it."""
        return self._doubts.get(token.id, f"batch {token.seq} was not looked for")

    def receipt(self, token: BatchToken) -> Receipt:
        """The receipt of a batch that was committed or found by this sink.

        Raises:
            ExpiredError: it was neither: the table keeps nothing of batches.
        """
        if token.id not in self._receipts:
            raise ExpiredError(f"{self.options.target()}: the table keeps nothing of batch {token.seq}")
        return self._receipts[token.id]

    def _remember(self, token: BatchToken, parts: Sequence[Part]) -> Receipt:
        counts = Counts(written=sum(part.rows for part in parts), deleted=sum(part.deleted for part in parts))
        names = [part.session for part in parts if part.session]
        found = Receipt(
            token.id, ",".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "") or token.id, counts
        )
        self._receipts[token.id] = found
        for old in list(self._receipts)[:-_REMEMBERED]:
            del self._receipts[old]
        return found

    def _check_same(self, token: BatchToken) -> None:
        """Raise TargetReplacedError unless the table is the one that was prepared."""
        try:
            found = incarnation_of(self.service.table(self.options.table_name))
        except NoTableError as error:
            raise TargetReplacedError(f"{self.options.target()} was dropped") from error
        if found != self._incarnation:
            raise TargetReplacedError(
                f"{self.options.target()} is a new table ({found}); pipeline {token.pipeline} was prepared for"
                f" {self._incarnation}"
            )

    def forget(self, pipeline: str) -> None:
        """The table keeps nothing of pipelines."""
        self._receipts.clear()
        self._known.clear()

    def create_target(self, schema: pa.Schema, declared_key: tuple[str, ...]) -> tuple[str, ...]:
        """Make the table where it is missing, and the static partition; what was made or was there.

        Raises:
            PlanError: the schema and the options do not say enough, or what is there does not fit.
        """
        from vector_assets.sinks.maxcompute_create import create

        made = create(self.service, self.options, schema, declared_key, self.table)
        self.prepare(schema, declared_key)
        return made

    def alter(self, changes: Sequence[ColumnChange]) -> tuple[str, ...]:
        """Add, drop, rename and widen columns; see `maxcompute_alter`."""
        from vector_assets.sinks.maxcompute_alter import alter

        return alter(self.service, self.options, changes)

    def as_stored(self, rows: pa.Table) -> pa.Table:
        """Rows of the sink's schema (hidden columns kept) as the table would hold them."""
        from vector_assets.sinks.maxcompute_scan import as_stored

        return as_stored(self._prepared(), rows)

    def as_stored_keys(self, keys: pa.Table) -> pa.Table:
        """Key columns of the sink's schema with `_position`, as a Delta table would hold them."""
        from vector_assets.sinks.maxcompute_scan import as_stored_keys

        return as_stored_keys(self._prepared(), keys)

    def rows_of(self, keys: pa.Table) -> pa.Table:
        """The rows of a Delta table that have one of these keys now."""
        from vector_assets.sinks.maxcompute_scan import rows_of

        return rows_of(self.service, self._prepared(), keys)

    def scan(self) -> Iterator[pa.RecordBatch]:
        """Every row of the table (of the partitions that the option `partition` leaves), in bounded memory."""
        from vector_assets.sinks.maxcompute_scan import scan

        return scan(self.service, self._prepared())

    def close(self) -> None:
        """Give back connections; idempotent."""
        self.service.close()

    def _prepared(self) -> Plan:
        return prepared(self._plan, self.options.target())
