"""Download and upload by plain pyodps, in every codec and form; snapshots, blocks, expiry and faults."""

import pyarrow as pa
import pytest
import urllib3
from odps import errors
from odps.tunnel import CompressOption

ALGORITHMS = CompressOption.CompressAlgorithm
CODECS = {
    "raw": ALGORITHMS.ODPS_RAW,
    "zlib": ALGORITHMS.ODPS_ZLIB,
    "zstd": ALGORITHMS.ODPS_ZSTD,
    "lz4": ALGORITHMS.ODPS_LZ4,
    "snappy": ALGORITHMS.ODPS_SNAPPY,
}


def option(name):
    return CompressOption(compress_algo=CODECS[name], level=1)


def upload(maxcompute, table, rows, partition=None, **more):
    session = maxcompute.tunnel().create_upload_session(table, partition_spec=partition, **more)
    with session.open_record_writer(0) as writer:
        for row in rows:
            writer.write(session.new_record(row))
    session.commit([0])
    return session


def download(session, **more):
    with session.open_record_reader(0, session.count, **more) as reader:
        return [list(record.values) for record in reader]


@pytest.mark.parametrize("codec", CODECS)
def test_records_go_and_come_in_every_codec(maxcompute, codec):
    table = maxcompute.table("id BIGINT, v STRING", "PARTITIONED BY (ds STRING)")
    rows = [[number, f"text {number % 7}" * 20 if number % 3 else None] for number in range(5000)]
    tunnel = maxcompute.tunnel()
    session = tunnel.create_upload_session(
        table, partition_spec="ds=a", create_partition=True, compress_option=option(codec)
    )
    with session.open_record_writer(7, compress=codec != "raw") as writer:
        for row in rows:
            writer.write(session.new_record(row))
    session.commit([7])
    found = tunnel.create_download_session(table, partition_spec="ds=a", compress_option=option(codec))
    assert found.count == len(rows)
    assert download(found, compress=codec != "raw", append_partitions=False) == rows
    with found.open_record_reader(4998, 2, compress=codec != "raw", columns=["v", "id"]) as reader:
        assert [list(record.values) for record in reader] == [rows[4998][::-1], rows[4999][::-1]]


@pytest.mark.parametrize("codec", CODECS)
def test_arrow_goes_and_comes_in_every_codec(maxcompute, codec):
    table = maxcompute.table("id BIGINT, v STRING")
    rows = pa.table({"id": range(20000), "v": [f"text {number % 7}" * 3 for number in range(20000)]})
    tunnel = maxcompute.tunnel()
    session = tunnel.create_upload_session(table, compress_option=option(codec))
    with session.open_arrow_writer(0, compress=codec != "raw") as writer:
        for batch in rows.to_batches(max_chunksize=3000):
            writer.write(batch)
    session.commit([0])
    found = tunnel.create_download_session(table, compress_option=option(codec))
    with found.open_arrow_reader(0, found.count, compress=codec != "raw") as reader:
        assert pa.table(reader.read()) == rows
    with found.open_arrow_reader(10, 3, columns=["v"]) as reader:
        assert pa.table(reader.read()) == rows.select(["v"]).slice(10, 3)


def test_the_pure_python_client_reads_and_writes_too(maxcompute):
    from odps.tunnel.pb.decoder import Decoder  # its C twin is what the others use

    assert Decoder
    table = maxcompute.table("id BIGINT, d DOUBLE")
    upload(maxcompute, table, [[-1, 0.5], [1 << 62, None]])
    assert download(maxcompute.tunnel().create_download_session(table)) == [[-1, 0.5], [1 << 62, None]]


def test_nothing_is_visible_before_the_commit_and_blocks_are_replaced(maxcompute):
    table = maxcompute.table("id BIGINT")
    session = maxcompute.tunnel().create_upload_session(table)
    for block, value in ((3, 1), (0, 2), (3, 30)):
        with session.open_record_writer(block) as writer:
            writer.write(session.new_record([value]))
    assert maxcompute.rows(f"SELECT * FROM {table.name}") == []
    with pytest.raises(errors.ODPSError, match="block"):
        session.commit([0])
    session.commit([0, 3])
    assert maxcompute.rows(f"SELECT * FROM {table.name}") == [[2], [30]]
    again = maxcompute.tunnel().create_upload_session(table, upload_id=session.id)
    assert again.status.value == "CLOSED"
    again._complete_upload()
    assert maxcompute.rows(f"SELECT count(*) FROM {table.name}") == [[2]]
    with pytest.raises(errors.ODPSError, match="is closed"), again.open_record_writer(1) as writer:
        writer.write(session.new_record([4]))


def test_an_overwriting_session_replaces_the_partition(maxcompute):
    table = maxcompute.table("id BIGINT", "PARTITIONED BY (ds STRING)")
    upload(maxcompute, table, [[1], [2]], "ds=a", create_partition=True)
    upload(maxcompute, table, [[9]], "ds=b", create_partition=True)
    upload(maxcompute, table, [[3]], "ds=a", overwrite=True)
    assert maxcompute.rows(f"SELECT * FROM {table.name} ORDER BY id") == [[3, "a"], [9, "b"]]


def test_a_missing_partition_is_refused(maxcompute):
    table = maxcompute.table("id BIGINT", "PARTITIONED BY (ds STRING)")
    for make in (maxcompute.tunnel().create_upload_session, maxcompute.tunnel().create_download_session):
        with pytest.raises(errors.NoSuchPartition):
            make(table, partition_spec="ds=none")
        with pytest.raises(errors.ODPSError, match="partition levels ds, 0 values"):
            make(table)


def test_a_download_is_a_snapshot_that_a_change_ends(maxcompute):
    table = maxcompute.table("id BIGINT", "PARTITIONED BY (ds STRING)")
    upload(maxcompute, table, [[1], [2]], "ds=a", create_partition=True)
    tunnel = maxcompute.tunnel()
    session = tunnel.create_download_session(table, partition_spec="ds=a")
    upload(maxcompute, table, [[3]], "ds=b", create_partition=True)
    resumed = tunnel.create_download_session(table, partition_spec="ds=a", download_id=session.id)
    assert download(resumed, append_partitions=False) == [[1], [2]]
    upload(maxcompute, table, [[4]], "ds=a")
    with pytest.raises(errors.TableModified):
        download(resumed)
    table.delete_partition("ds=b")
    table.create_partition("ds=b")
    assert download(tunnel.create_download_session(table, partition_spec="ds=b")) == []


def test_a_dropped_partition_ends_its_downloads_even_when_made_again(maxcompute):
    table = maxcompute.table("id BIGINT", "PARTITIONED BY (ds STRING)")
    upload(maxcompute, table, [[1]], "ds=a", create_partition=True)
    session = maxcompute.tunnel().create_download_session(table, partition_spec="ds=a")
    table.delete_partition("ds=a")
    with pytest.raises(errors.TableModified):
        download(session)
    upload(maxcompute, table, [[1]], "ds=a", create_partition=True)
    with pytest.raises(errors.TableModified):
        download(session)


def test_sessions_expire(maxcompute):
    table = maxcompute.table("id BIGINT")
    upload(maxcompute, table, [[1]])
    tunnel = maxcompute.tunnel()
    reading, writing = tunnel.create_download_session(table), tunnel.create_upload_session(table)
    assert maxcompute.service.ask("POST", "sessions", {"expire": reading.id}) == {"expired": 1}
    assert tunnel.create_download_session(table, download_id=reading.id).status.value == "EXPIRED"
    with pytest.raises(errors.ODPSError, match="is expired"), reading.open_arrow_reader(0, 1) as reader:
        reader.read()
    maxcompute.service.ask("POST", "sessions", {"expire": writing.id, "ttl_s": 0})
    with pytest.raises(errors.ODPSError, match="is expired"), writing.open_record_writer(0) as writer:
        writer.write(writing.new_record([1]))
    assert tunnel.create_upload_session(table).status.value == "EXPIRED"
    with pytest.raises(errors.ODPSError, match="does not exist"):
        tunnel.create_download_session(table, download_id="nothing")


def test_the_tunnel_is_found_through_the_endpoint_by_quota(maxcompute):
    table = maxcompute.table("id BIGINT")
    session = maxcompute.tunnel(quota_name="local_quota").create_download_session(table)
    assert session.quota_name == "local_quota"
    with pytest.raises(errors.ODPSError, match="quota nowhere does not exist; known: default, local_quota"):
        maxcompute.tunnel(quota_name="nowhere", endpoint=maxcompute.service.endpoint).create_download_session(table)


def test_a_preview_shows_the_first_rows(maxcompute):
    table = maxcompute.table("id BIGINT, t TIMESTAMP_NTZ, j JSON", "PARTITIONED BY (ds STRING)")
    maxcompute.sql(
        f"INSERT INTO {table.name} PARTITION (ds='a') VALUES"
        " (1, CAST('1969-12-31 23:59:59.999999999' AS TIMESTAMP_NTZ), NULL), (2, NULL, '[1]')"
    )
    name = table.name
    assert [record["id"] for record in table.head(1, partition="ds=a", use_legacy=True)] == [1]
    maxcompute.sql(f"ALTER TABLE {name} DROP COLUMNS j")
    table.reload()
    found = list(table.head(2, partition="ds=a", columns=["id", "t"], use_legacy=False))
    assert [record["id"] for record in found] == [1, 2]
    assert str(found[0]["t"]) == "1969-12-31 23:59:59.999999999"
    assert found[1]["t"] is None


def test_damaged_bodies_are_refused(maxcompute):
    table = maxcompute.table("id BIGINT, v STRING")
    session = maxcompute.tunnel().create_upload_session(table)
    url = f"{table.resource()}?uploadid={session.id}&blockid=0"
    for body, encoding in ((b"", ""), (b"\x08", ""), (b"\x08\x02\x80\xc0", ""), (b"abc", "deflate"), (b"a", "odd")):
        with pytest.raises(errors.ODPSError):
            maxcompute.odps.rest.put(url, data=body, headers={"Content-Encoding": encoding} if encoding else {})
    assert session.get_block_list() == []


RULES = [{"status": 429}, {"status": 500}, {"cut": "before"}, {"cut": "after"}, {"delay_s": 0.2}]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: "-".join(map(str, rule.values())))
def test_the_client_gets_over_a_fault_when_it_opens_a_session(maxcompute, rule, monkeypatch):
    from odps.tunnel import retry

    monkeypatch.setattr(retry.time, "sleep", lambda _: None)
    table = maxcompute.table("id BIGINT")
    maxcompute.fault(target=f"{table.name}.*uploads", **rule)
    upload(maxcompute, table, [[1]])
    assert maxcompute.hits() == [1]
    assert maxcompute.rows(f"SELECT * FROM {table.name}") == [[1]]


@pytest.mark.parametrize("rule", RULES[:4], ids=lambda rule: "-".join(map(str, rule.values())))
def test_a_fault_in_a_block_reaches_the_caller_and_leaves_nothing(maxcompute, rule):
    table = maxcompute.table("id BIGINT")
    maxcompute.fault(target=f"{table.name}.*blockid", **rule)
    with pytest.raises((errors.ODPSError, OSError)):
        upload(maxcompute, table, [[1]])
    assert maxcompute.rows(f"SELECT * FROM {table.name}") == []
    upload(maxcompute, table, [[1]])
    assert maxcompute.rows(f"SELECT * FROM {table.name}") == [[1]]


def test_a_connection_cut_in_the_answer_is_an_error_of_the_client(maxcompute):
    table = maxcompute.table("id BIGINT")
    upload(maxcompute, table, [[number] for number in range(2000)])
    maxcompute.fault(target="rowrange", cut="body")
    session = maxcompute.tunnel().create_download_session(table)
    with pytest.raises(urllib3.exceptions.ProtocolError):
        download(session)
    assert maxcompute.hits() == [1]
    assert len(download(session)) == 2000


def test_rules_skip_and_count_requests(maxcompute):
    table = maxcompute.table("id BIGINT")
    maxcompute.fault(target=f"tables/{table.name}$|tables/{table.name}\\?", method="GET", skip=1, times=1, status=400)
    table.reload()
    with pytest.raises(errors.ODPSError, match="a fault that was asked for"):
        table.reload()
    table.reload()
    assert maxcompute.hits() == [1]
