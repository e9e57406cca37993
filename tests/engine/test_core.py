import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vector_assets.engine.core import (
    KIND,
    POSITION,
    RAW_SCHEMA,
    REJECT_SCHEMA,
    BatchToken,
    Counts,
    Range,
    RowKind,
    Span,
    brief,
    canonical,
    kinds_of,
    moved,
    no_rejects,
    rejects,
)

SPAN = Span((Range("t@x/0", {"offset": 3, "epoch": 1}, {"epoch": 1, "offset": 9}), Range("t@x/10", 5, 6)))
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
TOKENS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


def test_equal_values_have_equal_text() -> None:
    assert canonical({"b": 1, "a": [1, None]}) == canonical({"a": [1, None], "b": 1}) == '{"a":[1,null],"b":1}'


@given(st.lists(st.builds(Range, TEXT, TOKENS, TOKENS), max_size=4))
def test_a_span_is_read_back_as_it_was_written(ranges: list[Range]) -> None:
    span = Span(tuple(ranges))
    assert Span.from_json(span.to_json()) == span
    assert Span.from_json(span.to_json()).to_json() == span.to_json()


def test_a_span_says_where_it_starts_and_ends() -> None:
    assert SPAN.start == {"t@x/0": {"offset": 3, "epoch": 1}, "t@x/10": 5}
    assert SPAN.end == {"t@x/0": {"offset": 9, "epoch": 1}, "t@x/10": 6}
    assert SPAN.short() == "0:3-9,10:5-6"
    assert Span().short() == ""


def test_a_span_keeps_its_order_and_its_starts_when_its_ends_move() -> None:
    shorter = moved(SPAN, {"t@x/10": 5, "t@x/0": {"offset": 4}})
    assert shorter.start == SPAN.start
    assert [part.end for part in shorter.ranges] == [{"offset": 4}, 5]


@pytest.mark.parametrize(
    ("token", "text"),
    [
        ({"offset": 7, "epoch": 2}, "7"),
        ({"gtid": "0-1-9", "pos": 4}, "0-1-9"),
        ({"file": "b"}, '{"file":"b"}'),
        (7, "7"),
        (None, "None"),
    ],
)
def test_a_token_is_brief_for_people(token: object, text: str) -> None:
    assert brief(token) == text  # type: ignore[arg-type]


def token(**change: object) -> BatchToken:
    fields = {"pipeline": "cars", "target": "pg://cars", "seq": 7, "span": SPAN, "fence": 1} | change
    return BatchToken(**fields)  # type: ignore[arg-type]


def test_every_attempt_at_a_batch_has_the_same_id() -> None:
    same = Span(
        tuple(reversed([Range("t@x/10", 5, 6), Range("t@x/0", {"epoch": 1, "offset": 3}, {"offset": 9, "epoch": 1})]))
    )
    assert token(fence=2, first_splits=frozenset({"t@x/0"})).id == token().id == token(span=same).id
    assert len(token().id) == 32


@pytest.mark.parametrize(
    "change",
    [{"pipeline": "boats"}, {"target": "pg://boats"}, {"seq": 8}, {"span": moved(SPAN, {"t@x/0": 4, "t@x/10": 6})}],
    ids=str,
)
def test_another_batch_has_another_id(change: dict[str, object]) -> None:
    assert token(**change).id != token().id


def test_counts_add_up_and_survive_the_ledger() -> None:
    one, two = Counts(records=3, decoded=2, rejected=1), Counts(records=4, decoded=4, written=4)
    assert one + two == Counts(records=7, decoded=6, rejected=1, written=4)
    assert Counts.from_dict(one.to_dict()) == one
    assert Counts.from_dict({"records": 3, "forgotten": 9}) == Counts(records=3)


@pytest.mark.parametrize(
    "positions", [[4, 7], pa.array([4, 7]), pa.array([4, 7], pa.int32()), pa.chunked_array([[4], [7]])],
    ids=["list", "array", "other width", "chunks"],
)  # fmt: skip
@pytest.mark.parametrize("errors", ["bad", ["bad", "bad"], pa.array(["bad", "bad"])], ids=["one", "list", "array"])
def test_rejects_are_one_row_per_record(positions: object, errors: object) -> None:
    table = rejects(positions, "decode", errors)  # type: ignore[arg-type]
    assert table.schema == REJECT_SCHEMA
    assert table.to_pylist() == [{POSITION: p, "stage": "decode", "error": "bad"} for p in (4, 7)]


def test_no_rejects_is_an_empty_table_of_the_same_schema() -> None:
    assert no_rejects().schema == rejects([], "decode", "bad").schema == REJECT_SCHEMA
    assert rejects([], "decode", "bad").num_rows == 0
    assert pa.concat_tables([no_rejects(), rejects([1], "write", "x")]).num_rows == 1


def test_absent_kinds_mean_inserts() -> None:
    rows = pa.table({"id": [1]})
    assert kinds_of(rows) is None
    assert kinds_of(rows.append_column(KIND, pa.array([3], pa.int8()))).to_pylist() == [RowKind.DELETE]  # type: ignore[union-attr]


def test_row_kinds_have_flinks_numbers() -> None:
    assert [RowKind(n).name for n in range(4)] == ["INSERT", "UPDATE_BEFORE", "UPDATE_AFTER", "DELETE"]


def test_raw_records_hold_tombstones_and_no_headers() -> None:
    record = {"key": b"k", "value": None, "headers": None, "timestamp": None, "split": 0, "offset": 1}
    (found,) = pa.Table.from_pylist([record], RAW_SCHEMA).to_pylist()
    assert found == {**record, "leader_epoch": None, "timestamp_type": None}
