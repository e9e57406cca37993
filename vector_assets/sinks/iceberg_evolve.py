"""A table that takes more columns, or wider ones, and loses or renames some: by field id, so old files stay right."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from vector_assets.engine.errors import PlanError
from vector_assets.engine.schema import ColumnChange
from vector_assets.sinks.iceberg_types import arrow_schema, iceberg_type, is_vector, is_vector_text, misfit

if TYPE_CHECKING:
    from pyiceberg.table import Table
    from pyiceberg.table.update.schema import UpdateSchema

Path = tuple[str, ...]


def evolve(table: "Table", schema: pa.Schema, place: str) -> tuple[str, ...]:
    """Add columns and fields that the table lacks (nullable, at the end), widen those that got wider.

    What was changed, one sentence each; a second call changes nothing.

    Raises:
        PlanError: a type got narrower or another; nothing was changed.
    """
    from vector_assets.clients.iceberg_transaction import SingleAttempt

    changes = _found(table, schema, place)
    if not changes:
        return ()
    transaction = SingleAttempt(table)
    with transaction.update_schema() as update:
        for path, kind, is_new in changes:
            _apply(update, path, kind, is_new=is_new)
    transaction.commit_transaction()
    return _told(changes)


def would_evolve(table: "Table", schema: pa.Schema, place: str) -> tuple[str, ...]:
    """What `evolve` would change, in its words, and its error; nothing is changed."""
    return _told(_found(table, schema, place))


def _found(table: "Table", schema: pa.Schema, place: str) -> list[tuple[Path, pa.DataType, bool]]:
    return list(_changes((), pa.struct(schema), pa.struct(arrow_schema(table.schema())), place))


def _told(changes: list[tuple[Path, pa.DataType, bool]]) -> tuple[str, ...]:
    return tuple(
        f"column {'.'.join(path)} {'added as' if is_new else 'widened to'} {kind}" for path, kind, is_new in changes
    )


def alter(table: "Table", changes: Sequence[ColumnChange], place: str) -> tuple[str, ...]:
    """Make the changes, each a commit of its own; what was changed, one sentence each; what is made is left out.

    Raises:
        PlanError: Iceberg has no such change, or the column is in the key or the partition; those before are made.
    """
    made: list[str] = []
    for change in changes:
        field = pa.field(change.column.name, change.column.type.arrow)
        if change.kind in {"add", "type"}:
            made += evolve(table, pa.schema([field]), place)
        if _is_left(table, change, place) and _committed(table, change):
            made.append(f"{change}")
    return tuple(made)


def _is_left(table: "Table", change: ColumnChange, place: str) -> bool:
    """True of a drop, a rename or a NOT NULL that is still to be made.

    Raises:
        PlanError: it cannot be.
    """
    if change.kind == "add":
        return False
    fields = {field.name: field for field in table.schema().fields}
    found = fields.get(change.old or "") if change.kind == "rename" else fields.get(change.column.name)
    if change.kind == "type":
        return bool(found is not None and found.required and change.column.type.nullable)
    if found is None and (change.kind == "drop" or change.column.name in fields):
        return False
    taken = change.kind == "rename" and change.column.name in fields
    if found is None or taken:
        what = "there is no such column" if found is None else "there is a column of that name"
        raise PlanError(f"{place}: {change}: {what}")
    used = {*table.schema().identifier_field_ids, *(part.source_id for part in table.spec().fields)}
    if change.kind == "drop" and found.field_id in used:
        raise PlanError(f"{place}: {change}: it is in the key or the partition, which stay as they were made")
    return True


def _committed(table: "Table", change: ColumnChange) -> bool:
    from vector_assets.clients.iceberg_transaction import SingleAttempt

    transaction = SingleAttempt(table)
    with transaction.update_schema() as update:
        if change.kind == "drop":
            update.delete_column(change.column.name)
        elif change.kind == "rename":
            update.rename_column(change.old or "", change.column.name)
        else:
            update.make_column_optional(change.column.name)
    transaction.commit_transaction()
    return True


def _apply(update: "UpdateSchema", path: Path, kind: pa.DataType, *, is_new: bool) -> None:
    new = iceberg_type(kind, iter(range(1, 1 << 30)))
    if is_new:
        update.add_column(path, new, required=False)
    else:
        update.update_column(path, field_type=new)


def _changes(
    path: Path, source: pa.DataType, target: pa.DataType, place: str
) -> Iterator[tuple[Path, pa.DataType, bool]]:
    known = {field.name: field for field in target}
    for field in source:
        here = (*path, field.name)
        if field.name not in known:
            try:
                iceberg_type(field.type, iter(range(1, 1 << 30)))
            except ValueError as error:
                raise PlanError(f"{place}: column {'.'.join(here)}: {error}") from error
            yield here, field.type, True
            continue
        yield from _of_known(here, field.type, known[field.name].type, place)


def _of_known(
    path: Path, source: pa.DataType, target: pa.DataType, place: str
) -> Iterator[tuple[Path, pa.DataType, bool]]:
    if pa.types.is_struct(source) and pa.types.is_struct(target):
        yield from _changes(path, source, target, place)
        return
    reason = misfit(source, target)
    if reason is None or is_vector_text(source, target) or is_vector(source, target):
        return
    if misfit(target, source) is None and _is_promotion(target, source):
        yield path, source, False
        return
    raise PlanError(f"{place}: column {'.'.join(path)} {reason}: a table's column can be widened only")


def _is_promotion(old: pa.DataType, new: pa.DataType) -> bool:
    """What Iceberg widens in place: int to long, float to double, decimals of the same scale."""
    if pa.types.is_integer(old):
        return bool(new.bit_width > old.bit_width)
    if pa.types.is_floating(old):
        return bool(pa.types.is_float64(new))
    return bool(pa.types.is_decimal128(old) and new.scale == old.scale)
