"""Lake tables kept in order: an asset per task, and a schedule that materializes them one after the other.

Any pipeline has them whose sink is `Maintainable`; nothing here knows which lake it is.
"""

from typing import Any

import dagster as dg

from vector_assets.defs import failures, names, runs
from vector_assets.engine.abilities import Maintained, MaintenanceTask
from vector_assets.engine.pipeline import Pipeline
from vector_assets.engine.registry import load
from vector_assets.engine.upkeep import TASKS, maintain
from vector_assets.sinks import SINKS

_SAYS = {
    "compact": "Writes the rows of small files again, together; no row changes.",
    "expire": "Drops old snapshots and the files that only they know; positions are kept.",
    "orphans": "Removes files that no snapshot knows and that are older than the grace time.",
}


def assets(pipeline: Pipeline) -> list[dg.AssetsDefinition]:
    """One asset per task, each after the one before it; none where the target needs no maintenance."""
    if not is_maintainable(pipeline):
        return []
    return [_asset(pipeline, task, before) for task, before in zip(TASKS, (None, *TASKS), strict=False)]


def schedules(pipeline: Pipeline) -> list[dg.ScheduleDefinition]:
    """All tasks by the setting `vector-assets.maintenance.schedule`; none where it is `off`."""
    cron = pipeline.settings.maintenance_schedule
    if cron == "off" or not is_maintainable(pipeline):
        return []
    job = dg.define_asset_job(
        names.maintenance_job(pipeline),
        selection=dg.AssetSelection.assets(*(names.maintenance_key(pipeline, task) for task in TASKS)),
        description=f"Keeps {pipeline.target} in order.",
    )
    schedule = dg.ScheduleDefinition(
        name=f"{names.maintenance_job(pipeline)}_schedule", job=job, cron_schedule=cron, execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )  # fmt: skip
    return [schedule]


def is_maintainable(pipeline: Pipeline) -> bool:
    """True when the pipeline's sink is `Maintainable`, by its class: no sink is opened."""
    if pipeline.sink_connector not in SINKS:
        return False
    return callable(getattr(load(SINKS, "sink connector", pipeline.sink_connector), "maintain", None))


def _asset(pipeline: Pipeline, task: MaintenanceTask, before: MaintenanceTask | None) -> dg.AssetsDefinition:
    # no pool and no lease: it runs beside the batches of the same table
    @dg.asset(
        key=names.maintenance_key(pipeline, task),
        deps=[names.maintenance_key(pipeline, before)] if before else [],
        description=_SAYS[task],
        group_name=names.group(pipeline.sink_connector),
        kinds={"maintenance"},
        owners=names.owners(pipeline),
        metadata={"target": pipeline.target},
    )
    def body(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        with failures.told(pipeline), runs.opened(pipeline, context.run.run_id) as runner:
            done = maintain(runner.session, task)
        return dg.MaterializeResult(metadata=_metadata(done))

    return body


def _metadata(done: Maintained) -> dict[str, Any]:
    """Numbers, so that the UI plots them."""
    return {
        "files_before": done.files_before,
        "files_after": done.files_after,
        "bytes_before": done.bytes_before,
        "bytes_after": done.bytes_after,
        "removed": done.removed,
        **done.numbers,
        **({"notes": "\n".join(done.notes)} if done.notes else {}),
    }
