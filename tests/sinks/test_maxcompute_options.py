"""Options of the MaxCompute sink: each is honoured, or checked and reported once; the document's scripts."""

import re

import pyarrow as pa
import pytest

from tests.declare.seeds import seed, statements, with_values
from tests.sinks.maxcompute_target import UPSERT
from vector_assets import api
from vector_assets.declare import compile_script, flink_sql
from vector_assets.engine.core import Merge
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.run import Runner
from vector_assets.engine.session import Books, Session
from vector_assets.sinks.maxcompute_options import FILE_CACHED, INSERT_ONLY, UPSERT_ONLY, MaxComputeSinkOptions

LOGIN = {
    "connector": "odps", "endpoint": "http://127.0.0.1:1", "project": "p", "tableName": "t", "accessId": "a",
    "accessKey": "b",
}  # fmt: skip
SAMPLE = {
    "sink.file-cached.enable": "true", "upsertAsyncCommit": "true", "upsert.partial-column.enable": "true",
    "insert.arrow-writer.enable": "true", "sink.file-cached.flush.always": "false",
}  # fmt: skip


def parsed(**options):
    return MaxComputeSinkOptions.parse({**LOGIN, **{k: str(v) for k, v in options.items()}}, "connector odps")


def told(options, name):
    return [report for report in options.reports() if f"'{name}'" in report]


def test_defaults_are_those_of_the_document():
    found = parsed()
    assert (found.file_cached, found.file_cached_writers, found.bucket_check_interval) == (False, 16, 60_000)
    assert (found.file_cached_rolling, found.file_cached_memory, found.file_cached_segment) == (
        16 << 20,
        64 << 20,
        128 << 10,
    )
    assert (found.file_cached_flush_always, found.file_cached_retries) == (True, 3)
    assert (found.flush_interval_ms, found.batch_size, found.num_flush_threads, found.slot_num) == (
        30_000,
        64 << 20,
        1,
        0,
    )
    assert (found.dynamic_partition_limit, found.retry_times, found.sleep_millis) == (100, 3, 1000)
    assert (found.writer_retries, found.writer_buffer, found.bucket_buffer, found.slots) == (3, 64 << 20, 1 << 20, 1)
    assert (found.commit_retries, found.commit_threads, found.flush_concurrent) == (3, 16, 2)
    assert (found.insert_commit_threads, found.arrow_rows, found.arrow_flush, found.writer_size) == (
        16,
        512,
        100_000,
        64 << 20,
    )
    assert found.operation == "insert"
    flags = [found.partial, found.enable_upsert, found.upsert_async_commit, found.use_stream_tunnel]
    assert flags == [False] * 4
    assert found.reports() == ()


@pytest.mark.parametrize("name", [*UPSERT_ONLY, *FILE_CACHED])
def test_an_option_of_the_upsert_tunnel_is_reported_once_without_it(name):
    assert len(told(parsed(**{name: SAMPLE.get(name, "10000")}), name)) == 1


@pytest.mark.parametrize("name", [*INSERT_ONLY, "useStreamTunnel"])
def test_an_option_of_the_insert_tunnels_is_reported_once_beside_enable_upsert(name):
    value = SAMPLE.get(name, "true" if name == "useStreamTunnel" else "10000")
    assert len(told(parsed(**UPSERT, **{name: value}), name)) == 1


@pytest.mark.parametrize(
    "name",
    ["sink.parallelism", "insert.arrow-writer.flush-interval", "sink.bucket.check-interval", "sink.file-cached.memory",
     "sink.file-cached.memory.segment-size", "sink.file-cached.flush.always"],
)  # fmt: skip
def test_an_option_of_a_jvm_is_checked_and_reported_once(name):
    on = {**UPSERT, "sink.file-cached.enable": "true"} if "file" in name or "bucket" in name else {}
    assert len(told(parsed(**on, **{name: SAMPLE.get(name, "4")}), name)) == 1
    with pytest.raises(ConfigError, match=name):
        parsed(**on, **{name: "no number"})


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"useStreamTunnel": "true", "insert.arrow-writer.enable": "true"}, "insert.arrow-writer.enable"),
        ({"useStreamTunnel": "true", "insert.commit.thread-num": 2}, "insert.commit.thread-num"),
        ({"insert.arrow-writer.enable": "false", "insert.arrow-writer.batch-size": 9},
         "insert.arrow-writer.batch-size"),
        ({"slotNum": 2}, "slotNum"),
        ({"dynamicPartitionLimit": 2, "partition": "ds=1"}, "dynamicPartitionLimit"),
        ({**UPSERT, "upsert.commit.timeout": 9, "upsertCommitTimeoutMs": 9}, "upsertCommitTimeoutMs"),
        ({**UPSERT, "sink.operation": "insert"}, "sink.operation"),
        ({"quotaName": "q", "tunnelEndpoint": "http://127.0.0.1:2"}, "quotaName"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_an_option_that_gives_way_is_reported_once(given, name):
    assert len(told(parsed(**given), name)) == 1


def test_buckets_are_required_with_the_upsert_tunnel_only():
    assert parsed().bucket_num is None
    for given in ({"enableUpsert": "true"}, {"sink.operation": "upsert"}):
        with pytest.raises(ConfigError, match=r"upsert\.write\.bucket\.num' is required"):
            parsed(**given)
    assert parsed(**{"sink.operation": "UPSERT", "upsert.write.bucket.num": 4}).tunnel == "upsert"
    with pytest.raises(ConfigError, match=r"no multiple of sink\.parallelism 3"):
        parsed(**UPSERT, **{"sink.parallelism": 3})


@pytest.mark.parametrize(
    ("given", "seconds"),
    [({}, 600), ({"upsertCommitTimeoutMs": 5000}, 5), ({"upsert.commit.timeout": 7}, 7),
     ({"upsertCommitTimeoutMs": 5000, "upsert.commit.timeout": 7}, 7)],
    ids=["neither", "old", "new", "both"],
)  # fmt: skip
def test_the_newer_commit_timeout_wins(given, seconds):
    assert parsed(**UPSERT, **given).commit_wait.total_seconds() == seconds


def test_the_flush_options_say_how_long_a_batch_waits_and_how_large_a_block_is():
    assert parsed(flushIntervalMs=500).wire.linger_seconds == 0.5
    assert parsed(flushIntervalMs=0).wire.linger_seconds == 3600
    assert parsed(batchSize=100).block_bytes == 100
    assert parsed(**{"insert.writer.buffer-size": "1 kb"}).block_bytes == 1024


def test_an_unknown_option_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"did you mean 'enableUpsert'"):
        parsed(enableUpserts="true")


CHANGES = """
CREATE TABLE src (id INT, name STRING, PRIMARY KEY (id) NOT ENFORCED) WITH (
  'connector' = 'kafka', 'properties.bootstrap.servers' = '127.0.0.1:1', 'topic' = 't', 'format' = 'debezium-json',
  'scan.startup.mode' = 'earliest-offset');
CREATE TABLE dst (id INT, name STRING, PRIMARY KEY (id) NOT ENFORCED) WITH ({options});
INSERT INTO dst SELECT * FROM src;
"""


@pytest.mark.parametrize("more", [{}, {"useStreamTunnel": "true"}], ids=["batch", "stream"])
def test_changes_into_an_insert_only_tunnel_are_refused_when_the_script_is_read(more):
    def script(**options):
        return CHANGES.format(
            options=", ".join(f"'{name}' = '{value}'" for name, value in {**LOGIN, **options}.items())
        )

    with pytest.raises(ConfigError, match=r"updates and deletes.*enableUpsert"):
        compile_script(script(**more), "changes.sql")
    (pipeline,) = compile_script(script(**UPSERT), "changes.sql")
    assert pipeline.open_sink().merge is Merge.LAST


SINKS = {
    "static": ("Write to a static partition", "id, len, content, ds"),
    "dynamic": ("Write to dynamic partitions", "ds"),
}


def placed(server, script, table):
    """A script of the document with the service's address in it; `<...>` and secrets are all that is replaced."""
    values = {"yourEndpoint": server.service.endpoint, "yourProjectName": "local"}
    with_table = script.replace("<yourTableName>", table)
    secrets = {"ak_id": server.service.access_id, "ak_secret": server.service.access_key}
    filled = with_values(with_table, values)
    for name, value in secrets.items():
        filled = filled.replace(f"${{secret_values.{name}}}", value)
    return filled


@pytest.mark.service
@pytest.mark.parametrize("which", SINKS)
def test_the_documents_sink_scripts_run_as_written(maxcompute, tmp_path, which):
    text = seed(3)
    section = text[text.index("Sink table\nWrite to a static") : text.index("Dimension table\nSingle-value key")]
    begin = section.index(SINKS[which][0])
    end = section.find("Write to dynamic partitions", begin + 1)
    script = "\n".join(statements(section[begin : end if end > 0 else None]))
    assert script.count("CREATE TEMPORARY TABLE") == 2
    table = str(maxcompute.table("id int, len int, content string", "PARTITIONED BY (ds string)").name)
    (pipeline,) = flink_sql.compile_script(
        "SET 'vector-assets.batch.max-rows' = '60';\n" + placed(maxcompute, script, table), "x.sql"
    )
    with closing_books(tmp_path) as books, Session(pipeline, books) as session:
        runner = Runner(session)
        outcome = next(runner.follow())
        runner.stop.set()
    assert outcome.batch.counts.written > 0
    ((count,),) = maxcompute.rows(f"SELECT count(*) FROM {table}")
    assert count >= outcome.batch.counts.written
    days = {row[0] for row in maxcompute.rows(f"SELECT DISTINCT ds FROM {table}")}
    assert days == {"20180905"} if which == "static" else all(len(day) == 6 and day.isdigit() for day in days)


def closing_books(folder):
    from contextlib import closing

    from vector_assets.engine.archive import Archive
    from vector_assets.engine.ledger import Ledger

    return closing(Books(Ledger(folder / "ledger.db"), Archive(folder / "archive")))


def datastream_ddl(server, begin, end, table):
    """The DDL inside a Java example of the document, with the service's address in it."""
    text = seed(3)
    java = text[text.index(begin) : text.index(end)]
    ddl = "\n".join(re.findall(r'^\s*"([^"\\]*)"', java, re.MULTILINE)) + ";"
    for name, value in {
        "<yourEndpointName>": server.service.endpoint, "<yourProjectName>": "local", "<yourTableName>": table,
        "<yourAccessId>": server.service.access_id, "<yourAccessPassword>": server.service.access_key,
    }.items():  # fmt: skip
        ddl = ddl.replace(name, value)
    return ddl


@pytest.mark.service
def test_the_documents_datastream_source_is_read_from_python(maxcompute):
    """`ds=201809*` is every day of that month, and nothing else."""
    found = maxcompute.table("cid string, rt double", "PARTITIONED BY (ds string)")
    for day, rows in {
        "20180901": [["a", 1.5]],
        "20180930": [["b", 2.5], ["c", None]],
        "20181001": [["d", 4.0]],
    }.items():
        with found.open_writer(partition=f"ds={day}", create_partition=True) as writer:
            writer.write(rows)
    ddl = datastream_ddl(maxcompute, "Connect to the source", "Connect to the sink", str(found.name))
    with api.loads(ddl).source("odps_source") as source:
        batches = list(source.batches())
    assert [row for batch in batches for row in batch.rows.to_pylist()] == [
        {"cid": "a", "rt": 1.5}, {"cid": "b", "rt": 2.5}, {"cid": "c", "rt": None},
    ]  # fmt: skip
    assert sum(batch.rejected.num_rows for batch in batches) == 0


@pytest.mark.service
def test_the_documents_datastream_sink_is_written_from_python(maxcompute):
    table = str(maxcompute.table("cid string, rt double", "PARTITIONED BY (ds string)").name)
    ddl = datastream_ddl(maxcompute, "Connect to the sink", "Maven dependency", table)
    rows = pa.table({"cid": ["id0", "id1"], "rt": [3.0, 4.0]})
    with api.loads(ddl).sink("odps_sink") as sink:
        written = sink.write(rows)
    assert written.counts.written == 2
    assert maxcompute.rows(f"SELECT cid, rt, ds FROM {table} ORDER BY cid") == [
        ["id0", 3.0, "20180905"], ["id1", 4.0, "20180905"],
    ]  # fmt: skip
