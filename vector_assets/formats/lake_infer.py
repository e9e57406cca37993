"""Fields of a lake table from sample documents: what was seen where, how often, and the type that holds all of it.

Nothing is guessed beyond the evidence, and no type is chosen that would change a value: members of mixed kinds, arrays,
members that were null or `{}` only, and numbers that no numeric type holds are JSON text.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pyarrow as pa

from vector_assets.engine.errors import ConfigError, RecordError
from vector_assets.engine.schema import LogicalType
from vector_assets.formats.json_exact import Number, read_document
from vector_assets.formats.json_values import INTEGERS
from vector_assets.formats.lake_fields import (
    JSON,
    STRING,
    LakeField,
    Names,
    Path,
    check_fields,
    parse_path,
    path_text,
)

MOST_LAYERS = 4
_TIMES = re.compile(r"(\d{4}-\d\d-\d\d)(?:([T ])([01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.(\d{1,9}))?(Z)?)?", re.ASCII)
_LONG_EXPONENT = 40
_MOST_DIGITS = 38
_FRACTION = 18
"""Digits behind the point when whole numbers turn out to have fractions: the other 20 hold any BIGINT."""
_BIGINT = 2**63
_SMALL = frozenset({"TINYINT", "SMALLINT", "INT"})
"""Types of which a DOUBLE holds every value."""


@dataclass(frozen=True, slots=True)
class BadSample:
    """A sample that is not one JSON object: its number among the samples, and why."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """How often a field was seen as what: `string`, `integer`, `number`, `boolean`, `object`, `array`, `null`; and how
    many good samples lack it (`missing`)."""

    path: Path
    counts: Mapping[str, int]
    is_empty: bool = False
    """Objects were seen, and none of them had a member."""

    def __str__(self) -> str:
        return ", ".join(f"{kind} {count}" for kind, count in self.counts.items() if count)


@dataclass(frozen=True, slots=True)
class Inferred:
    """Fields in the order in which the documents name them, and what they are based on.

    `notes` are sentences for people: names that collided, kinds that were mixed, members that were null only.
    """

    fields: tuple[LakeField, ...]
    evidence: tuple[Evidence, ...]
    good: int
    bad: tuple[BadSample, ...]
    notes: tuple[str, ...]


@dataclass(slots=True)
class Numbers:
    """What the numbers of a member were: bounds of whole ones, digits before and behind the point, and whether binary
    fractions and 38 decimal digits give back all of them."""

    low: int = 0
    high: int = 0
    whole_digits: int = 0
    scale: int = 0
    is_double: bool = True
    is_decimal: bool = True

    def see(self, number: Decimal) -> None:
        """Take a number into account."""
        self.is_double = self.is_double and Decimal(repr(float(number))) == number
        if abs(number.adjusted()) > _LONG_EXPONENT:
            self.is_decimal = False
            return
        number = number.normalize() if number else Decimal(0)
        _, digits, exponent = number.as_tuple()
        places = max(-int(exponent), 0)
        self.scale = max(self.scale, places)
        self.whole_digits = max(self.whole_digits, len(digits) + int(exponent), 0)
        if not places:
            self.low, self.high = min(self.low, int(number)), max(self.high, int(number))

    @property
    def type(self) -> LogicalType | None:
        """The first of BIGINT, DOUBLE and DECIMAL that holds them all exactly; None where none does."""
        if self.is_decimal and not self.scale:
            if self.low >= -_BIGINT and self.high < _BIGINT:
                return LogicalType("BIGINT")
        elif self.is_double:
            return LogicalType("DOUBLE")
        fits = self.is_decimal and self.whole_digits + self.scale <= _MOST_DIGITS
        return LogicalType("DECIMAL", _MOST_DIGITS, self.scale) if fits else None


@dataclass(slots=True)
class _Node:
    """A member over all samples."""

    kinds: Counter[str] = field(default_factory=Counter)
    members: dict[str, "_Node"] = field(default_factory=dict)
    numbers: Numbers = field(default_factory=Numbers)
    shapes: set[tuple[bool, str | None, int, bool] | None] = field(default_factory=set)

    def see(self, value: Any, layers: int) -> None:
        kind = _kind(value)
        self.kinds[kind] += 1
        if isinstance(value, dict) and layers:
            for key, inner in value.items():
                if not _is_text(key):
                    continue
                node = self.members.get(key)
                if node is None:
                    node = self.members[key] = _Node()
                node.see(inner, layers - 1)
        elif isinstance(value, Number):
            self.numbers.see(Decimal(value.decode()))
        elif isinstance(value, str):
            found = _TIMES.fullmatch(value)
            self.shapes.add((bool(found[2]), found[2], len(found[4] or ""), bool(found[5])) if found else None)

    @property
    def is_expanded(self) -> bool:
        return bool(self.members) and self.kinds.keys() <= {"object", "null"}


def widened(kind: LogicalType, number: Decimal) -> LogicalType | None:
    """The type that holds what `kind` holds and a number that it does not; None where there is none.

    TINYINT, SMALLINT, INT, BIGINT, then DECIMAL(38, 0); a fraction makes types up to INT a DOUBLE where that is exact,
    and others DECIMAL(38, 18); a DECIMAL gets the digits it lacks, up to 38.
    """
    seen = Numbers()
    seen.see(number)
    if not seen.is_decimal and kind.name not in _SMALL:
        return None
    if kind.name == "DECIMAL":
        whole = max((kind.precision or 0) - (kind.scale or 0), seen.whole_digits)
        scale = max(kind.scale or 0, seen.scale)
        return LogicalType("DECIMAL", whole + scale, scale) if whole + scale <= _MOST_DIGITS else None
    if kind.name not in INTEGERS:
        return None
    if not seen.scale and seen.is_decimal:
        for name, bits in INTEGERS.items():
            if bits > INTEGERS[kind.name] and seen.low >= -(2 ** (bits - 1)) and seen.high < 2 ** (bits - 1):
                return LogicalType(name)
        return LogicalType("DECIMAL", _MOST_DIGITS, 0) if seen.whole_digits <= _MOST_DIGITS else None
    if seen.is_double and kind.name in _SMALL:
        return LogicalType("DOUBLE")
    fits = seen.is_decimal and seen.scale <= _FRACTION and seen.whole_digits <= _MOST_DIGITS - _FRACTION
    return LogicalType("DECIMAL", _MOST_DIGITS, _FRACTION) if fits else None


def _is_text(key: str) -> bool:
    """False for half a surrogate pair, which no column can be called."""
    return key.isascii() or key.encode(errors="replace").decode() == key


def _kind(value: Any) -> str:
    if isinstance(value, Number):
        return "number" if set(value) & set(b".eE") else "integer"
    names = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names[type(value)]


def infer(
    samples: Sequence[bytes | None] | pa.Array, layers: int = 1, *,
    types: Mapping[Path | str, LogicalType | str] | None = None, times: bool = False, taken: Iterable[str] = (),
) -> Inferred:  # fmt: skip
    """Fields of documents parsed to `layers` (0 to 4) levels; samples that are no JSON object are told and left out.

    `types` are the user's: a path (its keys, or as `path_text` spells it) to a type, or to `JSON` for a part that is
    not expanded. With `times`, texts that are all dates or timestamps of one spelling get such a type. `taken` are
    column names that are given away already.

    Raises:
        ConfigError: layers out of range, a hint for a path that no sample has, or a type JSON has no value for.
    """
    if not 0 <= layers <= MOST_LAYERS:
        raise ConfigError(f"parsed JSON layers: found {layers}, wanted 0 to {MOST_LAYERS}")
    hints = {parse_path(path) if isinstance(path, str) else path: kind for path, kind in (types or {}).items()}
    root, bad = _Node(), []
    # slow path: samples, not a stream
    for number, sample in enumerate(samples.to_pylist() if isinstance(samples, pa.Array) else samples):
        try:
            root.see(read_document(sample), max(layers, *map(len, hints)) if hints else layers)
        except RecordError as error:
            bad.append(BadSample(number, str(error)))
    collecting = _Collecting(layers, hints, times, Names().keep(taken), root.kinds["object"])
    collecting.collect(root, (), root.kinds["object"])
    if unknown := hints.keys() - collecting.seen:
        known = ", ".join(path_text(each.path) for each in collecting.fields)
        raise ConfigError(f"no sample has a member {path_text(min(unknown))!r}; known: {known or 'none'}")
    fields = tuple(collecting.fields)
    check_fields(fields)
    notes = (*collecting.notes, *collecting.names.notes)
    return Inferred(fields, tuple(collecting.evidence), root.kinds["object"], tuple(bad), notes)


@dataclass(slots=True)
class _Collecting:
    layers: int
    hints: Mapping[Path, LogicalType | str]
    times: bool
    names: Names
    good: int
    fields: list[LakeField] = field(default_factory=list)
    evidence: list[Evidence] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seen: set[Path] = field(default_factory=set)

    def collect(self, node: _Node, path: Path, parents: int) -> None:
        """The fields at and below a node, of which `parents` documents could have one."""
        leads_to_hint = any(hint[: len(path)] == path and hint != path for hint in self.hints)
        expands = (len(path) < self.layers or leads_to_hint) and (not path or node.is_expanded)
        if path in self.hints or not expands:
            self._leaf(node, path, parents)
            return
        for key, member in node.members.items():
            self.collect(member, (*path, key), node.kinds["object"])

    def _leaf(self, node: _Node, path: Path, parents: int) -> None:
        self.seen.add(path)
        counts = dict(node.kinds) | {"missing": self.good - node.kinds.total()}
        self.evidence.append(
            Evidence(path, counts, node.kinds["object"] > 0 and not node.members and len(path) < self.layers)
        )
        kind = self.hints.get(path) or self._type(node, path)
        is_usually_null = node.kinds["null"] > parents - node.kinds.total()
        is_json = kind == JSON
        wanted = kind if isinstance(kind, LogicalType) else STRING
        if not is_json and isinstance(kind, str):
            raise ConfigError(f"field {path_text(path)!r}: found type {kind!r}, wanted {JSON} or a LogicalType")
        iso = any(shape and shape[1] == "T" for shape in node.shapes)
        nulls = "null" if is_usually_null else "absent"
        self.fields.append(LakeField(path, self.names.give(path), wanted, json=is_json, nulls=nulls, iso=iso))  # type: ignore[arg-type]

    def _type(self, node: _Node, path: Path) -> LogicalType | str:
        kinds = {kind for kind, count in node.kinds.items() if count} - {"null"}
        if kinds <= {"integer", "number"} and kinds:
            found = node.numbers.type
            if "number" in kinds and node.numbers.is_double:
                # 50.0 comes from somebody who has 50.25, too
                return LogicalType("DOUBLE")
            if found is None or found.name == "DECIMAL":
                self.notes.append(f"{path_text(path)} is {found or JSON}: it holds numbers beyond 64 bits")
            return found or JSON
        if kinds == {"boolean"}:
            return LogicalType("BOOLEAN")
        if kinds == {"string"}:
            return self._of_texts(node, path)
        if path and kinds not in ({"object"}, {"array"}):
            what = f"holds {' and '.join(sorted(kinds))}" if kinds else "was null in every sample"
            self.notes.append(f"{path_text(path)} is JSON text: it {what}")
        return JSON

    def _of_texts(self, node: _Node, path: Path) -> LogicalType:
        if not self.times or None in node.shapes:
            return STRING
        if len(node.shapes) > 1:
            self.notes.append(f"{path_text(path)} is STRING: its dates or times are spelled in more than one way")
            return STRING
        ((has_clock, _, digits, has_zone),) = (shape for shape in node.shapes if shape)
        if not has_clock:
            return LogicalType("DATE")
        return LogicalType("TIMESTAMP_LTZ" if has_zone else "TIMESTAMP", digits)
