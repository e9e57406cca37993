"""One SELECT over the rows of a batch in DuckDB, and the records it fails for.

Each thread has a DuckDB of its own: in memory, one thread, UTC, without files, network or extensions, its configuration
locked. A batch in which a record fails is run again without it. The failing records are found by DuckDB's TRY, which
marks them all in one query, and by bisection where TRY is not allowed: volatile functions, and subqueries that do more
than add computed columns.
"""

import threading

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine.core import KIND, POSITION
from vector_assets.engine.errors import FatalError, PlanError
from vector_assets.transforms.select import Select

_DATA_ERRORS = (duckdb.DataError, duckdb.InvalidInputException)
"""What DuckDB raises for a value: it cannot be converted, is out of range, or a function refuses it."""
_BROKEN = (duckdb.OutOfMemoryException, duckdb.InternalException, duckdb.FatalException, duckdb.IOException)
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "threads": 1,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}
_SETTINGS = (
    "SET TimeZone = 'UTC'",
    "SET memory_limit = '2GB'",
    "SET temp_directory = ''",  # else it spills into .tmp below the working directory, external access or not (2.0.0)
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)
_ROUNDS = 3
_DETAILED = 20
_MOST_PROBES = 10_000
_SHOWN_CHARS = 60

Errors = dict[int, str]


class BatchQuery:
    """Runs one SELECT over table after table under the name `source`. Threads may share it."""

    def __init__(self, select: Select) -> None:
        self._select = select
        self._local = threading.local()

    def run(self, rows: pa.Table, hidden: list[str]) -> tuple[pa.Table, Errors]:
        """The projected columns (by place) and the hidden ones, and why the records at other positions fail.

        Raises:
            PlanError: the statement does not fit the rows, or fails for a reason that lies in no record.
            FatalError: DuckDB itself fails, for want of memory for example.
        """
        outputs = [f"({text}) AS _output_{place}" for place, (text, _) in enumerate(self._select.projections)]
        statement = self._select.text([*outputs, *hidden])
        errors: Errors = {}
        for _ in range(_ROUNDS):
            try:
                return self._execute(rows, statement), errors
            except _DATA_ERRORS as error:
                errors |= self._failing(rows, statement, error)
                rows = rows.filter(pc.invert(pc.is_in(rows[POSITION], pa.array(list(errors), pa.int64()))))
        raise PlanError("transform: the SELECT keeps failing after its failing records were left out")

    def _execute(self, rows: pa.Table, statement: str) -> pa.Table:
        connection = self._connection()
        if KIND not in rows.column_names:
            rows = rows.append_column(KIND, pa.repeat(pa.scalar(0, pa.int8()), rows.num_rows))
        connection.register("source", rows)
        try:
            return connection.sql(statement).to_arrow_table()
        except _DATA_ERRORS:
            raise
        except _BROKEN as error:
            raise FatalError(f"transform: {_first_line(error)}") from error
        except duckdb.Error as error:
            raise PlanError(f"transform: {_first_line(error)}") from error
        finally:
            connection.unregister("source")

    def _connection(self) -> duckdb.DuckDBPyConnection:
        connection: duckdb.DuckDBPyConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = duckdb.connect(":memory:", config=_CONFIG)
            for setting in _SETTINGS:
                connection.execute(setting)
            self._local.connection = connection
        return connection

    def _failing(self, rows: pa.Table, statement: str, first: Exception) -> Errors:
        """Positions of the records that the statement fails for."""
        if (without_rows := self._failure(rows.slice(0, 0), statement)) is not None:
            raise PlanError(f"transform: fails without any record: {without_rows}") from first
        found = self._tried(rows, statement) or self._bisected(rows, statement)
        if not found:
            raise PlanError(f"transform: no single record is to blame: {_first_line(first)}") from first
        return found

    def _failure(self, rows: pa.Table, statement: str) -> str | None:
        try:
            self._execute(rows, statement)
        except _DATA_ERRORS as error:
            return _first_line(error)
        return None

    def _tried(self, rows: pa.Table, statement: str) -> Errors:
        """Failing records by TRY around every expression; nothing if TRY cannot say."""
        select = self._select.inlined()
        places = [(text, f"column {name}") for text, name in self._select.projections]
        failed = [f"TRY({{'value': ({text})}}) IS NULL" for text, _ in select.projections]
        if select.where is not None:
            failed = [f"coalesce(TRY(({select.where})), false) AND {text}" for text in failed]
            places.insert(0, (select.where, "WHERE"))
            failed.insert(0, f"TRY({{'value': ({select.where})}}) IS NULL")
        marks = [f"({text}) AS _failed_{place}" for place, text in enumerate(failed)]
        try:
            result = self._execute(rows, select.text([*marks, POSITION], where=False))
        except (*_DATA_ERRORS, PlanError):
            return {}
        errors: Errors = {}
        positions = result[POSITION].to_numpy()
        for (text, place), mark in zip(places, result.columns, strict=False):
            for position in np.unique(positions[mark.to_numpy()]).tolist():
                if position not in errors:
                    why = self._detail(rows, statement, position) if len(errors) < _DETAILED else None
                    errors[position] = f"transform: {place}: {why or f'{text[:_SHOWN_CHARS]} fails for this record'}"
        return errors

    def _detail(self, rows: pa.Table, statement: str, position: int) -> str | None:
        """What DuckDB says of one record."""
        return self._failure(rows.filter(pc.equal(rows[POSITION], position)), statement)

    def _bisected(self, rows: pa.Table, statement: str) -> Errors:
        """Failing records by halving; `rows` is in the order of `_position`."""
        _, starts = np.unique(rows[POSITION].to_numpy(), return_index=True)
        bounds = [*starts.tolist(), rows.num_rows]
        errors: Errors = {}
        spans = [(0, len(starts))]
        for _ in range(_MOST_PROBES):
            if not spans:
                return errors
            first, last = spans.pop()
            part = rows.slice(bounds[first], bounds[last] - bounds[first])
            why = self._failure(part, statement)
            if why is not None and last - first == 1:
                errors[part[POSITION][0].as_py()] = f"transform: {why}"
            elif why is not None:
                middle = (first + last) // 2
                spans += [(middle, last), (first, middle)]
        raise PlanError(
            f"transform: too many records fail to be told apart by {_MOST_PROBES} queries "
            f"({len(errors)} so far); the first: {next(iter(errors.values()), 'none yet')}"
        )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
