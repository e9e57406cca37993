"""Data files, and the commit that makes them visible together with the pipeline's position.

Files are written ahead by worker threads; what is visible changes in `commit` only, by one request to the catalog that
asserts which snapshot it follows. Deletes and updates are copy on write: a data file that holds one of the keys is
written again without their rows, by the commit itself, for it must see the newest snapshot.
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine.core import BatchToken, Counts
from vector_assets.sinks.iceberg_read import count, has_key, key_range, read_file
from vector_assets.sinks.iceberg_tokens import Applied, Tokens

if TYPE_CHECKING:
    from pyiceberg.io import FileIO
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table, Transaction
    from pyiceberg.table.metadata import TableMetadata
    from pyiceberg.table.snapshots import Snapshot

_EXPIRED_PER_COMMIT = 20


@dataclass(frozen=True, slots=True)
class Change:
    """What a batch does: files with its rows, and the keys whose rows have to go first (None: none)."""

    files: tuple["DataFile", ...]
    counts: Counts
    keys: pa.Table | None = field(default=None, repr=False)


def write_files(metadata: "TableMetadata", io: "FileIO", rows: pa.Table, name: uuid.UUID) -> tuple["DataFile", ...]:
    """Write rows as data files, one or more per partition; `name` is part of every file's name."""
    # the one private name of pyiceberg that is used: `Table.append` writes and commits in one go
    from pyiceberg.io.pyarrow import _dataframe_to_data_files

    if rows.num_rows == 0:
        return ()
    return tuple(_dataframe_to_data_files(metadata, rows, io, write_uuid=name))


def delete_files(io: "FileIO", files: Iterable["DataFile"]) -> None:
    """Remove files that no commit knows; what cannot be removed is left to the removal of orphans."""
    for file in files:
        try:
            io.delete(file.file_path)
        except OSError:
            continue


def commit(
    table: "Table", tokens: Tokens, token: BatchToken, change: Change, keep: int
) -> tuple[Applied, list["Snapshot"]]:
    """Make a batch visible and move the position, by one commit after the snapshot that `table` was loaded with.

    Of more than `keep` snapshots (0: any number) the oldest leave the table by the same commit: they are returned.

    Raises:
        CommitFailedException: another writer was first; nothing was committed.
    """
    from pyiceberg.exceptions import CommitFailedException, ValidationException

    from vector_assets.clients.iceberg_transaction import SingleAttempt

    rewritten: list[DataFile] = []
    try:
        removed, rewritten = copy_without(table, change.keys) if change.keys is not None else ([], [])
        transaction = SingleAttempt(table)
        producer = _producer(transaction, is_overwrite=bool(removed))
        for file in removed:
            producer.delete_data_file(file)
        for file in (*change.files, *rewritten):
            producer.append_data_file(file)
        batch, properties = tokens.after(token, change.counts, producer.snapshot_id)
        producer.snapshot_properties = tokens.summary(batch)
        producer.commit()
        transaction.set_properties(properties)
        expired = _expire(transaction, table.metadata, keep)
        transaction.commit_transaction()
    except (CommitFailedException, ValidationException):
        # nothing was committed: these files belong to nobody
        delete_files(table.io, rewritten)
        raise
    return batch, expired


def _producer(transaction: "Transaction", *, is_overwrite: bool) -> Any:
    update = transaction.update_snapshot()
    return update.overwrite() if is_overwrite else update.merge_append()


def _expire(transaction: "Transaction", metadata: "TableMetadata", keep: int) -> list["Snapshot"]:
    from pyiceberg.table.update.snapshot import ExpireSnapshots

    surplus = len(metadata.snapshots) + 1 - keep
    if keep == 0 or surplus <= 0 or set(metadata.refs) - {"main"}:
        # branches and tags are for maintenance to think about
        return []
    current = metadata.current_snapshot_id
    old = [s for s in sorted(metadata.snapshots, key=_sequence) if s.snapshot_id != current]
    expired = old[: min(surplus, _EXPIRED_PER_COMMIT)]
    if expired:
        ExpireSnapshots(transaction).by_ids([snapshot.snapshot_id for snapshot in expired]).commit()
    return expired


def _sequence(snapshot: "Snapshot") -> tuple[int, int]:
    return snapshot.sequence_number or 0, snapshot.timestamp_ms


def forget_manifests(table: "Table", expired: list["Snapshot"]) -> None:
    """Remove manifests and manifest lists that only these snapshots needed, the oldest ones of a table's one branch.

    A manifest that the oldest snapshot left does not have cannot come back. Data files stay: somebody may be reading
    them, and the removal of orphans comes by. What cannot be removed stays for it too.
    """
    left = min(table.metadata.snapshots, key=_sequence, default=None)
    if not expired or left is None:
        return
    needed = {manifest.manifest_path for manifest in left.manifests(table.io)}
    for snapshot in expired:
        try:
            gone = {manifest.manifest_path for manifest in snapshot.manifests(table.io)} - needed
            for path in (*sorted(gone), snapshot.manifest_list):
                table.io.delete(path)
        except OSError:
            continue


def copy_without(table: "Table", keys: pa.Table) -> tuple[list["DataFile"], list["DataFile"]]:
    """Files that hold one of the keys, and new files with their other rows.

    One file at a time is in memory. Raises what reading and writing raise; files written before are removed.
    """
    removed: list[DataFile] = []
    written: list[DataFile] = []
    if keys.num_rows == 0 or table.metadata.current_snapshot_id is None:
        return removed, written
    keys = keys.combine_chunks()
    try:
        for task in table.scan(row_filter=key_range(keys)).plan_files():
            found = has_key(read_file(table, task, tuple(keys.column_names)), keys)
            hits = count(found)
            if hits == 0:
                continue
            removed.append(task.file)
            if hits == len(found):
                continue
            rest = read_file(table, task).filter(pc.invert(found))
            written += write_files(table.metadata, table.io, rest, uuid.uuid4())
    except BaseException:
        delete_files(table.io, written)
        raise
    return removed, written
