"""`vector-assets ledger`: check the ledger's books, and rebuild a lost ledger."""

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
    show_table,
    warn,
    working,
)

if TYPE_CHECKING:
    from vector_assets.engine.rebuild import RebuildPlan

app = typer.Typer(no_args_is_help=True, help="Check the ledger's books, and rebuild a lost ledger.")


@command(
    app,
    "vector-assets ledger rebuild car_info          show what is known, ask, write",
    "vector-assets ledger rebuild car_info --yes",
)
def rebuild(pipeline: PipelineArgument, *, yes: YesOption = False, as_json: JsonOption = False) -> None:
    """Rebuild a ledger that was lost, or bring an older copy of it forward, from the target and the archive.

    The plan is shown first. Batches that the target holds are entered as done, those that the archive holds and the
    target does not are finished by the next run. Rejects are found again by decoding the archive with today's script.
    """
    from vector_assets.cli.declared import opened
    from vector_assets.engine import rebuild as rebuilding
    from vector_assets.engine.rebuild_write import rebuild as write

    with opened(pipeline) as session:
        with working("asking target and archive"):
            plan = rebuilding.plan_rebuild(session)
        if not as_json:
            _show(plan)
        if plan.is_empty:
            written = None
        else:
            confirm(f"Write this into the ledger of {pipeline}?", is_confirmed=yes)
            written = write(session)
    if as_json:
        emit({**_json(plan), "written": written is not None, "dead_letters": written.letters if written else 0,
              "notes": list(written.notes) if written else []})  # fmt: skip
    elif written:
        for note in written.notes:
            warn(note)
        say(f"{pipeline}: rebuilt; dead letters found again: {written.letters:,}. Next: `vector-assets run {pipeline}`")


def _json(plan: "RebuildPlan") -> dict[str, Any]:
    from vector_assets.engine.rebuild import UNKNOWN

    return {
        "pipeline": plan.pipeline,
        "target": plan.target,
        "kept": plan.kept,
        "done": [batch.known.seq for batch in plan.done],
        "without_records": [batch.known.seq for batch in plan.done if batch.is_unreadable],
        "sealed": [batch.seq for batch in plan.sealed],
        "abandoned": [batch.seq for batch in plan.abandoned],
        "given_up": list(plan.given_up),
        "expired": list(plan.expired),
        "unused_files": list(plan.unused),
        "folded": plan.folded,
        "position": dict(plan.position),
        "unknown": list(UNKNOWN),
    }


def _show(plan: "RebuildPlan") -> None:
    from vector_assets.cli.survey import places
    from vector_assets.engine.rebuild import UNKNOWN

    if plan.is_empty:
        say(f"{plan.pipeline}: the ledger knows all that {plan.target} and the archive know: nothing to do")
        return
    lost = [batch.known.seq for batch in plan.done if batch.is_unreadable]
    pairs = [
        ("target", plan.target),
        ("position", places(plan.position)),
        ("the ledger has", f"{plan.kept:,} batches that are done"),
        ("the target has besides", _numbers([batch.known.seq for batch in plan.done])),
        ("of these without records", _numbers(lost) if lost else None),
        ("the archive has besides", _numbers([a.seq for a in plan.sealed]) + ": finished by the next run"),
        ("numbers the target skipped", _numbers([a.seq for a in plan.abandoned]) if plan.abandoned else None),
        ("unfinished, given up", _numbers(plan.given_up) if plan.given_up else None),
        ("archive file missing", _numbers(plan.expired) if plan.expired else None),
        ("files not used", plan.unused or None),
        ("without any trace", f"batches up to {plan.folded:,}: only the position is known" if plan.folded else None),
    ]
    show_pairs([(name, value) for name, value in pairs if value is not None])
    say(f"Not to be known: {'; '.join(UNKNOWN)}.")


def _numbers(numbers: "list[int] | tuple[int, ...]") -> str:
    if not numbers:
        return "none"
    listed = sorted(numbers)
    is_run = listed[-1] - listed[0] + 1 == len(listed)
    text = f"{listed[0]} to {listed[-1]}" if is_run and len(listed) > 2 else ", ".join(map(str, listed[:20]))
    more = f" and {len(listed) - 20:,} more" if not is_run and len(listed) > 20 else ""
    return f"{len(listed):,} ({text}{more})"


@command(
    app,
    "vector-assets ledger check                    every pipeline",
    "vector-assets ledger check car_info --deep    read every archive file, too",
)
def check(
    pipeline: Annotated[str | None, typer.Argument(metavar="PIPELINE", help="One pipeline; all when left out.")] = None,
    *,
    deep: Annotated[bool, typer.Option("--deep", help="Read every archive file and compare its hash.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check that the ledger's books are right: states, positions, counts, dead letters and archive files.

    Nothing is changed; the source and the target are not asked. Exit code 1 when something is wrong.
    """
    from vector_assets.cli.declared import books, known_to_ledger
    from vector_assets.engine.books_check import check_books

    with books() as open_books:
        if pipeline is not None:
            known_to_ledger(open_books, pipeline)
        found = check_books(open_books, pipeline, deep=deep)
    if as_json:
        emit({"batches": found.batches, "files": found.files, "findings": [list(each) for each in found.findings]})
    elif found.findings:
        show_table(("pipeline", "batch", "what is wrong"), found.findings, right=("batch",))
    else:
        say(f"{found.batches:,} batches and {found.files:,} archive files: nothing is wrong")
    if found.findings:
        raise typer.Exit(1)
