"""A table made from what the pipeline sends, and the check of one that is there."""

from typing import TYPE_CHECKING

import pyarrow as pa

from vector_assets.engine.errors import PlanError
from vector_assets.sinks.iceberg_options import IcebergOptions
from vector_assets.sinks.iceberg_partition import PartitionField, parse_partition, spec_of
from vector_assets.sinks.iceberg_tokens import HEAD, MADE_BY
from vector_assets.sinks.iceberg_types import is_vector, is_vector_text, schema_of

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

_MERGED_MANIFESTS = "20"


def find_table(catalog: "Catalog", options: IcebergOptions) -> "Table | None":
    """The table, if there is one."""
    from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

    try:
        return catalog.load_table(options.identifier)
    except (NoSuchTableError, NoSuchNamespaceError):
        return None


def create_table(
    catalog: "Catalog", options: IcebergOptions, schema: pa.Schema, key: tuple[str, ...],
    partition: tuple[PartitionField, ...], pipeline: str,
) -> "Table":  # fmt: skip
    """Make database and table where they are missing; the table of whoever was faster is taken.

    Raises:
        PlanError: a column, the key or a partition is not possible in Iceberg.
    """
    from pyiceberg.exceptions import NamespaceAlreadyExistsError, TableAlreadyExistsError
    from sqlalchemy.exc import IntegrityError

    _check_before(options, schema, key)
    try:
        made = schema_of(_as_made(schema, options), key)
        spec = spec_of(partition, made)
    except ValueError as error:
        raise PlanError(f"iceberg: {options.full_name}: {error}") from error
    # looked up first: whoever may not make one may still write into it
    if not catalog.namespace_exists(options.identifier[:-1]):
        try:
            catalog.create_namespace(options.identifier[:-1])
        except (NamespaceAlreadyExistsError, IntegrityError):
            # somebody was faster; an SQL catalog says so by its own key only
            if not catalog.namespace_exists(options.identifier[:-1]):
                raise
    try:
        return catalog.create_table(
            options.identifier, made, location=options.location, partition_spec=spec,
            properties=_properties(options, pipeline),
        )  # fmt: skip
    except TableAlreadyExistsError:
        return catalog.load_table(options.identifier)


def _check_before(options: IcebergOptions, schema: pa.Schema, key: tuple[str, ...]) -> None:
    """What would be refused of the table, had it been made."""
    if options.upserts and not key:
        raise PlanError(f"iceberg: {options.full_name}: 'write.upsert.enabled' = 'true' needs a PRIMARY KEY")
    for name in options.declared_dimensions:
        found = schema.field(name).type if name in schema.names else None
        floats = pa.list_(pa.float32())
        if found is None or not (is_vector_text(found, floats) or is_vector(found, floats)):
            what = "no such column" if found is None else f"which is {found}: no vector"
            raise PlanError(f"iceberg: {options.full_name}: option 'vector.dimensions' names {name}: {what}")


def _as_made(schema: pa.Schema, options: IcebergOptions) -> pa.Schema:
    """A column of texts that the options call a vector becomes a list of floats."""
    vectors = options.declared_dimensions
    floats = pa.list_(pa.float32())
    return pa.schema(
        [
            pa.field(field.name, floats, field.nullable)
            if field.name in vectors and is_vector_text(field.type, floats)
            else field
            for field in schema
        ]
    )


def partition_of(options: IcebergOptions, declared: tuple[str, ...]) -> tuple[PartitionField, ...]:
    """The partition fields of a new table: the option's, else the columns of PARTITIONED BY."""
    if options.partition is not None:
        return parse_partition(options.partition)
    return tuple(PartitionField("identity", column) for column in declared)


def add_batch_column(table: "Table", column: str, place: str) -> None:
    """Give a table the column for the batch's number, if it lacks it.

    Raises:
        PlanError: it has one of that name and another type.
    """
    from vector_assets.sinks.iceberg_evolve import evolve

    evolve(table, pa.schema([pa.field(column, pa.int64())]), place)


def _properties(options: IcebergOptions, pipeline: str) -> dict[str, str]:
    leveled = {"zstd", "gzip", "brotli"}
    level = {"write.parquet.compression-level": str(options.codec_level)} if options.codec in leveled else {}
    return {
        "format-version": options.format_version,
        "write.format.default": options.write_format,
        "write.target-file-size-bytes": str(options.target_file_bytes),
        "write.parquet.compression-codec": options.codec,
        **level,
        "write.parquet.dict-size-bytes": str(options.dictionary_bytes),
        "write.upsert.enabled": str(options.upserts).lower(),
        "write.metadata.delete-after-commit.enabled": "true",
        "write.metadata.previous-versions-max": str(options.metadata_kept),
        "commit.manifest-merge.enabled": "true",
        "commit.manifest.min-count-to-merge": _MERGED_MANIFESTS,
        MADE_BY: pipeline,
    }


def check_existing(
    table: "Table", options: IcebergOptions, partition: tuple[PartitionField, ...], pipeline: str
) -> None:
    """Make sure that the table may be written by this pipeline and is partitioned as it says.

    Raises:
        PlanError: `on_existing` is `fail` and the table is another's, or its partitions are others.
    """
    is_ours = table.properties.get(MADE_BY) == pipeline or HEAD + pipeline in table.properties
    if options.on_existing == "fail" and not is_ours:
        raise PlanError(
            f"iceberg: table {options.full_name} exists already and pipeline {pipeline} did not make it: choose another"
            " name, or set 'on_existing' = 'adopt' to write it when it fits"
        )
    if table.metadata.format_version not in (1, 2):
        raise PlanError(
            f"iceberg: table {options.full_name} has format version {table.metadata.format_version}; want 1 or 2"
        )
    if not partition:
        return
    schema = table.schema()
    found = [f"{field.transform}({schema.find_column_name(field.source_id)})" for field in table.spec().fields]
    wanted = [f"{field.transformation()}({field.column})" for field in partition]
    if found != wanted:
        raise PlanError(
            f"iceberg: table {options.full_name} is partitioned by {', '.join(found) or 'nothing'}, the declaration"
            f" wants {', '.join(wanted)}"
        )
