"""Rows into a partition by the tunnel's three kinds of sessions, as requests of our own.

pyodps's writers repeat refused requests for two minutes or for ever, cut ZLIB bodies of Arrow data short, send raw data
unless two options agree, choose another tunnel for tables with a primary key, and count bytes that were sent as if they
were not (`docs/decisions/0073`). Here a request is a whole body, tried as often as the policy says.
"""

import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import pyarrow as pa

from vector_assets.clients.maxcompute import MaxCompute, MaxTable
from vector_assets.clients.maxcompute_errors import NoTableError, SessionEndedError
from vector_assets.clients.maxcompute_options import Codec
from vector_assets.engine.errors import TransientError
from vector_assets.engine.retry import RetryPolicy, call

T = TypeVar("T")
Tunnel = Literal["batch", "stream", "upsert"]
Status = Literal["open", "committing", "closed", "ended"]
CHUNK_BYTES = 65_536
_ENCODINGS: Mapping[Codec, str | None] = {"RAW": None, "ZLIB": "deflate", "SNAPPY": "x-snappy-framed"}
_STATUS: Mapping[str, Status] = {
    "normal": "open",
    "committing": "committing",
    "closed": "closed",
    "committed": "closed",
}
_RESOURCE: Mapping[Tunnel, str] = {"batch": "", "stream": "/streams", "upsert": "/upserts"}
_SESSION: Mapping[Tunnel, str] = {"batch": "uploadid", "stream": "uploadid", "upsert": "upsertid"}


@dataclass(frozen=True, slots=True)
class WriteSession:
    """A session over a partition (or a table without partitions). `slots` maps a bucket (upsert) or a slot's number
    (stream) to slot and address; `hasher` says how keys are hashed."""

    tunnel: Tunnel
    table: MaxTable
    spec: str | None
    id: str
    slots: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    hasher: str = "default"

    @property
    def place(self) -> str:
        """`project.table/ds=20180905`."""
        return place_of(self.table, self.spec)


def place_of(table: MaxTable, spec: str | None) -> str:
    """`project.table/ds=20180905`."""
    return f"{table.name}/{spec}" if spec else table.name


def open_session(
    service: MaxCompute, tunnel: Tunnel, table: MaxTable, spec: str | None, slots: int = 0
) -> WriteSession:
    """A new session, in a partition that is there.

    Raises:
        NoPartitionError: the partition is not there.
        TransientError: the service does not answer, or has no slots for now.
    """
    params: dict[str, str] = {}
    headers: dict[str, str] = {}
    if tunnel == "batch":
        params["uploads"] = "1"
    elif tunnel == "stream":
        params["check_latest_schema"] = "false"
        if slots:
            headers["odps-slot-num"] = str(slots)
    else:
        params["slotnum"] = str(slots or 1)
    found = _ask(service, "post", WriteSession(tunnel, table, spec, ""), params, headers=headers).json()
    return _of(tunnel, table, spec, found)


def _of(tunnel: Tunnel, table: MaxTable, spec: str | None, found: Any) -> WriteSession:
    if tunnel == "batch":
        return WriteSession(tunnel, table, spec, found["UploadID"])
    if tunnel == "stream":
        slots = {int(number): (str(number), str(address)) for number, address in found["slots"]}
        return WriteSession(tunnel, table, spec, found["session_name"], slots)
    buckets = {
        int(bucket): (str(slot["slot_id"]), str(slot["worker_addr"]))
        for slot in found["slots"]
        for bucket in slot["buckets"]
    }
    return WriteSession(tunnel, table, spec, found["id"], buckets, found.get("hasher", "default"))


def reloaded(service: MaxCompute, session: WriteSession) -> WriteSession:
    """The session with its slots as they are now."""
    found = _ask(service, "get", session, {_SESSION[session.tunnel]: session.id}).json()
    return replace(session, slots=_of(session.tunnel, session.table, session.spec, found).slots)


def status_of(
    service: MaxCompute, tunnel: Tunnel, table: MaxTable, spec: str | None, number: str
) -> tuple[Status, int]:
    """How a session is, and how many blocks it has (upload sessions); one that nobody knows has `ended`."""
    session = WriteSession(tunnel, table, spec, number)
    try:
        found = _ask(service, "get", session, {_SESSION[tunnel]: number}).json()
    except (SessionEndedError, NoTableError):
        return "ended", 0
    text = str(found.get("Status") or found.get("status") or "").lower()
    return _STATUS.get(text, "ended"), len(found.get("UploadedBlockList") or ())


def put_block(service: MaxCompute, session: WriteSession, number: int, body: bytes, *, is_arrow: bool) -> None:
    """Send a block of an upload session; the same number again replaces it."""
    params = {"uploadid": session.id, "blockid": str(number), **({"arrow": ""} if is_arrow else {})}
    _ask(service, "put", session, params, data=_packed(body, service.codec), headers=_encoding(service.codec))


def put_changes(
    service: MaxCompute, session: WriteSession, bucket: int, count: int, body: bytes, policy: RetryPolicy
) -> None:
    """Send changes to a bucket of an upsert session; where the slot has moved, its new address is asked for.

    Sent twice they are applied twice in their order, which leaves the same rows.
    """
    data, now = _packed(body, service.codec), session

    def send() -> None:
        nonlocal now
        slot, address = now.slots[bucket]
        params = {"upsertid": now.id, "bucketid": str(bucket), "slotid": slot, "record_count": str(count)}
        headers = {**_encoding(service.codec), "odps-tunnel-routed-server": address}
        try:
            _ask(service, "put", now, params, data=data, headers=headers, is_single=True)
        except TransientError:
            now = reloaded(service, now)
            raise

    call(policy, send, place=f"maxcompute: {session.place}")


def put_stream(service: MaxCompute, session: WriteSession, turn: int, count: int, body: bytes) -> None:
    """Send rows that are visible when this returns; a lost answer leaves open whether they are.

    Raises:
        TransientError: see above; the request was not repeated.
    """
    number = sorted(session.slots)[turn % len(session.slots)]
    slot, address = session.slots[number]
    params = {"uploadid": session.id, "slotid": slot, "record_count": str(count)}
    headers = {
        **_encoding(service.codec),
        "odps-tunnel-routed-server": address,
        "odps-slot-num": str(len(session.slots)),
    }
    _ask(service, "put", session, params, data=_packed(body, service.codec), headers=headers, is_single=True)


def post_commit(service: MaxCompute, session: WriteSession) -> Status:
    """Ask for the commit, by one request; how the session is then. Asking again changes nothing."""
    headers = {}
    if session.tunnel == "upsert" and session.slots:
        headers["odps-tunnel-routed-server"] = session.slots[min(session.slots)][1]
    _ask(service, "post", session, {_SESSION[session.tunnel]: session.id}, headers=headers, is_single=True)
    return status_of(service, session.tunnel, session.table, session.spec, session.id)[0]


def abort(service: MaxCompute, session: WriteSession) -> None:
    """Give up an upsert session, so that nobody can commit it any more."""
    _ask(service, "delete", session, {"upsertid": session.id})


def _ask(
    service: MaxCompute, method: str, session: WriteSession, params: Mapping[str, str], *,
    data: bytes | None = None, headers: Mapping[str, str] | None = None, is_single: bool = False,
) -> Any:  # fmt: skip
    """One request about a session, repeated by the client's policy unless `is_single`."""

    def asked() -> Any:
        from odps.tunnel.tabletunnel import TableUploadSession

        from vector_assets.clients.maxcompute_rest import single

        rest = service.tunnel.tunnel_rest
        rest = single(rest) if is_single else rest
        given = {**TableUploadSession.get_common_headers(content_length=len(data or b"")), **(headers or {})}
        query = dict(params)
        if service.tunnel.quota_name:
            query["quotaName"] = service.tunnel.quota_name
        if session.spec:
            query["partition"] = session.spec.replace("/", ",")
        url = session.table.handle.table_resource(endpoint=rest.endpoint) + _RESOURCE[session.tunnel]
        return getattr(rest, method)(url, **({} if data is None else {"data": data}), params=query, headers=given)

    return service.ask(asked, session.place)


def _encoding(codec: Codec) -> dict[str, str]:
    encoding = _ENCODINGS[codec]
    return {"Content-Encoding": encoding} if encoding else {}


def _packed(body: bytes, codec: Codec) -> bytes:
    """A whole body under a codec."""
    if codec == "ZLIB":
        return zlib.compress(body, 1)
    if codec == "SNAPPY":
        import snappy

        return bytes(snappy.StreamCompressor().add_chunk(body))
    return body


def arrow_body(batches: Iterable[pa.RecordBatch]) -> bytes:
    """Batches in the tunnel's form: IPC messages without schema, in chunks with checksums, one of all at the end."""
    from crc32c import crc32c

    payload = memoryview(b"".join([batch.serialize() for batch in batches]))
    pieces: list[bytes | memoryview] = [struct.pack(">I", CHUNK_BYTES)]
    overall, whole = 0, len(payload) // CHUNK_BYTES * CHUNK_BYTES
    for at in range(0, whole, CHUNK_BYTES):
        chunk = payload[at : at + CHUNK_BYTES]
        pieces += [chunk, struct.pack(">I", crc32c(chunk))]
    overall = crc32c(payload)
    pieces += [payload[whole:], struct.pack(">I", overall)]
    return b"".join(pieces)


def add_partition(service: MaxCompute, table: MaxTable, spec: str) -> None:
    """Make a partition unless it is there."""

    def made() -> None:
        table.handle.create_partition(spec.replace("/", ","), if_not_exists=True)

    call(service.policy, lambda: service.ask(made, place_of(table, spec)), place=f"maxcompute: {table.name}")


def waited(fn: Callable[[], T], is_over: Callable[[T], bool], seconds: float, pause: float = 0.2) -> T | None:
    """`fn()` again and again until it is over; None when the time is up."""
    import time

    deadline = time.monotonic() + seconds
    while True:
        found = fn()
        if is_over(found):
            return found
        if time.monotonic() >= deadline:
            return None
        time.sleep(pause)
        pause = min(2 * pause, 5.0)
