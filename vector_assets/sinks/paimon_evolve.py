"""A Paimon table's columns follow the pipeline's: added at the end, widened, dropped, renamed (by field id)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from vector_assets.clients.paimon import Storage, translated
from vector_assets.engine.errors import PlanError
from vector_assets.engine.schema import ColumnChange
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


def alter(
    storage: Storage, changes: Sequence[ColumnChange], key: tuple[str, ...], partition: tuple[str, ...]
) -> tuple[str, ...]:
    """Make the changes, each a schema of its own; what was changed, one sentence each; what is made is left out.

    Raises:
        PlanError: a change the table cannot make; those before it are made.
    """
    made: list[str] = []
    for change in changes:
        if change.kind in {"add", "type"}:
            schema = pa.schema([pa.field(change.column.name, change.column.type.arrow)])
            made += evolve(storage, schema, key, partition)
        made += _altered(storage, change, key, partition)
    return tuple(made)


def _altered(
    storage: Storage, change: ColumnChange, key: tuple[str, ...], partition: tuple[str, ...]
) -> tuple[str, ...]:
    """A drop, a rename or the end of a NOT NULL, if it is still to be made."""
    from pypaimon.schema.schema_change import SchemaChange
    from pypaimon.schema.schema_manager import SchemaManager

    with translated(storage.place):
        manager = SchemaManager(storage.file_io, storage.path)
        latest = manager.latest()
    fields = {field.name: field for field in (latest.fields if latest is not None else ())}
    name = change.column.name
    if change.kind == "add" or (change.kind == "drop" and name not in fields):
        return ()
    if change.kind == "rename" and change.old not in fields and name in fields:
        return ()
    source = change.old if change.kind == "rename" and change.old else name
    if source not in fields or (change.kind == "rename" and name in fields):
        what = "there is no such column" if source not in fields else "there is a column of that name"
        raise PlanError(f"{storage.place}: {change}: {what}")
    if change.kind == "type":
        if fields[name].type.nullable or not change.column.type.nullable:
            return ()
        update = SchemaChange.update_column_nullability(name, new_nullability=True)
    elif change.kind == "drop":
        update = SchemaChange.drop_column(name)
    else:
        update = SchemaChange.rename_column(source, name)
    if source in (*key, *partition):
        raise PlanError(f"{storage.place}: {change}: it is in the key or the partition, which stay as they were made")
    with translated(storage.place):
        manager.commit_changes([update])
    return (str(change),)
