"""The binlog read forward in batches: one open stream, which the next batch goes on with where the last one ended."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

from vector_assets.clients.mysql_binlog import BinlogStream, Ended, Event, Rows
from vector_assets.clients.mysql_ddl import OF_PARTITIONS, Ddl
from vector_assets.engine.core import canonical
from vector_assets.sources.mysql_changes import Piece
from vector_assets.sources.mysql_tokens import Place

Open = Callable[[Place], BinlogStream]
_GONE = frozenset({"DROP", "TRUNCATE", OF_PARTITIONS})


@dataclass(frozen=True, slots=True)
class Altered:
    """Tables were changed: what came before is of the epoch before. `late`: beyond the place that is read up to."""

    ddl: Ddl
    epoch: int
    late: bool = False


class TableGoneError(Exception):
    """A wanted table was dropped, emptied or renamed away: the binlog has no rows of that; `place` is after it."""

    def __init__(self, ddl: Ddl, place: Place) -> None:
        super().__init__(ddl.statement)
        self.ddl = ddl
        self.place = place


class Cursor:
    """A place in the binlog and the events from there on; changes of tables are told where it `follows` them."""

    def __init__(self, open_stream: Open, is_wanted: Callable[[str], bool], *, follows: bool = False) -> None:
        self._open, self._is_wanted, self._follows = open_stream, is_wanted, follows
        self._stream: BinlogStream | None = None
        self._events: Iterator[Event] = iter(())
        self._at: str | None = None
        self.ddl: Ddl | None = None

    def read(  # noqa: C901  # one state machine
        self, start: Place, end: Place, *, most_rows: int, most_bytes: int
    ) -> Iterator[Piece | Altered | Place]:
        """Rows from one place to another, at most so many (an update is never torn), then the place that was reached.

        A batch ends after a change of its tables, so that no batch has rows from before and after one.

        Raises:
            TableGoneError: what comes next is the end of a table.
        """
        here, left_rows, left_bytes, was_there = start, most_rows, most_bytes, False
        skip = start.skip or (0, 0)
        self.ddl = None
        events, is_kept = self._from(start)
        self._at = None
        for event in events:
            if isinstance(event, Ended):
                here = _after(here, event)
                skip = (0, 0)
                if self.ddl is not None or left_rows <= 0 or left_bytes <= 0 or _is_there(here, end):
                    return (yield self._stop(here, events))
            elif isinstance(event, Ddl):
                if is_end_of_table(event, self._is_wanted):
                    if was_there:
                        return (yield self._stop(here, chain([event], events)))
                    raise TableGoneError(event, self._behind(here, events))
                self.ddl = event
                if self._follows:
                    here = _next_epoch(here)
                    yield Altered(event, here.epoch or 0)
            elif event.number >= skip[0]:
                first = skip[1] if event.number == skip[0] else 0
                if _is_there(replace(here, skip=(event.number, first)), end):
                    return (yield self._stop(replace(here, skip=(event.number, first)), chain([event], events)))
                piece = Piece.of(event, epoch=here.epoch or 0)
                room = max(-(-left_rows // piece.images), 1)
                stop = min(first + room, piece.count)
                if end.skip is not None and end.skip[0] == event.number and _is_before(here, end):
                    stop = min(stop, end.skip[1])
                part = piece.cut(first, stop)
                yield part
                was_there = True
                left_rows -= len(part.cells)
                left_bytes -= len(event.data) * len(part.cells) // max(len(piece.cells), 1)
                if stop < piece.count:
                    return (yield self._stop(replace(here, skip=(event.number, stop)), chain([event], events)))
                if left_rows <= 0 or left_bytes <= 0:
                    return (yield self._stop(replace(here, skip=(event.number + 1, 0)), events))
        self.close()
        if is_kept and here == start and not was_there:
            # the stream ended at what was the end when it was opened
            yield from self.read(start, end, most_rows=most_rows, most_bytes=most_bytes)
        else:
            yield here
        return None

    def peek(self, start: Place) -> Place | None:
        """None when there is something to be read after a place, else how far there is nothing."""
        here, seen = start, []
        events, is_kept = self._from(start)
        for event in events:
            seen.append(event)
            if not isinstance(event, Ended):
                self._events, self._at = chain(seen, events), _name(start)
                return None
            here = _after(here, event)
        self.close()
        # a stream that was open may have been told the end before there was more
        return self.peek(here) if is_kept else here

    def _stop(self, here: Place, events: Iterator[Event]) -> Place:
        """The place that was reached; the stream stays open there."""
        self._events, self._at = events, _name(here)
        return here

    def _behind(self, here: Place, events: Iterator[Event]) -> Place:
        ended = next((event for event in events if isinstance(event, Ended)), None)
        self.close()
        here = _next_epoch(here) if self._follows else here
        return here if ended is None else _after(here, ended)

    def _from(self, start: Place) -> tuple[Iterator[Event], bool]:
        """What comes after a place, and whether by a stream that was open there already."""
        is_kept = self._at == _name(start)
        if not is_kept:
            self.close()
            self._stream = self._open(start)
            self._events = self._stream.events()
        return self._events, is_kept

    def close(self) -> None:
        """Give back connections; idempotent."""
        stream, self._stream = self._stream, None
        self._events, self._at = iter(()), None
        if stream is not None:
            stream.close()


def _name(place: Place) -> str:
    return canonical([place.gtid, place.file, place.pos, place.skip])


def _after(here: Place, ended: Ended) -> Place:
    gtids = here.gtids
    gtid = here.gtid if gtids is None or ended.gtid is None else str(gtids.plus(ended.gtid))
    return replace(
        here, gtid=gtid, file=ended.file, pos=ended.pos, at=ended.at_ms, skip=None, open=False,
        prepared=ended.prepared or None,
    )  # fmt: skip


def _next_epoch(here: Place) -> Place:
    return replace(here, epoch=(here.epoch or 0) + 1)


def _is_before(here: Place, end: Place) -> bool:
    """True when the transaction that comes next is the one that the end lies in."""
    return here.gtid == end.gtid and (here.gtid is not None or here.file_place == end.file_place)


def _is_there(here: Place, end: Place) -> bool:
    if here.behind(end) > 0:
        return False
    return end.skip is None or (here.skip or (0, 0)) >= end.skip or not _is_before(here, end)


def is_end_of_table(ddl: Ddl, is_wanted: Callable[[str], bool]) -> bool:
    """True when rows of a wanted table go, or go on under a name that is not wanted, without a word in the binlog."""
    if ddl.verb in _GONE:
        return True
    if len(ddl.tables) == 0 or ddl.verb not in {"RENAME", "ALTER"}:
        return False
    old, new = ddl.old_and_new
    return any(is_wanted(name) and name not in new for name in old) if new else False


__all__ = ["Altered", "Cursor", "Open", "Rows", "TableGoneError", "is_end_of_table"]
