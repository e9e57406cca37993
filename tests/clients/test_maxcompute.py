"""The MaxCompute client against the local server: what it sees, what it reads, and how often it asks."""

import sys
import time
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from pydantic import SecretStr

from tests.fix_maxcompute import MaxCompute as Server
from vector_assets.clients.maxcompute import Login, MaxCompute
from vector_assets.clients.maxcompute_errors import (
    NoPartitionError,
    NoTableError,
    SessionEndedError,
    TableModifiedError,
)
from vector_assets.clients.maxcompute_read import Snapshot, open_snapshot, read_partition
from vector_assets.clients.maxcompute_types import is_widening, type_text
from vector_assets.engine.errors import ConfigError, PlanError, TransientError, UnavailableError
from vector_assets.engine.retry import RetryPolicy
from vector_assets.engine.schema import LogicalType

pytestmark = pytest.mark.service

QUICK = RetryPolicy(2, 0.01, outage_seconds=0.0)
NESTED = "TBLPROPERTIES ('columnar.nested.type'='true')"


def login_of(server: Server, **changes: Any) -> Login:
    service = server.service
    given = Login(service.endpoint, "local", service.access_id, SecretStr(service.access_key))
    return replace(given, **changes)


def client(server: Server, policy: RetryPolicy = QUICK, codec: Any = "SNAPPY", **changes: Any) -> MaxCompute:
    return MaxCompute(login_of(server, **changes), policy, codec)


def filled(server: Server, rows: int = 5) -> Any:
    """A partitioned table with one partition `ds=a/hh=01`."""
    table = server.table("id bigint, name string", "PARTITIONED BY (ds string, hh string)")
    server.sql(f"ALTER TABLE {table.name} ADD PARTITION (ds='a',hh='01')")
    with table.open_writer(partition="ds='a',hh='01'") as writer:
        writer.write([[at, f"n{at}"] for at in range(rows)])
    return table


def test_a_table_shows_its_columns_levels_and_kind(maxcompute: Server) -> None:
    plain = client(maxcompute).table(filled(maxcompute).name)
    assert [(c.name, str(c.type)) for c in plain.columns] == [("id", "BIGINT"), ("name", "STRING")]
    assert [c.name for c in plain.levels] == ["ds", "hh"]
    assert (plain.is_delta, plain.is_view, plain.is_partitioned) == (False, False, True)
    delta = maxcompute.table("id bigint not null, v string, primary key (id)", "TBLPROPERTIES ('transactional'='true')")
    found = client(maxcompute).table(delta.name)
    assert found.is_delta
    with pytest.raises(PlanError, match="reading from a MaxCompute Delta table is not supported"):
        next(read_partition(client(maxcompute), found))


def test_partitions_have_their_version_and_size(maxcompute: Server) -> None:
    service = client(maxcompute)
    table = service.table(filled(maxcompute).name)
    maxcompute.sql(f"ALTER TABLE {table.handle.name} ADD PARTITION (ds='b',hh='01')")
    first, second = service.partitions(table)
    assert (first.spec, first.values, first.rows) == ("ds=a/hh=01", ("a", "01"), 5)
    assert abs(first.modified - time.time()) < 60
    assert first.bytes > 0
    assert (second.spec, second.rows) == ("ds=b/hh=01", 0)
    assert [each.spec for each in service.partitions(table, "ds=b")] == ["ds=b/hh=01"]
    assert service.partition(table, "ds=a/hh=01") == first
    with pytest.raises(NoPartitionError):
        service.partition(table, "ds=c/hh=01")


@pytest.mark.parametrize("codec", ["RAW", "ZLIB", "SNAPPY"])
def test_a_partition_is_read_in_arrow(maxcompute: Server, codec: str) -> None:
    service = client(maxcompute, codec=codec)
    table = service.table(filled(maxcompute, 20_000).name)
    rows = pa.Table.from_batches(read_partition(service, table, "ds=a/hh=01"))
    assert rows.column_names == ["id", "name", "ds", "hh"]
    assert rows.column("id").to_pylist() == list(range(20_000))
    assert set(rows.column("hh").to_pylist()) == {"01"}
    part = pa.Table.from_batches(read_partition(service, table, "ds=a/hh=01", ["hh", "name"], 9_990, 20))
    assert part.column_names == ["hh", "name"]
    assert part.column("name").to_pylist() == [f"n{at}" for at in range(9_990, 10_010)]
    only = pa.Table.from_batches(read_partition(service, table, "ds=a/hh=01", ["ds"]))
    assert (only.num_rows, only.column_names) == (20_000, ["ds"])


def test_json_is_read_as_the_text_it_is(maxcompute: Server) -> None:
    table = maxcompute.table("id bigint, doc json, tags array<string>", NESTED)
    with table.open_writer() as writer:
        writer.write([[1, {"a": [1, 2.5]}, ["x"]], [2, None, None]])
    service = client(maxcompute)
    rows = pa.Table.from_batches(read_partition(service, service.table(table.name)))
    assert rows.to_pylist() == [
        {"id": 1, "doc": '{"a": [1, 2.5]}', "tags": ["x"]},
        {"id": 2, "doc": None, "tags": None},
    ]


def test_nested_columns_want_the_table_property(maxcompute: Server) -> None:
    service = client(maxcompute)
    table = service.table(maxcompute.table("id bigint, tags array<string>").name)
    with pytest.raises(PlanError, match=r"tags ARRAY<STRING>.*tblproperties\('columnar.nested.type'='true'\)"):
        list(read_partition(service, table))
    assert list(read_partition(service, table, columns=["id"])) == []


def test_three_tiers_are_reached_by_schema(maxcompute: Server) -> None:
    odps = maxcompute.client(project="tiers")
    odps.create_schema("s1") if not odps.exist_schema("s1") else None
    name = maxcompute.fresh_name()
    odps.create_table(name, "id bigint", schema="s1")
    service = client(maxcompute, project="tiers", schema="s1")
    found = service.table(name)
    assert found.name == f"tiers.s1.{name}"
    assert list(read_partition(service, found)) == []
    with pytest.raises(NoTableError):
        client(maxcompute, project="tiers").table(name)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"access_key": SecretStr("wrong-secret")}, ConfigError, "check accessId and accessKey"),
        ({"access_id": "nobody"}, ConfigError, "check accessId and accessKey"),
        ({"project": "nowhere"}, ConfigError, "check the option project"),
        ({"endpoint": "http://127.0.0.1:1"}, UnavailableError, "nobody answers"),
    ],
    ids=["key", "id", "project", "address"],
)
def test_what_is_wrong_with_the_login_is_named(
    maxcompute: Server, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        client(maxcompute, **changes).table("t")
    assert "wrong-secret" not in str(caught.value)
    assert maxcompute.service.access_key not in str(caught.value)


def test_a_quota_gives_way_to_a_tunnel_that_is_named(maxcompute: Server) -> None:
    table = filled(maxcompute)
    for changes in ({"quota": "local_quota"}, {"quota": "none", "tunnel_endpoint": maxcompute.service.endpoint}):
        service = client(maxcompute, **changes)
        assert open_snapshot(service, service.table(table.name), "ds=a/hh=01").rows == 5
    service = client(maxcompute, quota="none")
    with pytest.raises(ConfigError, match="quotaName"):
        open_snapshot(service, service.table(table.name), "ds=a/hh=01")


def test_an_sts_token_is_sent_and_its_end_named(maxcompute: Server) -> None:
    table = filled(maxcompute)
    for seconds, fails in ((60, False), (0, True)):
        key = maxcompute.service.ask("POST", "sts", {"seconds": seconds})
        service = client(
            maxcompute,
            access_id=key["access_id"],
            access_key=SecretStr(key["access_key"]),
            sts_token=SecretStr(key["token"]),
        )
        if fails:
            with pytest.raises(ConfigError, match="STS token has expired"):
                service.table(table.name)
        else:
            assert service.table(table.name).is_partitioned


FAULTS = {"429": {"status": 429}, "500": {"status": 500}, "308": {"status": 308}, "503": {"status": 503}}
CUTS = {f"cut-{where}": {"cut": where} for where in ("before", "after", "body")}
REQUESTS = {
    "table": r"/tables/[^/?]+\?(?!.*download)",
    "open": "downloads",
    "data": "rowrange",
    "list": r"\?partitions",
}


@pytest.mark.parametrize("target", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("fault", [*FAULTS.values(), *CUTS.values()], ids=[*FAULTS, *CUTS])
def test_every_request_is_tried_as_often_as_the_policy_says(
    maxcompute: Server, target: str, fault: dict[str, Any]
) -> None:
    name = filled(maxcompute).name

    def read() -> int:
        service = client(maxcompute)
        table = service.table(name)
        assert len(service.partitions(table)) == 1
        return sum(batch.num_rows for batch in read_partition(service, table, "ds=a/hh=01"))

    maxcompute.fault(target=target, times=2, **fault)
    assert read() == 5
    assert maxcompute.hits() == [2]
    maxcompute.fault(target=target, times=100, **fault)
    began = time.monotonic()
    with pytest.raises(TransientError):
        read()
    assert time.monotonic() - began < 5
    assert maxcompute.hits() == [2, 3]


def test_a_snapshot_ends_when_the_partition_changes_or_goes(maxcompute: Server) -> None:
    service = client(maxcompute)
    handle = filled(maxcompute)
    table = service.table(handle.name)
    snapshot = open_snapshot(service, table, "ds=a/hh=01")
    again = Snapshot(table, snapshot.spec, snapshot.id, snapshot.rows)
    assert sum(b.num_rows for b in read_partition(service, table, "ds=a/hh=01", snapshot=again)) == 5
    with handle.open_writer(partition="ds='a',hh='01'") as writer:
        writer.write([[9, "x"]])
    with pytest.raises(TableModifiedError):
        list(read_partition(service, table, "ds=a/hh=01", snapshot=snapshot))
    fresh = open_snapshot(service, table, "ds=a/hh=01")
    maxcompute.service.ask("POST", "sessions", {"expire": fresh.id})
    with pytest.raises(SessionEndedError, match="expired"):
        list(read_partition(service, table, "ds=a/hh=01", snapshot=fresh))
    with pytest.raises(NoPartitionError):
        open_snapshot(service, table, "ds=zz/hh=01")


TYPES = [
    ("boolean", "BOOLEAN"), ("tinyint", "TINYINT"), ("smallint", "SMALLINT"), ("int", "INT"), ("bigint", "BIGINT"),
    ("float", "FLOAT"), ("double", "DOUBLE"), ("decimal(10,2)", "DECIMAL(10, 2)"), ("char(3)", "CHAR(3)"),
    ("varchar(9)", "VARCHAR(9)"), ("string", "STRING"), ("binary", "BYTES"), ("date", "DATE"),
    ("datetime", "TIMESTAMP(3)"), ("timestamp", "TIMESTAMP(9)"), ("timestamp_ntz", "TIMESTAMP(9)"),
    ("array<bigint>", "ARRAY<BIGINT>"), ("map<string,int>", "MAP<STRING, INT>"),
    ("struct<a:int,b:string>", "ROW<a INT, b STRING>"), ("json", "STRING"),
]  # fmt: skip


def test_every_type_has_its_counterpart(maxcompute: Server) -> None:
    columns = ", ".join(f"c{at} {kind}" for at, (kind, _) in enumerate(TYPES))
    found = client(maxcompute).table(maxcompute.table(columns, NESTED).name)
    assert [str(column.type) for column in found.columns] == [kind for _, kind in TYPES]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (LogicalType("VARCHAR"), "STRING"),
        (LogicalType("VARCHAR", 70_000), "STRING"),
        (LogicalType("CHAR", 3), "CHAR(3)"),
        (LogicalType("TIMESTAMP", 3), "DATETIME"),
        (LogicalType("TIMESTAMP", 9), "TIMESTAMP_NTZ"),
        (LogicalType("TIMESTAMP_LTZ", 6), "TIMESTAMP"),
        (LogicalType("DECIMAL", 10, 2), "DECIMAL(10,2)"),
        (LogicalType("ROW", children=(LogicalType("INT"),), child_names=("a",)), "STRUCT<a:INT>"),
        (LogicalType("MAP", children=(LogicalType("VARCHAR"), LogicalType("INT"))), "MAP<STRING,INT>"),
    ],
    ids=str,
)
def test_types_have_their_spelling_in_ddl(kind: LogicalType, text: str) -> None:
    assert type_text(kind) == text


def test_a_declared_type_may_be_wider_but_not_narrower() -> None:
    assert is_widening(LogicalType("INT"), LogicalType("BIGINT"))
    assert not is_widening(LogicalType("BIGINT"), LogicalType("INT"))
    assert is_widening(LogicalType("DECIMAL", 10, 2), LogicalType("DECIMAL", 12, 3))
    assert not is_widening(LogicalType("DECIMAL", 10, 2), LogicalType("DECIMAL", 10, 3))
    assert not is_widening(LogicalType("VARCHAR"), LogicalType("VARCHAR", 10))


def test_pyodps_that_is_not_installed_is_told_with_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "vector_assets.clients.maxcompute_rest", raising=False)
    monkeypatch.setitem(sys.modules, "odps", None)
    login = Login("http://127.0.0.1:1", "p", "id", SecretStr("key"))
    with pytest.raises(ConfigError, match=r"needs the package odps: pip install 'vector-assets\[maxcompute\]'"):
        MaxCompute(login, QUICK).import_client()
