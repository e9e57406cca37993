"""What a table that has changed wants of the target, by the behaviours of Flink CDC. Pure.

`evolve` and `try_evolve` do what was done to the table, `lenient` only what loses nothing (a column that is dropped or
renamed stays, and may be null; the new name is a new column), `ignore` nothing. Of several tables that go into one
target none takes a column away. A type is changed only where the target's does not hold the new values, to one that
holds those of before as well.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from vector_assets.engine.captured import Layout, type_json
from vector_assets.engine.widening import common, holds
from vector_assets.formats.captured_book import Book, Map, layout_entry, type_entry

Behavior = Literal["exception", "evolve", "try_evolve", "lenient", "ignore"]
REFUSED = {"op": "refused"}
BEHAVIORS: tuple[Behavior, ...] = ("exception", "evolve", "try_evolve", "lenient", "ignore")


@dataclass(frozen=True, slots=True)
class Wish:
    """One change: for people, as an entry, the entry if it is refused, and the names of a rename."""

    what: str
    entry: dict[str, Any]
    refusal: dict[str, Any]
    renamed: tuple[str, str] | None = None


class Planner:
    """Wishes of one layout; `book` is what is known with the wishes so far."""

    def __init__(self, book: Book, layout: Layout, behavior: Behavior, *, is_merged: bool) -> None:
        self.book, self._layout = book, layout
        self._known = book.tables.get(layout.table)
        self._behavior = behavior
        self._is_merged = is_merged
        self._keeps = is_merged or behavior in {"lenient", "ignore"}
        self._changes_target = behavior != "ignore"
        self._base: Map = {} if is_merged else book.base
        self._columns = layout.columns

    def wishes(self) -> Iterator[Wish]:
        """In an order in which they can be made; each is in the book when the next one is asked for."""
        if self._known is not None and self._layout.epoch < self._known.epoch:
            return
        known = self._known.columns if self._known is not None else self._base
        before = dict(known)
        moved = self._follow_renames(before)
        listed = {name: spelled for name, (spelled, _) in before.items()}
        if self._columns is not None:
            listed = {each.name.lower(): each.name for each in self._columns}
            before = {name: each for name, each in before.items() if name in listed}
        yield from self._lost(known, before, listed)
        if moved and not self._keeps:
            yield from self._renamed(known, before, listed)
        if self._columns is not None:
            yield from self._added(before)
            yield from self._typed(before)
        columns = {name: (spelled, before.get(name, ("", None))[1]) for name, spelled in listed.items()}
        if moved or columns != dict(known) or (self._is_merged and self._known is None):
            entry = layout_entry(self._layout, list(columns.values()))
            yield self._wish(f"{self._layout.table}: its columns are {', '.join(listed.values())}", entry, entry)

    def _wish(
        self, what: str, entry: dict[str, Any], refusal: dict[str, Any], renamed: tuple[str, str] | None = None
    ) -> Wish:
        self.book = self.book.with_entry(entry)
        return Wish(what, entry, refusal, renamed)

    def _follow_renames(self, before: dict[str, tuple[str, int | None]]) -> bool:
        """Give columns their new names, all of a statement at once, without what it drops; whether there was one."""
        since = self._known.epoch if self._known is not None else -1
        names = [pairs for epoch, pairs in self._layout.renames if epoch > since]
        for pairs in names:
            taken = {new.lower(): (new, before.pop(old.lower())[1]) for old, new in pairs if old.lower() in before}
            if self._keeps:
                # under another name it is another column, and the old one is gone
                continue
            taken.pop("", None)
            before |= taken
        return bool(names)

    def _lost(self, known: Map, before: Map, listed: Mapping[str, str]) -> Iterator[Wish]:
        """Columns of the target that no column of the table goes into any more."""
        filled = {number for _, number in before.values()}
        for spelled, number in known.values() if self._changes_target else ():
            column = None if number is None else self.book.targets[number]
            if number is None or column is None or number in filled:
                continue
            what = f"{self._layout.table}: column {spelled} is gone"
            if not self._keeps:
                yield self._wish(f"{what}: {column.name} is dropped", {"op": "drop", "number": number}, REFUSED)
            elif not column.type.nullable and column.name.lower() not in listed:
                entry = type_entry(number, replace(column.type, nullable=True))
                yield self._wish(f"{what}: {column.name} stays and may be null", entry, REFUSED)

    def _renamed(self, known: Map, before: Map, listed: Mapping[str, str]) -> Iterator[Wish]:
        """Target columns get the new names of their columns; in a circle, one of them over a name that nobody has."""
        was = {number: spelled for spelled, number in known.values() if number is not None}
        wanted: dict[int, str] = {}
        for name, (_, number) in before.items():
            column = None if number is None else self.book.targets[number]
            if number is None or column is None or column.name == listed[name]:
                continue
            if column.name.lower() == was.get(number, "").lower() or column.name == _passing(number):
                wanted[number] = listed[name]
        while wanted:
            free = [n for n, name in wanted.items() if self.book.by_name(name) in (None, n)]
            if free:
                yield self._rename(free[0], wanted.pop(free[0]))
                continue
            circle = [n for n, name in wanted.items() if self.book.by_name(name) in wanted]
            if not circle:
                # a column that has nothing to do with the table has the name: the target says so
                number = next(iter(wanted))
                yield self._rename(number, wanted.pop(number))
                continue
            yield self._rename(circle[0], _passing(circle[0]))

    def _rename(self, number: int, name: str) -> Wish:
        old = self.book.target(number).name
        entry = {"op": "rename", "number": number, "name": name}
        return self._wish(f"{self._layout.table}: column {old} is called {name}", entry, REFUSED, (old, name))

    def _added(self, before: dict[str, tuple[str, int | None]]) -> Iterator[Wish]:
        for each in self._columns or ():
            name = each.name.lower()
            if name in before:
                continue
            number = self.book.by_name(each.name)
            if number is None and self._changes_target:
                number = len(self.book.targets)
                entry = {"op": "add", "number": number, "name": each.name, "type": type_json(each.type)}
                refusal = {"op": "refused", "number": number}
                yield self._wish(f"{self._layout.table}: column {each.name} {each.type} is new", entry, refusal)
            before[name] = (each.name, number)

    def _typed(self, before: Map) -> Iterator[Wish]:
        for each in (self._columns or ()) if self._changes_target else ():
            number = before[each.name.lower()][1]
            column = None if number is None else self.book.targets[number]
            if number is None or column is None:
                continue
            kind = column.type if holds(column.type, each.type) else common(column.type, each.type)
            if each.nullable and not kind.nullable:
                kind = replace(kind, nullable=True)
            if kind != column.type and (number, str(kind)) not in self.book.refused:
                what = f"{self._layout.table}: column {each.name} is {each.type}: {column.name} becomes {kind}"
                entry = type_entry(number, kind)
                yield self._wish(what, entry, {**entry, **REFUSED})


def _passing(number: int) -> str:
    """A name on the way from one to another."""
    return f"_renaming_{number}"
