"""The topics as they are now against those that a position was taken from: named outcomes, never a silent jump."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from vector_assets.clients.kafka import ControlPlane, Topic
from vector_assets.engine.core import Position, Span, Split, Token
from vector_assets.engine.errors import GapKind, PlanError, PositionLostError, TransientError
from vector_assets.sources.kafka_options import KafkaOptions, java_pattern
from vector_assets.sources.kafka_reader import OffsetRefusedError
from vector_assets.sources.kafka_tokens import Home, Place, home_of, offset_of, places_of, shown_places, token_of
from vector_assets.sources.kafka_track import Part

Offsets = Mapping[Home, int]
Topics = Mapping[str, Topic]


def listed(items: Collection[object]) -> str:
    """A few items for people."""
    some = ", ".join(str(item) for item in list(items)[:8])
    return some if len(items) <= 8 else f"{some} and {len(items) - 8} more"


def splits_of(topics: Topics) -> dict[Split, Home]:
    """The topics' splits by name of topic and partition; those of a topic that was made anew are others."""
    return {
        f"{topic.name}@{topic.id}/{partition}": Home(topic.name, partition)
        for _, topic in sorted(topics.items())
        for partition in topic.partitions
    }


class TopicWatch:
    """Asks the control plane about a pipeline's topics and compares.

    Every method raises UnavailableError when the cluster does not answer.
    """

    def __init__(self, control: ControlPlane, options: KafkaOptions, pipeline: str) -> None:
        self._control = control
        self._names = options.topics
        self._pattern = java_pattern(options.topic_pattern) if options.topic_pattern is not None else None
        self._is_bounded = options.is_bounded
        self._is_committed = options.reading() == "read_committed"
        self._pipeline = pipeline
        self.is_single = len(self._names) == 1
        """True when operators need not name the topic."""
        self.where = f"{pipeline}: kafka {self._called()}"

    def _called(self) -> str:
        if self._pattern is not None:
            return f"topics like {self._pattern.pattern!r}"
        return f"topic{'' if self.is_single else 's'} {', '.join(map(repr, self._names))}"

    def topics(self) -> dict[str, Topic]:
        """Those of the topics that exist now, by name."""
        if self._pattern is not None:
            return self._control.find_like(self._pattern)
        return self._control.find(self._names)

    def existing(self) -> dict[str, Topic]:
        """The topics as they are now.

        Raises:
            PlanError: one that the declaration names does not exist, or its pattern matches none.
        """
        found = self.topics()
        for name in self._names:
            if name not in found:
                raise self._control.missing(name)
        if not found:
            known = sorted(name for name in self._control.topics() if not name.startswith("__"))
            raise PlanError(f"{self.where}: there is none; topics we see: {listed(known) or 'none'}")
        return found

    def starts(self, homes: Collection[Home]) -> dict[Home, int]:
        """The first offsets that are still held."""
        return _by_home(self._control.starts(homes))

    def ends(self, homes: Collection[Home]) -> dict[Home, int]:
        """The offsets after the last readable records."""
        return _by_home(self._control.ends(homes, committed=self._is_committed))

    def highest(self, homes: Collection[Home]) -> dict[Home, int]:
        """The high watermarks: past the last stable offsets when transactions are open."""
        return _by_home(self._control.ends(homes, committed=False))

    def ahead_of(self, position: Position) -> tuple[list[Place], dict[Home, int]]:
        """The position's places that are not over, by partition, and the end of each; sure that nothing is missing.

        Splits of a topic that bore the name before are left over from a reset when there are places of the new one;
        those of a topic that the declaration does not ask for any more are left alone.

        Raises:
            PositionLostError: one of the named outcomes.
        """
        topics = self.topics()
        known = splits_of(topics)
        all_places = places_of(position)
        self._check_there(topics, [place for place in all_places if place.split not in known], all_places)
        places = [place for place in all_places if place.split in known and not place.is_over]
        places.sort(key=lambda place: place.home)
        self._check_starts(places)
        ends = self.ends([place.home for place in places])
        expected = {place: place.offset for place in places if place.offset > ends[place.home]}
        self._check_highest(expected)
        new = {split: home for split, home in known.items() if split not in position}
        if new and not self._is_bounded:
            raise self._new_splits(new)
        return places, ends

    def check_identity(self, span: Span) -> dict[str, Topic]:
        """The topics, which are those that the span was planned on.

        Raises:
            PositionLostError: RECREATED or DELETED.
        """
        topics = self.topics()
        known = splits_of(topics)
        self._check_there(topics, [place for place in places_of(span.start) if place.split not in known], [])
        return topics

    def check_gaps(self, span: Span, parts: Iterable[Part]) -> None:
        """A range that begins with a hole was compacted, not cut off before it could be read.

        Raises:
            PositionLostError: TRUNCATED.
        """
        firsts = {
            place: part.pieces[0].first if part.pieces else part.end
            for place, part in zip(places_of(span.start), parts, strict=True)
        }
        suspects = [place for place, first in firsts.items() if first > place.offset]
        if suspects:
            starts = self.starts([place.home for place in suspects])
            self._check_starts([place for place in suspects if starts[place.home] <= firsts[place]])

    def explain(self, span: Span, error: TransientError) -> None:
        """Raise the named outcome behind a read that failed, if there is one."""
        self.check_identity(span)
        places = places_of(span.start)
        self._check_starts(places)
        self._check_highest({place: offset_of(span.end[place.split]) for place in places})
        if isinstance(error, OffsetRefusedError) and error.is_diverged:
            place = next(place for place in places if place.home == error.home)
            raise self._lost(
                "BEYOND_END",
                f"the record before offset {place.offset} of partition {self.named([place.home])} is not the one that"
                f" was read ({error})",
                "goes on at this offset all the same",
                {place.split: (place.offset, place.offset)},
                {place.split: place.at(place.offset)},
            ) from error

    def _check_there(self, topics: Topics, lost: Sequence[Place], position: Sequence[Place]) -> None:
        """Places whose topic id is not there any more are over, left over, or not asked for any more."""
        known = splits_of(topics)
        renewed = {place.home.topic for place in position if place.split in known}
        asked = [
            place
            for place in lost
            if not (place.is_over or place.is_gone or place.home.topic in renewed)
            and (self._pattern.fullmatch(place.home.topic) if self._pattern else place.home.topic in self._names)
        ]
        if not asked:
            return
        anew = [place for place in asked if place.home.topic in topics]
        raise self._recreated(topics, anew) if anew else self._deleted(asked)

    def _check_starts(self, places: Sequence[Place]) -> None:
        starts = self.starts([place.home for place in places])
        gone = {place: place.capped(starts[place.home]) for place in places if place.offset < starts[place.home]}
        if not gone:
            return
        ranges = [f"{place.offset}-{start} of partition {self.named([place.home])}" for place, start in gone.items()]
        raise self._lost(
            "TRUNCATED",
            f"offsets {listed(ranges)} are no longer held (retention, or records deleted)",
            "goes on after the gap",
            {place.split: (place.offset, start) for place, start in gone.items()},
            {place.split: place.at(start) for place, start in gone.items()},
        )

    def _check_highest(self, expected: Mapping[Place, int]) -> None:
        """The log reaches as far as it did when it was looked at before."""
        highest = self.highest([place.home for place in expected])
        short = {
            place: (highest[place.home], offset) for place, offset in expected.items() if offset > highest[place.home]
        }
        if not short:
            return
        found = [
            f"partition {self.named([place.home])} ends at {end}, not at {offset}"
            for place, (end, offset) in short.items()
        ]
        raise self._lost(
            "BEYOND_END",
            f"{listed(found)} or later: its log was cut back (an older broker restored, or an unclean leader election)",
            "goes on from there",
            {place.split: gap for place, gap in short.items()},
            {place.split: place.at(min(end, place.offset)) for place, (end, _) in short.items()},
        )

    def _recreated(self, topics: Topics, lost: Sequence[Place]) -> PositionLostError:
        names = {place.home.topic for place in lost}
        fresh = splits_of({name: topic for name, topic in topics.items() if name in names})
        old = sorted({place.split.rpartition("/")[0] for place in lost})
        resume: dict[Split, Token] = {place.split: _gone(place) for place in lost}
        if not self._is_bounded:
            starts = self.starts(list(fresh.values()))
            resume |= {split: token_of(starts[home]) for split, home in fresh.items()}
        return self._lost(
            "RECREATED",
            f"its id is now {listed(sorted(topics[name].id for name in names))}, the position was taken from"
            f" {listed(old)}: it was deleted and made anew, the same offsets are other records",
            "reads the new topic from its beginning",
            {place.split: (place.offset, None) for place in lost},
            resume,
            to="earliest" if self.is_single else "",
        )

    def _deleted(self, lost: Sequence[Place]) -> PositionLostError:
        names = sorted({place.home.topic for place in lost})
        return PositionLostError(
            f"{self.where}: topic {listed(names)} does not exist any more; SET 'vector-assets.on-position-lost' ="
            " 'skip' goes on without it, as does a declaration that does not name it",
            "DELETED",
            {place.split: (place.offset, None) for place in lost},
            {place.split: _gone(place) for place in lost},
        )

    def _new_splits(self, new: Mapping[Split, Home]) -> PositionLostError:
        starts = self.starts(list(new.values()))
        return self._lost(
            "NEW_SPLIT",
            f"new partition {self.named(list(new.values()))}: records of one key may now be in two places",
            "takes them in from their beginning, the others stay where they are (SET 'vector-assets.on-new-split' ="
            " 'earliest' always does)",
            {split: (starts[home], None) for split, home in new.items()},
            {split: token_of(starts[home]) for split, home in new.items()},
        )

    def named(self, homes: Sequence[Home]) -> str:
        """Partitions for people, with their topic when there are several."""
        return listed([home.partition if self.is_single else f"{home.topic}/{home.partition}" for home in homes])

    def _lost(
        self, kind: GapKind, what: str, then: str, missing: Mapping[Split, tuple[int, int | None]],
        resume: Mapping[Split, Token], to: str = "",
    ) -> PositionLostError:  # fmt: skip
        there = {home_of(split): offset_of(token) for split, token in resume.items() if not _is_gone(token)}
        to = to or shown_places(there, with_topic=not self.is_single) or "earliest"
        command = f"`vector-assets reset {self._pipeline} --to {to}`"
        return PositionLostError(f"{self.where}: {what}; {command} {then}", kind, dict(missing), resume)


def _by_home(found: Mapping[tuple[str, int], int]) -> dict[Home, int]:
    return {Home(*place): offset for place, offset in found.items()}


def _gone(place: Place) -> dict[str, Token]:
    return {**token_of(place.offset, place.epoch, place.until), "gone": True}


def _is_gone(token: Token) -> bool:
    return isinstance(token, dict) and bool(token.get("gone"))
