"""A batch's rows on their way into a collection: requests made ahead, sent several at a time, bad rows found alone.

Keys are unique in a batch, so requests may land in any order. When the server refuses a request its rows are tried in
halves until a bad one stands alone; writing a row again changes nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from vector_assets.clients.milvus import RefusedError
from vector_assets.engine.errors import BudgetError, FatalError
from vector_assets.engine.retry import RetryPolicy
from vector_assets.sinks.milvus_plan import Plan
from vector_assets.sinks.milvus_values import Columns

if TYPE_CHECKING:
    from vector_assets.clients.milvus_api import Api
    from vector_assets.clients.milvus_requests import Write

IN_FLIGHT = 4
"""Requests under way at a time."""
_MOST_BYTES = 32 * 1024**2
"""Most bytes of rows in a request, however few rows that is: servers take messages of 64 MB."""
_TELLING_ROWS = 16
"""A request of so many rows of which each is refused alone is refused for another reason than its rows."""


@dataclass(frozen=True, slots=True)
class Step:
    """Requests that may land in any order; `make` makes one for other rows of `positions`."""

    positions: pa.Array
    make: "Callable[[range], Write]"
    writes: "tuple[Write, ...]"


@dataclass(frozen=True, slots=True)
class Requests:
    """A batch as requests: what goes before, and the rows; `limit` is how many the server may refuse."""

    deletes: Step | None
    clearing: Step | None
    rows: Step
    limit: int | None


def requests_of(plan: Plan, upserts: Columns, deletes: Columns | None, flush_rows: int, limit: int | None) -> Requests:
    """Every request of a batch, encoded."""
    from vector_assets.clients import milvus_requests

    put = milvus_requests.inserts if plan.replaces else milvus_requests.upserts
    # servers refuse to be told a partition when they choose it
    rows = _step(upserts, flush_rows, lambda chunk: put(plan.name, upserts.fields, chunk, plan.partition))
    removing, clearing = None, None
    if deletes is not None and len(deletes):
        keys = deletes.array(plan.key)
        removing = _step(deletes, flush_rows, _remover(plan, keys))
    if plan.replaces and len(upserts):
        clearing = _step(upserts, flush_rows, _remover(plan, upserts.array(plan.key)))
    return Requests(removing, clearing, rows, limit)


def _remover(plan: Plan, keys: pa.Array) -> "Callable[[range], Write]":
    from vector_assets.clients import milvus_requests

    return lambda chunk: milvus_requests.deletes(plan.name, plan.key, keys, chunk, plan.partition)


def _step(columns: Columns, flush_rows: int, make: "Callable[[range], Write]") -> Step:
    count = len(columns)
    size = sum(array.nbytes for _, array in columns.fields) // max(count, 1)
    rows = max(1, min(flush_rows, _MOST_BYTES // max(size, 1)))
    chunks = (range(start, min(start + rows, count)) for start in range(0, count, rows))
    return Step(columns.positions, make, tuple(make(chunk) for chunk in chunks))


@dataclass(slots=True)
class Landing:
    """One batch's requests being sent; the counts and `refused` (reason by position) say how it went."""

    api: "Api"
    place: str
    limit: int | None
    retry: RetryPolicy
    written: int = 0
    deleted: int = 0
    refused: dict[int, str] = field(default_factory=dict)

    def send(self, requests: Requests) -> None:
        """Deletes first, then rows; what the server refuses is left out.

        Raises:
            BudgetError: more rows are refused than the batch may lose.
            FatalError: the server refuses every row, or to remove one.
            TransientError: a request may or may not have been applied; no request is under way any more.
        """
        if requests.deletes:
            self.deleted = len(requests.deletes.positions) - self._put(requests.deletes)
        if requests.clearing:
            for _, error in self._sent(requests.clearing.writes):
                raise error
        self.written = len(requests.rows.positions) - self._put(requests.rows)

    def _sent(self, writes: "Sequence[Write]") -> "list[tuple[Write, RefusedError]]":
        """Send requests, those that meet a rate limit again unless none gets through for long; what is refused."""
        refused, pending, stuck = [], list(writes), 0
        while pending:
            limited = []
            for write, error in self.api.write(pending, IN_FLIGHT):
                if isinstance(error, RefusedError):
                    refused.append((write, error))
                else:
                    limited.append((write, error))
            if limited:
                last = limited[-1][1]
                stuck = stuck + 1 if len(limited) == len(pending) else 0
                if stuck > self.retry.retries or self.retry.stop.wait(last.retry_after):
                    raise last
            pending = [write for write, _ in limited]
        return refused

    def _put(self, step: Step) -> int:
        """Send a step; how many of its rows are refused."""
        return sum(self._isolate(step, write.rows, error) for write, error in self._sent(step.writes))

    def _isolate(self, step: Step, rows: range, error: RefusedError) -> int:
        """Find the rows a refused request owes it to; how many they are."""
        if len(rows) == 1:
            self._refuse(step.positions[rows.start].as_py(), error)
            return 1
        half = len(rows) // 2
        halves = [step.make(part) for part in (rows[:half], rows[half:])]
        count = sum(self._isolate(step, write.rows, reason) for write, reason in self._sent(halves))
        if count == len(rows) >= _TELLING_ROWS:
            raise FatalError(f"{self.place}: the server refuses every row: {error}") from error
        return count

    def _refuse(self, position: int, error: RefusedError) -> None:
        self.refused[position] = str(error)
        if self.limit is not None and len(self.refused) > self.limit:
            raise BudgetError(
                f"{self.place}: the server refuses more rows than the {self.limit} this batch may lose; the last:"
                f" {error}"
            )
