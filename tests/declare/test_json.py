"""Tables with 'format' = 'json' in Flink SQL: nested fields in the SELECT, options without effect."""

import pytest

from tests.declare.scripts import SINK_OPTIONS, one
from tests.formats.contract import raw_table
from vector_assets.engine.errors import ConfigError

SCRIPT = f"""
CREATE TABLE events (
  id BIGINT,
  customer ROW<name STRING, address ROW<city STRING, zip STRING>>,
  tags ARRAY<STRING>
) WITH (
  'connector' = 'kafka', 'topic' = 't', 'properties.bootstrap.servers' = '127.0.0.1:9092',
  'scan.startup.mode' = 'earliest-offset', 'format' = 'json', 'json.encode.ignore-null-fields' = 'true'
);
CREATE TABLE target (id BIGINT, name STRING, city STRING, first STRING) WITH {SINK_OPTIONS};
INSERT INTO target SELECT id, customer.name, e.customer.address.city, tags[1] FROM events AS e;
"""


def test_nested_fields_are_selected_from_json_records() -> None:
    pipeline = one(SCRIPT)
    records = [
        b'{"id": 1, "customer": {"name": "a", "address": {"city": "Ulm"}}, "tags": ["x", "y"]}',
        b'{"id": 2, "customer": null}',
        b'{"id": 3, "customer": {"address": null}, "tags": []}',
    ]
    assert pipeline.decoder is not None
    rows = pipeline.decoder.decode(raw_table(records)).rows
    (transform,) = pipeline.transforms
    landed = transform.apply(rows).rows
    assert [tuple(row.values())[:4] for row in landed.to_pylist()] == [
        (1, "a", "Ulm", "x"),
        (2, None, None, None),
        (3, None, None, None),
    ]


def test_options_for_writing_are_reported_once_and_have_no_effect() -> None:
    reports = [report for report in one(SCRIPT).reports if "json." in report]
    assert len(reports) == 1
    assert reports[0].startswith("cars.sql:2:14: table events: option 'json.encode.ignore-null-fields' has no effect")


def test_a_wrong_option_is_refused_at_its_place() -> None:
    with pytest.raises(ConfigError, match=r"cars.sql:8:63: format json: option 'json.encode.ignore-null-fields'"):
        one(SCRIPT.replace("'true'", "'yes'"))
