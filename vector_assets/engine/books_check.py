"""Are the ledger's books right? Compared with themselves and with the archive; nothing is changed."""

from collections.abc import Iterator
from dataclasses import dataclass

from vector_assets.engine.archive import ArchiveFile
from vector_assets.engine.core import BatchKind, Json, Split, State, canonical
from vector_assets.engine.counting import is_balanced, is_weighable
from vector_assets.engine.errors import FatalError
from vector_assets.engine.group_files import GroupFiles
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.ledger_records import BatchRecord
from vector_assets.engine.session import Books

Finding = tuple[str, int | None, str]
"""Pipeline, sequence number if it is about one batch, and what is wrong."""


@dataclass(frozen=True, slots=True)
class BooksCheck:
    """How many batches and files were looked at, and what is wrong with them."""

    batches: int
    files: int
    findings: tuple[Finding, ...]


def check_books(books: Books, pipeline: str | None = None, *, deep: bool = False) -> BooksCheck:
    """Look at every batch of a pipeline, or of all; `deep` reads every archive file and compares its hash."""
    findings: list[Finding] = [
        ("", None, f"the ledger's file is damaged: {text}") for text in books.ledger.store.damages()
    ]
    batches = files = 0
    for name, target in books.ledger.places():
        if pipeline in {None, name}:
            rows = books.ledger.batches(name, target)
            batches += len(rows)
            files += sum(len(_files(row)) for row in rows)
            findings += [(name, seq, what) for seq, what in _wrong(books, name, target, rows, deep=deep)]
    return BooksCheck(batches, files, tuple(findings))


def _wrong(
    books: Books, name: str, target: str, rows: list[BatchRecord], *, deep: bool
) -> Iterator[tuple[int | None, str]]:
    letters = books.ledger.dead_letters.per_batch(name, target)
    for row in rows:
        if row.state is State.DONE:
            yield from ((row.seq, text) for text in _wrong_counts(row, letters.get(row.seq, 0)))
        if row.state in {State.SEALED, State.STAGED} and row.archive is None and row.kind is not BatchKind.RESET:
            yield row.seq, f"it is {row.state} and has no archive file"
        yield from ((row.seq, text) for text in _wrong_files(books, row, deep=deep))
    for each in GroupFiles(books.ledger, books.archive, name, target).all():
        yield from ((each.seq, text) for text in _wrong_file(books, each.file, deep=deep))
    yield from _wrong_places(books.ledger, name, target, rows)


def _wrong_counts(row: BatchRecord, letters: int) -> Iterator[str]:
    if not is_weighable(row):
        return
    if not is_balanced(row.counts):
        yield f"its counts do not balance{f' ({row.note})' if row.note else ''}"
    rejected = row.counts.rejected + row.counts.refused
    if letters != rejected:
        yield f"{rejected:,} of its records were rejected, {letters:,} are dead letters"


def _wrong_files(books: Books, row: BatchRecord, *, deep: bool) -> Iterator[str]:
    for file in _files(row):
        yield from _wrong_file(books, file, deep=deep)


def _wrong_file(books: Books, file: ArchiveFile, *, deep: bool) -> Iterator[str]:
    if deep:
        try:
            books.archive.open(file)
        except FatalError as error:
            yield str(error)
    elif not books.archive.holds(file):
        yield f"archive: {books.archive.root / file.path} is missing"


def _files(row: BatchRecord) -> list[ArchiveFile]:
    return [file for file in (row.archive, row.sidecar) if file is not None]


def _wrong_places(ledger: Ledger, name: str, target: str, rows: list[BatchRecord]) -> Iterator[tuple[int | None, str]]:
    """Each batch begins where the one before it ended, and the position is where the last one did."""
    fold = ledger.fold(name, target)
    at: dict[Split, Json] = dict(fold.ends) if fold else {}
    for row in rows:
        if row.state is State.DISCARDED or (row.state is State.DONE and not row.span.ranges):
            continue
        for part in row.span.ranges:
            if part.split in at and canonical(at[part.split]) != canonical(part.start):
                ended = canonical(at[part.split])
                yield row.seq, f"{part.split} begins at {canonical(part.start)}, the batch before ended at {ended}"
            at[part.split] = part.end
    position, planned = ledger.position(name, target), ledger.planned_position(name, target)
    for split, end in at.items():
        if canonical(planned.get(split)) != canonical(end):
            yield None, f"{split} stands at {canonical(position.get(split))}, the last batch ended at {canonical(end)}"
