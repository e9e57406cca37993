"""Lake jobs that were made after the code location was loaded: a sensor that sees them, and a job that runs one.

So `jobs start` needs no reload. Once the location is loaded again, such a job has its asset, checks and a sensor of its
own, which is on already.
"""

import time
from collections.abc import Iterator, Sequence

import dagster as dg

from vector_assets.defs import declared, events, failures, names, runs, sensors
from vector_assets.engine.errors import ConfigError, VectorAssetsError
from vector_assets.engine.pipeline import Pipeline
from vector_assets.engine.session import Books

NAME = "new_lake_jobs"
INTERVAL_SECONDS = 5
"""How often the folder is looked at."""


class NewcomerConfig(dg.Config):
    """Which lake job: its name."""

    name: str


def definitions(loaded: Sequence[Pipeline]) -> dg.Definitions:
    """The job and the sensor for lake jobs that are not among the loaded pipelines."""
    job = _job()
    return dg.Definitions(
        jobs=[job], sensors=[_sensor(job, frozenset(each.name for each in loaded))], executor=dg.in_process_executor
    )


def _job() -> dg.JobDefinition:
    # no pool: the lease keeps a run apart from one of the job's asset
    @dg.op(name="run_lake_job", out={})
    def run_lake_job(context: dg.OpExecutionContext, config: NewcomerConfig) -> Iterator[dg.AssetMaterialization]:
        try:
            pipeline = declared.lake_job(config.name)
        except ConfigError as error:
            raise dg.Failure(description=str(error)) from error
        with failures.told(pipeline), runs.opened(pipeline, context.run.run_id) as runner:
            for outcome in runs.taken(runner, runner.catch_up()):
                yield events.materialization(runner, outcome)

    @dg.job(name=NAME, description="Runs a lake job that was made after this code location was loaded.")
    def job() -> None:
        run_lake_job()

    return job


def _sensor(job: dg.JobDefinition, loaded: frozenset[str]) -> dg.SensorDefinition:
    @dg.sensor(
        name=f"{NAME}_sensor",
        job=job,
        description="Runs lake jobs that were made and started after this code location was loaded.",
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def tick(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        new = [name for name in declared.names() if name not in loaded]
        started = new and _started(context.instance)
        found = [_look(context.instance, name) for name in new if f"{name}_sensor" in started]
        due = [_request(each) for each in found if isinstance(each, Pipeline)]
        if due:
            return dg.SensorResult(run_requests=due)
        return dg.SensorResult(skip_reason=dg.SkipReason("; ".join(map(str, found)) or "no new lake job is started"))

    return tick


def _started(instance: dg.DagsterInstance) -> set[str]:
    """Names of the sensors that somebody turned on."""
    return {state.instigator_name for state in instance.all_instigator_state() if state.is_running}


def _look(instance: dg.DagsterInstance, name: str) -> Pipeline | str:
    """The lake job when a run of it is due, else why none is."""
    try:
        pipeline = declared.lake_job(name)
        books = Books.open()
        try:
            reason = _too_soon(instance, pipeline) or sensors.reason_to_skip(instance, pipeline, books.ledger)
        finally:
            books.close()
    except VectorAssetsError as error:
        return f"{name}: {error}"
    return f"{name}: {reason}" if reason else pipeline


def _too_soon(instance: dg.DagsterInstance, pipeline: Pipeline) -> str | None:
    """Why it is not looked at yet: its commit interval since its newest run is not over; None when it is."""
    runs = instance.get_run_records(dg.RunsFilter(tags={names.PIPELINE_TAG: pipeline.name}), limit=1)
    left = sensors.interval(pipeline) - (time.time() - runs[0].create_timestamp.timestamp()) if runs else 0.0
    return f"looked at again in {left:.0f} s" if left > 0 else None


def _request(pipeline: Pipeline) -> dg.RunRequest:
    return dg.RunRequest(
        run_config={"ops": {"run_lake_job": {"config": {"name": pipeline.name}}}},
        tags={**names.tags(pipeline), "dagster/priority": names.PRIORITY},
    )
