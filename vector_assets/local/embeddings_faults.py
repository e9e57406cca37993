"""What the local embedding service does wrong on purpose: rules that a test sets, and a rate limit."""

import re
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]

WRONG = ("", "count", "order", "index", "dimension", "nan", "body")
"""How an answer may be wrong: a vector too few, the vectors of other texts (their `index` right or wrong), another
dimension, a value that is no number, or no JSON at all."""


class Refused(Exception):  # noqa: N818 (what an answer is, not what went wrong here)
    """A request that gets no vectors."""

    def __init__(self, status: int, message: str, code: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s


@dataclass
class Rule:
    """What happens to requests with a text that `text` (a regular expression) finds, after `skip` of them, `times`
    times (None: always).

    A `status` refuses them, with `retry_after_s` as its header; `delay_s` comes before anything else; `cut` resets the
    connection instead of answering, after the texts were paid for.
    """

    text: str = ""
    status: int = 0
    message: str = "a fault that was asked for"
    retry_after_s: float | None = None
    delay_s: float = 0.0
    wrong: str = ""
    cut: bool = False
    skip: int = 0
    times: int | None = 1
    hits: int = 0

    def __post_init__(self) -> None:
        if self.wrong not in WRONG:
            raise ValueError(f"wrong is {self.wrong!r}; known: {', '.join(WRONG[1:])}")
        try:
            re.compile(self.text)
        except re.error as error:
            raise ValueError(f"text is no regular expression: {error}") from None


@dataclass
class Limits:
    """What the service grants, None for anything: requests in any second, texts in a request, characters in a text,
    requests at once; `latency_s` is added to each request and `revision` is the model's (another one, other vectors).
    """

    requests_per_s: float | None = None
    batch: int | None = 2048
    characters: int | None = None
    concurrent: int | None = None
    latency_s: float = 0.0
    revision: int = 0
    needs_key: bool = True


@dataclass
class Counters:
    """Since the start or the last reset. `texts` and `tokens` are paid for; `repeated` were paid for before."""

    requests: int = 0
    answered: int = 0
    refused: int = 0
    texts: int = 0
    tokens: int = 0
    repeated: int = 0
    most_at_once: int = 0
    largest_batch: int = 0
    statuses: dict[str, int] = field(default_factory=dict)


class Desk:
    """Limits, rules and counters of one server; thread-safe."""

    def __init__(self) -> None:
        self.limits = Limits()
        self._rules: list[Rule] = []
        self._counters = Counters()
        self._paid: set[tuple[str, str, int]] = set()
        self._stamps: list[float] = []
        self._running = 0
        self._lock = threading.Lock()

    def add(self, rule: dict[str, Any]) -> None:
        """One more rule; the first that matches a request applies.

        Raises:
            TypeError: it has a field that rules have not.
            ValueError: a field has a value it cannot have.
        """
        made = Rule(**rule)
        with self._lock:
            self._rules.append(made)

    def rules(self) -> list[dict[str, Any]]:
        """The rules with how often each was used."""
        with self._lock:
            return [asdict(rule) for rule in self._rules]

    def clear(self) -> None:
        """No rule, no limit, all counters at zero."""
        with self._lock:
            self._rules.clear()
            self.limits = Limits()
            self._forget()

    def reset_counters(self) -> None:
        """All counters at zero; nothing counts as paid for."""
        with self._lock:
            self._forget()

    def _forget(self) -> None:
        self._counters = Counters()
        self._paid.clear()
        self._stamps.clear()

    def counters(self) -> dict[str, Any]:
        """The counters by name."""
        with self._lock:
            return asdict(self._counters)

    def open_book(self) -> Counters:
        """What a request counts into that begins now, whenever it ends: one that outlives a reset counts no more."""
        with self._lock:
            return self._counters

    def enter(self, texts: Sequence[str]) -> Rule:
        """Count a request in; the rule that applies to it, an empty one otherwise. `leave` must follow.

        Raises:
            Refused: there are too many requests.
        """
        with self._lock:
            self._running += 1
            counters, limits = self._counters, self.limits
            counters.requests += 1
            counters.most_at_once = max(counters.most_at_once, self._running)
            counters.largest_batch = max(counters.largest_batch, len(texts))
            if limits.concurrent is not None and self._running > limits.concurrent:
                raise Refused(429, f"more than {limits.concurrent} requests at once", "rate_limit_exceeded", 0.1)
            self._check_rate()
            return self._match(texts)

    def _check_rate(self) -> None:
        rate = self.limits.requests_per_s
        if rate is None:
            return
        now = time.monotonic()
        self._stamps = [stamp for stamp in self._stamps if now - stamp < 1]
        if len(self._stamps) >= rate:
            wait_s = round(1 - (now - self._stamps[0]) + 0.01, 2)
            raise Refused(429, f"more than {rate:g} requests a second", "rate_limit_exceeded", wait_s)
        self._stamps.append(now)

    def _match(self, texts: Sequence[str]) -> Rule:
        for rule in self._rules:
            if rule.times is not None and rule.hits >= rule.skip + rule.times:
                continue
            if any(re.search(rule.text, text) for text in texts):
                rule.hits += 1
                if rule.hits > rule.skip:
                    return rule
        return Rule()

    def leave(self, status: int, counters: Counters) -> None:
        """Count a request out."""
        with self._lock:
            self._running -= 1
            counters.statuses[str(status)] = counters.statuses.get(str(status), 0) + 1
            if status == 200:
                counters.answered += 1
            else:
                counters.refused += 1

    def pay(self, model: str, dimensions: int, texts: Sequence[str], tokens: int, counters: Counters) -> None:
        """Count texts that were embedded."""
        with self._lock:
            if counters is not self._counters:
                return
            counters.tokens += tokens
            counters.texts += len(texts)
            for text in texts:
                paid = (model, text, dimensions)
                counters.repeated += paid in self._paid
                self._paid.add(paid)


def spoil(rule: Rule, vectors: Vectors) -> tuple[list[int], Vectors]:
    """Indexes and vectors of the answer, wrong as the rule says."""
    order = list(range(len(vectors)))
    match rule.wrong:
        case "count":
            return order[:-1], vectors[:-1]
        case "order":
            # a right answer for who looks at `index`, a wrong one for who does not
            return order[::-1], vectors[::-1]
        case "index":
            return [number + 1 for number in order], vectors
        case "dimension":
            return order, vectors[:, :-1]
        case "nan":
            vectors = vectors.copy()
            vectors[0, 0] = np.nan
    return order, vectors
