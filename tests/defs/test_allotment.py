"""Units of a resource group as Dagster sees them."""

from tests.declare.lake import GROUP, JOB, compiled
from vector_assets.defs import assets, names, sensors

KEY = "  resources: {group: lake, units: 4}\n"


def test_runs_of_a_job_carry_its_group_and_units_and_share_no_pool_with_others(tmp_path):
    orders = compiled(tmp_path / "a", JOB + KEY, GROUP)
    returns = compiled(tmp_path / "b", (JOB + KEY).replace("orders", "returns"), GROUP)
    tags = sensors.request(orders).tags
    assert (tags[names.GROUP_TAG], tags[names.UNITS_TAG]) == ("lake", "4")
    shown = assets.metadata(orders)
    assert (shown["resource group"], shown["units"], shown["memory"]) == ("lake", 4, "1024 MB")
    # a pool counts runs: one of one run keeps a job within its units, one of a group would keep jobs from each other
    assert names.pool(orders) != names.pool(returns)
    assert assets.of(orders).op.pool == names.pool(orders)


def test_a_job_without_a_group_has_no_such_tags(tmp_path):
    alone = compiled(tmp_path, JOB)
    assert not {names.GROUP_TAG, names.UNITS_TAG} & set(sensors.request(alone).tags)
