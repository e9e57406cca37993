"""The rows of one partition after the other, in the declared types, through sessions that tokens keep.

A session that has expired is followed by another one if the partition still is what it was (time of change, rows);
otherwise, and whenever the service says that it was modified, the position is lost under a name.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import pyarrow as pa

from vector_assets.clients.maxcompute import MaxColumn, MaxCompute, MaxTable
from vector_assets.clients.maxcompute_errors import (
    NoPartitionError,
    NoTableError,
    SessionEndedError,
    TableModifiedError,
)
from vector_assets.clients.maxcompute_read import Snapshot, check_readable, open_snapshot
from vector_assets.clients.maxcompute_storage import ReadSession, open_session
from vector_assets.clients.maxcompute_types import is_widening
from vector_assets.engine.core import Split
from vector_assets.engine.errors import GapKind, PlanError, PositionLostError
from vector_assets.engine.schema import Table
from vector_assets.sources.maxcompute_ahead import AHEAD, Rows, StorageRows, Taken, TunnelRows
from vector_assets.sources.maxcompute_options import MaxComputeSourceOptions
from vector_assets.sources.maxcompute_tokens import Place, spec_of

_KEPT = 4
"""Sessions whose rows are fetched ahead; a batch over more partitions opens the older ones again."""


class Parts:
    """One table's partitions, by their splits. Not thread-safe."""

    def __init__(self, options: MaxComputeSourceOptions, declared: Table) -> None:
        self.service = MaxCompute.of(options)
        self._options = options
        self._declared = declared
        self._table: MaxTable | None = None
        self._columns: list[MaxColumn] = []
        self._open: dict[Split, Rows] = {}
        self._followed: dict[str, str] = {}
        self._threads: ThreadPoolExecutor | None = None

    def table(self, *, now: bool = False) -> MaxTable:
        """The table, checked against the declaration when it is first asked for; `now`: as it is at this moment.

        Raises:
            PlanError: it is a Delta table or a view, lacks a column, or has one of another type.
        """
        if self._table is None or now:
            self._table = self.service.table(self._options.table_name)
            self._columns = self._checked(self._table)
        return self._table

    @property
    def is_known_partitioned(self) -> bool:
        """True when the table has been asked for and has partitions, whose statistics are asked for by themselves."""
        return self._table is not None and self._table.is_partitioned

    def _checked(self, table: MaxTable) -> list[MaxColumn]:
        check_readable(table)
        columns = []
        for column in self._declared.physical:
            found = table.column(column.name)
            if not is_widening(found.type, column.type):
                raise PlanError(
                    f"maxcompute: table {table.name}: column {found.name} is {found.text.upper()}, which is read as"
                    f" {found.type}; the declaration says {column.type}"
                )
            columns.append(found)
        table.check_nested([column.name for column in columns])
        return columns

    def begun(self, split: Split, place: Place) -> Place:
        """The place with the session that its rows come from; one is opened where there is none.

        Raises:
            PositionLostError: the partition is gone, or has fewer rows than the place says.
        """
        if place.session is not None:
            return replace(place, session=self._followed.get(place.session, place.session))
        return self._opened(split, place)

    def _opened(self, split: Split, place: Place) -> Place:
        table = self.table()
        try:
            # the time of change is asked for first: a change in between then ends the session, never the other way
            modified = self._modified(split)
            if self._options.use_arrow:
                session = open_session(self.service, table, spec_of(split), self._columns, self._options.split_size)
                rows: Rows = self._storage_rows(session)
                found = replace(place, session=session.id, modified=modified, parts=session.splits)
                found = found if session.splits else found.done()
            else:
                snapshot = open_snapshot(self.service, table, spec_of(split))
                rows = TunnelRows(self.service, snapshot, self._columns, self._fetchers())
                found = replace(place, session=snapshot.id, modified=modified, until=snapshot.rows)
        except (NoPartitionError, NoTableError) as error:
            raise self._lost(split, place, "DELETED", str(error)) from error
        if found.until is not None and place.offset > found.until:
            raise self._lost(split, place, "BEYOND_END", f"it has {found.until} rows, row {place.offset} was next")
        self._keep(split, rows)
        return found

    def _modified(self, split: Split) -> int:
        spec = spec_of(split)
        table = self.table(now=spec is None)
        return table.modified if spec is None else self.service.partition(table, spec).modified

    def _fetchers(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(AHEAD, thread_name_prefix="maxcompute")
        return self._threads

    def _storage_rows(self, session: ReadSession) -> StorageRows:
        options = self._options
        return StorageRows(self.service, session, options.compress_codec, balances=options.dynamic_load_balance)

    def _keep(self, split: Split, rows: Rows) -> None:
        old = self._open.pop(split, None)
        if old is not None:
            old.close()
        self._open[split] = rows
        while len(self._open) > _KEPT:
            self._open.pop(next(iter(self._open))).close()

    def _rows(self, split: Split, place: Place) -> Rows:
        """The rows of the place's session: those at hand, else by what the token says of it."""
        assert place.session is not None
        rows = self._open.get(split)
        if rows is None or rows.session != place.session:
            table, spec = self.table(), spec_of(split)
            if self._options.use_arrow:
                rows = self._storage_rows(ReadSession(table, spec, place.session, place.parts or 0))
            else:
                snapshot = Snapshot(table, spec, place.session, place.until or 0)
                rows = TunnelRows(self.service, snapshot, self._columns, self._fetchers())
            self._keep(split, rows)
        return rows

    def read(self, split: Split, start: Place, count: int, most_bytes: int) -> Iterator[Taken]:
        """Up to `count` rows from a place that has begun; each batch in the declared types, with the place after it.

        Raises:
            PositionLostError: the partition was modified or dropped after the place was taken.
        """
        here = start
        while True:
            try:
                for batch, after in self._rows(split, here).read(here, start.offset + count - here.offset, most_bytes):
                    here = after
                    most_bytes -= batch.nbytes
                    yield self._declared_rows(batch), after
                return
            except TableModifiedError as error:
                raise self._changed(split, here, str(error)) from error
            except SessionEndedError as error:
                here = self._followed_up(split, here, str(error))
            except (NoPartitionError, NoTableError) as error:
                raise self._lost(split, here, "DELETED", str(error)) from error

    def _changed(self, split: Split, place: Place, why: str) -> PositionLostError:
        """The service says that the rows are not what they were: because they are gone, or others."""
        try:
            self._modified(split)
        except (NoPartitionError, NoTableError):
            return self._lost(split, place, "DELETED", f"{why}; it was dropped")
        return self._lost(split, place, "RECREATED", why)

    def _followed_up(self, split: Split, place: Place, why: str) -> Place:
        """The same place in a new session, if the partition is still the same."""
        fresh = self._opened(split, replace(place, session=None, until=None))
        is_same = (fresh.modified, fresh.until or place.until) == (place.modified, place.until or fresh.until)
        if not is_same or (place.parts is not None and fresh.parts != place.parts):
            was, now = (_time(moment) for moment in (place.modified, fresh.modified))
            found = f"changed {now} with {fresh.until} rows, wanted changed {was} with {place.until} rows"
            raise self._lost(split, place, "RECREATED", f"{why}; a new session shows another version: found {found}")
        if place.session and fresh.session:
            self._followed[place.session] = fresh.session
        return fresh

    def _declared_rows(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The declared columns in their types."""
        arrays = []
        for found, column in zip(self._columns, self._declared.physical, strict=True):
            array = batch.column(found.name)
            arrays.append(
                array if array.type == column.type.arrow else self._cast(array, column.type.arrow, found.name)
            )
        names = [column.name for column in self._declared.physical]
        return pa.RecordBatch.from_arrays(arrays, names=names)

    def _cast(self, array: pa.Array, kind: pa.DataType, name: str) -> pa.Array:
        try:
            return array.cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            raise PlanError(
                f"maxcompute: {self.table().name}: column {name}: {array.type} as {kind}: {error}"
            ) from error

    def _lost(self, split: Split, place: Place, kind: GapKind, why: str) -> PositionLostError:
        return PositionLostError(
            f"maxcompute: {split}: rows from {place.offset} on are not those of the version that is being read: {why}",
            kind,
            {split: (place.offset, place.until)},
            {split: place.done().token},
        )

    def close(self) -> None:
        """Stop what is fetched ahead, give back connections; idempotent."""
        for rows in self._open.values():
            rows.close()
        self._open = {}
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=True, cancel_futures=True)
        self._table = None
        self.service.close()


def _time(moment: int | None) -> str:
    return datetime.fromtimestamp(moment or 0, UTC).isoformat()
