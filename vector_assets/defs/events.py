"""A batch as Dagster sees it: metadata in numbers where numbers can be plotted, and one materialization each."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from vector_assets.defs import names
from vector_assets.engine.errors import VectorAssetsError
from vector_assets.engine.ledger_records import BatchRecord
from vector_assets.engine.run import Outcome, Runner

Event = dg.AssetMaterialization | dg.MaterializeResult[Any]


def of_partition(runner: Runner, outcomes: Iterator[Outcome], partition: str) -> Iterator[Event]:
    """An event per batch, each in its batch's own partition; nothing when there was no batch.

    The last one is the run's result if it is of the run's partition, so that assets downstream run only after new
    data: a result would be booked under the run's partition whatever the batch says.
    """
    last: Outcome | None = None
    try:
        for outcome in outcomes:
            if last is not None:
                yield materialization(runner, last)
            last = outcome
    except (VectorAssetsError, dg.DagsterExecutionInterruptedError):
        if last is not None:
            yield materialization(runner, last)
        raise
    if last is None:
        return
    if last.batch.hour == partition:
        yield dg.MaterializeResult(metadata=metadata(runner, last))
    else:
        yield materialization(runner, last)


def materialization(runner: Runner, outcome: Outcome) -> dg.AssetMaterialization:
    """The batch as an event of its own."""
    return dg.AssetMaterialization(
        asset_key=names.asset_key(runner.pipeline),
        partition=outcome.batch.hour,
        metadata=metadata(runner, outcome),
        description=f"batch {outcome.batch.seq} {outcome.how}",
    )


def metadata(runner: Runner, outcome: Outcome) -> dict[str, Any]:
    """Everything the ledger knows of the batch that people or plots want; what is unknown is left out."""
    batch = outcome.batch
    known = {
        "batch": batch.seq,
        "kind": str(batch.kind),
        "how": outcome.how,
        "span": batch.span.short(),
        "partition": batch.hour,
        **batch.counts.to_dict(),
        "lag_records": outcome.lag,
        "age_seconds": _rounded(outcome.age_seconds),
        "commit_seconds": _rounded(batch.commit_seconds),
        **_rates(batch),
        "dead_letters_open": runner.ledger.dead_letters.count(batch.pipeline),
        "commit_id": batch.commit_id,
        "planned_by": batch.run_id,
        "code_version": batch.code_version,
        "schema_version": batch.schema_version,
        "guarantee": runner.session.target().guarantee,
        "archive": batch.archive.path if batch.archive else None,
        "note": batch.note,
        **{f"lookup {name}": version for name, version in (batch.lookups or {}).items()},
    }
    return {name: value for name, value in known.items() if value is not None}


def _rates(batch: BatchRecord) -> dict[str, float | None]:
    """Rows a second of the commit alone, and records a second from the plan to the end."""
    changed = batch.counts.written + batch.counts.deleted
    whole = (batch.done_ms - batch.planned_ms) / 1000 if batch.done_ms is not None else None
    return {
        "rows_per_s": _per_second(changed, batch.commit_seconds),
        "records_per_s": _per_second(batch.counts.records, whole),
    }


def _per_second(count: int, seconds: float | None) -> float | None:
    return round(count / seconds, 1) if seconds else None


def _rounded(seconds: float | None) -> float | None:
    return round(seconds, 3) if seconds is not None else None
