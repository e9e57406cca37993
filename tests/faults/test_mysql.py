"""MySQL to PostgreSQL: killed at every step of a batch, in the snapshot, at the hand-over and in the stream."""

import os
import random
import signal
import threading
from pathlib import Path
from typing import Any

import pymysql
import pytest

from tests.faults.apart import Apart
from tests.faults.changes import ChangeJob
from tests.faults.test_crash import wait_for_stop
from tests.fix_mysql import on_both_servers
from tests.sources.mysql_model import change
from vector_assets.engine import env
from vector_assets.engine.core import State
from vector_assets.engine.errors import PositionLostError

pytestmark = pytest.mark.service
pytest_generate_tests = on_both_servers

SCRIPT = """
SET 'pipeline.name' = 'people';
SET 'vector-assets.batch.max-rows' = '40';
SET 'vector-assets.lease.ttl' = '2 s';
{settings}
CREATE TABLE src (id INT NOT NULL, n INT, s STRING, PRIMARY KEY (id) NOT ENFORCED) WITH ({source});
CREATE TABLE people (id INT NOT NULL, n INT, s STRING, PRIMARY KEY (id) NOT ENFORCED) WITH (
  'connector' = 'adbpg', 'url' = '{url}', 'tablename' = 'people', 'username' = '{user}', 'password' = '{password}',
  'conflictmode' = 'update', 'batchsize' = '40');
INSERT INTO people SELECT * FROM src;
"""


class People:
    """The target."""

    def __init__(self, server: Any) -> None:
        self.server, self.database = server, server.create_database()
        with server.connect(self.database, autocommit=True) as connection:
            connection.execute("CREATE TABLE people (id int PRIMARY KEY, n int, s text)")

    def _read(self, columns: str) -> list[tuple[Any, ...]]:
        with self.server.connect(self.database) as connection:
            return connection.execute(f"SELECT {columns} FROM people ORDER BY id").fetchall()

    def rows(self) -> dict[Any, tuple[Any, ...]]:
        return {row[0]: row for row in self._read("id, n, s")}

    def versions(self) -> list[Any]:
        return self._read("id, ctid, xmin")


class MySqlJob(ChangeJob):
    """A table of MySQL, one of PostgreSQL, and a script between them."""

    def __init__(self, folder: Path, mysql: Any, postgres: Any, **options: str) -> None:
        self.folder, self.people, self.mysql, self.options = folder, People(postgres), mysql, options
        self.settings = ""
        self.environment = {
            "VECTOR_ASSETS_HOME": str(folder / "home"),
            "VECTOR_ASSETS_PIPELINES": str(folder / "pipelines"),
        }
        (folder / "pipelines").mkdir(parents=True)
        mysql.sql("CREATE TABLE t (id INT PRIMARY KEY, n INT, s VARCHAR(50))")
        self.write()

    def write(self, **changes: Any) -> None:
        source = ", ".join(f"'{name}' = '{value}'" for name, value in self.mysql.options("t", **self.options).items())
        server = self.people.server
        text = SCRIPT.format(
            source=source, url=server.jdbc_url(self.people.database), user=server.user, password=server.password,
            settings=changes.get("settings", ""),
        )  # fmt: skip
        (self.folder / "pipelines" / "people.sql").write_text(text)

    def wanted(self) -> dict[Any, tuple[Any, ...]]:
        return {row[0]: row for row in self.mysql.sql("SELECT id, n, s FROM t")}


def mutate(mysql: Any, rng: random.Random, count: int, most: int = 300) -> None:
    with mysql.connect(database=mysql.database) as connection, connection.cursor() as cursor:
        for _ in range(count):
            try:
                change(rng, cursor.execute, "t", str, most)
            except pymysql.OperationalError:
                cursor.execute("ROLLBACK")


@pytest.fixture
def job(tmp_path, mysql, postgres):
    return MySqlJob(tmp_path, mysql, postgres, **{"scan.incremental.snapshot.chunk.size": "37"})


def test_killed_at_every_step_in_every_phase_the_target_is_the_table(job, mysql):
    """Rows 0 to 300 in chunks of 37: eight chunks, then the stream; changes come before every crash."""
    rng = random.Random(11)
    mysql.sql("INSERT INTO t VALUES (%s, 1, 'x')", *[(n,) for n in range(0, 300, 2)])
    for number, step in enumerate(env.STEPS):
        # the first passes are chunks, with a crash in the middle of the snapshot
        assert job.run_apart(f"{step}:{1 + number % 2}") == -signal.SIGKILL
        mutate(mysql, rng, 15)
    assert job.run_apart() == 0
    for step in env.STEPS:
        mutate(mysql, rng, 40)
        assert job.run_apart(f"{step}:1") == -signal.SIGKILL
    assert job.run_apart() == 0
    job.assert_settled(job.wanted())
    assert job.run_apart(what="replay") == 0
    assert job.people.rows() == job.wanted()


def test_writers_during_the_snapshot_lose_nothing_and_double_nothing(job, mysql):
    mysql.sql("INSERT INTO t VALUES (%s, 1, 'x')", *[(n,) for n in range(0, 300, 2)])
    writer = threading.Thread(target=mutate, args=(mysql, random.Random(3), 300))
    writer.start()
    chance = random.Random(4)
    while writer.is_alive():
        job.run_apart(f"{chance.choice(env.STEPS)}:{chance.randint(1, 3)}")
    writer.join()
    assert job.run_apart() == 0
    job.assert_settled(job.wanted())


def test_a_database_that_crashes_in_the_middle_of_the_snapshot_is_read_on(tmp_path, own_mysql, postgres):
    """Killed with the reader after the second chunk; rows before and behind it change meanwhile."""
    mysql = own_mysql()
    job = MySqlJob(tmp_path, mysql, postgres, **{"scan.incremental.snapshot.chunk.size": "4"})
    mysql.sql("INSERT INTO t VALUES (%s, 1, 'x')", *[(n,) for n in range(20)])
    assert job.run_apart("committed:2") == -signal.SIGKILL
    assert len(job.people.rows()) == 8
    mysql.sql("UPDATE t SET n = 2 WHERE id IN (1, 15)")
    mysql.restart(is_crash=True)
    mysql.sql("DELETE FROM t WHERE id IN (2, 16)")
    assert job.run_apart() == 0
    job.assert_settled(job.wanted())


@pytest.mark.parametrize("phase", ["snapshot", "stream"])
def test_connections_that_are_cut_again_and_again_lose_nothing(tmp_path, mysql, postgres, proxy, phase):
    """All connections are cut eight times, while batches are read through a proxy."""
    between = proxy("127.0.0.1", mysql.service.port)
    job = MySqlJob(
        tmp_path, mysql, postgres, **{"scan.incremental.snapshot.chunk.size": "10", "port": str(between.port)}
    )
    mysql.sql("INSERT INTO t VALUES (%s, 1, 'x')", *[(n,) for n in range(100)])
    if phase == "stream":
        job.run()
        mutate(mysql, random.Random(5), 150)
    done = threading.Event()

    def cut():
        for pause in (0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.3, 2.1):
            if not done.wait(pause):
                between.drop_connections()

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        job.run()
    finally:
        done.set()
        cutter.join()
    job.run()
    job.assert_settled(job.wanted())


@pytest.mark.parametrize("step", ["staged", "committing"])
def test_two_workers_on_one_pipeline_land_every_change_once(job, mysql, step):
    """The first sleeps past its lease in the snapshot, the second goes on; the first wakes up and is refused."""
    mysql.sql("INSERT INTO t VALUES (%s, 1, 'x')", *[(n,) for n in range(0, 200, 2)])
    environment = {**os.environ, **job.environment, "VECTOR_ASSETS_FAIL_AT": f"{step}:2:stop"}
    zombie = Apart(["run", "people"], environment, job.folder)
    wait_for_stop(zombie)
    mutate(mysql, random.Random(6), 20)
    assert job.run_apart() == 0
    zombie.send_signal(signal.SIGCONT)
    output, _ = zombie.communicate(timeout=90)
    assert zombie.returncode == 1, output
    job.assert_settled(job.wanted())


def test_a_restarted_database_is_read_on(tmp_path, own_mysql, postgres):
    mysql = own_mysql()
    job = MySqlJob(tmp_path, mysql, postgres)
    mysql.sql("INSERT INTO t VALUES (1, 1, 'a'), (2, 2, 'b')")
    job.run()
    for is_crash in (False, True):
        mysql.sql("UPDATE t SET n = n + 1")
        mysql.restart(is_crash=is_crash)
        mysql.sql("INSERT INTO t SELECT MAX(id) + 1, 7, 'later' FROM t")
        job.run()
        job.assert_settled(job.wanted())


def test_a_purged_binlog_is_a_named_outcome_and_may_be_skipped_by_reading_anew(tmp_path, own_mysql, postgres):
    mysql = own_mysql()
    job = MySqlJob(tmp_path, mysql, postgres)
    mysql.sql("INSERT INTO t VALUES (1, 1, 'a'), (2, 2, 'b')")
    job.run()
    mysql.sql("UPDATE t SET n = 9 WHERE id = 1")
    mysql.sql("FLUSH BINARY LOGS")
    mysql.sql("INSERT INTO t VALUES (3, 3, 'c')")
    mysql.sql(f"PURGE BINARY LOGS TO '{mysql.sql('SHOW MASTER STATUS')[0][0]}'")
    before = job.people.rows()
    with pytest.raises(PositionLostError, match=r"^TRUNCATED: .*was purged.*vector-assets reset people --to initial"):
        job.run()
    assert job.people.rows() == before
    job.write(settings="SET 'vector-assets.on-position-lost' = 'skip';")
    outcomes = job.run()
    assert all(outcome.batch.state is State.DONE for outcome in outcomes)
    assert job.people.rows() == job.wanted()
