"""Vectors that an index's ingest pipeline makes: whether they are all there, and whether they are right."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from vector_assets.clients.opensearch import Client
from vector_assets.engine.abilities import Tally
from vector_assets.engine.errors import PlanError
from vector_assets.sinks.opensearch_index import Index, describe
from vector_assets.sinks.opensearch_options import OpenSearchOptions
from vector_assets.sinks.opensearch_search import made_by

_TOGETHER = 10
"""Texts that a model is asked for at a time; Model Studio takes no more."""
_PREDICT_S = 60.0
_PAGE = 1_000
_NEAR = 1e-4
"""Models answer the same text a little differently from request to request."""


def count(client: Client, options: OpenSearchOptions) -> int:
    """Documents of the index, with those of a moment ago."""
    client.ask("POST", f"/{options.address}/_refresh")
    return int(client.ask("GET", f"/{options.address}/_count")["count"])


def audit(client: Client, options: OpenSearchOptions, sample: int) -> Iterator[Tally]:
    """Tallies of every vector field that the pipeline fills.

    Raises:
        PlanError: the index does not exist.
        TransientError: the model does not answer.
    """
    index = describe(client, options.index)
    if index is None:
        raise PlanError(f"opensearch: index {options.index} does not exist")
    made = made_by(client, index)
    if made:
        client.ask("POST", f"/{options.address}/_refresh")
    for vector, (model, text) in made.items():
        there, missing = (_counted(client, index, text, vector, has_vector=each) for each in (True, False))
        blank = _blank(client, index, text, vector) if missing else 0
        missing -= blank
        note = f"{there:,} have one" + (f", {blank:,} have a blank text" if blank else "")
        yield Tally(f"documents with {text} that have no {vector} = 0", missing, 0, note)
        yield from _sampled(client, index, model, text, vector, sample)


def _counted(client: Client, index: Index, text: str, vector: str, *, has_vector: bool) -> int:
    with_text = [{"exists": {"field": text}}]
    query = {"bool": {"filter": [*with_text, {"exists": {"field": vector}}]}} if has_vector else _without(text, vector)
    return int(client.ask("POST", f"/{index.name}/_count", {"query": query})["count"])


def _without(text: str, vector: str) -> dict[str, Any]:
    """The query for documents with a text that have no vector."""
    return {"bool": {"filter": [{"exists": {"field": text}}], "must_not": [{"exists": {"field": vector}}]}}


def _blank(client: Client, index: Index, text: str, vector: str) -> int:
    """How many documents have no vector because their text is blank: no query finds a text without a word."""
    body = {"query": _without(text, vector), "size": _PAGE, "sort": ["_doc"], "_source": [text]}
    with closing(client.pages(index.name, body)) as pages:
        values = (hit["_source"].get(text) for hits in pages for hit in hits)
        return sum(isinstance(value, str) and not value.strip() for value in values)


def _sampled(client: Client, index: Index, model: str, text: str, vector: str, sample: int) -> Iterator[Tally]:
    """Vectors drawn at random beside what the model makes of their texts now."""
    have = [{"exists": {"field": vector}}, {"exists": {"field": text}}]
    query = {"function_score": {"query": {"bool": {"filter": have}}, "random_score": {}}}
    body = {"query": query, "size": sample, "_source": [text, vector]}
    found = [hit["_source"] for hit in client.ask("POST", f"/{index.name}/_search", body)["hits"]["hits"]]
    size = index.properties[vector]["dimension"]
    short = sum(len(each[vector]) != size for each in found)
    yield Tally(f"sampled {vector} of other than {size} numbers = 0", short, 0, f"of {len(found)}")
    again = _predicted(client, model, [each[text] for each in found])
    wrong = sum(not _is_near(each[vector], other) for each, other in zip(found, again, strict=True))
    note = f"of {len(found)}, which model {model} made again"
    yield Tally(f"sampled {vector} that are not those of their {text} = 0", wrong, 0, note)


def _predicted(client: Client, model: str, texts: Sequence[str]) -> list[list[float]]:
    found: list[list[float]] = []
    for at in range(0, len(texts), _TOGETHER):
        part = list(texts[at : at + _TOGETHER])
        path = f"/_plugins/_ml/models/{model}/_predict"
        answer = client.ask("POST", path, {"parameters": {"input": part}}, timeout_s=_PREDICT_S)
        made = [each["data"] for each in answer["inference_results"][0]["output"]]
        if len(made) != len(part):
            raise PlanError(f"{client.place}: model {model} answers {len(made)} vectors for {len(part)} texts")
        found += made
    return found


def _is_near(kept: Sequence[float], made: Sequence[float]) -> bool:
    if len(kept) != len(made):
        return False
    one, other = np.asarray(kept, np.float64), np.asarray(made, np.float64)
    return bool(np.linalg.norm(one - other) <= _NEAR * max(float(np.linalg.norm(other)), 1e-12))
