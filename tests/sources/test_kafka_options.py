import pytest

from vector_assets.engine.errors import ConfigError, Place
from vector_assets.sources.kafka import KafkaOptions

JAAS = 'org.apache.kafka.common.security.plain.PlainLoginModule required username="alice" password="hunter2";'
LEAST = {
    "connector": "kafka",
    "topic": "vector_ingest",
    "format": "csv",
    "scan.startup.mode": "earliest-offset",
    "properties.bootstrap.servers": "127.0.0.1:9092",
}
SECURED = {
    **LEAST,
    "properties.security.protocol": "SASL_SSL",
    "properties.sasl.mechanism": "PLAIN",
    "properties.sasl.jaas.config": JAAS,
    "properties.ssl.key.password": "hunter2",
}


def parse(given, places=None):
    return KafkaOptions.parse(given, "connector kafka", places)


def without(name):
    return {key: value for key, value in LEAST.items() if key != name}


def test_the_options_of_the_seed_are_taken():
    options = parse(LEAST)
    assert options.origin() == ("kafka", "vector_ingest")
    assert options.start_option() == "earliest-offset"
    assert options.client().servers == "127.0.0.1:9092"
    assert options.shown() == LEAST


def test_the_default_start_is_what_the_group_has_committed():
    options = parse({**without("scan.startup.mode"), "properties.group.id": "cars"})
    assert options.startup_mode == "group-offsets"
    assert options.start_option() == "group-offsets of cars"


def test_secrets_show_nowhere():
    options = parse(SECURED)
    assert options.shown()["properties.sasl.jaas.config"] == "**********"
    assert options.shown()["properties.sasl.mechanism"] == "PLAIN"
    assert "hunter2" not in f"{options} {options!r} {options.shown()} {options.model_dump()} {options.client()!r}"
    assert options.client().rdkafka()["sasl.password"] == "hunter2"


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (without("topic"), "option 'topic' is required"),
        (without("format"), "option 'format' is required"),
        (without("properties.bootstrap.servers"), "option 'properties.bootstrap.servers' is required"),
        (without("scan.startup.mode"), r"\(the default\) needs 'properties.group.id'"),
        ({**LEAST, "scan.startup.mode": "timestamp"}, "not supported yet; known: earliest-offset, latest-offset"),
        ({**LEAST, "scan.startup.mode": "specific-offsets"}, "not supported yet"),
        ({**LEAST, "scan.startup.mode": "oldest"}, "known: earliest-offset, latest-offset, group-offsets"),
        ({**LEAST, "scan.startup.mod": "x"}, "did you mean 'scan.startup.mode'"),
        ({**LEAST, "topic": "a;b"}, "one topic per pipeline"),
        ({**LEAST, "topic": "a b"}, "letters, digits"),
        ({**LEAST, "connector": "kafak"}, "'connector'"),
        ({**LEAST, "properties.auto.offset.reset": "latest"}, "only with 'scan.startup.mode' = 'group-offsets'"),
        ({**SECURED, "properties.sasl.jaas.config": JAAS[:-1]}, "PlainLoginModule required"),
        ({**SECURED, "properties.sasl.password": "hunter2"}, "say the same: keep one of them"),
        ({**SECURED, "properties.security.protocol": "PLAINTEXT"}, "no effect with security.protocol 'PLAINTEXT'"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused(given, complaint):
    with pytest.raises(ConfigError, match=complaint) as caught:
        parse(given)
    assert str(caught.value).startswith("connector kafka: ")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"), [("properties.grup.id", "x"), ("properties.sasl.jaas.config", "x"), ("topic", "a b")]
)
def test_an_error_stands_at_its_place(name, value):
    places = {name: Place("cars.sql", 12, 3), "connector": Place("cars.sql", 1, 1)}
    with pytest.raises(ConfigError, match=rf"cars.sql:12:3: connector kafka: .*{name}"):
        parse({**SECURED, name: value}, places)
