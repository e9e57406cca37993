"""A real PostgreSQL for tests: `postgres` shared by the session, `own_postgres` to be stopped and killed."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql

from tests.fix_services import start
from vector_assets.local.postgres import PostgresService, coordinates

_numbers = itertools.count()

Connection = psycopg.Connection[tuple[object, ...]]


class PostgresServer:
    """One server and what tests do with it."""

    def __init__(self, service: PostgresService) -> None:
        self.service = service
        self._databases: set[str] = set()

    @property
    def host(self) -> str:
        return "127.0.0.1"

    @property
    def port(self) -> int:
        return self.service.port

    @property
    def user(self) -> str:
        return self.service.user

    @property
    def password(self) -> str:
        return self.service.password

    def create_database(self, *, vector: bool = True) -> str:
        """A new database under a fresh name, with pgvector in it unless told otherwise."""
        name = f"database_{next(_numbers)}"
        with self.connect("postgres", autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        self._databases.add(name)
        if vector:
            with self.connect(name, autocommit=True) as connection:
                connection.execute("CREATE EXTENSION vector")
        return name

    def connect(self, database: str, *, autocommit: bool = False) -> Connection:
        """A connection of the superuser."""
        return psycopg.connect(self.dsn(database), autocommit=autocommit)

    def dsn(self, database: str, host: str | None = None, port: int | None = None) -> str:
        """A connection string with the password in it, by way of a proxy if `host` and `port` say so."""
        return psycopg.conninfo.make_conninfo(
            host=host or self.host, port=port or self.port, user=self.user, password=self.password, dbname=database
        )

    def jdbc_url(self, database: str, host: str | None = None, port: int | None = None) -> str:
        """The address as Flink scripts write it."""
        return f"jdbc:postgresql://{host or self.host}:{port or self.port}/{database}"

    def stop(self) -> None:
        """Stop the server; its data and port stay."""
        self.service.stop()

    def kill(self) -> None:
        """End the server as a crash would."""
        self.service.kill()

    def start(self) -> None:
        """Start the server again."""
        self.service.start()

    def forget_databases(self) -> None:
        """Drop every database that was created here."""
        with self.connect("postgres", autocommit=True) as connection:
            for name in self._databases:
                connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        self._databases.clear()


def pytest_report_header() -> str:
    return f"service postgres: {PostgresService.missing() or coordinates()}"


@pytest.fixture(scope="session")
def postgres_service(services_home: Path) -> Iterator[PostgresService]:
    service = PostgresService(services_home / "postgres")
    start(service)
    yield service
    service.erase()


@pytest.fixture(scope="session")
def _shared_server(postgres_service: PostgresService) -> PostgresServer:
    return PostgresServer(postgres_service)


@pytest.fixture
def postgres(_shared_server: PostgresServer) -> Iterator[PostgresServer]:
    """The session's server; databases made through it are dropped after the test. Do not stop it."""
    yield _shared_server
    _shared_server.forget_databases()


@pytest.fixture
def postgres_ledger(_shared_server: PostgresServer) -> Iterator[str]:
    """URL of a ledger that nobody made yet, in a schema of its own."""
    schema, server = f"ledger_{next(_numbers)}", _shared_server
    login = f"{quote(server.user, safe='')}:{quote(server.password, safe='')}"
    yield f"postgresql://{login}@{server.host}:{server.port}/postgres?schema={schema}"
    with server.connect("postgres", autocommit=True) as connection:
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))


@pytest.fixture
def own_postgres(services_home: Path) -> Iterator[Callable[..., PostgresServer]]:
    """Makes throwaway servers: `own_postgres(settings)`."""
    services: list[PostgresService] = []

    def make(settings: Mapping[str, object] | None = None) -> PostgresServer:
        service = PostgresService(services_home / f"own_postgres_{next(_numbers)}", settings)
        services.append(service)
        start(service)
        return PostgresServer(service)

    yield make
    for service in services:
        service.erase()
