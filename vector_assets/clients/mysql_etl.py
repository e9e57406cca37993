"""Schema `dbms_etl` on a MySQL server: made by `install`, written by MySQL clients, read by us."""

from typing import Any

from vector_assets.clients.mysql import MySql
from vector_assets.clients.mysql_etl_sql import PROCEDURES, SCHEMA, TABLE, TABLES
from vector_assets.engine.errors import ConfigError

STATES = {"pause": "PAUSED", "resume": "RUNNING", "drop": "DROPPED"}
"""What each verb makes of a link."""


def install(server: MySql) -> tuple[str, ...]:
    """Make the schema, its table and its procedures; what is there of them is replaced but for the table's rows.

    Raises:
        ConfigError: the user may not (CREATE, CREATE ROUTINE and ALTER ROUTINE on `dbms_etl` are needed).
    """
    server.rows(f"CREATE DATABASE IF NOT EXISTS {SCHEMA}")
    server.rows(TABLES)
    for name, body in PROCEDURES.items():
        server.rows(f"DROP PROCEDURE IF EXISTS {SCHEMA}.{name}")
        server.rows(f"CREATE PROCEDURE {SCHEMA}.{name}{body}")
    return (f"table {SCHEMA}.{TABLE}", *(f"procedure {SCHEMA}.{name}" for name in PROCEDURES))


def is_installed(server: MySql) -> bool:
    """True when the table is there."""
    text = "SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s"
    return server.value(text, (SCHEMA, TABLE)) is not None


def rows(server: MySql) -> list[dict[str, Any]]:
    """What was asked for, the newest of every index, oldest first.

    Raises:
        ConfigError: nothing is installed on the server.
    """
    if not is_installed(server):
        raise ConfigError(
            f"{server.login.where}: there is no {SCHEMA}.{TABLE}: `vector-assets autoetl install` makes it"
        )
    names = ("id", "index_name", "fields", "join_keys", "state", "asked_by", "asked_at", "status")
    found = server.rows(
        f"SELECT {', '.join(names)} FROM {SCHEMA}.{TABLE} WHERE id IN"
        f" (SELECT MAX(id) FROM {SCHEMA}.{TABLE} GROUP BY index_name) ORDER BY id"
    )
    return [dict(zip(names, row, strict=True)) for row in found]


def change(server: MySql, number: int, verb: str) -> None:
    """Pause, resume or drop a link by its number."""
    state = STATES[verb]
    live = ", live = NULL" if state == "DROPPED" else ""
    server.rows(
        f"UPDATE {SCHEMA}.{TABLE} SET state = %s{live}, changed_at = UTC_TIMESTAMP() WHERE id = %s", (state, number)
    )


def report(server: MySql, number: int, status: str | None) -> None:
    """Write what is wrong with a link (None: nothing), for `CALL dbms_etl.show_sync_link()`; no write where it says so
    already: each one is a transaction of the binlog that links read."""
    server.rows(
        f"UPDATE {SCHEMA}.{TABLE} SET status = %s WHERE id = %s AND NOT status <=> %s", (status, number, status)
    )
