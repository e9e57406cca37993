"""Paimon tables in a folder of their own, and sinks that write them."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.sinks.contract import SCHEMA
from vector_assets.engine.schema import Column, LogicalType, Table
from vector_assets.sinks.paimon import PaimonSink
from vector_assets.sinks.paimon_options import PaimonOptions

_TYPES = {"int32": "INT", "int64": "BIGINT", "string": "VARCHAR"}


class Lake:
    """A warehouse with the database `db`; `store` are the options that reach it."""

    def __init__(self, warehouse: str, store: dict[str, str] | None = None) -> None:
        self.warehouse = warehouse
        self.store = store or {}
        self.sinks: list[PaimonSink] = []

    @property
    def path(self) -> str:
        return f"{self.warehouse}/db.db/cars"

    def options(self, **options: object) -> PaimonOptions:
        """Options for the table; dots and dashes in names are written as two and three underscores."""
        given = {
            "connector": "paimon",
            "warehouse": self.warehouse,
            "catalog-database": "db",
            "catalog-table": "cars",
            **self.store,
            **{name.replace("___", "-").replace("__", "."): str(value) for name, value in options.items()},
        }
        return PaimonOptions.parse({k: v for k, v in given.items() if v != "None"}, "connector paimon")

    def sink(
        self, schema: pa.Schema | None = SCHEMA, key: tuple[str, ...] = ("id",), table: Any = None, **options: object
    ) -> PaimonSink:
        """A prepared sink (not prepared without a schema)."""
        sink = PaimonSink(self.options(**options), table, "cars")
        self.sinks.append(sink)
        if schema is not None:
            sink.prepare(schema, key)
        return sink

    def rows(self, **options: object) -> list[tuple[Any, ...]]:
        """Every row by the table's columns, in order."""
        sink = PaimonSink(self.options(**options), None, "reader")
        if sink.storage.load() is None:
            return []
        rows = sink.relation().read_all().to_pylist()
        return sorted(
            (tuple(row.values()) for row in rows),
            key=lambda row: [(value is None, str(type(value)), value) for value in row],
        )

    def numbers(self) -> list[int]:
        """Numbers of the snapshots that are there."""
        names = (path.name for path in Path(self.path, "snapshot").iterdir())
        return sorted(int(m[1]) for name in names if (m := re.fullmatch(r"snapshot-(\d+)", name)))


def declared(schema: pa.Schema, key: tuple[str, ...] = (), **types: LogicalType) -> Table:
    """A declared table of the schema's columns; `types` where the Arrow type does not tell."""
    columns = [
        Column(f.name, types.get(f.name) or LogicalType(_TYPES[str(f.type)], nullable=f.nullable)) for f in schema
    ]
    return Table("cars", tuple(columns), key)


@pytest.fixture
def make_lake(tmp_path: Path) -> Iterator[Callable[..., Lake]]:
    """Makes warehouses in the test's own folder."""
    made: list[Lake] = []

    def make(name: str = "warehouse") -> Lake:
        (tmp_path / name / "db.db").mkdir(parents=True)
        made.append(Lake(str(tmp_path / name)))
        return made[-1]

    yield make
    for lake in made:
        for sink in lake.sinks:
            sink.close()


@pytest.fixture
def lake(make_lake: Callable[..., Lake]) -> Lake:
    return make_lake()
