"""The commands over a Milvus pipeline, from a collection that is not there to a ledger that is lost; and over print."""

import json
import shutil

import pytest

PEOPLE = """
CREATE TABLE changes (id BIGINT NOT NULL, name STRING, vec ARRAY<FLOAT>, PRIMARY KEY (id) NOT ENFORCED) WITH (
  'connector' = 'upsert-kafka', 'topic' = '{topic}', 'properties.bootstrap.servers' = '{brokers}',
  'key.format' = 'json', 'value.format' = 'json');
CREATE TABLE people (id BIGINT NOT NULL, name STRING, vec ARRAY<FLOAT>, PRIMARY KEY (id) NOT ENFORCED) WITH (
  'connector' = 'milvus', 'endpoint' = '{host}', 'port' = '{port}', 'collectionName' = '{collection}',
  'vector.dimensions' = 'vec:2');
INSERT INTO people SELECT * FROM changes;
"""
PRINTED = """
CREATE TABLE gen (id BIGINT, PRIMARY KEY (id) NOT ENFORCED) WITH ('connector' = 'datagen', 'number-of-rows' = '3',
  'fields.id.kind' = 'sequence', 'fields.id.start' = '1', 'fields.id.end' = '3');
CREATE TABLE shown (id BIGINT, PRIMARY KEY (id) NOT ENFORCED) WITH ('connector' = 'print');
INSERT INTO shown SELECT * FROM gen;
"""


@pytest.fixture
def people(home, kafka, milvus):
    """Produces rows of `(id, name)`, a name of None deletes; the script is in the folder, the collection is missing."""
    topic = kafka.create_topic()
    script = PEOPLE.format(
        topic=topic, brokers=kafka.bootstrap_servers, host=milvus.host, port=milvus.port, collection=milvus.name()
    )
    (home / "pipelines" / "people.sql").write_text(script)

    def produce(*rows):
        values = [
            name and json.dumps({"id": number, "name": name, "vec": [number, 1.0]}).encode() for number, name in rows
        ]
        kafka.produce(topic, values, keys=[json.dumps({"id": number}).encode() for number, _ in rows])

    return produce


@pytest.mark.service
def test_a_collection_is_made_filled_searched_explained_and_its_ledger_brought_back(people, cli, home):
    people((1, "ann"), (2, "bob"), (3, "eve"))
    assert "target create" in cli("run", "people").err
    assert "was made" in cli("target", "create", str(home / "pipelines" / "people.sql")).out
    assert "FloatVector(2)" in cli("plan", "people").out
    assert "ann" in cli("preview", "people", "--from", "earliest").out
    assert cli("run", "people").code == 0
    people((2, None), (3, "eva"))
    assert cli("run", "people").code == 0
    assert "1 deleted" in cli("status", "people").out
    for options in ((), ("--exact",)):
        found = cli("search", "people", "--vector", "[3,1]", "--where", 'id > 1 and name like "e%"', "--json", *options)
        assert [(row["id"], row["name"], row["_distance"]) for row in found.json["rows"]] == [(3, "eva", 0.0)]
    assert cli("reconcile", "people").code == 0
    assert cli("doctor", "people").code == 0
    story = cli("explain", "people", "--key", '{"id": 3}', "--json").json
    assert [(change["kind"], change["batch"]) for change in story["changes"]] == [("upsert", 2), ("upsert", 1)]
    assert story["row"]["name"] == "eva"
    stories = [cli("explain", "people", "--offset", f"0:{at}", "--json").json[0] for at in range(5)]
    fates = [story["rows"][0]["fate"] for story in stories]
    assert fates == ["written", "overwritten", "overwritten", "deleted", "written"]
    assert "1 already there" in cli("replay", "people", "--seq", "1").out
    assert cli("replay", "people", "--rewrite").code == 0
    shutil.rmtree(home / "home")
    assert "ledger rebuild" in cli("run", "people").err


@pytest.mark.service
def test_a_lost_ledger_is_rebuilt_from_the_collection_and_the_archive(people, cli, home):
    cli("target", "create", str(home / "pipelines" / "people.sql"))
    people((1, "ann"), (2, "bob"))
    assert cli("run", "people").code == cli("replay", "people", "--rewrite").code == 0
    for file in (home / "home").glob("ledger.db*"):
        file.unlink()
    assert "ledger rebuild" in cli("run", "people").err
    done = cli("ledger", "rebuild", "people", "--yes")
    assert done.code == 0, done.err
    people((1, None))
    assert cli("run", "people").code == 0
    assert cli("reconcile", "people").code == 0
    assert cli("ledger", "check", "people", "--deep").code == 0


def test_what_was_handed_to_a_target_that_cannot_be_read_is_told_as_that(cli, home):
    (home / "pipelines" / "shown.sql").write_text(PRINTED)
    assert cli("run", "shown").out.splitlines()[:3] == ["+I[1]", "+I[2]", "+I[3]"]
    said = cli("explain", "shown", "--key", '{"id": 2}').out
    assert "no such row" not in said
    assert "rows of this target cannot be looked up" in said
    (story,) = cli("explain", "shown", "--offset", "0:1", "--json").json
    assert [row["fate"] for row in story["rows"]] == ["written"]
