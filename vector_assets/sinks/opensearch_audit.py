"""An index read back, so that it can be compared with what should be there."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import pyarrow as pa

from vector_assets.clients.opensearch import Client
from vector_assets.sinks.kinds import kind_of
from vector_assets.sinks.opensearch_plan import Column, Plan
from vector_assets.sinks.opensearch_values import HIDDEN, ids_of, stored, stored_type

_PAGE_BYTES = 8 << 20
_ROW_BYTES = 512
_MOST_ROWS = 5_000
_KEYS = 500


def as_stored(plan: Plan, rows: pa.Table) -> pa.Table:
    """The rows that the index would take, in the types that documents are read back in."""
    table = stored(plan, rows)[0]
    return table.select([name for name in table.column_names if name not in HIDDEN])


def rows_of(client: Client, plan: Plan, keys: pa.Table) -> pa.Table:
    """The documents that have one of these keys, as `scan` gives them; of one index read by id,
    without a refresh."""
    ids = ids_of(plan, keys).drop_null().unique().tolist()
    found: list[dict[str, Any]] = []
    if plan.index.is_several:
        client.ask("POST", f"/{plan.index.name}/_refresh")
    for at in range(0, len(ids), _KEYS):
        part = ids[at : at + _KEYS]
        if plan.index.is_several:
            body = {"size": 2 * _KEYS, "query": {"ids": {"values": part}}}
            answer = client.ask("POST", f"/{plan.index.name}/_search", body, params=_source(plan))
            found += [hit["_source"] for hit in answer["hits"]["hits"]]
            continue
        answer = client.ask("POST", f"/{plan.index.name}/_mget", {"ids": part}, params=_source(plan))
        found += [document["_source"] for document in answer["docs"] if document["found"]]
    return _table(plan, found)


def scan(client: Client, plan: Plan) -> Iterator[pa.RecordBatch]:
    """Every document of the index as it was at one moment, a page at a time."""
    client.ask("POST", f"/{plan.index.name}/_refresh")
    rows = page_rows(plan.columns)
    body = {"size": rows, "sort": ["_doc"], "_source": [column.name for column in plan.columns]}
    with closing(client.pages(plan.index.name, body)) as pages:
        for hits in pages:
            yield from _table(plan, [hit["_source"] for hit in hits]).to_batches()
        # an empty index has its columns, too
        yield from _table(plan, []).to_batches()


def page_rows(columns: Sequence[Column]) -> int:
    """Documents of a page: about 8 MB of JSON."""
    numbers = sum(column.dimension or 0 for column in columns)
    return max(16, min(_MOST_ROWS, _PAGE_BYTES // (_ROW_BYTES + 20 * numbers)))


def _source(plan: Plan) -> dict[str, str]:
    return {"_source_includes": ",".join(column.name for column in plan.columns)}


def _table(plan: Plan, sources: Sequence[dict[str, Any]]) -> pa.Table:
    arrays = {column.name: _array(column, [source.get(column.name) for source in sources]) for column in plan.columns}
    return pa.table(arrays)


def _array(column: Column, values: list[Any]) -> pa.Array:
    """JSON values in the column's type; times as documents spell them."""
    wanted = stored_type(column)
    if pa.types.is_timestamp(wanted):
        texts = pa.array(values, pa.string())
        if wanted.tz:
            return pa.compute.cast(texts, wanted)
        return texts.cast(wanted)
    if kind_of(wanted) in {"DATE", "TIME"}:
        return pa.array(values, pa.string()).cast(wanted)
    if kind_of(wanted) == "BYTES":
        import base64

        return pa.array([None if value is None else base64.b64decode(value) for value in values], wanted)
    if kind_of(wanted) == "DECIMAL":
        return pa.array(values, pa.float64()).cast(wanted)
    return pa.array(values, wanted)
