"""Whether a table has an index already that a CREATE INDEX would make once more, under whatever name.

The server itself is asked: the statement is run on an empty temporary twin of the table, and what the catalog then says
of the index is compared. The twin is rolled back.
"""

from typing import Any

from vector_assets.clients.postgres import Connection
from vector_assets.sinks.adbpg_catalog import key_columns
from vector_assets.sinks.adbpg_script import Index

_TWIN = "vector_assets_twin"


def equal_index(connection: Connection, index: Index) -> str | None:
    """Name of an index on the same table with the same method, columns, expressions, options and predicate.

    An index that the statement names is equal only under that name. None too when the table is not there yet.

    Raises:
        psycopg.Error: the server refuses the statement.
    """
    row = connection.execute("SELECT to_regclass(%s)::oid", [index.written]).fetchone()
    table = row[0] if row else None
    if table is None:
        return None
    known = _signatures(connection, table)
    with connection.transaction(force_rollback=True):
        connection.execute(f"CREATE TEMPORARY TABLE {_TWIN} (LIKE {index.written}) ON COMMIT DROP".encode())
        unique = "UNIQUE " if index.is_unique else ""
        connection.execute(f"CREATE {unique}INDEX ON pg_temp.{_TWIN} {index.rest}".encode())
        twin = connection.execute("SELECT %s::regclass::oid", [f"pg_temp.{_TWIN}"]).fetchone()
        (wanted,) = _signatures(connection, twin[0] if twin else 0).values()
    same = [name for name, signature in known.items() if signature == wanted]
    if index.name is not None:
        return index.name if index.name in same else None
    return same[0] if same else None


def _signatures(connection: Connection, table: int) -> dict[str, tuple[Any, ...]]:
    """What makes an index what it is, by the name of every valid index of the table."""
    version = connection.info.server_version
    nulls = "i.indnullsnotdistinct" if version >= 150000 else "false"
    rows = connection.execute(
        "SELECT x.relname, m.amname, i.indisunique, i.indclass::text, i.indcollation::text, i.indoption::text,"
        f" {nulls}, {key_columns(version)}, pg_catalog.pg_get_expr(i.indpred, i.indrelid),"
        " (SELECT array_agg(o ORDER BY o) FROM unnest(x.reloptions) o),"
        " ARRAY(SELECT pg_catalog.pg_get_indexdef(i.indexrelid, n, true) FROM generate_series(1, i.indnatts) n)"
        " FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid"
        " JOIN pg_catalog.pg_am m ON m.oid = x.relam WHERE i.indrelid = %s AND i.indisvalid ORDER BY x.relname",
        [table],
    ).fetchall()
    return {row[0]: tuple(map(_hashable, row[1:])) for row in rows}


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
