"""Tables of a MySQL server by regular expressions, with their columns and keys; Flink CDC's types."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vector_assets.clients.mysql import MySql
from vector_assets.engine.schema import Column, LogicalType, Table

SYSTEM = ("information_schema", "mysql", "performance_schema", "sys")
_ACTIONS = frozenset({"CASCADE", "SET NULL", "SET DEFAULT"})
_INTEGERS = {
    "tinyint": ("TINYINT", "SMALLINT"),
    "smallint": ("SMALLINT", "INT"),
    "mediumint": ("INT", "INT"),
    "int": ("INT", "BIGINT"),
}
_TEXTS = frozenset({"tinytext", "text", "mediumtext", "longtext", "enum", "set", "json"})
_BLOBS = frozenset({"tinyblob", "blob", "mediumblob", "longblob"})
GEOMETRIES = frozenset(
    {"geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon"}
    | {"geometrycollection", "geomcollection"}
)
_MOST_DIGITS = 38


@dataclass(frozen=True, slots=True)
class MySqlColumn:
    """A column as information_schema has it: `type` is the bare name (`int`), `full_type` all of it."""

    name: str
    type: str
    full_type: str
    nullable: bool
    length: int | None = None
    precision: int | None = None
    scale: int | None = None
    fraction: int | None = None
    collation: str | None = None
    comment: str = ""

    @property
    def is_unsigned(self) -> bool:
        """True of numbers without a sign."""
        return "unsigned" in self.full_type or "zerofill" in self.full_type

    @property
    def logical(self) -> LogicalType | None:
        """The type that Flink CDC gives it; None for one that is not known. Geometry is WKB, as bytes."""
        name, precision = _type_of(self)
        if name is None:
            return None
        scale = self.scale if name == "DECIMAL" and self.type in {"decimal", "numeric"} else None
        return LogicalType(name, precision, scale, nullable=self.nullable)


def _type_of(column: MySqlColumn) -> tuple[str | None, int | None]:
    kind = column.type
    if kind == "tinyint" and column.full_type.startswith("tinyint(1)"):
        return "BOOLEAN", None
    if kind in _INTEGERS:
        return _INTEGERS[kind][column.is_unsigned], None
    if kind == "bigint":
        return ("DECIMAL", 20) if column.is_unsigned else ("BIGINT", None)
    if kind in {"decimal", "numeric"}:
        return ("DECIMAL", column.precision) if (column.precision or 0) <= _MOST_DIGITS else ("VARCHAR", None)
    if kind == "bit":
        return ("BOOLEAN", None) if column.precision == 1 else ("BINARY", ((column.precision or 1) + 7) // 8)
    if kind in {"char", "varchar", "binary", "varbinary"}:
        return kind.upper(), column.length or None
    if kind in _TEXTS:
        return "VARCHAR", None
    if kind in _BLOBS or kind in GEOMETRIES:
        return "VARBINARY", None
    others: dict[str, tuple[str, int | None]] = {
        "float": ("FLOAT", None), "double": ("DOUBLE", None), "year": ("INT", None), "date": ("DATE", None),
        "time": ("TIME", column.fraction or 0), "datetime": ("TIMESTAMP", column.fraction or 0),
        "timestamp": ("TIMESTAMP_LTZ", column.fraction or 0),
    }  # fmt: skip
    return others.get(kind, (None, None))


@dataclass(frozen=True, slots=True)
class MySqlTable:
    """A table; `key` is its primary key, else its first unique key of NOT NULL columns, else empty.

    `rows` is the server's own estimate. `cascades` are foreign keys by which the server changes rows of the table
    itself: its binlog has nothing of that.
    """

    database: str
    name: str
    columns: tuple[MySqlColumn, ...]
    key: tuple[str, ...]
    rows: int = 0
    comment: str = ""
    has_primary_key: bool = False
    cascades: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        """`database.table`."""
        return f"{self.database}.{self.name}"

    @property
    def quoted(self) -> str:
        """The name as SQL."""
        return f"{quote(self.database)}.{quote(self.name)}"

    def column(self, name: str) -> MySqlColumn | None:
        """A column by its name, whatever its case (column names have none in MySQL)."""
        return next((each for each in self.columns if each.name.lower() == name.lower()), None)

    @property
    def table(self) -> Table:
        """What a front end declares for it: every column whose type is known."""
        known = ((each, each.logical) for each in self.columns)
        columns = tuple(
            Column(each.name, kind, comment=each.comment or None) for each, kind in known if kind is not None
        )
        return Table(self.name, columns, self.key, comment=self.comment or None)


def untold(key: str, table: str) -> str:
    """What to say of a foreign key among `cascades`."""
    return (
        f"rows of {table} that foreign key {key} deletes or changes are not in the server's binlog: they stay in the"
        " target as they were"
    )


def quote(name: str) -> str:
    """A name as SQL."""
    return "`" + name.replace("`", "``") + "`"


def discover(
    server: MySql, databases: str, tables: str, is_wanted: Callable[[str, str], bool] = lambda database, table: True
) -> list[MySqlTable]:
    """Every base table whose database and own name match the expressions (whole names), by full name.

    System databases are never looked into; columns of tables that are not wanted are not asked for.
    """
    is_database, is_table = re.compile(databases), re.compile(tables)
    matching = [row for row in _listed(server) if is_database.fullmatch(row[0]) and is_table.fullmatch(row[1])]
    wanted = [row for row in matching if is_wanted(row[0], row[1])]
    return sorted((_table(server, *row) for row in wanted), key=lambda table: table.full_name)


def table_names(server: MySql) -> list[str]:
    """Full names of every base table that is no system's, in order."""
    return sorted(f"{row[0]}.{row[1]}" for row in _listed(server))


def _listed(server: MySql) -> list[tuple[Any, ...]]:
    return server.rows(
        "SELECT TABLE_SCHEMA, TABLE_NAME, COALESCE(TABLE_ROWS, 0), TABLE_COMMENT FROM information_schema.TABLES"
        " WHERE TABLE_TYPE = 'BASE TABLE' AND TABLE_SCHEMA NOT IN (%s, %s, %s, %s) ORDER BY 1, 2",
        SYSTEM,
    )


def _table(server: MySql, database: str, name: str, rows: int, comment: str) -> MySqlTable:
    columns = server.rows(
        "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, IS_NULLABLE, CHARACTER_MAXIMUM_LENGTH, NUMERIC_PRECISION,"
        " NUMERIC_SCALE, DATETIME_PRECISION, COLLATION_NAME, COLUMN_COMMENT FROM information_schema.COLUMNS"
        " WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s ORDER BY ORDINAL_POSITION",
        (database, name),
    )
    found = tuple(_column(*row) for row in columns)
    key, is_primary = _key(server, database, name)
    return MySqlTable(database, name, found, key, int(rows), comment, is_primary, _cascades(server, database, name))


def _cascades(server: MySql, database: str, name: str) -> tuple[str, ...]:
    rows = server.rows(
        "SELECT CONSTRAINT_NAME, DELETE_RULE, UPDATE_RULE FROM information_schema.REFERENTIAL_CONSTRAINTS"
        " WHERE CONSTRAINT_SCHEMA = %s AND TABLE_NAME = %s ORDER BY 1",
        (database, name),
    )
    acting = ((key, (("DELETE", on_delete), ("UPDATE", on_update))) for key, on_delete, on_update in rows)
    return tuple(f"{key} (ON {what} {rule})" for key, rules in acting for what, rule in rules if rule in _ACTIONS)


def _column(name: str, kind: str, full: str, nullable: str, *rest: Any) -> MySqlColumn:
    length, precision, scale, fraction, collation, comment = rest
    size, digits, places, part = (None if each is None else int(each) for each in (length, precision, scale, fraction))
    is_nullable = nullable == "YES"
    return MySqlColumn(name, kind.lower(), full.lower(), is_nullable, size, digits, places, part, collation, comment)


def _key(server: MySql, database: str, name: str) -> tuple[tuple[str, ...], bool]:
    rows = server.rows(
        "SELECT INDEX_NAME, COLUMN_NAME, NULLABLE, SUB_PART FROM information_schema.STATISTICS"
        " WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s AND NON_UNIQUE = 0"
        " ORDER BY INDEX_NAME <> 'PRIMARY', INDEX_NAME, SEQ_IN_INDEX",
        (database, name),
    )
    for index in dict.fromkeys(row[0] for row in rows):
        parts = [row for row in rows if row[0] == index]
        if all(row[2] != "YES" and row[3] is None for row in parts):
            return tuple(row[1] for row in parts), index == "PRIMARY"
    return (), False
