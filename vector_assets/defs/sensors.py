"""A sensor per pipeline: a run as soon as there is something to do, none while one is at work.

Requests carry no run key: Dagster would never start a second run under the key of a failed one.
"""

import logging
import time

import dagster as dg

from vector_assets.defs import declared, history, names, partitions, probe
from vector_assets.engine import links
from vector_assets.engine.abilities import partitioned
from vector_assets.engine.errors import UnavailableError
from vector_assets.engine.hours import Calendar
from vector_assets.engine.lease import Holder
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.pipeline import Pipeline
from vector_assets.engine.session import Books

log = logging.getLogger(__name__)

_SLACK_SECONDS = 600
_STILL_SECONDS = 60


def of(pipeline: Pipeline) -> dg.SensorDefinition:
    """The pipeline's sensor; on unless somebody turns it off; that of an idle pipeline is off until started."""

    @dg.sensor(
        name=f"{pipeline.name}_sensor",
        description=f"Starts a run of {pipeline.name} when it has new records or an unfinished batch.",
        target=dg.AssetSelection.assets(names.asset_key(pipeline)),
        minimum_interval_seconds=max(1, round(interval(pipeline))),
        default_status=dg.DefaultSensorStatus.STOPPED if pipeline.is_idle else dg.DefaultSensorStatus.RUNNING,
        tags=names.tags(pipeline),
    )
    def tick(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason | dg.SensorResult:
        # an edited job is not held back by failures of the old one
        current = declared.today(pipeline)
        books = Books.open()
        try:
            reason = _reason_to_be_idle(context.instance, current, books.ledger)
            if partitioned(current.source_options):
                return partitions.look(context, current, books.ledger, reason)
            reason = reason or _nothing_new(current, books.ledger)
        finally:
            books.close()
        return dg.SkipReason(reason) if reason else request(current)

    return tick


def reason_to_skip(instance: dg.DagsterInstance, pipeline: Pipeline, ledger: Ledger) -> str | None:
    """Why no run is due now; None when one is."""
    return _reason_to_be_idle(instance, pipeline, ledger) or _nothing_new(pipeline, ledger)


def interval(pipeline: Pipeline) -> float:
    """Seconds between two looks: the setting, unless it is left out and the source's options know better."""
    settings, own = pipeline.settings, pipeline.source_options.poll_seconds()
    is_set = "sensor_interval" in settings.model_fields_set
    return settings.sensor_interval.total_seconds() if is_set or own is None else own


def request(pipeline: Pipeline, now: float | None = None) -> dg.RunRequest:
    """A drain of the partition that is open now."""
    calendar = Calendar(pipeline.settings.partitions, (lambda: now) if now is not None else time.time)
    partition = calendar.now()
    return dg.RunRequest(
        partition_key=partition,
        run_config={"ops": {pipeline.name: {"config": {"mode": "drain"}}}},
        tags={
            **names.tags(pipeline),
            "dagster/priority": names.PRIORITY,
            # a drain ends with its partition; one that is booked as started long after that has died with its machine
            "dagster/max_runtime": str(round(calendar.end(partition) - calendar.clock()) + _SLACK_SECONDS),
        },
    )


def _reason_to_be_idle(instance: dg.DagsterInstance, pipeline: Pipeline, ledger: Ledger) -> str | None:
    """Why nothing is to be started now, whatever the source has; None when something may be."""
    if links.is_paused(ledger, pipeline.name):
        return f"paused; `vector-assets autoetl resume {pipeline.name}` lets it go on"
    runs = history.History(instance, pipeline)
    holder = ledger.leases.holder(pipeline.name, pipeline.target)
    if holder is not None and not history.is_alive(ledger, pipeline, holder):
        runs.bury(holder)
        holder = None
    elif holder is not None and not runs.is_ours(holder):
        return f"{holder} is at work, outside of Dagster's runs"
    run = runs.ongoing()
    if run is not None and not _stands_still(run, pipeline, ledger, holder):
        return f"run {run.run_id[:8]} of {run.job_name} is {run.status.value.lower()}"
    return runs.pause(time.time())


def _stands_still(run: dg.DagsterRun, pipeline: Pipeline, ledger: Ledger, holder: Holder | None) -> bool:
    """True when the continuous job is booked as started but has left records alone for long: it died with its machine.

    It holds no lease while it waits for records, and no place in the pool, so a run beside it does no harm.
    """
    if run.job_name != names.continuous_job(pipeline) or holder is not None:
        return False
    newest = ledger.batches(pipeline.name, pipeline.target, limit=1, newest_first=True)
    since_ms = newest[0].planned_ms if newest else 0
    return ledger.now_ms() - since_ms > _STILL_SECONDS * 1000


def _nothing_new(pipeline: Pipeline, ledger: Ledger) -> str | None:
    """Why the source gives no reason for a run; None when it does."""
    where = (pipeline.name, pipeline.target)
    is_new = not ledger.is_activated(*where)
    is_done = not is_new and pipeline.source_options.is_finished(ledger.position(*where))
    if is_done and not ledger.unfinished(*where):
        return "finished: its bound is reached"
    try:
        lag = probe.of(pipeline).lag(None if is_new else ledger.planned_position(*where))
    except UnavailableError as error:
        return f"lag unknown: {error}"
    # a new pipeline is started even over an empty source: its run freezes where `latest` is
    if lag > 0 or is_new or ledger.unfinished(*where):
        log.info("%s: %d records behind", pipeline.name, lag)
        return None
    return "nothing new"
