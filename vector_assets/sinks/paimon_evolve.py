"""A Paimon table's columns follow the pipeline's: added at the end, widened where that loses nothing."""

from typing import TYPE_CHECKING

import pyarrow as pa

from vector_assets.clients.paimon import Storage, translated
from vector_assets.engine.errors import PlanError
from vector_assets.sinks.paimon_plan import fits, paimon_type

if TYPE_CHECKING:
    from pypaimon.schema.schema_change import SchemaChange


def evolve(storage: Storage, schema: pa.Schema, key: tuple[str, ...], partition: tuple[str, ...]) -> tuple[str, ...]:
    """Change the table so that it takes rows of `schema`; one sentence for each change.

    Raises:
        PlanError: a change the table cannot make; nothing was changed.
    """
    from pypaimon.schema.schema_manager import SchemaManager

    changes, told = wanted(storage, schema, key, partition)
    if changes:
        with translated(storage.place):
            SchemaManager(storage.file_io, storage.path).commit_changes(changes)
    return told


def wanted(
    storage: Storage, schema: pa.Schema, key: tuple[str, ...], partition: tuple[str, ...]
) -> "tuple[list[SchemaChange], tuple[str, ...]]":
    """The changes that `evolve` makes, and a sentence for each.

    Raises:
        PlanError: a change the table cannot make.
    """
    from pypaimon.schema.data_types import PyarrowFieldParser
    from pypaimon.schema.schema_change import SchemaChange
    from pypaimon.schema.schema_manager import SchemaManager

    with translated(storage.place):
        found = SchemaManager(storage.file_io, storage.path).latest()
    if found is None:
        raise PlanError(f"{storage.place} does not exist")
    present = {field.name: field.type for field in found.fields}
    changes, made = [], []
    for field in schema:
        if field.name not in present:
            kind = paimon_type(storage.place, field.name, field.type, nullable=True)
            changes.append(SchemaChange.add_column(field.name, kind))
            made.append(f"column {field.name} {kind} was added")
            continue
        before = PyarrowFieldParser.from_paimon_type(present[field.name])
        if fits(field.type, before):
            continue
        if not fits(before, field.type) or field.name in key or field.name in partition:
            what = "a column of the key or of the partition" if field.name in (*key, *partition) else "not wider"
            raise PlanError(
                f"{storage.place}: column {field.name} is {before} there and {field.type} in the pipeline: {what}"
            )
        kind = paimon_type(storage.place, field.name, field.type, nullable=present[field.name].nullable)
        changes.append(SchemaChange.update_column_type(field.name, kind))
        made.append(f"column {field.name} was widened from {present[field.name]} to {kind}")
    return changes, tuple(made)
