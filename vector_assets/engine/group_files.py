"""Which file holds what a batch did to its pipeline's groups: rows of the ledger, files of the archive.

`<hour>/<seq>.groups.<fence>.parquet` holds the groups that the batch touched (kind `delta`), all of them (`base`), or
none because an operator dropped them (`empty`). The groups after batch n are those of the newest base up to n and of
every delta after it. The fence in the name keeps a worker that lost its lease from writing over a file that counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import orjson
import pyarrow as pa

from vector_assets.engine.archive import Archive, ArchiveFile
from vector_assets.engine.core import BatchKind, State
from vector_assets.engine.lease import Lease
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.ledger_records import BatchRecord, file_text
from vector_assets.engine.store import Row

FileKind = Literal["delta", "base", "empty"]
COUNTED = (BatchKind.RECORDS, BatchKind.DEAD_LETTERS)
"""Batches whose records go into groups."""
_KEPT_BASES = 2
"""The newest base and the one before it, so that one damaged file is not the end of all."""


@dataclass(frozen=True, slots=True)
class GroupFile:
    """What batch `seq` did to the groups, which mean `signature`; `groups` is how many there were after it."""

    seq: int
    kind: FileKind
    signature: str
    file: ArchiveFile
    groups: int

    @property
    def is_start(self) -> bool:
        """The groups after its batch can be read from it alone."""
        return self.kind != "delta"


class GroupFiles:
    """The group files of one pipeline."""

    def __init__(self, ledger: Ledger, archive: Archive, pipeline: str, target: str) -> None:
        self.ledger, self.archive, self.place = ledger, archive, (pipeline, target)

    def all(self) -> list[GroupFile]:
        """Every file that the ledger knows, by batch; of discarded batches too."""
        rows = self.ledger.store.rows(
            "SELECT seq, kind, signature, file, groups FROM group_files WHERE pipeline = ? AND target = ? ORDER BY seq",
            self.place,
        )
        return [_group_file(row) for row in rows]

    def on_disk(self) -> list[GroupFile]:
        """Files of all groups that the archive holds, of batches that are done: for a ledger that was lost."""
        done = {batch.seq for batch in self.ledger.batches(*self.place) if batch.state is State.DONE}
        found = []
        for file in self.archive.group_files(self.place[0]):
            notes = self.archive.manifest(file)
            seq = int(notes["seq"])
            if notes["target"] == self.place[1] and notes["groups"] != "delta" and seq in done:
                kind: FileKind = "base" if notes["groups"] == "base" else "empty"
                found.append(GroupFile(seq, kind, notes["signature"], file, int(notes["count"])))
        return found

    def of(self, seq: int) -> GroupFile | None:
        """The file of one batch."""
        row = self.ledger.store.row(
            "SELECT seq, kind, signature, file, groups FROM group_files WHERE pipeline = ? AND target = ? AND seq = ?",
            (*self.place, seq),
        )
        return _group_file(row) if row else None

    def is_start(self, seq: int) -> bool:
        """Whether the batch left a file of all groups."""
        found = self.of(seq)
        return found is not None and found.is_start

    def write(
        self, seq: int, hour: str, fence: int, kind: FileKind, signature: str, table: pa.Table, groups: int
    ) -> GroupFile:
        """Put a file into the archive; `note` makes it count.

        Raises:
            FatalError: the disk refused it.
        """
        notes = {"pipeline": self.place[0], "target": self.place[1], "hour": hour, "seq": str(seq), "groups": kind,
                 "signature": signature, "count": str(groups)}  # fmt: skip
        file = self.archive.put((self.place[0], hour, f"{seq:010d}.groups.{fence}.parquet"), table, notes)
        return GroupFile(seq, kind, signature, file, groups)

    def note(self, found: GroupFile) -> None:
        """The file is that of its batch from now on; inside a transaction of the lease's holder."""
        self.ledger.store.change(
            "DELETE FROM group_files WHERE pipeline = ? AND target = ? AND seq = ?", (*self.place, found.seq)
        )
        self.ledger.store.change(
            "INSERT INTO group_files (pipeline, target, seq, kind, signature, file, groups)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*self.place, found.seq, found.kind, found.signature, file_text(found.file), found.groups),
        )

    def forget(self, files: Sequence[GroupFile]) -> None:
        """The files do not count any more; inside a transaction of the lease's holder."""
        self.ledger.store.change_many(
            "DELETE FROM group_files WHERE pipeline = ? AND target = ? AND seq = ?",
            [(*self.place, each.seq) for each in files],
        )

    def passed(self) -> list[GroupFile]:
        """Files that are needed no more: of batches before the newest bases, all done; dropped groups are kept on."""
        files = self.all()
        unfinished = self.ledger.unfinished(*self.place)
        first = min((batch.seq for batch in unfinished), default=1 << 62)
        starts = [each.seq for each in files if each.is_start and each.seq < first]
        if len(starts) <= _KEPT_BASES:
            return []
        return [each for each in files if each.seq < starts[-_KEPT_BASES] and each.kind != "empty"]

    def prune(self, lease: Lease) -> None:
        """Let go of what is needed no more.

        Raises:
            FatalError: the disk refused it.
        """
        passed = self.passed()
        if not passed:
            return
        with self.ledger.fenced(lease):
            self.forget(passed)
        for each in passed:
            self.archive.remove(each.file)
        self.sweep()

    def sweep(self) -> None:
        """Delete files of batches that are settled which do not count: of workers that were killed or too late."""
        kept = {each.file.path for each in self.all()}
        first = min((batch.seq for batch in self.ledger.unfinished(*self.place)), default=1 << 62)
        newest = self.ledger.newest_seq(*self.place)
        for path, seq in self.archive.group_paths(self.place[0]):
            if path not in kept and seq < min(first, newest):
                self.archive.remove(ArchiveFile(path, "", 0, 0))

    def before(self, seq: int) -> BatchRecord | None:
        """The batch whose groups batch `seq` starts from: None when it is the first."""
        row = self.ledger.store.row(
            "SELECT max(b.seq) AS seq FROM batches b LEFT JOIN group_files f"
            " ON f.pipeline = b.pipeline AND f.target = b.target AND f.seq = b.seq"
            f" WHERE b.pipeline = ? AND b.target = ? AND b.seq < ? AND b.state <> '{State.DISCARDED}'"
            f" AND (b.kind IN ({', '.join(repr(str(kind)) for kind in COUNTED)}) OR f.kind = 'empty')",
            (*self.place, seq),
        )
        return self.ledger.batch(*self.place, int(row["seq"])) if row and row["seq"] is not None else None


def _group_file(row: Row) -> GroupFile:
    return GroupFile(row["seq"], row["kind"], row["signature"], ArchiveFile(**orjson.loads(row["file"])), row["groups"])
