"""What MySQL 8 has and MariaDB does not: GTID sets with holes, binary JSON, its logins, and a binlog without GTIDs."""

import datetime as dt
import json
import random

import pytest

from tests.fix_mysql import KINDS, MySql
from tests.sources.mysql_model import rows_of, source_of
from tests.sources.reading import drain, read
from vector_assets.clients import mysql as client
from vector_assets.clients.mysql_payload import TransactionPayloadEvent
from vector_assets.engine.core import BatchLimit, RowKind
from vector_assets.engine.errors import ConfigError, PlanError, PositionLostError, TransientError

pytestmark = pytest.mark.service
COLUMNS = (("id", "int"), ("n", "int"), ("s", "string"))
LATEST = {"scan.startup.mode": "latest-offset"}


def pytest_generate_tests(metafunc):
    if "mysql_kind" in metafunc.fixturenames:
        metafunc.parametrize("mysql_kind", [name for name in KINDS if name == "mysql8"], indirect=True, scope="session")


@pytest.fixture
def table(mysql):
    mysql.sql("CREATE TABLE t (id INT PRIMARY KEY, n INT, s VARCHAR(50))")
    return mysql


@pytest.fixture
def opened():
    made = []

    def make(server, columns=COLUMNS, **options):
        made.append(source_of(server, "t", columns, **options))
        return made[-1]

    yield make
    for source in made:
        source.close()


def ids(tables):
    return [(row["_kind"], row["id"]) for table in tables for row in rows_of(table)]


def test_a_hole_in_the_gtids_that_is_filled_later_is_read(table, opened):
    """An automatic GTID takes the lowest free number, so it may be smaller than one that was read."""
    source = opened(table, **LATEST)
    here = source.start()
    uuid, _, last = table.gtid().splitlines()[-1].rpartition(":")
    ahead = int(last.rpartition("-")[2]) + 3
    table.sql(f"SET gtid_next = '{uuid}:{ahead}'")
    table.sql("INSERT INTO t VALUES (1, 1, 'ahead')")
    table.sql("SET gtid_next = AUTOMATIC")
    tables, here = drain(source, here)
    assert ids(tables) == [(0, 1)]
    assert f":{ahead}" in here["binlog"]["gtid"]
    for number in (2, 3, 4, 5):
        table.sql(f"INSERT INTO t VALUES ({number}, 1, 'later')")
        found, here = drain(source, here)
        assert ids(found) == [(0, number)]
    assert here["binlog"]["gtid"].rpartition(":")[2].endswith(f"-{ahead + 2}"), "the hole is closed"


def test_a_chunk_waits_for_transactions_that_are_on_their_way(table, opened, monkeypatch):
    """Rows are shown before their GTID is counted as executed; until then a session owns it."""
    monkeypatch.setattr(client, "_OWNED_SECONDS", 1)
    table.sql("INSERT INTO t VALUES (1, 1, 'a')")
    source = opened(table)
    here = source.start()
    uuid, _, last = table.gtid().splitlines()[-1].rpartition(":")
    owned = f"{uuid}:{int(last.rpartition('-')[2]) + 1}"
    other = table.connect(database=table.database)
    with other, other.cursor() as cursor:
        cursor.execute(f"SET gtid_next = '{owned}'")
        cursor.execute("BEGIN")
        with pytest.raises(TransientError, match=f"the transactions {owned} have been on their way for 1 s"):
            drain(source, here)
        cursor.execute("INSERT INTO t VALUES (2, 2, 'b')")
        cursor.execute("COMMIT")
    tables, _ = drain(source, here)
    assert ids(tables) == [(0, 1), (0, 2)]


def test_logins_and_settings_of_a_server_as_it_comes(own_mysql, opened):
    """TLS, caching_sha2_password with an empty cache, binlog_row_metadata = MINIMAL: all of them defaults."""
    server = own_mysql({"tls-version": "TLSv1.2,TLSv1.3", "binlog-row-metadata": "MINIMAL"})
    server.sql("CREATE TABLE t (id INT PRIMARY KEY, n INT, s VARCHAR(50))")
    plugin = server.sql("SELECT plugin FROM mysql.user WHERE user = %s", (server.service.user,))
    assert plugin == [("caching_sha2_password",)] or plugin == []
    assert server.sql("SELECT plugin FROM mysql.user WHERE user = 'local_admin'") == [("caching_sha2_password",)]
    assert server.sql("SHOW STATUS LIKE 'Ssl_cipher'")[0][1]
    with pytest.raises(ConfigError, match=r"binlog_row_metadata = MINIMAL \(want FULL\)"):
        opened(server, **LATEST).start()
    server.sql("SET GLOBAL binlog_row_metadata = 'FULL'")
    server.sql("SET GLOBAL binlog_row_image = 'MINIMAL'")
    with pytest.raises(ConfigError, match=r"binlog_row_image = MINIMAL \(want FULL\)"):
        opened(server, **LATEST).start()
    server.sql("SET GLOBAL binlog_row_image = 'FULL'")
    server.sql("INSERT INTO t VALUES (1, 1, 'a')")
    server.sql("FLUSH PRIVILEGES")
    source = opened(server)
    tables, here = drain(source, source.start())
    server.sql("DELETE FROM t")
    assert ids(tables) + ids(drain(source, here)[0]) == [(0, 1), (3, 1)]
    wrong = source_of(server, "t", COLUMNS, password="nope")
    with pytest.raises(ConfigError, match="Access denied") as refused:
        wrong.start()
    assert "nope" not in str(refused.value)


LEFT_OUT = {
    "binlog_row_value_options = 'PARTIAL_JSON'": "partial JSON",
    "binlog_row_image = 'MINIMAL'": "rows without all columns",
}


def test_what_a_session_leaves_out_of_the_binlog_is_no_silent_loss(own_mysql, opened):
    """On a server of its own: whoever reads this binlog from its beginning is stopped as well."""
    server = own_mysql()
    server.sql("CREATE TABLE t (id INT PRIMARY KEY, n INT, s VARCHAR(50), j JSON)")
    long = "a" * 50
    server.sql(f"""INSERT INTO t VALUES (1, 1, 'a', '{{"a": "{long}", "b": 1}}')""")
    for number, (setting, reason) in enumerate(LEFT_OUT.items()):
        source = opened(server, **LATEST)
        here = source.start()
        other = server.connect(database=server.database)
        with other, other.cursor() as cursor:
            cursor.execute(f"SET {setting}")
            cursor.execute(f"UPDATE t SET j = JSON_SET(j, '$.b', {number + 2})")
        with pytest.raises(PlanError, match=reason):
            drain(source, here)


@pytest.mark.parametrize("gtid_mode", ["ON", "OFF"])
def test_compressed_transactions_are_read_as_the_others_are(own_mysql, opened, gtid_mode):
    more = {} if gtid_mode == "ON" else {"gtid-mode": "OFF", "enforce-gtid-consistency": "OFF"}
    server = own_mysql({"binlog-transaction-compression": "ON", **more})
    server.sql("CREATE TABLE t (id INT PRIMARY KEY, n INT, s VARCHAR(50))")
    server.sql("CREATE TABLE other (id INT PRIMARY KEY, n INT, s VARCHAR(50))")
    server.sql("INSERT INTO t VALUES (0, 0, 'before')")
    source = opened(server)
    tables, here = drain(source, source.start())
    assert [row["id"] for table in tables for row in rows_of(table)] == [0]
    rng = random.Random(3)
    with server.connect(database=server.database) as other, other.cursor() as cursor:
        for number in range(40):
            cursor.execute(f"SET binlog_transaction_compression = {rng.choice(['ON', 'ON', 'OFF'])}")
            other.begin()
            for _ in range(rng.randint(1, 60)):
                which = rng.choice(["t", "t", "other"])
                cursor.execute(f"REPLACE INTO {which} VALUES ({rng.randrange(300)}, {number}, '{'x' * 40}')")
            cursor.execute(f"UPDATE t SET n = n + 1000 WHERE id % 5 = {number % 5}")
            cursor.execute(f"DELETE FROM t WHERE id % 17 = {number % 17}")
            other.commit()
    files = [row[0] for row in server.sql("SHOW BINARY LOGS")]
    kinds = {row[2] for file in files for row in server.sql(f"SHOW BINLOG EVENTS IN '{file}'")}
    assert "Transaction_payload" in kinds
    assert "Write_rows" in kinds
    held = {0: (0, 0, "before")}
    for most in (BatchLimit(37, 1 << 40), BatchLimit(1 << 40, 1 << 40)):
        # a batch that ends in the middle of one is gone on with by a source that knows only the place
        content, at = dict(held), dict(here)
        while (span := source.plan(at, most)) is not None:
            table, span = read(source, span, most)
            at |= span.end
            for row in rows_of(table):
                if row["_kind"] in (RowKind.UPDATE_BEFORE, RowKind.DELETE):
                    assert content.pop(row["id"]) == (row["id"], row["n"], row["s"])
                else:
                    content[row["id"]] = (row["id"], row["n"], row["s"])
            if rng.random() < 0.3:
                source = opened(server)
        assert sorted(content.values()) == sorted(server.sql("SELECT * FROM t"))
    server.sql("ALTER TABLE t DROP COLUMN s")
    server.sql("INSERT INTO t VALUES (1000, 1)")
    with pytest.raises(PlanError, match="column s"):
        drain(source, at)


class _Payload(TransactionPayloadEvent):
    def __init__(self, body):
        self._body = body


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "ends in its header"),
        (b"\x02\x01", "ends in its header"),
        (b"\x02\x01\x07\x00", r"not known \(7\); known: zstd"),
        (b"\x02\x01\x00\x03\x01\x50\x00garbage", "is damaged"),
        (b"\x02\x01\xfc\xff\x00\x00" + bytes(9) + b"\xff\x00\x00\x00" + bytes(6), "longer than the whole"),
    ],
    ids=["empty", "cut", "codec", "damaged", "event too long"],
)
def test_a_damaged_transaction_is_named(body, reason):
    with pytest.raises(PlanError, match=reason):
        list(_Payload(body).events(frozenset()))


def test_without_gtids_positions_are_files(own_mysql, opened):
    server = own_mysql({"gtid-mode": "OFF", "enforce-gtid-consistency": "OFF"})
    server.sql("CREATE TABLE t (id INT PRIMARY KEY, n INT, s VARCHAR(50))")
    server.sql("INSERT INTO t VALUES (1, 1, 'a'), (2, 2, 'b'), (7, 7, 'g')")
    source = opened(server, **{"scan.incremental.snapshot.chunk.size": "2"})
    tables, here = drain(source, source.start())
    assert ids(tables) == [(0, 1), (0, 2), (0, 7)]
    assert "gtid" not in here["binlog"]
    server.sql("UPDATE t SET n = 9 WHERE id = 1")
    server.sql("FLUSH BINARY LOGS")
    server.sql("DELETE FROM t WHERE id = 2")
    server.restart(is_crash=True)
    source = opened(server)
    tables, after = drain(source, here)
    assert ids(tables) == [(1, 1), (2, 1), (3, 2)]
    server.sql("INSERT INTO t VALUES (3, 3, 'c')")
    assert ids(drain(source, after)[0]) == [(0, 3)]
    server.sql(f"PURGE BINARY LOGS TO '{server.sql('SHOW MASTER STATUS')[0][0]}'")
    with pytest.raises(PositionLostError, match=r"^TRUNCATED: .*there is no binlog"):
        source.plan(here, limit())


def limit():
    from vector_assets.engine.core import BatchLimit

    return BatchLimit(100, 1 << 30)


def test_the_first_transaction_of_a_new_server_is_read(own_mysql, opened):
    server = own_mysql()
    server.sql("RESET MASTER")
    server.sql("SET sql_log_bin = 0")
    server.sql("CREATE TABLE t (id INT PRIMARY KEY, n INT, s VARCHAR(50))")
    server.sql("SET sql_log_bin = 1")
    source = opened(server, **LATEST)
    here = source.start()
    assert here["binlog"]["gtid"] == ""
    server.sql("INSERT INTO t VALUES (1, 1, 'a')")
    tables, here = drain(source, here)
    assert ids(tables) == [(0, 1)]
    assert here["binlog"]["gtid"] == server.gtid()


DOCUMENTS = [
    "null", "true", '"text"', "[]", "{}", "0", "-1", "32767", "-32769", "65535", "2147483648", "-9223372036854775808",
    "18446744073709551615", "1.0", "-0.0", "0.1", "1e15", "1e14", "1.5e-5", "1.5e-15", "1.5e-16", "5e-324",
    "1.7976931348623157e308", '{"a": [1, {"b": null}], "ü": "é\\n\\t\\u0001\\"\\\\/"}',
    '{"long": "' + "x" * 70000 + '"}', "[" + ", ".join(str(n * 7919) for n in range(9000)) + "]",
]  # fmt: skip
EXPRESSIONS = [
    "JSON_ARRAY(CAST('2024-01-31' AS DATE), TIMESTAMP('2024-01-02 03:04:05.000006'), CAST('-11:22:33.5' AS TIME(3)))",
    "JSON_ARRAY(CAST(1.50 AS DECIMAL(10, 2)), CAST(-0.001 AS DECIMAL(10, 3)), CAST(1234567890123 AS DECIMAL(30)))",
    "JSON_OBJECT('b', x'00ff', 'i', b'101', 'k', CAST('x' AS BINARY), 'y', 2024)",
    "JSON_ARRAY(CAST(-99999999999.123456789012 AS DECIMAL(30, 12)), CAST(0 AS DECIMAL(5, 5)), 1e0, 1 = 1)",
]


def test_json_of_the_binlog_is_what_the_server_says_itself(mysql, opened):
    """Every document is read from the binlog and as the text that the server gives."""
    mysql.sql("SET time_zone = '+00:00'")
    mysql.sql("CREATE TABLE t (id INT PRIMARY KEY, j JSON)")
    source = opened(mysql, (("id", "int"), ("j", "string")), **LATEST)
    here = source.start()
    rng = random.Random(5)
    made = [json.dumps(document(rng, 3)) for _ in range(60)]
    mysql.sql("INSERT INTO t VALUES (%s, %s)", *enumerate([*DOCUMENTS, *made]))
    for number, text in enumerate(EXPRESSIONS, 1000):
        mysql.sql(f"INSERT INTO t VALUES ({number}, {text})")
    tables, _ = drain(source, here)
    found = {row["id"]: row["j"] for table in tables for row in rows_of(table)}
    wanted = dict(mysql.sql("SELECT id, CAST(j AS CHAR) FROM t"))
    assert len(wanted) == len(DOCUMENTS) + 60 + len(EXPRESSIONS)
    for number, text in wanted.items():
        assert found[number][:2000] == text[:2000], number
        assert found[number] == text


def document(rng, depth):
    """A random document; its doubles have at most 12 digits, which the server writes without rounding them."""
    what = rng.randrange(9 if depth else 6)
    if what >= 7:
        return {
            f"k{rng.randrange(1000)}{'ä' * rng.randrange(3)}": document(rng, depth - 1) for _ in range(rng.randrange(5))
        }
    if what == 6:
        return [document(rng, depth - 1) for _ in range(rng.randrange(5))]
    return [
        None, rng.random() < 0.5, rng.randrange(-(2 ** rng.randrange(1, 63)), 2 ** rng.randrange(1, 64)),
        float(f"{rng.uniform(-10, 10):.9g}e{rng.randrange(-30, 30)}"),
        "".join(map(chr, rng.choices(range(1, 900), k=9))), str(dt.date(2024, 1, rng.randrange(1, 29))),
    ][what]  # fmt: skip


def test_a_server_that_is_down_is_named_and_read_on_when_it_is_back(own_mysql, opened):
    from vector_assets.engine.errors import UnavailableError

    server: MySql = own_mysql()
    server.sql("CREATE TABLE t (id INT PRIMARY KEY, n INT, s VARCHAR(50))")
    source = opened(server, **LATEST)
    here = source.start()
    server.sql("INSERT INTO t VALUES (1, 1, 'a')")
    server.forget()
    server.service.kill()
    with pytest.raises(UnavailableError, match=f"mysql 127.0.0.1:{server.service.port}"):
        drain(source, here)
    server.service.start()
    assert ids(drain(source, here)[0]) == [(0, 1)]
