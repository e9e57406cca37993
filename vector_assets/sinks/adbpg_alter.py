"""A table of PostgreSQL whose columns follow the pipeline's: added, dropped, renamed, widened, or made text.

What is made already is left alone, so a change may be asked for twice. A view or a key that stands on a column is named
and nothing is cascaded.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

import psycopg
from psycopg import errors as pg
from psycopg import sql

from vector_assets.clients.postgres import Connection, said
from vector_assets.engine.errors import PlanError
from vector_assets.engine.schema import ColumnChange, LogicalType
from vector_assets.engine.widening import holds
from vector_assets.sinks.adbpg_catalog import Relation, TargetColumn

_SIMPLE = {
    "BOOLEAN": "boolean", "TINYINT": "smallint", "SMALLINT": "smallint", "INT": "integer", "BIGINT": "bigint",
    "FLOAT": "real", "DOUBLE": "double precision", "BINARY": "bytea", "VARBINARY": "bytea", "DATE": "date",
}  # fmt: skip
_KNOWN = {
    "boolean": LogicalType("BOOLEAN"), "smallint": LogicalType("SMALLINT"), "integer": LogicalType("INT"),
    "bigint": LogicalType("BIGINT"), "real": LogicalType("FLOAT"), "double precision": LogicalType("DOUBLE"),
    "bytea": LogicalType("VARBINARY"), "date": LogicalType("DATE"), "text": LogicalType("VARCHAR"),
    "character varying": LogicalType("VARCHAR"), "time without time zone": LogicalType("TIME", 6),
    "timestamp without time zone": LogicalType("TIMESTAMP", 6),
    "timestamp with time zone": LogicalType("TIMESTAMP_LTZ", 6),
}  # fmt: skip
_SIZED = re.compile(r"(?P<name>[a-z ]+?)\((?P<first>\d+)(?:,(?P<second>\d+))?\)(?P<zone> with(?:out)? time zone)?")
_LONGEST = 10_485_760
_FINEST = 6
_REFUSED = (
    pg.FeatureNotSupported, pg.DependentObjectsStillExist, pg.DatatypeMismatch, pg.CannotCoerce, pg.DuplicateColumn,
    pg.InvalidTableDefinition, pg.InsufficientPrivilege, pg.DataError, pg.IntegrityError, pg.WrongObjectType,
)  # fmt: skip


def type_text(kind: LogicalType) -> str:
    """The type as PostgreSQL spells it; CHAR(n) is not padded there."""
    if kind.name in _SIMPLE:
        return _SIMPLE[kind.name]
    if kind.name == "DECIMAL":
        return f"numeric({kind.precision},{kind.scale or 0})"
    if kind.name in {"CHAR", "VARCHAR"}:
        is_text = kind.precision is None or kind.precision > _LONGEST
        return "text" if is_text else f"character varying({kind.precision})"
    names = {"TIME": "time", "TIMESTAMP": "timestamp", "TIMESTAMP_LTZ": "timestamp"}
    if kind.name not in names:
        raise PlanError(f"type {kind} has no counterpart here; nested columns are made by hand")
    zone = "with" if kind.name == "TIMESTAMP_LTZ" else "without"
    return f"{names[kind.name]}({min(kind.precision or 0, _FINEST)}) {zone} time zone"


def logical_type(spelled: str) -> LogicalType | None:
    """The type that PostgreSQL spells so; None for one that pipelines do not have."""
    if spelled in _KNOWN:
        return _KNOWN[spelled]
    match = _SIZED.fullmatch(spelled)
    if match is None:
        return None
    name, first = match["name"], int(match["first"])
    if name == "numeric":
        return LogicalType("DECIMAL", first, int(match["second"] or 0)) if first <= 38 else None
    if name == "character varying":
        return LogicalType("VARCHAR", first)
    known = _KNOWN.get(f"{name}{match['zone'] or ''}")
    return None if known is None else replace(known, precision=first)


def alter(
    connection: Connection,
    relation: Relation,
    changes: Sequence[ColumnChange],
    is_case_sensitive: bool,  # noqa: FBT001
) -> tuple[str, ...]:
    """Make the changes in one transaction; what was changed, one sentence each.

    Raises:
        PlanError: the server refuses one, with its reason and what depends on the column; nothing was changed.
    """
    altering = _Altering(relation, is_case_sensitive=is_case_sensitive)
    made = []
    with connection.transaction():
        for change in changes:
            for statement in altering.statements(change):
                try:
                    connection.execute(statement)
                except _REFUSED as error:
                    raise PlanError(f"adbpg: {relation}: {change}: {_said(error)}") from error
                made.append(f"{relation}: {change}")
    return tuple(dict.fromkeys(made))


def _said(error: psycopg.Error) -> str:
    """The server's words, with what stands in the way (views, keys) unless it is about a value."""
    detail = error.diag.message_detail if not isinstance(error, pg.DataError | pg.IntegrityError) else None
    return f"{said(error)} ({' '.join(detail.split())})" if detail else said(error)


class _Altering:
    """The statements of changes, as the table is after those before."""

    def __init__(self, relation: Relation, *, is_case_sensitive: bool) -> None:
        self._relation = relation
        self._is_case_sensitive = is_case_sensitive
        self._columns = {self._folded(column.name): column for column in relation.columns}
        self._keys = {name for index in relation.unique_indexes for name in index.columns}

    def _folded(self, name: str) -> str:
        return name if self._is_case_sensitive else name.lower()

    def statements(self, change: ColumnChange) -> list[sql.Composed]:
        """What is left to be done of a change.

        Raises:
            PlanError: it would take the key away, or two columns have the name.
        """
        table = sql.SQL("ALTER TABLE {} ").format(sql.Identifier(self._relation.schema, self._relation.name))
        return [table + action for action in getattr(self, f"_{change.kind}")(change)]

    def _add(self, change: ColumnChange) -> list[sql.Composed]:
        name = self._folded(change.column.name)
        if name in self._columns:
            return []
        kind = sql.SQL(type_text(change.column.type))
        return [sql.SQL("ADD COLUMN {} {}").format(sql.Identifier(name), kind)]

    def _drop(self, change: ColumnChange) -> list[sql.Composed]:
        found = self._columns.pop(self._folded(change.column.name), None)
        if found is None:
            return []
        if found.name in self._keys:
            raise PlanError(
                f"adbpg: {self._relation}: {change}: it is part of a unique index, by which rows are written"
            )
        return [sql.SQL("DROP COLUMN {}").format(sql.Identifier(found.name))]

    def _rename(self, change: ColumnChange) -> list[sql.Composed]:
        old, new = self._folded(change.old or ""), self._folded(change.column.name)
        if old not in self._columns and new in self._columns:
            return []
        if old not in self._columns or new in self._columns:
            what = "there is no such column" if old not in self._columns else "there is a column of that name"
            raise PlanError(f"adbpg: {self._relation}: {change}: {what}")
        found = self._columns[new] = replace(self._columns.pop(old), name=new)
        was = next(column.name for column in self._relation.columns if column.number == found.number)
        return [sql.SQL("RENAME COLUMN {} TO {}").format(sql.Identifier(was), sql.Identifier(new))]

    def _type(self, change: ColumnChange) -> list[sql.Composed]:
        found = self._columns.get(self._folded(change.column.name))
        if found is None:
            raise PlanError(f"adbpg: {self._relation}: {change}: there is no such column")
        name, wanted, actions = sql.Identifier(found.name), change.column.type, []
        if wanted.nullable and found.is_not_null:
            actions.append(sql.SQL("ALTER COLUMN {} DROP NOT NULL").format(name))
        if not _is_wide(found, wanted):
            actions.append(
                sql.SQL("ALTER COLUMN {} TYPE {} USING {}").format(
                    name,
                    sql.SQL(type_text(wanted)),
                    _using(found, name, wanted),
                )
            )
        return actions


def _is_wide(found: TargetColumn, wanted: LogicalType) -> bool:
    """True when the column takes such values already."""
    known = logical_type(found.spelled)
    if known is None:
        return found.spelled == type_text(wanted)
    there = logical_type(type_text(wanted))
    return there is not None and holds(known, there)


def _using(found: TargetColumn, name: sql.Identifier, wanted: LogicalType) -> sql.Composed:
    """The expression that makes the values there such values."""
    text = type_text(wanted)
    if found.spelled == "bytea" and text != "bytea":
        raise PlanError(f"adbpg: column {found.name} is bytea: bytes are no {text}")
    # numbers are what a source's TINYINT(1) is, and PostgreSQL has no cast from boolean to anything but integer
    middle = sql.SQL("::integer") if found.spelled == "boolean" else sql.SQL("")
    return sql.SQL("{}{}::{}").format(name, middle, sql.SQL(text))
