"""`vector-assets retention`: what is older than a pipeline's settings keep; shown, or let go of."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vector_assets.cli.output import JsonOption, command, emit, say, show_table

if TYPE_CHECKING:
    from vector_assets.engine.pipeline import Pipeline
    from vector_assets.engine.retention import RetentionPlan


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(
        app,
        "vector-assets retention                     what is too old, of every pipeline; nothing goes",
        "vector-assets retention car_info --apply",
    )(retention)


def retention(
    pipeline: Annotated[str | None, typer.Argument(metavar="PIPELINE", help="One pipeline; all when left out.")] = None,
    *,
    apply: Annotated[bool, typer.Option("--apply", help="Let go of it, and not only show it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show, or with --apply let go of, what is older than the settings vector-assets.retention.* keep.

    Records leave the archive, batches fold into one sum and one position, dead letters lose their bytes. What is not
    limited by a setting is kept for ever. Expired batches can be neither replayed nor explained.
    """
    from vector_assets.cli.declared import books, pipelines
    from vector_assets.engine.retention import apply_retention, plan_retention
    from vector_assets.engine.session import Session

    chosen, plans = pipelines(pipeline), []
    with books() as open_books:
        for each in chosen:
            if apply and _limits(each):
                with Session(each, open_books) as session:
                    plans.append(apply_retention(session))
            else:
                plans.append(plan_retention(open_books.ledger, each))
    if as_json:
        emit({"applied": apply, "pipelines": [_json(p, plan) for p, plan in zip(chosen, plans, strict=True)]})
        return
    columns = (
        "pipeline",
        "keeps",
        "batches expiring",
        "archive bytes",
        "batches folding",
        "dead letters",
        "of them open",
    )
    rows = [
        (each.name, _limits(each) or "everything", len(plan.expiring), plan.bytes, len(plan.folding), len(plan.letters),
         plan.open_letters)
        for each, plan in zip(chosen, plans, strict=True)
    ]  # fmt: skip
    show_table(columns, rows, right=columns[2:])
    for plan in plans:
        if plan.waits_for is not None:
            say(f"{plan.pipeline}: waits for batch {plan.waits_for}, which is unfinished: run it first")
    if not apply and any(not plan.is_empty for plan in plans):
        say("Nothing went yet: --apply lets go of it.")


def _limits(pipeline: "Pipeline") -> str:
    settings = pipeline.settings
    limits = {
        "archive": settings.retention_archive,
        "ledger": settings.retention_ledger,
        "dead letters": settings.retention_dead_letters,
    }
    return ", ".join(f"{name} {age}" for name, age in limits.items() if age is not None)


def _json(pipeline: "Pipeline", plan: "RetentionPlan") -> dict[str, Any]:
    return {
        "pipeline": pipeline.name,
        "keeps": _limits(pipeline) or None,
        "expiring": [row.seq for row in plan.expiring],
        "bytes": plan.bytes,
        "folding": [row.seq for row in plan.folding],
        "dead_letters": len(plan.letters),
        "open_dead_letters": plan.open_letters,
        "waits_for": plan.waits_for,
    }
