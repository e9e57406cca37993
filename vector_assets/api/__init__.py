"""The tables of a Flink SQL script from Python: a source's Arrow batches, and tables written to a sink.

Neither ledger nor lease is touched: whoever reads keeps the position, and of what is written the target keeps a name.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from vector_assets.api.read import ReadBatch, TableSource
from vector_assets.api.write import TableSink, Written
from vector_assets.declare.flink_single import TableScript, load_tables
from vector_assets.engine import env

__all__ = ["ReadBatch", "Script", "TableSink", "TableSource", "Written", "load", "loads"]


def load(path: str | Path, *, secrets: Mapping[str, str] | None = None) -> "Script":
    """The tables of a `*.sql` file. `secrets` holds values of `${secret_values.x}`; others come from the environment.

    Raises:
        ConfigError: the file cannot be read, or at the statement that is wrong.
    """
    return Script(load_tables(Path(path), _known(secrets or {})))


def loads(text: str, name: str = "script.sql", *, secrets: Mapping[str, str] | None = None) -> "Script":
    """The tables of a script; `name` is what messages call it.

    Raises:
        ConfigError: at the statement that is wrong.
    """
    return Script(TableScript(text, name, _known(secrets or {})))


def _known(secrets: Mapping[str, str]) -> Callable[[str], str]:
    return lambda name: secrets[name] if name in secrets else env.secret(name)


class Script:
    """CREATE TABLEs of a Flink SQL script; INSERTs may be there, and are not run."""

    def __init__(self, tables: TableScript) -> None:
        self._tables = tables

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the declared tables."""
        return tuple(self._tables.tables)

    def source(self, table: str) -> "TableSource":
        """A table to read; nothing is contacted yet.

        Raises:
            ConfigError: no such table, its connector is no source, or an option is wrong.
        """
        return TableSource(self._tables.reader(table))

    def sink(self, table: str) -> "TableSink":
        """A table to write to; nothing is contacted yet.

        Raises:
            ConfigError: no such table, its connector is no sink, or an option is wrong.
        """
        return TableSink(self._tables.writer(table))
