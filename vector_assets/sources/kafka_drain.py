"""Two ways to take what has arrived, with one result: through confluent-kafka's messages, or natively as columns."""

import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from vector_assets.clients import kafka as clients
from vector_assets.clients import kafka_native
from vector_assets.clients.kafka_native import Event, NativeConsumer
from vector_assets.clients.kafka_properties import Properties
from vector_assets.engine import env
from vector_assets.engine.errors import ConfigError
from vector_assets.sources.kafka_records import COLUMNS, Longs, columns, consecutive, stamps, time_types, timestamps
from vector_assets.sources.kafka_tokens import Home

log = logging.getLogger(__name__)

_NO_ROWS = pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in COLUMNS], schema=COLUMNS)
_MANY_RECORDS = 500_000
"""From here on it pays to compile the loops: 0.1 s of CPU, where a million records take 0.6 s of CPU less."""
_MANY_RECORDS_ONCE_LOADED = 200_000
"""From here on it pays to connect anew for it (0.1 s)."""


@dataclass(frozen=True, slots=True)
class Run:
    """Rows from `begin` to before `end`: records of one partition, of one leader epoch (None where unknown)."""

    home: Home
    epoch: int | None
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Taken:
    """What one call took: records as rows of `COLUMNS` in order of arrival, whose they are, and what came besides."""

    rows: pa.RecordBatch
    runs: Sequence[Run]
    events: Sequence[Event]


class Drain(Protocol):
    """A librdkafka consumer of assigned partitions; after any error it is only closed. One thread uses it."""

    IS_NATIVE: ClassVar[bool]

    def incremental_assign(self, places: list[TopicPartition]) -> None:
        """Read these partitions too, each from its offset (and after its leader epoch, where that is known)."""

    def pause(self, places: list[TopicPartition]) -> None:
        """Fetch nothing more of these partitions for now."""

    def resume(self, places: list[TopicPartition]) -> None:
        """Fetch again."""

    def take(self, count: int, timeout_seconds: float) -> Taken | None:
        """Up to so many messages, None when none came in time."""

    def close(self) -> None:
        """Give back everything."""


def is_native_due(records: int) -> bool:
    """True when so many records should be read natively (and can be, when nobody insists on it).

    Raises:
        ConfigError: VECTOR_ASSETS_NATIVE is none of its values.
    """
    choice = env.native()
    if choice != "auto":
        return choice == "on"
    many = _MANY_RECORDS_ONCE_LOADED if kafka_native.is_loaded() else _MANY_RECORDS
    return records >= many and _works()


def open_drain(
    properties: Properties, settings: Mapping[str, Any], on_error: Callable[[KafkaError], None], *, most: int,
    records: int,
) -> Drain:  # fmt: skip
    """The way to take so many records, at most `most` at once.

    Raises:
        ConfigError: librdkafka refuses a property, or VECTOR_ASSETS_NATIVE=on cannot be met.
    """
    if is_native_due(records):
        return NativeDrain(NativeConsumer(clients.consumer_config(properties, settings), on_error, most=most))
    return PythonDrain(clients.consumer(properties, settings, on_error))


@cache
def _works() -> bool:
    """True where records can be read natively; that llvmlite is there and does not work is logged, once."""
    if not kafka_native.is_available():
        return False
    try:
        kafka_native.load()
    except ConfigError as error:
        log.warning("%s; they are read the slower way (VECTOR_ASSETS_NATIVE=off does not try)", error)
        return False
    return True


class PythonDrain:
    """One Python object per message, which is what confluent-kafka hands out."""

    IS_NATIVE: ClassVar[bool] = False

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._topics: dict[str, int] = {}

    def incremental_assign(self, places: list[TopicPartition]) -> None:
        """See `Drain`."""
        self._consumer.incremental_assign(places)
        for place in places:
            self._topics.setdefault(place.topic, len(self._topics))

    def pause(self, places: list[TopicPartition]) -> None:
        """See `Drain`."""
        self._consumer.pause(places)

    def resume(self, places: list[TopicPartition]) -> None:
        """See `Drain`."""
        self._consumer.resume(places)

    def close(self) -> None:
        """See `Drain`."""
        self._consumer.close()

    def take(self, count: int, timeout_seconds: float) -> Taken | None:
        """See `Drain`."""
        messages = self._consumer.consume(count, timeout_seconds)
        if not messages:
            return None
        records, events, times = messages, [], stamps(messages)
        # an error has no time, and hardly a record has none: cheaper than to ask each message for its error
        if times[:, 1].min() <= 0:
            records = [message for message in messages if message.error() is None]
            events = [_event(error, message) for message in messages if (error := message.error()) is not None]
            times = stamps(records)
        if not records:
            return Taken(_NO_ROWS, (), events)
        return self._records(records, times, events)

    def _records(self, records: list[Message], times: Longs, events: list[Event]) -> Taken:
        count = len(records)
        partitions = np.fromiter(map(Message.partition, records), np.int64, count)
        if len(self._topics) > 1:
            topics = map(self._topics.__getitem__, map(Message.topic, records))  # type: ignore[arg-type]
            partitions += np.fromiter(topics, np.int64, count) << 32
        bounds = [0, *(np.flatnonzero(np.diff(partitions)) + 1).tolist(), count]
        offsets = np.concatenate([consecutive(records[begin:end]) for begin, end in itertools.pairwise(bounds)])
        runs = [run for begin, end in itertools.pairwise(bounds) for run in _by_epoch(records, begin, end)]
        return Taken(columns(records, offsets, times), runs, events)


class NativeDrain:
    """No Python object per message."""

    IS_NATIVE: ClassVar[bool] = True

    def __init__(self, consumer: NativeConsumer) -> None:
        self._consumer = consumer
        self.incremental_assign = consumer.incremental_assign
        self.pause = consumer.pause
        self.resume = consumer.resume
        self.close = consumer.close

    def take(self, count: int, timeout_seconds: float) -> Taken | None:
        """See `Drain`."""
        found = self._consumer.take(count, timeout_seconds)
        if found is None:
            return None
        if not len(found.offset):
            return Taken(_NO_ROWS, (), found.events)
        arrays = [
            found.key,
            found.value,
            found.headers,
            timestamps(found.time_type, found.time),
            pa.array(found.offset),
            time_types(found.time_type),
        ]
        rows = pa.RecordBatch.from_arrays(arrays, schema=COLUMNS)
        return Taken(rows, _runs(found), found.events)


def _runs(found: kafka_native.Messages) -> list[Run]:
    marks = (found.topic, found.partition, found.epoch)
    changes = np.logical_or.reduce([mark[1:] != mark[:-1] for mark in marks])
    bounds = [0, *(np.flatnonzero(changes) + 1).tolist(), len(found.partition)]
    return [
        Run(
            Home(found.topics[int(found.topic[begin])], int(found.partition[begin])),
            int(found.epoch[begin]) if found.epoch[begin] >= 0 else None,
            begin,
            end,
        )
        for begin, end in itertools.pairwise(bounds)
    ]


def _by_epoch(records: Sequence[Message], begin: int, end: int) -> list[Run]:
    """The records from `begin` to `end`, all of one partition; epochs never fall within it."""
    home, epoch = Home(records[begin].topic() or "", records[begin].partition() or 0), records[begin].leader_epoch()
    if epoch == records[end - 1].leader_epoch():
        return [Run(home, epoch, begin, end)]
    epochs = [message.leader_epoch() for message in records[begin:end]]
    cuts = [begin + at for at in range(1, len(epochs)) if epochs[at] != epochs[at - 1]]
    return [Run(home, epochs[first - begin], first, last) for first, last in itertools.pairwise([begin, *cuts, end])]


def _event(error: KafkaError, message: Message) -> Event:
    return Event(error, message.topic(), message.partition() or 0, message.offset() or 0)
