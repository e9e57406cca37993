"""Delta tables and streams: upsert sessions with buckets, deletes and partial columns; rows seen as they come."""

import pytest
from odps import errors
from odps.tunnel.io.types import odps_schema_to_arrow_schema

from vector_assets.clients.maxcompute_records import encode
from vector_assets.local.maxcompute.types import parse

DELTA = "TBLPROPERTIES ('transactional'='true', 'write.bucket.num'='4')"


def delta(maxcompute, columns="id BIGINT NOT NULL, a STRING, b BIGINT", more=""):
    return maxcompute.table(f"{columns}, PRIMARY KEY (id)", f"{more} {DELTA}")


def rows(maxcompute, table):
    return maxcompute.rows(f"SELECT * FROM {table.name} ORDER BY id")


def upsert(maxcompute, table, changes, partition=None, **more):
    session = maxcompute.tunnel().create_upsert_session(table, partition_spec=partition, **more)
    stream = session.open_upsert_stream()
    for kind, values in changes:
        getattr(stream, kind)(session.new_record(values))
    stream.close()
    session.commit()
    return session


def test_changes_are_applied_in_order_per_key_at_the_commit(maxcompute):
    table = delta(maxcompute)
    session = maxcompute.tunnel().create_upsert_session(table, slot_num=2)
    assert sorted(session.buckets) == [0, 1, 2, 3]
    stream = session.open_upsert_stream()
    for number in range(100):
        stream.upsert(session.new_record([number, f"v{number}", number]))
    stream.upsert(session.new_record([7, "again", None]))
    stream.delete(session.new_record([8, None, None]))
    stream.flush()
    stream.delete(session.new_record([9, None, None]))
    stream.upsert(session.new_record([9, "back", 1]))
    stream.close()
    assert rows(maxcompute, table) == []
    session.commit()
    assert session.status.value == "COMMITTED"
    found = rows(maxcompute, table)
    assert len(found) == 99
    assert found[7] == [7, "again", None]
    assert found[8] == [9, "back", 1]
    upsert(maxcompute, table, [("delete", [0, None, None]), ("delete", [1000, None, None]), ("upsert", [1, "x", 1])])
    assert rows(maxcompute, table)[0] == [1, "x", 1]


def test_partitions_have_keys_of_their_own(maxcompute):
    table = delta(maxcompute, more="PARTITIONED BY (ds STRING)")
    table.create_partition("ds=a")
    table.create_partition("ds=b")
    upsert(maxcompute, table, [("upsert", [1, "x", 1])], "ds=a")
    upsert(maxcompute, table, [("upsert", [1, "y", 2])], "ds=b")
    upsert(maxcompute, table, [("delete", [1, None, None])], "ds=b")
    assert rows(maxcompute, table) == [[1, "x", 1, "a"]]


def test_an_aborted_session_changes_nothing_and_a_commit_can_be_repeated(maxcompute):
    table = delta(maxcompute)
    session = maxcompute.tunnel().create_upsert_session(table)
    stream = session.open_upsert_stream()
    stream.upsert(session.new_record([1, "x", 1]))
    stream.close()
    session.abort()
    with pytest.raises(errors.ODPSError, match="aborted"):
        session.commit()
    assert rows(maxcompute, table) == []
    session = upsert(maxcompute, table, [("upsert", [1, "x", 1])])
    place = f"{table.resource()}/upserts?upsertid={session.id}"
    upsert(maxcompute, table, [("upsert", [1, "y", 1])])
    assert maxcompute.odps.rest.post(place, data="").json()["status"] == "committed"
    assert rows(maxcompute, table) == [[1, "y", 1]]


def change(table, values, places, operation="U"):
    """The body of one change, with the columns it sets; pyodps has no call for that."""
    import pyarrow as pa

    schema = odps_schema_to_arrow_schema(table.table_schema)
    extra = {
        "__version": (None, "bigint"),
        "__app_version": (None, "bigint"),
        "__operation": (ord(operation), "tinyint"),
    }
    extra |= {"__key_cols": (None, "array<bigint>"), "__value_cols": (places, "array<bigint>")}
    kinds = [parse(str(column.type)) for column in table.table_schema.simple_columns]
    kinds += [parse(kind) for _, kind in extra.values()]
    arrays = [pa.array([value], part.type) for value, part in zip(values, schema, strict=True)]
    arrays += [pa.array([value], parse(kind).arrow) for value, kind in extra.values()]
    return b"".join(encode(pa.table(arrays, [*schema.names, *extra]), kinds))


def test_partial_changes_keep_the_other_columns(maxcompute):
    table = delta(maxcompute)
    upsert(maxcompute, table, [("upsert", [1, "x", 1]), ("upsert", [2, "y", 2])])
    session = maxcompute.tunnel().create_upsert_session(table)
    assert session.support_partial_update
    place = f"{table.resource()}/upserts?upsertid={session.id}&bucketid=0&slotid=0&record_count=1"
    for values, places, operation in (
        ([1, None, 10], [2], "U"),
        ([1, "z", None], [1], "U"),
        ([2, None, None], [], "D"),
        ([2, "new", 5], [1], "U"),
        ([3, "only", 7], [1], "U"),
        ([4, "a", 1], [], "U"),
        ([4, None, 2], [1], "U"),
    ):
        maxcompute.odps.rest.put(place, data=change(table, values, places, operation))
    with pytest.raises(errors.ODPSError, match="a column that is not there"):
        maxcompute.odps.rest.put(place, data=change(table, [1, "a", 1], [9]))
    session.commit()
    assert rows(maxcompute, table) == [[1, "z", 10], [2, "new", None], [3, "only", None], [4, None, 1]]


def test_wrong_sessions_and_buckets_are_refused(maxcompute):
    plain, table = maxcompute.table("id BIGINT"), delta(maxcompute)
    with pytest.raises(errors.ODPSError, match="no Delta table"):
        maxcompute.tunnel().create_upsert_session(plain)
    with pytest.raises(errors.OverwriteModeNotAllowed):
        maxcompute.tunnel().create_upload_session(table, overwrite=True)
    session = maxcompute.tunnel().create_upsert_session(table)
    place = f"{table.resource()}/upserts?upsertid={session.id}&bucketid=4&slotid=0"
    with pytest.raises(errors.ODPSError, match="bucket 4 is not of slot 0; the session has 4 buckets"):
        maxcompute.odps.rest.put(place, data=change(table, [1, "a", 1], []))
    with pytest.raises(errors.UpsertSessionNotFound):
        maxcompute.odps.rest.get(f"{table.resource()}/upserts?upsertid=none")


def test_a_delta_table_is_written_by_open_writer_insert_and_upload(maxcompute):
    table = delta(maxcompute)
    with table.open_writer() as writer:
        writer.write([[1, "x", 1], [2, "y", 2]])
    maxcompute.sql(f"INSERT INTO {table.name} VALUES (2, 'z', 3)")
    session = maxcompute.tunnel().create_upload_session(table)
    with session.open_record_writer(0) as writer:
        writer.write(session.new_record([1, "w", 9]))
    session.commit([0])
    maxcompute.sql(f"UPDATE {table.name} SET b = 0 WHERE id = 2")
    assert rows(maxcompute, table) == [[1, "w", 9], [2, "z", 0]]
    with table.open_reader() as reader:
        assert sorted(record["id"] for record in reader) == [1, 2]
    maxcompute.sql(f"DELETE FROM {table.name} WHERE id = 1")
    assert rows(maxcompute, table) == [[2, "z", 0]]


def test_stream_uploads_are_visible_when_flushed(maxcompute):
    table = maxcompute.table("id BIGINT, v STRING", "PARTITIONED BY (ds STRING)")
    session = maxcompute.tunnel().create_stream_upload_session(
        table, partition_spec="ds=a", create_partition=True, slot_num=3
    )
    assert len(session.slots) == 3
    with session.open_record_writer() as writer:
        writer.write(session.new_record([1, "x"]))
    assert maxcompute.rows(f"SELECT * FROM {table.name}") == [[1, "x", "a"]]
    with session.open_record_writer() as writer:
        writer.write(session.new_record([2, None]))
    assert maxcompute.rows(f"SELECT id FROM {table.name} ORDER BY id") == [[1], [2]]
    session.abort()
    with pytest.raises(errors.ODPSError, match="aborted"):
        session.reload()
    with pytest.raises(errors.SlotExceeded):
        maxcompute.odps.rest.post(
            f"{table.resource()}/streams?partition=ds=a", data="", headers={"odps-slot-num": "99"}
        )
