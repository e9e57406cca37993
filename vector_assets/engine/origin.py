"""Where a row came from: the record's split, offset and time, and the batch that read it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine.core import Json, Split
from vector_assets.engine.errors import FatalError
from vector_assets.engine.ledger_records import BatchRecord
from vector_assets.engine.touches import Making


@dataclass(frozen=True, slots=True)
class Origin:
    """One archived record: `batch` archived it (of a replayed dead letter the batch that replayed it)."""

    batch: int
    ordinal: int
    hour: str
    split: Split
    offset: int
    timestamp_ms: int | None
    code_version: str

    def __str__(self) -> str:
        return f"{self.split} offset {self.offset}, batch {self.batch}, {self.hour}"


def origins(making: Making, batch: BatchRecord, ordinals: Sequence[int]) -> list[Origin]:
    """Where these records of a batch's archive file came from, in the order asked for; for few records.

    Raises:
        FatalError: the archive file is missing or damaged.
    """
    if batch.archive is None:
        raise FatalError(f"{batch.pipeline}: batch {batch.seq} has no archive file")
    raw = making.archive.read(batch.archive).select(["split", "offset", "timestamp"])
    splits = making.splits(batch)
    found = raw.take(pa.array(np.asarray(ordinals, np.int64)))
    times = pc.cast(found.column("timestamp"), pa.int64())
    return [
        Origin(batch.seq, ordinal, batch.hour, splits[split], offset, time, batch.code_version)
        for ordinal, split, offset, time in zip(
            ordinals,
            found.column("split").to_pylist(),
            found.column("offset").to_pylist(),
            times.to_pylist(),
            strict=True,
        )
    ]


def plain(value: Any) -> Json:
    """A value of a key as JSON: what JSON lacks is text."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.hex()
    if isinstance(value, list):
        return [plain(item) for item in value]
    return str(value)


def listed(rows: pa.Table) -> list[dict[str, Json]]:
    """Few rows for people and programs."""
    return [{name: plain(value) for name, value in row.items()} for row in rows.to_pylist()]
