"""A MaxCompute table that is followed: partitions from a start on, each read once, as soon as it is complete.

A partition is a split, and its rows are those of one session. One that changes or goes while it is read is a lost
position; what was read of it is kept.
"""

import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace

import pyarrow as pa

from vector_assets.clients.maxcompute import MaxPartition, MaxTable
from vector_assets.clients.maxcompute_errors import NoPartitionError
from vector_assets.engine.abilities import Finding, SourcePartition
from vector_assets.engine.core import BatchLimit, Position, Range, Span, Split, Token
from vector_assets.engine.errors import ConfigError, GapKind, PositionLostError
from vector_assets.engine.schema import Table
from vector_assets.sources import maxcompute_start as starts
from vector_assets.sources.maxcompute import MaxComputeSource
from vector_assets.sources.maxcompute_gate import Gate
from vector_assets.sources.maxcompute_options import MaxComputeSourceOptions
from vector_assets.sources.maxcompute_prune import Condition, pruned
from vector_assets.sources.maxcompute_tokens import Place, spec_of, split_of

log = logging.getLogger(__name__)


class IncrementalSource(MaxComputeSource):
    """Partitions in the alphabetical order of their specs; a look at the table is kept until the next one."""

    def __init__(
        self, options: MaxComputeSourceOptions, table: Table, *, pipeline: str = "",
        conditions: Sequence[Condition] = (), clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        super().__init__(options, table, pipeline=pipeline, conditions=conditions)
        self._gate = Gate(options, self._parts.service, clock=clock)
        self._listed: tuple[SourcePartition, ...] | None = None
        self._complete: dict[Split, MaxPartition] = {}
        self._told: set[str] = set()

    def start(self) -> Position:
        """No partition has been read."""
        self._begin()
        return {}

    def _begin(self) -> starts.Pairs:
        """The start in the table's own spelling."""
        return starts.checked(self._options.start_partition or "", self._parts.table())

    def frontier(self) -> Position:
        """The end of every partition that is complete."""
        return {split: token for each in self.partitions() for split, token in each.frontier.items()}

    def partitions(self) -> tuple[SourcePartition, ...]:
        """Every partition of the table but marks, by its spec.

        Raises:
            PlanError: startPartition does not fit the table, or marks are not where the options say.
        """
        start, table = self._begin(), self._parts.table()
        there = self._parts.service.partitions(table)
        parts = [part for part in there if not self._gate.is_marker(table, part)]
        wanted = {part.spec for part in pruned(table, self._declared, self._conditions, parts)}
        order = {part.spec: starts.spelled(starts.pairs_of(table, part)) for part in parts}
        undue = {part.spec: "is left out by the WHERE clause" for part in parts if part.spec not in wanted}
        undue |= {
            part.spec: f"sorts before startPartition {starts.spelled(start)}"
            for part in parts
            if order[part.spec] < starts.spelled(start)
        }
        trap = starts.trap(start, table, parts)
        if trap is not None:
            self._tell(str(trap))
        due = [self._detailed(table, part) for part in parts if part.spec not in undue]
        waits = self._gate.waits(table, due, there)
        self._complete = {self._split(part.spec): part for part in due if waits[part.spec] is None}
        listed = [self._due(part, waits[part.spec]) for part in due]
        for part in (part for part in parts if part.spec in undue):
            is_trapped = trap is not None and part.spec in trap.missed
            listed.append(_undue(part, str(trap) if is_trapped else undue[part.spec], is_wanted=is_trapped))
        self._listed = tuple(sorted(listed, key=lambda each: order[starts.spec_of_key(each.key)]))
        return self._listed

    def _detailed(self, table: MaxTable, part: MaxPartition) -> MaxPartition:
        """With rows and time, which not every service lists."""
        if part.rows >= 0 and part.modified > 0:
            return part
        try:
            return self._parts.service.partition(table, part.spec)
        except NoPartitionError:
            return part

    def _due(self, part: MaxPartition, waits: str | None) -> SourcePartition:
        if waits is None and part.rows == 0:
            waits = "has no rows"
        frontier = {} if waits else {self._split(part.spec): Place(max(part.rows, 0)).token}
        return SourcePartition(
            starts.key_of(part.spec), frontier, waits, rows=part.rows, modified_ms=part.modified * 1000
        )

    def newest(self, partitions: Sequence[SourcePartition]) -> SourcePartition | None:
        """As max_pt(): the last by value that has rows."""
        return next((each for each in reversed(partitions) if each.rows != 0), None)

    def plan(self, start: Position, limit: BatchLimit) -> Span | None:
        """The next rows of one partition.

        Raises:
            PositionLostError: a partition that was begun is gone, or is passed over by a startPartition that was moved.
        """
        until = self.frontier() if limit.until is None else limit.until
        self._check_begun(start)
        for split in until:
            place = Place.of(start.get(split))
            begun = None if place.is_done else self._begun(split, place)
            if begun is not None:
                end = replace(begun, offset=min(begun.until or 0, begun.offset + limit.rows))
                return Span((Range(split, start.get(split, Place().token), end.token),))
        return None

    def _begun(self, split: Split, place: Place) -> Place | None:
        """The place in a session; None when the partition changed after it was found complete."""
        try:
            begun = self._parts.begun(split, place)
        except PositionLostError as error:
            raise self._decided(error) from error
        known = self._complete.get(split)
        if place.session is None and known and (begun.until, begun.modified) != (known.rows, known.modified):
            log.info("%s: %s has changed since it was found complete; it is looked at again", self._where, split)
            return None
        return begun

    def _check_begun(self, position: Position) -> None:
        """Nothing that was begun has gone, or been passed over by moving the start."""
        listed = self._listed if self._listed is not None else self.partitions()
        there = {each.key for each in listed}
        start = starts.spelled(self._begin())
        for split, token in position.items():
            place = Place.of(token)
            if place.is_done or place.session is None:
                continue
            if self._options.partition_of(split) not in there:
                raise self._decided(_lost(split, place, "DELETED"))
            if _spelled(split) < start:
                raise self._decided(_lost(split, place, "MODIFIED"))

    def read(self, span: Span, limit: BatchLimit) -> Generator[pa.RecordBatch, None, Span]:
        """The rows of the span; it ends early where the bytes are used up.

        Raises:
            PositionLostError: the partition was modified or dropped since its first row was read.
        """
        try:
            return (yield from super().read(span, limit))
        except PositionLostError as error:
            (part,) = span.ranges
            # the batch was not sealed: none of its rows is kept
            place = replace(Place.of(part.end), offset=Place.of(part.start).offset)
            kind: GapKind = "DELETED" if error.kind == "DELETED" else "MODIFIED"
            raise self._decided(_lost(part.split, place, kind)) from error

    def _decided(self, error: PositionLostError) -> PositionLostError:
        """The loss with what modifiedTableOperation says about it; a start that was moved passes over it anyway."""
        ((split, (offset, until)),) = error.missing.items()
        is_passed = _spelled(split) < starts.spelled(self._begin())
        is_skip = is_passed or self._options.modified_table_operation == "SKIP"
        what = "was dropped" if error.kind == "DELETED" else "was modified"
        told = f"{self._where}: {split} {what} while it was read; the {offset} rows before that are kept, those from"
        told += f" {offset} to {until} are lost"
        if not is_skip:
            specs = [starts.spec_of_key(each.key).replace("/", ",") for each in self._listed or ()]
            after = starts.after(starts.parse(spec_of(split) or ""), specs)
            told += (
                f". modifiedTableOperation is NONE: to go on after this partition set 'startPartition' = '{after}', or"
                " 'modifiedTableOperation' = 'SKIP' to pass over such rows"
            )
        return PositionLostError(told, error.kind, error.missing, error.resume, policy="skip" if is_skip else "fail")

    def lag(self, position: Position, frontier: Position) -> int:
        """Rows of complete partitions that are not read, by the service's count."""
        return sum(_left(Place.of(position.get(split)), Place.of(end)) for split, end in frontier.items())

    def locate(self, where: str) -> Position:
        """`earliest`, `latest`, or a partition: it and those after it are to be read, those before it are not."""
        word = where.strip().removesuffix("-offset")
        ends: dict[Split, Token] = {split: Place.of(token).done().token for split, token in self.frontier().items()}
        if word == "latest":
            return ends
        try:
            first = "" if word == "earliest" else starts.spelled(starts.parse(word))
        except ValueError as error:
            raise ConfigError(
                f"{self._where}: a place is 'earliest', 'latest', or the first partition to read: {error}"
            ) from None
        return {split: end if _spelled(split) < first else Place().token for split, end in ends.items()}

    def diagnose(self) -> Iterator[Finding]:
        """The table, what waits in it, and values that are not padded with zeros."""
        found = self.partitions()
        ready = sum(not each.waits for each in found)
        yield Finding("ok", f"{self._where}: {len(found)} partitions, {ready} of them to be read")
        for trapped in sorted({each.waits for each in found if each.is_wanted and each.waits in self._told} - {None}):
            yield Finding("warning", f"{self._where}: {trapped}", "pad the values with zeros")

    def close(self) -> None:
        """Give back connections; what is known of the table is asked for again."""
        super().close()
        self._listed = None

    def _split(self, spec: str) -> Split:
        return split_of(self._options.full_name, spec)

    def _tell(self, text: str) -> None:
        if text not in self._told:
            log.warning("%s: %s", self._where, text)
            self._told.add(text)


def _undue(part: MaxPartition, why: str, *, is_wanted: bool) -> SourcePartition:
    """A partition that is not read; one that is wanted all the same is what somebody has to look at."""
    key = starts.key_of(part.spec)
    return SourcePartition(key, {}, why, is_wanted=is_wanted, rows=part.rows, modified_ms=part.modified * 1000)


def _lost(split: Split, place: Place, kind: GapKind) -> PositionLostError:
    return PositionLostError(f"{split}: lost", kind, {split: (place.offset, place.until)}, {split: place.done().token})


def _spelled(split: Split) -> str:
    return (spec_of(split) or "").replace("/", ",")


def _left(place: Place, end: Place) -> int:
    if place.is_done:
        return 0
    if end.session is not None:
        # the end of a span, not the frontier: rows of the same session
        return max(end.offset - place.offset, 0)
    return max((place.until if place.until is not None else end.offset) - place.offset, 0)
