"""What Dagster's instance says of pipelines, as JSON on standard output, for commands that do not import Dagster.

`python -m vector_assets.defs.instance states` says whether sensors are on, what the newest runs came to and whether a
daemon is alive; `... logs PIPELINE [RUN]` gives the log of a run. DAGSTER_HOME names the instance.
"""

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import dagster as dg

from vector_assets.defs import names

_NEWEST = 200
"""Runs looked at for the newest of each pipeline; a run that was started by hand names its asset only."""


def states(instance: dg.DagsterInstance) -> dict[str, Any]:
    """Sensors by name (`RUNNING`, `STOPPED`; one that nobody touched is not there), newest runs by pipeline, those of
    them that are over, daemon."""
    sensors = {
        state.instigator_name: state.status.value
        for state in instance.all_instigator_state()
        if state.instigator_type.value == "SENSOR"
    }
    runs: dict[str, dict[str, Any]] = {}
    ended: dict[str, dict[str, Any]] = {}
    for record in instance.get_run_records(limit=_NEWEST):
        for name in _pipelines_of(record.dagster_run):
            runs.setdefault(name, _run(record))
            if record.dagster_run.is_finished:
                ended.setdefault(name, _run(record))
    sensor_beat = instance.get_daemon_heartbeats().get("SENSOR")
    is_alive = sensor_beat is not None and time.time() - sensor_beat.timestamp < _ALIVE_SECONDS
    return {"sensors": sensors, "runs": runs, "ended": ended, "daemon": is_alive}


_ALIVE_SECONDS = 90.0
"""A daemon beats every 30 s."""


def logs(instance: dg.DagsterInstance, pipeline: str, run_id: str | None) -> dict[str, Any]:
    """The log of one of the newest runs, by the beginning of its id, or of the pipeline's newest; `run` is null where
    there is none."""
    for record in instance.get_run_records(limit=_NEWEST):
        run = record.dagster_run
        is_meant = run.run_id.startswith(run_id) if run_id else True
        if is_meant and pipeline in _pipelines_of(run):
            return {"run": _run(record), "events": list(_events(instance, run.run_id))}
    return {"run": None, "events": []}


def _events(instance: dg.DagsterInstance, run_id: str) -> Iterator[dict[str, Any]]:
    for entry in instance.all_logs(run_id):
        kind = entry.dagster_event.event_type_value if entry.dagster_event else None
        error = entry.dagster_event.event_specific_data if entry.dagster_event else None
        # some events have no words of their own
        text = entry.user_message or entry.message or (kind or "").lower().replace("_", " ")
        detail = getattr(getattr(error, "error", None), "message", None)
        yield {
            "at": entry.timestamp,
            "level": {10: "debug", 20: "info", 30: "warning", 40: "error", 50: "critical"}.get(
                int(entry.level), "info"
            ),
            "event": kind,
            "text": f"{text}: {detail.strip()}" if detail and detail.strip() not in text else text,
        }


def _pipelines_of(run: dg.DagsterRun) -> set[str]:
    tagged = run.tags.get(names.PIPELINE_TAG)
    assets = {key.to_user_string() for key in run.asset_selection or ()}
    return assets | ({tagged} if tagged else set())


def _run(record: dg.RunRecord) -> dict[str, Any]:
    run = record.dagster_run
    return {
        "id": run.run_id,
        "job": run.job_name,
        "status": run.status.value,
        "partition": run.tags.get("dagster/partition"),
        "started": record.start_time,
        "ended": record.end_time,
    }


def main(arguments: list[str]) -> None:
    """Answer one question on standard output."""
    question, *rest = arguments
    with dg.DagsterInstance.get() as instance:
        if question == "states":
            found = states(instance)
        else:
            found = logs(instance, rest[0], rest[1] if len(rest) > 1 else None)
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
