"""A collection read back, so that it can be compared with what should be there."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.clients.milvus import Field, text_literal
from vector_assets.engine.core import HIDDEN, POSITION
from vector_assets.sinks.milvus_plan import Plan
from vector_assets.sinks.milvus_values import convert

if TYPE_CHECKING:
    from vector_assets.clients.milvus_api import Api

_PAGE_BYTES = 8 * 1024**2
_MOST_ROWS = 16_000
"""A server sends at most 16,384 rows at a time."""
_KEYS = 1_000
"""Keys that are asked for at a time."""
_ROW_BYTES = 256
"""What a row takes beside its vectors, roughly."""


def as_stored(plan: Plan, rows: pa.Table) -> pa.Table:
    """The rows that the collection would take, in its types; JSON texts in one spelling."""
    columns, reasons = convert(rows, plan.fields)
    hidden = [name for name in rows.column_names if name in HIDDEN]
    kept = rows.select(hidden)
    if reasons:
        kept = kept.filter(pc.is_in(rows.column(POSITION), value_set=columns.positions))
    table = pa.table({field.name: _spelled(field, array) for field, array in columns.fields})
    for name in hidden:
        table = table.append_column(name, kept.column(name))
    return table


def as_stored_keys(plan: Plan, keys: pa.Table) -> pa.Table:
    """The key's column as the collection would hold it."""
    columns, _ = convert(keys, (plan.key,))
    return pa.table({plan.key.name: columns.array(plan.key), POSITION: columns.positions})


def rows_of(api: "Api", plan: Plan, keys: pa.Table) -> pa.Table:
    """The rows that have one of these keys, as `scan` gives them."""
    from vector_assets.clients.milvus_requests import one_of

    wanted = as_stored_keys(plan, keys).column(plan.key.name).combine_chunks()
    api.load_if_lite(plan.name)
    # without a key the columns still have their types
    pages = [
        api.query(plan.name, one_of(plan.key, wanted.slice(at, _KEYS)), plan.fields, partition=plan.partition)
        for at in range(0, max(len(wanted), 1), _KEYS)
    ]
    whole = pa.concat_tables(pages).combine_chunks()
    columns = [_spelled(field, whole.column(field.name).combine_chunks()) for field in plan.fields]
    return pa.table(columns, names=[field.name for field in plan.fields])


def scan(api: "Api", plan: Plan) -> Iterator[pa.RecordBatch]:
    """Every row of the collection (of the plan's partition, if any), by key, a page at a time."""
    api.load_if_lite(plan.name)
    for page in pages(api, plan.name, plan.key, plan.fields, partition=plan.partition):
        yield from page.to_batches()


def pages(
    api: "Api",
    name: str,
    key: Field,
    fields: tuple[Field, ...],
    *,
    where: str = "",
    partition: str | None = None,
) -> Iterator[pa.Table]:
    """Rows that meet an expression, by key; JSON texts in one spelling."""
    rows = page_rows(fields)
    wanted = (key, *(field for field in fields if field.name != key.name))
    names = [field.name for field in fields]
    after = where
    while True:
        page = api.query(name, after, wanted, partition=partition, limit=rows, in_order=True)
        if page.num_rows:
            columns = [_spelled(field, page.column(field.name).combine_chunks()) for field in fields]
            yield pa.table(columns, names=names)
        if page.num_rows < rows:
            return
        step = _behind(key, page)
        after = f"({where}) and {step}" if where else step


def _behind(key: Field, page: pa.Table) -> str:
    """The expression that is true for rows after the page."""
    last = page.column(key.name)[-1].as_py()
    return f"{key.name} > {text_literal(last) if isinstance(last, str) else last}"


def page_rows(fields: tuple[Field, ...]) -> int:
    """Rows of a page: about 8 MB."""
    vectors = sum(4 * (field.dimension or 64) for field in fields if field.is_vector)
    return max(16, min(_MOST_ROWS, _PAGE_BYTES // (vectors + _ROW_BYTES)))


def _spelled(field: Field, array: pa.Array) -> pa.Array:
    """JSON as one spelling of equal values: a server may keep the text, milvus-lite keeps the value."""
    return _json(array) if field.type == "JSON" else array


def _json(array: pa.Array) -> pa.Array:
    return pa.array([None if text is None else _canonical(text) for text in array.to_pylist()], pa.string())


def _canonical(text: str) -> str:
    return orjson.dumps(orjson.loads(text), option=orjson.OPT_SORT_KEYS).decode()
