"""Upload sessions: blocks by number, in any order and again, seen all at once or not at all."""

from vector_assets.local.maxcompute import wire
from vector_assets.local.maxcompute.catalog import VIEW, Catalog, Extent, Table
from vector_assets.local.maxcompute.http import Reply, Request, json_reply
from vector_assets.local.maxcompute.metadata import schema_json
from vector_assets.local.maxcompute.refusal import Refusal, missing_partition
from vector_assets.local.maxcompute.rows import Rows
from vector_assets.local.maxcompute.sessions import CLOSED, Session, Sessions
from vector_assets.local.maxcompute.store import Store
from vector_assets.local.maxcompute.tunnel import quota_of

MOST_FIELD_BYTES = 8 << 20
"""The longest value the service takes."""


def is_on(request: Request, name: str) -> bool:
    """True for `name=true` and for a bare `name`."""
    return request.query.get(name, "false").lower() in {"", "true"}


def target(store: Store, catalog: Catalog, table: Table, request: Request) -> Extent:
    """The partition that a new session writes to, made if the request wants it.

    Raises:
        Refusal: it does not exist, or is not given where it must be.
    """
    if table.kind == VIEW:
        raise Refusal(400, "InvalidArgument", f"{table.full_name} is a view: the tunnel writes to tables")
    given = request.query.get("partition", "")
    values = table.values(given) if given else ()
    if values and len(values) == len(table.partition_columns) and values not in table.extents:
        if not is_on(request, "create_partition"):
            raise missing_partition(given)
        with store.writing():
            catalog.add_extent(table, values)
    return table.extent(values)


class Uploads:
    """Requests about upload sessions."""

    def __init__(self, store: Store, catalog: Catalog, rows: Rows, sessions: Sessions) -> None:
        self._store = store
        self._catalog = catalog
        self._rows = rows
        self._sessions = sessions

    def open(self, table: Table, request: Request) -> Reply:
        """Begin a session.

        Raises:
            Refusal: the partition does not exist, or OVERWRITE is asked of a Delta table.
        """
        overwrite = is_on(request, "overwrite")
        if overwrite and table.is_delta:
            raise Refusal(
                400, "OverwriteModeNotAllowed", f"{table.full_name} is a Delta table: it cannot be overwritten"
            )
        extent = target(self._store, self._catalog, table, request)
        body = {"overwrite": overwrite, "schema_version": table.schema_version}
        session = self._sessions.open("upload", table.id, extent.values, body)
        return self._shown(table, session, request)

    def show(self, table: Table, number: str, request: Request) -> Reply:
        """A session again, with its blocks.

        Raises:
            Refusal: there is none.
        """
        return self._shown(table, self._sessions.find("upload", number, table.id), request)

    def put(self, table: Table, number: str, request: Request) -> Reply:
        """Take a block.

        Raises:
            Refusal: the session is not open, or the block is damaged.
        """
        session = self._sessions.usable("upload", number, table.id)
        if "arrow" in request.query:
            table.check_columnar(table.columns)
        self._sessions.put_block(session, str(request.number("blockid", 0)), wire.incoming(request, table.columns))
        return Reply()

    def commit(self, table: Table, number: str, request: Request) -> Reply:
        """Make all blocks visible; a second time changes nothing.

        Raises:
            Refusal: the session has expired, its partition is gone, or a row does not fit.
        """
        with self._store.lock:
            session = self._sessions.find("upload", number, table.id)
            if session.state != CLOSED:
                session = self._sessions.usable("upload", number, table.id)
                self._apply(table, session)
        self._sessions.clean(session)
        return self._shown(table, session, request)

    def _apply(self, table: Table, session: Session) -> None:
        names = self._sessions.blocks(session)
        session.body["blocks"] = names
        try:
            with self._store.writing():
                extent = table.extent(session.key)
                if session.body["overwrite"]:
                    self._rows.delete(table, session.key)
                for name in names:
                    rows = self._sessions.block(session, name)
                    (self._rows.upsert if table.is_delta else self._rows.append)(table, extent, rows)
                self._rows.changed(table, extent)
                self._sessions.finish(session, CLOSED)
        except BaseException:
            self._sessions.reopened(session)
            raise

    def _shown(self, table: Table, session: Session, request: Request) -> Reply:
        names = session.body.get("blocks") or self._sessions.blocks(session)
        return json_reply(
            {
                "UploadID": session.id,
                "Status": "expired" if session.has_expired else {"open": "normal"}.get(session.state, session.state),
                "QuotaName": quota_of(request),
                "Schema": schema_json(table),
                "UploadedBlockList": [{"BlockID": int(name)} for name in names],
                "MaxFieldSize": MOST_FIELD_BYTES,
            }
        )
