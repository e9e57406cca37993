"""What Dagster's books say of a pipeline's runs, checked against the lease where those books may be wrong."""

import logging
import time

import dagster as dg

from vector_assets.defs import names
from vector_assets.engine.lease import Holder
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.pipeline import Pipeline

log = logging.getLogger(__name__)

_WAITING = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)
FIRST_PAUSE_SECONDS = 10.0
LONGEST_PAUSE_SECONDS = 900.0
_REMEMBERED = 12


_clock = time.monotonic
_beats: dict[tuple[str, str], tuple[Holder, float]] = {}


def is_alive(ledger: Ledger, pipeline: Pipeline, holder: Holder) -> bool:
    """False when the holder's process is gone from this machine, or its heart has not beaten for the time to live.

    Measured on our own clock from tick to tick, as the lease itself does when somebody else wants it.
    """
    where = (pipeline.name, pipeline.target)
    known, since = _beats.get(where, (None, 0.0))
    if known != holder:
        since = _clock()
        _beats[where] = (holder, since)
    return ledger.leases.is_held(*where) and _clock() - since < pipeline.settings.lease_ttl.total_seconds()


class History:
    """Runs that were started for one pipeline by its sensor, or to follow it."""

    def __init__(self, instance: dg.DagsterInstance, pipeline: Pipeline) -> None:
        self._instance = instance
        self._pipeline = pipeline

    def ongoing(self) -> dg.DagsterRun | None:
        """The newest of these runs that is queued or at work."""
        waiting = self._instance.get_run_records(
            dg.RunsFilter(tags={names.PIPELINE_TAG: self._pipeline.name}, statuses=list(_WAITING)), limit=1
        )
        return waiting[0].dagster_run if waiting else None

    def is_ours(self, holder: Holder) -> bool:
        """True when a run of this Dagster instance holds the lease, however it was started."""
        return holder.run_id.startswith(names.RUN_PREFIX) and self._run_of(holder) is not None

    def bury(self, holder: Holder) -> None:
        """Book a run as failed whose process died with the lease in its hands.

        Its own code server does so when the process alone died. After the whole machine went down nobody would: the run
        would stay started for ever, and its place in the pool taken. Should it only sleep, it is fenced when it wakes.
        """
        record = self._run_of(holder)
        if record is None or record.dagster_run.is_finished:
            return
        log.warning("%s: run %s died with %s", self._pipeline.name, record.dagster_run.run_id, holder)
        self._instance.report_run_failed(
            record.dagster_run, f"The process of this run, {holder}, is gone; the next run carries on where it stood."
        )

    def pause(self, now: float) -> str | None:
        """Until when to wait after failed runs in a row; None when the last one went well or the time is over."""
        failures, ended = self._failures()
        if not failures:
            return None
        until = ended + min(FIRST_PAUSE_SECONDS * 2 ** (failures - 1), LONGEST_PAUSE_SECONDS)
        if now >= until or self._has_moved_since(ended):
            return None
        runs = "a failed run" if failures == 1 else f"{failures} failed runs in a row"
        return f"backing off after {runs}, until {time.strftime('%H:%M:%S', time.gmtime(until))} UTC"

    def _failures(self) -> tuple[int, float]:
        """How many of the newest runs of this very declaration failed in a row, and when the newest did."""
        records = self._instance.get_run_records(dg.RunsFilter(tags=names.tags(self._pipeline)), limit=_REMEMBERED)
        count = 0
        for record in records:
            if record.dagster_run.status is not dg.DagsterRunStatus.FAILURE:
                break
            count += 1
        return count, (records[0].end_time or 0.0) if count else 0.0

    def _has_moved_since(self, moment: float) -> bool:
        event = self._instance.get_latest_materialization_event(names.asset_key(self._pipeline))
        return event is not None and event.timestamp > moment

    def _run_of(self, holder: Holder) -> dg.RunRecord | None:
        return self._instance.get_run_record_by_id(holder.run_id.removeprefix(names.RUN_PREFIX))
