"""The Milvus seed's scripts, cut out of the document."""

import pytest

from tests.declare.scripts import SINK, compiled
from tests.declare.seeds import seed, statements
from tests.formats.contract import raw_table
from vector_assets.engine.core import KIND, POSITION, RowKind
from vector_assets.engine.errors import ConfigError


@pytest.fixture(scope="module")
def scripts() -> tuple[str, str]:
    """Script 1 (datagen into a collection) and script 2 (upsert-kafka into another), as they stand there."""
    sink, gen, insert, tombstones, other = statements(seed(1))[:5]
    return "\n".join((sink, gen, insert)), "\n".join((tombstones, other))


def test_script_one_makes_a_vector_of_three_floats(scripts: tuple[str, str]) -> None:
    (pipeline,) = compiled(scripts[0], "people.sql")
    assert (pipeline.source_connector, pipeline.sink_connector) == ("datagen", "milvus")
    rows = pipeline.transforms[0].apply(_rows(pipeline, [(1, "a", 30), (2, None, None)])).rows
    assert [row["vec"] for row in rows.to_pylist()] == [pytest.approx([0.1, 0.2, 0.3])] * 2
    assert rows.schema.field("vec").type == pipeline.sink_table.schema.field("vec").type


def _rows(pipeline, values):
    schema = pipeline.source_table.schema.append(raw_table([]).schema.field(POSITION))
    columns = [*zip(*values, strict=True), range(len(values))]
    return schema.empty_table().from_arrays([list(column) for column in columns], schema=schema)


def test_script_two_names_the_line_and_the_nearest_table_of_the_one_it_does_not_declare(
    scripts: tuple[str, str],
) -> None:
    line = scripts[1][: scripts[1].index("INSERT INTO")].count("\n") + 1
    with pytest.raises(ConfigError) as caught:
        compiled(scripts[1], "people.sql")
    message = f"people.sql:{line}:13: table MilvusPeople is not declared; the nearest declared table is"
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith("tombstones_kafka; declared: tombstones_kafka")


def test_nearest_table_is_one_that_can_be_written(scripts: tuple[str, str]) -> None:
    declared = SINK.replace("dst", "milvus_sink")
    with pytest.raises(ConfigError, match="MilvusPeople is not declared; the nearest declared table is milvus_sink"):
        compiled(f"{declared}{scripts[1]}", "people.sql")


def test_script_two_runs_once_its_table_is_declared(scripts: tuple[str, str]) -> None:
    columns = scripts[1][scripts[1].index("(") : scripts[1].index(") WITH") + 1]
    people = f"CREATE TABLE MilvusPeople {columns} WITH ('connector' = 'print');\n"
    (pipeline,) = compiled(f"{people}{scripts[1]}", "people.sql")
    assert (pipeline.source_connector, pipeline.format) == ("upsert-kafka", "changelog-json")
    values = [
        b'{"data":{"id":1,"name":"a","age":3,"vec":[0.5,1]},"op":"+I"}',
        b'{"data":{"id":1},"op":"-D"}',
        b'{"data":{"id":2,"name":"b"},"op":"+U"}',
        b'{"data":{},"op":"-D"}',
        None,
    ]
    keys = [b'{"id":1}', b'{"id":1}', b'{"id":2}', b'{"id":2}', b'{"id":3}']
    decoded = pipeline.decoder.decode(raw_table(values, keys=keys))
    applied = pipeline.transforms[0].apply(decoded.rows)
    assert decoded.rejected.num_rows == applied.rejected.num_rows == 0
    assert [(row["id"], row["name"], row["vec"], row[KIND]) for row in applied.rows.to_pylist()] == [
        (1, "a", [0.5, 1], RowKind.INSERT),
        (1, None, None, RowKind.DELETE),
        (2, "b", None, RowKind.UPDATE_AFTER),
        (2, None, None, RowKind.DELETE),
        (3, None, None, RowKind.DELETE),
    ]
