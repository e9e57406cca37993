"""Stores: one meaning on SQLite and PostgreSQL, ledgers of older code, lost connections, and no password in sight."""

import hashlib
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from tests.engine.test_ledger import SPAN, WHERE, plan, take
from vector_assets.engine import env, store_postgres
from vector_assets.engine.core import Counts, State
from vector_assets.engine.errors import ConfigError, FatalError, UnavailableError, VectorAssetsError
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.store import is_there, open_store
from vector_assets.engine.store_schema import MIGRATIONS, SCHEMA_VERSION

RELEASED = {1: "f3b5", 2: "0230", 3: "65da", 4: "64ae", 5: "7d93", 6: "fbf2", 7: "7419"}
"""Beginnings of the hashes of steps that ledgers out there were made with."""


def old_file(path):
    """A ledger as version 1 made it, with one batch done and one sealed."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(MIGRATIONS[0])
        connection.execute("PRAGMA user_version=1")
        connection.execute(
            "INSERT INTO pipelines VALUES ('p', 't', 'earliest', '{\"a/0\":{\"offset\":0}}', '77', 1000)"
        )
        for seq, state in ((1, "DONE"), (2, "SEALED")):
            connection.execute(
                "INSERT INTO batches (pipeline, target, seq, kind, state, span, first_splits, hour, run_id, fence,"
                " code_version, schema_version, counts, planned_ms) VALUES ('p', 't', ?, 'records', ?, ?, '[]',"
                " '2026-01-01-00:00', 'r', 1, 'c', 1, '{\"records\":3,\"written\":3}', 1000)",
                (seq, state, SPAN.to_json()),
            )
        connection.execute("INSERT INTO positions VALUES ('p', 't', 'a/0', '{\"offset\":10}')")
        connection.execute("INSERT INTO leases VALUES ('p', 't', NULL, 'h', 1, '1', 6, 9)")


def test_a_step_that_was_released_is_never_changed():
    found = {n: hashlib.sha256(step.encode()).hexdigest()[:4] for n, step in enumerate(MIGRATIONS, start=1)}
    assert found | RELEASED == found


def test_a_ledger_of_version_1_goes_on_under_todays_code(tmp_path):
    old_file(tmp_path / "ledger.db")
    for _ in range(2):
        with closing(Ledger(tmp_path / "ledger.db")) as ledger:
            assert [batch.state for batch in ledger.batches("p")] == [State.DONE, State.SEALED]
            assert ledger.batch(*WHERE, 1).expired_ms is None
            assert ledger.totals(*WHERE) == (1, Counts(records=3, written=3))
            assert ledger.position(*WHERE) == {"a/0": {"offset": 10}}
            assert ledger.fold(*WHERE) is None
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        lease = take(ledger)
        assert lease.fence == 7
        assert plan(ledger, lease).seq == 3
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)


def test_ten_that_open_a_new_ledger_at_once_all_open_it(tmp_path):
    """SQLite answers one that enters WAL while another does with "locked", without waiting."""
    for attempt in range(10):
        path, barrier = tmp_path / f"{attempt}.db", threading.Barrier(10)

        def open_it(path=path, barrier=barrier):
            barrier.wait()
            with closing(Ledger(path)) as ledger:
                return ledger.batches("p")

        with ThreadPoolExecutor(10) as pool:
            assert [each.result() for each in [pool.submit(open_it) for _ in range(10)]] == [[]] * 10


def test_a_migration_that_fails_leaves_the_old_ledger(tmp_path, monkeypatch):
    old_file(tmp_path / "ledger.db")
    monkeypatch.setattr(
        "vector_assets.engine.store_schema.MIGRATIONS", (*MIGRATIONS, "CREATE TABLE folds (x INTEGER);")
    )
    with pytest.raises((ConfigError, FatalError), match="already exists"):
        Ledger(tmp_path / "ledger.db")
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'folds'").fetchone() == (0,)


@pytest.mark.service
def test_a_postgres_ledger_of_version_1_goes_on_under_todays_code(postgres_ledger, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("vector_assets.engine.store_schema.MIGRATIONS", MIGRATIONS[:1])
        patch.setattr("vector_assets.engine.store.SCHEMA_VERSION", 1)
        patch.setattr("vector_assets.engine.store_postgres.SCHEMA_VERSION", 1)
        with closing(open_store(postgres_ledger)) as store:
            store.change("INSERT INTO leases (pipeline, target, fence, beat) VALUES ('p', 't', 6, 9)")
    with closing(Ledger(postgres_ledger)) as ledger:
        assert plan(ledger, take(ledger)).seq == 1
        assert ledger.batch(*WHERE, 1).fence == 7
    with closing(open_store(postgres_ledger)) as store:
        store.change("UPDATE ledger SET version = 99")
    with pytest.raises(ConfigError, match=r"ledger postgresql://127\.0\.0\.1:.* has schema version 99"):
        open_store(postgres_ledger)


def test_a_ledger_is_there_once_it_was_opened(ledger_location):
    assert not is_there(ledger_location)
    assert not is_there(ledger_location)
    open_store(ledger_location).close()
    assert is_there(ledger_location)


def test_bytes_and_text_come_back_as_they_were(ledger_location):
    with closing(open_store(ledger_location)) as store:
        values = ("p 100%?", "t", 1, 0, "s", 5, 1, 1, b"\x00\xff", b"", "decode", "é%s", "c", "open", 1)
        store.change(
            'INSERT INTO dead_letters (pipeline, target, seq, ordinal, split, "offset", origin_seq, attempt, key,'
            f" value, stage, error, code_version, state, created_ms) VALUES ({', '.join('?' * len(values))})",
            values,
        )
        row = store.row("SELECT * FROM dead_letters")
        assert (row["id"], row["pipeline"], row["key"], row["value"], row["error"]) == (
            1, "p 100%?", b"\x00\xff", b"", "é%s"
        )  # fmt: skip
        assert store.damages() == []


def test_a_damaged_file_is_seen(tmp_path):
    with closing(open_store(tmp_path / "ledger.db")) as store:
        store.change_many(
            "INSERT INTO events (pipeline, at_ms, what, detail) VALUES (?, 1, 'x', ?)", [("p", "y" * 900)] * 100
        )
        store.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray((tmp_path / "ledger.db").read_bytes())
    data[-40_000:-36_000] = b"\xff" * 4000
    (tmp_path / "ledger.db").write_bytes(data)
    with closing(open_store(tmp_path / "ledger.db")) as store:
        assert store.damages()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://me:hunter2@host/db?conect=1", "unknown parameters of the URL: conect; known: schema, sslmode"),
        ("postgresql://me:hunter2@host:x/db", "port is not a number"),
        ("postgresql://me:hunter2@host", "not of the form"),
        ("postgresql://me:hunter2@one,two/db", "not of the form"),
        ("postgresql://me:hunter2@127.0.0.1:1/db", "refused"),
    ],
    ids=["parameter", "port", "no database", "two hosts", "nobody there"],
)
def test_a_url_that_is_wrong_is_refused_without_its_password(url, words):
    with pytest.raises(VectorAssetsError, match=words) as caught:
        open_store(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.service
def test_a_wrong_login_is_a_config_error_without_the_password(postgres_ledger):
    parts = urlsplit(postgres_ledger)
    wrong = postgres_ledger.replace(f":{parts.password}@", ":hunter2@")
    with pytest.raises(ConfigError, match="password authentication failed") as caught:
        open_store(wrong)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in str(caught.value.__cause__)
    missing = postgres_ledger.replace("/postgres?", "/nowhere?")
    with pytest.raises(ConfigError, match='database "nowhere" does not exist'):
        is_there(missing)


@pytest.fixture
def gate(_shared_server, proxy):
    return proxy(_shared_server.host, _shared_server.port)


@pytest.fixture
def remote(gate, postgres_ledger):
    """A ledger behind a proxy that tests cut."""
    parts = urlsplit(postgres_ledger)
    url = postgres_ledger.replace(f"@{parts.hostname}:{parts.port}/", f"@{gate.host}:{gate.port}/")
    with closing(Ledger(url)) as ledger:
        yield ledger


@pytest.mark.service
def test_a_connection_lost_between_transactions_is_replaced(remote, gate):
    lease = take(remote)
    for step in (lambda: plan(remote, lease), lambda: remote.batches("p"), lambda: remote.leases.beat(lease)):
        gate.drop_connections()
        step()
    assert [batch.seq for batch in remote.batches("p")] == [1]


@pytest.mark.service
def test_a_connection_lost_inside_a_transaction_is_an_outage_and_nothing_has_changed(remote, gate):
    lease = take(remote)

    def work():
        with remote.store.transaction():
            plan(remote, lease)
            gate.drop_connections()
            remote.record_event("p", "x", "y")

    with pytest.raises(UnavailableError, match=r"ledger postgresql://127\.0\.0\.1"):
        work()
    assert remote.batches("p") == []
    assert plan(remote, lease).seq == 1


@pytest.mark.service
def test_a_server_that_stays_away_is_an_outage(remote, gate, monkeypatch):
    monkeypatch.setattr(store_postgres, "_OUTAGE_SECONDS", 0.3)
    gate.stop()
    with pytest.raises(UnavailableError):
        remote.batches("p")
    gate.start()
    assert remote.batches("p") == []


@pytest.mark.service
def test_a_statement_that_failed_inside_a_transaction_cannot_be_committed(postgres_ledger):
    def work(ledger):
        with ledger.store.transaction():
            ledger.record_event("p", "x", "y")
            with pytest.raises(FatalError, match="22012"):
                ledger.store.rows("SELECT 1 / 0 AS x")

    with closing(Ledger(postgres_ledger)) as ledger:
        with pytest.raises(FatalError, match="rolled back"):
            work(ledger)
        assert ledger.events("p") == []


def test_a_ledgers_url_takes_its_password_from_a_secret(monkeypatch):
    monkeypatch.setenv(env.secret_variable("ledger_password"), "p@ss/word")
    monkeypatch.setenv("VECTOR_ASSETS_LEDGER", "postgresql://me:${secret_values.ledger_password}@host/db")
    assert env.ledger_location() == "postgresql://me:p%40ss%2Fword@host/db"
    assert store_postgres.Address.parse(env.ledger_location()).arguments["password"] == "p@ss/word"
    monkeypatch.setenv(env.secret_variable("ledger"), "postgresql://me:x@host/db")
    monkeypatch.setenv("VECTOR_ASSETS_LEDGER", "${secret_values.ledger}")
    assert env.ledger_location() == "postgresql://me:x@host/db"
    monkeypatch.delenv(env.secret_variable("ledger"))
    with pytest.raises(ConfigError, match="secret 'ledger' is not set"):
        env.ledger_location()
