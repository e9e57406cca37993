"""Which columns of a MySQL table name one row."""

from vector_assets.clients.mysql import MySql


def unique_keys(server: MySql, database: str, table: str) -> list[tuple[str, ...]]:
    """The columns of every unique key, NULL or not; a key over the beginning of a column is not one."""
    rows = server.rows(
        "SELECT INDEX_NAME, COLUMN_NAME, SUB_PART FROM information_schema.STATISTICS"
        " WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s AND NON_UNIQUE = 0"
        " ORDER BY INDEX_NAME <> 'PRIMARY', INDEX_NAME, SEQ_IN_INDEX",
        (database, table),
    )
    names = dict.fromkeys(row[0] for row in rows)
    parts = [[row for row in rows if row[0] == name] for name in names]
    return [tuple(str(row[1]) for row in each) for each in parts if all(row[2] is None for row in each)]
