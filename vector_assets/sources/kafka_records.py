"""Kafka messages as Arrow columns, in bulk: no Python statement is executed per record that has no headers."""

from collections.abc import Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from vector_assets.clients.kafka_native import warn_of_headers
from vector_assets.engine.core import HEADERS_TYPE

Longs = npt.NDArray[np.int64]

COLUMNS = pa.schema(
    [
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
        pa.field("headers", HEADERS_TYPE),
        pa.field("timestamp", pa.timestamp("ms", tz="UTC")),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("timestamp_type", pa.int8()),
    ]
)
"""RAW_SCHEMA without the split and the leader epoch, which are one for a whole run of records."""

_OVERHEAD_BYTES = 24


def stamps(messages: Sequence[Message]) -> Longs:
    """Of each message what its time means (by librdkafka's number), and the time; not above 0 if none, as in an error.

    Two columns: shape (messages, 2).
    """
    # no list of the pairs in between: a thousand tuples alive wake the garbage collector, which took a third of a read
    flat = chain.from_iterable(map(Message.timestamp, messages))
    return np.fromiter(flat, np.int64, 2 * len(messages)).reshape(-1, 2)


def consecutive(messages: Sequence[Message]) -> Longs:
    """The offsets of messages of one partition, which only ever rise."""
    first, last = messages[0].offset(), messages[-1].offset()
    if first is not None and last is not None and last - first == len(messages) - 1:
        return np.arange(first, last + 1, dtype=np.int64)
    return np.fromiter(map(Message.offset, messages), np.int64, len(messages))


def columns(messages: Sequence[Message], offsets: Longs, times: Longs) -> pa.RecordBatch:
    """The messages (none of them an error) as a batch of `COLUMNS`; `times` as `stamps` gives them."""
    keys = list(map(Message.key, messages))
    return pa.RecordBatch.from_arrays(
        [
            pa.nulls(len(keys), pa.binary()) if keys.count(None) == len(keys) else pa.array(keys, pa.binary()),
            pa.array(list(map(Message.value, messages)), pa.binary()),
            _headers(messages),
            timestamps(times[:, 0], times[:, 1]),
            pa.array(offsets),
            time_types(times[:, 0]),
        ],
        schema=COLUMNS,
    )


def record_bytes(rows: pa.RecordBatch) -> Longs:
    """Size of each record in memory: key, value and the fixed columns; headers, which are rare, not counted."""
    sizes = np.full(rows.num_rows, _OVERHEAD_BYTES, np.int64)
    for name in ("key", "value"):
        sizes += pc.binary_length(rows.column(name)).fill_null(0).to_numpy()
    return sizes


def timestamps(kinds: Longs, values: Longs) -> pa.Array:
    """Times as a column of `COLUMNS`, null where librdkafka's number of their kind says that there is none."""
    absent = kinds == TIMESTAMP_NOT_AVAILABLE if values.min() <= 0 else None
    return pa.array(np.ascontiguousarray(values), mask=absent).cast(COLUMNS.field("timestamp").type)


def time_types(kinds: Longs) -> pa.Array:
    """Kinds of times as a column of `COLUMNS`: Java's numbers are one less than librdkafka's."""
    return pa.array((kinds - 1).astype(np.int8))


def _headers(messages: Sequence[Message]) -> pa.Array:
    found = _each_headers(messages)
    if not any(found):
        return pa.nulls(len(found), HEADERS_TYPE)
    counts = np.fromiter((len(each) if each else 0 for each in found), np.int32, len(found))
    flat = list(chain.from_iterable(filter(None, found)))
    pairs = pa.StructArray.from_arrays(
        [pa.array(map(itemgetter(0), flat), pa.string()), pa.array(map(itemgetter(1), flat), pa.binary())],
        fields=list(HEADERS_TYPE.value_type),
    )
    ends = np.concatenate([np.zeros(1, np.int32), np.cumsum(counts, dtype=np.int32)])
    return pa.ListArray.from_arrays(pa.array(ends), pairs, HEADERS_TYPE, mask=pa.array(counts == 0))


def _each_headers(messages: Sequence[Message]) -> list[Any]:
    """The headers of each message, None where it has none or where a header's name is not UTF-8 (which is logged).

    Asked exactly once: of a bad name confluent-kafka 2.16 makes a SystemError, and a null pointer the second time.
    """
    found: list[Any] = []
    unreadable: list[Message] = []
    headers = map(Message.headers, messages)
    while len(found) < len(messages):
        try:
            found.extend(headers)
        except (SystemError, UnicodeDecodeError):
            unreadable.append(messages[len(found)])
            found.append(None)
    if unreadable:
        first = unreadable[0]
        warn_of_headers(first.topic() or "", first.partition() or 0, first.offset() or 0, len(unreadable))
    return found
