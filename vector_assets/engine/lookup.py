"""Lookup tables: what a dimension connector gives, when its cache is loaded again, and what a batch was joined with.

A dimension table is loaded whole and looked up by key. The connector says what there is now (`Snapshot`) and reads it;
keeping it, joining and choosing the moment of a reload are the same for all connectors (`transforms/lookup*.py`).
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Protocol

import pyarrow as pa

from vector_assets.engine.core import Json
from vector_assets.engine.options import Options

NEVER_MS = (1 << 63) - 1
"""Java's Long.MAX_VALUE: a cache that never becomes too old."""

_MOMENT = re.compile(r"(\d{4}-\d{2}-\d{2})[ T](\d{2}:\d{2}(?::\d{2})?)")
_ANY_DAY = date(2000, 1, 1)
_CLOCK = re.compile(r"\d{2}:\d{2}(?::\d{2})?")


@dataclass(frozen=True, slots=True)
class Part:
    """One partition (or the whole table, then `name` is empty) as the service describes it.

    `modified_ms` is when its rows last changed and `state` anything else that changes with them, such as its size.
    """

    name: str
    modified_ms: int | None
    state: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What would be loaded now: its parts in the order in which they are read, oldest first."""

    parts: tuple[Part, ...]

    @property
    def partitions(self) -> str:
        """The partitions' names; `-` for a table that has none."""
        return " and ".join(part.name for part in self.parts) or "-"

    def to_json(self) -> list[Json]:
        """What two snapshots of the same rows have in common."""
        return [[part.name, part.modified_ms, part.state] for part in self.parts]

    def short(self) -> str:
        """For people: every part with the time of its last change, in UTC."""
        return ",".join(f"{part.name}@{_stamp(part.modified_ms)}" for part in self.parts)


def _stamp(ms: int | None) -> str:
    return "?" if ms is None else f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"


class LookupTable(Protocol):
    """A dimension table of one connector. One thread at a time; opened for a look or a load and closed after it."""

    def snapshot(self) -> Snapshot:
        """What there is now; asks for names and times only, not for rows.

        Raises:
            PlanError: the table or its partition is not there.
            TransientError: the service does not answer.
        """
        ...

    def count(self, snapshot: Snapshot) -> int | None:
        """Rows of all its parts, None where that cannot be known before they are read.

        Raises:
            PlanError: a part cannot be read.
            TransientError: the service does not answer.
        """
        ...

    def load(self, snapshot: Snapshot) -> Iterator[pa.RecordBatch]:
        """The rows of the snapshot's parts, part by part, in the declared columns and types.

        Raises:
            PlanError: the columns do not fit the declared ones.
            TransientError: the service does not answer, or the rows changed while they were read.
        """
        ...

    def close(self) -> None:
        """Give back connections; idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class Blackout:
    """Periods in which no cache is loaded again: moments (`days` False), or times of every day; all in UTC.

    A daily period whose end is not after its start goes over midnight. The end itself is outside.
    """

    start: datetime
    end: datetime
    daily: bool = False

    def holds(self, now: datetime) -> bool:
        """True when `now` lies in it."""
        if not self.daily:
            return self.start <= now < self.end
        first, last, at = self.start.time(), self.end.time(), now.time()
        return first <= at < last if first < last else at >= first or at < last


def parse_blackouts(text: str) -> tuple[Blackout, ...]:
    """`2017-10-24 14:00 -> 2017-10-24 15:00, 23:30 -> 08:00`: moments or times of day, separated by commas, in UTC."""
    return tuple(_blackout(part.strip()) for part in text.split(","))


def _blackout(text: str) -> Blackout:
    ends = [end.strip() for end in text.split("->")]
    wanted = "want '2017-10-24 14:00 -> 2017-10-24 15:00' or, for every day, '14:00 -> 15:00'; several with commas"
    if len(ends) != 2:
        raise ValueError(f"{wanted}; found {text!r}")
    is_daily = all(_CLOCK.fullmatch(end) for end in ends)
    if not is_daily and not all(_MOMENT.fullmatch(end) for end in ends):
        raise ValueError(f"{wanted}; found {text!r}")
    try:
        if is_daily:
            start, end = (datetime.combine(_ANY_DAY, time.fromisoformat(each), UTC) for each in ends)
        else:
            start, end = (datetime.fromisoformat(each).replace(tzinfo=UTC) for each in ends)
    except ValueError as error:
        raise ValueError(f"{wanted}; found {text!r}: {error}") from None
    if start == end or (not is_daily and start > end):
        raise ValueError(f"the period {text!r} ends before it begins")
    return Blackout(start, end, is_daily)


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How a dimension table is kept: at most `max_rows` in memory (more only with `spill`, which joins from disk).

    It is looked at again `ttl_ms` after it was last found right (NEVER_MS: never), but in none of the `blackouts`; a
    first load is tried `retries` times more. `identity` is what makes two caches the same, without secrets.
    """

    max_rows: int
    ttl_ms: int
    retries: int
    spill: bool
    blackouts: tuple[Blackout, ...]
    identity: tuple[str, ...]

    def is_dark(self, now: float) -> bool:
        """True while nothing may be loaded again."""
        moment = datetime.fromtimestamp(now, UTC)
        return any(each.holds(moment) for each in self.blackouts)

    def is_due(self, confirmed_ms: int, now: float) -> bool:
        """True once what was right at `confirmed_ms` has to be looked at again."""
        return self.ttl_ms < NEVER_MS and now * 1000 - confirmed_ms >= self.ttl_ms


class LookupOptions(Options, ABC):
    """Options of a dimension table."""

    @abstractmethod
    def origin(self) -> tuple[str, ...]:
        """Key of the external asset, such as `("odps", "project", "table")`."""

    @abstractmethod
    def shown_name(self) -> str:
        """The table as messages name it."""

    @abstractmethod
    def policy(self) -> CachePolicy:
        """How its rows are kept."""


PAUSE = timedelta(milliseconds=200)
"""First pause between two attempts to load; doubled up to LONGEST_PAUSE."""
LONGEST_PAUSE = timedelta(seconds=5)
