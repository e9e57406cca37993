"""What makes a batch land effectively once: tokens beside the data, on milvus-lite."""

import os
import subprocess
import sys

import pytest

from tests.sinks.contract import SCHEMA, SPLIT, Feed, car, keys_of, rows_of
from vector_assets.clients.milvus import text_literal
from vector_assets.engine.core import Batch, BatchToken, Range, Span
from vector_assets.engine.errors import (
    BudgetError,
    FatalError,
    FencedError,
    PlanError,
    TargetReplacedError,
    TransientError,
    UnavailableError,
)
from vector_assets.engine.retry import RetryPolicy, call
from vector_assets.sinks import applied, milvus_tokens

pytestmark = pytest.mark.service


@pytest.fixture
def cars(cars_collection):
    return cars_collection


@pytest.fixture
def sink(cars):
    return cars.sink(None, sink__buffer___flush__max___rows=2)


@pytest.fixture
def feed(sink):
    sink.prepare(SCHEMA, ("id",))
    return Feed(sink)


def failing_after(monkeypatch, count: int) -> list[int]:
    """Let so many write requests through, then the connection is lost; the list counts them."""
    from vector_assets.clients.milvus_api import Api

    seen = [0]
    start = Api._start

    def lose(self, write):
        seen[0] += 1
        if seen[0] > count:
            raise UnavailableError("lost")
        return start(self, write)

    monkeypatch.setattr(Api, "_start", lose)
    return seen


def test_inspect_changes_nothing_and_says_what_prepare_would_create(own_milvus, make_target):
    server = own_milvus()
    cars = make_target(None, server)
    sink = cars.sink(None)
    target = sink.inspect(SCHEMA, ("id",))
    assert "vector_assets_batches: will be created" in target.notes
    assert server.client.list_collections() == [cars.collection]
    assert not server.client.describe_collection(cars.collection).get("properties")
    assert sink.recall("cars").batches == ()
    sink.forget("cars")
    assert sink.prepare(SCHEMA, ("id",)).notes == ()
    assert set(server.client.list_collections()) == {cars.collection, "vector_assets_batches"}
    # everything acknowledged survives a crash, tokens too
    feed = Feed(sink)
    feed.apply(*(car(number) for number in range(1, 6)))
    server.kill()
    with pytest.raises(TransientError):
        feed.apply(car(6))
    server.start()
    feed.seq, feed.offset = 1, 5
    staged = feed.stage(rows_of(car(7)), keys_of(1, first=1))
    call(RetryPolicy(), lambda: sink.commit(staged), place="after a crash")
    sink.prepare(SCHEMA, ("id",))
    assert [row["id"] for row in cars.rows()] == [2, 3, 4, 5, 7]


@pytest.mark.parametrize("landed", range(6))
def test_a_batch_that_is_half_applied_converges(cars, sink, feed, rows_after, monkeypatch, landed):
    """Two deletes (one request), five rows (three requests), the token: the connection is lost after each."""
    feed.apply(car(1), car(2), car(3))
    token = feed.token(7)
    staged = feed.stage(rows_of(*(car(number, "blue") for number in range(3, 8))), keys_of(1, 2, first=5))
    with monkeypatch.context() as patch:
        seen = failing_after(patch, landed)
        if landed < 5:
            with pytest.raises(UnavailableError):
                sink.commit(staged)
        else:
            sink.commit(staged)
        assert seen[0] <= 5
    assert sink.find(token, staged.committable) == ("ABSENT" if landed < 5 else "APPLIED")
    if landed < 5:
        sink.commit(staged)
    assert rows_after() == dict.fromkeys(range(3, 8), "blue")
    assert sink.receipt(token).counts.to_dict().items() >= {"written": 5, "deleted": 2}.items()


@pytest.fixture
def rows_after(cars):
    return lambda: {row["id"]: row["color"] for row in cars.rows()}


KILLED = """
import os, sys
from tests.sinks.contract import Feed, SCHEMA, car, rows_of, keys_of
from vector_assets.clients.milvus_api import Api
from vector_assets.sinks.milvus import MilvusSink
from vector_assets.sinks.milvus_options import MilvusOptions
host, port, collection, landed = sys.argv[1:]
given = {"connector": "milvus", "endpoint": host, "port": port, "collectionName": collection,
         "sink.buffer-flush.max-rows": "2"}
sink = MilvusSink(MilvusOptions.parse(given, "milvus"), None, "cars")
sink.prepare(SCHEMA, ("id",))
feed = Feed(sink)
feed.seq, feed.offset = 1, 3
staged = feed.stage(rows_of(*(car(n, "blue") for n in range(3, 8))), keys_of(1, 2, first=5))
settle, seen = Api._settle, [0]
def dying(self, write, future):
    yield from settle(self, write, future)
    seen[0] += 1
    if seen[0] == int(landed):
        os.kill(os.getpid(), 9)
Api._settle = dying
sink.commit(staged)
"""


@pytest.mark.parametrize("landed", [1, 2, 5], ids=["after the deletes", "between rows", "after the token"])
def test_a_process_killed_in_the_middle_leaves_what_the_next_one_completes(cars, feed, rows_after, landed):
    feed.apply(car(1), car(2), car(3))
    arguments = [cars.host, str(cars.port), cars.collection, str(landed)]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments], check=False, env=dict(os.environ), cwd=os.getcwd()
    )
    assert done.returncode == -9
    token = feed.token(7)
    staged = feed.stage(rows_of(*(car(number, "blue") for number in range(3, 8))), keys_of(1, 2, first=5))
    assert feed.sink.find(token, None) == ("APPLIED" if landed == 5 else "ABSENT")
    feed.sink.commit(staged)
    assert rows_after() == dict.fromkeys(range(3, 8), "blue")


def test_an_owner_that_was_replaced_while_its_rows_were_on_their_way_writes_no_token(cars, sink, feed, monkeypatch):
    from vector_assets.sinks.milvus_write import Landing

    feed.apply(car(1))
    staged = feed.stage(rows_of(car(2)))
    rival = Feed(cars.sink(), fence=2)
    rival.seq, rival.offset = 1, 1
    send = Landing.send

    def overtaken(self, requests):
        monkeypatch.setattr(Landing, "send", send)
        rival.apply(car(2, "blue"), car(3))
        send(self, requests)

    monkeypatch.setattr(Landing, "send", overtaken)
    with pytest.raises(FencedError, match="is in the target already"):
        sink.commit(staged)
    assert [batch.counts.written for batch in sink.recall("cars").batches] == [1, 2]


def test_a_dropped_collection_is_target_replaced(cars, sink, feed):
    first = feed.token(1)
    feed.apply(car(1))
    staged = feed.stage(rows_of(car(2)))
    cars.server.client.drop_collection(cars.collection)
    with pytest.raises(TargetReplacedError, match="was dropped"):
        sink.commit(staged)
    with pytest.raises(TargetReplacedError, match="was dropped"):
        sink.find(first, None)


def test_a_collection_made_anew_is_target_replaced_until_the_pipeline_is_forgotten(cars, sink, feed, make_target):
    feed.apply(car(1))
    staged = feed.stage(rows_of(car(2)))
    client, name = cars.server.client, cars.collection
    client.drop_collection(name)
    fresh = make_target()
    client.rename_collection(fresh.collection, name)
    with pytest.raises(TargetReplacedError, match="is a new collection"):
        sink.commit(staged)
    again = cars.sink()
    with pytest.raises(TargetReplacedError, match="is a new collection"):
        again.commit(again.stage(Batch(rows_of(car(2))), staged.token))
    again.forget("cars")
    Feed(again).apply(car(3))
    assert [row["id"] for row in cars.rows()] == [3]
    client.drop_collection(name)


def test_a_collection_dropped_while_rows_are_on_their_way_is_target_replaced(cars, sink, feed, monkeypatch):
    from vector_assets.sinks.milvus_write import Landing

    staged = feed.stage(rows_of(car(1)))
    send = Landing.send

    def dropped(self, requests):
        cars.server.client.drop_collection(cars.collection)
        send(self, requests)

    monkeypatch.setattr(Landing, "send", dropped)
    with pytest.raises(TargetReplacedError, match="was dropped"):
        sink.commit(staged)


def reset(seq: int, start: object, end: object, *, fence: int = 1, split: str = SPLIT) -> BatchToken:
    return BatchToken("cars", "target", seq, Span((Range(split, start, end),)), fence)


def test_a_reset_jumps_from_where_the_target_stands_and_a_dead_letter_batch_moves_nothing(cars, sink, feed):
    feed.apply(car(1))
    sink.commit(sink.stage(Batch(rows_of()), reset(2, {"offset": 1}, {"offset": 50})))
    sink.commit(sink.stage(Batch(rows_of(car(2))), BatchToken("cars", "target", 3, Span(), 1)))
    assert sink.recall("cars").position == {SPLIT: {"offset": 50}}
    with pytest.raises(FencedError, match=r"starts at .*1.*stands at .*50"):
        sink.commit(sink.stage(Batch(rows_of(car(3))), reset(4, {"offset": 1}, {"offset": 2})))
    sink.commit(sink.stage(Batch(rows_of(car(3))), reset(4, {"offset": 50}, {"offset": 51})))
    assert [row["id"] for row in cars.rows()] == [1, 2, 3]


def test_a_split_is_new_once(sink, feed):
    feed.apply(car(1))
    other = Span((Range("other/0", {"offset": 0}, {"offset": 1}),))
    with pytest.raises(FencedError, match="no position"):
        sink.commit(sink.stage(Batch(rows_of(car(2))), BatchToken("cars", "target", 2, other, 1)))
    first = BatchToken("cars", "target", 2, other, 1, frozenset({"other/0"}))
    sink.commit(sink.stage(Batch(rows_of(car(2))), first))
    assert set(sink.recall("cars").position) == {SPLIT, "other/0"}


def test_recall_tells_every_batch_with_its_span_and_counts(sink, feed):
    tokens = [feed.token(1)]
    feed.apply(car(1))
    tokens.append(feed.token(3))
    receipt = feed.apply(car(2), car(3), deletes=(1,))
    found = sink.recall("cars")
    assert found.position == {SPLIT: {"offset": 4}}
    assert [(b.seq, b.token_id, b.span) for b in found.batches] == [(t.seq, t.id, t.span) for t in tokens]
    assert found.batches[1].counts == receipt.counts
    assert found.batches[1].commit_id == receipt.commit_id
    assert sink.recall("others").batches == ()


def test_old_tokens_are_removed_and_a_batch_that_old_is_a_named_error(cars, sink, feed, monkeypatch):
    monkeypatch.setattr(applied, "KEPT_BATCHES", 3)
    monkeypatch.setattr(applied, "PRUNE_EVERY", 2)
    first = feed.token(1)
    for number in range(8):
        feed.apply(car(number))
    assert [batch.seq for batch in sink.recall("cars").batches] == [5, 6, 7, 8]
    with pytest.raises(FatalError, match="batch 1 of pipeline cars is older than the 3 batches"):
        sink.find(first, None)


def test_many_splits_fit_a_token(sink, feed):
    """A topic of 1,000 partitions; Kafka's positions hold offset and leader epoch."""
    names = [f"vector_ingest@4L6g3nShT-eMCtK--X86sw/{number}" for number in range(1000)]
    span = Span(
        tuple(Range(n, {"offset": 7 * i, "epoch": 3}, {"offset": 9 * i + 5, "epoch": 3}) for i, n in enumerate(names))
    )
    token = BatchToken("cars", "target", 1, span, 1, frozenset(names))
    sink.commit(sink.stage(Batch(rows_of(car(1))), token))
    assert sink.find(token, None) == "APPLIED"
    assert sink.recall("cars").batches[0].span == span


def test_pipelines_of_other_partitions_do_not_share_tokens(make_target):
    cars = make_target(partitions=("a", "b"))
    one, other = cars.sink(partitionName="a"), cars.sink(partitionName="b")
    Feed(one).apply(car(1))
    Feed(other).apply(car(2))
    assert [row["id"] for row in cars.rows(partition_names=["a"])] == [1]
    assert [row["id"] for row in cars.rows(partition_names=["b"])] == [2]
    found = [sink.recall("cars").batches[0].counts.written for sink in (one, other)]
    assert found == [1, 1]


def test_rows_that_only_the_server_refuses_are_found_alone(cars, sink, feed, monkeypatch):
    """Our own checks are switched off for one column, so that the server has to find what is wrong."""
    from vector_assets.sinks import milvus_values

    sink = cars.sink(None, sink__buffer___flush__max___rows=100)
    sink.prepare(SCHEMA, ("id",))
    monkeypatch.setattr(
        milvus_values, "_CONVERSIONS", {**milvus_values._CONVERSIONS, "VarChar": {"STRING": lambda a, *_: a}}
    )
    rows = [car(number, "red" if number not in (7, 33) else "far too long a colour") for number in range(50)]
    receipt = Feed(sink).apply(*rows, limit=2)
    assert receipt.rejected.column("_position").to_pylist() == [7, 33]
    assert "exceeds max_length" in receipt.rejected.column("error")[0].as_py()
    assert receipt.counts.written == 48
    assert len(cars.rows()) == 48
    again = cars.sink()
    again_feed = Feed(again)
    assert again.receipt(again_feed.token(50)) == receipt
    with pytest.raises(BudgetError, match="more rows than the 1 this batch may lose"):
        Feed(sink, pipeline="others").apply(*rows, limit=1)
    with pytest.raises(FatalError, match="refuses every row"):
        Feed(sink, pipeline="others").apply(*(car(number, "far too long a colour") for number in range(20)))


def test_requests_over_a_rate_limit_are_sent_again_and_no_others(cars, sink, feed, monkeypatch):
    from vector_assets.clients.milvus import LimitedError
    from vector_assets.clients.milvus_api import Api

    check, seen = Api._check, [0]

    def limited(self, answer):
        seen[0] += hasattr(answer, "upsert_cnt")
        if hasattr(answer, "upsert_cnt") and seen[0] in {1, 2, 3, 6}:
            raise LimitedError("too fast", retry_after=0.01)
        check(self, answer)

    monkeypatch.setattr(Api, "_check", limited)
    staged = feed.stage(rows_of(*(car(number) for number in range(9))))
    sink.commit(staged)
    # five requests of rows, four of them twice, and the token
    assert seen[0] == 10
    assert [row["id"] for row in cars.rows()] == list(range(9))


def test_a_batch_staged_by_another_process_must_be_staged_again(sink, feed):
    staged = feed.stage(rows_of(car(1)))
    from dataclasses import replace

    with pytest.raises(FatalError, match="stage it again"):
        sink.commit(replace(staged, payload=None))


def test_a_foreign_collection_under_the_name_of_ours_is_left_alone(cars, milvus):
    from pymilvus import MilvusClient

    milvus.client.create_database("foreign")
    client = MilvusClient(uri=f"http://{milvus.host}:{milvus.port}", db_name="foreign")
    for name in (cars.collection, milvus_tokens.COLLECTION):
        client.create_collection(name, dimension=3, vector_field_name="feature", auto_id=False)
    with pytest.raises(PlanError, match="is not ours: its fields are id, feature"):
        cars.sink(SCHEMA.remove(1), databaseName="foreign")
    client.close()


def test_names_with_quotes_and_backslashes_are_literals():
    assert text_literal('a"b\\c\nd') == '"a\\"b\\\\c\\nd"'
