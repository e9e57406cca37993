import math
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vector_assets.engine import compact as module
from vector_assets.engine.compact import compact
from vector_assets.engine.core import KIND, POSITION
from vector_assets.engine.errors import PlanError

I, BEFORE, AFTER, D = 0, 1, 2, 3  # noqa: E741
SCHEMA = pa.schema(
    [
        pa.field("id", pa.int32()),
        pa.field("city", pa.string()),
        pa.field("payload", pa.int64()),
        pa.field(KIND, pa.int8()),
        pa.field(POSITION, pa.int64()),
    ]
)
Change = tuple[int | None, str | None, int]


def table(changes: list[Change]) -> pa.Table:
    """Changes (id, city, kind) in order; payload and position are the change's number."""
    numbered = [(key, city, number, kind, number) for number, (key, city, kind) in enumerate(changes)]
    return pa.Table.from_arrays(
        [pa.array(c) for c in zip(*numbered, strict=True)] if numbered else [[]] * 5, schema=SCHEMA
    )


def model(changes: list[Change], key: tuple[str, ...]) -> tuple[list[int], list[int]]:
    """Numbers of the changes that survive as upserts and as deletes, by applying one change after the other."""
    last: dict[Any, tuple[int, bool]] = {}
    for number, (ident, city, kind) in enumerate(changes):
        named = tuple({"id": ident, "city": city}[name] for name in key)
        last[named] = (number, kind in (I, AFTER))
    return sorted(n for n, upsert in last.values() if upsert), sorted(n for n, upsert in last.values() if not upsert)


def check(rows: pa.Table, changes: list[Change], key: tuple[str, ...]) -> None:
    upserts, deletes = model(changes, key)
    found = compact(rows, key)
    plain = rows.drop_columns([KIND])
    assert found.upserts.equals(plain.take(pa.array(upserts, pa.int64())).combine_chunks())
    if deletes:
        assert found.deletes is not None
        assert found.deletes.equals(plain.select([*key, POSITION]).take(pa.array(deletes, pa.int64())))
    else:
        assert found.deletes is None
    assert found.dropped == len(changes) - len(upserts) - len(deletes)


IDS = st.one_of(st.none(), st.integers(0, 4))
CITIES = st.one_of(st.none(), st.sampled_from(["", "a", "b"]))
CHANGES = st.one_of(
    st.tuples(IDS, CITIES, st.sampled_from([I, D])).map(lambda change: [change]),
    st.tuples(IDS, CITIES, IDS, CITIES).map(lambda u: [(u[0], u[1], BEFORE), (u[2], u[3], AFTER)]),
    st.tuples(IDS, CITIES, st.sampled_from([BEFORE, AFTER])).map(lambda change: [change]),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(CHANGES, max_size=30), st.sampled_from([("id",), ("city",), ("id", "city"), ("city", "id")]), st.data())
def test_it_leaves_what_a_table_would_hold(
    groups: list[list[Change]], key: tuple[str, ...], data: st.DataObject
) -> None:
    changes = [change for group in groups for change in group]
    rows = table(changes)
    cut = data.draw(st.integers(0, len(changes)))
    check(pa.concat_tables([rows.slice(0, cut), rows.slice(cut)]), changes, key)


@settings(max_examples=50, deadline=None)
@given(st.lists(CHANGES, max_size=30))
def test_it_is_right_even_when_all_hashes_collide(groups: list[list[Change]]) -> None:
    changes = [change for group in groups for change in group]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "key_hashes", lambda rows, _: pa.array(np.zeros(rows.num_rows, np.uint64)))
        check(table(changes), changes, ("id", "city"))


@settings(max_examples=100, deadline=None)
@given(st.lists(CHANGES, max_size=30))
def test_a_second_pass_changes_nothing(groups: list[list[Change]]) -> None:
    first = compact(table([change for group in groups for change in group]), ("id",))
    again = compact(first.upserts, ("id",))
    assert again.upserts is first.upserts
    assert (again.deletes, again.dropped) == (None, 0)


def result(changes: list[Change]) -> tuple[list[int], list[int], int]:
    found = compact(table(changes), ("id",))
    deletes = found.deletes.column(POSITION).to_pylist() if found.deletes else []
    return found.upserts.column(POSITION).to_pylist(), deletes, found.dropped


STORIES = {
    "an update in place takes its key back": ([(1, "a", BEFORE), (1, "b", AFTER)], ([1], [], 1)),
    "an update that moves the key leaves no orphan": ([(1, "a", BEFORE), (2, "a", AFTER)], ([1], [0], 0)),
    "a key moved there and back is only upserted": (
        [(1, "a", BEFORE), (2, "a", AFTER), (2, "a", BEFORE), (1, "a", AFTER)],
        ([3], [2], 2),
    ),
    "a chain of moves leaves its ends": (
        [(3, "c", BEFORE), (4, "c", AFTER), (2, "b", BEFORE), (3, "b", AFTER)],
        ([1, 3], [2], 1),
    ),
    "an insert that is deleted again is still a delete": ([(1, "a", I), (1, "a", D)], ([], [1], 1)),
    "a delete that is inserted again is an upsert": ([(1, "a", D), (1, "b", I)], ([1], [], 1)),
    "the last insert wins at its own place": ([(1, "a", I), (2, "b", I), (1, "c", I)], ([1, 2], [], 1)),
    "nulls are one key": ([(None, "a", I), (1, "b", I), (None, "c", I)], ([1, 2], [], 1)),
    "deletes of different keys stay": ([(1, "a", D), (2, "b", D)], ([], [0, 1], 0)),
}


@pytest.mark.parametrize(("changes", "expected"), STORIES.values(), ids=STORIES)
def test_a_story_ends_as_told(changes: list[Change], expected: tuple[list[int], list[int], int]) -> None:
    assert result(changes) == expected


def test_distinct_inserts_are_handed_on_as_they_are() -> None:
    rows = pa.table({"id": [3, 1, 2], POSITION: [0, 1, 2]})
    found = compact(rows, ("id",))
    assert found.upserts is rows
    assert (found.deletes, found.dropped) == (None, 0)


def test_rows_without_kinds_are_inserts_and_upserts_have_no_kinds() -> None:
    rows = pa.table({"id": [1, 2, 1], POSITION: [0, 1, 2]})
    assert compact(rows, ("id",)).upserts.to_pydict() == {"id": [2, 1], POSITION: [1, 2]}
    kinds = rows.append_column(KIND, pa.array([0, 0, 2], pa.int8()))
    assert compact(kinds, ("id",)).upserts.to_pydict() == {"id": [2, 1], POSITION: [1, 2]}


@pytest.mark.parametrize("with_kinds", [True, False], ids=["kinds", "no kinds"])
def test_an_empty_batch_stays_empty(with_kinds: object) -> None:
    rows = SCHEMA.empty_table() if with_kinds else SCHEMA.empty_table().drop_columns([KIND])
    found = compact(rows, ("id", "city"))
    assert (found.upserts.num_rows, found.deletes, found.dropped) == (0, None, 0)
    assert found.upserts.column_names == ["id", "city", "payload", POSITION]


KEYS: dict[str, pa.Array] = {
    "double": pa.array([0.0, -0.0, math.nan, None, math.nan, None]),
    "float": pa.array([0.0, -0.0, math.nan, None, math.nan, None], pa.float32()),
    "boolean": pa.array([True, True, False, None, False, None]),
    "binary": pa.array([b"\xff", b"\xff", b"", None, b"", None]),
    "large string": pa.array(["a", "a", "", None, "", None], pa.large_string()),
    "fixed binary": pa.array([b"ab", b"ab", b"cd", None, b"cd", None], pa.binary(2)),
    "dictionary": pa.array(["a", "a", "b", None, "b", None]).dictionary_encode(),
    "decimal": pa.array([Decimal(1), Decimal(1), Decimal(2), None, Decimal(2), None], pa.decimal128(5, 1)),
    "timestamp": pa.array([datetime(2026, 1, 1)] * 2 + [datetime(2026, 1, 2), None] * 2),  # noqa: DTZ001
    "uint64": pa.array([2**64 - 1, 2**64 - 1, 0, None, 0, None], pa.uint64()),
}


@pytest.mark.parametrize("column", KEYS.values(), ids=KEYS)
def test_every_type_of_key_groups_equal_values(column: pa.Array) -> None:
    rows = pa.table({"k": column, POSITION: range(6)})
    assert compact(rows, ("k",)).upserts.column(POSITION).to_pylist() == [1, 4, 5]


@pytest.mark.parametrize(
    "make", [lambda n: np.arange(n) % 1000, lambda n: [f"user-{i % 1000}" for i in range(n)]], ids=["int", "text"]
)
def test_many_changes_of_few_keys_leave_the_last(make: Callable[[int], Any]) -> None:
    found = compact(pa.table({"k": make(20_000), POSITION: np.arange(20_000)}), ("k",))
    assert found.upserts.column(POSITION).to_pylist() == list(range(19_000, 20_000))
    assert found.dropped == 19_000


def test_a_merge_by_key_needs_a_key() -> None:
    with pytest.raises(PlanError, match="needs a key"):
        compact(table([(1, "a", I)]), ())


@pytest.mark.parametrize("kind", [4, -1, None])
def test_an_unknown_kind_is_never_taken_for_a_delete(kind: int | None) -> None:
    rows = pa.table({"id": [1, 2], KIND: pa.array([0, kind], pa.int8()), POSITION: [0, 1]})
    with pytest.raises(PlanError, match=r"column _kind: found \[.*\], wanted 0 to 3"):
        compact(rows, ("id",))
