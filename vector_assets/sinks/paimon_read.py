"""Rows of a Paimon table as Arrow, in bounded memory."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from vector_assets.clients.paimon import Storage, translated

if TYPE_CHECKING:
    from pypaimon.table.file_store_table import FileStoreTable


def batches_of(storage: Storage, table: "FileStoreTable", schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Every row of the newest snapshot at the first call, in the table's columns and types."""
    with translated(storage.place):
        builder = table.new_read_builder()
        splits = builder.new_scan().plan().splits()
        for batch in builder.new_read().to_arrow_batch_reader(splits, parallelism=1):
            yield from pa.Table.from_batches([batch]).select(schema.names).cast(schema).to_batches()


def keys_filter(storage: Storage, table: "FileStoreTable", schema: pa.Schema, keys: pa.Table) -> pa.Table:
    """The rows that have one of the keys: whole files are left out by their statistics, rows by a join."""
    names = keys.column_names
    if not keys.num_rows:
        return schema.empty_table()
    with translated(storage.place):
        builder = table.new_read_builder()
        predicates = builder.new_predicate_builder()
        limits = []
        for name in names:
            ends = pa.compute.min_max(keys.column(name))
            limits.append(predicates.between(name, ends["min"].as_py(), ends["max"].as_py()))
        builder = builder.with_filter(predicates.and_predicates(limits))
        splits = builder.new_scan().plan().splits()
        found = []
        for batch in builder.new_read().to_arrow_batch_reader(splits, parallelism=1):
            rows = pa.Table.from_batches([batch]).select(schema.names).cast(schema)
            # a semi join of Arrow takes no nested columns: the place of a row stands for it
            places = rows.select(names).append_column("_row", pa.array(range(rows.num_rows), pa.int64()))
            hits = places.join(keys, names, join_type="left semi").column("_row")
            found.append(rows.take(hits.sort()))
    return pa.concat_tables(found) if found else schema.empty_table()
