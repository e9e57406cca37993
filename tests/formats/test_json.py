"""The json decoder as a pipeline sees it: rows, rejects with reasons, counts, options."""

import json

import pyarrow as pa
import pytest

from tests.formats.contract import DecoderContract, check_counts, raw_table
from tests.formats.fix_csv import csv_table, logical, outcome
from tests.formats.fix_json import ORDER_COLUMNS, json_decoder, order, order_record, value_of
from vector_assets.engine.core import POSITION
from vector_assets.engine.errors import ConfigError
from vector_assets.formats.json import JsonDecoder, JsonOptions
from vector_assets.formats.json_rows import JsonRows, JsonRules

NESTED = ("c", "ROW<id INT NOT NULL, tags ARRAY<STRING>, at ROW<x DOUBLE, y DOUBLE>>")


class TestOrders(DecoderContract):
    @pytest.fixture
    def decoder(self) -> JsonDecoder:
        return json_decoder(*ORDER_COLUMNS)

    @pytest.fixture
    def good(self) -> bytes:
        return order_record(5)

    @pytest.fixture
    def bad(self) -> bytes:
        return order_record(5)[:-1]


class TestNestedAndMap(DecoderContract):
    @pytest.fixture
    def decoder(self) -> JsonDecoder:
        return json_decoder(NESTED, ("m", "MAP<STRING, ARRAY<INT>>"))

    @pytest.fixture
    def good(self) -> bytes:
        return b'{"c": {"id": 1, "tags": ["a", null], "at": {"x": 1, "y": 2.5}}, "m": {"k": [1, 2], "n": null}}'

    @pytest.fixture
    def bad(self) -> bytes:
        return b'{"c": {"id": null}}'


class TestMissingFieldsFail(DecoderContract):
    @pytest.fixture
    def decoder(self) -> JsonDecoder:
        return json_decoder(("a", "INT"), ("b", "STRING"), fail_on_missing_field="true")

    @pytest.fixture
    def good(self) -> bytes:
        return b'{"a": null, "b": "x"}'

    @pytest.fixture
    def bad(self) -> bytes:
        return b'{"b": "x"}'


def test_rows_have_the_declared_types_and_nullability() -> None:
    columns = [("id", "BIGINT NOT NULL"), ("m", "MAP<STRING, INT>"), NESTED, ("p", "DECIMAL(5, 2)")]
    good = b'{"id": 1, "m": {"a": 1}, "c": {"id": 2}, "p": 1}'
    for records in ([], [good], [b"x"], [good, b"x"]):
        rows = json_decoder(*columns).decode(raw_table(records)).rows
        assert rows.schema == pa.schema(
            [
                *[pa.field(name, logical(kind).arrow, nullable="NOT NULL" not in kind[-8:]) for name, kind in columns],
                pa.field(POSITION, pa.int64(), nullable=False),
            ]
        )


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        pytest.param(None, "json: null value (a tombstone); json has no deletes", id="null"),
        pytest.param(b"", "json: empty value", id="empty"),
        pytest.param(b" \n ", "json: empty value", id="blank"),
        pytest.param(b"null", "json: found nothing, wanted one object", id="the value null"),
        pytest.param(b"[1]", "json: found an array, wanted one object", id="array"),
        pytest.param(
            b'{"a": 1, "b',
            "json: no JSON: Unterminated string starting at at character 9",
            id="cut in a string",
        ),
        pytest.param(b'{"a": ', "json: no JSON: no value at character 6, the end (a cut record?)", id="cut in a value"),
        pytest.param(
            b'{"a": 1}{"a": 2}',
            "json: something follows the object at character 8; wanted one object in a record",
            id="two objects",
        ),
        pytest.param(b'{"b": "\xff"}', "json: bad UTF-8", id="bad utf-8"),
        pytest.param(
            '{"a": 1}'.encode("utf-16-le"),
            "json: a NUL byte in front: looks like UTF-16 or UTF-32, wanted UTF-8",
            id="utf-16",
        ),
        pytest.param(b'{"a": NaN}', "json: no JSON: found NaN, which JSON has no number for", id="NaN"),
        pytest.param(b'{"z": -Infinity}', "json: no JSON: found -Infinity, which JSON has no number for", id="inf"),
        pytest.param(b'{"a": "x"}', "json: column a: found 'x', wanted INT", id="letters in a number"),
        pytest.param(b'{"a": 3000000000}', "json: column a: found 3000000000, wanted INT", id="out of range"),
        pytest.param(
            b'{"a": 99999999999999999999}', "json: column a: found 99999999999999999999, wanted INT", id="over 64 bits"
        ),
        pytest.param(b'{"a": 1.5}', "json: column a: found 1.5, wanted INT", id="fraction in an INT"),
        pytest.param(b'{"a": true}', "json: column a: found true, wanted INT", id="truth in an INT"),
        pytest.param(b'{"a": {}}', "json: column a: found an object, wanted INT", id="object in an INT"),
        pytest.param(
            b'{"c": {"id": 1, "at": {"y": [2]}}}',
            "json: column c.at.y: found an array, wanted DOUBLE",
            id="deep inside",
        ),
        pytest.param(b'{"c": {}}', "json: column c.id: found nothing, wanted INT NOT NULL", id="null in NOT NULL"),
        pytest.param(b'{"c": 5}', "json: column c: found 5, wanted " + str(logical(NESTED[1])), id="no row"),
        pytest.param(b'{"l": [1, {"k": "x"}]}', "json: column l[1]: found an object, wanted INT", id="in an array"),
        pytest.param(b'{"m": {"k": "x"}}', "json: column m['k']: found 'x', wanted INT", id="in a map"),
        pytest.param(b'{"b": "\\ud800"}', r"json: column b: found '\ud800', wanted STRING", id="half a character"),
    ],
)
@pytest.mark.parametrize("more", [[], [("m", "MAP<STRING, INT>")]], ids=["blocks", "exact"])
def test_a_bad_record_is_rejected_with_its_reason_and_its_neighbours_land(
    record: bytes | None, reason: str, more: list[tuple[str, str]]
) -> None:
    columns = [("a", "INT"), ("b", "STRING"), NESTED, ("l", "ARRAY<INT>")]
    columns += [("m", "MAP<STRING, INT>")] if (record or b"").startswith(b'{"m"') else more
    good = b'{"a": 1, "c": {"id": 1}}'
    raw = raw_table([good, record, good])
    decoded = json_decoder(*columns).decode(raw)
    check_counts(decoded, raw)
    found = outcome(decoded)
    assert found[1] == reason
    assert decoded.rows["a"].to_pylist() == [1, 1]


def test_a_missing_field_names_its_path() -> None:
    decoder = json_decoder(NESTED, fail_on_missing_field="true")
    record = b'{"c": {"id": 1, "tags": null, "at": {"x": 1}}}'
    error = outcome(decoder.decode(raw_table([record])))[0]
    assert error == "json: column c.at.y is missing, wanted DOUBLE (fail-on-missing-field is true)"
    assert outcome(decoder.decode(raw_table([b"{}"])))[0].startswith("json: column c is missing")  # type: ignore[attr-defined]


def test_ignored_parse_errors_null_the_smallest_value_and_are_counted() -> None:
    columns = [("a", "INT"), ("r", "ROW<x INT, l ARRAY<INT>>"), ("b", "BYTES"), ("n", "INT NOT NULL")]
    records = [
        b'{"a": "x", "r": {"x": 1, "l": [1, "y", 3]}, "b": 12, "n": 1}',
        b'{"a": 1, "r": 5, "n": 2}',
        b'{"a": 1, "n": "z"}',
        b"no json",
    ]
    decoded = json_decoder(*columns, ignore_parse_errors="true").decode(raw_table(records))
    found = outcome(decoded)
    assert found[0] == (None, {"x": 1, "l": [1, None, 3]}, None, 1)
    assert found[1] == (1, None, None, 2)
    assert found[2] == "json: column n: found 'z', wanted INT NOT NULL"
    assert str(found[3]).startswith("json: no JSON")
    assert decoded.nulled == 5


def test_texts_keep_what_the_record_spells() -> None:
    spelled = ["1.10", "1E5", "-0", "99999999999999999999", "true", '{"a":[1.50,null,"é\\n"]}', "[]"]
    assert [value_of("STRING", text) for text in spelled] == spelled
    assert value_of("STRING", ' { "b" : 1 , "a" : [ ] } ') == '{"b":1,"a":[]}'


def test_members_in_any_order_spacing_and_case_are_matched_by_exact_name() -> None:
    records = [
        b'{"b":"x","a":1}',
        b'\n{\n  "a": 1,\r\n  "z": [{}],\n  "b": "x"\n}\n',
        b'{"A": 5, "a": 1, "b": "x"}',
        b'{"a": 2, "b": "x", "a": 1}',
        b'{"\\u0061": 1, "b": "x"}',
        b'\xef\xbb\xbf{"a": 1, "b": "x"}',
    ]
    found = outcome(json_decoder(("a", "INT"), ("b", "STRING")).decode(raw_table(records)))
    assert set(found.values()) == {(1, "x")}
    assert len(found) == len(records)


def test_a_topic_of_quoted_numbers_or_of_both_is_the_same_rows() -> None:
    plain = [order(number) for number in range(3000)]
    quoted = [
        {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in row.items()}
        for row in plain
    ]
    decoder = json_decoder(*ORDER_COLUMNS)
    wanted = decoder.decode(raw_table([json.dumps(row).encode() for row in plain])).rows
    for rows in (quoted, [one if n % 3 else other for n, (one, other) in enumerate(zip(plain, quoted, strict=True))]):
        assert decoder.decode(raw_table([json.dumps(row).encode() for row in rows])).rows == wanted


def test_flink_refuses_both_ways_to_treat_missing_fields_and_so_do_we() -> None:
    with pytest.raises(ConfigError, match=r"fail-on-missing-field and json\.ignore-parse-errors are both true"):
        json_decoder(("a", "INT"), fail_on_missing_field="true", ignore_parse_errors="true")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("json.ignore-parse-errors", "yes", "want true or false"),
        ("json.timestamp-format.standard", "ISO", "'SQL' or 'ISO-8601'"),
        ("json.map-null-key.mode", "fail", "'FAIL', 'DROP' or 'LITERAL'"),
        ("json.encode.decimal-as-plain-number", "1", "want true or false"),
        ("json.ignore-parse-error", "true", r"did you mean 'json.ignore-parse-errors'\?"),
    ],
)
def test_a_wrong_option_is_refused(name: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        JsonOptions.parse({name: value}, "format json")


def test_a_map_with_keys_that_are_no_text_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"column c is MAP<INT, INT>; the keys of a JSON object are text"):
        json_decoder(("c", "ROW<m MAP<INT, INT>>"))
    with pytest.raises(ConfigError, match="has no physical column"):
        JsonDecoder(JsonOptions.parse({}, "format json"), csv_table())


def test_the_core_is_of_use_for_envelopes() -> None:
    row = logical("ROW<id INT, name STRING>")
    rows = JsonRows([("before", row), ("after", row), ("op", logical("STRING"))], JsonRules())
    documents = [b'{"before": null, "after": {"id": 1, "name": "x"}, "op": "c", "source": {"ts": 1}}', None, b"{"]
    parsed = rows.parse(pa.array(documents, pa.binary()))
    assert [column.to_pylist() for column in parsed.columns] == [[None], [{"id": 1, "name": "x"}], ["c"]]
    assert parsed.places.tolist() == [0]
    assert list(parsed.errors) == [1, 2]
