"""The binlog from a place on, as far as it reaches now: rows of the tables that are wanted, DDL, ends of transactions.

The connection, the framing of events and the table maps are mysql-replication's; row images are left as bytes for
`mysql_image`. The library would connect again by itself and begin anew at its first place: here it may connect once.
"""

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pymysql
from pymysqlreplication import BinLogStreamReader
from pymysqlreplication.constants import ANONYMOUS_GTID_LOG_EVENT, QUERY_EVENT
from pymysqlreplication.event import (
    BinLogEvent,
    GtidEvent,
    MariadbGtidEvent,
    NotImplementedEvent,
    RotateEvent,
    XAPrepareEvent,
    XidEvent,
)
from pymysqlreplication.packet import BinLogPacketWrapper
from pymysqlreplication.row_event import (
    DeleteRowsEvent,
    PartialUpdateRowsEvent,
    TableMapEvent,
    UpdateRowsEvent,
    WriteRowsEvent,
)

from vector_assets.clients.mysql import Connection, Login, translated
from vector_assets.clients.mysql_ddl import COMMENT, Ddl, ddl_of, full_names
from vector_assets.clients.mysql_gtid import Gtids
from vector_assets.clients.mysql_image import Field, Layout
from vector_assets.clients.mysql_payload import TransactionPayloadEvent
from vector_assets.engine.errors import FatalError, PlanError, UnavailableError


class QueryEvent(BinLogEvent):  # type: ignore[misc]  # the library has no types
    """A statement, without the variables it ran under.

    The library's own class (1.0.17) raises StatusVariableMismatch at variables of MariaDB that it does not know, such
    as those of a DROP DATABASE of somebody else, and decodes the text strictly.
    """

    def __init__(self, from_packet: Any, event_size: int, table_map: Any, ctl_connection: Any, **more: Any) -> None:
        super().__init__(from_packet, event_size, table_map, ctl_connection, **more)
        _, _, length, _, variables = struct.unpack("<IIBHH", self.packet.read(13))
        self._advance_to_payload(13)
        self.packet.read(variables)
        self.schema = self.packet.read(length).decode(errors="replace")
        self.packet.read(1)
        self.query = self.packet.read(event_size - 13 - variables - length - 1).decode(errors="replace")


BinLogPacketWrapper._BinLogPacketWrapper__event_map[QUERY_EVENT] = QueryEvent

_ROWS = (WriteRowsEvent, UpdateRowsEvent, DeleteRowsEvent)
_EVENTS = (*_ROWS, PartialUpdateRowsEvent, TableMapEvent, GtidEvent, MariadbGtidEvent, QueryEvent, XidEvent,
           XAPrepareEvent, RotateEvent, NotImplementedEvent, TransactionPayloadEvent)  # fmt: skip
_COMPRESSED = frozenset({165, 166, 167, 168, 169, 170, 171})
"""Events that MariaDB compressed (`log_bin_compress`)."""
_TAGGED_GTID = 42
"""GTID_TAGGED_LOG_EVENT of MySQL 8.3, which the library does not know."""
_STANDALONE = 1
"""FL_STANDALONE of MariaDB's GTID events: the transaction is one event, which nothing ends."""
_LOST = 1236
_OTHER_READER = 1 << 31
"""How far the number of a second reader is from the first one's: of two that are equal the server throws one out."""
_XA_OF_MARIADB = 0x40
"""The flag of a GTID of MariaDB whose transaction is prepared only (FL_PREPARED_XA)."""
_BEGINS = re.compile(r"(BEGIN|XA\s+START)\b", re.I)
_ENDS = re.compile(r"(XA\s+)?(COMMIT|ROLLBACK(?!\s+TO))\b", re.I)
_SETTLES = re.compile(r"XA\s+(?P<verb>COMMIT|ROLLBACK)\s+(?P<xid>.*)", re.I | re.S)
_DML = re.compile(r"(INSERT|UPDATE|DELETE|REPLACE|LOAD)\b", re.I)


Prepared = tuple[tuple[str, str, int], ...]
"""Distributed transactions with rows that are prepared only: each with the file and the place where it begins."""


class PlaceLostError(Exception):
    """The server refuses the place, with its own words."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Row images of one event; `number` counts the events of this kind in the transaction, from 0."""

    table: str
    layout: Layout
    kind: str
    data: bytes = field(repr=False)
    at_ms: int
    gtid: str | None
    number: int


@dataclass(frozen=True, slots=True)
class Ended:
    """A transaction is over: its GTID, where the next one begins, its time, and what is prepared and not committed."""

    gtid: str | None
    file: str
    pos: int
    at_ms: int
    prepared: Prepared = ()


Event = Rows | Ddl | Ended


class _Matching:
    """A container of the names that an expression matches: how the library is told which tables are wanted."""

    def __init__(self, pattern: str) -> None:
        self._pattern = re.compile(pattern)

    def __contains__(self, name: str) -> bool:
        return self._pattern.fullmatch(name) is not None


class BinlogStream:
    """Events after `gtids`, or after file and position where there are none. Not thread-safe; read once."""

    def __init__(
        self, login: Login, *, server_id: int, is_mariadb: bool, gtids: Gtids | None, file: str, pos: int,
        databases: str, tables: str, only: frozenset[str] = frozenset(), prepared: Prepared = (),
    ) -> None:  # fmt: skip
        """Keep what is wanted; nothing is read yet. `only` are full names: others are left out though they match.
        `prepared` is what was at the place."""
        self._login, self._gtids, self._only = login, gtids, only
        self._prepared = {xid: (begun, at) for xid, begun, at in prepared}
        self._again = partial(
            BinlogStream, login, server_id=(server_id + _OTHER_READER) % (1 << 32), is_mariadb=False, gtids=None,
            databases=databases, tables=tables, only=only,
        )  # fmt: skip
        self._databases, self._tables = re.compile(databases), re.compile(tables)
        self._layouts: dict[int, tuple[Any, Layout]] = {}
        where: dict[str, Any] = {"log_file": file, "log_pos": pos, "resume_stream": True}
        # the library takes an empty set of MySQL for none at all, and begins at the end
        if gtids or (gtids is not None and is_mariadb):
            where = {"auto_position": str(gtids), "is_mariadb": is_mariadb}
        self._stream = BinLogStreamReader(
            connection_settings=login.settings(), server_id=server_id, blocking=False, only_events=list(_EVENTS),
            filter_non_implemented_events=False, only_schemas=_Matching(databases), only_tables=_Matching(tables),
            enable_logging=False, pymysql_wrapper=_connecting(login), **where,
        )  # fmt: skip

    def events(self) -> Iterator[Event]:  # noqa: C901  # one state machine
        """What there is, to the end of the binlog as it is now.

        Raises:
            PlaceLostError: the server does not hold the place.
            PlanError: an event cannot be read as rows.
        """
        gtid: str | None = None
        number, is_known, is_open = 0, False, False
        begun: tuple[str, int] = ("", 0)
        waiting: list[Rows] | None = None
        for event in self._raw():
            if isinstance(event, GtidEvent | MariadbGtidEvent) or event.event_type == ANONYMOUS_GTID_LOG_EVENT:
                begun = str(self._stream.log_file), int(event.packet.log_pos - event.packet.event_size)
                flags = event.flags if isinstance(event, MariadbGtidEvent) else _STANDALONE
                waiting = [] if flags & _XA_OF_MARIADB else None
                # MariaDB says there whether more than one event comes, MySQL by BEGIN
                is_open = not flags & _STANDALONE
                gtid, number = getattr(event, "gtid", None), 0
                # what was read already is not read again, whatever the server sends
                is_known = self._gtids is not None and gtid is not None and self._gtids.has(gtid)
            elif isinstance(event, PartialUpdateRowsEvent):
                # a kind of UpdateRowsEvent
                raise PlanError(
                    f"{self._login.where}: the binlog holds partial JSON updates: unset binlog_row_value_options"
                )
            elif isinstance(event, _ROWS):
                if not self._is_wanted(f"{event.schema}.{event.table}"):
                    continue
                if not is_known and waiting is not None:
                    waiting.append(self._rows(event, gtid, number))
                elif not is_known:
                    yield self._rows(event, gtid, number)
                number += 1
            elif isinstance(event, QueryEvent):
                text = COMMENT.sub("", str(event.query)).strip()
                if _BEGINS.match(text):
                    is_open = True
                    waiting = [] if text[:2].upper() == "XA" else waiting
                    continue
                if (settles := _SETTLES.match(text)) is not None and not is_known:
                    yield from self._settled(settles["verb"].upper(), settles["xid"].strip().lower(), gtid)
                elif not is_known:
                    yield from self._query(event, text)
                if not is_open or _ENDS.match(text):
                    yield self._ended(event, gtid)
                    gtid, number, is_open = None, 0, False
            elif isinstance(event, XidEvent | XAPrepareEvent):
                if waiting and isinstance(event, XAPrepareEvent) and not event.one_phase:
                    self._prepared[_xid_of(event)] = begun
                else:
                    yield from waiting or ()
                waiting = None
                yield self._ended(event, gtid)
                gtid, number, is_open = None, 0, False
            elif event.event_type == _TAGGED_GTID:
                raise PlanError(f"{self._login.where}: the binlog holds GTIDs with tags, which cannot be read")
            elif event.event_type in _COMPRESSED:
                raise PlanError(f"{self._login.where}: the binlog holds compressed events: turn its compression off")

    def _raw(self) -> Iterator[Any]:
        try:
            with translated(self._login.where):
                while (event := self._stream.fetchone()) is not None:
                    if isinstance(event, TransactionPayloadEvent):
                        yield from self._inside(event)
                    else:
                        yield event
        except PlanError as error:
            cause = error.__cause__
            if isinstance(cause, pymysql.MySQLError) and cause.args and cause.args[0] == _LOST:
                raise PlaceLostError(str(cause.args[1])) from error
            raise

    def _inside(self, event: TransactionPayloadEvent) -> Iterator[Any]:
        try:
            yield from event.events(frozenset(_EVENTS))
        except PlanError as error:
            raise PlanError(f"{self._login.where}: {error}") from error

    def _ended(self, event: Any, gtid: str | None) -> Ended:
        prepared = tuple((xid, *begun) for xid, begun in sorted(self._prepared.items()))
        return Ended(gtid, str(self._stream.log_file), int(event.packet.log_pos), event.timestamp * 1000, prepared)

    def _settled(self, verb: str, xid: str, gtid: str | None) -> Iterator[Rows]:
        """The rows of a prepared transaction that is committed, read where it was prepared; of any other none."""
        begun = self._prepared.get(xid)
        if begun is not None and verb == "COMMIT":
            stream, number = self._again(file=begun[0], pos=begun[1]), 0
            try:
                for event in stream._raw():
                    if isinstance(event, XAPrepareEvent):
                        break
                    if isinstance(event, _ROWS) and self._is_wanted(f"{event.schema}.{event.table}"):
                        yield stream._rows(event, gtid, number)
                        number += 1
                if number == 0 or _xid_of(event) != xid:
                    raise FatalError(f"{self._login.where}: transaction {xid} is not at {begun[0]}:{begun[1]} any more")
            finally:
                stream.close()
        self._prepared.pop(xid, None)

    def _rows(self, event: Any, gtid: str | None, number: int) -> Rows:
        table = event.table_map[event.table_id]
        known = self._layouts.get(event.table_id)
        if known is None or known[0] is not table:
            known = self._layouts[event.table_id] = (table, _layout(self._login.where, table))
        full = (1 << len(known[1])) - 1
        for bitmap in (event.columns_present_bitmap, getattr(event, "columns_present_bitmap2", None)):
            if bitmap is not None and int.from_bytes(bitmap, "little") & full != full:
                raise PlanError(
                    f"{self._login.where}: {event.schema}.{event.table}: rows without all columns:"
                    f" SET GLOBAL binlog_row_image = 'FULL'"
                )
        data = event.packet.read(event.event_size - event.packet.read_bytes)
        kind = {WriteRowsEvent: "insert", UpdateRowsEvent: "update", DeleteRowsEvent: "delete"}[type(event)]
        return Rows(f"{event.schema}.{event.table}", known[1], kind, bytes(data), event.timestamp * 1000, gtid, number)

    def _query(self, event: Any, text: str) -> Iterator[Ddl]:
        schema = event.schema
        found = ddl_of(text, schema)
        if found is not None:
            verb, tables = found
            mine = tuple(name for name in tables if self._is_wanted(name))
            if mine:
                yield Ddl(verb, mine, text, event.timestamp * 1000, tables)
        elif _DML.match(text) and (self._databases.fullmatch(schema) or self._names(text)):
            raise FatalError(
                f"{self._login.where}: the binlog holds a statement instead of rows in database {schema}"
                f" ({text[:40]}...): a session set binlog_format to STATEMENT; what it changed is not known"
            )

    def _names(self, text: str) -> bool:
        """True when a statement names a wanted table together with its database."""
        return any(self._is_wanted(name) for name in full_names(text))

    def _is_wanted(self, name: str) -> bool:
        database, _, table = name.partition(".")
        if table == "":
            return bool(self._databases.fullmatch(database))
        return (not self._only or name in self._only) and bool(
            self._databases.fullmatch(database) and self._tables.fullmatch(table)
        )

    def close(self) -> None:
        """Give back connections; idempotent."""
        try:
            self._stream.close()
        except (pymysql.MySQLError, OSError):
            return


class _Connection(Connection):
    """A connection that sends no byte more than a packet's header says.

    The library's request for a dump (MariaDB, 1.0.17) is one byte too long. The server leaves the byte unread, so its
    end of the connection after the last event is a reset, which throws away what has not been read yet.
    """

    def _write_bytes(self, data: bytes) -> None:
        super()._write_bytes(data[: 4 + int.from_bytes(data[:3], "little")])


def _connecting(login: Login) -> Callable[..., Any]:
    """Connects for the stream and for its questions, and never again."""
    made: list[Any] = []

    def connect(**settings: Any) -> Any:
        if len(made) == 2:
            raise UnavailableError(f"{login.where}: the connection was lost in the middle of the binlog")
        # the library's name of it is deprecated
        named = {"database" if name == "db" else name: value for name, value in settings.items()}
        made.append(_Connection(**named))
        return made[-1]

    return connect


def _xid_of(event: XAPrepareEvent) -> str:
    """The name of a distributed transaction as statements of the binlog have it, in small letters."""
    return f"x'{event.xid_gtrid.hex()}',x'{event.xid_bqual.hex()}',{event.xid_format_id}"


def _layout(where: str, table: Any) -> Layout:
    name = f"{table.schema}.{table.table}"
    if any(not column.name for column in table.columns):
        raise PlanError(
            f"{where}: {name}: the binlog holds no column names there: SET GLOBAL binlog_row_metadata = 'FULL'"
        )
    try:
        return tuple(Field.of(column) for column in table.columns)
    except PlanError as error:
        raise PlanError(f"{where}: {name}: {error}") from error
