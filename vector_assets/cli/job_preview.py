"""`vector-assets jobs preview`: sample messages, the schema they lead to, and the rows they would be."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vector_assets.cli import yaml_files
from vector_assets.cli.job_form import sample
from vector_assets.cli.output import JsonOption, command, emit, heading, say, show_table, usage, working

if TYPE_CHECKING:
    import pyarrow as pa

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

    Nothing is written: no file, no ledger, no table.
    """
    from vector_assets.declare.lake_form import DataSource, read
    from vector_assets.declare.lake_job import fields_of, read_job
    from vector_assets.formats.lake_json import preview_samples

    if (job is None) == (source is None):
        usage("give a job or --source")
    shelf = yaml_files.shelf()
    item = shelf.find("job", job) if job is not None else None
    declared: tuple[LakeField, ...] | None = None
    if item is not None:
        form, (of, _, _) = read_job(item), shelf.source_of(item)
        is_declared = layers is None and not infer and (form.columns is not None or form.json_layers == 0)
        declared = fields_of(form, item.document) if is_declared else None
        layers = form.json_layers if layers is None else layers
    else:
        found = shelf.find("datasource", str(source))
        of = read(DataSource, found.document, ("datasource",), found.owner)
    with working(f"reading the newest {samples} messages of {of.topic}"):
        records = sample(of, shelf, item, samples)
    depth = 1 if layers is None else layers
    result = preview_samples(records, depth, times=times, fields=declared)
    if as_json:
        emit(_json(records, result, declared))
    else:
        _show(records, result, declared)


def _texts(records: "pa.Table", count: int | None = None) -> list[str | None]:
    values = records.column("value").slice(0, count).to_pylist()
    return [None if value is None else value.decode(errors="backslashreplace") for value in values]


def _fields(result: "LakePreview", declared: "tuple[LakeField, ...] | None") -> list[dict[str, Any]]:
    from vector_assets.formats.lake_fields import WHOLE, path_text

    seen = {each.path: str(each) for each in result.inferred.evidence}
    return [
        {"field": path_text(each.path) or WHOLE, "column": each.name, "type": each.spelled, "seen": seen.get(each.path)}
        for each in (declared or result.inferred.fields)
    ]


def _rows(result: "LakePreview", count: int | None = None) -> list[dict[str, Any]]:
    return list(result.rows.slice(0, count).to_pylist())


def _json(
    records: "pa.Table", result: "LakePreview", declared: "tuple[LakeField, ...] | None"
) -> dict[str, Any]:  # fmt: skip
    return {
        "samples": _texts(records),
        "columns": _fields(result, declared),
        "notes": list(result.inferred.notes),
        "rows": [{name: value for name, value in row.items() if name != "_position"} for row in _rows(result)],
        "rejected": result.rejected.to_pylist(),
    }


def _show(records: "pa.Table", result: "LakePreview", declared: "tuple[LakeField, ...] | None") -> None:
    heading(f"sample: the newest of {records.num_rows} messages")
    for text in _texts(records, _SHOWN):
        say(_short(text))
    heading("schema as the job declares it" if declared else "schema inferred from the sample")
    show_table(("field", "column", "type", "seen"), [tuple(each.values()) for each in _fields(result, declared)])
    for note in result.inferred.notes:
        say(f"note: {note}")
    heading("rows")
    names = [name for name in result.rows.column_names if name != "_position"]
    show_table(names, [[_short(row[name]) for name in names] for row in _rows(result, _SHOWN)])
    if result.rejected.num_rows:
        heading("dead letters")
        rejects = result.rejected.slice(0, _SHOWN).to_pylist()
        show_table(("message", "stage", "reason"), [tuple(each.values()) for each in rejects])
    say(f"\n{result.rows.num_rows:,} rows, {result.rejected.num_rows:,} dead letters; nothing was written", "dim")


def _short(value: object) -> str:
    text = "NULL" if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]} ..."
