"""Checks of a pipeline's asset: how far behind it is, what waits for a person, what the source lost. They never block.

What cannot be looked at is a failed check with severity ERROR, not a passed one.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg

from vector_assets.defs import names, probe
from vector_assets.engine.errors import VectorAssetsError
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.pipeline import Pipeline
from vector_assets.engine.session import Books

_SHOWN = 5
_LOSS_DAYS = 7


def of(pipeline: Pipeline) -> dg.AssetChecksDefinition:
    """The pipeline's checks; each can be run by itself."""
    key = names.asset_key(pipeline)
    settings = pipeline.settings
    described = {
        "lag": f"At most {settings.check_max_lag:,} records behind the source.",
        "gaps": f"The source lost no record; those skipped count as a warning for {_LOSS_DAYS} days.",
        "dead_letters": f"No dead letter is open; more than {settings.check_max_dead_letters:,} are an error.",
    }

    @dg.multi_asset_check(
        name=f"{pipeline.name}_checks",
        specs=[dg.AssetCheckSpec(name, asset=key, description=text) for name, text in described.items()],
        can_subset=True,
    )
    def body(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        for check in sorted(context.selected_asset_check_keys, key=lambda check: check.name):
            yield _looked_at(pipeline, check)

    return body


def _looked_at(pipeline: Pipeline, check: dg.AssetCheckKey) -> dg.AssetCheckResult:
    looks: dict[str, Callable[[Pipeline, Ledger], dict[str, Any]]] = {
        "lag": _lag,
        "dead_letters": _dead_letters,
        "gaps": _gaps,
    }
    try:
        books = Books.open()
        try:
            found = looks[check.name](pipeline, books.ledger)
        finally:
            books.close()
    except VectorAssetsError as error:
        found = {
            "passed": False,
            "severity": dg.AssetCheckSeverity.ERROR,
            "description": f"Could not verify: {error}",
            "metadata": {"error": type(error).__name__},
        }
    return dg.AssetCheckResult(check_name=check.name, asset_key=check.asset_key, **found)


def _lag(pipeline: Pipeline, ledger: Ledger) -> dict[str, Any]:
    where = (pipeline.name, pipeline.target)
    is_new = not ledger.is_activated(*where)
    lag = probe.of(pipeline).lag(None if is_new else ledger.position(*where))
    limit = pipeline.settings.check_max_lag
    newest = ledger.batches(*where, limit=1, newest_first=True)
    metadata: dict[str, Any] = {"lag_records": lag, "threshold_records": limit}
    if lag and newest and newest[0].newest_ms is not None:
        # the oldest record that waits is at most this old: it came after the newest one that was read
        metadata["lag_seconds"] = round(time.time() - newest[0].newest_ms / 1000, 3)
    elif not lag:
        metadata["lag_seconds"] = 0.0
    return {
        "passed": lag <= limit,
        "severity": dg.AssetCheckSeverity.WARN,
        "description": f"{lag:,} records behind" + (", not started yet" if is_new else ""),
        "metadata": metadata,
    }


def _dead_letters(pipeline: Pipeline, ledger: Ledger) -> dict[str, Any]:
    count = ledger.dead_letters.count(pipeline.name)
    limit = pipeline.settings.check_max_dead_letters
    reasons = ledger.dead_letters.reasons(pipeline.name, _SHOWN)
    metadata: dict[str, Any] = {"dead_letters_open": count, "threshold": limit}
    if reasons:
        records = [dg.TableRecord({"reason": reason, "dead letters": letters}) for reason, letters in reasons]
        metadata["newest reasons"] = dg.MetadataValue.table(records)
    return {
        "passed": count == 0,
        "severity": dg.AssetCheckSeverity.ERROR if count > limit else dg.AssetCheckSeverity.WARN,
        "description": f"{count:,} open; `vector-assets dead-letters list {pipeline.name}`" if count else "none open",
        "metadata": metadata,
    }


def _gaps(pipeline: Pipeline, ledger: Ledger) -> dict[str, Any]:
    found = ledger.gaps(pipeline.name)
    since_ms = ledger.now_ms() - _LOSS_DAYS * 86_400_000
    still_open = [gap for gap in found if gap.state == "open"]
    skipped = [gap for gap in found if gap.state == "skipped" and gap.found_ms > since_ms]
    shown = [*still_open, *skipped]
    metadata: dict[str, Any] = {"gaps_open": len(still_open), "gaps_skipped": len(skipped), "gaps_ever": len(found)}
    if shown:
        records = [
            dg.TableRecord(
                {"split": gap.split, "kind": gap.kind, "from": gap.start, "to": str(gap.end), "state": gap.state}
            )
            for gap in shown[-_SHOWN:]
        ]
        metadata["newest gaps"] = dg.MetadataValue.table(records)
    told = f"{len(still_open):,} open, {len(skipped):,} skipped; `vector-assets status {pipeline.name} --gaps`"
    return {
        "passed": not shown,
        "severity": dg.AssetCheckSeverity.ERROR if still_open else dg.AssetCheckSeverity.WARN,
        "description": told if shown else "none",
        "metadata": metadata,
    }
