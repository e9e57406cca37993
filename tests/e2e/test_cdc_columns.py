"""Columns of a MySQL table change while its pipeline runs: every behaviour, every kind of change, on real servers."""

import pytest

from tests.faults.captured import CapturedJob, Spec, declared
from tests.sources.maxcompute_table import options_of

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
