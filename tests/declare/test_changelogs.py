"""Changelog formats in scripts: which sinks take them, METADATA columns, options without effect."""

import json

import pytest

from tests.declare.scripts import SINK, SOURCE, compiled, one, place_of_mark
from tests.formats.contract import raw_table
from vector_assets.engine.core import KIND, RowKind
from vector_assets.engine.errors import ConfigError

UPDATING = SINK.replace("'tablename'", "'conflictmode' = 'upsert', 'tablename'")
COLUMNS = "id BIGINT NOT NULL, name STRING, price INT"
FORMATS = ("debezium-json", "canal-json", "maxwell-json", "changelog-json")


def script(name: str, columns: str = COLUMNS, select: str = "id, name, price", sink: str = UPDATING) -> str:
    source = SOURCE[: SOURCE.index("(")] + f"({columns}" + SOURCE[SOURCE.index("\n) WITH") :]
    return f"{source.replace('csv', name)}{sink}INSERT INTO dst SELECT {select} FROM src;"


@pytest.mark.parametrize("name", FORMATS)
def test_sink_of_inserts_is_refused_before_any_record(name: str) -> None:
    marked = script(name, sink=SINK.replace("'connector'", "§'connector'"))
    text, place = place_of_mark(marked)
    with pytest.raises(ConfigError) as caught:
        compiled(text)
    assert str(caught.value) == (
        f"cars.sql:{place}: table dst: table src (format {name}) gives updates and deletes, 'conflictmode' = 'ignore' "
        "takes inserts only; set 'conflictmode' to 'update' or 'upsert'"
    )
    assert one(script(name)).format == name


@pytest.mark.parametrize("name", FORMATS)
def test_keys_are_decoded_by_formats_of_inserts_only(name: str) -> None:
    marked = script("json").replace("'format' = ", f"'key.fields' = 'id', 'key.format' = §'{name}', 'format' = ")
    text, place = place_of_mark(marked)
    with pytest.raises(ConfigError) as caught:
        compiled(text)
    assert str(caught.value).startswith(f"cars.sql:{place}: option 'key.format': format '{name}' gives updates")


def test_metadata_of_the_format_and_of_the_connector_are_columns_side_by_side() -> None:
    columns = (
        f"{COLUMNS}, origin STRING METADATA FROM 'value.source.table' VIRTUAL, "
        "`value.ingestion-timestamp` TIMESTAMP_LTZ(3) METADATA, topic STRING METADATA VIRTUAL, shown AS UPPER(name)"
    )
    select = "id, origin || shown, CAST(EXTRACT(YEAR FROM `value.ingestion-timestamp`) AS INT)"
    pipeline = one(script("debezium-json", columns, select))
    assert [column.name for column, _ in pipeline.metadata] == ["topic"]
    row = {"id": 1, "name": "a", "price": 2}
    record = {"before": row, "after": row, "op": "u", "ts_ms": 1589362330000, "source": {"table": "cars"}}
    rows = pipeline.decoder.decode(raw_table([json.dumps(record).encode()])).rows
    for transform in pipeline.transforms:
        rows = transform.apply(rows).rows
    assert [(row["name"], row["price"], row[KIND]) for row in rows.to_pylist()] == [
        ("carsA", 2020, RowKind.UPDATE_BEFORE),
        ("carsA", 2020, RowKind.UPDATE_AFTER),
    ]


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ("§t STRING METADATA FROM 'value.source.tabel'", "unknown METADATA key 'value.source.tabel' (did you mean"),
        ("§t STRING METADATA FROM 'source.table'", "unknown METADATA key 'source.table' (did you mean 'value.source."),
        ("§t INT METADATA FROM 'value.source.properties'", "t is INT; METADATA key 'value.source.properties' is MAP<"),
    ],
    ids=["unknown", "without value.", "type"],
)
def test_metadata_that_the_format_cannot_give_is_refused_at_its_column(column: str, reason: str) -> None:
    text, place = place_of_mark(script("debezium-json", f"{COLUMNS}, {column}"))
    with pytest.raises(ConfigError) as caught:
        compiled(text)
    assert str(caught.value).startswith(f"cars.sql:{place}: ")
    assert reason in str(caught.value)


def test_options_for_writing_are_reported_under_the_names_that_were_written() -> None:
    plain = script("canal-json").replace("'topic'", "'canal-json.encode.ignore-null-fields' = 'true', 'topic'")
    (report,) = one(plain).reports
    assert report.endswith("option 'canal-json.encode.ignore-null-fields' has no effect: it is for writing, this pipeline reads")  # fmt: skip  # noqa: E501
    keyed = script("json").replace(
        "'format' = 'json'",
        "'key.format' = 'json', 'key.fields' = 'id', 'value.format' = 'json', 'key.json.map-null-key.mode' = 'DROP', "
        "'value.json.map-null-key.mode' = 'DROP'",
    )
    reports = one(keyed).reports
    assert [report.split("'")[1] for report in reports] == [
        "key.json.map-null-key.mode",
        "value.json.map-null-key.mode",
    ]
