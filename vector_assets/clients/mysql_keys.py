"""Keys of a table in its own order: as JSON in a token, as conditions of a SELECT, and compared as the server does."""

import datetime as dt
import decimal
from collections.abc import Sequence
from typing import Any

from vector_assets.clients.mysql import MySql
from vector_assets.clients.mysql_schema import MySqlColumn, MySqlTable, quote
from vector_assets.engine.errors import PlanError

Key = tuple[Any, ...]
_AT_ONCE = 200
_INTEGERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint", "year"})
_TEXTS = frozenset({"char", "varchar", "tinytext", "text", "mediumtext", "longtext"})
_BINARIES = frozenset({"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"})
_DATES = {"date": "DATE", "datetime": "DATETIME(6)", "timestamp": "DATETIME(6)"}


def key_columns(table: MySqlTable) -> tuple[MySqlColumn, ...]:
    """The columns that a snapshot of the table is read by.

    Raises:
        PlanError: it has no key, or one of a type that cannot be ordered here.
    """
    found = tuple(column for name in table.key if (column := table.column(name)) is not None)
    if not found:
        raise PlanError(
            f"{table.full_name} has neither a primary key nor a unique key of NOT NULL columns: a"
            f" snapshot of it cannot be"
            " resumed; add one, or start with 'scan.startup.mode' = 'latest-offset'"
        )
    for column in found:
        if column.type not in {*_INTEGERS, *_TEXTS, *_BINARIES, *_DATES, "decimal"}:
            raise PlanError(
                f"{table.full_name}: its key has column {column.name} of type {column.type}, which a"
                " snapshot cannot be read by; start with 'scan.startup.mode' = 'latest-offset', or 'earliest-offset'"
            )
    return found


def as_json(values: Sequence[Any]) -> Key:
    """A key's natural values for a token."""
    return tuple(
        {"b": value.hex()} if isinstance(value, bytes) else value if isinstance(value, int) else str(_plain(value))
        for value in values
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return value.replace(tzinfo=None).isoformat(" ")
    return format(value, "f") if isinstance(value, decimal.Decimal) else value


def _parameter(value: Any) -> Any:
    return bytes.fromhex(value["b"]) if isinstance(value, dict) else value


def beyond(
    columns: Sequence[MySqlColumn], key: Key, *, is_upper: bool = False, alias: str = ""
) -> tuple[str, list[Any]]:
    """The condition for rows after a key (with `is_upper`: up to it and with it), and its parameters."""
    names = [f"{alias}.{quote(column.name)}" if alias else quote(column.name) for column in columns]
    parts, values = [], []
    sign = "<" if is_upper else ">"
    for number, name in enumerate(names):
        is_last = number + 1 == len(columns)
        ahead = [f"{each} = %s" for each in names[:number]]
        parts.append(" AND ".join([*ahead, f"{name} {sign}{'=' if is_last and is_upper else ''} %s"]))
        values += [_parameter(value) for value in key[: number + 1]]
    # alone it would not let the server begin in the middle of an index
    bound = f"{names[0]} {sign}= %s AND " if len(columns) > 1 else ""
    return f"{bound}({' OR '.join(f'({part})' for part in parts)})", [_parameter(key[0])] * bool(bound) + values


class KeyOrder:
    """Tells which keys of a table are not after a bound, as the server orders them."""

    def __init__(self, server: MySql, columns: Sequence[MySqlColumn]) -> None:
        self._server = server
        self._columns = columns
        self._is_whole = all(column.type in _INTEGERS for column in columns)

    def up_to(self, keys: Sequence[Key], bound: Key | None) -> list[bool]:
        """For each key (as JSON): whether it is the bound or before it; a bound of None is after everything."""
        if bound is None:
            return [True] * len(keys)
        if self._is_whole:
            return [key <= bound for key in keys]
        found: list[bool] = []
        for first in range(0, len(keys), _AT_ONCE):
            some = keys[first : first + _AT_ONCE]
            texts, values = zip(*(self._condition(key, bound) for key in some), strict=True)
            row = self._server.rows(f"SELECT {', '.join(texts)}", [each for part in values for each in part])[0]
            found += [bool(each) for each in row]
        return found

    def _condition(self, key: Key, bound: Key) -> tuple[str, list[Any]]:
        parts, values = [], []
        for number, column in enumerate(self._columns):
            side = _literal(column)
            ahead = [f"{_literal(each)} = {_literal(each)}" for each in self._columns[:number]]
            sign = "<=" if number + 1 == len(self._columns) else "<"
            parts.append(" AND ".join([*ahead, f"{side} {sign} {side}"]))
            for ours, theirs in zip(key[: number + 1], bound[: number + 1], strict=True):
                values += [_parameter(ours), _parameter(theirs)]
        return f"({' OR '.join(f'({part})' for part in parts)})", values


def _literal(column: MySqlColumn) -> str:
    """How a parameter is given the column's own order."""
    if column.type in _TEXTS and column.collation:
        return f"(CONVERT(%s USING {column.collation.partition('_')[0]}) COLLATE {column.collation})"
    if column.type in _BINARIES:
        return "CAST(%s AS BINARY)"
    if column.type in _DATES:
        return f"CAST(%s AS {_DATES[column.type]})"
    return f"CAST(%s AS DECIMAL({column.precision},{column.scale}))" if column.type == "decimal" else "%s"


def literal(column: MySqlColumn) -> str:
    """A parameter as SQL, of the column's own type and collation."""
    return _literal(column)


def parameters(key: Key) -> list[Any]:
    """The values of a key (as JSON) for `literal`."""
    return [_parameter(value) for value in key]
