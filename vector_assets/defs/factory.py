"""Pipelines to Dagster definitions. Contacts nothing: services are asked when something runs."""

from collections.abc import Sequence

import dagster as dg

from vector_assets.declare import Capture
from vector_assets.defs import assets, captures, checks, jobs, maintenance, reconcile, sensors, vectors
from vector_assets.engine.creation import refuse_shared_prefixes
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.pipeline import Pipeline


def definitions(pipelines: Sequence[Pipeline], captured: Sequence[Capture] = ()) -> dg.Definitions:
    """Assets, sensors, checks and jobs of these pipelines, the external assets they read, and a sensor for each CDC
    pipeline, which finds tables.

    Raises:
        ConfigError: two pipelines share a name or a target; both places are named.
    """
    refuse_twins(pipelines)
    return dg.Definitions(
        assets=[
            *assets.origins(pipelines),
            *(assets.of(pipeline) for pipeline in pipelines),
            *(task for pipeline in pipelines for task in maintenance.assets(pipeline)),
        ],
        asset_checks=[
            check
            for pipeline in pipelines
            for check in (checks.of(pipeline), reconcile.of(pipeline), *vectors.of(pipeline))
        ],
        sensors=[*(sensors.of(pipeline) for pipeline in pipelines), *(captures.of(each) for each in captured)],
        jobs=[job for pipeline in pipelines for job in jobs.of(pipeline)],
        schedules=[
            schedule
            for pipeline in pipelines
            for schedule in (*jobs.schedules(pipeline), *maintenance.schedules(pipeline))
        ],
        executor=dg.in_process_executor,
    )


def refuse_twins(pipelines: Sequence[Pipeline]) -> None:
    """Make sure that no two pipelines share a name or a target.

    Raises:
        ConfigError: two do, or their paths share a prefix; both places are named.
    """
    problems = []
    seen: dict[tuple[str, str], Pipeline] = {}
    for pipeline in pipelines:
        for what, mine in pipeline.claims.items():
            other = seen.setdefault((what, mine), pipeline)
            if other is not pipeline:
                problems.append(f"{pipeline.place}: the {what} {mine!r} is already that of {other.place}")
    for number, pipeline in enumerate(pipelines):
        refuse_shared_prefixes(pipeline, pipelines[:number])
    if problems:
        raise ConfigError("\n".join(problems))
