"""A real MariaDB for tests: `mysql` shared by the session, `own_mysql` to be stopped, killed and purged.

A module that says `pytest_generate_tests = on_both_servers` has its tests run on a real MySQL 8 as well.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.fix_services import start
from vector_assets.local import mysql8
from vector_assets.local.mysql import MySqlService, coordinates
from vector_assets.local.mysql8 import MySql8Service

KINDS: Mapping[str, type[MySqlService]] = {"mariadb": MySqlService, "mysql8": MySql8Service}
_FAST: Mapping[str, object] = {"innodb-flush-log-at-trx-commit": 0, "sync-binlog": 0}
_numbers = itertools.count()


class MySql:
    """One server and what tests do with it, through PyMySQL; each test has a database of its own."""

    def __init__(self, service: MySqlService) -> None:
        self.service = service
        self.database = f"db_{next(_numbers)}"
        self._connection: Any = None
        self.sql(f"CREATE DATABASE {self.database}")
        self.connection.select_db(self.database)

    @property
    def is_mariadb(self) -> bool:
        """False of MySQL 8."""
        return not isinstance(self.service, MySql8Service)

    def gtid(self) -> str:
        """The transactions so far, as the server spells them."""
        variable = "@@gtid_binlog_pos" if self.is_mariadb else "@@GLOBAL.gtid_executed"
        return str(self.sql(f"SELECT {variable}")[0][0])

    @property
    def connection(self) -> Any:
        """The connection of `sql`, made anew after the server was stopped."""
        if self._connection is None:
            self._connection = self.connect()
        return self._connection

    def connect(self, **more: Any) -> Any:
        """A connection of its own."""
        import pymysql

        return pymysql.connect(
            host="127.0.0.1", port=self.service.port, user=self.service.user, password=self.service.password,
            autocommit=True, charset="utf8mb4", **more,
        )  # fmt: skip

    def sql(self, text: str, *rows: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Run one statement, once or for many rows of parameters; its rows."""
        with self.connection.cursor() as cursor:
            if rows:
                cursor.executemany(text, rows)
            else:
                cursor.execute(text)
            return list(cursor.fetchall())

    def forget(self) -> None:
        """Close the connection: the server is stopped, or its database is dropped."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def restart(self, *, is_crash: bool = False) -> None:
        """Stop the server (or kill it) and start it again."""
        self.forget()
        if is_crash:
            self.service.kill()
        else:
            self.service.stop()
        self.service.start()
        self.connection.select_db(self.database)

    def options(self, table: str, **more: str) -> dict[str, str]:
        """What a `mysql-cdc` table in this database says."""
        return {
            "connector": "mysql-cdc",
            "hostname": "127.0.0.1",
            "port": str(self.service.port),
            "username": self.service.user,
            "password": self.service.password,
            "database-name": self.database,
            "table-name": table,
            **more,
        }


def pytest_report_header() -> list[str]:
    return [
        f"service mysql: {MySqlService.missing() or coordinates()}",
        f"service mysql8: {MySql8Service.missing() or mysql8.coordinates()}",
    ]


def on_both_servers(metafunc: pytest.Metafunc) -> None:
    """The hook of a module whose tests hold on both servers."""
    if "mysql_kind" in metafunc.fixturenames:
        metafunc.parametrize("mysql_kind", KINDS, indirect=True, scope="session")


@pytest.fixture(scope="session")
def mysql_kind(request: pytest.FixtureRequest) -> str:
    """Which server: MariaDB unless the module asks for both."""
    return str(getattr(request, "param", "mariadb"))


@pytest.fixture(scope="session")
def mysql_service(mysql_kind: str, services_home: Path) -> Iterator[MySqlService]:
    service = KINDS[mysql_kind](services_home / f"{mysql_kind}_of_session", _FAST)
    start(service)
    yield service
    service.erase()


@pytest.fixture
def mysql(mysql_service: MySqlService) -> Iterator[MySql]:
    """A database of the session's server, dropped after the test. Do not stop the server or purge its binlogs."""
    server = MySql(mysql_service)
    yield server
    server.sql(f"DROP DATABASE {server.database}")
    server.forget()


OwnMySql = Callable[..., MySql]


@pytest.fixture
def own_mysql(mysql_kind: str, services_home: Path) -> Iterator[OwnMySql]:
    """Makes throwaway servers: `own_mysql({"setting": value})`."""
    made: list[MySql] = []

    def make(settings: Mapping[str, object] | None = None) -> MySql:
        service = KINDS[mysql_kind](services_home / f"{mysql_kind}_{next(_numbers)}", settings)
        start(service)
        made.append(MySql(service))
        return made[-1]

    yield make
    for server in made:
        server.forget()
        server.service.erase()
