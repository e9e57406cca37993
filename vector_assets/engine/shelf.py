"""Records that a source has lost but an archive still holds: found by the spans that files say they are of.

A file counts when it was written by this pipeline, or by another one that reads the same of the source (such as the
same isolation level), from the same split: the name of a split says which incarnation of a topic it is. A file holds
every record of its span, so what several spans cover without a hole between them can stand in for the source.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine.abilities import Numbered
from vector_assets.engine.archive import ArchiveFile, Label
from vector_assets.engine.core import BatchKind, Position, Range, Span, Split
from vector_assets.engine.errors import PositionLostError
from vector_assets.engine.session import Session

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Copy:
    """Records `start` to `end` (exclusive) of a split in a file, where they have the number `index`."""

    label: Label
    index: int
    start: int
    end: int


class Shelf:
    """The archive of one session, as a stand-in for its source."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def ranges(self, span: Span) -> dict[Split, tuple[int, int | None]]:
        """The span's splits with their first number and the one after their last."""
        source = self._session.source
        assert isinstance(source, Numbered)
        return {part.split: (source.number(part.start), source.number(part.end)) for part in span.ranges}

    def fill(self, error: PositionLostError, position: Position, most_rows: int) -> tuple[Span, pa.Table] | None:
        """Lost records that come next after `position`, at most so many, and their span; None when there are none."""
        source = self._session.source
        if not isinstance(source, Numbered):
            return None
        copies = self._copies(set(error.missing))
        ranges: list[Range] = []
        tables: list[pa.Table] = []
        for split, (begin, end) in error.missing.items():
            left = most_rows - sum(table.num_rows for table in tables)
            if split not in position or source.number(position[split]) != begin or left <= 0:
                continue
            reached, found = self._read(copies.get(split, []), begin, end, left, len(ranges))
            if reached > begin:
                ranges.append(Range(split, position[split], source.token(reached, position[split])))
                tables += found
        if not ranges:
            return None
        return Span(tuple(ranges)), pa.concat_tables(tables or [self._session.pipeline.raw_schema.empty_table()])

    def _read(
        self, copies: list[Copy], begin: int, end: int | None, most_rows: int, number: int
    ) -> tuple[int, list[pa.Table]]:
        """How far the copies reach without a hole, and the records up to there as those of split `number`."""
        reached, tables = begin, []  # type: int, list[pa.Table]
        while (end is None or reached < end) and most_rows > 0:
            covering = [copy for copy in copies if copy.start <= reached < copy.end]
            if not covering:
                break
            copy = max(covering, key=lambda copy: copy.end)
            stop = copy.end if end is None else min(copy.end, end)
            rows = self._rows(copy, reached, stop)
            if rows is None:
                copies = [each for each in copies if each is not copy]
                continue
            if rows.num_rows > most_rows:
                rows = rows.slice(0, most_rows)
                stop = int(rows.column("offset").to_numpy()[-1]) + 1
            split = pa.array([number], pa.int16()).take(pa.repeat(pa.scalar(0), rows.num_rows))
            tables.append(rows.set_column(rows.column_names.index("split"), rows.schema.field("split"), split))
            most_rows -= rows.num_rows
            reached = stop
        return reached, tables

    def _rows(self, copy: Copy, begin: int, end: int) -> pa.Table | None:
        """Records of a copy, None when they are not of the schema that is read today.

        Raises:
            FatalError: the file is not byte for byte what the ledger knows.
        """
        raw = self._session.books.archive.read(self._file(copy.label))
        if not raw.schema.equals(self._session.pipeline.raw_schema):
            log.warning("archive: %s is not used: its records have another schema", copy.label.path)
            return None
        offset = raw.column("offset")
        is_wanted = pc.and_(pc.greater_equal(offset, begin), pc.less(offset, end))
        return raw.filter(pc.and_(pc.equal(raw.column("split"), copy.index), is_wanted))

    def _file(self, label: Label) -> ArchiveFile:
        """The file as the ledger knows it; hashed as found when the ledger does not."""
        for batch in self._session.ledger.batches(label.notes["pipeline"], after=int(label.notes["seq"]) - 1, limit=2):
            if batch.archive is not None and batch.archive.path == label.path:
                return batch.archive
        return self._session.books.archive.file(label.path)

    def _copies(self, splits: set[Split]) -> dict[Split, list[Copy]]:
        found: dict[Split, list[Copy]] = {}
        for label in self._session.books.archive.labels():
            if self._counts(label):
                for copy, split in self._in(label):
                    if split in splits:
                        found.setdefault(split, []).append(copy)
        return found

    def _counts(self, label: Label) -> bool:
        pipeline, reading = self._session.pipeline, self._session.pipeline.source_options.reading()
        if label.notes.get("kind") != BatchKind.RECORDS or "span" not in label.notes:
            return False
        same = label.notes.get("reading")
        return same == reading if same is not None else label.notes["pipeline"] == pipeline.name

    def _in(self, label: Label) -> Iterator[tuple[Copy, Split]]:
        source = self._session.source
        assert isinstance(source, Numbered)
        for index, (split, start, end) in enumerate(orjson.loads(label.notes["span"])):
            yield Copy(label, index, source.number(start), source.number(end)), split
