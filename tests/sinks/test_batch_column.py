"""The column that notes each row's batch: refusals, tables that lack it, partitions and buckets."""

import pyarrow as pa
import pytest

from tests.sinks import iceberg_target, paimon_target
from tests.sinks.contract import Feed, car, rows_of
from vector_assets.engine.core import Batch
from vector_assets.engine.errors import ConfigError, PlanError

CARS = pa.schema([("id", pa.int32()), ("color", pa.string())])


@pytest.fixture
def iceberg(tmp_path):
    (tmp_path / "ice").mkdir()
    lake = iceberg_target.Lake(tmp_path / "ice")
    yield lake
    lake.close()


@pytest.fixture
def paimon(tmp_path):
    (tmp_path / "warehouse" / "db.db").mkdir(parents=True)
    return paimon_target.Lake(str(tmp_path / "warehouse"))


@pytest.fixture(params=["iceberg", "paimon"])
def lake(request):
    return request.getfixturevalue(request.param)


def red(*numbers: int, color: str = "red") -> pa.Table:
    return rows_of(*((number, color) for number in numbers), schema=CARS)


def replace(feed: Feed, root: int, rows: pa.Table) -> None:
    feed.sink.commit(feed.sink.stage(Batch(rows, rewrites=True, root=root), feed.token(0)))
    feed.seq += 1


def content(lake) -> list[tuple[int, str, int]]:
    if isinstance(lake, iceberg_target.Lake):
        return [(row["id"], row["color"], row["_batch"]) for row in lake.rows()]
    return lake.rows()


def test_a_table_that_lacks_the_column_gets_it(lake):
    feed = Feed(lake.sink(CARS, ()))
    feed.sink.commit(feed.stage(red(1)))
    feed.sink = lake.sink(CARS, (), batch_column="_batch")
    feed.sink.commit(feed.stage(red(2)))
    assert sorted(content(lake), key=str) == [(1, "red", None), (2, "red", 2)]
    assert [feed.sink.rows_of_batch(root) for root in (1, 2)] == [0, 1]
    replace(feed, 2, red(3))
    assert sorted(content(lake), key=str) == [(1, "red", None), (3, "red", 2)]
    # what is compared with the archive are the pipeline's own columns
    assert all(batch.schema.names == CARS.names for batch in feed.sink.scan())


@pytest.mark.parametrize(
    "options",
    [
        {"partition": "color"},
        pytest.param({"bucket": "2", "bucket___key": "id"}, id="bucket"),
        pytest.param({"partition": "color", "bucket": "2", "bucket___key": "id"}, id="both"),
    ],
)
def test_rows_go_from_every_partition_and_bucket(paimon, options):
    feed = Feed(paimon.sink(CARS, (), batch_column="_batch", **options))
    feed.sink.commit(feed.stage(pa.concat_tables([red(*range(8)), red(*range(8, 16), color="blue")])))
    feed.sink.commit(feed.stage(red(*range(20, 28))))
    replace(feed, 1, red(1, 9, color="green"))
    later = [(number, "red", 2) for number in range(20, 28)]
    assert paimon.rows() == [(1, "green", 1), (9, "green", 1), *later]


def test_rows_go_from_every_partition_of_an_iceberg_table(iceberg):
    feed = Feed(iceberg.sink(CARS, (), batch_column="_batch", partition="color, bucket(2, id)"))
    feed.sink.commit(feed.stage(pa.concat_tables([red(*range(8)), red(*range(8, 16), color="blue")])))
    feed.sink.commit(feed.stage(red(*range(20, 28))))
    replace(feed, 1, red(1, 9, color="green"))
    assert content(iceberg) == [(1, "green", 1), (9, "green", 1), *((n, "red", 2) for n in range(20, 28))]


def test_a_rewrite_that_comes_to_nothing_leaves_nothing(lake):
    feed = Feed(lake.sink(CARS, (), batch_column="_batch"))
    feed.sink.commit(feed.stage(red(1, 2)))
    feed.sink.commit(feed.stage(red(3)))
    replace(feed, 1, red())
    assert content(lake) == [(3, "red", 2)]


def test_a_column_of_the_pipeline_is_refused(lake):
    with pytest.raises(PlanError, match="'batch_column' names Color, which is a column of the pipeline"):
        lake.sink(CARS, (), batch_column="Color")


def test_a_table_with_a_key_takes_none(iceberg, paimon):
    with pytest.raises(ConfigError, match="'batch_column' is for appended rows"):
        iceberg.sink(key=("id",), batch_column="_batch")
    with pytest.raises(PlanError, match="'batch_column' is for tables without a primary key"):
        paimon.sink(CARS, ("id",), batch_column="_batch")


def test_a_column_of_another_type_is_refused(lake):
    lake.sink(CARS, ())
    with pytest.raises(PlanError, match="column color"):
        lake.sink(CARS.remove(1), (), batch_column="color")


def test_contract_rows_are_not_disturbed(iceberg):
    feed = Feed(iceberg.sink(key=(), batch_column="_batch"))
    feed.apply(car(1), car(2))
    assert feed.sink.as_stored(rows_of(car(1))).column_names == ["id", "color", "feature", "_position"]
