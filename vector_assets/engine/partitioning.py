"""Which Dagster partition a batch belongs to: the hour (or day) it was planned in, or a partition of its source."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vector_assets.engine.abilities import Listing, Partitioned, SourcePartition
from vector_assets.engine.core import BatchKind, Position, Source, Span
from vector_assets.engine.errors import FatalError, PlanError
from vector_assets.engine.hours import Calendar
from vector_assets.engine.ledger_records import Fold, Hours, hours_are_folded


@dataclass(frozen=True, slots=True)
class Partitioning:
    """The partitions of one pipeline; `own` are those of its source, None where they are the calendar's."""

    calendar: Calendar
    own: Partitioned | None = None

    def key(self, text: str) -> str:
        """A partition's key as the ledger spells it.

        Raises:
            ConfigError: no partition is called that.
        """
        if self.own is not None:
            return self.own.partition_key(text)
        self.calendar.end(text)
        return text

    def is_open(self, key: str | None) -> bool:
        """True while new records may go into the partition; None is all of them."""
        return self.own is not None or key is None or self.calendar.is_open(key)

    def now(self) -> str | None:
        """The partition that new records go into; None where their own place says which."""
        return None if self.own is not None else self.calendar.now()

    def of(self, kind: BatchKind, span: Span, asked: str | None, newest: str | None) -> str:
        """The partition of a new batch, planned by somebody who works on `asked`; `newest` is the last batch's.

        A batch of a partitioned source that reads nothing (dead letters, a moved position) goes with the last one.

        Raises:
            FatalError: records of several partitions.
        """
        if self.own is None or kind is BatchKind.REWRITE:
            return asked or self.calendar.now()
        keys = list(dict.fromkeys(self.own.partition_of(part.split) for part in span.ranges))
        if len(keys) > 1 and kind is BatchKind.RECORDS:
            raise FatalError(f"a batch spans the partitions {', '.join(keys)}; want one")
        return keys[-1] if keys else asked or newest or self.calendar.now()

    def first_of(self, span: Span) -> Span:
        """As much of a planned span as a batch may have: the ranges of one partition of the source."""
        own = self.own
        if own is None or not span.ranges:
            return span
        first = own.partition_of(span.ranges[0].split)
        return Span(tuple(part for part in span.ranges if own.partition_of(part.split) == first))

    def is_folded(self, fold: Fold, hours: Hours) -> bool:
        """True when retention has made batches of these partitions part of the fold."""
        if self.own is None:
            return hours_are_folded(fold, hours)
        keys = {self.own.partition_of(split) for split in fold.ends} if hours != (None, None) else set()
        return any((hours[0] or key) <= key <= (hours[1] or key) for key in keys)

    def within(self, position: Position, key: str | None) -> Position:
        """The part of a position that is of a partition of the source; all of it for None, and of an hour."""
        own = self.own
        if own is None or key is None:
            return position
        return {split: token for split, token in position.items() if own.partition_of(split) == key}


def check_readable(source: Source, key: str, *, place: str) -> None:
    """Make sure that a source lets a partition be read now.

    Raises:
        PlanError: it has no such partition, or says why it is not read.
    """
    if not isinstance(source, Listing):
        raise PlanError(f"{place}: the source has no partitions of its own: batches belong to hours")
    found = {each.key: each for each in source.partitions()}
    if key not in found:
        raise PlanError(f"{place}: the source has no partition {key!r}; the last of {len(found)}: {_last(found)}")
    if waits := found[key].waits:
        raise PlanError(f"{place}: {key} is not read: {waits}")


def waiting(found: Sequence[SourcePartition], own: Partitioned, position: Position) -> str | None:
    """Why partitions that are wanted are not read by who stands there: the last one, and how many others."""
    waits = [each for each in found if each.is_wanted and each.waits and not own.is_read(each.key, position)]
    if not waits:
        return None
    others = f"; {len(waits) - 1} others are not read either" if len(waits) > 1 else ""
    return f"{waits[-1].key} {waits[-1].waits}{others}"


def _last(keys: Iterable[str]) -> str:
    return ", ".join(list(keys)[-3:]) or "none"
