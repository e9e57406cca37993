"""A type by itself, spelled as in a column of a CREATE TABLE."""

import re

from vector_assets.declare.flink_script import Script
from vector_assets.declare.flink_tables import declare
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.schema import LogicalType

_WANTED = "want a type of Flink SQL such as STRING, BIGINT, DECIMAL(20, 2)"
_SPELLED = re.compile(r"(?!AS\b)[A-Za-z][\w\s(),<>`]*", re.IGNORECASE)


def type_of(text: str) -> LogicalType:
    """The type that a text spells, such as `DECIMAL(20, 2)` or `ARRAY<ROW<a INT>> NOT NULL`.

    Raises:
        ConfigError: it spells none, or more than one (without a place).
    """
    if not _SPELLED.fullmatch(text.strip()):
        raise ConfigError(f"{_WANTED}; found {text!r}")
    try:
        script = Script(f"CREATE TABLE t (c {text}) WITH ('connector' = 'none')", "")
        (statement,) = script.statements()
        (column,) = declare(script, statement).table.columns
    except ConfigError as error:
        raise ConfigError(f"{_WANTED}: {error.message.removeprefix('column c: ')}") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{_WANTED}; found {text!r}") from None
    if column.kind != "physical" or column.comment is not None:
        raise ConfigError(f"{_WANTED}; found {text!r}")
    return column.type
