"""Rows read back: an ordinary table by snapshots of its partitions, a Delta table by SQL."""

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.clients.maxcompute import MaxColumn, MaxCompute
from vector_assets.clients.maxcompute_read import open_snapshot, read_partition
from vector_assets.engine.core import HIDDEN, POSITION
from vector_assets.sinks.maxcompute_plan import Plan

_AT_ONCE = 1000
"""Most values of an IN; with more keys the table is read as a whole."""


def columns_of(plan: Plan) -> list[MaxColumn]:
    """The table's columns that the rows have, in the rows' order."""
    return [plan.table.column(field.name) for field in plan.source]


def as_stored(plan: Plan, rows: pa.Table) -> pa.Table:
    """Rows in the table's types under the rows' names; what the table refuses is left out."""
    kept, refused = plan.rows(rows)
    rows = _without(rows, refused)
    arrays = [kept.column(column.name) for column in columns_of(plan)]
    names = list(plan.source.names)
    hidden = [name for name in rows.column_names if name in HIDDEN]
    return pa.table([*arrays, *(rows.column(name) for name in hidden)], names=[*names, *hidden])


def as_stored_keys(plan: Plan, keys: pa.Table) -> pa.Table:
    """Key columns in the table's types, with `_position`; keys that the table refuses are left out."""
    kept, refused = plan.keys(keys)
    names = list(plan.identity)
    arrays = [kept.column(plan.table.column(name).name) for name in names]
    return pa.table([*arrays, _without(keys, refused).column(POSITION)], names=[*names, POSITION])


def _without(rows: pa.Table, refused: Mapping[int, str]) -> pa.Table:
    if not refused:
        return rows
    return rows.filter(pc.invert(pc.is_in(rows.column(POSITION), value_set=pa.array(list(refused), pa.int64()))))


def rows_of(service: MaxCompute, plan: Plan, keys: pa.Table) -> pa.Table:
    """The rows of a Delta table that have one of these keys, as `as_stored` gives them."""
    names, columns = list(plan.identity), columns_of(plan)
    wanted = as_stored_keys(plan, keys).select(names).group_by(names).aggregate([])
    found = _typed(_selected(service, plan, columns, _condition(plan, wanted)), plan, columns)
    numbered = found.select(names).append_column("_row", pa.array(range(found.num_rows), pa.int64()))
    return found.take(numbered.join(wanted, names, join_type="left semi").column("_row"))


def _condition(plan: Plan, wanted: pa.Table) -> str:
    """What leaves out most of the other rows: values of one column of the key that can be written in any SQL."""
    for name in wanted.column_names if 0 < wanted.num_rows <= _AT_ONCE else ():
        values = wanted.column(name)
        column = plan.table.column(name).name
        texts = np.asarray(pc.unique(values).cast(pa.string()))
        if pa.types.is_integer(values.type):
            return f"`{column}` IN ({', '.join(texts)})"
        is_plain = pa.types.is_string(values.type) and not np.asarray(pc.match_substring_regex(values, r"['\\]")).any()
        if is_plain:
            return "`{}` IN ('{}')".format(column, "', '".join(texts))
    return ""


def scan(service: MaxCompute, plan: Plan) -> Iterator[pa.RecordBatch]:
    """Every row of the table, or of the partitions that fixed levels leave, as `as_stored` gives them."""
    columns = columns_of(plan)
    if plan.table.is_delta:
        yield from _typed(_selected(service, plan, columns), plan, columns).to_batches()
        return
    schema = _schema(plan, columns)
    fixed = {level.name: value for level, value in plan.levels if value is not None}
    specs: list[str | None] = [None]
    if plan.table.is_partitioned:
        specs = [
            part.spec
            for part in service.partitions(plan.table)
            if fixed.items() <= dict(each.split("=", 1) for each in part.spec.split("/")).items()
        ]
    snapshots = [open_snapshot(service, plan.table, spec) for spec in specs]
    names = [column.name for column in columns]
    for snapshot in snapshots:
        for batch in read_partition(service, plan.table, snapshot.spec, names, snapshot=snapshot):
            yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)


def _schema(plan: Plan, columns: list[MaxColumn]) -> pa.Schema:
    return pa.schema(
        [pa.field(name, column.type.arrow) for name, column in zip(plan.source.names, columns, strict=True)]
    )


def _typed(found: pa.Table, plan: Plan, columns: list[MaxColumn]) -> pa.Table:
    """Rows of a SELECT in the table's types.

    pyodps takes the scale 0 of a DECIMAL for none and reads its digits with scale 18 (odps/tunnel/io/types.py): the
    digits are right, so the same bytes are looked at with the table's type.
    """
    schema = _schema(plan, columns)
    arrays = []
    for given, field in zip(found.columns, schema, strict=True):
        is_decimal = pa.types.is_decimal(field.type) and given.type != field.type
        arrays.append(
            pa.chunked_array([chunk.view(field.type) for chunk in given.chunks], field.type)
            if is_decimal
            else given.cast(field.type)
        )
    return pa.Table.from_arrays(arrays, schema=schema)


def _selected(service: MaxCompute, plan: Plan, columns: list[MaxColumn], condition: str = "") -> pa.Table:
    chosen = ", ".join(f"`{column.name}`" for column in columns)
    wheres = [f"`{level.name}` = '{value}'" for level, value in plan.levels if value is not None]
    wheres += [condition] if condition else []
    where = f" WHERE {' AND '.join(wheres)}" if wheres else ""
    statement = f"SELECT {chosen} FROM {plan.table.name}{where};"

    def run() -> pa.Table:
        instance = service.odps.execute_sql(statement)
        with instance.open_reader(tunnel=True, arrow=True) as reader:
            return reader.read_all()

    return service.ask(run, plan.table.name)
