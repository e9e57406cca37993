import pyarrow as pa
import pytest

from vector_assets.engine.errors import ConfigError
from vector_assets.engine.schema import TYPE_NAMES, Column, LogicalType, Table

INT = LogicalType("INT")
TEXT = LogicalType("VARCHAR")
ROW = LogicalType("ROW", children=(INT, TEXT), child_names=("a", "b"))

TYPES = {
    "BOOLEAN": (LogicalType("BOOLEAN"), pa.bool_()),
    "TINYINT": (LogicalType("TINYINT"), pa.int8()),
    "SMALLINT": (LogicalType("SMALLINT"), pa.int16()),
    "INT": (INT, pa.int32()),
    "BIGINT": (LogicalType("BIGINT"), pa.int64()),
    "FLOAT": (LogicalType("FLOAT"), pa.float32()),
    "DOUBLE": (LogicalType("DOUBLE"), pa.float64()),
    "DATE": (LogicalType("DATE"), pa.date32()),
    "TIME": (LogicalType("TIME"), pa.time64("us")),
    "TIME(3)": (LogicalType("TIME", 3), pa.time64("us")),
    "STRING": (TEXT, pa.string()),
    "VARCHAR(20)": (LogicalType("VARCHAR", 20), pa.string()),
    "CHAR(2)": (LogicalType("CHAR", 2), pa.string()),
    "BYTES": (LogicalType("VARBINARY"), pa.binary()),
    "BINARY(4)": (LogicalType("BINARY", 4), pa.binary()),
    "DECIMAL(10, 0)": (LogicalType("DECIMAL"), pa.decimal128(10, 0)),
    "DECIMAL(38, 18)": (LogicalType("DECIMAL", 38, 18), pa.decimal128(38, 18)),
    "TIMESTAMP(6)": (LogicalType("TIMESTAMP"), pa.timestamp("us")),
    "TIMESTAMP(0)": (LogicalType("TIMESTAMP", 0), pa.timestamp("ms")),
    "TIMESTAMP(3)": (LogicalType("TIMESTAMP", 3), pa.timestamp("ms")),
    "TIMESTAMP(9)": (LogicalType("TIMESTAMP", 9), pa.timestamp("ns")),
    "TIMESTAMP_LTZ(3)": (LogicalType("TIMESTAMP_LTZ", 3), pa.timestamp("ms", "UTC")),
    "ARRAY<INT>": (LogicalType("ARRAY", children=(INT,)), pa.list_(pa.int32())),
    "MAP<STRING, INT>": (LogicalType("MAP", children=(TEXT, INT)), pa.map_(pa.string(), pa.int32())),
    "ROW<a INT, b STRING>": (ROW, pa.struct([("a", pa.int32()), ("b", pa.string())])),
    "ARRAY<ROW<a INT, b STRING>>": (LogicalType("ARRAY", children=(ROW,)), pa.list_(ROW.arrow)),
    "INT NOT NULL": (LogicalType("INT", nullable=False), pa.int32()),
}


@pytest.mark.parametrize("text", TYPES)
def test_a_type_is_spelled_as_in_flink_and_has_its_arrow_type(text: str) -> None:
    logical, arrow = TYPES[text]
    assert str(logical) == text
    assert logical.arrow == arrow


def test_every_known_type_is_tried_here() -> None:
    assert {logical.name for logical, _ in TYPES.values()} == set(TYPE_NAMES)


def test_an_unknown_type_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"type INTERVAL is not supported; known types: BOOLEAN, TINYINT, .*ROW"):
        LogicalType("INTERVAL")


WRONG = {
    "DECIMAL(39)": (("DECIMAL", 39), r"type DECIMAL\(39, 0\): found precision or length 39, wanted 1 to 38"),
    "DECIMAL(0)": (("DECIMAL", 0), "wanted 1 to 38"),
    "DECIMAL(5, 6)": (("DECIMAL", 5, 6), "found scale 6, wanted 0 to the precision 5"),
    "DECIMAL(5, -1)": (("DECIMAL", 5, -1), "found scale -1"),
    "TIMESTAMP(10)": (("TIMESTAMP", 10), r"type TIMESTAMP\(10\): found precision or length 10, wanted 0 to 9"),
    "TIMESTAMP_LTZ(-1)": (("TIMESTAMP_LTZ", -1), "wanted 0 to 9"),
    "VARCHAR(0)": (("VARCHAR", 0), "found precision or length 0, wanted 1 or more"),
}


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG)
def test_a_type_that_cannot_be_is_refused_where_it_is_declared(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LogicalType(*arguments)  # type: ignore[arg-type]


def test_a_schema_has_every_column_and_says_which_are_never_null() -> None:
    table = Table(
        "cars",
        (
            Column("id", LogicalType("BIGINT", nullable=False)),
            Column("at", LogicalType("TIMESTAMP", 3), "computed", expression="TO_TIMESTAMP(a)"),
            Column("topic", TEXT, "metadata", metadata_key="topic"),
        ),
        primary_key=("id",),
    )
    assert table.schema == pa.schema(
        [pa.field("id", pa.int64(), nullable=False), ("at", pa.timestamp("ms")), ("topic", pa.string())]
    )
    assert [column.name for column in table.physical] == ["id"]


def test_types_are_equal_when_they_mean_the_same() -> None:
    assert LogicalType("DECIMAL") == LogicalType("DECIMAL", 10)
    assert LogicalType("TIMESTAMP") == LogicalType("TIMESTAMP", 6)
    assert LogicalType("INT") != LogicalType("INT", nullable=False)
