"""`vector-assets state`: the groups that a GROUP BY keeps, looked at, checked and made again."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vector_assets.cli.output import (
    JsonOption,
    PipelineArgument,
    YesOption,
    command,
    confirm,
    emit,
    say,
    show_pairs,
    warn,
    working,
)

if TYPE_CHECKING:
    from vector_assets.engine.session import Session

app = typer.Typer(no_args_is_help=True, help="Look at, check and make again the groups that a GROUP BY keeps.")


@command(app, "vector-assets state show counts")
def show(pipeline: PipelineArgument, *, as_json: JsonOption = False) -> None:
    """Show how many groups are kept, in which files, and after which batch they are."""
    from vector_assets.cli.declared import opened
    from vector_assets.engine.group_files import GroupFiles

    with opened(pipeline) as session:
        _check(session)
        files = GroupFiles(session.ledger, session.books.archive, session.pipeline.name, session.pipeline.target).all()
        meaning = session.pipeline.aggregation.signature if session.pipeline.aggregation else ""
    newest = files[-1] if files else None
    told: dict[str, Any] = {
        "pipeline": pipeline,
        "after batch": newest.seq if newest else None,
        "groups": newest.groups if newest else 0,
        "files": len(files),
        "bytes": sum(each.file.bytes for each in files),
        "newest file of all groups": next((each.file.path for each in reversed(files) if each.is_start), None),
        "made by this script": all(each.signature == meaning for each in files if each.kind != "empty"),
    }
    if as_json:
        emit({name.replace(" ", "_"): value for name, value in told.items()})
    else:
        show_pairs(list(told.items()))


@command(
    app,
    "vector-assets state rebuild counts          count every archived batch again, write nothing into the target",
    "vector-assets state rebuild counts --yes",
)
def rebuild(
    pipeline: PipelineArgument,
    *,
    anew: Annotated[
        bool, typer.Option("--anew", help="Count every batch, whatever files of groups are sound.")
    ] = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make the groups again from the archive: after they were lost or damaged, or when the GROUP BY has changed.

    They start from the newest file of all groups that is sound and of this GROUP BY, else from nothing.
    The target is not written: a row that would be another one by now changes with its group's next record, and
    `reconcile` names it until then.
    """
    from vector_assets.cli.declared import opened
    from vector_assets.engine.past_groups import rebuild_state
    from vector_assets.engine.run import Runner

    with opened(pipeline) as session:
        _check(session)
        confirm(f"Make the groups of {pipeline} again from the archive?", is_confirmed=yes)
        with session.leased() as stages, working("counting the archive's records"):
            Runner(session).close_found(stages)
            done = rebuild_state(stages, is_anew=anew)
    if as_json:
        emit({"pipeline": pipeline, "after_batch": done.seq if done else None, "groups": done.groups if done else 0,
              "batches_counted": done.replayed if done else 0, "rejected": done.rejected if done else 0})  # fmt: skip
    elif done is None:
        say(f"{pipeline}: no batch is done yet: there are no groups")
    else:
        say(f"{pipeline}: {done.groups:,} groups after batch {done.seq}, {done.replayed:,} batches counted")
        if done.rejected:
            warn(f"{done.rejected:,} records that were counted before are rejected by today's code: not counted")


@command(app, "vector-assets state check counts           do the groups hold what the archive comes to?")
def check(pipeline: PipelineArgument, *, as_json: JsonOption = False) -> None:
    """Count the archive's records again and compare; nothing is changed. Exit code 1 when the groups differ."""
    from vector_assets.cli.declared import opened
    from vector_assets.engine.group_reconcile import same_groups
    from vector_assets.engine.past_groups import PastGroups, kept_groups, last_done

    with opened(pipeline) as session:
        _check(session)
        with session.leased() as stages, working("counting the archive's records"):
            last = last_done(stages)
            kept, past = kept_groups(stages, last), PastGroups(stages, is_anew=True)
            past.go_to(last.seq if last else 0)
            lost, extra, other = same_groups(past.groups.whole(), kept.whole())
            count = kept.count()
            kept.close()
            past.close()
    told = {"groups": count, "missing": lost, "unexpected": extra, "altered": other, "batches_counted": past.replayed}
    is_right = not (lost or extra or other)
    if as_json:
        emit({"pipeline": pipeline, **told, "is_right": is_right})
    else:
        show_pairs([(name.replace("_", " "), value) for name, value in told.items()])
        say("right" if is_right else f"NOT RIGHT: `vector-assets state rebuild {pipeline}` makes them again", "bold")
    if not is_right:
        raise typer.Exit(1)


def _check(session: "Session") -> None:
    """Refuse a pipeline without groups."""
    from vector_assets.engine.errors import ConfigError

    if session.pipeline.aggregation is None:
        raise ConfigError(f"{session.pipeline.name} keeps no state: it has no GROUP BY")
