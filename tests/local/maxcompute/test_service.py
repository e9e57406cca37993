"""The server as a service: found again, over restarts and crashes, closed to whoever has no key."""

import threading

import pytest
import urllib3
from odps import errors
from odps.accounts import StsAccount

from vector_assets.engine.errors import ConfigError


def ask(maxcompute, path, **headers):
    return urllib3.request("GET", maxcompute.service.endpoint + path, headers=headers, retries=False, timeout=10)


def test_everything_survives_a_crash(own_maxcompute):
    server = own_maxcompute()
    table = server.table("id BIGINT, name STRING", "PARTITIONED BY (ds STRING)")
    with table.open_writer(partition="ds='a'", create_partition=True) as writer:
        writer.write([[1, "x"], [2, None]])
    instance = server.sql(f"SELECT id FROM {table.name}")
    half = server.tunnel().create_upload_session(table, partition_spec="ds='a'")
    with half.open_record_writer(0) as writer:
        writer.write(half.new_record([3, "later"]))
    download = server.tunnel().create_download_session(table, partition_spec="ds='a'")
    before = server.service.status()
    server.service.kill()
    server.service.start()
    assert server.service.status().pid != before.pid
    assert server.service.status().address == before.address
    assert server.rows(f"SELECT * FROM {table.name}") == [[1, "x", "a"], [2, None, "a"]]
    with server.odps.get_instance(instance.id).open_reader(tunnel=True) as reader:
        assert [record[0] for record in reader] == [1, 2]
    resumed = server.tunnel().create_download_session(table, partition_spec="ds='a'", download_id=download.id)
    assert resumed.count == 2
    again = server.tunnel().create_upload_session(table, partition_spec="ds='a'", upload_id=half.id)
    again.commit([0])
    with pytest.raises(errors.TableModified), resumed.open_record_reader(0, 2) as reader:
        list(reader)
    assert server.rows(f"SELECT count(*) FROM {table.name}") == [[3]]


def test_a_second_start_finds_the_server(own_maxcompute):
    server = own_maxcompute()
    pid = server.service.status().pid
    assert server.service.start().pid == pid
    assert type(server.service)(server.service.state_dir).access_id == server.service.access_id


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"access_id": "nobody"}, errors.Unauthorized),
        ({"secret_access_key": "wrong"}, errors.SignatureNotMatch),
        ({"project": "nowhere"}, errors.NoSuchProject),
    ],
    ids=["unknown id", "wrong secret", "unknown project"],
)
def test_wrong_credentials_and_projects_have_the_service_s_errors(maxcompute, changes, expected):
    odps = maxcompute.client(**changes)
    with pytest.raises(expected):
        odps.get_project().reload()
    with pytest.raises(expected):
        odps.execute_sql("SELECT 1")


def test_signatures_of_the_newer_form_are_checked(maxcompute):
    good = maxcompute.client(region_name="cn-hangzhou")
    assert maxcompute.rows("SELECT 1", good) == [[1]]
    bad = maxcompute.client(region_name="cn-hangzhou", secret_access_key="wrong")
    with pytest.raises(errors.SignatureNotMatch):
        bad.get_project().reload()


def test_temporary_keys_work_with_their_token_until_it_ends(maxcompute):
    def client(given, token):
        account = StsAccount(given["access_id"], given["access_key"], token)
        return maxcompute.client(account=account)

    given = maxcompute.service.ask("POST", "sts", {"seconds": 60})
    assert maxcompute.rows("SELECT 1", client(given, given["token"])) == [[1]]
    with pytest.raises(errors.Unauthorized, match="wrong STS token"):
        client(given, "other").get_project().reload()
    ended = maxcompute.service.ask("POST", "sts", {"seconds": 0})
    with pytest.raises(errors.Unauthorized, match="has expired"):
        client(ended, ended["token"]).get_project().reload()


def test_a_request_without_a_signature_is_refused(maxcompute):
    assert ask(maxcompute, "/projects").status == 401
    assert ask(maxcompute, "/local/faults").status == 401
    assert ask(maxcompute, "/local/faults", Authorization="Bearer wrong").status == 401
    assert ask(maxcompute, "/local/id").json()["server"] == "vector-assets maxcompute"


def test_a_foreign_host_name_is_refused(maxcompute):
    assert ask(maxcompute, "/console", Host="evil.example").status == 403


def test_unknown_administration_is_refused_with_what_is_known(maxcompute):
    with pytest.raises(ConfigError, match="known: POST projects, sts, sessions, faults"):
        maxcompute.service.ask("POST", "nothing", {})
    with pytest.raises(ConfigError, match="unknown field when; known: code, cut, delay_s"):
        maxcompute.fault(when="now")


def test_the_console_shows_projects_tables_partitions_and_rows(maxcompute):
    table = maxcompute.table("id BIGINT, name STRING, b BINARY", "PARTITIONED BY (ds STRING, h STRING)")
    maxcompute.sql(f"INSERT INTO {table.name} PARTITION (ds='a', h='<1>') SELECT 7, '<script>', NULL")
    assert "local" in ask(maxcompute, "/").data.decode()
    assert f"/console/local/default/{table.name}" in ask(maxcompute, "/console/local").data.decode()
    page = ask(maxcompute, f"/console/local/default/{table.name}").data.decode()
    assert "PARTITIONED BY" in page
    assert "<td>7</td><td>&lt;script&gt;</td>" in page
    assert "<script>" not in page
    place = f"/console/local/default/{table.name}/ds%3Da%2Ch%3D%3C1%3E"
    assert place in page
    assert "<td>7</td>" in ask(maxcompute, place).data.decode()
    assert ask(maxcompute, "/console/local/default/none").status == 404


def test_many_clients_at_once_lose_nothing(maxcompute):
    table = maxcompute.table("id BIGINT")

    def write(number):
        odps = maxcompute.client()
        session = maxcompute.tunnel(odps).create_upload_session(odps.get_table(table.name))
        with session.open_record_writer(0) as writer:
            writer.write(session.new_record([number]))
        session.commit([0])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(maxcompute.rows(f"SELECT id FROM {table.name}")) == [[number] for number in range(8)]
