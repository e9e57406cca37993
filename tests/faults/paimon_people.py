"""The append table `people` in a Paimon warehouse, for the jobs of `tests.faults.changes`."""

from pathlib import Path
from typing import Any

from vector_assets.sinks.paimon import PaimonSink
from vector_assets.sinks.paimon_options import PaimonOptions


class PaimonPeople:
    """The table, in a warehouse of its own."""

    def __init__(self, folder: Path, *, options: str = "") -> None:
        self.folder, self.options = folder, options
        (folder / "shop.db").mkdir(parents=True)

    @property
    def place(self) -> dict[str, str]:
        return {"warehouse": str(self.folder), "catalog-database": "shop", "catalog-table": "people"}

    def sink(self) -> str:
        place = "".join(f", '{name}' = '{value}'" for name, value in self.place.items())
        return f"'connector' = 'paimon'{place}{self.options}"

    def close(self) -> None:
        """Nothing is open."""

    def _read(self) -> list[dict[str, Any]]:
        sink = PaimonSink(PaimonOptions.parse({"connector": "paimon", **self.place}, "reader"), None, "reader")
        return [] if sink.storage.load() is None else sink.relation().read_all().to_pylist()

    def rows(self) -> dict[Any, tuple[Any, ...]]:
        found = self._read()
        rows = {row["id"]: (row["name"], row["age"], row["vec"]) for row in found}
        assert len(rows) == len(found), "a row is there twice"
        return rows

    def batches(self) -> dict[Any, int]:
        """The batch that is noted beside every row."""
        return {row["id"]: row["_batch"] for row in self._read()}

    def versions(self) -> list[Any]:
        """What changes with every commit."""
        return sorted(path.name for path in (self.folder / "shop.db" / "people" / "snapshot").glob("snapshot-*"))
