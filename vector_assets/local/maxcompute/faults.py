"""Answers that go wrong on purpose: rules that a test sets, each for so many requests."""

import re
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any

from vector_assets.local.maxcompute.http import Request
from vector_assets.local.maxcompute.refusal import Refusal, invalid

_CODES = {
    308: "SlotReassigned",
    408: "RequestTimeout",
    429: "FlowExceeded",
    500: "InternalServerError",
    502: "BadGatewayError",
    503: "ServiceUnavailable",
    504: "GatewayTimeout",
}
CUT_BEFORE, CUT_AFTER, CUT_BODY = "before", "after", "body"
"""The connection ends before the request is handled, after it but without an answer, or in the middle of the answer."""


@dataclass
class Rule:
    """What happens to requests whose method and address (path and query) match, after `skip` of them, `times` times."""

    target: str = ""
    method: str = ""
    status: int = 0
    code: str = ""
    message: str = "a fault that was asked for"
    location: str = ""
    delay_s: float = 0.0
    cut: str = ""
    skip: int = 0
    times: int = 1
    hits: int = 0

    def __post_init__(self) -> None:
        if self.cut not in {"", CUT_BEFORE, CUT_AFTER, CUT_BODY}:
            raise invalid(f"cut is {self.cut!r}; known: {CUT_BEFORE}, {CUT_AFTER}, {CUT_BODY}")
        try:
            re.compile(self.target)
        except re.error as error:
            raise invalid(f"target {self.target!r} is no regular expression: {error}") from error

    def matches(self, request: Request) -> bool:
        """True when the rule is about such requests."""
        return self.method in {"", request.method} and re.search(self.target, request.target) is not None


class Faults:
    """The rules there are; the first that applies to a request is used up by it."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._lock = threading.Lock()

    def add(self, body: dict[str, Any]) -> None:
        """A rule by its fields.

        Raises:
            Refusal: a field is unknown or wrong.
        """
        known = set(asdict(Rule())) - {"hits"}
        unknown = set(body) - known
        if unknown:
            raise invalid(f"unknown field {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")
        with self._lock:
            self._rules.append(Rule(**body))

    def clear(self) -> None:
        """Forget all rules."""
        with self._lock:
            self._rules.clear()

    def rules(self) -> list[dict[str, Any]]:
        """The rules with how often each was used."""
        with self._lock:
            return [asdict(rule) for rule in self._rules]

    def next(self, request: Request) -> Rule | None:
        """The rule for a request, or None; its delay has passed."""
        with self._lock:
            found = None
            for rule in self._rules:
                if found is None and rule.matches(request) and rule.times > 0:
                    if rule.skip > 0:
                        rule.skip -= 1
                        continue
                    rule.times -= 1
                    rule.hits += 1
                    found = rule
        if found and found.delay_s:
            time.sleep(found.delay_s)
        return found


def refusal_of(rule: Rule, address: str) -> Refusal:
    """The answer of a rule with a status."""
    headers = {"odps-tunnel-routed-server": rule.location or address} if rule.status == 308 else {}
    code = rule.code or _CODES.get(rule.status, "InvalidArgument")
    return Refusal(rule.status, code, rule.message, headers)
