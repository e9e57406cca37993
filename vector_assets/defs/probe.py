"""How far behind a pipeline is, asked without ever waiting long for a service that does not answer.

Sensors and checks share one connection per declaration, kept between ticks: opening one costs more than the question.
"""

import threading
import time
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from vector_assets.engine.abilities import Listing, SourcePartition, partitioned
from vector_assets.engine.core import Position, Source
from vector_assets.engine.errors import UnavailableError, VectorAssetsError
from vector_assets.engine.pipeline import Pipeline

TIMEOUT_SECONDS = 2.0
KEPT = 64
"""Connections kept at most; the one that was not asked for longest is given back."""

_probes: "OrderedDict[tuple[str, str], Probe]" = OrderedDict()
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class _Answer:
    source: Source
    start: Position
    frontier: Position
    partitions: tuple[SourcePartition, ...] = ()
    newest: SourcePartition | None = None


@dataclass(frozen=True, slots=True)
class Partitions:
    """The partitions of a source in the order in which they are read, and which of them it calls the newest."""

    all: tuple[SourcePartition, ...]
    newest: SourcePartition | None


class Probe:
    """The source of one pipeline behind a thread of its own: one question at a time, each answered in time or not."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._source: Source | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"probe-{pipeline.name}")
        self._asked: Future[_Answer] | None = None
        self._asked_at = 0.0

    def lag(self, position: Position | None, timeout_seconds: float = TIMEOUT_SECONDS) -> int:
        """Records between the position (None: where a new pipeline would start) and the source's frontier.

        Raises:
            UnavailableError: no answer within the timeout; a late one is thrown away.
        """
        answer = self._answer(timeout_seconds, is_new=position is None)
        return answer.source.lag(answer.start if position is None else position, answer.frontier)

    def partitions(self, timeout_seconds: float = TIMEOUT_SECONDS) -> Partitions:
        """The partitions of a source that has its own; none of another.

        Raises:
            UnavailableError: no answer within the timeout; a late one is thrown away.
        """
        answer = self._answer(timeout_seconds, is_new=False)
        return Partitions(answer.partitions, answer.newest)

    def _answer(self, timeout_seconds: float, *, is_new: bool) -> _Answer:
        if self._asked is None or self._asked.done():
            self._asked = self._thread.submit(self._ask, is_new=is_new)
            self._asked_at = time.monotonic()
        try:
            return self._asked.result(max(0.0, self._asked_at + timeout_seconds - time.monotonic()))
        except TimeoutError:
            waited = time.monotonic() - self._asked_at
            raise UnavailableError(f"{self._pipeline.name}: the source has not answered for {waited:.1f} s") from None

    def close(self) -> None:
        """Give back the connection, after the question that is under way."""
        self._thread.submit(self._disconnect)
        self._thread.shutdown(wait=False)

    def _ask(self, *, is_new: bool) -> "_Answer":
        try:
            if self._source is None:
                self._source = self._pipeline.open_source()
            source = self._source
            start = source.start() if is_new else {}
            if not isinstance(source, Listing) or not partitioned(self._pipeline.source_options):
                return _Answer(source, start, source.frontier())
            found = source.partitions()
            frontier = {split: token for each in found for split, token in each.frontier.items()}
            return _Answer(source, start, frontier, found, source.newest(found))
        except VectorAssetsError:
            self._disconnect()
            raise

    def _disconnect(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            source.close()


def of(pipeline: Pipeline) -> Probe:
    """The pipeline's probe, the same one as long as its declaration is the same."""
    key = (pipeline.name, pipeline.fingerprint)
    with _lock:
        if key not in _probes:
            _probes[key] = Probe(pipeline)
        _probes.move_to_end(key)
        while len(_probes) > KEPT:
            _probes.popitem(last=False)[1].close()
        return _probes[key]


def forget() -> None:
    """Give back every connection."""
    with _lock:
        while _probes:
            _probes.popitem()[1].close()
