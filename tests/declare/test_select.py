"""INSERT INTO ... SELECT: which column of the sink gets what, and what DuckDB is given."""

import datetime as dt
from decimal import Decimal

import pyarrow as pa
import pytest

from tests.declare.scripts import SINK, SINK_OPTIONS, SOURCE, one
from vector_assets.declare.flink_script import Script
from vector_assets.declare.flink_tables import declare
from vector_assets.declare.flink_types import casts_implicitly
from vector_assets.engine.core import POSITION
from vector_assets.engine.pipeline import Pipeline

COMPUTED = SOURCE.replace(
    "  tags ARRAY<STRING>\n", "  tags ARRAY<STRING>,\n  gross AS price * 2,\n  `The Name` AS UPPER(name)\n"
)


def pipeline(insert: str, source: str = SOURCE, sink: str = SINK) -> Pipeline:
    return one(f"{source}{sink}{insert};")


def query(select: str, source: str = SOURCE) -> str:
    return pipeline(f"INSERT INTO dst {select}", source).transform_text


def sink(columns: str) -> str:
    return f"CREATE TABLE dst ({columns}) WITH {SINK_OPTIONS};\n"


def transformed(pipeline: Pipeline, rows: list[dict[str, object]]) -> list[dict[str, object]]:
    schema = pa.schema([pa.field(c.name, c.type.arrow) for c in pipeline.source_table.physical])
    table = pa.Table.from_pylist(rows, schema=schema)
    (transform,) = pipeline.transforms
    out = transform.apply(table.append_column(POSITION, pa.array(range(len(rows)), pa.int64())))
    assert out.rows.drop_columns(POSITION).schema == pipeline.schema
    rows_out: list[dict[str, object]] = out.rows.drop_columns(POSITION).to_pylist()
    return rows_out


def test_columns_are_matched_by_place_not_by_name() -> None:
    assert query("SELECT id, name AS x, price AS name FROM src") == (
        'SELECT "id" AS "id", "name" AS "name", "price" AS "price" FROM source'
    )


def test_star_is_every_declared_column_in_order() -> None:
    columns = "id BIGINT NOT NULL, name STRING, price INT, weight DOUBLE, cost DECIMAL(10, 2), at TIMESTAMP(3)"
    star = pipeline("INSERT INTO dst SELECT * FROM src", sink=sink(f"{columns}, tags ARRAY<STRING>"))
    assert star.transform_text.count('"') == 4 * 7
    assert star.schema.names == ["id", "name", "price", "weight", "cost", "at", "tags"]


@pytest.mark.parametrize("star", ["*", "src.*", "s.*"], ids=["plain", "table", "alias"])
def test_star_holds_computed_columns_too(star: str) -> None:
    source = (
        "CREATE TABLE src (name STRING, n AS CHAR_LENGTH(name), id BIGINT) WITH ('connector' = 'kafka', 'topic' = 't', "
        "'properties.bootstrap.servers' = '127.0.0.1:9092', 'format' = 'csv', 'scan.startup.mode' = 'latest-offset');"
    )
    alias = " AS s" if star == "s.*" else ""
    found = pipeline(f"INSERT INTO dst SELECT {star} FROM src{alias}", source, sink("a STRING, b INT, c BIGINT"))
    assert transformed(found, [{"name": "abc", "id": 7}]) == [{"a": "abc", "b": 3, "c": 7}]


def test_insert_may_name_the_sink_s_columns_and_the_others_are_null() -> None:
    found = pipeline("INSERT INTO dst (price, id) SELECT price + 1, id FROM src")
    assert transformed(found, [{"id": 1, "price": 2, "name": "x"}]) == [{"id": 1, "name": None, "price": 3}]


def test_computed_column_is_written_out_where_it_is_used() -> None:
    plain = 'SELECT "id" AS "id", "name" AS "name", {} AS "price" FROM source'
    assert query("SELECT id, name, price FROM src", COMPUTED) == plain.format('"price"')
    assert query("SELECT id, name, gross FROM src", COMPUTED) == plain.format('(("price" * 2))')
    both = query("SELECT id, `The Name`, gross FROM src WHERE gross > 1", COMPUTED)
    assert both == (
        'SELECT "id" AS "id", (upper("name")) AS "name", (("price" * 2)) AS "price" FROM source '
        'WHERE ((("price" * 2)) > 1)'
    )


def test_failing_computed_column_is_a_reject() -> None:
    source = SOURCE.replace("  tags ARRAY<STRING>\n", "  tags ARRAY<STRING>,\n  number AS CAST(name AS INT)\n")
    rows: list[dict[str, object]] = [{"id": number, "name": str(number % 3 or "x")} for number in range(3000)]
    assert len(transformed(pipeline("INSERT INTO dst SELECT id, name, number FROM src", source), rows)) == 2000
    assert len(transformed(pipeline("INSERT INTO dst SELECT id, name, price FROM src", source), rows)) == 3000


def test_computed_columns_and_where_give_rows() -> None:
    found = pipeline("INSERT INTO dst SELECT s.id, s.`The Name`, gross FROM src AS s WHERE gross > 10", COMPUTED)
    rows: list[dict[str, object]] = [{"id": 1, "name": "a", "price": 3}, {"id": 2, "name": "b", "price": 6}]
    assert transformed(found, rows) == [{"id": 2, "name": "B", "price": 12}]


def test_parenthesised_select_is_a_select() -> None:
    assert query("(SELECT id, name, price FROM src)") == query("SELECT id, name, price FROM src")


def test_query_is_the_same_whatever_its_spacing_and_comments() -> None:
    spaced = query("SELECT  id,-- the key\n name , price/* in cents */FROM   src WHERE price>1")
    assert spaced == query("SELECT id, name, price FROM src WHERE price > 1")


IMPLICIT = {
    "TINYINT": "TINYINT SMALLINT INT BIGINT DECIMAL(10,2) FLOAT DOUBLE",
    "INT": "INT BIGINT DECIMAL(10,2) FLOAT DOUBLE",
    "BIGINT": "BIGINT DECIMAL(10,2) FLOAT DOUBLE",
    "DECIMAL(10,2)": "DECIMAL(10,2) FLOAT DOUBLE",
    "FLOAT": "DECIMAL(10,2) FLOAT DOUBLE",
    "DOUBLE": "DECIMAL(10,2) DOUBLE",
    "BOOLEAN": "BOOLEAN",
    "STRING": "STRING",
    "DATE": "DATE",
    "TIME": "TIME",
    "TIMESTAMP(3)": "DATE TIME TIMESTAMP(3) TIMESTAMP_LTZ(3)",
    "TIMESTAMP_LTZ(3)": "TIMESTAMP(3) TIMESTAMP_LTZ(3)",
    "ARRAY<INT>": "ARRAY<INT> ARRAY<BIGINT>",
}
"""Where Flink stores a type without CAST (LogicalTypeCasts), among the types below."""
TYPES = list(dict.fromkeys(target for targets in IMPLICIT.values() for target in targets.split()))


@pytest.mark.parametrize("source", IMPLICIT)
def test_implicit_casts_are_those_of_flink(source: str) -> None:
    columns = ", ".join(f"c{number} {kind}" for number, kind in enumerate([source, *TYPES]))
    script = Script(f"CREATE TABLE t ({columns}) WITH ('connector' = 'x')", "t.sql")
    first, *others = declare(script, script.statements()[0]).table.columns
    allowed = [kind for kind, column in zip(TYPES, others, strict=True) if casts_implicitly(first.type, column.type)]
    assert " ".join(sorted(allowed)) == " ".join(sorted(IMPLICIT[source].split()))


def test_plain_columns_stay_plain_where_arrow_converts_them_as_flink_does() -> None:
    found = pipeline("INSERT INTO dst SELECT id, price, at FROM src", sink=sink("a DOUBLE, b BIGINT, c TIMESTAMP(6)"))
    assert found.transform_text == 'SELECT "id" AS "a", "price" AS "b", "at" AS "c" FROM source'


@pytest.mark.parametrize(("digits", "kept"), [(0, 0), (1, 600000), (3, 678000), (6, 678000)])
def test_digits_of_a_second_that_the_sink_does_not_have_are_cut(digits: int, kept: int) -> None:
    found = pipeline("INSERT INTO dst SELECT at FROM src", sink=sink(f"at TIMESTAMP({digits})"))
    at = dt.datetime.fromisoformat("2024-02-29 13:04:05.678")
    assert transformed(found, [{"id": 1, "at": at}]) == [{"at": at.replace(microsecond=kept)}]


def test_implicit_conversion_means_what_it_means_in_flink() -> None:
    columns = "a DECIMAL(5, 1), b DATE, c TIMESTAMP_LTZ(3), d FLOAT, e DECIMAL(5, 2)"
    found = pipeline("INSERT INTO dst SELECT cost, at, at, price, weight FROM src", sink=sink(columns))
    at = dt.datetime.fromisoformat("2024-02-29 13:04:05.678")
    (row,) = transformed(found, [{"id": 1, "cost": Decimal("12.35"), "at": at, "price": 3, "weight": 0.285}])
    assert row == {
        "a": Decimal("12.4"),
        "b": at.date(),
        "c": at.replace(tzinfo=dt.UTC),
        "d": 3.0,
        "e": Decimal("0.29"),
    }


def test_output_has_the_sink_s_types_and_nulls() -> None:
    found = pipeline("INSERT INTO dst SELECT id, name, 1 FROM src")
    assert found.schema == pa.schema(
        [pa.field("id", pa.int64(), nullable=False), ("name", pa.string()), ("price", pa.int32())]
    )


def test_failing_conversion_is_a_reject_not_an_error() -> None:
    found = pipeline("INSERT INTO dst SELECT id, name, CAST(name AS INT) FROM src")
    schema = pa.schema([pa.field(c.name, c.type.arrow) for c in found.source_table.physical])
    names = ["1", "x", "1e3", "3000000000", " 7 ", None]
    rows = [{"id": number, "name": name} for number, name in enumerate(names)]
    table = pa.Table.from_pylist(rows, schema=schema)
    (transform,) = found.transforms
    out = transform.apply(table.append_column(POSITION, pa.array(range(len(names)), pa.int64())))
    assert out.rows["price"].to_pylist() == [1, 7, None]
    assert out.rejected[POSITION].to_pylist() == [1, 2, 3]
    assert "cannot be read as INT: x" in out.rejected["error"][0].as_py()


def test_null_for_a_column_that_takes_none_is_a_reject() -> None:
    found = pipeline("INSERT INTO dst SELECT CAST(price AS BIGINT), name, price FROM src")
    schema = pa.schema([pa.field(c.name, c.type.arrow) for c in found.source_table.physical])
    table = pa.Table.from_pylist([{"id": 1, "price": None}, {"id": 2, "price": 5}], schema=schema)
    (transform,) = found.transforms
    out = transform.apply(table.append_column(POSITION, pa.array([0, 1], pa.int64())))
    assert out.rows["id"].to_pylist() == [5]
    assert out.rejected[POSITION].to_pylist() == [0]
