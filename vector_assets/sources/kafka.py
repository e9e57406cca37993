"""Kafka as a source: positions that name the topic's id, and batches of assigned offsets.

A split is `<topic>@<topic id>/<partition>`. A token is `{"offset": n, "epoch": e}`: the next offset to read, and the
leader epoch of the record before it (null when that was not read), by which the broker proves that its log is still the
one that was read.
"""

from collections.abc import Generator, Iterable, Iterator

import numpy as np
import pyarrow as pa

from vector_assets.clients.kafka import ControlPlane
from vector_assets.engine.abilities import Finding
from vector_assets.engine.core import RAW_SCHEMA, BatchLimit, Position, Range, Span
from vector_assets.engine.errors import ConfigError, PositionLostError, TransientError
from vector_assets.engine.schema import Table
from vector_assets.sources.kafka_diagnose import findings
from vector_assets.sources.kafka_options import KafkaOptions
from vector_assets.sources.kafka_reader import KafkaReader, Wanted
from vector_assets.sources.kafka_track import Part, fair
from vector_assets.sources.kafka_watch import Place, TopicWatch, listed, offset_of, position_of, token_of

__all__ = ["KafkaOptions", "KafkaSource"]

_STALL_SECONDS = 10.0
_FEW_ROWS = 4096


class KafkaSource:
    """One topic. Questions about it are answered or fail within 2 s, or within `properties.request.timeout.ms`."""

    def __init__(
        self, options: KafkaOptions, table: Table, *, pipeline: str = "", timeout_seconds: float | None = None,
        stall_seconds: float = _STALL_SECONDS,
    ) -> None:  # fmt: skip
        self._options = options
        self._properties = options.client()
        self._control = ControlPlane(self._properties, timeout_seconds)
        is_committed = self._properties.get("isolation.level") != "read_uncommitted"
        self._watch = TopicWatch(self._control, options.topic, pipeline or table.name, committed=is_committed)
        self._stall_seconds = stall_seconds
        self._reader: KafkaReader | None = None

    def start(self) -> Position:
        """Where the startup mode says, for every partition there is now.

        Raises:
            ConfigError: the group has no offset for a partition and `auto.offset.reset` does not say what then.
        """
        return self._at_mode(self._options.startup_mode)

    def frontier(self) -> Position:
        """The last stable offset of every partition, or its high watermark if uncommitted records are read too."""
        try:
            topic = self._watch.topic()
            return position_of(topic, self._watch.ends(topic.partitions))
        except TransientError:
            # a consumer that nobody polls piles up what its client says about an outage
            self._drop_reader()
            raise

    def plan(self, start: Position, limit: BatchLimit) -> Span | None:
        """Partitions that have something new, each with its fair share of the rows."""
        try:
            places, ends = self._watch.ahead_of(start)
        except (PositionLostError, TransientError):
            self._drop_reader()
            raise
        backlog: dict[Place, int] = {}
        for place in places:
            end = ends[place.partition]
            if limit.until is not None:
                end = min(end, offset_of(limit.until.get(place.split)))
            if end > place.offset:
                backlog[place] = end - place.offset
        shares = fair(backlog, limit.rows)
        ranges = tuple(
            Range(place.split, start[place.split], token_of(place.offset + shares[place]))
            for place in backlog
            if shares[place]
        )
        return Span(ranges) if ranges else None

    def read(self, span: Span, limit: BatchLimit) -> Generator[pa.RecordBatch, None, Span]:
        """Records of the span; the topic's identity is checked before the first one is yielded."""
        try:
            parts = self._read(span, limit.bytes)
        except BaseException:
            self._drop_reader()
            raise
        for number, part in enumerate(parts):
            yield from _batches(part, number)
        return Span(tuple(map(_as_read, span.ranges, parts)))

    def lag(self, position: Position, frontier: Position) -> int:
        """Records between the two, holes included; a partition that `position` does not have counts from offset 0."""
        return sum(max(offset_of(token) - offset_of(position.get(split)), 0) for split, token in frontier.items())

    def locate(self, where: str) -> Position:
        """`earliest`, `latest`, `group` (with or without `-offset`), or `<partition>:<offset>,...`.

        The last form leaves out the partitions that it does not name.
        """
        mode = where.strip().removesuffix("s").removesuffix("-offset")
        if mode in {"earliest", "latest"}:
            return self._at_mode(f"{mode}-offset")
        return self._at_mode("group-offsets") if mode == "group" else self._at_offsets(where)

    def diagnose(self) -> Iterator[Finding]:
        """Brokers, rights, partitions, what is kept, clocks."""
        yield from findings(self._properties, sorted({split.partition("@")[0] for split in self.frontier()}))

    def close(self) -> None:
        """Give back connections; idempotent."""
        self._drop_reader()
        self._control.close()

    def _at_mode(self, mode: str) -> Position:
        topic = self._watch.topic()
        if mode == "latest-offset":
            return position_of(topic, self._watch.ends(topic.partitions))
        if mode == "earliest-offset":
            return position_of(topic, self._watch.starts(topic.partitions))
        return position_of(topic, self._group_offsets(topic.partitions))

    def _group_offsets(self, partitions: tuple[int, ...]) -> dict[int, int]:
        group = self._properties.get("group.id")
        if group is None:
            raise ConfigError(f"{self._watch.where}: group offsets need the option 'properties.group.id'")
        found = self._control.committed(str(group), self._options.topic, partitions)
        offsets = {partition: offset for partition, offset in found.items() if offset is not None}
        missing = [partition for partition in partitions if partition not in offsets]
        reset = self._properties.get("auto.offset.reset", "none")
        if missing and reset == "none":
            raise ConfigError(
                f"{self._watch.where}: group {group!r} has no committed offset for partition {listed(missing)}; set"
                " 'properties.auto.offset.reset' to 'earliest' or 'latest', or 'scan.startup.mode' to"
                " 'earliest-offset' or 'latest-offset'"
            )
        return offsets | (self._watch.starts(missing) if reset == "earliest" else self._watch.ends(missing))

    def _at_offsets(self, where: str) -> Position:
        pairs = [pair.partition(":") for pair in where.replace(" ", "").split(",")]
        if not all(partition.isdecimal() and offset.isdecimal() for partition, _, offset in pairs):
            raise ConfigError(
                f"{self._watch.where}: a place is 'earliest', 'latest', 'group' (what properties.group.id has"
                f" committed) or '<partition>:<offset>[,...]', found {where!r}"
            )
        offsets = {int(partition): int(offset) for partition, _, offset in pairs}
        topic = self._watch.topic()
        if unknown := sorted(offsets.keys() - set(topic.partitions)):
            raise ConfigError(
                f"{self._watch.where}: there is no partition {listed(unknown)}; known: {listed(topic.partitions)}"
            )
        starts, ends = self._watch.starts(offsets), self._watch.highest(offsets)
        for partition, offset in offsets.items():
            if not starts[partition] <= offset <= ends[partition]:
                raise ConfigError(
                    f"{self._watch.where}: offset {offset} of partition {partition} is not there; it holds those from"
                    f" {starts[partition]} on, {ends[partition]} is the next"
                )
        return position_of(topic, offsets)

    def _read(self, span: Span, most_bytes: int) -> list[Part]:
        wanted = [_wanted(part) for part in span.ranges]
        if self._reader is None or not self._reader.follows(wanted):
            # librdkafka waits for ever for a topic that is gone
            topic = self._watch.check_identity(span)
            self._drop_reader()
            self._reader = KafkaReader(
                self._properties,
                topic.name,
                partitions=len(topic.partitions),
                limit_bytes=most_bytes,
                stall_seconds=self._stall_seconds,
            )
        try:
            parts = self._reader.read(wanted, most_bytes)
        except TransientError as error:
            self._watch.explain(span, error)
            raise
        self._watch.check_identity(span)
        self._watch.check_gaps(span, parts)
        return parts

    def _drop_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()


def _wanted(part: Range) -> Wanted:
    place = Place.of(part.split, part.start)
    return Wanted(place.partition, place.offset, offset_of(part.end), place.epoch)


def _as_read(planned: Range, part: Part) -> Range:
    """The range with its end as read; an end that was known exactly stays as it is, so that its identity does."""
    if part.end == offset_of(planned.start):
        return Range(planned.split, planned.start, planned.start)
    if Place.of(planned.split, planned.end).epoch is not None and part.end == offset_of(planned.end):
        return planned
    return Range(planned.split, planned.start, token_of(part.end, part.epoch))


def _batches(part: Part, number: int) -> Iterator[pa.RecordBatch]:
    """The part's pieces, small ones joined."""
    for rows in _joined(piece.rows for piece in part.pieces):
        key, value, headers, timestamp, offset = rows.columns
        split = pa.array(np.full(rows.num_rows, number, np.int16))
        yield pa.RecordBatch.from_arrays([key, value, headers, timestamp, split, offset], schema=RAW_SCHEMA)


def _joined(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    small: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        small.append(batch)
        rows += batch.num_rows
        if rows >= _FEW_ROWS:
            yield pa.concat_batches(small) if len(small) > 1 else batch
            small, rows = [], 0
    if small:
        yield pa.concat_batches(small)
