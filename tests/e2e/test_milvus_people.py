"""The seed's own sink and INSERT over real services: Kafka in place of its generator, the server's address replaced."""

import os
import subprocess
import sys

import pytest

from tests.declare.seeds import seed, statements
from vector_assets.declare import flink_sql
from vector_assets.engine import env
from vector_assets.engine.run import Runner
from vector_assets.engine.session import Books, Session

pytestmark = pytest.mark.service

SOURCE = """
SET 'pipeline.name' = 'people';
SET 'vector-assets.batch.max-rows' = '40';
CREATE TABLE gen (id BIGINT NOT NULL, name STRING, age INT) WITH (
  'connector' = 'kafka', 'topic' = '{topic}', 'properties.bootstrap.servers' = '{brokers}', 'format' = 'csv',
  'scan.startup.mode' = 'earliest-offset');
"""
PEOPLE = {
    "id": ("INT64", {}),
    "name": ("VARCHAR", {"max_length": 20}),
    "age": ("INT32", {}),
    "vec": ("FLOAT_VECTOR", {"dim": 3}),
}


@pytest.fixture
def script(kafka, milvus):
    """The topic, the collection, and the script between them."""
    topic, collection = kafka.create_topic(), milvus.create(PEOPLE)
    sink, insert = (found for found in statements(seed(1)) if "milvus_sink" in found)
    for old, new in {
        "milvus-dev.my.company": milvus.host, "'19530'": f"'{milvus.port}'", "'people'": f"'{collection}'",
    }.items():  # fmt: skip
        assert old in sink
        sink = sink.replace(old, new)
    return topic, collection, SOURCE.format(topic=topic, brokers=kafka.bootstrap_servers) + sink + insert


def run(script: str, home) -> list[int]:
    """Rows written by each batch."""
    (pipeline,) = flink_sql.compile_script(script, "people.sql")
    with env.overridden(VECTOR_ASSETS_HOME=str(home)), Session(pipeline, Books.open()) as session:
        return [outcome.batch.counts.written for outcome in Runner(session).catch_up()]


RUN = """
import sys
from tests.e2e.test_milvus_people import run
run(open(sys.argv[1]).read(), sys.argv[2])
"""


@pytest.mark.parametrize("step", ["committing:2", "committed:2"], ids=str)
def test_the_seed_s_insert_lands_its_records_whatever_is_killed_between(tmp_path, kafka, milvus, script, step):
    topic, collection, text = script
    records = [f"{number},name {number},{number % 90}".encode() for number in range(100)]
    kafka.produce(topic, [*records, b"7,again,77", b"8,far too long a name for the field,1", b"x,bad,1"])
    (tmp_path / "people.sql").write_text(text)
    command = [sys.executable, "-c", RUN, str(tmp_path / "people.sql"), str(tmp_path / "home")]
    killed = subprocess.run(command, check=False, env={**os.environ, "VECTOR_ASSETS_FAIL_AT": step})
    assert killed.returncode == -9
    assert sum(run(text, tmp_path / "home")) > 0
    assert run(text, tmp_path / "home") == []
    rows = milvus.rows(collection)
    assert [row["id"] for row in rows] == list(range(100))
    assert (rows[7]["name"], rows[8]["name"]) == ("again", "name 8")
    assert list(rows[3]["vec"]) == pytest.approx([0.1, 0.2, 0.3])
    assert milvus.count(collection) == 100
