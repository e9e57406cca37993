"""Maintenance of a pipeline's target, for sinks that are `Maintainable`: one task at a time, beside running batches."""

from typing import get_args

from vector_assets.engine.abilities import Maintainable, Maintained, MaintenanceTask, Upkeep
from vector_assets.engine.errors import PlanError
from vector_assets.engine.pipeline import Pipeline
from vector_assets.engine.retry import call
from vector_assets.engine.session import Session

TASKS: tuple[MaintenanceTask, ...] = get_args(MaintenanceTask)
"""All tasks, in the order that leaves least behind: what compaction replaced expires, what nobody knows goes last."""


def upkeep_of(pipeline: Pipeline) -> Upkeep:
    """The limits that the pipeline's settings name."""
    settings = pipeline.settings
    return Upkeep(
        grace=settings.maintenance_grace,
        keep_snapshots=settings.maintenance_keep_snapshots,
        keep_for=settings.maintenance_keep_for,
        target_bytes=settings.maintenance_target,
    )


def maintain(session: Session, task: MaintenanceTask, upkeep: Upkeep | None = None) -> Maintained:
    """Do one task on the pipeline's target and note it in the ledger; the lease is not taken.

    Raises:
        PlanError: the pipeline's target needs no maintenance.
        TransientError: other writers won each attempt, or the store did not answer; nothing was lost.
    """
    pipeline, sink = session.pipeline, session.sink
    if not isinstance(sink, Maintainable):
        raise PlanError(
            f"{pipeline.name}: {pipeline.target} (connector {pipeline.sink_connector}) needs no maintenance: only lake"
            " tables do"
        )
    limits = upkeep or upkeep_of(pipeline)
    done = call(session.sink_policy, lambda: sink.maintain(task, limits), place=f"{pipeline.name}: {task}")
    session.ledger.record_event(
        pipeline.name, "maintenance",
        f"{task}: {done.files_before} files of {done.bytes_before} bytes before, {done.files_after} of"
        f" {done.bytes_after} after, {done.removed} removed",
    )  # fmt: skip
    return done
