"""Both clients against a real broker that wants logins and speaks TLS."""

import logging
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    NewTopic,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from tests.fix_services import start, unavailable
from vector_assets.clients import kafka as clients
from vector_assets.clients.kafka import ControlPlane
from vector_assets.clients.kafka_native import NativeConsumer, is_available, missing
from vector_assets.clients.kafka_properties import Properties
from vector_assets.engine.errors import ConfigError, PlanError, UnavailableError
from vector_assets.local import jars, ports
from vector_assets.local.kafka import KafkaService

pytestmark = pytest.mark.service

PASSWORD = "correct-horse"
WRONG = "battery-staple"


@dataclass(frozen=True)
class Secured:
    """One broker with a listener per protocol; topic `cars` has three records, user `alice` both kinds of login."""

    addresses: dict[str, str]
    ca: Path
    other_ca: Path

    def properties(self, protocol: str, **given: str) -> dict[str, str]:
        return {"bootstrap.servers": self.addresses[protocol], "security.protocol": protocol, **given}


def keytool(*arguments: str) -> bytes:
    return subprocess.run([str(jars.java().with_name("keytool")), *arguments], check=True, capture_output=True).stdout


def make_certificate(store: Path) -> Path:
    common = ("-alias", "broker", "-keystore", str(store), "-storetype", "PKCS12", "-storepass", PASSWORD)
    keytool("-genkeypair", *common, "-keyalg", "EC", "-dname", "CN=broker", "-ext", "san=ip:127.0.0.1")
    pem = store.with_suffix(".pem")
    pem.write_bytes(keytool("-exportcert", "-rfc", *common))
    return pem


@pytest.fixture(scope="module")
def secured(services_home: Path) -> Iterator[Secured]:
    folder = services_home / "secured_kafka"
    folder.mkdir()
    if reason := KafkaService.missing():
        unavailable(reason)
    ca, other_ca = make_certificate(folder / "broker.p12"), make_certificate(folder / "other.p12")
    service = KafkaService(folder)
    own = service.ports()
    numbers = {name: ports.choose(own.values()) for name in ("SASL_PLAINTEXT", "SASL_SSL", "SSL")}
    addresses = {"PLAINTEXT": service.address} | {name: f"127.0.0.1:{port}" for name, port in numbers.items()}
    listeners = ",".join(f"{name}://{address}" for name, address in addresses.items())
    login = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_alice="{PASSWORD}";'
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    service.properties |= {
        "listeners": f"{listeners},CONTROLLER://127.0.0.1:{own['controller']}",
        "advertised.listeners": listeners,
        "listener.security.protocol.map": ",".join(f"{name}:{name}" for name in addresses) + ",CONTROLLER:PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256",
        "ssl.keystore.location": folder / "broker.p12",
        "ssl.keystore.type": "PKCS12",
        "ssl.keystore.password": PASSWORD,
    }
    for name in ("sasl_plaintext", "sasl_ssl"):
        service.properties[f"listener.name.{name}.plain.sasl.jaas.config"] = login
        service.properties[f"listener.name.{name}.scram-sha-256.sasl.jaas.config"] = scram
    start(service)
    seed(service.address)
    yield Secured(addresses, ca, other_ca)
    service.erase()


def seed(address: str) -> None:
    admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
    admin.create_topics([NewTopic("cars", 1, 1)])["cars"].result(30)
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096)
    upsert = UserScramCredentialUpsertion("alice", info, PASSWORD.encode())
    admin.alter_user_scram_credentials([upsert])["alice"].result(30)
    producer = clients.producer(Properties({"bootstrap.servers": address, "group.id": "left-out"}))
    for number in range(3):
        producer.produce("cars", str(number))
    assert producer.flush(30) == 0


def login(kind: str, password: str = PASSWORD) -> dict[str, str]:
    module = "scram.ScramLoginModule" if kind.startswith("SCRAM") else "plain.PlainLoginModule"
    text = f'org.apache.kafka.common.security.{module} required username="alice" password="{password}";'
    return {"sasl.mechanism": kind, "sasl.jaas.config": text}


def trust(file: Path) -> dict[str, str]:
    return {"ssl.truststore.type": "PEM", "ssl.truststore.location": str(file)}


def asked(properties: dict[str, str], timeout_seconds: float = 10) -> dict[int, int]:
    """What the control plane sees of the topic."""
    control = ControlPlane(Properties(properties), timeout_seconds)
    try:
        return control.log_ends("cars", control.topic("cars").partitions, committed=True)
    finally:
        control.close()


def consumed(properties: dict[str, str]) -> list[bytes | None]:
    """What the bulk reader sees of the topic."""
    consumer = clients.consumer(Properties(properties), {"auto.offset.reset": "error", "enable.auto.commit": False})
    try:
        consumer.assign([TopicPartition("cars", 0, 0)])
        return [message.value() for message in consumer.consume(3, 30)]
    finally:
        consumer.close()


def natively_consumed(properties: dict[str, str]) -> list[bytes | None]:
    """The same, through librdkafka's own interface."""
    config = clients.consumer_config(Properties(properties), {"auto.offset.reset": "error"})
    consumer = NativeConsumer(config, lambda error: None, most=10)
    try:
        consumer.incremental_assign([TopicPartition("cars", 0, 0)])
        values: list[bytes | None] = []
        deadline = time.monotonic() + 30
        while len(values) < 3:
            assert time.monotonic() < deadline
            found = consumer.take(3, 0.1)
            values += found.value.to_pylist() if found is not None else []
        return values
    finally:
        consumer.close()


@pytest.mark.parametrize(
    ("protocol", "kind"),
    [
        ("PLAINTEXT", None),
        ("SSL", None),
        ("SASL_PLAINTEXT", "PLAIN"),
        ("SASL_PLAINTEXT", "SCRAM-SHA-256"),
        ("SASL_SSL", "PLAIN"),
        ("SASL_SSL", "SCRAM-SHA-256"),
    ],
)
def test_both_clients_get_in(secured, protocol, kind):
    given = (login(kind) if kind else {}) | (trust(secured.ca) if protocol.endswith("SSL") else {})
    properties = secured.properties(protocol, **given)
    assert asked(properties) == {0: 3}
    assert consumed(properties) == [b"0", b"1", b"2"]
    if is_available():
        assert natively_consumed(properties) == [b"0", b"1", b"2"]


@pytest.mark.skipif(not is_available(), reason=missing())
@pytest.mark.parametrize("kind", ["PLAIN", "SCRAM-SHA-256"])
def test_a_wrong_password_is_refused_natively_too(secured, capfd, caplog, kind):
    caplog.set_level(logging.DEBUG)
    properties = secured.properties("SASL_PLAINTEXT", **login(kind, WRONG))
    errors: list[KafkaError] = []
    consumer = NativeConsumer(clients.consumer_config(Properties(properties)), errors.append, most=10)
    consumer.incremental_assign([TopicPartition("cars", 0, 0)])
    deadline = time.monotonic() + 30
    while not errors:
        assert time.monotonic() < deadline
        consumer.take(1, 0.1)
    consumer.close()
    assert errors[0].code() == KafkaError._AUTHENTICATION
    assert WRONG not in f"{errors} {caplog.text} {''.join(capfd.readouterr())}"


@pytest.mark.parametrize("kind", ["PLAIN", "SCRAM-SHA-256"])
def test_a_wrong_password_is_refused_at_once_and_never_shown(secured, caplog, kind):
    caplog.set_level(logging.DEBUG)
    properties = secured.properties("SASL_PLAINTEXT", **login(kind, WRONG))
    with pytest.raises(ConfigError, match=r"the broker refuses.*[Aa]uthentication failed") as caught:
        asked(properties)
    errors: list[KafkaError] = []
    consumer = clients.consumer(Properties(properties), on_error=errors.append)
    consumer.assign([TopicPartition("cars", 0, 0)])
    while not errors:
        consumer.consume(1, 0.1)
    consumer.close()
    assert errors[0].code() == KafkaError._AUTHENTICATION
    assert WRONG not in f"{caught.value} {errors} {caplog.text}"


@pytest.mark.parametrize("kind", ["PLAIN", "SCRAM-SHA-256"])
def test_a_right_password_is_not_logged_at_any_level(secured, caplog, kind):
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "kafka")
    asked(secured.properties("SASL_PLAINTEXT", **login(kind)))
    assert "KafkaAdminClient" in caplog.text
    assert PASSWORD not in caplog.text


def test_a_certificate_that_is_not_trusted_is_refused_at_once(secured):
    with pytest.raises(ConfigError, match=r"its certificate is refused: .*self.signed"):
        asked(secured.properties("SSL", **trust(secured.other_ca)))


@pytest.mark.parametrize(
    ("content", "complaint"), [(None, "does not exist"), ("no certificate", "not a PEM file that can be used")]
)
def test_a_bad_trust_file_is_named(secured, tmp_path, content, complaint):
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=f"ca.pem.*{complaint}"):
        asked(secured.properties("SSL", **trust(file)))
    with pytest.raises(ConfigError, match=r"ssl.ca.location failed"):
        consumed(secured.properties("SSL", **trust(file)))


def test_a_mechanism_the_broker_does_not_know_is_refused(secured):
    with pytest.raises(ConfigError, match=r"the broker refuses: .*(SCRAM-SHA-512|Unsupported)"):
        asked(secured.properties("SASL_PLAINTEXT", **login("SCRAM-SHA-512")))


def test_a_port_that_does_not_speak_our_language_is_named_with_what_we_speak(secured):
    address = secured.addresses["SASL_PLAINTEXT"]
    with pytest.raises(UnavailableError, match=rf"{address}: .* speaks PLAINTEXT\?"):
        asked({"bootstrap.servers": address}, timeout_seconds=2)
    with pytest.raises(UnavailableError, match=rf"{address}: .*SSL"):
        asked({"bootstrap.servers": address, "security.protocol": "SSL", **trust(secured.ca)}, timeout_seconds=2)


def test_a_value_librdkafka_refuses_is_named():
    with pytest.raises(ConfigError, match=r'"fetch.min.bytes" value is outside allowed range'):
        clients.consumer(Properties({"bootstrap.servers": "127.0.0.1:1", "fetch.min.bytes": "999999999"}))


def test_dead_servers_before_a_living_one_are_passed_over(secured):
    address = secured.addresses["PLAINTEXT"]
    assert asked({"bootstrap.servers": f"127.0.0.1:1,nowhere.invalid:9,{address}"}) == {0: 3}


def test_a_missing_topic_is_a_matter_for_people(secured):
    control = ControlPlane(Properties(secured.properties("PLAINTEXT")))
    with pytest.raises(PlanError, match=r"topic 'care' does not exist \(did you mean 'cars'\?\); topics we see: cars"):
        control.topic("care")
    control.close()


def test_a_silent_server_leaves_no_thread_behind(proxy, secured):
    gate = proxy(*secured.addresses["PLAINTEXT"].split(":"))
    gate.swallow_responses = True
    control = ControlPlane(Properties({"bootstrap.servers": gate.address}), timeout_seconds=0.2)
    before = set(threading.enumerate())
    for _ in range(2):
        with pytest.raises(UnavailableError, match=r"no answer within 0.2 s"):
            control.topics()
    # those of the gate itself end a moment after the connection
    deadline = time.monotonic() + 10
    while not set(threading.enumerate()) <= before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert set(threading.enumerate()) <= before
    gate.swallow_responses = False
    control = ControlPlane(Properties({"bootstrap.servers": gate.address}), timeout_seconds=10)
    assert "cars" in control.topics()
    control.close()


def test_the_admin_client_of_librdkafka_gets_in_too(secured):
    properties = secured.properties("SASL_SSL", **login("PLAIN"), **trust(secured.ca))
    assert "cars" in clients.confluent_admin(Properties(properties)).list_topics(timeout=30).topics
