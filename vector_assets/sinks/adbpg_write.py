"""Rows into the table, inside the batch's transaction: the fastest way that may work first, then with more care.

- COPY: all rows in one COPY inside a savepoint; nothing else is needed unless a row is refused.
- FILTER: ask which keys exist, COPY the first row of each other key (conflictmode `ignore`, after a conflict was met).
- INSERT: one INSERT .. SELECT FROM unnest(records) [ON CONFLICT ..] per flush. It needs no temporary table, and was
  faster than COPY into one and INSERT from there (300 against 225 thousand rows/s; 195 against 131 when all conflict).

When the target refuses a row, rows go in flush by flush, each inside a savepoint: a COPY names the row it was at, which
is then tried alone; otherwise halves are tried until the row stands alone.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
import pyarrow as pa
from psycopg import errors as pg
from psycopg import sql

from vector_assets.clients import pgcopy
from vector_assets.clients.pgcopy import Mask
from vector_assets.clients.postgres import Binary, Connection, copy_line, refusal, refuses_row
from vector_assets.engine.core import Merge
from vector_assets.engine.errors import BudgetError, FatalError
from vector_assets.sinks.adbpg_catalog import key_columns
from vector_assets.sinks.adbpg_plan import Plan
from vector_assets.sinks.adbpg_rows import Ordinals, Rows

_FLUSH_BYTES = 32 * 1024**2
"""Most bytes of one INSERT's parameter, however few rows that is."""
_SHOWN = 10
"""Positions that a message lists."""

Put = Callable[[Ordinals], int]


class Path(Enum):
    """How the rows of a batch are tried first."""

    COPY = "copy"
    FILTER = "filter"
    INSERT = "insert"


@dataclass(frozen=True, slots=True)
class Rules:
    """What the options say about writing: `copies` unless rows go by INSERT; `limit` is how many may be refused."""

    flush_rows: int
    copies: bool
    is_strict: bool
    limit: int | None = None


@dataclass(slots=True)
class KeyConflicts:
    """Tells a conflict of the target's key from one of another unique index; asks the catalog once per index."""

    plan: Plan
    known: dict[tuple[str | None, str | None], bool] = field(default_factory=dict)

    def are_in(self, connection: Connection, error: psycopg.Error) -> bool:
        """True when `error` says that a row with this key exists."""
        if not isinstance(error, pg.UniqueViolation) or not self.plan.key:
            return False
        name = (error.diag.schema_name, error.diag.constraint_name)
        if name not in self.known:
            # by columns, for a partition's index has a name of its own
            rows = connection.execute(
                "SELECT a.attname FROM pg_catalog.pg_class x JOIN pg_catalog.pg_namespace n ON n.oid = x.relnamespace"
                " JOIN pg_catalog.pg_index i ON i.indexrelid = x.oid JOIN pg_catalog.pg_attribute a"
                f" ON a.attrelid = x.oid AND a.attnum <= {key_columns(connection.info.server_version)}"
                " WHERE n.nspname = %s AND x.relname = %s",
                name,
            )
            self.known[name] = {row[0] for row in rows} == {column.target.name for column in self.plan.key}
        return self.known[name]


class Landing:
    """One batch's rows on their way; the counts, `refused` (reason by position) and `met_conflict` say how it went."""

    def __init__(self, connection: Connection, rows: Rows, rules: Rules, conflicts: KeyConflicts) -> None:
        self.connection = connection
        self.rows = rows
        self.plan = rows.plan
        self.rules = rules
        self.conflicts = conflicts
        self.refused: dict[int, str] = {}
        self.met_conflict = False
        self.deleted = 0
        self._landed = 0
        self._kept_out = 0

    @property
    def written(self) -> int:
        """Rows that are in the table now because of this batch."""
        return self._landed if self.plan.merge is Merge.FIRST else len(self.rows) - self._kept_out

    @property
    def dropped(self) -> int:
        """Rows left out because their key existed."""
        return len(self.rows) - self._kept_out - self.written

    def delete(self, keys: Rows) -> None:
        """Delete the rows with these keys; one that something else refers to is refused."""

        def put(rows: Ordinals) -> int:
            statement = sql.SQL("DELETE FROM {} AS t USING unnest({}) AS k({}) WHERE {}")
            names = (self.plan.table, self._parameters(), self._key_names(), self._same_key())
            return self._execute(statement.format(*names), _binaries(keys, rows)).rowcount

        refused = self._isolate(put, np.arange(len(keys)))
        for row, error in refused:
            self._refuse(int(keys.positions[row]), error)
        self.deleted = len(keys) - len(refused)

    def _isolate(self, put: Put, rows: Ordinals) -> list[tuple[int, psycopg.Error]]:
        """Put all rows but those that are refused even when they stand alone."""
        error = self._try(put, rows) if len(rows) else None
        if error is None:
            return []
        if len(rows) == 1:
            return [(int(rows[0]), error)]
        half = len(rows) // 2
        return self._isolate(put, rows[:half]) + self._isolate(put, rows[half:])

    def write(self, path: Path) -> None:
        """Bring the rows in, trying `path` first.

        Raises:
            FatalError: a row is refused and the options say that this stops the batch.
            BudgetError: more rows are refused than the batch may lose.
        """
        every = np.arange(len(self.rows))
        if len(every) == 0:
            return
        if path is Path.FILTER:
            self._write_filtered(every)
            return
        error = self._try(self._copy if path is Path.COPY else self._insert_in_flushes, every)
        if error is None:
            return
        if not self.conflicts.are_in(self.connection, error):
            self._write_carefully(every)
            return
        self.met_conflict = True
        if self.plan.merge is Merge.ERROR:
            raise self._duplicate(error, every)
        if self.plan.merge is Merge.FIRST and path is Path.COPY:
            self._write_filtered(every)
        elif self._try(self._insert_in_flushes, every):
            self._write_carefully(every)

    def _write_filtered(self, every: Ordinals) -> None:
        """COPY the first row of each key that is not in the table."""
        is_present = self._present()
        self.met_conflict = self.met_conflict or bool(is_present.any())
        fresh = every[~is_present]
        wanted = self.rows.first_of_each_key(fresh)
        if len(wanted) and self._try(self._copy, wanted):
            # repeats within the batch come back: the first of a key may be the row that is refused
            self._write_carefully(fresh)

    def _write_carefully(self, rows: Ordinals) -> None:
        """Flush by flush, each on its own: what the target refuses is found and left out."""
        put = self._copy if self.rules.copies else self._insert
        for start in range(0, len(rows), self.rules.flush_rows):
            self._write_flush(put, rows[start : start + self.rules.flush_rows])

    def _write_flush(self, put: Put, rows: Ordinals) -> None:
        while len(rows):
            error = self._try(put, rows)
            if error is None:
                return
            if self.conflicts.are_in(self.connection, error):
                self.met_conflict = True
                if self.plan.merge is Merge.ERROR:
                    raise self._duplicate(error, rows)
                if put == self._copy:
                    self._write_flush(self._insert, rows)
                    return
            if len(rows) == 1:
                self._refuse(int(self.rows.positions[rows[0]]), error)
                self._kept_out += 1
                return
            line = copy_line(error)
            if line is not None and 1 <= line <= len(rows):
                # the words of a message are only a hint: the row is tried alone before it is refused
                self._write_flush(put, rows[: line - 1])
                self._write_flush(put, rows[line - 1 : line])
                rows = rows[line:]
            else:
                half = len(rows) // 2
                self._write_flush(put, rows[:half])
                rows = rows[half:]

    def _try(self, put: Put, rows: Ordinals) -> psycopg.Error | None:
        """Put rows inside a savepoint; the error when the target refuses one of them."""
        try:
            with self.connection.transaction():
                landed = put(rows)
        except psycopg.Error as error:
            if not refuses_row(error):
                raise
            return error
        self._landed += landed
        return None

    def _refuse(self, position: int, error: psycopg.Error) -> None:
        reason = refusal(error)
        if self.rules.is_strict:
            raise FatalError(
                f"adbpg: {self.plan.relation}: exceptionmode=strict: the row at position {position} of the batch is"
                f" refused: {reason}"
            )
        self.refused[position] = reason
        if self.rules.limit is not None and len(self.refused) > self.rules.limit:
            raise BudgetError(
                f"adbpg: {self.plan.relation}: the target refuses more rows than the {self.rules.limit} this batch may"
                f" lose; the last: {reason}"
            )

    def _duplicate(self, error: psycopg.Error, rows: Ordinals) -> FatalError:
        """The error for `rows`, none of which has landed, some of which have keys that exist."""
        is_new = np.zeros(len(self.rows), np.bool_)
        is_new[self.rows.first_of_each_key(rows)] = True
        places = self.rows.positions[rows[(~is_new | self._present())[rows]]].tolist()
        shown = ", ".join(map(str, places[:_SHOWN])) + (", ..." if len(places) > _SHOWN else "")
        where = f"{len(places)} rows, at positions {shown} of the batch" if places else f"line {copy_line(error)}"
        key = ", ".join(column.target.name for column in self.plan.key)
        return FatalError(
            f"adbpg: {self.plan.relation}: conflictmode=strict: key ({key}) exists in the target or earlier in the"
            f" batch: {where}"
        )

    def _copy(self, rows: Ordinals) -> int:
        """One COPY, whose stream is sent `flush_rows` rows at a time."""
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(self.plan.table, self._names())
        with self.connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(pgcopy.HEADER)
            for chunk in pgcopy.chunks(_part(self.rows.copied, rows), self.rules.flush_rows):
                copy.write(chunk)
            copy.write(pgcopy.TRAILER)
        return len(rows)

    def _insert_in_flushes(self, rows: Ordinals) -> int:
        return sum(
            self._insert(rows[start : start + self.rules.flush_rows])
            for start in range(0, len(rows), self.rules.flush_rows)
        )

    def _insert(self, rows: Ordinals) -> int:
        """One INSERT, or several when the rows are large; how many rows it touched."""
        records = _part(self.rows.records, rows)
        if len(rows) > 1 and pgcopy.size(records) > _FLUSH_BYTES:
            half = len(rows) // 2
            return self._insert(rows[:half]) + self._insert(rows[half:])
        relation = self.plan.relation
        parameter = Binary(relation.row_array_oid, pgcopy.array_parameter(records, relation.row_oid))
        return self._execute(self._insert_statement(), [parameter]).rowcount

    def _insert_statement(self) -> sql.Composed:
        # the aliases are by place, so no column's name can clash with the ordinal's
        by_name = {column.name: f"c{place}" for place, column in enumerate(self.plan.relation.columns)}
        return sql.SQL(
            "INSERT INTO {table} ({names}) SELECT {values} FROM unnest({records}) WITH ORDINALITY AS r({aliases}, o)"
            " ORDER BY r.o {clause}"
        ).format(
            table=self.plan.table,
            names=self._names(),
            values=listed(sql.Identifier("r", by_name[c.target.name]) for c in self.plan.columns),
            records=sql.SQL("$1"),
            aliases=listed(map(sql.Identifier, by_name.values())),
            clause=self._conflict_clause(),
        )

    def _conflict_clause(self) -> sql.Composable:
        if self.plan.merge not in {Merge.FIRST, Merge.LAST}:
            return sql.SQL("")
        key = listed(column.identifier for column in self.plan.key)
        others = [column.identifier for column in self.plan.columns if column not in self.plan.key]
        if self.plan.merge is Merge.FIRST or not others:
            return sql.SQL("ON CONFLICT ({}) DO NOTHING").format(key)
        assignments = listed(sql.SQL("{0} = EXCLUDED.{0}").format(name) for name in others)
        return sql.SQL("ON CONFLICT ({}) DO UPDATE SET {}").format(key, assignments)

    def _present(self) -> Mask:
        """Which rows have a key that is in the table."""
        statement = sql.SQL(
            "SELECT array_agg(k.o::int4) FROM unnest({}) WITH ORDINALITY AS k({}, o) JOIN {} AS t ON {}"
        ).format(self._parameters(), self._key_names(), self.plan.table, self._same_key())
        cursor = self._execute(statement, _binaries(self.rows, np.arange(len(self.rows))))
        data = cursor.pgresult.get_value(0, 0) if cursor.pgresult else None
        is_present = np.zeros(len(self.rows), np.bool_)
        if data:
            # an array: 20 bytes of header, then size and value of each element
            is_present[np.frombuffer(data, ">i4", offset=20)[1::2].astype(np.int64) - 1] = True
        return is_present

    def _execute(self, statement: sql.Composed, parameters: list[Binary]) -> psycopg.Cursor[tuple[Any, ...]]:
        """Run a statement with the server's own placeholders: names may hold a percent sign."""
        return psycopg.RawCursor(self.connection).execute(statement, parameters, binary=True)

    def _names(self) -> sql.Composed:
        return listed(column.identifier for column in self.plan.columns)

    def _parameters(self) -> sql.Composed:
        return listed(sql.SQL(f"${place + 1}") for place, _ in enumerate(self.plan.key))

    def _key_names(self) -> sql.Composed:
        return listed(sql.Identifier(f"k{place}") for place, _ in enumerate(self.plan.key))

    def _same_key(self) -> sql.Composed:
        return same_key(self.plan)


def same_key(plan: Plan) -> sql.Composed:
    """The key of table `t` equals the columns k0, k1 .. of `k`, under the collation of the target's columns."""
    parts: list[sql.Composable] = []
    for place, column in enumerate(plan.key):
        value: sql.Composable = sql.Identifier("k", f"k{place}")
        if column.target.collation:
            value = sql.SQL("{} COLLATE {}").format(value, sql.Identifier(*column.target.collation))
        parts.append(sql.SQL("{} = {}").format(sql.Identifier("t", column.target.name), value))
    return sql.SQL(" AND ").join(parts)


def listed(parts: Iterable[sql.Composable]) -> sql.Composed:
    """The parts with commas between them."""
    return sql.SQL(", ").join(parts)


def _binaries(keys: Rows, rows: Ordinals) -> list[Binary]:
    return [Binary(oid, data) for oid, data in keys.key_parameters(rows)]


def _part(encoded: pa.LargeBinaryArray, rows: npt.NDArray[np.int64]) -> pa.LargeBinaryArray:
    """The encoded rows of these numbers, which ascend; without a copy where they are neighbours."""
    first, last = int(rows[0]), int(rows[-1])
    if last - first + 1 == len(rows):
        return encoded.slice(first, len(rows))
    return encoded.take(pa.array(rows))
