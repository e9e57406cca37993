"""Every start and bounded mode of Flink's Kafka source, against a real broker."""

import pytest
from confluent_kafka import Consumer, TopicPartition

from tests.sources.reading import drain, values
from vector_assets.engine.core import BatchLimit
from vector_assets.engine.errors import ConfigError
from vector_assets.sources.kafka import KafkaOptions
from vector_assets.sources.kafka_tokens import Place

pytestmark = pytest.mark.service
HOUR = 3_600_000
DAY = 1_700_000_000_000
SPECIFIC = "partition:0,offset:3;partition:1,offset:1"


@pytest.fixture
def topic(kafka):
    """Two partitions of ten and four records, an hour apart each from `DAY` on."""
    topic = kafka.create_topic(2, config={"retention.ms": -1})
    kafka.produce(topic, [b"a%d" % n for n in range(10)], partition=0, timestamps=[DAY + n * HOUR for n in range(10)])
    kafka.produce(topic, [b"b%d" % n for n in range(4)], partition=1, timestamps=[DAY + n * HOUR for n in range(4)])
    return topic


@pytest.fixture
def group(kafka, topic):
    """A group that has committed offset 6 of partition 0 and 2 of partition 1."""
    name = f"group_{topic}"
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": name, "log_level": 0})
    consumer.commit(offsets=[TopicPartition(topic, 0, 6), TopicPartition(topic, 1, 2)], asynchronous=False)
    consumer.close()
    return name


def offsets(position):
    return {int(split.rpartition("/")[2]): token["offset"] for split, token in position.items()}


def bounds(position):
    return {int(split.rpartition("/")[2]): token.get("until") for split, token in position.items()}


def start(mode, **more):
    return {"scan.startup.mode": mode, **more}


def bound(mode, **more):
    return {"scan.bounded.mode": mode, **more}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (start("earliest-offset"), {0: 0, 1: 0}),
        (start("latest-offset"), {0: 10, 1: 4}),
        (start("group-offsets"), {0: 6, 1: 2}),
        (start("timestamp", **{"scan.startup.timestamp-millis": str(DAY + 5 * HOUR)}), {0: 5, 1: 4}),
        (start("timestamp", **{"scan.startup.timestamp-millis": str(DAY + 2 * HOUR + 1)}), {0: 3, 1: 3}),
        (start("specific-offsets", **{"scan.startup.specific-offsets": SPECIFIC}), {0: 3, 1: 1}),
        (start("specific-offsets", **{"scan.startup.specific-offsets": "partition:0,offset:3"}), {0: 3, 1: 2}),
    ],
    ids=["earliest", "latest", "group", "time", "between-times", "specific", "specific-and-group"],
)
def test_a_pipeline_starts_where_its_mode_says(kafka, topic, group, open_source, options, expected):
    source = open_source(kafka, topic, **{"properties.group.id": group, **options})
    assert offsets(source.start()) == expected
    assert set(bounds(source.start()).values()) == {None}


def test_a_partition_that_no_specific_offset_names_starts_at_its_beginning(kafka, topic, open_source):
    given = {"scan.startup.mode": "specific-offsets", "scan.startup.specific-offsets": "partition:0,offset:3"}
    assert offsets(open_source(kafka, topic, **given).start()) == {0: 3, 1: 0}


@pytest.mark.parametrize(
    ("specific", "complaint"),
    [("partition:7,offset:0", "no partition 7; known: 0, 1"), ("partition:1,offset:5", "from 0 on, 4 is the next")],
)
def test_a_specific_offset_that_is_not_there_is_refused(kafka, topic, open_source, specific, complaint):
    given = {"scan.startup.mode": "specific-offsets", "scan.startup.specific-offsets": specific}
    with pytest.raises(ConfigError, match=complaint):
        open_source(kafka, topic, **given).start()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (bound("latest-offset"), {0: 10, 1: 4}),
        (bound("group-offsets"), {0: 6, 1: 2}),
        (bound("timestamp", **{"scan.bounded.timestamp-millis": str(DAY + 5 * HOUR)}), {0: 5, 1: 4}),
        (bound("specific-offsets", **{"scan.bounded.specific-offsets": SPECIFIC}), {0: 3, 1: 1}),
        (bound("specific-offsets", **{"scan.bounded.specific-offsets": "partition:0,offset:3"}), {0: 3, 1: 0}),
        (bound("specific-offsets", **{"scan.bounded.specific-offsets": "partition:0,offset:12"}), {0: 12, 1: 0}),
    ],
    ids=["latest", "group", "time", "specific", "specific-of-one", "specific-to-come"],
)
def test_a_bounded_pipeline_ends_where_its_mode_said_at_the_start(kafka, topic, group, open_source, options, expected):
    given = {"properties.group.id": group, **options}
    position = open_source(kafka, topic, **given).start()
    assert bounds(position) == expected
    kafka.produce(topic, [b"late"] * 20, partition=[0, 1] * 10, timestamps=DAY)
    # another process goes on from the ledger's position
    source = open_source(kafka, topic, **given)
    tables, end = drain(source, position, BatchLimit(4, 1 << 30))
    assert offsets(end) == bounds(end) == expected
    assert sum(table.num_rows for table in tables) == sum(expected.values())
    assert source.lag(end, source.frontier()) == 0
    parsed = KafkaOptions.parse(
        {"connector": "kafka", "topic": topic, "format": "raw", "scan.startup.mode": "earliest-offset",
         "properties.bootstrap.servers": kafka.bootstrap_servers, **given}, "kafka",
    )  # fmt: skip
    assert parsed.is_finished(end)
    assert not parsed.is_finished(position)


def test_a_bounded_pipeline_waits_for_a_bound_that_is_yet_to_come(kafka, topic, open_source):
    given = bound("specific-offsets", **{"scan.bounded.specific-offsets": "partition:0,offset:12"})
    source = open_source(kafka, topic, **given)
    _, position = drain(source, source.start())
    assert offsets(position) == {0: 10, 1: 0}
    kafka.produce(topic, [b"x"] * 5, partition=0)
    assert source.lag(position, source.frontier()) == 2
    tables, position = drain(source, position)
    assert [len(table) for table in tables] == [2]


def test_a_partition_added_to_a_bounded_pipeline_is_not_read(kafka, topic, open_source):
    source = open_source(kafka, topic, **bound("latest-offset"))
    position = source.start()
    kafka.add_partitions(topic, 3)
    kafka.produce(topic, [b"new"], partition=2)
    assert source.lag(position, source.frontier()) == 14
    tables, position = drain(source, position)
    assert b"new" not in [value for table in tables for value in values(table)]
    assert source.lag(position, source.frontier()) == 0


def test_what_expires_behind_a_bound_is_no_loss(kafka, topic, open_source):
    source = open_source(kafka, topic, **bound("latest-offset"))
    _, position = drain(source, source.start())
    kafka.produce(topic, [b"x"] * 5, partition=0)
    kafka.delete_records(topic, {0: 15, 1: 4})
    assert source.plan(position, BatchLimit(100, 1 << 30)) is None
    kafka.delete_topic(topic)
    assert source.lag(position, source.frontier()) == 0
    assert source.plan(position, BatchLimit(100, 1 << 30)) is None


def test_an_operators_place_gets_its_bound_anew(kafka, topic, open_source):
    source = open_source(kafka, topic, **bound("latest-offset"))
    kafka.produce(topic, [b"x"] * 2, partition=0)
    (token,) = source.locate("0:4").values()
    assert token == {"offset": 4, "epoch": None, "until": 12}


def test_a_token_of_older_code_means_the_same_place():
    place = Place.of("cars@AAAAAAAAAAAAAAAAAAAAAA/3", {"offset": 7, "epoch": 2})
    assert (place.home, place.offset, place.epoch, place.until, place.is_gone) == (("cars", 3), 7, 2, None, False)
    assert place.at(8, 2) == {"offset": 8, "epoch": 2}
