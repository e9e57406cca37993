"""The option `partition`: which partitions of a table it means.

A text is `max_pt()`, `max_two_pt()`, or one or more specs. A spec names levels and values, joined by `,` or `/`
(`ds=20180905`, `yyyy=2018,MM=09`); a level that comes again begins the next spec, so `ds=20180905,ds=20180906` are two.
`*` in a value stands for any characters; levels that a spec leaves out may have any value.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vector_assets.clients.maxcompute import MaxPartition, MaxTable
from vector_assets.engine.errors import PlanError
from vector_assets.engine.registry import nearest

_NEWEST = {"max_pt()": 1, "max_two_pt()": 2}
FORM = (
    "want ds=20180905, levels joined by ',' or '/' (yyyy=2018,MM=09), '*' in a value for any characters (ds=2018****),"
    " several specs one after the other (ds=20180905,ds=20180906), max_pt() or max_two_pt()"
)
_SHOWN = 5

Spec = dict[str, str]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the option means: the `newest` partitions (0: see `specs`), or those that any of the specs matches."""

    newest: int = 0
    specs: tuple[Spec, ...] = ()

    @property
    def is_exact(self) -> bool:
        """True for specs without `*`."""
        return bool(self.specs) and not any("*" in value for spec in self.specs for value in spec.values())


def parse(text: str) -> Wanted:
    """What the option means.

    Raises:
        ValueError: it is not understood; the message says what is.
    """
    word = re.sub(r"\s", "", text).lower()
    if word in _NEWEST:
        return Wanted(newest=_NEWEST[word])
    specs: list[Spec] = []
    taken: set[str] = set()
    for part in re.split(r"[,/;]", text):
        name, sign, value = (piece.strip() for piece in part.partition("="))
        value = value.strip("'\"")
        if not (name and sign and value):
            raise ValueError(f"{FORM}; found {part.strip()!r}")
        if not specs or name.lower() in taken:
            specs.append({})
            taken = set()
        specs[-1][name] = value
        taken.add(name.lower())
    return Wanted(specs=tuple(specs))


def chosen(text: str, table: MaxTable, partitions: Sequence[MaxPartition]) -> list[MaxPartition]:
    """The partitions that the option means, by their values ascending; none where nothing matches.

    `max_pt()` and `max_two_pt()` pass over partitions that are known to be empty.

    Raises:
        PlanError: a spec names a level that the table does not have.
    """
    wanted = parse(text)
    ordered = sorted(partitions, key=lambda part: part.values)
    if wanted.newest:
        return [part for part in ordered if part.rows != 0][-wanted.newest :]
    patterns = [_pattern(table, spec) for spec in wanted.specs]
    return [part for part in ordered if any(_matches(pattern, part.values) for pattern in patterns)]


def exact_prefix(text: str, table: MaxTable) -> str | None:
    """The first levels where one spec gives their values: what the service can be asked for alone (`ds=a,hh=01`)."""
    specs = parse(text).specs
    if len(specs) != 1:
        return None
    given = {name.lower(): value for name, value in specs[0].items()}
    parts: list[str] = []
    for level in table.levels:
        value = given.get(level.name.lower(), "*")
        if "*" in value:
            break
        parts.append(f"{level.name}={value}")
    return ",".join(parts) or None


def _pattern(table: MaxTable, spec: Spec) -> list[re.Pattern[str] | None]:
    """A pattern for each level, None for any value."""
    levels = [level.name.lower() for level in table.levels]
    for name in spec:
        if name.lower() not in levels:
            known = ", ".join(level.name for level in table.levels) or "none"
            raise PlanError(
                f"maxcompute: table {table.name}: option 'partition': there is no level {name}"
                f"{nearest(name.lower(), levels)}; levels: {known}"
            )
    given = {name.lower(): value for name, value in spec.items()}
    return [_regex(given[level]) if level in given else None for level in levels]


def _regex(value: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(piece) for piece in re.split(r"\*+", value)), re.DOTALL)


def _matches(pattern: Sequence[re.Pattern[str] | None], values: Sequence[str]) -> bool:
    return all(part is None or part.fullmatch(value) for part, value in zip(pattern, values, strict=True))


def listed(partitions: Sequence[MaxPartition]) -> str:
    """The newest partitions for a message."""
    names = [part.spec for part in partitions[-_SHOWN:]]
    if not names:
        return "it has none"
    more = len(partitions) - len(names)
    return f"its newest: {', '.join(reversed(names))}" + (f" and {more} older ones" if more else "")
