"""The web server: `python -m vector_assets.local.maxcompute.server <folder> <port>`, started by `MaxComputeService`."""

import json
import logging
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import uvicorn
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.requests import Request as WebRequest
from starlette.types import Receive, Scope, Send

from vector_assets.local.maxcompute.api import Api
from vector_assets.local.maxcompute.faults import CUT_AFTER, CUT_BEFORE, CUT_BODY, Rule, refusal_of
from vector_assets.local.maxcompute.http import Reply, Request, refusal_reply
from vector_assets.local.maxcompute.refusal import Refusal
from vector_assets.local.ports import HOST

_log = logging.getLogger(__name__)


class App:
    """The ASGI application."""

    def __init__(self, api: Api) -> None:
        self._api = api
        port = api.address.rpartition(":")[2]
        # a page in a browser must not reach the console by a name of its own
        self._hosts = {f"{name}:{port}" for name in (HOST, "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            request = await _read(scope, receive)
            rule = await run_in_threadpool(self._api.faults.next, request) if request.path[:1] != ("local",) else None
            cut = rule.cut if rule else ""
            if cut == CUT_BEFORE:
                return _hang_up(send)
            reply = await run_in_threadpool(self._answer, request, rule)
            if cut == CUT_AFTER:
                return _hang_up(send)
            await _send(reply, send, is_cut=cut == CUT_BODY)
        return None

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                self._api.store.close()
                await send({"type": "lifespan.shutdown.complete"})
                return
            await send({"type": "lifespan.startup.complete"})

    def _answer(self, request: Request, rule: Rule | None) -> Reply:
        try:
            if request.headers.get("host", "") not in self._hosts:
                raise Refusal(403, "NoPermission", f"the host must be one of {', '.join(sorted(self._hosts))}")
            if rule and rule.status:
                raise refusal_of(rule, self._api.address)
            return self._api.answer(request)
        except Refusal as refusal:
            return refusal_reply(refusal)
        except Exception as error:  # noqa: BLE001 (the top of the server; logged with its trace)
            # not 500: the client would try that seven times, for two minutes
            _log.exception("%s %s", request.method, request.target)
            return refusal_reply(Refusal(400, "InternalServerError", f"{type(error).__name__}: {error}"))


def _hang_up(send: Send) -> None:
    """Reset the connection without a word, which ASGI has no message for: uvicorn's own `send` knows its transport."""
    send.__self__.transport.abort()  # type: ignore[attr-defined]


async def _read(scope: Scope, receive: Receive) -> Request:
    web = WebRequest(scope, receive)
    raw = scope.get("raw_path", scope["path"].encode()).decode("latin-1")
    query = scope["query_string"].decode("latin-1")
    return Request(
        method=scope["method"],
        path=tuple(unquote(part) for part in raw.split("/") if part),
        query=dict(parse_qsl(query, keep_blank_values=True)),
        headers={name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]},
        body=await web.body(),
        target=f"{raw}?{query}" if query else raw,
    )


async def _send(reply: Reply, send: Send, *, is_cut: bool) -> None:
    headers = {"Content-Type": reply.media, "x-odps-request-id": uuid.uuid4().hex.upper(), **reply.headers}
    if isinstance(reply.body, bytes):
        headers["Content-Length"] = str(len(reply.body))
    start: dict[str, Any] = {"type": "http.response.start", "status": reply.status}
    start["headers"] = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send(start)
    if isinstance(reply.body, bytes):
        half = len(reply.body) // 2
        await send({"type": "http.response.body", "body": reply.body[:half], "more_body": True})
        if not is_cut:
            await send({"type": "http.response.body", "body": reply.body[half:], "more_body": False})
        return
    async for piece in iterate_in_threadpool(_first_half(reply.body) if is_cut else reply.body):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    if not is_cut:
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _first_half(pieces: Iterator[bytes]) -> Iterator[bytes]:
    whole = b"".join(pieces)
    yield whole[: len(whole) // 2]


def serve(folder: Path, port: int) -> None:
    """Serve what the folder keeps until the process is told to end; `server.json` in it has the key pair."""
    settings = json.loads((folder / "server.json").read_text())
    api = Api(folder, f"{HOST}:{port}", settings["access_id"], settings["access_key"], settings["project"])
    uvicorn.run(App(api), host=HOST, port=port, log_level="warning", access_log=False, timeout_graceful_shutdown=5)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
