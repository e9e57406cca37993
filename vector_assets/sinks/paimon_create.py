"""What must hold before a Paimon table is made, or one that is there is written."""

from typing import TYPE_CHECKING

from vector_assets.clients.paimon import Storage
from vector_assets.engine.errors import PlanError
from vector_assets.engine.schema import Table
from vector_assets.sinks.paimon_options import PaimonOptions
from vector_assets.sinks.paimon_plan import MADE_BY, partition_of

if TYPE_CHECKING:
    from pypaimon.table.file_store_table import FileStoreTable


def check_database(storage: Storage) -> None:
    """The folder above the table must be there: a database is never made by itself.

    Raises:
        PlanError: it is not.
    """
    database = storage.parent()
    if not database.exists():
        raise PlanError(
            f"paimon:{storage.path}: the directory {database.path} does not exist; the database must exist before"
            " a table is written (`vector-assets target create` checks a CREATE EXTERNAL DATABASE)"
        )


def check_existing(
    table: "FileStoreTable", options: PaimonOptions, declared: Table | None, pipeline: str, *, has_batches: bool
) -> None:
    """Make sure that the table may be written by this pipeline and is partitioned as it says.

    Raises:
        PlanError: `on_existing` is `fail` and the table is another's, or its partitions are others.
    """
    is_ours = has_batches or table.table_schema.options.get(MADE_BY) == pipeline
    if options.on_existing == "fail" and not is_ours:
        raise PlanError(
            f"{options.target()} exists already and pipeline {pipeline} did not make it: choose another name, or set"
            " 'on_existing' = 'adopt' to write it when it fits"
        )
    wanted, found = partition_of(options, declared), tuple(table.partition_keys)
    if wanted and wanted != found:
        raise PlanError(
            f"{options.target()} is partitioned by {', '.join(found) or 'nothing'}, the declaration wants"
            f" {', '.join(wanted)}"
        )
