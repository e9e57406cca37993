"""The check `reconcile`: every row of the target against the archive. It reads the whole table, so it runs when asked.

What could not be verified is a failed check with severity ERROR, not a passed one.
"""

from typing import Any

import dagster as dg

from vector_assets.defs import names, runs
from vector_assets.engine.errors import VectorAssetsError
from vector_assets.engine.pipeline import Pipeline
from vector_assets.engine.reconcile import Reconciliation, reconcile


class ReconcileConfig(dg.Config):
    """`foreign_ok`: rows that this pipeline did not write are no finding."""

    foreign_ok: bool = False


def of(pipeline: Pipeline) -> dg.AssetChecksDefinition:
    """The pipeline's reconcile, a check of its own: runs of the asset do not include it."""

    # no pool: it holds the lease only while the cut is made, so that a live run goes on beside it
    @dg.asset_check(
        asset=names.asset_key(pipeline),
        name="reconcile",
        description="The target holds every row it should and no other, and the counts agree. Reads the whole table.",
        blocking=False,
    )
    def body(context: dg.AssetCheckExecutionContext, config: ReconcileConfig) -> dg.AssetCheckResult:
        try:
            with runs.opened(pipeline, context.run.run_id) as runner:
                found = reconcile(runner.session)
        except VectorAssetsError as error:
            return dg.AssetCheckResult(
                passed=False,
                severity=dg.AssetCheckSeverity.ERROR,
                description=f"Could not verify: {error}",
                metadata={"error": type(error).__name__},
            )
        is_right = found.is_right(foreign_ok=config.foreign_ok)
        return dg.AssetCheckResult(
            passed=is_right,
            severity=dg.AssetCheckSeverity.ERROR,
            description=_told(found, is_right=is_right),
            metadata=_metadata(found),
        )

    return body


def _told(found: Reconciliation, *, is_right: bool) -> str:
    if is_right:
        return f"{found.target_rows:,} rows are as they should be, up to batch {found.last}"
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
