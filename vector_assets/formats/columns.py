"""The columns of a table that a format fills."""

from vector_assets.engine.errors import ConfigError
from vector_assets.engine.schema import LogicalType, Table


def physical_columns(owner: str, table: Table) -> tuple[tuple[str, LogicalType], ...]:
    """Names and types of the physical columns; `owner` (such as `format json`) starts the messages.

    Raises:
        ConfigError: there is none, or a metadata column is declared; names the column.
    """
    for column in table.columns:
        if column.kind == "metadata":
            raise ConfigError(
                f"{owner}: column {column.name} of table {table.name} is a METADATA column, "
                "which is not supported yet; known: physical and computed columns",
                column.place,
            )
    if not table.physical:
        raise ConfigError(f"{owner}: table {table.name} has no physical column to read into", table.place)
    return tuple((column.name, column.type) for column in table.physical)
