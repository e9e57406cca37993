from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vector_assets.engine.errors import PlanError
from vector_assets.transforms.checked_cast import cast_columns, misfits

INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64()]
INF = float("inf")
MS, US, NS = pa.timestamp("ms"), pa.timestamp("us"), pa.timestamp("ns")


def cast(values: list[Any], found: pa.DataType, wanted: pa.DataType) -> list[Any]:
    """The cast values, `...` where a value does not fit."""
    rows, schema = pa.table({"c": pa.array(values, found)}), pa.schema([("c", wanted)])
    wrong = misfits(rows, schema)
    kept = rows.filter(pa.array([row not in wrong for row in range(len(values))], pa.bool_()))
    done = iter(cast_columns(kept, schema)[0].to_pylist())
    return [... if row in wrong else next(done) for row in range(len(values))]


@settings(max_examples=150, deadline=None)
@given(found=st.sampled_from(INTEGERS), wanted=st.sampled_from(INTEGERS), data=st.data())
def test_integers_fit_or_are_named(found: pa.DataType, wanted: pa.DataType, data: st.DataObject) -> None:
    top, limit = 2 ** (found.bit_width - 1), 2 ** (wanted.bit_width - 1)
    near = [n for n in (limit - 1, limit, -limit, -limit - 1) if -top <= n < top]
    values = data.draw(st.lists(st.none() | st.integers(-top, top - 1) | st.sampled_from(near or [0]), max_size=8))
    assert cast(values, found, wanted) == [n if n is None or -limit <= n < limit else ... for n in values]


@pytest.mark.parametrize(
    ("found", "wanted", "values", "result"),
    [
        pytest.param(pa.float64(), pa.float32(), [1.5, 1e39, INF, None], [1.5, ..., INF, None], id="double to float"),
        pytest.param(pa.float64(), pa.int32(), [2.0, 2.5, 3e9, float("nan")], [2, ..., ..., ...], id="double to int"),
        pytest.param(pa.int64(), pa.float64(), [2**53 + 1, None], [float(2**53), None], id="bigint to double rounds"),
        pytest.param(pa.uint64(), pa.int64(), [1, 2**63], [1, ...], id="unsigned"),
        pytest.param(
            pa.decimal128(20, 4), pa.decimal128(5, 2), [Decimal("1.2350"), Decimal("999.9950")], [Decimal("1.24"), ...],
            id="decimal",
        ),
        pytest.param(pa.int64(), pa.decimal128(5, 2), [999, 1000], [Decimal(999), ...], id="int to decimal"),
        pytest.param(pa.decimal128(5, 2), pa.float64(), [Decimal("1.25")], [1.25], id="decimal to double"),
        pytest.param(
            US, MS, [datetime(1969, 12, 31, 23, 59, 59, 999999)], [datetime(1969, 12, 31, 23, 59, 59, 999000)],  # noqa: DTZ001
            id="timestamp is cut downwards",
        ),
        pytest.param(MS, NS, [datetime(3000, 1, 1)], [...], id="nanoseconds out of reach"),  # noqa: DTZ001
        pytest.param(
            US, pa.timestamp("ms", tz="UTC"), [datetime(2024, 1, 1)], [datetime(2024, 1, 1, tzinfo=UTC)],  # noqa: DTZ001
            id="local time is UTC",
        ),
        pytest.param(pa.date32(), US, [date(2024, 1, 2)], [datetime(2024, 1, 2)], id="date to timestamp"),  # noqa: DTZ001
        pytest.param(
            pa.list_(pa.float64()), pa.list_(pa.float32()), [[1.5, None], None, []], [[1.5, None], None, []], id="array"
        ),
        pytest.param(pa.list_(pa.int64()), pa.list_(pa.int8()), [[1], [200]], [[1], ...], id="array out of range"),
        pytest.param(pa.list_(pa.float32(), 2), pa.list_(pa.float32()), [[1, 2]], [[1, 2]], id="fixed size array"),
        pytest.param(pa.null(), pa.int32(), [None], [None], id="null"),
        pytest.param(pa.large_string(), pa.string(), ["x"], ["x"], id="large text"),
    ],
)  # fmt: skip
def test_implicit_conversions(found: pa.DataType, wanted: pa.DataType, values: list[Any], result: list[Any]) -> None:
    assert cast(values, found, wanted) == result


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (pa.string(), pa.int32()),
        (pa.int32(), pa.string()),
        (pa.bool_(), pa.int32()),
        (US, pa.date32()),
        (pa.string(), pa.binary()),
        (pa.list_(pa.string()), pa.list_(pa.float32())),
        (pa.float32(), pa.list_(pa.float32())),
        (pa.struct([("a", pa.int32())]), pa.struct([("b", pa.int32())])),
    ],
    ids=str,
)
def test_what_sql_does_not_convert_by_itself_is_refused(found: pa.DataType, wanted: pa.DataType) -> None:
    with pytest.raises(PlanError, match=r"column c is .* the target wants .* add a CAST"):
        misfits(pa.table({"c": pa.nulls(0, found)}), pa.schema([("c", wanted)]))


def test_a_slice_of_arrays_is_judged_by_itself() -> None:
    lists = pa.table({"c": pa.array([[300], [1], [2]], pa.list_(pa.int64()))}).slice(1)
    wanted = pa.schema([("c", pa.list_(pa.int8()))])
    assert misfits(lists, wanted) == {}
    assert cast_columns(lists, wanted)[0].to_pylist() == [[1], [2]]


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 400), data=st.data())
def test_misfits_anywhere_are_found(count: int, data: st.DataObject) -> None:
    bad = data.draw(st.sets(st.integers(0, count - 1), max_size=9))
    rows = pa.table({"c": pa.array([1e39 if row in bad else row / 2 for row in range(count)])})
    chunks = pa.concat_tables([rows.slice(0, count // 3), rows.slice(count // 3)])
    assert set(misfits(chunks, pa.schema([("c", pa.float32())]))) == bad
