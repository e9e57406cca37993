"""How many requests an embedding service gets at once and how fast: one gate per service and process."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from vector_assets.engine.errors import TransientError

_LOOK_SECONDS = 0.1
"""How soon a waiting request notices a stop."""


class StoppedError(TransientError):
    """The run was told to stop before a request was sent: nothing was paid for it."""


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """A request at the gate, with the limits of its pipeline."""

    turn: int
    most: int
    apart_seconds: float


class Gate:
    """Lets requests through; every request brings the limits of its own pipeline. Thread-safe.

    Of those that may pass, that of the lowest turn goes first.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._running = 0
        self._closed_until = 0.0
        self._last = float("-inf")
        self._waiting: list[_Waiting] = []

    @contextmanager
    def passed(self, most: int, apart_seconds: float, stop: threading.Event, turn: int = 0) -> Iterator[None]:
        """One request among `most`, `apart_seconds` after the one before it.

        Raises:
            StoppedError: `stop` was set first.
        """
        mine = _Waiting(turn, most, apart_seconds)
        with self._changed:
            self._waiting.append(mine)
            try:
                while True:
                    if stop.is_set():
                        raise StoppedError("the run was told to stop; texts that are embedded already are kept")
                    now = self._clock()
                    if self._may_pass(mine, now):
                        break
                    wait = self._pause(mine, now)
                    self._changed.wait(min(max(wait, 0.001), _LOOK_SECONDS) if wait > 0 else _LOOK_SECONDS)
                self._running += 1
                self._last = now
            finally:
                self._waiting.remove(mine)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def _may_pass(self, mine: _Waiting, now: float) -> bool:
        """True when its limits let it through, and nobody before it could go instead."""
        before = (each for each in self._waiting if each.turn < mine.turn)
        return self._has_room(mine, now) and not any(self._has_room(each, now) for each in before)

    def _has_room(self, one: _Waiting, now: float) -> bool:
        return self._running < one.most and self._pause(one, now) <= 0

    def _pause(self, one: _Waiting, now: float) -> float:
        return max(self._closed_until, self._last + one.apart_seconds) - now

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
