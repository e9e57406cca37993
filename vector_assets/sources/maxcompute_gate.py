"""Whether a partition is complete: nothing has changed for a while, or somebody has put up a mark.

A partition appears before its rows do, so a source that follows a table must not read one at sight.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from vector_assets.clients.maxcompute import MaxCompute, MaxPartition, MaxTable
from vector_assets.engine.errors import PlanError
from vector_assets.sources.maxcompute_incremental_options import IncrementalOptions
from vector_assets.sources.maxcompute_start import filled, marker_levels, pairs_of, parse, spelled


@dataclass(frozen=True, slots=True)
class _Seen:
    rows: int
    modified: int
    grown: int
    changed_at: float | None


class Gate:
    """Remembers what partitions looked like, so that a change is seen whatever the service's clock says."""

    def __init__(
        self, options: IncrementalOptions, service: MaxCompute, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._options, self._service, self._clock = options, service, clock
        self._seen: dict[str, _Seen] = {}

    def is_marker(self, table: MaxTable, part: MaxPartition) -> bool:
        """True for a partition that only marks another one."""
        template = self._options.marker
        if template is None:
            return False
        self._check_marker(table, template)
        patterns = {name.lower(): _pattern(value) for name, value in parse(template)}
        given = {name.lower(): value for name, value in pairs_of(table, part)}
        return all(name not in patterns or patterns[name].fullmatch(value) for name, value in given.items())

    def waits(
        self, table: MaxTable, parts: Sequence[MaxPartition], there: Sequence[MaxPartition]
    ) -> dict[str, str | None]:
        """By spec: why a partition is not complete, None for one that is; marks may be among all that are `there`.

        Raises:
            PlanError: the marks are not where the options say.
        """
        if self._options.marker is not None:
            return self._marked(table, parts, there)
        if self._options.done_table is not None:
            return self._done(table, parts, self._options.done_table)
        now = server_time(self._service)
        return {part.spec: self._restless(part, now) for part in parts}

    def _restless(self, part: MaxPartition, now: float) -> str | None:
        at = self._clock()
        seen = self._seen.get(part.spec)
        if seen is None:
            seen = _Seen(part.rows, part.modified, 0, None)
        elif (seen.rows, seen.modified) != (part.rows, part.modified):
            seen = _Seen(part.rows, part.modified, part.rows - seen.rows, at)
        self._seen[part.spec] = seen
        age = max(now - part.modified, 0.0)
        if seen.changed_at is not None:
            age = min(age, at - seen.changed_at)
        quiet = self._options.quiet_seconds
        if age >= quiet:
            return None
        what = "rows grew" if seen.grown > 0 else "it changed"
        return f"still being written: {what} {age:.0f} s ago, complete after {quiet:g} s without a change"

    def _marked(
        self, table: MaxTable, parts: Sequence[MaxPartition], there: Sequence[MaxPartition]
    ) -> dict[str, str | None]:
        template = self._options.marker or ""
        self._check_marker(table, template)
        marks = {_text(pairs_of(table, part)) for part in there}
        return {
            part.spec: None
            if _text(parse(mark := filled(template, pairs_of(table, part)))) in marks
            else f"still being written: there is no partition {mark} yet"
            for part in parts
        }

    def _check_marker(self, table: MaxTable, template: str) -> None:
        levels = [level.name.lower() for level in table.levels]
        named = [name.lower() for name, _ in parse(template)]
        if named != levels or not set(map(str.lower, marker_levels(template))) <= set(levels):
            form = ",".join(f"{level}={{{level}}}" for level in levels[:-1])
            raise PlanError(
                f"maxcompute: table {table.name}: option 'vector-assets.partition.marker' is {template!r}; want every"
                f" level once, such as '{form + ',' if form else ''}{levels[-1]}={{{levels[-1]}}}.done'"
            )

    def _done(self, table: MaxTable, parts: Sequence[MaxPartition], name: str) -> dict[str, str | None]:
        marks = self._service.table(name)
        if [level.name.lower() for level in marks.levels] != [level.name.lower() for level in table.levels]:
            raise PlanError(
                f"maxcompute: option 'vector-assets.partition.done-table': {marks.name} is partitioned by"
                f" {_levels(marks)}, {table.name} by {_levels(table)}; want the same"
            )
        there = {part.values for part in self._service.partitions(marks)}
        return {
            part.spec: None if part.values in there else f"still being written: {name} has no partition of it yet"
            for part in parts
        }


def _levels(table: MaxTable) -> str:
    return ", ".join(level.name for level in table.levels) or "nothing"


def _text(pairs: Sequence[tuple[str, str]]) -> str:
    return spelled(tuple((name.lower(), value) for name, value in pairs))


def _pattern(value: str) -> re.Pattern[str]:
    """A marker's value with `{column}` for any text; a value that is nothing but that matches any."""
    pieces = re.split(r"\{\w+\}", value)
    return re.compile(".+".join(map(re.escape, pieces)), re.DOTALL)


def server_time(service: MaxCompute) -> float:
    """The service's clock in epoch seconds, by which partitions are stamped; ours where it does not say."""

    def asked() -> Mapping[str, str]:
        headers: Mapping[str, str] = service.odps.rest.get(service.odps.get_project().resource()).headers
        return headers

    date = service.ask(asked, service.login.project).get("Date")
    return parsedate_to_datetime(date).timestamp() if date else time.time()
