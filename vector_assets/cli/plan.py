"""`vector-assets plan`: what a declaration compiles to and would do; nothing is changed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vector_assets.cli.output import JsonOption, command, emit, heading, say, show_pairs, show_table, working
from vector_assets.engine.errors import ConfigError, PlanError, VectorAssetsError

if TYPE_CHECKING:
    from vector_assets.engine.core import Position
    from vector_assets.engine.pipeline import Pipeline

_ENDINGS = (".sql", ".yaml", ".yml")


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(
        app,
        "vector-assets plan                                     every pipeline",
        "vector-assets plan pipelines/car_info.sql --offline    one script; nothing is contacted",
        "vector-assets plan car_info --json",
    )(plan)


def plan(
    what: Annotated[
        str | None, typer.Argument(metavar="FILE|PIPELINE", help="A script, or a pipeline's name; all when left out.")
    ] = None,
    *,
    offline: Annotated[
        bool, typer.Option("--offline", help="Contact neither source nor target; secrets need not be set.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check scripts and show what they compile to: assets, columns, options, SQL, and what the target would get.

    Nothing is changed anywhere. Every script that is wrong is an error that names file, line and column, and so is
    every pipeline whose columns do not fit the target's; the others are shown all the same, and the exit code is 1.
    """
    chosen, wrong = _chosen(what, offline=offline)
    errors: list[VectorAssetsError] = list(wrong)
    if offline:
        from vector_assets.cli.description import describe

        described = [describe(pipeline) for pipeline in chosen]
    else:
        with working("asking source and target"):
            described = _online(chosen, errors)
    if as_json:
        emit({"pipelines": described, "errors": [str(error) for error in errors]})
    else:
        for each in described:
            _show(each)
        _show_reports("understood as", (each["notes"] for each in described))
        _show_reports("without effect", (each["reports"] for each in described))
    if errors:
        for error in errors[:-1]:
            typer.echo(f"error: {error}", err=True)
        raise errors[-1]


def _chosen(what: str | None, *, offline: bool) -> "tuple[list[Pipeline], tuple[ConfigError, ...]]":
    """The pipelines, and what is wrong with other files where all are wanted."""
    from vector_assets.cli import declared

    if what is None:
        return declared.sound(offline=offline)
    if what.endswith(_ENDINGS) or "/" in what:
        return declared.from_file(Path(what), offline=offline), ()
    return declared.pipelines(what, offline=offline), ()


def _online(chosen: "list[Pipeline]", errors: list[VectorAssetsError]) -> list[dict[str, Any]]:
    """What is planned of those that fit; why the others do not is added to `errors`."""
    from vector_assets.cli.description import describe_online
    from vector_assets.cli.survey import ask

    states = _states(chosen)
    positions = [state.position for state in states]
    answers = ask(chosen, positions)
    described = []
    for state, answer in zip(states, answers, strict=True):
        try:
            described.append(describe_online(state.pipeline, answer, state.position, state.fresh))
        except VectorAssetsError as error:
            errors.append(_placed(state.pipeline, error))
    return described


def _placed(pipeline: "Pipeline", error: VectorAssetsError) -> VectorAssetsError:
    """The error with the pipeline that it is of; one that names a place of its own stays as it is."""
    if isinstance(error, ConfigError) and error.place is not None:
        return error
    found = PlanError(f"{pipeline.place}: {pipeline.name}: {str(error).removeprefix(f'{pipeline.name}: ')}")
    found.__cause__ = error
    return found


@dataclass(frozen=True, slots=True)
class _State:
    """A pipeline with the columns that it has by now, where it stands (None before its first run), and the columns that
    its target will get."""

    pipeline: "Pipeline"
    position: "Position | None" = None
    fresh: frozenset[str] = frozenset()


def _states(chosen: "list[Pipeline]") -> list[_State]:
    """What the ledger knows; one that is not there is not made."""
    from vector_assets.cli.declared import books, has_ledger
    from vector_assets.engine.evolution import evolved, todays_new
    from vector_assets.engine.schema_history import latest_state

    if not has_ledger():
        return [_State(pipeline) for pipeline in chosen]
    found = []
    with books() as open_books:
        ledger = open_books.ledger
        for each in chosen:
            where = (each.name, each.target)
            today = evolved(each, latest_state(ledger, *where))
            position = ledger.position(*where) if ledger.is_activated(*where) else None
            found.append(_State(today, position, todays_new(ledger, today)))
    return found


def _show(plan_of: Mapping[str, Any]) -> None:
    source, sink, online = plan_of["source"], plan_of["sink"], plan_of["online"]
    heading(plan_of["name"])
    if plan_of["description"]:
        say(plan_of["description"])
    partitions = plan_of["partitions"]
    show_pairs(
        [
            ("declared in", f"{plan_of['file']}:{plan_of['line']}"),
            ("asset", f"{'/'.join(plan_of['assets']['key'])}, made from {'/'.join(plan_of['assets']['reads'])}"),
            ("partitions", _partitions(partitions)),
            ("target", sink["target"]),
            *_answers(online),
        ]
    )
    heading("columns")
    _show_columns(plan_of["columns"], is_online=online is not None)
    heading("transform")
    say(plan_of["transform"])
    for name, part, options in (
        (f"source {source['table']}", source["connector"], source["options"]),
        (f"format of {source['table']}", source["format"], source["format_options"]),
        (f"sink {sink['table']}", sink["connector"], sink["options"]),
        *((f"dimension table {each['table']}", each["connector"], each["options"]) for each in plan_of["lookups"]),
        ("settings", None, plan_of["settings"]),
        ("embedding", None, plan_of["embedding"]),
    ):
        if options:
            heading(f"{name} ({part})" if part else name)
            show_pairs(options.items())


def _partitions(of: Mapping[str, str | None]) -> str:
    if of["length"] == "source":
        return f"those of the source, {of['start']}"
    return f"{of['length']} from {of['start']}, now open: {of['open']} (UTC)"


def _answers(online: Mapping[str, Any] | None) -> list[tuple[str, object]]:
    if online is None:
        return [("online", "not asked")]
    target, source = online["target"], online["source"]
    rows: list[tuple[str, object]] = []
    if target is None:
        rows.append(("target", "cannot be checked without writing to it; the first run checks it"))
    else:
        rows += [("key", target["key"] or "none"), ("guarantee", target["guarantee"])]
        rows += [("note", note) for note in target["notes"]]
    if source["error"] is not None:
        return [*rows, ("lag", f"unknown: {source['error']}")]
    begins = "position" if source["position"] is not None else "would start at"
    rows.append((begins, _places(source["position"] if source["position"] is not None else source["start"])))
    return [*rows, ("frontier", _places(source["frontier"])), ("lag", source["lag"])]


def _show_columns(columns: list[dict[str, Any]], *, is_online: bool) -> None:
    rows = [
        (
            column["name"],
            column["from"] or column["expression"],
            column["source_type"],
            column["type"],
            *([column["target_type"] or "?"] if is_online else []),
        )
        for column in columns
    ]
    show_table(("column", "from", "source type", "sink type", *(["target type"] if is_online else [])), rows)


def _show_reports(title: str, reports: Iterable[list[str]]) -> None:
    """What has no effect or was understood without being written, once, however many pipelines of a script say so."""
    found = list(dict.fromkeys(report for part in reports for report in part))
    if found:
        heading(title)
        for report in found:
            say(report)


def _places(position: Mapping[str, Any]) -> str:
    from vector_assets.cli.survey import places

    return places(position)
