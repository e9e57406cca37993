"""The topic as it is now against the topic that a position was taken from: four named outcomes, never a silent jump."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from vector_assets.clients.kafka import ControlPlane, Topic
from vector_assets.engine.core import Position, Span, Split, Token
from vector_assets.engine.errors import GapKind, PositionLostError, TransientError
from vector_assets.sources.kafka_reader import OffsetRefusedError
from vector_assets.sources.kafka_track import Part


@dataclass(frozen=True, slots=True)
class Place:
    """A split and what its token says."""

    split: Split
    partition: int
    offset: int
    epoch: int | None

    @classmethod
    def of(cls, split: Split, token: Token) -> "Place":
        """The place that a token means."""
        epoch = token.get("epoch") if isinstance(token, dict) else None
        return cls(split, int(split.rpartition("/")[2]), offset_of(token), epoch)


def offset_of(token: Token) -> int:
    """The offset in a token; a split without a token is read from its beginning."""
    return int(token["offset"]) if isinstance(token, dict) else 0


def split_of(topic: Topic, partition: int) -> Split:
    """The split of a partition: another one after the topic was made anew."""
    return f"{topic.name}@{topic.id}/{partition}"


def token_of(offset: int, epoch: int | None = None) -> Token:
    """The token of an offset; `epoch` is the leader epoch of the record before it, if that was read."""
    return {"offset": offset, "epoch": epoch}


def position_of(topic: Topic, offsets: Mapping[int, int]) -> dict[Split, Token]:
    """The position at these offsets, in the order of partitions."""
    return {split_of(topic, partition): token_of(offset) for partition, offset in sorted(offsets.items())}


def listed(items: Collection[object]) -> str:
    """A few items for people."""
    some = ", ".join(str(item) for item in list(items)[:8])
    return some if len(items) <= 8 else f"{some} and {len(items) - 8} more"


class TopicWatch:
    """Asks the control plane about one topic and compares.

    Every method raises PlanError when there is no such topic and UnavailableError when the cluster does not answer.
    """

    def __init__(self, control: ControlPlane, name: str, pipeline: str, *, committed: bool) -> None:
        self._control = control
        self._name = name
        self._pipeline = pipeline
        self._is_committed = committed
        self.where = f"{pipeline}: kafka topic {name!r}"

    def topic(self) -> Topic:
        """The topic as it is now."""
        return self._control.topic(self._name)

    def starts(self, partitions: Collection[int]) -> dict[int, int]:
        """The first offsets that are still held."""
        return self._control.log_starts(self._name, partitions)

    def ends(self, partitions: Collection[int]) -> dict[int, int]:
        """The offsets after the last readable records."""
        return self._control.log_ends(self._name, partitions, committed=self._is_committed)

    def highest(self, partitions: Collection[int]) -> dict[int, int]:
        """The high watermarks: past the last stable offsets when transactions are open."""
        return self._control.log_ends(self._name, partitions, committed=False)

    def ahead_of(self, position: Position) -> tuple[list[Place], dict[int, int]]:
        """The position's places by partition, and the end of each, once it is sure that nothing is missing between.

        Splits of a topic that bore the name before are left over from a reset when there are places of the new one.

        Raises:
            PositionLostError: one of the named outcomes.
        """
        topic = self.topic()
        known = {split_of(topic, partition) for partition in topic.partitions}
        places = [Place.of(split, token) for split, token in position.items() if split in known]
        if position and not places:
            raise self._recreated(topic, position)
        places.sort(key=lambda place: place.partition)
        partitions = [place.partition for place in places]
        self._check_starts(places)
        ends = self.ends(partitions)
        expected = {place: place.offset for place in places if place.offset > ends[place.partition]}
        self._check_highest(expected)
        if new := sorted(set(topic.partitions) - set(partitions)):
            raise self._new_splits(topic, new)
        return places, ends

    def check_identity(self, span: Span) -> Topic:
        """The topic, which is the one that the span was planned on.

        Raises:
            PositionLostError: RECREATED.
        """
        topic = self.topic()
        known = {split_of(topic, partition) for partition in topic.partitions}
        if not known.issuperset(span.start):
            raise self._recreated(topic, span.start)
        return topic

    def check_gaps(self, span: Span, parts: Iterable[Part]) -> None:
        """A range that begins with a hole was compacted, not cut off before it could be read.

        Raises:
            PositionLostError: TRUNCATED.
        """
        firsts = {
            place: part.pieces[0].first if part.pieces else part.end
            for place, part in zip(_places(span.start), parts, strict=True)
        }
        suspects = [place for place, first in firsts.items() if first > place.offset]
        if suspects:
            starts = self.starts([place.partition for place in suspects])
            self._check_starts([place for place in suspects if starts[place.partition] <= firsts[place]])

    def explain(self, span: Span, error: TransientError) -> None:
        """Raise the named outcome behind a read that failed, if there is one."""
        self.check_identity(span)
        places = _places(span.start)
        self._check_starts(places)
        self._check_highest({place: offset_of(span.end[place.split]) for place in places})
        if isinstance(error, OffsetRefusedError) and error.is_diverged:
            place = next(place for place in places if place.partition == error.partition)
            raise self._lost(
                "BEYOND_END",
                f"the record before offset {place.offset} of partition {place.partition} is not the one that was read"
                f" ({error})",
                f"{place.partition}:{place.offset}",
                "goes on at this offset all the same",
                {place.split: (place.offset, place.offset)},
            ) from error

    def _check_starts(self, places: Sequence[Place]) -> None:
        starts = self.starts([place.partition for place in places])
        gone = {place: starts[place.partition] for place in places if place.offset < starts[place.partition]}
        if not gone:
            return
        ranges = [f"{place.offset}-{start} of partition {place.partition}" for place, start in gone.items()]
        raise self._lost(
            "TRUNCATED",
            f"offsets {listed(ranges)} are no longer held (retention, or records deleted)",
            ",".join(f"{place.partition}:{start}" for place, start in gone.items()),
            "goes on after the gap",
            {place.split: (place.offset, start) for place, start in gone.items()},
        )

    def _check_highest(self, expected: Mapping[Place, int]) -> None:
        """The log reaches as far as it did when it was looked at before."""
        highest = self.highest([place.partition for place in expected])
        short = {
            place: (highest[place.partition], offset)
            for place, offset in expected.items()
            if offset > highest[place.partition]
        }
        if not short:
            return
        found = [
            f"partition {place.partition} ends at {end}, not at {offset}" for place, (end, offset) in short.items()
        ]
        raise self._lost(
            "BEYOND_END",
            f"{listed(found)} or later: its log was cut back (an older broker restored, or an unclean leader election)",
            ",".join(f"{place.partition}:{min(end, place.offset)}" for place, (end, _) in short.items()),
            "goes on from there",
            {place.split: gap for place, gap in short.items()},
        )

    def _recreated(self, topic: Topic, position: Position) -> PositionLostError:
        old = sorted({split.rpartition("/")[0] for split in position})
        return self._lost(
            "RECREATED",
            f"its id is now {topic.id}, the position was taken from {listed(old)}: it was deleted and made anew, the"
            " same offsets are other records",
            "earliest",
            "reads the new topic from its beginning",
            {split: (offset_of(token), None) for split, token in position.items()},
        )

    def _new_splits(self, topic: Topic, new: Sequence[int]) -> PositionLostError:
        return self._lost(
            "NEW_SPLIT",
            f"new partition {listed(new)}: records of one key may now be on two partitions",
            ",".join(f"{partition}:0" for partition in new),
            "takes them in from their beginning, the others stay where they are",
            {split_of(topic, partition): (0, None) for partition in new},
        )

    def _lost(
        self, kind: GapKind, what: str, to: str, then: str, missing: Mapping[Split, tuple[int, int | None]]
    ) -> PositionLostError:
        command = f"`vector-assets reset {self._pipeline} --to {to}`"
        return PositionLostError(f"{self.where}: {what}; {command} {then}", kind, dict(missing))


def _places(position: Position) -> list[Place]:
    return [Place.of(split, token) for split, token in position.items()]
