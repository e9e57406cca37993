"""What every sink says the same way when batches are staged and committed."""

from collections.abc import Mapping
from typing import TypeVar

import pyarrow as pa

from vector_assets.engine.core import Batch, RowKind, Staged, kinds_of, rejects
from vector_assets.engine.errors import BudgetError, FatalError

T = TypeVar("T")


def prepared(found: T | None, place: str) -> T:
    """What `prepare` or `inspect` has found.

    Raises:
        FatalError: neither has been called.
    """
    if found is None:
        raise FatalError(f"{place}: the sink was not prepared")
    return found


def has_changes(batch: Batch) -> bool:
    """Whether there is anything but inserts in a batch."""
    kinds = kinds_of(batch.upserts)
    is_changed = kinds is not None and bool((kinds.to_numpy() != RowKind.INSERT).any())
    return is_changed or (batch.deletes is not None and batch.deletes.num_rows > 0)


def rejects_of(reasons: Mapping[int, str]) -> pa.Table:
    """Rejects of rows that cannot be written: why, by their position in the batch."""
    return rejects(list(reasons), "write", list(reasons.values()))


def budget_left(reasons: Mapping[int, str], limit: int | None, place: str) -> int | None:
    """How many rows a batch may still lose after these; None for any number.

    Raises:
        BudgetError: these are too many.
    """
    if limit is None:
        return None
    if len(reasons) > limit:
        raise BudgetError(
            f"{place}: {len(reasons)} rows cannot be written, the batch may lose {limit}; the first:"
            f" {next(iter(reasons.values()))}"
        )
    return limit - len(reasons)


def payload_of(staged: Staged, kind: type[T], place: str) -> T:
    """What this process staged.

    Raises:
        FatalError: another process has staged the batch.
    """
    if not isinstance(staged.payload, kind):
        raise FatalError(f"{place}: batch {staged.token.seq} was not staged by this process: stage it again")
    return staged.payload
