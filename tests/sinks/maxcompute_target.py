"""Tables of a local MaxCompute, and sinks that write them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pytest

from tests.fix_maxcompute import MaxCompute as Server
from tests.sinks.contract import SCHEMA
from tests.sources.maxcompute_table import options_of
from vector_assets.engine.core import BatchToken, Range, Span
from vector_assets.engine.schema import Table
from vector_assets.sinks.maxcompute import MaxComputeSink
from vector_assets.sinks.maxcompute_options import MaxComputeSinkOptions

CARS = "id int NOT NULL, color string, feature string"
DELTA = "TBLPROPERTIES ('transactional'='true', 'write.bucket.num'='4')"
UPSERT = {"enableUpsert": "true", "upsert.write.bucket.num": "4"}
TUNNELS = {"batch": {}, "stream": {"useStreamTunnel": "true"}, "upsert": UPSERT}


class Lot:
    """One table, by its name, and sinks on it."""

    def __init__(self, server: Server, name: str) -> None:
        self.server, self.name = server, name
        self.sinks: list[MaxComputeSink] = []

    def options(self, **options: object) -> MaxComputeSinkOptions:
        return MaxComputeSinkOptions.parse(options_of(self.server, self.name, **options), "connector odps")

    def sink(
        self,
        schema: pa.Schema | None = SCHEMA,
        key: tuple[str, ...] = (),
        table: Table | None = None,
        **options: object,
    ) -> MaxComputeSink:
        """A prepared sink (not prepared without a schema), closed after the test."""
        sink = MaxComputeSink(self.options(**options), table, "cars")
        self.sinks.append(sink)
        if schema is not None:
            sink.prepare(schema, key)
        return sink

    def rows(self, columns: str = "id, color, feature", order: str = "id") -> list[tuple[Any, ...]]:
        """Rows by plain pyodps."""
        return [tuple(row) for row in self.server.rows(f"SELECT {columns} FROM {self.name} ORDER BY {order}")]


def token(seq: int = 1, pipeline: str = "cars") -> BatchToken:
    """The name of a batch."""
    return BatchToken(pipeline, "target", seq, Span((Range("s", seq - 1, seq),)), 1)


@pytest.fixture
def make_lot(maxcompute: Server) -> Iterator[Callable[..., Lot]]:
    """Makes tables: an ordinary one of cars, unless told otherwise; `kind` `upsert` is a Delta table by id."""
    made: list[Lot] = []

    def make(columns: str = CARS, more: str = "", *, kind: str = "batch", server: Server | None = None) -> Lot:
        if kind == "upsert":
            columns, more = f"{columns}, PRIMARY KEY (id)", f"{more} {DELTA}"
        name = str((server or maxcompute).table(columns, more).name)
        made.append(Lot(server or maxcompute, name))
        return made[-1]

    yield make
    for lot in made:
        for sink in lot.sinks:
            sink.close()


def columns_of(rows: Sequence[Sequence[Any]], at: int) -> list[Any]:
    return [row[at] for row in rows]
