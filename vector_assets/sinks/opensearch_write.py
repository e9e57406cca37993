"""A batch's documents on their way into an index: bulk requests by size, sent several at a time, answers item by item.

Every document carries a version, so that a request may be sent again: an item that is there already is refused with the
version it has, which tells that it was applied.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vector_assets.clients.opensearch import BLOCKED, Client, MissingError, reason_of
from vector_assets.engine.errors import BudgetError, FencedError, TargetReplacedError, TransientError
from vector_assets.sinks.opensearch_options import OpenSearchOptions
from vector_assets.sinks.opensearch_values import Documents

IN_FLIGHT = 4
"""Requests under way at a time."""
_MOST_BYTES = 32 << 20
_LONGEST_PAUSE_S = 5.0
_CURRENT = re.compile(r"current version \[(\d+)\].*provided \[(\d+)\]")
_DELETED = re.compile(r"\[deleted\]")
_VALUE = re.compile(r"(?:\. )?Preview of field's value: .*|(?<=For input string: ).*|(?<=text: )\[.*?\]", re.DOTALL)
_BUSY = frozenset({429, 500, 502, 503, 504})
_APPLIED, _CONFLICT, _ABSENT = 300, 409, 404
_FILTER = "errors,items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by"
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Work:
    """A batch as documents; `limit` is how many the server may refuse, with `is_replay` later versions win.

    With `is_append` the documents are new ones: one whose id is there was written by an earlier attempt.
    """

    deletes: Documents | None
    upserts: Documents
    limit: int | None
    is_replay: bool
    is_append: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a request's rows: `busy` ones are to be sent again, `doubted` ones apart from each other, for an
    ingest pipeline that asks a model for several texts at once refuses them all because of one, or of one answer."""

    applied: int
    busy: Rows = field(default_factory=lambda: np.zeros(0, np.int64))
    doubted: Rows = field(default_factory=lambda: np.zeros(0, np.int64))
    reason: str = ""


@dataclass(slots=True)
class Landing:
    """One batch's documents being sent; the counts and `refused` (reason by position) say how it went.

    `guard` is asked before each round whether the batch may still be written. With `is_direct` documents do not pass
    the index's own ingest pipeline.
    """

    client: Client
    options: OpenSearchOptions
    guard: Callable[[], None]
    work: Work
    written: int = 0
    deleted: int = 0
    superseded: int = 0
    refused: dict[int, str] = field(default_factory=dict)
    has_pipeline: bool = False
    is_direct: bool = False

    def send(self) -> None:
        """Deletes, then rows; what the server refuses is left out.

        Raises:
            BudgetError: more rows are refused than the batch may lose.
            FencedError: a document has a later version.
            TargetReplacedError: the index is gone.
            TransientError: documents may or may not have been applied; no request is under way any more.
        """
        if self.work.deletes is not None and len(self.work.deletes):
            self.deleted = self._put(self.work.deletes)
        self.written += self._put(self.work.upserts)

    def _put(self, documents: Documents, rows: Rows | None = None) -> int:
        """Send documents; how many of them the index holds now as they are."""
        pending: Rows = np.arange(len(documents)) if rows is None else rows
        applied, attempt, last = 0, 0, ""
        doubted: list[Rows] = []
        while len(pending):
            self.guard()
            again: list[Rows] = []
            for sent, answer in self._sent(documents, pending):
                verdict = self._judge(documents, sent, answer)
                applied += verdict.applied
                again += [verdict.busy] if len(verdict.busy) else []
                doubted += [verdict.doubted] if len(verdict.doubted) else []
                last = verdict.reason or last
            if sum(map(len, again)) == len(pending):
                attempt += 1
                if attempt > self.options.most_retries:
                    raise TransientError(f"{self.client.place}: {len(pending)} documents are not taken: {last}")
                time.sleep(self._pause(attempt))
            pending = np.concatenate(again) if again else pending[:0]
        for group in doubted:
            middle = len(group) - len(group) // 2
            applied += self._put(documents, group[:middle]) + self._put(documents, group[middle:])
        return applied

    def _pause(self, attempt: int) -> float:
        first = self.options.backoff_delay.total_seconds()
        return min(first if self.options.backoff == "CONSTANT" else first * 2 ** (attempt - 1), _LONGEST_PAUSE_S)

    def _sent(self, documents: Documents, rows: Rows) -> Iterator[tuple[Rows, Any]]:
        chunks = list(self._chunks(documents, rows))
        if len(chunks) == 1:
            yield chunks[0], self._bulk(documents, chunks[0])
            return
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            yield from zip(chunks, pool.map(lambda chunk: self._bulk(documents, chunk), chunks), strict=True)

    def _chunks(self, documents: Documents, rows: Rows) -> Iterator[Rows]:
        """Rows of one request each: so many documents, so many bytes."""
        lengths = pa.compute.binary_length(documents.lines).to_numpy(zero_copy_only=False)[rows]
        most_rows = self.options.most_actions if self.options.most_actions > 0 else len(rows)
        ends = np.cumsum(lengths)
        start, sent = 0, 0
        while start < len(rows):
            stop = int(np.searchsorted(ends, sent + (self.options.most_bytes or _MOST_BYTES), side="right"))
            stop = max(start + 1, min(stop, start + most_rows))
            yield rows[start:stop]
            start, sent = stop, int(ends[stop - 1])

    def _bulk(self, documents: Documents, rows: Rows) -> Any:
        params: dict[str, Any] = {"filter_path": _FILTER}
        if self.options.refresh == "wait_for":
            params["refresh"] = "wait_for"
        if self.is_direct:
            params["pipeline"] = "_none"
        path = f"/{self.options.index}/_bulk" if documents.names is None else "/_bulk"
        try:
            return self.client.ask("POST", path, _body(documents.lines, rows), params=params)
        except MissingError as error:
            raise TargetReplacedError(f"{self.client.place} was dropped: {error}") from error

    def _judge(self, documents: Documents, rows: Rows, answer: Any) -> "Verdict":
        """What became of one request's rows."""
        if not answer["errors"]:
            return Verdict(applied=len(rows))
        busy, doubted, applied, last = [], [], 0, ""
        for row, item in zip(rows.tolist(), answer["items"], strict=True):
            (outcome,) = item.values()
            status = outcome["status"]
            if status < _APPLIED or (status == _ABSENT and "error" not in outcome):
                applied += 1
                continue
            kind, reason = reason_of(outcome)
            if status == _CONFLICT:
                applied += self._is_applied(reason)
            elif status == _ABSENT and kind == "index_not_found_exception":
                raise TargetReplacedError(f"{self.client.place} was dropped")
            elif status in _BUSY or kind in BLOCKED:
                busy.append(row)
                last = f"{status} {reason}"
            elif self.has_pipeline and len(rows) > 1:
                doubted.append(row)
            else:
                self._refuse(int(documents.positions[row].as_py()), reason)
        return Verdict(applied, np.array(busy, np.int64), np.array(doubted, np.int64), last)

    def _is_applied(self, reason: str) -> bool:
        """True when the document has this very version; a later one is counted in a replay.

        Raises:
            FencedError: a later version, and this is no replay.
        """
        if self.work.is_append:
            return True
        found = _CURRENT.search(reason)
        if found and found[1] == found[2]:
            return True
        if not self.work.is_replay:
            raise FencedError(
                f"{self.client.place}: a document has a later version than this batch gives it"
                f" ({found[1] if found else 'unknown'}): somebody else writes this index, or did"
            )
        self.superseded += 1
        return False

    def _refuse(self, position: int, reason: str) -> None:
        self.refused[position] = _VALUE.sub("...", reason)
        if self.work.limit is not None and len(self.refused) > self.work.limit:
            raise BudgetError(
                f"{self.client.place}: the server refuses more rows than the {self.work.limit} this batch may lose; the"
                f" last: {self.refused[position]}"
            )


def _body(lines: pa.Array, rows: Rows) -> bytes:
    """The lines of these rows, one after another."""
    picked: Sequence[Any] = lines.take(pa.array(rows))
    one = pa.ListArray.from_arrays(pa.array([0, len(rows)], pa.int32()), picked)
    return bytes(pa.compute.binary_join(one, pa.scalar("", lines.type))[0].as_buffer())
