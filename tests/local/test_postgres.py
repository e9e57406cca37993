"""The embedded PostgreSQL is a real server, never root's, that survives restarts and kills."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from tests.fix_postgres import PostgresServer
from tests.fix_services import start
from tests.local.sockets import listening
from vector_assets.engine.errors import FatalError
from vector_assets.local import postgres as module
from vector_assets.local import process
from vector_assets.local.postgres import PostgresService

pytestmark = pytest.mark.service

OwnPostgres = Callable[..., PostgresServer]

_needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as somebody else")


def _value(server: PostgresServer, query: str, database: str = "postgres") -> object:
    with server.connect(database) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def test_the_version_is_the_one_of_the_server(postgres: PostgresServer) -> None:
    row = postgres.service.status()
    assert (row.name, row.state) == ("postgres", "up")
    assert row.version.startswith("18.")
    assert row.version == _value(postgres, "SHOW server_version")
    assert f"PostgreSQL {row.version}," in module.coordinates()


def test_a_new_database_has_pgvector_and_an_index_works(postgres: PostgresServer) -> None:
    database = postgres.create_database()
    with postgres.connect(database) as connection:
        connection.execute("CREATE TABLE t (id int, feature float4[])")
        connection.execute("INSERT INTO t VALUES (1, '{0,0}'), (2, '{1,1}'), (3, '{5,5}')")
        connection.execute("CREATE INDEX ON t USING hnsw ((feature::vector(2)) vector_l2_ops)")
        nearest = connection.execute("SELECT id FROM t ORDER BY feature::vector(2) <-> '[1,2]' LIMIT 1").fetchone()
    assert nearest == (2,)


def test_every_process_of_the_server_runs_as_somebody_else_than_root(postgres: PostgresServer) -> None:
    pid = postgres.service.status().pid
    assert pid is not None
    server = process.find(pid)
    assert server is not None
    members = [server, *server.descendants()]
    assert len(members) > 3
    owners = {Path(f"/proc/{member.pid}").stat().st_uid for member in members}
    assert len(owners) == 1
    assert 0 not in owners
    assert postgres.service.data_dir.stat().st_uid in owners


def test_it_listens_on_the_loopback_address_only(postgres: PostgresServer) -> None:
    pid = postgres.service.status().pid
    assert pid is not None
    assert listening(pid) == {("127.0.0.1", postgres.port)}
    assert _value(postgres, "SHOW unix_socket_directories") == ""


def test_the_password_is_wanted_and_kept_from_others(postgres: PostgresServer) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(host=postgres.host, port=postgres.port, user=postgres.user, password="wrong", dbname="postgres")
    file = postgres.service.state_dir / "password"
    assert file.stat().st_mode & 0o077 == 0
    assert postgres.service.data_dir.stat().st_mode & 0o077 == 0
    assert _value(postgres, "SHOW fsync") == "on"


def test_a_restart_keeps_rows_and_port_and_leaves_no_process(own_postgres: OwnPostgres) -> None:
    server = own_postgres({"max_connections": 17})
    service = server.service
    before = service.status()
    assert before.pid is not None
    assert _value(server, "SHOW max_connections") == "17"
    database = server.create_database()
    with server.connect(database) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS id")

    with server.connect(database):
        # a client that stays does not hold up the stop
        server.stop()
    assert process.find(before.pid) is None
    assert process.working_in(service.data_dir) == []
    assert service.status().state == "down"
    server.start()
    assert service.status().address == before.address
    assert _value(server, "SELECT id FROM t", database) == 1


def test_a_killed_server_is_down_and_starts_again_with_what_it_had_committed(own_postgres: OwnPostgres) -> None:
    server = own_postgres()
    with server.connect("postgres") as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS id")
    server.kill()
    assert (server.service.status().state, server.service.status().pid) == ("down", None)
    # the pid in the file a kill leaves may belong to somebody else by now
    (server.service.data_dir / "postmaster.pid").write_text(f"{os.getpid()}\n")
    server.start()
    assert _value(server, "SELECT id FROM t") == 1


def test_a_server_that_cannot_start_shows_the_end_of_its_log(own_postgres: OwnPostgres) -> None:
    with pytest.raises(FatalError, match=r"postgres: the server ended while starting; end of .*(\n.*)*max_connections"):
        own_postgres({"max_connections": "many"})


@_needs_root
def test_root_finds_a_place_that_the_user_of_the_server_can_reach(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    service = PostgresService(tmp_path / "postgres")
    try:
        start(service)
        assert not service.status().data_dir.is_relative_to(tmp_path)
        data = service.data_dir
        service.stop()
        start(service)
        assert service.data_dir == data
    finally:
        service.erase()
    assert not data.parent.exists()


@_needs_root
def test_root_copies_binaries_that_the_user_of_the_server_cannot_reach(
    tmp_path: Path, services_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = module._installation().parent
    hidden = tmp_path / "site-packages"
    hidden.mkdir(mode=0o700)
    shutil.copytree(package / "pginstall18", hidden / package.name / "pginstall18", symlinks=True)
    shutil.copytree(package.with_name(f"{package.name}.libs"), hidden / f"{package.name}.libs")
    monkeypatch.setattr(module, "_installation", lambda: hidden / package.name / "pginstall18")
    service = PostgresService(services_home / "hidden_binaries")
    try:
        start(service)
        pid = service.status().pid
        assert Path(f"/proc/{pid}/exe").readlink().is_relative_to(services_home)
    finally:
        service.erase()
