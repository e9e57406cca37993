"""`vector-assets search`: the rows of a pipeline's target nearest to a vector, and how good its index is."""

import json
import math
import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
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
    usage,
    working,
)
from vector_assets.engine.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

    from vector_assets.engine.abilities import Sampling, Searchable, SearchQuery, SearchResult
    from vector_assets.engine.pipeline import Pipeline

_SHOWN_NUMBERS = 4
_TIE = 1e-6
"""Distances this much apart, relatively, are one: floating point adds up in another order in an index."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(
        app,
        "vector-assets search car_info --vector '[0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1.0]' --k 5",
        "vector-assets search car_info --vector-file query.json --where \"color = 'red' and price < 20000\"",
        "vector-assets search car_info --vector '[...]' --explain      which index answered, and its plan",
        "vector-assets search car_info --check --k 10                  recall of the index, over 100 of its own rows",
    )(search)


def search(
    pipeline: PipelineArgument,
    *,
    vector: Annotated[
        str | None, typer.Option(metavar="NUMBERS", help="The vector to look for: [0.1,0.2] or {0.1,0.2}.")
    ] = None,
    vector_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A file with the vector, for long ones.")
    ] = None,
    text: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Instead of a vector, where the target has a model (OpenSearch).")
    ] = None,
    hybrid: Annotated[bool, typer.Option("--hybrid", help="With --text: by its words, too.")] = False,
    k: Annotated[int, typer.Option("--k", "-k", metavar="K", min=1, help="How many rows.")] = 10,
    where: Annotated[
        str | None, typer.Option(metavar="CONDITION", help="Only rows that meet it, in the target's own language.")
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The distance (l2, ip, cosine, ...); that of the index by default."),
    ] = None,
    column: Annotated[
        str | None, typer.Option(metavar="NAME", help="The vector column, where the target has several.")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compare with every row instead of asking an index.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Show the target's plan of the query, too.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Measure the index against exact search, with vectors of the target's rows.")
    ] = False,
    samples: Annotated[int, typer.Option(metavar="N", min=1, help="How many vectors --check takes.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """Show the rows of a pipeline's target that are nearest to a vector.

    Nothing is changed: the query runs read-only, with a time limit. --where is one expression of the target's language
    (SQL for AnalyticDB and PostgreSQL).

    --check takes vectors that are in the target, asks for the K nearest of each by the index and exactly, and reports
    recall: how many of the exact ones the index finds.
    """
    from vector_assets.engine.abilities import SearchQuery

    given = _vector(vector, vector_file)
    if text is not None and given is not None:
        usage("--text is instead of a vector: leave one out")
    if hybrid and text is None:
        usage("--hybrid goes with --text")
    if given is None and text is None and not check:
        usage("give --vector, --vector-file or --text (or --check)")
    if exact and check:
        usage("--check compares the index with exact search: leave out --exact")
    found = _pipeline(pipeline)
    query = SearchQuery(given or (), k, where, column, metric, exact, text, hybrid)
    with closing(found.open_sink()) as sink:
        result = seconds = recall = None
        if given is not None or text is not None:
            began = time.monotonic()
            result = _searchable(sink, found, by_text=text is not None).search(query, explain=explain)
            seconds = time.monotonic() - began
        if check:
            recall = _recall(_sampling(sink, found), query, samples)
    if as_json:
        emit({"pipeline": pipeline, "target": found.target, "k": k, **_json(result, seconds), "recall": recall})
        return
    if result is not None:
        _show(result, seconds or 0.0)
    if recall is not None:
        _show_recall(recall, k)


def _vector(text: str | None, file: Path | None) -> tuple[float, ...] | None:
    """The numbers that are given.

    Raises:
        ConfigError: they are no list of finite numbers.
    """
    if text is not None and file is not None:
        usage("--vector and --vector-file both give a vector: leave one out")
    place = "--vector"
    if file is not None:
        place = str(file)
        try:
            text = file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file}: cannot be read: {error}") from error
    if text is None:
        return None
    body = text.strip()
    if body.startswith("{") and body.endswith("}"):
        body = f"[{body[1:-1]}]"
    try:
        numbers = json.loads(body)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{place}: want [0.1,0.2,...] or {{0.1,0.2,...}}: {error}") from None
    is_list = isinstance(numbers, list) and bool(numbers)
    if not is_list or not all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
        raise ConfigError(f"{place}: want a list of numbers, [0.1,0.2,...] or {{0.1,0.2,...}}")
    if not all(math.isfinite(n) for n in numbers):
        raise ConfigError(f"{place}: the vector holds NaN or infinity")
    return tuple(float(n) for n in numbers)


def _pipeline(name: str) -> "Pipeline":
    from vector_assets.cli.declared import pipelines

    (found,) = pipelines(name)
    return found


def _searchable(sink: object, pipeline: "Pipeline", *, by_text: bool) -> "Searchable":
    from vector_assets.engine.abilities import Searchable, TextSearchable

    if by_text and not isinstance(sink, TextSearchable):
        raise ConfigError(f"{pipeline.name}: a sink {pipeline.sink_connector} has no search by text: give --vector")

    if not isinstance(sink, Searchable):
        raise ConfigError(f"{pipeline.name}: a sink {pipeline.sink_connector} cannot be searched by vector")
    return sink


def _sampling(sink: object, pipeline: "Pipeline") -> "Sampling":
    from vector_assets.engine.abilities import Sampling

    if not isinstance(sink, Sampling):
        raise ConfigError(
            f"{pipeline.name}: a sink {pipeline.sink_connector} gives no sample of its vectors for --check"
        )
    return sink


def _recall(sink: "Sampling", query: "SearchQuery", samples: int) -> dict[str, Any]:
    """Recall over a sample: the share of rows no farther than the exact K-th that the index found.

    Raises:
        ConfigError: the target has no vectors.
    """
    vectors = sink.sample(samples, column=query.column)
    if not vectors:
        raise ConfigError("--check: the target has no rows with a vector to take a sample of")
    recalls: list[float] = []
    seconds: dict[bool, list[float]] = {False: [], True: []}
    how = ""
    with working("--check") as progress:
        for number, vector in enumerate(vectors, start=1):
            if number % 10 == 1:
                progress(f"{number} of {len(vectors)} vectors")
            distances = {}
            for is_exact in (False, True):
                began = time.monotonic()
                result = sink.search(replace(query, vector=vector, exact=is_exact))
                seconds[is_exact].append(time.monotonic() - began)
                distances[is_exact] = _distances(result.rows)
                how = how if is_exact else result.how
            recalls.append(_share(distances[False], distances[True]))
    return {
        "samples": len(vectors),
        "mean": round(statistics.fmean(recalls), 4),
        "least": round(min(recalls), 4),
        "how": how,
        "index_ms": round(1000 * statistics.median(seconds[False]), 3),
        "exact_ms": round(1000 * statistics.median(seconds[True]), 3),
    }


def _distances(rows: "pa.Table") -> list[float]:
    from vector_assets.engine.abilities import DISTANCE

    values: list[float] = rows.column(DISTANCE).to_numpy().tolist()
    return values


def _share(found: Sequence[float], exact: Sequence[float]) -> float:
    """How much of the exact answer was found; rows at the same distance as the last one count, whichever they are."""
    if not exact:
        return 1.0
    farthest = exact[-1] + _TIE * max(abs(exact[-1]), 1.0)
    return min(sum(distance <= farthest for distance in found), len(exact)) / len(exact)


def _json(result: "SearchResult | None", seconds: float | None) -> dict[str, Any]:
    if result is None:
        return {"rows": None}
    return {
        "rows": [{name: _finite(value) for name, value in row.items()} for row in result.rows.to_pylist()],
        "how": result.how,
        "seconds": round(seconds or 0.0, 6),
        "plan": result.plan,
    }


def _finite(value: object) -> object:
    """The value as JSON has it, which knows neither NaN nor infinity."""
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _show(result: "SearchResult", seconds: float) -> None:
    from vector_assets.engine.abilities import DISTANCE

    names = [DISTANCE, *(name for name in result.rows.column_names if name != DISTANCE)]
    rows = [[_cell(row[name]) for name in names] for row in result.rows.to_pylist()]
    show_table(["distance", *names[1:]], rows, right=("distance",))
    say(f"\n{len(rows)} rows in {1000 * seconds:.1f} ms; {result.how}")
    if result.plan is not None:
        heading("plan")
        say(result.plan)


def _cell(value: object) -> str:
    """A value as a table shows it: a vector by its first numbers."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list) and len(value) > _SHOWN_NUMBERS:
        first = ", ".join(_cell(item) for item in value[:_SHOWN_NUMBERS])
        return f"[{first}, ... {len(value)}]"
    if isinstance(value, list):
        return f"[{', '.join(map(_cell, value))}]"
    return "" if value is None else str(value)


def _show_recall(recall: dict[str, Any], k: int) -> None:
    heading("recall")
    show_pairs(
        [
            (f"recall@{k}", f"{recall['mean']:.2%} on average, {recall['least']:.2%} at the least"),
            ("vectors asked", recall["samples"]),
            ("index", recall["how"]),
            ("median time", f"{recall['index_ms']:g} ms, exact search {recall['exact_ms']:g} ms"),
        ]
    )
