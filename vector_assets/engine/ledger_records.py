"""What the ledger's rows mean: batches, folded batches, gaps."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Literal

import orjson

from vector_assets.engine.archive import ArchiveFile
from vector_assets.engine.core import BatchKind, BatchToken, Counts, Json, Span, Split, State, canonical
from vector_assets.engine.dead_letters import BatchPlace
from vector_assets.engine.errors import ExpiredError
from vector_assets.engine.store import Row


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """One batch as the ledger knows it; `lookups` are the versions of the dimension tables it was joined with."""

    pipeline: str
    target: str
    seq: int
    kind: BatchKind
    state: State
    span: Span
    first_splits: frozenset[Split]
    hour: str
    run_id: str
    fence: int
    code_version: str
    schema_version: int
    archive: ArchiveFile | None
    sidecar: ArchiveFile | None
    committable: Json
    counts: Counts
    commit_id: str | None
    newest_ms: int | None
    planned_ms: int
    done_ms: int | None
    commit_seconds: float | None
    note: str | None
    expired_ms: int | None = None
    lookups: dict[str, str] | None = None

    def token(self, fence: int) -> BatchToken:
        """The batch's name in its target, for an attempt under `fence`."""
        return BatchToken(self.pipeline, self.target, self.seq, self.span, fence, self.first_splits)

    def check_kept(self) -> None:
        """Make sure that its records can be read again.

        Raises:
            ExpiredError: retention has removed them from the archive.
        """
        if self.expired_ms is not None:
            raise ExpiredError(
                f"{self.pipeline}: batch {self.seq} ({self.span.short()}) is expired: its records are not in the"
                f" archive any more, since {datetime.fromtimestamp(self.expired_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"
                f"{f' ({self.note})' if self.note else ''}; it can be neither replayed nor explained"
            )

    @property
    def place(self) -> BatchPlace:
        """Where its dead letters say they come from."""
        return BatchPlace(self.pipeline, self.target, self.seq, self.code_version, self.root)

    @property
    def root(self) -> int:
        """The batch whose records these are: of a rewriting batch the one that its archive file was written for."""
        if self.kind is not BatchKind.REWRITE or self.archive is None:
            return self.seq
        return int(PurePosixPath(self.archive.path).stem)


GapState = Literal["open", "skipped", "filled", "read", "reset"]
"""What became of a gap: nothing yet; the pipeline went on after it; its records came out of the archive; a new split is
read from its beginning; an operator moved the position."""


@dataclass(frozen=True, slots=True)
class Fold:
    """The oldest batches, which retention made one: those up to `seq`, the last of them of partition `hour`.

    `ends` is where each split stood after them; `counts` is the sum over the `batches` that were done.
    """

    seq: int
    hour: str
    batches: int
    discarded: int
    counts: Counts
    ends: dict[Split, Json]


Hours = tuple[str | None, str | None]
"""First and last partition of a selection, both included; None leaves that side open."""


def hours_are_folded(fold: Fold, hours: Hours) -> bool:
    """True when batches of these partitions may be in the fold, where keys sort as their batches do."""
    first = hours[0] or hours[1]
    return first is not None and first <= fold.hour


@dataclass(frozen=True, slots=True)
class Gap:
    """Records the source lost: offsets `start` to `end` (exclusive, None when unknown) of a split.

    `policy` is the setting that decided; batch `seq` is what closed the gap.
    """

    pipeline: str
    split: Split
    kind: str
    start: int
    end: int | None
    found_ms: int
    policy: str
    state: GapState
    seq: int | None


def file_text(file: ArchiveFile | None) -> str | None:
    """A file as a column of the ledger keeps it."""
    return (
        canonical({"path": file.path, "sha256": file.sha256, "rows": file.rows, "bytes": file.bytes}) if file else None
    )


def batch_record(values: Row) -> BatchRecord:
    """A row of the table of batches."""
    return BatchRecord(
        **values
        | {
            "kind": BatchKind(values["kind"]),
            "state": State(values["state"]),
            "span": Span.from_json(values["span"]),
            "first_splits": frozenset(orjson.loads(values["first_splits"])),
            "archive": ArchiveFile(**orjson.loads(values["archive"])) if values["archive"] else None,
            "sidecar": ArchiveFile(**orjson.loads(values["sidecar"])) if values["sidecar"] else None,
            "committable": orjson.loads(values["committable"]) if values["committable"] else None,
            "counts": Counts.from_dict(orjson.loads(values["counts"])),
            "lookups": orjson.loads(values["lookups"]) if values["lookups"] else None,
        }
    )
