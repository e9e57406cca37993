r"""Runs a psql script that makes a target: planned first, and nothing in it is made twice.

On AnalyticDB the statements run as they are written. On PostgreSQL with pgvector `DISTRIBUTED BY` is dropped and an ann
index becomes an hnsw index; each step says so. Every statement commits by itself, as in psql.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import psycopg
from psycopg import errors as pg

from vector_assets.clients.postgres import Connection, Login, connect, said
from vector_assets.engine.errors import ConfigError, Place, PlanError
from vector_assets.sinks.adbpg_ann import to_hnsw
from vector_assets.sinks.adbpg_indexes import equal_index
from vector_assets.sinks.adbpg_script import Index, Statement, without_distribution
from vector_assets.sinks.adbpg_server import INSTALL, Extension, Server, look

MAINTENANCE = "postgres"
"""The database that every server has."""


@dataclass(frozen=True, slots=True)
class Step:
    """One statement as it runs in `database`, or why it does not: `notes` are sentences for people.

    `index` is set for a CREATE INDEX: whether an equal one is there is looked at again before it runs.
    """

    place: Place
    database: str
    sql: str
    action: Literal["run", "skip"] = "run"
    notes: tuple[str, ...] = ()
    index: Index | None = None


class TargetScript:
    """A script and the server it is for; close it when done."""

    def __init__(self, login: Login, statements: Sequence[Statement]) -> None:
        self._login = login
        self._statements = statements
        self._connections: dict[str, Connection] = {}
        self._notices: list[str] = []

    def plan(self) -> list[Step]:
        """What will be done, in order; nothing is changed.

        Raises:
            ConfigError: the server refuses the login, a statement cannot be translated, or a right is missing.
            PlanError: vectors are needed, and the server has neither FastANN nor pgvector.
            UnavailableError: the server cannot be reached.
        """
        return list(_Planner(self, self._first_database()).steps(self._statements))

    def run(self, steps: Sequence[Step]) -> Iterator[Step]:
        """Do it; yields every step when it is done, as what it turned out to be.

        Raises:
            ConfigError: the server refuses a statement; the message names its place in the script.
        """
        for number, step in enumerate(steps):
            try:
                yield self._done(step) if step.action == "run" else step
            except psycopg.Error as error:
                done = (
                    f"; the {number} steps before it are done, and a second run makes nothing twice" if number else ""
                )
                raise ConfigError(f"{said(error)}{_position(error, step)}{done}", step.place) from error

    def _done(self, step: Step) -> Step:
        connection = self.connection(step.database)
        self._notices.clear()
        if step.index is not None:
            try:
                twin = equal_index(connection, step.index)
            except pg.InsufficientPrivilege:
                # another run would make the index once more, and nobody would be told
                raise
            except psycopg.Error as error:
                # mostly the statement's own mistake, which the statement itself will bring to light
                twin, note = None, f"whether an equal index is there could not be told: {said(error)}"
                step = replace(step, notes=(*step.notes, note))
            if twin is not None:
                return replace(step, action="skip", notes=(*step.notes, f"index {twin} is the same"))
        connection.execute(step.sql.encode())
        return replace(step, notes=(*step.notes, *self._notices))

    def _first_database(self) -> str:
        """The login's database; the maintenance database while the script is still to make that one."""
        name = self._login.address.database
        try:
            self.connection(name)
        except ConfigError:
            if all(statement.database != name for statement in self._statements):
                raise
            self.connection(MAINTENANCE)
            return MAINTENANCE
        return name

    def connection(self, database: str) -> Connection:
        """The connection to a database, opened when first asked for."""
        found = self._connections.get(database)
        if found is None:
            login = replace(self._login, address=replace(self._login.address, database=database))
            found = self._connections[database] = connect(login, name="vector_assets target")
            found.add_notice_handler(lambda notice: self._notices.append(notice.message_primary or ""))
        return found

    def close(self) -> None:
        """Give back connections; idempotent."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()


def _position(error: psycopg.Error, step: Step) -> str:
    """The line of a statement of several lines that the server points at."""
    at = error.diag.statement_position
    line = step.sql.count("\n", 0, int(at) - 1) if at else 0
    return f" (line {line + 1} of the statement)" if line else ""


class _Planner:
    """Walks through a script with the databases there are and those it will have made by then."""

    def __init__(self, script: TargetScript, database: str) -> None:
        self._script = script
        self._database = database
        self._first = database
        rows = script.connection(database).execute("SELECT datname FROM pg_catalog.pg_database ORDER BY datname")
        self._known = [row[0] for row in rows]
        self._made: set[str] = set()
        self._servers: dict[str, Server] = {}
        self._extended: set[str] = set()

    def steps(self, statements: Sequence[Statement]) -> Iterator[Step]:
        """Every step; a `\\c` is none, it says where the others run."""
        for statement in statements:
            if statement.connect is not None:
                self._switch(statement.connect, statement.place)
            elif statement.database is not None:
                yield self._create_database(statement, statement.database)
            elif statement.extension in {"fastann", "vector"}:
                yield from self._create_extension(statement)
            else:
                if statement.needs_vectors:
                    yield from self._extend(statement.place)
                yield self._index(statement, statement.index) if statement.index else self._other(statement)

    def _switch(self, database: str, place: Place) -> None:
        if database not in {*self._known, *self._made}:
            raise ConfigError(f"there is no database {database}; there are: {', '.join(self._known)}", place)
        self._database = database

    def _create_database(self, statement: Statement, name: str) -> Step:
        step = Step(statement.place, self._database, statement.text)
        if name in {*self._known, *self._made}:
            return replace(step, action="skip", notes=(f"database {name} is there",))
        row = self._connection.execute(
            "SELECT rolsuper OR rolcreatedb, current_user FROM pg_catalog.pg_roles WHERE rolname = current_user"
        ).fetchone()
        if row is not None and not row[0]:
            raise ConfigError(
                f"user {row[1]} may not make databases: let an administrator make {name}, or run"
                f" ALTER ROLE {row[1]} CREATEDB",
                statement.place,
            )
        self._made.add(name)
        return step

    def _create_extension(self, statement: Statement) -> Iterator[Step]:
        """The script's own CREATE EXTENSION; FastANN's stands for pgvector where that is what there is."""
        server = self._server()
        if statement.extension == server.extension.name and not server.extension.is_installed:
            self._check_available(server.extension, statement.place)
            self._extended.add(self._database)
            yield Step(statement.place, self._database, statement.text)
        elif self._database in self._extended or server.extension.is_installed:
            note = f"extension {server.extension.name} is there"
            yield Step(statement.place, self._database, statement.text, "skip", (note,))
        else:
            yield from self._extend(statement.place)

    def _extend(self, place: Place) -> Iterator[Step]:
        """A step for the extension that vectors need, unless the database has it by then.

        Raises:
            PlanError: the server has none.
        """
        extension = self._server().extension
        if extension.is_installed or self._database in self._extended:
            return
        self._check_available(extension, place)
        self._extended.add(self._database)
        sql = f"CREATE EXTENSION IF NOT EXISTS {extension.name}"
        # not into a schema of the user's name, which nobody else has on the search path
        sql += "" if self._server().is_analyticdb else " WITH SCHEMA public"
        yield Step(place, self._database, sql, notes=("added: what follows needs vectors",))

    def _check_available(self, extension: Extension, place: Place) -> None:
        if not extension.is_available:
            raise PlanError(
                f"{place}: this needs vectors, and the server has neither FastANN nor pgvector: {INSTALL}. Nothing was"
                " made"
            )
        if not extension.may_create:
            raise PlanError(
                f"{place}: this needs extension {extension.name} in database {self._database}, which this user may not"
                f" make: let an administrator run CREATE EXTENSION {extension.name} there. Nothing was made"
            )

    def _index(self, statement: Statement, index: Index) -> Step:
        server = self._server()
        notes: tuple[str, ...] = ()
        if index.method == "ann" and not server.is_analyticdb:
            translated = to_hnsw(index, statement.place, server.pgvector.qualifier)
            index, notes = replace(index, rest=translated.rest), translated.notes
        sql = f"{index.head} {index.rest}" if notes else statement.text
        step = Step(statement.place, self._database, sql, notes=notes, index=index)
        twin = self._equal(index)
        return step if twin is None else replace(step, action="skip", notes=(*notes, f"index {twin} is the same"))

    def _equal(self, index: Index) -> str | None:
        """As `equal_index`, as far as the script has not been run yet."""
        if self._database in self._made:
            return None
        try:
            return equal_index(self._connection, index)
        except psycopg.Error:
            # about something that a statement before this one makes; if not, the run will say so
            return None

    def _other(self, statement: Statement) -> Step:
        if self._server().is_analyticdb:
            return Step(statement.place, self._database, statement.text)
        text, clause = without_distribution(statement.text)
        notes = (f"{clause} is dropped: PostgreSQL keeps a table in one place",) if clause else ()
        return Step(statement.place, self._database, text, notes=notes)

    @property
    def _connection(self) -> Connection:
        """The database's, or the first one while the database is still to be made."""
        return self._script.connection(self._first if self._database in self._made else self._database)

    def _server(self) -> Server:
        found = self._servers.get(self._database)
        if found is None:
            found = look(self._connection)
            found = self._servers[self._database] = found.anew() if self._database in self._made else found
        return found
