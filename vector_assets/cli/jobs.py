"""`vector-assets jobs`: lake jobs made, changed and taken away, as YAML in the folder of pipelines."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vector_assets.cli import job_preview, job_state, yaml_files
from vector_assets.cli.output import JsonOption, YesOption, command, confirm, emit, say, usage, warn, working
from vector_assets.engine.errors import ConfigError, VectorAssetsError

if TYPE_CHECKING:
    from vector_assets.cli.job_form import Mapping
    from vector_assets.declare.lake_shelf import Item, Shelf
    from vector_assets.engine.pipeline import Pipeline
    from vector_assets.formats.lake_infer import Inferred

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Name of a lake job.", show_default=False)]
RenameOption = Annotated[
    list[str] | None, typer.Option(metavar="FIELD=COLUMN", help="Name a field's column otherwise; may be repeated.")
]
RetypeOption = Annotated[
    list[str] | None, typer.Option(metavar="FIELD=TYPE", help="Give a field's column another type; may be repeated.")
]
AddOption = Annotated[
    list[str] | None,
    typer.Option(metavar="FIELD=TYPE", help="A column for a field that was not inferred; may be repeated."),
]
RemoveOption = Annotated[
    list[str] | None, typer.Option(metavar="FIELD", help="Leave a field out of the table; may be repeated.")
]
SamplesOption = Annotated[int, typer.Option(metavar="N", min=1, max=100_000, help="How many of the newest messages.")]

app = typer.Typer(
    no_args_is_help=True,
    help="Lake jobs: a topic of JSON messages into an Iceberg or Paimon table, kept as YAML in pipelines/.",
)


@command(
    app,
    "vector-assets jobs create orders --source shop --database shop --table orders --layers 2",
    "vector-assets jobs create --source shop --database shop --table orders --partition-by log_time:day",
    "vector-assets jobs create --source shop --database shop --table orders --path s3://lake/orders --format iceberg",
    "vector-assets jobs create --from orders.yaml     completes a form: the name, the columns",
)
def create(
    name: Annotated[
        str | None, typer.Argument(metavar="[JOB]", help="Its name; of the type and the time when left out.")
    ] = None,
    *,
    form: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="Take the form from this YAML file, not from options.")
    ] = None,
    source: Annotated[str | None, typer.Option(metavar="SOURCE", help="The data source to read.")] = None,
    database: Annotated[str | None, typer.Option(metavar="NAME", help="Database of the table.")] = None,
    table: Annotated[str | None, typer.Option(metavar="NAME", help="The table.")] = None,
    path: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="A place of your own, empty; managed storage when left out.")
    ] = None,
    storage: Annotated[
        str | None, typer.Option(metavar="NAME", help="Managed lake storage.", show_default="lake")
    ] = None,
    storage_format: Annotated[
        str | None, typer.Option("--format", metavar="FORMAT", help="iceberg or paimon.", show_default="iceberg")
    ] = None,
    layers: Annotated[
        int | None, typer.Option(metavar="0-4", help="JSON layers that become columns.", show_default="1")
    ] = None,
    partition_by: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="log_time:day (year, month, hour), COLUMN, or COLUMN:BUCKETS; repeatable."),
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="begin_cursor, end_cursor, or a time.", show_default="begin_cursor")
    ] = None,
    commit_interval: Annotated[
        str | None, typer.Option(metavar="DURATION", help="How often is committed.", show_default="5 min")
    ] = None,
    on_drift: Annotated[
        str | None, typer.Option(metavar="MODE", help="evolve, rescue, freeze or fail.", show_default="rescue")
    ] = None,
    on_existing: Annotated[
        str | None, typer.Option(metavar="WHAT", help="fail or adopt: a table that is there.", show_default="fail")
    ] = None,
    group: Annotated[str | None, typer.Option(metavar="GROUP", help="Resource group.")] = None,
    units: Annotated[int | None, typer.Option(metavar="N", help="Units of the resource group.")] = None,
    description: Annotated[str | None, typer.Option(metavar="TEXT", help="What it is for.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="An option of the table's connector, such as s3.endpoint; repeatable."),
    ] = None,
    samples: SamplesOption = 1000,
    times: Annotated[bool, typer.Option("--times", help="Texts that are times become times.")] = False,
    rename: RenameOption = None,
    retype: RetypeOption = None,
    add: AddOption = None,
    remove: RemoveOption = None,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Add it to this file.", show_default="a new one")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Declare a lake job. Its columns are inferred from the newest messages and written down, to be looked at.

    Refused are a path that is not empty or shares a prefix with another job's, a table that is there (unless it is
    adopted), and more units than the resource group has left. The job reads nothing until `jobs start`.
    """
    from vector_assets.cli.job_form import Mapping, partition_keys

    destination = {"type": "path" if path else None, "storage": storage, "path": path, "format": storage_format,
                   "database": database, "table": table, "on_existing": on_existing,
                   "options": yaml_files.pairs(option, "--option")}  # fmt: skip
    values: dict[str, Any] = {
        "source": source, "description": description, "destination": destination, "json_layers": layers,
        "partition_by": partition_keys(partition_by), "start": start, "commit_interval": commit_interval,
        "on_drift": on_drift,
        "resources": {"group": group, "units": units} if group or units is not None else None,
    }  # fmt: skip
    mapping = Mapping(
        yaml_files.pairs(rename, "--rename"), yaml_files.pairs(retype, "--retype"), yaml_files.pairs(add, "--add"),
        list(remove or ()),
    )  # fmt: skip
    draft = _from_file(form, name, values, file) if form is not None else _from_options(name, values, file)
    made = _complete(draft, mapping, samples, times=times)
    _register(made)
    _tell(made, as_json=as_json)


@dataclass(slots=True)
class _Draft:
    """A file's text with a job that is not complete yet, the number of its document, and where it will stand."""

    text: str
    number: int
    path: Path

    def item(self) -> "Item":
        """The job's document."""
        from vector_assets.declare import shown_path
        from vector_assets.declare.lake_shelf import items_of

        return next(each for each in items_of(self.text, shown_path(self.path)) if each.document.number == self.number)

    def shelf(self) -> "Shelf":
        """The folder as it will be; the job comes last, so that what is taken is taken by others."""
        from vector_assets.declare import shown_path
        from vector_assets.declare.lake_shelf import Shelf, items_of

        mine = items_of(self.text, shown_path(self.path))
        others = [item for item in yaml_files.shelf().items if Path(item.file).absolute() != self.path]
        jobs = [item for item in mine if item.document.number == self.number]
        return Shelf((*others, *(item for item in mine if item not in jobs), *jobs))


@dataclass(frozen=True, slots=True)
class _Made:
    """A job ready to be written, the pipelines there are besides, and what its columns are based on."""

    pipeline: "Pipeline"
    others: "list[Pipeline]"
    change: yaml_files.Change
    inferred: "Inferred | None"


def _from_options(name: str | None, values: dict[str, Any], file: Path | None) -> _Draft:
    from vector_assets.cli.job_form import job_text
    from vector_assets.declare.lake_shelf import items_of

    missing = [f"--{key}" for key in ("source",) if not values[key]]
    missing += [f"--{key}" for key in ("database", "table") if not values["destination"][key]]
    if missing:
        usage(f"give {', '.join(missing)} (or --from FILE)")
    name = name or yaml_files.new_name("kafka", {item.name for item in yaml_files.shelf().of("job")})
    change = yaml_files.added(job_text({"name": name, **values}), file, name)
    assert change.text is not None
    return _Draft(change.text, items_of(change.text, str(change.path))[-1].document.number, change.path)


def _from_file(form: Path, name: str | None, values: dict[str, Any], file: Path | None) -> _Draft:
    from vector_assets.declare.lake_shelf import items_of
    from vector_assets.declare.yaml_edit import with_value
    from vector_assets.engine import env

    given = [key for key, value in values.items() if value and (key != "destination" or any(value.values()))]
    if given or file is not None:
        usage(f"--from FILE takes the form from the file: leave out the option for {given[0] if given else 'file'}")
    try:
        text = form.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{form}: cannot be read: {error}") from error
    jobs = [item for item in items_of(text, str(form)) if item.kind == "job"]
    new = [item for item in jobs if not item.name or item.document.value(("job", "columns")) is None]
    chosen = new or jobs
    if len(chosen) != 1:
        raise ConfigError(f"{form}: found {len(jobs)} jobs, {len(new)} of them incomplete; want one to create")
    item = chosen[0]
    if name is None and not item.name:
        name = yaml_files.new_name("kafka", {each.name for each in yaml_files.shelf().of("job")})
    if name is not None:
        text = with_value(text, item.document.number, ("job", "name"), name, str(form))
    if form.absolute().is_relative_to(env.pipelines_dir()):
        return _Draft(text, item.document.number, form.absolute())
    change = yaml_files.added(text, None, name or item.name)
    return _Draft(text, item.document.number, change.path)


def _complete(draft: _Draft, mapping: "Mapping", samples: int, *, times: bool) -> _Made:
    """Infer the columns where none are written, and compile the job."""
    from vector_assets.cli.job_form import column_lines, infer, sample
    from vector_assets.declare.lake_job import compile_job, fields_of, read_job
    from vector_assets.declare.lake_target import log_time_names
    from vector_assets.declare.yaml_edit import with_lines

    item, shelf = draft.item(), draft.shelf()
    form, inferred = read_job(item), None
    source, _, _ = shelf.source_of(item)
    shelf.check_units(item, form)
    if form.columns is None and form.json_layers > 0:
        with working(f"inferring columns from the newest {samples} messages of {source.topic}"):
            inferred = infer(
                sample(source, shelf, item, samples), form.json_layers, times=times, taken=list(log_time_names(form))
            )
        fields = mapping.applied(inferred.fields)
        lines = column_lines(fields, inferred)
        draft.text = with_lines(draft.text, draft.number, ("job", "columns"), lines, item.file)
        if mapping.removed:
            lines = [f"- {path}" for path in mapping.removed]
            draft.text = with_lines(draft.text, draft.number, ("job", "ignore"), lines, item.file)
        item, shelf = draft.item(), draft.shelf()
        form = read_job(item)
    elif mapping != type(mapping)():
        raise ConfigError(f"{item.owner}: its columns are written already; change them there, or by `jobs edit`")
    fields_of(form, item.document)
    shelf.in_file(item.file)
    pipeline = compile_job(item, shelf)
    return _Made(pipeline, _others(draft, shelf, item), yaml_files.Change(draft.path, draft.text), inferred)


def _register(made: "_Made") -> None:
    """Note in the ledger that the job exists, then write its file; both or neither."""
    from vector_assets.cli.declared import books
    from vector_assets.declare import check_apart
    from vector_assets.engine.creation import delete as forget
    from vector_assets.engine.creation import ensure_created

    check_apart([made.pipeline], made.others)
    with books() as open_books:
        is_new = ensure_created(open_books.ledger, made.pipeline)
        try:
            with closing(made.pipeline.open_sink()) as sink:
                sink.inspect(made.pipeline.schema, made.pipeline.sink_table.primary_key)
            made.change.apply()
        except VectorAssetsError:
            if is_new:
                forget(open_books.ledger, made.pipeline.name)
            raise


def _others(draft: _Draft, shelf: "Shelf", mine: "Item") -> "list[Pipeline]":
    """The other pipelines of the folder, as far as their files are right, and of the draft's own file."""
    from vector_assets.declare import collect_folder, shown_path
    from vector_assets.declare.lake_job import compile_job
    from vector_assets.engine import env

    file = shown_path(draft.path)
    found = [each for each in collect_folder(env.pipelines_dir(), offline=True).pipelines if each.place.file != file]
    beside = [each for each in shelf.of("job") if each.file == file and each.name and each.name != mine.name]
    return [*found, *(compile_job(each, shelf, offline=True) for each in beside)]


def _tell(made: _Made, *, as_json: bool) -> None:
    name, inferred = made.pipeline.name, made.inferred
    notes = list(inferred.notes) if inferred else []
    if as_json:
        columns = [column.name for column in made.pipeline.sink_table.columns]
        bad = len(inferred.bad) if inferred else 0
        emit({"name": name, "file": str(made.change.path), "target": made.pipeline.target, "columns": columns,
              "samples": {"good": inferred.good, "bad": bad} if inferred else None, "notes": notes})  # fmt: skip
        return
    say(f"job {name}: written to {made.change.path}")
    if inferred is not None:
        say(f"{len(inferred.fields)} fields inferred from {inferred.good + len(inferred.bad)} messages")
        if inferred.bad:
            warn(f"{len(inferred.bad)} of them are no JSON objects, such as: {inferred.bad[0].reason}")
    for note in notes:
        say(f"note: {note}")
    say(f"next: look at its columns, then vector-assets jobs start {name}", "dim")


@command(
    app,
    "vector-assets jobs edit orders --set 'commit_interval=1 min' --set resources.units=4",
    "vector-assets jobs edit orders --rename device.os=os --retype id='DECIMAL(20, 0)' --remove device.brand",
)
def edit(
    job: JobArgument,
    *,
    values: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A key of the form; may be repeated.")
    ] = None,
    rename: RenameOption = None,
    retype: RetypeOption = None,
    add: AddOption = None,
    remove: RemoveOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change keys of a job, or its columns. Its destination is fixed when it is created; so is its name."""
    from vector_assets.cli.job_edit import edited
    from vector_assets.cli.job_form import Mapping

    given = yaml_files.pairs(values, "--set")
    mapping = Mapping(
        yaml_files.pairs(rename, "--rename"), yaml_files.pairs(retype, "--retype"), yaml_files.pairs(add, "--add"),
        list(remove or ()),
    )  # fmt: skip
    if not given and mapping == Mapping():
        usage("give --set, --rename, --retype, --add or --remove")
    shelf = yaml_files.shelf()
    change, of_table = edited(shelf.find("job", job), shelf, given, mapping)
    change.apply()
    if as_json:
        emit({"name": job, "file": str(change.path), "table": list(of_table)})
        return
    say(f"job {job}: {change.path} changed; runs that start from now on go by it")
    for each in of_table:
        say(f"the table: {each}, by the next run")


@command(app, "vector-assets jobs delete orders --yes")
def delete(job: JobArgument, *, yes: YesOption = False, as_json: JsonOption = False) -> None:
    """Take a job away that is stopped. Its table stays as it is, and so does what the ledger and the archive hold."""
    from vector_assets.cli.declared import books, has_ledger
    from vector_assets.engine.creation import delete as forget

    item = yaml_files.shelf().find("job", job)
    job_state.refuse_working(job)
    confirm(f"Delete job {job} from {item.file}? Its table stays.", is_confirmed=yes)
    yaml_files.without(item).apply()
    if has_ledger():
        with books() as open_books:
            forget(open_books.ledger, job)
    if as_json:
        emit({"deleted": job})
    else:
        say(f"job {job}: deleted; its table stays")


job_state.register(app)
job_preview.register(app)
