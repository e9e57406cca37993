"""What the definitions of a pipeline are called, and the tags by which its runs are found again."""

import re

import dagster as dg

from vector_assets.engine.pipeline import Lookup, Pipeline

PIPELINE_TAG = "vector_assets/pipeline"
"""On every run that a sensor or a job of ours starts."""

FINGERPRINT_TAG = "vector_assets/fingerprint"
"""Which declaration a run was started for: a mended one is not held back by the failures of the old one."""

GROUP_TAG, UNITS_TAG = "vector_assets/resource_group", "vector_assets/units"
"""On the runs of a job that has units of a resource group, so that the queue can limit how many of a group work."""

PRIORITY = "1"
"""Of drains in the run queue: before the replays of a backfill."""

RUN_PREFIX = "dagster:"
"""Sessions of Dagster runs are called `dagster:<run id>` in the ledger."""

_SYSTEMS = {"upsert-kafka": "kafka"}


def asset_key(pipeline: Pipeline) -> dg.AssetKey:
    """The key of a pipeline's asset."""
    return dg.AssetKey([pipeline.name])


def origin_keys(pipeline: Pipeline) -> list[dg.AssetKey]:
    """The keys of the external assets it reads, shared by all that read them.

    Dagster makes names of an op's inputs of them, so what is not a letter, digit, `-` or `_` becomes `_`.
    """
    return [_key(origin) for origin in pipeline.source_options.origins()]


def lookup_key(lookup: Lookup) -> dg.AssetKey:
    """The key of a dimension table's external asset: that of the same table as a source."""
    return _key(lookup.options.origin())


def _key(origin: tuple[str, ...]) -> dg.AssetKey:
    return dg.AssetKey([re.sub(r"[^A-Za-z0-9_-]", "_", part) for part in origin])


def pool(pipeline: Pipeline) -> str:
    """The pool that keeps runs of one pipeline apart."""
    return f"pipeline_{pipeline.name}"


def continuous_job(pipeline: Pipeline) -> str:
    """The job that follows the source until it is told to stop."""
    return f"{pipeline.name}_continuous"


def dead_letters_job(pipeline: Pipeline) -> str:
    """The job that writes open dead letters again."""
    return f"{pipeline.name}_dead_letters"


def retention_job(pipeline: Pipeline) -> str:
    """The job that lets go of what is kept no longer."""
    return f"{pipeline.name}_retention"


def partitions(pipeline: Pipeline) -> str:
    """What Dagster calls the set of a pipeline's dynamic partitions."""
    return f"{pipeline.name}_partitions"


def maintenance_job(pipeline: Pipeline) -> str:
    """The job that keeps a lake table in order."""
    return f"{pipeline.name}_maintenance"


def maintenance_key(pipeline: Pipeline, task: str) -> dg.AssetKey:
    """The key of a maintenance task's asset."""
    return dg.AssetKey([pipeline.name, "maintenance", task])


def tags(pipeline: Pipeline) -> dict[str, str]:
    """Tags of the runs we start for a pipeline."""
    mine = {PIPELINE_TAG: pipeline.name, FINGERPRINT_TAG: pipeline.fingerprint}
    has = pipeline.allotment
    return mine | ({GROUP_TAG: has.group, UNITS_TAG: str(has.units)} if has is not None else {})


def owners(pipeline: Pipeline) -> list[str]:
    """Owners as the declaration lists them."""
    return [part.strip() for part in (pipeline.settings.owners or "").split(",") if part.strip()]


def system(connector: str) -> str:
    """What a connector speaks to: the same system may be read or written by several."""
    return _SYSTEMS.get(connector, connector)


def group(connector: str) -> str:
    """A connector's name as the name of a group."""
    return re.sub(r"[^A-Za-z0-9_]+", "_", connector)
