"""Reads ranges of offsets in bulk, through one librdkafka consumer that lives as long as ranges follow each other."""

import contextlib
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from vector_assets.clients import kafka as clients
from vector_assets.clients.kafka_properties import Properties
from vector_assets.engine.errors import ConfigError, TransientError, UnavailableError
from vector_assets.sources.kafka_records import Longs, columns, consecutive, stamps
from vector_assets.sources.kafka_tokens import Home
from vector_assets.sources.kafka_track import Part, Piece, Track, fair

_POLL_SECONDS = 0.05
_MOST_MESSAGES = 2_000
_LEAST_QUEUE_BYTES, _MOST_QUEUE_BYTES = 16 << 20, 32 << 20
# compressed: 1 MB of each of 4 partitions (the default) took 480 MB of memory, 256 KB takes 260 MB and no longer
_FETCH_BYTES, _LEAST_FETCH_BYTES = 1 << 20, 128 << 10
_MOST_QUEUES_AHEAD = 4

_KEEP_WAITING = frozenset(
    {
        KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError._RESOLVE,
        KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC,
        KafkaError.UNKNOWN_TOPIC_ID, KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE,
    }
)  # fmt: skip
"""Errors after which librdkafka goes on by itself; after any other it may have passed over records."""
_REFUSED = frozenset(
    {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError.TOPIC_AUTHORIZATION_FAILED}
)


class OffsetRefusedError(TransientError):
    """The broker does not hold the offset to read from; `is_diverged`: nor the history that led to it."""

    def __init__(self, message: str, home: Home, *, is_diverged: bool) -> None:
        super().__init__(message)
        self.home = home
        self.is_diverged = is_diverged


@dataclass(frozen=True, slots=True)
class Wanted:
    """A range of one partition; `epoch` is the leader epoch of the record before `start`, if known."""

    home: Home
    start: int
    end: int
    epoch: int | None


class KafkaReader:
    """Assigned partitions of one topic or several; after any error it is closed and starts anew at the next read.

    What arrives past the end of a range is kept for the next one. That is about one fetch of each partition, for
    librdkafka hands over whole fetches; partitions that run further ahead of a slow one are held back.
    """

    def __init__(
        self, properties: Properties, *, partitions: int, limit_bytes: int, stall_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._properties = properties
        self._queue_bytes = min(max(limit_bytes // 8, _LEAST_QUEUE_BYTES), _MOST_QUEUE_BYTES)
        self._fetch_bytes = max(_FETCH_BYTES // max(partitions, 1), _LEAST_FETCH_BYTES)
        self._stall_seconds = stall_seconds
        self._clock = clock
        self._consumer: Consumer | None = None
        self._tracks: dict[Home, Track] = {}
        self._topics: dict[str, int] = {}
        self._record_bytes = 0.0
        self._messages = 1
        self._problem: KafkaError | None = None

    def follows(self, wanted: Sequence[Wanted]) -> bool:
        """True when these ranges begin where the last ones ended."""
        if self._consumer is None:
            return False
        tracks = ((self._tracks.get(each.home), each.start) for each in wanted)
        return all(track is None or track.next == start for track, start in tracks)

    def read(self, wanted: Sequence[Wanted], most_bytes: int) -> list[Part]:
        """All ranges at once, in the order asked for; cut back fairly when there are more bytes.

        Raises:
            OffsetRefusedError: the broker does not hold an offset.
            UnavailableError: nothing has come for the stall time.
            ConfigError: the broker refuses us.
        """
        try:
            tracks = self._aim(wanted)
            self._fetch(tracks, most_bytes)
        except KafkaException as error:
            self.close()
            raise TransientError(f"kafka {self._properties.servers}: {error.args[0].str()}") from error
        except BaseException:
            self.close()
            raise
        shares = fair({track.home: track.inside_bytes for track in tracks}, most_bytes)
        parts = [track.take(shares[track.home]) for track in tracks]
        if not any(part.pieces for part in parts):
            # a record may be larger than the limit: one always passes
            parts = _with_one_record(tracks, parts)
        return parts

    def close(self) -> None:
        """Give back the consumer and what has arrived; idempotent."""
        consumer, self._consumer = self._consumer, None
        self._tracks.clear()
        self._topics.clear()
        self._problem = None
        if consumer is not None:
            with contextlib.suppress(KafkaException):
                consumer.close()

    def _aim(self, wanted: Sequence[Wanted]) -> list[Track]:
        if not self.follows(wanted):
            self.close()
            self._consumer = self._connected()
        self._assign([each for each in wanted if each.home not in self._tracks])
        tracks = [self._tracks[each.home] for each in wanted]
        for track, each in zip(tracks, wanted, strict=True):
            track.aim(each.end)
        self._resume([track for track in tracks if track.is_paused and not track.is_complete])
        return tracks

    def _connected(self) -> Consumer:
        settings: dict[str, Any] = {
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            # as in the Java client, where librdkafka's own default is false
            "check.crcs": self._properties.get("check.crcs", True),
            "max.partition.fetch.bytes": self._properties.get("max.partition.fetch.bytes", self._fetch_bytes),
            # by default 500: a partition that is assigned or resumed waits until the fetch under way is answered
            "fetch.wait.max.ms": self._properties.get("fetch.max.wait.ms", 50),
            # by default a queue that was full is looked at again after a second
            "fetch.queue.backoff.ms": 10,
            "queued.max.messages.kbytes": self._queue_bytes // 1024,
            # there is no group to leave while a commit takes long
            "max.poll.interval.ms": 86_400_000,
        }
        return clients.consumer(self._properties, settings, self._on_error)

    def _on_error(self, error: KafkaError) -> None:
        if self._problem is None or self._problem.code() not in _REFUSED:
            self._problem = error

    def _assign(self, wanted: Sequence[Wanted]) -> None:
        if wanted and self._consumer is not None:
            epochs = [-1 if each.epoch is None else each.epoch for each in wanted]
            self._consumer.incremental_assign(
                [
                    TopicPartition(*each.home, each.start, leader_epoch=epoch)
                    for each, epoch in zip(wanted, epochs, strict=True)
                ]
            )
            self._tracks |= {each.home: Track(each.home, each.start, each.epoch) for each in wanted}
            for home in self._tracks:
                self._topics.setdefault(home.topic, len(self._topics))

    def _fetch(self, tracks: Sequence[Track], most_bytes: int) -> None:
        assert self._consumer is not None
        since = self._clock()
        while (left := most_bytes - sum(track.inside_bytes for track in tracks)) > 0:
            missing = [track for track in tracks if not track.is_complete]
            if not missing:
                return
            before = [track.arrived for track in missing]
            # what is there, else the first that comes: a call that waits for a number waits its whole time for the last
            at_once = self._consumer.consume(self._count(left), 0)
            self._add(at_once or self._consumer.consume(1, _POLL_SECONDS))
            self._hold_back()
            if [track.arrived for track in missing] != before:
                since, self._problem = self._clock(), None
            elif self._problem is not None and self._problem.code() in _REFUSED:
                raise ConfigError(f"kafka {self._properties.servers}: {self._problem.str()}")
            elif self._clock() - since >= self._stall_seconds:
                raise self._stalled(missing)

    def _count(self, left_bytes: int) -> int:
        """How many messages to ask for: no more than the limit has room for, by their size so far."""
        self._messages = min(self._messages * 10, _MOST_MESSAGES)
        return min(self._messages, int(left_bytes / self._record_bytes) + 1 if self._record_bytes else 1)

    def _stalled(self, missing: Sequence[Track]) -> UnavailableError:
        places = ", ".join(f"{track.home.topic}/{track.home.partition} (from {track.arrived})" for track in missing[:5])
        reason = f"; last from the client: {self._problem.str()}" if self._problem else ""
        return UnavailableError(
            f"kafka {self._properties.servers}: nothing came for {self._stall_seconds:g} s from partitions"
            f" {places}{reason}"
        )

    def _add(self, messages: list[Message]) -> None:
        """Sort messages into their tracks; ends of partitions count after the records before them."""
        if not messages:
            return
        records, others, times = messages, [], stamps(messages)
        # an error has no time, and hardly a record has none: cheaper than to ask each message for its error
        if times[:, 1].min() <= 0:
            records = [message for message in messages if message.error() is None]
            others = [message for message in messages if message.error() is not None]
            times = stamps(records)
        if records:
            self._add_records(records, times)
        for message in others:
            self._note(message)

    def _add_records(self, records: list[Message], times: Longs) -> None:
        count = len(records)
        partitions = np.fromiter(map(Message.partition, records), np.int64, count)
        if len(self._topics) > 1:
            topics = map(self._topics.__getitem__, map(Message.topic, records))  # type: ignore[arg-type]
            partitions += np.fromiter(topics, np.int64, count) << 32
        runs = list(itertools.pairwise([0, *(np.flatnonzero(np.diff(partitions)) + 1).tolist(), count]))
        offsets = np.concatenate([consecutive(records[begin:end]) for begin, end in runs])
        rows = columns(records, offsets, times)
        self._record_bytes = rows.nbytes / count
        for begin, end in runs:
            track = self._tracks[_home(records[begin])]
            for first, last in _by_epoch(records, begin, end):
                piece = Piece.of(rows.slice(first, last - first), records[first].leader_epoch())
                if piece is not None:
                    track.add(piece)

    def _note(self, message: Message) -> None:
        error, home = message.error(), _home(message)
        assert error is not None
        code = error.code()
        where = f"kafka topic {home.topic!r}: partition {home.partition}"
        if code == KafkaError._PARTITION_EOF:
            self._tracks[home].reach(message.offset() or 0)
        elif code in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._LOG_TRUNCATION):
            is_diverged = code == KafkaError._LOG_TRUNCATION or "truncation" in error.str()
            raise OffsetRefusedError(f"{where}: {error.str()}", home, is_diverged=is_diverged)
        elif code in _REFUSED:
            raise ConfigError(f"{where}: {error.str()}")
        elif code in _KEEP_WAITING:
            self._problem = error
        else:
            raise TransientError(f"{where}: {error.str()}")

    def _hold_back(self) -> None:
        """Pause partitions that have what this read wants, when too much has come for later ones."""
        if sum(track.outside_bytes for track in self._tracks.values()) <= _MOST_QUEUES_AHEAD * self._queue_bytes:
            return
        ahead = [track for track in self._tracks.values() if track.is_complete and not track.is_paused]
        if ahead and self._consumer is not None:
            self._consumer.pause([TopicPartition(*track.home) for track in ahead])
            for track in ahead:
                track.is_paused = True

    def _resume(self, tracks: Sequence[Track]) -> None:
        if tracks and self._consumer is not None:
            self._consumer.resume([TopicPartition(*track.home) for track in tracks])
            for track in tracks:
                track.is_paused = False


def _home(message: Message) -> Home:
    return Home(message.topic() or "", message.partition() or 0)


def _by_epoch(records: Sequence[Message], begin: int, end: int) -> list[tuple[int, int]]:
    """The run from `begin` to `end` in runs of one leader epoch each; epochs never fall within a partition."""
    if records[begin].leader_epoch() == records[end - 1].leader_epoch():
        return [(begin, end)]
    epochs = [message.leader_epoch() for message in records[begin:end]]
    cuts = [begin + at for at in range(1, len(epochs)) if epochs[at] != epochs[at - 1]]
    return list(zip([begin, *cuts], [*cuts, end], strict=True))


def _with_one_record(tracks: Sequence[Track], parts: list[Part]) -> list[Part]:
    for number, track in enumerate(tracks):
        if track.outside and track.outside[0].first < track.end:
            track.aim(track.end)
            return [*parts[:number], track.take(0, least_records=1), *parts[number + 1 :]]
    return parts
