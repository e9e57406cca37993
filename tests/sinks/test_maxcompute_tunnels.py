"""Three tunnels: where rows go, when they are visible, what a refused request, a crash or an expired session does."""

import threading
import time

import pyarrow as pa
import pytest

from tests.sinks.contract import SCHEMA, car, keys_of, rows_of
from tests.sinks.maxcompute_target import TUNNELS, UPSERT, token
from vector_assets.clients.maxcompute_write import post_commit
from vector_assets.engine.core import Batch
from vector_assets.engine.errors import FatalError, PlanError, TargetReplacedError, TransientError

pytestmark = pytest.mark.service
WITH_DS = pa.schema([("id", pa.int32()), ("color", pa.string()), ("ds", pa.string())])
PARTED = "id int NOT NULL, color string"
KEPT = ["batch", "upsert"]


def dated(*rows):
    return rows_of(*rows, schema=WITH_DS)


def counted(server, target, method):
    """Counts requests from here on."""
    server.fault(target=target, method=method, times=100_000)


@pytest.fixture(params=TUNNELS)
def tunnel(request):
    return request.param


@pytest.fixture
def apply():
    def apply(sink, table, seq=1, deletes=None):
        return sink.commit(sink.stage(Batch(table, deletes), token(seq)))

    return apply


def test_each_tunnel_lands_rows_and_says_what_it_promises(make_lot, tunnel, apply):
    lot = make_lot(kind=tunnel)
    sink = lot.sink(**TUNNELS[tunnel])
    target = sink.prepare(SCHEMA, ())
    assert target.guarantee == ("at-least-once" if tunnel == "stream" else "effectively-once")
    assert any("at least once" in note for note in target.notes) == (tunnel == "stream")
    receipt = apply(sink, rows_of(car(1), car(2, None)))
    assert receipt.counts.written == 2
    assert lot.rows() == [(1, "red", "{1,2,3}"), (2, None, "{1,2,3}")]
    assert pa.Table.from_batches(list(sink.scan())).sort_by("id").to_pylist()[1]["color"] is None


@pytest.mark.parametrize("spec", [{"partition": "ds"}, {"partition": "ds,hh=01"}, {"partition": "hh=01/ds"}], ids=str)
def test_dynamic_partitions_are_made_and_named_by_the_rows(make_lot, tunnel, spec, apply):
    levels = "ds string, hh string" if "hh" in spec["partition"] else "ds string"
    lot = make_lot(PARTED, f"PARTITIONED BY ({levels})", kind=tunnel)
    sink = lot.sink(WITH_DS, numFlushThreads=2, **spec, **TUNNELS[tunnel])
    apply(sink, dated((1, "red", "a"), (2, "blue", "b"), (3, "red", "a")))
    assert lot.rows("id, ds") == [(1, "a"), (2, "b"), (3, "a")]
    names = {str(part.partition_spec) for part in lot.server.odps.get_table(lot.name).partitions}
    assert names == ({"ds='a',hh='01'", "ds='b',hh='01'"} if "hh" in levels else {"ds='a'", "ds='b'"})
    assert len(list(sink.scan())) >= 1


def test_a_static_partition_takes_all_rows(make_lot, tunnel, apply):
    lot = make_lot(PARTED, "PARTITIONED BY (yyyy string, mm string)", kind=tunnel)
    sink = lot.sink(WITH_DS.remove(2), partition="yyyy=2018,mm=09", **TUNNELS[tunnel])
    apply(sink, dated((1, "red", "")).drop_columns("ds"))
    assert lot.rows("id, yyyy, mm") == [(1, "2018", "09")]


def test_too_many_dynamic_partitions_are_refused_before_anything_is_sent(make_lot, tunnel):
    lot = make_lot(PARTED, "PARTITIONED BY (ds string)", kind=tunnel)
    sink = lot.sink(WITH_DS, partition="ds", dynamicPartitionLimit=2, **TUNNELS[tunnel])
    with pytest.raises(FatalError, match="Too many dynamic partitions"):
        sink.stage(Batch(dated((1, "r", "a"), (2, "r", "b"), (3, "r", "c"))), token())
    assert list(lot.server.odps.get_table(lot.name).partitions) == []


def test_a_row_without_a_partition_value_is_refused(make_lot):
    lot = make_lot(PARTED, "PARTITIONED BY (ds string)")
    sink = lot.sink(WITH_DS, partition="ds")
    staged = sink.stage(Batch(dated((1, "r", None), (2, "r", ""), (3, "r", "a/b"), (4, "r", "a"))), token())
    assert staged.rejected.column("_position").to_pylist() == [0, 1, 2]
    sink.commit(staged)
    assert lot.rows("id") == [(4,)]


@pytest.mark.parametrize(
    ("partition", "wanted"),
    [
        (None, "option 'partition' is required"),
        ("dt=1", "there is no level dt"),
        ("ds=1", "leaves out level hh"),
        ("ds=1,hh=2,hh=3", "given twice"),
        ("ds=*,hh=1", "for sources"),
    ],
    ids=str,
)
def test_a_partition_that_does_not_fit_is_refused_by_name(make_lot, partition, wanted):
    lot = make_lot(PARTED, "PARTITIONED BY (ds string, hh string)")
    more = {"partition": partition} if partition else {}
    with pytest.raises(Exception, match=wanted):
        lot.sink(WITH_DS.remove(2), **more)


def test_an_update_that_moves_a_row_to_another_partition_deletes_the_old_one(make_lot, apply):
    lot = make_lot(PARTED, "PARTITIONED BY (ds string)", kind="upsert")
    sink = lot.sink(WITH_DS, partition="ds", **UPSERT)
    assert sink.prepare(WITH_DS, ("id",)).key == ("id", "ds")
    apply(sink, dated((1, "red", "a"), (2, "red", "a")))
    gone = pa.table({"id": pa.array([1], pa.int32()), "ds": ["a"], "_position": [1]})
    receipt = apply(sink, dated((1, "red", "b")), 2, gone)
    assert (receipt.counts.written, receipt.counts.deleted) == (1, 1)
    assert lot.rows("id, ds") == [(1, "b"), (2, "a")]


def test_inserts_into_a_delta_table_go_by_the_insert_tunnel(make_lot, apply):
    """pyodps's open_writer would choose an upsert session by itself."""
    lot = make_lot(kind="upsert")
    counted(lot.server, "upserts", "POST")
    apply(lot.sink(), rows_of(car(1)))
    assert lot.server.hits() == [0]
    assert lot.rows("id") == [(1,)]


FAULTS = [{"status": 429}, {"status": 500}, {"status": 308}, {"status": 503}, {"cut": "before"}]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_request_that_is_refused_for_now_is_repeated(make_lot, tunnel, fault, method, apply):
    lot = make_lot(kind=tunnel)
    sink = lot.sink(batchSize=64, compressAlgorithm="RAW", **TUNNELS[tunnel])
    lot.server.fault(target=lot.name, method=method, skip=1, **fault)
    apply(sink, rows_of(*(car(i) for i in range(8))))
    assert lot.server.hits() == [1] or (method, tunnel) == ("POST", "stream")
    assert lot.rows("id") == [(i,) for i in range(8)]


SWEPT = [{"status": 429}, {"status": 500}, {"status": 308}, {"cut": "before"}]


@pytest.mark.parametrize("fault", SWEPT, ids=str)
def test_whichever_request_of_a_batch_is_refused_every_row_is_there_once(make_lot, tunnel, fault, apply):
    """The nth request of all that a batch makes, for every n there is: looking, opening, sending, committing."""
    lot = make_lot(PARTED, "PARTITIONED BY (ds string)", kind=tunnel)
    sink = lot.sink(WITH_DS, partition="ds", compressAlgorithm="RAW", **TUNNELS[tunnel])
    hit = 0
    for number in range(40):
        lot.server.service.ask("DELETE", "faults")
        lot.server.fault(target=lot.name, skip=number, **fault)
        apply(sink, dated((number, "red", "a"), (100 + number, "blue", "b")), number + 1)
        if lot.server.hits() == [0]:
            break
        hit += 1
    assert hit >= (4 if tunnel == "stream" else 6), "looking, opening and sending, and committing, for two partitions"
    assert lot.rows("id") == [(i,) for i in range(hit + 1)] + [(100 + i,) for i in range(hit + 1)]


@pytest.mark.parametrize("kind", KEPT)
def test_a_commit_whose_answer_is_lost_is_not_applied_twice(make_lot, kind, apply):
    lot = make_lot(kind=kind)
    sink = lot.sink(**TUNNELS[kind])
    lot.server.fault(target=f"{lot.name}.*(uploadid|upsertid)", method="POST", cut="after")
    assert apply(sink, rows_of(car(1), car(2))).counts.written == 2
    assert lot.server.hits() == [1]
    assert lot.rows("id") == [(1,), (2,)]


def test_a_lost_answer_of_the_streaming_tunnel_doubles_rows_as_is_said(make_lot, apply):
    lot = make_lot()
    sink = lot.sink(useStreamTunnel="true")
    lot.server.fault(target=f"{lot.name}/streams", method="PUT", cut="after")
    apply(sink, rows_of(car(1)))
    assert lot.rows("id") == [(1,), (1,)]


@pytest.mark.parametrize("status", [429, 308, 500])
def test_retry_times_and_sleep_millis_bound_every_request(make_lot, tunnel, status):
    """pyodps alone repeats 429 and 308 for ever, and 5xx for two minutes."""
    lot = make_lot(kind=tunnel)
    more = {"upsert.writer.max-retries": 2} if tunnel == "upsert" else {}
    sink = lot.sink(**TUNNELS[tunnel], **more)
    lot.server.fault(target=lot.name, method="PUT", status=status, times=50)
    began = time.monotonic()
    with pytest.raises(TransientError):
        sink.commit(sink.stage(Batch(rows_of(car(1))), token()))
    assert lot.server.hits() == [3]
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("kind", KEPT)
def test_after_a_crash_only_the_sessions_that_are_not_closed_are_committed(make_lot, kind):
    lot = make_lot(PARTED, "PARTITIONED BY (ds string)", kind=kind)
    rows = Batch(dated((1, "red", "a"), (2, "red", "b"), (3, "red", "b")))
    given = {"partition": "ds", "retryTimes": 0, "upsert.commit.max-retries": 0, **TUNNELS[kind]}
    sink = lot.sink(WITH_DS, **given)
    staged = sink.stage(rows, token())
    lot.server.fault(target=f"{lot.name}.*(uploadid|upsertid).*ds.{{1,3}}b", method="POST", status=500)
    with pytest.raises(TransientError):
        sink.commit(staged)
    assert lot.rows("id") == [(1,)]
    other = lot.sink(WITH_DS, **given)
    assert other.find(token(), staged.committable) == "ABSENT"
    counted(lot.server, lot.name, "PUT")
    again = other.stage(rows, token())
    assert again.committable == staged.committable
    assert lot.server.hits()[-1] == 0, "what was sent is not sent again"
    assert other.commit(again).counts.written == 3
    assert lot.rows("id") == [(1,), (2,), (3,)]
    assert sink.commit(staged).counts.written == 3, "a zombie commits the same sessions"
    assert lot.rows("id") == [(1,), (2,), (3,)]
    assert lot.sink(WITH_DS, **given).find(token(), staged.committable) == "APPLIED"


@pytest.mark.parametrize("kind", KEPT)
def test_an_expired_session_over_an_unchanged_partition_is_absent(make_lot, kind):
    lot = make_lot(kind=kind)
    sink = lot.sink(**TUNNELS[kind])
    staged = sink.stage(Batch(rows_of(car(1))), token())
    lot.server.service.ask("POST", "sessions", {"expire": "all"})
    other = lot.sink(**TUNNELS[kind])
    assert other.find(token(), staged.committable) == "ABSENT"
    other.commit(other.stage(Batch(rows_of(car(1))), token()))
    assert lot.rows("id") == [(1,)]


@pytest.mark.parametrize("kind", KEPT)
def test_an_expired_session_over_a_changed_partition_is_unknown_with_the_command(make_lot, kind, apply):
    lot = make_lot(kind=kind)
    sink = lot.sink(**TUNNELS[kind])
    staged = sink.stage(Batch(rows_of(car(1))), token())
    lot.server.service.ask("POST", "sessions", {"expire": "all"})
    apply(lot.sink(**TUNNELS[kind]), rows_of(car(7)), 9)
    other = lot.sink(**TUNNELS[kind])
    assert other.find(token(), staged.committable) == "UNKNOWN"
    assert "vector-assets reset cars --to" in other.doubt(token())
    assert lot.rows("id") == [(7,)]


def test_other_rows_for_a_partition_that_is_committed_already_are_refused(make_lot):
    lot = make_lot(PARTED, "PARTITIONED BY (ds string)")
    sink = lot.sink(WITH_DS, partition="ds", retryTimes=0)
    staged = sink.stage(Batch(dated((1, "red", "a"), (2, "red", "b"))), token())
    lot.server.fault(target=f"{lot.name}.*uploadid.*ds.{{1,3}}b", method="POST", status=500)
    with pytest.raises(TransientError):
        sink.commit(staged)
    assert sink.find(token(), staged.committable) == "ABSENT"
    with pytest.raises(FatalError, match="bring back the code"):
        sink.stage(Batch(dated((1, "red", "a"), (3, "red", "a"), (2, "red", "b"))), token())


def test_a_table_made_anew_is_not_written(make_lot):
    lot = make_lot()
    sink = lot.sink()
    staged = sink.stage(Batch(rows_of(car(1))), token())
    lot.server.sql(f"DROP TABLE {lot.name}")
    with pytest.raises(TargetReplacedError, match="was dropped"):
        sink.commit(staged)


def test_partial_columns_change_what_is_sent_and_not_null(make_lot, apply):
    lot = make_lot(kind="upsert")
    apply(lot.sink(**UPSERT), rows_of(car(1, "red", "{1}"), car(2, "red", "{2}")))
    narrow = SCHEMA.remove(2)
    sink = lot.sink(narrow, **UPSERT, **{"upsert.partial-column.enable": "true"})
    apply(sink, rows_of((1, "blue"), (2, None), (3, "new"), schema=narrow), 2)
    assert lot.rows() == [(1, "blue", "{1}"), (2, "red", "{2}"), (3, "new", None)]


def test_without_partial_columns_the_whole_row_is_replaced(make_lot, apply):
    lot = make_lot(kind="upsert")
    apply(lot.sink(**UPSERT), rows_of(car(1, "red", "{1}")))
    narrow = SCHEMA.remove(2)
    apply(lot.sink(narrow, **UPSERT), rows_of((1, "blue"), schema=narrow), 2)
    assert lot.rows() == [(1, "blue", None)]


@pytest.mark.parametrize("rolling", ["16 mb", "1 kb"])
def test_file_cached_mode_lands_the_same_rows(make_lot, rolling, apply):
    lot = make_lot(PARTED, "PARTITIONED BY (ds string)", kind="upsert")
    cached = {
        "sink.file-cached.enable": "true", "sink.file-cached.rolling.max-size": rolling,
        "sink.file-cached.writer.num": 2, "sink.file-cached.write.max-retries": 1, "upsert.writer.buffer-size": "1 kb",
    }  # fmt: skip
    sink = lot.sink(WITH_DS, partition="ds", **UPSERT, **cached)
    counted(lot.server, "upserts", "PUT")
    apply(sink, dated(*((i, "red", "ab"[i % 2]) for i in range(400))))
    assert lot.rows("id") == [(i,) for i in range(400)]
    sent = lot.server.hits()[0]
    assert sent == 8 if rolling == "16 mb" else sent > 8, "one file per partition and bucket, unless they roll"


def test_buffers_bound_requests_and_not_more(make_lot, apply):
    """pyodps never takes back what it counted as buffered, so that past the limit every record is a request."""
    lot = make_lot(kind="upsert")
    sink = lot.sink(**UPSERT, **{"upsert.writer.buffer-size": "20 kb", "upsert.flush.concurrent": 1})
    counted(lot.server, "upserts", "PUT")
    apply(sink, rows_of(*(car(i) for i in range(1500))))
    assert lot.server.hits()[0] <= 4 * 4
    assert len(lot.rows("id")) == 1500


def test_the_tables_buckets_are_checked(make_lot):
    with pytest.raises(PlanError, match=r"has 4 buckets .*upsert\.write\.bucket\.num is 8"):
        make_lot(kind="upsert").sink(**{**UPSERT, "upsert.write.bucket.num": 8})


def test_a_table_that_is_no_delta_table_takes_no_changes(make_lot):
    with pytest.raises(PlanError, match="no Delta table"):
        make_lot().sink(**UPSERT)
    with pytest.raises(PlanError, match="enableUpsert"):
        make_lot().sink().stage(Batch(rows_of(car(1)), keys_of(2, first=1)), token())


def test_a_commit_is_waited_for_until_its_time_is_up_or_not_at_all(make_lot, monkeypatch):
    """The local service commits at once, so that its answer has to be changed."""
    lot = make_lot(kind="upsert")
    monkeypatch.setattr("vector_assets.sinks.maxcompute.post_commit", lambda *_: "committing")
    batch = Batch(rows_of(car(1)))
    waiting = lot.sink(**UPSERT, upsertCommitTimeoutMs=300)
    with pytest.raises(TransientError, match=r"not committed after 0\.3 s"):
        waiting.commit(waiting.stage(batch, token()))
    winning = lot.sink(**UPSERT, **{"upsertCommitTimeoutMs": 600_000, "upsert.commit.timeout": 1})
    with pytest.raises(TransientError, match="not committed after 1 s"):
        winning.commit(winning.stage(batch, token()))
    hasty = lot.sink(**UPSERT, upsertAsyncCommit="true")
    assert hasty.commit(hasty.stage(batch, token())).counts.written == 1


@pytest.mark.parametrize(
    ("more", "tried"),
    [({"upsert.writer.max-retries": 1}, 2),
     ({"sink.file-cached.enable": "true", "sink.file-cached.write.max-retries": 2}, 3)],
    ids=["writer", "file"],
)  # fmt: skip
def test_retries_of_the_upsert_writer_are_those_of_its_mode(make_lot, more, tried):
    lot = make_lot(kind="upsert")
    sink = lot.sink(**UPSERT, **more)
    lot.server.fault(target=f"{lot.name}/upserts", method="PUT", status=500, times=50)
    with pytest.raises(TransientError):
        sink.stage(Batch(rows_of(car(1))), token())
    assert lot.server.hits() == [tried]


@pytest.mark.parametrize("threads", [1, 4])
def test_slots_and_commit_threads_are_what_the_options_say(make_lot, monkeypatch, threads):
    lot = make_lot(PARTED, "PARTITIONED BY (ds string)", kind="upsert")
    given = {"upsert.commit.thread-num": threads, "upsert.write.slot-num": 2}
    sink = lot.sink(WITH_DS, partition="ds", **UPSERT, **given)
    counted(lot.server, "slotnum=2", "POST")
    staged = sink.stage(Batch(dated(*((i, "red", "abcd"[i % 4]) for i in range(8)))), token())
    assert lot.server.hits() == [4], "a session per partition, each with two slots"
    together, names = threading.Barrier(threads, timeout=60), set()

    def commit(service, session):
        together.wait()
        names.add(threading.current_thread().name)
        return post_commit(service, session)

    monkeypatch.setattr("vector_assets.sinks.maxcompute.post_commit", commit)
    sink.commit(staged)
    assert len(names) == threads
    assert len(lot.rows("id")) == 8
