"""What is known of parts of a table against a filter: none is left out that holds a row which meets it."""

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vector_assets.sinks import pruning

SCHEMA = pa.schema([("n", pa.int64()), ("s", pa.string())])
NUMBER, TEXT = ds.field("n"), ds.field("s")
numbers = st.none() | st.integers(-5, 5)
texts = st.none() | st.sampled_from(["a", "ab", "b", "ü", ""])
rows = st.lists(st.tuples(numbers, texts), min_size=1, max_size=6)
compare = st.sampled_from(["__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__"])


def leaf(field, values) -> st.SearchStrategy[pc.Expression]:
    return st.one_of(
        st.builds(lambda how, value: getattr(field, how)(value), compare, values),
        st.builds(lambda several: field.isin(several), st.lists(values, min_size=1, max_size=3)),
        st.sampled_from([field.is_null(), field.is_valid()]),
    )


filters = st.recursive(
    st.one_of(leaf(NUMBER, st.integers(-6, 6)), leaf(TEXT, st.sampled_from(["a", "aa", "b", "z"]))),
    lambda inner: st.one_of(
        st.builds(lambda a, b: a & b, inner, inner),
        st.builds(lambda a, b: a | b, inner, inner),
        inner.map(lambda a: ~a),
    ),
    max_leaves=5,
)


def table(values) -> pa.Table:
    return pa.table([[each[0] for each in values], [each[1] for each in values]], schema=SCHEMA)


def known(part: pa.Table) -> pc.Expression | None:
    found = []
    for name in part.column_names:
        column = part.column(name)
        if column.null_count < len(column):
            ends = pc.min_max(column)
            found.append(pruning.between(name, ends["min"], ends["max"], has_nulls=column.null_count > 0))
    return pruning.every(found)


@settings(max_examples=300, deadline=None)
@given(st.lists(rows, min_size=1, max_size=4), filters)
def test_no_part_is_left_out_that_holds_a_row_which_meets_the_filter(parts, where):
    tables = [table(part) for part in parts]
    kept = set(pruning.possible([known(part) for part in tables], SCHEMA, where))
    for number, part in enumerate(tables):
        if number not in kept:
            assert part.filter(where).num_rows == 0


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        (NUMBER > 25, [2, 3]),
        ((NUMBER > 12) & (NUMBER < 18), [1]),
        (NUMBER.isin([3, 31]), [0, 3]),
        ((NUMBER == 3) | (NUMBER == 22), [0, 2]),
        (NUMBER.is_null(), [3]),
        (TEXT == "x", [0, 1, 2, 3]),
        (None, [0, 1, 2, 3]),
    ],
    ids=str,
)
def test_parts_are_left_out_by_their_bounds(where, kept):
    parts = [
        pruning.between("n", pa.scalar(10 * part), pa.scalar(10 * part + 9), has_nulls=part == 3) for part in range(4)
    ]
    assert pruning.possible(parts, SCHEMA, where) == kept


def test_parts_are_left_out_by_their_partitions():
    parts = [pruning.every([pruning.equal("s", pa.scalar(value, pa.string()))]) for value in ("a", "b", None)]
    assert pruning.possible(parts, SCHEMA, TEXT == "b") == [1]
    assert pruning.possible(parts, SCHEMA, TEXT.is_null()) == [2]
    assert pruning.possible([None, parts[0]], SCHEMA, TEXT == "b") == [0]
