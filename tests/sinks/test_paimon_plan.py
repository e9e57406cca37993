"""What the Paimon sink refuses before the first row, what it makes, and how a table follows the pipeline's columns."""

from pathlib import Path

import pyarrow as pa
import pytest

from tests.sinks.contract import SCHEMA, Feed, car
from tests.sinks.paimon_target import declared, lake, make_lake  # noqa: F401  (fixtures)
from vector_assets.engine.core import POSITION, Batch
from vector_assets.engine.errors import BudgetError, ConfigError, PlanError, TargetReplacedError
from vector_assets.engine.schema import LogicalType

TEXT = LogicalType("VARCHAR", 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bucket": "-2"}, "postponed buckets are refused"),
        ({"merge___engine": "first-row"}, "want deduplicate"),
        ({"merge___engine": "partial-update"}, "want deduplicate"),
        ({"file__format": "avro"}, "file.format"),
        ({"metastore": "hive"}, "metastore"),
        ({"snapshot__num___retained__max": "5"}, "unknown option 'snapshot.num-retained.max'"),
        ({"path": "/tmp/x"}, "'path' names the table already: leave out 'warehouse'"),
        ({"catalog___table": None}, "without 'catalog-table'"),
        ({"warehouse": "hdfs://host/x"}, "want a local path or one of file:, oss:, s3:, s3a:"),
        ({"warehouse": "s3://key:hidden@bucket/x"}, "credentials do not belong into a path"),
        ({"target___file___size": "1 kb"}, "target-file-size"),
    ],
    ids=str,
)
def test_an_option_that_is_not_honoured_is_refused_by_name(lake, options, message):  # noqa: F811
    with pytest.raises(ConfigError) as caught:
        lake.options(**options)
    assert message in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_unknown_options_list_the_known_ones(lake):  # noqa: F811
    with pytest.raises(ConfigError, match=r"known options: .*bucket-key.*warehouse"):
        lake.options(buckets=3)


def test_options_without_effect_are_reported(lake):  # noqa: F811
    reports = lake.options(sink__parallelism=3, write___only="true").reports()
    assert [report.split("'")[1] for report in reports] == ["sink.parallelism", "write-only"]


def test_secrets_are_not_shown():
    from vector_assets.sinks.paimon_options import PaimonOptions

    given = {"connector": "paimon", "path": "s3://b/db.db/t", "s3.access-key": "AKIA", "s3.secret-key": "hidden"}
    options = PaimonOptions.parse(given, "connector paimon")
    assert "hidden" not in str(options.shown()) + repr(options) + repr(options.storage.login)
    assert options.storage.settings["s3.secret-key"] == "hidden"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (pa.timestamp("ns"), r"ns.*use TIMESTAMP\(6\)"),
        (pa.time64("us"), "TIME: Spark has no such type"),
        (pa.list_(pa.timestamp("ns")), r"x\.item is timestamp"),
        (pa.uint64(), "uint64"),
    ],
    ids=str,
)
def test_a_type_that_spark_reads_back_wrong_is_refused_by_name(lake, kind, message):  # noqa: F811
    with pytest.raises(PlanError, match=message):
        lake.sink(pa.schema([*SCHEMA, ("x", kind)]))
    assert not Path(lake.path).exists()


@pytest.mark.parametrize(
    ("key", "options", "message"),
    [
        ((), {"bucket": 2}, "needs 'bucket-key'"),
        ((), {"bucket___key": "id"}, "'bucket' to be at least 1"),
        ((), {"partition": "colour"}, "names column colour, which does not exist"),
        (("id",), {"partition": "color"}, r"must belong to PRIMARY KEY \(id\)"),
        (("id",), {"partition": "id"}, "no partition column"),
        (("id",), {"bucket": 2, "bucket___key": "color"}, "columns of PRIMARY KEY"),
    ],
    ids=str,
)
def test_a_table_that_cannot_be_made_is_refused(lake, key, options, message):  # noqa: F811
    with pytest.raises(PlanError, match=message):
        lake.sink(key=key, **options)


def test_the_table_is_made_with_statistics_and_found_there_the_second_time(lake):  # noqa: F811
    sink = lake.sink(None, bucket=3)
    assert sink.inspect(SCHEMA, ("id",)).notes == ("the table will be created",)
    assert not Path(lake.path).exists()
    (made,) = sink.create_target(SCHEMA, ("id",))
    assert "was made" in made
    (again,) = sink.create_target(SCHEMA, ("id",))
    assert "is there already" in again
    settings = sink.storage.load().table_schema.options
    assert settings["metadata.stats-mode"] == "full"
    assert settings["bucket"] == "3"


def test_a_database_whose_directory_is_missing_is_never_made(lake):  # noqa: F811
    with pytest.raises(PlanError, match=r"the directory .*/other\.db does not exist"):
        lake.sink(catalog___database="other")
    assert not Path(lake.warehouse, "other.db").exists()


def test_a_missing_table_is_refused_without_auto_create(lake):  # noqa: F811
    with pytest.raises(PlanError, match="'auto-create' is false"):
        lake.sink(auto___create="false")


def test_on_existing_fail_refuses_a_table_of_another_and_takes_its_own(lake):  # noqa: F811
    lake.sink(on_existing="fail")
    lake.sink(on_existing="fail")
    from vector_assets.sinks.paimon import PaimonSink

    other = PaimonSink(lake.options(on_existing="fail"), None, "others")
    with pytest.raises(PlanError, match="pipeline others did not make it"):
        other.prepare(SCHEMA, ("id",))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"merge-engine": "first-row"}, "first-row"),
        ({"bucket": "-2"}, "postponed buckets"),
        ({"sequence.field": "color"}, "sequence.field"),
        ({"metadata.stats-mode": "none"}, "Spark's filtered queries fail"),
    ],
    ids=str,
)
def test_a_table_of_others_with_settings_we_do_not_honour_is_refused(lake, settings, message):  # noqa: F811
    from pypaimon.schema.schema import Schema

    base = {"bucket": "1", "metadata.stats-mode": "full"}
    wanted = Schema.from_pyarrow_schema(SCHEMA, primary_keys=["id"], options=base | settings)
    lake.sink(None).storage.load() or _create(lake, wanted)
    with pytest.raises(PlanError, match=message):
        lake.sink()


def _create(lake, schema):  # noqa: F811
    from pypaimon.schema.schema_manager import SchemaManager

    SchemaManager(lake.sink(None).storage.file_io, lake.path).create_table(schema)


def test_rows_that_the_table_refuses_are_rejected_by_position_and_the_rest_lands(lake):  # noqa: F811
    schema = pa.schema([pa.field("id", pa.int32(), nullable=False), ("color", pa.string()), ("feature", pa.string())])
    sink = lake.sink(schema, (), declared(schema, color=TEXT))
    rows = pa.table({"id": [1, None, 3], "color": ["red", "red", "green"], "feature": ["a"] * 3, POSITION: [5, 6, 7]})
    staged = sink.stage(Batch(rows, reject_limit=2), Feed(sink).token(3))
    assert [(r[POSITION], r["error"]) for r in staged.rejected.to_pylist()] == [
        (6, "column id: is null, the table takes no null there"),
        (7, "column color: is longer than 3"),
    ]
    assert sink.commit(staged).counts.written == 1
    with pytest.raises(BudgetError, match="2 rows cannot be written"):
        sink.stage(Batch(rows, reject_limit=1), Feed(sink).token(3))


def test_updates_for_an_append_table_are_refused(lake):  # noqa: F811
    feed = Feed(lake.sink(key=()))
    with pytest.raises(PlanError, match="takes inserts only"):
        feed.apply(deletes=(1,))


def test_a_table_made_anew_under_the_old_name_is_a_named_outcome(lake):  # noqa: F811
    feed = Feed(lake.sink())
    feed.apply(car(1))
    staged = feed.stage(__import__("tests.sinks.contract", fromlist=["rows_of"]).rows_of(car(2)))
    Path(lake.path).rename(Path(lake.warehouse, "gone"))
    with pytest.raises(TargetReplacedError, match="was dropped"):
        feed.sink.commit(staged)
    lake.sink()
    with pytest.raises(TargetReplacedError, match="is a new table"):
        feed.sink.commit(staged)
    assert feed.sink.find(staged.token, staged.committable) == "UNKNOWN"


@pytest.mark.parametrize("key", [(), ("id",)], ids=["append", "key"])
def test_columns_are_added_and_widened_and_old_rows_stay_readable(lake, key):  # noqa: F811
    sink = lake.sink(key=key, bucket=1, bucket___key=None if key else "id")
    feed = Feed(sink)
    feed.apply(car(1))
    narrow = pa.schema([("id", pa.int32()), ("color", pa.string()), ("feature", pa.string()), ("n", pa.int32())])
    wide = narrow.set(3, pa.field("n", pa.int64())).append(pa.field("at", pa.struct([("x", pa.int32())])))
    assert sink.would_evolve(narrow) == ("column n INT was added",)
    assert sink.evolve(narrow) == ("column n INT was added",)
    assert sink.evolve(narrow) == ()
    rows = pa.table([[2], ["red"], ["{}"], [7], [0]], names=[*narrow.names, POSITION]).cast(
        pa.schema([*narrow, (POSITION, pa.int64())])
    )
    sink.commit(feed.stage(rows))
    made = sink.evolve(wide)
    assert "n was widened from INT to BIGINT" in made[0]
    assert "column at" in made[1]
    sink.maintain("compact", __import__("vector_assets.engine.abilities", fromlist=["Upkeep"]).Upkeep())
    assert [(row[0], row[3]) for row in lake.rows()] == [(1, None), (2, 7)]
    before = sink.storage.load().table_schema.id
    with pytest.raises(PlanError, match="column n is int64 there and string"):
        sink.would_evolve(wide.set(3, pa.field("n", pa.string())))
    with pytest.raises(PlanError, match="column n is int64 there and string"):
        sink.evolve(wide.set(3, pa.field("n", pa.string())).append(pa.field("new", pa.int32())))
    assert sink.storage.load().table_schema.id == before
