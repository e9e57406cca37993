"""Reads ranges of offsets in bulk, through one librdkafka consumer that lives as long as ranges follow each other."""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from vector_assets.clients.kafka_native import Event
from vector_assets.clients.kafka_properties import Properties
from vector_assets.engine.errors import ConfigError, TransientError, UnavailableError
from vector_assets.sources.kafka_drain import Drain, Taken, is_native_due, open_drain
from vector_assets.sources.kafka_tokens import Home
from vector_assets.sources.kafka_track import Part, Piece, Track, fair

_POLL_SECONDS = 0.05
_MOST_MESSAGES, _MOST_NATIVE_MESSAGES = 2_000, 16_000
"""Taken at once: more Python objects wake the garbage collector; natively, a call costs half a millisecond."""
_LEAST_QUEUE_BYTES, _USUAL_QUEUE_BYTES, _MOST_QUEUE_BYTES = 6 << 20, 16 << 20, 32 << 20
"""What librdkafka fetches ahead: where batches are to be small (3 MB), 6 MB spare 30 MB of the process."""
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
        self, properties: Properties, *, partitions: int, limit_bytes: int, stall_seconds: float, records: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """Connects at the first read; `records` is how many there are to be read, as far as is known."""
        self._properties = properties
        self._records = records
        usual = min(max(2 * limit_bytes, _LEAST_QUEUE_BYTES), _USUAL_QUEUE_BYTES)
        self._queue_bytes = min(max(limit_bytes // 8, usual), _MOST_QUEUE_BYTES)
        self._fetch_bytes = max(_FETCH_BYTES // max(partitions, 1), _LEAST_FETCH_BYTES)
        self._stall_seconds = stall_seconds
        self._clock = clock
        self._drain: Drain | None = None
        self._tracks: dict[Home, Track] = {}
        self._record_bytes = 0.0
        self._messages = 1
        self._problem: KafkaError | None = None

    def follows(self, wanted: Sequence[Wanted], records: int = 0) -> bool:
        """True when these ranges begin where the last ones ended, and so many records ask for no other way to read."""
        if self._drain is None or (not self._drain.IS_NATIVE and is_native_due(records)):
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
        drain, self._drain = self._drain, None
        self._tracks.clear()
        self._problem = None
        if drain is not None:
            with contextlib.suppress(KafkaException):
                drain.close()

    def _aim(self, wanted: Sequence[Wanted]) -> list[Track]:
        if not self.follows(wanted):
            self.close()
            self._drain = self._connected()
        self._assign([each for each in wanted if each.home not in self._tracks])
        tracks = [self._tracks[each.home] for each in wanted]
        for track, each in zip(tracks, wanted, strict=True):
            track.aim(each.end)
        self._resume([track for track in tracks if track.is_paused and not track.is_complete])
        return tracks

    def _connected(self) -> Drain:
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
        return open_drain(self._properties, settings, self._on_error, most=_MOST_NATIVE_MESSAGES, records=self._records)

    def _on_error(self, error: KafkaError) -> None:
        if self._problem is None or self._problem.code() not in _REFUSED:
            self._problem = error

    def _assign(self, wanted: Sequence[Wanted]) -> None:
        if wanted and self._drain is not None:
            epochs = [-1 if each.epoch is None else each.epoch for each in wanted]
            self._drain.incremental_assign(
                [
                    TopicPartition(*each.home, each.start, leader_epoch=epoch)
                    for each, epoch in zip(wanted, epochs, strict=True)
                ]
            )
            self._tracks |= {each.home: Track(each.home, each.start, each.epoch) for each in wanted}

    def _fetch(self, tracks: Sequence[Track], most_bytes: int) -> None:
        assert self._drain is not None
        since = self._clock()
        while (left := most_bytes - sum(track.inside_bytes for track in tracks)) > 0:
            missing = [track for track in tracks if not track.is_complete]
            if not missing:
                return
            before = [track.arrived for track in missing]
            # what is there, else the first that comes: a call that waits for a number waits its whole time for the last
            self._add(self._drain.take(self._count(left), 0) or self._drain.take(1, _POLL_SECONDS))
            self._hold_back()
            if [track.arrived for track in missing] != before:
                since, self._problem = self._clock(), None
            elif self._problem is not None and self._problem.code() in _REFUSED:
                raise ConfigError(f"kafka {self._properties.servers}: {self._problem.str()}")
            elif self._clock() - since >= self._stall_seconds:
                raise self._stalled(missing)

    def _count(self, left_bytes: int) -> int:
        """How many messages to ask for: no more than the limit has room for, by their size so far."""
        is_native = self._drain is not None and self._drain.IS_NATIVE
        self._messages = min(self._messages * 10, _MOST_NATIVE_MESSAGES if is_native else _MOST_MESSAGES)
        return min(self._messages, int(left_bytes / self._record_bytes) + 1 if self._record_bytes else 1)

    def _stalled(self, missing: Sequence[Track]) -> UnavailableError:
        places = ", ".join(f"{track.home.topic}/{track.home.partition} (from {track.arrived})" for track in missing[:5])
        reason = f"; last from the client: {self._problem.str()}" if self._problem else ""
        return UnavailableError(
            f"kafka {self._properties.servers}: nothing came for {self._stall_seconds:g} s from partitions"
            f" {places}{reason}"
        )

    def _add(self, taken: Taken | None) -> None:
        """Sort what came into its tracks; ends of partitions count after the records before them."""
        if taken is None:
            return
        if taken.runs:
            self._record_bytes = taken.rows.nbytes / taken.rows.num_rows
        for run in taken.runs:
            piece = Piece.of(taken.rows.slice(run.begin, run.end - run.begin), run.epoch)
            if piece is not None:
                self._tracks[run.home].add(piece)
        for event in taken.events:
            self._note(event)

    def _note(self, event: Event) -> None:
        error, home = event.error, Home(event.topic or "", event.partition)
        code = error.code()
        where = f"kafka topic {home.topic!r}: partition {home.partition}"
        if code == KafkaError._PARTITION_EOF:
            self._tracks[home].reach(event.offset)
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
        if ahead and self._drain is not None:
            self._drain.pause([TopicPartition(*track.home) for track in ahead])
            for track in ahead:
                track.is_paused = True

    def _resume(self, tracks: Sequence[Track]) -> None:
        if tracks and self._drain is not None:
            self._drain.resume([TopicPartition(*track.home) for track in tracks])
            for track in tracks:
                track.is_paused = False


def _with_one_record(tracks: Sequence[Track], parts: list[Part]) -> list[Part]:
    for number, track in enumerate(tracks):
        if track.outside and track.outside[0].first < track.end:
            track.aim(track.end)
            return [*parts[:number], track.take(0, least_records=1), *parts[number + 1 :]]
    return parts
