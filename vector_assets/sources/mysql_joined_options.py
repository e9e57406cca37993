"""Options of a source of several joined tables; written by front ends, not by people."""

import re
from dataclasses import dataclass

from pydantic import ConfigDict

from vector_assets.engine.core import Position
from vector_assets.engine.options import SourceOptions
from vector_assets.engine.schema import Column
from vector_assets.sources.mysql_options import MySqlCdcOptions
from vector_assets.sources.mysql_tokens import Place


@dataclass(frozen=True, slots=True)
class JoinedTable:
    """A table of a join: `keys` are its columns by which it belongs to a row of the driving table, in the order of
    that table's own; `columns` are its columns by the names they get."""

    name: str
    keys: tuple[Column, ...]
    columns: tuple[tuple[str, str], ...]


class MySqlJoinedOptions(SourceOptions):
    """Tables of one database on one server; `reader` says where it is and how it is read.

    The first table drives: its rows are the rows of the join, in which the others' columns may be NULL.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    reader: MySqlCdcOptions
    """Where the server is, and how its tables are read."""
    database: str
    """The database of all tables."""
    tables: tuple[JoinedTable, ...]
    """The tables; the first one drives."""
    key: tuple[str, ...]
    """Columns of the join that are the driving table's key."""

    @property
    def splits(self) -> tuple[str, ...]:
        """A split for each table: `database.table`."""
        return tuple(f"{self.database}.{table.name}" for table in self.tables)

    def of(self, number: int) -> MySqlCdcOptions:
        """How one table's changes are read: of those that do not drive only what comes after the start."""
        changes: dict[str, object] = {
            "database_name": re.escape(self.database),
            "table_name": re.escape(self.tables[number].name),
            "server_id": str(self.reader.replica_id + number),
        }
        if number and self.reader.has_snapshot:
            changes["startup_mode"] = "latest-offset"
        return self.reader.model_copy(update=changes)

    def origin(self) -> tuple[str, ...]:
        """`("mysql", database, "table+table")`."""
        return ("mysql", self.database, "+".join(table.name for table in self.tables))

    def origins(self) -> tuple[tuple[str, ...], ...]:
        """Each table by itself."""
        return tuple(("mysql", self.database, table.name) for table in self.tables)

    def start_option(self) -> str:
        """As the reader has it."""
        return self.reader.start_option()

    def is_finished(self, position: Position) -> bool:
        """True when a snapshot was all that was asked for, and it is done."""
        return Place.of(position.get(self.splits[0])).done

    def reading(self) -> str:
        """The tables: a range says nothing about the rows, which are read when it is."""
        return (
            f"{self.reader.hostname}:{self.reader.port}/{self.database}.{'+'.join(each.name for each in self.tables)}"
        )

    def reports(self) -> tuple[str, ...]:
        """Those of the reader."""
        return self.reader.reports()

    def shown(self) -> dict[str, str]:
        """The reader's, and the join in words."""
        joins = {
            f"join.{table.name}": ", ".join(
                [
                    *(f"{key.name} = {name}" for key, name in zip(table.keys, self.key, strict=True)),
                    *(f"{column} AS {name}" for column, name in table.columns),
                ]
            )
            for table in self.tables
        }
        return self.reader.shown() | {"database-name": self.database} | joins
