"""What every changelog format does: the contract of decoders, and random changes there and back."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.changelog_samples import COLUMNS, ENCODERS, Change, canal, debezium_with_schema, samples
from tests.formats.contract import DecoderContract, raw_table
from tests.formats.fix_changelog import changelog_decoder, changelog_table, decoded_of, reasons_of, rows_of
from vector_assets.engine.core import Decoder

ROW = {"id": 1, "name": "a", "weight": "1.5"}
GOOD = {
    "debezium-json": {"before": ROW, "after": ROW, "op": "u"},
    "canal-json": {"data": [ROW, ROW], "old": [{"name": None}, {}], "type": "UPDATE"},
    "maxwell-json": {"data": ROW, "old": {"name": None}, "type": "update"},
    "changelog-json": {"data": ROW, "op": "-D"},
}


@pytest.mark.parametrize("name", GOOD, scope="class")
class TestChangelogDecoders(DecoderContract):
    @pytest.fixture
    def decoder(self, name: str) -> Decoder:
        return changelog_decoder(name)

    @pytest.fixture
    def good(self, name: str) -> bytes:
        return json.dumps(GOOD[name]).encode()

    @pytest.fixture
    def bad(self) -> bytes:
        return b'{"op": "?", "type": "?"}'


names = (
    st.none() | st.text(max_size=8) | st.sampled_from(["null", '"old"', "old", '"old":null', "\u00e9\U0001f600\n\x00"])
)
weights = st.none() | st.decimals(-999, 999, places=2).map(str)
rows = st.fixed_dictionaries({"id": st.integers(-(2**31), 2**31 - 1), "name": names, "weight": weights})
changed = st.tuples(rows, rows) | st.tuples(st.none(), rows) | st.tuples(rows, st.none())
partly = st.tuples(rows, st.sets(st.sampled_from(["id", "name", "weight"])), rows).map(
    lambda drawn: (drawn[0], {name: (drawn[2] if name in drawn[1] else drawn[0])[name] for name in drawn[0]})
)
CHANGED = st.lists(changed | partly, max_size=12)


def values(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["id"], row["name"], None if row["weight"] is None else Decimal(row["weight"])


def wanted(change: Change, *, first: int, second: int) -> list[tuple[Any, ...]]:
    before, after = change
    if before is None or after is None:
        row = after if before is None else before
        assert row is not None
        return [(first, "+I" if before is None else "-D", *values(row))]
    return [(first, "-U", *values(before)), (second, "+U", *values(after))]


@pytest.mark.parametrize("name", ENCODERS)
@settings(max_examples=60, deadline=None)
@given(changes=CHANGED)
def test_random_changes_come_back_as_they_were_written(name: str, changes: list[Change]) -> None:
    records: list[bytes] = []
    expected = []
    for change in changes:
        written = ENCODERS[name](change)
        expected += wanted(change, first=len(records), second=len(records) + len(written) - 1)
        records += written
    decoded = decoded_of(changelog_decoder(name), *records)
    assert reasons_of(decoded) == {}
    assert rows_of(decoded) == expected


@settings(max_examples=60, deadline=None)
@given(groups=st.lists(st.lists(partly, min_size=1, max_size=4), max_size=5))
def test_canal_records_of_several_rows_come_back_as_they_were_written(groups: list[list[Change]]) -> None:
    decoded = decoded_of(changelog_decoder("canal-json"), *(canal(*group) for group in groups))
    expected = [
        row for place, group in enumerate(groups) for one in group for row in wanted(one, first=place, second=place)
    ]
    assert reasons_of(decoded) == {}
    assert rows_of(decoded) == expected


@settings(max_examples=30, deadline=None)
@given(changes=CHANGED)
def test_debezium_records_with_schemas_come_back_as_they_were_written(changes: list[Change]) -> None:
    decoder = changelog_decoder("debezium-json", schema_include="true")
    decoded = decoded_of(decoder, *map(debezium_with_schema, changes))
    expected = [row for place, change in enumerate(changes) for row in wanted(change, first=place, second=place)]
    assert rows_of(decoded) == expected


@pytest.mark.parametrize("name", GOOD)
@settings(max_examples=60, deadline=None)
@given(record=st.binary(max_size=40) | st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["data", "old", "type", "op", "before", "after", "id"]), inner, max_size=4)).map(lambda value: json.dumps(value).encode()))  # fmt: skip  # noqa: E501
def test_any_bytes_are_a_row_a_reject_or_passed_over(name: str, record: bytes) -> None:
    good = json.dumps(GOOD[name]).encode()
    decoded = decoded_of(changelog_decoder(name), good, record, good)
    assert {0, 2} <= {row[0] for row in rows_of(decoded)}


@pytest.mark.parametrize("name", ENCODERS)
def test_samples_for_benchmarks_are_all_read(name: str) -> None:
    raw = raw_table(samples(name, 50))
    decoded = changelog_decoder(name, changelog_table(COLUMNS)).decode(raw)
    assert decoded.rejected.num_rows == decoded.filtered == decoded.nulled == 0
    assert decoded.rows.num_rows == 60
