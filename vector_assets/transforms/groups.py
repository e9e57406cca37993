"""GROUP BY in DuckDB: the part of a batch, groups kept in a table, and the changes that one makes to the other.

Every statement runs with one thread over rows in the order of their positions, so equal records give equal groups, sums
of floating point numbers included.
"""

import tempfile
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pyarrow as pa

from vector_assets.engine.aggregation import Changes
from vector_assets.engine.core import KIND, POSITION, RowKind
from vector_assets.engine.errors import FatalError
from vector_assets.transforms.checked_cast import cast_columns, misfits

_PIECE_ROWS = 100_000
_BROKEN = (duckdb.OutOfMemoryException, duckdb.InternalException, duckdb.FatalException, duckdb.IOException)
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "threads": 1,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}


@dataclass(frozen=True, slots=True)
class Kept:
    """One value that is kept of a group: how it is made of a batch's rows, and of the kept one and a batch's.

    `partial` is an aggregate over `source`; `merge` says `{old}` and `{new}`, of which either may be NULL.
    """

    name: str
    type: str
    arrow: pa.DataType
    partial: str
    merge: str


@dataclass(frozen=True, slots=True)
class Result:
    """An aggregate of the script: `sql` makes it of what is kept, `text` is what the script says."""

    name: str
    sql: str
    text: str


@dataclass(frozen=True, slots=True)
class Key:
    """A group key: its column in a group, and the sink's columns that hold it as it is."""

    name: str
    type: str
    arrow: pa.DataType
    text: str
    sinks: frozenset[str] = frozenset()


@dataclass(frozen=True)
class GroupBy:
    """The parts of a GROUP BY in DuckDB's SQL.

    `projections` and `having` are over the columns of keys and results; `output` is the sink's schema; `meaning` is the
    text of everything that decides what a group holds. Threads may share it.
    """

    group_keys: tuple[Key, ...]
    kept: tuple[Kept, ...]
    results: tuple[Result, ...]
    projections: tuple[tuple[str, str], ...]
    having: str | None
    output: pa.Schema
    primary_key: tuple[str, ...]
    meaning: str
    _local: threading.local = field(default_factory=threading.local, compare=False, repr=False)

    @property
    def signature(self) -> str:
        """Text; equal for groups that mean the same."""
        return self.meaning

    @property
    def columns(self) -> pa.Schema:
        """Keys, then what is kept."""
        parts: tuple[Key | Kept, ...] = (*self.group_keys, *self.kept)
        return pa.schema([pa.field(part.name, part.arrow) for part in parts])

    @property
    def names(self) -> str:
        """The columns of a group as a list in SQL."""
        return ", ".join(quoted(name) for name in self.columns.names)

    @property
    def keys(self) -> Mapping[str, frozenset[str]]:
        """The script's text of each group key, and the sink's columns that hold it."""
        return {key.text: key.sinks for key in self.group_keys}

    def partial(self, rows: pa.Table) -> pa.Table:
        """The part that a batch's rows are of each group, with the `_position` of its last row.

        Raises:
            FatalError: DuckDB fails, for want of memory for example.
        """
        connection: duckdb.DuckDBPyConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = _connect()
        keys = [quoted(key.name) for key in self.group_keys]
        kept = [f"{kept.partial} AS {quoted(kept.name)}" for kept in self.kept]
        grouped = f"GROUP BY {', '.join(keys)}" if keys else "HAVING count(*) > 0"
        columns = ", ".join([*keys, *kept, f"max({POSITION}) AS {POSITION}"])
        connection.register("source", rows)
        try:
            return _asked(connection, f"SELECT {columns} FROM source {grouped} ORDER BY {POSITION}")
        finally:
            connection.unregister("source")

    def open(self, memory_bytes: int) -> "GroupTable":
        """No groups yet; beyond so much memory they go to a temporary file."""
        return GroupTable(self, memory_bytes)

    def over(self, relation: str) -> str:
        """The sink's columns and `_position` of a relation of groups."""
        keys = [quoted(key.name) for key in self.group_keys]
        results = [f"{result.sql} AS {quoted(result.name)}" for result in self.results]
        columns = ", ".join(f"({sql}) AS {quoted(name)}" for sql, name in self.projections)
        inner = f"SELECT {', '.join([*keys, *results, POSITION])} FROM {relation}"
        having = f" WHERE ({self.having})" if self.having is not None else ""
        return f"SELECT {columns}, {POSITION} FROM ({inner}){having}"


class GroupTable:
    """The groups in a table of a DuckDB of its own."""

    def __init__(self, plan: GroupBy, memory_bytes: int) -> None:
        self._plan = plan
        self._spill = Path(tempfile.gettempdir()) / f"vector-assets-groups-{uuid.uuid4().hex}"
        self._connection = _connect(memory_bytes, self._spill)
        self._define()

    def _define(self) -> None:
        parts: tuple[Key | Kept, ...] = (*self._plan.group_keys, *self._plan.kept)
        columns = ", ".join(f"{quoted(part.name)} {part.type}" for part in parts)
        self._connection.execute(f"CREATE OR REPLACE TABLE groups ({columns})")

    def load(self, parts: Iterable[pa.Table]) -> None:
        """Forget everything and hold these groups; of a group that is in several parts, the last.

        Raises:
            FatalError: DuckDB fails.
        """
        self._define()
        columns = self._plan.names
        keys = ", ".join(quoted(key.name) for key in self._plan.group_keys)
        _run(self._connection, "CREATE OR REPLACE TEMP TABLE loading AS SELECT *, 0 AS _part FROM groups LIMIT 0")
        for number, part in enumerate(parts):
            self._connection.register("part", part)
            _run(self._connection, f"INSERT INTO loading SELECT {columns}, {number} FROM part")
            self._connection.unregister("part")
        last = f"row_number() OVER ({f'PARTITION BY {keys} ' if keys else ''}ORDER BY _part DESC) = 1"
        _run(self._connection, f"INSERT INTO groups SELECT {columns} FROM loading QUALIFY {last}")
        _run(self._connection, "DROP TABLE loading")

    def merge(self, partial: pa.Table, *, before: bool) -> Changes:
        """Add a batch's part; without `before`, no `-U` is given for a row that stays.

        Raises:
            FatalError: a value does not fit its type, or DuckDB fails; the groups have to be loaded again.
        """
        self._touch(partial)
        rows = self._changes(before=before)
        touched = _asked(self._connection, f"SELECT {self._plan.names} FROM touched ORDER BY {POSITION}")
        self._replace()
        return Changes(rows, touched.cast(self._plan.columns))

    def add(self, partial: pa.Table) -> None:
        """Add a batch's part; what changes is not asked for.

        Raises:
            FatalError: as `merge`.
        """
        self._touch(partial)
        self._replace()

    def _touch(self, partial: pa.Table) -> None:
        """The temporary table `touched`: every group of the part as it was (`_old ...`) and as it is now."""
        plan = self._plan
        keys = [f"p.{quoted(key.name)}" for key in plan.group_keys]
        old = [f"s.{quoted(kept.name)} AS {quoted('_old ' + kept.name)}" for kept in plan.kept]
        merged = [
            f"{kept.merge.format(old=f's.{quoted(kept.name)}', new=f'p.{quoted(kept.name)}')} AS {quoted(kept.name)}"
            for kept in plan.kept
        ]
        on = [f"s.{quoted(key.name)} IS NOT DISTINCT FROM p.{quoted(key.name)}" for key in plan.group_keys]
        columns = ", ".join([f"p.{POSITION}", "s.rowid AS _row", *keys, *old, *merged])
        self._connection.register("partial", partial)
        try:
            _run(
                self._connection,
                f"CREATE OR REPLACE TEMP TABLE touched AS SELECT {columns} FROM partial p LEFT JOIN groups s"
                f" ON {' AND '.join(on) or 'true'}",
            )
        except duckdb.Error as error:
            raise FatalError(
                f"GROUP BY: a group cannot be added to: {_first_line(error)}; nothing was written"
            ) from error
        finally:
            self._connection.unregister("partial")

    def _changes(self, *, before: bool) -> pa.Table:
        plan = self._plan
        keys = [quoted(key.name) for key in plan.group_keys]
        old = [f"{quoted('_old ' + kept.name)} AS {quoted(kept.name)}" for kept in plan.kept]
        was = f"(SELECT {', '.join([POSITION, *keys, *old])} FROM touched WHERE _row IS NOT NULL)"
        self._projected("was", was)
        self._projected("now", "touched")
        names = [quoted(name) for name in plan.output.names]
        differs = " OR ".join(f"was.{name} IS DISTINCT FROM now.{name}" for name in names)
        both = f"was JOIN now USING ({POSITION}) WHERE {differs}"
        parts = [
            (RowKind.INSERT, "now", f"now ANTI JOIN was USING ({POSITION})"),
            (RowKind.DELETE, "was", f"was ANTI JOIN now USING ({POSITION})"),
            *([(RowKind.UPDATE_BEFORE, "was", both)] if before else []),
            (RowKind.UPDATE_AFTER, "now", both),
        ]
        selects = [
            f"SELECT {', '.join(f'{side}.{name}' for name in names)}, CAST({kind:d} AS TINYINT) AS {KIND},"
            f" {side}.{POSITION} FROM {relation}"
            for kind, side, relation in parts
        ]
        found = _asked(self._connection, f"{' UNION ALL '.join(selects)} ORDER BY {POSITION}, {KIND}")
        return self._fitted(found)

    def _projected(self, name: str, relation: str) -> None:
        try:
            _run(self._connection, f"CREATE OR REPLACE TEMP TABLE {name} AS {self._plan.over(relation)}")
        except duckdb.Error as error:
            raise FatalError(self._blamed(relation, error)) from error

    def _blamed(self, relation: str, error: duckdb.Error) -> str:
        """Which aggregate of which group has no value."""
        reason = str(error).partition("\n")[0]
        keys = ", ".join(f"{quoted(key.name)} AS {quoted(key.text)}" for key in self._plan.group_keys)
        for result in self._plan.results:
            failed = f"TRY({{'value': {result.sql}}}) IS NULL"
            query = f"SELECT {{{_struct(self._plan.group_keys)}}} AS found FROM {relation} WHERE {failed} LIMIT 1"
            if found := self._connection.execute(query).fetchall():
                group = f" of group {found[0][0]}" if keys else ""
                return (
                    f"GROUP BY: {result.text}{group} does not fit its type: {reason}. Nothing of this batch was"
                    " written; CAST the argument to a wider type (a SUM has the type of its argument, as in Flink),"
                    " then make the state again by the new script with `vector-assets state rebuild`"
                )
        return f"GROUP BY: the SELECT over the groups fails: {reason}. Nothing of this batch was written"

    def _fitted(self, found: pa.Table) -> pa.Table:
        """The changes in the sink's types.

        Raises:
            FatalError: a value does not fit its column.
        """
        plan = self._plan
        body = found.select(plan.output.names)
        if wrong := misfits(body, plan.output, key=plan.primary_key):
            what = wrong[min(wrong)].removeprefix("transform: ")
            raise FatalError(
                f"GROUP BY: the row of a group does not fit the sink: {what} ({len(wrong)} such rows). A group has no"
                " record of its own to be set aside, so nothing of this batch was written; leave such groups out with"
                " WHERE or HAVING, or give them another value with COALESCE"
            )
        hidden = [name for name in (KIND, POSITION) if name in found.column_names]
        columns = [*cast_columns(body, plan.output), *(found[name] for name in hidden)]
        types = {KIND: pa.field(KIND, pa.int8()), POSITION: pa.field(POSITION, pa.int64(), nullable=False)}
        return pa.Table.from_arrays(columns, schema=pa.schema([*plan.output, *(types[name] for name in hidden)]))

    def _replace(self) -> None:
        """The touched groups take the place of what they were."""
        kept = ", ".join(f"{quoted(kept.name)} = t.{quoted(kept.name)}" for kept in self._plan.kept)
        if kept:
            _run(self._connection, f"UPDATE groups SET {kept} FROM touched t WHERE groups.rowid = t._row")
        new = f"SELECT {self._plan.names} FROM touched WHERE _row IS NULL ORDER BY {POSITION}"
        _run(self._connection, f"INSERT INTO groups {new}")
        if self._number("max(rowid)") > 2 * self.count() + _PIECE_ROWS:
            # DuckDB updates lists by deleting the row and adding another one, and keeps the room of the old one
            _run(self._connection, "CREATE OR REPLACE TABLE dense AS SELECT * FROM groups")
            _run(self._connection, "DROP TABLE groups")
            _run(self._connection, "ALTER TABLE dense RENAME TO groups")

    def whole(self) -> pa.Table:
        """Every group.

        Raises:
            FatalError: DuckDB fails.
        """
        return _asked(self._connection, "SELECT * FROM groups").cast(self._plan.columns)

    def rows(self) -> Iterator[pa.Table]:
        """The sink's row of every group that has one, with `_position` (its number here), in bounded pieces.

        Raises:
            FatalError: as `merge`.
        """
        for start in range(0, self._number("max(rowid) + 1"), _PIECE_ROWS):
            within = f"rowid >= {start} AND rowid < {start + _PIECE_ROWS}"
            self._projected("now", f"(SELECT *, rowid AS {POSITION} FROM groups WHERE {within})")
            names = ", ".join([*(quoted(name) for name in self._plan.output.names), POSITION])
            yield self._fitted(_asked(self._connection, f"SELECT {names} FROM now ORDER BY {POSITION}"))

    def count(self) -> int:
        """How many groups there are."""
        return self._number("count(*)")

    def _number(self, what: str) -> int:
        ((found,),) = self._connection.execute(f"SELECT {what} FROM groups").fetchall()
        return int(found or 0)

    def close(self) -> None:
        """Give the memory back; idempotent."""
        self._connection.close()


def quoted(name: str) -> str:
    """A name as DuckDB reads it whatever its characters."""
    return '"' + name.replace('"', '""') + '"'


def _struct(keys: tuple[Key, ...]) -> str:
    """The keys as a struct's fields; of no keys something that names nothing."""
    return ", ".join(f"{quoted(key.text)}: {quoted(key.name)}" for key in keys) or "'all': true"


def _connect(memory_bytes: int = 2 << 30, spill: Path | None = None) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(":memory:", config=_CONFIG)
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"SET memory_limit = '{memory_bytes}B'")
    connection.execute("SET temp_directory = ''" if spill is None else f"SET temp_directory = '{spill}'")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _run(connection: duckdb.DuckDBPyConnection, statement: str) -> None:
    try:
        connection.execute(statement)
    except _BROKEN as error:
        raise FatalError(f"GROUP BY: {_first_line(error)}") from error


def _asked(connection: duckdb.DuckDBPyConnection, query: str) -> pa.Table:
    try:
        return connection.sql(query).to_arrow_table()
    except _BROKEN as error:
        raise FatalError(f"GROUP BY: {_first_line(error)}") from error
    except duckdb.Error as error:
        raise FatalError(f"GROUP BY: {_first_line(error)}; nothing of this batch was written") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
