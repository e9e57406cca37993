"""What the OpenSearch sink does with refusals, races, restarts and a disk that is full; what it finds."""

import os
import signal
import subprocess
import sys

import pyarrow as pa
import pytest

from tests.sinks.contract import SCHEMA, Feed, car, keys_of, rows_of
from tests.sinks.opensearch_target import CARS
from vector_assets.engine.abilities import DISTANCE, SearchQuery
from vector_assets.engine.core import Batch
from vector_assets.engine.errors import (
    ConfigError,
    FencedError,
    PlanError,
    RowsRefusedError,
    TargetReplacedError,
    TransientError,
)

pytestmark = pytest.mark.service

DAYS = pa.schema([("id", pa.int32()), ("day", pa.string())])


def test_a_document_that_the_server_refuses_stands_alone_and_its_value_is_not_told(make_index):
    target = make_index({"id": {"type": "integer"}, "day": {"type": "date"}})
    sink = target.sink(DAYS)
    rows = rows_of((1, "2020-01-01"), (2, "no-secret-day"), (3, "2020-01-03"), schema=DAYS)
    receipt = sink.commit(Feed(sink).stage(rows))
    (rejected,) = receipt.rejected.to_pylist()
    assert rejected["_position"] == 1
    assert "day" in rejected["error"]
    assert "no-secret-day" not in rejected["error"]
    assert set(target.documents()) == {"1", "3"}
    assert receipt.counts.written == 2


def test_rows_that_hide_others_are_handed_back(make_index):
    from dataclasses import replace

    target = make_index({"id": {"type": "integer"}, "day": {"type": "date"}})
    sink = target.sink(DAYS)
    feed = Feed(sink)
    staged = replace(feed.stage(rows_of((1, "bad"), (2, "2020-01-01"), schema=DAYS)), hides=True)
    with pytest.raises(RowsRefusedError):
        sink.commit(staged)
    assert sink.find(staged.token, staged.committable) == "ABSENT"
    again = sink.stage(Batch(rows_of((2, "2020-01-01"), schema=DAYS, first=1)), staged.token)
    assert sink.commit(again).counts.written == 1


def test_a_batch_sent_again_after_its_documents_were_written_counts_them_as_written(cars_index):
    sink = cars_index.sink()
    staged = Feed(sink).stage(rows_of(car(1), car(2)), keys_of(9, first=2))
    from vector_assets.sinks.opensearch_write import Landing

    Landing(sink._client(), sink.options, lambda: None, staged.payload).send()
    receipt = sink.commit(staged)
    assert (receipt.counts.written, receipt.counts.deleted) == (2, 1)


def test_a_later_batch_opens_no_database_of_its_own(cars_index, monkeypatch):
    import duckdb

    feed = Feed(cars_index.sink())
    feed.apply(car(1))

    def connect(*_, **__):
        raise AssertionError("opens a database")

    monkeypatch.setattr(duckdb, "connect", connect)
    assert feed.apply(car(2), deletes=(1,)).counts.written == 1


def test_an_older_batch_moves_no_document_backwards_and_brings_no_deleted_one_back(cars_index):
    sink = cars_index.sink()
    feed = Feed(sink)
    old = feed.stage(rows_of(car(1, "old"), car(2, "old")))
    sink.commit(old)
    feed.apply(car(1, "new"), deletes=(2,))
    from vector_assets.sinks.opensearch_write import Landing

    # a zombie that wakes up behind the check
    with pytest.raises(FencedError, match="later version"):
        Landing(sink._client(), sink.options, lambda: None, old.payload).send()
    assert {key: row["color"] for key, row in cars_index.documents().items()} == {"1": "new"}


def test_the_index_is_told_to_remember_deletes(make_index):
    target = make_index(gc_deletes="5s")
    sink = target.sink(None)
    notes = sink.inspect(SCHEMA, ("id",)).notes
    assert any("gc_deletes" in note for note in notes)
    sink.prepare(SCHEMA, ("id",))
    settings = target.server.ask("GET", f"{target.index}/_settings?flat_settings=true")[target.index]["settings"]
    assert settings["index.gc_deletes"] == "3600s"
    assert not any("gc_deletes" in note for note in sink.inspect(SCHEMA, ("id",)).notes)


def test_of_two_owners_that_commit_at_once_one_is_refused(cars_index, monkeypatch):
    first, second = cars_index.sink(), cars_index.sink()
    mine, theirs = Feed(first).stage(rows_of(car(1))), Feed(second, fence=2).stage(rows_of(car(1), car(2)))
    look = first._current
    calls = []

    def overtaken():
        found = look()
        calls.append(found)
        if len(calls) == 2:
            # documents that both have carry one version: a batch of the same number
            second.commit(theirs)
        return found

    monkeypatch.setattr(first, "_current", overtaken)
    with pytest.raises(FencedError, match="somebody else committed"):
        first.commit(mine)


def test_after_forget_versions_go_on_where_they_were(cars_index):
    sink = cars_index.sink()
    feed = Feed(sink)
    for color in ("a", "b", "c"):
        feed.apply(car(1, color))
    sink.forget("cars")
    Feed(sink).apply(car(1, "again"))
    assert cars_index.documents()["1"]["color"] == "again"


def test_tokens_are_recalled_pruned_and_read(cars_index):
    sink = cars_index.sink()
    feed = Feed(sink)
    for number in range(4):
        feed.apply(car(number))
    recalled = cars_index.sink(None).recall("cars")
    assert [batch.seq for batch in recalled.batches] == [1, 2, 3, 4]
    assert sink.newest_seq("cars") == 4
    assert sink.prune("cars", 3) == 3
    assert [batch.seq for batch in sink.recall("cars").batches] == [4]


def test_an_index_made_anew_under_the_old_name_is_noticed(cars_index):
    sink = cars_index.sink()
    feed = Feed(sink)
    feed.apply(car(1))
    server = cars_index.server
    server.ask("DELETE", cars_index.index, status=200)
    server.ask("PUT", cars_index.index, {"mappings": {"properties": CARS}, "settings": {"index.knn": True}}, status=200)
    with pytest.raises(TargetReplacedError):
        feed.apply(car(2))


def test_an_alias_of_several_indices_and_a_data_stream_are_refused(cars_index, make_index):
    other = make_index()
    server = cars_index.server
    alias = server.name()
    actions = [{"add": {"index": each.index, "alias": alias}} for each in (cars_index, other)]
    server.ask("POST", "_aliases", {"actions": actions}, status=200)
    with pytest.raises(PlanError, match="alias of 2 indices"):
        cars_index.sink(index=alias)
    server.ask("POST", "_aliases", {"actions": [{"remove": {"index": other.index, "alias": alias}}]}, status=200)
    sink = cars_index.sink(index=alias)
    Feed(sink).apply(car(1))
    assert set(cars_index.documents()) == {"1"}
    stream = server.name()
    template = {"index_patterns": [stream], "data_stream": {}}
    server.ask("PUT", f"_index_template/{stream}", template, status=200)
    server.ask("PUT", f"_data_stream/{stream}", status=200)
    with pytest.raises(PlanError, match="data stream"):
        cars_index.sink(index=stream)


def test_a_full_disk_is_a_passing_error_and_the_batch_goes_on_afterwards(cars_index):
    sink = cars_index.sink(sink__bulk___flush__backoff__max___retries=1)
    staged = Feed(sink).stage(rows_of(car(1)))
    # what the flood-stage watermark sets
    path = f"{cars_index.index}/_settings"
    cars_index.server.ask("PUT", path, {"index.blocks.read_only_allow_delete": True}, status=200)
    assert any("watermark" in finding.what for finding in sink.diagnose())
    with pytest.raises(TransientError, match="read-only"):
        sink.commit(staged)
    cars_index.server.ask("PUT", path, {"index.blocks.read_only_allow_delete": None}, status=200)
    assert sink.commit(staged).counts.written == 1


def test_documents_are_sent_by_size_and_number_and_all_arrive(cars_index):
    sink = cars_index.sink(sink__bulk___flush__max___actions=7, sink__bulk___flush__max___size="1 kb")
    receipt = Feed(sink).apply(*(car(number) for number in range(100)))
    assert receipt.counts.written == 100
    assert len(cars_index.documents()) == 100
    assert sum(batch.num_rows for batch in sink.scan()) == 100


def test_values_of_every_kind_come_back_as_they_were(make_index):
    from datetime import UTC, date, datetime
    from decimal import Decimal

    schema = pa.schema(
        [
            ("id", pa.int64()),
            ("flag", pa.bool_()),
            ("text", pa.string()),
            ("day", pa.date32()),
            ("at", pa.timestamp("us")),
            ("moment", pa.timestamp("ms", "UTC")),
            ("amount", pa.decimal128(10, 2)),
            ("tags", pa.list_(pa.string())),
            ("raw", pa.binary()),
        ]
    )
    target = make_index({})
    sink = target.sink(None)
    sink.create_target(schema, ("id",))
    assert sink.create_target(schema, ("id",)) == (f"index {target.index} is there",)
    sink.prepare(schema, ("id",))
    at = datetime(2020, 1, 2, 3, 4, 5, 678000)  # noqa: DTZ001
    row = (2**60, True, 'a "b"\n\u4e2d', date(2020, 2, 3), at, at.replace(tzinfo=UTC), Decimal("12.30"), ["x"], b"\0\1")
    rows = rows_of(row, (1, *[None] * 8), schema=schema)
    sink.commit(Feed(sink).stage(rows))
    wanted = sink.as_stored(rows).drop_columns("_position").sort_by("id")
    assert pa.Table.from_batches(list(sink.scan())).sort_by("id").equals(wanted)
    assert target.documents()[str(2**60)]["moment"] == "2020-01-02T03:04:05.678Z"


def test_documents_may_be_several_vectors_and_nothing_else(make_index):
    target, names = make_index({}), ("é~b", "c")
    field = {"type": "knn_vector", "dimension": 2, "method": {"engine": "faiss", "name": "hnsw"}}
    body = {"settings": {"index.knn": True}, "mappings": {"properties": dict.fromkeys(names, field)}}
    target.server.ask("PUT", target.index, body, status=200)
    schema = pa.schema([(name, pa.list_(pa.float32())) for name in names])
    sink = target.sink(schema, ())
    sink.commit(Feed(sink).stage(rows_of(([0.1, 2], None), (None, None), ([3, 4], [5, 6]), schema=schema)))
    found = [[each[name] for name in names] for each in target.documents().values()]
    assert sorted(found, key=str) == [[None, None], [[0.1, 2.0], None], [[3.0, 4.0], [5.0, 6.0]]]


def test_the_nearest_rows_are_found_by_vector_with_a_filter_and_exactly(cars_index):
    sink = cars_index.sink()
    Feed(sink).apply(car(1, "red", "{1,0,0}"), car(2, "blue", "{0,1,0}"), car(3, "blue", "{0,2,0}"))
    for exact in (False, True):
        found = sink.search(SearchQuery((0.0, 1.1, 0.0), k=2, exact=exact)).rows
        assert found.column("id").to_pylist() == [2, 3]
        assert found.column(DISTANCE).to_pylist() == sorted(found.column(DISTANCE).to_pylist(), reverse=True)
    assert sink.search(SearchQuery((0.0, 1.1, 0.0), k=1, where="color:red")).rows.column("id").to_pylist() == [1]
    with pytest.raises(ConfigError, match="3 dimensions"):
        sink.search(SearchQuery((1.0,)))
    with pytest.raises(PlanError, match="no model is known"):
        sink.search(SearchQuery((), text="a red car"))


_KILLED = """
import itertools, os, signal, sys
from tests.sinks.contract import Feed, SCHEMA, car, keys_of, rows_of
from vector_assets.clients.opensearch import Client
from vector_assets.sinks.opensearch import OpenSearchSink
from vector_assets.sinks.opensearch_options import OpenSearchOptions
url, index, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
options = {"connector": "opensearch-2", "hosts": url, "index": index, "sink.bulk-flush.max-actions": "2"}
sink = OpenSearchSink(OpenSearchOptions.parse(options, "x"), None, "cars")
sink.prepare(SCHEMA, ("id",))
staged = Feed(sink).stage(rows_of(*(car(n) for n in range(4))), keys_of(7, first=4))
ask, numbers = Client.ask, itertools.count(1)
def dying(self, method, path, *rest, **more):
    if method == "GET":
        return ask(self, method, path, *rest, **more)
    mine = next(numbers)
    answer = ask(self, method, path, *rest, **more)
    if mine == number:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer
Client.ask = dying
sink.commit(staged)
"""


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_killed_behind_each_request_of_a_batch_it_is_applied_once(cars_index, number):
    arguments = [sys.executable, "-c", _KILLED, cars_index.url, cars_index.index, str(number)]
    done = subprocess.run(arguments, check=False, env={**os.environ}, cwd=os.getcwd())
    assert done.returncode == -signal.SIGKILL
    sink = cars_index.sink()
    feed = Feed(sink)
    staged = feed.stage(rows_of(*(car(n) for n in range(4))), keys_of(7, first=4))
    if sink.find(staged.token, staged.committable) == "ABSENT":
        assert number < 5
        sink.commit(staged)
    assert sink.receipt(staged.token).counts.written == 4
    feed.apply(car(1, "next"))
    assert {key: row["color"] for key, row in cars_index.documents().items()} == {
        "0": "red", "1": "next", "2": "red", "3": "red",
    }  # fmt: skip
