"""The local MySQL 8 says what it needs, and keeps its tables over stops and crashes."""

import platform

import pytest

from vector_assets.local import mysql8
from vector_assets.local.mysql8 import MySql8Service


def pytest_generate_tests(metafunc):
    if "mysql_kind" in metafunc.fixturenames:
        metafunc.parametrize("mysql_kind", ["mysql8"], indirect=True, scope="session")


def test_another_machine_is_told_that_it_cannot_run(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert MySql8Service.missing() == "runs on Linux and x86-64 only, this is Linux on aarch64"


def test_a_library_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(mysql8, "_has_library", lambda name: name != "libnuma.so.1")
    assert "libnuma.so.1" in str(MySql8Service.missing())


@pytest.mark.service
def test_tables_survive_a_stop_and_a_crash(own_mysql):
    server = own_mysql()
    assert server.sql("SELECT @@version")[0][0] == mysql8.VERSION
    # of its own: a server that starts empties it
    assert server.sql("SELECT @@tmpdir")[0][0] == str(server.service.state_dir / "tmp")
    server.sql("CREATE TABLE t (id INT PRIMARY KEY)")
    for is_crash in (False, True):
        server.sql(f"INSERT INTO t VALUES ({int(is_crash)})")
        server.restart(is_crash=is_crash)
    assert server.sql("SELECT id FROM t ORDER BY id") == [(0,), (1,)]
