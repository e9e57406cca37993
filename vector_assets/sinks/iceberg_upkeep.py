"""Maintenance of a table: small files compacted, old snapshots expired, files that nobody knows removed.

Each task commits at most once, after the snapshot that it looked at, so it may run beside a pipeline that commits. The
position of a pipeline is a property of the table and stays whatever expires.
"""

import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.fs as fs

from vector_assets.clients.iceberg import ConflictError
from vector_assets.engine.abilities import Maintained, MaintenanceTask, Upkeep
from vector_assets.engine.errors import FatalError
from vector_assets.sinks.iceberg_read import read_file
from vector_assets.sinks.iceberg_write import delete_files, write_files

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile, ManifestFile
    from pyiceberg.table import FileScanTask, Table
    from pyiceberg.table.snapshots import Snapshot

TASK = "vector-assets.maintenance"
"""Key of a snapshot's summary that names the task which made it."""
_ATTEMPTS = 5
_SMALL_SHARE = 0.75
_ONE_FILE = {"write.target-file-size-bytes": str(1 << 60)}


def maintain(table: "Table", task: MaintenanceTask, upkeep: Upkeep) -> Maintained:
    """Do one task on a table that was just loaded.

    Raises:
        ConflictError: another writer replaced what was being compacted, or was first each time; nothing was lost.
    """
    if task == "compact":
        return compact(table, upkeep)
    return expire(table, upkeep) if task == "expire" else remove_orphans(table, upkeep)


# compaction


def compact(table: "Table", upkeep: Upkeep) -> Maintained:
    """Write the rows of small files again, those of one partition together; the rows of one new file are in memory.

    Files that are much smaller than `target_bytes` are small, and those that somebody deleted rows of.
    """
    tasks = list(table.scan().plan_files())
    before = [task.file for task in tasks]
    written: list[DataFile] = []
    replaced: list[DataFile] = []
    try:
        for group in _groups(tasks, upkeep.target_bytes):
            written += _rewrite(table, group)
            replaced += [task.file for task in group]
        if replaced:
            _replace(table, replaced, written)
    except BaseException:
        delete_files(table.io, written)
        raise
    gone = {file.file_path for file in replaced}
    after = [file for file in before if file.file_path not in gone] + written
    return Maintained(
        "compact", len(before), len(after), _bytes(before), _bytes(after), removed=0,
        notes=() if replaced else ("no two small files in one partition",),
        numbers={"files_rewritten": len(replaced), "files_written": len(written)},
    )  # fmt: skip


def _bytes(files: Iterable["DataFile"]) -> int:
    return sum(file.file_size_in_bytes for file in files)


def _groups(tasks: list["FileScanTask"], target_bytes: int) -> Iterator[list["FileScanTask"]]:
    """Small files of one partition each, two or more that make one file of about the wanted size, oldest first."""
    partitions: dict[object, list[FileScanTask]] = defaultdict(list)
    for task in tasks:
        if task.file.file_size_in_bytes < target_bytes * _SMALL_SHARE or task.delete_files:
            partitions[(task.file.spec_id, task.file.partition)].append(task)
    for small in partitions.values():
        group: list[FileScanTask] = []
        size = 0
        for task in small:
            if group and size + task.file.file_size_in_bytes > target_bytes:
                yield from _worthwhile(group)
                group, size = [], 0
            group.append(task)
            size += task.file.file_size_in_bytes
        yield from _worthwhile(group)


def _worthwhile(group: list["FileScanTask"]) -> Iterator[list["FileScanTask"]]:
    if len(group) > 1 or any(task.delete_files for task in group):
        yield group


def _rewrite(table: "Table", group: list["FileScanTask"]) -> list["DataFile"]:
    rows = pa.concat_tables([read_file(table, task) for task in group])
    counted = sum(task.file.record_count for task in group)
    if rows.num_rows != counted and not any(task.delete_files for task in group):
        raise FatalError(f"{'.'.join(table.name())}: {counted} rows in its files by their count, {rows.num_rows} found")
    properties = {**table.metadata.properties, **_ONE_FILE}
    return list(write_files(table.metadata.model_copy(update={"properties": properties}), table.io, rows, uuid.uuid4()))


def _replace(table: "Table", old: list["DataFile"], new: list["DataFile"]) -> None:
    """Commit the new files in place of the old ones, if these are still there."""
    from pyiceberg.exceptions import CommitFailedException, ValidationException

    from vector_assets.clients.iceberg_transaction import SingleAttempt

    for attempt in range(_ATTEMPTS):
        transaction = SingleAttempt(table)
        producer = transaction.update_snapshot(snapshot_properties={TASK: "compact"}).overwrite()
        for file in old:
            producer.delete_data_file(file)
        for file in new:
            producer.append_data_file(file)
        try:
            producer.commit()
            transaction.commit_transaction()
        except ValidationException as error:
            raise ConflictError(f"{'.'.join(table.name())}: a file was replaced while it was compacted") from error
        except CommitFailedException as error:
            if attempt == _ATTEMPTS - 1:
                raise ConflictError(f"{'.'.join(table.name())}: other writers were first {_ATTEMPTS} times") from error
            # an append in between does no harm: the same files once more, after what is there now
            table.refresh()
        else:
            return


# expiry


def expire(table: "Table", upkeep: Upkeep) -> Maintained:
    """Drop snapshots that are older than `keep_for` and not among the newest `keep_snapshots`, and the files that only
    they know: data files, manifests, manifest lists. What a branch or a tag names stays."""
    from pyiceberg.table.update.snapshot import ExpireSnapshots

    from vector_assets.clients.iceberg_transaction import SingleAttempt

    metadata = table.metadata
    newest = sorted(metadata.snapshots, key=lambda snapshot: -snapshot.timestamp_ms)
    limit = time.time() * 1000 - upkeep.keep_for.total_seconds() * 1000
    named = {ref.snapshot_id for ref in metadata.refs.values()}
    old = [s for s in newest[upkeep.keep_snapshots :] if s.timestamp_ms < limit and s.snapshot_id not in named]
    before = _known(table, metadata.snapshots)
    numbers = {"snapshots_before": len(newest), "snapshots_after": len(newest) - len(old)}
    if not old:
        size = sum(before.data.values())
        return Maintained("expire", len(before.data), len(before.data), size, size, numbers=numbers)
    transaction = SingleAttempt(table)
    ExpireSnapshots(transaction).by_ids([snapshot.snapshot_id for snapshot in old]).commit()
    transaction.commit_transaction()
    after = _known(table, table.metadata.snapshots)
    gone = {*before.data, *before.metadata} - {*after.data, *after.metadata}
    removed = sum(_delete(table, path) for path in sorted(gone))
    return Maintained(
        "expire", len(before.data), len(after.data), sum(before.data.values()), sum(after.data.values()),
        removed=removed, numbers=numbers,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Files:
    """Files that snapshots know: data and delete files with their sizes; manifests and manifest lists."""

    data: dict[str, int]
    metadata: set[str]


def _known(table: "Table", snapshots: Iterable["Snapshot"]) -> _Files:
    manifests: dict[str, ManifestFile] = {}
    lists = set()
    for snapshot in snapshots:
        lists.add(snapshot.manifest_list)
        manifests |= {manifest.manifest_path: manifest for manifest in snapshot.manifests(table.io)}
    data = {
        entry.data_file.file_path: entry.data_file.file_size_in_bytes
        for manifest in manifests.values()
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)
    }
    return _Files(data, lists | set(manifests))


def _delete(table: "Table", path: str) -> bool:
    try:
        table.io.delete(path)
    except FileNotFoundError:
        return False
    return True


# orphans


def remove_orphans(table: "Table", upkeep: Upkeep) -> Maintained:
    """Remove files in the table's folder that no snapshot and no kept metadata file knows and that are older than the
    grace time: what a batch in flight has written is younger."""
    system, folder = _file_system(table, table.location())
    selector = fs.FileSelector(folder, recursive=True, allow_not_found=True)
    listed = [info for info in system.get_file_info(selector) if info.type == fs.FileType.File]
    # looked at after the listing: what was committed in between is known
    table.refresh()
    known = _reachable(table)
    limit = time.time() - upkeep.grace.total_seconds()
    unknown = [info for info in listed if info.path not in known]
    orphans = [info for info in unknown if info.mtime is not None and info.mtime.timestamp() < limit]
    for info in orphans:
        system.delete_file(info.path)
    size, freed = sum(info.size for info in listed), sum(info.size for info in orphans)
    return Maintained(
        "orphans", len(listed), len(listed) - len(orphans), size, size - freed, removed=len(orphans),
        numbers={"too_young": len(unknown) - len(orphans)},
    )  # fmt: skip


def _file_system(table: "Table", location: str) -> tuple[fs.FileSystem, str]:
    """The file system of a location, as pyiceberg would open it, and the path in it."""
    from pyiceberg.io.fsspec import FsspecFileIO
    from pyiceberg.io.pyarrow import PyArrowFileIO

    if isinstance(table.io, FsspecFileIO):
        system = table.io.get_fs(location.partition(":")[0])
        return fs.PyFileSystem(fs.FSSpecHandler(system)), str(system._strip_protocol(location))
    scheme, netloc, path = PyArrowFileIO.parse_location(location, table.io.properties)
    io = table.io if isinstance(table.io, PyArrowFileIO) else PyArrowFileIO(table.io.properties)
    return io.fs_by_scheme(scheme, netloc), path


def _reachable(table: "Table") -> set[str]:
    metadata = table.metadata
    known = _known(table, metadata.snapshots)
    paths = {*known.data, *known.metadata, table.metadata_location}
    paths |= {entry.metadata_file for entry in metadata.metadata_log}
    paths |= {file.statistics_path for file in (*metadata.statistics, *metadata.partition_statistics)}
    paths.add(f"{table.location()}/metadata/version-hint.text")
    return {_file_system(table, path)[1] for path in paths}
