"""`vector-assets reset`: a pipeline's position moved by hand, or its new target adopted."""

from typing import TYPE_CHECKING, Annotated

import typer

from vector_assets.cli.output import PipelineArgument, YesOption, command, confirm, say, show_table, usage

if TYPE_CHECKING:
    from vector_assets.engine.operate import GroupsAfter, ResetPlan
    from vector_assets.engine.session import Session


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(
        app,
        "vector-assets reset car_info --to earliest",
        "vector-assets reset car_info --to 0:1200,1:1180 --reason 'bad deploy of the producer'",
        "vector-assets reset car_info --adopt-target    after the table was dropped and made anew",
    )(reset)


def reset(
    pipeline: PipelineArgument,
    *,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="WHERE",
            help="earliest, latest, or places such as 0:1200,1:1180 (partition:offset; cars/0:1200 among topics).",
        ),
    ] = None,
    adopt_target: Annotated[
        bool, typer.Option("--adopt-target", help="Write to the object that now bears the target's name.")
    ] = False,
    keep_state: Annotated[
        bool, typer.Option("--keep-state", help="Of a GROUP BY: its groups go on as they are.")
    ] = False,
    drop_state: Annotated[bool, typer.Option("--drop-state", help="Of a GROUP BY: its groups begin anew.")] = False,
    yes: YesOption = False,
    reason: Annotated[str, typer.Option(help="Kept with the pipeline's events.")] = "",
) -> None:
    """Move a pipeline to another position, or let it write to a new target; shown, confirmed, recorded.

    Rows in the target stay. Records that are read again land again only where the target's merge lets them: with
    conflictmode=ignore a key that is there already is a counted conflict.
    """
    if (to is None) == (not adopt_target):
        usage("give either --to WHERE or --adopt-target")
    if (keep_state and drop_state) or (adopt_target and (keep_state or drop_state)):
        usage("give one of --keep-state and --drop-state, with --to")
    from vector_assets.cli.declared import opened

    with opened(pipeline) as session:
        if to is not None:
            _move(session, to, "keep" if keep_state else "drop" if drop_state else None, reason=reason, yes=yes)
        else:
            _adopt(session, reason=reason, yes=yes)


def _move(session: "Session", to: str, groups: "GroupsAfter | None", *, reason: str, yes: bool) -> None:
    from vector_assets.engine import operate

    name = session.pipeline.name
    operate.check_reset(session.pipeline, groups)
    plan = operate.plan_reset(session, to)
    if plan.is_empty and groups != "drop":
        say(f"{name} stands at {to} already: nothing to change")
        return
    _show(plan)
    if groups is not None:
        say("its groups begin anew" if groups == "drop" else "its groups go on: records read again are counted again")
    confirm(f"Move {name}?", is_confirmed=yes)
    done = operate.reset(session, to, reason=reason, groups=groups)
    say(f"{name} moved: {done.span.short() or 'no split changed'}")


def _adopt(session: "Session", *, reason: str, yes: bool) -> None:
    from vector_assets.engine import operate

    name = session.pipeline.name
    say(f"{name} will write to the {session.pipeline.target} that is there now and forget what the old one confirmed.")
    confirm(f"Adopt the new target of {name}?", is_confirmed=yes)
    incarnation = operate.adopt_target(session, reason=reason)
    say(f"{name} writes to {incarnation}; `vector-assets replay {name}` fills it again from the archive")


def _show(plan: "ResetPlan") -> None:
    from vector_assets.engine.core import brief

    show_table(
        ("split", "from", "to"),
        [(part.split, brief(part.start), brief(part.end)) for part in plan.span.ranges],
        right=("from", "to"),
    )
    if plan.discarded:
        numbers = ", ".join(map(str, plan.discarded))
        say(f"unfinished batches {numbers}: discarded unless the target has them; their records are read again")
