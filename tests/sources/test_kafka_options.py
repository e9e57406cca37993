import pytest

from tests.declare.scripts import INSERT, SINK, SOURCE
from vector_assets.declare import flink_sql
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
    assert options.shown() == {**LEAST, "scan.bounded.mode": "unbounded"}


STARTS = {
    "earliest-offset": {"scan.startup.mode": "earliest-offset"},
    "group-offsets of cars": {"scan.startup.mode": "group-offsets", "properties.group.id": "cars"},
    "timestamp 1700": {"scan.startup.mode": "timestamp", "scan.startup.timestamp-millis": "1700"},
    "specific-offsets partition:0,offset:42;partition:1,offset:300": {
        "scan.startup.mode": "specific-offsets",
        "scan.startup.specific-offsets": "partition:0,offset:42;partition:1,offset:300",
    },
    "earliest-offset until latest-offset": {"scan.bounded.mode": "latest-offset"},
    "earliest-offset until timestamp 1700": {
        "scan.bounded.mode": "timestamp",
        "scan.bounded.timestamp-millis": "1700",
    },
    "earliest-offset until specific-offsets partition:0,offset:5": {
        "scan.bounded.mode": "specific-offsets",
        "scan.bounded.specific-offsets": "partition:0,offset:5",
    },
}


@pytest.mark.parametrize("told", STARTS)
def test_a_changed_start_or_bound_can_be_told_from_the_old_one(told):
    assert parse({**LEAST, **STARTS[told]}).start_option() == told


def test_several_topics_and_patterns_are_taken():
    options = parse({**LEAST, "topic": "cars;buses"})
    assert options.topics == ("cars", "buses")
    assert options.origin() == ("kafka", "cars;buses")
    options = parse({**without("topic"), "topic-pattern": r"cars-\d+"})
    assert options.topics == ()
    assert options.origin() == ("kafka", r"cars-\d+")


@pytest.mark.parametrize(("written", "shown"), [("", ","), ("'csv.field-delimiter' = ';',", ";")])
def test_the_delimiter_of_csv_is_shown_and_belongs_to_csv(written, shown):
    script = SOURCE.replace("'format' = 'csv',", f"'format' = 'csv', {written}") + SINK + INSERT
    (pipeline,) = flink_sql.compile_script(f"SET 'pipeline.name' = 'p'; {script}", "p.sql", offline=True)
    assert pipeline.format_options.shown()["csv.field-delimiter"] == shown


def test_an_option_that_can_have_no_effect_is_reported():
    assert parse({**LEAST, "scan.parallelism": "4"}).reports() == (
        "option 'scan.parallelism' has no effect: one consumer reads all partitions",
    )
    assert parse({**LEAST, "scan.topic-partition-discovery.interval": "5 min"}).reports() == ()


def test_secrets_show_nowhere():
    options = parse(SECURED)
    assert options.shown()["properties.sasl.jaas.config"] == "**********"
    assert options.shown()["properties.sasl.mechanism"] == "PLAIN"
    assert "hunter2" not in f"{options} {options!r} {options.shown()} {options.model_dump()} {options.client()!r}"
    assert options.client().rdkafka()["sasl.password"] == "hunter2"


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (without("topic"), "option 'topic' or 'topic-pattern' is required"),
        (without("format"), "option 'format' is required"),
        (without("properties.bootstrap.servers"), "option 'properties.bootstrap.servers' is required"),
        (without("scan.startup.mode"), "'scan.startup.mode' is required; known: earliest-offset, .*, specific-offsets"),
        ({**LEAST, "scan.startup.mode": "group-offsets"}, "'group-offsets' needs 'properties.group.id'"),
        ({**LEAST, "scan.startup.mode": "timestamp"}, "needs the option 'scan.startup.timestamp-millis'"),
        ({**LEAST, "scan.startup.mode": "specific-offsets"}, "needs the option 'scan.startup.specific-offsets'"),
        ({**LEAST, "scan.startup.timestamp-millis": "1"}, "has an effect only with 'scan.startup.mode' = 'timestamp'"),
        ({**LEAST, "scan.startup.specific-offsets": "0:42"}, "want partition:<number>,offset:<number>"),
        ({**LEAST, "scan.startup.specific-offsets": "partition:0,offset:1;partition:0,offset:2"}, "named twice"),
        ({**LEAST, "scan.startup.mode": "oldest"}, "known: earliest-offset, latest-offset, group-offsets"),
        ({**LEAST, "scan.bounded.mode": "earliest-offset"}, "known: unbounded, latest-offset"),
        ({**LEAST, "scan.bounded.mode": "group-offsets"}, "'scan.bounded.mode' = 'group-offsets' needs"),
        ({**LEAST, "scan.bounded.mode": "timestamp"}, "needs the option 'scan.bounded.timestamp-millis'"),
        ({**LEAST, "scan.bounded.timestamp-millis": "1"}, "has an effect only with 'scan.bounded.mode' = 'timestamp'"),
        ({**LEAST, "scan.topic-partition-discovery.interval": "0"}, "cannot be switched off"),
        ({**LEAST, "scan.parallelism": "0"}, "greater than or equal to 1"),
        ({**LEAST, "topic-pattern": "c.*"}, "only one of them"),
        ({**without("topic"), "topic-pattern": "c(.*"}, "'topic-pattern' has the value 'c\\(\\.\\*', which is refused"),
        ({**without("topic"), "topic-pattern": r"\p{Alpha}+"}, "that Java and Python read alike"),
        ({**without("topic"), "topic-pattern": "[a-z&&[^b]]+"}, "without &&, sets inside sets"),
        ({**LEAST, **STARTS["earliest-offset until specific-offsets partition:0,offset:5"], "topic": "a;b"}, "for one"),
        ({**LEAST, "scan.startup.mod": "x"}, "did you mean 'scan.startup.mode'"),
        ({**LEAST, "topic": "a;a"}, "named twice"),
        ({**LEAST, "topic": "a;"}, "separated by ';'"),
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
