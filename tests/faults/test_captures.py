"""Flink CDC files run by the command line: killed at every step, by two workers, with the books or the binlog lost."""

import json
import os
import random
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cdc_model import Model
from tests.e2e.cdc_world import World, block, cdc_world, maxcompute_sink, reconciled
from tests.e2e.test_cdc_kafka import canal
from tests.faults.apart import Apart
from tests.faults.test_crash import wait_for_stop
from vector_assets.engine import env

__all__ = ["cdc_world"]
pytestmark = pytest.mark.service

SETTINGS = {"vector-assets.batch.max-rows": "40", "vector-assets.lease.ttl": "2 s", "schema.change.behavior": "evolve"}
TYPES = {"id": "bigint(20)", "n": "int(11)", "s": "varchar(50)"}


class Job:
    """`shop.yaml` with one table `t`, and the Delta table that it becomes."""

    def __init__(self, folder: Path, file: Path, maxcompute: Any, table: str) -> None:
        self.folder, self.file, self.maxcompute, self.table = folder, file, maxcompute, table
        (folder / "runs").mkdir()

    def begin(self, *arguments: str, fail_at: str = "") -> Apart:
        """A command in a process of its own."""
        return Apart(arguments, {**os.environ, "VECTOR_ASSETS_FAIL_AT": fail_at}, self.folder / "runs")

    def command(self, *arguments: str, fail_at: str = "") -> tuple[int | None, str]:
        """The same to its end: exit code and what it wrote."""
        process = self.begin(*arguments, fail_at=fail_at)
        output, _ = process.communicate(timeout=120)
        return process.returncode, output

    def capture(self) -> str:
        """Look for the tables; the name of the only pipeline."""
        code, output = self.command("capture", str(self.file), "--json")
        assert code == 0, output
        (found,) = json.loads(output[output.index("{") :])["captures"]
        (name,) = (name for table in found["tables"] for name in table["pipelines"])
        return str(name)

    def run(self, name: str, *more: str) -> str:
        """Land what is new; what was said."""
        code, output = self.command("run", name, *more)
        assert code == 0, output
        return output

    def rows(self, columns: Iterable[str]) -> list[tuple[Any, ...]]:
        """The target's."""
        listed = ", ".join(columns)
        found = self.maxcompute.rows(f"SELECT {listed} FROM {self.table}")
        return sorted((int(row[0]), *row[1:]) for row in found)

    def assert_settled(self, name: str) -> None:
        """One more run does nothing; what is there is what the archive says."""
        code, output = self.command("run", name, "--json")
        assert code == 0, output
        assert json.loads(output[output.index("{") :])["batches"]["applied"] == 0, output
        from vector_assets.declare import load_file

        (pipeline,) = load_file(self.file)
        found = reconciled(pipeline)
        assert found.is_right(), found.findings


@pytest.fixture
def mysql_job(cdc_world: World, maxcompute: Any, tmp_path: Path) -> Job:
    """The table is one of MySQL."""
    table = maxcompute.fresh_name("faults")
    job = Job(tmp_path, cdc_world.file, maxcompute, table)
    job.world = cdc_world  # type: ignore[attr-defined]
    write_mysql(cdc_world, job)
    return job


def write_mysql(world: World, job: Job, **settings: str) -> None:
    """The file over the table `t`."""
    world.write(
        world.source(rf"{world.mysql.database}.t", **{"scan.incremental.snapshot.chunk.size": "37"}),
        maxcompute_sink(job.maxcompute),
        "route:", f"  - source-table: {world.mysql.database}.t", f"    sink-table: {job.table}",
        block("pipeline", {**SETTINGS, **settings}),
    )  # fmt: skip


def assert_as_source(job: Job, mysql: Any, name: str) -> None:
    """The target has the rows of the table, value by value, and its columns."""
    columns = [row[0] for row in mysql.sql("SHOW COLUMNS FROM t")]
    listed = ", ".join(f"`{column}`" for column in columns)
    assert job.rows(columns) == sorted(mysql.sql(f"SELECT {listed} FROM t"))
    found = [column.name for column in job.maxcompute.odps.get_table(job.table).table_schema.columns]
    assert sorted(found) == sorted(columns)
    job.assert_settled(name)


def test_killed_at_every_step_while_columns_change_the_delta_table_is_the_table(mysql_job, mysql):
    model = Model(mysql.sql, 7, ddl=0.08)
    for _ in range(60):
        model.step()
    name = mysql_job.capture()
    killed = 0
    for number, step in enumerate((*env.STEPS, *env.RARE_STEPS)):
        for _ in range(12):
            model.step()
        if step == "evolved":
            model.alter()
            model.step()
        code, output = mysql_job.command("run", name, fail_at=f"{step}:{1 if step == 'evolved' else 1 + number % 3}")
        assert code in (0, -signal.SIGKILL), output
        killed += code == -signal.SIGKILL
    assert killed > len(env.STEPS) - 2
    mysql_job.run(name)
    assert_as_source(mysql_job, mysql, name)


@pytest.mark.parametrize("step", ["sealed", "committing"])
def test_two_workers_on_a_table_of_a_cdc_file_land_it_once(mysql_job, mysql, step):
    model = Model(mysql.sql, 8, ddl=0)
    for _ in range(80):
        model.step()
    name = mysql_job.capture()
    zombie = mysql_job.begin("run", name, fail_at=f"{step}:2:stop")
    wait_for_stop(zombie)
    model.run("ALTER TABLE t ADD COLUMN late INT")
    for _ in range(10):
        model.step()
    mysql_job.run(name)
    zombie.send_signal(signal.SIGCONT)
    output, _ = zombie.communicate(timeout=120)
    assert zombie.returncode == 1, output
    assert "lease" in output or "fence" in output, output
    assert_as_source(mysql_job, mysql, name)


def lose_ledger(job: Job) -> None:
    for file in (job.folder / "home").glob("ledger.db*"):
        file.unlink()


@pytest.mark.parametrize("where", ["initial", "latest"])
def test_a_cdc_file_whose_ledger_was_lost_stops_until_somebody_says_where_to_go_on(mysql_job, mysql, where):
    model = Model(mysql.sql, 9, ddl=0.05)
    for _ in range(60):
        model.step()
    name = mysql_job.capture()
    mysql_job.run(name)
    model.run("ALTER TABLE t ADD COLUMN late INT")
    model.run("REPLACE INTO t (id, late) VALUES (1, 5)")
    mysql_job.run(name)
    lose_ledger(mysql_job)
    model.ddl = 0
    if where == "initial":
        for _ in range(20):
            model.step()
    assert mysql_job.capture() == name
    code, output = mysql_job.command("run", name)
    assert code == 1, output
    assert "--start-at" in output, output
    mysql_job.run(name, "--start-at", where)
    if where == "latest":
        for _ in range(20):
            model.step()
        mysql_job.run(name)
    columns = [row[0] for row in mysql.sql("SHOW COLUMNS FROM t")]
    listed = ", ".join(f"`{column}`" for column in columns)
    ours, theirs = mysql_job.rows(columns), sorted(mysql.sql(f"SELECT {listed} FROM t"))
    if where == "initial":
        # what was deleted while nobody looked stays: the rows that are there say nothing of it
        gone = {row[0] for row in ours} - {row[0] for row in theirs}
        ours = [row for row in ours if row[0] not in gone]
    assert ours == theirs


def test_columns_that_changed_after_the_ledger_was_lost_are_named_and_mended_by_hand(mysql_job, mysql):
    mysql.sql("CREATE TABLE t (id INT PRIMARY KEY, n INT, s VARCHAR(9))")
    mysql.sql("INSERT INTO t VALUES (1, 1, 'a'), (2, 2, 'b')")
    name = mysql_job.capture()
    mysql_job.run(name)
    lose_ledger(mysql_job)
    mysql.sql("ALTER TABLE t ADD COLUMN late INT, MODIFY n VARCHAR(9)")
    mysql.sql("INSERT INTO t VALUES (3, 'x', 'c', 5)")
    mysql_job.capture()
    code, output = mysql_job.command("run", name, "--start-at", "initial")
    assert code == 1
    assert f"{mysql_job.table}: column n is INT there; the pipeline sends STRING" in output
    mysql_job.maxcompute.sql(f"ALTER TABLE {mysql_job.table} CHANGE COLUMN n n STRING")
    code, output = mysql_job.command("run", name)
    assert code == 1
    assert "column late does not exist" in output
    mysql_job.maxcompute.sql(f"ALTER TABLE {mysql_job.table} ADD COLUMNS (late INT)")
    mysql_job.run(name, "--start-at", "initial")
    assert_as_source(mysql_job, mysql, name)


def test_a_purged_binlog_stops_a_table_of_a_cdc_file_and_all_rows_may_be_read_anew(
    cdc_world, own_mysql, maxcompute, tmp_path
):
    cdc_world.mysql = mysql = own_mysql()
    job = Job(tmp_path, cdc_world.file, maxcompute, maxcompute.fresh_name("purged"))
    write_mysql(cdc_world, job)
    model = Model(mysql.sql, 10, ddl=0)
    for _ in range(60):
        model.step()
    name = job.capture()
    job.run(name)
    model.run("ALTER TABLE t ADD COLUMN late INT, DROP COLUMN c0")
    model.columns = {"c1": "VARCHAR(30)", "late": "INT"}
    for _ in range(10):
        model.step()
    mysql.sql("FLUSH BINARY LOGS")
    model.step()
    mysql.sql(f"PURGE BINARY LOGS TO '{mysql.sql('SHOW MASTER STATUS')[0][0]}'")
    before = job.rows(["id", "c0", "c1"])
    code, output = job.command("run", name)
    assert code == 1
    assert "TRUNCATED" in output
    assert f"vector-assets reset {name} --to initial" in output
    assert job.rows(["id", "c0", "c1"]) == before
    code, output = job.command("reset", name, "--to", "initial", "--yes")
    assert code == 0, output
    job.run(name)
    for _ in range(10):
        model.step()
    job.run(name)
    ours, theirs = job.rows(["id", "c1", "late"]), sorted(mysql.sql("SELECT id, c1, late FROM t"))
    gone = {row[0] for row in ours} - {row[0] for row in theirs}
    assert gone <= {row[0] for row in before}
    assert [row for row in ours if row[0] not in gone] == theirs


class Records:
    """Changes of one table in topics, as canal writes them, and the rows that they come to."""

    def __init__(self, kafka: Any, table: str) -> None:
        self.kafka, self.table, self.topic = kafka, table, kafka.create_topic(3)
        self.chance, self.types = random.Random(4), dict(TYPES)
        self.rows: dict[int, dict[str, Any]] = {}

    def send(self, count: int) -> None:
        """So many random changes; a row is of one partition."""
        for partition in range(3):
            found = [record for _ in range(count // 3) for record in self._change(partition)]
            self.kafka.produce(self.topic, [json.dumps(each) for each in found], None, partition)

    def _change(self, partition: int) -> Iterable[dict[str, Any]]:
        number = self.chance.randrange(60) * 3 + partition
        before = self.rows.pop(number, None)
        if before is not None and self.chance.random() < 0.3:
            yield self._record("DELETE", before)
            return
        row = {"id": str(number), "n": self.chance.choice([None, str(number)]), "s": f"ä{self.chance.random()}"}
        row |= {name: str(self.chance.randrange(99)) for name in self.types if name not in row}
        self.rows[number] = row
        if before is None:
            yield self._record("INSERT", row)
        else:
            yield self._record("UPDATE", row, old=[{name: before.get(name) for name in row}])
        # somebody else's, which every pipeline of the file passes over
        yield canal("other", "INSERT", {"id": "1", "n": None, "s": "x"}, types=TYPES, database="elsewhere")

    def _record(self, kind: str, row: dict[str, Any], **more: Any) -> dict[str, Any]:
        return canal(self.table, kind, row, types=self.types, **more)

    def wanted(self, columns: Iterable[str]) -> list[tuple[Any, ...]]:
        """The rows as the target gives them."""
        return sorted(
            tuple(
                value if name == "s" or value is None else int(value) for name in columns for value in [row.get(name)]
            )
            for row in self.rows.values()
        )


@pytest.fixture
def kafka_job(tmp_path: Path, kafka: Any, maxcompute: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Job, Records]:
    """The table is one whose changes are in a topic."""
    monkeypatch.setenv("VECTOR_ASSETS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("VECTOR_ASSETS_PIPELINES", str(tmp_path / "pipelines"))
    (tmp_path / "pipelines").mkdir()
    records = Records(kafka, maxcompute.fresh_name("topics"))
    job = Job(tmp_path, tmp_path / "pipelines" / "shop.yaml", maxcompute, records.table)
    source = {
        "type": "kafka", "properties.bootstrap.servers": kafka.bootstrap_servers, "topic": records.topic,
        "scan.startup.mode": "earliest-offset", "value.format": "canal-json", "tables": r"shop.\.*",
    }  # fmt: skip
    job.file.write_text("\n".join([block("source", source), maxcompute_sink(maxcompute), block("pipeline", SETTINGS)]))
    return job, records


def test_killed_at_every_step_a_table_out_of_topics_is_what_its_records_come_to(kafka_job):
    job, records = kafka_job
    records.send(120)
    name = job.capture()
    killed = 0
    for number, step in enumerate((*env.STEPS, *env.RARE_STEPS)):
        if step == "evolved":
            records.types["extra"] = "bigint(20)"
        records.send(90)
        code, output = job.command("run", name, fail_at=f"{step}:{1 + number % 2 if step != 'evolved' else 1}")
        assert code in (0, -signal.SIGKILL), output
        killed += code == -signal.SIGKILL
    assert killed == len(env.STEPS) + 1
    records.send(60)
    job.run(name)
    columns = list(records.types)
    assert job.rows(columns) == records.wanted(columns)
    job.assert_settled(name)


def test_two_workers_on_a_table_out_of_topics_land_it_once(kafka_job):
    job, records = kafka_job
    records.send(240)
    name = job.capture()
    zombie = job.begin("run", name, fail_at="committing:2:stop")
    wait_for_stop(zombie)
    records.send(60)
    job.run(name)
    zombie.send_signal(signal.SIGCONT)
    output, _ = zombie.communicate(timeout=120)
    assert zombie.returncode == 1, output
    assert job.rows(TYPES) == records.wanted(TYPES)
    job.assert_settled(name)
