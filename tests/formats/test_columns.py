"""Which columns of a table its format fills: one rule for all formats."""

from typing import Any

import pytest

from vector_assets.declare import flink_sql
from vector_assets.declare.flink_options import Written, parse
from vector_assets.engine import registry
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.schema import Column, LogicalType, Table
from vector_assets.formats import FORMATS

TEXT = Column("doc", LogicalType("VARCHAR"))
OPTIONS: dict[str, dict[str, str]] = {"avro-confluent": {"avro-confluent.url": "http://127.0.0.1:1"}}
ALL = sorted(FORMATS)


def made(name: str, table: Table) -> Any:
    make = registry.load(FORMATS, "format", name)
    return make(parse(make, written(name), f"format {name}"), table)


def written(name: str) -> Any:
    return Written(OPTIONS.get(name, {}), {}, {}, {})


@pytest.mark.parametrize("name", ALL)
def test_a_metadata_column_that_nobody_fills_is_refused_by_name(name: str) -> None:
    table = Table("t", (TEXT, Column("ts", LogicalType("TIMESTAMP", 3), "metadata", None, "timestamp")))
    with pytest.raises(ConfigError, match=r"column ts.*METADATA.*known") as raised:
        made(name, table)
    assert "supported" not in raised.value.message


@pytest.mark.parametrize("name", ALL)
def test_a_table_without_physical_columns_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="table t has no physical column"):
        made(name, Table("t", (Column("x", LogicalType("INT"), "computed", "1"),)))


@pytest.mark.parametrize("name", ALL)
def test_every_format_stands_beside_the_metadata_of_its_source(name: str) -> None:
    options = "".join(f", '{option}' = '{value}'" for option, value in OPTIONS.get(name, {}).items())
    script = f"""
        CREATE TABLE s (doc STRING, `offset` BIGINT METADATA) WITH (
          'connector' = 'kafka', 'topic' = 't', 'properties.bootstrap.servers' = '127.0.0.1:1',
          'scan.startup.mode' = 'earliest-offset', 'format' = '{name}'{options});
        CREATE TABLE t (doc STRING, place BIGINT) WITH ('connector' = 'blackhole');
        INSERT INTO t SELECT doc, `offset` FROM s;"""
    (pipeline,) = flink_sql.compile_script(script, "columns.sql")
    assert [column.name for column, _ in pipeline.metadata] == ["offset"]
