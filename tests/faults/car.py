"""The main job in a folder of its own, run in this process or killed in another."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.faults.apart import Apart
from tests.faults.place import placed
from vector_assets.declare import flink_sql
from vector_assets.engine import env
from vector_assets.engine.run import Outcome, Runner
from vector_assets.engine.session import Books, Session

SCRIPT = """
SET 'pipeline.name' = 'cars';
SET 'vector-assets.batch.max-rows' = '{max_rows}';
SET 'vector-assets.lease.ttl' = '2 s';
{settings}
CREATE TABLE car_rows (id INT, market_time TIMESTAMP, color VARCHAR(10), price INT, feature VARCHAR) WITH (
  'connector' = 'adbpg', 'url' = '{url}', 'tablename' = 'car_info', 'targetschema' = 'vector_test',
  'username' = '{user}', 'password' = '${{secret_values.test_password}}', 'batchsize' = '20',
  'conflictmode' = '{conflictmode}', 'writemode' = '{writemode}', 'vector.dimensions' = 'feature:3');
CREATE TABLE car_records (id INT, market_time TIMESTAMP, color VARCHAR(10), price INT, feature STRING) WITH (
  'connector' = 'kafka', 'properties.bootstrap.servers' = '{brokers}', 'topic' = '{topic}', 'format' = 'csv',
  'csv.field-delimiter' = '\\t', 'scan.startup.mode' = 'earliest-offset');
INSERT INTO car_rows SELECT * FROM car_records;
"""
TABLE = """
CREATE SCHEMA vector_test;
CREATE TABLE vector_test.car_info (id bigint PRIMARY KEY, market_time timestamp, color varchar(10), price int,
  feature float4[], landed_by xid8 DEFAULT pg_current_xact_id());
"""


def record(number: int, price: int | None = None) -> bytes:
    """One good record."""
    price = number if price is None else price
    return f"{number}\t2026-03-01 12:00:00\tred\t{price}\t{{{number}.5,1,2}}".encode()


class CarJob:
    """Kafka topic, PostgreSQL table and a script between them."""

    def __init__(
        self, folder: Path, kafka, postgres, *, partitions: int = 2, brokers=None, url=None, ledger=None, **script
    ) -> None:
        self.folder, self.kafka, self.postgres = folder, kafka, postgres
        self.topic = kafka.create_topic(partitions=partitions)
        self.partitions = partitions
        self.database = postgres.create_database()
        with postgres.connect(self.database, autocommit=True) as connection:
            connection.execute(TABLE)
        self.values = {
            "max_rows": 50, "settings": "", "conflictmode": "ignore", "writemode": 1,
            "url": url or postgres.jdbc_url(self.database), "user": postgres.user,
            "brokers": brokers or kafka.bootstrap_servers, "topic": self.topic,
        } | script  # fmt: skip
        self.environment = {
            "VECTOR_ASSETS_HOME": str(folder / "home"),
            "VECTOR_ASSETS_PIPELINES": str(folder / "pipelines"),
            env.secret_variable("test_password"): postgres.password,
        } | ({"VECTOR_ASSETS_LEDGER": ledger} if ledger else {})
        (folder / "pipelines").mkdir()
        self.write()

    def write(self, **changes) -> None:
        """Write the script, with some values changed."""
        self.values |= changes
        (self.folder / "pipelines" / "cars.sql").write_text(SCRIPT.format(**self.values))

    def produce(self, ids, **kwargs) -> None:
        """Records of these ids, spread over the partitions."""
        ids = list(ids)
        self.produce_raw([record(i, **kwargs) for i in ids], [i % self.partitions for i in ids])

    def produce_raw(self, values, partition=0) -> None:
        self.kafka.produce(self.topic, values, partition=partition)

    def run(self) -> list[Outcome]:
        """Drain in this process."""
        with self.open() as session:
            return list(Runner(session).catch_up())

    @contextmanager
    def open(self) -> Iterator[Session]:
        """A session on the job's own books."""
        with placed(self.environment):
            (pipeline,) = flink_sql.load_file(self.folder / "pipelines" / "cars.sql")
            books = Books.open()
        with closing(books), Session(pipeline, books) as session:
            yield session

    def start(self, fail_at: str = "", command: str = "run") -> Apart:
        """`vector-assets run cars` (or another command, options and all) in a process of its own."""
        environment = {**os.environ, **self.environment, "VECTOR_ASSETS_FAIL_AT": fail_at}
        return Apart([*command.split(), "cars"], environment, self.folder)

    def run_apart(self, fail_at: str = "", command: str = "run") -> tuple[int, str]:
        """Run it in a process of its own to its end: exit code and output."""
        process = self.start(fail_at, command)
        output, _ = process.communicate(timeout=90)
        return process.returncode, output

    def rows(self, columns: str = "id") -> list:
        """The target's rows by id, read with the target's own client."""
        with self.postgres.connect(self.database) as connection:
            found = connection.execute(f"SELECT {columns} FROM vector_test.car_info ORDER BY id").fetchall()
        return [row[0] if len(row) == 1 else row for row in found]

    def execute(self, statement: str) -> None:
        with self.postgres.connect(self.database, autocommit=True) as connection:
            connection.execute(statement)

    def assert_settled(self, expected) -> None:
        """Nothing lost, doubled or left open, and one more run is a no-op."""
        assert self.rows() == sorted(expected)
        before = self.rows("id, landed_by, xmin")
        assert self.run() == []
        assert self.rows("id, landed_by, xmin") == before
        with self.open() as session:
            assert session.ledger.unfinished(session.pipeline.name, session.pipeline.target) == []
            assert not session.ledger.leases.is_held(session.pipeline.name, session.pipeline.target)
