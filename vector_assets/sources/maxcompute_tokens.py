"""What a token of a MaxCompute split says. A split is a partition: `project.table/ds=20180905`, or a table without any.

A token names the snapshot it counts in (`session`), so that the rows of a range are always the same ones, and the
version of the partition (`modified`), by which a session that has expired may be followed by another.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

from vector_assets.engine.core import Position, Split, Token

_ANY = 1 << 62


@dataclass(frozen=True, slots=True)
class Place:
    """The next row to read. None stands for what is not known (yet).

    `until` is the number of rows of the session, `modified` the partition's time of change in epoch seconds. Of the
    storage API: `part` and `row` are the split of the session and the row in it, `parts` how many splits it has.
    """

    offset: int = 0
    until: int | None = None
    session: str | None = None
    modified: int | None = None
    part: int | None = None
    row: int | None = None
    parts: int | None = None

    @classmethod
    def of(cls, token: Token) -> Self:
        """The place that a token means; a split without a token is read from its beginning."""
        known: dict[str, Any] = token if isinstance(token, dict) else {}
        return cls(**{name: known[name] for name in cls.__slots__ if name in known})

    @property
    def token(self) -> dict[str, Token]:
        """The token, without what is not known."""
        found = {name: getattr(self, name) for name in type(self).__slots__}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def is_done(self) -> bool:
        """True when nothing is left to be read, whatever becomes of the partition."""
        return self.until is not None and self.offset >= self.until

    def done(self) -> Self:
        """The place after the last row that the session is known to have, or after this one."""
        end = self.offset if self.until is None else max(self.until, self.offset)
        return replace(self, offset=end, until=end)


def split_of(table: str, spec: str | None) -> Split:
    """The split of a partition of a table."""
    return f"{table}/{spec}" if spec else table


def spec_of(split: Split) -> str | None:
    """The partition that a split is, None for a table without partitions."""
    return split.partition("/")[2] or None


def estimate(rows: int) -> dict[str, Token]:
    """A frontier's token: about so many rows (-1: unknown), by the service's statistics."""
    return {"offset": max(rows, 0), "about": True}


def ceiling(until: Position | None, split: Split, place: Place) -> int:
    """Rows of a split from a place on that `until` allows: any number where it is a frontier, made of estimates.

    An empty one is the frontier of a partition that is gone: whoever reads on finds that out.
    """
    if not until or any(isinstance(token, dict) and "about" in token for token in until.values()):
        return _ANY
    return Place.of(until[split]).offset - place.offset if split in until else 0


def counted(position: Position, frontier: Position) -> int:
    """Rows from `position` to `frontier`.

    Splits that `position` does not have count only when it has none at all: what matches later is not read. A frontier
    of estimates counts at least 1 for each split that is not read to its end, so that somebody looks.
    """
    return sum(_between(*pair) for pair in _pairs(position, frontier))


def _pairs(position: Position, frontier: Position) -> Iterator[tuple[Place, Token]]:
    for split in position or frontier:
        yield Place.of(position.get(split)), frontier.get(split)


def _between(place: Place, end: Token) -> int:
    if place.is_done:
        return 0
    if not isinstance(end, dict):
        return 1
    if "about" not in end:
        return max(Place.of(end).offset - place.offset, 0)
    until = Place.of({"offset": end["offset"]}).offset if place.until is None else place.until
    return max(until - place.offset, 1)
