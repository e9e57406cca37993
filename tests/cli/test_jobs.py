"""`jobs`: from live messages to a form that is written down, started, watched and taken away."""

import json
from pathlib import Path

import pytest

from tests.cli import lake_world
from tests.declare.lake import GROUP, JOB
from vector_assets.cli.declared import books
from vector_assets.declare import load_folder
from vector_assets.engine.env import secret_variable


@pytest.fixture
def shop(kafka, cli, home, monkeypatch):
    """A topic with 30 orders and a message that is none, and the data source `shop` that names it."""
    topic = kafka.create_topic(partitions=3)
    lake_world.produce(kafka, topic)
    monkeypatch.setenv(secret_variable("shop_kafka"), kafka.bootstrap_servers)
    lake_world.write(cli, home, topic, jobs=False)
    return topic


CREATE = ("jobs", "create", "orders", "--source", "shop", "--database", "shop", "--table", "orders")


def text_of(home: Path, name: str = "orders") -> str:
    return (home / "pipelines" / f"{name}.yaml").read_text()


def test_columns_are_inferred_from_live_messages_and_written_down(cli, home, shop):
    made = cli(*CREATE, "--layers", "2", "--partition-by", "log_time:day", "--partition-by", "id:8", "--json").json
    assert made["columns"] == ["id", "total", "device_os", "device_brand", "tags", "_rescued", "log_time"]
    assert made["samples"] == {"good": 30, "bad": 1}
    lines = text_of(home).splitlines()
    assert "    - {field: device.os, type: STRING}     # string 30" in lines
    assert "    - {field: id, type: BIGINT}            # integer 30" in lines
    (pipeline,) = load_folder(home / "pipelines").pipelines
    assert pipeline.sink_options.shown()["partition"] == "day(log_time), bucket(8, id)"


def test_a_mapping_renames_retypes_adds_and_removes(cli, home, shop):
    made = cli(
        *CREATE, "--layers", "2", "--rename", "device.os=os", "--retype", "id=DECIMAL(20, 0)", "--add",
        "device.color=STRING", "--remove", "device.brand", "--json",
    ).json  # fmt: skip
    assert made["columns"] == ["id", "total", "os", "tags", "device_color", "_rescued"]
    (pipeline,) = load_folder(home / "pipelines").pipelines
    assert str(pipeline.sink_table.columns[0].type) == "DECIMAL(20, 0)"
    assert pipeline.format_options.ignored == ("device.brand",)


def test_a_form_in_a_file_is_completed_in_place(cli, home, shop):
    file = home / "pipelines" / "mine.yaml"
    file.write_text("# my job\njob:\n  source: shop\n  # where to\n  destination: {database: d, table: t}\n")
    made = cli("jobs", "create", "--from", str(file), "--json").json
    assert made["name"].startswith("kafka_2")
    text = file.read_text()
    assert text.startswith("# my job\njob:\n  source: shop\n  # where to\n  destination: {database: d, table: t}\n")
    assert f"  name: {made['name']}\n" in text
    assert load_folder(home / "pipelines").pipelines[0].name == made["name"]


def test_a_job_may_be_called_like_its_source_but_not_like_another_job(cli, home, shop):
    create = ("jobs", "create", "shop", "--source", "shop", "--database", "shop", "--table")
    assert cli(*create, "orders", "--json").json["file"] == str(home / "pipelines" / "shop_2.yaml")
    assert "job shop: the name is taken by " in cli(*create, "returns").err
    assert sorted(file.name for file in (home / "pipelines").iterdir()) == ["shop.yaml", "shop_2.yaml"]


def test_layer_0_needs_no_messages(cli, home, shop):
    assert cli(*CREATE, "--layers", "0", "--json").json["columns"] == ["__value__", "_rescued"]


def test_a_topic_without_messages_says_what_to_do(cli, home, kafka, shop):
    empty = kafka.create_topic()
    (home / "pipelines" / "shop.yaml").write_text(text_of(home, "shop").replace(shop, empty))
    done = cli(*CREATE)
    assert done.code == 1
    assert f"topic {empty} of data source shop holds no messages to infer columns from" in done.err


def test_messages_of_any_size_are_samples(cli, home, kafka, shop):
    kafka.produce(shop, [json.dumps({"id": 1, "wide": {"a": "x" * 500_000}})], partition=1)
    made = cli(*CREATE, "--layers", "2", "--json").json
    assert "wide_a" in made["columns"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--source", "shp"), "unknown datasource 'shp' (did you mean 'shop'?)"),
        (("--format", "paimon"), "managed lake storage takes iceberg only"),
        (("--layers", "5"), "less than or equal to 4"),
        (("--partition-by", "log_time:week"), "log_time: found 'week'"),
        (("--group", "lake", "--units", "41"), "48 units in all, 8 used (other 8): at most 40 are left"),
        (("--group", "lake", "--units", "1"), "greater than or equal to 2"),
        (("--rename", "nothing=x"), "no field 'nothing'; known: id, total, device, tags"),
        (("--on-drift", "adapt"), "on_drift: found 'adapt'"),
        (("--start", "sometime"), "want begin_cursor, end_cursor, or a time"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_job_that_would_be_wrong_is_not_written(cli, home, shop, arguments, said):
    other = JOB.replace("name: orders", "name: other").replace("table: orders", "table: other")
    (home / "pipelines" / "group.yaml").write_text(f"{GROUP}---\n{other}  resources: {{group: lake, units: 8}}\n")
    done = cli(*CREATE, *arguments)
    assert done.code == 1
    assert said in done.err
    assert not (home / "pipelines" / "orders.yaml").exists()


def test_a_path_that_is_not_empty_is_refused_at_creation(cli, home, shop):
    (home / "mine").mkdir()
    (home / "mine" / "notes.txt").write_text("x")
    done = cli(*CREATE, "--path", str(home / "mine"))
    assert done.code == 1
    assert f"path {home / 'mine'} is not empty: it holds 'notes.txt'; choose an empty folder" in done.err
    assert not (home / "pipelines" / "orders.yaml").exists()


def test_a_path_is_fixed_at_creation(cli, home, shop):
    old, new = home / "mine", home / "yours"
    assert cli(*CREATE, "--path", str(old)).code == 0
    assert (
        "the destination of a job is fixed when a job is created"
        in cli("jobs", "edit", "orders", "--set", f"destination.path={new}").err
    )
    (home / "pipelines" / "orders.yaml").write_text(text_of(home).replace(str(old), str(new)))
    for verb in ("start",), ("edit", "--set", "commit_interval=1 min"):
        done = cli("jobs", verb[0], "orders", *verb[1:])
        assert done.code == 1
        assert f"destination.path cannot be changed after creation: it was created with {old}, found {new}" in done.err


def test_a_job_whose_path_lies_in_a_created_one_s_is_refused_even_from_another_folder(cli, home, shop, monkeypatch):
    assert cli(*CREATE, "--path", str(home / "mine")).code == 0
    elsewhere = home / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "shop.yaml").write_text(text_of(home, "shop"))
    monkeypatch.setenv("VECTOR_ASSETS_PIPELINES", str(elsewhere))
    done = cli("jobs", "create", "b", *CREATE[3:-1], "b", "--path", str(home / "mine" / "inner"))
    assert done.code == 1
    assert (
        f"path {home / 'mine' / 'inner'} shares a prefix with {home / 'mine'} of orders, which the ledger knows"
        in done.err
    )


def test_keys_and_columns_are_edited_in_place(cli, home, shop):
    assert cli(*CREATE, "--layers", "2").code == 0
    file = home / "pipelines" / "orders.yaml"
    file.write_text("# ours\n" + file.read_text())
    done = cli(
        "jobs", "edit", "orders", "--set", "commit_interval=1 min", "--set", "on_drift=freeze", "--rename",
        "device.os=os", "--retype", "total=DECIMAL(20, 2)", "--remove", "device.brand", "--add", "note=STRING",
    )  # fmt: skip
    assert done.code == 0, done.err
    text = file.read_text()
    assert text.startswith("# ours\n")
    assert "# string 30" in text
    (pipeline,) = load_folder(home / "pipelines").pipelines
    assert pipeline.settings.sensor_interval.total_seconds() == 60
    assert pipeline.schema.names == ["id", "total", "os", "tags", "note"]
    assert pipeline.format_options.ignored == ("device.brand",)
    done = cli("jobs", "edit", "orders", "--set", "on_drfit=freeze")
    assert "unknown key 'on_drfit' (did you mean 'on_drift'?)" in done.err
    assert file.read_text() == text


def test_names_with_dots_are_edited_as_one_key(cli, home, shop):
    assert cli(*CREATE).code == 0
    budget = "settings.vector-assets.error-budget"
    for share in ("5%", "50%"):
        done = cli("jobs", "edit", "orders", "--set", f"{budget}={share}", "--set", "destination.options.s3.region=eu")
        assert done.code == 0, done.err
        (pipeline,) = load_folder(home / "pipelines").pipelines
        assert pipeline.settings.error_budget == share
        assert [key.removeprefix("s3.") for key in pipeline.sink_options.s3] == ["region"]
    assert text_of(home).count("error-budget") == text_of(home).count("s3.region") == 1


def test_a_job_is_listed_and_shown(cli, home, shop):
    assert cli(*CREATE, "--layers", "2").code == 0
    (listed,) = cli("jobs", "list", "--json").json["jobs"]
    assert (listed["name"], listed["status"], listed["table"]) == ("orders", "Unknown", "shop.orders")
    shown = cli("jobs", "show", "orders", "--json").json
    assert shown["columns"][2] == {"field": "device.os", "column": "device_os", "type": "STRING"}
    assert shown["on_drift"] == "rescue"
    assert "device.os" in cli("jobs", "show", "orders").out
    assert "shop.orders" in cli("jobs", "list").out


def test_a_preview_shows_sample_schema_and_rows_and_writes_nothing(cli, home, shop):
    before = sorted(home.rglob("*"))
    found = cli("jobs", "preview", "--source", "shop", "--layers", "2", "--json").json
    assert [column["column"] for column in found["columns"]] == ["id", "total", "device_os", "device_brand", "tags"]
    assert found["columns"][0] == {"field": "id", "column": "id", "type": "BIGINT", "seen": "integer 30"}
    assert len(found["samples"]) == 31
    assert len(found["rows"]) == 30
    assert len(found["rejected"]) == 1
    shown = cli("jobs", "preview", "--source", "shop", "--layers", "2").out
    for word in ("integer 30", "device_os", "linux", "nothing was written", "dead letters"):
        assert word in shown
    assert sorted(home.rglob("*")) == before


def test_a_preview_of_a_job_goes_by_its_columns(cli, home, shop):
    assert cli(*CREATE, "--remove", "tags").code == 0
    found = cli("jobs", "preview", "orders", "--samples", "6", "--json").json
    assert [column["column"] for column in found["columns"]] == ["id", "total", "device"]
    assert len(found["samples"]) == 6
    assert "tags" in [each["column"] for each in cli("jobs", "preview", "orders", "--infer", "--json").json["columns"]]


def test_a_job_runs_and_a_table_that_is_there_is_refused(cli, home, shop):
    assert cli(*CREATE, "--layers", "2").code == 0
    assert cli("run", "orders").code == 0
    (found,) = cli("jobs", "status", "--json").json["jobs"]
    assert (found["written"], found["dead_letters"], found["lag"]) == (30, 1, 0)
    again = ("jobs", "create", "again", *CREATE[3:])
    assert "target iceberg://lake/shop.orders is taken by" in cli(*again).err
    assert cli("jobs", "delete", "orders", "--yes").code == 0
    done = cli(*again)
    assert done.code == 1
    assert "exists already" in done.err or "already exists" in done.err
    assert cli(*again, "--layers", "2", "--on-existing", "adopt").code == 0, cli(
        *again, "--layers", "2", "--on-existing", "adopt"
    ).err


def test_a_deleted_job_frees_its_name_and_its_path(cli, home, shop):
    assert cli(*CREATE, "--path", str(home / "mine")).code == 0
    assert cli("jobs", "delete", "orders", answer="n\n").code == 1
    assert cli("jobs", "delete", "orders", "--yes", "--json").json == {"deleted": "orders"}
    assert not (home / "pipelines" / "orders.yaml").exists()
    assert cli(*CREATE, "--path", str(home / "mine" / "inner")).code == 0


def test_a_job_at_work_is_not_deleted(cli, home, shop):
    assert cli(*CREATE).code == 0
    with books() as opened, opened.ledger.leases.held("orders", "iceberg://lake/shop.orders", ttl=30, wait=1):
        refused = cli("jobs", "delete", "orders", "--yes")
        assert "job orders is at work still (" in refused.err
        assert "it ends by itself, then delete the job" in refused.err
    assert cli("jobs", "delete", "orders", "--yes").code == 0


def test_without_an_instance_start_says_what_to_set(cli, home, shop):
    assert cli(*CREATE).code == 0
    assert "DAGSTER_HOME is not set" in cli("jobs", "start", "orders").err
    assert "DAGSTER_HOME is not set" in cli("jobs", "logs", "orders").err


def test_a_paimon_database_is_never_made_and_must_be_what_the_seed_wants(cli, home, shop):
    path = home / "paimon"
    create = (*CREATE, "--format", "paimon", "--path", str(path), "--on-drift", "rescue")
    done = cli(*create)
    assert done.code == 1
    assert "database shop is not known, and a Paimon database is never made by itself" in done.err
    assert (
        f"CREATE EXTERNAL DATABASE shop WITH DBPROPERTIES (catalog = paimon, adb.paimon.warehouse = {path}" in done.err
    )
    lake_world.declare_database(cli, home)
    elsewhere = cli(*create[:-4], "--path", str(home / "other"))
    assert f"path {home / 'other'} is not the warehouse of database shop, which is {path}" in elsewhere.err
    (path / "shop.db").rename(path / "gone")
    assert f"the directory {path}/shop.db/ does not exist" in cli(*create).err
    (path / "gone").rename(path / "shop.db")
    (path / "shop.db" / "orders").mkdir()
    (path / "shop.db" / "orders" / "x").touch()
    assert f"path {path}/shop.db/orders is not empty: it holds 'x'" in cli(*create).err
    (path / "shop.db" / "orders" / "x").unlink()
    assert cli(*create).code == 0
    assert cli("run", "orders").code == 0
    assert cli("query", "SELECT count(*) AS n FROM shop.orders", "--json").json["rows"] == [{"n": 30}]


def test_drift_of_an_evolving_job_is_told_by_its_history(cli, home, kafka, shop):
    assert cli(*CREATE, "--layers", "2", "--on-drift", "evolve").code == 0
    assert cli("run", "orders").code == 0
    kafka.produce(shop, [json.dumps({"id": 99, "gift": True})], partition=2)
    assert cli("run", "orders").code == 0
    (first, second) = cli("jobs", "show", "orders", "--json").json["schema_history"]
    assert first["changes"] == []
    assert "gift" in second["changes"][0]
    assert "schema history" in cli("jobs", "show", "orders").out
    rows = cli("query", "SELECT id FROM shop.orders WHERE gift", "--json").json["rows"]
    assert rows == [{"id": 99}]


@pytest.mark.parametrize("job", ["orders", "archived"], ids=["iceberg", "paimon"])
def test_columns_that_are_added_renamed_and_widened_after_a_run_reach_the_table(cli, home, kafka, shop, job):
    lake_world.write(cli, home, shop, jobs=True)
    file = home / "pipelines" / "jobs.yaml"
    file.write_text(file.read_text().replace("{field: id, type: BIGINT}", "{field: id, type: INT}"))
    assert cli("run", job).code == 0
    kafka.produce(shop, [json.dumps({**lake_world.ORDERS[0], "id": 2**40, "size": "L", "device": {"os": "bsd"}})])
    field = "device.os" if job == "orders" else "device"
    edits = ("--add", "size=STRING", "--rename", f"{field}=system", "--retype", "id=BIGINT")
    assert cli("jobs", "edit", job, *edits).code == 0
    plan = cli("plan", job, "--json").json["pipelines"][0]
    assert "columns that the table will get, or wider: id, size, system" in plan["online"]["target"]["notes"]
    assert cli("preview", job, "--json").json["rows"][0]["row"]["size"] == "L"
    assert cli("run", job).code == 0
    asked = f"SELECT id, size, system FROM shop.{job} WHERE id = {2**40} OR id = 3 ORDER BY id"
    system = "bsd" if job == "orders" else '{"os":"bsd"}'
    assert cli("query", asked, "--json").json["rows"] == [
        {"id": 3, "size": None, "system": None},
        {"id": 2**40, "size": "L", "system": system},
    ]
    file.write_text(file.read_text().replace("field: id, type: BIGINT", "field: id, type: STRING"))
    refused = cli("run", job)
    assert refused.code == 1
    assert "column id is " in refused.err


@pytest.mark.parametrize("job", ["orders", "archived"], ids=["iceberg", "paimon"])
def test_a_type_that_the_table_cannot_take_is_refused_before_a_run_and_told_by_status(cli, home, shop, job):
    lake_world.write(cli, home, shop, jobs=True)
    assert cli("run", job).code == 0
    file = home / "pipelines" / "jobs.yaml"
    before = file.read_text()
    refused = cli("jobs", "edit", job, "--retype", "id=STRING")
    assert refused.code == 1
    assert "column id is " in refused.err
    assert file.read_text() == before
    field = "device.os" if job == "orders" else "device"
    told = cli("jobs", "edit", job, "--rename", f"{field}=system", "--json").json["table"]
    assert len(told) == 1
    assert "column system " in told[0]
    file.write_text(before.replace("field: id, type: BIGINT", "field: id, type: STRING"))
    found = {each["name"]: each for each in cli("jobs", "status", "--json").json["jobs"]}
    assert "column id is " in found[job]["problem"]
    others = [each["problem"] for name, each in found.items() if name != job]
    assert others == [None]
    for command in (("plan", job), ("jobs", "start", job)):
        refused = cli(*command)
        assert refused.code == 1
        assert "column id is " in refused.err


def test_status_tells_what_is_fixed_and_was_changed_and_a_file_that_is_wrong(cli, home, shop):
    assert cli(*CREATE, "--path", str(home / "own")).code == 0
    file = home / "pipelines" / "orders.yaml"
    file.write_text(file.read_text().replace(str(home / "own"), str(home / "other")))
    (found,) = cli("jobs", "status", "--json").json["jobs"]
    assert "destination.path cannot be changed after creation" in found["problem"]
    file.write_text(file.read_text().replace("json_layers", "json_layer") + "  start: never\n")
    (found,) = cli("jobs", "status", "--json").json["jobs"]
    assert "pipelines/orders.yaml:" in found["problem"]


@pytest.mark.parametrize("job", ["orders", "archived"], ids=["iceberg", "paimon"])
def test_rows_of_older_columns_are_not_foreign_and_the_way_out_of_an_append_table_is_told(cli, home, shop, job):
    lake_world.write(cli, home, shop, jobs=True)
    assert cli("run", job).code == 0
    field = "device.os" if job == "orders" else "device"
    assert cli("jobs", "edit", job, "--rename", f"{field}=system").code == 0
    done = cli("reconcile", job, "--json")
    assert (done.code, json.loads(done.out)["counts"]) == (1, {"other_code": 30})
    told = cli("reconcile", job).out
    assert "--rewrite" not in told
    assert f"reset {job} --adopt-target" in told


def test_a_start_that_has_not_come_yet_is_refused(cli, home, shop):
    refused = cli(*CREATE, "--start", "2999-01-01T00:00:00Z")
    assert refused.code == 1
    assert "orders.yaml:" in refused.err
    assert "2999-01-01T00:00:00Z has not come yet" in refused.err


def test_a_start_by_time_takes_the_first_message_of_that_time_or_later(cli, home, kafka, shop):
    topic = kafka.create_topic(partitions=1)
    start = 1_700_000_000_000
    values = [json.dumps({"id": number}) for number in range(4)]
    kafka.produce(topic, values, partition=0, timestamps=[start + 1000 * number for number in range(4)])
    (home / "pipelines" / "shop.yaml").write_text(
        f"datasource: {{name: shop, brokers: '${{secret_values.shop_kafka}}', topic: {topic}}}\n"
    )
    for name, at in (("orders", "2023-11-14T22:13:21.500Z"), ("again", str(start + 2000))):
        assert cli("jobs", "create", name, *CREATE[3:-1], name, "--start", at).code == 0
        assert cli("run", name).code == 0
        rows = cli("query", f"SELECT id FROM shop.{name} ORDER BY id", "--json").json["rows"]
        assert rows == [{"id": 2}, {"id": 3}]


@pytest.mark.parametrize("job", ["orders", "archived"], ids=["iceberg", "paimon"])
def test_a_preview_of_a_job_shows_what_its_next_run_has_and_what_no_column_is_for(cli, home, kafka, shop, job):
    lake_world.write(cli, home, shop, jobs=True)
    file = home / "pipelines" / "jobs.yaml"
    file.write_text(file.read_text().replace("ignore:", "on_drift: evolve\n  ignore:"))
    assert cli("run", job).code == 0
    kafka.produce(shop, [json.dumps({"id": 99, "gift": True})], partition=2)
    before = cli("jobs", "preview", job, "--json").json
    assert [each["field"] for each in before["strays"]] == ["gift"]
    assert "the table gets a column for each" in cli("jobs", "preview", job).out
    assert cli("run", job).code == 0
    after = cli("jobs", "preview", job, "--json").json
    assert after["strays"] == []
    named = [each["column"] for each in after["columns"]]
    times = ["log_time"] if job == "orders" else ["log_time", "log_time_day"]
    assert named[-len(times) - 1 :] == ["gift", *times]
    (row,) = [row for row in after["rows"] if row["id"] == 99]
    assert (row["gift"], row["_rescued"]) == (True, None)
    assert all(row[name] is not None for row in after["rows"] for name in times)


@pytest.mark.parametrize("mode", ["freeze", "fail"])
def test_a_preview_of_a_job_rejects_what_its_next_run_does(cli, home, kafka, shop, mode):
    lake_world.write(cli, home, shop, jobs=True)
    file = home / "pipelines" / "jobs.yaml"
    file.write_text(file.read_text().replace("ignore:", f"on_drift: {mode}\n  ignore:"))
    kafka.produce(shop, [json.dumps({"id": 99, "gift": True}), json.dumps({"id": "many"})], partition=2)
    shown = cli("jobs", "preview", "orders", "--json").json
    assert "_rescued" not in shown["rows"][0]
    assert len(shown["rows"]) == 30
    reasons = [each["error"] for each in shown["rejected"]]
    assert any("drift: found member gift" in reason for reason in reasons)
    assert any('drift: id: found "many", wanted BIGINT' in reason for reason in reasons)
    what = "messages that stop the job, and dead letters" if mode == "fail" else "dead letters"
    assert what in cli("jobs", "preview", "orders").out.splitlines()
