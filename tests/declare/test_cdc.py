import re
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest

from tests.declare.cdc import KAFKA, MAXCOMPUTE, SOURCE, capture, pipelines, table
from tests.declare.seeds import seed
from vector_assets.clients.maxcompute_types import type_text
from vector_assets.declare import load_file
from vector_assets.declare.cdc_job import Capture
from vector_assets.declare.cdc_names import RouteRule, TablePatterns, routed
from vector_assets.declare.flink_type_text import type_of
from vector_assets.declare.yaml_text import Document
from vector_assets.engine import captures
from vector_assets.engine.abilities import Evolving
from vector_assets.engine.core import KIND, POSITION, RowKind
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.ledger import Ledger
from vector_assets.sinks.maxcompute_cdc import MaxComputeCdcOptions, stored_type
from vector_assets.transforms.changes import InsertsOnly, SoftDelete


@pytest.mark.parametrize(
    ("text", "hits", "misses"),
    [
        ("shop.orders", ["shop.orders", "SHOP.Orders"], ["shop.orders2", "ashop.orders"]),
        (r"shop.\.*", ["shop.orders", "shop.a.b"], ["store.orders"]),
        (r"db[0-9].order_[0-9]+, x.y", ["db1.order_12", "x.y"], ["db1.order_", "db1.y"]),
        (r"(a|b)\.?c.t", ["abc.t".replace("b", ""), "b.c.t"], ["ab.t"]),
    ],
)
def test_patterns_part_databases_from_tables_by_dots_without_a_backslash(text, hits, misses):
    patterns = TablePatterns(text)
    cut = {"b.c.t": ("b.c", "t"), "shop.a.b": ("shop", "a.b")}
    for name in (*hits, *misses):
        database, table_name = cut.get(name, tuple(name.split(".", 1)))
        assert patterns.matches(database, table_name) is (name in hits), name


@pytest.mark.parametrize("text", ["orders", "a.b.c", "", ".", "a.", "a.(b", r"shop\.*"])
def test_what_is_no_database_and_table_is_refused(text):
    with pytest.raises(ValueError, match=r"want database.table|no regular expression"):
        TablePatterns(text)


def test_a_table_goes_where_every_route_says_or_where_it_is():
    rules = [RouteRule(r"a.\.*", "ods.all"), RouteRule("a.t", "ods.<>_x", "<>")]
    assert [str(each) for each in routed(rules, "a", "t")] == ["ods.all", "ods.t_x"]
    assert [str(each) for each in routed(rules, "b", "t")] == ["b.t"]


def test_every_table_of_the_target_is_a_pipeline_of_its_own():
    found = pipelines("pipeline:\n  name: My shop 1", tables=(table(), table("shop.items")))
    assert list(found) == ["My_shop_1_shop_orders", "My_shop_1_shop_items"]
    ids = {each.source_options.server_id for each in found.values()}
    assert len(ids) == 2
    assert found["My_shop_1_shop_items"].source_options.only == {"shop.items"}
    assert found["My_shop_1_shop_items"].source_options.origin() == ("mysql", "shop", "items")


def test_a_range_of_server_ids_is_dealt_out_and_must_last():
    tables = (table(), table("shop.items"))
    source = SOURCE + "  server-id: 5400-5401\n"
    assert [p.source_options.replica_id for p in pipelines(source, tables=tables).values()] == [5400, 5401]
    with pytest.raises(ConfigError, match=r"shop.yaml:10:14: source: server-id 5400-5401 has 2 numbers; .*at least 3"):
        pipelines(source, tables=(*tables, table("shop.more")))


def projected(projection: str, condition: str | None = None, more: str = "") -> pa.Table:
    """What a transform makes of three rows."""
    where = f"    filter: {condition}\n" if condition else ""
    text = f"transform:\n  - source-table: shop.orders\n    projection: {projection}\n{where}{more}"
    (pipeline,) = pipelines(text).values()
    rows = pa.table(
        {
            "id": pa.array([1, 2, 3], pa.int32()), "name": ["a", "b", None], "price": pa.array([5, 6, 7], pa.int32()),
            "__table_name__": ["orders"] * 3, "__schema_name__": ["shop"] * 3, POSITION: [0, 1, 2],
        }
    )  # fmt: skip
    for transform in pipeline.transforms:
        rows = transform.apply(rows).rows
    return rows.drop_columns([POSITION])


@pytest.mark.parametrize(
    ("projection", "condition", "wanted"),
    [
        (r"\*", "price > 6", [{"id": 3, "name": None, "price": 7}]),
        (r'"*, UPPER(name) AS name"', "id = 1", [{"id": 1, "name": "A", "price": 5}]),
        ("UPPER(name) AS up, *", "up = 'B'", [{"up": "B", "id": 2, "name": "b", "price": 6}]),
        ("id, price * 2 AS price", "price = 7", [{"id": 3, "price": 14}]),
        ("id, __schema_name__ || '.' || __table_name__ whence", "id < 2", [{"id": 1, "whence": "shop.orders"}]),
    ],
)
def test_projection_and_filter_are_sql(projection, condition, wanted):
    assert projected(projection, condition).to_pylist() == wanted


@pytest.mark.parametrize(
    ("lines", "place", "message"),
    [
        ("projection: id, nope + 1 AS x", "shop.yaml:{}:21", "has no column nope"),
        ("projection: id, UPPER(name)", "shop.yaml:{}:21", "needs a name: <expression> AS <name>"),
        ("projection: name", "shop.yaml:{}:17", "leaves out id of the primary key"),
        ("projection: id, LOCALTIMESTAMP AS t", "shop.yaml:{}:21", "LOCALTIMESTAMP is refused"),
        ("projection: id, price AS __table_name__", "shop.yaml:{}", "is that of metadata"),
        ("filter: price", "shop.yaml:{}:13", "want a condition"),
        ("filter: price > 1 LIMIT 3", "shop.yaml:{}", "LIMIT is not supported"),
        ("primary-keys: nope", "shop.yaml:{}:19", "primary-keys: no column nope"),
        ("table-options: a", "shop.yaml:{}:20", "want key1=value1"),
        ("projektion: id", "shop.yaml:{}:5", "unknown key 'projektion' (did you mean 'projection'?)"),
        ("converter-after-transform: HARD", "shop.yaml:{}", "SOFT_DELETE"),
    ],
)
def test_what_is_wrong_in_a_transform_is_named_with_its_place(lines, place, message):
    text = f"{SOURCE}sink:\n  type: blackhole\ntransform:\n  - source-table: shop.\\.*\n    {lines}\n"
    line = text[: text.index(lines)].count("\n") + 1
    with pytest.raises(ConfigError) as raised:
        pipelines(text)
    assert str(raised.value).startswith(place.format(line)), raised.value
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SOURCE.replace("mysql", "oracle"), "shop.yaml:4:9: source: unknown type 'oracle'; known: kafka, mysql"),
        (KAFKA + "  tabels: a.b\n", "source kafka: unknown option 'tabels' (did you mean 'tables'?); known options: "),
        (KAFKA + "  canal-json.table.include: x\n", "source kafka: unknown option 'canal-json.table.include'"),
        (KAFKA + "  debezium-json.schema: x\n", "unknown option 'debezium-json.schema'"),
        (KAFKA + "  key.format: json\n", "source kafka: key.format is not built"),
        (KAFKA + "  value.format: json\n", "option 'value.format'"),
        (KAFKA.replace("earliest-offset", "initial"), "known: earliest-offset, latest-offset, group-offsets"),
        (KAFKA + "  topic-pattern: x\n", "option 'topic' or 'topic-pattern' is required, and only one of them"),
        (SOURCE + "  tabels: a.b\n", "source mysql: unknown option 'tabels' (did you mean 'tables'?); known options: "),
        (SOURCE + "  debezium.snapshot.mode: never\n", "source mysql: unknown option 'debezium.snapshot.mode'"),
        (SOURCE.replace("shop.\\.*", "shop"), "'shop', which is refused: want database.table"),
        (SOURCE.replace("  username: reader\n", ""), "source mysql: option 'username' is required"),
        (SOURCE.replace("  tables: shop.\\.*\n", ""), "source mysql: option 'tables' is required"),
        (SOURCE + "  metadata.list: es_timestamp\n", "unknown metadata 'es_timestamp'; known: op_ts"),
        ("sink:\n  type: doris\n", "sink: unknown type 'doris'; known: adbpg, blackhole, iceberg, maxcompute, milvus"),
        ("sink:\n  type: adbpg\n  tablename: x\n", "option 'tablename' is said by the routes"),
        ("sink:\n  type: blackhole\n  include.schema.changes: [drop]\n", "'include.schema.changes' is not built"),
        (MAXCOMPUTE + "  bucket-num: 3\n", "unknown option 'bucket-num' (did you mean 'buckets-num'?)"),
        (MAXCOMPUTE + "  compress.algorithm: lz4\n", "option 'compress.algorithm' has the value 'lz4'"),
        ("rout:\n  - a: b\n", "unknown key 'rout' (did you mean 'route'?); known: source, sink, route,"),
        ("route:\n  source-table: a.b\n", "route: want a list"),
        ("route:\n  - source-table: a.b\n", "route: key 'sink-table' is required"),
        ("route:\n  - source-table: a.b\n    sink-table: a.b.c\n", "want database.table or table"),
        ("route:\n  - source-table: a.b\n    sink-table: a.b\n    replace-symbol: <>\n", "'<>' is not in sink-table"),
        ("pipeline:\n  schema.change.behavior: fail\n", "schema.change.behavior: found 'fail'"),
        ("pipeline:\n  local-time-zone: Asia/Shanghai\n", "only UTC is supported"),
        ("pipeline:\n  user-defined-function:\n    - name: x\n", "functions of Java are not possible here"),
        ("pipeline:\n  vector-assets.linge: 1s\n", "unknown option 'vector-assets.linge'"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_file_is_named_with_what_is_known(text, message):
    with pytest.raises(ConfigError) as raised:
        pipelines(text)
    assert re.match(r"shop\.yaml:\d+", str(raised.value)), raised.value
    assert message in str(raised.value)
    assert "secret" not in str(raised.value)


def test_options_without_effect_are_reported_once():
    text = SOURCE + "  scan.newly-added-table.enabled: true\n  connection.pool.size: 3\n"
    more = "pipeline:\n  parallelism: 4\n  execution.runtime-mode: STREAMING\n"
    (pipeline,) = pipelines(text, more).values()
    named = [re.findall(r"option '([^']+)' has no effect", report)[0] for report in pipeline.reports]
    assert sorted(named) == [
        "connection.pool.size", "execution.runtime-mode", "parallelism", "scan.newly-added-table.enabled",
    ]  # fmt: skip


def test_two_transforms_of_one_table_are_refused():
    rule = "  - source-table: shop.orders\n    filter: id > 1\n"
    with pytest.raises(ConfigError, match=r"table shop.orders has several transforms"):
        pipelines(f"transform:\n{rule}{rule}")


def test_columns_that_cannot_be_read_are_reported():
    (pipeline,) = pipelines(tables=(table(left_out=("at (uuid)",)),)).values()
    assert any("column at (uuid) of table shop.orders cannot be read" in report for report in pipeline.reports)


@pytest.mark.parametrize(
    ("name", "value", "option", "shown"),
    [
        ("access-id", "you", "accessId", "you"),
        ("endpoint", "http://h:1/api", "endpoint", "http://h:1/api"),
        ("project", "q", "project", "q"),
        ("tunnel.endpoint", "http://t:1", "tunnelEndpoint", "http://t:1"),
        ("quota.name", "mine", "quotaName", "mine"),
        ("buckets-num", "7", "upsert.write.bucket.num", "7"),
        ("compress.algorithm", "snappy", "compressAlgorithm", "SNAPPY"),
        ("total.buffer-size", "1 mb", "upsert.writer.buffer-size", str(1 << 20)),
        ("bucket.buffer-size", "2 mb", "upsert.writer.bucket.buffer-size", str(2 << 20)),
        ("commit.thread-num", "3", "upsert.commit.thread-num", "3"),
        ("flush.concurrent-num", "5", "upsert.flush.concurrent", "5"),
    ],
)
def test_every_option_of_the_maxcompute_sink_reaches_the_tables(name, value, option, shown):
    text = re.sub(rf"^  {re.escape(name)}: .*\n", "", MAXCOMPUTE, flags=re.MULTILINE) + f"  {name}: {value}\n"
    (pipeline,) = pipelines(text).values()
    assert pipeline.sink_options.shown()[option] == shown


def test_secrets_of_the_maxcompute_sink_reach_the_login_and_are_never_shown():
    (pipeline,) = pipelines(MAXCOMPUTE + "  sts-token: token of a role\n").values()
    assert pipeline.sink_options.login.sts_token.get_secret_value() == "token of a role"
    assert pipeline.sink_options.login.access_key.get_secret_value() == "secret"
    assert "token of a role" not in str(pipeline.sink_options.shown())


def test_defaults_of_the_maxcompute_sink_are_the_seed_s():
    part = seed(3).split("Flink CDC (public preview)")[1].split("Table location mappings")[0]
    rows = re.findall(r"^([a-z][\w.-]*) \|\s(Yes|No) \|\s([^|]+) \|", part, re.MULTILINE)
    wanted = {name: default for name, _, default in rows}
    fields = {field.alias or name: field for name, field in MaxComputeCdcOptions.model_fields.items()}
    assert set(wanted) == set(fields)
    for name, text in wanted.items():
        if text != "—":
            found = fields[name].default
            spelled = {64 << 20: "64 MB", 4 << 20: "4 MB"}.get(found, str(found).lower())
            assert spelled == text, name
    required = {name for name, need, _ in rows if need == "Yes"}
    assert {name for name, field in fields.items() if field.is_required()} == required


@pytest.mark.parametrize(
    "kind", ["ARRAY<INT>", "MAP<STRING, INT>", "ROW<a INT>", "TIMESTAMP_LTZ(3)", "TIMESTAMP_LTZ(4)"]
)
def test_types_that_mysql_does_not_have_are_stored_as_the_seed_says(kind):
    part = seed(3).split("Data type mappings")[-1].split("Examples")[0]
    name = {"TIMESTAMP_LTZ(3)": "TIMESTAMP_WITH_LOCAL_TIME_ZONE (precision <= 3)"}.get(kind, kind.partition("<")[0])
    name = {"TIMESTAMP_LTZ(4)": "TIMESTAMP_WITH_LOCAL_TIME_ZONE (precision > 3)"}.get(name, name)
    (wanted,) = re.findall(rf"^\| {re.escape(name)} \| (\S+) \|$", part, re.MULTILINE)
    assert type_text(stored_type(type_of(kind))).partition("<")[0] == wanted


def test_without_schemas_tables_of_two_databases_cannot_stand_together():
    two = (table(facts={"schemas": False}), table("shop2.orders", facts={"schemas": False}))
    text = f"{SOURCE.replace('shop.', 'shop2?.')}{MAXCOMPUTE}"
    with pytest.raises(ConfigError, match=r"one database .*found shop, shop2"):
        pipelines(text, tables=two)
    route = "route:\n  - source-table: shop2.orders\n    sink-table: shop.more\n"
    targets = [pipeline.target for pipeline in pipelines(text, route, tables=two).values()]
    assert targets == ["maxcompute://p.orders", "maxcompute://p.more"]
    tiers = tuple(table(name, facts={"schemas": True}) for name in ("shop.orders", "shop2.orders"))
    targets = [pipeline.target for pipeline in pipelines(text, tables=tiers).values()]
    assert targets == ["maxcompute://p.shop.orders", "maxcompute://p.shop2.orders"]


def test_rows_that_are_no_inserts_are_rejects_with_their_reason():
    kinds = pa.array([RowKind.INSERT, RowKind.UPDATE_BEFORE, RowKind.UPDATE_AFTER, RowKind.DELETE], pa.int8())
    rows = pa.table({"v": [1, 1, 2, 2], KIND: kinds, POSITION: pa.array([0, 1, 2, 3], pa.int64())})
    found = InsertsOnly().apply(rows)
    assert found.rows.to_pylist() == [{"v": 1, POSITION: 0}]
    assert found.rejected.column("_position").to_pylist() == [1, 2, 3]
    soft = SoftDelete().apply(rows)
    assert soft.rows.column(KIND).to_pylist() == [0, 1, 2, 0]


def test_tables_stay_in_the_ledger_as_they_were_found(tmp_path):
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        first = table(comment="sold", left_out=("x (uuid)",), facts={"schemas": True})
        captures.note(ledger, "shop", [first, table("shop.late", waits="because")])
        captures.note(ledger, "shop", [table("shop.orders", "id INT", "other INT")])
        found = captures.captured(ledger, "shop")
        assert found == [table("shop.late", waits="because"), first]
        assert found[1].facts == {"schemas": True}
        assert captures.let_read(ledger, "shop", "shop.late")
        assert not captures.let_read(ledger, "shop", "shop.late")
        assert captures.forget(ledger, "shop", "shop.orders")
        assert [(each.name, each.waits) for each in captures.captured(ledger, "shop")] == [("shop.late", None)]
        assert captures.captured(ledger, "other") == []


def test_a_file_whose_tables_are_not_known_loads_without_its_server(tmp_path, monkeypatch, caplog):
    from vector_assets.declare import load_folder

    monkeypatch.setenv("VECTOR_ASSETS_HOME", str(tmp_path / "home"))
    (tmp_path / "shop.yaml").write_text(SOURCE.replace("3306", "1") + "sink:\n  type: blackhole\n")
    found = load_folder(tmp_path)
    assert found.pipelines == ()
    assert [each.name for each in found.captures] == ["shop"]
    assert "none can be looked up" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SOURCE + "  scan.startup.mode: lately\nsink:\n  type: blackhole\n", "'scan.startup.mode'"),
        (SOURCE + "  server-id: many\nsink:\n  type: blackhole\n", "'server-id'"),
        (SOURCE + "sink:\n  type: postgres\n  urll: x\n", "unknown option 'urll'"),
        (SOURCE + "sink:\n  type: postgres\n  url: jdbc:postgresql://a:1/b\n", "option 'username' is required"),
        (SOURCE + "sink:\n  type: milvus\n  endpoint: a\n  port: many\n", "'port'"),
    ],
)
def test_options_are_checked_before_any_table_is_known(tmp_path, monkeypatch, text, message):
    """Without a look at the server: the port is one that nobody listens on."""
    monkeypatch.setenv("VECTOR_ASSETS_HOME", str(tmp_path / "home"))
    (tmp_path / "shop.yaml").write_text(text.replace("3306", "1"))
    with pytest.raises(ConfigError, match=r"shop\.yaml:\d+") as raised:
        load_file(tmp_path / "shop.yaml")
    assert message in str(raised.value)


def test_an_option_that_every_table_says_for_itself_is_not_missed(tmp_path, monkeypatch):
    monkeypatch.setenv("VECTOR_ASSETS_HOME", str(tmp_path / "home"))
    (tmp_path / "shop.yaml").write_text(
        SOURCE.replace("3306", "1") + "sink:\n  type: postgres\n  url: jdbc:postgresql://a:1/b\n  password: p\n"
        "transform:\n  - source-table: \\.*.\\.*\n    table-options: username=u\n"
    )
    assert load_file(tmp_path / "shop.yaml") == []


def test_names_of_two_files_are_apart(tmp_path, monkeypatch):
    from vector_assets.declare import collect_folder

    monkeypatch.setenv("VECTOR_ASSETS_HOME", str(tmp_path / "home"))
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(f"{SOURCE}sink:\n  type: blackhole\npipeline:\n  name: same\n")
    (error,) = collect_folder(tmp_path, offline=True).errors
    assert "b.yaml" in str(error)
    assert "CDC pipeline name same is taken by" in str(error)


def test_pipelines_of_a_capture_share_a_place_with_their_file():
    assert capture().name == "shop"
    assert str(capture().place) == "shop.yaml:1:1"


def test_the_example_of_the_docs_compiles():
    text = (Path(__file__).parents[2] / "docs" / "cdc.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (document,) = Document.all_of(example, "shop.yaml")
    columns = ("id INT", "price INT", "amount INT")
    tables = [
        table(name, *columns, facts={"schemas": True}) for name in ("shop.order_1", "shop.order_2", "shop.people")
    ]
    found = {each.name: each for each in Capture(document, offline=True).pipelines(tables)}
    assert list(found) == ["shop_shop_orders", "shop_shop_people"]
    assert found["shop_shop_orders"].schema.names == [*(each.split()[0] for each in columns), "total", "shard"]


def test_the_kafka_source_of_the_docs_compiles_without_its_secrets():
    text = (Path(__file__).parents[2] / "docs" / "cdc.md").read_text()
    (example,) = re.findall(r"```text\n(source:.*?)```", text, re.DOTALL)
    (document,) = Document.all_of(example + "  schema.inference.strategy: STATIC\nsink:\n  type: blackhole\n", "k.yaml")
    (found,) = Capture(document, offline=True).pipelines([table()])
    assert (found.name, found.source_connector, found.format) == ("k_shop_orders", "kafka", "canal-json")
    assert isinstance(found.decoder, Evolving)
    assert not found.decoder.evolves
    assert found.sink_table.primary_key == ("id",)
