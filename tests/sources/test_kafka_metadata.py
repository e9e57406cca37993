"""METADATA columns of the Kafka source: Flink's keys and types, from real records."""

import pyarrow as pa
import pytest

from tests.faults.car import CarJob
from tests.sources.reading import NO_LIMIT, read
from vector_assets.declare import flink_sql
from vector_assets.engine.archive import Archive, ArchiveFile, whole
from vector_assets.engine.core import POSITION, RAW_SCHEMA
from vector_assets.engine.metadata import attach, is_castable
from vector_assets.engine.schema import LogicalType
from vector_assets.sources.kafka_metadata import METADATA

FLINK = {
    "topic": "STRING NOT NULL",
    "partition": "INT NOT NULL",
    "headers": "MAP<STRING NOT NULL, BYTES> NOT NULL",
    "leader-epoch": "INT",
    "offset": "BIGINT NOT NULL",
    "timestamp": "TIMESTAMP_LTZ(3)",
    "timestamp-type": "STRING",
}
SPLITS = ["cars@AAAAAAAAAAAAAAAAAAAAAA/3", "buses@BBBBBBBBBBBBBBBBBBBBBB/0"]
T = 1_700_000_000_000


def raw(*rows):
    return pa.Table.from_pylist([{"split": 0, "offset": 0, **row} for row in rows], RAW_SCHEMA)


def test_keys_and_types_are_flinks():
    assert {key: str(each.type) for key, each in METADATA.items()} == FLINK
    assert is_castable(METADATA["partition"].type, LogicalType("BIGINT"))
    assert not is_castable(METADATA["headers"].type, LogicalType("VARCHAR"))


@pytest.mark.parametrize("key", FLINK)
def test_values_are_of_the_keys_type_even_when_there_are_none(key):
    wanted = METADATA[key].type.arrow
    for table in (raw(), raw({}), raw({"split": 1}, {"split": 0})):
        found = METADATA[key].read(table, SPLITS)
        assert len(found) == table.num_rows
        assert found.type.equals(wanted) or found.cast(wanted) is not None


def test_topic_and_partition_are_those_of_the_split():
    table = raw({"split": 1}, {"split": 0}, {"split": 1})
    assert METADATA["topic"].read(table, SPLITS).to_pylist() == ["buses", "cars", "buses"]
    assert METADATA["partition"].read(table, SPLITS).to_pylist() == [0, 3, 0]


def test_of_headers_with_one_name_the_last_counts():
    pairs = [("a", b"1"), ("b", None), ("a", b"2"), ("c", b"")]
    headers = [{"key": key, "value": value} for key, value in pairs]
    table = raw({"headers": headers}, {}, {"headers": []}, {"headers": headers[:2]}, {"headers": headers[:1]})
    found = METADATA["headers"].read(table, SPLITS).to_pylist()
    assert [dict(each) for each in found] == [
        {"b": None, "a": b"2", "c": b""}, {}, {}, {"a": b"1", "b": None}, {"a": b"1"},
    ]  # fmt: skip
    assert [len(each) for each in found] == [3, 0, 0, 2, 1]


def test_timestamp_types_have_javas_names():
    kinds = [0, 1, -1, None]
    found = METADATA["timestamp-type"].read(raw(*({"timestamp_type": kind} for kind in kinds)), SPLITS)
    assert found.to_pylist() == ["CreateTime", "LogAppendTime", "NoTimestampType", None]


def test_an_archive_of_older_code_is_read_with_nulls_for_what_it_did_not_know(tmp_path):
    archive = Archive(tmp_path)
    old = raw({"value": b"x", "offset": 7}).select(RAW_SCHEMA.names[:6])
    file = archive.write("cars", "2026-01-01-00:00", 1, old)
    assert isinstance(file, ArchiveFile)
    found = archive.read(file)
    assert found.schema == RAW_SCHEMA
    assert found.to_pylist() == [
        {"key": None, "value": b"x", "headers": None, "timestamp": None, "split": 0, "offset": 7,
         "leader_epoch": None, "timestamp_type": None}
    ]  # fmt: skip
    other = pa.table({"hash": [1]})
    assert whole(other) is other


@pytest.mark.usefixtures("either_way")
@pytest.mark.service
@pytest.mark.parametrize("kind", ["CreateTime", "LogAppendTime"])
def test_metadata_of_real_records(kafka, open_source, kind):
    topic = kafka.create_topic(2, config={"message.timestamp.type": kind})
    kafka.produce(topic, [b"a", b"b"], partition=[0, 1], headers=[[("h", b"1")], []], timestamps=T)
    source = open_source(kafka, topic)
    table, span = read(source, source.plan(source.start(), NO_LIMIT))
    splits = [part.split for part in span.ranges]
    found = {key: each.read(table, splits).to_pylist() for key, each in METADATA.items()}
    assert found["topic"] == [topic, topic]
    assert found["partition"] == [0, 1]
    assert [dict(each) for each in found["headers"]] == [{"h": b"1"}, {}]
    assert found["leader-epoch"] == [0, 0]
    assert found["offset"] == [0, 0]
    assert found["timestamp-type"] == [kind, kind]
    times = [each.timestamp() * 1000 for each in found["timestamp"]]
    assert (times == [T, T]) == (kind == "CreateTime")


SCRIPT = """
SET 'pipeline.name' = 'cars';
CREATE TABLE rows_ (id INT, topic VARCHAR, part INT, epoch INT, at BIGINT, ts TIMESTAMP, kind VARCHAR) WITH (
  'connector' = 'adbpg', 'url' = '{url}', 'tablename' = 'seen', 'targetschema' = 'vector_test',
  'username' = '{user}', 'password' = '${{secret_values.test_password}}', 'writemode' = '1');
CREATE TABLE records (
  id INT,
  topic STRING NOT NULL METADATA VIRTUAL,
  part BIGINT METADATA FROM 'partition' VIRTUAL,
  epoch INT METADATA FROM 'leader-epoch' VIRTUAL,
  `offset` BIGINT METADATA VIRTUAL,
  ts TIMESTAMP_LTZ(3) METADATA FROM 'timestamp',
  kind STRING METADATA FROM 'timestamp-type'
) WITH (
  'connector' = 'kafka', 'properties.bootstrap.servers' = '{brokers}', 'topic' = '{topic}', 'format' = 'csv',
  'scan.startup.mode' = 'earliest-offset');
INSERT INTO rows_ SELECT id, topic, CAST(part AS INT), epoch, `offset`, CAST(ts AS TIMESTAMP), kind FROM records;
"""


@pytest.mark.service
def test_metadata_columns_land_in_the_target_through_sql(tmp_path, kafka, postgres):
    job = CarJob(tmp_path, kafka, postgres)
    job.execute(
        "CREATE TABLE vector_test.seen (id int PRIMARY KEY, topic text, part int, epoch int, at bigint, ts timestamp,"
        " kind text)"
    )
    (tmp_path / "pipelines" / "cars.sql").write_text(SCRIPT.format(**job.values))
    kafka.produce(job.topic, [b"1", b"cut,", b"2", b"3"], partition=[0, 0, 0, 1], timestamps=T)
    job.run()
    with postgres.connect(job.database) as connection:
        found = connection.execute(
            "SELECT id, topic, part, epoch, at, extract(epoch from ts)::bigint * 1000, kind FROM vector_test.seen"
            " ORDER BY id"
        ).fetchall()
    assert found == [
        (1, job.topic, 0, 0, 0, T, "CreateTime"),
        (2, job.topic, 0, 0, 2, T, "CreateTime"),
        (3, job.topic, 1, 0, 0, T, "CreateTime"),
    ]


HEADERS = """
CREATE TABLE src (id BIGINT, headers MAP<STRING, BYTES> METADATA, topic STRING METADATA VIRTUAL) WITH (
  'connector' = 'kafka', 'topic-pattern' = 'cars-\\d+', 'properties.bootstrap.servers' = '127.0.0.1:9092',
  'format' = 'csv', 'scan.startup.mode' = 'earliest-offset', 'scan.parallelism' = '3');
CREATE TABLE dst (id BIGINT, trace STRING, topic STRING) WITH (
  'connector' = 'adbpg', 'url' = 'jdbc:postgresql://127.0.0.1:5432/db', 'tablename' = 't', 'username' = 'u',
  'password' = 'p');
SET 'pipeline.name' = 'p';
INSERT INTO dst SELECT id, CAST(headers['trace'] AS STRING), topic FROM src;
"""


def test_a_header_can_be_picked_out_in_sql():
    (pipeline,) = flink_sql.compile_script(HEADERS, "p.sql", offline=True)
    (report,) = pipeline.reports
    assert report.endswith("option 'scan.parallelism' has no effect: one consumer reads all partitions")
    headers = [{"key": "other", "value": b"x"}, {"key": "trace", "value": b"abc"}]
    table = raw({"value": b"1", "headers": headers}, {"value": b"2", "offset": 1})
    numbered = table.append_column(POSITION, pa.array([0, 1], pa.int64()))
    rows = attach(pipeline.decoder.decode(numbered).rows, table, ["cars-1@id/0"], pipeline.metadata)
    (transform,) = pipeline.transforms
    found = transform.apply(rows).rows.drop_columns(POSITION).to_pylist()
    assert found == [{"id": 1, "trace": "abc", "topic": "cars-1"}, {"id": 2, "trace": None, "topic": "cars-1"}]
