"""`vector-assets doctor`: everything that a pipeline needs, looked at, with a remedy for what is not well."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from vector_assets.cli.output import JsonOption, command, emit, heading, printable, stdout, working

if TYPE_CHECKING:
    from vector_assets.engine.abilities import Finding
    from vector_assets.engine.pipeline import Pipeline

_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(
        app,
        "vector-assets doctor                 everything, every pipeline",
        "vector-assets doctor car_info        one pipeline and what it needs",
        "vector-assets doctor --json | jq '.findings[] | select(.level != \"ok\")'",
    )(doctor)


def doctor(
    pipeline: Annotated[str | None, typer.Argument(metavar="PIPELINE", help="One pipeline; all when left out.")] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Look at software, disks, ledger, local services, and at both ends of each pipeline; change nothing.

    Of a source and a target: reachable, version, rights, topic or table and whether the pipeline's columns fit it,
    extension and vector index, clocks, backlog, lease, unfinished batches, dead letters.

    Exit code 1 when there is a problem; a warning is none.
    """
    found: list[tuple[str, Finding]] = []
    with working("looking") as progress:
        for group, findings in _groups(pipeline):
            progress(group)
            found += [(group, finding) for finding in findings]
    problems = sum(finding.level == "problem" for _, finding in found)
    warnings = sum(finding.level == "warning" for _, finding in found)
    if as_json:
        emit({"findings": [_json(*each) for each in found], "problems": problems, "warnings": warnings})
    else:
        _show(found)
        heading(f"{problems} problems, {warnings} warnings")
    if problems:
        raise typer.Exit(1)


def _groups(name: str | None) -> "Iterator[tuple[str, Iterator[Finding]]]":
    """What is looked at, under the headings it is shown by."""
    from vector_assets.cli.declared import books, has_ledger
    from vector_assets.engine import health

    yield "software", health.software()
    yield "disks", health.disks()
    yield "ledger", health.ledger()
    yield "local services", _services()
    pipelines, wrong = _declared(name)
    yield "scripts", _scripts(pipelines, wrong)
    if any(finding.level == "problem" for finding in health.ledger()) or not has_ledger():
        for each in pipelines:
            yield f"pipeline {each.name}", health.pipeline(each, None)
        return
    with books() as open_books:
        for each in pipelines:
            yield f"pipeline {each.name}", health.pipeline(each, open_books.ledger)


def _declared(name: str | None) -> "tuple[list[Pipeline], Sequence[Any]]":
    from vector_assets.cli.declared import sound

    return sound(name)


def _scripts(pipelines: "Sequence[Pipeline]", wrong: Sequence[Any]) -> "Iterator[Finding]":
    from vector_assets.engine.abilities import Finding
    from vector_assets.engine.env import pipelines_dir

    for error in wrong:
        yield Finding("problem", str(error), "mend the script; its pipelines are left out of everything else")
    names = ", ".join(pipeline.name for pipeline in pipelines)
    if names:
        yield Finding("ok", f"{pipelines_dir()}: {names}")
    elif not wrong:
        yield Finding("warning", f"{pipelines_dir()} declares no pipeline", "write one, or `vector-assets demo`")


def _services() -> "Iterator[Finding]":
    """The embedded services; one that is down matters only where its address is published."""
    from vector_assets.engine.abilities import Finding
    from vector_assets.engine.env import secret_variable, services_file
    from vector_assets.local import services

    published = services_file().read_text() if services_file().exists() else ""
    for row in services.status():
        names = services.SERVICES[row.name].secret_names
        is_published = any(secret_variable(name) in published for name in names)
        if row.state == "up":
            yield Finding("ok", f"{row.name} {row.version} is up at {row.address}")
        elif row.state == "starting" or is_published:
            what = f"{row.name} is {row.state}, and scripts are told its address"
            yield Finding("warning", what, f"`vector-assets services up {row.name}`; its log: {row.log}")
        else:
            yield Finding("ok", f"{row.name} is down, and no script is told its address")


def _json(group: str, finding: "Finding") -> dict[str, Any]:
    return {"group": group, "level": finding.level, "what": finding.what, "remedy": finding.remedy}


def _show(found: "Sequence[tuple[str, Finding]]") -> None:
    console = stdout()
    before = None
    for group, finding in found:
        if group != before:
            heading(group)
            before = group
        style = _STYLES[finding.level]
        console.print(f"[{style}]{finding.level:<8}[/] {escape(printable(finding.what))}", soft_wrap=True)
        if finding.remedy and finding.level != "ok":
            console.print(f"{'':<8} [dim]-> {escape(printable(finding.remedy))}[/]", soft_wrap=True)
