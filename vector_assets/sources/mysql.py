"""MySQL (and MariaDB) tables as a source: all rows first, in chunks and without locks, then every change.

Positions are GTIDs (file and position where a MySQL has none); see `mysql_tokens` for what a token says and
`mysql_snapshot` for how the two phases become one line without a loss or a double.
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pyarrow as pa

from vector_assets.clients.mysql import Binlog, MySql, check_binlog
from vector_assets.clients.mysql_binlog import BinlogStream, PlaceLostError
from vector_assets.clients.mysql_keys import Key, key_columns
from vector_assets.clients.mysql_schema import MySqlColumn, MySqlTable, discover
from vector_assets.engine.abilities import Finding
from vector_assets.engine.core import BatchLimit, Position, Range, Span, Token
from vector_assets.engine.errors import ConfigError, GapKind, PlanError, PositionLostError, UnavailableError
from vector_assets.engine.metadata import Keys
from vector_assets.engine.schema import Table
from vector_assets.engine.typed import typed_schema
from vector_assets.sources.mysql_changes import Images, Piece, check_zeros, together
from vector_assets.sources.mysql_fit import fit, records
from vector_assets.sources.mysql_follow import Follower, known_names
from vector_assets.sources.mysql_metadata import METADATA
from vector_assets.sources.mysql_modes import Modes, first_chunk
from vector_assets.sources.mysql_options import MySqlCdcOptions
from vector_assets.sources.mysql_snapshot import Chunk, Merger, read_chunk
from vector_assets.sources.mysql_stream import Altered, Cursor, TableGoneError
from vector_assets.sources.mysql_tokens import SPLIT, Place, counted

__all__ = ["MySqlCdcOptions", "MySqlCdcSource"]

_ANY = 1 << 62
_MOST_TRIES = 5


class MySqlCdcSource:
    """The tables that the options' expressions match, as one table of the declared columns.

    One that `follows` gives all columns that the tables have where it reads (`engine/captured.py`), whatever is
    declared.
    """

    TYPED: ClassVar[bool] = True
    CHANGELOG: ClassVar[bool] = True
    METADATA: ClassVar[Keys] = METADATA

    def __init__(
        self, options: MySqlCdcOptions, table: Table, *, pipeline: str = "", clock: Callable[[], float] = time.time,
        follows: bool = False, times_as_text: bool = False,
    ) -> None:  # fmt: skip
        """Keep what it needs; with `times_as_text`, followed TIME columns are given as text."""
        self._options = options
        self._pipeline = pipeline or table.name
        self._columns = table.physical
        self._schema = typed_schema(table, has_kinds=True)
        self._server = MySql(options.login)
        self._modes = Modes(self._server, options)
        self._clock = clock
        self._follows, self._times_as_text = follows, times_as_text
        self._cursor = Cursor(self._open, self._is_wanted, follows=follows)
        self._found: list[MySqlTable] | None = None
        self._quiet: tuple[str, Place] | None = None

    @property
    def _where(self) -> str:
        return f"{self._pipeline}: {self._options.login.where}"

    def start(self) -> Position:
        """Where the startup mode says.

        Raises:
            ConfigError: the server's settings, or the options, do not do.
            PlanError: no table matches, or one cannot be read as declared.
        """
        check_binlog(self._server)
        tables = self._checked()
        return {SPLIT: self._modes.start(tables).token}

    def frontier(self) -> Position:
        """The end of the binlog now; how many records come before it is not known."""
        token = Place.now(self._server.binlog(), open=True).token
        del token["offset"]
        return {SPLIT: token}

    def plan(self, start: Position, limit: BatchLimit) -> Span | None:
        """The next chunk of the snapshot, or what the binlog has up to the frontier."""
        token = start[SPLIT]
        place = Place.of(token)
        if place.done:
            return None
        binlog = self._server.binlog()
        self._check_place(place, binlog)
        if self._found is None:
            self._checked()
        if place.table is not None:
            return Span((Range(SPLIT, token, replace(place, open=True).token),))
        end = Place.now(binlog)
        if limit.until is not None:
            end = Place.of(limit.until.get(SPLIT))
        if place.behind(end) == 0 or self._is_quiet(place, end):
            return None
        return Span((Range(SPLIT, token, replace(end, offset=place.offset, open=True).token),))

    def _is_quiet(self, place: Place, end: Place) -> bool:
        """True when there is nothing of our tables before the end, and it is not yet time to say so."""
        if self._clock() * 1000 - place.at >= self._options.heartbeat.total_seconds() * 1000:
            return False
        name = str(place.token)
        here = self._quiet[1] if self._quiet is not None and self._quiet[0] == name else place
        if here.behind(end) == 0:
            return True
        try:
            reached = self._cursor.peek(here)
        except PlaceLostError:
            return False
        if reached is not None:
            self._quiet = name, reached
        return reached is not None

    def read(self, span: Span, limit: BatchLimit) -> Generator[pa.RecordBatch, None, Span]:
        """A chunk of the snapshot with the changes that came before it, or changes.

        Raises:
            PositionLostError: the binlog is not there (any more), or a table is gone.
            PlanError: a table is not as declared.
        """
        (part,) = span.ranges
        start, end = Place.of(part.start), Place.of(part.end)
        try:
            reading = (
                self._read_chunk(start, end, limit) if start.table is not None else self._read_stream(start, end, limit)
            )
            reached = yield from reading
        except PlaceLostError as error:
            self._cursor.close()
            raise self._refused(start, str(error)) from error
        except TableGoneError as error:
            raise self._table_gone(start, error) from error
        except BaseException:
            self._cursor.close()
            raise
        return Span((Range(SPLIT, part.start, part.end if not end.open else reached.token),))

    def _read_stream(self, start: Place, end: Place, limit: BatchLimit) -> Generator[pa.RecordBatch, None, Place]:
        pieces: list[Piece] = []
        altered: list[Altered] = []
        here = start
        rows = limit.rows if end.open else _ANY
        size = limit.bytes if end.open else _ANY
        for item in self._cursor.read(start, end, most_rows=rows, most_bytes=size):
            if isinstance(item, Place):
                here = item
            elif isinstance(item, Altered):
                altered.append(item)
            else:
                pieces.append(item)
        offset = start.offset
        if self._cursor.ddl is not None:
            self._found = None
        follower = self._follower(altered)
        for images in together(pieces):
            yield self._records(images, None, images.kinds, offset, follower)
            offset += len(images.kinds)
        for each in altered:
            yield follower.markers(each, offset, is_newest=self._is_newest(here))
            offset += len(each.ddl.tables)
        at = here.at if offset > start.offset else int(self._clock() * 1000)
        return replace(here, offset=offset, at=at, open=False)

    def _read_chunk(self, start: Place, end: Place, limit: BatchLimit) -> Generator[pa.RecordBatch, None, Place]:
        tables = self._tables()
        table = next((each for each in tables if each.full_name >= str(start.table)), None)
        if table is None:
            return self._after_snapshot(start)
        after = start.after if table.full_name == start.table else None
        most = None if not end.open else min(limit.rows, self._options.chunk_size)
        upto = end.after if not end.open and end.table == table.full_name else None
        chunk, now = self._chunk_and_moment(table, after, upto, most, limit.bytes)
        table, moment = chunk.table, now if end.open else end
        merger = Merger(self._server, table, after, chunk.last)
        offset, items = start.offset, list(self._between(start, moment, now))
        there = next(item for item in items if isinstance(item, Place))
        if end.open:
            # a server may count a transaction that it does not send yet, and no SELECT sees
            moment = replace(there, server=now.server)
        altered = [item for item in items if isinstance(item, Altered)]
        follower = self._follower(altered)
        for images in together([item for item in items if isinstance(item, Piece)]):
            change = merger.add(images)
            if change is not None:
                yield self._records(images, change.kept, change.kinds, offset, follower)
                offset += len(change.kinds)
        seen = [each for each in altered if not each.late]
        for each in seen:
            yield follower.markers(each, offset, is_newest=False)
            offset += len(each.ddl.tables)
        kept, images_of = merger.corrected(chunk)
        if len(kept) and self._follows:
            yield follower.rows(chunk, kept, offset, (start.epoch or 0) + len(altered))
        elif len(kept):
            yield self._rows(chunk, kept, offset)
        offset += len(kept)
        for images, numbers in images_of:
            yield self._records(images, np.array(numbers), np.zeros(len(numbers), np.int8), offset, follower)
            offset += len(numbers)
        epoch = (start.epoch or 0) + len(seen) if self._follows else None
        reached = replace(
            moment, offset=offset, table=table.full_name, after=chunk.last, at=int(self._clock() * 1000), open=False,
            epoch=epoch, prepared=there.prepared,
        )  # fmt: skip
        return reached if chunk.last is not None else self._next_table(reached, tables)

    def _chunk_and_moment(
        self, table: MySqlTable, after: Key | None, upto: Key | None, most: int | None, most_bytes: int
    ) -> tuple[Chunk, Place]:
        """A chunk and a moment after it; when columns are followed, the table was the same all the while."""
        for _ in range(_MOST_TRIES):
            names = [column.name for column in self._columns] if not self._follows else known_names(table)
            try:
                chunk = read_chunk(
                    self._options.login, table, names, after, upto, most_rows=most, most_bytes=most_bytes
                )
            except PlanError:
                chunk = None
                if not self._follows or self._again(table) == table.columns:
                    raise
            self._server.settle()
            now = Place.now(self._server.binlog())
            if chunk is not None and (not self._follows or self._again(table) == table.columns):
                return chunk, now
            table = self._table_named(table.full_name) or table
        raise UnavailableError(f"{self._where}: {table.full_name} is changed again and again while its rows are read")

    def _again(self, table: MySqlTable) -> tuple[MySqlColumn, ...]:
        """The table's columns as they are now."""
        self._tables()
        found = self._table_named(table.full_name)
        return () if found is None else found.columns

    def _table_named(self, name: str) -> MySqlTable | None:
        tables = self._found if self._found is not None else self._tables()
        return next((each for each in tables if each.full_name == name), None)

    def _follower(self, altered: Sequence[Altered]) -> Follower:
        options = self._options
        return Follower(
            self._table_named, options.server_time_zone, fails_on_zero=options.zero_dates == "fail", altered=altered,
            times_as_text=self._times_as_text,
        )  # fmt: skip

    def _is_newest(self, here: Place) -> bool:
        """True when the server has done nothing after a place: its tables are what they were there."""
        if here.behind(Place.now(self._server.binlog())):
            return False
        self._tables()
        return here.behind(Place.now(self._server.binlog())) == 0

    def _between(self, start: Place, moment: Place, now: Place) -> Iterator[Piece | Altered | Place]:
        """The binlog from the last chunk's moment to this one's, the place that was reached, and what is later, marked
        so."""
        place = replace(start, table=None, after=None)
        cursor = Cursor(self._open, self._is_wanted, follows=self._follows)
        try:
            for target, is_late in ((moment, False), (now, True)):
                while place.behind(target) > 0:
                    before = place
                    for item in cursor.read(place, replace(target, skip=None), most_rows=_ANY, most_bytes=_ANY):
                        if isinstance(item, Place):
                            place = item
                        else:
                            yield replace(item, late=is_late)
                    if place == before:
                        break
                if not is_late:
                    yield place
        finally:
            cursor.close()

    def _next_table(self, here: Place, tables: Sequence[MySqlTable]) -> Place:
        following = next((each.full_name for each in tables if each.full_name > str(here.table)), None)
        return self._after_snapshot(here) if following is None else replace(here, table=following, after=None)

    def _after_snapshot(self, here: Place) -> Place:
        return replace(here, table=None, after=None, done=self._options.startup_mode == "snapshot", open=False)

    def _records(
        self, images: Images, kept: "np.ndarray[tuple[int], np.dtype[np.int64]] | None", kinds: object, offset: int,
        follower: Follower,
    ) -> pa.RecordBatch:  # fmt: skip
        if self._follows:
            return follower.records(images, kept, kinds, offset)
        fails = self._options.zero_dates == "fail"
        columns = images.columns(
            self._columns, self._options.server_time_zone, is_known=self._is_known, fails_on_zero=fails
        )
        at_ms = images.at_ms
        if kept is not None:
            columns = [column.take(pa.array(kept)) for column in columns]
            at_ms = at_ms[kept]
        return records(self._schema, columns, kinds, images.table, offset, at_ms)

    def _rows(self, chunk: Chunk, kept: "np.ndarray[tuple[int], np.dtype[np.int64]]", offset: int) -> pa.RecordBatch:
        zone, name = self._options.server_time_zone, chunk.table.full_name
        columns = []
        for column, values, nulled in zip(self._columns, chunk.columns, chunk.nulled, strict=False):
            check_zeros(nulled, name, column.name, is_refused=self._options.zero_dates == "fail")
            whole = values if len(kept) == chunk.rows else values.take(pa.array(kept))
            columns.append(fit(whole, column, zone, name))
        return records(self._schema, columns, np.zeros(len(kept), np.int8), name, offset, 0)

    def lag(self, position: Position, frontier: Position) -> int:
        """Transactions between the two (those of other tables included); at least 1 during the initial snapshot."""
        return counted(position, frontier)

    def count(self) -> int | None:
        """Rows of the tables now; None where the startup mode leaves out some."""
        if self._options.startup_mode != "initial":
            return None
        return sum(int(self._server.value(f"SELECT COUNT(*) FROM {table.quoted}")) for table in self._tables())

    def locate(self, where: str) -> Position:
        """`initial` (all rows anew), `earliest`, `latest`, `<file>:<position>`, or a set of GTIDs."""
        return {SPLIT: self._modes.locate(where, self._checked()).token}

    def diagnose(self) -> Iterator[Finding]:
        """The server, its binlog, and the tables that match."""
        version = self._server.value("SELECT @@version")
        yield Finding("ok", f"{self._options.login.where} answers: {version}")
        try:
            check_binlog(self._server)
            yield Finding("ok", "its binlog holds whole rows with the names of their columns")
        except ConfigError as error:
            yield Finding("problem", str(error), "set them in the server's configuration and restart it")
        tables = self._checked()
        listed = ", ".join(table.full_name for table in tables[:5]) + (" ..." if len(tables) > 5 else "")
        yield Finding(
            "ok", f"{len(tables)} tables match ({listed}), about {sum(table.rows for table in tables):,} rows"
        )
        keyless = [table.full_name for table in tables if not table.key]
        if keyless:
            yield Finding("warning", f"{', '.join(keyless)}: no primary key: a snapshot of it is refused", "add one")

    def close(self) -> None:
        """Give back connections; idempotent."""
        self._cursor.close()
        self._server.close()

    def _tables(self) -> list[MySqlTable]:
        options = self._options
        self._found = discover(
            self._server, options.database_name, options.table_name,
            lambda database, table: self._is_wanted(f"{database}.{table}"),
        )  # fmt: skip
        return self._found

    def _checked(self) -> list[MySqlTable]:
        tables = self._tables()
        if not tables:
            raise PlanError(
                f"{self._where}: no table matches {self._options.database_name!r}.{self._options.table_name!r}"
            )
        for table in tables:
            if not self._follows:
                first_chunk(self._options, table, self._columns)
            if self._options.has_snapshot:
                key_columns(table)
        return tables

    def _is_known(self, table: str, column: str) -> bool:
        """True when the table has the column now: images without it are older than it."""
        found = self._table_named(table)
        return found is not None and found.column(column) is not None

    def _is_wanted(self, table: str) -> bool:
        return self._modes.is_wanted(table)

    def _open(self, place: Place) -> BinlogStream:
        return BinlogStream(
            self._options.login, server_id=self._options.replica_id, is_mariadb=self._server.is_mariadb,
            gtids=place.gtids, file=place.file, pos=place.pos, databases=self._options.database_name,
            tables=self._options.table_name, only=self._options.only, prepared=place.prepared or (),
        )  # fmt: skip

    def _check_place(self, place: Place, binlog: Binlog) -> None:
        """Make sure that the binlog holds what comes next.

        Raises:
            PositionLostError: TRUNCATED: it was purged; BEYOND_END: the server knows less than we read; RECREATED: it
                is another server, which does not have what we read.
        """
        is_other = bool(place.server) and place.server != binlog.server
        gtids = place.gtids
        if gtids is not None:
            if not binlog.last.holds(gtids):
                what = (
                    f"it does not hold all of the transactions {gtids} that were read; it has {binlog.last or 'none'}"
                )
                raise self._lost("RECREATED" if is_other else "BEYOND_END", what, place, binlog)
            if not gtids.holds(binlog.first):
                raise self._lost(
                    "TRUNCATED",
                    f"the binlog after {gtids or 'its beginning'} was purged; it begins after {binlog.first}",
                    place,
                    binlog,
                )
            return
        if is_other:
            raise self._lost(
                "RECREATED", "it is another server, and positions in files mean nothing there", place, binlog
            )
        files = [str(row[0]) for row in self._server.rows("SHOW BINARY LOGS")]
        if place.file not in files:
            kind: GapKind = "TRUNCATED" if place.file_place < (Place(file=files[0]).file_place) else "BEYOND_END"
            raise self._lost(
                kind, f"there is no binlog {place.file}; there are {files[0]} to {files[-1]}", place, binlog
            )

    def _refused(self, place: Place, text: str) -> PositionLostError:
        is_unknown = "not in the" in text or "diverged" in text or "more GTIDs" in text
        return self._lost(
            "RECREATED" if is_unknown else "TRUNCATED", f"the server says: {text}", place, self._server.binlog()
        )

    def _lost(self, kind: GapKind, what: str, place: Place, binlog: Binlog) -> PositionLostError:
        """The named outcome; a pipeline that may go on reads all rows anew, or else what the binlog still holds."""
        to = "initial" if self._options.has_snapshot else "earliest"
        resume = replace(self._modes.beginning(binlog, self._tables()), offset=place.offset)
        return PositionLostError(
            f"{self._where}: {what}; `vector-assets reset {self._pipeline} --to {to}` goes on with"
            f" {'all rows anew' if to == 'initial' else 'what the binlog holds'}, without what was deleted meanwhile",
            kind, {SPLIT: (place.offset, None)}, {SPLIT: resume.token},
        )  # fmt: skip

    def _table_gone(self, place: Place, error: TableGoneError) -> PositionLostError:
        resume = replace(error.place, offset=place.offset)
        token: Token = resume.token
        return PositionLostError(
            f"{self._where}: {', '.join(error.ddl.tables)}: {error.ddl.verb} took away rows without saying which; the"
            f" target still has them. SET 'vector-assets.on-position-lost' = 'skip' goes on after it, as does"
            f" `vector-assets reset {self._pipeline} --to {resume.gtid or f'{resume.file}:{resume.pos}'}`",
            "DELETED", {SPLIT: (place.offset, place.offset)}, {SPLIT: token},
        )  # fmt: skip
