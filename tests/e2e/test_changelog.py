"""Changelogs over real Kafka into PostgreSQL: what the target holds is what the changes come to."""

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bench.changelog_samples import ENCODERS, Change, changelog
from tests.declare.seeds import seed, statements
from vector_assets.declare import flink_sql
from vector_assets.engine import env
from vector_assets.engine.core import Counts
from vector_assets.engine.run import Runner
from vector_assets.engine.session import Books, Session

pytestmark = pytest.mark.service
SINK = """SET 'vector-assets.batch.max-rows' = '{rows}';
CREATE TABLE MilvusPeople (id BIGINT NOT NULL, name STRING NOT NULL, age INT, vec ARRAY<FLOAT>,
  PRIMARY KEY (id) NOT ENFORCED) WITH (
  'connector' = 'adbpg', 'url' = '{url}', 'tablename' = 'people', 'username' = '{user}', 'password' = '{password}',
  'conflictmode' = 'upsert', 'vector.dimensions' = 'vec:3');
"""
TABLE = "CREATE TABLE people (id bigint PRIMARY KEY, name text NOT NULL, age int, vec float4[])"
Rows = dict[int, dict[str, Any]]


class People:
    """A topic, the table `people` and a script between them."""

    def __init__(self, tmp_path, kafka, postgres) -> None:
        self.kafka, self.postgres = kafka, postgres
        self.topic = kafka.create_topic()
        self.database = postgres.create_database()
        self.home = str(tmp_path)
        with postgres.connect(self.database, autocommit=True) as connection:
            connection.execute(TABLE)

    def run(self, script: str, rows: int) -> Counts:
        """Drain once; the counts of its batches."""
        p = self.postgres
        sink = SINK.format(rows=rows, url=p.jdbc_url(self.database), user=p.user, password=p.password)
        (pipeline,) = flink_sql.compile_script(sink + script, "people.sql")
        total = Counts()
        with env.overridden(VECTOR_ASSETS_HOME=self.home), Session(pipeline, Books.open()) as session:
            for outcome in Runner(session).catch_up():
                assert outcome.batch.note is None
                total += outcome.batch.counts
        return total

    def rows(self) -> Rows:
        """What the target holds, by id."""
        with self.postgres.connect(self.database) as connection:
            found = connection.execute("SELECT id, name, age, vec FROM people").fetchall()
        return {number: {"id": number, "name": name, "age": age, "vec": vec} for number, name, age, vec in found}


@pytest.fixture
def people(tmp_path, kafka, postgres) -> People:
    return People(tmp_path, kafka, postgres)


def random_changes(count: int, chance: random.Random, model: Rows) -> Iterator[Change]:
    """Inserts, updates, moves of keys, deletes and inserts of the same keys again; `model` is kept up to date."""
    for _ in range(count):
        number = chance.randrange(40)
        row = {
            "id": number,
            "name": f"n{chance.randrange(9)}",
            "age": chance.choice([None, 1, 2]),
            "vec": [0.5, 1, number],
        }
        if number not in model:
            model[number] = row
            yield None, row
            continue
        before = model.pop(number)
        free = [other for other in range(40) if other not in model and other != number]
        what = chance.choice(["update", "move", "delete", "update"])
        if what == "delete":
            yield before, None
            continue
        after = row | {"id": chance.choice(free)} if what == "move" else row
        model[after["id"]] = after
        yield before, after


SOURCE = """CREATE TABLE changes (id BIGINT NOT NULL, name STRING NOT NULL, age INT, vec ARRAY<FLOAT>) WITH (
  'connector' = 'kafka', 'topic' = '{topic}', 'properties.bootstrap.servers' = '{brokers}', 'format' = '{format}',
  'scan.startup.mode' = 'earliest-offset');
INSERT INTO MilvusPeople SELECT * FROM changes;
"""


@pytest.mark.parametrize(
    ("name", "rows"),
    [("debezium-json", 3), ("canal-json", 1000), ("maxwell-json", 10), ("changelog-json", 1000)],
    ids=lambda value: f"batches of {value}" if isinstance(value, int) else value,
)
def test_target_holds_what_the_changes_come_to_in_batches_of_any_size(people, name, rows) -> None:
    chance, model = random.Random(rows), {}
    script = SOURCE.format(topic=people.topic, brokers=people.kafka.bootstrap_servers, format=name)
    for part in range(2):
        records = [
            value for change in random_changes(min(300, 15 * rows), chance, model) for value in ENCODERS[name](change)
        ]
        if name == "debezium-json":
            records = [one for value in records for one in ([value, None] if b'"op": "d"' in value else [value])]
        people.kafka.produce(people.topic, records)
        counts = people.run(script, rows)
        assert counts.records == len(records)
        assert counts.rejected == counts.refused == 0
        assert people.rows() == model, part


@pytest.fixture
def upserts(people) -> Callable[[str], str]:
    """The seed's script 2 with its broker and topic replaced."""

    def script(condition: str = "") -> str:
        table, insert = statements(seed(1))[3:5]
        for found, wanted in (
            ("kafka-broker:9092", people.kafka.bootstrap_servers),
            ("people-changelog", people.topic),
        ):
            assert found in table
            table = table.replace(found, wanted)
        return f"{table}\n{insert.replace(';', condition + ';')}"

    return script


def key_of(row: dict[str, Any]) -> bytes:
    return json.dumps({"id": row["id"]}).encode()


def upserted(change: Change, chance: random.Random) -> Iterator[tuple[bytes, bytes | None]]:
    """Keys and values of a change in a compacted topic; deletes are tombstones, or say so and hold some of the row."""
    before, after = change
    if before is not None and (after is None or after["id"] != before["id"]):
        gone = chance.choice([before, {"id": before["id"]}, {}])
        yield key_of(before), chance.choice([None, changelog("-D", gone)])
    if after is not None:
        yield key_of(after), changelog("+I" if before is None else "+U", after)


@pytest.mark.parametrize("rows", [3, 1000], ids=lambda rows: f"batches of {rows}")
def test_the_seed_s_script_two_lands_updates_deletes_tombstones_and_moves_of_keys(people, upserts, rows) -> None:
    chance, model = random.Random(rows), {}
    for _ in range(2):
        changes = list(random_changes(min(300, 15 * rows), chance, model))
        pairs = [pair for change in changes for pair in upserted(change, chance)]
        people.kafka.produce(people.topic, [value for _, value in pairs], keys=[key for key, _ in pairs])
        counts = people.run(upserts(), rows)
        assert (counts.records, counts.rejected, counts.refused, counts.filtered) == (len(pairs), 0, 0, 0)
        assert people.rows() == model


def test_row_that_no_longer_meets_the_condition_leaves_the_target(people, upserts) -> None:
    def produce(*rows: tuple[int, int | None]) -> None:
        values = [changelog("+U", {"id": n, "name": "x", "age": age}) if age is not None else None for n, age in rows]
        people.kafka.produce(people.topic, values, keys=[key_of({"id": n}) for n, _ in rows])

    produce((1, 30), (2, 30), (3, 30), (4, 3))
    people.run(upserts(" WHERE age > 18"), 100)
    assert sorted(people.rows()) == [1, 2, 3]
    produce((1, 3), (2, None), (4, 30))
    people.run(upserts(" WHERE age > 18"), 100)
    assert sorted(people.rows()) == [3, 4]
