"""Topics made and filled by an operator: what Kafka's own console tools do, against any cluster."""

import io
import re
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from vector_assets.clients import kafka
from vector_assets.clients.kafka_properties import Properties
from vector_assets.engine.errors import ConfigError, PlanError, TransientError, UnavailableError, VectorAssetsError

_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")
_TIMEOUT_SECONDS = 20.0
_DELIVERY_MS = 60_000
"""How long one record is tried; librdkafka's default is 5 minutes, too long for somebody who waits."""
_POLL_SECONDS = 0.1
_BROKER_S_DEFAULT = -1

_REFUSALS = frozenset(
    {
        KafkaError.INVALID_CONFIG, KafkaError.INVALID_PARTITIONS, KafkaError.INVALID_REPLICATION_FACTOR,
        KafkaError.POLICY_VIOLATION, KafkaError.TOPIC_EXCEPTION, KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._AUTHENTICATION,
        KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD,
    }
)  # fmt: skip


def create_topic(
    properties: Properties, name: str, *, partitions: int = 1, replication: int | None = None,
    config: Mapping[str, str] | None = None,
) -> bool:  # fmt: skip
    """Make a topic, and return when every partition has a leader; False when there is one of that name.

    `replication` None leaves the number of copies to the broker, as Kafka's own tool does.

    Raises:
        ConfigError: the name, a number or a setting is refused, or we may not make topics.
        UnavailableError: the cluster does not answer.
    """
    if not _NAME.fullmatch(name) or name in {".", ".."}:
        raise ConfigError(f"topic {name!r}: want up to 249 letters, digits, '.', '_' and '-'")
    control = kafka.ControlPlane(properties)
    try:
        if name in control.topics():
            return False
        topic = NewTopic(
            name, partitions, _BROKER_S_DEFAULT if replication is None else replication, config=dict(config or {})
        )
        if not _is_created(properties, topic):
            return False
        _await_leaders(control, name, partitions)
        return True
    finally:
        control.close()


def _is_created(properties: Properties, topic: Any) -> bool:
    client: AdminClient = kafka.confluent_admin(properties)
    where = f"kafka {properties.servers}: topic {topic.topic!r}"
    try:
        client.create_topics([topic], request_timeout=_TIMEOUT_SECONDS)[topic.topic].result(_TIMEOUT_SECONDS)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return False
        raise _translated(error.args[0], where) from error
    except TimeoutError as error:
        raise UnavailableError(f"{where}: no answer within {_TIMEOUT_SECONDS:g} s") from error
    return True


def _await_leaders(control: kafka.ControlPlane, name: str, partitions: int) -> None:
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while True:
        try:
            found = control.topic(name)
            if len(found.partitions) == partitions:
                # a leader that is named may not know of it yet: it does once it answers for the partition
                control.log_ends(name, found.partitions, committed=False)
                return
            problem: VectorAssetsError = UnavailableError(f"topic {name!r} was made, its partitions are not served yet")
        except (PlanError, TransientError) as error:
            # the controller has it, the broker that was asked has not heard of it
            problem = error
        if time.monotonic() >= deadline:
            raise problem
        time.sleep(_POLL_SECONDS)


def list_topics(properties: Properties) -> dict[str, int]:
    """Number of partitions by the name of every topic we may see; Kafka's own topics are left out.

    Raises:
        ConfigError: the broker refuses us.
        UnavailableError: the cluster does not answer.
    """
    control = kafka.ControlPlane(properties)
    try:
        names = sorted(name for name in control.topics() if not name.startswith("__"))
        return {name: len(control.topic(name).partitions) for name in names}
    finally:
        control.close()


@dataclass(slots=True)
class Produced:
    """What the broker has confirmed: records in all, and per partition the first and the last offset."""

    records: int = 0
    offsets: dict[int, tuple[int, int]] = field(default_factory=dict)

    def add(self, partition: int, offset: int) -> None:
        """One record more."""
        self.records += 1
        first, last = self.offsets.get(partition, (offset, offset))
        self.offsets[partition] = (min(first, offset), max(last, offset))


@dataclass(frozen=True, slots=True)
class Line:
    """A record to be: the number of its line, counted from 1, its key (None without a separator) and its value."""

    number: int
    key: bytes | None
    value: bytes


def lines(stream: BinaryIO, separator: bytes | None, place: str) -> Generator[Line, None, None]:
    """One record a line, byte for byte; a line ends with LF, CR LF or CR, as for Kafka's console producer.

    With a separator, what stands before the first one is the key.

    Raises:
        ConfigError: a line lacks the separator.
    """
    # latin-1 gives every byte back as it was; the text layer knows the three kinds of line ends
    text = io.TextIOWrapper(stream, encoding="latin-1", newline=None)
    try:
        for number, line in enumerate(text, start=1):
            record = line.removesuffix("\n").encode("latin-1")
            if separator is None:
                yield Line(number, None, record)
                continue
            key, found, value = record.partition(separator)
            if not found:
                raise ConfigError(
                    f"{place}:{number}: no key separator {separator.decode(errors='backslashreplace')!r} in this line;"
                    " records before it were sent"
                )
            yield Line(number, key, value)
    finally:
        text.detach()


class LineProducer:
    """Appends lines to one topic in order, each once: an idempotent producer, every record confirmed."""

    def __init__(self, properties: Properties, topic: str, place: str) -> None:
        """`place` (a file's name) starts the messages about a record.

        Raises:
            PlanError: there is no such topic; producing does not make one.
            ConfigError: the broker refuses us.
            UnavailableError: the cluster does not answer.
        """
        self._topic = topic
        self._place = place
        self._where = f"kafka {properties.servers}: topic {topic!r}"
        control = kafka.ControlPlane(properties)
        try:
            self.partitions = control.topic(topic).partitions
        finally:
            control.close()
        settings = {"enable.idempotence": True, "linger.ms": 20, "delivery.timeout.ms": _DELIVERY_MS}
        self._producer: Producer = kafka.producer(properties, settings)
        self.produced = Produced()
        self._refused: tuple[int, KafkaError] | None = None

    def send(self, records: Iterator[Line], partition: int | None, progress: Callable[[int], None]) -> Produced:
        """Send all, `progress` is told how many records are confirmed; the partition is chosen by key unless given.

        Raises:
            ConfigError: there is no such partition, or the broker refuses a record for good.
            TransientError: a record was not confirmed in time; how many were is in the message.
        """
        if partition is not None and partition not in self.partitions:
            known = ", ".join(map(str, self.partitions))
            raise ConfigError(f"{self._where}: there is no partition {partition}; known: {known}")
        where: dict[str, Any] = {} if partition is None else {"partition": partition}
        try:
            for line in records:
                self._enqueue(line, where)
                if line.number % 1000 == 0:
                    progress(self.produced.records)
                if self._refused is not None:
                    break
        finally:
            # what was sent is told, whatever ends this
            left = self._flush(progress)
        if self._refused is not None:
            number, error = self._refused
            raise _translated(
                error, f"{self._where}: {self._place}:{number} was not taken, {self.produced.records} records were"
            )
        if left:
            raise TransientError(
                f"{self._where}: {left} records were not confirmed within {_DELIVERY_MS // 1000} s,"
                f" {self.produced.records} were"
            )
        return self.produced

    def _enqueue(self, line: Line, where: dict[str, Any]) -> None:
        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                self.produced.add(message.partition() or 0, message.offset() or 0)
            elif self._refused is None:
                self._refused = (line.number, error)

        while self._refused is None:
            try:
                self._producer.produce(self._topic, line.value, line.key, on_delivery=delivered, **where)
            except BufferError:
                self._producer.poll(_POLL_SECONDS)
            except KafkaException as error:
                self._refused = (line.number, error.args[0])
            else:
                self._producer.poll(0)
                return

    def _flush(self, progress: Callable[[int], None]) -> int:
        deadline = time.monotonic() + _DELIVERY_MS / 1000
        while (left := self._producer.flush(_POLL_SECONDS)) and time.monotonic() < deadline:
            progress(self.produced.records)
        progress(self.produced.records)
        return left


def _translated(error: KafkaError, where: str) -> VectorAssetsError:
    message = f"{where}: {error.str()}"
    if error.code() in _REFUSALS:
        return ConfigError(message)
    if error.code() in {KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN}:
        return UnavailableError(message)
    return TransientError(message)
