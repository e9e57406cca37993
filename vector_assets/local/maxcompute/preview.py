"""The first rows of a table or partition, for a look."""

from collections.abc import Sequence

import pyarrow as pa

from vector_assets.local.maxcompute import wire
from vector_assets.local.maxcompute.catalog import Column, Table
from vector_assets.local.maxcompute.http import Reply, Request
from vector_assets.local.maxcompute.results import csv_text
from vector_assets.local.maxcompute.rows import Rows

_MOST_ROWS = 10_000


class Previews:
    """Requests for the first rows."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def arrow(self, table: Table, request: Request) -> Reply:
        """A plain Arrow stream; timestamps are structs of seconds and nanoseconds."""
        rows, _ = self._head(table, request, request.number("limit", _MOST_ROWS))
        rows = wire.split_stamps(rows)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema) as writer:
            writer.write_table(rows)
        return Reply(sink.getvalue().to_pybytes(), media="application/octet-stream")

    def text(self, table: Table, request: Request) -> Reply:
        """CSV with a head line."""
        rows, _ = self._head(table, request, request.number("linenum", _MOST_ROWS))
        return Reply(csv_text(rows).encode(), media="text/csv")

    def _head(self, table: Table, request: Request, count: int) -> tuple[pa.Table, Sequence[Column]]:
        given = request.query.get("partition", "")
        values = table.values(given) if given else ()
        if given:
            table.extent(values)
        rows = self._rows.head(table, values, min(count, _MOST_ROWS) if count >= 0 else _MOST_ROWS)
        names = request.query.get("columns", "")
        wanted = {name.lower() for name in names.split(",")} if names else {c.name.lower() for c in table.all_columns}
        columns = [column for column in table.all_columns if column.name.lower() in wanted]
        return rows.select([column.name for column in columns]), columns
