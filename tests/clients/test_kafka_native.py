import time

import pytest
from confluent_kafka import KafkaError, TopicPartition

from vector_assets.clients.kafka_native import NativeConsumer, is_available
from vector_assets.engine.errors import ConfigError

pytestmark = pytest.mark.service

_DEADLINE_S = 30.0


@pytest.fixture
def open_consumer(kafka):
    """Opens native consumers on the broker; all are closed after the test."""
    made = []

    def make(most=100, **config):
        settings = {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": "native",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "check.crcs": True,
            **config,
        }
        made.append(NativeConsumer(settings, problems.append, most=most))
        return made[-1]

    problems: list[KafkaError] = []
    make.problems = problems
    yield make
    for consumer in made:
        consumer.close()
        consumer.close()


def taken(consumer, events: int):
    """Everything up to so many events: (topic, partition, offset, key, value, headers) and the events."""
    records, seen = [], []
    deadline = time.monotonic() + _DEADLINE_S
    while len(seen) < events:
        assert time.monotonic() < deadline
        found = consumer.take(100, 0.05)
        if found is None:
            continue
        seen += found.events
        columns = [found.partition, found.offset, found.key, found.value, found.headers]
        names = [found.topics[number] for number in found.topic]
        records += list(zip(names, *(column.tolist() for column in columns), strict=True))
    return records, seen


def assign(consumer, topic, *partitions, offset=0):
    consumer.incremental_assign([TopicPartition(topic, partition, offset) for partition in partitions])


def test_it_is_there_where_llvmlite_is() -> None:
    assert is_available()


def test_keys_values_and_headers_arrive_as_they_were_sent(kafka, open_consumer) -> None:
    topic = kafka.create_topic()
    keys = [None, b"", b"k", "\u00e4".encode(), None]
    values = [b"a", None, b"", b"\x00\xff", b"x" * 100_000]
    headers = [[], [("a", b"1"), ("a", None)], [], [("b", b"")], []]
    kafka.produce(topic, values, keys=keys, headers=headers)
    consumer = open_consumer()
    assign(consumer, topic, 0)
    records, (end,) = taken(consumer, 1)
    assert [record[3] for record in records] == keys
    assert [record[4] for record in records] == values
    named = [[(pair["key"], pair["value"]) for pair in record[5]] if record[5] else [] for record in records]
    assert named == headers
    assert (end.error.code(), end.topic, end.partition, end.offset) == (KafkaError._PARTITION_EOF, topic, 0, 5)


def test_the_same_records_as_the_usual_client(kafka, open_consumer) -> None:
    topics = [kafka.create_topic(2), kafka.create_topic(1)]
    for topic, partition in ((topics[0], 0), (topics[0], 1), (topics[1], 0)):
        kafka.produce(topic, [b"%d" % n * (n % 50) for n in range(300)], partition=partition)
    consumer = open_consumer(most=64)
    for topic, count in zip(topics, (2, 1), strict=True):
        assign(consumer, topic, *range(count))
    records, _ = taken(consumer, 3)
    expected = [(m.topic(), m.partition(), m.offset(), m.key(), m.value()) for t in topics for m in kafka.read(t)]
    assert sorted(record[:5] for record in records) == sorted(expected)


def test_times_and_leader_epochs_are_those_of_the_log(kafka, open_consumer) -> None:
    created, appended = kafka.create_topic(), kafka.create_topic(config={"message.timestamp.type": "LogAppendTime"})
    now = int(time.time() * 1000)
    for topic in (created, appended):
        kafka.produce(topic, [b"a"], timestamps=now - 5000)
    consumer = open_consumer()
    for topic, kind in ((created, 1), (appended, 2)):
        assign(consumer, topic, 0)
        found = None
        while found is None or not len(found.value):
            found = consumer.take(10, 0.05)
        assert found.time_type.tolist() == [kind]
        assert found.epoch.tolist() == [0]
        assert found.time.tolist() == [now - 5000] if kind == 1 else found.time[0] >= now


def test_an_offset_that_is_not_held_is_an_error_with_its_place(kafka, open_consumer) -> None:
    topic = kafka.create_topic()
    kafka.produce(topic, [b"a"] * 5)
    consumer = open_consumer()
    assign(consumer, topic, 0, offset=50)
    records, (event,) = taken(consumer, 1)
    assert records == []
    assert event.error.code() == KafkaError._AUTO_OFFSET_RESET
    assert "out of range" in event.error.str()
    assert event.partition == 0


def test_a_paused_partition_brings_nothing_until_it_is_resumed(kafka, open_consumer) -> None:
    topic = kafka.create_topic()
    kafka.produce(topic, [b"a"])
    consumer = open_consumer()
    assign(consumer, topic, 0)
    taken(consumer, 1)
    consumer.pause([TopicPartition(topic, 0)])
    kafka.produce(topic, [b"b"])
    assert all(consumer.take(10, 0.05) is None for _ in range(4))
    consumer.resume([TopicPartition(topic, 0)])
    records, _ = taken(consumer, 1)
    assert [record[4] for record in records] == [b"b"]


def test_a_header_name_that_is_not_utf8_costs_its_record_the_headers_only(kafka, open_consumer, caplog) -> None:
    topic = kafka.create_topic()
    kafka.produce(topic, [b"a", b"b"], headers=[[("ok", b"1")], [("ok", b"2")]])
    consumer = open_consumer()
    assign(consumer, topic, 0)
    original = NativeConsumer._headers_of
    broken = iter([True, False])

    def headers_of(self, message):
        if next(broken):
            return [b"\xff".decode()]
        return original(self, message)

    NativeConsumer._headers_of = headers_of
    try:
        records, _ = taken(consumer, 1)
    finally:
        NativeConsumer._headers_of = original
    assert [record[5] for record in records] == [None, [{"key": "ok", "value": b"2"}]]
    assert "not UTF-8" in caplog.text


def test_a_property_that_librdkafka_does_not_know_is_refused(open_consumer) -> None:
    with pytest.raises(ConfigError, match=r"no\.such\.property"):
        open_consumer(**{"no.such.property": "1"})


def test_a_broker_that_is_not_there_is_reported(kafka, open_consumer) -> None:
    topic = kafka.create_topic()
    consumer = open_consumer(**{"bootstrap.servers": "127.0.0.1:1"})
    assign(consumer, topic, 0)
    deadline = time.monotonic() + _DEADLINE_S
    while not open_consumer.problems:
        assert time.monotonic() < deadline
        consumer.take(10, 0.05)
    assert open_consumer.problems[0].code() in {KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN}
