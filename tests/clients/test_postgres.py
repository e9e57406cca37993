"""What the server's and the driver's errors mean to the engine, and a pool that finds its server again."""

import psycopg
import pyarrow as pa
import pytest
from psycopg import errors as pg
from pydantic import SecretStr

from vector_assets.clients import pgcopy
from vector_assets.clients import postgres as client
from vector_assets.clients.pgcopy import Wire
from vector_assets.clients.postgres import Address, Database, Login
from vector_assets.engine.errors import ConfigError, FatalError, PlanError, TransientError, UnavailableError


def login_of(server, database="postgres", **changes):
    address = Address(changes.pop("host", server.host), changes.pop("port", server.port), database)
    return Login(address, changes.get("user", server.user), SecretStr(changes.get("password", server.password)))


def failing(connection, statement, data=None):
    """The error of a statement, or of a COPY of `data`."""
    try:
        if data is None:
            connection.execute(statement)
        else:
            with connection.cursor().copy(statement) as copy:
                copy.write(data)
    except psycopg.Error as error:
        return error
    return pytest.fail("the server took it")


def use(database, before=lambda: None):
    """One statement over the pool, after something happened to the connection in use."""
    with database.connection() as connection:
        before()
        return connection.execute("SELECT 1").fetchone()


TEXTS = [pgcopy.encode(pa.array(values, pa.large_binary()), Wire("text")) for values in (["a", "b"], ["x", "yy"])]
TOO_LONG = pgcopy.HEADER + b"".join(pgcopy.chunks(pgcopy.copy_rows(TEXTS), 9)) + pgcopy.TRAILER


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (pg.AdminShutdown, UnavailableError),
        (pg.CannotConnectNow, UnavailableError),
        (pg.TooManyConnections, UnavailableError),
        (pg.LockNotAvailable, UnavailableError),
        (pg.ReadOnlySqlTransaction, UnavailableError),
        (pg.ConnectionFailure, UnavailableError),
        (pg.SerializationFailure, TransientError),
        (pg.DeadlockDetected, TransientError),
        (pg.DiskFull, TransientError),
        (pg.QueryCanceled, TransientError),
        (pg.InvalidPassword, ConfigError),
        (pg.InvalidCatalogName, ConfigError),
        (pg.InsufficientPrivilege, PlanError),
        (pg.UndefinedColumn, PlanError),
        (pg.SyntaxError, FatalError),
        (pg.UniqueViolation, FatalError),
        (psycopg.InterfaceError, UnavailableError),
        (psycopg.OperationalError, UnavailableError),
        (psycopg.ProgrammingError, FatalError),
    ],
    ids=lambda value: value.__name__,
)
def test_each_error_says_what_the_engine_should_do(error, kind):
    found = client.translation(error("it broke"), "adbpg: t")
    assert type(found) is kind
    assert str(found).startswith("adbpg: t: ")


@pytest.mark.parametrize(
    ("changes", "database", "kind"),
    [
        ({"password": "geheim"}, "postgres", ConfigError),
        ({"password": ""}, "postgres", ConfigError),
        ({"user": "nobody_here"}, "postgres", ConfigError),
        ({}, "no_such_database", ConfigError),
        ({"port": 1}, "postgres", UnavailableError),
        ({"host": "no-such-host.invalid"}, "postgres", UnavailableError),
    ],
    ids=["password", "no-password", "user", "database", "port", "host"],
)
@pytest.mark.service
def test_a_refused_connection_says_whose_fault_it_is(postgres, changes, database, kind):
    with pytest.raises(kind) as caught:
        client.connect(login_of(postgres, database, **changes))
    assert "geheim" not in str(caught.value)
    assert postgres.password not in str(caught.value)


@pytest.mark.service
def test_tls_that_the_server_does_not_speak_is_a_configuration_error(postgres):
    login = login_of(postgres)
    address = Address.parse(f"postgresql://{postgres.host}:{postgres.port}/postgres?sslmode=require")
    with pytest.raises(ConfigError, match="SSL"):
        client.connect(Login(address, login.user, login.password))


@pytest.mark.service
@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SELECT 'geheim'::int", '22P02 invalid input syntax for type integer: "..."'),
        ("SELECT '99999999999'::int", '22003 value "..." is out of range for type integer'),
        ("SELECT 'geheim'::jsonb", "22P02 invalid input syntax for type json"),
        ("SELECT 'ge\"he\"im'::date", '22007 invalid input syntax for type date: "..."'),
        ("DO $$ BEGIN RAISE 'geheim'; END $$", "P0001 refused by function inline_code_block"),
        ("SELECT 1/0", "22012 division by zero"),
    ],
)
def test_reasons_hold_no_values(postgres, statement, expected):
    with postgres.connect("postgres", autocommit=True) as connection:
        error = failing(connection, statement)
    assert client.refuses_row(error)
    assert client.refusal(error) == expected


@pytest.mark.service
def test_a_copy_tells_its_line_and_column(postgres):
    with postgres.connect("postgres") as connection:
        connection.execute('CREATE TEMP TABLE "t, 7" (a text, b varchar(1))')
        error = failing(connection, 'COPY "t, 7" FROM STDIN (FORMAT BINARY)', TOO_LONG)
    assert client.copy_line(error) == 2
    assert client.refusal(error) == "22001 column b: value too long for type character varying(1)"
    assert client.copy_line(pg.UniqueViolation("elsewhere")) is None


@pytest.mark.parametrize("state", ["22P03", "22P04", "42601", "57014", "08006"])
def test_what_is_no_rows_fault_refuses_no_row(state):
    assert not client.refuses_row(pg.lookup(state)("x"))


@pytest.mark.service
def test_a_pool_finds_a_restarted_server_at_once(own_postgres):
    server = own_postgres()
    database = Database(login_of(server))
    use(database)
    server.kill()
    with pytest.raises(UnavailableError):
        use(database)
    server.start()
    assert use(database) == (1,)
    database.close()


@pytest.mark.service
def test_a_connection_lost_in_mid_use_is_unavailable_and_replaced(postgres, proxy):
    gate = proxy(postgres.host, postgres.port)
    database = Database(login_of(postgres, port=gate.port))
    with pytest.raises(UnavailableError):
        use(database, before=gate.drop_connections)
    assert use(database) == (1,)
    gate.drop_connections()
    assert use(database) == (1,)
    database.close()


@pytest.mark.service
def test_a_pool_opens_no_more_connections_than_allowed(postgres):
    database = Database(login_of(postgres), max_connections=2, name="counted")
    with database.connection() as one, database.connection():
        count = one.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'counted'").fetchone()
    assert count == (2,)
    database.close()
    database.close()
    with database.connection() as again:
        again.execute("SELECT 1")
    database.close()


@pytest.mark.service
def test_sessions_give_up_idle_transactions_and_speak_utf8(postgres):
    with client.connect(login_of(postgres)) as connection:
        found = [
            connection.execute(f"SHOW {name}").fetchone()
            for name in ("idle_in_transaction_session_timeout", "client_encoding", "application_name")
        ]
    assert found == [("2min",), ("UTF8",), ("vector_assets",)]
