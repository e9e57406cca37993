"""The check `vectors` of a pipeline that makes vectors of texts, or whose target does.

Every text has a vector, a few of them are what the model makes of their texts, and source and target have as many rows.
It sends a few texts to the model (none that EMBED's cache holds), so a run that materialises the asset passes over it:
it runs by itself, from the UI or a schedule. What could not be verified is a failed check with severity ERROR.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from vector_assets.defs import names, runs
from vector_assets.engine.abilities import Countable
from vector_assets.engine.core import Merge
from vector_assets.engine.errors import VectorAssetsError
from vector_assets.engine.pipeline import Pipeline
from vector_assets.engine.reconcile import VECTORS, Equation, vector_equations
from vector_assets.engine.registry import load
from vector_assets.engine.sample import reconcile_sample
from vector_assets.engine.session import Session
from vector_assets.sinks import SINKS

NAME = "vectors"


class VectorsConfig(dg.Config):
    """`sample`: texts whose vectors are made again and compared."""

    sample: int = VECTORS


def of(pipeline: Pipeline) -> list[dg.AssetChecksDefinition]:
    """The pipeline's check; none where no vectors are made of texts, as far as its sink's class tells."""
    if pipeline.embedding is None and not _may_make_vectors(pipeline):
        return []
    key = names.asset_key(pipeline)
    told = "Every text has a vector, sampled ones are right, and source and target have as many rows."

    @dg.multi_asset_check(
        name=f"{pipeline.name}_{NAME}",
        specs=[dg.AssetCheckSpec(NAME, asset=key, description=told, blocking=False)],
        can_subset=True,
    )
    def body(context: dg.AssetCheckExecutionContext, config: VectorsConfig) -> Iterator[dg.AssetCheckResult]:
        if key in context.job_def.asset_layer.executable_asset_keys:
            context.log.info("passed over: it asks the model, run it by itself")
            return
        yield _looked_at(pipeline, context.run.run_id, config.sample)

    return [body]


def _may_make_vectors(pipeline: Pipeline) -> bool:
    if pipeline.sink_connector not in SINKS:
        return False
    return callable(getattr(load(SINKS, "sink connector", pipeline.sink_connector), "audit_vectors", None))


def _looked_at(pipeline: Pipeline, run_id: str, sample: int) -> dg.AssetCheckResult:
    about: dict[str, Any] = {"check_name": NAME, "asset_key": names.asset_key(pipeline)}
    try:
        with runs.opened(pipeline, run_id) as runner:
            equations, notes = _equations(runner.session, sample)
    except VectorAssetsError as error:
        return dg.AssetCheckResult(
            passed=False,
            severity=dg.AssetCheckSeverity.ERROR,
            description=f"Could not verify: {error}",
            metadata={"error": type(error).__name__},
            **about,
        )
    broken = [each for each in equations if not each.holds]
    told = [f"{each.name}: {each.left:,} and {each.right:,} ({each.note})" for each in broken]
    held = [f"{each.name} ({each.note})" for each in equations]
    rows = [
        dg.TableRecord({"equation": each.name, "left": each.left, "right": each.right, "of": each.note})
        for each in equations
    ]
    return dg.AssetCheckResult(
        passed=not broken,
        severity=dg.AssetCheckSeverity.ERROR,
        description="; ".join([*(told or held or ["nothing to compare"]), *notes]),
        metadata={"equations": dg.MetadataValue.table(rows)} if rows else {},
        **about,
    )


def _equations(session: Session, sample: int) -> tuple[list[Equation], list[str]]:
    session.target()
    found, notes = list(vector_equations(session, sample)), []
    if session.pipeline.embedding is not None and session.sink.merge is not Merge.APPEND:
        looked = reconcile_sample(session, sample)
        wrong = sum(looked.counts.values())
        found.append(Equation("sampled rows that are not what EMBED makes today = 0", wrong, 0, f"of {looked.sampled}"))
    source, sink = session.source, session.sink
    if isinstance(source, Countable) and isinstance(sink, Countable):
        rows, documents = source.count(), sink.count()
        why = _why_not(session)
        if rows is not None and documents is not None and why is None:
            found.append(Equation("rows of the source = rows of the target", rows, documents, "counted now"))
        else:
            notes.append(f"rows of source and target are not compared: {why or 'the source counts only some'}")
    return found, notes


def _why_not(session: Session) -> str | None:
    """Why source and target need not have as many rows just now; None when they must."""
    name, target = session.pipeline.name, session.pipeline.target
    ledger = session.ledger
    if not ledger.is_activated(name, target):
        return "the pipeline has not started"
    lag = session.source.lag(ledger.position(name, target), session.source.frontier())
    if lag:
        return f"{lag:,} records are not read yet"
    if count := ledger.dead_letters.count(name):
        return f"{count:,} dead letters are open"
    if any(batch.counts.filtered for batch in ledger.batches(name, target)):
        return "the script leaves out rows"
    return None
