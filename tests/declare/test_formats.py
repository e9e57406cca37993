# ruff: noqa: E501
"""Formats of keys and values: which columns are whose, which options belong to whom, and what is refused where."""

import pytest

from tests.declare.scripts import SINK, SOURCE, compiled, one, place_of_mark
from tests.formats.contract import raw_table
from vector_assets.engine.core import KIND, POSITION, RowKind
from vector_assets.engine.errors import ConfigError

UPSERT = """CREATE TABLE src (
  id BIGINT,
  name STRING NOT NULL,
  price INT,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'upsert-kafka',
  'topic' = 'cars',
  'properties.bootstrap.servers' = '127.0.0.1:9092',
  'key.format' = 'csv',
  'value.format' = 'csv',
  'value.fields-include' = 'EXCEPT_KEY'
);
"""
UPDATING = SINK.replace("'tablename'", "'conflictmode' = 'upsert', 'tablename'").replace(
    "price INT)", "price INT, PRIMARY KEY (id) NOT ENFORCED)"
)
INSERT = "INSERT INTO dst SELECT id, name, price FROM src;\n"
UPSERTING = UPSERT + UPDATING + INSERT


def keyed(options: str, columns: str = "id BIGINT, name STRING, price INT") -> str:
    source = SOURCE[: SOURCE.index("(")] + f"({columns}" + SOURCE[SOURCE.index(") WITH") :]
    return source.replace("'format' = 'csv'", options) + SINK + INSERT


CASES = {
    "two formats": (keyed("'format' = 'csv', §'value.format' = 'csv'"), "'format' and 'value.format' mean the same"),
    "no format": (keyed("'topic' = 'x'").replace("'topic' = 'x',\n", "").replace("'connector'", "§'connector'", 1), "option 'format' is required (or 'value.format')"),
    "key without fields": (keyed("'format' = 'csv', §'key.format' = 'csv'"), "wants the key's columns in option 'key.fields'"),
    "key with empty fields": (keyed("'format' = 'csv', 'key.format' = 'csv', §'key.fields' = ' '"), "wants the key's columns"),
    "fields without a key": (keyed("'format' = 'csv', §'key.fields' = 'id'"), "'key.fields' has a meaning only with 'key.format'"),
    "prefix without a key": (
        keyed("'format' = 'csv', 'value.fields-include' = 'EXCEPT_KEY', §'key.fields-prefix' = 'k_'"),
        "'key.fields-prefix' has a meaning only with 'key.format'",
    ),
    "prefix of columns that the value holds": (
        keyed("'format' = 'csv', 'key.format' = 'csv', 'key.fields' = 'id', §'key.fields-prefix' = 'i'"),
        "wants 'value.fields-include' = 'EXCEPT_KEY', found 'ALL'",
    ),
    "field without the prefix": (
        keyed("'format' = 'csv', §'key.format' = 'csv', 'key.fields' = 'id', 'key.fields-prefix' = 'k_', 'value.fields-include' = 'EXCEPT_KEY'"),
        "column id does not begin with 'key.fields-prefix' = 'k_'",
    ),
    "unknown field": (keyed("'format' = 'csv', §'key.format' = 'csv', 'key.fields' = 'id;nam'"), "no physical column nam (did you mean 'name'?); known: id, name, price"),
    "computed field": (
        keyed("'format' = 'csv', §'key.format' = 'csv', 'key.fields' = 'id'", "n BIGINT, id AS n, name STRING, price INT"),
        "no physical column id",
    ),
    "field twice": (keyed("'format' = 'csv', §'key.format' = 'csv', 'key.fields' = 'id;id'"), "column id is named twice"),
    "unknown key format": (keyed("'format' = 'csv', 'key.fields' = 'id', 'key.format' = §'cvs'"), "unknown format 'cvs' (did you mean 'csv'?)"),
    "unknown inclusion": (keyed("'format' = 'csv', §'value.fields-include' = 'some'"), "has the value 'some', which is refused"),
    "option without value.": (keyed("'value.format' = 'csv', §'csv.field-delimiter' = '|'"), "want 'value.csv.field-delimiter'"),
    "option without key.": (keyed("'value.format' = 'raw', 'key.format' = 'csv', 'key.fields' = 'id', §'csv.field-delimiter' = '|'"), "want 'key.csv.field-delimiter'"),
    "wrong option of the key": (
        keyed("'format' = 'csv', 'key.format' = 'csv', 'key.fields' = 'id', §'key.csv.field-delimeter' = '|'"),
        "format csv: unknown option 'key.csv.field-delimeter' (did you mean 'key.csv.field-delimiter'?)",
    ),
    "wrong value of the value's option": (
        keyed("'value.format' = 'csv', §'value.csv.field-delimiter' = '||'"),
        "option 'value.csv.field-delimiter' has the value '||'",
    ),
    "upsert without a key": (UPSERTING.replace(",\n  PRIMARY KEY (id) NOT ENFORCED", "").replace("TABLE src", "TABLE §src"), "connector upsert-kafka wants a PRIMARY KEY"),
    "upsert without a key format": (UPSERTING.replace("'key.format' = 'csv',", "").replace("'connector'", "§'connector'", 1), "option 'key.format' is required"),
    "upsert without a value format": (UPSERTING.replace("'value.format' = 'csv',", "").replace("'connector'", "§'connector'", 1), "option 'value.format' is required"),
    "upsert with a start": (UPSERTING.replace("'key.format'", "§'scan.startup.mode' = 'latest-offset', 'key.format'"), "unknown option 'scan.startup.mode'"),
    "upsert with key.fields": (UPSERTING.replace("'key.format'", "§'key.fields' = 'id', 'key.format'"), "unknown option 'key.fields'"),
    "upsert into a sink of inserts": (UPSERTING.replace("'conflictmode' = 'upsert'", "§'conflictmode' = 'ignore'"), "table src (connector upsert-kafka) gives updates and deletes, 'conflictmode' = 'ignore' takes inserts only; set 'conflictmode' to 'update' or 'upsert'"),
    "upsert into a sink of inserts by default": (
        UPSERTING.replace("'conflictmode' = 'upsert', ", "").replace("'connector' = 'adbpg'", "§'connector' = 'adbpg'"),
        "set 'conflictmode' to 'update' or 'upsert'",
    ),
    "key of the sink that a delete does not hold": (
        UPSERTING.replace("SELECT id,", "SELECT id + price,").replace("TABLE dst", "TABLE §dst"),
        "key column id is made of price, a delete of table src holds only its key (id)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_error_names_its_place_and_its_reason(case: str) -> None:
    marked, message = CASES[case]
    script, place = place_of_mark(marked)
    with pytest.raises(ConfigError) as caught:
        compiled(script)
    assert str(caught.value).startswith(f"cars.sql:{place}: "), f"wanted {place}, found {caught.value}"
    assert message in str(caught.value)


def test_key_and_value_have_options_of_their_own() -> None:
    pipeline = one(
        keyed(
            "'value.format' = 'csv', 'key.format' = 'csv', 'key.fields' = 'id', 'value.fields-include' = 'except_key',"
            "'key.csv.field-delimiter' = ';', 'value.csv.field-delimiter' = '|'"
        )
    )
    assert pipeline.format_options is not None
    shown = pipeline.format_options.shown()
    assert (shown["key.csv.field-delimiter"], shown["value.csv.field-delimiter"]) == (";", "|")
    rows = pipeline.decoder.decode(raw_table([b"a|7"], keys=[b"1"])).rows
    assert rows.to_pylist() == [{"id": 1, "name": "a", "price": 7, POSITION: 0}]


def test_options_beside_format_have_no_prefix() -> None:
    pipeline = one(keyed("'format' = 'csv', 'csv.field-delimiter' = '|', 'key.format' = 'csv', 'key.fields' = 'id'"))
    rows = pipeline.decoder.decode(raw_table([b"2|a|7"], keys=[b"1"])).rows
    assert rows.to_pylist() == [{"id": 2, "name": "a", "price": 7, POSITION: 0}]


def test_key_s_columns_have_their_prefix_in_the_table_only() -> None:
    options = (
        "'format' = 'csv', 'key.format' = 'csv', 'key.fields' = 'k_id', 'key.fields-prefix' = 'k_',"
        "'value.fields-include' = 'EXCEPT_KEY'"
    )
    script = keyed(options, "name STRING, k_id BIGINT, price INT").replace("SELECT id", "SELECT k_id")
    rows = one(script).decoder.decode(raw_table([b"a,7"], keys=[b"1"])).rows
    assert rows.to_pylist() == [{"name": "a", "k_id": 1, "price": 7, POSITION: 0}]


def test_upsert_kafka_reads_from_the_earliest_offset_and_has_no_option_for_it() -> None:
    pipeline = one(UPSERTING)
    assert pipeline.source_connector == "upsert-kafka"
    assert pipeline.source_options.start_option() == "earliest-offset"
    assert not [name for name in pipeline.source_options.shown() if name.startswith("scan.startup")]
    assert pipeline.source_options.origin() == ("kafka", "cars")


def test_upsert_kafka_may_end() -> None:
    pipeline = one(UPSERTING.replace("'key.format'", "'scan.bounded.mode' = 'latest-offset', 'key.format'"))
    assert pipeline.source_options.start_option() == "earliest-offset until latest-offset"


def test_upsert_kafka_upserts_by_records_and_deletes_by_null_values() -> None:
    pipeline = one(UPSERTING)
    decoded = pipeline.decoder.decode(raw_table([b"a,7", None], keys=[b"1", b"2"]))
    (transform,) = pipeline.transforms
    rows = transform.apply(decoded.rows)
    assert rows.rejected.num_rows == rows.filtered == 0
    assert rows.rows.to_pylist() == [
        {"id": 1, "name": "a", "price": 7, KIND: RowKind.UPDATE_AFTER, POSITION: 0},
        {"id": 2, "name": None, "price": None, KIND: RowKind.DELETE, POSITION: 1},
    ]


def test_row_that_where_leaves_out_deletes_its_key_in_a_table_of_upserts() -> None:
    (transform,) = (pipeline := one(UPSERTING.replace("FROM src", "FROM src WHERE price > 5"))).transforms
    values = [b"a,7", b"b,3", None, b"c,"]
    decoded = pipeline.decoder.decode(raw_table(values, keys=[b"1", b"2", b"3", b"4"]))
    applied = transform.apply(decoded.rows)
    kinds = dict(zip(applied.rows["id"].to_pylist(), applied.rows[KIND].to_pylist(), strict=True))
    assert {n: kinds[n] for n in (1, 2, 3)} == {1: RowKind.UPDATE_AFTER, 2: RowKind.DELETE, 3: RowKind.DELETE}
    assert applied.filtered == 0


def test_condition_on_the_key_alone_is_one_for_deletes_too() -> None:
    (transform,) = (pipeline := one(UPSERTING.replace("FROM src", "FROM src WHERE id < 3 AND price > 5"))).transforms
    decoded = pipeline.decoder.decode(raw_table([b"a,7", b"b,3", None, b"c,9"], keys=[b"1", b"2", b"3", b"4"]))
    applied = transform.apply(decoded.rows)
    assert list(zip(applied.rows["id"].to_pylist(), applied.rows[KIND].to_pylist(), strict=True)) == [
        (1, RowKind.UPDATE_AFTER),
        (2, RowKind.DELETE),
    ]
    assert applied.filtered == 2
