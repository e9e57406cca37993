"""Every example of docs/python.md, run as it stands there."""

import re
from pathlib import Path

import dagster as dg
import pytest

from tests.api.conftest import car
from tests.defs.project import REPOSITORY
from vector_assets.defs.resources import KafkaResource, MilvusResource, PostgresResource

pytestmark = pytest.mark.service
PAGE = REPOSITORY / "docs" / "python.md"


def examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working directory with our own script in it."""
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "pipelines" / "car_info.sql"
    script.parent.mkdir()
    script.write_text((REPOSITORY / "pipelines" / "car_info.sql").read_text())
    return tmp_path


def test_the_examples_read_and_write(folder, kafka, topic, postgres, database, monkeypatch, capsys):
    secrets = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "POSTGRES_ADDRESS": f"{postgres.host}:{postgres.port}",
        "POSTGRES_USER": postgres.user, "POSTGRES_PASSWORD": postgres.password,
    }  # fmt: skip
    for name, value in secrets.items():
        monkeypatch.setenv(f"VECTOR_ASSETS_SECRET_{name}", value)
    kafka.produce(topic, [car(1), b"none", car(2)])
    read, go_on, write, asset = examples()
    assert "@dg.asset" in asset
    found: dict[str, object] = {}
    exec(read, found)
    assert "2 rows of ['id', 'market_time'" in capsys.readouterr().out
    kafka.produce(topic, [car(3)])
    exec(go_on, found)
    assert [batch.rows.column("id").to_pylist() for batch in found["news"]] == [[3]]
    assert [batch.counts.records for batch in found["first_two"]] == [2]
    exec(write, found)
    assert found["written"].counts.written == 2
    with postgres.connect(database) as connection:
        assert connection.execute("SELECT id FROM vector_test.car_info ORDER BY id").fetchall() == [(101,), (102,)]


def test_the_assets_are_materialized_with_their_resources(folder, kafka, topic, postgres, database, milvus):
    kafka.produce(topic, [car(1), car(2)])
    name = milvus.create({"id": ("INT64", {}), "feature": ("FLOAT_VECTOR", {"dim": 10})})
    found: dict[str, object] = {}
    exec(examples()[-1].replace("'car_vectors'", f"'{name}'").replace('"car_vectors"', f'"{name}"'), found)
    dg.Definitions.validate_loadable(found["defs"])
    resources = {
        "kafka": KafkaResource(bootstrap_servers=kafka.bootstrap_servers),
        "postgres": PostgresResource(
            host=postgres.host, port=postgres.port, database=database, user=postgres.user, password=postgres.password
        ),
        "milvus": MilvusResource(uri=f"http://{milvus.host}:{milvus.port}"),
    }
    with dg.DagsterInstance.ephemeral(tempdir=str(folder)) as instance:
        for _ in range(2):
            day = dg.materialize(
                [found["announced"]], resources=resources, instance=instance, partition_key="2026-11-20"
            )
            (event,) = day.asset_materializations_for_node("announced")
            assert event.metadata["written"].value == 2
        vectors = dg.materialize(
            [found["announced"], found["car_vectors"]], selection=[found["car_vectors"]], resources=resources,
            instance=instance,
        )  # fmt: skip
    (event,) = vectors.asset_materializations_for_node("car_vectors")
    assert (event.metadata["written"].value, event.metadata["in the collection"].value) == (2, 2)
    with postgres.connect(database) as connection:
        # the second run of the day found its batch there
        count = connection.execute("SELECT count(*) FROM vector_assets.batches WHERE pipeline LIKE 'api/announced%'")
        assert count.fetchone() == (1,)
