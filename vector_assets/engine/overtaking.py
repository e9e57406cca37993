"""A replay puts no row over a newer one: what it writes must not have been overtaken by a later batch.

A target that was made anew and then took a live batch before it was filled again holds newer rows than the batches that
a replay would apply. Applied in order and without a gap no batch can be overtaken.
"""

import numpy as np
import pyarrow as pa

from vector_assets.engine.core import POSITION, BatchKind, Merge, State
from vector_assets.engine.errors import PlanError
from vector_assets.engine.ledger_records import BatchRecord
from vector_assets.engine.retry import call
from vector_assets.engine.stages import Stages
from vector_assets.engine.touches import Touches, superseded


class Overtaking:
    """Later batches that the target holds already; each is looked for once, when the first batch is found missing."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._touches: Touches | None = None
        self._newest = 0

    def check(self, batch: BatchRecord, upserts: pa.Table, deletes: pa.Table | None) -> None:
        """Make sure that no later batch in the target wrote or took away a key of this one.

        Raises:
            PlanError: one did; nothing of this batch was written.
        """
        if self._stages.sink.merge is not Merge.LAST or batch.kind is not BatchKind.RECORDS:
            return
        touches = self._look(batch)
        if self._newest <= batch.seq:
            return
        key = [*self._stages.target.key, POSITION]
        rows = pa.concat_tables([each.select(key) for each in (upserts, deletes) if each is not None])
        nobody = np.zeros(0, np.int64)
        overtaken = int(superseded(self._stages, touches, batch, rows, Merge.LAST, nobody).sum())
        if overtaken:
            name = batch.pipeline
            way_out = (
                f"make the target anew, switch the sensor off, run `vector-assets reset {name} --adopt-target` and then"
                f" `vector-assets replay {name}`"
                if self._stages.pipeline.aggregation is not None
                else f"`vector-assets replay {name} --rewrite --seq {batch.seq}` writes the others"
            )
            raise PlanError(
                f"{name}: batch {batch.seq} is missing in the target, which holds later batches (up to {self._newest});"
                f" of {overtaken} of its keys they have the newer rows. Nothing of it was written; {way_out}"
            )

    def _is_there(self, batch: BatchRecord) -> bool:
        """A target made anew may not tell of a later batch: then it does not hold it."""
        stages, token = self._stages, batch.token(self._stages.lease.fence)
        found = call(
            stages.policy, lambda: stages.sink.find(token, batch.committable), place=f"{batch.pipeline}: looking"
        )
        return found == "APPLIED"

    def _look(self, batch: BatchRecord) -> Touches:
        if self._touches is None:
            later = [
                each
                for each in self._stages.ledger.batches(batch.pipeline, batch.target, after=batch.seq)
                if each.state is State.DONE
            ]
            there = {each.seq for each in later if self._is_there(each)}
            self._newest = max(there, default=0)
            self._touches = Touches(absent=frozenset({each.seq for each in later} - there))
        return self._touches
