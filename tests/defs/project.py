"""A project as a user has it: a script in a folder, a topic, a table, a DAGSTER_HOME with the repository's settings."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import dagster as dg
import pytest

from tests.fix_kafka import KafkaBroker
from tests.fix_postgres import PostgresServer
from vector_assets.engine.archive import Archive
from vector_assets.engine.env import child_environment, overridden, secret_variable
from vector_assets.engine.hours import Calendar
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.session import Books

REPOSITORY = Path(__file__).parents[2]
SCRIPT = """
SET 'vector-assets.owners' = 'team:search';
SET 'vector-assets.sensor.interval' = '1 s';
SET 'vector-assets.outage.timeout' = '5 s';
CREATE TEMPORARY TABLE announced (
  id INT,
  market_time TIMESTAMP,
  color VARCHAR(10),
  price INT,
  feature STRING
) WITH (
  'connector' = 'kafka',
  'properties.bootstrap.servers' = '${secret_values.test_kafka}',
  'topic' = '${secret_values.test_topic}',
  'format' = 'csv',
  'csv.field-delimiter' = '\\t',
  'scan.startup.mode' = 'earliest-offset'
);
CREATE TEMPORARY TABLE searchable (
  id INT,
  market_time TIMESTAMP,
  color VARCHAR(10),
  price INT,
  feature VARCHAR
) WITH (
  'connector' = 'adbpg-nightly-1.13',
  'url' = 'jdbc:postgresql://${secret_values.test_postgres}',
  'targetschema' = 'vector_test',
  'tablename' = 'car_info',
  'username' = '${secret_values.test_user}',
  'password' = '${secret_values.test_password}',
  'batchsize' = '100'
);
-- Cars with the vectors of their pictures.
INSERT INTO searchable SELECT * FROM announced;
"""
TABLE = """
CREATE SCHEMA vector_test;
CREATE TABLE vector_test.car_info (
  id bigint PRIMARY KEY, market_time timestamp, color varchar(10), price int, feature float4[]);
CREATE INDEX ON vector_test.car_info USING hnsw ((feature::vector(2)) vector_l2_ops);
"""
KEY = dg.AssetKey("car_info")
TIMEOUT_S = 120.0
"""Several times what a quiet machine needs."""


class Project:
    """One pipeline `car_info` over a topic and a table of its own."""

    def __init__(self, folder: Path, kafka: KafkaBroker, postgres: PostgresServer) -> None:
        self.folder, self.kafka, self.postgres = folder, kafka, postgres
        self.topic = kafka.create_topic(2)
        self.database = postgres.create_database()
        with postgres.connect(self.database, autocommit=True) as connection:
            connection.execute(TABLE)
        (folder / "pipelines").mkdir()
        (folder / "pipelines" / "car_info.sql").write_text(SCRIPT)
        (folder / "dagster_home").mkdir()
        shutil.copy(REPOSITORY / "dagster_home" / "dagster.yaml", folder / "dagster_home")
        self.variables = {
            "DAGSTER_HOME": str(folder / "dagster_home"),
            "VECTOR_ASSETS_HOME": str(folder / "home"),
            "VECTOR_ASSETS_PIPELINES": str(folder / "pipelines"),
            secret_variable("test_kafka"): kafka.bootstrap_servers,
            secret_variable("test_topic"): self.topic,
            secret_variable("test_postgres"): f"{postgres.host}:{postgres.port}/{self.database}",
            secret_variable("test_user"): postgres.user,
            secret_variable("test_password"): postgres.password,
        }

    def produce(self, ids: Iterable[int]) -> None:
        """A record for each id."""
        self.kafka.produce(self.topic, [f"{n}\t2026-01-01 00:00:00\tred\t{n}\t{{{n},1}}" for n in ids])

    def produce_text(self, text: str) -> None:
        """A record with this text."""
        self.kafka.produce(self.topic, [text])

    def rows(self) -> list[tuple[object, ...]]:
        """The table with the versions of its rows: equal means untouched."""
        with self.postgres.connect(self.database) as connection:
            return connection.execute(
                "SELECT id, xmin::text, ctid::text FROM vector_test.car_info ORDER BY id"
            ).fetchall()

    def ids(self) -> list[object]:
        """The keys in the table."""
        return [row[0] for row in self.rows()]

    def books(self) -> Books:
        """The ledger and the archive that runs use."""
        home = self.folder / "home"
        return Books(Ledger(home / "ledger.db"), Archive(home / "archive"))

    def move_batches(self, hour: str) -> None:
        """As if every batch had been planned in another hour."""
        books = self.books()
        books.ledger.store.change("UPDATE batches SET hour = ?", (hour,))
        books.close()

    def command(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """A `dagster` command in the repository's folder, as a person or CI runs it."""
        return subprocess.run(
            [str(Path(sys.executable).with_name("dagster")), *arguments],
            cwd=REPOSITORY,
            env=child_environment(**{**self.variables, **variables}),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def materialize(self, **variables: str) -> subprocess.CompletedProcess[str]:
        """`dagster asset materialize` of the hour that is open; again if it ended on the way."""
        while True:
            hour = Calendar().now()
            target = ("-m", "vector_assets.definitions", "--select", "car_info", "--partition", hour)
            done = self.command("asset", "materialize", *target, **variables)
            if Calendar().now() == hour:
                return done

    def instance(self) -> dg.DagsterInstance:
        """The Dagster instance that commands and servers use; to be used as a context manager."""
        home = self.variables["DAGSTER_HOME"]
        with overridden(DAGSTER_HOME=home):
            return dg.DagsterInstance.from_config(home)

    def materializations(self, instance: dg.DagsterInstance) -> list[dg.AssetMaterialization]:
        """Every materialization of the asset, oldest first."""
        found = instance.fetch_materializations(KEY, limit=1000, ascending=True).records
        return [record.asset_materialization for record in found]


def placeholder_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the script needs to be compiled, and nothing that could be reached."""
    for name, value in {
        "test_kafka": "kafka.invalid:9092",
        "test_topic": "cars",
        "test_postgres": "postgres.invalid:5432/any",
        "test_user": "somebody",
        "test_password": "something",
    }.items():
        monkeypatch.setenv(secret_variable(name), value)


def until(what: str, condition: Callable[[], object], timeout_seconds: float = TIMEOUT_S) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not seen within {timeout_seconds:g} s"
        time.sleep(0.1)
