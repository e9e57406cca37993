"""Groups moved from batch to batch in memory: what is kept of them, and what ends when, over both ledgers."""

import threading
from collections import Counter
from dataclasses import dataclass, replace

import pytest

from tests.declare.scripts import SOURCE, one
from tests.engine.memory import Keyed, KeyedSink, MemorySource, World, numbers
from vector_assets.engine import keyed_state, operate
from vector_assets.engine.books_check import check_books
from vector_assets.engine.core import Merge
from vector_assets.engine.errors import (
    ConfigError,
    ExpiredError,
    FatalError,
    PlanError,
    StateLostError,
    TransientError,
)
from vector_assets.engine.explain import explain_key, explain_offset
from vector_assets.engine.group_files import GroupFiles
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.past_groups import PastGroups, kept_groups, last_done, rebuild_state
from vector_assets.engine.preview import preview
from vector_assets.engine.reconcile import reconcile
from vector_assets.engine.retention import apply_retention
from vector_assets.engine.rewrite import Selection, rewrite
from vector_assets.engine.run import Runner
from vector_assets.engine.session import Books
from vector_assets.engine.stages import Stages

HOUR_OPEN = "2999-01-01-00:00"
DAY_MS = 86_400_000
SINK = "CREATE TABLE dst (id BIGINT, name STRING, PRIMARY KEY (id) NOT ENFORCED) WITH ('connector' = 'print');\n"
SELECT = "INSERT INTO dst SELECT MOD(id, 7), CAST(COUNT(*) AS STRING) FROM src GROUP BY MOD(id, 7);"


@dataclass
class Counting(World):
    """Records by the rest of their id when divided by seven."""

    select: str = SELECT

    def __post_init__(self) -> None:
        super().__post_init__()
        self.sink = KeyedSink(self.cell, merge=Merge.LAST, table=Keyed())

    def pipeline(self):
        made = one(SOURCE + SINK + self.select)
        return replace(super().pipeline(), transforms=made.transforms, aggregation=made.aggregation)

    def run(self):
        with self.session() as session:
            return list(Runner(session).drain(HOUR_OPEN))

    def add(self, ids):
        self.source.splits["t@a/0"] += numbers(ids)

    def wanted(self) -> dict[int, str]:
        values = (value for records in self.source.splits.values() for value in records)
        ids = (int(value.partition(b",")[0]) for value in values if b"," in value)
        return {key: str(count) for key, count in Counter(number % 7 for number in ids).items()}

    def files(self) -> list[str]:
        return sorted(path.name for path in self.books.archive.root.rglob("*.groups.*.parquet"))

    def kept(self) -> GroupFiles:
        return GroupFiles(self.books.ledger, self.books.archive, "numbers", "memory://rows")


@pytest.fixture
def world(tmp_path, ledger_location) -> Counting:
    source = MemorySource({"t@a/0": numbers(range(60)), "t@a/1": numbers(range(100, 140))})
    made = Counting(tmp_path, source, settings={"vector-assets.batch.max-rows": "10"})
    made.books.close()
    made.books = Books(Ledger(ledger_location), made.books.archive)
    yield made
    made.books.close()


@pytest.fixture
def few_deltas(monkeypatch):
    """All groups are written again after every third batch."""
    monkeypatch.setattr(keyed_state, "_MOST_DELTAS", 3)


def test_every_record_is_counted_once(world):
    world.run()
    assert world.sink.table.rows == world.wanted()
    world.add([7, 14])
    world.run()
    assert world.sink.table.rows == world.wanted()
    assert world.run() == []
    assert check_books(world.books).findings == ()


@pytest.mark.parametrize("step", ["planned", "sealed", "staged", "committing", "committed", "done"])
def test_a_failure_between_any_two_states_counts_nothing_twice(world, monkeypatch, step):
    monkeypatch.setattr("vector_assets.engine.env._passes", {})
    monkeypatch.setenv("VECTOR_ASSETS_FAIL_AT", f"{step}:2:raise")
    with world.session() as session, pytest.raises(FatalError, match="failpoint"):
        list(Runner(session).drain(HOUR_OPEN))
    monkeypatch.delenv("VECTOR_ASSETS_FAIL_AT")
    world.run()
    assert world.sink.table.rows == world.wanted()


def test_a_failure_in_one_session_is_gone_on_with_in_the_same(world):
    """What is in memory is ahead of what counts: it has to be read again."""
    world.sink.before = [FatalError("the target is gone")]
    commit = world.sink.commit

    def failing(staged):
        if world.sink.before:
            raise world.sink.before.pop()
        return commit(staged)

    world.sink.commit = failing
    with world.session() as session:
        with pytest.raises(FatalError, match="gone"):
            list(Runner(session).drain(HOUR_OPEN))
        list(Runner(session).drain(HOUR_OPEN))
    assert world.sink.table.rows == world.wanted()


def test_a_batch_waits_for_the_groups_of_the_one_before(world, monkeypatch):
    """The first batch is slow to be prepared; the second comes to its groups first, and waits."""
    waited, prepare = threading.Event(), Stages.decode

    def slow(self, raw, *rest):
        if raw.column("offset")[0].as_py() == 0:
            assert waited.wait(30)
        else:
            waited.set()
        return prepare(self, raw, *rest)

    monkeypatch.setattr(Stages, "decode", slow)
    world.run()
    assert world.sink.table.rows == world.wanted()


def test_a_batch_whose_predecessor_fails_does_not_wait_for_ever(world, monkeypatch):
    prepare = Stages.decode

    def failing(self, raw, *rest):
        if raw.column("offset")[0].as_py() == 0:
            raise TransientError("no registry")
        return prepare(self, raw, *rest)

    monkeypatch.setattr(Stages, "decode", failing)
    world.settings["vector-assets.outage.timeout"] = "1 s"
    with pytest.raises(TransientError, match="no registry"):
        world.run()
    monkeypatch.undo()
    world.run()
    assert world.sink.table.rows == world.wanted()


def test_files_of_older_groups_go_when_all_are_written_again(world, few_deltas):
    world.run()
    kept = world.kept().all()
    bases = [each.seq for each in kept if each.is_start]
    assert len(bases) == 2, "the newest and the one before it"
    assert [each.seq for each in kept] == list(range(bases[0], kept[-1].seq + 1))
    assert len(world.files()) == len(kept)
    world.add(range(50))
    world.run()
    assert world.sink.table.rows == world.wanted()


def test_a_damaged_file_stops_and_an_older_one_brings_the_groups_back(world, few_deltas):
    world.run()
    newest = [each for each in world.kept().all() if each.is_start][-1]
    path = world.books.archive.root / newest.file.path
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    world.add([1])
    with pytest.raises(StateLostError, match=r"STATE_LOST: numbers: the file of batch \d+ cannot be used"):
        world.run()
    with world.session() as session, session.leased() as stages:
        done = rebuild_state(stages)
    assert done.groups == 7
    assert 0 < done.replayed < done.seq
    world.run()
    assert world.sink.table.rows == world.wanted()


def test_groups_that_were_never_kept_are_missed_before_anything_is_written(world):
    world.run()
    world.books.ledger.store.change("DELETE FROM group_files", ())
    for path in world.books.archive.root.rglob("*.groups.*.parquet"):
        path.unlink()
    world.add([1])
    before = dict(world.sink.table.rows)
    with pytest.raises(StateLostError, match="no batch up to 10 left a file of all groups"):
        world.run()
    assert world.sink.table.rows == before
    with world.session() as session, session.leased() as stages:
        assert rebuild_state(stages).replayed == 10
    world.run()
    assert world.sink.table.rows == world.wanted()


def test_retention_leaves_what_could_make_the_groups_again(world, few_deltas):
    world.settings["vector-assets.retention.archive"] = "7 d"
    world.run()
    world.books.ledger.store.change("UPDATE batches SET done_ms = done_ms - ?", (30 * DAY_MS,))
    with world.session() as session:
        plan = apply_retention(session)
    oldest = min(each.seq for each in world.kept().all() if each.is_start)
    assert plan.expiring
    assert max(batch.seq for batch in plan.expiring) <= oldest
    with world.session() as session, session.leased() as stages:
        assert rebuild_state(stages).groups == 7
        past = PastGroups(stages, is_anew=True)
        with pytest.raises(ExpiredError, match=r"cannot be made again: retention removed .* --drop-state"):
            past.go_to(10)
    world.add([1])
    world.run()
    assert world.sink.table.rows == world.wanted()


def test_without_a_file_of_all_groups_retention_waits(world):
    world.settings["vector-assets.retention.archive"] = "7 d"
    world.run()
    world.books.ledger.store.change("UPDATE batches SET done_ms = done_ms - ?", (30 * DAY_MS,))
    world.books.ledger.store.change("UPDATE group_files SET kind = 'delta'", ())
    with world.session() as session:
        assert apply_retention(session).is_empty


def test_a_reset_has_to_say_what_becomes_of_the_groups(world):
    world.run()
    with world.session() as session, pytest.raises(ConfigError, match=r"--drop-state .* --keep-state"):
        operate.reset(session, "earliest", reason="")
    with world.session() as session:
        operate.reset(session, "earliest", reason="again", groups="drop")
    world.run()
    assert world.sink.table.rows == world.wanted()
    with world.session() as session, session.leased() as stages:
        past, kept = PastGroups(stages, is_anew=True), kept_groups(stages, last_done(stages))
        past.go_to(last_done(stages).seq)
        assert past.groups.count() == kept.count() == 7
        assert sorted(past.groups.whole().to_pylist(), key=str) == sorted(kept.whole().to_pylist(), key=str)
    with world.session() as session:
        operate.reset(session, "earliest", reason="twice", groups="keep")
    world.run()
    assert world.sink.table.rows == {key: str(2 * int(count)) for key, count in world.wanted().items()}


def test_a_reset_of_a_pipeline_without_groups_takes_no_word_of_them(tmp_path):
    plain = World(tmp_path, MemorySource({"t@a/0": numbers(range(3))}))
    with plain.session() as session, pytest.raises(ConfigError, match="keeps no state: it has no GROUP BY"):
        operate.reset(session, "earliest", reason="", groups="drop")


def test_a_batch_of_groups_cannot_be_rewritten_by_itself(world):
    world.run()
    with world.session() as session, pytest.raises(PlanError, match=r"cannot be rewritten by itself.*--drop-state"):
        list(rewrite(Runner(session), Selection()))


def test_reconcile_holds_the_target_against_the_groups(world):
    world.run()
    with world.session() as session:
        found = reconcile(session)
        assert found.is_right(), (found.counts, found.equations)
        assert (found.expected_rows, found.target_rows) == (7, 7)
    world.sink.table.rows |= {1: "99", 55: "1"}
    del world.sink.table.rows[2]
    with world.session() as session:
        found = reconcile(session)
    assert found.counts == {"altered": 1, "foreign": 1, "missing": 1}
    assert {(f.kind, f.key["id"], f.columns) for f in found.findings} == {
        ("altered", 1, ("name",)), ("foreign", 55, ()), ("missing", 2, ()),
    }  # fmt: skip
    assert not found.is_right()


def test_explain_tells_the_group_of_a_record_and_the_batches_of_a_group(world):
    world.run()
    with world.session() as session:
        (story,) = explain_offset(session, "t@a/0", 9)
        assert [(row.fate, row.key) for row in story.rows] == [("counted", {"MOD(id, 7)": 2})]
        told = explain_key(session, {"id": 2})
    assert told.row == {"id": 2, "name": world.wanted()[2]}
    assert [change.batch for change in told.changes][:2] == [10, 9]


def test_preview_counts_the_records_that_it_shows(world):
    found = preview(world.pipeline(), None, None, records=8)
    assert found.rows.drop_columns("_position").sort_by("id").to_pylist()[0] == {"id": 0, "name": "2"}
    assert found.rows.num_rows == 7
    assert world.books.ledger.batches("numbers") == []


def test_a_target_that_keeps_the_first_row_is_refused(world):
    world.sink.merge = Merge.FIRST
    with pytest.raises(PlanError, match="takes inserts only; choose an upsert mode of the sink"):
        world.run()
