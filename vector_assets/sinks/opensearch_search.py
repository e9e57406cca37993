"""Documents nearest to a vector or to a text, and how an index is doing."""

from collections.abc import Collection, Iterator
from typing import Any

import orjson
import pyarrow as pa

from vector_assets.clients.opensearch import Client, RefusedError
from vector_assets.engine.abilities import DISTANCE, Finding, SearchQuery, SearchResult
from vector_assets.engine.errors import ConfigError, PlanError
from vector_assets.engine.registry import nearest
from vector_assets.sinks.opensearch_index import Index, describe
from vector_assets.sinks.opensearch_options import OpenSearchOptions
from vector_assets.sinks.opensearch_tokens import INDEX

_HYBRID = {
    "phase_results_processors": [
        {
            "normalization-processor": {
                "normalization": {"technique": "min_max"},
                "combination": {"technique": "arithmetic_mean"},
            }
        }
    ]
}
"""Scores of words and of vectors brought to one scale and averaged."""


def search(client: Client, options: OpenSearchOptions, query: SearchQuery) -> SearchResult:
    """The `k` best documents without their vectors; `_distance` is OpenSearch's score, larger is nearer.

    Raises:
        ConfigError: no such vector field, another dimension, a metric (the index has its own), or a refused filter.
        PlanError: the index is missing, or has no vector field or no model for a text.
    """
    index = describe(client, options.index)
    if index is None:
        raise PlanError(f"opensearch: index {options.index} does not exist")
    if query.metric is not None:
        raise ConfigError(f"opensearch: {options.index} has a distance of its own: leave out the metric")
    field = _vector_field(index, query.column)
    vectors = [name for name, body in index.properties.items() if body.get("type") == "knn_vector"]
    body: dict[str, Any] = {"size": query.k, "_source": {"excludes": vectors}}
    if query.text is not None:
        how = _by_text(client, index, field, query, body)
    else:
        how = _by_vector(index, field, query, body)
    try:
        hits = client.ask("POST", f"/{options.address}/_search", body)["hits"]["hits"]
    except RefusedError as error:
        raise ConfigError(str(error)) from error
    rows = pa.Table.from_pylist([{"_id": hit["_id"], **hit["_source"]} for hit in hits])
    scores = pa.array([hit["_score"] for hit in hits], pa.float64())
    return SearchResult(rows.append_column(DISTANCE, scores) if hits else pa.table({DISTANCE: scores}), how)


def _vector_field(index: Index, name: str | None) -> str:
    known = [each for each, body in index.properties.items() if body.get("type") == "knn_vector"]
    if not known:
        raise PlanError(f"opensearch: {index.name} has no vector field")
    if name is None and len(known) > 1:
        raise ConfigError(f"opensearch: {index.name} has several vector fields, say which: {', '.join(known)}")
    if name is not None and name not in known:
        raise ConfigError(
            f"opensearch: {index.name} has no vector field {name}{nearest(name, known)}; there are: {', '.join(known)}"
        )
    return name or known[0]


def _filter(query: SearchQuery) -> dict[str, Any]:
    """`where` as a query: JSON of the query language, or words of `query_string`."""
    if query.where is None:
        # without a filter an exact search counts deleted documents among the k of a segment
        return {"match_all": {}}
    if not query.where.lstrip().startswith("{"):
        return {"query_string": {"query": query.where}}
    try:
        found: dict[str, Any] = orjson.loads(query.where)
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"opensearch: the filter is no JSON: {error}") from None
    return found


def _by_vector(index: Index, field: str, query: SearchQuery, body: dict[str, Any]) -> str:
    wanted = index.properties[field]
    if len(query.vector) != wanted["dimension"]:
        raise ConfigError(
            f"opensearch: {field} has {wanted['dimension']} dimensions, the vector has {len(query.vector)}"
        )
    method = wanted.get("method", {})
    space = method.get("space_type") or wanted.get("space_type") or "l2"
    if query.exact:
        params = {"field": field, "query_value": query.vector, "space_type": space}
        script = {"source": "knn_score", "lang": "knn", "params": params}
        exists = {"bool": {"filter": [{"exists": {"field": field}}, _filter(query)]}}
        body["query"] = {"script_score": {"query": exists, "script": script}}
        return f"score by {space} over all documents with {field}"
    body["query"] = {"knn": {field: {"vector": query.vector, "k": query.k, "filter": _filter(query)}}}
    return f"score by {space}, {method.get('engine', 'default')} {method.get('name', 'index')} of {field}"


def _by_text(client: Client, index: Index, field: str, query: SearchQuery, body: dict[str, Any]) -> str:
    """By the model and the text field of the index's own ingest pipeline."""
    model, text_field = _model(client, index, field)
    neural = {"neural": {field: {"query_text": query.text, "model_id": model, "k": query.k, "filter": _filter(query)}}}
    if not query.is_hybrid:
        body["query"] = neural
        return f"score of {field} by model {model}"
    words = {"bool": {"must": [{"match": {text_field: query.text}}], "filter": [_filter(query)]}}
    body["query"] = {"hybrid": {"queries": [words, neural]}}
    body["search_pipeline"] = _HYBRID
    return f"mean of the words' score in {text_field} and that of {field} by model {model}"


def _model(client: Client, index: Index, field: str) -> tuple[str, str]:
    made = made_by(client, index).get(field)
    if made is None:
        raise PlanError(
            f"opensearch: {index.name}: no ingest pipeline of its own fills {field}, so no model is known for a text:"
            " search by vector"
        )
    return made


def made_by(client: Client, index: Index) -> dict[str, tuple[str, str]]:
    """Vector fields that the index's own ingest pipeline fills: model and text field."""
    name = index.settings.get("index.default_pipeline")
    found = client.find(f"/_ingest/pipeline/{name}") if name else None
    processors = (found or {}).get(name, {}).get("processors", [])
    made = (each["text_embedding"] for each in processors if "text_embedding" in each)
    return {
        vector: (each["model_id"], text)
        for each in made
        for text, vector in each.get("field_map", {}).items()
        if isinstance(vector, str)
    }


def brings_all(client: Client, index: Index, vectors: Collection[str]) -> bool:
    """True where all that the index's own ingest pipeline makes is `vectors`, which documents bring along.

    Of several indices each may have a pipeline of its own: false.
    """
    made = _embeds(client, index).values() if vectors else ()
    return bool(made) and all(isinstance(vector, str) and vector in vectors for vector in made)


def embedded(client: Client, index: Index) -> frozenset[str]:
    """Text fields that the index's own ingest pipeline embeds, where that is all it does; of several indices: none."""
    made = _embeds(client, index)
    return frozenset(made) if all(isinstance(vector, str) for vector in made.values()) else frozenset()


def _embeds(client: Client, index: Index) -> dict[str, Any]:
    """What the index's own ingest pipeline embeds, by text field; nothing where it does anything else as well."""
    name = index.settings.get("index.default_pipeline")
    if not name or name == "_none" or index.is_several:
        return {}
    processors = (client.find(f"/_ingest/pipeline/{name}") or {}).get(name, {}).get("processors", [])
    if any(set(each) != {"text_embedding"} for each in processors):
        return {}
    return {text: vector for each in processors for text, vector in each["text_embedding"].get("field_map", {}).items()}


def findings(client: Client, options: OpenSearchOptions) -> Iterator[Finding]:
    """The server, its health, the index, and whether it may be written."""
    version = client.ask("GET", "/")["version"]["number"]
    yield Finding("ok", f"OpenSearch {version} answers")
    index = describe(client, options.index)
    if index is None:
        yield Finding("problem", f"index {options.index} does not exist", "vector-assets target create SCRIPT")
        return
    health = client.ask("GET", f"/_cluster/health/{index.name}")["status"]
    if health == "red":
        yield Finding(
            "problem", f"index {options.index} is red: shards are missing", "see GET _cluster/allocation/explain"
        )
    else:
        yield Finding("ok", f"index {options.index} is {health}")
    if index.settings.get("index.blocks.read_only_allow_delete") == "true":
        yield Finding(
            "problem",
            f"index {options.index} is read-only: the disk is past its flood-stage watermark",
            "free the disk; the server takes the block away by itself",
        )
    name = index.settings.get("index.default_pipeline")
    if name and client.find(f"/_ingest/pipeline/{name}") is None:
        yield Finding(
            "problem", f"the ingest pipeline {name} does not exist: every write fails", "vector-assets search-setup"
        )
    batches = client.find(f"/{INDEX}")
    yield Finding("ok", f"{INDEX} {'is there' if batches else 'will be made by the first run'}")
