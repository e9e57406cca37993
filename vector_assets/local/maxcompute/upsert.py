"""Upsert sessions of Delta tables: changes by key, hashed to buckets, seen at the commit."""

import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.local.maxcompute import wire
from vector_assets.local.maxcompute.catalog import Catalog, Column, Table
from vector_assets.local.maxcompute.http import Reply, Request, json_reply
from vector_assets.local.maxcompute.metadata import columns_json
from vector_assets.local.maxcompute.refusal import Refusal, invalid
from vector_assets.local.maxcompute.rows import Rows
from vector_assets.local.maxcompute.sessions import ABORTED, CLOSED, OPEN, Session, Sessions
from vector_assets.local.maxcompute.store import Store
from vector_assets.local.maxcompute.stream import slots_asked
from vector_assets.local.maxcompute.tunnel import quota_of
from vector_assets.local.maxcompute.types import parse
from vector_assets.local.maxcompute.upload import target

_DELETE, _UPSERT = ord("D"), ord("U")
_EXTRA = [
    Column(name, parse(kind))
    for name, kind in (
        ("__version", "bigint"),
        ("__app_version", "bigint"),
        ("__operation", "tinyint"),
        ("__key_cols", "array<bigint>"),
        ("__value_cols", "array<bigint>"),
    )
]
"""What an upsert record has after the table's columns (odps/tunnel/tabletunnel.py)."""

_STATUS = {OPEN: "normal", CLOSED: "committed", ABORTED: "aborted"}


class Upserts:
    """Requests about upsert sessions."""

    def __init__(self, store: Store, catalog: Catalog, rows: Rows, sessions: Sessions, address: str) -> None:
        self._store = store
        self._catalog = catalog
        self._rows = rows
        self._sessions = sessions
        self._address = address

    def answer(self, table: Table, request: Request) -> Reply:
        """What a request gives.

        Raises:
            Refusal: the table is no Delta table, there is no such session, or the rows are damaged.
        """
        if not table.is_delta:
            raise Refusal(400, "InvalidArgument", f"{table.full_name} is no Delta table: it has no primary key")
        number = request.query.get("upsertid", "")
        match request.method:
            case "POST" if not number:
                return self._open(table, request)
            case "POST":
                return self._commit(table, number, request)
            case "GET":
                return self._shown(table, self._sessions.find("upsert", number, table.id), request)
            case "PUT":
                return self._put(table, self._sessions.usable("upsert", number, table.id), request)
            case "DELETE":
                return self._abort(self._sessions.find("upsert", number, table.id))
        raise Refusal(405, "MethodNotAllowed", f"{request.method} on an upsert session")

    def _open(self, table: Table, request: Request) -> Reply:
        extent = target(self._store, self._catalog, table, request)
        slots = min(slots_asked(request.query.get("slotnum", "")), table.buckets)
        body = {"slots": slots, "buckets": table.buckets, "next": 0}
        return self._shown(table, self._sessions.open("upsert", table.id, extent.values, body), request)

    def _put(self, table: Table, session: Session, request: Request) -> Reply:
        bucket, slot = request.number("bucketid", -1), request.number("slotid", -1)
        if not 0 <= bucket < session.body["buckets"] or bucket % session.body["slots"] != slot:
            raise invalid(f"bucket {bucket} is not of slot {slot}; the session has {session.body['buckets']} buckets")
        changes = wire.incoming(request, [*table.columns, *_EXTRA])
        count = request.number("record_count", len(changes))
        if count != len(changes):
            raise invalid(f"record_count is {count}, the body has {len(changes)} records")
        _check(table, changes)
        with self._store.lock:
            session = self._sessions.usable("upsert", session.id, table.id)
            number = session.body["next"]
            session.body["next"] = number + 1
            self._sessions.save(session)
        self._sessions.put_block(session, str(number), changes)
        return Reply(headers={"odps-tunnel-routed-server": self._address})

    def _commit(self, table: Table, number: str, request: Request) -> Reply:
        with self._store.lock:
            session = self._sessions.find("upsert", number, table.id)
            if session.state != CLOSED:
                session = self._sessions.usable("upsert", number, table.id)
                self._apply(table, session)
        self._sessions.clean(session)
        return self._shown(table, session, request)

    def _apply(self, table: Table, session: Session) -> None:
        blocks = [self._sessions.block(session, name) for name in self._sessions.blocks(session)]
        try:
            with self._store.writing():
                extent = table.extent(session.key)
                if blocks:
                    changes = pa.concat_tables(blocks, promote_options="default")
                    self._rows.apply(table, extent, _ordered(changes), deleted="__deleted", partial=True)
                    self._rows.changed(table, extent)
                self._sessions.finish(session, CLOSED)
        except BaseException:
            self._sessions.reopened(session)
            raise

    def _abort(self, session: Session) -> Reply:
        if session.state == CLOSED:
            raise Refusal(409, "StatusConflict", f"The upsert session {session.id} is committed")
        self._sessions.finish(session, ABORTED)
        self._sessions.clean(session)
        return Reply()

    def _shown(self, table: Table, session: Session, request: Request) -> Reply:
        slots = session.body["slots"]
        return json_reply(
            {
                "id": session.id,
                "status": "expired" if session.has_expired else _STATUS[session.state],
                "schema": {"columns": columns_json(table.columns), "partitionKeys": []},
                "hash_key": table.primary_key,
                "hasher": "default",
                "quota_name": quota_of(request),
                "enable_partial_update": True,
                "slots": [
                    {
                        "slot_id": str(slot),
                        "worker_addr": self._address,
                        "buckets": list(range(slot, session.body["buckets"], slots)),
                    }
                    for slot in range(slots)
                ],
            }
        )


def _check(table: Table, changes: pa.Table) -> None:
    for name in table.primary_key:
        if changes.column(name).null_count:
            raise invalid(f"column {name} is of the primary key: it cannot be null")
    known = pa.array([_DELETE, _UPSERT], pa.int8())
    if not pc.all(pc.is_in(changes.column("__operation"), known), min_count=0).as_py():
        raise invalid("the operation of a change is neither U nor D")
    places = pc.list_flatten(changes.column("__value_cols"))
    if len(places) and not (pc.min(places).as_py() >= 0 and pc.max(places).as_py() < len(table.columns)):
        raise invalid(f"a change sets a column that is not there; the table has {len(table.columns)} columns")


def _ordered(changes: pa.Table) -> pa.Table:
    """Changes with what the merge reads: their order, the deletes, and the places they set."""
    count = len(changes)
    deleted = pc.equal(changes.column("__operation"), _DELETE)
    changes = changes.append_column("__order", pa.array(range(count), pa.int64()))
    changes = changes.append_column("__deleted", deleted).append_column("__set", changes.column("__value_cols"))
    return changes.drop_columns([column.name for column in _EXTRA])
