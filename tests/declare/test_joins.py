# ruff: noqa: E501
"""Lookup joins in scripts: what they compile to, what is understood without being written, what is refused where."""

import pytest

from tests.declare.scripts import SINK_OPTIONS, compiled, one, place_of_mark
from vector_assets.engine.errors import ConfigError
from vector_assets.transforms.lookup import LookupKey, LookupTransform

KAFKA = """WITH (
  'connector' = 'kafka', 'topic' = 'cars', 'properties.bootstrap.servers' = '127.0.0.1:9092', 'format' = 'csv',
  'scan.startup.mode' = 'earliest-offset'
)"""
ODPS = """'connector' = 'odps', 'endpoint' = 'http://127.0.0.1:1', 'project' = 'p', 'tableName' = 't',
  'accessId' = 'me', 'accessKey' = 'hidden'"""
SRC = f"""CREATE TABLE src (
  id BIGINT NOT NULL, name STRING, k INT, at TIMESTAMP(3), twice AS k * 2, clock AS PROCTIME())
{KAFKA};
"""
DIM = f"CREATE TABLE dim (k BIGINT, name STRING, v STRING, day DATE) WITH ({ODPS}, 'cache' = 'ALL');\n"
OTHER = f"CREATE TABLE other (v STRING, w INT) WITH ({ODPS}, 'partition' = 'max_pt()', 'cache' = 'ALL');\n"
DST = f"CREATE TABLE dst (id BIGINT NOT NULL, a STRING, b STRING) WITH {SINK_OPTIONS};\n"
TABLES = SRC + DIM + OTHER + DST
NOW = "FOR SYSTEM_TIME AS OF PROCTIME()"


def insert(select: str) -> str:
    return f"{TABLES}INSERT INTO dst {select};\n"


def lookups(select: str) -> list[LookupTransform]:
    *joins, _ = one(insert(select)).transforms
    assert all(isinstance(each, LookupTransform) for each in joins)
    return joins


def test_a_join_becomes_a_transform_that_hands_on_what_is_read() -> None:
    (join,) = lookups(
        f"SELECT id, s.name, d.v FROM src AS s LEFT JOIN dim {NOW} AS d ON s.k = d.k AND d.name <> s.name"
    )
    plan = join._plan
    assert plan.keys == (LookupKey('CAST("k" AS BIGINT)', '"k"', plan.keys[0].kind),)
    assert str(plan.keys[0].kind) == "int64"
    assert (plan.carried, plan.added) == (("id", "k", "name"), (("name", "d.name"), ("v", "d.v")))
    assert plan.residual == '("d.name" <> "name")'
    assert plan.is_left


def test_several_joins_go_one_after_the_other_and_may_use_the_one_before() -> None:
    first, second = lookups(
        f"SELECT id, d.name, CAST(w AS STRING) FROM src s JOIN dim {NOW} d ON d.k = s.twice"
        f" LEFT OUTER JOIN other FOR SYSTEM_TIME AS OF s.clock ON other.v = d.v AND w = 3"
    )
    assert not first._plan.is_left
    assert first._plan.added == (("name", "d.name"), ("v", "d.v"))
    assert second._plan.is_left
    assert [key.probe for key in second._plan.keys] == ['"d.v"', "3"]
    assert "d.v" in second._plan.carried


def test_one_table_under_two_names_is_loaded_once() -> None:
    first, second = lookups(
        f"SELECT id, a.v, b.v FROM src s JOIN dim {NOW} a ON s.k = a.k JOIN dim {NOW} b ON s.id = b.k"
    )
    assert first._cache is second._cache


def test_bare_key_is_that_of_the_probe_and_both_are_noted() -> None:
    pipeline = one(insert(f"SELECT id, k, v FROM src AS s JOIN dim {NOW} AS d ON s.k = d.k"))
    first, second = pipeline.notes
    assert first.endswith("column k without a table is taken from s: it is a key of the lookup join")
    assert second.endswith("column a of table dst is STRING, the SELECT gives INT: it is cast implicitly")
    assert pipeline.reads["a"] == {"k"}
    assert pipeline.reads["b"] == {"d.v"}


def test_star_is_every_table_s_columns() -> None:
    script = TABLES.replace(", twice AS k * 2, clock AS PROCTIME()", "") + (
        "CREATE TABLE all_ (a BIGINT, b STRING, c INT, d TIMESTAMP(3), e BIGINT, f STRING, g STRING, h DATE)"
        f" WITH ('connector' = 'blackhole');\nINSERT INTO all_ SELECT * FROM src JOIN dim {NOW} ON src.k = dim.k;"
        f"\nSET 'pipeline.name' = 'two';\nINSERT INTO all_ (e, f, g, h)"
        f" SELECT d.* FROM src JOIN dim {NOW} d ON src.k = d.k;"
    )
    whole, part = compiled(script)
    assert whole.reads["e"] == {"dim.k"}
    assert part.reads["h"] == {"d.day"}


def test_a_string_beside_a_date_is_read_as_a_date() -> None:
    (join,) = lookups(f"SELECT id, d.v, d.name FROM src s JOIN dim {NOW} d ON s.name = d.day")
    assert str(join._plan.keys[0].kind) == "date32[day]"


@pytest.mark.parametrize(
    "hint",
    ["SHUFFLE_HASH(d)", "BROADCAST(s, d)", "LOOKUP('table'='d', 'retry-predicate'='lookup_miss')", "STATE_TTL(d)"],
)
def test_hints_are_reported_as_without_effect(hint: str) -> None:
    pipeline = one(insert(f"SELECT /*+ {hint} */ id, s.name, d.v FROM src s JOIN dim {NOW} d ON s.k = d.k"))
    assert [report for report in pipeline.reports if "hint" in report] == [
        next(report for report in pipeline.reports if f"hint {hint} has no effect: " in report)
    ]


def test_the_joined_tables_are_part_of_what_a_pipeline_is() -> None:
    text = insert(f"SELECT id, s.name, d.v FROM src s JOIN dim {NOW} d ON s.k = d.k")
    pipeline = one(text)
    (lookup,) = pipeline.lookups
    assert (lookup.alias, lookup.connector, lookup.options.origin()) == ("d", "odps", ("maxcompute", "p", "t"))
    assert "hidden" not in str(lookup.options.shown())
    other = one(text.replace("'cache' = 'ALL'", "'cache' = 'ALL', 'cacheSize' = '7'", 1))
    assert other.fingerprint != pipeline.fingerprint


JOIN = f"SELECT id, s.name, v FROM src AS s JOIN dim {NOW} AS d ON"
ERRORS = {
    "a normal join": ("SELECT id, name, v FROM src §JOIN dim ON src.k = dim.k", f"write JOIN dim {NOW} AS d ON s.k = d.k"),
    "a comma": ("SELECT id, name, v FROM src§, dim", "joins are not supported: a pipeline has one source; write JOIN"),
    "a cross join": (f"SELECT id, name, v FROM src §CROSS JOIN dim {NOW}", "CROSS JOIN cannot look rows up; a lookup join is INNER or LEFT"),
    "a right join": (f"SELECT id, name, v FROM src §RIGHT JOIN dim {NOW} ON src.k = dim.k", "RIGHT JOIN cannot look rows up"),
    "a full join": (f"SELECT id, name, v FROM src §FULL OUTER JOIN dim {NOW} ON src.k = dim.k", "cannot look rows up"),
    "no condition": (f"SELECT id, src.name, v FROM src §JOIN dim {NOW} AS d", "a lookup join wants ON with an equality"),
    "using": (f"SELECT id, src.name, v FROM src JOIN dim {NOW} AS d USING (§k)", "write ON s.k = d.k"),
    "no equality": (f"{JOIN} §s.k > d.k", "ON wants an equality between a column of d and a value of the rows before it"),
    "an equality of one table": (f"{JOIN} §d.name = d.v", "ON wants an equality between a column of d"),
    "an equality under or": (f"{JOIN} §s.k = d.k OR s.id = 1", "ON wants an equality"),
    "types": (f"{JOIN} §s.k = d.v", "INT and STRING cannot be compared"),
    "a time of the record": ("SELECT id, s.name, v FROM src s JOIN dim FOR SYSTEM_TIME AS OF §s.at AS d ON s.k = d.k", "computed AS PROCTIME()"),
    "the clock selected": (f"SELECT id, CAST(§s.clock AS STRING), v FROM src AS s JOIN dim {NOW} AS d ON s.k = d.k", "PROCTIME() is refused"),
    "ambiguous": (f"SELECT id, §name, v FROM src AS s JOIN dim {NOW} AS d ON s.k = d.k", "column name is in several tables of this query; write s.name or d.name"),
    "unknown": (f"SELECT id, s.name, §w FROM src AS s JOIN dim {NOW} AS d ON s.k = d.k", "has no column w"),
    "unknown of the dimension": (f"SELECT id, s.name, d.§x FROM src AS s JOIN dim {NOW} AS d ON s.k = d.k", "table dim has no column x; known: k, name, v, day"),
    "another table": (f"SELECT id, s.name, §e.v FROM src AS s JOIN dim {NOW} AS d ON s.k = d.k", "e is neither a table of this query (s, d)"),
    "the table behind its alias": (f"SELECT id, s.name, §dim.v FROM src AS s JOIN dim {NOW} AS d ON s.k = d.k", "dim is neither a table"),
    "one alias twice": (f"SELECT id, s.name, v FROM src AS s JOIN §dim {NOW} AS s ON s.k = s.k", "two tables of this query are called s"),
    "star of another table": (f"SELECT §e.* FROM src AS s JOIN dim {NOW} AS d ON s.k = d.k", "e is no table of this query; known: s, d"),
    "no lookup ability": (f"SELECT id, s.name, v FROM src AS s JOIN §dst {NOW} AS d ON s.k = d.k", "has connector 'adbpg', which cannot be a dimension table of a lookup join; connectors that can: odps"),
    "undeclared": (f"SELECT id, s.name, v FROM src AS s JOIN §dime {NOW} AS d ON s.k = d.k", "table dime is not declared (did you mean 'dim'?)"),
    "unknown hint": (f"SELECT §/*+ SHUFLE_HASH(d) */ id, s.name, v FROM src AS s JOIN dim {NOW} AS d ON s.k = d.k", "hint SHUFLE_HASH is not known (did you mean 'SHUFFLE_HASH'?)"),
    "hint of no table": (f"SELECT §/*+ SHUFFLE_HASH(dim) */ id, s.name, v FROM src AS s JOIN dim {NOW} AS d ON s.k = d.k", "dim is no table of this query"),
    "hint that is none": (f"SELECT §/*+ quickly */ id, s.name, v FROM src AS s JOIN dim {NOW} AS d ON s.k = d.k", "want NAME(table, ...)"),
    "expression of the dimension": (f"{JOIN} §s.name = REGEXP_REPLACE(d.name, '(?=x)', '')", "this expression cannot be run"),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_error_names_its_place_and_its_reason(case: str) -> None:
    select, message = ERRORS[case]
    script, place = place_of_mark(insert(select))
    with pytest.raises(ConfigError) as caught:
        compiled(script)
    assert str(caught.value).startswith(f"cars.sql:{place}: "), f"wanted {place}, found {caught.value}"
    assert message in str(caught.value)


OPTIONS = {
    "no cache": (", 'cache' = 'ALL'", "", "option 'cache': is required: dimension tables require cache=ALL, explicitly declared"),
    "another cache": ("'ALL'", "'LRU'", "option 'cache': found 'LRU': dimension tables require cache=ALL"),
    "of a source": ("'cache'", "'startPartition' = 'ds=1', 'cache'", "connector odps as a dimension table: unknown option 'startPartition'"),
    "size": ("'cache'", "'cacheSize' = '0', 'cache'", "option 'cacheSize' has the value '0'"),
    "ttl": ("'cache'", "'cacheTTLMs' = '-1', 'cache'", "option 'cacheTTLMs' has the value '-1'"),
    "retries": ("'cache'", "'maxLoadRetries' = 'x', 'cache'", "option 'maxLoadRetries' has the value 'x'"),
    "black list": ("'cache'", "'cacheReloadTimeBlackList' = '14:00', 'cache'", "want '2017-10-24 14:00 -> 2017-10-24 15:00'"),
    "spill": ("'cache'", "'cache.spill' = 'yes', 'cache'", "want true or false"),
    "partition": ("'cache'", "'partition' = 'newest', 'cache'", "option 'partition' has the value 'newest'"),
    "computed column": ("day DATE", "day DATE, x AS k * 2", "column x is computed; a dimension table has physical columns only"),
}  # fmt: skip


@pytest.mark.parametrize("case", OPTIONS)
def test_wrong_option_of_a_dimension_table_names_its_place(case: str) -> None:
    before, after, message = OPTIONS[case]
    script = insert(f"{JOIN} s.k = d.k").replace(DIM, DIM.replace(before, after, 1))
    with pytest.raises(ConfigError) as caught:
        compiled(script)
    assert str(caught.value).startswith("cars.sql:")
    assert message in str(caught.value)
    assert "hidden" not in str(caught.value)


def changes(sink: str, key: str) -> str:
    return f"""CREATE TABLE src (id BIGINT, k BIGINT) {KAFKA.replace("'csv'", "'debezium-json'")};
{DIM}CREATE TABLE dst (id BIGINT, v STRING{sink}) WITH ('connector' = 'blackhole');
INSERT INTO dst SELECT {key}, v FROM src AS s JOIN dim {NOW} AS d ON s.k = d.k;
"""


def test_deletes_need_a_key_that_no_dimension_table_can_change() -> None:
    assert len(one(changes(", PRIMARY KEY (id) NOT ENFORCED", "id")).transforms) == 2
    with pytest.raises(
        ConfigError, match=r"table src gives updates and deletes, .* the sink table wants a PRIMARY KEY"
    ):
        compiled(changes("", "id"))
    with pytest.raises(ConfigError, match=r"key column id is made of d\.k"):
        compiled(changes(", PRIMARY KEY (id) NOT ENFORCED", "d.k"))
