"""Keys and values put together by position."""

import json

import pyarrow as pa
import pytest

from tests.formats.contract import DecoderContract, check_counts, raw_table
from tests.formats.fix_changelog import changelog_decoder, reasons_of, rows_of
from tests.formats.fix_csv import csv_decoder, logical, outcome
from vector_assets.engine.core import Decoder
from vector_assets.engine.schema import Column, Table
from vector_assets.formats.keyed import KeyPart, KeyValueDecoder

TYPES = {"id": "INT NOT NULL", "name": "STRING", "weight": "DECIMAL(5, 2)"}
COLUMNS = [Column(name, logical(kind)) for name, kind in TYPES.items()]
KEY = KeyPart(csv_decoder(("id", "INT")), {"id": "id"})


def keyed(*, upsert: bool = False, all_fields: bool = False) -> KeyValueDecoder:
    """csv keys beside csv values."""
    names = ["id", "name", "weight"] if all_fields else ["name", "weight"]
    value = csv_decoder(*((name, TYPES[name]) for name in names))
    return KeyValueDecoder(KEY, value, COLUMNS, names, is_upsert=upsert)


def changelog(*, upsert: bool = True) -> KeyValueDecoder:
    columns = tuple(Column(name, logical(kind.removesuffix(" NOT NULL"))) for name, kind in TYPES.items())
    value = changelog_decoder("changelog-json", Table("t", columns))
    return KeyValueDecoder(KEY, value, COLUMNS, ["id", "name", "weight"], is_upsert=upsert)


class _WithKeys:
    """The contract's records have no keys: here each has its position as one."""

    def __init__(self, inner: Decoder) -> None:
        self._inner = inner

    def decode(self, raw):
        table = pa.Table.from_batches([raw]) if isinstance(raw, pa.RecordBatch) else raw
        return self._inner.decode(table.set_column(0, "key", table["_position"].cast(pa.string()).cast(pa.binary())))


@pytest.mark.parametrize("upsert", [False, True], ids=["inserts", "upserts"], scope="class")
class TestKeyValueDecoder(DecoderContract):
    @pytest.fixture
    def decoder(self, upsert: bool) -> Decoder:  # noqa: FBT001
        return _WithKeys(keyed(upsert=upsert))

    @pytest.fixture
    def good(self) -> bytes:
        return b"a,1.5"

    @pytest.fixture
    def bad(self) -> bytes:
        return b"a,heavy"


def test_record_is_rejected_for_its_key_or_its_value_and_once_if_for_both() -> None:
    raw = raw_table([b"a,1", b"b,x", b"c,2", b"d,x", b"e,3"], keys=[b"1", b"2", b"x", b"x", None], first=10)
    decoded = keyed().decode(raw)
    check_counts(decoded, raw)
    assert {at for at, value in outcome(decoded).items() if isinstance(value, tuple)} == {10}
    reasons = reasons_of(decoded)
    assert reasons[11].startswith("csv: column weight: found 'x'")
    assert reasons[12].startswith("key: csv: column id: found 'x'")
    assert reasons[13].startswith("key: csv: column id")
    assert reasons[14] == "key: null (the record has no key), wanted the key's columns"


def test_value_wins_where_both_hold_a_column() -> None:
    decoded = keyed(all_fields=True).decode(raw_table([b"7,a,1"], keys=[b"1"]))
    assert decoded.rows["id"].to_pylist() == [7]


def test_null_value_is_rejected_unless_it_is_a_delete() -> None:
    raw = raw_table([b"a,1", None, b"b,2", None], keys=[b"1", b"2", b"3", None])
    assert list(reasons_of(keyed().decode(raw))) == [1, 3]
    decoded = keyed(upsert=True).decode(raw)
    check_counts(decoded, raw)
    assert [row[:4] for row in rows_of(decoded)] == [(0, "+U", 1, "a"), (1, "-D", 2, None), (2, "+U", 3, "b")]
    assert list(reasons_of(decoded)) == [3]


def test_changelog_format_says_itself_what_its_rows_are() -> None:
    row = {"id": 1, "name": "a", "weight": 1}
    values = [{"data": row, "op": "+I"}, {"data": row, "op": "-U"}, {"data": row, "op": "+U"}, {"data": {}, "op": "-D"}]
    raw = raw_table([*(json.dumps(value).encode() for value in values), None], keys=[b"1"] * 5)
    decoded = changelog().decode(raw)
    check_counts(decoded, raw)
    assert [row[:4] for row in rows_of(decoded)] == [
        (0, "+I", 1, "a"), (1, "-U", 1, "a"), (2, "+U", 1, "a"), (3, "-D", 1, None), (4, "-D", 1, None),
    ]  # fmt: skip


def test_tombstone_of_a_changelog_beside_a_key_is_passed_over_without_upserts() -> None:
    raw = raw_table([None, b'{"data":{"id":1},"op":"-D"}'], keys=[b"1", b"1"])
    decoded = changelog(upsert=False).decode(raw)
    check_counts(decoded, raw)
    assert [row[:3] for row in rows_of(decoded)] == [(1, "-D", 1)]
    assert decoded.filtered == 1


def test_only_deletes_and_no_records_have_the_schema_of_rows() -> None:
    decoder = keyed(upsert=True)
    usual = decoder.decode(raw_table([b"a,1"], keys=[b"1"])).rows.schema
    assert decoder.decode(raw_table([None], keys=[b"1"])).rows.schema == usual
    assert decoder.decode(raw_table([])).rows.schema == usual
