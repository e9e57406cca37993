"""GROUP BY in scripts: types as Flink's, what is refused and where, what sinks and sources it fits."""

import pyarrow as pa
import pytest

from tests.declare.scripts import SINK, SOURCE, compiled, one, place_of_mark
from tests.declare.seeds import seed, statements
from vector_assets.engine.core import Target
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.keyed_state import says_before

PRINT = "CREATE TABLE dst ({}) WITH ('connector' = 'print');\n"
UPSERT = SINK.replace("price INT)", "price INT, PRIMARY KEY (id) NOT ENFORCED)").replace(
    "'connector' = 'adbpg',", "'connector' = 'adbpg', 'conflictmode' = 'upsert',"
)


def script(select: str, columns: str = "name STRING, n BIGINT") -> str:
    return f"{SOURCE}{PRINT.format(columns)}INSERT INTO dst {select};\n"


@pytest.mark.parametrize(
    ("aggregate", "kind"),
    [
        ("COUNT(*)", "BIGINT"),
        ("COUNT(DISTINCT name)", "BIGINT"),
        ("SUM(CAST(price AS TINYINT))", "TINYINT"),
        ("SUM(price)", "INT"),
        ("SUM(id)", "BIGINT"),
        ("SUM(CAST(weight AS FLOAT))", "FLOAT"),
        ("SUM(weight)", "DOUBLE"),
        ("SUM(cost)", "DECIMAL(38, 2)"),
        ("AVG(CAST(price AS SMALLINT))", "SMALLINT"),
        ("AVG(price)", "INT"),
        ("AVG(weight)", "DOUBLE"),
        ("AVG(cost)", "DECIMAL(38, 6)"),
        ("AVG(CAST(cost AS DECIMAL(20, 9)))", "DECIMAL(38, 9)"),
        ("MIN(at)", "TIMESTAMP(3)"),
        ("MAX(name)", "STRING"),
        ("MIN(cost)", "DECIMAL(10, 2)"),
        ("MAX(CAST(at AS DATE))", "DATE"),
        ("MIN(price > 1)", "BOOLEAN"),
    ],
)
def test_an_aggregate_has_the_type_that_flink_gives_it(aggregate, kind):
    """An ARRAY takes no other type, and its error says the type."""
    with pytest.raises(ConfigError) as refused:
        one(script(f"SELECT name, {aggregate} FROM src GROUP BY name", "name STRING, x ARRAY<INT>"))
    assert f"is ARRAY<INT>, the SELECT gives {kind}" in str(refused.value)
    pipeline = one(script(f"SELECT name, {aggregate} FROM src GROUP BY name", f"name STRING, x {kind}"))
    rows = (
        pa.schema(list(pipeline.source_table.schema)).empty_table().append_column("_position", pa.array([], pa.int64()))
    )
    partial = pipeline.aggregation.partial(pipeline.transforms[0].apply(rows).rows)
    assert partial.num_rows == 0


ERRORS = {
    "neither": ("SELECT §name, COUNT(*) FROM src GROUP BY id", "name is neither in GROUP BY nor inside an aggregate"),
    "star": ("SELECT §*, COUNT(*) FROM src GROUP BY id", "* is neither in GROUP BY nor inside an aggregate"),
    "having column": ("SELECT name, COUNT(*) FROM src GROUP BY name HAVING §id > 1", "id is neither in GROUP BY"),
    "unknown column": ("SELECT name, COUNT(§nam) FROM src GROUP BY name", "has no column nam (did you mean 'name'?)"),
    "nested": ("SELECT name, COUNT(§SUM(id)) FROM src GROUP BY name", "not inside another one, in WHERE or GROUP BY"),
    "unknown aggregate": ("SELECT name, §STDDEV(id) FROM src GROUP BY name", "STDDEV is not supported; known: COUNT"),
    "without group by": ("SELECT §LISTAGG(name), 1 FROM src", "LISTAGG is not supported; known: COUNT"),
    "sum distinct": ("SELECT name, §SUM(DISTINCT id) FROM src GROUP BY name", "SUM(DISTINCT ...) is not supported"),
    "two distinct": ("SELECT name, §COUNT(DISTINCT id, price) FROM src GROUP BY name", "of several values is not"),
    "two arguments": ("SELECT name, §COUNT(id, price) FROM src GROUP BY name", "COUNT takes 1 argument, found 2"),
    "sum of text": ("SELECT name, SUM(§name) FROM src GROUP BY name", "SUM wants a number, found STRING; use CAST"),
    "max of array": ("SELECT name, MAX(§tags) FROM src GROUP BY name", "MAX wants a number, a text, a BOOLEAN or a"),
    "sum of star": ("SELECT name, §SUM(*) FROM src GROUP BY name", "SUM takes a value, found *"),
    "null": ("SELECT name, §COUNT(NULL) FROM src GROUP BY name", "COUNT wants a value of a known type, found NULL"),
    "over": ("SELECT name, §COUNT(*) OVER (PARTITION BY id) FROM src GROUP BY name", "OVER is not supported"),
    "sets": ("SELECT name, COUNT(*) FROM src GROUP BY GROUPING SETS (§(name), (id))", "GROUPING SETS is not supported"),
    "rollup": ("SELECT name, COUNT(*) FROM src GROUP BY ROLLUP (§name)", "ROLLUP is not supported in GROUP BY"),
    "tumble": (
        "SELECT name, COUNT(*) FROM src GROUP BY name, §TUMBLE(at, INTERVAL '1' MINUTE)",
        "TUMBLE is not supported: windows are not; group by a part of the time instead",
    ),
    "number": ("SELECT name, COUNT(*) FROM src GROUP BY §1", "columns of the SELECT are not known by their number"),
    "array key": ("SELECT 'x', COUNT(*) FROM src GROUP BY §tags", "wants a value that can be compared, found ARRAY"),
    "volatile": ("SELECT name, COUNT(§RAND()) FROM src GROUP BY name", "RAND() is refused: it has another value in"),
    "count of columns": ("SELECT name, COUNT(*), §SUM(id) FROM src GROUP BY name", "fills 2 columns"),
    "type": ("SELECT name, §MAX(name) FROM src GROUP BY name", "column n of table dst is BIGINT, the SELECT gives STR"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_is_refused_is_named_with_its_place(case):
    select, message = ERRORS[case]
    text, place = place_of_mark(script(select))
    with pytest.raises(ConfigError) as caught:
        compiled(text)
    assert str(caught.value).startswith(f"cars.sql:{place}: "), caught.value
    assert message in str(caught.value)


def test_a_sink_that_takes_inserts_only_is_refused_with_the_way_out():
    text = f"{SOURCE}{SINK}INSERT INTO dst SELECT id, MAX(name), SUM(price) FROM src GROUP BY id;"
    with pytest.raises(ConfigError, match=r"table dst: a GROUP BY gives updates .* set 'conflictmode' to 'update' or"):
        compiled(text)


def test_an_upsert_sink_takes_groups_and_is_not_told_what_they_were():
    pipeline = one(f"{SOURCE}{UPSERT}INSERT INTO dst SELECT id, MAX(name), SUM(price) FROM src GROUP BY id;")
    assert pipeline.aggregation.keys == {"id": frozenset({"id"})}
    sink = pipeline.open_sink()
    assert not says_before(pipeline, sink, Target("t", ("id",), {}, "1", "exactly-once"))
    assert says_before(pipeline, sink, Target("t", ("id", "price"), {}, "1", "exactly-once"))


def test_a_group_key_outside_of_the_sink_s_key_is_refused():
    text = f"{SOURCE}{UPSERT}INSERT INTO dst SELECT id, name, SUM(price) FROM src GROUP BY id, §name;"
    text, place = place_of_mark(text)
    with pytest.raises(
        ConfigError, match=r"group key name is in no column of the PRIMARY KEY \(id\) of table dst"
    ) as e:
        compiled(text)
    assert f"cars.sql:{place}" in str(e.value)


@pytest.mark.parametrize("format", ["changelog-json", "debezium-json", "canal-json", "maxwell-json"])
def test_a_source_that_takes_records_back_is_refused(format):
    source = SOURCE.replace("'format' = 'csv'", f"'format' = '{format}'")
    text = f"{source}{PRINT.format('id BIGINT, n BIGINT')}INSERT INTO dst SELECT id, COUNT(*) FROM src §GROUP BY id;"
    text, place = place_of_mark(text)
    with pytest.raises(ConfigError, match="it gives updates and deletes, and a group only adds records up") as caught:
        compiled(text)
    assert f"cars.sql:{place}: GROUP BY over table src (format {format})" in str(caught.value)


def test_the_plan_says_the_query_in_the_script_s_words():
    pipeline = one(
        script("SELECT UPPER(s.name), COUNT(*) + 1 FROM src s WHERE id > 1 GROUP BY UPPER(name) HAVING COUNT(*) > 2")
    )
    assert pipeline.transform_text == (
        'SELECT UPPER(name) AS "name", (COUNT(*) + CAST(1 AS BIGINT)) AS "n" FROM source WHERE ("id" > 1)'
        " GROUP BY UPPER(name) HAVING (COUNT(*) > 2)"
    )


def test_another_select_list_or_having_leaves_the_groups_what_they_mean():
    first = one(script("SELECT name, COUNT(*) FROM src GROUP BY name"))
    assert one(
        script("SELECT name, COUNT(*) * 2 FROM src GROUP BY name HAVING COUNT(*) > 3")
    ).aggregation.signature == (first.aggregation.signature)
    for other in (
        "SELECT name, COUNT(id) FROM src GROUP BY name",
        "SELECT name, COUNT(*) FROM src WHERE id > 1 GROUP BY name",
    ):
        assert one(script(other)).aggregation.signature != first.aggregation.signature
    assert one(script(other)).fingerprint != first.fingerprint


@pytest.mark.parametrize("number", [0, 1], ids=["full", "incremental"])
def test_the_group_by_of_the_seed_compiles_as_written_over_another_source(number):
    """The statement is the seed's; the table that it reads has the same columns and another connector."""
    found = statements(seed(3))
    insert = [text for text in found if "COUNT(*)" in text][number]
    sink = next(text for text in found if "blackhole_sink" in text and text.startswith("CREATE"))
    source = SOURCE.replace("TABLE src", "TABLE odps_source").replace("name STRING", "cid STRING")
    pipeline = one(f"{source}{sink}\n{insert}")
    assert pipeline.aggregation.keys == {"cid": frozenset({"cid"})}
