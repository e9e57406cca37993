"""Rows fetched ahead of the reader: ranges of a tunnel session, and splits of a storage session, by a few threads."""

import queue
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Protocol

import pyarrow as pa

from vector_assets.clients.maxcompute import MaxColumn, MaxCompute
from vector_assets.clients.maxcompute_read import Snapshot, next_size, read_rows
from vector_assets.clients.maxcompute_storage import ReadSession, StorageCodec, read_split
from vector_assets.engine.errors import VectorAssetsError
from vector_assets.engine.retry import attempts
from vector_assets.sources.maxcompute_tokens import Place

AHEAD = 3
"""Requests under way at a time."""
_FIRST_ROWS = 8192
_QUEUED = 4
"""Batches of one storage split that wait to be taken."""
_TICK_S = 0.2

Taken = tuple[pa.RecordBatch, Place]


class Rows(Protocol):
    """The rows of one session in order."""

    session: str

    def read(self, place: Place, count: int, most_bytes: int) -> Iterator[Taken]:
        """Up to `count` rows and about so many bytes (a row at least) from a place on; each batch with the place after.

        Fewer come only at the end of the session.
        """
        ...

    def close(self) -> None:
        """Stop what is under way."""
        ...


def cut(batch: pa.RecordBatch, most_bytes: int, least: int) -> pa.RecordBatch:
    """As many of its rows as about so many bytes hold, `least` at least."""
    if batch.nbytes <= most_bytes:
        return batch
    return batch.slice(0, max(batch.num_rows * max(most_bytes, 0) // batch.nbytes, least))


class TunnelRows:
    """Rows of a download session, a range per request, several requests at a time (each thread keeps a connection)."""

    def __init__(
        self, service: MaxCompute, snapshot: Snapshot, columns: Sequence[MaxColumn], threads: ThreadPoolExecutor
    ) -> None:
        self.session = snapshot.id
        self._service, self._snapshot, self._columns = service, snapshot, columns
        self._threads = threads
        self._asked: deque[tuple[int, int, Future[list[pa.RecordBatch]]]] = deque()
        self._next = 0
        self._size = _FIRST_ROWS

    def read(self, place: Place, count: int, most_bytes: int) -> Iterator[Taken]:
        """See `Rows`."""
        end = min(place.offset + count, self._snapshot.rows)
        at = place.offset
        while at < end:
            for batch in self._from(at):
                piece = cut(batch.slice(0, end - at), most_bytes, least=int(at == place.offset))
                if not piece.num_rows:
                    return
                most_bytes -= piece.nbytes
                at += piece.num_rows
                yield piece, self._at(place, at)
                if at == end or piece.num_rows < batch.num_rows:
                    break

    def _at(self, place: Place, offset: int) -> Place:
        return Place(offset, self._snapshot.rows, self.session, place.modified)

    def _from(self, at: int) -> list[pa.RecordBatch]:
        """The rest of the range that row `at` is in."""
        while self._asked and not self._asked[0][0] <= at < self._asked[0][0] + self._asked[0][1]:
            self._asked.popleft()[2].cancel()
        if not self._asked:
            self._next = at
        while len(self._asked) < AHEAD and self._next < self._snapshot.rows:
            size = min(self._size, self._snapshot.rows - self._next)
            fetch = partial(read_rows, self._service, self._snapshot, self._columns, self._next, size)
            self._asked.append((self._next, size, self._threads.submit(fetch)))
            self._next += size
        first, _, future = self._asked[0]
        try:
            batches = future.result()
        except VectorAssetsError:
            self._forget()
            raise
        self._size = next_size(batches)
        return _after(batches, at - first)

    def _forget(self) -> None:
        while self._asked:
            self._asked.pop()[2].cancel()

    def close(self) -> None:
        """See `Rows`; the threads are the caller's."""
        self._forget()


def _after(batches: Sequence[pa.RecordBatch], skip: int) -> list[pa.RecordBatch]:
    left = []
    for batch in batches:
        if skip < batch.num_rows:
            left.append(batch.slice(skip))
        skip = max(skip - batch.num_rows, 0)
    return left


class StorageRows:
    """Rows of a read session of the storage API: its splits in order, fetched by a few threads.

    With `balances` the threads take the next split from one queue; otherwise each has every n-th.
    """

    def __init__(self, service: MaxCompute, session: ReadSession, codec: StorageCodec, *, balances: bool) -> None:
        self.session = session.id
        self._service, self._session, self._codec = service, session, codec
        self._balances = balances
        self._lanes: _Lanes | None = None
        self._at = Place()
        self._rest: pa.RecordBatch | None = None

    def read(self, place: Place, count: int, most_bytes: int) -> Iterator[Taken]:
        """See `Rows`; the place after the last row of the session is done."""
        if self._lanes is None or self._at.offset != place.offset:
            self._seek(place)
        end = place.offset + count
        while self._at.offset < end and (batch := self._peek()) is not None:
            piece = cut(batch.slice(0, end - self._at.offset), most_bytes, least=int(self._at.offset == place.offset))
            if not piece.num_rows:
                return
            most_bytes -= piece.nbytes
            self._take(piece, batch)
            yield piece, self._known(place)

    def _known(self, place: Place) -> Place:
        """Where it stands; whether anything comes after it is looked up, so that the last row is known to be it."""
        is_last = self._peek() is None
        at = self._at
        found = Place(at.offset, None, self.session, place.modified, at.part, at.row, self._session.splits)
        return found.done() if is_last else found

    def _seek(self, place: Place) -> None:
        """Begin at a place: at its split and row, or so many rows after the first where it does not know them."""
        self.close()
        is_known = place.part is not None
        skip = 0 if is_known else place.offset
        self._at = Place(place.offset - skip, part=place.part or 0, row=place.row or 0)
        self._lanes = _Lanes(
            self._service, self._session, self._codec, place.part or 0, place.row or 0, balances=self._balances
        )
        while skip and (batch := self._peek()) is not None:
            piece = batch.slice(0, skip)
            self._take(piece, batch)
            skip -= piece.num_rows

    def _peek(self) -> pa.RecordBatch | None:
        """What comes next, without taking it; after an error reading begins anew."""
        assert self._lanes is not None
        while self._rest is None:
            try:
                self._rest = self._lanes.get(self._at.part or 0)
            except BaseException:
                self.close()
                raise
            if self._rest is None:
                if (self._at.part or 0) + 1 >= self._session.splits:
                    return None
                self._at = Place(self._at.offset, part=(self._at.part or 0) + 1, row=0)
        return self._rest

    def _take(self, piece: pa.RecordBatch, whole: pa.RecordBatch) -> None:
        self._rest = whole.slice(piece.num_rows) if piece.num_rows < whole.num_rows else None
        row = (self._at.row or 0) + piece.num_rows
        self._at = Place(self._at.offset + piece.num_rows, part=self._at.part, row=row)

    def close(self) -> None:
        """See `Rows`."""
        lanes, self._lanes = self._lanes, None
        self._rest = None
        if lanes is not None:
            lanes.close()


class _Lanes:
    """Threads that fetch splits from (part, row) on; each split's batches wait in a queue of its own."""

    def __init__(
        self, service: MaxCompute, session: ReadSession, codec: StorageCodec, part: int, row: int, *, balances: bool
    ) -> None:
        self._service, self._session, self._codec = service, session, codec
        self._first = (part, row)
        self._stop = threading.Event()
        parts = range(part, session.splits)
        self._queues: dict[int, queue.Queue[pa.RecordBatch | BaseException | None]] = {
            number: queue.Queue(_QUEUED) for number in parts
        }
        shared = iter(parts)
        self._shared = threading.Lock()
        works = [shared if balances else iter(parts[lane::AHEAD]) for lane in range(min(AHEAD, len(parts)))]
        # daemons: one that waits for its batches to be taken must not keep a process alive whose reader died
        self._threads = [
            threading.Thread(target=self._fetch_all, args=(work,), name=f"maxcompute-{lane}", daemon=True)
            for lane, work in enumerate(works)
        ]
        for thread in self._threads:
            thread.start()

    def get(self, part: int) -> pa.RecordBatch | None:
        """The next batch of a split, None at its end.

        Raises:
            VectorAssetsError: what its thread met.
        """
        if part not in self._queues:
            return None
        found = self._queues[part].get()
        if isinstance(found, BaseException):
            raise found
        if found is None:
            del self._queues[part]
        return found

    def _fetch_all(self, work: Iterator[int]) -> None:
        while not self._stop.is_set():
            with self._shared:
                part = next(work, None)
            if part is None:
                return
            try:
                self._fetch(part)
            except VectorAssetsError as error:
                self._put(part, error)
                return
            except BaseException as error:
                self._put(part, error)  # who waits for the split must not wait for ever
                raise

    def _fetch(self, part: int) -> None:
        """One split; a stream that is cut goes on after the rows it gave."""
        row = self._first[1] if part == self._first[0] else 0
        for attempt in attempts(self._service.policy, place=f"maxcompute: {self._session.place}: split {part}"):
            with attempt:
                for batch in read_split(self._service, self._session, part, self._codec, row):
                    row += batch.num_rows
                    if not self._put(part, batch):
                        return
        self._put(part, None)

    def _put(self, part: int, found: pa.RecordBatch | BaseException | None) -> bool:
        waiting = self._queues[part]
        while not self._stop.is_set():
            try:
                waiting.put(found, timeout=_TICK_S)
            except queue.Full:
                continue
            return True
        return False

    def close(self) -> None:
        """Stop the threads."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
