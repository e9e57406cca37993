"""Several topics and patterns in one pipeline, against a real broker."""

import time

import pytest
from confluent_kafka import Producer

from tests.sources.reading import NO_LIMIT, drain, places, read, values
from vector_assets.engine.core import BatchLimit
from vector_assets.engine.errors import ConfigError, PlanError, PositionLostError

pytestmark = pytest.mark.service


@pytest.fixture
def prefix():
    return f"fleet_{time.time_ns()}"


def like(prefix):
    return {"topic-pattern": rf"{prefix}_[a-z]+"}


def by_place(position):
    """Offsets by (topic, partition)."""
    return {
        (split.partition("@")[0], int(split.rpartition("/")[2])): token["offset"] for split, token in position.items()
    }


@pytest.mark.usefixtures("either_way")
def test_several_topics_are_read_as_one(kafka, open_source):
    cars, buses = kafka.create_topic(2), kafka.create_topic(1)
    kafka.produce(cars, [b"c%d" % n for n in range(600)], partition=[n % 2 for n in range(600)])
    kafka.produce(buses, [b"b%d" % n for n in range(300)])
    source = open_source(kafka, f"{cars};{buses}")
    assert set(by_place(source.start())) == {(cars, 0), (cars, 1), (buses, 0)}
    tables, position = drain(source, source.start(), BatchLimit(250, 1 << 30))
    for table in tables:
        assert places(table) == sorted(places(table))
    found = [value for table in tables for value in values(table)]
    assert sorted(found) == sorted([b"c%d" % n for n in range(600)] + [b"b%d" % n for n in range(300)])
    assert by_place(position) == {(cars, 0): 300, (cars, 1): 300, (buses, 0): 300}
    assert source.lag(position, source.frontier()) == 0
    assert source.plan(position, NO_LIMIT) is None


@pytest.mark.usefixtures("either_way")
def test_offsets_of_one_number_in_two_topics_are_not_mixed_up(kafka, open_source):
    topics = [kafka.create_topic(1) for _ in range(3)]
    for topic in topics:
        kafka.produce(topic, [topic.encode()] * 50)
    source = open_source(kafka, ";".join(topics))
    table, span = read(source, source.plan(source.start(), NO_LIMIT))
    for number, part in enumerate(span.ranges):
        of_split = [value for value, (split, _) in zip(values(table), places(table), strict=True) if split == number]
        assert of_split == [part.split.partition("@")[0].encode()] * 50


def test_a_missing_topic_of_several_is_named(kafka, open_source):
    source = open_source(kafka, f"{kafka.create_topic()};nowhere")
    with pytest.raises(PlanError, match="topic 'nowhere' does not exist"):
        source.start()


def test_an_operator_names_the_topic_among_several(kafka, open_source):
    cars, buses = kafka.create_topic(2), kafka.create_topic(1)
    kafka.produce(buses, [b"x"] * 5)
    source = open_source(kafka, f"{cars};{buses}")
    assert by_place(source.locate(f"{buses}/0:3, {cars}/1:0")) == {(buses, 0): 3, (cars, 1): 0}
    for words, complaint in {
        "0:3": "<topic>/<partition>:<offset>",
        f"{buses}/1:0": f"no partition 1; known: .*{buses}/0",
        "trams/0:0": "no partition trams/0; known",
        f"{buses}/0:6": "holds those from 0 on, 5 is the next",
    }.items():
        with pytest.raises(ConfigError, match=complaint):
            source.locate(words)


def test_truncation_of_one_of_several_topics_is_named_with_it(kafka, open_source):
    cars, buses = kafka.create_topic(1), kafka.create_topic(1)
    kafka.produce(buses, [b"x"] * 10)
    source = open_source(kafka, f"{cars};{buses}")
    position = source.start()
    kafka.delete_records(buses, {0: 4})
    with pytest.raises(PositionLostError, match=f"TRUNCATED.*0-4 of partition {buses}/0.*--to {buses}/0:4`") as caught:
        source.plan(position, NO_LIMIT)
    tables, _ = drain(source, {**position, **caught.value.resume})
    assert sum(len(table) for table in tables) == 6


def test_a_pattern_reads_whole_names_and_no_internal_topic(kafka, open_source, prefix):
    names = [kafka.create_topic(name=f"{prefix}{end}") for end in ("_a", "_bc", "_b1", "_c.x")]
    for name in names:
        kafka.produce(name, [name.encode()])
    source = open_source(kafka, None, **like(prefix))
    tables, _ = drain(source, source.start())
    assert sorted(value for table in tables for value in values(table)) == [n.encode() for n in sorted(names[:2])]
    everything = open_source(kafka, None, **{"topic-pattern": ".*"})
    assert not any(topic.startswith("__") for topic, _ in by_place(everything.start()))


def test_a_pattern_that_matches_nothing_names_what_there_is(kafka, open_source, prefix):
    topic = kafka.create_topic()
    with pytest.raises(PlanError, match=f"there is none; topics we see: .*{topic}"):
        open_source(kafka, None, **like(prefix)).start()


def test_a_topic_that_matches_later_is_a_new_split(kafka, open_source, prefix):
    first = kafka.create_topic(name=f"{prefix}_a")
    kafka.produce(first, [b"a"] * 3)
    source = open_source(kafka, None, **like(prefix))
    _, position = drain(source, source.start())
    later = kafka.create_topic(2, name=f"{prefix}_b")
    kafka.produce(later, [b"b"] * 4, partition=1)
    assert source.lag(position, source.frontier()) == 4
    with pytest.raises(PositionLostError, match=f"NEW_SPLIT.*new partition {later}/0, {later}/1") as caught:
        source.plan(position, NO_LIMIT)
    assert list(caught.value.missing.values()) == [(0, None), (0, None)]
    tables, position = drain(source, {**position, **caught.value.resume})
    assert [values(table) for table in tables] == [[b"b"] * 4]
    assert source.lag(position, source.frontier()) == 0


def test_a_topic_of_a_pattern_that_vanishes_is_deleted_and_the_others_go_on(kafka, open_source, prefix):
    first, second = (kafka.create_topic(name=f"{prefix}_{end}") for end in "ab")
    source = open_source(kafka, None, **like(prefix))
    position = source.start()
    kafka.produce(second, [b"b"] * 3)
    kafka.delete_topic(first)
    with pytest.raises(PositionLostError, match=f"DELETED.*{first} does not exist any more") as caught:
        source.plan(position, NO_LIMIT)
    position = {**position, **caught.value.resume}
    tables, position = drain(source, position)
    assert [values(table) for table in tables] == [[b"b"] * 3]
    assert source.lag(position, source.frontier()) == 0
    # one of that name is a new topic, not the old one
    kafka.create_topic(name=first)
    with pytest.raises(PositionLostError, match="NEW_SPLIT"):
        source.plan(position, NO_LIMIT)


def test_a_topic_left_out_of_the_declaration_is_left_alone(kafka, open_source):
    cars, buses = kafka.create_topic(), kafka.create_topic()
    position = open_source(kafka, f"{cars};{buses}").start()
    kafka.produce(cars, [b"c"] * 2)
    kafka.produce(buses, [b"b"] * 2)
    source = open_source(kafka, cars)
    tables, position = drain(source, position)
    assert [values(table) for table in tables] == [[b"c"] * 2]


def test_open_aborted_and_compacted_records_of_several_topics_are_no_loss(kafka, open_source, prefix):
    compacting = {"cleanup.policy": "compact", "segment.ms": 100, "min.cleanable.dirty.ratio": 0.001}
    plain = kafka.create_topic(name=f"{prefix}_a")
    compacted = kafka.create_topic(name=f"{prefix}_b", config={**compacting, "max.compaction.lag.ms": 100})
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": prefix, "log_level": 0})
    producer.init_transactions(30)
    for value, keep in ((b"lost", False), (b"kept", True)):
        producer.begin_transaction()
        for number in range(20):
            producer.produce(plain, value)
            producer.produce(compacted, b"%d" % number, key=b"%d" % (number % 2))
        producer.flush(30)
        producer.commit_transaction(30) if keep else producer.abort_transaction(30)
    producer.begin_transaction()
    producer.produce(plain, b"open")
    producer.flush(30)
    source = open_source(kafka, None, **like(prefix))
    start = source.start()
    deadline = time.monotonic() + 60
    while True:
        kafka.produce(compacted, [b"tick"], keys=[b"tick"])
        tables, position = drain(source, start)
        found = [value for table in tables for value in values(table)]
        if sum(value.isdigit() for value in found) == 2:
            break
        assert time.monotonic() < deadline, "the broker has not compacted the topic"
    assert found.count(b"kept") == 20
    assert {b"18", b"19"} <= set(found)
    assert not {b"lost", b"open"} & set(found)
    assert source.lag(position, source.frontier()) == 0
    producer.abort_transaction(30)
