"""The source of a link: its tables' columns with their types, and how they are read, alone or joined."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from vector_assets.declare.autoetl_map import SyncMap
from vector_assets.declare.autoetl_tables import KnownTable
from vector_assets.engine.errors import ConfigError, Place
from vector_assets.engine.schema import Column, LogicalType, Table
from vector_assets.sources.mysql import MySqlCdcSource
from vector_assets.sources.mysql_joined import MySqlJoinedSource
from vector_assets.sources.mysql_joined_options import JoinedTable, MySqlJoinedOptions
from vector_assets.sources.mysql_options import MySqlCdcOptions

At = Callable[[int, int], Place]
"""Where something stands: the argument from 1, and the offset in it."""
UNKNOWN = LogicalType("VARCHAR")
"""The type of a column while nobody may be asked."""


class SourceEnd:
    """The source of a link: its class, options and table; `names` are its columns by table, column and field."""

    def __init__(self, make: Any, options: Any, table: Table, names: Mapping[tuple[str, str, str], str]) -> None:
        self.make, self.options, self.table, self.names = make, options, table, names


def source_end(
    mapping: SyncMap, reader: MySqlCdcOptions, types: Mapping[tuple[str, str], Column], place: Place
) -> SourceEnd:
    """One table is read as it is; several as rows of their join, under the fields' names."""
    if len(mapping.tables) == 1:
        (table,) = mapping.tables
        found = {types[each.table, each.column].name: types[each.table, each.column] for each in mapping.columns}
        names = {(each.table, each.column, each.field): types[each.table, each.column].name for each in mapping.columns}
        key = tuple(types[each.table, each.column].name for each in mapping.keys_of(table))
        return SourceEnd(MySqlCdcSource, reader, Table(table, tuple(found.values()), key), names)
    first, _, last = (reader.server_id or "").partition("-")
    if int(last or first) - int(first) + 1 < len(mapping.tables):
        what = f"{len(mapping.tables)} tables have a reader each: want a range of that many numbers, such as 5400-5409"
        raise ConfigError(f"SET 'mysql.server-id': {what}", place)
    if reader.startup_mode == "specific-offset":
        raise ConfigError("SET 'mysql.scan.startup.mode' = 'specific-offset' is for one table; want initial", place)
    keys = {each.field for each in mapping.keys_of(mapping.driving)}
    columns = tuple(
        Column(each.field, replace(types[each.table, each.column].type, nullable=each.field not in keys))
        for each in mapping.columns
    )
    tables = tuple(
        JoinedTable(
            table,
            tuple(types[table, each.column] for each in mapping.keys_of(table)),
            tuple((types[table, each.column].name, each.field) for each in mapping.columns if each.table == table),
        )
        for table in mapping.tables
    )
    key = tuple(each.field for each in mapping.keys_of(mapping.driving))
    options = MySqlJoinedOptions(reader=reader, database=mapping.database, tables=tables, key=key)
    names = {(each.table, each.column, each.field): each.field for each in mapping.columns}
    return SourceEnd(MySqlJoinedSource, options, Table("_".join(mapping.tables), columns, key), names)


def types_of(mapping: SyncMap, tables: Mapping[str, KnownTable] | None, at: At) -> dict[tuple[str, str], Column]:
    """The columns by table and name as the CALL spells it.

    Raises:
        ConfigError: at the argument with a table or a column that is not there, cannot be read, or names no one row.
    """
    found: dict[tuple[str, str], Column] = {}
    for argument, items in ((2, mapping.fields), (3, mapping.keys)):
        for each in items:
            where = f"argument {argument}, item {each.number}"
            place = at(argument, each.at)
            if tables is None:
                found[each.table, each.column] = Column(each.column, UNKNOWN)
                continue
            table = tables.get(each.table)
            if table is None:
                raise ConfigError(f"{where}: there is no table {each.source}", place)
            name = table.name_of(each.column)
            if name is None:
                raise ConfigError(f"{where}: {each.source} has no column {each.column}", place)
            kind = table.columns[name]
            if kind is None:
                raise ConfigError(f"{where}: {each.source}.{name} is of a type that cannot be read", place)
            found[each.table, each.column] = Column(name, kind)
    if tables is not None:
        _check_unique(mapping, tables, found, at(3, 0))
    return found


def _check_unique(
    mapping: SyncMap, tables: Mapping[str, KnownTable], types: Mapping[tuple[str, str], Column], place: Place
) -> None:
    """A document is one row: of each table at most one belongs to it."""
    for name in mapping.tables:
        keys = mapping.keys_of(name)
        listed = ", ".join(key.column for key in keys)
        if not tables[name].is_unique(key.column for key in keys):
            what = f"{mapping.database}.{name} has no unique key on {listed}: several rows would be one document"
            raise ConfigError(f"argument 3: {what}", place)
        nullable = [key.column for key in keys if types[name, key.column].type.nullable]
        if name == mapping.driving and nullable:
            what = f"{mapping.database}.{name}.{nullable[0]} may be NULL, which makes no _id"
            raise ConfigError(f"argument 3: {what}", place)
