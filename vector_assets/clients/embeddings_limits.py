"""How many requests an embedding service gets at once and how fast: one gate per service and process."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from vector_assets.engine.errors import TransientError

_LOOK_SECONDS = 0.1
"""How soon a waiting request notices a stop."""


class StoppedError(TransientError):
    """The run was told to stop before a request was sent: nothing was paid for it."""


class Gate:
    """Lets requests through; every request brings the limits of its own pipeline. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._running = 0
        self._closed_until = 0.0
        self._last = float("-inf")

    @contextmanager
    def passed(self, most: int, apart_seconds: float, stop: threading.Event) -> Iterator[None]:
        """One request among `most`, `apart_seconds` after the one before it.

        Raises:
            StoppedError: `stop` was set first.
        """
        with self._changed:
            while True:
                if stop.is_set():
                    raise StoppedError("the run was told to stop; texts that are embedded already are kept")
                now = self._clock()
                wait = max(self._closed_until, self._last + apart_seconds) - now
                if wait <= 0 and self._running < most:
                    break
                self._changed.wait(min(max(wait, 0.001), _LOOK_SECONDS) if wait > 0 else _LOOK_SECONDS)
            self._running += 1
            self._last = now
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def close_for(self, seconds: float) -> None:
        """Nobody passes for so long: the service said so to one of us."""
        with self._changed:
            self._closed_until = max(self._closed_until, self._clock() + seconds)


_gates: dict[tuple[str, str], Gate] = {}
_lock = threading.Lock()


def gate_of(url: str, api_key: str | None) -> Gate:
    """The gate of the account that a key belongs to, at the service of an address."""
    parts = urlsplit(url)
    where = (f"{parts.scheme}://{parts.netloc}", hashlib.sha256((api_key or "").encode()).hexdigest())
    with _lock:
        return _gates.setdefault(where, Gate())
