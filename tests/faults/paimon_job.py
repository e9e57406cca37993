"""Cars from a topic into a Paimon table, in a folder of its own, run in this process or killed in another."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.faults.apart import Apart
from tests.faults.place import placed
from vector_assets.declare import flink_sql
from vector_assets.engine.run import Outcome, Runner
from vector_assets.engine.session import Books, Session

SCRIPT = """
SET 'pipeline.name' = 'cars';
SET 'vector-assets.batch.max-rows' = '50';
SET 'vector-assets.lease.ttl' = '2 s';
CREATE TABLE car_rows (id INT, price INT, color VARCHAR(10){key}) WITH (
  'connector' = 'paimon', 'warehouse' = '{warehouse}', 'catalog-database' = 'db', 'catalog-table' = 'cars'{options});
CREATE TABLE car_records (id INT, price INT, color STRING) WITH (
  'connector' = 'kafka', 'properties.bootstrap.servers' = '{brokers}', 'topic' = '{topic}', 'format' = 'csv',
  'scan.startup.mode' = 'earliest-offset');
INSERT INTO car_rows SELECT * FROM car_records;
"""
KEYED = {"key": ", PRIMARY KEY (id) NOT ENFORCED", "options": ", 'bucket' = '2'"}
APPEND = {"key": "", "options": ""}


class PaimonJob:
    """A topic, a warehouse and the script between them."""

    def __init__(self, folder: Path, kafka, warehouse: Path | None = None, *, kind=APPEND) -> None:
        self.folder, self.kafka = folder, kafka
        self.topic = kafka.create_topic(partitions=2)
        self.warehouse = warehouse or folder / "warehouse"
        (self.warehouse / "db.db").mkdir(parents=True)
        (folder / "pipelines").mkdir()
        script = SCRIPT.format(
            warehouse=self.warehouse, brokers=kafka.bootstrap_servers, topic=self.topic, **kind
        )  # fmt: skip
        (folder / "pipelines" / "cars.sql").write_text(script)
        self.environment = {
            "VECTOR_ASSETS_HOME": str(folder / "home"),
            "VECTOR_ASSETS_PIPELINES": str(folder / "pipelines"),
        }

    @property
    def path(self) -> Path:
        return self.warehouse / "db.db" / "cars"

    def produce(self, ids) -> None:
        ids = list(ids)
        for partition in range(2):
            values = [f"{i},{i * 10},red".encode() for i in ids if i % 2 == partition]
            self.kafka.produce(self.topic, values, partition=partition)

    @contextmanager
    def open(self) -> Iterator[Session]:
        """A session on the job's own books."""
        with placed(self.environment):
            (pipeline,) = flink_sql.load_file(self.folder / "pipelines" / "cars.sql")
            books = Books.open()
        with closing(books), Session(pipeline, books) as session:
            yield session

    def run(self) -> list[Outcome]:
        """Drain in this process."""
        with self.open() as session:
            return list(Runner(session).catch_up())

    def start(self, fail_at: str = "", command: str = "run") -> Apart:
        environment = {**os.environ, **self.environment, "VECTOR_ASSETS_FAIL_AT": fail_at}
        return Apart([*command.split(), "cars"], environment, self.folder)

    def run_apart(self, fail_at: str = "", command: str = "run") -> tuple[int, str]:
        process = self.start(fail_at, command)
        output, _ = process.communicate(timeout=90)
        return process.returncode, output

    def rows(self) -> list[tuple[int, int, str]]:
        """The target's rows by id."""
        with self.open() as session:
            if session.sink.storage.load() is None:
                return []
            found = session.sink.relation().read_all()
        return sorted(zip(*(column.to_pylist() for column in found.columns), strict=True))

    def snapshots(self) -> list[str]:
        return sorted(path.name for path in (self.path / "snapshot").glob("snapshot-*"))

    def assert_settled(self, ids) -> None:
        """Nothing lost, doubled or left open, and one more run makes no snapshot."""
        assert self.rows() == [(i, i * 10, "red") for i in sorted(ids)]
        before = self.snapshots()
        assert self.run() == []
        assert self.snapshots() == before
        with self.open() as session:
            where = (session.pipeline.name, session.pipeline.target)
            assert session.ledger.unfinished(*where) == []
            assert not session.ledger.leases.is_held(*where)
