"""Options of the sink that leave the same rows whatever they say: shown by the requests that are made.

Each test fails when the option is taken and forgotten: threads meet at a barrier, requests are looked at as they leave.
"""

import threading
import time

import pyarrow as pa
import pytest

from tests.sinks.contract import car, rows_of
from tests.sinks.maxcompute_target import UPSERT, token
from vector_assets.clients import maxcompute_write
from vector_assets.engine.core import Batch
from vector_assets.engine.errors import TransientError
from vector_assets.sinks import maxcompute, maxcompute_files, maxcompute_parts

pytestmark = pytest.mark.service
WITH_DS = pa.schema([("id", pa.int32()), ("color", pa.string()), ("ds", pa.string())])
PARTED = "id int NOT NULL, color string"


@pytest.fixture
def seen(monkeypatch):
    """What is asked of the service from here on: method, parameters, headers, size of the body."""
    found = []
    ask = maxcompute_write._ask

    def noted(service, method, session, params, *, data=None, headers=None, is_single=False):
        found.append((method, dict(params), dict(headers or {}), data))
        return ask(service, method, session, params, data=data, headers=headers, is_single=is_single)

    monkeypatch.setattr(maxcompute_write, "_ask", noted)
    return found


@pytest.fixture
def together(monkeypatch):
    """Makes a function of a module wait for so many threads in it; fewer ever there and it fails."""

    def make(module, name, threads):
        gate, names, real, lock = threading.Barrier(threads), set(), getattr(module, name), threading.Lock()
        waiting = [threads]

        def met(*given, **more):
            with lock:
                names.add(threading.current_thread().name)
                is_first = waiting[0] > 0
                waiting[0] -= 1
            if is_first:
                gate.wait(30)
            return real(*given, **more)

        monkeypatch.setattr(module, name, met)
        return names

    return make


def land(sink, rows):
    return sink.commit(sink.stage(Batch(rows), token())).counts.written


def cars(count):
    return rows_of(*(car(i) for i in range(count)))


def dated(count, days):
    return rows_of(*((i, "red", days[i % len(days)]) for i in range(count)), schema=WITH_DS)


@pytest.mark.parametrize("threads", [1, 3])
def test_num_flush_threads_is_how_many_partitions_are_sent_at_a_time(make_lot, together, threads):
    names = together(maxcompute, "open_session", threads)
    sink = make_lot(PARTED, "PARTITIONED BY (ds string)").sink(WITH_DS, partition="ds", numFlushThreads=threads)
    assert land(sink, dated(6, "abc")) == 6
    assert len(names) == threads


@pytest.mark.parametrize("threads", [1, 3])
def test_insert_commit_threads_are_how_many_uploads_are_committed_at_a_time(make_lot, together, threads):
    names = together(maxcompute, "post_commit", threads)
    given = {"insert.commit.thread-num": threads}
    assert (
        land(make_lot(PARTED, "PARTITIONED BY (ds string)").sink(WITH_DS, partition="ds", **given), dated(6, "abc"))
        == 6
    )
    assert len(names) == threads


@pytest.mark.parametrize("threads", [1, 4])
def test_flush_concurrent_is_how_many_buckets_are_sent_at_a_time(make_lot, together, threads):
    names = together(maxcompute_parts, "put_changes", threads)
    sink = make_lot(kind="upsert").sink(**UPSERT, **{"upsert.flush.concurrent": threads})
    assert land(sink, cars(64)) == 64
    assert len(names) == threads


@pytest.mark.parametrize("threads", [1, 4])
def test_writer_num_is_how_many_files_are_sent_at_a_time(make_lot, together, threads):
    names = together(maxcompute_files, "send_change", threads)
    given = {"sink.file-cached.enable": "true", "sink.file-cached.writer.num": threads}
    assert land(make_lot(kind="upsert").sink(**UPSERT, **given), cars(64)) == 64
    assert len(names) == threads


@pytest.mark.parametrize(
    ("codec", "encoding"),
    [("RAW", None), ("ZLIB", "deflate"), ("SNAPPY", "x-snappy-framed"), (None, "x-snappy-framed")],
)
def test_compress_algorithm_is_that_of_the_bodies(make_lot, seen, codec, encoding):
    sink = make_lot().sink(**({"compressAlgorithm": codec} if codec else {}))
    assert land(sink, cars(3)) == 3
    (headers,) = [headers for method, _, headers, _ in seen if method == "put"]
    assert headers.get("Content-Encoding") == encoding


@pytest.mark.parametrize("slots", [None, 3])
def test_slot_num_is_asked_for_by_the_streaming_tunnel(make_lot, seen, slots):
    sink = make_lot().sink(useStreamTunnel="true", **({"slotNum": slots} if slots else {}))
    assert land(sink, cars(3)) == 3
    assert seen[0][2].get("odps-slot-num") == (str(slots) if slots else None)


@pytest.mark.parametrize(("value", "is_arrow"), [("true", True), ("false", False), (None, True)], ids=str)
def test_the_arrow_writer_sends_arrow_and_nothing_else_does(make_lot, seen, value, is_arrow):
    sink = make_lot().sink(**({"insert.arrow-writer.enable": value} if value else {}))
    assert land(sink, cars(3)) == 3
    assert ["arrow" in params for method, params, _, _ in seen if method == "put"] == [is_arrow]


def test_arrow_batches_have_so_many_rows(make_lot, monkeypatch):
    sizes = []
    real = maxcompute_parts.arrow_body

    def noted(batches):
        found = list(batches)
        sizes.extend(batch.num_rows for batch in found)
        return real(found)

    monkeypatch.setattr(maxcompute_parts, "arrow_body", noted)
    assert land(make_lot().sink(**{"insert.arrow-writer.batch-size": 4}), cars(10)) == 10
    assert sizes == [4, 4, 2]


@pytest.mark.parametrize("name", ["batchSize", "insert.writer.buffer-size"])
def test_an_insert_buffer_is_how_large_a_block_is(make_lot, seen, name):
    assert land(make_lot().sink(**{name: 1024}), cars(400)) == 400
    blocks = [params["blockid"] for method, params, _, _ in seen if method == "put"]
    assert blocks == [str(number) for number in range(len(blocks))]
    assert len(blocks) > 2


@pytest.mark.parametrize(
    ("given", "least"),
    [({}, 4), ({"upsert.writer.bucket.buffer-size": "1 kb"}, 8), ({"upsert.writer.buffer-size": "1 kb"}, 12),
     ({"batchSize": 200}, 12)],
    ids=str,
)  # fmt: skip
def test_upsert_buffers_are_how_large_a_request_is(make_lot, seen, given, least):
    assert land(make_lot(kind="upsert").sink(**UPSERT, **given), cars(400)) == 400
    sent = [int(params["record_count"]) for method, params, _, _ in seen if method == "put"]
    assert sum(sent) == 400
    assert len(sent) == least if least == 4 else len(sent) >= least


def test_sleep_millis_is_the_pause_before_a_retry(make_lot):
    took = {}
    for millis in (10, 700):
        lot = make_lot()
        sink = lot.sink(retryTimes=1, sleepMillis=millis)
        lot.server.service.ask("DELETE", "faults")
        lot.server.fault(target=lot.name, method="PUT", status=500, times=9)
        began = time.monotonic()
        with pytest.raises(TransientError):
            land(sink, cars(1))
        took[millis] = time.monotonic() - began
    assert took[700] >= 0.7


def test_commit_retries_are_those_of_the_option(make_lot):
    lot = make_lot(kind="upsert")
    sink = lot.sink(**UPSERT, **{"upsert.commit.max-retries": 2})
    staged = sink.stage(Batch(cars(2)), token())
    lot.server.fault(target=f"{lot.name}.*upsertid", method="POST", status=500, times=50)
    with pytest.raises(TransientError):
        sink.commit(staged)
    assert lot.server.hits() == [3]
