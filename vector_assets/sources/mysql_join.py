"""Rows of joined tables by the driving table's keys, as they are now."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vector_assets.clients.mysql import MySql
from vector_assets.clients.mysql_keys import Key, as_json, beyond, key_columns, literal, parameters
from vector_assets.clients.mysql_rows import Select
from vector_assets.clients.mysql_schema import MySqlColumn, MySqlTable, discover, quote
from vector_assets.engine.errors import PlanError
from vector_assets.engine.schema import Table
from vector_assets.sources.mysql_fit import fit
from vector_assets.sources.mysql_joined_options import MySqlJoinedOptions

_AT_ONCE = 1000
"""Keys of one SELECT."""
_NUMBER = MySqlColumn("n", "bigint", "bigint", nullable=False)


@dataclass(frozen=True, slots=True)
class Found:
    """For each key that was asked for: whether there is a row, and its columns, NULL where there is none; `is_again`
    says of those with a row that it comes once more further on."""

    is_there: npt.NDArray[np.bool_]
    is_again: npt.NDArray[np.bool_]
    columns: list[Any]


class Join:
    """Reads `options.tables` on one server; a SELECT sees one moment."""

    def __init__(self, options: MySqlJoinedOptions, table: Table) -> None:
        self._options = options
        self._columns = table.physical
        self.names = [column.name for column in table.physical]
        self._found: list[MySqlTable] | None = None

    def rows(self, asked: Sequence[Any], up_to: Key | None = None) -> Found:
        """The rows that the key columns `asked` name; a key with a NULL in it has none.

        With `up_to` only rows that the driving table has no later than there, in the order a snapshot reads it.

        Raises:
            PlanError: a table or a column is gone, or has another type than is declared.
        """
        keys = list(zip(*(column.to_pylist() for column in asked), strict=True))
        numbers = {key: number for number, key in enumerate(dict.fromkeys(k for k in keys if None not in k))}
        wanted = [as_json(key) for key in numbers]
        blocks = [self._block(wanted[at : at + _AT_ONCE], at, up_to) for at in range(0, len(wanted), _AT_ONCE)]
        place = np.full(len(wanted) + 1, -1, np.int64)
        order = np.concatenate([np.zeros(0, np.int64), *(block[0] for block in blocks)])
        place[order] = np.arange(len(order))
        rows = place[np.array([numbers.get(key, len(wanted)) for key in keys], np.int64)]
        is_there = rows >= 0
        is_again = is_there.copy()
        is_again[len(rows) - 1 - np.unique(rows[::-1], return_index=True)[1]] = False
        taken = pa.array(np.maximum(rows, 0), mask=~is_there)
        columns = []
        for number, column in enumerate(self._columns):
            parts = [block[1][number] for block in blocks if len(block[0])]
            whole = pa.concat_arrays(parts) if parts else pa.nulls(0, column.type.arrow)
            columns.append(whole.take(taken) if len(whole) else pa.nulls(len(rows), column.type.arrow))
        return Found(is_there, is_again, columns)

    def _block(self, keys: Sequence[Key], first: int, up_to: Key | None) -> tuple[npt.NDArray[np.int64], list[Any]]:
        """Numbers of the keys that have a row, and the rows' columns in their declared types."""
        tables = self._tables()
        columns = self._asked(tables)
        listed = ", ".join(_expression(alias, column) for alias, column, _ in columns)
        statement = (
            f"SELECT STRAIGHT_JOIN q.n, {listed} FROM ({self._numbered(tables[0], len(keys))}) AS q {self._joins()}"
        )
        values: list[Any] = [part for number, key in enumerate(keys, first) for part in (number, *parameters(key))]
        if up_to is not None:
            where, bounds = beyond(key_columns(tables[0]), up_to, is_upper=True, alias="t0")
            statement, values = f"{statement} WHERE {where}", [*values, *bounds]
        select = Select(self._options.reader.login, statement, values)
        try:
            blocks = [block for block, _ in select.blocks([_NUMBER, *(column for _, column, _ in columns)])]
        finally:
            select.close()
        if not blocks:
            return np.zeros(0, np.int64), []
        whole = [pa.concat_arrays(parts) for parts in zip(*blocks, strict=True)]
        zone = self._options.reader.server_time_zone
        found = {name: values for (_, _, name), values in zip(columns, whole[1:], strict=True)}
        return whole[0].to_numpy(zero_copy_only=False).astype(np.int64), [
            fit(found[column.name], column, zone, self._options.database) for column in self._columns
        ]

    def _tables(self) -> list[MySqlTable]:
        """The tables as they are on the server, in the options' order; looked up once."""
        if self._found is None:
            options = self._options
            server = MySql(options.reader.login)
            try:
                names = "|".join(re.escape(each.name) for each in options.tables)
                known = {each.name: each for each in discover(server, re.escape(options.database), names)}
            finally:
                server.close()
            for each in options.tables:
                if each.name not in known:
                    raise PlanError(f"{options.reader.login.where}: there is no table {options.database}.{each.name}")
            self._found = [known[each.name] for each in options.tables]
        return self._found

    def _asked(self, tables: Sequence[MySqlTable]) -> list[tuple[str, MySqlColumn, str]]:
        """Alias, column, and the name in the join, of everything that is selected."""
        found = []
        for number, (each, table) in enumerate(zip(self._options.tables, tables, strict=True)):
            for column, name in each.columns:
                known = table.column(column)
                if known is None:
                    raise PlanError(f"{table.full_name}: there is no column {column}")
                found.append((f"t{number}", known, name))
        return found

    def _numbered(self, driving: MySqlTable, count: int) -> str:
        """A table of numbers and keys, as parameters in the order of the driving table's own collation."""
        keys = [driving.column(key.name) for key in self._options.tables[0].keys]
        texts = [literal(key) for key in keys if key is not None]
        first = ", ".join(["%s AS n", *(f"{text} AS k{number}" for number, text in enumerate(texts))])
        rest = " UNION ALL SELECT " + ", ".join(["%s", *texts])
        return f"SELECT {first}{rest * (count - 1)}"

    def _joins(self) -> str:
        parts = []
        for number, each in enumerate(self._options.tables):
            name = f"{quote(self._options.database)}.{quote(each.name)}".replace("%", "%%")
            driving = self._options.tables[0].keys
            sides = [f"q.k{place}" if not number else f"t0.{quote(key.name)}" for place, key in enumerate(driving)]
            on = " AND ".join(
                f"t{number}.{quote(key.name)} = {side}" for key, side in zip(each.keys, sides, strict=True)
            ).replace("%", "%%")
            parts.append(f"{'LEFT ' if number else ''}JOIN {name} AS t{number} ON {on}")
        return " ".join(parts)


def _expression(alias: str, column: MySqlColumn) -> str:
    """As `mysql_rows.expression`, of one of several tables."""
    name = f"{alias}.{quote(column.name)}".replace("%", "%%")
    return f"({name} + 0e0)" if column.type == "float" else name
