"""The MySQL source: modes, types, DDL, places that are lost, and two phases that are one line."""

import datetime as dt
import decimal
import random
import ssl
import threading
import time
from dataclasses import replace

import pymysql
import pytest

from tests.fix_mysql import on_both_servers
from tests.sources.mysql_model import apply, batches, change, rows_of, source_of, xa
from tests.sources.reading import NO_LIMIT, drain, read
from vector_assets.clients.mysql import MySql
from vector_assets.clients.mysql_gtid import Gtids
from vector_assets.engine.core import BatchLimit
from vector_assets.engine.errors import ConfigError, FatalError, PlanError, PositionLostError
from vector_assets.engine.schema import LogicalType
from vector_assets.sources.mysql_metadata import METADATA
from vector_assets.sources.mysql_options import STARTUP_MODES, MySqlCdcOptions

pytestmark = pytest.mark.service
pytest_generate_tests = on_both_servers

COLUMNS = (("id", "int"), ("n", "int"), ("s", "string"))
KEYS = {
    "int": ("id INT PRIMARY KEY", str),
    "string": ("id VARCHAR(20) COLLATE utf8mb4_general_ci PRIMARY KEY", lambda n: f"'{'aBcÄ'[n % 4]}{n * 7919 % 997}'"),
}


@pytest.fixture
def table(mysql):
    mysql.sql("CREATE TABLE t (id INT PRIMARY KEY, n INT, s VARCHAR(50))")
    return mysql


@pytest.fixture
def opened():
    """Makes sources; all are closed after the test."""
    made = []

    def make(mysql, table="t", columns=COLUMNS, **options):
        made.append(source_of(mysql, table, columns, **{name.replace("_", "."): v for name, v in options.items()}))
        return made[-1]

    yield make
    for source in made:
        source.close()


def mode(name, **more):
    return {"scan.startup.mode": name, **{f"scan.startup.{key}": value for key, value in more.items()}}


def kinds_and_ids(tables):
    return [(row["_kind"], row["id"]) for table in tables for row in rows_of(table)]


@pytest.mark.parametrize("kind", KEYS)
def test_concurrent_writers_and_chunks_come_to_the_table(mysql, opened, kind):  # noqa: C901
    """Whatever is written while chunks are read, each change is seen once and each before-image fits.

    A span that is read again (as after a crash) gives as many records, the same end, and leads to the same rows.
    """
    ddl, ids = KEYS[kind]
    mysql.sql(f"CREATE TABLE t ({ddl}, n INT, s VARCHAR(50))")
    for n in range(0, 400, 2):
        mysql.sql(f"INSERT IGNORE INTO t VALUES ({ids(n)}, {n}, 'x')")
    columns = (("id", kind), *COLUMNS[1:])
    source = source_of(mysql, "t", columns, **{"scan.incremental.snapshot.chunk.size": "23"})
    here, stop = dict(source.start()), threading.Event()

    def write(seed):
        rng = random.Random(seed)
        with mysql.connect(database=mysql.database) as connection, connection.cursor() as cursor:
            while not stop.is_set():
                try:
                    change(rng, cursor.execute, "t", ids, 400)
                except pymysql.OperationalError:
                    cursor.execute("ROLLBACK")

    writers = [threading.Thread(target=write, args=(seed,)) for seed in (1, 2)]
    for writer in writers:
        writer.start()
    state: dict = {}
    chance, limit, count, deadline = random.Random(7), BatchLimit(40, 1 << 30), 0, time.monotonic() + 240
    try:
        while count < 25:
            assert time.monotonic() < deadline
            for records, span in batches(source, here, limit):
                before, count = dict(state), count + 1
                apply(state, rows_of(records), ["id"])
                here |= span.end
                if chance.random() < 0.25:
                    again, same = read(source, span, NO_LIMIT)
                    assert (same, again.num_rows) == (span, records.num_rows)
                    apply(before, rows_of(again), ["id"])
                    assert before == state
                if count >= 25:
                    break
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    for records, _ in batches(source, here, limit):
        apply(state, rows_of(records), ["id"])
    assert state == {(i,): {"id": i, "n": n, "s": s} for i, n, s in mysql.sql("SELECT * FROM t")}
    source.close()


def test_every_change_has_its_kind_and_its_before_image(table, opened):
    source = opened(table, **mode("latest-offset"))
    start = source.start()
    table.sql("INSERT INTO t VALUES (1, 1, 'a'), (2, 2, 'b')")
    table.sql("UPDATE t SET n = n + 10")
    table.sql("UPDATE t SET id = 5 WHERE id = 1")
    table.sql("DELETE FROM t WHERE id = 2")
    tables, end = drain(source, start)
    rows = [row for found in tables for row in rows_of(found)]
    assert [(row["_kind"], row["id"], row["n"]) for row in rows] == [
        (0, 1, 1), (0, 2, 2), (1, 1, 1), (2, 1, 11), (1, 2, 2), (2, 2, 12), (1, 1, 11), (2, 5, 11), (3, 2, 12),
    ]  # fmt: skip
    assert source.lag(start, end) == len(rows)
    assert source.lag(end, source.frontier()) == 0
    assert source.plan(end, NO_LIMIT) is None


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_a_transaction_may_be_torn_but_an_update_never_is(table, rows, opened):
    source = opened(table, **mode("latest-offset"))
    start = source.start()
    table.sql("INSERT INTO t VALUES " + ", ".join(f"({n}, 0, 'x')" for n in range(20)))
    table.sql("UPDATE t SET n = 1")
    limit = BatchLimit(rows, 1 << 30)
    tables, end = drain(source, start, limit)
    state: dict = {}
    for found in tables:
        assert 0 < found.num_rows <= rows + 1
        apply(state, rows_of(found), ["id"])
    assert len(state) == 20
    assert source.lag(start, end) == 60


def test_statements_within_a_transaction_do_not_end_it(table, mysql, opened):
    """A statement of another database is no end, nor is XA START: rows after it would be passed over for ever."""
    source = opened(table, **mode("latest-offset"))
    start = source.start()
    other = f"{mysql.database}_other"
    table.sql(f"CREATE DATABASE {other}")
    with mysql.connect(database=other) as connection, connection.cursor() as cursor:
        for text in (
            "CREATE TABLE x (id INT PRIMARY KEY)",
            "SET binlog_format = 'MIXED'",
            "BEGIN",
            "INSERT INTO x VALUES (1)",
            f"INSERT INTO {mysql.database}.t VALUES (1, 1, UUID())",
            "COMMIT",
        ):
            cursor.execute(text)
        found, here = drain(source, start)
        assert kinds_and_ids(found) == [(0, 1)]
        for text in (
            "SET binlog_format = 'ROW'",
            "XA START 'x'",
            f"INSERT INTO {mysql.database}.t VALUES (2, 1, 'a')",
            "XA END 'x'",
            "XA PREPARE 'x'",
        ):
            cursor.execute(text)
        found, here = drain(source, here)
        cursor.execute("XA COMMIT 'x'")
        more, here = drain(source, here)
        assert kinds_and_ids([*found, *more]) == [(0, 2)]
        cursor.execute(f"DROP DATABASE {other}")
    table.sql("INSERT INTO t VALUES (3, 1, 'a')")
    assert kinds_and_ids(drain(source, here)[0]) == [(0, 3)]


def test_what_a_server_counts_before_it_sends_it_is_read_later(table, opened, monkeypatch):
    """MariaDB counts a transaction when it is written, and sends it when the binlog is flushed."""
    table.sql("INSERT INTO t VALUES " + ", ".join(f"({n}, 0, 'x')" for n in range(6)))
    source = opened(table, **mode("initial"), scan_incremental_snapshot_chunk_size="2")
    span = source.plan(source.start(), NO_LIMIT)
    first, span = read(source, span)
    head, dash, number = table.gtid().rpartition("-")
    real = MySql.binlog

    def ahead(server):
        binlog = real(server)
        return replace(binlog, last=Gtids.of(f"{head}{dash}{int(number) + 1}"))

    if not dash:
        head, _, number = number.rpartition(":")
        dash = ":1-"
    with monkeypatch.context() as patched:
        patched.setattr(MySql, "binlog", ahead)
        second, span = read(source, source.plan(span.end, NO_LIMIT))
    table.sql("UPDATE t SET n = 1 WHERE id IN (0, 5)")
    rest, _ = drain(source, span.end)
    state: dict = {}
    for found in (first, second, *rest):
        apply(state, rows_of(found), ["id"])
    assert {key: row["n"] for (key,), row in state.items()} == {0: 1, 1: 0, 2: 0, 3: 0, 4: 0, 5: 1}


def test_a_batch_stops_at_its_bytes_but_makes_progress(table, opened):
    source = opened(table, **mode("initial"))
    start = source.start()
    for n in range(20):
        table.sql(f"INSERT INTO t VALUES ({n}, 0, REPEAT('x', 50))")
    found, end = drain(
        opened(table, **mode("earliest-offset")), {"binlog": {**start["binlog"], "table": None}}, BatchLimit(99, 1)
    )
    assert [each.num_rows for each in found] == [1] * 20
    assert source.lag(start, end) == 20


TYPES = {
    "ti TINYINT": ("TINYINT", "-5", -5), "tu TINYINT UNSIGNED": ("SMALLINT", "250", 250),
    "b1 TINYINT(1)": ("BOOLEAN", "1", True), "b BIT(1)": ("BOOLEAN", "b'1'", True),
    "b12 BIT(12)": (LogicalType("BINARY", 2), "b'101010101010'", b"\x0a\xaa"),
    "mi MEDIUMINT": ("INT", "-8388608", -8388608), "iu INT UNSIGNED": ("BIGINT", "4294967295", 4294967295),
    "bu BIGINT UNSIGNED": (LogicalType("DECIMAL", 20, 0), "18446744073709551615", decimal.Decimal(18446744073709551615)),  # noqa: E501
    "f FLOAT": ("FLOAT", "16777217", 16777216.0), "d DOUBLE": ("DOUBLE", "0.1", 0.1),
    "d1 DECIMAL(10, 2)": (LogicalType("DECIMAL", 10, 2), "-1234.56", decimal.Decimal("-1234.56")),
    "d2 DECIMAL(38, 10)": (LogicalType("DECIMAL", 38, 10), "-0.0000000001", decimal.Decimal("-1E-10")),
    "d3 DECIMAL(65, 30)": ("VARCHAR", "-1.5", "-1.500000000000000000000000000000"),
    "c CHAR(5)": ("VARCHAR", "'ab'", "ab"), "l VARCHAR(20) CHARACTER SET latin1": ("VARCHAR", "'€é'", "€é"),
    "g VARCHAR(20) CHARACTER SET gbk": ("VARCHAR", "'中文'", "中文"), "x LONGTEXT": ("VARCHAR", "'täxt'", "täxt"),
    "bn BINARY(4)": (LogicalType("BINARY", 4), "x'0100'", b"\1\0\0\0"), "vb VARBINARY(9)": ("VARBINARY", "x'00ff00'", b"\0\xff\0"),  # noqa: E501
    "e ENUM('a', 'ü')": ("VARCHAR", "'ü'", "ü"), "s SET('x', 'y', 'z')": ("VARCHAR", "'z,x'", "x,z"),
    "s0 SET('x')": ("VARCHAR", "''", ""), "j JSON": ("VARCHAR", """'{"a": [1]}'""", '{"a": [1]}'),
    "y YEAR": ("INT", "2024", 2024), "dt DATE": ("DATE", "'2024-02-29'", dt.date(2024, 2, 29)),
    "tm TIME(3)": ("TIME", "'12:34:56.789'", dt.time(12, 34, 56, 789000)),
    "tx TIME(6)": ("VARCHAR", "'-838:59:58.000001'", "-838:59:58.000001"),
    "dm DATETIME(6)": (LogicalType("TIMESTAMP", 6), "'1969-12-31 23:59:59.999999'", dt.datetime(1969, 12, 31, 23, 59, 59, 999999)),  # noqa: E501, DTZ001
    "ts TIMESTAMP(3)": (LogicalType("TIMESTAMP_LTZ", 3), "'2024-01-01 00:00:00.123'", dt.datetime(2024, 1, 1, 0, 0, 0, 123000, dt.UTC)),  # noqa: E501
    "tl TIMESTAMP": (LogicalType("TIMESTAMP", 0), "'2024-01-01 00:00:00'", dt.datetime(2024, 1, 1, 8)),  # noqa: DTZ001
    "z DATE": ("DATE", "'0000-00-00'", None), "zd DATETIME": (LogicalType("TIMESTAMP", 0), "'2024-00-01 00:00:00'", None),  # noqa: E501
    "p POINT": ("VARBINARY", "ST_GeomFromText('POINT(1 2)')", bytes.fromhex("0101000000000000000000f03f0000000000000040")),  # noqa: E501
}  # fmt: skip


def test_every_type_is_the_same_in_the_snapshot_and_in_the_binlog(mysql, opened):
    names = [name.split()[0] for name in TYPES]
    mysql.sql("SET sql_mode = '', time_zone = '+00:00'")
    nullable = ", ".join(f"{name} NULL" for name in TYPES)
    mysql.sql(f"CREATE TABLE t (id INT PRIMARY KEY, {nullable}) CHARACTER SET utf8mb4")
    declared = [kind if isinstance(kind, LogicalType) else LogicalType(kind) for kind, _, _ in TYPES.values()]
    columns = [("id", "int"), *zip(names, declared, strict=True)]
    more = {"server-time-zone": "Asia/Shanghai"}
    streamed = opened(mysql, columns=columns, **mode("latest-offset"), **more)
    start = streamed.start()
    mysql.sql(f"INSERT INTO t VALUES (1, {', '.join(value for _, value, _ in TYPES.values())})")
    mysql.sql(f"INSERT INTO t VALUES (2, {', '.join(['NULL'] * len(TYPES))})")
    snapshot = opened(mysql, columns=columns, **mode("initial"), **more)
    wanted = [
        {"id": 1, **dict(zip(names, (value for _, _, value in TYPES.values()), strict=True)), "_kind": 0},
        {"id": 2, **dict.fromkeys(names), "_kind": 0},
    ]
    for source, position in ((streamed, start), (snapshot, snapshot.start())):
        tables, _ = drain(source, position)
        assert [row for table in tables for row in rows_of(table)] == wanted


def test_dates_with_zeros_may_be_refused_by_name(mysql, opened):
    mysql.sql("SET sql_mode = ''")
    mysql.sql("CREATE TABLE t (id INT PRIMARY KEY, d DATE)")
    mysql.sql("INSERT INTO t VALUES (1, '0000-00-00')")
    columns = (("id", "int"), ("d", LogicalType("DATE")))
    for how in ("initial", "earliest-offset"):
        source = opened(mysql, columns=columns, **mode(how), **{"vector-assets.zero-dates": "fail"})
        with pytest.raises(PlanError, match="column d has 1 dates with zeros"):
            drain(source, source.start())


def test_a_composite_key_is_read_in_chunks_and_tables_that_match_are_one(mysql, opened):
    for name in ("part_1", "part_2", "else_1"):
        mysql.sql(f"CREATE TABLE {name} (a VARCHAR(9), id INT, n INT, s TEXT, PRIMARY KEY (a, id))")
        mysql.sql(f"INSERT INTO {name} VALUES (%s, %s, 1, %s)", *[(f"k{n % 3}", n, name) for n in range(25)])
    columns = (("a", "string"), *COLUMNS)
    source = opened(mysql, r"part_\d", columns, **{"scan.incremental.snapshot.chunk.size": "4"})
    tables, end = drain(source, source.start())
    found = [(row["s"], row["a"], row["id"]) for table in tables for row in rows_of(table)]
    assert len(found) == len(set(found)) == 50
    assert {name for name, _, _ in found} == {"part_1", "part_2"}
    assert max(table.num_rows for table in tables) == 4
    mysql.sql("UPDATE part_2 SET n = 2 WHERE id = 3")
    mysql.sql("CREATE TABLE part_3 (a VARCHAR(9), id INT, n INT, s TEXT, PRIMARY KEY (a, id))")
    mysql.sql("INSERT INTO part_3 VALUES ('new', 1, 1, 'part_3')")
    tables, _ = drain(source, end)
    rows = [row for table in tables for row in rows_of(table)]
    assert [(row["_kind"], row["s"]) for row in rows] == [(1, "part_2"), (2, "part_2"), (0, "part_3")]


def test_a_ddl_closes_a_batch_and_rows_are_read_by_their_names(table, opened):
    source = opened(table, **mode("latest-offset"))
    start = source.start()
    table.sql("INSERT INTO t VALUES (1, 1, 'a')")
    table.sql("ALTER TABLE t ADD COLUMN extra INT FIRST, MODIFY n BIGINT")
    table.sql("INSERT INTO t VALUES (9, 2, 2, 'b')")
    tables, _ = drain(source, start)
    assert [kinds_and_ids([each]) for each in tables] == [[(0, 1)], [(0, 2)]]
    assert [row["n"] for each in tables for row in rows_of(each)] == [1, 2]
    table.sql("ALTER TABLE t DROP COLUMN n")
    table.sql("INSERT INTO t VALUES (9, 3, 'c')")
    _, position = tables, drain(opened(table, columns=(("id", "int"),), **mode("latest-offset")), start)[1]
    assert position["binlog"]["offset"] == 3
    with pytest.raises(PlanError, match=r"column n.*it has extra, id, s"):
        drain(source, start)


@pytest.mark.parametrize("statement", ["TRUNCATE TABLE t", "DROP TABLE t", "RENAME TABLE t TO gone"])
def test_a_table_that_goes_is_a_named_outcome_after_what_came_before(table, statement, opened):
    source = opened(table, **mode("latest-offset"))
    here = dict(source.start())
    table.sql("INSERT INTO t VALUES (1, 1, 'a')")
    table.sql(statement)
    first, span = read(source, source.plan(here, NO_LIMIT))
    assert kinds_and_ids([first]) == [(0, 1)]
    here |= span.end
    with pytest.raises(PositionLostError, match=r"^DELETED: .*took away rows without saying which") as lost:
        drain(source, here)
    if statement.startswith("TRUNCATE"):
        table.sql("INSERT INTO t VALUES (2, 2, 'b')")
        assert kinds_and_ids(drain(source, lost.value.resume)[0]) == [(0, 2)]


def test_a_distributed_transaction_is_read_when_it_is_committed(table, opened):
    """Its rows are in the binlog from its PREPARE on, which may be long before its COMMIT, or end in a ROLLBACK."""
    source = opened(table, **mode("latest-offset"))
    here = dict(source.start())
    xa(table, "one", "INSERT INTO t VALUES (1, 1, 'a')", "COMMIT 'one' ONE PHASE")
    tables, here = drain(source, here)
    assert [each for table in tables for each in kinds_and_ids([table])] == [(0, 1)]
    xa(table, "two", "INSERT INTO t VALUES (2, 1, 'b'), (3, 1, 'c'), (4, 1, 'd')", "PREPARE 'two'")
    with table.connect(database=table.database) as other, other.cursor() as cursor:
        cursor.execute("INSERT INTO t VALUES (5, 1, 'e')")
    tables, here = drain(source, here)
    assert [each for table in tables for each in kinds_and_ids([table])] == [(0, 5)]
    xa_state = dict(here)
    table.sql("XA COMMIT 'two'")
    tables, here = drain(source, here)
    assert [each for table in tables for each in kinds_and_ids([table])] == [(0, 2), (0, 3), (0, 4)]
    # by another process, in batches that are smaller than the transaction
    again, at = [], dict(xa_state)
    while (span := opened(table, **mode("latest-offset")).plan(at, BatchLimit(2, 1 << 40))) is not None:
        found, span = read(opened(table, **mode("latest-offset")), span, BatchLimit(2, 1 << 40))
        again.append(found)
        at |= span.end
    assert [each for found in again for each in kinds_and_ids([found])] == [(0, 2), (0, 3), (0, 4)]
    assert [found.num_rows for found in again if found.num_rows] == [2, 1]
    xa(table, "three", "DELETE FROM t", "PREPARE 'three'")
    tables, here = drain(source, here)
    table.sql("XA ROLLBACK 'three'")
    table.sql("INSERT INTO t VALUES (6, 1, 'f')")
    more, here = drain(source, here)
    assert [each for found in (*tables, *more) for each in kinds_and_ids([found])] == [(0, 6)]
    assert "prepared" not in here["binlog"]


def test_distributed_transactions_around_a_snapshot_come_to_the_table(table, opened, caplog):
    """Prepared while chunks are read, and committed in another chunk, after the last one, or never."""
    table.sql("INSERT INTO t VALUES (%s, 0, 'x')", *[(n * 10,) for n in range(30)])
    source = opened(table, scan_incremental_snapshot_chunk_size="7")
    here, state, pending = dict(source.start()), {}, []
    rng = random.Random(12)
    for number in range(14):
        if number < 9:
            change = rng.choice([
                f"INSERT INTO t VALUES ({rng.randrange(29) * 10 + 1 + number}, {number}, 'new')",
                f"UPDATE t SET n = {number + 1} WHERE id = {number * 10}",
                f"DELETE FROM t WHERE id = {number * 20 + 100}",
            ])  # fmt: skip
            with table.connect(database=table.database) as other, other.cursor() as cursor:
                cursor.execute("SET innodb_lock_wait_timeout = 1")
                for part in (f"XA START 'x{number}'", change, f"XA END 'x{number}'", f"XA PREPARE 'x{number}'"):
                    cursor.execute(part)
            pending.append(f"x{number}")
        if number % 3 == 2 or number > 8:
            while pending and (number > 10 or rng.random() < 0.7):
                end = "ROLLBACK" if rng.random() < 0.3 else "COMMIT"
                table.sql(f"XA {end} '{pending.pop(rng.randrange(len(pending)))}'")
        if (span := source.plan(here, NO_LIMIT)) is not None:
            found, span = read(source, span)
            here |= span.end
            apply(state, rows_of(found), ["id"])
        if rng.random() < 0.4:
            source = opened(table, scan_incremental_snapshot_chunk_size="7")
    for found in drain(source, here)[0]:
        apply(state, rows_of(found), ["id"])
    wanted = {(row[0],): dict(zip(("id", "n", "s"), row, strict=True)) for row in table.sql("SELECT id, n, s FROM t")}
    assert state == wanted
    assert "distributed" not in caplog.text
    xa(table, "early", "INSERT INTO t VALUES (9999, 1, 'a')", "PREPARE 'early'")
    opened(table).start()
    assert "1 distributed transactions are prepared and not committed (early)" in caplog.text
    table.sql("XA ROLLBACK 'early'")


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE t TRUNCATE PARTITION p0", "ALTER TABLE `t` DROP PARTITION p1 -- 'x'",
        "ALTER TABLE t EXCHANGE PARTITION p0 WITH TABLE other", "ALTER TABLE t2 EXCHANGE PARTITION p0 WITH TABLE t",
        "ALTER TABLE t DISCARD TABLESPACE",
    ],
)  # fmt: skip
def test_partitions_that_go_are_a_named_outcome(mysql, statement, opened):
    """The binlog has the statement and none of the rows."""
    parts = " PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN (20))"
    plain = "TABLESPACE" in statement or "t2" in statement
    columns = "(id INT PRIMARY KEY, n INT, s VARCHAR(50))"
    mysql.sql(f"CREATE TABLE t {columns}{'' if plain else parts}")
    mysql.sql(f"CREATE TABLE other {columns}")
    mysql.sql(f"CREATE TABLE t2 {columns}{parts}")
    source = opened(mysql, **mode("latest-offset"))
    here = dict(source.start())
    mysql.sql("INSERT INTO t VALUES (1, 1, 'a')")
    # what is done to other tables, and what takes no row away, stops nothing
    mysql.sql("ALTER TABLE t2 TRUNCATE PARTITION p1")
    mysql.sql("ALTER TABLE t COMMENT 'drop partition p0, import tablespace'")
    if not plain:
        mysql.sql("ALTER TABLE t REORGANIZE PARTITION p1 INTO (PARTITION p1 VALUES LESS THAN (30))")
    mysql.sql(statement)
    _, here = drain_until_lost(source, here)
    with pytest.raises(PositionLostError, match=r"^DELETED: .*ALTER of partitions took away rows without saying which"):
        drain(source, here)


def drain_until_lost(source, here):
    """Batch after batch up to a named outcome."""
    tables = []
    while (span := source.plan(here, NO_LIMIT)) is not None:
        try:
            table, span = read(source, span)
        except PositionLostError:
            break
        tables.append(table)
        here |= span.end
    assert [each for table in tables for each in kinds_and_ids([table])] == [(0, 1)]
    return tables, here


def test_what_happens_to_other_tables_stops_nothing_and_is_not_told_all_the_time(table, opened):
    source = opened(table, **mode("latest-offset"))
    here = dict(source.start())
    table.sql("INSERT INTO t VALUES (1, 1, 'a')")
    _, here = drain(source, here)
    own = ", u UUID, i INET6" if table.is_mariadb else ""
    table.sql(f"CREATE TABLE other (a INT PRIMARY KEY, g GEOMETRY, j JSON{own})")
    table.sql(f"INSERT INTO other VALUES (1, NULL, '{{}}'{', UUID(), ' + chr(39) + '::1' + chr(39) if own else ''})")
    table.sql("DROP TABLE other")
    assert source.lag(here, source.frontier()) == 3
    assert source.plan(here, NO_LIMIT) is None
    source._clock = lambda: time.time() + 60
    tables, there = drain(source, here)
    assert [each.num_rows for each in tables] == [0]
    assert source.lag(there, source.frontier()) == 0


def test_every_startup_mode_starts_where_it_says(own_mysql, opened):
    server = own_mysql()
    server.sql("CREATE TABLE t (id INT PRIMARY KEY, n INT, s VARCHAR(50))")
    server.sql("INSERT INTO t VALUES (1, 1, 'a')")
    gtid = server.gtid()
    file, pos = server.sql("SHOW MASTER STATUS")[0][:2]
    now = int(server.sql("SELECT UNIX_TIMESTAMP()")[0][0])
    server.sql(f"SET timestamp = {now + 5}")
    server.sql("INSERT INTO t VALUES (2, 2, 'b'), (3, 3, 'c')")
    server.sql("FLUSH BINARY LOGS")
    wanted = {
        "initial": [1, 2, 3], "snapshot": [1, 2, 3], "earliest-offset": [1, 2, 3], "latest-offset": [],
        "timestamp": [2, 3], "specific-offset": [2, 3],
    }  # fmt: skip
    assert tuple(wanted) == tuple(sorted(wanted, key=list(wanted).index))
    assert set(wanted) == set(STARTUP_MODES)
    more = {"timestamp": {"timestamp-millis": str((now + 3) * 1000)}}
    cases = [(name, more.get(name, {}), ids) for name, ids in wanted.items() if name != "specific-offset"]
    cases += [
        ("specific-offset", {"specific-offset.gtid-set": gtid}, [2, 3]),
        ("specific-offset", {"specific-offset.file": file, "specific-offset.pos": str(pos)}, [2, 3]),
        ("specific-offset", {"specific-offset.gtid-set": gtid, "specific-offset.skip-rows": "1"}, [3]),
        ("specific-offset", {"specific-offset.gtid-set": gtid, "specific-offset.skip-events": "1"}, []),
    ]
    for name, given, ids in cases:
        source = opened(server, **mode(name, **given))
        tables, end = drain(source, source.start())
        assert [number for _, number in kinds_and_ids(tables)] == ids, (name, given)
        assert source._options.is_finished(end) == (name == "snapshot")
    for where, count in (("initial", 1), ("earliest", 3), ("latest", 0), (gtid, 1), (f"{file}:{pos}", 1)):
        assert (source.lag(source.locate(where), source.frontier()) > 0) == (count > 0), where
    with pytest.raises(ConfigError, match="a place is 'initial'"):
        source.locate("yesterday")


def test_a_purged_place_and_a_server_that_knows_less_are_named(own_mysql, opened):
    server = own_mysql()
    server.sql("CREATE TABLE t (id INT PRIMARY KEY, n INT, s VARCHAR(50))")
    source = opened(server, **mode("latest-offset"))
    start = source.start()
    server.sql("INSERT INTO t VALUES (1, 1, 'a')")
    span = source.plan(start, NO_LIMIT)
    server.sql("FLUSH BINARY LOGS")
    server.sql("INSERT INTO t VALUES (2, 2, 'b')")
    server.sql(f"PURGE BINARY LOGS TO '{server.sql('SHOW MASTER STATUS')[0][0]}'")
    with pytest.raises(PositionLostError, match=r"^TRUNCATED: .*the server says"):
        read(source, span)
    with pytest.raises(PositionLostError, match=r"^TRUNCATED: .*was purged") as lost:
        source.plan(start, NO_LIMIT)
    assert kinds_and_ids(drain(source, lost.value.resume)[0]) == [(0, 2)]
    ahead = {"binlog": {**start["binlog"], "gtid": "0-1-9999"}}
    with pytest.raises(PositionLostError, match=r"^BEYOND_END: "):
        source.plan(ahead, NO_LIMIT)
    with pytest.raises(PositionLostError, match=r"^RECREATED: "):
        source.plan({"binlog": {**ahead["binlog"], "server": "7"}}, NO_LIMIT)


def test_a_statement_in_the_binlog_is_no_silent_loss(table, opened):
    source = opened(table, **mode("latest-offset"))
    start = source.start()
    table.sql("SET binlog_format = 'STATEMENT'")
    table.sql("INSERT INTO t VALUES (1, 1, 'a')")
    with pytest.raises(FatalError, match="a statement instead of rows"):
        drain(source, start)


def test_a_statement_of_another_database_that_names_a_table_is_no_silent_loss(table, mysql, opened):
    source = opened(table, **mode("latest-offset"))
    start = source.start()
    with mysql.connect(database="mysql") as connection, connection.cursor() as cursor:
        cursor.execute("SET binlog_format = 'STATEMENT'")
        cursor.execute(f"DELETE FROM `{mysql.database}`.t WHERE s = 'x'")
        cursor.execute(f"UPDATE {mysql.database}.t SET n = 1 /* nothing */")
    with pytest.raises(FatalError, match="a statement instead of rows"):
        drain(source, start)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"scan.startup.mode": "sometime"}, "known: initial, earliest-offset"),
        ({"scan.startup.timestamp-millis": "1"}, "has an effect only with 'scan.startup.mode' = 'timestamp'"),
        ({"scan.startup.mode": "timestamp"}, "needs the option 'scan.startup.timestamp-millis'"),
        ({"scan.startup.mode": "specific-offset"}, "needs either"),
        ({"server-id": "0"}, "want a number from 1"),
        ({"table-name": "("}, "want a regular expression"),
        ({"server-time-zone": "Mars"}, "want a time zone"),
        ({"scan.incremental.snapshot.enabled": "false"}, "is not built"),
        ({"debezium.snapshot.mode": "never"}, "unknown option 'debezium.snapshot.mode'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_options_that_mean_nothing_here_are_refused(changes, reason):
    given = {"connector": "mysql-cdc", "hostname": "h", "username": "u", "password": "p"}
    given |= {"database-name": "d", "table-name": "t", **changes}
    with pytest.raises(ConfigError, match=reason):
        MySqlCdcOptions.parse(given, "connector mysql-cdc")


def test_a_table_that_cannot_be_read_as_declared_is_refused_before_the_first_row(table, opened):
    with pytest.raises(PlanError, match="there is no column nope; it has id, n, s"):
        opened(table, columns=(("nope", "int"),)).start()
    with pytest.raises(PlanError, match="no table matches"):
        opened(table, "missing").start()
    table.sql("CREATE TABLE keyless (id INT, n INT, s TEXT)")
    with pytest.raises(PlanError, match="neither a primary key nor a unique key"):
        opened(table, "keyless").start()
    assert [finding.level for finding in opened(table, "keyless", **mode("latest-offset")).diagnose()] == [
        "ok",
        "ok",
        "ok",
        "warning",
    ]


def test_metadata_columns_say_where_a_row_is_from(table, opened):
    table.sql("INSERT INTO t VALUES (1, 1, 'a')")
    source = opened(table)
    (snapshot,), here = drain(source, source.start())
    table.sql("DELETE FROM t")
    (stream,), _ = drain(source, here)
    found = [
        {name: key.read(raw, ["binlog"]).to_pylist() for name, key in METADATA.items()} for raw in (snapshot, stream)
    ]
    assert [each["database_name"] + each["table_name"] for each in found] == [[table.database, "t"]] * 2
    assert [each["row_kind"] for each in found] == [["+I"], ["-D"]]
    assert found[0]["op_ts"][0].year == 1970
    assert abs(found[1]["op_ts"][0].timestamp() - time.time()) < 300


def test_what_comes_after_the_end_was_read_is_planned_at_once(table, opened):
    source = opened(table)
    table.sql("INSERT INTO t VALUES (1, 1, 'a')")
    _, position = drain(source, source.start())
    for number in range(3):
        table.sql("UPDATE t SET n = n + 1")
        tables, position = drain(source, position)
        assert [row["n"] for found in tables for row in rows_of(found)] == [number + 1, number + 2]


def test_a_connection_reads_no_certificates_of_the_system_and_takes_tls_where_there_is_some(table, monkeypatch):
    def read(*_):
        raise AssertionError("reads the certificates of the system")

    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", read)
    options = MySqlCdcOptions.parse(table.options("t"), "mysql-cdc")
    server = MySql(options.login)
    table.sql("INSERT INTO t VALUES (1, 1, 'a')")
    source = source_of(table, "t", COLUMNS)
    try:
        assert len(drain(source, source.start())[0]) == 1
        ((_, cipher),) = server.rows("SHOW STATUS LIKE 'Ssl_cipher'")
        has_tls = server.variables("have_ssl").get("have_ssl") == "YES"
        assert bool(cipher) == has_tls
    finally:
        source.close()
        server.close()
