"""Tables of cars in a catalog of SQLite, and sinks that write them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.sinks.contract import SCHEMA
from vector_assets.sinks.iceberg import IcebergSink
from vector_assets.sinks.iceberg_options import IcebergOptions

CARS = "shop.cars"


class Lake:
    """A catalog of its own in a folder, seen with pyiceberg's own client."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uri = f"sqlite:///{folder / 'catalog.db'}"
        self.warehouse = f"file://{folder / 'warehouse'}"
        self.sinks: list[IcebergSink] = []

    @property
    def catalog(self) -> Any:
        """A client of its own, by the same catalog."""
        from pyiceberg.catalog.sql import SqlCatalog

        return SqlCatalog("lake", uri=self.uri, warehouse=self.warehouse)

    def options(self, **options: object) -> IcebergOptions:
        """Options for the table; dots and dashes in names are written as two and three underscores."""
        given = {
            "connector": "iceberg",
            "uri": self.uri,
            "warehouse": self.warehouse,
            "catalog-database": "shop",
            "catalog-table": "cars",
            **{name.replace("___", "-").replace("__", "."): str(value) for name, value in options.items()},
        }
        return IcebergOptions.parse({k: v for k, v in given.items() if v != "None"}, "connector iceberg")

    def sink(
        self, schema: pa.Schema | None = SCHEMA, key: tuple[str, ...] = ("id",), pipeline: str = "cars",
        table: Any = None, **options: object,
    ) -> IcebergSink:  # fmt: skip
        """A prepared sink (not prepared without a schema), closed after the test; upserts unless told otherwise."""
        given = {"write__upsert__enabled": "true" if key else "false", "vector__dimensions": "feature:3"}
        if schema is not None and "feature" not in schema.names:
            del given["vector__dimensions"]
        sink = IcebergSink(self.options(**{**given, **options}), table, pipeline)
        self.sinks.append(sink)
        if schema is not None:
            sink.prepare(schema, key)
        return sink

    def table(self, name: str = CARS) -> Any:
        """The table as it is now."""
        return self.catalog.load_table(name)

    def rows(self, name: str = CARS) -> list[dict[str, Any]]:
        """All rows by id; none while there is no table."""
        if not self.catalog.table_exists(name):
            return []
        return sorted(self.table(name).scan().to_arrow().to_pylist(), key=lambda row: row["id"])

    def files(self, kind: str = "*") -> set[str]:
        """Files below the warehouse."""
        return {str(path) for path in (self.folder / "warehouse").rglob(kind) if path.is_file()}

    def close(self) -> None:
        for sink in self.sinks:
            sink.close()


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    made = Lake(tmp_path)
    yield made
    made.close()


@pytest.fixture
def make_lake(tmp_path: Path) -> Iterator[Callable[[str], Lake]]:
    """Makes lakes in folders of the given names."""
    made: list[Lake] = []

    def make(name: str) -> Lake:
        (tmp_path / name).mkdir()
        made.append(Lake(tmp_path / name))
        return made[-1]

    yield make
    for one in made:
        one.close()
