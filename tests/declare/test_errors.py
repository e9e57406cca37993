# ruff: noqa: E501
"""What is refused: the message, and the exact line and column, which the scripts mark with §."""

import pytest

from tests.declare.scripts import INSERT, SINK, SINK_OPTIONS, SOURCE, WORKING, compiled, place_of_mark
from vector_assets.declare import compile_script
from vector_assets.engine.errors import ConfigError

TABLES = SOURCE + SINK
OPTIONS = "WITH ('connector' = 'kafka')"


def create(columns: str, rest: str = OPTIONS) -> str:
    return f"CREATE TABLE t (\n  {columns}\n) {rest};\n"


def insert(select: str) -> str:
    return f"{TABLES}INSERT INTO dst\n  {select};\n"


def expression(text: str) -> str:
    return insert(f"SELECT id, name, {text} FROM src")


def where(text: str) -> str:
    return insert(f"SELECT id, name, price FROM src WHERE {text}")


CASES: dict[str, tuple[str, str]] = {
    # texts that are no statements
    "unclosed text": ("SET 'a' = §'b;\n", "the text that ' opens here is never closed"),
    "unclosed name": ("CREATE TABLE §`t (a INT)", "the text that ` opens here is never closed"),
    "unclosed comment": (f"{WORKING}§/* and so on\n{INSERT}", "this comment is never closed"),
    "hexadecimal": (insert("SELECT id, name, §x'4g' FROM src"), "these are no hexadecimal digits"),
    "block": ("§ELSE 1;", "ELSE is not supported; known statements"),
    "hint": (insert("SELECT §/*+ OPTIONS('a'='b') */ id FROM src"), "hint OPTIONS is not known; known: SHUFFLE_HASH"),
    "hint behind a table": (insert("SELECT id FROM src §/*+ OPTIONS('a'='b') */"), "hints"),
    "jinja comment": ("§{# CREATE TABLE t (a INT) #}", "{ is not supported"),
    "no statement": ("§", "no INSERT INTO"),
    "only comments": ("§-- nothing\n", "no INSERT INTO"),
    "only tables": (f"§{TABLES}", "no INSERT INTO: the script declares no pipeline"),
    "select": ("§SELECT 1;", "SELECT is not supported; known statements: CREATE TABLE, INSERT INTO ... SELECT, SET"),
    "drop": (f"{TABLES}\n  §DROP TABLE src;", "DROP is not supported"),
    "use": ("§USE CATALOG x;", "USE is not supported"),
    "reset": ("§RESET 'a';", "RESET is not supported"),
    "explain": ("§EXPLAIN INSERT INTO a SELECT 1 FROM b;", "EXPLAIN is not supported"),
    "call": ("§CALL x.y();", "CALL is not supported"),
    "create view": ("§CREATE VIEW v AS SELECT 1;", "CREATE VIEW is not supported; known statements"),
    "create temporary view": ("§CREATE TEMPORARY VIEW v AS SELECT 1;", "CREATE TEMPORARY VIEW is not supported"),
    "create catalog": ("§CREATE CATALOG c WITH ('a'='b');", "CREATE CATALOG is not supported"),
    "create function": ("§CREATE FUNCTION f AS 'a.b';", "CREATE FUNCTION is not supported"),
    "create or replace": ("§CREATE OR REPLACE TABLE t (a INT)", "CREATE OR is not supported"),
    "set that stays open": (f"{TABLES}§EXECUTE STATEMENT SET BEGIN {INSERT}", "this STATEMENT SET is never closed; write END;"),
    "set of nothing": ("§BEGIN STATEMENT SET; END;", "the STATEMENT SET holds no INSERT INTO"),
    "set in a set": (f"{TABLES}BEGIN STATEMENT SET; {INSERT}§EXECUTE STATEMENT SET BEGIN {INSERT}END;", "is open already"),
    "setting in a set": (f"{TABLES}BEGIN STATEMENT SET; §SET 'pipeline.name' = 'x'; {INSERT}END;", "SET is not supported in a STATEMENT SET"),
    "table in a set": (f"BEGIN STATEMENT SET; §{TABLES}{INSERT}END;", "CREATE is not supported in a STATEMENT SET"),
    "set without begin": (f"{TABLES}EXECUTE STATEMENT SET §{INSERT}END;", "expected BEGIN after EXECUTE STATEMENT SET"),
    "set without a semicolon": (f"{TABLES}BEGIN STATEMENT SET §{INSERT}END;", "expected ; after BEGIN STATEMENT SET"),
    "end of no set": (f"{TABLES}{INSERT}§END;", "END is not supported; known statements"),
    "one sink twice in a set": (f"{TABLES}BEGIN STATEMENT SET; {INSERT}§{INSERT}END;", "name cars_dst is taken by the INSERT INTO at cars.sql:23:22"),
    "undeclared sink unlike any": (f"{SOURCE}{SINK}INSERT INTO §Destination SELECT id, name, price FROM src", "Destination is not declared; the nearest declared table is dst; declared: src, dst"),
    "undeclared sink without a declared one": (f"{SOURCE}INSERT INTO §sink SELECT id FROM src", "sink is not declared; the nearest declared table is src"),
    "undeclared source unlike any": (f"{TABLES}INSERT INTO dst SELECT id FROM §Cars", "table Cars is not declared; the nearest declared table is src"),
    "nesting": (f"{TABLES}§INSERT INTO dst SELECT {'(' * 3000}1{')' * 3000} FROM src", "nested too deeply"),
    "long chain": (f"{TABLES}§INSERT INTO dst SELECT 1{'+1' * 5000}, name, 1 FROM src", "nested too deeply"),
    # CREATE TABLE
    "unknown type": (create("a §TEXT"), "type TEXT is not supported; known types: BOOLEAN"),
    "quoted type": (create("a §`INT`"), "expected a type; found 'INT'"),
    "no type": (create("a§,b INT").replace("§,", " §,"), "expected a type; found ','"),
    "length of INT": (create("a §INT(3)"), "type INT takes no length or precision"),
    "length in words": (create("a VARCHAR(§max)"), "expected )"),
    "decimal of three": (create("a §DECIMAL(1, 2, 3)"), "takes one or two numbers"),
    "precision": (create("a §DECIMAL(39, 2)"), "wanted 1 to 38"),
    "scale": (create("a §DECIMAL(3, 4)"), "found scale 4"),
    "nanoseconds": (create("a §TIME(9)"), "type TIME(9) is not supported"),
    "picoseconds": (create("a §TIMESTAMP(12)"), "wanted 0 to 9"),
    "zone": (create("a TIMESTAMP(3) §WITH TIME ZONE"), "use TIMESTAMP(p) WITH LOCAL TIME ZONE"),
    "array of nothing": (create("a ARRAY §b"), "expected ARRAY<...>"),
    "array of two": (create("a §ARRAY<INT, INT>"), "ARRAY takes 1 type(s)"),
    "map of one": (create("a §MAP<INT>"), "MAP takes 2 type(s)"),
    "row with twins": (create("a §ROW<x INT, X INT>"), "two fields of the ROW have one name"),
    "no comma": (create("a INT\n  §b INT"), "expected ); found 'b'"),
    "trailing comma": ("CREATE TABLE t (a INT,§) " + OPTIONS, "expected a column's name; found ')'"),
    "column twice": (create("a INT,\n  b INT,\n  §a STRING"), "column a is declared twice"),
    "column twice in another case": (create("a INT,\n  §A STRING"), "declared twice as a"),
    "hidden name": (create("§_position INT"), "choose another"),
    "unique": (create("a INT §UNIQUE"), "expected ); found 'UNIQUE'"),
    "check": (create("a INT, CONSTRAINT c §CHECK (a > 1)"), "PRIMARY KEY is the only constraint"),
    "enforced key": (create("a INT,\n  §PRIMARY KEY (a)"), "PRIMARY KEY must be NOT ENFORCED"),
    "enforced column key": (create("a INT §PRIMARY KEY"), "PRIMARY KEY must be NOT ENFORCED"),
    "unknown key": (create("id INT, PRIMARY KEY (§idd) NOT ENFORCED"), "no column idd (did you mean 'id'?); known: id"),
    "two keys": (create("a INT PRIMARY KEY NOT ENFORCED, §PRIMARY KEY (a) NOT ENFORCED"), "given twice"),
    "computed key": (create("a INT, b AS a, PRIMARY KEY (§b) NOT ENFORCED"), "column b is computed"),
    "watermark of nothing": (create("a INT, WATERMARK FOR §b AS b"), "WATERMARK: no column b"),
    "watermark of a number": (create("a INT, WATERMARK FOR §a AS a"), "column a is INT, want a TIMESTAMP"),
    "watermark with another type": (create("a TIMESTAMP(3), WATERMARK FOR a AS §1"), "want a TIMESTAMP, found INT"),
    "two watermarks": (
        create("a TIMESTAMP(3), WATERMARK FOR a AS a, §WATERMARK FOR a AS a"),
        "WATERMARK is given twice",
    ),
    "computed from a typo": (create("price INT, b AS §prize * 2"), "no column prize (did you mean 'price'?)"),
    "computed from computed": (create("a INT, b AS a, c AS §b"), "table t has no column b; known: a"),
    "computed by the clock": (create("a INT, b AS CAST(§PROCTIME() AS STRING)"), "PROCTIME() is refused: it has another value in every"),
    "computed by a bad pattern": (create("a STRING, b AS §REGEXP(a, '(?=x)')"), "invalid perl operator"),
    "computed interval": (create("a INT, b AS §INTERVAL '1' DAY"), "INTERVAL is no type of a column"),
    "computed and typed": (create("a INT, b INT §AS a"), "expected ); found 'AS'"),
    "metadata from a name": (create("a INT METADATA FROM §b"), "expected the metadata's key in single quotes"),
    "partitioned by nothing": (create("a INT", f"PARTITIONED BY (§b) {OPTIONS}"), "PARTITIONED BY: no column b"),
    "partitioned twice": (create("a INT", f"PARTITIONED BY (a, §a) {OPTIONS}"), "column a is named twice"),
    "like": (create("a INT", "§LIKE other"), "LIKE is not supported in CREATE TABLE"),
    "as select": (create("a INT", f"{OPTIONS} §AS SELECT 1"), "the statement should end here; found 'AS'"),
    "no columns": (f"CREATE TABLE t §{OPTIONS};", "expected the columns of the table"),
    "no options": ("CREATE TABLE t (a INT§)", "expected WITH; the statement ends after ')'"),
    "path": ("CREATE TABLE §db.t (a INT) " + OPTIONS, "name the table with one word"),
    "name in quotes": ("CREATE TABLE §'t' (a INT) " + OPTIONS, "expected the table's name; found 't'"),
    "table twice": (f"{TABLES}CREATE TABLE §src (a INT) {OPTIONS};\n{INSERT}", "src is declared twice, first at cars.sql:1:14"),
    # options
    "option without quotes": (create("a INT", "WITH (§connector = 'kafka')"), "an option's name in single quotes"),
    "value without quotes": (create("a INT", "WITH ('connector' = §kafka)"), "the value of 'connector' in single quotes"),
    "option twice": (create("a INT", "WITH ('connector' = 'kafka', §'connector' = 'x')"), "given twice"),
    "trailing comma of options": (create("a INT", "WITH ('connector' = 'kafka',§)"), "expected an option's name"),
    "no connector": (create("a INT", "WITH ('topic' = 'x')").replace("TABLE t", "TABLE §t"), "'connector' is required"),
    "unknown connector": (
        create("a INT", "WITH ('connector' = §'kafak')"),
        "unknown connector 'kafak' (did you mean 'kafka'?); known: adbpg, ",
    ),
    "unknown option": (
        WORKING.replace("'topic' = 'cars'", "'topic' = 'cars',\n  §'topics' = 'x'"),
        "connector kafka: unknown option 'topics' (did you mean 'topic'?); known options:",
    ),
    "unknown option of the format": (
        WORKING.replace("'format' = 'csv'", "'format' = 'csv', §'csv.field-delimeter' = ','"),
        "format csv: unknown option 'csv.field-delimeter' (did you mean 'csv.field-delimiter'?)",
    ),
    "option of another format": (
        WORKING.replace("'format' = 'csv'", "'format' = 'csv', §'json.ignore-parse-errors' = 'true'"),
        "connector kafka: unknown option 'json.ignore-parse-errors'",
    ),
    "unknown format": (WORKING.replace("'csv'", "§'cvs'"), "unknown format 'cvs' (did you mean 'csv'?); known: "),
    "bad value": (
        WORKING.replace("'tablename'", "§'batchsize' = 'many', 'tablename'"),
        "connector adbpg: option 'batchsize' has the value 'many', which is refused",
    ),
    "missing option": (
        WORKING.replace("  'tablename' = 'cars',\n", "").replace("'connector' = 'adbpg'", "§'connector' = 'adbpg'"),
        "connector adbpg: option 'tablename' is required",
    ),
    "no format": (
        WORKING.replace("  'format' = 'csv',\n", "").replace("'connector' = 'kafka'", "§'connector' = 'kafka'"),
        "option 'format' is required",
    ),
    "placeholder": (
        WORKING.replace("'topic' = 'cars'", "'topic' = 'the-§<your_topic>-x'"),
        "placeholder <your_topic> is left over: write the value, or ${secret_values.your_topic}",
    ),
    "placeholders": (
        WORKING.replace("'cars'", "'§<your topic>'", 1).replace("'pw'", "'<pw>'"),
        "placeholder <your topic> is left over (and <pw>)",
    ),
    "secret that is not set": (
        WORKING.replace("'pw'", "'it''s §${secret_values.adbpg_password}'"),
        "option 'password': secret 'adbpg_password' is not set",
    ),
    "other variable": (WORKING.replace("'pw'", "'§${password}'"), "${password} is not known; want ${secret_values"),
    "metadata column that nobody knows": (
        WORKING.replace("  name STRING,", "  name STRING,\n  §ts TIMESTAMP_LTZ(3) METADATA FROM 'timestmp',", 1),
        "unknown METADATA key 'timestmp' (did you mean 'timestamp'?); known: topic, partition, headers, leader-epoch,",
    ),
    "metadata column of another type": (
        WORKING.replace("  name STRING,", "  name STRING,\n  §h INT METADATA FROM 'headers',", 1),
        "column h is INT; METADATA key 'headers' is MAP<STRING NOT NULL, BYTES> NOT NULL",
    ),
    "computed column of a sink": (
        f"{SOURCE}CREATE TABLE dst (id BIGINT, name STRING, §price AS 1) WITH {SINK_OPTIONS};\n{INSERT}",
        "table dst: column price is computed; a sink table has physical columns only",
    ),
    # SET
    "set without quotes": ("SET §pipeline.name = 'x';", "expected a setting's name in single quotes; found 'pipeline'"),
    "set without a value": ("SET §'pipeline.name';", "expected =; the statement ends after 'pipeline.name'"),
    "unknown setting": (f"SET §'pipeline.nam' = 'x';\n{WORKING}", "unknown setting 'pipeline.nam' (did you mean 'pipeline.name'?)"),
    "bad setting": (f"SET 'pipeline.name' = §'no-name';\n{WORKING}", "option 'pipeline.name' has the value 'no-name'"),
    "bad size": (f"SET 'vector-assets.memory' = §'lots';\n{WORKING}", "want a size such as '64 MB'"),
    "bad mode": (f"SET 'execution.runtime-mode' = §'turbo';\n{WORKING}", "want one of STREAMING, BATCH, AUTOMATIC"),
    "bad interval": (f"SET 'execution.checkpointing.interval' = §'soon';\n{WORKING}", "want a duration"),
    "bad parallelism": (f"SET 'parallelism.default' = §'0';\n{WORKING}", "want a whole number from 1"),
    "other zone": (f"SET 'table.local-time-zone' = §'Asia/Shanghai';\n{WORKING}", "only UTC is supported"),
    "set at the end": (f"{WORKING}SET §'vector-assets.linger' = '1s';\n", "has no effect: no INSERT INTO follows it"),
    # INSERT
    "undeclared sink": (f"{TABLES}INSERT INTO §dts SELECT id, name, price FROM src;", "dts is not declared (did you mean 'dst'?)"),
    "undeclared source": (insert("SELECT 1 FROM §scr"), "table scr is not declared (did you mean 'src'?); declared: src, dst"),
    "no tables": ("INSERT INTO §a SELECT 1 FROM b", "table a is not declared; declared: none"),
    "declared below": (f"{SOURCE}INSERT INTO §dst SELECT id, name, price FROM src;\n{SINK}", "is declared only at cars.sql:17:14"),
    "source as sink": (f"{TABLES}INSERT INTO §src SELECT id FROM dst;", "connector 'kafka', which cannot be a sink; connectors that can: adbpg"),
    "sink as source": (f"{TABLES}INSERT INTO dst SELECT id, name, price FROM §dst;", "cannot be a source; connectors that can: datagen"),
    "overwrite": (f"{TABLES}INSERT §OVERWRITE dst SELECT 1 FROM src", "INSERT OVERWRITE is not supported"),
    "into partition": (f"{TABLES}INSERT INTO dst §PARTITION (a='b') SELECT 1 FROM src", "PARTITION is not supported"),
    "values": (f"{TABLES}INSERT INTO dst §VALUES (1, 'a', 2)", "a pipeline reads from a source table"),
    "no query": (f"{TABLES}INSERT INTO §dst", "expected SELECT; the statement ends after 'dst'"),
    "too many": (insert("SELECT id, name, price,\n   §weight, cost FROM src"), "fills 3 columns (id, name, price), the SELECT gives 5"),
    "too few": (insert("§SELECT id, name FROM src"), "fills 3 columns (id, name, price), the SELECT gives 2"),
    "star of too many": (insert("SELECT §* FROM src"), "the SELECT gives 7"),
    "unknown target column": (f"{TABLES}INSERT INTO dst (id, §nam) SELECT id, name FROM src", "no column nam (did you mean 'name'?)"),
    "target column twice": (f"{TABLES}INSERT INTO dst (id, §id) SELECT id, id FROM src", "column id is named twice"),
    "target column left out": (f"{TABLES}INSERT INTO dst (§name) SELECT name FROM src", "column id of table dst is NOT NULL"),
    "null for not null": (insert("SELECT §NULL, name, price FROM src"), "column id of table dst is NOT NULL"),
    "text for a number": (insert("SELECT id, name, §name FROM src"), "column price of table dst is INT, the SELECT gives column name, STRING; write CAST(... AS INT)"),
    "wide for narrow": (insert("SELECT id, name, §id FROM src"), "is INT, the SELECT gives column id, BIGINT; write CAST"),
    "fraction for a number": (insert("SELECT id, name, §weight * 2 FROM src"), "is INT, the SELECT gives DOUBLE"),
    "fraction for a text": (insert("SELECT id, §weight AS name, price FROM src"), "is STRING, the SELECT gives column weight, DOUBLE"),
    "array for a text": (insert("SELECT id, §tags, price FROM src"), "the SELECT gives column tags, ARRAY<STRING>"),
    "interval": (expression("§INTERVAL '1' DAY"), "the SELECT gives INTERVAL"),
    # clauses
    "no from": (insert("§SELECT 1, 'a', 2"), "SELECT without FROM is not supported"),
    "order by": (insert("SELECT id, name, price FROM src\n  §ORDER BY id"), "ORDER BY is not supported: a stream has no end"),
    "limit": (insert("SELECT id, name, price FROM src §LIMIT 10"), "LIMIT is not supported"),
    "fetch": (insert("SELECT id, name, price FROM src §FETCH FIRST 3 ROWS ONLY"), "LIMIT is not supported"),
    "offset": (insert("SELECT id, name, price FROM src §OFFSET 3"), "OFFSET is not supported"),
    "distinct": (insert("SELECT §DISTINCT id, name, price FROM src"), "SELECT DISTINCT is not supported"),
    "having": (
        insert("SELECT §id, name, price FROM src HAVING price > 1"),
        "id is neither in GROUP BY nor inside an aggregate; group keys: none; known: COUNT, SUM",
    ),
    "join": (insert("SELECT id, name, price FROM src §JOIN dst ON src.id = dst.id"), "a pipeline has one source"),
    "left join": (insert("SELECT id, name, price FROM src §LEFT JOIN dst ON src.id = dst.id"), "joins are not supported"),
    "comma join": (insert("SELECT id, name, price FROM src§, dst"), "joins are not supported"),
    "unnest": (insert("SELECT id, t, price FROM src §CROSS JOIN UNNEST(tags) AS u (t)"), "joins are not supported"),
    "version": (insert("SELECT id, name, price FROM §src FOR SYSTEM_TIME AS OF at"), "FOR SYSTEM_TIME AS OF is not supported"),
    "union": (insert("SELECT id, name, price FROM src\n  §UNION ALL SELECT id, name, price FROM src"), "UNION is not supported"),
    "except": (insert("SELECT id, name, price FROM src §EXCEPT SELECT id, name, price FROM src"), "EXCEPT is not supported"),
    "with": (insert("§WITH x AS (SELECT 1 FROM src) SELECT id, name, price FROM x"), "WITH (common table expressions)"),
    "subquery": (insert("SELECT id, name, price FROM §(SELECT * FROM src)"), "subqueries are not supported"),
    "table function": (insert("SELECT id, name, price FROM §TABLE(TUMBLE(TABLE src, 1))"), "FROM TABLE(...)"),
    "path of a source": (insert("SELECT id, name, price FROM §db.src"), "name the table with one word"),
    "nothing to select": (insert("SELECT §FROM src"), "expected an expression after SELECT; found 'FROM'"),
    "comma before from": (insert("SELECT id, §FROM src"), "something is missing after the comma"),
    "star except": (insert("SELECT §* EXCEPT (id) FROM src"), "* takes no EXCEPT"),
    "star of another table": (insert("SELECT §dst.* FROM src"), "dst is not the source of this query, which is src"),
    "rest": (insert("SELECT id, name, price FROM src s §x"), "the statement should end here; found 'x'"),
    # expressions
    "unknown column": (expression("§prize"), "table src has no column prize (did you mean 'price'?); known: id, name"),
    "column in another case": (expression("§PRICE"), "table src has no column PRICE (did you mean 'price'?)"),
    "other table's column": (expression("§dst.price"), "dst is neither the source (src) nor one of its columns"),
    "the table behind its alias": (insert("SELECT id, name, §src.price FROM src AS s"), "src is neither the source (s)"),
    "unknown column of the table": (expression("src.§prize"), "table src has no column prize"),
    "unknown function": (expression("§UPER(name)"), "function UPER is not supported (did you mean 'UPPER'?)"),
    "function of DuckDB": (expression("§list_sort(tags)"), "function LIST_SORT is not supported"),
    "aggregate in where": (
        insert("SELECT id, name, price FROM src WHERE §SUM(price) > 1"),
        "aggregate function SUM is not supported here: an aggregate may stand in the SELECT list and in HAVING",
    ),
    "over": (expression("§ROW_NUMBER() OVER (PARTITION BY id ORDER BY price)"), "window functions (OVER)"),
    "now": (expression("CHAR_LENGTH(CAST(§NOW() AS STRING))"), "NOW() is refused"),
    "current time": (where("at < §CURRENT_TIMESTAMP"), "CURRENT_TIMESTAMP is refused"),
    "local time": (where("at < §LOCALTIMESTAMP"), "LOCALTIMESTAMP is refused"),
    "current date": (where("at < §CURRENT_DATE"), "CURRENT_DATE is refused"),
    "uuid": (insert("SELECT id, §UUID(), price FROM src"), "UUID() is refused"),
    "rand": (where("§RAND() > 0.5"), "RAND() is refused"),
    "unix time of now": (insert("SELECT §UNIX_TIMESTAMP(), name, price FROM src"), "UNIX_TIMESTAMP() is refused"),
    "arguments": (expression("§CHAR_LENGTH(name, 2)"), "CHAR_LENGTH takes 1 argument(s), found 2"),
    "argument type": (insert("SELECT id, UPPER(§price), price FROM src"), "UPPER wants a string, found INT; use CAST"),
    "sum of texts": (expression("§name + 1"), "+ wants numbers, found STRING"),
    "concat of numbers": (insert("SELECT id, name || §price, price FROM src"), "|| wants strings, found INT; use CAST"),
    "comparison": (where("§name = 1"), "STRING and INT cannot be compared; use CAST"),
    "in": (where("§name IN ('a', 1)"), "cannot be compared"),
    "condition": (where("§price"), "want a condition (BOOLEAN), found INT"),
    "and": (where("price > 1 AND §price"), "want a condition (BOOLEAN), found INT"),
    "case": (expression("CASE WHEN price > 1 THEN §price ELSE name END"), "have nothing in common; use CAST"),
    "scalar subquery": (expression("§(SELECT 1 FROM src)"), "subqueries are not supported"),
    "exists": (where("§EXISTS (SELECT 1 FROM src)"), "subqueries are not supported"),
    "in a subquery": (where("§price IN (SELECT 1 FROM src)"), "subqueries are not supported"),
    "impossible cast": (expression("§CAST(at AS INT)"), "CAST from TIMESTAMP(3) to INT is not supported"),
    "cast to nothing": (expression("CAST(price AS §)"), "expected a type; found ')'"),
    "cast without as": (expression("CAST(price §INT)"), "expected AS; found 'INT'"),
    "decimal division": (expression("CAST(§cost / 2 AS INT)"), "DECIMAL division is not supported; CAST one side"),
    "pattern": (insert("SELECT id, DATE_FORMAT(at, §'yyyy-ww'), price FROM src"), "'ww' is not supported; known: yyyy"),
    "dynamic pattern": (insert("SELECT id, DATE_FORMAT(at, §name), price FROM src"), "date pattern in single quotes"),
    "regular expression": (where("§REGEXP(name, '(?=x)')"), "this expression cannot be run: invalid perl operator"),
    "index zero": (insert("SELECT id, tags[§0], price FROM src"), "counted from 1"),
    "type before a text": (expression("MAP §'a'"), "the statement should end here; found 'a'"),
    "double quotes": (expression('§"price"'), "quote names with backticks"),
    "postgres cast": (expression("price§::BIGINT"), "the statement should end here; found ':'"),
    "double equals": (where("price =§= 1"), "an expression is missing; found '='"),
    "missing operand": (insert("SELECT id, name, price + §FROM src"), "an expression is missing; found 'FROM'"),
    "missing parenthesis": (insert("SELECT id, name, (price + 1 §FROM src"), "expected ); found 'FROM'"),
    "where without a condition": (insert("SELECT id, name, price FROM src §WHERE"), "an expression is missing"),
    # several pipelines
    "one name twice": (f"{WORKING}§{INSERT}", "name cars is taken by the INSERT INTO at cars.sql:23:1; SET 'pipeline.name'"),
    "one target twice": (
        f"{WORKING}SET 'pipeline.name' = 'other';\n§{INSERT}",
        "target adbpg://127.0.0.1:5432/test/public.cars is taken by the INSERT INTO at cars.sql:23:1",
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
    assert "sqlglot" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_script_that_every_case_breaks_is_right() -> None:
    assert len(compiled(WORKING)) == 1


def test_file_whose_name_is_no_identifier_has_to_set_the_pipeline_s_name() -> None:
    with pytest.raises(ConfigError, match=r"^2-cars.v1.sql:23:1: .*SET 'pipeline.name' = '...'"):
        compiled(WORKING, "2-cars.v1.sql")
    assert compiled(f"SET 'pipeline.name' = 'cars';\n{WORKING}", "2-cars.v1.sql")[0].name == "cars"


def test_value_of_a_secret_is_in_no_message() -> None:
    script = WORKING.replace("'tablename'", "'batchsize' = '${secret_values.pw}', 'tablename'")
    with pytest.raises(ConfigError) as caught:
        compile_script(script, "cars.sql", secrets=lambda _: "hunter2hunter2")
    assert "hunter2" not in str(caught.value)
    assert "'${secret_values.pw}'" in str(caught.value)
