"""Clients of a Kafka cluster made from checked properties, and the control plane: topic ids, offsets, groups.

confluent-kafka moves records, kafka-python asks questions. Both are quiet: what goes wrong is raised, not logged.
"""

import base64
import contextlib
import logging
import re
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import confluent_kafka
import confluent_kafka.admin

from vector_assets.clients import kafka_python
from vector_assets.clients.kafka_properties import Properties
from vector_assets.clients.kafka_python import KafkaAdminClient, TopicPartition, errors
from vector_assets.engine.errors import ConfigError, PlanError, UnavailableError
from vector_assets.engine.registry import nearest

log = logging.getLogger(__name__)
T = TypeVar("T")

DEFAULT_TIMEOUT_SECONDS = 2.0
"""How long the control plane waits for an answer unless `properties.request.timeout.ms` says otherwise."""

_REFUSAL_SECONDS = 1.0
_CLIENT_ID = "vector-assets"
_EARLIEST, _LATEST = -2, -1
_READ_UNCOMMITTED, _READ_COMMITTED = 0, 1
_CONSUMER_ONLY = frozenset(
    {"group.id", "isolation.level", "check.crcs", "max.partition.fetch.bytes"}
    | {"fetch.min.bytes", "fetch.max.bytes", "fetch.wait.max.ms"}
)


def consumer_config(properties: Properties, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What a consumer of librdkafka is made with; `settings` (librdkafka's spelling) go on top of the properties."""
    return {"group.id": _CLIENT_ID, **_rdkafka(properties), **(settings or {})}


def consumer(
    properties: Properties,
    settings: Mapping[str, Any] | None = None,
    on_error: Callable[[confluent_kafka.KafkaError], None] | None = None,
) -> confluent_kafka.Consumer:
    """A librdkafka consumer, with the properties and settings of `consumer_config`.

    Raises:
        ConfigError: librdkafka refuses a property.
    """
    config = consumer_config(properties, settings)
    if on_error is not None:
        config["error_cb"] = on_error
    return _made(lambda: confluent_kafka.Consumer(config, logger=_Quiet()))


def producer(properties: Properties, settings: Mapping[str, Any] | None = None) -> confluent_kafka.Producer:
    """A librdkafka producer; the consumer's own properties are left out.

    Raises:
        ConfigError: librdkafka refuses a property.
    """
    config = {**_not_consumers(_rdkafka(properties)), **(settings or {})}
    return _made(lambda: confluent_kafka.Producer(config, logger=_Quiet()))


def confluent_admin(properties: Properties) -> confluent_kafka.admin.AdminClient:
    """A librdkafka admin client, for what kafka-python cannot do.

    Raises:
        ConfigError: librdkafka refuses a property.
    """
    config = _not_consumers(_rdkafka(properties))
    return _made(lambda: confluent_kafka.admin.AdminClient({**config, "log_level": 0}))


def admin(properties: Properties, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS) -> KafkaAdminClient:
    """A kafka-python admin client, connected; each of its requests ends within `timeout_seconds`.

    Raises:
        ConfigError: the broker refuses our login, or we its certificate.
        UnavailableError: no bootstrap server answers in time.
    """
    try:
        return kafka_python.connect(properties, timeout_seconds)
    except UnavailableError as error:
        # a server that answers but does not let us in; kafka-python may have lost what it said
        if error.__cause__ is not None and (refusal := _refusal(properties)):
            raise ConfigError(f"kafka {properties.servers}: the broker refuses: {refusal}") from error
        raise


def _refusal(properties: Properties) -> str:
    """Why the broker does not take our login, by librdkafka; empty when it does not say so."""
    if "sasl.mechanism" not in properties:
        return ""
    problems: list[confluent_kafka.KafkaError] = []
    config = _not_consumers(_rdkafka(properties)) | {"log_level": 0, "error_cb": problems.append}
    client = _made(lambda: confluent_kafka.admin.AdminClient(config))
    deadline = time.monotonic() + _REFUSAL_SECONDS
    while time.monotonic() < deadline:
        client.poll(_REFUSAL_SECONDS / 10)
        for problem in problems:
            if problem.code() == confluent_kafka.KafkaError._AUTHENTICATION:
                return problem.str()
    return ""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as the cluster knows it now: its id changes when it is deleted and made anew."""

    name: str
    id: str
    partitions: tuple[int, ...]


class ControlPlane:
    """Questions about one cluster, each answered or refused within the timeout; connects at the first one.

    After a question that was not answered the connection is made anew at the next one.
    """

    def __init__(self, properties: Properties, timeout_seconds: float | None = None) -> None:
        self._properties = properties
        asked = properties.get("request.timeout.ms")
        self._timeout_seconds = timeout_seconds or (int(asked) / 1000 if asked else DEFAULT_TIMEOUT_SECONDS)
        self._client: KafkaAdminClient | None = None

    def topic(self, name: str) -> Topic:
        """The topic of that name.

        Raises:
            PlanError: there is none; the message lists the nearest names.
            ConfigError: we may not see it.
            UnavailableError: the cluster does not answer, or a partition has no leader.
        """
        found = self.find([name])
        if name not in found:
            raise self.missing(name)
        return found[name]

    def find(self, names: Sequence[str]) -> dict[str, Topic]:
        """Those of the topics that exist, by name.

        Raises:
            ConfigError: we may not see one.
            UnavailableError: the cluster does not answer, or a partition has no leader.
        """
        where = f"{self._where}: topic {', '.join(map(repr, names))}"
        return self._checked(self._ask(where, lambda client: client.describe_topics(list(names))))

    def find_like(self, pattern: re.Pattern[str]) -> dict[str, Topic]:
        """Topics whose whole name the pattern matches, by name; internal ones never.

        Raises:
            ConfigError: we may not see one.
            UnavailableError: the cluster does not answer, or a partition has no leader.
        """
        found = self._ask(self._where, lambda client: client.describe_topics())
        return self._checked(each for each in found if not each["is_internal"] and pattern.fullmatch(each["name"]))

    def missing(self, name: str) -> PlanError:
        """The error that a topic does not exist, naming those that do."""
        known = [each for each in self.topics() if not each.startswith("__")]
        some = ", ".join(sorted(known)[:20]) or "none"
        return PlanError(f"{self._where}: topic {name!r} does not exist{nearest(name, known)}; topics we see: {some}")

    def _checked(self, described: Iterable[Mapping[str, Any]]) -> dict[str, Topic]:
        found: dict[str, Topic] = {}
        for each in described:
            name, where = each["name"], f"{self._where}: topic {each['name']!r}"
            if each["error_code"] == errors.UnknownTopicOrPartitionError.errno:
                continue
            for code in (each["error_code"], *(part["error_code"] for part in each["partitions"])):
                # a replica that is down (9) is the cluster's business as long as there is a leader
                if code not in (0, errors.ReplicaNotAvailableError.errno):
                    raise kafka_python.translated(errors.for_code(code)(), where, self._timeout_seconds)
            if each["topic_id"] is None:
                raise ConfigError(f"{where} has no id: topic ids need a broker from Kafka 2.8 on")
            partitions = tuple(sorted(part["partition_index"] for part in each["partitions"]))
            found[name] = Topic(name, _topic_id(each["topic_id"]), partitions)
        return found

    @property
    def _where(self) -> str:
        return f"kafka {self._properties.servers}"

    def topics(self) -> list[str]:
        """Names of all topics we may see."""
        return list(self._ask(self._where, lambda client: client.list_topics()))

    def log_ends(self, topic: str, partitions: Collection[int], *, committed: bool) -> dict[int, int]:
        """Offset after the last readable record of each: the last stable offset if `committed`, else high watermark."""
        found = self.ends([(topic, partition) for partition in partitions], committed=committed)
        return {partition: offset for (_, partition), offset in found.items()}

    def starts(self, places: Collection[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """First offset of each (topic, partition) that is still held."""
        return self._offsets(places, _EARLIEST, _READ_UNCOMMITTED)

    def ends(self, places: Collection[tuple[str, int]], *, committed: bool) -> dict[tuple[str, int], int]:
        """Offset after the last readable record of each (topic, partition), as `log_ends`."""
        return self._offsets(places, _LATEST, _READ_COMMITTED if committed else _READ_UNCOMMITTED)

    def at_time(self, places: Collection[tuple[str, int]], time_ms: int) -> dict[tuple[str, int], int | None]:
        """Offset of the first record of each (topic, partition) of that time or later; None if there is none."""
        found = self._offsets(places, time_ms, _READ_UNCOMMITTED)
        return {place: offset if offset >= 0 else None for place, offset in found.items()}

    def committed(self, group: str, places: Collection[tuple[str, int]]) -> dict[tuple[str, int], int | None]:
        """Offsets that a consumer group has committed for each (topic, partition); None where it has none."""
        asked = [TopicPartition(*place) for place in places]
        where = f"{self._where}: group {group!r}"
        found = self._ask(where, lambda client: client.list_group_offsets({group: asked}))[group]
        offsets = {place: value.offset for place, value in found.items()}
        return {tuple(place): offset if (offset := offsets.get(place, -1)) >= 0 else None for place in asked}

    def close(self) -> None:
        """Give back the connection; idempotent."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(*kafka_python.FAILURES):
                client.close()

    def _offsets(self, places: Collection[tuple[str, int]], which: int, isolation: int) -> dict[tuple[str, int], int]:
        asked = {TopicPartition(*place): which for place in places}
        if not asked:
            return {}
        where = f"{self._where}: topic {', '.join(map(repr, sorted({place.topic for place in asked})))}"
        timeout_ms = int(self._timeout_seconds * 1000)
        found = self._ask(
            where,
            lambda client: client.list_partition_offsets(asked, isolation_level=isolation, timeout_ms=timeout_ms),
        )
        return {(place.topic, place.partition): int(value.offset) for place, value in found.items()}

    def _ask(self, where: str, question: Callable[[KafkaAdminClient], Any]) -> Any:
        if self._client is None:
            self._client = admin(self._properties, self._timeout_seconds)
        try:
            return question(self._client)
        except kafka_python.FAILURES as error:
            self.close()
            raise kafka_python.translated(error, where, self._timeout_seconds) from error


def _topic_id(found: uuid.UUID | str) -> str:
    """As Kafka's own tools print it."""
    number = found if isinstance(found, uuid.UUID) else uuid.UUID(found)
    return base64.urlsafe_b64encode(number.bytes).decode().rstrip("=")


class _Quiet:
    """Takes librdkafka's log lines (20 a second while a broker is down), which would else go to stderr."""

    def log(self, level: int, text: str, *arguments: object) -> None:
        """One line; errors also arrive as errors, so only what is beyond that stays above DEBUG."""
        log.log(level if level >= logging.CRITICAL else logging.DEBUG, text, *arguments)


def _rdkafka(properties: Properties) -> dict[str, Any]:
    defaults = {
        "client.id": _CLIENT_ID,
        "reconnect.backoff.ms": 100,
        "reconnect.backoff.max.ms": 1000,
        "log.connection.close": False,
    }
    return {**defaults, **properties.rdkafka()}


def _not_consumers(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in _CONSUMER_ONLY}


def _made(make: Callable[[], T]) -> T:
    try:
        return make()
    except confluent_kafka.KafkaException as error:
        raise ConfigError(f"kafka: {error.args[0].str()}") from error
