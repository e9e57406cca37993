"""What kind of server this is: AnalyticDB with FastANN, or PostgreSQL with pgvector, or neither."""

from dataclasses import dataclass, replace
from typing import Self

from vector_assets.clients.postgres import Connection
from vector_assets.sinks.adbpg_catalog import quoted

INSTALL = (
    "on AnalyticDB enable vector search engine optimization (or ask support for FastANN); on PostgreSQL install the"
    " pgvector package of this server's version"
)
"""What to do where there is neither extension."""


@dataclass(frozen=True, slots=True)
class Extension:
    """An extension as a database sees it: `version` is None until CREATE EXTENSION was run there.

    `schema` is where its names are, None when they need no schema before them.
    `may_owner_create`: this user may make it in a database of its own.
    """

    name: str
    version: str | None
    schema: str | None
    is_available: bool
    may_create: bool
    may_owner_create: bool

    @property
    def is_installed(self) -> bool:
        """True when the database has it."""
        return self.version is not None

    @property
    def qualifier(self) -> str:
        """What goes before its names in SQL."""
        return f"{quoted(self.schema)}." if self.schema else ""

    def anew(self) -> Self:
        """The same in a database that this user is about to make."""
        return replace(self, version=None, schema=None, may_create=self.may_owner_create)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The version to compare with; empty when it is not installed."""
        return tuple(int(part) for part in (self.version or "").split(".") if part.isdecimal())


@dataclass(frozen=True, slots=True)
class Server:
    """One database of a server."""

    version: str
    is_analyticdb: bool
    fastann: Extension
    pgvector: Extension

    @property
    def extension(self) -> Extension:
        """The one that serves vectors here: FastANN on AnalyticDB, else pgvector."""
        return self.fastann if self.is_analyticdb else self.pgvector

    def anew(self) -> Self:
        """A database that this user is about to make on the same server."""
        return replace(self, fastann=self.fastann.anew(), pgvector=self.pgvector.anew())

    @property
    def has_vectors(self) -> bool:
        """True when the database can search vectors now."""
        return self.extension.is_installed


def look(connection: Connection) -> Server:
    """The server behind a connection. Plain SQL that PostgreSQL 9.4 knows too."""
    row = connection.execute("SELECT version()").fetchone()
    version = str(row[0]) if row else ""
    fastann, pgvector = _extension(connection, "fastann"), _extension(connection, "vector")
    is_analyticdb = any(name in version.lower() for name in ("greenplum", "analyticdb"))
    is_analyticdb = is_analyticdb or fastann.is_installed or fastann.is_available
    return Server(version, is_analyticdb, fastann, pgvector)


def _extension(connection: Connection, name: str) -> Extension:
    # a trusted extension needs CREATE in the database, any other one a superuser; before 13 none is trusted
    is_trusted = "v.trusted" if connection.info.server_version >= 130000 else "false"
    row = connection.execute(
        "SELECT e.extversion, n.nspname, n.nspname = ANY(current_schemas(true)),"
        " EXISTS (SELECT 1 FROM pg_catalog.pg_available_extensions a WHERE a.name = w.name),"
        " has_database_privilege(current_database(), 'CREATE'),"
        " (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = current_user) OR EXISTS (SELECT 1 FROM"
        f" pg_catalog.pg_available_extension_versions v WHERE v.name = w.name AND {is_trusted})"
        " FROM (SELECT %s::text AS name) w LEFT JOIN pg_catalog.pg_extension e ON e.extname = w.name"
        " LEFT JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace",
        [name],
    ).fetchone()
    version, schema, is_on_path, is_available, may_make, may_owner = row or (None, None, None, False, False, False)
    return Extension(
        name, version, None if is_on_path else schema, bool(is_available), bool(may_make and may_owner), bool(may_owner)
    )
