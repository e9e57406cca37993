"""Timestamps that are read by Arrow's cast alone are those that the grammar takes."""

import random

import pyarrow as pa
import pytest

from vector_assets.engine.schema import LogicalType
from vector_assets.formats import text_times

ALPHABET = "0123456789 -:.TZ+/e"
BASES = ("2026-03-01 12:00:00", "2024-02-29 23:59:59.9", "1900-12-31 00:00:00.123", "9999-01-30 01:01:01.123456")


def mutated(chance: random.Random) -> str:
    text = list(chance.choice(BASES))
    for _ in range(chance.randint(0, 3)):
        place = chance.randrange(len(text))
        text[place : place + chance.choice([1, 1, 1, 0, 2])] = chance.choice(ALPHABET)
    return "".join(text)


@pytest.mark.parametrize("precision", [0, 3, 6])
@pytest.mark.parametrize("seed", range(2))
def test_both_ways_take_the_same_texts_and_give_the_same_times(monkeypatch, precision, seed):
    chance = random.Random(seed)
    kind = LogicalType("TIMESTAMP", precision=precision)
    texts = sorted({mutated(chance) for _ in range(600)} | {"0000-01-01 00:00:00", "0001-01-01 00:00:00"})
    quick = [text_times.timestamps(pa.array([text]), kind)[0].as_py() for text in texts]
    monkeypatch.setattr(text_times, "_of_one_length", lambda *_: None)
    by_grammar = text_times.timestamps(pa.array(texts), kind).to_pylist()
    wrong = [(text, a, b) for text, a, b in zip(texts, quick, by_grammar, strict=True) if a != b]
    assert wrong == []
    assert sum(value is not None for value in quick) > 15


def test_a_bad_text_among_many_is_the_only_null():
    texts = pa.array(["2026-03-01 12:00:00.123"] * 5 + ["2026-02-30 12:00:00.123"] + ["2026-03-01 12:00:00.123"])
    values = text_times.timestamps(texts.slice(2), LogicalType("TIMESTAMP", precision=3))
    assert values.is_null().to_pylist() == [False, False, False, True, False]
