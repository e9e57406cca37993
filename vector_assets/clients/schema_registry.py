"""Client of a Confluent schema registry's REST API: schemas by id, kept once read because an id never changes."""

import re
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import orjson
import urllib3
from pydantic import SecretStr

from vector_assets.engine.errors import ConfigError, RecordError, TransientError, UnavailableError

DEFAULT_TIMEOUT_SECONDS = 10.0
"""How long a request waits to connect, and for an answer, unless the properties say otherwise (Java's client: 60 s)."""

_UNKNOWN = (40401, 40402, 40403)
"""The registry's codes for an unknown subject, version and schema."""

_MOST_REFERENCES = 100
_ACCEPT = "application/vnd.schemaregistry.v1+json, application/json"


class UnknownSchemaError(RecordError):
    """The registry has no schema of this id, or none that a client may read."""


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """How to reach a registry; `urls` are tried in order and hold no credentials, `user_info` is `user:password`."""

    urls: tuple[str, ...]
    user_info: SecretStr | None = None
    token: SecretStr | None = None
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_password: SecretStr | None = None
    connect_seconds: float = DEFAULT_TIMEOUT_SECONDS
    read_seconds: float = DEFAULT_TIMEOUT_SECONDS


@dataclass(frozen=True, slots=True)
class Registered:
    """A registered schema: its kind (`AVRO`, `JSON`, `PROTOBUF`), its text, and those it refers to, innermost first."""

    kind: str
    text: str
    references: tuple[str, ...] = ()


def split_url(text: str) -> tuple[str, str | None]:
    """An address without its credentials and without a final slash, and the credentials.

    Raises:
        ValueError: it is no http or https address.
    """
    parts = urlsplit(text.strip())
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("want http://host:port or https://host:port")
    user, _, host = parts.netloc.rpartition("@")
    return f"{parts.scheme}://{host}{parts.path.rstrip('/')}", user or None


class SchemaRegistry:
    """One registry. Threads may share it; a schema is asked for once."""

    def __init__(self, settings: RegistrySettings) -> None:
        """Open no connection yet."""
        self._settings = settings
        self._lock = threading.Lock()
        self._known: dict[int, Registered] = {}
        self._pool: urllib3.PoolManager | None = None

    def schema(self, number: int) -> Registered:
        """The schema of this id.

        Raises:
            UnknownSchemaError: the registry does not have it.
            UnavailableError: no address answers.
            TransientError: the registry is busy, or failed.
            ConfigError: it refuses our credentials, or what answers is no registry.
        """
        with self._lock:
            if number not in self._known:
                self._known[number] = self._fetched(number)
            return self._known[number]

    def _fetched(self, number: int) -> Registered:
        found = self._get(f"/schemas/ids/{number}", f"schema id {number}")
        references: dict[str, str] = {}
        self._collect(found, references, f"schema id {number}")
        return Registered(found.get("schemaType", "AVRO"), found["schema"], tuple(references.values()))

    def _collect(self, found: Mapping[str, Any], into: dict[str, str], what: str) -> None:
        """The schemas that this one refers to, innermost first."""
        for reference in found.get("references") or ():
            subject, version = reference["subject"], reference["version"]
            if reference["name"] in into:
                continue
            if len(into) == _MOST_REFERENCES:
                raise UnknownSchemaError(f"{what} refers to more than {_MOST_REFERENCES} others")
            path = f"/subjects/{quote(subject, safe='')}/versions/{version}"
            inner = self._get(path, f"{what} refers to version {version} of subject {subject!r}, which")
            self._collect(inner, into, what)
            into[reference["name"]] = inner["schema"]

    def _get(self, path: str, what: str) -> dict[str, Any]:
        """The answer of the first address that gives one."""
        failed: UnavailableError | None = None
        for url in self._settings.urls:
            try:
                return self._asked(url, path, what)
            except UnavailableError as error:
                failed = failed or error
        assert failed is not None, "settings without an address"
        raise failed

    def _asked(self, url: str, path: str, what: str) -> dict[str, Any]:
        where = f"schema registry {url}"
        if self._pool is None:
            self._pool = self._connected()
        try:
            answer = self._pool.request("GET", url + path, headers=self._headers(), redirect=False, retries=False)
        except urllib3.exceptions.SSLError as error:
            raise ConfigError(f"{where}: no TLS connection: {error}") from error
        except urllib3.exceptions.HTTPError as error:
            # refused, reset, not resolved, timed out
            raise UnavailableError(f"{where} does not answer: {type(error).__name__}") from error
        return _read(answer.status, answer.headers.get("Retry-After"), answer.data, where, what)

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": _ACCEPT}
        if self._settings.user_info is not None:
            headers |= urllib3.make_headers(basic_auth=self._settings.user_info.get_secret_value())
        if self._settings.token is not None:
            headers["Authorization"] = f"Bearer {self._settings.token.get_secret_value()}"
        return headers

    def _connected(self) -> urllib3.PoolManager:
        settings = self._settings
        timeout = urllib3.Timeout(connect=settings.connect_seconds, read=settings.read_seconds)
        return urllib3.PoolManager(timeout=timeout, ssl_context=_tls(settings))


def _tls(settings: RegistrySettings) -> ssl.SSLContext:
    """The TLS context; PEM files only.

    Raises:
        ConfigError: a file cannot be read, or is no PEM.
    """
    context = ssl.create_default_context()
    hint = "want a PEM file; convert a JKS or PKCS12 store: openssl pkcs12 -in store.p12 -nodes -out store.pem"
    try:
        if settings.ca_file is not None:
            context = ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"schema registry: 'ssl.truststore.location' {settings.ca_file}: {error}; {hint}") from error
    try:
        if settings.certificate_file is not None:
            password = settings.key_password.get_secret_value() if settings.key_password else ""
            context.load_cert_chain(settings.certificate_file, password=password)
    except (OSError, ssl.SSLError) as error:
        place = f"'ssl.keystore.location' {settings.certificate_file}"
        raise ConfigError(f"schema registry: {place}: {error}; {hint}") from error
    return context


def _read(status: int, retry_after: str | None, data: bytes, where: str, what: str) -> dict[str, Any]:
    """The answer's JSON, or the error that its status means."""
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError:
        body = None
    code = body.get("error_code") if isinstance(body, dict) else None
    if status == 200 and isinstance(body, dict) and isinstance(body.get("schema"), str):
        return body
    if status == 404 and code in _UNKNOWN:
        raise UnknownSchemaError(f"{what} is not in the {where}")
    if status in {401, 403}:
        raise ConfigError(f"{where} refuses our credentials (HTTP {status})")
    if status == 429 or status == 500:
        seconds = float(retry_after) if retry_after and re.fullmatch(r"\d{1,4}", retry_after) else None
        raise TransientError(f"{where} could not answer now (HTTP {status}, error {code})", seconds)
    if status > 500:
        raise UnavailableError(f"{where} does not answer (HTTP {status})")
    raise ConfigError(f"{where} answers HTTP {status} (error {code}): is this the address of a schema registry?")
