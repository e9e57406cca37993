import dagster as dg
import pytest

from vector_assets.defs.resources import MaxComputeResource
from vector_assets.engine.errors import ConfigError, PlanError, UnavailableError

pytestmark = pytest.mark.service


@pytest.fixture
def resource(maxcompute):
    service = maxcompute.service
    return MaxComputeResource(
        endpoint=service.endpoint, project="local", access_id=service.access_id, access_key=service.access_key
    )


@pytest.fixture
def table(maxcompute):
    found = maxcompute.table("id bigint, name string", "PARTITIONED BY (ds string)")
    with found.open_writer(partition="ds=a", create_partition=True) as writer:
        writer.write([[1, "x"], [2, None]])
    found.create_partition("ds=b")
    return found.name


def test_partitions_and_rows_come_as_arrow(resource, table):
    found = resource.partitions(table)
    assert found.select(["spec", "rows"]).to_pylist() == [{"spec": "ds=a", "rows": 2}, {"spec": "ds=b", "rows": 0}]
    assert resource.read(table, "ds=a").to_pylist() == [
        {"id": 1, "name": "x", "ds": "a"},
        {"id": 2, "name": None, "ds": "a"},
    ]
    assert resource.read(table, "ds=b", ["name"]).column_names == ["name"]


def test_an_asset_reaches_plain_pyodps(resource, table):
    @dg.asset
    def tables(maxcompute: MaxComputeResource) -> bool:
        return bool(maxcompute.client().exist_table(table))

    run = dg.materialize([tables], resources={"maxcompute": resource})
    assert run.output_for_node("tables") is True


def test_what_is_wrong_is_an_error_of_the_engine_without_the_key(maxcompute, resource, table):
    with pytest.raises(PlanError, match="ds=z"):
        resource.read(table, "ds=z")
    with pytest.raises(PlanError, match="nothing_there"):
        resource.read("nothing_there")
    wrong = {"endpoint": maxcompute.service.endpoint, "project": "local", "access_id": "x", "access_key": "hidden"}
    with pytest.raises(ConfigError, match="accessId") as caught:
        MaxComputeResource(**wrong).partitions(table)
    assert "hidden" not in str(caught.value) + repr(MaxComputeResource(**wrong))
    with pytest.raises(ConfigError, match="want http"):
        MaxComputeResource(**{**wrong, "endpoint": "host"}).partitions(table)
    with pytest.raises(UnavailableError):
        MaxComputeResource(**{**wrong, "endpoint": "http://127.0.0.1:1"}).partitions(table)
