"""The external database of Paimon tables is held to the requirements of seed 004, in the values that stand there."""

import re

import pytest

from tests.declare.seeds import seed
from vector_assets.engine.errors import ConfigError, PlanError
from vector_assets.sinks import paimon_database
from vector_assets.sinks.paimon_database import check, is_database_script, note, noted, read_database, unmet


@pytest.fixture
def requirements() -> str:
    """The seed's list."""
    text = seed(4)
    return text[text.index("PAIMON database requirements") : text.index("Synchronization settings")]


@pytest.fixture
def warehouse(tmp_path):
    """The seed's warehouse and its database's directory, in a folder of the test's own."""
    (tmp_path / "aps" / "data" / "kafka_paimon_external_db.db").mkdir(parents=True)
    return str(tmp_path / "aps" / "data")


@pytest.fixture
def statement(requirements, warehouse) -> str:
    """The DDL that the list describes, with the seed's own examples of the values."""
    head = re.search(r"CREATE EXTERNAL DATABASE", requirements)[0]
    catalog = re.search(r"catalog = paimon", requirements)[0]
    there = re.search(r"adb\.paimon\.warehouse=(\S+?)\.?\s", requirements)
    location = re.search(r"LOCATION=(\S+?)\.\s", requirements)
    assert location[1].startswith(f"{there[1]}/")
    properties = ", ".join([catalog, there[0].strip(" .\n"), location[0].strip(" .")])
    text = f"{head} kafka_paimon_external_db WITH DBPROPERTIES ({properties});"
    return text.replace(there[1], warehouse)


def test_the_seed_s_database_meets_its_own_requirements(statement, warehouse):
    database = read_database(statement, "db.sql")
    assert database.location == f"{warehouse}/kafka_paimon_external_db.db"
    assert database.warehouse == warehouse
    assert unmet(database) == ()
    check(database)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ((r"EXTERNAL ", ""), "must be an external database"),
        ((r"catalog = paimon, ", ""), "must include catalog = paimon, found none"),
        ((r"catalog = paimon", "catalog = iceberg"), "must include catalog = paimon, found iceberg"),
        ((r"adb\.paimon\.warehouse=\S+, ", ""), "must include adb.paimon.warehouse"),
        ((r", LOCATION=\S+\)", ")"), "must include LOCATION"),
        ((r"_db\.db/", "_db/"), "must have .db after the database's name"),
        ((r"DATABASE kafka_paimon_external_db", "DATABASE other"), "must end in /other.db/"),
        ((r"LOCATION=(\S+)/aps/data", r"LOCATION=\1/elsewhere"), "must lie in the warehouse"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_requirement_that_is_not_met_is_said(statement, change, said):
    changed = re.sub(change[0], change[1], statement)
    assert changed != statement
    with pytest.raises(PlanError) as caught:
        check(read_database(changed, "db.sql"))
    assert said in str(caught.value)
    assert "db.sql:1" in str(caught.value)


def test_a_directory_that_is_missing_is_said_and_not_made(statement, warehouse, tmp_path):
    (tmp_path / "aps" / "data" / "kafka_paimon_external_db.db").rmdir()
    (line,) = unmet(read_database(statement, "db.sql"))
    assert "kafka_paimon_external_db.db/ does not exist" in line
    assert list((tmp_path / "aps" / "data").iterdir()) == []


def test_the_check_asks_an_object_store(statement, s3):
    folder = s3.folder()
    store = ", ".join(f"'{name}' = '{text}'" for name, text in s3.options().items())
    located = re.sub(r"=(/\S+?/aps/data)", f"={folder}", statement).replace(");", f", {store});")
    database = read_database(located, "db.sql")
    assert "does not exist" in unmet(database)[0]
    paimon_database.storage_of(database).make()
    assert unmet(database) == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("CREATE EXTERNAL DATABASE x WITH DBPROPERTIES (catalog = paimon, colour = red)", "unknown property 'colour'"),
        ("CREATE EXTERNAL DATABASE x WITH DBPROPERTIES (catalog = paimon, catalog = paimon)", "said twice"),
        ("CREATE EXTERNAL DATABASE x WITH DBPROPERTIES (catalog paimon)", "cannot read 'catalog paimon'"),
        ("CREATE EXTERNAL DATABASE x; DROP TABLE y", "want one statement"),
    ],
    ids=str,
)
def test_a_statement_that_cannot_be_read_is_refused_at_its_place(text, said):
    with pytest.raises(ConfigError, match=said) as caught:
        read_database(f"\n{text}", "db.sql")
    assert caught.value.place.line == 2


def test_quotes_and_comments_are_read():
    database = read_database(
        "-- ours\nCREATE EXTERNAL DATABASE IF NOT EXISTS `x` WITH DBPROPERTIES (\n  'catalog' = 'paimon', -- what\n"
        '  "adb.paimon.warehouse" = "/w",\n  location = \'/w/x.db/\'\n);\n',
        "db.sql",
    )
    assert (database.name, database.warehouse, database.location) == ("x", "/w", "/w/x.db")


def test_other_scripts_are_not_taken_for_a_database():
    assert not is_database_script("CREATE DATABASE adbpg_test;\n\\c adbpg_test\nCREATE TABLE t (id int);")
    assert is_database_script("CREATE DATABASE x WITH DBPROPERTIES (catalog = paimon)")


def test_a_noted_database_is_found_again_and_not_replaced(statement, tmp_path, monkeypatch):
    monkeypatch.setenv("VECTOR_ASSETS_HOME", str(tmp_path / "home"))
    database = read_database(statement, "db.sql")
    assert noted(database.name) is None
    assert note(database)
    assert not note(database)
    assert noted(database.name).location == database.location
    other = read_database(statement.replace("aps/data", "aps/date"), "db.sql")
    with pytest.raises(ConfigError, match="exists with other properties"):
        note(other)
