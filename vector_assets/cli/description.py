"""What a pipeline is and would do, as one JSON document: what `plan` prints."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import sqlglot
from sqlglot import exp

from vector_assets.cli.survey import Answer
from vector_assets.engine.abilities import Evolvable, partitioned
from vector_assets.engine.core import Position, Target
from vector_assets.engine.errors import TransientError
from vector_assets.engine.evolution import without
from vector_assets.engine.hours import Calendar
from vector_assets.engine.options import Options
from vector_assets.engine.pipeline import Pipeline
from vector_assets.engine.retry import RetryPolicy, call
from vector_assets.engine.schema import Table

_PATIENCE = RetryPolicy(retries=0, outage_seconds=2.0)


def describe(pipeline: Pipeline) -> dict[str, Any]:
    """The pipeline as declared; nothing is contacted."""
    settings = pipeline.settings
    return {
        "name": pipeline.name,
        "file": pipeline.place.file,
        "line": pipeline.place.line,
        "description": pipeline.description,
        "assets": {"key": [pipeline.name], "reads": list(pipeline.source_options.origin())},
        "partitions": _partitions(pipeline),
        "source": {
            "connector": pipeline.source_connector,
            "table": pipeline.source_table.name,
            "columns": _columns(pipeline.source_table),
            "options": _shown(pipeline.source_options),
            "format": pipeline.format,
            "format_options": _shown(pipeline.format_options),
        },
        "lookups": [
            {
                "connector": each.connector,
                "table": each.table.name,
                "alias": each.alias,
                "kind": "LEFT" if each.is_left else "INNER",
                "key": list(each.table.primary_key),
                "columns": _columns(each.table),
                "options": _shown(each.options),
            }
            for each in pipeline.lookups
        ],
        "transform": pipeline.transform_text,
        "columns": _columns_through(pipeline, {}),
        "sink": {
            "connector": pipeline.sink_connector,
            "table": pipeline.sink_table.name,
            "target": pipeline.target,
            "key": list(pipeline.sink_table.primary_key),
            "columns": _columns(pipeline.sink_table),
            "options": _shown(pipeline.sink_options),
        },
        "settings": _shown(settings),
        "embedding": _shown(pipeline.embedding),
        "reports": list(pipeline.reports),
        "notes": list(pipeline.notes),
        "fingerprint": pipeline.fingerprint,
        "online": None,
    }


def _partitions(pipeline: Pipeline) -> dict[str, str | None]:
    """What a batch belongs to; `length` is `source` where that is a partition of the source."""
    settings = pipeline.settings
    if partitioned(pipeline.source_options):
        return {"length": "source", "start": pipeline.source_options.start_option(), "open": None}
    start = settings.partitions_start
    return {"length": settings.partitions, "start": start, "open": Calendar(settings.partitions).now()}


def describe_online(
    pipeline: Pipeline, answer: Answer, position: Position | None, fresh: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """The pipeline with what its target and its source say; nothing is changed. `fresh` are columns that the target
    will get, or that will be wider.

    Raises:
        PlanError: rows and target do not fit.
        TransientError: the target does not answer; a source that does not is only noted.
        VectorAssetsError: the source refuses the pipeline.
    """
    target = _inspect(pipeline, fresh)
    if answer.cause is not None and not isinstance(answer.cause, TransientError):
        raise answer.cause
    return describe(pipeline) | {
        "columns": _columns_through(pipeline, target.columns if target else {}),
        "online": {"target": _target(target) if target else None, "source": _source(answer, position)},
    }


def _columns_through(pipeline: Pipeline, target_types: Mapping[str, str]) -> list[dict[str, str | None]]:
    """Each column of the sink: what it is made of, and its type on the way."""
    types = {column.name: str(column.type) for column in pipeline.source_table.columns}
    for each in pipeline.lookups:
        types |= {each.names[column.name]: str(column.type) for column in each.table.columns}
    query = sqlglot.parse_one(pipeline.transform_text, read="duckdb")
    made_of = {item.alias_or_name: item.unalias() for item in query.expressions}
    rows: list[dict[str, str | None]] = []
    for column in pipeline.sink_table.columns:
        item = made_of.get(column.name)
        bare = item
        while isinstance(bare, exp.Cast | exp.Paren):
            bare = bare.this
        source = bare.name if isinstance(bare, exp.Column) and bare.name in types else None
        rows.append(
            {
                "name": column.name,
                "from": source,
                "expression": item.sql(dialect="duckdb") if item is not None else None,
                "source_type": types.get(source) if source else None,
                "type": str(column.type),
                "target_type": target_types.get(column.name),
            }
        )
    return rows


def _columns(table: Table) -> list[dict[str, Any]]:
    return [
        {
            "name": column.name,
            "type": str(column.type),
            "kind": column.kind,
            "expression": column.expression,
            "metadata_key": column.metadata_key,
            "comment": column.comment,
        }
        for column in table.columns
    ]


def _shown(options: Options | None) -> dict[str, str]:
    shown = options.shown() if options is not None else {}
    return {name: shown[name] for name in sorted(shown)}


def _target(target: Target) -> dict[str, Any]:
    return {
        "name": target.name,
        "key": list(target.key),
        "incarnation": target.incarnation,
        "guarantee": target.guarantee,
        "notes": list(target.notes),
    }


def _source(answer: Answer, position: Position | None) -> dict[str, Any]:
    return {
        "position": dict(position) if position is not None else None,
        "start": dict(answer.start) if answer.start is not None else None,
        "frontier": dict(answer.frontier) if answer.frontier is not None else None,
        "lag": answer.lag,
        "error": answer.error,
    }


def _inspect(pipeline: Pipeline, fresh: frozenset[str]) -> Target | None:
    """What the target says; None when its sink cannot tell without writing."""
    sink = pipeline.open_sink()
    settled = without(pipeline.schema, fresh)
    try:
        target = call(
            _PATIENCE,
            lambda: sink.inspect(settled, pipeline.sink_table.primary_key),
            place=f"{pipeline.name}: looking at {pipeline.target}",
        )
        if fresh and isinstance(sink, Evolvable):
            call(_PATIENCE, lambda: sink.would_evolve(pipeline.schema), place=f"{pipeline.name}: asking the table")
    finally:
        sink.close()
    if target is None or not fresh:
        return target
    note = f"columns that the table will get, or wider: {', '.join(sorted(fresh))}"
    return replace(target, notes=(*(each for each in target.notes if "stay null" not in each), note))
