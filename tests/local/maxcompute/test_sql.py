"""Statements through plain pyodps: what they change, and how they fail."""

import datetime as dt
from decimal import Decimal

import pytest
from odps import errors
from odps.models import TableSchema
from odps.types import Column, Partition


def test_tables_are_made_listed_described_and_dropped_by_pyodps(maxcompute):
    odps, name = maxcompute.odps, maxcompute.fresh_name()
    columns = [Column("id", "bigint", "the id"), Column("v", "string")]
    schema = TableSchema(columns=columns, partitions=[Partition("ds", "string")])
    table = odps.create_table(name, schema, comment="a 'quoted' text", lifecycle=7, if_not_exists=True)
    odps.create_table(name, schema, if_not_exists=True)
    with pytest.raises(errors.ODPSError, match="already exists"):
        odps.create_table(name, schema)
    assert odps.exist_table(name)
    table.reload()
    assert (table.comment, table.lifecycle, str(table.table_schema["id"].type).lower()) == (
        "a 'quoted' text",
        7,
        "bigint",
    )
    assert table.table_schema["id"].comment == "the id"
    assert [each.name for each in table.table_schema.partitions] == ["ds"]
    assert name in [each.name for each in odps.list_tables(prefix=name)]
    assert "the id" in maxcompute.sql(f"DESC {name}").open_reader(tunnel=False).raw
    created = maxcompute.sql(f"SHOW CREATE TABLE {name}").open_reader(tunnel=False).raw
    assert "PARTITIONED BY (`ds` STRING) LIFECYCLE 7" in created
    table.rename(name + "_new")
    assert odps.exist_table(name + "_new")
    odps.delete_table(name + "_new")
    odps.delete_table(name + "_new", if_exists=True)
    assert not odps.exist_table(name + "_new")
    with pytest.raises(errors.NoSuchObject):
        odps.delete_table(name + "_new")


def test_partitions_are_added_listed_and_dropped(maxcompute):
    table = maxcompute.table("id BIGINT", "PARTITIONED BY (ds STRING, h STRING)")
    for ds, h in (("b", "1"), ("a", "2"), ("a", "1")):
        table.create_partition(f"ds={ds},h={h}")
    table.create_partition("ds=a,h=1", if_not_exists=True)
    with pytest.raises(errors.ODPSError, match="already exists"):
        table.create_partition("ds=a,h=1")
    assert [str(each.partition_spec) for each in table.partitions] == ["ds='a',h='1'", "ds='a',h='2'", "ds='b',h='1'"]
    assert [str(p.partition_spec) for p in table.iterate_partitions("ds=a", reverse=True)] == [
        "ds='a',h='2'",
        "ds='a',h='1'",
    ]
    maxcompute.sql(f"INSERT INTO {table.name} PARTITION (ds='a', h='1') SELECT 1")
    partition = table.get_partition("ds=a,h=1")
    partition.reload()
    assert partition.physical_size > 0
    assert str(table.get_max_partition().partition_spec) == "ds='a',h='1'"
    assert str(table.get_max_partition(skip_empty=False).partition_spec) == "ds='b',h='1'"
    table.delete_partition("ds=a")
    assert not table.exist_partition("ds=a,h=1")
    table.delete_partition("ds=a", if_exists=True)
    with pytest.raises(errors.ODPSError, match="does not exist"):
        table.delete_partition("ds=a")
    with pytest.raises(errors.ODPSError, match="levels of the table: ds/h"):
        table.create_partition("h=1,ds=a,x=2")
    assert maxcompute.rows(f"SELECT count(*) FROM {table.name}") == [[0]]


def test_more_partitions_than_a_page_are_all_listed(maxcompute):
    table = maxcompute.table("id BIGINT", "PARTITIONED BY (ds STRING)")
    groups = " ".join(f"PARTITION (ds='{number:04}')" for number in range(1001))
    maxcompute.sql(f"ALTER TABLE {table.name} ADD {groups}")
    assert [each.name for each in table.partitions] == [f"ds='{number:04}'" for number in range(1001)]


def test_insert_writes_fixed_and_dynamic_partitions_and_overwrites_what_it_touches(maxcompute):
    name = maxcompute.table("id BIGINT, v STRING", "PARTITIONED BY (ds STRING, h STRING)").name
    maxcompute.sql(f"INSERT INTO {name} PARTITION (ds='a', h='1') SELECT 1, 'x' UNION ALL SELECT 2, 'y'")
    maxcompute.sql(f"INSERT INTO TABLE {name} PARTITION (ds='a', h) VALUES (3, 'z', '1'), (4, 'w', '2')")
    maxcompute.sql(f"INSERT INTO {name} PARTITION (ds, h) (id, ds, h) VALUES (5, 'b', '1')")
    assert maxcompute.rows(f"SELECT * FROM {name} ORDER BY id") == [
        [1, "x", "a", "1"],
        [2, "y", "a", "1"],
        [3, "z", "a", "1"],
        [4, "w", "a", "2"],
        [5, None, "b", "1"],
    ]
    maxcompute.sql(f"INSERT OVERWRITE TABLE {name} PARTITION (ds, h) SELECT id + 10, v, ds, h FROM {name} WHERE id = 4")
    assert maxcompute.rows(f"SELECT id FROM {name} ORDER BY id") == [[1], [2], [3], [5], [14]]
    maxcompute.sql(f"INSERT OVERWRITE TABLE {name} PARTITION (ds='a', h='1') SELECT id, v FROM {name} WHERE false")
    assert maxcompute.rows(f"SELECT id FROM {name} ORDER BY id") == [[5], [14]]
    maxcompute.sql(f"TRUNCATE TABLE {name} PARTITION (ds='b', h='1')")
    assert maxcompute.rows(f"SELECT id FROM {name}") == [[14]]
    assert len(list(maxcompute.odps.get_table(name).partitions)) == 3


def test_max_pt_is_the_greatest_partition_with_rows(maxcompute):
    name = maxcompute.table("id BIGINT", "PARTITIONED BY (ds STRING)").name
    with pytest.raises(errors.ODPSError, match="no partition with data"):
        maxcompute.sql(f"SELECT max_pt('{name}')")
    maxcompute.sql(f"INSERT INTO {name} PARTITION (ds) VALUES (1, '20180901'), (2, '20180905')")
    maxcompute.sql(f"ALTER TABLE {name} ADD PARTITION (ds='20180909')")
    assert maxcompute.rows(f"SELECT id, ds FROM {name} WHERE ds = MAX_PT('local.{name}')") == [[2, "20180905"]]


def test_added_columns_are_null_in_old_rows_and_stand_before_the_partition_columns(maxcompute):
    table = maxcompute.table("id BIGINT", "PARTITIONED BY (ds STRING)")
    maxcompute.sql(f"INSERT INTO {table.name} PARTITION (ds='a') VALUES (1)")
    maxcompute.sql(f"ALTER TABLE {table.name} ADD COLUMNS (v STRING COMMENT 'new', d DECIMAL(10,2))")
    maxcompute.sql(f"INSERT INTO {table.name} PARTITION (ds='a') VALUES (2, 'x', 1.5BD)")
    rows = maxcompute.rows(f"SELECT * FROM {table.name} ORDER BY id")
    assert rows == [[1, None, None, "a"], [2, "x", Decimal("1.5"), "a"]]
    table.reload()
    assert [(each.name, each.comment) for each in table.table_schema.simple_columns][1] == ("v", "new")
    maxcompute.sql(f"ALTER TABLE {table.name} CHANGE COLUMN v w STRING COMMENT 'newer'")
    maxcompute.sql(f"ALTER TABLE {table.name} DROP COLUMNS d")
    table.reload()
    assert [each.name for each in table.table_schema.simple_columns] == ["id", "w"]
    with pytest.raises(errors.ODPSError, match="column id exists"):
        maxcompute.sql(f"ALTER TABLE {table.name} ADD COLUMNS (id STRING)")


def test_columns_are_renamed_widened_and_let_be_null_and_nothing_else(maxcompute):
    table = maxcompute.table(
        "id BIGINT NOT NULL, n INT NOT NULL, s VARCHAR(5), PRIMARY KEY (id)", "TBLPROPERTIES ('transactional'='true')"
    )
    maxcompute.sql(f"INSERT INTO {table.name} VALUES (1, 7, 'x')")
    for text in ("n RENAME TO m", "`m` NULL", "m m STRING", "s s VARCHAR(9)"):
        maxcompute.sql(f"ALTER TABLE {table.name} CHANGE COLUMN {text}")
    maxcompute.sql(f"INSERT INTO {table.name} VALUES (2, NULL, '123456789')")
    assert maxcompute.rows(f"SELECT * FROM {table.name} ORDER BY id") == [[1, "7", "x"], [2, None, "123456789"]]
    for text, reason in {
        "id RENAME TO x": "primary key", "id id STRING": "primary key", "m RENAME TO s": "column s exists",
        "m NOT NULL": "cannot become NOT NULL", "m m INT": "cannot be converted", "s s VARCHAR(3)": "cannot be conv",
    }.items():  # fmt: skip
        with pytest.raises(errors.ODPSError, match=reason):
            maxcompute.sql(f"ALTER TABLE {table.name} CHANGE COLUMN {text}")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT count(*), sum(id), avg(id), max(v) FROM {t}", [[3, 6, 2.0, "c"]]),
        ("SELECT v, count(*) AS n FROM {t} GROUP BY v HAVING n > 0 ORDER BY v LIMIT 1", [["a", 1]]),
        ("SELECT a.id FROM {t} a JOIN {t} b ON a.id = b.id + 1 ORDER BY a.id", [[2], [3]]),
        ("WITH c AS (SELECT id FROM {t} WHERE id > 1) SELECT max(id) FROM c", [[3]]),
        ("SELECT 1.5, 1.5BD, 7 / 2, concat('a', 'b'), if(1 > 0, 'y', 'n')", [[1.5, Decimal("1.5"), 3.5, "ab", "y"]]),
        ("SELECT split('a,b', ','), map('k', 1), named_struct('x', 1).x", [[["a", "b"], {"k": 1}, 1]]),
        (
            "SELECT DATE '2020-02-29', getdate() > CAST('2020-01-01 00:00:00' AS DATETIME)",
            [[dt.date(2020, 2, 29), True]],
        ),
        ("SELECT year(CAST('2020-01-01 00:00:00.123456789' AS TIMESTAMP)), year(getdate()) > 2000", [[2020, True]]),
        ("SELECT row_number() OVER (ORDER BY id DESC) FROM {t} ORDER BY 1", [[1], [2], [3]]),
    ],
)
def test_queries(maxcompute, query, expected):
    name = maxcompute.table("id BIGINT, v STRING").name
    maxcompute.sql(f"INSERT INTO {name} VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    found = maxcompute.rows(query.format(t=name))
    assert found == expected


@pytest.mark.parametrize(
    ("statement", "kind", "text"),
    [
        ("SELECT * FROM nowhere", errors.NoSuchTable, "table local.nowhere cannot be resolved"),
        ("SELEC 1", errors.ParseError, r"ODPS-0130161:\[1,\d+\] Parse exception"),
        ("SELECT nothing FROM (SELECT 1 AS a) q", errors.ODPSError, "nothing"),
        ("INSERT INTO {t} SELECT 1, 2, 3", errors.ODPSError, "wrong columns count 3 in data source, requires 2"),
        ("INSERT INTO {t} PARTITION (x='1') SELECT 1, 2", errors.ODPSError, "has no column x; known: id, v"),
        ("CREATE TABLE x_{t} (id BIGINT, ID STRING)", errors.ODPSError, "defined twice"),
        ("CREATE TABLE x_{t} (id NOTYPE)", errors.ODPSError, "NOTYPE|notype"),
        ("CREATE TABLE x_{t} (id BIGINT, PRIMARY KEY (id))", errors.ODPSError, "needs TBLPROPERTIES"),
        ("DELETE FROM {t} WHERE id = 1", errors.ODPSError, "is not ACID"),
        ("SHOW GRANTS", errors.ODPSError, "SHOW GRANTS is not supported here"),
        (
            "MERGE INTO {t} USING {t} b ON true WHEN MATCHED THEN DELETE",
            errors.ODPSError,
            "MERGE is not supported here",
        ),
    ],
)
def test_wrong_statements_fail_with_the_service_s_errors(maxcompute, statement, kind, text):
    name = maxcompute.table("id BIGINT, v STRING").name
    with pytest.raises(kind, match=text):
        maxcompute.sql(statement.format(t=name))


def test_a_failed_statement_changes_nothing(maxcompute):
    name = maxcompute.table("id BIGINT NOT NULL", "PARTITIONED BY (ds STRING)").name
    with pytest.raises(errors.ODPSError):
        maxcompute.sql(f"INSERT INTO {name} PARTITION (ds) VALUES (1, 'a'), (NULL, 'b')")
    assert list(maxcompute.odps.get_table(name).partitions) == []
    assert maxcompute.rows(f"SELECT count(*) FROM {name}") == [[0]]


def test_views_copies_and_tables_of_queries(maxcompute):
    name = maxcompute.table("id BIGINT, v STRING").name
    maxcompute.sql(f"INSERT INTO {name} VALUES (1, 'a')")
    maxcompute.sql(f"CREATE VIEW v_{name} AS SELECT id FROM {name} WHERE id = 1")
    maxcompute.sql(f"CREATE TABLE c_{name} LIFECYCLE 3 AS SELECT id + 1 AS id2 FROM {name}")
    maxcompute.sql(f"CREATE TABLE l_{name} LIKE {name}")
    assert maxcompute.rows(f"SELECT * FROM v_{name}") == [[1]]
    assert maxcompute.rows(f"SELECT id2 FROM c_{name}") == [[2]]
    assert maxcompute.rows(f"SELECT * FROM l_{name}") == []
    assert maxcompute.odps.get_table(f"v_{name}").is_virtual_view
    maxcompute.sql(f"DROP VIEW v_{name}")
    assert not maxcompute.odps.exist_table(f"v_{name}")


def test_results_come_as_text_too_and_as_ten_thousand_rows_at_most(maxcompute):
    instance = maxcompute.sql("SELECT CAST(range AS BIGINT) AS id, 'a,\"b' AS v, NULL AS n FROM range(12000)")
    with instance.open_reader(tunnel=False) as reader:
        rows = list(reader)
    assert (len(rows), rows[0]["id"], rows[0]["v"], rows[0]["n"]) == (10000, 0, 'a,"b', None)
    with instance.open_reader(tunnel=True, limit=True) as reader:
        assert reader.count == 10000
    with instance.open_reader(tunnel=True) as reader:
        assert reader.count == 12000
    with instance.open_reader(tunnel=True, arrow=True) as reader:
        assert reader.read_all().num_rows == 12000
    stamp = maxcompute.sql("SELECT CAST('2026-05-11 12:34:53.123421123' AS TIMESTAMP) AS ts")
    with stamp.open_reader(tunnel=True, arrow=True) as reader:
        assert str(reader.read_all().column("ts")[0]).endswith("34:53.123421123")


def test_instances_tell_their_source_status_and_error(maxcompute):
    instance = maxcompute.odps.run_sql("SELECT 1 AS a", hints={"odps.sql.type.system.odps2": "true"})
    instance.wait_for_success()
    assert instance.is_successful()
    assert instance.get_sql_query() == "SELECT 1 AS a;"
    assert [task.status.value for task in instance.get_task_statuses().values()] == ["SUCCESS"]
    assert instance.start_time <= instance.end_time
    assert instance.id in [each.id for each in maxcompute.odps.list_instances(status="terminated")]
    assert list(maxcompute.odps.list_instances(status="running")) == []
    failed = maxcompute.odps.run_sql("SELECT * FROM nowhere")
    with pytest.raises(errors.NoSuchTable):
        failed.wait_for_success()
    assert failed.is_terminated()
    assert not failed.is_successful()
    with pytest.raises(errors.NoSuchObject):
        maxcompute.odps.get_instance("none").reload()


def test_three_tiers_keep_tables_of_one_name_apart(maxcompute):
    odps = maxcompute.client(project="tiers")
    assert odps.is_schema_namespace_enabled()
    assert not maxcompute.odps.is_schema_namespace_enabled()
    schema, name = maxcompute.fresh_name("s"), maxcompute.fresh_name()
    odps.create_schema(schema)
    assert odps.exist_schema(schema)
    assert {"default", schema} <= {each.name for each in odps.list_schemas()}
    odps.create_table(name, "id bigint", schema=schema)
    odps.create_table(name, "other string")
    with odps.get_table(name, schema=schema).open_writer() as writer:
        writer.write([[1]])
    assert maxcompute.rows(f"SELECT id FROM {schema}.{name}", odps) == [[1]]
    assert maxcompute.rows(f"SELECT * FROM tiers.{schema}.{name}", odps) == [[1]]
    assert maxcompute.rows(f"SELECT * FROM {name}", odps) == []
    with odps.get_table(name, schema=schema).open_reader() as reader:
        assert [record[0] for record in reader] == [1]
    assert odps.get_table(name, schema=schema).head(1, use_legacy=False)[0][0] == 1
    with pytest.raises(errors.ODPSError, match="not empty"):
        odps.delete_schema(schema)
    odps.delete_table(name, schema=schema)
    odps.delete_schema(schema)
    assert not odps.exist_schema(schema)
