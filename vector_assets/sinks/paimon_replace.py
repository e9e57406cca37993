"""The rows of one batch taken out of an append table of Paimon, found by the column that notes each row's batch."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pypaimon.write.commit_message import CommitMessage

from vector_assets.sinks.paimon_maintain import rewritten, rows_of_files
from vector_assets.sinks.paimon_manifests import live
from vector_assets.sinks.paimon_write import drop_files

if TYPE_CHECKING:
    from pypaimon.manifest.schema.manifest_entry import ManifestEntry
    from pypaimon.snapshot.snapshot import Snapshot
    from pypaimon.table.file_store_table import FileStoreTable


def without_batch(
    table: "FileStoreTable", base: "Snapshot", user: str, column: str, root: int
) -> "list[CommitMessage]":  # fmt: skip
    """What takes the rows with `root` in `column` out of the snapshot `base`, copy on write; nothing is visible yet.

    A file whose rows all go is left out, one that holds others is written again without them; one file at a time is in
    memory. Raises what reading and writing raise; files written before are removed.
    """
    names = {file.file_name for split in _splits(table, base, column, root) for file in split.files}
    found: list[CommitMessage] = []
    try:
        for entry in live(table, base):
            if entry.file.file_name in names and (message := _without(table, base, user, entry, (column, root))):
                found.append(message)
    except BaseException:
        drop_files(table, found)
        raise
    return found


def _without(
    table: "FileStoreTable", base: "Snapshot", user: str, entry: "ManifestEntry", what: tuple[str, int]
) -> CommitMessage | None:
    rows = rows_of_files(table, [entry], base)
    goes = _has(rows, *what)
    if not goes.any():
        return None
    if goes.all():
        return CommitMessage(tuple(entry.partition.values), entry.bucket, [], deleted_files=[entry.file])
    # pypaimon takes a number of buckets in a message for one that is fixed
    return replace(rewritten(table, [entry], rows.filter(pa.array(~goes)), user), total_buckets=None)


def count_of(table: "FileStoreTable", column: str, root: int) -> int:
    """How many rows have `root` in `column` now; files whose statistics rule it out are not read."""
    latest = table.snapshot_manager().get_latest_snapshot()
    if latest is None:
        return 0
    reading = table.new_read_builder().with_projection([column]).new_read()
    splits = _splits(table, latest, column, root)
    return sum(int(_has(reading.to_arrow([split]), column, root).sum()) for split in splits)


def _splits(table: "FileStoreTable", base: "Snapshot", column: str, root: int) -> list[Any]:
    """The splits of a snapshot that may hold such rows."""
    builder = table.copy_without_time_travel({"scan.snapshot-id": str(base.id)}).new_read_builder()
    builder = builder.with_filter(builder.new_predicate_builder().equal(column, root))
    return list(builder.new_scan().plan().splits())


def _has(rows: pa.Table, column: str, root: int) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    found = pc.fill_null(pc.equal(rows.column(column), root), pa.scalar(value=False))
    return np.asarray(found.to_numpy())
