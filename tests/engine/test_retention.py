"""What is too old goes, from the old end, in an order that may be interrupted; the sums stay what they were."""

import pytest

from tests.engine.memory import MemorySource, World, numbers
from vector_assets.engine import operate
from vector_assets.engine.archive import Archive
from vector_assets.engine.books_check import check_books
from vector_assets.engine.core import Merge
from vector_assets.engine.errors import ConfigError, ExpiredError, FatalError
from vector_assets.engine.pipeline import PipelineSettings
from vector_assets.engine.retention import apply_retention, check_letters, plan_retention
from vector_assets.engine.run import Runner

WHERE = ("numbers", "memory://rows")
HOUR_OPEN = "2999-01-01-00:00"
DAY_MS = 86_400_000
ARCHIVE = {"vector-assets.retention.archive": "7 d"}
LEDGER = {"vector-assets.retention.ledger": "30 d"}
LETTERS = {"vector-assets.retention.dead-letters": "30 d"}


@pytest.fixture
def world(tmp_path) -> World:
    """Batches of ten records, with a reject in the first and in the fourth."""
    records = numbers(range(60))
    records[3] = records[33] = b"poison"
    world = World(tmp_path, MemorySource({"t@a/0": records}), settings={"vector-assets.batch.max-rows": "10"})
    drain(world)
    yield world
    world.books.close()


def drain(world):
    with world.session() as session:
        return list(Runner(session).drain(HOUR_OPEN))


def age(world, days, up_to):
    """The batches up to this number, and their dead letters, are that old."""
    store = world.books.ledger.store
    store.change("UPDATE batches SET done_ms = done_ms - ? WHERE seq <= ?", (days * DAY_MS, up_to))
    store.change("UPDATE dead_letters SET created_ms = created_ms - ? WHERE seq <= ?", (days * DAY_MS, up_to))


def apply(world):
    with world.session() as session:
        return apply_retention(session)


def files(world):
    return sorted(path.name for path in world.books.archive.root.rglob("*.parquet"))


def books(world):
    ledger = world.books.ledger
    return ledger.totals(*WHERE), ledger.states(*WHERE), ledger.position(*WHERE), ledger.newest_seq(*WHERE)


def test_without_a_setting_everything_is_kept(world):
    age(world, 5000, up_to=99)
    before = files(world)
    assert plan_retention(world.books.ledger, world.pipeline()).is_empty
    assert apply(world).is_empty
    assert files(world) == before


def test_records_leave_the_archive_and_everything_else_stays(world):
    world.settings |= ARCHIVE
    age(world, 8, up_to=3)
    before, count = books(world), len(files(world))
    plan = plan_retention(world.books.ledger, world.pipeline())
    assert [row.seq for row in plan.expiring] == [1, 2, 3]
    assert plan.bytes > 0
    assert len(files(world)) == count  # a plan changes nothing
    apply(world)
    assert [name for name in files(world) if int(name[:10]) <= 3] == []
    assert books(world) == before
    assert [b.expired_ms is not None for b in world.books.ledger.batches(*WHERE)] == [True] * 3 + [False] * 3
    assert check_books(world.books, deep=True).findings == ()
    assert apply(world).is_empty
    assert drain(world) == []


def test_old_batches_fold_into_one_sum_and_one_position(world):
    world.settings |= LEDGER
    age(world, 31, up_to=2)
    before = books(world)
    apply(world)
    assert books(world) == before
    fold = world.books.ledger.fold(*WHERE)
    assert (fold.seq, fold.batches, fold.counts.records, fold.ends) == (2, 2, 20, {"t@a/0": 20})
    assert [b.seq for b in world.books.ledger.batches(*WHERE)] == [3, 4, 5, 6]
    age(world, 31, up_to=4)
    apply(world)
    assert books(world) == before
    assert world.books.ledger.fold(*WHERE).counts.records == 40
    assert check_books(world.books, deep=True).findings == ()
    world.source.splits["t@a/0"] += numbers([900])
    assert [o.batch.seq for o in drain(world)] == [7]


def test_the_newest_batch_is_never_folded(world):
    world.settings |= LEDGER
    age(world, 31, up_to=99)
    apply(world)
    assert [b.seq for b in world.books.ledger.batches(*WHERE)] == [6]
    world.source.splits["t@a/0"] += numbers([900])
    assert [o.batch.seq for o in drain(world)] == [7]


def test_an_expired_batch_is_left_alone_while_the_target_has_it_and_named_when_not(world):
    world.settings |= ARCHIVE
    age(world, 8, up_to=3)
    apply(world)
    with world.session() as session:
        assert {o.how for o in Runner(session).replay()} == {"found"}
        world.cell.batches.clear()
        world.cell.next.clear()
        world.cell.rows.clear()
        with pytest.raises(ExpiredError, match=r"numbers: batch 1 \(0:0-10\) is expired"):
            list(Runner(session).replay())
    assert world.cell.rows == []


def test_a_folded_batch_is_named(world):
    world.settings |= LEDGER
    age(world, 31, up_to=3)
    apply(world)
    with world.session() as session:
        for options in ({"first": 2}, {"hour": HOUR_OPEN}):
            with pytest.raises(ExpiredError, match=r"batches up to 3 .* are expired"):
                list(Runner(session).replay(**options))
        assert [o.batch.seq for o in Runner(session).replay()] == [4, 5, 6]
    with pytest.raises(ExpiredError, match="batches up to 3"):
        world.books.ledger.batch(*WHERE, 3)
    with pytest.raises(FatalError, match="has no batch 77"):
        world.books.ledger.batch(*WHERE, 77)


def test_dead_letters_lose_their_bytes_by_age(world):
    world.settings |= LETTERS
    age(world, 31, up_to=3)
    plan = plan_retention(world.books.ledger, world.pipeline())
    assert (len(plan.letters), plan.open_letters) == (1, 1)
    apply(world)
    letters = world.books.ledger.dead_letters
    assert [(x.offset, x.state, letters.get(x.id).value) for x in letters.listed(state=None)] == [
        (3, "purged", None),
        (33, "open", b"poison"),
    ]
    assert [what for _, what, _ in world.books.ledger.events("numbers")] == ["retention"]


@pytest.mark.parametrize("died_after", ["ledger", "files"])
def test_a_retention_that_was_killed_goes_on(world, monkeypatch, died_after):
    world.settings |= LEDGER
    age(world, 31, up_to=3)
    before, remove = books(world), Archive.remove_batch

    def dying(archive, file):
        if died_after == "files":
            remove(archive, file)
        raise FatalError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Archive, "remove_batch", dying)
        with pytest.raises(FatalError, match="killed"):
            apply(world)
    assert books(world) == before
    with world.session() as session:
        # known by now to be expired, whether the files are gone or not
        assert {o.how for o in Runner(session).replay()} == {"found"}
    assert world.books.ledger.batch(*WHERE, 3).expired_ms is not None
    apply(world)
    assert world.books.ledger.fold(*WHERE).seq == 3
    assert [name for name in files(world) if int(name[:10]) <= 3] == []
    assert books(world) == before


def test_nothing_newer_than_an_unfinished_batch_goes(world):
    world.settings |= ARCHIVE
    world.source.splits["t@a/0"] += numbers([900])
    world.sink.before = [FatalError("gone")]
    with pytest.raises(FatalError, match="gone"):
        drain(world)
    age(world, 8, up_to=99)
    assert [row.seq for row in plan_retention(world.books.ledger, world.pipeline()).expiring] == [1, 2, 3, 4, 5, 6]


def test_an_unfinished_replay_of_dead_letters_keeps_everything(world):
    world.settings |= ARCHIVE | LETTERS
    world.sink.before = [FatalError("gone")]
    with world.session() as session, pytest.raises(FatalError, match="gone"):
        operate.replay_dead_letters(session, session.ledger.dead_letters.listed())
    age(world, 40, up_to=99)
    plan = plan_retention(world.books.ledger, world.pipeline())
    assert (plan.waits_for, plan.is_empty) == (7, True)


def test_a_letter_whose_later_keys_are_forgotten_is_not_written_over_them(world):
    world.settings |= ARCHIVE
    age(world, 8, up_to=3)
    apply(world)
    letters = world.books.ledger.dead_letters.listed()
    check_letters(world.books.ledger, letters, Merge.FIRST)
    check_letters(world.books.ledger, letters[1:], Merge.LAST)
    with pytest.raises(ExpiredError, match="batches up to 3 tell of their keys"):
        check_letters(world.books.ledger, letters, Merge.LAST)


@pytest.mark.parametrize("value", ["0 d", "soon", "-1 d"])
def test_a_limit_that_means_nothing_is_refused(value):
    with pytest.raises(ConfigError, match=r"vector-assets\.retention\.archive"):
        PipelineSettings.parse({"vector-assets.retention.archive": value}, "SET")
