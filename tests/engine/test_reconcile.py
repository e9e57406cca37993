"""Reconcile and rewrite over a target in memory: every kind of difference by name, and no row ever moves backwards."""

import random
from dataclasses import replace

import pyarrow as pa
import pytest

from tests.engine.memory import Keyed, KeyedSink, MemorySource, World, numbers
from vector_assets.engine import env, explain, operate, sidecar, touches
from vector_assets.engine.books_check import check_books
from vector_assets.engine.core import BatchKind, Decoded, Merge, RowKind, State, rejects
from vector_assets.engine.errors import BudgetError, ExpiredError, FatalError, PlanError
from vector_assets.engine.explain import explain_key, explain_offset
from vector_assets.engine.reconcile import Reconciliation, reconcile
from vector_assets.engine.retention import apply_retention
from vector_assets.engine.rewrite import Selection, rewrite
from vector_assets.engine.run import Runner
from vector_assets.engine.sample import reconcile_sample

SEEDS = range(3)


class Code:
    """`id,n,verb`: today's code writes the row `n.code`, -D for verb `del`; it rejects verbs listed in `bad`."""

    def __init__(self, name: str, bad: frozenset[str] = frozenset(), dropped: frozenset[str] = frozenset()) -> None:
        self.name, self.bad, self.dropped = name, bad, dropped

    def decode(self, raw: pa.Table) -> Decoded:
        good, bad, filtered = [], [], 0
        for row in raw.select(["value", "_position"]).to_pylist():
            key, n, verb = row["value"].decode().split(",")
            if verb in self.bad:
                bad.append(row["_position"])
            elif verb in self.dropped:
                filtered += 1
            else:
                kind = {"del": RowKind.DELETE, "upd": RowKind.UPDATE_AFTER}.get(verb, RowKind.INSERT)
                good.append((int(key), f"{n}.{self.name}", int(kind), row["_position"]))
        types = (pa.int64(), pa.string(), pa.int8(), pa.int64())
        columns = [pa.array([row[i] for row in good], kind) for i, kind in enumerate(types)]
        rows = pa.table(columns, names=["id", "name", "_kind", "_position"])
        if all(row[2] == 0 for row in good):
            rows = rows.drop_columns("_kind")
        return Decoded(rows, rejects(bad, "decode", "bad"), filtered=filtered)


class KeyedWorld(World):
    """A world whose sink has a key; `code` decodes."""

    code: Code = Code("a")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.table = Keyed()
        self.sink = KeyedSink(self.cell, Merge.LAST, table=self.table)

    def pipeline(self):
        made = super().pipeline()
        return replace(made, decoder=self.code, transform_text=self.code.name)

    def drain(self) -> None:
        with self.session() as session:
            list(Runner(session).catch_up())

    def rewrite(self, **selection) -> list[int]:
        with self.session() as session:
            return [o.batch.seq for o in rewrite(Runner(session), Selection(**selection))]

    def replay_letters(self) -> None:
        with self.session() as session:
            operate.replay_dead_letters(session, self.books.ledger.dead_letters.listed("numbers"))

    def reconcile(self) -> Reconciliation:
        with self.session() as session:
            return reconcile(session)


@pytest.fixture
def world(tmp_path) -> KeyedWorld:
    return KeyedWorld(
        tmp_path,
        MemorySource({"s/0": []}),
        settings={"vector-assets.batch.max-rows": "5", "vector-assets.error-budget": "100%"},
    )


def produce(world: KeyedWorld, *records: str) -> None:
    world.source.splits["s/0"] += [record.encode() for record in records]


def series(first: int, last: int) -> list[str]:
    return [f"{n},{n},put" for n in range(first, last)]


def test_an_untouched_target_is_right(world):
    produce(world, *series(0, 12), "3,12,del", "4,13,put")
    world.drain()
    found = world.reconcile()
    assert found.is_right(), (found.counts, found.equations)
    assert (found.expected_rows, found.target_rows, found.last) == (11, 11, 3)


def test_a_pipeline_that_never_ran_is_right_over_an_empty_target_only(world):
    assert world.reconcile().is_right()
    world.table.rows[1] = "x"
    assert world.reconcile().counts == {"foreign": 1}


@pytest.mark.parametrize("merge", [Merge.LAST, Merge.FIRST])
@pytest.mark.parametrize(
    ("change", "kind", "columns", "offset"),
    [
        (lambda rows: rows.pop(7), "missing", (), 7),
        (lambda rows: rows.update({7: "x"}), "altered", ("name",), 7),
        (lambda rows: rows.update({99: "x"}), "foreign", (), None),
    ],
    ids=["removed", "altered", "foreign"],
)
def test_one_row_that_differs_is_named_with_its_origin(world, merge, change, kind, columns, offset):
    world.sink.merge = merge
    produce(world, *series(0, 12))
    world.drain()
    change(world.table.rows)
    found = world.reconcile()
    assert not found.is_right()
    assert found.counts == {kind: 1}
    (finding,) = found.findings
    assert (finding.key, finding.columns) == ({"id": 99 if offset is None else 7}, columns)
    if offset is not None:
        assert (finding.origin.split, finding.origin.offset, finding.origin.batch) == ("s/0", 7, 2)
    assert found.is_right(foreign_ok=True) == (kind == "foreign")


def test_a_row_that_was_deleted_and_is_there_is_unexpected(world):
    produce(world, "1,0,put", "1,1,del")
    world.drain()
    world.table.rows[1] = "0.a"
    found = world.reconcile()
    assert found.counts == {"unexpected": 1}
    assert found.findings[0].origin.offset == 1


def test_a_doubled_row_of_an_append_target_is_named(tmp_path):
    world = World(tmp_path, MemorySource({"s/0": numbers(range(8))}))
    world.sink.as_stored = lambda rows: rows.select(["id", "name", "_position"])
    names = ["id", "name"]
    world.sink.scan = lambda: iter(
        [pa.record_batch([pa.array([row[i] for row in world.cell.rows]) for i in (0, 1)], names=names)]
    )
    with world.session() as session:
        list(Runner(session).catch_up())
    with world.session() as session:
        assert reconcile(session).is_right()
    world.cell.rows.append((5, "n5"))
    with world.session() as session:
        found = reconcile(session)
    assert found.counts == {"doubled": 1}
    assert (found.findings[0].key, found.findings[0].origin.offset) == ({"id": 5, "name": "n5"}, 5)


def test_dead_letters_that_landed_are_expected_and_refused_rows_are_not(world):
    world.code = Code("a", bad=frozenset({"odd"}))
    world.sink.refuse = frozenset({9})
    produce(world, *series(0, 6), "6,6,odd", "9,7,put", "10,8,put")
    world.drain()
    assert world.reconcile().is_right()
    world.code = Code("a")
    world.replay_letters()
    assert world.table.rows[6] == "6.a"
    found = world.reconcile()
    assert found.is_right(), (found.counts, found.equations)


def test_rows_of_older_code_are_named_as_such_and_a_rewrite_mends_them(world):
    produce(world, *series(0, 12))
    world.drain()
    world.code = Code("b")
    found = world.reconcile()
    assert found.counts == {"other_code": 12}
    assert world.rewrite() == [4, 5, 6]
    found = world.reconcile()
    assert found.is_right(), (found.counts, found.equations)
    assert set(world.table.rows.values()) == {f"{n}.b" for n in range(12)}
    assert world.rewrite() == []
    assert world.rewrite(again=True) == [7, 8, 9]
    assert world.books.ledger.batch("numbers", "memory://rows", 4).root == 1


def test_counts_that_the_target_does_not_confirm_break_an_equation(world):
    produce(world, *series(0, 3))
    world.drain()
    del world.cell.batches[1]
    found = world.reconcile()
    assert [e.name for e in found.equations if not e.holds] == ["batches the target counts otherwise = 0"]


def test_a_sink_that_cannot_be_read_back_is_not_verified(tmp_path):
    world = World(tmp_path, MemorySource({"s/0": []}))
    with world.session() as session, pytest.raises(PlanError, match="cannot read its target back"):
        reconcile(session)


def test_an_append_target_is_not_rewritten(tmp_path):
    world = World(tmp_path, MemorySource({"s/0": numbers(range(3))}))
    with world.session() as session:
        list(Runner(session).catch_up())
        with pytest.raises(PlanError, match="would double them"):
            list(rewrite(Runner(session), Selection()))


def test_a_rewrite_leaves_later_rows_alone_and_counts_them(world):
    produce(world, "1,0,put", "2,1,put", "3,2,put", "4,3,put", "5,4,put", "2,5,put", "3,6,del")
    world.drain()
    world.code = Code("b")
    world.rewrite(last=1)
    assert world.table.rows == {1: "0.b", 2: "5.a", 4: "3.b", 5: "4.b"}
    counts = world.books.ledger.batch("numbers", "memory://rows", 3).counts
    assert (counts.records, counts.superseded, counts.written) == (5, 2, 3)


def test_under_ignore_the_first_row_of_a_key_is_the_one_that_is_rewritten(world):
    world.sink.merge = Merge.FIRST
    produce(world, "1,0,put", "1,1,put", "2,2,put", "3,3,put", "4,4,put", "1,5,put", "6,6,put")
    world.drain()
    world.code = Code("b")
    world.rewrite()
    assert world.table.rows == {1: "0.b", 2: "2.b", 3: "3.b", 4: "4.b", 6: "6.b"}
    assert world.reconcile().is_right()


def test_what_todays_code_rejects_becomes_a_dead_letter_once_and_what_it_drops_is_counted(world):
    produce(world, "1,0,put", "2,1,odd", "3,2,even")
    world.drain()
    world.code = Code("b", bad=frozenset({"odd"}), dropped=frozenset({"even"}))
    world.rewrite()
    world.rewrite(again=True)
    (letter,) = world.books.ledger.dead_letters.listed("numbers")
    assert (letter.seq, letter.origin_seq, letter.split, letter.offset, letter.attempt) == (2, 1, "s/0", 1, 1)
    assert world.books.ledger.batch("numbers", "memory://rows", 2).note.startswith("2 keys of batch 1 are no longer")
    world.code = Code("c")
    world.replay_letters()
    assert world.table.rows[2] == "1.c"


def test_a_letter_does_not_overwrite_a_later_row_of_its_own_batch(world):
    world.code = Code("a", bad=frozenset({"odd"}))
    produce(world, "1,0,odd", "1,1,put", "2,2,put", "2,3,odd")
    world.drain()
    world.code = Code("b")
    world.replay_letters()
    assert world.table.rows == {1: "1.a", 2: "3.b"}
    world.rewrite()
    assert world.table.rows == {1: "1.b", 2: "3.b"}
    found = world.reconcile()
    assert found.is_right(), (found.counts, found.findings)


def test_two_keys_of_one_hash_are_told_apart(world, monkeypatch):
    real = sidecar.key_hashes

    def weak(rows: pa.Table, key: tuple[str, ...]) -> pa.Array:
        return pa.array([1] * rows.num_rows, pa.uint64()) if key == ("id",) else real(rows, key)

    monkeypatch.setattr(sidecar, "key_hashes", weak)
    produce(world, *series(0, 12), "1,12,put")
    world.drain()
    world.code = Code("b")
    world.rewrite(last=2)
    expected = {n: f"{n}.b" for n in range(10)} | {1: "12.a", 10: "10.a", 11: "11.a"}
    assert world.table.rows == expected


@pytest.mark.parametrize("step", ["sealed", "staged", "committing", "committed", "done"])
def test_a_rewrite_that_crashed_is_finished_once_by_the_next_run(world, monkeypatch, step):
    produce(world, *series(0, 8))
    world.drain()
    world.code = Code("b")
    monkeypatch.setattr(env, "_passes", {})
    monkeypatch.setenv("VECTOR_ASSETS_FAIL_AT", f"{step}:1:raise")
    with pytest.raises(FatalError, match="failpoint"):
        world.rewrite()
    monkeypatch.delenv("VECTOR_ASSETS_FAIL_AT")
    world.drain()
    assert world.books.ledger.batch("numbers", "memory://rows", 3).state is State.DONE
    assert world.books.ledger.batch("numbers", "memory://rows", 3).kind is BatchKind.REWRITE
    assert world.rewrite() == [4]
    assert world.table.history == {n: [f"{n}.a", f"{n}.b"] for n in range(8)}
    assert world.reconcile().is_right()


def step(world: KeyedWorld, chance: random.Random, number: int) -> None:
    """Something that may happen to a pipeline."""
    what = chance.choice(["produce", "drain", "drain", "rewrite", "rewrite", "letters", "code"])
    if what == "produce":
        for _ in range(chance.randint(1, 8)):
            verbs = ["put", "put", "odd", "even"] + (["del"] if world.sink.merge is Merge.LAST else [])
            n = len(world.source.splits["s/0"])
            produce(world, f"{chance.randint(0, 9)},{n},{chance.choice(verbs)}")
    elif what == "drain":
        world.drain()
    elif what == "rewrite" and (last := len(world.books.ledger.batches("numbers"))):
        first = chance.randint(1, last)
        world.rewrite(first=first, last=chance.randint(first, last), again=True)
    elif what == "letters":
        world.replay_letters()
    else:
        world.code = Code(str(number), bad=frozenset(chance.sample(["odd", "even"], chance.randint(0, 1))))


def newest_rows(world: KeyedWorld, code: str) -> dict[int, str]:
    """The last record of every key, by code that takes them all."""
    newest: dict[int, tuple[str, int]] = {}
    for n, record in enumerate(world.source.splits["s/0"]):
        key, _, verb = record.decode().split(",")
        newest[int(key)] = (verb, n)
    return {key: f"{n}.{code}" for key, (verb, n) in newest.items() if verb != "del"}


@pytest.mark.parametrize("merge", [Merge.LAST, Merge.FIRST])
@pytest.mark.parametrize("seed", SEEDS)
def test_no_row_moves_backwards_whatever_comes_between(world, merge, seed):
    """Live batches, rewrites of any past batch by ever newer code, and dead letters replayed, in any order."""
    chance, world.sink.merge = random.Random(seed), merge
    for number in range(30):
        step(world, chance, number)
    world.code = Code("z")
    world.drain()
    world.rewrite()
    world.replay_letters()
    # a letter whose record had landed under older code meets its own row there
    world.rewrite(again=True)
    for key, names in world.table.history.items():
        places = [int(name.split(".")[0]) for name in names]
        if merge is Merge.LAST:
            assert places == sorted(places), f"key {key} moved backwards: {names}"
        else:
            assert len(set(places)) == 1, f"key {key} changed its owner: {names}"
    if merge is Merge.LAST:
        assert world.table.rows == newest_rows(world, "z")
    found = world.reconcile()
    assert found.is_right(), (found.counts, found.findings, [e for e in found.equations if not e.holds])


def test_the_index_of_touched_keys_is_kept_small(world):
    world.settings["vector-assets.batch.max-rows"] = "1"
    produce(world, *[f"{n % 3},{n},put" for n in range(40)])
    world.drain()
    world.code = Code("b")
    with world.session() as session:
        list(rewrite(Runner(session), Selection(last=5)))
        assert sum(len(part.hashes) for part in session._touches.parts()) <= 3 * (touches._SEGMENTS + 1)
    assert world.table.rows == {0: "39.a", 1: "37.a", 2: "38.a"}


def test_a_rewrite_leaves_the_rejects_that_a_rebuild_reads(world):
    world.code = Code("a", frozenset({"bad"}))
    produce(world, "1,0,put", "2,1,bad", "3,2,put")
    world.drain()
    (root,) = world.books.ledger.batches("numbers")
    before = world.books.archive.rejects_of(root.archive)
    assert before is not None
    assert before[0].num_rows == 1
    world.code = Code("b", frozenset({"bad"}))
    assert world.rewrite() == [2]
    assert world.books.archive.rejects_of(root.archive) == before


RETENTION = {"vector-assets.retention.archive": "7 d"}
FOLDING = {"vector-assets.retention.ledger": "7 d"}
KEPT = pytest.mark.parametrize("kept", [RETENTION, FOLDING], ids=["expired", "folded"])


def expire(world: KeyedWorld, up_to: int, kept: dict[str, str]) -> None:
    world.settings |= kept
    world.books.ledger.store.change("UPDATE batches SET done_ms = done_ms - 864000000 WHERE seq <= ?", (up_to,))
    with world.session() as session:
        apply_retention(session)


@KEPT
def test_a_rewrite_does_not_put_a_row_in_the_place_of_one_whose_batch_is_expired(world, kept):
    world.sink.merge = Merge.FIRST
    produce(world, *series(0, 5), *[f"{n},9{n},put" for n in range(5)], *series(10, 15), *series(20, 25))
    world.drain()
    before = dict(world.table.rows)
    expire(world, 1, kept)
    world.code = Code("b")
    with pytest.raises(ExpiredError, match=r"batches 2 hold rows that gave way .* up to 1 wrote"):
        world.rewrite()
    assert world.table.rows == before
    with pytest.raises(ExpiredError, match=r"expired"):
        world.rewrite(first=1, last=1)
    assert world.rewrite(first=3) == [5, 6]
    assert world.table.rows == before | {n: f"{n}.b" for n in (*range(10, 15), *range(20, 25))}


def test_a_rewrite_writes_no_new_key_that_an_expired_batch_may_own(world):
    world.sink.merge = Merge.FIRST
    world.code = Code("a", dropped=frozenset({"new"}))
    produce(world, *series(0, 5), "7,7,put", "1,91,new", "8,8,put", "9,9,put", "10,10,put")
    world.drain()
    expire(world, 1, RETENTION)
    before, world.code = dict(world.table.rows), Code("b")
    with pytest.raises(ExpiredError, match="batch 2: today's script makes 1 keys"):
        world.rewrite()
    assert world.table.rows == before
    assert world.books.ledger.unfinished("numbers", "memory://rows") == []


@KEPT
def test_a_rewrite_expires_with_the_records_it_was_made_of(world, kept):
    produce(world, *series(0, 12))
    world.drain()
    world.code = Code("b")
    assert world.rewrite(last=1) == [4]
    expire(world, 1, kept)
    assert [b.seq for b in world.books.ledger.batches("numbers") if b.expired_ms] == (
        [1, 4] if kept is RETENTION else [4]
    )
    assert check_books(world.books, deep=True).findings == ()
    names = sorted(path.name for path in world.books.archive.root.rglob("*.parquet"))
    assert not [name for name in names if int(name[:10]) in {1, 4}], names
    assert world.rewrite() == [5, 6]


def test_a_replayed_letter_is_known_until_the_batch_that_replayed_it_folds(world):
    world.code = Code("a", frozenset({"bad"}))
    produce(world, "1,0,bad", *series(2, 12))
    world.drain()
    world.code = Code("a")
    world.replay_letters()
    produce(world, *series(20, 22))
    world.drain()
    expire(world, 1, FOLDING)
    with pytest.raises(ExpiredError, match="dead letter 1 was read by batch 1"):
        world.rewrite(again=True)
    assert world.rewrite(first=2, last=3, again=True) == [6, 7]
    assert world.reconcile().counts.keys() <= {"expired"}


@KEPT
@pytest.mark.parametrize("merge", [Merge.LAST, Merge.FIRST])
def test_rows_of_batches_that_are_expired_are_no_difference(world, merge, kept):
    world.sink.merge = merge
    produce(world, *series(0, 5), *[f"{n},9{n},put" for n in range(2)], *series(10, 16))
    world.drain()
    expire(world, 1, kept)
    found = world.reconcile()
    assert found.is_right(), (found.counts, found.equations)
    # of LAST three rows, of FIRST also the two that gave way
    assert found.counts == {"expired": 3 if merge is Merge.LAST else 5}
    world.table.rows |= dict.fromkeys(range(100, 103), "x")
    assert world.reconcile().counts["foreign"] == 6
    world.table.rows = {key: row for key, row in world.table.rows.items() if key < 100} | {14: "x"}
    assert world.reconcile().counts["altered"] == 1


def test_a_sample_looks_at_updates_and_is_not_right_when_it_saw_nothing(world):
    produce(world, *[f"{n},{n},upd" for n in range(4)], "0,9,del")
    world.drain()
    with world.session() as session:
        assert reconcile_sample(session, 10).sampled == 3
        world.table.rows[2] = "x"
        assert reconcile_sample(session, 10).counts == {"altered": 1}
    produce(world, *[f"{n},{n},del" for n in range(5)])
    world.drain()
    with world.session() as session, pytest.raises(PlanError, match="nothing could be looked at"):
        reconcile_sample(session, 10)


@KEPT
def test_a_record_of_an_expired_batch_is_called_so(world, kept):
    world.sink.merge = Merge.FIRST
    produce(world, *series(0, 5), "1,91,put", "7,7,put", *series(10, 13))
    world.drain()
    expire(world, 1, kept)
    with world.session() as session:
        (story,) = explain_offset(session, "s/0", 3)
        assert (story.status, story.rows) == ("expired", ())
        (story,) = explain_offset(session, "s/0", 5)
        assert [(row.fate, row.by) for row in story.rows] == [("conflict", None)]
        (story,) = explain_offset(session, "s/0", 6)
        assert [row.fate for row in story.rows] == ["written"]
        found = explain_key(session, {"id": 1})
        assert (found.expired_up_to, [change.is_owner for change in found.changes]) == (1, [False])


def test_a_letter_that_was_tried_and_rejected_again_is_rejected(world):
    world.code = Code("a", frozenset({"bad"}))
    produce(world, "1,0,bad", "2,1,put")
    world.drain()
    world.replay_letters()
    with world.session() as session:
        (story,) = explain_offset(session, "s/0", 0)
    assert (story.status, [state for _, state, _ in story.letters]) == ("rejected", ["replayed", "open"])


def test_a_rewrite_over_its_budget_does_not_stand_in_the_way_of_the_next_run(world):
    world.settings["vector-assets.error-budget"] = "0"
    produce(world, "1,0,put", "2,1,put")
    world.drain()
    world.code = Code("b", frozenset({"put"}))
    with pytest.raises(BudgetError):
        world.rewrite()
    produce(world, "3,2,other")
    world.drain()
    assert world.table.rows == {1: "0.a", 2: "1.a", 3: "2.b"}


def test_a_target_that_cannot_be_asked_for_a_row_is_not_said_to_lack_it(world, monkeypatch):
    produce(world, "1,0,put")
    world.drain()
    monkeypatch.setattr(explain, "KeyReadable", Code)
    with world.session() as session:
        (story,) = explain_offset(session, "s/0", 0)
        assert [row.fate for row in story.rows] == ["written"]
        assert not explain_key(session, {"id": 1}).is_read
