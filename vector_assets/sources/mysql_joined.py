"""Several MySQL tables joined by key as one source of whole rows.

The binlog of each table says which keys changed; their rows are then read by one SELECT with all tables, at a moment
that is not before the change. So a row is always whole, whatever table changed, and what was read is what the archive
keeps: a replay gives the same rows. A key without a row in the driving table is a delete; another table without a row
for it has NULLs.

During the initial snapshot the target has the driving table's rows up to a key. Changes of another table bring no row
that is beyond it: should that row be deleted before the snapshot comes to it, nothing would say so.
"""

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.clients.mysql import MySql
from vector_assets.clients.mysql_gtid import Gtids
from vector_assets.clients.mysql_keys import Key
from vector_assets.engine.abilities import Finding
from vector_assets.engine.core import KIND, BatchLimit, Position, RowKind, Span, Split
from vector_assets.engine.errors import ConfigError, PositionLostError, TransientError
from vector_assets.engine.schema import Table
from vector_assets.engine.typed import typed_schema
from vector_assets.sources.mysql import MySqlCdcSource
from vector_assets.sources.mysql_join import Join
from vector_assets.sources.mysql_joined_options import MySqlJoinedOptions
from vector_assets.sources.mysql_tokens import SPLIT, Place, counted

_VISIBLE_S = 10.0
"""How long a transaction of the binlog may take to be seen by a SELECT; it is milliseconds unless the server hangs."""
_LOOK_S = 0.002


class MySqlJoinedSource:
    """Rows of the options' join, as `table` has its columns. Each table is a split of its own."""

    TYPED: ClassVar[bool] = True
    CHANGELOG: ClassVar[bool] = True

    def __init__(
        self, options: MySqlJoinedOptions, table: Table, *, pipeline: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._options = options
        self._schema = typed_schema(table, has_kinds=True)
        self._server = MySql(options.reader.login)
        self._join = Join(options, table)
        self._readers = {
            split: MySqlCdcSource(options.of(number), Table(each.name, each.keys), pipeline=pipeline, clock=clock)
            for number, (split, each) in enumerate(zip(options.splits, options.tables, strict=True))
        }
        self._starts: Position = {}

    def start(self) -> Position:
        """Where the reader's startup mode says; the driving table comes last, so that no change of another is missed.

        Raises:
            ConfigError: the server's settings, or the options, do not do.
            PlanError: a table is missing, or cannot be read as declared.
        """
        self._check_visible()
        return self._visible({split: self._readers[split].start()[SPLIT] for split in reversed(self._options.splits)})

    def frontier(self) -> Position:
        """The end of the binlog now, for every table."""
        token = self._readers[self._options.splits[0]].frontier()[SPLIT]
        return dict.fromkeys(self._options.splits, token)

    def plan(self, start: Position, limit: BatchLimit) -> Span | None:
        """What each table has next; None when none has anything."""
        if self._options.is_finished(start):
            return None
        found = []
        self._starts = start
        for split, reader in self._readers.items():
            until = {SPLIT: limit.until[split]} if limit.until is not None and split in limit.until else None
            with self._renamed(split):
                span = reader.plan({SPLIT: start[split]}, self._shared(limit, until))
            found += [replace(part, split=split) for part in span.ranges] if span is not None else []
        return Span(tuple(found)) if found else None

    def _shared(self, limit: BatchLimit, until: Position | None) -> BatchLimit:
        """What one table may take of a batch."""
        count = len(self._readers)
        return BatchLimit(max(limit.rows // count, 1), max(limit.bytes // count, 1), until)

    def read(self, span: Span, limit: BatchLimit) -> Generator[pa.RecordBatch, None, Span]:
        """The rows of keys that changed, table by table.

        Raises:
            PositionLostError: the binlog is not there (any more), or a table is gone.
            PlanError: a table is not as declared.
            TransientError: the server does not show what its binlog has.
        """
        ends, up_to = [], None
        for number, part in enumerate(span.ranges):
            inner, share = Span((replace(part, split=SPLIT),)), self._shared(limit, None)
            with self._renamed(part.split):
                raw, reached = _whole(self._readers[part.split].read(inner, share))
            (end,) = reached.ranges
            here = Place.of(end.end)
            if here.table is not None:
                up_to = here.after
            if raw:
                self._wait_for(here)
            for batch in raw:
                yield from self._rows(part.split, number, batch, up_to)
            ends.append(replace(end, split=part.split))
        return Span(tuple(ends))

    def _rows(self, split: Split, number: int, raw: pa.RecordBatch, up_to: Key | None) -> Iterator[pa.RecordBatch]:
        """Records of one table with the join's rows in place of their own; keys that are no row's are left out, and
        rows that come once more, as both images of an update do."""
        which = self._options.splits.index(split)
        values = raw.column("value")
        asked = [pc.struct_field(values, [place]) for place in range(len(self._options.tables[which].keys))]
        found = self._join.rows(asked, up_to)
        is_kept = ~found.is_again & (found.is_there | (which == 0))
        if not is_kept.any():
            return
        kinds = np.where(found.is_there, np.int8(RowKind.UPDATE_AFTER), np.int8(RowKind.DELETE))
        rows = found.columns if which else self._with_keys(found.columns, asked, found.is_there)
        kind = self._schema.field("value").type
        assert kind.field(kind.num_fields - 1).name == KIND
        made = pa.StructArray.from_arrays([*rows, pa.array(kinds)], fields=list(kind))
        raw = raw.set_column(raw.schema.get_field_index("value"), self._schema.field("value"), made)
        splits = pa.array(np.full(len(values), number, np.int16))
        raw = raw.set_column(raw.schema.get_field_index("split"), self._schema.field("split"), splits)
        yield raw.filter(pa.array(is_kept)) if not is_kept.all() else raw

    def _with_keys(self, columns: list[Any], asked: list[Any], is_there: Any) -> list[Any]:
        """The columns; rows that are gone have the key that was asked for."""
        there = pa.array(is_there)
        for place, name in enumerate(self._options.key):
            at = self._join.names.index(name)
            columns[at] = pc.if_else(there, columns[at], asked[place].cast(columns[at].type))
        return columns

    def _visible(self, position: Position) -> Position:
        """The position, when a SELECT sees everything before it: what nobody reads any more the snapshot has to see."""
        for token in position.values():
            self._wait_for(Place.of(token))
        return position

    def _wait_for(self, place: Place) -> None:
        """Return when a SELECT sees everything before a place of the binlog, and the transaction that the place is in:
        a server may send a transaction to its replicas a moment before it commits it itself.

        Raises:
            TransientError: it still does not.
        """
        gtids = place.gtids
        if place.skip is not None:
            # the transaction is among those that the server has now
            self._server.settle()
            gtids = self._server.binlog().last
        if not gtids:
            return
        deadline = time.monotonic() + _VISIBLE_S
        while not self._seen().holds(gtids):
            if time.monotonic() > deadline:
                raise TransientError(
                    f"{self._options.reader.login.where}: its binlog has {gtids}, which a SELECT does not see after"
                    f" {_VISIBLE_S:g} s"
                )
            time.sleep(_LOOK_S)

    def _seen(self) -> Gtids:
        """The transactions that a SELECT sees now."""
        if not self._server.is_mariadb:
            return Gtids.of(self._server.value("SELECT @@GLOBAL.gtid_executed") or "")
        # the only statement that ties what is seen to a place of the binlog
        self._server.rows("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        status = dict(self._server.rows("SHOW STATUS LIKE 'binlog_snapshot_%'"))
        self._server.rows("COMMIT")
        file, pos = status["Binlog_snapshot_file"], int(status["Binlog_snapshot_position"])
        found = self._server.value("SELECT BINLOG_GTID_POS(%s, %s)", (file, pos))
        return Gtids.of(found or "", is_mariadb=True)

    def _check_visible(self) -> None:
        """Make sure that the server can tell what a SELECT sees.

        Raises:
            ConfigError: it is a MySQL without GTIDs.
        """
        is_on = self._server.is_mariadb or self._server.variables("gtid_mode").get("gtid_mode") == "ON"
        if not is_on:
            raise ConfigError(
                f"{self._options.reader.login.where}: gtid_mode = OFF (want ON): several tables are read together only"
                " where the server tells which transactions a SELECT sees"
            )

    @contextmanager
    def _renamed(self, split: Split) -> Iterator[None]:
        """A loss under the split's name. Unless the driving table itself is gone, going on is reading all rows anew:
        with them comes what other tables lost."""
        try:
            yield
        except PositionLostError as error:
            missing = _under(split, error.missing)
            resume = _under(split, error.resume)
            if self._options.reader.has_snapshot and (error.kind != "DELETED" or split != self._options.splits[0]):
                resume = {
                    each: replace(Place.of(token), offset=Place.of(self._starts.get(each)).offset).token
                    for each, token in self.start().items()
                }
            message = str(error).removeprefix(f"{error.kind}: ")
            raise PositionLostError(message, error.kind, missing, resume, error.policy) from error

    def lag(self, position: Position, frontier: Position) -> int:
        """Transactions between the two (counted once for all tables), or records between two places read up to."""
        each = [
            counted({SPLIT: position.get(split)}, {SPLIT: frontier[split]})
            for split in self._options.splits
            if split in frontier
        ]
        is_read = not any(Place.of(frontier.get(split)).open for split in self._options.splits)
        return sum(each) if is_read else max(each, default=0)

    def locate(self, where: str) -> Position:
        """`initial` (all rows anew), `earliest`, `latest`, or a set of GTIDs.

        Raises:
            ConfigError: the words are not understood.
        """
        word = where.strip().removesuffix("-offset")
        found = {}
        for number, (split, reader) in enumerate(self._readers.items()):
            found[split] = reader.locate("latest" if word == "initial" and number else where)[SPLIT]
        return self._visible(found)

    def diagnose(self) -> Iterator[Finding]:
        """The server and its binlog, and each table."""
        for number, reader in enumerate(self._readers.values()):
            findings = list(reader.diagnose())
            yield from findings if not number else findings[2:]

    def close(self) -> None:
        """Give back connections; idempotent."""
        self._server.close()
        for reader in self._readers.values():
            reader.close()


def _under(split: Split, found: Mapping[Split, Any]) -> dict[Split, Any]:
    """What a reader says of its only split, under another name."""
    return {split: found[SPLIT]} if SPLIT in found else {}


def _whole(reading: Generator[pa.RecordBatch, None, Span]) -> tuple[list[pa.RecordBatch], Span]:
    """Everything that is read, and how far."""
    found = []
    while True:
        try:
            found.append(next(reading))
        except StopIteration as end:
            return found, end.value
