"""Tables to connectors: the class behind `connector` and `format`, with its options read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vector_assets.declare.flink_options import Secrets, fill, parse, registry_name
from vector_assets.declare.flink_script import Script
from vector_assets.declare.flink_tables import Declared
from vector_assets.engine import registry
from vector_assets.engine.core import Decoder
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.options import Options, SinkOptions, SourceOptions
from vector_assets.engine.registry import nearest
from vector_assets.formats import FORMATS
from vector_assets.sinks import SINKS
from vector_assets.sources import SOURCES


@dataclass(frozen=True, slots=True)
class SourceEnd:
    """What a source table says: connector, format and their options; `make` is the connector's class."""

    connector: str
    make: Any = field(repr=False)
    options: SourceOptions
    format: str | None
    format_options: Options | None
    decoder: Decoder | None


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
    known = {**SOURCES, **SINKS}
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
    written = fill(script, table, secrets, offline=offline)
    name = written.values.get("format")
    prefix = f"{name}."
    options = parse(make, written.only(lambda option: not option.startswith(prefix)), f"connector {connector}")
    if name is None:
        return SourceEnd(connector, make, options, None, None, None)
    decoder_class = _load(script, FORMATS, "format", name, table, "format")
    format_options = parse(decoder_class, written.only(lambda option: option.startswith(prefix)), f"format {name}")
    try:
        decoder = decoder_class(format_options, table.table)
    except ConfigError as error:
        raise ConfigError(error.message, error.place or written.places["format"]) from error
    return SourceEnd(connector, make, options, name, format_options, decoder)


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
    written = fill(script, table, secrets, offline=offline)
    return SinkEnd(connector, make, parse(make, written, f"connector {connector}"))


def _load(script: Script, known: Mapping[str, str], role: str, name: str, table: Declared, option: str) -> Any:
    try:
        return registry.load(known, role, name)
    except ConfigError as error:
        raise script.error(error.message, table.options[option].args["value"]) from error
