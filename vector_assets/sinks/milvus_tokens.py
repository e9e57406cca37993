"""Positions and batches in the target's own database: a collection of JSON rows beside the data.

One row is the head of a pipeline (where the target stands), one more is kept for each batch; both are written by one
request into a collection of one shard, after the data was acknowledged. Milvus knows no condition on a write: a check
comes before and after the data, so an owner that was replaced in between is found, but not kept from writing.
"""

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from vector_assets.clients.milvus import Collection, Field, Index, NotLoadedError, RefusedError, text_literal
from vector_assets.engine.abilities import Recalled
from vector_assets.engine.core import BatchToken
from vector_assets.engine.errors import FatalError, PlanError
from vector_assets.sinks.applied import PRUNE_EVERY, Applied, AppliedTokens, Standing, oldest_kept

if TYPE_CHECKING:
    from vector_assets.clients.milvus_api import Api

COLLECTION = "vector_assets_batches"
_MOST_BYTES = 65_000
_PAGE = 1_000

_ID = Field("id", "VarChar", is_key=True, max_length=64)
_SCOPE = Field("scope", "VarChar", max_length=64)
_PIPELINE = Field("pipeline", "VarChar", max_length=1024)
_SEQ = Field("seq", "Int64")
_BODY = Field("body", "VarChar", max_length=65_535)
# a collection must have a vector
_NOTHING = Field("nothing", "FloatVector", dimension=2)
_FIELDS = (_ID, _SCOPE, _PIPELINE, _SEQ, _BODY, _NOTHING)

_MARK = "vector_assets.incarnation"
"""Property that tells a collection of milvus-lite from its successor under the same name: it has no ids."""


class Tokens(AppliedTokens[Standing]):
    """The rows of one pipeline and target."""

    connector = "milvus"
    noun = "collection"

    def __init__(self, api: "Api", target: str, pipeline: str) -> None:
        super().__init__(target, pipeline)
        self.api = api

    def state(self, seq: int | None = None) -> Standing:
        """Where the target stands, and what it says of batch `seq`."""
        ids = [self._id("head"), *([] if seq is None else [self._id(seq)])]
        rows = dict(self._read(f"id in [{', '.join(map(text_literal, ids))}]"))
        head = rows.get(self._id("head"), {})
        batch = rows.get(self._id(seq))
        return Standing(
            positions=head.get("positions", {}),
            incarnation=head.get("incarnation"),
            last_seq=head.get("seq", 0),
            batch=Applied.of_json(batch) if batch else None,
        )

    def finish(self, state: Standing, token: BatchToken, batch: Applied) -> None:
        """Note that a batch is applied and move the positions; rows of old batches are removed now and then."""
        head = self._head(state, token, batch)
        self._write([("head", 0, head), (str(token.seq), token.seq, batch.to_json())])
        last = oldest_kept(token.seq)
        if last is not None:
            self._delete(pa.array([self._id(seq) for seq in range(max(1, last - 2 * PRUNE_EVERY), last)]))

    def recall(self) -> Recalled:
        """Everything the rows say of the pipeline."""
        batches = (Applied.of_json(body) for name, body in self._all() if not name.endswith("head"))
        return self._recalled(self.state(), batches)

    def prune(self, up_to: int) -> int:
        """Remove the rows of batches up to this number, but the newest; how many there were."""
        last = min(up_to, self.newest_seq() - 1)
        # the head's number is 0
        found = self._ids(f"seq >= 1 and seq <= {last}")
        self._delete(found)
        return len(found)

    def forget(self) -> None:
        """Remove the pipeline's rows for this target."""
        self._delete(self._ids())

    def _ids(self, where: str = "") -> pa.Array:
        """Names of the pipeline's rows for this target that meet an expression."""
        wanted = f"scope == {text_literal(self.scope)}" + (f" and {where}" if where else "")
        found, last = [pa.array([], pa.string())], ""
        while len(page := self._query(f"{wanted} and id > {text_literal(last)}", (_ID,), _PAGE)):
            found.append(page.column(_ID.name).combine_chunks())
            last = _last(found[-1])
        return pa.concat_arrays(found)

    def _all(self) -> list[tuple[str, dict[str, Any]]]:
        found: list[tuple[str, dict[str, Any]]] = []
        scope = f"scope == {text_literal(self.scope)}"
        last = ""
        while page := self._read(f"{scope} and id > {text_literal(last)}", limit=_PAGE):
            found += page
            last = page[-1][0]
        return found

    def _read(self, where: str, limit: int | None = None) -> list[tuple[str, dict[str, Any]]]:
        table = self._query(where, (_ID, _BODY), limit)
        return [
            (name, _unpacked(body))
            for name, body in zip(*(column.to_pylist() for column in table.columns), strict=True)
        ]

    def _query(self, where: str, fields: Sequence[Field], limit: int | None) -> pa.Table:
        try:
            return self.api.query(COLLECTION, where, fields, limit=limit, in_order=limit is not None)
        except NotLoadedError:
            # somebody released it, or milvus-lite was started again
            self.api.load(COLLECTION)
            return self.api.query(COLLECTION, where, fields, limit=limit, in_order=limit is not None)

    def _write(self, rows: Sequence[tuple[str, int, dict[str, Any]]]) -> None:
        from vector_assets.clients.milvus_requests import upserts

        bodies = [_packed(body) for _, _, body in rows]
        if max(map(len, bodies)) > _MOST_BYTES:
            raise FatalError(f"milvus: {self.target}: the positions of pipeline {self.pipeline} do not fit a row")
        columns = [
            (_ID, pa.array([self._id(name) for name, _, _ in rows])),
            (_SCOPE, pa.array([self.scope] * len(rows))),
            (_PIPELINE, pa.array([self.pipeline] * len(rows))),
            (_SEQ, pa.array([seq for _, seq, _ in rows], pa.int64())),
            (_BODY, pa.array(bodies)),
            (_NOTHING, pa.array([[0.0, 1.0]] * len(rows), pa.list_(pa.float32()))),
        ]
        for _, error in self.api.write([upserts(COLLECTION, columns, range(len(rows)), None)], 1):
            raise error

    def _delete(self, keys: pa.Array) -> None:
        from vector_assets.clients.milvus_requests import deletes

        chunks = [range(at, min(at + _PAGE, len(keys))) for at in range(0, len(keys), _PAGE)]
        for _, error in self.api.write((deletes(COLLECTION, _ID, keys, chunk, None) for chunk in chunks), 1):
            raise error


def _last(names: pa.Array) -> str:
    return str(names[-1].as_py())


def _packed(body: Mapping[str, Any]) -> str:
    """JSON, compressed, for a text field holds 65,535 bytes."""
    return base64.b85encode(zlib.compress(orjson.dumps(body))).decode()


def _unpacked(text: str) -> dict[str, Any]:
    return dict(orjson.loads(zlib.decompress(base64.b85decode(text))))


def is_missing(api: "Api") -> bool:
    """True while the database has no collection for batches."""
    return COLLECTION not in api.collections()


def create(api: "Api") -> None:
    """Make the collection for batches unless it is there, and make it readable; several processes may do so at once.

    Raises:
        PlanError: there is another collection of this name, or the user may not make it.
    """
    if is_missing(api):
        try:
            api.create_collection(COLLECTION, _FIELDS, description="batches and positions of vector_assets pipelines")
        except RefusedError as error:
            # somebody else may have been quicker
            if is_missing(api):
                raise PlanError(f"{error}: the collection {COLLECTION} cannot be made") from error
    found = {field.name: field.type for field in api.describe(COLLECTION).fields}
    if found != {field.name: field.type for field in _FIELDS}:
        raise PlanError(f"{api.place}: collection {COLLECTION} is not ours: its fields are {', '.join(found)}")
    if not any(index.field == _NOTHING.name for index in api.indexes(COLLECTION)):
        try:
            api.create_index(COLLECTION, Index(_NOTHING.name, "FLAT", "L2"))
        except RefusedError:
            if not api.indexes(COLLECTION):
                raise
    if not api.is_loaded(COLLECTION):
        api.load(COLLECTION)


def incarnation(api: "Api", collection: Collection) -> str | None:
    """What tells the collection from a later one of its name; None on milvus-lite while it has no mark."""
    return str(collection.id) if collection.id else collection.properties.get(_MARK)


def mark(api: "Api", collection: Collection, value: str) -> Collection:
    """Give a collection of milvus-lite the mark that servers have by its id."""
    api.set_properties(collection.name, {_MARK: value})
    return replace(collection, properties={**collection.properties, _MARK: value})
