"""GROUP BY batch after batch, held against the records in a plain dict, whatever the batches are."""

import itertools
import math
from collections import defaultdict
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.declare.scripts import SOURCE, one
from vector_assets.engine.core import KIND, POSITION, RowKind
from vector_assets.engine.errors import FatalError

COLUMNS = ["name", "price", "weight", "cost"]
TYPES = [pa.string(), pa.int32(), pa.float64(), pa.decimal128(10, 2)]
EVERYTHING = (
    "name STRING, n BIGINT, np BIGINT, dp BIGINT, sp INT, ap INT, lo INT, hi STRING, sw DOUBLE,"
    " sc DECIMAL(38, 2), ac DECIMAL(38, 6)"
)
SELECT = (
    "SELECT name, COUNT(*), COUNT(price), COUNT(DISTINCT price), SUM(price), AVG(price), MIN(price), MAX(name),"
    " SUM(weight), SUM(cost), AVG(cost) FROM src"
)
Row = tuple[str | None, int | None, float | None, Decimal | None]


def pipeline_of(select: str, columns: str = EVERYTHING):
    return one(f"{SOURCE}CREATE TABLE dst ({columns}) WITH ('connector' = 'print');\nINSERT INTO dst {select};\n")


class Grouping:
    """A pipeline's groups, given batch after batch; `rows` is what a sink that applies every change holds."""

    def __init__(self, select: str, columns: str = EVERYTHING, *, before: bool = True) -> None:
        self.pipeline = pipeline_of(select, columns)
        self.aggregation = self.pipeline.aggregation
        self.groups = self.aggregation.open(256 << 20)
        self.before = before
        self.rows: dict[object, tuple] = {}
        self.kinds: list[str] = []

    def give(self, rows: list[Row]) -> list[tuple[str, tuple]]:
        """One batch; its changes."""
        columns = [pa.array(values, kind) for values, kind in zip(zip(*rows, strict=True), TYPES, strict=True)]
        count = len(rows)
        table = pa.table([*columns, np.arange(count)], names=[*COLUMNS, POSITION])
        for name in ("id", "at", "tags"):
            kind = self.pipeline.source_table.schema.field(name).type
            table = table.append_column(name, pa.nulls(count, kind))
        decoded = self.pipeline.transforms[0].apply(table)
        assert decoded.rejected.num_rows == 0
        changes = self.groups.merge(self.aggregation.partial(decoded.rows), before=self.before)
        found = []
        for row in changes.rows.to_pylist():
            kind, _ = RowKind(row.pop(KIND)), row.pop(POSITION)
            found.append((kind, tuple(row.values())))
        self._apply(found)
        return [(("+I", "-U", "+U", "-D")[kind], values) for kind, values in found]

    def _apply(self, changes) -> None:
        for kind, values in changes:
            key = values[0]
            if kind is RowKind.INSERT:
                assert key not in self.rows
            elif kind is not RowKind.UPDATE_AFTER:
                assert self.rows[key] == values
            if kind in {RowKind.UPDATE_BEFORE, RowKind.DELETE}:
                del self.rows[key]
            else:
                self.rows[key] = values


def counted(rows: list[Row]) -> dict[object, tuple]:
    """What the groups of these records are, by name."""
    groups = defaultdict(list)
    for row in rows:
        groups[row[0]].append(row)
    found = {}
    for name, members in groups.items():
        prices = [p for _, p, _, _ in members if p is not None]
        weights = [w for _, _, w, _ in members if w is not None]
        costs = [c for _, _, _, c in members if c is not None]
        total = sum(prices)
        mean = None
        if costs:
            mean = (sum(costs) / len(costs)).quantize(Decimal("0.000001"), rounding="ROUND_HALF_UP")
        found[name] = (
            name, len(members), len(prices), len(set(prices)), total if prices else None,
            math.trunc(total / len(prices)) if prices else None, min(prices, default=None), name,
            sum(weights) if weights else None, sum(costs) if costs else None, mean,
        )  # fmt: skip
    return found


ROWS = st.lists(
    st.tuples(
        st.sampled_from([None, "a", "b", "ü"]),
        st.none() | st.integers(-1000, 1000),
        st.none() | st.integers(-8, 8).map(float),
        st.none() | st.integers(-10_000, 10_000).map(lambda cents: Decimal(cents) / 100),
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=25, deadline=None)
@given(batches=st.lists(ROWS, min_size=1, max_size=4))
def test_groups_are_what_the_records_come_to_however_they_are_batched(batches):
    grouping = Grouping(f"{SELECT} GROUP BY name")
    for number, batch in enumerate(batches):
        grouping.give(batch)
        assert grouping.rows == counted(list(itertools.chain(*batches[: number + 1])))
    grouping.groups.load([grouping.groups.whole()])
    assert {row["name"]: tuple(row.values()) for piece in grouping.groups.rows() for row in _listed(piece)} == (
        grouping.rows
    )


def _listed(table: pa.Table) -> list[dict]:
    return table.drop_columns(POSITION).to_pylist()


@settings(max_examples=12, deadline=None)
@given(batches=st.lists(ROWS, min_size=2, max_size=4))
def test_parts_loaded_one_over_the_other_are_the_groups(batches):
    grouping, parts = Grouping(f"{SELECT} GROUP BY name"), []
    for batch in batches:
        rows = grouping.pipeline.transforms[0].apply(_table(grouping, batch)).rows
        parts.append(grouping.groups.merge(grouping.aggregation.partial(rows), before=True).touched)
    loaded = grouping.aggregation.open(256 << 20)
    loaded.load(parts)
    assert sorted(map(str, loaded.whole().to_pylist())) == sorted(map(str, grouping.groups.whole().to_pylist()))


def _table(grouping: Grouping, rows: list[Row]) -> pa.Table:
    columns = [pa.array(values, kind) for values, kind in zip(zip(*rows, strict=True), TYPES, strict=True)]
    return pa.table([*columns, np.arange(len(rows))], names=[*COLUMNS, POSITION])


def row(name=None, price=None, weight=None, cost=None) -> Row:
    return (name, price, weight, Decimal(cost) if cost is not None else None)


def test_changes_have_the_kinds_of_flink():
    grouping = Grouping("SELECT name, COUNT(*), MAX(price) FROM src GROUP BY name", "name STRING, n BIGINT, hi INT")
    assert grouping.give([row("a", 1), row("b", 2), row("a", 5)]) == [("+I", ("b", 1, 2)), ("+I", ("a", 2, 5))]
    assert grouping.give([row("a", 3)]) == [("-U", ("a", 2, 5)), ("+U", ("a", 3, 5))]


def test_a_group_whose_row_stays_as_it_is_gives_nothing():
    grouping = Grouping("SELECT name, MAX(price) FROM src GROUP BY name", "name STRING, hi INT")
    grouping.give([row("a", 5)])
    assert grouping.give([row("a", 3), row("a", None)]) == []


def test_having_takes_a_row_away_when_its_group_leaves():
    select = "SELECT name, SUM(price) FROM src GROUP BY name HAVING SUM(price) > 10 AND name <> 'x'"
    grouping = Grouping(select, "name STRING, total INT")
    assert grouping.give([row("a", 10), row("x", 99)]) == []
    assert grouping.give([row("a", 1)]) == [("+I", ("a", 11))]
    assert grouping.give([row("a", 4)]) == [("-U", ("a", 11)), ("+U", ("a", 15))]
    assert grouping.give([row("a", -9)]) == [("-D", ("a", 15))]
    assert grouping.give([row("a", 50)]) == [("+I", ("a", 56))]


def test_nulls_are_one_group():
    grouping = Grouping("SELECT name, COUNT(*) FROM src GROUP BY name", "name STRING, n BIGINT")
    grouping.give([row(None), row("a"), row(None)])
    assert grouping.give([row(None)]) == [("-U", (None, 2)), ("+U", (None, 3))]


def test_without_keys_everything_is_one_group_that_begins_with_the_first_record():
    grouping = Grouping("SELECT 'all', COUNT(*), SUM(price) FROM src WHERE price > 0", "a STRING, n BIGINT, s INT")
    assert grouping.give([row("a", -1)]) == []
    assert grouping.give([row("a", 1), row("b", 2)]) == [("+I", ("all", 2, 3))]
    assert grouping.give([row("c", 4)]) == [("-U", ("all", 2, 3)), ("+U", ("all", 3, 7))]


def test_expressions_may_stand_over_keys_and_aggregates():
    select = (
        "SELECT UPPER(s.name) || '!', COUNT(*) * 10 + 1, CASE WHEN MAX(price) > 3 THEN 'high' ELSE 'low' END"
        " FROM src AS s GROUP BY UPPER(name), price / 100"
    )
    grouping = Grouping(select, "name STRING, n BIGINT, c STRING")
    assert grouping.give([row("a", 1), row("A", 5)]) == [("+I", ("A!", 21, "high"))]


def test_a_filter_counts_only_what_meets_it():
    select = (
        "SELECT name, COUNT(*) FILTER (WHERE price > 2), SUM(price) FILTER (WHERE price > 2) FROM src GROUP BY name"
    )
    grouping = Grouping(select, "name STRING, n BIGINT, s INT")
    assert grouping.give([row("a", 1), row("a", 3), row("a", None), row("b", 1)]) == [
        ("+I", ("a", 1, 3)),
        ("+I", ("b", 0, None)),
    ]


@pytest.mark.parametrize(
    ("values", "mean"), [([-7, 0], -3), ([7, 0], 3), ([-1, 0], 0), ([2**31 - 1, 2**31 - 1], 2**31 - 1)], ids=str
)
def test_the_mean_of_integers_is_cut_towards_zero(values, mean):
    grouping = Grouping("SELECT name, AVG(price) FROM src GROUP BY name", "name STRING, m INT")
    assert grouping.give([row("a", value) for value in values]) == [("+I", ("a", mean))]


@pytest.mark.parametrize(
    ("values", "mean"),
    [(["1", "1", "2"], "1.333333"), (["-1", "-1", "-3"], "-1.666667"), (["0.01", "0.02"], "0.015000")],
    ids=str,
)
def test_the_mean_of_decimals_is_exact_and_rounded_half_up(values, mean):
    grouping = Grouping("SELECT name, AVG(cost) FROM src GROUP BY name", "name STRING, m DECIMAL(38, 6)")
    assert grouping.give([row("a", cost=value) for value in values]) == [("+I", ("a", Decimal(mean)))]


def test_a_sum_that_does_not_fit_its_type_stops_and_names_its_group():
    grouping = Grouping("SELECT name, SUM(price) FROM src GROUP BY name", "name STRING, s INT")
    grouping.give([row("a", 2**31 - 1), row("b", 1)])
    with pytest.raises(FatalError, match=r"SUM\(price\) of group \{'name': 'a'\} does not fit .* wider type"):
        grouping.give([row("b", 1), row("a", 1)])


def test_a_null_in_a_column_that_is_not_null_stops_the_batch():
    grouping = Grouping("SELECT name, COUNT(*) FROM src GROUP BY name", "name STRING NOT NULL, n BIGINT")
    with pytest.raises(FatalError, match="the row of a group does not fit the sink: column name: found null"):
        grouping.give([row(None)])


def test_lists_of_distinct_values_do_not_pile_up():
    """DuckDB keeps the room of a list that it replaced: the table is made anew before that grows."""
    grouping = Grouping("SELECT name, COUNT(DISTINCT price) FROM src GROUP BY name", "name STRING, n BIGINT")
    for number in range(60):
        grouping.give([row(str(key), number) for key in range(2000)])
    assert grouping.groups._number("max(rowid)") <= 2 * 2000 + 100_000
    assert set(grouping.rows.values()) == {(str(key), 60) for key in range(2000)}


def test_without_old_rows_only_what_a_row_is_now_is_given():
    grouping = Grouping("SELECT name, COUNT(*) FROM src GROUP BY name", "name STRING, n BIGINT", before=False)
    grouping.give([row("a")])
    assert grouping.give([row("a")]) == [("+U", ("a", 2))]


def test_groups_beyond_their_memory_go_to_disk():
    aggregation = pipeline_of("SELECT id, COUNT(*) FROM src GROUP BY id", "id BIGINT, n BIGINT").aggregation
    groups = aggregation.open(24 << 20)
    for start in range(0, 2_000_000, 500_000):
        keys = np.arange(start, start + 500_000)
        groups.add(pa.table({"_key1": keys, "_kept1": keys, POSITION: np.arange(500_000)}))
    assert groups.count() == 2_000_000
    groups.close()
