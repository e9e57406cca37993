"""Lookup joins over a batch: what SQL's join gives, in the order of the probe rows, from memory and from disk."""

import math
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transforms.dims import Dimension
from vector_assets.engine import env
from vector_assets.engine.core import KIND, POSITION, Decoded
from vector_assets.engine.errors import PlanError
from vector_assets.transforms.lookup import LookupKey, LookupPlan, LookupTransform
from vector_assets.transforms.lookup_index import LookupIndex

INT = LookupKey('"k"', '"k"', pa.int32())
DIM = pa.table({"k": pa.array([1, 2, 2, None, 4], pa.int32()), "v": ["a", "b", "c", "n", "d"]})
STORED = pytest.mark.parametrize("spill", [False, True], ids=["memory", "disk"])


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VECTOR_ASSETS_HOME", str(tmp_path))
    return tmp_path


def probe(kinds: list[int] | None = None, positions: list[int] | None = None, **columns: Any) -> pa.Table:
    table = pa.table(columns)
    if kinds is not None:
        table = table.append_column(KIND, pa.array(kinds, pa.int8()))
    return table.append_column(POSITION, pa.array(positions or range(table.num_rows), pa.int64()))


def plan(**changes: Any) -> LookupPlan:
    return LookupPlan(**({"keys": (INT,), "carried": ("k",), "added": (("v", "d.v"),)} | changes))


def join(made: LookupPlan, rows: pa.Table, dim: pa.Table = DIM, *, spill=False) -> Decoded:
    # one row fits into memory, so that with `spill` everything else is joined from disk
    policy = {"max_rows": 1, "spill": True} if spill else {"max_rows": 10**6}
    return LookupTransform(made, "dim", Dimension(dim).cache(**policy)).apply(rows)


def shown(decoded: Decoded) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in decoded.rows.to_pylist()]


@STORED
def test_inner_and_left_joins_keep_the_order_and_give_a_row_for_each_match(spill) -> None:
    rows = probe(k=pa.array([2, 9, 1, None, 2], pa.int32()))
    inner = join(plan(), rows, spill=spill)
    assert shown(inner) == [(2, "b", 0), (2, "c", 0), (1, "a", 2), (2, "b", 4), (2, "c", 4)]
    assert (inner.filtered, inner.rejected.num_rows) == (2, 0)
    left = join(plan(is_left=True), rows, spill=spill)
    expected = [(2, "b", 0), (2, "c", 0), (9, None, 1), (1, "a", 2), (None, None, 3), (2, "b", 4), (2, "c", 4)]
    assert shown(left) == expected
    assert left.filtered == 0
    assert left.rows.schema.field("d.v").type == pa.string()


@STORED
@pytest.mark.parametrize("is_left", [False, True], ids=["inner", "left"])
def test_a_primary_key_gives_one_row_at_most(spill, is_left) -> None:
    cache = Dimension(DIM).cache(("k",), max_rows=1 if spill else 100, spill=spill)
    rows = probe(k=pa.array([2, 9, 4], pa.int32()))
    found = LookupTransform(plan(is_left=is_left), "dim", cache).apply(rows)
    nothing = [(9, None, 1)] if is_left else []
    assert shown(found) == [(2, "c", 0), *nothing, (4, "d", 2)]


@STORED
def test_every_row_matches_copies_no_probe_row(spill) -> None:
    rows = probe(k=pa.array([1, 4, 1], pa.int32()))
    found = join(plan(), rows, DIM.slice(3).append_column("x", pa.array([0, 0])).select(["k", "v"]), spill=spill)
    assert shown(found) == [(4, "d", 1)]
    assert found.filtered == 2


@STORED
def test_an_empty_dimension_table_and_an_empty_batch(spill) -> None:
    none = DIM.slice(0, 0)
    assert shown(join(plan(is_left=True), probe(k=pa.array([1], pa.int32())), none, spill=spill)) == [(1, None, 0)]
    assert shown(join(plan(), probe(k=pa.array([], pa.int32())), spill=spill)) == []
    assert shown(join(plan(), probe(k=pa.array([1], pa.int32())), none, spill=spill)) == []


@STORED
def test_several_keys_constants_and_expressions(spill) -> None:
    dim = pa.table({"a": ["x", "x", "y", None], "b": pa.array([1, 2, 1, 1], pa.int32()), "v": ["x1", "x2", "y1", "n1"]})
    keys = (
        LookupKey('lower("a")', '"a"', pa.string()),
        LookupKey("CAST('1' AS INTEGER)", '"b"', pa.int32()),
        LookupKey('CAST("k" AS BIGINT)', 'CAST("b" AS BIGINT) * 10', pa.int64()),
    )
    rows = probe(a=["X", "Y", "Z", None], k=pa.array([10, 10, 10, 10], pa.int32()))
    found = join(plan(keys=keys, carried=("a",), is_left=True), rows, dim, spill=spill)
    assert shown(found) == [("X", "x1", 0), ("Y", "y1", 1), ("Z", None, 2), (None, None, 3)]


@STORED
def test_a_residual_condition_belongs_to_the_join(spill) -> None:
    rows = probe(k=pa.array([2, 2, 1], pa.int32()), least=["b", "c", "z"])
    made = plan(carried=("k", "least"), residual='"d.v" >= "least"')
    inner = join(made, rows, spill=spill)
    assert [(row["d.v"], row[POSITION]) for row in inner.rows.to_pylist()] == [("b", 0), ("c", 0), ("c", 1)]
    assert inner.filtered == 1
    left = join(plan(carried=("k", "least"), residual=made.residual, is_left=True), rows, spill=spill)
    assert [(row["d.v"], row[POSITION]) for row in left.rows.to_pylist()] == [("b", 0), ("c", 0), ("c", 1), (None, 2)]


def test_records_whose_key_or_condition_fails_are_rejected_with_all_their_rows() -> None:
    rows = probe(text=["1", "x", "2", "2", "7"], k=pa.array([0, 0, 0, 5, 0], pa.int32()))
    keys = (LookupKey('CAST("text" AS INTEGER)', '"k"', pa.int32()),)
    made = plan(
        keys=keys,
        carried=("text", "k"),
        residual="""CAST(CASE WHEN "k" = 5 AND "d.v" = 'c' THEN 'no' ELSE '1' END AS INTEGER) = 1""",
    )
    found = join(made, rows)
    assert [(row["d.v"], row[POSITION]) for row in found.rows.to_pylist()] == [("a", 0), ("b", 2), ("c", 2)]
    assert found.rejected[POSITION].to_pylist() == [1, 3]
    first, second = found.rejected["error"].to_pylist()
    assert "key of dim" in first
    assert "ON of dim" in second
    assert found.filtered == 1


def test_an_expression_that_fails_for_the_dimension_table_is_no_record_s_fault() -> None:
    made = plan(keys=(LookupKey('"k"', 'CAST("v" AS INTEGER)', pa.int32()),))
    with pytest.raises(PlanError, match="dimension table dim: row 1: "):
        join(made, probe(k=pa.array([1], pa.int32())))


def test_rows_that_take_others_away_look_nothing_up() -> None:
    rows = probe(kinds=[0, 1, 2, 3, 3], k=pa.array([1, 1, 4, 2, 9], pa.int32()))
    found = join(plan(), rows)
    assert shown(found) == [(1, "a", 0, 0), (1, None, 1, 1), (4, "d", 2, 2), (2, None, 3, 3), (9, None, 3, 4)]
    bad = probe(kinds=[3], k=pa.array([1], pa.int32()), text=["x"])
    keys = (LookupKey('CAST("text" AS INTEGER)', '"k"', pa.int32()),)
    assert join(plan(keys=keys), bad).rejected.num_rows == 0


def test_of_an_upsert_source_a_row_that_finds_nothing_deletes_its_key() -> None:
    rows = probe(kinds=[2, 2, 3], k=pa.array([1, 9, 1], pa.int32()))
    assert shown(join(plan(replaces=True), rows)) == [(1, "a", 2, 0), (9, None, 3, 1), (1, None, 3, 2)]
    assert shown(join(plan(replaces=True, is_left=True), rows)) == [(1, "a", 2, 0), (9, None, 2, 1), (1, None, 3, 2)]


def test_the_version_is_said_and_a_batch_can_be_joined_as_it_was() -> None:
    dim = Dimension(DIM)
    transform = LookupTransform(plan(), "dim", dim.cache(ttl_ms=1))
    rows = probe(k=pa.array([1], pa.int32()))
    first = transform.apply(rows)
    dim.put(pa.table({"k": pa.array([1], pa.int32()), "v": ["new"]}))
    dim.now += 1
    second = transform.apply(rows)
    assert (shown(first), shown(second)) == ([(1, "a", 0)], [(1, "new", 0)])
    assert first.versions["dim"] != second.versions["dim"]
    again = transform.at(first.versions).apply(rows)
    assert (shown(again), again.versions) == (shown(first), first.versions)
    assert transform.at({"another": "x"}) is transform


KINDS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "int": (pa.int32(), st.integers(-3, 3)),
    "big": (pa.int64(), st.sampled_from([-(2**63), -1, 0, 2**63 - 1])),
    "text": (pa.string(), st.sampled_from(["", "a", "b", "ä", "\x00"])),
    "money": (pa.decimal128(10, 2), st.decimals(-1, 1, places=2, allow_nan=False)),
    "day": (pa.date32(), st.sampled_from([date(1970, 1, 1), date(2024, 2, 29)])),
    "flag": (pa.bool_(), st.booleans()),
    "time": (pa.timestamp("us"), st.integers(0, 3)),
    "double": (pa.float64(), st.sampled_from([0.5, 1.0, math.inf])),
}


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_the_index_finds_what_duckdb_joins(name: str, data: st.DataObject) -> None:
    kind, values = KINDS[name]
    pairs = st.lists(st.tuples(st.none() | values, st.none() | st.integers(0, 1)), max_size=12)
    dim, rows = data.draw(pairs), data.draw(pairs)
    tables = [
        pa.table({"a": pa.array([a for a, _ in each], kind), "b": pa.array([b for _, b in each], pa.int8())})
        .append_column("n", pa.array(np.arange(len(each)), pa.int64()))
        for each in (dim, rows)
    ]  # fmt: skip
    index = LookupIndex([tables[0]["a"], tables[0]["b"]])
    place, row = index.find_all([tables[1]["a"], tables[1]["b"]])
    dims, probes = tables
    with duckdb.connect() as connection:
        connection.register("dims", dims)
        connection.register("probes", probes)
        query = "SELECT p.n, d.n FROM probes p JOIN dims d ON p.a = d.a AND p.b = d.b ORDER BY 1, 2"
        assert list(zip(place.tolist(), row.tolist(), strict=True)) == connection.execute(query).fetchall()
    if index.is_unique:
        one = index.find_one([probes["a"], probes["b"]])
        assert [(at, found) for at, found in enumerate(one.tolist()) if found >= 0] == list(
            zip(place.tolist(), row.tolist(), strict=True)
        )


@settings(max_examples=8, deadline=None)
@given(
    dim=st.lists(st.tuples(st.none() | st.integers(0, 5), st.sampled_from("abc")), min_size=2, max_size=12),
    keys=st.lists(st.none() | st.integers(0, 6), max_size=12),
    is_left=st.booleans(),
)
def test_memory_and_disk_give_the_same_rows(dim: list[tuple[int | None, str]], keys: list[int | None], is_left) -> None:
    table = pa.table({"k": pa.array([k for k, _ in dim], pa.int32()), "v": [v for _, v in dim]})
    rows = probe(k=pa.array(keys, pa.int32()))
    with tempfile.TemporaryDirectory() as home, env.overridden(VECTOR_ASSETS_HOME=home):
        here, there = (
            join(plan(is_left=is_left, residual="\"d.v\" <> 'b'"), rows, table, spill=spill) for spill in (False, True)
        )
    assert here.rows.schema == there.rows.schema
    assert (shown(here), here.filtered) == (shown(there), there.filtered)


def test_a_large_table_on_disk_is_joined_in_little_memory() -> None:
    numbers = np.arange(400_000, dtype=np.int32)
    dim = pa.table({"k": pa.array(numbers), "v": pa.array(np.char.add("name-", numbers.astype("U")))})
    made = LookupTransform(plan(), "dim", Dimension(dim, chunk=30_000).cache(("k",), max_rows=1000, spill=True))
    rows = probe(k=pa.array(np.arange(399_990, 400_010, dtype=np.int32)))
    found = made.apply(rows)
    assert found.rows["d.v"].to_pylist() == [f"name-{n}" for n in range(399_990, 400_000)]
    assert found.filtered == 10
