"""A lake table as DuckDB reads it: it hands down the columns that a query needs, and its conditions."""

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from vector_assets.cli.lake_tables import LakeTable
from vector_assets.engine.abilities import Queryable
from vector_assets.engine.errors import ConfigError, PlanError, TargetReplacedError, VectorAssetsError

if TYPE_CHECKING:
    from vector_assets.engine.core import Sink


class LakeScan(ds.Dataset):  # type: ignore[misc]
    """The table, read anew for each time that a query names it. DuckDB gives columns and filters to a Dataset only."""

    def __init__(self, table: LakeTable) -> None:
        """Connect to the table.

        Raises:
            PlanError: it is not there yet.
            VectorAssetsError: it cannot be reached.
        """
        self._sink: Sink = table.pipeline.open_sink()
        if not isinstance(self._sink, Queryable):
            raise ConfigError(f"{table.full_name}: a sink {table.pipeline.sink_connector} cannot be queried")
        self._queryable: Queryable = self._sink
        try:
            self._schema: pa.Schema = self._queryable.relation().schema
        except TargetReplacedError as error:
            self._sink.close()
            made = f"the first run of {table.pipeline.name} makes it"
            raise PlanError(f"table {table.full_name} is not there: {made}, or it was dropped") from error
        except VectorAssetsError:
            self._sink.close()
            raise

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns."""
        return self._schema

    def scanner(
        self, columns: list[str] | None = None, filter: pc.Expression | None = None, **_: Any
    ) -> ds.Scanner:  # fmt: skip
        """The rows that meet the filter, in these columns: only they are read, and those that the filter names."""
        needed = None if columns is None else [*columns, *self._named(filter, columns)]
        rows = self._queryable.relation(needed, filter)
        return ds.Scanner.from_batches(rows, columns=columns, filter=filter)

    def _named(self, where: pc.Expression | None, besides: list[str]) -> list[str]:
        """Columns that a filter names; one more, whose name is part of another word of it, does no harm."""
        text = "" if where is None else str(where)
        return [name for name in self._schema.names if name in text and name not in besides]

    def close(self) -> None:
        """Give back the connection."""
        self._sink.close()
