"""Which files a Paimon table's snapshots refer to, and manifests merged before their list grows long."""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pypaimon.manifest.manifest_file_manager import ManifestFileManager
from pypaimon.manifest.manifest_list_manager import ManifestListManager
from pypaimon.manifest.schema.file_entry import FileEntry

if TYPE_CHECKING:
    from pypaimon.manifest.schema.manifest_entry import ManifestEntry
    from pypaimon.manifest.schema.manifest_file_meta import ManifestFileMeta
    from pypaimon.snapshot.snapshot import Snapshot
    from pypaimon.table.file_store_table import FileStoreTable

MERGE_AT = 64
"""Manifests at which a commit merges the small ones: it reads and writes their list, and pypaimon never shortens it."""


class MergingLists(ManifestListManager):  # type: ignore[misc]
    """Manifest lists whose base for the next snapshot is short."""

    def read_all(self, snapshot: "Snapshot | None") -> "list[ManifestFileMeta]":
        """The manifests of a snapshot; from `MERGE_AT` on, the small ones as one."""
        found: list[ManifestFileMeta] = super().read_all(snapshot)
        most = self.table.options.manifest_target_size() // 2
        small = [meta for meta in found if meta.file_size < most]
        if len(small) < MERGE_AT:
            return found
        large = [meta for meta in found if meta.file_size >= most]
        return large + merged(self.table, small)


def merged(table: "FileStoreTable", manifests: "Iterable[ManifestFileMeta]") -> "list[ManifestFileMeta]":
    """Manifests of the same meaning, as few as their size allows."""
    manager = ManifestFileManager(table)
    entries = FileEntry.merge_entries(
        entry for meta in manifests for entry in manager.read(meta.file_name, drop_stats=False)
    )
    if not entries:
        return []
    size = table.options.manifest_target_size()
    return list(manager.rolling_write(entries, size, f"manifest-{uuid.uuid4()}"))


def live(table: "FileStoreTable", snapshot: "Snapshot") -> "list[ManifestEntry]":
    """The data files that make up a snapshot."""
    lists, manager = ManifestListManager(table), ManifestFileManager(table)
    entries = (entry for meta in lists.read_all(snapshot) for entry in manager.read(meta.file_name, drop_stats=False))
    return [entry for entry in FileEntry.merge_entries(entries) if entry.kind == 0]


@dataclass(slots=True)
class References:
    """Names of files: manifests, their lists and indexes under `manifest/`, `data` in buckets, and `index/`."""

    metadata: set[str] = field(default_factory=set)
    data: set[str] = field(default_factory=set)


class Referring:
    """Reads references snapshot by snapshot; a manifest is read once."""

    def __init__(self, table: "FileStoreTable") -> None:
        self.table = table
        self._lists = ManifestListManager(table)
        self._manifests = ManifestFileManager(table)
        self._names: dict[str, tuple[set[str], set[str]]] = {}

    def of(self, snapshots: "Iterable[Snapshot]") -> References:
        """Every file that one of the snapshots needs to be read.

        Consecutive snapshots share nearly all files: those of the first one, and what each later one added.
        """
        found = References()
        before: Snapshot | None = None
        for snapshot in snapshots:
            is_next = before is not None and snapshot.id == before.id + 1
            self._metadata(snapshot, found.metadata)
            metas = self._lists.read_delta(snapshot) if is_next else self._lists.read_all(snapshot)
            if is_next:
                for meta in metas:
                    found.data |= self._entries(meta.file_name)[0]
            else:
                added: set[str] = set()
                deleted: set[str] = set()
                for meta in metas:
                    more, less = self._entries(meta.file_name)
                    added |= more
                    deleted |= less
                found.data |= added - deleted
            for meta in self._lists.read_changelog(snapshot):
                found.metadata.add(meta.file_name)
                found.data |= self._entries(meta.file_name)[0]
            before = snapshot
        return found

    def ever(self, snapshots: "Iterable[Snapshot]") -> References:
        """Every file that the snapshots name at all, also those deleted before."""
        found = References()
        for snapshot in snapshots:
            self._metadata(snapshot, found.metadata)
            for meta in [*self._lists.read_all(snapshot), *self._lists.read_changelog(snapshot)]:
                found.metadata.add(meta.file_name)
                added, deleted = self._entries(meta.file_name)
                found.data |= added | deleted
        return found

    def _metadata(self, snapshot: "Snapshot", names: set[str]) -> None:
        lists = (snapshot.base_manifest_list, snapshot.delta_manifest_list, snapshot.changelog_manifest_list)
        names |= {name for name in (*lists, snapshot.index_manifest, snapshot.statistics) if name}
        names |= {meta.file_name for meta in self._lists.read_all(snapshot)}
        if snapshot.index_manifest:
            names |= {entry.index_file.file_name for entry in self._indexes(snapshot.index_manifest)}

    def _indexes(self, name: str) -> Any:
        from pypaimon.manifest.index_manifest_file import IndexManifestFile

        return IndexManifestFile(self.table).read(name)

    def _entries(self, name: str) -> tuple[set[str], set[str]]:
        """Data files that a manifest adds and deletes."""
        if name not in self._names:
            sets: tuple[set[str], set[str]] = (set(), set())
            for entry in self._manifests.read(name):
                sets[entry.kind].update((entry.file.file_name, *entry.file.extra_files))
            self._names[name] = sets
        return self._names[name]
