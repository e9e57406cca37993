"""The arguments of `dbms_etl.sync_by_map`: which columns of which tables become which fields of an index. Pure.

    "search", "index.field(database.table.column),...", "index.field=database.table.column,...", "", ""

The procedure that `vector-assets autoetl install` creates follows the same rules with the same words
(`clients/mysql_etl_sql.py`); `tests/declare/test_autoetl.py` compares the two.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

TARGET = "search"
"""What argument 1 has to be."""
NAME = r"""[^\s.,()="'`]+"""
"""A name of an index, a field, a database, a table or a column: the grammar has no way to quote one."""
FIELD_FORM = "index.field(database.table.column)"
KEY_FORM = "index.field=database.table.column"
_FIELD = re.compile(rf"({NAME})\.({NAME})\s*\(\s*({NAME})\.({NAME})\.({NAME})\s*\)")
_KEY = re.compile(rf"({NAME})\.({NAME})\s*=\s*({NAME})\.({NAME})\.({NAME})")
_MOST_SHOWN = 40
_NEVER = frozenset("*?<>|#:/\\")
INDEX_FORM = "want a lower-case name that begins with none of -_+ and has none of * ? < > | # : / \\"
"""What an index may be called."""
EMPTY_REASON = "has to be empty: nothing is known that it could say"
"""Why arguments 4 and 5 take nothing."""


class MapError(ValueError):
    """An argument that is wrong: which one (from 1), and where in its text."""

    def __init__(self, message: str, argument: int, at: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.argument = argument
        self.at = at


@dataclass(frozen=True, slots=True)
class Mapped:
    """`field` is filled from `column` of `table`; `at` is its place in the argument."""

    index: str
    field: str
    database: str
    table: str
    column: str
    at: int = 0
    number: int = 1

    @property
    def source(self) -> str:
        """`database.table`."""
        return f"{self.database}.{self.table}"


@dataclass(frozen=True, slots=True)
class SyncMap:
    """One link: documents of `index` are rows of the driving table, which is the first of `tables`.

    `fields` are columns by field in the order they were written; `keys` say of every table by which of its columns it
    belongs to a document: the same fields for each table, and together those of the driving table make the `_id`.
    """

    fields: tuple[Mapped, ...]
    keys: tuple[Mapped, ...]

    @property
    def index(self) -> str:
        """The index."""
        return self.keys[0].index

    @property
    def database(self) -> str:
        """The database of all tables."""
        return self.keys[0].database

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables in the order of argument 3; the first one drives."""
        return tuple(dict.fromkeys(key.table for key in self.keys))

    @property
    def driving(self) -> str:
        """The table whose rows are the documents."""
        return self.keys[0].table

    def keys_of(self, table: str) -> tuple[Mapped, ...]:
        """The key columns of a table, in the order of the driving table's."""
        order = [key.field for key in self.keys if key.table == self.driving]
        mine = {key.field: key for key in self.keys if key.table == table}
        return tuple(mine[field] for field in order)

    @property
    def columns(self) -> tuple[Mapped, ...]:
        """What the documents hold: the fields of argument 2, then key fields that are not among them."""
        named = {field.field for field in self.fields}
        return (*self.fields, *(key for key in self.keys_of(self.driving) if key.field not in named))


def parse(arguments: Sequence[str]) -> SyncMap:
    """The link that five arguments describe.

    Raises:
        MapError: at the argument, and the part of it, that is wrong.
    """
    if len(arguments) != 5:
        raise MapError(f"sync_by_map has 5 arguments, found {len(arguments)}", min(len(arguments), 5) or 1)
    target, fields, keys, *rest = arguments
    if target != TARGET:
        raise MapError(f'argument 1: want "{TARGET}", found "{target[:_MOST_SHOWN]}"', 1)
    for number, text in enumerate(rest, 4):
        if text:
            raise MapError(f"argument {number} {EMPTY_REASON}", number)
    found = SyncMap(tuple(_items(fields, _FIELD, FIELD_FORM, 2)), tuple(_items(keys, _KEY, KEY_FORM, 3)))
    _check_place(found)
    _check_fields(found)
    _check_keys(found)
    _check_index(found.fields[0])
    return found


def _check_index(first: Mapped) -> None:
    """A name that an index can have; what is made from columns is looked at later."""
    name = first.index
    if "{" not in name and (name != name.lower() or name[0] in "-_+" or not _NEVER.isdisjoint(name)):
        raise MapError(f"argument 2, item 1: index {name}: {INDEX_FORM}", 2, first.at)


def _items(text: str, pattern: re.Pattern[str], form: str, argument: int) -> Iterator[Mapped]:
    at = 0
    for number, part in enumerate(text.split(","), 1):
        item = part.strip()
        place = at + len(part) - len(part.lstrip())
        match = pattern.fullmatch(item)
        if match is None:
            what = f"argument {argument}, item {number}: want {form}, found {item[:_MOST_SHOWN] or 'nothing'}"
            raise MapError(what, argument, place)
        yield Mapped(match[1], match[2], match[3], match[4], match[5], place, number)
        at += len(part) + 1


def _check_place(found: SyncMap) -> None:
    """One index, one database."""
    for argument, items in ((2, found.fields), (3, found.keys)):
        first = found.fields[0]
        for item in items:
            where = f"argument {argument}, item {item.number}"
            if item.index != first.index:
                raise MapError(
                    f"{where}: index {item.index}; item 1 of argument 2 has {first.index}", argument, item.at
                )
            if item.database != first.database:
                what = f"{where}: database {item.database}; item 1 of argument 2 has {first.database}"
                raise MapError(what, argument, item.at)


def _check_fields(found: SyncMap) -> None:
    seen: set[str] = set()
    joined = set(found.tables)
    keys = {key.field: key for key in found.keys_of(found.driving)} if _is_even(found) else {}
    for item in found.fields:
        where = f"argument 2, item {item.number}"
        if item.field in seen:
            raise MapError(f"{where}: field {item.field} is filled twice", 2, item.at)
        seen.add(item.field)
        if item.table not in joined:
            raise MapError(f"{where}: argument 3 does not say by what {item.source} is joined", 2, item.at)
        key = keys.get(item.field)
        if key is not None and (key.table, key.column) != (item.table, item.column):
            what = f"{where}: field {item.field} is the key, which argument 3 takes from {key.source}.{key.column}"
            raise MapError(what, 2, item.at)


def _is_even(found: SyncMap) -> bool:
    fields = {table: {key.field for key in found.keys if key.table == table} for table in found.tables}
    return all(each == fields[found.driving] for each in fields.values())


def _check_keys(found: SyncMap) -> None:
    seen: set[tuple[str, str]] = set()
    driving = [key.field for key in found.keys if key.table == found.driving]
    for item in found.keys:
        where = f"argument 3, item {item.number}"
        if (item.table, item.field) in seen:
            raise MapError(f"{where}: {item.source} has a column for {item.field} already", 3, item.at)
        seen.add((item.table, item.field))
        if item.field not in driving:
            what = f"{where}: field {item.field} is no key of {found.database}.{found.driving}, the first table"
            raise MapError(what, 3, item.at)
    for table in found.tables:
        mine = {key.field for key in found.keys if key.table == table}
        lacking = next((field for field in driving if field not in mine), None)
        if lacking is not None:
            raise MapError(f"argument 3: {found.database}.{table} has no column for {lacking}", 3)
