"""The option `startPartition`: partitions are read whose spec is equal to it or after it in the alphabet.

Specs are compared as text, `yyyy=2018,MM=09,dd=05`, as the service's own connector does; so `month=10` comes before
`month=9`, which is a trap that is looked for.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote

from vector_assets.clients.maxcompute import MaxPartition, MaxTable
from vector_assets.engine.errors import PlanError
from vector_assets.engine.registry import nearest

FORM = "want levels and values from the first level on, such as ds=20180905 or yyyy=2018,MM=09,dd=05"
_PLAIN = " :_$#.!@-+~()"
_SHOWN = 3

Pairs = tuple[tuple[str, str], ...]


def parse(text: str) -> Pairs:
    """Levels and values of a spec, joined by `,` or `/`, values with or without quotes.

    Raises:
        ValueError: it is not understood, or names a level twice.
    """
    found: dict[str, str] = {}
    for part in re.split(r"[,/]", text):
        name, sign, value = (piece.strip() for piece in part.partition("="))
        value = value.strip("'\"")
        if not (name and sign and value):
            raise ValueError(f"{FORM}; found {part.strip()!r}")
        if "*" in value or "(" in name:
            raise ValueError(f"{FORM}, without wildcards and functions")
        if name.lower() in {known.lower() for known in found}:
            raise ValueError(f"{FORM}; found {name} twice")
        found[name] = value
    return tuple(found.items())


def spelled(pairs: Pairs) -> str:
    """A spec as the options spell it, and as it is compared."""
    return ",".join(f"{name}={value}" for name, value in pairs)


def pairs_of(table: MaxTable, part: MaxPartition) -> Pairs:
    """Levels and values of a partition."""
    return tuple((level.name, value) for level, value in zip(table.levels, part.values, strict=True))


def key_of(spec: str) -> str:
    """A spec (`ds=20180905/hh=01`) as Dagster and the ledger keep it: what their grammars use is quoted."""
    pieces = (piece.partition("=") for piece in spec.split("/"))
    return "/".join(f"{_quoted(name)}={_quoted(value)}" for name, _, value in pieces)


def _quoted(text: str) -> str:
    found = quote(text, safe=_PLAIN)
    return found.replace(".", "%2E") if ".." in found else found


def spec_of_key(key: str) -> str:
    """The spec that a key means."""
    return "/".join(unquote(piece) for piece in key.split("/"))


def checked(start: str, table: MaxTable) -> Pairs:
    """The option's levels in the table's own spelling.

    Raises:
        PlanError: there is no such level, one is left out, or they come in another order; with the corrected spec.
    """
    given = parse(start)
    names = [level.name for level in table.levels]
    by_name = {name.lower(): name for name in names}
    values: dict[str, str] = {}
    problem = None
    for name, value in given:
        known = by_name.get(name.lower())
        if known is None:
            hint = nearest(name.lower(), [each for each in by_name if each not in {n.lower() for n, _ in given}])
            problem = f"there is no level {name}{hint}"
            free = [each for each in names if each not in values and each.lower() not in {n.lower() for n, _ in given}]
            known = free[0] if free else None
        if known is not None:
            values[known] = value
    wanted = names[: max((names.index(name) for name in values), default=-1) + 1]
    if problem is None and list(values) != wanted:
        is_whole = set(values) == set(wanted)
        problem = "the levels are in another order than the table's" if is_whole else "a level is left out"
    if problem is not None:
        corrected = spelled(tuple((name, values.get(name, "<value>")) for name in wanted or names))
        raise PlanError(
            f"maxcompute: table {table.name}: option 'startPartition' is {start!r}: {problem}; levels:"
            f" {', '.join(names) or 'none, the table has no partitions'}; write '{corrected}'"
        )
    return tuple(values.items())


def unpadded(start: Pairs) -> str | None:
    """The spec with zeros, when a value of one digit stands where two digits are to be expected."""
    padded = tuple((name, value.zfill(2) if len(value) == 1 and value.isdecimal() else value) for name, value in start)
    return spelled(padded) if padded != start else None


@dataclass(frozen=True, slots=True)
class Trap:
    """Partitions that come after the start by their numbers, but before it in the alphabet: they are not read."""

    missed: tuple[str, ...]
    corrected: str

    def __str__(self) -> str:
        some = ", ".join(self.missed[:_SHOWN]) + (", ..." if len(self.missed) > _SHOWN else "")
        return (
            f"specs are compared as text: {some} come after startPartition by number but sort before it and are not"
            f" read; write values of equal length in the table and in startPartition: '{self.corrected}'"
        )


def trap(start: Pairs, table: MaxTable, parts: Sequence[MaxPartition]) -> Trap | None:
    """Whether values of different lengths hide partitions from an alphabetical start."""
    text = spelled(start)
    found = [(part.spec, pairs_of(table, part)) for part in parts]
    missed = tuple(spec for spec, pairs in found if spelled(pairs) < text and _is_later(pairs, start))
    if not missed:
        return None
    widths = [
        max(
            len(value)
            for value in (given, *(pairs[at][1] for _, pairs in found))
            if value.isdecimal() or value == given
        )
        for at, (_, given) in enumerate(start)
    ]
    padded = (
        (name, value.zfill(width) if value.isdecimal() else value)
        for (name, value), width in zip(start, widths, strict=True)
    )
    return Trap(missed, spelled(tuple(padded)))


def _is_later(pairs: Pairs, start: Pairs) -> bool:
    """By numbers where both values are numbers; else as text."""
    for (_, value), (_, other) in zip(pairs, start, strict=False):
        if value == other:
            continue
        if value.isdecimal() and other.isdecimal():
            return int(value) > int(other)
        return value > other
    return True


def after(pairs: Pairs, specs: Sequence[str]) -> str:
    """The startPartition that passes over a partition: the next of `specs` (as spelled), else the next number."""
    text = spelled(pairs)
    later = sorted(spec for spec in specs if spec > text)
    if later:
        return later[0]
    *levels, (name, value) = pairs
    follower = str(int(value) + 1).zfill(len(value)) if value.isdecimal() else f"{value}0"
    return spelled((*levels, (name, follower if len(follower) == len(value) or not value.isdecimal() else f"{value}0")))


def filled(template: str, pairs: Pairs) -> str:
    """A marker's spec for a partition: `{column}` is the partition's value."""
    values: Mapping[str, str] = {name.lower(): value for name, value in pairs}
    return re.sub(r"\{(\w+)\}", lambda match: values[match[1].lower()], template)


def marker_levels(template: str) -> tuple[str, ...]:
    """The levels that a marker's values take from the partition."""
    return tuple(re.findall(r"\{(\w+)\}", template))
