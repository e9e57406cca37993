"""A psql script is cut where psql cuts it, and FastANN's index keeps its meaning in pgvector's words."""

import pytest

from vector_assets.engine.errors import ConfigError, Place
from vector_assets.sinks.adbpg_ann import to_hnsw
from vector_assets.sinks.adbpg_script import read_script, without_distribution

SCRIPT = r"""
-- a comment; with a semicolon
CREATE DATABASE "My Db";
\c "My Db"
CREATE FUNCTION f() RETURNS void AS $x$ BEGIN; END; $x$ LANGUAGE plpgsql; /* ; /* ; */ */
  SELECT 'a;\c b', E'it\'s;', "x;y";;
\connect other
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS "By C" ON ONLY "S".t (c)
"""


def test_statements_end_where_psql_ends_them():
    found = read_script(SCRIPT, "x.sql")
    assert [statement.place.line for statement in found] == [3, 4, 5, 6, 7, 8]
    assert found[0].database == "My Db"
    assert found[1].connect == "My Db"
    assert "BEGIN; END;" in found[2].text
    assert found[3].text.endswith('"x;y"')
    assert found[3].place.column == 3
    assert found[4].connect == "other"
    index = found[5].index
    assert index is not None
    assert (index.is_unique, index.if_not_exists, index.name, index.table) == (True, True, "By C", ("S", "t"))
    assert (index.written, index.rest, index.method) == ('"S".t', "(c)", "btree")


@pytest.mark.parametrize(
    ("text", "line"),
    [("SELECT 1\n\\c x\n", 2), ("SELECT 'open", 1), ("\\c", 1)],
    ids=["command inside", "open", "no name"],
)
def test_what_cannot_be_read_is_named_with_its_line(text, line):
    with pytest.raises(ConfigError) as error:
        read_script(text, "x.sql")
    assert error.value.place is not None
    assert error.value.place.line == line


DISTRIBUTED = {
    "by columns": ("CREATE TABLE t (a int) DISTRIBUTED BY (a, b)", "CREATE TABLE t (a int)", "DISTRIBUTED BY (a, b)"),
    "randomly": ("create table t as table u distributed randomly", "create table t as table u", "distributed randomly"),
    "replicated": ("CREATE TABLE t (a int) DISTRIBUTED REPLICATED", "CREATE TABLE t (a int)", "DISTRIBUTED REPLICATED"),
    "a column of that name": ('CREATE TABLE t (distributed int, "DISTRIBUTED" int)', None, None),
    "another statement": ("COMMENT ON TABLE t IS 'DISTRIBUTED BY (a)'", None, None),
}  # fmt: skip


@pytest.mark.parametrize(("text", "left", "clause"), DISTRIBUTED.values(), ids=DISTRIBUTED.keys())
def test_only_the_distribution_clause_is_cut_out(text, left, clause):
    assert without_distribution(text) == (left or text, clause)


def hnsw(options, column="v", tail=""):
    (statement,) = read_script(f"CREATE INDEX ON t USING ann({column}) WITH ({options}){tail}", "x.sql")
    assert statement.index is not None
    return to_hnsw(statement.index, Place("x.sql"))


TRANSLATED = {
    "the seed's": ("dim='10', pq_enable='0'", "USING hnsw ((v::vector(10)) vector_l2_ops)", 1),
    "inner product": ("dim=4,distancemeasure=IP", "USING hnsw ((v::vector(4)) vector_ip_ops)", 1),
    "cosine": ("DIM=4, DistanceMeasure='COSINE'", "USING hnsw ((v::vector(4)) vector_cosine_ops)", 1),
    "a long vector": ("dim=3000", "USING hnsw ((v::halfvec(3000)) halfvec_l2_ops)", 2),
    "both numbers": (
        "dim=4, hnsw_m=20, hnsw_ef_construction=100",
        "USING hnsw ((v::vector(4)) vector_l2_ops) WITH (m = 20, ef_construction = 100)", 1,
    ),
    "numbers beyond pgvector's": (
        "dim=4, hnsw_m=200, hnsw_ef_construction=2000",
        "USING hnsw ((v::vector(4)) vector_l2_ops) WITH (m = 100, ef_construction = 1000)", 3,
    ),
    "a number that needs the other": (
        "dim=4, hnsw_m=64", "USING hnsw ((v::vector(4)) vector_l2_ops) WITH (m = 64, ef_construction = 128)", 2,
    ),
    "what pgvector does not do": (
        "dim=4, pq_enable=1, pq_segments=2, external_storage=1", "USING hnsw ((v::vector(4)) vector_l2_ops)", 4,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("options", "wanted", "notes"), TRANSLATED.values(), ids=TRANSLATED.keys())
def test_an_ann_index_is_translated_option_by_option(options, wanted, notes):
    found = hnsw(options)
    assert found.rest == wanted
    assert len(found.notes) == notes, found.notes


def test_quoted_columns_and_what_follows_stay():
    assert (
        hnsw("dim=4", '"My V"', " WHERE id > 5").rest == 'USING hnsw (("My V"::vector(4)) vector_l2_ops) WHERE id > 5'
    )
