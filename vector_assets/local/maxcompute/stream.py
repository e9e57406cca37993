"""Stream upload: every request's rows are visible when it is answered."""

from typing import Any

from vector_assets.local.maxcompute import wire
from vector_assets.local.maxcompute.catalog import Catalog, Table
from vector_assets.local.maxcompute.http import Reply, Request, json_reply
from vector_assets.local.maxcompute.metadata import schema_json
from vector_assets.local.maxcompute.refusal import Refusal, invalid
from vector_assets.local.maxcompute.rows import Rows
from vector_assets.local.maxcompute.sessions import ABORTED, Session, Sessions
from vector_assets.local.maxcompute.store import Store
from vector_assets.local.maxcompute.tunnel import quota_of
from vector_assets.local.maxcompute.upload import is_on, target

MOST_SLOTS = 64
"""More slots than this are refused, as a quota would."""


def slots_asked(text: str) -> int:
    """The number of slots a client asks for; none or 0 is one.

    Raises:
        Refusal: it is no number, or more than there are.
    """
    if text and not text.isdigit():
        raise invalid(f"slot number {text} is no number")
    count = int(text or 0) or 1
    if count > MOST_SLOTS:
        raise Refusal(429, "SlotExceeded", f"{count} slots were asked for, the quota has {MOST_SLOTS}")
    return count


class Streams:
    """Requests about stream upload sessions."""

    def __init__(self, store: Store, catalog: Catalog, rows: Rows, sessions: Sessions, address: str) -> None:
        self._store = store
        self._catalog = catalog
        self._rows = rows
        self._sessions = sessions
        self._address = address

    def answer(self, table: Table, request: Request) -> Reply:
        """What a request gives.

        Raises:
            Refusal: there is no such session, the rows are damaged, or the partition does not exist.
        """
        number = request.query.get("uploadid", "")
        match request.method:
            case "POST" if not number:
                return self._open(table, request)
            case "POST":
                session = self._sessions.find("stream", number, table.id)
                self._sessions.finish(session, ABORTED)
                return self._shown(table, session, request)
            case "GET":
                return self._shown(table, self._sessions.usable("stream", number, table.id), request)
            case "PUT":
                return self._put(table, self._sessions.usable("stream", number, table.id), request)
        raise Refusal(405, "MethodNotAllowed", f"{request.method} on a stream session")

    def _open(self, table: Table, request: Request) -> Reply:
        wanted = request.query.get("schema_version", "")
        if wanted and int(wanted) > table.schema_version:
            raise Refusal(404, "NoSuchSchema", f"{table.full_name} has no schema version {wanted}")
        is_dynamic = is_on(request, "dynamic_partition")
        values = () if is_dynamic else target(self._store, self._catalog, table, request).values
        slots = slots_asked(request.headers.get("odps-slot-num", ""))
        session = self._sessions.open("stream", table.id, values, {"slots": slots, "dynamic": is_dynamic})
        return self._shown(table, session, request)

    def _put(self, table: Table, session: Session, request: Request) -> Reply:
        if "arrow" in request.query:
            table.check_columnar(table.columns)
        rows = wire.incoming(request, table.all_columns if session.body["dynamic"] else table.columns)
        with self._store.writing():
            if session.body["dynamic"]:
                self._rows.scatter(table, rows)
            else:
                extent = table.extent(session.key)
                (self._rows.upsert if table.is_delta else self._rows.append)(table, extent, rows)
                self._rows.changed(table, extent)
        routing = {"odps-tunnel-routed-server": self._address, "odps-tunnel-slot-num": str(session.body["slots"])}
        return Reply(headers=routing)

    def _shown(self, table: Table, session: Session, request: Request) -> Reply:
        found: dict[str, Any] = {
            "session_name": session.id,
            "status": "normal" if session.state != ABORTED else "aborted",
            "schema": schema_json(table),
            "slots": [[str(slot), self._address] for slot in range(session.body["slots"])],
            "QuotaName": quota_of(request),
            "schema_version": str(table.schema_version),
            "last_batch_id": "0",
            "last_batch_commit_time": "0",
        }
        return json_reply(found)
