"""Milvus servers: who they are, what they hold, and what their errors mean to the engine.

Nothing here imports pymilvus (2 s): `connect` does when a server is first asked.
"""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import SecretStr

from vector_assets.engine.errors import (
    ConfigError,
    FatalError,
    PlanError,
    TransientError,
    UnavailableError,
    VectorAssetsError,
)

if TYPE_CHECKING:
    import grpc

    from vector_assets.clients.milvus_api import Api

DEFAULT_PORT = 19530
_URI_FORM = "http://host[:port] or https://host[:port]"
_RATE_LIMIT_WAIT_S = 1.0
_SHOWN = 300
"""Characters of a server's message that are passed on: it may repeat a long expression."""


class NoCollectionError(PlanError):
    """The collection does not exist."""


class NotLoadedError(PlanError):
    """The collection is there, but cannot be read until it is loaded."""


class LimitedError(TransientError):
    """The server takes nothing more right now: a rate limit, or too many requests. `retry_after` is set."""


class RefusedError(FatalError):
    """The server refuses what a request holds; asking again would change nothing."""


@dataclass(frozen=True, slots=True)
class Login:
    """Where a server is and how to enter; `secure` means TLS with the system's certificate authorities."""

    host: str
    port: int = DEFAULT_PORT
    secure: bool = False
    database: str = "default"
    user: str | None = None
    password: SecretStr | None = None
    token: SecretStr | None = None

    @classmethod
    def parse_uri(cls, uri: str) -> tuple[str, int, bool]:
        """Host, port and whether to use TLS.

        Raises:
            ValueError: another form, or credentials in the address; what was found is not repeated.
        """
        parts = urlsplit(uri.strip())
        if parts.scheme not in {"http", "https"}:
            raise ValueError(f"want {_URI_FORM}")
        if "@" in parts.netloc:
            raise ValueError(
                "it holds credentials: leave them out, the options userName and password, or token, take them"
            )
        if not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError(f"want {_URI_FORM}; the database goes into the option databaseName")
        try:
            port = parts.port
        except ValueError:
            raise ValueError(f"the port is not a number from 1 to 65535; want {_URI_FORM}") from None
        secure = parts.scheme == "https"
        return parts.hostname, port or (443 if secure else DEFAULT_PORT), secure

    @property
    def address(self) -> str:
        """`host:port`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes along with every request: the database and the credentials."""
        secret = self.token.get_secret_value() if self.token else ""
        if self.user and self.password:
            secret = f"{self.user}:{self.password.get_secret_value()}"
        given = (("dbname", self.database),)
        if not secret:
            return given
        return (*given, ("authorization", base64.b64encode(secret.encode()).decode()))


@dataclass(frozen=True, slots=True)
class Server:
    """What answers: `version` as it spells it; `release` is empty for milvus-lite, which counts in its own way."""

    version: str

    @property
    def is_lite(self) -> bool:
        """True for milvus-lite."""
        return self.version.startswith("milvus_lite-")

    @property
    def release(self) -> tuple[int, ...]:
        """Numbers of the version; empty when it is not a server's."""
        found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", self.version)
        return tuple(int(part or 0) for part in found.groups()) if found else ()

    def is_older(self, *release: int) -> bool:
        """True for a server before `release`; never for milvus-lite."""
        return bool(self.release) and self.release < release


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a collection; `type` and `element` are Milvus' names of data types."""

    name: str
    type: str
    is_key: bool = False
    is_auto: bool = False
    is_partition_key: bool = False
    nullable: bool = False
    has_default: bool = False
    is_output: bool = False
    dimension: int | None = None
    max_length: int | None = None
    max_capacity: int | None = None
    element: str = ""

    @property
    def is_vector(self) -> bool:
        """True for every kind of vector."""
        return self.type.endswith("Vector")

    @property
    def spelled(self) -> str:
        """The type for people: `VarChar(20)`, `FloatVector(3)`, `Array<Int64>`."""
        size = self.dimension if self.is_vector else self.max_length if self.type == "VarChar" else None
        element = f"<{self.element}>" if self.element else ""
        return f"{self.type}{element}" + (f"({size})" if size is not None else "")


@dataclass(frozen=True, slots=True)
class Collection:
    """What a server says of a collection; `id` is 0 on milvus-lite, which gives none."""

    name: str
    id: int
    fields: tuple[Field, ...]
    properties: Mapping[str, str] = field(default_factory=dict)

    def field(self, name: str) -> Field | None:
        """The field of this name."""
        return next((found for found in self.fields if found.name == name), None)

    @property
    def key(self) -> Field:
        """The primary key."""
        return next(found for found in self.fields if found.is_key)

    @property
    def partition_key(self) -> Field | None:
        """The field whose value chooses the partition."""
        return next((found for found in self.fields if found.is_partition_key), None)


@dataclass(frozen=True, slots=True)
class Index:
    """An index of a vector field."""

    field: str
    type: str
    metric: str


def connect(login: Login, place: str) -> "Api":
    """A connection that has been answered; `place` starts the messages of its errors.

    Raises:
        ConfigError: pymilvus is missing, or the server refuses the credentials, the database or TLS.
        UnavailableError: nobody answers.
    """
    try:
        from vector_assets.clients.milvus_api import Api
    except ModuleNotFoundError as error:
        if error.name not in {"pymilvus", "grpc"}:
            raise
        raise ConfigError(f"milvus needs the package {error.name}: pip install 'vector-assets[milvus]'") from error
    return Api(login, place)


_TLS_SIGNS = re.compile(r"certificate|WRONG_VERSION_NUMBER|SSL_ERROR|Ssl handshake", re.IGNORECASE)
_TOO_LARGE = re.compile(r"(message|size) .*larger than|exceeds? .*(max|limit).*(size|length)", re.IGNORECASE)


def unanswered(error: "grpc.RpcError", place: str, timeout: float) -> VectorAssetsError:
    """The engine's error for a request that got no answer of the server's own."""
    code, details = error.code().name, shown(error.details() or "")
    message = f"{place}: {code} {details}"
    if code == "UNAVAILABLE":
        return ConfigError(message) if _TLS_SIGNS.search(details) else UnavailableError(message)
    if code == "DEADLINE_EXCEEDED":
        return UnavailableError(f"{place}: no answer within {timeout:g} s")
    if code in {"UNAUTHENTICATED", "PERMISSION_DENIED"}:
        return ConfigError(message)
    if code == "RESOURCE_EXHAUSTED":
        if _TOO_LARGE.search(details):
            return RefusedError(f"{message}: lower 'sink.buffer-flush.max-rows'")
        return LimitedError(message, retry_after=_RATE_LIMIT_WAIT_S)
    if code in {"UNIMPLEMENTED", "INVALID_ARGUMENT", "NOT_FOUND", "OUT_OF_RANGE"}:
        return RefusedError(message)
    return TransientError(message)


_BUSY = {3, 4, 8}
"""Server codes: too much memory in use, too many requests, rate limit."""
_CLOSED = {1, 2, 7, 9}
"""Server codes: not ready, unavailable, disk limit, quota: nothing is taken until somebody makes room."""
_PASSING = (range(5, 6), range(500, 700), range(900, 1100), range(1300, 1400))
"""Server codes: internal, channels and segments, nodes and storage, message queue."""


def refused(code: int, reason: str, place: str, *, is_lite: bool, is_retriable: bool = False) -> VectorAssetsError:
    """The engine's error for an answer that is none; the codes are those of Milvus' `merr`, milvus-lite has others."""
    message = f"{place}: {shown(reason)} (code {code})"
    if code == 100:
        return NoCollectionError(message)
    if code in {101, 103}:
        return NotLoadedError(message)
    if code in {200, 700}:
        return PlanError(message)
    if is_lite:
        is_database = re.search(r"\bdatabase\b.*\bnot\b", reason, re.IGNORECASE) is not None
        return ConfigError(message) if is_database else RefusedError(message)
    if code == 800 or 1400 <= code < 1500:
        return ConfigError(message)
    if code in _CLOSED:
        return UnavailableError(message)
    if code in _BUSY:
        return LimitedError(message, retry_after=_RATE_LIMIT_WAIT_S)
    if is_retriable or any(code in codes for codes in _PASSING):
        return TransientError(message)
    return RefusedError(message)


def shown(text: str) -> str:
    """The beginning of a server's message, in one line."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."


ESCAPES = (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"))
"""How Milvus' expressions write what may not stand in a text; milvus-lite knows no code points such as \\u0001."""


def text_literal(text: str) -> str:
    """A text as Milvus' expressions write it."""
    for plain, escaped in ESCAPES:
        text = text.replace(plain, escaped)
    return f'"{text}"'
