"""Topics of the demo: made once, filled with records that are the same at every call."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from vector_assets.engine import env
from vector_assets.engine.errors import TransientError
from vector_assets.local.service import Progress

_TIMEOUT_S = 30.0

Settings = dict[str, str | int | float | bool]
Pair = tuple[bytes | None, bytes | None]
"""Key and value of a record."""


@dataclass(frozen=True, slots=True)
class Filled:
    """What filling the topic did: how many records it holds, how many of them were there before."""

    total: int
    before: int

    def told(self, topic: str) -> str:
        """It in one line."""
        made = f"{self.total - self.before:,} produced" if self.before < self.total else "already there"
        return f"{self.total:,} records in {topic}: {made}"


def fill(topic: str, records: Sequence[Pair], progress: Progress) -> Filled:
    """Create the topic and produce the records it lacks: none at a second call, the rest after an interrupted first.

    Raises:
        TransientError: the broker does not answer.
    """
    with _kafka_errors():
        settings: Settings = {"bootstrap.servers": env.secret("kafka_bootstrap_servers"), "log_level": 0}
        admin = AdminClient(settings)
        # one partition, so that what an interrupted call left is the head of the list
        future = admin.create_topics([NewTopic(topic, 1, 1)], operation_timeout=_TIMEOUT_S)[topic]
        error = future.exception(_TIMEOUT_S)
        is_there = isinstance(error, KafkaException) and error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS
        if error is not None and not is_there:
            raise error
        before = _count(settings, topic) if is_there else 0
        missing = records[before:]
        if missing:
            progress(f"producing {len(missing):,} records to {topic}")
            _produce(settings, topic, missing)
        return Filled(before + len(missing), before)


def _count(settings: Settings, topic: str) -> int:
    consumer = Consumer({**settings, "group.id": "demo", "enable.auto.commit": False})
    try:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=_TIMEOUT_S)
    finally:
        consumer.close()
    return high - low


def _produce(settings: Settings, topic: str, records: Sequence[Pair]) -> None:
    refused: list[KafkaError] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            refused.append(error)

    producer = Producer({**settings, "enable.idempotence": True, "linger.ms": 5})
    for key, value in records:
        producer.produce(topic, value, key, partition=0, on_delivery=delivered)
        producer.poll(0)
    left = producer.flush(_TIMEOUT_S)
    if left or refused:
        why = refused[0] if refused else f"no answer within {_TIMEOUT_S:g} s"
        raise TransientError(f"demo: {left + len(refused)} records were not taken by {topic}: {why}")


@contextmanager
def _kafka_errors() -> Iterator[None]:
    try:
        yield
    except (KafkaException, TimeoutError) as error:
        raise TransientError(f"demo: kafka: {error or 'no answer'}") from error
