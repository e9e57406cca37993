"""Kafka client properties as the Java client spells them, translated for librdkafka and for kafka-python.

Only properties whose effect we can vouch for are taken; every other one is refused, with the reason where there is one.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pydantic import SecretStr

from vector_assets.engine.registry import nearest

PREFIX = "properties."
"""How the connector's options spell them."""

_JAAS = re.compile(r"\s*([\w.$]+)\s+(?:required|requisite|sufficient|optional)\s+(.*?)\s*;\s*", re.DOTALL)
_JAAS_OPTION = re.compile(r"""([\w.]+)\s*=\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s;"']+)""")
_SECRET = re.compile(r"password|secret|jaas|token|keystore\.key", re.IGNORECASE)
_TLS = frozenset({"SSL", "SASL_SSL"})
_SASL = frozenset({"SASL_PLAINTEXT", "SASL_SSL"})

Check = Callable[[str], str | int | bool]


class PropertyError(ValueError):
    """A client property is unknown, refused or malformed, or does not go with another one; `name` is to blame."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class _Hidden(str):
    """A text that does not show itself: kafka-python logs its configuration at DEBUG."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'**********'"


@dataclass(frozen=True, slots=True)
class _Property:
    """How a value is checked, and what librdkafka and kafka-python call it (None: not theirs, or set apart)."""

    check: Check
    rdkafka: str | None = None
    python: str | None = None


def _text(value: str) -> str:
    if not value.strip():
        raise ValueError("it is empty")
    return value.strip()


def _servers(value: str) -> str:
    servers = [server.strip() for server in value.split(",") if server.strip()]
    for server in servers:
        host, _, port = server.rpartition(":")
        if not host or not port.isdigit():
            raise ValueError("want host:port[,host:port ...], such as 10.0.0.1:9092,10.0.0.2:9092")
    if not servers:
        raise ValueError("it is empty")
    return ",".join(servers)


def _number(least: int) -> Check:
    def check(value: str) -> int:
        if not re.fullmatch(r"\s*-?\d+\s*", value) or int(value) < least:
            raise ValueError(f"want a whole number from {least}")
        return int(value)

    return check


def _flag(value: str) -> bool:
    if value.strip().lower() not in {"true", "false"}:
        raise ValueError("want true or false")
    return value.strip().lower() == "true"


def _must_be_false(reason: str) -> Check:
    def check(value: str) -> bool:
        if _flag(value):
            raise ValueError(f"only 'false' is supported: {reason}")
        return False

    return check


def _one_of(*known: str, hint: str = "") -> Check:
    def check(value: str) -> str:
        found = next((each for each in known if each.lower() == value.strip().lower()), None)
        if found is None:
            raise ValueError(f"want one of {', '.join(map(repr, known))}{hint}")
        return found

    return check


_PEM = _one_of("PEM", hint="; convert a JKS or PKCS12 store: openssl pkcs12 -in store.p12 -nodes -out store.pem")

_KNOWN: Mapping[str, _Property] = MappingProxyType(
    {
        "bootstrap.servers": _Property(_servers, "bootstrap.servers", "bootstrap_servers"),
        "client.id": _Property(_text, "client.id", "client_id"),
        "client.rack": _Property(_text, "client.rack"),
        "client.dns.lookup": _Property(
            _one_of("use_all_dns_ips", "resolve_canonical_bootstrap_servers_only"),
            "client.dns.lookup",
            "client_dns_lookup",
        ),
        "security.protocol": _Property(
            _one_of("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"), "security.protocol", "security_protocol"
        ),
        "sasl.mechanism": _Property(
            _one_of("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"), "sasl.mechanism", "sasl_mechanism"
        ),
        "sasl.jaas.config": _Property(_text),
        "sasl.username": _Property(_text),
        "sasl.password": _Property(_text),
        "ssl.truststore.type": _Property(_PEM),
        "ssl.truststore.location": _Property(_text, "ssl.ca.location", "ssl_cafile"),
        "ssl.ca.location": _Property(_text, "ssl.ca.location", "ssl_cafile"),
        "ssl.keystore.type": _Property(_PEM),
        "ssl.keystore.location": _Property(_text),
        "ssl.certificate.location": _Property(_text, "ssl.certificate.location", "ssl_certfile"),
        "ssl.key.location": _Property(_text, "ssl.key.location", "ssl_keyfile"),
        "ssl.key.password": _Property(_text, "ssl.key.password", "ssl_password"),
        "ssl.endpoint.identification.algorithm": _Property(_one_of("https", "", "none")),
        "group.id": _Property(_text, "group.id"),
        "isolation.level": _Property(_one_of("read_committed", "read_uncommitted"), "isolation.level"),
        # librdkafka's own reset stays `error`: this one only says where a group without offsets starts
        "auto.offset.reset": _Property(_one_of("none", "earliest", "latest")),
        "fetch.min.bytes": _Property(_number(1), "fetch.min.bytes"),
        "fetch.max.bytes": _Property(_number(1), "fetch.max.bytes"),
        "fetch.max.wait.ms": _Property(_number(0), "fetch.wait.max.ms"),
        "max.partition.fetch.bytes": _Property(_number(1), "max.partition.fetch.bytes"),
        "receive.buffer.bytes": _Property(_number(1), "socket.receive.buffer.bytes"),
        "send.buffer.bytes": _Property(_number(1), "socket.send.buffer.bytes"),
        "check.crcs": _Property(_flag, "check.crcs"),
        "request.timeout.ms": _Property(_number(10), "socket.timeout.ms", "request_timeout_ms"),
        "socket.connection.setup.timeout.ms": _Property(
            _number(1000), "socket.connection.setup.timeout.ms", "socket_connection_setup_timeout_ms"
        ),
        "reconnect.backoff.ms": _Property(_number(0), "reconnect.backoff.ms", "reconnect_backoff_ms"),
        "reconnect.backoff.max.ms": _Property(_number(0), "reconnect.backoff.max.ms", "reconnect_backoff_max_ms"),
        "retry.backoff.ms": _Property(_number(1), "retry.backoff.ms", "retry_backoff_ms"),
        "connections.max.idle.ms": _Property(_number(0), "connections.max.idle.ms", "connections_max_idle_ms"),
        "metadata.max.age.ms": _Property(_number(1), "metadata.max.age.ms", "metadata_max_age_ms"),
        "enable.auto.commit": _Property(_must_be_false("positions are kept in the ledger, not in Kafka")),
        "allow.auto.create.topics": _Property(_must_be_false("a source never creates its topic")),
    }
)

_NO_GROUP = "partitions are read by assigned offsets, no consumer group is joined"
_REFUSED: Mapping[str, str] = MappingProxyType(
    {
        "key.deserializer": "records are decoded by the option 'format'",
        "value.deserializer": "records are decoded by the option 'format'",
        "max.poll.records": "SET 'vector-assets.batch.max-rows' sizes batches",
        "max.poll.interval.ms": _NO_GROUP,
        "session.timeout.ms": _NO_GROUP,
        "heartbeat.interval.ms": _NO_GROUP,
        "partition.assignment.strategy": _NO_GROUP,
        "group.instance.id": _NO_GROUP,
        "group.protocol": _NO_GROUP,
        "auto.commit.interval.ms": "positions are kept in the ledger, not in Kafka",
        "partition.discovery.interval.ms": "partitions are looked at before every batch",
        "ssl.truststore.password": "PEM files are not encrypted as a store",
        "ssl.keystore.password": "PEM files are not encrypted as a store; 'ssl.key.password' opens an encrypted key",
        "ssl.truststore.certificates": "write the PEM text to a file and name it by 'ssl.truststore.location'",
        "ssl.keystore.key": "write the PEM text to a file and name it by 'ssl.key.location'",
        "ssl.keystore.certificate.chain": "write the PEM text to a file and name it by 'ssl.certificate.location'",
    }
)


def is_secret(name: str) -> bool:
    """True when the value of a property must not be shown, known property or not."""
    return bool(_SECRET.search(name))


def check(name: str, value: str) -> str | int | bool:
    """The value of one property as its type wants it.

    Raises:
        PropertyError: unknown, refused or malformed; the value is shown unless it is a secret.
    """
    if name in _REFUSED:
        raise PropertyError(name, f"property {PREFIX + name!r} is not supported: {_REFUSED[name]}")
    if name not in _KNOWN:
        listed = ", ".join(sorted(_KNOWN))
        message = f"unknown property {PREFIX + name!r}{nearest(name, _KNOWN)}; known properties: {listed}"
        raise PropertyError(name, message)
    try:
        return _KNOWN[name].check(value)
    except ValueError as error:
        shown = "" if is_secret(name) else f" {value!r}"
        message = f"property {PREFIX + name!r} has the value{shown}, which is refused: {error}"
        raise PropertyError(name, message) from None


class Properties(Mapping[str, str | int | bool]):
    """Checked client properties; read-only, and secrets show neither in `repr` nor in messages.

    Raises:
        PropertyError: a property is unknown, refused or malformed, or does not go with another one.
    """

    def __init__(self, values: Mapping[str, str | SecretStr]) -> None:
        plain = {k: v.get_secret_value() if isinstance(v, SecretStr) else v for k, v in values.items()}
        self._values = {name: check(name, value) for name, value in plain.items()}
        if "bootstrap.servers" not in self._values:
            raise PropertyError("bootstrap.servers", f"option '{PREFIX}bootstrap.servers' is required")
        self._login = _login(self._values)
        _check_tls(self._values)

    def __getitem__(self, name: str) -> str | int | bool:
        return self._values[name]

    def __iter__(self) -> Any:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Properties({self.shown()})"

    def shown(self) -> dict[str, str]:
        """Every property by name; secrets as stars."""
        return {name: "**********" if is_secret(name) else str(value) for name, value in self._values.items()}

    @property
    def servers(self) -> str:
        """The bootstrap servers, for messages."""
        return str(self["bootstrap.servers"])

    def rdkafka(self) -> dict[str, Any]:
        """Settings of a confluent-kafka client."""
        known = {_KNOWN[name].rdkafka: value for name, value in self._values.items()}
        settings: dict[str, Any] = {name: value for name, value in known.items() if name is not None}
        store = self.get("ssl.keystore.location")
        if store:
            settings |= {"ssl.certificate.location": store, "ssl.key.location": store}
        if self._login:
            settings["sasl.username"], settings["sasl.password"] = self._login
        if "ssl.endpoint.identification.algorithm" in self:
            settings["ssl.endpoint.identification.algorithm"] = self["ssl.endpoint.identification.algorithm"] or "none"
        return settings

    def python(self) -> dict[str, Any]:
        """Settings of a kafka-python client."""
        known = {_KNOWN[name].python: value for name, value in self._values.items()}
        settings: dict[str, Any] = {name: value for name, value in known.items() if name is not None}
        settings["bootstrap_servers"] = self.servers.split(",")
        store = self.get("ssl.keystore.location")
        if store:
            settings |= {"ssl_certfile": store, "ssl_keyfile": store}
        if "ssl_password" in settings:
            settings["ssl_password"] = _Hidden(settings["ssl_password"])
        if self._login:
            user, password = self._login
            settings |= {"sasl_plain_username": user, "sasl_plain_password": _Hidden(password)}
        if "ssl.endpoint.identification.algorithm" in self:
            settings["ssl_check_hostname"] = self["ssl.endpoint.identification.algorithm"] == "https"
        return settings


def _login(values: Mapping[str, str | int | bool]) -> tuple[str, str] | None:
    """User and password, from the JAAS entry or from their own properties."""
    protocol = str(values.get("security.protocol", "PLAINTEXT"))
    given = sorted(name for name in values if name.startswith("sasl."))
    if protocol not in _SASL:
        if given:
            raise _without_effect(given[0], protocol, "'SASL_SSL' or 'SASL_PLAINTEXT'")
        return None
    mechanism = values.get("sasl.mechanism")
    if mechanism is None:
        raise PropertyError(
            "security.protocol",
            f"security.protocol {protocol!r} needs '{PREFIX}sasl.mechanism': PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
        )
    if "sasl.jaas.config" in values:
        for other in ("sasl.username", "sasl.password"):
            if other in values:
                raise _said_twice("sasl.jaas.config", other)
        return _parse_jaas(str(values["sasl.jaas.config"]), str(mechanism))
    if not {"sasl.username", "sasl.password"} <= values.keys():
        raise PropertyError(
            "sasl.mechanism",
            f"sasl.mechanism {mechanism!r} needs '{PREFIX}sasl.jaas.config', or '{PREFIX}sasl.username' and"
            f" '{PREFIX}sasl.password'",
        )
    return str(values["sasl.username"]), str(values["sasl.password"])


def _parse_jaas(text: str, mechanism: str) -> tuple[str, str]:
    """User and password of a Plain or Scram login module, under whatever package a vendor shaded it into."""
    kind = "Scram" if mechanism.startswith("SCRAM") else "Plain"
    name = "sasl.jaas.config"
    want = (
        f"property '{PREFIX}{name}': want, for sasl.mechanism {mechanism},"
        f" 'org.apache.kafka.common.security.{kind.lower()}.{kind}LoginModule required"
        ' username="..." password="...";\''
    )
    entry = _JAAS.fullmatch(text)
    if not entry or entry[1].rpartition(".")[2] != f"{kind}LoginModule" or _JAAS_OPTION.sub("", entry[2]).strip():
        raise PropertyError(name, want)
    options = {key: _unquote(value) for key, value in _JAAS_OPTION.findall(entry[2])}
    if options.keys() != {"username", "password"}:
        raise PropertyError(name, f"{want}; found the options {', '.join(sorted(options)) or 'none'}")
    return options["username"], options["password"]


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text[0] in "\"'" else text


def _check_tls(values: Mapping[str, str | int | bool]) -> None:
    given = sorted(name for name in values if name.startswith("ssl."))
    protocol = str(values.get("security.protocol", "PLAINTEXT"))
    if given and protocol not in _TLS:
        raise _without_effect(given[0], protocol, "'SSL' or 'SASL_SSL'")
    for kind in ("truststore", "keystore"):
        name = f"ssl.{kind}.location"
        if name in values and f"ssl.{kind}.type" not in values:
            raise PropertyError(
                name,
                f"'{PREFIX}{name}' needs '{PREFIX}ssl.{kind}.type' = 'PEM': stores of Java's own kind (JKS, the default"
                " there) are not supported; openssl pkcs12 converts them",
            )
    for pair in (("ssl.truststore.location", "ssl.ca.location"), ("ssl.keystore.location", "ssl.certificate.location")):
        if set(pair) <= values.keys():
            raise _said_twice(*pair)
    parts = [name for name in ("ssl.certificate.location", "ssl.key.location") if name in values]
    if len(parts) == 1:
        raise PropertyError(parts[0], f"'{PREFIX}ssl.certificate.location' and '{PREFIX}ssl.key.location' go together")


def _without_effect(name: str, protocol: str, wanted: str) -> PropertyError:
    return PropertyError(
        name,
        f"property {PREFIX + name!r} has no effect with security.protocol {protocol!r}: want"
        f" '{PREFIX}security.protocol' = {wanted}",
    )


def _said_twice(name: str, other: str) -> PropertyError:
    return PropertyError(other, f"'{PREFIX}{name}' and '{PREFIX}{other}' say the same: keep one of them")
