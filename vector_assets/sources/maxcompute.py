"""MaxCompute as a source: partitions as splits, read through snapshots so that a range always gives the same rows.

Full mode: which partitions are read is settled once, when a pipeline starts; when they are read, it is finished. The
tunnel serves rows by number; with `useArrow` the storage API serves them in splits of a session. Tokens are described
in `maxcompute_tokens`.
"""

import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pyarrow as pa

from vector_assets.clients.maxcompute import MaxPartition
from vector_assets.clients.maxcompute_partitions import chosen, exact_prefix, listed
from vector_assets.engine.abilities import Finding, SourcePartition
from vector_assets.engine.core import BatchLimit, Position, Range, Span, Split, Token, canonical
from vector_assets.engine.errors import ConfigError, PlanError
from vector_assets.engine.schema import Table
from vector_assets.engine.typed import typed_schema
from vector_assets.sources.maxcompute_options import MaxComputeSourceOptions
from vector_assets.sources.maxcompute_parts import Parts
from vector_assets.sources.maxcompute_prune import Condition, pruned
from vector_assets.sources.maxcompute_start import key_of
from vector_assets.sources.maxcompute_tokens import Place, ceiling, counted, estimate, split_of

__all__ = ["MaxComputeSource", "MaxComputeSourceOptions"]

_AT = re.compile(r"(.+):(\d{1,18})")


class MaxComputeSource:
    """The partitions that the option `partition` means, or a table without partitions.

    `conditions` are met by every row that is wanted: those that read partition columns only leave out partitions. The
    declared columns are all that is asked for.
    """

    def __new__(cls, options: MaxComputeSourceOptions, *_: object, **__: object) -> "MaxComputeSource":
        """With startPartition, the source that follows the table."""
        if cls is MaxComputeSource and options.start_partition is not None:
            from vector_assets.sources.maxcompute_incremental import IncrementalSource

            return super().__new__(IncrementalSource)
        return super().__new__(cls)

    TYPED: ClassVar[bool] = True
    PRUNES: ClassVar[bool] = True

    def __init__(
        self, options: MaxComputeSourceOptions, table: Table, *, pipeline: str = "",
        conditions: Sequence[Condition] = (),
    ) -> None:  # fmt: skip
        self._options = options
        self._declared = table
        self._where = f"{pipeline or table.name}: maxcompute: {options.full_name}"
        self._conditions = tuple(conditions)
        self._schema = typed_schema(table)
        self._parts = Parts(options, table)
        self._parts.service.import_client()

    def start(self) -> Position:
        """The first row of every partition that is wanted now.

        Raises:
            PlanError: no partition matches, or more than `maxPartitionCount`; the table cannot be read as declared.
            ConfigError: the table has partitions and the options name none, or the other way round.
        """
        return {split: _beginning(rows, size).token for split, rows, size in self._wanted()}

    def frontier(self) -> Position:
        """Past the last row of every partition that is wanted now, by the service's statistics."""
        return {split: estimate(rows) for split, rows, _ in self._wanted()}

    def _wanted(self) -> Iterator[tuple[Split, int, int]]:
        """Split, rows and bytes (-1: unknown) of what is read."""
        table = self._parts.table(now=not self._parts.is_known_partitioned)
        if not table.is_partitioned:
            if self._options.partition is not None:
                raise ConfigError(f"{self._where}: the table has no partitions: leave out the option 'partition'")
            yield split_of(table.name, None), table.rows, table.bytes
            return
        for part in self._matching():
            yield split_of(table.name, part.spec), part.rows, part.bytes

    def _matching(self) -> list[MaxPartition]:
        table, text = self._parts.table(), self._options.partition
        if text is None:
            levels = ", ".join(level.name for level in table.levels)
            raise ConfigError(
                f"{self._where}: the table is partitioned by {levels}: set the option 'partition' to read partitions"
                f" that are there ({table.levels[0].name}=...), or 'startPartition' to read new ones as they come"
            )
        there = self._parts.service.partitions(table, exact_prefix(text, table))
        matching = chosen(text, table, there)
        if not matching:
            everything = self._parts.service.partitions(table)
            raise PlanError(f"{self._where}: no partition matches 'partition' = '{text}'; {listed(everything)}")
        found = pruned(table, self._declared, self._conditions, matching)
        most = self._options.max_partition_count
        if len(found) > most:
            raise PlanError(
                f"{self._where}: The number of matched partitions exceeds the default limit: {len(found)} partitions"
                f" match 'partition' = '{text}', maxPartitionCount is {most}"
            )
        return found

    def partitions(self) -> tuple[SourcePartition, ...]:
        """Every partition of the table, by its values; those that the options do not mean are not wanted."""
        table = self._parts.table()
        if not table.is_partitioned:
            # which says what is wrong if the options name partitions
            list(self._wanted())
            return ()
        wanted = {part.spec for part in self._matching()}
        return tuple(
            SourcePartition(
                key=key_of(part.spec),
                frontier={split_of(table.name, part.spec): estimate(part.rows)} if part.spec in wanted else {},
                waits=None if part.spec in wanted else f"is not meant by 'partition' = '{self._options.partition}'",
                is_wanted=part.spec in wanted,
                rows=part.rows,
                modified_ms=part.modified * 1000,
            )
            for part in self._parts.service.partitions(table)
        )

    def newest(self, partitions: Sequence[SourcePartition]) -> SourcePartition | None:
        """As max_pt(): the last by value that has rows."""
        return next((each for each in reversed(partitions) if each.rows != 0), None)

    def plan(self, start: Position, limit: BatchLimit) -> Span | None:
        """The next rows of the first partitions that are not read to their end.

        A frontier is no ceiling: it is made of statistics, and the partitions' sessions know where they end.
        """
        ranges: list[Range] = []
        left = limit.rows
        for split in sorted(start):
            place = Place.of(start[split])
            most = ceiling(limit.until, split, place)
            if place.is_done or most <= 0:
                continue
            if left <= 0:
                break
            begun = self._parts.begun(split, place)
            count = min(left, most if begun.until is None else min(begun.until - begun.offset, most))
            end = replace(begun, offset=begun.offset + count, part=None, row=None)
            ranges.append(Range(split, start[split], end.token))
            left -= count
        return Span(tuple(ranges)) if ranges else None

    def read(self, span: Span, limit: BatchLimit) -> Generator[pa.RecordBatch, None, Span]:
        """The rows of the span; it ends early where the bytes are used up, or where a storage session has no more."""
        left = limit.bytes
        ends: list[Range] = []
        for number, part in enumerate(span.ranges):
            start, planned = Place.of(part.start), Place.of(part.end)
            if number and left <= 0:
                ends.append(Range(part.split, part.start, part.start))
                continue
            here = self._parts.begun(part.split, _in_session(start, planned))
            is_empty = True
            for rows, after in self._parts.read(part.split, here, planned.offset - start.offset, left):
                yield self._raw(rows, number, after.offset - rows.num_rows)
                left -= rows.nbytes
                here, is_empty = after, False
            if is_empty and planned.offset > start.offset:
                here = here.done()
            ends.append(Range(part.split, part.start, _settled(planned, here)))
        return Span(tuple(ends))

    def _raw(self, rows: pa.RecordBatch, number: int, first: int) -> pa.RecordBatch:
        """Records of the split with this number in the span; `first` is the place of the first row."""
        count = rows.num_rows
        kind = self._schema.field("value").type
        columns = {
            "value": pa.StructArray.from_arrays(rows.columns, fields=list(kind)),
            "split": pa.repeat(pa.scalar(number, pa.int16()), count),
            "offset": pa.array(np.arange(first, first + count, dtype=np.int64)),
        }
        arrays = [columns.get(field.name) for field in self._schema]
        filled = [
            pa.nulls(count, field.type) if array is None else array
            for array, field in zip(arrays, self._schema, strict=True)
        ]
        return pa.RecordBatch.from_arrays(filled, schema=self._schema)

    def lag(self, position: Position, frontier: Position) -> int:
        """Rows between the two; at least 1 for a partition that is not read to its end."""
        return counted(position, frontier)

    def locate(self, where: str) -> Position:
        """`earliest`, `latest` (all that is wanted now is read), or `<partition>:<row>`, several joined by `;`.

        Which partitions are read is settled anew; those that the last form does not name are read from their beginning.
        """
        word = where.strip().removesuffix("-offset")
        wanted = list(self._wanted())
        if word == "earliest":
            return {split: _beginning(rows, size).token for split, rows, size in wanted}
        if word == "latest":
            return {split: Place(max(rows, 0), max(rows, 0)).token for split, rows, _ in wanted}
        found = {split: _beginning(rows, size).token for split, rows, size in wanted}
        table = self._parts.table()
        for part in where.split(";"):
            match = _AT.fullmatch(part.strip())
            split = split_of(table.name, match[1] if table.is_partitioned else None) if match else None
            if match is None or split not in found:
                known = ", ".join(split.partition("/")[2] or split for split in list(found)[:5])
                raise ConfigError(
                    f"{self._where}: a place is 'earliest', 'latest' or '<partition>:<row>[;...]', found {where!r};"
                    f" partitions that are read: {known}"
                )
            found[split] = Place(int(match[2])).token
        return found

    def number(self, token: Token) -> int:
        """The number of the next row in its partition."""
        return Place.of(token).offset

    def token(self, number: int, before: Token) -> Token:
        """The token of another row of the partition, in the same session."""
        return replace(Place.of(before), offset=number, part=None, row=None).token

    def diagnose(self) -> Iterator[Finding]:
        """The table, its columns, and what the options match."""
        table = self._parts.table(now=True)
        yield Finding("ok", f"{self._where} answers at {self._options.endpoint}; its columns fit the declaration")
        wanted = list(self._wanted())
        known = [rows for _, rows, _ in wanted if rows >= 0]
        what = f"{len(wanted)} partitions match" if table.is_partitioned else "a table without partitions"
        yield Finding("ok", f"{self._where}: {what}, {sum(known):,} rows by the service's statistics")

    def close(self) -> None:
        """Give back connections; idempotent."""
        self._parts.close()


def _beginning(rows: int, size: int) -> Place:
    """The first row; of what is known to be empty, its end."""
    return Place(until=0) if rows == 0 and size == 0 else Place()


def _in_session(start: Place, planned: Place) -> Place:
    """The start of a range with what its end knows of the session."""
    return replace(start, session=planned.session, until=planned.until, modified=planned.modified, parts=planned.parts)


def _settled(planned: Place, read: Place) -> Token:
    """The end as read; where it is the planned one in all but the session, the planned one, so that its name stays."""
    is_same = canonical(replace(read, session=planned.session).token) == canonical(planned.token)
    return planned.token if is_same else read.token
