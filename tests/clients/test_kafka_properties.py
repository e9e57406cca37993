import pytest
from pydantic import SecretStr

from vector_assets.clients.kafka_properties import Properties, check

SERVERS = {"bootstrap.servers": "a:1,b:2"}
PLAIN = 'org.apache.kafka.common.security.plain.PlainLoginModule required username="alice" password="hunter2";'
SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required username='alice' password='hunter2';"
SASL = {**SERVERS, "security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN"}


def test_one_spelling_serves_both_clients():
    properties = Properties(
        {
            "bootstrap.servers": " a:1 , b:2 ",
            "client.id": "cars",
            "fetch.max.wait.ms": "20",
            "request.timeout.ms": "5000",
            "check.crcs": "FALSE",
            "isolation.level": "read_uncommitted",
        }
    )
    assert properties.rdkafka() == {
        "bootstrap.servers": "a:1,b:2",
        "client.id": "cars",
        "fetch.wait.max.ms": 20,
        "socket.timeout.ms": 5000,
        "check.crcs": False,
        "isolation.level": "read_uncommitted",
    }
    assert properties.python() == {
        "bootstrap_servers": ["a:1", "b:2"],
        "client_id": "cars",
        "request_timeout_ms": 5000,
    }


@pytest.mark.parametrize(
    ("given", "mechanism"),
    [
        ({"sasl.jaas.config": PLAIN}, "PLAIN"),
        ({"sasl.jaas.config": f"org.apache.flink.kafka.shaded.{PLAIN}"}, "PLAIN"),
        ({"sasl.jaas.config": SCRAM}, "SCRAM-SHA-512"),
        ({"sasl.username": "alice", "sasl.password": "hunter2"}, "SCRAM-SHA-256"),
    ],
    ids=["plain", "shaded", "scram", "librdkafka"],
)
def test_a_login_reaches_both_clients(given, mechanism):
    properties = Properties({**SASL, "sasl.mechanism": mechanism, **given})
    native, python = properties.rdkafka(), properties.python()
    assert (native["sasl.mechanism"], native["sasl.username"], native["sasl.password"]) == (
        mechanism, "alice", "hunter2",
    )  # fmt: skip
    assert (python["sasl_mechanism"], python["sasl_plain_username"]) == (mechanism, "alice")
    assert python["sasl_plain_password"] == "hunter2"
    assert python["sasl_plain_password"].encode() == b"hunter2"


def test_a_quoted_password_is_unescaped():
    text = r'x.PlainLoginModule required username="a b" password="p\"w\\;=1" ;'
    properties = Properties({**SASL, "sasl.jaas.config": text})
    assert properties.rdkafka()["sasl.password"] == r"p\"w\;=1".replace(r"\"", '"')


def test_tls_files_reach_both_clients():
    properties = Properties(
        {
            **SERVERS,
            "security.protocol": "ssl",
            "ssl.truststore.type": "pem",
            "ssl.truststore.location": "/ca.pem",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": "/me.pem",
            "ssl.key.password": "hunter2",
            "ssl.endpoint.identification.algorithm": "",
        }
    )
    assert properties.rdkafka() == {
        "bootstrap.servers": "a:1,b:2",
        "security.protocol": "SSL",
        "ssl.ca.location": "/ca.pem",
        "ssl.certificate.location": "/me.pem",
        "ssl.key.location": "/me.pem",
        "ssl.key.password": "hunter2",
        "ssl.endpoint.identification.algorithm": "none",
    }
    assert properties.python() == {
        "bootstrap_servers": ["a:1", "b:2"],
        "security_protocol": "SSL",
        "ssl_cafile": "/ca.pem",
        "ssl_certfile": "/me.pem",
        "ssl_keyfile": "/me.pem",
        "ssl_password": "hunter2",
        "ssl_check_hostname": False,
    }


def test_secrets_do_not_show():
    properties = Properties({**SASL, "sasl.jaas.config": SecretStr(PLAIN)})
    shown = f"{properties} {properties!r} {properties.shown()} {properties.python()}"
    assert "hunter2" not in shown
    assert "**********" in shown


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({}, "'properties.bootstrap.servers' is required"),
        ({"bootstrap.servers": "a"}, "want host:port"),
        ({"bootstrap.servers": ","}, "it is empty"),
        ({**SERVERS, "fetch.min.byte": "1"}, "did you mean 'fetch.min.bytes'.*known properties: .*client.id"),
        ({**SERVERS, "fetch.min.bytes": "0"}, "'0', which is refused: want a whole number from 1"),
        ({**SERVERS, "check.crcs": "yes"}, "want true or false"),
        ({**SERVERS, "isolation.level": "dirty"}, "want one of 'read_committed', 'read_uncommitted'"),
        ({**SERVERS, "enable.auto.commit": "true"}, "only 'false' is supported: positions are kept in the ledger"),
        ({**SERVERS, "max.poll.records": "10"}, "is not supported: SET 'vector-assets.batch.max-rows'"),
        ({**SERVERS, "session.timeout.ms": "10"}, "no consumer group is joined"),
        ({**SERVERS, "sasl.mechanism": "PLAIN"}, "no effect with security.protocol 'PLAINTEXT'"),
        ({**SERVERS, "ssl.ca.location": "x"}, "no effect with security.protocol 'PLAINTEXT'"),
        ({**SERVERS, "security.protocol": "SASL_SSL"}, "needs 'properties.sasl.mechanism'"),
        ({**SASL, "sasl.mechanism": "GSSAPI"}, "want one of 'PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512'"),
        (SASL, "needs 'properties.sasl.jaas.config', or 'properties.sasl.username'"),
        ({**SASL, "sasl.jaas.config": SCRAM}, "PlainLoginModule required username"),
        ({**SASL, "sasl.jaas.config": PLAIN[:-1]}, "PlainLoginModule required username"),
        ({**SASL, "sasl.jaas.config": PLAIN.replace("username", "user")}, "found the options password, user"),
        ({**SASL, "sasl.jaas.config": PLAIN, "sasl.username": "x"}, "say the same: keep one"),
        ({**SASL, "sasl.jaas.config": PLAIN, "ssl.truststore.type": "JKS"}, "PEM'; convert a JKS or PKCS12 store"),
        ({**SASL, "sasl.jaas.config": PLAIN, "ssl.truststore.location": "x"}, "needs 'properties.ssl.truststore.type'"),
        ({**SASL, "sasl.jaas.config": PLAIN, "ssl.key.location": "x"}, "go together"),
        ({**SASL, "sasl.jaas.config": PLAIN, "ssl.truststore.password": "hunter2"}, "is not supported: PEM files"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_with_the_reason(given, complaint):
    with pytest.raises(ValueError, match=complaint) as caught:
        Properties(given)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", ["sasl.jaas.config", "sasl.passwort", "ssl.keystore.password", "ssl.keystore.key"])
@pytest.mark.parametrize("value", ["   ", "hunter2"])
def test_a_refused_secret_is_not_shown(name, value):
    if name == "sasl.jaas.config":
        value = value.replace("hunter2", "")
    with pytest.raises(ValueError, match=name) as caught:
        check(name, value)
    assert value not in str(caught.value).replace(" ", "") or not value
