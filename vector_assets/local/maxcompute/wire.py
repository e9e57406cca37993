"""Rows to a reply, and a request's body to rows, in whatever form and codec the two ask for."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from vector_assets.clients.maxcompute_records import encode
from vector_assets.local.maxcompute.catalog import Column
from vector_assets.local.maxcompute.frames import CODECS, compressed, decompressed, frame, unframe
from vector_assets.local.maxcompute.http import Reply, Request
from vector_assets.local.maxcompute.refusal import Refusal, invalid
from vector_assets.local.maxcompute.rows import arrow_schema
from vector_assets.local.maxcompute.wire_decode import decode

_NANOS = 1_000_000_000


def row_range(request: Request, total: int) -> tuple[int, int]:
    """Start and count of `rowrange=(start,count)`.

    Raises:
        Refusal: it is none. What lies outside of the session's rows is left out.
    """
    text = request.query.get("rowrange", f"(0,{total})")
    try:
        start, count = (int(part) for part in text.strip("()").split(","))
    except ValueError:
        raise invalid(f"rowrange={text} is not (start,count)") from None
    if start < 0 or count < 0:
        raise Refusal(400, "InvalidRowRange", f"rowrange={text}: the session has {total} rows")
    start = min(start, total)
    return start, min(count, total - start)


def outgoing(rows: pa.Table, columns: Sequence[Column], request: Request, *, splits_stamps: bool = False) -> Reply:
    """Rows whose columns these are, as the request asks for them.

    With `splits_stamps`, as the instance tunnel has it, timestamps are structs in Arrow.

    Raises:
        Refusal: Arrow is asked for and a column has no Arrow type.
    """
    rows = rows.cast(arrow_schema(columns))
    if "arrow" in request.query:
        _refuse_json(columns)
        pieces = frame(split_stamps(rows) if splits_stamps else rows)
    else:
        pieces = encode(rows, [column.type for column in columns])
    asked = [each.strip() for each in request.headers.get("accept-encoding", "").split(",")]
    codec = next((each for each in asked if each in CODECS), "")
    headers = {"Content-Encoding": codec} if codec else {}
    return Reply(compressed(pieces, codec), headers=headers, media="application/octet-stream")


def incoming(request: Request, columns: Sequence[Column]) -> pa.Table:
    """The rows of a body.

    Raises:
        Refusal: it is damaged or not of these columns.
    """
    body = decompressed(request.body, request.headers.get("content-encoding", ""))
    if "arrow" in request.query:
        _refuse_json(columns)
        return unframe(body, arrow_schema(columns))
    return decode(body, [column.name for column in columns], [column.type for column in columns])


def split_stamps(rows: pa.Table) -> pa.Table:
    """Timestamps become structs of seconds and nanoseconds, in which the client reads them from some services."""
    for place, part in enumerate(rows.schema):
        if part.type == pa.timestamp("ns"):
            stamps = rows.column(place).combine_chunks()
            absent = np.asarray(stamps.is_null())
            seconds, nanos = np.divmod(np.asarray(stamps.cast(pa.int64()).fill_null(0)), _NANOS)
            # the client looks at the parts only
            parts = [pa.array(each, mask=absent) for each in (seconds, nanos.astype(np.int32))]
            split = pa.StructArray.from_arrays(parts, ["sec", "nano"], mask=stamps.is_null())
            rows = rows.set_column(place, part.name, split)
    return rows


def _refuse_json(columns: Sequence[Column]) -> None:
    found = [column.name for column in columns if column.type.has_json]
    if found:
        raise invalid(f"column {', '.join(found)}: JSON has no Arrow form on the tunnel")
