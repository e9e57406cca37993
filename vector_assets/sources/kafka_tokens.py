"""Splits and tokens of the Kafka source: what the ledger keeps of a place in a topic. Pure.

A split is `<topic>@<topic id>/<partition>`. A token is `{"offset": n, "epoch": e}`: the next offset to read, and the
leader epoch of the record before it (null when that was not read). Two more entries are there only where they mean
something: `until` is the offset where a bounded pipeline ends, frozen with its start; `gone` is true where the topic
was deleted and a policy went on without it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from vector_assets.engine.core import Position, Split, Token


class Home(NamedTuple):
    """A partition by the name of its topic: what clients are asked about."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Place:
    """A split and what its token says."""

    split: Split
    home: Home
    offset: int
    epoch: int | None = None
    until: int | None = None
    is_gone: bool = False

    @classmethod
    def of(cls, split: Split, token: Token) -> "Place":
        """The place that a token means."""
        known = token if isinstance(token, dict) else {}
        epoch, until = known.get("epoch"), known.get("until")
        assert epoch is None or isinstance(epoch, int)
        assert until is None or isinstance(until, int)
        return cls(split, home_of(split), offset_of(token), epoch, until, bool(known.get("gone")))

    @property
    def is_over(self) -> bool:
        """True when a bounded pipeline has read this split to its end."""
        return self.until is not None and self.offset >= self.until

    def at(self, offset: int, epoch: int | None = None) -> Token:
        """The token of another offset of the same split, under the same bound."""
        return token_of(offset, epoch, self.until)

    def capped(self, offset: int) -> int:
        """The offset, or the bound where that comes first."""
        return offset if self.until is None else min(offset, self.until)


def home_of(split: Split) -> Home:
    """The partition that a split is, whichever topic of that name it was."""
    name, _, rest = split.partition("@")
    return Home(name, int(rest.rpartition("/")[2]))


def offset_of(token: Token) -> int:
    """The offset in a token; a split without a token is read from its beginning."""
    offset = token["offset"] if isinstance(token, dict) else 0
    assert isinstance(offset, int)
    return offset


def token_of(offset: int, epoch: int | None = None, until: int | None = None) -> dict[str, Token]:
    """The token of an offset; `epoch` is the leader epoch of the record before it, if that was read."""
    bound: dict[str, Token] = {} if until is None else {"until": until}
    return {"offset": offset, "epoch": epoch, **bound}


def moved_to(token: Token, offset: int) -> dict[str, Token]:
    """The token of another offset of the same split, under the same bound."""
    until = token.get("until") if isinstance(token, dict) else None
    assert until is None or isinstance(until, int)
    return token_of(offset, until=until)


def places_of(position: Position) -> list[Place]:
    """A position's places, in its order."""
    return [Place.of(split, token) for split, token in position.items()]


def counted(position: Position, frontier: Position) -> int:
    """Offsets from `position` to `frontier`, no further than its bounds.

    A split that `position` does not have counts from offset 0. One whose topic the frontier does not know counts 1, so
    that somebody looks, unless it is over or its loss was taken note of.
    """
    ends = {split: offset_of(token) for split, token in frontier.items()}
    names = {home_of(split).topic for split in ends}
    count = 0
    for place in places_of(position):
        if place.split in ends:
            count += max(place.capped(ends.pop(place.split)) - place.offset, 0)
        elif not (place.is_over or place.is_gone or place.home.topic in names):
            count += 1
    return count + sum(ends.values())


def is_finished(position: Position) -> bool:
    """True when every split of a bounded pipeline has been read to its end."""
    return all(place.is_over or place.is_gone for place in places_of(position))


def shown_places(offsets: Mapping[Home, int], *, with_topic: bool) -> str:
    """Places as an operator names them: `0:1200,1:1180`, or `cars/0:1200` among several topics."""
    return ",".join(
        f"{home.topic}/{home.partition}:{offset}" if with_topic else f"{home.partition}:{offset}"
        for home, offset in offsets.items()
    )
