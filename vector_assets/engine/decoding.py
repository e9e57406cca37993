"""From raw records to the rows that a sink gets: decoding, metadata, transforms, folding; no state anywhere."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine import compact
from vector_assets.engine.core import (
    KIND,
    POSITION,
    Decoded,
    Decoder,
    Heeding,
    Merge,
    RowKind,
    Split,
    Target,
    Transform,
    Versioned,
    kinds_of,
)
from vector_assets.engine.errors import PlanError
from vector_assets.engine.metadata import Metadata, attach
from vector_assets.engine.schema import Column


class Decoding(Protocol):
    """What decoding needs to know; a Pipeline is one."""

    @property
    def decoder(self) -> Decoder:
        """Raw records to rows."""
        ...

    @property
    def metadata(self) -> tuple[tuple[Column, Metadata], ...]:
        """The columns that the source fills."""
        ...

    @property
    def transforms(self) -> tuple[Transform, ...]:
        """What happens to the rows, in order."""
        ...


def decode(
    pipeline: Decoding, raw: pa.Table, splits: Sequence[Split], chosen: pa.Array | None = None,
    versions: Mapping[str, str] | None = None, stop: threading.Event | None = None,
) -> Decoded:  # fmt: skip
    """Raw records (or those with the `chosen` ordinals) to the rows of a pipeline's sink, and everything rejected.

    Raises:
        TransientError: `stop` was set before a transform that asks a service had all it needs.
    """
    numbered = raw.append_column(POSITION, pa.array(np.arange(raw.num_rows, dtype=np.int64)))
    result = pipeline.decoder.decode(numbered if chosen is None else numbered.take(chosen))
    if pipeline.metadata:
        result = replace(result, rows=attach(result.rows, raw, splits, pipeline.metadata))
    for transform in pipeline.transforms:
        known = transform.at(versions) if versions and isinstance(transform, Versioned) else transform
        if stop is not None and isinstance(known, Heeding):
            known = known.heeding(stop)
        after = known.apply(result.rows)
        result = Decoded(
            after.rows,
            pa.concat_tables([result.rejected, after.rejected]),
            result.nulled + after.nulled,
            result.filtered + after.filtered,
            {**result.versions, **after.versions},
            {name: result.usage.get(name, 0) + after.usage.get(name, 0) for name in {*result.usage, *after.usage}},
            result.wants,
        )
    return result


def without(rows: pa.Table, rejected: pa.Table) -> pa.Table:
    """The rows whose record is not among the rejects."""
    if rejected.num_rows == 0:
        return rows
    return rows.filter(pc.invert(pc.is_in(rows.column(POSITION), value_set=rejected.column(POSITION).combine_chunks())))


def folded(rows: pa.Table, merge: Merge, target: Target, *, place: str) -> compact.Compacted:
    """What of the rows a sink with this merge gets.

    Raises:
        PlanError: the merge does not take the rows' kinds, or they have no key.
    """
    if merge is Merge.LAST:
        return compact.compact(rows, target.key)
    kinds = kinds_of(rows)
    if kinds is None or merge is Merge.CHANGELOG:
        return compact.Compacted(rows, None, 0)
    if pc.any(pc.not_equal(kinds, int(RowKind.INSERT))).as_py():
        raise PlanError(
            f"{place}: the records hold updates or deletes, {target.name} is written with merge"
            f" {merge}, which takes inserts only; choose an upsert mode of the sink"
        )
    return compact.Compacted(rows.drop_columns(KIND), None, 0)


def joined_anew(before: Mapping[str, str] | None, now: Mapping[str, str]) -> str | None:
    """That a batch was joined with other rows than the first time, because those are gone; None where it was not."""
    changed = [name for name, version in (before or {}).items() if now.get(name, version) != version]
    return f"joined with other rows of {', '.join(changed)} than when it was staged before" if changed else None
