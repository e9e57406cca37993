"""What is left of a pipeline when its ledger is lost: its files in the archive, each saying which batch it is."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from vector_assets.engine.archive import Archive, ArchiveFile
from vector_assets.engine.core import BatchKind, BatchToken, Json, Span, Split, canonical
from vector_assets.engine.errors import FatalError
from vector_assets.engine.pipeline import Pipeline

Place = tuple[str, str]
"""Pipeline and target."""


@dataclass(frozen=True, slots=True)
class ArchivedBatch:
    """A batch as its file tells of it. `notes` are the file's own; older code left all but span and kind out."""

    seq: int
    hour: str
    span: Span
    kind: BatchKind
    file: ArchiveFile
    sidecar: ArchiveFile | None
    notes: Mapping[str, str]

    @property
    def start(self) -> dict[Split, Json]:
        """Where the pipeline started, as far as the file knows."""
        found: dict[Split, Json] = orjson.loads(self.notes.get("start", "{}"))
        return found


def archived_batches(archive: Archive, pipeline: Pipeline) -> dict[int, list[ArchivedBatch]]:
    """The batches of which the archive has a file, by sequence number; of a number that was given twice, both.

    Raises:
        FatalError: a file is damaged; moved out of the archive it counts as missing.
    """
    found: dict[int, list[ArchivedBatch]] = defaultdict(list)
    for file in archive.files(pipeline.name):
        try:
            notes = archive.manifest(file)
            if notes.get("target", pipeline.target) != pipeline.target:
                continue
            seq, hour, span = int(notes["seq"]), notes["hour"], Span.from_json(notes["span"])
            kind = BatchKind(notes.get("kind", BatchKind.RECORDS))
        except (ValueError, KeyError, TypeError) as error:
            path = archive.root / file.path
            raise FatalError(f"archive: {path} refused: it does not say which batch it is: {error!r}") from error
        found[seq].append(ArchivedBatch(seq, hour, span, kind, file, archive.sidecar_of(file), notes))
    return found


def rewrites(
    archive: Archive, pipeline: Pipeline, roots: Mapping[int, list[ArchivedBatch]]
) -> dict[int, ArchivedBatch]:
    """The rewrites that left a sidecar, by sequence number, as batches over their roots' records.

    Raises:
        FatalError: a sidecar is damaged.
    """
    found: dict[int, ArchivedBatch] = {}
    for file in archive.lone_sidecars(pipeline.name):
        notes = archive.manifest(file)
        root = next(iter(roots.get(int(notes.get("rewrites", "0")), ())), None)
        if root is not None and notes.get("target") == pipeline.target:
            seq = int(notes["seq"])
            found[seq] = ArchivedBatch(seq, notes["hour"], Span(), BatchKind.REWRITE, root.file, file, notes)
    return found


def token_id(place: Place, seq: int, span: Span) -> str:
    """The name that the batch has in its target."""
    return BatchToken(*place, seq, span, fence=0).id


def follows(span: Span, position: Mapping[Split, Json]) -> bool:
    """True when every split of the span is new or starts where the position stands."""
    return all(
        part.split not in position or canonical(position[part.split]) == canonical(part.start) for part in span.ranges
    )


def unheard_of(archive: Archive, pipeline: Pipeline, known: int) -> list[tuple[int, Span]]:
    """Batches with a higher number than the ledger gave away, in order, with their spans; only footers are read."""
    return [
        (int(notes["seq"]), Span.from_json(notes["span"]))
        for notes in archive.notes_of(pipeline.name, above=known)
        if notes.get("target", pipeline.target) == pipeline.target
    ]


def ends(archive: Archive, pipeline: Pipeline, last: Span) -> tuple[dict[Split, Json], dict[Split, Json]]:
    """Where a pipeline stands before its last archived batch, and after it."""
    here: dict[Split, Json] = {}
    for _, span in unheard_of(archive, pipeline, 0):
        if span != last:
            here |= span.end
    return here | dict(last.start), here | dict(last.end)
