"""`vector-assets preview`: what a pipeline would make of some live records; nothing is written."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vector_assets.cli.output import (
    JsonOption,
    PipelineArgument,
    command,
    emit,
    heading,
    say,
    show_pairs,
    show_table,
    warn,
    working,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from vector_assets.engine.core import Json, Position
    from vector_assets.engine.pipeline import Pipeline
    from vector_assets.engine.preview import Preview

_LONGEST = 60
_LATEST_WAIT_SECONDS = 10.0


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(
        app,
        "vector-assets preview car_info                        the next records, from where the pipeline stands",
        "vector-assets preview car_info --from earliest --records 100",
        "vector-assets preview car_info --from 0:1200 --json   from an offset of one partition",
        "vector-assets preview car_info --from latest          what arrives in the next 10 seconds",
    )(preview)


def preview(
    pipeline: PipelineArgument,
    *,
    records: Annotated[int, typer.Option(metavar="K", min=1, max=100_000, help="How many records at most.")] = 10,
    where: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="PLACE",
            help="earliest, latest, or a place in the source's words; where the pipeline stands when left out.",
        ),
    ] = None,
    wait: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", min=0, help="Wait so long for records.", show_default="0; 10 with --from latest"
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Read, decode and transform some live records and show what the target would get.

    Nothing is written: no ledger, no archive, no lease, nothing in the target, so it may run beside the pipeline.
    Records that would become dead letters are listed with the reason.
    """
    from vector_assets.cli.declared import pipelines
    from vector_assets.engine.preview import preview as looked_at

    (found,) = pipelines(pipeline)
    seconds = wait if wait is not None else _LATEST_WAIT_SECONDS if where == "latest" else 0.0
    with working(f"reading {records} records"):
        result = looked_at(
            found, position_of(found), where, records=records, wait_seconds=seconds, state=schema_state(found)
        )
    if as_json:
        emit(_json(found, result))
    else:
        _show(result)
    if result.doubt is not None:
        warn(f"the target was not asked what it would refuse: {result.doubt}")


def position_of(pipeline: "Pipeline") -> "Position | None":
    """Where the pipeline stands, None before its first run; a ledger that is not there is not made."""
    from vector_assets.cli.declared import books, has_ledger

    if not has_ledger():
        return None
    with books() as open_books:
        ledger = open_books.ledger
        is_known = ledger.is_activated(pipeline.name, pipeline.target)
        return ledger.position(pipeline.name, pipeline.target) if is_known else None


def schema_state(pipeline: "Pipeline") -> "tuple[Json, ...]":
    """How the pipeline's columns have changed since they were declared."""
    from vector_assets.cli.declared import books, has_ledger
    from vector_assets.engine.schema_history import latest_state

    if not has_ledger():
        return ()
    with books() as open_books:
        return latest_state(open_books.ledger, pipeline.name, pipeline.target)


def _places(result: "Preview") -> list[tuple[str, int]]:
    """Split and offset of every record."""
    splits = result.raw.column("split").to_numpy().tolist()
    return [
        (result.splits[split], offset)
        for split, offset in zip(splits, result.raw.column("offset").to_numpy().tolist(), strict=True)
    ]


def _rows(rows: "pa.Table | None", places: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
    """Rows as dictionaries, each with its record's place."""
    from vector_assets.engine.core import POSITION

    if rows is None:
        return []
    found: list[dict[str, Any]] = []
    for row in rows.to_pylist():
        split, offset = places[row.pop(POSITION)]
        found.append({"split": split, "offset": offset, "row": row})
    return found


def _rejects(result: "Preview", places: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
    return [
        {"split": each["split"], "offset": each["offset"], **each["row"]} for each in _rows(result.rejected, places)
    ]


def _json(pipeline: "Pipeline", result: "Preview") -> dict[str, Any]:
    places = _places(result)
    counts = result.counts
    return {
        "pipeline": pipeline.name,
        "target": pipeline.target,
        "counts": {
            "records": counts.records, "decoded": counts.decoded, "rejected": counts.rejected,
            "filtered": counts.filtered, "compacted": counts.compacted, "refused": counts.refused,
            "nulled": counts.nulled, "handed_over": counts.written,
        },
        "rows": _rows(result.rows, places),
        "deletes": _rows(result.deletes, places),
        "rejected": _rejects(result, places),
        "doubt": result.doubt,
    }  # fmt: skip


def _show(result: "Preview") -> None:
    from vector_assets.cli.survey import short

    places = _places(result)
    counts = result.counts
    if not counts.records:
        say("no records there now (--from earliest looks at the oldest, --wait waits for new ones)")
        return
    for name, rows in (("rows", _rows(result.rows, places)), ("deletes", _rows(result.deletes, places))):
        if rows:
            heading(f"{name} the target would get")
            columns = list(rows[0]["row"])
            cells = [
                (f"{short(each['split'])}:{each['offset']}", *(_cell(each["row"][column]) for column in columns))
                for each in rows
            ]
            show_table(("record", *columns), cells)
    rejected = _rejects(result, places)
    if rejected:
        heading("dead letters")
        lines = [(f"{short(each['split'])}:{each['offset']}", each["stage"], each["error"]) for each in rejected]
        show_table(("record", "stage", "reason"), lines)
    heading("counts")
    show_pairs(
        [
            ("records", counts.records),
            ("rejected", counts.rejected + counts.refused),
            ("left out by WHERE", counts.filtered),
            ("replaced by a later change of their key", counts.compacted),
            ("handed to the target", counts.written),
        ]
    )
    say("nothing was written", "dim")


def _cell(value: object) -> str:
    """A value as a table shows it."""
    text = "NULL" if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]} ..."
