"""Dimension tables in Dagster: assets that a pipeline's asset depends on, and columns followed into them."""

import dagster as dg

from tests.declare.scripts import one
from vector_assets.defs import assets, names

SCRIPT = """CREATE TABLE src (k INT, n STRING) WITH ('connector' = 'datagen');
CREATE TABLE dim (k INT, v STRING) WITH ('connector' = 'odps', 'endpoint' = 'http://127.0.0.1:1', 'project' = 'p',
  'tableName' = 't', 'accessId' = 'me', 'accessKey' = 'hidden', 'cache' = 'ALL');
CREATE TABLE dst (a INT, b STRING, c STRING) WITH ('connector' = 'blackhole');
INSERT INTO dst SELECT k, n, v FROM src JOIN dim FOR SYSTEM_TIME AS OF PROCTIME() ON src.k = dim.k;
"""


def test_a_dimension_table_is_an_asset_that_the_target_depends_on() -> None:
    pipeline = one(SCRIPT)
    key = dg.AssetKey(["maxcompute", "p", "t"])
    specs = {spec.key: spec for spec in assets.origins([pipeline, pipeline])}
    assert set(specs) == {*names.origin_keys(pipeline), key}
    assert [column.name for column in specs[key].metadata["dagster/column_schema"].columns] == ["k", "v"]
    assert "hidden" not in str(specs)
    assert {dep.asset_key for dep in next(iter(assets.of(pipeline).specs)).deps} == set(specs)
    lineage = assets.column_lineage(pipeline).deps_by_column
    assert [(dep.asset_key, dep.column_name) for dep in lineage["c"]] == [(key, "v")]
    assert [dep.asset_key for dep in lineage["a"]] == names.origin_keys(pipeline)
