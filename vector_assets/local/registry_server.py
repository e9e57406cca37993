"""A small schema registry speaking the REST API that serializers use; run as a process by `SchemaRegistryService`."""

import base64
import hmac
import json
import sys
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from vector_assets.local.ports import HOST
from vector_assets.local.registry_store import KINDS, Refusal, Store

IDENTITY = "/v1/metadata/id"
"""Answers without credentials, so that a starter can tell this registry from any other on its port."""

_CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"
_MOST_BODY_BYTES = 8 << 20

Query = Mapping[str, list[str]]
Body = dict[str, Any]


class Api:
    """Requests to answers."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def answer(self, method: str, path: str, query: Query, body: Body) -> Any:
        """What a request gives.

        Raises:
            Refusal: anything but success.
        """
        parts = [unquote(part) for part in path.strip("/").split("/")] if path.strip("/") else []
        handler: Callable[[str, list[str], Query, Body], Any] | None = {
            "subjects": self._subjects,
            "schemas": self._schemas,
            "config": self._config,
            "compatibility": self._compatibility,
        }.get(parts[0] if parts else "")
        if method == "GET" and not parts:
            return {}
        if method == "GET" and path == IDENTITY:
            return {"id": self._store.cluster}
        if handler is None:
            raise Refusal(404, 404, f"HTTP 404 Not Found: {method} {path}")
        return handler(method, parts[1:], query, body)

    def _subjects(self, method: str, parts: list[str], query: Query, body: Body) -> Any:
        store, deleted, permanent = self._store, _is_on(query, "deleted"), _is_on(query, "permanent")
        match method, parts:
            case "GET", []:
                return store.subjects(deleted=deleted)
            case "POST", [subject]:
                return store.lookup(subject, body)
            case "DELETE", [subject]:
                return store.delete(subject, None, permanent=permanent)
            case "GET", [subject, "versions"]:
                return store.versions(subject, deleted=deleted)
            case "POST", [subject, "versions"]:
                return {"id": store.register(subject, body)}
            case "GET", [subject, "versions", version]:
                return store.version(subject, version)
            case "GET", [subject, "versions", version, "schema"]:
                return json.loads(store.version(subject, version)["schema"])
            case "DELETE", [subject, "versions", version]:
                return store.delete(subject, version, permanent=permanent)[0]
        raise _not_found(method, "subjects", parts)

    def _schemas(self, method: str, parts: list[str], _query: Query, _body: Body) -> Any:
        match method, parts:
            case "GET", ["types"]:
                return list(KINDS)
            case "GET", ["ids", number]:
                return self._store.schema(number)
            case "GET", ["ids", number, "schema"]:
                return json.loads(self._store.schema(number)["schema"])
            case "GET", ["ids", number, "versions"]:
                return self._store.used(number)
            case "GET", ["ids", number, "subjects"]:
                return [each["subject"] for each in self._store.used(number)]
        raise _not_found(method, "schemas", parts)

    def _config(self, method: str, parts: list[str], query: Query, body: Body) -> Any:
        subject = parts[0] if parts else None
        match method, parts:
            case "GET", [] | [_]:
                if subject and not _is_on(query, "defaultToGlobal") and not self._store.has_level(subject):
                    raise Refusal(
                        404, 40408, f"Subject '{subject}' does not have subject-level compatibility configured"
                    )
                return {"compatibilityLevel": self._store.level(subject)}
            case "PUT", [] | [_]:
                self._store.set_level(subject, str(body.get("compatibility")))
                return {"compatibility": self._store.level(subject)}
            case "DELETE", [_]:
                before = self._store.level(subject)
                self._store.set_level(subject, None)
                return {"compatibilityLevel": before}
        raise _not_found(method, "config", parts)

    def _compatibility(self, method: str, parts: list[str], query: Query, body: Body) -> Any:
        match method, parts:
            case "POST", ["subjects", subject, "versions", version]:
                reasons = self._store.is_compatible(subject, version, body)
                answer: Body = {"is_compatible": not reasons}
                return answer | {"messages": reasons} if _is_on(query, "verbose") else answer
        raise _not_found(method, "compatibility", parts)


def _is_on(query: Query, name: str) -> bool:
    return query.get(name, ["false"])[-1].lower() == "true"


def _not_found(method: str, first: str, parts: list[str]) -> Refusal:
    return Refusal(404, 404, f"HTTP 404 Not Found: {method} /{'/'.join([first, *parts])}")


def serve(folder: Path, port: int) -> None:
    """Serve the registry kept in `folder` until the process is told to end.

    `users.json` in it (name to password), if there, says who may ask.
    """
    api = Api(Store(folder / "registry.json"))
    users_file = folder / "users.json"
    users = json.loads(users_file.read_text()) if users_file.exists() else {}
    allowed = ["Basic " + base64.b64encode(f"{name}:{word}".encode()).decode() for name, word in users.items()]

    class Requests(BaseHTTPRequestHandler):
        """One connection."""

        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Requests are not logged."""

        def handle_one(self) -> None:
            """Answer one request."""
            url = urlsplit(self.path)
            try:
                size = int(self.headers.get("Content-Length") or 0)
                if size > _MOST_BODY_BYTES:
                    self.close_connection = True
                    raise Refusal(413, 413, f"the body has {size} bytes, more than {_MOST_BODY_BYTES}")
                sent = self.rfile.read(size)
                self._check_user(url.path)
                found = api.answer(self.command, url.path, parse_qs(url.query), _body(sent))
            except Refusal as refusal:
                self._send(refusal.status, {"error_code": refusal.code, "message": str(refusal)})
            else:
                self._send(200, found)

        do_GET = do_POST = do_PUT = do_DELETE = handle_one  # noqa: N815 (http.server's names)

        def _check_user(self, path: str) -> None:
            given = self.headers.get("Authorization", "")
            if users and path != IDENTITY and not any(hmac.compare_digest(given, each) for each in allowed):
                raise Refusal(401, 401, "Unauthorized")

        def _send(self, status: int, answer: object) -> None:
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", _CONTENT_TYPE)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    ThreadingHTTPServer((HOST, port), Requests).serve_forever()


def _body(sent: bytes) -> Body:
    try:
        found = json.loads(sent) if sent else {}
    except ValueError:
        raise Refusal(422, 422, "the body is no JSON") from None
    if not isinstance(found, dict):
        raise Refusal(422, 422, "the body is no JSON object")
    return found


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
