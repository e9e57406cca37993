import threading
import time
import warnings

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.sources.contract import SourceContract, Upstream
from tests.sources.reading import NO_LIMIT, drain, places, read, values
from vector_assets.engine.core import BatchLimit, Span
from vector_assets.engine.errors import ConfigError, PlanError, PositionLostError, TransientError, UnavailableError

pytestmark = pytest.mark.service


either_way = pytest.mark.usefixtures("either_way")


@either_way
class TestKafkaSource(SourceContract):
    @pytest.fixture
    def topic(self, kafka):
        return kafka.create_topic(2)

    @pytest.fixture
    def upstream(self, kafka, topic):
        return Upstream(
            append=lambda split, values: kafka.produce(topic, values, partition=split),
            expire=lambda: kafka.delete_records(topic, {0: 5, 1: 5}),
        )

    @pytest.fixture
    def source(self, kafka, topic, open_source):
        return open_source(kafka, topic)


def offsets(position):
    """Offsets by partition."""
    return {int(split.rpartition("/")[2]): token["offset"] for split, token in position.items()}


def commit(broker, group, topic, wanted):
    consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": group, "log_level": 0})
    places = [TopicPartition(topic, partition, offset) for partition, offset in wanted.items()]
    consumer.commit(offsets=places, asynchronous=False)
    consumer.close()


def lost(source, position, kind):
    """The error of a plan whose position is lost in the way named."""
    with pytest.raises(PositionLostError) as caught:
        source.plan(position, NO_LIMIT)
    assert caught.value.kind == kind
    assert "vector-assets reset cars --to" in str(caught.value)
    return caught.value


# -- where it starts


@pytest.mark.parametrize(("mode", "expected"), [("earliest-offset", {0: 2, 1: 0}), ("latest-offset", {0: 5, 1: 0})])
def test_a_pipeline_starts_where_its_mode_says(kafka, open_source, mode, expected):
    topic = kafka.create_topic(2)
    kafka.produce(topic, [b"x"] * 5, partition=0)
    kafka.delete_records(topic, {0: 2})
    assert offsets(open_source(kafka, topic, **{"scan.startup.mode": mode}).start()) == expected


@pytest.mark.parametrize(("reset", "second"), [("earliest", 0), ("latest", 4)])
def test_a_group_without_an_offset_starts_where_the_reset_says(kafka, open_source, reset, second):
    topic = kafka.create_topic(2)
    kafka.produce(topic, [b"x"] * 8, partition=[0, 1] * 4)
    group = f"group_{topic}"
    commit(kafka, group, topic, {0: 3})
    options = {"scan.startup.mode": "group-offsets", "properties.group.id": group}
    source = open_source(kafka, topic, **options, **{"properties.auto.offset.reset": reset})
    assert offsets(source.start()) == {0: 3, 1: second}
    strict = open_source(kafka, topic, **options)
    with pytest.raises(ConfigError, match=r"no committed offset for partition 1; set 'properties.auto.offset.reset'"):
        strict.start()


def test_nothing_is_committed_to_the_group(kafka, open_source):
    topic = kafka.create_topic()
    kafka.produce(topic, [b"x"] * 5)
    group = f"group_{topic}"
    source = open_source(kafka, topic, **{"properties.group.id": group})
    drain(source, source.start())
    source.close()
    reader = open_source(kafka, topic, **{"properties.group.id": group, "scan.startup.mode": "group-offsets"})
    with pytest.raises(ConfigError, match="no committed offset"):
        reader.start()


def test_a_missing_topic_is_named_with_the_nearest_ones(kafka, open_source):
    topic = kafka.create_topic(name=f"vector_ingest_{time.time_ns()}")
    source = open_source(kafka, topic.replace("ingest", "ingset"))
    with pytest.raises(PlanError, match=rf"does not exist \(did you mean '{topic}'\?\)"):
        source.start()


def test_a_wrong_address_is_reported_in_time(open_source):
    for servers in ("127.0.0.1:1", "127.0.0.1:1,127.0.0.1:2", "nowhere.invalid:9092"):
        source = open_source(None, "cars", servers=servers)
        began = time.monotonic()
        with pytest.raises(UnavailableError, match="no bootstrap server can be reached"):
            source.frontier()
        assert time.monotonic() - began < 3


def test_a_broker_that_accepts_and_says_nothing_is_reported_in_time(kafka, proxy, open_source):
    gate = proxy(*kafka.bootstrap_servers.split(":"))
    gate.swallow_responses = True
    source = open_source(kafka, "cars", servers=gate.address)
    began = time.monotonic()
    with pytest.raises(UnavailableError, match="no answer within 2 s"):
        source.frontier()
    assert time.monotonic() - began < 4


# -- places an operator names


def test_an_operator_can_name_offsets(kafka, open_source):
    topic = kafka.create_topic(3)
    kafka.produce(topic, [b"x"] * 5, partition=1)
    source = open_source(kafka, topic)
    assert offsets(source.locate("1:3, 2:0")) == {1: 3, 2: 0}
    for words, complaint in {
        "yesterday": "a place is 'earliest'",
        "1:3,": "a place is 'earliest'",
        "7:0": "no partition 7; known: 0, 1, 2",
        "1:6": "holds those from 0 on, 5 is the next",
        "group": "properties.group.id",
    }.items():
        with pytest.raises(ConfigError, match=complaint):
            source.locate(words)


# -- planning


def test_rows_are_divided_fairly_over_partitions(kafka, open_source):
    topic = kafka.create_topic(4)
    for partition, count in enumerate([100, 3, 0, 100]):
        kafka.produce(topic, [b"x"] * count, partition=partition)
    source = open_source(kafka, topic)
    span = source.plan(source.start(), BatchLimit(41, 1 << 30))
    assert offsets(span.end) == {0: 19, 1: 3, 3: 19}
    single = source.plan(source.start(), BatchLimit(1, 1 << 30))
    assert sum(offsets(single.end).values()) == 1


def test_splits_name_the_topic_and_its_id(kafka, open_source):
    topic = kafka.create_topic(2)
    source = open_source(kafka, topic)
    first, second = source.start()
    name, _, identity = first.removesuffix("/0").partition("@")
    assert (name, len(identity)) == (topic, 22)
    assert second == first.removesuffix("/0") + "/1"


# -- records as they are


@either_way
def test_nulls_empty_values_headers_and_timestamps_come_through(kafka, open_source):
    topic = kafka.create_topic()
    kafka.produce(
        topic,
        [b"a", None, b"", "ü".encode()],
        keys=[None, b"k", b"", b"\xff\x00"],
        headers=[[("h", b"1"), ("h", None)], [], [("empty", b"")], []],
        timestamps=[1, 1_700_000_000_000, 1_700_000_000_001, 1_700_000_000_002],
    )
    source = open_source(kafka, topic)
    table, _ = read(source, source.plan(source.start(), NO_LIMIT))
    assert values(table) == [b"a", None, b"", b"\xc3\xbc"]
    assert table.column("key").to_pylist() == [None, b"k", b"", b"\xff\x00"]
    assert table.column("headers").to_pylist() == [
        [{"key": "h", "value": b"1"}, {"key": "h", "value": None}],
        None,
        [{"key": "empty", "value": b""}],
        None,
    ]
    assert table.column("timestamp").cast("int64").to_pylist() == [1, *range(1_700_000_000_000, 1_700_000_000_003)]


@either_way
def test_headers_whose_names_are_not_text_are_left_out_and_reported(kafka, open_source, caplog):
    class NotUtf8(str):
        def encode(self, *_):
            return b"\xff\xfe"

    topic = kafka.create_topic()
    kafka.produce(topic, [b"a"], headers=[[("good", b"1")]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from kafka import KafkaProducer

        # librdkafka cannot be made to send such a name
        producer = KafkaProducer(bootstrap_servers=kafka.bootstrap_servers)
        producer.send(topic, b"b", headers=[(NotUtf8("bad"), b"2")], timestamp_ms=0).get(30)
        producer.close()
    kafka.produce(topic, [b"c"], headers=[[("good", b"3")]])
    source = open_source(kafka, topic)
    table, _ = read(source, source.plan(source.start(), NO_LIMIT))
    assert values(table) == [b"a", b"b", b"c"]
    assert table.column("headers").to_pylist() == [
        [{"key": "good", "value": b"1"}],
        None,
        [{"key": "good", "value": b"3"}],
    ]
    assert table.column("timestamp").cast("int64")[1].as_py() == 0
    assert "not UTF-8; their headers are left out (the first: partition 0, offset 1)" in caplog.text


@either_way
def test_a_record_of_ten_megabytes_comes_through_between_small_ones(kafka, open_source):
    topic = kafka.create_topic()
    large = bytes(range(256)) * (10 * 4096)
    kafka.produce(topic, [b"a", large, b"b", large, b"c"])
    source = open_source(kafka, topic)
    tables, _ = drain(source, source.start(), BatchLimit(1000, 16 << 20))
    assert [[len(value) for value in values(table)] for table in tables] == [[1, len(large), 1], [len(large), 1]]


@either_way
def test_many_partitions_come_split_by_split(kafka, open_source):
    topic = kafka.create_topic(5)
    kafka.produce(topic, [b"%d" % number for number in range(5000)], partition=[n % 5 for n in range(5000)])
    source = open_source(kafka, topic)
    tables, _ = drain(source, source.start(), BatchLimit(1234, 1 << 30))
    for table in tables:
        assert places(table) == sorted(places(table))
    found = [int(value) for table in tables for value in values(table)]
    assert sorted(found) == list(range(5000))


# -- one consumer over many reads


@either_way
def test_what_arrived_past_a_span_is_kept_for_the_next_one(kafka, open_source):
    topic = kafka.create_topic(2)
    kafka.produce(topic, [b"%d" % number for number in range(4000)], partition=[n % 2 for n in range(4000)])
    source = open_source(kafka, topic)
    position = dict(source.start())
    limit = BatchLimit(500, 1 << 30)
    _, span = read(source, source.plan(position, limit), limit)
    reader = source._reader
    drain_before = reader._drain
    tables, _ = drain(source, position | span.end, limit)
    assert source._reader is reader
    assert reader._drain is drain_before
    assert sum(table.num_rows for table in tables) == 3500


@either_way
def test_a_partition_far_ahead_is_held_back_and_loses_nothing(kafka, open_source, monkeypatch):
    monkeypatch.setattr("vector_assets.sources.kafka_reader._MOST_QUEUE_BYTES", 200_000)
    topic = kafka.create_topic(2)
    kafka.produce(topic, [b"%05d" % n + bytes(1000) for n in range(3000)], partition=[n % 2 for n in range(3000)])
    source = open_source(kafka, topic)
    position = dict(source.start())
    limit = BatchLimit(100, 1 << 30)
    paused, found = set(), []
    while (span := source.plan(position, limit)) is not None:
        # after the first batch one partition at a time, so that the other one runs ahead
        span = Span(span.ranges[: 1 if found else 2])
        table, span = read(source, span, limit)
        position |= span.end
        found += [int(value[:5]) for value in values(table)]
        paused |= {track.home for track in source._reader._tracks.values() if track.is_paused}
        assert sum(track.outside_bytes for track in source._reader._tracks.values()) < 4_000_000
    assert paused
    assert len(found) == 3000
    assert sorted(found) == list(range(3000))


# -- transactions and compaction


def transactional(broker, name):
    producer = Producer(
        {"bootstrap.servers": broker.bootstrap_servers, "transactional.id": name, "log_level": 0, "linger.ms": 0}
    )
    producer.init_transactions(30)
    return producer


@either_way
def test_aborted_and_open_transactions_are_not_read(kafka, open_source):
    topic = kafka.create_topic()
    producer = transactional(kafka, topic)
    for number, keep in enumerate([True, False, True, False]):
        producer.begin_transaction()
        for record in range(10):
            producer.produce(topic, f"{number}-{record}")
        # an abort throws away what has not been sent
        producer.flush(30)
        producer.commit_transaction(30) if keep else producer.abort_transaction(30)
    producer.begin_transaction()
    producer.produce(topic, "open")
    producer.flush(30)

    source = open_source(kafka, topic)
    tables, position = drain(source, source.start())
    assert [len(table) for table in tables] == [20]
    assert offsets(position) == {0: 44}
    assert source.lag(position, source.frontier()) == 0

    producer.abort_transaction(30)
    deadline = time.monotonic() + 30
    while source.lag(position, source.frontier()) == 0:
        assert time.monotonic() < deadline
    tables, position = drain(source, position)
    assert [len(table) for table in tables] == [0]
    assert source.lag(position, source.frontier()) == 0


@either_way
def test_uncommitted_records_are_read_when_asked_for(kafka, open_source):
    topic = kafka.create_topic()
    producer = transactional(kafka, topic)
    producer.begin_transaction()
    producer.produce(topic, "open")
    producer.flush(30)
    source = open_source(kafka, topic, **{"properties.isolation.level": "read_uncommitted"})
    tables, _ = drain(source, source.start())
    assert [values(table) for table in tables] == [[b"open"]]
    producer.abort_transaction(30)


@either_way
def test_holes_of_compaction_are_not_a_loss(kafka, open_source):
    topic = kafka.create_topic(
        config={
            "cleanup.policy": "compact",
            "segment.ms": 100,
            "min.cleanable.dirty.ratio": 0.001,
            "max.compaction.lag.ms": 100,
            "delete.retention.ms": 100,
        }
    )
    source = open_source(kafka, topic)
    start = source.start()
    kafka.produce(topic, [b"%d" % number for number in range(300)], keys=[b"%d" % (n % 3) for n in range(300)])
    deadline = time.monotonic() + 60
    while True:
        # the segment being written is never cleaned: a record now and then closes it
        kafka.produce(topic, [b"tick"], keys=[b"tick"])
        tables, position = drain(source, start)
        found = [value for table in tables for value in values(table)]
        if len(found) < 100:
            break
        assert time.monotonic() < deadline, "the broker has not compacted the topic"
    assert {b"297", b"298", b"299"} <= set(found)
    assert source.lag(position, source.frontier()) == 0
    # a span whose last offsets are holes reaches its end
    limit = BatchLimit(250, 1 << 30)
    table, span = read(source, source.plan(start, limit), limit)
    assert offsets(span.end) == {0: 250}
    assert table.num_rows < 10


# -- the topic changes


def test_a_truncated_topic_is_named_with_the_exact_gap(kafka, open_source):
    topic = kafka.create_topic(2)
    kafka.produce(topic, [b"x"] * 100, partition=0)
    source = open_source(kafka, topic)
    _, position = drain(source, source.start())
    kafka.produce(topic, [b"x"] * 100, partition=0)
    kafka.delete_records(topic, {0: 140})
    error = lost(source, position, "TRUNCATED")
    split = next(iter(position))
    assert error.missing == {split: (100, 140)}
    assert "--to 0:140" in str(error)
    tables, _ = drain(source, position | source.locate("0:140"))
    assert [table.num_rows for table in tables] == [60]


@either_way
def test_a_batch_planned_before_the_truncation_is_not_read_past_it(kafka, open_source):
    topic = kafka.create_topic()
    kafka.produce(topic, [b"x"] * 100)
    source = open_source(kafka, topic)
    span = source.plan(source.start(), NO_LIMIT)
    kafka.delete_records(topic, {0: 40})
    with pytest.raises(PositionLostError) as caught:
        read(source, span)
    assert (caught.value.kind, list(caught.value.missing.values())) == ("TRUNCATED", [(0, 40)])


@either_way
@pytest.mark.parametrize("count", [5, 300], ids=["fewer", "more"])
def test_a_recreated_topic_is_named_and_not_read_at_the_stale_offset(kafka, open_source, count):
    topic = kafka.create_topic()
    kafka.produce(topic, [b"old"] * 100)
    source = open_source(kafka, topic)
    limit = BatchLimit(60, 1 << 30)
    position = dict(source.start())
    _, span = read(source, source.plan(position, limit), limit)
    position |= span.end
    planned = source.plan(position, limit)

    kafka.delete_topic(topic)
    kafka.create_topic(name=topic)
    kafka.produce(topic, [b"new"] * count)
    error = lost(source, position, "RECREATED")
    assert error.missing == {next(iter(position)): (60, None)}
    for each in (source, open_source(kafka, topic)):
        with pytest.raises(PositionLostError, match="RECREATED"):
            read(each, planned)

    # after the operator's reset the ledger holds places of both topics
    tables, _ = drain(source, position | source.locate("earliest"))
    assert [values(table) for table in tables] == [[b"new"] * count]


@either_way
def test_a_topic_recreated_while_it_is_read_is_noticed_before_a_record_is_given(kafka, open_source):
    topic = kafka.create_topic()
    kafka.produce(topic, [b"old"] * 100)
    source = open_source(kafka, topic)
    limit = BatchLimit(50, 1 << 30)
    position = dict(source.start())
    _, span = read(source, source.plan(position, limit), limit)
    planned = source.plan(position | span.end, limit)
    kafka.delete_topic(topic)
    kafka.create_topic(name=topic)
    kafka.produce(topic, [b"new"] * 300)
    reading = source.read(planned, limit)
    with pytest.raises(PositionLostError, match="RECREATED"):
        next(reading)


def test_a_deleted_topic_is_named(kafka, open_source):
    topic = kafka.create_topic()
    kafka.produce(topic, [b"x"])
    source = open_source(kafka, topic)
    position = source.start()
    span = source.plan(position, NO_LIMIT)
    kafka.delete_topic(topic)
    # so that somebody looks
    assert source.lag(position, source.frontier()) == 1
    for attempt in (lambda: source.plan(position, NO_LIMIT), lambda: read(source, span)):
        with pytest.raises(PositionLostError, match=f"DELETED: .*{topic} does not exist any more") as caught:
            attempt()
        assert list(caught.value.missing.values()) == [(0, None)]


def test_a_position_past_the_end_is_named(kafka, open_source):
    topic = kafka.create_topic()
    kafka.produce(topic, [b"x"] * 10)
    source = open_source(kafka, topic)
    (split,) = source.start()
    error = lost(source, {split: {"offset": 30, "epoch": None}}, "BEYOND_END")
    assert error.missing == {split: (10, 30)}
    assert "--to 0:10" in str(error)


def test_a_new_partition_is_named_and_taken_in_by_a_reset(kafka, open_source):
    topic = kafka.create_topic(1)
    kafka.produce(topic, [b"x"] * 5)
    source = open_source(kafka, topic)
    _, position = drain(source, source.start())
    kafka.add_partitions(topic, 3)
    kafka.produce(topic, [b"y"] * 4, partition=2)
    assert source.lag(position, source.frontier()) == 4
    error = lost(source, position, "NEW_SPLIT")
    assert list(error.missing.values()) == [(0, None), (0, None)]
    assert "--to 1:0,2:0" in str(error)
    tables, _ = drain(source, position | source.locate("1:0,2:0"))
    assert [values(table) for table in tables] == [[b"y"] * 4]


@either_way
def test_a_log_with_another_history_is_named(own_kafka, open_source):
    broker = own_kafka()
    topic = broker.create_topic()
    broker.produce(topic, [b"x"] * 10)
    broker.stop()
    broker.start()
    broker.produce(topic, [b"y"] * 10)
    source = open_source(broker, topic)
    table, span = read(source, source.plan(source.start(), NO_LIMIT))
    assert table.num_rows == 20
    (split,) = span.end
    assert span.end[split]["epoch"] > 0
    # a pipeline that read 15 records of the first epoch, of which this log holds 10
    position = {split: {"offset": 15, "epoch": 0}}
    with pytest.raises(PositionLostError, match=r"BEYOND_END.*partition 0 is not the one that was read"):
        read(source, source.plan(position, NO_LIMIT))
    # the operator's answer to it
    tables, _ = drain(source, source.locate("0:15"))
    assert [len(each) for each in tables] == [5]


# -- outages


@either_way
def test_a_broker_down_while_reading_is_reported_and_the_same_source_reads_on(own_kafka, open_source):
    broker = own_kafka(proxied=True)
    topic = broker.create_topic(2)
    broker.produce(topic, [b"%d" % n for n in range(1000)], partition=[n % 2 for n in range(1000)])
    source = open_source(broker, topic, stall_seconds=1.0)
    limit = BatchLimit(100, 1 << 30)
    position = dict(source.start())
    first, span = read(source, source.plan(position, limit), limit)
    position |= span.end
    planned = source.plan(position, BatchLimit(900, 1 << 30))

    broker.proxy.stop()
    for attempt in (lambda: read(source, planned), source.frontier, lambda: source.plan(position, limit)):
        began = time.monotonic()
        with pytest.raises(UnavailableError):
            attempt()
        assert time.monotonic() - began < 8
    broker.proxy.start()
    deadline = time.monotonic() + 30
    while True:
        try:
            rest, span = read(source, planned)
            break
        except TransientError:
            assert time.monotonic() < deadline
    assert sorted(int(value) for table in (first, rest) for value in values(table)) == list(range(1000))


def test_a_broker_restarted_while_reading_is_waited_for(own_kafka, open_source):
    broker = own_kafka()
    topic = broker.create_topic(2)
    broker.produce(topic, [b"%d" % n for n in range(2000)], partition=[n % 2 for n in range(2000)])
    source = open_source(broker, topic, stall_seconds=30.0)
    limit = BatchLimit(100, 1 << 30)
    position = dict(source.start())
    first, span = read(source, source.plan(position, limit), limit)
    planned = source.plan(position | span.end, BatchLimit(1900, 1 << 30))
    # nothing of the rest is in the client's hands yet
    source._drop_reader()
    found = []

    def work():
        deadline = time.monotonic() + 60
        while not found:
            try:
                found.append(read(source, planned))
            except TransientError:
                assert time.monotonic() < deadline

    broker.kill()
    reading = threading.Thread(target=work)
    reading.start()
    broker.start()
    reading.join(90)
    assert not reading.is_alive()
    (rest, _) = found[0]
    assert sorted(int(value) for table in (first, rest) for value in values(table)) == list(range(2000))
