"""How an AnalyticDB or PostgreSQL target is: server, clock, connections, extension, table, indexes, rights."""

import time
from collections.abc import Callable, Iterator

from vector_assets.clients.postgres import Connection
from vector_assets.engine.abilities import Finding
from vector_assets.engine.errors import PlanError
from vector_assets.sinks.adbpg_catalog import Relation, quoted
from vector_assets.sinks.adbpg_convert import is_vector
from vector_assets.sinks.adbpg_options import AdbPgOptions
from vector_assets.sinks.adbpg_server import INSTALL, Server, look
from vector_assets.sinks.adbpg_tokens import missing_tables

_CLOCK_SECONDS = 5.0
"""A clock further off than this misleads whoever compares times of the ledger with the database's."""
_FREE_CONNECTIONS = 5


def findings(connection: Connection, relation: Callable[[], Relation], options: AdbPgOptions) -> Iterator[Finding]:
    """Everything worth a line, the server first."""
    server = look(connection)
    kind = "AnalyticDB" if server.is_analyticdb else "PostgreSQL"
    yield Finding("ok", f"{kind} answers at {options.address}: {server.version.partition(' on ')[0]}")
    yield _clock(connection)
    yield _connections(connection)
    try:
        found = relation()
    except PlanError as error:
        remedy = "make it: `vector-assets target create FILE.sql`, or mend targetschema and tablename"
        yield Finding("problem", str(error), remedy)
        yield _extension(server, needs_vectors=True)
        return
    vectors = [column.name for column in found.columns if column.wire is not None and is_vector(column.wire)]
    yield _extension(server, needs_vectors=bool(vectors))
    if vectors:
        yield _vector_index(found, vectors)
    yield from _invalid_indexes(connection, found)
    yield from _rights(connection, found, options)


def _clock(connection: Connection) -> Finding:
    before = time.time()
    row = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
    after = time.time()
    # what the way there and back takes does not count
    off = 0.0 if row is None or before <= row[0] <= after else float(row[0]) - (before if row[0] < before else after)
    if abs(off) > _CLOCK_SECONDS:
        return Finding("warning", f"the database's clock is {off:+.1f} s off ours", "let both follow a time server")
    return Finding("ok", f"the database's clock agrees with ours ({off:+.1f} s)")


def _connections(connection: Connection) -> Finding:
    row = connection.execute(
        "SELECT current_setting('max_connections')::int, (SELECT count(*) FROM pg_catalog.pg_stat_activity)"
    ).fetchone()
    most, taken = row or (0, 0)
    if most - taken < _FREE_CONNECTIONS:
        remedy = "raise max_connections, or end sessions that nobody uses"
        return Finding("warning", f"{taken} of {most} connections are taken", remedy)
    return Finding("ok", f"{taken} of {most} connections are taken")


def _extension(server: Server, *, needs_vectors: bool) -> Finding:
    extension = server.extension
    if extension.is_installed:
        return Finding("ok", f"extension {extension.name} {extension.version} is installed")
    if not needs_vectors:
        return Finding("ok", "no vector column, so neither FastANN nor pgvector is needed")
    what = "neither FastANN nor pgvector is installed in the database: no vector index, no search"
    if extension.is_available:
        return Finding("warning", what, f"run CREATE EXTENSION {extension.name} in this database")
    return Finding("warning", what, INSTALL)


def _vector_index(relation: Relation, vectors: list[str]) -> Finding:
    indexed = {index.column for index in relation.vector_indexes}
    missing = [name for name in vectors if name not in indexed]
    # an index over a column of type vector fixes no dimension, and is not among those
    typed = [c.name for c in relation.columns if c.wire is not None and c.wire.name in {"vector", "halfvec"}]
    missing = [name for name in missing if name not in typed]
    if missing:
        what = f"{relation}: vector column {', '.join(missing)} has no vector index: a search compares every row"
        return Finding("warning", what, "add one to the DDL, then `vector-assets target create FILE.sql`")
    return Finding("ok", f"{relation}: vector columns {', '.join(vectors)}")


def _invalid_indexes(connection: Connection, relation: Relation) -> Iterator[Finding]:
    rows = connection.execute(
        "SELECT x.relname FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid"
        " WHERE i.indrelid = %s AND NOT i.indisvalid ORDER BY x.relname",
        [relation.oid],
    )
    for (name,) in rows:
        yield Finding(
            "warning",
            f"index {name} is not valid: it is kept up to date and never used",
            f"REINDEX INDEX {quoted(relation.schema)}.{quoted(name)}",
        )


def _rights(connection: Connection, relation: Relation, options: AdbPgOptions) -> Iterator[Finding]:
    user = options.username
    wanted = ("INSERT", "SELECT")
    lacking = [right for right in wanted if any(right not in column.grants for column in relation.columns)]
    if not relation.has_usage:
        yield Finding(
            "problem",
            f"user {user} may not use schema {relation.schema}",
            f"GRANT USAGE ON SCHEMA {quoted(relation.schema)} TO {quoted(user)}",
        )
    if lacking:
        grant = ", ".join(lacking)
        what = f"user {user} may not {grant} every column of {relation}"
        remedy = f"GRANT {grant} ON {relation.quoted} TO {quoted(user)}, unless the pipeline leaves them out"
        yield Finding("warning", what, remedy)
    else:
        yield Finding("ok", f"user {user} may read and write {relation}")
    missing = missing_tables(connection)
    row = connection.execute("SELECT has_database_privilege(current_database(), 'CREATE')").fetchone()
    if not missing:
        yield Finding("ok", "the tables of positions and batches are there")
    elif row is not None and row[0]:
        yield Finding("ok", f"{', '.join(missing)} will be made by the first run")
    else:
        what = f"{', '.join(missing)} are missing, and user {user} may make no schema"
        yield Finding("problem", what, "run once: the error gives an administrator the statements")
