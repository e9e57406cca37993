"""Arrow tables in and out of PostgreSQL, for assets of users: the sink's own conversions, outside of any pipeline."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import orjson
import psycopg
import pyarrow as pa
from psycopg import sql

from vector_assets.clients import pgcopy
from vector_assets.clients.postgres import Connection, refusal, refuses_row
from vector_assets.engine.core import POSITION
from vector_assets.engine.errors import RecordError
from vector_assets.sinks.adbpg_catalog import find_relation
from vector_assets.sinks.adbpg_options import AdbPgOptions
from vector_assets.sinks.adbpg_plan import Plan, make_plan
from vector_assets.sinks.adbpg_rows import Rows, convert

_ROWS_PER_WRITE = 3000
_SHOWN = 5

_NUMBERS = {"bool": pa.bool_(), "int2": pa.int16(), "int4": pa.int32(), "int8": pa.int64(), "oid": pa.int64()}
_OTHERS = {
    "float4": pa.float32(),
    "float8": pa.float64(),
    "text": pa.string(),
    "varchar": pa.string(),
    "bpchar": pa.string(),
    "name": pa.string(),
    "uuid": pa.string(),
    "json": pa.string(),
    "jsonb": pa.string(),
    "bytea": pa.binary(),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
}
_ARROW = {**_NUMBERS, **_OTHERS}


def copied(connection: Connection, rows: pa.Table, table: str, *, user: str) -> int:
    """COPY the rows into `schema.table` (or a table of `public`) in one transaction.

    Raises:
        PlanError: names or types do not fit.
        RecordError: a row does not fit, or the target refuses it.
    """
    schema, _, name = table.rpartition(".")
    options = AdbPgOptions.parse(
        {"url": "postgresql://nowhere/nothing", "tablename": name, "username": user, "password": "",
         "conflictmode": "strict"},
        "copy_arrow",
    )  # fmt: skip
    relation = find_relation(connection, schema or "public", name, is_case_sensitive=False)
    plan = make_plan(relation, rows.schema, (), options)
    numbered = rows.append_column(POSITION, pa.array(np.arange(rows.num_rows, dtype=np.int64)))
    good, refused = convert(plan, plan.columns, numbered)
    if refused:
        listed = "; ".join(f"row {row}: {reason}" for row, reason in list(refused.items())[:_SHOWN])
        raise RecordError(f"{relation}: {len(refused)} of {rows.num_rows} rows do not fit: {listed}")
    with connection.transaction():
        _copy(connection, plan, good)
    return len(good)


def _copy(connection: Connection, plan: Plan, rows: Rows) -> None:
    names = sql.SQL(", ").join(column.identifier for column in plan.columns)
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(plan.table, names)
    try:
        with connection.cursor().copy(statement) as copy:
            copy.write(pgcopy.HEADER)
            for chunk in pgcopy.chunks(rows.copied, _ROWS_PER_WRITE):
                copy.write(chunk)
            copy.write(pgcopy.TRAILER)
    except psycopg.Error as error:
        if refuses_row(error):
            raise RecordError(f"{plan.relation}: {refusal(error)}") from error
        raise


def fetched(connection: Connection, statement: str, parameters: Sequence[Any] | Mapping[str, Any] | None) -> pa.Table:
    """The rows of a query; numeric columns come in the scale they need, types without an Arrow kin as text."""
    with connection.cursor() as cursor:
        cursor.execute(statement.encode(), parameters)
        if cursor.description is None:
            return pa.table({})
        rows = cursor.fetchall()
        names = [column.name for column in cursor.description]
        oids = [column.type_code for column in cursor.description]
    types = _types(connection, oids)
    values = list(zip(*rows, strict=True)) if rows else [() for _ in names]
    arrays = [_array(column, types.get(oid)) for column, oid in zip(values, oids, strict=True)]
    return pa.Table.from_arrays(arrays, names=names)


def _types(connection: Connection, oids: Sequence[int]) -> dict[int, pa.DataType]:
    """The Arrow types of these PostgreSQL types, those without one left out."""
    found = connection.execute(
        "SELECT t.oid, t.typname, e.typname FROM pg_catalog.pg_type t"
        " LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND t.typlen = -1 WHERE t.oid = ANY(%s::oid[])",
        [list(oids)],
    ).fetchall()
    known = {}
    for oid, name, element in found:
        if name in _ARROW:
            known[oid] = _ARROW[name]
        elif element in _ARROW:
            known[oid] = pa.list_(_ARROW[element])
    return known


def _array(values: Sequence[Any], arrow: pa.DataType | None) -> pa.Array:
    if arrow is None and any(isinstance(value, Decimal) for value in values):
        try:
            return pa.array(values)
        except pa.ArrowInvalid:
            # NaN, or more than 38 digits
            return pa.array([_text(value) for value in values], pa.string())
    if arrow is None or arrow == pa.string():
        return pa.array([_text(value) for value in values], pa.string())
    return pa.array(values, arrow)


def _text(value: Any) -> str | None:
    """The value as text: documents as JSON, everything else as it is written."""
    if value is None or isinstance(value, str):
        return value
    return orjson.dumps(value).decode() if isinstance(value, dict | list | bool) else str(value)
