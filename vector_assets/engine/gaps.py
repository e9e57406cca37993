"""What is done when a source has lost the next record, or has grown a split: the pipeline's policies.

A gap is closed by a batch like any other, so the target's compare-and-set on contiguity holds: one without records that
moves the position beyond the gap (`skip`, and a new split under `earliest`), or one whose records come out of the
archive (`from_archive`). What was done to which range is in the ledger's gaps, by the transaction that plans the batch.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import pyarrow as pa

from vector_assets.engine.core import BatchKind, Position, Range, Span, Split, canonical
from vector_assets.engine.errors import PositionLostError
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.ledger_records import BatchRecord, GapState
from vector_assets.engine.session import Session
from vector_assets.engine.shelf import Shelf
from vector_assets.engine.stages import Stages

log = logging.getLogger(__name__)

Policy = Literal["fail", "skip", "from_archive", "earliest"]
Plan = Callable[[BatchKind, Span], BatchRecord]
Bridge = tuple[BatchRecord, pa.Table, Span]


class Gaps:
    """The policies of one session's pipeline."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._shelf = Shelf(session)

    @property
    def _ledger(self) -> Ledger:
        return self._session.ledger

    def policy(self, error: PositionLostError) -> Policy:
        """What the source's options, else the pipeline's settings, say of such a loss."""
        if error.policy is not None:
            return error.policy
        settings = self._session.pipeline.settings
        return settings.on_new_split if error.kind == "NEW_SPLIT" else settings.on_position_lost

    def bridge(self, error: PositionLostError, position: Position, most_rows: int, plan: Plan) -> Bridge:
        """The batch that leads from `position` over what was lost, its records, and its span.

        Raises:
            PositionLostError: the same, when the policy is `fail` or the archive does not hold what comes next.
        """
        policy = self.policy(error)
        if policy == "from_archive":
            filled = self._shelf.fill(error, position, most_rows)
            if filled is not None:
                span, raw = filled
                return self._planned(error, plan, BatchKind.RECORDS, span, raw, policy, "filled")
        elif policy != "fail":
            moved = tuple(Range(split, position.get(split, end), end) for split, end in error.resume.items())
            if any(part.split not in position or canonical(part.start) != canonical(part.end) for part in moved):
                empty = self._session.pipeline.raw_schema.empty_table()
                state: GapState = "read" if policy == "earliest" else "skipped"
                return self._planned(error, plan, BatchKind.RESET, Span(moved), empty, policy, state)
        self._ledger.record_gap(self._session.pipeline.name, error.kind, error.missing, policy=policy)
        raise error

    def give_up(self, stages: Stages, error: PositionLostError, unfinished: Sequence[BatchRecord]) -> None:
        """Discard unfinished batches, the first of which cannot be read any more: none of them is in the target.

        Raises:
            PositionLostError: the same, when the policy is `fail`.
        """
        if self.policy(error) == "fail":
            self._ledger.record_gap(self._session.pipeline.name, error.kind, error.missing)
            raise error
        with self._ledger.store.transaction():
            for batch in unfinished:
                self._ledger.discard(stages.lease, batch.seq, f"{error.kind}: the source lost its records")

    def _planned(
        self, error: PositionLostError, plan: Plan, kind: BatchKind, span: Span, raw: pa.Table, policy: Policy,
        state: GapState,
    ) -> Bridge:  # fmt: skip
        name = self._session.pipeline.name
        with self._ledger.store.transaction():
            batch = plan(kind, span)
            ranges = error.missing if state != "filled" else self._shelf.ranges(span)
            self._ledger.record_gap(name, error.kind, ranges, policy=policy, state=state, seq=batch.seq)
        decided_by = "the source's options say" if error.policy else "vector-assets.on-position-lost says"
        what = {
            "skipped": f"they are skipped, as {decided_by}",
            "filled": f"{raw.num_rows} records of them are read from the archive",
            "read": "the new splits are read from their beginning, as vector-assets.on-new-split says",
        }[state]
        level = logging.INFO if state == "read" else logging.WARNING
        log.log(level, "%s: batch %d: %s: %s: %s", name, batch.seq, error.kind, _listed(ranges), what)
        return batch, raw, span


def _listed(ranges: Mapping[Split, tuple[int, int | None]]) -> str:
    some = [f"{split} {begin}-{'?' if end is None else end}" for split, (begin, end) in list(ranges.items())[:5]]
    return ", ".join(some) + (f" and {len(ranges) - 5} more" if len(ranges) > 5 else "")
