"""Following a table on the local MaxCompute server: order, starts, completeness, and partitions that change."""

import logging

import pytest

from tests.sources.following import DECLARED, Followed, states
from tests.sources.reading import NO_LIMIT, drain, read
from vector_assets.engine.core import BatchLimit
from vector_assets.engine.errors import ConfigError, PlanError, PositionLostError, UnavailableError
from vector_assets.sources.maxcompute import MaxComputeSource
from vector_assets.sources.maxcompute_incremental import IncrementalSource

pytestmark = pytest.mark.service

QUIET, MARKER, DONE = (f"vector-assets.partition.{name}" for name in ("quiet", "marker", "done-table"))


@pytest.fixture
def table(maxcompute):
    return Followed(maxcompute)


def ids(tables):
    return [row["id"] for each in tables for row in each.column("value").to_pylist()]


def test_a_start_partition_makes_it_a_source_that_follows(table):
    assert isinstance(table.source(), IncrementalSource)


def test_partitions_from_the_start_on_are_read_in_order_one_a_batch(table):
    for day in ("20180905", "20180831", "20180902"):
        table.add(day, ids=[int(day)])
    source = table.source()
    assert source.start() == {}
    tables, position = drain(source, source.start())
    assert ids(tables) == [20180902, 20180905]
    assert [each.num_rows for each in tables] == [1, 1]
    assert source.plan(position, NO_LIMIT) is None
    assert source.lag(position, source.frontier()) == 0


def test_a_partition_that_comes_later_is_read_wherever_it_sorts(table):
    table.add("20180905", ids=[5])
    source = table.source()
    _, position = drain(source, source.start())
    table.add("20180906", ids=[6])
    table.add("20180903", ids=[3])
    tables, _ = drain(source, position)
    assert ids(tables) == [3, 6]


def test_a_partition_is_read_in_pieces_of_one_session_and_resumed_by_another_process(table):
    table.add("20180905", ids=range(50))
    source = table.source()
    limit = BatchLimit(20, 1 << 30)
    first, span = read(source, source.plan({}, limit), limit)
    (token,) = span.end.values()
    assert (token["offset"], token["until"]) == (20, 50)
    other = table.source()
    tables, position = drain(other, span.end, limit)
    assert ids([first, *tables]) == list(range(50))
    assert {end["session"] for end in position.values()} == {token["session"]}


def test_levels_are_compared_from_the_first_on(maxcompute):
    table = Followed(maxcompute, "yyyy string, mm string, dd string")
    for day in (("2018", "09", "04"), ("2018", "09", "05"), ("2018", "10", "01"), ("2019", "01", "01")):
        table.add(*day, ids=[int("".join(day))])
    source = table.source("yyyy=2018,MM=09,dd=05")
    tables, position = drain(source, source.start())
    assert ids(tables) == [20180905, 20181001, 20190101]
    assert list(states(source)) == [
        "yyyy=2018/mm=09/dd=04", "yyyy=2018/mm=09/dd=05", "yyyy=2018/mm=10/dd=01", "yyyy=2019/mm=01/dd=01",
    ]  # fmt: skip
    key = "yyyy=2018/mm=09/dd=05"
    assert table.options().partition_of(next(iter(position))) == key
    assert table.options().is_read(key, position)
    assert [ids(drain(table.source("yyyy=2019"), {})[0])] == [[20190101]]


@pytest.mark.parametrize(
    ("start", "problem", "corrected"),
    [
        ("mm=09,yyyy=2018,dd=05", "another order", "yyyy=2018,mm=09,dd=05"),
        ("yyyy=2018,month=09", "there is no level month", "yyyy=2018,mm=09"),
        ("yyyy=2018,dd=05", "a level is left out", "yyyy=2018,mm=<value>,dd=05"),
    ],
    ids=["wrong-order", "unknown-column", "missing-level"],
)
def test_a_start_that_does_not_fit_the_levels_is_refused_with_the_corrected_spec(maxcompute, start, problem, corrected):
    table = Followed(maxcompute, "yyyy string, mm string, dd string")
    with pytest.raises(PlanError, match=problem) as refused:
        table.source(start).frontier()
    assert f"write '{corrected}'" in str(refused.value)


def test_values_without_zeros_are_a_trap_that_is_told_with_the_corrected_spec(maxcompute, caplog):
    table = Followed(maxcompute, "year string, month string")
    for month in ("9", "10"):
        table.add("2023", month, ids=[int(month)])
    source = table.source("year=2023,month=9")
    with caplog.at_level(logging.WARNING):
        found = source.partitions()
    (missed,) = [each for each in found if each.waits]
    assert (missed.key, missed.is_wanted) == ("year=2023/month=10", True)
    assert "year=2023/month=10 come after startPartition by number" in missed.waits
    assert "'year=2023,month=09'" in caplog.text
    assert ids(drain(source, {})[0]) == [9]
    (warning,) = [finding for finding in source.diagnose() if finding.level == "warning"]
    assert "month=10" in warning.what


def test_padded_values_are_no_trap(maxcompute, caplog):
    table = Followed(maxcompute, "year string, month string")
    for month in ("09", "10", "08"):
        table.add("2023", month)
    assert list(states(table.source("year=2023,month=09")).values())[1:] == [None, None]
    assert caplog.text == ""


def test_a_partition_is_read_only_after_it_has_been_quiet(table):
    table.add("20180905", ids=range(2))
    waiting = table.source(**{QUIET: "1 h"})
    assert waiting.frontier() == {}
    table.add("20180905", ids=range(3))
    (waits,) = states(waiting).values()
    assert waits.startswith("still being written: rows grew 0 s ago")
    assert waits.endswith("complete after 3600 s without a change")
    assert waiting.plan({}, NO_LIMIT) is None


def test_a_change_is_seen_whatever_the_services_clock_says(table, monkeypatch):
    now = 1000.0
    table.add("20180905", ids=range(2))
    source = IncrementalSource(table.options(**{QUIET: "10 s"}), DECLARED, clock=lambda: now)
    monkeypatch.setattr("vector_assets.sources.maxcompute_gate.server_time", lambda _: 1e12)
    assert len(source.frontier()) == 1
    table.add("20180905", ids=range(3))
    assert source.frontier() == {}
    now += 9
    assert source.frontier() == {}
    now += 1
    assert len(source.frontier()) == 1


def test_a_partition_without_rows_is_not_complete(maxcompute, table):
    maxcompute.sql(f"ALTER TABLE {table.name} ADD PARTITION ({table.spec('20180905')})")
    assert states(table.source()) == {"ds=20180905": "has no rows"}
    assert table.source().plan({}, NO_LIMIT) is None


def test_a_marker_partition_says_that_a_partition_is_complete_and_is_not_read(table):
    table.add("20180905", ids=[5])
    source = table.source(**{MARKER: "ds={ds}.done"})
    assert "there is no partition ds=20180905.done yet" in states(source)["ds=20180905"]
    table.add("20180905.done", ids=[99])
    assert states(source) == {"ds=20180905": None}
    assert ids(drain(source, {})[0]) == [5]


def test_a_marker_may_be_a_value_of_the_last_level(maxcompute):
    table = Followed(maxcompute, "ds string, hh string")
    table.add("20180905", "01", ids=[1])
    table.add("20180905", "02", ids=[2])
    table.add("20180906", "01", ids=[3])
    source = table.source("ds=20180901", **{MARKER: "ds={ds},hh=_DONE"})
    table.add("20180905", "_DONE", ids=[99])
    assert ids(drain(source, {})[0]) == [1, 2]


def test_a_marker_that_does_not_fit_the_levels_is_refused(table):
    with pytest.raises(PlanError, match=r"such as 'ds=\{ds\}\.done'"):
        table.source(**{MARKER: "dt={ds}.done"}).frontier()


def test_a_done_table_says_which_partitions_are_complete(maxcompute, table):
    done = Followed(maxcompute)
    table.add("20180905", ids=[5])
    table.add("20180906", ids=[6])
    source = table.source(**{DONE: done.name})
    assert f"{done.name} has no partition of it yet" in states(source)["ds=20180905"]
    maxcompute.sql(f"ALTER TABLE {done.name} ADD PARTITION ({done.spec('20180905')})")
    assert ids(drain(source, {})[0]) == [5]


def begun(table, **more):
    """A source that has read 20 of 50 rows of 20180905, and where it stands."""
    table.add("20180905", ids=range(50))
    source = table.source(**more)
    limit = BatchLimit(20, 1 << 30)
    _, span = read(source, source.plan({}, limit), limit)
    return source, dict(span.end)


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (lambda table: table.add("20180905", ids=[99]), "MODIFIED", "was modified"),
        (lambda table: table.drop("20180905"), "DELETED", "was dropped"),
    ],
    ids=["modified", "dropped"],
)
@pytest.mark.parametrize("operation", ["NONE", "SKIP"])
def test_a_partition_that_changes_while_it_is_read_is_lost_and_says_what_to_do(table, change, kind, words, operation):
    source, position = begun(table, modifiedTableOperation=operation)
    (split,) = position
    span = source.plan(position, NO_LIMIT)
    change(table)
    table.add("20180906", ids=[6])
    # another process: the first one has fetched the rows ahead, which are good still
    source = table.source(modifiedTableOperation=operation)
    source.partitions()
    with pytest.raises(PositionLostError) as lost:
        read(source, span)
    error = lost.value
    assert (error.kind, error.missing) == (kind, {split: (20, 50)})
    assert words in str(error)
    assert "the 20 rows before that are kept" in str(error)
    assert error.policy == ("fail" if operation == "NONE" else "skip")
    assert ("set 'startPartition' = 'ds=20180906'" in str(error)) == (operation == "NONE")
    tables, _ = drain(source, {**position, **error.resume})
    assert ids(tables) == [6]


def test_a_partition_that_is_dropped_between_two_runs_is_not_forgotten(table):
    _, position = begun(table)
    table.drop("20180905")
    with pytest.raises(PositionLostError, match="DELETED") as lost:
        table.source().plan(position, NO_LIMIT)
    assert "set 'startPartition' = 'ds=20180906'" in str(lost.value)


def test_a_start_that_is_moved_passes_over_a_partition_that_was_begun(table):
    _, position = begun(table)
    with pytest.raises(PositionLostError) as lost:
        table.source("ds=20180906").plan(position, NO_LIMIT)
    assert lost.value.policy == "skip"
    resumed = {**position, **lost.value.resume}
    assert table.source("ds=20180906").plan(resumed, NO_LIMIT) is None


def test_rows_that_are_added_to_a_partition_after_it_was_read_are_not_read(table):
    table.add("20180905", ids=range(3))
    source = table.source()
    _, position = drain(source, {})
    table.add("20180905", ids=[99])
    assert drain(source, position)[0] == []


def test_a_session_that_expires_is_followed_by_another_one_over_the_same_rows(maxcompute, table):
    source, position = begun(table)
    span = source.plan(position, NO_LIMIT)
    maxcompute.service.ask("POST", "sessions", {"expire": "all"})
    rows, again = read(table.source(), span)
    assert ids([rows]) == list(range(20, 50))
    assert again == span


def test_a_session_that_expires_over_a_partition_that_changed_is_a_lost_position(maxcompute, table):
    source, position = begun(table)
    span = source.plan(position, NO_LIMIT)
    table.add("20180905", ids=[99])
    maxcompute.service.ask("POST", "sessions", {"expire": "all"})
    with pytest.raises(PositionLostError, match="MODIFIED"):
        read(table.source(), span)


def test_a_partition_that_grew_since_it_was_found_complete_is_looked_at_again(table):
    table.add("20180905", ids=range(3))
    source = table.source()
    until = source.frontier()
    table.add("20180905", ids=[3])
    assert source.plan({}, BatchLimit(10, 1 << 30, until)) is None
    assert ids(drain(source, {})[0]) == [0, 1, 2, 3]


@pytest.mark.parametrize("fault", [{"status": 429}, {"status": 500}, {"cut": "before"}, {"cut": "body"}], ids=str)
def test_faults_of_the_service_are_ridden_out(maxcompute, table, fault):
    table.add("20180905", ids=range(5))
    for target in ("partitions", "downloads", "downloadid"):
        maxcompute.fault(target=target, times=1, **fault)
    source = table.source()
    assert ids(drain(source, {})[0]) == list(range(5))


def test_a_dead_service_is_told_and_no_key_is(table):
    dead = table.source(endpoint="http://127.0.0.1:9")
    with pytest.raises(UnavailableError) as error:
        dead.frontier()
    assert table.server.service.access_key not in str(error.value)


def test_an_operator_names_places(table):
    for day in ("20180904", "20180905", "20180906"):
        table.add(day, ids=[int(day)])
    source = table.source()
    assert source.lag(source.locate("earliest"), source.frontier()) == 3
    assert source.lag(source.locate("latest"), source.frontier()) == 0
    assert ids(drain(source, source.locate("ds=20180905"))[0]) == [20180905, 20180906]
    with pytest.raises(ConfigError, match="the first partition to read"):
        source.locate("yesterday")


def test_the_newest_partition_is_the_last_that_has_rows(maxcompute, table):
    table.add("20180905")
    maxcompute.sql(f"ALTER TABLE {table.name} ADD PARTITION ({table.spec('20180906')})")
    source = table.source()
    assert source.newest(source.partitions()).key == "ds=20180905"


def test_a_key_is_the_spec_with_what_grammars_use_quoted(table):
    options = table.options()
    assert options.partition_key("yyyy=2018,MM=09") == options.partition_key("yyyy=2018/MM=09") == "yyyy=2018/MM=09"
    assert options.partition_of("p.t/ds=a b...c") == "ds=a b%2E%2E%2Ec"
    assert options.partition_key("ds=a b%2E%2E%2Ec") == "ds=a b%2E%2E%2Ec"
    with pytest.raises(ConfigError, match="known form"):
        options.partition_key("2018-09-05")


@pytest.mark.parametrize("name", ["useArrow", "dynamicLoadBalance"])
def test_batch_options_are_refused_beside_a_start(table, name):
    with pytest.raises(ConfigError, match=f"option '{name}' is for batch reading"):
        table.options(**{name: "true"})


@pytest.mark.parametrize(("name", "value"), [("splitSize", "64 MB"), ("compressCodec", "ZSTD")])
def test_options_of_arrow_are_refused_beside_a_start(table, name, value):
    with pytest.raises(ConfigError, match=f"option '{name}' is for batch reading"):
        table.options(**{name: value})


def test_a_partition_beside_a_start_is_ignored_and_reported_once(table):
    table.add("20180905", ids=[5])
    options = table.options(partition="ds=20180101")
    assert [report for report in options.reports() if "'partition'" in report] == [
        "option 'partition' has no effect: startPartition is given, by which it is ignored"
    ]
    assert ids(drain(MaxComputeSource(options, DECLARED), {})[0]) == [5]


def test_the_most_partitions_of_full_mode_are_reported_as_without_effect(table):
    for number in range(3):
        table.add(f"2018090{number + 1}", ids=[number])
    options = table.options(maxPartitionCount="2")
    assert options.reports() == (
        "option 'maxPartitionCount' has no effect: startPartition is given, and partitions are read one by one",
    )
    assert ids(drain(MaxComputeSource(options, DECLARED), {})[0]) == [0, 1, 2]


@pytest.mark.parametrize("start", ["2018", "ds=", "ds=1,ds=2", "ds=2018*", "max_pt()"])
def test_a_start_that_is_none_is_refused_while_loading(table, start):
    with pytest.raises(ConfigError, match="startPartition"):
        table.options(start)


def test_a_start_of_one_digit_is_reported_while_loading(table):
    (report,) = table.options("year=2023,month=9").reports()
    assert "write 'year=2023,month=09'" in report


def test_the_interval_is_thirty_seconds_unless_it_is_set(table):
    assert table.options().poll_seconds() == 30.0
    assert table.options(subscribeIntervalInSec="5").poll_seconds() == 5.0
