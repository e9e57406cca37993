"""Positions and batches in the target's own cluster: documents of an index beside the data.

The head of a pipeline (where the target stands, with the newest batch) is one document, changed only on condition that
it is still the one that was read (`if_seq_no`): of two owners of a pipeline one wins. A batch counts as applied when
the head says so. Older batches have a document each, written before the head forgets them.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vector_assets.clients.opensearch import Client, RefusedError
from vector_assets.engine.abilities import Recalled
from vector_assets.engine.core import BatchToken
from vector_assets.engine.errors import FencedError, PlanError
from vector_assets.sinks.applied import Applied, AppliedTokens, Standing, oldest_kept

INDEX = "vector_assets_batches"
"""The index for batches, one in a cluster."""

_PAGE = 1_000
_MAPPING = {
    "dynamic": "strict",
    "properties": {
        "scope": {"type": "keyword"},
        "pipeline": {"type": "keyword"},
        "seq": {"type": "long"},
        "body": {"type": "object", "enabled": False},
    },
}


@dataclass(frozen=True, slots=True)
class State(Standing):
    """`base` is added to batch numbers in versions; `newest` is the newest batch. `place` is where the head was read
    (sequence number and term), None where there is none."""

    base: int
    newest: Applied | None
    place: tuple[int, int] | None


class Tokens(AppliedTokens[State]):
    """The documents of one pipeline and target."""

    connector = "opensearch"
    noun = "index"

    def __init__(self, client: Client, target: str, pipeline: str) -> None:
        super().__init__(target, pipeline)
        self._client = client

    def state(self, seq: int | None = None) -> State:
        """Where the target stands, and what it says of batch `seq`."""
        found = self._client.find(f"/{INDEX}/_doc/{self._id('head')}")
        if found is None:
            return State({}, None, 0, None, 0, None, None)
        body = found["_source"]["body"]
        newest = Applied.of_json(body["newest"]) if body.get("newest") else None
        place = (found["_seq_no"], found["_primary_term"])
        batch = self._batch(seq, newest, body["seq"])
        return State(body["positions"], body["incarnation"], body["seq"], batch, body["base"], newest, place)

    def _batch(self, seq: int | None, newest: Applied | None, last_seq: int) -> Applied | None:
        if newest is not None and newest.seq == seq:
            return newest
        if seq is None or seq > last_seq:
            return None
        found = self._client.find(f"/{INDEX}/_doc/{self._id(seq)}")
        return Applied.of_json(found["_source"]["body"]) if found else None

    def finish(self, state: State, token: BatchToken, batch: Applied) -> None:
        """Note that a batch is applied and move the positions, unless somebody else did meanwhile.

        Raises:
            FencedError: the head is not the one that `state` was read from.
        """
        if state.newest is not None:
            self._put(self._id(state.newest.seq), state.newest.seq, state.newest.to_json())
        self._put_head({**self._head(state, token, batch), "base": state.base, "newest": batch.to_json()}, state)
        last = oldest_kept(token.seq)
        if last is not None:
            self._delete(1, last)

    def _put_head(self, head: dict[str, Any], state: State) -> None:
        condition: dict[str, Any] = {"op_type": "create"}
        if state.place is not None:
            condition = {"if_seq_no": state.place[0], "if_primary_term": state.place[1]}
        try:
            self._put(self._id("head"), 0, head, **condition)
        except RefusedError as error:
            if error.status != _CONFLICT:
                raise
            raise FencedError(
                f"opensearch: {self.target}: somebody else committed a batch of pipeline {self.pipeline} meanwhile"
            ) from error

    def begin(self, token: BatchToken) -> bool:
        """Note that documents of a batch are about to be written; True when an attempt of it was noted before."""
        name = self._id("begun")
        found = self._client.find(f"/{INDEX}/_doc/{name}")
        if found is not None and found["_source"]["body"]["token"] == token.id:
            return True
        self._put(name, 0, {"token": token.id})
        return False

    def recall(self) -> Recalled:
        """Everything the documents say of the pipeline."""
        state = self.state()
        batches = {batch.seq: batch for batch in self._all() if batch.seq <= state.last_seq}
        if state.newest is not None:
            batches[state.newest.seq] = state.newest
        return self._recalled(state, batches.values())

    def prune(self, up_to: int) -> int:
        """Remove the documents of batches up to this number, but the newest; how many there were."""
        return self._delete(1, min(up_to, self.state().last_seq - 1))

    def forget(self) -> None:
        """Drop the pipeline's positions and batches. What stays is how high its versions were: documents that it wrote
        keep theirs, and those of its next batches must be higher."""
        state = self.state()
        if state.place is None:
            return
        self._delete(1, state.last_seq)
        floor: dict[str, Any] = {
            "positions": {},
            "incarnation": None,
            "seq": 0,
            "base": state.base + state.last_seq,
            "newest": None,
        }
        self._put_head(floor, state)

    def _all(self) -> Iterator[Applied]:
        self._client.ask("POST", f"/{INDEX}/_refresh")
        after: list[Any] = []
        while True:
            body: dict[str, Any] = {"query": self._where(1, None), "sort": ["seq"], "size": _PAGE}
            if after:
                body["search_after"] = after
            hits = self._client.ask("POST", f"/{INDEX}/_search", body)["hits"]["hits"]
            yield from (Applied.of_json(hit["_source"]["body"]) for hit in hits)
            if len(hits) < _PAGE:
                return
            after = hits[-1]["sort"]

    def _where(self, first: int, last: int | None) -> dict[str, Any]:
        span = {"gte": first} if last is None else {"gte": first, "lte": last}
        return {"bool": {"filter": [{"term": {"scope": self.scope}}, {"range": {"seq": span}}]}}

    def _delete(self, first: int, last: int) -> int:
        if last < first:
            return 0
        self._client.ask("POST", f"/{INDEX}/_refresh")
        body = {"query": self._where(first, last)}
        answer = self._client.ask("POST", f"/{INDEX}/_delete_by_query", body, params={"refresh": "true"})
        return int(answer["deleted"])

    def _put(self, name: str, seq: int, body: dict[str, Any], **condition: Any) -> None:
        document = {"scope": self.scope, "pipeline": self.pipeline, "seq": seq, "body": body}
        self._client.ask("PUT", f"/{INDEX}/_doc/{name}", document, params=condition)


_CONFLICT = 409


def family_of(client: Client, target: str) -> dict[str, Any] | None:
    """What was noted of a target's indices when they were last looked at; None where nothing was."""
    found = client.find(f"/{INDEX}/_doc/{_family_id(target)}")
    body: dict[str, Any] | None = found["_source"]["body"] if found else None
    return body


def note_family(client: Client, target: str, body: dict[str, Any]) -> None:
    """Note of which indices a target consists."""
    document = {"scope": _family_id(target), "pipeline": "", "seq": 0, "body": body}
    client.ask("PUT", f"/{INDEX}/_doc/{_family_id(target)}", document)


def _family_id(target: str) -> str:
    return "indices:" + hashlib.sha256(target.encode()).hexdigest()[:32]


def is_missing(client: Client) -> bool:
    """True while the cluster has no index for batches."""
    return client.find(f"/{INDEX}") is None


def create(client: Client) -> None:
    """Make the index for batches unless it is there; several processes may do so at once.

    Raises:
        PlanError: there is another index of this name.
    """
    found = client.find(f"/{INDEX}")
    if found is None:
        settings = {"index": {"number_of_shards": 1, "auto_expand_replicas": "0-1", "hidden": True}}
        try:
            client.ask("PUT", f"/{INDEX}", {"settings": settings, "mappings": _MAPPING})
        except RefusedError as error:
            if error.kind != "resource_already_exists_exception":
                raise
        return
    (body,) = found.values()
    if set(body["mappings"].get("properties", {})) != set(_MAPPING["properties"]):
        raise PlanError(f"{client.place}: index {INDEX} is not ours")
