"""What is known of captured tables: the target's columns, and which column of which table goes into which of them.

It is the declared columns with a list of entries applied, so it is what it was however often it is read again. Columns
have numbers: a column that is dropped and added again under its name is another one. Pure.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from vector_assets.engine.captured import Layout, type_json, type_of
from vector_assets.engine.core import Json
from vector_assets.engine.schema import Column, LogicalType

Map = Mapping[str, tuple[str, int | None]]
"""A table's columns by name in small letters: the name, and the number of the target's column (None: it has none)."""


@dataclass(frozen=True, slots=True)
class Known:
    """A table as it was last seen, and what its columns went into at the epochs before."""

    epoch: int
    columns: Map
    past: tuple[tuple[int, Map], ...] = ()

    def at(self, epoch: int) -> Map | None:
        """Its columns at an epoch, None before the first one that is known."""
        if epoch >= self.epoch:
            return self.columns
        return next((columns for number, columns in reversed(self.past) if number <= epoch), None)


@dataclass(frozen=True, slots=True)
class Book:
    """The target's columns by number (None: refused, or dropped), the tables by name, and refused types by number."""

    declared: tuple[Column, ...]
    targets: tuple[Column | None, ...]
    tables: Mapping[str, Known] = field(default_factory=dict)
    refused: frozenset[tuple[int, str]] = frozenset()

    @classmethod
    def of(cls, declared: Sequence[Column], state: Iterable[Json]) -> "Book":
        """The declared columns with the entries of a state."""
        book = cls(tuple(declared), tuple(declared))
        for entry in state:
            assert isinstance(entry, dict)
            book = book.with_entry(entry)
        return book

    def with_entry(self, entry: Mapping[str, Any]) -> "Book":
        """The book with one entry more."""
        number, targets = entry.get("number"), list(self.targets)
        match entry["op"]:
            case "add":
                targets.append(Column(entry["name"], type_of(entry["type"])))
            case "refused" if "type" in entry:
                return replace(self, refused=self.refused | {(int(number or 0), _refused(entry))})
            case "refused":
                # the number is taken: what comes later was numbered after it
                targets += [None] if number == len(targets) else []
            case "drop":
                targets[int(number or 0)] = None
            case "rename":
                targets[int(number or 0)] = replace(self.target(number), name=entry["name"])
            case "type":
                kind = replace(type_of(entry["type"]), nullable=entry["nullable"])
                targets[int(number or 0)] = replace(self.target(number), type=kind)
            case "layout":
                return self._seen(entry)
        return replace(self, targets=tuple(targets))

    def _seen(self, entry: Mapping[str, Any]) -> "Book":
        columns: Map = {name.lower(): (name, number) for name, number in entry["columns"]}
        before = self.tables.get(entry["table"])
        past = () if before is None else (*before.past, (before.epoch, before.columns))
        return replace(self, tables={**self.tables, entry["table"]: Known(entry["epoch"], columns, past)})

    def target(self, number: Any) -> Column:
        """A column that is there."""
        found: Column | None = self.targets[number]
        assert found is not None, "an entry names a column that is gone"
        return found

    @property
    def columns(self) -> tuple[Column, ...]:
        """The target's columns as they are now."""
        return tuple(each for each in self.targets if each is not None)

    @property
    def renamed(self) -> dict[str, str]:
        """Declared names that are others by now."""
        pairs = zip(self.declared, self.targets[: len(self.declared)], strict=True)
        return {was.name: now.name for was, now in pairs if now is not None and now.name != was.name}

    def by_name(self, name: str) -> int | None:
        """The number of the target's column of this name, whatever its case."""
        found = (n for n, each in enumerate(self.targets) if each is not None and each.name.lower() == name.lower())
        return next(found, None)

    @property
    def base(self) -> Map:
        """The columns as declared, of a table that was never seen."""
        return {column.name.lower(): (column.name, number) for number, column in enumerate(self.declared)}

    def places(self, layout: Layout) -> dict[int, str]:
        """The target's columns that rows of this layout fill, with the children that they are in."""
        known = self.tables.get(layout.table)
        columns = known.at(layout.epoch) if known is not None else None
        where = columns if columns is not None else self.base
        found = {}
        for each in layout.columns or ():
            number = where.get(each.name.lower(), ("", None))[1]
            if number is not None and number < len(self.targets) and self.targets[number] is not None:
                found[number] = each.child
        return found


def layout_entry(layout: Layout, columns: Sequence[tuple[str, int | None]]) -> dict[str, Any]:
    """The entry that a table has these columns from an epoch on."""
    return {"op": "layout", "table": layout.table, "epoch": layout.epoch, "columns": [list(each) for each in columns]}


def _refused(entry: Mapping[str, Any]) -> str:
    return str(replace(type_of(entry["type"]), nullable=entry["nullable"]))


def type_entry(number: int, kind: LogicalType) -> dict[str, Any]:
    """The entry that a column has another type."""
    return {"op": "type", "number": number, "type": type_json(kind), "nullable": kind.nullable}
