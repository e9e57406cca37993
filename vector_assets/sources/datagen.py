"""Generated rows, for trying a pipeline out: the same row numbers always give the same rows.

The one split is `datagen/0`, its token `{"offset": n, "at": ms}`: the next row's number, and the time that rows up to
there go by where they hold the current time. A row of an unbounded table exists once a run asks for it: the frontier of
a run is `vector-assets.drain.rows` past the place where it starts.
"""

import time
from collections.abc import Callable, Generator
from typing import ClassVar

import numpy as np
import pyarrow as pa

from vector_assets.engine.core import RAW_SCHEMA, BatchLimit, Position, Range, Span, Token
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.schema import Table
from vector_assets.engine.typed import typed_schema
from vector_assets.sources.datagen_options import DatagenOptions, specs
from vector_assets.sources.datagen_values import values

SPLIT = "datagen/0"
_PIECE_ROWS = 10_000
_DRAIN_SECONDS = 10


class DatagenSource:
    """Random and counted rows, no faster than `rows-per-second`."""

    TYPED: ClassVar[bool] = True

    def __init__(
        self, options: DatagenOptions, table: Table, *, pipeline: str = "", clock: Callable[[], float] = time.time
    ) -> None:
        """Nothing is generated yet.

        Raises:
            OptionError: as `check`.
        """
        self._place = pipeline or table.name
        self._specs = specs(options, table)
        self._schema = typed_schema(table)
        self._rate = options.rows_per_second
        counts = [options.number_of_rows, *(spec.count for spec in self._specs)]
        self._total = min((count for count in counts if count is not None), default=None)
        self._drain_rows = options.drain_rows or _DRAIN_SECONDS * self._rate
        self._clock = clock
        self._next_at = 0.0
        self._run_end: int | None = None

    @staticmethod
    def check(options: DatagenOptions, table: Table) -> None:
        """Make sure that the options fit the table.

        Raises:
            OptionError: a field is unknown, or an option has a value that its type cannot have.
        """
        specs(options, table)

    def start(self) -> Position:
        """The first row."""
        return {SPLIT: _token(0)}

    def frontier(self) -> Position:
        """Past the last row of a bounded table; else `{"more": n}`: n rows on from where a run starts."""
        self._run_end = None
        return {SPLIT: _token(self._total) if self._total is not None else {"more": self._drain_rows}}

    def plan(self, start: Position, limit: BatchLimit) -> Span | None:
        """At most a second's rows."""
        begin = _offset(start[SPLIT])
        end = begin + min(limit.rows, self._rate)
        if self._total is not None:
            end = min(end, self._total)
        if limit.until is not None:
            end = min(end, self._end_of_run(begin, limit.until[SPLIT]))
        if end <= begin:
            return None
        return Span((Range(SPLIT, start[SPLIT], _token(end, int(self._clock() * 1000))),))

    def _end_of_run(self, begin: int, until: Token) -> int:
        if not isinstance(until, dict) or "more" not in until:
            return _offset(until)
        if self._run_end is None:
            self._run_end = begin + int(until["more"])
        return self._run_end

    def read(self, span: Span, limit: BatchLimit) -> Generator[pa.RecordBatch, None, Span]:
        """The rows of the span, a piece at a time, at the table's rate; the byte limit ends it early."""
        (part,) = span.ranges
        begin, end = _offset(part.start), _offset(part.end)
        at_ms = part.end["at"] if isinstance(part.end, dict) else 0
        left = limit.bytes
        while begin < end:
            piece = self._piece(begin, min(end, begin + _PIECE_ROWS), at_ms)
            if piece.nbytes > left:
                piece = piece.slice(
                    0, max(piece.num_rows * left // piece.nbytes, 0 if begin > _offset(part.start) else 1)
                )
                end = begin + piece.num_rows
            self._pace(piece.num_rows)
            if piece.num_rows:
                yield piece
            begin += piece.num_rows
            left -= piece.nbytes
        return span if end == _offset(part.end) else Span((Range(SPLIT, part.start, _token(end, at_ms)),))

    def _piece(self, begin: int, end: int, at_ms: int) -> pa.RecordBatch:
        numbers = np.arange(begin, end, dtype=np.uint64)
        kind = self._schema.field("value").type
        rows = pa.StructArray.from_arrays([values(spec, numbers, at_ms) for spec in self._specs], fields=list(kind))
        count = len(numbers)
        columns = {
            "key": pa.nulls(count, pa.binary()),
            "value": rows,
            "headers": pa.nulls(count, RAW_SCHEMA.field("headers").type),
            "timestamp": pa.repeat(pa.scalar(at_ms, pa.int64()), count).cast(RAW_SCHEMA.field("timestamp").type),
            "split": pa.repeat(pa.scalar(0, pa.int16()), count),
            "offset": pa.array(numbers.astype(np.int64)),
        }
        missing = {name: pa.nulls(count, self._schema.field(name).type) for name in self._schema.names}
        return pa.RecordBatch.from_arrays(
            [(missing | columns)[name] for name in self._schema.names], schema=self._schema
        )

    def _pace(self, rows: int) -> None:
        """Wait until so many rows may leave."""
        now = time.monotonic()
        self._next_at = max(self._next_at, now) + rows / self._rate
        time.sleep(max(self._next_at - now - 1, 0))

    def lag(self, position: Position, frontier: Position) -> int:
        """Rows between the two."""
        until = frontier[SPLIT]
        if isinstance(until, dict) and "more" in until:
            return int(until["more"])
        return max(_offset(until) - _offset(position.get(SPLIT)), 0)

    def locate(self, where: str) -> Position:
        """`earliest`, `latest` (the end of a bounded table), or a row's number."""
        word = where.strip().removesuffix("-offset")
        if word == "earliest":
            return self.start()
        if word == "latest" and self._total is not None:
            return {SPLIT: _token(self._total)}
        if word.isdecimal() and (self._total is None or int(word) <= self._total):
            return {SPLIT: _token(int(word))}
        known = (
            f"'earliest', 'latest' or a row from 0 to {self._total}"
            if self._total is not None
            else ("'earliest' or a row's number (the table is unbounded, so it has no latest row)")
        )
        raise ConfigError(f"{self._place}: datagen: a place is {known}, found {where!r}")

    def close(self) -> None:
        """Nothing is open."""


def _offset(token: Token) -> int:
    return int(token["offset"]) if isinstance(token, dict) else 0


def _token(offset: int, at_ms: int = 0) -> Token:
    return {"offset": offset, "at": at_ms}
