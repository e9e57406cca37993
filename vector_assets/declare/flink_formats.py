"""Formats of a source table: the classes behind `format`, `key.format` and `value.format`, composed to one decoder."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from vector_assets.declare.flink_options import Written, parse
from vector_assets.declare.flink_script import Script, hint
from vector_assets.declare.flink_tables import Declared
from vector_assets.engine import registry
from vector_assets.engine.core import Decoder
from vector_assets.engine.errors import ConfigError, Place
from vector_assets.engine.options import Options
from vector_assets.engine.schema import Column, LogicalType, Table
from vector_assets.formats import FORMATS
from vector_assets.formats.keyed import KeyPart, KeyValueDecoder, KeyValueOptions
from vector_assets.sources.kafka_formats import KeyValueFormats

KEY_OPTION = "key.format"
VALUE_OPTION = "value.format"


@dataclass(frozen=True, slots=True)
class Format:
    """A format as a table names it: by the option `option`, with its own options behind `prefix`."""

    name: str
    option: str
    make: Any
    options: Options
    place: Place

    @property
    def is_changelog(self) -> bool:
        """True when its rows can be updates and deletes."""
        return bool(getattr(self.make, "CHANGELOG", False))

    @property
    def metadata(self) -> Mapping[str, LogicalType]:
        """METADATA keys that the format knows, without the prefix `value.`."""
        known: Mapping[str, LogicalType] = getattr(self.make, "METADATA", {})
        return known

    def decoder(self, table: Table) -> Decoder:
        """A decoder for a table.

        Raises:
            ConfigError: at the column, or at the option that names the format.
        """
        try:
            decoder: Decoder = self.make(self.options, table)
        except ConfigError as error:
            raise ConfigError(error.message, error.place or self.place) from error
        return decoder


def prefixes(script: Script, table: Declared, written: Written) -> tuple[str, ...]:
    """How the options begin that are formats' own.

    Raises:
        ConfigError: at an option that lacks `value.` or `key.` in front.
    """
    found = [(option, written.values[option]) for option in _OPTIONS if option in written.values]
    own = tuple(f"{option.removesuffix('format')}{name}." for option, name in found)
    for option, name in found:
        outer = option.removesuffix("format")
        for other in table.options:
            if outer and other.startswith(f"{name}.") and not other.startswith(own):
                what = f"options of {option!r} = {name!r} begin with '{outer}{name}.'"
                raise script.error(f"option {other!r}: {what}; want '{outer}{other}'", table.options[other].this)
    return own


_OPTIONS = ("format", KEY_OPTION, VALUE_OPTION)


def value_format(script: Script, table: Declared, written: Written) -> Format:
    """The format of the records' values."""
    return _format(script, table, written, VALUE_OPTION if VALUE_OPTION in written.values else "format")


def key_format(script: Script, table: Declared, written: Written) -> Format | None:
    """The format of the records' keys, if they are decoded.

    Raises:
        ConfigError: it is unknown, or one that gives updates and deletes.
    """
    if KEY_OPTION not in written.values:
        return None
    found = _format(script, table, written, KEY_OPTION)
    if found.is_changelog:
        reason = f"format {found.name!r} gives updates and deletes; a key is decoded by a format of inserts"
        raise script.error(f"option {KEY_OPTION!r}: {reason}", table.options[KEY_OPTION].args["value"])
    return found


def _format(script: Script, table: Declared, written: Written, option: str) -> Format:
    name = written.values[option]
    try:
        make = registry.load(FORMATS, "format", name)
    except ConfigError as error:
        raise script.error(error.message, table.options[option].args["value"]) from error
    outer = option.removesuffix("format")
    own = written.only(lambda each: each.startswith(f"{outer}{name}.")).renamed(outer)
    try:
        options = parse(make, own, f"format {name}")
    except ConfigError as error:
        # the class knows its options by the names they have without key. or value.
        message = re.sub(rf"(?<![\w.-])(?={re.escape(name)}\.\w)", outer, error.message)
        raise ConfigError(message, error.place or written.places[option]) from error
    return Format(name, option, make, options, written.places[option])


def shown_options(value: Format, key: Format | None) -> Options:
    """The options of the formats, under the names that the table gives them."""
    if key is None and value.option == "format":
        return value.options
    return KeyValueOptions(value=value.options, key=key.options if key else None)


def decoder_of(
    options: Options, table: Declared, seen: Table, value: Format, key: Format | None, *, is_upsert: bool
) -> Decoder:
    """The decoder of both formats; `seen` is the table without what the source itself fills.

    Raises:
        ConfigError: a column that neither format can fill, or options that name columns wrongly.
    """
    if key is None:
        return value.decoder(seen)
    assert isinstance(options, KeyValueFormats), f"{type(options)} has no options for keys"
    names = _key_names(options, table, key.place)
    held = names if options.value_fields_include == "EXCEPT_KEY" else ()
    prefix = options.key_fields_prefix or ""
    physical = {column.name: column for column in seen.physical}
    inner = {name.removeprefix(prefix): name for name in names}
    key_table = replace(
        seen, columns=tuple(replace(physical[name], name=short) for short, name in inner.items()), primary_key=()
    )
    columns = tuple(_filled(column, is_upsert=is_upsert) for column in seen.columns if column.name not in held)
    value_table = replace(seen, columns=columns, primary_key=() if held else seen.primary_key)
    rows = [column for column in seen.columns if column.kind != "computed"]
    value_names = [column.name for column in columns if column.kind != "computed"]
    part = KeyPart(key.decoder(key_table), inner)
    return KeyValueDecoder(part, value.decoder(value_table), rows, value_names, is_upsert=is_upsert)


def _filled(column: Column, *, is_upsert: bool) -> Column:
    """The column as the value's format sees it: of a delete it may be missing."""
    kind = column.type
    if not is_upsert or kind.nullable:
        return column
    return replace(column, type=LogicalType(kind.name, kind.precision, kind.scale, kind.children, kind.child_names))


def _key_names(options: KeyValueFormats, table: Declared, place: Place) -> tuple[str, ...]:
    """The key's columns, by the table's names.

    Raises:
        ConfigError: a name is no physical column, is given twice, or lacks the prefix.
    """
    given = table.options.get("key.fields")
    names = table.table.primary_key if options.key_from_primary_key else options.key_columns
    option = "PRIMARY KEY" if given is None else "option 'key.fields'"
    prefix = options.key_fields_prefix or ""
    physical = [column.name for column in table.table.physical]
    for name in names:
        reason = None
        if name not in physical:
            reason = f"no physical column {name}{hint(name, physical)}; known: {', '.join(physical)}"
        elif names.count(name) > 1:
            reason = f"column {name} is named twice"
        elif not name.startswith(prefix) or name == prefix:
            reason = f"column {name} does not begin with 'key.fields-prefix' = {prefix!r}, or with nothing more"
        if reason:
            raise ConfigError(f"table {table.name}: {option}: {reason}", place)
    return names
