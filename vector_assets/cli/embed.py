"""`vector-assets embed`: what embedding costs, before and after; no model is asked."""

from typing import Annotated

import typer

from vector_assets.cli.output import (
    JsonOption,
    PipelineArgument,
    command,
    emit,
    say,
    show_pairs,
    show_table,
    working,
)

app = typer.Typer(no_args_is_help=True, help="Tell what embedding costs, before and after.")


@command(
    app,
    "vector-assets embed estimate articles",
    "vector-assets embed estimate articles --records 1000000 --json",
)
def estimate(
    pipeline: PipelineArgument,
    *,
    records: Annotated[
        int, typer.Option(metavar="N", min=1, help="Most records to read; the rest is told in proportion.")
    ] = 100_000,
    as_json: JsonOption = False,
) -> None:
    """Read the records that wait and tell what their texts would cost; no model is asked, nothing is written.

    Texts whose vectors are in the cache cost nothing. Tokens are estimated by what the model counted in texts it was
    sent before, else as one for three bytes.
    """
    from vector_assets.cli.declared import pipelines
    from vector_assets.cli.preview import position_of
    from vector_assets.transforms.embedding_estimate import estimate as estimated

    (found,) = pipelines(pipeline)
    with working("reading what waits"):
        result = estimated(found, position_of(found), records=records)
    if as_json:
        emit({"pipeline": found.name, **result.to_json()})
        return
    no_price = "unknown: option 'price' is not set"
    show_pairs(
        [
            ("records that wait", f"{result.records}, looked at {result.looked_at}"),
            ("different texts", f"{result.texts}, {result.known} of them paid for before"),
            ("to be sent", f"{result.to_send} texts of {result.bytes} bytes in {result.requests} requests or more"),
            ("tokens", f"about {result.tokens}"),
            ("cost", no_price if result.cost is None else f"about {result.cost:.6g}"),
            *([("cost of all", f"about {result.whole_cost:.6g}")] if result.looked_at < result.records else []),
            ("paid today", f"{result.paid_today:.6g}"),
            ("rows without a text that could be sent", result.rejected),
        ]
    )


@command(
    app,
    "vector-assets embed paid",
    "vector-assets embed paid articles --json",
)
def paid(
    pipeline: Annotated[
        str | None, typer.Argument(metavar="PIPELINE", help="One pipeline; all when left out.", show_default=False)
    ] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Show what was sent to models and what it cost, by day (UTC), pipeline and model."""
    from dataclasses import asdict

    from vector_assets.transforms.embedding_cache import EmbeddingCache

    rows = EmbeddingCache([]).paid(pipeline=pipeline)
    if as_json:
        emit({"paid": [asdict(row) for row in rows]})
        return
    if not rows:
        say("nothing was paid")
        return
    columns = ("day", "pipeline", "model", "requests", "texts", "tokens", "cost")
    shown = [[_shown(getattr(row, name)) for name in columns] for row in rows]
    show_table(columns, shown, right=columns[3:])


def _shown(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value
