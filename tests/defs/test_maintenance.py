"""Lake tables are kept in order by assets of their own."""

import dagster as dg
import pytest

from vector_assets.declare import flink_sql
from vector_assets.defs import maintenance
from vector_assets.defs.factory import definitions
from vector_assets.engine.run import Runner
from vector_assets.engine.session import Books, Session

SCRIPT = """
SET 'pipeline.name' = 'numbers';
SET 'vector-assets.batch.max-rows' = '50';
{settings}
CREATE TABLE numbers (id BIGINT, at TIMESTAMP(3)) WITH ('connector' = 'datagen', 'number-of-rows' = '300',
  'fields.id.kind' = 'sequence', 'fields.id.start' = '1', 'fields.id.end' = '300');
CREATE TABLE kept (id BIGINT, at TIMESTAMP(3), parity BIGINT) PARTITIONED BY (parity) WITH ('connector' = 'iceberg',
  'catalog-database' = 'db', 'catalog-table' = 'numbers');
INSERT INTO kept SELECT id, at, MOD(id, 2) FROM numbers;
"""


@pytest.fixture
def pipeline(tmp_path, monkeypatch):
    """A pipeline into a table of the default catalog, below a home of its own."""
    monkeypatch.setenv("VECTOR_ASSETS_HOME", str(tmp_path))

    def make(settings: str = ""):
        (made,) = flink_sql.compile_script(SCRIPT.format(settings=settings), "numbers.sql")
        return made

    return make


def land(pipeline) -> int:
    books = Books.open()
    with Session(pipeline, books) as session:
        done = list(Runner(session).catch_up())
        rows = session.sink.relation().read_all()
    books.close()
    assert sorted(rows.column("id").to_pylist()) == list(range(1, 301))
    return len(done)


def test_each_task_is_an_asset_with_numbers_before_and_after(pipeline, instance):
    batches = land(pipeline())
    assets = maintenance.assets(pipeline())
    assert [asset.key.path for asset in assets] == [
        ["numbers", "maintenance", task] for task in ("compact", "expire", "orphans")
    ]
    done = dg.materialize(assets, instance=instance)
    found = {
        event.asset_key.path[-1]: event.materialization.metadata for event in done.get_asset_materialization_events()
    }
    assert found["compact"]["files_before"].value == 2 * batches
    assert found["compact"]["files_after"].value == 2
    assert found["compact"]["bytes_after"].value < found["compact"]["bytes_before"].value
    assert found["expire"]["snapshots_before"].value == batches + 1
    assert found["orphans"]["removed"].value == 0
    land_again = Session(pipeline(), Books.open())
    with land_again as session:
        assert session.sink.relation().read_all().num_rows == 300
    land_again.books.close()


def test_a_schedule_runs_all_of_them_once_a_day_unless_it_is_off(pipeline):
    repository = definitions([pipeline()]).get_repository_def()
    (schedule,) = repository.schedule_defs
    assert (schedule.name, schedule.cron_schedule) == ("numbers_maintenance_schedule", "43 2 * * *")
    assert len(repository.get_job("numbers_maintenance").asset_layer.executable_asset_keys) == 3
    off = definitions([pipeline("SET 'vector-assets.maintenance.schedule' = 'off';")]).get_repository_def()
    assert not off.schedule_defs


def test_a_target_that_needs_no_maintenance_has_none(world):
    assert maintenance.assets(world.pipeline()) == []
    assert maintenance.schedules(world.pipeline()) == []
