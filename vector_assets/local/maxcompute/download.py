"""Download sessions: a snapshot of a partition that a change ends."""

from collections import OrderedDict
from collections.abc import Sequence

import pyarrow as pa

from vector_assets.local.maxcompute import wire
from vector_assets.local.maxcompute.catalog import VIEW, Column, Table
from vector_assets.local.maxcompute.http import Reply, Request, json_reply
from vector_assets.local.maxcompute.metadata import schema_json
from vector_assets.local.maxcompute.refusal import Refusal, invalid
from vector_assets.local.maxcompute.rows import Rows
from vector_assets.local.maxcompute.sessions import Session, Sessions
from vector_assets.local.maxcompute.store import Store
from vector_assets.local.maxcompute.tunnel import quota_of

_KEPT = 4
"""Snapshots in memory: clients read one session in several ranges."""


class Snapshots:
    """Rows of a partition in one version."""

    def __init__(self, store: Store, rows: Rows) -> None:
        self._store = store
        self._rows = rows
        self._kept: OrderedDict[tuple[int, tuple[str, ...], int, tuple[str, ...]], pa.Table] = OrderedDict()

    def read(self, table: Table, values: tuple[str, ...], version: int, columns: Sequence[Column]) -> pa.Table:
        """The rows of a partition, if it still has this version.

        Raises:
            Refusal: it has changed, or is no more.
        """
        with self._store.lock:
            extent = table.extents.get(values)
            if extent is None or extent.version != version:
                raise Refusal(
                    412,
                    "TableModified",
                    "The specified table has been modified since the download initiated. "
                    "Try initiate another download.",
                )
            key = (table.id, values, version, tuple(column.name for column in columns))
            if key not in self._kept:
                self._kept[key] = self._rows.read(table, values, columns)
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]


class Downloads:
    """Requests about download sessions."""

    def __init__(self, store: Store, sessions: Sessions, snapshots: Snapshots) -> None:
        self._store = store
        self._sessions = sessions
        self._snapshots = snapshots

    def open(self, table: Table, request: Request) -> Reply:
        """Begin a session.

        Raises:
            Refusal: the partition does not exist, or is not given where it must be.
        """
        given = request.query.get("partition", "")
        if table.kind == VIEW:
            raise Refusal(400, "InvalidArgument", f"{table.full_name} is a view: the tunnel reads tables")
        with self._store.lock:
            values = table.values(given) if given else ()
            extent = table.extent(values)
            body = {"version": extent.version, "rows": extent.rows}
        session = self._sessions.open("download", table.id, values, body)
        return self._shown(table, session, request)

    def show(self, table: Table, number: str, request: Request) -> Reply:
        """A session again.

        Raises:
            Refusal: there is none.
        """
        return self._shown(table, self._sessions.find("download", number, table.id), request)

    def data(self, table: Table, number: str, request: Request) -> Reply:
        """Rows of a session.

        Raises:
            Refusal: it has expired, its partition has changed, or the range or columns are wrong.
        """
        session = self._sessions.usable("download", number, table.id)
        columns = list(table.columns)
        asked = request.query.get("columns", "")
        if asked:
            columns = [table.column(name) for name in asked.split(",")]
            if any(column in table.partition_columns for column in columns):
                raise invalid("partition columns are not sent by the tunnel")
            if "arrow" in request.query:
                columns.sort(key=table.columns.index)
        if "arrow" in request.query:
            table.check_columnar(columns)
        start, count = wire.row_range(request, session.body["rows"])
        rows = self._snapshots.read(table, session.key, session.body["version"], columns)
        return wire.outgoing(rows.slice(start, count), columns, request)

    def _shown(self, table: Table, session: Session, request: Request) -> Reply:
        return json_reply(
            {
                "DownloadID": session.id,
                "Status": "expired" if session.has_expired else "normal",
                "RecordCount": session.body["rows"],
                "QuotaName": quota_of(request),
                "SupportReadByRawSize": False,
                "Schema": schema_json(table),
            }
        )
