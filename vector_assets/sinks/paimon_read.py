"""Rows of a Paimon table as Arrow, in bounded memory."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.clients.paimon import Storage, translated
from vector_assets.sinks import pruning

if TYPE_CHECKING:
    from pypaimon.read.split import Split
    from pypaimon.table.file_store_table import FileStoreTable


def batches_of(
    storage: Storage, table: "FileStoreTable", schema: pa.Schema, where: pc.Expression | None = None
) -> Iterator[pa.RecordBatch]:  # fmt: skip
    """Every row of the newest snapshot at the first call, in the columns of `schema` and its types; without partitions
    that hold no row for `where`."""
    with translated(storage.place):
        builder = table.new_read_builder().with_projection(schema.names)
        splits = builder.new_scan().plan().splits()
        known = [_known(split, schema) for split in splits]
        chosen = [splits[number] for number in pruning.possible(known, schema, where)]
        for batch in builder.new_read().to_arrow_batch_reader(chosen, parallelism=1):
            yield from pa.Table.from_batches([batch]).select(schema.names).cast(schema).to_batches()


def _known(split: "Split", schema: pa.Schema) -> pc.Expression | None:
    """What a split's partition says of its rows."""
    values = zip(split.partition.fields, split.partition.values, strict=True)
    return pruning.every(
        [
            pruning.equal(field.name, pa.scalar(value, schema.field(field.name).type))
            for field, value in values
            if field.name in schema.names and _is_plain(schema.field(field.name).type)
        ]
    )


def _is_plain(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_date32(kind))


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
