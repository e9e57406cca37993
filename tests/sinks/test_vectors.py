"""Texts become vectors exactly, and bad ones never disturb their neighbours."""

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vector_assets.sinks.refusals import Refusals
from vector_assets.sinks.vectors import check, json_texts, parse

NUMBERS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=6)
BLANKS = st.sampled_from(["", " ", "  ", "\t", "\n"])
BAD = st.sampled_from(
    ["", "{", "}", "{]", "[}", "1,2", "{1 2}", "{a}", "{1,}", "[[1]]", "{1_0}", "{0x1}", "null", "{1}}"]
)


@st.composite
def spelled(draw):
    numbers = draw(NUMBERS)
    left, right = draw(st.sampled_from(["{}", "[]"]))
    pad = draw(BLANKS)
    body = ",".join(f"{pad}{np.float32(number)!s}{pad}" for number in numbers)
    return f"{pad}{left}{body}{right}{pad}", [float(np.float32(number)) for number in numbers]


@settings(deadline=None)
@given(st.lists(spelled() | BAD.map(lambda text: (text, None)) | st.just((None, None)), max_size=12))
def test_good_texts_are_parsed_and_bad_ones_refused_whatever_the_mixture(items):
    refusals = Refusals()
    texts = pa.array([text for text, _ in items], pa.string())
    found = parse(texts, pa.float32(), refusals.of("feature")).to_pylist()
    assert found == [numbers for _, numbers in items]
    assert sorted(refusals.reasons) == [
        row for row, (text, numbers) in enumerate(items) if text is not None and numbers is None
    ]


@settings(deadline=None)
@given(st.lists(spelled(), min_size=1, max_size=8), st.integers(0, 3))
def test_a_slice_of_a_column_parses_as_its_part(items, start):
    whole = pa.array([text for text, _ in items], pa.string())
    found = parse(whole.slice(start), pa.float32(), Refusals().of("feature")).to_pylist()
    assert found == [numbers for _, numbers in items[start:]]


@pytest.mark.parametrize(
    ("vectors", "is_strict", "bad"),
    [
        ([[1, 2], [1], None, []], False, {1: "1 dimensions, wanted 2", 3: "0 dimensions, wanted 2"}),
        ([[1, np.nan], [np.inf, 2], [1, 2]], False, {0: "NaN", 1: "infinite"}),
        ([[1, None], [1, 2]], True, {0: "missing"}),
        ([[1, None], [1, 2]], False, {}),
    ],
    ids=["dimension", "values", "missing-strict", "missing-plain"],
)
def test_vectors_are_checked_by_row(vectors, is_strict, bad):
    refusals = Refusals()
    check(pa.array(vectors, pa.list_(pa.float32())), 2, np.inf, refusals.of("feature"), is_strict=is_strict)
    assert set(refusals.reasons) == set(bad)
    for row, words in bad.items():
        assert words in refusals.reasons[row]


@settings(deadline=None)
@given(st.lists(st.none() | NUMBERS | st.just([]), max_size=12), st.integers(0, 3))
def test_vectors_are_read_back_from_their_texts_as_the_same_floats(vectors, start):
    column = pa.array(vectors, pa.list_(pa.float32())).slice(start)
    texts = json_texts(column).to_pylist()
    read = [None if text == "null" else [np.float32(number) for number in orjson.loads(text)] for text in texts]
    assert read == column.to_pylist()


def test_a_float_is_written_in_the_fewest_digits_that_mean_it():
    (text,) = json_texts(pa.array([[0.1, 0.016598461, -3]], pa.list_(pa.float32()))).to_pylist()
    assert text == "[0.1,0.016598461,-3.0]"


@pytest.mark.parametrize("at_once", [1, 7, 1 << 19])
def test_many_vectors_are_written_in_steps(at_once, monkeypatch):
    monkeypatch.setattr("vector_assets.sinks.vectors._AT_ONCE", at_once)
    numbers = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)
    column = pa.array([*numbers.tolist(), None, [1.5]], pa.list_(pa.float32()))
    texts = json_texts(column).to_pylist()
    assert [orjson.loads(text) for text in texts[-2:]] == [None, [1.5]]
    assert np.array_equal(np.array([orjson.loads(text) for text in texts[:-2]], np.float32), numbers)


def test_only_the_first_reason_of_a_row_is_kept():
    refusals = Refusals()
    refusals.of("one")(np.array([False, True]), "first")
    refusals.of("two")(np.array([True, True]), lambda row: f"second {row}")
    assert refusals.reasons == {0: "column two: second 0", 1: "column one: first"}
