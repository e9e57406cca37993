"""How a Kafka source is: brokers, rights, partitions and their copies, what topics keep, clocks of producers."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import ConfigResource  # type: ignore[attr-defined]  # re-exported without saying so

from vector_assets.clients import kafka, kafka_python
from vector_assets.clients.kafka_properties import Properties
from vector_assets.engine.abilities import Finding

_TIMEOUT_SECONDS = 2.0
_CLOCK_MS = 5_000
_NEWEST = -3
"""ListOffsets: the record with the largest timestamp (Kafka 3.0)."""
_SHORT_MS = 3_600_000
"""A topic that keeps less than this forgets records over a longer pause of the pipeline."""


def findings(properties: Properties, topics: Sequence[str]) -> Iterator[Finding]:
    """Everything worth a line about the topics that a source reads.

    Raises:
        ConfigError: the broker refuses us.
        UnavailableError: the cluster does not answer.
    """
    client = kafka.admin(properties, _TIMEOUT_SECONDS)
    try:
        yield _brokers(properties, client)
        for topic in client.describe_topics(list(topics)):
            yield from _topic(properties, client, topic)
    except kafka_python.FAILURES as error:
        raise kafka_python.translated(error, f"kafka {properties.servers}", _TIMEOUT_SECONDS) from error
    finally:
        with contextlib.suppress(*kafka_python.FAILURES):
            client.close()


def _brokers(properties: Properties, client: Any) -> Finding:
    brokers = client.describe_cluster()["brokers"]
    version = str(client.get_broker_version_data(brokers[0]["broker_id"])).strip("<>").rpartition(" ")[2]
    count = f"{len(brokers)} broker{'s'[: len(brokers) != 1]}"
    return Finding("ok", f"Kafka {version} answers at {properties.servers} ({count})")


def _topic(properties: Properties, client: Any, topic: Mapping[str, Any]) -> Iterator[Finding]:
    name, parts = topic["name"], topic["partitions"]
    where = f"topic {name}"
    headless = [part["partition_index"] for part in parts if part["leader_id"] < 0]
    behind = [part["partition_index"] for part in parts if len(part["isr_nodes"]) < len(part["replica_nodes"])]
    copies = min((len(part["replica_nodes"]) for part in parts), default=0)
    if headless:
        yield Finding("problem", f"{where}: partition {_listed(headless)} has no leader", "bring its brokers back")
    elif behind:
        what = f"{where}: partition {_listed(behind)} has copies that are behind or offline"
        yield Finding("warning", what, "look after the brokers that hold them")
    else:
        yield Finding("ok", f"{where}: {len(parts)} partitions, {copies} cop{'y' if copies == 1 else 'ies'} of each")
    rights = topic.get("authorized_operations")
    if rights is not None and "READ" not in rights:
        yield Finding("problem", f"{where}: our login may not read it", "grant READ on the topic")
    yield from _kept(properties, name)
    yield from _newest(client, name, [part["partition_index"] for part in parts])


def _kept(properties: Properties, name: str) -> Iterator[Finding]:
    """What the topic's settings let it forget."""
    resource = ConfigResource(ConfigResource.Type.TOPIC, name)
    # kept in a name: a client that nobody holds takes its questions with it
    admin = kafka.confluent_admin(properties)
    try:
        future = admin.describe_configs([resource], request_timeout=_TIMEOUT_SECONDS)
        settings = {key: str(entry.value) for key, entry in future[resource].result(_TIMEOUT_SECONDS).items()}
    except (KafkaException, TimeoutError) as error:
        reason = error.args[0].str() if isinstance(error, KafkaException) else "no answer"
        what = f"topic {name}: how long it keeps records is not known: {reason}"
        yield Finding("warning", what, "grant DESCRIBE_CONFIGS on the topic")
        return
    retention_ms, most_bytes = int(settings["retention.ms"]), int(settings["retention.bytes"])
    kept = f"records of {_span(retention_ms)}"
    kept += f", {most_bytes:,} bytes of a partition at most" if most_bytes >= 0 else ""
    if "delete" not in settings["cleanup.policy"]:
        yield Finding("ok", f"topic {name} is compacted: it keeps the newest record of each key")
    elif 0 <= retention_ms < _SHORT_MS:
        what = f"topic {name} keeps {kept}: a longer pause of the pipeline loses records"
        yield Finding("warning", what, "raise retention.ms of the topic")
    else:
        yield Finding("ok", f"topic {name} keeps {kept}")


def _newest(client: Any, name: str, partitions: Sequence[int]) -> Iterator[Finding]:
    asked = {kafka_python.TopicPartition(name, partition): _NEWEST for partition in partitions}
    found = client.list_partition_offsets(asked, timeout_ms=int(_TIMEOUT_SECONDS * 1000))
    newest = max((each.timestamp for each in found.values()), default=-1)
    ahead = newest - int(time.time() * 1000)
    if ahead > _CLOCK_MS:
        what = f"topic {name}: its newest record is {ahead / 1000:.0f} s in the future"
        yield Finding("warning", what, "set the clocks of the producers (or of this machine)")
    elif newest >= 0:
        yield Finding("ok", f"topic {name}: its newest record is {_span(max(-ahead, 0))} old")
    else:
        yield Finding("ok", f"topic {name} is empty")


def _span(ms: int) -> str:
    if ms < 0:
        return "all times"
    for size, unit in ((86_400_000, "days"), (3_600_000, "hours"), (60_000, "min")):
        if ms >= size:
            return f"{ms / size:.3g} {unit}"
    return f"{ms / 1000:.3g} s"


def _listed(numbers: Sequence[int]) -> str:
    some = ", ".join(map(str, numbers[:8]))
    return some if len(numbers) <= 8 else f"{some} and {len(numbers) - 8} more"
