"""Types, partitions, evolution and options of Iceberg tables."""

from datetime import date, datetime, time
from decimal import Decimal

import pyarrow as pa
import pytest

from tests.sinks.contract import Feed
from tests.sinks.iceberg_target import lake  # noqa: F401  (fixture)
from vector_assets.engine.abilities import Creatable, Evolvable, Queryable, Recallable, Remembering
from vector_assets.engine.core import POSITION, Batch
from vector_assets.engine.errors import ConfigError, PlanError
from vector_assets.sinks.iceberg_options import IcebergOptions
from vector_assets.sinks.iceberg_partition import parse_partition

WIDE = pa.schema(
    [
        ("id", pa.int64()),
        ("tiny", pa.int8()),
        ("price", pa.decimal128(20, 4)),
        ("at", pa.timestamp("ms")),
        ("seen", pa.timestamp("us", "UTC")),
        ("day", pa.date32()),
        ("time", pa.time64("us")),
        ("raw", pa.binary()),
        ("vector", pa.list_(pa.float32())),
        ("labels", pa.map_(pa.string(), pa.int32())),
        ("nested", pa.struct([("a", pa.int32()), ("b", pa.list_(pa.string()))])),
        ("flag", pa.bool_()),
    ]
)
ROW = {
    "id": 1, "tiny": 7, "price": Decimal("12.3400"), "at": datetime.fromisoformat("2026-03-01T12:00:00.123"),
    "seen": datetime.fromisoformat("2026-03-01T12:00:00.000001+00:00"), "day": date(2026, 3, 1),
    "time": time(1, 2, 3, 4), "raw": b"\x00\xff", "vector": [1.0, 2.5],
    "labels": [("x", 1)], "nested": {"a": 1, "b": ["c"]}, "flag": True,
}  # fmt: skip


def table(schema: pa.Schema, *rows: dict) -> pa.Table:
    made = pa.Table.from_pylist(list(rows), schema)
    return made.append_column(POSITION, pa.array(range(len(rows)), pa.int64()))


def apply(feed: Feed, rows: pa.Table):
    token = feed.token(rows.num_rows)
    feed.seq += 1
    feed.offset += rows.num_rows
    staged = feed.sink.stage(Batch(rows), token)
    return staged, feed.sink.commit(staged)


def test_every_type_comes_back_as_it_was(lake):  # noqa: F811
    sink = lake.sink(WIDE, ())
    assert all(isinstance(sink, ability) for ability in (Creatable, Evolvable, Queryable, Recallable, Remembering))
    apply(Feed(sink), table(WIDE, ROW, {"id": 2}))
    found = lake.rows()
    assert found[0] == ROW
    assert all(value is None for name, value in found[1].items() if name != "id")
    assert sink.relation().read_all().to_pylist()[0] == ROW


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (pa.timestamp("ns"), "nanoseconds are no part"),
        (pa.uint64(), "no type for uint64"),
        (pa.time64("ns"), "nanoseconds are no part"),
    ],
    ids=str,
)
def test_a_type_that_iceberg_lacks_is_refused_by_name(lake, kind, reason):  # noqa: F811
    with pytest.raises(PlanError, match=f"column odd: .*{reason}"):
        lake.sink(pa.schema([("id", pa.int64()), ("odd", kind)]), ())


def test_timestamps_beyond_microseconds_are_rejected_row_by_row(lake):  # noqa: F811
    schema = pa.schema([("id", pa.int64()), ("at", pa.timestamp("ms"))])
    rows = pa.table({"id": [1, 2], "at": pa.array([0, 1 << 62]).cast(pa.timestamp("ms")), POSITION: pa.array([0, 1])})
    staged, _ = apply(Feed(lake.sink(schema, ())), rows)
    assert staged.rejected.column(POSITION).to_pylist() == [1]
    assert [row["id"] for row in lake.rows()] == [1]


@pytest.mark.parametrize(
    ("partition", "spec"),
    [
        ("day(at), bucket(16, id)", ["at_day", "id_bucket"]),
        ("hours(at), truncate(id, 10)", ["at_hour", "id_trunc"]),
        ("flag, month(day)", ["flag", "day_month"]),
    ],
)
def test_tables_are_partitioned_as_written(lake, partition, spec):  # noqa: F811
    sink = lake.sink(WIDE, (), partition=partition)
    assert [field.name for field in lake.table().spec().fields] == spec
    apply(Feed(sink), table(WIDE, ROW, {**ROW, "id": 2, "at": datetime.fromisoformat("2026-03-02T00:00:00")}))
    assert len(lake.rows()) == 2
    with pytest.raises(PlanError, match="is partitioned by"):
        lake.sink(WIDE, (), partition="year(at)")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("dya(ts)", "unknown transform 'dya'"),
        ("bucket(id)", "want bucket"),
        ("day(ts, 3)", "want day"),
        ("(", "want col"),
    ],
)
def test_a_partition_that_is_none_is_refused(text, reason):
    with pytest.raises(ValueError, match=reason):
        parse_partition(text)


def test_columns_are_added_and_widened_while_rows_keep_coming(lake):  # noqa: F811
    old = pa.schema([("id", pa.int64()), ("n", pa.int32()), ("s", pa.struct([("a", pa.int32())]))])
    new = pa.schema(
        [
            ("id", pa.int64()),
            ("n", pa.int64()),
            ("s", pa.struct([("a", pa.int64()), ("b", pa.string())])),
            ("x", pa.float64()),
        ]
    )
    sink = lake.sink(old, ())
    feed = Feed(sink)
    apply(feed, table(old, {"id": 1, "n": 1, "s": {"a": 1}}))
    foreseen = sink.would_evolve(new)
    assert len(lake.table().schema().fields) == 3
    changes = sink.evolve(new)
    assert changes == foreseen
    assert sink.would_evolve(new) == ()
    assert [change.split(" ")[1] for change in changes] == ["n", "s.a", "s.b", "x"]
    assert sink.evolve(new) == ()
    apply(feed, table(new, {"id": 2, "n": 1 << 40, "s": {"a": 1 << 40, "b": "b"}, "x": 0.5}))
    first, second = lake.rows()
    assert first == {"id": 1, "n": 1, "s": {"a": 1, "b": None}, "x": None}
    assert second == {"id": 2, "n": 1 << 40, "s": {"a": 1 << 40, "b": "b"}, "x": 0.5}
    # columns that the rows lack are kept, and narrower ones are no change
    assert sink.evolve(old) == ()
    with pytest.raises(PlanError, match="column x is string"):
        sink.would_evolve(pa.schema([("id", pa.int64()), ("x", pa.string())]))
    with pytest.raises(PlanError, match="column x is string"):
        sink.evolve(pa.schema([("id", pa.int64()), ("x", pa.string())]))
    assert lake.table().schema().find_field("x").field_type == lake.table().schema().find_type("x")


def test_an_existing_table_is_adopted_when_it_fits_and_refused_when_told_to_fail(lake):  # noqa: F811
    schema = pa.schema([("id", pa.int64()), ("name", pa.string())])
    lake.sink(schema, (), pipeline="first")
    assert lake.sink(schema, (), pipeline="first", on_existing="fail").options.on_existing == "fail"
    assert lake.sink(pa.schema([("id", pa.int32())]), (), pipeline="second") is not None
    with pytest.raises(PlanError, match="exists already and pipeline second did not make it"):
        lake.sink(schema, (), pipeline="second", on_existing="fail")
    with pytest.raises(PlanError, match="column name is int32, the table's column is string"):
        lake.sink(pa.schema([("name", pa.int32())]), (), pipeline="second")


def test_inspect_makes_nothing(lake):  # noqa: F811
    sink = lake.sink(None, ())
    target = sink.inspect(pa.schema([("id", pa.int64())]), ())
    assert target.notes == ("table shop.cars: will be made",)
    assert not lake.catalog.table_exists("shop.cars")
    (made,) = lake.sink(None, ("id",), vector__dimensions=None).create_target(pa.schema([("id", pa.int64())]), ("id",))
    assert "made at" in made


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"catalog-type": "hadoop"}, "catalog-type"),
        ({"catalog-impl": "org.apache.iceberg.nessie.NessieCatalog"}, "no Java class runs here; known: org.apache"),
        ({"write.format.default": "orc"}, "write.format.default"),
        ({"write.upsert.enabled": "true", "format-version": "1"}, "needs 'format-version' = '2'"),
        ({"catalog-type": "rest"}, "option 'uri' is required by a rest catalog"),
        ({"uri": "mysql://me:geheim@host/db"}, "begins with sqlite: or postgresql:"),
        ({"cataloge-name": "x"}, r"unknown option 'cataloge-name' \(did you mean 'catalog-name'"),
        ({"partition": "dy(ts)"}, "unknown transform 'dy'"),
    ],
    ids=str,
)
def test_options_that_are_not_honoured_are_refused(options, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        IcebergOptions.parse({"connector": "iceberg", "catalog-table": "t", **options}, "connector iceberg")
    assert "geheim" not in str(caught.value)


def test_secrets_are_never_shown_and_reach_the_catalog():
    options = IcebergOptions.parse(
        {
            "connector": "iceberg", "catalog-table": "t", "catalog-type": "rest", "uri": "https://me:geheim@host/api",
            "credential": "id:geheim", "s3.secret-access-key": "geheim", "s3.endpoint": "http://127.0.0.1:1",
            "header.X-Key": "geheim", "clients": "2",
        },
        "connector iceberg",
    )  # fmt: skip
    assert "geheim" not in options.target() + str(options.shown())
    assert options.login.properties["s3.secret-access-key"] == "geheim"
    assert options.login.properties["header.X-Key"] == "geheim"
    assert "geheim" not in repr(options.login)
    assert len(options.reports()) == 1


@pytest.mark.parametrize(
    ("given", "uri"),
    [
        (
            {"uri": "jdbc:postgresql://host/db", "jdbc.user": "me", "jdbc.password": "a/b"},
            "postgresql+psycopg://me:a%2Fb@host/db",
        ),
        (
            {"uri": "jdbc:sqlite:/tmp/c.db", "catalog-impl": "org.apache.iceberg.jdbc.JdbcCatalog"},
            "sqlite:////tmp/c.db",
        ),
        ({"uri": "sqlite:////tmp/c.db", "catalog-type": "jdbc"}, "sqlite:////tmp/c.db"),
    ],
    ids=str,
)
def test_catalogs_are_found_by_flinks_spelling(given, uri):
    options = IcebergOptions.parse({"connector": "iceberg", "catalog-table": "t", **given}, "connector iceberg")
    assert options.login.kind == "sql"
    assert options.login.properties["uri"] == uri


@pytest.mark.filterwarnings("ignore:No preferred file implementation")
def test_a_warehouse_that_no_file_system_knows_is_a_config_error(lake):  # noqa: F811
    with pytest.raises(ConfigError, match="odd"):
        lake.sink(pa.schema([("id", pa.int64())]), (), warehouse="odd://somewhere")
