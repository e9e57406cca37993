"""Lake jobs with a place of their own whose ledger was lost."""

import pytest

from tests.cli import lake_world
from vector_assets.engine.env import secret_variable


@pytest.fixture
def shop(kafka, cli, home, monkeypatch):
    """The data source `shop`, whose topic has 30 orders; the Paimon database `shop` is declared."""
    name = kafka.create_topic(partitions=3)
    lake_world.produce(kafka, name)
    monkeypatch.setenv(secret_variable("shop_kafka"), kafka.bootstrap_servers)
    lake_world.write(cli, home, name, jobs=False)
    lake_world.declare_database(cli, home)
    return name


@pytest.mark.service
@pytest.mark.parametrize("kind", ["iceberg", "paimon"])
def test_a_job_in_a_path_of_its_own_gets_its_lost_ledger_back(cli, home, kafka, shop, kind):
    create = ("jobs", "create", "orders", "--source", "shop", "--database", "shop", "--table", "orders")
    path = home / ("paimon" if kind == "paimon" else "own")
    assert cli(*create, "--path", str(path), "--format", kind).code == 0
    assert cli("run", "orders").code == 0
    for file in (home / "home").glob("ledger.db*"):
        file.unlink()
    refused = cli("run", "orders")
    assert refused.code == 1
    assert "holds batches up to 1 of this pipeline, the ledger knows of none" in refused.err
    assert "ledger rebuild orders" in refused.err
    assert cli("ledger", "rebuild", "orders", "--yes").code == 0
    kafka.produce(shop, ['{"id": 99}'])
    assert cli("run", "orders").code == 0, cli("run", "orders").err
    assert cli("query", "SELECT count(*) AS n FROM shop.orders", "--json").json["rows"] == [{"n": 31}]
    # the place is its own again, and still fixed
    file = home / "pipelines" / "orders.yaml"
    file.write_text(file.read_text().replace(str(path), str(home / "elsewhere")))
    assert "destination.path cannot be changed after creation" in cli("run", "orders").err
