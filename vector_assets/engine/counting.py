"""The counts of a batch: what they come to once it is committed, and whether they add up."""

from dataclasses import replace

from vector_assets.engine.core import Counts
from vector_assets.engine.ledger_records import BatchRecord


def settled(counts: Counts, prepared: Counts, refused: int) -> Counts:
    """The counts of a committed batch: what was prepared, what the target says, what it refused."""
    return replace(
        prepared,
        conflicts=counts.conflicts,
        written=counts.written,
        deleted=counts.deleted,
        superseded=prepared.superseded + counts.superseded,
        refused=prepared.refused + refused,
    )


def is_weighable(batch: BatchRecord) -> bool:
    """False for a batch that a rebuild knows by the target's token only: its records could not be counted."""
    return batch.note is None or batch.expired_ms is None


def is_balanced(counts: Counts) -> bool:
    """The equations of `Counts` hold."""
    return counts.records == counts.decoded + counts.rejected and counts.rows == gone(counts)


def gone(counts: Counts) -> int:
    """Rows whose fate is counted."""
    c = counts
    return c.filtered + c.compacted + c.conflicts + c.superseded + c.refused + c.written + c.deleted
