"""A connected kafka-python admin client that fails in time, says why, and leaves nothing behind.

kafka-python 3.0.12 by itself tries a refused login until its time is up and then says "timeout", picks bootstrap
servers at random (a dead one takes the whole time), leaves a thread behind when it cannot connect, and prints passwords
at DEBUG. Everything that works around this is here.
"""

import logging
import socket
import ssl
import time
import warnings
from pathlib import Path
from typing import Any

from vector_assets.clients.kafka_properties import Properties
from vector_assets.engine.errors import ConfigError, TransientError, UnavailableError, VectorAssetsError

with warnings.catch_warnings():
    # it reads its schemas by a call that Python 3.11 deprecates
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka import TopicPartition, errors
    from kafka.admin import KafkaAdminClient
    from kafka.net.compat import KafkaNetClient
    from kafka.net.inet import KafkaNetSocket
    from kafka.net.manager import KafkaConnectionManager
    from kafka.net.selector import NetworkSelector

__all__ = ["FAILURES", "KafkaAdminClient", "TopicPartition", "connect", "errors", "translated"]

_TALKATIVE = ("kafka.net", "kafka.protocol")
_MOST_PROBLEMS = 3
_SETUP_TIMEOUTS = ("socket_connection_setup_timeout_ms", "socket_connection_setup_timeout_max_ms")
_DEFAULTS = {"client_id": "vector-assets", "reconnect_backoff_max_ms": 1000}
_REFUSALS = (
    errors.AuthorizationError,
    errors.SaslAuthenticationFailedError,
    errors.UnsupportedSaslMechanismError,
    errors.IllegalSaslStateError,
    errors.UnsupportedVersionError,
    errors.InvalidTopicError,
)
FAILURES = (errors.KafkaError, OSError)
"""What its methods raise."""


def connect(properties: Properties, timeout_seconds: float) -> KafkaAdminClient:
    """An admin client that is connected; each of its requests ends within `timeout_seconds`.

    Raises:
        ConfigError: the broker refuses our login, or we its certificate.
        UnavailableError: no bootstrap server answers in time.
    """
    deadline = time.monotonic() + timeout_seconds
    _hush()
    settings = {**_DEFAULTS, **properties.python()}
    if str(properties.get("security.protocol", "")).endswith("SSL"):
        settings["ssl_context"] = _tls_context(settings)
    server = _first_reachable(settings, deadline)
    timeout_ms = int(1000 * timeout_seconds)
    setup_ms = settings.pop(_SETUP_TIMEOUTS[0], timeout_ms)
    made: list[_Manager] = []

    def network(**config: Any) -> KafkaNetClient:
        net = NetworkSelector(**config)
        made.append(_Manager(net, **config, **dict.fromkeys(_SETUP_TIMEOUTS, setup_ms)))
        return KafkaNetClient(net=net, manager=made[0])

    settings |= {
        "bootstrap_servers": [server],
        "bootstrap_timeout_ms": max(int(1000 * (deadline - time.monotonic())), 100),
        "request_timeout_ms": timeout_ms,
        "proxy_url": f"{_TidySocket.SCHEMES[0]}://",
        "kafka_client": network,
    }
    try:
        return KafkaAdminClient(**settings)
    except FAILURES as error:
        manager = made[0]
        KafkaNetClient(net=manager.net, manager=manager).close()
        where = f"kafka {server}"
        if not isinstance(error, _REFUSALS):
            reason = f": {manager.problem}" if manager.problem else ""
            raise UnavailableError(
                f"{where}: no answer within {timeout_seconds:g} s{reason}; is this a broker that speaks"
                f" {_spoken(settings)}?"
            ) from error
        raise translated(error, where, timeout_seconds) from error


def translated(error: BaseException, where: str, timeout_seconds: float) -> VectorAssetsError:
    """What one of its errors means to the engine."""
    reason = f"{type(error).__name__}: {error}"[:300].rstrip(": ")
    if isinstance(error, _REFUSALS):
        return ConfigError(f"{where}: the broker refuses: {reason}")
    if isinstance(error, errors.KafkaTimeoutError | errors.RequestTimedOutError):
        return UnavailableError(f"{where}: no answer within {timeout_seconds:g} s")
    if isinstance(error, OSError) or getattr(error, "retriable", False):
        return UnavailableError(f"{where}: not available: {reason}")
    return TransientError(f"{where}: {reason}")


def _spoken(settings: dict[str, Any]) -> str:
    """What we speak: a broker that does not just closes the connection."""
    names = (settings.get("security_protocol", "PLAINTEXT"), settings.get("sasl_mechanism"))
    return " with ".join(name for name in names if name)


def _hush() -> None:
    """Its reconnections are errors to it, which are raised here; below INFO it prints requests with passwords."""
    above = logging.getLogger("kafka")
    if above.level == logging.NOTSET:
        above.setLevel(logging.CRITICAL)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(above.level, logging.INFO))


class _Manager(KafkaConnectionManager):  # type: ignore[misc]  # kafka-python has no types
    """Remembers why connections could not be made, and gives up when that will not change."""

    def __init__(self, net: NetworkSelector, **config: Any) -> None:
        super().__init__(net, **config)
        self.net = net
        self.problem: BaseException | None = None
        self._problems = 0

    def get_connection(self, node_id: Any, **options: Any) -> Any:
        """A connection, perhaps still being made.

        Raises:
            KafkaError: an earlier one was refused, or several were cut off while they logged in (a refusal that comes
                together with the end of the stream is lost).
        """
        if isinstance(self.problem, _REFUSALS) or self._problems >= _MOST_PROBLEMS:
            assert self.problem is not None
            raise self.problem
        connection = super().get_connection(node_id, **options)
        if not connection.init_future.is_done:
            connection.init_future.add_errback(self._note)
        return connection

    def _note(self, problem: BaseException) -> None:
        if not isinstance(problem, errors.RequestTimedOutError | errors.KafkaTimeoutError):
            self.problem = problem
            self._problems += self.config["sasl_mechanism"] is not None


class _TidySocket(KafkaNetSocket):  # type: ignore[misc]  # kafka-python has no types
    """Connects as ever, but closes what could not be connected instead of leaving it to the garbage collector."""

    SCHEMES = ("direct",)

    async def sock_connect(self, net: Any, sock: socket.socket, sockaddr: Any, timeout_at: float | None = None) -> Any:
        """The connected socket."""
        try:
            return await super().sock_connect(net, sock, sockaddr, timeout_at=timeout_at)
        except FAILURES:
            sock.close()
            raise


def _tls_context(settings: dict[str, Any]) -> ssl.SSLContext:
    """The context that these settings describe; what is wrong with a file is said before anybody is called."""
    ca, certificate, key = (settings.pop(name, None) for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"))
    password = settings.pop("ssl_password", None)
    for file in (ca, certificate, key):
        if file and not Path(file).is_file():
            raise ConfigError(f"kafka: the file {file} named by an ssl property does not exist")
    try:
        context = ssl.create_default_context(cafile=ca)
        context.check_hostname = settings.pop("ssl_check_hostname", True)
        if certificate:
            context.load_cert_chain(certificate, key, password=lambda: password or "")
    except ssl.SSLError as error:
        files = ", ".join(str(file) for file in (ca, certificate, key) if file)
        raise ConfigError(f"kafka: {files}: not a PEM file that can be used: {error.reason or error}") from error
    return context


def _first_reachable(settings: dict[str, Any], deadline: float) -> str:
    """The first bootstrap server that takes a connection, TLS included."""
    servers: list[str] = settings["bootstrap_servers"]
    problems = []
    for left, server in zip(range(len(servers), 0, -1), servers, strict=True):
        budget = max((deadline - time.monotonic()) / left, 0.1)
        try:
            _knock(server, settings.get("ssl_context"), budget)
        except ssl.SSLCertVerificationError as error:
            raise ConfigError(f"kafka {server}: its certificate is refused: {error.verify_message}") from error
        except OSError as error:
            problems.append(f"{server}: {error.strerror or error}")
        else:
            return server
    raise UnavailableError(f"kafka: no bootstrap server can be reached: {'; '.join(problems)}")


def _knock(server: str, context: ssl.SSLContext | None, timeout_seconds: float) -> None:
    host, _, port = server.rpartition(":")
    name = host.strip("[]")
    with socket.create_connection((name, int(port)), timeout=timeout_seconds) as connection:
        if context is not None:
            context.wrap_socket(connection, server_hostname=name).close()
