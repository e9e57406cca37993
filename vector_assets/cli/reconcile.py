"""`vector-assets reconcile`: the books against themselves, and the target against the archive."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vector_assets.cli.output import (
    JsonOption,
    PipelineArgument,
    command,
    emit,
    heading,
    moment,
    say,
    show_table,
    working,
)

if TYPE_CHECKING:
    from vector_assets.engine.difference import Finding
    from vector_assets.engine.reconcile import Reconciliation


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(
        app,
        "vector-assets reconcile car_info",
        "vector-assets reconcile car_info --sample 500     quick: some keys only",
        "vector-assets reconcile car_info --foreign-ok --json",
    )(reconcile)


def reconcile(
    pipeline: PipelineArgument,
    *,
    sample: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Look at about N keys instead of every row.")
    ] = None,
    foreign_ok: Annotated[
        bool, typer.Option("--foreign-ok", help="Rows that this pipeline did not write are no finding.")
    ] = False,
    shown: Annotated[int, typer.Option("--show", metavar="N", min=0, help="Findings shown of each kind.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Compare what the target holds with what the archive makes of it today, row by row; exit code 1 when it differs.

    No row is written; a lake job whose form was changed gives its table the new columns first, as any run does. The
    pipeline's lease is held while the cut is made, not while rows are read.
    """
    from vector_assets.cli.declared import opened
    from vector_assets.engine import reconcile as engine
    from vector_assets.engine.sample import reconcile_sample

    with opened(pipeline) as session, working(f"reconciling {pipeline}"):
        found = engine.reconcile(session, shown=shown) if sample is None else reconcile_sample(session, sample, shown)
    is_right = found.is_right(foreign_ok=foreign_ok)
    if as_json:
        emit(asdict(found) | {"is_right": is_right})
    else:
        _show(found, is_right=is_right)
    if not is_right:
        raise typer.Exit(1)


def _show(found: "Reconciliation", *, is_right: bool) -> None:
    show_table(
        ("equation", "left", "right", "", "of"),
        [(e.name, e.left, e.right, "holds" if e.holds else "BROKEN", e.note) for e in found.equations],
        right=("left", "right"),
    )
    if found.sampled is not None:
        say(f"{found.sampled:,} keys looked at, up to batch {found.last}, {found.seconds:g} s")
    else:
        say(f"{found.expected_rows:,} rows expected, {found.target_rows:,} in the target, up to batch {found.last},"
            f" {found.seconds:g} s")  # fmt: skip
    if found.not_compared:
        say(f"not compared (the target spells them its own way): {', '.join(found.not_compared)}", "dim")
    for kind, count in found.counts.items():
        heading(f"{kind.replace('_', ' ')}: {count:,}")
        rows = [row(finding) for finding in found.findings if finding.kind == kind]
        show_table(("key", "columns", "batch", "hour", "split", "offset", "written to the source"), rows)
    if "other_code" in found.counts and found.is_appended:
        say(
            "made by other code, as when a column was renamed since: rows of an append table stay as they were written."
            f" To have all made by today's, drop the table, then `vector-assets run {found.pipeline}` (which"
            f" makes it anew and stops), `reset {found.pipeline} --adopt-target` and `replay {found.pipeline}`",
            "dim",
        )
    elif "other_code" in found.counts:
        say(f"made by other code: `vector-assets replay {found.pipeline} --rewrite` makes them by today's", "dim")
    if "expired" in found.counts:
        say("expired: retention removed what tells which rows older batches wrote; these were not compared", "dim")
    say("\nright" if is_right else "\nNOT RIGHT", "bold")


def row(finding: "Finding") -> tuple[Any, ...]:
    """A finding as the cells of a table."""
    key = ", ".join(f"{name}={value}" for name, value in finding.key.items())
    origin = finding.origin
    if origin is None:
        return (key, ", ".join(finding.columns), None, None, None, None, None)
    where = (str(origin.batch), origin.hour, origin.split, str(origin.offset), moment(origin.timestamp_ms))
    return (key, ", ".join(finding.columns), *where)
