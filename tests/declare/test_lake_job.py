"""Lake jobs: every field of the form, what it compiles to, and how it is refused."""

import re
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from tests.declare.lake import GROUP, JOB, OWN, SOURCE, compiled, folder, jobs, secret
from vector_assets.declare import load_file
from vector_assets.declare.lake_form import PROCESS_BYTES, UNIT_BYTES
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.pipeline import Allotment


def changed(old: str, new: str, text: str = JOB) -> str:
    assert old in text
    return text.replace(old, new)


def with_key(line: str, text: str = JOB) -> str:
    return f"{text}  {line}\n"


def test_a_job_is_a_pipeline_from_its_topic_into_its_table(tmp_path: Path) -> None:
    pipeline = compiled(tmp_path)
    assert (pipeline.name, pipeline.description) == ("orders", "Every order")
    assert (pipeline.source_connector, pipeline.format, pipeline.sink_connector) == ("kafka", "lake-json", "iceberg")
    assert pipeline.source_options.origin() == ("kafka", "orders")
    assert pipeline.target == "iceberg://lake/shop.orders"
    assert [(c.name, str(c.type)) for c in pipeline.sink_table.columns] == [
        ("id", "BIGINT"), ("os", "STRING"), ("lines", "STRING"), ("_rescued", "STRING"),
    ]  # fmt: skip
    assert pipeline.schema.names == [column.name for column in pipeline.sink_table.columns]
    assert dict(pipeline.reads) == {"id": {"id"}, "os": {"device.os"}, "lines": {"lines"}}
    assert pipeline.is_idle


def test_the_data_source_s_keys_reach_the_client_and_secrets_stay_hidden(tmp_path: Path) -> None:
    options = compiled(tmp_path).source_options.shown()
    assert options["properties.bootstrap.servers"] == "kafka-1:9092,kafka-2:9092"
    assert options["properties.security.protocol"] == "SASL_SSL"
    assert "s3cret" not in str(options)


def test_a_commit_interval_sets_sensor_linger_and_batch(tmp_path: Path) -> None:
    settings = compiled(tmp_path).settings
    assert {settings.sensor_interval, settings.linger, settings.target} == {timedelta(minutes=5)}
    settings = compiled(tmp_path, changed("5 min", "30 s")).settings
    assert {settings.sensor_interval, settings.linger, settings.target} == {timedelta(seconds=30)}


@pytest.mark.parametrize(
    ("start", "told"),
    [
        ("begin_cursor", "earliest-offset"),
        ("end_cursor", "latest-offset"),
        ("2026-03-01T08:00:00Z", "timestamp 1772352000000"),
        ("2026-03-01T09:00:00+01:00", "timestamp 1772352000000"),
        ("2026-03-01 08:00:00", "timestamp 1772352000000"),
        ("1772352000000", "timestamp 1772352000000"),
    ],
)
def test_the_starting_offset_is_a_cursor_or_a_time(tmp_path: Path, start: str, told: str) -> None:
    assert compiled(tmp_path, changed("begin_cursor", start)).source_options.start_option() == told


def test_defaults_are_those_of_the_seed(tmp_path: Path) -> None:
    text = (
        "job:\n  name: j\n  source: shop\n  destination: {database: d, table: t}\n  columns: [{field: a, type: INT}]\n"
    )
    pipeline = compiled(tmp_path, text)
    assert pipeline.settings.sensor_interval == timedelta(minutes=5)
    assert pipeline.format_options is not None
    assert pipeline.format_options.shown() == {"layers": "1", "drift": "rescue", "ignored": "()", "taken": "()"}
    assert pipeline.source_options.start_option() == "earliest-offset"
    assert pipeline.sink_options.shown()["on_existing"] == "fail"


def test_layer_0_is_one_column_of_the_whole_message(tmp_path: Path) -> None:
    text = re.sub(r"  columns:.*(?=  start)", "", changed("json_layers: 2", "json_layers: 0"), flags=re.DOTALL)
    assert compiled(tmp_path, text).schema.names == ["__value__", "_rescued"]


@pytest.mark.parametrize("mode", ["evolve", "rescue", "freeze", "fail"])
def test_drift_modes_reach_the_decoder(tmp_path: Path, mode: str) -> None:
    pipeline = compiled(tmp_path, with_key(f"on_drift: {mode}"))
    assert pipeline.format_options is not None
    assert pipeline.format_options.shown()["drift"] == mode
    assert ("_rescued" in pipeline.schema.names) == (mode in {"evolve", "rescue"})


def test_ignored_fields_reach_the_decoder(tmp_path: Path) -> None:
    pipeline = compiled(tmp_path, with_key("ignore: [device.brand]"))
    assert pipeline.format_options is not None
    assert pipeline.format_options.shown()["ignored"] == "('device.brand',)"


def test_partitions_by_log_time_column_and_bucket(tmp_path: Path) -> None:
    text = with_key("partition_by: [{log_time: day}, {column: os}, {column: id, bucket: 16}]")
    pipeline = compiled(tmp_path, text)
    assert pipeline.sink_options.shown()["partition"] == "day(log_time), os, bucket(16, id)"
    assert pipeline.schema.field("log_time").type == pa.timestamp("ms", "UTC")
    assert dict(pipeline.reads)["log_time"] == {"timestamp"}


def test_the_batch_column_reaches_the_sink(tmp_path: Path) -> None:
    pipeline = compiled(tmp_path, with_key("batch_column: _batch"))
    assert pipeline.sink_options.shown()["batch_column"] == "_batch"
    assert "_batch" not in pipeline.schema.names


@pytest.mark.parametrize("unit", ["year", "month", "day", "hour"])
def test_every_unit_of_log_time_is_a_partition(tmp_path: Path, unit: str) -> None:
    text = with_key(f"partition_by: [{{log_time: {unit}}}]\n  log_time_column: seen_at")
    assert compiled(tmp_path, text).sink_options.shown()["partition"] == f"{unit}(seen_at)"


def test_the_log_time_is_the_record_s_own(tmp_path: Path) -> None:
    pipeline = compiled(tmp_path, with_key("partition_by: [{log_time: day}]"))
    ((column, key),) = pipeline.metadata
    times = pa.table({"timestamp": pa.array([1772352000123], pa.timestamp("ms", "UTC"))})
    assert column.name == "log_time"
    assert key.read(times, ()).cast(pa.int64()).to_pylist() == [1772352000123]


def test_units_are_memory(tmp_path: Path) -> None:
    text = with_key("resources: {group: lake, units: 4}")
    made = compiled(tmp_path, text, GROUP)
    assert made.settings.memory == 4 * UNIT_BYTES - PROCESS_BYTES
    assert made.allotment == Allotment("lake", 4, 4 * UNIT_BYTES)
    alone = compiled(tmp_path, with_key("resources: {memory: 512 MB}"))
    assert (alone.settings.memory, alone.allotment) == (512 * 1024**2 - PROCESS_BYTES, None)
    with pytest.raises(ConfigError, match=r"resources.memory: found '511 MB'"):
        compiled(tmp_path, with_key("resources: {memory: 511 MB}"))


def test_a_group_of_48_units_with_8_used_has_40_left(tmp_path: Path) -> None:
    first = with_key("resources: {group: lake, units: 8}")
    second = first.replace("orders", "returns").replace("units: 8", "units: 40")
    assert len(jobs(tmp_path, b=GROUP, c=first, d=second)) == 2
    with pytest.raises(
        ConfigError, match=r"d.yaml:18:35: job returns: resources.units: found 41; .* at most 40 are left"
    ):
        jobs(tmp_path, b=GROUP, c=first, d=second.replace("40", "41"))


def test_a_data_source_may_be_part_of_the_job(tmp_path: Path) -> None:
    inline = changed("source: shop", "source:\n    brokers: ${secret_values.kafka}:9092\n    topic: ${secret_values.t}")
    (pipeline,) = load_file(folder(tmp_path, job=inline) / "job.yaml", secrets=secret)
    options = pipeline.source_options.shown()
    assert (options["properties.bootstrap.servers"], options["topic"]) == ("value-of-kafka:9092", "value-of-t")


def test_a_data_source_may_stand_in_another_file(tmp_path: Path) -> None:
    (pipeline,) = jobs(tmp_path, job=JOB)
    assert pipeline.source_options.origin() == ("kafka", "orders")
    (alone,) = load_file(tmp_path / "job.yaml", secrets=secret)
    assert alone.fingerprint == pipeline.fingerprint


def test_a_secret_that_is_not_set_is_an_error_at_its_place_unless_offline(tmp_path: Path) -> None:
    def unset(name: str) -> str:
        raise ConfigError(f"secret {name!r} is not set")

    file = folder(tmp_path, job=f"{SOURCE}---\n{JOB}") / "job.yaml"
    with pytest.raises(
        ConfigError, match=r"job.yaml:10:23: properties.sasl.jaas.config: secret 'shop_jaas' is not set"
    ):
        load_file(file, secrets=unset)
    assert load_file(file, secrets=unset, offline=True)


def test_settings_of_scripts_may_be_given(tmp_path: Path) -> None:
    text = with_key("settings: {vector-assets.error-budget: '5%', vector-assets.owners: 'team:lake'}")
    settings = compiled(tmp_path, text).settings
    assert (settings.error_budget, settings.owners) == ("5%", "team:lake")


def test_options_of_the_connector_may_be_given(tmp_path: Path) -> None:
    text = changed("    table: orders", "    table: orders\n    options: {write.parquet.compression-codec: snappy}")
    assert compiled(tmp_path, text).sink_options.shown()["write.parquet.compression-codec"] == "snappy"


def test_another_managed_storage_is_another_catalog(tmp_path: Path) -> None:
    shown = compiled(tmp_path, changed("storage: lake", "storage: archive")).sink_options.shown()
    assert shown["catalog-name"] == "archive"
    assert shown["warehouse"].endswith("/lake/storages/archive")


def test_an_own_path_is_the_table_s_folder(tmp_path: Path) -> None:
    pipeline = compiled(tmp_path, OWN)
    assert pipeline.sink_options.shown()["location"] == "/data/orders"
    assert pipeline.creation is not None
    assert (pipeline.creation.path, pipeline.creation.folder) == ("/data/orders", "/data/orders")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (changed("database: shop", "databse: shop"),
         r":20:5: job orders: unknown key 'databse' \(did you mean 'database'"),
        (changed("  json_layers", "  json_layer"), r":22:3: job orders: unknown key 'json_layer' \(did you mean"),
        (changed("field: id, type", "field: id, typ"),
         r":24:19: job orders: unknown key 'typ' \(did you mean 'type'\?\)"),
        (changed("    table: orders\n", ""), r":16:3: job orders: key 'destination.table' is required"),
        (changed("json_layers: 2", "json_layers: 5"),
         r":22:16: job orders: json_layers: found '5'; .*less than or equal"),
        (changed("type: BIGINT", "type: BIGINTT"),
         r":24:25: job orders: columns\[1\].type: found 'BIGINTT'; want a type"),
        (changed("begin_cursor", "beginning"),
         r":27:10: job orders: start: found 'beginning'; want begin_cursor, end_cur"),
        (changed("format: iceberg", "format: paimon"), r":17:5: .*managed lake storage takes iceberg only"),
        (changed("format: iceberg", "format: hudi"), r":19:13: job orders: destination.format: found 'hudi'"),
        (changed("storage: lake", "path: /x"), r":17:5: .*path has a meaning only with type: path"),
        (OWN.replace("path: /data/orders", ""), r":17:5: .*type: path wants the key path"),
        (OWN.replace("/data/orders", "ftp://host/x"), r":18:11: .*path: found 'ftp://host/x'; want .* known: abfs,"),
        (OWN.replace("/data/orders", "s3:/bucket/x"), r":18:11: .*path: found 's3:/bucket/x'; want .*s3://bucket/folder"),
        (OWN.replace("/data/orders", "/data/../orders"), r":18:11: .*path: found '/data/../orders'; .*without '..'"),
        (OWN.replace("/data/orders", "/"), r":18:11: .*path: found '/'; want "),
        (OWN.replace("path: /data/orders", "path: data/orders"),
         r":18:11: .*path: found 'data/orders'; want a folder by its whole path"),
        (changed("source: shop", "source: shpo"), r":15:11: .*unknown datasource 'shpo' \(did you mean 'shop'\?\)"),
        (changed("  source: shop\n", ""), r":12:1: job orders: key 'source' is required"),
        (changed("  name: orders\n", ""), r":12:1: a job needs a name: .* `vector-assets jobs create --from <file>`"),
        (changed("name: orders", "name: 1st"), r":13:9: job: name: found '1st'; want letters, digits"),
        (changed("commit_interval: 5 min", "commit_interval: soon"), r":28:20: .*want a duration"),
        (with_key("on_drift: adapt"), r":29:13: job orders: on_drift: found 'adapt'; .*'evolve'"),
        (with_key("resources: {group: lake, units: 1}"),
         r":29:35: .*resources.units: found '1'; .*greater than or equal to 2"),
        (with_key("resources: {group: lake}"), r":29:14: .*group and units go together"),
        (with_key("resources: {group: lake, units: 2}"), r":29:22: .*unknown resource_group 'lake'; declared: none"),
        (with_key("partition_by: [{column: idd}]"),
         r":29:27: .*no column 'idd' \(did you mean 'id'\?\); known: id, os"),
        (with_key("partition_by: [{log_time: week}]"), r":29:29: .*log_time: found 'week'"),
        (with_key("partition_by: [{log_time: day}, {log_time: hour}]"),
         r":29:17: .*partition_by: log_time is given twice"),
        (with_key("partition_by: [{bucket: 4}]"), r":29:18: .*want log_time or column"),
        (with_key("partition_by: [{log_time: day}]\n  log_time_column: os"),
         r":30:20: .*column os is that of the record"),
        (with_key("batch_column: OS"), r":29:17: .*batch_column: OS is a column of the messages"),
        (changed("name: os", "name: ID"),
         r":25:7: .*columns: field 'device.os' \(column ID\): 'id' is column id already"),
        (changed("field: device.os", "field: a.b.c"), r":25:7: .*field a.b.c is 3 layers deep; json_layers is 2"),
        (with_key("ignore: [id]"), r":29:11: .*ignore: "),
        (with_key("settings: {vector-assets.memory: 1 GB}"), r":29:14: .*is the key resources of the job"),
        (with_key("settings: {vector-assets.memori: 1 GB}"),
         r":29:.*unknown option 'vector-assets.memori' \(did you mean"),
        (re.sub(r"  columns:.*(?=  start)", "", JOB, flags=re.DOTALL),
         r":12:1: .*'columns' is required: `vector-assets jobs"),
        (changed("    table: orders", "    table: orders\n    options: {location: /x}"),
         r":22:15: .*said by the form's own"),
        (changed("    table: orders", "    table: orders\n    options: {catalog-typ: x}"),
         r":22:.*unknown option 'catalog-typ'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_file_line_and_column(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"job\.yaml{message}"):
        compiled(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SOURCE.replace("json", "avro"),
         r":6:19: datasource shop: message_format: found 'avro'; only JSON-formatted"),
        (SOURCE.replace("brokers:", "broker:"),
         r":4:3: datasource shop: unknown key 'broker' \(did you mean 'brokers'"),
        (SOURCE.replace("topic: orders", "topic: a;b"), r":5:10: .*want one topic"),
        (SOURCE.replace("sasl.mechanism", "sasl.mechanisme"),
         r":\d+:\d+: datasource shop: .*'properties.sasl.mechanisme' .did you mean 'sasl.mechanism'"),
        (SOURCE.replace("${secret_values", "${secrets"), r":10:23: .*\$\{secrets.shop_jaas\} is not known; want"),
        (f"{SOURCE}---\n{SOURCE}", r":12:1: datasource shop: the name is taken by .*job.yaml:1:1"),
        ("datasorce: {}\n", r":1:1: found key 'datasorce' \(did you mean 'datasource'\?\)"),
        ("source: {}\nsink: {}\n", r":1:1: source: key 'type' is required"),
        ("route: []\n", r":1:1: a Flink CDC pipeline needs source: and sink:"),
        ("- a\n", r":1:1: want keys and values"),
        ("a: [\n", r":2:1: this is no YAML: "),
        ("job: {name: a, name: b}\n", r":1:16: key 'name' is given twice"),
        ("job: &x {name: a}\nb: *x\n", r":1:6: aliases \(\*name\) are not supported"),
    ],
)  # fmt: skip
def test_wrong_sources_and_documents_are_named_with_their_place(tmp_path: Path, text: str, message: str) -> None:
    file = folder(tmp_path, job=text + ("" if "job:" in text or "name" not in text else f"---\n{JOB}")) / "job.yaml"
    with pytest.raises(ConfigError, match=rf"job\.yaml{message}"):
        load_file(file, secrets=secret)


@pytest.mark.parametrize(
    ("one", "other", "is_refused"),
    [
        ("/test", "/test2", False),
        ("/test/", "/test/sls1", True),
        ("/test/sls1", "/test", True),
        ("/test", "file:///test/", True),
        ("s3://bucket/test/sls1/", "s3a://bucket/test/", True),
        ("s3://bucket/test", "s3://other/test", False),
        ("s3://bucket", "s3://bucket/a", True),
    ],
)
def test_jobs_whose_paths_share_a_prefix_are_refused_by_segment(
    tmp_path: Path, one: str, other: str, *, is_refused: bool
) -> None:
    first = OWN.replace("/data/orders", one)
    second = OWN.replace("/data/orders", other).replace("orders", "returns")
    if not is_refused:
        assert len(jobs(tmp_path, b=first, c=second)) == 2
        return
    with pytest.raises(
        ConfigError, match=rf"c\.yaml:2:\d+: returns: path {other.rstrip('/')} shares a prefix with .* of orders"
    ):
        jobs(tmp_path, b=first, c=second)


@pytest.mark.parametrize("format_", ["iceberg", "paimon"])
def test_a_script_s_table_inside_of_a_job_s_folder_is_refused(tmp_path: Path, format_: str) -> None:
    place = {
        "iceberg": "'location' = '/data/orders/x', 'catalog-table' = 'o'", "paimon": "'path' = '/data/orders/x/d.db/o'",
    }[format_]  # fmt: skip
    (tmp_path / "z.sql").write_text(
        "CREATE TABLE r (id BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '5');"
        f"CREATE TABLE o (id BIGINT) WITH ('connector' = '{format_}', {place}); INSERT INTO o SELECT * FROM r;"
    )
    with pytest.raises(ConfigError, match=r"z: path /data/orders/x.* shares a prefix with /data/orders of orders"):
        jobs(tmp_path, b=OWN)


def test_two_catalogs_may_not_have_one_folder_for_their_tables(tmp_path: Path) -> None:
    table = "CREATE TABLE o (id BIGINT) WITH ('connector' = 'iceberg', 'catalog-name' = '{}', 'catalog-table' = 'o');"
    for name in ("one", "two"):
        (tmp_path / f"{name}.sql").write_text(
            "CREATE TABLE r (id BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '5');"
            f"{table.format(name)} INSERT INTO o SELECT * FROM r;"
        )
    with pytest.raises(ConfigError, match=r"two: path .*/default/o shares a prefix with .*/default/o of one"):
        jobs(tmp_path)


def test_a_path_inside_of_managed_storage_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VECTOR_ASSETS_HOME", str(tmp_path / "home"))
    inside = OWN.replace("/data/orders", str(tmp_path / "home" / "lake" / "warehouse" / "x")).replace(
        "orders", "returns"
    )
    with pytest.raises(ConfigError, match="shares a prefix"):
        jobs(tmp_path / "p", b=JOB, c=inside)


def test_two_jobs_in_one_managed_storage_are_apart(tmp_path: Path) -> None:
    assert len(jobs(tmp_path, b=JOB, c=JOB.replace("orders", "returns"))) == 2


def test_two_jobs_of_one_table_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"target iceberg://lake/shop.orders is taken by"):
        jobs(tmp_path, b=JOB, c=JOB.replace("name: orders", "name: again"))


def test_other_text_is_another_fingerprint(tmp_path: Path) -> None:
    texts = [JOB, with_key("on_drift: freeze"), changed("os, type: STRING", "os, type: JSON"), with_key("ignore: [x]")]
    prints = {compiled(tmp_path / str(number), text).fingerprint for number, text in enumerate(texts)}
    assert len(prints) == len(texts)


PAIMON = OWN.replace("format: iceberg", "format: paimon")


def test_a_paimon_table_lies_in_the_database_s_folder_below_the_path(tmp_path: Path) -> None:
    pipeline = compiled(tmp_path, PAIMON)
    assert pipeline.target == "paimon:/data/orders/shop.db/orders"
    assert pipeline.creation is not None
    assert (pipeline.creation.path, pipeline.creation.folder) == ("/data/orders", "/data/orders/shop.db/orders")


def test_paimon_is_partitioned_by_values_so_the_log_time_has_a_column_of_its_part(tmp_path: Path) -> None:
    text = f"{PAIMON}  partition_by: [{{log_time: hour}}, {{column: os}}, {{column: id, bucket: 4}}]\n"
    pipeline = compiled(tmp_path, text)
    shown = pipeline.sink_options.shown()
    assert (shown["partition"], shown["bucket"], shown["bucket-key"]) == ("log_time_hour, os", "4", "id")
    _, (column, key) = pipeline.metadata
    times = pa.table({"timestamp": pa.array([1772352000123, None], pa.timestamp("ms", "UTC"))})
    assert column.name == "log_time_hour"
    assert key.read(times, ()).to_pylist() == ["2026-03-01-08", None]


def test_two_paimon_jobs_may_share_a_warehouse_but_not_lie_in_each_other_s(tmp_path: Path) -> None:
    other = PAIMON.replace("name: orders", "name: returns").replace("table: orders", "table: returns")
    assert len(jobs(tmp_path / "a", b=PAIMON, c=other)) == 2
    with pytest.raises(ConfigError, match="shares a prefix"):
        jobs(tmp_path / "b", b=PAIMON, c=other.replace("/data/orders", "/data/orders/inner"))


@pytest.mark.parametrize(
    ("to", "member", "column"),
    [
        (JOB, "log_time", "log_time_2"),
        (OWN.replace("iceberg", "paimon"), "log_time_day", "log_time_day_2"),
        (OWN.replace("iceberg", "paimon"), "LOG_TIME", "LOG_TIME_2"),
    ],
    ids=["iceberg", "paimon part", "another case"],
)
def test_a_new_member_never_takes_the_name_of_the_record_s_time(tmp_path, to, member, column):
    job = to.replace("  start:", "  partition_by: [{log_time: day}]\n  on_drift: evolve\n  start:")
    pipeline = compiled(tmp_path, job)
    raw = pa.table({"value": pa.array([f'{{"{member}":"x"}}'.encode()]), "_position": pa.array([0]), "split": [0]})
    (change,) = pipeline.decoder.decode(raw).wants
    assert change.what == f"column {column} STRING added for {member}"
