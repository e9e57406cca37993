"""Rows nearest to a vector, by the collection's index or by looking at every row."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.clients.milvus import Collection, Field, Index, NoCollectionError, RefusedError
from vector_assets.clients.milvus_wire import arrow_type, rounded
from vector_assets.engine.abilities import DISTANCE, SearchQuery, SearchResult
from vector_assets.engine.errors import ConfigError, PlanError
from vector_assets.engine.registry import nearest
from vector_assets.sinks.milvus_audit import pages
from vector_assets.sinks.milvus_options import METRICS, MilvusOptions

if TYPE_CHECKING:
    from vector_assets.clients.milvus_api import Api

_SAMPLED_ROWS = 500
"""Rows of a sample that are asked for at a time."""
_ELEMENTS = {"FloatVector": "<f4", "Float16Vector": "<f2"}


def search(api: "Api", options: MilvusOptions, query: SearchQuery) -> SearchResult:
    """The `k` nearest rows with every field but the vectors; `_distance` is Milvus' score in the metric.

    L2 is the square of the distance and the smallest comes first; for IP and COSINE the largest does.

    Raises:
        ConfigError: no such vector field, a vector of another dimension, another metric than the index's, or a filter
            the server refuses.
        PlanError: there is no dense vector field, or the collection is missing or not loaded.
    """
    collection = _described(api, options)
    field = _vector_field(collection, query.column)
    if len(query.vector) != field.dimension:
        raise ConfigError(f"milvus: {field.name} is {field.spelled}, the vector has {len(query.vector)} dimensions")
    if not np.isfinite(query.vector).all():
        raise ConfigError("milvus: the vector holds NaN or an infinite value")
    index = next((found for found in api.indexes(collection.name) if found.field == field.name), None)
    shown = [found for found in collection.fields if not found.is_vector and arrow_type(found) is not None]
    api.load_if_lite(collection.name)
    try:
        if query.exact:
            return _exact(api, options, collection, field, shown, query, index)
        return _by_index(api, options, collection, field, shown, query, index)
    except RefusedError as error:
        raise ConfigError(str(error)) from error


def sample(api: "Api", options: MilvusOptions, count: int, column: str | None) -> tuple[tuple[float, ...], ...]:
    """Vectors of up to `count` rows chosen at random; Milvus draws none itself, so all keys are read, a page at a time.

    Raises:
        ConfigError: no such vector field.
        PlanError: there is no dense vector field, or the collection is missing or not loaded.
    """
    from vector_assets.clients.milvus_requests import one_of

    collection = _described(api, options)
    field, key = _vector_field(collection, column), collection.key
    api.load_if_lite(collection.name)
    draws, chance = [], np.random.default_rng()
    for page in pages(api, collection.name, key, (key,), partition=options.partition):
        draws.append(page.append_column("_draw", pa.array(chance.random(page.num_rows))))
        # what was drawn so far and cannot be among the smallest any more
        whole = pa.concat_tables(draws)
        draws = [whole.take(pc.select_k_unstable(whole, count, [("_draw", "ascending")]))]
    found: list[tuple[float, ...]] = []
    for at in range(0, draws[0].num_rows if draws else 0, _SAMPLED_ROWS):
        keys = draws[0].column(key.name).slice(at, _SAMPLED_ROWS).combine_chunks()
        rows = api.query(collection.name, one_of(key, keys), (key, field), partition=options.partition)
        vectors = rows.column(field.name).drop_null().combine_chunks()
        flat = vectors.flatten().to_numpy().reshape(len(vectors), -1)
        found += [tuple(row) for row in flat.tolist()]
    return tuple(found)


def _described(api: "Api", options: MilvusOptions) -> Collection:
    try:
        return api.describe(options.collection)
    except NoCollectionError as error:
        raise PlanError(f"milvus: collection {options.collection} does not exist") from error


def _vector_field(collection: Collection, name: str | None) -> Field:
    known = {
        field.name: field for field in collection.fields if field.type in {"FloatVector", *_ELEMENTS, "BFloat16Vector"}
    }
    if not known:
        raise PlanError(f"milvus: {collection.name} has no dense vector field")
    if name is None and len(known) > 1:
        raise ConfigError(f"milvus: {collection.name} has several vector fields, say which: {', '.join(known)}")
    if name is not None and name not in known:
        raise ConfigError(
            f"milvus: {collection.name} has no vector field {name}{nearest(name, known)}; there are: {', '.join(known)}"
        )
    return known[name] if name is not None else next(iter(known.values()))


def _by_index(
    api: "Api",
    options: MilvusOptions,
    collection: Collection,
    field: Field,
    shown: Sequence[Field],
    query: SearchQuery,
    index: Index | None,
) -> SearchResult:
    if index is None:
        raise PlanError(f"milvus: {collection.name}: field {field.name} has no index; an exact search needs none")
    if query.metric is not None and query.metric.upper() != index.metric:
        raise ConfigError(
            f"milvus: the index of {field.name} is by {index.metric}, not {query.metric}; an exact search can use any"
        )
    vector = rounded(field, np.array(query.vector, np.float32))
    if field.type == "BFloat16Vector":
        data = (vector.view(np.uint32) >> 16).astype("<u2").tobytes()
    else:
        data = vector.astype(_ELEMENTS[field.type]).tobytes()
    rows, scores = api.search(
        collection.name, index, data, field.type, query.k, query.where or "", shown, partition=options.partition
    )
    how = f"{index.metric} by the {index.type} index of {field.name}"
    return SearchResult(rows.append_column(DISTANCE, scores), how)


def _exact(
    api: "Api",
    options: MilvusOptions,
    collection: Collection,
    field: Field,
    shown: Sequence[Field],
    query: SearchQuery,
    index: Index | None,
) -> SearchResult:
    metric = (query.metric or (index.metric if index else METRICS["FloatVector"][0])).upper()
    if metric not in METRICS["FloatVector"]:
        known = ", ".join(METRICS["FloatVector"])
        raise ConfigError(f"milvus: unknown metric {query.metric!r}; known metrics: {known}")
    vector = rounded(field, np.array(query.vector, np.float32))
    best: pa.Table | None = None
    seen = 0
    for page in pages(
        api, collection.name, collection.key, (*shown, field), where=query.where or "", partition=options.partition
    ):
        seen += page.num_rows
        page = page.filter(page.column(field.name).is_valid())
        flat = page.column(field.name).combine_chunks().flatten().to_numpy()
        scores = _scores(metric, flat.reshape(-1, len(vector)), vector)
        found = page.drop_columns(field.name).append_column(DISTANCE, pa.array(scores))
        joined = found if best is None else pa.concat_tables([best, found])
        order = "ascending" if metric == "L2" else "descending"
        best = joined.take(pc.sort_indices(joined, [(DISTANCE, order)])[: query.k])
    if best is None:
        schema = [pa.field(found.name, pa.null()) for found in shown]
        best = pa.schema([*schema, pa.field(DISTANCE, pa.float32())]).empty_table()
    return SearchResult(best, f"{metric} over all {seen} rows of {field.name}")


def _scores(metric: str, rows: npt.NDArray[np.float32], vector: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    if metric == "L2":
        return np.asarray(np.square(rows - vector).sum(axis=1), np.float32)
    products = rows @ vector
    if metric == "COSINE":
        lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(vector)
        products = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    return np.asarray(products, np.float32)
