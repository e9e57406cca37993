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
from vector_assets.engine.abilities import Recalled, RecalledBatch
from vector_assets.engine.core import BatchToken, Found, Position, Receipt, canonical, no_rejects, rejects
from vector_assets.engine.errors import FatalError, FencedError, PlanError, TargetReplacedError
from vector_assets.sinks.applied import Applied
from vector_assets.sinks.contiguity import differences, told

INDEX = "vector_assets_batches"
"""The index for batches, one in a cluster."""
KEPT_BATCHES = 10_000
"""Batches of a pipeline that are remembered; what is older cannot be replayed."""

_PAGE = 1_000
_PRUNE_EVERY = 100
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
class State:
    """Where the target stands with a pipeline. `base` is added to batch numbers in versions; `place` is where the head
    was read (sequence number and term), None where there is none."""

    positions: Position
    incarnation: str | None
    last_seq: int
    base: int
    newest: Applied | None
    place: tuple[int, int] | None


class Tokens:
    """The documents of one pipeline and target."""

    def __init__(self, client: Client, target: str, pipeline: str) -> None:
        self._client = client
        self.target = target
        self.pipeline = pipeline
        self.scope = hashlib.sha256(canonical([pipeline, target]).encode()).hexdigest()[:32]

    def state(self) -> State:
        """Where the target stands."""
        found = self._client.find(f"/{INDEX}/_doc/{self._id('head')}")
        if found is None:
            return State({}, None, 0, 0, None, None)
        body = found["_source"]["body"]
        newest = Applied.of_json(body["newest"]) if body.get("newest") else None
        place = (found["_seq_no"], found["_primary_term"])
        return State(body["positions"], body["incarnation"], body["seq"], body["base"], newest, place)

    def batch(self, seq: int, state: State) -> Applied | None:
        """What the target says of a batch."""
        if state.newest is not None and state.newest.seq == seq:
            return state.newest
        if seq > state.last_seq:
            return None
        found = self._client.find(f"/{INDEX}/_doc/{self._id(seq)}")
        return Applied.of_json(found["_source"]["body"]) if found else None

    def check(self, state: State, token: BatchToken, incarnation: str) -> None:
        """Refuse a batch that is not the next one, or whose target is another index.

        Raises:
            FencedError: the positions are not where the batch starts.
            TargetReplacedError: the index is not the one the last batch was written to.
        """
        if state.incarnation is not None and state.incarnation != incarnation:
            raise TargetReplacedError(
                f"{self.target} is a new index ({incarnation}) under the name of the one that pipeline {self.pipeline}"
                f" wrote to ({state.incarnation})"
            )
        if differences(state.positions, token):
            raise self.fenced(state, token)

    def fenced(self, state: State, token: BatchToken) -> FencedError:
        """The error that shows where the batch starts and where the target is."""
        reasons = told(differences(state.positions, token))
        return FencedError(
            f"opensearch: {self.target}: batch {token.seq} of pipeline {token.pipeline} is not the next one: {reasons}"
        )

    def finish(self, state: State, token: BatchToken, batch: Applied) -> None:
        """Note that a batch is applied and move the positions, unless somebody else did meanwhile.

        Raises:
            FencedError: the head is not the one that `state` was read from.
        """
        if state.newest is not None:
            self._put(self._id(state.newest.seq), state.newest.seq, state.newest.to_json())
        head = {
            "positions": {**state.positions, **token.span.end},
            "incarnation": batch.incarnation,
            "seq": max(token.seq, state.last_seq),
            "base": state.base,
            "newest": batch.to_json(),
        }
        self._put_head(head, state)
        if token.seq > KEPT_BATCHES and token.seq % _PRUNE_EVERY == 0:
            self._delete(1, token.seq - KEPT_BATCHES)

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

    def find(self, token: BatchToken, incarnation: str | None) -> Found:
        """Whether the batch is applied; ABSENT only when the positions are where it starts.

        Raises:
            TargetReplacedError: the batch was applied to an index that is gone.
            FatalError: the batch is older than what the target remembers.
        """
        state = self.state()
        batch = self.batch(token.seq, state)
        if batch is None:
            if state.last_seq - token.seq >= KEPT_BATCHES:
                raise FatalError(
                    f"opensearch: {self.target}: batch {token.seq} of pipeline {token.pipeline} is older than the"
                    f" {KEPT_BATCHES} batches that the target remembers: whether it was applied cannot be told"
                )
            return "UNKNOWN" if differences(state.positions, token) else "ABSENT"
        if batch.token != token.id:
            return "UNKNOWN"
        if batch.incarnation != incarnation:
            now = "was dropped" if incarnation is None else f"is a new index ({incarnation})"
            raise TargetReplacedError(
                f"{self.target} {now}; batch {token.seq} of pipeline {token.pipeline} was written to"
                f" {batch.incarnation}"
            )
        return "APPLIED"

    def receipt(self, token: BatchToken) -> Receipt:
        """What was noted when the batch was committed.

        Raises:
            FencedError: the batch is not there, or was applied by a later owner of the pipeline or under another token.
        """
        state = self.state()
        batch = self.batch(token.seq, state)
        if batch is None:
            raise self.fenced(state, token)
        return self.receipt_of(batch, token)

    def receipt_of(self, batch: Applied, token: BatchToken) -> Receipt:
        """The receipt of a batch that is there.

        Raises:
            FencedError: it was applied by a later owner of the pipeline or under another token.
        """
        if batch.token != token.id or batch.fence > token.fence:
            raise FencedError(
                f"opensearch: {self.target}: batch {token.seq} of pipeline {token.pipeline} is in the target already,"
                f" token {batch.token} by fence {batch.fence}; ours is {token.id} by fence {token.fence}"
            )
        refused = no_rejects()
        if batch.rejected:
            refused = rejects([at for at, _ in batch.rejected], "write", [reason for _, reason in batch.rejected])
        return Receipt(token.id, batch.commit_id, batch.counts, refused)

    def recall(self) -> Recalled:
        """Everything the documents say of the pipeline."""
        state = self.state()
        older = {batch.seq: batch for batch in self._all() if batch.seq <= state.last_seq}
        if state.newest is not None:
            older[state.newest.seq] = state.newest
        batches = [older[seq] for seq in sorted(older)]
        return Recalled(
            state.positions,
            tuple(RecalledBatch(b.seq, b.token, b.span, b.counts, b.commit_id, b.at_ms) for b in batches),
            fence=max((batch.fence for batch in batches), default=0),
            incarnation=state.incarnation,
        )

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

    def _id(self, name: object) -> str:
        return f"{self.scope}:{name}"


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
