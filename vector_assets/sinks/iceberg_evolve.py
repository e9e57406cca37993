"""A table that takes more columns, or wider ones."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from vector_assets.engine.errors import PlanError
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
