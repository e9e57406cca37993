"""The storage API: read and write sessions in splits and blocks of plain Arrow streams."""

from typing import Any

import pyarrow as pa

from vector_assets.local.maxcompute.catalog import Catalog, Column, Table
from vector_assets.local.maxcompute.download import Snapshots
from vector_assets.local.maxcompute.http import Reply, Request, json_reply
from vector_assets.local.maxcompute.predicate import checked, filtered
from vector_assets.local.maxcompute.refusal import Refusal, invalid
from vector_assets.local.maxcompute.rows import Rows, arrow_schema
from vector_assets.local.maxcompute.sessions import CLOSED, Session, Sessions
from vector_assets.local.maxcompute.splits import Piece, by_count, by_offset, by_size
from vector_assets.local.maxcompute.store import Store
from vector_assets.local.maxcompute.tunnel import quota_of

_CODECS = {"": None, "ZSTD": "zstd", "LZ4_FRAME": "lz4"}
_UNITS = {"second": "s", "milli": "ms", "micro": "us", "nano": "ns"}
_MOST_BLOCKS = 20_000
_SIZE = 256 << 20


class Storage:
    """Requests below `/api/storage/v1/.../tables/T`."""

    def __init__(self, store: Store, catalog: Catalog, rows: Rows, sessions: Sessions, snapshots: Snapshots) -> None:
        self._store = store
        self._catalog = catalog
        self._rows = rows
        self._sessions = sessions
        self._snapshots = snapshots

    def answer(self, table: Table, tail: tuple[str, ...], request: Request) -> Reply:
        """What a request gives.

        Raises:
            Refusal: there is no such session, it is not open, or the request is wrong.
        """
        quota_of(request)
        _check_format(request)
        kind = request.query.get("session_type", "")
        match request.method, tail:
            case "POST", ("sessions",) if kind == "batch_read":
                return self._open_read(table, request.json())
            case "POST", ("sessions",) if kind == "batch_write":
                return self._open_write(table, request.json())
            case "GET", ("sessions", number):
                return self._show(table, number, kind)
            case "GET", ("data",):
                return self._read(table, request)
            case "POST", ("sessions", number, "data"):
                return self._write(table, number, request)
            case "POST", ("commit",):
                return self._commit(table, request)
        raise Refusal(
            405, "MethodNotAllowed", f"{request.method} {request.target.partition('?')[0]} is not served here"
        )

    def _open_read(self, table: Table, body: dict[str, Any]) -> Reply:
        if table.is_delta:
            raise Refusal(
                400, "InvalidArgument", f"{table.full_name} is a Delta table: the storage API does not read it"
            )
        condition = body.get("FilterPredicate") or ""
        columns = _chosen(body.get("RequiredDataColumns"), table.columns, table)
        table.check_columnar(columns)
        levels = _chosen(body.get("RequiredPartitionColumns"), table.partition_columns, table)
        with self._store.lock:
            pieces = self._pieces(table, body.get("RequiredPartitions") or [])
        options = body.get("SplitOptions") or {}
        content = {
            "columns": [column.name for column in columns],
            "levels": [column.name for column in levels],
            "condition": checked(self._store, table, condition) if condition else "",
            "pieces": [vars(piece) for piece in pieces],
            "mode": options.get("SplitMode", "Size"),
            "splits": _splits(pieces, options),
            "units": _time_units(body.get("ArrowOptions") or {}),
        }
        session = self._sessions.open("batch_read", table.id, (), content)
        return json_reply(self._shown(table, session), 201)

    def _pieces(self, table: Table, specs: list[str]) -> list[Piece]:
        """The partitions of a session, each in its version."""
        firsts = [table.values(spec) for spec in specs] or [()]
        keys = [key for key in sorted(table.extents) if any(key[: len(first)] == first for first in firsts)]
        for first in firsts:
            if first and not any(key[: len(first)] == first for key in keys):
                table.extent(first)
        found = [table.extents[key] for key in keys]
        return [Piece(list(extent.values), extent.version, extent.rows, extent.size) for extent in found]

    def _shown(self, table: Table, session: Session) -> dict[str, Any]:
        body = session.body
        status = "EXPIRED" if session.has_expired else "COMMITTED" if session.state == CLOSED else "NORMAL"
        shown: dict[str, Any] = {
            "SessionId": session.id,
            "SessionType": session.kind,
            "SessionStatus": status,
            "ExpirationTime": int(session.expires * 1000),
            "Message": "",
            "SupportedDataFormat": [{"Type": "ARROW", "Version": "V5"}],
        }
        columns, levels = table.columns, table.partition_columns
        if session.kind == "batch_read":
            columns = [table.column(name) for name in body["columns"]]
            levels = [table.column(name) for name in body["levels"]]
            shown["RecordCount"] = sum(piece["rows"] for piece in body["pieces"]) if body["mode"] == "RowOffset" else -1
            shown["SplitsCount"] = -1 if body["mode"] == "RowOffset" else len(body["splits"])
        else:
            shown["MaxBlockNumber"] = _MOST_BLOCKS
        shown["DataSchema"] = {"DataColumns": _listed(columns), "PartitionColumns": _listed(levels)}
        return shown

    def _show(self, table: Table, number: str, kind: str) -> Reply:
        return json_reply(self._shown(table, self._sessions.find(kind, number, table.id)), 201)

    def _read(self, table: Table, request: Request) -> Reply:
        session = self._sessions.usable("batch_read", request.query.get("session_id", ""), table.id)
        body = session.body
        pieces = [Piece(**piece) for piece in body["pieces"]]
        if body["mode"] == "RowOffset":
            parts = by_offset(pieces, request.number("row_index", 0), request.number("row_count", 0))
        else:
            index = request.number("split_index", 0)
            if not 0 <= index < len(body["splits"]):
                raise invalid(f"split_index is {index}, the session has {len(body['splits'])} splits")
            parts = [tuple(part) for part in body["splits"][index]]
        columns = [table.column(name) for name in body["columns"]]
        levels = [table.column(name) for name in body["levels"]]
        schema = _in_units(arrow_schema([*columns, *levels]), body["units"])
        tables = []
        for place, start, count in parts:
            piece = pieces[place]
            needed = table.all_columns if body.get("condition") else [*columns, *levels]
            rows = self._snapshots.read(table, tuple(piece.values), piece.version, needed).slice(start, count)
            if body.get("condition"):
                rows = filtered(self._store, rows, body["condition"]).select(schema.names)
            tables.append(rows.cast(schema, safe=False))
        rows = pa.concat_tables(tables) if tables else schema.empty_table()
        return Reply(_stream(rows, request), media="application/octet-stream")

    def _open_write(self, table: Table, body: dict[str, Any]) -> Reply:
        if table.is_delta:
            raise Refusal(400, "InvalidArgument", f"{table.full_name} is a Delta table: use an upsert session")
        table.check_columnar(table.columns)
        spec = (body.get("PartitionSpec") or "").strip()
        is_dynamic = bool(table.partition_columns) and not spec
        values = table.values(spec) if spec else ()
        with self._store.writing():
            if spec and len(values) == len(table.partition_columns) and values not in table.extents:
                self._catalog.add_extent(table, values)
            if not is_dynamic:
                table.extent(values)
        content = {"overwrite": bool(body.get("Overwrite", True)), "dynamic": is_dynamic}
        session = self._sessions.open("batch_write", table.id, values, content)
        return json_reply(self._shown(table, session), 201)

    def _write(self, table: Table, number: str, request: Request) -> Reply:
        session = self._sessions.usable("batch_write", number, table.id)
        columns = table.all_columns if session.body["dynamic"] else table.columns
        try:
            rows = pa.ipc.open_stream(request.body).read_all()
            rows = rows.select([column.name for column in columns]).cast(arrow_schema(columns))
        except (pa.ArrowInvalid, pa.ArrowTypeError, KeyError, OSError) as error:
            raise invalid(f"the body is no Arrow stream of the table's columns: {error}") from error
        name = f"{request.number('block_number', 0)}-{request.number('attempt_number', 0)}"
        self._sessions.put_block(session, name, rows)
        return json_reply({"CommitMessage": name})

    def _commit(self, table: Table, request: Request) -> Reply:
        number = request.query.get("session_id", "")
        messages = request.json().get("CommitMessages") or []
        with self._store.lock:
            session = self._sessions.find("batch_write", number, table.id)
            if session.state != CLOSED:
                session = self._sessions.usable("batch_write", number, table.id)
                unknown = set(messages) - set(self._sessions.blocks(session))
                if unknown:
                    raise invalid(f"commit message {', '.join(sorted(unknown))} is of no block of the session")
                self._apply(table, session, list(dict.fromkeys(messages)))
        self._sessions.clean(session)
        return json_reply(self._shown(table, session), 201)

    def _apply(self, table: Table, session: Session, names: list[str]) -> None:
        blocks = [self._sessions.block(session, name) for name in names]
        overwrite = session.body["overwrite"]
        try:
            with self._store.writing():
                if session.body["dynamic"]:
                    if blocks:
                        self._rows.scatter(table, pa.concat_tables(blocks), overwrite=overwrite)
                else:
                    extent = table.extent(session.key)
                    if overwrite:
                        self._rows.delete(table, session.key)
                    for rows in blocks:
                        self._rows.append(table, extent, rows)
                    self._rows.changed(table, extent)
                self._sessions.finish(session, CLOSED)
        except BaseException:
            self._sessions.reopened(session)
            raise


def _check_format(request: Request) -> None:
    for key, known in (("data_format_type", "arrow"), ("data_format_version", "v5")):
        if request.query.get(key, "").lower() not in {"", known}:
            raise invalid(f"{key} is {request.query[key]}; known: {known}")


def _chosen(names: list[str] | None, columns: list[Column], table: Table) -> list[Column]:
    """The columns of these names in table order; all when none are named."""
    if not names:
        return list(columns)
    found = [table.column(name) for name in names]
    return [column for column in columns if column in found]


def _splits(pieces: list[Piece], options: dict[str, Any]) -> list[list[tuple[int, int, int]]]:
    mode, number = options.get("SplitMode", "Size"), int(options.get("SplitNumber") or 0)
    crosses = bool(options.get("CrossPartition", True))
    match mode:
        case "Size":
            return by_size(pieces, number or _SIZE, crosses=crosses)
        case "Parallelism":
            return by_count(pieces, number or 1, crosses=crosses)
        case "RowOffset":
            return []
    raise invalid(f"SplitMode {mode} is not supported here; known: Size, Parallelism, RowOffset")


def _time_units(options: dict[str, Any]) -> dict[str, str]:
    found = {}
    for name, key, default in (("timestamp", "TimestampUnit", "nano"), ("datetime", "DatetimeUnit", "milli")):
        unit = str(options.get(key) or default).lower()
        if unit not in _UNITS:
            raise invalid(f"{key} is {unit}; known: {', '.join(_UNITS)}")
        found[name] = _UNITS[unit]
    return found


def _in_units(schema: pa.Schema, units: dict[str, str]) -> pa.Schema:
    """The schema with the time units that the client asked for."""
    given = {"ns": pa.timestamp(units["timestamp"]), "ms": pa.timestamp(units["datetime"])}
    return pa.schema(
        [(part.name, given[part.type.unit] if pa.types.is_timestamp(part.type) else part.type) for part in schema]
    )


def _listed(columns: list[Column]) -> list[dict[str, Any]]:
    return [
        {"Name": column.name, "Type": str(column.type), "Comment": column.comment, "Nullable": column.nullable}
        for column in columns
    ]


def _stream(rows: pa.Table, request: Request) -> bytes:
    codec = request.headers.get("accept-encoding", "").strip()
    # an HTTP client's own list of codecs is none of ours
    options = pa.ipc.IpcWriteOptions(compression=_CODECS.get(codec))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema, options=options) as writer:
        writer.write_table(rows.combine_chunks(), max_chunksize=max(1, request.number("max_batch_rows", 4096)))
    return bytes(sink.getvalue().to_pybytes())
