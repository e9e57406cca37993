"""OpenSearch over REST by opensearch-py, whose errors become ours here; nothing is retried below this edge."""

import base64
import logging
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import orjson
from opensearchpy import OpenSearch, Urllib3HttpConnection
from opensearchpy.exceptions import (
    AuthenticationException,
    AuthorizationException,
    ConnectionError,
    ConnectionTimeout,
    NotFoundError,
    SSLError,
    TransportError,
)
from opensearchpy.serializer import JSONSerializer
from pydantic import SecretStr

from vector_assets.engine.errors import ConfigError, PlanError, TransientError, UnavailableError

# every answer but a good one would be a warning, though it may be what was asked for (404)
logging.getLogger("opensearch").setLevel(logging.ERROR)

log = logging.getLogger(__name__)

BLOCKED = frozenset({"cluster_block_exception", "index_create_block_exception"})
"""Kinds of refusals (403) that are about the cluster's state, such as a full disk."""
_BUSY = frozenset({429, 502, 503, 504})
_MOST_REASON = 400
_KEEP_ALIVE = "5m"


class MissingError(PlanError):
    """What is asked for does not exist (404)."""


class RefusedError(PlanError):
    """The server refuses a request; `status` is HTTP's, `kind` is OpenSearch's name of the reason."""

    def __init__(self, message: str, status: int, kind: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Login:
    """Where and as whom: `hosts` are `http(s)://host:port`, one after another is asked."""

    hosts: tuple[str, ...]
    username: str | None = None
    password: SecretStr | None = None
    path_prefix: str = ""
    verifies: bool = True
    ca_file: str | None = None
    timeout_s: float = 30.0
    connections: int = field(default=8, compare=False)

    @staticmethod
    def parse_host(text: str) -> str:
        """One host as it is kept.

        Raises:
            ValueError: it is no `http(s)://host:port`.
        """
        parts = urlsplit(text.strip())
        if parts.username or parts.password:
            raise ValueError("a host has no credentials in it: they have options of their own")
        name = parts.hostname or ""
        wrong = parts.scheme not in {"http", "https"} or not name or parts.query or parts.fragment
        if wrong or parts.path not in {"", "/"}:
            raise ValueError("want http://host:port or https://host:port")
        try:
            port = parts.port
        except ValueError:
            raise ValueError("the port is no number from 0 to 65535") from None
        if port is None:
            raise ValueError("a host needs a port, as in http://localhost:9200")
        return f"{parts.scheme}://{f'[{name}]' if ':' in name else name}:{port}"


class _Json(JSONSerializer):
    def loads(self, s: Any) -> Any:
        return orjson.loads(s)

    def dumps(self, data: Any) -> Any:
        return (
            data if isinstance(data, str) else data.decode() if isinstance(data, bytes) else orjson.dumps(data).decode()
        )


def _authorization(login: Login) -> dict[str, str]:
    """The header of a login, in UTF-8 as a cluster reads it; opensearch-py would send Latin-1."""
    if not login.username or not login.password:
        return {}
    pair = f"{login.username}:{login.password.get_secret_value()}".encode()
    return {"authorization": "Basic " + base64.b64encode(pair).decode()}


class _Connection(Urllib3HttpConnection):
    def _raise_warnings(self, warning_headers: Any) -> None:
        """A server's warnings are for the log; opensearch-py would give them to Python's `warnings`."""
        for each in warning_headers:
            log.info("opensearch: %s", each)


class Client:
    """One connection pool; thread-safe. `place` begins every message."""

    def __init__(self, login: Login, place: str) -> None:
        self.place = place
        tls: dict[str, Any] = {}
        if any(host.startswith("https:") for host in login.hosts):
            tls = {"verify_certs": login.verifies, "ssl_show_warn": False, "ca_certs": login.ca_file}
        self._raw = OpenSearch(
            [f"{host}/{login.path_prefix.strip('/')}".rstrip("/") for host in login.hosts],
            headers=_authorization(login),
            timeout=login.timeout_s,
            max_retries=0,
            connection_class=_Connection,
            pool_maxsize=login.connections,
            serializer=_Json(),
            **{name: value for name, value in tls.items() if value is not None},
        )

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        params: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
    ) -> Any:
        """The answer to a request, as JSON.

        Raises:
            MissingError: 404.
            RefusedError: another refusal; a failing body is never repeated in it.
            ConfigError: the credentials are wrong, or TLS is.
            UnavailableError: nobody answers.
            TransientError: the server is busy, or did not answer in time: the request may have been applied.
        """
        asked = dict(params or {})
        if timeout_s is not None:
            asked["request_timeout"] = timeout_s
        headers = {"content-type": "application/x-ndjson"} if isinstance(body, bytes) else None
        try:
            return self._raw.transport.perform_request(method, path, params=asked, body=body, headers=headers)
        except (ConnectionError, TransportError) as error:
            raise self._translated(error, f"{method} {path}") from error

    def find(self, path: str, **params: Any) -> Any:
        """What is at a path, None where nothing is."""
        try:
            return self.ask("GET", path, params=params)
        except MissingError:
            return None

    def pages(self, index: str, body: Mapping[str, Any]) -> Generator[list[dict[str, Any]], None, None]:
        """The hits of a search as they were at one moment, a page of `size` at a time; to be closed.

        Raises:
            As `ask`.
        """
        # a point in time has no order of its own to page by in 2.19
        page = self.ask("POST", f"/{index}/_search", body, params={"scroll": _KEEP_ALIVE})
        try:
            while hits := page["hits"]["hits"]:
                yield hits
                page = self.ask("POST", "/_search/scroll", {"scroll": _KEEP_ALIVE, "scroll_id": page["_scroll_id"]})
        finally:
            self.ask("DELETE", "/_search/scroll", {"scroll_id": [page["_scroll_id"]]})

    def _translated(self, error: TransportError, request: str) -> Exception:
        what = f"{self.place}: {request}"
        if isinstance(error, SSLError):
            return ConfigError(f"{what}: TLS failed: {error.info}")
        if isinstance(error, ConnectionTimeout):
            return TransientError(f"{what}: no answer in time")
        if isinstance(error, ConnectionError):
            return UnavailableError(f"{what}: cannot connect: {type(error.info).__name__}")
        status = int(error.status_code)
        kind, reason = reason_of(error.info)
        if isinstance(error, AuthenticationException | AuthorizationException) and kind not in BLOCKED:
            return ConfigError(f"{what}: the server refuses the credentials ({status}): {reason}")
        if isinstance(error, NotFoundError):
            return MissingError(f"{what}: {reason or 'there is no such thing'} (404)")
        if status in _BUSY or kind in BLOCKED:
            return TransientError(f"{what}: {status} {reason}")
        return RefusedError(f"{what}: {status} {reason}", status, kind)

    def close(self) -> None:
        """Give back the connections."""
        self._raw.close()


def reason_of(info: Any) -> tuple[str, str]:
    """Kind and sentence of an error as OpenSearch tells it, innermost cause last; no document is in it."""
    error = info.get("error") if isinstance(info, dict) else None
    if isinstance(error, str):
        return "", error[:_MOST_REASON]
    if not isinstance(error, dict):
        return "", "" if isinstance(info, dict) else str(info)[:_MOST_REASON]
    sentences, cause = [str(error.get("reason") or error.get("type") or "")], error.get("caused_by")
    while isinstance(cause, dict):
        sentences.append(str(cause.get("reason") or cause.get("type") or ""))
        cause = cause.get("caused_by")
    return str(error.get("type", "")), ": ".join(s for s in sentences if s)[:_MOST_REASON]


def connect(login: Login, place: str) -> Client:
    """A client; whether anybody answers shows at the first request."""
    return Client(login, place)
