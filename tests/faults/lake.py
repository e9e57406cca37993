"""The table `people` in an Iceberg catalog, for the jobs of `tests.faults.changes`."""

from pathlib import Path
from typing import Any

APPENDED = "'connector' = 'kafka', 'format' = 'json', 'scan.startup.mode' = 'earliest-offset'"
"""A source of inserts only, for a table that rows are appended to."""


class IcebergPeople:
    """The table, by a catalog in a folder (or at `uri`); rows are upserted, or appended."""

    def __init__(self, folder: Path, *, appends: bool = False, uri: str = "", options: str = "") -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.appends, self.options = folder, appends, options
        self.uri = uri or f"sqlite:///{folder / 'catalog.db'}"
        self.seen_uri = self.uri
        self.warehouse = folder / "warehouse"
        self._catalog: Any = None

    def sink(self) -> str:
        return (
            f"'connector' = 'iceberg', 'uri' = '{self.uri}', 'warehouse' = 'file://{self.warehouse}',"
            f" 'catalog-database' = 'shop', 'catalog-table' = 'people', 'vector.dimensions' = 'vec:3',"
            f" 'write.upsert.enabled' = '{str(not self.appends).lower()}'{self.options}"
        )

    def catalog(self) -> Any:
        from pyiceberg.catalog.sql import SqlCatalog

        if self._catalog is None:
            uri = self.seen_uri.replace("postgresql://", "postgresql+psycopg://")
            self._catalog = SqlCatalog("lake", uri=uri, warehouse=f"file://{self.warehouse}")
        return self._catalog

    def close(self) -> None:
        if self._catalog is not None:
            self._catalog.engine.dispose()

    def table(self) -> Any:
        return self.catalog().load_table("shop.people")

    def drop(self) -> None:
        self.catalog().drop_table("shop.people")

    def rows(self) -> dict[Any, tuple[Any, ...]]:
        if not self.catalog().table_exists("shop.people"):
            return {}
        found = self.table().scan().to_arrow().to_pylist()
        rows = {row["id"]: (row["name"], row["age"], row["vec"]) for row in found}
        assert len(rows) == len(found), "a row is there twice"
        return rows

    def batches(self) -> dict[Any, int]:
        """The batch that is noted beside every row."""
        found = self.table().scan().to_arrow().to_pylist()
        return {row["id"]: row["_batch"] for row in found}

    def versions(self) -> list[Any]:
        """What changes with every commit."""
        return [self.table().metadata_location]
