"""Columns of a target are added, dropped, renamed and widened on real services; what cannot be is named."""

import pyarrow as pa
import pytest

from tests.sinks.contract import Feed, rows_of
from tests.sinks.iceberg_target import lake as iceberg_lake  # noqa: F401
from tests.sinks.maxcompute_target import UPSERT, make_lot  # noqa: F401
from tests.sinks.milvus_target import cars_collection, make_target  # noqa: F401
from tests.sinks.opensearch_target import make_index  # noqa: F401
from tests.sinks.paimon_target import lake as paimon_lake  # noqa: F401
from tests.sinks.paimon_target import make_lake  # noqa: F401
from vector_assets.engine.abilities import Alterable
from vector_assets.engine.errors import PlanError
from vector_assets.engine.schema import Column, ColumnChange, LogicalType

pytestmark = pytest.mark.service

INT, BIGINT, TEXT = LogicalType("INT"), LogicalType("BIGINT"), LogicalType("VARCHAR")
OLD = pa.schema([("id", pa.int32()), ("n", pa.int32()), ("s", pa.string())])
NEW = pa.schema([("id", pa.int32()), ("n", pa.int64()), ("said", pa.string()), ("x", pa.float64())])
LAST = pa.schema([("id", pa.int32()), ("said", pa.string()), ("x", pa.float64())])
FIRST = [
    ColumnChange("add", Column("x", LogicalType("DOUBLE"))),
    ColumnChange("rename", Column("said", TEXT), "s"),
    ColumnChange("type", Column("n", BIGINT)),
]
DROP = [ColumnChange("drop", Column("n", BIGINT))]


def follows(sink, rows):
    """The sink, whose table has one row (1, 1, 'a') of OLD, is changed; `rows` gives the table's rows as dicts."""
    assert isinstance(sink, Alterable)
    feed = Feed(sink)
    apply(feed, rows_of((1, 1, "a"), schema=OLD))
    assert sink.alter(FIRST)
    assert sink.alter(FIRST) == ()
    sink.prepare(NEW, ("id",))
    apply(feed, rows_of((2, 1 << 40, "b", 0.5), schema=NEW))
    assert rows() == [{"id": 1, "n": 1, "said": "a", "x": None}, {"id": 2, "n": 1 << 40, "said": "b", "x": 0.5}]
    assert sink.alter(DROP)
    assert sink.alter(DROP) == ()
    sink.prepare(LAST, ("id",))
    apply(feed, rows_of((3, "c", None), schema=LAST))
    assert rows() == [
        {"id": 1, "said": "a", "x": None}, {"id": 2, "said": "b", "x": 0.5}, {"id": 3, "said": "c", "x": None},
    ]  # fmt: skip
    with pytest.raises(PlanError, match="no such column"):
        sink.alter([ColumnChange("rename", Column("other", TEXT), "gone")])
    with pytest.raises(PlanError, match="column of that name"):
        sink.alter([ColumnChange("rename", Column("x", TEXT), "said")])
    with pytest.raises(PlanError):
        sink.alter([ColumnChange("drop", Column("id", INT))])


def apply(feed, rows):
    feed.sink.commit(feed.stage(rows))


def test_postgres_follows(make_cars):
    cars = make_cars("CREATE TABLE car_info (id int PRIMARY KEY, n int, s text)")

    def rows():
        names = [
            row[0] for row in cars.rows(
                "SELECT attname FROM pg_attribute WHERE attrelid = 'car_info'::regclass AND attnum > 0"
                " AND NOT attisdropped ORDER BY attnum"
            )
        ]  # fmt: skip
        return [dict(zip(names, row, strict=True)) for row in cars.rows("SELECT * FROM car_info ORDER BY id")]

    sink = cars.sink(OLD, conflictmode="update")
    follows(sink, rows)


def test_postgres_names_what_stands_in_the_way_and_quotes_what_it_is_given(make_cars):
    cars = make_cars('CREATE TABLE car_info (id int PRIMARY KEY, n int NOT NULL, "we""ird" varchar(5), b boolean)')
    cars.rows("INSERT INTO car_info VALUES (1, 7, 'x', true) RETURNING id")
    cars.execute("CREATE VIEW seen AS SELECT n FROM car_info")
    sink = cars.sink(pa.schema([("id", pa.int32()), ("n", pa.int32())]), conflictmode="update")
    for change in (ColumnChange("drop", Column("n", INT)), ColumnChange("type", Column("n", TEXT))):
        with pytest.raises(PlanError, match=r"column n .*view seen"):
            sink.alter([change])
    cars.execute("DROP VIEW seen")
    sink.alter([
        ColumnChange("type", Column("n", TEXT)), ColumnChange("type", Column("b", LogicalType("TINYINT"))),
        ColumnChange("rename", Column("'; DROP TABLE car_info; --", TEXT), 'we"ird'),
        ColumnChange("add", Column("select", LogicalType("DECIMAL", 10, 2))),
    ])  # fmt: skip
    assert cars.rows("SELECT * FROM car_info") == [(1, "7", "x", 1, None)]
    assert cars.rows('SELECT "\'; drop table car_info; --", "select" FROM car_info') == [("x", None)]


def test_a_delta_table_follows(make_lot):  # noqa: F811
    lot = make_lot("id int NOT NULL, n int, s string", kind="upsert")

    def rows():
        names = [
            column.name
            for column in lot.server.odps.get_table(
                lot.name,
            ).table_schema
        ]
        return [dict(zip(names, row, strict=True)) for row in lot.rows("*")]

    sink = lot.sink(OLD, ("id",), **UPSERT)
    follows(sink, rows)


def test_an_ordinary_table_follows_but_not_by_the_streaming_tunnel(make_lot):  # noqa: F811
    lot = make_lot("id int, n int NOT NULL, s varchar(5)")
    sink = lot.sink(OLD)
    longer = ColumnChange("type", Column("s", LogicalType("VARCHAR", 9)))
    assert sink.alter([ColumnChange("type", Column("n", BIGINT)), longer, ColumnChange("drop", Column("id", INT))])
    table = lot.server.odps.get_table(lot.name)
    assert [(c.name, str(c.type).lower()) for c in table.table_schema] == [("n", "bigint"), ("s", "varchar(9)")]
    with pytest.raises(PlanError, match="cannot be converted"):
        sink.alter([ColumnChange("type", Column("s", INT))])
    stream = make_lot("id int, n int, s string")
    sink = stream.sink(OLD, useStreamTunnel="true")
    assert sink.alter([ColumnChange("add", Column("x", TEXT))])
    for change in (ColumnChange("drop", Column("n", INT)), ColumnChange("type", Column("n", BIGINT))):
        with pytest.raises(PlanError, match="streaming tunnel"):
            sink.alter([change])


def test_iceberg_follows(iceberg_lake):  # noqa: F811
    follows(iceberg_lake.sink(OLD, ("id",), vector__dimensions=None), iceberg_lake.rows)


def test_paimon_follows(make_lake):  # noqa: F811
    lake = make_lake()
    sink = lake.sink(OLD, ("id",), bucket=1)

    def rows():
        names = [field.name for field in sink.storage.load().fields]
        return [dict(zip(names, row, strict=True)) for row in sorted(lake.rows())]

    follows(sink, rows)


def test_an_index_gets_fields_and_nothing_else(make_index):  # noqa: F811
    index = make_index({"id": {"type": "integer"}, "n": {"type": "long"}, "s": {"type": "keyword"}})
    sink = index.sink(OLD)
    added = [ColumnChange("add", Column("x", LogicalType("DOUBLE"))), ColumnChange("type", Column("n", BIGINT))]
    assert sink.alter(added) == ("column x DOUBLE is added",)
    assert sink.alter(added) == ()
    sink.prepare(OLD.append(pa.field("x", pa.float64())), ("id",))
    apply(Feed(sink), rows_of((1, 1, "a", 0.5), schema=OLD.append(pa.field("x", pa.float64()))))
    assert [document["x"] for document in index.documents().values()] == [0.5]
    for change in (DROP[0], FIRST[1]):
        with pytest.raises(PlanError, match="neither dropped nor renamed"):
            sink.alter([change])
    with pytest.raises(PlanError):
        sink.alter([ColumnChange("type", Column("n", TEXT))])


def test_a_collection_refuses_every_change(cars_collection):  # noqa: F811
    sink = cars_collection.sink()
    with pytest.raises(PlanError, match=r"column x DOUBLE is added: fields of a Milvus 2\.3 collection"):
        sink.alter(FIRST[:1])
