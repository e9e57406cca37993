"""A Paimon table kept in order without Java: small files rewritten, snapshots expired, orphans removed.

Every rewrite is one snapshot that follows the one looked at, or nothing; it carries on the tokens. No file is removed
that a snapshot which is left, or a tag, still needs.
"""

import re
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.fs as pafs
from pypaimon.table.bucket_mode import BucketMode
from pypaimon.write.commit_message import CommitMessage
from pypaimon.write.file_store_commit import FileStoreCommit

from vector_assets.clients.paimon import LostRaceError, Storage, translated
from vector_assets.engine.abilities import Maintained, MaintenanceTask, Upkeep
from vector_assets.engine.errors import PlanError, TransientError
from vector_assets.sinks.paimon_manifests import Referring, live
from vector_assets.sinks.paimon_tokens import TAG, Tokens
from vector_assets.sinks.paimon_write import ONE_ATTEMPT, Files, Next, drop_files, sync_files

if TYPE_CHECKING:
    from pypaimon.manifest.schema.manifest_entry import ManifestEntry
    from pypaimon.snapshot.snapshot import Snapshot
    from pypaimon.table.file_store_table import FileStoreTable

_USER = "vector_assets-maintenance"
_ATTEMPTS = 50
"""Snapshots of others that a compaction gives way to."""
_COMPACTED = 1
"""FileSource of files that a compaction wrote."""
_TOP_LEVEL = 5
"""Highest level of a bucket by Paimon's default settings (`num-levels` is not supported)."""
_MOST_KEYED_BYTES = 512 * 1024**2
"""Largest bucket of a table with a primary key that is compacted here: its rows are merged in Python, and in memory."""
_DATA_FILE = re.compile(r"(data|changelog)-.*\.(parquet|orc|avro)$")
_METADATA_FILE = re.compile(r"(manifest|index-manifest|manifest-list|index)-.*")


def maintain(
    storage: Storage, table: "FileStoreTable", tokens: Tokens, task: MaintenanceTask, upkeep: Upkeep
) -> Maintained:
    """Do one task.

    Raises:
        TransientError: another snapshot came first, or the store does not answer.
        PlanError: the table is of a kind that only Java can compact.
    """
    with translated(storage.place):
        latest = table.snapshot_manager().get_latest_snapshot()
        if latest is None:
            return Maintained(task, 0, 0, 0, 0, notes=("the table has no snapshot yet",))
        if task == "compact":
            return _compact(storage, table, tokens, upkeep)
        return (_expire if task == "expire" else _orphans)(storage, table, tokens, upkeep)


def _size(entries: "Sequence[ManifestEntry]") -> int:
    return sum(entry.file.file_size for entry in entries)


def _compact(storage: Storage, table: "FileStoreTable", tokens: Tokens, upkeep: Upkeep) -> Maintained:
    """Rewrite small files of an append table, or all files of a keyed table's buckets that have several."""
    settings = table.table_schema.options
    if table.is_primary_key_table and {"num-levels", "num-sorted-run.compaction-trigger"} & set(settings):
        raise PlanError(f"{storage.place}: compaction knows the default 'num-levels' only")
    if settings.get("changelog-producer", "none") not in {"none", "input"}:
        raise PlanError(f"{storage.place}: compaction with a 'changelog-producer' is left to a Java engine")
    marks = tokens.marks(table)
    base = marks.latest
    assert base is not None, "a table without a snapshot is not compacted"
    entries = live(table, base)
    grouped: dict[tuple[tuple[Any, ...], int], list[ManifestEntry]] = defaultdict(list)
    for entry in entries:
        grouped[tuple(entry.partition.values), entry.bucket].append(entry)
    messages: list[CommitMessage] = []
    notes: list[str] = []
    for group in grouped.values():
        for chosen in _chosen(table, group, upkeep.target_bytes, notes):
            messages.append(rewritten(table, chosen, rows_of_files(table, chosen, base)))
    if not messages:
        return Maintained("compact", len(entries), len(entries), _size(entries), _size(entries), notes=tuple(notes))
    number = _publish(storage, table, tokens, messages)
    tokens.remember(table, number)
    after = live(table, table.snapshot_manager().get_snapshot_by_id(number))
    removed = sum(len(message.deleted_files) for message in messages)
    return Maintained(
        "compact", len(entries), len(after), _size(entries), _size(after), removed, tuple(notes), {"snapshot": number}
    )


def _chosen(
    table: "FileStoreTable", group: "list[ManifestEntry]", target: int, notes: list[str]
) -> "Iterator[list[ManifestEntry]]":
    """Files of a bucket that become one each."""
    if table.is_primary_key_table:
        if len(group) < 2 and all(entry.file.level == _TOP_LEVEL for entry in group):
            return
        if _size(group) > _MOST_KEYED_BYTES:
            notes.append(f"bucket {group[0].bucket} of {_size(group) >> 20} MB is left to a Java engine")
        else:
            yield group
        return
    # a bucket keeps its order: only neighbours by sequence number are joined
    is_ordered = table.bucket_mode() != BucketMode.BUCKET_UNAWARE
    order = sorted(group, key=lambda e: (e.file.min_sequence_number if is_ordered else 0, e.file.file_size))
    pile: list[ManifestEntry] = []
    for entry in order:
        if entry.file.file_size >= target or _size(pile) + entry.file.file_size > target:
            if len(pile) > 1:
                yield pile
            pile = []
        if entry.file.file_size < target:
            pile.append(entry)
    if len(pile) > 1:
        yield pile


def rewritten(
    table: "FileStoreTable", chosen: "list[ManifestEntry]", rows: pa.Table, user: str = _USER
) -> CommitMessage:  # fmt: skip
    """`rows`, which are those of some files of one bucket or a part of them, in new files; nothing is visible yet."""
    partition, bucket = tuple(chosen[0].partition.values), chosen[0].bucket
    old = [entry.file for entry in chosen]
    first = min(file.min_sequence_number for file in old)
    newest = max(file.max_sequence_number for file in old)
    write = Files(table, user)
    if not table.is_primary_key_table:
        write.disable_rolling()
    if table.is_primary_key_table:
        # rows keep a place before whatever is written next; that they had different ones among them is settled
        write.max_seq_numbers[partition] = {bucket: newest - rows.num_rows}
    for batch in rows.combine_chunks().to_batches():
        write.write(partition, bucket, batch)
    made = [message for message in write.prepare_commit(0) if message.new_files]
    files = [file for message in made for file in message.new_files]
    level = _TOP_LEVEL if table.is_primary_key_table else 0
    new = [
        replace(file, level=level, file_source=_COMPACTED, min_sequence_number=first, max_sequence_number=newest)
        for file in files
    ]
    return CommitMessage(partition, bucket, new, deleted_files=old, total_buckets=chosen[0].total_buckets)


def rows_of_files(table: "FileStoreTable", chosen: "list[ManifestEntry]", base: "Snapshot") -> pa.Table:
    """The rows that some files of one bucket hold, merged by key where there is one."""
    from pypaimon.schema.data_types import PyarrowFieldParser

    names = {entry.file.file_name for entry in chosen}
    reading = table.copy_without_time_travel({"scan.snapshot-id": str(base.id)})
    builder = reading.new_read_builder()
    schema = PyarrowFieldParser.from_paimon_schema(table.table_schema.fields)
    partition, bucket = tuple(chosen[0].partition.values), chosen[0].bucket
    parts = []
    for split in builder.new_scan().plan().splits():
        if tuple(split.partition.values) != partition or split.bucket != bucket:
            continue
        wanted = [file for file in split.files if file.file_name in names]
        if not wanted:
            continue
        if len(wanted) != len(split.files):
            split = _narrowed(split, wanted)
        parts.append(builder.new_read().to_arrow([split]))
    if not parts:
        return schema.empty_table()
    return pa.concat_tables(part.select(schema.names).cast(schema) for part in parts)


def _narrowed(split: Any, files: Sequence[Any]) -> Any:
    from pypaimon.read.split import DataSplit

    return DataSplit(
        list(files), split.partition, split.bucket, split.raw_convertible, snapshot_id=split.snapshot_id,
        bucket_path=split.bucket_path, total_buckets=split.total_buckets,
    )  # fmt: skip


def _publish(storage: Storage, table: "FileStoreTable", tokens: Tokens, messages: list[CommitMessage]) -> int:
    """Make the snapshot after whatever is the newest by then; the files it replaces must all be there still.

    Raises:
        TransientError: they are not, or too many other snapshots came first.
    """
    reason = "other snapshots came first"
    for _ in range(_ATTEMPTS):
        marks = tokens.marks(table)
        assert marks.latest is not None, "a table does not lose its snapshots"
        try:
            return _commit_compaction(storage, table, marks.latest, messages, marks.kept())
        except LostRaceError:
            continue
        except RuntimeError as error:
            if "conflicts detected" not in str(error):
                raise
            reason = "another program rewrote the files"
            break
    drop_files(table, messages)
    raise TransientError(f"{storage.place}: nothing was compacted: {reason}")


def _commit_compaction(
    storage: Storage,
    table: "FileStoreTable",
    base: "Snapshot",
    messages: list[CommitMessage],
    properties: dict[str, str],
) -> int:
    if storage.is_local:
        sync_files(messages)
    publisher = Next(storage, table, base)
    commit = FileStoreCommit(publisher, table.copy(ONE_ATTEMPT), _USER)
    entries = commit._collect_manifest_entries(messages)
    # DELETE before ADD: a reader that merges in order never sees both
    entries.sort(key=lambda entry: -entry.kind)
    try:
        commit._try_commit(
            commit_kind="COMPACT", commit_identifier=int(time.time() * 1000), detect_conflicts=True,
            commit_entries_plan=lambda _: entries, snapshot_properties=properties,
        )  # fmt: skip
    except RuntimeError as error:
        if publisher.has_lost:
            raise LostRaceError from error
        if publisher.made is None:
            raise
    if publisher.made is None:
        raise RuntimeError("pypaimon made no snapshot")
    return publisher.made


def _snapshots(table: "FileStoreTable", tokens: Tokens) -> "list[Snapshot]":
    manager = table.snapshot_manager()
    found = (manager.get_snapshot_by_id(number) for number in tokens.numbers(table))
    return [snapshot for snapshot in found if snapshot is not None]


def _tagged(table: "FileStoreTable") -> "list[Snapshot]":
    manager = table.tag_manager()
    if not table.file_io.exists(manager.tag_directory()):
        return []
    return [tag.trim_to_snapshot() for name in manager.list_tags() if (tag := manager.get(name)) is not None]


def _expire(storage: Storage, table: "FileStoreTable", tokens: Tokens, upkeep: Upkeep) -> Maintained:
    """Remove old snapshots, and the files that no other snapshot and no tag needs."""
    marks = tokens.marks(table)
    found = _snapshots(table, tokens)
    horizon = time.time() * 1000 - upkeep.keep_for.total_seconds() * 1000
    last = max(0, len(found) - max(1, upkeep.keep_snapshots))
    gone = [snapshot for snapshot in found[:last] if snapshot.time_millis < horizon]
    # what is expired is a beginning without gaps: the snapshots that are left are consecutive
    gone = gone[: next((n for n, snapshot in enumerate(gone) if snapshot is not found[n]), len(gone))]
    files = [info for info in storage.files() if _is_data(info)]
    before = (len(files), sum(info.size for info in files))
    if not gone:
        return Maintained("expire", before[0], before[0], before[1], before[1], numbers={"snapshots": len(found)})
    _keep_tokens(storage, table, tokens, marks, found)
    kept = found[len(gone) :]
    referring = Referring(table)
    # the first that is kept says which files older ones had and it has no more
    named = referring.ever([*gone, kept[0]])
    needed = referring.of(kept)
    tagged = referring.of(_tagged(table))
    manager = table.snapshot_manager()
    storage.replace_file(f"{manager.snapshot_dir}/EARLIEST", str(kept[0].id))
    for snapshot in gone:
        table.file_io.delete_quietly(manager.get_snapshot_path(snapshot.id))
    doomed_data = named.data - needed.data - tagged.data
    doomed_metadata = named.metadata - needed.metadata - tagged.metadata
    removed = [info for info in storage.files() if info.base_name in doomed_data | doomed_metadata]
    for info in removed:
        storage.delete(info.path)
    data = [info for info in removed if _is_data(info)]
    return Maintained(
        "expire", before[0], before[0] - len(data), before[1], before[1] - sum(info.size for info in data),
        len(removed), numbers={"snapshots": len(kept), "expired": len(gone)},
    )  # fmt: skip


def _keep_tokens(
    storage: Storage, table: "FileStoreTable", tokens: Tokens, marks: Any, found: "list[Snapshot]"
) -> None:
    """See to it that the tag keeps our newest snapshot before older ones go."""
    from vector_assets.sinks.paimon_tokens import is_ours

    if not marks.is_complete:
        raise PlanError(f"{storage.place}: snapshots that may hold tokens are missing already: nothing was removed")
    ours = [snapshot for snapshot in found if is_ours(snapshot.properties or {})]
    tag = table.tag_manager().get(TAG)
    if ours and (tag is None or tag.id < ours[-1].id):
        tokens.remember(table, ours[-1].id)
    elif not ours and (tag is None or tag.id < found[-1].id) and not marks.properties:
        tokens.remember(table, found[-1].id)


def _is_data(info: pafs.FileInfo) -> bool:
    path = PurePosixPath(info.path)
    is_in_bucket = path.parent.name.startswith("bucket-")
    return info.type == pafs.FileType.File and is_in_bucket and bool(_DATA_FILE.match(path.name))


def _orphans(storage: Storage, table: "FileStoreTable", tokens: Tokens, upkeep: Upkeep) -> Maintained:
    """Remove data files and manifests that no snapshot and no tag names, when they are older than the grace."""
    horizon = datetime.now(UTC) - upkeep.grace
    # the files are listed first: whatever a commit refers to from now on is younger than the list, or in it and kept
    listed = [info for info in storage.files() if info.type == pafs.FileType.File]
    referring = Referring(table)
    snapshots = [*_snapshots(table, tokens), *_tagged(table)]
    needed = referring.ever(snapshots)
    data = [info for info in listed if _is_data(info)]
    doomed, notes = [], []
    for info in listed:
        path = PurePosixPath(info.path)
        is_metadata = path.parent.name in {"manifest", "index"} and bool(_METADATA_FILE.match(path.name))
        is_draft = path.name.endswith(".tmp") and path.parent.name in {"snapshot", "schema", "tag", "manifest"}
        if not (_is_data(info) or is_metadata or is_draft):
            continue
        if path.name in needed.data or path.name in needed.metadata or info.mtime is None:
            continue
        if info.mtime >= horizon:
            notes.append(path.name)
            continue
        doomed.append(info)
    for info in doomed:
        storage.delete(info.path)
    gone = [info for info in doomed if _is_data(info)]
    young = (f"{len(notes)} unreferenced files are younger than the grace time and were left",) if notes else ()
    return Maintained(
        "orphans", len(data), len(data) - len(gone), sum(info.size for info in data),
        sum(info.size for info in data) - sum(info.size for info in gone), len(doomed), young,
    )  # fmt: skip
