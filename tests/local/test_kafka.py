"""The embedded Kafka is a real broker that survives restarts and kills."""

import time

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka.admin import ConfigResource

from tests.fix_kafka import KafkaBroker, OwnKafka
from tests.local.sockets import listening
from vector_assets.engine.errors import FatalError
from vector_assets.local import process

pytestmark = pytest.mark.service


def test_the_version_is_the_one_of_the_broker(kafka: KafkaBroker) -> None:
    row = kafka.service.status()
    assert (row.name, row.state, row.version) == ("kafka", "up", "4.3.1")
    assert row.address == kafka.bootstrap_servers


def test_it_listens_on_the_loopback_address_only(kafka: KafkaBroker) -> None:
    pid = kafka.service.status().pid
    assert pid is not None
    expected = {("127.0.0.1", port) for port in kafka.service.ports().values()}
    # a JVM without IPv6 sockets may still show mapped addresses
    found = {(address.removeprefix("::ffff:"), port) for address, port in listening(pid)}
    assert found == expected


def test_a_start_of_a_running_broker_changes_nothing(kafka: KafkaBroker) -> None:
    before = kafka.service.status()
    assert kafka.service.start() == before


def test_old_records_and_records_of_eleven_megabytes_are_kept(kafka: KafkaBroker) -> None:
    topic = kafka.create_topic()
    big = b"x" * 11_000_000
    kafka.produce(topic, ["old", big], timestamps=[1, int(time.time() * 1000)])
    assert [message.value() for message in kafka.read(topic)] == [b"old", big]
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    config = kafka.admin.describe_configs([resource])[resource].result(30)
    assert config["retention.ms"].value == "-1"


def test_a_topic_that_nobody_made_is_not_made_by_reading_it(kafka: KafkaBroker) -> None:
    consumer = Consumer(
        {"bootstrap.servers": kafka.bootstrap_servers, "group.id": "nobody", "allow.auto.create.topics": True}
    )
    consumer.subscribe(["never_made"])
    message = consumer.poll(10)
    consumer.close()
    assert message is not None
    error = message.error()
    assert error is not None
    assert error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART
    assert "never_made" not in kafka.admin.list_topics(timeout=10).topics


def test_what_the_fixture_says_about_offsets_is_so(kafka: KafkaBroker) -> None:
    topic = kafka.create_topic(partitions=2)
    places = kafka.produce(
        topic,
        ["a", "b", None],
        keys=["k", None, "gone"],
        partition=[0, 1, 1],
        headers=[[("h", b"1")], [], []],
        timestamps=1234,
    )
    assert places == [(0, 0), (1, 0), (1, 1)]
    first, _, last = kafka.read(topic)
    assert (first.key(), first.headers(), first.timestamp()[1]) == (b"k", [("h", b"1")], 1234)
    assert (last.key(), last.value()) == (b"gone", None)
    kafka.add_partitions(topic, 3)
    kafka.delete_records(topic, {1: 1})
    assert kafka.start_offsets(topic) == {0: 0, 1: 1, 2: 0}
    assert kafka.end_offsets(topic) == {0: 1, 1: 2, 2: 0}
    kafka.delete_topic(topic)
    kafka.create_topic(name=topic)
    assert kafka.end_offsets(topic) == {0: 0}
    assert kafka.produce(topic, ["new"]) == [(0, 0)]


def test_a_restart_and_a_kill_keep_records_and_ports_and_leave_no_process(own_kafka: OwnKafka) -> None:
    broker = own_kafka()
    service = broker.service
    before = service.status()
    assert before.pid is not None
    topic = broker.create_topic()
    broker.produce(topic, ["one"])

    broker.stop()
    assert process.find(before.pid) is None
    assert service.status().state == "down"
    broker.start()
    assert service.status().address == before.address
    broker.produce(topic, ["two"])

    broker.kill()
    assert (service.status().state, service.status().pid) == ("down", None)
    broker.start()
    assert service.status().address == before.address
    assert [message.value() for message in broker.read(topic)] == [b"one", b"two"]


def test_a_broker_that_cannot_start_shows_the_end_of_its_log(own_kafka: OwnKafka) -> None:
    with pytest.raises(FatalError, match=r"kafka: the server ended while starting; end of .*(\n.*)*no\.such\.Class"):
        own_kafka({"metric.reporters": "no.such.Class"})


def test_a_proxied_broker_is_reached_through_the_proxy_only(own_kafka: OwnKafka) -> None:
    broker = own_kafka(proxied=True)
    assert broker.proxy is not None
    topic = broker.create_topic()
    broker.produce(topic, ["one"])
    broker.proxy.stop()
    with pytest.raises(KafkaException):
        broker.admin.list_topics(timeout=1)
    broker.proxy.start()
    broker.produce(topic, ["two"])
    assert [message.value() for message in broker.read(topic)] == [b"one", b"two"]
