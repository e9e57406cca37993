"""Columns of source tables change under a Flink CDC pipeline: through projections, into MaxCompute."""

import pytest

from tests.e2e.cdc_world import World, block, cdc_world, maxcompute_sink
from vector_assets.engine.errors import FatalError

__all__ = ["cdc_world"]
pytestmark = pytest.mark.service


def columns(server, table: str) -> list[tuple[str, str]]:
    """Names and types of a table."""
    return [(each.name, str(each.type).lower()) for each in server.odps.get_table(table).table_schema.columns]


def shop(world: World, server, behavior: str | None, *more: str) -> str:
    """A table with two rows, landed; its name."""
    name = server.fresh_name("follow")
    world.mysql.sql(f"CREATE TABLE {name} (id INT PRIMARY KEY, v INT, s VARCHAR(9))")
    world.mysql.sql(f"INSERT INTO {name} VALUES (1, 1, 'a'), (2, 2, 'b')")
    settings = [block("pipeline", {"schema.change.behavior": behavior})] if behavior else []
    world.write(world.source(), maxcompute_sink(server), *settings, *more)
    assert world.run() == 2
    return name


def test_a_new_column_goes_through_a_projection_into_the_table(cdc_world, maxcompute):
    rule = ["transform:", r"  - source-table: \.*.\.*", r"    projection: \*, v * 2 AS twice, __table_name__ AS origin"]
    name = shop(cdc_world, maxcompute, None, *rule)
    cdc_world.mysql.sql(f"ALTER TABLE {name} ADD COLUMN at TIME AFTER id, ADD COLUMN n CHAR(3)")
    cdc_world.mysql.sql(f"INSERT INTO {name} VALUES (3, '-25:00:01', 3, 'c', 'xyz')")
    cdc_world.mysql.sql(f"UPDATE {name} SET n = 'q' WHERE id = 1")
    assert cdc_world.run() == 2
    found = columns(maxcompute, name)
    assert sorted(found) == sorted(
        [("id", "int"), ("v", "int"), ("s", "string"), ("twice", "int"), ("origin", "string"), ("at", "string"),
         ("n", "string")]
    )  # fmt: skip
    rows = maxcompute.rows(f"SELECT id, v, s, twice, origin, at, n FROM {name} ORDER BY id")
    assert rows == [
        [1, 1, "a", 2, name, None, "q"], [2, 2, "b", 4, name, None, None], [3, 3, "c", 6, name, "-25:00:01", "xyz"],
    ]  # fmt: skip


def test_lenient_is_the_default_and_loses_nothing(cdc_world, maxcompute):
    name = shop(cdc_world, maxcompute, None)
    cdc_world.mysql.sql(f"ALTER TABLE {name} DROP COLUMN s, CHANGE v w BIGINT")
    cdc_world.mysql.sql(f"INSERT INTO {name} VALUES (3, 5000000000)")
    cdc_world.run()
    assert maxcompute.rows(f"SELECT id, v, s, w FROM {name} ORDER BY id") == [
        [1, 1, "a", None], [2, 2, "b", None], [3, None, None, 5000000000],
    ]  # fmt: skip


def test_evolve_drops_and_renames_as_was_done_to_the_table(cdc_world, maxcompute):
    name = shop(cdc_world, maxcompute, "evolve")
    cdc_world.mysql.sql(f"ALTER TABLE {name} DROP COLUMN s")
    cdc_world.mysql.sql(f"ALTER TABLE {name} RENAME COLUMN v TO w")
    cdc_world.mysql.sql(f"INSERT INTO {name} VALUES (3, 3)")
    cdc_world.run()
    assert columns(maxcompute, name) == [("id", "int"), ("w", "int")]
    assert maxcompute.rows(f"SELECT id, w FROM {name} ORDER BY id") == [[1, 1], [2, 2], [3, 3]]


def test_exception_stops_and_ignore_goes_on_with_the_columns_there_were(cdc_world, maxcompute):
    name = shop(cdc_world, maxcompute, "ignore")
    cdc_world.mysql.sql(f"ALTER TABLE {name} ADD COLUMN n INT, DROP COLUMN s")
    cdc_world.mysql.sql(f"INSERT INTO {name} VALUES (3, 3, 9)")
    cdc_world.run()
    assert maxcompute.rows(f"SELECT * FROM {name} ORDER BY id") == [[1, 1, "a"], [2, 2, "b"], [3, 3, None]]
    cdc_world.file.write_text(cdc_world.file.read_text().replace("ignore", "exception"))
    cdc_world.mysql.sql(f"ALTER TABLE {name} ADD COLUMN m INT")
    cdc_world.mysql.sql(f"INSERT INTO {name} VALUES (4, 4, 9, 9)")
    with pytest.raises(FatalError, match=r"schema\.change\.behavior is exception"):
        cdc_world.run()


def test_tables_with_other_columns_share_a_target_that_has_all_of_them(cdc_world, maxcompute):
    world, target = cdc_world, maxcompute.fresh_name("union")
    world.mysql.sql("CREATE TABLE o1 (id INT PRIMARY KEY, a INT)")
    world.mysql.sql("CREATE TABLE o2 (id INT PRIMARY KEY, b VARCHAR(5), a BIGINT)")
    world.mysql.sql("INSERT INTO o1 VALUES (1, 1)")
    world.mysql.sql("INSERT INTO o2 VALUES (2, 'x', 5000000000)")
    world.write(
        world.source(), maxcompute_sink(maxcompute), "route:", rf"  - source-table: {world.mysql.database}.o\.*",
        f"    sink-table: {target}",
    )  # fmt: skip
    assert world.run() == 2
    world.mysql.sql("ALTER TABLE o1 ADD COLUMN c INT")
    world.mysql.sql("INSERT INTO o1 VALUES (3, 3, 3)")
    world.run()
    assert maxcompute.rows(f"SELECT id, a, b, c FROM {target} ORDER BY id") == [
        [1, 1, None, None], [2, 5000000000, "x", None], [3, 3, None, 3],
    ]  # fmt: skip
