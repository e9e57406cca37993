"""Columns of a MySQL table change while its pipeline runs: every behaviour, every kind of change, on real servers."""

import signal
from dataclasses import replace

import pytest

from tests.faults.captured import CapturedJob, Spec, declared
from tests.sources.maxcompute_table import options_of
from vector_assets.engine.dead_letters import raw_records
from vector_assets.engine.errors import FatalError, PositionLostError

pytestmark = pytest.mark.service


class PostgresTarget:
    """A table of a PostgreSQL that follows the MySQL table `t`."""

    def __init__(self, folder, mysql, postgres, ddl, table="t", **spec):
        self.mysql, self.postgres = mysql, postgres
        self.database = postgres.create_database()
        self.sql(ddl)
        source = mysql.options(table, **spec.pop("options", {}))
        sink = {
            "connector": "adbpg", "url": postgres.jdbc_url(self.database), "tablename": "t",
            "username": postgres.user, "password": postgres.password, "conflictmode": "update",
        }  # fmt: skip
        self.job = CapturedJob(folder, Spec(source, "adbpg", sink, declared(source), **spec))

    def sql(self, text):
        with self.postgres.connect(self.database, autocommit=True) as connection:
            cursor = connection.execute(text)
            return cursor.fetchall() if cursor.description else []

    def rows(self):
        return self.sql("SELECT * FROM t ORDER BY id")

    def columns(self):
        return [
            (name, kind)
            for name, kind in self.sql(
                "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
                " WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
            )
        ]

    def as_source(self):
        """Rows of both sides in the order of the source's columns."""
        names = [row[0] for row in self.mysql.sql("SHOW COLUMNS FROM t")]
        listed = ", ".join(f'"{name}"' for name in names)
        return (
            self.sql(f"SELECT {listed} FROM t ORDER BY id"),
            self.mysql.sql(f"SELECT {listed.replace(chr(34), '`')} FROM t ORDER BY id"),
        )


@pytest.fixture
def target(tmp_path, mysql, postgres):
    """Makes targets of `t (id, n, s)` with three rows, read once."""

    def make(behavior, **spec):
        mysql.sql("CREATE TABLE t (id INT PRIMARY KEY, n INT, s VARCHAR(50))")
        mysql.sql("INSERT INTO t VALUES (1, 1, 'a'), (2, 2, 'b'), (3, 3, 'c')")
        made = PostgresTarget(
            tmp_path, mysql, postgres, "CREATE TABLE t (id int PRIMARY KEY, n int, s varchar(50))", behavior=behavior,
            **spec,
        )  # fmt: skip
        made.job.run()
        return made

    return make


def test_evolve_does_what_was_done_to_the_table(target, mysql):
    found = target("evolve")
    mysql.sql("INSERT INTO t VALUES (4, 4, 'd')")
    mysql.sql("ALTER TABLE t ADD COLUMN extra DECIMAL(10, 2)")
    mysql.sql("INSERT INTO t VALUES (5, 5, 'e', 5.25)")
    mysql.sql("ALTER TABLE t RENAME COLUMN s TO said")
    mysql.sql("UPDATE t SET said = 'x' WHERE id = 1")
    mysql.sql("ALTER TABLE t MODIFY n BIGINT")
    mysql.sql("INSERT INTO t VALUES (6, 6000000000, 'f', 6)")
    found.job.run()
    assert found.columns() == [("id", "integer"), ("n", "bigint"), ("said", "character varying(50)"),
                               ("extra", "numeric(10,2)")]  # fmt: skip
    assert found.rows()[0] == (1, 1, "x", None)
    ours, theirs = found.as_source()
    assert ours == list(theirs)
    mysql.sql("ALTER TABLE t DROP COLUMN n")
    mysql.sql("DELETE FROM t WHERE id = 2")
    found.job.run()
    assert [name for name, _ in found.columns()] == ["id", "said", "extra"]
    ours, theirs = found.as_source()
    assert ours == list(theirs)
    assert found.job.run() == []


@pytest.mark.parametrize(
    "statements",
    [
        ["ALTER TABLE t DROP COLUMN n, ADD COLUMN n INT"],
        ["ALTER TABLE t DROP n, ADD COLUMN n BIGINT COMMENT 'it''s new' FIRST"],
        ["ALTER TABLE t DROP `n`", "ALTER TABLE t ADD n VARCHAR(9)"],
        ["ALTER TABLE t DROP COLUMN n, RENAME COLUMN s TO n", "ALTER TABLE t ADD s INT"],
    ],
    ids=["one statement", "another type", "two statements", "name taken"],
)
def test_a_column_that_is_dropped_and_added_again_holds_nothing_of_before(target, mysql, statements):
    found = target("evolve")
    for statement in statements:
        mysql.sql(statement)
    mysql.sql("INSERT INTO t (id, n) VALUES (7, 7)")
    found.job.run()
    ours, theirs = found.as_source()
    assert [tuple(row) for row in ours] == [
        tuple(
            str(each) if isinstance(each, int) and isinstance(ours[at][n], str) else each for n, each in enumerate(row)
        )
        for at, row in enumerate(theirs)
    ]


def test_lenient_keeps_what_was_dropped_and_adds_what_was_renamed(target, mysql):
    found = target("lenient")
    mysql.sql("ALTER TABLE t CHANGE s said VARCHAR(80)")
    mysql.sql("ALTER TABLE t DROP COLUMN n")
    mysql.sql("INSERT INTO t VALUES (4, 'd')")
    mysql.sql("UPDATE t SET said = 'x' WHERE id = 1")
    found.job.run()
    assert found.columns() == [("id", "integer"), ("n", "integer"), ("s", "character varying(50)"),
                               ("said", "character varying(80)")]  # fmt: skip
    assert found.rows() == [(1, None, None, "x"), (2, 2, "b", None), (3, 3, "c", None), (4, None, None, "d")]


@pytest.mark.parametrize("behavior", ["lenient", "ignore"])
def test_a_column_added_again_goes_into_the_one_that_stayed(target, mysql, behavior):
    found = target(behavior)
    mysql.sql("ALTER TABLE t DROP COLUMN n")
    mysql.sql("UPDATE t SET s = 'x' WHERE id = 1")
    mysql.sql("ALTER TABLE t ADD COLUMN n INT")
    mysql.sql("UPDATE t SET n = 22 WHERE id = 2")
    found.job.run()
    assert [name for name, _ in found.columns()] == ["id", "n", "s"]
    # the third row was not written since, so nobody says that it has no value any more
    assert found.rows() == [(1, None, "x"), (2, 22, "b"), (3, 3, "c")]


class MaxComputeTarget:
    """A Delta table that follows the MySQL table `t`."""

    def __init__(self, folder, mysql, server, columns, **spec):
        self.mysql, self.server = mysql, server
        self.table = server.table(
            f"{columns}, PRIMARY KEY (id)", "TBLPROPERTIES ('transactional'='true', 'write.bucket.num'='4')"
        ).name
        source = mysql.options("t", **spec.pop("options", {}))
        sink = options_of(server, self.table, enableUpsert="true", **{"upsert.write.bucket.num": "4"})
        self.job = CapturedJob(folder, Spec(source, "maxcompute", sink, declared(source), **spec))

    def columns(self):
        return [
            (column.name, str(column.type).lower()) for column in self.server.odps.get_table(self.table).table_schema
        ]

    def as_source(self):
        names = [row[0] for row in self.mysql.sql("SHOW COLUMNS FROM t")]
        listed = ", ".join(f"`{name}`" for name in names)
        return (
            [tuple(row) for row in self.server.rows(f"SELECT {listed} FROM {self.table} ORDER BY id")],
            list(self.mysql.sql(f"SELECT {listed} FROM t ORDER BY id")),
        )


def test_a_delta_table_follows(tmp_path, mysql, maxcompute):
    mysql.sql("CREATE TABLE t (id INT PRIMARY KEY, n INT, s VARCHAR(50))")
    mysql.sql("INSERT INTO t VALUES (1, 1, 'a'), (2, 2, 'b'), (3, 3, 'c')")
    found = MaxComputeTarget(tmp_path, mysql, maxcompute, "id int NOT NULL, n int, s varchar(50)", behavior="evolve")
    found.job.run()
    mysql.sql("ALTER TABLE t ADD COLUMN extra DECIMAL(10, 2), MODIFY n BIGINT")
    mysql.sql("INSERT INTO t VALUES (5, 5000000000, 'e', 5.25)")
    mysql.sql("ALTER TABLE t CHANGE s said VARCHAR(60)")
    mysql.sql("UPDATE t SET said = 'x' WHERE id = 1")
    found.job.run()
    assert found.columns() == [("id", "int"), ("n", "bigint"), ("said", "varchar(60)"), ("extra", "decimal(10,2)")]
    ours, theirs = found.as_source()
    assert ours == theirs
    mysql.sql("ALTER TABLE t DROP COLUMN n")
    mysql.sql("DELETE FROM t WHERE id = 2")
    found.job.run()
    assert [name for name, _ in found.columns()] == ["id", "said", "extra"]
    ours, theirs = found.as_source()
    assert ours == theirs


def test_exception_stops_before_anything_is_written(target, mysql):
    found = target("exception")
    mysql.sql("UPDATE t SET s = 'x' WHERE id = 1")
    mysql.sql("ALTER TABLE t ADD COLUMN extra INT")
    mysql.sql("INSERT INTO t VALUES (4, 4, 'd', 4)")
    for _ in range(2):
        with pytest.raises(
            FatalError, match=r"column extra INT is new.*exception.*schema\.change\.behavior to lenient"
        ):
            found.job.run()
    assert found.rows() == [(1, 1, "x"), (2, 2, "b"), (3, 3, "c")]
    found.job.spec = replace(found.job.spec, behavior="evolve")
    found.job.run()
    assert found.rows()[3:] == [(4, 4, "d", 4)]


def test_ignore_goes_on_with_the_columns_there_were(target, mysql):
    found = target("ignore")
    mysql.sql("ALTER TABLE t ADD COLUMN extra INT, DROP COLUMN n")
    mysql.sql("INSERT INTO t VALUES (4, 'd', 4)")
    found.job.run()
    assert found.rows()[2:] == [(3, 3, "c"), (4, None, "d")]
    mysql.sql("ALTER TABLE t ADD COLUMN n INT")
    mysql.sql("INSERT INTO t VALUES (5, 'e', 5, 50)")
    found.job.run()
    assert found.rows()[4:] == [(5, 50, "e")]


@pytest.mark.parametrize("behavior", ["evolve", "try_evolve"])
def test_what_the_target_refuses_stops_evolve_and_not_try_evolve(target, mysql, behavior):
    found = target(behavior)
    found.sql("CREATE VIEW seen AS SELECT n FROM t")
    mysql.sql("ALTER TABLE t DROP COLUMN n, ADD COLUMN extra INT")
    mysql.sql("INSERT INTO t VALUES (4, 'd', 4)")
    if behavior == "evolve":
        for _ in range(2):
            with pytest.raises(FatalError, match=r"n is dropped: the target refuses.*view seen.*try_evolve"):
                found.job.run()
        found.sql("DROP VIEW seen")
        found.job.run()
        ours, theirs = found.as_source()
        assert ours == list(theirs)
        return
    found.job.run()
    assert found.rows()[2:] == [(3, 3, "c", None), (4, None, "d", 4)]
    assert found.job.changes() == [
        "column n is gone: n is dropped REFUSED", "its columns are id, s", "column extra INT is new",
        "its columns are id, s, extra",
    ]  # fmt: skip


def test_a_value_that_a_refused_type_cannot_have_is_a_dead_letter(target, mysql):
    found = target("try_evolve")
    found.sql("CREATE VIEW seen AS SELECT n FROM t")
    mysql.sql("ALTER TABLE t MODIFY n VARCHAR(10)")
    mysql.sql("INSERT INTO t VALUES (4, 'many', 'd'), (5, '55', 'e')")
    (outcome,) = [each for each in found.job.run() if each.batch.counts.rejected]
    assert (outcome.batch.counts.rejected, found.rows()[3:]) == (1, [(5, 55, "e")])
    with found.job.open() as session:
        (letter,) = session.ledger.dead_letters.open_with_bytes("captured", session.pipeline.target)
        assert "column n is INT" in letter.error
        raw = raw_records([letter], session.pipeline.raw_schema)
        assert raw.column("value").to_pylist()[0]["n VARCHAR(10)"] == "many"


def test_the_key_may_have_another_name_and_a_wider_type(target, mysql):
    found = target("evolve")
    mysql.sql("ALTER TABLE t CHANGE id number BIGINT")
    mysql.sql("INSERT INTO t VALUES (4000000000, 4, 'd')")
    mysql.sql("UPDATE t SET s = 'x' WHERE number = 1")
    mysql.sql("DELETE FROM t WHERE number = 2")
    found.job.run()
    rows = found.sql("SELECT number, n, s FROM t ORDER BY 1")
    assert rows == [(1, 1, "x"), (3, 3, "c"), (4000000000, 4, "d")]
    mysql.sql("UPDATE t SET s = 'y' WHERE number = 3")
    found.job.run()
    assert found.sql("SELECT s FROM t WHERE number = 3") == [("y",)]


def test_older_batches_are_replayed_into_the_columns_of_today(target, mysql):
    found = target("evolve")
    mysql.sql("ALTER TABLE t RENAME COLUMN s TO said")
    mysql.sql("INSERT INTO t VALUES (4, 4, 'd')")
    mysql.sql("ALTER TABLE t DROP COLUMN n, ADD COLUMN m INT, MODIFY said TEXT")
    mysql.sql("INSERT INTO t VALUES (5, 'e', 5)")
    mysql.sql("ALTER TABLE t ADD COLUMN n INT")
    found.job.run()
    before = found.rows()
    with found.job.open() as session:
        session.target()
        session.sink.forget("captured")
    found.sql("TRUNCATE t")
    found.job.run("replay")
    assert found.rows() == before
    ours, theirs = found.as_source()
    assert ours == list(theirs)


@pytest.mark.parametrize("step", ["archived", "staged", "committing", "committed", "evolved"])
def test_killed_around_a_change_the_target_is_the_table(target, mysql, step):
    found = target("evolve")
    mysql.sql("INSERT INTO t VALUES (4, 4, 'd')")
    mysql.sql("ALTER TABLE t DROP COLUMN n, RENAME COLUMN s TO n, ADD COLUMN x INT")
    mysql.sql("INSERT INTO t VALUES (5, 'e', 5)")
    mysql.sql("ALTER TABLE t RENAME COLUMN n TO x, RENAME COLUMN x TO n")
    mysql.sql("UPDATE t SET x = 'z' WHERE id = 1")
    for number in (1, 2, 3):
        code = found.job.run_apart(f"{step}:{number}")
        assert code in (-signal.SIGKILL, 0)
        assert code or number > 1
    found.job.run()
    ours, theirs = found.as_source()
    assert ours == list(theirs)
    assert [name for name, _ in found.columns()] == ["id", "x", "n"]


def test_a_table_changes_while_its_rows_are_being_read(tmp_path, mysql, postgres):
    mysql.sql("CREATE TABLE t (id INT PRIMARY KEY, n INT, s VARCHAR(50))")
    mysql.sql("INSERT INTO t VALUES (%s, 1, 'a')", *[(number,) for number in range(100)])
    found = PostgresTarget(
        tmp_path, mysql, postgres, "CREATE TABLE t (id int PRIMARY KEY, n int, s varchar(50))", behavior="evolve",
        options={"scan.incremental.snapshot.chunk.size": "20"},
    )  # fmt: skip
    for number, text in enumerate((
        "ADD COLUMN x INT", "RENAME COLUMN s TO said", "DROP COLUMN n", "ADD COLUMN n BIGINT",
        "RENAME COLUMN n TO said, RENAME COLUMN said TO n",
    )):  # fmt: skip
        assert found.job.run_apart("committed:1") == -signal.SIGKILL
        mysql.sql(f"UPDATE t SET id = id + 1000 WHERE id % 20 = {number}")
        mysql.sql(f"ALTER TABLE t {text}")
        mysql.sql(f"DELETE FROM t WHERE id % 20 = {number + 10}")
    found.job.run()
    ours, theirs = found.as_source()
    assert ours == list(theirs)
    assert len(ours) == 100 - 25


def test_a_table_that_is_dropped_and_made_anew_goes_on_when_that_is_wanted(target, mysql):
    found = target("evolve")
    mysql.sql("DROP TABLE t")
    mysql.sql("CREATE TABLE t (id INT PRIMARY KEY, other DATE)")
    mysql.sql("INSERT INTO t VALUES (9, '2026-01-02')")
    with pytest.raises(PositionLostError, match="DELETED"):
        found.job.run()
    found.job.spec = replace(found.job.spec, settings={"vector-assets.on-position-lost": "skip"})
    found.job.run()
    assert [name for name, _ in found.columns()] == ["id", "other"]
    assert [row[0] for row in found.rows()] == [1, 2, 3, 9]
    mysql.sql("TRUNCATE t")
    mysql.sql("INSERT INTO t VALUES (10, NULL)")
    found.job.run()
    assert [row[0] for row in found.rows()] == [1, 2, 3, 9, 10]


def test_two_tables_into_one_target_widen_it_and_take_nothing_away(tmp_path, mysql, postgres):
    mysql.sql("CREATE TABLE t_1 (id INT PRIMARY KEY, n INT)")
    mysql.sql("CREATE TABLE t_2 (id INT PRIMARY KEY, s VARCHAR(9), n BIGINT)")
    mysql.sql("INSERT INTO t_1 VALUES (1, 1)")
    mysql.sql("INSERT INTO t_2 VALUES (2, 'b', 5000000000)")
    found = PostgresTarget(
        tmp_path, mysql, postgres, "CREATE TABLE t (id int PRIMARY KEY, n int)", "t_[12]", behavior="evolve",
        is_merged=True,
    )  # fmt: skip
    found.job.run()
    mysql.sql("ALTER TABLE t_2 DROP COLUMN n")
    mysql.sql("INSERT INTO t_2 VALUES (3, 'c')")
    found.job.run()
    assert found.columns() == [("id", "integer"), ("n", "bigint"), ("s", "character varying(9)")]
    assert found.rows() == [(1, 1, None), (2, 5000000000, "b"), (3, None, "c")]


@pytest.mark.parametrize("step", ["sealed", "committing", "evolved"])
def test_killed_around_a_change_the_delta_table_is_the_table(tmp_path, mysql, maxcompute, step):
    mysql.sql("CREATE TABLE t (id INT PRIMARY KEY, n INT, s VARCHAR(50))")
    mysql.sql("INSERT INTO t VALUES (1, 1, 'a'), (2, 2, 'b'), (3, 3, 'c')")
    found = MaxComputeTarget(tmp_path, mysql, maxcompute, "id int NOT NULL, n int, s varchar(50)", behavior="evolve")
    found.job.run()
    mysql.sql("ALTER TABLE t DROP COLUMN n, RENAME COLUMN s TO n, ADD COLUMN x INT")
    mysql.sql("INSERT INTO t VALUES (5, 'e', 5)")
    mysql.sql("ALTER TABLE t RENAME COLUMN n TO x, RENAME COLUMN x TO n")
    mysql.sql("UPDATE t SET x = 'z' WHERE id = 1")
    for number in (1, 2):
        code = found.job.run_apart(f"{step}:{number}")
        assert code in (-signal.SIGKILL, 0)
        assert code or number > 1
    found.job.run()
    ours, theirs = found.as_source()
    assert ours == theirs
    assert sorted(name for name, _ in found.columns()) == ["id", "n", "x"]


def test_a_key_of_a_delta_table_stays_as_it_was_made(tmp_path, mysql, maxcompute):
    mysql.sql("CREATE TABLE t (id INT PRIMARY KEY, n INT)")
    found = MaxComputeTarget(tmp_path, mysql, maxcompute, "id int NOT NULL, n int", behavior="evolve")
    mysql.sql("INSERT INTO t VALUES (1, 1)")
    found.job.run()
    mysql.sql("ALTER TABLE t MODIFY id BIGINT")
    mysql.sql("INSERT INTO t VALUES (2, 2)")
    with pytest.raises(FatalError, match=r"id becomes BIGINT.*primary key, which stays as it was made"):
        found.job.run()
    found.job.spec = replace(found.job.spec, behavior="try_evolve")
    found.job.run()
    assert found.as_source()[0] == [(1, 1), (2, 2)]
