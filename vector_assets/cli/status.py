"""`vector-assets status`: where every pipeline stands, from the ledger; how far behind it is, from the source."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vector_assets.cli.output import (
    JsonOption,
    ago,
    command,
    emit,
    heading,
    moment,
    show_pairs,
    show_table,
    warn,
)

if TYPE_CHECKING:
    from vector_assets.cli.survey import Survey
    from vector_assets.engine.ledger_records import BatchRecord

_EVENTS = 5


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(
        app,
        "vector-assets status",
        "vector-assets status car_info --batches 20",
        "vector-assets status car_info --gaps",
        "vector-assets status orders --schema",
        "vector-assets status --json | jq '.pipelines[].lag'",
    )(status)


def status(
    pipeline: Annotated[
        str | None, typer.Argument(metavar="PIPELINE", help="One pipeline in full; all in short when left out.")
    ] = None,
    *,
    batches: Annotated[int, typer.Option(metavar="N", min=0, help="The last N batches, too.")] = 0,
    gaps: Annotated[
        bool, typer.Option("--gaps", help="Ranges the source lost, or grew by, and what was done about each.")
    ] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Versions of the columns, and which record of which batch caused each.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show position, lag, batches, dead letters, lease, gaps and operators' events.

    The source has two seconds to say where its newest record stands; then the lag is unknown. Scripts that are wrong
    are left out and named.
    """
    from vector_assets.cli.declared import books, sound
    from vector_assets.cli.schema_versions import schema_json, show_schema
    from vector_assets.cli.survey import survey
    from vector_assets.engine.schema_history import history

    wanted, errors = sound(pipeline)
    with books() as open_books:
        surveys = survey(wanted, open_books.ledger, batches)
        versions = {each.name: history(open_books.ledger, each.name, each.target) for each in surveys if schema}
    for error in errors:
        warn(f"left out: {error}")
    if as_json:
        found = [
            survey_json(each) | ({"schema_versions": schema_json(versions[each.name])} if schema else {})
            for each in surveys
        ]
        emit({"pipelines": found, "errors": [str(error) for error in errors]})
        return
    if pipeline is None:
        _show_all(surveys)
    else:
        _show_one(surveys[0])
    for each in surveys if gaps else ():
        heading(f"gaps of {each.name}")
        _show_gaps(each)
    for each in surveys if schema else ():
        heading(f"columns of {each.name}")
        show_schema(versions[each.name])
    for each in surveys if batches else ():
        heading(f"last batches of {each.name}")
        show_batches(each.recent)


def survey_json(found: "Survey") -> dict[str, Any]:
    """What is known of a pipeline, for programs."""
    return {
        "name": found.name,
        "target": found.target,
        "activated": found.is_activated,
        "finished": found.is_finished,
        "position": dict(found.position),
        "frontier": dict(found.answer.frontier) if found.answer.frontier is not None else None,
        "lag": found.answer.lag,
        "lag_error": found.answer.error,
        "waiting": found.answer.waiting,
        "batches": found.states,
        "last_batch": batch_json(found.last) if found.last else None,
        "recent_batches": [batch_json(batch) for batch in found.recent],
        "totals": found.totals.to_dict(),
        "dead_letters": {"open": found.open_letters},
        "lease": {
            "owner": found.holder.owner,
            "host": found.holder.host,
            "pid": found.holder.pid,
            "fence": found.holder.fence,
            "alive": found.is_held,
        }
        if found.holder
        else None,
        "gaps": [
            {
                "split": gap.split,
                "kind": gap.kind,
                "from": gap.start,
                "to": gap.end,
                "found": moment(gap.found_ms),
                "policy": gap.policy,
                "state": gap.state,
                "batch": gap.seq,
            }
            for gap in found.gaps
        ],
        "events": [{"at": moment(at), "what": what, "detail": detail} for at, what, detail in found.events],
    }


def batch_json(batch: "BatchRecord") -> dict[str, Any]:
    """A batch for programs."""
    return {
        "seq": batch.seq,
        "kind": str(batch.kind),
        "state": str(batch.state),
        "partition": batch.hour,
        "span": [{"split": part.split, "start": part.start, "end": part.end} for part in batch.span.ranges],
        "counts": batch.counts.to_dict(),
        "commit_id": batch.commit_id,
        "run_id": batch.run_id,
        "code_version": batch.code_version,
        "planned": moment(batch.planned_ms),
        "done": moment(batch.done_ms),
        "commit_seconds": batch.commit_seconds,
        "note": batch.note,
        "lookups": batch.lookups or {},
    }


def _show_all(surveys: "Sequence[Survey]") -> None:
    columns = ("pipeline", "lag", "batches", "unfinished", "records", "written", "conflicts", "dead letters", "last")
    rows = [
        (
            each.name, lag_text(each), each.states.get("DONE", 0), each.unfinished, each.totals.records,
            each.totals.written, each.totals.conflicts, each.open_letters, last_text(each),
        )
        for each in surveys
    ]  # fmt: skip
    show_table(columns, rows, right=columns[1:-1])


def _show_one(found: "Survey") -> None:
    from vector_assets.cli.survey import places

    totals = ", ".join(f"{count:,} {name}" for name, count in found.totals.to_dict().items() if count)
    states = ", ".join(f"{count:,} {state}" for state, count in found.states.items())
    show_pairs(
        [
            ("pipeline", found.name),
            ("target", found.target),
            ("position", places(found.position) if found.is_activated else "not started yet"),
            ("frontier", places(found.answer.frontier) if found.answer.frontier is not None else "unknown"),
            ("gaps", _gaps_text(found)),
            ("lag", lag_text(found) + (f" ({found.answer.error})" if found.answer.error else "")),
            *([("waiting", found.answer.waiting)] if found.answer.waiting else []),
            ("batches", states or "none"),
            ("last batch", last_text(found)),
            ("totals", totals or "nothing yet"),
            ("dead letters", f"{found.open_letters:,} open"),
            ("lease", _lease(found)),
        ]
    )
    if found.last is not None and found.last.lookups:
        heading("dimension tables of the last batch")
        show_pairs(found.last.lookups.items())
    if found.events:
        heading("operators' events")
        show_table(("when", "what", "detail"), [(ago(at), *rest) for at, *rest in found.events[-_EVENTS:]])


def _gaps_text(found: "Survey") -> str:
    states = Counter(gap.state for gap in found.gaps)
    counts = ", ".join(f"{count:,} {state}" for state, count in sorted(states.items()))
    return f"{counts}; see --gaps" if counts else "none"


def _show_gaps(found: "Survey") -> None:
    columns = ("split", "kind", "from", "to", "found", "policy", "state", "batch")
    rows = [
        (gap.split, gap.kind, gap.start, gap.end, ago(gap.found_ms), gap.policy, gap.state, gap.seq)
        for gap in found.gaps
    ]
    show_table(columns, rows, right=("from", "to", "batch"))


def show_batches(batches: "Sequence[BatchRecord]") -> None:
    """Print batches, one a line."""
    columns = ("batch", "state", "partition", "kind", "span", "records", "written", "conflicts", "rejected", "commit s")
    rows = [
        (
            batch.seq, batch.state, batch.hour, batch.kind, batch.span.short(), batch.counts.records,
            batch.counts.written, batch.counts.conflicts, batch.counts.rejected + batch.counts.refused,
            None if batch.commit_seconds is None else f"{batch.commit_seconds:.3f}",
        )
        for batch in batches
    ]  # fmt: skip
    show_table(columns, rows, right=("batch", *columns[5:]))


def lag_text(found: "Survey") -> str:
    """The lag in records, or that it is not known, or that there will never be one."""
    if found.is_finished and not found.unfinished:
        return "0 (finished)"
    return "unknown" if found.answer.lag is None else f"{found.answer.lag:,}"


def last_text(found: "Survey") -> str:
    """The newest batch in a few words."""
    batch = found.last
    if batch is None:
        return "none"
    return f"batch {batch.seq} {batch.state} {ago(batch.done_ms or batch.planned_ms)}"


def _lease(found: "Survey") -> str:
    if found.holder is None:
        return "free"
    return str(found.holder) if found.is_held else f"left by {found.holder}, which is gone"
