"""The MaxCompute source, full mode: partitions, snapshots, types, and what goes wrong."""

import datetime as dt
import decimal
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest

from tests.declare.seeds import seed, statements
from tests.fix_maxcompute import MaxCompute as Server
from tests.sources.contract import SourceContract, Upstream
from tests.sources.maxcompute_table import fill, named, partitioned, pipeline_of, rows_of, source_of, values_of
from tests.sources.reading import NO_LIMIT, drain, read
from vector_assets import api
from vector_assets.cli.description import describe
from vector_assets.declare import compile_script
from vector_assets.defs import probe, sensors
from vector_assets.engine import env, health
from vector_assets.engine.archive import Archive
from vector_assets.engine.core import BatchLimit, Source
from vector_assets.engine.errors import ConfigError, FatalError, PlanError, PositionLostError, TransientError
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.preview import preview
from vector_assets.engine.run import Outcome, Runner
from vector_assets.engine.session import Books, Session

pytestmark = pytest.mark.service
WAYS = {"tunnel": {}, "storage": {"useArrow": "true", "splitSize": "1 kb"}}
TINY = BatchLimit(7, 1 << 30)


class MaxComputeContract(SourceContract):
    """Two partitions; a value is the one STRING column. Which rows are read is settled by the first plan."""

    OPTIONS: ClassVar[dict[str, str]] = {}

    @pytest.fixture
    def upstream(self, maxcompute: Server) -> Upstream:
        self.table = partitioned(maxcompute, {}, "v string")
        maxcompute.sql(f"ALTER TABLE {self.table} ADD PARTITION (ds='0')")
        maxcompute.sql(f"ALTER TABLE {self.table} ADD PARTITION (ds='1')")

        def append(split: int, values: list[bytes]) -> None:
            fill(maxcompute, self.table, f"ds={split}", [[value.decode()] for value in values])

        def expire() -> None:
            maxcompute.sql(f"ALTER TABLE {self.table} DROP PARTITION (ds='0')")
            maxcompute.sql(f"ALTER TABLE {self.table} DROP PARTITION (ds='1')")

        return Upstream(append, expire)

    @pytest.fixture
    def source(self, upstream: Upstream, maxcompute: Server) -> Iterator[Source]:
        found = source_of(maxcompute, self.table, "v STRING", partition="ds=*", **self.OPTIONS)
        yield found
        found.close()

    def test_records_come_as_raw_schema_in_order_within_their_split(self, source: Any, upstream: Any) -> None:
        upstream.append(0, [b"a", b"b", b"c"])
        upstream.append(1, [b"d", b"e"])
        table, _ = read(source, source.plan(source.start(), NO_LIMIT))
        assert values_of([table]).column("v").to_pylist() == ["a", "b", "c", "d", "e"]
        assert table.column("offset").to_pylist() == [0, 1, 2, 0, 1]
        assert table.column("split").to_pylist() == [0, 0, 0, 1, 1]

    def test_the_position_after_the_last_record_is_the_frontier(self, source: Any, upstream: Any) -> None:
        upstream.append(0, [b"a", b"b", b"c"])
        upstream.append(1, [b"d"])
        _, position = drain(source, source.start())
        assert source.lag(position, source.frontier()) == 0
        assert source.plan(position, NO_LIMIT) is None

    def test_resuming_reads_every_record_once(self, source: Any, upstream: Any) -> None:
        upstream.append(0, [b"a%d" % number for number in range(50)])
        upstream.append(1, [b"b%d" % number for number in range(31)])
        tables, position = drain(source, source.start(), TINY)
        more, _ = drain(source, position)
        found = values_of([*tables, *more]).column("v").to_pylist()
        assert len(found) == len(set(found)) == 81

    def test_nothing_is_planned_past_a_frontier_seen_before(self, source: Any, upstream: Any) -> None:
        """A snapshot instead: what is written after the first plan ends the reading under a name."""
        upstream.append(0, [b"a", b"b"])
        _, span = read(source, source.plan(source.start(), BatchLimit(1, 1 << 30)))
        source.close()  # rows that were fetched ahead are those of the snapshot
        upstream.append(0, [b"c"])
        with pytest.raises(PositionLostError, match="RECREATED"):
            read(source, source.plan(span.end, NO_LIMIT))

    def test_an_operator_can_name_the_earliest_and_the_latest_place(self, source: Any, upstream: Any) -> None:
        upstream.append(0, [b"a"] * 10)
        upstream.append(1, [b"b"] * 5)
        assert source.lag(source.locate("earliest"), source.frontier()) == 15
        assert source.lag(source.locate("latest"), source.frontier()) == 0
        rest, _ = drain(source, source.locate("ds=0:8;ds=1:4"))
        assert sum(table.num_rows for table in rest) == 3
        with pytest.raises(ConfigError, match="partitions that are read: ds=0, ds=1"):
            source.locate("ds=7:1")


class TestTunnelContract(MaxComputeContract):
    pass


class TestStorageContract(MaxComputeContract):
    """How many rows a session has shows at its end, so a batch is of one partition."""

    OPTIONS: ClassVar[dict[str, str]] = {"useArrow": "true", "splitSize": "64 bytes"}

    def test_records_come_as_raw_schema_in_order_within_their_split(self, source: Any, upstream: Any) -> None:
        upstream.append(0, [b"a", b"b", b"c"])
        upstream.append(1, [b"d", b"e"])
        tables, _ = drain(source, source.start())
        assert [values_of([table]).column("v").to_pylist() for table in tables] == [["a", "b", "c"], ["d", "e"]]
        assert [table.column("offset").to_pylist() for table in tables] == [[0, 1, 2], [0, 1]]

    def test_a_reading_given_up_half_way_can_start_again(self, source: Any, upstream: Any) -> None:
        upstream.append(0, [b"a"] * 10)
        span = source.plan(source.start(), NO_LIMIT)
        reading = source.read(span, NO_LIMIT)
        next(reading)
        reading.close()
        table, _ = read(source, span)
        assert table.num_rows == 10


PARTITIONS = {"ds=20180904": 1, "ds=20180905": 2, "ds=20180906": 3, "ds=20190101": 4}


@pytest.mark.parametrize(
    ("partition", "counts"),
    [
        ("ds=20180905", [2]),
        ("ds='20180905'", [2]),
        ("DS=20180905", [2]),
        ("ds=2018****", [1, 2, 3]),
        ("ds=201809*", [1, 2, 3]),
        ("ds=*0", []),
        ("ds=*5,ds=20190101", [2, 4]),
        ("max_pt()", [4]),
        ("max_two_pt()", [3, 4]),
        ("MAX_PT( )", [4]),
    ],
)
def test_the_option_partition_says_which_are_read(maxcompute: Server, partition: str, counts: list[int]) -> None:
    table = partitioned(maxcompute, PARTITIONS)
    source = source_of(maxcompute, table, partition=partition.replace("'", "''"))
    if not counts:
        with pytest.raises(PlanError, match=r"no partition matches.*its newest: ds=20190101, ds=20180906"):
            source.start()
        return
    span = source.plan(source.start(), NO_LIMIT)
    assert [part.end["until"] for part in span.ranges] == counts
    assert span.ranges[0].split.startswith(f"local.{table}/ds=2018" if counts != [4] else f"local.{table}/ds=2019")
    assert rows_of(source).num_rows == sum(counts)


@pytest.mark.parametrize(
    ("partition", "count"),
    [("yyyy=2018,MM=09,dd=05", 1), ("yyyy=2018/MM=09", 3), ("yyyy=2018,MM=*,dd=05", 5), ("dd=05,yyyy=2018", 5),
     ("yyyy=2018,MM=09,dd=05,yyyy=2018,MM=10,dd=05", 5), ("max_pt()", 4)],
)  # fmt: skip
def test_levels_are_matched_one_by_one(maxcompute: Server, partition: str, count: int) -> None:
    sizes = {"yyyy=2018,MM=09,dd=05": 1, "yyyy=2018,MM=09,dd=06": 2, "yyyy=2018,MM=10,dd=05": 4}
    table = partitioned(maxcompute, sizes, levels="yyyy string, MM string, dd string")
    assert rows_of(source_of(maxcompute, table, partition=partition)).num_rows == count


@pytest.mark.parametrize("partition", ["20180905", "ds", "ds=", "max_three_pt()", "ds=1,,ds=2"])
def test_a_partition_that_is_not_understood_is_refused_at_its_place(maxcompute: Server, partition: str) -> None:
    with pytest.raises(ConfigError, match=r"max_pt\(\) or max_two_pt\(\)") as caught:
        pipeline_of(maxcompute, "t", partition=partition)
    assert caught.value.place is not None


def test_a_table_and_its_options_agree_about_partitions(maxcompute: Server) -> None:
    table = partitioned(maxcompute, {"ds=a": 1})
    with pytest.raises(ConfigError, match=r"partitioned by ds: set the option 'partition'.*or 'startPartition'"):
        source_of(maxcompute, table).start()
    with pytest.raises(PlanError, match=r"there is no level dt.*levels: ds"):
        source_of(maxcompute, table, partition="dt=a").start()
    plain = maxcompute.table("id bigint, name string").name
    fill(maxcompute, plain, "", named(3))
    with pytest.raises(ConfigError, match="leave out the option 'partition'"):
        source_of(maxcompute, plain, partition="ds=a").start()
    source = source_of(maxcompute, plain)
    assert list(source.start()) == [f"local.{plain}"]
    assert rows_of(source).column("id").to_pylist() == [0, 1, 2]


def test_more_partitions_than_the_limit_are_refused_before_a_session_opens(maxcompute: Server) -> None:
    table = partitioned(maxcompute, {})
    groups = ", ".join(f"PARTITION (ds='{at:03}')" for at in range(101))
    maxcompute.sql(f"ALTER TABLE {table} ADD {groups}")
    maxcompute.fault(target="downloads|batch_read", status=400, times=100)
    words = "The number of matched partitions exceeds the default limit: 101 partitions match.*maxPartitionCount is 100"
    for use_arrow in ("false", "true"):
        with pytest.raises(PlanError, match=words):
            source_of(maxcompute, table, partition="ds=*", useArrow=use_arrow).start()
    assert maxcompute.hits() == [0]
    assert len(source_of(maxcompute, table, partition="ds=*", maxPartitionCount=101).start()) == 101
    with pytest.raises(ConfigError, match="maxPartitionCount"):
        pipeline_of(maxcompute, table, maxPartitionCount=0)


def test_conditions_on_partition_columns_leave_out_partitions(maxcompute: Server) -> None:
    table = partitioned(maxcompute, PARTITIONS)
    columns = "id BIGINT, name STRING, ds STRING"
    where = "WHERE ds >= '20180905' AND ds IN ('20180904', '20180906', '20190101') AND id < 2"
    source = source_of(maxcompute, table, columns, where=where, partition="ds=2018*", maxPartitionCount=1)
    assert list(source.start()) == [f"local.{table}/ds=20180906"]
    nothing = source_of(maxcompute, table, columns, where="WHERE ds = '7'", partition="ds=*")
    assert nothing.start() == {}
    cast = source_of(maxcompute, table, columns, where="WHERE CAST(ds AS INT) > 20190000", partition="ds=*")
    assert len(cast.start()) == 4, "only comparisons with constants are pushed down"


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_only_the_columns_of_the_select_are_asked_for(maxcompute: Server, way: dict[str, str]) -> None:
    table = partitioned(maxcompute, {"ds=a": 3})
    columns = "id BIGINT, name STRING, ds STRING"
    some = source_of(maxcompute, table, columns, select="name", to="n STRING", partition="ds=a", **way)
    assert rows_of(some).column_names == ["name"]
    both = source_of(
        maxcompute, table, columns, select="id", where="WHERE name <> 'x'", to="i BIGINT", partition="ds=a"
    )
    assert rows_of(both).column_names == ["id", "name"]
    none = source_of(maxcompute, table, columns, select="1", to="one INT", partition="ds=a", **way)
    assert rows_of(none).num_rows == 3
    level = source_of(maxcompute, table, columns, select="ds", to="d STRING", partition="ds=a", **way)
    assert rows_of(level).column("ds").to_pylist() == ["a"] * 3


EVERY = [
    ("boolean", "BOOLEAN", True), ("tinyint", "TINYINT", -1), ("smallint", "SMALLINT", 2), ("int", "INT", 3),
    ("bigint", "BIGINT", 4), ("float", "FLOAT", 0.5), ("double", "DOUBLE", 1.5),
    ("decimal(10,2)", "DECIMAL(10, 2)", "3.25"),
    ("char(3)", "CHAR(3)", "abc"), ("varchar(9)", "VARCHAR(9)", "x"), ("string", "STRING", "text"),
    ("binary", "BYTES", b"\0\1"), ("date", "DATE", "DATE"), ("datetime", "TIMESTAMP(3)", "MS"),
    ("timestamp", "TIMESTAMP(9)", "NS"), ("timestamp_ntz", "TIMESTAMP(9)", "NS"),
    ("array<bigint>", "ARRAY<BIGINT>", [1, 2]),
    ("map<string,int>", "MAP<STRING, INT>", {"a": 1}), ("struct<a:int,b:string>", "ROW<a INT, b STRING>", (1, "x")),
    ("json", "STRING", {"k": [1]}),
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_every_type_is_read_as_the_mapping_says(maxcompute: Server, way: dict[str, str]) -> None:
    kinds = [each for each in EVERY if not (way and each[0] == "json")]
    columns = ", ".join(f"c{at} {kind}" for at, (kind, _, _) in enumerate(EVERY))
    table = maxcompute.table(columns, "TBLPROPERTIES ('columnar.nested.type'='true')")
    moment = dt.datetime(2026, 1, 2, 3, 4, 5, 678000)  # noqa: DTZ001 (without a zone, as MaxCompute keeps it)
    given = {"DATE": dt.date(2026, 1, 2), "MS": moment, "NS": moment, "3.25": decimal.Decimal("3.25")}
    values = [
        pd.Timestamp(moment) if value == "NS" else given.get(value, value) if isinstance(value, str) else value
        for _, _, value in EVERY
    ]
    odps = maxcompute.client()
    from odps.config import option_context

    with option_context({"local_timezone": False}), odps.get_table(table.name).open_writer() as writer:
        writer.write([values, [None] * len(EVERY)])
    declared = ", ".join(f"c{at} {kind}" for at, (_, kind, _) in enumerate(EVERY) if EVERY[at] in kinds)
    rows = rows_of(source_of(maxcompute, table.name, declared, **way))
    first, second = rows.to_pylist()
    assert set(second.values()) == {None}
    wanted = {
        "binary": b"\0\1", "date": dt.date(2026, 1, 2), "datetime": moment, "decimal(10,2)": decimal.Decimal("3.25"),
        "map<string,int>": [("a", 1)], "struct<a:int,b:string>": {"a": 1, "b": "x"}, "json": '{"k": [1]}',
    }  # fmt: skip
    for at, (kind, _, value) in enumerate(EVERY):
        if EVERY[at] not in kinds:
            continue
        if kind.startswith("timestamp"):
            assert rows.schema.field(f"c{at}").type == pa.timestamp("ns")
            assert first[f"c{at}"].to_pydatetime() == moment
        else:
            assert first[f"c{at}"] == wanted.get(kind, value), kind


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ("id INT, name STRING", "column id is BIGINT, which is read as BIGINT; the declaration says INT"),
        ("id BIGINT, nam STRING", "has no column nam; its columns: id, name, ds"),
        ("id BIGINT, name VARCHAR(5)", r"column name is STRING.*the declaration says VARCHAR\(5\)"),
        ("id STRING, name STRING", "column id is BIGINT"),
    ],
    ids=["narrower", "missing", "shorter", "other"],
)
def test_a_declaration_that_does_not_fit_the_table_is_refused(maxcompute: Server, declared: str, words: str) -> None:
    table = partitioned(maxcompute, {"ds=a": 1})
    with pytest.raises(PlanError, match=words):
        source_of(maxcompute, table, declared, partition="ds=a").start()


def test_wider_types_and_other_cases_are_taken(maxcompute: Server) -> None:
    table = maxcompute.table("id int, f float, t timestamp", "PARTITIONED BY (n bigint)").name
    fill(maxcompute, table, "n=7", [[1, 0.5, None]])
    rows = rows_of(source_of(maxcompute, table, "ID BIGINT, f DOUBLE, t TIMESTAMP_LTZ(9), n BIGINT", partition="n=7"))
    assert rows.to_pylist() == [{"ID": 1, "f": 0.5, "t": None, "n": 7}]


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_delta_tables_views_and_nested_columns_are_refused_with_the_reason(
    maxcompute: Server, way: dict[str, str]
) -> None:
    delta = maxcompute.table("id bigint not null, v string, primary key (id)", "TBLPROPERTIES ('transactional'='true')")
    with pytest.raises(PlanError, match="reading from a MaxCompute Delta table is not supported"):
        source_of(maxcompute, delta.name, "id BIGINT, v STRING", **way).start()
    nested = maxcompute.table("id bigint, tags array<string>")
    with pytest.raises(PlanError, match=r"tblproperties\('columnar.nested.type'='true'\)"):
        source_of(maxcompute, nested.name, "id BIGINT, tags ARRAY<STRING>", **way).start()
    assert source_of(maxcompute, nested.name, "id BIGINT", **way).start()
    view = maxcompute.fresh_name("v")
    maxcompute.sql(f"CREATE VIEW {view} AS SELECT id FROM {nested.name}")
    with pytest.raises(PlanError, match="is a view"):
        source_of(maxcompute, view, "id BIGINT", **way).start()


def test_json_is_not_read_by_the_storage_api(maxcompute: Server) -> None:
    table = maxcompute.table("id bigint, doc json", "TBLPROPERTIES ('columnar.nested.type'='true')").name
    fill(maxcompute, table, "", [[1, {"a": 1}]])
    source = source_of(maxcompute, table, "id BIGINT, doc STRING", useArrow="true")
    with pytest.raises(PlanError, match="useArrow reads no JSON column \\(doc\\)"):
        source.plan(source.start(), NO_LIMIT)


@pytest.mark.parametrize("codec", ["", "ZSTD", "LZ4_FRAME", "zstd"])
@pytest.mark.parametrize("balances", ["true", "false"])
def test_splits_of_the_storage_api_come_in_order(maxcompute: Server, codec: str, balances: str) -> None:
    table = partitioned(maxcompute, {"ds=a": 3000, "ds=b": 10})
    options = {"useArrow": "true", "splitSize": "4 kb", "compressCodec": codec, "dynamicLoadBalance": balances}
    source = source_of(maxcompute, table, partition="ds=*", **options)
    tables, position = drain(source, source.start(), BatchLimit(700, 1 << 30))
    assert values_of(tables).column("id").to_pylist() == [*range(3000), *range(10)]
    assert max(token["parts"] for token in position.values()) > 3
    assert source.lag(position, source.frontier()) == 0
    source.close()


def threads_of_splits(maxcompute: Server, monkeypatch: pytest.MonkeyPatch, balances: str) -> dict[int, str]:
    """Which thread fetched which split, where the first split is slow."""
    import threading

    from vector_assets.sources import maxcompute_ahead

    fetched: dict[int, str] = {}
    whole = maxcompute_ahead.read_split

    def spied(service: Any, session: Any, number: int, *more: Any) -> Any:
        fetched[number] = threading.current_thread().name
        return whole(service, session, number, *more)

    monkeypatch.setattr(maxcompute_ahead, "read_split", spied)
    table = partitioned(maxcompute, {"ds=a": 1800})
    maxcompute.fault(target="split_index=0", delay_s=0.7)
    options = {"useArrow": "true", "splitSize": "2 kb", "dynamicLoadBalance": balances}
    source = source_of(maxcompute, table, partition="ds=a", **options)
    assert rows_of(source).num_rows == 1800
    source.close()
    return fetched


def test_dynamic_load_balance_shares_one_queue_of_splits(maxcompute: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = threads_of_splits(maxcompute, monkeypatch, "true")
    assert len(fetched) > 6
    assert fetched[3] != fetched[0], "the thread with the slow split does not get the next one"


def test_without_it_each_thread_has_every_nth_split(maxcompute: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = threads_of_splits(maxcompute, monkeypatch, "false")
    assert len(fetched) > 6
    assert all(fetched[number] == fetched[number % 3] for number in fetched)


def test_options_without_effect_are_reported_once(maxcompute: Server) -> None:
    def reports(**more: str) -> list[str]:
        return [each.partition("table src: ")[2] for each in pipeline_of(maxcompute, "t", **more).reports]

    assert reports(splitSize="1 mb", compressCodec="ZSTD", dynamicLoadBalance="true") == [
        "option 'splitSize' has no effect: useArrow is not true",
        "option 'compressCodec' has no effect: useArrow is not true",
        "option 'dynamicLoadBalance' has no effect: useArrow is not true",
    ]
    assert reports(useArrow="true", splitSize="1 mb") == []
    assert "compressCodec says the codec" in reports(useArrow="true", compressAlgorithm="RAW")[0]
    assert "tunnelEndpoint is given" in reports(quotaName="q", tunnelEndpoint="http://127.0.0.1:1")[0]


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("useArrow", "maybe", "want true or false"),
        ("splitSize", "big", "want a size"),
        ("splitSize", "0", "splitSize"),
        ("compressCodec", "GZIP", "ZSTD"),
        ("dynamicLoadBalance", "1", "want true or false"),
        ("compressAlgorithm", "LZ4", "SNAPPY"),
        ("endpoint", "service.example", "want http://host"),
        ("endpoint", "http://me:secret@host", "holds credentials"),
        ("retryTimes", "-1", "retryTimes"),
        ("sleepMillis", "x", "sleepMillis"),
        ("maxPartitionCount", "many", "maxPartitionCount"),
        ("partitions", "ds=1", "unknown option 'partitions' \\(did you mean 'partition'"),
    ],
)
def test_an_option_with_a_wrong_value_is_refused_at_its_place(
    maxcompute: Server, option: str, value: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        pipeline_of(maxcompute, "t", **{option: value})
    assert caught.value.place is not None
    assert maxcompute.service.access_key not in str(caught.value)
    assert "secret@" not in str(caught.value)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("change", ["modified", "dropped"])
def test_a_partition_that_changes_while_it_is_read_is_a_named_outcome(
    maxcompute: Server, way: dict[str, str], change: str
) -> None:
    table = partitioned(maxcompute, {"ds=a": 100})
    source = source_of(maxcompute, table, partition="ds=a", **way)
    _, span = read(source, source.plan(source.start(), TINY), TINY)
    if change == "modified":
        fill(maxcompute, table, "ds=a", named(1))
    else:
        maxcompute.sql(f"ALTER TABLE {table} DROP PARTITION (ds='a')")
    source.close()
    again = source_of(maxcompute, table, partition="ds=*" if change == "modified" else "ds=a", **way)
    with pytest.raises(PositionLostError) as caught:
        read(again, again.plan(span.end, NO_LIMIT))
    split = f"local.{table}/ds=a"
    assert caught.value.kind == ("RECREATED" if change == "modified" else "DELETED")
    assert caught.value.missing[split][0] == 7
    assert again.plan(caught.value.resume, NO_LIMIT) is None
    with pytest.raises(PositionLostError):
        read(again, span)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_an_expired_session_is_followed_by_another_of_the_same_version(maxcompute: Server, way: dict[str, str]) -> None:
    table = partitioned(maxcompute, {"ds=a": 100})
    source = source_of(maxcompute, table, partition="ds=a", **way)
    first, span = read(source, source.plan(source.start(), TINY), TINY)
    source.close()
    maxcompute.service.ask("POST", "sessions", {"expire": "all"})
    fresh = source_of(maxcompute, table, partition="ds=a", **way)
    same, as_read = read(fresh, span)
    assert same.equals(first)
    assert as_read == span
    rest, position = drain(fresh, span.end, TINY)
    assert values_of([first, *rest]).column("id").to_pylist() == list(range(100))
    assert {token["session"] for token in position.values()} != {span.end[f"local.{table}/ds=a"]["session"]}
    fresh.close()


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_an_expired_session_over_another_version_is_a_lost_position(maxcompute: Server, way: dict[str, str]) -> None:
    table = partitioned(maxcompute, {"ds=a": 100})
    source = source_of(maxcompute, table, partition="ds=a", **way)
    _, span = read(source, source.plan(source.start(), TINY), TINY)
    source.close()
    maxcompute.service.ask("POST", "sessions", {"expire": "all"})
    time.sleep(1.1)  # times of change have whole seconds
    fill(maxcompute, table, "ds=a", named(1))
    fresh = source_of(maxcompute, table, partition="ds=a", **way)
    with pytest.raises(PositionLostError, match=r"RECREATED.*another version"):
        read(fresh, fresh.plan(span.end, NO_LIMIT))
    fresh.close()


FAULTS = {
    "429": {"status": 429}, "500": {"status": 500}, "308": {"status": 308}, "before": {"cut": "before"},
    "after": {"cut": "after"}, "body": {"cut": "body"},
}  # fmt: skip
REQUESTS = {"open": "session_type=batch_read", "data": "split_index"}


@pytest.mark.parametrize("target", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_requests_of_the_storage_api_are_bounded_too(maxcompute: Server, target: str, fault: dict[str, Any]) -> None:
    table = partitioned(maxcompute, {"ds=a": 50})

    def total() -> int:
        source = source_of(maxcompute, table, partition="ds=a", useArrow="true")
        try:
            return rows_of(source).num_rows
        finally:
            source.close()

    maxcompute.fault(target=target, times=2, **fault)
    assert total() == 50
    source = source_of(maxcompute, table, partition="ds=a", useArrow="true")
    maxcompute.fault(target=target, times=3, **fault)
    with pytest.raises(TransientError):
        rows_of(source)
    assert rows_of(source).num_rows == 50, "the same source goes on once the service is well"
    source.close()
    maxcompute.fault(target=target, times=1000, **fault)
    began = time.monotonic()
    with pytest.raises(TransientError):
        total()
    assert time.monotonic() - began < 10


def run(pipeline: Any, folder: Path) -> list[Outcome]:
    books = Books(Ledger(folder / "ledger.db"), Archive(folder / "archive"))
    with Session(pipeline, books) as session:
        outcomes = list(Runner(session).catch_up())
        assert session.is_finished() == pipeline.source_options.is_finished(
            books.ledger.position(pipeline.name, pipeline.target)
        )
        finished = session.is_finished()
    books.close()
    return outcomes if outcomes or finished else []


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_pipeline_reads_everything_once_and_is_finished(
    maxcompute: Server, way: dict[str, str], tmp_path: Path
) -> None:
    table = partitioned(maxcompute, {"ds=a": 40, "ds=b": 2, "ds=c": 0})
    pipeline = pipeline_of(maxcompute, table, partition="ds=*", **way)
    outcomes = run(pipeline, tmp_path)
    assert sum(outcome.batch.counts.written for outcome in outcomes) == 42
    books = Books(Ledger(tmp_path / "ledger.db"), Archive(tmp_path / "archive"))
    with Session(pipeline, books) as session:
        assert session.is_finished()
        assert session.source.lag(books.ledger.position(pipeline.name, pipeline.target), session.source.frontier()) == 0
    books.close()
    fill(maxcompute, table, "ds=d", named(5))
    assert run(pipeline, tmp_path) == []


def seed_table(server: Server) -> str:
    """A table as the seed's source example wants it."""
    name = server.fresh_name("visits")
    server.sql(f"CREATE TABLE {name} (cid string, rt double) PARTITIONED BY (ds string)")
    for spec, rows in {"ds=20180905": [["a", 1.5]], "ds=20180906": [["b", 2.5]], "ds=20181001": [["c", 3.5]]}.items():
        fill(server, name, spec, rows)
    return name


def filled_in(ddl: str, server: Server, table: str, more: dict[str, str]) -> str:
    """A statement of the seed with its placeholders filled."""
    values = {"<yourEndpointName>": server.service.endpoint, "<yourProjectName>": "local", "<yourTableName>": table}
    for placeholder, value in {**values, **more}.items():
        ddl = ddl.replace(placeholder, value)
    return ddl


def test_the_seeds_source_script_reads_all_partitions_of_its_month(
    maxcompute: Server, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The seed's full source, read into print (its GROUP BY has a test of its own)."""
    name = seed_table(maxcompute)
    create = next(text for text in statements(seed(3)) if "odps_source" in text and "201809*" in text)
    keys = {
        "${secret_values.ak_id}": maxcompute.service.access_id,
        "${secret_values.ak_secret}": maxcompute.service.access_key,
    }
    sink = "CREATE TEMPORARY TABLE shown (cid VARCHAR, rt DOUBLE) WITH ('connector' = 'print');"
    text = f"{filled_in(create, maxcompute, name, keys)}\n{sink}\nINSERT INTO shown SELECT * FROM odps_source;"
    (pipeline,) = compile_script(text, "seed.sql")
    run(pipeline, tmp_path)
    assert capsys.readouterr().out.splitlines() == ["+I[a, 1.5]", "+I[b, 2.5]"]


def test_the_datastream_example_of_the_seed_iterates_arrow_batches(maxcompute: Server) -> None:
    """`tEnv.toDataStream(tEnv.from("odps_source"))` over the same DDL, which the seed has as a Java string."""
    name = seed_table(maxcompute)
    text = seed(3)
    java = text[text.index("Connect to the source table") : text.index("Connect to the sink")]
    lines = re.findall(r'^"(.*)"\)*[,;]', java, re.MULTILINE)
    ddl = "\n".join(line for line in lines if line != "\\n")
    values = {"<yourAccessId>": maxcompute.service.access_id, "<yourAccessPassword>": maxcompute.service.access_key}
    script = api.loads(filled_in(ddl, maxcompute, name, values) + ";")
    with script.source("odps_source") as source:
        batches = list(source.batches(max_rows=1))
        assert [batch.rows.to_pylist() for batch in batches] == [[{"cid": "a", "rt": 1.5}], [{"cid": "b", "rt": 2.5}]]
        assert [batch.rows.num_rows for batch in source.batches(start=batches[0].position)] == [1]
        assert [batch.rows.num_rows for batch in source.batches(until="ds=20180905:1;ds=20180906:0")] == [1]
        assert list(source.batches(until="earliest")) == []


def test_preview_plan_and_doctor_know_the_source(maxcompute: Server, tmp_path: Path) -> None:
    table = partitioned(maxcompute, {"ds=a": 5, "ds=b": 2})
    pipeline = pipeline_of(maxcompute, table, partition="ds=*")
    shown = preview(pipeline, None, None, records=3)
    assert shown.rows.column("id").to_pylist() == [0, 1, 2]
    assert preview(pipeline, None, "ds=b:1", records=9).raw.num_rows == 6
    found = [finding.what for finding in health.pipeline(pipeline, None)]
    assert any("2 partitions match, 7 rows" in what for what in found)
    assert any("the first run would read 7 records" in what for what in found)
    bad = pipeline_of(maxcompute, table, partition="ds=*", accessKey="wrong-one")
    problems = [finding.what for finding in health.pipeline(bad, None) if finding.level == "problem"]
    assert problems
    assert not any("wrong-one" in what for what in problems)
    described = describe(pipeline)
    assert "wrong-one" not in str(described)
    assert maxcompute.service.access_key not in str(described)


STEPS = ("planned:3", "read:2", "sealed:3", "committing:2", "committed:2")


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("step", STEPS, ids=STEPS)
def test_a_run_that_dies_is_resumed_with_every_row_once(
    maxcompute: Server, way: dict[str, str], step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sessions expire between the two runs, so that what was only planned is read through others."""
    table = partitioned(maxcompute, {"ds=a": 33, "ds=b": 9})
    pipeline = pipeline_of(maxcompute, table, partition="ds=*", settings={"vector-assets.batch.max-rows": "5"}, **way)
    monkeypatch.setattr(env, "_passes", {})
    monkeypatch.setenv("VECTOR_ASSETS_FAIL_AT", f"{step}:raise")
    with pytest.raises(FatalError, match="failpoint"):
        run(pipeline, tmp_path)
    monkeypatch.delenv("VECTOR_ASSETS_FAIL_AT")
    maxcompute.service.ask("POST", "sessions", {"expire": "all"})
    run(pipeline, tmp_path)
    books = Books(Ledger(tmp_path / "ledger.db"), Archive(tmp_path / "archive"))
    done = list(books.ledger.batches(pipeline.name, pipeline.target))
    batches = [books.archive.read(each.archive) for each in done]
    books.close()
    lag = pipeline.open_source().lag
    assert [lag(each.span.start, each.span.end) for each in done] == [batch.num_rows for batch in batches]
    assert values_of(batches).column("id").to_pylist() == [*range(33), *range(9)]


def test_a_finished_pipeline_asks_for_no_more_runs(
    maxcompute: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VECTOR_ASSETS_LEDGER", str(tmp_path / "ledger.db"))
    table = partitioned(maxcompute, {"ds=a": 3})
    pipeline = pipeline_of(maxcompute, table, partition="ds=*")

    def tick() -> Any:
        with dg.DagsterInstance.ephemeral() as instance, dg.build_sensor_context(instance=instance) as context:
            return sensors.of(pipeline)(context)

    try:
        assert [request.partition_key for request in tick().run_requests] == ["ds=a"]
        run(pipeline, tmp_path)
        fill(maxcompute, table, "ds=b", named(1))
        found = tick()
        assert isinstance(found, dg.SkipReason)
        assert "finished" in str(found.skip_message)
    finally:
        probe.forget()
