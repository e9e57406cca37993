"""Iceberg's files on a real S3 server, by pyiceberg's options; the catalog stays in SQLite."""

import pytest

from tests.sinks.contract import SCHEMA, Feed, car
from tests.sinks.iceberg_target import Lake
from vector_assets.engine.abilities import Upkeep
from vector_assets.engine.errors import VectorAssetsError

pytestmark = pytest.mark.service


@pytest.fixture
def lake(s3, tmp_path):
    made = Lake(tmp_path)
    made.warehouse = s3.folder()
    yield made
    made.close()


def options(s3, **changes):
    return {
        "s3__endpoint": s3.endpoint, "s3__access___key___id": s3.access_key, "s3__region": "us-east-1",
        "s3__secret___access___key": s3.secret_key, **changes,
    }  # fmt: skip


def ids(sink):
    return sorted(sink.relation().read_all().column("id").to_pylist())


def test_iceberg_tables_are_written_read_and_maintained_in_an_object_store(lake, s3):
    sink = lake.sink(key=(), **options(s3))
    feed = Feed(sink)
    for number in range(4):
        feed.apply(car(number))
    assert ids(sink) == [0, 1, 2, 3]
    assert sink.maintain("compact", Upkeep()).files_after == 1
    assert sink.maintain("expire", Upkeep()).task == "expire"
    assert sink.maintain("orphans", Upkeep()).removed == 0
    other = lake.sink(key=(), **options(s3))
    assert other.newest_seq("cars") == 4
    assert ids(other) == [0, 1, 2, 3]


def test_wrong_keys_are_an_error_that_shows_none_of_them(lake, s3):
    with pytest.raises(VectorAssetsError) as caught:
        lake.sink(SCHEMA, (), **options(s3, s3__secret___access___key="not-the-key"))
    assert "not-the-key" not in str(caught.value)
