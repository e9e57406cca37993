import threading
from dataclasses import replace

import pytest

from tests.engine.memory import MemorySource, TextDecoder, World, numbers
from vector_assets.engine import links, operate
from vector_assets.engine.core import BatchKind, State
from vector_assets.engine.errors import (
    BudgetError,
    FatalError,
    FencedError,
    PositionLostError,
    TargetReplacedError,
    TransientError,
    UnavailableError,
)
from vector_assets.engine.run import Runner

HOUR_OPEN = "2999-01-01-00:00"


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path, MemorySource({"t@a/0": numbers(range(40)), "t@a/1": numbers(range(100, 130))}))


def drain(world, hour=HOUR_OPEN, **kwargs):
    with world.session(**kwargs) as session:
        return list(Runner(session).drain(hour))


def ids(world):
    return sorted(row[0] for row in world.cell.rows)


ALL = sorted([*range(40), *range(100, 130)])


def test_a_drain_lands_everything_up_to_the_frontier_and_the_next_one_nothing(world):
    outcomes = drain(world)
    assert ids(world) == ALL
    assert outcomes[-1].lag == 0
    assert sum(o.batch.counts.written for o in outcomes) == 70
    assert drain(world) == []


def test_records_that_came_later_are_the_next_drains(world):
    drain(world)
    world.source.splits["t@a/0"] += numbers([900])
    (only,) = drain(world)
    assert only.batch.span.short() == "0:40-41"
    assert ids(world)[-1] == 900


def test_batches_grow_from_the_sinks_flush_rows(world):
    assert drain(world)[0].batch.counts.records == 10


def test_a_worker_whose_lease_is_gone_leaves_the_file_of_a_batch_as_it_is(world):
    with world.session() as session, session.leased() as stages:
        runner = Runner(session)
        found = runner.read_next(stages, runner.position(stages), HOUR_OPEN, session.source.frontier(), None)
        batch, raw, span = found
        sealed = stages.seal(batch, raw, span)
        session.ledger.store.change("UPDATE leases SET fence = fence + 1, owner = 'another'")
        with pytest.raises(FencedError):
            stages.seal(batch, raw.slice(1), span)
        assert stages.archive.read(sealed.archive).num_rows == raw.num_rows


def test_rejects_become_dead_letters_only_when_their_batch_is_done(world):
    world.source.splits["t@a/0"][3] = b"poison"
    world.source.splits["t@a/1"][2] = None
    world.sink.before = [FatalError("the target is gone")]
    with pytest.raises(FatalError, match="gone"):
        drain(world)
    assert world.books.ledger.dead_letters.listed() == []
    drain(world)
    letters = world.books.ledger.dead_letters.listed()
    assert [(x.split, x.offset, x.stage) for x in letters] == [("t@a/0", 3, "decode"), ("t@a/1", 2, "decode")]
    full = [world.books.ledger.dead_letters.get(x.id) for x in letters]
    assert [x.value for x in full] == [b"poison", None]
    assert len(world.cell.rows) == 68


def test_rows_the_target_refuses_are_dead_letters_with_their_bytes(world):
    world.sink.refuse = frozenset({7, 105})
    outcomes = drain(world)
    letters = world.books.ledger.dead_letters.listed()
    assert {(x.offset, x.stage, x.error) for x in letters} == {
        (7, "write", "refused by order"),
        (5, "write", "refused by order"),
    }
    assert sum(o.batch.counts.refused for o in outcomes) == 2
    assert all(o.batch.note is None for o in outcomes)


def test_a_batch_over_the_error_budget_stops_the_pipeline_and_no_position_moves(world):
    world.settings["vector-assets.error-budget"] = "1"
    world.source.splits["t@a/0"][1:4] = [b"x", b"y", b"z"]
    with pytest.raises(BudgetError, match=r"3 of 10 records .* budget is 1; the first: decode: not id,name"):
        drain(world)
    assert world.cell.rows == []
    assert world.books.ledger.position("numbers", "memory://rows") == {"t@a/0": 0, "t@a/1": 0}
    world.settings["vector-assets.error-budget"] = "5"
    drain(world)
    assert len(world.cell.rows) == 67


def test_a_lost_answer_is_looked_up_and_not_written_twice(world):
    world.sink.after = [TransientError("connection lost after the commit")]
    drain(world)
    assert ids(world) == ALL


def test_a_failed_write_is_tried_again_as_often_as_the_vendor_allows(world):
    world.sink.before = [TransientError("busy")] * 2
    drain(world)
    assert ids(world) == ALL
    world.source.splits["t@a/0"] += numbers([1000])
    world.sink.before = [TransientError("busy")] * 3
    with pytest.raises(TransientError, match="busy"):
        drain(world)
    drain(world)
    assert ids(world) == [*ALL, 1000]


def test_an_unreachable_source_is_waited_for(world):
    world.source.broken = [UnavailableError("broker down")] * 5
    drain(world)
    assert ids(world) == ALL


@pytest.mark.parametrize("step", ["planned", "read", "archived", "sealed", "staged", "committing", "committed", "done"])
@pytest.mark.parametrize("number", [1, 2])
def test_a_failure_between_any_two_states_loses_and_doubles_nothing(world, monkeypatch, step, number):
    monkeypatch.setattr("vector_assets.engine.env._passes", {})
    monkeypatch.setenv("VECTOR_ASSETS_FAIL_AT", f"{step}:{number}:raise")
    with pytest.raises(FatalError, match="failpoint"):
        drain(world)
    monkeypatch.delenv("VECTOR_ASSETS_FAIL_AT")
    drain(world)
    assert ids(world) == ALL
    assert drain(world) == []
    assert world.books.ledger.unfinished("numbers", "memory://rows") == []


def test_a_resumed_batch_reads_the_archive_not_the_topic(world, monkeypatch):
    monkeypatch.setattr("vector_assets.engine.env._passes", {})
    monkeypatch.setenv("VECTOR_ASSETS_FAIL_AT", "committing:1:raise")
    with pytest.raises(FatalError, match="failpoint"):
        drain(world)
    monkeypatch.delenv("VECTOR_ASSETS_FAIL_AT")
    sealed = [b for b in world.books.ledger.unfinished("numbers", "memory://rows") if b.state is not State.PLANNED]
    assert sealed
    end = sealed[-1].span.end
    for split, upto in end.items():
        world.source.splits[split][:upto] = [b"forgotten"] * upto
    drain(world)
    assert ids(world) == ALL


def test_a_frozen_start_outlives_a_crash_before_the_first_batch(world, monkeypatch):
    monkeypatch.setattr("vector_assets.engine.env._passes", {})
    monkeypatch.setenv("VECTOR_ASSETS_FAIL_AT", "planned:1:raise")
    with pytest.raises(FatalError, match="failpoint"):
        drain(world)
    monkeypatch.delenv("VECTOR_ASSETS_FAIL_AT")
    monkeypatch.setattr(MemorySource, "start", lambda self: {"t@a/0": 30, "t@a/1": 20})
    drain(world)
    assert ids(world) == ALL


def test_a_drain_ends_with_its_partition(world):
    assert drain(world, hour="2026-01-01-00:00") == []
    assert world.cell.rows == []


def test_replaying_what_the_target_has_is_a_no_op(world):
    drain(world)
    with world.session() as session:
        outcomes = list(Runner(session).replay(HOUR_OPEN))
    assert {o.how for o in outcomes} == {"found"}
    assert ids(world) == ALL


def test_replay_applies_what_a_restored_target_lost(world):
    drain(world)
    batches = sorted(world.cell.batches)
    lost = batches[2:]
    world.cell.rows = [r for r in world.cell.rows if r[0] < 20]
    for seq in lost:
        del world.cell.batches[seq]
    done = {b.seq: b for b in world.books.ledger.batches("numbers")}
    world.cell.next = dict(done[2].span.end) | {s: 0 for s in done[3].span.start if s not in done[2].span.end}
    world.cell.rows = world.cell.rows[: sum(done[s].counts.written for s in (1, 2))]
    with world.session() as session:
        outcomes = list(Runner(session).replay())
    assert [o.how for o in outcomes] == ["found"] * 2 + ["applied"] * len(lost)


def test_a_target_that_was_replaced_is_named_and_can_be_adopted_and_filled_again(world):
    drain(world)
    world.cell.incarnation = "2"
    world.cell.rows.clear()
    with pytest.raises(TargetReplacedError, match=r"TARGET_REPLACED.*--adopt-target"):
        drain(world)
    with world.session() as session:
        operate.adopt_target(session, reason="test")
        list(Runner(session).replay())
    assert ids(world) == ALL


def test_a_target_that_stands_elsewhere_refuses_the_batch(world):
    drain(world)
    world.source.splits["t@a/0"] += numbers([900])
    world.cell.next["t@a/0"] = 12
    with pytest.raises(FencedError, match="stands at 12"):
        drain(world)


def test_a_lost_position_is_recorded_as_a_gap_and_nothing_moves(world):
    drain(world)
    world.source.splits["t@a/0"] = numbers(range(5))
    with pytest.raises(PositionLostError, match="BEYOND_END"):
        drain(world)
    (gap,) = world.books.ledger.gaps("numbers")
    assert (gap.kind, gap.split, gap.start, gap.end) == ("BEYOND_END", "t@a/0", 5, None)
    assert world.books.ledger.position("numbers", "memory://rows")["t@a/0"] == 40


def test_dead_letters_land_once_after_a_fix(world, monkeypatch):
    world.source.splits["t@a/0"][3] = b"3;n3"
    drain(world)
    letters = world.books.ledger.dead_letters.listed()
    decode = TextDecoder.decode

    def mended(self, raw):
        values = [v.replace(b";", b",") for v in raw.column("value").to_pylist()]
        return decode(self, raw.set_column(raw.schema.get_field_index("value"), "value", [values]))

    with world.session() as session:
        again = operate.replay_dead_letters(session, letters)
        assert again.batch.counts.rejected == 1
    (second,) = world.books.ledger.dead_letters.listed()
    assert (second.attempt, second.split, second.offset, second.origin_seq) == (2, "t@a/0", 3, letters[0].origin_seq)
    monkeypatch.setattr("tests.engine.memory.TextDecoder.decode", mended)
    with world.session() as session:
        outcome = operate.replay_dead_letters(session, [second])
        assert outcome.batch.kind is BatchKind.DEAD_LETTERS
        assert outcome.batch.counts.written == 1
        assert operate.replay_dead_letters(session, world.books.ledger.dead_letters.listed()) is None
    assert ids(world) == ALL
    assert [x.state for x in world.books.ledger.dead_letters.listed(state=None)] == ["replayed", "replayed"]


def test_a_crash_in_a_dead_letter_replay_is_resumed_by_the_next_run(world, monkeypatch):
    world.source.splits["t@a/0"][3] = b"poison"
    drain(world)
    monkeypatch.setattr("vector_assets.engine.env._passes", {})
    monkeypatch.setenv("VECTOR_ASSETS_FAIL_AT", "sealed:1:raise")
    with world.session() as session, pytest.raises(FatalError, match="failpoint"):
        operate.replay_dead_letters(session, world.books.ledger.dead_letters.listed())
    monkeypatch.delenv("VECTOR_ASSETS_FAIL_AT")
    (outcome,) = drain(world)
    assert outcome.batch.kind is BatchKind.DEAD_LETTERS
    assert [x.attempt for x in world.books.ledger.dead_letters.listed()] == [2]


def test_a_reset_moves_target_and_ledger_together_and_is_recorded(world):
    drain(world)
    with world.session() as session:
        plan = operate.reset(session, "earliest", reason="start over")
    assert plan.span.short() == "0:40-0,1:30-0"
    assert world.cell.next == {"t@a/0": 0, "t@a/1": 0}
    assert [what for _, what, _ in world.books.ledger.events("numbers")] == ["reset"]
    drain(world)
    assert len(world.cell.rows) == 140


def test_a_reset_discards_unfinished_batches_the_target_lacks(world, monkeypatch):
    monkeypatch.setattr("vector_assets.engine.env._passes", {})
    monkeypatch.setenv("VECTOR_ASSETS_FAIL_AT", "committing:1:raise")
    with pytest.raises(FatalError, match="failpoint"):
        drain(world)
    monkeypatch.delenv("VECTOR_ASSETS_FAIL_AT")
    with world.session() as session:
        operate.reset(session, "latest", reason="skip it")
    assert drain(world) == []
    assert world.cell.rows == []


def test_a_follower_lands_new_records_until_it_is_told_to_stop(world):
    stop = threading.Event()
    seen = []
    with world.session() as session:
        for outcome in Runner(session, stop).follow():
            seen.append(outcome)
            if len(world.cell.rows) == 70 and len(world.source.splits["t@a/0"]) == 40:
                world.source.splits["t@a/0"] += numbers([900])
            if len(world.cell.rows) == 71:
                stop.set()
    assert ids(world) == [*ALL, 900]


def test_following_rests_while_the_pipeline_is_paused(world):
    stop, seen = threading.Event(), []
    links.pause(world.books.ledger, "numbers", paused=True)
    timer = threading.Timer(0.2, lambda: links.pause(world.books.ledger, "numbers", paused=False))
    with world.session() as session:
        timer.start()
        for _ in Runner(session, stop).follow():
            seen.append(links.is_paused(world.books.ledger, "numbers"))
            if len(world.cell.rows) == 70:
                stop.set()
    timer.join()
    assert not any(seen)
    assert ids(world) == ALL


def test_records_that_came_while_a_batch_was_written_linger_from_then_on(world, monkeypatch):
    world.settings |= {"vector-assets.linger": "100 ms"}
    looks = []
    with world.session() as session:
        runner = Runner(session)
        list(runner.catch_up())
        monkeypatch.setattr(type(session.source), "frontier", _counting(type(session.source).frontier, looks))
        world.source.splits["t@a/0"] += numbers([900])
        runner._await_records()
    assert len(looks) == 1


def _counting(method, looks):
    def counted(self):
        looks.append(self)
        return method(self)

    return counted


def test_a_batch_that_is_not_full_waits_no_longer_than_the_sink_s_limit(world):
    world.settings |= {"vector-assets.linger": "10 min"}
    world.sink.wire = replace(world.sink.wire, linger_seconds=0.01)
    stop, seen = threading.Event(), 0
    timer = threading.Timer(60, stop.set)
    timer.start()
    with world.session() as session:
        for _ in Runner(session, stop).follow():
            if len(world.cell.rows) == 70 and not seen:
                world.source.splits["t@a/0"] += numbers([900])
                seen = 1
            if len(world.cell.rows) == 71:
                stop.set()
    assert timer.is_alive()
    timer.cancel()
    assert ids(world) == [*ALL, 900]


def test_abandoning_a_drain_leaves_nothing_half_done(world):
    with world.session() as session:
        iterator = Runner(session).drain(HOUR_OPEN)
        next(iterator)
        iterator.close()
    assert len(world.cell.rows) == 10
    drain(world)
    assert ids(world) == ALL


def test_catching_up_goes_on_when_a_partition_ends_in_between(world):
    ticks = iter(range(10_000))
    noon = 1_793_448_000  # seconds; a full hour

    def clock():
        return noon - 1 + next(ticks) * 0.25

    world.settings["vector-assets.batch.max-rows"] = "10"
    with world.session(clock=clock) as session:
        outcomes = list(Runner(session).catch_up())
    assert ids(world) == ALL
    assert len({outcome.batch.hour for outcome in outcomes}) == 2
