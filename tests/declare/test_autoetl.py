"""The CALL's grammar: in a file, at the place that is wrong, and in the client, with the same words."""

import re
from pathlib import Path

import pymysql
import pytest

from vector_assets.clients.mysql import Login, MySql
from vector_assets.clients.mysql_etl import install, rows
from vector_assets.clients.mysql_etl_sql import MOST_MESSAGE
from vector_assets.declare.autoetl import compile_autoetl
from vector_assets.declare.autoetl_map import MapError, parse
from vector_assets.engine.errors import ConfigError

GOOD = ["search", "i.body(d.a.s),i.id(d.a.id)", "i.id=d.a.id", "", ""]
"""`d`, the database, is replaced where a server is asked."""

WRONG = {
    "another target": ({0: "olap"}, 'argument 1: want "search", found "olap"'),
    "fourth": ({3: "id > 1"}, "argument 4 has to be empty: nothing is known that it could say"),
    "fifth": ({4: "x"}, "argument 5 has to be empty: nothing is known that it could say"),
    "no fields": ({1: ""}, "argument 2, item 1: want index.field(database.table.column), found nothing"),
    "no key": ({2: " "}, "argument 3, item 1: want index.field=database.table.column, found nothing"),
    "no column": ({1: "i.body(d.a)"}, "argument 2, item 1: want index.field(database.table.column), found i.body(d.a)"),
    "a quote": ({1: "i.body(d.`a`.s)"}, "want index.field(database.table.column), found i.body(d.`a`.s)"),
    "a comma too many": ({1: "i.body(d.a.s),"}, "argument 2, item 2: want index.field(database.table.column), found"),
    "a key with brackets": ({2: "i.id(d.a.id)"}, "argument 3, item 1: want index.field=database.table.column, found"),
    "two indices": ({1: "i.body(d.a.s),j.id(d.a.id)"}, "argument 2, item 2: index j; item 1 of argument 2 has i"),
    "another index": ({2: "j.id=d.a.id"}, "argument 3, item 1: index j; item 1 of argument 2 has i"),
    "two databases": ({2: "i.id=e.a.id"}, "argument 3, item 1: database e; item 1 of argument 2 has d"),
    "a field twice": ({1: "i.body(d.a.s),i.body(d.a.id)"}, "argument 2, item 2: field body is filled twice"),
    "a table that is not joined": (
        {1: "i.body(d.b.n)"},
        "argument 2, item 1: argument 3 does not say by what d.b is joined",
    ),
    "a key from elsewhere": (
        {1: "i.body(d.a.s), i.id(d.a.s)"},
        "argument 2, item 2: field id is the key, which argument 3 takes from d.a.id",
    ),
    "a key twice": (
        {1: "i.body(d.a.s)", 2: "i.id=d.a.id,i.id=d.a.s"},
        "argument 3, item 2: d.a has a column for id already",
    ),
    "a key of its own": (
        {2: "i.id=d.a.id,i.no=d.b.a_id"},
        "argument 3, item 2: field no is no key of d.a, the first table",
    ),
    **{
        f"an index {name}": (
            {1: f"{name}.body(d.a.s)", 2: f"{name}.id=d.a.id"},
            f"argument 2, item 1: index {name}: want a lower-case name",
        )
        for name in ("_i", "-i", "+i", "I", "i*", "i?", "i|j", "i:j", "i/j", "i\\j", "i#", "i<j>")
    },
    "half a key": (
        {2: "i.id=d.a.id,i.no=d.a.s,i.id=d.b.a_id"},
        "argument 3: d.b has no column for no",
    ),
}
WRONG_ON_THE_SERVER = {
    "no such table": ({1: "i.body(d.c.s)", 2: "i.id=d.c.id"}, "argument 2, item 1: there is no table d.c"),
    "no such column": ({1: "i.body(d.a.x)"}, "argument 2, item 1: d.a has no column x"),
    "no unique key": (
        {1: "i.id(d.a.s)", 2: "i.id=d.a.s"},
        "argument 3: d.a has no unique key on s: several rows would be one document",
    ),
    "a key that may be NULL": (
        {1: "i.id(d.b.a_id)", 2: "i.id=d.b.a_id"},
        "argument 3: d.b.a_id may be NULL, which makes no _id",
    ),
}


def changed(changes: dict[int, str], database: str = "d") -> list[str]:
    found = [changes.get(number, argument) for number, argument in enumerate(GOOD)]
    return [text.replace("d.", f"{database}.") for text in found]


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_argument_is_named_by_number_and_item(name):
    changes, message = WRONG[name]
    with pytest.raises(MapError) as error:
        parse(changed(changes))
    assert message in error.value.message


def test_several_tables_and_several_keys_are_a_map():
    found = parse(["search", "i.a(d.t.a), i.b(d.u.b)", "i.x=d.t.x,i.y=d.t.y,\n i.y = d.u.q,i.x=d.u.p", "", ""])
    assert (found.index, found.database, found.driving, found.tables) == ("i", "d", "t", ("t", "u"))
    assert [each.column for each in found.keys_of("u")] == ["p", "q"]
    assert [each.field for each in found.columns] == ["a", "b", "x", "y"]


@pytest.fixture
def server(mysql):
    """A server with `dbms_etl`, and the tables of GOOD in the test's database."""
    found = MySql(Login("127.0.0.1", mysql.service.port, mysql.service.user, mysql.service.password))
    mysql.sql("CREATE TABLE a (id INT PRIMARY KEY, s VARCHAR(50))")
    mysql.sql("CREATE TABLE b (a_id INT UNIQUE, n INT)")
    install(found)
    yield found
    mysql.sql("DROP DATABASE dbms_etl")
    found.close()


def call(mysql, arguments) -> list[tuple[object, ...]]:
    return mysql.sql(f"CALL dbms_etl.sync_by_map({', '.join(mysql.connection.escape(each) for each in arguments)})")


def said_in_file(arguments: list[str]) -> str | None:
    """What the file's parser says, as long as a client shows it; None when it says nothing."""
    try:
        parse(arguments)
    except MapError as error:
        return error.message[:MOST_MESSAGE]
    return None


@pytest.mark.service
def test_the_client_refuses_what_the_file_refuses_in_the_same_words(mysql, server):
    for name, (changes, message) in {**WRONG, **WRONG_ON_THE_SERVER}.items():
        arguments = changed(changes, mysql.database)
        with pytest.raises(pymysql.MySQLError) as refused:
            call(mysql, arguments)
        said = refused.value.args[1]
        assert message.replace("d.", f"{mysql.database}.").replace("has d", f"has {mysql.database}") in said, name
        assert said == (said_in_file(arguments) or said), name
        assert (said_in_file(arguments) is None) == (name in WRONG_ON_THE_SERVER)
    assert rows(server) == []


@pytest.mark.service
def test_a_link_is_asked_for_shown_paused_resumed_and_dropped_in_the_client(mysql, server):
    arguments = changed({}, mysql.database)
    ((number, link, state),) = call(mysql, arguments)
    assert (link, state) == ("i", "RUNNING")
    with pytest.raises(pymysql.MySQLError, match=r"index i has a link already; CALL dbms_etl\.drop_sync_link\('i'\)"):
        call(mysql, arguments)
    for verb, expected in (("pause", "PAUSED"), ("resume", "RUNNING"), ("drop", "DROPPED")):
        mysql.sql(f"CALL dbms_etl.{verb}_sync_link('i')")
        (row,) = rows(server)
        assert (row["id"], row["state"], row["fields"]) == (number, expected, arguments[1])
    with pytest.raises(pymysql.MySQLError, match=r"there is no link of index i; CALL dbms_etl\.show_sync_link\(\)"):
        mysql.sql("CALL dbms_etl.pause_sync_link('i')")
    assert mysql.sql("CALL dbms_etl.show_sync_link()") == []
    assert call(mysql, arguments)[0][0] > number


@pytest.mark.service
def test_texts_between_double_quotes_are_names_under_ansi_quotes(mysql, server):
    quoted = ", ".join(f'"{each}"' for each in changed({}, mysql.database))
    with mysql.connect(sql_mode="ANSI_QUOTES") as connection, connection.cursor() as cursor:
        with pytest.raises(pymysql.MySQLError, match="search"):
            cursor.execute(f"CALL dbms_etl.sync_by_map({quoted})")
        cursor.execute(f"CALL dbms_etl.sync_by_map({quoted})".replace('"', "'"))
    assert len(rows(server)) == 1


SETTINGS = """
SET 'mysql.hostname' = '127.0.0.1'; SET 'mysql.username' = 'u'; SET 'mysql.password' = '${secret_values.no_such}';
SET 'search.hosts' = 'http://127.0.0.1:9200';
"""
CALL = "CALL dbms_etl.sync_by_map(\"search\",\n  'i.body(d.a.s),i.id(d.a.id)',\n  \"i.id=d.a.id\", '', '');"


JOINED = CALL.replace('"i.id=d.a.id"', '"i.id=d.a.id,i.id=d.b.a_id"')


def compiled(text: str):
    return compile_autoetl(text, "links.sql", offline=True)


def test_a_script_is_a_pipeline_whose_documents_are_rows():
    (pipeline,) = compiled(SETTINGS + CALL)
    assert (pipeline.name, pipeline.target) == ("i", "opensearch://127.0.0.1:9200/i")
    assert [column.name for column in pipeline.sink_table.columns] == ["body", "id"]
    assert pipeline.sink_table.primary_key == ("id",)
    assert pipeline.source_options.shown()["password"] == "**********"
    assert pipeline.transform_text == 'SELECT "a"."s" AS "body", "a"."id" AS "id" FROM "a"'


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        (SETTINGS + CALL.replace("d.a.s)", "d.a)"), "5:4", "argument 2, item 1: want index.field"),
        (SETTINGS + CALL.replace(",i.id(", ",i.id["), "5:18", "argument 2, item 2: want index.field"),
        (SETTINGS + CALL.replace("'', '')", "'', 'x')"), "6:23", "argument 5 has to be empty"),
        (SETTINGS + CALL.replace("'', '')", "'')"), "6:19", "sync_by_map has 5 arguments, found 4"),
        (SETTINGS + CALL.replace("'', '')", "'' '')"), "6:21", "argument 4: want a comma here"),
        (SETTINGS + CALL.replace("by_map", "by_table"), "4:6", "want CALL dbms_etl.sync_by_map"),
        (SETTINGS + "SELECT 1;" + CALL, "4:1", "SELECT beside CALL dbms_etl.sync_by_map"),
        (SETTINGS + "SET 'mysql.hostnam' = 'x';" + CALL, "4:23", "unknown option 'hostnam' (did you mean"),
        (SETTINGS + "SET 'mysql.port' = 'x';" + CALL, "4:20", "option 'port' has the value 'x'"),
        (SETTINGS + "SET 'mysql.table-name' = 'x';" + CALL, "4:26", "SET 'mysql.table-name': the CALL says it"),
        (SETTINGS + "SET 'search.index' = 'x';" + CALL, "4:22", "SET 'search.index': the CALL says it"),
        (SETTINGS + "SET 'sarch.hosts' = 'x';" + CALL, "4:5", "unknown setting 'sarch.hosts'"),
        (SETTINGS + CALL + "SET 'search.refresh' = 'true';", "6:30", "has no effect: no CALL follows it"),
        (SETTINGS + CALL + CALL, "6:26", "pipeline name i is taken by links.sql:4:1"),
        (SETTINGS + "SET 'embedding.url' = 'x';" + CALL, "4:5", "with 'embedding.mode' = 'server'"),
        (SETTINGS + "SET 'embedding.mode' = 'client';" + CALL, "4:33", "needs SET 'embedding.field-map'"),
        (SETTINGS.replace("'u'", "''") + CALL, "2:60", "option 'username'"),
        (SETTINGS + "SET 'mysql.server-id' = '5400';" + JOINED, "4:25", "2 tables have a reader each: want a range"),
        (SETTINGS + CALL.replace("i.", "I."), "5:4", "index I: want a lower-case name"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_script_is_said_with_its_place(text, place, message):
    with pytest.raises(ConfigError) as error:
        compiled(text)
    assert str(error.value).startswith(f"links.sql:{place}: "), str(error.value)
    assert message in str(error.value)


def test_the_scripts_of_the_docs_compile():
    text = (Path(__file__).parents[2] / "docs" / "autoetl.md").read_text()
    scripts = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
    found = [compiled(script) for script in scripts]
    assert [[pipeline.name for pipeline in each] for each in found] == [["articles"], ["notes"]]
    assert found[0][0].link == "shop.article, shop.rating"
    assert found[1][0].embedding is not None
