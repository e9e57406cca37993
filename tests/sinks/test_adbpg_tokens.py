"""Exactly once: what the target itself refuses, finds and remembers."""

import re
import threading
import time
from dataclasses import replace
from functools import partial

import psycopg
import pytest

from tests.sinks.contract import SCHEMA, SPLIT, Feed, car, rows_of
from vector_assets.engine.abilities import Recalled
from vector_assets.engine.core import POSITION, Batch, BatchToken, Counts, Range, Span
from vector_assets.engine.errors import (
    FatalError,
    FencedError,
    PlanError,
    TargetReplacedError,
    UnavailableError,
    VectorAssetsError,
)
from vector_assets.local import process
from vector_assets.sinks import adbpg_tokens

pytestmark = pytest.mark.service


def ids(cars):
    return [row[0] for row in cars.rows("SELECT id FROM car_info ORDER BY id")]


def positions(cars):
    return cars.rows("SELECT split, next FROM vector_assets.positions ORDER BY split")


def staged_for(sink, token, *rows):
    return sink.stage(Batch(rows_of(*rows)), token)


def token_of(seq, *ranges, fence=1, first=()):
    return BatchToken("cars", "target", seq, Span(tuple(Range(*part) for part in ranges)), fence, frozenset(first))


def in_background(work):
    """Runs `work` in a thread; what it returned or raised is in the list."""
    outcome = []

    def run():
        try:
            outcome.append(work())
        except VectorAssetsError as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def finished(thread, outcome):
    thread.join(30)
    assert not thread.is_alive()
    return outcome[0]


def zombie_of(cars, token, *, also=()):
    """A session that stopped inside the commit of `token`, holding its locks."""
    connection = cars.server.connect(cars.database)
    relation = adbpg_tokens.Tokens("public.car_info", "public", "car_info")
    assert relation.guard(connection, token, str(cars.value("SELECT 'car_info'::regclass::oid")))
    for statement in also:
        connection.execute(statement)
    return connection


def test_positions_and_rows_move_in_one_transaction(make_cars):
    cars = make_cars(
        "CREATE TABLE car_info (id bigint PRIMARY KEY, color varchar(10), feature float4[],"
        " landed_by bigint DEFAULT txid_current())"
    )
    sink = cars.sink()
    first = token_of(1, ("a/0", {"offset": 0}, {"offset": 2}), ("a/1", 5, 6), first=["a/0", "a/1"])
    receipts = [sink.commit(staged_for(sink, first, car(1), car(2), car(3)))]
    assert positions(cars) == [("a/0", '{"offset":2}'), ("a/1", "6")]
    second = token_of(2, ("a/1", 6, 7), ("a/2", None, [1, {"b": 1, "a": 2}]), first=["a/2"])
    receipts.append(sink.commit(staged_for(sink, second, car(4))))
    assert positions(cars) == [("a/0", '{"offset":2}'), ("a/1", "7"), ("a/2", '[1,{"a":2,"b":1}]')]
    landed = cars.rows("SELECT landed_by::text, count(*) FROM car_info GROUP BY 1 ORDER BY 2 DESC")
    assert landed == [(receipts[0].commit_id, 3), (receipts[1].commit_id, 1)]


def test_a_refused_batch_leaves_no_trace_and_may_be_committed_again(cars):
    cars.execute("ALTER TABLE car_info ADD CHECK (color <> 'rust')")
    sink = cars.sink(exceptionmode="strict")
    token = token_of(1, (SPLIT, 0, 2), first=[SPLIT])
    staged = staged_for(sink, token, car(1), car(2, "rust"))
    with pytest.raises(FatalError, match="23514"):
        sink.commit(staged)
    assert (ids(cars), positions(cars)) == ([], [])
    assert sink.find(token, staged.committable) == "ABSENT"
    cars.execute("ALTER TABLE car_info DROP CONSTRAINT car_info_color_check")
    sink.commit(staged)
    assert ids(cars) == [1, 2]


@pytest.mark.parametrize(
    ("ranges", "first", "words"),
    [
        ([(SPLIT, 1, 9)], [], "the batch starts at 1, the target stands at 3"),
        ([(SPLIT, 0, 9)], [SPLIT], "the batch takes it as new, the target stands at 3"),
        ([("other/0", 3, 9)], [], "split other/0: the batch starts at 3, the target stands at no position"),
        ([(SPLIT, 3, 9), ("other/0", 3, 9)], [], "other/0"),
    ],
    ids=["overlap", "taken-as-new", "never-seen", "one-of-two"],
)
def test_a_batch_that_is_not_the_next_one_is_refused_showing_both_places(cars, ranges, first, words):
    sink = cars.sink()
    sink.commit(staged_for(sink, token_of(1, (SPLIT, 0, 3), first=[SPLIT]), car(1)))
    token = token_of(2, *ranges, first=first)
    with pytest.raises(FencedError, match=re.escape(words)):
        sink.commit(staged_for(sink, token, car(2)))
    assert sink.find(token, None) == "UNKNOWN"
    assert (ids(cars), positions(cars)) == ([1], [(SPLIT, "3")])


def test_of_two_sinks_at_one_position_exactly_one_commits(cars):
    sinks = [cars.sink() for _ in range(2)]
    sinks[0].commit(staged_for(sinks[0], token_of(1, (SPLIT, 0, 1), first=[SPLIT]), car(0)))
    for number in range(1, 6):
        tokens = [
            token_of(number + 1, (SPLIT, number, number + 1), fence=1),
            token_of(number + 1, (SPLIT, number, number + 1), (f"x/{number}", 0, 1), fence=2, first=[f"x/{number}"]),
        ]
        staged = [staged_for(sink, token, car(number)) for sink, token in zip(sinks, tokens, strict=True)]
        threads = [in_background(partial(sink.commit, batch)) for sink, batch in zip(sinks, staged, strict=True)]
        outcomes = [finished(*thread) for thread in threads]
        assert sorted(isinstance(outcome, FencedError) for outcome in outcomes) == [False, True]
    assert ids(cars) == list(range(6))


def test_a_batch_that_another_applies_while_it_is_looked_for_is_found(cars, monkeypatch):
    sink, other = cars.sink(), cars.sink()
    token = token_of(1, (SPLIT, 0, 3), first=[SPLIT])
    look = adbpg_tokens.Tokens._positions

    def overtaken(tokens, connection, wanted):
        monkeypatch.undo()
        other.commit(staged_for(other, token, car(1)))
        return look(tokens, connection, wanted)

    monkeypatch.setattr(adbpg_tokens.Tokens, "_positions", overtaken)
    assert sink.find(token, None) == "APPLIED"
    assert ids(cars) == [1]


def test_a_batch_number_is_used_once_even_without_positions(cars):
    sink = cars.sink(conflictmode="update")
    empty = token_of(1, fence=1)
    sink.commit(staged_for(sink, empty, car(1, "first")))
    rival = BatchToken("cars", "elsewhere", 1, Span(), 2)
    with pytest.raises(FencedError, match="batch 1 of pipeline cars is in the target already"):
        sink.commit(staged_for(sink, rival, car(1, "second")))
    assert sink.find(rival, None) == "UNKNOWN"
    assert sink.find(empty, None) == "APPLIED"
    assert sink.find(token_of(2), None) == "ABSENT"
    assert cars.value("SELECT color FROM car_info") == "first"


def test_an_attempt_that_landed_after_all_answers_with_its_receipt(cars):
    cars.execute("ALTER TABLE car_info ADD CHECK (color <> 'rust')")
    sink = cars.sink()
    token = token_of(1, (SPLIT, 0, 2), first=[SPLIT], fence=3)
    staged = staged_for(sink, token, car(1), car(2, "rust"))
    receipt = sink.commit(staged)
    assert sink.commit(staged) == receipt
    assert sink.commit(replace(staged, token=replace(token, fence=4))) == receipt
    with pytest.raises(FencedError, match=r"fence 3; ours is .* fence 2"):
        sink.commit(replace(staged, token=replace(token, fence=2)))
    assert ids(cars) == [1]


def test_the_receipt_outlives_the_process(cars):
    cars.execute("ALTER TABLE car_info ADD CHECK (color <> 'rust')")
    sink = cars.sink()
    token = token_of(1, (SPLIT, 0, 4), first=[SPLIT])
    receipt = sink.commit(staged_for(sink, token, car(1), car(1), car(2, "rust"), car(3)))
    sink.close()
    other = cars.sink()
    assert other.find(token, None) == "APPLIED"
    again = other.receipt(token)
    assert again == receipt
    assert again.counts == Counts(written=2, conflicts=1, refused=1)
    assert again.rejected.column(POSITION).to_pylist() == [2]
    with pytest.raises(FencedError):
        other.receipt(token_of(2, (SPLIT, 4, 5)))


def test_a_zombie_that_holds_the_locks_is_ended(cars):
    sink = cars.sink(conflictmode="update")
    sink.commit(staged_for(sink, token_of(1, (SPLIT, 0, 1), first=[SPLIT]), car(1, "first")))
    token = token_of(2, (SPLIT, 1, 2), fence=1)
    zombie = zombie_of(cars, token, also=["UPDATE car_info SET color = 'zombie'"])
    sink.commit(staged_for(sink, replace(token, fence=2), car(1, "owner")))
    assert cars.rows("SELECT id, color FROM car_info") == [(1, "owner")]
    with pytest.raises(psycopg.OperationalError):
        zombie.commit()
    zombie.close()
    assert positions(cars) == [(SPLIT, "2")]


def test_a_zombie_with_other_batch_numbers_is_ended_too(cars):
    sink = cars.sink()
    sink.commit(staged_for(sink, token_of(1, (SPLIT, 0, 1), first=[SPLIT]), car(1)))
    zombie = zombie_of(cars, token_of(7, (SPLIT, 1, 5), fence=1))
    sink.commit(staged_for(sink, token_of(2, (SPLIT, 1, 2), fence=2), car(2)))
    zombie.close()
    assert ids(cars) == [1, 2]


def test_a_zombie_gives_way_to_a_later_owner_at_work(cars):
    sink = cars.sink()
    sink.commit(staged_for(sink, token_of(1, (SPLIT, 0, 1), first=[SPLIT]), car(1)))
    token = token_of(2, (SPLIT, 1, 2), fence=1)
    owner = zombie_of(cars, replace(token, fence=2))
    with pytest.raises(FencedError, match=r"a later owner .fence 2., ours is 1"):
        sink.commit(staged_for(sink, token, car(2)))
    owner.commit()
    owner.close()
    with pytest.raises(FencedError):
        sink.commit(staged_for(sink, token, car(2)))
    assert ids(cars) == [1]


def test_a_lock_of_somebody_else_is_waited_for_not_broken(cars, monkeypatch):
    monkeypatch.setattr(adbpg_tokens, "_LOCK_TIMEOUT_MS", 100)
    sink = cars.sink()
    staged = staged_for(sink, token_of(1, (SPLIT, 0, 1), first=[SPLIT]), car(1))
    with cars.server.connect(cars.database) as other:
        other.execute("LOCK TABLE car_info IN SHARE MODE")
        with pytest.raises(UnavailableError, match="another session holds a lock"):
            sink.commit(staged)
    sink.commit(staged)
    assert ids(cars) == [1]


def test_sessions_are_named_after_pipeline_and_fence_only_inside_a_commit(cars):
    cars.execute("CREATE TABLE seen (name text)")
    cars.execute(
        "CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO seen VALUES (current_setting('application_name')); RETURN NEW; END $$;"
        "CREATE TRIGGER see AFTER INSERT ON car_info FOR EACH ROW EXECUTE FUNCTION see()"
    )
    sink = cars.sink()
    Feed(sink, fence=12).apply(car(1))
    assert re.fullmatch(r"va:[0-9a-f]{12}:12", str(cars.value("SELECT name FROM seen")))
    idle = cars.rows("SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'v%' AND pid <> 0")
    assert ("vector_assets cars",) in idle
    assert not any(str(name).startswith("va:") for (name,) in idle)


REPLACED = "DROP TABLE car_info; CREATE TABLE car_info (id bigint PRIMARY KEY, color varchar(10), feature float4[])"


@pytest.mark.parametrize("prepared_again", [True, False], ids=["new process", "while running"])
def test_a_table_dropped_and_made_anew_is_target_replaced(cars, prepared_again):
    sink = cars.sink()
    feed = Feed(sink)
    applied = feed.token(1)
    feed.apply(car(1))
    cars.execute(REPLACED)
    if prepared_again:
        feed.sink = sink = cars.sink()
    with pytest.raises(TargetReplacedError, match=r"TARGET_REPLACED: public.car_info is a new table"):
        feed.apply(car(2))
    with pytest.raises(TargetReplacedError):
        sink.find(applied, None)
    assert ids(cars) == []
    sink.forget("cars")
    sink = cars.sink()
    Feed(sink).apply(car(1))
    assert ids(cars) == [1]


def test_a_table_replaced_before_the_first_batch_is_noticed_too(cars):
    feed = Feed(cars.sink())
    cars.execute(REPLACED)
    with pytest.raises(TargetReplacedError):
        feed.apply(car(1))


@pytest.mark.parametrize("writemode", [0, 1, 2])
def test_a_table_dropped_while_running_is_target_replaced(cars, writemode):
    sink = cars.sink(writemode=writemode)
    feed = Feed(sink)
    feed.apply(car(1))
    staged = feed.stage(rows_of(car(2)))
    cars.execute("DROP TABLE car_info")
    with pytest.raises(TargetReplacedError, match="was dropped"):
        sink.commit(staged)
    with pytest.raises(TargetReplacedError, match="was dropped"):
        cars.sink(None).find(
            replace(staged.token, seq=1, span=Span((Range(SPLIT, {"offset": 0}, {"offset": 1}),))), None
        )


def test_a_table_replaced_between_guard_and_rows_is_noticed(cars, monkeypatch):
    sink = cars.sink()
    feed = Feed(sink)
    feed.apply(car(1))
    move = adbpg_tokens.Tokens._move

    def replaced_after(self, connection, token):
        move(self, connection, token)
        cars.execute(REPLACED)

    monkeypatch.setattr(adbpg_tokens.Tokens, "_move", replaced_after)
    with pytest.raises(TargetReplacedError):
        feed.apply(car(2))
    assert ids(cars) == []


def test_emptying_the_table_replaces_nothing(cars):
    feed = Feed(cars.sink())
    feed.apply(car(1))
    cars.execute("TRUNCATE car_info")
    feed.apply(car(2))
    assert ids(cars) == [2]


def test_dropped_token_tables_are_named(cars):
    feed = Feed(cars.sink())
    feed.apply(car(1))
    cars.execute("DROP SCHEMA vector_assets CASCADE")
    with pytest.raises(FatalError, match="token tables were dropped"):
        feed.apply(car(2))
    assert ids(cars) == [1]


def test_forgetting_spares_other_pipelines_and_other_tables(cars):
    cars.execute("CREATE TABLE car_other (LIKE car_info INCLUDING ALL)")
    sink, other = cars.sink(), cars.sink(tablename="car_other")
    Feed(sink).apply(car(1))
    Feed(sink, pipeline="others").apply(car(2))
    Feed(other).apply(car(3))
    cars.sink(None).forget("cars")
    assert cars.rows("SELECT pipeline, target FROM vector_assets.positions ORDER BY 1") == [
        ("cars", "public.car_other"),
        ("others", "public.car_info"),
    ]


def test_forgetting_where_nothing_was_ever_written_is_nothing(cars):
    cars.sink(None).forget("cars")
    assert cars.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'vector_assets'") == 0


def test_many_processes_create_the_token_tables_at_once(cars):
    barrier = threading.Barrier(6)

    def prepare():
        barrier.wait(10)
        return cars.sink()

    for thread in [in_background(prepare) for _ in range(6)]:
        assert not isinstance(finished(*thread), Exception)
    Feed(cars.sinks[0]).apply(car(1))


@pytest.fixture
def guest(cars):
    """A user who may write the table, and nothing else."""
    name = f"guest_{cars.database}"
    cars.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'guestword'")
    cars.execute(f"GRANT SELECT, INSERT ON car_info TO {name}")
    yield {"username": name, "password": "guestword"}
    cars.execute(f"DROP OWNED BY {name}")
    cars.execute(f"DROP ROLE {name}")


def test_a_user_who_may_not_create_the_token_tables_gets_the_sql_for_an_administrator(cars, guest):
    with pytest.raises(PlanError, match="an administrator can run: CREATE SCHEMA") as caught:
        cars.sink(**guest)
    cars.execute(str(caught.value).partition("can run: ")[2])
    Feed(cars.sink(**guest)).apply(car(1))
    cars.execute(f"REVOKE UPDATE ON vector_assets.positions FROM {guest['username']}")
    with pytest.raises(PlanError, match=r"lacks rights on the token tables.*GRANT USAGE"):
        cars.sink(**guest)


def test_looking_at_a_target_creates_nothing(cars):
    sink = cars.sink(None)
    target = sink.inspect(rows_of().drop_columns(POSITION).schema, ())
    assert "vector_assets.positions: will be created" in target.notes
    assert cars.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'vector_assets'") == 0


def test_a_session_killed_in_mid_commit_leaves_nothing(cars):
    cars.execute(
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$;"
        "CREATE TRIGGER die AFTER INSERT ON car_info FOR EACH ROW EXECUTE FUNCTION die()"
    )
    sink = cars.sink()
    token = token_of(1, (SPLIT, 0, 1), first=[SPLIT])
    staged = staged_for(sink, token, car(1))
    with pytest.raises(UnavailableError):
        sink.commit(staged)
    cars.execute("DROP TRIGGER die ON car_info")
    assert sink.find(token, staged.committable) == "ABSENT"
    sink.commit(staged)
    assert ids(cars) == [1]


def test_an_answer_lost_after_the_commit_is_found(cars, proxy, monkeypatch):
    gate = proxy(cars.host, cars.port)
    cars.port = gate.port
    feed = Feed(cars.sink())
    feed.apply(car(1))
    staged = feed.stage(rows_of(car(2)))
    finish = adbpg_tokens.Tokens.finish

    def finish_and_go_deaf(*arguments):
        result = finish(*arguments)
        gate.swallow_responses = True
        return result

    monkeypatch.setattr(adbpg_tokens.Tokens, "finish", finish_and_go_deaf)
    thread, outcome = in_background(partial(feed.sink.commit, staged))
    assert process.until(lambda: ids(cars) == [1, 2], 20)
    gate.swallow_responses = False
    gate.drop_connections()
    assert isinstance(finished(thread, outcome), UnavailableError)
    assert feed.sink.find(staged.token, staged.committable) == "APPLIED"
    assert feed.sink.receipt(staged.token).counts.written == 1


def test_what_was_committed_is_recalled(cars):
    sink = cars.sink()
    assert sink.newest_seq("cars") == 0
    assert sink.recall("cars") == Recalled({}, ())
    feed = Feed(sink, fence=7)
    tokens = []
    for number in range(3):
        tokens.append(feed.token(1))
        feed.apply(car(number))
    found = sink.recall("cars")
    assert [(b.seq, b.token_id, b.span, b.counts.written) for b in found.batches] == [
        (token.seq, token.id, token.span, 1) for token in tokens
    ]
    assert [b.commit_id for b in found.batches] == [sink.receipt(token).commit_id for token in tokens]
    assert all(abs(b.committed_ms / 1000 - time.time()) < 600 for b in found.batches)
    assert (found.position, found.fence) == ({SPLIT: {"offset": 3}}, 7)
    assert found.incarnation == str(cars.value("SELECT 'car_info'::regclass::oid"))
    assert sink.newest_seq("cars") == 3
    assert sink.recall("trucks") == Recalled({}, ())


def test_pruned_batches_are_gone_but_the_newest_and_the_next_one_lands(cars):
    sink = cars.sink()
    feed = Feed(sink)
    for number in range(4):
        feed.apply(car(number))
    assert sink.prune("trucks", 9) == 0
    assert sink.prune("cars", 2) == 2
    assert [b.seq for b in sink.recall("cars").batches] == [3, 4]
    assert sink.prune("cars", 99) == 1
    assert sink.newest_seq("cars") == 4
    feed.apply(car(4))
    assert ids(cars) == [0, 1, 2, 3, 4]


def test_token_tables_of_older_code_get_the_new_column_and_keep_their_rows(cars):
    Feed(cars.sink()).apply(car(1))
    cars.execute("ALTER TABLE vector_assets.batches DROP COLUMN span")
    late = cars.sink(schema=None)
    assert "vector_assets.batches.span: will be added" in late.inspect(SCHEMA, ("id",)).notes
    (old,) = late.recall("cars").batches
    assert (old.seq, old.span) == (1, None)
    late.prepare(SCHEMA, ("id",))
    late.prepare(SCHEMA, ("id",))
    token = token_of(2, (SPLIT, {"offset": 1}, {"offset": 2}))
    late.commit(staged_for(late, token, car(2)))
    assert [b.span for b in late.recall("cars").batches] == [None, token.span]


def test_a_sink_of_a_database_without_tokens_recalls_nothing(cars):
    sink = cars.sink(schema=None)
    assert sink.recall("cars") == Recalled({}, ())
    assert sink.newest_seq("cars") == 0
    assert sink.prune("cars", 9) == 0
