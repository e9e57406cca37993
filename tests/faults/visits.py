"""A MaxCompute table that a pipeline follows into PostgreSQL, run in this process or killed in another."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.faults.apart import Apart
from tests.faults.place import placed
from tests.sources.following import Followed
from vector_assets.declare import flink_sql
from vector_assets.engine import env
from vector_assets.engine.run import Outcome, Runner
from vector_assets.engine.session import Books, Session

SCRIPT = """
SET 'pipeline.name' = 'visits';
SET 'vector-assets.batch.max-rows' = '{max_rows}';
SET 'vector-assets.lease.ttl' = '2 s';
SET 'vector-assets.outage.timeout' = '2 s';
CREATE TEMPORARY TABLE odps_source (id BIGINT, name VARCHAR) WITH (
  'connector' = 'odps', 'endpoint' = '{endpoint}', 'project' = 'local', 'tableName' = '{table}',
  'accessId' = '{access_id}', 'accessKey' = '${{secret_values.test_access_key}}', 'startPartition' = '{start}',
  'modifiedTableOperation' = '{operation}', 'subscribeIntervalInSec' = '1',
  'vector-assets.partition.quiet' = '{quiet}', 'sleepMillis' = '10');
CREATE TEMPORARY TABLE visits (id BIGINT, name VARCHAR, PRIMARY KEY (id) NOT ENFORCED) WITH (
  'connector' = 'adbpg', 'url' = '{url}', 'tablename' = 'visits', 'targetschema' = 'public',
  'username' = '{user}', 'password' = '${{secret_values.test_password}}', 'batchsize' = '20');
INSERT INTO visits SELECT id, name FROM odps_source;
"""


class VisitJob:
    """A table with the partition column `ds`, one with a key, and a script between them."""

    def __init__(self, folder: Path, maxcompute, postgres, **script) -> None:
        self.folder, self.postgres = folder, postgres
        self.table = Followed(maxcompute)
        self.database = postgres.create_database()
        with postgres.connect(self.database, autocommit=True) as connection:
            connection.execute(
                "CREATE TABLE visits (id bigint PRIMARY KEY, name text, landed_by xid8 DEFAULT pg_current_xact_id())"
            )
        service = maxcompute.service
        self.values = {
            "max_rows": 20, "endpoint": service.endpoint, "table": self.table.name, "access_id": service.access_id,
            "start": "ds=20180901", "quiet": "0 s",
            "operation": "NONE", "url": postgres.jdbc_url(self.database), "user": postgres.user,
        } | script  # fmt: skip
        self.environment = {
            "VECTOR_ASSETS_HOME": str(folder / "home"),
            "VECTOR_ASSETS_PIPELINES": str(folder / "pipelines"),
            env.secret_variable("test_password"): postgres.password,
            env.secret_variable("test_access_key"): service.access_key,
        }
        (folder / "pipelines").mkdir()
        self.write()

    def write(self, **changes) -> None:
        """Write the script, with some values changed."""
        self.values |= changes
        (self.folder / "pipelines" / "visits.sql").write_text(SCRIPT.format(**self.values))

    @contextmanager
    def open(self) -> Iterator[Session]:
        """A session on the job's own books."""
        with placed(self.environment):
            (pipeline,) = flink_sql.load_file(self.folder / "pipelines" / "visits.sql")
            books = Books.open()
        with closing(books), Session(pipeline, books) as session:
            yield session

    def run(self) -> list[Outcome]:
        """Drain in this process."""
        with self.open() as session:
            return list(Runner(session).catch_up())

    def run_apart(self, fail_at: str = "", command: str = "run") -> tuple[int, str]:
        """A command in a process of its own to its end: exit code and output."""
        environment = {**os.environ, **self.environment, "VECTOR_ASSETS_FAIL_AT": fail_at}
        process = Apart([*command.split(), "visits"], environment, self.folder)
        output, _ = process.communicate(timeout=90)
        return process.returncode, output

    def ids(self) -> list[int]:
        """The keys in the target."""
        return [row[0] for row in self.rows("id")]

    def rows(self, columns: str = "id, landed_by, xmin") -> list:
        with self.postgres.connect(self.database) as connection:
            return connection.execute(f"SELECT {columns} FROM visits ORDER BY id").fetchall()

    def batches(self) -> list[tuple[str, str]]:
        """Kind and partition of every batch that is done."""
        with self.open() as session:
            found = session.ledger.batches(session.pipeline.name)
            return [(str(batch.kind), batch.hour) for batch in found if batch.state == "DONE"]

    def gaps(self) -> list[tuple[str, int, int | None, str]]:
        with self.open() as session:
            return [(gap.kind, gap.start, gap.end, gap.state) for gap in session.ledger.gaps("visits")]

    def assert_settled(self, expected) -> None:
        """Nothing lost, doubled or left open, and one more run is a no-op."""
        assert self.ids() == sorted(expected)
        before = self.rows()
        assert self.run() == []
        assert self.rows() == before
        with self.open() as session:
            assert session.ledger.unfinished(session.pipeline.name, session.pipeline.target) == []
