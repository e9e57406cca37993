"""Kafka as a source: positions that name the topic's id, and batches of assigned offsets.

Splits and tokens are described in `kafka_tokens`; the leader epoch in a token is how the broker proves that its log is
still the one that was read.
"""

import re
from collections.abc import Generator, Iterable, Iterator
from typing import ClassVar

import numpy as np
import pyarrow as pa

from vector_assets.clients.kafka import ControlPlane
from vector_assets.engine.abilities import Finding
from vector_assets.engine.core import RAW_SCHEMA, BatchLimit, Position, Range, Span, Token
from vector_assets.engine.errors import ConfigError, PositionLostError, TransientError
from vector_assets.engine.metadata import Keys
from vector_assets.engine.schema import Table
from vector_assets.sources.kafka_diagnose import findings
from vector_assets.sources.kafka_metadata import METADATA
from vector_assets.sources.kafka_modes import Modes, Offsets
from vector_assets.sources.kafka_options import KafkaOptions
from vector_assets.sources.kafka_reader import KafkaReader, Wanted
from vector_assets.sources.kafka_tokens import Home, Place, counted, moved_to, offset_of, token_of
from vector_assets.sources.kafka_track import Part, Piece, fair
from vector_assets.sources.kafka_watch import Topics, TopicWatch, listed, splits_of

__all__ = ["KafkaOptions", "KafkaSource"]

_STALL_SECONDS = 10.0
_FEW_ROWS = 4096
_PLACE = re.compile(r"(?:([A-Za-z0-9._-]+)/)?(\d{1,9}):(\d{1,18})")


class KafkaSource:
    """Topics. Questions about them are answered or fail within 2 s, or within `properties.request.timeout.ms`."""

    METADATA: ClassVar[Keys] = METADATA

    def __init__(
        self, options: KafkaOptions, table: Table, *, pipeline: str = "", timeout_seconds: float | None = None,
        stall_seconds: float = _STALL_SECONDS,
    ) -> None:  # fmt: skip
        self._options = options
        self._properties = options.client()
        self._control = ControlPlane(self._properties, timeout_seconds)
        self._watch = TopicWatch(self._control, options, pipeline or table.name)
        self._modes = Modes(self._control, self._watch, options)
        self._stall_seconds = stall_seconds
        self._reader: KafkaReader | None = None
        self._backlog = 0

    def start(self) -> Position:
        """Where the startup mode says, for every partition there is now; with it goes where a bounded pipeline ends.

        Raises:
            ConfigError: the modes cannot be met.
        """
        topics = self._watch.existing()
        return self._position(topics, self._modes.start(list(splits_of(topics).values())))

    def frontier(self) -> Position:
        """The last stable offset of every partition, or its high watermark if uncommitted records are read too."""
        try:
            splits = splits_of(self._watch.topics())
            ends = self._watch.ends(list(splits.values()))
            return {split: token_of(ends[home]) for split, home in splits.items()}
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
            end = place.capped(ends[place.home])
            if limit.until is not None:
                end = min(end, offset_of(limit.until.get(place.split)))
            if end > place.offset:
                backlog[place] = end - place.offset
        self._backlog = sum(backlog.values())
        shares = fair(backlog, limit.rows)
        ranges = tuple(
            Range(place.split, start[place.split], place.at(place.offset + shares[place]))
            for place in backlog
            if shares[place]
        )
        return Span(ranges) if ranges else None

    def read(self, span: Span, limit: BatchLimit) -> Generator[pa.RecordBatch, None, Span]:
        """Records of the span; the topics' identity is checked before the first one is yielded."""
        try:
            parts = self._read(span, limit.bytes)
        except BaseException:
            self._drop_reader()
            raise
        for number, part in enumerate(parts):
            yield from _batches(part, number)
        return Span(tuple(map(_as_read, span.ranges, parts)))

    def lag(self, position: Position, frontier: Position) -> int:
        """Records between the two, holes included, up to the bounds of a bounded pipeline.

        A partition that `position` does not have counts from offset 0, unless the pipeline is bounded.
        """
        if self._options.is_bounded:
            frontier = {split: token for split, token in frontier.items() if split in position}
        return counted(position, frontier)

    def locate(self, where: str) -> Position:
        """`earliest`, `latest`, `group` (with or without `-offset`), or `[<topic>/]<partition>:<offset>,...`.

        The last form leaves out the partitions that it does not name. A bounded pipeline's end is found anew.
        """
        mode = where.strip().removesuffix("s").removesuffix("-offset")
        topics = self._watch.existing()
        if mode in {"earliest", "latest", "group"}:
            name = "group-offsets" if mode == "group" else f"{mode}-offset"
            return self._position(topics, self._modes.at(name, list(splits_of(topics).values())))
        return self._position(topics, self._modes.checked(self._at_places(topics, where)))

    def number(self, token: Token) -> int:
        """The offset in a token, which is the number of the next record in its split."""
        return offset_of(token)

    def token(self, number: int, before: Token) -> Token:
        """The token of another offset of the split that `before` is of, under the same bound."""
        return moved_to(before, number)

    def diagnose(self) -> Iterator[Finding]:
        """Brokers, rights, partitions, what is kept, clocks."""
        yield from findings(self._properties, sorted({split.partition("@")[0] for split in self.frontier()}))

    def close(self) -> None:
        """Give back connections; idempotent."""
        self._drop_reader()
        self._control.close()

    def _position(self, topics: Topics, offsets: Offsets) -> dict[str, Token]:
        bounds = self._modes.bounds(offsets)
        return {
            split: token_of(offsets[home], until=bounds.get(home))
            for split, home in splits_of(topics).items()
            if home in offsets
        }

    def _at_places(self, topics: Topics, where: str) -> Offsets:
        matches = [_PLACE.fullmatch(place) for place in where.replace(" ", "").split(",")]
        found: Offsets = {}
        known = set(splits_of(topics).values())
        for match in matches:
            if match is None or (match[1] is None and len(topics) > 1):
                raise ConfigError(
                    f"{self._watch.where}: a place is 'earliest', 'latest', 'group' (what properties.group.id has"
                    f" committed) or '<partition>:<offset>[,...]', '<topic>/<partition>:<offset>' among several topics;"
                    f" found {where!r}"
                )
            home = Home(match[1] or next(iter(topics)), int(match[2]))
            if home not in known:
                places = [
                    home.partition if len(topics) == 1 else f"{home.topic}/{home.partition}" for home in sorted(known)
                ]
                unknown = home.partition if home.topic in topics else f"{home.topic}/{home.partition}"
                raise ConfigError(f"{self._watch.where}: there is no partition {unknown}; known: {listed(places)}")
            found[home] = int(match[3])
        return found

    def _read(self, span: Span, most_bytes: int) -> list[Part]:
        wanted = [_wanted(part) for part in span.ranges]
        records = max(self._backlog, sum(each.end - each.start for each in wanted))
        if self._reader is None or not self._reader.follows(wanted, records):
            # librdkafka waits for ever for a topic that is gone
            topics = self._watch.check_identity(span)
            self._drop_reader()
            self._reader = KafkaReader(
                self._properties,
                partitions=sum(len(topic.partitions) for topic in topics.values()),
                limit_bytes=most_bytes,
                stall_seconds=self._stall_seconds,
                records=records,
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
    return Wanted(place.home, place.offset, offset_of(part.end), place.epoch)


def _as_read(planned: Range, part: Part) -> Range:
    """The range with its end as read; an end that was known exactly stays as it is, so that its identity does."""
    if part.end == offset_of(planned.start):
        return Range(planned.split, planned.start, planned.start)
    if Place.of(planned.split, planned.end).epoch is not None and part.end == offset_of(planned.end):
        return planned
    return Range(planned.split, planned.start, Place.of(planned.split, planned.start).at(part.end, part.epoch))


def _batches(part: Part, number: int) -> Iterator[pa.RecordBatch]:
    """The part's pieces, small ones joined; each is given back once it has been copied."""
    part.pieces.reverse()
    return _joined(_raw(part.pieces.pop(), number) for _ in range(len(part.pieces)))


def _raw(piece: Piece, number: int) -> pa.RecordBatch:
    key, value, headers, timestamp, offset, kind = piece.rows.columns
    split = pa.array(np.full(len(offset), number, np.int16))
    epoch = pa.repeat(pa.scalar(piece.epoch, pa.int32()), len(offset))
    return pa.RecordBatch.from_arrays([key, value, headers, timestamp, split, offset, epoch, kind], schema=RAW_SCHEMA)


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
