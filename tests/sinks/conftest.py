"""A table of cars in a real PostgreSQL, and sinks that write it."""

from collections.abc import Callable, Iterator

import pyarrow as pa
import pytest

from tests.fix_postgres import PostgresServer
from tests.sinks.contract import SCHEMA
from tests.sinks.maxcompute_target import make_lot  # noqa: F401  (fixture)
from tests.sinks.milvus_target import cars_collection, make_target  # noqa: F401  (fixtures)
from tests.sinks.opensearch_target import cars_index, make_index  # noqa: F401  (fixtures)
from vector_assets.sinks.adbpg import AdbPgSink
from vector_assets.sinks.adbpg_options import AdbPgOptions

CAR_INFO = "CREATE TABLE car_info (id bigint PRIMARY KEY, color varchar(10), feature float4[])"


class Cars:
    """A database with one table, `car_info` unless told otherwise."""

    def __init__(self, server: PostgresServer, *, vector: bool) -> None:
        self.server = server
        self.database = server.create_database(vector=vector)
        self.admin = server.connect(self.database, autocommit=True)
        # the local server's user and the schema of our token tables have one name, which would come first
        self.admin.execute("SET search_path = public")
        self.sinks: list[AdbPgSink] = []
        self.host, self.port = server.host, server.port

    def execute(self, statement: str, parameters: object = None):
        """Run a statement as the superuser."""
        return self.admin.execute(statement, parameters)

    def rows(self, statement: str = "SELECT id, color, feature FROM car_info ORDER BY id") -> list[tuple[object, ...]]:
        return self.execute(statement).fetchall()

    def value(self, statement: str) -> object:
        return self.rows(statement)[0][0]

    def options(self, **options: object) -> AdbPgOptions:
        """Options for the table; dots in names are written as two underscores."""
        given = {
            "connector": "adbpg-nightly-1.13",
            "url": f"jdbc:postgresql://{self.host}:{self.port}/{self.database}",
            "tablename": "car_info",
            "username": self.server.user,
            "password": self.server.password,
            **{name.replace("__", "."): str(value) for name, value in options.items()},
        }
        return AdbPgOptions.parse(given, "connector adbpg")

    def sink(self, schema: pa.Schema | None = SCHEMA, key: tuple[str, ...] = (), **options: object) -> AdbPgSink:
        """A prepared sink (not prepared without a schema), closed after the test."""
        sink = AdbPgSink(self.options(**options), None, "cars")
        self.sinks.append(sink)
        if schema is not None:
            sink.prepare(schema, key)
        return sink

    def close(self) -> None:
        for sink in self.sinks:
            sink.close()
        self.admin.close()


@pytest.fixture
def make_cars(postgres: PostgresServer) -> Iterator[Callable[..., Cars]]:
    """Makes databases with a table of cars of the given DDL, pgvector in them if asked for."""
    made: list[Cars] = []

    def make(ddl: str = CAR_INFO, *, vector: bool = False) -> Cars:
        cars = Cars(postgres, vector=vector)
        made.append(cars)
        if ddl:
            cars.execute(ddl)
        return cars

    yield make
    for cars in made:
        cars.close()


@pytest.fixture
def cars(make_cars: Callable[..., Cars]) -> Cars:
    return make_cars()
