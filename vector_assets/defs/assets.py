"""Pipelines as assets: one partitioned asset per target, one external asset per origin."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import dagster as dg

from vector_assets.declare.autoetl_asked import Asked
from vector_assets.defs import events, failures, names, runs
from vector_assets.engine.abilities import partitioned
from vector_assets.engine.hours import Calendar
from vector_assets.engine.pipeline import Lookup, Pipeline
from vector_assets.engine.rewrite import Selection, rewrite
from vector_assets.engine.run import Outcome, Runner
from vector_assets.engine.schema import Table

_SPEAKS = {"adbpg": "postgres"}
"""Connectors whose icon in the UI is that of the protocol they speak."""


class RunConfig(dg.Config):
    """How a run treats its partition.

    `drain` lands what is new up to now; `replay` applies again what the target lost of the partition's batches; `auto`
    drains a partition that is open and replays one that is over (of a source with partitions of its own: it replays,
    then reads what was never read); `rewrite` makes the partition's batches again with today's declaration and replaces
    their rows.
    """

    mode: Literal["auto", "drain", "replay", "rewrite"] = "auto"


def of(pipeline: Pipeline) -> dg.AssetsDefinition:
    """The asset of a pipeline's target."""

    # one partition a run, which is Dagster's default: the result of a run over several partitions would be booked for
    # each of them, batches or not, and without a result nothing downstream would run
    @dg.asset(
        key=names.asset_key(pipeline),
        deps=list(dict.fromkeys((*names.origin_keys(pipeline), *map(names.lookup_key, pipeline.lookups)))),
        description=description(pipeline),
        group_name=names.group(pipeline.sink_connector),
        kinds=kinds(pipeline),
        owners=names.owners(pipeline),
        metadata=metadata(pipeline),
        code_version=pipeline.fingerprint,
        partitions_def=partitions(pipeline),
        pool=names.pool(pipeline),
        output_required=False,
    )
    def body(context: dg.AssetExecutionContext, config: RunConfig) -> Iterator[events.Event]:
        with failures.told(pipeline), runs.opened(pipeline, context.run.run_id) as runner:
            asked = Asked(runner.session)
            with asked.told():
                asked.begin()
                outcomes = runs.taken(runner, _outcomes(runner, config.mode, context.partition_key))
                yield from events.of_partition(runner, outcomes, context.partition_key)

    return body


def _outcomes(runner: Runner, mode: str, partition: str) -> Iterator[Outcome]:
    if mode == "rewrite":
        return rewrite(runner, Selection(partition, partition))
    is_own = runner.session.partitioning.own is not None
    if is_own and mode == "auto":
        return runner.settle(partition)
    is_drain = mode == "drain" or (mode == "auto" and runner.session.calendar.is_open(partition))
    return runner.drain(partition) if is_drain else runner.replay(partition)


def partitions(pipeline: Pipeline) -> dg.PartitionsDefinition[str]:
    """The pipeline's hours or days, the open one included, or the partitions of its source, which its sensor adds.

    Keys are spelled as the engine spells them.
    """
    if partitioned(pipeline.source_options):
        return dg.DynamicPartitionsDefinition(name=names.partitions(pipeline))
    settings = pipeline.settings
    start = datetime.strptime(settings.partitions_start, "%Y-%m-%d-%H:%M").replace(tzinfo=UTC)
    fmt = Calendar(settings.partitions).format
    if settings.partitions == "daily":
        return dg.DailyPartitionsDefinition(start_date=start, end_offset=1, timezone="UTC", fmt=fmt)
    return dg.HourlyPartitionsDefinition(start_date=start, end_offset=1, timezone="UTC", fmt=fmt)


def description(pipeline: Pipeline) -> str:
    """The comments of the declaration, then what it reads and writes."""
    origin = "/".join(pipeline.source_options.origin())
    told = [pipeline.description, f"Reads `{origin}`, writes `{pipeline.target}`; declared in `{pipeline.place}`."]
    return "\n\n".join([part for part in told if part] + [f"Note: {report}" for report in pipeline.reports])


def kinds(pipeline: Pipeline) -> set[str]:
    """At most three, which is what Dagster shows."""
    sink = pipeline.sink_connector
    return {names.system(pipeline.source_connector), sink, *([_SPEAKS[sink]] if sink in _SPEAKS else [])}


def metadata(pipeline: Pipeline) -> dict[str, Any]:
    """Where it is declared, what it writes, and its options without secrets."""
    known: dict[str, Any] = {
        "dagster/column_schema": column_schema(pipeline.sink_table),
        "dagster/column_lineage": column_lineage(pipeline),
        "dagster/table_name": pipeline.target.rpartition("/")[2],
        "target": pipeline.target,
        "source options": dg.MetadataValue.json(pipeline.source_options.shown()),
        "sink options": dg.MetadataValue.json(pipeline.sink_options.shown()),
        "settings": dg.MetadataValue.json(pipeline.settings.shown()),
        "pool": names.pool(pipeline),
    }
    if pipeline.allotment is not None:
        has = pipeline.allotment
        known |= {"resource group": has.group, "units": has.units, "memory": f"{has.memory_bytes // 1024**2} MB"}
    if pipeline.format_options is not None:
        known["format options"] = dg.MetadataValue.json(pipeline.format_options.shown())
    return known | _code_reference(pipeline)


def _code_reference(pipeline: Pipeline) -> dict[str, Any]:
    place = pipeline.place
    file = Path(place.file).absolute()
    with warnings.catch_warnings():
        # public, but still marked as beta in 1.13
        warnings.simplefilter("ignore", dg.BetaWarning)
        reference = dg.LocalFileCodeReference(file_path=str(file), line_number=place.line, label=file.name)
        return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[reference])}


def column_lineage(pipeline: Pipeline) -> dg.TableColumnLineage:
    """Which columns of what is read each column of the target is made of."""
    origins = names.origin_keys(pipeline)
    looked_up = {
        shown: dg.TableColumnDep(names.lookup_key(each), name)
        for each in pipeline.lookups
        for name, shown in each.names.items()
    }
    return dg.TableColumnLineage(
        deps_by_column={
            column: [dg.TableColumnDep(origin, each) for origin in origins for each in sorted(reads - set(looked_up))]
            + [looked_up[each] for each in sorted(reads) if each in looked_up]
            for column, reads in pipeline.reads.items()
        }
    )


def column_schema(table: Table) -> dg.TableSchema:
    """The columns in the declaration's own types, with their comments; the declared key is named."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=column.name,
                type=str(column.type).removesuffix(" NOT NULL"),
                description=column.comment,
                constraints=dg.TableColumnConstraints(
                    nullable=column.type.nullable and column.name not in table.primary_key,
                    unique=table.primary_key == (column.name,),
                    other=["PRIMARY KEY"] if column.name in table.primary_key else None,
                ),
            )
            for column in table.columns
        ]
    )


def origins(pipelines: Sequence[Pipeline]) -> list[dg.AssetSpec]:
    """An external asset for each origin, however many pipelines read it."""
    readers: dict[dg.AssetKey, list[Pipeline]] = {}
    for pipeline in pipelines:
        for key in names.origin_keys(pipeline):
            readers.setdefault(key, []).append(pipeline)
    looking = {names.lookup_key(each): each for pipeline in pipelines for each in pipeline.lookups}
    return [
        *(_origin(key, reading) for key, reading in readers.items()),
        *(_dimension(key, lookup) for key, lookup in looking.items() if key not in readers),
    ]


def _dimension(key: dg.AssetKey, lookup: Lookup) -> dg.AssetSpec:
    """A table that rows are looked up in and nobody reads as a source."""
    return dg.AssetSpec(
        key,
        description="A dimension table: rows are looked up in it.",
        kinds={names.system(lookup.connector)},
        group_name=names.group(names.system(lookup.connector)),
        metadata={"dagster/column_schema": column_schema(lookup.table)},
    )


def _origin(key: dg.AssetKey, reading: Sequence[Pipeline]) -> dg.AssetSpec:
    first = reading[0]
    by_pipeline = {pipeline.name: pipeline.source_options.shown() for pipeline in reading}
    same = {name: text for name, text in by_pipeline[first.name].items() if _is_common(name, text, by_pipeline)}
    return dg.AssetSpec(
        key,
        description=f"Read by {', '.join(sorted(by_pipeline))}.",
        kinds={names.system(first.source_connector)},
        group_name=names.group(names.system(first.source_connector)),
        metadata={
            "dagster/column_schema": _read_columns(reading),
            **same,
            "read by": dg.MetadataValue.json(sorted(by_pipeline)),
        },
    )


def _read_columns(reading: Sequence[Pipeline]) -> dg.TableSchema:
    """The columns that the readers declare, each as the first of them does."""
    columns: dict[str, dg.TableColumn] = {}
    for pipeline in reading:
        for column in column_schema(pipeline.source_table).columns:
            columns.setdefault(column.name, column)
    return dg.TableSchema(columns=list(columns.values()))


def _is_common(name: str, text: str, by_pipeline: Mapping[str, Mapping[str, str]]) -> bool:
    return all(options.get(name) == text for options in by_pipeline.values())
