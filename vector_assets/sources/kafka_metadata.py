"""METADATA columns of the Kafka source, by Flink's keys and of Flink's types.

Everything is read from the raw records, so that a replay from the archive gives the same values. `leader-epoch` and
`timestamp-type` are null in archives of older code and in dead letters that are replayed.
"""

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa

from vector_assets.engine.core import Split
from vector_assets.engine.metadata import Keys, Metadata
from vector_assets.engine.schema import LogicalType
from vector_assets.sources.kafka_tokens import home_of

Read = Callable[[pa.Table, Sequence[Split]], Any]

TIMESTAMP_TYPES = ("CreateTime", "LogAppendTime")
"""By the numbers in `timestamp_type`; any other number (-1) has the name below."""

_NO_TYPE = "NoTimestampType"
_HEADERS = LogicalType(
    "MAP", children=(LogicalType("VARCHAR", nullable=False), LogicalType("VARBINARY")), nullable=False
)


def _of_split(kind: pa.DataType, what: Callable[[Split], Any]) -> Read:
    def read(raw: pa.Table, splits: Sequence[Split]) -> Any:
        return pa.array([what(split) for split in splits], kind).take(raw.column("split"))

    return read


def _column(name: str) -> Read:
    return lambda raw, _: raw.column(name)


def _timestamp_type(raw: pa.Table, _: Sequence[Split]) -> Any:
    numbers = raw.column("timestamp_type").combine_chunks().cast(pa.int64())
    # -1 is the last name, which is what a negative number means to numpy, too
    names: Any = pa.array([*TIMESTAMP_TYPES, _NO_TYPE])
    places = np.mod(numbers.fill_null(0).to_numpy(), len(names))
    return names.take(pa.array(places, mask=numbers.is_null().to_numpy(zero_copy_only=False)))


def _headers(raw: pa.Table, _: Sequence[Split]) -> Any:
    """Headers as maps; of several with one name the last one counts, as in Flink."""
    lists = raw.column("headers").combine_chunks()
    lengths: Any = lists.value_lengths().fill_null(0).to_numpy()
    pairs = lists.flatten()
    keys: Any = pairs.field("key")
    values: Any = pairs.field("value")
    if (lengths > 1).any():
        owners: Any = np.repeat(np.arange(len(lengths)), lengths)
        names: Any = keys.dictionary_encode().indices.to_numpy().astype(np.int64)
        marks: Any = (owners * (names.max() + 1) + names)[::-1]
        last: Any = np.unique(marks, return_index=True)[1]
        kept: Any = np.sort(len(marks) - 1 - last)
        counted: Any = np.bincount(owners[kept], minlength=len(lists))
        lengths = counted
        keys, values = keys.take(pa.array(kept)), values.take(pa.array(kept))
    offsets: Any = np.concatenate([np.zeros(1, np.int32), np.cumsum(lengths, dtype=np.int32)])
    return pa.MapArray.from_arrays(pa.array(offsets), keys, values)


METADATA: Keys = MappingProxyType(
    {
        "topic": Metadata(LogicalType("VARCHAR", nullable=False), _of_split(pa.string(), lambda s: home_of(s).topic)),
        "partition": Metadata(
            LogicalType("INT", nullable=False), _of_split(pa.int32(), lambda s: home_of(s).partition)
        ),
        "headers": Metadata(_HEADERS, _headers),
        "leader-epoch": Metadata(LogicalType("INT"), _column("leader_epoch")),
        "offset": Metadata(LogicalType("BIGINT", nullable=False), _column("offset")),
        "timestamp": Metadata(LogicalType("TIMESTAMP_LTZ", 3), _column("timestamp")),
        "timestamp-type": Metadata(LogicalType("VARCHAR"), _timestamp_type),
    }
)
"""What Kafka knows of a record. Flink says NOT NULL of the last two; see above when they are null here."""
