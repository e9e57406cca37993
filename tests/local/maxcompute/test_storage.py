"""The storage API through pyodps: splits, codecs, column pruning, snapshots, writes by block."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odps import errors
from odps.apis.storage_api import (
    Compression,
    ReadRowsRequest,
    SessionRequest,
    SplitOptions,
    StorageApiArrowClient,
    TableBatchScanRequest,
    TableBatchWriteRequest,
    WriteRowsRequest,
)

from vector_assets.local.maxcompute.splits import Piece, by_count, by_offset, by_size


def client(maxcompute, table, **more):
    return StorageApiArrowClient(maxcompute.odps, table, **more)


def filled(maxcompute, partitions=("a", "b", "c"), count=1000):
    table = maxcompute.table("id BIGINT, v STRING, t TIMESTAMP", "PARTITIONED BY (ds STRING)")
    for ds in partitions:
        query = f"SELECT CAST(range AS BIGINT), concat('v', CAST(range AS STRING)), NULL FROM range({count})"
        maxcompute.sql(f"INSERT INTO {table.name} PARTITION (ds='{ds}') {query}")
    return table


def read(storage, session, compression=Compression.UNCOMPRESSED, splits=None):
    batches = []
    for index in range(session.split_count) if splits is None else splits:
        reader = storage.read_rows_arrow(ReadRowsRequest(session.session_id, index, compression=compression))
        while (batch := reader.read()) is not None:
            batches.append(batch)
    return pa.Table.from_batches(batches)


@pytest.mark.parametrize("compression", list(Compression), ids=lambda each: each.name)
def test_splits_hold_every_row_once(maxcompute, compression):
    table = filled(maxcompute)
    storage = client(maxcompute, table)
    options = SplitOptions(split_mode=SplitOptions.SplitMode.SIZE, split_number=5000)
    session = storage.create_read_session(
        TableBatchScanRequest(required_partitions=["ds=a", "ds=c"], split_options=options)
    )
    assert session.split_count > 2
    found = read(storage, session, compression)
    assert sorted(found.column("id").to_pylist()) == sorted([*range(1000), *range(1000)])
    assert set(found.column("ds").to_pylist()) == {"a", "c"}
    assert found.schema.field("t").type == pa.timestamp("ns")


def test_columns_are_pruned_and_parallelism_is_kept(maxcompute):
    table = filled(maxcompute)
    storage = client(maxcompute, table, quota_name="local_quota")
    options = SplitOptions(split_mode=SplitOptions.SplitMode.PARALLELISM, split_number=2)
    session = storage.create_read_session(
        TableBatchScanRequest(required_data_columns=["v"], required_partition_columns=["ds"], split_options=options)
    )
    assert session.split_count == 2
    assert read(storage, session).column_names == ["v", "ds"]
    again = storage.get_read_session(SessionRequest(session.session_id))
    assert again.split_count == 2


def test_rows_are_read_by_offset(maxcompute):
    storage = client(maxcompute, filled(maxcompute, ("a", "b"), 10))
    options = SplitOptions(split_mode=SplitOptions.SplitMode.ROW_OFFSET)
    session = storage.create_read_session(TableBatchScanRequest(split_options=options))
    assert session.record_count == 20
    request = ReadRowsRequest(session.session_id, row_index=8, row_count=4)
    assert storage.read_rows_arrow(request).read().column("id").to_pylist() == [8, 9, 0, 1]


def test_a_condition_leaves_out_rows(maxcompute):
    storage = client(maxcompute, filled(maxcompute, ("a", "b"), 10))
    session = storage.create_read_session(
        TableBatchScanRequest(
            required_data_columns=["v"], required_partition_columns=["ds"],
            filter_predicate="id > 6 AND ds = 'b' AND `v` <> 'v8' AND t IS NULL",
        )
    )  # fmt: skip
    assert read(storage, session).to_pydict() == {"v": ["v7", "v9"], "ds": ["b", "b"]}


def test_a_changed_partition_ends_its_sessions(maxcompute):
    table = filled(maxcompute, ("a",), 10)
    storage = client(maxcompute, table)
    session = storage.create_read_session(TableBatchScanRequest(required_partitions=["ds=a"]))
    maxcompute.sql(f"INSERT INTO {table.name} PARTITION (ds='a') VALUES (1, 'x', NULL)")
    with pytest.raises(errors.ODPSError, match="TableModified"):
        read(storage, session)


def test_what_cannot_be_read_is_refused(maxcompute):
    table = filled(maxcompute, ("a",), 10)
    with pytest.raises(errors.NoSuchPartition):
        client(maxcompute, table).create_read_session(TableBatchScanRequest(required_partitions=["ds=none"]))
    with pytest.raises(errors.ODPSError, match="no column nothing; known: id, v, t, ds"):
        client(maxcompute, table).create_read_session(TableBatchScanRequest(required_data_columns=["nothing"]))
    for wrong, told in (("id >", "no condition"), ("nothing = 1", "no column nothing"), ("id = (SELECT 1)", "one row")):
        with pytest.raises(errors.ODPSError, match=told):
            client(maxcompute, table).create_read_session(TableBatchScanRequest(filter_predicate=wrong))
    delta = maxcompute.table("id BIGINT NOT NULL, PRIMARY KEY (id)", "TBLPROPERTIES ('transactional'='true')")
    with pytest.raises(errors.ODPSError, match="is a Delta table"):
        client(maxcompute, delta).create_read_session(TableBatchScanRequest())


@pytest.mark.parametrize("overwrite", [True, False])
def test_committed_blocks_are_written_and_others_not(maxcompute, overwrite):
    table = filled(maxcompute, ("a",), 1)
    storage = client(maxcompute, table)
    session = storage.create_write_session(TableBatchWriteRequest(partition_spec="ds=a", overwrite=overwrite))
    messages = []
    for block in range(3):
        writer = storage.write_rows_arrow(WriteRowsRequest(session.session_id, block_number=block))
        rows = pa.table({"id": [block], "v": ["w"], "t": pa.array([None], pa.timestamp("ns"))})
        assert writer.write(rows.to_batches()[0])
        messages.append(writer.finish()[0])
    storage.commit_write_session(SessionRequest(session.session_id), messages[:2])
    found = maxcompute.rows(f"SELECT id FROM {table.name} ORDER BY id, v")
    assert found == ([[0], [1]] if overwrite else [[0], [0], [1]])


PIECES = st.lists(st.integers(0, 30), min_size=1, max_size=6).map(
    lambda counts: [Piece([str(place)], 0, count, count * 10) for place, count in enumerate(counts)]
)


@settings(max_examples=50, deadline=None)
@given(PIECES, st.integers(1, 40), st.booleans())
def test_every_row_is_in_one_split(pieces, number, crosses):
    expected = [(place, row) for place, piece in enumerate(pieces) for row in range(piece.rows)]
    for splits in (by_size(pieces, number * 10, crosses=crosses), by_count(pieces, number, crosses=crosses)):
        parts = [part for split in splits for part in split]
        assert [(place, row) for place, start, count in parts for row in range(start, start + count)] == expected
        assert crosses or all(len({place for place, _, _ in split}) == 1 for split in splits)
    half = len(expected) // 2
    parts = by_offset(pieces, half, len(expected) - half)
    assert [(place, row) for place, start, count in parts for row in range(start, start + count)] == expected[half:]
