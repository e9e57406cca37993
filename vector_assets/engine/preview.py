"""What a pipeline would make of some live records: read, decoded, transformed, and nothing written anywhere.

No ledger, no archive and no lease is touched, so it works beside a run of the same pipeline.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine.abilities import Evolving, Numbered, Vetting
from vector_assets.engine.aggregation import Aggregation
from vector_assets.engine.captured import gathered
from vector_assets.engine.compact import compact
from vector_assets.engine.core import (
    KIND,
    POSITION,
    Batch,
    BatchLimit,
    Counts,
    Json,
    Merge,
    Position,
    Sink,
    Source,
    Split,
    Token,
    no_rejects,
)
from vector_assets.engine.decoding import decode
from vector_assets.engine.errors import PlanError, VectorAssetsError
from vector_assets.engine.evolution import evolved
from vector_assets.engine.pipeline import Pipeline
from vector_assets.engine.retry import RetryPolicy, call

_MOST_BYTES = 64 << 20
_POLL_SECONDS = 0.1
_PIECE = 10_000
_PATIENCE = RetryPolicy(retries=0, outage_seconds=2.0)


@dataclass(frozen=True, slots=True)
class Preview:
    """The records and what would become of them.

    `rows` and `deletes` are what the sink would get, `rejected` is as REJECT_SCHEMA; their `_position` is the number of
    the record in `raw`, whose column `split` is an index into `splits`. `doubt` says why the target was not asked.
    """

    raw: pa.Table
    splits: tuple[Split, ...]
    rows: pa.Table
    deletes: pa.Table | None
    rejected: pa.Table
    counts: Counts
    doubt: str | None = None


def preview(
    pipeline: Pipeline, position: Position | None, where: str | None, *, records: int, wait_seconds: float = 0.0,
    state: Sequence[Json] = (), clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Preview:  # fmt: skip
    """Look at up to `records` records from `where` (in the source's words), else from `position`, else from the start.

    Waits up to `wait_seconds` for records that are not there yet. Splits that `where` does not name are left out.
    `state` is how the columns of an evolving pipeline have changed; the changes that these records want are made here,
    without asking the target whether it would go along.

    Raises:
        PositionLostError: the source no longer holds what is asked for.
        TransientError: the source does not answer.
    """
    source = pipeline.open_source()
    try:
        start = dict(position) if position is not None and where is None else _start(source, where)
        reading = _Reading(source, start, pipeline.raw_schema)
        deadline = clock() + wait_seconds
        while reading.count < records:
            if not reading.go_on(records - reading.count):
                if clock() >= deadline:
                    break
                sleep(_POLL_SECONDS)
        raw, splits = reading.taken(records), tuple(reading.splits)
    finally:
        source.close()
    return _shown(_wanted(pipeline, state, raw, splits), raw, splits)


def _wanted(pipeline: Pipeline, state: Sequence[Json], raw: pa.Table, splits: tuple[Split, ...]) -> Pipeline:
    """The pipeline with the columns that it would have after these records."""
    if not (isinstance(pipeline.decoder, Evolving) and pipeline.decoder.evolves):
        return pipeline
    today = evolved(pipeline, state)
    wants = decode(today, raw, splits).wants
    return evolved(pipeline, [*state, *(want.entry for want in wants)]) if wants else today


def newest(source: Source, schema: pa.Schema, records: int) -> tuple[pa.Table, tuple[Split, ...]]:
    """The newest `records` records of all splits together, by their time, newest first; and the splits they name.

    Raises:
        PlanError: the source does not count its records.
        TransientError: the source does not answer.
    """
    if not isinstance(source, Numbered):
        raise PlanError("the newest records can be read only from a source that numbers them, such as kafka")
    oldest, frontier = source.locate("earliest"), source.frontier()
    start = {
        split: source.token(max(source.number(oldest[split]), source.number(end) - records), end)
        for split, end in frontier.items()
    }
    reading = _Reading(source, start, schema)
    while reading.go_on(records * len(start)):
        pass
    found = reading.taken(reading.count)
    order = np.argsort(-found.column("timestamp").cast(pa.int64()).fill_null(0).to_numpy(), kind="stable")
    return found.take(pa.array(order[:records])), tuple(reading.splits)


def pending(
    pipeline: Pipeline, position: Position | None, take: Callable[[pa.Table, tuple[Split, ...]], None], *, records: int
) -> int:  # fmt: skip
    """Hand `take` up to `records` records behind `position` (or the start), in pieces; how many there are in all.

    Raises:
        PositionLostError: the source no longer holds them.
        TransientError: the source does not answer.
    """
    source = pipeline.open_source()
    try:
        start = dict(position) if position is not None else dict(source.start())
        lag = source.lag(start, source.frontier())
        reading = _Reading(source, start, pipeline.raw_schema)
        left = records
        while left > 0 and reading.go_on(min(left, _PIECE)):
            piece = reading.taken(left)
            take(piece, tuple(reading.splits))
            left -= piece.num_rows
            reading.batches.clear()
        return lag
    finally:
        source.close()


def _start(source: Source, where: str | None) -> dict[Split, Token]:
    if where is None:
        return dict(source.start())
    # a place may name some splits only: of the others nothing is wanted
    return {**source.frontier(), **source.locate(where)}


@dataclass(slots=True)
class _Reading:
    """Records read one span after the other; a split keeps its number over spans."""

    source: Source
    position: dict[Split, Token]
    schema: pa.Schema
    splits: list[Split] = field(default_factory=list)
    batches: list[pa.RecordBatch] = field(default_factory=list)
    count: int = 0

    def go_on(self, records: int) -> bool:
        """Read on; False when there is nothing new."""
        limit = BatchLimit(records, _MOST_BYTES)
        span = self.source.plan(self.position, limit)
        if span is None:
            return False
        self.splits += [part.split for part in span.ranges if part.split not in self.splits]
        numbers = np.array([self.splits.index(part.split) for part in span.ranges], np.int16)
        reading = self.source.read(span, limit)
        while True:
            try:
                batch = next(reading)
            except StopIteration as end:
                self.position |= end.value.end
                return True
            at = batch.schema.get_field_index("split")
            split = pa.array(numbers[batch.column(at).to_numpy()])
            self.batches.append(batch.set_column(at, batch.schema.field(at), split))
            self.count += batch.num_rows

    def taken(self, records: int) -> pa.Table:
        """The first `records` of what was read."""
        return gathered(self.batches, self.schema).slice(0, records).combine_chunks()


def _shown(pipeline: Pipeline, raw: pa.Table, splits: tuple[Split, ...]) -> Preview:
    decoded = decode(pipeline, raw, splits)
    if pipeline.aggregation is not None:
        decoded = replace(decoded, rows=_grouped(pipeline, pipeline.aggregation, decoded.rows))
    counts = Counts(
        records=raw.num_rows,
        decoded=raw.num_rows - decoded.rejected.num_rows,
        rejected=decoded.rejected.num_rows,
        rows=decoded.rows.num_rows + decoded.filtered,
        filtered=decoded.filtered,
        nulled=decoded.nulled,
    )
    sink = pipeline.open_sink()
    try:
        rows, deletes, refused, doubt = _handed_over(pipeline, sink, decoded.rows)
    finally:
        sink.close()
    left = rows.num_rows + (deletes.num_rows if deletes is not None else 0)
    counts = replace(
        counts, refused=refused.num_rows, compacted=decoded.rows.num_rows - left, written=left - refused.num_rows
    )
    rows = rows.filter(pc.invert(pc.is_in(rows.column(POSITION), refused.column(POSITION))))
    rejected = pa.concat_tables([decoded.rejected, refused]).sort_by(POSITION)
    return Preview(raw, splits, rows, deletes, rejected, counts, doubt)


def _grouped(pipeline: Pipeline, aggregation: Aggregation, rows: pa.Table) -> pa.Table:
    """The rows of the groups that these records alone would make."""
    with closing(aggregation.open(pipeline.settings.state_memory)) as groups:
        return groups.merge(aggregation.partial(rows), before=True).rows


def _handed_over(
    pipeline: Pipeline, sink: Sink, rows: pa.Table
) -> tuple[pa.Table, pa.Table | None, pa.Table, str | None]:
    """Rows and deletes as the sink would get them, what it would refuse, and why it could not be asked."""
    plain = rows.drop_columns(KIND) if KIND in rows.column_names else rows
    try:
        target = call(
            _PATIENCE,
            lambda: sink.inspect(pipeline.schema, pipeline.sink_table.primary_key),
            place=f"{pipeline.name}: looking at {pipeline.target}",
        )
        folded = compact(rows, target.key) if sink.merge is Merge.LAST else None
        upserts, deletes = (folded.upserts, folded.deletes) if folded else (rows, None)
        refused = sink.vet(Batch(upserts, deletes)) if isinstance(sink, Vetting) else no_rejects()
    except VectorAssetsError as error:
        return plain, None, no_rejects(), str(error)
    return (upserts if folded else plain), deletes, refused, None
