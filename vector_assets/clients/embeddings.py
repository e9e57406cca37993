"""Client of OpenAI's `/v1/embeddings`: texts to vectors, one request at a time, every answer looked at."""

import base64
import binascii
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import urllib3

from vector_assets.clients.embeddings_limits import gate_of
from vector_assets.clients.embeddings_options import EmbeddingOptions
from vector_assets.engine.errors import ConfigError, FatalError, RecordError, TransientError, UnavailableError

Vectors = npt.NDArray[np.float32]

_CONNECT_SECONDS = 5.0
_REASON_CHARS = 200
_REFUSED = (400, 413, 422)
"""Statuses that lie in the request: sent again as it is, it would be refused again."""
_QUOTA = ("insufficient_quota", "billing_hard_limit_reached", "Arrearage")
"""Codes of OpenAI and Model Studio for an account that has no money: waiting does not help."""
_LONGEST_WAIT_SECONDS = 900.0
"""A service that asks for a longer pause is not waited for."""


class TextsRefusedError(RecordError):
    """The service refuses a request for what is in it; sent in halves, the part that is to blame is found."""


class WrongAnswerError(FatalError):
    """What came back is not one vector for each text."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Vectors in the order of the texts, one row each; `tokens` is None where the service does not count them."""

    vectors: Vectors
    tokens: int | None


class EmbeddingsClient:
    """One model of one service; threads may share it, and requests pass the gate of the service."""

    def __init__(self, options: EmbeddingOptions) -> None:
        """Open no connection yet."""
        self._options = options
        self._key = options.api_key.get_secret_value() if options.api_key is not None else None
        self._gate = gate_of(options.url, self._key)
        timeout = urllib3.Timeout(connect=_CONNECT_SECONDS, read=options.timeout.total_seconds())
        self._pool = urllib3.PoolManager(timeout=timeout, maxsize=options.concurrency)
        self._where = f"embedding model {options.model} at {options.url}"

    def embed(self, texts: Sequence[str], stop: threading.Event, turn: int = 0) -> Answer:
        """The vectors of texts, asked for once; of requests that wait for each other that of the lowest turn is first.

        Raises:
            TextsRefusedError: a text (or their number) is refused.
            WrongAnswerError: the answer does not fit the texts.
            StoppedError: `stop` was set before the request was sent.
            UnavailableError: the service cannot be reached.
            TransientError: it is busy, fails, or does not answer in time.
            ConfigError: it refuses our key, or knows no such model or address.
            FatalError: the account has no money left.
        """
        options = self._options
        apart = 60.0 / options.requests_per_minute if options.requests_per_minute else 0.0
        body: dict[str, Any] = {"model": options.model, "input": list(texts)}
        if options.dimensions is not None and options.send_dimensions:
            body["dimensions"] = options.dimensions
        if options.encoding_format != "float":
            body["encoding_format"] = options.encoding_format
        with self._gate.passed(options.concurrency, apart, stop, turn):
            answer = self._posted(orjson.dumps(body))
        if answer.status != 200:
            raise self._error(answer)
        return self._read(answer.data, len(texts))

    def _posted(self, body: bytes) -> urllib3.BaseHTTPResponse:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        where = self._where
        try:
            return self._pool.request(
                "POST", self._options.url, body=body, headers=headers, redirect=False, retries=False
            )
        except urllib3.exceptions.SSLError as error:
            raise ConfigError(f"{where}: no TLS connection: {error}") from error
        except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError) as error:
            raise UnavailableError(f"{where} cannot be reached: {type(error).__name__}") from error
        except urllib3.exceptions.ReadTimeoutError as error:
            seconds = self._options.timeout.total_seconds()
            raise TransientError(f"{where} did not answer in {seconds:g} s (option 'timeout')") from error
        except urllib3.exceptions.HTTPError as error:
            # the request may have been paid for: it is tried again a few times only, not as long as an outage lasts
            raise TransientError(f"{where} broke the connection off: {type(error).__name__}") from error

    def _error(self, answer: urllib3.BaseHTTPResponse) -> Exception:
        """The error that a status means."""
        code, reason = _reason(answer.data)
        where, what = self._where, f"HTTP {answer.status}: {reason}"
        if answer.status in _REFUSED:
            return TextsRefusedError(f"{self._options.model}: {what}")
        if answer.status in {401, 403}:
            return ConfigError(f"{where} refuses option 'api-key' ({what})")
        if answer.status == 402 or code in _QUOTA:
            return FatalError(f"{where}: the account has no money left ({what})")
        seconds = _retry_after(answer)
        if seconds is not None and seconds > _LONGEST_WAIT_SECONDS:
            return FatalError(f"{where} wants no request for {seconds:.0f} s ({what})")
        if answer.status == 429:
            self._gate.close_for(seconds if seconds is not None else self._options.retry_wait.total_seconds())
            return TransientError(f"{where} has had too many requests ({what})", seconds)
        if answer.status in {408, 500}:
            return TransientError(f"{where} could not answer ({what})", seconds)
        if answer.status > 500:
            return UnavailableError(f"{where} does not answer ({what})", seconds)
        return ConfigError(f"{where} answers {what}; look at options 'url' and 'model'")

    def _read(self, data: bytes, count: int) -> Answer:
        """The answer's vectors by their `index`.

        Raises:
            WrongAnswerError: it is no such answer; the message names what is wrong.
        """
        try:
            body = orjson.loads(data)
            rows, usage = body["data"], body.get("usage") or {}
            order = np.array([row["index"] for row in rows], np.int64)
            found = [row["embedding"] for row in rows]
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._wrong(f"no list of vectors with index and embedding ({type(error).__name__})") from error
        if len(found) != count:
            raise self._wrong(f"{len(found)} vectors for {count} texts")
        places = np.argsort(order, kind="stable")
        if not np.array_equal(order[places], np.arange(count)):
            raise self._wrong(f"index {_first_odd(order, count)}, wanted each of 0 to {count - 1} once")
        try:
            vectors = _matrix(found)
        except (TypeError, ValueError, binascii.Error) as error:
            raise self._wrong(f"vectors that are not alike, or no numbers: {str(error)[:80]}") from error
        wanted = self._options.dimensions
        if wanted is not None and vectors.shape[1] != wanted:
            raise self._wrong(f"vectors of {vectors.shape[1]} numbers, wanted {wanted} (option 'dimensions')")
        tokens = usage.get("total_tokens", usage.get("prompt_tokens")) if isinstance(usage, dict) else None
        return Answer(vectors[places], int(tokens) if isinstance(tokens, int) else None)

    def _wrong(self, found: str) -> WrongAnswerError:
        return WrongAnswerError(f"{self._where} answers {found}")


def _matrix(found: list[Any]) -> Vectors:
    """Rows of numbers (null is NaN), or of base64 of little-endian float32."""
    if found and isinstance(found[0], str):
        parts = [base64.b64decode(each, validate=True) for each in found]
        if len({len(part) for part in parts}) != 1:
            raise ValueError("their lengths differ")
        return np.frombuffer(b"".join(parts), "<f4").astype(np.float32).reshape(len(parts), -1)
    vectors = np.array(found, np.float32)
    if vectors.ndim != 2 or vectors.shape[1] == 0:
        raise ValueError(f"found {vectors.ndim} dimensions")
    return vectors


def _first_odd(order: npt.NDArray[np.int64], count: int) -> int:
    """An index that is out of range or there twice."""
    seen: set[int] = set()
    for number in order.tolist():
        if number in seen or not 0 <= number < count:
            return int(number)
        seen.add(number)
    return -1


def _reason(data: bytes) -> tuple[str, str]:
    """Code and message of an error's body (OpenAI's form, or that of services like it), cut short."""
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError:
        return "", "no reason given"
    inner = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(inner, dict):
        return "", str(inner)[:_REASON_CHARS]
    message = inner.get("message") or inner.get("detail") or "no reason given"
    return str(inner.get("code") or inner.get("type") or ""), str(message)[:_REASON_CHARS]


def _retry_after(answer: urllib3.BaseHTTPResponse) -> float | None:
    """Seconds that the service asks us to wait: exact, whole, or until a date; None where it says nothing."""
    exact, text = answer.headers.get("Retry-After-Ms"), answer.headers.get("Retry-After")
    try:
        if exact is not None:
            return max(float(exact) / 1000, 0.0)
        return max(float(text), 0.0) if text is not None else None
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return max((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - time.time(), 0.0)
