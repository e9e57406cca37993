"""The demo's MySQL: connections to it, and its databases, made and changed a step at a time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pymysql
from pymysql.cursors import Cursor

from vector_assets.engine import env
from vector_assets.engine.errors import FatalError, TransientError

_TIMEOUT_S = 30

Row = tuple[Any, ...]


@contextmanager
def transaction(database: str = "") -> Iterator[Cursor]:
    """One transaction on the demo's server, committed when the block ends well.

    Raises:
        TransientError: the server does not answer.
        FatalError: it refuses a statement.
    """
    host, port = env.secret("mysql_host"), int(env.secret("mysql_port"))
    try:
        with (
            pymysql.connect(
                host=host, port=port, user=env.secret("mysql_user"), password=env.secret("mysql_password"),
                database=database or None, charset="utf8mb4", connect_timeout=_TIMEOUT_S, read_timeout=_TIMEOUT_S,
            ) as connection,
            connection.cursor() as cursor,
        ):  # fmt: skip
            yield cursor
            connection.commit()
    except pymysql.OperationalError as error:
        raise TransientError(f"demo: mysql at {host}:{port}: {error}") from error
    except pymysql.MySQLError as error:
        raise FatalError(f"demo: mysql: {error}") from error


def create(database: str, tables: Sequence[str]) -> None:
    """Make the database and its tables where they lack; each of `tables` follows `CREATE TABLE IF NOT EXISTS`."""
    with transaction() as cursor:
        has_it = cursor.execute("SELECT 1 FROM information_schema.schemata WHERE schema_name = %s", [database])
        if not has_it:
            cursor.execute(f"CREATE DATABASE {database}")
    with transaction(database) as cursor:
        known = {row[0] for row in _all(cursor, "SHOW TABLES")}
        for table in tables:
            if table.split()[0] not in known:
                cursor.execute(f"CREATE TABLE {table}")


def rows(database: str, query: str) -> list[Row]:
    """Rows of a query."""
    with transaction(database) as cursor:
        return _all(cursor, query)


def has(cursor: Cursor, query: str) -> bool:
    """True when a query has a row."""
    return bool(_all(cursor, query))


def _all(cursor: Cursor, query: str) -> list[Row]:
    cursor.execute(query)
    return list(cursor.fetchall())
