"""Links that MySQL clients asked for: a sensor that takes them up, and a job that runs one of them.

Neither needs the code location to be loaded anew: a link runs as soon as it is asked for. Its asset, with checks and
partitions, is there after the next reload; the job goes on running it.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import dagster as dg

from vector_assets.declare import check_apart, collect_folder, is_asked_for
from vector_assets.declare.autoetl_asked import Asked
from vector_assets.declare.autoetl_folder import RequestScript
from vector_assets.declare.autoetl_requests import Request
from vector_assets.defs import events, failures, names, runs, sensors
from vector_assets.engine.env import pipelines_dir
from vector_assets.engine.errors import ConfigError, TransientError, VectorAssetsError
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.pipeline import Pipeline
from vector_assets.engine.session import Books

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 5
"""How often a script's server is asked for requests and changes."""


class LinkConfig(dg.Config):
    """Which link: its name."""

    link: str


def definitions(scripts: Sequence[RequestScript]) -> dg.Definitions:
    """A job and a sensor for every script that takes requests."""
    jobs = [_job(script) for script in scripts]
    made = [_sensor(script, job) for script, job in zip(scripts, jobs, strict=True)]
    return dg.Definitions(jobs=jobs, sensors=made, executor=dg.in_process_executor)


def job_name(script: RequestScript) -> str:
    """What the job of a script is called."""
    return f"autoetl_{names.group(script.name)}"


def _job(script: RequestScript) -> dg.JobDefinition:
    # no pool: the lease keeps a run apart from one of the link's asset
    @dg.op(name=f"run_link_of_{names.group(script.name)}", out={})
    def run_link(context: dg.OpExecutionContext, config: LinkConfig) -> Iterator[dg.AssetMaterialization]:
        request = _request(script, config.link)
        try:
            pipeline = script.pipeline(request)
        except ConfigError as error:
            raise dg.Failure(description=str(error)) from error
        with failures.told(pipeline), runs.opened(pipeline, context.run.run_id) as runner:
            asked = Asked(runner.session)
            with asked.told():
                asked.begin()
                for outcome in runs.taken(runner, runner.catch_up()):
                    yield events.materialization(runner, outcome)

    @dg.job(name=job_name(script), description=f"Runs one link that a MySQL client asked for, by {script.path.name}.")
    def job() -> None:
        run_link()

    return job


def _request(script: RequestScript, link: str) -> Request:
    books = Books.open()
    try:
        found = {each.name: each for each in script.noted(books.ledger) if not each.is_dropped}
    finally:
        books.close()
    if link not in found:
        raise dg.Failure(description=f"no link {link!r}; there are: {', '.join(found) or 'none'}")
    return found[link]


def _sensor(script: RequestScript, job: dg.JobDefinition) -> dg.SensorDefinition:
    @dg.sensor(
        name=f"{job.name}_sensor",
        job=job,
        description=f"Takes up links that MySQL clients ask for, and runs those with changes; by {script.path.name}.",
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def tick(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        books = Books.open()
        try:
            requests = script.refresh(books.ledger)
            found = [_look(context.instance, script, each, books.ledger) for each in requests if not each.is_dropped]
        except VectorAssetsError as error:
            return dg.SensorResult(skip_reason=dg.SkipReason(str(error)))
        finally:
            books.close()
        due = [_run(job, each) for each in found if isinstance(each, Pipeline)]
        if due:
            return dg.SensorResult(run_requests=due)
        return dg.SensorResult(skip_reason=dg.SkipReason("; ".join(map(str, found)) or "no links"))

    return tick


def _refuse_taken(script: RequestScript, pipeline: Pipeline) -> None:
    """Make sure that no other pipeline of the folder has the link's name or index.

    Raises:
        ConfigError: one has; its place is named.
    """
    others = [
        each
        for each in collect_folder(pipelines_dir()).pipelines
        if not (is_asked_for(each) and each.name == pipeline.name and Path(each.place.file).name == script.path.name)
    ]
    check_apart([pipeline], others)


def _run(job: dg.JobDefinition, pipeline: Pipeline) -> dg.RunRequest:
    (op,) = (node.name for node in job.nodes)
    return dg.RunRequest(
        run_config={"ops": {op: {"config": {"link": pipeline.name}}}},
        tags={**names.tags(pipeline), "dagster/priority": names.PRIORITY},
    )


def _look(instance: dg.DagsterInstance, script: RequestScript, request: Request, ledger: Ledger) -> Pipeline | str:
    """The link's pipeline when a run of it is due, else why none is; what is wrong is told to the clients."""
    try:
        pipeline = script.pipeline(request)
        if not ledger.is_activated(pipeline.name, pipeline.target):
            _refuse_taken(script, pipeline)
        reason = sensors.reason_to_skip(instance, pipeline, ledger)
    except TransientError as error:
        return f"{request.name}: {error}"
    except VectorAssetsError as error:
        script.report(request, f"failed: {error}")
        return f"{request.name}: {error}"
    return f"{request.name}: {reason}" if reason else pipeline
