"""The table that takes a pipeline's rows: CREATE TABLE, a Delta table where changes are written by key."""

import pyarrow as pa

from vector_assets.clients.maxcompute import NESTED_PROPERTY, MaxCompute
from vector_assets.clients.maxcompute_errors import NoTableError
from vector_assets.clients.maxcompute_hash import HASHABLE
from vector_assets.clients.maxcompute_types import type_text
from vector_assets.clients.maxcompute_write import add_partition
from vector_assets.engine.core import Target
from vector_assets.engine.errors import PlanError
from vector_assets.engine.schema import Column, Table
from vector_assets.sinks.maxcompute_options import MaxComputeSinkOptions, levels_of

_NESTED = frozenset({"ARRAY", "MAP", "ROW"})


def create(
    service: MaxCompute, options: MaxComputeSinkOptions, schema: pa.Schema, declared_key: tuple[str, ...],
    declared: Table | None,
) -> tuple[str, ...]:  # fmt: skip
    """Make what is missing; what was made or was there, one sentence each.

    Raises:
        PlanError: there is no declared table, or its columns do not make a table.
    """
    levels = levels_of(options.partition) if options.partition else {}
    try:
        table = service.table(options.table_name)
        made = [f"{options.full_name} is there already"]
    except NoTableError:
        statement = create_statement(options, schema, declared_key, declared)

        def run() -> None:
            if options.makes_table and options.schema_name:
                service.odps.execute_sql(f"CREATE SCHEMA IF NOT EXISTS {options.project}.{options.schema_name};")
            service.odps.execute_sql(statement, default_schema=options.schema_name)

        service.ask(run, options.full_name)
        table = service.table(options.table_name)
        made = [f"{options.full_name} was made: {'Delta table' if table.is_delta else 'table'}"]
    if levels and all(levels.values()):
        spec = "/".join(f"{name}={value}" for name, value in levels.items())
        add_partition(service, table, spec)
        made.append(f"partition {spec} is there")
    return tuple(made)


def unmade(
    options: MaxComputeSinkOptions, schema: pa.Schema, declared_key: tuple[str, ...], declared: Table | None
) -> Target:
    """What the table would be that `create` would make; nothing is asked.

    Raises:
        PlanError: see `create`.
    """
    statement = create_statement(options, schema, declared_key, declared)
    columns = {column.name: type_text(column.type).lower() for column in declared.columns} if declared else {}
    key = declared_key if options.is_upsert else ()
    note = f"{options.full_name} will be made: {statement}"
    return Target(options.target(), key, columns, "not made yet", "effectively-once", (note,))


def create_statement(
    options: MaxComputeSinkOptions, schema: pa.Schema, declared_key: tuple[str, ...], declared: Table | None
) -> str:
    """The CREATE TABLE of the declared columns.

    Raises:
        PlanError: see `create`.
    """
    place = f"maxcompute: {options.full_name}"
    if declared is None:
        raise PlanError(f"{place}: no table is declared, whose columns a new one could have")
    levels = list(levels_of(options.partition)) if options.partition else []
    named = {level.lower() for level in levels}
    key = [name for name in (declared_key or declared.primary_key) if name.lower() not in named]
    if options.is_upsert and not key:
        raise PlanError(f"{place}: a Delta table wants a key: declare PRIMARY KEY (...) NOT ENFORCED")
    chosen = [c for c in declared.columns if c.name.lower() not in named and c.name in schema.names]
    if not chosen:
        raise PlanError(f"{place}: no column is left beside the partition's ({', '.join(levels)})")
    own_key = key if options.is_upsert else []
    columns = [_column(place, column, is_key=column.name in own_key) for column in chosen]
    has_nested = any(column.type.name in _NESTED for column in chosen)
    properties: dict[str, str] = {}
    if options.is_upsert:
        columns.append(f"PRIMARY KEY ({', '.join(f'`{name}`' for name in key)})")
        properties |= {"transactional": "true", "write.bucket.num": str(options.bucket_num)}
    if has_nested:
        properties[NESTED_PROPERTY] = "true"
    parts = [f"CREATE TABLE IF NOT EXISTS {options.full_name} ({', '.join(columns)})"]
    if levels:
        parts.append(f"PARTITIONED BY ({', '.join(f'`{level}` STRING' for level in levels)})")
    if properties:
        listed = ", ".join(f"'{name}'='{value}'" for name, value in properties.items())
        parts.append(f"TBLPROPERTIES ({listed})")
    return " ".join(parts) + ";"


def _column(place: str, column: Column, *, is_key: bool) -> str:
    if is_key and column.type.name not in HASHABLE:
        raise PlanError(
            f"{place}: key column {column.name} is {column.type}; keys may be: {', '.join(sorted(HASHABLE))}"
        )
    return f"`{column.name}` {type_text(column.type)}{' NOT NULL' if is_key or not column.type.nullable else ''}"
