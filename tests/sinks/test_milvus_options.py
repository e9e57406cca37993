"""The connector's options: names, defaults, and what is refused."""

import pytest

from tests.declare.seeds import seed, statements
from vector_assets.declare import flink_sql
from vector_assets.engine.errors import ConfigError
from vector_assets.sinks.milvus_options import MilvusOptions

GIVEN = {"connector": "milvus", "endpoint": "milvus.my.company", "collectionName": "people"}


def parse(**options: str) -> MilvusOptions:
    named = {name.replace("___", "-").replace("__", "."): value for name, value in options.items()}
    return MilvusOptions.parse({**GIVEN, **named}, "connector milvus")


def test_defaults_are_the_connectors():
    options = parse()
    assert (options.port, options.database, options.partition, options.routes_by_key) == (19530, "default", None, False)
    assert (options.wire.flush_rows, options.wire.linger_seconds) == (200, 3.0)
    assert options.login.address == "milvus.my.company:19530"
    assert not options.login.secure
    assert options.target() == "milvus://milvus.my.company:19530/default/people"


def test_a_uri_stands_for_endpoint_and_port():
    given = {"connector": "milvus", "uri": "https://in03.cloud.example", "token": "key", "collectionName": "people"}
    login = MilvusOptions.parse(given, "connector milvus").login
    assert (login.address, login.secure) == ("in03.cloud.example:443", True)
    assert dict(login.metadata) == {"dbname": "default", "authorization": "a2V5"}
    plain = MilvusOptions.parse({**given, "uri": "http://localhost:19531"}, "connector milvus").login
    assert (plain.address, plain.secure) == ("localhost:19531", False)


def test_user_and_password_go_along_encoded():
    login = parse(userName="root", password="Milvus", databaseName="db").login
    assert dict(login.metadata) == {"dbname": "db", "authorization": "cm9vdDpNaWx2dXM="}


def test_two_partitions_of_a_collection_are_two_targets():
    assert parse(partitionName="a").target() != parse(partitionName="b").target()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"partitionName": "p", "partitionKey__enabled": "true"}, "give one or the other"),
        ({"userName": "root"}, "'userName' and 'password' go together"),
        ({"userName": "root", "password": "x", "token": "t"}, "'token' is instead of"),
        ({"uri": "http://other:1"}, "leave out 'endpoint' and 'port'"),
        ({"endpoint": "host:19530"}, "the port goes into 'port'"),
        ({"endpoint": "http://host"}, "a whole URL into 'uri'"),
        ({"port": "0"}, "port"),
        ({"collectionName": "no-dash"}, "collectionName"),
        ({"sink__buffer-flush__max-rows": "0"}, "max-rows"),
        ({"sink__buffer-flush__interval": "soon"}, "want a duration"),
        ({"partitionKey__enabled": "perhaps"}, "partitionKey.enabled"),
        ({"partitionKey__field": "name"}, "needs 'partitionKey.enabled'"),
        ({"vector__dimensions": "vec"}, "want a value for each column"),
        ({"vector__dimensions": "vec:0"}, "no number from 1 up"),
        ({"vector__metrics": "vec:FAR"}, "known metrics: COSINE"),
        ({"sink__buffer-flush__max-row": "1"}, "did you mean 'sink.buffer-flush.max-rows'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_wrong_is_refused_with_the_reason(options, said):
    with pytest.raises(ConfigError, match=said):
        parse(**options)


def test_an_address_is_required():
    with pytest.raises(ConfigError, match="option 'endpoint' is required"):
        MilvusOptions.parse({"connector": "milvus", "collectionName": "people"}, "connector milvus")


def test_credentials_in_a_uri_are_refused_and_not_repeated():
    given = {"connector": "milvus", "collectionName": "people", "uri": "http://root:hidden@host:1"}
    with pytest.raises(ConfigError) as caught:
        MilvusOptions.parse(given, "connector milvus")
    assert "leave them out" in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_secrets_are_not_shown():
    shown = parse(userName="root", password="hidden").shown()
    assert "hidden" not in str(shown)
    assert shown["userName"] == "root"


KAFKA = """
CREATE TABLE people (id BIGINT NOT NULL, name STRING, age INT, vec ARRAY<FLOAT>) WITH (
  'connector' = 'kafka', 'topic' = 't', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'csv',
  'scan.startup.mode' = 'earliest-offset');
INSERT INTO milvus_sink SELECT id, name, age, vec FROM people;
"""


def sink_of_seed() -> str:
    return next(found for found in statements(seed(1)) if "'milvus'" in found and "..." not in found)


def compiled(ddl: str):
    (pipeline,) = flink_sql.compile_script(f"SET 'pipeline.name' = 'p';{ddl}{KAFKA}", "people.sql")
    return pipeline


def test_the_seeds_sink_compiles_as_it_stands():
    pipeline = compiled(sink_of_seed())
    options = pipeline.sink_options
    assert pipeline.sink_connector == "milvus"
    assert (options.endpoint, options.port, options.user) == ("milvus-dev.my.company", 19530, "root")
    assert (options.database, options.collection) == ("default", "people")
    assert (options.wire.flush_rows, options.wire.linger_seconds) == (200, 3.0)
    assert pipeline.sink_table.primary_key == ("id",)


@pytest.mark.parametrize("option", ["'partitionName' = 'my_partition'", "'partitionKey.enabled' = 'true'"], ids=str)
def test_the_seeds_partition_options_compile_on_its_first_script(option):
    assert option in seed(1)
    options = compiled(
        sink_of_seed().replace("'connector' = 'milvus',", f"'connector' = 'milvus', {option},")
    ).sink_options
    assert (options.partition == "my_partition") != options.routes_by_key
