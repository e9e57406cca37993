"""Gap policies in the engine alone: any source that says where it can be read on from."""

from dataclasses import dataclass, field

import pytest

from tests.engine.memory import MemoryOptions, MemorySource, World, numbers
from vector_assets.engine.core import BatchKind, Span
from vector_assets.engine.errors import PositionLostError
from vector_assets.engine.run import Runner

OPEN = "2999-01-01-00:00"
SKIP = {"vector-assets.on-position-lost": "skip"}
FROM_ARCHIVE = {"vector-assets.on-position-lost": "from_archive"}


@dataclass
class Expiring(MemorySource):
    """Holds the records of a split from `first` on; `at_read` makes it notice only when it reads."""

    first: dict[str, int] = field(default_factory=dict)
    at_read: bool = False

    def plan(self, start, limit):
        if not self.at_read:
            self._check(start)
        return super().plan(start, limit)

    def read(self, span: Span, limit):
        self._check(span.start)
        return super().read(span, limit)

    def _check(self, start):
        lost = {s: (start[s], first) for s, first in self.first.items() if s in start and start[s] < first}
        if lost:
            raise PositionLostError("expired", "TRUNCATED", lost, {s: end for s, (_, end) in lost.items()})

    def number(self, token):
        return token

    def token(self, number, before):
        return number


@pytest.fixture
def world(tmp_path) -> World:
    world = World(tmp_path, Expiring({"t@a/0": numbers(range(40)), "t@a/1": numbers(range(100, 130))}))
    drain(world)
    world.source.splits["t@a/0"] += numbers(range(40, 100))
    world.source.first = {"t@a/0": 70}
    return world


def drain(world):
    with world.session() as session:
        return list(Runner(session).drain(OPEN))


def ids(world):
    return sorted(row[0] for row in world.cell.rows)


def gaps(world):
    found = world.books.ledger.gaps("numbers")
    return [(gap.split, gap.start, gap.end, gap.policy, gap.state, gap.seq) for gap in found]


@pytest.mark.parametrize("at_read", [False, True], ids=["when-planning", "when-reading"])
def test_skip_moves_over_the_gap_by_a_batch_without_records(world, at_read):
    world.settings, world.source.at_read = SKIP, at_read
    outcomes = drain(world)
    (closing,) = [outcome.batch for outcome in outcomes if outcome.batch.kind is BatchKind.RESET]
    assert closing.span.short() == "0:40-70"
    assert gaps(world) == [("t@a/0", 40, 70, "skip", "skipped", closing.seq)]
    assert ids(world) == [*range(40), *range(70, 100), *range(100, 130)]
    assert drain(world) == []


def test_a_loss_whose_end_the_source_does_not_know_cannot_be_skipped(world):
    world.settings = SKIP
    world.source.first, world.source.splits["t@a/0"] = {}, numbers(range(5))
    with pytest.raises(PositionLostError, match="BEYOND_END"):
        drain(world)
    assert gaps(world) == [("t@a/0", 5, None, "skip", "open", None)]


def test_own_archive_fills_a_gap_after_the_position_went_back(world):
    drain_all_of(world)
    ledger = world.books.ledger
    # a ledger and a target restored from yesterday's copy: both stand where they stood then
    for batch in [b for b in ledger.batches("numbers") if b.span.start.get("t@a/0", 0) >= 40]:
        ledger.store.change("DELETE FROM batches WHERE seq = ?", (batch.seq,))
        del world.cell.batches[batch.seq]
    ledger.store.change("UPDATE positions SET next = '40' WHERE split = 't@a/0'")
    world.cell.next["t@a/0"] = 40
    world.cell.rows = [row for row in world.cell.rows if not 40 <= row[0] < 100]
    world.source.first = {"t@a/0": 70}
    world.settings = FROM_ARCHIVE
    drain(world)
    assert {gap[3:5] for gap in gaps(world)} == {("from_archive", "filled")}
    assert ids(world) == [*range(100), *range(100, 130)]


def drain_all_of(world):
    world.source.first = {}
    drain(world)


def test_the_continuous_run_of_a_bounded_pipeline_ends(world, monkeypatch):
    monkeypatch.setattr(MemoryOptions, "is_finished", lambda _, position: position["t@a/0"] == 100)
    world.source.first = {}
    with world.session() as session:
        assert not session.is_finished()
        outcomes = list(Runner(session).follow())
        assert session.is_finished()
    assert outcomes
    assert ids(world) == [*range(100), *range(100, 130)]


def test_a_source_without_numbers_fails_under_from_archive(tmp_path):
    @dataclass
    class Nameless(Expiring):
        number = token = None

    world = World(tmp_path, Nameless({"t@a/0": numbers(range(40))}))
    world.source.first, world.settings = {"t@a/0": 3}, FROM_ARCHIVE
    with pytest.raises(PositionLostError, match="expired"):
        drain(world)
    assert gaps(world) == [("t@a/0", 0, 3, "from_archive", "open", None)]
