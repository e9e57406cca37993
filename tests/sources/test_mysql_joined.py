"""Joined tables as one source: whole rows whatever table changed, and what is gone, told apart."""

import random
import threading

import pytest

from tests.fix_mysql import on_both_servers
from tests.sources.mysql_model import batches, rows_of, xa
from tests.sources.reading import NO_LIMIT, drain, read
from vector_assets.engine.core import BatchLimit
from vector_assets.engine.errors import PlanError, PositionLostError
from vector_assets.engine.schema import Column, LogicalType, Table
from vector_assets.sources.mysql_joined import MySqlJoinedSource
from vector_assets.sources.mysql_joined_options import JoinedTable, MySqlJoinedOptions
from vector_assets.sources.mysql_options import MySqlCdcOptions

pytestmark = pytest.mark.service
pytest_generate_tests = on_both_servers

TEXT, INT, BIGINT = (LogicalType(name) for name in ("VARCHAR", "INT", "BIGINT"))
KEYS = {
    "int": ("INT", "BIGINT", INT, BIGINT, str),
    "text": ("VARCHAR(20) COLLATE utf8mb4_general_ci",) * 2 + (TEXT, TEXT, lambda n: f"'{'aBcÄ'[n % 4]}{n}'"),
}


def source_of(mysql, kind: str = "int", **options: str) -> MySqlJoinedSource:
    _, _, own, theirs, _ = KEYS[kind]
    key = LogicalType(own.name, nullable=False)
    reader = MySqlCdcOptions.parse(mysql.options("a|b", **{"server-id": "7000-7009"}, **options), "mysql-cdc")
    tables = (
        JoinedTable("a", (Column("id", key),), (("id", "id"), ("s", "my_text"))),
        JoinedTable("b", (Column("a_id", theirs),), (("n", "number"),)),
    )
    table = Table("a_b", (Column("id", key), Column("my_text", TEXT), Column("number", INT)), ("id",))
    joined = MySqlJoinedOptions(reader=reader, database=mysql.database, tables=tables, key=("id",))
    return MySqlJoinedSource(joined, table, pipeline="p")


def wanted(mysql) -> dict[object, tuple[object, ...]]:
    rows = mysql.sql("SELECT a.id, a.s, b.n FROM a LEFT JOIN b ON b.a_id = a.id")
    return {row[0]: row for row in rows}


def apply(state: dict[object, tuple[object, ...]], table) -> None:
    """Upserts and deletes by key; nothing else comes."""
    for row in rows_of(table):
        if row["_kind"] == 3:
            assert (row["my_text"], row["number"]) == (None, None)
            state.pop(row["id"], None)
        else:
            assert row["_kind"] == 2
            state[row["id"]] = (row["id"], row["my_text"], row["number"])


@pytest.fixture
def tables(mysql):
    make(mysql, "int")
    return mysql


@pytest.fixture
def opened():
    made = []

    def open_(*arguments, **options):
        made.append(source_of(*arguments, **options))
        return made[-1]

    yield open_
    for source in made:
        source.close()


def make(mysql, kind: str) -> None:
    own, theirs, *_ = KEYS[kind]
    mysql.sql(f"CREATE TABLE a (id {own} PRIMARY KEY, s VARCHAR(50))")
    mysql.sql(f"CREATE TABLE b (no INT AUTO_INCREMENT PRIMARY KEY, a_id {theirs} UNIQUE, n INT)")


def change(rng: random.Random, run, ids) -> None:
    run("BEGIN")
    for _ in range(rng.randint(1, 3)):
        here, there, number = ids(rng.randrange(60)), ids(rng.randrange(60)), rng.randrange(1000)
        run(
            rng.choice(
                [
                    f"INSERT INTO a VALUES ({here}, 't{number}') ON DUPLICATE KEY UPDATE s = 't{number}'",
                    f"INSERT INTO b (a_id, n) VALUES ({here}, {number}) ON DUPLICATE KEY UPDATE n = {number}",
                    f"UPDATE IGNORE a SET id = {there} WHERE id = {here}",
                    f"UPDATE IGNORE b SET a_id = {there} WHERE a_id = {here}",
                    f"UPDATE b SET a_id = NULL WHERE a_id = {here}",
                    f"DELETE FROM a WHERE id = {here}",
                    f"DELETE FROM b WHERE a_id = {here}",
                ]
            )
        )
    run("COMMIT")


@pytest.mark.parametrize("kind", KEYS)
def test_whatever_table_changes_while_it_is_read_the_rows_are_those_of_the_join(mysql, opened, kind):
    make(mysql, kind)
    ids = KEYS[kind][4]
    rng = random.Random(5)

    def write() -> None:
        with mysql.connect(database=mysql.database) as connection, connection.cursor() as cursor:
            for _ in range(250):
                change(rng, cursor.execute, ids)

    with mysql.connect(database=mysql.database) as connection, connection.cursor() as cursor:
        for _ in range(60):
            change(rng, cursor.execute, ids)
    source, state = opened(mysql, kind, **{"scan.incremental.snapshot.chunk.size": "7"}), {}
    position = source.start()
    writer = threading.Thread(target=write)
    writer.start()
    is_last = False
    while not is_last:
        is_last = not writer.is_alive()
        for table, span in batches(source, position, BatchLimit(40, 1 << 30)):
            position = {**position, **span.end}
            apply(state, table)
    writer.join()
    assert state == wanted(mysql)
    assert source.plan(position, NO_LIMIT) is None
    # transactions of the other table count as lag until the next heartbeat
    beating = opened(mysql, kind, **{"heartbeat.interval": "1 ms"})
    _, position = drain(beating, position)
    assert beating.lag(position, beating.frontier()) == 0


def test_a_row_of_another_table_fills_and_empties_the_fields_of_a_whole_row(tables, opened):
    tables.sql("INSERT INTO a VALUES (1, 'one'), (2, 'two')")
    source = opened(tables)
    found, position = drain(source, source.start())
    state: dict[object, tuple[object, ...]] = {}
    for table in found:
        apply(state, table)
    assert state == {1: (1, "one", None), 2: (2, "two", None)}
    for statement, expected in (
        ("INSERT INTO b (a_id, n) VALUES (1, 10), (3, 30)", {1: (1, "one", 10), 2: (2, "two", None)}),
        ("UPDATE b SET a_id = 2 WHERE a_id = 1", {1: (1, "one", None), 2: (2, "two", 10)}),
        ("DELETE FROM b WHERE a_id = 2", {1: (1, "one", None), 2: (2, "two", None)}),
        ("INSERT INTO a VALUES (3, 'three')", {1: (1, "one", None), 2: (2, "two", None), 3: (3, "three", 30)}),
        ("DELETE FROM a WHERE id = 1", {2: (2, "two", None), 3: (3, "three", 30)}),
    ):
        tables.sql(statement)
        more, position = drain(source, position)
        for table in more:
            apply(state, table)
        assert state == expected, statement


def test_a_distributed_transaction_is_seen_once_it_is_committed(tables, opened):
    tables.sql("INSERT INTO a VALUES (1, 'one')")
    source = opened(tables)
    found, position = drain(source, source.start())
    state: dict[object, tuple[object, ...]] = {}
    for name, end in (("x", "COMMIT"), ("y", "ROLLBACK")):
        expected = {1: (1, "one", 10)} if name == "y" else {1: (1, "one", None)}
        change = "INSERT INTO b (a_id, n) VALUES (1, 10)" if name == "x" else "UPDATE b SET n = 20"
        xa(tables, name, change, f"PREPARE '{name}'")
        more, position = drain(source, position)
        for table in (*found, *more):
            apply(state, table)
        assert state == expected
        found = []
        tables.sql(f"XA {end} '{name}'")
        more, position = drain(source, position)
        for table in more:
            apply(state, table)
        assert state == {1: (1, "one", 10)}


@pytest.mark.parametrize("kind", KEYS)
def test_a_row_that_goes_before_the_snapshot_comes_to_it_is_not_left_behind_by_another_table(mysql, opened, kind):
    make(mysql, kind)
    key = KEYS[kind][4]
    mysql.sql(f"INSERT INTO a VALUES {', '.join(f'({key(number)}, NULL)' for number in range(40))}")
    order = [row[0] for row in mysql.sql("SELECT id FROM a ORDER BY id")]
    source, state = opened(mysql, kind, **{"scan.incremental.snapshot.chunk.size": "7"}), {}
    position = source.start()
    for number, (table, span) in enumerate(batches(source, position, BatchLimit(40, 1 << 30))):
        position = {**position, **span.end}
        apply(state, table)
        if number == 0:
            # one that is in the target, and two that the snapshot has not come to
            mysql.sql("INSERT INTO b (a_id, n) VALUES (%s, 1)", [order[3]], [order[30]], [order[31]])
        elif number == 1:
            assert state[order[3]] == (order[3], None, 1)
            mysql.sql("DELETE FROM a WHERE id = %s", [order[30]])
            mysql.sql(f"UPDATE a SET id = {key(50)} WHERE id = %s", [order[31]])
    assert number > 3
    assert state == wanted(mysql)


def test_a_span_that_was_planned_is_read_again_after_a_crash(tables, opened):
    tables.sql("INSERT INTO a VALUES (1, 'one')")
    source = opened(tables)
    _, position = drain(source, source.start())
    tables.sql("UPDATE a SET s = 'new' WHERE id = 1")
    span = source.plan(position, NO_LIMIT)
    first, ends = read(source, span)
    again, same = read(opened(tables), span)
    assert rows_of(first) == rows_of(again) == [{"id": 1, "my_text": "new", "number": None, "_kind": 2}]
    assert {name: token["gtid"] for name, token in ends.end.items()} == {
        name: token["gtid"] for name, token in same.end.items()
    }


def test_a_batch_that_ends_amid_a_transaction_waits_until_a_select_sees_it(tables, opened, monkeypatch):
    """Or its first rows would be read as they were before, and never again."""
    source = opened(tables)
    _, position = drain(source, source.start())
    seen, answers = source._seen, []
    before = seen()
    tables.sql("INSERT INTO a VALUES (1, 'one'), (2, 'two'), (3, 'three')")

    def late():
        answers.append(seen() if answers else before)
        return answers[-1]

    monkeypatch.setattr(source, "_seen", late)
    limit = BatchLimit(4, 1 << 30)
    _, span = read(source, source.plan(position, limit), limit)
    assert "skip" in span.end[source._options.splits[0]]
    assert len(answers) > 1


def test_a_loss_of_another_table_reads_all_rows_anew(tables, opened):
    tables.sql("INSERT INTO a VALUES (1, 'one')")
    tables.sql("INSERT INTO b (a_id, n) VALUES (1, 10)")
    source = opened(tables)
    _, position = drain(source, source.start())
    tables.sql("TRUNCATE TABLE b")
    with pytest.raises(PositionLostError, match=r"^DELETED: .*b: TRUNCATE") as lost:
        drain(source, position)
    a, b = source._options.splits
    assert set(lost.value.resume) == {a, b}
    assert lost.value.resume[a]["table"] == a
    more, _ = drain(source, {**position, **lost.value.resume})
    assert [row for table in more for row in rows_of(table)] == [
        {"id": 1, "my_text": "one", "number": None, "_kind": 2}
    ]


def test_places_of_operators_are_those_of_every_table(tables, opened):
    source = opened(tables)
    a, b = source._options.splits
    initial = source.locate("initial")
    assert (initial[a]["table"], "table" in initial[b]) == (a, False)
    assert source.locate("latest")[a]["gtid"] == source.frontier()[a]["gtid"]
    assert any("2 tables" in finding.what or "1 tables" in finding.what for finding in source.diagnose())


def test_a_column_that_is_gone_stops_it(tables, opened):
    source = opened(tables)
    _, position = drain(source, source.start())
    tables.sql("ALTER TABLE b DROP COLUMN n")
    tables.sql("INSERT INTO a VALUES (1, 'one')")
    fresh = opened(tables)
    with pytest.raises(PlanError, match=r"b: there is no column n"):
        drain(fresh, position)
