"""Tables to connectors: the class behind `connector` and `format`, with its options read."""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from vector_assets.declare import flink_formats as formats
from vector_assets.declare.flink_options import Secrets, Written, fill, parse, registry_name
from vector_assets.declare.flink_script import Script
from vector_assets.declare.flink_tables import Declared
from vector_assets.engine import registry
from vector_assets.engine.core import RAW_SCHEMA, Decoder
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.lookup import LookupOptions
from vector_assets.engine.metadata import Keys, Metadata, is_castable
from vector_assets.engine.options import OptionError, Options, SinkOptions, SourceOptions
from vector_assets.engine.registry import nearest
from vector_assets.engine.schema import Column, LogicalType, Table
from vector_assets.engine.typed import TypedDecoder, typed_schema
from vector_assets.lookups import LOOKUPS
from vector_assets.sinks import SINKS
from vector_assets.sources import SOURCES


@dataclass(frozen=True, slots=True)
class SourceEnd:
    """What a source table says: connector, format and their options; `make` is the connector's class.

    A source class with `TYPED = True` reads rows, so it has no format; one with `METADATA` fills METADATA columns; one
    with `UPSERT = True` gives upserts and deletes by the PRIMARY KEY, where a delete may hold nothing but the key; one
    with `PRUNES = True` takes `conditions` and reads no column that is not asked for.
    `is_changelog`: rows can be updates and deletes.
    """

    connector: str
    make: Any = field(repr=False)
    options: SourceOptions
    format: str | None
    format_options: Options | None
    decoder: Decoder
    raw_schema: pa.Schema
    metadata: tuple[tuple[Column, Metadata], ...]
    is_changelog: bool = False
    is_upsert: bool = False


@dataclass(frozen=True, slots=True)
class SinkEnd:
    """What a sink table says; `make` is the connector's class."""

    connector: str
    make: Any = field(repr=False)
    options: SinkOptions


def connector_of(table: Declared) -> str:
    """The connector's name in the registries."""
    return registry_name(table.options["connector"].args["value"].name)


def check_connector(script: Script, table: Declared) -> None:
    """Refuse a table without a connector, or with an unknown one.

    Raises:
        ConfigError: at the option, or at the table's name.
    """
    if "connector" not in table.options:
        raise ConfigError(f"table {table.name}: option 'connector' is required", table.place)
    known = {**SOURCES, **SINKS, **LOOKUPS}
    name = connector_of(table)
    if name not in known:
        listed = ", ".join(sorted(known))
        where = table.options["connector"].args["value"]
        raise script.error(f"unknown connector {name!r}{nearest(name, known)}; known: {listed}", where)


def source_end(script: Script, table: Declared, secrets: Secrets, *, offline: bool) -> SourceEnd:
    """The source of a table; its decoder is made, no connection is opened.

    Raises:
        ConfigError: at the option that is wrong.
    """
    connector = connector_of(table)
    make = _load(script, SOURCES, "source connector", connector, table, "connector")
    _check_partitions(make, connector, table)
    written = fill(script, table, secrets, offline=offline)
    own = formats.prefixes(script, table, written)
    options = parse(make, written.only(lambda option: not option.startswith(own)), f"connector {connector}")
    _check(make, options, table.table, written)
    if getattr(make, "TYPED", False):
        metadata = _metadata(table, getattr(make, "METADATA", {}), {})
        is_changelog = bool(getattr(make, "CHANGELOG", False))
        raw_schema = typed_schema(table.table, has_kinds=is_changelog)
        decoder: Decoder = TypedDecoder(table.table)
        return SourceEnd(connector, make, options, None, None, decoder, raw_schema, metadata, is_changelog)
    is_upsert = bool(getattr(make, "UPSERT", False))
    if is_upsert and not table.table.primary_key:
        reason = "wants a PRIMARY KEY: it says which columns are in the records' keys, and what a record replaces"
        raise ConfigError(f"table {table.name}: connector {connector} {reason}", table.place)
    value = formats.value_format(script, table, written)
    key = formats.key_format(script, table, written)
    metadata = _metadata(table, getattr(make, "METADATA", {}), value.metadata)
    seen = _decoded(table.table, metadata)
    return SourceEnd(
        connector=connector,
        make=make,
        options=options,
        format=value.name,
        format_options=formats.shown_options(value, key),
        decoder=formats.decoder_of(options, table, seen, value, key, is_upsert=is_upsert),
        raw_schema=RAW_SCHEMA,
        metadata=metadata,
        is_changelog=is_upsert or value.is_changelog,
        is_upsert=is_upsert,
    )


def pruned(end: SourceEnd, table: Table, named: Container[str]) -> tuple[SourceEnd, Table]:
    """The same end, and the table as it reads it: without the physical columns that no query names.

    Only sources with `PRUNES = True` can leave columns out; one column stays, so that rows are counted.
    """
    if not getattr(end.make, "PRUNES", False):
        return end, table
    left = tuple(column for column in table.columns if column.kind != "physical" or column.name in named)
    if not any(column.kind == "physical" for column in left):
        left = (*left, *table.physical[:1])
    narrow = replace(table, columns=left)
    return replace(end, decoder=TypedDecoder(narrow), raw_schema=typed_schema(narrow)), narrow


def _check(make: Any, options: Options, table: Table, written: Written) -> None:
    """Ask the connector whether its options fit the table, if it has a `check`.

    Raises:
        ConfigError: at the option.
    """
    try:
        getattr(make, "check", lambda *_: None)(options, table)
    except OptionError as error:
        place = written.places.get(error.option) or written.places["connector"]
        raise ConfigError(f"table {table.name}: {error.message}", place) from error


VALUE_PREFIX = "value."
"""Flink's prefix of a METADATA key that the value's format knows, beside those of the connector itself."""


def _metadata(table: Declared, source: Keys, format_: Mapping[str, LogicalType]) -> tuple[tuple[Column, Metadata], ...]:
    """The METADATA columns that the source fills; those of the format are only checked.

    Raises:
        ConfigError: at a column whose key neither knows, or whose type the key's values cannot have.
    """
    found = []
    known = [*source, *(VALUE_PREFIX + key for key in format_)]
    for column in table.table.columns:
        if column.kind != "metadata":
            continue
        name = column.metadata_key or column.name
        if name in source:
            _check_type(table, column, source[name].type)
            found.append((column, source[name]))
        elif name.startswith(VALUE_PREFIX) and name in known:
            _check_type(table, column, format_[name.removeprefix(VALUE_PREFIX)])
        else:
            what = f"table {table.name}: column {column.name}: unknown METADATA key {name!r}{nearest(name, known)}"
            raise ConfigError(f"{what}; known: {', '.join(known) or 'none'}", column.place)
    return tuple(found)


def _check_type(table: Declared, column: Column, found: LogicalType) -> None:
    if not is_castable(found, column.type):
        what = f"table {table.name}: column {column.name} is {column.type}"
        raise ConfigError(f"{what}; METADATA key {column.metadata_key!r} is {found}", column.place)


def _decoded(table: Table, attached: tuple[tuple[Column, Metadata], ...]) -> Table:
    """The table as its format sees it: without what the source fills; the format's own keys without their prefix."""
    names = {column.name for column, _ in attached}
    columns = (column for column in table.columns if column.name not in names)
    return replace(
        table,
        columns=tuple(
            replace(column, metadata_key=(column.metadata_key or column.name).removeprefix(VALUE_PREFIX))
            if column.kind == "metadata"
            else column
            for column in columns
        ),
    )


def sink_end(script: Script, table: Declared, secrets: Secrets, *, offline: bool) -> SinkEnd:
    """The sink of a table; no connection is opened.

    Raises:
        ConfigError: at the option that is wrong, or at a column that no record could fill.
    """
    for column in table.table.columns:
        if column.kind != "physical":
            what = f"column {column.name} is {column.kind}; a sink table has physical columns only"
            raise ConfigError(f"table {table.name}: {what}", column.place)
    connector = connector_of(table)
    make = _load(script, SINKS, "sink connector", connector, table, "connector")
    _check_partitions(make, connector, table)
    written = fill(script, table, secrets, offline=offline)
    return SinkEnd(connector, make, parse(make, written, f"connector {connector}"))


def _check_partitions(make: Any, connector: str, table: Declared) -> None:
    """PARTITIONED BY is for connectors that partition tables."""
    if table.table.partitioned_by and not getattr(make, "PARTITIONED", False):
        raise ConfigError(
            f"table {table.name}: connector {connector} knows no partitions: leave out PARTITIONED BY", table.place
        )


@dataclass(frozen=True, slots=True)
class LookupEnd:
    """What a dimension table says; `make` is the connector's class."""

    connector: str
    make: Any = field(repr=False)
    options: LookupOptions


def lookup_end(script: Script, table: Declared, secrets: Secrets, *, offline: bool) -> LookupEnd:
    """The dimension table of a lookup join; no connection is opened.

    Raises:
        ConfigError: at the option that is wrong, or at a column that is none of the table's own.
    """
    for column in table.table.columns:
        if column.kind != "physical":
            what = f"column {column.name} is {column.kind}; a dimension table has physical columns only"
            raise ConfigError(f"table {table.name}: {what}", column.place)
    connector = connector_of(table)
    make = _load(script, LOOKUPS, "lookup connector", connector, table, "connector")
    written = fill(script, table, secrets, offline=offline)
    options = parse(make, written, f"connector {connector} as a dimension table")
    _check(make, options, table.table, written)
    return LookupEnd(connector, make, options)


def _load(script: Script, known: Mapping[str, str], role: str, name: str, table: Declared, option: str) -> Any:
    try:
        return registry.load(known, role, name)
    except ConfigError as error:
        raise script.error(error.message, table.options[option].args["value"]) from error
