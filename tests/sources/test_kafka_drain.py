"""Both ways to take Kafka's records: the same result, and which one is taken when."""

import random
import subprocess
import sys
import time

import pyarrow as pa
import pytest
from confluent_kafka import KafkaError, TopicPartition

from tests.sources.reading import drain, read, values
from vector_assets.clients import kafka_native
from vector_assets.clients.kafka_properties import Properties
from vector_assets.engine import env
from vector_assets.engine.core import BatchLimit
from vector_assets.engine.errors import ConfigError
from vector_assets.sources import kafka_drain
from vector_assets.sources.kafka_drain import is_native_due, open_drain
from vector_assets.sources.kafka_records import COLUMNS

FEW, MANY = 10, 10_000_000
needs_llvmlite = pytest.mark.skipif(not kafka_native.is_available(), reason=kafka_native.missing())


@pytest.fixture
def choose(monkeypatch):
    """Sets VECTOR_ASSETS_NATIVE; what was found out before about llvmlite is forgotten, before and afterwards."""

    def forget():
        kafka_drain._works.cache_clear()
        kafka_native.load.cache_clear()

    forget()
    yield lambda choice: monkeypatch.setenv("VECTOR_ASSETS_NATIVE", choice)
    forget()


def taken(broker, choice, places, choose):
    """All records of the places by (topic, partition), with their epochs, and the errors that came."""
    choose(choice)
    settings = {"auto.offset.reset": "error", "enable.partition.eof": True, "enable.auto.commit": False}
    properties = Properties({"bootstrap.servers": broker.bootstrap_servers})
    found, epochs, events = {}, {}, []
    way = open_drain(properties, settings, lambda error: None, most=37, records=0)
    assert ("on" if way.IS_NATIVE else "off") == choice
    way.incremental_assign([TopicPartition(*place) for place in places])
    deadline = time.monotonic() + 30
    while len(events) < len(places):
        assert time.monotonic() < deadline
        some = way.take(50, 0.1)
        if some is None:
            continue
        some.rows.validate(full=True)
        assert sum(run.end - run.begin for run in some.runs) == some.rows.num_rows
        for run in some.runs:
            found.setdefault(run.home, []).append(some.rows.slice(run.begin, run.end - run.begin))
            epochs.setdefault(run.home, set()).add(run.epoch)
        events += some.events
    way.close()
    tables = {home: pa.Table.from_batches(batches, COLUMNS).combine_chunks() for home, batches in found.items()}
    return tables, epochs, {(each.topic, each.partition, each.offset, each.error.code()) for each in events}


@needs_llvmlite
@pytest.mark.service
def test_both_ways_give_the_same_records_epochs_and_errors(kafka, choose):
    topics = [kafka.create_topic(2), kafka.create_topic(1, config={"message.timestamp.type": "LogAppendTime"})]
    chance = random.Random(5)
    for topic, partition in ((topics[0], 0), (topics[0], 1), (topics[1], 0)):
        some = [None, b"", b"k", b"\xff\x00" * 20]
        kafka.produce(
            topic,
            [chance.choice([*some, chance.randbytes(chance.randrange(2000))]) for _ in range(200)],
            keys=[chance.choice(some) for _ in range(200)],
            headers=[chance.choice([[], [], [("a", b"1"), ("a", None)], [("\u00e4", b"")]]) for _ in range(200)],
            timestamps=[chance.choice([0, 1, 1_700_000_000_000]) for _ in range(200)],
            partition=partition,
        )
    places = [(topics[0], 0, 0), (topics[0], 1, 150), (topics[1], 0, 999)]
    plain, native = (taken(kafka, choice, places, choose) for choice in ("off", "on"))
    assert native[1:] == plain[1:]
    assert {code for *_, code in native[2]} == {KafkaError._PARTITION_EOF, KafkaError._AUTO_OFFSET_RESET}
    assert [table.num_rows for table in native[0].values()].count(0) == 0
    assert {home: table.to_pylist() for home, table in native[0].items()} == {
        home: table.to_pylist() for home, table in plain[0].items()
    }


# -- which way


@needs_llvmlite
@pytest.mark.parametrize(
    ("choice", "records", "expected"),
    [("off", MANY, False), ("auto", FEW, False), ("auto", MANY, True), ("on", FEW, True)],
)
def test_few_records_do_not_pay_for_llvmlite(choose, choice, records, expected):
    choose(choice)
    assert is_native_due(records) is expected


@needs_llvmlite
def test_once_llvmlite_is_loaded_fewer_records_are_enough(choose):
    choose("auto")
    assert not is_native_due(300_000)
    kafka_native.load()
    assert is_native_due(300_000)


@needs_llvmlite
@pytest.mark.service
def test_a_small_pipeline_never_imports_llvmlite(kafka):
    topic = kafka.create_topic()
    kafka.produce(topic, [b"x"] * 10)
    code = f"""if True:
        import sys
        from vector_assets.engine.core import BatchLimit
        from vector_assets.engine.schema import Table
        from vector_assets.sources.kafka import KafkaOptions, KafkaSource
        given = {{"connector": "kafka", "topic": {topic!r}, "format": "raw", "scan.startup.mode": "earliest-offset",
                  "properties.bootstrap.servers": {kafka.bootstrap_servers!r}}}
        source = KafkaSource(KafkaOptions.parse(given, "kafka"), Table("cars", ()))
        span = source.plan(source.start(), BatchLimit(100, 1 << 20))
        print(sum(batch.num_rows for batch in source.read(span, BatchLimit(100, 1 << 20))), "llvmlite" in sys.modules)
        source.close()
    """
    environment = env.child_environment(VECTOR_ASSETS_NATIVE="auto")
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["10", "False"]


@needs_llvmlite
@pytest.mark.service
def test_a_reader_changes_its_way_when_the_backlog_grows_and_loses_nothing(kafka, open_source, choose, monkeypatch):
    choose("auto")
    monkeypatch.setattr(kafka_drain, "_MANY_RECORDS", 1000)
    monkeypatch.setattr(kafka_drain, "_MANY_RECORDS_ONCE_LOADED", 1000)
    topic = kafka.create_topic(2)
    kafka.produce(topic, [b"%d" % number for number in range(100)], partition=[n % 2 for n in range(100)])
    source = open_source(kafka, topic)
    limit = BatchLimit(60, 1 << 30)
    position = dict(source.start())
    first, span = read(source, source.plan(position, limit), limit)
    position |= span.end
    assert source._reader._drain.IS_NATIVE is False
    kafka.produce(topic, [b"%d" % n for n in range(100, 3000)], partition=[n % 2 for n in range(100, 3000)])
    second, span = read(source, source.plan(position, limit), limit)
    assert source._reader._drain.IS_NATIVE is True
    tables, _ = drain(source, position | span.end)
    # a small rest is read the way that was chosen
    assert source._reader._drain.IS_NATIVE is True
    assert sorted(int(value) for table in (first, second, *tables) for value in values(table)) == list(range(3000))


def test_insisting_on_it_without_llvmlite_says_what_to_install(choose, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    kafka_native.missing.cache_clear()
    try:
        choose("on")
        with pytest.raises(ConfigError, match=r"pip install 'vector-assets\[native\]'"):
            open_drain(Properties({"bootstrap.servers": "x:1"}), {}, lambda error: None, most=1, records=FEW)
        choose("auto")
        assert not is_native_due(MANY)
    finally:
        kafka_native.missing.cache_clear()


@needs_llvmlite
def test_a_llvmlite_that_does_not_work_is_reported_once_and_done_without(choose, monkeypatch, caplog):
    def broken(addresses):
        raise RuntimeError("no such target")

    monkeypatch.setattr(kafka_native.Kernel, "compiled", broken)
    choose("on")
    with pytest.raises(ConfigError, match="llvmlite does not work here: no such target"):
        open_drain(Properties({"bootstrap.servers": "x:1"}), {}, lambda error: None, most=1, records=FEW)
    choose("auto")
    assert [is_native_due(MANY) for _ in range(3)] == [False] * 3
    assert caplog.text.count("they are read the slower way") == 1
