"""Lookup joins of a compiled SELECT to transforms, one for each JOIN, and what a pipeline says of them."""

from functools import partial

import pyarrow as pa

from vector_assets.declare.flink_connectors import LookupEnd, SourceEnd, lookup_end
from vector_assets.declare.flink_joins import TranslatedJoin
from vector_assets.declare.flink_options import Secrets
from vector_assets.declare.flink_script import Script
from vector_assets.declare.flink_select import Selection
from vector_assets.declare.flink_tables import Declared
from vector_assets.engine.core import Transform
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.pipeline import Lookup
from vector_assets.engine.schema import Table
from vector_assets.transforms.lookup import LookupPlan, LookupTransform
from vector_assets.transforms.lookup_cache import LookupCache


def lookup_stages(
    script: Script, selection: Selection, secrets: Secrets, reader: SourceEnd, *, offline: bool
) -> tuple[tuple[Lookup, ...], tuple[Transform, ...]]:
    """What the pipeline looks up, and the transforms that do; a table that is joined twice is loaded once.

    Raises:
        ConfigError: at the option of a dimension table that is wrong.
    """
    ends: dict[str, LookupEnd] = {}
    caches: dict[str, LookupCache] = {}
    lookups: list[Lookup] = []
    transforms: list[Transform] = []
    for number, join in enumerate(selection.lookups):
        table, scope = join.join.table, join.scope
        if table.name not in ends:
            end = lookup_end(script, table, secrets, offline=offline)
            ends[table.name] = end
            caches[table.name] = LookupCache(
                end.options.shown_name(), partial(end.make, end.options, table.table), _loaded_schema(table.table),
                table.table.primary_key, end.options.policy(),
            )  # fmt: skip
        end = ends[table.name]
        is_left = join.join.clause.is_left
        lookups.append(Lookup(table.table, scope.alias, end.connector, end.options, is_left, scope.names))
        plan = _plan(selection, number, join, replaces=reader.is_upsert)
        transforms.append(LookupTransform(plan, table.name, caches[table.name]))
    return tuple(lookups), tuple(transforms)


def check_deletes(source: Declared, sink: Declared, selection: Selection) -> None:
    """Make sure that a delete of the source finds its row whatever the dimension table says by then.

    Raises:
        ConfigError: at the sink table: it has no key, or its key is made of a dimension table's columns.
    """
    gives = f"table {sink.name}: table {source.name} gives updates and deletes, which look nothing up"
    if not sink.table.primary_key:
        raise ConfigError(f"{gives}: the sink table wants a PRIMARY KEY made of columns of {source.name}", sink.place)
    columns = {column.name for column in source.table.columns}
    for column in sink.table.primary_key:
        if other := sorted(selection.reads.get(column, frozenset()) - columns):
            raise ConfigError(f"{gives}: key column {column} is made of {', '.join(other)}", sink.place)


def _loaded_schema(table: Table) -> pa.Schema:
    """The declared columns; a key column may be null in the table, and then belongs to no key."""
    return pa.schema([pa.field(column.name, column.type.arrow) for column in table.columns])


def _plan(selection: Selection, number: int, join: TranslatedJoin, *, replaces: bool) -> LookupPlan:
    """What one join does: it hands on what anything behind it reads."""
    behind = [set(each.scope.names.values()) for each in selection.lookups[number:]]
    added = [(name, shown) for name, shown in join.scope.names.items() if shown in selection.used]
    return LookupPlan(
        keys=join.keys,
        carried=tuple(sorted(selection.used - set().union(*behind))),
        added=tuple(added),
        residual=join.residual,
        is_left=join.join.clause.is_left,
        replaces=replaces,
    )
