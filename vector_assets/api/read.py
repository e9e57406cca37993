"""A declared table as a source: batches of records, decoded as a pipeline would."""

import logging
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from vector_assets.declare.flink_single import TableReader
from vector_assets.engine.core import POSITION, BatchLimit, Counts, Position, Source, Span
from vector_assets.engine.decoding import decode
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.retry import RetryPolicy, call
from vector_assets.engine.run import collect

log = logging.getLogger(__name__)

_MOST_BYTES = 64 << 20
_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class ReadBatch:
    """What a range of a source's records became.

    `rows` holds the declared table's columns, and `_kind` (int8, Flink's row kinds) where the format is a changelog.
    `rejected` holds the records that could not be read: `split`, `offset`, `timestamp`, `key`, `value` (the raw bytes),
    `headers`, `stage`, `error`. `position` is JSON and goes on after this batch when it is handed back as `start`.
    """

    rows: pa.Table
    rejected: pa.Table
    position: dict[str, Any]
    span: Span
    counts: Counts

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The rows, for everything that takes Arrow: `pa.table(batch)`, `sink.write(batch)`."""
        return self.rows.__arrow_c_stream__(requested_schema)


@dataclass
class TableSource:
    """A declared table as a source, for one thread at a time; close it, or use it as a context manager."""

    table: TableReader
    _stop: threading.Event = field(default_factory=threading.Event, init=False)
    _source: Source | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        for report in self.table.reports:
            log.info("%s", report)

    @property
    def schema(self) -> pa.Schema:
        """Every column of the table; a changelog's rows have `_kind` besides."""
        return self.table.schema

    def batches(
        self, start: Position | str | None = None, until: Position | str | None = None, *, max_rows: int = 50_000,
        follow: bool = False,
    ) -> Iterator[ReadBatch]:  # fmt: skip
        """Batch after batch of at most `max_rows` records (and 64 MB), decoded as a pipeline would.

        `start`: a position, or a place in the source's words (`earliest`, `latest`, for Kafka `0:1200`); by default the
        table's own start option. `until`: the same, by default the end that the source has now. Splits that a place
        does not name are not read. With `follow` there is no end until `stop` is called.

        Raises:
            ConfigError: a place is not understood.
            PositionLostError: the source no longer holds what comes next.
            TransientError: the source does not answer.
        """
        if max_rows < 1:
            raise ConfigError(f"{self._place}: max_rows is {max_rows}, want 1 or more")
        if follow and until is not None:
            raise ConfigError(f"{self._place}: follow has no end, so leave out until={until!r}")
        return self._batches(start, until, max_rows, follow=follow)

    def stop(self) -> None:
        """End `batches` after the batch in hand; any thread may ask."""
        self._stop.set()

    def close(self) -> None:
        """Give back connections; idempotent."""
        source, self._source = self._source, None
        if source is not None:
            source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def _place(self) -> str:
        return f"table {self.table.table.name}"

    @property
    def _policy(self) -> RetryPolicy:
        return RetryPolicy(stop=self._stop)

    def _batches(
        self, start: Position | str | None, until: Position | str | None, max_rows: int, *, follow: bool
    ) -> Iterator[ReadBatch]:
        self._stop.clear()
        source = self._source = self._source or self.table.open()
        position = dict(call(self._policy, lambda: _begin(source, start), place=f"{self._place}: finding the start"))
        end = None if follow else call(self._policy, lambda: _end(source, until), place=f"{self._place}: asking")
        limit = BatchLimit(max_rows, _MOST_BYTES, end)
        while not self._stop.is_set():
            span = call(self._policy, partial(source.plan, position, limit), place=f"{self._place}: planning")
            if span is not None:
                batch = self._read(source, span, limit, position)
                position = dict(batch.position)
                yield batch
            elif not follow or self.table.options.is_finished(position):
                return
            else:
                self._stop.wait(_POLL_SECONDS)

    def _read(self, source: Source, span: Span, limit: BatchLimit, position: Mapping[str, Any]) -> ReadBatch:
        schema = self.table.raw_schema
        reading = f"{self._place}: reading {span.short()}"
        raw, read = call(self._policy, lambda: collect(source.read(span, limit), schema), place=reading)
        splits = [part.split for part in read.ranges]
        # a decoder may ask a service, such as a schema registry
        decoded = call(self._policy, lambda: decode(self.table, raw, splits), place=f"{self._place}: decoding")
        places = decoded.rejected.column(POSITION)
        records = raw.take(places)
        rejected = {
            "split": pa.array(splits, pa.string()).take(records.column("split").combine_chunks()),
            **{name: records.column(name) for name in ("offset", "timestamp", "key", "value", "headers")},
            "stage": decoded.rejected.column("stage"),
            "error": decoded.rejected.column("error"),
        }
        counts = Counts(
            records=raw.num_rows, bytes=raw.nbytes, decoded=raw.num_rows - len(places), rejected=len(places),
            rows=decoded.rows.num_rows, nulled=decoded.nulled,
        )  # fmt: skip
        rows = decoded.rows.drop_columns(POSITION)
        return ReadBatch(rows, pa.table(rejected), {**position, **read.end}, read, counts)


def _begin(source: Source, start: Position | str | None) -> Position:
    if start is None:
        return source.start()
    return {**source.frontier(), **source.locate(start)} if isinstance(start, str) else start


def _end(source: Source, until: Position | str | None) -> Position:
    if until is None or until == "latest":
        return source.frontier()
    return source.locate(until) if isinstance(until, str) else until
