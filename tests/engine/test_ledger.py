import multiprocessing
import os
import signal
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pyarrow as pa
import pytest

from vector_assets.engine.archive import ArchiveFile
from vector_assets.engine.core import (
    RAW_SCHEMA,
    BatchKind,
    Counts,
    Range,
    Receipt,
    Span,
    Staged,
    State,
    no_rejects,
    rejects,
)
from vector_assets.engine.errors import ConfigError, FatalError, FencedError
from vector_assets.engine.lease import LeaseHeldError, process_born
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.store_schema import MIGRATIONS, SCHEMA_VERSION

WHERE = ("p", "t")
SPAN = Span((Range("a/0", {"offset": 0}, {"offset": 10}), Range("a/1", {"offset": 5}, {"offset": 6})))


@pytest.fixture
def ledger(ledger_location):
    ledger = Ledger(ledger_location, clock=lambda: 1000.0)
    yield ledger
    ledger.close()


def take(ledger, ttl=30.0, wait=0.0):
    return ledger.leases.acquire(*WHERE, ttl=ttl, wait=wait)


def plan(ledger, lease, span=SPAN, **kwargs):
    return ledger.plan(lease, BatchKind.RECORDS, span, hour="2026-01-01-00:00", run_id="r", code_version="c", **kwargs)


def finish(ledger, lease, batch, raw=None, rejected=None, refused=None):
    raw = RAW_SCHEMA.empty_table() if raw is None else raw
    ledger.seal(lease, batch.seq, batch.span, ArchiveFile("x", "0" * 64, 0, 0), records=Counts(), newest_ms=None)
    staged = Staged(batch.token(lease.fence))
    ledger.stage(
        lease, batch, staged, raw, sidecar=None, rejected=rejected or no_rejects(), counts=Counts(records=3),
        code_version="c",
    )  # fmt: skip
    receipt = Receipt("x", "commit", rejected=refused or no_rejects())
    ledger.finish(lease, batch, receipt, raw, counts=Counts(records=3, written=2), seconds=0.1)


def raw(values):
    count = len(values)
    return pa.table(
        [
            pa.nulls(count, pa.binary()),
            pa.array(values, pa.binary()),
            pa.nulls(count, RAW_SCHEMA.field("headers").type),
            pa.array([1000] * count, pa.int64()).cast(RAW_SCHEMA.field("timestamp").type),
            pa.array([0] * count, pa.int16()),
            pa.array(range(50, 50 + count), pa.int64()),
            pa.nulls(count, pa.int32()),
            pa.nulls(count, pa.int8()),
        ],
        schema=RAW_SCHEMA,
    )


def test_positions_move_only_with_done(ledger):
    ledger.register(*WHERE, "earliest")
    lease = take(ledger)
    ledger.freeze_start(lease, {"a/0": {"offset": 0}, "a/1": {"offset": 5}})
    batch = plan(ledger, lease)
    assert ledger.position(*WHERE) == SPAN.start
    assert ledger.planned_position(*WHERE) == SPAN.end
    finish(ledger, lease, batch)
    assert ledger.position(*WHERE) == SPAN.end
    assert ledger.batch(*WHERE, 1).state is State.DONE
    assert ledger.totals(*WHERE) == (1, Counts(records=3, written=2))


def test_a_start_is_frozen_once(ledger):
    ledger.register(*WHERE, "latest")
    lease = take(ledger)
    assert ledger.freeze_start(lease, {"a/0": 7}) == {"a/0": 7}
    assert ledger.freeze_start(lease, {"a/0": 9}) == {"a/0": 7}


def test_a_changed_start_option_is_reported(ledger):
    assert ledger.register(*WHERE, "earliest") is None
    assert ledger.register(*WHERE, "latest") == "earliest"


def test_states_come_in_order_only(ledger):
    lease = take(ledger)
    batch = plan(ledger, lease)
    with pytest.raises(FencedError, match="batch 1 is PLANNED, wanted STAGED, on its way to DONE"):
        ledger.finish(lease, batch, Receipt("x", "c"), None, counts=Counts(), seconds=None)
    finish(ledger, lease, batch)
    with pytest.raises(FencedError, match="batch 1 is DONE, wanted PLANNED"):
        ledger.seal(lease, 1, SPAN, None, records=Counts(), newest_ms=None)


def test_first_splits_are_those_no_batch_had(ledger):
    lease = take(ledger)
    assert plan(ledger, lease).first_splits == {"a/0", "a/1"}
    second = plan(ledger, lease, Span((Range("a/0", 1, 2), Range("a/2", 0, 2))))
    assert second.first_splits == {"a/2"}


def test_planning_fixes_the_ends_of_the_batch_before(ledger):
    lease = take(ledger)
    first = plan(ledger, lease)
    read = Span((Range("a/0", {"offset": 0}, {"offset": 4}),))
    plan(ledger, lease, Span((Range("a/0", {"offset": 4}, {"offset": 9}),)), previous=(first.seq, read))
    assert ledger.batch(*WHERE, 1).span == read


def test_every_step_needs_the_newest_lease(ledger):
    old = take(ledger)
    batch = plan(ledger, old)
    ledger.leases.release(old)
    new = take(ledger)
    assert new.fence == old.fence + 1
    for step in (
        lambda: plan(ledger, old),
        lambda: ledger.seal(old, 1, SPAN, None, records=Counts(), newest_ms=None),
        lambda: ledger.discard(old, 1, "x"),
        lambda: ledger.freeze_start(old, {}),
    ):
        with pytest.raises(FencedError, match=r"lease \(fence 1\) is gone"):
            step()
    finish(ledger, new, batch)


def test_dead_letters_are_hidden_until_done_and_replaced_when_staged_again(ledger):
    lease = take(ledger)
    batch = plan(ledger, lease)
    ledger.seal(lease, 1, SPAN, None, records=Counts(), newest_ms=None)
    records = raw([b"a", b"\xff\x00", None])
    for rejected in (rejects([0, 1], "decode", "bad"), rejects([1], "decode", ["worse"])):
        ledger.stage(
            lease, batch, Staged(batch.token(1)), records, sidecar=None, rejected=rejected, counts=Counts(),
            code_version="c",
        )  # fmt: skip
    assert ledger.dead_letters.listed() == []
    refused = rejects([2], "write", "too long")
    ledger.finish(lease, batch, Receipt("x", "c", rejected=refused), records, counts=Counts(), seconds=None)
    listed = ledger.dead_letters.listed()
    assert [(x.offset, x.stage, x.error, x.value) for x in listed] == [
        (51, "decode", "worse", None),
        (52, "write", "too long", None),
    ]
    assert ledger.dead_letters.get(listed[0].id).value == b"\xff\x00"
    assert ledger.dead_letters.purge([x.id for x in listed]) == 2
    assert ledger.dead_letters.get(listed[0].id).value is None
    assert ledger.dead_letters.count("p", state="purged") == 2


def test_a_lease_is_exclusive_and_the_refusal_names_the_holder(ledger):
    lease = take(ledger)
    with pytest.raises(LeaseHeldError, match=rf"held by pid {os.getpid()} on .* \(fence 1\)"):
        take(ledger, wait=0.2)
    ledger.leases.release(lease)
    assert take(ledger).fence == 2


def hold(location, ready):
    ledger = Ledger(location)
    with ledger.leases.held("p", "t", ttl=0.6, wait=0):
        ready.set()
        time.sleep(60)


@pytest.fixture
def holder(ledger, ledger_location):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=hold, args=(ledger_location, ready))
    process.start()
    assert ready.wait(20)
    yield process
    process.kill()
    process.join()


def test_a_dead_holder_is_replaced_at_once(ledger, holder):
    holder.kill()
    holder.join()
    began = time.monotonic()
    assert take(ledger, ttl=30, wait=5).fence == 2
    assert time.monotonic() - began < 2


def test_a_stopped_holder_is_replaced_after_its_time_to_live_and_then_fenced(ledger, holder):
    with pytest.raises(LeaseHeldError):
        take(ledger, ttl=0.6, wait=1.5)
    # stopped in the middle of a transaction it would hold SQLite's lock for ever
    with ledger.store.transaction():
        os.kill(holder.pid, signal.SIGSTOP)
    lease = take(ledger, ttl=0.6, wait=10)
    assert lease.fence == 2
    os.kill(holder.pid, signal.SIGCONT)
    time.sleep(0.5)
    assert ledger.leases.holder(*WHERE).owner == lease.owner


def test_a_reused_pid_is_not_taken_for_the_holder(ledger):
    take(ledger)
    ledger.store.change("UPDATE leases SET pid_born = '1'")
    assert not ledger.leases.is_held(*WHERE)
    assert process_born(os.getpid()) not in {"", "1"}


def test_of_another_hosts_process_only_the_heartbeat_counts(ledger):
    take(ledger)
    ledger.store.change("UPDATE leases SET host = 'another', pid_born = '1'")
    assert ledger.leases.is_held(*WHERE)
    with pytest.raises(LeaseHeldError, match="on another"):
        take(ledger, ttl=30)
    began = time.monotonic()
    assert take(ledger, ttl=0.5, wait=10).fence == 2
    assert time.monotonic() - began >= 0.5


def test_a_pid_of_another_container_with_the_same_hosts_name_is_not_looked_up(ledger):
    take(ledger)
    ledger.store.change("UPDATE leases SET pid_born = '1 pid:[42]'")
    assert ledger.leases.is_held(*WHERE)


def test_a_fence_is_raised_and_never_lowered(ledger):
    ledger.leases.raise_fence(*WHERE, 7)
    assert take(ledger).fence == 8
    ledger.leases.raise_fence(*WHERE, 3)
    assert ledger.leases.holder(*WHERE).fence == 8


def test_workers_of_one_pipeline_never_plan_the_same_number(ledger, ledger_location):
    lease = take(ledger)
    ledgers = [Ledger(ledger_location) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        planned = list(pool.map(lambda n: plan(ledgers[n % 3], lease, Span()).seq, range(30)))
    assert sorted(planned) == list(range(1, 31))
    for each in ledgers:
        each.close()


def test_a_transaction_that_fails_leaves_nothing(ledger):
    lease = take(ledger)
    with suppress(ZeroDivisionError), ledger.store.transaction():
        plan(ledger, lease)
        ledger.record_event("p", "x", "y")
        raise ZeroDivisionError
    assert ledger.batches("p") == []
    assert ledger.events("p") == []
    assert plan(ledger, lease).seq == 1


def test_gaps_are_kept_once(ledger):
    for _ in range(2):
        ledger.record_gap("p", "TRUNCATED", {"a/0": (3, 9)})
    (gap,) = ledger.gaps("p")
    assert (gap.split, gap.kind, gap.start, gap.end, gap.found_ms) == ("a/0", "TRUNCATED", 3, 9, 1_000_000)
    assert (gap.policy, gap.state, gap.seq) == ("fail", "open", None)


def test_what_was_done_about_a_gap_is_kept_with_it(ledger):
    ledger.record_gap("p", "TRUNCATED", {"a/0": (3, 9), "a/1": (0, 5)})
    ledger.record_gap("p", "TRUNCATED", {"a/0": (3, 7)}, policy="from_archive", state="filled", seq=4)
    ledger.close_gaps("p", 5)
    found = [(gap.split, gap.start, gap.end, gap.policy, gap.state, gap.seq) for gap in ledger.gaps("p")]
    assert found == [("a/0", 3, 7, "from_archive", "filled", 4), ("a/1", 0, 5, "fail", "reset", 5)]


def test_a_ledger_of_the_first_version_is_brought_up_to_date(tmp_path):
    path = tmp_path / "old.db"
    old = sqlite3.connect(path)
    old.executescript(MIGRATIONS[0] + "PRAGMA user_version = 1;")
    old.execute("INSERT INTO gaps VALUES ('p', 'a/0', 'TRUNCATED', 3, 9, 5)")
    old.commit()
    old.close()
    for _ in range(2):
        ledger = Ledger(path)
        (gap,) = ledger.gaps("p")
        assert (gap.start, gap.policy, gap.state, gap.seq) == (3, "fail", "open", None)
        ledger.close()


def test_a_schema_gets_a_new_version_when_it_changes(ledger):
    lease = take(ledger)
    assert [ledger.schema_version(lease, text) for text in ("a", "a", "b", "b")] == [1, 1, 2, 2]


def test_two_processes_may_plan_through_one_ledger(ledger, ledger_location):
    other = Ledger(ledger_location)
    lease = take(ledger)
    assert other.plan(lease, BatchKind.RECORDS, SPAN, hour="h", run_id="r", code_version="c").seq == 1
    assert plan(ledger, lease, Span()).seq == 2
    other.close()


def test_a_ledger_of_another_schema_version_is_refused(tmp_path):
    connection = sqlite3.connect(tmp_path / "old.db")
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(ConfigError, match=f"schema version 99, this code knows {SCHEMA_VERSION}: use newer code"):
        Ledger(tmp_path / "old.db")


def test_a_ledger_that_cannot_be_opened_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"ledger .*file/ledger\.db: cannot be opened"):
        Ledger(tmp_path / "file" / "ledger.db")


def test_an_unknown_batch_is_named(ledger):
    with pytest.raises(FatalError, match="the ledger has no batch 12"):
        ledger.batch(*WHERE, 12)
