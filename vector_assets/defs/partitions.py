"""Partitions of a source as dynamic partitions of Dagster: found, added, asked for in order, and the newest observed.

`python -m vector_assets.defs.partitions NAME` adds those that may be read now, for a Dagster without a daemon; with
`--materialize` it reads those that are not read, too.
"""

import sys
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime

import dagster as dg

from vector_assets.declare import load_folder
from vector_assets.defs import assets, checks, names, probe
from vector_assets.engine.abilities import Partitioned, SourcePartition, partitioned
from vector_assets.engine.core import canonical
from vector_assets.engine.env import pipelines_dir
from vector_assets.engine.errors import ConfigError, UnavailableError
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.partitioning import waiting
from vector_assets.engine.pipeline import Pipeline
from vector_assets.engine.registry import nearest
from vector_assets.engine.session import Books

REQUESTS = 20
"""Runs asked for at a time; the next tick that finds none of them waiting asks for more."""

_ADDED = 10_000
_WAIT_SECONDS = 30.0


def look(
    context: dg.SensorEvaluationContext, pipeline: Pipeline, ledger: Ledger, idle: str | None
) -> dg.SensorResult | dg.SkipReason:
    """What a tick of the sensor does: `idle` says why no run may be started, though partitions are added all the same.

    A service that does not answer is waited for as briefly as a probe does.
    """
    own = _own(pipeline)
    where = (pipeline.name, pipeline.target)
    unfinished = ledger.unfinished(*where)
    position = ledger.planned_position(*where)
    if not unfinished and ledger.is_activated(*where) and pipeline.source_options.is_finished(position):
        return dg.SkipReason("finished: its bound is reached")
    try:
        found = probe.of(pipeline).partitions()
    except UnavailableError as error:
        return dg.SkipReason(idle or f"partitions unknown: {error}")
    ready = [each.key for each in found.all if each.waits is None]
    wanted = [key for key in ready if not own.is_read(key, position)]
    # first what a crash left over, in the order in which it was planned, then what was begun and has gone from the list
    due = {each.key for each in found.all if each.is_wanted}
    begun = [key for key in map(own.partition_of, position) if key not in due and not own.is_read(key, position)]
    wanted = list(dict.fromkeys([*(batch.hour for batch in unfinished), *begun, *wanted]))[:REQUESTS]
    cursor = _seen(found.newest)
    runs = [] if idle else [request(pipeline, key) for key in wanted]
    return dg.SensorResult(
        run_requests=runs,
        skip_reason=None if runs else idle or waiting(found.all, own, position) or "nothing new",
        dynamic_partitions_requests=_added(context.instance, pipeline, [*wanted, *ready]),
        asset_events=[] if found.newest is None or cursor == context.cursor else _observed(pipeline, found),
        cursor=cursor or context.cursor,
    )


def request(pipeline: Pipeline, key: str) -> dg.RunRequest:
    """A drain of one partition."""
    return dg.RunRequest(
        partition_key=key,
        run_config={"ops": {pipeline.name: {"config": {"mode": "drain"}}}},
        tags={**names.tags(pipeline), "dagster/priority": names.PRIORITY},
    )


def add(instance: dg.DagsterInstance, pipeline: Pipeline) -> list[str]:
    """Add the partitions that may be read now to Dagster; those that were new.

    Raises:
        ConfigError: batches of the pipeline belong to hours.
        UnavailableError: the source does not answer.
    """
    _own(pipeline)
    found = probe.of(pipeline).partitions(_WAIT_SECONDS)
    new = _new(instance, pipeline, [each.key for each in found.all if each.waits is None])
    if new:
        instance.add_dynamic_partitions(names.partitions(pipeline), new)
    return new


def _own(pipeline: Pipeline) -> Partitioned:
    own = partitioned(pipeline.source_options)
    if own is None:
        raise ConfigError(f"{pipeline.name}: its batches belong to hours, not to partitions of its source")
    return own


def _new(instance: dg.DagsterInstance, pipeline: Pipeline, keys: Sequence[str]) -> list[str]:
    known = set(instance.get_dynamic_partitions(names.partitions(pipeline)))
    return [key for key in dict.fromkeys(keys) if key not in known][:_ADDED]


def _added(
    instance: dg.DagsterInstance, pipeline: Pipeline, keys: Sequence[str]
) -> list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest]:
    new = _new(instance, pipeline, keys)
    definition = dg.DynamicPartitionsDefinition(name=names.partitions(pipeline))
    return [definition.build_add_request(new)] if new else []


def _seen(newest: SourcePartition | None) -> str | None:
    return None if newest is None else canonical([newest.key, newest.rows, newest.modified_ms])


def _observed(pipeline: Pipeline, found: probe.Partitions) -> list[dg.AssetObservation]:
    """What the source's external asset shows of its newest partition."""
    newest = found.newest
    if newest is None:
        return []
    metadata: dict[str, dg.MetadataValue] = {
        "max_pt": dg.MetadataValue.text(newest.key),
        "rows": dg.MetadataValue.int(newest.rows),
        "partitions": dg.MetadataValue.int(len(found.all)),
        "state": dg.MetadataValue.text(newest.waits or "may be read"),
    }
    if newest.modified_ms is not None:
        metadata["modified"] = dg.MetadataValue.timestamp(datetime.fromtimestamp(newest.modified_ms / 1000, UTC))
    return [dg.AssetObservation(asset_key=key, metadata=metadata) for key in names.origin_keys(pipeline)]


def materialize(instance: dg.DagsterInstance, pipeline: Pipeline) -> list[str]:
    """Materialize, in order and each in a run of its own, every partition that may be read now and is not read.

    Raises:
        ConfigError: batches of the pipeline belong to hours.
        UnavailableError: the source does not answer.
        DagsterError: a run failed; those before it stay.
    """
    own = _own(pipeline)
    add(instance, pipeline)
    ready = [each.key for each in probe.of(pipeline).partitions(_WAIT_SECONDS).all if each.waits is None]
    with closing(Books.open()) as books:
        position = books.ledger.position(pipeline.name, pipeline.target)
    wanted = [key for key in ready if not own.is_read(key, position)]
    for key in wanted:
        dg.materialize(
            [assets.of(pipeline), checks.of(pipeline)],
            instance=instance,
            partition_key=key,
            tags=names.tags(pipeline),
        )
    return wanted


def main(arguments: Sequence[str]) -> None:
    """Add the partitions of the named pipelines, or of all that have their own, to the instance of DAGSTER_HOME; with
    `--materialize` first, read those that are not read.

    Raises:
        ConfigError: no pipeline has that name.
    """
    is_reading = arguments[:1] == ["--materialize"]
    named = arguments[1:] if is_reading else arguments
    pipelines = {each.name: each for each in load_folder(pipelines_dir()).pipelines}
    for name in named:
        if name not in pipelines:
            raise ConfigError(f"unknown pipeline {name!r}{nearest(name, list(pipelines))}")
    chosen = named or [name for name, each in pipelines.items() if partitioned(each.source_options)]
    with dg.DagsterInstance.get() as instance:
        for name in chosen:
            for key in (materialize if is_reading else add)(instance, pipelines[name]):
                sys.stdout.write(f"{name} {key}\n")
    probe.forget()


if __name__ == "__main__":
    main(sys.argv[1:])
