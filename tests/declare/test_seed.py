"""The seeds' own scripts, cut out of the documents."""

from datetime import datetime

import pyarrow as pa
import pytest
from sqlglot import exp

from tests.declare.seeds import flink_step, seed, statements, with_values
from vector_assets.declare import compile_script
from vector_assets.declare.flink_script import Script
from vector_assets.declare.flink_tables import declare
from vector_assets.engine.core import POSITION, RAW_SCHEMA
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.pipeline import Pipeline
from vector_assets.engine.schema import LogicalType

VALUES = {
    "your_instance_url": "127.0.0.1",
    "your_username": "somebody",
    "your_password": "hunter2hunter2",
    "your_broker_list": "127.0.0.1:9092",
}


@pytest.fixture
def script() -> str:
    return "\n".join(flink_step(seed(0)))


@pytest.fixture
def pipeline(script: str) -> Pipeline:
    (pipeline,) = compile_script(with_values(script, VALUES), "car_info.sql")
    return pipeline


def test_step_three_has_two_tables_and_an_insert(script: str) -> None:
    assert len(statements(script)) == 3


def test_unchanged_script_names_its_placeholders_and_the_first_one_s_place(script: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compile_script(script, "car_info.sql")
    before = script[: script.index("<your_instance_url>")]
    assert caught.value.place is not None
    assert (caught.value.place.line, caught.value.place.column) == (
        before.count("\n") + 1,
        len(before) - before.rfind("\n"),
    )
    for name in VALUES:
        assert f"<{name}>" in str(caught.value)
    assert "${secret_values.your_instance_url}" in str(caught.value)


def test_script_compiles_once_placeholders_have_values(pipeline: Pipeline) -> None:
    assert pipeline.name == "car_info"
    assert pipeline.source_connector == "kafka"
    assert pipeline.sink_connector == "adbpg"
    assert pipeline.format == "csv"
    assert pipeline.target.endswith("/vector_test.car_info")
    assert pipeline.reports == ()
    assert pipeline.source_table.name == "vector_kafka"
    assert [column.type for column in pipeline.source_table.columns] == [
        LogicalType("INT"),
        LogicalType("TIMESTAMP", 6),
        LogicalType("VARCHAR", 10),
        LogicalType("INT"),
        LogicalType("VARCHAR"),
    ]
    assert pipeline.schema == pipeline.sink_table.schema
    assert pipeline.schema.names == ["id", "market_time", "color", "price", "feature"]


def test_tab_delimiter_reaches_the_format_as_the_seed_spells_it(pipeline: Pipeline) -> None:
    assert pipeline.format_options is not None
    assert pipeline.format_options.shown()["csv.field-delimiter"] == "\t"


def test_password_is_nowhere_to_be_seen(pipeline: Pipeline) -> None:
    assert VALUES["your_password"] not in repr(pipeline)
    assert VALUES["your_password"] not in str(pipeline.sink_options.shown())


def test_record_of_the_seed_s_shape_goes_through_decoder_and_transforms(pipeline: Pipeline) -> None:
    record = b"7\t2023-06-06 12:30:00\tred\t100\t{0.1,0.2}"
    raw = pa.Table.from_pylist([{"value": record, "split": 0, "offset": 5}], schema=RAW_SCHEMA)
    assert pipeline.decoder is not None
    rows = pipeline.decoder.decode(raw.append_column(POSITION, pa.array([0], pa.int64()))).rows
    for transform in pipeline.transforms:
        rows = transform.apply(rows).rows
    assert rows.drop_columns(POSITION).schema == pipeline.schema
    assert rows.to_pylist() == [
        {
            "id": 7,
            "market_time": datetime.fromisoformat("2023-06-06 12:30:00"),
            "color": "red",
            "price": 100,
            "feature": "{0.1,0.2}",
            POSITION: 0,
        }
    ]


def test_seed_s_secrets_work_in_place_of_placeholders(script: str) -> None:
    secrets = {name: f"${{secret_values.{name}}}" for name in VALUES}
    (pipeline,) = compile_script(with_values(script, secrets), "car_info.sql", secrets=VALUES.__getitem__)
    assert pipeline.target.startswith("adbpg://127.0.0.1:5432/")
    assert VALUES["your_password"] not in repr(pipeline)


@pytest.mark.parametrize("number", [1, 3], ids=["milvus", "maxcompute"])
def test_dialect_reads_every_whole_statement_of_the_other_seeds(number: int) -> None:
    found = [statement for statement in statements(seed(number)) if "..." not in statement]
    assert len(found) > 3
    for statement in found:
        (parsed,) = Script(statement, "seed.sql").statements()
        if isinstance(parsed.node, exp.Create):
            assert declare(Script(statement, "seed.sql"), parsed).options["connector"]
