"""METADATA columns of the MySQL source, by Flink CDC's keys; read from the raw records, so a replay gives the same."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine.core import KIND, Split
from vector_assets.engine.metadata import Keys, Metadata
from vector_assets.engine.schema import LogicalType

_NAME = LogicalType("VARCHAR", nullable=False)


def _part(number: int) -> Any:
    def read(raw: pa.Table, _: Sequence[Split]) -> Any:
        return pc.list_element(pc.split_pattern(raw.column("key").cast(pa.string()), ".", max_splits=1), number)

    return read


def _op_ts(raw: pa.Table, _: Sequence[Split]) -> Any:
    return pc.fill_null(raw.column("timestamp"), pa.scalar(0, pa.timestamp("ms", "UTC")))


def _row_kind(raw: pa.Table, _: Sequence[Split]) -> Any:
    kinds = pc.struct_field(raw.column("value"), KIND)
    return pa.chunked_array([pa.array(["+I", "-U", "+U", "-D"]).take(chunk) for chunk in kinds.chunks], pa.string())


METADATA: Keys = MappingProxyType(
    {
        "database_name": Metadata(_NAME, _part(0)),
        "table_name": Metadata(_NAME, _part(1)),
        "op_ts": Metadata(LogicalType("TIMESTAMP_LTZ", 3, nullable=False), _op_ts),
        "row_kind": Metadata(_NAME, _row_kind),
    }
)
"""`op_ts` is 1970 for rows of the initial snapshot, as in Flink CDC."""
