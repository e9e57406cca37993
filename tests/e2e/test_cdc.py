"""Flink CDC YAML over real services: MariaDB into MaxCompute Delta tables, and into the other sinks."""

import json
import re
import textwrap

import pytest
from typer.testing import CliRunner

from tests.declare.seeds import seed
from tests.e2e.cdc_world import World, block, cdc_world, maxcompute_sink, reconciled
from vector_assets.cli import app
from vector_assets.engine.errors import ConfigError, PlanError
from vector_assets.engine.session import Books

__all__ = ["cdc_world"]
pytestmark = pytest.mark.service


def shop(world: World, prefix: str) -> tuple[str, str]:
    """Two tables with rows; their names."""
    orders, people = f"{prefix}_orders", f"{prefix}_people"
    world.mysql.sql(f"CREATE TABLE {orders} (id BIGINT PRIMARY KEY, who VARCHAR(20), amount DECIMAL(10, 2))")
    world.mysql.sql(f"INSERT INTO {orders} VALUES (%s, %s, %s)", *[(n, f"p{n % 3}", n) for n in range(20)])
    world.mysql.sql(f"CREATE TABLE {people} (name CHAR(10) PRIMARY KEY, born DATE) COMMENT 'who buys'")
    world.mysql.sql(f"INSERT INTO {people} VALUES ('p0', '2000-01-01'), ('p1', NULL), ('p2', '1999-12-31')")
    return orders, people


def test_tables_of_a_database_become_delta_tables_that_follow(cdc_world, maxcompute):
    orders, people = shop(cdc_world, maxcompute.fresh_name("all"))
    cdc_world.write(cdc_world.source(), maxcompute_sink(maxcompute))
    assert set(cdc_world.pipelines()) == {orders, people}
    assert cdc_world.run() == 23
    cdc_world.mysql.sql(f"UPDATE {orders} SET amount = 99 WHERE id < 3")
    cdc_world.mysql.sql(f"DELETE FROM {orders} WHERE id > 15")
    cdc_world.mysql.sql(f"UPDATE {people} SET name = 'p9' WHERE name = 'p0'")
    assert cdc_world.run() == 9
    found = {(row[0], row[1], int(row[2])) for row in maxcompute.rows(f"SELECT id, who, amount FROM {orders}")}
    assert found == {(n, f"p{n % 3}", 99 if n < 3 else n) for n in range(16)}
    assert {row[0] for row in maxcompute.rows(f"SELECT name FROM {people}")} == {"p9", "p1", "p2"}
    table = maxcompute.odps.get_table(orders)
    table.reload_extend_info()
    assert table.is_transactional
    assert list(table.primary_key) == ["id"]
    assert str({**table.reserved, **(table.table_properties or {})}.get("write.bucket.num")) == "4"
    assert cdc_world.run() == 0


def test_a_delta_table_is_compared_with_what_should_be_there_after_deletes(cdc_world, maxcompute):
    table = maxcompute.fresh_name("compared")
    cdc_world.fill(table)
    cdc_world.write(cdc_world.source(), maxcompute_sink(maxcompute))
    cdc_world.check_that_it_lands_and_follows(table)


def test_column_types_are_those_of_the_seed(cdc_world, maxcompute):
    name = maxcompute.fresh_name("types")
    cdc_world.mysql.sql(
        f"CREATE TABLE {name} (id INT PRIMARY KEY, c CHAR(5), v VARCHAR(7), b BOOLEAN, bi BINARY(3), vb VARBINARY(9),"
        " de DECIMAL(12, 3), ti TINYINT, si SMALLINT, i INT, l BIGINT, f FLOAT, d DOUBLE, t TIME, da DATE,"
        " ts DATETIME, ts6 DATETIME(6), l3 TIMESTAMP(3) NULL, l6 TIMESTAMP(6) NULL)"
    )
    cdc_world.mysql.sql(
        f"INSERT INTO {name} VALUES (1, 'c', 'v', 1, 'abc', 'de', 1.5, -1, -2, -3, -4, 0.5, 0.25, '-12:30:00',"
        " '2026-02-03', '2026-02-03 04:05:06', '2026-02-03 04:05:06.123456', '2026-02-03 04:05:06.123',"
        " '2026-02-03 04:05:06.123456')"
    )
    cdc_world.write(cdc_world.source(), maxcompute_sink(maxcompute))
    assert cdc_world.run() == 1
    found = {column.name: str(column.type).upper() for column in maxcompute.odps.get_table(name).table_schema.columns}
    wanted = seed_types()
    assert found == {
        "id": wanted["INTEGER"], "c": wanted["CHAR"], "v": wanted["VARCHAR"], "b": wanted["BOOLEAN"],
        "bi": wanted["BINARY/VARBINARY"], "vb": wanted["BINARY/VARBINARY"], "de": f"{wanted['DECIMAL']}(12,3)",
        "ti": wanted["TINYINT"], "si": wanted["SMALLINT"], "i": wanted["INTEGER"], "l": wanted["BIGINT"],
        "f": wanted["FLOAT"], "d": wanted["DOUBLE"], "t": wanted["TIME_WITHOUT_TIME_ZONE"], "da": wanted["DATE"],
        "ts": wanted["TIMESTAMP_WITHOUT_TIME_ZONE"], "ts6": wanted["TIMESTAMP_WITHOUT_TIME_ZONE"],
        "l3": wanted["TIMESTAMP_WITH_LOCAL_TIME_ZONE (precision <= 3)"],
        "l6": wanted["TIMESTAMP_WITH_LOCAL_TIME_ZONE (precision > 3)"],
    }  # fmt: skip
    (row,) = maxcompute.rows(f"SELECT t, ts, ts6 FROM {name}")
    assert (row[0], str(row[1])[:19], str(row[2])) == ("-12:30:00", "2026-02-03 04:05:06", "2026-02-03 04:05:06.123456")


def test_times_beyond_those_of_nanoseconds_are_dead_letters_until_they_are_cast_to_a_datetime(cdc_world, maxcompute):
    world, name = cdc_world, maxcompute.fresh_name("ends")
    world.mysql.sql(f"CREATE TABLE {name} (id INT PRIMARY KEY, ends DATETIME(6), day DATE, l3 TIMESTAMP(3) NULL)")
    world.mysql.sql(
        f"INSERT INTO {name} VALUES (1, '2026-01-01', '9999-12-31', NULL), (2, '9999-12-31 23:59:59.999', NULL, NULL)"
    )
    sink = maxcompute_sink(maxcompute)
    world.write(world.source(), sink)
    assert world.run() == 1
    (pipeline,) = world.pipelines().values()
    books = Books.open()
    try:
        ((reason, count),) = dict(books.ledger.dead_letters.reasons(pipeline.name)).items()
    finally:
        books.close()
    assert (count, "ends" in reason, "1677 to 2262" in reason, "DATETIME holds it" in reason) == (1, True, True, True)
    assert [str(row[0]) for row in maxcompute.rows(f"SELECT day FROM {name}")] == ["9999-12-31"]
    maxcompute.sql(f"DROP TABLE {name}")
    cast = ["transform:", rf"  - source-table: \.*.{name}",
            r"    projection: id, CAST(ends AS TIMESTAMP_LTZ(3)) AS ends, day"]  # fmt: skip
    world.write(world.source(), sink, *cast, block("pipeline", {"name": "cast"}))
    assert world.run() == 2
    assert str(maxcompute.odps.get_table(name).table_schema["ends"].type).upper() == "DATETIME"
    found = [str(row[0]) for row in maxcompute.rows(f"SELECT ends FROM {name} ORDER BY id")]
    assert [text[:23] for text in found] == ["2026-01-01 00:00:00", "9999-12-31 23:59:59.999"]
    world.mysql.sql(f"UPDATE {name} SET ends = '0001-01-01 00:00:00' WHERE id = 1")
    assert world.run() == 1


UNSIGNED = (0, 2**63 - 1, 2**63, 2**64 - 1)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("BIGINT UNSIGNED", [str(value) for value in UNSIGNED]),
        ("DECIMAL(12, 3)", ["-1.5", "0", "999999999.999", "2.125"]),
        ("TIMESTAMP(6)", [f"'2026-01-0{day} 01:02:03.45678{day}'" for day in range(1, 5)]),
        ("TIMESTAMP", [f"'2026-01-0{day} 01:02:03'" for day in range(1, 5)]),
        ("DATETIME(3)", [f"'2026-01-0{day} 01:02:03.456'" for day in range(1, 5)]),
        ("DATE", [f"'2026-01-0{day}'" for day in range(1, 5)]),
        ("TIME(2)", [f"'-0{hour}:00:00.25'" for hour in range(1, 5)]),
        ("YEAR", ["1999", "2000", "2001", "2155"]),
        ("BINARY(4)", ["'abcd'", "x'00ff0102'", "x'ffffffff'", "x'00000000'"]),
        ("ENUM('a', 'b', 'c', 'd')", ["'a'", "'b'", "'c'", "'d'"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_keys_of_all_these_types_are_keys_of_a_delta_table(cdc_world, maxcompute, key, values):
    world, name = cdc_world, maxcompute.fresh_name("keys")
    world.mysql.sql(f"CREATE TABLE {name} (k {key} NOT NULL, part INT, v INT, PRIMARY KEY (k, part))")
    has_order = not key.startswith(("ENUM", "TIME("))
    more = {} if has_order else {"scan.startup.mode": "latest-offset"}
    world.write(world.source(**more), maxcompute_sink(maxcompute, **{"buckets-num": "3"}))
    if not has_order:
        assert world.run() == 0
    for value in values:
        world.mysql.sql(f"INSERT INTO {name} VALUES ({value}, 1, 1), ({value}, 2, 1)")
    assert world.run() == 8
    world.mysql.sql(f"UPDATE {name} SET v = 7 WHERE k = {values[-1]}")
    world.mysql.sql(f"DELETE FROM {name} WHERE k = {values[0]} AND part = 1")
    world.run()
    assert sorted(maxcompute.rows(f"SELECT part, v FROM {name}")) == sorted(
        [[1, 1], [1, 1], [1, 7], [2, 1], [2, 1], [2, 1], [2, 7]]
    )
    (pipeline,) = world.pipelines().values()
    found = reconciled(pipeline)
    assert (found.is_right(), found.target_rows) == (True, 7), found.findings
    if key == "BIGINT UNSIGNED":
        found = {int(row[0]) for row in maxcompute.rows(f"SELECT k FROM {name}")}
        assert found == set(UNSIGNED)


def test_several_tables_of_uneven_databases_go_into_one_by_a_route(cdc_world, maxcompute):
    world, target = cdc_world, maxcompute.fresh_name("merged")
    other = f"{world.mysql.database}_b"
    world.mysql.sql(f"CREATE DATABASE {other}")
    for database, table in ((world.mysql.database, "shard_1"), (other, "shard_2")):
        world.mysql.sql(f"CREATE TABLE {database}.{table} (id INT PRIMARY KEY, price INT NOT NULL)")
        world.mysql.sql(
            f"INSERT INTO {database}.{table} VALUES (%s, 5)", *[(int(table[-1]) * 10 + n,) for n in range(3)]
        )
    # it matches both expressions that name the two, and is routed elsewhere
    world.mysql.sql(f"CREATE TABLE {other}.shard_1 (id INT PRIMARY KEY, price INT NOT NULL)")
    world.mysql.sql(f"INSERT INTO {other}.shard_1 VALUES (77, 1)")
    world.write(
        world.source(rf"{world.mysql.database}(_b)?.\.*", **{"tables.exclude": f"{other}.shard_1"}),
        maxcompute_sink(maxcompute),
        "route:",
        rf"  - source-table: {world.mysql.database}(_b)?.shard_\.*",
        f"    sink-table: shop.{target}",
        "transform:",
        r"  - source-table: \.*.shard_\.*",
        r"    projection: \*, price * 2 AS doubled, __schema_name__ AS origin, UPPER(__table_name__) AS shard",
        "    filter: doubled > 9 AND id <> 12",
    )
    try:
        assert world.run() == 5
        world.mysql.sql(f"UPDATE {other}.shard_2 SET price = 1 WHERE id = 20")
        world.mysql.sql(f"UPDATE {other}.shard_1 SET price = 100")
        world.mysql.sql("UPDATE shard_1 SET price = 6")
        world.run()
    finally:
        world.mysql.sql(f"DROP DATABASE {other}")
    rows = {tuple(row) for row in maxcompute.rows(f"SELECT id, price, doubled, origin, shard FROM {target}")}
    first, second = (world.mysql.database, "SHARD_1"), (other, "SHARD_2")
    assert rows == {(10, 6, 12, *first), (11, 6, 12, *first), (21, 5, 10, *second), (22, 5, 10, *second)}


def test_without_schemas_a_second_database_is_refused(cdc_world, maxcompute):
    world, name = cdc_world, maxcompute.fresh_name("second")
    other = f"{world.mysql.database}_b"
    world.mysql.sql(f"CREATE TABLE {name} (id INT PRIMARY KEY)")
    world.mysql.sql(f"CREATE DATABASE {other}")
    world.mysql.sql(f"CREATE TABLE {other}.{name} (id INT PRIMARY KEY)")
    try:
        world.write(world.source(rf"{world.mysql.database}(_b)?.\.*"), maxcompute_sink(maxcompute))
        found = world.look()
        assert [table.name for table in found.new] == [f"{world.mysql.database}.{name}"]
        ((refused, why),) = found.refused
        assert refused == f"{other}.{name}"
        assert world.mysql.database in why
        assert "one database" in why
        assert list(world.pipelines()) == [name]
    finally:
        world.mysql.sql(f"DROP DATABASE {other}")


def test_with_schemas_a_database_is_a_schema(cdc_world, maxcompute):
    world, name = cdc_world, maxcompute.fresh_name("tiers")
    world.mysql.sql(f"CREATE TABLE {name} (id INT PRIMARY KEY, v INT)")
    world.mysql.sql(f"INSERT INTO {name} VALUES (1, 2)")
    world.write(
        world.source(), maxcompute_sink(maxcompute, project="tiers"),
        "route:", f"  - source-table: {world.mysql.database}.{name}", f"    sink-table: s_{name}.<>_x",
        "    replace-symbol: <>",
        rf"  - source-table: {world.mysql.database}.\.*", f"    sink-table: t_{name}.{name}",
    )  # fmt: skip
    assert set(world.pipelines()) == {f"{name}_x", name}
    assert world.run() == 2
    odps = maxcompute.client(project="tiers")
    for schema, table in ((f"s_{name}", f"{name}_x"), (f"t_{name}", name)):
        assert maxcompute.rows(f"SELECT id, v FROM tiers.{schema}.{table}", odps) == [[1, 2]]


def test_a_table_without_a_key_takes_inserts_and_keeps_changes_as_dead_letters(cdc_world, maxcompute):
    world, name = cdc_world, maxcompute.fresh_name("keyless")
    world.mysql.sql(f"CREATE TABLE {name} (v INT, w VARCHAR(9))")
    world.write(
        world.source(**{"scan.startup.mode": "latest-offset"}), maxcompute_sink(maxcompute),
        block("pipeline", {"vector-assets.error-budget": "100"}),
    )  # fmt: skip
    (pipeline,) = world.pipelines().values()
    assert any("'buckets-num' has no effect" in report for report in pipeline.reports)
    assert world.run() == 0
    world.mysql.sql(f"INSERT INTO {name} VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    world.mysql.sql(f"UPDATE {name} SET w = 'z' WHERE v = 1")
    world.mysql.sql(f"DELETE FROM {name} WHERE v = 2")
    assert world.run() == 3
    assert sorted(maxcompute.rows(f"SELECT v, w FROM {name}")) == [[1, "a"], [2, "b"], [3, "c"]]
    table = maxcompute.odps.get_table(name)
    assert not table.is_transactional
    books = Books.open()
    try:
        reasons = dict(books.ledger.dead_letters.reasons(pipeline.name))
    finally:
        books.close()
    assert sorted((reason.rpartition("its ")[2], count) for reason, count in reasons.items()) == [
        ("deletes", 1), ("updates", 1), ("updates (the row before)", 1),
    ]  # fmt: skip


def test_a_keyless_table_stops_where_the_file_says_so(cdc_world, maxcompute):
    world, name = cdc_world, maxcompute.fresh_name("stops")
    world.mysql.sql(f"CREATE TABLE {name} (v INT)")
    world.write(
        world.source(**{"scan.startup.mode": "latest-offset"}), maxcompute_sink(maxcompute),
        block("pipeline", {"vector-assets.keyless-changes": "fail"}),
    )  # fmt: skip
    world.run()
    world.mysql.sql(f"INSERT INTO {name} VALUES (1)")
    world.mysql.sql(f"DELETE FROM {name}")
    with pytest.raises(PlanError, match="updates or deletes"):
        world.run()


def test_its_rows_so_far_cannot_be_read_of_a_keyless_table(cdc_world, maxcompute):
    world, name = cdc_world, maxcompute.fresh_name("initial")
    world.mysql.sql(f"CREATE TABLE {name} (v INT)")
    world.write(world.source(), maxcompute_sink(maxcompute))
    with pytest.raises(PlanError, match="latest-offset"):
        world.run()
    named = CliRunner().invoke(app, ["plan", str(world.file)])
    assert re.search(rf"shop\.yaml:1:1: shop_\w+{name}: \S+ has neither a primary key", named.output)


def test_partition_keys_make_partitions(cdc_world, maxcompute):
    world, name = cdc_world, maxcompute.fresh_name("parts")
    world.mysql.sql(f"CREATE TABLE {name} (id INT PRIMARY KEY, day DATE, v INT)")
    world.mysql.sql(f"INSERT INTO {name} VALUES (1, '2026-01-01', 1), (2, '2026-01-02', 2)")
    world.write(
        world.source(), maxcompute_sink(maxcompute), "transform:", rf"  - source-table: \.*.{name}",
        "    partition-keys: day", "    table-options: buckets-num=2",
    )  # fmt: skip
    assert world.run() == 2
    world.mysql.sql(f"UPDATE {name} SET day = '2026-01-03' WHERE id = 1")
    world.run()
    table = maxcompute.odps.get_table(name)
    rows = maxcompute.rows(f"SELECT id, v, day FROM {name} ORDER BY id")
    assert rows == [[1, 1, "2026-01-03"], [2, 2, "2026-01-02"]]
    table.reload_extend_info()
    assert str({**table.reserved, **(table.table_properties or {})}.get("write.bucket.num")) == "2"


def test_a_table_that_is_there_keeps_its_buckets(cdc_world, maxcompute):
    world, name = cdc_world, maxcompute.fresh_name("buckets")
    maxcompute.sql(
        f"CREATE TABLE {name} (id int NOT NULL, v int, PRIMARY KEY (id))"
        " TBLPROPERTIES ('transactional'='true', 'write.bucket.num'='7')"
    )
    world.mysql.sql(f"CREATE TABLE {name} (id INT PRIMARY KEY, v INT)")
    world.mysql.sql(f"INSERT INTO {name} VALUES (%s, 1)", *[(n,) for n in range(30)])
    world.write(world.source(), maxcompute_sink(maxcompute))
    assert world.run() == 30
    assert maxcompute.rows(f"SELECT COUNT(*) FROM {name}") == [[30]]


def test_what_is_deleted_stays_with_soft_delete(cdc_world, maxcompute):
    world, name = cdc_world, maxcompute.fresh_name("soft")
    world.mysql.sql(f"CREATE TABLE {name} (id INT PRIMARY KEY, v INT)")
    world.mysql.sql(f"INSERT INTO {name} VALUES (1, 1), (2, 2)")
    world.write(
        world.source(), maxcompute_sink(maxcompute), "transform:", rf"  - source-table: \.*.{name}",
        r"    projection: \*, __data_event_type__ AS op", "    converter-after-transform: soft_delete",
    )  # fmt: skip
    world.run()
    world.mysql.sql(f"DELETE FROM {name} WHERE id = 1")
    world.mysql.sql(f"UPDATE {name} SET v = 3 WHERE id = 2")
    world.run()
    assert maxcompute.rows(f"SELECT id, v, op FROM {name} ORDER BY id") == [[1, 1, "-D"], [2, 3, "+U"]]


def postgres_sink(request, world: World, table: str) -> str:
    server = request.getfixturevalue("postgres")
    database = server.create_database()
    with server.connect(database, autocommit=True) as connection:
        connection.execute(f"CREATE TABLE {table} (id bigint PRIMARY KEY, v int, w text)")
    url = f"jdbc:postgresql://{server.host}:{server.port}/{database}"
    return block("sink", {"type": "postgres", "url": url, "username": server.user, "password": server.password})


def iceberg_sink(request, world: World, table: str) -> str:
    folder = world.file.parent.parent
    return block("sink", {
        "type": "iceberg", "catalog-name": "lake", "uri": f"sqlite:///{folder}/catalog.db",
        "catalog-impl": "org.apache.iceberg.jdbc.JdbcCatalog", "warehouse": f"file://{folder}/lake",
    })  # fmt: skip


def paimon_sink(request, world: World, table: str) -> str:
    folder = world.file.parent.parent
    (folder / "lake" / f"{world.mysql.database}.db").mkdir(parents=True)
    return block("sink", {"type": "paimon", "warehouse": f"{folder}/lake", "bucket": "1"})


@pytest.mark.parametrize("sink", [postgres_sink, iceberg_sink, paimon_sink])
def test_other_sinks_take_their_own_options_and_the_table_of_the_route(cdc_world, request, sink):
    name = f"{cdc_world.mysql.database}_t"
    cdc_world.fill(name)
    cdc_world.write(cdc_world.source(), sink(request, cdc_world, name))
    cdc_world.check_that_it_lands_and_follows(name)


def test_the_seed_s_sink_lands_as_it_is_written(cdc_world, maxcompute):
    world, name = cdc_world, maxcompute.fresh_name("seeded")
    part = seed(3).split("Flink CDC (public preview)")[1]
    text = re.search(r"^sink:\n(.*?)^Configuration options$", part, re.MULTILINE | re.DOTALL)[1]
    for variable, value in {
        "accessId": maxcompute.service.access_id, "accessKey": maxcompute.service.access_key,
        "maxcompute_endpoint": maxcompute.service.endpoint, "project": maxcompute.odps.project,
    }.items():  # fmt: skip
        assert f"${{your_{variable}}}" in text
        text = text.replace(f"${{your_{variable}}}", value)
    world.mysql.sql(f"CREATE TABLE {name} (id INT PRIMARY KEY)")
    world.mysql.sql(f"INSERT INTO {name} VALUES (1)")
    world.write(world.source(), "sink:", textwrap.indent(text, "  "))
    assert world.run() == 1
    table = maxcompute.odps.get_table(name)
    table.reload_extend_info()
    assert str({**table.reserved, **(table.table_properties or {})}.get("write.bucket.num")) == "8"


def test_a_table_for_a_target_that_is_filled_waits_until_it_is_joined(cdc_world, maxcompute):
    world, target = cdc_world, maxcompute.fresh_name("shards")
    for number in (1, 2):
        world.mysql.sql(f"CREATE TABLE o{number} (id INT PRIMARY KEY)")
        world.mysql.sql(f"INSERT INTO o{number} VALUES ({number})")
    world.write(
        world.source(), maxcompute_sink(maxcompute), "route:", rf"  - source-table: {world.mysql.database}.o\.*",
        f"    sink-table: {target}",
    )  # fmt: skip
    world.run()
    world.mysql.sql("CREATE TABLE o3 (id INT PRIMARY KEY)")
    world.mysql.sql("INSERT INTO o3 VALUES (3)")
    found = world.look()
    assert [table.name for table in found.waiting] == [f"{world.mysql.database}.o3"]
    world.run()
    assert maxcompute.rows(f"SELECT id FROM {target} ORDER BY id") == [[1], [2]]
    done = CliRunner().invoke(app, ["capture", str(world.file), "--join", f"{world.mysql.database}.o3", "--json"])
    assert done.exit_code == 0, done.output
    (said,) = json.loads(done.stdout)["captures"]
    assert said["read_anew"] == [f"shop_{target}"]
    world.run()
    assert maxcompute.rows(f"SELECT id FROM {target} ORDER BY id") == [[1], [2], [3]]


def test_what_foreign_keys_do_is_not_in_the_binlog_and_said(cdc_world, maxcompute, caplog):
    """A server that follows another one does it by itself; whoever reads the binlog is told nothing."""
    world, name = cdc_world, maxcompute.fresh_name("keys")
    world.mysql.sql(f"CREATE TABLE {name}_a (id INT PRIMARY KEY)")
    world.mysql.sql(
        f"CREATE TABLE {name}_b (id INT PRIMARY KEY, a INT, b INT, CONSTRAINT gone FOREIGN KEY (a) REFERENCES {name}_a"
        f" (id) ON DELETE CASCADE, CONSTRAINT stays FOREIGN KEY (b) REFERENCES {name}_a (id))"
    )
    world.mysql.sql(f"INSERT INTO {name}_a VALUES (1), (2)")
    world.mysql.sql(f"INSERT INTO {name}_b VALUES (1, 1, NULL), (2, 2, 2)")
    world.write(world.source(), maxcompute_sink(maxcompute))
    said = f"rows of {world.mysql.database}.{name}_b that foreign key gone (ON DELETE CASCADE) deletes or changes"
    shown = CliRunner().invoke(app, ["capture", str(world.file)]).stdout
    assert said in shown
    assert "stays" not in shown
    assert said in CliRunner().invoke(app, ["plan", str(world.file)]).stdout
    world.run()
    assert said in caplog.text
    world.mysql.sql(f"DELETE FROM {name}_a WHERE id = 1")
    world.run()
    assert maxcompute.rows(f"SELECT id FROM {name}_a") == [[2]]
    assert sorted(maxcompute.rows(f"SELECT id FROM {name}_b")) == [[1], [2]]
    assert world.mysql.sql(f"SELECT id FROM {name}_b") == [(2,)]


def test_a_role_s_token_lets_in_and_a_new_one_after_it_has_expired(cdc_world, maxcompute):
    world, name = cdc_world, maxcompute.fresh_name("role")
    world.fill(name)

    def write(token: str | None = None, seconds: float = 60) -> dict[str, str]:
        key = maxcompute.service.ask("POST", "sts", {"seconds": seconds})
        found = {"access-id": key["access_id"], "access-key": key["access_key"], "sts-token": token or key["token"]}
        world.write(world.source(), maxcompute_sink(maxcompute, **found))
        return found

    key = write(token="not-this-one")
    done = CliRunner().invoke(app, ["capture", str(world.file)])
    assert done.exit_code == 1
    assert "STS token" in done.stderr
    assert not any(value in done.stderr for option, value in key.items() if option != "access-id")
    key = write()
    assert world.run() == 10
    key = write(seconds=0)
    world.mysql.sql(f"UPDATE {name} SET v = 5 WHERE id < 2")
    with pytest.raises(ConfigError, match="token has expired") as raised:
        world.run()
    assert not any(value in str(raised.value) for option, value in key.items() if option != "access-id")
    write()
    assert world.run() == 2
    assert sorted(maxcompute.rows(f"SELECT id FROM {name} WHERE v = 5")) == [[0], [1]]
    assert "sts-token" in CliRunner().invoke(app, ["plan", str(world.file)]).stdout


def test_a_look_that_finds_nothing_names_what_is_near(cdc_world, own_mysql, maxcompute):
    world = cdc_world
    world.mysql = own_mysql()
    db = world.mysql.database
    for name in ("orders", "people"):
        world.mysql.sql(f"CREATE TABLE {name} (id INT PRIMARY KEY)")
    for pattern, more, wanted in (
        (f"{db}.orderz", {}, f"near it: {db}.orders"),
        (rf"{db}x?.or_\.*", {}, f"near it: {db}.orders"),
        ("zzzzzzzz.qqqqqqqq", {}, f"; it has {db}.orders, {db}.people"),
        (rf"{db}.\.*", {"tables.exclude": rf"{db}.[op]\.*"}, f"; excluded are {db}.orders, {db}.people"),
    ):
        world.write(world.source(pattern, **more), maxcompute_sink(maxcompute))
        done = CliRunner().invoke(app, ["capture", str(world.file)])
        assert done.exit_code == 1
        assert re.search(
            r"error: \S*shop\.yaml:\d+:\d+: CDC pipeline shop: mysql 127.0.0.1:\d+ has no table that", done.stderr
        )
        assert wanted in done.stderr
        assert world.mysql.service.password not in done.stderr


def test_commands_take_the_pipelines_of_a_file(cdc_world, maxcompute):
    world, name = cdc_world, maxcompute.fresh_name("cli")
    world.mysql.sql(f"CREATE TABLE {name} (id INT PRIMARY KEY, v VARCHAR(9))")
    world.mysql.sql(f"INSERT INTO {name} VALUES (1, 'a')")
    world.write(world.source(), maxcompute_sink(maxcompute))
    runner, pipeline = CliRunner(), f"shop_{world.mysql.database}_{name}"
    offline = runner.invoke(app, ["plan", str(world.file), "--offline"])
    assert offline.exit_code == 1
    assert "no table of CDC pipeline shop is known yet" in str(offline.exception) + offline.output
    looked = runner.invoke(app, ["capture", str(world.file), "--json"])
    assert json.loads(looked.stdout)["captures"][0]["new"] == [f"{world.mysql.database}.{name}"]
    for arguments, wanted in (
        (["capture", str(world.file), "--known"], pipeline),
        (["plan", pipeline], "will be made: CREATE TABLE"),
        (["plan", str(world.file), "--offline"], 'SELECT "id" AS "id"'),
        (["preview", pipeline], "a"),
        (["run", pipeline], "1"),
        (["status"], pipeline),
    ):
        done = runner.invoke(app, arguments)
        assert done.exit_code == 0, (arguments, done.output, done.exception)
        assert wanted in done.output, arguments
    assert maxcompute.rows(f"SELECT id, v FROM {name}") == [[1, "a"]]
    unknown = runner.invoke(app, ["run", "shop_other"])
    assert "vector-assets capture" in str(unknown.exception) + unknown.output


def seed_types() -> dict[str, str]:
    """The type mapping table of the seed's Flink CDC part; INTEGER is spelled INT in a table."""
    part = seed(3).split("Data type mappings")[-1].split("Examples")[0]
    rows = dict(re.findall(r"^\| (\S.*?) \| (\S+) \|$", part, re.MULTILINE))
    return {name: kind.replace("INTEGER", "INT") for name, kind in rows.items()}
