"""`vector-assets jobs list|show|start|stop|status|logs|preview`: what jobs are doing, and telling them to."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vector_assets.cli import dagster_calls, yaml_files
from vector_assets.cli.output import (
    JsonOption,
    ago,
    command,
    emit,
    heading,
    moment,
    say,
    show_pairs,
    show_table,
    warn,
    working,
)
from vector_assets.engine import env
from vector_assets.engine.errors import ConfigError

if TYPE_CHECKING:
    from vector_assets.cli.survey import Survey
    from vector_assets.declare.lake_form import LakeJob
    from vector_assets.declare.lake_shelf import Item, Shelf
    from vector_assets.engine.pipeline import Pipeline

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Name of a lake job.", show_default=False)]

_ONGOING = frozenset({"STARTED", "STARTING", "QUEUED", "NOT_STARTED", "CANCELING"})


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "vector-assets jobs list", "vector-assets jobs list --json", name="list")(list_)
    command(app, "vector-assets jobs show orders")(show)
    command(app, "vector-assets jobs start orders")(start)
    command(app, "vector-assets jobs stop orders")(stop)
    command(app, "vector-assets jobs status", "vector-assets jobs status orders --json")(status)
    command(app, "vector-assets jobs logs orders", "vector-assets jobs logs orders --run 3fa1b2c4 --level debug")(logs)


def sensor_of(job: str) -> str:
    """The name of a job's sensor in Dagster."""
    return f"{job}_sensor"


def refuse_working(job: str) -> None:
    """Make sure that a job's sensor is off and no run of it at work, in Dagster or by command.

    Raises:
        ConfigError: one is; what to do is said.
    """
    from vector_assets.cli.declared import books, has_ledger
    from vector_assets.declare import collect_folder

    states = dagster_calls.instance_states() or {"sensors": {}, "runs": {}}
    if states["sensors"].get(sensor_of(job)) in {"RUNNING", "AUTOMATICALLY_RUNNING"}:
        raise ConfigError(f"job {job} is running: `vector-assets jobs stop {job}` first")
    run = states["runs"].get(job)
    worker = f"run {run['id'][:8]}" if run is not None and run["status"] in _ONGOING else None
    if worker is None and has_ledger():
        found = collect_folder(env.pipelines_dir(), offline=True).pipelines
        with books() as open_books:
            leases = open_books.ledger.leases
            held = [each for each in found if each.name == job and leases.is_held(job, each.target)]
            worker = str(leases.holder(job, held[0].target)) if held else None
    if worker is not None:
        raise ConfigError(f"job {job} is at work still ({worker}): it ends by itself, then delete the job")


@dataclass(frozen=True, slots=True)
class JobState:
    """A job's status in the words of the service, and why."""

    status: str
    why: str


def state_of(
    job: str, survey: "Survey | None", states: dict[str, Any] | None, problem: str | None = None
) -> JobState:  # fmt: skip
    """The status of a job: `Not started`, `Starting`, `Running`, `Failed`, `Stopping`, `Stopped` or `Unknown`.

    One that is on and whose next run would stop at a `problem` is `Failed`; of any other the problem is told besides.
    """
    found = _state_of(job, survey, states)
    if problem is None:
        return found
    if found.status in {"Starting", "Running", "Failed"}:
        return JobState("Failed", f"its next run would stop: {problem}")
    return JobState(found.status, "; ".join(part for part in (found.why, f"a run would stop: {problem}") if part))


def _state_of(job: str, survey: "Survey | None", states: dict[str, Any] | None) -> JobState:
    if states is None:
        return JobState("Unknown", "DAGSTER_HOME is not set, so nobody knows whether its sensor is on")
    run = states["runs"].get(job)
    is_running = states["sensors"].get(sensor_of(job)) in {"RUNNING", "AUTOMATICALLY_RUNNING"}
    is_working = (run is not None and run["status"] in _ONGOING) or (survey is not None and survey.is_held)
    has_run = run is not None or (survey is not None and survey.is_activated)
    if not is_running:
        if is_working:
            return JobState("Stopping", "its sensor is off, the run at work ends by itself")
        is_touched = sensor_of(job) in states["sensors"]
        return JobState("Stopped", "its sensor is off") if has_run or is_touched else JobState("Not started", "")
    asleep = "" if states["daemon"] else "no Dagster daemon is running: it works when `dagster dev` does"
    ended = states["ended"].get(job)
    if ended is not None and ended["status"] == "FAILURE":
        which = ended["id"][:8]
        again = f", run {run['id'][:8]} tries again" if run is not None and run["id"] != ended["id"] else ""
        return JobState(
            "Failed", asleep or f"run {which} failed{again}; `vector-assets jobs logs {job} --run {which}` says why"
        )
    if not has_run:
        return JobState("Starting", asleep or "its first run has not begun")
    return JobState("Running", asleep)


def _jobs(name: str | None) -> "tuple[Shelf, list[Item]]":
    shelf = yaml_files.shelf()
    return shelf, [shelf.find("job", name)] if name is not None else [item for item in shelf.of("job") if item.name]


def list_(*, as_json: JsonOption = False) -> None:
    """Show all lake jobs: what they read and write, and their status."""
    from vector_assets.declare.lake_job import read_job

    shelf, items = _jobs(None)
    states = dagster_calls.instance_states()
    surveys, problems = _surveys(items)
    found = []
    for item in items:
        form = read_job(item)
        source, _, _ = shelf.source_of(item)
        to = form.destination
        state = state_of(item.name, surveys.get(item.name), states, problems.get(item.name))
        found.append(
            {"name": item.name, "status": state.status, "source": source.name, "topic": source.topic,
             "table": f"{to.database}.{to.table}", "format": to.format, "type": to.type,
             "units": form.limits.units, "description": form.description, "place": str(item.place)}
        )  # fmt: skip
    if as_json:
        emit({"jobs": found})
        return
    columns = ("name", "status", "source", "topic", "table", "format", "type", "units", "declared in")
    keys = (*columns[:-1], "place")
    show_table(columns, [[each[key] for key in keys] for each in found], right=("units",))


def _surveys(items: "Sequence[Item]") -> "tuple[dict[str, Survey], dict[str, str]]":
    """What ledger and sources say of jobs, without a ledger nothing; and what their next runs would stop at."""
    from vector_assets.cli.declared import books, has_ledger, sound
    from vector_assets.cli.job_problems import refused, undeclared
    from vector_assets.cli.survey import survey

    found, errors = sound()
    for error in errors:
        warn(f"left out: {error}")
    names = {item.name for item in items}
    chosen = [pipeline for pipeline in found if pipeline.name in names]
    problems = undeclared(items, found, errors)
    if not has_ledger() or not chosen:
        return {}, problems
    with books() as open_books:
        told = ((each.name, refused(each, open_books.ledger)) for each in chosen)
        problems |= {name: problem for name, problem in told if problem is not None}
        return {each.name: each for each in survey(chosen, open_books.ledger, 1)}, problems


def show(job: JobArgument, *, as_json: JsonOption = False) -> None:
    """Show a job's form with its defaults, its columns, and how its schema came about."""
    from vector_assets.declare.lake_job import fields_of, read_job
    from vector_assets.formats.lake_fields import WHOLE, path_text

    shelf, (item,) = _jobs(job)
    form = read_job(item)
    source, _, _ = shelf.source_of(item)
    columns = [
        {"field": path_text(each.path) or WHOLE, "column": each.name, "type": each.spelled}
        for each in fields_of(form, item.document)
    ]
    history = _history(job)
    if as_json:
        emit(form.model_dump(mode="json", exclude={"columns"})
             | {"source": source.model_dump(), "columns": columns, "schema_history": history, "place": str(item.place)}
        )  # fmt: skip
        return
    show_pairs(_pairs(form, source.name, str(item.place)))
    heading("columns")
    show_table(("field", "column", "type"), [tuple(each.values()) for each in columns])
    if history:
        heading("schema history")
        show_table(("version", "from batch", "since", "changes"), [tuple(each.values()) for each in history])


def _pairs(form: "LakeJob", source: str, place: str) -> list[tuple[str, object]]:
    to = form.destination
    where = f"own path {to.path}" if to.type == "path" else f"managed lake storage {to.storage}"
    keys = [key.model_dump(exclude_none=True) for key in form.partition_by]
    shown = [", ".join(f"{name} {value}" for name, value in key.items()) for key in keys]
    group, memory = form.limits.group, form.limits.memory_bytes
    units = f"{form.limits.units} units of {group}: " if group else ""
    limits = f"{units}{memory // 1024**2:,} MB for a run's process" if memory else "default"
    return [
        ("job", form.name),
        ("description", form.description),
        ("source", source),
        ("destination", f"{to.format} table {to.database}.{to.table} in {where}"),
        ("existing table", to.on_existing),
        ("json layers", form.json_layers),
        ("partition by", "; ".join(shown) or "nothing"),
        ("start", form.start),
        ("commit interval", f"{form.commit_interval.total_seconds():g} s"),
        ("on drift", form.on_drift),
        ("ignored fields", ", ".join(form.ignore) or "none"),
        ("resources", limits),
        ("declared in", place),
    ]


def _history(job: str) -> list[dict[str, Any]]:
    """Versions of the schema and what caused them, of a job that has run."""
    from vector_assets.cli.declared import books, has_ledger, pipelines
    from vector_assets.engine.schema_history import history

    if not has_ledger():
        return []
    (pipeline,) = pipelines(job, offline=True)
    with books() as open_books:
        found = history(open_books.ledger, pipeline.name, pipeline.target)
    return [
        {
            "version": each.version,
            "from_batch": each.seq,
            "at": moment(each.created_ms),
            "changes": [
                f"{change.what}, because of record {change.split}:{change.offset}"
                + (f" (refused: {change.refused})" if change.refused else "")
                for change in each.changes
            ],
        }
        for each in found
    ]


def start(job: JobArgument, *, as_json: JsonOption = False) -> None:
    """Turn a job's sensor on, after the checks that its creation makes; runs begin when Dagster's daemon runs."""
    from vector_assets.cli.declared import opened
    from vector_assets.cli.job_problems import changes_of

    _jobs(job)
    with opened(job) as session:
        session.ensure_created()
        pipeline = session.pipeline
        changes_of(pipeline, session.ledger)
    _switch(pipeline, "start", as_json=as_json)


def stop(job: JobArgument, *, as_json: JsonOption = False) -> None:
    """Turn a job's sensor off; a run at work commits what it has in hand and ends by itself."""
    from vector_assets.cli.declared import pipelines

    _jobs(job)
    (pipeline,) = pipelines(job, offline=True)
    _switch(pipeline, "stop", as_json=as_json)


def _switch(pipeline: "Pipeline", verb: str, *, as_json: bool) -> None:
    name = pipeline.name
    with working(f"dagster sensor {verb} {sensor_of(name)}"):
        dagster_calls.switch_sensor(sensor_of(name), verb)
        states = dagster_calls.instance_states()
    surveys, problems = _surveys(_jobs(name)[1])
    state = state_of(name, surveys.get(name), states, problems.get(name))
    if as_json:
        emit({"name": name, "status": state.status, "why": state.why})
    else:
        say(f"job {name}: {state.status}{f' ({state.why})' if state.why else ''}")


def status(
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="One job; all when left out.")] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Show the status of jobs, from their sensors, their newest runs and the ledger."""
    _, items = _jobs(job)
    states = dagster_calls.instance_states()
    surveys, problems = _surveys(items)
    found = [_status(item.name, surveys.get(item.name), states, problems.get(item.name)) for item in items]
    if as_json:
        emit({"jobs": found})
        return
    columns = ("name", "status", "lag", "written", "dead letters", "last batch", "last run", "why")
    rows = [
        (each["name"], each["status"], each["lag"], each["written"], each["dead_letters"],
         ago(each["last_batch_ms"]) if each["last_batch_ms"] else None,
         f"{each['run']['id'][:8]} {each['run']['status']}" if each["run"] else None, each["why"])
        for each in found
    ]  # fmt: skip
    show_table(columns, rows, right=columns[2:5])


def _status(
    name: str, survey: "Survey | None", states: dict[str, Any] | None, problem: str | None
) -> dict[str, Any]:  # fmt: skip
    state = state_of(name, survey, states, problem)
    last = survey.last if survey else None
    return {
        "name": name,
        "status": state.status,
        "why": state.why,
        "problem": problem,
        "lag": survey.answer.lag if survey else None,
        "written": survey.totals.written if survey else 0,
        "dead_letters": survey.open_letters if survey else 0,
        "last_batch_ms": (last.done_ms or last.planned_ms) if last else None,
        "run": states["runs"].get(name) if states else None,
    }


def logs(
    job: JobArgument,
    *,
    run: Annotated[
        str | None, typer.Option(metavar="RUN", help="The beginning of a run's id; the newest run when left out.")
    ] = None,
    level: Annotated[
        str, typer.Option(metavar="LEVEL", help="debug, info, warning or error: this and above.")
    ] = "info",
    as_json: JsonOption = False,
) -> None:
    """Show the log of a run of the job, as Dagster keeps it."""
    levels = ("debug", "info", "warning", "error", "critical")
    if level not in levels:
        raise ConfigError(f"--level {level!r}: known: {', '.join(levels[:-1])}")
    _jobs(job)
    found = dagster_calls.run_log(job, run)
    if found["run"] is None:
        which = f"whose id begins with {run}" if run else f"in {env.dagster_home()}"
        raise ConfigError(f"job {job} has no run {which}")
    wanted = levels[levels.index(level) :]
    found["events"] = [each for each in found["events"] if each["level"] in wanted]
    if as_json:
        emit(found)
        return
    about = found["run"]
    say(f"run {about['id']} of {about['job']}: {about['status']}", "bold")
    for each in found["events"]:
        at = datetime.fromtimestamp(each["at"], UTC).isoformat(timespec="milliseconds").removesuffix("+00:00")
        say(f"{at}Z {each['level']:<7} {each['text']}")
