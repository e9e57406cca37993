"""`vector-assets jobs preview`: sample messages, the schema they lead to, and the rows they would be."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vector_assets.cli import yaml_files
from vector_assets.cli.job_form import sample
from vector_assets.cli.output import JsonOption, command, emit, heading, say, show_table, usage, working

if TYPE_CHECKING:
    import pyarrow as pa

    from vector_assets.declare.lake_shelf import Item, Shelf
    from vector_assets.engine.pipeline import Pipeline
    from vector_assets.formats.lake_fields import LakeField
    from vector_assets.formats.lake_json import LakePreview

_SHOWN = 5
_LONGEST = 60


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(
        app,
        "vector-assets jobs preview orders                       as the job is declared",
        "vector-assets jobs preview orders --layers 3 --infer    what other layers would give",
        "vector-assets jobs preview --source shop --layers 2     before there is a job",
    )(preview)


def preview(
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="A lake job, or give --source.")] = None,
    *,
    source: Annotated[str | None, typer.Option(metavar="SOURCE", help="A data source, without a job.")] = None,
    layers: Annotated[
        int | None, typer.Option(metavar="0-4", min=0, max=4, help="JSON layers; the job's own when left out.")
    ] = None,
    samples: Annotated[int, typer.Option(metavar="N", min=1, max=100_000, help="How many of the newest.")] = 100,
    infer: Annotated[bool, typer.Option("--infer", help="Infer columns, whatever the job declares.")] = False,
    times: Annotated[bool, typer.Option("--times", help="Texts that are times become times.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the newest messages, the columns they lead to with what was seen of each, and the rows they would be.

    Of a job these are the columns that its next run has, those included that it got by drift, and fields that no column
    is for are listed. Nothing is written: no file, no ledger, no table.
    """
    from vector_assets.declare.lake_form import DataSource, read
    from vector_assets.declare.lake_job import read_job
    from vector_assets.declare.lake_target import log_time_names
    from vector_assets.formats.lake_json import preview_samples

    if (job is None) == (source is None):
        usage("give a job or --source")
    shelf = yaml_files.shelf()
    item = shelf.find("job", job) if job is not None else None
    pipeline: Pipeline | None = None
    ignored: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()
    if item is not None:
        form, (of, _, _) = read_job(item), shelf.source_of(item)
        taken = log_time_names(form)
        if layers is None and not infer and (form.columns is not None or form.json_layers == 0):
            pipeline, ignored = _as_it_runs(item, shelf), form.ignore
        layers = form.json_layers if layers is None else layers
    else:
        found = shelf.find("datasource", str(source))
        of = read(DataSource, found.document, ("datasource",), found.owner)
    with working(f"reading the newest {samples} messages of {of.topic}"):
        records = sample(of, shelf, item, samples)
    declared = _fields_of(pipeline) if pipeline is not None else None
    depth = 1 if layers is None else layers
    drift = form.on_drift if pipeline is not None else None
    result = preview_samples(
        records, depth, times=times, fields=declared, ignored=ignored, taken=taken, freezes=drift in {"freeze", "fail"}
    )
    shown = _Shown(records, result, declared, _strays(result, declared, ignored) if declared is not None else [])
    if pipeline is not None:
        shown.add_times(pipeline)
    if as_json:
        emit(_json(shown))
    else:
        _show(shown, drift)


@dataclass(slots=True)
class _Shown:
    """What is to be shown: `declared` are a job's fields, `strays` those of the messages that it has no column for,
    `times` are columns of the record's time."""

    records: "pa.Table"
    result: "LakePreview"
    declared: "tuple[LakeField, ...] | None"
    strays: "list[LakeField]"
    times: list[tuple[str, str]] = field(default_factory=list)

    def add_times(self, pipeline: "Pipeline") -> None:
        """Columns that hold the record's time, in the rows, too."""
        rows = self.result.rows
        raw = self.records.take(rows.column("_position")) if rows.num_rows else self.records.slice(0, 0)
        for column, how in pipeline.metadata:
            rows = rows.append_column(column.name, how.read(raw, ()))
            self.times.append((column.name, str(column.type)))
        self.result = replace(self.result, rows=rows)


def _as_it_runs(item: "Item", shelf: "Shelf") -> "Pipeline":
    """The job with the columns that its table has by now."""
    from vector_assets.cli.preview import schema_state
    from vector_assets.declare.lake_job import compile_job
    from vector_assets.engine.evolution import evolved

    pipeline = compile_job(item, shelf)
    return evolved(pipeline, schema_state(pipeline))


def _fields_of(pipeline: "Pipeline") -> "tuple[LakeField, ...]":
    from vector_assets.formats.lake_json import LakeJsonDecoder

    assert isinstance(pipeline.decoder, LakeJsonDecoder)
    return tuple(pipeline.decoder.fields)


def _strays(
    result: "LakePreview", declared: "tuple[LakeField, ...]", ignored: tuple[str, ...]
) -> "list[LakeField]":  # fmt: skip
    """Fields of the messages that neither a column is for nor `ignored` names."""
    from vector_assets.formats.lake_fields import parse_path

    known = [*(each.path for each in declared), *(parse_path(path) for path in ignored)]
    return [
        each
        for each in result.inferred.fields
        if not any(each.path[: len(path)] == path[: len(each.path)] for path in known)
    ]


def _texts(records: "pa.Table", count: int | None = None) -> list[str | None]:
    values = records.column("value").slice(0, count).to_pylist()
    return [None if value is None else value.decode(errors="backslashreplace") for value in values]


def _listed(shown: _Shown, fields: "Iterable[LakeField]") -> list[dict[str, Any]]:
    from vector_assets.formats.lake_fields import WHOLE, path_text

    seen = {each.path: str(each) for each in shown.result.inferred.evidence}
    return [
        {"field": path_text(each.path) or WHOLE, "column": each.name, "type": each.spelled, "seen": seen.get(each.path)}
        for each in fields
    ]


def _columns(shown: _Shown) -> list[dict[str, Any]]:
    fields = shown.result.inferred.fields if shown.declared is None else shown.declared
    times = [{"field": None, "column": name, "type": kind, "seen": "the record's time"} for name, kind in shown.times]
    return [*_listed(shown, fields), *times]


def _rows(result: "LakePreview", count: int | None = None) -> list[dict[str, Any]]:
    return list(result.rows.slice(0, count).to_pylist())


def _json(shown: _Shown) -> dict[str, Any]:
    result = shown.result
    return {
        "samples": _texts(shown.records),
        "columns": _columns(shown),
        "strays": _listed(shown, shown.strays),
        "notes": list(result.inferred.notes),
        "rows": [{name: value for name, value in row.items() if name != "_position"} for row in _rows(result)],
        "rejected": result.rejected.to_pylist(),
    }


_DRIFT = {
    "evolve": "the table gets a column for each",
    "rescue": "they are kept in _rescued",
    "freeze": "a message that has one becomes a dead letter",
    "fail": "a message that has one stops the job",
}


def _show(shown: _Shown, drift: str | None) -> None:
    result = shown.result
    heading(f"sample: the newest of {shown.records.num_rows} messages")
    for text in _texts(shown.records, _SHOWN):
        say(_short(text))
    heading("schema as the job has it" if shown.declared is not None else "schema inferred from the sample")
    show_table(("field", "column", "type", "seen"), [tuple(each.values()) for each in _columns(shown)])
    if shown.strays:
        heading(f"no column is for these: {_DRIFT[drift or 'rescue']}")
        strays = _listed(shown, shown.strays)
        show_table(("field", "type", "seen"), [(each["field"], each["type"], each["seen"]) for each in strays])
    for note in result.inferred.notes if shown.declared is None else ():
        say(f"note: {note}")
    heading("rows")
    names = [name for name in result.rows.column_names if name != "_position"]
    show_table(names, [[_short(row[name]) for name in names] for row in _rows(result, _SHOWN)])
    if result.rejected.num_rows:
        heading("messages that stop the job, and dead letters" if drift == "fail" else "dead letters")
        rejects = result.rejected.slice(0, _SHOWN).to_pylist()
        show_table(("message", "stage", "reason"), [tuple(each.values()) for each in rejects])
    rejects = "rejected" if drift == "fail" else "dead letters"
    say(f"\n{result.rows.num_rows:,} rows, {result.rejected.num_rows:,} {rejects}; nothing was written", "dim")


def _short(value: object) -> str:
    text = "NULL" if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]} ..."
