"""The check `reconcile`: every row of the target against the archive.

It reads the whole table, so a run that materialises the asset passes over it: it runs by itself, from the UI or a
schedule. What could not be verified is a failed check with severity ERROR, not a passed one.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from vector_assets.defs import names, runs
from vector_assets.engine.errors import VectorAssetsError
from vector_assets.engine.pipeline import Pipeline
from vector_assets.engine.reconcile import Reconciliation, reconcile

NAME = "reconcile"


class ReconcileConfig(dg.Config):
    """`foreign_ok`: rows that this pipeline did not write are no finding."""

    foreign_ok: bool = False


def of(pipeline: Pipeline) -> dg.AssetChecksDefinition:
    """The pipeline's reconcile, never blocking."""
    key = names.asset_key(pipeline)
    told = "The target holds every row it should and no other, and the counts agree. Reads the whole table."

    # no pool: it holds the lease only while the cut is made, so that a live run goes on beside it
    @dg.multi_asset_check(
        name=f"{pipeline.name}_{NAME}",
        specs=[dg.AssetCheckSpec(NAME, asset=key, description=told, blocking=False)],
        can_subset=True,
    )
    def body(context: dg.AssetCheckExecutionContext, config: ReconcileConfig) -> Iterator[dg.AssetCheckResult]:
        if key in context.job_def.asset_layer.executable_asset_keys:
            context.log.info("passed over: it reads the whole table, run it by itself")
            return
        yield _looked_at(pipeline, context.run.run_id, foreign_ok=config.foreign_ok)

    return body


def _looked_at(pipeline: Pipeline, run_id: str, *, foreign_ok: bool) -> dg.AssetCheckResult:
    about: dict[str, Any] = {"check_name": NAME, "asset_key": names.asset_key(pipeline)}
    try:
        with runs.opened(pipeline, run_id) as runner:
            found = reconcile(runner.session)
    except VectorAssetsError as error:
        return dg.AssetCheckResult(
            passed=False,
            severity=dg.AssetCheckSeverity.ERROR,
            description=f"Could not verify: {error}",
            metadata={"error": type(error).__name__},
            **about,
        )
    is_right = found.is_right(foreign_ok=foreign_ok)
    return dg.AssetCheckResult(
        passed=is_right,
        severity=dg.AssetCheckSeverity.ERROR,
        description=_told(found, is_right=is_right),
        metadata=_metadata(found),
        **about,
    )


def _told(found: Reconciliation, *, is_right: bool) -> str:
    if is_right:
        expired = found.counts.get("expired", 0)
        but = f"; {expired:,} of them were not compared, for their batches are expired" if expired else ""
        return f"{found.target_rows:,} rows are as they should be, up to batch {found.last}{but}"
    broken = [f"{e.name}: {e.left:,} and {e.right:,}" for e in found.equations if not e.holds]
    counted = [f"{count:,} {kind.replace('_', ' ')}" for kind, count in found.counts.items()]
    return "; ".join([*counted, *broken])


def _metadata(found: Reconciliation) -> dict[str, Any]:
    known: dict[str, Any] = {
        "last_batch": found.last,
        "expected_rows": found.expected_rows,
        "target_rows": found.target_rows,
        "seconds": found.seconds,
        **{f"rows_{kind}": count for kind, count in found.counts.items()},
    }
    if found.findings:
        known["findings"] = dg.MetadataValue.table(
            [
                dg.TableRecord(
                    {
                        "finding": finding.kind,
                        "key": ", ".join(f"{name}={value}" for name, value in finding.key.items()),
                        "columns": ", ".join(finding.columns),
                        "origin": str(finding.origin or ""),
                    }
                )
                for finding in found.findings
            ]
        )
    return known
