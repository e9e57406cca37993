"""The decoder of lake jobs: what goes where, in every mode, on the quick way and on the thorough one."""

import json
from decimal import Decimal

import pyarrow as pa
import pytest

from tests.formats.contract import DecoderContract, check_counts, raw_table, same
from vector_assets.engine.core import POSITION
from vector_assets.engine.errors import ConfigError, DriftError
from vector_assets.engine.schema import LogicalType
from vector_assets.formats.lake_fields import RESCUED, LakeField, rebuild
from vector_assets.formats.lake_infer import infer, widened
from vector_assets.formats.lake_json import LakeJsonDecoder, LakeJsonOptions

ORDER = b'{"id": 1, "price": 12.5, "who": {"name": "a", "tags": [1, 2.50]}, "at": "2026-03-01T12:00:00.123Z"}'
FIELDS = infer([ORDER], 2, times=True).fields
PLAIN = tuple(each for each in FIELDS if not each.json)


def decoder(fields=FIELDS, **options) -> LakeJsonDecoder:
    return LakeJsonDecoder(fields, LakeJsonOptions(layers=2, **options))


class _Orders(DecoderContract):
    @pytest.fixture
    def good(self) -> bytes:
        return ORDER

    @pytest.fixture
    def bad(self) -> bytes:
        return ORDER[:-1]


@pytest.mark.parametrize("drift", ["rescue", "evolve", "freeze"])
class TestOrders(_Orders):
    @pytest.fixture
    def decoder(self, drift) -> LakeJsonDecoder:
        return decoder(drift=drift)


class TestPlainOrders(_Orders):
    @pytest.fixture
    def decoder(self) -> LakeJsonDecoder:
        return decoder(PLAIN, ignored=("who.tags",))


def row_of(document: bytes, **options) -> dict:
    (row,) = decoder(**options).decode(raw_table([document])).rows.to_pylist()
    del row[POSITION]
    return row


def test_parts_are_compact_text_as_they_were_written():
    row = row_of(b'{"who": { "tags" : [ 1.10, 1E5 , {"b": "\\u00e9 x", "a": {}} ] } }')
    assert row["who_tags"] == '[1.10,1E5,{"b":"\\u00e9 x","a":{}}]'
    assert row[RESCUED] is None


@pytest.mark.parametrize(
    ("document", "rescued"),
    [
        (b'{"id":1,"new":{"x": 1.0}}', '{"new":{"x":1.0}}'),
        (b'{"id":"1"}', '{"id":"1"}'),
        (b'{"id":1.5}', '{"id":1.5}'),
        (b'{"id":9223372036854775808}', '{"id":9223372036854775808}'),
        (b'{"id":null}', '{"id":null}'),
        (b'{"who":{}}', '{"who":{}}'),
        (b'{"who":3}', '{"who":3}'),
        (b'{"who":{"name":7,"age":3}}', '{"who":{"name":7,"age":3}}'),
        (b'{"price":0.1000000000000000055}', '{"price":0.1000000000000000055}'),
        (b'{"at":"2026-03-01T12:00:00Z"}', '{"at":"2026-03-01T12:00:00Z"}'),
        (b'{"who":{"name":"\\ud800"}}', '{"who":{"name":"\\ud800"}}'),
        (b'{"id":1,"id":2}', None),
        (b"{}", None),
    ],
)
def test_what_no_column_holds_is_rescued(document, rescued):
    row = row_of(document)
    assert row[RESCUED] == rescued
    assert rebuild(row, rescued, FIELDS) == json.loads(document, parse_float=Decimal)


def test_a_value_that_is_only_spelled_otherwise_is_in_its_column_too():
    assert row_of(b'{"price":0.1000000000000000055}')["price"] == 0.1
    assert row_of(b'{"at":"2026-03-01T12:00:00Z"}')["at"].isoformat() == "2026-03-01T12:00:00+00:00"
    assert row_of(b'{"id":7.0}') == row_of(b'{"id":7}')


def test_of_equal_names_the_last_counts():
    row = row_of(b'{"id":1,"who":{"name":"x"},"id":2,"who":{"tags":3},"new":1,"new":2}')
    assert (row["id"], row["who_name"], row["who_tags"]) == (2, None, "3")
    assert json.loads(row[RESCUED]) == {"new": 2}


def test_ignored_paths_are_wanted_nowhere():
    fields = tuple(each for each in FIELDS if each.name not in {"who_name", "who_tags"})
    row = row_of(b'{"id":1,"who":{"name":"x"},"new":1}', fields=fields, ignored=("who",))
    assert row[RESCUED] == '{"new":1}'
    with pytest.raises(ConfigError, match="is part of field"):
        decoder(ignored=("who.name.first",))


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "lag", "01", "1.", "'x'", '"\x00', "[1,]"])
def test_what_is_no_json_is_rejected_alone(value):
    documents = [ORDER, f'{{"id":{value}}}'.encode(), b"[1]", b"", ORDER]
    decoded = decoder().decode(raw_table(documents))
    assert decoded.rows[POSITION].to_pylist() == [0, 4]
    assert all(text.startswith("lake-json: ") for text in decoded.rejected["error"].to_pylist())


def test_frozen_columns_make_dead_letters_that_name_path_found_and_wanted():
    documents = [b'{"id":1}', b'{"id":"x"}', b'{"who":{"age":3}}', b'{"who":[]}', b'{"id":null}']
    decoded = decoder(drift="freeze").decode(raw_table(documents))
    assert RESCUED not in decoded.rows.column_names
    assert decoded.rows[POSITION].to_pylist() == [0, 4]
    assert decoded.rejected["error"].to_pylist() == [
        'lake-json: drift: id: found "x", wanted BIGINT',
        "lake-json: drift: found member who.age (3), wanted no other than the declared ones",
        "lake-json: drift: who: found an array, wanted an object",
    ]


def test_the_mode_fail_names_the_first_record():
    with pytest.raises(DriftError, match=r'record at offset 1 of split 0: lake-json: drift: id: found "x"'):
        decoder(drift="fail").decode(raw_table([ORDER, b'{"id":"x"}', b'{"id":"y"}']))


def test_a_column_that_is_usually_null_notes_the_records_that_lack_it():
    fields = infer([b'{"a":null,"d":{"b":null,"c":1}}'], 2).fields
    lake = LakeJsonDecoder(fields, LakeJsonOptions())
    documents = [b'{"a":null,"d":{"b":null,"c":1}}', b'{"a":1,"d":{"c":1}}', b'{"d":{"b":2}}', b'{"a":null}']
    rows = lake.decode(raw_table(documents)).rows.to_pylist()
    assert [row[RESCUED] for row in rows] == [None, '{"d":{"b":null}}', '{"a":null}', None]
    assert [rebuild(row, row[RESCUED], fields) for row in rows] == list(map(json.loads, documents))


FLAT = tuple(field for field in PLAIN if len(field.path) == 1)
STRANGE = [
    b'{"price":-0.0,"id":-0}',
    b'{"id":1,"id":2}',
    b'{ "at" : "2026-03-01T12:00:00.123Z" , "id" : 7 }',
    b'{"id":1,"price":0.30000000000000004}',
    b'{"id":1, "price" : 0.1000000000000000055}',
    b'{"id":1,"price":1.234567890123456e-05}',
    b'{"id":1,"price":1.2345678901234567890e-05}',
    b'{"id":1,"price":12345678901234567}',
    b'{"id":12345678901234567,"price":5e-324}',
    b'{"id":1,"price":1e999}',
    b'{"id":1,"who":{"name":": 0.1000000000000000055"}}',
    b'{"id":1,"who":{"name":"\\"price\\":0.1000000000000000055"},"price":-0.12345678901234567}',
    b'{"id":1,"who":{}}',
    b'{"id":1,"who":{"name":"null"}}',
    b'{"id":1,"who":{"name":null}}',
    b'{"id":1,"who":null}',
    b'{"id":1,"colour":"red"}',
    b'{"id":1,"colour":null}',
    b'{"id":1,"who":{"colour":{}}}',
    b'{"id":"1"}',
    b'{"id":1,"at":"2026-03-01t12:00:00.123Z"}',
    b'{"id":1,"at":"never"}',
    b"{nope}",
]


@pytest.mark.parametrize("native", ["on", "off"])
@pytest.mark.parametrize("fields", [PLAIN, FLAT], ids=["nested", "flat"])
def test_the_quick_ways_and_the_thorough_one_give_the_same_rows(fields, native, monkeypatch):
    monkeypatch.setenv("VECTOR_ASSETS_NATIVE", native)
    quick = decoder(fields)
    slow = decoder((*fields, LakeField(("no member", "of", "any"), "nothing", json=True)))
    assert quick._plain._native.is_able == (fields is FLAT)
    assert quick._plain.is_able
    assert not slow._plain.is_able
    known = {"id": 5, "price": 0.1 + 0.2, "who": {"name": "ü"}, "at": "2026-03-01T12:00:00.123Z"}
    plain = json.dumps({key: known[key] for key in known if key != "who" or fields is PLAIN}).encode()
    documents = [document for strange in STRANGE for document in (plain, strange)] + [plain] * 5000 + STRANGE
    raw = raw_table(documents)
    one, other = quick.decode(raw), slow.decode(raw)
    check_counts(one, raw)
    same(one, type(one)(other.rows.drop_columns("nothing"), other.rejected))
    assert one.rows[RESCUED].null_count > 5000
    for row in one.rows.slice(0, 45).to_pylist():
        assert rebuild(row, row[RESCUED], fields) == json.loads(documents[row[POSITION]], parse_float=Decimal)


def test_rows_are_in_order_when_two_quick_ways_share_them(monkeypatch):
    monkeypatch.setenv("VECTOR_ASSETS_NATIVE", "on")
    documents = [json.dumps({"id": number, "price": 0.1 + 0.2 * (number % 3)}).encode() for number in range(50)]
    decoded = decoder(FLAT).decode(raw_table(documents))
    assert decoded.rows[POSITION].to_pylist() == decoded.rows["id"].to_pylist() == list(range(50))


@pytest.mark.parametrize(
    ("kind", "number", "wider"),
    [
        ("TINYINT", "200", "SMALLINT"),
        ("INT", "3000000000", "BIGINT"),
        ("INT", "1.5", "DOUBLE"),
        ("INT", "0.1000000000000000055", None),
        ("INT", "0.100000000000000005", "DECIMAL(38, 18)"),
        ("BIGINT", "1.5", "DECIMAL(38, 18)"),
        ("BIGINT", "99999999999999999999", "DECIMAL(38, 0)"),
        ("BIGINT", "1e40", None),
        ("DECIMAL(10, 2)", "1.234", "DECIMAL(11, 3)"),
        ("DECIMAL(10, 2)", "123456789.1", "DECIMAL(11, 2)"),
        ("DECIMAL(38, 0)", "0.5", None),
        ("FLOAT", "1e300", None),
        ("DOUBLE", "1e400", None),
        ("STRING", "1", None),
    ],
)
def test_types_widen_along_the_lattice(kind, number, wider):
    name, _, digits = kind.partition("(")
    sizes = [int(part) for part in digits.rstrip(")").split(",")] if digits else []
    found = widened(LogicalType({"STRING": "VARCHAR"}.get(name, name), *sizes), Decimal(number))
    assert (str(found) if found else None) == wider


def test_the_schema_is_that_of_the_rows():
    lake = decoder()
    assert lake.decode(raw_table([ORDER])).rows.schema == lake.schema.append(
        pa.field(POSITION, pa.int64(), nullable=False)
    )
    assert [column.name for column in lake.columns] == ["id", "price", "who_name", "who_tags", "at", RESCUED]
