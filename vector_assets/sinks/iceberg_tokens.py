"""Where a pipeline stands, kept by the table itself: a property for the newest batch, a snapshot's summary for each.

Both are written by the commit that makes the rows visible. Every batch makes a snapshot, an empty one too, so a commit
that asserts which snapshot it follows is a compare-and-set on the property: nobody can move it unseen. The property
outlives every snapshot.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson

from vector_assets.engine.abilities import Recalled, RecalledBatch
from vector_assets.engine.core import BatchToken, Counts, Found, Position, Receipt, Span, canonical
from vector_assets.engine.errors import ExpiredError, FatalError, FencedError
from vector_assets.sinks.contiguity import differences, told

if TYPE_CHECKING:
    from pyiceberg.table import Table

HEAD = "vector-assets.pipeline."
"""Prefix of the property that holds a pipeline's head."""
BATCH = "vector-assets.batch"
"""Key of a snapshot's summary that holds its batch."""
MADE_BY = "vector-assets.made-by"
"""Property that names the pipeline a table was made by."""
_MOST_SPAN = 4_000
"""Longest span, as JSON, that a summary holds; the archive knows longer ones."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What the table says of a batch; `snapshot` is the one that its commit made."""

    seq: int
    token: str
    fence: int
    counts: Counts
    snapshot: int
    at_ms: int
    span: Span | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON, read back by `of_json`."""
        counts = {name: number for name, number in self.counts.to_dict().items() if number}
        span = self.span.to_json() if self.span is not None else None
        return {
            "seq": self.seq, "token": self.token, "fence": self.fence, "counts": counts, "snapshot": self.snapshot,
            "at_ms": self.at_ms, **({"span": span} if span is not None and len(span) <= _MOST_SPAN else {}),
        }  # fmt: skip

    @classmethod
    def of_json(cls, found: Mapping[str, Any]) -> "Applied":
        """The batch that `to_json` wrote."""
        span = Span.from_json(found["span"]) if "span" in found else None
        counts = Counts.from_dict(found["counts"])
        return cls(found["seq"], found["token"], found["fence"], counts, found["snapshot"], found["at_ms"], span)


@dataclass(frozen=True, slots=True)
class Head:
    """Where the table stands with a pipeline; `since` is the first batch it holds of it."""

    positions: Position
    since: int
    newest: Applied


class Tokens:
    """The tokens of one pipeline in a table, as the table was loaded."""

    def __init__(self, table: "Table", pipeline: str, place: str) -> None:
        self.table = table
        self.pipeline = pipeline
        self.place = place

    @property
    def name(self) -> str:
        """The property's name."""
        return HEAD + self.pipeline

    def head(self) -> Head | None:
        """Where the table stands; None when it never saw the pipeline.

        Raises:
            FatalError: somebody set the table back to a snapshot before the newest batch, or spoilt the property.
        """
        text = self.table.properties.get(self.name)
        if text is None:
            return None
        try:
            found = orjson.loads(text)
            head = Head(found["positions"], found["since"], Applied.of_json(found["newest"]))
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise FatalError(f"{self.place}: the table property {self.name} cannot be read") from error
        self._check_not_set_back(head)
        return head

    def _check_not_set_back(self, head: Head) -> None:
        current = self.table.metadata.current_snapshot_id
        snapshot = head.newest.snapshot
        by_id = {known.snapshot_id: known.parent_snapshot_id for known in self.table.metadata.snapshots}
        at = current
        while at is not None and at != snapshot and at in by_id:
            at = by_id[at]
        # an ancestor that is expired cannot be followed further: the batch lies beyond it
        if at == snapshot or (at is not None and at not in by_id):
            return
        if current is None or snapshot in by_id:
            raise FatalError(
                f"{self.place}: the table was set back to snapshot {current}, before batch {head.newest.seq} of"
                f" pipeline {self.pipeline} (snapshot {snapshot}): its rows are gone, its position is not: bring it"
                f" forward again, or run `vector-assets reset {self.pipeline} --adopt-target` and replay"
            )

    def batches(self) -> dict[int, Applied]:
        """Batches by number, as far as snapshots and property remember them."""
        found: dict[int, Applied] = {}
        for snapshot in self.table.metadata.snapshots:
            text = snapshot.summary.additional_properties.get(BATCH) if snapshot.summary else None
            body = orjson.loads(text) if text else {}
            if body.get("pipeline") == self.pipeline:
                batch = Applied.of_json(body)
                found[batch.seq] = batch
        head = self.head()
        if head is not None:
            # what was forgotten and begun anew counts no longer
            found = {seq: batch for seq, batch in found.items() if head.since <= seq <= head.newest.seq}
            found.setdefault(head.newest.seq, head.newest)
            return found
        return {}

    def batch(self, seq: int) -> Applied | None:
        """One batch, if it is remembered."""
        head = self.head()
        if head is None or not head.since <= seq <= head.newest.seq:
            return None
        return head.newest if head.newest.seq == seq else self.batches().get(seq)

    def find(self, token: BatchToken) -> Found:
        """Whether the batch is applied; ABSENT only when the positions are where it starts.

        A batch between the first and the newest whose snapshot is expired was applied: positions move in sequence only.
        """
        head = self.head()
        if head is not None and head.since <= token.seq <= head.newest.seq:
            batch = self.batch(token.seq)
            return "APPLIED" if batch is None or batch.token == token.id else "UNKNOWN"
        return "UNKNOWN" if self._differences(head, token) else "ABSENT"

    def check(self, token: BatchToken) -> None:
        """Refuse a batch that is not the next one.

        Raises:
            FencedError: the positions are not where the batch starts, or a later owner was here.
        """
        head = self.head()
        if head is not None and head.newest.fence > token.fence:
            raise FencedError(
                f"{self.place}: pipeline {self.pipeline} has a later owner (fence {head.newest.fence}), ours is"
                f" {token.fence}"
            )
        if (head is not None and token.seq <= head.newest.seq) or self._differences(head, token):
            raise self.fenced(token)

    def _differences(self, head: Head | None, token: BatchToken) -> list[str]:
        return differences(head.positions if head is not None else {}, token)

    def fenced(self, token: BatchToken) -> FencedError:
        """The error that shows where the batch starts and where the table is."""
        head = self.head()
        newest = f"the target holds batches up to {head.newest.seq}" if head is not None else "the target holds none"
        return FencedError(
            f"{self.place}: batch {token.seq} of pipeline {self.pipeline} is not the next one:"
            f" {told(self._differences(head, token), newest)}"
        )

    def receipt(self, token: BatchToken) -> Receipt:
        """What was noted when the batch was committed.

        Raises:
            FencedError: it is not there, or was applied by a later owner or under another token.
            ExpiredError: it is applied, but its snapshot is expired and its counts with it.
        """
        batch = self.batch(token.seq)
        if batch is None and self.find(token) == "APPLIED":
            raise ExpiredError(
                f"{self.place}: batch {token.seq} of pipeline {self.pipeline} is applied; its snapshot is expired, and"
                " what it said of the batch with it"
            )
        if batch is None:
            raise self.fenced(token)
        if batch.token != token.id or batch.fence > token.fence:
            raise FencedError(
                f"{self.place}: batch {token.seq} of pipeline {self.pipeline} is in the target already, token"
                f" {batch.token} by fence {batch.fence}; ours is {token.id} by fence {token.fence}"
            )
        return Receipt(token.id, str(batch.snapshot), batch.counts)

    def after(self, token: BatchToken, counts: Counts, snapshot: int) -> tuple[Applied, dict[str, str]]:
        """The batch as committed by `snapshot`, and the property that says so."""
        head = self.head()
        now_ms = time.time_ns() // 1_000_000
        batch = Applied(token.seq, token.id, token.fence, counts, snapshot, now_ms, token.span)
        positions = {**(head.positions if head is not None else {}), **token.span.end}
        # the span of the newest batch is in its snapshot; the property is small
        body = {
            "positions": positions,
            "since": head.since if head is not None else token.seq,
            "newest": replace(batch, span=None).to_json(),
        }
        return batch, {self.name: canonical(body)}

    def summary(self, batch: Applied) -> dict[str, str]:
        """What the snapshot says of its batch."""
        return {BATCH: canonical({"pipeline": self.pipeline, **batch.to_json()})}

    def recall(self) -> Recalled:
        """Everything the table says of the pipeline."""
        head = self.head()
        if head is None:
            return Recalled({}, ())
        known = self.batches()
        batches = tuple(
            RecalledBatch(b.seq, b.token, b.span, b.counts, str(b.snapshot), b.at_ms) for _, b in sorted(known.items())
        )
        fence = max(batch.fence for batch in known.values())
        return Recalled(head.positions, batches, fence=fence, incarnation=str(self.table.metadata.table_uuid))
