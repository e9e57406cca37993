"""Retry policies made from vendors' options, for single idempotent requests and for the run loop."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import tenacity

from vector_assets.engine.errors import TransientError, UnavailableError

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`retries` attempts after the first, `wait_seconds` apart.

    A service that cannot be reached at all (UnavailableError) does not use up retries: it is waited for, with growing
    pauses, until `outage_seconds` have passed since it was first missed. Once `stop` is set nothing is tried again.
    """

    retries: int = 3
    wait_seconds: float = 0.2
    outage_seconds: float = 60.0
    stop: threading.Event = field(default_factory=threading.Event, compare=False)


def call(policy: RetryPolicy, fn: Callable[[], T], *, place: str) -> T:
    """`fn()`, again after a TransientError as the policy allows; the last error is raised as it is."""
    for attempt in attempts(policy, place=place):
        with attempt:
            return fn()
    raise AssertionError("unreachable: tenacity re-raises")


def attempts(policy: RetryPolicy, *, place: str) -> tenacity.Retrying:
    """Attempts to loop over (`for attempt in attempts(...): with attempt: ...`)."""
    budget = _Budget(policy)
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(TransientError),
        stop=budget.is_used_up,
        wait=budget.pause,
        sleep=budget.sleep,
        before_sleep=lambda state: log.warning("%s: %s; trying again", place, _error(state)),
        reraise=True,
    )


def _error(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


class _Budget:
    """Counts failed writes and outages apart."""

    def __init__(self, policy: RetryPolicy) -> None:
        self.policy = policy
        self.failures = 0
        self.outages = 0
        self.down_since: float | None = None
        self.error: BaseException | None = None

    def is_used_up(self, state: tenacity.RetryCallState) -> bool:
        self.error = _error(state)
        if self.policy.stop.is_set():
            return True
        now = state.outcome_timestamp or 0.0
        if isinstance(_error(state), UnavailableError):
            self.outages += 1
            if self.down_since is None:
                self.down_since = now
            return now - self.down_since >= self.policy.outage_seconds
        self.down_since = None
        self.outages = 0
        self.failures += 1
        return self.failures > self.policy.retries

    def pause(self, state: tenacity.RetryCallState) -> float:
        error = _error(state)
        if isinstance(error, TransientError) and error.retry_after is not None:
            return error.retry_after
        if isinstance(error, UnavailableError):
            return float(min(0.1 * 2 ** min(self.outages, 6), 5.0))
        return self.policy.wait_seconds

    def sleep(self, seconds: float) -> None:
        """Wait; a stop in the middle ends it with the last error instead of another attempt."""
        if self.policy.stop.wait(seconds) and self.error:
            raise self.error
