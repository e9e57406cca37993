"""Rows of a Paimon table as Arrow, in bounded memory."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.clients.paimon import Storage, translated
from vector_assets.sinks import pruning

if TYPE_CHECKING:
    from pypaimon.manifest.schema.data_file_meta import DataFileMeta
    from pypaimon.read.split import DataSplit
    from pypaimon.schema.data_types import DataField
    from pypaimon.table.file_store_table import FileStoreTable


def batches_of(
    storage: Storage, table: "FileStoreTable", schema: pa.Schema, where: pc.Expression | None = None
) -> Iterator[pa.RecordBatch]:  # fmt: skip
    """Every row of the newest snapshot at the first call, in the columns of `schema` and its types; without files that
    hold no row for `where`."""
    with translated(storage.place):
        builder = table.new_read_builder().with_projection(schema.names)
        splits = builder.new_scan().plan().splits()
        chosen = splits if where is None else _needed(table, splits, schema, where)
        for batch in builder.new_read().to_arrow_batch_reader(chosen, parallelism=1):
            yield from pa.Table.from_batches([batch]).select(schema.names).cast(schema).to_batches()


def _needed(
    table: "FileStoreTable", splits: "list[DataSplit]", schema: pa.Schema, where: pc.Expression
) -> "list[DataSplit]":  # fmt: skip
    """The splits without files whose partition and statistics speak against `where`."""
    from vector_assets.sinks.paimon_manifests import live

    # the plan of a scan drops the statistics; a file of another snapshot is one of which nothing is known
    latest = table.snapshot_manager().get_latest_snapshot()
    metas = {entry.file.file_name: entry.file for entry in live(table, latest)} if latest is not None else {}
    columns = {field.id: field.name for field in table.table_schema.fields}
    parts = [(split, file) for split in splits for file in split.files]
    known = [
        pruning.every([*_of_partition(split, schema), *_of_file(split, metas.get(file.file_name), columns, schema)])
        for split, file in parts
    ]
    kept = {parts[number][1].file_name for number in pruning.possible(known, schema, where)}
    left = (split.filter_file(lambda file: file.file_name in kept) for split in splits)
    return [split for split in left if split is not None]


def _of_partition(split: "DataSplit", schema: pa.Schema) -> list[pc.Expression]:
    """What a split's partition says of its rows."""
    values = zip(split.partition.fields, split.partition.values, strict=True)
    return [
        pruning.equal(field.name, pa.scalar(value, schema.field(field.name).type))
        for field, value in values
        if field.name in schema.names and _is_plain(schema.field(field.name).type)
    ]


def _of_file(
    split: "DataSplit", file: "DataFileMeta | None", columns: dict[int, str], schema: pa.Schema
) -> list[pc.Expression]:
    """What a file's statistics say of its rows; of its keys only where rows of several files are one row.

    A file left out for the newer value of a row would bring the older one back; its key is the same in every file.
    """
    if file is None or file.write_cols is not None or file.first_row_id is not None:
        return []
    stats = file.value_stats if split.raw_convertible else file.key_stats
    found = []
    for place, field in enumerate(stats.min_values.fields):
        name = columns.get(field.id, "") if split.raw_convertible else field.name
        if name not in schema.names or not _has_bounds(field, kind := schema.field(name).type):
            continue
        ends = [values.get_field(place) for values in (stats.min_values, stats.max_values)]
        nulls = (stats.null_counts or [None] * (place + 1))[place]
        if None not in ends:
            least, most = (pa.scalar(end, kind) for end in ends)
            found.append(pruning.between(name, least, most, has_nulls=nulls != 0))
    return found


def _has_bounds(field: "DataField", kind: pa.DataType) -> bool:
    """True when a column was in the file what it is now, or a narrower integer; NaN is between no two numbers."""
    from pypaimon.schema.data_types import PyarrowFieldParser

    before = PyarrowFieldParser.from_paimon_type(field.type)
    if pa.types.is_timestamp(kind):
        return bool(before == kind and kind.unit != "ns")
    return _is_plain(kind) and (before == kind or (pa.types.is_integer(before) and pa.types.is_integer(kind)))


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
