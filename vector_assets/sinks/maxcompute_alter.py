"""A MaxCompute table whose columns follow the pipeline's, by the ALTER TABLE statements that the service has.

Every change is a statement of its own, and one that is made already is left out, so it may be asked for twice. The
service refuses what it does not do: columns of a Delta table's key and of partitions stay, types get wider or text.
"""

from collections.abc import Sequence

from vector_assets.clients.maxcompute import MaxColumn, MaxCompute, MaxTable
from vector_assets.clients.maxcompute_errors import RefusedError
from vector_assets.clients.maxcompute_types import type_text
from vector_assets.engine.errors import PlanError
from vector_assets.engine.schema import ColumnChange, LogicalType
from vector_assets.engine.widening import holds
from vector_assets.sinks.maxcompute_options import MaxComputeSinkOptions
from vector_assets.sinks.maxcompute_plan import fits

_SIZED = frozenset({"CHAR", "VARCHAR"})


def alter(service: MaxCompute, options: MaxComputeSinkOptions, changes: Sequence[ColumnChange]) -> tuple[str, ...]:
    """Make the changes, one after the other; what was changed, one sentence each.

    Raises:
        PlanError: the service refuses one, or has none like it; those before it are made.
    """
    made = []
    for change in changes:
        table = service.table(options.table_name)
        for action in _actions(table, options, change):
            statement = f"ALTER TABLE {options.full_name} {action};"
            try:
                service.ask(
                    lambda text=statement: service.odps.execute_sql(text, default_schema=options.schema_name),  # type: ignore[misc]
                    options.full_name,
                )
            except RefusedError as error:
                raise PlanError(f"maxcompute: {table.name}: {change}: {error}") from error
            made.append(f"{table.name}: {change}")
    return tuple(dict.fromkeys(made))


def _actions(table: MaxTable, options: MaxComputeSinkOptions, change: ColumnChange) -> list[str]:
    """What is left to be done of a change.

    Raises:
        PlanError: what the service would not do, with its reason.
    """
    found = next((each for each in table.columns if each.name.lower() == change.column.name.lower()), None)
    if change.kind == "add":
        text = f"ADD COLUMNS ({_quoted(change.column.name)} {type_text(change.column.type)})"
        return [text] if found is None else []
    if change.kind == "drop":
        if found is None:
            return []
        _check_free(table, options, change, found)
        return [f"DROP COLUMNS {_quoted(found.name)}"]
    return (_renames if change.kind == "rename" else _types)(table, options, change, found)


def _renames(
    table: MaxTable, options: MaxComputeSinkOptions, change: ColumnChange, found: MaxColumn | None
) -> list[str]:
    old = next((each for each in table.columns if each.name.lower() == (change.old or "").lower()), None)
    if old is None and found is not None:
        return []
    if old is None or (found is not None and found is not old):
        what = "there is no such column" if old is None else "there is a column of that name"
        raise PlanError(f"maxcompute: {table.name}: {change}: {what}")
    if old.name == change.column.name:
        return []
    _check_free(table, options, change, old)
    return [f"CHANGE COLUMN {_quoted(old.name)} RENAME TO {_quoted(change.column.name)}"]


def _types(table: MaxTable, options: MaxComputeSinkOptions, change: ColumnChange, found: MaxColumn | None) -> list[str]:
    if found is None:
        raise PlanError(f"maxcompute: {table.name}: {change}: there is no such column")
    actions = []
    if not found.nullable and change.column.type.nullable:
        _check_key(table, change, found)
        actions.append(f"CHANGE COLUMN {_quoted(found.name)} NULL")
    if not _is_wide(found, change.column.type):
        _check_free(table, options, change, found)
        actions.append(f"CHANGE COLUMN {_quoted(found.name)} {_quoted(found.name)} {type_text(change.column.type)}")
    return actions


def _is_wide(found: MaxColumn, wanted: LogicalType) -> bool:
    """True when the column takes such values already."""
    if found.type.name in _SIZED and wanted.name in _SIZED:
        return holds(found.type, wanted)
    return fits(wanted.arrow, found) or found.text.lower() == type_text(wanted).lower()


def _check_key(table: MaxTable, change: ColumnChange, column: MaxColumn) -> None:
    if column.name.lower() in {name.lower() for name in table.primary_key}:
        raise PlanError(
            f"maxcompute: {table.name}: {change}: it is in the table's primary key, which stays as it was made"
        )


def _check_free(table: MaxTable, options: MaxComputeSinkOptions, change: ColumnChange, column: MaxColumn) -> None:
    _check_key(table, change, column)
    if options.tunnel == "stream":
        raise PlanError(
            f"maxcompute: {table.name}: {change}: the streaming tunnel does not write to a table whose columns were"
            " dropped or changed: leave out useStreamTunnel"
        )


def _quoted(name: str) -> str:
    return f"`{name}`"
