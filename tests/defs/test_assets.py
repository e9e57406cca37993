import itertools
import os
import signal
from dataclasses import replace

import dagster as dg
import pytest

from tests.engine.memory import World, numbers
from vector_assets.declare import flink_sql
from vector_assets.defs import assets, factory, failures
from vector_assets.engine.errors import (
    ConfigError,
    FatalError,
    Place,
    PositionLostError,
    TransientError,
    UnavailableError,
)
from vector_assets.engine.hours import Calendar
from vector_assets.engine.pipeline import PipelineSettings
from vector_assets.engine.run import Runner

PAST = "2026-01-01-05:00"


def now(world):
    return Calendar(world.pipeline().settings.partitions).now()


def materialize(world, instance, partition=None, mode=None, **kwargs):
    config = {"ops": {"numbers": {"config": {"mode": mode}}}} if mode else {}
    return dg.materialize(
        [assets.of(world.pipeline())],
        partition_key=partition or now(world),
        run_config=config,
        instance=instance,
        **kwargs,
    )


def events(result):
    return [e.event_specific_data.materialization for e in result.all_events if e.is_step_materialization]


def values(event):
    return {name: value.value for name, value in event.metadata.items()}


def batches(world):
    return world.books.ledger.batches("numbers")


def test_a_run_lands_everything_and_books_one_materialization_per_batch(world, instance):
    result = materialize(world, instance)
    assert result.success
    assert len(world.cell.rows) == 70
    found = events(result)
    assert [values(e)["batch"] for e in found] == [b.seq for b in batches(world)]
    assert {e.partition for e in found} == {b.hour for b in batches(world)}
    assert sum(values(e)["written"] for e in found) == 70
    assert values(found[-1])["lag_records"] == 0


def test_a_batch_is_told_in_numbers_that_can_be_plotted(world, instance):
    last = events(materialize(world, instance))[-1]
    numeric = {name for name, value in last.metadata.items() if isinstance(value.value, int | float)}
    assert numeric >= {
        "batch", "records", "bytes", "decoded", "rejected", "filtered", "compacted", "conflicts", "superseded",
        "refused", "written", "deleted", "nulled", "lag_records", "age_seconds", "commit_seconds", "rows_per_s",
        "records_per_s", "dead_letters_open",
    }  # fmt: skip
    told = values(last)
    assert told["how"] == "applied"
    assert told["kind"] == "records"
    assert told["guarantee"] == "exactly-once"
    assert told["commit_id"] == f"commit-{told['batch']}"
    assert told["archive"].endswith(".parquet")
    assert told["planned_by"].startswith("dagster:")


def test_a_run_without_new_records_books_nothing(world, instance):
    materialize(world, instance)
    again = materialize(world, instance)
    assert again.success
    assert events(again) == []
    assert len(world.cell.rows) == 70


def test_downstream_runs_only_after_new_data(world, instance):
    upstream = assets.of(world.pipeline())
    seen = []

    @dg.asset(deps=[upstream], partitions_def=upstream.partitions_def)
    def downstream() -> None:
        seen.append(1)

    for _ in range(2):
        result = dg.materialize([upstream, downstream], partition_key=now(world), instance=instance)
        assert result.success
    assert seen == [1]


def test_a_past_partition_replays_its_own_batches_and_leaves_the_target_unchanged(world, instance):
    with world.session() as session:
        list(Runner(session).drain("2999-01-01-00:00"))
    with world.books.ledger.store.transaction():
        world.books.ledger.store.change("UPDATE batches SET hour = ? WHERE seq <= 2", (PAST,))
    world.source.splits["t@a/0"] += numbers([900])
    before = list(world.cell.rows)
    result = materialize(world, instance, PAST)
    assert [(e.partition, values(e)["how"]) for e in events(result)] == [(PAST, "found")] * 2
    assert world.cell.rows == before


def test_a_past_partition_without_batches_stays_missing(world, instance):
    result = materialize(world, instance, PAST)
    assert result.success
    assert events(result) == []
    assert world.cell.rows == []


@pytest.mark.parametrize(("mode", "rows"), [("drain", 70), ("auto", 70), ("replay", 0)])
def test_the_mode_says_what_a_run_does_with_the_open_partition(world, instance, mode, rows):
    assert materialize(world, instance, mode=mode).success
    assert len(world.cell.rows) == rows


def test_a_mode_that_does_not_exist_is_refused_before_anything_is_opened(world, instance):
    with pytest.raises(dg.DagsterInvalidConfigError, match=r"\['auto', 'drain', 'replay', 'rewrite'\] got rewind"):
        materialize(world, instance, mode="rewind")
    assert world.source.reads == 0


def test_an_unfinished_batch_of_an_earlier_hour_is_booked_in_its_own_hour(world, instance, monkeypatch):
    monkeypatch.setenv("VECTOR_ASSETS_FAIL_AT", "committing:1:raise")
    assert not materialize(world, instance, raise_on_error=False).success
    monkeypatch.delenv("VECTOR_ASSETS_FAIL_AT")
    with world.books.ledger.store.transaction():
        world.books.ledger.store.change("UPDATE batches SET hour = ?", (PAST,))
    unfinished = {b.seq for b in batches(world)}
    found = events(materialize(world, instance))
    assert len(world.cell.rows) == 70
    assert {values(e)["batch"] for e in found if e.partition == PAST} == unfinished
    assert {e.partition for e in found} == {PAST, now(world)}


@pytest.mark.parametrize(
    ("error", "may_retry"),
    [
        (FatalError("the target is gone"), False),
        (PositionLostError("t@a/0 is shorter", "TRUNCATED", {"t@a/0": (3, 9)}), False),
        (TransientError("busy"), True),
    ],
    ids=["fatal", "position lost", "transient"],
)
def test_an_error_of_the_engine_is_a_failure_that_says_whether_to_try_again(world, instance, error, may_retry):
    world.sink.before = [error] * 9
    result = materialize(world, instance, raise_on_error=False)
    (failed,) = [e for e in result.all_events if e.is_step_failure]
    failure = failed.step_failure_data.user_failure_data
    assert failure.description == str(error)
    with pytest.raises(dg.Failure) as raised, failures.told(world.pipeline()):
        raise error
    assert raised.value.allow_retries is may_retry
    told = {name: value.value for name, value in failure.metadata.items()}
    assert told["error"] == type(error).__name__
    assert told["target"] == "memory://rows"
    if isinstance(error, PositionLostError):
        assert told["outcome"] == "TRUNCATED"
        assert told["missing"] == {"t@a/0": [3, 9]}


def test_batches_committed_before_a_failure_are_booked(world, instance):
    def fail_after_two():
        yield None
        yield None
        while True:
            yield FatalError("the target is gone")

    plan = fail_after_two()
    commit = type(world.sink).commit

    def commit_or_fail(staged):
        if error := next(plan):
            raise error
        return commit(world.sink, staged)

    world.sink.commit = commit_or_fail
    result = materialize(world, instance, raise_on_error=False)
    assert not result.success
    assert [values(e)["batch"] for e in events(result)] == [1, 2]


def test_told_to_stop_a_run_commits_the_batch_in_hand_books_it_and_ends(world, instance):
    commit = type(world.sink).commit
    commits = []

    def commit_and_be_stopped(staged):
        if len(commits) == 1:
            instance.report_run_canceling(instance.get_run_records()[0].dagster_run)
            os.kill(os.getpid(), signal.SIGTERM)
        commits.append(staged.token.seq)
        return commit(world.sink, staged)

    world.sink.commit = commit_and_be_stopped
    with pytest.raises(dg.DagsterExecutionInterruptedError):
        materialize(world, instance)
    assert commits == [1, 2]
    (record,) = instance.get_run_records()
    assert record.dagster_run.status is dg.DagsterRunStatus.CANCELED
    done = instance.fetch_materializations(dg.AssetKey("numbers"), limit=10).records
    assert sorted(values(r.asset_materialization)["batch"] for r in done) == [1, 2]
    world.sink.commit = lambda staged: commit(world.sink, staged)
    materialize(world, instance)
    assert len(world.cell.rows) == 70


def test_told_to_stop_while_it_waits_a_run_ends_at_once(world, instance, monkeypatch):
    world.settings["vector-assets.lease.wait"] = "1 h"
    monkeypatch.setattr("vector_assets.engine.lease.time.sleep", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    leases = world.books.ledger.leases
    with (
        leases.held("numbers", "memory://rows", ttl=3600, wait=0),
        pytest.raises(dg.DagsterExecutionInterruptedError),
    ):
        materialize(world, instance)
    assert world.cell.rows == []


def test_told_to_stop_while_its_source_is_away_a_run_ends_at_once(world, instance, monkeypatch):
    world.settings["vector-assets.outage.timeout"] = "1 h"
    calls = itertools.count()

    def away(span, limit):
        if next(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        raise UnavailableError("broker down")

    monkeypatch.setattr(world.source, "read", away, raising=False)
    with pytest.raises(dg.DagsterExecutionInterruptedError):
        materialize(world, instance)
    assert world.cell.rows == []


def test_told_to_stop_twice_a_run_ends_in_the_middle_of_a_batch_and_the_next_one_mends_it(world, instance):
    commit = type(world.sink).commit

    def commit_and_be_stopped(staged):
        os.kill(os.getpid(), signal.SIGTERM)
        found = commit(world.sink, staged)
        os.kill(os.getpid(), signal.SIGTERM)
        return found

    world.sink.commit = commit_and_be_stopped
    with pytest.raises(dg.DagsterExecutionInterruptedError):
        materialize(world, instance)
    assert len(world.cell.rows) == 10
    world.sink.commit = lambda staged: commit(world.sink, staged)
    found = events(materialize(world, instance))
    assert len(world.cell.rows) == 70
    assert values(found[0])["how"] == "found"


@pytest.mark.parametrize("owners", ["bob", "team:", "a@b.com, x"])
def test_owners_that_dagster_would_refuse_are_refused_by_the_declaration(owners):
    with pytest.raises(ConfigError, match="want e-mail addresses or team:<name>"):
        PipelineSettings.parse({"vector-assets.owners": owners}, "settings")


def test_keys_of_partitions_are_those_of_the_engines_calendar(world):
    for length in ("hourly", "daily"):
        world.settings["vector-assets.partitions"] = length
        pipeline = world.pipeline()
        keys = assets.partitions(pipeline).get_partition_keys()
        calendar = Calendar(pipeline.settings.partitions)
        assert keys[-1] == calendar.now()
        assert calendar.end(keys[0]) > 0
        assert keys[0].startswith("2026-01-01")


def test_an_asset_shows_where_it_is_declared_and_what_it_writes(world, tmp_path):
    pipeline = replace(
        world.pipeline(),
        place=Place(str(tmp_path / "numbers.sql"), 7, 1),
        description="Numbers by name.",
        reports=("sink.parallelism has no effect here",),
        sink_connector="adbpg",
    )
    asset = assets.of(pipeline)
    spec = asset.specs_by_key[dg.AssetKey("numbers")]
    assert spec.description.startswith("Numbers by name.\n\nReads `memory/records`, writes `memory://rows`")
    assert "Note: sink.parallelism has no effect here" in spec.description
    assert spec.kinds == {"memory", "adbpg", "postgres"}
    assert spec.group_name == "adbpg"
    assert spec.code_version == pipeline.fingerprint
    assert [d.asset_key for d in spec.deps] == [dg.AssetKey(["memory", "records"])]
    schema = spec.metadata["dagster/column_schema"]
    assert [(c.name, c.type) for c in schema.columns] == [("id", "BIGINT"), ("name", "STRING")]
    (reference,) = spec.metadata["dagster/code_references"].code_references
    assert (reference.file_path, reference.line_number) == (str(tmp_path / "numbers.sql"), 7)


def test_pipelines_on_one_origin_share_its_external_asset(world):
    first = world.pipeline()
    second = replace(first, name="more", sink_options=_ElsewhereOptions())
    found = factory.definitions([first, second])
    keys = [spec.key for spec in found.resolve_all_asset_specs()]
    assert sorted(key.to_user_string() for key in keys) == ["memory/records", "more", "numbers"]


def test_columns_are_followed_from_the_topic_to_the_target():
    script = """
    CREATE TABLE said (id BIGINT, first_name STRING, last_name STRING, v ARRAY<FLOAT>, PRIMARY KEY (id) NOT ENFORCED)
    WITH ('connector' = 'upsert-kafka', 'topic' = 'people.v1', 'properties.bootstrap.servers' = 'a:1',
          'key.format' = 'json', 'value.format' = 'json');
    CREATE TABLE kept (id BIGINT, name STRING, vec ARRAY<FLOAT>, kind STRING, PRIMARY KEY (id) NOT ENFORCED)
    WITH ('connector' = 'milvus', 'endpoint' = 'm', 'collectionName' = 'people', 'vector.dimensions' = 'vec:2');
    INSERT INTO kept SELECT id, CONCAT(first_name, ' ', last_name), v, 'person' FROM said;
    """
    (pipeline,) = flink_sql.compile_script(script, "people.sql")
    found = {spec.key: spec for spec in factory.definitions([pipeline]).resolve_all_asset_specs()}
    topic, target = found[dg.AssetKey(["kafka", "people_v1"])], found[dg.AssetKey("people")]
    lineage = target.metadata["dagster/column_lineage"].deps_by_column
    assert {name: [(dep.asset_key, dep.column_name) for dep in deps] for name, deps in lineage.items()} == {
        "id": [(topic.key, "id")],
        "name": [(topic.key, "first_name"), (topic.key, "last_name")],
        "vec": [(topic.key, "v")],
        "kind": [],
    }
    columns = topic.metadata["dagster/column_schema"].columns
    assert [column.name for column in columns] == ["id", "first_name", "last_name", "v"]
    assert (topic.kinds, topic.group_name, target.kinds) == ({"kafka"}, "kafka", {"kafka", "milvus"})


class _ElsewhereOptions(type(World.pipeline.__globals__["MemorySinkOptions"]())):
    """Another target."""

    def target(self) -> str:
        return "memory://elsewhere"
