"""Rows of a partition through the tunnel: Arrow, and records for JSON columns, which have no Arrow type there.

A download session is a snapshot: as long as it is used, every range of rows gives the same rows or an error. The answer
of one request is checked (length, CRC-32C, number of rows) before a row of it is used, and asked for again if need be.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from vector_assets.clients.maxcompute import MaxColumn, MaxCompute, MaxTable
from vector_assets.clients.maxcompute_errors import RefusedError
from vector_assets.engine.errors import PlanError, TransientError
from vector_assets.engine.retry import call

_FIRST_ROWS = 8192
_MOST_ROWS = 1 << 18
_CHUNK_BYTES = 16 << 20
"""A request asks for about so many bytes of Arrow data, by the size of the rows seen before."""
_ENCODINGS = {"RAW": None, "ZLIB": "deflate", "SNAPPY": "x-snappy-framed"}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A download session over a partition (or a table without partitions): its rows as they were when it was opened.

    It can be made of what a token kept, without a request: whether it still stands shows when rows are read.
    """

    table: MaxTable
    spec: str | None
    id: str
    rows: int

    @property
    def place(self) -> str:
        """`project.table/ds=20180905`."""
        return f"{self.table.name}/{self.spec}" if self.spec else self.table.name


def open_snapshot(service: MaxCompute, table: MaxTable, spec: str | None = None) -> Snapshot:
    """A new download session.

    Raises:
        PlanError: the table cannot be read by the tunnel (a Delta table, a view).
        NoPartitionError: the partition is gone.
    """
    check_readable(table)
    place = f"{table.name}/{spec}" if spec else table.name

    def opened() -> Snapshot:
        given = spec.replace("/", ",") if spec else None
        session = service.tunnel.create_download_session(table.handle, partition_spec=given)
        return Snapshot(table, spec, session.id, int(session.count))

    return service.ask(opened, place)


def check_readable(table: MaxTable) -> None:
    """Refuse what the tunnel does not read.

    Raises:
        PlanError: a Delta table, or a view.
    """
    if table.is_delta:
        raise PlanError(
            f"maxcompute: {table.name} is a Delta table (primary key {', '.join(table.primary_key)}, transactional)"
            ": reading from a MaxCompute Delta table is not supported"
        )
    if table.is_view:
        raise PlanError(f"maxcompute: {table.name} is a view: the tunnel reads tables")


def read_partition(
    service: MaxCompute, table: MaxTable, spec: str | None = None, columns: Sequence[str] | None = None, start: int = 0,
    count: int | None = None, *, snapshot: Snapshot | None = None,
) -> Iterator[pa.RecordBatch]:  # fmt: skip
    """Rows `start` to `start + count` of a partition in Arrow, a request's worth at a time.

    `columns` may name partition columns; by default all columns are read, the partition's last. Their types are those
    of `MaxColumn.type`. One snapshot serves all of it: the given one, else a new one.

    Raises:
        PlanError: the table cannot be read, or has no such column.
        NoPartitionError: the partition is gone.
        TableModifiedError: it has changed since the snapshot was taken.
        SessionEndedError: the snapshot has expired.
        TransientError: the service does not answer properly.
    """
    wanted = [table.column(name) for name in columns] if columns is not None else [*table.columns, *table.levels]
    table.check_nested([column.name for column in wanted])
    found = snapshot or open_snapshot(service, table, spec)
    end = found.rows if count is None else min(found.rows, start + count)
    size = _FIRST_ROWS
    while start < end:
        rows = read_rows(service, found, wanted, start, min(size, end - start))
        start += sum(batch.num_rows for batch in rows)
        size = next_size(rows)
        yield from rows


def next_size(rows: Sequence[pa.RecordBatch]) -> int:
    """Rows to ask for next, by the size of those that came."""
    count = sum(int(batch.num_rows) for batch in rows)
    size = max(sum(int(batch.nbytes) for batch in rows), 1)
    return max(1, min(_MOST_ROWS, _CHUNK_BYTES * count // size))


def read_rows(
    service: MaxCompute, snapshot: Snapshot, columns: Sequence[MaxColumn], start: int, count: int
) -> list[pa.RecordBatch]:
    """Exactly `count` rows from row `start` on, by one request per form; the columns as asked for.

    Raises:
        TableModifiedError: the partition has changed since the snapshot was taken.
        SessionEndedError: the snapshot has expired.
        TransientError: the service does not answer properly, as often as the policy asks.
    """
    levels = _level_values(snapshot)
    data = [column for column in columns if column.name.lower() not in levels]
    found, sizes = _data(service, snapshot, data, start, count)
    schema = pa.schema([column.field for column in columns])
    return [
        pa.RecordBatch.from_arrays(
            [
                _repeated(column, levels[column.name.lower()], size)
                if column.name.lower() in levels
                else found[column.name][number]
                for column in columns
            ],
            schema=schema,
        )
        for number, size in enumerate(sizes)
    ]


def _data(
    service: MaxCompute, snapshot: Snapshot, columns: Sequence[MaxColumn], start: int, count: int
) -> tuple[dict[str, list[pa.Array]], list[int]]:
    """The arrays of data columns, a piece per batch, and the batches' rows; without columns nothing is asked for."""
    place = f"maxcompute: {snapshot.place}"
    by_arrow = [column for column in columns if not column.is_json]
    found: dict[str, list[pa.Array]] = {}
    sizes = [count]
    if by_arrow:
        batches = call(service.policy, lambda: _arrow(service, snapshot, by_arrow, start, count), place=place)
        sizes = [batch.num_rows for batch in batches]
        names = batches[0].schema.names if batches else []
        found = {name: [batch.column(at) for batch in batches] for at, name in enumerate(names)}
    for column in columns:
        if column.is_json:
            fetch = partial(_texts, service, snapshot, column, start, count)
            found[column.name] = _sliced(call(service.policy, fetch, place=place), sizes)
    return found, sizes


def _sliced(array: pa.Array, sizes: Sequence[int]) -> list[pa.Array]:
    starts = [sum(sizes[:at]) for at in range(len(sizes))]
    return [array.slice(first, size) for first, size in zip(starts, sizes, strict=True)]


def _level_values(snapshot: Snapshot) -> dict[str, str]:
    parts = (part.partition("=") for part in (snapshot.spec or "").split("/") if part)
    return {name.lower(): value for name, _, value in parts}


def _repeated(column: MaxColumn, value: str, count: int) -> pa.Array:
    """A partition column: the partition's value in every row."""
    scalar = pa.array([value]).cast(column.type.arrow)[0]
    return pa.repeat(scalar, count)


def _arrow(
    service: MaxCompute, snapshot: Snapshot, columns: Sequence[MaxColumn], start: int, count: int
) -> list[pa.RecordBatch]:
    """The batches of one request; the tunnel sends columns in the table's order."""
    names = [column.name for column in columns]
    order = [column for column in snapshot.table.columns if column.name in set(names)]
    schema = pa.schema([column.field for column in order])

    def asked() -> list[pa.RecordBatch]:
        reply = _get(service, snapshot, names, start, count, is_arrow=True)
        body = reply.raw.read(decode_content=False)
        return _batches(_decompressed(body, reply.headers.get("Content-Encoding")), schema, snapshot.place)

    found = service.ask(asked, snapshot.place)
    return [batch for batch in _checked(found, snapshot, start, count) if batch.num_rows]


def _checked(batches: list[pa.RecordBatch], snapshot: Snapshot, start: int, count: int) -> list[pa.RecordBatch]:
    rows = sum(batch.num_rows for batch in batches)
    if rows != count:
        raise TransientError(f"maxcompute: {snapshot.place}: {rows} rows came from row {start} on instead of {count}")
    return batches


def _get(
    service: MaxCompute, snapshot: Snapshot, columns: Sequence[str], start: int, count: int, *, is_arrow: bool
) -> Any:
    """The answer to one request for rows, not yet read."""
    from odps.tunnel.tabletunnel import TableDownloadSession

    from vector_assets.clients.maxcompute_rest import single

    rest = single(service.tunnel.tunnel_rest)
    handle = snapshot.table.handle
    headers = {**TableDownloadSession.get_common_headers(content_length=0), "Accept-Encoding": ""}
    if encoding := _ENCODINGS[service.codec]:
        headers["Accept-Encoding"] = encoding
    params = {"downloadid": snapshot.id, "rowrange": f"({start},{count})", "columns": ",".join(columns)}
    if service.tunnel.quota_name:
        params["quotaName"] = service.tunnel.quota_name
    if snapshot.spec:
        params["partition"] = snapshot.spec.replace("/", ",")
    actions = ["data", "arrow"] if is_arrow else ["data"]
    url = handle.table_resource(endpoint=rest.endpoint)
    return rest.get(url, stream=True, actions=actions, params=params, headers=headers)


def _decompressed(body: bytes, encoding: str | None) -> bytes:
    match encoding:
        case None | "" | "identity":
            return body
        case "deflate":
            try:
                return zlib.decompress(body)
            except zlib.error as error:
                raise TransientError(f"maxcompute: the answer is damaged: {error}") from error
        case "x-snappy-framed":
            import snappy

            try:
                return bytes(snappy.StreamDecompressor().decompress(body))
            except snappy.UncompressError as error:
                raise TransientError(f"maxcompute: the answer is damaged: {error}") from error
    raise RefusedError(f"maxcompute: the answer has the encoding {encoding}, wanted {', '.join(_ENCODINGS)}")


def _batches(body: bytes, schema: pa.Schema, place: str) -> list[pa.RecordBatch]:
    """The batches in a body: chunks of the size that comes first, each with its checksum, the last with that of all.

    The checksum of all is checked, which covers what those of the chunks cover.
    """
    from crc32c import crc32c

    if len(body) < 8:
        raise TransientError(f"maxcompute: {place}: the answer is cut: {len(body)} bytes")
    (size,) = struct.unpack_from(">I", body)
    view = memoryview(body)
    last = 4 + (len(body) - 4) // (size + 4) * (size + 4)
    pieces = [view[at : at + size] for at in range(4, last, size + 4)]
    if len(body) - last < 4:
        raise TransientError(f"maxcompute: {place}: the answer is cut after {len(body)} bytes")
    pieces.append(view[last:-4])
    payload = b"".join(pieces)
    if struct.unpack_from(">I", body, len(body) - 4)[0] != crc32c(payload):
        raise TransientError(f"maxcompute: {place}: the answer does not have its checksum")
    reader = pa.BufferReader(payload)
    found = []
    try:
        while reader.tell() < len(payload):
            found.append(pa.ipc.read_record_batch(pa.ipc.read_message(reader), schema))
    except (pa.ArrowInvalid, pa.ArrowTypeError, OSError) as error:
        raise RefusedError(f"maxcompute: {place}: the rows are not those of {schema.names}: {error}") from error
    return found


def _texts(service: MaxCompute, snapshot: Snapshot, column: MaxColumn, start: int, count: int) -> pa.Array:
    """A JSON column's texts as they are, by records: read as STRING, which has the same form on the wire."""

    def asked() -> pa.Array:
        from odps import types
        from odps.tunnel.io.reader import TunnelRecordReader
        from odps.tunnel.io.stream import CompressOption, get_decompress_stream

        def stream(cursor: int, *_: Any, **__: Any) -> Any:
            reply = _get(service, snapshot, [column.name], start + cursor, count - cursor, is_arrow=False)
            encoding = reply.headers.get("Content-Encoding")
            option = CompressOption(CompressOption.CompressAlgorithm.from_encoding(encoding)) if encoding else None
            return get_decompress_stream(reply, option)

        schema = types.OdpsSchema([types.Column(column.name, types.string)])
        with TunnelRecordReader(schema, stream, columns=[column.name]) as reader:
            return pa.array([record[0] for record in reader], pa.string())

    text = service.ask(asked, snapshot.place)
    if len(text) != count:
        raise TransientError(f"maxcompute: {snapshot.place}: {len(text)} rows came from row {start} on, not {count}")
    return text
