"""Rewrites of a target that rows are appended to, which notes beside each row the batch it was made of."""

import random

import pytest

from tests.engine.memory import MemorySource, NotingSink
from tests.engine.test_reconcile import SEEDS, Code, KeyedWorld, produce, series, step
from vector_assets.engine import env
from vector_assets.engine.core import BatchKind, Merge, State
from vector_assets.engine.errors import FatalError, PlanError


class AppendedWorld(KeyedWorld):
    """A world whose sink appends."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.sink = NotingSink(self.cell, Merge.APPEND)

    @property
    def names(self) -> list[str]:
        return sorted(name for _, name, _ in self.sink.rows)


@pytest.fixture
def world(tmp_path) -> AppendedWorld:
    return AppendedWorld(
        tmp_path,
        MemorySource({"s/0": []}),
        settings={"vector-assets.batch.max-rows": "5", "vector-assets.error-budget": "100%"},
    )


def test_rows_of_a_batch_are_replaced_by_those_of_todays_code(world):
    produce(world, *series(0, 8), "9,8,put", "9,9,put")
    world.drain()
    world.code = Code("b")
    assert world.rewrite(last=1) == [3]
    assert world.names == sorted([f"{n}.b" for n in range(5)] + [f"{n}.a" for n in range(5, 10)])
    assert world.rewrite() == [4]
    assert world.names == [f"{n}.b" for n in range(10)]
    assert world.rewrite() == []
    assert world.rewrite(again=True) == [5, 6]
    assert world.names == [f"{n}.b" for n in range(10)]
    assert world.reconcile().is_right()


def test_a_row_that_todays_code_filters_or_rejects_leaves_and_its_letter_brings_it_back_once(world):
    produce(world, "1,0,put", "2,1,odd", "3,2,even")
    world.drain()
    world.code = Code("b", frozenset({"odd"}), frozenset({"even"}))
    world.rewrite()
    assert world.names == ["0.b"]
    world.code = Code("c")
    world.replay_letters()
    assert world.names == ["0.b", "1.c"]
    world.rewrite()
    # the batch of letters too: every record has one row
    assert world.names == ["0.c", "1.c", "2.c"]
    assert world.reconcile().is_right()


def test_rows_of_a_batch_that_now_makes_none_can_be_made_again(world):
    produce(world, *series(0, 3))
    world.drain()
    world.code = Code("b", dropped=frozenset({"put"}))
    world.rewrite()
    assert world.names == []
    world.code = Code("c")
    world.rewrite()
    assert world.names == ["0.c", "1.c", "2.c"]
    assert world.reconcile().is_right()


def test_rows_that_were_written_before_the_column_was_set_are_refused(world):
    world.sink.batch_column = None
    produce(world, *series(0, 5))
    world.drain()
    world.code = Code("b")
    with pytest.raises(PlanError, match="set 'batch_column'"):
        world.rewrite()
    world.sink.batch_column = "_batch"
    produce(world, *series(5, 8))
    world.drain()
    with pytest.raises(PlanError, match=r"batch 1 wrote 5 rows, .* has none with 1 in column _batch"):
        world.rewrite()
    assert world.rewrite(first=2) == [3]
    assert world.names == [f"{n}.{'a' if n < 5 else 'b'}" for n in range(8)]


@pytest.mark.parametrize("point", ["sealed", "staged", "committing", "committed", "done"])
def test_a_rewrite_that_crashed_is_finished_once_by_the_next_run(world, monkeypatch, point):
    produce(world, *series(0, 8))
    world.drain()
    world.code = Code("b")
    monkeypatch.setattr(env, "_passes", {})
    monkeypatch.setenv("VECTOR_ASSETS_FAIL_AT", f"{point}:1:raise")
    with pytest.raises(FatalError, match="failpoint"):
        world.rewrite()
    monkeypatch.delenv("VECTOR_ASSETS_FAIL_AT")
    world.drain()
    record = world.books.ledger.batch("numbers", "memory://rows", 3)
    assert (record.state, record.kind) == (State.DONE, BatchKind.REWRITE)
    assert world.rewrite() == [4]
    assert world.names == [f"{n}.b" for n in range(8)]
    assert world.reconcile().is_right()


@pytest.mark.parametrize("seed", SEEDS)
def test_every_record_has_one_row_whatever_comes_between(world, seed):
    """Live batches, rewrites of any past batch by ever newer code, and dead letters replayed, in any order."""
    chance = random.Random(seed)
    for number in range(30):
        step(world, chance, number)
        records = [int(name.split(".")[0]) for name in world.names]
        assert len(set(records)) == len(records), f"a record has two rows after step {number}"
    world.code = Code("z")
    world.drain()
    world.replay_letters()
    world.rewrite()
    world.rewrite(again=True)
    assert world.names == sorted(f"{n}.z" for n in range(len(world.source.splits["s/0"])))
    found = world.reconcile()
    assert found.is_right(), (found.counts, found.findings, [e for e in found.equations if not e.holds])
