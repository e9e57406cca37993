"""Format avro-confluent over a real registry: framing, schemas that change, and what is an outage and what is not."""

import datetime as dt
import json

import pyarrow as pa
import pytest

from tests.fix_registry import framed
from tests.formats.contract import DecoderContract, check_counts, raw_table
from tests.formats.fix_avro import csv_table, encode, outcome, record, sample, sample_columns, sample_schema
from vector_assets.engine.errors import ConfigError, UnavailableError
from vector_assets.formats.avro_confluent import ConfluentDecoder, ConfluentOptions

URL = {"avro-confluent.url": "http://127.0.0.1:1"}
SECRETS = {
    "avro-confluent.url": "https://registry.example:8081",
    "avro-confluent.basic-auth.credentials-source": "USER_INFO",
    "avro-confluent.basic-auth.user-info": "ann:secret-word",
    "avro-confluent.ssl.keystore.location": "/keys/both.pem",
    "avro-confluent.ssl.keystore.password": "other-secret-word",
}


def options(raw):
    return ConfluentOptions.parse(raw, "format avro-confluent")


def decoder(url, *columns, **more):
    raw = {"avro-confluent.url": url, **{f"avro-confluent.{name}": value for name, value in more.items()}}
    return ConfluentDecoder(options(raw), csv_table(*columns))


@pytest.mark.service
class TestConfluentDecoder(DecoderContract):
    @pytest.fixture
    def decoder(self, registry):
        return decoder(registry.url, *sample_columns())

    @pytest.fixture
    def good(self, registry):
        return framed(registry.register(sample_schema()), sample(3)[1])

    @pytest.fixture
    def bad(self, registry):
        return framed(registry.register(sample_schema()), sample(3)[1][:-2])


def test_records_of_several_writers_keep_their_order(registry):
    """The second writer renamed nothing, widened a number, added a field and made another one optional."""
    first = record(("id", "int"), ("name", "string"))
    second = record(("added", {"type": "map", "values": "bytes"}), ("name", ["null", "string"]), ("id", "long"))
    one, two = registry.register(first), registry.register(second)
    old = [framed(one, each) for each in encode(first, *({"id": n, "name": f"a{n}"} for n in range(50)))]
    new = [
        framed(two, each)
        for each in encode(second, *({"id": n, "name": None, "added": {"k": b"v"}} for n in range(50)))
    ]
    mixed = [each for pair in zip(old, new, strict=True) for each in pair]
    raw = raw_table(mixed, first=3, step=2)
    decoded = decoder(registry.url, ("name", "STRING"), ("id", "BIGINT"), ("later", "INT")).decode(raw)
    check_counts(decoded, raw)
    assert decoded.rows["id"].to_pylist() == [n for n in range(50) for _ in range(2)]
    assert decoded.rows["name"].to_pylist() == [each for n in range(50) for each in (f"a{n}", None)]
    assert decoded.rows["later"].null_count == 100


def test_each_poison_record_is_rejected_alone_with_its_reason(registry):
    number = registry.register(record(("id", "int")))
    other = registry.register('{"type": "object"}', schemaType="JSON")
    good = framed(number, b"\x02")
    poison = {
        1: (b"", "fewer than 5 bytes"),
        3: (b"\0\0\0\0", "fewer than 5 bytes"),
        4: (b'{"id": 1}', "the first byte is not 0"),
        5: (framed(999_999, b"\x02"), "schema id 999999 is not in the schema registry"),
        6: (framed(-1, b"\x02"), "schema id -1 is not in the schema registry"),
        7: (framed(other, b"{}"), "of type JSON, wanted AVRO"),
        8: (framed(number, b""), "column id: the record ends within the value"),
        9: (good + b"\0", "1 bytes follow the value"),
        10: (framed(number, b"\x80\x80\x80\x80\x10"), "more than 32 bits"),
    }
    values = [poison[place][0] if place in poison else good for place in range(12)]
    found = outcome(decoder(registry.url, ("id", "INT")).decode(raw_table([*values, None])))
    assert [place for place, each in found.items() if each == (1,)] == [0, 2, 11]
    for place, (_, reason) in poison.items():
        assert reason in found[place]
        assert found[place].startswith("avro-confluent: ")
    assert "null value" in found[12]


def test_what_the_writer_says_of_its_timestamps_counts_whatever_the_column_s_precision(registry):
    micros = {"type": "long", "logicalType": "timestamp-micros"}
    writer = record(("a", micros), ("b", micros), ("c", {"type": "long", "logicalType": "timestamp-millis"}))
    moment = dt.datetime.fromisoformat("2024-05-06 07:08:09.123456+00:00")
    data = [framed(registry.register(writer), each) for each in encode(writer, {"a": moment, "b": moment, "c": moment})]
    columns = [("a", "TIMESTAMP(3)"), ("b", "TIMESTAMP_LTZ(6)"), ("c", "TIMESTAMP")]
    (row,) = outcome(decoder(registry.url, *columns).decode(raw_table(data))).values()
    cut = moment.replace(microsecond=123_000)
    assert row == (cut.replace(tzinfo=None), moment, cut.replace(tzinfo=None))


def test_a_given_schema_brings_its_defaults_and_aliases(registry):
    writer = record(("old_name", "string"), ("kind", {"type": "enum", "name": "k", "symbols": ["A", "B"]}))
    reader = {
        "type": "record",
        "name": "r",
        "fields": [
            {"name": "name", "type": "string", "aliases": ["old_name"]},
            {"name": "kind", "type": {"type": "enum", "name": "k", "symbols": ["A", "Z"], "default": "Z"}},
            {"name": "size", "type": "int", "default": 7},
        ],
    }
    data = [framed(registry.register(writer), each) for each in encode(writer, {"old_name": "x", "kind": "B"})]
    columns = [("name", "STRING"), ("kind", "STRING"), ("size", "INT NOT NULL")]
    found = outcome(decoder(registry.url, *columns, schema=json.dumps(reader)).decode(raw_table(data)))
    assert found[0] == ("x", "Z", 7)


def test_a_writer_s_schema_may_refer_to_another_subject_s(registry):
    subject = registry.fresh_subject()
    registry.register(record(("x", "double"), name="geo.Point"), subject)
    writer = record(("at", "geo.Point"))
    reference = [{"name": "geo.Point", "subject": subject, "version": 1}]
    number = registry.register(writer, references=reference)
    data = encode(record(("at", record(("x", "double"), name="geo.Point"))), {"at": {"x": 1.5}})
    found = outcome(decoder(registry.url, ("at", "ROW<x DOUBLE>")).decode(raw_table([framed(number, data[0])])))
    assert found[0] == ({"x": 1.5},)


def test_a_type_that_does_not_fit_rejects_its_records_and_not_the_run(registry):
    writer = record(("id", "string"))
    data = [framed(registry.register(writer), each) for each in encode(writer, {"id": "x"})]
    found = outcome(decoder(registry.url, ("id", "INT")).decode(raw_table(data)))
    assert "column id: the writer's string cannot be read as int, wanted INT" in found[0]


def test_an_outage_is_no_reject_and_what_is_known_is_read_through_it(own_registry):
    registry = own_registry()
    one, two = registry.register(record(("id", "int"))), registry.register(record(("id", "long")))
    reading = decoder(registry.url, ("id", "BIGINT"))
    assert outcome(reading.decode(raw_table([framed(one, b"\x02")]))) == {0: (1,)}
    registry.service.stop()
    assert outcome(reading.decode(raw_table([framed(one, b"\x02")]))) == {0: (1,)}
    with pytest.raises(UnavailableError, match="does not answer"):
        reading.decode(raw_table([framed(two, b"\x02")]))
    registry.service.start()
    assert outcome(reading.decode(raw_table([framed(two, b"\x02")]))) == {0: (1,)}


def test_wrong_credentials_are_an_error_of_the_declaration(own_registry):
    registry = own_registry({"ann": "secret-word"})
    number = registry.register(record(("id", "int")), user="ann:secret-word")
    raw = raw_table([framed(number, b"\x02")])
    with pytest.raises(ConfigError, match="refuses our credentials"):
        decoder(registry.url, ("id", "INT")).decode(raw)
    user = {"basic-auth.credentials-source": "USER_INFO", "basic-auth.user-info": "ann:secret-word"}
    assert outcome(decoder(registry.url, ("id", "INT"), **user).decode(raw)) == {0: (1,)}
    within = registry.url.replace("//", "//ann:secret-word@")
    source = {"basic-auth.credentials-source": "URL"}
    assert outcome(decoder(within, ("id", "INT"), **source).decode(raw)) == {0: (1,)}


def test_rows_have_the_columns_types_even_when_there_are_none():
    empty = decoder("http://127.0.0.1:1", ("a", "DECIMAL(5, 2)"), ("b", "MAP<STRING, INT>")).decode(raw_table([]))
    assert empty.rows.schema.types == [pa.decimal128(5, 2), pa.map_(pa.string(), pa.int32()), pa.int64()]


def test_secrets_are_shown_as_stars():
    shown = str(options(SECRETS).shown()) + repr(options(SECRETS)) + str(options(SECRETS).settings())
    raw = {"avro-confluent.url": "https://ann:secret-word@host", "avro-confluent.basic-auth.credentials-source": "URL"}
    shown += str(options(raw).shown()) + repr(options(raw)) + str(options(raw).settings())
    raw = {f"avro-confluent.properties.{name}": "secret-word" for name in ("bearer.auth.token",)}
    raw |= {"avro-confluent.properties.bearer.auth.credentials.source": "STATIC_TOKEN"}
    shown += str(options({**URL, **raw}).shown()) + repr(options({**URL, **raw}))
    assert "secret-word" not in shown
    assert "https://***@host" in shown


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ({}, "'avro-confluent.url' is required"),
        ({"avro-confluent.url": "registry:8081"}, "want http://host:port"),
        ({**URL, "avro-confluent.basic-auth.user-info": "secret-word"}, "want user:password"),
        ({**URL, "avro-confluent.basic-auth.user-info": "ann:secret-word"}, "need each other"),
        ({**URL, "avro-confluent.basic-auth.credentials-source": "SASL_INHERIT"}, "known: USER_INFO, URL"),
        ({**URL, "avro-confluent.basic-auth.credentials-source": "URL"}, "need each other"),
        ({"avro-confluent.url": "http://ann:secret-word@host"}, "need each other"),
        ({**URL, "avro-confluent.bearer-auth.credentials-source": "OAUTHBEARER"}, "known: STATIC_TOKEN"),
        ({**URL, "avro-confluent.bearer-auth.token": "secret-word"}, "need each other"),
        ({**URL, "avro-confluent.ssl.truststore.password": "secret-word"}, "openssl pkcs12"),
        ({**URL, "avro-confluent.ssl.keystore.password": "secret-word"}, "needs 'ssl.keystore.location'"),
        ({**URL, "avro-confluent.properties.max.schemas": "1"}, "unknown property 'max.schemas'; known: basic.auth"),
        ({**URL, "avro-confluent.properties.http.read.timeout.ms": "soon"}, "want milliseconds"),
        ({**URL, "avro-confluent.ur": "x"}, "did you mean 'avro-confluent.url'"),
        ({**URL, "avro-confluent.schema-registry.url": "http://x"}, "are the same option"),
    ],
    ids=str,
)
def test_options_that_do_not_go_are_refused_without_their_secrets(raw, reason):
    with pytest.raises(ConfigError) as caught:
        options(raw)
    assert reason in str(caught.value)
    assert "secret-word" not in str(caught.value)


def test_properties_and_flink_s_older_names_mean_the_options():
    raw = {
        "avro-confluent.schema-registry.url": "https://a:1,https://b:2/",
        "avro-confluent.properties.basic.auth.credentials.source": "USER_INFO",
        "avro-confluent.properties.basic.auth.user.info": "bob:property",
        "avro-confluent.basic-auth.user-info": "ann:option",
        "avro-confluent.properties.http.connect.timeout.ms": "1500",
    }
    found = options(raw).settings()
    assert found.urls == ("https://a:1", "https://b:2")
    assert found.user_info.get_secret_value() == "ann:option"
    assert (found.connect_seconds, found.read_seconds) == (1.5, 10)


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ("{", "is no Avro schema"),
        ('{"type": "recrod"}', "is no Avro schema"),
        (json.dumps(record(("x", "int"))), "has no field id; it has: x"),
        (json.dumps(record(("id", "string"))), "declared as INT"),
        (json.dumps(record(("id", ["null", "int", "string"]))), "null and one other type"),
        (json.dumps(record(("id", "int", "x"))), "Avro schema"),
    ],
)
def test_a_given_schema_that_is_not_the_table_s_is_refused(schema, reason):
    with pytest.raises(ConfigError, match=reason):
        decoder("http://127.0.0.1:1", ("id", "INT"), schema=schema)
