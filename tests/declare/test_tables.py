"""CREATE TABLE to Table: columns, types, keys, comments."""

import pyarrow as pa
import pytest

from tests.declare.scripts import INSERT, SINK, SOURCE, compiled, one
from vector_assets.declare.flink_script import Script
from vector_assets.declare.flink_tables import Declared, declare
from vector_assets.engine.errors import Place
from vector_assets.engine.schema import Column, LogicalType

OPTIONS = "WITH ('connector' = 'kafka')"


def table(columns: str, rest: str = OPTIONS) -> Declared:
    script = Script(f"CREATE TABLE t ({columns}) {rest}", "t.sql")
    (statement,) = script.statements()
    return declare(script, statement)


@pytest.mark.parametrize(
    ("spelled", "wanted"),
    [
        ("BOOLEAN", "BOOLEAN"),
        ("tinyint", "TINYINT"),
        ("SMALLINT", "SMALLINT"),
        ("INT", "INT"),
        ("INTEGER", "INT"),
        ("BIGINT", "BIGINT"),
        ("FLOAT", "FLOAT"),
        ("DOUBLE", "DOUBLE"),
        ("DOUBLE  PRECISION", "DOUBLE"),
        ("DECIMAL", "DECIMAL(10, 0)"),
        ("DEC(5)", "DECIMAL(5, 0)"),
        ("NUMERIC(38, 18)", "DECIMAL(38, 18)"),
        ("CHAR(3)", "CHAR(3)"),
        ("VARCHAR(10)", "VARCHAR(10)"),
        ("VARCHAR", "STRING"),
        ("string", "STRING"),
        ("BINARY(2)", "BINARY(2)"),
        ("VARBINARY(2)", "VARBINARY(2)"),
        ("VARBINARY", "BYTES"),
        ("BYTES", "BYTES"),
        ("DATE", "DATE"),
        ("TIME", "TIME"),
        ("TIME(3) WITHOUT TIME ZONE", "TIME(3)"),
        ("TIMESTAMP", "TIMESTAMP(6)"),
        ("TIMESTAMP(3) WITHOUT TIME ZONE", "TIMESTAMP(3)"),
        ("TIMESTAMP(3) WITH LOCAL TIME ZONE", "TIMESTAMP_LTZ(3)"),
        ("TIMESTAMP WITH LOCAL TIME ZONE", "TIMESTAMP_LTZ(6)"),
        ("TIMESTAMP_LTZ(9)", "TIMESTAMP_LTZ(9)"),
        ("ARRAY<FLOAT>", "ARRAY<FLOAT>"),
        ("ARRAY<ARRAY<INT NOT NULL>>", "ARRAY<ARRAY<INT NOT NULL>>"),
        ("MAP<STRING, ARRAY<INT>>", "MAP<STRING, ARRAY<INT>>"),
        ("ROW<a INT, `b c` ROW<d STRING NOT NULL>>", "ROW<a INT, b c ROW<d STRING NOT NULL>>"),
        ("ROW(a INT 'a comment', b STRING)", "ROW<a INT, b STRING>"),
        ("INT NULL", "INT"),
        ("INT NOT NULL", "INT NOT NULL"),
    ],
)
def test_type_is_read_as_flink_spells_it(spelled: str, wanted: str) -> None:
    (column,) = table(f"c {spelled}").table.columns
    assert str(column.type) == wanted


def test_columns_keep_their_kind_comment_and_place() -> None:
    declared = table(
        "id INT NOT NULL COMMENT 'the car''s number',\n"
        "  twice AS id * 2 COMMENT 'computed',\n"
        "  `when` TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL,\n"
        "  `offset` BIGINT METADATA"
    )
    assert declared.table.columns == (
        Column("id", LogicalType("INT", nullable=False), comment="the car's number"),
        Column("twice", LogicalType("INT"), "computed", expression="id * 2", comment="computed"),
        Column("when", LogicalType("TIMESTAMP_LTZ", 3), "metadata", metadata_key="timestamp"),
        Column("offset", LogicalType("BIGINT"), "metadata", metadata_key="offset"),
    )
    assert [column.place for column in declared.table.columns] == [
        Place("t.sql", 1, 17),
        Place("t.sql", 2, 3),
        Place("t.sql", 3, 3),
        Place("t.sql", 4, 3),
    ]
    assert declared.table.place == Place("t.sql", 1, 14)
    assert [column.name for column in declared.table.physical] == ["id"]


@pytest.mark.parametrize(
    "columns",
    [
        "a INT, b INT, PRIMARY KEY (b, a) NOT ENFORCED",
        "a INT, CONSTRAINT pk PRIMARY KEY (b, a) NOT ENFORCED, b INT",
        "a INT, b INT, primary\n  key (`b`, `a`) not enforced",
    ],
    ids=["last", "named and in between", "in lower case"],
)
def test_key_columns_are_named_in_order_and_take_no_null(columns: str) -> None:
    declared = table(columns)
    assert declared.table.primary_key == ("b", "a")
    assert not any(column.type.nullable for column in declared.table.columns)


def test_column_may_be_the_key_by_itself() -> None:
    declared = table("id INT PRIMARY KEY NOT ENFORCED COMMENT 'x', b INT")
    assert declared.table.primary_key == ("id",)
    assert declared.table.schema == pa.schema([pa.field("id", pa.int32(), nullable=False), pa.field("b", pa.int32())])


def test_keywords_are_read_in_any_case_and_names_keep_theirs() -> None:
    declared = table(
        "Id int, `Group` string, Value Double, primary Key (Id) Not Enforced", "with ('connector'='kafka')"
    )
    assert [column.name for column in declared.table.columns] == ["Id", "Group", "Value"]


@pytest.mark.parametrize(
    "name", ["comment", "format", "type", "name", "key", "index", "list", "text", "json", "vector"]
)
def test_words_that_flink_does_not_reserve_are_names(name: str) -> None:
    assert table(f"{name} INT, b AS {name} + 1").table.columns[0].name == name


def test_temporary_and_if_not_exists_make_no_difference() -> None:
    plain = table("a INT").table
    for start in ("CREATE TEMPORARY TABLE", "CREATE TABLE IF NOT EXISTS", "create temporary table if not exists"):
        script = Script(f"{start} t (a INT) {OPTIONS}", "t.sql")
        assert declare(script, script.statements()[0]).table == plain


def test_table_s_comment_is_the_written_one_else_the_comment_above() -> None:
    assert table("a INT", f"COMMENT 'all cars' {OPTIONS}").table.comment == "all cars"
    script = Script(f"-- All cars,\n-- as they come.\nCREATE TABLE t (a INT) {OPTIONS}", "t.sql")
    assert declare(script, script.statements()[0]).table.comment == "All cars,\nas they come."
    assert table("a INT").table.comment is None


def test_watermark_is_checked_and_reported_as_without_effect() -> None:
    declared = table("at TIMESTAMP(3), WATERMARK FOR at AS at - INTERVAL '5' SECOND")
    assert declared.reports == (
        "t.sql:1:34: WATERMARK FOR at of table t has no effect: records are transformed one by one, in no window",
    )


def test_option_s_text_is_kept_to_the_character() -> None:
    declared = table("a INT", "WITH ('connector' = 'x', 'a' = '\\t', 'b' = 'it''s', 'c' = ' \n', 'd' = '')")
    texts = {name: option.args["value"].name for name, option in declared.options.items()}
    assert texts == {"connector": "x", "a": "\\t", "b": "it's", "c": " \n", "d": ""}


def test_unused_table_is_reported_by_every_pipeline_of_the_script() -> None:
    extra = f"CREATE TABLE spare (a INT) {OPTIONS};\n"
    pipeline = one(SOURCE + extra + SINK + INSERT)
    assert pipeline.reports == ("cars.sql:16:14: table spare is declared but not used; its options are not checked",)


def test_insert_s_comment_is_the_pipeline_s_description() -> None:
    comment = "/*\n * Cars for search,\n *   in C#.\n */\n-- =====\n-- - every hour"
    script = f"-- a head\n\n{SOURCE}{SINK} -- behind the sink\n\n{comment}\n{INSERT}"
    assert one(script).description == "Cars for search,\n  in C#.\n\n- every hour"


def test_without_a_comment_the_sink_s_is_the_description() -> None:
    assert one(SOURCE + "-- What people look for.\n" + SINK + INSERT).description == "What people look for."
    assert one(SOURCE + SINK + "-- apart\n\n" + INSERT).description == ""


def test_comments_may_stand_anywhere() -> None:
    script = (SOURCE + SINK + INSERT).replace(",\n", ", -- a comment; with 'quotes', ( and `so on`\n")
    assert compiled(script)[0].schema.names == ["id", "name", "price"]
