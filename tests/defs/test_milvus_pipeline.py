"""A pipeline into Milvus as Dagster sees it: its asset, sensor and checks over a real server."""

import json

import dagster as dg
import pytest

from vector_assets.declare import flink_sql
from vector_assets.defs import assets, checks, factory, probe, reconcile, sensors

pytestmark = pytest.mark.service
SCRIPT = """
CREATE TABLE changes (id BIGINT NOT NULL, name STRING, vec ARRAY<FLOAT>, PRIMARY KEY (id) NOT ENFORCED) WITH (
  'connector' = 'upsert-kafka', 'topic' = '{topic}', 'properties.bootstrap.servers' = '{brokers}',
  'key.format' = 'json', 'value.format' = 'json');
CREATE TABLE people (id BIGINT NOT NULL, name STRING, vec ARRAY<FLOAT>, PRIMARY KEY (id) NOT ENFORCED) WITH (
  'connector' = 'milvus', 'endpoint' = '{host}', 'port' = '{port}', 'collectionName' = '{collection}');
INSERT INTO people SELECT * FROM changes;
"""
FIELDS = {
    "id": ("INT64", {}),
    "name": ("VARCHAR", {"max_length": 20, "nullable": True}),
    "vec": ("FLOAT_VECTOR", {"dim": 2}),
}


@pytest.fixture
def people(tmp_path, kafka, milvus, monkeypatch):
    """The pipeline, its collection's name, and what produces `(id, vector)`; a vector of None deletes."""
    monkeypatch.setenv("VECTOR_ASSETS_HOME", str(tmp_path))
    topic, collection = kafka.create_topic(), milvus.create(FIELDS)
    script = SCRIPT.format(
        topic=topic, brokers=kafka.bootstrap_servers, host=milvus.host, port=milvus.port, collection=collection
    )
    (pipeline,) = flink_sql.compile_script(script, "people.sql")

    def produce(*rows):
        values = [v and json.dumps({"id": number, "name": f"n{number}", "vec": v}).encode() for number, v in rows]
        kafka.produce(topic, values, keys=[json.dumps({"id": number}).encode() for number, _ in rows])

    yield pipeline, collection, produce
    probe.forget()


def run(pipeline, instance):
    """A run as the sensor asks for it."""
    with dg.build_sensor_context(instance=instance) as context:
        request = sensors.of(pipeline)(context)
    assert isinstance(request, dg.RunRequest), request
    result = dg.materialize(
        [assets.of(pipeline)], partition_key=request.partition_key, run_config=request.run_config, tags=request.tags,
        instance=instance,
    )  # fmt: skip
    assert result.success


def looked_at(pipeline, instance):
    found = dg.materialize(
        [checks.of(pipeline), reconcile.of(pipeline)],
        selection=dg.AssetSelection.all_asset_checks(),
        instance=instance,
    )
    return {each.check_name: each for each in found.get_asset_check_evaluations()}


def test_asset_sensor_and_checks_of_a_collection(people, instance, milvus):
    pipeline, collection, produce = people
    (spec,) = assets.of(pipeline).specs
    assert spec.kinds == {"kafka", "milvus"}
    assert spec.metadata["dagster/table_name"] == collection
    assert factory.definitions([pipeline]).get_asset_checks_def(dg.AssetCheckKey(spec.key, "reconcile"))
    produce((1, [1, 1]), (2, [2, 1]), (3, [3, 1]))
    run(pipeline, instance)
    produce((2, None), (1, [1, 5]))
    run(pipeline, instance)
    found = looked_at(pipeline, instance)
    assert {name: each.passed for name, each in found.items()} == dict.fromkeys(found, True)
    assert found["reconcile"].metadata["target_rows"].value == 2
    with dg.build_sensor_context(instance=instance) as context:
        assert isinstance(sensors.of(pipeline)(context), dg.SkipReason)
    assert [row["id"] for row in milvus.rows(collection)] == [1, 3]


def test_a_vector_of_another_dimension_and_a_changed_row_fail_their_checks(people, instance, milvus):
    pipeline, collection, produce = people
    produce((1, [1, 1]), (2, [2, 1, 3]), (3, [3, 1]), *((number, [number, 0.5]) for number in range(10, 40)))
    run(pipeline, instance)
    milvus.client.upsert(collection, [{"id": 3, "name": "n3", "vec": [3.0, 1.25]}])
    found = looked_at(pipeline, instance)
    assert not found["dead_letters"].passed
    assert "3 dimensions" in str(found["dead_letters"])
    assert (found["reconcile"].passed, found["reconcile"].description) == (False, "1 altered")
    assert found["lag"].passed
