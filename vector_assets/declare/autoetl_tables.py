"""Columns, types and keys of a link's tables: asked of the server once, then kept in the ledger.

So loading declarations needs no server afterwards, and what a link's columns are does not change behind its back.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vector_assets.clients.mysql import Login, MySql
from vector_assets.clients.mysql_schema import MySqlTable, discover
from vector_assets.clients.mysql_unique import unique_keys
from vector_assets.declare.flink_type_text import type_of
from vector_assets.engine import env, links
from vector_assets.engine.core import Json
from vector_assets.engine.errors import ConfigError, VectorAssetsError
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.schema import LogicalType
from vector_assets.engine.store import is_there

NOTE = "autoetl_tables"
"""Under which the ledger keeps them, by pipeline."""


@dataclass(frozen=True, slots=True)
class KnownTable:
    """A table's columns with their types (None: one that cannot be read), and its unique keys."""

    columns: Mapping[str, LogicalType | None]
    unique: tuple[tuple[str, ...], ...]

    def name_of(self, column: str) -> str | None:
        """The column's name as the table spells it; names have no case in MySQL."""
        return next((each for each in self.columns if each.lower() == column.lower()), None)

    def is_unique(self, columns: Iterable[str]) -> bool:
        """True when no two rows have the same values there (NULLs apart)."""
        given = {each.lower() for each in columns}
        return any({each.lower() for each in key} <= given for key in self.unique)


def known_tables(
    pipeline: str, login: Login, database: str, columns: Mapping[str, Iterable[str]], *, offline: bool
) -> dict[str, KnownTable] | None:
    """The tables by name, as they were when the link was first used; None when nobody may be asked.

    They are asked for anew when the server is another, or a wanted column is none of theirs.

    Raises:
        ConfigError: the server cannot be reached, or refuses us, while nothing is kept.
    """
    kept = _kept(pipeline, None if offline else login.where)
    if kept is not None and all(
        table in kept and all(kept[table].name_of(column) for column in names) for table, names in columns.items()
    ):
        return kept
    if offline:
        return kept
    try:
        found = _asked(login, database, list(columns))
    except VectorAssetsError as error:
        what = f"the types of {database}.{next(iter(columns))} are not known yet: {error}"
        raise ConfigError(what) from error
    _keep(pipeline, login.where, found)
    return {name: _read(found[name]) for name in found}


def forget_tables(ledger: Ledger, pipeline: str) -> None:
    """Ask anew the next time."""
    links.note(ledger, pipeline, NOTE, None)


def _kept(pipeline: str, where: str | None) -> dict[str, KnownTable] | None:
    if not is_there(env.ledger_location()):
        return None
    ledger = Ledger(env.ledger_location())
    try:
        found = links.noted(ledger, pipeline, NOTE)
    finally:
        ledger.close()
    if not isinstance(found, dict) or (where is not None and found["where"] != where):
        return None
    return {name: _read(table) for name, table in found["tables"].items()}


def _keep(pipeline: str, where: str, tables: Mapping[str, Json]) -> None:
    ledger = Ledger(env.ledger_location())
    try:
        links.note(ledger, pipeline, NOTE, {"where": where, "tables": dict(tables)})
    finally:
        ledger.close()


def _asked(login: Login, database: str, names: list[str]) -> dict[str, Json]:
    server = MySql(login)
    try:
        found = discover(server, re.escape(database), "|".join(re.escape(name) for name in names))
        return {table.name: _written(server, table) for table in found}
    finally:
        server.close()


def _written(server: MySql, table: MySqlTable) -> Json:
    """A table as JSON: types in the words of Flink SQL."""
    types = {each.name: str(each.logical) if each.logical is not None else None for each in table.columns}
    keys: list[Json] = [list(key) for key in unique_keys(server, table.database, table.name)]
    return {"columns": [[name, kind] for name, kind in types.items()], "unique": keys}


def _read(table: Any) -> KnownTable:
    columns = {name: type_of(kind) if kind is not None else None for name, kind in table["columns"]}
    return KnownTable(columns, tuple(tuple(key) for key in table["unique"]))
