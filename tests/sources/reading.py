"""How tests read a source: whole spans as tables."""

import pyarrow as pa

from vector_assets.engine.core import RAW_SCHEMA, BatchLimit, Position, Source, Span

NO_LIMIT = BatchLimit(1 << 40, 1 << 40)


def read(source: Source, span: Span, limit: BatchLimit = NO_LIMIT) -> tuple[pa.Table, Span]:
    """Everything a span gives, and the span as read."""
    reading = source.read(span, limit)
    batches: list[pa.RecordBatch] = []
    while True:
        try:
            batches.append(next(reading))
        except StopIteration as end:
            schema = batches[0].schema if batches else RAW_SCHEMA
            return pa.Table.from_batches(batches, schema), end.value


def drain(source: Source, position: Position, limit: BatchLimit = NO_LIMIT) -> tuple[list[pa.Table], Position]:
    """Batch after batch until nothing is new; the position after them."""
    tables = []
    here = dict(position)
    while (span := source.plan(here, limit)) is not None:
        table, span = read(source, span, limit)
        tables.append(table)
        here |= span.end
    return tables, here


def values(table: pa.Table) -> list[bytes | None]:
    return table.column("value").to_pylist()


def places(table: pa.Table) -> list[tuple[int, int]]:
    """(split, offset) of every record."""
    return list(zip(table.column("split").to_pylist(), table.column("offset").to_pylist(), strict=True))
