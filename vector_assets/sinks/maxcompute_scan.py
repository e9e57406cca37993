"""Rows read back: an ordinary table by snapshots of its partitions, a Delta table by SQL."""

from collections.abc import Iterator

import pyarrow as pa

from vector_assets.clients.maxcompute import MaxColumn, MaxCompute
from vector_assets.clients.maxcompute_read import open_snapshot, read_partition
from vector_assets.engine.core import HIDDEN
from vector_assets.sinks.maxcompute_plan import Plan


def columns_of(plan: Plan) -> list[MaxColumn]:
    """The table's columns that the rows have, in the rows' order."""
    return [plan.table.column(field.name) for field in plan.source]


def as_stored(plan: Plan, rows: pa.Table) -> pa.Table:
    """Rows in the table's types under the rows' names; what the table refuses is left out."""
    kept, refused = plan.rows(rows)
    if refused:
        positions = rows.column("_position").to_numpy()
        keep = pa.array([position not in refused for position in positions.tolist()])
        rows = rows.filter(keep)
    arrays = [kept.column(column.name) for column in columns_of(plan)]
    names = list(plan.source.names)
    hidden = [name for name in rows.column_names if name in HIDDEN]
    return pa.table([*arrays, *(rows.column(name) for name in hidden)], names=[*names, *hidden])


def scan(service: MaxCompute, plan: Plan) -> Iterator[pa.RecordBatch]:
    """Every row of the table, or of the partitions that fixed levels leave, as `as_stored` gives them."""
    columns = columns_of(plan)
    schema = pa.schema(
        [pa.field(name, column.type.arrow) for name, column in zip(plan.source.names, columns, strict=True)]
    )
    if plan.table.is_delta:
        for table in _selected(service, plan, columns):
            yield from pa.Table.from_arrays(
                [table.column(at).cast(field.type) for at, field in enumerate(schema)], schema=schema
            ).to_batches()
        return
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


def _selected(service: MaxCompute, plan: Plan, columns: list[MaxColumn]) -> Iterator[pa.Table]:
    chosen = ", ".join(f"`{column.name}`" for column in columns)
    wheres = [f"`{level.name}` = '{value}'" for level, value in plan.levels if value is not None]
    where = f" WHERE {' AND '.join(wheres)}" if wheres else ""
    statement = f"SELECT {chosen} FROM {plan.table.name}{where};"

    def run() -> pa.Table:
        instance = service.odps.execute_sql(statement)
        with instance.open_reader(tunnel=True, arrow=True) as reader:
            return reader.read_all()

    yield service.ask(run, plan.table.name)
