"""How a Milvus target is: server, collection, indexes, and the collection for batches."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vector_assets.clients.milvus import Collection, NoCollectionError
from vector_assets.engine.abilities import Finding
from vector_assets.sinks import milvus_tokens
from vector_assets.sinks.milvus_options import MilvusOptions
from vector_assets.sinks.milvus_plan import OLDEST

if TYPE_CHECKING:
    from vector_assets.clients.milvus_api import Api


def findings(api: "Api", options: MilvusOptions) -> Iterator[Finding]:
    """Everything worth a line, the server first."""
    yield _server(api)
    try:
        collection = api.describe(options.collection)
    except NoCollectionError:
        what = f"collection {options.collection} does not exist in database {options.database}"
        yield Finding("problem", what, "make it: `vector-assets target create FILE.sql`, or mend collectionName")
    else:
        yield from _indexes(api, collection)
        yield _rows(api, collection, options.partition)
    if milvus_tokens.is_missing(api):
        yield Finding("ok", f"{milvus_tokens.COLLECTION} will be made by the first run")
    else:
        yield Finding("ok", "the collection of positions and batches is there")


def _server(api: "Api") -> Finding:
    answer = f"Milvus answers at {api.login.address}: {api.server.version}"
    if api.server.is_older(*OLDEST):
        wanted = ".".join(map(str, OLDEST[:2]))
        remedy = f"upgrade the server; docs/milvus.md says what differs before {wanted}"
        return Finding("warning", f"MILVUS_BELOW_2_4: {answer}; the connector is made for {wanted} and later", remedy)
    return Finding("ok", answer)


def _indexes(api: "Api", collection: Collection) -> Iterator[Finding]:
    indexes = {index.field: index for index in api.indexes(collection.name)}
    for field in collection.fields:
        index = indexes.get(field.name)
        if index is not None:
            kind = f"{index.type} by {index.metric}"
            yield Finding("ok", f"{collection.name}: vector field {field.name} {field.spelled} has an index: {kind}")
        elif field.is_vector:
            what = f"{collection.name}: vector field {field.name} has no index: it cannot be searched by one"
            yield Finding("warning", what, "`vector-assets target create FILE.sql` adds it")


def _rows(api: "Api", collection: Collection, partition: str | None) -> Finding:
    if api.is_loaded(collection.name):
        count = api.count(collection.name, collection.key, partition=partition)
        place = f"partition {partition} of collection" if partition else "collection"
        return Finding("ok", f"{place} {collection.name} is loaded and has {count:,} rows")
    what = f"collection {collection.name} is not loaded: rows can be written, but not searched or read"
    remedy = "nothing to do: the next run loads it" if api.server.is_lite else "load it with the server's own client"
    return Finding("warning", what, remedy)
