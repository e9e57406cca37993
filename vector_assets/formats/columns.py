"""The columns of a table that a format fills."""

from vector_assets.engine.errors import ConfigError
from vector_assets.engine.schema import LogicalType, Table


def physical_columns(owner: str, table: Table) -> tuple[tuple[str, LogicalType], ...]:
    """Names and types of the physical columns; `owner` (such as `format json`) starts the messages.

    The front end keeps back the METADATA columns that the source fills and refuses those that nobody knows; one that
    comes here was meant for a format that has METADATA keys of its own.

    Raises:
        ConfigError: there is none, or a METADATA column was handed over; names the column.
    """
    for column in table.columns:
        if column.kind == "metadata":
            found = f"{owner}: column {column.name} of table {table.name} is a METADATA column"
            raise ConfigError(f"{found}; known METADATA keys of this format: none", column.place)
    if not table.physical:
        raise ConfigError(f"{owner}: table {table.name} has no physical column to read into", table.place)
    return tuple((column.name, column.type) for column in table.physical)
